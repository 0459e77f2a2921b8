//! The built program, as scripts and people meet it: what it prints, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

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
    let out = mcp_proxy(&["--version"]);
    assert_eq!((out.status.code(), &*out.stdout, &*out.stderr), (Some(0), &b"mcp-proxy 0.1.0\n"[..], &b""[..]));
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
