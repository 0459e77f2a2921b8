//! The real program: what is left of it, and of everything it started, after it was told to end or was killed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mcp_proxy_tests::rig::client::{Answer, Client};
use mcp_proxy_tests::rig::http::{self, Pool};
use mcp_proxy_tests::rig::process::{Watch, peak_memory};
use mcp_proxy_tests::rig::{Incoming, Proxy, Request};
use rustix::process::Signal;

/// The program, built if it is not there: a test has no other way to depend on a program of another package.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_fake-server")).with_file_name("mcp-proxy");
        // Always, so that it is never an old one; there is nothing to do if it is fresh.
        let target = program.ancestors().nth(2).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--offline", "-p", "mcp-proxy", "--target-dir"]).arg(target);
        if !program.parent().unwrap().ends_with("debug") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success() && program.exists(), "the program cannot be built");
        program
    })
}

/// The program while it runs.
struct Running {
    child: Child,
    start: Instant,
    addr: std::net::SocketAddr,
    pool: Pool,
}

impl Running {
    fn start(runtime: &str, flags: &[&str], server: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["--runtime", runtime, "--port", "0"]).args(flags).args(["--", env!("CARGO_BIN_EXE_fake-server")]);
        command.args(server).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let url = lines.find_map(|line| line.split_once("http://").map(|(_, rest)| rest.to_owned()));
        let url = url.expect("it says where it listens");
        let addr = url.split('/').next().unwrap().parse().unwrap();
        // A log that nobody reads would hold it up.
        thread::spawn(move || lines.for_each(drop));
        Running { child, start: Instant::now(), addr, pool: Pool::default() }
    }

    fn watch(&self) -> Watch {
        Watch::new(self.child.id())
    }
}

impl Proxy for Running {
    fn send(&self, request: &Request) -> Box<dyn Incoming> {
        Box::new(http::send(self.addr, &self.pool, request))
    }

    fn stop(&self) {
        self.watch().kill(Signal::TERM);
    }

    fn ended(&self, limit: Duration) {
        self.watch().must_end_within(limit);
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn addr(&self) -> Option<std::net::SocketAddr> {
        Some(self.addr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not at once with SIGKILL: a server that does not read would stay, for it does not see that its proxy is gone.
        if let Ok(None) = self.child.try_wait() {
            let watch = self.watch();
            watch.kill(Signal::TERM);
            let _ = watch.ends_within(Duration::from_secs(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(client: &Client<'_>, tool: &str) -> Watch {
    Watch::new(client.result(tool, "{}")["pid"].as_u64().unwrap().try_into().unwrap())
}

const RUNTIMES: [&str; 2] = ["smol", "blocking"];

/// SIGTERM with calls in flight, a grandchild, and servers of the worst kind.
#[test]
fn a_sigterm_leaves_nothing_behind() {
    for runtime in RUNTIMES {
        for server in [&[][..], &["--ignore-term"]] {
            let mut proxy = Running::start(runtime, &["--session-mode", "per-session"], server);
            let watch = proxy.watch();
            let clients = [(); 2].map(|()| Client::plain(&proxy));
            let tree: Vec<_> = clients.iter().flat_map(|c| [pid(c, "pid"), pid(c, "spawn_grandchild")]).collect();
            let calls: Vec<Answer> = clients.iter().map(|client| client.call("1", "never", "{}")).collect();
            for client in &clients {
                let _ = client.state_when(|state| state["waiting"] == 1);
            }
            let begin = Instant::now();
            watch.kill(Signal::TERM);
            for call in calls {
                assert_eq!(call.only()["error"]["code"], -32603);
            }
            watch.must_end_within(Duration::from_secs(5));
            for process in tree {
                process.must_end_within(Duration::from_secs(5).saturating_sub(begin.elapsed()));
            }
            drop(clients);
            assert_eq!(proxy.child.wait().unwrap().code(), Some(0), "{runtime} {server:?}");
        }
    }
}

/// Whoever kills the proxy itself with SIGKILL: its servers see the end of their stdin.
#[test]
fn servers_end_when_the_proxy_is_killed() {
    for runtime in RUNTIMES {
        let proxy = Running::start(runtime, &["--session-mode", "per-session"], &[]);
        let clients = [(); 2].map(|()| Client::plain(&proxy));
        let servers = clients.each_ref().map(|client| pid(client, "pid"));
        let watch = proxy.watch();
        watch.kill(Signal::KILL);
        watch.must_end_within(Duration::from_secs(5));
        for server in servers {
            server.must_end_within(Duration::from_secs(5));
        }
    }
}

/// Everything that could fill the memory of the proxy at once, and its peak.
#[test]
fn memory_stays_within_the_limits() {
    for runtime in RUNTIMES {
        let proxy = Running::start(runtime, &["--session-mode", "per-session"], &[]);
        let [a, b, c, other] = [(); 4].map(|()| Client::plain(&proxy));
        let before = peak_memory(proxy.child.id());
        let flood = a.call("1", "stderr_flood", r#"{"mb":100}"#);
        let endless = b.call("1", "big", r#"{"bytes":300000000}"#);
        assert_eq!(c.result("stop_reading", "{}"), serde_json::json!({}));
        let megabyte = "x".repeat(1 << 20);
        for _ in 0..40 {
            c.notify("notifications/long", &format!(r#"{{"x":"{megabyte}"}}"#));
        }
        for n in 0..20 {
            assert_eq!(other.result("echo", &format!(r#"{{"n":{n}}}"#))["n"], n);
        }
        assert_eq!(endless.only()["error"]["code"], -32603);
        assert_eq!(flood.only()["id"], 1);
        let peak = peak_memory(proxy.child.id());
        // A message of up to 64 MiB may be gathered, in a buffer that doubles; 8 MiB may wait for a server; the rest is
        // small.
        assert!(peak - before < 128 << 20, "{runtime}: {} MiB", (peak - before) >> 20);
        // A client that does not read what it asked for: its own server waits, and the proxy holds no more for it.
        let slow = [(); 30].map(|()| a.call("1", "big", r#"{"bytes":10000000}"#));
        for n in 0..20 {
            assert_eq!(other.result("echo", &format!(r#"{{"n":{n}}}"#))["n"], n);
        }
        // When it is gone, what it left behind is in nobody's way.
        drop(slow);
        assert_eq!(a.result("echo", "{}"), serde_json::json!({}));
        let peak = peak_memory(proxy.child.id());
        println!("{runtime}: {} MiB after {:?}", (peak - before) >> 20, proxy.now());
        assert!(peak - before < 160 << 20, "{runtime}: {} MiB", (peak - before) >> 20);
    }
}

/// A client that asks a shared server for much and reads nothing: it loses what it does not take, nobody else notices, and
/// what waits for it has a bound.
#[test]
fn a_client_that_does_not_read_holds_little() {
    for runtime in RUNTIMES {
        for accept in ["text/event-stream, application/json", "application/json, text/event-stream"] {
            let proxy = Running::start(runtime, &[], &[]);
            let [lazy, other] = [(); 2].map(|()| Client::plain(&proxy));
            assert_eq!(lazy.result("pid", "{}"), other.result("pid", "{}"), "they share a server");
            let before = peak_memory(proxy.child.id());
            let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"big","arguments":{"bytes":10000000}}}"#;
            let unread = [(); 20].map(|()| lazy.send("POST", &[("accept", accept)], body.into()));
            let _ = other.state_when(|state| state["calls"].as_u64().unwrap() >= 20);
            assert_eq!(other.result("echo", "{}"), serde_json::json!({}));
            let peak = peak_memory(proxy.child.id());
            println!("{runtime} {accept}: {} MiB after {:?}", (peak - before) >> 20, proxy.now());
            drop(unread);
            assert_eq!(lazy.result("echo", "{}"), serde_json::json!({}));
            assert!(peak - before < 128 << 20, "{runtime} {accept}: {} MiB", (peak - before) >> 20);
        }
    }
}
