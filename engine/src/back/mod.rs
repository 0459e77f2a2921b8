//! Links: one MCP conversation with one server process, from `initialize` on, over the restarts of the process.
//!
//! ```text
//!  waiting ──(time)──▶ starting ──child runs, initialize sent──▶ shaking ──answer──▶ ready
//!     ▲                                                                                │
//!     └──────────────────────────── the process ended ────────────────────────────────┘
//! ```
//!
//! A link without an `initialize` of its own yet is blank: a process started ahead of the first client. After a crash the
//! stored `initialize` is sent again, so that whoever uses the link notices nothing but the calls that were lost.

mod child;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use log::{debug, info, warn};

use crate::config::Server;
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::io::{ChildId, Command, Exit, Instant, Pipe};
use crate::wire::{lines, rpc};
use child::{Children, End};

/// How often a link that waits for room looks again.
const ROOM: Duration = Duration::from_millis(100);

/// Names one link. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Who may use a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One session.
    Dedicated,
    /// Every session with this key: what the server can know of a client.
    Shared(String),
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many processes.
    Children,
    /// The server does not read what was sent already.
    Queue,
}

/// What became of a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The handshake is done.
    Up {
        link: LinkId,
        /// It is not the first one of this link: what the server knew is lost.
        again: bool,
    },
    /// The process is gone, or refused the handshake.
    Down {
        link: LinkId,
        /// For people, and without a full stop.
        why: String,
        /// The server's own answer, if it refused the handshake.
        refusal: Option<Vec<u8>>,
    },
}

/// The `initialize` of a link.
#[derive(Debug)]
struct Hello {
    /// The request of the client that came first.
    request: String,
    /// Where its id is.
    id: std::ops::Range<usize>,
    /// The `initialized` notification, to be sent after each handshake once there is one.
    initialized: Option<Vec<u8>>,
    /// The server's answer.
    answer: Option<String>,
}

#[derive(Debug)]
struct Link {
    server: usize,
    /// `None`: blank.
    sharing: Option<Sharing>,
    hello: Option<Hello>,
    child: Option<ChildId>,
    state: State,
    /// Lines that wait for the handshake.
    queue: Vec<u8>,
    /// No session uses it.
    unused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not started, or to be started again at a time.
    Waiting,
    /// Started; `initialize` was not sent.
    Starting,
    /// `initialize` was sent under this number.
    Shaking(u64),
    /// Since then.
    Ready(Instant),
}

/// How a server's processes fare, so that one that cannot live is not started over and over.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    crashes: u32,
    not_before: Instant,
}

#[derive(Debug)]
pub(crate) struct Back {
    links: BTreeMap<LinkId, Link>,
    by_child: BTreeMap<ChildId, LinkId>,
    children: Children,
    health: Vec<Health>,
    /// Links that ended and whose end was not yet taken note of.
    released: Vec<LinkId>,
}

impl Back {
    pub(crate) fn new(core: &mut Core) -> Self {
        let servers = core.config.servers.len();
        let mut back = Back {
            links: BTreeMap::new(),
            by_child: BTreeMap::new(),
            children: Children::default(),
            health: vec![Health::default(); servers],
            released: Vec::new(),
        };
        for server in 0..servers {
            if core.config.servers[server].prestart {
                back.open(core, server, None);
            }
        }
        back
    }

    pub(crate) fn children(&self) -> usize {
        self.children.len()
    }

    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// A link for a client: a shared one with its key, else a blank one, else a new one.
    pub(crate) fn acquire(&mut self, core: &mut Core, server: usize, sharing: Sharing) -> Result<LinkId, Full> {
        let wanted = Some(sharing);
        let shared = matches!(wanted, Some(Sharing::Shared(_)));
        let mine = |link: &Link| link.server == server && shared && link.sharing == wanted;
        let blank = |link: &Link| link.server == server && link.sharing.is_none();
        let found = self.links.iter().find(|(_, l)| mine(l)).or_else(|| self.links.iter().find(|(_, l)| blank(l)));
        let found = found.map(|(id, link)| (*id, link.child.is_some()));
        let runs = found.is_some_and(|(_, runs)| runs);
        if !runs && self.children.len() >= core.config.limits.max_children {
            // A process that nobody uses makes room for one that somebody wants; `start` waits for its end.
            let unused = self.links.iter().find(|(_, l)| l.unused && l.child.is_some()).map(|(id, _)| *id);
            self.release(core, unused.ok_or(Full::Children)?);
        }
        let Some((id, _)) = found else { return Ok(self.open(core, server, wanted)) };
        if let Some(link) = self.links.get_mut(&id) {
            link.sharing = wanted;
            link.unused = false;
        }
        core.timers.clear(Deadline::LinkIdle(id));
        Ok(id)
    }

    fn open(&mut self, core: &mut Core, server: usize, sharing: Option<Sharing>) -> LinkId {
        let id = LinkId(core.number());
        let unused = sharing.is_none();
        let (queue, state) = (Vec::new(), State::Waiting);
        self.links.insert(id, Link { server, sharing, hello: None, child: None, state, queue, unused });
        self.start(core, id);
        id
    }

    /// Starts the process of a link, now or as soon as the server's health allows.
    pub(crate) fn start(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.child.is_some() {
            return;
        }
        let not_before = self.health[link.server].not_before;
        if not_before > core.now {
            core.timers.set(Deadline::Restart(id), not_before);
            return;
        }
        if self.children.len() >= core.config.limits.max_children {
            core.after(ROOM, Deadline::Restart(id));
            return;
        }
        let server = &core.config.servers[link.server];
        let (name, command) = (server.name.clone(), server.command.clone());
        let child = self.children.spawn(core, &name, command);
        link.child = Some(child);
        link.state = State::Starting;
        self.by_child.insert(child, id);
        if link.hello.is_some() {
            core.after(core.config.timeouts.start, Deadline::Handshake(id));
        }
    }

    /// Gives a link its `initialize`. The first one counts. `initialized` is what to send after the handshake, if the
    /// client will not say so itself.
    pub(crate) fn hello(
        &mut self,
        core: &mut Core,
        id: LinkId,
        request: &rpc::Message<'_>,
        initialized: Option<Vec<u8>>,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let rpc::Kind::Request { id: request_id, .. } = &request.kind else { return };
        if link.hello.is_some() {
            return;
        }
        let place = rpc::place(request.raw, request_id.0);
        link.hello = Some(Hello { request: request.raw.to_owned(), id: place, initialized, answer: None });
        // Also while there is no process yet: nobody waits for ever for one.
        core.after(core.config.timeouts.start, Deadline::Handshake(id));
        self.shake(core, id);
    }

    /// The server's answer to `initialize`.
    pub(crate) fn answer(&self, id: LinkId) -> Option<&str> {
        self.links.get(&id)?.hello.as_ref()?.answer.as_deref()
    }

    /// Sends `initialize` if there is one and a process to read it.
    fn shake(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (Some(hello), Some(child), State::Starting) = (&link.hello, link.child, link.state) else { return };
        if self.children.is_writable(child) {
            let number = core.number();
            link.state = State::Shaking(number);
            let line = rpc::splice(&hello.request, &mut [(&hello.request[hello.id.clone()], &number.to_string())]);
            self.children.write(core, child, rpc::line(line));
        }
    }

    /// Passes on `notifications/initialized`: the first one, and again after each restart.
    pub(crate) fn initialized(&mut self, core: &mut Core, id: LinkId, message: &str) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(hello) = link.hello.as_mut().filter(|hello| hello.initialized.is_none()) else { return };
        let line = rpc::line(message.as_bytes().to_vec());
        hello.initialized = Some(line.clone());
        if let (Some(child), State::Ready(_)) = (link.child, link.state) {
            self.children.write(core, child, line);
        }
    }

    /// Sends a line once the handshake is done.
    pub(crate) fn send(&mut self, core: &mut Core, id: LinkId, line: Vec<u8>) -> Result<(), Full> {
        let Some(link) = self.links.get_mut(&id) else { return Err(Full::Queue) };
        let waiting = link.queue.len() + link.child.map_or(0, |child| self.children.backlog(child));
        if waiting > core.config.limits.max_queue {
            return Err(Full::Queue);
        }
        match (link.state, link.child) {
            (State::Ready(_), Some(child)) => self.children.write(core, child, line),
            _ => {
                link.queue.extend_from_slice(&line);
                if !core.timers.is_set(Deadline::Handshake(id)) {
                    // No process is being greeted: nobody waits for ever for one.
                    core.after(core.config.timeouts.start, Deadline::Handshake(id));
                }
            }
        }
        Ok(())
    }

    /// Sends a line even before the handshake is done: an answer to the server's own request. If the process is gone,
    /// nobody waits for it.
    pub(crate) fn send_now(&mut self, core: &mut Core, id: LinkId, line: Vec<u8>) {
        if let Some(child) = self.links.get(&id).and_then(|l| l.child) {
            self.children.write(core, child, line);
        }
    }

    /// Sends what waited for the handshake.
    pub(crate) fn flush(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(child) = link.child
            && !link.queue.is_empty()
        {
            let queue = std::mem::take(&mut link.queue);
            self.children.write(core, child, queue);
        }
    }

    /// A call was answered: whatever crashed before, it works now.
    pub(crate) fn works(&mut self, id: LinkId) {
        if let Some(link) = self.links.get(&id) {
            self.health[link.server] = Health::default();
        }
    }

    /// No session uses this link any more. A shared one is kept for a while, the last one of its server for good.
    pub(crate) fn unused(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.unused = true;
        if link.sharing == Some(Sharing::Dedicated) || link.child.is_none() {
            self.release(core, id);
        } else {
            core.after(core.config.timeouts.child_idle, Deadline::LinkIdle(id));
        }
    }

    /// Nobody used this link for a while.
    pub(crate) fn idle(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        if link.unused && self.links.values().filter(|other| other.server == link.server).count() > 1 {
            self.release(core, id);
        }
    }

    /// Ends a link and its process.
    pub(crate) fn release(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        self.released.push(id);
        for deadline in [Deadline::Handshake(id), Deadline::Restart(id), Deadline::LinkIdle(id)] {
            core.timers.clear(deadline);
        }
        if let Some(child) = link.child {
            self.by_child.remove(&child);
            self.children.stop(core, child);
        }
    }

    /// Links that ended since this was asked last.
    pub(crate) fn take_released(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.released)
    }

    /// Ends every link.
    pub(crate) fn release_all(&mut self, core: &mut Core) {
        while let Some((id, _)) = self.links.first_key_value() {
            self.release(core, *id);
        }
    }

    pub(crate) fn kill_all(&mut self, core: &mut Core) {
        self.children.kill_all(core);
    }

    /// Forgets whatever would not end.
    pub(crate) fn abandon_all(&mut self, core: &mut Core) {
        self.children.kill_all(core);
        self.children = Children::default();
        self.by_child.clear();
    }

    pub(crate) fn stop_harder(&mut self, core: &mut Core, child: ChildId) {
        self.children.stop_harder(core, child);
    }

    pub(crate) fn spawned(&mut self, core: &mut Core, child: ChildId) {
        self.children.spawned(core, child);
        if let Some(&link) = self.by_child.get(&child) {
            self.shake(core, link);
        }
    }

    pub(crate) fn spawn_failed(&mut self, core: &mut Core, child: ChildId, kind: ErrorKind) -> Option<LinkEvent> {
        let end = self.children.spawn_failed(child, kind);
        self.ended(core, end)
    }

    pub(crate) fn exited(&mut self, core: &mut Core, child: ChildId, exit: Exit) -> Option<LinkEvent> {
        let end = self.children.exited(core, child, exit);
        self.ended(core, end)
    }

    pub(crate) fn drained(&mut self, core: &mut Core, child: ChildId) -> Option<LinkEvent> {
        let end = self.children.drained(core, child);
        self.ended(core, end)
    }

    pub(crate) fn closed(&mut self, core: &mut Core, pipe: Pipe) -> Option<LinkEvent> {
        let end = self.children.closed(core, pipe);
        self.ended(core, end)
    }

    pub(crate) fn wrote(&mut self, core: &mut Core, child: ChildId) {
        self.children.wrote(core, child);
    }

    /// Whether a child has more to read than it may. It is not listened to then: every line of it might ask for another.
    pub(crate) fn is_clogged(&self, core: &Core, child: ChildId) -> bool {
        self.children.backlog(child) > core.config.limits.max_queue
    }

    /// The link of a child.
    pub(crate) fn link_of(&self, child: ChildId) -> Option<LinkId> {
        self.by_child.get(&child).copied()
    }

    /// Whether one more complaint about what this link's process writes may go to the log.
    pub(crate) fn may_complain(&mut self, core: &Core, id: LinkId) -> bool {
        self.links.get(&id).and_then(|l| l.child).is_some_and(|child| self.children.may_complain(core, child))
    }

    pub(crate) fn stderr(&mut self, core: &mut Core, child: ChildId, bytes: &[u8]) {
        self.children.stderr(core, child, bytes);
    }

    /// Begins to take what a child wrote: the link it belongs to (none, if that one is released) and the decoder.
    pub(crate) fn read_begun(&mut self, child: ChildId) -> Option<(Option<LinkId>, lines::Decoder)> {
        let decoder = self.children.read_begun(child)?;
        Some((self.by_child.get(&child).copied(), decoder))
    }

    pub(crate) fn read_done(&mut self, child: ChildId, decoder: lines::Decoder) {
        self.children.read_done(child, decoder);
    }

    pub(crate) fn read_on(&mut self, core: &mut Core, child: ChildId) {
        self.children.read_on(core, child);
    }

    /// Reading for this link may go on after it was held up.
    pub(crate) fn resume(&mut self, core: &mut Core, link: LinkId) {
        if let Some(child) = self.links.get(&link).and_then(|l| l.child)
            && !self.is_clogged(core, child)
        {
            self.children.read_on(core, child);
        }
    }

    /// Takes the answer to `initialize`; `None` if the message is something else.
    pub(crate) fn handshake(&mut self, core: &mut Core, id: LinkId, message: &rpc::Message<'_>) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        let State::Shaking(number) = link.state else { return None };
        let rpc::Kind::Response { id: Some(answered), outcome } = &message.kind else { return None };
        if answered.number() != Some(number) {
            return None;
        }
        core.timers.clear(Deadline::Handshake(id));
        let name = &core.config.servers[link.server].name;
        let Ok(result) = outcome else {
            warn!("[{name}] refused initialize");
            let server = link.server;
            self.crashed(core, server);
            let refusal = Some(message.raw.as_bytes().to_vec());
            return self.fail(core, id, "it refused initialize".into(), refusal);
        };
        let hello = link.hello.as_mut()?;
        link.state = State::Ready(core.now);
        let again = hello.answer.is_some();
        info!("[{name}] ready{}", if again { " again" } else { "" });
        debug!("[{name}] link#{} ready: {} bytes of capabilities", id.0, result.get().len());
        // Later sessions hear what the server says now, not what it said before it was restarted.
        hello.answer = Some(message.raw.to_owned());
        if let (Some(line), Some(child)) = (&hello.initialized, link.child) {
            let line = line.clone();
            self.children.write(core, child, line);
        }
        Some(LinkEvent::Up { link: id, again })
    }

    /// The server answered `initialize` with something that is no answer.
    pub(crate) fn handshake_invalid(&mut self, core: &mut Core, id: LinkId, answered: &str) -> Option<LinkEvent> {
        let link = self.links.get(&id)?;
        if !matches!(link.state, State::Shaking(number) if rpc::Id(answered).number() == Some(number)) {
            return None;
        }
        let server = link.server;
        warn!("[{}] answered initialize with something invalid; stopped", core.config.servers[server].name);
        self.crashed(core, server);
        self.fail(core, id, "it answered initialize with something that is no valid message".into(), None)
    }

    /// The server took too long for the handshake.
    pub(crate) fn handshake_late(&mut self, core: &mut Core, id: LinkId) -> Option<LinkEvent> {
        let server = self.links.get(&id)?.server;
        let (name, wait) = (&core.config.servers[server].name, core.config.timeouts.start);
        warn!("[{name}] did not answer initialize within {} s; stopped", wait.as_secs());
        self.crashed(core, server);
        self.fail(core, id, format!("it did not answer initialize within {} s", wait.as_secs()), None)
    }

    /// Takes the process from a link and says that the link is down.
    fn fail(&mut self, core: &mut Core, id: LinkId, why: String, refusal: Option<Vec<u8>>) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        link.state = State::Waiting;
        link.queue.clear();
        core.timers.clear(Deadline::Handshake(id));
        if let Some(child) = link.child.take() {
            self.by_child.remove(&child);
            self.children.stop(core, child);
        }
        Some(LinkEvent::Down { link: id, why, refusal })
    }

    /// A child is gone: is it one that a link needs?
    fn ended(&mut self, core: &mut Core, end: Option<(ChildId, End)>) -> Option<LinkEvent> {
        let (child, end) = end?;
        let id = self.by_child.remove(&child)?;
        let link = self.links.get_mut(&id)?;
        link.child = None;
        let server = link.server;
        if let State::Ready(since) = link.state
            && core.now.since(since) >= core.config.timeouts.backoff_reset
        {
            self.health[server] = Health::default();
        }
        let wait = self.crashed(core, server);
        let Server { name, command, .. } = &core.config.servers[server];
        let why = match end {
            End::NotStarted(kind) => cannot_start(command, kind),
            End::Exited(exit) => format!("it {exit}"),
        };
        let crashes = self.health[server].crashes;
        let next = if wait.is_zero() { "now".into() } else { format!("in {:.1} s", wait.as_secs_f32()) };
        warn!("[{name}] {why}; failure {crashes} in a row, next start {next} if it is needed");
        self.fail(core, id, why, None)
    }

    /// Counts a crash and says how long to wait after it.
    fn crashed(&mut self, core: &Core, server: usize) -> Duration {
        let health = &mut self.health[server];
        let times = &core.config.timeouts;
        health.crashes = health.crashes.saturating_add(1);
        let wait = match health.crashes {
            1 => Duration::ZERO,
            n => times.backoff_first.saturating_mul(1 << (n - 2).min(16)).min(times.backoff_max),
        };
        health.not_before = core.now + wait;
        wait
    }

    /// What to do with a link that is down and that no session uses: a blank one is started again, any other ends.
    pub(crate) fn abandon(&mut self, core: &mut Core, id: LinkId) {
        match self.links.get(&id) {
            Some(link) if link.sharing.is_none() => self.start(core, id),
            _ => self.release(core, id),
        }
    }
}

/// Why a program did not start, and what to do.
fn cannot_start(command: &Command, kind: ErrorKind) -> String {
    let program = command.program.to_string_lossy();
    match kind {
        ErrorKind::NotFound if !program.contains('/') => {
            let path = command.env.iter().find(|(name, _)| name == "PATH");
            let path = path.map_or("".into(), |(_, path)| path.reveal().to_string_lossy());
            format!(
                "cannot start {program:?}: not found in PATH ({path}). Give the full path, or pass --pass-environment"
            )
        }
        ErrorKind::NotFound => format!("cannot start {program:?}: there is no such file, or no such working directory"),
        ErrorKind::PermissionDenied => format!("cannot start {program:?}: permission denied. Is it executable?"),
        _ => format!("cannot start {program:?}: {kind}"),
    }
}
