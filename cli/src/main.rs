//! `mcp-proxy`: offers an MCP server that speaks stdio over HTTP.
//!
//! Top down: read the command line, find the program, open the port, say what is served, run until told to stop. Errors
//! before that are one line on stderr for people, and an exit code for scripts: 1 for what could not be started or used,
//! 2 for a wrong command line.

#![forbid(unsafe_code)]
// The doc comments of the flags are the help text, which is read on a terminal.
#![allow(rustdoc::bare_urls)]

mod args;
mod demo;
mod help;
mod settings;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use log::{LevelFilter, info, warn};
use mcp_proxy_engine::SessionMode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use args::{CommandLine, Parsed, Runtime};

/// Why the program ends early: the line to print and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// It could not start, or not go on.
    pub(crate) fn start(text: impl Into<String>) -> Self {
        Failure { code: 1, text: text.into() }
    }

    /// The command line is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Failure { code: 2, text: text.into() }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where even stderr is gone, the exit code is all there is.
            let _ = writeln!(io::stderr(), "mcp-proxy: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let line = match args::parse(std::env::args_os().skip(1))? {
        Parsed::Help => return print(&help::help()),
        Parsed::Line(line) if line.flags.version => {
            return print(concat!("mcp-proxy ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Parsed::Line(line) if line.flags.demo_server => {
            demo::serve(io::stdin().lock(), io::stdout());
            return Ok(());
        }
        Parsed::Line(line) => line,
    };
    let flags = &line.flags;
    start_log(flags.level());
    if flags.sse_port.is_some() || flags.sse_host.is_some() {
        warn!("--sse-port and --sse-host are old names: use --port and --host");
    }
    raise_file_limit();

    let server = settings::server(&line, std::env::vars_os())?;
    let listener = settings::listen(flags)?;
    let address = listener.local_addr().map_err(|e| Failure::start(settings::reason(&e)))?;
    let config = settings::config(flags, server, !address.ip().is_loopback());

    let ended = match flags.runtime {
        Runtime::Smol => {
            use mcp_proxy_runtime_smol::Proxy;
            let (proxy, stopper) = Proxy::new(config, listener).map_err(|e| Failure::start(e.to_string()))?;
            stop_on_signals(move || stopper.stop())?;
            announce(&line, proxy.addr());
            smol::block_on(proxy.run())
        }
        Runtime::Blocking => {
            use mcp_proxy_runtime_blocking::Proxy;
            let (proxy, stopper) = Proxy::new(config, listener).map_err(|e| Failure::start(e.to_string()))?;
            stop_on_signals(move || stopper.stop())?;
            announce(&line, proxy.addr());
            proxy.run()
        }
    };
    ended.map_err(|e| Failure::start(format!("stopped: {}", settings::reason(&e))))?;
    info!("stopped");
    Ok(())
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `mcp-proxy --help | head -1` is no error.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::start(settings::reason(&e))),
        _ => Ok(()),
    }
}

/// Tells the user what runs where.
fn announce(line: &CommandLine, address: SocketAddr) {
    let mode = match line.flags.session_mode {
        SessionMode::Shared => "shared",
        SessionMode::PerSession => "per-session",
        SessionMode::PerRequest => "per-request",
    };
    let stateless = if line.flags.stateless { ", stateless" } else { "" };
    if line.flags.demo {
        info!("serving the demo ({mode}{stateless})");
    } else {
        let words: Vec<_> = line.command.iter().map(|word| word.to_string_lossy()).collect();
        info!("serving \"{}\" ({mode}{stateless})", words.join(" "));
    }
    info!("Streamable HTTP  http://{address}/mcp");
    if !address.ip().is_loopback() {
        warn!("listening on {address} without authentication: whoever reaches this port can use the server");
    }
}

/// Sends the log to stderr, in the format of the Python program: `[I 2026-11-24 09:00:01,123 mcp_proxy] text`.
fn start_log(level: LevelFilter) {
    env_logger::Builder::new()
        // Other people's crates only speak up when something is wrong.
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("mcp_proxy", level)
        .format(|out, record| {
            let letter = &record.level().as_str()[..1];
            let time = out.timestamp_millis().to_string().replace('T', " ").replace('.', ",");
            let time = time.trim_end_matches('Z');
            let mut text = record.args().to_string();
            // What a server or a client sent must not move the cursor or forge a line of the log.
            if text.contains(|c: char| c.is_control() && c != '\t') {
                let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
                text = text.chars().map(escape).collect();
            }
            writeln!(out, "[{letter} {time} {}] {text}", record.target())
        })
        .init();
}

/// Each client and each server process holds descriptors, and the usual soft limit of 1,024 is for programs that use
/// `select`. Not beyond a million: children inherit the limit, and some walk through all descriptors at their start.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(1 << 20, |maximum| maximum.min(1 << 20));
    if now.current.is_some_and(|current| current < wanted)
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum })
    {
        warn!("cannot raise the limit of open files: {e}");
    }
}

/// Calls `stop` at each signal: the first is a request, the second a demand.
fn stop_on_signals(stop: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let mut wanted = vec![SIGINT, SIGTERM];
    // Under nohup the end of the terminal is to be ignored, and a handler would undo that.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let failed = |e: io::Error| Failure::start(format!("cannot handle signals: {}", settings::reason(&e)));
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let watch = move || {
        let mut what = "stopping; a second signal stops at once";
        for signal in signals.forever() {
            info!("{}: {what}", signal_hook::low_level::signal_name(signal).unwrap_or("signal"));
            stop();
            what = "stopping at once";
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
    Ok(())
}

/// Whether this process was started with the signal ignored. Only Linux tells.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
