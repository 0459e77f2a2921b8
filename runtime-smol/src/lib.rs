//! The async driver of [`mcp_proxy_engine`]: smol, one thread.
//!
//! Everything runs on the thread that polls [`Proxy::run`]: one loop owns the engine, and local tasks, one for each
//! connection, for each request of ours and for each read that the engine permits, send it messages. Other threads are only
//! there for what has no other way than to block: names, and our own standard input and output. The crate
//! `mcp-proxy-runtime-blocking` has the same files with the same names in the same order, made of threads.
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
mod fetch;
mod http;
mod pipes;
mod run;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::{fmt, io, time};

use mcp_proxy_engine::{Config, ConfigError, Engine, FrontKind, Instant, Secret, Verify};

/// A proxy that is ready to run.
pub struct Proxy {
    engine: Engine,
    config: Config,
    listener: Option<TcpListener>,
    addr: Option<SocketAddr>,
    tls: TlsConfigs,
    start: time::Instant,
    stops: async_channel::Receiver<()>,
}

/// What was read from the files of the configuration.
struct TlsConfigs {
    client: Option<Arc<rustls::ClientConfig>>,
    server: Option<Arc<rustls::ServerConfig>>,
}

impl TlsConfigs {
    fn new(config: &Config) -> Result<Self, String> {
        // The roots of the system are only read when they are needed; a file that is named must be there.
        let client = match &config.outbound.verify {
            verify @ Verify::Bundle(_) => Some(tls::client(verify)?),
            Verify::Native | Verify::Nothing => None,
        };
        Ok(TlsConfigs { client, server: config.http.tls.as_ref().map(tls::server).transpose()? })
    }
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
    /// A certificate or a key cannot be used.
    Tls(String),
    /// The system has no random bytes.
    Random(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Io(error) => write!(f, "the listener cannot be used: {error}"),
            StartError::Tls(text) => f.write_str(text),
            StartError::Random(text) => write!(f, "the system has no random bytes: {text}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Proxy {
    /// A proxy that will serve on this listener. [`FrontKind::Stdio`] needs none. Nothing is started yet.
    ///
    /// # Errors
    ///
    /// The configuration is wrong, the listener is missing or not usable, or a certificate or a key is not.
    pub fn new(mut config: Config, listener: impl Into<Option<TcpListener>>) -> Result<(Proxy, Stopper), StartError> {
        config.started = time::SystemTime::now().duration_since(time::UNIX_EPOCH).ok();
        if config.state_key.is_none() {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|error| StartError::Random(error.to_string()))?;
            config.state_key = Some(Secret::new(key));
        }
        let engine = Engine::new(config.clone(), Instant::ZERO).map_err(StartError::Config)?;
        let listener = listener.into();
        if listener.is_none() && config.front == FrontKind::Http {
            return Err(StartError::Io(io::Error::new(io::ErrorKind::InvalidInput, "there is none")));
        }
        let addr = listener.as_ref().map(TcpListener::local_addr).transpose().map_err(StartError::Io)?;
        let tls = TlsConfigs::new(&config).map_err(StartError::Tls)?;
        let (sender, stops) = async_channel::unbounded();
        let proxy = Proxy { engine, config, listener, addr, tls, start: time::Instant::now(), stops };
        Ok((proxy, Stopper(sender)))
    }

    /// The address it serves on, if there is a listener.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
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
