//! Lines: the framing of the stdio transport (specification, basic/transports, "stdio").

/// Splits bytes into lines that end in `\n` or `\r\n`.
///
/// ```
/// use mcp_proxy_engine::wire::lines::{Decoder, Line};
/// let mut decoder = Decoder::new(1024);
/// let mut input: &[u8] = b"{}\r\n[";
/// assert_eq!(decoder.next(&mut input), Some(Line::Whole(b"{}")));
/// assert_eq!(decoder.next(&mut input), None);
/// assert_eq!(decoder.finish(), Some(Line::Whole(b"[")));
/// ```
#[derive(Debug)]
pub struct Decoder {
    max: usize,
    held: Vec<u8>,
    /// `held` was lent to the caller as an item: it is to be emptied before anything else happens.
    lent: bool,
    /// Inside a line that is longer than the limit.
    overlong: bool,
}

/// What [`Decoder::next`] yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line within the limit, without its end.
    Whole(&'a [u8]),
    /// A part of a line that is longer than the limit. Its parts come in order, none empty, then [`Line::End`].
    Part(&'a [u8]),
    /// The end of a line that came in parts.
    End,
}

/// Above this, a buffer is given back after use instead of being kept for the next line.
const KEEP: usize = 64 * 1024;

impl Decoder {
    /// Lines of more than `max` bytes (without their end) come in parts.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Decoder { max, held: Vec::new(), lent: false, overlong: false }
    }

    /// Yields the next line, or takes all of the input and returns `None`.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Line<'s>> {
        self.release();
        if input.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', input);
        let (part, rest) = input.split_at(end.unwrap_or(input.len()));
        if self.overlong {
            if part.is_empty() {
                *input = &rest[1..];
                self.overlong = false;
                return Some(Line::End);
            }
            *input = rest;
            return Some(Line::Part(part));
        }
        if self.held.len() + part.len() > self.max {
            self.overlong = true;
            if self.held.is_empty() {
                *input = rest;
                return Some(Line::Part(part));
            }
            self.lent = true;
            return Some(Line::Part(&self.held));
        }
        if end.is_none() {
            self.held.extend_from_slice(part);
            *input = rest;
            return None;
        }
        *input = &rest[1..];
        if self.held.is_empty() {
            return Some(Line::Whole(without_cr(part)));
        }
        self.held.extend_from_slice(part);
        self.lent = true;
        Some(Line::Whole(without_cr(&self.held)))
    }

    /// The input has ended: yields what is left of a last line without an end.
    pub fn finish(&mut self) -> Option<Line<'_>> {
        self.release();
        if std::mem::take(&mut self.overlong) {
            return Some(Line::End);
        }
        if self.held.is_empty() {
            return None;
        }
        self.lent = true;
        Some(Line::Whole(without_cr(&self.held)))
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.lent) {
            self.held.clear();
            if self.held.capacity() > KEEP {
                self.held = Vec::new();
            }
        }
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` in pieces of `step` bytes; parts of one overlong line are joined, so that every split agrees.
    fn decode(max: usize, input: &[u8], step: usize) -> Vec<(bool, Vec<u8>)> {
        let mut decoder = Decoder::new(max);
        let (mut items, mut overlong) = (Vec::new(), Vec::new());
        let mut take = |line: Line<'_>| match line {
            Line::Whole(line) => items.push((true, line.to_vec())),
            Line::Part(part) => {
                assert!(!part.is_empty());
                overlong.extend_from_slice(part);
            }
            Line::End => items.push((false, std::mem::take(&mut overlong))),
        };
        for mut piece in input.chunks(step) {
            while let Some(line) = decoder.next(&mut piece) {
                take(line);
            }
            assert!(piece.is_empty(), "None means that all of the input was taken");
        }
        while let Some(line) = decoder.finish() {
            take(line);
        }
        items
    }

    #[test]
    fn any_split_gives_the_same_lines() {
        let whole = |s: &str| (true, s.as_bytes().to_vec());
        let long = |s: &str| (false, s.as_bytes().to_vec());
        for (input, expected) in [
            ("", vec![]),
            ("\n", vec![whole("")]),
            ("a\nb\n", vec![whole("a"), whole("b")]),
            ("a\r\nb", vec![whole("a"), whole("b")]),
            ("a\rb\n", vec![whole("a\rb")]),
            ("12345678\n", vec![whole("12345678")]),
            ("123456789\nx\n", vec![long("123456789"), whole("x")]),
            ("123456789", vec![long("123456789")]),
            ("1234567890123456789\n\nx", vec![long("1234567890123456789"), whole(""), whole("x")]),
            ("1234567\r\n", vec![whole("1234567")]),
        ] {
            for step in 1..=input.len().max(1) {
                assert_eq!(decode(8, input.as_bytes(), step), expected, "{input:?} in steps of {step}");
            }
        }
    }
}
