//! How we prove to a remote server who we are: Basic (RFC 7617), Digest (RFC 7616), Bearer (RFC 6750), and bearer tokens
//! fetched with OAuth 2.0 client credentials (RFC 6749, section 4.4).

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::Md5;
use sha2::{Digest as _, Sha256};

use crate::config::Credentials;
use crate::io::{FetchRequest, Headers, Instant, Secret};

/// A token is renewed this long before it ends, or at half of its life if that is shorter.
const EARLY: Duration = Duration::from_secs(60);

/// What one server is told about us.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    token: Option<Token>,
    /// The last challenge of Digest.
    challenge: Option<Challenge>,
    /// Requests answered to that challenge.
    count: u32,
}

#[derive(Debug)]
struct Token {
    value: Secret<String>,
    /// When to fetch the next one.
    renew: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// The server wants `qop=auth`.
    qop: bool,
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Algorithm {
    #[default]
    Md5,
    Sha256,
}

impl Auth {
    pub(crate) const fn new(credentials: Credentials) -> Self {
        Auth { credentials, token: None, challenge: None, count: 0 }
    }

    /// Whether a token must be fetched before anything else is sent.
    pub(crate) fn needs_token(&self, now: Instant) -> bool {
        matches!(self.credentials, Credentials::ClientCredentials { .. })
            && self.token.as_ref().is_none_or(|token| token.renew.is_some_and(|renew| renew <= now))
    }

    /// The value of `Authorization` for a request.
    pub(crate) fn header(&mut self, method: &str, path: &str, cnonce: u64) -> Option<String> {
        match &self.credentials {
            Credentials::None => None,
            Credentials::Bearer(token) => Some(format!("Bearer {}", token.reveal())),
            Credentials::Basic { username, password } => Some(basic(username, password.reveal())),
            Credentials::Digest { username, password } => {
                let challenge = self.challenge.as_ref()?;
                self.count += 1;
                Some(challenge.answer(username, password.reveal(), method, path, self.count, cnonce))
            }
            Credentials::ClientCredentials { .. } => {
                self.token.as_ref().map(|token| format!("Bearer {}", token.value.reveal()))
            }
        }
    }

    /// The server answered 401. True if the request is worth sending again, with what is known now.
    pub(crate) fn challenged(&mut self, response: &Headers) -> bool {
        match &self.credentials {
            Credentials::Digest { .. } => {
                let challenge = response.get_all("www-authenticate").find_map(Challenge::parse);
                self.count = 0;
                self.challenge = challenge;
                self.challenge.is_some()
            }
            // There was none yet, or it was withdrawn before its time.
            Credentials::ClientCredentials { .. } => {
                self.token = None;
                true
            }
            _ => false,
        }
    }

    /// The request for a token.
    pub(crate) fn token_request(&self) -> Option<FetchRequest> {
        let Credentials::ClientCredentials { id, secret, token_url } = &self.credentials else { return None };
        let mut headers = Headers::new();
        headers.push("content-type", "application/x-www-form-urlencoded");
        headers.push("accept", "application/json");
        // RFC 6749, section 2.3.1: both parts are form-encoded before they are joined.
        headers.push("authorization", basic(&form(id), &form(secret.reveal())));
        let body = b"grant_type=client_credentials".to_vec();
        Some(FetchRequest { method: "POST", url: Secret::new(token_url.clone()), headers, body })
    }

    /// Takes the answer to [`Auth::token_request`].
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub(crate) fn token_answered(&mut self, now: Instant, status: u16, body: &[u8]) -> Result<(), String> {
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        if status != 200 {
            // RFC 6749, section 5.2: the error is a code, no secret.
            let error = answer.get("error").and_then(serde_json::Value::as_str).unwrap_or("no reason given");
            return Err(format!("the token endpoint answered {status}: {error}. Check --client-id, --client-secret"));
        }
        let Some(value) = answer.get("access_token").and_then(serde_json::Value::as_str) else {
            return Err("the token endpoint sent no access_token. Check --token-url".into());
        };
        let life = answer.get("expires_in").and_then(serde_json::Value::as_u64).map(Duration::from_secs);
        let renew = life.map(|life| now + life.saturating_sub(EARLY.min(life / 2)));
        self.token = Some(Token { value: Secret::new(value.to_owned()), renew });
        Ok(())
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

/// `application/x-www-form-urlencoded`.
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

impl Challenge {
    /// Reads a `WWW-Authenticate: Digest` that we can answer.
    fn parse(header: &str) -> Option<Challenge> {
        let rest = header.trim_start();
        if !rest.get(..7)?.eq_ignore_ascii_case("digest ") {
            return None;
        }
        let mut challenge = Challenge::default();
        for (name, value) in parameters(&rest[7..]) {
            match &*name.to_ascii_lowercase() {
                "realm" => challenge.realm = value,
                "nonce" => challenge.nonce = value,
                "opaque" => challenge.opaque = Some(value),
                "qop" => challenge.qop = value.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")),
                "algorithm" if value.eq_ignore_ascii_case("md5") => challenge.algorithm = Algorithm::Md5,
                "algorithm" if value.eq_ignore_ascii_case("sha-256") => challenge.algorithm = Algorithm::Sha256,
                "algorithm" => return None,
                _ => {}
            }
        }
        if challenge.nonce.is_empty() { None } else { Some(challenge) }
    }

    fn answer(&self, username: &str, password: &str, method: &str, path: &str, count: u32, cnonce: u64) -> String {
        let Challenge { realm, nonce, .. } = self;
        let hash = |text: String| match self.algorithm {
            Algorithm::Md5 => hex(&Md5::digest(text)),
            Algorithm::Sha256 => hex(&Sha256::digest(text)),
        };
        let secret = hash(format!("{username}:{realm}:{password}"));
        let request = hash(format!("{method}:{path}"));
        let name = match self.algorithm {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        };
        let mut out = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", algorithm={name}",
            quoted(username),
            quoted(realm),
            quoted(nonce),
            quoted(path)
        );
        let response = if self.qop {
            // The nonce of ours only has to differ from request to request.
            let (count, cnonce) = (format!("{count:08x}"), format!("{cnonce:016x}"));
            out += &format!(", qop=auth, nc={count}, cnonce=\"{cnonce}\"");
            hash(format!("{secret}:{nonce}:{count}:{cnonce}:auth:{request}"))
        } else {
            hash(format!("{secret}:{nonce}:{request}"))
        };
        out += &format!(", response=\"{response}\"");
        if let Some(opaque) = &self.opaque {
            out += &format!(", opaque=\"{}\"", quoted(opaque));
        }
        out
    }
}

/// `name=value` and `name="value"`, separated by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let (mut value, mut chars) = (String::new(), quoted.char_indices());
            let mut end = quoted.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    c => value.push(c),
                }
            }
            (value, &quoted[end..])
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        found.push((name.trim().to_owned(), value));
        rest = tail.trim_start_matches([' ', ',']);
    }
    found
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_standard() {
        // RFC 7616, section 3.9.1, but for the nonce of the client, which is ours.
        let header = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let challenge = Challenge::parse(header).unwrap();
        let answer = challenge.answer("Mufasa", "Circle of Life", "GET", "/dir/index.html", 1, 0x1234);
        let secret = hex(&Md5::digest("Mufasa:http-auth@example.org:Circle of Life"));
        let request = hex(&Md5::digest("GET:/dir/index.html"));
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let expected = hex(&Md5::digest(format!("{secret}:{nonce}:00000001:0000000000001234:auth:{request}")));
        assert!(answer.contains(&format!("response=\"{expected}\"")), "{answer}");
        assert!(answer.contains("opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""));
        // RFC 2069, section 2.4 (with its published correction): no qop.
        let old = "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"";
        let answer = Challenge::parse(old).unwrap().answer("Mufasa", "CircleOfLife", "GET", "/dir/index.html", 1, 0);
        assert!(answer.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{answer}");
    }

    #[test]
    fn challenges_we_cannot_answer() {
        for header in
            ["Basic realm=\"x\"", "Digest realm=\"x\"", "Digest nonce=\"x\", algorithm=SHA-512-256", "Digest", ""]
        {
            assert!(Challenge::parse(header).is_none(), "{header}");
        }
    }

    #[test]
    fn tokens_are_renewed_in_time() {
        let mut auth = Auth::new(Credentials::ClientCredentials {
            id: "my id".into(),
            secret: Secret::new("s:ß".into()),
            token_url: "https://auth.example/token".into(),
        });
        let request = auth.token_request().unwrap();
        let expected = format!("Basic {}", BASE64_STANDARD.encode("my+id:s%3A%C3%9F"));
        assert_eq!(request.headers.get("authorization"), Some(&*expected));
        let at = |s| Instant::at(Duration::from_secs(s));
        assert!(auth.needs_token(at(0)));
        assert_eq!(auth.header("POST", "/", 0), None);
        auth.token_answered(at(0), 200, br#"{"access_token":"t","expires_in":600}"#).unwrap();
        assert_eq!(auth.header("POST", "/", 0).as_deref(), Some("Bearer t"));
        assert!(!auth.needs_token(at(539)));
        assert!(auth.needs_token(at(540)));
        assert!(auth.challenged(&Headers::new()), "a new token is worth a try");
        assert!(auth.needs_token(at(0)));
        assert!(auth.challenged(&Headers::new()), "so is the first one");
        let error = auth.token_answered(at(0), 401, br#"{"error":"invalid_client"}"#).unwrap_err();
        assert!(error.contains("401: invalid_client"), "{error}");
        assert!(auth.token_answered(at(0), 200, b"<html>").is_err());
    }
}
