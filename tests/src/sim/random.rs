//! A random run: scripted clients and servers, and a world in which every outcome is chosen.
//!
//! Half of the runs are clean: nothing fails, so the proxy has no reason to answer in a server's place. In the others
//! processes crash, hang and babble, limits are tiny, clocks jump, clients vanish. In both every step is checked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use mcp_proxy_engine::{Body, ChildId, Config, ExchangeId, Exit, Instant, Pipe, SessionMode, Signal};

use super::choices::Choices;
use super::clients::Person;
use super::model::{Answer, Call, Errand, Hello, Note, Purpose, Question, Remark, Reply, Welcome};
use super::record::Recording;
use super::servers::Process;
use super::story;
use super::world::World;

/// Everything of one run.
pub(super) struct Run<'c> {
    pub(super) w: World,
    pub(super) choices: Choices<'c>,
    /// Nothing fails in this run.
    pub(super) clean: bool,
    /// Nothing fails any more.
    pub(super) calm: bool,
    pub(super) people: Vec<Person>,
    pub(super) errands: BTreeMap<ExchangeId, Errand>,
    pub(super) processes: BTreeMap<ChildId, Process>,
    pub(super) hellos: Vec<Hello>,
    pub(super) welcomes: Vec<Welcome>,
    pub(super) calls: Vec<Call>,
    pub(super) answers: Vec<Answer>,
    pub(super) notes: Vec<Note>,
    pub(super) questions: Vec<Question>,
    pub(super) replies: Vec<Reply>,
    pub(super) remarks: Vec<Remark>,
    pub(super) sessions: usize,
    /// Keys of processes that were told once that their client is ready.
    pub(super) initialized: BTreeSet<String>,
    pub(super) stopping: Option<Instant>,
}

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Events.
    pub steps: usize,
    /// Calls that were made.
    pub calls: usize,
    /// Calls that a server answered to the client.
    pub answered: usize,
    /// Processes.
    pub children: usize,
    /// Questions that reached a client.
    pub questions: usize,
    /// Streams that were taken up again.
    pub resumed: usize,
}

/// The configuration of the run that `choices` make.
#[must_use]
pub fn choose_config(choices: &mut Choices<'_>) -> (Config, bool) {
    let clean = choices.chance(50);
    let mut config = story::config();
    if choices.chance(30) {
        let mut other = config.servers[0].clone();
        other.name = "other".into();
        config.servers.push(other);
    }
    for server in &mut config.servers {
        server.sessions =
            choices.of(&[SessionMode::Shared, SessionMode::Shared, SessionMode::PerSession, SessionMode::PerRequest]);
        server.stateless = choices.chance(15);
        server.prestart = choices.chance(50);
    }
    if clean {
        return (config, clean);
    }
    let limits = &mut config.limits;
    let mut set = |limit: &mut usize, tiny: &[usize]| {
        if choices.chance(25) {
            *limit = choices.of(tiny);
        }
    };
    set(&mut limits.max_sessions, &[1, 2, 3]);
    set(&mut limits.max_children, &[1, 2, 3]);
    set(&mut limits.max_exchanges, &[1, 3, 6]);
    set(&mut limits.max_calls, &[1, 2, 4]);
    set(&mut limits.max_batch, &[1, 2]);
    set(&mut limits.max_queue, &[1, 200, 1000]);
    set(&mut limits.max_message, &[100, 300, 500]);
    set(&mut limits.replay_events, &[1, 3]);
    set(&mut limits.replay_bytes, &[1, 300, 1000]);
    set(&mut limits.max_unread, &[1, 1000]);
    let times = &mut config.timeouts;
    let mut set = |time: &mut Duration, short: &[u64]| {
        if choices.chance(30) {
            *time = Duration::from_millis(choices.of(short));
        }
    };
    set(&mut times.start, &[1, 100, 2000]);
    set(&mut times.request, &[0, 500, 5000]);
    set(&mut times.cancel, &[0, 1]);
    set(&mut times.session_idle, &[0, 100, 3000]);
    set(&mut times.child_idle, &[0, 100, 3000]);
    set(&mut times.keep_alive, &[20, 100, 1000]);
    set(&mut times.drain, &[0, 100]);
    set(&mut times.stop_stdin, &[0, 10]);
    set(&mut times.stop_term, &[0, 10]);
    set(&mut times.backoff_first, &[0, 1]);
    set(&mut times.backoff_max, &[0, 100]);
    set(&mut times.backoff_reset, &[0, 100]);
    (config, clean)
}

/// A run in which a check failed.
pub struct Failure {
    /// What failed.
    pub what: String,
    /// The configuration of the run.
    pub config: Config,
    /// What happened until then.
    pub recording: Recording,
}

impl fmt::Display for Failure {
    /// The whole run, as the body of a test.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    // {}", self.what.replace('\n', "\n    // "))?;
        writeln!(f, "    // {:?}", self.config)?;
        writeln!(
            f,
            "    let mut r = Replay::new(config); // this one; sim::choose_config makes it of the same choices"
        )?;
        writeln!(f, "{}", self.recording)?;
        write!(f, "    // {}", self.what.replace('\n', "\n    // "))
    }
}

/// Makes the run of these choices.
///
/// # Errors
///
/// If a check fails. The panic behind it was printed by then, unless a hook prevents that.
pub fn try_run(choices: &Choices<'_>) -> Result<Summary, Box<Failure>> {
    let go = |recording| catch_unwind(AssertUnwindSafe(|| Run::new(choices.clone(), recording).go()));
    go(None).map_err(|_| {
        // Once more, and this time somebody takes notes.
        let recording = Rc::new(RefCell::new(Recording::default()));
        let error = go(Some(Rc::clone(&recording))).err();
        let what = match error.as_deref() {
            None => "the run is not deterministic",
            Some(error) => match (error.downcast_ref::<String>(), error.downcast_ref::<&str>()) {
                (Some(text), _) => text,
                (_, text) => text.copied().unwrap_or("?"),
            },
        };
        let config = choose_config(&mut choices.clone()).0;
        Box::new(Failure { what: what.to_owned(), config, recording: recording.take() })
    })
}

/// Makes the run of a seed.
///
/// # Panics
///
/// If a check fails, with the seed and the list of events.
pub fn run_seed(seed: u64) -> Summary {
    try_run(&Choices::Seed(seed)).unwrap_or_else(|failure| panic!("seed {seed}:\n{failure}"))
}

/// Makes the run that these bytes choose.
///
/// # Panics
///
/// As for [`run_seed`].
pub fn run_bytes(bytes: &[u8]) -> Summary {
    try_run(&Choices::Bytes(bytes)).unwrap_or_else(|failure| panic!("bytes {}:\n{failure}", bytes.escape_ascii()))
}

/// The run of a seed, recorded, with its configuration.
#[must_use]
pub fn record_seed(seed: u64) -> (Config, Recording) {
    let recording = Rc::new(RefCell::new(Recording::default()));
    let config = choose_config(&mut Choices::Seed(seed)).0;
    Run::new(Choices::Seed(seed), Some(Rc::clone(&recording))).go();
    (config, recording.take())
}

/// Something that may happen next in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Spawn(ChildId),
    Wrote(Pipe),
    Data(Pipe),
    Ends(Pipe),
    End(ExchangeId),
    Exit(ChildId),
    Stale(ChildId),
}

impl<'c> Run<'c> {
    fn new(mut choices: Choices<'c>, recording: Option<Rc<RefCell<Recording>>>) -> Self {
        let (config, clean) = choose_config(&mut choices);
        let mut people = Vec::new();
        for _ in 0..=choices.below(4) {
            people.push(Person::choose(&mut choices, &config));
        }
        Run {
            w: World::with_recording(config, recording),
            choices,
            clean,
            calm: false,
            people,
            errands: BTreeMap::new(),
            processes: BTreeMap::new(),
            hellos: Vec::new(),
            welcomes: Vec::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            notes: Vec::new(),
            questions: Vec::new(),
            replies: Vec::new(),
            remarks: Vec::new(),
            sessions: 0,
            initialized: BTreeSet::new(),
            stopping: None,
        }
    }

    fn go(mut self) -> Summary {
        let steps = match self.choices {
            Choices::Seed(_) => 20 + self.choices.below(300),
            Choices::Bytes(_) => usize::MAX,
        };
        if self.choices.chance(75) {
            // Most runs begin where things become interesting: with clients that have shaken hands.
            self.calm = true;
            for who in 0..self.people.len() {
                self.client_acts(who);
                self.oblige();
            }
            self.calm = false;
        }
        let mut left = steps;
        while left > 0 && self.choices.more() && !self.w.done {
            left -= 1;
            self.step();
        }
        if self.stopping.is_none() && self.choices.chance(60) {
            self.calm_down();
        }
        self.shut_down();
        Summary {
            steps,
            calls: self.calls.len(),
            answered: self.calls.iter().filter(|call| call.received && call.answered).count(),
            children: self.w.children.len(),
            questions: self.questions.iter().filter(|question| question.number.is_some()).count(),
            resumed: self.errands.values().filter(|e| matches!(e.purpose, Purpose::Resume(_))).count(),
        }
    }

    fn step(&mut self) {
        match self.choices.below(100) {
            0..40 => self.world_moves(),
            40..70 => self.some_server_acts(),
            70..92 => {
                let who = self.choices.below(self.people.len());
                self.client_acts(who);
            }
            92..99 => self.time_goes_by(),
            _ if self.choices.chance(20) => {
                self.stopping = self.stopping.or(Some(self.w.now));
                self.w.shutdown();
            }
            _ => {}
        }
        self.take_in();
        self.check();
    }

    fn time_goes_by(&mut self) {
        let (now, until) = (self.w.now, self.w.until);
        if self.clean {
            // Far from every limit, but far enough to turn requests into streams.
            if now.elapsed() < Duration::from_secs(100) {
                let wait = self.choices.of(&[1, 100, 900, 15_000]);
                self.w.advance_to(now + Duration::from_millis(wait));
            }
            return;
        }
        match (self.choices.below(8), until) {
            (0..4, Some(until)) => self.w.advance_to(until),
            (4, Some(until)) => self.w.jump(until.since(now)),
            (5, _) => self.w.jump(Duration::from_millis(self.choices.of(&[500, 5000, 60_000, 3_600_000]))),
            (6, _) => self.w.advance_to(now + Duration::from_secs(self.choices.of(&[1, 15, 1900]))),
            _ => self.w.advance_to(now + Duration::from_millis(1 + self.choices.below(400) as u64)),
        }
    }

    /// Everything that is under way and may end now.
    fn ops(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for (&id, child) in &self.w.children {
            if !child.spawned && !child.gone {
                ops.push(Op::Spawn(id));
            }
            if child.writing.is_some() {
                ops.push(Op::Wrote(Pipe::ChildStdin(id)));
            }
            for (pipe, out) in [(Pipe::ChildStdout(id), &child.stdout), (Pipe::ChildStderr(id), &child.stderr)] {
                if out.permitted && !out.buffer.is_empty() {
                    ops.push(Op::Data(pipe));
                } else if out.permitted && (out.eof || child.gone) {
                    ops.push(Op::Ends(pipe));
                }
            }
            if child.lives() && (child.stdin_dropped || !child.signals.is_empty()) {
                ops.push(Op::Exit(id));
            }
            if !child.stale.is_empty() {
                ops.push(Op::Stale(id));
            }
        }
        for (&id, exchange) in &self.w.exchanges {
            if self.w.can_end(id) {
                ops.push(Op::End(id));
            } else if exchange.writing.is_some() {
                ops.push(Op::Wrote(Pipe::Response(id)));
            }
        }
        ops
    }

    fn world_moves(&mut self) {
        let ops = self.ops();
        if ops.is_empty() {
            return;
        }
        let op = self.choices.of(&ops);
        let fault = !self.clean && self.choices.chance(8);
        self.perform(op, fault);
    }

    fn perform(&mut self, op: Op, fault: bool) {
        match op {
            Op::Spawn(id) if fault => {
                let kinds = [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::OutOfMemory];
                self.w.spawn_failed(id, self.choices.of(&kinds));
            }
            Op::Spawn(id) => {
                self.w.spawned(id);
                self.processes.insert(id, Process::default());
            }
            Op::Wrote(pipe @ Pipe::ChildStdin(_)) if fault => self.w.pipe_ends(pipe, Some(ErrorKind::BrokenPipe)),
            Op::Wrote(pipe) => self.w.wrote(pipe),
            Op::Data(pipe) if fault => self.w.pipe_ends(pipe, None),
            Op::Data(pipe) => {
                let most = self.choices.of(&[1, 2, 7, 60, 1000, usize::MAX, usize::MAX, usize::MAX]);
                self.w.data(pipe, most);
            }
            Op::Ends(pipe) => self.w.pipe_ends(pipe, None),
            Op::End(id) => {
                self.w.exchange_ends(id);
                self.client_has_read(id);
            }
            Op::Exit(id) => self.w.exited(id, if fault { Exit::Signal(9) } else { Exit::Code(0) }),
            Op::Stale(id) => self.w.stale(id),
        }
    }

    /// Clients and servers look at what came for them.
    fn take_in(&mut self) {
        let ids: Vec<ExchangeId> =
            self.w.exchanges.iter().filter(|(_, e)| !e.events.is_empty()).map(|(id, _)| *id).collect();
        for id in ids {
            while let Some(event) = self.w.exchanges.get_mut(&id).and_then(|e| e.events.pop_front()) {
                if !self.errands[&id].left {
                    self.client_hears_event(id, event);
                }
            }
        }
        let ids: Vec<ChildId> =
            self.w.children.iter().filter(|(_, c)| !c.lines.is_empty()).map(|(id, _)| *id).collect();
        for id in ids {
            while let Some(line) = self.w.children.get_mut(&id).and_then(|c| c.lines.pop_front()) {
                self.server_reads(id, &line);
            }
        }
    }

    /// The bounds, and that the engine knows of nothing that does not exist.
    fn check(&self) {
        if self.w.done {
            return;
        }
        let stats = self.w.stats();
        let limits = &self.w.config.limits;
        let open = self.w.exchanges.values().filter(|e| !e.over).count();
        assert_eq!(stats.exchanges, open, "exchanges known and exchanges open");
        let alive = self.w.children.values().filter(|child| {
            let open = [&child.stdout, &child.stderr].iter().any(|out| !out.ended && !out.dropped);
            !child.gone || (child.spawned && open)
        });
        assert_eq!(stats.children, alive.count(), "children known and children alive");
        let sessionless = self.w.config.servers.iter().any(|s| s.stateless || s.sessions == SessionMode::PerRequest);
        assert!(sessionless || stats.sessions <= limits.max_sessions, "{} sessions", stats.sessions);
        assert!(stats.questions <= stats.links * limits.max_calls, "{} questions", stats.questions);
        // Each session may give back a few subscriptions, and each restart may set up as many.
        assert!(stats.calls <= stats.links * (limits.max_calls.saturating_add(100)), "{} calls", stats.calls);
        // Calls that nobody waits for any more are remembered for a while.
        self.check_timers(self.calls.len() + 100 * stats.links);
        // One read of a flood may be answered beyond the limit, and one message more is let in.
        let most = limits.max_queue.saturating_add(80_000);
        assert!(self.w.largest_write <= most, "{} bytes were queued for a child", self.w.largest_write);
        assert!(self.w.largest_frame <= most, "{} bytes were queued for a client", self.w.largest_frame);
    }

    fn check_timers(&self, calls: usize) {
        let stats = self.w.stats();
        let timers = stats.exchanges + stats.questions + stats.sessions + calls;
        assert!(stats.timers <= timers + 3 * stats.links + 2 * stats.children + 2, "{stats:?}: too many timers");
    }

    /// Everybody does what is wanted of him, until every open request is answered.
    fn calm_down(&mut self) {
        self.calm = true;
        let limit = self.w.now + Duration::from_secs(3 * 3600);
        for round in 0.. {
            self.oblige();
            let waits = |run: &Self, id: &ExchangeId| {
                !run.w.exchanges[id].over && !matches!(run.errands[id].purpose, Purpose::Listen)
            };
            let listens = |run: &Self, id: &ExchangeId| {
                // A stream of old events to which nothing more belongs ends by itself; the standalone one does not.
                matches!(&run.errands[id].purpose, Purpose::Resume(of) if run.errands[of].purpose == Purpose::Listen)
            };
            let open = self.errands.keys().find(|id| waits(self, id) && !listens(self, id));
            let Some(open) = open else { break };
            let until = self.w.until;
            assert!(
                until.is_some_and(|until| until < limit),
                "{open:?} is never answered: {:?}, {:?}",
                self.errands[open],
                self.w.stats()
            );
            if round < 200 {
                self.w.advance_to(until.unwrap_or(limit));
            } else {
                // An hour of comments every few milliseconds would teach nothing more.
                self.w.jump(Duration::from_secs(10));
            }
            self.take_in();
            self.check();
        }
        // A minute later there is nothing to remember, and nothing to wait for but the next keep-alive and the like.
        let end = self.w.now + Duration::from_secs(60);
        for round in 0.. {
            if self.w.now >= end {
                break;
            }
            match self.w.until {
                Some(until) if round < 100 => self.w.advance_to(until.min(end)),
                _ => self.w.jump(Duration::from_secs(5)),
            }
            self.take_in();
            self.oblige();
        }
        self.check_timers(self.w.stats().calls);
    }

    /// Every operation ends well, and every server answers what it was asked.
    fn oblige(&mut self) {
        loop {
            let mut idle = true;
            for op in self.ops() {
                // An earlier one may have made this one impossible.
                if self.ops().contains(&op) {
                    self.perform(op, false);
                    self.take_in();
                    self.check();
                    idle = false;
                }
            }
            let ids: Vec<ChildId> = self.processes.keys().copied().collect();
            for id in ids {
                idle &= !self.server_obliges(id);
            }
            if idle || self.w.done {
                return;
            }
        }
    }

    fn shut_down(&mut self) {
        self.calm = true;
        if self.stopping.is_none() {
            self.stopping = Some(self.w.now);
            self.w.shutdown();
        }
        let limit = self.w.now + Duration::from_secs(60);
        while !self.w.done {
            self.oblige();
            if !self.w.done {
                let until = self.w.until;
                assert!(until.is_some_and(|u| u < limit), "the shutdown does not end: {:?}", self.w.stats());
                self.w.advance_to(until.unwrap_or(limit));
                self.take_in();
            }
        }
        let times = &self.w.config.timeouts;
        let patience = times.stop_stdin + times.stop_term + Duration::from_secs(1);
        let given_up = self.stopping.is_some_and(|at| self.w.now.since(at) >= patience);
        for (id, exchange) in &self.w.exchanges {
            assert!(exchange.over || given_up, "{id:?} is left: {:?}", self.errands[id]);
        }
        for (id, child) in &self.w.children {
            assert!(child.gone || given_up || child.signals.contains(&Signal::Kill), "{id:?} is left");
        }
    }

    /// An exchange ended as it should: its client has everything.
    pub(super) fn client_has_read(&mut self, id: ExchangeId) {
        let response = self.w.exchanges[&id].response.clone().expect("it was answered");
        if let Body::Full(body) = &response.body {
            self.client_hears_body(id, &response, body);
        } else {
            self.take_in();
        }
        if response.status == 200 {
            self.check_all_answered(id);
        }
    }

    fn check_all_answered(&self, id: ExchangeId) {
        let errand = &self.errands[&id];
        let limits = &self.w.config.limits;
        // A slow client of a shared server may lose its stream, and what is not kept cannot be asked for again.
        let lossy = limits.max_queue < 10_000 || limits.replay_bytes < 10_000 || limits.replay_events < 10;
        if errand.superseded || lossy || errand.left {
            return;
        }
        for call in self.calls_of(id) {
            assert!(self.calls[call].received, "{id:?} ended, and call c{call} has no answer");
        }
    }

    /// The calls whose answers belong to an exchange.
    pub(super) fn calls_of(&self, id: ExchangeId) -> Vec<usize> {
        match &self.errands[&id].purpose {
            Purpose::Calls(calls) => calls.clone(),
            Purpose::Resume(of) => self.calls_of(*of),
            _ => Vec::new(),
        }
    }
}
