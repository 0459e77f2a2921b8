//! The pipes of children, and our own standard input and output. A write is tried at once, on the loop; only what the
//! pipe does not take waits in a task. A read waits in a task until there is something, and is done by the loop, into one
//! buffer for all pipes. What is behind our own two may be a file or a terminal, for which no task can wait, so each has a
//! thread.

use std::collections::HashMap;
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use async_io::Async;
use mcp_proxy_engine::{ChildId, Event, MAX_READ, Pipe};
use rustix::event::{PollFd, PollFlags, poll};
use smol::Task;

use crate::run::{Inbox, Message, Spawner};

/// How a postponed write to a child's stdin ended.
pub(crate) type Flushed = io::Result<()>;

/// All pipes of all children.
pub(crate) struct Pipes {
    sinks: HashMap<ChildId, Sink>,
    sources: HashMap<Pipe, Source>,
    buffer: Vec<u8>,
    stdin: Standard<()>,
    stdout: Standard<Vec<u8>>,
    spawner: Spawner,
    inbox: Rc<Inbox>,
}

struct Sink {
    fd: Rc<Async<OwnedFd>>,
    /// Writes what the pipe did not take at once.
    flush: Option<Task<()>>,
}

struct Source {
    fd: Rc<Async<OwnedFd>>,
    /// Waits for something to read, if the engine permitted a read.
    wait: Option<Task<()>>,
}

impl Pipes {
    pub(crate) fn new(spawner: Spawner, inbox: Rc<Inbox>) -> Self {
        let (stdin, stdout) = (Standard::Unused, Standard::Unused);
        let buffer = vec![0; MAX_READ];
        Pipes { sinks: HashMap::new(), sources: HashMap::new(), buffer, stdin, stdout, spawner, inbox }
    }

    /// Takes over the pipes of a new child: stdin, stdout, stderr.
    pub(crate) fn add(&mut self, child: ChildId, [stdin, stdout, stderr]: [Async<OwnedFd>; 3]) {
        self.sinks.insert(child, Sink { fd: Rc::new(stdin), flush: None });
        self.sources.insert(Pipe::ChildStdout(child), Source { fd: Rc::new(stdout), wait: None });
        self.sources.insert(Pipe::ChildStderr(child), Source { fd: Rc::new(stderr), wait: None });
    }

    /// Waits for something to read. Bytes usually come later than the permission, so nothing is tried at once.
    pub(crate) fn read(&mut self, pipe: Pipe) {
        if pipe == Pipe::Stdin {
            return self.read_stdin();
        }
        let Some(source) = self.sources.get_mut(&pipe) else { return };
        let (fd, inbox) = (Rc::clone(&source.fd), Rc::clone(&self.inbox));
        source.wait = Some(self.spawner.spawn(async move {
            // An error here is found again by the read itself.
            let _ = fd.readable().await;
            inbox.send(Message::Readable(pipe));
        }));
    }

    /// Reads once, and says what came.
    pub(crate) fn take(&mut self, pipe: Pipe) -> Option<Event<'_>> {
        let source = self.sources.get_mut(&pipe)?;
        source.wait = None;
        let error = match rustix::io::read(&source.fd, &mut self.buffer[..]) {
            Ok(0) => None,
            Ok(read) => return Some(Event::Data(pipe, &self.buffer[..read])),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                self.read(pipe);
                return None;
            }
            Err(errno) => Some(io::Error::from(errno).kind()),
        };
        self.sources.remove(&pipe);
        Some(Event::Closed(pipe, error))
    }

    /// Writes to a child's stdin, now or in a task.
    pub(crate) fn write(&mut self, child: ChildId, bytes: Vec<u8>) {
        let Some(sink) = self.sinks.get_mut(&child) else { return };
        match write_some(&sink.fd, &bytes) {
            Ok(written) if written == bytes.len() => self.inbox.send(Message::Wrote(Pipe::ChildStdin(child))),
            Ok(written) => {
                let (fd, inbox) = (Rc::clone(&sink.fd), Rc::clone(&self.inbox));
                sink.flush = Some(self.spawner.spawn(async move {
                    let flushed = flush(&fd, &bytes[written..]).await;
                    inbox.send(Message::StdinFlushed(child, flushed));
                }));
            }
            Err(error) => self.broken(child, error.kind()),
        }
    }

    /// A postponed write ended.
    pub(crate) fn flushed(&mut self, child: ChildId, flushed: Flushed) {
        let Some(sink) = self.sinks.get_mut(&child) else { return };
        if sink.flush.take().is_none() {
            return;
        }
        match flushed {
            Ok(()) => self.inbox.send(Message::Wrote(Pipe::ChildStdin(child))),
            Err(error) => self.broken(child, error.kind()),
        }
    }

    fn broken(&mut self, child: ChildId, error: ErrorKind) {
        self.sinks.remove(&child);
        self.inbox.send(Message::Closed(Pipe::ChildStdin(child), Some(error)));
    }

    /// Drops our end, whatever is under way on it.
    pub(crate) fn close(&mut self, pipe: Pipe) {
        match pipe {
            Pipe::ChildStdin(child) => drop(self.sinks.remove(&child)),
            Pipe::Stdin => self.stdin = Standard::Closed,
            Pipe::Stdout => self.stdout = Standard::Closed,
            pipe => drop(self.sources.remove(&pipe)),
        }
    }

    /// Nobody reads the stdin of a dead child; true: a write to it was under way. What it wrote is still to be read.
    pub(crate) fn exited(&mut self, child: ChildId) -> bool {
        self.sinks.remove(&child).is_some_and(|sink| sink.flush.is_some())
    }
}

/// One of our own two.
enum Standard<T> {
    Unused,
    /// A thread does what it is ordered. The end of the pipe ends it, even in the middle of that.
    Open {
        orders: mpsc::Sender<T>,
        _end: PipeWriter,
    },
    Closed,
}

/// Stacks need little: nothing recurses.
const STACK: usize = 128 * 1024;

impl<T: Send + 'static> Standard<T> {
    /// Has the thread do something; it is started by the first order. `tell` says on the loop what came of it.
    fn order<R: Send + 'static>(
        &mut self,
        what: T,
        name: &str,
        fd: impl FnOnce() -> rustix::io::Result<OwnedFd>,
        work: impl Fn(&OwnedFd, &PipeReader, T) -> Option<R> + Send + 'static,
        spawner: &Spawner,
        tell: impl Fn(R) + 'static,
    ) -> io::Result<()> {
        if let Standard::Unused = self {
            let fd = fd()?;
            let (ended, end) = io::pipe()?;
            let (orders, ordered) = mpsc::channel();
            let (say, said) = async_channel::unbounded();
            thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || {
                while let Ok(what) = ordered.recv()
                    && let Some(done) = work(&fd, &ended, what)
                    && say.try_send(done).is_ok()
                {}
            })?;
            let forward = async move {
                while let Ok(done) = said.recv().await {
                    tell(done);
                }
            };
            spawner.spawn(forward).detach();
            *self = Standard::Open { orders, _end: end };
        }
        if let Standard::Open { orders, .. } = self {
            // The thread lives as long as it is not told to end.
            let _ = orders.send(what);
        }
        Ok(())
    }
}

impl Pipes {
    fn read_stdin(&mut self) {
        let inbox = Rc::clone(&self.inbox);
        let tell = move |read| inbox.send(Message::Stdin(read));
        // A copy, because the original must stay open for whoever else uses it.
        let fd = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
        let work = |fd: &OwnedFd, ended: &PipeReader, ()| read_blocking(fd, ended);
        if let Err(error) = self.stdin.order((), "mcp-stdin", fd, work, &self.spawner, tell) {
            self.inbox.send(Message::Stdin(Err(error)));
        }
    }

    /// Says what came of a read.
    pub(crate) fn took_stdin(&mut self, read: io::Result<Vec<u8>>) -> Option<Event<'_>> {
        if let Standard::Closed = self.stdin {
            return None;
        }
        match read {
            Ok(bytes) if !bytes.is_empty() => {
                self.buffer[..bytes.len()].copy_from_slice(&bytes);
                Some(Event::Data(Pipe::Stdin, &self.buffer[..bytes.len()]))
            }
            read => {
                self.stdin = Standard::Closed;
                Some(Event::Closed(Pipe::Stdin, read.err().map(|error| error.kind())))
            }
        }
    }

    /// Writes to our standard output.
    pub(crate) fn write_stdout(&mut self, bytes: Vec<u8>) {
        let inbox = Rc::clone(&self.inbox);
        let tell = move |written| inbox.send(Message::Stdout(written));
        let fd = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3);
        let work = |fd: &OwnedFd, ended: &PipeReader, bytes: Vec<u8>| write_blocking(fd, ended, &bytes);
        if let Err(error) = self.stdout.order(bytes, "mcp-stdout", fd, work, &self.spawner, tell) {
            self.inbox.send(Message::Stdout(Err(error)));
        }
    }

    /// Says what came of a write.
    pub(crate) fn wrote_stdout(&mut self, written: io::Result<()>) -> Option<Event<'_>> {
        if let Standard::Closed = self.stdout {
            return None;
        }
        match written {
            Ok(()) => Some(Event::Wrote(Pipe::Stdout)),
            Err(error) => {
                self.stdout = Standard::Closed;
                Some(Event::Closed(Pipe::Stdout, Some(error.kind())))
            }
        }
    }
}

/// Reads once; `None` if it is told to end before something comes. The mode of the descriptor, which other processes
/// share, stays as it is.
fn read_blocking(fd: &OwnedFd, ended: &PipeReader) -> Option<io::Result<Vec<u8>>> {
    let mut buffer = vec![0; MAX_READ];
    loop {
        if !wait(fd, ended, PollFlags::IN) {
            return None;
        }
        match rustix::io::read(fd, &mut buffer[..]) {
            Ok(read) => {
                buffer.truncate(read);
                return Some(Ok(buffer));
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(errno) => return Some(Err(errno.into())),
        }
    }
}

/// A pipe that is ready to be written takes this much without blocking.
const SLICE: usize = 4096;

/// Writes everything; `None` if it is told to end before that.
fn write_blocking(fd: &OwnedFd, ended: &PipeReader, mut bytes: &[u8]) -> Option<io::Result<()>> {
    while !bytes.is_empty() {
        if !wait(fd, ended, PollFlags::OUT) {
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

/// Waits until it is ready; false: told to end.
fn wait(fd: &OwnedFd, ended: &PipeReader, ready: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, ready), PollFd::new(ended, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => {}
            // What cannot be polled is always ready.
            Err(_) => return true,
        }
    }
}

/// As many bytes as the pipe takes now.
fn write_some(fd: &Async<OwnedFd>, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(fd, &bytes[written..]) {
            Ok(more) => written += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(written)
}

async fn flush(fd: &Async<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        fd.writable().await?;
        bytes = &bytes[write_some(fd, bytes)?..];
    }
    Ok(())
}
