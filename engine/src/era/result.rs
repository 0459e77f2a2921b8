//! Answers from era to era: what a modern result has that a legacy one has not, and the errors that were renumbered.

use serde_json::value::RawValue;

use super::envelope::{Envelope, MODERN, text_of};
use crate::wire::object::{Object, may_mention, quote, unquote};
use crate::wire::rpc::{self, Kind, Message};

/// Errors of the modern era (specification 2026-07-28, basic/index, "Error Codes").
pub(crate) mod code {
    /// A header field is missing, malformed, or says something else than the body.
    pub(crate) const HEADER_MISMATCH: i32 = -32020;
    /// The server needs something of the client that the client has not declared.
    pub(crate) const MISSING_CAPABILITY: i32 = -32021;
    /// The revision is not spoken here.
    pub(crate) const UNSUPPORTED_VERSION: i32 = -32022;
    /// Legacy: there is no such resource.
    pub(crate) const NO_RESOURCE: i32 = -32002;
    /// Legacy: the user must visit a URL first.
    pub(crate) const URL_REQUIRED: i32 = -32042;
}

pub(crate) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
pub(crate) const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Requests whose results say how long they may be kept (specification 2026-07-28, server/utilities/caching).
const CACHEABLE: [&str; 6] =
    ["server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];

/// Requests that may be answered with questions (specification 2026-07-28, basic/patterns/mrtr).
pub(crate) fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// What of a legacy result is to be replaced by what, for it to be a modern one. What it says itself stays.
pub(crate) fn modern<'r>(result: &'r str, method: &str, server_info: Option<&str>) -> Option<(&'r str, String)> {
    if !result.starts_with('{') {
        return None;
    }
    let mut added = vec![("resultType", r#""complete""#.to_owned())];
    if CACHEABLE.contains(&method) {
        // What a server of another era meant by silence is unknown: nothing is kept, and nothing is shared.
        added.push(("ttlMs", "0".into()));
        added.push(("cacheScope", r#""private""#.into()));
    }
    if !may_mention(result, &["\"resultType\"", "\"ttlMs\"", "\"cacheScope\"", "\"_meta\""]) {
        // Nothing of it needs to be read: the new members go before the others.
        if let Some(info) = server_info {
            added.push(("_meta", format!(r#"{{"{SERVER_INFO}":{info}}}"#)));
        }
        let added: Vec<_> = added.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let comma = if result[1..].trim_start().starts_with('}') { "" } else { "," };
        return Some((&result[..1], format!("{{{}{comma}", added.join(","))));
    }
    let mut object = Object::parse(result)?;
    for (name, value) in added {
        // A legacy result may have a member of this name by chance; its words are its own, if they can be meant so.
        let fits = object.get(name).is_some_and(|old| match name {
            "ttlMs" => old.bytes().all(|b| b.is_ascii_digit()),
            "cacheScope" => matches!(old, r#""public""# | r#""private""#),
            _ => false,
        });
        if !fits {
            object.set(name, value);
        }
    }
    if let Some(info) = server_info {
        let meta = object.get("_meta").map(str::to_owned);
        let mut meta = meta.as_deref().map_or(Some(Object::new()), Object::parse).unwrap_or_default();
        meta.set(SERVER_INFO, info.to_owned());
        object.set("_meta", meta.to_string());
    }
    let new = object.to_string();
    Some((result, new))
}

/// A modern result as a legacy one.
pub(crate) fn legacy(result: &str) -> Option<String> {
    let names = ["\"resultType\"", "\"ttlMs\"", "\"cacheScope\"", SERVER_INFO, "\"structuredContent\"", SUBSCRIPTION];
    if !may_mention(result, &names) {
        return None;
    }
    let mut object = Object::parse(result)?;
    for name in ["resultType", "ttlMs", "cacheScope"] {
        object.remove(name);
    }
    if object.get("structuredContent").is_some_and(|content| !content.starts_with('{')) {
        // Up to 2025-11-25 it is an object; the same stands in `content` as text.
        object.remove("structuredContent");
    }
    if let Some(meta) = object.get("_meta").map(str::to_owned) {
        let mut meta = Object::parse(&meta).unwrap_or_default();
        if meta.remove(SERVER_INFO) | meta.remove(SUBSCRIPTION) {
            if meta.is_empty() {
                object.remove("_meta");
            } else {
                object.set("_meta", meta.to_string());
            }
        }
    }
    Some(object.to_string())
}

/// What `resultType` says.
pub(crate) fn kind(result: &RawValue) -> Option<String> {
    if !may_mention(result.get(), &["\"resultType\""]) {
        return None;
    }
    rpc::member(Some(result), "resultType").ok().flatten().map(RawValue::get).and_then(unquote)
}

/// The questions and the state of a result that is none yet.
#[derive(Debug)]
pub(crate) struct InputRequired {
    /// Raw names, and raw requests.
    pub(crate) requests: Vec<(String, String)>,
    /// A raw string.
    pub(crate) state: Option<String>,
}

/// Reads an `input_required` result; `None` if it is malformed.
pub(crate) fn input_required(result: &RawValue) -> Option<InputRequired> {
    let object = Object::parse(result.get())?;
    let requests = match object.get("inputRequests").filter(|requests| *requests != "null") {
        Some(requests) => Object::parse(requests)?.iter().map(|(n, r)| (n.to_owned(), r.to_owned())).collect(),
        None => Vec::new(),
    };
    let state = object.get("requestState").filter(|state| *state != "null").map(str::to_owned);
    if state.as_ref().is_some_and(|state| !state.starts_with('"')) || (requests.is_empty() && state.is_none()) {
        return None;
    }
    Some(InputRequired { requests, state })
}

/// A result that asks. The names and requests are raw, the state is text.
pub(crate) fn asking(id: &str, requests: &[(String, String)], state: &str, server_info: Option<&str>) -> Vec<u8> {
    let requests: Vec<_> = requests.iter().map(|(name, request)| format!("{name}:{request}")).collect();
    let meta = server_info.map(|info| format!(r#","_meta":{{"{SERVER_INFO}":{info}}}"#)).unwrap_or_default();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{}}},"requestState":{}{meta}}}}}"#,
        requests.join(","),
        quote(state),
    )
    .into_bytes()
}

/// The answer to `server/discover` for a server that said this to `initialize`.
pub(crate) fn discovered(id: &str, initialized: &RawValue) -> Vec<u8> {
    let object = Object::parse(initialized.get()).unwrap_or_default();
    let mut capabilities = object.get("capabilities").and_then(Object::parse).unwrap_or_default();
    // Core tasks are gone.
    capabilities.remove("tasks");
    let instructions = object.get("instructions").filter(|text| text.starts_with('"'));
    let instructions = instructions.map(|text| format!(r#","instructions":{text}"#)).unwrap_or_default();
    let info = object.get("serverInfo").filter(|info| info.starts_with('{'));
    let meta = info.map(|info| format!(r#","_meta":{{"{SERVER_INFO}":{info}}}"#)).unwrap_or_default();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","supportedVersions":["{MODERN}"],"capabilities":{capabilities}{instructions},"ttlMs":0,"cacheScope":"private"{meta}}}}}"#
    )
    .into_bytes()
}

/// The answer to `initialize` for a server that said this to `server/discover`.
pub(crate) fn initialized(discovered: &RawValue, version: &str) -> String {
    let object = Object::parse(discovered.get()).unwrap_or_default();
    let mut capabilities = object.get("capabilities").and_then(Object::parse).unwrap_or_default();
    capabilities.remove("extensions");
    let info = object.get("_meta").and_then(Object::parse);
    let info = info.as_ref().and_then(|meta| meta.get(SERVER_INFO)).filter(|info| info.starts_with('{'));
    let info = info.unwrap_or(r#"{"name":"unknown","version":"0"}"#);
    let instructions = object.get("instructions").filter(|text| text.starts_with('"'));
    let instructions = instructions.map(|text| format!(r#","instructions":{text}"#)).unwrap_or_default();
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":{},"capabilities":{capabilities},"serverInfo":{info}{instructions}}}}}"#,
        quote(version)
    )
}

/// The code of an error.
pub(crate) fn code_of(error: &RawValue) -> Option<i32> {
    rpc::member(Some(error), "code").ok().flatten()?.get().parse().ok()
}

/// Whether an error could only come from a server that speaks the modern revision.
pub(crate) fn is_modern_error(error: &RawValue) -> bool {
    code_of(error).is_some_and(|code| (code::UNSUPPORTED_VERSION..=code::HEADER_MISMATCH).contains(&code))
}

/// Whether a message is the answer of a modern server to `server/discover`.
pub(crate) fn is_discovery(message: &Message<'_>) -> bool {
    match &message.kind {
        Kind::Response { outcome: Ok(result), .. } => supports(result, MODERN),
        _ => false,
    }
}

/// Whether the versions in a discovery have this one.
fn supports(result: &RawValue, version: &str) -> bool {
    let versions = rpc::member(Some(result), "supportedVersions").ok().flatten();
    let versions = versions.and_then(|list| serde_json::from_str::<Vec<String>>(list.get()).ok());
    versions.is_some_and(|list| list.iter().any(|one| one == version))
}

/// The status with which a modern client hears an error, as far as nothing was said before it (specification 2026-07-28,
/// basic/transports/streamable-http).
pub(crate) const fn status_of(code: Option<i32>) -> u16 {
    match code {
        Some(rpc::code::METHOD_NOT_FOUND) => 404,
        Some(code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION) => 400,
        _ => 200,
    }
}

/// A legacy error as a modern one; `None`: it stays as it is. `uri` is the raw URI of the request.
pub(crate) fn modern_error(error: &RawValue, uri: Option<&str>) -> Option<String> {
    if code_of(error)? != code::NO_RESOURCE {
        return None;
    }
    let mut object = Object::parse(error.get())?;
    object.set("code", rpc::code::INVALID_PARAMS.to_string());
    let data = object.get("data").map(str::to_owned);
    let mut data = data.as_deref().and_then(Object::parse).unwrap_or_default();
    if let (Some(uri), None) = (uri, data.get("uri")) {
        data.set("uri", uri.to_owned());
        object.set("data", data.to_string());
    }
    Some(object.to_string())
}

/// A modern error as a legacy one; `None`: it stays as it is.
pub(crate) fn legacy_error(error: &RawValue, method: &str) -> Option<String> {
    let code = code_of(error)?;
    let mut object = Object::parse(error.get())?;
    if method == "resources/read" && code == rpc::code::INVALID_PARAMS {
        let data = object.get("data").and_then(Object::parse);
        data.as_ref().and_then(|data| data.get("uri"))?;
        object.set("code", code::NO_RESOURCE.to_string());
        return Some(object.to_string());
    }
    if (code::UNSUPPORTED_VERSION..=code::HEADER_MISMATCH).contains(&code) {
        // These numbers mean nothing to a legacy client; the text does.
        object.set("code", rpc::code::INTERNAL.to_string());
        return Some(object.to_string());
    }
    None
}

/// The URLs that a legacy error wants visited, as requests: raw names and raw requests.
pub(crate) fn url_questions(error: &RawValue) -> Option<Vec<(String, String)>> {
    if code_of(error)? != code::URL_REQUIRED {
        return None;
    }
    let data = rpc::member(Some(error), "data").ok().flatten();
    let list = rpc::member(data, "elicitations").ok().flatten()?;
    let list: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    let questions = list.iter().enumerate().filter_map(|(n, params)| {
        let mut params = Object::parse(params.get())?;
        params.remove("elicitationId");
        Some((format!("\"url_{}\"", n + 1), format!(r#"{{"method":"elicitation/create","params":{params}}}"#)))
    });
    let questions: Vec<_> = questions.collect();
    (!questions.is_empty()).then_some(questions)
}

/// What a client would have to declare to be asked this, and has not: raw `requiredCapabilities`, or `Some(None)` if it has
/// all it needs. `None`: no client can be asked this.
pub(crate) fn missing(client: &Envelope, method: &str, params: Option<&RawValue>) -> Option<Option<&'static str>> {
    let by_url = text_of(params, "mode").as_deref() == Some("url");
    let (has, needed) = match method {
        "roots/list" => (client.has(&["roots"]), r#"{"roots":{}}"#),
        "sampling/createMessage" => (client.has(&["sampling"]), r#"{"sampling":{}}"#),
        "elicitation/create" if by_url => (client.has(&["elicitation", "url"]), r#"{"elicitation":{"url":{}}}"#),
        "elicitation/create" => {
            // To say nothing of modes is to say forms (specification, client/elicitation, "Capabilities").
            let forms = client.has(&["elicitation", "form"]) || !client.has(&["elicitation", "url"]);
            (client.has(&["elicitation"]) && forms, r#"{"elicitation":{"form":{}}}"#)
        }
        _ => return None,
    };
    Some((!has).then_some(needed))
}

/// The error for a revision that is not spoken here.
pub(crate) fn unsupported_version(id: &str, version: &str) -> Vec<u8> {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":"Unsupported protocol version","data":{{"supported":["{MODERN}"],"requested":{}}}}}}}"#,
        code::UNSUPPORTED_VERSION,
        quote(version)
    )
    .into_bytes()
}

/// The error for a client that has not declared what its request needs.
pub(crate) fn missing_capability(id: &str, needed: &str) -> Vec<u8> {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":"Missing required client capability","data":{{"requiredCapabilities":{needed}}}}}}}"#,
        code::MISSING_CAPABILITY
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn applied(result: &str, method: &str, info: Option<&str>) -> String {
        let (part, new) = modern(result, method, info).unwrap();
        String::from_utf8(rpc::splice(result, &mut [(part, &new)])).unwrap()
    }

    #[test]
    fn results() {
        let info = Some(r#"{"name":"s","version":"1"}"#);
        for (result, method, expected) in [
            (
                "{}",
                "tools/call",
                r#"{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}"#,
            ),
            (
                r#"{"tools":[]}"#,
                "tools/list",
                r#"{"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}},"tools":[]}"#,
            ),
            (
                r#"{"_meta":{"a":1},"resultType":"mine","ttlMs":5}"#,
                "resources/read",
                r#"{"_meta":{"a":1,"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}},"resultType":"complete","ttlMs":5,"cacheScope":"private"}"#,
            ),
        ] {
            assert_eq!(applied(result, method, info), expected);
        }
        assert_eq!(modern("[]", "tools/call", info), None);
        let back = applied(r#"{"tools":[ 1 ]}"#, "tools/list", info);
        assert_eq!(legacy(&back).unwrap(), r#"{"tools":[ 1 ]}"#);
        assert_eq!(legacy(r#"{"content":[]}"#), None);
        assert_eq!(legacy(r#"{"structuredContent":[1],"content":[]}"#).unwrap(), r#"{"content":[]}"#);
        assert_eq!(
            legacy(r#"{"structuredContent":{"a":1},"_meta":{"b":2}}"#).unwrap(),
            r#"{"structuredContent":{"a":1},"_meta":{"b":2}}"#
        );
    }

    #[test]
    fn introductions() {
        let legacy = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"tasks":{}},"serverInfo":{"name":"s","version":"1"},"instructions":"x\"y"}"#;
        let modern = String::from_utf8(discovered("\"i\"", raw(legacy))).unwrap();
        let message = rpc::parse_str(&modern).unwrap();
        assert!(is_discovery(&message));
        let Kind::Response { outcome: Ok(result), .. } = message.kind else { panic!() };
        let back = initialized(result, "2025-06-18");
        let Kind::Response { outcome: Ok(result), .. } = rpc::parse_str(&back).unwrap().kind else { panic!() };
        assert_eq!(
            result.get(),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"},"instructions":"x\"y"}"#
        );
    }

    #[test]
    fn errors() {
        let gone = raw(r#"{"code":-32002,"message":"gone"}"#);
        let modern = modern_error(gone, Some("\"a:b\"")).unwrap();
        assert_eq!(modern, r#"{"code":-32602,"message":"gone","data":{"uri":"a:b"}}"#);
        assert_eq!(
            legacy_error(raw(&modern), "resources/read").unwrap(),
            r#"{"code":-32002,"message":"gone","data":{"uri":"a:b"}}"#
        );
        assert_eq!(legacy_error(raw(&modern), "tools/call"), None);
        assert!(legacy_error(raw(r#"{"code":-32021,"message":""}"#), "tools/call").unwrap().contains("-32603"));
        let url = raw(
            r#"{"code":-32042,"message":"","data":{"elicitations":[{"mode":"url","url":"https://a","elicitationId":"e","message":"m"}]}}"#,
        );
        let questions = url_questions(url).unwrap();
        assert_eq!(
            questions[0].1,
            r#"{"method":"elicitation/create","params":{"mode":"url","url":"https://a","message":"m"}}"#
        );
        assert!(is_modern_error(raw(r#"{"code":-32020}"#)) && !is_modern_error(raw(r#"{"code":-32601}"#)));
    }

    #[test]
    fn questions() {
        let asked = raw(
            r#"{"resultType":"input_required","inputRequests":{"a\"b":{"method":"roots/list"}},"requestState":"s"}"#,
        );
        let found = input_required(asked).unwrap();
        assert_eq!(found.requests, [(r#""a\"b""#.to_owned(), r#"{"method":"roots/list"}"#.to_owned())]);
        assert_eq!(found.state.as_deref(), Some("\"s\""));
        for bad in [r#"{"resultType":"input_required"}"#, r#"{"inputRequests":[]}"#, r#"{"requestState":5}"#] {
            assert!(input_required(raw(bad)).is_none(), "{bad}");
        }
    }
}
