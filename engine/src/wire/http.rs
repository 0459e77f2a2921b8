//! HTTP/1.1, the server's half: request bytes to requests, responses to bytes (RFC 9112, with RFC 9110 for the meaning).
//!
//! Both drivers speak HTTP through this one file. It is stricter than the RFC allows it to be wherever two readers could
//! understand the same bytes differently (request smuggling): such a request is refused, never repaired.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use memchr::memchr;

use crate::io::{Body, Headers, HttpRequest, HttpResponse};

/// Turns the bytes of one connection into requests.
///
/// ```
/// use mcp_proxy_engine::wire::http::{Item, RequestDecoder};
/// let mut decoder = RequestDecoder::new(1024, 1024);
/// let mut input: &[u8] = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}GET";
/// let Some(Ok(Item::Request(request))) = decoder.next(&mut input) else { panic!() };
/// assert_eq!((&*request.target, &*request.body), ("/mcp", &b"{}"[..]));
/// assert_eq!(input, b"GET"); // the next request, not touched yet
/// ```
#[derive(Debug)]
pub struct RequestDecoder {
    max_head: usize,
    max_body: usize,
    state: State,
    /// Empty lines seen before the request line, and whether a CR of another one was.
    blank: (u8, bool),
    /// The beginning of a head that did not come in one piece.
    head: Vec<u8>,
    /// The beginning of a chunk-size line or of a trailer line.
    line: Vec<u8>,
    /// Bytes of chunk extensions that may still come in this request.
    extensions: usize,
    /// Bytes of trailers that may still come in this request.
    trailers: usize,
    /// The request whose body is being read.
    request: Option<Box<Decoded>>,
    /// The request in `request` waits for `100 Continue`.
    announce: bool,
}

/// What [`RequestDecoder::next`] yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The client waits for `100 Continue` before it sends the body: send [`CONTINUE`].
    Continue,
    /// A complete request.
    Request(Box<Decoded>),
}

/// A complete request, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The method, as sent.
    pub method: String,
    /// The target, as sent: origin form, absolute form or `*`. Visible ASCII.
    pub target: String,
    /// The fields of the head. Trailers are dropped.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
    /// What its response must know.
    pub asked: Asked,
    /// About how much memory it takes, in bytes.
    pub size: usize,
}

impl Decoded {
    /// The request as the engine takes it. `random` is 16 fresh bytes from the system.
    #[must_use]
    pub fn into_request(self, random: [u8; 16]) -> HttpRequest {
        HttpRequest { method: self.method, target: self.target, headers: self.headers, body: self.body, random }
    }
}

/// What a response must know about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request was HTTP/1.0: no chunks, and the connection ends unless both sides say otherwise.
    pub http10: bool,
    /// The method was HEAD: no body.
    pub head: bool,
    /// The connection may carry another request afterwards.
    pub keep_alive: bool,
}

/// A request that is not served. After it the connection must be closed: what follows on it cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// What is wrong, for people. No character that JSON would escape.
    pub text: &'static str,
}

impl Refusal {
    /// The client took too long; the driver's own finding.
    pub const TIMEOUT: Refusal = Refusal { status: 408, text: "the request did not arrive in time" };

    /// What the response to a refused request must know: nothing of it was understood, and the connection ends.
    pub const ASKED: Asked = Asked { http10: false, head: false, keep_alive: false };

    /// The answer: the status, and a JSON-RPC error without an id.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let mut headers = Headers::new();
        headers.push("content-type", "application/json");
        let text = self.text;
        let body = format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":-32600,"message":"{text}"}}}}"#);
        HttpResponse { status: self.status, headers, body: Body::Full(body.into_bytes()) }
    }
}

/// Where a decoder stands, which says which time limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between two requests.
    Idle,
    /// Inside a head.
    Head,
    /// Inside a body.
    Body,
    /// A request was refused; whatever comes is skipped.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// A body of known length, of which this much is missing.
    Length(usize),
    ChunkSize,
    /// A chunk, of which this much is missing.
    Chunk(usize),
    /// The line end after a chunk; true: its CR was seen.
    ChunkEnd(bool),
    Trailers,
    /// The request is complete.
    Complete,
    Refused,
}

/// Empty lines tolerated before a request line (RFC 9112, section 2.2, asks for at least one).
const MAX_BLANK: u8 = 4;
/// Fields in one head.
const MAX_FIELDS: usize = 128;
/// Bytes of chunk extensions in one request. Nobody sends any; a flood of them would make a small body expensive.
const MAX_EXTENSIONS: usize = 1024;
/// The longest chunk size: more hexadecimal digits do not fit 64 bits.
const MAX_CHUNK_DIGITS: usize = 16;
/// What a body is given before its bytes arrive, whatever length it announces.
const FIRST_BODY: usize = 64 * 1024;

const fn refuse<T>(status: u16, text: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, text })
}

impl RequestDecoder {
    /// A decoder for one connection. A head (or the trailers) may take `max_head` bytes, a body `max_body`.
    #[must_use]
    pub const fn new(max_head: usize, max_body: usize) -> Self {
        RequestDecoder {
            max_head,
            max_body,
            state: State::Head,
            blank: (0, false),
            head: Vec::new(),
            line: Vec::new(),
            extensions: 0,
            trailers: 0,
            request: None,
            announce: false,
        }
    }

    /// Where it stands after the input it was given.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head if self.head.is_empty() => Phase::Idle,
            State::Head => Phase::Head,
            State::Refused => Phase::Refused,
            _ => Phase::Body,
        }
    }

    /// Yields the next item, or takes all of the input and returns `None`.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] is the last item: afterwards all input is skipped.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Item, Refusal>> {
        let item = self.step(input);
        if let Some(Err(_)) = item {
            let (max_head, max_body) = (self.max_head, self.max_body);
            *self = RequestDecoder { state: State::Refused, ..RequestDecoder::new(max_head, max_body) };
            *input = &[];
        }
        item
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<Result<Item, Refusal>> {
        loop {
            // `?` on the Option: more bytes are needed.
            let moved = match self.state {
                State::Head => self.read_head(input)?,
                State::Length(left) => self.read_length(input, left)?,
                State::ChunkSize => self.read_chunk_size(input)?,
                State::Chunk(left) => self.read_chunk(input, left)?,
                State::ChunkEnd(cr) => Self::read_chunk_end(input, cr)?,
                State::Trailers => self.read_trailer(input)?,
                State::Complete => {
                    self.state = State::Head;
                    let mut request = self.request.take()?;
                    request.size += request.body.len();
                    return Some(Ok(Item::Request(request)));
                }
                State::Refused => {
                    *input = &[];
                    return None;
                }
            };
            match moved {
                Ok(state) => self.state = state,
                Err(refusal) => return Some(Err(refusal)),
            }
            if std::mem::take(&mut self.announce) {
                return Some(Ok(Item::Continue));
            }
        }
    }

    fn read_head(&mut self, input: &mut &[u8]) -> Option<Result<State, Refusal>> {
        if self.head.is_empty()
            && let Err(refusal) = self.skip_blank_lines(input)?
        {
            return Some(Err(refusal));
        }
        let kept = self.head.len();
        let window = &input[..input.len().min(self.max_head - kept)];
        let byte = |at: usize| if at < kept { self.head[at] } else { window[at - kept] };
        let mut from = 0;
        while let Some(found) = memchr(b'\n', &window[from..]) {
            from += found + 1;
            let line_end = kept + from;
            // The first byte of a head is no line end, so there is one byte before at least.
            if byte(line_end - 2) != b'\r' {
                return Some(refuse(400, "a line of the head ends without CR"));
            }
            if line_end > 2 && byte(line_end - 3) == b'\n' {
                let (rest, after) = input.split_at(from);
                *input = after;
                if kept == 0 {
                    return Some(self.parse_head(rest));
                }
                let mut head = std::mem::take(&mut self.head);
                head.extend_from_slice(rest);
                return Some(self.parse_head(&head));
            }
        }
        if kept + window.len() == self.max_head {
            return Some(refuse(431, "the head of the request is too large"));
        }
        self.head.extend_from_slice(window);
        *input = &[];
        None
    }

    /// `None`: the request line has not begun.
    fn skip_blank_lines(&mut self, input: &mut &[u8]) -> Option<Result<(), Refusal>> {
        loop {
            let (&first, rest) = input.split_first()?;
            match (first, self.blank) {
                (b'\r', (count, false)) if count < MAX_BLANK => self.blank.1 = true,
                (b'\n', (count, true)) => self.blank = (count + 1, false),
                // An early word for those who speak something else to us, such as TLS.
                (b, (_, false)) if is_token(b) => {
                    self.blank = (0, false);
                    return Some(Ok(()));
                }
                _ => return Some(refuse(400, "this is not an HTTP request")),
            }
            *input = rest;
        }
    }

    /// Reads a whole head and says what follows it.
    fn parse_head(&mut self, head: &[u8]) -> Result<State, Refusal> {
        let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut fields) {
            Ok(httparse::Status::Complete(end)) if end == head.len() => {}
            Ok(_) => return refuse(400, "the head of the request is malformed"),
            Err(httparse::Error::Version) if names_other_version(head) => {
                return refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
            }
            Err(httparse::Error::TooManyHeaders) => return refuse(431, "the request has too many header fields"),
            Err(httparse::Error::Version) => return refuse(400, "the request line is malformed"),
            Err(_) => return refuse(400, "the head of the request is malformed"),
        }
        let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
        let http10 = parsed.version == Some(0);
        check_target(method, target)?;

        let mut headers = Headers::new();
        let mut length = None;
        let mut chunked = false;
        let mut host = false;
        let mut expects = false;
        let (mut close, mut keep) = (false, false);
        for field in parsed.headers.iter() {
            let (name, value) = (field_name(field.name), field.value);
            match &*name {
                "content-length" if length.is_some() => return refuse(400, "content-length is given more than once"),
                "content-length" => length = Some(parse_length(value)?),
                "transfer-encoding" if http10 => return refuse(400, "HTTP/1.0 has no transfer-encoding"),
                "transfer-encoding" if chunked => return refuse(400, "transfer-encoding is given more than once"),
                "transfer-encoding" if !value.eq_ignore_ascii_case(b"chunked") => {
                    return refuse(501, "the only transfer coding understood here is chunked");
                }
                "transfer-encoding" => chunked = true,
                "host" if host => return refuse(400, "host is given more than once"),
                "host" if !value.iter().all(|&b| is_host(b)) => return refuse(400, "host is malformed"),
                "host" => host = true,
                "expect" if http10 => {}
                "expect" if value.eq_ignore_ascii_case(b"100-continue") => expects = true,
                "expect" => return refuse(417, "the only expectation met here is 100-continue"),
                "connection" => {
                    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
            headers.push(name, latin1(value));
        }
        if chunked && length.is_some() {
            return refuse(400, "transfer-encoding and content-length exclude each other");
        }
        if !host && !http10 {
            return refuse(400, "host is missing");
        }
        let length = length.unwrap_or_default();
        if length > self.max_body as u64 {
            return refuse(413, "the body of the request is too large");
        }
        let length = length as usize; // not above max_body, which is a usize

        let asked = Asked { http10, head: method == "HEAD", keep_alive: !close && (!http10 || keep) };
        // Every field costs two strings beside its text.
        let size = head.len() + 64 * (4 + headers.iter().count());
        let body = Vec::with_capacity(length.min(FIRST_BODY));
        let (method, target) = (method.to_owned(), target.to_owned());
        self.request = Some(Box::new(Decoded { method, target, headers, body, asked, size }));
        self.announce = expects && (chunked || length > 0);
        self.extensions = MAX_EXTENSIONS;
        self.trailers = self.max_head;
        Ok(match length {
            _ if chunked => State::ChunkSize,
            0 => State::Complete,
            _ => State::Length(length),
        })
    }

    fn read_length(&mut self, input: &mut &[u8], left: usize) -> Option<Result<State, Refusal>> {
        match self.take_body(input, left)? {
            0 => Some(Ok(State::Complete)),
            left => Some(Ok(State::Length(left))),
        }
    }

    fn read_chunk(&mut self, input: &mut &[u8], left: usize) -> Option<Result<State, Refusal>> {
        match self.take_body(input, left)? {
            0 => Some(Ok(State::ChunkEnd(false))),
            left => Some(Ok(State::Chunk(left))),
        }
    }

    /// Moves up to `left` bytes into the body; says how many are missing then. `None` if there is no input.
    fn take_body(&mut self, input: &mut &[u8], left: usize) -> Option<usize> {
        if input.is_empty() {
            return None;
        }
        let (part, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        self.request.as_mut()?.body.extend_from_slice(part);
        Some(left - part.len())
    }

    fn read_chunk_size(&mut self, input: &mut &[u8]) -> Option<Result<State, Refusal>> {
        let line = match self.take_line(input, MAX_CHUNK_DIGITS + 2 + self.extensions)? {
            Ok(line) => line,
            Err(false) => return Some(refuse(400, "a chunk size is too long")),
            Err(true) => return Some(refuse(400, "a chunk size ends without CR")),
        };
        Some(self.parse_chunk_size(&line))
    }

    fn parse_chunk_size(&mut self, line: &[u8]) -> Result<State, Refusal> {
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        if size.is_empty() || size.len() > MAX_CHUNK_DIGITS {
            return refuse(400, "a chunk size is malformed");
        }
        if !extension.is_empty() && (extension[0] != b';' || !extension.iter().all(|&b| is_text(b))) {
            return refuse(400, "a chunk size is malformed");
        }
        self.extensions = match self.extensions.checked_sub(extension.len()) {
            Some(left) => left,
            None => return refuse(400, "the chunk extensions are too long"),
        };
        let size = size.iter().fold(0_u64, |size, &b| size << 4 | u64::from(hex(b)));
        let have = self.request.as_ref().map_or(0, |r| r.body.len());
        match size {
            0 => Ok(State::Trailers),
            _ if size > (self.max_body - have) as u64 => refuse(413, "the body of the request is too large"),
            _ => Ok(State::Chunk(size as usize)), // not above max_body, which is a usize
        }
    }

    fn read_chunk_end(input: &mut &[u8], cr: bool) -> Option<Result<State, Refusal>> {
        let (&first, rest) = input.split_first()?;
        *input = rest;
        Some(match (first, cr) {
            (b'\r', false) => Ok(State::ChunkEnd(true)),
            (b'\n', true) => Ok(State::ChunkSize),
            _ => refuse(400, "a chunk does not end where its size says"),
        })
    }

    fn read_trailer(&mut self, input: &mut &[u8]) -> Option<Result<State, Refusal>> {
        let line = match self.take_line(input, self.trailers)? {
            Ok(line) => line,
            Err(false) => return Some(refuse(431, "the trailers of the request are too large")),
            Err(true) => return Some(refuse(400, "a trailer ends without CR")),
        };
        self.trailers -= line.len() + 2;
        Some(match line.iter().position(|&b| b == b':') {
            _ if line.is_empty() => Ok(State::Complete),
            Some(at) if at > 0 && line[..at].iter().all(|&b| is_token(b)) && line.iter().all(|&b| is_text(b)) => {
                Ok(State::Trailers)
            }
            _ => refuse(400, "a trailer is malformed"),
        })
    }

    /// The next line without its CR LF. With its end it may take `max` bytes. `Err(true)`: it ends without CR.
    fn take_line(&mut self, input: &mut &[u8], max: usize) -> Option<Result<Vec<u8>, bool>> {
        let window = &input[..input.len().min(max - self.line.len())];
        let end = memchr(b'\n', window);
        let (part, rest) = input.split_at(end.map_or(window.len(), |end| end + 1));
        self.line.extend_from_slice(part);
        if end.is_none() {
            if self.line.len() == max {
                return Some(Err(false));
            }
            *input = rest;
            return None;
        }
        *input = rest;
        let mut line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\r\n") {
            return Some(Err(true));
        }
        line.truncate(line.len() - 2);
        Some(Ok(line))
    }
}

fn check_target(method: &str, target: &str) -> Result<(), Refusal> {
    if method == "CONNECT" {
        return refuse(501, "this is no forward proxy");
    }
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse(400, "the request target is malformed");
    }
    let scheme = target.split_once("://").map_or("", |(scheme, _)| scheme);
    let absolute = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if target.starts_with('/') || absolute || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    refuse(400, "the request target is malformed")
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return refuse(400, "content-length is not a number");
    }
    // Too large for 64 bits is too large for us.
    Ok(value.iter().fold(0_u64, |sum, b| sum.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

/// The request line ends in a well-formed version that is not ours.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ').skip(2);
    let (Some(version), None) = (words.next(), words.next()) else { return false };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// A byte of a field name or a method (RFC 9110, section 5.6.2).
pub(super) const fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A byte of a field value.
pub(super) const fn is_text(b: u8) -> bool {
    (b >= b' ' && b != 0x7f) || b == b'\t'
}

/// A byte of a `Host` value: those of RFC 3986, section 3.2.2, without the comma, which would hide a second one.
const fn is_host(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'!' | b'$'..=b'+' | b'-' | b'.' | b':' | b';' | b'=' | b'[' | b']' | b'_' | b'~')
}

/// The value of a hexadecimal digit.
const fn hex(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { (digit | 0x20) - b'a' + 10 }
}

/// The name in lower case; without a copy for those that come with nearly every request.
pub(super) fn field_name(name: &str) -> Cow<'static, str> {
    const COMMON: [&str; 24] = [
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "origin",
        "referer",
        "sec-fetch-mode",
        "transfer-encoding",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    ];
    match COMMON.iter().find(|common| common.eq_ignore_ascii_case(name)) {
        Some(common) => Cow::Borrowed(common),
        None => Cow::Owned(name.to_ascii_lowercase()),
    }
}

pub(super) fn latin1(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if value.is_ascii() => text.to_owned(),
        _ => value.iter().map(|&b| char::from(b)).collect(),
    }
}

/// What [`Item::Continue`] asks to be sent.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Up to this, a body is copied behind its head, so that one small write carries both; above it the copy costs more.
const SMALL: usize = 16 * 1024;

/// Bytes to be written, in order, in as few writes as possible.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    head: Vec<u8>,
    body: Vec<u8>,
    tail: &'static [u8],
    written: usize,
}

impl Outgoing {
    /// Only these bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Outgoing { head: bytes, body: Vec::new(), tail: b"", written: 0 }
    }

    /// What is still to be written, in order; for a vectored write. Slices may be empty, the first only if all are.
    #[must_use]
    pub fn slices(&self) -> [&[u8]; 3] {
        let mut written = self.written;
        let mut rest = [&self.head[..], &self.body[..], self.tail].map(|part| {
            let skip = written.min(part.len());
            written -= skip;
            &part[skip..]
        });
        while rest[0].is_empty() && rest.iter().any(|part| !part.is_empty()) {
            rest.rotate_left(1);
        }
        rest
    }

    /// How many bytes are still to be written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len() - self.written
    }

    /// Everything is written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These many bytes more are written.
    pub fn advance(&mut self, written: usize) {
        self.written += written.min(self.len());
    }
}

/// How the body of a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing may follow the head; what is written on the stream is dropped.
    None,
    /// The body was whole, and is part of the first [`Outgoing`].
    Whole,
    /// [`encode_chunk`], then [`LAST_CHUNK`].
    Chunked,
    /// The bytes as they are; the end of the connection is the end of the body.
    UntilClose,
}

/// What [`encode_response`] makes of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The head, and the body if it is whole.
    pub bytes: Outgoing,
    /// How a streamed body is to be framed.
    pub framing: Framing,
    /// The connection may carry another request when the response is complete.
    pub keep_alive: bool,
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Encodes a response to a request. `date` is for the `date` field: see [`http_date`].
///
/// A character that no field value may hold becomes a space.
#[must_use]
pub fn encode_response(response: HttpResponse, asked: Asked, date: Option<&str>) -> Encoded {
    let HttpResponse { status, headers, body } = response;
    let bare = asked.head || status == 204 || status == 304;
    let framing = match &body {
        _ if bare => Framing::None,
        Body::Full(_) => Framing::Whole,
        Body::Stream if asked.http10 => Framing::UntilClose,
        Body::Stream => Framing::Chunked,
    };
    let keep_alive = asked.keep_alive && framing != Framing::UntilClose;

    let small = match &body {
        Body::Full(bytes) if framing == Framing::Whole && bytes.len() <= SMALL => bytes.len(),
        _ => 0,
    };
    let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut head = Vec::with_capacity(160 + fields + small);
    head.extend_from_slice(b"HTTP/1.1 "); // to HTTP/1.0 as well: RFC 9110, section 2.5
    push_number(&mut head, usize::from(status));
    head.push(b' ');
    head.extend_from_slice(reason(status).as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers.iter() {
        push_field(&mut head, name, value);
    }
    if let Some(date) = date {
        push_field(&mut head, "date", date);
    }
    match &body {
        Body::Full(bytes) if status != 204 && status != 304 => {
            head.extend_from_slice(b"content-length: ");
            push_number(&mut head, bytes.len());
            head.extend_from_slice(b"\r\n");
        }
        Body::Stream if framing == Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    match (keep_alive, asked.http10) {
        (false, _) => head.extend_from_slice(b"connection: close\r\n"),
        (true, true) => head.extend_from_slice(b"connection: keep-alive\r\n"),
        (true, false) => {}
    }
    head.extend_from_slice(b"\r\n");

    let bytes = match body {
        Body::Full(body) if framing == Framing::Whole && body.len() > SMALL => {
            Outgoing { head, body, ..Outgoing::default() }
        }
        Body::Full(body) if framing == Framing::Whole => {
            head.extend_from_slice(&body);
            Outgoing::new(head)
        }
        _ => Outgoing::new(head),
    };
    Encoded { bytes, framing, keep_alive }
}

/// Encodes a part of a streamed body. `data` must not be empty: an empty chunk would end the body.
#[must_use]
pub fn encode_chunk(data: Vec<u8>) -> Outgoing {
    debug_assert!(!data.is_empty(), "an empty chunk ends the body");
    let small = data.len() <= SMALL;
    let mut head = Vec::with_capacity(MAX_CHUNK_DIGITS + 4 + if small { data.len() } else { 0 });
    let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        head.push(b"0123456789abcdef"[data.len() >> (4 * digit) & 15]);
    }
    head.extend_from_slice(b"\r\n");
    if small {
        head.extend_from_slice(&data);
        head.extend_from_slice(b"\r\n");
        return Outgoing::new(head);
    }
    Outgoing { head, body: data, tail: b"\r\n", written: 0 }
}

/// The moment `seconds` after 1970 began, in the form of the `date` field: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let ([year, month, day], [hour, minute, second]) = civil(seconds);
    let (name, month) = (DAYS[(seconds / 86_400 % 7) as usize], MONTHS[month as usize - 1]);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// The same in the form of ISO 8601: `1994-11-06T08:49:37+00:00`.
#[must_use]
pub fn iso_date(seconds: u64) -> String {
    let ([year, month, day], [hour, minute, second]) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

/// Year, month (from 1) and day; hour, minute and second.
fn civil(seconds: u64) -> ([u64; 3], [u64; 3]) {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(march >= 10);
    ([year, (march + 2) % 12 + 1, day], [second / 3600, second / 60 % 60, second % 60])
}

fn push_field(head: &mut Vec<u8>, name: &str, value: &str) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    if value.bytes().all(|b| matches!(b, b' '..=b'~')) {
        head.extend_from_slice(value.as_bytes());
    } else {
        head.extend(value.chars().map(|c| u8::try_from(c).ok().filter(|&b| is_text(b)).unwrap_or(b' ')));
    }
    head.extend_from_slice(b"\r\n");
}

fn push_number(head: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return head.extend_from_slice(&digits[at..]);
        }
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status", // a reason is decoration, but some clients want one
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
