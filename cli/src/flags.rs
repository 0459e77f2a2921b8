//! The flags: their names, their texts for `--help`, and how their values are read.

use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;
use mcp_proxy_engine::{RemoteTransport, Secret, SessionMode};

/// Every flag. The field order is the order of `--help`.
///
/// `arg_name` is more than a text for people, it also says how many values a flag takes on the command line:
/// one word is one value, two words are two values (joined by `=` for argh), a name that ends in `...` is one value or
/// more, a name in brackets is one value or none, and `yes|no` is none, because such a flag is typed as `--flag` or
/// `--no-flag`.
///
/// No parser of a secret may refuse it: argh would show the value.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(help_triggers("-h", "--help"))]
#[argh(description = "Connects MCP clients and MCP servers over any transport.")]
pub(crate) struct Flags {
    /// port to listen on; 0, the default, takes a free one and shows it in the log
    #[argh(option, arg_name = "PORT", from_str_fn(parse_port))]
    pub(crate) port: Option<u16>,
    /// address or name to listen on (default 127.0.0.1); 0.0.0.0 is every IPv4 address of this machine, :: is every
    /// address
    #[argh(option, arg_name = "HOST")]
    pub(crate) host: Option<String>,
    /// serve https with this certificate: a PEM file, our own certificate first, then its chain
    #[argh(option, arg_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// the private key of that certificate, a PEM file
    #[argh(option, arg_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// old name of --port
    #[argh(option, arg_name = "PORT", hidden_help, from_str_fn(parse_port))]
    pub(crate) sse_port: Option<u16>,
    /// old name of --host
    #[argh(option, arg_name = "HOST", hidden_help)]
    pub(crate) sse_host: Option<String>,

    /// let in only who sends this token as Authorization: Bearer, X-API-Key or ?auth_key=. Repeatable. Other users of
    /// this machine can see it; the file and the variable AUTH_KEY hide it
    #[argh(option, arg_name = "TOKEN", from_str_fn(parse_secret))]
    pub(crate) auth_token: Vec<Secret<String>>,
    /// such tokens from a file, one a line
    #[argh(option, arg_name = "FILE")]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// web pages of this origin may call (CORS), for example https://app.example; '*' allows all. Takes all values up
    /// to the next option, so write -- before the command
    #[argh(option, arg_name = "ORIGIN...")]
    pub(crate) allow_origin: Vec<String>,
    /// another name of --allow-origin
    #[argh(option, arg_name = "ORIGIN...", hidden_help)]
    pub(crate) allow_cors: Vec<String>,
    /// a response header that those pages may read, beside mcp-session-id. Repeatable
    #[argh(option, arg_name = "HEADER")]
    pub(crate) expose_header: Vec<String>,
    /// a further name that requests may address this proxy by (the Host header, without the port); '*' allows all.
    /// Repeatable
    #[argh(option, arg_name = "HOST")]
    pub(crate) allow_host: Vec<String>,

    /// a variable for the server; KEY=VALUE works too. Repeatable
    #[argh(option, short = 'e', arg_name = "KEY VALUE", from_str_fn(parse_variable))]
    pub(crate) env: Vec<(String, Secret<String>)>,
    /// hand the whole environment of the proxy to the servers; without this they get HOME, LOGNAME, PATH, SHELL, TERM
    /// and USER only
    #[argh(option, arg_name = "yes|no")]
    pub(crate) pass_environment: Option<bool>,
    /// directory to run the server in
    #[argh(option, arg_name = "DIRECTORY")]
    pub(crate) cwd: Option<PathBuf>,
    /// serve the small MCP server that is built in, to try things out; takes no command
    #[argh(switch)]
    pub(crate) demo: bool,
    /// be that small MCP server, on stdin and stdout
    #[argh(switch, hidden_help)]
    pub(crate) demo_server: bool,

    /// a further server at /servers/NAME/, by its command as one word. -e and --cwd are not for it. Repeatable
    #[argh(option, arg_name = "NAME COMMAND", from_str_fn(parse_named))]
    pub(crate) named_server: Vec<(String, String)>,
    /// further servers from a JSON file, as MCP clients keep them ("mcpServers", or "servers"); takes the place of
    /// --named-server
    #[argh(option, arg_name = "FILE")]
    pub(crate) named_server_config: Option<PathBuf>,

    /// a header field for every request to the remote server; 'KEY: VALUE' works too. Repeatable
    #[argh(option, short = 'H', arg_name = "KEY VALUE", from_str_fn(parse_variable))]
    pub(crate) headers: Vec<(String, Secret<String>)>,
    /// how to speak to the remote server: streamablehttp (also: streamable-http, http) or sse. Without this the proxy
    /// finds out
    #[argh(option, arg_name = "TRANSPORT", from_str_fn(parse_transport))]
    pub(crate) transport: Option<RemoteTransport>,
    /// token for the remote server, sent as Authorization: Bearer unless -H gives another Authorization. The variable
    /// API_ACCESS_TOKEN hides it from other users of this machine
    #[argh(option, arg_name = "TOKEN", from_str_fn(parse_secret))]
    pub(crate) api_access_token: Option<Secret<String>>,
    /// OAuth 2 client credentials: the client. All three are needed
    #[argh(option, arg_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// OAuth 2 client credentials: its secret
    #[argh(option, arg_name = "SECRET", from_str_fn(parse_secret))]
    pub(crate) client_secret: Option<Secret<String>>,
    /// OAuth 2 client credentials: where tokens are
    #[argh(option, arg_name = "URL")]
    pub(crate) token_url: Option<String>,
    /// user for Basic authentication at the remote server
    #[argh(option, arg_name = "USER")]
    pub(crate) username: Option<String>,
    /// password of that user
    #[argh(option, arg_name = "PASSWORD", from_str_fn(parse_secret))]
    pub(crate) password: Option<Secret<String>>,
    /// use Digest authentication instead of Basic
    #[argh(switch)]
    pub(crate) digest: bool,
    /// check the certificates of remote servers (the default), or check them by this PEM file; --no-verify-ssl trusts
    /// anybody
    #[argh(option, arg_name = "[FILE]")]
    pub(crate) verify_ssl: Option<String>,
    /// longest time to reach a remote server: its name, the connection and TLS, each (default 10)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) connect_timeout: Option<Duration>,
    /// longest time from a request to the head of its response (default 3600)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) head_timeout: Option<Duration>,
    /// longest silence in the body of a response (default 3600)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) body_timeout: Option<Duration>,

    /// which clients share one server process: shared (the default; clients the server cannot tell apart), per-session
    /// or per-request
    #[argh(option, arg_name = "MODE", from_str_fn(parse_mode))]
    pub(crate) session_mode: Option<SessionMode>,
    /// give out no session ids: every request stands alone
    #[argh(option, arg_name = "yes|no", default = "false")]
    pub(crate) stateless: bool,
    /// a header field of the client's request becomes this variable of its server process. Repeatable
    #[argh(option, arg_name = "HEADER=NAME", from_str_fn(parse_header_env))]
    pub(crate) env_from_header: Vec<(String, String)>,
    /// this parameter of the client's URL becomes the variable of that name. Repeatable
    #[argh(option, arg_name = "NAME", from_str_fn(parse_name))]
    pub(crate) allow_url_env: Vec<String>,

    /// longest time from the start of a server process until it is ready (default 120)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) start_timeout: Option<Duration>,
    /// longest time until the answer to a call; a progress notification starts it anew (default 3600)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) request_timeout: Option<Duration>,
    /// longest time for a client of revision 2026-07-28 to come back with what a server wants to know (default 600)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) input_timeout: Option<Duration>,
    /// the secret (32 bytes) that seals what such a client brings back; several proxies with the same file know each
    /// other's seal
    #[argh(option, arg_name = "FILE")]
    pub(crate) state_key_file: Option<PathBuf>,
    /// a session that nobody uses ends after this time (default 1800)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) session_timeout: Option<Duration>,
    /// an open event stream carries a comment this often (default 15)
    #[argh(option, arg_name = "SECONDS", from_str_fn(parse_seconds))]
    pub(crate) keepalive: Option<Duration>,
    /// largest body of a request (default 4194304)
    #[argh(option, arg_name = "BYTES", from_str_fn(parse_count))]
    pub(crate) max_body_size: Option<usize>,
    /// largest message from a server (default 67108864)
    #[argh(option, arg_name = "BYTES", from_str_fn(parse_count))]
    pub(crate) max_message_size: Option<usize>,
    /// sessions alive at once (default 10000)
    #[argh(option, arg_name = "NUMBER", from_str_fn(parse_count))]
    pub(crate) max_sessions: Option<usize>,
    /// server processes alive at once (default 256)
    #[argh(option, arg_name = "NUMBER", from_str_fn(parse_count))]
    pub(crate) max_children: Option<usize>,
    /// calls waiting for one server process (default 4096)
    #[argh(option, arg_name = "NUMBER", from_str_fn(parse_count))]
    pub(crate) max_calls: Option<usize>,
    /// connections open at once (default 10000)
    #[argh(option, arg_name = "NUMBER", from_str_fn(parse_count))]
    pub(crate) max_connections: Option<usize>,

    /// what to log: TRACE, DEBUG, INFO (the default), WARNING, ERROR, CRITICAL or NONE; lower case works too
    #[argh(option, arg_name = "LEVEL", default = "LevelFilter::Info", from_str_fn(parse_level))]
    pub(crate) log_level: LevelFilter,
    /// text (the default) or json: one object a line
    #[argh(option, arg_name = "FORMAT", default = "LogFormat::Text", from_str_fn(parse_format))]
    pub(crate) log_format: LogFormat,
    /// log at DEBUG, whatever --log-level says
    #[argh(option, arg_name = "yes|no", default = "false")]
    pub(crate) debug: bool,
    /// what drives the sockets and processes: smol (the default; one thread, many connections) or blocking (a thread
    /// for each)
    #[argh(option, arg_name = "RUNTIME", default = "Runtime::Smol", from_str_fn(parse_runtime))]
    pub(crate) runtime: Runtime,
    /// print the version
    #[argh(switch)]
    pub(crate) version: bool,
}

impl Flags {
    /// The level to log at: `--debug` wins over `--log-level`, unless that is TRACE.
    pub(crate) fn level(&self) -> LevelFilter {
        if self.debug { self.log_level.max(LevelFilter::Debug) } else { self.log_level }
    }

    /// Whether somebody asked for a port, under the new names or the old.
    pub(crate) fn wants_port(&self) -> bool {
        self.port.is_some() || self.host.is_some() || self.sse_port.is_some() || self.sse_host.is_some()
    }
}

/// The flags of the Python program. Its users abbreviate them, and what was unambiguous there has to stay so.
pub(crate) const PYTHON: [&str; 24] = [
    "--allow-origin",
    "--client-id",
    "--client-secret",
    "--cwd",
    "--debug",
    "--digest",
    "--env",
    "--expose-header",
    "--headers",
    "--help",
    "--host",
    "--log-level",
    "--named-server",
    "--named-server-config",
    "--pass-environment",
    "--password",
    "--port",
    "--sse-host",
    "--sse-port",
    "--stateless",
    "--token-url",
    "--transport",
    "--username",
    "--verify-ssl",
];

/// The driver to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Smol,
    Blocking,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "must be a number from 0 to 65535".into())
}

fn parse_secret(text: &str) -> Result<Secret<String>, String> {
    Ok(Secret::new(text.into()))
}

/// `KEY=VALUE`. The key is checked before, because argh would show the value beside it.
fn parse_variable(text: &str) -> Result<(String, Secret<String>), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((name.into(), Secret::new(value.into())))
}

fn parse_named(text: &str) -> Result<(String, String), String> {
    let (name, command) = text.split_once('=').unwrap_or((text, ""));
    Ok((name.into(), command.into()))
}

fn parse_header_env(text: &str) -> Result<(String, String), String> {
    let (header, name) = text.split_once('=').ok_or("must be HEADER=NAME")?;
    if !is_token(header) {
        return Err("must begin with the name of a header field".into());
    }
    Ok((header.to_ascii_lowercase(), parse_name(name)?))
}

fn parse_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(good) {
        return Err("must name a variable: letters, digits and _".into());
    }
    Ok(text.into())
}

/// The name of a header field (RFC 9110, section 5.6.2).
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Every spelling in use, here and in configuration files.
pub(crate) fn parse_transport(text: &str) -> Result<RemoteTransport, String> {
    match &*text.replace(['-', '_'], "").to_ascii_lowercase() {
        "sse" => Ok(RemoteTransport::Sse),
        "streamablehttp" | "http" => Ok(RemoteTransport::StreamableHttp),
        "auto" => Ok(RemoteTransport::Detect),
        _ => Err("must be streamablehttp, sse or auto".into()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wait = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    wait.filter(|wait| !wait.is_zero()).ok_or_else(|| "must be a number of seconds above 0, such as 30 or 2.5".into())
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number of at least 1".into())
}

fn parse_mode(text: &str) -> Result<SessionMode, String> {
    match text {
        "shared" => Ok(SessionMode::Shared),
        "per-session" => Ok(SessionMode::PerSession),
        "per-request" => Ok(SessionMode::PerRequest),
        _ => Err("must be shared, per-session or per-request".into()),
    }
}

fn parse_runtime(text: &str) -> Result<Runtime, String> {
    match text {
        "smol" => Ok(Runtime::Smol),
        "blocking" => Ok(Runtime::Blocking),
        _ => Err("must be smol or blocking".into()),
    }
}

fn parse_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".into()),
    }
}

/// The names are Python's; ours has no level for CRITICAL.
fn parse_level(text: &str) -> Result<LevelFilter, String> {
    match &*text.to_ascii_uppercase() {
        "TRACE" => Ok(LevelFilter::Trace),
        "DEBUG" => Ok(LevelFilter::Debug),
        "INFO" => Ok(LevelFilter::Info),
        "WARNING" | "WARN" => Ok(LevelFilter::Warn),
        "ERROR" | "CRITICAL" => Ok(LevelFilter::Error),
        "NONE" | "OFF" => Ok(LevelFilter::Off),
        _ => Err("must be TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL or NONE".into()),
    }
}
