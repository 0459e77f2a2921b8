//! The simulator as a rig: the engine in virtual time, servers that are pure functions, and chance in between.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mcp_proxy_engine::{
    Body, ChildId, Command, Config, ExchangeId, Exit, Headers, HttpRequest, Instant, MAX_READ, Pipe, Server, Signal,
};

use super::{DEADLINE, Head, Incoming, Proxy, Request, Rig};
use crate::fake::{Effect, Fake, Flags};
use crate::sim::World;

/// Starts proxies that consist of nothing but an engine in a [`World`].
#[derive(Clone, Copy, Debug)]
pub struct Simulated {
    /// Decides what happens first, and in what pieces.
    pub seed: u64,
}

impl Rig for Simulated {
    fn start(&self, args: &[&str], change: &dyn Fn(&mut Config)) -> Box<dyn Proxy> {
        let args = args.iter().map(Into::into).collect();
        let command = Command { program: "fake-server".into(), args, env: vec![], cwd: None };
        let mut config = Config::new(Server::new("default", command));
        change(&mut config);
        let world = World::new(config);
        let puppets = BTreeMap::new();
        let inner = Inner { world, puppets, sent: BTreeMap::new(), leaving: Vec::new(), chance: self.seed };
        Box::new(Shared(Rc::new(RefCell::new(inner))))
    }
}

/// The server behind a child of the world.
struct Puppet {
    fake: Fake,
    reads: bool,
    ignores_term: bool,
    timers: Vec<(Instant, u64)>,
    /// Written and not yet in the pipe, which holds [`MAX_READ`] bytes.
    stdout: VecDeque<Vec<u8>>,
    stderr: VecDeque<Vec<u8>>,
    stdout_closed: bool,
    /// It ended; the driver does not know yet.
    exit: Option<Exit>,
}

struct Inner {
    world: World,
    puppets: BTreeMap<ChildId, Puppet>,
    /// What clients received of each body.
    sent: BTreeMap<ExchangeId, Vec<u8>>,
    /// Clients that are about to be noticed as gone.
    leaving: Vec<ExchangeId>,
    chance: u64,
}

/// Something that may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Spawned(ChildId),
    Wrote(Pipe),
    Data(Pipe),
    PipeEnds(Pipe),
    Exited(ChildId),
    ExchangeEnds(ExchangeId),
    ClientLeaves(ExchangeId),
}

struct Shared(Rc<RefCell<Inner>>);

impl Proxy for Shared {
    fn send(&self, request: &Request) -> Box<dyn Incoming> {
        let mut headers = Headers::new();
        for (name, value) in &request.headers {
            headers.push(name.clone(), value.clone());
        }
        let id = self.0.borrow_mut().world.request(HttpRequest {
            method: request.method.into(),
            target: request.target.clone(),
            headers,
            body: request.body.clone(),
            random: [0; 16],
        });
        Box::new(Coming { inner: Rc::clone(&self.0), id, read: 0 })
    }

    fn stop(&self) {
        self.0.borrow_mut().world.shutdown();
    }

    fn ended(&self, limit: Duration) {
        self.0.borrow_mut().run_until("the end", limit, |inner| inner.world.done);
    }

    fn now(&self) -> Duration {
        self.0.borrow().world.now.elapsed()
    }

    fn addr(&self) -> Option<SocketAddr> {
        None
    }
}

/// A response of the world.
struct Coming {
    inner: Rc<RefCell<Inner>>,
    id: ExchangeId,
    /// Bytes of the body that were taken.
    read: usize,
}

impl Incoming for Coming {
    fn head(&mut self) -> Head {
        let mut inner = self.inner.borrow_mut();
        let has_head = |inner: &Inner| inner.world.exchanges[&self.id].response.is_some();
        inner.run_until("a response", DEADLINE, has_head);
        let response = inner.world.exchanges[&self.id].response.as_ref().unwrap();
        let headers = response.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Head { status: response.status, headers }
    }

    fn read(&mut self) -> Vec<u8> {
        let (id, read) = (self.id, self.read);
        let mut inner = self.inner.borrow_mut();
        inner.run_until("more of a response", DEADLINE, |inner| {
            inner.world.exchanges[&id].over || inner.sent.get(&id).is_some_and(|sent| sent.len() > read)
        });
        let bytes = inner.sent.get(&id).map_or(Vec::new(), |sent| sent[read..].to_vec());
        self.read += bytes.len();
        bytes
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // A failing test unwinds from inside the world.
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            inner.leaving.push(self.id);
        }
    }
}

impl Inner {
    fn run_until(&mut self, what: &str, limit: Duration, is_it: impl Fn(&Inner) -> bool) {
        let start = self.world.now;
        loop {
            self.puppets_notice();
            if is_it(self) {
                return;
            }
            assert!(!self.world.done, "{what} did not come before the end");
            let steps = self.steps();
            if steps.is_empty() {
                self.wait(what, start + limit);
            } else {
                let choice = self.random(steps.len());
                self.perform(steps[choice]);
            }
        }
    }

    /// Nothing can happen but that time goes by.
    fn wait(&mut self, what: &str, limit: Instant) {
        let timers =
            self.puppets.values().filter(|p| p.exit.is_none()).flat_map(|p| p.timers.iter().map(|(at, _)| *at));
        let next = timers.chain(self.world.until).min().unwrap_or_else(|| panic!("{what} will never come"));
        assert!(next <= limit, "{what} did not come in time");
        self.world.advance_to(next);
    }

    fn random(&mut self, below: usize) -> usize {
        // Any decent mixing will do (splitmix64).
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    }

    /// Everything that may happen now.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (id, child) in &self.world.children {
            if !child.spawned && !child.gone {
                steps.push(Step::Spawned(*id));
            }
            let Some(puppet) = self.puppets.get(id) else { continue };
            if child.writing.is_some() && puppet.reads && puppet.exit.is_none() {
                steps.push(Step::Wrote(Pipe::ChildStdin(*id)));
            }
            for (pipe, out) in [(Pipe::ChildStdout(*id), &child.stdout), (Pipe::ChildStderr(*id), &child.stderr)] {
                if out.permitted && !out.buffer.is_empty() {
                    steps.push(Step::Data(pipe));
                } else if out.permitted && out.eof {
                    steps.push(Step::PipeEnds(pipe));
                }
            }
            if puppet.exit.is_some() && !child.gone {
                steps.push(Step::Exited(*id));
            }
        }
        for (id, exchange) in self.world.exchanges.iter().filter(|(_, exchange)| !exchange.over) {
            if self.leaving.contains(id) {
                steps.push(Step::ClientLeaves(*id));
            } else if exchange.writing.is_some() {
                steps.push(Step::Wrote(Pipe::Response(*id)));
            } else if self.world.can_end(*id) {
                steps.push(Step::ExchangeEnds(*id));
            }
        }
        steps
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Spawned(id) => {
                let args = self.world.children[&id].command.args.iter().map(|arg| arg.to_str().unwrap().to_owned());
                let flags = Flags::parse(args).expect("the arguments are the fake server's");
                let mut puppet = Puppet {
                    reads: true,
                    ignores_term: flags.ignore_term,
                    fake: Fake::new(flags, u32::try_from(id.0).unwrap()),
                    timers: Vec::new(),
                    stdout: VecDeque::new(),
                    stderr: VecDeque::new(),
                    stdout_closed: false,
                    exit: None,
                };
                self.world.spawned(id);
                let effects = puppet.fake.start();
                puppet.take(effects, self.world.now);
                self.puppets.insert(id, puppet);
            }
            Step::Wrote(pipe @ Pipe::ChildStdin(id)) => {
                self.world.wrote(pipe);
                let lines = std::mem::take(&mut self.world.children.get_mut(&id).unwrap().lines);
                let puppet = self.puppets.get_mut(&id).unwrap();
                for line in lines {
                    if puppet.reads && puppet.exit.is_none() {
                        let effects = puppet.fake.line(line.as_bytes());
                        puppet.take(effects, self.world.now);
                    }
                }
            }
            Step::Wrote(pipe) => {
                if let Pipe::Response(id) = pipe {
                    let bytes = self.world.exchanges[&id].writing.clone().unwrap_or_default();
                    self.sent.entry(id).or_default().extend(bytes);
                }
                self.world.wrote(pipe);
            }
            Step::Data(pipe) => {
                let waiting = self.world.out_mut(pipe).buffer.len();
                // Any split must do; tiny pieces of what is large would only take long.
                let most = if waiting > 4096 { MAX_READ } else { 1 + self.random(waiting) };
                self.world.data(pipe, most);
            }
            Step::PipeEnds(pipe) => self.world.pipe_ends(pipe, None),
            Step::Exited(id) => {
                let exit = self.puppets[&id].exit.unwrap();
                self.world.exited(id, exit);
            }
            Step::ExchangeEnds(id) => {
                if let Some(Body::Full(bytes)) = self.world.exchanges[&id].response.as_ref().map(|r| &r.body) {
                    self.sent.insert(id, bytes.clone());
                }
                self.world.exchange_ends(id);
            }
            Step::ClientLeaves(id) => self.world.client_leaves(id),
        }
    }

    /// What servers see by themselves: the end of stdin, signals, their timers, room in their pipes.
    fn puppets_notice(&mut self) {
        let now = self.world.now;
        for (id, puppet) in &mut self.puppets {
            let child = self.world.children.get_mut(id).unwrap();
            while let Some(at) = puppet.timers.iter().position(|(at, _)| *at <= now) {
                let (_, number) = puppet.timers.remove(at);
                if puppet.exit.is_none() {
                    let effects = puppet.fake.wake(number);
                    puppet.take(effects, now);
                }
            }
            if puppet.exit.is_none() {
                if child.signals.contains(&Signal::Kill) {
                    puppet.exit = Some(Exit::Signal(9));
                } else if child.signals.contains(&Signal::Term) && !puppet.ignores_term {
                    puppet.exit = Some(Exit::Signal(15));
                } else if child.stdin_dropped && puppet.reads && !puppet.fake.outlives_stdin() {
                    puppet.exit = Some(Exit::Code(0));
                }
            }
            for (out, queue) in [(&mut child.stdout, &mut puppet.stdout), (&mut child.stderr, &mut puppet.stderr)] {
                while out.buffer.len() < MAX_READ
                    && let Some(first) = queue.pop_front()
                {
                    // What nobody reads any more is lost.
                    if !out.dropped {
                        out.buffer.extend(first);
                    }
                }
            }
            // The driver kills what is left of the group before it says that the child has exited, so the ends come too.
            child.stdout.eof = puppet.stdout.is_empty() && (child.gone || puppet.stdout_closed);
            child.stderr.eof = puppet.stderr.is_empty() && child.gone;
        }
    }
}

impl Puppet {
    fn take(&mut self, effects: Vec<Effect>, now: Instant) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Out(bytes) if !self.stdout_closed => {
                    self.stdout.extend(bytes.chunks(MAX_READ).map(<[u8]>::to_vec));
                }
                Effect::Out(_) => {}
                Effect::Err(line, times) => {
                    let lines = (MAX_READ / line.len().max(1)).clamp(1, times.max(1));
                    self.stderr.extend((0..times.div_ceil(lines)).map(|n| line.repeat(lines.min(times - n * lines))));
                }
                Effect::Later(wait, number) => self.timers.push((now + wait, number)),
                // Nobody looks for it here.
                Effect::Spawn(number) => effects.extend(self.fake.started(number, 1)),
                Effect::StopReading => self.reads = false,
                Effect::CloseStdout => self.stdout_closed = true,
                Effect::Exit(status) => {
                    self.exit = Some(Exit::Code(status));
                    return;
                }
            }
        }
    }
}
