//! What happens between the eras when there is too much of something.

use mcp_proxy_engine::{Config, ExchangeId, FrontKind};
use mcp_proxy_tests::sim::*;
use serde_json::json as value;

const FORM: &str = r#"{"elicitation":{}}"#;
const LIST: &str = "prompts/list";
const GET: &str = r#""name":"p""#;

fn limited(change: impl FnOnce(&mut Config)) -> World {
    let mut config = eras();
    change(&mut config);
    World::new(config)
}

fn question(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":"m"}}}}"#)
}

/// The name of the only question of an answer, and the state.
fn asked(w: &mut World, exchange: ExchangeId) -> (String, String) {
    let said = json(&w.expect_json(exchange))["result"].clone();
    let questions = said["inputRequests"].as_object().expect("questions");
    assert_eq!(questions.len(), 1);
    (questions.keys().next().expect("a question").clone(), said["requestState"].as_str().expect("a state").to_owned())
}

fn too_long() -> String {
    format!(r#""x":"{}""#, "x".repeat(3_000))
}

#[test]
fn requests_that_wait_for_a_server_are_bounded() {
    let mut w = limited(|config| config.limits.max_unread = 2_000);
    let client = Modern::new("{}");
    let refused = w.ask(&client, "1", LIST, &too_long());
    w.expect_refused(refused, 503, -32000);
    assert_eq!((w.stats().children, w.stats().sessions, w.stats().calls), (0, 0, 0));
    let exchange = w.ask(&client, "2", LIST, "");
    let child = w.discovered("{}");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("2", "{}"));
    w.finish();
}

#[test]
fn answers_that_wait_for_their_clients_are_bounded() {
    let mut w = limited(|config| config.limits.max_unread = 2_000);
    let client = Modern::new(FORM);
    let exchange = w.ask(&client, "1", "prompts/get", GET);
    let child = w.introduced("{}");
    let line = w.expect_method(child, "prompts/get");
    w.child_says(child, &question("5"));
    w.advance(millis(10));
    let (key, state) = asked(&mut w, exchange);
    w.answer(child, &line, &format!("{{{}}}", too_long()));
    let params = format!(r#"{GET},"inputResponses":{{"{key}":{{}}}},"requestState":"{state}""#);
    let exchange = w.ask(&client, "2", "prompts/get", &params);
    let refusal = w.expect_refused(exchange, 200, -32000);
    assert!(refusal.contains(r#""id":2,"#) && refusal.contains("call again"), "{refusal}");
    // The server's answer came before the client's, which nobody waits for.
    w.ignore_rest();
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn a_call_asks_only_so_much_at_once() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let exchange = w.ask(&client, "1", "prompts/get", GET);
    let child = w.introduced("{}");
    let line = w.expect_method(child, "prompts/get");
    for n in 0..65 {
        w.child_says(child, &question(&n.to_string()));
    }
    assert_eq!(error_of(&w.expect_line(child)), (value!(64), value!(-32601)));
    w.advance(millis(10));
    let said = json(&w.expect_json(exchange))["result"].clone();
    let questions = said["inputRequests"].as_object().unwrap();
    assert_eq!(questions.len(), 64);
    let answers: Vec<_> = questions.keys().map(|key| format!(r#""{key}":{{}}"#)).collect();
    let state = said["requestState"].as_str().unwrap();
    let params = format!(r#"{GET},"inputResponses":{{{}}},"requestState":"{state}""#, answers.join(","));
    let exchange = w.ask(&client, "2", "prompts/get", &params);
    for _ in 0..64 {
        w.expect_line(child);
    }
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn a_modern_server_asks_a_legacy_client_only_so_much_at_once() {
    let mut w = World::new(eras());
    let mut client = Client::new();
    let exchange = w.post(&client, &hello("0", "2025-06-18", FORM));
    let (child, line) = w.expect_reader("initialize");
    w.refuse(child, &line, -32022);
    w.discovered("{}");
    client.session = w.expect_respond(exchange).headers.get("mcp-session-id").map(str::to_owned);
    for (count, fits) in [(64, true), (65, false)] {
        let exchange = w.post(&client, &call("1"));
        let line = w.expect_method(child, "tools/call");
        let questions: Vec<_> =
            (0..count).map(|n| format!(r#""{n}":{{"method":"elicitation/create","params":{{}}}}"#)).collect();
        let questions = questions.join(",");
        w.answer(child, &line, &format!(r#"{{"resultType":"input_required","inputRequests":{{{questions}}}}}"#));
        if fits {
            w.expect_stream(exchange);
            for _ in 0..count {
                let question = Line(w.expect_message(exchange));
                w.notify(&client, &result(&question.id(), "{}"));
            }
            let line = w.expect_method(child, "tools/call");
            w.answer(child, &line, "{}");
            assert_eq!(w.expect_message(exchange), result("1", "{}"));
            w.expect_end(exchange);
        } else {
            w.expect_refused(exchange, 200, -32603);
        }
        assert_eq!(w.stats().questions, 0);
    }
    w.finish();
}

#[test]
fn what_is_said_before_the_era_is_known_is_bounded() {
    let mut w = limited(|config| {
        config.front = FrontKind::Stdio;
        config.limits.max_calls = 2;
    });
    w.stdin_says(&hello("0", "2025-06-18", "{}"));
    for id in ["1", "2", "3"] {
        w.stdin_says(&call(id));
    }
    assert_eq!(error_of(&w.expect_stdout()), (value!(3), value!(-32000)));
    let (child, line) = w.expect_reader("initialize");
    w.refuse(child, &line, -32601);
    w.discovered("{}");
    assert!(w.expect_stdout().contains(r#""id":0,"#));
    for id in ["1", "2"] {
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_stdout(), result(id, "{}"));
    }
    w.finish();
}

#[test]
fn calls_that_wait_for_the_list_of_tools_are_bounded() {
    let mut w = limited(|config| config.limits.max_calls = 2);
    let client = Modern::new("{}");
    let exchanges = ["1", "2", "3"].map(|id| w.ask(&client, id, "tools/call", r#""name":"t""#));
    let child = w.introduced("{}");
    w.expect_refused(exchanges[2], 503, -32000);
    w.listed("[]");
    for (exchange, id) in exchanges.into_iter().zip(["1", "2"]) {
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), complete(id, ""));
    }
    w.finish();
}

#[test]
fn resources_that_are_subscribed_to_are_bounded() {
    let mut w = limited(|config| config.limits.max_calls = 2);
    let client = Modern::new("{}");
    let server = r#"{"resources":{"subscribe":true,"listChanged":true}}"#;
    let listen = |w: &mut World, id: &str, uris: &[&str]| {
        let uris: Vec<_> = uris.iter().map(|uri| format!("\"{uri}\"")).collect();
        let filter = format!(r#"{{"resourcesListChanged":true,"resourceSubscriptions":[{}]}}"#, uris.join(","));
        (w.ask(&client, id, "subscriptions/listen", &format!(r#""notifications":{filter}"#)), filter)
    };
    let (first, filter) = listen(&mut w, "1", &["a:1", "a:2"]);
    let child = w.introduced(server);
    w.expect_stream(first);
    assert_eq!(w.expect_message(first), acknowledged("1", &filter));
    for _ in 0..2 {
        w.expect_method(child, "resources/subscribe");
    }
    // What is too much is not acknowledged, and so not promised.
    let (second, _) = listen(&mut w, "2", &["a:3"]);
    w.expect_stream(second);
    assert_eq!(w.expect_message(second), acknowledged("2", r#"{"resourcesListChanged":true}"#));
    w.expect_no_line(child);
    w.child_says(child, &updated("a:3"));
    w.expect_silence(second);
    w.close_client(second);
    let many: Vec<_> = (0..1_025).map(|n| format!("a:{n}")).collect();
    let (third, _) = listen(&mut w, "3", &many.iter().map(String::as_str).collect::<Vec<_>>());
    w.expect_refused(third, 200, -32602);
    w.close_client(first);
    w.ignore_rest();
    w.finish();
}
