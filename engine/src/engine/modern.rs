//! Modern clients, as far as it takes all machines. How their messages are translated is told in [`crate::era`].

use log::debug;
use serde_json::value::RawValue;

use super::Engine;
use crate::back::{Full, Line, LinkId, Sharing};
use crate::config::SessionMode;
use crate::era::Era;
use crate::era::catalog::{Wait, Waiter};
use crate::era::down::{Asked, Filter, Request, Resumed, tag};
use crate::era::envelope::{self, Envelope};
use crate::era::{result, seal};
use crate::front::{SessionId, StreamId, Target};
use crate::io::Headers;
use crate::router::{AskId, Role, Step, Topic};
use crate::wire::object::Object;
use crate::wire::rpc::{self, Kind, Message, code};

/// Methods that the modern revision has no more, though a legacy server would answer them.
fn is_removed(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe")
        || method.starts_with("tasks/")
        || method.starts_with("notifications/")
}

/// Header fields as they came, to be compared.
fn headers(given: &[(String, String)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in given {
        headers.push(name.to_ascii_lowercase(), value.clone());
    }
    headers
}

impl Engine {
    // ---- what modern clients say ----

    /// A request of the modern era. `mirrored` are its `Mcp-Param-*` header fields; `None` if it came by stdin.
    pub(super) fn modern_says(
        &mut self,
        server: usize,
        stream: StreamId,
        message: &Message<'_>,
        envelope: Envelope,
        mirrored: Option<Vec<(String, String)>>,
    ) {
        let who = self.front.who(stream.session);
        let Some(request) = Request::new(server, stream, message, envelope, mirrored, who) else { return };
        let full = self.down.held_bytes() + request.raw.len() > self.core.config.limits.max_unread;
        self.down.open(request);
        if full {
            return self.refuse_modern(stream.session, 503, code::REFUSED, "too many requests wait; try again later");
        }
        if !self.comes_back(stream.session, message) {
            self.place(stream.session);
        }
    }

    /// Whether a request is one that its client comes back with: then its call goes on, or it is refused.
    fn comes_back(&mut self, session: SessionId, message: &Message<'_>) -> bool {
        let (Kind::Request { params, .. }, Some(request)) = (&message.kind, self.down.get(session)) else {
            return false;
        };
        let (legacy, mirrored) = (self.back.era(request.server) == Some(Era::Legacy), request.mirrored.clone());
        let Ok(Some(state)) = rpc::member(*params, "requestState") else { return false };
        let state = match rpc::string(state) {
            // At a legacy server it can only be ours. A modern one may be a proxy like this one.
            Some(state) if legacy || seal::is_ours(&state) => state,
            None if legacy => {
                self.refuse_modern(session, 200, code::INVALID_PARAMS, "requestState must be a string");
                return true;
            }
            _ => return false,
        };
        match self.down.resume(&self.core, session, *params, &state) {
            Ok(Some(resumed)) => {
                let link = self.router.link_of(resumed.session);
                let catalog = link.and_then(|link| self.catalogs.get(link));
                if let (Some(catalog), Some(given)) = (catalog, mirrored)
                    && let Err(text) = catalog.check(&headers(&given), *params)
                {
                    self.refuse_modern(session, 400, result::code::HEADER_MISMATCH, &text);
                    return true;
                }
                self.resume_parked(session, resumed, *params);
                true
            }
            Err(text) if legacy => {
                self.refuse_modern(session, 200, code::INVALID_PARAMS, text);
                true
            }
            _ => false,
        }
    }

    /// A message that came by stdin, where both eras may speak.
    pub(super) fn stdin_message(&mut self, stream: StreamId, message: &Message<'_>) {
        match &message.kind {
            Kind::Request { id, params, .. } if envelope::claims(*params) => {
                let own = self.front.open_modern_stdio(&mut self.core);
                let refusal = match envelope::read(*params) {
                    Ok(envelope) if envelope.version == envelope::MODERN => {
                        return self.modern_says(0, own, message, envelope, None);
                    }
                    Ok(envelope) => result::unsupported_version(id.0, &envelope.version),
                    Err(text) => rpc::error(Some(id.0), code::INVALID_PARAMS, &text),
                };
                self.front.reply(&mut self.core, own, 400, refusal);
                self.front.end_session(&mut self.core, own.session);
            }
            Kind::Notification { method, params } if method == "notifications/cancelled" => {
                let wanted = rpc::member(*params, "requestId").ok().flatten();
                let found = wanted.and_then(|wanted| self.down.by_id(|id| crate::router::same_id(id, wanted.get())));
                match found {
                    Some(session) => self.end_modern(session),
                    None => self.client_says(0, stream, message),
                }
            }
            _ => self.client_says(0, stream, message),
        }
    }

    /// Finds a modern request its link, and sends it as soon as that is ready.
    fn place(&mut self, session: SessionId) {
        let Some(request) = self.down.get(session) else { return };
        let server = request.server;
        let mode = self.core.config.servers[server].sessions;
        let scope = self.scope(session);
        let era = self.back.era(server);
        let asked = request.may_ask();
        let alone = self.front.is_stdio(session);
        // Nothing that a server says on stdio names the request that it asks or tells about. So while one may be meant, no
        // other may be. All that comes by our stdin is one client, and is told apart by it. Who can be asked nothing shares.
        let asks = asked && request.envelope.can_be_asked() && era == Some(Era::Legacy);
        let logs =
            request.envelope.level.is_some() && !matches!(&*request.method, "subscriptions/listen" | "server/discover");
        let lease =
            (asks || logs || mode == SessionMode::PerSession) && !alone && !self.back.is_exact(&self.core, server);
        let sharing = match (mode, era) {
            (SessionMode::PerRequest, _) => Sharing::Dedicated,
            (_, Some(Era::Modern)) => Sharing::modern(&scope),
            (_, Some(Era::Legacy)) => {
                // One that can be asked nothing is introduced like one that can be asked everything, and is not the same.
                let (asked, known) = (request.envelope.can_be_asked(), request.envelope.legacy_capabilities());
                Sharing::Shared(format!("modern, can be asked {asked}: {known} {scope}"))
            }
            (_, None) => Sharing::Shared(format!("server of unknown era: {scope}")),
        };
        // A legacy server says what it likes about any request.
        let logged = era == Some(Era::Legacy) || request.envelope.level.is_some();
        let hello = (era == Some(Era::Legacy)).then(|| request.envelope.initialize());
        let env = self.front.env(session);
        // Of a call that was cancelled the server may still speak, for a while.
        let is_free = |link| !self.router.is_haunted(link);
        let mut acquire = |lease: bool| {
            let (sharing, free) = (sharing.clone(), lease.then_some(&is_free as &dyn Fn(LinkId) -> bool));
            self.back.acquire(&mut self.core, server, sharing, &scope, env.pairs(), free).map(|link| (link, lease))
        };
        // Where there is no room for one more process, questions that might be for several clients are refused.
        let acquired = acquire(lease).or_else(|full| if lease { acquire(false) } else { Err(full) });
        let (link, leased) = match acquired {
            Ok(found) => found,
            Err(Full::Children) => {
                let text = "too many server processes run (--max-children); try again later";
                return self.refuse_modern(session, 503, code::REFUSED, text);
            }
            Err(Full::Queue) => {
                let text = "the server does not read what was sent to it; try again later";
                return self.refuse_modern(session, 503, code::REFUSED, text);
            }
        };
        if let Some(request) = self.down.get_mut(session) {
            request.leased = leased;
        }
        self.front.set_dedicated(session, alone || mode == SessionMode::PerRequest);
        self.router.attach(session, link, server, Role::Request { asked, logged });
        match hello.as_deref().map(rpc::parse_str) {
            Some(Ok(hello)) => {
                let initialized = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n".to_vec();
                self.back.hello(&mut self.core, link, &hello, Some(initialized));
            }
            _ => self.back.discover(&mut self.core, link),
        }
        self.back.start(&mut self.core, link);
        if era == Some(Era::Legacy) && self.front.env(session).pairs().is_empty() {
            // The next client that this one's process is not for should find one that runs.
            self.back.spare(&mut self.core, server);
        }
        if self.back.is_ready(link) {
            self.dispatch(session);
        }
    }

    /// The server of a link turned out to be a legacy one: each request finds a link for a client like its own.
    pub(super) fn place_again(&mut self, link: LinkId) {
        let sessions: Vec<_> = self.router.sessions_of(link).collect();
        // Who introduced itself is still to be answered, and is introduced again.
        let (greetings, held) = (self.router.greetings(link), self.up.release(link));
        for session in &sessions {
            self.release_lease(*session);
            self.router.detach(&mut self.core, *session, false);
        }
        for session in sessions {
            self.place(session);
        }
        let hellos = greetings.into_iter().filter_map(|(stream, _)| Some((stream, self.up.hello(stream.session)?)));
        for (stream, raw) in hellos.collect::<Vec<_>>().into_iter().chain(held) {
            if let Ok(message) = rpc::parse_str(&raw) {
                self.client_says(self.front.server_of(stream.session), stream, &message);
            }
        }
        if self.router.sessions_of(link).next().is_none() {
            self.back.abandon(&mut self.core, link);
        }
    }

    /// A link is up: what waited for it goes on.
    pub(super) fn go_on(&mut self, link: LinkId, again: bool) {
        for (stream, raw) in self.up.release(link) {
            if let Ok(message) = rpc::parse_str(&raw) {
                self.client_says(self.front.server_of(stream.session), stream, &message);
            }
        }
        let sessions: Vec<_> = self.router.sessions_of(link).collect();
        for session in sessions {
            if self.down.get(session).is_some_and(Request::is_held) {
                self.dispatch(session);
            } else if again && let Some(filter) = self.down.filter(session).cloned() {
                // Nobody knows what changed while the server was down.
                for list in filter.lists {
                    let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
                    let tagged = rpc::parse_str(&text).ok().and_then(|m| self.down.tagged(session, &m));
                    if let Some((stream, message)) = tagged {
                        self.front.push(&mut self.core, stream, &message);
                    }
                }
            }
        }
        if self.back.is_modern(link) {
            self.listen_up(link);
        }
    }

    /// A link is down: what waited for it fails.
    pub(super) fn fail_held(&mut self, link: LinkId, why: &str) {
        for (stream, raw) in self.up.release(link) {
            self.fail_raw(stream, &raw, why);
        }
        let sessions: Vec<_> = self.router.sessions_of(link).collect();
        for session in sessions {
            if self.down.get(session).is_some_and(Request::is_held) {
                // No process is started for it, and it is not sent to the next one.
                self.refuse_modern(session, 200, code::INTERNAL, why);
                self.part(session, why, false);
            }
        }
    }

    /// A request that was kept fails.
    pub(super) fn fail_raw(&mut self, stream: StreamId, raw: &str, why: &str) {
        if let Ok(Message { kind: Kind::Request { id, .. }, .. }) = rpc::parse_str(raw) {
            self.reply(stream, 200, rpc::error(Some(id.0), code::INTERNAL, why));
        }
    }

    /// A link is down or gone: nothing that was known of its server's tools counts, and no subscription of ours.
    pub(super) fn silence(&mut self, link: LinkId, why: &str) {
        self.up.silence(&mut self.core, link);
        self.up.lost(|call| self.router.link_of_call(call).is_some());
        for waiter in self.catalogs.forget(link) {
            match waiter {
                // They are held, and fail with the others.
                Waiter::Modern(_) => {}
                Waiter::Legacy(stream, raw, ..) => self.fail_raw(stream, &raw, why),
            }
        }
    }

    /// The link of a modern request is ready.
    pub(super) fn dispatch(&mut self, session: SessionId) {
        let (Some(request), Some(link)) = (self.down.get(session), self.router.link_of(session)) else { return };
        let modern = self.back.is_modern(link);
        let by_http = modern && self.back.is_remote(&self.core, link);
        let (raw, stream) = (request.raw.clone(), request.stream);
        let Ok(message) = rpc::parse_str(&raw) else { return };
        let Kind::Request { id, method, params } = &message.kind else { return };
        let mut mirrored = Vec::new();
        match (&request.mirrored, by_http) {
            (Some(given), true) => mirrored.clone_from(given),
            (None, false) => {}
            _ if method != "tools/call" => {}
            (given, _) => {
                let Some(catalog) = self.catalogs.get(link) else { return self.wait_for_tools(link, session) };
                match given {
                    Some(given) => {
                        if let Err(text) = catalog.check(&headers(given), *params) {
                            if !request.checked_again {
                                // The server may have other tools by now.
                                self.catalogs.outdated(link);
                                return self.wait_for_tools(link, session);
                            }
                            return self.refuse_modern(session, 400, result::code::HEADER_MISMATCH, &text);
                        }
                    }
                    None => mirrored = catalog.headers(*params),
                }
            }
        }
        if !modern {
            return self.dispatch_down(link, session, &message);
        }
        self.router.note_level(session, request.envelope.level);
        let by_stdin = request.mirrored.is_none();
        let step = self.router.client_says(&mut self.core, stream, &message);
        self.down.sent(session, *params, by_stdin && by_http && method == "tools/call");
        debug!("session#{}: {method} goes to a modern server as {}", session.0, id.0);
        self.send_mirrored(step, mirrored);
    }

    /// Lets a request wait for the list of the tools of its server.
    fn wait_for_tools(&mut self, link: LinkId, session: SessionId) {
        if let Some(request) = self.down.get_mut(session) {
            // The list that comes is new enough.
            request.checked_again = true;
        }
        match self.catalogs.wait(&self.core, link, Waiter::Modern(session)) {
            Wait::Asked => {}
            Wait::Ask => self.ask_for_tools(link, None),
            Wait::Full => {
                let text = "too many calls wait for the server's list of tools; try again later";
                self.refuse_modern(session, 503, code::REFUSED, text);
            }
        }
    }

    /// Runs a step; a line that it sends is mirrored in these header fields.
    pub(super) fn send_mirrored(&mut self, step: Step, mirrored: Vec<(String, String)>) {
        match step {
            Step::Send { link, line, call } if !mirrored.is_empty() => {
                let sent = self.back.send(&mut self.core, link, Line { bytes: line, mirrored });
                if let (Err(_), Some(call)) = (sent, call) {
                    let text = "the server does not read what was sent to it; try again later";
                    self.fail_call(call, 503, code::REFUSED, text);
                }
            }
            step => self.run(step),
        }
    }

    /// A modern request for a legacy server.
    fn dispatch_down(&mut self, link: LinkId, session: SessionId, message: &Message<'_>) {
        let Kind::Request { id, method, params } = &message.kind else { return };
        let Some(request) = self.down.get(session) else { return };
        let stream = request.stream;
        let answer = self.back.answer(link).unwrap_or_default().to_owned();
        let Ok(Message { kind: Kind::Response { outcome: Ok(said), .. }, .. }) = rpc::parse_str(&answer) else {
            return;
        };
        let capabilities = rpc::member(Some(said), "capabilities").ok().flatten().map_or("{}", RawValue::get);
        match &**method {
            "server/discover" => return self.reply(stream, 200, result::discovered(id.0, said)),
            "subscriptions/listen" => return self.listen_down(session, *params, capabilities),
            method if is_removed(method) => {
                let text = format!("Method not found: {method}");
                return self.refuse_modern(session, 404, code::METHOD_NOT_FOUND, &text);
            }
            _ => {}
        }
        if let Ok(Some(state)) = rpc::member(*params, "requestState") {
            let Some(state) = rpc::string(state) else {
                return self.refuse_modern(session, 200, code::INVALID_PARAMS, "requestState must be a string");
            };
            match self.down.resume(&self.core, session, *params, &state) {
                Err(text) => return self.refuse_modern(session, 200, code::INVALID_PARAMS, text),
                Ok(Some(resumed)) => return self.resume_parked(session, resumed, *params),
                Ok(None) => {}
            }
        }
        let logs = Object::parse(capabilities).is_some_and(|all| all.get("logging").is_some());
        let level = self.down.get(session).and_then(|request| request.envelope.level);
        let Some(stripped) = envelope::strip(message) else {
            return self.refuse_modern(session, 200, code::INVALID_PARAMS, "params must be an object");
        };
        let Ok(stripped) = rpc::parse_str(&stripped) else { return };
        self.down.sent(session, *params, false);
        if let (Some(level), true) = (level, logs)
            && let Some(line) = self.router.want_level(&mut self.core, session, level)
        {
            // If there is no room, the call itself says so.
            let _ = self.back.send(&mut self.core, link, line);
        }
        let step = self.router.client_says(&mut self.core, stream, &stripped);
        self.run(step);
    }

    /// A modern client came back to a parked call by the request of `new`.
    fn resume_parked(&mut self, new: SessionId, resumed: Resumed, params: Option<&RawValue>) {
        let old = resumed.session;
        self.part(new, "it is part of another request", false);
        self.down.close(&mut self.core, new);
        let Some(stream) = self.front.adopt(&mut self.core, old, new) else { return };
        let Some(id) = self.down.resumed(&mut self.core, stream, resumed.request) else { return };
        let token = rpc::progress_token(params).ok().flatten().map(RawValue::get);
        self.router.readdress(stream, &id, token);
        for answer in resumed.answers {
            if let Ok(answer) = rpc::parse_str(&answer) {
                let step = self.router.client_says(&mut self.core, stream, &answer);
                self.run(step);
            }
        }
        if let Some((stream, status, message)) = self.down.kept(&mut self.core, old) {
            self.reply_modern(stream, status, message);
        }
    }

    /// A modern client wants to hear of changes at a legacy server.
    fn listen_down(&mut self, session: SessionId, params: Option<&RawValue>, capabilities: &str) {
        let Some(link) = self.router.link_of(session) else { return };
        let mut filter = match Filter::read(params) {
            Ok(filter) => filter.honoured(capabilities),
            Err(text) => return self.refuse_modern(session, 200, code::INVALID_PARAMS, &text),
        };
        if self.router.wanted_resources(link) + filter.resources.len() > self.core.config.limits.max_calls {
            // What is not acknowledged is not honoured.
            filter.resources.clear();
        }
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{}}}}}"#,
            filter.show()
        );
        let Ok(acknowledged) = rpc::parse_str(&text) else { return };
        let Some((stream, acknowledged)) = self.down.tagged(session, &acknowledged) else { return };
        self.front.push(&mut self.core, stream, &acknowledged);
        for line in self.router.want_resources(&mut self.core, session, &filter.resources) {
            let _ = self.back.send(&mut self.core, link, line);
        }
        self.down.listens(session, filter);
    }

    /// Tells the modern clients that listen what a legacy server said to all, and returns it for the legacy ones.
    pub(super) fn tell_listeners(
        &mut self,
        link: LinkId,
        sessions: &[Target],
        message: Vec<u8>,
        topic: &Topic,
    ) -> Vec<u8> {
        let Ok(parsed) = rpc::parse(&message) else { return message };
        if *topic == Topic::List("tools") {
            self.catalogs.outdated(link);
        }
        if self.back.is_modern(link) {
            // It came by a subscription of our own. Those of modern clients are answered by the server itself.
            return tag(&parsed, None).unwrap_or(message);
        }
        let listeners: Vec<SessionId> = match topic {
            // What one process of a server says is true of them all.
            Topic::List(list) => {
                let kin = self.back.kin(link);
                let all = kin.iter().flat_map(|link| self.router.sessions_of(*link));
                all.filter(|session| self.down.filter(*session).is_some_and(|f| f.lists.contains(list))).collect()
            }
            Topic::Resource => {
                let all = sessions.iter().map(|target| target.session);
                all.filter(|session| self.down.filter(*session).is_some()).collect()
            }
        };
        for session in listeners {
            if let Some((stream, message)) = self.down.tagged(session, &parsed) {
                self.front.push(&mut self.core, stream, &message);
            }
        }
        message
    }

    // ---- what modern clients hear ----

    /// A modern request is refused.
    pub(super) fn refuse_modern(&mut self, session: SessionId, status: u16, code: i32, text: &str) {
        let Some(request) = self.down.get(session) else { return };
        let (stream, error) = (request.stream, rpc::error(Some(&request.id), code, text));
        self.reply(stream, status, error);
    }

    /// A subscription of a modern client ends, and not because it failed.
    pub(super) fn say_farewell(&mut self, session: SessionId) {
        let Some((stream, farewell)) = self.down.farewell(session) else { return };
        if self.front.is_stdio(session) {
            // Over a channel that is shared, this is how a subscription ends (basic/patterns/cancellation).
            let id = self.down.get(session).map(|request| request.id.clone()).unwrap_or_default();
            let text =
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
            self.front.push(&mut self.core, stream, text.as_bytes());
        }
        self.reply(stream, 200, farewell);
    }

    /// A modern server has ended the subscription of a modern client.
    pub(super) fn subscription_ended(&mut self, stream: StreamId, message: &[u8]) {
        let Some((_, farewell)) = self.down.farewell(stream.session) else { return };
        if self.front.is_stdio(stream.session) {
            self.front.push(&mut self.core, stream, message);
        }
        self.reply(stream, 200, farewell);
    }

    /// Answers a request of a client of any era.
    pub(super) fn reply(&mut self, stream: StreamId, status: u16, message: Vec<u8>) {
        if self.down.get(stream.session).is_none() {
            return self.front.reply(&mut self.core, stream, status, message);
        }
        if let Some((stream, status, message)) = self.down.answer(&mut self.core, stream.session, status, message) {
            self.reply_modern(stream, status, message);
        }
    }

    /// Answers a modern request. One that came by stdin is over with that; any other ends with its exchange.
    fn reply_modern(&mut self, stream: StreamId, status: u16, message: Vec<u8>) {
        self.front.reply(&mut self.core, stream, status, message);
        if self.front.is_stdio(stream.session) {
            self.end_modern(stream.session);
        }
    }

    /// A server answered a modern client's call.
    pub(super) fn answer_modern(&mut self, link: LinkId, session: SessionId, id: &str, message: &Message<'_>) {
        let Kind::Response { id: Some(theirs), outcome } = &message.kind else { return };
        let modern = self.back.is_modern(link);
        let info = self.server_info(link);
        let Some(request) = self.down.get(session) else { return };
        let stream = request.stream;
        if let (true, Err(error)) = (modern, outcome)
            && result::code_of(error) == Some(result::code::HEADER_MISMATCH)
            && self.down.try_again(session)
        {
            // The list of tools has changed under us.
            self.catalogs.outdated(link);
            return self.dispatch(session);
        }
        let Some(request) = self.down.get(session) else { return };
        if let (false, Err(error)) = (modern, outcome)
            && request.may_ask()
            && let Some(questions) = result::url_questions(error)
        {
            let willing = request.envelope.has(&["elicitation", "url"]);
            let message = if willing {
                self.down.ask_again(&self.core, session, &questions, info.as_deref()).map(|message| (200, message))
            } else {
                Some((400, result::missing_capability(id, r#"{"elicitation":{"url":{}}}"#)))
            };
            if let Some((status, message)) = message {
                return self.reply(stream, status, message);
            }
        }
        let Some(request) = self.down.get(session) else { return };
        let mut status = 200;
        let mut edits = vec![(theirs.0, id)];
        let translated;
        match outcome {
            Ok(result) if modern => {
                // A subscription that ends names itself.
                if request.method == "subscriptions/listen"
                    && let Ok(Some(own)) =
                        rpc::member(rpc::member(Some(result), "_meta").ok().flatten(), result::SUBSCRIPTION)
                {
                    edits.push((own.get(), id));
                }
                if request.mirrored.is_none()
                    && let Some(valid) = self.valid_tools(link, &request.method, result)
                {
                    translated = valid;
                    edits.push((result.get(), &translated));
                }
            }
            Ok(result) => {
                if let Some((place, new)) = result::modern(result.get(), &request.method, info.as_deref()) {
                    translated = new;
                    edits.push((place, &translated));
                }
            }
            Err(error) => {
                status = result::status_of(result::code_of(error));
                let uri = (request.method == "resources/read").then(|| request.uri.clone()).flatten();
                if let Some(new) = result::modern_error(error, uri.as_deref()).filter(|_| !modern) {
                    translated = new;
                    edits.push((error.get(), &translated));
                }
            }
        }
        let message = rpc::splice(message.raw, &mut edits);
        self.reply(stream, status, message);
    }

    /// What a legacy server said of itself, raw.
    fn server_info(&self, link: LinkId) -> Option<String> {
        let answer = self.back.answer(link).filter(|_| !self.back.is_modern(link))?;
        let Ok(Message { kind: Kind::Response { outcome: Ok(said), .. }, .. }) = rpc::parse_str(answer) else {
            return None;
        };
        let info = rpc::member(Some(said), "serverInfo").ok().flatten()?.get();
        info.starts_with('{').then(|| info.to_owned())
    }

    /// A legacy server has a question about a modern client's call.
    pub(super) fn ask_modern(&mut self, session: SessionId, ask: AskId, question: &[u8]) {
        let Ok(question) = rpc::parse(question) else { return };
        match self.down.asked(&mut self.core, session, ask, &question) {
            Asked::Kept => {}
            Asked::Refused(text) => {
                let step = self.router.refuse_ask(&mut self.core, ask, text);
                self.run(step);
            }
            Asked::Missing(needed) => {
                let text = "the client has not declared this capability";
                let step = self.router.refuse_ask(&mut self.core, ask, text);
                self.run(step);
                let Some(request) = self.down.get(session) else { return };
                let (stream, message) = (request.stream, result::missing_capability(&request.id, needed));
                self.reply(stream, 400, message);
                self.part(session, text, true);
            }
        }
    }

    /// The questions of a server were gathered.
    pub(super) fn ask_now(&mut self, session: SessionId) {
        if self.down.parked() >= self.core.config.limits.max_sessions {
            let text = "too many calls wait for their clients (--max-sessions); try again later";
            if let Some(request) = self.down.get(session) {
                let (stream, error) = (request.stream, rpc::error(Some(&request.id), code::REFUSED, text));
                self.reply(stream, 503, error);
                self.part(session, text, true);
            }
            return;
        }
        let router = &self.router;
        self.down.keep_questions(session, |ask| router.is_open(ask));
        let info = self.router.link_of(session).and_then(|link| self.server_info(link));
        if let Some((stream, message)) = self.down.ask(&mut self.core, session, info.as_deref()) {
            self.front.reply(&mut self.core, stream, 200, message);
        }
    }

    /// The exchange of a modern request ended.
    pub(super) fn modern_closed(&mut self, session: SessionId) {
        if !self.down.is_parked(session) {
            // If it was not answered, this is how its client cancels it.
            self.end_modern(session);
        }
    }

    /// A modern request is over. Nobody waits for an answer to it.
    pub(super) fn end_modern(&mut self, session: SessionId) {
        self.front.end_session(&mut self.core, session);
        self.leave(session, "the request was cancelled", true);
        self.down.close(&mut self.core, session);
    }

    /// A session leaves its link, which it may have had on lease.
    pub(super) fn release_lease(&mut self, session: SessionId) {
        if let Some(link) = self.router.link_of(session)
            && let Some(request) = self.down.get_mut(session)
            && std::mem::take(&mut request.leased)
        {
            self.back.end_lease(link);
        }
    }
}
