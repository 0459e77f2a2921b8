//! What scenarios run on: something that serves MCP over HTTP in front of the fake server.
//!
//! A rig starts proxies; a proxy takes requests and can be stopped; a response comes in piece by piece. The simulator fits
//! behind the same three traits, since nothing here needs a thread, a clock or an address.

#![allow(clippy::unwrap_used, reason = "a test harness may panic")]

pub mod client;
pub mod http;
pub mod process;
pub mod sim;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use mcp_proxy_engine::{Command, Config, Server};

use http::Pool;

/// How long anything may take that should happen at once.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An HTTP request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The request target.
    pub target: String,
    /// The header fields, without `content-length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The header fields; names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first field of this (lower-case) name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }
}

/// A response that comes in. Dropping it before its end means that the client vanishes.
pub trait Incoming {
    /// The head; waits for it.
    fn head(&mut self) -> Head;
    /// The next bytes of the body; waits for them. Empty at the end.
    fn read(&mut self) -> Vec<u8>;
}

/// A proxy that runs. Dropping it stops it the hard way.
pub trait Proxy {
    /// Sends a request, and does not wait for its answer.
    fn send(&self, request: &Request) -> Box<dyn Incoming>;
    /// Asks it to stop: once is a request, twice a demand.
    fn stop(&self);
    /// Waits until it has stopped, and fails if that takes longer.
    fn ended(&self, limit: Duration);
    /// The time since it was started; virtual in a simulator.
    fn now(&self) -> Duration;
    /// Where it listens, if it does so on a real socket.
    fn addr(&self) -> Option<SocketAddr>;
}

/// Starts proxies.
pub trait Rig {
    /// Starts a proxy in front of the fake server, which gets these arguments. `change` adapts the configuration.
    fn start(&self, args: &[&str], change: &dyn Fn(&mut Config)) -> Box<dyn Proxy>;
}

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Threads.
    Blocking,
    /// Tasks.
    Smol,
}

/// A real driver in this process, on a real socket, with the real program as its server.
#[derive(Clone, Debug)]
pub struct Real {
    /// Which one.
    pub driver: Driver,
    /// Where `fake-server` is.
    pub program: PathBuf,
}

impl Rig for Real {
    fn start(&self, args: &[&str], change: &dyn Fn(&mut Config)) -> Box<dyn Proxy> {
        let command = Command {
            program: self.program.clone().into(),
            args: args.iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
        };
        let mut config = Config::new(Server::new("default", command));
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (ended, end) = mpsc::channel();
        let (addr, stop): (_, Box<dyn Fn()>) = match self.driver {
            Driver::Blocking => {
                use mcp_proxy_runtime_blocking::Proxy;
                let (proxy, stopper) = Proxy::new(config, listener).unwrap();
                let addr = proxy.addr().unwrap();
                thread::spawn(move || ended.send(proxy.run()));
                (addr, Box::new(move || stopper.stop()))
            }
            Driver::Smol => {
                use mcp_proxy_runtime_smol::Proxy;
                let (proxy, stopper) = Proxy::new(config, listener).unwrap();
                let addr = proxy.addr().unwrap();
                thread::spawn(move || ended.send(smol::block_on(proxy.run())));
                (addr, Box::new(move || stopper.stop()))
            }
        };
        Box::new(Running { start: Instant::now(), addr, stop, end, pool: Pool::default() })
    }
}

struct Running {
    start: Instant,
    addr: SocketAddr,
    stop: Box<dyn Fn()>,
    end: mpsc::Receiver<std::io::Result<()>>,
    pool: Pool,
}

impl Proxy for Running {
    fn send(&self, request: &Request) -> Box<dyn Incoming> {
        Box::new(http::send(self.addr, &self.pool, request))
    }

    fn stop(&self) {
        (self.stop)();
    }

    fn ended(&self, limit: Duration) {
        match self.end.recv_timeout(limit) {
            Ok(result) => result.expect("the driver says that all is well"),
            Err(RecvTimeoutError::Timeout) => panic!("the proxy still runs after {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the driver panicked, or ended twice"),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn addr(&self) -> Option<SocketAddr> {
        Some(self.addr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        self.stop();
        // After `ended` this is an error at once. A test that fails must not wait for long.
        let _ = self.end.recv_timeout(Duration::from_secs(5));
    }
}
