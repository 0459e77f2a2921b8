//! The rules of Streamable HTTP: sessions, statuses, headers, batches.

use mcp_proxy_engine::SessionMode;
use mcp_proxy_tests::sim::*;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;

#[test]
fn a_client_shakes_hands_and_gets_a_session() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let mut client = Client::new();
    let exchange = w.post(&client, &hello(r#""h""#, "2025-11-25", r#"{"experimental":{"x":1}}"#));
    let line = w.expect_method(child, "initialize");
    assert_eq!(*line, *hello(&line.id(), "2025-11-25", r#"{"experimental":{"x":1}}"#), "only the id is another");
    w.answer(child, &line, r#"{"protocolVersion":"2025-06-18","capabilities":{},"x":1e400}"#);
    let response = w.expect_respond(exchange);
    let answer = result(r#""h""#, r#"{"protocolVersion":"2025-06-18","capabilities":{},"x":1e400}"#);
    assert_eq!((response.status, text(&response)), (200, &*answer));
    assert_eq!(response.headers.get("content-type"), Some("application/json"));
    let name = response.headers.get("mcp-session-id").unwrap();
    assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");

    client.session = Some(name.into());
    client.revision = Some("2025-06-18".into());
    w.notify(&client, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    w.expect_method(child, "notifications/initialized");
    w.notify(&client, NOTE);
    assert_eq!(&*w.expect_line(child), NOTE);
    assert_eq!(w.stats().sessions, 1);
    w.expect_no_child();
    w.finish();
}

#[test]
fn an_unknown_session_is_404_and_a_missing_one_400() {
    let mut w = World::new(config());
    let (client, _) = w.connect("2025-11-25", "{}");
    let stranger = Client { session: Some("ffffffffffffffffffffffffffffffff".into()), ..client.clone() };
    for method in ["POST", "GET", "DELETE"] {
        let exchange = w.send(stranger.request(method, PING));
        let body = w.expect_refused(exchange, 404, -32001);
        assert!(body.contains("Session not found"), "{body}");
        assert!(body.contains(if method == "POST" { r#""id":1"# } else { r#""id":null"# }), "{body}");
        let exchange = w.send(Client { session: None, ..client.clone() }.request(method, PING));
        w.expect_refused(exchange, 400, -32000);
    }
    let exchange = w.post(&client.clone().with("mcp-session-id", "x").with("mcp-session-id", "y"), PING);
    w.expect_refused(exchange, 400, -32600);
    w.finish();
}

#[test]
fn a_session_belongs_to_one_server() {
    let mut config = config();
    let mut other = config.servers[0].clone();
    other.name = "other".into();
    config.servers.push(other);
    let mut w = World::new(config);
    let (mut client, _) = w.connect("2025-11-25", "{}");
    client.target = "/servers/other/mcp".into();
    let exchange = w.post(&client, PING);
    w.expect_refused(exchange, 404, -32001);
    client.target = "/servers/nobody/mcp".into();
    let exchange = w.post(&client, PING);
    w.expect_refused(exchange, 404, -32000);
    w.finish();
}

#[test]
fn an_unsupported_version_is_400() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let old = Client { revision: Some("1999-12-31".into()), ..client.clone() };
    for method in ["POST", "GET", "DELETE"] {
        let exchange = w.send(old.request(method, PING));
        w.expect_refused(exchange, 400, -32000);
    }
    // None at all is allowed: specification 2025-06-18 says what to take it for.
    let exchange = w.post(&Client { revision: None, ..client }, PING);
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
    w.finish();
}

#[test]
fn other_methods_are_405_and_say_which_are_not() {
    let mut config = config();
    let mut bare = config.servers[0].clone();
    (bare.name, bare.stateless) = ("bare".into(), true);
    config.servers.push(bare);
    let mut w = World::new(config);
    for (target, method, allow) in [
        ("/mcp", "PUT", "GET, POST, DELETE"),
        ("/mcp", "OPTIONS", "GET, POST, DELETE"),
        ("/servers/bare/mcp", "GET", "POST"),
        ("/servers/bare/mcp", "DELETE", "POST"),
    ] {
        let exchange = w.send(Client { target: target.into(), ..Client::new() }.request(method, ""));
        let response = w.expect_respond(exchange);
        assert_eq!((response.status, response.headers.get("allow")), (405, Some(allow)), "{method} {target}");
    }
    w.finish();
}

#[test]
fn a_foreign_host_or_origin_is_403() {
    let mut w = World::new(config());
    let client = Client::new();
    for client in [
        client.clone().with("host", "evil.example"),
        client.clone().with("origin", "https://evil.example"),
        client.clone().with("origin", "null"),
    ] {
        for method in ["POST", "GET", "DELETE", "OPTIONS"] {
            let exchange = w.send(client.request(method, &hello("1", "2025-11-25", "{}")));
            w.expect_refused(exchange, 403, -32000);
        }
    }
    assert_eq!(w.stats().sessions, 0);
    w.finish();
}

#[test]
fn what_is_not_a_message_is_400_with_the_id_if_there_is_one() {
    let mut w = World::new(config());
    let (client, _) = w.connect("2025-11-25", "{}");
    for (body, code, id) in [
        ("", -32700, "null"),
        ("{", -32700, "null"),
        ("\"text\"", -32600, "null"),
        (r#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#, -32600, r#""x""#),
        (r#"{"jsonrpc":"2.0","id":7,"id":7,"method":"ping"}"#, -32600, "null"),
        (r#"{"jsonrpc":"2.0","id":7}"#, -32600, "7"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, "null"),
    ] {
        let exchange = w.post(&client, body);
        let answer = w.expect_refused(exchange, 400, code);
        assert!(answer.contains(&format!(r#""id":{id},"#)), "{body}: {answer}");
    }
    for (client, status) in
        [(client.clone().with("content-type", "text/plain"), 415), (client.with("accept", "*"), 406)]
    {
        let exchange = w.post(&client, PING);
        w.expect_refused(exchange, status, -32000);
    }
    w.finish();
}

#[test]
fn a_second_initialize_in_a_session_is_refused() {
    let mut w = World::new(config());
    let (client, _) = w.connect("2025-11-25", "{}");
    let exchange = w.post(&client, &hello("9", "2025-11-25", "{}"));
    let body = w.expect_refused(exchange, 400, -32600);
    assert!(body.contains(r#""id":9"#), "{body}");
    w.finish();
}

#[test]
fn a_batch_is_answered_by_one_array_in_the_order_of_the_answers() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-03-26", "{}");
    let exchange = w.post(&client, &format!("[{},\n {NOTE}, {}]", call("1"), call(r#""1""#)));
    let one = w.expect_method(child, "tools/call");
    w.expect_method(child, "notifications/roots/list_changed");
    let two = w.expect_method(child, "tools/call");
    w.answer(child, &two, r#"{"n":2}"#);
    w.expect_silence(exchange);
    w.answer(child, &one, r#"{"n":1}"#);
    let expected = format!("[{},{}]", result(r#""1""#, r#"{"n":2}"#), result("1", r#"{"n":1}"#));
    assert_eq!(w.expect_json(exchange), expected);

    let exchange = w.post(&client, &format!("[{NOTE},{NOTE}]"));
    assert_eq!(w.expect_respond(exchange).status, 202);
    w.expect_line(child);
    w.expect_line(child);

    let exchange = w.post(&client, &format!("[{}]", call("5")));
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), format!("[{}]", result("5", "{}")), "a batch of one is a batch");
    w.finish();
}

#[test]
fn a_batch_comes_singly_on_a_stream_if_anything_precedes() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-03-26", "{}");
    let exchange = w.post(&client, &format!("[{},{}]", call("1"), call_with_token("2", r#""t""#)));
    let (one, two) = (w.expect_line(child), w.expect_line(child));
    w.answer(child, &one, "{}");
    w.expect_silence(exchange);
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    w.child_says(child, &progress(&two.id()));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), result("1", "{}"), "what was gathered comes first");
    assert_eq!(w.expect_message(exchange), progress(r#""t""#));
    w.expect_silence(exchange);
    w.answer(child, &two, "{}");
    assert_eq!(w.expect_message(exchange), result("2", "{}"));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn batches_are_refused_where_there_are_none_and_where_they_are_wrong() {
    let mut config = config();
    config.limits.max_batch = 3;
    let mut w = World::new(config);
    for revision in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let (client, _) = w.connect(revision, "{}");
        let exchange = w.post(&client, &format!("[{PING}]"));
        w.expect_refused(exchange, 400, -32600);
    }
    let (client, _) = w.connect("2025-03-26", "{}");
    let initialize = hello("1", "2025-03-26", "{}");
    for (body, code) in [
        ("[]".to_owned(), -32600),
        (format!("[{initialize}]"), -32600),
        (format!("[{PING},{initialize}]"), -32600),
        (format!("[{PING},{PING},{PING},{PING}]"), -32600),
        (format!("[{PING},1]"), -32600),
        (format!("[{PING}"), -32700),
    ] {
        let exchange = w.post(&client, &body);
        w.expect_refused(exchange, 400, code);
    }
    w.finish();
}

#[test]
fn delete_answers_open_calls_and_ends_a_dedicated_child() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", r#"{"sampling":{}}"#);
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call("7"));
    w.expect_line(child);
    let deleted = w.delete(&client);
    assert_eq!(w.expect_respond(deleted).status, 200);
    assert!(w.expect_json(exchange).contains(r#""id":7,"error":{"code":-32603"#));
    w.expect_end(stream);
    assert!(w.is_stdin_closed(child));
    w.exit(child, mcp_proxy_engine::Exit::Code(0));
    assert_eq!((w.stats().sessions, w.stats().children), (0, 0));
    let exchange = w.post(&client, &call("8"));
    w.expect_refused(exchange, 404, -32001);
    w.finish();
}

#[test]
fn an_idle_session_ends_but_not_while_its_stream_is_open() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.advance(secs(3600));
    assert_eq!(w.stats().sessions, 1);
    w.close_client(stream);
    w.advance(secs(29 * 60));
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    w.advance(secs(35 * 60));
    w.expect_stream(exchange);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    w.advance(secs(29 * 60));
    assert_eq!(w.stats().sessions, 1);
    w.advance(secs(61));
    assert_eq!(w.stats().sessions, 0);
    assert!(w.is_stdin_closed(child));
    let exchange = w.post(&client, &call("2"));
    w.expect_refused(exchange, 404, -32001);
    w.finish();
}

#[test]
fn stateless_servers_give_no_session_and_are_introduced_once() {
    let mut config = config();
    config.servers[0].stateless = true;
    let mut w = World::new(config);
    let child = w.expect_child();
    let client = Client { revision: Some("2025-06-18".into()), ..Client::new() };
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_method(child, "initialize");
    assert!(line.contains(r#""protocolVersion":"2025-06-18""#) && line.contains(r#""capabilities":{}"#), "{line}");
    w.answer(child, &line, r#"{"protocolVersion":"2025-06-18"}"#);
    w.expect_method(child, "notifications/initialized");
    let line = w.expect_method(child, "tools/call");
    // Nobody can be asked or told anything beside the answer.
    w.child_says(child, r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
    assert!(w.expect_line(child).contains(r#""id":1,"error":{"code":-32601"#));
    w.answer(child, &line, "{}");
    let response = w.expect_respond(exchange);
    assert_eq!((text(&response), response.headers.get("mcp-session-id")), (&*result("1", "{}"), None));
    // A second request, and even an `initialize`, go to the same process.
    let exchange = w.post(&client, &hello("5", "2025-06-18", "{}"));
    let response = w.expect_respond(exchange);
    assert_eq!(text(&response), result("5", r#"{"protocolVersion":"2025-06-18"}"#));
    assert_eq!(response.headers.get("mcp-session-id"), None);
    w.notify(&client, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
    assert_eq!(w.stats().sessions, 0);
    w.expect_no_child();
    w.finish();
}

#[test]
fn per_request_servers_live_for_one_request() {
    let mut config = config();
    (config.servers[0].sessions, config.servers[0].prestart) = (SessionMode::PerRequest, false);
    let mut w = World::new(config);
    let client = Client { revision: Some("2025-06-18".into()), ..Client::new() };
    let (one, two) = (w.post(&client, &call("1")), w.post(&client, &call("1")));
    let children = [w.expect_child(), w.expect_child()];
    for child in children {
        let line = w.expect_method(child, "initialize");
        w.answer(child, &line, r#"{"protocolVersion":"2025-06-18"}"#);
        w.expect_method(child, "notifications/initialized");
    }
    for (child, exchange, n) in [(children[1], two, "2"), (children[0], one, "1")] {
        let line = w.expect_method(child, "tools/call");
        w.answer(child, &line, n);
        assert_eq!(w.expect_json(exchange), result("1", n));
        assert!(w.is_stdin_closed(child));
        w.exit(child, mcp_proxy_engine::Exit::Code(0));
    }
    assert_eq!((w.stats().children, w.stats().links, w.stats().sessions), (0, 0, 0));
    w.finish();
}
