//! What an engine is told at its start, and every number that bounds it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::io::{Command, Headers, Secret};

/// Everything an engine is told. Start from [`Config::new`] and change what differs.
///
/// ```
/// use mcp_proxy_engine::{Command, Config, Server};
/// let command = Command { program: "uvx".into(), args: vec!["mcp-server-time".into()], env: vec![], cwd: None };
/// let mut config = Config::new(Server::new("default", command));
/// config.limits.max_body = 1 << 20;
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers to offer. One named `default` is reached at `/mcp`, each at `/servers/NAME/mcp`.
    pub servers: Vec<Server>,
    /// Who may talk to us.
    pub access: Access,
    /// Bounds of every table, queue and buffer.
    pub limits: Limits,
    /// Bounds of every wait.
    pub timeouts: Timeouts,
    /// What the drivers enforce while they read and write HTTP. The engine only carries it, so that both do the same.
    pub http: Http,
    /// How the drivers reach remote servers. The engine only carries it.
    pub outbound: Outbound,
    /// Where clients come from.
    pub front: FrontKind,
    /// What seals the `requestState` that clients of revision 2026-07-28 bring back: 32 secret bytes. The drivers make them up
    /// where there are none, so that they last as long as the process; give the same ones to several proxies for them to
    /// know each other's. Without any, no such client can be asked anything.
    pub state_key: Option<Secret<[u8; 32]>>,
    /// The wall clock at the driver's origin, as the time since 1970 began; drivers set it. Only `/status` shows it.
    pub started: Option<Duration>,
}

/// Where clients come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrontKind {
    /// Over HTTP, any number of them: Streamable HTTP and HTTP+SSE.
    #[default]
    Http,
    /// Over our own stdin and stdout, one: the first configured server is what it talks to. The end of stdin is the end.
    Stdio,
}

/// How a driver reaches remote servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// How the certificate of a remote server is checked.
    pub verify: Verify,
    /// The proxy for `http` URLs (`http://[user:password@]host:port`), from `HTTP_PROXY`.
    pub http_proxy: Option<Secret<String>>,
    /// The proxy for `https` URLs, by CONNECT, from `HTTPS_PROXY`.
    pub https_proxy: Option<Secret<String>>,
    /// Hosts that are reached without a proxy, from `NO_PROXY`: names (with all their subdomains), addresses, or `*`.
    pub no_proxy: Vec<String>,
    /// For the name, the connection and the TLS handshake, each. 10 s.
    pub connect_timeout: Duration,
    /// From the request to the head of its response. One hour, as for any answer: JSON comes when the tool is done.
    pub head_timeout: Duration,
    /// Between two pieces of a body. One hour: not every server sends comments while a tool works.
    pub body_timeout: Duration,
}

impl Default for Outbound {
    fn default() -> Self {
        Outbound {
            verify: Verify::Native,
            http_proxy: None,
            https_proxy: None,
            no_proxy: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(3600),
            body_timeout: Duration::from_secs(3600),
        }
    }
}

/// How the certificate of a remote server is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// By the roots of the system, or the built-in ones where the system has none.
    #[default]
    Native,
    /// By the certificates of this PEM file.
    Bundle(PathBuf),
    /// Not at all.
    Nothing,
}

impl Config {
    /// The defaults, for one server.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Config {
            servers: vec![server],
            access: Access::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            http: Http::default(),
            outbound: Outbound::default(),
            front: FrontKind::default(),
            state_key: None,
            started: None,
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// Says which value is wrong and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError(text));
        if self.servers.is_empty() {
            return fail("no server is configured; give a command".into());
        }
        for (n, server) in self.servers.iter().enumerate() {
            if server.name.is_empty() || !server.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            {
                return fail(format!("the server name {:?} must be letters, digits, '-', '_' and '.'", server.name));
            }
            if self.servers[..n].iter().any(|other| other.name == server.name) {
                return fail(format!("the server name {:?} is used twice", server.name));
            }
        }
        let l = &self.limits;
        for (what, value) in [
            ("max_body", l.max_body),
            ("max_message", l.max_message),
            ("max_sessions", l.max_sessions),
            ("max_children", l.max_children),
            ("max_exchanges", l.max_exchanges),
            ("max_calls", l.max_calls),
            ("max_batch", l.max_batch),
            ("max_queue", l.max_queue),
            ("max_unread", l.max_unread),
        ] {
            if value == 0 {
                return fail(format!("the limit {what} must be at least 1"));
            }
        }
        let t = &self.timeouts;
        for (what, value) in [("keep_alive", t.keep_alive), ("start", t.start)] {
            if value.is_zero() {
                return fail(format!("the time {what} must be longer than zero"));
            }
        }
        Ok(())
    }
}

/// One server behind the proxy.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name: in log lines and in `/servers/NAME/mcp`. Letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// How to reach it.
    pub origin: Origin,
    /// Which clients share one process.
    pub sessions: SessionMode,
    /// Give out no session ids: every request stands alone. GET and DELETE are refused then.
    pub stateless: bool,
    /// Start one process with the proxy, before the first client comes.
    pub prestart: bool,
    /// Which variables of its process a client may set by the query of its URL. For a local server only.
    pub url_env: UrlEnv,
    /// Variables of its process that come from header fields of a client's request: the lower-case name of the field and
    /// the variable. For a local server only.
    pub header_env: Vec<(String, String)>,
    /// For the answer to one call to this server, in place of [`Timeouts::request`].
    pub timeout: Option<Duration>,
}

/// Which variables of a server process a client may set by the query of its URL (`/sse?NAME=value`). Names that change how
/// programs are found, loaded or run are refused with 400, whatever this says.
#[derive(Clone, Debug, Default)]
pub enum UrlEnv {
    /// None.
    #[default]
    Off,
    /// These.
    Listed(Vec<String>),
    /// All but those that are always refused.
    Any,
}

impl Server {
    /// A server with the defaults: shared, with sessions, started with the proxy.
    #[must_use]
    pub fn new(name: impl Into<String>, command: Command) -> Self {
        Server {
            name: name.into(),
            origin: Origin::Local(command),
            sessions: SessionMode::Shared,
            stateless: false,
            prestart: true,
            url_env: UrlEnv::Off,
            header_env: Vec::new(),
            timeout: None,
        }
    }
}

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A program to start, which speaks stdio.
    Local(Command),
    /// A server to reach over HTTP.
    Remote(Remote),
}

/// A server to reach over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its endpoint, `http` or `https`.
    pub url: Secret<String>,
    /// How to speak to it.
    pub transport: RemoteTransport,
    /// Header fields to send with every request; secrets among them.
    pub headers: Headers,
    /// How to prove who we are, beside those headers.
    pub credentials: Credentials,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Remote")
            .field("url", &self.url)
            .field("transport", &self.transport)
            .field("headers", &names)
            .field("credentials", &self.credentials)
            .finish()
    }
}

/// How to speak to a remote server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteTransport {
    /// Find out: Streamable HTTP first, HTTP+SSE if that is refused.
    #[default]
    Detect,
    /// Streamable HTTP.
    StreamableHttp,
    /// HTTP+SSE (2024-11-05).
    Sse,
}

/// How to prove who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all, or by the headers.
    #[default]
    None,
    /// `Authorization: Bearer`.
    Bearer(Secret<String>),
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret<String>,
    },
    /// `Authorization: Digest` (RFC 7616), after the server's challenge.
    Digest {
        /// The user.
        username: String,
        /// The password.
        password: Secret<String>,
    },
    /// OAuth 2.0 client credentials (RFC 6749, section 4.4): a token is fetched, kept, and renewed before it ends.
    ClientCredentials {
        /// The client.
        id: String,
        /// Its secret.
        secret: Secret<String>,
        /// Where tokens are.
        token_url: String,
    },
}

/// Which clients share one server process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionMode {
    /// Clients that the server cannot tell apart share a process: they speak the same revision and declare the same
    /// capabilities, none of which lets the server ask the client something (roots, sampling, elicitation). A client that
    /// can be asked gets a process of its own, because nothing in a question says which client it is for.
    #[default]
    Shared,
    /// One process for each session.
    PerSession,
    /// One process for each HTTP request, and no sessions.
    PerRequest,
}

/// Who may talk to us. Browsers are held off by `Origin` and `Host` (DNS rebinding): specification 2025-11-25,
/// basic/transports, "Security Warning".
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Origins allowed beside the loopback ones, such as `https://app.example`; `*` allows all.
    pub allowed_origins: Vec<String>,
    /// Host names (without a port) that requests may name beside the loopback ones; `*` allows all. When we listen on a
    /// loopback address, any other name in `Host` is refused.
    pub allowed_hosts: Vec<String>,
    /// We listen on more than loopback: our names are unknown, so `Host` is only checked if `allowed_hosts` has entries.
    pub public: bool,
    /// What proves that a request may come in, as `Authorization: Bearer`, `X-API-Key` or `?auth_key=`: one of these. Empty:
    /// nothing needs to be proved.
    pub auth_tokens: Vec<Secret<String>>,
    /// Origins whose web pages are answered with CORS header fields; `*` is every origin. Empty: no CORS.
    pub cors_origins: Vec<String>,
    /// Response header fields, in lower case, that those pages may read beside `mcp-session-id`.
    pub expose_headers: Vec<String>,
}

/// Bounds of tables, queues and buffers. Bytes unless said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body. 4 MiB, as the official SDKs have it; beyond it the answer is 413.
    pub max_body: usize,
    /// Largest message from a server. 64 MiB: well above what a model can use, well below what hurts a small machine.
    /// A longer one is skipped and the call it answers fails.
    pub max_message: usize,
    /// Sessions alive at once. 10,000; beyond it `initialize` is answered 503.
    pub max_sessions: usize,
    /// Child processes alive at once. 256: a child is tens of megabytes; beyond it requests are answered 503.
    pub max_children: usize,
    /// HTTP requests being answered at once, streams included. 20,000; beyond it 503.
    pub max_exchanges: usize,
    /// Calls waiting for one server process. 4,096; beyond it 503.
    pub max_calls: usize,
    /// Messages in one batch (2025-03-26). 100, as the official SDK has it.
    pub max_batch: usize,
    /// Bytes queued toward one slow reader (a client's stream, a server's stdin). 8 MiB; one message more is let in, then
    /// reading stops (dedicated server), the stream is closed (shared server) or the call is refused (stdin).
    pub max_queue: usize,
    /// Bytes that wait for slow clients of shared servers, all together. 64 MiB; beyond it, an answer to a client that has
    /// more than `max_queue` unread is replaced by an error.
    pub max_unread: usize,
    /// Events a session keeps for resumption by `Last-Event-ID`. 1,024.
    pub replay_events: usize,
    /// Bytes a session keeps for resumption. 4 MiB; a longer event is delivered but not kept.
    pub replay_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body: 4 << 20,
            max_message: 64 << 20,
            max_sessions: 10_000,
            max_children: 256,
            max_exchanges: 20_000,
            max_calls: 4_096,
            max_batch: 100,
            max_queue: 8 << 20,
            max_unread: 64 << 20,
            replay_events: 1_024,
            replay_bytes: 4 << 20,
        }
    }
}

/// Bounds of waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start of a process to its `initialize` answer. 120 s: `npx` and `uvx` may download first.
    pub start: Duration,
    /// For the answer to one call, counted anew at each progress notification. One hour: longer than any tool is known to
    /// take in silence, short enough that nothing is held for ever.
    pub request: Duration,
    /// From a client's `notifications/cancelled` to our own answer in the server's place. 1 s.
    pub cancel: Duration,
    /// For a client of revision 2026-07-28 to come back with what a server wants to know. 10 min: a person may have to find
    /// it out. Then the call is cancelled.
    pub input: Duration,
    /// A session without open requests or streams ends after this. 30 min: most clients never send DELETE.
    pub session_idle: Duration,
    /// A shared process without sessions stops after this, unless it is the last one of its server. 5 min.
    pub child_idle: Duration,
    /// A request without an answer turns into an event stream after this, and each stream carries a comment this often.
    /// 15 s: below the idle limits of common proxies.
    pub keep_alive: Duration,
    /// At shutdown, calls in flight may still finish for this long. 1 s.
    pub drain: Duration,
    /// From closing a child's stdin to SIGTERM. 1 s.
    pub stop_stdin: Duration,
    /// From SIGTERM to SIGKILL. 1.5 s; with the two before it a shutdown ends within 5 s.
    pub stop_term: Duration,
    /// First wait before a crashed process is started again; doubled at each crash in a row. The very first restart is
    /// immediate. 250 ms.
    pub backoff_first: Duration,
    /// Longest such wait. 30 s.
    pub backoff_max: Duration,
    /// A process that stays up this long has recovered: crashes are counted anew. 10 s.
    pub backoff_reset: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            start: Duration::from_secs(120),
            request: Duration::from_secs(3600),
            cancel: Duration::from_secs(1),
            input: Duration::from_secs(10 * 60),
            session_idle: Duration::from_secs(30 * 60),
            child_idle: Duration::from_secs(5 * 60),
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_secs(1),
            stop_stdin: Duration::from_secs(1),
            stop_term: Duration::from_millis(1500),
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            backoff_reset: Duration::from_secs(10),
        }
    }
}

/// What a driver enforces at its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Connections open at once. 10,000; further ones wait in the system's queue.
    pub max_connections: usize,
    /// Bytes of one request head. 64 KiB; beyond it the answer is 431.
    pub max_head: usize,
    /// From the first byte of a head to its end. 10 s; then 408 and the end of the connection.
    pub head_timeout: Duration,
    /// For a whole request body. 60 s; then 408 and the end of the connection.
    pub body_timeout: Duration,
    /// Between two requests on one connection. 75 s.
    pub idle_timeout: Duration,
    /// Without any progress in writing to a client that does not read. 60 s; then the connection is cut.
    pub write_timeout: Duration,
    /// Serve `https` with this certificate instead of `http`.
    pub tls: Option<Tls>,
}

/// A certificate and its key, for serving `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the certificate chain, the server's own certificate first.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            max_connections: 10_000,
            max_head: 64 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            tls: None,
        }
    }
}

/// Why an engine could not be made. The text is for people and names the value at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(crate) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}
