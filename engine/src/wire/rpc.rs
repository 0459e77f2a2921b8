//! JSON-RPC messages: the envelope is read, everything else stays the bytes it was (specification, basic/index).
//!
//! A message is parsed once, for validity and for the few members that route it. To change an id, the bytes are copied
//! around it: see [`splice`].

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// JSON-RPC and MCP error codes that the proxy itself uses.
pub mod code {
    /// Not JSON.
    pub const PARSE: i32 = -32700;
    /// JSON, but not a JSON-RPC message that may come here.
    pub const INVALID_REQUEST: i32 = -32600;
    /// Nobody here knows the method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters are wrong.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The server died, does not answer, or said something invalid.
    pub const INTERNAL: i32 = -32603;
    /// The proxy refuses, for a reason that its text gives.
    pub const REFUSED: i32 = -32000;
    /// The session is unknown (HTTP), or the call took too long.
    pub const NOT_FOUND_OR_TIMEOUT: i32 = -32001;
}

/// An id as it was spelled: a JSON string or an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a>(pub &'a str);

impl Id<'_> {
    /// The number, if this is how we spell our own ids: decimal digits.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        if self.0.bytes().all(|b| b.is_ascii_digit()) { self.0.parse().ok() } else { None }
    }
}

/// A valid message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The whole message, without white space around it.
    pub raw: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
}

/// The three sorts of message.
#[derive(Clone, Debug)]
pub enum Kind<'a> {
    /// Wants an answer.
    Request {
        /// Its id.
        id: Id<'a>,
        /// Its method.
        method: Cow<'a, str>,
        /// Its parameters.
        params: Option<&'a RawValue>,
    },
    /// Wants none.
    Notification {
        /// Its method.
        method: Cow<'a, str>,
        /// Its parameters.
        params: Option<&'a RawValue>,
    },
    /// Is one.
    Response {
        /// The id of the request; `None` if it was `null`, for a request that could not be read.
        id: Option<Id<'a>>,
        /// `Ok(result)` or `Err(error)`.
        outcome: Result<&'a RawValue, &'a RawValue>,
    },
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// [`code::PARSE`] or [`code::INVALID_REQUEST`].
    pub code: i32,
    /// For people.
    pub text: &'static str,
    /// The id, where it could be read.
    pub id: Option<String>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Reads one message.
///
/// ```
/// use mcp_proxy_engine::wire::rpc::{Kind, parse};
/// let message = parse(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap();
/// assert!(matches!(message.kind, Kind::Request { id, .. } if id.0 == "1"));
/// assert!(parse(b"nonsense").is_err());
/// ```
///
/// # Errors
///
/// Says what is wrong, with the code for it and the id if it could be read. A member of the envelope that comes twice is
/// an error, because two readers might choose differently.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed {
        code: code::PARSE,
        text: "the message is not valid UTF-8",
        id: None,
    })?;
    parse_str(text)
}

/// [`parse`], for what is known to be UTF-8.
///
/// # Errors
///
/// As for [`parse`].
pub fn parse_str(text: &str) -> Result<Message<'_>, Malformed> {
    let raw = text.trim_matches([' ', '\t', '\r', '\n']);
    let fail = |code, text, id: Option<Id<'_>>| Malformed { code, text, id: id.map(|id| id.0.to_owned()) };
    let names = ["jsonrpc", "id", "method", "params", "result", "error"];
    let [jsonrpc, id, method, params, result, error] = members(raw, names).map_err(|e| {
        if e.classify() == serde_json::error::Category::Data {
            fail(
                code::INVALID_REQUEST,
                "the message is not a JSON-RPC object, or a member of its envelope comes twice",
                None,
            )
        } else {
            fail(code::PARSE, "the message is not valid JSON", None)
        }
    })?;
    let null_id = id.is_some_and(|id| id.get() == "null");
    let valid_id = id.map(RawValue::get).filter(|id| is_id(id)).map(Id);
    let invalid = |text| Err(fail(code::INVALID_REQUEST, text, valid_id));
    if jsonrpc.and_then(string).as_deref() != Some("2.0") {
        return invalid("the member \"jsonrpc\" must be \"2.0\"");
    }
    if id.is_some() && valid_id.is_none() && !null_id {
        return invalid("the id must be a string or an integer");
    }
    let kind = match (method, result, error) {
        (Some(method), None, None) => {
            let Ok(method) = serde_json::from_str::<Text<'_>>(method.get()).map(|text| text.0) else {
                return invalid("the method must be a string");
            };
            match valid_id {
                Some(id) => Kind::Request { id, method, params },
                None if null_id => return invalid("the id of a request must not be null"),
                None => Kind::Notification { method, params },
            }
        }
        (None, Some(result), None) if id.is_some() => Kind::Response { id: valid_id, outcome: Ok(result) },
        (None, None, Some(error)) => Kind::Response { id: valid_id, outcome: Err(error) },
        _ => return invalid("the message is neither a request, a notification nor a response"),
    };
    Ok(Message { raw, kind })
}

/// Whether the bytes are a JSON array, that is, a batch.
#[must_use]
pub fn is_batch(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[')
}

/// Splits a batch into its members, which are not yet checked.
///
/// # Errors
///
/// If it is not an array, or empty.
pub fn parse_batch(bytes: &[u8]) -> Result<Vec<&str>, Malformed> {
    let fail = |code, text| Malformed { code, text, id: None };
    let text = std::str::from_utf8(bytes).map_err(|_| fail(code::PARSE, "the message is not valid UTF-8"))?;
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| fail(code::PARSE, "the message is not valid JSON"))?;
    if items.is_empty() {
        return Err(fail(code::INVALID_REQUEST, "a batch must not be empty"));
    }
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// A JSON string, borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a JSON string; `None` if it is something else.
#[must_use]
pub fn string<'a>(json: &'a RawValue) -> Option<Cow<'a, str>> {
    serde_json::from_str::<Text<'a>>(json.get()).ok().map(|text| text.0)
}

/// The members of these names of a JSON object. A member that is there and `null` is `Some`.
///
/// # Errors
///
/// If the text is not one JSON object, or if one of the named members comes twice.
pub fn members<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    struct Members<'n, const N: usize>([&'n str; N]);
    impl<'a, const N: usize> Visitor<'a> for Members<'_, N> {
        type Value = [Option<&'a RawValue>; N];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(index) = map.next_key_seed(Which(&self.0))? {
                match index {
                    None => drop(map.next_value::<IgnoredAny>()?),
                    Some(n) if found[n].is_some() => return Err(serde::de::Error::custom("a member comes twice")),
                    Some(n) => found[n] = Some(map.next_value()?),
                }
            }
            Ok(found)
        }
    }
    /// Reads a key and says which of the names it is.
    struct Which<'n>(&'n [&'n str]);
    impl<'a> DeserializeSeed<'a> for Which<'_> {
        type Value = Option<usize>;
        fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            // As bytes, because a name may hold an escape that is no character: half of a surrogate pair.
            deserializer.deserialize_bytes(self)
        }
    }
    impl Visitor<'_> for Which<'_> {
        type Value = Option<usize>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a member name")
        }
        fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
            Ok(self.0.iter().position(|name| name.as_bytes() == key))
        }
    }
    if json.bytes().any(|byte| byte < b' ') {
        // Names that are read as bytes are not checked for raw control characters, so that is done here, where there are any.
        serde_json::from_str::<IgnoredAny>(json)?;
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(Members(names))?;
    deserializer.end()?;
    Ok(found)
}

/// One member of some parameters, if they are an object that has it.
///
/// # Errors
///
/// If the member comes twice.
pub fn member<'a>(params: Option<&'a RawValue>, name: &str) -> Result<Option<&'a RawValue>, DuplicateMember> {
    match params {
        Some(params) if params.get().starts_with('{') => {
            // The text is valid JSON, so the only error left is the second member.
            members(params.get(), [name]).map(|[found]| found).map_err(|_| DuplicateMember)
        }
        _ => Ok(None),
    }
}

/// A member that routes a message came twice: two readers might choose differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateMember;

/// `params._meta.progressToken` of a request.
///
/// # Errors
///
/// If one of the two members comes twice.
pub fn progress_token(params: Option<&RawValue>) -> Result<Option<&RawValue>, DuplicateMember> {
    let Some(params) = params else { return Ok(None) };
    let bytes = params.get().as_bytes();
    // Most requests have no token; a search is cheaper than a parse. An escaped spelling must not hide it from us.
    if memchr::memmem::find(bytes, b"progressToken").is_none() && memchr::memmem::find(bytes, b"\\u").is_none() {
        return Ok(None);
    }
    // A token is a string or an integer (specification, basic/utilities/progress); anything else is none, and stays as it is.
    Ok(member(member(Some(params), "_meta")?, "progressToken")?.filter(|token| is_id(token.get())))
}

/// Where `part`, a piece of `whole`, lies in it.
#[must_use]
pub fn place(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    assert!(start <= whole.len() && part.len() <= whole.len() - start, "the part was borrowed from the whole");
    start..start + part.len()
}

/// Copies `raw` with some of its parts replaced. The parts must be borrowed from `raw`, and must not overlap.
///
/// ```
/// use mcp_proxy_engine::wire::rpc::splice;
/// let raw = r#"{"id":1,"x":1e400}"#;
/// assert_eq!(splice(raw, &mut [(&raw[6..7], "42")]), br#"{"id":42,"x":1e400}"#);
/// ```
#[must_use]
pub fn splice(raw: &str, edits: &mut [(&str, &str)]) -> Vec<u8> {
    edits.sort_unstable_by_key(|(part, _)| place(raw, part).start);
    let grown: usize = edits.iter().map(|(_, new)| new.len()).sum();
    // Room for a line end or a frame, so that the next step need not move it all.
    let mut out = Vec::with_capacity(raw.len() + grown + 16);
    let mut from = 0;
    for (part, new) in edits {
        let place = place(raw, part);
        out.extend_from_slice(&raw.as_bytes()[from..place.start]);
        out.extend_from_slice(new.as_bytes());
        from = place.end;
    }
    out.extend_from_slice(&raw.as_bytes()[from..]);
    out
}

/// Makes one line of a message: line ends between its tokens become spaces (inside a JSON string there are none).
#[must_use]
pub fn line(mut message: Vec<u8>) -> Vec<u8> {
    if memchr::memchr2(b'\n', b'\r', &message).is_some() {
        for byte in &mut message {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    message.push(b'\n');
    message
}

/// A JSON-RPC error response of our own. `id` is raw JSON.
#[must_use]
pub fn error(id: Option<&str>, code: i32, text: &str) -> Vec<u8> {
    let text = serde_json::Value::from(text);
    format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":{text}}}}}"#, id.unwrap_or("null"))
        .into_bytes()
}

fn is_id(raw: &str) -> bool {
    raw.starts_with('"') || raw.bytes().enumerate().all(|(n, b)| b.is_ascii_digit() || (n == 0 && b == b'-'))
}

/// The id of bytes that are no valid message, as far as one can be made out.
#[must_use]
pub fn guess_id(bytes: &[u8]) -> Option<String> {
    let mut scanner = IdScanner::default();
    scanner.feed(bytes);
    scanner.id().map(str::to_owned)
}

/// Finds the id of a message that is too long to hold, from its parts as they pass by.
///
/// ```
/// use mcp_proxy_engine::wire::rpc::IdScanner;
/// let mut scanner = IdScanner::default();
/// scanner.feed(br#"{"result":{"id":1},"#);
/// scanner.feed(br#" "id": 42}"#);
/// assert_eq!(scanner.id(), Some("42"));
/// ```
#[derive(Debug, Default)]
pub struct IdScanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The string that began last at depth 1, as far as it matters.
    word: Vec<u8>,
    /// The value being read at depth 1 belongs to the member `id`.
    in_id: bool,
    id: Vec<u8>,
}

impl IdScanner {
    /// Ids longer than this are not ours.
    const MAX: usize = 32;

    /// Takes the next part of the message.
    pub fn feed(&mut self, part: &[u8]) {
        for &byte in part {
            if self.in_id
                && self.depth == 1
                && !matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
                && self.id.len() < Self::MAX
            {
                self.id.push(byte);
            }
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ if self.depth == 1 && self.word.len() < 8 => self.word.push(byte),
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.word.clear();
                }
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b':' if self.depth == 1 => {
                    self.in_id = self.word == b"id";
                    if self.in_id {
                        self.id.clear();
                    }
                }
                b',' if self.depth == 1 => self.in_id = false,
                _ => {}
            }
        }
    }

    /// The id, raw, if one was seen.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        std::str::from_utf8(&self.id).ok().filter(|id| !id.is_empty() && is_id(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(Message { kind: Kind::Request { id, method, .. }, .. }) => format!("request {} {method}", id.0),
            Ok(Message { kind: Kind::Notification { method, .. }, .. }) => format!("notification {method}"),
            Ok(Message { kind: Kind::Response { id, outcome }, .. }) => {
                format!("response {} {}", id.map_or("null", |id| id.0), if outcome.is_ok() { "ok" } else { "error" })
            }
            Err(e) => format!("{} {}", e.code, e.id.unwrap_or_default()),
        }
    }

    #[test]
    fn envelopes() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request 1 ping"),
            (" {\"jsonrpc\":\"2.0\",\n\"id\":\"a\\u0041\",\"method\":\"p\\u0069ng\"}\r\n", "request \"a\\u0041\" ping"),
            (r#"{"jsonrpc":"2.0","id":-9007199254740993,"method":"x","params":null}"#, "request -9007199254740993 x"),
            (r#"{"jsonrpc":"2.0","method":"n","params":{"a":1e400,"b":"\ud800"}}"#, "notification n"),
            (r#"{"\ud800":1,"jsonrpc":"2.0","id":1,"result":null}"#, "response 1 ok"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, "response 1 error"),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, "response null error"),
            (r#"{"jsonrpc":"2.0","error":{"code":1}}"#, "response null error"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, "-32600 "),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, "-32600 "),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, "-32600 "),
            (r#"{"jsonrpc":"1.0","id":7,"method":"x"}"#, "-32600 7"),
            (r#"{"jsonrpc":2.0,"id":7,"method":"x"}"#, "-32600 7"),
            (r#"{"jsonrpc":"\ud800","id":7,"method":"x"}"#, "-32600 7"),
            (r#"{"id":7,"method":"x"}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7,"method":5}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"x","result":1}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":1,"error":{}}"#, "-32600 7"),
            (r#"{"jsonrpc":"2.0","result":1}"#, "-32600 "),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, "-32600 "),
            (r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"x"}"#, "-32600 "),
            ("[]", "-32600 "),
            ("42", "-32600 "),
            ("", "-32700 "),
            ("{", "-32700 "),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x"} {}"#, "-32700 "),
            (r#"{"jsonrpc":"2.0","id":01,"method":"x"}"#, "-32700 "),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert_eq!(parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}").unwrap_err().code, code::PARSE);
    }

    #[test]
    fn depth_does_not_matter() {
        let deep = format!(r#"{{"jsonrpc":"2.0","method":"x","params":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(kind(&deep), "notification x");
    }

    #[test]
    fn tokens_are_found_however_they_are_spelled() {
        for (params, expected) in [
            (r#"{"_meta":{"progressToken":"t"}}"#, Ok(Some("\"t\""))),
            (r#"{"\u005fmeta":{"progress\u0054oken":7}}"#, Ok(Some("7"))),
            (r#"{"progressToken":1}"#, Ok(None)),
            (r#"{"_meta":5,"x":"progressToken"}"#, Ok(None)),
            (r#"["progressToken"]"#, Ok(None)),
            (r#"{"_meta":{"progressToken":null}}"#, Ok(None)),
            (r#"{"_meta":{"progressToken":1.5}}"#, Ok(None)),
            (r#"{"_meta":{"progressToken":1},"_meta":{}}"#, Err(DuplicateMember)),
            (r#"{"_meta":{"progressToken":1,"progressToken":2}}"#, Err(DuplicateMember)),
        ] {
            let raw: &RawValue = serde_json::from_str(params).unwrap();
            assert_eq!(progress_token(Some(raw)).map(|token| token.map(RawValue::get)), expected, "{params}");
        }
    }

    #[test]
    fn a_message_becomes_one_line() {
        assert_eq!(line(b"{\r\n\"a\": 1\n}".to_vec()), b"{  \"a\": 1 }\n");
        assert_eq!(
            error(Some("\"x\""), -1, "a\"b"),
            br#"{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"a\"b"}}"#
        );
    }

    #[test]
    fn the_id_of_a_long_message_is_found_at_any_split() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":42,"result":{"id":1,"x":"}"}}"#, Some("42")),
            (r#"{"result":{"x":["id",{"id":3}],"y":"\"id\":4"},"id" : 42 }"#, Some("42")),
            (r#"{"x":"id","result":1}"#, None),
            (r#"{"id":null,"result":1}"#, None),
            (r#"{"method":"id","params":{}}"#, None),
        ] {
            for step in 1..text.len() {
                let mut scanner = IdScanner::default();
                text.as_bytes().chunks(step).for_each(|part| scanner.feed(part));
                assert_eq!(scanner.id(), expected, "{text} in steps of {step}");
            }
        }
    }
}
