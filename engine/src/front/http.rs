//! The rules of HTTP that come before any session: who may talk to us, what is asked for, in which form.
//!
//! Pure functions of the request and the configuration. Sources: specification, basic/transports, "Streamable HTTP";
//! RFC 9110 for `Accept` and `Content-Type`; RFC 9112 for the request target.

use std::borrow::Cow;

use crate::config::{Access, Server};
use crate::io::HttpRequest;
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
}

/// A refusal.
pub(crate) fn refuse<T>(status: u16, code: i32, text: impl Into<Cow<'static, str>>) -> Result<T, Refusal> {
    Err(Refusal { status, code, text: text.into(), allow: None })
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

/// Finds the server by the path: `/mcp` is the one named `default`, `/servers/NAME/mcp` any. A slash at the end does not
/// matter.
pub(crate) fn find_server(servers: &[Server], request: &HttpRequest) -> Result<usize, Refusal> {
    let target = absolute(&request.target).map_or(&*request.target, |(_, path)| path);
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let name = match path.strip_suffix('/').unwrap_or(path) {
        "/mcp" => Some("default"),
        path => path.strip_prefix("/servers/").and_then(|rest| rest.strip_suffix("/mcp")),
    };
    match name.and_then(|name| servers.iter().position(|server| server.name == name)) {
        Some(server) => Ok(server),
        None => refuse(404, code::REFUSED, "there is nothing at this path; the endpoint is /mcp"),
    }
}

/// The method, if an MCP endpoint has it.
pub(crate) fn verb(request: &HttpRequest, stateless: bool) -> Result<Verb, Refusal> {
    match &*request.method {
        "POST" => Ok(Verb::Post),
        "GET" if !stateless => Ok(Verb::Get),
        "DELETE" if !stateless => Ok(Verb::Delete),
        _ => Err(Refusal {
            status: 405,
            code: code::REFUSED,
            text: "this method is not allowed here".into(),
            allow: Some(if stateless { "POST" } else { "GET, POST, DELETE" }),
        }),
    }
}

/// Checks `Accept` and `Content-Type` of a POST.
pub(crate) fn check_post(request: &HttpRequest) -> Result<(), Refusal> {
    if !accepts(request, "application/json") || !accepts(request, "text/event-stream") {
        return refuse(406, code::REFUSED, "Accept must list both application/json and text/event-stream");
    }
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
            public: false,
        };
        let public = Access { public: true, ..Access::default() };
        let all = Access { allowed_hosts: vec!["*".into()], allowed_origins: vec!["*".into()], public: false };
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
            ("/mcp", Some(0)),
            ("/mcp/", Some(0)),
            ("/mcp?x=1", Some(0)),
            ("http://localhost:1/mcp", Some(0)),
            ("/servers/default/mcp", Some(0)),
            ("/servers/time/mcp/", Some(1)),
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
            assert_eq!(find_server(&servers, &request("POST", target, &[])).ok(), expected, "{target}");
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
