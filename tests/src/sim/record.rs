//! A run as a list: every event with its time, every action as text. What a failure prints can be pasted into a test.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use mcp_proxy_engine::{
    Action, Body, ChildId, Config, Engine, Event, ExchangeId, Exit, FetchError, FetchId, Headers, HttpRequest,
    HttpResponse, Instant, Output, Pipe,
};

/// An event that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    /// [`Event::Data`]
    Data(Pipe, Vec<u8>),
    /// [`Event::Wrote`]
    Wrote(Pipe),
    /// [`Event::Closed`]
    Closed(Pipe, Option<ErrorKind>),
    /// [`Event::Request`]
    Request(ExchangeId, HttpRequest),
    /// [`Event::Spawned`]
    Spawned(ChildId),
    /// [`Event::SpawnFailed`]
    SpawnFailed(ChildId, ErrorKind),
    /// [`Event::Exited`]
    Exited(ChildId, Exit),
    /// [`Event::Fetched`]
    Fetched(FetchId, HttpResponse),
    /// [`Event::FetchFailed`]
    FetchFailed(FetchId, FetchError),
    /// [`Event::Shutdown`]
    Shutdown,
    /// Nothing happened but that time went by.
    Time,
}

impl Owned {
    fn give(&self, engine: &mut Engine, now: Instant) {
        let event = match self {
            Owned::Data(pipe, bytes) => Event::Data(*pipe, bytes),
            Owned::Wrote(pipe) => Event::Wrote(*pipe),
            Owned::Closed(pipe, kind) => Event::Closed(*pipe, *kind),
            Owned::Request(id, request) => Event::Request(*id, request.clone()),
            Owned::Spawned(child) => Event::Spawned(*child),
            Owned::SpawnFailed(child, kind) => Event::SpawnFailed(*child, *kind),
            Owned::Exited(child, exit) => Event::Exited(*child, *exit),
            Owned::Fetched(id, response) => Event::Fetched(*id, response.clone()),
            Owned::FetchFailed(id, error) => Event::FetchFailed(*id, error.clone()),
            Owned::Shutdown => Event::Shutdown,
            Owned::Time => return,
        };
        engine.handle(now, event);
    }
}

impl fmt::Display for Owned {
    /// As an argument of [`Replay::at`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owned::Data(pipe, bytes) => {
                write!(f, "Owned::Data(Pipe::{pipe:?}, b\"{}\".to_vec())", bytes.escape_ascii())
            }
            Owned::Closed(pipe, None) => write!(f, "Owned::Closed(Pipe::{pipe:?}, None)"),
            Owned::Closed(pipe, Some(kind)) => write!(f, "Owned::Closed(Pipe::{pipe:?}, Some(ErrorKind::{kind:?}))"),
            Owned::Wrote(pipe) => write!(f, "Owned::Wrote(Pipe::{pipe:?})"),
            Owned::SpawnFailed(child, kind) => write!(f, "Owned::SpawnFailed({child:?}, ErrorKind::{kind:?})"),
            Owned::Exited(child, exit) => write!(f, "Owned::Exited({child:?}, Exit::{exit:?})"),
            Owned::Request(id, r) => {
                let headers: Vec<_> = r.headers.iter().collect();
                write!(
                    f,
                    "http({}, {:?}, {:?}, &{headers:?}, b\"{}\", {:?})",
                    id.0,
                    r.method,
                    r.target,
                    r.body.escape_ascii(),
                    r.random
                )
            }
            other => write!(f, "Owned::{other:?}"),
        }
    }
}

/// A request event, in one line.
#[must_use]
pub fn http(id: u64, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8], random: [u8; 16]) -> Owned {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push((*name).to_owned(), (*value).to_owned());
    }
    let request = HttpRequest { method: method.into(), target: target.into(), headers, body: body.to_vec(), random };
    Owned::Request(ExchangeId(id), request)
}

/// An action as text, bodies included.
#[must_use]
pub fn show(action: &Action) -> String {
    match action {
        Action::Write(pipe, bytes) => format!("Write({pipe:?}, \"{}\")", bytes.escape_ascii()),
        Action::Respond(id, response) => match &response.body {
            Body::Full(bytes) => format!("Respond({id:?}, {response:?}, \"{}\")", bytes.escape_ascii()),
            Body::Stream => format!("Respond({id:?}, {response:?})"),
        },
        other => format!("{other:?}"),
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Every event and every moment at which the engine was polled.
    pub events: Vec<(Instant, Owned)>,
    /// Every action, with the number of events before it.
    pub actions: Vec<(usize, String)>,
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut actions = self.actions.iter().peekable();
        for n in 0..=self.events.len() {
            while let Some((_, action)) = actions.next_if(|(at, _)| *at <= n) {
                writeln!(f, "    // -> {action}")?;
            }
            if let Some((now, event)) = self.events.get(n) {
                writeln!(f, "    r.at({}, {event});", now.elapsed().as_millis())?;
            }
        }
        Ok(())
    }
}

/// A bare engine to which recorded events are given, without any check.
pub struct Replay {
    engine: Engine,
    /// What came of it.
    pub recording: Recording,
}

impl Replay {
    /// A fresh engine.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let engine = Engine::new(config, Instant::ZERO).unwrap();
        let mut replay = Replay { engine, recording: Recording::default() };
        replay.poll(Instant::ZERO);
        replay
    }

    /// One event, `millis` after the start. Returns the actions that follow, as text.
    pub fn at(&mut self, millis: u64, event: Owned) -> Vec<String> {
        let now = Instant::at(Duration::from_millis(millis));
        let before = self.recording.actions.len();
        event.give(&mut self.engine, now);
        self.recording.events.push((now, event));
        self.poll(now);
        self.recording.actions[before..].iter().map(|(_, action)| action.clone()).collect()
    }

    fn poll(&mut self, now: Instant) {
        while let Output::Do(action) = self.engine.poll(now) {
            self.recording.actions.push((self.recording.events.len(), show(&action)));
        }
    }
}

/// Gives an event to an engine.
pub(super) fn give(engine: &mut Engine, now: Instant, event: &Owned) {
    event.give(engine, now);
}
