//! What both drivers need to know to send a request of ours: where it goes, by which proxy, with which fields; what of its
//! response is for the engine; and what to tell people when it fails.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fluent_uri::Uri;
use fluent_uri::component::Authority;

use super::http::{field_name, is_text, is_token, latin1};
use crate::{Body, FetchError, FetchErrorKind, FetchRequest, Headers, HttpResponse, Outbound, Secret};

/// The most bytes the head of a response may have.
pub const MAX_HEAD: usize = 64 * 1024;

/// Who is asked, and by which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `https`.
    pub tls: bool,
    /// A name or an address; one of IPv6 without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The `host` field: with brackets, and with the port unless it is that of the scheme.
    pub authority: String,
    /// The path and the query. A key may be in there.
    pub path: Secret<String>,
    /// `None`: there is none on the way.
    pub proxy: Option<Proxy>,
    authorization: Option<Secret<String>>,
}

/// A proxy on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address; one of IPv6 without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    authorization: Option<Secret<String>>,
}

impl Target {
    /// Where a request to this URL goes.
    ///
    /// # Errors
    ///
    /// The URL, or that of the proxy, is none that we can use.
    pub fn new(url: &str, outbound: &Outbound) -> Result<Target, FetchError> {
        let bad = || fail(FetchErrorKind::Protocol, "the URL is not one of http or https");
        let uri = Uri::parse(url).map_err(|_| bad())?;
        let tls = match uri.scheme().as_str() {
            scheme if scheme.eq_ignore_ascii_case("http") => false,
            scheme if scheme.eq_ignore_ascii_case("https") => true,
            _ => return Err(bad()),
        };
        let default = if tls { 443 } else { 80 };
        let authority = uri.authority().ok_or_else(bad)?;
        let (host, port) = place(&authority, default).ok_or_else(bad)?;
        let mut path = uri.path().as_str().to_owned();
        if path.is_empty() {
            path.push('/');
        }
        if let Some(query) = uri.query() {
            path.push('?');
            path.push_str(query.as_str());
        }
        let proxy = if tls { &outbound.https_proxy } else { &outbound.http_proxy };
        let proxy = match proxy {
            Some(proxy) if !goes_direct(&host, &outbound.no_proxy) => Some(Proxy::new(proxy.reveal())?),
            _ => None,
        };
        let mut shown = authority.host().to_owned();
        if port != default {
            shown.push_str(&format!(":{port}"));
        }
        let authorization = basic(&authority);
        Ok(Target { tls, host, port, authority: shown, path: Secret::new(path), proxy, authorization })
    }

    /// Whom to connect to: the proxy, or else the server itself.
    #[must_use]
    pub fn peer(&self) -> (&str, u16) {
        self.proxy.as_ref().map_or((&self.host, self.port), |proxy| (&proxy.host, proxy.port))
    }

    /// The scheme and the authority, if the request line must name them: a proxy wants to know where a request goes.
    #[must_use]
    pub fn prefix(&self) -> Option<String> {
        (self.proxy.is_some() && !self.tls).then(|| format!("http://{}", self.authority))
    }

    /// All fields of a request, in order: names in lower case and values as bytes, neither of which can end a line.
    ///
    /// # Errors
    ///
    /// A name or a value is none.
    pub fn fields(&self, request: &FetchRequest) -> Result<Vec<(String, Vec<u8>)>, FetchError> {
        // Those are ours to send.
        const OURS: [&str; 5] = ["accept-encoding", "connection", "content-length", "host", "transfer-encoding"];
        let mut fields = vec![("host".to_owned(), self.authority.clone().into_bytes())];
        for (name, value) in request.headers.iter().filter(|(name, _)| !OURS.contains(name)) {
            let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok().filter(|&b| is_text(b))).collect();
            match bytes {
                Some(value) if !name.is_empty() && name.bytes().all(is_token) => {
                    fields.push((name.to_ascii_lowercase(), value));
                }
                // The value may be a secret, and the name may be anything.
                _ => {
                    let text = format!("the header field {name:?} cannot be sent: a character in it is not allowed");
                    return Err(fail(FetchErrorKind::Protocol, text));
                }
            }
        }
        let mut add = |name: &str, value: &str| {
            if !fields.iter().any(|(earlier, _)| earlier == name) {
                fields.push((name.to_owned(), value.as_bytes().to_vec()));
            }
        };
        if let Some(authorization) = &self.authorization {
            add("authorization", authorization.reveal());
        }
        if let Some(Proxy { authorization: Some(authorization), .. }) = &self.proxy
            && !self.tls
        {
            add("proxy-authorization", authorization.reveal());
        }
        add("accept", "*/*");
        add("accept-encoding", "gzip");
        add("user-agent", concat!("mcp-proxy/", env!("CARGO_PKG_VERSION")));
        if request.method == "POST" || !request.body.is_empty() {
            add("content-length", &request.body.len().to_string());
        }
        Ok(fields)
    }

    /// What to ask the proxy for before the handshake, if there is one and we want `https`.
    #[must_use]
    pub fn tunnel(&self) -> Option<Vec<u8>> {
        let proxy = self.proxy.as_ref().filter(|_| self.tls)?;
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let place = format!("{host}:{}", self.port);
        let mut head = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n");
        if let Some(authorization) = &proxy.authorization {
            head.push_str(&format!("proxy-authorization: {}\r\n", authorization.reveal()));
        }
        head.push_str("\r\n");
        Some(head.into_bytes())
    }

    /// What the proxy said to that; `None`: more bytes, please.
    ///
    /// # Errors
    ///
    /// It refused.
    pub fn tunnel_answer(&self, bytes: &[u8]) -> Option<Result<(), FetchError>> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let text = match head.parse(bytes) {
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return None,
            // It speaks before we do: that was not the server.
            Ok(httparse::Status::Complete(end)) if end < bytes.len() => "says more than it was asked".to_owned(),
            Ok(httparse::Status::Complete(_)) => match head.code {
                Some(200..=299) => return Some(Ok(())),
                code => format!("refused a way to {}: status {}", self.host, code.unwrap_or(0)),
            },
            _ => "does not speak HTTP".to_owned(),
        };
        let (host, port) = self.peer();
        Some(Err(fail(FetchErrorKind::Connect, format!("the proxy {host}:{port} {text}"))))
    }

    /// The name was not resolved.
    #[must_use]
    pub fn no_address(&self) -> FetchError {
        fail(FetchErrorKind::Name, format!("cannot resolve {}", self.peer().0))
    }

    /// Something was not done in time.
    #[must_use]
    pub fn late(&self, wait: Wait, limit: Duration) -> FetchError {
        let (host, port) = self.peer();
        let what = match wait {
            Wait::Name => format!("{host} was not resolved"),
            Wait::Connection => format!("{host}:{port} did not accept a connection"),
            Wait::Handshake => format!("the TLS handshake with {} did not end", self.host),
            Wait::Head => format!("{} did not answer", self.authority),
        };
        fail(FetchErrorKind::Timeout, format!("{what} within {limit:?}"))
    }

    /// The connection broke before the head of the response was there.
    #[must_use]
    pub fn broken(&self, error: &io::Error) -> FetchError {
        let text = match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                format!("{} closed the connection before it answered", self.authority)
            }
            kind => format!("the connection to {} broke: {kind}", self.authority),
        };
        fail(FetchErrorKind::Protocol, text)
    }

    /// What came is no HTTP response that we understand.
    #[must_use]
    pub fn nonsense(&self, what: impl std::fmt::Display) -> FetchError {
        fail(FetchErrorKind::Protocol, format!("{} gave no proper HTTP response: {what}", self.authority))
    }

    /// The handshake failed. `untrusted`: because of the certificate.
    #[must_use]
    pub fn no_tls(&self, untrusted: bool, why: impl std::fmt::Display) -> FetchError {
        let host = &self.host;
        let text = if untrusted {
            format!("certificate of {host} is not trusted: {why}; --verify-ssl FILE trusts it")
        } else {
            format!("no TLS with {}: {why}", self.authority)
        };
        fail(FetchErrorKind::Tls, text)
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The address of a name.
    Name,
    /// The connection, with the way through a proxy.
    Connection,
    /// The TLS handshake.
    Handshake,
    /// The head of the response.
    Head,
}

/// Nobody could be connected to at this address.
#[must_use]
pub fn not_connected(address: SocketAddr, error: &io::Error) -> FetchError {
    let text = match error.kind() {
        ErrorKind::ConnectionRefused => format!("connection refused by {address}"),
        kind => format!("cannot connect to {address}: {kind}"),
    };
    fail(FetchErrorKind::Connect, text)
}

/// We ended it.
#[must_use]
pub fn cancelled() -> FetchError {
    fail(FetchErrorKind::Cancelled, "cancelled")
}

fn fail(kind: FetchErrorKind, text: impl Into<String>) -> FetchError {
    FetchError { kind, text: text.into() }
}

/// What the engine is told of a response; true: its body is in the coding `gzip`.
///
/// # Errors
///
/// The body is in a coding that nobody asked for.
pub fn response<'a>(
    target: &Target,
    status: u16,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(HttpResponse, bool), FetchError> {
    // Framing is over when the engine reads; so is the coding.
    const HOP: [&str; 7] = [
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
    ];
    let mut headers = Headers::new();
    let mut gzip = false;
    for (name, value) in fields {
        let name = field_name(name);
        if name == "content-encoding" {
            for coding in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                match &*coding.to_ascii_lowercase() {
                    b"" | b"identity" => {}
                    b"gzip" | b"x-gzip" if !gzip => gzip = true,
                    _ => return Err(target.nonsense("its body is in a content coding that was not asked for")),
                }
            }
        }
        if !HOP.contains(&&*name) {
            headers.push(name, latin1(value));
        }
    }
    Ok((HttpResponse { status, headers, body: Body::Stream }, gzip))
}

impl Proxy {
    fn new(url: &str) -> Result<Proxy, FetchError> {
        let bad = || fail(FetchErrorKind::Connect, "the proxy is not given as http://HOST:PORT");
        // What people put into variables often lacks the scheme.
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri = Uri::parse(&*full).map_err(|_| bad())?;
        if !uri.scheme().as_str().eq_ignore_ascii_case("http") {
            return Err(bad());
        }
        let authority = uri.authority().ok_or_else(bad)?;
        let (host, port) = place(&authority, 80).ok_or_else(bad)?;
        Ok(Proxy { host, port, authorization: basic(&authority) })
    }
}

fn place(authority: &Authority<'_>, default: u16) -> Option<(String, u16)> {
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = match authority.port() {
        Some(port) if !port.as_str().is_empty() => port.as_str().parse().ok()?,
        _ => default,
    };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

/// The user and the password in a URL, as `Basic` has them (RFC 7617).
fn basic(authority: &Authority<'_>) -> Option<Secret<String>> {
    let mut bytes = authority.userinfo()?.decode().to_bytes().into_owned();
    if !bytes.contains(&b':') {
        bytes.push(b':');
    }
    Some(Secret::new(format!("Basic {}", BASE64_STANDARD.encode(bytes))))
}

/// Whether a host is in `NO_PROXY`.
fn goes_direct(host: &str, no_proxy: &[String]) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    no_proxy.iter().any(|entry| {
        let entry = entry.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let bare = entry.trim_start_matches('[').trim_end_matches(']');
        if entry == "*" {
            return true;
        }
        if let Some(address) = address {
            return bare.parse() == Ok(address);
        }
        let host = host.trim_end_matches('.');
        !entry.is_empty() && host.strip_suffix(&*entry).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::new(url, &Outbound::default()).unwrap()
    }

    #[test]
    fn urls() {
        for (url, tls, host, port, authority, path) in [
            ("http://H.example", false, "h.example", 80, "H.example", "/"),
            ("https://h:443/a?b=c", true, "h", 443, "h", "/a?b=c"),
            ("HTTPS://u:p@h:8443/a/b", true, "h", 8443, "h:8443", "/a/b"),
            ("http://[::1]:5?x", false, "::1", 5, "[::1]:5", "/?x"),
            ("http://h:/", false, "h", 80, "h", "/"),
        ] {
            let t = target(url);
            assert_eq!(
                (t.tls, &*t.host, t.port, &*t.authority, &**t.path.reveal()),
                (tls, host, port, authority, path),
                "{url}"
            );
        }
        for url in ["", "h", "ftp://h/", "http:///x", "http://h:99999/", "http://h/a b", "http://h/\r\nx: y"] {
            assert!(Target::new(url, &Outbound::default()).is_err(), "{url:?}");
        }
    }

    #[test]
    fn fields_cannot_end_a_line() {
        let request = |name: &'static str, value: &str| {
            let mut headers = Headers::new();
            headers.push(name, value.to_owned());
            FetchRequest { method: "POST", url: Secret::new(String::new()), headers, body: b"ab".to_vec() }
        };
        let t = target("http://us%3Aer:p%40ss@h:81/");
        let fields = t.fields(&request("x-key", "caf\u{e9}")).unwrap();
        let find = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| &**value);
        assert_eq!(find("x-key"), Some(&b"caf\xe9"[..]));
        assert_eq!(find("host"), Some(&b"h:81"[..]));
        assert_eq!(find("content-length"), Some(&b"2"[..]));
        assert_eq!(find("authorization"), Some(&b"Basic dXM6ZXI6cEBzcw=="[..]));
        for (name, value) in
            [("x", "a\r\nb: c"), ("x", "\u{100}"), ("x\r\ny", "z"), ("", "z"), ("x y", "z"), ("x", "\0")]
        {
            let error = t.fields(&request(name, value)).unwrap_err();
            assert!(!error.text.contains('\n') && !error.text.contains('\r'), "{error:?}");
        }
    }

    #[test]
    fn proxies() {
        let outbound = Outbound {
            http_proxy: Some(Secret::new("http://u:p@proxy:3128".into())),
            https_proxy: Some(Secret::new("proxy2:1".into())),
            no_proxy: [".internal", "10.0.0.1", "[::1]", "example.org"].map(str::to_owned).to_vec(),
            ..Outbound::default()
        };
        for (url, peer) in [
            ("http://h/", ("proxy", 3128)),
            ("https://h/", ("proxy2", 1)),
            ("http://internal/", ("internal", 80)),
            ("http://a.internal/", ("a.internal", 80)),
            ("http://ainternal/", ("proxy", 3128)),
            ("http://10.0.0.1:8/", ("10.0.0.1", 8)),
            ("http://10.0.0.11/", ("proxy", 3128)),
            ("https://[::1]/", ("::1", 443)),
            ("http://Example.ORG./", ("example.org.", 80)),
        ] {
            let target = Target::new(url, &outbound).unwrap();
            assert_eq!(target.peer(), peer, "{url}");
        }
        let plain = Target::new("http://h:5/x", &outbound).unwrap();
        assert_eq!((plain.prefix().as_deref(), plain.tunnel()), (Some("http://h:5"), None));
        let tls = Target::new("https://h/x", &outbound).unwrap();
        assert_eq!(tls.prefix(), None);
        assert_eq!(tls.tunnel().unwrap(), b"CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n");
        assert_eq!(tls.tunnel_answer(b"HTTP/1.1 200 Con"), None);
        assert_eq!(tls.tunnel_answer(b"HTTP/1.1 200 Connected\r\n\r\n"), Some(Ok(())));
        for bytes in [&b"HTTP/1.1 407 No\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\n\r\nx", b"SSH-2.0\r\n\r\n"] {
            assert!(tls.tunnel_answer(bytes).unwrap().is_err());
        }
        let any = Outbound { no_proxy: vec!["*".into()], ..outbound };
        assert_eq!(Target::new("http://h/", &any).unwrap().proxy, None);
    }

    #[test]
    fn responses() {
        let t = target("http://h/");
        let fields = [("Content-Type", &b"a/b"[..]), ("Content-Encoding", b"GZIP"), ("Content-Length", b"9")];
        let (response, gzip) = super::response(&t, 200, fields.into_iter()).unwrap();
        assert_eq!((response.headers.iter().collect::<Vec<_>>(), gzip), (vec![("content-type", "a/b")], true));
        for coding in ["br", "gzip, gzip", "deflate"] {
            assert!(super::response(&t, 200, [("content-encoding", coding.as_bytes())].into_iter()).is_err());
        }
    }
}
