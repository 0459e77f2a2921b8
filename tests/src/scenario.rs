//! Scenarios: what clients, the proxy and a server do together, written once and run on every [`Rig`].
//!
//! They wait for events, never for time; whatever should happen at once has the deadline of the rig.

#![allow(clippy::unwrap_used, reason = "a scenario is a test")]

use std::time::Duration;

use mcp_proxy_engine::{Config, SessionMode};
use serde_json::{Value, json};

use crate::rig::client::{Answer, Client, NEWEST, hello};
use crate::rig::{Proxy, Rig};

fn start(rig: &dyn Rig) -> Box<dyn Proxy> {
    rig.start(&[], &|_| {})
}

fn start_with(rig: &dyn Rig, mode: SessionMode) -> Box<dyn Proxy> {
    rig.start(&[], &|config| config.servers[0].sessions = mode)
}

/// Stops the proxy, which must end in time.
fn finish(proxy: &dyn Proxy) {
    proxy.stop();
    proxy.ended(Duration::from_secs(5));
}

/// The code of an error answer to this id.
fn error_code(message: &Value, id: &Value) -> i64 {
    assert_eq!(&message["id"], id, "{message}");
    message["error"]["code"].as_i64().unwrap_or_else(|| panic!("not an error: {message}"))
}

/// The first things any client does.
pub fn initialize_list_call(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    let tools = client.request("tools/list", "{}");
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "echo"));
    assert_eq!(client.result("echo", r#"{"a":[1,null]}"#), json!({"a": [1, null]}));
    assert_eq!(client.request("ping", "{}"), json!({}));
    assert_eq!(client.request("resources/read", r#"{"uri":"fake://one"}"#)["contents"][0]["text"], "one");
    // The answer to a single call is plain JSON if nothing precedes it, and keeps the spelling of its id.
    let mut answer = client.call(r#""\u0061""#, "echo", "{}");
    assert_eq!(answer.head().status, 200);
    assert_eq!(answer.head().get("content-type"), Some("application/json"));
    assert!(answer.text().unwrap().contains(r#""id":"\u0061""#));
    let message = client.call("7", "fail", r#"{"error":{"code":-32042,"message":"m","data":{"x":[1]}}}"#).only();
    assert_eq!(
        message,
        json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32042, "message": "m", "data": {"x": [1]}}})
    );
    // Every revision that we serve.
    for revision in ["2025-03-26", "2025-06-18"] {
        let client = Client::open(&*proxy, revision, &json!({}));
        assert_eq!(client.result("echo", r#"{"b":2}"#), json!({"b": 2}));
    }
    finish(&*proxy);
}

/// Progress comes as events before the answer, in order, with the client's own token.
pub fn progress_precedes_the_answer(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    for token in ["1", r#""t\u006fken""#] {
        let mut answer = client.call_with_token("1", "progress", r#"{"n":20}"#, token);
        assert!(answer.is_stream());
        assert_eq!(answer.head().get("x-accel-buffering"), Some("no"));
        for step in 1..=20 {
            let text = answer.text().unwrap();
            assert!(text.contains(&format!(r#""progressToken":{token}"#)), "{text}");
            let message: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&message["method"], &message["params"]["progress"]),
                (&json!("notifications/progress"), &json!(step))
            );
        }
        assert_eq!(answer.only()["id"], 1);
    }
    finish(&*proxy);
}

/// Each event arrives when it is written, not together with the next one: the server takes no step before the client says
/// that it saw the last.
pub fn events_arrive_when_they_are_written(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    let mut answer = client.call_with_token("1", "lockstep", r#"{"n":5}"#, "1");
    for step in 1..=5 {
        assert_eq!(answer.next_message()["params"]["progress"], step);
        client.notify("notifications/ack", "{}");
    }
    assert_eq!(answer.only()["result"]["structuredContent"], json!({"steps": 5}));
    finish(&*proxy);
}

/// A question comes on the stream of the call that it belongs to, and its answer goes back to the server.
pub fn questions_on_the_stream_of_the_call(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::open(&*proxy, NEWEST, &json!({"sampling": {}, "elicitation": {}}));
    for (tool, method) in [("ask_sampling", "sampling/createMessage"), ("ask_elicitation", "elicitation/create")] {
        let mut answer = client.call_with_token("1", tool, "{}", "1");
        let question = answer.next_message();
        assert_eq!(question["method"], method);
        // Progress of the answer goes by our token there, by the server's own behind us.
        assert!(question["params"]["_meta"]["progressToken"].is_u64(), "{question}");
        client.reply(&question, r#"{"said":"yes"}"#);
        assert_eq!(answer.only()["result"]["structuredContent"]["answer"], json!({"said": "yes"}));
    }
    finish(&*proxy);
}

/// A question that belongs to no call comes on the standalone stream.
pub fn questions_on_the_standalone_stream(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::open(&*proxy, NEWEST, &json!({"roots": {}}));
    let mut stream = client.listen(None);
    assert_eq!(client.result("ask_roots", r#"{"later":true}"#), json!({}));
    let question = stream.next_message();
    assert_eq!(question["method"], "roots/list");
    client.reply(&question, r#"{"roots":[{"uri":"file:///x"}]}"#);
    assert_eq!(client.result("state", "{}")["answers"], json!([{"roots": [{"uri": "file:///x"}]}]));
    // An answer to a question counts once.
    client.reply(&question, r#"{"roots":[]}"#);
    assert_eq!(client.result("state", "{}")["answers"].as_array().unwrap().len(), 1);
    finish(&*proxy);
}

/// Two servers ask under the same id at the same time; an answer counts only from the client that was asked.
pub fn questions_do_not_cross(rig: &dyn Rig) {
    let proxy = start(rig);
    let capabilities = json!({"sampling": {}});
    let clients = [(); 2].map(|()| Client::open(&*proxy, NEWEST, &capabilities));
    let mut answers = clients.each_ref().map(|client| client.call("1", "ask_sampling", "{}"));
    let questions = answers.each_mut().map(Answer::next_message);
    assert_ne!(questions[0]["id"], questions[1]["id"]);
    clients[1].reply(&questions[0], r#"{"from":"a stranger"}"#);
    clients[0].reply(&questions[1], r#"{"from":"a stranger"}"#);
    for ((client, question), from) in clients.iter().zip(&questions).zip(["first", "second"]) {
        client.reply(question, &json!({"from": from}).to_string());
    }
    for (answer, from) in answers.into_iter().zip(["first", "second"]) {
        assert_eq!(answer.only()["result"]["structuredContent"]["answer"]["from"], from);
    }
    for client in &clients {
        assert_eq!(client.result("state", "{}")["answers"].as_array().unwrap().len(), 1);
    }
    finish(&*proxy);
}

/// Two clients, all ids and tokens 1, everything in flight at once, answered out of order: each call has its own answer.
pub fn equal_ids(rig: &dyn Rig) {
    let proxy = start(rig);
    let clients = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let mut waiting = Vec::new();
    for n in 0..50 {
        for (who, client) in clients.iter().enumerate() {
            let tag = format!(r#"{{"ms":{},"n":2,"tag":"{who}-{n}"}}"#, (n * 37) % 50);
            let tool = if n % 5 == 0 { "progress" } else { "slow" };
            waiting.push((tool, tag.clone(), client.call_with_token("1", tool, &tag, "1")));
        }
    }
    for (tool, tag, mut answer) in waiting {
        if tool == "progress" {
            assert_eq!(
                (1..=2).map(|_| answer.next_message()["params"]["progress"].clone()).collect::<Vec<_>>(),
                [1, 2]
            );
        }
        let message = answer.only();
        assert_eq!(message["id"], 1);
        if tool == "slow" {
            assert_eq!(message["result"]["structuredContent"], serde_json::from_str::<Value>(&tag).unwrap());
        }
    }
    assert_eq!(clients[0].result("state", "{}")["waiting"], 0);
    finish(&*proxy);
}

/// What belongs to one client never reaches another that shares its server.
pub fn nothing_reaches_a_stranger(rig: &dyn Rig) {
    let proxy = start(rig);
    let [a, b] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    assert_eq!(a.result("pid", "{}"), b.result("pid", "{}"), "they share a server");
    let [mut listen_a, mut listen_b] = [a.listen(None), b.listen(None)];
    assert_eq!(a.request("resources/subscribe", r#"{"uri":"fake://one"}"#), json!({}));
    let mut logged = a.call("1", "log", r#"{"n":3}"#);
    for n in 1..=3 {
        assert_eq!(logged.next_message()["params"]["data"], n);
    }
    assert_eq!(logged.only()["id"], 1);
    b.result("touch", r#"{"uri":"fake://one"}"#);
    assert_eq!(listen_a.next_message()["method"], "notifications/resources/updated");
    // What concerns all is the first that B hears.
    b.result("list_changed", "{}");
    assert_eq!(listen_a.next_message()["method"], "notifications/tools/list_changed");
    assert_eq!(listen_b.next_message()["method"], "notifications/tools/list_changed");
    finish(&*proxy);
}

/// A cancellation reaches the server under the right id; the call is answered in the server's place.
pub fn cancellation(rig: &dyn Rig) {
    let proxy = rig.start(&[], &|config| config.timeouts.cancel = Duration::from_millis(100));
    let [client, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let call = client.call(r#""x""#, "never", r#"{"key":"mine"}"#);
    let theirs = other.call(r#""x""#, "never", r#"{"key":"theirs"}"#);
    let _ = client.state_when(|state| state["waiting"] == 2);
    client.notify("notifications/cancelled", r#"{"requestId":"no such call"}"#);
    client.notify("notifications/cancelled", r#"{"requestId":"\u0078","reason":"bored"}"#);
    error_code(&call.only(), &json!("x"));
    let state = client.result("state", "{}");
    assert_eq!((&state["cancelled"], &state["waiting"]), (&json!(["mine"]), &json!(1)));
    // A client that only goes away may come back for its answer.
    drop(theirs);
    assert_eq!(other.result("state", "{}")["waiting"], 1);
    finish(&*proxy);
}

/// DELETE ends a session: its calls are answered, its streams end, its name is unknown.
pub fn delete(rig: &dyn Rig) {
    let proxy = start(rig);
    let [client, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let mut stream = client.listen(None);
    let call = client.call("5", "never", r#"{"key":"k"}"#);
    let _ = client.state_when(|state| state["waiting"] == 1);
    let mut deleted = client.send("DELETE", &[], Vec::new());
    assert_eq!(deleted.head().status, 200);
    assert_eq!(deleted.body(), b"");
    error_code(&call.only(), &json!(5));
    assert_eq!(stream.text(), None);
    for method in ["POST", "GET", "DELETE"] {
        let body = br#"{"jsonrpc":"2.0","id":6,"method":"ping"}"#;
        let mut answer = client.send(method, &[], if method == "POST" { body.to_vec() } else { Vec::new() });
        assert_eq!(answer.head().status, 404, "{method}");
        let _ = answer.body();
    }
    // The server was told that nobody waits any more, and serves the others.
    assert_eq!(other.result("state", "{}")["cancelled"], json!(["k"]));
    finish(&*proxy);
}

/// A client that lost its connection in the middle of a stream gets the rest, whenever it comes back.
pub fn resumption(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    for back_first in [true, false] {
        let mut answer = client.call_with_token("1", "lockstep", r#"{"n":4}"#, "1");
        for step in 1..=2 {
            assert_eq!(answer.next_message()["params"]["progress"], step);
            if step == 1 {
                client.notify("notifications/ack", "{}");
            }
        }
        let last = answer.last_id.clone().expect("events have ids");
        drop(answer);
        let go_on = || (0..3).for_each(|_| client.notify("notifications/ack", "{}"));
        if !back_first {
            go_on();
            let _ = client.state_when(|state| state["waiting"] == 0);
        }
        let mut again = client.listen(Some(&last));
        if back_first {
            go_on();
        }
        for step in 3..=4 {
            assert_eq!(again.next_message()["params"]["progress"], step);
        }
        assert_eq!(again.only()["result"]["structuredContent"], json!({"steps": 4}));
        // The same events, asked for again.
        let mut again = client.listen(Some(&last));
        assert_eq!(again.next_message()["params"]["progress"], 3);
    }
    let mut bad = client.send("GET", &[("last-event-id", "99-1")], Vec::new());
    assert_eq!(bad.head().status, 400);
    let _ = bad.body();
    finish(&*proxy);
}

/// A batch of revision 2025-03-26 is taken apart, and its answers come together.
pub fn batches(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::open(&*proxy, "2025-03-26", &json!({}));
    let call = |id: &str, tool: &str, tag: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"ms":20,"tag":{tag}}}}}}}"#
        )
    };
    let batch = format!(
        r#"[{}, {{"jsonrpc":"2.0","method":"notifications/nothing"}}, {}, {}]"#,
        call("1", "slow", 1),
        call(r#""1""#, "echo", 2),
        call("3", "fail", 3)
    );
    let answers = client.post(batch.clone()).only();
    let mut answers = answers.as_array().unwrap().clone();
    answers.sort_by_key(|answer| answer["id"].to_string());
    assert_eq!(answers.len(), 3);
    assert_eq!((&answers[0]["id"], &answers[0]["result"]["structuredContent"]["tag"]), (&json!("1"), &json!(2)));
    assert_eq!((&answers[1]["id"], &answers[1]["result"]["structuredContent"]["tag"]), (&json!(1), &json!(1)));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]), (&json!(3), &json!(null)));
    let mut accepted = client.post(r#"[{"jsonrpc":"2.0","method":"notifications/nothing"}]"#);
    assert_eq!(accepted.head().status, 202);
    let _ = accepted.body();
    let newest = Client::plain(&*proxy);
    for (client, body) in [(&client, "[]"), (&client, "[1]"), (&newest, &*batch)] {
        let mut refused = client.post(body);
        assert_eq!(refused.head().status, 400, "{body}");
        let _ = refused.body();
    }
    finish(&*proxy);
}

/// A result of 10 MB, as JSON and as an event.
pub fn ten_megabytes(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    for accept in ["application/json, text/event-stream", "text/event-stream, application/json"] {
        let body =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"big","arguments":{"bytes":10000000}}}"#;
        let mut answer = client.send("POST", &[("accept", accept)], body.into());
        let message = answer.next_message();
        let text = message["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.len() == 10_000_000 && text.bytes().all(|b| b == b'x'));
        assert_eq!(answer.is_stream(), accept.starts_with("text"));
    }
    finish(&*proxy);
}

/// What the client sends is what the server reads, and the other way round, but for the ids that are ours.
pub fn bytes_survive(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    for odd in [
        "9007199254740993",
        "1e400",
        "-0.0",
        "1.0",
        "123456789012345678901234567890.50",
        r#""\u0000""#,
        r#""\ud800 and \udc00""#,
        r#""\ud83d\ude00 😀 \/ \u00e9 é""#,
        "\"\u{2028}\u{2029}\u{85}\u{feff}\"",
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{ "id" : 1 , "method":"x", "jsonrpc":null }"#,
        &deep,
    ] {
        let arguments = format!(r#"{{"v": {odd}}}"#);
        for body in [
            format!(
                r#"{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{{"name":"raw","arguments":{arguments}}}}}"#
            ),
            format!(
                r#"  {{ "zzz":{odd}, "params":{{"arguments":{arguments},"name":"raw" , "_meta":{{"x":{odd}}}}},"method":"tools\/call", "id" : "i" ,"jsonrpc":"2.0","unknown":[null]}} "#
            ),
            format!(
                "{{\n  \"jsonrpc\": \"2.0\",\r\n  \"id\": \"i\",\n\t\"method\": \"tools/call\",\n  \"params\": {{\n    \"name\": \"raw\",\n    \"arguments\": {arguments}\n  }}\n}}\n"
            ),
        ] {
            let message = client.post(body.clone()).only();
            assert_eq!(message["id"], "i");
            let line = message["result"]["structuredContent"]["line"].as_str().unwrap_or_else(|| panic!("{message}"));
            // Our number, by leaving out what must be there before and after it.
            let expected = body.trim().replace(['\n', '\r'], " ");
            let (before, after) = expected.split_once("\"i\"").unwrap();
            let number = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            let number = number.unwrap_or_else(|| panic!("{expected}\nbecame\n{line}"));
            assert!(number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty(), "{number}");
        }
        let expected =
            format!(r#"{{"jsonrpc":"2.0","id":"i","result":{{"content":[],"structuredContent":{arguments}}}}}"#);
        assert_eq!(client.call("\"i\"", "echo", &arguments).text().unwrap(), expected);
        let mut failed = client.call("\"i\"", "fail", &format!(r#"{{"error":{arguments}}}"#));
        assert_eq!(failed.text().unwrap(), format!(r#"{{"jsonrpc":"2.0","id":"i","error":{arguments}}}"#));
        // The same as an event: line ends are all that a stream could lose.
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}}}"#
        );
        let mut event = client.send("POST", &[("accept", "text/event-stream, application/json")], body.into());
        assert!(event.is_stream());
        assert_eq!(event.text().unwrap(), expected);
    }
    for bad in [
        &b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"[..],
        b"{",
        b"",
        b"\"x\"",
        br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
    ] {
        let mut refused = client.post(bad);
        assert_eq!(refused.head().status, 400, "{}", bad.escape_ascii());
        let _ = refused.body();
    }
    finish(&*proxy);
}

/// A server that crashes in the middle of calls: each is answered, and the next one finds a new process that was told all
/// that the old one knew.
pub fn crash(rig: &dyn Rig) {
    let proxy = start(rig);
    let [a, b] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let pid = a.result("pid", "{}");
    assert_eq!(a.request("resources/subscribe", r#"{"uri":"fake://one"}"#), json!({}));
    assert_eq!(a.request("logging/setLevel", r#"{"level":"error"}"#), json!({}));
    let waiting: Vec<_> = (0..6).map(|n| ([&a, &b][n % 2].call(&n.to_string(), "never", "{}"), n)).collect();
    let _ = a.state_when(|state| state["waiting"] == 6);
    let before = proxy.now();
    assert_eq!(error_code(&a.call("\"c\"", "crash", "{}").only(), &json!("c")), -32603);
    for (answer, n) in waiting {
        assert_eq!(error_code(&answer.only(), &json!(n)), -32603);
    }
    assert!(proxy.now() - before < Duration::from_secs(1), "it took {:?}", proxy.now() - before);
    assert_ne!(b.result("pid", "{}"), pid);
    let state = a.state_when(|state| state["level"] == "error" && state["initialized"] == 1);
    assert_eq!(state["subscriptions"], json!(["fake://one"]));
    // An answer that was complete before the end counts, and so does the end of stdout alone.
    assert_eq!(a.result("exit_after_answer", "{}"), json!({}));
    // This one may have met the old process on its way out.
    assert_eq!(a.call("1", "echo", "{}").only()["id"], 1);
    let pid = a.result("pid", "{}");
    assert_eq!(error_code(&b.call("9", "close_stdout", "{}").only(), &json!(9)), -32603);
    assert_ne!(b.result("pid", "{}"), pid);
    finish(&*proxy);
}

/// A server that cannot live is not started over and over, and each client hears of it.
pub fn crash_loop(rig: &dyn Rig) {
    let proxy = rig.start(&["--crash-at-start"], &|config| {
        config.servers[0].prestart = false;
        config.timeouts.backoff_first = Duration::from_millis(10);
        config.timeouts.backoff_max = Duration::from_millis(40);
    });
    let client = Client::stateless(&*proxy);
    for n in 0..20 {
        let body = hello(NEWEST, &json!({})).replace("\"id\":1", &format!("\"id\":{n}"));
        let mut answer = client.post(body);
        assert_eq!(answer.head().get("mcp-session-id"), None);
        assert_eq!(error_code(&answer.only(), &json!(n)), -32603);
    }
    // 0 + 10 + 20 + 17 * 40 ms, and a little less for the time from the exit to the next attempt.
    assert!(proxy.now() > Duration::from_millis(600), "20 starts took only {:?}", proxy.now());
    finish(&*proxy);
}

/// A server that refuses the handshake, in its own words; one that does not answer it; one that was never there.
pub fn no_handshake(rig: &dyn Rig) {
    let proxy = rig.start(&["--refuse-initialize"], &|_| {});
    let text = Client::stateless(&*proxy).post(hello(NEWEST, &json!({}))).text().unwrap();
    assert_eq!(text, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32099,"message":"not today","data":{"why":1e400}}}"#);
    finish(&*proxy);
    let proxy = rig.start(&["--no-initialize"], &|config| config.timeouts.start = Duration::from_millis(200));
    let message = Client::stateless(&*proxy).post(hello(NEWEST, &json!({}))).only();
    assert_eq!(error_code(&message, &json!(1)), -32603);
    finish(&*proxy);
}

/// Noise on stdout and stderr, and calls that are never answered, harm nobody.
pub fn noise(rig: &dyn Rig) {
    for mode in [SessionMode::Shared, SessionMode::PerSession] {
        let proxy = start_with(rig, mode);
        let [noisy, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
        let never = noisy.call("1", "never", r#"{"key":1}"#);
        let loud = [
            noisy.call("2", "stderr_flood", r#"{"mb":20}"#),
            noisy.call("2", "garbage", "{}"),
            noisy.call("2", "stderr_flood", r#"{"mb":1}"#),
        ];
        for n in 0..20 {
            assert_eq!(other.result("echo", &format!(r#"{{"n":{n}}}"#)), json!({"n": n}));
        }
        for answer in loud {
            assert_eq!(answer.only()["id"], 2);
        }
        noisy.result("garbage", "{}");
        let _ = noisy.state_when(|state| state["waiting"] == 1);
        proxy.stop();
        error_code(&never.only(), &json!(1));
        proxy.ended(Duration::from_secs(5));
    }
}

/// A line of 100 MB is not held; the call that it answers fails, everything else goes on.
pub fn an_endless_line(rig: &dyn Rig) {
    let proxy = start_with(rig, SessionMode::PerSession);
    let [noisy, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let big = noisy.call("1", "big", r#"{"bytes":100000000}"#);
    for n in 0..5 {
        assert_eq!(other.result("echo", &format!(r#"{{"n":{n}}}"#)), json!({"n": n}));
    }
    let message = big.only();
    assert_eq!(error_code(&message, &json!(1)), -32603);
    assert!(message["error"]["message"].as_str().unwrap().contains("max-message-size"), "{message}");
    assert_eq!(noisy.result("echo", "{}"), json!({}));
    finish(&*proxy);
}

/// A server that does not read any more: what is sent to it has a bound, and others do not notice.
pub fn a_server_that_does_not_read(rig: &dyn Rig) {
    let proxy = start_with(rig, SessionMode::PerSession);
    let [client, other] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    assert_eq!(client.result("stop_reading", "{}"), json!({}));
    let megabyte = "x".repeat(1 << 20);
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#;
    let mut last = client.send("POST", &[("accept", "text/event-stream, application/json")], call.to_vec());
    // A stream begins when the call is accepted.
    assert_eq!(last.head().status, 200);
    // 8 MiB wait, one message more is let in, and a little has gone into the pipe.
    for _ in 0..10 {
        client.notify("notifications/long", &format!(r#"{{"x":"{megabyte}"}}"#));
    }
    let mut refused = client.call("2", "echo", "{}");
    assert_eq!(refused.head().status, 503);
    assert_eq!(error_code(&refused.only(), &json!(2)), -32000);
    assert_eq!(other.result("echo", "{}"), json!({}));
    let mut deleted = client.send("DELETE", &[], Vec::new());
    assert_eq!(deleted.head().status, 200);
    let _ = deleted.body();
    error_code(&last.only(), &json!(1));
    assert_eq!(other.result("echo", "{}"), json!({}));
    finish(&*proxy);
}

/// A web page is kept out by `Origin` and `Host`; broken requests have their own answers.
pub fn refusals(rig: &dyn Rig) {
    let proxy = start(rig);
    let client = Client::plain(&*proxy);
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (headers, status) in [
        (&[("origin", "http://evil.example")][..], 403),
        (&[("host", "evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("host", "localhost:1"), ("origin", "http://localhost:3000")], 200),
        (&[("accept", "application/json")], 406),
        (&[("content-type", "text/plain")], 415),
        (&[("mcp-protocol-version", "1999-01-01")], 400),
        (&[("mcp-session-id", "unknown")], 404),
    ] {
        let mut answer = client.send("POST", headers, ping.to_vec());
        assert_eq!(answer.head().status, status, "{headers:?}");
        let _ = answer.body();
    }
    let mut answer = client.send("PUT", &[], Vec::new());
    assert_eq!((answer.head().status, answer.head().get("allow")), (405, Some("GET, POST, DELETE")));
    let _ = answer.body();
    let mut answer = Client::stateless(&*proxy).post(*ping);
    assert_eq!(answer.head().status, 400);
    let _ = answer.body();
    finish(&*proxy);
}

/// Who shares a process in each session mode.
pub fn session_modes(rig: &dyn Rig) {
    let pid = |client: &Client<'_>| client.result("pid", "{}")["pid"].as_u64().unwrap();
    let proxy = start_with(rig, SessionMode::Shared);
    let [a, b] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    let asked = Client::open(&*proxy, NEWEST, &json!({"sampling": {}}));
    assert_eq!((pid(&a), pid(&a)), (pid(&b), pid(&b)));
    assert_ne!(pid(&a), pid(&asked));
    finish(&*proxy);

    let proxy = start_with(rig, SessionMode::PerSession);
    let [a, b] = [Client::plain(&*proxy), Client::plain(&*proxy)];
    assert_ne!(pid(&a), pid(&b));
    assert_eq!((pid(&a), pid(&b)), (pid(&a), pid(&b)));
    finish(&*proxy);

    let proxy = start_with(rig, SessionMode::PerRequest);
    let client = Client::stateless(&*proxy);
    let mut pids: Vec<_> = (0..4).map(|_| pid(&client)).collect();
    pids.dedup();
    assert_eq!(pids.len(), 4);
    finish(&*proxy);
}

/// Calls in flight may finish while the proxy stops; what does not is answered as well.
pub fn shutdown_answers_everybody(rig: &dyn Rig) {
    let proxy = rig.start(&[], &|config: &mut Config| config.timeouts.drain = Duration::from_millis(700));
    let client = Client::plain(&*proxy);
    let mut stream = client.listen(None);
    let slow = client.call("1", "slow", r#"{"ms":300}"#);
    let never = client.call("2", "never", "{}");
    let progress = client.call_with_token("3", "lockstep", r#"{"n":2}"#, "1");
    let _ = client.state_when(|state| state["waiting"] == 3);
    proxy.stop();
    assert_eq!(slow.only()["result"]["structuredContent"], json!({"ms": 300}));
    error_code(&never.only(), &json!(2));
    let mut progress = progress;
    assert_eq!(progress.next_message()["params"]["progress"], 1);
    error_code(&progress.only(), &json!(3));
    assert_eq!(stream.text(), None);
    proxy.ended(Duration::from_secs(5));
}

/// A server that neither the end of its stdin nor SIGTERM ends is killed, in time and not only because the proxy gives up.
pub fn a_stubborn_server(rig: &dyn Rig) {
    for at_once in [false, true] {
        let proxy = rig.start(&["--ignore-term"], &|config| {
            // The ladder, or a second demand: the other one alone would take too long.
            let wait = if at_once { Duration::from_secs(60) } else { Duration::from_millis(100) };
            (config.timeouts.stop_stdin, config.timeouts.stop_term) = (wait, wait);
        });
        let client = Client::plain(&*proxy);
        assert_eq!(client.result("echo", "{}"), json!({}));
        let before = proxy.now();
        proxy.stop();
        if at_once {
            proxy.stop();
        }
        proxy.ended(Duration::from_secs(5));
        // The proxy gives up on it a second after the ladder.
        assert!(proxy.now() - before < Duration::from_secs(1), "it took {:?}", proxy.now() - before);
    }
}
