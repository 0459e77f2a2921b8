//! A client's session: its streams, and what it may ask for again.
//!
//! A stream is what answers one POST, or stream 0, the standalone one that GET opens. It outlives the exchange it is
//! attached to: a client that lost its connection takes it up again by `Last-Event-ID` (specification 2025-11-25,
//! basic/transports, "Resumability and Redelivery"). Event ids are `STREAM-NUMBER`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::http::Env;
use crate::io::ExchangeId;

/// The stream that GET opens.
pub(crate) const STANDALONE: u32 = 0;

#[derive(Debug)]
pub(crate) struct Session {
    /// What the client calls it; `None` if it has no need to.
    pub(crate) name: Option<String>,
    pub(crate) channel: Channel,
    pub(crate) server: usize,
    /// What was negotiated; `None` until then.
    pub(crate) revision: Option<String>,
    pub(crate) exchanges: BTreeSet<ExchangeId>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) last_stream: u32,
    pub(crate) replay: Replay,
    /// The one process behind it is its own: if it reads slowly, that process waits.
    pub(crate) dedicated: bool,
    /// Which key let its client in: the session is no other's.
    pub(crate) who: usize,
    /// What its client adds to the environment of the server.
    pub(crate) env: Env,
}

/// How a session's messages reach its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// By the streams of Streamable HTTP.
    Streams,
    /// By the streams of Streamable HTTP, but it lives only as long as its one exchange.
    OneExchange,
    /// The same for a request of revision 2026-07-28, whose client means to cancel it when it leaves. It may outlive its
    /// exchange, while its client gathers what a server wants to know.
    Modern,
    /// A request of revision 2026-07-28 that came by our stdin, and is answered by our stdout.
    ModernStdio,
    /// All by one event stream: HTTP+SSE (2024-11-05). It lives as long as that.
    Sse(ExchangeId),
    /// All by our stdout.
    Stdio,
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Where it goes now. The standalone stream may have several; the newest gets what comes.
    pub(crate) attached: Vec<ExchangeId>,
    /// Requests of its POST without an answer.
    pub(crate) waiting: usize,
    /// It is an event stream, and not only the wait for an answer: the client may know an event id of it.
    pub(crate) begun: bool,
    /// The number of its last event. The priming event is not counted: it repeats what went before it.
    pub(crate) last_event: u64,
    /// The number of the last event that was handed to an exchange.
    pub(crate) sent: u64,
    /// Answers gathered for a JSON array; `None` if the POST was a single message.
    pub(crate) batch: Option<Vec<Vec<u8>>>,
}

/// Events that can be asked for again, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    events: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    stream: u32,
    number: u64,
    frame: Vec<u8>,
}

impl Replay {
    /// Keeps a frame, at the cost of the oldest.
    pub(crate) fn keep(&mut self, stream: u32, number: u64, frame: &[u8], max_events: usize, max_bytes: usize) {
        if frame.len() > max_bytes || max_events == 0 {
            return;
        }
        self.bytes += frame.len();
        self.events.push_back(Kept { stream, number, frame: frame.to_vec() });
        while self.bytes > max_bytes || self.events.len() > max_events {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.frame.len();
        }
    }

    /// The frames of a stream after an event.
    pub(crate) fn after(&self, stream: u32, number: u64) -> Vec<u8> {
        let kept = self.events.iter().filter(|e| e.stream == stream && e.number > number);
        kept.flat_map(|e| e.frame.iter().copied()).collect()
    }
}

/// The name of an event.
pub(crate) fn event_id(stream: u32, number: u64) -> String {
    format!("{stream}-{number}")
}

/// The stream and number that an event id names.
pub(crate) fn parse_event_id(id: &str) -> Option<(u32, u64)> {
    let (stream, number) = id.split_once('-')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if digits(stream) && digits(number) { Some((stream.parse().ok()?, number.parse().ok()?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_go_first() {
        let mut replay = Replay::default();
        for n in 1..=5 {
            replay.keep(1, n, format!("{n};").as_bytes(), 3, 100);
        }
        replay.keep(2, 1, b"other;", 3, 100);
        assert_eq!(replay.after(1, 0), b"4;5;");
        assert_eq!(replay.after(1, 4), b"5;");
        assert_eq!(replay.after(2, 0), b"other;");
        replay.keep(1, 6, &[b'x'; 101], 3, 100);
        assert_eq!(replay.after(1, 5), b"", "what is larger than all room is not kept");
        replay.keep(1, 7, &[b'x'; 98], 3, 100);
        assert_eq!(replay.after(1, 0).len(), 98);
        assert_eq!(replay.bytes, 98);
    }

    #[test]
    fn event_ids() {
        assert_eq!(parse_event_id(&event_id(3, 14)), Some((3, 14)));
        for id in ["", "-", "3", "3-", "-3", "+3-1", "3-1-2", "3-99999999999999999999", "a-1"] {
            assert_eq!(parse_event_id(id), None, "{id}");
        }
    }
}
