//! Requests of ours. A local task of each connects, sends, and reads as the engine permits; what it finds it tells the
//! loop, which drops it when the engine wants no more. A connection whose response was read to its end is kept for a while.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as Clock};

use async_io::Async;
use mcp_proxy_engine::Pipe;
use mcp_proxy_engine::wire::fetch::{MAX_HEAD, Target, Wait, cancelled, not_connected, response};
use mcp_proxy_engine::wire::gzip::Gunzip;
use mcp_proxy_engine::{
    Config, Event, FetchError, FetchErrorKind, FetchId, FetchRequest, HttpResponse, MAX_READ, Outbound,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use smol::{Task, Timer, future};
use ureq_proto::BodyMode;
use ureq_proto::client::state::{RecvBody, RecvResponse};
use ureq_proto::client::{Call, RecvBodyResult, RecvResponseResult, SendRequestResult};
use ureq_proto::http::Request;

use crate::run::{Inbox, Message, Spawner};
use crate::tls;

/// How long a connection is kept that nobody uses, and how many are. Most servers keep theirs for longer.
const IDLE: Duration = Duration::from_secs(15);
const MAX_IDLE: usize = 64;

/// What the task of a fetch says.
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
    shared: Rc<Shared>,
    spawner: Spawner,
    inbox: Rc<Inbox>,
}

struct Running {
    permits: async_channel::Sender<()>,
    /// The engine has the head.
    headed: bool,
    _task: Task<()>,
}

/// What every fetch needs.
struct Shared {
    outbound: Outbound,
    /// Made for the first `https`: it reads the roots of the system.
    tls: OnceCell<Result<Arc<ClientConfig>, String>>,
    idle: RefCell<Idle>,
    scratch: RefCell<Vec<u8>>,
}

impl Fetches {
    /// `tls` is `None` if it is to be made when it is needed.
    pub(crate) fn new(config: &Config, tls: Option<Arc<ClientConfig>>, spawner: Spawner, inbox: Rc<Inbox>) -> Self {
        let shared = Shared {
            outbound: config.outbound.clone(),
            tls: tls.map_or_else(OnceCell::new, |tls| OnceCell::from(Ok(tls))),
            idle: RefCell::default(),
            scratch: RefCell::new(vec![0; MAX_READ]),
        };
        Fetches { running: HashMap::new(), data: Vec::new(), shared: Rc::new(shared), spawner, inbox }
    }

    /// Sends a request.
    pub(crate) fn start(&mut self, id: FetchId, request: FetchRequest) {
        let (permits, permitted) = async_channel::unbounded();
        let (shared, inbox) = (Rc::clone(&self.shared), Rc::clone(&self.inbox));
        let task = self.spawner.spawn(async move { fetch(id, &request, &shared, &permitted, &inbox).await });
        self.running.insert(id, Running { permits, headed: false, _task: task });
    }

    /// Permits a read of the body.
    pub(crate) fn read(&mut self, id: FetchId) {
        if let Some(running) = self.running.get(&id) {
            // It fails if the task has ended; its last word is on its way then.
            let _ = running.permits.try_send(());
        }
    }

    /// Says what a task got.
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
        self.forget(id);
        Some(match got {
            Got::Failed(error) => Event::FetchFailed(id, error),
            Got::End(error) => Event::Closed(Pipe::Fetched(id), error),
            Got::Head(_) | Got::Data(_) => return None,
        })
    }

    /// Ends a fetch, whatever is under way.
    pub(crate) fn close(&mut self, id: FetchId) {
        let Some(running) = self.forget(id) else { return };
        self.inbox.send(match running.headed {
            true => Message::Closed(Pipe::Fetched(id), Some(ErrorKind::ConnectionAborted)),
            false => Message::FetchFailed(id, cancelled()),
        });
    }

    fn forget(&mut self, id: FetchId) -> Option<Running> {
        if self.shared.idle.borrow_mut().wants_keeper() {
            self.spawner.spawn(keep(Rc::clone(&self.shared))).detach();
        }
        self.running.remove(&id)
    }
}

/// From the request to the end of the response.
async fn fetch(
    id: FetchId,
    request: &FetchRequest,
    shared: &Shared,
    permitted: &async_channel::Receiver<()>,
    inbox: &Inbox,
) {
    let mut body = match begin(request, shared).await {
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
    while permitted.recv().await.is_ok() {
        let deadline = Clock::now() + shared.outbound.body_timeout;
        let got = match in_time(body.read(shared), deadline).await {
            Ok(Some(data)) => Got::Data(data),
            Ok(None) => Got::End(None),
            Err(error) => {
                log::debug!("the body of {id:?} broke: {error}");
                Got::End(Some(error.kind()))
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
async fn begin(request: &FetchRequest, shared: &Shared) -> Result<(HttpResponse, Body), FetchError> {
    let target = Rc::new(Target::new(request.url.reveal(), &shared.outbound)?);
    let (head, _) = encode(&target, request)?;
    let limit = shared.outbound.head_timeout;
    let mut kept = shared.idle.borrow_mut().take(&target);
    loop {
        let (_, call) = encode(&target, request)?;
        let reused = kept.is_some();
        let stream = match kept.take() {
            Some(stream) => stream,
            None => connect(&target, shared).await?,
        };
        let mut exchange = Exchange { stream, input: Vec::new(), answered: false };
        let result = in_time(exchange.run(call, [&head, &request.body], shared), Clock::now() + limit).await;
        match result {
            Ok((head, call)) => {
                let fields = head.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                let (response, gzip) = response(&target, head.status().as_u16(), fields)?;
                return Ok((response, Body::new(exchange, call, gzip.then(Gunzip::new), target, shared)));
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(target.late(Wait::Head, limit)),
            // A server may close a kept connection at the very moment at which we send on it. It closes those that are idle:
            // it had not begun to read the request then, or else it would have answered, or reset the connection in the
            // middle of an answer. So once more, on a new connection, is safe even for POST; RFC 9112, section 9.3.1 asks for
            // that knowledge. On a new connection there is no such excuse, and the request may have been carried out.
            Err(_) if reused && !exchange.answered => {}
            Err(error) => {
                return Err(match error.get_ref().and_then(|error| error.downcast_ref::<ureq_proto::Error>()) {
                    Some(what) => target.nonsense(what),
                    None if error.kind() == ErrorKind::FileTooLarge => target.nonsense("its head is too large"),
                    None => target.broken(&error),
                });
            }
        }
    }
}

/// The head of a request, and what understands the response to it.
fn encode(target: &Target, request: &FetchRequest) -> Result<(Vec<u8>, Call<RecvResponse>), FetchError> {
    let cannot = |error: &dyn std::fmt::Display| FetchError {
        kind: FetchErrorKind::Protocol,
        text: format!("the request cannot be sent: {error}"),
    };
    let fields = target.fields(request)?;
    let scheme = if target.tls { "https" } else { "http" };
    let mut builder = Request::builder().method(request.method).uri(format!(
        "{scheme}://{}{}",
        target.authority,
        target.path.reveal()
    ));
    let mut size = 1024 + target.path.reveal().len();
    for (name, value) in &fields {
        size += name.len() + value.len() + 4;
        builder = builder.header(name, &value[..]);
    }
    let call = builder
        .body(())
        .map_err(|error| cannot(&error))
        .and_then(|request| Call::new(request).map_err(|error| cannot(&error)));
    let mut call = call?;
    if !request.body.is_empty() {
        call.force_send_body();
    }
    let mut call = call.proceed();
    let mut head = vec![0; size];
    let written = call.write(&mut head).map_err(|error| cannot(&error))?;
    head.truncate(written);
    if let Some(prefix) = target.prefix() {
        let at = request.method.len() + 1;
        head.splice(at..at, prefix.into_bytes());
    }
    let call = match call.proceed().map_err(|error| cannot(&error))? {
        Some(SendRequestResult::RecvResponse(call)) => Some(call),
        Some(SendRequestResult::SendBody(mut call)) => {
            // We send it as it is, behind the head.
            call.consume_direct_write(request.body.len()).map_err(|error| cannot(&error))?;
            call.proceed()
        }
        Some(SendRequestResult::Await100(_)) | None => None,
    };
    Ok((head, call.ok_or_else(|| cannot(&"its head is too large"))?))
}

/// A connection.
trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}
type Stream = Box<dyn Wire>;

async fn connect(target: &Target, shared: &Shared) -> Result<Stream, FetchError> {
    let limit = shared.outbound.connect_timeout;
    let addresses = match in_time(resolve(target), Clock::now() + limit).await {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(target.late(Wait::Name, limit)),
        _ => return Err(target.no_address()),
    };
    let deadline = Clock::now() + limit;
    let mut stream = reach(&addresses, deadline).await.map_err(|failed| match failed {
        Some((address, error)) if error.kind() != ErrorKind::TimedOut => not_connected(address, &error),
        _ => target.late(Wait::Connection, limit),
    })?;
    // Only latency is at stake.
    let _ = stream.get_ref().set_nodelay(true);
    if let Some(ask) = target.tunnel() {
        let answer = in_time(tunnel(&mut stream, target, &ask), deadline).await;
        answer.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => target.late(Wait::Connection, limit),
            _ => target.broken(&error),
        })??;
    }
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let config = shared.tls.get_or_init(|| tls::client(&shared.outbound.verify)).clone();
    let config = config.map_err(|why| target.no_tls(false, why))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|_| target.no_tls(false, "this is no host name"))?;
    let handshake = futures_rustls::TlsConnector::from(config).connect(name, stream);
    match in_time(handshake, Clock::now() + limit).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) if error.kind() == ErrorKind::TimedOut => Err(target.late(Wait::Handshake, limit)),
        Err(error) => {
            let (untrusted, why) = tls::explain(&error);
            Err(target.no_tls(untrusted, why))
        }
    }
}

/// Asks the system, which has no other way than to block; on another thread.
async fn resolve(target: &Target) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = target.peer();
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = host.to_owned();
    smol::unblock(move || (host, port).to_socket_addrs().map(Iterator::collect)).await
}

/// Tries one address after the other. Each gets its share of the time that is left.
async fn reach(addresses: &[SocketAddr], deadline: Clock) -> Result<Async<TcpStream>, Option<(SocketAddr, io::Error)>> {
    let mut failed = None;
    for (n, &address) in addresses.iter().enumerate() {
        let now = Clock::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - n) as u32;
        match in_time(Async::<TcpStream>::connect(address), now + share).await {
            Ok(stream) => return Ok(stream),
            // One that refuses says more than one that is silent.
            Err(error) if error.kind() == ErrorKind::TimedOut && failed.is_some() => {}
            Err(error) => failed = Some((address, error)),
        }
    }
    Err(failed)
}

/// Asks a proxy for a way to the server.
async fn tunnel(stream: &mut Async<TcpStream>, target: &Target, ask: &[u8]) -> io::Result<Result<(), FetchError>> {
    stream.write_all(ask).await?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match smol::io::AsyncReadExt::read(stream, &mut piece).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&piece[..n]),
        }
        if let Some(answer) = target.tunnel_answer(&answer) {
            return Ok(answer);
        }
    }
}

async fn in_time<T>(done: impl Future<Output = io::Result<T>>, deadline: Clock) -> io::Result<T> {
    let late = async {
        Timer::at(deadline).await;
        Err(ErrorKind::TimedOut.into())
    };
    future::or(done, late).await
}

/// A connection while it carries a request.
struct Exchange {
    stream: Stream,
    /// What was read and not used.
    input: Vec<u8>,
    /// Some byte came.
    answered: bool,
}

impl Exchange {
    /// Sends the request and reads the head of the response.
    async fn run(
        &mut self,
        mut call: Call<RecvResponse>,
        request: [&[u8]; 2],
        shared: &Shared,
    ) -> io::Result<(ureq_proto::http::Response<()>, RecvResponseResult)> {
        // A server may refuse a large request before it has read all of it: what it says counts then, if it says something.
        let sent = self.send(request).await;
        loop {
            let (used, head) = call.try_response(&self.input, false).map_err(io::Error::other)?;
            self.input.drain(..used);
            if let Some(head) = head {
                let then = call.proceed().ok_or(ErrorKind::InvalidData)?;
                return Ok((head, then));
            }
            if used > 0 {
                continue;
            }
            if self.input.len() >= MAX_HEAD {
                return Err(ErrorKind::FileTooLarge.into());
            }
            match (self.receive(shared).await, &sent) {
                (Ok(1..), _) => {}
                (Ok(0), Ok(())) => return Err(ErrorKind::UnexpectedEof.into()),
                (Err(error), Ok(())) => return Err(error),
                (_, Err(error)) => return Err(error.kind().into()),
            }
        }
    }

    async fn send(&mut self, [head, body]: [&[u8]; 2]) -> io::Result<()> {
        // One packet where one is enough.
        let small = body.len().min(MAX_READ);
        self.stream.write_all(&[head, &body[..small]].concat()).await?;
        self.stream.write_all(&body[small..]).await?;
        self.stream.flush().await
    }

    /// Reads once, and says how much; 0 at the end.
    async fn receive(&mut self, shared: &Shared) -> io::Result<usize> {
        let read = poll_fn(|cx| {
            // All share one buffer: a stream that waits holds none.
            let mut scratch = shared.scratch.borrow_mut();
            let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
            self.input.extend_from_slice(&scratch[..read]);
            Poll::Ready(io::Result::Ok(read))
        })
        .await?;
        self.answered |= read > 0;
        Ok(read)
    }
}

/// The body of a response.
struct Body {
    /// `None` when it was read to its end.
    source: Option<(Exchange, Call<RecvBody>)>,
    gunzip: Option<Gunzip>,
    /// What is still to be unzipped.
    zipped: Vec<u8>,
    /// The last output was full: more may follow without any input.
    more: bool,
    target: Rc<Target>,
}

impl Body {
    fn new(
        exchange: Exchange,
        call: RecvResponseResult,
        gunzip: Option<Gunzip>,
        target: Rc<Target>,
        shared: &Shared,
    ) -> Self {
        let mut body = Body { source: None, gunzip, zipped: Vec::new(), more: false, target };
        match call {
            RecvResponseResult::RecvBody(call) => {
                body.source = Some((exchange, call));
                body.settle(shared);
            }
            // It has no body; whether redirected or not is for the engine.
            RecvResponseResult::Redirect(call) => body.keep(exchange, call.must_close_connection(), shared),
            RecvResponseResult::Cleanup(call) => body.keep(exchange, call.must_close_connection(), shared),
        }
        body
    }

    /// At most [`MAX_READ`] bytes, as soon as there are any; `None` at the regular end.
    async fn read(&mut self, shared: &Shared) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(gunzip) = self.gunzip.as_mut().filter(|_| self.more || !self.zipped.is_empty()) {
                let (mut input, mut output) = (&self.zipped[..], vec![0; MAX_READ]);
                let made =
                    gunzip.next(&mut input, &mut output).map_err(|bad| io::Error::new(ErrorKind::InvalidData, bad))?;
                self.zipped = input.to_vec();
                self.more = made == MAX_READ;
                if made > 0 {
                    output.truncate(made);
                    return Ok(Some(output));
                }
            }
            let Some((exchange, call)) = &mut self.source else {
                return match &self.gunzip {
                    Some(gunzip) if !gunzip.is_complete() => Err(ErrorKind::UnexpectedEof.into()),
                    _ => Ok(None),
                };
            };
            // Decoding makes nothing longer.
            let mut output = vec![0; exchange.input.len().min(MAX_READ)];
            let mut made = 0;
            loop {
                let (used, more) = call
                    .read(&exchange.input, &mut output[made..])
                    .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                exchange.input.drain(..used);
                made += more;
                if used == 0 || exchange.input.is_empty() {
                    break;
                }
            }
            output.truncate(made);
            if !self.settle(shared) && made == 0 {
                self.receive(shared).await?;
            }
            match &self.gunzip {
                _ if made == 0 => {}
                Some(_) => self.zipped.extend_from_slice(&output),
                None => return Ok(Some(output)),
            }
        }
    }

    /// Reads more; at the end of the connection, the body must have ended too.
    async fn receive(&mut self, shared: &Shared) -> io::Result<()> {
        let Some((exchange, call)) = &mut self.source else { return Ok(()) };
        if exchange.receive(shared).await? == 0 {
            // Some servers forget the very last line.
            if call.body_mode() != BodyMode::CloseDelimited && !call.is_ended_chunked() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.source = None;
        }
        Ok(())
    }

    /// Lets go of the connection if the last byte of the body was used. True: there is nothing more to read.
    fn settle(&mut self, shared: &Shared) -> bool {
        let ended = |(_, call): &mut (Exchange, Call<RecvBody>)| {
            call.body_mode() != BodyMode::CloseDelimited && call.can_proceed()
        };
        if let Some((exchange, call)) = self.source.take_if(ended) {
            let must_close = match call.proceed() {
                Some(RecvBodyResult::Redirect(call)) => call.must_close_connection(),
                Some(RecvBodyResult::Cleanup(call)) => call.must_close_connection(),
                None => true,
            };
            self.keep(exchange, must_close, shared);
        }
        self.source.is_none()
    }

    /// The connection may carry another request, if nothing is left on it.
    fn keep(&self, exchange: Exchange, must_close: bool, shared: &Shared) {
        if !must_close && exchange.input.is_empty() {
            shared.idle.borrow_mut().put(&self.target, exchange.stream);
        }
    }
}

/// Connections that nobody uses, the latest last.
#[derive(Default)]
struct Idle {
    kept: Vec<Kept>,
    keeper: bool,
}

struct Kept {
    tls: bool,
    host: String,
    port: u16,
    since: Clock,
    stream: Stream,
}

impl Idle {
    fn put(&mut self, target: &Target, stream: Stream) {
        if self.kept.len() >= MAX_IDLE {
            self.kept.remove(0);
        }
        let Target { tls, port, .. } = *target;
        self.kept.push(Kept { tls, host: target.host.clone(), port, since: Clock::now(), stream });
    }

    /// One to this server that is still open.
    fn take(&mut self, target: &Target) -> Option<Stream> {
        self.sweep();
        let of = |kept: &Kept| (kept.tls, &*kept.host, kept.port) == (target.tls, &*target.host, target.port);
        let at = self.kept.iter().rposition(of)?;
        Some(self.kept.remove(at).stream)
    }

    /// Drops what was kept for long enough, and what the other side closed.
    fn sweep(&mut self) {
        self.kept.retain_mut(|kept| kept.since.elapsed() < IDLE && is_open(&mut kept.stream));
    }

    /// True for the first who asks while something is kept.
    fn wants_keeper(&mut self) -> bool {
        !self.kept.is_empty() && !std::mem::replace(&mut self.keeper, true)
    }
}

/// Nothing may come on a connection that nobody uses: neither bytes nor an end.
fn is_open(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    Pin::new(stream).poll_read(&mut cx, &mut [0]).is_pending()
}

/// Closes what was kept for long enough, until nothing is left.
async fn keep(shared: Rc<Shared>) {
    loop {
        Timer::after(IDLE / 3).await;
        let mut idle = shared.idle.borrow_mut();
        idle.sweep();
        if idle.kept.is_empty() {
            idle.keeper = false;
            return;
        }
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
