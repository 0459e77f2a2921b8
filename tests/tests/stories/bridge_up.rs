//! Legacy clients of modern servers.

use mcp_proxy_engine::{ChildId, ExchangeId, Exit, FrontKind};
use mcp_proxy_tests::sim::*;
use serde_json::{Value, json as value};

const FORM: &str = r#"{"elicitation":{}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const TELLS: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"x"}}}}"#)
}

/// The first client of all: the server refuses `initialize`, and is asked for its era.
fn join(w: &mut World, revision: &str, capabilities: &str, server: &str) -> (Client, ChildId) {
    let exchange = w.post(&Client::new(), &hello("0", revision, capabilities));
    let (child, line) = w.expect_reader("initialize");
    w.refuse(child, &line, -32022);
    assert_eq!(w.discovered(server), child);
    (welcomed(w, exchange, revision), child)
}

/// Another one: its server needs no introduction.
fn join_too(w: &mut World, revision: &str, capabilities: &str) -> Client {
    let exchange = w.post(&Client::new(), &hello("0", revision, capabilities));
    welcomed(w, exchange, revision)
}

fn welcomed(w: &mut World, exchange: ExchangeId, revision: &str) -> Client {
    let response = w.expect_respond(exchange);
    assert_eq!(response.status, 200, "{}", text(&response));
    let session = response.headers.get("mcp-session-id").expect("a session").to_owned();
    let client = Client { session: Some(session), revision: Some(revision.into()), ..Client::new() };
    w.notify(&client, INITIALIZED);
    client
}

/// The subscription that the proxy opens for all its clients, with what it wants to hear of.
fn expect_listen(w: &mut World, child: ChildId, wanted: &Value) -> Line {
    let line = w.expect_method(child, "subscriptions/listen");
    assert_eq!(json(&line)["params"]["notifications"], *wanted);
    line
}

/// A result that asks for this: names, methods and parameters.
fn asks(questions: &[(&str, &str, &str)], state: Option<&str>) -> String {
    let questions: Vec<_> = questions
        .iter()
        .map(|(name, method, params)| format!(r#""{name}":{{"method":"{method}","params":{params}}}"#))
        .collect();
    let state = state.map(|state| format!(r#","requestState":"{state}""#)).unwrap_or_default();
    format!(r#"{{"resultType":"input_required","inputRequests":{{{}}}{state}}}"#, questions.join(","))
}

fn form(name: &'static str) -> [(&'static str, &'static str, &'static str); 1] {
    [(name, "elicitation/create", r#"{"message":"m"}"#)]
}

/// A call that the server has a question about. Its client has the question now.
fn begin_asked(w: &mut World, client: &Client, child: ChildId) -> (ExchangeId, Line) {
    let exchange = w.post(client, &call("1"));
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, &asks(&form("q"), Some("s")));
    w.expect_stream(exchange);
    (exchange, Line(w.expect_message(exchange)))
}

// ---- the introduction ----

#[test]
fn a_client_is_welcomed_in_its_own_revision_with_what_the_server_told() {
    for (asked, answered) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
        ("", "2025-11-25"),
    ] {
        let mut w = World::new(eras());
        let exchange = w.post(&Client::new(), &hello(r#""h""#, asked, "{}"));
        let (child, line) = w.expect_reader("initialize");
        w.refuse(child, &line, -32601);
        w.discovered(r#"{"tools":{},"logging":{},"extensions":{"e":{}}}"#);
        let response = w.expect_respond(exchange);
        let server = r#""serverInfo":{"name":"s","version":"1"},"instructions":"x""#;
        let expected =
            format!(r#"{{"protocolVersion":"{answered}","capabilities":{{"tools":{{}},"logging":{{}}}},{server}}}"#);
        assert_eq!(text(&response), result(r#""h""#, &expected));
        let session = response.headers.get("mcp-session-id").map(str::to_owned);
        let client = Client { session, revision: Some(answered.into()), ..Client::new() };
        w.notify(&client, INITIALIZED);
        w.notify(&client, r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
        w.expect_no_line(child);
        w.finish();
    }
}

#[test]
fn every_request_says_who_its_client_is() {
    let mut w = World::new(eras());
    let capabilities = r#"{"roots":{"listChanged":true},"elicitation":{},"tasks":{},"x":{"y":1}}"#;
    let (client, child) = join(&mut w, "2025-06-18", capabilities, "{}");
    let exchange = w.post(
        &client,
        r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"t","arguments":{ "n" : 1.0},"_meta":{"progressToken":"p","traceparent":"00"}}}"#,
    );
    let line = w.expect_line(child);
    assert!(line.contains(r#""params":{"name":"t","arguments":{ "n" : 1.0},"_meta":{"#), "{line}");
    let meta = json(&line)["params"]["_meta"].clone();
    let declared = value!({"roots": {}, "elicitation": {}, "x": {"y": 1}});
    assert_eq!(
        meta,
        value!({
            "progressToken": line.id().parse::<u64>().unwrap(), "traceparent": "00",
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": declared,
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        })
    );
    let progress = |token: &str| {
        let params = format!(r#"{{"progressToken":{token},"progress":1}}"#);
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#)
    };
    w.child_says(child, &progress(&line.id()));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), progress(r#""p""#));
    w.answer(child, &line, r#"{"resultType":"complete","content":[]}"#);
    assert_eq!(w.expect_message(exchange), result(r#""a""#, r#"{"content":[]}"#));
    w.expect_end(exchange);
    // A request without parameters gets some.
    let exchange = w.post(&client, r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
    let line = w.expect_method(child, "tools/list");
    assert_eq!(json(&line)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"], declared);
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    let exchange = w.post(&client, r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":[]}"#);
    w.expect_refused(exchange, 200, -32602);
    w.finish();
}

#[test]
fn clients_of_different_revisions_and_capabilities_share_a_modern_server() {
    let mut w = World::new(eras());
    let (one, child) = join(&mut w, "2024-11-05", "{}", "{}");
    let two = join_too(&mut w, "2025-11-25", FORM);
    assert_eq!((w.stats().children, w.stats().sessions), (1, 2));
    let modern = Modern::new(r#"{"roots":{}}"#);
    let exchanges =
        [w.post(&one, &call("1")), w.post(&two, &call("1")), w.ask(&modern, "1", "prompts/get", r#""name":"t""#)];
    let lines = [w.expect_line(child), w.expect_line(child), w.expect_line(child)];
    let mut declared: Vec<_> = lines
        .iter()
        .map(|line| json(line)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"].to_string())
        .collect();
    for line in lines.iter().rev() {
        let own = json(line)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"].to_string();
        w.answer(child, line, &format!(r#"{{"resultType":"complete","mine":{own}}}"#));
    }
    assert_eq!(w.expect_json(exchanges[0]), result("1", r#"{"mine":{}}"#));
    assert_eq!(json(&w.expect_json(exchanges[2]))["result"]["mine"], value!({"roots": {}}));
    assert_eq!(w.expect_json(exchanges[1]), result("1", r#"{"mine":{"elicitation":{}}}"#));
    declared.sort();
    declared.dedup();
    assert_eq!(declared.len(), 3);
    w.finish();
}

#[test]
fn a_client_without_a_session_is_served_too() {
    let mut config = eras();
    config.servers[0].stateless = true;
    let mut w = World::new(config);
    let client = Client { revision: Some("2025-06-18".into()), ..Client::new() };
    let exchange = w.post(&client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let (child, line) = w.expect_reader("initialize");
    w.refuse(child, &line, -32601);
    w.discovered(TELLS);
    let line = w.expect_method(child, "tools/list");
    assert_eq!(json(&line)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"], value!({}));
    w.answer(child, &line, r#"{"resultType":"complete","tools":[]}"#);
    assert_eq!(w.expect_json(exchange), result("1", r#"{"tools":[]}"#));
    let exchange = w.post(&client, &hello("2", "2025-06-18", "{}"));
    assert!(w.expect_json(exchange).contains(r#""protocolVersion":"2025-06-18""#));
    w.expect_no_line(child);
    w.finish();
}

#[test]
fn what_a_modern_server_has_no_words_for_is_answered_here() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", r#"{"logging":{}}"#);
    for (method, params, expected) in [
        ("ping", "{}", Ok("{}")),
        ("logging/setLevel", r#"{"level":"warning"}"#, Ok("{}")),
        ("logging/setLevel", r#"{"level":"loud"}"#, Err(-32602)),
        ("logging/setLevel", "{}", Err(-32602)),
        ("resources/subscribe", r#"{"uri":"a:b"}"#, Ok("{}")),
        ("resources/subscribe", "{}", Err(-32602)),
        ("resources/unsubscribe", r#"{"uri":"a:b"}"#, Ok("{}")),
        ("server/discover", "{}", Err(-32601)),
        ("subscriptions/listen", r#"{"notifications":{}}"#, Err(-32601)),
    ] {
        let exchange = w.post(&client, &format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#));
        match expected {
            Ok(answer) => assert_eq!(w.expect_json(exchange), result("7", answer), "{method}"),
            Err(code) => drop(w.expect_refused(exchange, 200, code)),
        }
        w.expect_no_line(child);
    }
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    assert_eq!(json(&line)["params"]["_meta"]["io.modelcontextprotocol/logLevel"], "warning");
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":1}}"#;
    w.child_says(child, log);
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), log);
    w.child_says(child, r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    w.finish();
}

// ---- results and errors ----

#[test]
fn results_come_without_what_is_new_in_the_revision() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", "{}");
    for (said, heard) in [
        (r#"{"content":[]}"#, r#"{"content":[]}"#),
        (
            r#"{"resultType":"complete","ttlMs":5,"cacheScope":"public","tools":[ 1 ],"_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#,
            r#"{"tools":[ 1 ]}"#,
        ),
        (
            r#"{"_meta":{"a":1,"io.modelcontextprotocol/serverInfo":{}},"resultType":"complete"}"#,
            r#"{"_meta":{"a":1}}"#,
        ),
        (r#"{"structuredContent":[1],"content":[]}"#, r#"{"content":[]}"#),
        (r#"{"structuredContent":{"a":1},"content":[]}"#, r#"{"structuredContent":{"a":1},"content":[]}"#),
    ] {
        let exchange = w.post(&client, &call("1"));
        let line = w.expect_line(child);
        w.answer(child, &line, said);
        assert_eq!(w.expect_json(exchange), result("1", heard));
    }
    for (said, words) in [
        (r#"{"resultType":"task","taskId":"x"}"#, r#"unknown type \"task\""#),
        (r#"{"resultType":"input_required"}"#, "malformed"),
        (r#"{"resultType":"input_required","inputRequests":[]}"#, "malformed"),
        (r#"{"resultType":"input_required","requestState":5}"#, "malformed"),
    ] {
        let exchange = w.post(&client, &call("1"));
        let line = w.expect_line(child);
        w.answer(child, &line, said);
        let refusal = w.expect_refused(exchange, 200, -32603);
        assert!(refusal.contains(words), "{refusal}");
    }
    w.finish();
}

#[test]
fn errors_have_numbers_that_a_legacy_client_knows() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", "{}");
    for (method, code, data, heard) in [
        ("resources/read", -32602, r#","data":{"uri":"a:b"}"#, -32002),
        ("resources/read", -32602, "", -32602),
        ("prompts/get", -32602, r#","data":{"uri":"a:b"}"#, -32602),
        ("prompts/get", -32020, "", -32603),
        ("prompts/get", -32021, r#","data":{"requiredCapabilities":{"roots":{}}}"#, -32603),
        ("prompts/get", -32022, "", -32603),
        ("prompts/get", -32601, "", -32601),
        ("prompts/get", 7, "", 7),
    ] {
        let exchange = w.post(&client, &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#));
        let line = w.expect_line(child);
        let error = |id: &str, code: i32| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"{data}}}}}"#)
        };
        w.child_says(child, &error(&line.id(), code));
        assert_eq!(w.expect_json(exchange), error("1", heard), "{method} {code}");
    }
    w.finish();
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_server() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", "{}");
    let exchange = w.post(&client, &call(r#""a""#));
    let line = w.expect_line(child);
    w.notify(&client, &cancel(r#""a""#));
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), line.id());
    w.advance(secs(1));
    assert_eq!(error_of(&w.expect_json(exchange)), (value!("a"), value!(-32000)));
    w.answer(child, &line, r#"{"resultType":"complete"}"#);
    w.finish();
}

/// Of these, the first can be called over HTTP with a header field, the second not at all.
const TOOLS: &str = r#""tools":[{"name":"t","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"Aa"}}}},{"name":"bad","inputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}},{"name":"plain"}]"#;

#[test]
fn over_stdio_every_tool_can_be_called() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", "{}");
    let exchange = w.post(&client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let line = w.expect_line(child);
    w.answer(child, &line, &format!("{{{TOOLS}}}"));
    assert_eq!(w.expect_json(exchange), result("1", &format!("{{{TOOLS}}}")));
    w.finish();
}

// ---- questions ----

#[test]
fn a_result_that_asks_becomes_a_request_and_the_call_is_made_again_with_the_answer() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", FORM, "{}");
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call_with_token("1", "5"));
    let first = w.expect_method(child, "tools/call");
    w.answer(child, &first, &asks(&form(r#"a\"b"#), Some(r"s\u0041 t\/")));
    w.expect_stream(exchange);
    let question = Line(w.expect_message(exchange));
    let params = r#""method":"elicitation/create","params":{"message":"m"}"#;
    assert_eq!(*question, format!(r#"{{"jsonrpc":"2.0","id":{},{params}}}"#, question.id()));
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().questions), (1, 1));
    w.notify(&client, &result(&question.id(), r#"{"action":"accept","content":{ "x":1}}"#));
    let second = w.expect_method(child, "tools/call");
    assert_ne!(first.id(), second.id());
    assert!(second.contains(r#""inputResponses":{"a\"b":{"action":"accept","content":{ "x":1}}}"#), "{second}");
    assert!(second.contains(r#""requestState":"s\u0041 t\/""#), "{second}");
    assert_eq!(json(&second)["params"]["_meta"]["progressToken"].to_string(), second.id());
    assert_eq!(json(&second)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"], json(FORM));
    w.answer(child, &second, r#"{"resultType":"complete"}"#);
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    w.expect_silence(stream);
    w.finish();
}

#[test]
fn several_questions_are_asked_at_once_and_the_next_round_forgets_them() {
    let mut w = World::new(eras());
    let (client, child) =
        join(&mut w, "2025-06-18", r#"{"elicitation":{"url":{},"form":{}},"sampling":{},"roots":{}}"#, "{}");
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    let questions = [
        ("one", "elicitation/create", r#"{"mode":"url","url":"https://a","message":"m"}"#),
        ("two", "sampling/createMessage", r#"{"messages":[]}"#),
        ("three", "roots/list", "{}"),
    ];
    w.answer(child, &line, &asks(&questions, Some("s1")));
    w.expect_stream(exchange);
    let asked = [(); 3].map(|()| Line(w.expect_message(exchange)));
    assert_eq!(asked.each_ref().map(Line::method), questions.map(|(_, method, _)| method.to_owned()));
    let url = json(&asked[0])["params"].clone();
    assert_eq!((&url["mode"], &url["url"]), (&value!("url"), &value!("https://a")));
    assert!(url["elicitationId"].is_string(), "the legacy form has a name: {url}");
    for n in [2, 0, 1] {
        w.expect_no_line(child);
        w.notify(&client, &result(&asked[n].id(), &format!(r#"{{"n":{n}}}"#)));
    }
    let line = w.expect_method(child, "tools/call");
    let responses = value!({"one": {"n": 0}, "two": {"n": 1}, "three": {"n": 2}});
    assert_eq!(
        (&json(&line)["params"]["inputResponses"], &json(&line)["params"]["requestState"]),
        (&responses, &value!("s1"))
    );
    // Each round stands for itself, and this one has no state.
    w.answer(child, &line, &asks(&form("four"), None));
    let again = Line(w.expect_message(exchange));
    w.notify(&client, &result(&again.id(), r#"{"n":3}"#));
    let line = w.expect_method(child, "tools/call");
    let params = json(&line)["params"].clone();
    assert_eq!((&params["inputResponses"], &params["requestState"]), (&value!({"four": {"n": 3}}), &Value::Null));
    assert_eq!(params["name"], "t");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn a_result_with_a_state_and_no_question_is_asked_for_again_a_little_later() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", "{}");
    let exchange = w.post(&client, &call("1"));
    for pause in [50, 100, 150, 200, 250, 250] {
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, &format!(r#"{{"resultType":"input_required","requestState":"after {pause}"}}"#));
        w.advance(millis(pause - 1));
        w.expect_no_line(child);
        assert_eq!((w.stats().calls, w.stats().questions), (1, 0));
        w.advance(millis(1));
        let line = w.peek_line(child).unwrap();
        let params = json(&line)["params"].clone();
        assert_eq!(params["requestState"], format!("after {pause}"));
        assert_eq!(params["inputResponses"], Value::Null);
    }
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
    w.finish();
}

#[test]
fn a_server_that_is_never_content_is_given_up() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", "{}");
    let exchange = w.post(&client, &call("1"));
    for _ in 0..10 {
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, r#"{"resultType":"input_required","requestState":"s"}"#);
        w.advance(millis(250));
    }
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, r#"{"resultType":"input_required","requestState":"s"}"#);
    assert!(w.expect_refused(exchange, 200, -32603).contains("asked 10 times"));
    w.advance(secs(1));
    w.expect_no_line(child);
    w.finish();
}

#[test]
fn a_client_that_refuses_a_question_fails_the_call_and_is_asked_no_more() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", r#"{"elicitation":{},"roots":{}}"#, "{}");
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    let questions = [("a", "elicitation/create", "{}"), ("b", "roots/list", "{}")];
    w.answer(child, &line, &asks(&questions, Some("s")));
    w.expect_stream(exchange);
    let asked = [Line(w.expect_message(exchange)), Line(w.expect_message(exchange))];
    let error = r#"{"code":-1,"message":"user \"says\" no"}"#;
    w.notify(&client, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, asked[0].id()));
    assert_eq!(Line(w.expect_message(exchange)).id(), asked[1].id(), "the other question is taken back");
    let answer = w.expect_message(exchange);
    assert_eq!(error_of(&answer), (value!(1), value!(-32603)));
    assert!(answer.contains(r#"user \"says\" no"#), "{answer}");
    w.expect_end(exchange);
    w.notify(&client, &result(&asked[1].id(), "{}"));
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().questions), (0, 0));
    w.finish();
}

#[test]
fn a_client_that_does_not_answer_fails_the_call() {
    let mut config = eras();
    config.timeouts.request = secs(10);
    let mut w = World::new(config);
    let (client, child) = join(&mut w, "2025-06-18", FORM, "{}");
    let (exchange, question) = begin_asked(&mut w, &client, child);
    w.advance(secs(10));
    let mut said = [w.expect_message(exchange), w.expect_message(exchange)];
    said.sort_by_key(|message| message.contains("notifications/cancelled"));
    assert_eq!(error_of(&said[0]), (value!(1), value!(-32603)));
    assert_eq!(Line(said[1].clone()).id(), question.id());
    w.expect_end(exchange);
    w.expect_no_line(child);
    w.finish();
}

#[test]
fn a_client_is_asked_nothing_that_it_has_not_declared() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", FORM, "{}");
    for (method, params) in [
        ("sampling/createMessage", "{}"),
        ("roots/list", "{}"),
        ("elicitation/create", r#"{"mode":"url","url":"https://a"}"#),
        ("ping", "{}"),
        ("", "{}"),
    ] {
        let exchange = w.post(&client, &call("1"));
        let line = w.expect_line(child);
        w.answer(child, &line, &asks(&[form("a")[0], ("b", method, params)], None));
        w.expect_refused(exchange, 200, -32603);
        assert_eq!(w.stats().questions, 0);
    }
    // Only some requests may be answered with questions.
    let exchange = w.post(&client, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let line = w.expect_line(child);
    w.answer(child, &line, &asks(&form("a"), None));
    w.expect_refused(exchange, 200, -32603);
    w.finish();
}

#[test]
fn a_call_that_is_cancelled_during_a_round_is_over() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", FORM, "{}");
    let (exchange, question) = begin_asked(&mut w, &client, child);
    w.notify(&client, &cancel("1"));
    assert_eq!(Line(w.expect_message(exchange)).id(), question.id());
    assert_eq!(error_of(&w.expect_message(exchange)), (value!(1), value!(-32000)));
    w.expect_end(exchange);
    w.notify(&client, &result(&question.id(), "{}"));
    w.expect_no_line(child);
    // The same during a pause.
    let timers = w.stats().timers;
    let exchange = w.post(&client, &call("2"));
    let line = w.expect_line(child);
    w.answer(child, &line, r#"{"resultType":"input_required","requestState":"s"}"#);
    w.notify(&client, &cancel("2"));
    assert_eq!(error_of(&w.expect_json(exchange)), (value!(2), value!(-32000)));
    assert_eq!(w.stats().timers, timers);
    w.advance(secs(1));
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().questions), (0, 0));
    w.finish();
}

#[test]
fn a_session_that_ends_during_a_round_leaves_nothing() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", FORM, "{}");
    let (exchange, _) = begin_asked(&mut w, &client, child);
    let waiting = w.post(&client, &call("2"));
    let line = w.expect_line(child);
    w.answer(child, &line, r#"{"resultType":"input_required","requestState":"s"}"#);
    let deleted = w.delete(&client);
    assert_eq!(w.expect_respond(deleted).status, 200);
    let (_, code) = error_of(&w.expect_message(exchange));
    assert_eq!(code, value!(-32603));
    w.expect_end(exchange);
    w.expect_refused(waiting, 200, -32603);
    w.advance(secs(1));
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().questions, w.stats().sessions), (0, 0, 0));
    w.finish();
}

#[test]
fn a_round_outlives_its_server() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", FORM, "{}");
    let (exchange, question) = begin_asked(&mut w, &client, child);
    w.exit(child, Exit::Code(1));
    w.expect_silence(exchange);
    let second = w.discovered("{}");
    assert_ne!(child, second);
    w.notify(&client, &result(&question.id(), r#"{"n":1}"#));
    let line = w.expect_method(second, "tools/call");
    assert_eq!(json(&line)["params"]["inputResponses"], value!({"q": {"n": 1}}));
    w.answer(second, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    w.finish();
}

// ---- the subscription of the proxy ----

#[test]
fn changes_are_heard_by_every_session_and_without_the_mark_of_the_subscription() {
    let mut w = World::new(eras());
    let (one, child) = join(&mut w, "2025-06-18", "{}", TELLS);
    let listen = expect_listen(&mut w, child, &value!({"toolsListChanged": true}));
    let two = join_too(&mut w, "2025-06-18", FORM);
    w.expect_no_line(child);
    let streams = [w.get(&one), w.get(&two)];
    let _ = streams.map(|stream| w.expect_stream(stream));
    w.child_says(child, &on(&listen.id(), &changed("tools")));
    let _ = streams.map(|stream| w.expect_silence(stream));
    w.child_says(child, &acknowledged(&listen.id(), "{}"));
    w.child_says(child, &on("99", &changed("tools")));
    let _ = streams.map(|stream| w.expect_silence(stream));
    w.child_says(child, &on(&listen.id(), &changed("tools")));
    let _ = streams.map(|stream| assert_eq!(w.expect_message(stream), changed("tools")));
    let note = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"a":1,"{SUBSCRIPTION}":{}}}}}}}"#,
        listen.id()
    );
    w.child_says(child, &note);
    let expected = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"a":1}}}"#;
    let _ = streams.map(|stream| assert_eq!(w.expect_message(stream), expected));
    // It has no limit, and is given up when nobody is left to hear.
    w.advance(secs(3600 * 2));
    let _ = streams.map(|stream| w.expect_comment(stream));
    for client in [one, two] {
        w.expect_no_line(child);
        let deleted = w.delete(&client);
        assert_eq!(w.expect_respond(deleted).status, 200);
    }
    let _ = streams.map(|stream| w.expect_end(stream));
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), listen.id());
    w.finish();
}

#[test]
fn resources_are_told_to_subscribers_and_a_new_subscription_is_open_before_the_old_one_ends() {
    let mut w = World::new(eras());
    let (one, child) = join(&mut w, "2025-06-18", "{}", TELLS);
    let first = expect_listen(&mut w, child, &value!({"toolsListChanged": true}));
    w.child_says(child, &acknowledged(&first.id(), "{}"));
    let two = join_too(&mut w, "2025-06-18", "{}");
    let streams = [w.get(&one), w.get(&two)];
    let _ = streams.map(|stream| w.expect_stream(stream));
    let subscribe = |w: &mut World, client: &Client, method: &str, uri: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"{uri}"}}}}"#);
        let exchange = w.post(client, &body);
        assert_eq!(w.expect_json(exchange), result("1", "{}"));
    };
    subscribe(&mut w, &one, "subscribe", "a:1");
    let second = expect_listen(&mut w, child, &value!({"toolsListChanged": true, "resourceSubscriptions": ["a:1"]}));
    w.expect_no_line(child);
    w.child_says(child, &on(&first.id(), &changed("tools")));
    let _ = streams.map(|stream| assert_eq!(w.expect_message(stream), changed("tools")));
    w.child_says(child, &acknowledged(&second.id(), "{}"));
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), first.id());
    w.child_says(child, &on(&first.id(), &changed("tools")));
    w.child_says(child, &on(&second.id(), &updated("a:1")));
    assert_eq!(w.expect_message(streams[0]), updated("a:1"));
    w.expect_silence(streams[1]);
    // The other one wants it too, and something else: only that is new.
    subscribe(&mut w, &two, "subscribe", "a:1");
    w.expect_no_line(child);
    subscribe(&mut w, &two, "subscribe", "a:2");
    let third =
        expect_listen(&mut w, child, &value!({"toolsListChanged": true, "resourceSubscriptions": ["a:1", "a:2"]}));
    // A fourth before the third is acknowledged: the third was never needed.
    subscribe(&mut w, &one, "unsubscribe", "a:1");
    subscribe(&mut w, &two, "unsubscribe", "a:1");
    let fourth = expect_listen(&mut w, child, &value!({"toolsListChanged": true, "resourceSubscriptions": ["a:2"]}));
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), third.id());
    w.child_says(child, &acknowledged(&fourth.id(), "{}"));
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), second.id());
    w.child_says(child, &on(&fourth.id(), &updated("a:2")));
    assert_eq!(w.expect_message(streams[1]), updated("a:2"));
    w.expect_silence(streams[0]);
    // A session that leaves takes its wishes along.
    let deleted = w.delete(&two);
    assert_eq!(w.expect_respond(deleted).status, 200);
    w.expect_end(streams[1]);
    expect_listen(&mut w, child, &value!({"toolsListChanged": true}));
    w.finish();
}

#[test]
fn a_subscription_that_ends_is_opened_again_each_time_a_little_later() {
    let mut w = World::new(eras());
    let (client, child) = join(&mut w, "2025-06-18", "{}", TELLS);
    let stream = w.get(&client);
    w.expect_stream(stream);
    for (n, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        let line = expect_listen(&mut w, child, &value!({"toolsListChanged": true}));
        match n % 3 {
            0 => w.answer(child, &line, r#"{"resultType":"complete"}"#),
            1 => w.refuse(child, &line, -32603),
            _ => w.child_says(child, &cancel(&line.id())),
        }
        w.advance(millis(pause * 1000 - 1));
        w.expect_no_line(child);
        w.advance(millis(1));
    }
    let line = expect_listen(&mut w, child, &value!({"toolsListChanged": true}));
    w.child_says(child, &acknowledged(&line.id(), "{}"));
    w.child_says(child, &on(&line.id(), &changed("tools")));
    assert_eq!(w.expect_message(stream), changed("tools"));
    // It worked, so the next wait is short again.
    w.answer(child, &line, r#"{"resultType":"complete"}"#);
    w.advance(secs(1));
    let line = expect_listen(&mut w, child, &value!({"toolsListChanged": true}));
    // A server that has no subscriptions is not asked again.
    w.refuse(child, &line, -32601);
    w.advance(secs(3600));
    w.expect_no_line(child);
    w.expect_comment(stream);
    w.finish();
}

#[test]
fn a_server_that_restarts_is_asked_for_its_era_at_once_and_subscribed_to_again() {
    let mut w = World::new(eras());
    let (client, first) = join(&mut w, "2025-06-18", "{}", TELLS);
    expect_listen(&mut w, first, &value!({"toolsListChanged": true}));
    let exchange = w.post(&client, &call("1"));
    w.expect_line(first);
    w.exit(first, Exit::Code(3));
    w.expect_refused(exchange, 200, -32603);
    let waiting = w.post(&client, &call("2"));
    let second = w.discovered(TELLS);
    assert_ne!(first, second);
    let mut lines = [w.expect_line(second), w.expect_line(second)];
    lines.sort_by_key(|line| line.method());
    assert_eq!(lines.each_ref().map(Line::method), ["subscriptions/listen", "tools/call"]);
    assert!(json(&lines[1])["params"]["_meta"].is_object());
    w.child_says(second, &acknowledged(&lines[0].id(), "{}"));
    w.answer(second, &lines[1], "{}");
    assert_eq!(w.expect_json(waiting), result("2", "{}"));
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.child_says(second, &on(&lines[0].id(), &changed("tools")));
    assert_eq!(w.expect_message(stream), changed("tools"));
    w.finish();
}

#[test]
fn a_server_that_comes_back_in_another_era_ends_its_sessions() {
    let mut w = World::new(eras());
    let (client, first) = join(&mut w, "2025-06-18", "{}", "{}");
    w.exit(first, Exit::Code(3));
    let waiting = w.post(&client, &call("1"));
    let (second, line) = w.expect_reader("server/discover");
    w.refuse(second, &line, -32601);
    w.expect_refused(waiting, 200, -32603);
    // What was said of this client is not known to the new server: it must begin again.
    let lost = w.post(&client, &call("2"));
    assert_eq!(w.expect_respond(lost).status, 404);
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    let exchange = w.post(&Client::new(), &hello("3", "2025-06-18", "{}"));
    let (child, line) = w.expect_reader("initialize");
    w.answer(child, &line, r#"{"protocolVersion":"2025-06-18"}"#);
    assert_eq!(w.expect_json(exchange), result("3", r#"{"protocolVersion":"2025-06-18"}"#));
    w.finish();
}

#[test]
fn a_client_that_comes_after_the_era_has_changed_is_introduced_in_the_old_way() {
    let mut w = World::new(eras());
    let (client, first) = join(&mut w, "2025-06-18", "{}", "{}");
    let deleted = w.delete(&client);
    assert_eq!(w.expect_respond(deleted).status, 200);
    w.exit(first, Exit::Code(0));
    let exchange = w.post(&Client::new(), &hello(r#""h""#, "2025-06-18", "{}"));
    let (second, line) = w.expect_reader("server/discover");
    w.refuse(second, &line, -32601);
    let line = w.expect_method(second, "initialize");
    assert_eq!(*line, hello(&line.id(), "2025-06-18", "{}"));
    w.answer(second, &line, r#"{"protocolVersion":"2025-06-18"}"#);
    assert_eq!(w.expect_json(exchange), result(r#""h""#, r#"{"protocolVersion":"2025-06-18"}"#));
    assert_eq!(w.stats().children, 1);
    w.finish();
}

// ---- before the era is known ----

#[test]
fn what_a_client_on_stdin_says_too_early_waits() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    w.stdin_says(&hello("0", "2025-06-18", FORM));
    w.stdin_says(INITIALIZED);
    w.stdin_says(&call("1"));
    w.stdin_says(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
    w.stdin_says(r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#);
    assert_eq!(w.expect_stdout(), result("3", "{}"));
    let (child, line) = w.expect_reader("initialize");
    w.expect_no_line(child);
    w.refuse(child, &line, -32601);
    w.discovered("{}");
    assert!(w.expect_stdout().contains(r#""id":0,"result":{"protocolVersion":"2025-06-18""#));
    for (id, method) in [("1", "tools/call"), ("2", "tools/list")] {
        let line = w.expect_method(child, method);
        assert_eq!(json(&line)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"], json(FORM));
        w.answer(child, &line, r#"{"resultType":"complete"}"#);
        assert_eq!(w.expect_stdout(), result(id, "{}"));
    }
    w.finish();
}

#[test]
fn what_a_client_of_http_and_sse_says_too_early_waits() {
    let mut w = World::new(eras());
    let stream = w.get(&Client { target: "/sse".into(), ..Client::new() });
    w.expect_stream(stream);
    let endpoint = w.expect_event(stream).data.unwrap();
    let client = Client { target: endpoint, ..Client::new() };
    for body in [&hello("0", "2024-11-05", FORM), INITIALIZED, &call("1")] {
        let exchange = w.post(&client, body);
        assert_eq!(w.expect_respond(exchange).status, 202);
    }
    let (child, line) = w.expect_reader("initialize");
    w.expect_no_line(child);
    w.refuse(child, &line, -32022);
    w.discovered("{}");
    assert!(w.expect_message(stream).contains(r#""id":0,"result":{"protocolVersion":"2024-11-05""#));
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, &asks(&form("q"), None));
    let question = Line(w.expect_message(stream));
    let exchange = w.post(&client, &result(&question.id(), "{}"));
    assert_eq!(w.expect_respond(exchange).status, 202);
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(stream), result("1", "{}"));
    w.close_client(stream);
    w.finish();
}

#[test]
fn what_waits_fails_with_the_server() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    w.stdin_says(&hello("0", "2025-06-18", "{}"));
    w.stdin_says(&call("1"));
    let (child, _) = w.expect_reader("initialize");
    w.exit(child, Exit::Code(1));
    let mut answers = [w.expect_stdout(), w.expect_stdout()];
    answers.sort();
    assert_eq!(error_of(&answers[0]), (value!(0), value!(-32603)));
    assert_eq!(error_of(&answers[1]).0, value!(1));
    assert_eq!(w.stats().calls, 0);
    w.finish();
}
