//! Server-sent events: the framing of both HTTP transports (WHATWG HTML, "Server-sent events", section 9.2.6).

/// One block of fields, ended by a blank line.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field, `message` if there was none.
    pub event: &'a str,
    /// The `data` fields joined by newlines; `None` if there was none at all, so that a bare `id` can be told from data
    /// that is empty.
    pub data: Option<&'a [u8]>,
    /// The `id` field of this block.
    pub id: Option<&'a str>,
    /// The `retry` field of this block, in milliseconds.
    pub retry: Option<u64>,
}

/// A block was longer than the limit. The decoder yields nothing more; the stream is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Reads an event stream.
///
/// ```
/// use mcp_proxy_engine::wire::sse::Decoder;
/// let mut decoder = Decoder::new(1024);
/// let mut input: &[u8] = b": comment\nid: 7\ndata: {}\n\n";
/// let event = decoder.next(&mut input).unwrap().unwrap();
/// assert_eq!((event.event, event.data, event.id), ("message", Some(&b"{}"[..]), Some("7")));
/// ```
#[derive(Debug)]
pub struct Decoder {
    max: usize,
    /// Bytes of the current block that are held, for the limit.
    held: usize,
    line: Vec<u8>,
    event: String,
    data: Option<Vec<u8>>,
    id: Option<String>,
    retry: Option<u64>,
    /// The fields above were lent to the caller; they are cleared before anything else happens.
    lent: bool,
    /// The last line ended in CR: an LF that follows belongs to that end.
    after_cr: bool,
    /// Nothing was read yet: a byte order mark may come.
    first_line: bool,
    failed: bool,
}

impl Decoder {
    /// A block of more than `max` bytes is an error.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Decoder {
            max,
            held: 0,
            line: Vec::new(),
            event: String::new(),
            data: None,
            id: None,
            retry: None,
            lent: false,
            after_cr: false,
            first_line: true,
            failed: false,
        }
    }

    /// Yields the next block that has a field, or takes all of the input and returns `None`.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Event<'_>, TooLong>> {
        if std::mem::take(&mut self.lent) {
            self.clear();
        }
        if self.failed {
            *input = &[];
            return None;
        }
        while !input.is_empty() {
            if std::mem::take(&mut self.after_cr) && input[0] == b'\n' {
                *input = &input[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', input);
            let (part, rest) = input.split_at(end.unwrap_or(input.len()));
            self.held += part.len();
            if self.held > self.max {
                self.failed = true;
                *input = &[];
                self.clear();
                return Some(Err(TooLong));
            }
            if end.is_none() {
                self.line.extend_from_slice(part);
                *input = rest;
                break;
            }
            self.after_cr = rest[0] == b'\r';
            *input = &rest[1..];
            let blank = if self.line.is_empty() {
                self.take_line(part)
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                let blank = self.take_line(&line);
                line.clear();
                self.line = line;
                blank
            };
            if !blank {
                continue;
            }
            if self.event.is_empty() && self.data.is_none() && self.id.is_none() && self.retry.is_none() {
                self.clear();
                continue;
            }
            self.lent = true;
            return Some(Ok(Event {
                event: if self.event.is_empty() { "message" } else { &self.event },
                data: self.data.as_deref(),
                id: self.id.as_deref(),
                retry: self.retry,
            }));
        }
        None
    }

    /// Takes one line into the block; true if it was the blank line that ends it.
    fn take_line(&mut self, mut line: &[u8]) -> bool {
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return true;
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => {
                // A comment holds nothing: an endless row of them is how keep-alive works.
                self.held -= line.len().min(self.held);
                return false;
            }
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line, &line[line.len()..]),
        };
        match name {
            b"data" => match &mut self.data {
                None => self.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            // Unknown fields are ignored, as the standard asks.
            _ => {}
        }
        false
    }

    fn clear(&mut self) {
        self.held = 0;
        self.event.clear();
        self.data = None;
        self.id = None;
        self.retry = None;
    }
}

/// Appends one event to `out`. Any line end inside `data` starts a new `data` line, so it reads back as `\n`.
pub fn encode(out: &mut Vec<u8>, id: Option<&str>, data: &[u8]) {
    out.reserve(data.len() + 48);
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else { break };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        rest = &rest[end + if rest[end..].starts_with(b"\r\n") { 2 } else { 1 }..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\n\n");
}

/// A comment that keeps the connection alive and shows that the other side is still there.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    type Item = Result<(String, Option<Vec<u8>>, Option<String>, Option<u64>), TooLong>;

    fn decode(max: usize, input: &[u8], step: usize) -> Vec<Item> {
        let mut decoder = Decoder::new(max);
        let mut items = Vec::new();
        for mut piece in input.chunks(step) {
            while let Some(item) = decoder.next(&mut piece) {
                items.push(
                    item.map(|e| (e.event.to_owned(), e.data.map(<[u8]>::to_vec), e.id.map(str::to_owned), e.retry)),
                );
            }
            assert!(piece.is_empty());
        }
        items
    }

    fn message(data: &str) -> Item {
        Ok(("message".into(), Some(data.into()), None, None))
    }

    #[test]
    fn any_split_gives_the_same_events() {
        let table: &[(&[u8], Vec<Item>)] = &[
            (b"data: a\n\n", vec![message("a")]),
            (b"data: a\r\n\r\ndata: b\r\rdata:c\n\n", vec![message("a"), message("b"), message("c")]),
            (b"\xEF\xBB\xBFdata: a\n\n", vec![message("a")]),
            (b"\n\n\r\n: nothing\n\n", vec![]),
            (b"data\n\n", vec![message("")]),
            (b"data:  a\ndata:b\ndata\n\n", vec![message(" a\nb\n")]),
            (b"event: endpoint\ndata: /m?x=1\n\n", vec![Ok(("endpoint".into(), Some("/m?x=1".into()), None, None))]),
            (b"id: 1\ndata:\n\n", vec![Ok(("message".into(), Some(vec![]), Some("1".into()), None))]),
            (b"id\n\n", vec![Ok(("message".into(), None, Some(String::new()), None))]),
            (b"id: a\0b\ndata: x\n\n", vec![message("x")]),
            (
                b"retry: 500\n\nretry: +5\ndata: x\n\n",
                vec![Ok(("message".into(), None, None, Some(500))), message("x")],
            ),
            (b"unknown: 1\ndata: x\nDATA: y\n\n", vec![message("x")]),
            (b"data: unfinished\n", vec![]),
            (b"data: 0123456789012345678901234567890123456789\n\ndata: lost\n\n", vec![Err(TooLong)]),
            (b": 12345678901234567890\n: 12345678901234567890\ndata: x\n\n", vec![message("x")]),
        ];
        for (input, expected) in table {
            for step in 1..=input.len() {
                assert_eq!(
                    &decode(40, input, step),
                    expected,
                    "{:?} in steps of {step}",
                    input.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for data in ["", "{}", "a\nb", "\n", "a\n\n", " lead", "id: 1", ":"] {
            let mut bytes = Vec::new();
            encode(&mut bytes, Some("s-1"), data.as_bytes());
            let expected: Item = Ok(("message".into(), Some(data.into()), Some("s-1".into()), None));
            assert_eq!(decode(1000, &bytes, 3), [expected], "{data:?}");
        }
        let mut bytes = Vec::new();
        encode(&mut bytes, None, b"a\rb\r\nc");
        assert_eq!(decode(1000, &bytes, 3), [message("a\nb\nc")]);
    }
}
