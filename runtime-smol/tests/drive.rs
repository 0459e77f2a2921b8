//! The driver against raw sockets: what it must answer itself, and what it must leave behind, which is nothing.

#![cfg(unix)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use mcp_proxy_engine::{Command, Config, Secret, Server};
use mcp_proxy_runtime_smol::{Proxy, Stopper};

/// A proxy for a child that never answers and writes its number into a file.
fn proxy(name: &str) -> (Proxy, Stopper, std::path::PathBuf) {
    let file = env::temp_dir().join(format!("mcp-proxy-{}-{name}", std::process::id()));
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000 & exec cat > /dev/null", file.display());
    let path = Secret::new(env::var_os("PATH").expect("a PATH"));
    let args = vec!["-c".into(), script.into()];
    let command = Command { program: "sh".into(), args, env: vec![("PATH".into(), path)], cwd: None };
    let mut config = Config::new(Server::new("default", command));
    config.http.head_timeout = Duration::from_millis(300);
    config.http.body_timeout = Duration::from_millis(400);
    config.http.idle_timeout = Duration::from_millis(500);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let (proxy, stopper) = Proxy::new(config, listener).expect("a proxy");
    (proxy, stopper, file)
}

/// The process group that the child wrote down.
fn group(file: &std::path::Path) -> rustix::process::Pid {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Ok(text) = fs::read_to_string(file) {
            let _ = fs::remove_file(file);
            return rustix::process::Pid::from_raw(text.trim().parse().expect("a number")).expect("a process");
        }
        assert!(Instant::now() < end, "the child did not start");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the group is gone; orphans are reaped by somebody else, which may take a moment.
fn assert_gone(group: rustix::process::Pid) {
    let end = Instant::now() + Duration::from_secs(2);
    while rustix::process::test_kill_process_group(group).is_ok() {
        assert!(Instant::now() < end, "a child is left");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Everything that comes until the end of the connection.
fn answer(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.write_all(request).expect("a request");
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{}: {error}", request.escape_ascii()),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn assert_hostile_requests_are_refused(addr: SocketAddr) {
    const POST: &str = "POST /mcp HTTP/1.1\r\nHost: localhost\r\n";
    let many = "a: b\r\n".repeat(20_000);
    for (request, status) in [
        (format!("{POST}Content-Length: 100000000000000\r\n\r\n"), "413"),
        (format!("{POST}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"), "400"),
        (format!("{POST}Content-Length: 2, 2\r\n\r\nab"), "400"),
        (format!("{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400"),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"), "400"),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"), "413"),
        (format!("{POST}Transfer-Encoding: gzip\r\n\r\n"), "501"),
        (format!("{POST}{many}\r\n"), "431"),
        (format!("{POST}X: {}\r\n\r\n", "x".repeat(1 << 20)), "431"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n".into(), "505"),
        ("\u{16}\u{3}\u{1}".into(), "400"),
        // Too slow: half a head, half a body.
        ("GET / HT".into(), "408"),
        (format!("{POST}Content-Length: 10\r\n\r\nabc"), "408"),
        // Nothing at all.
        (String::new(), ""),
    ] {
        let answer = answer(addr, request.as_bytes());
        let begin = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status} ") };
        let shown = request.get(..100).unwrap_or(&request);
        assert!(answer.starts_with(&begin) && answer.is_empty() == status.is_empty(), "{shown:?}: {answer}");
        assert!(status.is_empty() || answer.contains("\r\nconnection: close\r\n"), "{shown:?}: {answer}");
        assert!(status.is_empty() || answer.contains("\"jsonrpc\":\"2.0\""), "{shown:?}: {answer}");
    }
}

fn assert_connections_are_kept(addr: SocketAddr) {
    let request = "GET /no-such-path HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /no-such-path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = answer(addr, format!("{}{last}", request.repeat(9)).as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 10, "{answers}");
}

#[test]
fn serves_and_leaves_nothing_behind() {
    let (proxy, stopper, file) = proxy("smol");
    let addr = proxy.addr();
    let running = thread::spawn(move || smol::block_on(proxy.run()));
    let group = group(&file);
    assert_hostile_requests_are_refused(addr);
    assert_connections_are_kept(addr);

    let idle = TcpStream::connect(addr).expect("a connection");
    stopper.stop();
    running.join().expect("no panic").expect("no error");
    stopper.stop();
    assert_gone(group);
    drop(idle);
}

#[test]
fn a_dropped_proxy_leaves_no_child() {
    let (proxy, _stopper, file) = proxy("dropped");
    let group = smol::block_on(smol::future::or(
        async {
            proxy.run().await.expect("no error");
            panic!("it ended by itself");
        },
        smol::unblock(move || group(&file)),
    ));
    assert_gone(group);
}
