//! Modern clients: their requests, and how those go on that a legacy server has a question about.
//!
//! ```text
//!  held ──the server's era and handshake are known──▶ sent ──answer──▶ gone
//!                                                      │  ▲
//!                        a question; more may follow   ▼  │ the client comes back with answers
//!                                                   asking ──a moment later──▶ parked ──too long──▶ cancelled
//! ```
//!
//! A parked call goes on at the server, which waits for its answer. What it says meanwhile is kept if it is the result, and
//! dropped otherwise: no stream of the client is open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::result::{self, SUBSCRIPTION};
use super::seal::{self, Claims, Unsealed};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::front::{SessionId, StreamId};
use crate::router::AskId;
use crate::wire::object::{Object, quote, unquote};
use crate::wire::rpc::{self, Kind, Message};

/// How long is waited for further questions of the same call: servers ask several at once, one line after the other.
const GATHER: Duration = Duration::from_millis(10);
/// Questions of one call that wait for their answers.
pub(super) const MAX_QUESTIONS: usize = 64;
/// Resources that one subscription names.
pub(crate) const MAX_RESOURCES: usize = 1_024;

/// A request of a modern client.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) server: usize,
    pub(crate) stream: StreamId,
    /// Raw.
    pub(crate) id: String,
    pub(crate) method: String,
    /// The message, until it is sent.
    pub(crate) raw: String,
    pub(crate) envelope: Envelope,
    /// The `Mcp-Param-*` header fields that it came with; `None`: it came by our stdin, where there are none.
    pub(crate) mirrored: Option<Vec<(String, String)>>,
    /// Which key let its client in.
    pub(crate) who: usize,
    /// It has its link on lease.
    pub(crate) leased: bool,
    /// It was sent again because its header fields did not fit the list of tools any more.
    retried: bool,
    /// Its header fields did not fit the list of tools, which was asked for anew.
    pub(crate) checked_again: bool,
    /// The raw URI that it names.
    pub(crate) uri: Option<String>,
    stage: Stage,
    digest: [u8; 32],
    round: u32,
    questions: Vec<Question>,
    /// The answer that came while the client was away, and its status.
    answer: Option<(u16, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Held,
    Sent,
    Asking,
    Parked,
    Listening(Filter),
}

#[derive(Debug)]
struct Question {
    ask: AskId,
    /// Raw.
    name: String,
    /// Raw: method and parameters.
    request: String,
}

/// What a client wants to hear of (specification 2026-07-28, basic/patterns/subscriptions).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// `tools`, `prompts`, `resources`.
    pub(crate) lists: BTreeSet<&'static str>,
    pub(crate) resources: BTreeSet<String>,
}

const LISTS: [(&str, &str); 3] =
    [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];

impl Filter {
    /// Reads the parameters of `subscriptions/listen`.
    ///
    /// # Errors
    ///
    /// Says what is malformed.
    pub(crate) fn read(params: Option<&RawValue>) -> Result<Self, String> {
        let wanted = rpc::member(params, "notifications").ok().flatten().and_then(|wanted| Object::parse(wanted.get()));
        let wanted = wanted.ok_or("params.notifications must be an object")?;
        let mut filter = Filter::default();
        for (list, name) in LISTS {
            match wanted.get(name) {
                Some("true") => drop(filter.lists.insert(list)),
                None | Some("false") => {}
                Some(_) => return Err(format!("params.notifications.{name} must be true or false")),
            }
        }
        if let Some(uris) = wanted.get("resourceSubscriptions") {
            let uris: Vec<String> = serde_json::from_str(uris)
                .map_err(|_| "params.notifications.resourceSubscriptions must be an array of strings")?;
            filter.resources.extend(uris);
        }
        if filter.resources.len() > MAX_RESOURCES {
            return Err(format!("at most {MAX_RESOURCES} resources can be subscribed to at once"));
        }
        Ok(filter)
    }

    /// What of it a server with these capabilities can tell.
    pub(crate) fn honoured(mut self, capabilities: &str) -> Self {
        let all = Object::parse(capabilities).unwrap_or_default();
        let says = |area: &str, name: &str| {
            let area = all.get(area).and_then(Object::parse);
            area.is_some_and(|area| area.get(name) == Some("true"))
        };
        self.lists.retain(|list| says(list, "listChanged"));
        if !says("resources", "subscribe") {
            self.resources.clear();
        }
        self
    }

    /// As JSON.
    pub(crate) fn show(&self) -> String {
        let lists = LISTS.iter().filter(|(list, _)| self.lists.contains(list));
        let mut members: Vec<_> = lists.map(|(_, name)| format!("\"{name}\":true")).collect();
        if !self.resources.is_empty() {
            let uris: Vec<_> = self.resources.iter().map(|uri| quote(uri)).collect();
            members.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.resources.is_empty()
    }
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It will be put to the client.
    Kept,
    /// No client can be asked this, or not at this time.
    Refused(&'static str),
    /// The client has not declared that it can be asked this: the raw capabilities it lacks.
    Missing(&'static str),
}

/// A client came back to its parked call.
#[derive(Debug)]
pub(crate) struct Resumed {
    /// The session of the call.
    pub(crate) session: SessionId,
    /// Messages that answer the server's questions, as if a legacy client had sent them.
    pub(crate) answers: Vec<String>,
    /// What is new about the call: see [`Down::resumed`].
    pub(crate) request: Returned,
}

/// What a client that comes back says anew.
#[derive(Debug)]
pub(crate) struct Returned {
    id: String,
    envelope: Envelope,
    /// Questions that it has answered.
    answered: Vec<AskId>,
}

#[derive(Debug, Default)]
pub(crate) struct Down {
    requests: BTreeMap<SessionId, Request>,
    /// Requests that were not sent yet.
    held: usize,
    /// Bytes of theirs.
    held_bytes: usize,
    /// Calls whose clients are away.
    parked: usize,
    /// Bytes of answers that wait for them.
    kept_bytes: usize,
}

impl Request {
    pub(crate) fn new(
        server: usize,
        stream: StreamId,
        message: &Message<'_>,
        envelope: Envelope,
        mirrored: Option<Vec<(String, String)>>,
        who: usize,
    ) -> Option<Self> {
        let Kind::Request { id, method, .. } = &message.kind else { return None };
        Some(Request {
            server,
            stream,
            id: id.0.to_owned(),
            method: method.clone().into_owned(),
            raw: message.raw.to_owned(),
            envelope,
            mirrored,
            who,
            leased: false,
            retried: false,
            checked_again: false,
            uri: None,
            stage: Stage::Held,
            digest: [0; 32],
            round: 0,
            questions: Vec::new(),
            answer: None,
        })
    }

    /// Whether it waits to be sent.
    pub(crate) fn is_held(&self) -> bool {
        self.stage == Stage::Held
    }

    /// Whether the server may have a question about it.
    pub(crate) fn may_ask(&self) -> bool {
        result::may_ask(&self.method)
    }
}

impl Down {
    pub(crate) fn open(&mut self, request: Request) {
        self.held += 1;
        self.held_bytes += request.raw.len();
        self.requests.insert(request.stream.session, request);
    }

    pub(crate) fn get(&self, session: SessionId) -> Option<&Request> {
        self.requests.get(&session)
    }

    pub(crate) fn get_mut(&mut self, session: SessionId) -> Option<&mut Request> {
        self.requests.get_mut(&session)
    }

    /// Takes a request from one stage to the next. All counts are kept here.
    fn enter(&mut self, session: SessionId, stage: Stage) {
        let Some(request) = self.requests.get_mut(&session) else { return };
        match request.stage {
            Stage::Held => {
                self.held -= 1;
                self.held_bytes -= request.raw.len();
            }
            Stage::Parked => self.parked -= 1,
            _ => {}
        }
        match stage {
            Stage::Held => {
                self.held += 1;
                self.held_bytes += request.raw.len();
            }
            Stage::Parked => self.parked += 1,
            _ => {}
        }
        request.stage = stage;
    }

    pub(crate) fn close(&mut self, core: &mut Core, session: SessionId) {
        core.timers.clear(Deadline::Questions(session));
        core.timers.clear(Deadline::Parked(session));
        self.enter(session, Stage::Sent);
        if let Some(request) = self.requests.remove(&session) {
            self.kept_bytes -= request.answer.map_or(0, |(_, message)| message.len());
        }
    }

    /// A request goes to its server, with these parameters. The message is kept only if it may have to be sent again.
    pub(crate) fn sent(&mut self, session: SessionId, params: Option<&RawValue>, keep: bool) {
        self.enter(session, Stage::Sent);
        let Some(request) = self.requests.get_mut(&session) else { return };
        if request.method == "resources/read" {
            request.uri = rpc::member(params, "uri").ok().flatten().map(|uri| uri.get().to_owned());
        }
        if request.may_ask() {
            request.digest = seal::digest(&request.method, params);
        }
        if !keep {
            request.raw = String::new();
        }
    }

    /// Whether a request may be sent once more, as what it was. It is held again then.
    pub(crate) fn try_again(&mut self, session: SessionId) -> bool {
        let Some(request) = self.requests.get_mut(&session) else { return false };
        let may = !request.raw.is_empty() && !std::mem::replace(&mut request.retried, true);
        if may {
            self.enter(session, Stage::Held);
        }
        may
    }

    /// Requests that were not sent yet.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Bytes of such requests.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Calls whose clients are away.
    pub(crate) const fn parked(&self) -> usize {
        self.parked
    }

    pub(crate) fn is_parked(&self, session: SessionId) -> bool {
        self.requests.get(&session).is_some_and(|request| request.stage == Stage::Parked)
    }

    /// The request of this id that came by stdin.
    pub(crate) fn by_id(&self, same: impl Fn(&str) -> bool) -> Option<SessionId> {
        // An id may stand for several requests if the client is careless; it means the last one.
        let mut found = self.requests.iter().rev().filter(|(_, request)| request.mirrored.is_none());
        found.find(|(_, request)| request.stage != Stage::Parked && same(&request.id)).map(|(session, _)| *session)
    }

    /// A server has a question about the call of this session.
    pub(crate) fn asked(&mut self, core: &mut Core, session: SessionId, ask: AskId, question: &Message<'_>) -> Asked {
        let Some(request) = self.requests.get_mut(&session) else { return Asked::Refused("the client is gone") };
        let Kind::Request { method, params, .. } = &question.kind else { return Asked::Refused("this is no request") };
        if !result::may_ask(&request.method) {
            return Asked::Refused("the client can be asked nothing during this request");
        }
        let Some(missing) = result::missing(&request.envelope, method, *params) else {
            return Asked::Refused("clients of revision 2026-07-28 cannot be asked this");
        };
        if let Some(missing) = missing {
            return Asked::Missing(missing);
        }
        if request.questions.len() >= MAX_QUESTIONS || core.config.state_key.is_none() {
            return Asked::Refused("the client cannot be asked anything more");
        }
        let mut body = Object::new();
        body.set("method", quote(method));
        if let Some(mut params) = params.and_then(|params| Object::parse(params.get())) {
            // The client has no notifications to say how far it is, nor to hear that a URL was visited.
            params.remove("elicitationId");
            if let Some(mut meta) = params.get("_meta").map(str::to_owned).as_deref().and_then(Object::parse) {
                meta.remove("progressToken");
                if meta.is_empty() {
                    params.remove("_meta");
                } else {
                    let meta = meta.to_string();
                    params.set("_meta", meta);
                }
            }
            body.set("params", params.to_string());
        }
        let name = format!("\"question_{}\"", ask.0);
        request.questions.push(Question { ask, name, request: body.to_string() });
        if request.stage == Stage::Sent {
            self.enter(session, Stage::Asking);
            core.after(GATHER, Deadline::Questions(session));
        }
        Asked::Kept
    }

    /// A question was taken back, or nobody waits for its answer.
    pub(crate) fn withdrawn(&mut self, ask: AskId) {
        for request in self.requests.values_mut() {
            request.questions.retain(|question| question.ask != ask);
        }
    }

    /// The questions of a call were gathered: its client gets them, and the call is parked.
    pub(crate) fn ask(
        &mut self,
        core: &mut Core,
        session: SessionId,
        server_info: Option<&str>,
    ) -> Option<(StreamId, Vec<u8>)> {
        let wait = core.config.timeouts.input;
        let key = core.config.state_key.as_ref()?.reveal();
        let (instance, expires) = (instance(core), clock(core) + wait.as_secs());
        let request = self.requests.get_mut(&session).filter(|request| request.stage == Stage::Asking)?;
        if request.questions.is_empty() {
            self.enter(session, Stage::Sent);
            return None;
        }
        request.round += 1;
        let claims = Claims {
            instance,
            session: session.0,
            round: request.round,
            expires,
            who: request.who,
            digest: request.digest,
        };
        let state = seal::seal(key, &claims);
        let questions: Vec<_> = request.questions.iter().map(|q| (q.name.clone(), q.request.clone())).collect();
        let message = result::asking(&request.id, &questions, &state, server_info);
        let stream = request.stream;
        self.enter(session, Stage::Parked);
        core.after(wait, Deadline::Parked(session));
        Some((stream, message))
    }

    /// A result that asks, without a call behind it: the request is to be sent once more when that is done.
    pub(crate) fn ask_again(
        &mut self,
        core: &Core,
        session: SessionId,
        questions: &[(String, String)],
        server_info: Option<&str>,
    ) -> Option<Vec<u8>> {
        let key = core.config.state_key.as_ref()?.reveal();
        let request = self.requests.get(&session)?;
        let expires = clock(core) + core.config.timeouts.input.as_secs();
        let digest = request.digest;
        let claims = Claims { instance: 0, session: 0, round: 0, expires, who: request.who, digest };
        Some(result::asking(&request.id, questions, &seal::seal(key, &claims), server_info))
    }

    /// A request came with a `requestState`: `None` if it is to be sent as a new one, else the call that it resumes.
    ///
    /// # Errors
    ///
    /// Says why the state does not count.
    pub(crate) fn resume(
        &self,
        core: &Core,
        newcomer: SessionId,
        params: Option<&RawValue>,
        state: &str,
    ) -> Result<Option<Resumed>, &'static str> {
        let Some(key) = core.config.state_key.as_ref() else { return Err("requestState is not known here") };
        let Some(new) = self.requests.get(&newcomer) else { return Err("the client is gone") };
        let claims = seal::unseal(key.reveal(), state).map_err(|unsealed| match unsealed {
            Unsealed::Foreign => "requestState is not one that was given out here",
            Unsealed::Forged => "requestState was changed, or given out by another server",
        })?;
        if claims.who != new.who {
            return Err("requestState was given to another client");
        }
        if claims.digest != seal::digest(&new.method, params) {
            return Err("requestState belongs to another request");
        }
        if claims.expires < clock(core) {
            return Err("requestState has expired; begin again without it");
        }
        let answers = rpc::member(params, "inputResponses").ok().flatten().map(RawValue::get);
        let answers = match answers {
            Some(answers) => Object::parse(answers).ok_or("inputResponses must be an object")?,
            None => Object::new(),
        };
        if claims.session == 0 {
            return Ok(None);
        }
        if claims.instance != instance(core) {
            return Err("the call that requestState belongs to waits at another proxy; begin again without it");
        }
        let session = SessionId(claims.session);
        let (id, envelope) = (new.id.clone(), new.envelope.clone());
        let parked = self.requests.get(&session);
        let mine = |old: &&Request| old.stage == Stage::Parked && old.round == claims.round && old.server == new.server;
        let Some(request) = parked.filter(mine) else {
            return Err("requestState was used already, or the call it belongs to is over; begin again without it");
        };
        let (mut given, mut answered) = (Vec::new(), Vec::new());
        for question in &request.questions {
            let answer = unquote(&question.name).and_then(|name| answers.get(&name).map(str::to_owned));
            if let Some(answer) = answer.filter(|answer| answer.starts_with('{')) {
                given.push(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{answer}}}"#, question.ask.0));
                answered.push(question.ask);
            }
        }
        Ok(Some(Resumed { session, answers: given, request: Returned { id, envelope, answered } }))
    }

    /// A client came back to its parked call, by this stream. Returns the raw id under which it is answered now.
    pub(crate) fn resumed(&mut self, core: &mut Core, stream: StreamId, back: Returned) -> Option<String> {
        let session = stream.session;
        let request = self.requests.get_mut(&session)?;
        request.questions.retain(|question| !back.answered.contains(&question.ask));
        (request.stream, request.id, request.envelope) = (stream, back.id, back.envelope);
        let (id, done) = (request.id.clone(), request.questions.is_empty());
        core.timers.clear(Deadline::Parked(session));
        self.enter(session, if done { Stage::Sent } else { Stage::Asking });
        if !done {
            // The server still wants to know the rest.
            core.after(Duration::ZERO, Deadline::Questions(session));
        }
        Some(id)
    }

    /// Forgets the questions of a call that the server has taken back.
    pub(crate) fn keep_questions(&mut self, session: SessionId, is_open: impl Fn(AskId) -> bool) {
        if let Some(request) = self.requests.get_mut(&session) {
            request.questions.retain(|question| is_open(question.ask));
        }
    }

    /// The answer to the call of a session. It is given back, unless the client is away: then it is kept.
    pub(crate) fn answer(
        &mut self,
        core: &mut Core,
        session: SessionId,
        status: u16,
        message: Vec<u8>,
    ) -> Option<(StreamId, u16, Vec<u8>)> {
        let request = self.requests.get_mut(&session)?;
        request.questions.clear();
        if request.stage == Stage::Parked {
            let full = self.kept_bytes + message.len() > core.config.limits.max_unread;
            let text = "too many answers wait for their clients; call again";
            let message = if full { rpc::error(Some(&request.id), rpc::code::REFUSED, text) } else { message };
            self.kept_bytes += message.len();
            if let Some((_, earlier)) = request.answer.replace((status, message)) {
                self.kept_bytes -= earlier.len();
            }
            return None;
        }
        let stream = request.stream;
        self.enter(session, Stage::Sent);
        core.timers.clear(Deadline::Questions(session));
        Some((stream, status, message))
    }

    /// The answer that was kept for a client that came back.
    pub(crate) fn kept(&mut self, core: &mut Core, session: SessionId) -> Option<(StreamId, u16, Vec<u8>)> {
        let request = self.requests.get_mut(&session)?;
        let (status, message) = request.answer.take()?;
        self.kept_bytes -= message.len();
        core.timers.clear(Deadline::Questions(session));
        let parsed = rpc::parse(&message).ok()?;
        let Kind::Response { id: Some(old), .. } = parsed.kind else { return None };
        let message = rpc::splice(parsed.raw, &mut [(old.0, &request.id)]);
        Some((request.stream, status, message))
    }

    /// The request listens for changes from now on.
    pub(crate) fn listens(&mut self, session: SessionId, filter: Filter) {
        self.enter(session, Stage::Listening(filter));
        if let Some(request) = self.requests.get_mut(&session) {
            request.raw = String::new();
        }
    }

    /// What a session listens for, if it does.
    pub(crate) fn filter(&self, session: SessionId) -> Option<&Filter> {
        match self.requests.get(&session).map(|request| &request.stage) {
            Some(Stage::Listening(filter)) => Some(filter),
            _ => None,
        }
    }

    /// The end of a subscription that is no failure.
    pub(crate) fn farewell(&self, session: SessionId) -> Option<(StreamId, Vec<u8>)> {
        let request = self.requests.get(&session)?;
        if request.method != "subscriptions/listen" || request.is_held() {
            return None;
        }
        let id = &request.id;
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":{id}}}}}}}"#
        );
        Some((request.stream, message.into_bytes()))
    }

    /// A notification, marked with the subscription that it is for.
    pub(crate) fn tagged(&self, session: SessionId, message: &Message<'_>) -> Option<(StreamId, Vec<u8>)> {
        let request = self.requests.get(&session)?;
        Some((request.stream, tag(message, Some(&request.id))?))
    }
}

/// A notification with the mark of a subscription, or without any.
pub(crate) fn tag(message: &Message<'_>, subscription: Option<&str>) -> Option<Vec<u8>> {
    let mut whole = Object::parse(message.raw)?;
    let params = whole.get("params").map(str::to_owned);
    let mut params = params.as_deref().map_or(Some(Object::new()), Object::parse)?;
    let meta = params.get("_meta").map(str::to_owned);
    let mut meta = meta.as_deref().map_or(Some(Object::new()), Object::parse)?;
    match subscription {
        Some(id) => meta.set(SUBSCRIPTION, id.to_owned()),
        None => drop(meta.remove(SUBSCRIPTION)),
    }
    if meta.is_empty() {
        params.remove("_meta");
    } else {
        params.set("_meta", meta.to_string());
    }
    if params.is_empty() {
        whole.remove("params");
    } else {
        whole.set("params", params.to_string());
    }
    Some(whole.to_string().into_bytes())
}

/// Which run of the program this is.
fn instance(core: &Core) -> u64 {
    let started = core.config.started.unwrap_or_default().as_nanos();
    u64::try_from(started & u128::from(u64::MAX)).unwrap_or_default() | 1
}

/// Seconds that all proxies with one key count alike.
fn clock(core: &Core) -> u64 {
    (core.config.started.unwrap_or_default() + core.now.elapsed()).as_secs()
}
