//! Conversations with remote servers: lines go out as POSTs, messages come back in bodies and event streams (specification
//! 2025-11-25, basic/transports, "Streamable HTTP"; 2024-11-05, basic/transports, "HTTP with SSE").
//!
//! ```text
//!  Streamable HTTP:  each line is a POST; its answer is JSON or a stream; after `initialized` a GET listens
//!  HTTP+SSE:         one GET brings `endpoint` and then every message; each line is a POST to that endpoint
//!  detection:        the first POST is refused with 400, 404 or 405 and no answer of MCP ──▶ HTTP+SSE
//! ```
//!
//! A stream that breaks is taken up again by `Last-Event-ID`. What the remote does not know any more (404) ends the
//! conversation; the link then begins a new one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use log::{debug, info, warn};

use super::Line;
use super::auth::Auth;
use super::reply::{answers, hint, status_text};
use super::resume::{LISTENING, RETRY_ASKED, STANDALONE, Stream};
use super::url;
use crate::config::{Origin, RemoteTransport};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::envelope::{self, MODERN};
use crate::era::mirror;
use crate::io::{Action, FetchError, FetchErrorKind, FetchId, FetchRequest, Headers, HttpResponse, Pipe, Secret};
use crate::wire::rpc::{self, Kind};
use crate::wire::sse;

/// Names one conversation. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RemoteId(pub(crate) u64);

/// What a conversation brings.
#[derive(Debug)]
pub(crate) enum Said {
    /// A message, and the number of the request on whose stream it came.
    Message { bytes: Vec<u8>, about: Option<u64> },
    /// The request of this number has no answer; `refused`: the server would say the same again.
    Failed { number: u64, text: String, refused: bool },
    /// Lines can be written from now on.
    Up,
    /// It is over. These lines were not taken, and may be sent in the next conversation.
    Down { why: String, unsent: Vec<Post> },
}

/// A line on its way.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) line: Vec<u8>,
    /// Header fields that say again what the message says (2026-07-28), beside those that any client can make up.
    pub(crate) mirrored: Vec<(String, String)>,
    /// The header fields that any client makes up, if it is a modern request.
    modern: Option<Vec<(&'static str, String)>>,
    /// The number of the request it is; `None` for a notification or an answer.
    pub(crate) number: Option<u64>,
    /// It is `initialize`.
    pub(super) hello: bool,
    /// It is `notifications/initialized`.
    initialized: bool,
    /// It was sent again after a challenge.
    pub(super) challenged: bool,
}

impl Post {
    fn notification(line: Vec<u8>) -> Self {
        let (mirrored, modern, number) = (Vec::new(), None, None);
        Post { line, mirrored, modern, number, hello: false, initialized: false, challenged: false }
    }
}

/// Redirects that are followed in a row.
const MAX_HOPS: u8 = 5;
/// Bytes of an error body that are read.
const MAX_ERROR: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) server: usize,
    /// Where it was redirected to, or as configured.
    url: String,
    pub(super) mode: Mode,
    pub(super) session: Option<String>,
    /// Modern requests go out: there is no session, and to give up on one is to close its stream.
    pub(super) modern: bool,
    pub(super) revision: Option<String>,
    pub(super) waiting: VecDeque<Post>,
    /// Nothing may overtake this request: the head of its response is awaited.
    pub(super) barrier: Option<FetchId>,
    pub(super) streams: BTreeMap<u64, Stream>,
    /// Why Streamable HTTP was given up.
    pub(super) refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Streamable HTTP, if the first answer does not say otherwise.
    Detect,
    Streamable,
    /// Where to POST, once it is known.
    Sse(Option<String>),
}

#[derive(Debug)]
pub(super) struct Fetch {
    /// `None`: nobody cares any more, only its end is awaited.
    pub(super) owner: Option<RemoteId>,
    pub(super) purpose: Purpose,
    pub(super) body: Body,
    pub(super) reading: bool,
    /// We closed it.
    pub(super) closing: bool,
    pub(super) hops: u8,
}

impl Fetch {
    /// Drops our end, once; only the terminal event is awaited then.
    pub(super) fn close(&mut self, core: &mut Core, id: FetchId) {
        self.body = Body::Skipped;
        if !std::mem::replace(&mut self.closing, true) {
            core.act(Action::Close(Pipe::Fetched(id)));
        }
    }
}

#[derive(Debug)]
pub(super) enum Purpose {
    Post(Post),
    /// A GET for a stream: of a request, or the standalone one.
    Stream(u64),
    /// The GET of HTTP+SSE.
    Sse,
    Delete,
    Token,
}

#[derive(Debug)]
pub(super) enum Body {
    /// The head has not come.
    Awaited,
    Json(Vec<u8>),
    Events(Box<sse::Decoder>),
    /// The body of an answer that is none.
    Error(u16, String, Vec<u8>),
    Skipped,
}

#[derive(Debug, Default)]
pub(crate) struct Remotes {
    pub(super) table: BTreeMap<RemoteId, Conversation>,
    pub(super) fetches: BTreeMap<FetchId, Fetch>,
    /// By server: all its conversations share one token.
    pub(super) auth: BTreeMap<usize, Auth>,
}

impl Remotes {
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.len()
    }

    /// Begins a conversation. True if lines can be written at once; else [`Said::Up`] follows.
    pub(crate) fn open(&mut self, core: &mut Core, server: usize) -> (RemoteId, bool) {
        let id = RemoteId(core.number());
        let Origin::Remote(remote) = &core.config.servers[server].origin else {
            // The caller looked.
            return (id, false);
        };
        self.auth.entry(server).or_insert_with(|| Auth::new(remote.credentials.clone()));
        let mode = match remote.transport {
            RemoteTransport::Detect => Mode::Detect,
            RemoteTransport::StreamableHttp => Mode::Streamable,
            RemoteTransport::Sse => Mode::Sse(None),
        };
        let sse = mode == Mode::Sse(None);
        let conversation = Conversation {
            server,
            url: remote.url.reveal().clone(),
            mode,
            session: None,
            modern: false,
            revision: None,
            waiting: VecDeque::new(),
            barrier: None,
            streams: BTreeMap::new(),
            refused: None,
        };
        self.table.insert(id, conversation);
        if sse {
            self.get(core, id, Purpose::Sse, 0);
        }
        (id, !sse)
    }

    /// Bytes that wait to be sent.
    pub(crate) fn backlog(&self, id: RemoteId) -> usize {
        self.table.get(&id).map_or(0, |c| c.waiting.iter().map(|post| post.line.len()).sum())
    }

    /// Whether everything a server says comes on one stream.
    pub(crate) fn is_sse(&self, id: RemoteId) -> bool {
        self.table.get(&id).is_some_and(|conversation| matches!(conversation.mode, Mode::Sse(_)))
    }

    pub(crate) fn write(&mut self, core: &mut Core, id: RemoteId, line: Line) {
        let Some(conversation) = self.table.get_mut(&id) else { return };
        let Line { bytes, mirrored } = line;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let (mut number, mut hello, mut initialized, mut modern) = (None, false, false, None);
        match rpc::parse(text).map(|message| message.kind) {
            Ok(Kind::Request { id, method, params }) => {
                (number, hello) = (id.number(), method == "initialize");
                modern = envelope::claims(params).then(|| mirror::standard(&method, params));
                conversation.modern = modern.is_some();
            }
            Ok(Kind::Notification { method, params }) if conversation.modern => {
                // Over HTTP there are no notifications from clients any more: a stream that is closed is cancelled.
                let number = rpc::member(params, "requestId").ok().flatten().and_then(|id| rpc::Id(id.get()).number());
                if let (Some(number), "notifications/cancelled") = (number, &*method) {
                    self.forget_call(core, id, number);
                }
                return;
            }
            Ok(Kind::Notification { method, .. }) => initialized = method == "notifications/initialized",
            _ => {}
        }
        let line = text.to_vec();
        conversation.waiting.push_back(Post { line, mirrored, modern, number, hello, initialized, challenged: false });
        self.pump(core, id);
    }

    /// The handshake agreed on this revision. What waited for it may be sent, even if its stream stays open.
    pub(crate) fn agreed(&mut self, core: &mut Core, id: RemoteId, revision: Option<&str>) {
        if let Some(conversation) = self.table.get_mut(&id) {
            conversation.revision = revision.map(str::to_owned);
            conversation.barrier = None;
        }
        self.pump(core, id);
    }

    /// Sends what may be sent.
    pub(super) fn pump(&mut self, core: &mut Core, id: RemoteId) {
        while let Some(conversation) = self.table.get_mut(&id)
            && conversation.barrier.is_none()
            && conversation.mode != Mode::Sse(None)
        {
            let server = conversation.server;
            if !conversation.waiting.is_empty() && self.auth.get(&server).is_some_and(|auth| auth.needs_token(core.now))
            {
                return self.fetch_token(core, server, id);
            }
            let Some(post) = conversation.waiting.pop_front() else { return };
            self.post(core, id, post, 0);
        }
    }

    fn post(&mut self, core: &mut Core, id: RemoteId, post: Post, hops: u8) {
        let Some(conversation) = self.table.get(&id) else { return };
        let url = match &conversation.mode {
            Mode::Sse(Some(endpoint)) => endpoint.clone(),
            _ => conversation.url.clone(),
        };
        let mut headers = Headers::new();
        headers.push("content-type", "application/json");
        headers.push("accept", "application/json, text/event-stream");
        if let Some(modern) = &post.modern {
            headers.push("mcp-protocol-version", MODERN);
            for (name, value) in modern {
                headers.push(*name, value.clone());
            }
            for (name, value) in &post.mirrored {
                headers.push(name.clone(), value.clone());
            }
        } else if !post.hello {
            if let Some(revision) = &conversation.revision {
                headers.push("mcp-protocol-version", revision.clone());
            }
            if let Some(session) = &conversation.session {
                headers.push("mcp-session-id", session.clone());
            }
        }
        // An answer or a notification must not be overtaken by what follows it; nothing may overtake the handshake.
        let barrier = post.number.is_none() || post.hello;
        let fetch = self.send(core, id, "POST", url, headers, post.line.clone(), Purpose::Post(post), hops);
        if let Some(conversation) = self.table.get_mut(&id)
            && barrier
        {
            conversation.barrier = Some(fetch);
            core.after(LISTENING, Deadline::Listening(id));
        }
    }

    /// Opens a stream by GET.
    pub(super) fn get(&mut self, core: &mut Core, id: RemoteId, purpose: Purpose, hops: u8) {
        let Some(conversation) = self.table.get(&id) else { return };
        let url = conversation.url.clone();
        let mut headers = Headers::new();
        headers.push("accept", "text/event-stream");
        headers.push("cache-control", "no-store");
        if let Some(revision) = &conversation.revision {
            headers.push("mcp-protocol-version", revision.clone());
        }
        if let Some(session) = &conversation.session {
            headers.push("mcp-session-id", session.clone());
        }
        let number = if let Purpose::Stream(number) = purpose { Some(number) } else { None };
        let last = number.and_then(|number| conversation.streams.get(&number)?.last_id.clone());
        if let Some(last) = last {
            headers.push("last-event-id", last);
        }
        let fetch = self.send(core, id, "GET", url, headers, Vec::new(), purpose, hops);
        let stream = number.and_then(|number| self.table.get_mut(&id)?.streams.get_mut(&number));
        if let Some(stream) = stream {
            stream.fetch = Some(fetch);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "it is one HTTP request, part by part")]
    fn send(
        &mut self,
        core: &mut Core,
        id: RemoteId,
        method: &'static str,
        url: String,
        mut headers: Headers,
        body: Vec<u8>,
        purpose: Purpose,
        hops: u8,
    ) -> FetchId {
        let fetch = FetchId(core.number());
        let server = self.table.get(&id).map_or(0, |c| c.server);
        if let Origin::Remote(remote) = &core.config.servers[server].origin
            && url::same_origin(remote.url.reveal(), &url)
        {
            // What proves who we are goes to the configured origin and nowhere else, whatever redirects say.
            for (name, value) in remote.headers.iter() {
                headers.push(name.to_owned(), value.to_owned());
            }
            let path = url::parse(&url).map(|uri| {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                format!("{}{query}", if uri.path().is_empty() { "/" } else { uri.path().as_str() })
            });
            if headers.get("authorization").is_none()
                && let Some(auth) = self.auth.get_mut(&server)
                && let Some(value) = auth.header(method, path.as_deref().unwrap_or("/"), fetch.0)
            {
                headers.push("authorization", value);
            }
        }
        self.fetches.insert(
            fetch,
            Fetch { owner: Some(id), purpose, body: Body::Awaited, reading: false, closing: false, hops },
        );
        core.act(Action::Fetch(fetch, FetchRequest { method, url: Secret::new(url), headers, body }));
        fetch
    }

    /// The head of a response.
    pub(crate) fn fetched(&mut self, core: &mut Core, id: FetchId, response: &HttpResponse) -> Vec<(RemoteId, Said)> {
        let Some(fetch) = self.fetches.get_mut(&id) else { return Vec::new() };
        let Some(owner) = fetch.owner else {
            fetch.close(core, id);
            return Vec::new();
        };
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        let status = response.status;
        let header = |name| response.headers.get(name);
        let kind = header("content-type").and_then(|t| t.split(';').next()).unwrap_or_default().trim();
        let (json, events) =
            (kind.eq_ignore_ascii_case("application/json"), kind.eq_ignore_ascii_case("text/event-stream"));
        if matches!(status, 301 | 302 | 307 | 308) && !matches!(fetch.purpose, Purpose::Token | Purpose::Delete) {
            let hops = fetch.hops + 1;
            let target = header("location").and_then(|location| url::resolve(&conversation.url, location));
            if let Some(target) = target.filter(|_| hops <= MAX_HOPS) {
                info!("redirected to {}", url::without_query(&target));
                match &mut conversation.mode {
                    Mode::Sse(Some(endpoint)) => *endpoint = target,
                    _ => conversation.url = target,
                }
                return self.again(core, id, owner, hops);
            }
        }
        if status == 401 && self.challenged(core, id, owner, &response.headers) {
            return Vec::new();
        }
        let Some(fetch) = self.fetches.get_mut(&id) else { return Vec::new() };
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        if conversation.barrier == Some(id) && !matches!(&fetch.purpose, Purpose::Post(post) if post.hello) {
            conversation.barrier = None;
        }
        let ok = (200..300).contains(&status);
        let max = core.config.limits.max_message;
        let text = || status_text(status, &response.headers);
        let wrong_type = || format!("the remote server answered with {kind:?} instead of MCP. Is the URL right?");
        let sse = matches!(conversation.mode, Mode::Sse(_));
        let mut said = Vec::new();
        fetch.body = match &mut fetch.purpose {
            Purpose::Post(_) if sse && ok => Body::Skipped,
            Purpose::Post(post) if ok => {
                if post.hello || post.modern.is_some() {
                    conversation.mode = Mode::Streamable;
                }
                if post.hello {
                    conversation.session = header("mcp-session-id").map(str::to_owned);
                }
                match post.number {
                    None => {
                        if post.initialized {
                            conversation.streams.insert(STANDALONE, Stream::new());
                        }
                        Body::Skipped
                    }
                    Some(_) if json => Body::Json(Vec::new()),
                    Some(number) if events => {
                        conversation.streams.insert(number, Stream { fetch: Some(id), ..Stream::new() });
                        Body::Events(Box::new(sse::Decoder::new(max)))
                    }
                    Some(_) => Body::Error(status, wrong_type(), Vec::new()),
                }
            }
            Purpose::Post(_) if status == 404 && conversation.session.is_some() => {
                Body::Error(status, "the remote server does not know the session any more".into(), Vec::new())
            }
            Purpose::Stream(number) => {
                let number = *number;
                let stream = conversation.streams.get_mut(&number);
                let opened = stream.as_ref().is_some_and(|stream| stream.opened);
                let resumed = stream.as_ref().is_some_and(|stream| stream.last_id.is_some());
                if ok && events {
                    if let Some(stream) = stream {
                        stream.opened = true;
                    }
                    Body::Events(Box::new(sse::Decoder::new(max)))
                } else if let (STANDALONE, 400..=499, true, Some(stream)) = (number, status, resumed, stream) {
                    // It does not know the event any more; a fresh stream it may have.
                    stream.last_id = None;
                    Body::Skipped
                } else {
                    // Some servers say 404 where they never had a stream.
                    let lost = status == 404 && conversation.session.is_some() && (number != STANDALONE || opened);
                    if lost {
                        conversation.session = None;
                        let unsent = conversation.waiting.drain(..).collect();
                        let why = "the remote server does not know the session any more".into();
                        said.push((owner, Said::Down { why, unsent }));
                    } else if matches!(status, 400..=499) && !matches!(status, 408 | 429) {
                        // It would say the same the next time.
                        conversation.streams.remove(&number);
                        if number == STANDALONE {
                            debug!("the remote server offers no stream of its own ({status})");
                        } else {
                            let text =
                                format!("the stream of the answer broke, and to take it up again failed: {}", text());
                            said.push((owner, Said::Failed { number, text, refused: false }));
                        }
                    }
                    Body::Skipped
                }
            }
            Purpose::Sse if ok && events => Body::Events(Box::new(sse::Decoder::new(max))),
            Purpose::Sse => {
                let why = if ok { wrong_type() } else { text() };
                let hello = conversation.waiting.front().filter(|post| post.hello).and_then(|post| post.number);
                match (conversation.refused.take(), hello) {
                    (Some(first), Some(number)) => {
                        // Only a server of the modern revision is left for it to be.
                        conversation.mode = Mode::Streamable;
                        conversation.waiting.pop_front();
                        let text = format!("it speaks neither Streamable HTTP ({first}) nor HTTP+SSE ({why})");
                        said.push((owner, Said::Failed { number, text, refused: true }));
                    }
                    _ => {
                        let unsent = conversation.waiting.drain(..).collect();
                        said.push((owner, Said::Down { why, unsent }));
                    }
                }
                Body::Skipped
            }
            Purpose::Token => Body::Error(status, String::new(), Vec::new()),
            Purpose::Delete => Body::Skipped,
            Purpose::Post(_) => Body::Error(status, text(), Vec::new()),
        };
        let started = matches!(&fetch.purpose, Purpose::Post(post) if post.initialized && ok && !sse);
        match fetch.body {
            Body::Skipped => fetch.close(core, id),
            _ => {
                fetch.reading = true;
                core.act(Action::Read(Pipe::Fetched(id)));
            }
        }
        if started {
            self.get(core, owner, Purpose::Stream(STANDALONE), 0);
            // Servers drop what belongs to no request while nobody listens. So nothing is asked of this one before it has
            // answered the GET; but some send no head before the first event, so not for long.
            if let Some(conversation) = self.table.get_mut(&owner) {
                conversation.barrier = conversation.streams.get(&STANDALONE).and_then(|stream| stream.fetch);
                core.after(LISTENING, Deadline::Listening(owner));
            }
        }
        self.pump(core, owner);
        said
    }

    /// Sends a request once more, after a redirect or with new credentials.
    pub(super) fn again(&mut self, core: &mut Core, id: FetchId, owner: RemoteId, hops: u8) -> Vec<(RemoteId, Said)> {
        let Some(fetch) = self.fetches.get_mut(&id) else { return Vec::new() };
        // The old one only has to end.
        fetch.owner = None;
        fetch.close(core, id);
        let purpose = std::mem::replace(&mut fetch.purpose, Purpose::Delete);
        if let Some(conversation) = self.table.get_mut(&owner)
            && conversation.barrier == Some(id)
        {
            conversation.barrier = None;
        }
        match purpose {
            Purpose::Post(post) => self.post(core, owner, post, hops),
            purpose => self.get(core, owner, purpose, hops),
        }
        Vec::new()
    }

    /// Bytes of a body.
    pub(crate) fn data(&mut self, core: &mut Core, id: FetchId, mut bytes: &[u8]) -> Vec<(RemoteId, Said)> {
        let Some(fetch) = self.fetches.get_mut(&id) else { return Vec::new() };
        fetch.reading = false;
        let Some(owner) = fetch.owner else { return Vec::new() };
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        let max = core.config.limits.max_message;
        let (mut said, mut shut) = (Vec::new(), false);
        match &mut fetch.body {
            Body::Json(body) => {
                body.extend_from_slice(bytes);
                if body.len() > max {
                    let text = format!("the remote server's answer is larger than {max} bytes (--max-message-size)");
                    fetch.close(core, id);
                    said.extend(failed(owner, &fetch.purpose, text));
                }
            }
            Body::Error(_, _, body) => {
                body.extend_from_slice(&bytes[..bytes.len().min(MAX_ERROR - body.len())]);
                if body.len() == MAX_ERROR && !std::mem::replace(&mut fetch.closing, true) {
                    core.act(Action::Close(Pipe::Fetched(id)));
                }
            }
            Body::Events(decoder) => {
                let number = match &fetch.purpose {
                    Purpose::Post(post) => post.number,
                    Purpose::Stream(number) => Some(*number),
                    _ => None,
                };
                while let Some(event) = decoder.next(&mut bytes) {
                    let Ok(event) = event else {
                        warn!("the remote server sent an event that is too long; its stream is closed");
                        if let Some(stream) =
                            conversation.streams.get_mut(&STANDALONE).filter(|_| number == Some(STANDALONE))
                        {
                            // From where it was, it would only bring the same event again.
                            stream.last_id = None;
                        }
                        if let Some(number) = number.filter(|number| *number != STANDALONE) {
                            conversation.streams.remove(&number);
                            let text =
                                format!("the remote server's answer is larger than {max} bytes (--max-message-size)");
                            said.push((owner, Said::Failed { number, text, refused: false }));
                        }
                        shut = true;
                        break;
                    };
                    if let Some(stream) = number.and_then(|number| conversation.streams.get_mut(&number)) {
                        stream.tries = 0;
                        if let Some(id) = event.id {
                            stream.last_id = Some(id.to_owned()).filter(|id| !id.is_empty());
                        }
                        if let Some(retry) = event.retry {
                            stream.retry = Some(Duration::from_millis(retry).min(RETRY_ASKED));
                        }
                    }
                    let data = event.data.unwrap_or_default();
                    match event.event {
                        "endpoint" if conversation.mode == Mode::Sse(None) => {
                            let reference = String::from_utf8_lossy(data);
                            let target = url::resolve(&conversation.url, &reference);
                            match target.filter(|target| url::same_origin(&conversation.url, target)) {
                                Some(target) => {
                                    conversation.mode = Mode::Sse(Some(target));
                                    said.push((owner, Said::Up));
                                }
                                None => {
                                    let why = "its endpoint event names another origin, which is refused".into();
                                    let unsent = conversation.waiting.drain(..).collect();
                                    said.push((owner, Said::Down { why, unsent }));
                                    shut = true;
                                    break;
                                }
                            }
                        }
                        "message" if !data.is_empty() => {
                            let about = number.filter(|number| *number != STANDALONE);
                            if let Some(number) = about
                                && let Some(stream) = conversation.streams.get_mut(&number)
                                && answers(data, number)
                            {
                                stream.answered = true;
                            }
                            said.push((owner, Said::Message { bytes: data.to_vec(), about }));
                        }
                        _ => {}
                    }
                }
            }
            Body::Awaited | Body::Skipped => {}
        }
        if shut && !std::mem::replace(&mut fetch.closing, true) {
            core.act(Action::Close(Pipe::Fetched(id)));
        }
        // The endpoint may just have become known.
        self.pump(core, owner);
        said
    }

    /// Permits the next read of a body.
    pub(crate) fn read_on(&mut self, core: &mut Core, id: FetchId) {
        if let Some(fetch) = self.fetches.get_mut(&id)
            && !fetch.reading
            && !fetch.closing
            && !matches!(fetch.body, Body::Awaited | Body::Skipped)
        {
            fetch.reading = true;
            core.act(Action::Read(Pipe::Fetched(id)));
        }
    }

    /// Permits the next read of every body of a conversation.
    pub(crate) fn resume(&mut self, core: &mut Core, id: RemoteId) {
        let mine: Vec<_> = self.fetches.iter().filter(|(_, f)| f.owner == Some(id)).map(|(id, _)| *id).collect();
        for fetch in mine {
            self.read_on(core, fetch);
        }
    }

    /// The conversation that a fetch belongs to.
    pub(crate) fn owner(&self, id: FetchId) -> Option<RemoteId> {
        self.fetches.get(&id)?.owner
    }

    /// There is no response.
    pub(crate) fn fetch_failed(&mut self, core: &mut Core, id: FetchId, error: &FetchError) -> Vec<(RemoteId, Said)> {
        let Some(fetch) = self.fetches.remove(&id) else { return Vec::new() };
        let Some(owner) = fetch.owner else { return Vec::new() };
        let text = format!("{}{}", error.text, hint(error.kind));
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        if conversation.barrier == Some(id) {
            conversation.barrier = None;
        }
        let said = match fetch.purpose {
            Purpose::Post(post) => match post.number {
                Some(number) if error.kind == FetchErrorKind::Timeout && !post.hello && !conversation.modern => {
                    // The server may still work on it.
                    let cancel = format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number},"reason":"timed out"}}}}"#
                    );
                    conversation.waiting.push_back(Post::notification(cancel.into_bytes()));
                    vec![(owner, Said::Failed { number, text, refused: false })]
                }
                Some(number) => vec![(owner, Said::Failed { number, text, refused: false })],
                None => {
                    warn!("a notification or an answer did not reach the remote server: {text}");
                    Vec::new()
                }
            },
            Purpose::Stream(number) => self.stream_ended(core, owner, number, &text),
            Purpose::Sse => {
                let unsent = conversation.waiting.drain(..).collect();
                vec![(owner, Said::Down { why: text, unsent })]
            }
            Purpose::Token => self.token_failed(owner, &format!("no token can be had: {text}")),
            Purpose::Delete => Vec::new(),
        };
        self.pump(core, owner);
        said
    }

    /// A body ended.
    pub(crate) fn closed(&mut self, core: &mut Core, id: FetchId, broken: bool) -> Vec<(RemoteId, Said)> {
        let Some(fetch) = self.fetches.remove(&id) else { return Vec::new() };
        let Some(owner) = fetch.owner else { return Vec::new() };
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        if conversation.barrier == Some(id) {
            conversation.barrier = None;
        }
        let said = match (fetch.purpose, fetch.body) {
            (Purpose::Post(post), Body::Json(body)) => match post.number {
                Some(number) if broken || body.is_empty() => {
                    let text = "the remote server broke off its answer".into();
                    vec![(owner, Said::Failed { number, text, refused: false })]
                }
                about => {
                    let missing = about.filter(|number| !answers(&body, *number));
                    let mut said = vec![(owner, Said::Message { bytes: body, about })];
                    said.extend(missing.map(|number| {
                        let text = "the remote server sent something else than the answer to this request".into();
                        (owner, Said::Failed { number, text, refused: false })
                    }));
                    said
                }
            },
            (Purpose::Post(post), Body::Error(status, text, body)) => {
                self.post_refused(core, owner, post, status, text, &body)
            }
            (Purpose::Post(Post { number: Some(number), .. }) | Purpose::Stream(number), Body::Events(_)) => {
                self.stream_ended(core, owner, number, "the remote server ended the stream before the answer")
            }
            (Purpose::Stream(number), _) => {
                let text = "the remote server does not take up the stream again";
                self.stream_ended(core, owner, number, text)
            }
            (Purpose::Sse, Body::Events(_)) => {
                let unsent = conversation.waiting.drain(..).collect();
                vec![(owner, Said::Down { why: "its event stream ended".into(), unsent })]
            }
            (Purpose::Token, Body::Error(status, _, body)) => {
                let server = conversation.server;
                let taken = self.auth.get_mut(&server).map(|auth| auth.token_answered(core.now, status, &body));
                match taken {
                    Some(Err(text)) => self.token_failed(owner, &text),
                    _ => {
                        for sibling in self.siblings(owner) {
                            self.pump(core, sibling);
                        }
                        Vec::new()
                    }
                }
            }
            _ => Vec::new(),
        };
        self.pump(core, owner);
        said
    }

    /// Nobody waits for the answer to this request any more. True if whatever the server still says about it could only
    /// come on the stream that is closed with this.
    pub(crate) fn forget_call(&mut self, core: &mut Core, id: RemoteId, number: u64) -> bool {
        let Some(conversation) = self.table.get_mut(&id) else { return false };
        let streamable = conversation.mode == Mode::Streamable;
        conversation.waiting.retain(|post| post.number != Some(number));
        conversation.streams.remove(&number);
        core.timers.clear(Deadline::Stream(id, number));
        let mine = self.fetches.iter().filter(|(_, fetch)| match &fetch.purpose {
            Purpose::Post(post) => fetch.owner == Some(id) && post.number == Some(number),
            Purpose::Stream(stream) => fetch.owner == Some(id) && *stream == number,
            _ => false,
        });
        for fetch in mine.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(core, fetch);
        }
        streamable
    }

    /// Ends a conversation; the remote is told if it knows a session.
    pub(crate) fn release(&mut self, core: &mut Core, id: RemoteId) {
        let mine: Vec<_> = self.fetches.iter().filter(|(_, f)| f.owner == Some(id)).map(|(id, _)| *id).collect();
        for fetch in mine {
            self.give_up(core, fetch);
        }
        let Some(conversation) = self.table.get(&id) else { return };
        for number in conversation.streams.keys().copied().chain([STANDALONE]).collect::<Vec<_>>() {
            core.timers.clear(Deadline::Stream(id, number));
        }
        core.timers.clear(Deadline::Listening(id));
        let Some(conversation) = self.table.get(&id) else { return };
        if let Some(session) = &conversation.session {
            let mut headers = Headers::new();
            headers.push("mcp-session-id", session.clone());
            if let Some(revision) = &conversation.revision {
                headers.push("mcp-protocol-version", revision.clone());
            }
            let url = conversation.url.clone();
            let fetch = self.send(core, id, "DELETE", url, headers, Vec::new(), Purpose::Delete, 0);
            if let Some(fetch) = self.fetches.get_mut(&fetch) {
                fetch.owner = None;
            }
        }
        self.table.remove(&id);
    }

    fn give_up(&mut self, core: &mut Core, id: FetchId) {
        if let Some(fetch) = self.fetches.get_mut(&id) {
            fetch.owner = None;
            fetch.close(core, id);
        }
    }

    /// Forgets whatever would not end.
    pub(crate) fn abandon_all(&mut self) {
        *self = Remotes::default();
    }
}

/// The failure of the request that a fetch carried.
fn failed(owner: RemoteId, purpose: &Purpose, text: String) -> Option<(RemoteId, Said)> {
    match purpose {
        Purpose::Post(post) => post.number.map(|number| (owner, Said::Failed { number, text, refused: false })),
        _ => None,
    }
}
