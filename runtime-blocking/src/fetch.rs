//! Requests of ours. A thread of each has ureq connect, send and read, as the engine permits; what it finds it tells the
//! loop. Under ureq lies our own connection, so that the loop can end a read from outside, and so that each phase has its
//! own time limit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use mcp_proxy_engine::wire::fetch::{MAX_HEAD, Target, Wait, cancelled, not_connected, response};
use mcp_proxy_engine::wire::gzip::Gunzip;
use mcp_proxy_engine::{Config, Event, FetchError, FetchErrorKind, FetchId, FetchRequest, HttpResponse, MAX_READ};
use mcp_proxy_engine::{Outbound, Pipe};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, BodyReader};

use crate::run::{Ending, Inbox, Message};
use crate::tls;

/// How long connections are kept that nobody uses, and how many are. Most servers keep theirs for longer.
const IDLE: Duration = Duration::from_secs(15);
const MAX_IDLE: usize = 64;

/// A handshake needs more than our own code does.
const STACK: usize = 512 * 1024;

/// The longest field that can be sent, and what is sent at once.
const OUTPUT: usize = 32 * 1024;

/// What the thread of a fetch says.
#[derive(Debug)]
pub(crate) enum Got {
    Head(HttpResponse),
    Data(Vec<u8>),
    /// The end of the body.
    End(Option<ErrorKind>),
    Failed(FetchError),
}

/// All fetches.
pub(crate) struct Fetches {
    running: HashMap<FetchId, Running>,
    /// What the last event lends to the engine.
    data: Vec<u8>,
    threads: Ending,
    shared: Arc<Shared>,
    inbox: Inbox,
}

struct Running {
    permit: mpsc::Sender<()>,
    /// The engine has the head.
    headed: bool,
    link: Arc<Link>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Ends it. Its thread, which ends soon, is returned.
    fn end(self) -> JoinHandle<()> {
        self.link.end();
        self.thread
    }
}

/// What every fetch needs.
struct Shared {
    outbound: Outbound,
    /// Made for the first `https`: it reads the roots of the system.
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    agent: Agent,
}

impl Fetches {
    /// `tls` is `None` if it is to be made when it is needed.
    pub(crate) fn new(config: &Config, tls: Option<Arc<ClientConfig>>, inbox: Inbox) -> Self {
        // All limits of time, all fields and the way to the server are ours. Any status is a response, redirects too.
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_response_header_size(MAX_HEAD)
            .max_idle_connections(MAX_IDLE)
            .max_idle_connections_per_host(MAX_IDLE)
            .max_idle_age(IDLE)
            .build();
        let shared = Shared {
            outbound: config.outbound.clone(),
            tls: tls.map_or_else(OnceLock::new, |tls| OnceLock::from(Ok(tls))),
            agent: Agent::with_parts(agent, Dial, NoResolver),
        };
        let (running, data, threads) = (HashMap::new(), Vec::new(), Ending::default());
        Fetches { running, data, threads, shared: Arc::new(shared), inbox }
    }

    /// Sends a request.
    pub(crate) fn start(&mut self, id: FetchId, request: FetchRequest) {
        let (permit, permitted) = mpsc::channel();
        let link = Arc::new(Link::default());
        let (shared, link2, inbox) = (Arc::clone(&self.shared), Arc::clone(&link), self.inbox.clone());
        let body = move || fetch(id, &request, &shared, link2, &permitted, &inbox);
        match thread::Builder::new().name("mcp-fetch".into()).stack_size(STACK).spawn(body) {
            Ok(thread) => drop(self.running.insert(id, Running { permit, headed: false, link, thread })),
            Err(error) => {
                let text = format!("no thread for a request: {}", error.kind());
                self.inbox.send(Message::FetchFailed(id, FetchError { kind: FetchErrorKind::Connect, text }));
            }
        }
    }

    /// Permits a read of the body.
    pub(crate) fn read(&mut self, id: FetchId) {
        if let Some(running) = self.running.get(&id) {
            // It fails if the thread has ended; its last word is on its way then.
            let _ = running.permit.send(());
        }
    }

    /// Says what a thread got.
    pub(crate) fn got(&mut self, id: FetchId, got: Got) -> Option<Event<'_>> {
        let running = self.running.get_mut(&id)?;
        match got {
            Got::Head(response) => {
                running.headed = true;
                return Some(Event::Fetched(id, response));
            }
            Got::Data(data) => {
                self.data = data;
                return Some(Event::Data(Pipe::Fetched(id), &self.data));
            }
            Got::End(_) | Got::Failed(_) => {}
        }
        if let Some(running) = self.running.remove(&id) {
            self.threads.push(running.thread);
        }
        Some(match got {
            Got::Failed(error) => Event::FetchFailed(id, error),
            Got::End(error) => Event::Closed(Pipe::Fetched(id), error),
            Got::Head(_) | Got::Data(_) => return None,
        })
    }

    /// Ends a fetch, whatever is under way.
    pub(crate) fn close(&mut self, id: FetchId) {
        let Some(running) = self.running.remove(&id) else { return };
        self.inbox.send(match running.headed {
            true => Message::Closed(Pipe::Fetched(id), Some(ErrorKind::ConnectionAborted)),
            false => Message::FetchFailed(id, cancelled()),
        });
        self.threads.push(running.end());
    }
}

impl Drop for Fetches {
    fn drop(&mut self) {
        for (_, running) in self.running.drain() {
            self.threads.push(running.end());
        }
        self.threads.join();
    }
}

/// What a fetch waits for, so that the loop can end it.
#[derive(Default)]
struct Link(Mutex<Hold>);

#[derive(Default)]
enum Hold {
    #[default]
    Nothing,
    /// The address of a name.
    Name(mpsc::Sender<Option<io::Result<Vec<SocketAddr>>>>),
    /// Bytes, or room for bytes.
    Socket(Arc<TcpStream>),
    /// It was ended.
    Ended,
}

impl Link {
    /// Says what is waited for next; an error if it was ended.
    fn hold(&self, next: Hold) -> io::Result<()> {
        let mut hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Hold::Ended = *hold {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        *hold = next;
        Ok(())
    }

    fn end(&self) {
        let mut hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *hold, Hold::Ended) {
            Hold::Nothing | Hold::Ended => {}
            // Neither fails, but where nobody waits any more.
            Hold::Name(sender) => drop(sender.send(None)),
            Hold::Socket(socket) => drop(socket.shutdown(Shutdown::Both)),
        }
    }
}

/// From the request to the end of the response.
fn fetch(
    id: FetchId,
    request: &FetchRequest,
    shared: &Arc<Shared>,
    link: Arc<Link>,
    permitted: &mpsc::Receiver<()>,
    inbox: &Inbox,
) {
    let attempt = match Target::new(request.url.reveal(), &shared.outbound) {
        Ok(target) => Rc::new(Attempt::new(target, link, Arc::clone(shared))),
        Err(error) => return inbox.send(Message::Fetch(id, Got::Failed(error))),
    };
    // Where ureq calls us back, on this thread.
    ATTEMPT.set(Some(Rc::clone(&attempt)));
    let mut body = match begin(request, &attempt) {
        Ok((head, body)) => {
            inbox.send(Message::Fetch(id, Got::Head(head)));
            body
        }
        Err(error) => {
            // For the log: the engine tells the user.
            log::debug!("{id:?} failed: {}", error.text);
            return inbox.send(Message::Fetch(id, Got::Failed(error)));
        }
    };
    while permitted.recv().is_ok() {
        attempt.deadline.set(Some(Clock::now() + shared.outbound.body_timeout));
        let got = match body.read() {
            Ok(Some(data)) => Got::Data(data),
            Ok(None) => Got::End(None),
            Err(error) => {
                log::debug!("the body of {id:?} broke: {error}");
                // What ureq makes of an error is for people only.
                let kind = attempt.error.get().unwrap_or(match error.kind() {
                    ErrorKind::Other => ErrorKind::InvalidData,
                    kind => kind,
                });
                Got::End(Some(kind))
            }
        };
        let end = matches!(got, Got::End(_));
        inbox.send(Message::Fetch(id, got));
        if end {
            return;
        }
    }
}

/// Gets the head of the response.
fn begin(request: &FetchRequest, attempt: &Attempt) -> Result<(HttpResponse, Body), FetchError> {
    let (target, agent) = (&attempt.target, &attempt.shared.agent);
    loop {
        let head = encode(target, request)?;
        let result = if request.body.is_empty() {
            agent.run(head)
        } else {
            let (parts, ()) = head.into_parts();
            agent.run(Request::from_parts(parts, &request.body[..]))
        };
        let error = match result {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                let (response, gzip) = response(target, head.status.as_u16(), fields)?;
                return Ok((response, Body::new(body.into_reader(), gzip.then(Gunzip::new))));
            }
            Err(error) => error,
        };
        return Err(match error {
            ureq::Error::Other(error) => match error.downcast::<Failed>() {
                Ok(failed) => failed.0,
                Err(error) => target.nonsense(error),
            },
            ureq::Error::Io(error) if attempt.error.get().unwrap_or(error.kind()) == ErrorKind::TimedOut => {
                target.late(Wait::Head, attempt.shared.outbound.head_timeout)
            }
            // A server may close a kept connection at the very moment at which we send on it. It closes those that are idle:
            // it had not begun to read the request then, or else it would have answered, or reset the connection in the
            // middle of an answer. So once more, on a new connection, is safe even for POST; RFC 9112, section 9.3.1 asks for
            // that knowledge. On a new connection there is no such excuse, and the request may have been carried out.
            ureq::Error::Io(_) if attempt.again() => continue,
            ureq::Error::Io(error) => target.broken(&attempt.error.get().map_or(error, io::Error::from)),
            ureq::Error::Protocol(what) => target.nonsense(what),
            ureq::Error::LargeResponseHeader(..) => target.nonsense("its head is too large"),
            error => target.nonsense(error),
        });
    }
}

fn encode(target: &Target, request: &FetchRequest) -> Result<Request<()>, FetchError> {
    let scheme = if target.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", target.authority, target.path.reveal());
    let mut builder = Request::builder().method(request.method).uri(url);
    for (name, value) in target.fields(request)? {
        if name.len() + value.len() + 4 > OUTPUT {
            let text = format!("the request cannot be sent: the field {name} is too large");
            return Err(FetchError { kind: FetchErrorKind::Protocol, text });
        }
        builder = builder.header(name, value);
    }
    builder.body(()).map_err(|error| FetchError {
        kind: FetchErrorKind::Protocol,
        text: format!("the request cannot be sent: {error}"),
    })
}

/// The body of a response.
struct Body {
    reader: BodyReader<'static>,
    gunzip: Option<Gunzip>,
    /// What is still to be unzipped.
    zipped: Vec<u8>,
    /// The last output was full: more may follow without any input.
    more: bool,
}

impl Body {
    fn new(reader: BodyReader<'static>, gunzip: Option<Gunzip>) -> Self {
        Body { reader, gunzip, zipped: Vec::new(), more: false }
    }

    /// At most [`MAX_READ`] bytes, as soon as there are any; `None` at the regular end.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut output = vec![0; MAX_READ];
        loop {
            if let Some(gunzip) = self.gunzip.as_mut().filter(|_| self.more || !self.zipped.is_empty()) {
                let mut input = &self.zipped[..];
                let made =
                    gunzip.next(&mut input, &mut output).map_err(|bad| io::Error::new(ErrorKind::InvalidData, bad))?;
                self.zipped = input.to_vec();
                self.more = made == MAX_READ;
                if made > 0 {
                    output.truncate(made);
                    return Ok(Some(output));
                }
            }
            let read = self.reader.read(&mut output)?;
            match &self.gunzip {
                Some(gunzip) if read == 0 && !gunzip.is_complete() => return Err(ErrorKind::UnexpectedEof.into()),
                _ if read == 0 => return Ok(None),
                Some(_) => self.zipped.extend_from_slice(&output[..read]),
                None => {
                    output.truncate(read);
                    return Ok(Some(output));
                }
            }
        }
    }
}

thread_local! {
    /// The fetch that this thread is for. ureq passes nothing through to those it calls.
    static ATTEMPT: RefCell<Option<Rc<Attempt>>> = const { RefCell::new(None) };
}

/// A fetch while it is tried.
struct Attempt {
    target: Target,
    link: Arc<Link>,
    shared: Arc<Shared>,
    /// Some byte of the request was sent, or tried to be.
    started: Cell<bool>,
    /// The connection was kept from another request.
    reused: Cell<bool>,
    /// Some byte of the response came.
    answered: Cell<bool>,
    /// No kept connection may be used any more.
    fresh: Cell<bool>,
    /// Until when the socket may keep us waiting.
    deadline: Cell<Option<Clock>>,
    /// How the connection broke; ureq would take some of it for an end.
    error: Cell<Option<ErrorKind>>,
}

impl Attempt {
    fn new(target: Target, link: Arc<Link>, shared: Arc<Shared>) -> Self {
        Attempt {
            target,
            link,
            shared,
            started: Cell::new(false),
            reused: Cell::new(false),
            answered: Cell::new(false),
            fresh: Cell::new(false),
            deadline: Cell::new(None),
            error: Cell::new(None),
        }
    }

    fn current() -> io::Result<Rc<Attempt>> {
        // ureq does all its work on the thread that calls it.
        ATTEMPT.with_borrow(Clone::clone).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Whether the request may be sent once more; it is on a new connection then.
    fn again(&self) -> bool {
        let again = self.reused.get() && !self.answered.get();
        if again {
            self.fresh.set(true);
            self.started.set(false);
            self.reused.set(false);
            self.error.set(None);
        }
        again
    }

    fn connect(&self) -> Result<Connection, FetchError> {
        let (target, limit) = (&self.target, self.shared.outbound.connect_timeout);
        let addresses = match self.resolve(limit) {
            Ok(addresses) if !addresses.is_empty() => addresses,
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(target.late(Wait::Name, limit)),
            _ => return Err(target.no_address()),
        };
        let deadline = Clock::now() + limit;
        let socket = self.reach(&addresses, deadline).map_err(|failed| match failed {
            Some((address, error)) if error.kind() != ErrorKind::TimedOut => not_connected(address, &error),
            _ => target.late(Wait::Connection, limit),
        })?;
        // Only latency is at stake.
        let _ = socket.set_nodelay(true);
        let mut timed = Timed { socket: &socket, deadline: Some(deadline) };
        if let Some(ask) = target.tunnel() {
            tunnel(&mut timed, target, &ask).map_err(|error| match error.kind() {
                ErrorKind::TimedOut => target.late(Wait::Connection, limit),
                _ => target.broken(&error),
            })??;
        }
        let mut session = None;
        if target.tls {
            let config = self.shared.tls.get_or_init(|| tls::client(&self.shared.outbound.verify)).clone();
            let config = config.map_err(|why| target.no_tls(false, why))?;
            let name = target.host.clone();
            let name = ServerName::try_from(name).map_err(|_| target.no_tls(false, "this is no host name"))?;
            let mut tls = ClientConnection::new(config, name).map_err(|error| target.no_tls(false, error))?;
            timed.deadline = Some(Clock::now() + limit);
            while tls.is_handshaking() {
                tls.complete_io(&mut timed).map_err(|error| match error.kind() {
                    ErrorKind::TimedOut => target.late(Wait::Handshake, limit),
                    _ => {
                        let (untrusted, why) = tls::explain(&error);
                        target.no_tls(untrusted, why)
                    }
                })?;
            }
            session = Some(Box::new(tls));
        }
        let buffers = LazyBuffers::new(MAX_HEAD, OUTPUT);
        Ok(Connection { socket, tls: session, buffers, used: false, unsent: None })
    }

    /// Asks the system, which has no other way than to block: on another thread, which nobody waits for.
    fn resolve(&self, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = self.target.peer();
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let host = host.to_owned();
        let (sender, found) = mpsc::channel();
        self.link.hold(Hold::Name(sender.clone()))?;
        thread::Builder::new().name("mcp-name".into()).spawn(move || {
            let addresses = (host, port).to_socket_addrs().map(Iterator::collect);
            // It fails if that came too late.
            let _ = sender.send(Some(addresses));
        })?;
        match found.recv_timeout(limit) {
            Ok(Some(addresses)) => addresses,
            Ok(None) => Err(ErrorKind::ConnectionAborted.into()),
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Tries one address after the other. Each gets its share of the time that is left.
    fn reach(
        &self,
        addresses: &[SocketAddr],
        deadline: Clock,
    ) -> Result<Arc<TcpStream>, Option<(SocketAddr, io::Error)>> {
        let mut failed = None;
        for (n, &address) in addresses.iter().enumerate() {
            let now = Clock::now();
            let share = deadline.saturating_duration_since(now) / (addresses.len() - n) as u32;
            match self.dial(address, now + share) {
                Ok(stream) => return Ok(stream),
                // One that refuses says more than one that is silent.
                Err(error) if error.kind() == ErrorKind::TimedOut && failed.is_some() => {}
                Err(error) => failed = Some((address, error)),
            }
        }
        Err(failed)
    }

    /// As [`TcpStream::connect_timeout`], but it can be ended.
    fn dial(&self, address: SocketAddr, deadline: Clock) -> io::Result<Arc<TcpStream>> {
        let socket = TcpStream::from(new_socket(address)?);
        socket.set_nonblocking(true)?;
        let socket = Arc::new(socket);
        self.link.hold(Hold::Socket(Arc::clone(&socket)))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        loop {
            let left = deadline.saturating_duration_since(Clock::now());
            let wait = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&*socket, PollFlags::OUT)], Some(&wait)) {
                Ok(0) if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        // Ended in the meantime?
        self.link.hold(Hold::Socket(Arc::clone(&socket)))?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }
}

fn new_socket(address: SocketAddr) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::socket_with(family, SocketType::STREAM, rustix::net::SocketFlags::CLOEXEC, None);
    #[cfg(target_vendor = "apple")]
    {
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
        Ok(socket)
    }
}

/// Asks a proxy for a way to the server.
fn tunnel(stream: &mut Timed<'_>, target: &Target, ask: &[u8]) -> io::Result<Result<(), FetchError>> {
    stream.write_all(ask)?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&piece[..n]),
        }
        if let Some(answer) = target.tunnel_answer(&answer) {
            return Ok(answer);
        }
    }
}

/// A socket that keeps nobody waiting beyond a moment.
struct Timed<'a> {
    socket: &'a TcpStream,
    deadline: Option<Clock>,
}

impl Timed<'_> {
    fn wait<T>(
        &mut self,
        set: fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut act: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Clock::now()));
            if left == Some(Duration::ZERO) {
                return Err(ErrorKind::TimedOut.into());
            }
            set(self.socket, left)?;
            match act(self.socket) {
                // The socket's timeout; the deadline has passed, or nearly.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                result => return result,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(TcpStream::set_read_timeout, |mut socket| socket.read(buffer))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(TcpStream::set_write_timeout, |mut socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A failure of ours on its way through ureq.
#[derive(Debug)]
struct Failed(FetchError);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Failed {}

/// Connects for ureq.
#[derive(Debug)]
struct Dial;

impl Connector<()> for Dial {
    type Out = Connection;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, ureq::Error> {
        Attempt::current()?.connect().map(Some).map_err(|error| ureq::Error::Other(Box::new(Failed(error))))
    }
}

/// Names are resolved when a connection is made.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// A connection under ureq, which keeps it while nobody uses it. Time limits are those of the fetch that uses it.
struct Connection {
    socket: Arc<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    buffers: LazyBuffers,
    /// It carried a request already.
    used: bool,
    /// A request could not be sent whole.
    unsent: Option<ErrorKind>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Connection {
    /// A request begins: its head may have to name the server.
    fn start(&mut self, attempt: &Attempt, head: &[u8]) -> io::Result<Vec<u8>> {
        attempt.link.hold(Hold::Socket(Arc::clone(&self.socket)))?;
        attempt.reused.set(std::mem::replace(&mut self.used, true));
        attempt.deadline.set(Some(Clock::now() + attempt.shared.outbound.head_timeout));
        let mut head = head.to_vec();
        if let Some(prefix) = attempt.target.prefix()
            && let Some(at) = head.iter().position(|&b| b == b' ')
        {
            head.splice(at + 1..at + 1, prefix.into_bytes());
        }
        Ok(head)
    }

    fn write(&mut self, attempt: &Attempt, bytes: &[u8]) -> io::Result<()> {
        let mut timed = Timed { socket: &self.socket, deadline: attempt.deadline.get() };
        match &mut self.tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut timed);
                stream.write_all(bytes)?;
                stream.flush()
            }
            None => timed.write_all(bytes),
        }
    }

    fn read(&mut self, attempt: &Attempt) -> io::Result<usize> {
        let mut timed = Timed { socket: &self.socket, deadline: attempt.deadline.get() };
        let input = self.buffers.input_append_buf();
        let read = match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut timed).read(input),
            None => timed.read(input),
        }?;
        self.buffers.input_appended(read);
        Ok(read)
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let attempt = Attempt::current()?;
        let mut bytes = self.buffers.output()[..amount].to_vec();
        if !attempt.started.replace(true) {
            bytes = self.start(&attempt, &bytes)?;
        }
        if self.unsent.is_none()
            && let Err(error) = self.write(&attempt, &bytes)
        {
            // A server may refuse a large request before it has read all of it: what it says counts then, if it says
            // something.
            self.unsent = Some(error.kind());
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let attempt = Attempt::current()?;
        let kind = match (self.read(&attempt), self.unsent) {
            (Ok(1..), _) => {
                attempt.answered.set(true);
                return Ok(true);
            }
            (_, Some(kind)) => kind,
            (Ok(0), None) => return Ok(false),
            (Err(error), None) => error.kind(),
        };
        attempt.error.set(Some(kind));
        // ureq takes some kinds for the end of the body. They are none.
        Err(io::Error::from(ErrorKind::BrokenPipe).into())
    }

    /// Asked before the connection is used for a request, and before it is kept.
    fn is_open(&mut self) -> bool {
        let Ok(attempt) = Attempt::current() else { return false };
        // From here on it may be somebody else's, who must not lose it by the end of this fetch.
        if attempt.link.hold(Hold::Nothing).is_err() || self.unsent.is_some() {
            return false;
        }
        if !attempt.started.get() && attempt.fresh.get() {
            return false;
        }
        if self.socket.set_nonblocking(true).is_err() {
            return false;
        }
        // Nothing may come on a connection that nobody uses: neither bytes nor an end.
        let mut socket = &*self.socket;
        let read = match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut socket).read(&mut [0]),
            None => socket.read(&mut [0]),
        };
        let quiet = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        quiet && self.socket.set_nonblocking(false).is_ok()
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
