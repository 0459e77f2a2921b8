//! A scriptable MCP server: a pure function of lines. The program `fake-server` runs it over stdio, the simulator without
//! any process.
//!
//! What it does is commanded by the tool that is called; the arguments are in parentheses:
//!
//! | tool | what it does |
//! |---|---|
//! | `echo` | answers with its arguments, byte for byte, as `structuredContent` |
//! | `raw` | answers with the line it received, as the string `line` |
//! | `progress` (`n`) | `n` progress notifications, then the answer |
//! | `lockstep` (`n`) | the same, but waits for a notification `notifications/ack` before each step after the first |
//! | `slow` (`ms`) | answers with its arguments after that time |
//! | `never` (`key`) | does not answer |
//! | `state` | tells what it was told: cancelled keys, answers of clients, subscriptions, log level, `calls` so far |
//! | `crash` | ends at once with status 3 |
//! | `exit_after_answer` | answers, then ends with status 0 |
//! | `ask_sampling`, `ask_elicitation`, `ask_roots` (`later`) | asks the client, then answers with what it said; if `later`, answers first |
//! | `log` (`n`, `level`) | `n` log messages, then the answer |
//! | `list_changed` | says that the list of tools changed, then answers |
//! | `touch` (`uri`) | says that the resource changed if it was subscribed to, then answers |
//! | `big` (`bytes`) | answers with that many bytes of text |
//! | `garbage` | writes lines that are no messages, then answers |
//! | `stderr_flood` (`mb`) | writes that much to stderr, then answers |
//! | `stop_reading` | answers, then never reads its stdin again |
//! | `close_stdout` | closes its stdout, and lives on |
//! | `spawn_grandchild` | starts a process in its own group that never ends by itself; answers with its `pid` |
//! | `pid` | answers with its own `pid` |
//! | `fail` (`error`) | answers with this error, byte for byte |

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// How the server behaves from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Neither SIGTERM nor the end of stdin ends it, nor its grandchildren.
    pub ignore_term: bool,
    /// It does not answer `initialize`.
    pub no_initialize: bool,
    /// It ends at once with status 3.
    pub crash_at_start: bool,
    /// It answers `initialize` with an error.
    pub refuse_initialize: bool,
    /// It adds a line to this file at each start.
    pub count_file: Option<String>,
}

impl Flags {
    /// Reads the arguments of the program; `None` if one is unknown.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Option<Flags> {
        let mut flags = Flags::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match &*arg {
                "--ignore-term" => flags.ignore_term = true,
                "--no-initialize" => flags.no_initialize = true,
                "--crash-at-start" => flags.crash_at_start = true,
                "--refuse-initialize" => flags.refuse_initialize = true,
                "--count-file" => flags.count_file = Some(args.next()?),
                _ => return None,
            }
        }
        Some(flags)
    }
}

/// What the server does to the world, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write to stdout; whole lines.
    Out(Vec<u8>),
    /// Write this line to stderr so many times.
    Err(Vec<u8>, usize),
    /// Call [`Fake::wake`] with this number after the time.
    Later(Duration, u64),
    /// Start a grandchild, then call [`Fake::started`] with this number and its pid.
    Spawn(u64),
    /// Read no more lines.
    StopReading,
    /// Close stdout.
    CloseStdout,
    /// End with this status.
    Exit(i32),
}

/// The server.
#[derive(Debug)]
pub struct Fake {
    flags: Flags,
    pid: u32,
    /// Numbers for whatever waits: calls, and our own requests, which are numbered from 1 in every server.
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// What a `state` call shows.
    cancelled: Vec<Value>,
    answers: Vec<String>,
    subscriptions: Vec<String>,
    level: String,
    initialized: u32,
    calls: u32,
}

/// A call that is not answered yet.
#[derive(Debug)]
struct Waiting {
    /// The id of the call, raw.
    id: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// For a time, to be answered with this.
    Time(String),
    /// For ever. The key names it in `state`.
    Nothing(Value),
    /// For the client's answer to our request. `false`: the call was answered already.
    Client(bool),
    /// For acknowledgements: steps done, steps in all, the progress token, raw.
    Ack(u64, u64, Option<String>),
    /// For a grandchild.
    Grandchild,
}

/// The members of a JSON object, raw.
type Members = BTreeMap<String, Box<RawValue>>;

fn members(json: Option<&RawValue>) -> Members {
    json.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default()
}

fn raw<'m>(members: &'m Members, name: &str) -> Option<&'m str> {
    members.get(name).map(|value| value.get())
}

fn text(members: &Members, name: &str) -> Option<String> {
    raw(members, name).and_then(|value| serde_json::from_str(value).ok())
}

fn number(members: &Members, name: &str) -> u64 {
    raw(members, name).and_then(|value| value.parse().ok()).unwrap_or(1)
}

impl Fake {
    /// A server that was just started.
    #[must_use]
    pub fn new(flags: Flags, pid: u32) -> Self {
        Fake {
            flags,
            pid,
            next: 1,
            waiting: BTreeMap::new(),
            cancelled: Vec::new(),
            answers: Vec::new(),
            subscriptions: Vec::new(),
            level: "debug".into(),
            initialized: 0,
            calls: 0,
        }
    }

    /// What it does before it reads anything.
    pub fn start(&mut self) -> Vec<Effect> {
        if self.flags.crash_at_start {
            return vec![Effect::Err(b"fake: I cannot live\n".to_vec(), 1), Effect::Exit(3)];
        }
        vec![Effect::Err(b"fake: I am here\n".to_vec(), 1)]
    }

    /// Whether it lives on when its stdin ends.
    #[must_use]
    pub fn outlives_stdin(&self) -> bool {
        self.flags.ignore_term
    }

    /// Takes one line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Vec<Effect> {
        let mut out = Vec::new();
        if line.first() == Some(&b'[') {
            // A batch that the proxy did not take apart is answered like anything that cannot be read.
            out.push(error("null", r#"{"code":-32600,"message":"no batches"}"#));
            return out;
        }
        let Ok(message) = serde_json::from_slice::<Members>(line) else {
            out.push(error("null", r#"{"code":-32700,"message":"parse error"}"#));
            return out;
        };
        let params = members(message.get("params").map(|params| &**params));
        match (raw(&message, "id"), text(&message, "method")) {
            (Some(id), Some(method)) => self.request(id, &method, &params, line, &mut out),
            (None, Some(method)) => self.notification(&method, &params, &mut out),
            (Some(id), None) => self.answer(id, &message, &mut out),
            (None, None) => {}
        }
        out
    }

    /// A time that [`Effect::Later`] asked for is over.
    pub fn wake(&mut self, number: u64) -> Vec<Effect> {
        match self.waiting.remove(&number) {
            Some(Waiting { id, why: Why::Time(answer) }) => vec![result(&id, &structured(&answer))],
            // It was cancelled.
            _ => Vec::new(),
        }
    }

    /// A grandchild runs.
    pub fn started(&mut self, number: u64, pid: u32) -> Vec<Effect> {
        let call = self.waiting.remove(&number);
        call.map(|call| result(&call.id, &structured(&json!({"pid": pid}).to_string()))).into_iter().collect()
    }

    fn request(&mut self, id: &str, method: &str, params: &Members, line: &[u8], out: &mut Vec<Effect>) {
        let answer = match method {
            "initialize" if self.flags.no_initialize => return,
            "initialize" if self.flags.refuse_initialize => {
                out.push(error(id, r#"{"code":-32099,"message":"not today","data":{"why":1e400}}"#));
                return;
            }
            "initialize" => {
                let version = raw(params, "protocolVersion").unwrap_or(r#""2025-11-25""#);
                format!(
                    r#"{{"protocolVersion":{version},"capabilities":{{"tools":{{"listChanged":true}},"resources":{{"subscribe":true}},"logging":{{}}}},"serverInfo":{{"name":"fake","version":"1"}}}}"#
                )
            }
            "ping" => "{}".into(),
            "tools/list" => {
                let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
                json!({"tools": TOOLS.iter().map(tool).collect::<Vec<_>>()}).to_string()
            }
            "resources/list" => json!({"resources": [{"uri": "fake://one", "name": "one"}]}).to_string(),
            "resources/read" => {
                let uri = text(params, "uri");
                json!({"contents": [{"uri": uri, "mimeType": "text/plain", "text": "one"}]}).to_string()
            }
            "resources/subscribe" => {
                self.subscriptions.extend(text(params, "uri"));
                "{}".into()
            }
            "resources/unsubscribe" => {
                let uri = text(params, "uri");
                self.subscriptions.retain(|one| Some(one) != uri.as_ref());
                "{}".into()
            }
            "logging/setLevel" => {
                self.level = text(params, "level").unwrap_or_default();
                "{}".into()
            }
            "tools/call" => return self.call(id, params, line, out),
            _ => {
                out.push(error(id, r#"{"code":-32601,"message":"method not found"}"#));
                return;
            }
        };
        out.push(result(id, &answer));
    }

    fn call(&mut self, id: &str, params: &Members, line: &[u8], out: &mut Vec<Effect>) {
        self.calls += 1;
        let name = text(params, "name").unwrap_or_default();
        let raw_arguments = raw(params, "arguments").unwrap_or("{}");
        let arguments = members(params.get("arguments").map(|arguments| &**arguments));
        let meta = members(params.get("_meta").map(|meta| &**meta));
        let token = raw(&meta, "progressToken");
        let mut value = Value::Object(serde_json::Map::new());
        match &*name {
            "echo" => return out.push(result(id, &structured(raw_arguments))),
            "raw" => value = json!({"line": String::from_utf8_lossy(line)}),
            "progress" => {
                let n = number(&arguments, "n");
                out.extend(token.into_iter().flat_map(|token| (1..=n).map(move |step| progress(token, step, n))));
            }
            "lockstep" => {
                let n = number(&arguments, "n");
                out.extend(token.map(|token| progress(token, 1, n)));
                return self.wait(id, Why::Ack(1, n, token.map(str::to_owned)));
            }
            "slow" => {
                out.push(Effect::Later(Duration::from_millis(number(&arguments, "ms")), self.next));
                return self.wait(id, Why::Time(raw_arguments.to_owned()));
            }
            "never" => {
                let key = raw(&arguments, "key").and_then(|key| serde_json::from_str(key).ok());
                return self.wait(id, Why::Nothing(key.unwrap_or_default()));
            }
            "state" => value = self.state(),
            "crash" => return out.push(Effect::Exit(3)),
            "exit_after_answer" => {
                out.push(result(id, &structured("{}")));
                return out.push(Effect::Exit(0));
            }
            "ask_sampling" | "ask_elicitation" | "ask_roots" => return self.ask(id, &name, &arguments, token, out),
            "log" => {
                let level = text(&arguments, "level").unwrap_or_else(|| "info".into());
                for n in 1..=number(&arguments, "n") {
                    let message = json!({"level": level, "logger": "fake", "data": n});
                    out.push(notification("notifications/message", &message.to_string()));
                }
            }
            "list_changed" => out.push(notification("notifications/tools/list_changed", "{}")),
            "touch" => {
                let uri = text(&arguments, "uri").unwrap_or_default();
                if self.subscriptions.contains(&uri) {
                    out.push(notification("notifications/resources/updated", &json!({"uri": uri}).to_string()));
                }
            }
            "big" => {
                // An exact size, and nothing that is parsed while it is made.
                let size = usize::try_from(number(&arguments, "bytes")).unwrap_or(0);
                let mut answer =
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#);
                answer.reserve(size + 16);
                answer.extend(std::iter::repeat_n('x', size));
                answer.push_str("\"}]}}\n");
                return out.push(Effect::Out(answer.into_bytes()));
            }
            "garbage" => out.push(Effect::Out(GARBAGE.to_vec())),
            "stderr_flood" => {
                let line = [&[b'!'; 1023][..], b"\n"].concat();
                let times = usize::try_from(number(&arguments, "mb")).unwrap_or(0) * 1024;
                out.push(Effect::Err(line, times));
            }
            "stop_reading" => out.push(Effect::StopReading),
            "close_stdout" => return out.push(Effect::CloseStdout),
            "spawn_grandchild" => {
                out.push(Effect::Spawn(self.next));
                return self.wait(id, Why::Grandchild);
            }
            "pid" => value = json!({"pid": self.pid}),
            "fail" => return out.push(error(id, raw(&arguments, "error").unwrap_or("null"))),
            _ => return out.push(error(id, r#"{"code":-32602,"message":"unknown tool"}"#)),
        }
        out.push(result(id, &structured(&value.to_string())));
    }

    fn wait(&mut self, id: &str, why: Why) {
        self.waiting.insert(self.next, Waiting { id: id.to_owned(), why });
        self.next += 1;
    }

    fn state(&self) -> Value {
        let parse = |answer: &String| serde_json::from_str(answer).unwrap_or(Value::Null);
        json!({
            "cancelled": self.cancelled,
            "answers": self.answers.iter().map(parse).collect::<Vec<Value>>(),
            "subscriptions": self.subscriptions,
            "level": self.level,
            "initialized": self.initialized,
            "calls": self.calls,
            "waiting": self.waiting.len(),
        })
    }

    fn ask(&mut self, id: &str, tool: &str, arguments: &Members, token: Option<&str>, out: &mut Vec<Effect>) {
        let later = raw(arguments, "later") == Some("true");
        if later {
            out.push(result(id, &structured("{}")));
        }
        let (method, mut params) = match tool {
            "ask_sampling" => {
                let content = json!({"type": "text", "text": "what?"});
                let messages = json!([{"role": "user", "content": content}]);
                ("sampling/createMessage", json!({"messages": messages, "maxTokens": 10}))
            }
            "ask_elicitation" => {
                let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
                ("elicitation/create", json!({"message": "who?", "requestedSchema": schema}))
            }
            _ => ("roots/list", json!({})),
        };
        if token.is_some() {
            params["_meta"] = json!({"progressToken": "the server's own token"});
        }
        // The id of the question is the number of what waits: 1 in every server that was just started.
        let number = self.next;
        self.wait(id, Why::Client(!later));
        out.push(Effect::Out(
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{number},\"method\":\"{method}\",\"params\":{params}}}\n")
                .into_bytes(),
        ));
    }

    fn notification(&mut self, method: &str, params: &Members, out: &mut Vec<Effect>) {
        match method {
            "notifications/initialized" => self.initialized += 1,
            "notifications/cancelled" => {
                let wanted = raw(params, "requestId").unwrap_or_default().to_owned();
                let Some(number) = self.waiting.iter().find(|(_, call)| call.id == wanted).map(|(n, _)| *n) else {
                    return;
                };
                if let Some(Waiting { why: Why::Nothing(key), .. }) = self.waiting.remove(&number) {
                    self.cancelled.push(key);
                }
            }
            "notifications/ack" => {
                let steps = self.waiting.iter_mut().find_map(|(number, call)| match &mut call.why {
                    Why::Ack(step, n, token) => Some((*number, step, *n, token.clone())),
                    _ => None,
                });
                let Some((number, step, n, token)) = steps else { return };
                if *step < n {
                    *step += 1;
                    out.extend(token.map(|token| progress(&token, *step, n)));
                } else if let Some(call) = self.waiting.remove(&number) {
                    out.push(result(&call.id, &structured(&json!({"steps": n}).to_string())));
                }
            }
            _ => {}
        }
    }

    /// The client's answer to one of our requests.
    fn answer(&mut self, id: &str, message: &Members, out: &mut Vec<Effect>) {
        let said = raw(message, "result").or(raw(message, "error")).unwrap_or("null").to_owned();
        let Some(number) = id.parse().ok().filter(|n| matches!(self.waiting.get(n), Some(w) if w.is_question())) else {
            // It must not be possible to answer what was not asked: `state` shows it.
            return self.answers.push(format!(r#"["unasked",{said}]"#));
        };
        if let Some(Waiting { id, why: Why::Client(true) }) = self.waiting.remove(&number) {
            out.push(result(&id, &structured(&format!(r#"{{"answer":{said}}}"#))));
        }
        self.answers.push(said);
    }
}

impl Waiting {
    fn is_question(&self) -> bool {
        matches!(self.why, Why::Client(_))
    }
}

const TOOLS: [&str; 24] = [
    "echo",
    "raw",
    "progress",
    "lockstep",
    "slow",
    "never",
    "state",
    "crash",
    "exit_after_answer",
    "ask_sampling",
    "ask_elicitation",
    "ask_roots",
    "log",
    "list_changed",
    "touch",
    "big",
    "garbage",
    "stderr_flood",
    "stop_reading",
    "close_stdout",
    "spawn_grandchild",
    "pid",
    "fail",
    "unknown",
];

/// Nothing of this is a message.
const GARBAGE: &[u8] =
    b"Starting server...\n\n\xff\xfe\x00\n[]\n42\n{\"half\":\nnull\n{\"jsonrpc\":\"1.0\",\"id\":77,\"method\":\"x\"}\n\
    {\"jsonrpc\":\"2.0\",\"id\":99999,\"result\":{}}\n{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":{}}\n\
    {\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"result\":{}}\n\r\n";

fn result(id: &str, result: &str) -> Effect {
    Effect::Out(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n").into_bytes())
}

fn error(id: &str, error: &str) -> Effect {
    Effect::Out(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}\n").into_bytes())
}

fn notification(method: &str, params: &str) -> Effect {
    Effect::Out(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}\n").into_bytes())
}

fn progress(token: &str, step: u64, of: u64) -> Effect {
    let params = format!(r#"{{"progressToken":{token},"progress":{step},"total":{of}}}"#);
    notification("notifications/progress", &params)
}

/// The result of a tool. `json` is one JSON value.
fn structured(json: &str) -> String {
    format!(r#"{{"content":[],"structuredContent":{json}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(effects: &[Effect]) -> String {
        let out = effects.iter().map(|effect| match effect {
            Effect::Out(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}\n"),
        });
        out.collect()
    }

    fn call(fake: &mut Fake, tool: &str, arguments: &str) -> String {
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{{"_meta":{{"progressToken":7}},"name":"{tool}","arguments":{arguments}}}}}"#
        );
        says(&fake.line(line.as_bytes()))
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        let mut fake = Fake::new(Flags::default(), 1);
        let odd = r#"{ "a" : 1e400,"b":"\ud800\u0000" }"#;
        assert!(call(&mut fake, "echo", odd).contains(odd));
        let line = call(&mut fake, "raw", odd);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["result"]["structuredContent"]["line"].as_str().unwrap().contains(odd));
        assert!(
            call(&mut fake, "fail", r#"{"error":{"code":5,"data":1e400}}"#)
                .ends_with("\"error\":{\"code\":5,\"data\":1e400}}\n")
        );
    }

    #[test]
    fn what_waits_is_answered_once() {
        let mut fake = Fake::new(Flags::default(), 1);
        assert_eq!(call(&mut fake, "slow", r#"{"ms":5}"#), "Later(5ms, 1)\n");
        assert!(says(&fake.wake(1)).contains(r#""id":"a""#));
        assert_eq!(fake.wake(1), []);
        assert_eq!(call(&mut fake, "never", r#"{"key":"k"}"#), "");
        fake.line(br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#);
        assert!(call(&mut fake, "state", "{}").contains(r#""cancelled":["k"]"#));
        assert!(call(&mut fake, "lockstep", r#"{"n":2}"#).contains(r#""progress":1"#));
        let ack = br#"{"jsonrpc":"2.0","method":"notifications/ack"}"#;
        assert!(says(&fake.line(ack)).contains(r#""progress":2"#));
        assert!(says(&fake.line(ack)).contains(r#""steps":2"#));
        assert_eq!(fake.line(ack), []);
        assert!(call(&mut fake, "ask_roots", "{}").contains(r#""id":4,"method":"roots/list""#));
        let answer = br#"{"jsonrpc":"2.0","id":4,"result":{"roots":[]}}"#;
        assert!(says(&fake.line(answer)).contains(r#"{"answer":{"roots":[]}}"#));
        assert_eq!(fake.line(answer), []);
        assert!(call(&mut fake, "state", "{}").contains(r#"["unasked",{"roots":[]}]"#));
    }
}
