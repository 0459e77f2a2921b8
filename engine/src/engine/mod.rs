//! The engine: the only file that connects the machines. It matches on what each of them returns, and on nothing else.

mod legacy;
mod modern;
mod servers;

use std::fmt::Write as _;

use log::{debug, info, log_enabled, trace, warn};

use crate::back::{Back, Forgotten, Full, Sharing};
use crate::config::{Config, ConfigError, FrontKind, SessionMode};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::catalog::Catalogs;
use crate::era::down::{Down, Request};
use crate::era::up::Up;
use crate::front::{Front, Inbound, SessionId, StreamId, Target};
use crate::io::{Action, ChildId, Event, ExchangeId, HttpRequest, Instant, Output, Pipe};
use crate::router::{Role, Router, Step};
use crate::wire::lines::Line;
use crate::wire::rpc::{self, IdScanner, Kind, Message, code};

/// How long calls may still be answered after the end of stdin: a script that pipes its requests in wants the answers. Who
/// is in a hurry sends SIGTERM.
const LAST_ANSWERS: std::time::Duration = std::time::Duration::from_secs(5);

/// The state machine. See the [crate's front page](crate) for how to drive it.
pub struct Engine {
    core: Core,
    front: Front,
    router: Router,
    back: Back,
    down: Down,
    up: Up,
    catalogs: Catalogs,
    phase: Phase,
    /// The id of the overlong message that each child is in the middle of.
    overlong: std::collections::BTreeMap<ChildId, IdScanner>,
    /// The same for the client on our stdin.
    overlong_stdin: IdScanner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// New requests are refused; calls in flight may finish.
    Draining,
    /// Everything was told to end.
    Stopping,
    Done,
}

/// How much an engine holds right now. All zero after [`Output::Done`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// HTTP requests that are not over, streams included.
    pub exchanges: usize,
    /// Sessions.
    pub sessions: usize,
    /// Conversations with servers, including those waiting for a restart.
    pub links: usize,
    /// Child processes.
    pub children: usize,
    /// HTTP requests of ours that are not over, streams included.
    pub fetches: usize,
    /// Requests on their way to a server.
    pub calls: usize,
    /// Requests on their way to a client.
    pub questions: usize,
    /// Deadlines.
    pub timers: usize,
}

impl Engine {
    /// Makes an engine; `now` is the driver's time.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong. Nothing else can fail.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut core = Core::new(config, now);
        let back = Back::new(&mut core);
        let (mut front, router) = (Front::default(), Router::default());
        if core.config.front == FrontKind::Stdio {
            front.open_stdio(&mut core);
        }
        let (down, up, catalogs) = (Down::default(), Up::default(), Catalogs::default());
        let overlong = std::collections::BTreeMap::new();
        Ok(Engine {
            core,
            front,
            router,
            back,
            down,
            up,
            catalogs,
            phase: Phase::Running,
            overlong,
            overlong_stdin: IdScanner::default(),
        })
    }

    /// Takes in one event. Then [`Engine::poll`] must be called until it says to wait.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        debug_assert!(now >= self.core.now, "the clock of a driver never goes back");
        self.core.now = self.core.now.max(now);
        if log_enabled!(log::Level::Trace) {
            trace!("{:?} {}", now.elapsed(), show_event(&event));
        }
        if self.phase == Phase::Done {
            return;
        }
        match event {
            Event::Request(id, request) => self.request(id, &request),
            Event::Data(Pipe::ChildStdout(child), bytes) => self.child_says(child, bytes),
            Event::Data(Pipe::ChildStderr(child), bytes) => self.back.stderr(&mut self.core, child, bytes),
            Event::Data(Pipe::Fetched(id), bytes) => {
                let events = self.back.fetch_data(&mut self.core, id, bytes);
                self.link_events(events);
                self.read_fetch(id);
            }
            Event::Data(Pipe::Stdin, bytes) => self.stdin_says(bytes),
            Event::Data(..) => debug_assert!(false, "no such pipe is ever read"),
            Event::Wrote(Pipe::ChildStdin(child)) => {
                self.back.wrote(&mut self.core, child);
                self.listen(child);
            }
            Event::Wrote(Pipe::Response(id)) => {
                self.front.wrote(&mut self.core, id);
                self.resume(self.front.session_of(id));
            }
            Event::Wrote(Pipe::Stdout) => {
                self.front.stdout_wrote(&mut self.core);
                self.resume(self.front.stdio_stream().map(|stream| stream.session));
            }
            Event::Wrote(_) => debug_assert!(false, "no such pipe is ever written"),
            Event::Closed(Pipe::Response(id), _) => {
                let session = self.front.session_of(id);
                if let Some(session) = self.front.closed(&mut self.core, id) {
                    if self.front.is_modern(session) {
                        self.modern_closed(session);
                        return self.forget_released();
                    }
                    // A client of one exchange may have lost its connection, which is no wish to cancel.
                    let tell = !self.front.is_ephemeral(session);
                    self.leave(session, "the client is gone", tell);
                    self.front.end_session(&mut self.core, session);
                } else {
                    self.resume(session);
                }
            }
            Event::Closed(Pipe::Fetched(id), error) => {
                let events = self.back.fetch_closed(&mut self.core, id, error.is_some());
                self.link_events(events);
            }
            Event::Closed(Pipe::Stdin, _) => self.stdin_ends(),
            Event::Closed(Pipe::Stdout, _) => {
                // Nobody is left to answer.
                self.front.stdout_closed();
                self.shutdown();
            }
            Event::Closed(pipe, _) => {
                if let Pipe::ChildStdout(child) = pipe {
                    self.child_falls_silent(child);
                }
                let event = self.back.closed(&mut self.core, pipe);
                self.link_events(event);
            }
            Event::Spawned(child) => self.back.spawned(&mut self.core, child),
            Event::SpawnFailed(child, kind) => {
                let event = self.back.spawn_failed(&mut self.core, child, kind);
                self.link_events(event);
            }
            Event::Exited(child, exit) => {
                let event = self.back.exited(&mut self.core, child, exit);
                self.link_events(event);
            }
            Event::Fetched(id, response) => {
                let events = self.back.fetched(&mut self.core, id, &response);
                self.link_events(events);
            }
            Event::FetchFailed(id, error) => {
                let events = self.back.fetch_failed(&mut self.core, id, &error);
                self.link_events(events);
            }
            Event::Shutdown => self.shutdown(),
        }
        self.forget_released();
    }

    /// Fires what is due, then yields the next thing to do.
    pub fn poll(&mut self, now: Instant) -> Output {
        self.core.now = self.core.now.max(now);
        loop {
            if let Some(action) = self.core.next_action() {
                if log_enabled!(log::Level::Trace) {
                    trace!("{:?} {}", self.core.now.elapsed(), show_action(&action));
                }
                return Output::Do(action);
            }
            if self.phase == Phase::Done {
                return Output::Done;
            }
            if let Some(deadline) = self.core.timers.pop(self.core.now) {
                self.fire(deadline);
                self.forget_released();
            } else if self.phase == Phase::Draining && self.open_calls() == 0 {
                self.stop();
                self.forget_released();
            } else if self.phase == Phase::Stopping && self.has_ended() {
                self.core.timers.clear_all();
                self.phase = Phase::Done;
            } else {
                return Output::Wait(self.core.timers.next());
            }
        }
    }

    /// How much the engine holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            exchanges: self.front.exchanges(),
            sessions: self.front.sessions(),
            links: self.back.links(),
            children: self.back.children(),
            fetches: self.back.fetches(),
            calls: self.open_calls(),
            questions: self.router.asks(),
            timers: self.core.timers.len(),
        }
    }

    /// Requests of clients that are not answered.
    fn open_calls(&self) -> usize {
        self.router.calls() + self.down.held() + self.up.waiting() + self.catalogs.waiting()
    }

    // ---- from the clients ----

    fn request(&mut self, id: ExchangeId, request: &HttpRequest) {
        if self.phase != Phase::Running {
            return self.front.refuse_stopping(&mut self.core, id, request);
        }
        match self.front.request(&mut self.core, id, request) {
            Inbound::Done => {}
            Inbound::Post { server, stream, messages } => {
                for message in &messages {
                    self.client_says(server, stream, message);
                }
            }
            Inbound::Modern { server, stream, message, envelope } => {
                let mirrored = request
                    .headers
                    .iter()
                    .filter(|(name, _)| name.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("mcp-param-")));
                let mirrored = mirrored.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                self.modern_says(server, stream, &message, envelope, Some(mirrored));
            }
            Inbound::Status(place) => {
                let health = self.back.health(&self.core);
                self.front.answer_status(&mut self.core, id, place, &health);
            }
            Inbound::Delete(session) => {
                self.end_session(session, "the session was ended");
                self.front.deleted(&mut self.core, id);
            }
        }
    }

    fn client_says(&mut self, server: usize, stream: StreamId, message: &Message<'_>) {
        if let Kind::Request { id, method, params } = &message.kind
            && method == "initialize"
        {
            return self.hello(server, stream, message, id.0, *params);
        }
        if self.front.is_ephemeral(stream.session) && !matches!(message.kind, Kind::Request { .. }) {
            // Without a session there is nobody it could be about: no call to cancel, no question to answer.
            return;
        }
        let link = self.router.link_of(stream.session);
        if let Kind::Request { id, method, .. } = &message.kind
            && method == "ping"
            && !self.front.is_ephemeral(stream.session)
            && !link.is_some_and(|link| self.back.is_ready(link))
        {
            // It may come before and during the handshake (specification, basic/lifecycle), and asks about us then.
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.0).into_bytes();
            return self.front.reply(&mut self.core, stream, 200, answer);
        }
        if link.is_none() {
            if !self.front.is_ephemeral(stream.session) {
                // HTTP+SSE and stdio let a client speak before it has introduced itself; servers need not bear that.
                if let Kind::Request { id, .. } = &message.kind {
                    let error = rpc::error(Some(id.0), code::INVALID_REQUEST, "begin with initialize");
                    self.front.reply(&mut self.core, stream, 400, error);
                }
                return;
            }
            // A client without a session: its server is introduced by the proxy itself.
            let revision = self.front.revision(stream.session).unwrap_or_default().to_owned();
            if let (Err(full), Kind::Request { id, .. }) =
                (self.join_anonymous(server, stream, &revision), &message.kind)
            {
                return self.refuse(stream, id.0, full);
            }
        }
        let Some(link) = self.router.link_of(stream.session) else { return };
        if self.back.answer(link).is_none() {
            // It cannot be said in the server's language before it is known which one that is.
            if !self.up.hold(&self.core, link, stream, message.raw)
                && let Kind::Request { id, .. } = &message.kind
            {
                self.refuse(stream, id.0, Full::Queue);
            }
            return;
        }
        if self.back.is_modern(link) {
            return self.legacy_says(link, stream, message);
        }
        let step = self.router.client_says(&mut self.core, stream, message);
        self.run(step);
    }

    /// A client introduces itself.
    fn hello(
        &mut self,
        server: usize,
        stream: StreamId,
        message: &Message<'_>,
        id: &str,
        params: Option<&serde_json::value::RawValue>,
    ) {
        if self.router.link_of(stream.session).is_some() {
            let error = rpc::error(Some(id), code::INVALID_REQUEST, "this session is initialized already");
            return self.front.reply(&mut self.core, stream, 400, error);
        }
        let (Ok(version), Ok(capabilities)) =
            (rpc::member(params, "protocolVersion"), rpc::member(params, "capabilities"))
        else {
            let error = rpc::error(Some(id), code::INVALID_PARAMS, "a member of the parameters comes twice");
            self.front.reply(&mut self.core, stream, 200, error);
            return self.refuse_session(stream.session, "refused");
        };
        self.up.introduce(stream.session, message);
        let version = version.map_or("", |version| version.get());
        let capabilities = capabilities.map_or("", |capabilities| capabilities.get());
        let mode = self.core.config.servers[server].sessions;
        let joined = if self.core.config.servers[server].stateless && mode == SessionMode::Shared {
            let version = version.trim_matches('"').to_owned();
            self.join_anonymous(server, stream, &version)
        } else {
            // The one client of our stdin has nobody to share with, and can be made to wait.
            let alone = self.front.stdio_stream().is_some_and(|stdio| stdio.session == stream.session);
            let sharing = if mode == SessionMode::Shared && !alone && !can_be_asked(capabilities) {
                Sharing::Shared(format!("{version} {capabilities}"))
            } else {
                Sharing::Dedicated
            };
            self.join(server, stream.session, sharing, message, None)
        };
        if let Err(full) = joined {
            self.refuse(stream, id, full);
            return self.refuse_session(stream.session, "refused");
        }
        let Some(link) = self.router.link_of(stream.session) else { return };
        match self.back.answer(link).map(str::to_owned) {
            Some(answer) => self.welcome(stream, id, &answer),
            None => self.router.greet(link, stream, id),
        }
    }

    /// Ties a session to a link, which gets this `initialize` if it has none.
    fn join(
        &mut self,
        server: usize,
        session: SessionId,
        sharing: Sharing,
        hello: &Message<'_>,
        initialized: Option<Vec<u8>>,
    ) -> Result<(), Full> {
        let scope = self.scope(session);
        let env = self.front.env(session);
        let sharing = match sharing {
            // A server that needs no introduction is shared by all, whoever they are.
            _ if self.back.is_only_modern(server)
                && self.core.config.servers[server].sessions == SessionMode::Shared =>
            {
                Sharing::modern(&scope)
            }
            // A list of tasks is of all who ever called (specification 2025-11-25, basic/utilities/tasks).
            _ if self.back.has_tasks(server) => Sharing::Dedicated,
            // Clients with other variables are other clients.
            Sharing::Shared(key) => Sharing::Shared(format!("{key} {scope}")),
            Sharing::Dedicated => Sharing::Dedicated,
        };
        let dedicated = sharing == Sharing::Dedicated;
        let link = self.back.acquire(&mut self.core, server, sharing, &scope, env.pairs(), None)?;
        self.front.set_dedicated(session, dedicated);
        self.router.attach(session, link, server, Role::Client);
        if self.back.is_only_modern(server) {
            self.back.discover(&mut self.core, link);
        }
        self.back.hello(&mut self.core, link, hello, initialized);
        // It may have been down without anybody to start it for.
        self.back.start(&mut self.core, link);
        Ok(())
    }

    /// Which clients a session may meet at a server: those with its key and its environment.
    fn scope(&self, session: SessionId) -> String {
        format!("{} {}", self.front.who(session), self.front.env(session).key())
    }

    /// Ties a session that has no `initialize` of its own to a link that the proxy introduces itself to.
    fn join_anonymous(&mut self, server: usize, stream: StreamId, revision: &str) -> Result<(), Full> {
        let sharing = match self.core.config.servers[server].sessions {
            SessionMode::Shared => Sharing::Shared(format!("anonymous {revision}")),
            SessionMode::PerSession | SessionMode::PerRequest => Sharing::Dedicated,
        };
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":{},"capabilities":{{}},"clientInfo":{{"name":"mcp-proxy","version":"{}"}}}}}}"#,
            serde_json::Value::from(revision),
            env!("CARGO_PKG_VERSION")
        );
        let Ok(message) = rpc::parse_str(&request) else { return Ok(()) };
        let initialized = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n".to_vec();
        self.join(server, stream.session, sharing, &message, Some(initialized))
    }

    /// Answers an `initialize` with what the server said to one.
    fn welcome(&mut self, stream: StreamId, id: &str, answer: &str) {
        let link = self.router.link_of(stream.session);
        let modern = link.filter(|link| self.back.is_modern(*link));
        let translated = match modern {
            Some(_) => rpc::parse_str(answer).ok().and_then(|answer| self.up.welcome(stream.session, &answer)),
            None => {
                self.up.forget(stream.session);
                None
            }
        };
        let answer = translated.as_deref().unwrap_or(answer);
        let Ok(Message { raw, kind: Kind::Response { id: Some(old), outcome: Ok(result) } }) = rpc::parse_str(answer)
        else {
            // Only complete answers are kept.
            return;
        };
        let revision = rpc::member(Some(result), "protocolVersion").ok().flatten().and_then(rpc::string);
        self.front.confirm(&self.core, stream.session, revision.as_deref());
        let waits = self.front.is_attached(stream);
        let message = rpc::splice(raw, &mut [(old.0, id)]);
        self.front.reply(&mut self.core, stream, 200, message);
        if let Some(link) = modern {
            self.front.set_dedicated(stream.session, false);
            self.listen_up(link);
        }
        if !waits {
            // The client left before it learned the name of its session.
            self.end_session(stream.session, "the client is gone");
        }
    }

    fn refuse(&mut self, stream: StreamId, id: &str, full: Full) {
        let text = match full {
            Full::Children => "too many server processes run (--max-children); try again later",
            Full::Queue => "the server does not read what was sent to it; try again later",
        };
        self.front.reply(&mut self.core, stream, 503, rpc::error(Some(id), code::REFUSED, text));
    }

    /// Ends a session whose `initialize` was refused, unless its client may try again.
    fn refuse_session(&mut self, session: SessionId, why: &str) {
        if self.front.survives_refusal(session) {
            self.leave(session, why, true);
        } else {
            self.end_session(session, why);
        }
    }

    /// Ends a session: open requests are answered, the server is told.
    fn end_session(&mut self, session: SessionId, why: &str) {
        self.leave(session, why, true);
        self.front.end_session(&mut self.core, session);
    }

    /// Takes a session from its link.
    /// `tell`: the server is told that its calls are cancelled.
    fn leave(&mut self, session: SessionId, why: &str, tell: bool) {
        for (stream, id) in self.up.leave(&mut self.core, session) {
            self.front.reply(&mut self.core, stream, 200, rpc::error(Some(&id), code::INTERNAL, why));
        }
        for (stream, raw) in self.catalogs.leave(session) {
            self.fail_raw(stream, &raw, why);
        }
        let link = self.router.link_of(session);
        self.part(session, why, tell);
        if let Some(link) = link.filter(|link| self.back.is_modern(*link) && !self.front.is_modern(session)) {
            self.up.lost(|call| self.router.link_of_call(call).is_some());
            self.listen_up(link);
        }
    }

    /// Takes a session from its link, and nothing else.
    fn part(&mut self, session: SessionId, why: &str, tell: bool) {
        self.release_lease(session);
        if let Some(parting) = self.router.detach(&mut self.core, session, tell) {
            // On stdout nothing waits for the answer to what was cancelled.
            let gone = parting.gone.into_iter().filter(|(stream, _)| !self.front.is_stdio(stream.session));
            let open: Vec<_> = parting.open.into_iter().chain(gone).collect();
            for (stream, id) in open {
                let error = rpc::error(Some(&id), code::INTERNAL, why);
                self.front.reply(&mut self.core, stream, 200, error);
            }
            for (call, cancel) in parting.calls {
                let forgotten = self.back.forget_call(&mut self.core, parting.link, call);
                if forgotten != Forgotten::Underway {
                    self.router.bury(&mut self.core, call);
                }
                if let Some(line) = cancel.filter(|_| forgotten != Forgotten::Unsent) {
                    let _ = self.back.send(&mut self.core, parting.link, line);
                }
            }
            for line in parting.lines {
                // A server that does not even read this is told by its end.
                let _ = self.back.send(&mut self.core, parting.link, line);
            }
            if parting.unused {
                self.back.unused(&mut self.core, parting.link);
            }
        }
    }

    /// Calls of our own may still wait for links that ended.
    fn forget_released(&mut self) {
        for link in self.back.take_released() {
            self.router.forget(&mut self.core, link);
            self.silence(link, "the server was stopped");
        }
    }

    fn stdin_says(&mut self, bytes: &[u8]) {
        let Some(mut decoder) = self.front.stdin_begun() else { return };
        let mut rest = bytes;
        while let Some(line) = decoder.next(&mut rest) {
            self.stdin_line(&line);
        }
        self.front.stdin_done(decoder);
        self.front.read_stdin(&mut self.core);
    }

    /// The client is done: so are we, once its calls are answered.
    fn stdin_ends(&mut self) {
        if let Some(mut decoder) = self.front.stdin_begun() {
            while let Some(line) = decoder.finish() {
                self.stdin_line(&line);
            }
            self.front.stdin_done(decoder);
        }
        self.front.stdin_ended();
        if self.phase == Phase::Running {
            self.shutdown();
            self.core.after(LAST_ANSWERS, Deadline::Shutdown);
        }
    }

    fn stdin_line(&mut self, line: &Line<'_>) {
        // After the end was ordered, a read may still bring something.
        let Some(stream) = self.front.stdio_stream().filter(|stream| self.front.is_stdio(stream.session)) else {
            return;
        };
        let line = match line {
            Line::Whole(line) => *line,
            Line::Part(part) => return self.overlong_stdin.feed(part),
            Line::End => {
                let max = self.core.config.limits.max_message;
                warn!("a message of more than {max} bytes on stdin was skipped (--max-message-size)");
                let scanner = std::mem::take(&mut self.overlong_stdin);
                if let Some(id) = scanner.id() {
                    let text = format!("the message is larger than {max} bytes (--max-message-size)");
                    let error = rpc::error(Some(id), code::INVALID_REQUEST, &text);
                    self.front.reply(&mut self.core, stream, 413, error);
                }
                return;
            }
        };
        // Windows pipes may begin with a byte order mark.
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let batch = rpc::is_batch(line).then(|| rpc::parse_batch(line));
        let parsed = match batch {
            Some(Ok(parts)) => parts.into_iter().map(rpc::parse_str).collect(),
            Some(Err(malformed)) => vec![Err(malformed)],
            None => vec![rpc::parse(line)],
        };
        for message in parsed {
            match message {
                Ok(message) => self.stdin_message(stream, &message),
                Err(malformed) => {
                    warn!("something that is no message was skipped on stdin: {malformed}");
                    if let Some(id) = malformed.id.clone().or_else(|| rpc::guess_id(line)) {
                        let id = &id;
                        let error = rpc::error(Some(id), malformed.code, malformed.text);
                        self.front.reply(&mut self.core, stream, 400, error);
                    }
                }
            }
        }
    }

    // ---- steps and deadlines ----

    fn run(&mut self, step: Step) {
        match step {
            Step::Ignore => {}
            Step::Send { link, line, call } => {
                if let Err(full) = self.back.send(&mut self.core, link, line) {
                    debug!("link#{}: {full:?}", link.0);
                    if let Some(call) = call {
                        let text = "the server does not read what was sent to it; try again later";
                        self.fail_call(call, 503, code::REFUSED, text);
                    }
                }
            }
            Step::SendNow { link, line } => self.back.send_now(&mut self.core, link, line),
            Step::Initialized { link, message } => self.back.initialized(&mut self.core, link, &message),
            Step::Reply { stream, status, message } => self.reply(stream, status, message),
            Step::Push { stream, message } => {
                // A client that is away has no stream that it could come on.
                if !self.down.is_parked(stream.session) {
                    self.front.push(&mut self.core, stream, &message);
                }
            }
            Step::PushTo { target, message, ask: Some(ask) } if self.down.get(target.session).is_some() => {
                self.ask_modern(target.session, ask, &message);
            }
            Step::PushTo { target, .. } if self.down.is_parked(target.session) => {}
            Step::Gone { stream, message } => self.reply(stream, 200, message),
            Step::Ended { stream, message } => self.subscription_ended(stream, &message),
            Step::Withdraw { ask, target, message } => {
                if self.down.get(target.session).is_none() {
                    let stream = self.front.choose(target);
                    self.front.push(&mut self.core, stream, &message);
                }
                self.down.withdrawn(ask);
            }
            Step::Told { ask, outcome } => self.told(ask, outcome),
            Step::PushTo { target, message, ask } => {
                let stream = self.front.choose(target);
                if let Some(ask) = ask {
                    if self.front.is_ephemeral(target.session) {
                        let text = "the client has no session and cannot be asked anything";
                        let step = self.router.refuse_ask(&mut self.core, ask, text);
                        return self.run(step);
                    }
                    self.router.asked_on(ask, stream);
                }
                self.front.push(&mut self.core, stream, &message);
            }
            Step::Broadcast { link, sessions, message, topic } => {
                let message = self.tell_listeners(link, &sessions, message, &topic);
                for target in sessions {
                    // What concerns the whole server is no matter of one request, unless there is no other way to say it.
                    let target = Target { sole: None, ..target };
                    if !self.front.is_ephemeral(target.session) {
                        let stream = self.front.choose(target);
                        self.front.push(&mut self.core, stream, &message);
                    }
                }
            }
        }
    }

    fn fire(&mut self, deadline: Deadline) {
        match deadline {
            Deadline::Call(call) => {
                let (link, own) = (self.router.link_of_call(call), self.router.effect_of(call));
                let forgotten = link.map(|link| self.back.forget_call(&mut self.core, link, call.0));
                for step in self.router.call_late(&mut self.core, call) {
                    match step {
                        // Over HTTP the stream of a cancelled request must end. Here nothing waits for an answer.
                        Step::Gone { stream, .. } if self.front.is_stdio(stream.session) => {}
                        Step::Gone { stream, message } => self.reply(stream, 200, message),
                        // What the server never got need not be cancelled.
                        Step::Send { .. } if forgotten == Some(Forgotten::Unsent) => {}
                        step => self.run(step),
                    }
                }
                if forgotten.is_some_and(|forgotten| forgotten != Forgotten::Underway) {
                    self.router.bury(&mut self.core, call.0);
                }
                if let Some(link) = link {
                    self.call_was_late(link, call, own);
                }
            }
            Deadline::Ask(ask) => {
                for step in self.router.ask_late(&mut self.core, ask) {
                    self.run(step);
                }
            }
            Deadline::KeepAlive(exchange) => self.front.keep_alive(&mut self.core, exchange),
            Deadline::SessionIdle(session) => self.end_session(session, "the session was idle"),
            Deadline::Handshake(link) => {
                let event = self.back.handshake_late(&mut self.core, link);
                self.link_events(event);
            }
            Deadline::Probe(link) => {
                let event = self.back.probe_late(&mut self.core, link);
                self.link_events(event);
            }
            Deadline::Questions(session) => self.ask_now(session),
            Deadline::Parked(session) => {
                info!("session#{}: its client did not come back with what the server wants to know", session.0);
                self.end_modern(session);
            }
            Deadline::Again(number) => {
                if let Some(retry) = self.up.again(number) {
                    self.send_up(retry.stream, &retry.raw, retry.rounds, false);
                }
            }
            Deadline::Listen(link) => self.listen_up(link),
            Deadline::Restart(link) => self.back.start(&mut self.core, link),
            Deadline::LinkIdle(link) => self.back.idle(&mut self.core, link),
            Deadline::Stop(child) => self.back.stop_harder(&mut self.core, child),
            Deadline::Drain(child) => {
                self.child_falls_silent(child);
                let event = self.back.drained(&mut self.core, child);
                self.link_events(event);
            }
            Deadline::Listening(remote) => self.back.listening(&mut self.core, remote),
            Deadline::Stream(remote, number) => self.back.reopen(&mut self.core, remote, number),
            Deadline::Shutdown => self.stop(),
            Deadline::ShutdownEnd => {
                warn!("something did not end in time and is left behind: {:?}", self.stats());
                self.front.abandon_all(&mut self.core);
                self.back.abandon_all(&mut self.core);
                self.core.timers.clear_all();
                self.phase = Phase::Done;
            }
        }
    }

    // ---- the end ----

    fn has_ended(&self) -> bool {
        self.front.exchanges() == 0
            && self.back.children() == 0
            && self.back.fetches() == 0
            && self.front.is_stdout_idle()
    }

    fn shutdown(&mut self) {
        match self.phase {
            Phase::Running => {
                let mut text = String::from("stopping");
                if self.router.calls() > 0 {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "; {} calls in flight may finish", self.router.calls());
                }
                info!("{text}");
                self.phase = Phase::Draining;
                self.core.after(self.core.config.timeouts.drain, Deadline::Shutdown);
            }
            Phase::Draining | Phase::Stopping => {
                info!("stopping at once");
                if self.phase == Phase::Draining {
                    self.stop();
                }
                self.back.kill_all(&mut self.core);
            }
            Phase::Done => {}
        }
    }

    fn stop(&mut self) {
        if self.phase == Phase::Stopping {
            return;
        }
        self.phase = Phase::Stopping;
        self.core.timers.clear(Deadline::Shutdown);
        for session in self.front.all_sessions() {
            if self.down.get(session).is_some_and(Request::is_held) {
                self.refuse_modern(session, 503, code::REFUSED, "the proxy is stopping");
            }
            self.say_farewell(session);
            self.end_session(session, "the proxy is stopping");
            self.down.close(&mut self.core, session);
        }
        self.back.release_all(&mut self.core);
        let times = &self.core.config.timeouts;
        let wait = times.stop_stdin + times.stop_term + std::time::Duration::from_secs(1);
        self.core.after(wait, Deadline::ShutdownEnd);
    }
}

/// Whether capabilities let a server ask the client something, so that it could tell clients apart.
fn can_be_asked(capabilities: &str) -> bool {
    // What cannot be read is kept apart from everything else.
    rpc::members(capabilities, ["roots", "sampling", "elicitation"])
        .map_or(true, |found| found.iter().any(Option::is_some))
}

/// An event for the trace. Secrets are hidden by their types; bodies are shown, for this is the level for them.
fn show_event(event: &Event<'_>) -> String {
    match event {
        Event::Data(pipe, bytes) => format!("<- Data({pipe:?}, \"{}\")", bytes.escape_ascii()),
        Event::Request(id, request) => format!("<- Request({id:?}, {request:?}) \"{}\"", request.body.escape_ascii()),
        other => format!("<- {other:?}"),
    }
}

/// An action for the trace.
fn show_action(action: &Action) -> String {
    match action {
        Action::Write(pipe, bytes) => format!("-> Write({pipe:?}, \"{}\")", bytes.escape_ascii()),
        other => format!("-> {other:?}"),
    }
}
