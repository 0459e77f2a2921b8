//! Deadlines by name. One table; each is removed before it fires.

use std::collections::{BTreeMap, BTreeSet};

use crate::back::{LinkId, RemoteId};
use crate::front::SessionId;
use crate::io::{ChildId, ExchangeId, Instant};
use crate::router::{AskId, CallId};

/// Everything the engine can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// The server has not answered this call.
    Call(CallId),
    /// The client has not answered this question of the server.
    Ask(AskId),
    /// The exchange has no answer yet, or its stream was silent: time for the head of a stream, or for a comment.
    KeepAlive(ExchangeId),
    /// Nothing happened in this session.
    SessionIdle(SessionId),
    /// The server did not finish the handshake.
    Handshake(LinkId),
    /// The server was asked whether it is modern and is silent.
    Probe(LinkId),
    /// What a server asks about one request was gathered: it goes to the client together.
    Questions(SessionId),
    /// The client did not come back with its answers.
    Parked(SessionId),
    /// A request that came back without questions is to be sent again.
    Again(u64),
    /// A subscription of ours is to be opened again.
    Listen(LinkId),
    /// A crashed or unstartable server may be started again.
    Restart(LinkId),
    /// Nobody uses this shared server.
    LinkIdle(LinkId),
    /// The next step of stopping a child: SIGTERM, then SIGKILL.
    Stop(ChildId),
    /// The child is gone but something holds its pipes open.
    Drain(ChildId),
    /// A remote server had its time to answer the GET of the standalone stream.
    Listening(RemoteId),
    /// A broken stream of a remote server is to be taken up again.
    Stream(RemoteId, u64),
    /// Calls in flight had their time to finish at shutdown.
    Shutdown,
    /// Whatever still is open ends now.
    ShutdownEnd,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, Deadline)>,
    at: BTreeMap<Deadline, Instant>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, deadline: Deadline, at: Instant) {
        if let Some(old) = self.at.insert(deadline, at) {
            self.due.remove(&(old, deadline));
        }
        self.due.insert((at, deadline));
    }

    pub(crate) fn clear(&mut self, deadline: Deadline) {
        if let Some(old) = self.at.remove(&deadline) {
            self.due.remove(&(old, deadline));
        }
    }

    pub(crate) fn is_set(&self, deadline: Deadline) -> bool {
        self.at.contains_key(&deadline)
    }

    /// Removes and returns the first deadline that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Deadline> {
        let (at, deadline) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.clear(deadline);
        Some(deadline)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    pub(crate) fn clear_all(&mut self) {
        self.due.clear();
        self.at.clear();
    }
}
