//! Links: one MCP conversation with one server, from `initialize` on, over the restarts of its process or of the
//! conversation with a remote server.
//!
//! ```text
//!  waiting ──(time)──▶ starting ──child runs, initialize sent──▶ shaking ──answer──▶ ready
//!     ▲                                                                                │
//!     └──────────────────────────── the process ended ────────────────────────────────┘
//! ```
//!
//! A link without an `initialize` of its own yet is blank: a process started ahead of the first client. After a crash the
//! stored `initialize` is sent again, so that whoever uses the link notices nothing but the calls that were lost. How a link
//! finds out which era its server belongs to is told in [`shake`].

mod auth;
mod child;
mod remote;
mod reply;
mod resume;
mod shake;
mod token;
mod url;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use log::warn;

use crate::config::{Origin, Server};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::envelope::MODERN;
use crate::front::status;
use crate::io::{ChildId, Command, Exit, FetchError, FetchId, HttpResponse, Instant, Pipe, Secret};
use crate::wire::{lines, rpc};
use child::{Children, End};
pub(crate) use remote::RemoteId;
use remote::{Post, Remotes, Said};

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

impl Sharing {
    /// A conversation with a modern server: every request says what there is to know, so all clients of one scope share.
    pub(crate) fn modern(scope: &str) -> Self {
        Sharing::Shared(format!("{MODERN} {scope}"))
    }
}

/// A message on its way to a server.
#[derive(Debug)]
pub(crate) struct Line {
    /// With its line end.
    pub(crate) bytes: Vec<u8>,
    /// Header fields that mirror what it says, for a modern remote server.
    pub(crate) mirrored: Vec<(String, String)>,
}

impl Line {
    /// Whether it is the request of this number, or cancels it.
    fn concerns(&self, number: u64) -> bool {
        let id = match rpc::parse(self.bytes.trim_ascii_end()).map(|message| message.kind) {
            Ok(rpc::Kind::Request { id, .. }) => id.number(),
            Ok(rpc::Kind::Notification { method, params }) if method == "notifications/cancelled" => {
                rpc::member(params, "requestId").ok().flatten().and_then(|id| rpc::Id(id.get()).number())
            }
            _ => None,
        };
        id == Some(number)
    }
}

impl From<Vec<u8>> for Line {
    fn from(bytes: Vec<u8>) -> Self {
        Line { bytes, mirrored: Vec::new() }
    }
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many processes.
    Children,
    /// The server does not read what was sent already.
    Queue,
}

/// What is left of a call that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// It never went out.
    Unsent,
    /// Nothing more about it can come.
    Silent,
    /// The server may still speak of it.
    Underway,
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
    /// The server was asked whether it is modern, and is not. The link is blank.
    Legacy { link: LinkId },
    /// The process is gone, or refused the handshake.
    Down {
        link: LinkId,
        /// For people, and without a full stop.
        why: String,
        /// The server's own answer, if it refused the handshake.
        refusal: Option<Vec<u8>>,
        /// Calls that the server did not take: they wait for the next process or conversation.
        spared: Vec<u64>,
    },
    /// A message of a remote server.
    Message {
        link: LinkId,
        bytes: Vec<u8>,
        /// The number of the call on whose stream it came.
        about: Option<u64>,
    },
    /// A call has no answer.
    Failed { link: LinkId, number: u64, text: String },
}

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Child(ChildId),
    Remote(RemoteId),
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
    /// What its client adds to the environment of the process.
    env: Vec<(String, Secret<String>)>,
    /// Which clients may meet here: the key that let them in, and their environment.
    scope: String,
    /// One of its sessions may be asked something, and no other one meanwhile.
    leased: bool,
    hello: Option<Hello>,
    probe: shake::Probe,
    peer: Option<Peer>,
    state: State,
    /// Lines that wait for the handshake.
    queue: Vec<Line>,
    /// No session uses it.
    unused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not started, or to be started again at a time.
    Waiting,
    /// Started; nothing was sent.
    Starting,
    /// `server/discover` was sent under this number.
    Probing(u64),
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
    by_peer: BTreeMap<Peer, LinkId>,
    children: Children,
    remotes: Remotes,
    health: Vec<Health>,
    /// What is known of each server's era.
    eras: Vec<shake::Known>,
    /// Links that ended and whose end was not yet taken note of.
    released: Vec<LinkId>,
}

impl Back {
    pub(crate) fn new(core: &mut Core) -> Self {
        let servers = core.config.servers.len();
        let mut back = Back {
            links: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            children: Children::default(),
            remotes: Remotes::default(),
            health: vec![Health::default(); servers],
            eras: vec![shake::Known::default(); servers],
            released: Vec::new(),
        };
        for server in 0..servers {
            // A conversation with a remote server costs a round trip, not a start: nothing to do ahead.
            let local = matches!(core.config.servers[server].origin, Origin::Local(_));
            if core.config.servers[server].prestart && local {
                back.open(core, server, None, Vec::new(), String::new());
            }
        }
        back
    }

    pub(crate) fn children(&self) -> usize {
        self.children.len()
    }

    /// How each server is, in the order of the configuration.
    pub(crate) fn health(&self, core: &Core) -> Vec<status::Health> {
        let state = |server: usize| {
            let mine: Vec<&Link> = self.links.values().filter(|link| link.server == server).collect();
            if mine.iter().any(|link| link.peer.is_none()) || (mine.is_empty() && self.health[server].crashes > 0) {
                status::Health::Down
            } else if mine.iter().any(|link| matches!(link.state, State::Shaking(_) | State::Probing(_))) {
                status::Health::Starting
            } else {
                status::Health::Ready
            }
        };
        (0..core.config.servers.len()).map(state).collect()
    }

    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// A link for a client: a shared one with its key, else a blank one, else a new one. With `lease` it is one that no
    /// other session has on lease, and that is free by this measure, too.
    pub(crate) fn acquire(
        &mut self,
        core: &mut Core,
        server: usize,
        sharing: Sharing,
        scope: &str,
        env: &[(String, Secret<String>)],
        lease: Option<&dyn Fn(LinkId) -> bool>,
    ) -> Result<LinkId, Full> {
        let wanted = Some(sharing);
        let shared = matches!(wanted, Some(Sharing::Shared(_)));
        let free = |id: LinkId, link: &Link| lease.is_none_or(|is_free| !link.leased && is_free(id));
        let mine =
            |id: LinkId, link: &Link| link.server == server && shared && link.sharing == wanted && free(id, link);
        let blank = |link: &Link| link.server == server && link.sharing.is_none() && link.env == env;
        let found =
            self.links.iter().find(|(id, l)| mine(**id, l)).or_else(|| self.links.iter().find(|(_, l)| blank(l)));
        let found = found.map(|(id, link)| (*id, link.peer.is_some()));
        let runs = found.is_some_and(|(_, runs)| runs);
        let local = matches!(core.config.servers[server].origin, Origin::Local(_));
        if local && !runs && self.children.len() >= core.config.limits.max_children {
            // A process that nobody uses makes room for one that somebody wants; `start` waits for its end.
            let unused =
                self.links.iter().find(|(_, l)| l.unused && matches!(l.peer, Some(Peer::Child(_)))).map(|(id, _)| *id);
            self.release(core, unused.ok_or(Full::Children)?);
        }
        let id = match found {
            Some((id, _)) => id,
            None => self.open(core, server, wanted.clone(), env.to_vec(), scope.to_owned()),
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.sharing = wanted;
            link.unused = false;
            link.leased |= lease.is_some();
            scope.clone_into(&mut link.scope);
        }
        core.timers.clear(Deadline::LinkIdle(id));
        Ok(id)
    }

    /// Has one process of a server run ahead of its next client, if there is much room.
    pub(crate) fn spare(&mut self, core: &mut Core, server: usize) {
        let config = &core.config.servers[server];
        let wanted = config.prestart && matches!(config.origin, Origin::Local(_));
        let mut mine = self.links.values().filter(|link| link.server == server);
        let room = self.children.len() < core.config.limits.max_children / 2;
        let healthy = self.health[server].crashes == 0;
        if wanted && room && healthy && !mine.any(|link| link.sharing.is_none()) {
            let id = self.open(core, server, None, Vec::new(), String::new());
            core.after(core.config.timeouts.child_idle, Deadline::LinkIdle(id));
        }
    }

    /// The session that had a link on lease is done with it.
    pub(crate) fn end_lease(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.leased = false;
        }
    }

    /// The other links of the same server whose clients may meet, and the link itself.
    pub(crate) fn kin(&self, id: LinkId) -> Vec<LinkId> {
        let Some(link) = self.links.get(&id) else { return Vec::new() };
        let kin = |other: &Link| other.server == link.server && other.scope == link.scope;
        self.links.iter().filter(|(_, other)| kin(other)).map(|(id, _)| *id).collect()
    }

    /// Whether whatever a server says comes on the stream of the request that it is about, or of none.
    pub(crate) fn is_exact(&self, core: &Core, server: usize) -> bool {
        let remote = matches!(core.config.servers[server].origin, Origin::Remote(_));
        remote
            && self.links.values().filter(|link| link.server == server).all(|link| match link.peer {
                Some(Peer::Remote(remote)) => !self.remotes.is_sse(remote),
                _ => true,
            })
    }

    /// Whether a link leads to a remote server.
    pub(crate) fn is_remote(&self, core: &Core, id: LinkId) -> bool {
        let server = self.links.get(&id).map(|link| link.server);
        server.is_some_and(|server| matches!(core.config.servers[server].origin, Origin::Remote(_)))
    }

    fn open(
        &mut self,
        core: &mut Core,
        server: usize,
        sharing: Option<Sharing>,
        env: Vec<(String, Secret<String>)>,
        scope: String,
    ) -> LinkId {
        let id = LinkId(core.number());
        let unused = sharing.is_none();
        let link = Link {
            server,
            sharing,
            env,
            scope,
            leased: false,
            hello: None,
            probe: shake::Probe::default(),
            peer: None,
            state: State::Waiting,
            queue: Vec::new(),
            unused,
        };
        self.links.insert(id, link);
        self.start(core, id);
        id
    }

    /// Starts the process of a link, now or as soon as the server's health allows.
    pub(crate) fn start(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.peer.is_some() {
            return;
        }
        if !link.unused && !core.timers.is_set(Deadline::Handshake(id)) {
            // It may be long until there is room: nobody waits for ever.
            core.after(core.config.timeouts.start, Deadline::Handshake(id));
        }
        let not_before = self.health[link.server].not_before;
        if not_before > core.now {
            core.timers.set(Deadline::Restart(id), not_before);
            return;
        }
        let server = &core.config.servers[link.server];
        let local = matches!(server.origin, Origin::Local(_));
        if local && self.children.len() >= core.config.limits.max_children {
            core.after(ROOM, Deadline::Restart(id));
            return;
        }
        let (peer, writable) = match &server.origin {
            Origin::Local(command) => {
                let (name, mut command) = (server.name.clone(), command.clone());
                for (variable, value) in &link.env {
                    command.env.retain(|(other, _)| other.to_str() != Some(variable));
                    command.env.push((variable.into(), Secret::new(value.reveal().into())));
                }
                (Peer::Child(self.children.spawn(core, &name, command)), false)
            }
            Origin::Remote(_) => {
                let (remote, writable) = self.remotes.open(core, link.server);
                (Peer::Remote(remote), writable)
            }
        };
        link.peer = Some(peer);
        link.state = State::Starting;
        self.by_peer.insert(peer, id);
        link.probe.begin();
        if link.hello.is_some() || link.probe.wanted() {
            core.after(core.config.timeouts.start, Deadline::Handshake(id));
        }
        if writable {
            self.shake(core, id);
        }
    }

    fn is_writable(&self, peer: Peer) -> bool {
        match peer {
            Peer::Child(child) => self.children.is_writable(child),
            Peer::Remote(_) => true,
        }
    }

    fn write(&mut self, core: &mut Core, peer: Peer, line: impl Into<Line>) {
        let line = line.into();
        match peer {
            Peer::Child(child) => self.children.write(core, child, line.bytes),
            Peer::Remote(remote) => self.remotes.write(core, remote, line),
        }
    }

    fn part(&mut self, core: &mut Core, peer: Peer) {
        self.by_peer.remove(&peer);
        match peer {
            Peer::Child(child) => self.children.stop(core, child),
            Peer::Remote(remote) => self.remotes.release(core, remote),
        }
    }

    /// Passes on `notifications/initialized`: the first one, and again after each restart.
    pub(crate) fn initialized(&mut self, core: &mut Core, id: LinkId, message: &str) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(hello) = link.hello.as_mut().filter(|hello| hello.initialized.is_none()) else { return };
        let line = rpc::line(message.as_bytes().to_vec());
        hello.initialized = Some(line.clone());
        if let (Some(peer), State::Ready(_)) = (link.peer, link.state) {
            self.write(core, peer, line);
        }
    }

    /// Sends a line once the handshake is done.
    pub(crate) fn send(&mut self, core: &mut Core, id: LinkId, line: impl Into<Line>) -> Result<(), Full> {
        let line = line.into();
        let Some(link) = self.links.get_mut(&id) else { return Err(Full::Queue) };
        let waiting = link.queue.iter().map(|line| line.bytes.len()).sum::<usize>()
            + match link.peer {
                Some(Peer::Child(child)) => self.children.backlog(child),
                Some(Peer::Remote(remote)) => self.remotes.backlog(remote),
                None => 0,
            };
        if waiting > core.config.limits.max_queue {
            return Err(Full::Queue);
        }
        match (link.state, link.peer) {
            (State::Ready(_), Some(peer)) => self.write(core, peer, line),
            _ => {
                link.queue.push(line);
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
        if let Some(peer) = self.links.get(&id).and_then(|l| l.peer) {
            self.write(core, peer, line);
        }
    }

    /// Sends what waited for the handshake.
    pub(crate) fn flush(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(peer) = link.peer else { return };
        for line in std::mem::take(&mut link.queue) {
            self.write(core, peer, line);
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
        if link.sharing == Some(Sharing::Dedicated) || link.peer.is_none() {
            self.release(core, id);
        } else {
            core.after(core.config.timeouts.child_idle, Deadline::LinkIdle(id));
        }
    }

    /// Nobody used this link for a while.
    pub(crate) fn idle(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let alone = self.links.values().filter(|other| other.server == link.server).count() == 1;
        // A conversation with a remote server is soon begun again; a process may have been slow to start.
        if link.unused && !(alone && matches!(link.peer, Some(Peer::Child(_)))) {
            self.release(core, id);
        }
    }

    /// Ends a link and its process.
    pub(crate) fn release(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        self.released.push(id);
        for deadline in [Deadline::Handshake(id), Deadline::Probe(id), Deadline::Restart(id), Deadline::LinkIdle(id)] {
            core.timers.clear(deadline);
        }
        if let Some(peer) = link.peer {
            self.part(core, peer);
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
        self.remotes.abandon_all();
        self.by_peer.clear();
    }

    pub(crate) fn stop_harder(&mut self, core: &mut Core, child: ChildId) {
        self.children.stop_harder(core, child);
    }

    pub(crate) fn spawned(&mut self, core: &mut Core, child: ChildId) {
        self.children.spawned(core, child);
        if let Some(&link) = self.by_peer.get(&Peer::Child(child)) {
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

    /// Whether a child has exited.
    pub(crate) fn is_dead(&self, child: ChildId) -> bool {
        self.children.is_dead(child)
    }

    /// The link of a child.
    pub(crate) fn link_of(&self, child: ChildId) -> Option<LinkId> {
        self.by_peer.get(&Peer::Child(child)).copied()
    }

    /// Whether one more complaint about what this link's process writes may go to the log.
    pub(crate) fn may_complain(&mut self, core: &Core, id: LinkId) -> bool {
        match self.links.get(&id).and_then(|l| l.peer) {
            Some(Peer::Child(child)) => self.children.may_complain(core, child),
            _ => true,
        }
    }

    pub(crate) fn stderr(&mut self, core: &mut Core, child: ChildId, bytes: &[u8]) {
        self.children.stderr(core, child, bytes);
    }

    /// Begins to take what a child wrote: the link it belongs to (none, if that one is released) and the decoder.
    pub(crate) fn read_begun(&mut self, child: ChildId) -> Option<(Option<LinkId>, lines::Decoder)> {
        let decoder = self.children.read_begun(child)?;
        Some((self.by_peer.get(&Peer::Child(child)).copied(), decoder))
    }

    pub(crate) fn read_done(&mut self, child: ChildId, decoder: lines::Decoder) {
        self.children.read_done(child, decoder);
    }

    pub(crate) fn read_on(&mut self, core: &mut Core, child: ChildId) {
        self.children.read_on(core, child);
    }

    /// Reading for this link may go on after it was held up.
    pub(crate) fn resume(&mut self, core: &mut Core, link: LinkId) {
        match self.links.get(&link).and_then(|l| l.peer) {
            Some(Peer::Child(child)) if self.is_clogged(core, child) => {}
            Some(Peer::Child(child)) => self.children.read_on(core, child),
            Some(Peer::Remote(remote)) => self.remotes.resume(core, remote),
            None => {}
        }
    }

    /// A child is gone: is it one that a link needs?
    fn ended(&mut self, core: &mut Core, end: Option<(ChildId, End)>) -> Option<LinkEvent> {
        let (child, end) = end?;
        let id = self.by_peer.remove(&Peer::Child(child))?;
        let link = self.links.get_mut(&id)?;
        link.peer = None;
        let server = link.server;
        if matches!((&end, link.state), (End::Exited(_), State::Probing(_))) && !link.probe.was_found() {
            // Some legacy servers exit when they are asked something before `initialize`.
            self.crashed(core, server);
            return self.not_modern(core, id);
        }
        let why = match end {
            End::NotStarted(kind) => match &core.config.servers[server].origin {
                Origin::Local(command) => cannot_start(command, kind),
                Origin::Remote(_) => return None,
            },
            End::Exited(exit) => format!("it {exit}"),
        };
        self.down(core, id, why)
    }

    /// A link lost its peer by no will of ours.
    fn down(&mut self, core: &mut Core, id: LinkId, why: String) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        let server = link.server;
        if let State::Ready(since) = link.state
            && core.now.since(since) >= core.config.timeouts.backoff_reset
        {
            self.health[server] = Health::default();
        }
        let wait = self.crashed(core, server);
        let Server { name, .. } = &core.config.servers[server];
        let crashes = self.health[server].crashes;
        let next = if wait.is_zero() { "now".into() } else { format!("in {:.1} s", wait.as_secs_f32()) };
        warn!("[{name}] {why}; failure {crashes} in a row, next start {next} if it is needed");
        self.fail(core, id, why, None)
    }

    /// The head of a response to a request of ours.
    pub(crate) fn fetched(&mut self, core: &mut Core, id: FetchId, response: &HttpResponse) -> Vec<LinkEvent> {
        let said = self.remotes.fetched(core, id, response);
        self.heard(core, said)
    }

    /// Bytes of its body. [`Back::read_fetch`] permits more.
    pub(crate) fn fetch_data(&mut self, core: &mut Core, id: FetchId, bytes: &[u8]) -> Vec<LinkEvent> {
        let said = self.remotes.data(core, id, bytes);
        self.heard(core, said)
    }

    /// Its end.
    pub(crate) fn fetch_closed(&mut self, core: &mut Core, id: FetchId, broken: bool) -> Vec<LinkEvent> {
        let said = self.remotes.closed(core, id, broken);
        self.heard(core, said)
    }

    /// There is none.
    pub(crate) fn fetch_failed(&mut self, core: &mut Core, id: FetchId, error: &FetchError) -> Vec<LinkEvent> {
        let said = self.remotes.fetch_failed(core, id, error);
        self.heard(core, said)
    }

    pub(crate) fn read_fetch(&mut self, core: &mut Core, id: FetchId) {
        self.remotes.read_on(core, id);
    }

    /// The link that a fetch belongs to.
    pub(crate) fn link_of_fetch(&self, id: FetchId) -> Option<LinkId> {
        self.by_peer.get(&Peer::Remote(self.remotes.owner(id)?)).copied()
    }

    pub(crate) fn fetches(&self) -> usize {
        self.remotes.fetches()
    }

    pub(crate) fn reopen(&mut self, core: &mut Core, remote: RemoteId, number: u64) {
        self.remotes.reopen(core, remote, number);
    }

    pub(crate) fn listening(&mut self, core: &mut Core, remote: RemoteId) {
        self.remotes.listening(core, remote);
    }

    /// Nobody waits for the answer to this call any more.
    pub(crate) fn forget_call(&mut self, core: &mut Core, link: LinkId, number: u64) -> Forgotten {
        let Some(link) = self.links.get_mut(&link) else { return Forgotten::Underway };
        let waiting = link.queue.len();
        link.queue.retain(|line| !line.concerns(number));
        match link.peer {
            _ if link.queue.len() < waiting => Forgotten::Unsent,
            Some(Peer::Remote(remote)) if self.remotes.forget_call(core, remote, number) => Forgotten::Silent,
            _ => Forgotten::Underway,
        }
    }

    /// What remote servers said, for the links they belong to.
    fn heard(&mut self, core: &mut Core, said: Vec<(RemoteId, Said)>) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        for (remote, said) in said {
            let Some(&link) = self.by_peer.get(&Peer::Remote(remote)) else { continue };
            match said {
                Said::Message { bytes, about } => events.push(LinkEvent::Message { link, bytes, about }),
                Said::Failed { number, text, refused } => match self.links.get(&link).map(|link| link.state) {
                    Some(State::Probing(probe)) if probe == number && refused => {
                        events.extend(self.not_modern(core, link));
                    }
                    Some(State::Shaking(hello)) if hello == number && refused => {
                        events.extend(self.refused(
                            core,
                            link,
                            rpc::error(Some("0"), rpc::code::INTERNAL, &text),
                            text,
                        ));
                    }
                    Some(State::Shaking(own) | State::Probing(own)) if own == number => {
                        events.extend(self.down(core, link, text));
                    }
                    _ => events.push(LinkEvent::Failed { link, number, text }),
                },
                Said::Up => self.shake(core, link),
                Said::Down { why, unsent } => {
                    let Some(LinkEvent::Down { link, why, refusal, mut spared }) = self.down(core, link, why) else {
                        continue;
                    };
                    if let Some(entry) = self.links.get_mut(&link) {
                        // Answers and notifications were for the conversation that is over.
                        for Post { line, mirrored, number, hello, .. } in unsent {
                            // Each conversation begins with an `initialize` of its own.
                            if let Some(number) = number.filter(|_| !hello) {
                                spared.push(number);
                                entry.queue.push(Line { bytes: rpc::line(line), mirrored });
                            }
                        }
                    }
                    events.push(LinkEvent::Down { link, why, refusal, spared });
                }
            }
        }
        events
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
        // To ask a remote server costs a connection, not a process.
        let local = matches!(core.config.servers[server].origin, Origin::Local(_));
        let wait = if local { wait } else { wait.min(Duration::from_secs(1)) };
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
