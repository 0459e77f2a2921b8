//! What stories say: clients that post, children that answer, and what is expected of the engine in between.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use mcp_proxy_engine::wire::rpc;
use mcp_proxy_engine::{
    Body, ChildId, Command, Config, Credentials, ExchangeId, Exit, FetchError, FetchErrorKind, FetchId, FrontKind,
    Headers, HttpRequest, HttpResponse, Instant, Origin, Pipe, Remote, RemoteTransport, Secret, Server, Signal,
};

use super::world::{SseEvent, World};

/// The defaults, for one server that is called `default`.
#[must_use]
pub fn config() -> Config {
    let command = Command { program: "server".into(), args: vec![], env: vec![], cwd: None };
    Config::new(Server::new("default", command))
}

/// What a client puts into each request.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its path.
    pub target: String,
    /// Its session.
    pub session: Option<String>,
    /// Its `MCP-Protocol-Version`.
    pub revision: Option<String>,
    /// More fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Client {
    /// A client that has not initialized.
    #[must_use]
    pub fn new() -> Self {
        Client { target: "/mcp".into(), session: None, revision: None, fields: vec![] }
    }

    /// The same, with one more field; it comes before the usual one of that name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    /// The request it sends.
    #[must_use]
    pub fn request(&self, method: &str, body: &str) -> HttpRequest {
        let mut headers = Headers::new();
        for (name, value) in &self.fields {
            headers.push(*name, value.clone());
        }
        let mut push = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value.filter(|_| !self.fields.iter().any(|(n, _)| *n == name)) {
                headers.push(name, value.to_owned());
            }
        };
        push("host", Some("localhost:8080"));
        let post = method == "POST";
        push("accept", Some(if post { "application/json, text/event-stream" } else { "text/event-stream" }));
        push("content-type", post.then_some("application/json"));
        push("mcp-session-id", self.session.as_deref());
        push("mcp-protocol-version", self.revision.as_deref());
        let (method, target) = (method.to_owned(), self.target.clone());
        HttpRequest { method, target, headers, body: body.as_bytes().to_vec(), random: [0x5a; 16] }
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

/// A line that a child read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(pub String);

impl Line {
    /// The raw id of a request or response, or the number behind `requestId` or `progressToken`: the first one there is.
    #[must_use]
    pub fn id(&self) -> String {
        match rpc::parse_str(&self.0).expect("a line is a message").kind {
            rpc::Kind::Request { id, .. } | rpc::Kind::Response { id: Some(id), .. } => id.0.to_owned(),
            rpc::Kind::Notification { params, .. } => ["requestId", "progressToken"]
                .iter()
                .find_map(|name| rpc::member(params, name).unwrap())
                .map(|raw| raw.get().to_owned())
                .expect("it names a request"),
            rpc::Kind::Response { id: None, .. } => panic!("it has no id: {}", self.0),
        }
    }

    /// The method, if it has one.
    #[must_use]
    pub fn method(&self) -> String {
        match rpc::parse_str(&self.0).expect("a line is a message").kind {
            rpc::Kind::Request { method, .. } | rpc::Kind::Notification { method, .. } => method.into_owned(),
            rpc::Kind::Response { .. } => String::new(),
        }
    }
}

impl Deref for Line {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of a whole body.
#[must_use]
pub fn text(response: &HttpResponse) -> &str {
    match &response.body {
        Body::Full(bytes) => std::str::from_utf8(bytes).expect("a body is UTF-8"),
        Body::Stream => panic!("a stream, not a whole body: {response:?}"),
    }
}

impl World {
    // ---- clients ----

    /// A client posts a body.
    pub fn post(&mut self, client: &Client, body: &str) -> ExchangeId {
        self.send(client.request("POST", body))
    }

    /// A client opens its standalone stream.
    pub fn get(&mut self, client: &Client) -> ExchangeId {
        self.send(client.request("GET", ""))
    }

    /// A client takes up a stream again.
    pub fn get_after(&mut self, client: &Client, last: &str) -> ExchangeId {
        self.send(client.clone().with("last-event-id", last).request("GET", ""))
    }

    /// A client ends its session.
    pub fn delete(&mut self, client: &Client) -> ExchangeId {
        self.send(client.request("DELETE", ""))
    }

    /// Any request.
    pub fn send(&mut self, request: HttpRequest) -> ExchangeId {
        let id = self.request(request);
        self.settle();
        id
    }

    /// A client introduces itself, all the way to `notifications/initialized`. Returns it and the child that it talks to
    /// (the newest one, if that had shaken hands before).
    pub fn connect(&mut self, revision: &str, capabilities: &str) -> (Client, ChildId) {
        self.connect_to("/mcp", revision, capabilities)
    }

    /// The same, to another path.
    pub fn connect_to(&mut self, target: &str, revision: &str, capabilities: &str) -> (Client, ChildId) {
        let mut client = Client { target: target.into(), ..Client::new() };
        let hello = self.post(&client, &hello("0", revision, capabilities));
        let child = self.shake(revision);
        let response = self.expect_respond(hello);
        assert_eq!(response.status, 200, "{}", text(&response));
        client.session = Some(response.headers.get("mcp-session-id").expect("a session").to_owned());
        client.revision = Some(revision.into());
        self.notify(&client, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let child = child.unwrap_or_else(|| *self.children.iter().rfind(|(_, c)| c.lives()).expect("a child").0);
        if self.peek_line(child).is_some_and(|line| line.method() == "notifications/initialized") {
            self.expect_line(child);
        }
        (client, child)
    }

    /// A child that was sent `initialize` answers it. Returns which, if there is one.
    pub fn shake(&mut self, revision: &str) -> Option<ChildId> {
        let ids: Vec<_> = self.children.keys().copied().collect();
        let child = ids.into_iter().find(|c| self.peek_line(*c).is_some_and(|line| line.method() == "initialize"))?;
        let line = self.expect_line(child);
        let server = r#""capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}"#;
        self.answer(child, &line, &format!(r#"{{"protocolVersion":"{revision}",{server}}}"#));
        Some(child)
    }

    /// A client posts something that wants no answer, and gets 202.
    pub fn notify(&mut self, client: &Client, body: &str) {
        let exchange = self.post(client, body);
        let response = self.expect_respond(exchange);
        assert_eq!((response.status, text(&response)), (202, ""));
    }

    /// A client goes away.
    pub fn close_client(&mut self, id: ExchangeId) {
        self.client_leaves(id);
        let exchange = self.exchanges.get_mut(&id).unwrap();
        exchange.events.clear();
        exchange.taken = true;
        self.settle();
    }

    /// The response, which must be there. A whole one ends its exchange.
    pub fn expect_respond(&mut self, id: ExchangeId) -> HttpResponse {
        let exchange = self.exchanges.get_mut(&id).unwrap();
        assert!(!exchange.taken, "the response of {id:?} was taken already");
        let response = exchange.response.clone().unwrap_or_else(|| panic!("{id:?} has no response yet"));
        exchange.taken = true;
        if response.body != Body::Stream && !exchange.over {
            self.exchange_ends(id);
            self.settle();
        }
        response
    }

    /// One JSON body, status 200.
    pub fn expect_json(&mut self, id: ExchangeId) -> String {
        let response = self.expect_respond(id);
        let kind = response.headers.get("content-type");
        assert_eq!((response.status, kind), (200, Some("application/json")), "{}", text(&response));
        text(&response).to_owned()
    }

    /// A refusal of this status and this JSON-RPC code. Returns the whole body.
    pub fn expect_refused(&mut self, id: ExchangeId, status: u16, code: i32) -> String {
        let response = self.expect_respond(id);
        let body = text(&response).to_owned();
        assert_eq!(response.status, status, "{body}");
        assert!(body.contains(&format!(r#""error":{{"code":{code},"message":""#)), "{body}");
        body
    }

    /// The head of an event stream.
    pub fn expect_stream(&mut self, id: ExchangeId) -> HttpResponse {
        let response = self.expect_respond(id);
        assert_eq!(response.body, Body::Stream, "{response:?}");
        assert_eq!((response.status, response.headers.get("content-type")), (200, Some("text/event-stream")));
        response
    }

    /// The next event of a stream, if the client can read one.
    pub fn next_event(&mut self, id: ExchangeId) -> Option<SseEvent> {
        loop {
            let exchange = self.exchanges.get_mut(&id).unwrap();
            if let Some(event) = exchange.events.pop_front() {
                return Some(event);
            }
            exchange.writing.as_ref()?;
            self.wrote(Pipe::Response(id));
            self.settle();
        }
    }

    /// The next event of a stream, which must be there.
    pub fn expect_event(&mut self, id: ExchangeId) -> SseEvent {
        self.next_event(id).unwrap_or_else(|| panic!("no event came on {id:?}"))
    }

    /// The message of the next event.
    pub fn expect_message(&mut self, id: ExchangeId) -> String {
        let event = self.expect_event(id);
        event.data.filter(|data| !data.is_empty()).expect("the event has data")
    }

    /// The event that gives the client an id to come back with, and nothing else. Returns the id.
    pub fn expect_priming(&mut self, id: ExchangeId) -> String {
        let event = self.expect_event(id);
        assert_eq!(event.data.as_deref(), Some(""), "a priming event has no data");
        event.id.expect("a priming event has an id")
    }

    /// A comment, and no event.
    pub fn expect_comment(&mut self, id: ExchangeId) {
        assert_eq!(self.next_event(id), None);
        let comments = &mut self.exchanges.get_mut(&id).unwrap().comments;
        assert!(*comments > 0, "no comment came on {id:?}");
        *comments -= 1;
    }

    /// The client waits on, and has nothing to read.
    pub fn expect_silence(&mut self, id: ExchangeId) {
        assert_eq!(self.next_event(id), None);
        let exchange = &self.exchanges[&id];
        assert!(exchange.taken || exchange.response.is_none(), "{id:?} was answered: {:?}", exchange.response);
        assert!(!exchange.over && !exchange.closing, "{id:?} has ended");
    }

    /// The stream ends, and there was nothing more on it.
    pub fn expect_end(&mut self, id: ExchangeId) {
        assert_eq!(self.next_event(id), None);
        assert!(self.exchanges[&id].closing, "the stream of {id:?} goes on");
        self.exchange_ends(id);
        self.settle();
    }

    // ---- children ----

    /// The next child that was started and not noticed by the story.
    pub fn expect_child(&mut self) -> ChildId {
        self.settle();
        let seen = self.seen_children;
        let id = self.children.keys().copied().find(|id| id.0 > seen).expect("a child was started");
        self.seen_children = id.0;
        id
    }

    /// No child was started that the story did not notice.
    pub fn expect_no_child(&self) {
        assert!(self.children.keys().all(|id| id.0 <= self.seen_children), "a child was started");
    }

    /// A child writes a line.
    pub fn child_says(&mut self, child: ChildId, line: &str) {
        let buffer = &mut self.out_mut(Pipe::ChildStdout(child)).buffer;
        buffer.extend_from_slice(line.as_bytes());
        buffer.push(b'\n');
        self.settle();
    }

    /// A child answers a request with this result.
    pub fn answer(&mut self, child: ChildId, request: &Line, result: &str) {
        self.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.id()));
    }

    /// The next line a child has to read, without taking it.
    pub fn peek_line(&mut self, id: ChildId) -> Option<Line> {
        if self.children[&id].lines.is_empty() && self.children[&id].writing.is_some() {
            self.wrote(Pipe::ChildStdin(id));
            self.settle();
        }
        self.children[&id].lines.front().cloned().map(Line)
    }

    /// The next line that a child reads, which must be there.
    pub fn expect_line(&mut self, id: ChildId) -> Line {
        let line = self.peek_line(id).unwrap_or_else(|| panic!("{id:?} has nothing to read"));
        self.children.get_mut(&id).unwrap().lines.pop_front();
        line
    }

    /// The next line that a child reads, which must have this method.
    pub fn expect_method(&mut self, id: ChildId, method: &str) -> Line {
        let line = self.expect_line(id);
        assert_eq!(line.method(), method, "{line}");
        line
    }

    /// A child has nothing to read.
    pub fn expect_no_line(&mut self, id: ChildId) {
        assert_eq!(self.peek_line(id), None);
    }

    /// The engine closed the child's stdin.
    #[must_use]
    pub fn is_stdin_closed(&self, id: ChildId) -> bool {
        self.children[&id].stdin_dropped
    }

    /// The signals a child got so far.
    #[must_use]
    pub fn signals(&self, id: ChildId) -> &[Signal] {
        &self.children[&id].signals
    }

    /// A child ends, and nothing holds its pipes.
    pub fn exit(&mut self, id: ChildId, exit: Exit) {
        self.children.get_mut(&id).unwrap().lines.clear();
        self.exited(id, exit);
        for pipe in [Pipe::ChildStdout(id), Pipe::ChildStderr(id)] {
            self.out_mut(pipe).eof = true;
        }
        self.settle();
    }

    // ---- remote servers and our own stdin ----

    /// The next request of the engine that the story has not seen.
    pub fn expect_fetch(&mut self, method: &str) -> FetchId {
        self.settle();
        let found = self.fetches.iter().find(|(_, fetch)| !fetch.taken).map(|(id, _)| *id);
        let id = found.unwrap_or_else(|| panic!("no {method} was sent"));
        let fetch = self.fetches.get_mut(&id).unwrap();
        fetch.taken = true;
        assert_eq!(fetch.request.method, method, "{:?}", fetch.request);
        id
    }

    /// Nothing was sent that the story has not seen.
    pub fn expect_no_fetch(&mut self) {
        self.settle();
        let found = self.fetches.values().find(|fetch| !fetch.taken);
        assert!(found.is_none(), "{:?}", found.map(|fetch| &fetch.request));
    }

    /// The message in a request of the engine.
    #[must_use]
    pub fn posted(&self, id: FetchId) -> Line {
        Line(String::from_utf8(self.fetches[&id].request.body.clone()).expect("messages are UTF-8"))
    }

    /// A field of a request of the engine.
    #[must_use]
    pub fn field(&self, id: FetchId, name: &str) -> Option<&str> {
        self.fetches[&id].request.headers.get(name)
    }

    /// A remote server answers with a whole body.
    pub fn remote_answers(&mut self, id: FetchId, head: HttpResponse, body: &str) {
        self.remote_streams(id, head, body);
        if let Some(fetch) = self.fetches.get_mut(&id) {
            fetch.body.eof = true;
        }
        self.settle();
        if !self.fetches[&id].over && self.fetches[&id].body.dropped {
            self.fetch_ends(id, None);
        }
    }

    /// A remote server begins to answer, and says this.
    pub fn remote_streams(&mut self, id: FetchId, head: HttpResponse, body: &str) {
        self.fetched(id, head);
        self.remote_says(id, body);
    }

    /// A remote server goes on.
    pub fn remote_says(&mut self, id: FetchId, body: &str) {
        if !self.fetches[&id].body.dropped {
            self.out_mut(Pipe::Fetched(id)).buffer.extend_from_slice(body.as_bytes());
        }
        self.settle();
    }

    /// A remote server ends a body.
    pub fn remote_ends(&mut self, id: FetchId) {
        self.out_mut(Pipe::Fetched(id)).eof = true;
        self.settle();
    }

    /// There is no response.
    pub fn remote_is_away(&mut self, id: FetchId) {
        let error = FetchError { kind: FetchErrorKind::Connect, text: "connection refused by 127.0.0.1:9".into() };
        self.fetch_fails(id, error);
        self.settle();
    }

    /// The client on our stdin writes a line.
    pub fn stdin_says(&mut self, line: &str) {
        self.stdin.buffer.extend_from_slice(line.as_bytes());
        self.stdin.buffer.push(b'\n');
        self.settle();
    }

    /// The next line on our stdout.
    pub fn expect_stdout(&mut self) -> String {
        self.settle();
        self.stdout_lines.pop_front().expect("a line on stdout")
    }

    // ---- time and the end ----

    /// Time goes by.
    pub fn advance(&mut self, wait: Duration) {
        let target = self.now + wait;
        loop {
            let next = self.until.map_or(target, |until| until.min(target));
            self.advance_to(next);
            self.settle();
            if self.now >= target || self.done {
                return;
            }
        }
    }

    /// Everything that needs no decision: spawns succeed, what children wrote is read as far as that is permitted.
    pub fn settle(&mut self) {
        while !self.done {
            let waiting = self.children.iter().find(|(_, c)| self.auto_spawn && !c.spawned && !c.gone);
            if let Some((&id, _)) = waiting {
                self.spawned(id);
                continue;
            }
            if self.stdout.is_some() {
                self.wrote(Pipe::Stdout);
                continue;
            }
            let pipes = self.children.keys().flat_map(|id| [Pipe::ChildStdout(*id), Pipe::ChildStderr(*id)]);
            let bodies = self.fetches.iter().filter(|(_, f)| f.head && !f.over).map(|(id, _)| Pipe::Fetched(*id));
            let mut pipes: Vec<_> = pipes.chain(bodies).chain([Pipe::Stdin]).collect();
            pipes.retain(|pipe| {
                let out = self.out_mut(*pipe);
                out.permitted && (out.eof || !out.buffer.is_empty())
            });
            let Some(&pipe) = pipes.first() else { return };
            if self.out_mut(pipe).buffer.is_empty() {
                match pipe {
                    Pipe::Fetched(id) => self.fetch_ends(id, None),
                    pipe => self.pipe_ends(pipe, None),
                }
            } else {
                self.data(pipe, usize::MAX);
            }
        }
    }

    /// Takes all that clients and children have to read and the story does not care for.
    pub fn ignore_rest(&mut self) {
        let exchanges: Vec<_> = self.exchanges.iter().filter(|(_, e)| !e.over).map(|(id, _)| *id).collect();
        for id in exchanges {
            while self.next_event(id).is_some() {}
            self.exchanges.get_mut(&id).unwrap().taken = true;
        }
        let children: Vec<_> = self.children.iter().filter(|(_, c)| c.lives()).map(|(id, _)| *id).collect();
        for id in children {
            while self.peek_line(id).is_some() {
                self.expect_line(id);
            }
        }
    }

    /// The end of a story: nothing was said that it did not expect; after a shutdown everything ends by itself.
    pub fn finish(mut self) {
        let ids: Vec<_> = self.exchanges.keys().copied().collect();
        for id in ids {
            if !self.exchanges[&id].over {
                assert_eq!(self.next_event(id), None, "{id:?} has an event that the story did not expect");
            }
            let exchange = &self.exchanges[&id];
            let unseen = exchange.response.as_ref().filter(|_| !exchange.taken);
            assert!(unseen.is_none(), "{id:?} has a response that the story did not expect: {unseen:?}");
        }
        let ids: Vec<_> = self.children.iter().filter(|(_, c)| c.lives()).map(|(id, _)| *id).collect();
        for id in ids {
            if !self.children[&id].stdin_dropped {
                assert_eq!(self.peek_line(id), None, "{id:?} has a line to read that the story did not expect");
            }
        }
        if !self.done {
            self.shutdown();
        }
        self.play_out();
    }

    /// The end of a story that has ordered the shutdown itself.
    pub fn finish_from_here(mut self) {
        self.play_out();
    }

    /// After a shutdown: obedient clients and children do what is asked, until the engine is done.
    pub fn play_out(&mut self) {
        let limit = self.now + Duration::from_secs(20);
        while !self.done {
            self.settle();
            if let Some(act) = self.obey() {
                act(self);
                continue;
            }
            let until = self.until.expect("the engine waits for ever");
            assert!(until < limit, "the engine does not come to its end: {:?}", self.stats());
            self.advance_to(until);
        }
        let open = self.exchanges.iter().find(|(_, e)| !e.over);
        assert!(open.is_none(), "an exchange is left: {:?}", open.map(|(id, _)| id));
        let open = self.fetches.iter().find(|(_, f)| !f.over);
        assert!(open.is_none(), "a fetch is left: {:?}", open.map(|(id, _)| id));
        let alive = self.children.iter().find(|(_, c)| !c.gone);
        assert!(alive.is_none(), "a child is left: {:?}", alive.map(|(id, _)| id));
    }

    /// Something that an obedient world would do now.
    #[expect(clippy::type_complexity, reason = "it is used once")]
    fn obey(&self) -> Option<Box<dyn FnOnce(&mut World)>> {
        for (&id, exchange) in &self.exchanges {
            if self.can_end(id) {
                return Some(Box::new(move |w| w.exchange_ends(id)));
            }
            if exchange.writing.is_some() && !exchange.over {
                return Some(Box::new(move |w| w.wrote(Pipe::Response(id))));
            }
        }
        for (&id, fetch) in self.fetches.iter().filter(|(_, f)| !f.over) {
            if fetch.body.dropped && fetch.head {
                return Some(Box::new(move |w| w.fetch_ends(id, None)));
            }
            if fetch.body.dropped {
                let error = FetchError { kind: FetchErrorKind::Cancelled, text: "cancelled".into() };
                return Some(Box::new(move |w| w.fetch_fails(id, error)));
            }
            if fetch.request.method == "DELETE" && !fetch.head {
                return Some(Box::new(move |w| w.fetched(id, head(200, ""))));
            }
        }
        for (&id, child) in &self.children {
            if child.lives() && (child.stdin_dropped || child.signals.contains(&Signal::Kill)) {
                return Some(Box::new(move |w| w.exit(id, Exit::Code(0))));
            }
            if child.lives() && child.writing.is_some() {
                return Some(Box::new(move |w| w.wrote(Pipe::ChildStdin(id))));
            }
            if !child.spawned && !child.gone {
                return Some(Box::new(move |w| w.spawned(id)));
            }
        }
        None
    }
}

/// The head of a response of a remote server; `kind` is its content type.
#[must_use]
pub fn head(status: u16, kind: &str) -> HttpResponse {
    let mut headers = Headers::new();
    if !kind.is_empty() {
        headers.push("content-type", kind.to_owned());
    }
    HttpResponse { status, headers, body: Body::Stream }
}

/// The same, with one more field.
#[must_use]
pub fn head_with(status: u16, kind: &str, name: &'static str, value: &str) -> HttpResponse {
    let mut head = head(status, kind);
    head.headers.push(name, value.to_owned());
    head
}

/// The media types of answers.
pub const JSON: &str = "application/json";
/// The media types of answers.
pub const EVENTS: &str = "text/event-stream";

/// A configuration for one remote server.
#[must_use]
pub fn remote_config(url: &str, front: FrontKind) -> Config {
    let mut config = config();
    config.servers[0].origin = Origin::Remote(Remote {
        url: Secret::new(url.into()),
        transport: RemoteTransport::Detect,
        headers: Headers::new(),
        credentials: Credentials::None,
    });
    config.front = front;
    config
}

/// An `initialize` request.
#[must_use]
pub fn hello(id: &str, revision: &str, capabilities: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"{revision}","capabilities":{capabilities},"clientInfo":{{"name":"c","version":"1"}}}}}}"#
    )
}

/// A call of the tool `t`.
#[must_use]
pub fn call(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#)
}

/// A call of the tool `t` with a progress token.
#[must_use]
pub fn call_with_token(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","_meta":{{"progressToken":{token}}}}}}}"#
    )
}

/// An answer.
#[must_use]
pub fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A moment.
#[must_use]
pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A moment.
#[must_use]
pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The time a story began.
pub const START: Instant = Instant::ZERO;
