//! What fuzzers run. Ordinary functions: give them any bytes, they panic if a property does not hold. The committed corpus
//! under `fuzz/corpus` is replayed through them by `tests/corpus.rs`.

use mcp_proxy_engine::wire::http::{self, Asked, Item, Refusal, RequestDecoder};
use mcp_proxy_engine::wire::lines::{self, Line};
use mcp_proxy_engine::wire::rpc::{self, IdScanner, Kind};
use mcp_proxy_engine::wire::sse;
use mcp_proxy_engine::{Body, Headers, HttpResponse};

use crate::sim;

/// What a fuzzer runs.
pub type FuzzBody = fn(&[u8]);

/// Every body by its name, which is that of its target and its corpus.
pub const BODIES: [(&str, FuzzBody); 5] =
    [("lines", lines), ("sse", sse), ("rpc", rpc), ("http", http), ("engine", engine)];

/// Cuts `input` into pieces whose lengths follow from `seed`, so that a fuzzer chooses the splits as well.
fn pieces(seed: u8, mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut n = usize::from(seed);
    while !input.is_empty() {
        n = (n * 31 + 7) % 251;
        let (piece, rest) = input.split_at((n % 17 + 1).min(input.len()));
        pieces.push(piece);
        input = rest;
    }
    pieces
}

/// The first byte is the limit and the way of splitting, the rest is the input.
fn parts(bytes: &[u8]) -> Option<(usize, u8, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    Some((usize::from(first), first, rest))
}

/// Lines: any split gives the same; whole lines joined again are the input.
pub fn lines(bytes: &[u8]) {
    let Some((max, seed, input)) = parts(bytes) else { return };
    let whole = decode_lines(max, &[input]);
    assert_eq!(decode_lines(max, &pieces(seed, input)), whole, "another split gives other lines");
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode_lines(max, &single), whole, "byte by byte the lines are others");

    // What was split can be joined: nothing is lost, nothing comes twice.
    let mut expected: Vec<(bool, Vec<u8>)> = input
        .split(|b| *b == b'\n')
        .map(|line| match line.len() > max {
            true => (false, line.to_vec()),
            false => (true, line.strip_suffix(b"\r").unwrap_or(line).to_vec()),
        })
        .collect();
    // Behind the last line end is no line, unless there is something.
    if input.is_empty() || input.ends_with(b"\n") {
        expected.pop();
    }
    assert_eq!(whole, expected);
}

fn decode_lines(max: usize, pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    let mut decoder = lines::Decoder::new(max);
    let (mut items, mut long) = (Vec::new(), Vec::new());
    let mut take = |line: Line<'_>| match line {
        Line::Whole(line) => items.push((true, line.to_vec())),
        Line::Part(part) => {
            assert!(!part.is_empty());
            long.extend_from_slice(part);
        }
        Line::End => items.push((false, std::mem::take(&mut long))),
    };
    for mut piece in pieces.iter().copied() {
        while let Some(line) = decoder.next(&mut piece) {
            take(line);
        }
        assert!(piece.is_empty(), "None means that all was taken");
    }
    while let Some(line) = decoder.finish() {
        take(line);
    }
    items
}

type SseItem = Option<(String, Option<Vec<u8>>, Option<String>, Option<u64>)>;

/// Event streams: any split gives the same; what is encoded is read back.
pub fn sse(bytes: &[u8]) {
    let Some((max, seed, input)) = parts(bytes) else { return };
    let whole = decode_sse(max, &[input]);
    assert_eq!(decode_sse(max, &pieces(seed, input)), whole, "another split gives other events");
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode_sse(max, &single), whole, "byte by byte the events are others");
    for (n, item) in whole.iter().enumerate() {
        match item {
            Some((_, data, _, _)) => assert!(data.as_ref().is_none_or(|data| data.len() <= max)),
            None => assert_eq!(n + 1, whole.len(), "after a block that is too long comes nothing"),
        }
    }

    // Any line end within data is read back as one `\n`.
    let mut stream = b": comment\n\n".to_vec();
    sse::encode(&mut stream, Some("7-1"), input);
    stream.extend_from_slice(sse::KEEP_ALIVE);
    sse::encode(&mut stream, None, input);
    let text: Vec<u8> = String::from_utf8_lossy(input).replace("\r\n", "\n").replace('\r', "\n").into_bytes();
    if std::str::from_utf8(input).is_ok() {
        let event = |id: Option<&str>| Some(("message".to_owned(), Some(text.clone()), id.map(str::to_owned), None));
        assert_eq!(decode_sse(usize::MAX, &pieces(seed, &stream)), [event(Some("7-1")), event(None)]);
    }
}

fn decode_sse(max: usize, pieces: &[&[u8]]) -> Vec<SseItem> {
    let mut decoder = sse::Decoder::new(max);
    let mut items = Vec::new();
    for mut piece in pieces.iter().copied() {
        while let Some(item) = decoder.next(&mut piece) {
            items.push(item.ok().map(|event| {
                (event.event.to_owned(), event.data.map(<[u8]>::to_vec), event.id.map(str::to_owned), event.retry)
            }));
        }
        assert!(piece.is_empty(), "None means that all was taken");
    }
    items
}

/// JSON-RPC: what is accepted is JSON with one id; splicing touches nothing else; a line is one line.
pub fn rpc(bytes: &[u8]) {
    if rpc::is_batch(bytes) {
        if let Ok(parts) = rpc::parse_batch(bytes) {
            assert!(!parts.is_empty());
            for part in parts {
                let _ = rpc::place(std::str::from_utf8(bytes).expect("it was accepted"), part);
                let _ = rpc::parse_str(part);
            }
        }
        return;
    }
    let message = match rpc::parse(bytes) {
        Ok(message) => message,
        Err(malformed) => {
            // Whatever is said about it is a message itself.
            let error = rpc::error(malformed.id.as_deref(), malformed.code, malformed.text);
            let error = rpc::parse(&error).expect("an error is a message");
            let Kind::Response { id, outcome: Err(_) } = error.kind else { panic!("no error: {}", error.raw) };
            assert_eq!(id.map(|id| id.0), malformed.id.as_deref());
            return;
        }
    };
    let raw = message.raw;
    assert!(serde_json::from_str::<&serde_json::value::RawValue>(raw).is_ok(), "what is accepted is JSON: {raw}");
    assert!(raw.starts_with('{') && raw.ends_with('}'));
    let mut edits = Vec::new();
    let params = match &message.kind {
        Kind::Request { id, params, .. } => {
            edits.push((id.0, "18446744073709551615"));
            *params
        }
        Kind::Notification { params, .. } => *params,
        Kind::Response { id, .. } => {
            edits.extend(id.map(|id| (id.0, "18446744073709551615")));
            None
        }
    };
    if let Ok(Some(token)) = rpc::progress_token(params) {
        edits.push((token.get(), "\"token\""));
    }
    for name in ["requestId", "progressToken", "uri", "level"] {
        let _ = rpc::member(params, name).ok().flatten().and_then(rpc::string);
    }
    if edits.is_empty() {
        assert_eq!(rpc::splice(raw, &mut []), raw.as_bytes());
        return;
    }

    // Put in a new id, and then the old one again: every byte is as it was.
    let places: Vec<_> = edits.iter().map(|(old, new)| (rpc::place(raw, old), *old, *new)).collect();
    let spliced = String::from_utf8(rpc::splice(raw, &mut edits)).expect("UTF-8 stays UTF-8");
    let mut back = Vec::new();
    for (place, old, _) in &places {
        let shift = |at: usize| {
            let before = places.iter().filter(|(other, _, _)| other.start < at);
            before.fold(at as isize, |at, (_, old, new)| at + new.len() as isize - old.len() as isize) as usize
        };
        let start = shift(place.start);
        let new = places.iter().find(|(p, _, _)| p == place).map_or("", |(_, _, new)| new);
        assert_eq!(&spliced[start..start + new.len()], new);
        back.push((&spliced[start..start + new.len()], *old));
    }
    assert_eq!(rpc::splice(&spliced, &mut back), raw.as_bytes(), "splicing there and back changes nothing");
    let again = rpc::parse_str(&spliced).expect("a message with another id is a message");
    match again.kind {
        Kind::Request { id, .. } | Kind::Response { id: Some(id), .. } => {
            assert_eq!(id.number(), Some(u64::MAX));
        }
        _ => {}
    }

    // As one line it is still the same message.
    let line = rpc::line(spliced.clone().into_bytes());
    assert_eq!(line.iter().filter(|b| matches!(b, b'\n' | b'\r')).count(), 1);
    assert!(line.ends_with(b"\n") && rpc::parse(&line).is_ok());

    // A scanner that sees only pieces finds an id that is there in plain spelling.
    if let Kind::Response { id: Some(id), .. } = &message.kind {
        let mut scanner = IdScanner::default();
        raw.as_bytes().chunks(3).for_each(|part| scanner.feed(part));
        let mut at_once = IdScanner::default();
        at_once.feed(raw.as_bytes());
        assert_eq!(scanner.id(), at_once.id(), "another split finds another id");
        let plain = !raw.contains("\\u") && id.0.len() < 20 && id.number().is_some();
        assert!(!plain || scanner.id() == Some(id.0), "the id of {raw} was not found: {:?}", scanner.id());
    }
}

/// HTTP: any split gives the same requests; limits hold; no response can be broken by what is in it.
pub fn http(bytes: &[u8]) {
    let Some((max, seed, input)) = parts(bytes) else { return };
    let (max_head, max_body) = (64 + 8 * max, 4 * max);
    let whole = decode_http(max_head, max_body, &[input]);
    assert_eq!(decode_http(max_head, max_body, &pieces(seed, input)), whole, "another split gives other requests");
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode_http(max_head, max_body, &single), whole, "byte by byte the requests are others");
    for (n, item) in whole.iter().enumerate() {
        match item {
            Ok(Item::Continue) => {}
            Ok(Item::Request(request)) => {
                assert!(request.body.len() <= max_body && request.size >= request.body.len());
                let hosts = request.headers.get_all("host").count();
                assert!(hosts <= 1 && (hosts == 1 || request.asked.http10));
                let framed = ["content-length", "transfer-encoding"].map(|name| request.headers.get(name).is_some());
                assert!(framed != [true, true], "two framings: a request may be smuggled");
                assert!(framed != [false, false] || request.body.is_empty());
                for (name, value) in request.headers.iter() {
                    assert!(!name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase()));
                    assert!(!value.contains(['\r', '\n', '\0']), "{name}: {value:?}");
                }
            }
            Err(refusal) => {
                assert_eq!(n + 1, whole.len(), "after a refusal comes nothing");
                assert!((400..600).contains(&refusal.status));
                encode(refusal.response(), Refusal::ASKED);
            }
        }
    }

    // The input as names, values and body of a response.
    let text: String = input.iter().map(|b| char::from(*b)).collect();
    let mut headers = Headers::new();
    headers.push("x-test", text);
    let asked = Asked { http10: seed & 1 != 0, head: seed & 2 != 0, keep_alive: seed & 4 != 0 };
    let status = [200, 202, 204, 304, 503][usize::from(seed) % 5];
    encode(HttpResponse { status, headers, body: Body::Full(input.to_vec()) }, asked);
}

/// Encodes a whole response and reads its head again.
fn encode(response: HttpResponse, asked: Asked) {
    let Body::Full(body) = response.body.clone() else { panic!("a whole body was given") };
    let status = response.status;
    let encoded = http::encode_response(response, asked, Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    let mut outgoing = encoded.bytes;
    let mut bytes = Vec::new();
    while !outgoing.is_empty() {
        // A socket takes what it likes.
        let first = outgoing.slices()[0];
        assert!(!first.is_empty(), "the first slice is empty, though not all are");
        let taken = first.len().div_ceil(2);
        bytes.extend_from_slice(&first[..taken]);
        outgoing.advance(taken);
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head ends") + 4;
    let head = std::str::from_utf8(&bytes[..end])
        .map_or_else(|_| String::from_utf8_lossy(&bytes[..end]).into_owned(), str::to_owned);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let mut names: Vec<&str> =
        head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    names.retain(|name| !["connection", "content-length", "content-type", "date", "x-test"].contains(name));
    assert!(names.is_empty(), "a value became fields: {names:?}");
    let bare = asked.head || status == 204 || status == 304;
    assert_eq!(&bytes[end..], if bare { &b""[..] } else { &body[..] });
}

fn decode_http(max_head: usize, max_body: usize, pieces: &[&[u8]]) -> Vec<Result<Item, Refusal>> {
    let mut decoder = RequestDecoder::new(max_head, max_body);
    let mut items = Vec::new();
    for mut piece in pieces.iter().copied() {
        while let Some(item) = decoder.next(&mut piece) {
            items.push(item);
        }
        assert!(piece.is_empty(), "None means that all was taken");
    }
    items
}

/// The engine: the bytes are the choices of a random run, see [`sim`].
pub fn engine(bytes: &[u8]) {
    sim::run_bytes(bytes);
}
