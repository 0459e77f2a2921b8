//! What waits to be written to one pipe. One write is under way at a time; what comes meanwhile goes out together.

use super::Core;
use crate::io::{Action, Pipe};

#[derive(Debug)]
pub(crate) struct Outbox {
    pipe: Pipe,
    /// Bytes of the write under way; 0 if there is none.
    writing: usize,
    queue: Vec<u8>,
    /// Close the pipe once everything is written.
    closing: bool,
}

impl Outbox {
    pub(crate) const fn new(pipe: Pipe) -> Self {
        Outbox { pipe, writing: 0, queue: Vec::new(), closing: false }
    }

    /// Queues bytes (not none).
    pub(crate) fn push(&mut self, core: &mut Core, bytes: Vec<u8>) {
        debug_assert!(!self.closing && !bytes.is_empty());
        if self.writing == 0 {
            self.writing = bytes.len();
            core.act(Action::Write(self.pipe, bytes));
        } else if self.queue.is_empty() {
            self.queue = bytes;
        } else {
            self.queue.extend_from_slice(&bytes);
        }
    }

    /// The write under way is done.
    pub(crate) fn wrote(&mut self, core: &mut Core) {
        self.writing = self.queue.len();
        if self.writing > 0 {
            core.act(Action::Write(self.pipe, std::mem::take(&mut self.queue)));
        } else if self.closing {
            core.act(Action::Close(self.pipe));
        }
    }

    /// Closes the pipe after what is queued.
    pub(crate) fn close(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.closing, true) && self.writing == 0 {
            core.act(Action::Close(self.pipe));
        }
    }

    pub(crate) const fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.writing == 0
    }

    /// Bytes not yet written.
    pub(crate) fn backlog(&self) -> usize {
        self.writing + self.queue.len()
    }
}
