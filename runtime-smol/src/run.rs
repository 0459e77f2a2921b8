//! The loop that owns the engine, and what it hands each action to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant as Clock};

use async_io::Async;
use mcp_proxy_engine::{
    Action, ChildId, Engine, Event, ExchangeId, Exit, FetchError, FetchId, HttpRequest, Instant, Output, Pipe,
};
use smol::{LocalExecutor, Task, Timer};

use crate::Proxy;
use crate::child::Children;
use crate::fetch::{Fetches, Got};
use crate::http::{ConnId, Connections, Heard};
use crate::pipes::{Flushed, Pipes};

/// How long responses may still be written when the engine is done.
const LAST_WRITES: Duration = Duration::from_millis(250);

/// What tasks, and the loop itself, tell the loop.
pub(crate) enum Message {
    /// A connection was accepted.
    Accepted(Async<std::net::TcpStream>),
    /// Something came in on a connection.
    Heard(ConnId, Heard),
    /// A write that the socket did not take at once is finished.
    ConnFlushed(ConnId, io::Result<()>),
    /// The same for a child's stdin.
    StdinFlushed(ChildId, Flushed),
    /// A child's pipe has bytes to read, or its end.
    Readable(Pipe),
    /// A child was reaped, and its group killed.
    Exited(ChildId, Exit),
    /// A request of ours came to something.
    Fetch(FetchId, Got),
    /// Standard input brought this, or its end.
    Stdin(io::Result<Vec<u8>>),
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

/// The way to the loop. Everything is on one thread, so a message costs a push and no system call.
#[derive(Default)]
pub(crate) struct Inbox {
    messages: RefCell<VecDeque<Message>>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    pub(crate) fn send(&self, message: Message) {
        self.messages.borrow_mut().push_back(message);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn receive(&self) -> Option<Message> {
        self.messages.borrow_mut().pop_front()
    }

    /// The next message, without an alarm.
    #[cfg(test)]
    pub(crate) async fn next(&self) -> Message {
        poll_fn(|cx| match self.receive() {
            Some(message) => Poll::Ready(message),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// One timer for everything that waits. It is only armed anew for an earlier moment: firing too early now and then costs
/// less than two system calls for each request.
struct Alarm {
    timer: Timer,
    armed: Option<Clock>,
}

impl Alarm {
    /// The next message; `None` at `until` (or before, rarely).
    async fn receive_until(&mut self, inbox: &Inbox, until: Option<Clock>) -> Option<Message> {
        if let Some(message) = inbox.receive() {
            return Some(message);
        }
        if let Some(until) = until
            && self.armed.is_none_or(|armed| until < armed)
        {
            self.armed = Some(until);
            self.timer.set_at(until);
        }
        poll_fn(|cx| {
            if let Some(message) = inbox.receive() {
                return Poll::Ready(Some(message));
            }
            if self.armed.is_some() && std::pin::Pin::new(&mut self.timer).poll(cx).is_ready() {
                self.armed = None;
                return Poll::Ready(None);
            }
            let mut waker = inbox.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Everything that exists outside the engine.
struct Table {
    connections: Connections,
    pipes: Pipes,
    children: Children,
    fetches: Fetches,
    inbox: Rc<Inbox>,
}

/// Starts tasks. It does not keep the executor alive, which keeps the tasks alive, the loop among them.
#[derive(Clone)]
pub(crate) struct Spawner(Weak<LocalExecutor<'static>>);

impl Spawner {
    pub(crate) fn new(executor: &Rc<LocalExecutor<'static>>) -> Self {
        Spawner(Rc::downgrade(executor))
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> Task<()> {
        match self.0.upgrade() {
            Some(executor) => executor.spawn(task),
            // Only tasks spawn tasks, and they are run by the executor.
            None => unreachable!("a task runs without its executor"),
        }
    }
}

pub(crate) async fn run(proxy: Proxy) -> io::Result<()> {
    let Proxy { engine, config, listener, addr: _, tls, start, stops } = proxy;
    let inbox = Rc::new(Inbox::default());
    let executor = Rc::new(LocalExecutor::new());
    let spawner = Spawner::new(&executor);
    // Reaps children on this thread. It must have begun before the first child, or async-process starts a thread for it.
    executor.spawn(async_process::driver()).detach();
    executor.try_tick();
    let stopped = Rc::clone(&inbox);
    spawner
        .spawn(async move {
            while stops.recv().await.is_ok() {
                stopped.send(Message::Shutdown);
            }
        })
        .detach();
    let table = Table {
        connections: Connections::new(&config, listener, tls.server, spawner.clone(), Rc::clone(&inbox))?,
        pipes: Pipes::new(spawner.clone(), Rc::clone(&inbox)),
        children: Children::new(spawner.clone(), Rc::clone(&inbox)),
        fetches: Fetches::new(&config, tls.client, spawner.clone(), Rc::clone(&inbox)),
        inbox,
    };
    // The loop is a task like the others: if it were the future that the executor is run for, each message would wake the
    // caller's reactor as well, which costs five system calls.
    let task = spawner.spawn(drive(engine, table, start));
    executor.run(task).await;
    Ok(())
}

async fn drive(mut engine: Engine, mut table: Table, start: Clock) {
    let clock = || Instant::at(start.elapsed());
    let mut alarm = Alarm { timer: Timer::never(), armed: None };
    loop {
        let until = loop {
            match engine.poll(clock()) {
                Output::Do(action) => table.perform(action),
                Output::Wait(until) => break until,
                Output::Done => return table.finish(&mut alarm).await,
            }
        };
        let until = until.map(|until| start + until.elapsed());
        let until = [until, table.connections.deadline()].into_iter().flatten().min();
        match alarm.receive_until(&table.inbox, until).await {
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
            Message::Readable(pipe) => return self.pipes.take(pipe),
            Message::Fetch(fetch, got) => return self.fetches.got(fetch, got),
            Message::Stdin(read) => return self.pipes.took_stdin(read),
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
    async fn finish(&mut self, alarm: &mut Alarm) {
        let until = Clock::now() + LAST_WRITES;
        self.connections.stop();
        while self.connections.are_writing() && Clock::now() < until {
            if let Some(message) = alarm.receive_until(&self.inbox, Some(until)).await {
                self.event(message);
            }
        }
    }
}
