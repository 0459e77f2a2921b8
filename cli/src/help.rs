//! The text of `--help`. The flags and what they mean come from [`Flags`], so none can be missing here.

use argh::ArgsInfo;

use crate::args::{Arity, arity};
use crate::flags::Flags;

const HEAD: &str = "\
mcp-proxy: joins MCP clients and servers over stdio, Streamable HTTP and
HTTP+SSE, and revisions from 2024-11-05 to 2026-07-28 with each other.

Usage:
  mcp-proxy [OPTIONS] [--] COMMAND [ARGUMENTS...]
      Run an MCP server that speaks stdio, and serve it over HTTP.
  mcp-proxy [OPTIONS] URL
      Be an MCP server on stdin and stdout that speaks for a remote one.
  mcp-proxy [OPTIONS] --port PORT URL
      Serve a remote server over HTTP, in every transport.
  mcp-proxy [OPTIONS] --named-server-config FILE
      Serve several, of either kind.

Examples:
  mcp-proxy --port 8080 uvx mcp-server-time
      One command is all it takes.
  mcp-proxy --port 8080 -- npx -y @modelcontextprotocol/server-filesystem .
      What follows -- is left alone. Write it when the command has flags of its
      own, such as -y here; before it, every flag is one of the proxy.
  mcp-proxy -e API_KEY secret --cwd /srv/app ./server.py --port 8080
      A variable and a directory for the server. Options may follow the command.
  mcp-proxy --port 8080 --named-server time 'uvx mcp-server-time' \\
            --named-server fetch 'uvx mcp-server-fetch'
      Two servers: /servers/time/mcp and /servers/fetch/mcp.
  API_ACCESS_TOKEN=t mcp-proxy https://example.io/mcp
      For a client that starts its servers, such as Claude Desktop.
  mcp-proxy -H X-Key v --transport sse --port 8080 https://example.io/sse
      An old SSE server, served as Streamable HTTP too.
  AUTH_KEY=k mcp-proxy --host 0.0.0.0 --port 80 --session-mode per-session ./s
      For others, with a key; one server process for each client.
  mcp-proxy --demo --port 8080
      The server that is built in: three tools, a resource and a prompt.

URLs (the log shows the real port):
  http://HOST:PORT/mcp                 Streamable HTTP
  http://HOST:PORT/sse                 HTTP+SSE, for clients of 2024-11-05
  http://HOST:PORT/servers/NAME/mcp    a named server; .../sse as well
";

/// The titles among the flags, each with the flag that it stands before.
const GROUPS: [(&str, &str); 8] = [
    ("Listening", "--port"),
    ("Who may come in", "--auth-token"),
    ("The server", "--env"),
    ("Named servers", "--named-server"),
    ("Remote servers", "--headers"),
    ("Sessions", "--session-mode"),
    ("Limits (decimals are fine in seconds)", "--start-timeout"),
    ("The rest", "--log-level"),
];

const TAIL: &str = "
Flags may be abbreviated (--pass-env), and --flag=VALUE is --flag VALUE. The log
goes to stderr, with times in UTC; stdout stays empty, or has the protocol.

Variables:
  AUTH_KEY             a token like --auth-token; with one process for each
                       session, it also lets clients set variables by URL
  API_ACCESS_TOKEN     like --api-access-token
  SHARED_SESSION       false is --session-mode per-session
  SSE_URL              the URL, if nothing else is given
  MCP_SERVER_CONFIG    the command in one string, if nothing else is given; then
                       --host is 0.0.0.0, --port 8000, --pass-environment on
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY    the way to remote servers
What is typed beats what is inherited.

SIGINT (Ctrl+C), SIGTERM and SIGHUP stop the proxy and its server processes; a
second one does so at once.

Exit codes:
  0  stopped as asked
  1  it could not start or go on: command not found, port in use, ...
  2  the command line is wrong
";

/// What `--help` prints.
pub(crate) fn help() -> String {
    const COLUMN: usize = 28;
    const WIDTH: usize = 80;
    let info = Flags::get_args_info();
    let mut out = HEAD.to_owned();
    // argh puts --help first; people look for it last.
    let (help, flags) = info.flags.split_at(1);
    for flag in flags.iter().chain(help).filter(|flag| !flag.hidden) {
        if let Some((title, _)) = GROUPS.iter().find(|(_, first)| *first == flag.long) {
            out.push_str(&format!("\n{title}:\n"));
        }
        let short = flag.short.or((flag.long == "--help").then_some('h')).map(|c| format!("-{c}, "));
        let names = match arity(flag) {
            Arity::None => flag.long.to_owned(),
            Arity::YesNo => flag.long.replacen("--", "--[no-]", 1),
            Arity::Maybe(what) => format!("{} {what}", flag.long.replacen("--", "--[no-]", 1)),
            Arity::One(what) | Arity::Two(what) => format!("{} {what}", flag.long),
            Arity::Many(what) => format!("{} {what}...", flag.long),
        };
        let mut line = format!("  {:<COLUMN$}", short.unwrap_or_default() + &names);
        // A name that reaches into the text stands alone.
        if line.len() > COLUMN + 2 {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(COLUMN + 2);
        }
        for word in flag.description.split_whitespace() {
            if line.len() + word.len() > WIDTH {
                out.push_str(line.trim_end());
                out.push('\n');
                line = " ".repeat(COLUMN + 2);
            }
            line.push_str(word);
            line.push(' ');
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str(TAIL);
    out
}

#[cfg(test)]
mod tests {
    use mcp_proxy_engine::{Http, Limits, Outbound, Timeouts};

    use super::*;

    #[test]
    fn the_help_is_complete_and_fits() {
        let help = help();
        for flag in Flags::get_args_info().flags {
            let shown = help.contains(&format!("{} ", flag.long))
                || help.contains(&format!("--[no-]{} ", flag.long.trim_start_matches('-')));
            assert_eq!(shown, !flag.hidden, "{}", flag.long);
        }
        for (title, first) in GROUPS {
            assert!(help.contains(&format!("\n{title}:\n")), "no flag {first}");
        }
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }

    #[test]
    fn the_defaults_in_the_help_are_those_of_the_engine() {
        let (limits, timeouts, http) = (Limits::default(), Timeouts::default(), Http::default());
        let outbound = Outbound::default();
        let info = Flags::get_args_info();
        for (flag, default) in [
            ("--connect-timeout", outbound.connect_timeout.as_secs_f64()),
            ("--head-timeout", outbound.head_timeout.as_secs_f64()),
            ("--body-timeout", outbound.body_timeout.as_secs_f64()),
            ("--start-timeout", timeouts.start.as_secs_f64()),
            ("--request-timeout", timeouts.request.as_secs_f64()),
            ("--input-timeout", timeouts.input.as_secs_f64()),
            ("--session-timeout", timeouts.session_idle.as_secs_f64()),
            ("--keepalive", timeouts.keep_alive.as_secs_f64()),
            ("--max-body-size", limits.max_body as f64),
            ("--max-message-size", limits.max_message as f64),
            ("--max-sessions", limits.max_sessions as f64),
            ("--max-children", limits.max_children as f64),
            ("--max-calls", limits.max_calls as f64),
            ("--max-connections", http.max_connections as f64),
        ] {
            let text = info.flags.iter().find(|f| f.long == flag).unwrap().description;
            assert!(text.ends_with(&format!("(default {default})")), "{flag}: {text}");
        }
    }
}
