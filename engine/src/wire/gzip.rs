//! The content coding `gzip` (RFC 1952), decoded as it comes.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// The most bytes one member may have before its data: a file name and a comment may be in there.
const MAX_HEAD: usize = 4 * 1024;

/// Decodes one body. It holds the decoder's window of 32 KiB and nothing of the input.
///
/// ```
/// use mcp_proxy_engine::wire::gzip::Gunzip;
/// let mut gunzip = Gunzip::new();
/// let mut input = &b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x4b\xcc\x03\x00\x46\x04\x35\x97\x02\x00\x00\x00"[..];
/// let mut output = [0; 16];
/// let n = gunzip.next(&mut input, &mut output)?;
/// assert_eq!(&output[..n], b"an");
/// assert_eq!(gunzip.next(&mut input, &mut output)?, 0);
/// assert!(gunzip.is_complete());
/// # Ok::<(), mcp_proxy_engine::wire::gzip::BadGzip>(())
/// ```
#[derive(Debug)]
pub struct Gunzip {
    state: State,
    /// Bytes of a head or a trailer that is not complete yet.
    held: Vec<u8>,
    inflate: Decompress,
    crc: Crc,
    /// A member was decoded.
    any: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Data,
    Trailer,
}

/// The input is no gzip, or was changed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadGzip;

impl fmt::Display for BadGzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is not in the coding gzip")
    }
}

impl std::error::Error for BadGzip {}

impl Default for Gunzip {
    fn default() -> Self {
        Gunzip::new()
    }
}

impl Gunzip {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        let (held, inflate, crc) = (Vec::new(), Decompress::new(false), Crc::new());
        Gunzip { state: State::Head, held, inflate, crc, any: false }
    }

    /// The input may end here: after a whole member, or before the first byte.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Head && self.held.is_empty()
    }

    /// Decodes into `output`, which must not be empty, and says how much; 0: more input please. Everything that the input
    /// so far stands for comes before that 0, so that an event that was flushed by its sender is not held back.
    ///
    /// # Errors
    ///
    /// [`BadGzip`]. Nothing more can be decoded then.
    pub fn next(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, BadGzip> {
        loop {
            match self.state {
                State::Head => {
                    // Zeros may follow the last member, as padding.
                    if self.any && self.held.is_empty() {
                        let zeros = input.iter().take_while(|&&b| b == 0).count();
                        *input = &input[zeros..];
                    }
                    let Some((&first, rest)) = input.split_first() else { return Ok(0) };
                    *input = rest;
                    self.held.push(first);
                    if head_is_complete(&self.held)? {
                        self.held.clear();
                        self.state = State::Data;
                    } else if self.held.len() >= MAX_HEAD {
                        return Err(BadGzip);
                    }
                }
                State::Data => {
                    let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
                    // Even without input: the decoder may hold output that did not fit the last time.
                    let status = self.inflate.decompress(input, output, FlushDecompress::None).map_err(|_| BadGzip)?;
                    // Both are at most as long as the slices.
                    let used = (self.inflate.total_in() - before_in) as usize;
                    let made = (self.inflate.total_out() - before_out) as usize;
                    *input = &input[used..];
                    self.crc.update(&output[..made]);
                    if status == Status::StreamEnd {
                        self.state = State::Trailer;
                    }
                    if made > 0 || (status != Status::StreamEnd && used == 0) {
                        return Ok(made);
                    }
                }
                State::Trailer => {
                    let part = input.len().min(8 - self.held.len());
                    self.held.extend_from_slice(&input[..part]);
                    *input = &input[part..];
                    let Ok([a, b, c, d, e, f, g, h]) = <[u8; 8]>::try_from(&self.held[..]) else { return Ok(0) };
                    let right = u32::from_le_bytes([a, b, c, d]) == self.crc.sum()
                        && u32::from_le_bytes([e, f, g, h]) == self.crc.amount();
                    if !right {
                        return Err(BadGzip);
                    }
                    self.held.clear();
                    self.inflate.reset(false);
                    self.crc.reset();
                    (self.state, self.any) = (State::Head, true);
                }
            }
        }
    }
}

/// Whether these bytes are the whole head of a member (RFC 1952, section 2.3).
fn head_is_complete(head: &[u8]) -> Result<bool, BadGzip> {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    if head.iter().zip(MAGIC).any(|(&b, magic)| b != magic) {
        return Err(BadGzip);
    }
    let Some((fixed, mut rest)) = head.split_at_checked(10) else { return Ok(false) };
    let flags = fixed[3];
    if flags & 0b1110_0000 != 0 {
        return Err(BadGzip);
    }
    if flags & 4 != 0 {
        let &[low, high, ref after @ ..] = rest else { return Ok(false) };
        let Some(after) = after.get(usize::from(u16::from_le_bytes([low, high]))..) else { return Ok(false) };
        rest = after;
    }
    // The file name and the comment, each up to a zero.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(end) = rest.iter().position(|&b| b == 0) else { return Ok(false) };
            rest = &rest[end + 1..];
        }
    }
    Ok(flags & 2 == 0 || rest.len() >= 2)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    /// Decodes what is cut into pieces of `size`, with an output of `room` bytes.
    fn decode(bytes: &[u8], size: usize, room: usize) -> Result<(Vec<u8>, bool), BadGzip> {
        let (mut gunzip, mut output, mut all) = (Gunzip::new(), vec![0; room], Vec::new());
        for mut piece in bytes.chunks(size) {
            loop {
                let n = gunzip.next(&mut piece, &mut output)?;
                all.extend_from_slice(&output[..n]);
                if n == 0 {
                    assert!(piece.is_empty());
                    break;
                }
            }
        }
        Ok((all, gunzip.is_complete()))
    }

    #[test]
    fn any_split_gives_the_same() {
        let text: Vec<u8> = (0..50_000_u32).flat_map(|n| (n * n % 7919).to_le_bytes()).collect();
        let mut zipped = Vec::new();
        for part in text.chunks(90_000) {
            let builder = GzBuilder::new().filename("name").comment("words").extra(vec![1, 2, 0, 3]);
            let mut encoder = builder.write(Vec::new(), Compression::fast());
            encoder.write_all(part).unwrap();
            zipped.extend(encoder.finish().unwrap());
        }
        for size in [1, 7, 4096, zipped.len()] {
            for room in [1, 100, 65_536] {
                assert_eq!(decode(&zipped, size, room), Ok((text.clone(), true)), "{size} {room}");
            }
        }
        assert_eq!(decode(&zipped[..zipped.len() - 1], 100, 100).map(|(_, end)| end), Ok(false));
        let mut padded = zipped.clone();
        padded.extend([0; 100]);
        assert_eq!(decode(&padded, 100, 100), Ok((text, true)));
        let mut changed = zipped;
        let end = changed.len() - 6;
        changed[end] ^= 1;
        assert_eq!(decode(&changed, 100, 100), Err(BadGzip));
        assert_eq!(decode(b"plain text", 3, 100), Err(BadGzip));
        assert_eq!(decode(b"", 3, 100), Ok((vec![], true)));
    }

    #[test]
    fn what_was_flushed_comes_at_once() {
        let mut encoder = GzBuilder::new().write(Vec::new(), Compression::default());
        let mut gunzip = Gunzip::new();
        for event in ["data: 1\n\n".to_owned(), "x".repeat(300_000), "data: 3\n\n".to_owned()] {
            encoder.write_all(event.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let piece = std::mem::take(encoder.get_mut());
            let (mut input, mut output, mut all) = (&piece[..], [0; 1000], String::new());
            loop {
                let n = gunzip.next(&mut input, &mut output).unwrap();
                if n == 0 {
                    break;
                }
                all.push_str(std::str::from_utf8(&output[..n]).unwrap());
            }
            assert_eq!(all, event);
        }
    }
}
