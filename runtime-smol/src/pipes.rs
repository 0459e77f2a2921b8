//! The pipes of children. A write is tried at once, on the loop; only what the pipe does not take waits in a task. A read
//! waits in a task until there is something, and is done by the loop, into one buffer for all pipes.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use async_io::Async;
use mcp_proxy_engine::{ChildId, Event, MAX_READ, Pipe};
use smol::Task;

use crate::run::{Inbox, Message, Spawner};

/// How a postponed write to a child's stdin ended.
pub(crate) type Flushed = io::Result<()>;

/// All pipes of all children.
pub(crate) struct Pipes {
    sinks: HashMap<ChildId, Sink>,
    sources: HashMap<Pipe, Source>,
    buffer: Vec<u8>,
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
        Pipes { sinks: HashMap::new(), sources: HashMap::new(), buffer: vec![0; MAX_READ], spawner, inbox }
    }

    /// Takes over the pipes of a new child: stdin, stdout, stderr.
    pub(crate) fn add(&mut self, child: ChildId, [stdin, stdout, stderr]: [Async<OwnedFd>; 3]) {
        self.sinks.insert(child, Sink { fd: Rc::new(stdin), flush: None });
        self.sources.insert(Pipe::ChildStdout(child), Source { fd: Rc::new(stdout), wait: None });
        self.sources.insert(Pipe::ChildStderr(child), Source { fd: Rc::new(stderr), wait: None });
    }

    /// Waits for something to read. Bytes usually come later than the permission, so nothing is tried at once.
    pub(crate) fn read(&mut self, pipe: Pipe) {
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
            pipe => drop(self.sources.remove(&pipe)),
        }
    }

    /// Nobody reads the stdin of a dead child; true: a write to it was under way. What it wrote is still to be read.
    pub(crate) fn exited(&mut self, child: ChildId) -> bool {
        self.sinks.remove(&child).is_some_and(|sink| sink.flush.is_some())
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
