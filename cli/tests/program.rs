//! The built program, as scripts and people meet it: what it prints, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, test_kill_process};

use common::{Certificate, Folder, INITIALIZE, Process, program};

fn mcp_proxy(args: &[&str]) -> Output {
    program().args(args).env("PATH", "/usr/bin:/bin").output().unwrap()
}

/// The exit code and the one line on stderr. Nothing may be on stdout.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let out = mcp_proxy(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.stdout.len(), text.lines().count()), (0, 1), "{args:?}: {text}");
    (out.status.code(), text.trim_end().to_owned())
}

#[test]
fn errors_are_one_line_and_an_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = std::env::temp_dir().join(format!("mcp-proxy-test-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("server.sh");
    fs::write(&file, "{}").unwrap();
    let (directory, file) = (directory.to_str().unwrap(), file.to_str().unwrap());

    for (args, code, line) in [
        (
            &["uvx-that-is-not-there"][..],
            1,
            "cannot start \"uvx-that-is-not-there\": not found in PATH (/usr/bin:/bin). Give the full path, or pass \
             --pass-environment."
                .to_owned(),
        ),
        (&[file], 1, format!("cannot start {file:?}: permission denied. Is it executable? Try: chmod +x {file:?}")),
        (
            &["--port", &port, "sh"],
            1,
            format!(
                "cannot listen on 127.0.0.1:{port}: address already in use. Stop the other program, or choose another \
                 --port."
            ),
        ),
        (
            &["--host", "", "sh"],
            1,
            "cannot listen on \"\": no address is known for it. Give --host an address of this machine, such as \
             127.0.0.1, or 0.0.0.0 for all."
                .to_owned(),
        ),
        (&["--cwd", file, "sh"], 1, format!("cannot run the server in {file:?} (--cwd): not a directory")),
        (
            &["--prt", "1", "sh"],
            2,
            "unknown option --prt. Did you mean --port? mcp-proxy --help lists the options.".to_owned(),
        ),
        (
            &["sh", "-x"],
            2,
            "unknown option -x. If it belongs to the command, write -- before the command: -- sh -x.".to_owned(),
        ),
        (&["--port", "x", "sh"], 2, "bad value \"x\" for --port: it must be a number from 0 to 65535".to_owned()),
        (
            &["--log-level", "loud", "sh"],
            2,
            "bad value \"loud\" for --log-level: it must be TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL or NONE"
                .to_owned(),
        ),
        (&["--username", "u", "http://h"], 1, "Both --username and --password are required".to_owned()),
        (&["--tls-cert", file, "sh"], 2, "--tls-cert and --tls-key are needed together".to_owned()),
        (&["http://"], 2, "cannot use the URL \"http://\": it names no host".to_owned()),
        (
            &["--named-server-config", "/nope.json"],
            1,
            "cannot use \"/nope.json\" (--named-server-config): no such file or directory".to_owned(),
        ),
        (
            &["--named-server-config", file],
            1,
            format!("cannot use {file:?} (--named-server-config): it has no \"mcpServers\" and no \"servers\""),
        ),
        (
            &[],
            2,
            "no server command was given. Try: mcp-proxy --port 8080 uvx mcp-server-time, or: mcp-proxy --demo. \
             mcp-proxy --help tells more."
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(args), (Some(code), format!("mcp-proxy: {line}")), "{args:?}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_version_and_the_help_go_to_stdout() {
    const VERSION: &str = concat!("mcp-proxy ", env!("CARGO_PKG_VERSION"), "\n");
    let out = mcp_proxy(&["--version"]);
    assert_eq!((out.status.code(), &*out.stdout, &*out.stderr), (Some(0), VERSION.as_bytes(), &b""[..]));
    for args in [&["--help"][..], &["-h"], &["--port", "1", "sh", "--help"]] {
        let out = mcp_proxy(args);
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0));
        for part in ["Usage:", "Examples:", "Exit codes:", "/mcp", "--allow-origin ORIGIN..."] {
            assert!(text.contains(part), "{part} is missing");
        }
        assert!(!text.contains("demo-server"));
    }
}

/// The demo behind a running proxy.
struct Demo {
    process: Process,
    address: String,
    session: String,
}

impl Demo {
    fn start(flags: &[&str]) -> Demo {
        Demo::serve(&[&["--demo", "--port=0", "--debug"], flags].concat(), &[])
    }

    /// A proxy that serves something at its root.
    fn serve(words: &[&str], variables: &[(&str, &str)]) -> Demo {
        let mut command = program();
        command.args(words).envs(variables.iter().copied());
        let process = Process::start(command);
        let url = process.line_with("Streamable HTTP  http://127.0.0.1:");
        if !words.contains(&"--log-format=json") {
            // [I 2026-11-24 09:00:01,123 mcp_proxy] ...
            let parts = (&url[..5], &url[13..14], &url[22..23], &url[26..38]);
            assert_eq!(parts, ("[I 20", " ", ",", " mcp_proxy] "), "{url}");
        }
        let address = url.rsplit_once("http://").unwrap().1.split_once("/mcp").unwrap().0.to_owned();
        Demo { process, address, session: String::new() }
    }

    /// Sends a message and returns the whole response, head and body.
    fn post(&self, message: &str) -> String {
        let mut response = String::new();
        self.send(message).read_to_string(&mut response).unwrap();
        response
    }

    /// The status and the rest of the response to a GET.
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.address).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{response}")), response)
    }

    fn send(&self, message: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let session = match &*self.session {
            "" => String::new(),
            id => format!("mcp-session-id: {id}\r\nmcp-protocol-version: 2025-11-25\r\n"),
        };
        write!(
            stream,
            "POST /mcp HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {}\r\n{session}\r\n{message}",
            self.address,
            message.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    fn initialize(&mut self) {
        let answer = self.post(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},
            "clientInfo":{"name":"test","version":"1"}}}"#,
        );
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("mcp-proxy-demo"), "{answer}");
        let id = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
        self.session = id.unwrap().to_owned();
        let answer = self.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }

    fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            match self.process.child.try_wait().unwrap() {
                Some(status) => return status,
                None if start.elapsed() > limit => panic!("still running after {limit:?}"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The processes it started, whichever of its threads did.
    fn children(&self) -> Vec<Pid> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.child.id())).into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .filter_map(Pid::from_raw)
            .collect()
    }
}

fn countdown(from: u32, delay: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{{"name":"countdown",
        "arguments":{{"from":{from},"delay_ms":{delay}}},"_meta":{{"progressToken":"p"}}}}}}"#
    )
}

#[test]
fn the_demo_works_over_http_and_stops_without_a_trace() {
    for runtime in ["smol", "blocking"] {
        let mut demo = Demo::start(&["--runtime", runtime]);
        demo.initialize();
        let answer = demo.post(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
        assert!(["echo", "add", "countdown"].iter().all(|tool| answer.contains(tool)), "{answer}");
        let answer = demo.post(
            r#"{"jsonrpc":"2.0","id":"three","method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}"#,
        );
        assert!(answer.contains(r#""id":"three""#) && answer.contains(r#"{"sum":3}"#), "{answer}");
        let answer = demo.post(&countdown(3, 10));
        assert!(answer.contains("content-type: text/event-stream"), "{answer}");
        assert_eq!(answer.matches(r#""progressToken":"p""#).count(), 3, "{answer}");
        assert!(answer.contains("3, 2, 1, liftoff"), "{answer}");

        let children = demo.children();
        demo.process.signal(Signal::TERM);
        assert_eq!(demo.ended_within(Duration::from_secs(5)).code(), Some(0), "{runtime}");
        demo.process.line_with("mcp_proxy] stopped");
        // Not every system lists children in /proc.
        assert!(children.len() == 1 || !cfg!(target_os = "linux"), "{children:?}");
        assert!(children.iter().all(|pid| test_kill_process(*pid).is_err()), "{runtime}: a process is left");
    }
}

#[test]
fn each_signal_stops_it() {
    // Under nohup a hangup is ignored, as it should be: the signals that are ignored are inherited.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let hangup = if ignored.unwrap_or(0) & 1 == 1 { Signal::TERM } else { Signal::HUP };
    for (signal, runtime) in [(Signal::INT, "smol"), (hangup, "smol"), (Signal::INT, "blocking"), (hangup, "blocking")]
    {
        let mut demo = Demo::start(&["--runtime", runtime]);
        demo.process.signal(signal);
        assert_eq!(demo.ended_within(Duration::from_secs(5)).code(), Some(0));
    }
}

#[test]
fn a_call_in_flight_is_answered_at_the_end_and_a_second_signal_does_not_wait() {
    for runtime in ["smol", "blocking"] {
        let mut demo = Demo::start(&["--runtime", runtime]);
        demo.initialize();
        let mut response = demo.send(&countdown(1, 60_000)).lines().map(Result::unwrap);
        assert!(response.any(|line| line.contains("notifications/progress")));
        demo.process.signal(Signal::TERM);
        demo.process.line_with("SIGTERM: stopping");
        demo.process.signal(Signal::TERM);
        let start = Instant::now();
        assert!(response.any(|line| line.contains(r#""id":"c","error""#)));
        assert_eq!(response.filter(|line| line.contains("jsonrpc")).count(), 0);
        // The first signal alone would let the call go on for a second.
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        assert_eq!(demo.ended_within(Duration::from_secs(5)).code(), Some(0));
    }
}

#[test]
fn a_remote_server_is_there_on_stdin_and_stdout() {
    for runtime in ["smol", "blocking"] {
        let demo = Demo::start(&["--runtime", runtime]);
        for (path, flags) in [
            ("mcp", &[][..]),
            ("sse", &[]),
            ("mcp", &["--transport=streamablehttp"]),
            ("sse", &["--transport", "sse", "--debug"]),
        ] {
            let url = format!("http://{}/{path}", demo.address);
            let mut bridge = Process::of(&[&["--runtime", runtime, &url], flags].concat());
            bridge.say(INITIALIZE);
            let answer = bridge.hear();
            assert_eq!(answer["id"], 1, "{path} {flags:?}: {answer}");
            assert_eq!(answer["result"]["serverInfo"]["name"], "mcp-proxy-demo", "{path} {flags:?}: {answer}");
            bridge.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
            bridge.say(&countdown(2, 10).replace('\n', ""));
            for left in 0..2 {
                let progress = bridge.hear();
                assert_eq!(progress["method"], "notifications/progress", "{left}: {progress}");
            }
            let answer = bridge.hear();
            assert_eq!((&answer["id"], answer["result"].is_object()), (&"c".into(), true), "{answer}");
            bridge.end();
        }
    }
}

#[test]
fn a_remote_server_that_is_not_there_is_an_error_for_each_request() {
    // A port that was free a moment ago.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for runtime in ["smol", "blocking"] {
        let mut bridge = Process::of(&["--runtime", runtime, &format!("http://{nobody}/mcp")]);
        bridge.say(INITIALIZE);
        let answer = bridge.hear();
        assert!(answer["id"] == 1 && answer["error"]["message"].is_string(), "{answer}");
        bridge.end();
    }
}

#[test]
fn a_remote_server_is_served_in_the_other_transport() {
    for runtime in ["smol", "blocking"] {
        let demo = Demo::start(&["--runtime", runtime]);
        let url = format!("http://{}/sse", demo.address);
        let mut proxy = Demo::serve(&["--port=0", "--transport=sse", "--runtime", runtime, &url], &[]);
        proxy.initialize();
        let answer = proxy.post(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
        assert!(answer.contains("countdown"), "{answer}");
    }
}

#[test]
fn named_servers_stand_beside_the_root_and_come_up_when_they_can() {
    let program = env!("CARGO_BIN_EXE_mcp-proxy");
    for runtime in ["smol", "blocking"] {
        let directory = std::env::temp_dir().join(format!("mcp-proxy-named-{runtime}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let late = directory.join("late");
        let file = directory.join("servers.json");
        let servers = format!(
            r#"{{"mcpServers": {{"now": {{"command": {program:?}, "args": ["--demo-server"]}},
            "late": {{"command": {:?}, "args": ["--demo-server"]}}, "bad": {{}}, // a comment
            "off": {{"command": "x", "disabled": true}},}}}}"#,
            late.to_str().unwrap()
        );
        fs::write(&file, servers).unwrap();
        let words = ["--demo", "--port=0", "--runtime", runtime, "--named-server-config", file.to_str().unwrap()];
        let mut proxy = Demo::serve(&words, &[]);
        proxy.initialize();
        let status = |path: &str| proxy.get(path, "").0;
        assert_eq!((status("/healthz"), status("/servers/off/mcp"), status("/servers/bad/mcp")), (200, 404, 404));
        let (code, text) = proxy.get("/readyz", "");
        assert!(code == 503 && text.contains("late"), "{text}");
        let (code, text) = proxy.get("/status", "");
        let all = ["default", "now", "late"].iter().all(|name| text.contains(&format!("\"{name}\"")));
        assert!(code == 200 && all && text.contains("active_sse_connections"), "{text}");

        std::os::unix::fs::symlink(program, &late).unwrap();
        let start = Instant::now();
        while status("/readyz") != 200 {
            assert!(start.elapsed() < Duration::from_secs(40), "it does not come up");
            thread::sleep(Duration::from_millis(50));
        }
        fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn with_a_key_nobody_else_comes_in_and_the_log_does_not_have_it() {
    for runtime in ["smol", "blocking"] {
        let words = ["--demo", "--port=0", "--debug", "--log-format=json", "--runtime", runtime];
        let proxy = Demo::serve(&words, &[("AUTH_KEY", "hunter2")]);
        for path in ["/mcp", "/sse", "/status", "/messages/?session_id=1"] {
            let (status, text) = proxy.get(path, "");
            assert!(status == 401 && text.to_ascii_lowercase().contains("www-authenticate: "), "{path}: {text}");
            assert_eq!(proxy.get(path, "x-api-key: hunter3\r\n").0, 401, "{path}");
        }
        for headers in ["authorization: Bearer hunter2\r\n", "x-api-key: hunter2\r\n"] {
            assert_eq!(proxy.get("/status", headers).0, 200, "{headers}");
        }
        assert_eq!(proxy.get("/status?auth_key=hunter2", "").0, 200);
        proxy.process.signal(Signal::TERM);
        for line in proxy.process.rest_of_log() {
            assert!(!line.contains("hunter2"), "{line}");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(["time", "level", "target", "message"].iter().all(|key| line[key].is_string()), "{line}");
        }
    }
}

#[test]
fn it_serves_https_to_clients_that_know_its_certificate() {
    let folder = Folder::new("https");
    let (own, other) = (Certificate::new(&folder, "own"), Certificate::new(&folder, "other"));
    for (runtime, others) in [("smol", "blocking"), ("blocking", "smol")] {
        let flags = ["--demo", "--port=0", "--tls-cert", &own.cert, "--tls-key", &own.key, "--runtime", runtime];
        let mut proxy = Process::of(&flags);
        let url = proxy.line_with("Streamable HTTP  https://127.0.0.1:");
        let port = url.rsplit_once("https://127.0.0.1:").unwrap().1.strip_suffix("/mcp").unwrap().to_owned();
        // Who does not know about TLS is no reason to stop.
        let mut plain = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        plain.write_all(b"GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // The answer is a TLS alert, or the connection is reset.
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");

        for path in ["mcp", "sse"] {
            let url = format!("https://localhost:{port}/{path}");
            for (verify, works) in [
                (&["--verify-ssl", &own.cert][..], true),
                (&["--no-verify-ssl"], true),
                (&["--verify-ssl", &other.cert], false),
                (&[], false),
            ] {
                let mut client = Process::of(&[verify, &["--runtime", others, &url]].concat());
                client.say(INITIALIZE);
                let answer = client.hear();
                assert_eq!(answer["id"], 1, "{answer}");
                if works {
                    assert_eq!(answer["result"]["serverInfo"]["name"], "mcp-proxy-demo", "{path} {verify:?}: {answer}");
                    client.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
                    client.say(&countdown(2, 10).replace('\n', ""));
                    let messages: Vec<_> = (0..3).map(|_| client.hear()).collect();
                    assert!(messages[..2].iter().all(|message| message["method"] == "notifications/progress"));
                    assert!(messages[2]["id"] == "c" && messages[2]["result"].is_object(), "{}", messages[2]);
                } else {
                    let why = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{verify:?}: {answer}"));
                    assert!(why.contains("certificate"), "{verify:?}: {why}");
                }
                client.end();
            }
            // The name in the URL has to be in the certificate.
            let url = url.replace("localhost", "127.0.0.1");
            let mut client = Process::of(&["--verify-ssl", &own.cert, "--runtime", others, &url]);
            client.say(INITIALIZE);
            let answer = client.hear();
            assert!(answer["error"]["message"].as_str().unwrap().contains("certificate"), "{answer}");
            client.end();
        }
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.ended().code(), Some(0));
        // A key of another certificate would fail at each client; it fails here.
        let words = ["--demo", "--port=0", "--tls-cert", &own.cert, "--tls-key", &other.key, "--runtime", runtime];
        let (code, text) = refused(&words);
        assert!(code == Some(1) && text.contains("own-cert.pem"), "{text}");
    }
}
