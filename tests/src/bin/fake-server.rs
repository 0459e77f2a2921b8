//! The scriptable MCP server of `mcp_proxy_tests::fake` over stdio: plain threads.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use mcp_proxy_tests::fake::{Effect, Fake, Flags};

/// A process that only ends when it is killed: what a grandchild is.
const GRANDCHILD: &str = "--grandchild";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let is_grandchild = args.first().is_some_and(|arg| arg == GRANDCHILD);
    if is_grandchild {
        args.remove(0);
    }
    let Some(flags) = Flags::parse(args) else {
        let _ = writeln!(io::stderr(), "fake-server: unknown argument");
        return ExitCode::from(2);
    };
    if flags.ignore_term
        && let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::new(AtomicBool::new(false)))
    {
        let _ = writeln!(io::stderr(), "fake-server: {error}");
        return ExitCode::from(2);
    }
    if is_grandchild {
        loop {
            thread::park();
        }
    }
    if let Some(path) = &flags.count_file {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        if let Err(error) = written {
            let _ = writeln!(io::stderr(), "fake-server: {path}: {error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::from(serve(flags))
}

/// Serves until the end; returns the status to end with.
fn serve(flags: Flags) -> u8 {
    let grandchild_flags = if flags.ignore_term { &["--ignore-term"][..] } else { &[] };
    let mut fake = Fake::new(flags, std::process::id());
    // One permission for each line: without it the reader reads no further.
    let (lines, inbox) = mpsc::channel::<Option<Vec<u8>>>();
    let (permit, permits) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut stdin = BufReader::new(io::stdin());
        while permits.recv().is_ok() {
            let mut line = Vec::new();
            let end = !matches!(stdin.read_until(b'\n', &mut line), Ok(1..));
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if lines.send((!end).then_some(line)).is_err() || end {
                return;
            }
        }
        // Nobody wants to read, but stdin stays open.
        loop {
            thread::park();
        }
    });
    let mut permit = Some(permit);
    let mut timers: Vec<(Instant, u64)> = Vec::new();
    let mut effects = std::collections::VecDeque::from(fake.start());
    if let Some(permit) = &permit {
        let _ = permit.send(());
    }
    loop {
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Out(bytes) => {
                    let mut out = io::stdout().lock();
                    if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                        return 1;
                    }
                }
                Effect::Err(line, times) => {
                    let mut out = io::stderr().lock();
                    for _ in 0..times {
                        if out.write_all(&line).is_err() {
                            break;
                        }
                    }
                }
                Effect::Later(wait, number) => timers.push((Instant::now() + wait, number)),
                Effect::Spawn(number) => {
                    // It keeps our stdout and stderr open.
                    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
                    command.arg(GRANDCHILD).args(grandchild_flags).stdin(Stdio::null());
                    match command.spawn() {
                        Ok(child) => effects.extend(fake.started(number, child.id())),
                        Err(_) => return 4,
                    }
                }
                Effect::StopReading => permit = None,
                Effect::CloseStdout => close_stdout(),
                Effect::Exit(status) => return u8::try_from(status).unwrap_or(255),
            }
        }
        timers.sort_unstable();
        let next = timers.first().copied();
        let heard = match next {
            Some((at, _)) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match (heard, next) {
            (Ok(Some(line)), _) => {
                effects.extend(fake.line(&line));
                // What it does comes before what it reads next.
                let stops = effects.contains(&Effect::StopReading);
                if let Some(permit) = permit.as_ref().filter(|_| !stops) {
                    let _ = permit.send(());
                }
            }
            (Err(RecvTimeoutError::Timeout), Some((_, number))) => {
                timers.remove(0);
                effects.extend(fake.wake(number));
            }
            _ if fake.outlives_stdin() => loop {
                thread::park();
            },
            _ => return 0,
        }
    }
}

/// Closes descriptor 1 for good, as a server does that runs on as a daemon.
fn close_stdout() {
    // Nothing safe closes a descriptor that somebody else may own; the write end of a pipe without a reader takes its
    // place instead, which for the other side is the same.
    if let Ok((_, nowhere)) = io::pipe() {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
    }
}
