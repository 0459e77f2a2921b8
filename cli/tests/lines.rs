//! Runs every command line of `lines.txt` as a shell does, with stand-ins for the programs and hosts that it names, and has
//! an MCP client talk through it wherever it promises that one can.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod table;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use common::{Certificate, Folder, INITIALIZE, PATIENCE, Process};
use table::Case;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-proxy");
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-ins/server");
const DOCKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-ins/docker");

#[test]
fn every_line_runs() {
    run_all(&["rule"]);
}

#[test]
fn every_line_runs_on_the_blocking_runtime() {
    run_all(&["rule", "blocking"]);
}

fn run_all(kinds: &[&str]) {
    let cases = table::cases();
    let (rules, cases) = cases.split_first().unwrap();
    let rules: Vec<_> = kinds.iter().flat_map(|kind| rules.arrows(kind)).collect();
    let mut failed = Vec::new();
    let mut used = HashSet::new();
    for case in cases {
        // The others are of interest too, and what each process said is shown with its own line.
        if catch_unwind(AssertUnwindSafe(|| Stage::new(&rules, &mut used).run(case))).is_err() {
            failed.push(case.line);
        }
    }
    assert_eq!(failed, [""; 0]);
    let idle: Vec<_> = rules.iter().filter(|rule| !used.contains(*rule)).collect();
    assert!(idle.is_empty(), "rules without effect: {idle:?}");
}

/// What is printed, and what is run in its place.
type Rule = (&'static str, &'static str);

/// Where a line runs, and all that it may meet.
struct Stage<'a> {
    rules: &'a [Rule],
    /// The rules that had an effect, on any line.
    used: &'a mut HashSet<Rule>,
    folder: Folder,
    certificate: Certificate,
    /// What placeholders stand for, from their first use on.
    values: Vec<(&'static str, String)>,
    remote: Option<Remote>,
    port: Option<UdpSocket>,
}

/// The server of the example hosts, and the folder in which it notes what it sees.
struct Remote {
    process: Process,
    folder: Folder,
}

impl<'a> Stage<'a> {
    fn new(rules: &'a [Rule], used: &'a mut HashSet<Rule>) -> Self {
        let folder = folder();
        for program in ["uvx", "npx", "your-command"] {
            common::link(&folder.0, program, SERVER);
        }
        common::link(&folder.0, "docker", DOCKER);
        common::link(&folder.0, "mcpproxy", PROGRAM);
        folder.file("servers.json", include_str!("servers.json"));
        folder.file("no-servers.json", r#"{"mcp": {}}"#);
        let certificate = Certificate::new(&folder, "own");
        Stage { rules, used, folder, certificate, values: Vec::new(), remote: None, port: None }
    }

    /// What is run in place of what is printed.
    fn put_in(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for rule in self.rules {
            if text.contains(rule.0) {
                text = text.replace(rule.0, rule.1);
                self.used.insert(*rule);
            }
        }
        for name in ["{port}", "{remote}", "{remote-tls}", "{tokens}", "{certificate}"] {
            if text.contains(name) {
                text = text.replace(name, &self.value(name));
            }
        }
        text
    }

    fn value(&mut self, name: &'static str) -> String {
        if let Some((_, value)) = self.values.iter().find(|(known, _)| *known == name) {
            return value.clone();
        }
        let value = match name {
            "{port}" => {
                let (port, sign) = free_port();
                self.port = Some(sign);
                port.to_string()
            }
            "{remote}" => self.remote(&[]),
            "{remote-tls}" => {
                let (cert, key) = (self.certificate.cert.clone(), self.certificate.key.clone());
                self.remote(&["--tls-cert", &cert, "--tls-key", &key])
            }
            "{tokens}" => tokens(&self.certificate).to_string(),
            "{certificate}" => self.certificate.cert.clone(),
            _ => panic!("{name}"),
        };
        self.values.push((name, value.clone()));
        value
    }

    /// Starts the remote server. Header fields become variables of its own server process, which notes them.
    fn remote(&mut self, flags: &[&str]) -> String {
        let folder = folder();
        common::link(&folder.0, "remote", SERVER);
        let mut command = surroundings(&folder);
        command.arg("mcp-proxy").args(flags).args(["--port=0", "--session-mode=per-session"]);
        for (field, variable) in [("Authorization", "AUTHORIZATION"), ("X-A", "X_A"), ("X-B", "X_B")] {
            command.arg(format!("--env-from-header={field}={variable}"));
        }
        command.arg("remote");
        let process = Process::start(command);
        let address = process.address();
        assert!(self.remote.is_none(), "two remote servers");
        self.remote = Some(Remote { process, folder });
        address.rsplit_once(':').unwrap().1.to_owned()
    }

    fn run(&mut self, case: &Case) {
        let text = self.put_in(&case.filled());
        eprintln!("{}\n{text}", case.line);
        // `env` takes the place of the shell, and the program that of `env`: signals find it.
        let mut command = surroundings(&self.folder);
        command.args(["sh", "-c", &format!("exec env {text}")]).current_dir(&self.folder.0);
        for variable in case.all("under") {
            let variable = self.put_in(variable);
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        let process = Process::start(command);
        let means = case.one("means").unwrap_or_default();
        let prints: Vec<_> = case.all("prints").collect();
        match (means.strip_prefix("error "), case.one("stdio"), case.one("listens")) {
            (Some(error), None, None) => fails(process, error),
            (None, Some(sees), None) => self.speaks_stdio(process, sees),
            (None, None, Some(address)) => {
                let address = self.put_in(address);
                self.speaks_http(process, case, &address);
            }
            (None, None, None) if !prints.is_empty() => prints_and_ends(process, &prints),
            _ => panic!("what is expected of {}?", case.line),
        }
    }

    fn speaks_stdio(&mut self, mut process: Process, sees: &str) {
        converse(|message| {
            process.say(&message.to_string());
            if message["id"].is_null() { Value::Null } else { process.hear() }
        });
        process.end();
        let mut remote = self.remote.take().expect("a remote server");
        remote.process.signal(Signal::TERM);
        assert_eq!(remote.process.ended().code(), Some(0));
        let expected = format!("remote {sees}");
        let before = (!sees.is_empty()).then_some("remote");
        assert_eq!(notes(&remote.folder, &[expected.trim_end()], before), 1, "sessions");
    }

    fn speaks_http(&self, mut process: Process, case: &Case, address: &str) {
        let (host, port) = address.rsplit_once(':').unwrap();
        let key = case.one("key");
        let query = case.one("query");
        let mut web = Web { agent: agent(), address: String::new(), key, query: query.unwrap_or_default() };
        let (roots, words): (Vec<_>, Vec<_>) = case.all("serves").map(|text| text.split_once(" = ").unwrap()).unzip();
        for root in &roots {
            let address = process.address();
            let (announced, at) = address.rsplit_once(':').unwrap();
            assert!(announced == host && (port == "*" || at == port), "{address}");
            web.address = format!("127.0.0.1:{at}");
            // All of 127.0.0.0/8 is this machine, and only who listens everywhere is at its other addresses.
            if cfg!(target_os = "linux") {
                let elsewhere = format!("127.0.0.2:{at}");
                assert_eq!(TcpStream::connect(&elsewhere).is_ok(), host == "0.0.0.0");
                web.address = if host == "0.0.0.0" { elsewhere } else { web.address };
            }
            web.streamable_http(&format!("{root}mcp"));
            web.streamable_http(&format!("{root}mcp/"));
            web.sse(root);
        }
        web.manners(&case.all("header").collect::<Vec<_>>());
        process.signal(Signal::TERM);
        assert_eq!(process.rest_of_output(), [""; 0]);
        assert_eq!(process.ended().code(), Some(0));

        // The process that was there before anybody came has nothing of its URL.
        let before = query.map(|query| words[0].replace(&format!(" {query}"), ""));
        let count = notes(&self.folder, &words, before.as_deref());
        let expected = case.one("processes").map_or(roots.len(), |n| n.parse().unwrap());
        assert_eq!(count, expected, "server processes");
    }
}

fn folder() -> Folder {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let folder = Folder::new(&format!("line-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    common::link(&folder.0, "mcp-proxy", PROGRAM);
    folder
}

/// A command that still needs its words, surrounded by what every line is surrounded by.
fn surroundings(folder: &Folder) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", folder.0.display())).env("HOME", &folder.0);
    command.env("OUTSIDE", "1");
    command
}

/// A port that stays free: outside of the range from which systems take ports by themselves. Runs of this test keep off each
/// other by the UDP port of the same number.
fn free_port() -> (u16, UdpSocket) {
    let start = 10_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let free = |port| {
        let sign = UdpSocket::bind(("127.0.0.1", port)).ok()?;
        // To bind it would be to hand it to whatever process is just being started.
        TcpStream::connect(("127.0.0.1", port)).is_err().then_some((port, sign))
    };
    (start..32_000).find_map(free).expect("a free port")
}

/// Stands in for an authorization server: the token shows who asked.
fn tokens(certificate: &Certificate) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.made.cert.der().clone()], key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut peer = BufReader::new(rustls::StreamOwned::new(session, socket.unwrap()));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && peer.read_line(&mut head).unwrap() > 0 {}
            let head = head.to_ascii_lowercase();
            let length = head.split_once("content-length: ").unwrap().1.split_once('\r').unwrap().0;
            let mut body = vec![0; length.parse().unwrap()];
            peer.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            // ID:S
            let known = head.starts_with("post /token ") && head.contains("authorization: basic suq6uw==\r\n");
            let good = known && body.split('&').any(|pair| pair == "grant_type=client_credentials");
            let token = if good { "for-ID-and-S" } else { "for-somebody-else" };
            let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
            let peer = peer.get_mut();
            write!(peer, "{head}{}\r\n\r\n{answer}", answer.len()).unwrap();
            peer.conn.send_close_notify();
            peer.flush().unwrap();
        }
    });
    port
}

/// `CODE TEXT`: the exit code, and the last thing it says.
fn fails(mut process: Process, error: &str) {
    let (code, text) = error.split_once(' ').unwrap();
    assert_eq!(process.rest_of_output(), [""; 0]);
    assert_eq!(process.rest_of_log().last(), Some(&format!("mcp-proxy: {text}")));
    assert_eq!(process.ended().code(), Some(code.parse().unwrap()));
}

fn prints_and_ends(mut process: Process, parts: &[&str]) {
    let text = process.rest_of_output().join("\n");
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(process.rest_of_log(), [""; 0]);
    assert_eq!(process.ended().code(), Some(0));
}

/// Compares what the server processes of a folder noted with what they should have: each of `expected` has to be there, and
/// beside it at most the one that was started `before` anybody came, if it came so far. Returns how many others ran.
fn notes(folder: &Folder, expected: &[&str], before: Option<&str>) -> usize {
    let files = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ran."));
    let notes: Vec<_> = files.map(|path| note(&fs::read_to_string(path).unwrap())).collect();
    assert!(expected.iter().all(|text| notes.iter().any(|note| note == text)), "{notes:#?} not {expected:#?}");
    let (expected, others): (Vec<_>, Vec<_>) = notes.iter().partition(|note| expected.contains(&note.as_str()));
    assert!(others.is_empty() || before.is_some_and(|before| others == [before]), "{others:#?} beside {expected:#?}");
    expected.len()
}

/// The words of a server process, then its variables in order, without those that every process has.
fn note(text: &str) -> String {
    let (words, variables) = text.split_once('\n').unwrap();
    let mut variables: Vec<_> = variables.lines().collect();
    variables.sort_unstable();
    variables.retain(|variable| {
        let (name, _) = variable.split_once('=').unwrap();
        !["HOME", "OLDPWD", "PATH", "PWD", "SHLVL", "_"].contains(&name) && !name.starts_with("__")
    });
    [&[words], &variables[..]].concat().join(" ")
}

/// What a client and a server say to each other. `ask` carries a message over and brings back the answer.
fn converse(mut ask: impl FnMut(&Value) -> Value) {
    let answer = ask(&serde_json::from_str(INITIALIZE).unwrap());
    assert_eq!((&answer["id"], &answer["result"]["serverInfo"]["name"]), (&json!(1), &json!("mcp-proxy-demo")));
    ask(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let answer = ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}));
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert!(tools.iter().any(|tool| tool["name"] == "add"), "{answer}");
    let params = json!({"name": "add", "arguments": {"a": 19, "b": 23}});
    let answer = ask(&json!({"jsonrpc": "2.0", "id": "three", "method": "tools/call", "params": params}));
    assert_eq!((&answer["id"], &answer["result"]["structuredContent"]), (&json!("three"), &json!({"sum": 42})));
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None);
    config.timeout_global(Some(PATIENCE)).build().into()
}

/// Clients that come by HTTP.
struct Web {
    agent: Agent,
    address: String,
    key: Option<&'static str>,
    /// A further parameter of the URL, or nothing.
    query: &'static str,
}

type Answer = Response<ureq::Body>;

impl Web {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = self.agent.get(self.url(path));
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call().unwrap()
    }

    fn post(&self, path: &str, fields: &[(&str, &str)], message: &Value) -> Answer {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send(message.to_string()).unwrap()
    }

    /// A conversation by Streamable HTTP. The key is in a header field.
    fn streamable_http(&self, path: &str) {
        let key = self.key.map(|key| format!("Bearer {key}"));
        let path = format!("{path}?{}", self.query);
        let mut fields = vec![("accept", "application/json, text/event-stream".to_owned())];
        if let Some(key) = key {
            assert_eq!(self.post(&path, &[], &json!({})).status(), 401);
            fields.push(("authorization", key));
        }
        let mut session = None;
        converse(|message| {
            let fields: Vec<_> = fields.iter().chain(&session).map(|(name, value)| (*name, value.as_str())).collect();
            let answer = self.post(&path, &fields, message);
            if message["id"].is_null() {
                assert_eq!(answer.status(), 202);
                return Value::Null;
            }
            assert_eq!(answer.status(), 200, "{answer:?}");
            let id = answer.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
            if let Some(id) = id.filter(|_| session.is_none()) {
                assert!(is_session(&id), "{id}");
                session = Some(("mcp-session-id", id));
            }
            let events = answer.headers()["content-type"] == "text/event-stream";
            let mut body = BufReader::new(answer.into_body().into_reader());
            if events { event(&mut body).1 } else { serde_json::from_reader(body).unwrap() }
        });
        let (_, id) = session.expect("a session");
        let request = self.agent.delete(self.url(&path)).header("mcp-session-id", id);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, value));
        assert_eq!(request.call().unwrap().status(), 200);
    }

    /// A conversation by HTTP+SSE. The key is in the URL, and nowhere else.
    fn sse(&self, root: &str) {
        let key = self.key.map(|key| format!("auth_key={key}"));
        if key.is_some() {
            assert_eq!(self.get(&format!("{root}sse"), &[]).status(), 401);
        }
        let path = format!("{root}sse?{}&{}", key.unwrap_or_default(), self.query);
        let answer = self.get(&path, &[("accept", "text/event-stream")]);
        assert!(answer.status() == 200 && answer.headers()["content-type"] == "text/event-stream", "{answer:?}");
        let mut stream = BufReader::new(answer.into_body().into_reader());
        let (name, place) = event(&mut stream);
        let place = place.as_str().unwrap().to_owned();
        let id = place.strip_prefix(&format!("{root}messages/?session_id=")).unwrap_or_else(|| panic!("{place}"));
        assert!(name == "endpoint" && is_session(id.split('&').next().unwrap()), "{name} {place}");
        converse(|message| {
            assert_eq!(self.post(&place, &[], message).status(), 202);
            if message["id"].is_null() { Value::Null } else { event(&mut stream).1 }
        });
    }

    /// What is at the other paths, and what a page of another origin is told.
    fn manners(&self, fields: &[&str]) {
        let key = self.key.unwrap_or_default();
        let fields_of_page = [("x-api-key", key), ("origin", "https://page.example")];
        let fields_of_client = &fields_of_page[..1];
        let status = |path| self.get(path, fields_of_client).status();
        assert_eq!(status("/nothing"), 404);
        assert_eq!(self.agent.head(self.url("/status")).header("x-api-key", key).call().unwrap().status(), 200);
        let nobody = format!("/messages/?session_id={}", "0".repeat(32));
        assert_eq!(self.post(&nobody, fields_of_client, &json!({})).status(), 404);
        let mut answer = self.get("/status", fields_of_client);
        let text: Value = serde_json::from_reader(answer.body_mut().as_reader()).unwrap();
        let keys = ["api_last_activity", "active_sse_connections", "server_instances"];
        assert!(keys.iter().all(|key| !text[key].is_null()), "{text}");
        if !fields.is_empty() {
            let answer = self.get("/status", &fields_of_page);
            for field in fields {
                let (name, value) = field.split_once(": ").unwrap();
                assert_eq!(answer.headers()[name], value);
            }
        }
    }
}

fn is_session(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The next event: its name and its data, as JSON if it is a message.
fn event(stream: &mut impl BufRead) -> (String, Value) {
    let (mut name, mut data) = ("message".to_owned(), None);
    for line in stream.lines() {
        let line = line.unwrap();
        match line.split_once(": ") {
            Some(("event", text)) => name = text.to_owned(),
            Some(("data", text)) => data = Some(text.to_owned()),
            _ if line.is_empty() && data.is_some() => break,
            _ => {}
        }
    }
    let data = data.expect("an event");
    let data = if name == "message" { serde_json::from_str(&data).unwrap() } else { data.into() };
    (name, data)
}
