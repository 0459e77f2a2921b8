//! What a random run knows about every text that was ever sent: who may see it, and in which form.
//!
//! Each text carries a mark, `"mark":"c17"`, that leads to its entry here. A text is kept with placeholders for the members
//! that the proxy replaces, so that what arrives is compared byte for byte.

use std::time::Duration;

use mcp_proxy_engine::{ChildId, ExchangeId, Instant};

/// Stands for an id in a kept text; no JSON text contains it.
pub(super) const ID: &str = "\u{1}";
/// Stands for a progress token.
pub(super) const TOKEN: &str = "\u{2}";
/// Stands for a log level.
pub(super) const LEVEL: &str = "\u{3}";

/// A text with placeholders.
#[derive(Clone, Debug)]
pub(super) struct Template(pub(super) String);

impl Template {
    pub(super) fn with(&self, id: &str, token: &str) -> String {
        self.0.replace(ID, id).replace(TOKEN, token)
    }

    /// As one line.
    pub(super) fn line(&self, id: &str, token: &str) -> String {
        self.with(id, token).replace(['\n', '\r'], " ").trim_matches(' ').to_owned()
    }
}

/// The mark of a text: its letter and number.
pub(super) fn mark(text: &str) -> Option<(char, usize)> {
    let (_, rest) = text.split_once(r#""mark":""#)?;
    let (mark, _) = rest.split_once('"')?;
    let letter = mark.chars().next()?;
    Some((letter, mark[1..].parse().ok()?))
}

/// Mark `h`: an `initialize`.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) template: Template,
    /// See [`Call::key`].
    pub(super) key: String,
}

/// Mark `i`: what a server said to it.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) template: Template,
    pub(super) child: ChildId,
}

/// Mark `c`: a request of a client.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) template: Template,
    /// Its id and token, raw, as the client spelled them.
    pub(super) id: String,
    pub(super) token: Option<String>,
    pub(super) session: usize,
    pub(super) posted: Instant,
    /// Which process may see it. Two texts with different keys must never meet in one process.
    pub(super) key: String,
    /// The process that read it, and the number it had there.
    pub(super) taken: Option<(ChildId, String)>,
    /// What the server said about it: progress notes, until the answer.
    pub(super) noted: usize,
    pub(super) heard: usize,
    /// The server answered it.
    pub(super) answered: bool,
    /// When it did, if nothing fails any more.
    pub(super) answered_at: Option<Instant>,
    /// The client has its answer.
    pub(super) received: bool,
    /// That answer is the proxy's own, so it may belong to another call of this exchange with the same id.
    pub(super) by_proxy: bool,
    /// The client did something for which the proxy may answer in the server's place.
    pub(super) excused: bool,
    /// The client was told that it will not be carried out.
    pub(super) dead: bool,
    /// The proxy may answer this one itself.
    pub(super) own_answer: bool,
}

impl Call {
    /// So old that the proxy may have forgotten whose it was: half a minute after it ended, a server that still speaks
    /// about it is misunderstood.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        now.since(self.posted) >= Duration::from_secs(30)
    }
}

/// Mark `a`: an answer of a server.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) template: Template,
    pub(super) call: usize,
    /// How much progress came before it.
    pub(super) noted: usize,
}

/// Mark `p`, `l`, `n`: a notification of a server.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) template: Template,
    pub(super) child: ChildId,
    pub(super) call: Option<usize>,
    /// Progress: its place in the order.
    pub(super) place: usize,
}

/// Mark `q`: a request of a server.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) template: Template,
    pub(super) child: ChildId,
    /// The server's id, raw.
    pub(super) id: String,
    pub(super) token: String,
    pub(super) call: Option<usize>,
    /// The number under which a client saw it.
    pub(super) number: Option<String>,
    /// Its server has an answer, or does not want one any more.
    pub(super) over: bool,
}

/// Mark `r`: a client's answer to it. Mark `k`: progress of it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) template: Template,
    pub(super) question: usize,
    /// It comes from a client that was not asked: no server may ever see it.
    pub(super) forged: bool,
}

/// Mark `m`: a notification of a client.
#[derive(Debug)]
pub(super) struct Remark {
    pub(super) template: Template,
    pub(super) key: String,
}

/// What an exchange is for, as its client sees it.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) client: usize,
    pub(super) session: usize,
    pub(super) key: String,
    pub(super) purpose: Purpose,
    pub(super) batch: bool,
    /// The last event that was read.
    pub(super) last_event: Option<String>,
    /// Another exchange took its stream over.
    pub(super) superseded: bool,
    /// The client went away.
    pub(super) left: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `initialize`, under this id.
    Hello(String),
    /// These calls are to be answered.
    Calls(Vec<usize>),
    /// The standalone stream.
    Listen,
    /// The stream of another exchange.
    Resume(ExchangeId),
    /// The session is to end.
    Delete,
    /// Something that wants no answer.
    Note,
    /// Something that is to be refused.
    Nonsense,
}
