//! `requestState` of our own: a token that names a parked call (specification 2026-07-28, basic/patterns/mrtr, server
//! requirements 4 and 5).
//!
//! The token goes to a client and comes back from one, so it is an attacker's input. It says who was let in, for which
//! request and until when, under a message authentication code. It is not encrypted: nothing in it is a secret. That a call
//! is resumed only once is not its business; the table of parked calls sees to that.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// How a token of ours begins. The number is that of the layout.
const PREFIX: &str = "mcpp1.";
/// Bytes of the claims: four numbers of eight, one of four, one digest.
const CLAIMS: usize = 4 * 8 + 4 + 32;
/// Bytes of the code over them.
const MAC: usize = 32;
/// Characters of both in Base64 without padding.
const TEXT: usize = ((CLAIMS + MAC) * 4).div_ceil(3);

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Which run of the program parked the call.
    pub(crate) instance: u64,
    /// Which session holds it.
    pub(crate) session: u64,
    /// Which question of the call this is.
    pub(crate) round: u32,
    /// When the token stops being good: seconds of the caller's clock.
    pub(crate) expires: u64,
    /// Which key let the caller in.
    pub(crate) who: usize,
    /// [`digest`] of the request.
    pub(crate) digest: [u8; 32],
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsealed {
    /// It does not look like ours: it may be the server's own.
    Foreign,
    /// It looks like ours, and is not.
    Forged,
}

/// Whether this looks like a token of ours.
pub(crate) fn is_ours(state: &str) -> bool {
    state.starts_with(PREFIX)
}

/// Makes a token.
pub(crate) fn seal(key: &[u8; 32], claims: &Claims) -> String {
    let mut bytes = Vec::with_capacity(CLAIMS + MAC);
    bytes.extend_from_slice(&claims.instance.to_be_bytes());
    bytes.extend_from_slice(&claims.session.to_be_bytes());
    bytes.extend_from_slice(&claims.round.to_be_bytes());
    bytes.extend_from_slice(&claims.expires.to_be_bytes());
    bytes.extend_from_slice(&(claims.who as u64).to_be_bytes());
    bytes.extend_from_slice(&claims.digest);
    let code = authenticator(key, &bytes).finalize().into_bytes();
    bytes.extend_from_slice(&code);
    let mut token = String::with_capacity(PREFIX.len() + TEXT);
    token.push_str(PREFIX);
    BASE64_URL_SAFE_NO_PAD.encode_string(bytes, &mut token);
    token
}

/// Reads a token. Whether its claims suit the request and the time is for the caller to see.
pub(crate) fn unseal(key: &[u8; 32], state: &str) -> Result<Claims, Unsealed> {
    let text = state.strip_prefix(PREFIX).ok_or(Unsealed::Foreign)?;
    // The length first: a long text costs nothing then.
    if text.len() != TEXT {
        return Err(Unsealed::Forged);
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Unsealed::Forged)?;
    let (claims, code) = bytes.split_at_checked(CLAIMS).ok_or(Unsealed::Forged)?;
    authenticator(key, claims).verify_slice(code).map_err(|_| Unsealed::Forged)?;
    read(claims).ok_or(Unsealed::Forged)
}

fn read(mut bytes: &[u8]) -> Option<Claims> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*first)
    }
    Some(Claims {
        instance: u64::from_be_bytes(take(&mut bytes)?),
        session: u64::from_be_bytes(take(&mut bytes)?),
        round: u32::from_be_bytes(take(&mut bytes)?),
        expires: u64::from_be_bytes(take(&mut bytes)?),
        who: usize::try_from(u64::from_be_bytes(take(&mut bytes)?)).ok()?,
        digest: take(&mut bytes)?,
    })
}

fn authenticator(key: &[u8; 32], claims: &[u8]) -> Hmac<Sha256> {
    // A key that is shorter than a block is used as it is, with zeros after it (RFC 2104, section 2).
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut code = Hmac::<Sha256>::new(&block.into());
    code.update(PREFIX.as_bytes());
    code.update(claims);
    code
}

/// A digest of what a request asks for: its method and its parameters, but for those that differ in a retry (`_meta`,
/// `inputResponses`, `requestState`).
///
/// It is the same for the same values in another spelling: the order of the parameters, white space and the escapes of
/// strings do not count. The spelling of numbers does, and so does the order of members further down.
pub(crate) fn digest(method: &str, params: Option<&RawValue>) -> [u8; 32] {
    let mut hash = Sha256::new();
    sized(&mut hash, method.as_bytes());
    match params.map(RawValue::get) {
        // Parameters that are not there are none; a retry needs an object, if only for its state.
        None => hash.update(b"{"),
        Some(text) => match text.starts_with('{').then(|| sorted(text)).transpose() {
            Ok(Some(members)) => {
                hash.update(b"{");
                for (name, value) in members {
                    sized(&mut hash, &name);
                    compact(&mut hash, value.get());
                }
            }
            Ok(None) | Err(_) => {
                hash.update(b"=");
                compact(&mut hash, text);
            }
        },
    }
    hash.finalize().into()
}

fn sized(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// Hashes a JSON text without the white space between its tokens, strings in one spelling, and then a byte that no text has.
fn compact(hash: &mut Sha256, text: &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'"' => {
                let mut escaped = false;
                at += 1;
                while let Some(&byte) = bytes.get(at) {
                    at += 1;
                    match byte {
                        b'\\' => {
                            escaped = true;
                            at += 1;
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
                let spelled = text.get(start..at).unwrap_or_default();
                // What is no text, because it holds half of a surrogate pair, has only its own spelling.
                let plain = if escaped { serde_json::from_str::<String>(spelled).ok() } else { None };
                match plain {
                    Some(plain) => hash.update(serde_json::Value::from(plain).to_string()),
                    None => hash.update(&bytes[start..at.min(bytes.len())]),
                }
            }
            _ => {
                while at < bytes.len() && !matches!(bytes[at], b' ' | b'\t' | b'\r' | b'\n' | b'"') {
                    at += 1;
                }
                hash.update(&bytes[start..at]);
            }
        }
    }
    hash.update([0xff]);
}

/// The members of an object that count, by name. Of two of one name, both are there.
fn sorted(text: &str) -> Result<Vec<(Vec<u8>, &RawValue)>, serde_json::Error> {
    struct Members;
    impl<'a> Visitor<'a> for Members {
        type Value = Vec<(Vec<u8>, &'a RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(name) = map.next_key_seed(Name)? {
                let value = map.next_value()?;
                if !matches!(name.as_slice(), b"_meta" | b"inputResponses" | b"requestState") {
                    members.push((name, value));
                }
            }
            Ok(members)
        }
    }
    /// A name as bytes, because it may hold an escape that is no character.
    struct Name;
    impl<'a> DeserializeSeed<'a> for Name {
        type Value = Vec<u8>;
        fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
            deserializer.deserialize_bytes(self)
        }
    }
    impl Visitor<'_> for Name {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a member name")
        }
        fn visit_bytes<E>(self, name: &[u8]) -> Result<Vec<u8>, E> {
            Ok(name.to_vec())
        }
    }
    let mut members = serde_json::Deserializer::from_str(text).deserialize_map(Members)?;
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

    fn claims() -> Claims {
        Claims { instance: u64::MAX - 1, session: 2, round: 3, expires: 1 << 40, who: 5, digest: [6; 32] }
    }

    #[test]
    fn what_is_sealed_can_be_read() {
        let token = seal(&KEY, &claims());
        assert_eq!(token.len(), PREFIX.len() + TEXT);
        assert_eq!(unseal(&KEY, &token), Ok(claims()));
        let other = Claims { instance: 1, session: u64::MAX, round: u32::MAX, expires: 0, who: 0, digest: [0; 32] };
        assert_eq!(unseal(&KEY, &seal(&KEY, &other)), Ok(other));
    }

    /// The token of these claims, computed apart from this code: the layout and the algorithm stay what they are.
    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(seal(&KEY, &claims()), KNOWN);
    }
    const KNOWN: &str = "mcpp1.__________4AAAAAAAAAAgAAAAMAAAEAAAAAAAAAAAAAAAAFBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgaXXustG7h10xs2NXXeHr2v4q_w6LnmOVzmQTvgWBZqfA";

    #[test]
    fn no_changed_token_is_taken() {
        let token = seal(&KEY, &claims());
        for at in 0..token.len() {
            for flip in [1, 2, 4, 8, 16, 32] {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= flip;
                let changed = String::from_utf8(bytes).unwrap();
                let expected = if at < PREFIX.len() { Unsealed::Foreign } else { Unsealed::Forged };
                assert_eq!(unseal(&KEY, &changed), Err(expected), "{changed}");
            }
            let expected = if at < PREFIX.len() { Unsealed::Foreign } else { Unsealed::Forged };
            assert_eq!(unseal(&KEY, &token[..at]), Err(expected), "{at}");
        }
        for other in [format!("{token}A"), format!("{token}="), format!("{token}{token}"), format!("{token} ")] {
            assert_eq!(unseal(&KEY, &other), Err(Unsealed::Forged), "{other}");
        }
        for other in [format!(" {token}"), String::new(), "opaque".into(), "x".repeat(1 << 24), token.to_uppercase()] {
            assert_eq!(unseal(&KEY, &other), Err(Unsealed::Foreign));
        }
        assert_eq!(unseal(&KEY, &format!("{PREFIX}{}", "é".repeat(TEXT / 2))), Err(Unsealed::Forged));
        assert_eq!(unseal(&KEY, &format!("{PREFIX}{}", "A".repeat(1 << 24))), Err(Unsealed::Forged));
    }

    #[test]
    fn another_key_opens_nothing() {
        for bit in 0..256 {
            let mut key = KEY;
            key[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&key, &seal(&KEY, &claims())), Err(Unsealed::Forged), "{bit}");
        }
    }

    fn of(method: &str, params: &str) -> [u8; 32] {
        digest(method, Some(serde_json::from_str(params).unwrap()))
    }

    #[test]
    fn the_digest_is_of_values() {
        for (one, other) in [
            (r#"{"name":"a","arguments":{"x":[1, 2]}}"#, " { \"arguments\" : {\"x\":[1,2]\t}\r\n,\"name\":\"a\"} "),
            (r#"{"name":"a"}"#, r#"{"_meta":{"progressToken":1},"name":"a"}"#),
            (r#"{"name":"a"}"#, r#"{"name":"a","inputResponses":{"k":{}},"requestState":"s","\u005fmeta":{}}"#),
            (r#"{"name":"é\"/"}"#, r#"{"n\u0061me":"\u00e9\u0022\/"}"#),
            (r#"{"a":{"b c":" \\ "}}"#, r#"{"a":{"b c": " \u005c "}}"#),
            (r#"{"\ud800":1,"a":2}"#, r#"{"a":2 , "\ud800":1}"#),
        ] {
            assert_eq!(of("m", one), of("m", other), "{one} {other}");
        }
        assert_eq!(digest("m", None), of("m", r#"{"_meta":{},"requestState":"x"}"#));
    }

    #[test]
    fn the_digest_tells_requests_apart() {
        let table = [
            ("m", "{}"),
            ("n", "{}"),
            ("m", "null"),
            ("m", "[]"),
            ("m", "[1,2]"),
            ("m", "[12]"),
            ("m", r#"{"a":1}"#),
            ("m", r#"{"a":"1"}"#),
            ("m", r#"{"a":null}"#),
            ("m", r#"{"a":1,"b":2}"#),
            ("m", r#"{"a":2,"b":1}"#),
            ("m", r#"{"a":{"b":2}}"#),
            ("m", r#"{"a":{"_meta":2}}"#),
            ("m", r#"{"a":{"_meta":3}}"#),
            ("m", r#"{"a":" x"}"#),
            ("m", r#"{"a":"x"}"#),
            ("m", r#"{"a":"x "}"#),
            ("m", r#"{"a":"\\ x"}"#),
            ("m", r#"{"a":"\\x"}"#),
            ("m", r#"{"a":"\"x"}"#),
            ("m", r#"{"a":"\" x"}"#),
            ("m", r#"{"a":"\ud800"}"#),
            ("m", r#"{"a":"\ud801"}"#),
            ("m", r#"{"\ud800":1}"#),
            ("m", r#"{"\ud801":1}"#),
            ("m", r#"{"a":1,"a":2}"#),
            ("m", r#"{"a":2,"a":1}"#),
            ("m{", "{}"),
        ];
        for (n, (method, params)) in table.iter().enumerate() {
            for (other_method, other) in &table[..n] {
                assert_ne!(of(method, params), of(other_method, other), "{method} {params} / {other_method} {other}");
            }
        }
    }

    #[test]
    fn the_digest_of_anything_ends() {
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let long = format!(r#"{{"a":"{}"}}"#, r"\u0041".repeat(100_000));
        let wide = format!("{{{}\"z\":1}}", (0..100_000).map(|n| format!(r#""{n}":0,"#)).collect::<String>());
        assert_ne!(of("m", &deep), of("m", &wide));
        assert_eq!(of("m", &long), of("m", &format!(r#"{{"a":"{}"}}"#, "A".repeat(100_000))));
    }
}
