//! An MCP client that is careless on purpose, and sees everything.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Head, Incoming, Proxy, Request};

/// The newest revision with sessions.
pub const NEWEST: &str = "2025-11-25";

/// A client with a session.
pub struct Client<'p> {
    proxy: &'p dyn Proxy,
    /// The headers that name the session and the revision.
    pub headers: Vec<(String, String)>,
}

impl<'p> Client<'p> {
    /// Opens a session.
    #[must_use]
    pub fn open(proxy: &'p dyn Proxy, revision: &str, capabilities: &Value) -> Self {
        let mut client = Client { proxy, headers: Vec::new() };
        let mut answer = client.post(hello(revision, capabilities));
        let head = answer.head();
        assert_eq!(head.status, 200);
        let session = head.get("mcp-session-id").expect("the session has a name").to_owned();
        let message = answer.only();
        assert_eq!((&message["id"], &message["result"]["protocolVersion"]), (&json!(1), &json!(revision)));
        client.headers = vec![
            ("mcp-session-id".into(), session),
            ("mcp-protocol-version".into(), message["result"]["protocolVersion"].as_str().unwrap().into()),
        ];
        client.notify("notifications/initialized", "{}");
        client
    }

    /// A session of the newest revision, of a client that cannot be asked anything.
    #[must_use]
    pub fn plain(proxy: &'p dyn Proxy) -> Self {
        Client::open(proxy, NEWEST, &json!({}))
    }

    /// A client without a session.
    #[must_use]
    pub fn stateless(proxy: &'p dyn Proxy) -> Self {
        Client { proxy, headers: vec![("mcp-protocol-version".into(), NEWEST.into())] }
    }

    /// Sends any request with the headers of the session.
    #[must_use]
    pub fn send(&self, method: &'static str, more: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut headers: Vec<(String, String)> =
            vec![("host".into(), "localhost".into()), ("accept".into(), "application/json, text/event-stream".into())];
        if method == "POST" {
            headers.push(("content-type".into(), "application/json".into()));
        }
        headers.extend(self.headers.iter().cloned());
        for (name, value) in more {
            headers.retain(|(n, _)| n != name);
            headers.push(((*name).into(), (*value).into()));
        }
        let request = Request { method, target: "/mcp".into(), headers, body };
        Answer::new(self.proxy.send(&request))
    }

    /// Posts a message.
    #[must_use]
    pub fn post(&self, message: impl Into<Vec<u8>>) -> Answer {
        self.send("POST", &[], message.into())
    }

    /// Opens the standalone stream, or takes up another one after an event. Waits for the head.
    #[must_use]
    pub fn listen(&self, after: Option<&str>) -> Answer {
        let after: Vec<_> = after.map(|id| ("last-event-id", id)).into_iter().collect();
        let mut answer = self.send("GET", &after, Vec::new());
        assert_eq!(answer.head().status, 200);
        answer
    }

    /// Calls a tool. `id` and `arguments` are raw JSON.
    #[must_use]
    pub fn call(&self, id: &str, tool: &str, arguments: &str) -> Answer {
        self.post(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        ))
    }

    /// Calls a tool and wants to hear of its progress. `id`, `arguments` and `token` are raw JSON.
    #[must_use]
    pub fn call_with_token(&self, id: &str, tool: &str, arguments: &str, token: &str) -> Answer {
        self.post(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}},"name":"{tool}","arguments":{arguments}}}}}"#
        ))
    }

    /// Calls a tool and returns its structured result. Every id is 1.
    pub fn result(&self, tool: &str, arguments: &str) -> Value {
        let mut message = self.call("1", tool, arguments).only();
        assert_eq!(message["id"], 1);
        assert!(message["error"].is_null(), "{tool}: {message}");
        message["result"]["structuredContent"].take()
    }

    /// Sends a request that is no tool call and returns its result. Every id is 1.
    pub fn request(&self, method: &str, params: &str) -> Value {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let mut message = self.post(body).only();
        assert_eq!(message["id"], 1);
        message["result"].take()
    }

    /// Sends a notification; it must be accepted.
    pub fn notify(&self, method: &str, params: &str) {
        self.accepted(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#));
    }

    /// Answers a question of the server. `result` is raw JSON.
    pub fn reply(&self, question: &Value, result: &str) {
        self.accepted(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, question["id"]));
    }

    fn accepted(&self, body: String) {
        let mut answer = self.post(body);
        let text = String::from_utf8(answer.body()).unwrap();
        assert_eq!((answer.head().status, &*text), (202, ""));
    }

    /// Asks the server what it was told until that is as wanted.
    pub fn state_when(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        // Each round is a whole call, so this needs no pause; how many it takes is a matter of scheduling.
        let states = std::iter::repeat_with(|| self.result("state", "{}")).take(10_000);
        let mut last = Value::Null;
        for state in states {
            if is_it(&state) {
                return state;
            }
            last = state;
        }
        panic!("it never came to this: {last}");
    }
}

/// An `initialize` request with the id 1.
#[must_use]
pub fn hello(revision: &str, capabilities: &Value) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{revision}","capabilities":{capabilities},"clientInfo":{{"name":"test","version":"1"}}}}}}"#
    )
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamEvent {
    /// Its id.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

/// A response, read as what it is.
pub struct Answer {
    incoming: Box<dyn Incoming>,
    /// Bytes of a line that is not complete.
    rest: Vec<u8>,
    event: StreamEvent,
    /// Events that came and were not asked for yet.
    events: VecDeque<StreamEvent>,
    body_taken: bool,
    /// The id of the last event that was taken.
    pub last_id: Option<String>,
}

impl Answer {
    /// Wraps a response that comes in.
    #[must_use]
    pub fn new(incoming: Box<dyn Incoming>) -> Self {
        let (rest, event, events) = (Vec::new(), StreamEvent::default(), VecDeque::new());
        Answer { incoming, rest, event, events, body_taken: false, last_id: None }
    }

    /// The head.
    pub fn head(&mut self) -> Head {
        self.incoming.head()
    }

    /// Whether it is an event stream.
    pub fn is_stream(&mut self) -> bool {
        self.head().get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// All the rest of the body.
    pub fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let bytes = self.incoming.read();
            if bytes.is_empty() {
                return body;
            }
            body.extend(bytes);
        }
    }

    /// The next event of the stream; `None` at its end.
    pub fn event(&mut self) -> Option<StreamEvent> {
        while self.events.is_empty() {
            let bytes = self.incoming.read();
            if bytes.is_empty() {
                assert!(self.rest.is_empty() && self.event == StreamEvent::default(), "the stream ends in an event");
                return None;
            }
            // What was looked through before has no line end; a line may be very long.
            let mut from = self.rest.len();
            self.rest.extend(bytes);
            while let Some(end) = self.rest[from..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=from + end).collect();
                from = 0;
                let line = String::from_utf8(line).unwrap();
                self.line(line.trim_end_matches(['\r', '\n']));
            }
        }
        let event = self.events.pop_front();
        self.last_id = event.as_ref().and_then(|event| event.id.clone()).or(self.last_id.take());
        event
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if event != StreamEvent::default() {
                self.events.push_back(event);
            }
        } else if let Some(data) = line.strip_prefix("data:") {
            if !self.event.data.is_empty() {
                self.event.data.push('\n');
            }
            self.event.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        } else if let Some(id) = line.strip_prefix("id:") {
            self.event.id = Some(id.trim().to_owned());
        } else {
            // A sign of life comes after 15 s of silence; nothing here takes that long, and it must not renew the deadline.
            assert!(!line.starts_with(':'), "nothing came for so long that the proxy sent a comment");
            let ignored = ["retry:", "event: message"];
            assert!(ignored.iter().any(|start| line.starts_with(start)), "not a line of a stream: {line:?}");
        }
    }

    /// The next message, as it was spelled; `None` if there is no more.
    pub fn text(&mut self) -> Option<String> {
        if !self.is_stream() {
            let body = if self.body_taken { Vec::new() } else { self.body() };
            self.body_taken = true;
            return (!body.is_empty()).then(|| String::from_utf8(body).unwrap());
        }
        loop {
            // What primes a client for resumption has no data.
            let event = self.event()?;
            if !event.data.is_empty() {
                return Some(event.data);
            }
        }
    }

    /// The next message; `None` if there is no more.
    pub fn message(&mut self) -> Option<Value> {
        let text = self.text()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}")))
    }

    /// The next message, which must be there.
    pub fn next_message(&mut self) -> Value {
        self.message().expect("one more message")
    }

    /// The one message that it has.
    #[must_use]
    pub fn only(mut self) -> Value {
        let message = self.next_message();
        assert_eq!(self.text(), None, "a message too many after {message}");
        message
    }
}
