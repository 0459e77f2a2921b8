//! What the servers' lists of tools say about header fields. A call to a tool must wait until they are known, because it
//! cannot be checked, or sent to a modern remote server, without them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::mirror::{Catalog, next_cursor};
use crate::back::LinkId;
use crate::core::Core;
use crate::front::{SessionId, StreamId};
use crate::wire::rpc::{self, Kind, Message};

/// Pages that are read at most; a list that goes on is taken for a whole one.
const MAX_PAGES: u32 = 100;

/// A call that waits.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A modern client's.
    Modern(SessionId),
    /// A legacy client's, as it goes to a modern server; the rounds of questions before it, and whether it is sent again.
    Legacy(StreamId, String, u32, bool),
}

#[derive(Debug, Default)]
struct Entry {
    catalog: Catalog,
    state: State,
    waiting: Vec<Waiter>,
    /// Bytes of their messages.
    bytes: usize,
}

/// What comes of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The list must be asked for.
    Ask,
    /// It is on its way.
    Asked,
    /// Too many wait already.
    Full,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    /// This many pages came.
    Loading(u32),
    Known,
}

/// The catalogs of all links.
#[derive(Debug, Default)]
pub(crate) struct Catalogs {
    links: BTreeMap<LinkId, Entry>,
}

impl Catalogs {
    /// The catalog of a link, if it is known.
    pub(crate) fn get(&self, link: LinkId) -> Option<&Catalog> {
        self.links.get(&link).filter(|entry| entry.state == State::Known).map(|entry| &entry.catalog)
    }

    /// Lets a call wait.
    pub(crate) fn wait(&mut self, core: &Core, link: LinkId, waiter: Waiter) -> Wait {
        let limits = &core.config.limits;
        let entry = self.links.entry(link).or_default();
        let bytes = match &waiter {
            Waiter::Modern(_) => 0,
            Waiter::Legacy(_, raw, ..) => raw.len(),
        };
        if entry.waiting.len() >= limits.max_calls || entry.bytes + bytes > limits.max_queue.max(limits.max_body) {
            return Wait::Full;
        }
        entry.bytes += bytes;
        entry.waiting.push(waiter);
        if entry.state != State::Unknown {
            return Wait::Asked;
        }
        entry.catalog.clear();
        entry.state = State::Loading(0);
        Wait::Ask
    }

    /// Takes in a page. Returns where the next one begins, raw; else the list is complete.
    pub(crate) fn learn(&mut self, link: LinkId, page: Option<&RawValue>) -> Option<String> {
        let entry = self.links.get_mut(&link)?;
        let State::Loading(pages) = entry.state else { return None };
        let cursor = page.and_then(|page| {
            entry.catalog.learn(page);
            next_cursor(page).filter(|_| pages + 1 < MAX_PAGES)
        });
        // A server without tools has none with header fields.
        entry.state = if cursor.is_some() { State::Loading(pages + 1) } else { State::Known };
        cursor
    }

    /// The calls that waited for a list that is complete now.
    pub(crate) fn released(&mut self, link: LinkId) -> Vec<Waiter> {
        match self.links.get_mut(&link) {
            Some(entry) if entry.state == State::Known => {
                entry.bytes = 0;
                std::mem::take(&mut entry.waiting)
            }
            _ => Vec::new(),
        }
    }

    /// The list may be another one now.
    pub(crate) fn outdated(&mut self, link: LinkId) {
        if let Some(entry) = self.links.get_mut(&link)
            && entry.state == State::Known
        {
            entry.state = State::Unknown;
        }
    }

    /// The link is down: nothing is known, and nobody waits any more. Returns who did.
    pub(crate) fn forget(&mut self, link: LinkId) -> Vec<Waiter> {
        self.links.remove(&link).map(|entry| entry.waiting).unwrap_or_default()
    }

    /// A session is gone. Returns the requests of it that nobody has answered.
    pub(crate) fn leave(&mut self, session: SessionId) -> Vec<(StreamId, String)> {
        let mut left = Vec::new();
        for entry in self.links.values_mut() {
            let bytes = &mut entry.bytes;
            entry.waiting.retain(|waiter| match waiter {
                Waiter::Modern(one) => *one != session,
                Waiter::Legacy(stream, raw, ..) if stream.session == session => {
                    *bytes -= raw.len();
                    left.push((*stream, raw.clone()));
                    false
                }
                Waiter::Legacy(..) => true,
            });
        }
        left
    }

    /// A client does not want the answer to a call that waits. Returns where it is answered, and its raw id.
    pub(crate) fn cancel(&mut self, session: SessionId, same: impl Fn(&str) -> bool) -> Option<(StreamId, String)> {
        for entry in self.links.values_mut() {
            for (n, waiter) in entry.waiting.iter().enumerate() {
                if let Waiter::Legacy(stream, raw, ..) = waiter
                    && stream.session == session
                    && let Ok(Message { kind: Kind::Request { id, .. }, .. }) = rpc::parse_str(raw)
                    && same(id.0)
                {
                    let found = (*stream, id.0.to_owned());
                    entry.bytes -= raw.len();
                    entry.waiting.remove(n);
                    return Some(found);
                }
            }
        }
        None
    }

    /// Calls of legacy clients that wait.
    pub(crate) fn waiting(&self) -> usize {
        let all = self.links.values().flat_map(|entry| &entry.waiting);
        all.filter(|waiter| matches!(waiter, Waiter::Legacy(..))).count()
    }
}
