//! Every scenario over both drivers; then what only real processes and sockets can show.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and say why")]

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mcp_proxy_engine::SessionMode;
use mcp_proxy_tests::rig::client::{Client, NEWEST};
use mcp_proxy_tests::rig::http::{Response, connect};
use mcp_proxy_tests::rig::process::Watch;
use mcp_proxy_tests::rig::sim::Simulated;
use mcp_proxy_tests::rig::{Driver, Incoming, Proxy, Real, Rig};
use mcp_proxy_tests::scenario;
use serde_json::json;

fn real(driver: Driver) -> Real {
    Real { driver, program: env!("CARGO_BIN_EXE_fake-server").into() }
}

/// Each scenario becomes a test of each module.
macro_rules! scenarios {
    ($($name:ident)*) => {
        mod blocking {
            $(#[test] fn $name() { super::scenario::$name(&super::real(super::Driver::Blocking)); })*
        }
        mod smol {
            $(#[test] fn $name() { super::scenario::$name(&super::real(super::Driver::Smol)); })*
        }
        mod simulated {
            $(#[test] fn $name() { super::with_every_seed(super::scenario::$name); })*
        }
    };
}

scenarios! {
    initialize_list_call
    progress_precedes_the_answer
    events_arrive_when_they_are_written
    questions_on_the_stream_of_the_call
    questions_on_the_standalone_stream
    questions_do_not_cross
    equal_ids
    nothing_reaches_a_stranger
    cancellation
    delete
    resumption
    batches
    ten_megabytes
    bytes_survive
    crash
    crash_loop
    no_handshake
    noise
    an_endless_line
    a_server_that_does_not_read
    refusals
    session_modes
    shutdown_answers_everybody
    a_stubborn_server
}

/// What needs real processes and sockets.
macro_rules! on_both_drivers {
    ($($name:ident)*) => {
        mod blocking_for_real {
            $(#[test] fn $name() { super::$name(&super::real(super::Driver::Blocking)); })*
        }
        mod smol_for_real {
            $(#[test] fn $name() { super::$name(&super::real(super::Driver::Smol)); })*
        }
    };
}

on_both_drivers! {
    a_body_over_the_limit_is_refused_while_it_comes
    a_client_that_vanishes_while_it_sends
    the_whole_tree_ends
    the_stubborn_are_killed
    processes_end_with_what_they_are_for
    one_start_for_each_crash
}

fn with_every_seed(scenario: fn(&dyn Rig)) {
    let start = Instant::now();
    for seed in 0..SEEDS {
        // Whoever reads the output of a failing test wants to know.
        println!("seed {seed}");
        scenario(&Simulated { seed });
        // What moves 100 MB takes seconds there as well; everything else is through in no time.
        if start.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
}

const SEEDS: u64 = 300;

fn pid(client: &Client<'_>, tool: &str) -> Watch {
    Watch::new(client.result(tool, "{}")["pid"].as_u64().unwrap().try_into().unwrap())
}

fn finish(proxy: &dyn Proxy) {
    proxy.stop();
    proxy.ended(Duration::from_secs(5));
}

const HEAD: &str = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
    accept: application/json, text/event-stream\r\n";

/// The answer comes before the body does: whoever waits for the end of it first holds what it should not.
fn a_body_over_the_limit_is_refused_while_it_comes(rig: &dyn Rig) {
    let proxy = rig.start(&[], &|config| config.limits.max_body = 100_000);
    let client = Client::plain(&*proxy);
    // An announced length alone is enough.
    let mut conn = connect(proxy.addr().unwrap());
    write!(conn.get_mut(), "{HEAD}content-length: 100001\r\n\r\n").unwrap();
    assert_eq!(Response::on(conn).head().status, 413);
    // Without a length it shows when the limit is passed.
    let mut conn = connect(proxy.addr().unwrap());
    write!(conn.get_mut(), "{HEAD}transfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = [&b"8000\r\n"[..], &[b' '; 0x8000], b"\r\n"].concat();
    for _ in 0..4 {
        conn.get_mut().write_all(&chunk).unwrap();
    }
    assert_eq!(Response::on(conn).head().status, 413);
    // Just below it there is room.
    let text = "x".repeat(99_000);
    assert_eq!(client.result("echo", &json!({"t": text}).to_string())["t"], text);
    finish(&*proxy);
}

/// Half a request is no request.
fn a_client_that_vanishes_while_it_sends(rig: &dyn Rig) {
    let proxy = rig.start(&[], &|_| {});
    let client = Client::plain(&*proxy);
    for how in [Shutdown::Write, Shutdown::Both] {
        let mut conn = connect(proxy.addr().unwrap());
        write!(conn.get_mut(), "{HEAD}content-length: 1000\r\n\r\n{{\"jsonrpc\"").unwrap();
        conn.get_mut().shutdown(how).unwrap();
        assert_eq!(client.result("echo", "{}"), json!({}));
    }
    let mut conn = connect(proxy.addr().unwrap());
    conn.get_mut().write_all(b"POST /mcp HT").unwrap();
    drop(conn);
    assert_eq!(client.result("echo", "{}"), json!({}));
    finish(&*proxy);
}

/// With the default timeouts, calls in flight, and a grandchild that holds the pipes of its parent.
fn the_whole_tree_ends(rig: &dyn Rig) {
    let proxy = rig.start(&[], &|config| config.servers[0].sessions = SessionMode::PerSession);
    let clients = [(); 3].map(|()| Client::plain(&*proxy));
    let tree: Vec<_> = clients.iter().flat_map(|c| [pid(c, "pid"), pid(c, "spawn_grandchild")]).collect();
    let calls: Vec<_> = clients.iter().map(|client| client.call("1", "never", "{}")).collect();
    for client in &clients {
        let _ = client.state_when(|state| state["waiting"] == 1);
    }
    // One server does not read any more, so it does not see the end of its stdin either.
    assert_eq!(clients[2].result("stop_reading", "{}"), json!({}));
    proxy.stop();
    for call in calls {
        assert_eq!(call.only()["id"], 1);
    }
    proxy.ended(Duration::from_secs(5));
    for process in tree {
        process.must_end_within(Duration::from_secs(1));
    }
}

/// A server, and a child of it, that neither the end of stdin nor SIGTERM ends; while the proxy goes on, and when it stops.
fn the_stubborn_are_killed(rig: &dyn Rig) {
    let proxy = rig.start(&["--ignore-term"], &|config| {
        config.servers[0].sessions = SessionMode::PerSession;
        config.timeouts.stop_stdin = Duration::from_millis(100);
        config.timeouts.stop_term = Duration::from_millis(100);
    });
    let [client, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let tree = [pid(&client, "pid"), pid(&client, "spawn_grandchild")];
    let theirs = [pid(&other, "pid"), pid(&other, "spawn_grandchild")];
    let mut deleted = client.send("DELETE", &[], Vec::new());
    assert_eq!((deleted.head().status, deleted.body()), (200, Vec::new()));
    for process in tree {
        process.must_end_within(Duration::from_secs(5));
    }
    assert_eq!(other.result("echo", "{}"), json!({}));
    finish(&*proxy);
    for process in theirs {
        process.must_end_within(Duration::from_secs(1));
    }
}

/// A process of a session ends with the session, one of a request with the request; what it left behind ends with it.
fn processes_end_with_what_they_are_for(rig: &dyn Rig) {
    let limit = Duration::from_secs(5);
    let proxy = rig.start(&[], &|config| config.servers[0].sessions = SessionMode::PerSession);
    let [client, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let tree = [pid(&client, "pid"), pid(&client, "spawn_grandchild")];
    let theirs = pid(&other, "pid");
    let mut deleted = client.send("DELETE", &[], Vec::new());
    assert_eq!((deleted.head().status, deleted.body()), (200, Vec::new()));
    for process in tree {
        process.must_end_within(limit);
    }
    // A crash takes its group along.
    let grandchild = pid(&other, "spawn_grandchild");
    assert_eq!(other.call("1", "crash", "{}").only()["error"]["code"], -32603);
    grandchild.must_end_within(limit);
    theirs.must_end_within(limit);
    let again = pid(&other, "pid");
    finish(&*proxy);
    again.must_end_within(Duration::from_secs(1));

    let proxy = rig.start(&[], &|config| config.servers[0].sessions = SessionMode::PerRequest);
    let client = Client::stateless(&*proxy);
    let mut call = client.call_with_token("1", "lockstep", r#"{"n":1}"#, "1");
    assert_eq!(call.next_message()["params"]["progress"], 1);
    // Its client goes away; the next one is served by another process.
    drop(call);
    let grandchild = client.call("1", "spawn_grandchild", "{}").only();
    let number = grandchild["result"]["structuredContent"]["pid"].as_u64().unwrap().to_string();
    // It is gone already, or about to be.
    if std::path::Path::new(&format!("/proc/{number}")).exists()
        && let Ok(watch) = std::panic::catch_unwind(|| Watch::new(number.parse().unwrap()))
    {
        watch.must_end_within(limit);
    }
    finish(&*proxy);
}

/// A crashed server is started once for each time that it is needed.
fn one_start_for_each_crash(rig: &dyn Rig) {
    let path =
        std::env::temp_dir().join(format!("mcp-proxy-starts-{}-{:?}", std::process::id(), std::thread::current().id()));
    let proxy = rig.start(&["--count-file", path.to_str().unwrap()], &|_| {});
    let client = Client::open(&*proxy, NEWEST, &json!({}));
    for _ in 0..3 {
        assert_eq!(client.call("1", "crash", "{}").only()["error"]["code"], -32603);
        assert_eq!(client.result("echo", "{}"), json!({}));
    }
    finish(&*proxy);
    let starts = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(starts.lines().count(), 4);
}
