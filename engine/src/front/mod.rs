//! The side of the clients: HTTP exchanges, sessions and their streams (Streamable HTTP, revisions 2025-03-26 to
//! 2025-11-25), the event stream of HTTP+SSE ([`legacy`]), and our own stdin and stdout ([`stdio`]).
//!
//! An exchange is one HTTP request and its response. A session is a client; a stream is what answers one POST, or the
//! standalone one. An answer is one JSON body if the first message is the only one. It is a stream of events if anything
//! precedes it, if it takes long, or if the client would rather have it so: whoever finds that out calls [`Front::commit`].

pub(crate) mod http;
mod legacy;
mod modern;
pub(crate) mod session;
pub(crate) mod status;
mod stdio;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use log::{debug, info, warn};

use crate::core::Core;
use crate::core::outbox::Outbox;
use crate::core::timers::Deadline;
use crate::era::envelope::Envelope;
use crate::io::{Action, Body, ExchangeId, Headers, HttpRequest, HttpResponse, Instant, Pipe};
use crate::wire::rpc::{Kind, Message, code};
use crate::wire::{rpc, sse};
use http::{Place, Refusal, Verb, refuse};
use session::{Channel, STANDALONE, Session, Stream, event_id, parse_event_id};

/// Names one session inside the engine. Never used twice, never shown to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// Names one stream of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId {
    pub(crate) session: SessionId,
    pub(crate) number: u32,
}

/// Where something belongs that a server said without naming a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) session: SessionId,
    /// The stream of the only request in flight: it is about that one.
    pub(crate) sole: Option<u32>,
    /// The stream of the newest request in flight.
    pub(crate) newest: Option<u32>,
}

/// What a request comes to, after the front has done its part.
#[derive(Debug)]
pub(crate) enum Inbound<'r> {
    /// Nothing more to do: it is answered, or a stream was opened.
    Done,
    /// Messages to route. If none of them is a request, the exchange is answered already.
    Post { server: usize, stream: StreamId, messages: Vec<Message<'r>> },
    /// A request of revision 2026-07-28, with what it says of its client.
    Modern { server: usize, stream: StreamId, message: Message<'r>, envelope: Envelope },
    /// The client ends its session.
    Delete(SessionId),
    /// Somebody asks how the servers are; see [`Front::answer_status`].
    Status(Place),
}

#[derive(Debug)]
struct Exchange {
    session: Option<SessionId>,
    stream: u32,
    phase: Phase,
    outbox: Outbox,
    /// Bytes of a whole response that are not yet written.
    unsent: usize,
    /// It asked for `initialize`: the answer names the session.
    hello: bool,
    /// The `Origin` it came with, for CORS.
    origin: Option<String>,
}

impl Exchange {
    fn new(id: ExchangeId, request: &HttpRequest) -> Self {
        Exchange {
            session: None,
            stream: 0,
            phase: Phase::Pending,
            outbox: Outbox::new(Pipe::Response(id)),
            unsent: 0,
            hello: false,
            origin: request.headers.get("origin").map(str::to_owned),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was answered yet.
    Pending,
    /// It is an event stream.
    Streaming,
    /// It is answered in full; only its end is awaited.
    Answered,
}

#[derive(Debug, Default)]
pub(crate) struct Front {
    exchanges: BTreeMap<ExchangeId, Exchange>,
    sessions: BTreeMap<SessionId, Session>,
    names: BTreeMap<String, SessionId>,
    /// The client on our stdin and stdout.
    stdio: Option<stdio::Stdio>,
    /// When something came in last.
    last_activity: Instant,
}

impl Front {
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes a request in.
    pub(crate) fn request<'r>(&mut self, core: &mut Core, id: ExchangeId, request: &'r HttpRequest) -> Inbound<'r> {
        self.exchanges.insert(id, Exchange::new(id, request));
        let (inbound, request_id) = self.admit(core, id, request);
        inbound.unwrap_or_else(|refusal| {
            self.refuse(core, id, &refusal, request_id.as_deref());
            Inbound::Done
        })
    }

    /// Decides about a request. Beside a refusal there may be the id of the JSON-RPC request that it refuses.
    fn admit<'r>(
        &mut self,
        core: &mut Core,
        id: ExchangeId,
        request: &'r HttpRequest,
    ) -> (Result<Inbound<'r>, Refusal>, Option<String>) {
        if self.exchanges.len() > core.config.limits.max_exchanges {
            return (refuse(503, code::REFUSED, "too many requests are being answered; try again later"), None);
        }
        let access = &core.config.access;
        if let Err(refusal) = http::check_access(access, request) {
            return (Err(refusal), None);
        }
        if request.method == "OPTIONS"
            && let Some(headers) = http::preflight(access, request)
        {
            // A preflight carries no key; what follows it does.
            self.respond(core, id, 204, headers, Body::Full(Vec::new()));
            return (Ok(Inbound::Done), None);
        }
        let place = http::check_key(access, request).and_then(|_| http::find_place(&core.config.servers, request));
        let mut request_id = None;
        let inbound = place.and_then(|place| match place {
            Place::Mcp(server) => {
                self.last_activity = core.now;
                match http::verb(request, is_stateless(core, server))? {
                    Verb::Post => self.admit_post(core, id, server, request, &mut request_id),
                    Verb::Get => self.admit_get(core, id, server, request),
                    Verb::Delete => self.known_session(core, server, request).map(Inbound::Delete),
                }
            }
            Place::Sse(server, named) => self.admit_sse(core, id, server, named, request),
            Place::Messages(server) => self.admit_message(core, id, server, request, &mut request_id),
            Place::Status | Place::Healthz | Place::Readyz => self.admit_status(id, place, request),
        });
        (inbound, request_id)
    }

    fn admit_post<'r>(
        &mut self,
        core: &mut Core,
        id: ExchangeId,
        server: usize,
        request: &'r HttpRequest,
        request_id: &mut Option<String>,
    ) -> Result<Inbound<'r>, Refusal> {
        http::check_post(request)?;
        let (messages, batch) = read_messages(core, request, request_id)?;
        let is_hello = |m: &Message<'_>| matches!(&m.kind, Kind::Request { method, .. } if method == "initialize");
        let hello = messages.iter().any(is_hello);
        if modern::is_modern(request, &messages) {
            return self.admit_modern(core, id, server, request, messages, batch);
        }
        if hello && batch {
            return refuse(400, code::INVALID_REQUEST, "initialize must not be part of a batch");
        }
        let stateless = is_stateless(core, server);
        let env = if hello || stateless {
            Some(http::child_environment(&core.config.servers[server], request)?)
        } else {
            None
        };
        let session = if stateless {
            if !hello {
                http::check_version(request, None)?;
            }
            let asked = request.headers.get("mcp-protocol-version").unwrap_or(http::BATCH_REVISION);
            if batch && asked != http::BATCH_REVISION {
                return refuse(400, code::INVALID_REQUEST, NO_BATCHES);
            }
            let revision = (!hello).then(|| asked.to_owned());
            self.open_session(core, server, None, Channel::OneExchange, revision)
        } else if hello {
            if http::session_name(request)?.is_some() {
                self.known_session(core, server, request)?;
                return refuse(400, code::INVALID_REQUEST, "this session is initialized already");
            }
            let name = self.fresh_name(core, request)?;
            self.open_session(core, server, Some(name), Channel::Streams, None)
        } else {
            let session = self.known_session(core, server, request)?;
            let revision = self.sessions.get(&session).and_then(|s| s.revision.as_deref());
            if batch && revision != Some(http::BATCH_REVISION) {
                return refuse(400, code::INVALID_REQUEST, NO_BATCHES);
            }
            session
        };
        if let Some(env) = env
            && let Some(session) = self.sessions.get_mut(&session)
        {
            session.env = env;
            session.who = http::check_key(&core.config.access, request)?;
        }
        let waiting = messages.iter().filter(|m| matches!(m.kind, Kind::Request { .. })).count();
        let number = self.attach(core, id, session, waiting, batch);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.hello = hello;
        }
        if waiting == 0 {
            self.respond(core, id, 202, Headers::new(), Body::Full(Vec::new()));
        } else if !hello && http::prefers_stream(request) {
            self.commit(core, id);
        }
        Ok(Inbound::Post { server, stream: StreamId { session, number }, messages })
    }

    fn admit_get<'r>(
        &mut self,
        core: &mut Core,
        id: ExchangeId,
        server: usize,
        request: &'r HttpRequest,
    ) -> Result<Inbound<'r>, Refusal> {
        http::check_get(request)?;
        let name = self.known_session(core, server, request)?;
        let Some(session) = self.sessions.get_mut(&name) else { return Ok(Inbound::Done) };
        let (mut number, mut after) = (STANDALONE, None);
        if let Some(last) = request.headers.get("last-event-id") {
            match parse_event_id(last) {
                // A stream that has not begun has given out no id.
                Some((stream, event))
                    if stream <= session.last_stream && session.streams.get(&stream).is_none_or(|s| s.begun) =>
                {
                    (number, after) = (stream, Some(event));
                }
                _ => return refuse(400, code::INVALID_REQUEST, "this Last-Event-ID is not one of this session"),
            }
        }
        let finished = number != STANDALONE && !session.streams.contains_key(&number);
        let stream = session.streams.entry(number).or_default();
        let missed = session.replay.after(number, after.unwrap_or(stream.sent));
        if number != STANDALONE {
            // A client that takes up a stream again has given up its old connection.
            for old in std::mem::take(&mut stream.attached) {
                if let Some(exchange) = self.exchanges.get_mut(&old) {
                    exchange.outbox.close(core);
                }
            }
        }
        let Some(session) = self.sessions.get_mut(&name) else { return Ok(Inbound::Done) };
        session.exchanges.insert(id);
        if finished {
            session.streams.remove(&number);
        } else if let Some(stream) = session.streams.get_mut(&number) {
            stream.attached.push(id);
        }
        core.timers.clear(Deadline::SessionIdle(name));
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.session = Some(name);
            exchange.stream = number;
        }
        self.begin_stream(core, id, after.is_none());
        if let Some(stream) = self.sessions.get_mut(&name).and_then(|s| s.streams.get_mut(&number)) {
            stream.sent = stream.last_event;
        }
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            if !missed.is_empty() {
                exchange.outbox.push(core, missed);
            }
            if finished {
                exchange.outbox.close(core);
            }
        }
        Ok(Inbound::Done)
    }

    /// The session a request names, with every rule that needs it.
    fn known_session(&self, core: &Core, server: usize, request: &HttpRequest) -> Result<SessionId, Refusal> {
        let Some(name) = http::session_name(request)? else {
            return refuse(400, code::REFUSED, "Mcp-Session-Id is missing; begin with initialize");
        };
        let who = http::check_key(&core.config.access, request)?;
        let mine = |s: &Session| s.server == server && s.channel == Channel::Streams && s.who == who;
        let known = self.names.get(name).copied().filter(|id| self.sessions.get(id).is_some_and(mine));
        let Some(id) = known else {
            return refuse(404, code::NOT_FOUND_OR_TIMEOUT, "Session not found");
        };
        http::check_version(request, self.sessions.get(&id).and_then(|s| s.revision.as_deref()))?;
        Ok(id)
    }

    /// A name for a new session, if there may be one more.
    fn fresh_name(&self, core: &Core, request: &HttpRequest) -> Result<String, Refusal> {
        if self.sessions.len() >= core.config.limits.max_sessions {
            return refuse(503, code::REFUSED, "too many sessions (--max-sessions); try again later");
        }
        let mut name = String::with_capacity(32);
        for byte in request.random {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        if self.names.contains_key(&name) {
            return refuse(503, code::REFUSED, "no fresh session id is to be had; try again");
        }
        Ok(name)
    }

    fn open_session(
        &mut self,
        core: &mut Core,
        server: usize,
        name: Option<String>,
        channel: Channel,
        revision: Option<String>,
    ) -> SessionId {
        let id = SessionId(core.number());
        debug!("[{}] session#{} opened", core.config.servers[server].name, id.0);
        let session = Session {
            name,
            channel,
            server,
            revision,
            exchanges: std::collections::BTreeSet::new(),
            streams: BTreeMap::new(),
            last_stream: 0,
            replay: session::Replay::default(),
            dedicated: false,
            env: http::Env::default(),
            who: 0,
        };
        self.sessions.insert(id, session);
        id
    }

    /// Ties an exchange to a new stream of a session.
    fn attach(&mut self, core: &mut Core, id: ExchangeId, session: SessionId, waiting: usize, batch: bool) -> u32 {
        let (Some(owner), Some(exchange)) = (self.sessions.get_mut(&session), self.exchanges.get_mut(&id)) else {
            return STANDALONE;
        };
        owner.exchanges.insert(id);
        exchange.session = Some(session);
        core.timers.clear(Deadline::SessionIdle(session));
        if waiting == 0 {
            return STANDALONE;
        }
        owner.last_stream += 1;
        exchange.stream = owner.last_stream;
        let batch = batch.then(Vec::new);
        owner.streams.insert(owner.last_stream, Stream { attached: vec![id], waiting, batch, ..Stream::default() });
        core.after(core.config.timeouts.keep_alive, Deadline::KeepAlive(id));
        owner.last_stream
    }

    /// The handshake of a session is done: it may be used from now on.
    pub(crate) fn confirm(&mut self, core: &Core, id: SessionId, revision: Option<&str>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.revision = revision.map(str::to_owned);
        if let Some(name) = &session.name {
            self.names.insert(name.clone(), id);
        }
        if matches!(session.channel, Channel::Streams | Channel::Sse(_) | Channel::Stdio) {
            let server = &core.config.servers[session.server].name;
            info!("[{server}] session#{} began, revision {}", id.0, revision.unwrap_or("unknown"));
        }
    }

    /// Says whether the session has its process for itself.
    pub(crate) fn set_dedicated(&mut self, id: SessionId, dedicated: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.dedicated = dedicated;
        }
    }

    /// Which key let the client of a session in.
    pub(crate) fn who(&self, id: SessionId) -> usize {
        self.sessions.get(&id).map_or(0, |s| s.who)
    }

    /// What the client of a session adds to the environment of its server.
    pub(crate) fn env(&self, id: SessionId) -> http::Env {
        self.sessions.get(&id).map(|s| s.env.clone()).unwrap_or_default()
    }

    /// The server that a session talks to.
    pub(crate) fn server_of(&self, id: SessionId) -> usize {
        self.sessions.get(&id).map_or(0, |s| s.server)
    }

    pub(crate) fn is_dedicated(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| s.dedicated)
    }

    pub(crate) fn revision(&self, id: SessionId) -> Option<&str> {
        self.sessions.get(&id)?.revision.as_deref()
    }

    /// Whether the session lives for one exchange only.
    pub(crate) fn is_ephemeral(&self, id: SessionId) -> bool {
        let one = |s: &Session| matches!(s.channel, Channel::OneExchange | Channel::Modern | Channel::ModernStdio);
        self.sessions.get(&id).is_none_or(one)
    }

    /// Answers one request of a stream. `status` counts if the answer turns out to be the whole response.
    pub(crate) fn reply(&mut self, core: &mut Core, id: StreamId, status: u16, mut message: Vec<u8>) {
        if self.is_flooded(core, id.session) {
            warn!("session#{}: its client reads too slowly; an answer is replaced by an error", id.session.0);
            message = excuse(&message);
        }
        let Some(session) = self.sessions.get_mut(&id.session) else { return };
        if matches!(session.channel, Channel::Sse(_) | Channel::Stdio | Channel::ModernStdio) {
            return self.say(core, id.session, &message);
        }
        let Some(stream) = session.streams.get_mut(&id.number) else { return };
        stream.waiting = stream.waiting.saturating_sub(1);
        let last = stream.waiting == 0;
        let exchange = stream.attached.last().copied();
        let pending = exchange.filter(|e| self.exchanges.get(e).is_some_and(|e| e.phase == Phase::Pending));
        match (pending, &mut stream.batch) {
            (Some(exchange), None) => self.respond_json(core, exchange, status, message),
            (Some(exchange), Some(batch)) => {
                batch.push(message);
                if last {
                    let array = join(std::mem::take(batch));
                    self.respond_json(core, exchange, 200, array);
                }
            }
            // The client left before anything was said, and knows no event id to come back with.
            (None, _) if exchange.is_none() && !stream.begun => {}
            (None, _) => {
                self.event(core, id, &message);
                if last && let Some(exchange) = exchange.and_then(|e| self.exchanges.get_mut(&e)) {
                    exchange.outbox.close(core);
                }
            }
        }
        if last {
            if let Some(session) = self.sessions.get_mut(&id.session) {
                session.streams.remove(&id.number);
            }
            self.rest(core, id.session);
        }
    }

    /// Sends a client something that is not an answer: on the stream of one of its requests, or on the standalone one.
    pub(crate) fn push(&mut self, core: &mut Core, id: StreamId, message: &[u8]) {
        let Some(session) = self.sessions.get_mut(&id.session) else { return };
        if matches!(session.channel, Channel::Sse(_) | Channel::Stdio | Channel::ModernStdio) {
            return self.say(core, id.session, message);
        }
        if id.number == STANDALONE {
            session.streams.entry(STANDALONE).or_default();
        }
        let Some(stream) = session.streams.get_mut(&id.number) else { return };
        if let Some(exchange) = stream.attached.last().copied() {
            self.commit(core, exchange);
        }
        self.event(core, id, message);
    }

    /// The stream for something that belongs to a session: that of its only request, else the standalone one if somebody
    /// listens there, else that of its newest request. If there is none of them the message waits for a listener.
    pub(crate) fn choose(&self, target: Target) -> StreamId {
        let session = self.sessions.get(&target.session);
        let stream = |number: &u32| session.and_then(|s| s.streams.get(number));
        let heard = |number: &u32| stream(number).is_some_and(|s| !s.attached.is_empty());
        let number = target
            .sole
            .filter(heard)
            .or(Some(STANDALONE).filter(heard))
            .or(target.newest.filter(heard))
            // Nobody listens now. The client may come back to a stream whose event ids it knows.
            .or(target.sole.filter(|number| stream(number).is_some_and(|s| s.begun)))
            .unwrap_or(STANDALONE);
        StreamId { session: target.session, number }
    }

    /// Whether the client still waits on this stream.
    pub(crate) fn is_attached(&self, id: StreamId) -> bool {
        let Some(session) = self.sessions.get(&id.session) else { return false };
        match session.channel {
            Channel::Sse(_) | Channel::Stdio | Channel::ModernStdio => true,
            _ => session.streams.get(&id.number).is_some_and(|s| !s.attached.is_empty()),
        }
    }

    /// Whether the session goes on after an `initialize` that failed: its client may try again.
    pub(crate) fn survives_refusal(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| matches!(s.channel, Channel::Sse(_) | Channel::Stdio))
    }

    /// Sends a message to a client that hears everything on one channel.
    fn say(&mut self, core: &mut Core, id: SessionId, message: &[u8]) {
        let Some(session) = self.sessions.get(&id) else { return };
        match session.channel {
            Channel::Sse(exchange) => self.say_event(core, id, exchange, message),
            Channel::Stdio | Channel::ModernStdio => self.say_line(core, message),
            Channel::Streams | Channel::OneExchange | Channel::Modern => {}
        }
    }

    /// Turns an exchange that waits for its answer into an event stream, with what was gathered of a batch.
    fn commit(&mut self, core: &mut Core, id: ExchangeId) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let (Phase::Pending, Some(session)) = (exchange.phase, exchange.session) else { return };
        let stream = StreamId { session, number: exchange.stream };
        self.begin_stream(core, id, true);
        let gathered = self.sessions.get_mut(&session).and_then(|s| s.streams.get_mut(&stream.number)?.batch.take());
        for answer in gathered.unwrap_or_default() {
            self.event(core, stream, &answer);
        }
    }

    /// Sends the head of an event stream, and the event that primes the client for resumption.
    fn begin_stream(&mut self, core: &mut Core, id: ExchangeId, prime: bool) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        exchange.phase = Phase::Streaming;
        let mut headers = Headers::new();
        headers.push("content-type", "text/event-stream");
        // Neither caches nor buffering proxies may hold an event back.
        headers.push("cache-control", "no-cache, no-transform");
        headers.push("x-accel-buffering", "no");
        http::add_cors(&core.config.access, exchange.origin.as_deref(), &mut headers);
        let number = exchange.stream;
        let session = exchange.session.and_then(|s| self.sessions.get_mut(&s));
        let name = session.as_ref().and_then(|s| s.name.clone());
        if let (true, Some(name)) = (exchange.hello, &name) {
            // Only Streamable HTTP asks for `initialize` in a POST that is answered.
            headers.push("mcp-session-id", name.clone());
        }
        core.act(Action::Respond(id, HttpResponse { status: 200, headers, body: Body::Stream }));
        core.after(core.config.timeouts.keep_alive, Deadline::KeepAlive(id));
        let Some(session) = session else { return };
        let primes = session.revision.as_deref().is_some_and(|r| r >= http::PRIMING_REVISION);
        let Some(stream) = session.streams.get_mut(&number) else { return };
        stream.begun = true;
        if prime && primes && name.is_some() {
            let mut frame = RETRY.to_vec();
            sse::encode(&mut frame, Some(&event_id(number, stream.sent)), b"");
            exchange.outbox.push(core, frame);
        }
    }

    /// Adds an event to a stream, for now and for later.
    fn event(&mut self, core: &mut Core, id: StreamId, message: &[u8]) {
        let Some(session) = self.sessions.get_mut(&id.session) else { return };
        let Some(stream) = session.streams.get_mut(&id.number) else { return };
        stream.last_event += 1;
        let mut frame = Vec::new();
        let limits = &core.config.limits;
        if session.name.is_some() {
            sse::encode(&mut frame, Some(&event_id(id.number, stream.last_event)), message);
            session.replay.keep(id.number, stream.last_event, &frame, limits.replay_events, limits.replay_bytes);
        } else {
            sse::encode(&mut frame, None, message);
        }
        let max = limits.max_queue;
        let Some(exchange) = stream.attached.last().copied() else {
            if frame.len() > limits.replay_bytes {
                warn!(
                    "session#{}: a message was dropped: the client is away, and it is too long to keep",
                    id.session.0
                );
            }
            return;
        };
        let Some(exchange) = self.exchanges.get_mut(&exchange) else { return };
        if exchange.outbox.is_closing() {
            return;
        }
        if exchange.outbox.backlog() > max && !session.dedicated {
            warn!("session#{}: its client reads too slowly; its stream is closed", id.session.0);
            exchange.outbox.close(core);
            stream.attached.pop();
            return;
        }
        stream.sent = stream.last_event;
        exchange.outbox.push(core, frame);
    }

    /// Answers with the error that a refusal is.
    fn refuse(&mut self, core: &mut Core, id: ExchangeId, refusal: &Refusal, request: Option<&str>) {
        debug!("exchange#{}: {} {}", id.0, refusal.status, refusal.text);
        let mut headers = Headers::new();
        headers.push("content-type", "application/json");
        if let Some(methods) = refusal.allow {
            headers.push("allow", methods);
        }
        match refusal.status {
            401 => headers.push("www-authenticate", "Bearer"),
            503 => headers.push("retry-after", "1"),
            _ => {}
        }
        let mut body = rpc::error(request, refusal.code, &refusal.text);
        if let Some(data) = &refusal.data {
            // Before the two braces at the end.
            body.truncate(body.len() - 2);
            body.extend_from_slice(format!(r#","data":{data}}}}}"#).as_bytes());
        }
        self.respond(core, id, refusal.status, headers, Body::Full(body));
    }

    /// Answers 503 because the proxy is stopping.
    pub(crate) fn refuse_stopping(&mut self, core: &mut Core, id: ExchangeId, request: &HttpRequest) {
        self.exchanges.insert(id, Exchange::new(id, request));
        let refusal = Refusal::new(503, code::REFUSED, "the proxy is stopping");
        let request_id = match rpc::parse(&request.body).map(|message| message.kind) {
            Ok(Kind::Request { id, .. }) => Some(id.0),
            _ => None,
        };
        self.refuse(core, id, &refusal, request_id);
    }

    fn respond_json(&mut self, core: &mut Core, id: ExchangeId, status: u16, body: Vec<u8>) {
        let mut headers = Headers::new();
        headers.push("content-type", "application/json");
        if status == 503 {
            headers.push("retry-after", "1");
        }
        self.respond(core, id, status, headers, Body::Full(body));
    }

    fn respond(&mut self, core: &mut Core, id: ExchangeId, status: u16, mut headers: Headers, body: Body) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        debug_assert_eq!(exchange.phase, Phase::Pending);
        exchange.phase = Phase::Answered;
        if let Body::Full(bytes) = &body {
            exchange.unsent = bytes.len();
        }
        if exchange.hello && status == 200 {
            let session = exchange.session.and_then(|s| self.sessions.get(&s));
            // A session whose handshake failed has no name in the table, and is not named to the client.
            if let Some(name) = session.and_then(|s| s.name.as_ref()).filter(|name| self.names.contains_key(*name)) {
                headers.push("mcp-session-id", name.clone());
            }
        }
        if headers.get("access-control-allow-origin").is_none() {
            http::add_cors(&core.config.access, exchange.origin.as_deref(), &mut headers);
        }
        core.timers.clear(Deadline::KeepAlive(id));
        core.act(Action::Respond(id, HttpResponse { status, headers, body }));
    }

    /// Answers DELETE.
    pub(crate) fn deleted(&mut self, core: &mut Core, id: ExchangeId) {
        self.respond(core, id, 200, Headers::new(), Body::Full(Vec::new()));
    }

    /// Ends a session: its streams close. The answers to its open requests must have been given before.
    pub(crate) fn end_session(&mut self, core: &mut Core, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        core.timers.clear(Deadline::SessionIdle(id));
        let server = &core.config.servers[session.server].name;
        if let Some(name) = &session.name
            && self.names.remove(name).is_some()
        {
            info!("[{server}] session#{} ended", id.0);
        } else {
            debug!("[{server}] session#{} closed", id.0);
        }
        for exchange in session.exchanges {
            let Some(exchange) = self.exchanges.get_mut(&exchange) else { continue };
            exchange.session = None;
            if exchange.phase == Phase::Streaming {
                exchange.outbox.close(core);
            }
        }
    }

    /// An exchange ended. Returns its session if that one ends with it.
    pub(crate) fn closed(&mut self, core: &mut Core, id: ExchangeId) -> Option<SessionId> {
        let exchange = self.exchanges.remove(&id)?;
        core.timers.clear(Deadline::KeepAlive(id));
        let name = exchange.session?;
        let session = self.sessions.get_mut(&name)?;
        session.exchanges.remove(&id);
        if let Some(stream) = session.streams.get_mut(&exchange.stream) {
            stream.attached.retain(|one| *one != id);
        }
        match session.channel {
            Channel::OneExchange | Channel::Modern if session.exchanges.is_empty() => return Some(name),
            Channel::Sse(stream) if stream == id => return Some(name),
            _ => {}
        }
        self.rest(core, name);
        None
    }

    /// Starts the idle time of a session in which nothing happens.
    fn rest(&mut self, core: &mut Core, id: SessionId) {
        let Some(session) = self.sessions.get(&id).filter(|s| s.channel == Channel::Streams) else { return };
        if session.exchanges.is_empty() && session.streams.values().all(|stream| stream.waiting == 0) {
            core.after(core.config.timeouts.session_idle, Deadline::SessionIdle(id));
        }
    }

    /// The session of an exchange.
    pub(crate) fn session_of(&self, id: ExchangeId) -> Option<SessionId> {
        self.exchanges.get(&id)?.session
    }

    pub(crate) fn wrote(&mut self, core: &mut Core, id: ExchangeId) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.outbox.wrote(core);
        }
    }

    /// Whether a session has more to read than it may.
    pub(crate) fn is_congested(&self, core: &Core, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        if matches!(session.channel, Channel::Stdio | Channel::ModernStdio) {
            return self.stdout_backlog() > core.config.limits.max_queue;
        }
        let exchanges = session.exchanges.iter().filter_map(|e| self.exchanges.get(e));
        exchanges.map(|e| e.unsent + e.outbox.backlog()).sum::<usize>() > core.config.limits.max_queue
    }

    /// Whether a client of a shared server, which cannot be made to wait, has left too much unread for all to bear.
    fn is_flooded(&self, core: &Core, id: SessionId) -> bool {
        !self.is_dedicated(id)
            && self.is_congested(core, id)
            && self.exchanges.values().map(|e| e.unsent + e.outbox.backlog()).sum::<usize>()
                > core.config.limits.max_unread
    }

    /// Time for a sign of life.
    pub(crate) fn keep_alive(&mut self, core: &mut Core, id: ExchangeId) {
        self.commit(core, id);
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        if exchange.phase == Phase::Streaming && !exchange.outbox.is_closing() {
            if exchange.outbox.is_idle() {
                exchange.outbox.push(core, sse::KEEP_ALIVE.to_vec());
            }
            core.after(core.config.timeouts.keep_alive, Deadline::KeepAlive(id));
        }
    }

    /// Every session.
    pub(crate) fn all_sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// Gives up every exchange that is still open, and forgets it.
    pub(crate) fn abandon_all(&mut self, core: &mut Core) {
        for (id, exchange) in std::mem::take(&mut self.exchanges) {
            core.timers.clear(Deadline::KeepAlive(id));
            // A whole response that is being written has no end to close.
            if exchange.phase != Phase::Answered && !exchange.outbox.is_closing() {
                core.act(Action::Close(Pipe::Response(id)));
            }
        }
    }
}

/// How soon a client that lost its stream should come back: soon, but not in a tight loop.
const RETRY: &[u8] = b"retry: 1000\n";

/// Reads the messages of a body. The second value says whether they came as a batch.
fn read_messages<'r>(
    core: &Core,
    request: &'r HttpRequest,
    request_id: &mut Option<String>,
) -> Result<(Vec<Message<'r>>, bool), Refusal> {
    let malformed = |m: rpc::Malformed| Refusal::new(400, m.code, m.text);
    if rpc::is_batch(&request.body) {
        let parts = rpc::parse_batch(&request.body).map_err(malformed)?;
        if parts.len() > core.config.limits.max_batch {
            return refuse(400, code::INVALID_REQUEST, "the batch has too many messages");
        }
        let messages = parts.into_iter().map(rpc::parse_str).collect::<Result<Vec<_>, _>>().map_err(malformed)?;
        return Ok((messages, true));
    }
    match rpc::parse(&request.body) {
        Ok(message) => {
            if let Kind::Request { id, .. } = &message.kind {
                *request_id = Some(id.0.to_owned());
            }
            Ok((vec![message], false))
        }
        Err(e) => {
            request_id.clone_from(&e.id);
            Err(malformed(e))
        }
    }
}

/// Whether we know a legacy revision of this name.
pub(crate) fn is_known_revision(version: &str) -> bool {
    http::REVISIONS.contains(&version)
}

const NO_BATCHES: &str = "batches exist in revision 2025-03-26 only; send one message";

/// Whether the clients of a server have no sessions.
fn is_stateless(core: &Core, server: usize) -> bool {
    let server = &core.config.servers[server];
    server.stateless || server.sessions == crate::config::SessionMode::PerRequest
}

/// What a client hears that does not read its answers.
fn excuse(answer: &[u8]) -> Vec<u8> {
    let id = rpc::parse(answer).ok().and_then(|message| match message.kind {
        Kind::Response { id, .. } => id.map(|id| id.0.to_owned()),
        _ => None,
    });
    rpc::error(id.as_deref(), code::REFUSED, "the client leaves too many answers unread; read them, then ask again")
}

/// A JSON array of messages.
fn join(messages: Vec<Vec<u8>>) -> Vec<u8> {
    let mut array = Vec::with_capacity(messages.iter().map(|m| m.len() + 1).sum::<usize>() + 1);
    for (n, message) in messages.iter().enumerate() {
        array.push(if n == 0 { b'[' } else { b',' });
        array.extend_from_slice(message);
    }
    array.push(b']');
    array
}
