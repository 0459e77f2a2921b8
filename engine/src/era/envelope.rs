//! What a modern request says about itself in `params._meta`, which a legacy client said once in `initialize`
//! (specification 2026-07-28, basic/index, "`_meta`").

use serde_json::value::RawValue;

use crate::wire::object::{Object, quote, unquote};
use crate::wire::rpc::{self, Kind, Message};

/// The modern revision.
pub(crate) const MODERN: &str = "2026-07-28";
/// What a server that speaks no other language is asked for.
pub(crate) const LATEST_LEGACY: &str = "2025-11-25";

pub(crate) const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// All that is said of the client.
const KEYS: [&str; 4] = [VERSION, CAPABILITIES, CLIENT_INFO, LOG_LEVEL];

/// Log levels by severity (specification 2025-11-25, server/utilities/logging).
pub(crate) const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// What a request says about its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) version: String,
    /// A raw object.
    pub(crate) capabilities: String,
    /// A raw object.
    pub(crate) client_info: Option<String>,
    /// The least severe log level it wants, as an index into [`LEVELS`]; `None`: no log messages at all.
    pub(crate) level: Option<usize>,
}

/// Whether parameters claim to be modern. What comes twice claims it too, and is refused by [`read`].
pub(crate) fn claims(params: Option<&RawValue>) -> bool {
    // Requests of legacy clients have none of this; a search is cheaper than a parse.
    if !params.is_some_and(|params| crate::wire::object::may_mention(params.get(), &[VERSION])) {
        return false;
    }
    match rpc::member(params, "_meta") {
        Ok(meta) => rpc::member(meta, VERSION).map_or(true, |version| version.is_some()),
        Err(_) => true,
    }
}

/// Reads the envelope of a request.
///
/// # Errors
///
/// Says what is missing or malformed.
pub(crate) fn read(params: Option<&RawValue>) -> Result<Envelope, String> {
    let twice = |_| "a member of the parameters comes twice".to_owned();
    let meta = rpc::member(params, "_meta").map_err(twice)?.ok_or("params._meta is missing")?;
    if !meta.get().starts_with('{') {
        return Err("params._meta must be an object".into());
    }
    let found = rpc::members(meta.get(), KEYS).map_err(|_| "a member of params._meta comes twice")?;
    let [version, capabilities, client_info, level] = found;
    let missing = |key: &str| format!("params._meta[\"{key}\"] is missing");
    let version = version.ok_or_else(|| missing(VERSION))?;
    let version = rpc::string(version).ok_or_else(|| format!("params._meta[\"{VERSION}\"] must be a string"))?;
    let capabilities = capabilities.ok_or_else(|| missing(CAPABILITIES))?.get();
    let object = |key: &str| format!("params._meta[\"{key}\"] must be an object");
    let parsed = Object::parse(capabilities).ok_or_else(|| object(CAPABILITIES))?;
    if parsed.iter().any(|(_, value)| !value.starts_with('{')) {
        return Err(format!("the members of params._meta[\"{CAPABILITIES}\"] must be objects"));
    }
    let client_info = client_info.map(RawValue::get).filter(|info| *info != "null");
    if client_info.is_some_and(|info| !info.starts_with('{')) {
        return Err(object(CLIENT_INFO));
    }
    let level = match level {
        None => None,
        Some(level) => Some(
            rpc::string(level)
                .and_then(|level| LEVELS.iter().position(|one| *one == level))
                .ok_or_else(|| format!("params._meta[\"{LOG_LEVEL}\"] is none of {}", LEVELS.join(", ")))?,
        ),
    };
    Ok(Envelope {
        version: version.into_owned(),
        capabilities: capabilities.to_owned(),
        client_info: client_info.map(str::to_owned),
        level,
    })
}

impl Envelope {
    /// Our own: nothing can be asked of us.
    pub(crate) fn own() -> Self {
        let client_info = format!(r#"{{"name":"mcp-proxy","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        Envelope { version: MODERN.into(), capabilities: "{}".into(), client_info: Some(client_info), level: None }
    }

    /// The envelope of a client that introduced itself by `initialize`.
    pub(crate) fn of_initialize(params: Option<&RawValue>) -> Self {
        let member = |name| rpc::member(params, name).ok().flatten().map(RawValue::get).filter(|v| v.starts_with('{'));
        let mut capabilities = member("capabilities").and_then(Object::parse).unwrap_or_default();
        // Core tasks are gone, and roots have no notifications any more.
        capabilities.remove("tasks");
        if let Some(roots) = capabilities.get("roots").map(str::to_owned).as_deref().and_then(Object::parse) {
            let mut roots = roots;
            roots.remove("listChanged");
            let roots = roots.to_string();
            capabilities.set("roots", roots);
        }
        Envelope {
            version: MODERN.into(),
            capabilities: capabilities.to_string(),
            client_info: member("clientInfo").map(str::to_owned),
            level: None,
        }
    }

    /// The capabilities with which a legacy server is told of such a client. One that can be asked nothing is introduced as
    /// one that can be asked everything: the server's question is then answered with the error that says what the client
    /// lacks, as the modern revision has it, and not with whatever the server makes of that.
    pub(crate) fn legacy_capabilities(&self) -> String {
        let all = Object::parse(&self.capabilities).unwrap_or_default();
        let mut known = Object::new();
        for name in ["experimental", "roots", "sampling", "elicitation"] {
            if let Some(value) = all.get(name) {
                known.set(name, value.to_owned());
            }
        }
        if !self.can_be_asked() {
            // But not for roots: servers ask for those of their own accord, whatever they were called for.
            known.set("sampling", "{}");
            known.set("elicitation", r#"{"form":{},"url":{}}"#);
        }
        known.to_string()
    }

    /// Whether the client can be asked for something: a server that can ask can tell clients apart.
    pub(crate) fn can_be_asked(&self) -> bool {
        ["roots", "sampling", "elicitation"].iter().any(|name| self.has(&[name]))
    }

    /// Whether a capability is declared, by its path.
    pub(crate) fn has(&self, path: &[&str]) -> bool {
        let mut value = self.capabilities.clone();
        for name in path {
            match Object::parse(&value).and_then(|object| object.get(name).map(str::to_owned)) {
                Some(inner) => value = inner,
                None => return false,
            }
        }
        true
    }

    /// The `initialize` with which a legacy server is told of such a client.
    pub(crate) fn initialize(&self) -> String {
        let own = Self::own().client_info.unwrap_or_default();
        format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{LATEST_LEGACY}","capabilities":{},"clientInfo":{}}}}}"#,
            self.legacy_capabilities(),
            self.client_info.as_deref().filter(|info| is_info(info)).unwrap_or(&own),
        )
    }

    /// The members of `_meta`, in a request of ours.
    fn write(&self, meta: &mut Object<'_>) {
        meta.set(VERSION, quote(&self.version));
        meta.set(CAPABILITIES, self.capabilities.clone());
        match &self.client_info {
            Some(info) => meta.set(CLIENT_INFO, info.clone()),
            None => drop(meta.remove(CLIENT_INFO)),
        }
        match self.level {
            Some(level) => meta.set(LOG_LEVEL, quote(LEVELS[level])),
            None => drop(meta.remove(LOG_LEVEL)),
        }
    }

    /// A request of our own.
    pub(crate) fn request(&self, id: u64, method: &str, params: &str) -> String {
        let mut params = Object::parse(params).unwrap_or_default();
        let mut meta = Object::new();
        self.write(&mut meta);
        params.set("_meta", meta.to_string());
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
    }

    /// A legacy request as a modern one. `None` if its parameters are no object.
    pub(crate) fn enclose(&self, message: &Message<'_>) -> Option<String> {
        edit_params(message, |params| {
            let meta = params.get("_meta").map(str::to_owned);
            let mut meta = meta.as_deref().map_or(Some(Object::new()), Object::parse)?;
            self.write(&mut meta);
            params.set("_meta", meta.to_string());
            Some(())
        })
    }
}

/// Whether this can stand for a `clientInfo` or `serverInfo`: an object with a name and a version.
fn is_info(info: &str) -> bool {
    let text = |object: &Object<'_>, name| object.get(name).is_some_and(|value| value.starts_with('"'));
    Object::parse(info).is_some_and(|object| text(&object, "name") && text(&object, "version"))
}

/// A modern request as a legacy one: without what is said of the client, and without the answers to earlier questions.
/// `None` if its parameters are no object.
pub(crate) fn strip(message: &Message<'_>) -> Option<String> {
    edit_params(message, |params| {
        params.remove("inputResponses");
        params.remove("requestState");
        let meta = params.get("_meta").map(str::to_owned);
        let mut meta = meta.as_deref().map_or(Some(Object::new()), Object::parse)?;
        for key in KEYS {
            meta.remove(key);
        }
        if meta.is_empty() {
            params.remove("_meta");
        } else {
            params.set("_meta", meta.to_string());
        }
        Some(())
    })
}

/// A request once more, with the answers to the questions that came back instead of a result. Those of an earlier round
/// are gone: each round stands for itself (specification 2026-07-28, basic/patterns/mrtr).
pub(crate) fn retry(message: &Message<'_>, answers: Option<&str>, state: Option<&str>) -> Option<String> {
    edit_params(message, |params| {
        for (name, value) in [("inputResponses", answers), ("requestState", state)] {
            match value {
                Some(value) => params.set(name, value.to_owned()),
                None => drop(params.remove(name)),
            }
        }
        Some(())
    })
}

/// Copies a request with other parameters; the rest of it stays as it is.
fn edit_params(message: &Message<'_>, edit: impl FnOnce(&mut Object<'_>) -> Option<()>) -> Option<String> {
    let Kind::Request { params, .. } = &message.kind else { return None };
    let mut new = Object::parse_or_new(*params)?;
    edit(&mut new)?;
    let new = new.to_string();
    let bytes = match params {
        Some(params) => rpc::splice(message.raw, &mut [(params.get(), &new)]),
        None => {
            let mut whole = Object::parse(message.raw)?;
            whole.set("params", new);
            whole.to_string().into_bytes()
        }
    };
    String::from_utf8(bytes).ok()
}

/// The raw value of a member of the parameters, if it is a string.
pub(crate) fn text_of(params: Option<&RawValue>, name: &str) -> Option<String> {
    rpc::member(params, name).ok().flatten().map(RawValue::get).and_then(unquote)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Option<&RawValue> {
        Some(serde_json::from_str(text).unwrap())
    }

    const FULL: &str = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots":{},"elicitation":{"url":{}},"extensions":{"e":{}}},"io.modelcontextprotocol/clientInfo":{"name":"n","version":"v"},"io.modelcontextprotocol/logLevel":"info","progressToken":7,"traceparent":"t"},"inputResponses":{},"requestState":"s"}}"#;

    #[test]
    fn reading() {
        let message = rpc::parse_str(FULL).unwrap();
        let Kind::Request { params, .. } = &message.kind else { panic!() };
        assert!(claims(*params));
        let envelope = read(*params).unwrap();
        assert_eq!((envelope.version.as_str(), envelope.level), (MODERN, Some(1)));
        assert!(envelope.can_be_asked() && envelope.has(&["elicitation", "url"]) && !envelope.has(&["sampling"]));
        assert_eq!(envelope.legacy_capabilities(), r#"{"roots":{},"elicitation":{"url":{}}}"#);
        assert!(envelope.initialize().contains(r#""clientInfo":{"name":"n","version":"v"}"#));
    }

    #[test]
    fn what_is_refused() {
        let version = format!(r#""{VERSION}":"{MODERN}""#);
        let capabilities = format!(r#""{CAPABILITIES}":{{}}"#);
        for (text, expected) in [
            ("{}".to_owned(), "params._meta is missing"),
            (r#"{"_meta":5}"#.to_owned(), "must be an object"),
            (format!(r#"{{"_meta":{{{capabilities}}}}}"#), "protocolVersion\"] is missing"),
            (format!(r#"{{"_meta":{{{version}}}}}"#), "clientCapabilities\"] is missing"),
            (format!(r#"{{"_meta":{{"{VERSION}":1,{capabilities}}}}}"#), "must be a string"),
            (format!(r#"{{"_meta":{{{version},"{CAPABILITIES}":[]}}}}"#), "must be an object"),
            (format!(r#"{{"_meta":{{{version},"{CAPABILITIES}":null}}}}"#), "must be an object"),
            (format!(r#"{{"_meta":{{{version},{version},{capabilities}}}}}"#), "twice"),
            (format!(r#"{{"_meta":{{{version},{capabilities},"{LOG_LEVEL}":"loud"}}}}"#), "none of"),
            (format!(r#"{{"_meta":{{{version},{capabilities},"{CLIENT_INFO}":"me"}}}}"#), "must be an object"),
        ] {
            let error = read(params(&text)).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(!claims(params(r#"{"_meta":{"x":"io.modelcontextprotocol/protocolVersion"}}"#)));
        assert!(claims(params(r#"{"_meta":{"io.modelcontextprotocol/protocol\u0056ersion":1}}"#)));
        assert!(claims(params(&format!(r#"{{"_meta":{{"{VERSION}":1}},"_meta":{{}}}}"#))));
    }

    #[test]
    fn from_era_to_era() {
        let message = rpc::parse_str(FULL).unwrap();
        let legacy = strip(&message).unwrap();
        assert_eq!(
            legacy,
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","_meta":{"progressToken":7,"traceparent":"t"}}}"#
        );
        let client = params(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tasks":{},"roots":{"listChanged":true},"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}"#,
        );
        let envelope = Envelope::of_initialize(client);
        assert_eq!(envelope.capabilities, r#"{"roots":{},"elicitation":{}}"#);
        let modern = envelope.enclose(&rpc::parse_str(&legacy).unwrap()).unwrap();
        let parsed = rpc::parse_str(&modern).unwrap();
        let Kind::Request { params, .. } = &parsed.kind else { panic!() };
        assert_eq!(read(*params).unwrap(), envelope);
        let bare = rpc::parse_str(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).unwrap();
        let modern = envelope.enclose(&bare).unwrap();
        assert!(
            modern.starts_with(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io."#),
            "{modern}"
        );
        assert!(
            envelope
                .enclose(&rpc::parse_str(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#).unwrap())
                .is_none()
        );
    }

    #[test]
    fn again_with_answers() {
        let message =
            rpc::parse_str(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"requestState":"old"}}"#).unwrap();
        let again = retry(&message, Some(r#"{"k":{}}"#), None).unwrap();
        assert_eq!(again, r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"inputResponses":{"k":{}}}}"#);
    }
}
