//! The vocabulary: everything a driver can tell the engine, and everything the engine can ask of a driver.
//!
//! Nothing but types. [`Event`], [`Action`], [`Output`] and [`Pipe`] are exhaustive on purpose: a new action must
//! break every driver at compile time.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// A moment on the driver's clock: the time since an origin that the driver chose, usually its own start.
///
/// It is not [`std::time::Instant`] because that one can only be had from a real clock, while a recording, a simulator
/// and a test need moments they can make.
///
/// ```
/// use mcp_proxy_engine::Instant;
/// use std::time::Duration;
/// let start = Instant::ZERO;
/// let later = start + Duration::from_millis(250);
/// assert_eq!(later.since(start), Duration::from_millis(250));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// The origin of the driver's clock.
    pub const ZERO: Instant = Instant(Duration::ZERO);

    /// The moment that lies `elapsed` after the origin.
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Instant(elapsed)
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from the origin to here.
    #[must_use]
    pub const fn elapsed(self) -> Duration {
        self.0
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(wait))
    }
}

/// Names one HTTP request and its response. Made by the driver, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// Names one child process. Made by the engine, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// Names one HTTP request of ours and its response. Made by the engine, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// A stream of bytes between the engine and the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pipe {
    /// Our own standard input; the engine reads it.
    Stdin,
    /// Our own standard output; the engine writes it.
    Stdout,
    /// A child's standard input; the engine writes it.
    ChildStdin(ChildId),
    /// A child's standard output; the engine reads it.
    ChildStdout(ChildId),
    /// A child's standard error; the engine reads it.
    ChildStderr(ChildId),
    /// The body of a streamed response; the engine writes it.
    Response(ExchangeId),
    /// The body of a response to a request of ours; the engine reads it.
    Fetched(FetchId),
}

/// What a driver tells the engine.
#[derive(Debug)]
pub enum Event<'a> {
    /// A read that [`Action::Read`] permitted brought these bytes (never empty).
    Data(Pipe, &'a [u8]),
    /// The bytes of the last [`Action::Write`] on this pipe are written and flushed.
    Wrote(Pipe),
    /// The pipe ended: `None` at its regular end, else what went wrong.
    ///
    /// For [`Pipe::Response`] this is the terminal event of the exchange, sent exactly once: when the whole response
    /// was written (`None`), or when the client went away, whether or not it was answered yet (`Some`).
    Closed(Pipe, Option<ErrorKind>),
    /// A client sent a complete HTTP request.
    Request(ExchangeId, HttpRequest),
    /// The child runs.
    Spawned(ChildId),
    /// The child could not be started. The terminal event of that child.
    SpawnFailed(ChildId, ErrorKind),
    /// The child process ended, and every process left in its group was killed. The terminal event of that child; its
    /// [`Pipe::ChildStdout`] and [`Pipe::ChildStderr`] may still bring bytes and end by themselves.
    Exited(ChildId, Exit),
    /// The head of a response to a request of ours came. Its `body` is [`Body::Stream`]: it is read from
    /// [`Pipe::Fetched`], decoded from any content coding, to its end. [`Event::Closed`] of that pipe is the terminal event
    /// of the fetch: its regular end is `None`; it also follows on [`Action::Close`].
    Fetched(FetchId, HttpResponse),
    /// There will be no response. The terminal event of that fetch, also after [`Action::Close`] before its head came.
    FetchFailed(FetchId, FetchError),
    /// Stop: once is a request to finish, twice is a demand to end at once.
    Shutdown,
}

/// What the engine asks of a driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Permission for one read of at most [`MAX_READ`] bytes.
    Read(Pipe),
    /// Write all of these bytes and flush. Never issued while another write on the same pipe is unfinished.
    Write(Pipe, Vec<u8>),
    /// Drop our end of the pipe. For [`Pipe::Response`]: end the response body properly.
    Close(Pipe),
    /// Answer an exchange.
    Respond(ExchangeId, HttpResponse),
    /// Start a child in a process group of its own, with three pipes.
    Spawn(ChildId, Command),
    /// Signal the child's whole process group.
    Kill(ChildId, Signal),
    /// Send an HTTP request to a server. Redirects are not followed; any status is a response.
    Fetch(FetchId, FetchRequest),
}

/// What [`Engine::poll`](crate::Engine::poll) returns.
#[must_use = "an action that is not performed is lost for ever"]
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Perform this, then poll again.
    Do(Action),
    /// Nothing to do until an event comes, or until this moment.
    Wait(Option<Instant>),
    /// Everything has ended; the engine wants nothing any more.
    Done,
}

/// The most bytes one [`Event::Data`] may carry.
pub const MAX_READ: usize = 64 * 1024;

/// A signal for a child's process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A request to end (SIGTERM).
    Term,
    /// The end (SIGKILL).
    Kill,
}

/// How a child process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The system does not say.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with status {code}"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::Unknown => f.write_str("ended for an unknown reason"),
        }
    }
}

/// A program to start. The environment is complete: a driver passes on these variables and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program: a path, or a name to look up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, Secret<OsString>)>,
    /// Its working directory; `None` for the proxy's own.
    pub cwd: Option<PathBuf>,
}

/// A value that must not be shown: its `Debug` hides it.
///
/// ```
/// use mcp_proxy_engine::Secret;
/// assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Self {
        Secret(value)
    }

    /// The value, for the one place that needs it.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// HTTP header fields in order. Names are lower case; values are Latin-1 text, so any byte a field may hold survives.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, Cow<'static, str>)>);

impl Headers {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Headers(Vec::new())
    }

    /// Appends a field. `name` must be in lower case.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
        let name = name.into();
        debug_assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "header names are lower case");
        self.0.push((name, value.into()));
    }

    /// The first field of this (lower-case) name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| &**v)
    }

    /// Every field of this (lower-case) name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| &**v)
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (&**n, &**v))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Any field may prove who somebody is. These do not; the values of all others stay out of every log.
        const PLAIN: [&str; 13] = [
            "accept",
            "allow",
            "cache-control",
            "connection",
            "content-length",
            "content-type",
            "host",
            "last-event-id",
            "mcp-protocol-version",
            "origin",
            "retry-after",
            "transfer-encoding",
            "user-agent",
        ];
        f.debug_map().entries(self.iter().map(|(n, v)| (n, if PLAIN.contains(&n) { v } else { "***" }))).finish()
    }
}

/// One complete HTTP request.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, as sent.
    pub method: String,
    /// The request target, as sent: origin form or absolute form.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The whole body, decoded from its transfer coding.
    pub body: Vec<u8>,
    /// Fresh bytes from the operating system's random source: the engine makes session ids of them.
    pub random: [u8; 16],
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold a key, and the random bytes become a session id.
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{} {path} {:?}, {} bytes", self.method, self.headers, self.body.len())
    }
}

/// An HTTP request of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The method: GET, POST or DELETE.
    pub method: &'static str,
    /// The absolute URL, `http` or `https`. It may hold a key in its query.
    pub url: Secret<String>,
    /// The header fields, without those of framing and without `host` and `accept-encoding`, which are the driver's.
    pub headers: Headers,
    /// The whole body; empty for none.
    pub body: Vec<u8>,
}

impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.reveal().split(['?', '#']).next().unwrap_or_default();
        write!(f, "{} {url} {:?}, {} bytes", self.method, self.headers, self.body.len())
    }
}

/// Why a request of ours has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// The sort of failure.
    pub kind: FetchErrorKind,
    /// For people: one line, without a full stop, without secrets.
    pub text: String,
}

/// The sorts of failure of a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchErrorKind {
    /// The name has no address.
    Name,
    /// Nobody listens there, or no way leads there.
    Connect,
    /// The certificate is not trusted, or the handshake failed.
    Tls,
    /// A time limit passed.
    Timeout,
    /// The other side did not speak HTTP, or went away in the middle.
    Protocol,
    /// We ended it.
    Cancelled,
}

/// An HTTP response.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The header fields, without those of framing (`content-length`, `transfer-encoding`, `connection`, `date`), which
    /// are the driver's.
    pub headers: Headers,
    /// What follows.
    pub body: Body,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}, ", self.status, self.headers)?;
        match &self.body {
            Body::Full(bytes) => write!(f, "{} bytes", bytes.len()),
            Body::Stream => f.write_str("stream"),
        }
    }
}

/// The body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// All of it. The exchange ends when it is written.
    Full(Vec<u8>),
    /// It follows by [`Action::Write`] on [`Pipe::Response`], until [`Action::Close`]. The head is sent at once.
    Stream,
}
