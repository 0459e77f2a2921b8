//! Modern clients of legacy servers: what they say and hear, beside questions.

use mcp_proxy_engine::{ChildId, ExchangeId, Exit, FrontKind, Secret, UrlEnv};
use mcp_proxy_tests::sim::*;
use serde_json::json as value;

const CALL: &str = r#""name":"t""#;
/// A server that tells of changes.
const TELLS: &str = r#"{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":true}}"#;
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fn progress(token: &str, n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n}}}}}"#
    )
}

fn log(level: &str, data: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":"{data}"}}}}"#)
}

/// A client calls a tool, the first one of all.
fn begin(w: &mut World, client: &Modern, capabilities: &str) -> (ExchangeId, ChildId, Line) {
    let exchange = w.ask(client, "1", "tools/call", CALL);
    let child = w.introduced(capabilities);
    w.listed("[]");
    let line = w.expect_method(child, "tools/call");
    (exchange, child, line)
}

/// A client makes the server be introduced, and nothing else.
fn meet(w: &mut World, client: &Modern, capabilities: &str) -> ChildId {
    let exchange = w.ask(client, "0", "server/discover", "");
    let child = w.introduced(capabilities);
    w.expect_json(exchange);
    child
}

/// A client listens, and hears what it will be told.
fn listen(w: &mut World, client: &Modern, id: &str, wanted: &str, honoured: &str) -> ExchangeId {
    let stream = w.ask(client, id, "subscriptions/listen", &format!(r#""notifications":{wanted}"#));
    w.expect_stream(stream);
    assert_eq!(w.expect_message(stream), acknowledged(id, honoured));
    stream
}

/// The server is asked to tell of a resource, or not to tell any more, and agrees.
fn expect_subscription(w: &mut World, child: ChildId, method: &str, uri: &str) {
    let line = w.expect_method(child, &format!("resources/{method}"));
    assert_eq!(json(&line)["params"], value!({ "uri": uri }));
    w.answer(child, &line, "{}");
}

fn expect_cancelled(w: &mut World, child: ChildId, call: &Line) {
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), call.id());
}

// ---- requests and results ----

#[test]
fn a_server_is_discovered_from_its_handshake() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"roots":{}}"#);
    let exchange = w.ask(&client, r#""d""#, "server/discover", "");
    let (child, line) = w.expect_reader("server/discover");
    let meta = &json(&line)["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], value!({}), "the question is the proxy's own");
    w.refuse(child, &line, -32601);
    let line = w.expect_method(child, "initialize");
    let said = json(&line);
    assert_eq!(
        (&said["params"]["protocolVersion"], &said["params"]["capabilities"]),
        (&value!("2025-11-25"), &value!({"roots": {}}))
    );
    assert_eq!(said["params"]["clientInfo"]["name"], "c");
    let info = r#"{"name":"s","title":"S","version":"1"}"#;
    w.answer(
        child,
        &line,
        &format!(
            r#"{{"protocolVersion":"2025-06-18","capabilities":{{"tools":{{"listChanged":true}},"tasks":{{}}}},"serverInfo":{info},"instructions":"a\"b"}}"#
        ),
    );
    w.expect_method(child, "notifications/initialized");
    w.expect_no_line(child);
    let expected = format!(
        r#"{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{"listChanged":true}}}},"instructions":"a\"b","ttlMs":0,"cacheScope":"private","_meta":{{"io.modelcontextprotocol/serverInfo":{info}}}}}"#
    );
    assert_eq!(w.expect_json(exchange), result(r#""d""#, &expected));
    let exchange = w.ask(&client, "2", "server/discover", "");
    assert_eq!(w.expect_json(exchange), result("2", &expected));
    w.expect_no_line(child);
    assert_eq!((w.stats().sessions, w.stats().calls), (0, 0));
    w.finish();
}

#[test]
fn requests_go_without_their_envelope_and_results_come_with_what_the_revision_wants() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client, "{}");
    let traced = client.clone().meta("traceparent", r#""00-1""#);
    let exchange = w.ask(&traced, "1", "prompts/get", r#""name":"p","arguments":{ "a" : 1.0}"#);
    let line = w.expect_line(child);
    let sent = r#""params":{"name":"p","arguments":{ "a" : 1.0},"_meta":{"traceparent":"00-1"}}}"#;
    assert_eq!(*line, format!(r#"{{"jsonrpc":"2.0","id":{},"method":"prompts/get",{sent}"#, line.id()));
    w.answer(child, &line, r#"{"messages":[]}"#);
    assert_eq!(w.expect_json(exchange), complete("1", r#""messages":[]"#));
    let cached = r#""resultType":"complete","ttlMs":0,"cacheScope":"private""#;
    let info = r#""io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}"#;
    for (method, params) in [
        ("tools/list", ""),
        ("prompts/list", r#""cursor":"c""#),
        ("resources/list", ""),
        ("resources/templates/list", ""),
        ("resources/read", r#""uri":"file:///a""#),
    ] {
        let exchange = w.ask(&client, "1", method, params);
        let line = w.expect_method(child, method);
        assert_eq!(
            *line,
            format!(r#"{{"jsonrpc":"2.0","id":{},"method":"{method}","params":{{{params}}}}}"#, line.id())
        );
        w.answer(child, &line, r#"{"items":[ 1 ]}"#);
        let expected = format!(r#"{{{cached},"_meta":{{{info}}},"items":[ 1 ]}}"#);
        assert_eq!(w.expect_json(exchange), result("1", &expected));
    }
    // What a result has of its own stays, if it can be meant so.
    let exchange = w.ask(&client, "1", "tools/list", "");
    let line = w.expect_line(child);
    w.answer(child, &line, r#"{"tools":[],"_meta":{"a":1},"ttlMs":5,"cacheScope":"all","resultType":"mine"}"#);
    let said = json(&w.expect_json(exchange))["result"].clone();
    assert_eq!(
        (&said["ttlMs"], &said["cacheScope"], &said["resultType"]),
        (&value!(5), &value!("private"), &value!("complete"))
    );
    assert_eq!(
        (&said["_meta"]["a"], &said["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]),
        (&value!(1), &value!("s"))
    );
    w.finish();
}

#[test]
fn errors_have_the_numbers_and_the_statuses_of_the_revision() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client, "{}");
    for (method, code, status, heard) in [
        ("resources/read", -32002, 200, -32602),
        ("resources/read", -32602, 200, -32602),
        ("prompts/get", -32602, 200, -32602),
        ("prompts/get", -32601, 404, -32601),
        ("prompts/get", -32603, 200, -32603),
        ("prompts/get", -7, 200, -7),
    ] {
        let uri = if method == "resources/read" { r#""uri":"file:///\u0061""# } else { CALL };
        let exchange = w.ask(&client, r#""e""#, method, uri);
        let line = w.expect_line(child);
        w.refuse(child, &line, code);
        let refusal = w.expect_refused(exchange, status, heard);
        let data = if code == -32002 { r#","data":{"uri":"file:///\u0061"}"# } else { "" };
        let error = format!(r#"{{"code":{heard},"message":"no"{data}}}"#);
        assert_eq!(refusal, format!(r#"{{"jsonrpc":"2.0","id":"e","error":{error}}}"#));
    }
    w.finish();
}

#[test]
fn methods_that_are_gone_are_404_though_the_server_has_them() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client, r#"{"tasks":{},"logging":{}}"#);
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/get",
        "tasks/list",
        "notifications/initialized",
    ] {
        let exchange = w.ask(&client, "1", method, r#""uri":"file:///a","level":"info""#);
        w.expect_refused(exchange, 404, -32601);
        w.expect_no_line(child);
    }
    assert_eq!((w.stats().sessions, w.stats().calls), (0, 0));
    w.finish();
}

#[test]
fn progress_comes_on_the_stream_of_its_request_and_on_no_other() {
    let mut w = World::new(eras());
    let client = Modern::new("{}").meta("progressToken", r#""t""#);
    let (first, child, one) = begin(&mut w, &client, "{}");
    let second = w.ask(&client, "1", "tools/call", CALL);
    let two = w.expect_method(child, "tools/call");
    assert_eq!(*two, call_with_token(&two.id(), &two.id()));
    w.child_says(child, &progress(&two.id(), 1));
    w.child_says(child, &progress(r#""t""#, 9));
    w.expect_silence(first);
    w.expect_stream(second);
    assert_eq!(w.expect_message(second), progress(r#""t""#, 1));
    w.answer(child, &two, "{}");
    assert_eq!(w.expect_message(second), complete("1", ""));
    w.expect_end(second);
    w.child_says(child, &progress(&two.id(), 2));
    w.answer(child, &one, "{}");
    assert_eq!(w.expect_json(first), complete("1", ""));
    w.finish();
}

#[test]
fn a_stream_of_a_modern_client_has_no_event_ids_and_cannot_be_taken_up_again() {
    let mut w = World::new(eras());
    let client = Modern::new("{}").with("accept", "text/event-stream, application/json");
    let (exchange, child, line) = begin(&mut w, &client, "{}");
    // Whatever it prefers: as long as nothing was said, a status can say what is wrong.
    w.expect_silence(exchange);
    w.advance(secs(15));
    let head = w.expect_stream(exchange);
    assert_eq!((head.headers.get("mcp-session-id"), head.headers.get("x-accel-buffering")), (None, Some("no")));
    w.expect_comment(exchange);
    w.answer(child, &line, "{}");
    let event = w.expect_event(exchange);
    assert_eq!((event.id, event.retry, event.data), (None, None, Some(complete("1", ""))));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn to_close_the_stream_is_to_cancel() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let (exchange, child, line) = begin(&mut w, &client, "{}");
    let other = w.ask(&client, "1", "tools/call", CALL);
    let second = w.expect_line(child);
    w.close_client(exchange);
    expect_cancelled(&mut w, child, &line);
    w.answer(child, &line, r#"{"late":1}"#);
    w.answer(child, &second, "{}");
    assert_eq!(w.expect_json(other), complete("1", ""));
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn a_client_that_leaves_before_its_server_is_up_leaves_nothing() {
    for stage in 0..4 {
        let mut w = World::new(eras());
        let client = Modern::new("{}");
        let exchange = w.ask(&client, "1", "tools/call", CALL);
        if stage == 0 {
            w.close_client(exchange);
        }
        let (child, line) = w.expect_reader("server/discover");
        if stage == 1 {
            w.close_client(exchange);
        }
        w.refuse(child, &line, -32601);
        if stage >= 2 {
            if stage == 2 {
                w.close_client(exchange);
            }
            w.greeted("{}");
        }
        if stage == 3 {
            w.close_client(exchange);
            w.listed("[]");
        }
        w.expect_no_line(child);
        assert_eq!((w.stats().calls, w.stats().sessions, w.stats().exchanges), (0, 0, 0), "stage {stage}");
        w.finish();
    }
}

#[test]
fn a_request_that_takes_too_long_is_answered_and_the_server_told() {
    let mut config = eras();
    config.timeouts.request = secs(30);
    let mut w = World::new(config);
    let client = Modern::new("{}").meta("progressToken", "1");
    let (exchange, child, line) = begin(&mut w, &client, "{}");
    w.advance(secs(20));
    w.child_says(child, &progress(&line.id(), 1));
    w.expect_stream(exchange);
    w.expect_message(exchange);
    w.advance(secs(29));
    w.expect_comment(exchange);
    w.advance(secs(1));
    assert_eq!(json(&w.expect_message(exchange))["error"]["code"], -32001);
    w.expect_end(exchange);
    expect_cancelled(&mut w, child, &line);
    w.finish();
}

// ---- log messages ----

#[test]
fn a_request_hears_log_messages_of_its_level_and_no_other_request_does() {
    let mut w = World::new(eras());
    let quiet = Modern::new("{}");
    let loud = quiet.clone().meta("io.modelcontextprotocol/logLevel", r#""warning""#);
    let child = meet(&mut w, &quiet, r#"{"logging":{}}"#);
    let exchange = w.ask(&loud, "1", "prompts/get", r#""name":"p""#);
    let level = w.expect_method(child, "logging/setLevel");
    assert_eq!(json(&level)["params"], value!({"level": "warning"}));
    let line = w.expect_method(child, "prompts/get");
    w.answer(child, &level, "{}");
    w.child_says(child, &log("info", "too low"));
    w.expect_silence(exchange);
    w.child_says(child, &log("error", "heard"));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), log("error", "heard"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), complete("1", ""));
    w.expect_end(exchange);
    w.child_says(child, &log("error", "of no request"));

    // Who names no level hears nothing, whatever the server was told before.
    let exchange = w.ask(&quiet, "2", "prompts/get", r#""name":"p""#);
    let line = w.expect_method(child, "prompts/get");
    w.child_says(child, &log("emergency", "not heard"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));

    // The server knows the level already; a lower one it must be told.
    let exchange = w.ask(&loud, "3", "prompts/get", r#""name":"p""#);
    let line = w.expect_method(child, "prompts/get");
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    let curious = quiet.clone().meta("io.modelcontextprotocol/logLevel", r#""debug""#);
    let exchange = w.ask(&curious, "4", "prompts/get", r#""name":"p""#);
    assert_eq!(json(&w.expect_method(child, "logging/setLevel"))["params"], value!({"level": "debug"}));
    let line = w.expect_method(child, "prompts/get");
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    let exchange = w.ask(&loud, "5", "prompts/get", r#""name":"p""#);
    let line = w.expect_method(child, "prompts/get");
    w.child_says(child, &log("info", "too low for this one"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("5", ""));
    w.finish();
}

#[test]
fn a_server_without_logging_is_told_no_level() {
    let mut w = World::new(eras());
    let client = Modern::new("{}").meta("io.modelcontextprotocol/logLevel", r#""debug""#);
    let child = meet(&mut w, &client, "{}");
    let exchange = w.ask(&client, "1", "prompts/get", r#""name":"p""#);
    let line = w.expect_method(child, "prompts/get");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("1", ""));
    w.finish();
}

#[test]
fn two_requests_that_want_log_messages_at_once_have_two_processes() {
    let mut w = World::new(eras());
    let client = Modern::new("{}").meta("io.modelcontextprotocol/logLevel", r#""info""#);
    let first = w.ask(&client, "1", "prompts/get", CALL);
    let one = w.introduced(r#"{"logging":{}}"#);
    w.expect_method(one, "logging/setLevel");
    let line_one = w.expect_method(one, "prompts/get");
    let second = w.ask(&client, "1", "prompts/get", CALL);
    let two = w.greeted(r#"{"logging":{}}"#);
    w.expect_method(two, "logging/setLevel");
    let line_two = w.expect_method(two, "prompts/get");
    w.child_says(two, &log("info", "two"));
    w.child_says(one, &log("info", "one"));
    for (exchange, child, line, data) in [(first, one, line_one, "one"), (second, two, line_two, "two")] {
        w.expect_stream(exchange);
        assert_eq!(w.expect_message(exchange), log("info", data));
        w.answer(child, &line, "{}");
        w.expect_message(exchange);
        w.expect_end(exchange);
    }
    w.finish();
}

#[test]
fn what_a_server_logs_for_a_request_without_a_level_is_not_told_to_one_with_a_level() {
    let mut w = World::new(eras());
    let quiet = Modern::new("{}");
    let loud = quiet.clone().meta("io.modelcontextprotocol/logLevel", r#""debug""#);
    let child = meet(&mut w, &quiet, r#"{"logging":{}}"#);
    let first = w.ask(&quiet, "1", "prompts/get", CALL);
    let line = w.expect_method(child, "prompts/get");
    let second = w.ask(&loud, "2", "prompts/get", CALL);
    w.ignore_rest();
    w.child_says(child, &log("error", "a secret of the first"));
    assert_eq!(w.next_event(second), None, "it may be about the other request");
    w.answer(child, &line, "{}");
    w.close_client(second);
    w.close_client(first);
    w.ignore_rest();
    w.finish();
}

// ---- subscriptions ----

#[test]
fn a_subscription_is_acknowledged_first_and_hears_what_it_asked_for() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client, TELLS);
    let wanted = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":false,"resourceSubscriptions":["file:///a"]}"#;
    let honoured = r#"{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}"#;
    let stream = listen(&mut w, &client, r#""L""#, wanted, honoured);
    expect_subscription(&mut w, child, "subscribe", "file:///a");
    for note in [changed("prompts"), changed("resources"), updated("file:///b"), log("error", "x")] {
        w.child_says(child, &note);
        w.expect_silence(stream);
    }
    for note in [changed("tools"), updated("file:///a"), updated("file:///a/part")] {
        w.child_says(child, &note);
        assert_eq!(w.expect_message(stream), on(r#""L""#, &note));
    }
    let note =
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"_meta":{"a":1},"uri":"file:///a"}}"#;
    w.child_says(child, note);
    let heard = json(&w.expect_message(stream));
    assert_eq!(heard["params"], value!({"_meta": {"a": 1, SUBSCRIPTION: "L"}, "uri": "file:///a"}));
    w.advance(secs(3600 * 2));
    w.expect_comment(stream);
    w.close_client(stream);
    expect_subscription(&mut w, child, "unsubscribe", "file:///a");
    assert_eq!((w.stats().sessions, w.stats().calls), (0, 0));
    w.finish();
}

#[test]
fn a_filter_that_is_none_is_refused_and_one_that_nothing_fits_is_acknowledged() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client, "{}");
    for params in [
        "",
        r#""notifications":null"#,
        r#""notifications":[]"#,
        r#""notifications":{"toolsListChanged":1}"#,
        r#""notifications":{"resourceSubscriptions":"file:///a"}"#,
        r#""notifications":{"resourceSubscriptions":[1]}"#,
    ] {
        let exchange = w.ask(&client, "1", "subscriptions/listen", params);
        w.expect_refused(exchange, 200, -32602);
    }
    let stream =
        listen(&mut w, &client, "2", r#"{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}"#, "{}");
    w.child_says(child, &changed("tools"));
    w.child_says(child, &updated("file:///a"));
    w.expect_silence(stream);
    w.expect_no_line(child);
    w.close_client(stream);
    w.finish();
}

#[test]
fn a_resource_is_subscribed_to_once_and_let_go_by_the_last() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client, TELLS);
    let filter = |uris: &str| format!(r#"{{"resourceSubscriptions":[{uris}]}}"#);
    let (a, both) = (filter(r#""file:///a""#), filter(r#""file:///a","file:///b""#));
    let first = listen(&mut w, &client, "1", &a, &a);
    expect_subscription(&mut w, child, "subscribe", "file:///a");
    let second = listen(&mut w, &client, "2", &both, &both);
    expect_subscription(&mut w, child, "subscribe", "file:///b");
    w.expect_no_line(child);
    w.child_says(child, &updated("file:///a"));
    assert_eq!(w.expect_message(first), on("1", &updated("file:///a")));
    assert_eq!(w.expect_message(second), on("2", &updated("file:///a")));
    w.child_says(child, &updated("file:///b"));
    w.expect_silence(first);
    assert_eq!(w.expect_message(second), on("2", &updated("file:///b")));
    w.close_client(first);
    w.expect_no_line(child);
    w.child_says(child, &updated("file:///a"));
    assert_eq!(w.expect_message(second), on("2", &updated("file:///a")));
    w.close_client(second);
    expect_subscription(&mut w, child, "unsubscribe", "file:///a");
    expect_subscription(&mut w, child, "unsubscribe", "file:///b");
    w.finish();
}

#[test]
fn what_another_process_of_the_server_says_of_its_lists_is_heard_too() {
    let mut config = eras();
    config.servers[0].url_env = UrlEnv::Listed(vec!["TOKEN".into()]);
    let mut w = World::new(config);
    let client = Modern::new("{}");
    let one = meet(&mut w, &client, TELLS);
    let wanted = r#"{"toolsListChanged":true}"#;
    let stream = listen(&mut w, &client, "1", wanted, wanted);
    let exchange = w.ask(&Modern::new(r#"{"roots":{}}"#), "1", "prompts/list", "");
    let two = w.greeted(TELLS);
    assert_ne!(one, two);
    let line = w.expect_method(two, "prompts/list");
    w.answer(two, &line, "{}");
    w.expect_json(exchange);
    w.child_says(two, &changed("tools"));
    assert_eq!(w.expect_message(stream), on("1", &changed("tools")));
    w.child_says(two, &changed("resources"));
    // A process with other variables may be another server altogether.
    let mut other = Modern::new("{}");
    other.client.target = "/mcp?TOKEN=x".into();
    let exchange = w.ask(&other, "1", "prompts/list", "");
    let three = w.greeted(TELLS);
    let line = w.expect_method(three, "prompts/list");
    w.answer(three, &line, "{}");
    w.expect_json(exchange);
    w.child_says(three, &changed("tools"));
    w.expect_silence(stream);
    w.close_client(stream);
    w.finish();
}

#[test]
fn a_subscription_outlives_its_server() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let first = meet(&mut w, &client, TELLS);
    let wanted = r#"{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}"#;
    let stream = listen(&mut w, &client, "1", wanted, wanted);
    expect_subscription(&mut w, first, "subscribe", "file:///a");
    w.exit(first, Exit::Code(1));
    w.expect_silence(stream);
    let second = w.greeted(TELLS);
    assert_ne!(first, second);
    expect_subscription(&mut w, second, "subscribe", "file:///a");
    assert_eq!(w.expect_message(stream), on("1", &changed("tools")), "nobody knows what changed meanwhile");
    w.child_says(second, &updated("file:///a"));
    assert_eq!(w.expect_message(stream), on("1", &updated("file:///a")));
    w.close_client(stream);
    expect_subscription(&mut w, second, "unsubscribe", "file:///a");
    w.finish();
}

#[test]
fn a_shutdown_ends_subscriptions_with_a_result() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    meet(&mut w, &client, TELLS);
    let wanted = r#"{"toolsListChanged":true}"#;
    let stream = listen(&mut w, &client, r#""L""#, wanted, wanted);
    w.shutdown();
    let meta = format!(r#""_meta":{{"{SUBSCRIPTION}":"L"}}"#);
    let end = result(r#""L""#, &format!(r#"{{"resultType":"complete",{meta}}}"#));
    assert_eq!(w.expect_message(stream), end);
    w.expect_end(stream);
    w.finish_from_here();
}

// ---- header fields that mirror arguments ----

/// A tool whose argument `a` has the field `Mcp-Param-A`, and `n.b` the field `Mcp-Param-B`.
const TOOL: &str = r#"{"name":"t","inputSchema":{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"A"},"n":{"type":"object","properties":{"b":{"type":"integer","x-mcp-header":"B"}}},"c":{"type":"string"}}}}"#;

#[test]
fn arguments_with_a_header_field_must_say_the_same_there() {
    let mut w = World::new(eras());
    let mut first = true;
    for (fields, arguments, fits) in [
        (vec![("mcp-param-a", "x")], r#"{"a":"x"}"#, true),
        (vec![], r#"{"c":"x"}"#, true),
        (vec![], r#"{"a":null}"#, true),
        (vec![("mcp-param-a", "=?base64?eA==?=")], r#"{"a":"x"}"#, true),
        (vec![("mcp-param-a", "x"), ("mcp-param-b", "42.0")], r#"{"a":"x","n":{"b":42}}"#, true),
        (vec![("mcp-param-c", "y")], r#"{"c":"x"}"#, true),
        (vec![], r#"{"a":"x"}"#, false),
        (vec![("mcp-param-a", "X")], r#"{"a":"x"}"#, false),
        (vec![("mcp-param-a", "x")], "{}", false),
        (vec![("mcp-param-a", "x"), ("mcp-param-a", "x")], r#"{"a":"x"}"#, false),
        (vec![("mcp-param-a", "=?base64?!?=")], r#"{"a":"!"}"#, false),
        (vec![("mcp-param-b", "43")], r#"{"n":{"b":42}}"#, false),
    ] {
        let mut client = Modern::new("{}");
        for (name, value) in &fields {
            client = client.with(name, value);
        }
        let exchange = w.ask(&client, "1", "tools/call", &format!(r#"{CALL},"arguments":{arguments}"#));
        if std::mem::take(&mut first) {
            w.introduced(r#"{"tools":{"listChanged":true}}"#);
            w.listed(&format!("[{TOOL}]"));
        }
        let child = *w.children.keys().last().unwrap();
        if fits {
            let line = w.expect_method(child, "tools/call");
            w.answer(child, &line, "{}");
            assert_eq!(w.expect_json(exchange), complete("1", ""), "{fields:?} {arguments}");
        } else {
            // The server may have other tools by now.
            w.listed(&format!("[{TOOL}]"));
            w.expect_refused(exchange, 400, -32020);
            w.expect_no_line(child);
        }
    }
    // Another tool has no such fields.
    let exchange = w.ask(&Modern::new("{}"), "1", "tools/call", r#""name":"u","arguments":{"a":"x"}"#);
    let (child, line) = w.expect_reader("tools/call");
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn a_list_of_tools_is_read_to_its_end_and_again_when_it_has_changed() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let wrong = format!(r#"{CALL},"arguments":{{"a":"x"}}"#);
    let calls = [w.ask(&client, "1", "tools/call", &wrong), w.ask(&client, "2", "tools/call", &wrong)];
    let child = w.introduced(r#"{"tools":{"listChanged":true}}"#);
    let line = w.expect_method(child, "tools/list");
    w.expect_no_line(child);
    w.answer(child, &line, r#"{"tools":[],"nextCursor":"two"}"#);
    let line = w.expect_method(child, "tools/list");
    assert_eq!(json(&line)["params"], value!({"cursor": "two"}));
    w.answer(child, &line, &format!(r#"{{"tools":[{TOOL}]}}"#));
    let _ = calls.map(|exchange| w.expect_refused(exchange, 400, -32020));
    w.expect_no_line(child);
    let exchange = w.ask(&client.clone().with("mcp-param-a", "x"), "3", "tools/call", &wrong);
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    w.child_says(child, &changed("tools"));
    w.expect_no_line(child);
    let exchange = w.ask(&client, "3", "tools/call", &wrong);
    w.listed("[]");
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));
    // What fitted the old list need not fit the new one.
    w.child_says(child, &changed("tools"));
    let exchange = w.ask(&client, "4", "tools/call", &wrong);
    w.listed(&format!("[{TOOL}]"));
    w.expect_refused(exchange, 400, -32020);
    w.expect_no_line(child);
    w.finish();
}

#[test]
fn a_call_that_does_not_fit_the_list_may_fit_the_next_one() {
    let mut w = World::new(eras());
    let arguments = format!(r#"{CALL},"arguments":{{"a":"x"}}"#);
    let exchange = w.ask(&Modern::new("{}").with("mcp-param-a", "x"), "1", "tools/call", &arguments);
    let child = w.introduced("{}");
    w.listed(&format!("[{TOOL}]"));
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("1", ""));
    // The server does not tell of changes, so the list is read once more before a call is refused.
    let calls = ["2", "3"].map(|id| w.ask(&Modern::new("{}"), id, "tools/call", &arguments));
    w.listed("[]");
    for (exchange, id) in calls.into_iter().zip(["2", "3"]) {
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), complete(id, ""));
    }
    w.finish();
}

#[test]
fn a_list_of_tools_that_does_not_come_holds_no_call_up_for_long() {
    for refused in [true, false] {
        let mut w = World::new(eras());
        let client = Modern::new("{}");
        let exchange = w.ask(&client, "1", "tools/call", CALL);
        let child = w.introduced("{}");
        let list = w.expect_method(child, "tools/list");
        if refused {
            w.refuse(child, &list, -32601);
        } else {
            w.advance(millis(9_999));
            w.expect_no_line(child);
            w.advance(millis(1));
        }
        if !refused {
            expect_cancelled_list(&mut w, child);
        }
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &list, r#"{"tools":[]}"#);
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), complete("1", ""));
        let exchange = w.ask(&client, "2", "tools/call", CALL);
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, "{}");
        w.expect_json(exchange);
        w.finish();
    }
}

/// The proxy may tell the server that it waits no longer.
fn expect_cancelled_list(w: &mut World, child: ChildId) {
    if w.peek_line(child).is_some_and(|line| line.method() == "notifications/cancelled") {
        w.expect_line(child);
    }
}

#[test]
fn a_call_that_waits_for_the_list_fails_with_its_server() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", "tools/call", CALL);
    let child = w.introduced("{}");
    w.expect_method(child, "tools/list");
    assert_eq!(w.stats().calls, 1);
    w.exit(child, Exit::Code(1));
    w.expect_refused(exchange, 200, -32603);
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.ignore_rest();
    w.finish();
}

// ---- processes ----

#[test]
fn a_server_that_dies_in_a_call_fails_it_and_serves_the_next() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let (exchange, child, _) = begin(&mut w, &client, "{}");
    w.exit(child, Exit::Code(1));
    assert!(w.expect_refused(exchange, 200, -32603).contains("exited"));
    let exchange = w.ask(&client, "2", "tools/call", CALL);
    let second = w.greeted("{}");
    assert_ne!(child, second);
    w.listed("[]");
    let line = w.expect_method(second, "tools/call");
    w.answer(second, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn clients_of_different_keys_do_not_share_a_process() {
    let mut config = eras();
    config.access.auth_tokens = vec![Secret::new("one".into()), Secret::new("two".into())];
    let mut w = World::new(config);
    let one = meet(&mut w, &Modern::new("{}").with("x-api-key", "one"), "{}");
    let exchange = w.ask(&Modern::new("{}").with("x-api-key", "two"), "0", "server/discover", "");
    let two = w.greeted("{}");
    w.expect_json(exchange);
    assert_ne!(one, two);
    let exchange = w.ask(&Modern::new("{}").with("x-api-key", "one"), "0", "server/discover", "");
    w.expect_json(exchange);
    assert_eq!(w.stats().children, 2);
    w.finish();
}

#[test]
fn a_spare_process_waits_for_the_next_kind_of_client() {
    let mut config = eras();
    config.servers[0].prestart = true;
    let mut w = World::new(config);
    let first = w.expect_child();
    meet(&mut w, &Modern::new("{}"), "{}");
    let spare = w.expect_child();
    w.expect_no_line(spare);
    let exchange = w.ask(&Modern::new(r#"{"roots":{}}"#), "1", "server/discover", "");
    assert_eq!(w.greeted("{}"), spare);
    w.expect_json(exchange);
    let next = w.expect_child();
    assert_eq!(w.stats().children, 3);
    w.advance(secs(300));
    for child in [first, spare, next] {
        if w.is_stdin_closed(child) {
            w.exit(child, Exit::Code(0));
        }
    }
    assert_eq!(w.stats().children, 1, "the last one stays");
    w.finish();
}

// ---- over our own stdin ----

#[test]
fn both_eras_speak_on_one_stdin() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    let client = Modern::new("{}");
    w.stdin_says(&client.says("1", "tools/list", ""));
    let child = w.introduced("{}");
    let line = w.expect_method(child, "tools/list");
    w.stdin_says(&client.says("2", "prompts/list", ""));
    let other = w.expect_method(child, "prompts/list");
    w.answer(child, &line, "{}");
    assert!(w.expect_stdout().starts_with(r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","#));
    w.stdin_says(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    w.expect_no_line(child);
    w.stdin_says(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2,"reason":"x"}}"#);
    expect_cancelled(&mut w, child, &other);
    w.answer(child, &other, "{}");
    w.advance(secs(2));
    assert!(w.stdout_lines.is_empty(), "who cancels by stdin hears nothing more");
    w.stdin_says(&hello("3", "2025-06-18", "{}"));
    let line = w.expect_reader("initialize");
    w.answer(line.0, &line.1, r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#);
    assert_eq!(w.expect_stdout(), result("3", r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#));
    assert_ne!(line.0, child, "a client of its own era has a conversation of its own");
    w.stdin_says(r#"{"jsonrpc":"2.0","id":4,"method":"tools/list"}"#);
    let line = w.expect_method(line.0, "tools/list");
    w.answer(*w.children.keys().last().unwrap(), &line, r#"{"tools":[]}"#);
    assert_eq!(w.expect_stdout(), result("4", r#"{"tools":[]}"#));
    w.finish();
}

#[test]
fn a_subscription_on_stdin_ends_by_a_cancellation() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    let client = Modern::new("{}");
    w.stdin_says(&client.says("1", "subscriptions/listen", r#""notifications":{"resourceSubscriptions":["a:b"]}"#));
    let child = w.introduced(TELLS);
    assert_eq!(w.expect_stdout(), acknowledged("1", r#"{"resourceSubscriptions":["a:b"]}"#));
    expect_subscription(&mut w, child, "subscribe", "a:b");
    w.child_says(child, &updated("a:b"));
    assert_eq!(w.expect_stdout(), on("1", &updated("a:b")));
    w.stdin_says(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    expect_subscription(&mut w, child, "unsubscribe", "a:b");
    w.child_says(child, &updated("a:b"));
    w.settle();
    assert!(w.stdout_lines.is_empty());
    w.finish();
}
