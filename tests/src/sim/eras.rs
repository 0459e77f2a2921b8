//! What stories say of clients and servers of revision 2026-07-28, the modern ones, beside those of the revisions before it.

use mcp_proxy_engine::{ChildId, Config, ExchangeId, HttpRequest, Secret};
use serde_json::Value;

use super::story::{Client, Line, config, secs};
use super::world::World;

/// The defaults for stories of both eras: questions can be put to clients of revision 2026-07-28, and no process runs before
/// the first client comes.
#[must_use]
pub fn eras() -> Config {
    let mut config = config();
    config.servers[0].prestart = false;
    config.state_key = Some(Secret::new([7; 32]));
    config.started = Some(secs(1_800_000_000));
    config
}

/// The revision whose requests say themselves who sends them.
pub const MODERN: &str = "2026-07-28";

/// A client of that revision.
#[derive(Clone, Debug)]
pub struct Modern {
    /// Its path, and header fields that stand in place of the usual ones.
    pub client: Client,
    /// Its `clientCapabilities`.
    pub capabilities: String,
    /// More members of `_meta`.
    pub meta: String,
}

impl Modern {
    /// A client with these capabilities.
    #[must_use]
    pub fn new(capabilities: &str) -> Self {
        let client = Client { revision: Some(MODERN.into()), ..Client::new() };
        Modern { client, capabilities: capabilities.into(), meta: String::new() }
    }

    /// The same, with one more member of `_meta`.
    #[must_use]
    pub fn meta(mut self, name: &str, value: &str) -> Self {
        self.meta += &format!(r#","{name}":{value}"#);
        self
    }

    /// The same, with one more header field, in place of the usual one of that name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.client = self.client.with(name, value);
        self
    }

    /// What it says. `params` are the members beside `_meta`.
    #[must_use]
    pub fn says(&self, id: &str, method: &str, params: &str) -> String {
        let (comma, capabilities, meta) = (if params.is_empty() { "" } else { "," }, &self.capabilities, &self.meta);
        let info = r#""io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}"#;
        let own = format!(
            r#""io.modelcontextprotocol/protocolVersion":"{MODERN}",{info},"io.modelcontextprotocol/clientCapabilities":{capabilities}"#
        );
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{comma}"_meta":{{{own}{meta}}}}}}}"#
        )
    }

    /// The request it sends, with the header fields that mirror what it says.
    #[must_use]
    pub fn request(&self, id: &str, method: &str, params: &str) -> HttpRequest {
        let said: Value = serde_json::from_str(&format!("{{{params}}}")).expect("members");
        let mut client = self.client.clone();
        let mut mirror = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value.filter(|_| !self.client.fields.iter().any(|(n, _)| *n == name)) {
                client.fields.push((name, value.to_owned()));
            }
        };
        mirror("mcp-method", Some(method));
        if matches!(method, "tools/call" | "prompts/get" | "resources/read") {
            mirror("mcp-name", said["name"].as_str().or(said["uri"].as_str()));
        }
        client.request("POST", &self.says(id, method, params))
    }
}

impl World {
    /// A client of revision 2026-07-28 asks something; `params` are the members beside `_meta`.
    pub fn ask(&mut self, client: &Modern, id: &str, method: &str, params: &str) -> ExchangeId {
        self.send(client.request(id, method, params))
    }

    /// The child that has a line of this method to read, and the line.
    pub fn expect_reader(&mut self, method: &str) -> (ChildId, Line) {
        let ids: Vec<_> = self.children.iter().filter(|(_, c)| c.lives()).map(|(id, _)| *id).collect();
        let mut reads = |id: &ChildId| self.peek_line(*id).is_some_and(|line| line.method() == method);
        let child = ids.into_iter().find(&mut reads).unwrap_or_else(|| panic!("no child has {method} to read"));
        (child, self.expect_line(child))
    }

    /// A child that is asked for its era says that it is a modern one.
    pub fn discovered(&mut self, capabilities: &str) -> ChildId {
        let (child, line) = self.expect_reader("server/discover");
        self.answer(child, &line, &discovery(capabilities));
        child
    }

    /// A child that is asked for its era knows of none, and is introduced to its client in the old way.
    pub fn introduced(&mut self, capabilities: &str) -> ChildId {
        let (child, line) = self.expect_reader("server/discover");
        self.refuse(child, &line, -32601);
        self.greeted(capabilities);
        child
    }

    /// A child is introduced to a client of revision 2026-07-28 in the old way.
    pub fn greeted(&mut self, capabilities: &str) -> ChildId {
        let (child, line) = self.expect_reader("initialize");
        let info = r#""serverInfo":{"name":"s","version":"1"},"instructions":"x""#;
        self.answer(
            child,
            &line,
            &format!(r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities},{info}}}"#),
        );
        self.expect_method(child, "notifications/initialized");
        child
    }

    /// A child is asked for its tools by the proxy itself, which wants to know what header fields their calls must have.
    pub fn listed(&mut self, tools: &str) -> ChildId {
        let (child, line) = self.expect_reader("tools/list");
        self.answer(child, &line, &format!(r#"{{"tools":{tools}}}"#));
        child
    }

    /// A child answers a request with an error of this code.
    pub fn refuse(&mut self, child: ChildId, request: &Line, code: i32) {
        let error = format!(r#"{{"code":{code},"message":"no"}}"#);
        self.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, request.id()));
    }
}

/// What a modern server says of itself when it is asked for its era.
#[must_use]
pub fn discovery(capabilities: &str) -> String {
    let info = r#"{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
    format!(
        r#"{{"resultType":"complete","supportedVersions":["{MODERN}"],"capabilities":{capabilities},"instructions":"x","ttlMs":0,"cacheScope":"public","_meta":{info}}}"#
    )
}

/// A message, to look into.
#[must_use]
pub fn json(message: &str) -> Value {
    serde_json::from_str(message).expect("a message is JSON")
}

/// What a client of that era hears of a complete result, of a server that was introduced in the old way.
#[must_use]
pub fn complete(id: &str, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    let info = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
    super::result(id, &format!(r#"{{"resultType":"complete",{info}{comma}{members}}}"#))
}

/// A list changed: `tools`, `prompts` or `resources`.
#[must_use]
pub fn changed(list: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#)
}

/// A resource changed.
#[must_use]
pub fn updated(uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#)
}

/// The same message with the mark of a subscription.
#[must_use]
pub fn on(id: &str, message: &str) -> String {
    let mark = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
    match (message.strip_suffix("}}"), message.strip_suffix('}')) {
        (Some(rest), _) => format!("{rest},{mark}}}}}"),
        (None, Some(rest)) => format!(r#"{rest},"params":{{{mark}}}}}"#),
        (None, None) => panic!("no message: {message}"),
    }
}

/// The first message of a subscription: what of it is honoured.
#[must_use]
pub fn acknowledged(id: &str, honoured: &str) -> String {
    let params = format!(r#"{{"notifications":{honoured}}}"#);
    on(id, &format!(r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{params}}}"#))
}

/// The id and the code of an error.
#[must_use]
pub fn error_of(message: &str) -> (Value, Value) {
    let said = json(message);
    (said["id"].clone(), said["error"]["code"].clone())
}
