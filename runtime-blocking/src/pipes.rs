//! The pipes of children, and our own standard input and output. A write to a child is tried at once, on the loop; only
//! what the pipe does not take is left to the flusher. A read is done by the pipe's thread, once for each permission, into
//! a buffer that travels with it. Our own output has a thread too: it may be a file or a terminal, and its mode is not ours.

use std::collections::HashMap;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use mcp_proxy_engine::wire::http::Outgoing;
use mcp_proxy_engine::{ChildId, Event, MAX_READ, Pipe};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::http::{self, ConnId};
use crate::run::{Ending, Inbox, Message, thread};

/// All pipes of all children.
pub(crate) struct Pipes {
    sinks: HashMap<ChildId, Sink>,
    sources: HashMap<Pipe, Source>,
    /// Standard input is opened by the first read, and never again.
    stdin_used: bool,
    stdout: Stdout,
    threads: Ending,
    buffer: Vec<u8>,
    flusher: Flusher,
    inbox: Inbox,
}

struct Sink {
    fd: Arc<OwnedFd>,
    /// The flusher writes what the pipe did not take at once.
    flushing: bool,
}

struct Source {
    /// Permits a read, and lends the buffer for it.
    permit: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<()>,
    /// Its end ends the thread, even in the middle of a read.
    _end: PipeWriter,
}

impl Source {
    fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

impl Pipes {
    pub(crate) fn new(flusher: Flusher, inbox: Inbox) -> Self {
        let (sinks, sources, threads) = (HashMap::new(), HashMap::new(), Ending::default());
        let (stdin_used, stdout) = (false, Stdout::Unused);
        Pipes { sinks, sources, stdin_used, stdout, threads, buffer: Vec::new(), flusher, inbox }
    }

    /// Takes over the pipes of a new child: stdin, stdout, stderr.
    pub(crate) fn add(&mut self, child: ChildId, [stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&stdin, true)?;
        self.sinks.insert(child, Sink { fd: Arc::new(stdin), flushing: false });
        for (pipe, fd) in [(Pipe::ChildStdout(child), stdout), (Pipe::ChildStderr(child), stderr)] {
            self.add_source(pipe, fd)?;
        }
        Ok(())
    }

    fn add_source(&mut self, pipe: Pipe, fd: OwnedFd) -> io::Result<()> {
        let (permit, permits) = mpsc::channel();
        let (ended, end) = io::pipe()?;
        let inbox = self.inbox.clone();
        let thread = thread("mcp-pipe", move || read(pipe, &fd, &ended, &permits, &inbox))?;
        self.sources.insert(pipe, Source { permit, thread, _end: end });
        Ok(())
    }

    /// Drops the pipes of a child that was never announced.
    pub(crate) fn forget(&mut self, child: ChildId) {
        for pipe in [Pipe::ChildStdin(child), Pipe::ChildStdout(child), Pipe::ChildStderr(child)] {
            self.close(pipe);
        }
    }

    /// Lets the thread of the pipe read once.
    pub(crate) fn read(&mut self, pipe: Pipe) {
        if pipe == Pipe::Stdin && !std::mem::replace(&mut self.stdin_used, true) {
            // A copy, because the original must stay open for whoever else uses it.
            let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
            if let Err(error) = stdin.map_err(io::Error::from).and_then(|stdin| self.add_source(pipe, stdin)) {
                return self.inbox.send(Message::Closed(pipe, Some(error.kind())));
            }
        }
        if let Some(source) = self.sources.get(&pipe) {
            // The thread has ended if this fails, and its last message is on its way.
            let _ = source.permit.send(std::mem::take(&mut self.buffer));
        }
    }

    /// Says what a read brought.
    pub(crate) fn take(&mut self, pipe: Pipe, buffer: Vec<u8>, result: io::Result<usize>) -> Option<Event<'_>> {
        self.sources.get(&pipe)?;
        // The next permission takes it along.
        self.buffer = buffer;
        let error = match result {
            Ok(0) => None,
            Ok(read) => return Some(Event::Data(pipe, &self.buffer[..read])),
            Err(error) => Some(error.kind()),
        };
        self.close(pipe);
        Some(Event::Closed(pipe, error))
    }

    /// Writes to a child's stdin, now or through the flusher.
    pub(crate) fn write(&mut self, child: ChildId, bytes: Vec<u8>) {
        let Some(sink) = self.sinks.get_mut(&child) else { return };
        let mut bytes = Outgoing::new(bytes);
        match write_some(&sink.fd, &mut bytes) {
            Ok(true) => self.inbox.send(Message::Wrote(Pipe::ChildStdin(child))),
            Ok(false) => {
                sink.flushing = true;
                self.flusher.write(Stalled::Stdin(child, Arc::clone(&sink.fd), bytes));
            }
            Err(error) => self.broken(child, error.kind()),
        }
    }

    /// A postponed write ended.
    pub(crate) fn flushed(&mut self, child: ChildId, flushed: io::Result<()>) {
        let Some(sink) = self.sinks.get_mut(&child) else { return };
        sink.flushing = false;
        match flushed {
            Ok(()) => self.inbox.send(Message::Wrote(Pipe::ChildStdin(child))),
            Err(error) => self.broken(child, error.kind()),
        }
    }

    fn broken(&mut self, child: ChildId, error: ErrorKind) {
        self.sinks.remove(&child);
        self.inbox.send(Message::Closed(Pipe::ChildStdin(child), Some(error)));
    }

    /// Writes to our standard output.
    pub(crate) fn write_stdout(&mut self, bytes: Vec<u8>) {
        if let Stdout::Unused = self.stdout {
            match Writer::start(self.inbox.clone()) {
                Ok(writer) => self.stdout = Stdout::Open(writer),
                Err(error) => return self.inbox.send(Message::Stdout(Err(error))),
            }
        }
        if let Stdout::Open(writer) = &self.stdout {
            // The thread lives as long as it is not told to end.
            let _ = writer.orders.send(bytes);
        }
    }

    /// Says what came of it.
    pub(crate) fn wrote_stdout(&mut self, written: io::Result<()>) -> Option<Event<'_>> {
        if let Stdout::Closed = self.stdout {
            return None;
        }
        match written {
            Ok(()) => Some(Event::Wrote(Pipe::Stdout)),
            Err(error) => {
                self.close(Pipe::Stdout);
                Some(Event::Closed(Pipe::Stdout, Some(error.kind())))
            }
        }
    }

    /// Drops our end, whatever is under way on it.
    pub(crate) fn close(&mut self, pipe: Pipe) {
        if let Pipe::ChildStdin(child) = pipe {
            if self.sinks.remove(&child).is_some_and(|sink| sink.flushing) {
                self.flusher.forget(child);
            }
        } else if pipe == Pipe::Stdout {
            if let Stdout::Open(writer) = std::mem::replace(&mut self.stdout, Stdout::Closed) {
                self.threads.push(writer.end());
            }
        } else if let Some(source) = self.sources.remove(&pipe) {
            self.threads.push(source.end());
        }
    }

    /// Nobody reads the stdin of a dead child; true: a write to it was under way. What it wrote is still to be read.
    pub(crate) fn exited(&mut self, child: ChildId) -> bool {
        let flushing = self.sinks.get(&child).is_some_and(|sink| sink.flushing);
        self.close(Pipe::ChildStdin(child));
        flushing
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for (_, source) in self.sources.drain() {
            self.threads.push(source.end());
        }
        self.close(Pipe::Stdout);
        self.threads.join();
    }
}

/// Our standard output, at its use.
enum Stdout {
    Unused,
    Open(Writer),
    Closed,
}

struct Writer {
    orders: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<()>,
    /// Its end ends the thread, even in the middle of a write.
    _end: PipeWriter,
}

impl Writer {
    fn start(inbox: Inbox) -> io::Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let (ended, end) = io::pipe()?;
        let (orders, ordered) = mpsc::channel::<Vec<u8>>();
        let thread = thread("mcp-stdout", move || {
            while let Ok(bytes) = ordered.recv()
                && let Some(written) = write_blocking(&fd, &ended, &bytes)
            {
                inbox.send(Message::Stdout(written));
            }
        })?;
        Ok(Writer { orders, thread, _end: end })
    }

    fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

/// A pipe that is ready to be written takes this much without blocking.
const SLICE: usize = 4096;

/// Writes everything; `None` if it is told to end before that. The mode of the descriptor, which other processes share,
/// stays as it is.
fn write_blocking(fd: &OwnedFd, ended: &PipeReader, mut bytes: &[u8]) -> Option<io::Result<()>> {
    while !bytes.is_empty() {
        let mut fds = [PollFd::new(fd, PollFlags::OUT), PollFd::new(ended, PollFlags::IN)];
        // It fails for a signal, or for what cannot be polled, which is always ready.
        if poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {
            continue;
        }
        if !fds[1].revents().is_empty() {
            return None;
        }
        match rustix::io::write(fd, &bytes[..bytes.len().min(SLICE)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Some(Err(errno.into())),
        }
    }
    Some(Ok(()))
}

fn read(pipe: Pipe, fd: &OwnedFd, ended: &PipeReader, permits: &mpsc::Receiver<Vec<u8>>, inbox: &Inbox) {
    while let Ok(mut buffer) = permits.recv() {
        buffer.resize(MAX_READ, 0);
        let result = loop {
            let mut fds = [PollFd::new(fd, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => break Err(errno.into()),
            }
            match rustix::io::read(fd, &mut buffer[..]) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                result => break result.map_err(io::Error::from),
            }
        };
        let end = !matches!(result, Ok(1..));
        inbox.send(Message::Took(pipe, buffer, result));
        if end {
            return;
        }
    }
}

/// As many bytes as the pipe takes now; true: all of them.
fn write_some(fd: &OwnedFd, bytes: &mut Outgoing) -> io::Result<bool> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes.slices()[0]) {
            Ok(written) => bytes.advance(written),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// One thread that finishes all writes that would block. It ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Flusher(Arc<FlusherThread>);

struct FlusherThread {
    orders: mpsc::Sender<Order>,
    /// A byte here makes the thread look at its orders, the end makes it end.
    wake: Mutex<Option<PipeWriter>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Order {
    Write(Stalled),
    Forget(ChildId),
}

/// A write that would block.
pub(crate) enum Stalled {
    /// To a client. It fails when nothing could be written for this long.
    Connection(ConnId, Arc<TcpStream>, Outgoing, Duration),
    /// To a child.
    Stdin(ChildId, Arc<OwnedFd>, Outgoing),
}

impl Flusher {
    pub(crate) fn start(inbox: Inbox) -> io::Result<Self> {
        let (woken, wake) = io::pipe()?;
        let (orders, receiver) = mpsc::channel();
        let thread = thread("mcp-flush", move || flush(woken, &receiver, &inbox))?;
        let (wake, thread) = (Mutex::new(Some(wake)), Mutex::new(Some(thread)));
        Ok(Flusher(Arc::new(FlusherThread { orders, wake, thread })))
    }

    /// Writes it, then sends `ConnFlushed` or `StdinFlushed`.
    pub(crate) fn write(&self, stalled: Stalled) {
        self.order(Order::Write(stalled));
    }

    /// Drops the child's stdin.
    pub(crate) fn forget(&self, child: ChildId) {
        self.order(Order::Forget(child));
    }

    fn order(&self, order: Order) {
        // Neither fails as long as the thread lives, and it lives as long as we do.
        let _ = self.0.orders.send(order);
        if let Some(wake) = &mut *self.0.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = wake.write_all(&[0]);
        }
    }
}

impl Drop for FlusherThread {
    fn drop(&mut self) {
        drop(self.wake.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn flush(mut woken: PipeReader, orders: &mpsc::Receiver<Order>, inbox: &Inbox) {
    let mut writes: Vec<(Stalled, Option<Clock>)> = Vec::new();
    loop {
        let now = Clock::now();
        let wait =
            writes.iter().filter_map(|(_, deadline)| *deadline).min().map(|at| at.saturating_duration_since(now));
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut fds = vec![PollFd::new(&woken, PollFlags::IN)];
        fds.extend(writes.iter().map(|(stalled, _)| PollFd::from_borrowed_fd(stalled.fd(), PollFlags::OUT)));
        // It fails for a signal, or for lack of memory in the kernel; then nothing is ready.
        let ready: Vec<bool> = match poll(&mut fds, wait.as_ref()) {
            Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
            Err(_) => vec![false; fds.len()],
        };
        let now = Clock::now();
        let mut ready = ready.into_iter();
        if ready.next() == Some(true) && !matches!(woken.read(&mut [0; 64]), Ok(1..)) {
            return;
        }
        writes.retain_mut(|(stalled, deadline)| match (ready.next(), &deadline) {
            (Some(true), _) => match stalled.write_some() {
                Ok(false) => {
                    *deadline = stalled.deadline(now);
                    true
                }
                result => {
                    stalled.report(result.map(|_| ()), inbox);
                    false
                }
            },
            (_, Some(deadline)) if *deadline <= now => {
                stalled.report(Err(ErrorKind::TimedOut.into()), inbox);
                false
            }
            _ => true,
        });
        while let Ok(order) = orders.try_recv() {
            match order {
                Order::Write(stalled) => {
                    let deadline = stalled.deadline(now);
                    writes.push((stalled, deadline));
                }
                Order::Forget(gone) => {
                    writes.retain(|(s, _)| !matches!(s, Stalled::Stdin(child, ..) if *child == gone))
                }
            }
        }
    }
}

impl Stalled {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Stalled::Connection(_, stream, ..) => stream.as_fd(),
            Stalled::Stdin(_, fd, _) => fd.as_fd(),
        }
    }

    fn deadline(&self, now: Clock) -> Option<Clock> {
        match self {
            Stalled::Connection(.., timeout) => Some(now + *timeout),
            Stalled::Stdin(..) => None,
        }
    }

    fn write_some(&mut self) -> io::Result<bool> {
        match self {
            Stalled::Connection(_, stream, bytes, _) => http::write_some(stream, bytes),
            Stalled::Stdin(_, fd, bytes) => write_some(fd, bytes),
        }
    }

    fn report(&self, result: io::Result<()>, inbox: &Inbox) {
        inbox.send(match self {
            Stalled::Connection(conn, ..) => Message::ConnFlushed(*conn, result),
            Stalled::Stdin(child, ..) => Message::StdinFlushed(*child, result),
        });
    }
}
