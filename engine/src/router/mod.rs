//! Who is meant: calls, questions, progress, cancellation, and what belongs to nobody in particular.
//!
//! A **call** is a request on its way to a server, a **question** one on its way to a client. Both travel under numbers of
//! our own, never under the sender's id, so that no two are ever mistaken for each other. An answer counts only from the
//! side the request went to. The router decides; it neither writes to servers nor to clients.

mod clients;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::value::RawValue;

use crate::back::LinkId;
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::envelope::LEVELS;
use crate::front::{SessionId, StreamId, Target};
use crate::io::Instant;
use crate::wire::rpc::{self, Id, code};

/// The number of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// The number of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AskId(pub(crate) u64);

/// What is to be done with a message.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing.
    Ignore,
    /// Send a line to a server, once its handshake is done. If there is no room, the call named fails.
    Send { link: LinkId, line: Vec<u8>, call: Option<CallId> },
    /// Send a line to a server at once: it answers the server's own request.
    SendNow { link: LinkId, line: Vec<u8> },
    /// The client is ready.
    Initialized { link: LinkId, message: String },
    /// Answer one request of a stream.
    Reply { stream: StreamId, status: u16, message: Vec<u8> },
    /// Send a client something that belongs to this stream.
    Push { stream: StreamId, message: Vec<u8> },
    /// Send a client something that belongs to one of its streams.
    PushTo { target: Target, message: Vec<u8>, ask: Option<AskId> },
    /// Send clients something that concerns them all, on their standalone streams.
    Broadcast { link: LinkId, sessions: Vec<Target>, message: Vec<u8>, topic: Topic },
    /// Answer a request that its client has cancelled.
    Gone { stream: StreamId, message: Vec<u8> },
    /// A server has ended the subscription of a client, and says so by this notification.
    Ended { stream: StreamId, message: Vec<u8> },
    /// A client need not answer a question any more.
    Withdraw { ask: AskId, target: Target, message: Vec<u8> },
    /// A question of our own has its answer: a raw result, or a raw error.
    Told { ask: AskId, outcome: Result<String, String> },
}

/// What a broadcast is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A list changed: `tools`, `prompts` or `resources`.
    List(&'static str),
    /// A resource changed.
    Resource,
}

/// Whose call an answer was for.
#[derive(Debug)]
pub(crate) enum Answered {
    /// Nobody waits for it.
    Nobody,
    /// A client, under this id.
    Client { call: CallId, stream: StreamId, id: String },
    /// We asked ourselves.
    Own { call: CallId, effect: Effect },
}

/// What a session is to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A client, for as long as it stays: the server may ask it and speak to it at any time.
    Client,
    /// One request that stands alone (2026-07-28): whether the server may ask it something, and nothing else is known of
    /// it. It hears log messages if it has named a level.
    ///
    /// `logged`: the server may have something to log about it.
    Request { asked: bool, logged: bool },
}

/// How long a call that nobody waits for is remembered. A server may still work on it and speak about it, and what it says
/// must not be taken for another client's. Servers need not answer what was cancelled, so this cannot last until they do.
const AFTERLIFE: Duration = Duration::from_secs(30);

/// How often the limit of a call may pass while progress keeps it open.
const MAX_EXTENSIONS: u32 = 10;

/// A request on its way to a server.
#[derive(Debug)]
struct Call {
    link: LinkId,
    /// Who waits for the answer; `None` if nobody does.
    client: Option<Waiting>,
    /// Whose call it was, once nobody waits.
    ghost: Option<SessionId>,
    /// The task it began, if it did: its progress goes on (specification 2025-11-25, basic/utilities/progress).
    task: Option<Task>,
    /// The client's progress token, raw.
    token: Option<String>,
    cancelled: bool,
    effect: Effect,
    /// It is a subscription: there is no limit to it.
    endless: bool,
    /// The server may ask its client something.
    asks: bool,
    /// Progress does not keep it open after this (specification, basic/lifecycle, "Timeouts").
    until: Instant,
}

/// A task that a call began.
#[derive(Debug)]
struct Task {
    session: SessionId,
    /// Its `taskId`, raw.
    id: String,
}

#[derive(Debug)]
struct Waiting {
    stream: StreamId,
    /// The client's id, raw.
    id: String,
}

/// What the answer to a call is good for, beside its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Subscribe(String),
    Unsubscribe(String),
    /// A page of the list of tools that we asked for ourselves.
    Tools,
    /// The end of a subscription of our own.
    Listen,
}

/// Who asks a client something.
#[derive(Debug)]
enum Asker {
    /// The server, under this raw id.
    Server(String),
    /// We do, because the server wants to know before it answers a call (2026-07-28).
    Ourselves,
}

/// A request on its way to a client.
#[derive(Debug)]
struct Ask {
    link: LinkId,
    session: SessionId,
    asker: Asker,
    /// The server's progress token, raw.
    token: Option<String>,
    /// Where it was sent.
    stream: Option<StreamId>,
}

/// What a session has to do with its link.
#[derive(Debug)]
struct Peer {
    link: LinkId,
    role: Role,
    calls: BTreeSet<CallId>,
    /// The least severe log level it wants, as an index into [`LEVELS`].
    level: Option<usize>,
    subscriptions: BTreeSet<String>,
    /// The same, at a modern server: that one is told by a subscription of our own.
    noted: BTreeSet<String>,
}

/// What a link has to do with its sessions.
#[derive(Debug, Default)]
struct Group {
    server: usize,
    /// The log level that the server was told last, as an index into [`LEVELS`].
    told: Option<usize>,
    sessions: BTreeSet<SessionId>,
    calls: BTreeSet<CallId>,
    /// Calls that a client waits for.
    busy: usize,
    asks: BTreeSet<AskId>,
    /// Sessions whose `initialize` waits for the handshake.
    greeting: Vec<(StreamId, String)>,
}

#[derive(Debug, Default)]
pub(crate) struct Router {
    calls: BTreeMap<CallId, Call>,
    asks: BTreeMap<AskId, Ask>,
    peers: BTreeMap<SessionId, Peer>,
    groups: BTreeMap<LinkId, Group>,
}

/// What is left of a session that ended.
#[derive(Debug)]
pub(crate) struct Parting {
    /// Its open requests: where the answers go, and their ids.
    pub(crate) open: Vec<(StreamId, String)>,
    /// The same of those that it has cancelled itself.
    pub(crate) gone: Vec<(StreamId, String)>,
    /// The numbers of its calls, and the lines that cancel them at the server.
    pub(crate) calls: Vec<(u64, Option<Vec<u8>>)>,
    pub(crate) link: LinkId,
    /// What the server must hear.
    pub(crate) lines: Vec<Vec<u8>>,
    /// Nobody else uses the link.
    pub(crate) unused: bool,
}

impl Router {
    /// Calls that somebody waits for, handshakes included.
    pub(crate) fn calls(&self) -> usize {
        let greetings: usize = self.groups.values().map(|group| group.greeting.len()).sum();
        let waits = |call: &&Call| call.client.is_some() && !call.endless && !call.cancelled;
        self.calls.values().filter(waits).count() + greetings
    }

    pub(crate) fn asks(&self) -> usize {
        self.asks.len()
    }

    /// The link of a session.
    pub(crate) fn link_of(&self, session: SessionId) -> Option<LinkId> {
        self.peers.get(&session).map(|peer| peer.link)
    }

    /// The sessions of a link.
    pub(crate) fn sessions_of(&self, link: LinkId) -> impl Iterator<Item = SessionId> {
        self.groups.get(&link).into_iter().flat_map(|group| group.sessions.iter().copied())
    }

    /// Ties a session to a link.
    pub(crate) fn attach(&mut self, session: SessionId, link: LinkId, server: usize, role: Role) {
        let peer = Peer {
            link,
            role,
            calls: BTreeSet::new(),
            level: None,
            subscriptions: BTreeSet::new(),
            noted: BTreeSet::new(),
        };
        self.peers.insert(session, peer);
        let group = self.groups.entry(link).or_default();
        group.server = server;
        group.sessions.insert(session);
    }

    /// Gives the call of a session to another stream: its client came back under another id.
    pub(crate) fn readdress(&mut self, stream: StreamId, id: &str, token: Option<&str>) {
        let calls = self.peers.get(&stream.session).map(|peer| peer.calls.clone()).unwrap_or_default();
        for call in calls {
            if let Some(call) = self.calls.get_mut(&call) {
                call.client = Some(Waiting { stream, id: id.to_owned() });
                call.token = token.map(str::to_owned);
            }
        }
    }

    /// A request wants log messages of at least this level, and says so itself.
    pub(crate) fn note_level(&mut self, session: SessionId, level: Option<usize>) {
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.level = level;
        }
    }

    /// A request wants log messages of at least this level. Returns what tells the server, if it must be told.
    pub(crate) fn want_level(&mut self, core: &mut Core, session: SessionId, level: usize) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(&session)?;
        peer.level = Some(level);
        let link = peer.link;
        let group = self.groups.entry(link).or_default();
        if group.told.is_some_and(|told| told <= level) {
            return None;
        }
        group.told = Some(level);
        Some(self.own_call(
            core,
            link,
            "logging/setLevel",
            &format!(r#"{{"level":"{}"}}"#, LEVELS[level]),
            Effect::None,
        ))
    }

    /// A request wants to hear of these resources. Returns what tells the server, for those that it must be told of.
    pub(crate) fn want_resources(
        &mut self,
        core: &mut Core,
        session: SessionId,
        uris: &BTreeSet<String>,
    ) -> Vec<Vec<u8>> {
        let Some(link) = self.link_of(session) else { return Vec::new() };
        let known = self.subscribed_elsewhere(link, session);
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.subscriptions.extend(uris.iter().cloned());
        }
        let new = uris.iter().filter(|uri| !known.contains(*uri));
        new.map(|uri| self.own_call(core, link, "resources/subscribe", &subscription(uri), Effect::None)).collect()
    }

    /// How many resources the sessions of a link want to hear of, each counted for itself.
    pub(crate) fn wanted_resources(&self, link: LinkId) -> usize {
        self.sessions_of(link).filter_map(|session| self.peers.get(&session)).map(|peer| peer.subscriptions.len()).sum()
    }

    /// Whether a session is subscribed to this resource, or to what it is a part of.
    pub(crate) fn is_subscribed(&self, session: SessionId, uri: &str) -> bool {
        let wants = |peer: &Peer| peer.subscriptions.iter().chain(&peer.noted).any(|whole| is_part(uri, whole));
        self.peers.get(&session).is_some_and(wants)
    }

    /// Whether a question still wants an answer.
    pub(crate) fn is_open(&self, ask: AskId) -> bool {
        self.asks.contains_key(&ask)
    }

    /// Notes what a legacy client of a modern server wants to hear of; the server is told by a subscription of our own.
    pub(crate) fn note_subscription(&mut self, session: SessionId, uri: &str, wanted: bool) {
        if let Some(peer) = self.peers.get_mut(&session) {
            if wanted {
                peer.noted.insert(uri.to_owned());
            } else {
                peer.noted.remove(uri);
            }
        }
    }

    /// Every resource that sessions of a link want to hear of.
    pub(crate) fn subscriptions(&self, link: LinkId) -> BTreeSet<String> {
        let mine = self.sessions_of(link).filter_map(|session| self.peers.get(&session));
        mine.flat_map(|peer| peer.noted.iter().cloned()).collect()
    }

    /// Sends a question of our own to a client.
    pub(crate) fn question(&mut self, core: &mut Core, stream: StreamId, ask: AskId, message: Vec<u8>) -> Option<Step> {
        let link = self.link_of(stream.session)?;
        let group = self.groups.entry(link).or_default();
        if group.asks.len() >= core.config.limits.max_calls {
            return None;
        }
        group.asks.insert(ask);
        let session = stream.session;
        self.asks.insert(ask, Ask { link, session, asker: Asker::Ourselves, token: None, stream: None });
        core.after(core.request_timeout(self.groups[&link].server), Deadline::Ask(ask));
        let target = Target { session, sole: Some(stream.number), newest: Some(stream.number) };
        Some(Step::PushTo { target, message, ask: Some(ask) })
    }

    /// Takes a question back.
    pub(crate) fn withdraw(&mut self, core: &mut Core, ask: AskId) -> Step {
        let Some(ask_) = self.close_ask(core, ask) else { return Step::Ignore };
        let mut message = cancelled(&ask.0.to_string(), "the request it belongs to is over");
        message.pop();
        let target = Target { session: ask_.session, sole: ask_.stream.map(|s| s.number), newest: None };
        Step::Withdraw { ask, target, message }
    }

    /// An `initialize` waits for the handshake of its link.
    pub(crate) fn greet(&mut self, link: LinkId, stream: StreamId, id: &str) {
        self.groups.entry(link).or_default().greeting.push((stream, id.to_owned()));
    }

    /// Whether the server of a link may still ask something about a request that nobody waits for any more.
    pub(crate) fn is_haunted(&self, link: LinkId) -> bool {
        let haunts = |call: &CallId| self.calls.get(call).is_some_and(|call| call.ghost.is_some() && call.asks);
        self.groups.get(&link).is_some_and(|group| group.calls.iter().any(haunts))
    }

    /// The `initialize` requests that waited for the handshake of a link.
    pub(crate) fn greetings(&mut self, link: LinkId) -> Vec<(StreamId, String)> {
        self.groups.get_mut(&link).map(|group| std::mem::take(&mut group.greeting)).unwrap_or_default()
    }

    fn open_call(&mut self, core: &mut Core, id: CallId, call: Call) {
        let group = self.groups.entry(call.link).or_default();
        group.calls.insert(id);
        group.busy += usize::from(call.client.is_some());
        if let Some(peer) = call.client.as_ref().and_then(|client| self.peers.get_mut(&client.stream.session)) {
            peer.calls.insert(id);
        }
        if !call.endless {
            core.after(self.timeout(core, call.link), Deadline::Call(id));
        }
        self.calls.insert(id, call);
    }

    /// The end of a call that begins now, whatever its progress: as many times the usual limit.
    fn longest(&self, core: &Core, link: LinkId) -> Instant {
        core.now + self.timeout(core, link).saturating_mul(MAX_EXTENSIONS)
    }

    /// How long a call of this link may take.
    fn timeout(&self, core: &Core, link: LinkId) -> Duration {
        core.request_timeout(self.groups.get(&link).map_or(0, |group| group.server))
    }

    fn close_call(&mut self, core: &mut Core, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        core.timers.clear(Deadline::Call(id));
        if let Some(group) = self.groups.get_mut(&call.link) {
            group.calls.remove(&id);
            group.busy -= usize::from(call.client.is_some());
        }
        if let Some(peer) = call.client.as_ref().and_then(|client| self.peers.get_mut(&client.stream.session)) {
            peer.calls.remove(&id);
        }
        Some(call)
    }

    /// Nobody waits for a call any more, though the server may still work on it.
    /// `role`: that of its session, if that one is gone already.
    fn leave_call(&mut self, core: &mut Core, id: CallId, role: Role) -> Option<Waiting> {
        let call = self.calls.get_mut(&id)?;
        let client = call.client.take()?;
        call.ghost = Some(client.stream.session);
        let peer_role = self.peers.get(&client.stream.session).map_or(role, |peer| peer.role);
        let server = self.groups.get(&call.link).map_or(0, |group| group.server);
        if let Some(group) = self.groups.get_mut(&call.link) {
            group.busy -= 1;
        }
        call.token = None;
        if let Some(peer) = self.peers.get_mut(&client.stream.session) {
            peer.calls.remove(&id);
        }
        // What a server asks about a request that stands alone must not be put to the next one, however late it comes.
        let alone = call.asks && peer_role != Role::Client;
        let wait = if alone { core.request_timeout(server) } else { AFTERLIFE };
        core.after(wait, Deadline::Call(id));
        Some(client)
    }

    fn close_ask(&mut self, core: &mut Core, id: AskId) -> Option<Ask> {
        let ask = self.asks.remove(&id)?;
        core.timers.clear(Deadline::Ask(id));
        if let Some(group) = self.groups.get_mut(&ask.link) {
            group.asks.remove(&id);
        }
        Some(ask)
    }

    fn target(&self, session: SessionId) -> Target {
        let calls = self.peers.get(&session).map(|peer| &peer.calls);
        let stream = |call: &CallId| Some(self.calls.get(call)?.client.as_ref()?.stream.number);
        let newest = calls.and_then(|calls| stream(calls.last()?));
        let sole = newest.filter(|_| calls.is_some_and(|calls| calls.len() == 1));
        Target { session, sole, newest }
    }

    fn least_level(&self, link: LinkId) -> Option<usize> {
        self.sessions_of(link).filter_map(|session| self.peers.get(&session)?.level).min()
    }

    /// The resources that other sessions of a link are subscribed to, or are about to be.
    fn subscribed_elsewhere(&self, link: LinkId, but: SessionId) -> BTreeSet<String> {
        let others = self.sessions_of(link).filter(|session| *session != but);
        let mut uris: BTreeSet<String> =
            others.filter_map(|s| self.peers.get(&s)).flat_map(|peer| peer.subscriptions.iter().cloned()).collect();
        let calls = self.groups.get(&link).into_iter().flat_map(|group| group.calls.iter());
        uris.extend(calls.filter_map(|call| match self.calls.get(call) {
            Some(Call { effect: Effect::Subscribe(uri), client: Some(client), .. }) if client.stream.session != but => {
                Some(uri.clone())
            }
            _ => None,
        }));
        uris
    }

    /// A call fails for a reason of our own.
    pub(crate) fn fail_call(&mut self, core: &mut Core, id: CallId, status: u16, code: i32, text: &str) -> Step {
        match self.close_call(core, id).and_then(|call| call.client) {
            Some(Waiting { stream, id }) => Step::Reply { stream, status, message: rpc::error(Some(&id), code, text) },
            None => Step::Ignore,
        }
    }

    /// A call of this link whose id the server used, if there is one.
    pub(crate) fn call_of(&self, link: LinkId, id: &str) -> Option<CallId> {
        let call = Id(id).number().map(CallId)?;
        self.calls.get(&call).filter(|call| call.link == link).map(|_| call)
    }

    /// Nothing more about this call can come from the server: there is no need to remember whose it was.
    pub(crate) fn bury(&mut self, core: &mut Core, id: u64) {
        if self.calls.get(&CallId(id)).is_some_and(|call| call.client.is_none()) {
            self.close_call(core, CallId(id));
        }
    }

    /// What the answer to a call is good for.
    pub(crate) fn effect_of(&self, call: CallId) -> Effect {
        self.calls.get(&call).map_or(Effect::None, |call| call.effect.clone())
    }

    /// The call of our own that listens under this id, raw.
    pub(crate) fn own_subscription(&self, link: LinkId, id: &str) -> Option<CallId> {
        let call = self.call_of(link, id)?;
        self.calls.get(&call).filter(|call| call.effect == Effect::Listen).map(|_| call)
    }

    /// The link of a call.
    pub(crate) fn link_of_call(&self, call: CallId) -> Option<LinkId> {
        self.calls.get(&call).map(|call| call.link)
    }

    /// A call had no answer for too long. Returns the line that tells the server, and the answer for the client.
    pub(crate) fn call_late(&mut self, core: &mut Core, id: CallId) -> [Step; 2] {
        let Some(call) = self.calls.get(&id) else { return [Step::Ignore, Step::Ignore] };
        let (link, cancelled_before) = (call.link, call.cancelled);
        let Some(client) = self.leave_call(core, id, Role::Client) else {
            // Nobody waited any more, and nobody will.
            self.close_call(core, id);
            return [Step::Ignore, Step::Ignore];
        };
        let answer = |code, text: &str| {
            let message = rpc::error(Some(&client.id), code, text);
            Step::Reply { stream: client.stream, status: 200, message }
        };
        if cancelled_before {
            let message = rpc::error(Some(&client.id), code::REFUSED, "Request cancelled");
            return [Step::Ignore, Step::Gone { stream: client.stream, message }];
        }
        let wait = self.timeout(core, link).as_secs_f32();
        let text = format!("Request timed out: the server did not answer within {wait} s (--request-timeout)");
        let tell = Step::Send { link, line: cancelled(id.0.to_string().as_str(), "timed out"), call: None };
        [tell, answer(code::NOT_FOUND_OR_TIMEOUT, &text)]
    }

    /// A client did not answer a question for too long.
    pub(crate) fn ask_late(&mut self, core: &mut Core, id: AskId) -> [Step; 2] {
        let Some(ask) = self.close_ask(core, id) else { return [Step::Ignore, Step::Ignore] };
        let text = "the client did not answer in time";
        let mut message = cancelled(&id.0.to_string(), "timed out");
        message.pop();
        let target = Target { session: ask.session, sole: ask.stream.map(|s| s.number), newest: None };
        let tell = match ask.asker {
            Asker::Server(theirs) => {
                let line = rpc::line(rpc::error(Some(&theirs), code::NOT_FOUND_OR_TIMEOUT, text));
                Step::SendNow { link: ask.link, line }
            }
            Asker::Ourselves => {
                let error = format!(r#"{{"code":{},"message":"{text}"}}"#, code::NOT_FOUND_OR_TIMEOUT);
                Step::Told { ask: id, outcome: Err(error) }
            }
        };
        // First this: with the other, the stream that it belongs to may end.
        [Step::Withdraw { ask: id, target, message }, tell]
    }

    /// The process behind a link is gone: every call fails, no question matters any more.
    /// Calls that are spared were not taken by it, and are sent to the next.
    pub(crate) fn link_down(&mut self, core: &mut Core, link: LinkId, text: &str, spared: &[u64]) -> Vec<Step> {
        let Some(group) = self.groups.get(&link) else { return Vec::new() };
        let (calls, asks) = (group.calls.clone(), group.asks.clone());
        for ask in asks {
            // Our own questions survive: the call they belong to is sent anew with their answers.
            if self.asks.get(&ask).is_some_and(|ask| matches!(ask.asker, Asker::Server(_))) {
                self.close_ask(core, ask);
            }
        }
        let lost = calls.into_iter().filter(|call| !spared.contains(&call.0));
        lost.map(|call| self.fail_call(core, call, 200, code::INTERNAL, text)).collect()
    }

    /// What a restarted server must hear to be as it was: log level and subscriptions.
    pub(crate) fn restore(&mut self, core: &mut Core, link: LinkId) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        let level = self.least_level(link);
        if let Some(group) = self.groups.get_mut(&link) {
            group.told = level;
        }
        if let Some(level) = level {
            requests.push(("logging/setLevel", format!(r#"{{"level":"{}"}}"#, LEVELS[level])));
        }
        let uris: BTreeSet<&String> =
            self.sessions_of(link).filter_map(|s| Some(&self.peers.get(&s)?.subscriptions)).flatten().collect();
        requests.extend(uris.into_iter().map(|uri| ("resources/subscribe", subscription(uri))));
        let own = |(method, params): (&str, String)| self.own_call(core, link, method, &params, Effect::None);
        requests.into_iter().map(own).collect()
    }

    /// A request of our own.
    fn own_call(&mut self, core: &mut Core, link: LinkId, method: &str, params: &str, effect: Effect) -> Vec<u8> {
        let id = self.open_own(core, link, effect);
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"{method}\",\"params\":{params}}}\n", id.0).into_bytes()
    }

    /// Opens a call of our own, whose line the caller makes.
    pub(crate) fn open_own(&mut self, core: &mut Core, link: LinkId, effect: Effect) -> CallId {
        let id = CallId(core.number());
        let endless = effect == Effect::Listen;
        let call = Call {
            link,
            client: None,
            ghost: None,
            task: None,
            token: None,
            cancelled: false,
            effect,
            endless,
            asks: false,
            until: self.longest(core, link),
        };
        self.open_call(core, id, call);
        id
    }

    /// Ends a call of our own, and returns the line that tells the server.
    pub(crate) fn cancel_own(&mut self, core: &mut Core, call: CallId) -> Option<(LinkId, Vec<u8>)> {
        let link = self.close_call(core, call)?.link;
        Some((link, cancelled(&call.0.to_string(), "not needed any more")))
    }

    /// A session ends.
    /// `tell`: the server is told that its calls are cancelled.
    pub(crate) fn detach(&mut self, core: &mut Core, session: SessionId, tell: bool) -> Option<Parting> {
        let peer = self.peers.remove(&session)?;
        let link = peer.link;
        let (mut open, mut lines) = (Vec::new(), Vec::new());
        let tasks = self.groups.get(&link).into_iter().flat_map(|group| group.calls.iter().copied());
        let tasks = tasks.filter(|call| {
            self.calls.get(call).and_then(|call| call.task.as_ref()).is_some_and(|task| task.session == session)
        });
        for task in tasks.collect::<Vec<_>>() {
            self.close_call(core, task);
        }
        let cancel = |call: &CallId| tell.then(|| cancelled(&call.0.to_string(), "the client is gone"));
        let calls = peer.calls.iter().map(|call| (call.0, cancel(call))).collect();
        let mut gone = Vec::new();
        for id in peer.calls {
            let cancelled = self.calls.get(&id).is_some_and(|call| call.cancelled);
            if let Some(client) = self.leave_call(core, id, peer.role) {
                if cancelled { &mut gone } else { &mut open }.push((client.stream, client.id));
            }
        }
        let group = self.groups.entry(link).or_default();
        group.sessions.remove(&session);
        let (mine, others) = group.greeting.drain(..).partition(|(stream, _)| stream.session == session);
        group.greeting = others;
        open.extend::<Vec<_>>(mine);
        let unused = group.sessions.is_empty();
        for ask in group.asks.clone() {
            if self.asks.get(&ask).is_some_and(|ask| ask.session == session)
                && let Some(Ask { asker: Asker::Server(theirs), .. }) = self.close_ask(core, ask)
            {
                lines.push(rpc::line(rpc::error(Some(&theirs), code::INTERNAL, "the client is gone")));
            }
        }
        if let Some(least) = self.least_level(link).filter(|least| peer.level.is_some_and(|level| level < *least))
            && peer.role == Role::Client
        {
            // The most curious one has left.
            let params = format!(r#"{{"level":"{}"}}"#, LEVELS[least]);
            lines.push(self.own_call(core, link, "logging/setLevel", &params, Effect::None));
            self.groups.entry(link).or_default().told = Some(least);
        }
        let known =
            if peer.subscriptions.is_empty() { BTreeSet::new() } else { self.subscribed_elsewhere(link, session) };
        for uri in peer.subscriptions {
            if !known.contains(&uri) {
                let params = subscription(&uri);
                lines.push(self.own_call(core, link, "resources/unsubscribe", &params, Effect::None));
            }
        }
        Some(Parting { open, gone, calls, link, lines, unused })
    }

    /// A link is gone for good.
    pub(crate) fn forget(&mut self, core: &mut Core, link: LinkId) {
        self.link_down(core, link, "the server was stopped", &[]);
        self.groups.remove(&link);
    }
}

/// Whether a URI is another one, or a part of it.
fn is_part(uri: &str, whole: &str) -> bool {
    uri.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']) || whole.ends_with(['/', '?', '#']))
}

/// Whether two raw ids are the same: byte for byte, or as strings.
pub(crate) fn same_id(one: &str, other: &str) -> bool {
    one == other
        || (one.starts_with('"')
            && other.starts_with('"')
            && serde_json::from_str::<String>(one).ok() == serde_json::from_str::<String>(other).ok())
}

/// The raw `taskId` of a result that begins a task (specification 2025-11-25, basic/utilities/tasks).
fn task_of(result: &RawValue) -> Option<String> {
    memchr::memmem::find(result.get().as_bytes(), b"\"taskId\"")?;
    let task = rpc::member(Some(result), "task").ok()??;
    rpc::member(Some(task), "taskId").ok()?.map(|id| id.get().to_owned())
}

/// The parameters of a subscription.
fn subscription(uri: &str) -> String {
    format!(r#"{{"uri":{}}}"#, serde_json::Value::from(uri))
}

/// A cancellation of our own. `id` is raw.
fn cancelled(id: &str, reason: &str) -> Vec<u8> {
    let mut line = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"{reason}"}}}}"#
    )
    .into_bytes();
    line.push(b'\n');
    line
}
