//! Who is meant: calls, questions, progress, cancellation, and what belongs to nobody in particular.
//!
//! A **call** is a request on its way to a server, a **question** one on its way to a client. Both travel under numbers of
//! our own, never under the sender's id, so that no two are ever mistaken for each other. An answer counts only from the
//! side the request went to. The router decides; it neither writes to servers nor to clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use log::{debug, warn};
use serde_json::value::RawValue;

use crate::back::LinkId;
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::front::{SessionId, StreamId, Target};
use crate::io::Instant;
use crate::wire::rpc::{self, Id, Kind, Message, code};

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
    Broadcast { sessions: Vec<Target>, message: Vec<u8> },
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

/// What a call changes for its session if it succeeds.
#[derive(Debug, PartialEq, Eq)]
enum Effect {
    None,
    Subscribe(String),
    Unsubscribe(String),
}

/// A request on its way to a client.
#[derive(Debug)]
struct Ask {
    link: LinkId,
    session: SessionId,
    /// The server's id, raw.
    id: String,
    /// The server's progress token, raw.
    token: Option<String>,
    /// Where it was sent.
    stream: Option<StreamId>,
}

/// What a session has to do with its link.
#[derive(Debug)]
struct Peer {
    link: LinkId,
    calls: BTreeSet<CallId>,
    /// The least severe log level it wants, as an index into [`LEVELS`].
    level: Option<usize>,
    subscriptions: BTreeSet<String>,
}

/// What a link has to do with its sessions.
#[derive(Debug, Default)]
struct Group {
    sessions: BTreeSet<SessionId>,
    calls: BTreeSet<CallId>,
    asks: BTreeSet<AskId>,
    /// Sessions whose `initialize` waits for the handshake.
    greeting: Vec<(StreamId, String)>,
}

/// Log levels by severity (specification 2025-11-25, server/utilities/logging).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

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
    /// The numbers of its calls.
    pub(crate) calls: Vec<u64>,
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
        self.calls.values().filter(|call| call.client.is_some()).count() + greetings
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
    pub(crate) fn attach(&mut self, session: SessionId, link: LinkId) {
        let peer = Peer { link, calls: BTreeSet::new(), level: None, subscriptions: BTreeSet::new() };
        self.peers.insert(session, peer);
        self.groups.entry(link).or_default().sessions.insert(session);
    }

    /// An `initialize` waits for the handshake of its link.
    pub(crate) fn greet(&mut self, link: LinkId, stream: StreamId, id: &str) {
        self.groups.entry(link).or_default().greeting.push((stream, id.to_owned()));
    }

    /// The `initialize` requests that waited for the handshake of a link.
    pub(crate) fn greetings(&mut self, link: LinkId) -> Vec<(StreamId, String)> {
        self.groups.get_mut(&link).map(|group| std::mem::take(&mut group.greeting)).unwrap_or_default()
    }

    /// A message of a client whose session has a link.
    pub(crate) fn client_says(&mut self, core: &mut Core, stream: StreamId, message: &Message<'_>) -> Step {
        match &message.kind {
            Kind::Request { id, method, params } => self.call(core, stream, message.raw, *id, method, *params),
            Kind::Notification { method, params } => {
                self.client_notifies(core, stream.session, message, method, *params)
            }
            Kind::Response { id: Some(id), .. } => self.client_answers(core, stream.session, message.raw, *id),
            Kind::Response { id: None, .. } => Step::Ignore,
        }
    }

    fn call(
        &mut self,
        core: &mut Core,
        stream: StreamId,
        raw: &str,
        id: Id<'_>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Step {
        let refuse = |status, code, text: &str| {
            let message = rpc::error(Some(id.0), code, text);
            Step::Reply { stream, status, message }
        };
        let Some(peer) = self.peers.get(&stream.session) else { return Step::Ignore };
        let link = peer.link;
        let group = self.groups.entry(link).or_default();
        if group.calls.len() >= core.config.limits.max_calls {
            return refuse(503, code::REFUSED, "too many calls wait for this server (--max-calls); try again later");
        }
        let Ok(token) = rpc::progress_token(params) else {
            return refuse(200, code::INVALID_PARAMS, "a member of the parameters comes twice");
        };
        let call = CallId(core.number());
        let number = call.0.to_string();
        let mut edits = vec![(id.0, &*number)];
        edits.extend(token.map(|token| (token.get(), &*number)));
        let level;
        let mut effect = Effect::None;
        match method {
            "resources/subscribe" | "resources/unsubscribe" => {
                let Ok(uri) = rpc::member(params, "uri") else {
                    return refuse(200, code::INVALID_PARAMS, "a member of the parameters comes twice");
                };
                if let Some(uri) = uri.and_then(rpc::string) {
                    let mine = self.peers.get(&stream.session).map_or(0, |peer| peer.subscriptions.len());
                    if mine >= core.config.limits.max_calls && method == "resources/subscribe" {
                        return refuse(200, code::REFUSED, "too many subscriptions of this session (--max-calls)");
                    }
                    if method == "resources/subscribe" {
                        effect = Effect::Subscribe(uri.into_owned());
                    } else if self.is_subscribed_elsewhere(link, stream.session, &uri) {
                        // The others still want it; only this session is told no more.
                        self.peers.get_mut(&stream.session).map(|peer| peer.subscriptions.remove(&*uri));
                        let message = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.0).into_bytes();
                        return Step::Reply { stream, status: 200, message };
                    } else {
                        effect = Effect::Unsubscribe(uri.into_owned());
                    }
                }
            }
            "logging/setLevel" => {
                let Ok(wanted) = rpc::member(params, "level") else {
                    return refuse(200, code::INVALID_PARAMS, "a member of the parameters comes twice");
                };
                let index = wanted.and_then(rpc::string).and_then(|w| LEVELS.iter().position(|l| *l == w));
                if let (Some(wanted), Some(index)) = (wanted, index) {
                    self.peers.get_mut(&stream.session).map(|peer| peer.level.replace(index));
                    // The server must say what the most curious of its clients wants; the others are spared it later.
                    let least = self.least_level(link).unwrap_or(index);
                    if least != index {
                        level = format!("\"{}\"", LEVELS[least]);
                        edits.push((wanted.get(), &level));
                    }
                }
            }
            _ => {}
        }
        let line = rpc::line(rpc::splice(raw, &mut edits));
        let client = Some(Waiting { stream, id: id.0.to_owned() });
        let token = token.map(|token| token.get().to_owned());
        self.open_call(
            core,
            call,
            Call { link, client, ghost: None, task: None, token, cancelled: false, effect, until: longest(core) },
        );
        Step::Send { link, line, call: Some(call) }
    }

    fn open_call(&mut self, core: &mut Core, id: CallId, call: Call) {
        self.groups.entry(call.link).or_default().calls.insert(id);
        if let Some(peer) = call.client.as_ref().and_then(|client| self.peers.get_mut(&client.stream.session)) {
            peer.calls.insert(id);
        }
        core.after(core.config.timeouts.request, Deadline::Call(id));
        self.calls.insert(id, call);
    }

    fn close_call(&mut self, core: &mut Core, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        core.timers.clear(Deadline::Call(id));
        if let Some(group) = self.groups.get_mut(&call.link) {
            group.calls.remove(&id);
        }
        if let Some(peer) = call.client.as_ref().and_then(|client| self.peers.get_mut(&client.stream.session)) {
            peer.calls.remove(&id);
        }
        Some(call)
    }

    /// Nobody waits for a call any more, though the server may still work on it.
    fn leave_call(&mut self, core: &mut Core, id: CallId) -> Option<Waiting> {
        let call = self.calls.get_mut(&id)?;
        let client = call.client.take()?;
        call.ghost = Some(client.stream.session);
        call.token = None;
        if let Some(peer) = self.peers.get_mut(&client.stream.session) {
            peer.calls.remove(&id);
        }
        core.after(AFTERLIFE, Deadline::Call(id));
        Some(client)
    }

    fn client_notifies(
        &mut self,
        core: &mut Core,
        session: SessionId,
        message: &Message<'_>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Step {
        let Some(link) = self.link_of(session) else { return Step::Ignore };
        match method {
            "notifications/initialized" => Step::Initialized { link, message: message.raw.to_owned() },
            "notifications/cancelled" => {
                let Ok(Some(wanted)) = rpc::member(params, "requestId") else { return Step::Ignore };
                // An id may stand for several calls if the client is careless; it means the last one.
                let mine = self.peers.get(&session).into_iter().flat_map(|peer| peer.calls.iter().rev().copied());
                let found = mine.into_iter().find(|id| {
                    let client = self.calls.get(id).and_then(|call| call.client.as_ref());
                    client.is_some_and(|client| same_id(&client.id, wanted.get()))
                });
                let Some(call) = found else { return Step::Ignore };
                if let Some(call) = self.calls.get_mut(&call) {
                    call.cancelled = true;
                }
                // The server need not answer any more, but the request must be.
                core.after(core.config.timeouts.cancel, Deadline::Call(call));
                let line = rpc::line(rpc::splice(message.raw, &mut [(wanted.get(), &call.0.to_string())]));
                Step::Send { link, line, call: None }
            }
            "notifications/progress" => {
                let Ok(Some(token)) = rpc::member(params, "progressToken") else { return Step::Ignore };
                let ask = Id(token.get()).number().and_then(|n| self.asks.get(&AskId(n)));
                match ask.filter(|ask| ask.session == session).and_then(|ask| ask.token.as_deref()) {
                    Some(theirs) => {
                        let line = rpc::line(rpc::splice(message.raw, &mut [(token.get(), theirs)]));
                        Step::Send { link, line, call: None }
                    }
                    None => Step::Ignore,
                }
            }
            _ => Step::Send { link, line: rpc::line(message.raw.as_bytes().to_vec()), call: None },
        }
    }

    fn client_answers(&mut self, core: &mut Core, session: SessionId, raw: &str, id: Id<'_>) -> Step {
        let asked = id.number().map(AskId);
        let mine = asked.filter(|ask| self.asks.get(ask).is_some_and(|ask| ask.session == session));
        let Some(ask) = mine.and_then(|ask| self.close_ask(core, ask)) else {
            debug!("session#{}: an answer to nothing that was asked was dropped", session.0);
            return Step::Ignore;
        };
        Step::SendNow { link: ask.link, line: rpc::line(rpc::splice(raw, &mut [(id.0, &ask.id)])) }
    }

    fn close_ask(&mut self, core: &mut Core, id: AskId) -> Option<Ask> {
        let ask = self.asks.remove(&id)?;
        core.timers.clear(Deadline::Ask(id));
        if let Some(group) = self.groups.get_mut(&ask.link) {
            group.asks.remove(&id);
        }
        Some(ask)
    }

    /// A message of a server. `about` is the number of the call on whose stream it came, if it came on one.
    pub(crate) fn server_says(
        &mut self,
        core: &mut Core,
        link: LinkId,
        message: &Message<'_>,
        about: Option<u64>,
    ) -> Step {
        let about = about.map(CallId).filter(|call| self.calls.get(call).is_some_and(|call| call.link == link));
        match &message.kind {
            Kind::Response { id, outcome } => self.server_answers(core, link, message.raw, *id, outcome.ok()),
            Kind::Request { id, method, params } => self.ask(core, link, message.raw, *id, method, *params, about),
            Kind::Notification { method, params } => self.server_notifies(core, link, message, method, *params, about),
        }
    }

    fn server_answers(
        &mut self,
        core: &mut Core,
        link: LinkId,
        raw: &str,
        id: Option<Id<'_>>,
        result: Option<&RawValue>,
    ) -> Step {
        let Some(id) = id else {
            warn!("a server answered a message that it could not read");
            return Step::Ignore;
        };
        let number = id.number().map(CallId).filter(|call| self.calls.get(call).is_some_and(|call| call.link == link));
        let Some(call) = number.and_then(|call| self.close_call(core, call)) else {
            debug!("link#{}: a late or unknown answer was dropped", link.0);
            return Step::Ignore;
        };
        let Some(client) = call.client else { return Step::Ignore };
        let session = client.stream.session;
        let busy = self.groups.get(&link).map_or(0, |group| group.calls.len());
        if let (Some(id), Some(number)) = (result.and_then(task_of), number)
            && busy < core.config.limits.max_calls / 2
        {
            let task = Some(Task { session, id });
            let token = call.token;
            let rest = Call {
                link,
                client: None,
                ghost: None,
                task,
                token,
                cancelled: false,
                effect: Effect::None,
                until: longest(core),
            };
            self.open_call(core, number, rest);
        }
        if result.is_some()
            && let Some(peer) = self.peers.get_mut(&client.stream.session)
        {
            match call.effect {
                Effect::None => {}
                Effect::Subscribe(uri) => drop(peer.subscriptions.insert(uri)),
                Effect::Unsubscribe(uri) => drop(peer.subscriptions.remove(&uri)),
            }
        }
        let message = rpc::splice(raw, &mut [(id.0, &client.id)]);
        Step::Reply { stream: client.stream, status: 200, message }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one message")]
    fn ask(
        &mut self,
        core: &mut Core,
        link: LinkId,
        raw: &str,
        id: Id<'_>,
        method: &str,
        params: Option<&RawValue>,
        about: Option<CallId>,
    ) -> Step {
        let answer = |text: String| Step::SendNow { link, line: rpc::line(text.into_bytes()) };
        if method == "ping" {
            // It asks whether its peer is there, and that is us. The client may have no stream open to be asked on.
            return answer(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.0));
        }
        let refuse = |code, text: &str| Step::SendNow { link, line: rpc::line(rpc::error(Some(id.0), code, text)) };
        let Some(target) = self.concerned(link, about) else {
            return refuse(code::METHOD_NOT_FOUND, "no single client can be meant by this request");
        };
        let Ok(token) = rpc::progress_token(params) else {
            return refuse(code::INVALID_PARAMS, "a member of the parameters comes twice");
        };
        let group = self.groups.entry(link).or_default();
        if group.asks.len() >= core.config.limits.max_calls {
            return refuse(code::REFUSED, "too many requests of this server wait for the client");
        }
        let ask = AskId(core.number());
        group.asks.insert(ask);
        let number = ask.0.to_string();
        let mut edits = vec![(id.0, &*number)];
        edits.extend(token.map(|token| (token.get(), &*number)));
        let message = rpc::splice(raw, &mut edits);
        let token = token.map(|token| token.get().to_owned());
        self.asks.insert(ask, Ask { link, session: target.session, id: id.0.to_owned(), token, stream: None });
        core.after(core.config.timeouts.request, Deadline::Ask(ask));
        Step::PushTo { target, message, ask: Some(ask) }
    }

    /// A question cannot be asked: its client has no session to answer in.
    pub(crate) fn refuse_ask(&mut self, core: &mut Core, id: AskId) -> Step {
        let Some(ask) = self.close_ask(core, id) else { return Step::Ignore };
        let text = "the client has no session and cannot be asked anything";
        Step::SendNow { link: ask.link, line: rpc::line(rpc::error(Some(&ask.id), code::METHOD_NOT_FOUND, text)) }
    }

    /// Notes where a question went.
    pub(crate) fn asked_on(&mut self, ask: AskId, stream: StreamId) {
        if let Some(ask) = self.asks.get_mut(&ask) {
            ask.stream = Some(stream);
        }
    }

    fn server_notifies(
        &mut self,
        core: &mut Core,
        link: LinkId,
        message: &Message<'_>,
        method: &str,
        params: Option<&RawValue>,
        about: Option<CallId>,
    ) -> Step {
        match method {
            "notifications/progress" => {
                let Ok(Some(token)) = rpc::member(params, "progressToken") else { return Step::Ignore };
                let id = Id(token.get()).number().map(CallId);
                let found = id.and_then(|id| Some((id, self.calls.get(&id)?)));
                // Progress of a finished call is dropped: clients fail on it.
                let Some((id, Call { client, task, token: Some(theirs), cancelled, until, .. })) =
                    found.filter(|(_, call)| call.link == link)
                else {
                    return Step::Ignore;
                };
                if !cancelled {
                    core.timers.set(Deadline::Call(id), (core.now + core.config.timeouts.request).min(*until));
                }
                let message = rpc::splice(message.raw, &mut [(token.get(), theirs)]);
                match (client, task) {
                    (Some(client), _) => Step::Push { stream: client.stream, message },
                    (None, Some(task)) => Step::PushTo { target: self.target(task.session), message, ask: None },
                    (None, None) => Step::Ignore,
                }
            }
            "notifications/cancelled" => {
                let Ok(Some(wanted)) = rpc::member(params, "requestId") else { return Step::Ignore };
                let group = self.groups.get(&link);
                let found = group
                    .into_iter()
                    .flat_map(|group| group.asks.iter().rev().copied())
                    .find(|ask| self.asks.get(ask).is_some_and(|ask| same_id(&ask.id, wanted.get())));
                let Some((id, ask)) = found.and_then(|id| Some((id, self.close_ask(core, id)?))) else {
                    return Step::Ignore;
                };
                let message = rpc::splice(message.raw, &mut [(wanted.get(), &id.0.to_string())]);
                let number = ask.stream.map(|stream| stream.number);
                let target = Target { session: ask.session, sole: number, newest: None };
                Step::PushTo { target, message, ask: None }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                let sessions = self.sessions_of(link).map(|session| self.target(session)).collect();
                Step::Broadcast { sessions, message: message.raw.as_bytes().to_vec() }
            }
            "notifications/resources/updated" => {
                let uri = rpc::member(params, "uri").ok().flatten().and_then(rpc::string).unwrap_or_default();
                let alone = self.groups.get(&link).is_some_and(|group| group.sessions.len() == 1);
                let wants = |session: &SessionId| {
                    // What changed may be a part of what was subscribed to (specification, server/resources).
                    let subscribed = |peer: &Peer| peer.subscriptions.iter().any(|whole| is_part(&uri, whole));
                    alone || self.peers.get(session).is_some_and(subscribed)
                };
                let sessions = self.sessions_of(link).filter(wants).map(|session| self.target(session)).collect();
                Step::Broadcast { sessions, message: message.raw.as_bytes().to_vec() }
            }
            "notifications/tasks/status" if let Some((call, over)) = self.task_told(link, params) => {
                let session = self.calls.get(&call).and_then(|call| call.task.as_ref()).map(|task| task.session);
                if over {
                    self.close_call(core, call);
                }
                let Some(session) = session else { return Step::Ignore };
                Step::PushTo { target: self.target(session), message: message.raw.as_bytes().to_vec(), ask: None }
            }
            _ => {
                let Some(target) = self.concerned(link, about) else {
                    debug!("link#{}: {method} was dropped: it does not say which client it is for", link.0);
                    return Step::Ignore;
                };
                if method == "notifications/message" && !self.is_loud_enough(target.session, params) {
                    return Step::Ignore;
                }
                Step::PushTo { target, message: message.raw.as_bytes().to_vec(), ask: None }
            }
        }
    }

    /// The call that began the task a status is about, and whether that task is over.
    fn task_told(&self, link: LinkId, params: Option<&RawValue>) -> Option<(CallId, bool)> {
        let id = rpc::member(params, "taskId").ok()??;
        let status = rpc::member(params, "status").ok()?.and_then(rpc::string).unwrap_or_default();
        let mut calls = self.groups.get(&link)?.calls.iter();
        let mine = |call: &&CallId| {
            let task = self.calls.get(call).and_then(|call| call.task.as_ref());
            task.is_some_and(|task| same_id(&task.id, id.get()))
        };
        calls.find(mine).map(|call| (*call, matches!(&*status, "completed" | "failed" | "cancelled")))
    }

    /// The session that something without a name concerns: that of the call on whose stream it came, else the only one
    /// with calls in flight, else the only one there is.
    fn concerned(&self, link: LinkId, about: Option<CallId>) -> Option<Target> {
        if let Some(client) = about.and_then(|call| self.calls.get(&call)?.client.as_ref()) {
            let number = Some(client.stream.number);
            return Some(Target { session: client.stream.session, sole: number, newest: number });
        }
        let group = self.groups.get(&link)?;
        let whose = |call: &CallId| {
            let call = self.calls.get(call)?;
            call.client.as_ref().map(|client| client.stream.session).or(call.ghost)
        };
        let mut busy = group.calls.iter().filter_map(whose);
        let session = match busy.next() {
            Some(session) => session,
            None if group.sessions.len() == 1 => *group.sessions.first()?,
            None => return None,
        };
        let alone = busy.all(|other| other == session) && group.sessions.contains(&session);
        alone.then(|| self.target(session))
    }

    fn target(&self, session: SessionId) -> Target {
        let calls = self.peers.get(&session).map(|peer| &peer.calls);
        let stream = |call: &CallId| Some(self.calls.get(call)?.client.as_ref()?.stream.number);
        let newest = calls.and_then(|calls| stream(calls.last()?));
        let sole = newest.filter(|_| calls.is_some_and(|calls| calls.len() == 1));
        Target { session, sole, newest }
    }

    /// Whether a log message is severe enough for a session. The server only knows what it was told last, by whomever.
    fn is_loud_enough(&self, session: SessionId, params: Option<&RawValue>) -> bool {
        let Some(least) = self.peers.get(&session).and_then(|peer| peer.level) else { return true };
        let level = rpc::member(params, "level").ok().flatten().and_then(rpc::string);
        let index = level.and_then(|level| LEVELS.iter().position(|l| *l == level));
        index.is_none_or(|index| index >= least)
    }

    fn least_level(&self, link: LinkId) -> Option<usize> {
        self.sessions_of(link).filter_map(|session| self.peers.get(&session)?.level).min()
    }

    fn is_subscribed_elsewhere(&self, link: LinkId, but: SessionId, uri: &str) -> bool {
        let subscribed = |s: SessionId| self.peers.get(&s).is_some_and(|peer| peer.subscriptions.contains(uri));
        let subscribing = |call: &CallId| {
            let call = self.calls.get(call).filter(|call| matches!(&call.effect, Effect::Subscribe(u) if u == uri));
            call.and_then(|call| call.client.as_ref()).is_some_and(|client| client.stream.session != but)
        };
        self.sessions_of(link).any(|session| session != but && subscribed(session))
            || self.groups.get(&link).is_some_and(|group| group.calls.iter().any(subscribing))
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

    /// The link of a call.
    pub(crate) fn link_of_call(&self, call: CallId) -> Option<LinkId> {
        self.calls.get(&call).map(|call| call.link)
    }

    /// A call had no answer for too long. Returns the line that tells the server, and the answer for the client.
    pub(crate) fn call_late(&mut self, core: &mut Core, id: CallId) -> [Step; 2] {
        let Some(call) = self.calls.get(&id) else { return [Step::Ignore, Step::Ignore] };
        let (link, cancelled_before) = (call.link, call.cancelled);
        let Some(client) = self.leave_call(core, id) else {
            // Nobody waited any more, and nobody will.
            self.close_call(core, id);
            return [Step::Ignore, Step::Ignore];
        };
        let answer = |code, text: &str| {
            let message = rpc::error(Some(&client.id), code, text);
            Step::Reply { stream: client.stream, status: 200, message }
        };
        if cancelled_before {
            return [Step::Ignore, answer(code::REFUSED, "Request cancelled")];
        }
        let wait = core.config.timeouts.request.as_secs_f32();
        let text = format!("Request timed out: the server did not answer within {wait} s (--request-timeout)");
        let tell = Step::Send { link, line: cancelled(id.0.to_string().as_str(), "timed out"), call: None };
        [tell, answer(code::NOT_FOUND_OR_TIMEOUT, &text)]
    }

    /// A client did not answer a question for too long.
    pub(crate) fn ask_late(&mut self, core: &mut Core, id: AskId) -> [Step; 2] {
        let Some(ask) = self.close_ask(core, id) else { return [Step::Ignore, Step::Ignore] };
        let text = "the client did not answer in time";
        let line = rpc::line(rpc::error(Some(&ask.id), code::NOT_FOUND_OR_TIMEOUT, text));
        let mut message = cancelled(&id.0.to_string(), "timed out");
        message.pop();
        let target = Target { session: ask.session, sole: ask.stream.map(|s| s.number), newest: None };
        [Step::SendNow { link: ask.link, line }, Step::PushTo { target, message, ask: None }]
    }

    /// The process behind a link is gone: every call fails, no question matters any more.
    /// Calls that are spared were not taken by it, and are sent to the next.
    pub(crate) fn link_down(&mut self, core: &mut Core, link: LinkId, text: &str, spared: &[u64]) -> Vec<Step> {
        let Some(group) = self.groups.get(&link) else { return Vec::new() };
        let (calls, asks) = (group.calls.clone(), group.asks.clone());
        for ask in asks {
            self.close_ask(core, ask);
        }
        let lost = calls.into_iter().filter(|call| !spared.contains(&call.0));
        lost.map(|call| self.fail_call(core, call, 200, code::INTERNAL, text)).collect()
    }

    /// What a restarted server must hear to be as it was: log level and subscriptions.
    pub(crate) fn restore(&mut self, core: &mut Core, link: LinkId) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        if let Some(level) = self.least_level(link) {
            requests.push(("logging/setLevel", format!(r#"{{"level":"{}"}}"#, LEVELS[level])));
        }
        let uris: BTreeSet<&String> =
            self.sessions_of(link).filter_map(|s| Some(&self.peers.get(&s)?.subscriptions)).flatten().collect();
        requests.extend(uris.into_iter().map(|uri| ("resources/subscribe", subscription(uri))));
        requests.into_iter().map(|(method, params)| self.own_call(core, link, method, &params)).collect()
    }

    /// A request of our own.
    fn own_call(&mut self, core: &mut Core, link: LinkId, method: &str, params: &str) -> Vec<u8> {
        let id = CallId(core.number());
        self.open_call(
            core,
            id,
            Call {
                link,
                client: None,
                ghost: None,
                task: None,
                token: None,
                cancelled: false,
                effect: Effect::None,
                until: longest(core),
            },
        );
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"{method}\",\"params\":{params}}}\n", id.0).into_bytes()
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
        let calls = peer.calls.iter().map(|call| call.0).collect();
        for id in peer.calls {
            if let Some(client) = self.leave_call(core, id) {
                open.push((client.stream, client.id));
                if tell {
                    lines.push(cancelled(&id.0.to_string(), "the client is gone"));
                }
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
                && let Some(ask) = self.close_ask(core, ask)
            {
                lines.push(rpc::line(rpc::error(Some(&ask.id), code::INTERNAL, "the client is gone")));
            }
        }
        if let Some(least) = self.least_level(link).filter(|least| peer.level.is_some_and(|level| level < *least)) {
            // The most curious one has left.
            let params = format!(r#"{{"level":"{}"}}"#, LEVELS[least]);
            lines.push(self.own_call(core, link, "logging/setLevel", &params));
        }
        for uri in peer.subscriptions {
            if !self.is_subscribed_elsewhere(link, session, &uri) {
                lines.push(self.own_call(core, link, "resources/unsubscribe", &subscription(&uri)));
            }
        }
        Some(Parting { open, calls, link, lines, unused })
    }

    /// A link is gone for good.
    pub(crate) fn forget(&mut self, core: &mut Core, link: LinkId) {
        self.link_down(core, link, "the server was stopped", &[]);
        self.groups.remove(&link);
    }
}

/// The end of a call that begins now, whatever its progress: as many times the usual limit.
fn longest(core: &Core) -> Instant {
    core.now + core.config.timeouts.request.saturating_mul(MAX_EXTENSIONS)
}

/// Whether a URI is another one, or a part of it.
fn is_part(uri: &str, whole: &str) -> bool {
    uri.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']) || whole.ends_with(['/', '?', '#']))
}

/// Whether two raw ids are the same: byte for byte, or as strings.
fn same_id(one: &str, other: &str) -> bool {
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
