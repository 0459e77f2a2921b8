//! The driver of [`mcp_proxy_engine`] for programs without an async runtime: plain threads.
//!
//! One loop, on the thread that calls [`Proxy::run`], owns the engine. Threads with small stacks send it messages: one for
//! each connection, three for each child process, one that accepts and one that finishes the writes that would block. The
//! crate `mcp-proxy-runtime-smol` has the same files with the same names in the same order, made of tasks.
//!
//! ```no_run
//! # use mcp_proxy_engine::{Command, Config, Server};
//! # use mcp_proxy_runtime_blocking::Proxy;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let command = Command { program: "my-server".into(), args: vec![], env: vec![], cwd: None };
//! let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
//! let (proxy, stopper) = Proxy::new(Config::new(Server::new("default", command)), listener)?;
//! // From any thread, at any time: `stopper.stop()`.
//! proxy.run()?;
//! # Ok(())
//! # }
//! ```

mod child;
mod http;
mod pipes;
mod run;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::{fmt, io, time};

use mcp_proxy_engine::{Config, ConfigError, Engine, Instant};

use crate::run::{Inbox, Message};

/// A proxy that is ready to run.
pub struct Proxy {
    engine: Engine,
    config: Config,
    listener: TcpListener,
    addr: SocketAddr,
    start: time::Instant,
    sender: Inbox,
    receiver: mpsc::Receiver<Message>,
}

/// Stops a proxy, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Inbox);

impl Stopper {
    /// The first call asks the proxy to finish: calls in flight may still end. The second makes it end at once. After the
    /// end, and before the start, a call does no harm; one before the start counts.
    pub fn stop(&self) {
        self.0.send(Message::Shutdown);
    }
}

/// Why a proxy could not be made.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Config(ConfigError),
    /// The listener cannot be used.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Io(error) => write!(f, "the listener cannot be used: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Proxy {
    /// A proxy that will serve on this listener. Nothing is started yet.
    ///
    /// # Errors
    ///
    /// The configuration is wrong, or the listener is not usable.
    pub fn new(config: Config, listener: TcpListener) -> Result<(Proxy, Stopper), StartError> {
        let engine = Engine::new(config.clone(), Instant::ZERO).map_err(StartError::Config)?;
        let addr = listener.local_addr().map_err(StartError::Io)?;
        let (sender, receiver) = mpsc::channel();
        let sender = Inbox(sender);
        let stopper = Stopper(sender.clone());
        Ok((Proxy { engine, config, listener, addr, start: time::Instant::now(), sender, receiver }, stopper))
    }

    /// The address it serves on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until it was stopped and everything has ended. No child process and no thread of ours is left then.
    ///
    /// # Errors
    ///
    /// The first threads or the pipes that wake them cannot be made. Nothing that happens later is an error.
    pub fn run(self) -> io::Result<()> {
        run::run(self)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("addr", &self.addr).finish_non_exhaustive()
    }
}
