//! The async driver of [`mcp_proxy_engine`]: smol, one thread.
//!
//! Everything runs on the thread that polls [`Proxy::run`]: one loop owns the engine, and local tasks, one for each
//! connection and for each read that the engine permits, send it messages. The crate `mcp-proxy-runtime-blocking` has the
//! same files with the same names in the same order, made of threads.
//!
//! ```no_run
//! # use mcp_proxy_engine::{Command, Config, Server};
//! # use mcp_proxy_runtime_smol::Proxy;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let command = Command { program: "my-server".into(), args: vec![], env: vec![], cwd: None };
//! let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
//! let (proxy, stopper) = Proxy::new(Config::new(Server::new("default", command)), listener)?;
//! // From any thread, at any time: `stopper.stop()`.
//! smol::block_on(proxy.run())?;
//! # Ok(())
//! # }
//! ```

mod child;
mod http;
mod pipes;
mod run;

use std::net::{SocketAddr, TcpListener};
use std::{fmt, io, time};

use mcp_proxy_engine::{Config, ConfigError, Engine, Instant};

/// A proxy that is ready to run.
pub struct Proxy {
    engine: Engine,
    config: Config,
    listener: TcpListener,
    addr: SocketAddr,
    start: time::Instant,
    stops: async_channel::Receiver<()>,
}

/// Stops a proxy, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(async_channel::Sender<()>);

impl Stopper {
    /// The first call asks the proxy to finish: calls in flight may still end. The second makes it end at once. After the
    /// end, and before the start, a call does no harm; one before the start counts.
    pub fn stop(&self) {
        // It fails when the proxy has ended already, which is what was asked for.
        let _ = self.0.try_send(());
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
        let (sender, stops) = async_channel::unbounded();
        let proxy = Proxy { engine, config, listener, addr, start: time::Instant::now(), stops };
        Ok((proxy, Stopper(sender)))
    }

    /// The address it serves on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until it was stopped and everything has ended. No child process is left then, nor when the future is
    /// dropped before its end. The future is not `Send`: it stays on the thread that first polls it.
    ///
    /// # Errors
    ///
    /// The listener cannot be registered with the system. Nothing that happens later is an error.
    pub async fn run(self) -> io::Result<()> {
        run::run(self).await
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("addr", &self.addr).finish_non_exhaustive()
    }
}
