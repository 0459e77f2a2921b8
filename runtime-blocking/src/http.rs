//! Connections. A thread of each reads and decodes, so that a client that leaves is noticed whatever else happens. The
//! loop does the rest: it takes up one request at a time, and writes without blocking; only what a socket does not take at
//! once is left to the flusher.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, PipeReader, PipeWriter, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use mcp_proxy_engine::wire::http::{
    Asked, CONTINUE, Decoded, Framing, Item, LAST_CHUNK, Outgoing, Phase, Refusal, RequestDecoder, encode_chunk,
    encode_response, http_date,
};
use mcp_proxy_engine::{Body, Config, ExchangeId, Http, HttpResponse, MAX_READ, Pipe};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::pipes::{Flusher, Stalled};
use crate::run::{Ending, Inbox, Message, thread};
use crate::tls::{Opened, Session};

/// Names one connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnId(u64);

/// What the reader of a connection says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It decoded something; after a refusal it only skips what comes.
    Item(Result<Item, Refusal>),
    /// Its TLS has something to say: a part of the handshake, or an alert.
    Tls,
    /// The client is gone. The last word.
    Left(ErrorKind),
}

/// How long, and how much, a closing connection is still read, so that the client gets our last answer and no reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// After an error of `accept` that will not pass by itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All connections.
pub(crate) struct Connections {
    open: HashMap<ConnId, Connection>,
    exchanges: HashMap<ExchangeId, ConnId>,
    deadlines: BinaryHeap<Reverse<(Clock, ConnId)>>,
    last_conn: u64,
    last_exchange: u64,
    random: Random,
    date: Date,
    /// How many connections are open.
    slots: Arc<Gate>,
    /// Ends the accepting thread when it is dropped.
    accept: Option<PipeWriter>,
    threads: Ending,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
    flusher: Flusher,
    inbox: Inbox,
}

struct Connection {
    stream: Arc<TcpStream>,
    tls: Option<Arc<Session>>,
    reader: JoinHandle<()>,
    /// Bytes of requests that the reader decoded and that are not answered yet.
    gate: Arc<Gate>,
    /// What the reader decoded while a request before it was being answered.
    waiting: VecDeque<Result<Item, Refusal>>,
    exchange: Option<Exchange>,
    /// The flusher writes what the socket did not take at once; then comes `backlog`.
    flushing: bool,
    backlog: VecDeque<Outgoing>,
    /// Nothing is answered any more; what comes is skipped until the client closes.
    lingering: bool,
    /// When this connection must be gone, if nothing happens; and where its earliest entry in the heap stands.
    deadline: Option<Clock>,
    entry: Option<Clock>,
}

/// A request that is being answered.
struct Exchange {
    id: ExchangeId,
    asked: Asked,
    size: usize,
    /// Set by the response.
    framing: Option<Framing>,
    keep_alive: bool,
    /// A `Write` is not reported yet.
    writing: bool,
    /// The response is complete but for bytes that are still to be written.
    ended: bool,
}

/// What every reader needs.
struct Shared {
    http: Http,
    max_body: usize,
}

/// Counts something up to a limit; at the limit, one thread waits here.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    max: usize,
    /// The reader is inside a request.
    busy: AtomicBool,
}

struct GateState {
    used: usize,
    closed: bool,
}

impl Gate {
    fn new(max: usize) -> Arc<Self> {
        let state = Mutex::new(GateState { used: 0, closed: false });
        Arc::new(Gate { state, changed: Condvar::new(), max, busy: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        // No code panics with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, n: usize) {
        self.lock().used += n;
    }

    fn release(&self, n: usize) {
        self.lock().used -= n;
        self.changed.notify_one();
    }

    /// Nobody waits here any more.
    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until it is open or closed for ever; true if that took a wait.
    fn opened(&self) -> bool {
        let mut state = self.lock();
        let waited = state.used >= self.max && !state.closed;
        while state.used >= self.max && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        waited
    }
}

impl Connections {
    pub(crate) fn new(
        config: &Config,
        listener: Option<TcpListener>,
        tls: Option<Arc<rustls::ServerConfig>>,
        flusher: Flusher,
        inbox: Inbox,
    ) -> io::Result<Self> {
        let slots = Gate::new(config.http.max_connections);
        let mut threads = Ending::default();
        let mut accept_end = None;
        if let Some(listener) = listener {
            // Between `poll` and `accept` a connection may vanish again.
            listener.set_nonblocking(true)?;
            let (ended, end) = io::pipe()?;
            let (slots2, inbox2) = (Arc::clone(&slots), inbox.clone());
            threads.push(thread("mcp-accept", move || accept(&listener, &ended, &slots2, &inbox2))?);
            accept_end = Some(end);
        }
        Ok(Connections {
            open: HashMap::new(),
            exchanges: HashMap::new(),
            deadlines: BinaryHeap::new(),
            last_conn: 0,
            last_exchange: 0,
            random: Random::default(),
            date: Date::default(),
            slots,
            accept: accept_end,
            threads,
            tls,
            shared: Arc::new(Shared { http: config.http.clone(), max_body: config.limits.max_body }),
            flusher,
            inbox,
        })
    }

    /// Takes up a new connection.
    pub(crate) fn accepted(&mut self, stream: TcpStream) {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        // Only latency is at stake.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let tls = match self.tls.clone().map(Session::new).transpose() {
            Ok(tls) => tls.map(Arc::new),
            Err(error) => {
                log::warn!("a connection is dropped, for lack of TLS: {error}");
                return self.slots.release(1);
            }
        };
        let gate = Gate::new(self.shared.http.max_head + self.shared.max_body);
        let (shared, inbox, slots) = (Arc::clone(&self.shared), self.inbox.clone(), Arc::clone(&self.slots));
        let (stream2, tls2, gate2) = (Arc::clone(&stream), tls.clone(), Arc::clone(&gate));
        let reader = thread("mcp-conn", move || {
            let left = read(conn, &stream2, tls2.as_deref(), &gate2, &shared, &inbox);
            inbox.send(Message::Heard(conn, Heard::Left(left)));
            slots.release(1);
        });
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                log::warn!("a connection is dropped, for lack of a thread: {error}");
                return self.slots.release(1);
            }
        };
        let connection = Connection {
            stream,
            tls,
            reader,
            gate,
            waiting: VecDeque::new(),
            exchange: None,
            flushing: false,
            backlog: VecDeque::new(),
            lingering: false,
            deadline: None,
            entry: None,
        };
        self.open.insert(conn, connection);
        self.set_deadline(conn, Some(self.shared.http.idle_timeout));
    }

    /// The reader of a connection says something.
    pub(crate) fn heard(&mut self, conn: ConnId, heard: Heard) {
        match heard {
            Heard::Left(error) => self.cut(conn, error),
            // What the session has to say goes before what it is given.
            Heard::Tls => self.send(conn, Outgoing::default()),
            Heard::Item(item) => {
                if let Some(connection) = self.open.get_mut(&conn)
                    && !connection.lingering
                {
                    connection.waiting.push_back(item);
                    self.advance(conn);
                }
            }
        }
    }

    /// Takes up what the client sent next, if nothing else is being done for it.
    fn advance(&mut self, conn: ConnId) {
        loop {
            let Some(connection) = self.open.get_mut(&conn) else { return };
            if connection.exchange.is_some() || connection.flushing || connection.lingering {
                return;
            }
            match connection.waiting.pop_front() {
                None => return self.set_deadline(conn, Some(self.shared.http.idle_timeout)),
                Some(Ok(Item::Request(request))) => return self.begin(conn, *request),
                Some(Ok(Item::Continue)) => self.send(conn, Outgoing::new(CONTINUE.to_vec())),
                Some(Err(refusal)) => {
                    log::debug!("{conn:?} is refused: {} {}", refusal.status, refusal.text);
                    let encoded = encode_response(refusal.response(), Refusal::ASKED, Some(self.date.now()));
                    self.send(conn, encoded.bytes);
                    self.linger(conn);
                }
            };
        }
    }

    fn begin(&mut self, conn: ConnId, request: Decoded) {
        self.last_exchange += 1;
        let id = ExchangeId(self.last_exchange);
        let Some(connection) = self.open.get_mut(&conn) else { return };
        let (asked, size) = (request.asked, request.size);
        let framing = None;
        connection.exchange =
            Some(Exchange { id, asked, size, framing, keep_alive: false, writing: false, ended: false });
        self.exchanges.insert(id, conn);
        self.set_deadline(conn, None);
        self.inbox.send(Message::Request(id, request.into_request(self.random.draw())));
    }

    /// Answers an exchange.
    pub(crate) fn respond(&mut self, id: ExchangeId, response: HttpResponse) {
        let Some((conn, exchange)) = self.exchange(id) else { return };
        let whole = matches!(response.body, Body::Full(_));
        let asked = exchange.asked;
        let encoded = encode_response(response, asked, Some(self.date.now()));
        if let Some((_, exchange)) = self.exchange(id) {
            exchange.framing = Some(encoded.framing);
            exchange.keep_alive = encoded.keep_alive;
            exchange.ended = whole;
        }
        self.send(conn, encoded.bytes);
        self.settle(conn);
    }

    /// Writes a part of a streamed response.
    pub(crate) fn write(&mut self, id: ExchangeId, bytes: Vec<u8>) {
        let Some((conn, exchange)) = self.exchange(id).filter(|(_, exchange)| !exchange.ended) else { return };
        exchange.writing = true;
        match exchange.framing {
            _ if bytes.is_empty() => {}
            Some(Framing::Chunked) => self.send(conn, encode_chunk(bytes)),
            Some(Framing::UntilClose) => self.send(conn, Outgoing::new(bytes)),
            // The answer to HEAD, say: nothing may be written.
            Some(Framing::None | Framing::Whole) | None => {}
        }
        self.settle(conn);
    }

    /// Ends a streamed response. One that never began ends with its connection.
    pub(crate) fn close(&mut self, id: ExchangeId) {
        let Some((conn, exchange)) = self.exchange(id).filter(|(_, exchange)| !exchange.ended) else { return };
        exchange.ended = true;
        match exchange.framing {
            None => return self.cut(conn, ErrorKind::ConnectionAborted),
            Some(Framing::Chunked) => self.send(conn, Outgoing::new(LAST_CHUNK.to_vec())),
            Some(_) => {}
        }
        self.settle(conn);
    }

    fn exchange(&mut self, id: ExchangeId) -> Option<(ConnId, &mut Exchange)> {
        let conn = *self.exchanges.get(&id)?;
        Some((conn, self.open.get_mut(&conn)?.exchange.as_mut()?))
    }

    /// Writes, sealed where the connection is. If that fails the connection is gone afterwards.
    fn send(&mut self, conn: ConnId, bytes: Outgoing) {
        let bytes = match self.open.get(&conn).and_then(|connection| connection.tls.as_ref()) {
            Some(tls) => tls.seal(&bytes),
            None => bytes,
        };
        self.transmit(conn, bytes);
    }

    /// Writes what the socket takes, and leaves the rest to the flusher. If that fails the connection is gone afterwards.
    fn transmit(&mut self, conn: ConnId, mut bytes: Outgoing) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        if connection.flushing {
            connection.backlog.push_back(bytes);
            return;
        }
        match write_some(&connection.stream, &mut bytes) {
            Ok(true) => {}
            Ok(false) => {
                connection.flushing = true;
                let stream = Arc::clone(&connection.stream);
                self.flusher.write(Stalled::Connection(conn, stream, bytes, self.shared.http.write_timeout));
            }
            Err(error) => self.cut(conn, error.kind()),
        }
    }

    /// The flusher wrote what it was left.
    pub(crate) fn flushed(&mut self, conn: ConnId, result: io::Result<()>) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        connection.flushing = false;
        match result {
            Ok(()) => {
                if let Some(bytes) = connection.backlog.pop_front() {
                    self.transmit(conn, bytes);
                }
                self.settle(conn);
            }
            Err(error) => self.cut(conn, error.kind()),
        }
    }

    /// Reports what is complete, if all of it is written.
    fn settle(&mut self, conn: ConnId) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        if connection.flushing {
            return;
        }
        if connection.lingering {
            return self.linger(conn);
        }
        if let Some(exchange) = &mut connection.exchange {
            let pipe = Pipe::Response(exchange.id);
            if std::mem::take(&mut exchange.writing) && !exchange.ended {
                self.inbox.send(Message::Wrote(pipe));
            }
            if !exchange.ended {
                return;
            }
            connection.gate.release(exchange.size);
            self.exchanges.remove(&exchange.id);
            self.inbox.send(Message::Closed(pipe, None));
            let keep_alive = exchange.keep_alive;
            connection.exchange = None;
            if !keep_alive {
                return self.linger(conn);
            }
        }
        self.advance(conn);
    }

    /// Nothing more is answered. Once everything is written the client has a moment to read it and to close.
    fn linger(&mut self, conn: ConnId) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        connection.waiting.clear();
        if !std::mem::replace(&mut connection.lingering, true)
            && let Some(tls) = &connection.tls
        {
            let end = tls.seal_end();
            self.transmit(conn, end);
        }
        let Some(connection) = self.open.get_mut(&conn).filter(|connection| !connection.flushing) else { return };
        // It fails if the client is gone, which the reader says.
        let _ = connection.stream.shutdown(Shutdown::Write);
        self.set_deadline(conn, Some(LINGER));
    }

    /// Ends a connection now.
    fn cut(&mut self, conn: ConnId, error: ErrorKind) {
        let Some(connection) = self.open.remove(&conn) else { return };
        if let Some(exchange) = &connection.exchange {
            self.exchanges.remove(&exchange.id);
            self.inbox.send(Message::Closed(Pipe::Response(exchange.id), Some(error)));
        }
        self.threads.push(connection.end());
    }

    fn set_deadline(&mut self, conn: ConnId, after: Option<Duration>) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        connection.deadline = after.map(|after| Clock::now() + after);
        // An entry that comes too early is moved when it comes up: no work for each request.
        if let Some(deadline) = connection.deadline
            && connection.entry.is_none_or(|entry| deadline < entry)
        {
            connection.entry = Some(deadline);
            self.deadlines.push(Reverse((deadline, conn)));
        }
    }

    /// When [`Self::expire`] must be called, at the latest.
    pub(crate) fn deadline(&self) -> Option<Clock> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Ends the connections whose time is up.
    pub(crate) fn expire(&mut self, now: Clock) {
        while let Some(&Reverse((entry, conn))) = self.deadlines.peek()
            && entry <= now
        {
            self.deadlines.pop();
            let Some(connection) = self.open.get_mut(&conn) else { continue };
            if connection.entry != Some(entry) {
                continue;
            }
            connection.entry = None;
            match connection.deadline {
                Some(deadline) if deadline > now => {
                    connection.entry = Some(deadline);
                    self.deadlines.push(Reverse((deadline, conn)));
                }
                // The reader looks after a request that is on its way.
                Some(_) if connection.gate.busy.load(Ordering::Relaxed) && !connection.lingering => {
                    self.set_deadline(conn, Some(self.shared.http.idle_timeout));
                }
                Some(_) => self.cut(conn, ErrorKind::TimedOut),
                None => {}
            }
        }
    }

    /// Accepts nothing more, and ends what is not being written to.
    pub(crate) fn stop(&mut self) {
        self.accept = None;
        self.slots.close();
        for (_, connection) in self.open.extract_if(|_, connection| !connection.flushing) {
            self.threads.push(connection.end());
        }
    }

    /// Some response is not written yet.
    pub(crate) fn are_writing(&self) -> bool {
        self.open.values().any(|connection| connection.flushing)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop();
        for (_, connection) in self.open.drain() {
            self.threads.push(connection.end());
        }
        self.threads.join();
    }
}

impl Connection {
    /// Ends it. Its thread, which ends soon, is returned.
    fn end(self) -> JoinHandle<()> {
        self.gate.close();
        // It fails if the client is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.reader
    }
}

/// No signal if the client is gone, where the system can be told so.
#[cfg(target_vendor = "apple")]
const SEND: SendFlags = SendFlags::DONTWAIT;
#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Writes until everything is written (true) or the socket takes no more. It never blocks.
pub(crate) fn write_some(stream: &TcpStream, bytes: &mut Outgoing) -> io::Result<bool> {
    while !bytes.is_empty() {
        let written = match bytes.slices() {
            [only, [], []] => send(stream, only, SEND),
            slices => sendmsg(stream, &slices.map(IoSlice::new), &mut SendAncillaryBuffer::default(), SEND),
        };
        match written {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes.advance(written),
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// Reads and decodes until the client is gone.
fn read(
    conn: ConnId,
    stream: &TcpStream,
    tls: Option<&Session>,
    gate: &Gate,
    shared: &Shared,
    inbox: &Inbox,
) -> ErrorKind {
    let mut receiver = Receiver { stream, timeout: None, buffer: Vec::new() };
    let mut decoder = RequestDecoder::new(shared.http.max_head, shared.max_body);
    let mut phase = Phase::Idle;
    let mut handshaking = tls.is_some();
    let mut deadline = handshaking.then(|| Clock::now() + shared.http.head_timeout);
    let mut refused = None;
    while refused.is_none() {
        let mut restart = gate.opened();
        let mut last = false;
        let mut hear = |item: Result<Item, Refusal>| {
            restart = true;
            match &item {
                Ok(Item::Request(request)) => {
                    gate.add(request.size);
                    last |= !request.asked.keep_alive;
                }
                Ok(Item::Continue) => {}
                Err(_) => last = true,
            }
            inbox.send(Message::Heard(conn, Heard::Item(item)));
        };
        let mut decode = |mut input: &[u8]| {
            while let Some(item) = decoder.next(&mut input) {
                hear(item);
            }
        };
        let mut opened = Ok(Opened::default());
        let mut take = |input: &[u8]| match tls {
            Some(tls) => opened = tls.open(input, &mut decode),
            None => decode(input),
        };
        match receiver.receive(deadline, phase, &mut take) {
            Ok(()) => {}
            Err(error) if handshaking => return error,
            Err(ErrorKind::TimedOut) if deadline.is_some_and(|deadline| deadline <= Clock::now()) => {
                hear(Err(Refusal::TIMEOUT));
            }
            Err(error) => return error,
        }
        if !matches!(opened, Ok(Opened { wants_write: false, .. })) {
            inbox.send(Message::Heard(conn, Heard::Tls));
        }
        match opened {
            Ok(Opened { ended: false, .. }) => {}
            Ok(_) => return ErrorKind::ConnectionAborted,
            Err(error) => return error,
        }
        if handshaking && tls.is_some_and(|tls| !tls.is_handshaking()) {
            handshaking = false;
            restart = true;
        }
        refused = last.then_some(());
        let now = decoder.phase();
        gate.busy.store(matches!(now, Phase::Head | Phase::Body), Ordering::Relaxed);
        if restart || now != phase {
            phase = now;
            deadline = match phase {
                Phase::Idle | Phase::Refused => None,
                Phase::Head => Some(Clock::now() + shared.http.head_timeout),
                Phase::Body => Some(Clock::now() + shared.http.body_timeout),
            };
        }
    }
    gate.busy.store(false, Ordering::Relaxed);
    let mut left = LINGER_BYTES;
    while left > 0 {
        if let Err(error) = receiver.receive(None, Phase::Refused, &mut |bytes| left = left.saturating_sub(bytes.len()))
        {
            return error;
        }
    }
    ErrorKind::ConnectionAborted
}

/// The reading half of a connection.
struct Receiver<'a> {
    stream: &'a TcpStream,
    /// The socket's own read timeout, as it is set.
    timeout: Option<Duration>,
    buffer: Vec<u8>,
}

/// What is read at once: little while nothing comes, for there may be thousands of us; much inside a body.
const SMALL_READ: usize = 8 * 1024;

impl Receiver<'_> {
    /// Waits for bytes and lends them to `take`. The end of the stream is an error.
    fn receive(&mut self, deadline: Option<Clock>, phase: Phase, take: &mut dyn FnMut(&[u8])) -> Result<(), ErrorKind> {
        let size = if phase == Phase::Body { MAX_READ } else { SMALL_READ };
        if self.buffer.len() != size {
            self.buffer = vec![0; size];
        }
        let timeout = match deadline.map(|deadline| deadline.saturating_duration_since(Clock::now())) {
            Some(Duration::ZERO) => return Err(ErrorKind::TimedOut),
            timeout => timeout,
        };
        if timeout != self.timeout {
            self.stream.set_read_timeout(timeout).map_err(|error| error.kind())?;
            self.timeout = timeout;
        }
        let mut stream = self.stream;
        match stream.read(&mut self.buffer) {
            Ok(0) => Err(ErrorKind::ConnectionAborted),
            Ok(read) => {
                take(&self.buffer[..read]);
                Ok(())
            }
            // The socket's timeout; the next call finds the deadline passed.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error.kind()),
        }
    }
}

fn accept(listener: &TcpListener, ended: &PipeReader, slots: &Gate, inbox: &Inbox) {
    let mut complained: Option<Clock> = None;
    loop {
        slots.opened();
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        // It fails only for a signal, or for lack of memory in the kernel, which `accept` will report.
        let _ = poll(&mut fds, None);
        if !fds[1].revents().is_empty() {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                slots.add(1);
                // Some systems pass the listener's mode on.
                let _ = stream.set_nonblocking(false);
                inbox.send(Message::Accepted(stream));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted
                        | ErrorKind::WouldBlock
                        | ErrorKind::ConnectionAborted
                        | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                    complained = Some(Clock::now());
                    log::warn!("no connection can be accepted: {error}");
                }
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Random bytes from the system, drawn in batches.
struct Random {
    bytes: [u8; 1024],
    used: usize,
}

impl Default for Random {
    fn default() -> Self {
        Random { bytes: [0; 1024], used: 1024 }
    }
}

impl Random {
    fn draw(&mut self) -> [u8; 16] {
        if self.used == self.bytes.len() {
            if let Err(error) = getrandom::fill(&mut self.bytes) {
                // Session ids that can be guessed would be worse than an end.
                panic!("the system has no random bytes: {error}");
            }
            self.used = 0;
        }
        let mut drawn = [0; 16];
        drawn.copy_from_slice(&self.bytes[self.used..self.used + 16]);
        self.bytes[self.used..self.used + 16].fill(0);
        self.used += 16;
        drawn
    }
}

/// The `date` field, made once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = http_date(second);
        }
        &self.text
    }
}
