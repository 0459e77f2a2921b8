//! How conversations with remote servers deal with challenges and tokens. What is said in them is [`super::auth`]'s.

use super::auth::Auth;
use super::remote::{Body, Fetch, Purpose, RemoteId, Remotes, Said};
use super::resume::{RETRY_FIRST, STANDALONE};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::io::{Action, FetchId, Headers};

impl Remotes {
    /// Fetches a token, unless one is being fetched.
    pub(super) fn fetch_token(&mut self, core: &mut Core, server: usize, id: RemoteId) {
        let under_way = self.fetches.values().any(|fetch| {
            let owner = fetch.owner.and_then(|owner| self.table.get(&owner));
            matches!(fetch.purpose, Purpose::Token) && owner.is_some_and(|owner| owner.server == server)
        });
        if under_way {
            return;
        }
        if let Some(request) = self.auth.get(&server).and_then(Auth::token_request) {
            let fetch = FetchId(core.number());
            let body = Body::Awaited;
            self.fetches.insert(
                fetch,
                Fetch { owner: Some(id), purpose: Purpose::Token, body, reading: false, closing: false, hops: 0 },
            );
            core.act(Action::Fetch(fetch, request));
        }
    }

    /// The conversations of the server that this one is with.
    pub(super) fn siblings(&self, id: RemoteId) -> Vec<RemoteId> {
        let Some(server) = self.table.get(&id).map(|c| c.server) else { return Vec::new() };
        self.table.iter().filter(|(_, c)| c.server == server).map(|(id, _)| *id).collect()
    }

    /// Deals with a 401. True if the request is sent again.
    pub(super) fn challenged(&mut self, core: &mut Core, id: FetchId, owner: RemoteId, headers: &Headers) -> bool {
        let Some(server) = self.table.get(&owner).map(|c| c.server) else { return false };
        let Some(fetch) = self.fetches.get_mut(&id) else { return false };
        match &mut fetch.purpose {
            Purpose::Post(post) if !post.challenged => post.challenged = true,
            // A GET is told apart by its hops: it is sent again once.
            Purpose::Stream(_) | Purpose::Sse if fetch.hops == 0 => {}
            _ => return false,
        }
        if !self.auth.get_mut(&server).is_some_and(|auth| auth.challenged(headers)) {
            return false;
        }
        if self.auth.get(&server).is_some_and(|auth| auth.needs_token(core.now)) {
            // It waits, first in the row, for the new token.
            let Some(fetch) = self.fetches.get_mut(&id) else { return false };
            fetch.owner = None;
            fetch.close(core, id);
            let purpose = std::mem::replace(&mut fetch.purpose, Purpose::Delete);
            if let Some(conversation) = self.table.get_mut(&owner) {
                if conversation.barrier == Some(id) {
                    conversation.barrier = None;
                }
                match purpose {
                    Purpose::Post(post) => conversation.waiting.push_front(post),
                    Purpose::Stream(number) => core.after(RETRY_FIRST, Deadline::Stream(owner, number)),
                    _ => core.after(RETRY_FIRST, Deadline::Stream(owner, STANDALONE)),
                }
            }
            self.fetch_token(core, server, owner);
        } else {
            self.again(core, id, owner, 1);
        }
        true
    }

    /// Without a token nothing can be sent.
    pub(super) fn token_failed(&mut self, owner: RemoteId, text: &str) -> Vec<(RemoteId, Said)> {
        let mut said = Vec::new();
        for id in self.siblings(owner) {
            let Some(conversation) = self.table.get_mut(&id) else { continue };
            let waiting = std::mem::take(&mut conversation.waiting);
            let numbers = waiting.into_iter().filter_map(|post| post.number);
            said.extend(numbers.map(|number| (id, Said::Failed { number, text: text.to_owned(), refused: false })));
        }
        said
    }
}
