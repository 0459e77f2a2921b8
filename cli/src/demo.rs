//! The built-in MCP server, for trying things out and for tests: three tools, a resource and a prompt.
//!
//! It is an ordinary stdio server of the revisions 2024-11-05 to 2025-11-25: one JSON-RPC message a line, read until the
//! end of the input. Threads and no more: `countdown` counts in one of its own, so that it can be cancelled.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value, json};

/// The revisions we speak; the last one is offered to a client that asks for another.
const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const GREETING: &str = "demo://greeting";

/// Largest start of a countdown, longest wait between two steps, and most countdowns at once: a demo should not be a way
/// to use a machine up.
const MAX_FROM: u64 = 10_000;
const MAX_DELAY: u64 = 60_000;
const MAX_COUNTDOWNS: usize = 256;

/// Serves until `input` ends or `output` breaks. Countdowns that still run are cancelled then.
pub(crate) fn serve(mut input: impl BufRead, output: impl Write + Send + 'static) {
    let mut server =
        Server { out: Arc::new(Out(Mutex::new(Some(Box::new(output))))), revision: None, running: HashMap::new() };
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) if line.trim_ascii().is_empty() => {}
            Ok(_) => server.line(&line),
        }
        if server.out.is_broken() {
            break;
        }
    }
    for (_, countdown) in server.running {
        drop(countdown.cancel);
        let _ = countdown.thread.join();
    }
}

struct Server {
    out: Arc<Out>,
    /// What `initialize` agreed on.
    revision: Option<&'static str>,
    /// The countdowns, by request id. Finished ones are swept out when the next one starts.
    running: HashMap<Value, Countdown>,
}

struct Countdown {
    /// Dropping it stops the thread.
    cancel: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// Why a request is refused: a JSON-RPC error.
struct Refusal {
    code: i32,
    message: String,
}

fn refuse<T>(code: i32, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// The answer to a request: at once, or from a thread.
enum Answer {
    Now(Value),
    Later,
}

impl Server {
    fn line(&mut self, line: &[u8]) {
        let reply = Reply { out: self.out.clone(), batch: None };
        match serde_json::from_slice(line) {
            Err(e) => reply.error(&Value::Null, -32700, &format!("parse error: {e}")),
            // Batches came with 2025-03-26 and went with 2025-06-18.
            Ok(Value::Array(messages)) if self.revision == Some("2025-03-26") && !messages.is_empty() => {
                let batch = Arc::new(Batch { out: self.out.clone(), answers: Mutex::default() });
                for message in messages {
                    self.message(message, Reply { out: self.out.clone(), batch: Some(batch.clone()) });
                }
            }
            Ok(message) => self.message(message, reply),
        }
    }

    fn message(&mut self, message: Value, reply: Reply) {
        let Value::Object(mut message) = message else {
            return reply.error(&Value::Null, INVALID_REQUEST, "a message must be an object");
        };
        let id = message.remove("id");
        let known = id.clone().filter(is_id).unwrap_or(Value::Null);
        if message.get("jsonrpc") != Some(&json!("2.0")) {
            return reply.error(&known, INVALID_REQUEST, "jsonrpc must be \"2.0\"");
        }
        let method = match message.remove("method") {
            Some(Value::String(method)) => method,
            // We ask the client nothing, so this answers nothing.
            None if message.contains_key("result") || message.contains_key("error") => return,
            _ => return reply.error(&known, INVALID_REQUEST, "method must be a string"),
        };
        let params = match message.remove("params") {
            None => Some(Map::new()),
            Some(Value::Object(params)) => Some(params),
            Some(_) => None,
        };
        let Some(id) = id else {
            if let ("notifications/cancelled", Some(id)) = (&*method, params.as_ref().and_then(|p| p.get("requestId")))
            {
                self.running.remove(id);
            }
            return;
        };
        if !is_id(&id) {
            return reply.error(&Value::Null, INVALID_REQUEST, "id must be a string or an integer");
        }
        let answer = match params {
            Some(params) => self.request(&id, &method, &params, &reply),
            None => refuse(INVALID_PARAMS, "params must be an object"),
        };
        match answer {
            Ok(Answer::Now(result)) => reply.result(&id, result),
            Ok(Answer::Later) => {}
            Err(refusal) => reply.error(&id, refusal.code, &refusal.message),
        }
    }

    fn request(
        &mut self,
        id: &Value,
        method: &str,
        params: &Map<String, Value>,
        reply: &Reply,
    ) -> Result<Answer, Refusal> {
        const AFTER_INITIALIZE: [&str; 7] = [
            "tools/list",
            "tools/call",
            "resources/list",
            "resources/templates/list",
            "resources/read",
            "prompts/list",
            "prompts/get",
        ];
        let revision = match (method, self.revision) {
            ("ping", _) => return Ok(Answer::Now(json!({}))),
            ("initialize", None) => return self.initialize(params).map(Answer::Now),
            ("initialize", Some(_)) => return refuse(INVALID_REQUEST, "initialize was already called"),
            _ if !AFTER_INITIALIZE.contains(&method) => {
                return refuse(METHOD_NOT_FOUND, format!("method not found: {method}"));
            }
            (_, None) => return refuse(INVALID_REQUEST, "call initialize first"),
            (_, Some(revision)) => revision,
        };
        if method.ends_with("/list") && params.contains_key("cursor") {
            return refuse(INVALID_PARAMS, "unknown cursor: every list fits one page");
        }
        Ok(Answer::Now(match method {
            "tools/list" => json!({"tools": tools(revision)}),
            "resources/list" => json!({"resources": [{
                "uri": GREETING, "name": "greeting", "description": "A friendly text", "mimeType": "text/plain",
            }]}),
            "resources/templates/list" => json!({"resourceTemplates": []}),
            "resources/read" => match string(params, "uri")? {
                GREETING => json!({"contents": [{
                    "uri": GREETING, "mimeType": "text/plain", "text": "Hello from the mcp-proxy demo server!",
                }]}),
                uri => return refuse(-32002, format!("resource not found: {uri}")),
            },
            "prompts/list" => json!({"prompts": [{
                "name": "greet", "description": "Asks for a greeting",
                "arguments": [{"name": "name", "description": "Whom to greet", "required": true}],
            }]}),
            "prompts/get" => get_prompt(params)?,
            _ => return self.call_tool(id, params, revision, reply),
        }))
    }

    fn initialize(&mut self, params: &Map<String, Value>) -> Result<Value, Refusal> {
        let asked = string(params, "protocolVersion")?;
        for member in ["capabilities", "clientInfo"] {
            object(params, member)?;
        }
        let newest = REVISIONS[REVISIONS.len() - 1];
        let revision = REVISIONS.into_iter().find(|known| *known == asked).unwrap_or(newest);
        self.revision = Some(revision);
        Ok(json!({
            "protocolVersion": revision,
            "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
            "serverInfo": {"name": "mcp-proxy-demo", "version": env!("CARGO_PKG_VERSION")},
            "instructions": "A server to try a client or a proxy with. Nothing here has side effects.",
        }))
    }

    fn call_tool(
        &mut self,
        id: &Value,
        params: &Map<String, Value>,
        revision: &str,
        reply: &Reply,
    ) -> Result<Answer, Refusal> {
        let name = string(params, "name")?;
        let none = Map::new();
        let arguments = if params.contains_key("arguments") { object(params, "arguments")? } else { &none };
        let outcome = match name {
            "echo" => string(arguments, "text").map(|text| Answer::Now(text_result(text))),
            "add" => add(arguments, revision).map(Answer::Now),
            "countdown" => {
                let token = progress_token(params)?;
                self.countdown(id, arguments, token, reply)
            }
            _ => return refuse(INVALID_PARAMS, format!("unknown tool: {name}")),
        };
        match outcome {
            // From 2025-11-25 on a model is shown what is wrong with its arguments.
            Err(refusal) if refusal.code == INVALID_PARAMS && revision >= "2025-11-25" => {
                let mut result = text_result(&refusal.message);
                result["isError"] = true.into();
                Ok(Answer::Now(result))
            }
            outcome => outcome,
        }
    }

    fn countdown(
        &mut self,
        id: &Value,
        arguments: &Map<String, Value>,
        token: Option<Value>,
        reply: &Reply,
    ) -> Result<Answer, Refusal> {
        let integer = |name: &str, most: u64| match arguments.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|n| *n <= most) {
                Some(n) => Ok(Some(n)),
                None => refuse(INVALID_PARAMS, format!("{name} must be an integer from 0 to {most}")),
            },
        };
        let Some(from) = integer("from", MAX_FROM)? else {
            return refuse(INVALID_PARAMS, "from is missing");
        };
        let delay = Duration::from_millis(integer("delay_ms", MAX_DELAY)?.unwrap_or(200));
        self.running.retain(|_, countdown| !countdown.thread.is_finished());
        if self.running.len() >= MAX_COUNTDOWNS {
            return refuse(-32000, format!("only {MAX_COUNTDOWNS} countdowns can run at once"));
        }
        if self.running.contains_key(id) {
            return refuse(INVALID_REQUEST, "this id is in use");
        }
        let (cancel, cancelled) = mpsc::channel();
        let (key, id, reply) = (id.clone(), id.clone(), reply.clone());
        let count = move || {
            let mut text = String::new();
            for left in (1..=from).rev() {
                text.push_str(&format!("{left}, "));
                if let Some(token) = &token {
                    let done = from - left + 1;
                    reply.notify(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params":
                        {"progressToken": token, "progress": done, "total": from, "message": format!("{left}")}}));
                }
                // A cancelled request gets no answer.
                if cancelled.recv_timeout(delay) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
            reply.result(&id, text_result(&(text + "liftoff")));
        };
        match thread::Builder::new().name("countdown".into()).spawn(count) {
            Ok(thread) => self.running.insert(key, Countdown { cancel, thread }),
            Err(e) => return refuse(-32603, format!("cannot start a thread: {e}")),
        };
        Ok(Answer::Later)
    }
}

fn tools(revision: &str) -> Value {
    let schema = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let mut tools = json!([
        {
            "name": "echo", "description": "Gives the text back",
            "inputSchema": schema(json!({"text": {"type": "string", "description": "What to say"}}), json!(["text"])),
        },
        {
            "name": "add", "description": "Adds two numbers",
            "inputSchema": schema(json!({"a": {"type": "number"}, "b": {"type": "number"}}), json!(["a", "b"])),
        },
        {
            "name": "countdown",
            "description": "Counts down to liftoff, with a progress notification at each step. Can be cancelled",
            "inputSchema": schema(json!({
                "from": {"type": "integer", "minimum": 0, "maximum": MAX_FROM, "description": "Where to start"},
                "delay_ms": {"type": "integer", "minimum": 0, "maximum": MAX_DELAY, "default": 200,
                    "description": "Milliseconds between two steps"},
            }), json!(["from"])),
        },
    ]);
    if has_structure(revision) {
        tools[1]["outputSchema"] = schema(json!({"sum": {"type": "number"}}), json!(["sum"]));
    }
    tools
}

fn has_structure(revision: &str) -> bool {
    revision >= "2025-06-18"
}

fn text_result(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": false})
}

fn add(arguments: &Map<String, Value>, revision: &str) -> Result<Value, Refusal> {
    let number = |name: &str| match arguments.get(name) {
        Some(value @ Value::Number(_)) => Ok(value),
        _ => refuse(INVALID_PARAMS, format!("{name} must be a number")),
    };
    let (a, b) = (number("a")?, number("b")?);
    let whole = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b)).map(Value::from);
    let sum = whole.unwrap_or_else(|| json!(a.as_f64().zip(b.as_f64()).map(|(a, b)| a + b)));
    // JSON has no infinity.
    if sum.is_null() {
        return refuse(INVALID_PARAMS, "the sum is too large");
    }
    let mut result = text_result(&sum.to_string());
    if has_structure(revision) {
        result["structuredContent"] = json!({"sum": sum});
    }
    Ok(result)
}

fn get_prompt(params: &Map<String, Value>) -> Result<Value, Refusal> {
    match string(params, "name")? {
        "greet" => {
            let name = object(params, "arguments").and_then(|arguments| string(arguments, "name"))?;
            Ok(json!({"description": "Asks for a greeting", "messages": [
                {"role": "user", "content": {"type": "text", "text": format!("Please greet {name} warmly.")}},
            ]}))
        }
        name => refuse(INVALID_PARAMS, format!("unknown prompt: {name}")),
    }
}

fn string<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, Refusal> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        _ => refuse(INVALID_PARAMS, format!("{name} must be a string")),
    }
}

fn object<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a Map<String, Value>, Refusal> {
    match object.get(name) {
        Some(Value::Object(value)) => Ok(value),
        _ => refuse(INVALID_PARAMS, format!("{name} must be an object")),
    }
}

fn progress_token(params: &Map<String, Value>) -> Result<Option<Value>, Refusal> {
    match params.get("_meta").and_then(|meta| meta.get("progressToken")) {
        None => Ok(None),
        Some(token) if is_id(token) => Ok(Some(token.clone())),
        Some(_) => refuse(INVALID_PARAMS, "progressToken must be a string or an integer"),
    }
}

fn is_id(value: &Value) -> bool {
    value.is_string() || value.is_i64() || value.is_u64()
}

/// Where an answer goes: out, or into the batch that its request came in.
#[derive(Clone)]
struct Reply {
    out: Arc<Out>,
    batch: Option<Arc<Batch>>,
}

impl Reply {
    fn result(&self, id: &Value, result: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn error(&self, id: &Value, code: i32, message: &str) {
        self.send(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}));
    }

    fn notify(&self, notification: Value) {
        self.out.write(&notification);
    }

    fn send(&self, answer: Value) {
        match &self.batch {
            Some(batch) => lock(&batch.answers).push(answer),
            None => self.out.write(&answer),
        }
    }
}

/// Collects the answers of a batch and writes them when the last request has let go of it.
struct Batch {
    out: Arc<Out>,
    answers: Mutex<Vec<Value>>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let answers = std::mem::take(&mut *lock(&self.answers));
        if !answers.is_empty() {
            self.out.write(&Value::Array(answers));
        }
    }
}

/// The output, one message a line.
struct Out(Mutex<Option<Box<dyn Write + Send>>>);

impl Out {
    fn write(&self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        let mut out = lock(&self.0);
        if out.as_mut().is_some_and(|out| out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err()) {
            *out = None;
        }
    }

    fn is_broken(&self) -> bool {
        lock(&self.0).is_none()
    }
}

/// A thread that panicked leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufReader, PipeReader, PipeWriter};

    use super::*;

    /// The server in a thread, with a pipe each way.
    struct Client {
        input: Option<PipeWriter>,
        output: BufReader<PipeReader>,
        server: Option<JoinHandle<()>>,
    }

    impl Client {
        fn connect() -> Self {
            let (from_client, input) = io::pipe().unwrap();
            let (output, to_client) = io::pipe().unwrap();
            let server = thread::spawn(move || serve(BufReader::new(from_client), to_client));
            Client { input: Some(input), output: BufReader::new(output), server: Some(server) }
        }

        fn initialized(revision: &str) -> Self {
            let mut client = Client::connect();
            let result = client.call(
                "initialize",
                json!({"protocolVersion": revision, "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"}}),
            );
            assert_eq!(result["result"]["protocolVersion"], revision);
            client.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
            client
        }

        fn say(&mut self, line: &str) {
            writeln!(self.input.as_ref().unwrap(), "{line}").unwrap();
        }

        fn hear(&mut self) -> Value {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
        }

        fn call(&mut self, method: &str, params: Value) -> Value {
            self.say(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string());
            let answer = self.hear();
            assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(1)), "{answer}");
            answer
        }

        fn tool(&mut self, name: &str, arguments: Value) -> Value {
            self.call("tools/call", json!({"name": name, "arguments": arguments}))
        }

        /// Ends the input; nothing more may come, and the server must end.
        fn end(mut self) {
            self.input = None;
            let mut rest = String::new();
            self.output.read_line(&mut rest).unwrap();
            assert_eq!(rest, "");
            self.server.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn every_revision_is_spoken() {
        for revision in REVISIONS {
            let mut client = Client::initialized(revision);
            let tools = client.call("tools/list", json!({}));
            let names: Vec<_> = tools["result"]["tools"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
            assert_eq!(names, ["echo", "add", "countdown"]);
            let sum = client.tool("add", json!({"a": 2, "b": 40}));
            assert_eq!(sum["result"]["content"][0]["text"], "42");
            let structured = revision >= "2025-06-18";
            assert_eq!(sum["result"].get("structuredContent"), structured.then(|| json!({"sum": 42})).as_ref());
            client.end();
        }
        let mut client = Client::connect();
        let params = json!({"protocolVersion": "2099-01-01", "capabilities": {}, "clientInfo": {}});
        assert_eq!(client.call("initialize", params)["result"]["protocolVersion"], "2025-11-25");
        client.end();
    }

    #[test]
    fn tools_resources_and_prompts_work() {
        let mut client = Client::initialized("2025-11-25");
        let long = "ä\u{1f600}\n\"".repeat(300_000);
        assert_eq!(client.tool("echo", json!({"text": long}))["result"]["content"][0]["text"], *long);
        for (a, b, sum) in [(json!(0.5), json!(1), "1.5"), (json!(i64::MAX), json!(1), "9.223372036854776e+18")] {
            assert_eq!(client.tool("add", json!({"a": a, "b": b}))["result"]["content"][0]["text"], sum);
        }
        assert_eq!(client.tool("add", json!({"a": 1e308, "b": 1e308}))["result"]["isError"], true);

        let list = client.call("resources/list", json!({}));
        let uri = list["result"]["resources"][0]["uri"].clone();
        let read = client.call("resources/read", json!({"uri": uri}));
        assert_eq!(read["result"]["contents"][0]["uri"], GREETING);
        assert_eq!(client.call("resources/read", json!({"uri": "demo://x"}))["error"]["code"], -32002);
        assert_eq!(client.call("resources/templates/list", json!({}))["result"], json!({"resourceTemplates": []}));

        assert_eq!(client.call("prompts/list", json!({}))["result"]["prompts"][0]["name"], "greet");
        let prompt = client.call("prompts/get", json!({"name": "greet", "arguments": {"name": "Ada"}}));
        assert_eq!(prompt["result"]["messages"][0]["content"]["text"], "Please greet Ada warmly.");
        assert_eq!(client.call("ping", json!({}))["result"], json!({}));
        client.end();
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_right_code() {
        let mut client = Client::connect();
        let table: [(&str, i32, Value); 14] = [
            ("{", -32700, Value::Null),
            ("\"\\ud800\"", -32700, Value::Null),
            ("1", -32600, Value::Null),
            ("[]", -32600, Value::Null),
            (r#"{"id":1,"method":"ping"}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, Value::Null),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600, Value::Null),
            (r#"{"jsonrpc":"2.0","id":"x","method":7}"#, -32600, json!("x")),
            (r#"{"jsonrpc":"2.0","id":2}"#, -32600, json!(2)),
            (r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#, -32600, json!(3)),
            (r#"{"jsonrpc":"2.0","id":4,"method":"server/discover"}"#, -32601, json!(4)),
            (r#"{"jsonrpc":"2.0","id":5,"method":"logging/setLevel","params":{"level":"info"}}"#, -32601, json!(5)),
            (r#"{"jsonrpc":"2.0","id":6,"method":"ping","params":[]}"#, -32602, json!(6)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}"#, -32602, json!(7)),
        ];
        for (line, code, id) in table {
            client.say(line);
            let answer = client.hear();
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{line}: {answer}");
        }
        // None of these is answered.
        client.say("");
        client.say(r#"{"jsonrpc":"2.0","method":"tools/call"}"#);
        client.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":[]}"#);
        client.say(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#);
        client.end();

        let mut client = Client::initialized("2025-06-18");
        for (method, params) in [
            ("tools/call", json!({})),
            ("tools/call", json!({"name": "nope"})),
            ("tools/call", json!({"name": "echo"})),
            ("tools/call", json!({"name": "echo", "arguments": []})),
            ("tools/call", json!({"name": "echo", "arguments": {"text": 1}})),
            ("tools/call", json!({"name": "add", "arguments": {"a": 1, "b": "2"}})),
            ("tools/call", json!({"name": "countdown", "arguments": {}})),
            ("tools/call", json!({"name": "countdown", "arguments": {"from": 10_001}})),
            ("tools/call", json!({"name": "countdown", "arguments": {"from": -1}})),
            ("tools/call", json!({"name": "countdown", "arguments": {"from": 1, "delay_ms": 1.5}})),
            ("tools/call", json!({"name": "countdown", "arguments": {"from": 1}, "_meta": {"progressToken": {}}})),
            ("tools/list", json!({"cursor": "x"})),
            ("resources/read", json!({})),
            ("prompts/get", json!({"name": "greet"})),
            ("prompts/get", json!({"name": "nope"})),
        ] {
            assert_eq!(client.call(method, params.clone())["error"]["code"], INVALID_PARAMS, "{method} {params}");
        }
        assert_eq!(client.call("initialize", json!({}))["error"]["code"], INVALID_REQUEST);
        client.end();

        // The newest revision lets the model see what is wrong with its arguments.
        let mut client = Client::initialized("2025-11-25");
        let result = client.tool("add", json!({"a": 1}));
        assert_eq!(result["result"]["isError"], true);
        assert_eq!(result["result"]["content"][0]["text"], "b must be a number");
        assert_eq!(client.tool("nope", json!({}))["error"]["code"], INVALID_PARAMS);
        client.end();
    }

    fn countdown(id: u64, from: u64, delay: u64) -> String {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "countdown",
            "arguments": {"from": from, "delay_ms": delay}, "_meta": {"progressToken": format!("t{id}")}}})
        .to_string()
    }

    #[test]
    fn a_countdown_reports_progress_before_its_answer() {
        let mut client = Client::initialized("2025-11-25");
        client.say(&countdown(7, 3, 0));
        for (done, left) in [(1, "3"), (2, "2"), (3, "1")] {
            assert_eq!(
                client.hear(),
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params":
                    {"progressToken": "t7", "progress": done, "total": 3, "message": left}})
            );
        }
        let answer = client.hear();
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(7), &json!("3, 2, 1, liftoff")));
        // Without a token there is no progress, and zero steps are a countdown too.
        assert_eq!(client.tool("countdown", json!({"from": 0}))["result"]["content"][0]["text"], "liftoff");
        client.end();
    }

    #[test]
    fn a_countdown_can_be_cancelled_and_the_server_hears_others_meanwhile() {
        let mut client = Client::initialized("2025-11-25");
        client.say(&countdown(7, 10, 60_000));
        assert_eq!(client.hear()["params"]["progress"], 1);
        assert_eq!(client.tool("echo", json!({"text": "hi"}))["result"]["content"][0]["text"], "hi");
        client.say(&countdown(7, 10, 60_000));
        assert_eq!(client.hear()["error"]["code"], INVALID_REQUEST);
        client.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"7"}}"#);
        client.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
        // The id is free again: the first of that name is gone.
        client.say(&countdown(7, 10, 60_000));
        assert_eq!(client.hear()["params"]["progress"], 1);
        // What still runs at the end of the input is cancelled, not waited for.
        client.end();
    }

    #[test]
    fn a_batch_is_answered_as_one_where_the_revision_has_batches() {
        let batch = format!(
            r#"[{},{{"jsonrpc":"2.0","id":1,"method":"ping"}},{{"jsonrpc":"2.0","method":"x"}},7]"#,
            countdown(2, 1, 20)
        );
        let mut client = Client::initialized("2025-03-26");
        client.say(&batch);
        assert_eq!(client.hear()["method"], "notifications/progress");
        let answers = client.hear();
        let ids: Vec<_> = answers.as_array().unwrap().iter().map(|a| &a["id"]).collect();
        assert_eq!(ids, [&json!(1), &Value::Null, &json!(2)]);
        client.say("[]");
        assert_eq!(client.hear()["error"]["code"], INVALID_REQUEST);
        client.say(r#"[{"jsonrpc":"2.0","method":"x"}]"#);
        client.end();

        let mut client = Client::initialized("2025-06-18");
        client.say(&batch);
        assert_eq!(client.hear()["error"]["code"], INVALID_REQUEST);
        client.end();
    }

    #[test]
    fn a_broken_output_ends_the_server() {
        let (output, to_client) = io::pipe().unwrap();
        drop(output);
        let (from_client, input) = io::pipe().unwrap();
        let server = thread::spawn(move || serve(BufReader::new(from_client), to_client));
        writeln!(&input, r#"{{"jsonrpc":"2.0","id":1,"method":"ping"}}"#).unwrap();
        server.join().unwrap();
    }
}
