//! How event streams of remote servers outlive their connections (specification 2025-11-25, basic/transports,
//! "Resumability and Redelivery").

use std::time::Duration;

use super::remote::{Mode, Purpose, RemoteId, Remotes, Said};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::io::FetchId;

/// The number of the stream that a GET opens.
pub(super) const STANDALONE: u64 = 0;
/// First wait before a broken stream is taken up again, unless the server says otherwise.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait of our own.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest wait that a server may ask for.
pub(super) const RETRY_ASKED: Duration = Duration::from_secs(600);
/// Times a stream of a request is taken up without a new event before the request fails.
const RETRIES: u32 = 3;
/// How long requests wait for the answer to a notification before them, or to the GET.
pub(super) const LISTENING: Duration = Duration::from_secs(1);

/// An event stream, over its connections.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) fetch: Option<FetchId>,
    pub(super) last_id: Option<String>,
    pub(super) retry: Option<Duration>,
    /// Connections in a row that brought nothing.
    pub(super) tries: u32,
    /// The request it belongs to is answered.
    pub(super) answered: bool,
    /// It was open once.
    pub(super) opened: bool,
}

impl Stream {
    pub(super) const fn new() -> Self {
        Stream { fetch: None, last_id: None, retry: None, tries: 0, answered: false, opened: false }
    }
}

impl Remotes {
    /// The connection of a stream is gone: it is taken up again, or its request fails.
    pub(super) fn stream_ended(
        &mut self,
        core: &mut Core,
        owner: RemoteId,
        number: u64,
        text: &str,
    ) -> Vec<(RemoteId, Said)> {
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        let Some(stream) = conversation.streams.get_mut(&number) else { return Vec::new() };
        stream.fetch = None;
        stream.tries += 1;
        let standalone = number == STANDALONE;
        if conversation.modern {
            // Streams of the modern revision are not resumable.
            stream.last_id = None;
        }
        if stream.answered {
            conversation.streams.remove(&number);
        } else if standalone || (stream.last_id.is_some() && stream.tries <= RETRIES) {
            let backoff = RETRY_FIRST.saturating_mul(1 << (stream.tries - 1).min(5)).min(RETRY_MAX);
            // The server's word is the least there is to wait (specification 2025-11-25, "Sending Messages", 6).
            let wait = stream.retry.map_or(backoff, |retry| if stream.tries == 1 { retry } else { retry.max(backoff) });
            core.after(wait, Deadline::Stream(owner, number));
        } else {
            conversation.streams.remove(&number);
            return vec![(owner, Said::Failed { number, text: text.into(), refused: false })];
        }
        Vec::new()
    }

    /// What nothing may overtake had its time to be answered. The handshake takes as long as it takes.
    pub(crate) fn listening(&mut self, core: &mut Core, id: RemoteId) {
        if let Some(conversation) = self.table.get_mut(&id)
            && conversation.revision.is_some()
        {
            conversation.barrier = None;
            self.pump(core, id);
        }
    }

    /// Time to take up a stream again.
    pub(crate) fn reopen(&mut self, core: &mut Core, owner: RemoteId, number: u64) {
        let Some(conversation) = self.table.get(&owner) else { return };
        let server = conversation.server;
        if self.auth.get(&server).is_some_and(|auth| auth.needs_token(core.now)) {
            // Without one it would be refused again.
            self.fetch_token(core, server, owner);
            return core.after(RETRY_FIRST, Deadline::Stream(owner, number));
        }
        if matches!(conversation.mode, Mode::Sse(_)) {
            self.get(core, owner, Purpose::Sse, 1);
        } else if conversation.streams.contains_key(&number) {
            self.get(core, owner, Purpose::Stream(number), 0);
        }
    }
}
