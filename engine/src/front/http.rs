//! The rules of HTTP that come before any session: who may talk to us, what is asked for, in which form.
//!
//! Pure functions of the request and the configuration. Sources: specification, basic/transports, "Streamable HTTP";
//! RFC 9110 for `Accept` and `Content-Type`; RFC 9112 for the request target.

use std::borrow::Cow;

use crate::config::{Access, Server, UrlEnv};
use crate::era::envelope::MODERN;
use crate::io::{Headers, HttpRequest, Secret};
use crate::wire::rpc::code;

/// The revisions whose Streamable HTTP we serve, oldest first, and those that only an `initialize` may name.
pub(crate) const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The only revision with batches; also what a request without `MCP-Protocol-Version` is taken for (specification
/// 2025-06-18, basic/transports, "Protocol Version Header").
pub(crate) const BATCH_REVISION: &str = "2025-03-26";

/// From this revision on, a stream begins with an event that has an id and no data.
pub(crate) const PRIMING_REVISION: &str = "2025-11-25";

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: i32,
    pub(crate) text: Cow<'static, str>,
    /// The methods to try instead, for a 405.
    pub(crate) allow: Option<&'static str>,
    /// `data` of the error, raw.
    pub(crate) data: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: i32, text: impl Into<Cow<'static, str>>) -> Self {
        Refusal { status, code, text: text.into(), allow: None, data: None }
    }
}

/// A refusal.
pub(crate) fn refuse<T>(status: u16, code: i32, text: impl Into<Cow<'static, str>>) -> Result<T, Refusal> {
    Err(Refusal::new(status, code, text))
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The Streamable HTTP endpoint of a server.
    Mcp(usize),
    /// The event stream of a server (HTTP+SSE); true: it was reached by the server's name.
    Sse(usize, bool),
    /// Where clients of such a stream post their messages.
    Messages(usize),
    /// What the proxy says of itself.
    Status,
    /// Whether it is alive.
    Healthz,
    /// Whether its servers are.
    Readyz,
}

/// The methods of an MCP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Post,
    Get,
    Delete,
}

/// Checks `Host` and `Origin`: a web page must not reach us through its visitor's browser.
pub(crate) fn check_access(access: &Access, request: &HttpRequest) -> Result<(), Refusal> {
    let listed = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(value));
    let authority = match absolute(&request.target) {
        Some((authority, _)) => Some(authority),
        None => request.headers.get("host"),
    };
    if !access.public || !access.allowed_hosts.is_empty() {
        let host = authority.map(host_name).unwrap_or_default();
        if !is_loopback(host) && !listed(&access.allowed_hosts, host) {
            return refuse(403, code::REFUSED, "this Host is not allowed; --allow-host NAME allows it");
        }
    }
    let mut origins = request.headers.get_all("origin");
    if let Some(origin) = origins.next() {
        let host = origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
        let local = host.is_some_and(|(_, authority)| is_loopback(host_name(authority)));
        if origins.next().is_some() || !(local || listed(&access.allowed_origins, origin)) {
            return refuse(403, code::REFUSED, "this Origin is not allowed; --allow-origin ORIGIN allows it");
        }
    }
    Ok(())
}

/// Checks the key, if one is needed: `Authorization: Bearer`, `X-API-Key`, or `auth_key` in the query.
/// The answer says which key it was, from 1; 0 if none is needed.
pub(crate) fn check_key(access: &Access, request: &HttpRequest) -> Result<usize, Refusal> {
    if access.auth_tokens.is_empty() {
        return Ok(0);
    }
    let bearer = request.headers.get_all("authorization").filter_map(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let keys = request.headers.get_all("x-api-key").map(str::to_owned);
    let query = query_pairs(&request.target).filter(|(name, _)| name == "auth_key").map(|(_, value)| value);
    let mut known = None;
    for given in bearer.chain(keys).chain(query) {
        for (n, token) in access.auth_tokens.iter().enumerate() {
            if same_secret(token.reveal(), &given) {
                known = Some(n + 1);
            }
        }
    }
    if let Some(which) = known {
        return Ok(which);
    }
    let text = "a key is needed: Authorization: Bearer KEY, X-API-Key: KEY, or ?auth_key=KEY";
    refuse(401, code::REFUSED, text)
}

/// The key of a query, as it must stand in another one.
pub(crate) fn key_of_query(target: &str) -> String {
    let query = target.split_once('?').map_or("", |(_, query)| query).split('#').next().unwrap_or_default();
    let key = query.split('&').find(|pair| pair.starts_with("auth_key="));
    // Only what may stand in a URL, and in a line of an event.
    let key = key.filter(|key| key.bytes().all(|b| b.is_ascii_graphic()));
    key.map(|key| format!("&{key}")).unwrap_or_default()
}

/// Compares without telling by its time where the two differ.
fn same_secret(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut differ = one.len() ^ other.len();
    for (n, byte) in one.iter().enumerate() {
        differ |= usize::from(byte ^ other.get(n).copied().unwrap_or(!byte));
    }
    std::hint::black_box(differ) == 0
}

/// Adds what lets a page of an allowed origin read the response (WHATWG Fetch, "CORS protocol").
pub(crate) fn add_cors(access: &Access, origin: Option<&str>, headers: &mut Headers) {
    let Some(origin) = origin.filter(|_| !access.cors_origins.is_empty()) else { return };
    let all = access.cors_origins.iter().any(|one| one == "*");
    if !all && !access.cors_origins.iter().any(|one| one.eq_ignore_ascii_case(origin)) {
        return;
    }
    headers.push("access-control-allow-origin", if all { "*".to_owned() } else { origin.to_owned() });
    headers.push("vary", "Origin");
    let mut exposed = String::from("mcp-session-id");
    for header in access.expose_headers.iter().filter(|header| !header.eq_ignore_ascii_case("mcp-session-id")) {
        exposed += ", ";
        exposed += header;
    }
    headers.push("access-control-expose-headers", exposed);
}

/// The headers of the answer to a preflight, if it is one that CORS allows.
pub(crate) fn preflight(access: &Access, request: &HttpRequest) -> Option<Headers> {
    let wanted = request.headers.get("access-control-request-method")?;
    let mut headers = Headers::new();
    add_cors(access, request.headers.get("origin"), &mut headers);
    headers.get("access-control-allow-origin")?;
    if matches!(wanted, "GET" | "POST" | "DELETE" | "HEAD") {
        headers.push("access-control-allow-methods", "GET, POST, DELETE, HEAD");
    }
    if let Some(wanted) = request.headers.get("access-control-request-headers") {
        headers.push("access-control-allow-headers", wanted.to_owned());
    }
    headers.push("access-control-max-age", "86400");
    Some(headers)
}

/// Finds what a path leads to. A server is reached at the root if it is named `default`, and any under `/servers/NAME`. A
/// slash at the end does not matter.
pub(crate) fn find_place(servers: &[Server], request: &HttpRequest) -> Result<Place, Refusal> {
    let target = absolute(&request.target).map_or(&*request.target, |(_, path)| path);
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let (name, face, named) = match path.strip_prefix("/servers/").and_then(|rest| rest.rsplit_once('/')) {
        Some((name, face)) => (name, face, true),
        None => ("default", path.strip_prefix('/').unwrap_or_default(), false),
    };
    let found = servers.iter().position(|server| server.name == name);
    match (face, found) {
        ("status", _) if !named => Ok(Place::Status),
        ("healthz", _) if !named => Ok(Place::Healthz),
        ("readyz", _) if !named => Ok(Place::Readyz),
        ("mcp", Some(server)) => Ok(Place::Mcp(server)),
        ("sse", Some(server)) => Ok(Place::Sse(server, named)),
        ("messages" | "message", Some(server)) => Ok(Place::Messages(server)),
        _ => refuse(
            404,
            code::REFUSED,
            "there is nothing at this path; endpoints are /mcp, /sse, /servers/NAME/mcp, \
             /servers/NAME/sse and /status",
        ),
    }
}

/// The session that a POST of HTTP+SSE names in its query.
pub(crate) fn sse_session(request: &HttpRequest) -> Result<String, Refusal> {
    let mut names = query_pairs(&request.target).filter(|(name, _)| name == "session_id" || name == "sessionId");
    let Some((_, name)) = names.next() else {
        return refuse(400, code::INVALID_REQUEST, "session_id is missing; use the URL of the endpoint event");
    };
    // Some clients write what they take for a UUID with its dashes.
    let name = name.replace('-', "").to_ascii_lowercase();
    if name.len() != 32 || !name.bytes().all(|b| b.is_ascii_hexdigit()) || names.next().is_some() {
        return refuse(400, code::INVALID_REQUEST, "session_id is malformed; use the URL of the endpoint event");
    }
    Ok(name)
}

/// Variables that a request brings into the environment of its server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env(Vec<(String, Secret<String>)>);

impl Env {
    /// The last value of a name counts.
    fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), Secret::new(value.to_owned())));
    }

    pub(crate) fn pairs(&self) -> &[(String, Secret<String>)] {
        &self.0
    }

    /// What keeps clients with different values apart.
    pub(crate) fn key(&self) -> String {
        let mut pairs: Vec<_> = self.0.iter().map(|(name, value)| (name, value.reveal())).collect();
        pairs.sort_unstable();
        serde_json::Value::from_iter(pairs.into_iter().map(|(name, value)| serde_json::json!([name, value])))
            .to_string()
    }
}

/// What a request brings into the environment of its server, as far as the operator allows it.
pub(crate) fn child_environment(server: &Server, request: &HttpRequest) -> Result<Env, Refusal> {
    let mut env = Env::default();
    for (header, variable) in &server.header_env {
        if let Some(value) = request.headers.get(header) {
            env.set(variable, value);
        }
    }
    for (name, value) in query_pairs(&request.target) {
        let wanted = match &server.url_env {
            UrlEnv::Any => !matches!(&*name, "auth_key" | "session_id" | "sessionId"),
            UrlEnv::Listed(names) => names.contains(&name),
            UrlEnv::Off => false,
        };
        if wanted && (is_dangerous_variable(&name) || value.contains('\0')) {
            return refuse(400, code::REFUSED, format!("the variable {name:?} must not come from a URL"));
        }
        if wanted {
            env.set(&name, &value);
        }
    }
    Ok(env)
}

/// Whether a variable changes how programs are loaded or run: such a one never comes from a client.
fn is_dangerous_variable(name: &str) -> bool {
    const PREFIXES: [&str; 17] = [
        "LD_", "DYLD_", "PYTHON", "PERL5", "RUBY", "NODE_", "NPM_", "BUN_", "DENO_", "GIT_", "JAVA_", "JDK_", "_JAVA",
        "DOTNET_", "UV_", "PIP_", "BASH_",
    ];
    const NAMES: [&str; 13] = [
        "PATH",
        "ENV",
        "IFS",
        "SHELL",
        "SHELLOPTS",
        "BASHOPTS",
        "HOME",
        "CLASSPATH",
        "PERLLIB",
        "GCONV_PATH",
        "LOCPATH",
        "PS4",
        "PROMPT_COMMAND",
    ];
    let upper = name.to_ascii_uppercase();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
    !plain
        || NAMES.contains(&&*upper)
        || (PREFIXES.iter().any(|prefix| upper.starts_with(prefix)) && upper != "NODE_ENV")
}

/// The pairs of a query, decoded.
pub(crate) fn query_pairs(target: &str) -> impl Iterator<Item = (String, String)> {
    let query = target.split_once('?').map_or("", |(_, query)| query).split('#').next().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name), form_decode(value))
    })
}

/// `application/x-www-form-urlencoded`, one part. What is no valid escape stays as it is.
fn form_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = |b: &u8| char::from(*b).to_digit(16);
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                let value = hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0);
                out.push(u8::try_from(value).unwrap_or(b'?'));
                rest = after;
            }
            _ => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The method, if an MCP endpoint has it.
pub(crate) fn verb(request: &HttpRequest, stateless: bool) -> Result<Verb, Refusal> {
    // Revision 2026-07-28 has neither.
    let stateless = stateless || request.headers.get("mcp-protocol-version") == Some(MODERN);
    match &*request.method {
        "POST" => Ok(Verb::Post),
        "GET" if !stateless => Ok(Verb::Get),
        "DELETE" if !stateless => Ok(Verb::Delete),
        _ => Err(Refusal {
            status: 405,
            code: code::REFUSED,
            text: "this method is not allowed here".into(),
            allow: Some(if stateless { "POST" } else { "GET, POST, DELETE" }),
            data: None,
        }),
    }
}

/// Checks `Accept` and `Content-Type` of a POST.
pub(crate) fn check_post(request: &HttpRequest) -> Result<(), Refusal> {
    if !accepts(request, "application/json") || !accepts(request, "text/event-stream") {
        return refuse(406, code::REFUSED, "Accept must list both application/json and text/event-stream");
    }
    check_content_type(request)
}

/// Checks `Content-Type` of a POST.
pub(crate) fn check_content_type(request: &HttpRequest) -> Result<(), Refusal> {
    let mut types = request.headers.get_all("content-type");
    let essence = types.next().and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|t| t.eq_ignore_ascii_case("application/json")) || types.next().is_some() {
        return refuse(415, code::REFUSED, "Content-Type must be application/json");
    }
    Ok(())
}

/// Checks `Accept` of a GET.
pub(crate) fn check_get(request: &HttpRequest) -> Result<(), Refusal> {
    if accepts(request, "text/event-stream") {
        Ok(())
    } else {
        refuse(406, code::REFUSED, "Accept must list text/event-stream")
    }
}

/// Checks `MCP-Protocol-Version`; `negotiated` is what the session agreed on.
pub(crate) fn check_version(request: &HttpRequest, negotiated: Option<&str>) -> Result<(), Refusal> {
    let mut versions = request.headers.get_all("mcp-protocol-version");
    match (versions.next(), versions.next()) {
        (None, _) => Ok(()),
        (Some(version), None) if REVISIONS.contains(&version) || negotiated == Some(version) => Ok(()),
        _ => refuse(
            400,
            code::REFUSED,
            format!("this MCP-Protocol-Version is not supported here; supported are {}", REVISIONS.join(", ")),
        ),
    }
}

/// The one `Mcp-Session-Id`, if there is one.
pub(crate) fn session_name(request: &HttpRequest) -> Result<Option<&str>, Refusal> {
    let mut names = request.headers.get_all("mcp-session-id");
    match (names.next(), names.next()) {
        (name, None) => Ok(name),
        _ => refuse(400, code::INVALID_REQUEST, "Mcp-Session-Id must come once"),
    }
}

/// Whether a POST would rather have an event stream than one JSON body: by quality, else because it names it first.
pub(crate) fn prefers_stream(request: &HttpRequest) -> bool {
    match (acceptance(request, "text/event-stream"), acceptance(request, "application/json")) {
        (Some(stream), Some(json)) if stream.quality == json.quality => {
            stream.rank == BY_NAME && json.rank == BY_NAME && stream.position < json.position
        }
        (Some(stream), Some(json)) => stream.quality > json.quality,
        _ => false,
    }
}

/// Whether the client takes this media type, by name or by wildcard.
fn accepts(request: &HttpRequest, wanted: &str) -> bool {
    acceptance(request, wanted).is_some_and(|found| found.quality > 0.0)
}

/// How a client takes a media type.
struct Acceptance {
    /// How specific the range is that matches: [`BY_NAME`], its family, or anything.
    rank: u8,
    quality: f32,
    /// Its place in the list.
    position: usize,
}

const BY_NAME: u8 = 3;

/// What `Accept` says of a media type. The most specific range that matches decides (RFC 9110, section 12.5.1).
fn acceptance(request: &HttpRequest, wanted: &str) -> Option<Acceptance> {
    let family = wanted.split('/').next().unwrap_or_default();
    let mut best: Option<Acceptance> = None;
    for (position, range) in request.headers.get_all("accept").flat_map(|value| value.split(',')).enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let rank = if name.eq_ignore_ascii_case(wanted) {
            BY_NAME
        } else if name.split_once('/').is_some_and(|(f, sub)| f.eq_ignore_ascii_case(family) && sub == "*") {
            2
        } else if name == "*/*" {
            1
        } else {
            continue;
        };
        let quality = parts.find_map(|p| p.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q")));
        let quality = quality.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(1.0);
        if best.as_ref().is_none_or(|other| rank > other.rank) {
            best = Some(Acceptance { rank, quality, position });
        }
    }
    best
}

/// Authority and path of a target in absolute form.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let rest = strip_prefix_no_case(target, "http://").or_else(|| strip_prefix_no_case(target, "https://"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

fn strip_prefix_no_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).map(|_| &text[prefix.len()..])
}

/// The host of an authority, without the port.
fn host_name(authority: &str) -> &str {
    let authority = authority.trim();
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    let v4 = || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    host.eq_ignore_ascii_case("localhost") || host == "[::1]" || v4()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Command, Headers};

    fn request(method: &str, target: &str, headers: &[(&'static str, &str)]) -> HttpRequest {
        let mut fields = Headers::new();
        for (name, value) in headers {
            fields.push(*name, (*value).to_owned());
        }
        HttpRequest { method: method.into(), target: target.into(), headers: fields, body: vec![], random: [0; 16] }
    }

    fn status<T>(result: Result<T, Refusal>) -> u16 {
        result.map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn hosts_and_origins() {
        let local = Access::default();
        let listed = Access {
            allowed_hosts: vec!["proxy.example".into()],
            allowed_origins: vec!["https://app.example".into()],
            ..Access::default()
        };
        let public = Access { public: true, ..Access::default() };
        let all = Access { allowed_hosts: vec!["*".into()], allowed_origins: vec!["*".into()], ..Access::default() };
        // (target, Host, Origin) -> status for: local, listed, public, all
        for (target, host, origin, expected) in [
            ("/mcp", "localhost:8080", None, [200; 4]),
            ("/mcp", "LOCALHOST", None, [200; 4]),
            ("/mcp", "127.0.0.1:1", Some("http://localhost:3000"), [200; 4]),
            ("/mcp", "[::1]:8080", Some("http://[::1]:3000"), [200; 4]),
            ("/mcp", "127.8.9.1", Some("https://127.0.0.1"), [200; 4]),
            ("/mcp", "evil.example", None, [403, 403, 200, 200]),
            ("/mcp", "localhost.evil.example", None, [403, 403, 200, 200]),
            ("/mcp", "127.0.0.1.evil.example", None, [403, 403, 200, 200]),
            ("/mcp", "", None, [403, 403, 200, 200]),
            ("/mcp", "proxy.example:443", None, [403, 200, 200, 200]),
            ("/mcp", "localhost", Some("http://evil.example"), [403, 403, 403, 200]),
            ("/mcp", "localhost", Some("http://localhost.evil.example"), [403, 403, 403, 200]),
            ("/mcp", "localhost", Some("https://app.example"), [403, 200, 403, 200]),
            ("/mcp", "localhost", Some("http://app.example"), [403, 403, 403, 200]),
            ("/mcp", "localhost", Some("null"), [403, 403, 403, 200]),
            ("/mcp", "localhost", Some("file://localhost"), [403, 403, 403, 200]),
            ("http://evil.example/mcp", "localhost", None, [403, 403, 200, 200]),
            ("HTTP://localhost:1/mcp", "evil.example", None, [200; 4]),
        ] {
            let mut headers = vec![("host", host)];
            headers.extend(origin.map(|origin| ("origin", origin)));
            let request = request("POST", target, &headers);
            let got = [&local, &listed, &public, &all].map(|access| status(check_access(access, &request)));
            assert_eq!(got, expected, "{target} {host} {origin:?}");
        }
    }

    #[test]
    fn paths() {
        let server =
            |name: &str| Server::new(name, Command { program: "x".into(), args: vec![], env: vec![], cwd: None });
        let servers = [server("default"), server("time")];
        for (target, expected) in [
            ("/mcp", Some(Place::Mcp(0))),
            ("/mcp/", Some(Place::Mcp(0))),
            ("/mcp?x=1", Some(Place::Mcp(0))),
            ("http://localhost:1/mcp", Some(Place::Mcp(0))),
            ("/servers/default/mcp", Some(Place::Mcp(0))),
            ("/servers/time/mcp/", Some(Place::Mcp(1))),
            ("/sse", Some(Place::Sse(0, false))),
            ("/servers/time/sse?x=1", Some(Place::Sse(1, true))),
            ("/messages/?session_id=1", Some(Place::Messages(0))),
            ("/message?sessionId=1", Some(Place::Messages(0))),
            ("/servers/time/messages", Some(Place::Messages(1))),
            ("/status", Some(Place::Status)),
            ("/servers/time/status", None),
            ("/servers/nobody/mcp", None),
            ("/servers//mcp", None),
            ("/mcp//", None),
            ("//mcp", None),
            ("/", None),
            ("/MCP", None),
            ("/servers/../mcp", None),
            ("http://localhost", None),
            ("*", None),
        ] {
            assert_eq!(find_place(&servers, &request("POST", target, &[])).ok(), expected, "{target}");
        }
    }

    #[test]
    fn accept_and_content_type() {
        for (accept, content, expected) in [
            (Some("application/json, text/event-stream"), Some("application/json"), 200),
            (Some("text/event-stream,APPLICATION/JSON;q=0.5"), Some("Application/JSON; charset=utf-8"), 200),
            (Some("*/*"), Some("application/json"), 200),
            (Some("application/*, text/*"), Some("application/json"), 200),
            (Some("application/json"), Some("application/json"), 406),
            (Some("text/event-stream"), Some("application/json"), 406),
            (Some("application/json, text/event-stream;q=0"), Some("application/json"), 406),
            (Some("*/*, text/event-stream;q=0"), Some("application/json"), 406),
            (Some("text/html"), Some("application/json"), 406),
            (None, Some("application/json"), 406),
            (Some("*/*"), Some("text/plain"), 415),
            (Some("*/*"), Some("application/jsonx"), 415),
            (Some("*/*"), None, 415),
        ] {
            let mut headers = vec![];
            headers.extend(accept.map(|value| ("accept", value)));
            headers.extend(content.map(|value| ("content-type", value)));
            assert_eq!(status(check_post(&request("POST", "/mcp", &headers))), expected, "{accept:?} {content:?}");
        }
    }

    #[test]
    fn variables_from_clients() {
        let command = Command { program: "x".into(), args: vec![], env: vec![], cwd: None };
        let mut server = Server::new("default", command);
        let target = "/sse?auth_key=k&TOKEN=a%20b&NODE_ENV=x&TOKEN=c";
        let found = |server: &Server, target: &str| {
            let env = child_environment(server, &request("GET", target, &[("x-token", "h")]))?;
            Ok::<_, Refusal>(env.pairs().iter().map(|(n, v)| format!("{n}={}", v.reveal())).collect::<Vec<_>>())
        };
        assert_eq!(found(&server, target).unwrap(), Vec::<String>::new());
        server.url_env = UrlEnv::Listed(vec!["TOKEN".into(), "PATH".into()]);
        assert_eq!(found(&server, target).unwrap(), ["TOKEN=c"]);
        assert_eq!(status(found(&server, "/sse?PATH=/x")), 400);
        server.url_env = UrlEnv::Any;
        server.header_env = vec![("x-token".into(), "HEADER".into())];
        assert_eq!(found(&server, target).unwrap(), ["HEADER=h", "NODE_ENV=x", "TOKEN=c"]);
        for name in ["LD_PRELOAD", "ld_preload", "DYLD_X", "NODE_OPTIONS", "PYTHONPATH", "BASH_ENV", "A%3DB", "", "A-B"]
        {
            assert_eq!(status(found(&server, &format!("/sse?{name}=x"))), 400, "{name}");
        }
    }

    #[test]
    fn keys() {
        let mut access = Access::default();
        assert_eq!(status(check_key(&access, &request("GET", "/mcp", &[]))), 200);
        access.auth_tokens = vec![crate::io::Secret::new("k+y ä".into()), crate::io::Secret::new("other".into())];
        for (target, headers, expected) in [
            ("/mcp", &[][..], 401),
            ("/mcp", &[("authorization", "Bearer other")], 200),
            ("/mcp", &[("authorization", "bearer  other")], 200),
            ("/mcp", &[("authorization", "Basic other")], 401),
            ("/mcp", &[("authorization", "Bearer othe")], 401),
            ("/mcp", &[("authorization", "Bearer otherr")], 401),
            ("/mcp", &[("authorization", "Bearer ")], 401),
            ("/mcp", &[("x-api-key", "other")], 200),
            ("/mcp?auth_key=k%2By+%C3%A4", &[], 200),
            ("/mcp?auth_key=wrong&auth_key=other", &[], 200),
            ("/mcp?auth_key=", &[], 401),
        ] {
            assert_eq!(status(check_key(&access, &request("GET", target, headers))), expected, "{target} {headers:?}");
        }
    }

    #[test]
    fn cross_origin() {
        let headers = &[("origin", "https://app.example"), ("access-control-request-method", "POST")];
        let ask = request("OPTIONS", "/mcp", headers);
        assert!(preflight(&Access::default(), &ask).is_none());
        let access = Access {
            cors_origins: vec!["https://app.example".into()],
            expose_headers: vec!["X-One".into()],
            ..Access::default()
        };
        let allowed = preflight(&access, &ask).unwrap();
        assert_eq!(allowed.get("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(allowed.get("access-control-expose-headers"), Some("mcp-session-id, X-One"));
        let other = request("OPTIONS", "/mcp", &[("origin", "https://evil.example"), headers[1]]);
        assert!(preflight(&access, &other).is_none());
        let all = Access { cors_origins: vec!["*".into()], ..Access::default() };
        assert_eq!(preflight(&all, &other).unwrap().get("access-control-allow-origin"), Some("*"));
    }

    #[test]
    fn preferences() {
        for (accept, expected) in [
            ("application/json, text/event-stream", false),
            ("text/event-stream, application/json", true),
            ("text/event-stream;q=0.9, application/json", false),
            ("application/json;q=0.1, text/event-stream;q=0.2", true),
            ("text/event-stream, */*", false),
            ("text/event-stream, */*;q=0.5", true),
            ("*/*", false),
        ] {
            assert_eq!(prefers_stream(&request("POST", "/mcp", &[("accept", accept)])), expected, "{accept}");
        }
    }

    #[test]
    fn versions() {
        for (versions, negotiated, expected) in [
            (&[][..], None, 200),
            (&["2025-03-26"], None, 200),
            (&["2025-11-25"], Some("2025-06-18"), 200),
            (&["2099-01-01"], None, 400),
            (&["2099-01-01"], Some("2099-01-01"), 200),
            (&["nonsense"], Some("2025-11-25"), 400),
            (&[""], None, 400),
            (&["2025-06-18", "2025-06-18"], None, 400),
        ] {
            let headers: Vec<_> = versions.iter().map(|v| ("mcp-protocol-version", *v)).collect();
            assert_eq!(status(check_version(&request("POST", "/mcp", &headers), negotiated)), expected, "{versions:?}");
        }
    }
}
