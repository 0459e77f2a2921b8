//! Legacy clients of modern servers: what they said once is said for them in each request, and a result that asks becomes a
//! request to them.
//!
//! ```text
//!  sent ──result that asks──▶ asking ──every question is answered──▶ sent again, with the answers
//!   └──result──▶ gone           └──one is refused, or nobody answers──▶ failed
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::envelope::{Envelope, LATEST_LEGACY, LEVELS, text_of};
use super::result;
use crate::back::LinkId;
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::front::{SessionId, StreamId};
use crate::router::{AskId, CallId};
use crate::wire::object::{Object, quote};
use crate::wire::rpc::{self, Kind, Message};

/// Rounds of questions in one call, as the official SDKs have it.
const MAX_ROUNDS: u32 = 10;
/// Before a request is sent again that came back without a question: the server only wants a moment.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// First wait before a subscription that ended is opened again; doubled each time.
const LISTEN_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait.
const LISTEN_MAX: Duration = Duration::from_secs(30);

/// A legacy client, as it introduced itself.
#[derive(Debug)]
struct Client {
    envelope: Envelope,
    /// The revision that it asked for.
    version: String,
    /// Its `initialize`, until it is answered: it may have to be said to another process.
    hello: Option<String>,
}

/// A call on its way to a modern server.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) method: String,
    /// The message as it was sent, for the methods that may be answered with questions.
    pub(crate) raw: Option<String>,
    /// Rounds of questions until now.
    pub(crate) rounds: u32,
    /// It was sent again because its header fields did not fit the list of tools any more.
    pub(crate) retried: bool,
}

/// A call that came back with questions.
#[derive(Debug)]
struct Round {
    stream: StreamId,
    /// The client's id, raw.
    id: String,
    raw: String,
    /// Raw.
    state: Option<String>,
    /// Raw names by question.
    open: BTreeMap<AskId, String>,
    /// Raw names and results.
    answers: Vec<(String, String)>,
    rounds: u32,
}

/// The subscription that all legacy clients of a link share.
#[derive(Debug, Default)]
struct Listen {
    /// The one that counts.
    active: Option<CallId>,
    /// One with another filter, until it is acknowledged.
    next: Option<CallId>,
    /// The filter of the last one that was opened, as JSON.
    filter: String,
    tries: u32,
}

/// What is to be done after a result that asks.
#[derive(Debug)]
pub(crate) enum Next {
    /// Put these to the client.
    Ask(Vec<(AskId, Vec<u8>)>),
    /// Wait for a timer.
    Wait,
    /// The call fails.
    Fail(String),
}

/// A call that is to be sent again.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) stream: StreamId,
    pub(crate) raw: String,
    pub(crate) rounds: u32,
}

/// What an answer of the client comes to.
#[derive(Debug)]
pub(crate) enum Told {
    /// More answers are awaited, or nobody cares.
    Nothing,
    /// The call goes on.
    Retry(Retry),
    /// The call fails: where, the raw id, and why. These questions need no answer any more.
    Fail { stream: StreamId, id: String, text: String, open: Vec<AskId> },
}

#[derive(Debug, Default)]
pub(crate) struct Up {
    clients: BTreeMap<SessionId, Client>,
    flights: BTreeMap<CallId, Flight>,
    rounds: BTreeMap<u64, Round>,
    listens: BTreeMap<LinkId, Listen>,
    /// Messages of clients whose server has not shown its era: raw.
    held: BTreeMap<LinkId, Held>,
}

/// Messages that wait for a link.
#[derive(Debug, Default)]
struct Held {
    messages: Vec<(StreamId, String)>,
    bytes: usize,
    requests: usize,
}

impl Up {
    /// Remembers how a client introduced itself.
    pub(crate) fn introduce(&mut self, session: SessionId, hello: &Message<'_>) {
        let Kind::Request { params, .. } = &hello.kind else { return };
        let version = text_of(*params, "protocolVersion").unwrap_or_default();
        let hello = Some(hello.raw.to_owned());
        self.clients.insert(session, Client { envelope: Envelope::of_initialize(*params), version, hello });
    }

    /// The `initialize` of a client that was not answered.
    pub(crate) fn hello(&mut self, session: SessionId) -> Option<String> {
        self.clients.get_mut(&session)?.hello.take()
    }

    /// The client of a legacy server needs no introduction any more.
    pub(crate) fn forget(&mut self, session: SessionId) {
        self.clients.remove(&session);
    }

    /// The answer to `initialize`, from what a modern server said of itself; and the revision.
    pub(crate) fn welcome(&mut self, session: SessionId, discovered: &Message<'_>) -> Option<String> {
        let Kind::Response { outcome: Ok(discovered), .. } = &discovered.kind else { return None };
        let client = self.clients.get_mut(&session);
        let asked = client.map_or("", |client| {
            client.hello = None;
            &client.version
        });
        let version = if crate::front::is_known_revision(asked) { asked } else { LATEST_LEGACY };
        Some(result::initialized(discovered, version))
    }

    /// Keeps a message until the server has shown its era.
    pub(crate) fn hold(&mut self, core: &Core, link: LinkId, stream: StreamId, raw: &str) -> bool {
        let held = self.held.entry(link).or_default();
        let limits = &core.config.limits;
        let room = held.bytes <= limits.max_queue && held.messages.len() < limits.max_calls;
        if room {
            held.bytes += raw.len();
            held.requests += usize::from(id_of(raw).is_some());
            held.messages.push((stream, raw.to_owned()));
        }
        room
    }

    /// Messages that were kept for a link.
    pub(crate) fn release(&mut self, link: LinkId) -> Vec<(StreamId, String)> {
        self.held.remove(&link).map(|held| held.messages).unwrap_or_default()
    }

    /// Requests that have not come to a server, or back from it only with questions.
    pub(crate) fn waiting(&self) -> usize {
        self.held.values().map(|held| held.requests).sum::<usize>() + self.rounds.len()
    }

    /// A request of a client as it goes to a modern server.
    pub(crate) fn enclose(&self, session: SessionId, message: &Message<'_>) -> Option<String> {
        match self.clients.get(&session) {
            Some(client) => client.envelope.enclose(message),
            None => Envelope::own().enclose(message),
        }
    }

    /// The level of log messages that a session wants from now on. False if it is none.
    pub(crate) fn set_level(&mut self, session: SessionId, message: &Message<'_>) -> bool {
        let Kind::Request { params, .. } = &message.kind else { return false };
        let level = text_of(*params, "level").and_then(|level| LEVELS.iter().position(|one| *one == level));
        if let (Some(level), Some(client)) = (level, self.clients.get_mut(&session)) {
            client.envelope.level = Some(level);
        }
        level.is_some()
    }

    pub(crate) fn sent(&mut self, call: CallId, flight: Flight) {
        self.flights.insert(call, flight);
    }

    pub(crate) fn landed(&mut self, call: CallId) -> Option<Flight> {
        self.flights.remove(&call)
    }

    /// A call came back with questions.
    pub(crate) fn asked(
        &mut self,
        core: &mut Core,
        stream: StreamId,
        id: &str,
        flight: Flight,
        asking: result::InputRequired,
    ) -> Next {
        let Some(raw) = flight.raw else { return Next::Fail("the server asks where it must not".into()) };
        if flight.rounds >= MAX_ROUNDS {
            return Next::Fail(format!("the server asked {MAX_ROUNDS} times and is still not content"));
        }
        if asking.requests.len() > super::down::MAX_QUESTIONS {
            return Next::Fail("the server asks too much at once".into());
        }
        let client = self.clients.get(&stream.session).map(|client| &client.envelope);
        let (mut open, mut questions) = (BTreeMap::new(), Vec::new());
        for (name, request) in asking.requests {
            let Some(body) = Object::parse(&request) else { return Next::Fail("a question is malformed".into()) };
            let method = body.get("method").and_then(crate::wire::object::unquote).unwrap_or_default();
            let params = body.get("params").map(str::to_owned);
            let parsed = params.as_deref().and_then(|params| serde_json::from_str(params).ok());
            if client.and_then(|client| result::missing(client, &method, parsed)) != Some(None) {
                return Next::Fail(format!("the server asks for {method:?}, which the client has not declared"));
            }
            let ask = AskId(core.number());
            let mut message = Object::new();
            message.set("jsonrpc", "\"2.0\"");
            message.set("id", ask.0.to_string());
            message.set("method", quote(&method));
            if let Some(params) = params {
                let mut params = Object::parse(&params).unwrap_or_default();
                if params.get("mode") == Some("\"url\"") {
                    // The legacy form of it has a name.
                    params.set("elicitationId", quote(&format!("mcp-proxy-{}", ask.0)));
                }
                message.set("params", params.to_string());
            }
            questions.push((ask, message.to_string().into_bytes()));
            open.insert(ask, name);
        }
        let number = core.number();
        let round = Round {
            stream,
            id: id.to_owned(),
            raw,
            state: asking.state,
            open,
            answers: Vec::new(),
            rounds: flight.rounds + 1,
        };
        let pause = PAUSE.saturating_mul(round.rounds).min(PAUSE_MAX);
        self.rounds.insert(number, round);
        if questions.is_empty() {
            core.after(pause, Deadline::Again(number));
            return Next::Wait;
        }
        Next::Ask(questions)
    }

    /// The pause before a call is sent again is over.
    pub(crate) fn again(&mut self, number: u64) -> Option<Retry> {
        retry(self.rounds.remove(&number)?)
    }

    /// A client answered a question, with a raw result or a raw error.
    pub(crate) fn told(&mut self, ask: AskId, outcome: Result<String, String>) -> Told {
        let found = self.rounds.iter().find(|(_, round)| round.open.contains_key(&ask)).map(|(number, _)| *number);
        let Some(number) = found else { return Told::Nothing };
        let Some(round) = self.rounds.get_mut(&number) else { return Told::Nothing };
        let name = round.open.remove(&ask).unwrap_or_default();
        let failed = match outcome {
            Ok(result) => {
                round.answers.push((name, result));
                if !round.open.is_empty() {
                    return Told::Nothing;
                }
                None
            }
            Err(error) => {
                let text = serde_json::from_str(&error).ok().and_then(|error| text_of(Some(error), "message"));
                Some(format!("the client did not answer the server's question: {}", text.unwrap_or(error)))
            }
        };
        let Some(round) = self.rounds.remove(&number) else { return Told::Nothing };
        match failed {
            Some(text) => {
                let open = round.open.keys().copied().collect();
                Told::Fail { stream: round.stream, id: round.id, text, open }
            }
            None => {
                let (stream, id) = (round.stream, round.id.clone());
                let text = "the call cannot be sent again".to_owned();
                retry(round).map_or(Told::Fail { stream, id, text, open: Vec::new() }, Told::Retry)
            }
        }
    }

    /// A client does not want the answer to a call any more. Returns the questions that need none either, if the call was
    /// one that asks.
    pub(crate) fn cancel(
        &mut self,
        core: &mut Core,
        session: SessionId,
        same: impl Fn(&str) -> bool,
    ) -> Option<(StreamId, String, Vec<AskId>)> {
        let mine = |round: &Round| round.stream.session == session && same(&round.id);
        let number = *self.rounds.iter().rev().find(|(_, round)| mine(round))?.0;
        core.timers.clear(Deadline::Again(number));
        let round = self.rounds.remove(&number)?;
        Some((round.stream, round.id, round.open.into_keys().collect()))
    }

    /// A session ends: its requests that nobody has answered, and the questions to it.
    pub(crate) fn leave(&mut self, core: &mut Core, session: SessionId) -> Vec<(StreamId, String)> {
        self.clients.remove(&session);
        let mut left = Vec::new();
        for held in self.held.values_mut() {
            let (bytes, requests) = (&mut held.bytes, &mut held.requests);
            held.messages.retain(|(stream, raw)| {
                if stream.session != session {
                    return true;
                }
                *bytes -= raw.len();
                if let Some(id) = id_of(raw) {
                    *requests -= 1;
                    left.push((*stream, id));
                }
                false
            });
        }
        self.held.retain(|_, held| !held.messages.is_empty());
        self.rounds.retain(|number, round| {
            let mine = round.stream.session == session;
            if mine {
                core.timers.clear(Deadline::Again(*number));
                left.push((round.stream, round.id.clone()));
            }
            !mine
        });
        left
    }

    /// Calls that are over without an answer of the server.
    pub(crate) fn lost(&mut self, is_open: impl Fn(CallId) -> bool) {
        self.flights.retain(|call, _| is_open(*call));
    }

    // ---- the subscription of a link ----

    /// Whether another subscription is needed: its filter as JSON.
    pub(crate) fn filter_changed(&mut self, link: LinkId, filter: &str) -> bool {
        let listen = self.listens.entry(link).or_default();
        listen.filter != filter
    }

    /// A subscription with this filter was opened; `None`: there is nothing to listen for. Returns what to cancel at once.
    pub(crate) fn opened(&mut self, link: LinkId, call: Option<CallId>, filter: String) -> Vec<CallId> {
        let listen = self.listens.entry(link).or_default();
        listen.filter = filter;
        let mut over: Vec<CallId> = std::mem::replace(&mut listen.next, call).into_iter().collect();
        if call.is_none() {
            over.extend(listen.active.take());
        }
        over
    }

    /// Whether a subscription is one whose notifications count; an acknowledgement makes it so. Returns what to cancel.
    pub(crate) fn heard(&mut self, link: LinkId, call: CallId, acknowledged: bool) -> (bool, Option<CallId>) {
        let Some(listen) = self.listens.get_mut(&link) else { return (false, None) };
        if acknowledged && listen.next == Some(call) {
            listen.next = None;
            listen.tries = 0;
            return (false, listen.active.replace(call));
        }
        (listen.active == Some(call) && !acknowledged, None)
    }

    /// A subscription ended. It is opened again a while later, unless the server has none.
    pub(crate) fn ended(&mut self, core: &mut Core, link: LinkId, call: CallId, refused: bool) {
        let Some(listen) = self.listens.get_mut(&link) else { return };
        if listen.active == Some(call) {
            listen.active = None;
        } else if listen.next == Some(call) {
            listen.next = None;
        } else {
            return;
        }
        if refused {
            return;
        }
        listen.filter.clear();
        listen.tries = listen.tries.saturating_add(1);
        let wait = LISTEN_FIRST.saturating_mul(1 << (listen.tries - 1).min(5)).min(LISTEN_MAX);
        core.after(wait, Deadline::Listen(link));
    }

    /// A link is down, or gone: its subscription too.
    pub(crate) fn silence(&mut self, core: &mut Core, link: LinkId) {
        core.timers.clear(Deadline::Listen(link));
        self.listens.remove(&link);
    }
}

/// The raw id of a message, if it is a request.
fn id_of(raw: &str) -> Option<String> {
    match rpc::parse_str(raw).ok()?.kind {
        Kind::Request { id, .. } => Some(id.0.to_owned()),
        _ => None,
    }
}

/// The call of a round, with its answers.
fn retry(round: Round) -> Option<Retry> {
    let message = rpc::parse_str(&round.raw).ok()?;
    let answers: Vec<_> = round.answers.iter().map(|(name, answer)| format!("{name}:{answer}")).collect();
    let answers = (!answers.is_empty()).then(|| format!("{{{}}}", answers.join(",")));
    let raw = super::envelope::retry(&message, answers.as_deref(), round.state.as_deref())?;
    Some(Retry { stream: round.stream, raw, rounds: round.rounds })
}
