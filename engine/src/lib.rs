//! The pure state machine of `mcp-proxy`: it joins clients and servers of the Model Context Protocol without a clock,
//! socket, process, thread, file, environment or source of randomness of its own.
//!
//! Everything a driver can do to an [`Engine`] is two calls, [`Engine::handle`] and [`Engine::poll`]; everything the engine
//! can want is one enum, [`Action`]. This is the whole life of a driver, here with a child process that answers at once:
//!
//! ```
//! use mcp_proxy_engine::*;
//! use std::time::Duration;
//!
//! let command = Command { program: "server".into(), args: vec![], env: vec![], cwd: None };
//! let mut engine = Engine::new(Config::new(Server::new("default", command)), Instant::ZERO)?;
//! let mut now = Instant::ZERO;
//! let mut events: Vec<Box<dyn Fn(&mut Engine, Instant)>> = Vec::new();
//! let mut answer = None;
//!
//! // A client posts `initialize`.
//! let mut headers = Headers::new();
//! for (name, value) in [("host", "localhost"), ("content-type", "application/json"), ("accept", "*/*")] {
//!     headers.push(name, value);
//! }
//! let body = br#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{"capabilities":{}}}"#.to_vec();
//! let request = HttpRequest { method: "POST".into(), target: "/mcp".into(), headers, body, random: [7; 16] };
//! engine.handle(now, Event::Request(ExchangeId(1), request));
//!
//! loop {
//!     let until = loop {
//!         match engine.poll(now) {
//!             Output::Do(action) => match action {
//!                 Action::Spawn(child, _) => events.push(Box::new(move |e, now| e.handle(now, Event::Spawned(child)))),
//!                 Action::Write(pipe @ Pipe::ChildStdin(child), line) => {
//!                     // The engine's own number is on the wire, not the client's id.
//!                     let line = String::from_utf8(line)?;
//!                     let number = line.split(r#""id":"#).nth(1).unwrap().split(',').next().unwrap();
//!                     let result = r#"{"protocolVersion":"2025-11-25"}"#;
//!                     let says = format!("{{\"jsonrpc\":\"2.0\",\"id\":{number},\"result\":{result}}}\n");
//!                     events.push(Box::new(move |e, now| e.handle(now, Event::Wrote(pipe))));
//!                     events.push(Box::new(move |e, now| {
//!                         e.handle(now, Event::Data(Pipe::ChildStdout(child), says.as_bytes()));
//!                     }));
//!                 }
//!                 Action::Respond(exchange, response) => answer = Some((exchange, response)),
//!                 _ => {}
//!             },
//!             Output::Wait(until) => break until,
//!             Output::Done => break None,
//!         }
//!     };
//!     if answer.is_some() {
//!         break;
//!     }
//!     match events.pop() {
//!         Some(event) => event(&mut engine, now),
//!         None => now = until.unwrap_or(now + Duration::from_secs(1)),
//!     }
//! }
//! let (exchange, response) = answer.unwrap();
//! assert_eq!((exchange, response.status), (ExchangeId(1), 200));
//! let body = br#"{"jsonrpc":"2.0","id":"a","result":{"protocolVersion":"2025-11-25"}}"#;
//! assert_eq!(response.body, Body::Full(body.to_vec()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The seven rules of a driver
//!
//! 1. One loop owns the engine; threads and tasks only send it messages.
//! 2. After every `handle`, call `poll` until [`Output::Wait`] or [`Output::Done`]; only then block, and only until the
//!    instant in `Wait`.
//! 3. `Read(p)` permits one read of at most [`MAX_READ`] bytes, then exactly one `Data(p, ..)` or `Closed(p, ..)`. Nobody
//!    reads without it.
//! 4. `Write(p, b)`: write all of it and flush, then exactly one `Wrote(p)` or `Closed(p, ..)`.
//! 5. `Close(p)`: drop our end. Nothing more counts for `p`, but that an exchange and a fetch still end by rule 6.
//! 6. Everything that was named ends with one terminal event, and its name is never used again. A child: `SpawnFailed`, or
//!    `Exited` once its process is reaped and its group killed; its outputs may still be read to their own `Closed`. An
//!    exchange: `Closed(Response)`, whether it was answered or its client left. A fetch: `FetchFailed`, or `Closed(Fetched)`.
//! 7. `now` never goes back.
//!
//! An action may name something whose terminal event is on its way; a driver ignores it then.

mod back;
mod config;
mod core;
mod engine;
mod era;
mod front;
mod io;
mod router;
pub mod wire;

pub use config::{
    Access, Config, ConfigError, Credentials, FrontKind, Http, Limits, Origin, Outbound, Remote, RemoteTransport,
    Server, SessionMode, Timeouts, Tls, UrlEnv, Verify,
};
pub use engine::{Engine, Stats};
pub use io::{
    Action, Body, ChildId, Command, Event, ExchangeId, Exit, FetchError, FetchErrorKind, FetchId, FetchRequest,
    Headers, HttpRequest, HttpResponse, Instant, MAX_READ, Output, Pipe, Secret, Signal,
};
