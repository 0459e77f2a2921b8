//! `mcp-proxy`: connects MCP clients and MCP servers over any transport.
//!
//! Top down: read the command line, find the servers, open the port, say what is served, run until told to stop. Errors
//! before that are one line on stderr for people, and an exit code for scripts: 1 for what could not be started or used,
//! 2 for a wrong command line.

#![forbid(unsafe_code)]
// The doc comments of the flags are the help text, which is read on a terminal.
#![allow(rustdoc::bare_urls)]

mod args;
mod config_file;
mod demo;
mod flags;
mod help;
mod local;
mod logging;
mod remote;
mod settings;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use log::{info, warn};
use mcp_proxy_engine::{Config, SessionMode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use args::Parsed;
use flags::Runtime;
use local::Environment;
use settings::Plan;

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
    logging::start(flags.level(), flags.log_format);
    raise_file_limit();

    let mut warnings = Vec::new();
    let plan = settings::plan(&line, &Environment::new(std::env::vars_os()), &mut warnings);
    warnings.iter().for_each(|text| warn!("{text}"));
    let Plan { mut config, listen, shown } = plan?;
    let listener = listen.map(|listen| settings::listen(&listen)).transpose()?;
    let address = listener.as_ref().map(|listener| listener.local_addr()).transpose();
    let address = address.map_err(|e| Failure::start(settings::reason(&e)))?;
    config.access.public = address.is_some_and(|address| !address.ip().is_loopback());
    let announce = {
        let config = config.clone();
        move |address| announce(&config, &shown, address)
    };

    let ended = match flags.runtime {
        Runtime::Smol => {
            use mcp_proxy_runtime_smol::Proxy;
            let (proxy, stopper) = Proxy::new(config, listener).map_err(|e| Failure::start(e.to_string()))?;
            stop_on_signals(move || stopper.stop())?;
            announce(proxy.addr());
            smol::block_on(proxy.run())
        }
        Runtime::Blocking => {
            use mcp_proxy_runtime_blocking::Proxy;
            let (proxy, stopper) = Proxy::new(config, listener).map_err(|e| Failure::start(e.to_string()))?;
            stop_on_signals(move || stopper.stop())?;
            announce(proxy.addr());
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

/// Tells the user what runs where. `address` is `None` if the client is on stdin and stdout.
fn announce(config: &Config, shown: &[String], address: Option<SocketAddr>) {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    for (server, what) in config.servers.iter().zip(shown) {
        let Some(address) = address else {
            info!("connecting stdin and stdout to {what}");
            continue;
        };
        let mode = match server.sessions {
            SessionMode::Shared => "shared",
            SessionMode::PerSession => "per-session",
            SessionMode::PerRequest => "per-request",
        };
        let stateless = if server.stateless { ", stateless" } else { "" };
        let (name, path) = match &*server.name {
            "default" => (String::new(), String::new()),
            name => (format!("{name}: "), format!("/servers/{name}")),
        };
        info!("serving {name}{what} ({mode}{stateless})");
        info!("Streamable HTTP  {scheme}://{address}{path}/mcp");
        info!("HTTP+SSE         {scheme}://{address}{path}/sse");
    }
    if let Some(address) = address.filter(|address| !address.ip().is_loopback())
        && config.access.auth_tokens.is_empty()
    {
        warn!(
            "listening on {address} without authentication: whoever reaches this port can use the servers. Set AUTH_KEY, \
             or give --auth-token-file"
        );
    }
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
