//! The loop that owns the engine, and what it hands each action to.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use mcp_proxy_engine::{
    Action, ChildId, Event, ExchangeId, Exit, FetchError, FetchId, HttpRequest, Instant, Output, Pipe,
};

use crate::Proxy;
use crate::child::Children;
use crate::fetch::{Fetches, Got};
use crate::http::{ConnId, Connections, Heard};
use crate::pipes::{Flusher, Pipes};

/// How long responses may still be written when the engine is done.
const LAST_WRITES: Duration = Duration::from_millis(250);

/// What threads, and the loop itself, tell the loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// A connection was accepted.
    Accepted(std::net::TcpStream),
    /// Something came in on a connection.
    Heard(ConnId, Heard),
    /// A write that the socket did not take at once is finished.
    ConnFlushed(ConnId, io::Result<()>),
    /// The same for a child's stdin.
    StdinFlushed(ChildId, io::Result<()>),
    /// A permitted read ended: the buffer that was lent for it, and how much of it was filled; 0 at the end.
    Took(Pipe, Vec<u8>, io::Result<usize>),
    /// A child was reaped, and its group killed.
    Exited(ChildId, Exit),
    /// A request of ours came to something.
    Fetch(FetchId, Got),
    /// A write to standard output ended.
    Stdout(io::Result<()>),
    /// An event for the engine that the loop found itself.
    Request(ExchangeId, HttpRequest),
    Wrote(Pipe),
    Closed(Pipe, Option<io::ErrorKind>),
    Spawned(ChildId),
    SpawnFailed(ChildId, io::ErrorKind),
    FetchFailed(FetchId, FetchError),
    Shutdown,
}

/// The way to the loop. The loop sends to itself as well, so that every event takes the same way.
#[derive(Clone, Debug)]
pub(crate) struct Inbox(pub(crate) mpsc::Sender<Message>);

impl Inbox {
    pub(crate) fn send(&self, message: Message) {
        // It fails when the loop has ended; then nobody wants it.
        let _ = self.0.send(message);
    }
}

/// Stacks need little: nothing recurses.
const STACK: usize = 128 * 1024;

/// Starts a thread. The name shows in `top`.
pub(crate) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(body)
}

/// Threads that are about to end by themselves. They are waited for at the end.
#[derive(Default)]
pub(crate) struct Ending(Vec<JoinHandle<()>>);

impl Ending {
    pub(crate) fn push(&mut self, thread: JoinHandle<()>) {
        if self.0.len() >= 64 {
            self.0.retain(|thread| !thread.is_finished());
        }
        self.0.push(thread);
    }

    pub(crate) fn join(&mut self) {
        for thread in self.0.drain(..) {
            // A panic there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// The next message; `None` at `until`.
fn receive_until(inbox: &mpsc::Receiver<Message>, until: Option<Clock>) -> Option<Message> {
    // Without a sender there would be no message either; the loop holds one.
    match until {
        Some(until) => inbox.recv_timeout(until.saturating_duration_since(Clock::now())).ok(),
        None => inbox.recv().ok(),
    }
}

/// Everything that exists outside the engine.
struct Table {
    connections: Connections,
    pipes: Pipes,
    children: Children,
    fetches: Fetches,
    inbox: Inbox,
    /// Declared last: it ends when those who use it are gone.
    _flusher: Flusher,
}

pub(crate) fn run(proxy: Proxy) -> io::Result<()> {
    let Proxy { mut engine, config, listener, addr: _, tls, start, sender, receiver } = proxy;
    let clock = || Instant::at(start.elapsed());
    let flusher = Flusher::start(sender.clone())?;
    let mut table = Table {
        connections: Connections::new(&config, listener, tls.server, flusher.clone(), sender.clone())?,
        pipes: Pipes::new(flusher.clone(), sender.clone()),
        children: Children::new(sender.clone()),
        fetches: Fetches::new(&config, tls.client, sender.clone()),
        inbox: sender,
        _flusher: flusher,
    };
    loop {
        let until = loop {
            match engine.poll(clock()) {
                Output::Do(action) => table.perform(action),
                Output::Wait(until) => break until,
                Output::Done => {
                    table.finish(&receiver);
                    return Ok(());
                }
            }
        };
        let until = until.map(|until| start + until.elapsed());
        let until = [until, table.connections.deadline()].into_iter().flatten().min();
        match receive_until(&receiver, until) {
            Some(message) => {
                if let Some(event) = table.event(message) {
                    engine.handle(clock(), event);
                }
            }
            None => table.connections.expire(Clock::now()),
        }
    }
}

impl Table {
    fn perform(&mut self, action: Action) {
        match action {
            Action::Read(Pipe::Fetched(fetch)) => self.fetches.read(fetch),
            Action::Read(pipe) => self.pipes.read(pipe),
            Action::Write(Pipe::Response(exchange), bytes) => self.connections.write(exchange, bytes),
            Action::Write(Pipe::ChildStdin(child), bytes) => self.pipes.write(child, bytes),
            Action::Write(Pipe::Stdout, bytes) => self.pipes.write_stdout(bytes),
            Action::Write(pipe, _) => log::error!("{pipe:?} cannot be written"),
            Action::Close(Pipe::Response(exchange)) => self.connections.close(exchange),
            Action::Close(Pipe::Fetched(fetch)) => self.fetches.close(fetch),
            Action::Close(pipe) => self.pipes.close(pipe),
            Action::Respond(exchange, response) => self.connections.respond(exchange, response),
            Action::Spawn(child, command) => self.children.spawn(child, command, &mut self.pipes),
            Action::Kill(child, signal) => self.children.kill(child, signal),
            Action::Fetch(fetch, request) => self.fetches.start(fetch, request),
        }
    }

    /// What a message means to the engine, if anything.
    fn event(&mut self, message: Message) -> Option<Event<'_>> {
        match message {
            Message::Accepted(stream) => self.connections.accepted(stream),
            Message::Heard(conn, heard) => self.connections.heard(conn, heard),
            Message::ConnFlushed(conn, result) => self.connections.flushed(conn, result),
            Message::StdinFlushed(child, flushed) => self.pipes.flushed(child, flushed),
            Message::Took(pipe, buffer, result) => return self.pipes.take(pipe, buffer, result),
            Message::Fetch(fetch, got) => return self.fetches.got(fetch, got),
            Message::Stdout(written) => return self.pipes.wrote_stdout(written),
            Message::Exited(child, exit) => {
                // A write that waits for the dead ends first.
                if self.pipes.exited(child) {
                    self.inbox.send(Message::Exited(child, exit));
                    return Some(Event::Closed(Pipe::ChildStdin(child), Some(io::ErrorKind::BrokenPipe)));
                }
                self.children.remove(child);
                return Some(Event::Exited(child, exit));
            }
            Message::Request(exchange, request) => return Some(Event::Request(exchange, request)),
            Message::Wrote(pipe) => return Some(Event::Wrote(pipe)),
            Message::Closed(pipe, error) => return Some(Event::Closed(pipe, error)),
            Message::Spawned(child) => return Some(Event::Spawned(child)),
            Message::SpawnFailed(child, error) => return Some(Event::SpawnFailed(child, error)),
            Message::FetchFailed(fetch, error) => return Some(Event::FetchFailed(fetch, error)),
            Message::Shutdown => return Some(Event::Shutdown),
        }
        None
    }

    /// Lets the last responses be written, for a short time.
    fn finish(&mut self, inbox: &mpsc::Receiver<Message>) {
        let until = Clock::now() + LAST_WRITES;
        self.connections.stop();
        while self.connections.are_writing() && Clock::now() < until {
            if let Some(message) = receive_until(inbox, Some(until)) {
                self.event(message);
            }
        }
    }
}
