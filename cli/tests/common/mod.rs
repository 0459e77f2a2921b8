//! Processes of the built program, and certificates for them.

#![allow(dead_code, reason = "no test needs all of it")]

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long to wait for what must come. It only runs out when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;

/// The program, without the variables that change what it does.
pub(crate) fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_mcp-proxy"));
    for name in ["API_ACCESS_TOKEN", "AUTH_KEY", "MCP_SERVER_CONFIG", "SHARED_SESSION", "SSE_URL"] {
        program.env_remove(name);
    }
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"] {
        program.env_remove(name);
    }
    program
}

/// A process with everything it says. It ends with the test; if that fails, it is shown what was said.
pub(crate) struct Process {
    pub(crate) child: Child,
    input: Option<ChildStdin>,
    out: Receiver<String>,
    log: Receiver<String>,
    said: RefCell<Vec<String>>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let out = lines(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        Process { input: child.stdin.take(), child, out, log, said: RefCell::default() }
    }

    /// `mcp-proxy` with these words.
    pub(crate) fn of(words: &[&str]) -> Process {
        let mut command = program();
        command.args(words);
        Process::start(command)
    }

    /// The next line, or `None` at the end.
    fn next(&self, stream: &Receiver<String>) -> Option<String> {
        match stream.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.said.borrow_mut().push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("silence for {PATIENCE:?}"),
        }
    }

    /// The next line of the log that contains this text.
    pub(crate) fn line_with(&self, text: &str) -> String {
        while let Some(line) = self.next(&self.log) {
            if line.contains(text) {
                return line;
            }
        }
        panic!("no {text:?} in the log");
    }

    /// The rest of the log, up to the end of the process.
    pub(crate) fn rest_of_log(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(&self.log)).collect()
    }

    /// The rest of stdout, up to the end of the process.
    pub(crate) fn rest_of_output(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(&self.out)).collect()
    }

    /// The host and the port of the next server that it says it serves.
    pub(crate) fn address(&self) -> String {
        let line = self.line_with("Streamable HTTP  http");
        let (_, url) = line.split_once("://").unwrap();
        url.split_once('/').unwrap().0.to_owned()
    }

    pub(crate) fn say(&mut self, message: &str) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    /// The next message. Whatever is on stdout must be protocol.
    pub(crate) fn hear(&self) -> Value {
        let line = self.next(&self.out).expect("stdout ended");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// Ends stdin: the process has to end by itself, with nothing more to say.
    pub(crate) fn end(mut self) {
        drop(self.input.take());
        assert_eq!(self.rest_of_output(), [""; 0]);
        assert_eq!(self.ended().code(), Some(0));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, which has to come.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.rest_of_log();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let said = self.said.borrow();
            let rest = self.log.try_iter();
            eprintln!("it said:\n{}", said.iter().cloned().chain(rest).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The lines of a stream as they come. Read on a thread of its own, so that the process never waits for the test.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let lines = BufReader::new(stream).lines();
    thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    receiver
}

/// A folder of the test, which goes with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mcp-proxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A certificate for `localhost`, signed by itself, with the files of it and of its key.
pub(crate) struct Certificate {
    pub(crate) made: rcgen::CertifiedKey<rcgen::KeyPair>,
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Certificate {
    pub(crate) fn new(folder: &Folder, name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = folder.file(&format!("{name}-cert.pem"), &made.cert.pem());
        let key = folder.file(&format!("{name}-key.pem"), &made.signing_key.serialize_pem());
        Certificate { made, cert, key }
    }
}

/// What a line of PATH finds: `name` in this folder is that file.
pub(crate) fn link(folder: &Path, name: &str, file: &str) {
    std::os::unix::fs::symlink(file, folder.join(name)).unwrap();
}
