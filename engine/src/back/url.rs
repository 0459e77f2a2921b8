//! URLs of remote servers: what a reference from the server means, and whether it stays with the same server.

use fluent_uri::{Uri, UriRef};

/// An absolute `http` or `https` URL without a fragment. `None` if the text is no such thing.
pub(crate) fn parse(text: &str) -> Option<Uri<String>> {
    let uri = Uri::parse(text).ok()?;
    let web = uri.scheme().as_str().eq_ignore_ascii_case("http") || uri.scheme().as_str().eq_ignore_ascii_case("https");
    let host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
    if web && host { Some(uri.strip_fragment().into()) } else { None }
}

/// What `reference` means when `base` said it.
pub(crate) fn resolve(base: &str, reference: &str) -> Option<String> {
    let base = parse(base)?;
    let target = UriRef::parse(reference).ok()?.resolve_against(&base).ok()?;
    parse(target.as_str()).map(|uri| uri.as_str().to_owned())
}

/// Whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(one: &str, other: &str) -> bool {
    origin(one).is_some_and(|origin_of_one| origin(other) == Some(origin_of_one))
}

fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri = parse(url)?;
    let authority = uri.authority()?;
    let scheme = uri.scheme().as_str().to_ascii_lowercase();
    let port = match authority.port() {
        Some(port) if !port.as_str().is_empty() => port.as_str().parse().ok()?,
        _ if scheme == "https" => 443,
        _ => 80,
    };
    Some((scheme, authority.host().to_ascii_lowercase(), port))
}

/// The URL without its query, which may hold a key: for the log.
pub(crate) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let base = "https://h.example:8443/a/b/sse?key=1";
        for (reference, expected) in [
            ("/messages/?session_id=1", Some("https://h.example:8443/messages/?session_id=1")),
            ("messages?x=1", Some("https://h.example:8443/a/b/messages?x=1")),
            ("../m", Some("https://h.example:8443/a/m")),
            ("?x=2", Some("https://h.example:8443/a/b/sse?x=2")),
            ("http://other.example/x#f", Some("http://other.example/x")),
            ("//other.example/x", Some("https://other.example/x")),
            ("ftp://h/x", None),
            ("javascript:alert(1)", None),
            ("https://", None),
            ("/a b", None),
        ] {
            assert_eq!(resolve(base, reference).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn origins() {
        for (one, other, expected) in [
            ("http://h/a", "http://H:80/b?c", true),
            ("https://h/a", "https://h:443", true),
            ("http://h/a", "https://h/a", false),
            ("http://h/a", "http://h:8080/a", false),
            ("http://h/a", "http://h.evil/a", false),
            ("http://h@evil/a", "http://h/a", false),
            ("http://[::1]:5/", "http://[::1]:5/x", true),
            ("nonsense", "nonsense", false),
        ] {
            assert_eq!(same_origin(one, other), expected, "{one} {other}");
        }
    }
}
