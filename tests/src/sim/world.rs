//! The world: an engine, a clock that is moved by hand, and what a perfectly obedient driver would have under way.
//!
//! Every action is checked against the seven rules as it comes; a breach is a panic. Every completion of an operation is a
//! method here, so that a story or a random run decides what happens next.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use mcp_proxy_engine::wire::sse;
use mcp_proxy_engine::{
    Action, Body, ChildId, Command, Config, Engine, ExchangeId, Exit, FetchError, FetchId, FetchRequest, HttpRequest,
    HttpResponse, Instant, MAX_READ, Output, Pipe, Signal, Stats,
};

use super::record::{self, Owned, Recording};

/// One event that a client read from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// Its type.
    pub event: String,
    /// Its `id` field.
    pub id: Option<String>,
    /// Its data; `None` if it had none at all.
    pub data: Option<String>,
    /// Its `retry` field.
    pub retry: Option<u64>,
}

/// One HTTP request, as its client sees it.
pub struct Exchange {
    /// The answer, once there is one.
    pub response: Option<HttpResponse>,
    /// A write of the body that is not finished.
    pub writing: Option<Vec<u8>>,
    /// The engine ended the body.
    pub closing: bool,
    /// Its terminal event was delivered.
    pub over: bool,
    /// Events that were read and not taken yet.
    pub events: VecDeque<SseEvent>,
    /// Comments that were read and not taken yet.
    pub comments: usize,
    /// A story has looked at the response.
    pub(super) taken: bool,
    writes: usize,
    decoder: sse::Decoder,
}

/// An output of a child.
#[derive(Default)]
pub struct Out {
    /// A read is permitted.
    pub permitted: bool,
    /// The engine closed it.
    pub dropped: bool,
    /// Its end was delivered.
    pub ended: bool,
    /// Written by the child, not yet read.
    pub buffer: Vec<u8>,
    /// Nothing more will be written.
    pub eof: bool,
}

/// One child process, as its driver sees it.
pub struct Child {
    /// What was to be started.
    pub command: Command,
    /// Its `Spawned` was delivered.
    pub spawned: bool,
    /// Its terminal event was delivered.
    pub gone: bool,
    /// A write to its stdin that is not finished.
    pub writing: Option<Vec<u8>>,
    /// Stdin was closed by the engine.
    pub stdin_dropped: bool,
    /// Stdin was closed by the child, and the engine knows.
    pub stdin_ended: bool,
    /// A write or read was under way when the pipe was dropped: word of it may still come.
    pub stale: Vec<Pipe>,
    /// Lines that it read and that were not taken yet.
    pub lines: VecDeque<String>,
    /// Signals it got.
    pub signals: Vec<Signal>,
    /// Its stdout.
    pub stdout: Out,
    /// Its stderr.
    pub stderr: Out,
    /// The beginning of a line.
    partial: Vec<u8>,
}

impl Child {
    /// The child runs, as far as the engine knows.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.spawned && !self.gone
    }
}

/// One HTTP request of the engine, as the remote server sees it.
pub struct Fetch {
    /// What was asked for.
    pub request: FetchRequest,
    /// The head of the response was delivered.
    pub head: bool,
    /// The body.
    pub body: Out,
    /// Its terminal event was delivered.
    pub over: bool,
    /// A story has looked at the request.
    pub taken: bool,
}

/// See the head of this file.
pub struct World {
    engine: Engine,
    /// What the engine was told.
    pub config: Config,
    /// The time.
    pub now: Instant,
    /// What the last `Wait` said.
    pub until: Option<Instant>,
    /// The engine is done.
    pub done: bool,
    /// Every exchange there ever was.
    pub exchanges: BTreeMap<ExchangeId, Exchange>,
    /// Every child there ever was.
    pub children: BTreeMap<ChildId, Child>,
    /// Every request of the engine there ever was.
    pub fetches: BTreeMap<FetchId, Fetch>,
    /// Our stdin.
    pub stdin: Out,
    /// A write to our stdout that is not finished.
    pub stdout: Option<Vec<u8>>,
    /// Lines that were written to our stdout and not taken yet.
    pub stdout_lines: VecDeque<String>,
    /// What happened, if it is recorded.
    pub recording: Option<Rc<RefCell<Recording>>>,
    /// Stories: a spawn succeeds at once.
    pub auto_spawn: bool,
    /// The end was ordered.
    pub stopping: bool,
    /// The largest number of bytes in one write to a child, so far.
    pub largest_write: usize,
    /// The same for a client. The first two writes of a stream do not count: they may hold what was missed before.
    pub largest_frame: usize,
    pub(super) seen_children: u64,
    last_exchange: u64,
}

impl World {
    /// A world whose engine has this configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        World::with_recording(config, None)
    }

    /// The same, with everything recorded if `recording` is given.
    #[must_use]
    pub fn with_recording(config: Config, recording: Option<Rc<RefCell<Recording>>>) -> Self {
        let engine = Engine::new(config.clone(), Instant::ZERO).expect("the configuration is valid");
        let mut world = World {
            engine,
            config,
            now: Instant::ZERO,
            until: None,
            done: false,
            exchanges: BTreeMap::new(),
            children: BTreeMap::new(),
            fetches: BTreeMap::new(),
            stdin: Out::default(),
            stdout: None,
            stdout_lines: VecDeque::new(),
            recording,
            auto_spawn: true,
            stopping: false,
            largest_write: 0,
            largest_frame: 0,
            seen_children: 0,
            last_exchange: 0,
        };
        world.drain();
        world
    }

    /// What the engine holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    // ---- events ----

    fn event(&mut self, event: Owned) {
        if let Some(recording) = &self.recording {
            recording.borrow_mut().events.push((self.now, event.clone()));
        }
        record::give(&mut self.engine, self.now, &event);
        self.drain();
    }

    /// A client sends a request.
    pub fn request(&mut self, mut request: HttpRequest) -> ExchangeId {
        self.last_exchange += 1;
        let id = ExchangeId(self.last_exchange);
        // Never the same bytes twice, as from the system.
        request.random[..8].copy_from_slice(&self.last_exchange.to_be_bytes());
        let exchange = Exchange {
            response: None,
            writing: None,
            closing: false,
            over: false,
            events: VecDeque::new(),
            comments: 0,
            taken: false,
            writes: 0,
            decoder: sse::Decoder::new(usize::MAX),
        };
        self.exchanges.insert(id, exchange);
        self.event(Owned::Request(id, request));
        id
    }

    /// The spawn of a child succeeded.
    pub fn spawned(&mut self, child: ChildId) {
        let c = self.child_mut(child);
        assert!(!c.spawned && !c.gone, "the world spawned {child:?} twice");
        c.spawned = true;
        self.event(Owned::Spawned(child));
    }

    /// The spawn of a child failed.
    pub fn spawn_failed(&mut self, child: ChildId, kind: ErrorKind) {
        let c = self.child_mut(child);
        assert!(!c.spawned && !c.gone);
        c.gone = true;
        self.event(Owned::SpawnFailed(child, kind));
    }

    /// The child ended and was reaped. What it wrote before may still be read, until its pipes end.
    pub fn exited(&mut self, child: ChildId, exit: Exit) {
        let c = self.child_mut(child);
        assert!(c.lives());
        c.gone = true;
        if c.writing.take().is_some() {
            c.stale.push(Pipe::ChildStdin(child));
        }
        self.event(Owned::Exited(child, exit));
    }

    /// A write is finished: the other side has it.
    pub fn wrote(&mut self, pipe: Pipe) {
        match pipe {
            Pipe::ChildStdin(id) => {
                let child = self.child_mut(id);
                let bytes = child.writing.take().expect("a write is under way");
                child.take_in(&bytes);
            }
            Pipe::Response(id) => {
                let exchange = self.exchange_mut(id);
                let bytes = exchange.writing.take().expect("a write is under way");
                exchange.take_in(&bytes);
            }
            Pipe::Stdout => {
                let bytes = self.stdout.take().expect("a write is under way");
                let text = String::from_utf8(bytes).expect("lines are UTF-8");
                assert!(text.ends_with('\n'), "a write to stdout ends within a line");
                self.stdout_lines.extend(text.lines().map(str::to_owned));
            }
            _ => panic!("nobody writes {pipe:?}"),
        }
        self.event(Owned::Wrote(pipe));
    }

    /// A read brings up to `most` of the bytes that a child wrote.
    pub fn data(&mut self, pipe: Pipe, most: usize) {
        let out = self.out_mut(pipe);
        assert!(out.permitted && !out.buffer.is_empty(), "the world read {pipe:?} without permission");
        out.permitted = false;
        let bytes: Vec<u8> = out.buffer.drain(..most.clamp(1, MAX_READ).min(out.buffer.len())).collect();
        self.event(Owned::Data(pipe, bytes));
    }

    /// An output of a child, or its stdin, ends.
    pub fn pipe_ends(&mut self, pipe: Pipe, kind: Option<ErrorKind>) {
        if let Pipe::ChildStdin(id) = pipe {
            let child = self.child_mut(id);
            assert!(child.writing.take().is_some() && !child.stdin_dropped);
            child.stdin_ended = true;
        } else {
            let out = self.out_mut(pipe);
            assert!(out.permitted, "the end of {pipe:?} was not asked for");
            (out.permitted, out.ended) = (false, true);
            out.buffer.clear();
            // Who talks to us by stdin ends us by ending it.
            self.stopping |= pipe == Pipe::Stdin;
        }
        self.event(Owned::Closed(pipe, kind));
    }

    /// Word of what was under way when a child's pipe was dropped. It does not count any more.
    pub fn stale(&mut self, id: ChildId) {
        let event = match self.child_mut(id).stale.pop().expect("something was under way") {
            Pipe::ChildStdin(_) if id.0.is_multiple_of(2) => {
                Owned::Closed(Pipe::ChildStdin(id), Some(ErrorKind::BrokenPipe))
            }
            pipe @ Pipe::ChildStdin(_) => Owned::Wrote(pipe),
            pipe if id.0.is_multiple_of(2) => Owned::Closed(pipe, None),
            pipe => Owned::Data(pipe, b"stale\n".to_vec()),
        };
        self.event(event);
    }

    /// An answered exchange ends regularly.
    pub fn exchange_ends(&mut self, id: ExchangeId) {
        assert!(self.can_end(id));
        self.exchange_mut(id).over = true;
        self.event(Owned::Closed(Pipe::Response(id), None));
    }

    /// The client is gone.
    pub fn client_leaves(&mut self, id: ExchangeId) {
        let exchange = self.exchange_mut(id);
        assert!(!exchange.over);
        exchange.over = true;
        exchange.writing = None;
        self.event(Owned::Closed(Pipe::Response(id), Some(ErrorKind::ConnectionReset)));
    }

    /// The head of a response comes.
    pub fn fetched(&mut self, id: FetchId, response: HttpResponse) {
        let fetch = self.fetch_mut(id);
        assert!(!fetch.head && !fetch.over);
        fetch.head = true;
        self.event(Owned::Fetched(id, response));
    }

    /// There is no response.
    pub fn fetch_fails(&mut self, id: FetchId, error: FetchError) {
        let fetch = self.fetch_mut(id);
        assert!(!fetch.head && !fetch.over);
        fetch.over = true;
        self.event(Owned::FetchFailed(id, error));
    }

    /// A response ends: the body is whole, or broken, or the engine closed it.
    pub fn fetch_ends(&mut self, id: FetchId, kind: Option<ErrorKind>) {
        let fetch = self.fetch_mut(id);
        assert!(fetch.head && !fetch.over && (fetch.body.permitted || fetch.body.dropped));
        (fetch.over, fetch.body.permitted) = (true, false);
        self.event(Owned::Closed(Pipe::Fetched(id), kind));
    }

    fn fetch_mut(&mut self, id: FetchId) -> &mut Fetch {
        self.fetches.get_mut(&id).unwrap_or_else(|| panic!("there never was a {id:?}"))
    }

    /// The operator wants an end.
    pub fn shutdown(&mut self) {
        self.stopping = true;
        self.event(Owned::Shutdown);
    }

    /// Time goes by; each deadline fires at its moment.
    pub fn advance_to(&mut self, target: Instant) {
        while self.now < target && !self.done {
            self.now = self.until.map_or(target, |until| until.min(target));
            self.event(Owned::Time);
        }
    }

    /// Time goes by at once: everything that became due meanwhile fires together, as after a long sleep of the machine.
    pub fn jump(&mut self, wait: Duration) {
        self.now = self.now + wait;
        self.event(Owned::Time);
    }

    /// Whether the exchange may end regularly now.
    #[must_use]
    pub fn can_end(&self, id: ExchangeId) -> bool {
        let exchange = &self.exchanges[&id];
        let whole = exchange.response.as_ref().is_some_and(|r| r.body != Body::Stream);
        !exchange.over && (whole || (exchange.closing && exchange.writing.is_none()))
    }

    fn child_mut(&mut self, id: ChildId) -> &mut Child {
        self.children.get_mut(&id).unwrap_or_else(|| panic!("there never was a {id:?}"))
    }

    fn exchange_mut(&mut self, id: ExchangeId) -> &mut Exchange {
        self.exchanges.get_mut(&id).unwrap_or_else(|| panic!("there never was a {id:?}"))
    }

    /// An output of a child.
    pub fn out_mut(&mut self, pipe: Pipe) -> &mut Out {
        match pipe {
            Pipe::ChildStdout(id) => &mut self.child_mut(id).stdout,
            Pipe::ChildStderr(id) => &mut self.child_mut(id).stderr,
            Pipe::Fetched(id) => &mut self.fetch_mut(id).body,
            Pipe::Stdin => &mut self.stdin,
            _ => panic!("nobody reads {pipe:?}"),
        }
    }

    // ---- actions ----

    fn drain(&mut self) {
        loop {
            let output = self.engine.poll(self.now);
            match output {
                Output::Do(action) => {
                    if let Some(recording) = &self.recording {
                        let mut recording = recording.borrow_mut();
                        let after = recording.events.len();
                        recording.actions.push((after, record::show(&action)));
                    }
                    assert!(!self.done, "after Done came {action:?}");
                    self.perform(action);
                }
                Output::Wait(until) => {
                    assert!(!self.done, "after Done came Wait");
                    assert!(
                        until.is_none_or(|t| t > self.now),
                        "Wait({until:?}) at {:?} is not in the future",
                        self.now
                    );
                    self.until = until;
                    return;
                }
                Output::Done => {
                    assert!(self.stopping, "Done, but nobody ordered an end");
                    self.done = true;
                    self.until = None;
                    assert_eq!(self.engine.stats(), Stats::default(), "something is left after Done");
                    for (id, child) in &self.children {
                        let orphan = child.lives() && !child.signals.contains(&Signal::Kill);
                        assert!(!orphan, "{id:?} was left behind without a SIGKILL");
                    }
                    return;
                }
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let text = brief(&action);
        match action {
            Action::Spawn(id, command) => {
                let child = Child {
                    command,
                    spawned: false,
                    gone: false,
                    writing: None,
                    stdin_dropped: false,
                    stdin_ended: false,
                    stale: Vec::new(),
                    lines: VecDeque::new(),
                    signals: Vec::new(),
                    stdout: Out::default(),
                    stderr: Out::default(),
                    partial: Vec::new(),
                };
                assert!(self.children.insert(id, child).is_none(), "a name is used twice: {text}");
            }
            Action::Kill(id, signal) => {
                let child = self.child_mut(id);
                assert!(child.spawned, "the child does not run yet: {text}");
                assert!(!child.gone, "the child is gone: {text}");
                child.signals.push(signal);
            }
            Action::Read(pipe) => {
                let out = match pipe {
                    Pipe::ChildStdout(id) | Pipe::ChildStderr(id) => {
                        assert!(self.child_mut(id).spawned, "the child does not run yet: {text}");
                        self.out_mut(pipe)
                    }
                    Pipe::Fetched(id) => {
                        let fetch = self.fetch_mut(id);
                        assert!(fetch.head && !fetch.over, "there is no body to read: {text}");
                        &mut fetch.body
                    }
                    Pipe::Stdin => &mut self.stdin,
                    _ => panic!("no such pipe is read: {text}"),
                };
                assert!(!out.permitted, "a read is permitted already: {text}");
                assert!(!out.dropped && !out.ended, "the pipe is closed: {text}");
                out.permitted = true;
            }
            Action::Write(pipe @ Pipe::ChildStdin(id), bytes) => {
                self.largest_write = self.largest_write.max(bytes.len());
                let child = self.child_mut(id);
                assert!(!bytes.is_empty(), "nothing to write: {text}");
                assert!(child.spawned, "the child does not run yet: {text}");
                assert!(!child.gone, "the child is gone: {text}");
                assert!(!child.stdin_dropped && !child.stdin_ended, "{pipe:?} is closed: {text}");
                assert!(child.writing.is_none(), "a write is under way: {text}");
                child.writing = Some(bytes);
            }
            Action::Write(Pipe::Response(id), bytes) => {
                let exchange = self.exchange_mut(id);
                assert!(!bytes.is_empty(), "nothing to write: {text}");
                exchange.check_stream(&text);
                assert!(!exchange.closing, "the body was ended: {text}");
                assert!(exchange.writing.is_none(), "a write is under way: {text}");
                exchange.writes += 1;
                let counted = if exchange.writes > 2 { bytes.len() } else { 0 };
                exchange.writing = Some(bytes);
                self.largest_frame = self.largest_frame.max(counted);
            }
            Action::Close(Pipe::ChildStdin(id)) => {
                let child = self.child_mut(id);
                assert!(child.spawned, "the child does not run yet: {text}");
                assert!(!child.stdin_dropped && !child.stdin_ended, "it is closed already: {text}");
                child.stdin_dropped = true;
                if child.writing.take().is_some() {
                    child.stale.push(Pipe::ChildStdin(id));
                }
            }
            Action::Close(pipe @ (Pipe::ChildStdout(id) | Pipe::ChildStderr(id))) => {
                assert!(self.child_mut(id).spawned, "the child does not run yet: {text}");
                let out = self.out_mut(pipe);
                assert!(!out.dropped && !out.ended, "it is closed already: {text}");
                out.dropped = true;
                out.buffer.clear();
                if std::mem::take(&mut out.permitted) {
                    self.child_mut(id).stale.push(pipe);
                }
            }
            Action::Close(Pipe::Response(id)) => {
                let exchange = self.exchange_mut(id);
                exchange.check_stream(&text);
                assert!(!exchange.closing, "it is closed already: {text}");
                exchange.closing = true;
            }
            Action::Fetch(id, request) => {
                for (name, value) in request.headers.iter() {
                    assert!(
                        !["host", "content-length", "accept-encoding"].contains(&name),
                        "that is the driver's: {text}"
                    );
                    assert!(!value.contains(['\r', '\n']), "a field ends within its value: {text}");
                }
                let fetch = Fetch { request, head: false, body: Out::default(), over: false, taken: false };
                assert!(self.fetches.insert(id, fetch).is_none(), "a name is used twice: {text}");
            }
            Action::Close(Pipe::Fetched(id)) => {
                let fetch = self.fetch_mut(id);
                assert!(!fetch.over, "the fetch is over: {text}");
                assert!(!fetch.body.dropped, "it is closed already: {text}");
                fetch.body.dropped = true;
                fetch.body.permitted = false;
            }
            Action::Write(Pipe::Stdout, bytes) => {
                assert!(self.stdout.is_none(), "a write is under way: {text}");
                self.stdout = Some(bytes);
            }
            Action::Respond(id, response) => {
                let exchange = self.exchange_mut(id);
                assert!(!exchange.over, "the exchange is over: {text}");
                assert!(exchange.response.is_none(), "it is answered already: {text}");
                assert!((200..600).contains(&response.status), "no such status: {text}");
                for (name, _) in response.headers.iter() {
                    let framing = ["content-length", "transfer-encoding", "connection", "date"];
                    assert!(!framing.contains(&name), "framing is the driver's: {text}");
                }
                exchange.response = Some(response);
            }
            Action::Write(..) | Action::Close(Pipe::Stdin | Pipe::Stdout) => panic!("no such pipe: {text}"),
        }
    }
}

/// Enough of an action for the text of a breach.
fn brief(action: &Action) -> String {
    match action {
        Action::Write(pipe, bytes) => format!("Write({pipe:?}, {} bytes)", bytes.len()),
        other => format!("{other:?}"),
    }
}

impl Exchange {
    fn check_stream(&self, text: &str) {
        assert!(!self.over, "the exchange is over: {text}");
        let stream = self.response.as_ref().is_some_and(|r| r.body == Body::Stream);
        assert!(stream, "it is not answered by a stream: {text}");
    }

    fn take_in(&mut self, bytes: &[u8]) {
        if bytes == sse::KEEP_ALIVE {
            self.comments += 1;
        }
        let mut input = bytes;
        while let Some(event) = self.decoder.next(&mut input) {
            let event = event.expect("there is no limit");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("events are UTF-8");
            self.events.push_back(SseEvent {
                event: event.event.to_owned(),
                id: event.id.map(str::to_owned),
                data: event.data.map(text),
                retry: event.retry,
            });
        }
    }
}

impl Child {
    fn take_in(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.lines.push_back(String::from_utf8(line[..end].to_vec()).expect("lines are UTF-8"));
        }
        assert!(self.partial.is_empty(), "a write to a child ends within a line");
    }
}
