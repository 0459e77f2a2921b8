//! The built program, as scripts and people meet it: what it prints, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

fn mcp_proxy(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mcp-proxy")).args(args).env("PATH", "/usr/bin:/bin").output().unwrap()
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
    fs::write(&file, "#!/bin/sh\n").unwrap();
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
    child: Child,
    address: String,
    log: mpsc::Receiver<String>,
    session: String,
}

impl Demo {
    fn start(flags: &[&str]) -> Demo {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-proxy"))
            .args(["--demo", "--port=0", "--debug"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut demo = Demo { child, address: String::new(), log, session: String::new() };
        let url = demo.line_with("Streamable HTTP  http://127.0.0.1:");
        // [I 2026-11-24 09:00:01,123 mcp_proxy] ...
        assert_eq!((&url[..5], &url[13..14], &url[22..23], &url[26..38]), ("[I 20", " ", ",", " mcp_proxy] "), "{url}");
        demo.address = url.rsplit_once("http://").unwrap().1.strip_suffix("/mcp").unwrap().to_owned();
        demo
    }

    /// The next line of the log that contains this text.
    fn line_with(&self, text: &str) -> String {
        let patience = Duration::from_secs(20);
        loop {
            let line = self.log.recv_timeout(patience).unwrap_or_else(|e| panic!("no {text:?} in the log: {e}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends a message and returns the whole response, head and body.
    fn post(&self, message: &str) -> String {
        let mut response = String::new();
        self.send(message).read_to_string(&mut response).unwrap();
        response
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

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if start.elapsed() > limit => panic!("still running after {limit:?}"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The processes it started, whichever of its threads did.
    fn children(&self) -> Vec<Pid> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .filter_map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
        demo.signal(Signal::TERM);
        assert_eq!(demo.ended_within(Duration::from_secs(5)).code(), Some(0), "{runtime}");
        demo.line_with("mcp_proxy] stopped");
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
        demo.signal(signal);
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
        demo.signal(Signal::TERM);
        demo.line_with("SIGTERM: stopping");
        demo.signal(Signal::TERM);
        let start = Instant::now();
        assert!(response.any(|line| line.contains(r#""id":"c","error""#)));
        assert_eq!(response.filter(|line| line.contains("jsonrpc")).count(), 0);
        // The first signal alone would let the call go on for a second.
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        assert_eq!(demo.ended_within(Duration::from_secs(5)).code(), Some(0));
    }
}
