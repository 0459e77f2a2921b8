//! Tables of bytes and items. Each is run whole, byte by byte, and in two parts at every place.

use super::*;

const MAX_HEAD: usize = 400;
const MAX_BODY: usize = 40;

/// Items in short: `M target body`, with `close` after a request that ends its connection, `continue`, `STATUS`.
fn feed(decoder: &mut RequestDecoder, mut input: &[u8], items: &mut Vec<String>) {
    while let Some(item) = decoder.next(&mut input) {
        items.push(match item {
            Ok(Item::Continue) => "continue".to_owned(),
            Ok(Item::Request(r)) => {
                let body = String::from_utf8_lossy(&r.body);
                let end = if r.asked.keep_alive { "" } else { " close" };
                format!("{} {} {body}{end}", r.method, r.target)
            }
            Err(refusal) => refusal.status.to_string(),
        });
    }
    assert!(input.is_empty(), "input is left although more is wanted");
}

/// Whole, byte by byte, and in two parts at every place.
fn items(input: &[u8]) -> Vec<String> {
    let run = |parts: &mut dyn Iterator<Item = &[u8]>| {
        let mut decoder = RequestDecoder::new(MAX_HEAD, MAX_BODY);
        let mut items = Vec::new();
        parts.for_each(|part| feed(&mut decoder, part, &mut items));
        (items, decoder.phase())
    };
    let whole = run(&mut [input].into_iter());
    assert_eq!(whole, run(&mut input.chunks(1)), "byte by byte: {}", input.escape_ascii());
    for at in 0..=input.len() {
        let (a, b) = input.split_at(at);
        assert_eq!(whole, run(&mut [a, b].into_iter()), "split at {at}: {}", input.escape_ascii());
    }
    whole.0
}

#[test]
fn good_requests() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("GET /", &[]),
        ("GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /mcp "]),
        ("GET /mcp HTTP/1.1\r\nHost:\r\n\r\n", &["GET /mcp "]),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", &["GET / "]),
        ("GET http://a/b?c=%20 HTTP/1.1\r\nHost: a\r\n\r\n", &["GET http://a/b?c=%20 "]),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &["OPTIONS * "]),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &["GET / "]),
        ("GET / HTTP/1.0\r\n\r\n", &["GET /  close"]),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &["GET / "]),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , Close\r\n\r\n", &["GET /  close"]),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", &["GET /  close"]),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", &["POST / "]),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &["POST / "]),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &["POST / abc", "GET / "],
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcDELETE /x HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET / abc", "DELETE /x "],
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n00\r\n\r\n",
            &["POST / abc0123456789"],
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\ny:\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &["POST / a", "GET / "],
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", &["continue", "POST / x"]),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &["continue", "POST / "],
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", &["POST / "]),
        ("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", &["POST / x close"]),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n0123456789012345678901234567890123456789",
            &["POST / 0123456789012345678901234567890123456789"],
        ),
    ];
    for (input, expected) in table {
        assert_eq!(items(input.as_bytes()), *expected, "{input:?}");
    }
}

#[test]
fn hostile_heads() {
    let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let long = "x".repeat(MAX_HEAD);
    let table = [
        ("\n".to_owned(), 400),
        ("\rGET / HTTP/1.1\r\n".to_owned(), 400),
        ("\r\n".repeat(9), 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\x00\x01".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/11\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("GET mcp HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), 400),
        (with("Host: a"), 400),
        (with("Host : b"), 400),
        (with("X: a\r\n b"), 400),
        (with("X: a\r\n\tb"), 400),
        (with("X: a\rb"), 400),
        (with("X: a\0b"), 400),
        (with("X: a\x7fb"), 400),
        (with("X"), 400),
        (with(": x"), 400),
        (with("X Y: x"), 400),
        (with("X\u{e9}: x"), 400),
        (with("Content-Length: 1\r\nContent-Length: 1"), 400),
        (with("Content-Length: 1\r\nContent-Length: 2"), 400),
        (with("Content-Length: 2, 2"), 400),
        (with("Content-Length: +2"), 400),
        (with("Content-Length: -2"), 400),
        (with("Content-Length: 0x2"), 400),
        (with("Content-Length: 2 2"), 400),
        (with("Content-Length: 2.0"), 400),
        (with("Content-Length:"), 400),
        (with("Content-Length : 2"), 400),
        (with("Content-Length: \u{661}"), 400),
        (with("Content-Length: 41"), 413),
        (with("Content-Length: 100000000000000"), 413),
        (with("Content-Length: 18446744073709551616"), 413),
        (with("Content-Length: 99999999999999999999999999999999999999"), 413),
        (with("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 1"), 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: gzip, chunked"), 501),
        (with("Transfer-Encoding: chunked, chunked"), 501),
        (with("Transfer-Encoding: chunked, identity"), 501),
        (with("Transfer-Encoding: identity"), 501),
        (with("Transfer-Encoding: xchunked"), 501),
        (with("Transfer-Encoding: \x0bchunked"), 400),
        (with("Transfer-Encoding: \"chunked\""), 501),
        (with("Transfer-Encoding:"), 501),
        (with("Transfer-Encoding\t: chunked"), 400),
        (with("Expect: 200-ok"), 417),
        (with("Expect: 100-continue, x"), 417),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431),
        (with(&format!("X: {long}")), 431),
        (long, 431),
    ];
    for (input, expected) in table {
        assert_eq!(items(input.as_bytes()), [expected.to_string()], "{input:?}");
    }
    assert_eq!(items(b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n"), ["400"]);
    assert_eq!(items(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"), ["400"]);
}

#[test]
fn hostile_chunks() {
    let table = [
        ("\r\n", 400),
        ("+3\r\nabc\r\n0\r\n\r\n", 400),
        ("-1\r\n", 400),
        ("0x3\r\nabc\r\n", 400),
        (" 3\r\nabc\r\n", 400),
        ("3 \r\nabc\r\n", 400),
        ("3 ;x\r\nabc\r\n", 400),
        ("3\nabc\r\n", 400),
        ("3\r\nabc\n0\r\n\r\n", 400),
        ("3\r\nabcd\r\n", 400),
        ("3\r\nab\r\n0\r\n\r\n", 400),
        ("3\r\nabc0\r\n\r\n", 400),
        ("3\r\r\nabc\r\n", 400),
        ("3;a\0\r\nabc\r\n", 400),
        ("3;a\rb\r\nabc\r\n", 400),
        ("29\r\n", 413),
        ("20\r\n01234567890123456789012345678901\r\n9\r\n", 413),
        ("ffffffffffffffff\r\n", 413),
        ("10000000000000000\r\n", 400),
        ("00000000000000003\r\nabc\r\n", 400),
        ("fffffffffffffffffffffffffffffffffffffffffffffffff", 200),
        ("0\r\nx\r\n\r\n", 400),
        ("0\r\n: x\r\n\r\n", 400),
        ("0\r\nx : y\r\n\r\n", 400),
        ("0\r\nx: y\n\r\n", 400),
        ("0\r\nx: y\r\n\n", 400),
        ("0\r\nx: y\rz\r\n\r\n", 400),
        ("0\r\nx: y\0\r\n\r\n", 400),
    ];
    for (input, expected) in table {
        let input = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{input}");
        let expected: &[String] = if expected == 200 { &[] } else { &[expected.to_string()] };
        assert_eq!(items(input.as_bytes()), expected, "{input:?}");
    }
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let flood = "1;0123456789012345678901234567890123456789012345678901234567890123456789\r\na\r\n".repeat(30);
    assert_eq!(items(format!("{chunked}{flood}").as_bytes()), ["400"], "extensions in all");
    assert_eq!(items(format!("{chunked}1;{}", "x".repeat(2000)).as_bytes()), ["400"], "one extension");
    assert_eq!(items(format!("{chunked}0\r\n{}", "a: b\r\n".repeat(100)).as_bytes()), ["431"], "trailers");
    assert_eq!(items(format!("{chunked}0\r\n{}", "a".repeat(500)).as_bytes()), ["431"], "one trailer");
    assert_eq!(items(format!("{chunked}{}0\r\n\r\n", "1\r\na\r\n".repeat(40)).as_bytes()).len(), 1);
    assert_eq!(items(format!("{chunked}{}0\r\n\r\n", "1\r\na\r\n".repeat(41)).as_bytes()), ["413"]);
}

#[test]
fn too_many_fields() {
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
    let mut decoder = RequestDecoder::new(64 * 1024, 0);
    let item = decoder.next(&mut input.as_bytes());
    assert!(matches!(item, Some(Err(Refusal { status: 431, .. }))), "{item:?}");
}

#[test]
fn fields_are_lower_case_latin1_and_trimmed() {
    let mut input: &[u8] =
        b"GET / HTTP/1.1\r\nHOST: a\r\nX-Any: \t\xe9t\xe9 \r\nX-Empty:\r\nAccept: 1\r\naccept: 2\r\n\r\n";
    let mut decoder = RequestDecoder::new(MAX_HEAD, 0);
    let Some(Ok(Item::Request(request))) = decoder.next(&mut input) else { panic!() };
    let fields: Vec<_> = request.headers.iter().collect();
    assert_eq!(fields, [("host", "a"), ("x-any", "été"), ("x-empty", ""), ("accept", "1"), ("accept", "2")]);
    assert!(request.size > 64);
}

#[test]
fn phases() {
    let mut decoder = RequestDecoder::new(MAX_HEAD, MAX_BODY);
    for (input, phase) in [
        ("\r\n", Phase::Idle),
        ("P", Phase::Head),
        ("OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", Phase::Body),
        ("{", Phase::Body),
        ("}", Phase::Idle),
        ("G", Phase::Head),
        ("\n", Phase::Refused),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Phase::Refused),
    ] {
        feed(&mut decoder, input.as_bytes(), &mut Vec::new());
        assert_eq!(decoder.phase(), phase, "after {input:?}");
    }
}

#[test]
fn an_announced_body_is_not_allocated() {
    let mut decoder = RequestDecoder::new(MAX_HEAD, usize::MAX);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000000\r\n\r\nabc";
    feed(&mut decoder, head, &mut Vec::new());
    assert!(decoder.request.is_some_and(|r| r.body.capacity() <= FIRST_BODY));
}

fn response(status: u16, body: Body) -> HttpResponse {
    let mut headers = Headers::new();
    headers.push("x-a", "b\r\nset-cookie: \u{e9}\u{20ac}");
    HttpResponse { status, headers, body }
}

fn written(bytes: &Outgoing) -> String {
    bytes.slices().concat().iter().map(|&b| char::from(b)).collect()
}

#[test]
fn responses() {
    const NEW: Asked = Asked { http10: false, head: false, keep_alive: true };
    const OLD: Asked = Asked { http10: true, head: false, keep_alive: true };
    let full = || Body::Full(b"{}".to_vec());
    let table = [
        (200, full(), NEW, "HTTP/1.1 200 OK\r\nX\r\ncontent-length: 2\r\n\r\n{}", Framing::Whole, true),
        (202, Body::Full(vec![]), NEW, "HTTP/1.1 202 Accepted\r\nX\r\ncontent-length: 0\r\n\r\n", Framing::Whole, true),
        (204, full(), NEW, "HTTP/1.1 204 No Content\r\nX\r\n\r\n", Framing::None, true),
        (304, Body::Stream, NEW, "HTTP/1.1 304 Not Modified\r\nX\r\n\r\n", Framing::None, true),
        (
            200,
            full(),
            Asked { head: true, ..NEW },
            "HTTP/1.1 200 OK\r\nX\r\ncontent-length: 2\r\n\r\n",
            Framing::None,
            true,
        ),
        (200, Body::Stream, Asked { head: true, ..NEW }, "HTTP/1.1 200 OK\r\nX\r\n\r\n", Framing::None, true),
        (200, Body::Stream, NEW, "HTTP/1.1 200 OK\r\nX\r\ntransfer-encoding: chunked\r\n\r\n", Framing::Chunked, true),
        (200, Body::Stream, OLD, "HTTP/1.1 200 OK\r\nX\r\nconnection: close\r\n\r\n", Framing::UntilClose, false),
        (
            200,
            full(),
            OLD,
            "HTTP/1.1 200 OK\r\nX\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n{}",
            Framing::Whole,
            true,
        ),
        (
            599,
            full(),
            Refusal::ASKED,
            "HTTP/1.1 599 Status\r\nX\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
            Framing::Whole,
            false,
        ),
    ];
    for (status, body, asked, expected, framing, keep_alive) in table {
        let encoded = encode_response(response(status, body), asked, None);
        let expected = expected.replace("X\r\n", "x-a: b  set-cookie: \u{e9} \r\n");
        assert_eq!(written(&encoded.bytes), expected);
        assert_eq!((encoded.framing, encoded.keep_alive), (framing, keep_alive), "{expected}");
    }
    let dated = encode_response(response(200, full()), NEW, Some("now"));
    assert!(written(&dated.bytes).contains("\r\ndate: now\r\n"));
}

#[test]
fn refusals_are_json() {
    let encoded = encode_response(Refusal::TIMEOUT.response(), Refusal::ASKED, None);
    let text = written(&encoded.bytes);
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(value["error"]["code"], -32600);
    assert!(!encoded.keep_alive);
}

#[test]
fn large_bodies_are_not_copied_and_advance_works() {
    for len in [1, 15, 16, 255, 4096, SMALL, SMALL + 1, 70_000] {
        let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut chunk = encode_chunk(data.clone());
        let expected = [format!("{len:x}\r\n").as_bytes(), &data, b"\r\n"].concat();
        assert_eq!(chunk.slices().concat(), expected);
        assert_eq!(chunk.slices()[1].is_empty(), len <= SMALL);
        let mut seen = Vec::new();
        while !chunk.is_empty() {
            let first = chunk.slices()[0];
            let some = first.len().min(1000);
            assert!(some > 0, "the first slice is empty though bytes are left");
            seen.extend_from_slice(&first[..some]);
            chunk.advance(some);
        }
        assert_eq!(seen, expected);
        assert_eq!(chunk.len(), 0);
    }
}

#[test]
fn dates() {
    for (seconds, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 GMT"),
    ] {
        assert_eq!(http_date(seconds), expected);
    }
}
