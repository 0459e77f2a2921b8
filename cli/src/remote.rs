//! How remote servers are reached: their URL, what we say about ourselves, and the way there.

use fluent_uri::Uri;
use mcp_proxy_engine::{Credentials, Headers, Outbound, Remote, Secret, Verify};

use crate::Failure;
use crate::flags::{Flags, is_token};
use crate::local::Environment;
use crate::settings::check_file;

/// Header fields that are ours to write: those of framing, and those in which the protocol keeps its own state.
const OURS: [&str; 11] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
    "upgrade",
];

/// The remote server of the command line, with the credentials of the flags and variables.
///
/// # Errors
///
/// The URL, a header or the credentials cannot be used.
pub(crate) fn remote(
    url: &str,
    flags: &Flags,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Remote, Failure> {
    check_url(url).map_err(|why| Failure::usage(format!("cannot use the URL {:?}: {why}", shown(url))))?;
    let mut fields = Vec::new();
    for (name, value) in &flags.headers {
        let field = header(name, value.reveal()).map_err(|why| Failure::usage(format!("--headers {name:?}: {why}")))?;
        match field {
            Some(field) => fields.push(field),
            None => warnings.push(format!("--headers {name:?} is left out: the proxy writes this header itself")),
        }
    }
    let proof = fields.iter().any(|(name, _)| name == "authorization");
    let (url, in_url) = without_user(url);
    let credentials = match typed_credentials(flags, warnings)? {
        Credentials::None if proof => Credentials::None,
        Credentials::None if in_url != Credentials::None => in_url,
        Credentials::None => bearer(flags, environment)?,
        typed => {
            if proof {
                // As in the Python program, where they overwrite the header.
                warnings.push("--headers Authorization is left out: the other credentials take its place".into());
                fields.retain(|(name, _)| name != "authorization");
            }
            typed
        }
    };
    let mut headers = Headers::new();
    fields.into_iter().for_each(|(name, value)| headers.push(name, value));
    let transport = flags.transport.unwrap_or_default();
    Ok(Remote { url: Secret::new(url), transport, headers, credentials })
}

/// Those of flags that are for nothing else: client credentials before Basic and Digest.
fn typed_credentials(flags: &Flags, warnings: &mut Vec<String>) -> Result<Credentials, Failure> {
    let parts = [
        ("--client-id", flags.client_id.is_some()),
        ("--client-secret", flags.client_secret.is_some()),
        ("--token-url", flags.token_url.is_some()),
    ];
    if let (Some(id), Some(secret), Some(url)) = (&flags.client_id, &flags.client_secret, &flags.token_url) {
        check_url(url).map_err(|why| Failure::usage(format!("cannot use --token-url {:?}: {why}", shown(url))))?;
        return Ok(Credentials::ClientCredentials { id: id.clone(), secret: secret.clone(), token_url: url.clone() });
    }
    if parts.iter().any(|(_, given)| *given) {
        let missing: Vec<_> = parts.iter().filter(|(_, given)| !given).map(|(name, _)| *name).collect();
        warnings.push(format!("OAuth client credentials are left out: {} is missing", missing.join(" and ")));
    }
    match (&flags.username, &flags.password, flags.digest) {
        (None, None, false) => Ok(Credentials::None),
        (Some(username), Some(password), digest) => {
            let (username, password) = (username.clone(), password.clone());
            Ok(match digest {
                true => Credentials::Digest { username, password },
                false => Credentials::Basic { username, password },
            })
        }
        _ => Err(Failure::start("Both --username and --password are required")),
    }
}

fn bearer(flags: &Flags, environment: &Environment) -> Result<Credentials, Failure> {
    let typed = flags.api_access_token.as_ref().map(|token| ("--api-access-token", token.reveal().as_str()));
    let inherited = environment.get("API_ACCESS_TOKEN").map(|token| ("API_ACCESS_TOKEN", token));
    match typed.or(inherited).map(|(name, token)| (name, token.trim())) {
        None => Ok(Credentials::None),
        Some((_, token)) if is_visible(token) => Ok(Credentials::Bearer(Secret::new(token.into()))),
        Some((name, _)) => Err(Failure::start(format!("{name} must be a token, without blanks"))),
    }
}

/// Whether this can be a token: something, and nothing that ends a header field or divides it.
fn is_visible(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// A header field as the engine wants it, or `None` for one that is ours to write.
///
/// # Errors
///
/// The name or the value cannot be in a header. The text does not show the value.
pub(crate) fn header(name: &str, value: &str) -> Result<Option<(String, String)>, String> {
    let value = value.trim();
    if !is_token(name) {
        return Err("this is not the name of a header field".into());
    }
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return Err("its value has a control character".into());
    }
    let name = name.to_ascii_lowercase();
    // UTF-8 as it is, byte by byte.
    let field = || (name.clone(), value.bytes().map(char::from).collect());
    Ok((!OURS.contains(&&*name)).then(field))
}

/// Checks what we would find out too late: at the first client.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let uri = Uri::parse(url).map_err(|e| format!("it is not a URL: {e}"))?;
    let scheme = uri.scheme().as_str();
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err("it must begin with http:// or https://".into());
    }
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return Err("it names no host".into());
    };
    match authority.port_to_u16() {
        Ok(Some(0)) | Err(_) => Err("its port is not a port".into()),
        Ok(_) => Ok(()),
    }
}

/// Takes the user and the password out of a URL, where they mean Basic authentication. The URL must be checked.
pub(crate) fn without_user(url: &str) -> (String, Credentials) {
    let uri = Uri::parse(url).ok();
    let authority = uri.as_ref().and_then(|uri| uri.authority());
    let Some((authority, user)) = authority.and_then(|authority| Some((authority, authority.userinfo()?))) else {
        return (url.to_owned(), Credentials::None);
    };
    let text = |part: &fluent_uri::pct_enc::EStr<_>| part.decode().to_string_lossy().into_owned();
    let (username, password) = match user.split_once(':') {
        Some((username, password)) => (text(username), text(password)),
        None => (text(user), String::new()),
    };
    let bare = url.replacen(&format!("{user}@{}", authority.host()), authority.host(), 1);
    (bare, Credentials::Basic { username, password: Secret::new(password) })
}

/// A URL for people: without its query, its fragment and a password, where secrets may be.
pub(crate) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// How every remote server is reached.
///
/// # Errors
///
/// A file or a proxy cannot be used.
pub(crate) fn outbound(flags: &Flags, environment: &Environment) -> Result<Outbound, Failure> {
    let mut outbound = Outbound::default();
    for (value, given) in [
        (&mut outbound.connect_timeout, flags.connect_timeout),
        (&mut outbound.head_timeout, flags.head_timeout),
        (&mut outbound.body_timeout, flags.body_timeout),
    ] {
        *value = given.unwrap_or(*value);
    }
    outbound.verify = match flags.verify_ssl.as_deref() {
        None => Verify::Native,
        Some(value) => match &*value.to_ascii_lowercase() {
            "" | "1" | "true" | "yes" | "on" => Verify::Native,
            "0" | "false" | "no" | "off" => Verify::Nothing,
            _ => Verify::Bundle(check_file("--verify-ssl", value.as_ref())?),
        },
    };
    // A server that runs us for each request (CGI) hands over the request's `Proxy` header under this name.
    let cgi = environment.get("REQUEST_METHOD").is_some();
    let of = |names: &[&'static str]| names.iter().find_map(|name| Some((*name, environment.get(name)?)));
    let http: &[_] = if cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
    outbound.http_proxy = of(http).map(proxy).transpose()?;
    outbound.https_proxy = of(&["https_proxy", "HTTPS_PROXY"]).map(proxy).transpose()?;
    let exceptions = of(&["no_proxy", "NO_PROXY"]).map_or("", |(_, hosts)| hosts);
    let hosts = exceptions.split(|c: char| c == ',' || c.is_whitespace());
    let bare = |host: &str| host.trim_start_matches("*.").trim_start_matches('.').to_owned();
    outbound.no_proxy = hosts.map(bare).filter(|host| !host.is_empty()).collect();
    Ok(outbound)
}

fn proxy((name, value): (&str, &str)) -> Result<Secret<String>, Failure> {
    let value = value.trim();
    let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let is_http = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if !is_http || check_url(&url).is_err() {
        return Err(Failure::start(format!(
            "{name} must be http://HOST:PORT: other kinds of proxies are not supported"
        )));
    }
    Ok(Secret::new(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for good in ["http://h", "https://h:1/p?q=1#f", "HTTP://[::1]:8080/sse", "http://user:pw@h/", "http://h/a%20b"]
        {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in ["http://", "http:///x", "https://?q", "http://h:0", "http://h:99999", "ws://h", "http://a b", "h"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        for (url, expected) in [
            ("http://u:secret@h:1/p?auth_key=secret", "http://h:1/p"),
            ("http://h", "http://h"),
            ("https://h#secret", "https://h"),
            ("http://u:se/cret@h", "http://u:se/cret@h"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn a_user_in_a_url_is_taken_out() {
        for (url, bare, expected) in [
            ("http://h/a@b", "http://h/a@b", None),
            ("http://u:p%40:q@h:1/u:p?u:p@h", "http://h:1/u:p?u:p@h", Some(("u", "p@:q"))),
            ("https://u@[::1]/", "https://[::1]/", Some(("u", ""))),
            ("http://@h", "http://h", Some(("", ""))),
        ] {
            let basic = |(username, password): (&str, &str)| Credentials::Basic {
                username: username.into(),
                password: Secret::new(password.into()),
            };
            let (rest, credentials) = without_user(url);
            assert_eq!((&*rest, credentials), (bare, expected.map_or(Credentials::None, basic)));
        }
    }

    #[test]
    fn header_fields() {
        let field = |name: &str, value: &str| Ok(Some((name.to_owned(), value.to_owned())));
        assert_eq!(header("X-Key", " v\t"), field("x-key", "v"));
        assert_eq!(header("x", ""), field("x", ""));
        assert_eq!(header("x", "ü"), field("x", "\u{c3}\u{bc}"));
        assert_eq!(header("Host", "x"), Ok(None));
        for (name, value) in [("", "x"), ("a b", "x"), ("a:", "x"), ("x", "hunter2\r\ny: z"), ("x", "hunter2\0")] {
            let why = header(name, value).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn proxies() {
        let with = |pairs: &[(&str, &str)]| {
            let environment = Environment::new(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())));
            let crate::args::Parsed::Line(line) = crate::args::parse([]).unwrap() else { panic!() };
            outbound(&line.flags, &environment)
        };
        let reveal = |proxy: &Option<Secret<String>>| proxy.as_ref().map(|p| p.reveal().clone());
        let both = with(&[
            ("HTTP_PROXY", "http://p:1"),
            ("https_proxy", "q:2"),
            ("HTTPS_PROXY", "http://lower-case-wins"),
            ("NO_PROXY", "localhost, .example.org,*.example.net,,10.0.0.1"),
        ]);
        let both = both.unwrap();
        assert_eq!(reveal(&both.http_proxy).as_deref(), Some("http://p:1"));
        assert_eq!(reveal(&both.https_proxy).as_deref(), Some("http://q:2"));
        assert_eq!(both.no_proxy, ["localhost", "example.org", "example.net", "10.0.0.1"]);
        assert_eq!(with(&[("NO_PROXY", "*")]).unwrap().no_proxy, ["*"]);
        // Under CGI the upper-case name may come from a request.
        let cgi = with(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]).unwrap();
        assert_eq!(cgi.http_proxy, None);
        let cgi = with(&[("http_proxy", "http://p"), ("REQUEST_METHOD", "GET")]).unwrap();
        assert_eq!(reveal(&cgi.http_proxy).as_deref(), Some("http://p"));
        assert_eq!(with(&[("HTTP_PROXY", "")]).unwrap().http_proxy, None);
        for bad in ["socks5://u:hunter2@p", "https://u:hunter2@p", "http://", "http://u:hunter2 @p"] {
            let failure = with(&[("HTTPS_PROXY", bad)]).unwrap_err();
            assert!(failure.code == 1 && failure.text.starts_with("HTTPS_PROXY must be"), "{}", failure.text);
            assert!(!failure.text.contains("hunter2"));
        }
    }
}
