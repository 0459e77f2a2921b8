//! The driver against raw sockets: what it must answer itself, and what it must leave behind, which is nothing.

#![cfg(unix)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use mcp_proxy_engine::{Command, Config, FrontKind, Secret, Server, Tls};
use mcp_proxy_runtime_blocking::{Proxy, Stopper};

/// A proxy for a child that never answers and writes its number into a file.
fn proxy(name: &str) -> (Proxy, Stopper, std::path::PathBuf) {
    let file = env::temp_dir().join(format!("mcp-proxy-{}-{name}", process::id()));
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
    let (proxy, stopper, file) = proxy("blocking");
    let addr = proxy.addr().expect("an address");
    let running = thread::spawn(move || proxy.run());
    let group = group(&file);
    assert_hostile_requests_are_refused(addr);
    assert_connections_are_kept(addr);

    let idle = TcpStream::connect(addr).expect("a connection");
    stopper.stop();
    running.join().expect("no panic").expect("no error");
    stopper.stop();
    assert_gone(group);
    drop(idle);
    #[cfg(target_os = "linux")]
    for task in fs::read_dir("/proc/self/task").expect("our threads") {
        // A thread that has just ended may have no name any more.
        let name = fs::read_to_string(task.expect("a thread").path().join("comm")).unwrap_or_default();
        assert!(!name.starts_with("mcp-"), "the thread {name} is left");
    }
}

/// A client that trusts one certificate, which is made here and written to two files.
fn certificate(name: &str) -> (Tls, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = |what: &str| env::temp_dir().join(format!("mcp-proxy-{}-{name}-{what}.pem", process::id()));
    let tls = Tls { cert: file("cert"), key: file("key") };
    fs::write(&tls.cert, made.cert.pem()).expect("a file");
    fs::write(&tls.key, made.signing_key.serialize_pem()).expect("a file");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (tls, Arc::new(client))
}

#[test]
fn serves_https() {
    let (tls, client) = certificate("https");
    let command = Command { program: "cat".into(), args: vec![], env: vec![], cwd: None };
    let mut config = Config::new(Server::new("default", command));
    config.servers[0].prestart = false;
    config.http.head_timeout = Duration::from_millis(300);
    config.http.tls = Some(tls.clone());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let (proxy, stopper) = Proxy::new(config.clone(), listener).expect("a proxy");
    fs::remove_file(&tls.cert).expect("the file");
    fs::remove_file(&tls.key).expect("the file");
    let addr = proxy.addr().expect("an address");
    let running = thread::spawn(move || proxy.run());
    let connect = || {
        let name = "localhost".try_into().expect("a name");
        let session = rustls::ClientConnection::new(Arc::clone(&client), name).expect("a session");
        let socket = TcpStream::connect(addr).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        rustls::StreamOwned::new(session, socket)
    };
    // Many requests on one connection, a large one and one that is too slow; each time the end is announced.
    let request = "GET /no-such-path HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let large = format!(
        "POST /no-such-path HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(1_000_000)
    );
    let last = "GET /no-such-path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (sent, status, count) in
        [(format!("{}{large}{last}", request.repeat(9)), "404", 11), ("GET / HT".into(), "408", 1)]
    {
        let mut stream = connect();
        stream.write_all(sent.as_bytes()).expect("a request");
        let mut answers = String::new();
        // Without the announcement this is an error.
        stream.read_to_string(&mut answers).expect("an end");
        assert_eq!(answers.matches(&format!("HTTP/1.1 {status} ")).count(), count, "{answers}");
    }
    // Neither silence, nor half a handshake, nor something else is waited for.
    for sent in [&b""[..], b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let answer = answer(addr, sent);
        assert!(!answer.contains("HTTP"), "{answer}");
    }
    // The files are gone.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let error = Proxy::new(config, listener).expect_err("no certificate").to_string();
    assert!(error.contains("cannot be read"), "{error}");
    stopper.stop();
    running.join().expect("no panic").expect("no error");
}

/// Says what a server says to `initialize`, to every message that has an id; to a `ping`, with more than a pipe holds.
const SERVER: &str = r#"s/^.*"ping".*$/&P/; s/.*"id":\([0-9]*\).*[^P]$/{"jsonrpc":"2.0","id":\1,"result":{"protocolVersion":"2025-11-25"}}/p; s/.*"id":\([0-9]*\).*P$/{"jsonrpc":"2.0","id":\1,"result":{"x":"LONG"}}/p"#;

/// Not a test: the process that `stands_between_stdin_and_stdout` starts.
#[test]
fn stdio_process() {
    let Ok(how) = env::var("MCP_TEST_STDIO") else { return };
    let path = Secret::new(env::var_os("PATH").expect("a PATH"));
    let args = vec!["-un".into(), SERVER.replace("LONG", &"x".repeat(100_000)).into()];
    let command = Command { program: "sed".into(), args, env: vec![("PATH".into(), path)], cwd: None };
    let mut config = Config::new(Server::new("default", command));
    config.front = FrontKind::Stdio;
    let (proxy, stopper) = Proxy::new(config, None).expect("a proxy");
    assert_eq!(proxy.addr(), None);
    if how == "stopped" || how == "slow reader" {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            stopper.stop();
            stopper.stop();
        });
    }
    proxy.run().expect("no error");
    process::exit(0);
}

#[test]
fn stands_between_stdin_and_stdout() {
    const REQUEST: &str = r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
    for how in ["end of input", "stopped", "no reader", "slow reader"] {
        let mut child = process::Command::new(env::current_exe().expect("ourselves"))
            .args(["--exact", "stdio_process", "--nocapture", "--quiet"])
            .env("MCP_TEST_STDIO", how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        if how != "stopped" {
            stdin.write_all(format!("{REQUEST}\n").as_bytes()).expect("a request");
            // The test harness says something first.
            let answer = stdout.by_ref().lines().map(|line| line.expect("a line")).find(|line| line.contains('{'));
            let answer = answer.expect("an answer");
            assert!(answer.contains(r#""id":"a""#) && answer.contains("2025-11-25"), "{answer}");
        }
        let mut kept = None;
        match how {
            "end of input" => drop(stdin),
            "no reader" => {
                drop(stdout);
                stdin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}\n").expect("a request");
                kept = Some(stdin);
            }
            "slow reader" => {
                // Nobody reads all of the answer.
                stdin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}\n").expect("a request");
                let mut some = [0; 1000];
                stdout.read_exact(&mut some).expect("a part");
                kept = Some(stdin);
            }
            _ => kept = Some(stdin),
        }
        assert!(child.wait().expect("an end").success(), "{how}");
        drop(kept);
    }
}
