//! The front for clients of revision 2026-07-28, and such clients of such servers.

use mcp_proxy_engine::{ChildId, ExchangeId, Exit, FetchId, FrontKind, Secret, SessionMode, UrlEnv};
use mcp_proxy_tests::sim::*;
use serde_json::json as value;

const LIST: &str = "prompts/list";
const CALL: &str = r#""name":"t""#;
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const VERSION: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
const CAPABILITIES: &str = r#""io.modelcontextprotocol/clientCapabilities":{}"#;

/// A request with these parameters and these header fields.
fn send(w: &mut World, fields: &[(&'static str, &str)], method: &str, params: &str) -> ExchangeId {
    let mut client = Client::new();
    for (name, value) in fields {
        client = client.with(name, value);
    }
    w.post(&client, &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
}

/// The first request of all, at a modern server.
fn meet(w: &mut World, client: &Modern) -> ChildId {
    let exchange = w.ask(client, "0", LIST, "");
    let child = w.discovered("{}");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    child
}

// ---- the ladder of checks ----

#[test]
fn an_envelope_must_be_whole() {
    let mut w = World::new(eras());
    let fields = [("mcp-protocol-version", MODERN), ("mcp-method", LIST)];
    for params in [
        "{}".to_owned(),
        r#"{"_meta":null}"#.into(),
        r#"{"_meta":[]}"#.into(),
        r#"{"_meta":{}}"#.into(),
        "[]".into(),
        format!(r#"{{"_meta":{{{VERSION}}}}}"#),
        format!(r#"{{"_meta":{{{CAPABILITIES}}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},"io.modelcontextprotocol/clientCapabilities":null}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},"io.modelcontextprotocol/clientCapabilities":[]}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},"io.modelcontextprotocol/clientCapabilities":{{"roots":true}}}}}}"#),
        format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":20260728,{CAPABILITIES}}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},{CAPABILITIES},"io.modelcontextprotocol/logLevel":"loud"}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},{CAPABILITIES},"io.modelcontextprotocol/clientInfo":"me"}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},{VERSION},{CAPABILITIES}}}}}"#),
        format!(r#"{{"_meta":{{{VERSION},{CAPABILITIES}}},"_meta":{{}}}}"#),
    ] {
        let exchange = send(&mut w, &fields, LIST, &params);
        let refusal = w.expect_refused(exchange, 400, -32602);
        assert!(refusal.contains(r#""id":1,"#), "{params}: {refusal}");
    }
    // A claim in the body is enough to be a modern request, and then the rest must be there.
    let exchange = send(&mut w, &[], LIST, &format!(r#"{{"_meta":{{{VERSION}}}}}"#));
    w.expect_refused(exchange, 400, -32602);
    assert_eq!(w.stats().children, 0);
    w.finish();
}

#[test]
fn the_version_must_be_said_once_in_the_header_and_be_the_one_of_the_body() {
    let mut w = World::new(eras());
    let params = format!(r#"{{"_meta":{{{VERSION},{CAPABILITIES}}}}}"#);
    for versions in
        [vec![], vec![MODERN, MODERN], vec!["2025-11-25"], vec!["2099-01-01"], vec![""], vec!["2026-07-28 "]]
    {
        let mut fields = vec![("mcp-method", LIST)];
        fields.extend(versions.iter().map(|version| ("mcp-protocol-version", *version)));
        let exchange = send(&mut w, &fields, LIST, &params);
        w.expect_refused(exchange, 400, -32020);
    }
    assert_eq!(w.stats().children, 0);
    w.finish();
}

#[test]
fn a_revision_that_is_not_spoken_here_is_refused_with_those_that_are() {
    let mut w = World::new(eras());
    let body = |version: &str| {
        format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}",{CAPABILITIES}}}}}"#)
    };
    for (version, params) in [
        ("2099-01-01", body("2099-01-01")),
        ("2025-11-25", body("2025-11-25")),
        ("DRAFT", body("DRAFT")),
        ("2099-01-01", "{}".to_owned()),
    ] {
        let exchange = send(&mut w, &[("mcp-protocol-version", version), ("mcp-method", LIST)], LIST, &params);
        let refusal = w.expect_refused(exchange, 400, -32022);
        let data = format!(r#""data":{{"supported":["2026-07-28"],"requested":"{version}"}}}}}}"#);
        assert!(refusal.ends_with(&data), "{refusal}");
    }
    assert_eq!(w.stats().children, 0);
    w.finish();
}

#[test]
fn the_method_and_the_name_must_be_mirrored() {
    let mut w = World::new(eras());
    let child = meet(&mut w, &Modern::new("{}"));
    let meta = format!(r#""_meta":{{{VERSION},{CAPABILITIES}}}"#);
    let coded = "=?base64?w6k=?=";
    for (fields, method, params, fits) in [
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "p")], "prompts/get", r#""name":"p""#, true),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", " p\t")], "prompts/get", r#""name":"p""#, true),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", coded)], "prompts/get", r#""name":"\u00e9""#, true),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "=?base64?cA==?=")], "prompts/get", r#""name":"p""#, true),
        (vec![("mcp-method", "resources/read"), ("mcp-name", "a:b")], "resources/read", r#""uri":"a:b""#, true),
        (vec![("mcp-method", LIST), ("mcp-name", "whatever")], LIST, r#""name":"p""#, true),
        (vec![], "prompts/get", r#""name":"p""#, false),
        (vec![("mcp-name", "p")], "prompts/get", r#""name":"p""#, false),
        (vec![("mcp-method", "prompts/get")], "prompts/get", r#""name":"p""#, false),
        (vec![("mcp-method", "Prompts/Get"), ("mcp-name", "p")], "prompts/get", r#""name":"p""#, false),
        (vec![("mcp-method", "tools/call"), ("mcp-name", "p")], "prompts/get", r#""name":"p""#, false),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "P")], "prompts/get", r#""name":"p""#, false),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "p")], "prompts/get", r#""name":"q""#, false),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "p")], "prompts/get", r#""x":1"#, false),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "5")], "prompts/get", r#""name":5"#, false),
        (
            vec![("mcp-method", "prompts/get"), ("mcp-name", "p"), ("mcp-name", "p")],
            "prompts/get",
            r#""name":"p""#,
            false,
        ),
        (vec![("mcp-method", LIST), ("mcp-method", LIST)], LIST, r#""x":1"#, false),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "=?base64?*?=")], "prompts/get", r#""name":"*""#, false),
        (vec![("mcp-method", "prompts/get"), ("mcp-name", "é")], "prompts/get", r#""name":"é""#, false),
        (vec![("mcp-method", "resources/read"), ("mcp-name", "a:c")], "resources/read", r#""uri":"a:b""#, false),
    ] {
        let mut all = vec![("mcp-protocol-version", MODERN)];
        all.extend(&fields);
        let exchange = send(&mut w, &all, method, &format!("{{{params},{meta}}}"));
        if fits {
            let line = w.expect_method(child, method);
            w.answer(child, &line, "{}");
            assert_eq!(w.expect_json(exchange), result("1", "{}"), "{fields:?} {params}");
        } else {
            let refusal = w.expect_refused(exchange, 400, -32020);
            assert!(refusal.contains("Header mismatch"), "{fields:?} {params}: {refusal}");
            w.expect_no_line(child);
        }
    }
    w.finish();
}

#[test]
fn the_checks_come_in_their_order() {
    let mut w = World::new(eras());
    let exchange =
        send(&mut w, &[("mcp-protocol-version", "2025-11-25")], "gone", &format!(r#"{{"_meta":{{{VERSION}}}}}"#));
    w.expect_refused(exchange, 400, -32602);
    let unknown = format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2099-01-01",{CAPABILITIES}}}}}"#);
    let exchange = send(&mut w, &[("mcp-protocol-version", MODERN)], "gone", &unknown);
    w.expect_refused(exchange, 400, -32020);
    let exchange = send(&mut w, &[("mcp-protocol-version", "2099-01-01")], "gone", &unknown);
    w.expect_refused(exchange, 400, -32022);
    let modern = format!(r#"{{"_meta":{{{VERSION},{CAPABILITIES}}}}}"#);
    let exchange = send(&mut w, &[("mcp-protocol-version", MODERN)], "gone", &modern);
    w.expect_refused(exchange, 400, -32020);
    assert_eq!(w.stats().children, 0, "none of this needs a server");
    w.finish();
}

#[test]
fn a_body_is_one_request_or_one_notification() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let posted = Client { revision: Some(MODERN.into()), ..Client::new() };
    let request = client.says("1", LIST, "");
    let mirrored = posted.clone().with("mcp-method", LIST);
    for body in [format!("[{request}]"), format!("[{request},{request}]")] {
        let exchange = w.post(&mirrored, &body);
        w.expect_refused(exchange, 400, -32600);
    }
    for body in [result("1", "{}"), r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#.into()] {
        let exchange = w.post(&posted, &body);
        w.expect_refused(exchange, 400, -32600);
    }
    let exchange = w.post(&posted, "{");
    w.expect_refused(exchange, 400, -32700);
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into(),
        format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"_meta":{{{VERSION},{CAPABILITIES}}}}}}}"#),
    ] {
        w.notify(&posted, &body);
    }
    assert_eq!((w.stats().children, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn there_is_neither_get_nor_delete() {
    let mut w = World::new(eras());
    let client = Client { revision: Some(MODERN.into()), ..Client::new() };
    for exchange in [w.get(&client), w.delete(&client), w.get_after(&client, "1-1")] {
        let response = w.expect_respond(exchange);
        assert_eq!((response.status, response.headers.get("allow")), (405, Some("POST")));
    }
    w.finish();
}

#[test]
fn a_session_id_that_strays_in_is_ignored_and_not_given_back() {
    let mut w = World::new(eras());
    let (legacy, _) = w.connect("2025-06-18", "{}");
    let client = Modern::new("{}").with("last-event-id", "1-1");
    let child = meet(&mut w, &client);
    for session in ["nobody", legacy.session.as_deref().unwrap()] {
        let exchange = w.ask(&client.clone().with("mcp-session-id", session), "1", LIST, "");
        let line = w.expect_method(child, LIST);
        w.answer(child, &line, "{}");
        let response = w.expect_respond(exchange);
        assert_eq!((response.status, response.headers.get("mcp-session-id")), (200, None));
    }
    w.finish();
}

#[test]
fn the_body_says_which_era_a_request_is_of() {
    // An `initialize` without an envelope is one of old, whatever the header says.
    for version in [MODERN, "2099-01-01"] {
        let mut w = World::new(eras());
        let client = Client { revision: Some(version.into()), ..Client::new() };
        let exchange = w.post(&client, &hello("1", "2025-11-25", "{}"));
        w.shake("2025-11-25");
        let response = w.expect_respond(exchange);
        assert!(response.status == 200 && response.headers.get("mcp-session-id").is_some(), "{version}");
        w.finish();
    }
    let mut w = World::new(eras());
    let (client, child) = w.connect("2025-06-18", "{}");
    // A legacy request of a session stays one, even if its `_meta` is full of other things.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/clientInfo":{},"x":"io.modelcontextprotocol/protocolVersion"}}}"#;
    let exchange = w.post(&client, body);
    let line = w.expect_line(child);
    assert_eq!(*line, body.replace(r#""id":1"#, &format!(r#""id":{}"#, line.id())));
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    // One whose header says what its body does not is a modern one that is not whole.
    let exchange = w.post(&Client { revision: Some(MODERN.into()), ..client.clone() }, &call("3"));
    w.expect_refused(exchange, 400, -32602);
    // One with an envelope and the header of the session is neither.
    let exchange = w.post(&client, &Modern::new("{}").says("2", LIST, ""));
    w.expect_refused(exchange, 400, -32020);
    // Without a session a revision that nobody knows is a modern one's.
    let unknown = Client { revision: Some("2027-01-01".into()), ..Client::new() };
    let exchange = w.post(&unknown, &call("1"));
    w.expect_refused(exchange, 400, -32022);
    w.finish();
}

#[test]
fn hosts_origins_and_keys_are_checked_for_them_too() {
    let mut config = eras();
    config.access.auth_tokens = vec![Secret::new("k".into())];
    let mut w = World::new(config);
    let client = Modern::new("{}");
    let exchange = w.ask(&client, "1", LIST, "");
    assert_eq!(w.expect_respond(exchange).status, 401);
    let client = client.with("x-api-key", "k");
    for (name, value, status) in [
        ("host", "evil.example", 403),
        ("origin", "https://evil.example", 403),
        ("accept", "application/json", 406),
        ("content-type", "text/plain", 415),
    ] {
        let exchange = w.ask(&client.clone().with(name, value), "1", LIST, "");
        assert_eq!(w.expect_respond(exchange).status, status, "{name}");
    }
    meet(&mut w, &client);
    w.finish();
}

#[test]
fn a_stopping_proxy_takes_no_request() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client);
    let waiting = w.ask(&client, "1", LIST, "");
    let line = w.expect_method(child, LIST);
    w.shutdown();
    let exchange = w.ask(&client, "2", LIST, "");
    let refusal = w.expect_refused(exchange, 503, -32000);
    assert!(refusal.contains(r#""id":2,"#), "{refusal}");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(waiting), result("1", "{}"));
    w.finish_from_here();
}

#[test]
fn over_stdin_the_body_is_checked_alone() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    let request = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{LIST}","params":{params}}}"#);
    for (meta, code) in [
        (VERSION.to_owned(), -32602),
        (format!("{VERSION},{VERSION},{CAPABILITIES}"), -32602),
        (format!(r#""io.modelcontextprotocol/protocolVersion":5,{CAPABILITIES}"#), -32602),
        (format!(r#""io.modelcontextprotocol/protocolVersion":"2099-01-01",{CAPABILITIES}"#), -32022),
    ] {
        w.stdin_says(&request(&format!(r#"{{"_meta":{{{meta}}}}}"#)));
        let refusal = json(&w.expect_stdout());
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&value!(1), &value!(code)), "{meta}");
        if code == -32022 {
            let data = value!({"supported": ["2026-07-28"], "requested": "2099-01-01"});
            assert_eq!(refusal["error"]["data"], data);
        }
    }
    let client = Modern::new("{}");
    w.stdin_says(&client.says("1", LIST, ""));
    let child = w.discovered("{}");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    assert_eq!((w.stats().sessions, w.stats().calls), (1, 0), "only the one of stdin is left");
    w.finish();
}

// ---- modern servers ----

#[test]
fn bytes_pass_but_for_ids_and_tokens() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"roots":{},"extensions":{"e":{}}}"#)
        .meta("progressToken", r#""t""#)
        .meta("traceparent", r#""00""#)
        .meta("io.modelcontextprotocol/logLevel", r#""info""#);
    let child = meet(&mut w, &Modern::new("{}"));
    let params = r#""name":"p" ,"arguments":{"n": 1.0,"b":"\u00e9"}"#;
    let exchange = w.ask(&client, r#""a""#, "prompts/get", params);
    let line = w.expect_line(child);
    let sent = client
        .says(&line.id(), "prompts/get", params)
        .replace(r#""progressToken":"t""#, &format!(r#""progressToken":{}"#, line.id()));
    assert_eq!(*line, sent);
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    w.child_says(child, &progress(&line.id()));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), progress(r#""t""#));
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    w.child_says(child, log);
    assert_eq!(w.expect_message(exchange), log);
    let said = r#"{"resultType":"input_required","inputRequests":{"k":{"method":"roots/list"}},"requestState":"own"}"#;
    w.answer(child, &line, said);
    assert_eq!(w.expect_message(exchange), result(r#""a""#, said));
    w.expect_end(exchange);
    // The client comes back with the server's own state, which means nothing here.
    let params = r#""name":"p","inputResponses":{"k":{"roots":[]}},"requestState":"own""#;
    let exchange = w.ask(&Modern::new("{}"), "2", "prompts/get", params);
    let line = w.expect_line(child);
    assert_eq!(*line, Modern::new("{}").says(&line.id(), "prompts/get", params));
    w.answer(child, &line, r#"{"resultType":"anything","x":[ 1 ]}"#);
    assert_eq!(w.expect_json(exchange), result("2", r#"{"resultType":"anything","x":[ 1 ]}"#));
    w.finish();
}

#[test]
fn errors_of_a_modern_server_have_the_status_of_their_code() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client);
    for (code, status) in [
        (-32601, 404),
        (-32020, 400),
        (-32021, 400),
        (-32022, 400),
        (-32602, 200),
        (-32603, 200),
        (-32002, 200),
        (1, 200),
    ] {
        let exchange = w.ask(&client, "1", "resources/read", r#""uri":"a:b""#);
        let line = w.expect_line(child);
        w.refuse(child, &line, code);
        let refusal = w.expect_refused(exchange, status, code);
        assert_eq!(refusal, format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"no"}}}}"#));
    }
    // Whoever prefers a stream has a status too, as long as nothing was said; later there is none to give any more.
    let client = client.with("accept", "text/event-stream, application/json");
    let exchange = w.ask(&client, "1", LIST, "");
    let line = w.expect_line(child);
    w.refuse(child, &line, -32601);
    w.expect_refused(exchange, 404, -32601);
    let exchange = w.ask(&client, "1", LIST, "");
    let line = w.expect_line(child);
    w.advance(secs(15));
    w.refuse(child, &line, -32601);
    w.expect_stream(exchange);
    assert!(w.expect_message(exchange).contains("-32601"));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn to_hang_up_is_to_cancel_and_nobody_elses_call_is_meant() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client);
    let exchanges = [w.ask(&client, "1", LIST, ""), w.ask(&client, "1", LIST, "")];
    let lines = [w.expect_line(child), w.expect_line(child)];
    w.close_client(exchanges[0]);
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), lines[0].id());
    w.answer(child, &lines[0], r#"{"late":1}"#);
    w.answer(child, &lines[1], "{}");
    assert_eq!(w.expect_json(exchanges[1]), result("1", "{}"));
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn subscriptions_pass_under_the_clients_own_ids() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client);
    let wanted = r#""notifications":{"toolsListChanged":true}"#;
    let streams = [r#""L""#, "1"].map(|id| (w.ask(&client, id, "subscriptions/listen", wanted), id));
    let lines = [w.expect_line(child), w.expect_line(child)];
    assert_eq!(*lines[0], client.says(&lines[0].id(), "subscriptions/listen", wanted));
    for (line, (stream, id)) in lines.iter().zip(streams) {
        let honoured = r#"{"toolsListChanged":true}"#;
        w.child_says(child, &acknowledged(&line.id(), honoured));
        w.expect_stream(stream);
        assert_eq!(w.expect_message(stream), acknowledged(id, honoured));
        w.child_says(child, &on(&line.id(), &changed("tools")));
        assert_eq!(w.expect_message(stream), on(id, &changed("tools")));
    }
    w.expect_silence(streams[0].0);
    // It has no limit.
    w.advance(secs(2 * 3600));
    let end = |id: &str| result(id, &format!(r#"{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":{id}}}}}"#));
    w.expect_comment(streams[0].0);
    w.expect_comment(streams[1].0);
    w.child_says(child, &end(&lines[0].id()));
    assert_eq!(w.expect_message(streams[0].0), end(r#""L""#));
    w.expect_end(streams[0].0);
    w.close_client(streams[1].0);
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), lines[1].id());
    w.child_says(child, &on(&lines[1].id(), &changed("tools")));
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn a_modern_server_that_dies_fails_its_calls_and_is_asked_for_its_era_again() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let first = meet(&mut w, &client);
    let exchange = w.ask(&client, "1", LIST, "");
    let stream = w.ask(&client, "2", "subscriptions/listen", r#""notifications":{"toolsListChanged":true}"#);
    w.expect_line(first);
    let line = w.expect_line(first);
    w.child_says(first, &acknowledged(&line.id(), "{}"));
    w.expect_stream(stream);
    w.expect_message(stream);
    w.exit(first, Exit::Code(1));
    w.expect_refused(exchange, 200, -32603);
    // It did not end well, and its client must know.
    assert_eq!(json(&w.expect_message(stream))["error"]["code"], -32603);
    w.expect_end(stream);
    let exchange = w.ask(&client, "3", LIST, "");
    let second = w.discovered("{}");
    assert_ne!(first, second);
    let line = w.expect_method(second, LIST);
    w.answer(second, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("3", "{}"));
    w.finish();
}

#[test]
fn over_http_the_header_fields_of_a_call_are_checked_before_a_stdio_server_gets_it() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let child = meet(&mut w, &client);
    let exchange = w.ask(&client, "1", "tools/call", &format!(r#"{CALL},"arguments":{{"a":"x"}}"#));
    let line = w.expect_method(child, "tools/list");
    assert_eq!(json(&line)["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
    let tools = r#"[{"name":"t","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}]"#;
    w.answer(child, &line, &format!(r#"{{"resultType":"complete","tools":{tools}}}"#));
    w.expect_refused(exchange, 400, -32020);
    let exchange =
        w.ask(&client.with("mcp-param-a", "x"), "1", "tools/call", &format!(r#"{CALL},"arguments":{{"a":"x"}}"#));
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
    w.finish();
}

#[test]
fn a_cancellation_on_stdin_reaches_a_modern_server() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    let client = Modern::new("{}");
    w.stdin_says(&client.says("7", "tools/call", CALL));
    let child = w.discovered("{}");
    let line = w.expect_method(child, "tools/call");
    assert_eq!(*line, client.says(&line.id(), "tools/call", CALL));
    w.stdin_says(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), line.id());
    w.answer(child, &line, "{}");
    w.settle();
    assert!(w.stdout_lines.is_empty());
    w.finish();
}

#[test]
fn a_modern_server_that_cancels_a_subscription_ends_it() {
    for stdio in [false, true] {
        let mut config = eras();
        config.front = if stdio { FrontKind::Stdio } else { FrontKind::Http };
        let mut w = World::new(config);
        let client = Modern::new("{}");
        let wanted = r#""notifications":{"toolsListChanged":true}"#;
        let stream = if stdio {
            w.stdin_says(&client.says("1", "subscriptions/listen", wanted));
            None
        } else {
            Some(w.ask(&client, "1", "subscriptions/listen", wanted))
        };
        let child = w.discovered("{}");
        let line = w.expect_line(child);
        w.child_says(child, &acknowledged(&line.id(), "{}"));
        let ended = |id: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
        };
        w.child_says(child, &ended(&line.id()));
        let end = result("1", &format!(r#"{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":1}}}}"#));
        match stream {
            Some(stream) => {
                w.expect_stream(stream);
                assert_eq!(w.expect_message(stream), acknowledged("1", "{}"));
                assert_eq!(w.expect_message(stream), end);
                w.expect_end(stream);
            }
            None => {
                assert_eq!(w.expect_stdout(), acknowledged("1", "{}"));
                assert_eq!(w.expect_stdout(), ended("1"));
                assert_eq!(w.expect_stdout(), end);
            }
        }
        // Its own answer comes late.
        w.answer(child, &line, r#"{"resultType":"complete"}"#);
        assert_eq!(w.stats().calls, 0);
        w.finish();
    }
}

#[test]
fn a_shutdown_ends_the_subscriptions_on_stdin_by_a_cancellation_and_a_result() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    w.stdin_says(&Modern::new("{}").says("1", "subscriptions/listen", r#""notifications":{}"#));
    w.introduced("{}");
    assert_eq!(w.expect_stdout(), acknowledged("1", "{}"));
    w.shutdown();
    w.settle();
    let ended = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(w.expect_stdout(), ended);
    let end = format!(r#"{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":1}}}}"#);
    assert_eq!(w.expect_stdout(), result("1", &end));
    w.finish_from_here();
}

// ---- which requests share a process ----

#[test]
fn one_process_for_each_request_if_the_operator_wants_it_so() {
    for modern in [true, false] {
        let mut config = eras();
        config.servers[0].sessions = SessionMode::PerRequest;
        let mut w = World::new(config);
        let client = Modern::new("{}");
        let mut children = Vec::new();
        for id in ["1", "2", "3"] {
            let exchange = w.ask(&client, id, LIST, "");
            let asked = id == "1" || modern;
            let child = match (modern, asked) {
                (true, _) => w.discovered("{}"),
                (false, true) => w.introduced("{}"),
                (false, false) => w.greeted("{}"),
            };
            let line = w.expect_method(child, LIST);
            w.answer(child, &line, r#"{"resultType":"complete"}"#);
            w.expect_json(exchange);
            assert!(w.is_stdin_closed(child), "{id}: it is done");
            children.push(child);
        }
        children.dedup();
        assert_eq!((children.len(), w.stats().sessions, w.stats().links), (3, 0, 0));
        w.finish();
    }
}

#[test]
fn one_process_for_each_request_in_flight_if_clients_must_not_share() {
    let mut config = eras();
    config.servers[0].sessions = SessionMode::PerSession;
    let mut w = World::new(config);
    let client = Modern::new("{}");
    let first = w.ask(&client, "1", LIST, "");
    let one = w.introduced("{}");
    let line_one = w.expect_method(one, LIST);
    let second = w.ask(&client, "2", LIST, "");
    let two = w.greeted("{}");
    let line_two = w.expect_method(two, LIST);
    assert_ne!(one, two);
    for (exchange, child, line) in [(first, one, line_one), (second, two, line_two)] {
        w.answer(child, &line, "{}");
        w.expect_json(exchange);
    }
    w.finish();
}

#[test]
fn the_limits_of_calls_and_processes_hold_for_them_too() {
    let mut config = eras();
    config.limits.max_calls = 1;
    config.limits.max_children = 1;
    config.servers[0].url_env = UrlEnv::Any;
    let mut w = World::new(config);
    let client = Modern::new("{}");
    let child = meet(&mut w, &client);
    let exchange = w.ask(&client, "1", LIST, "");
    let line = w.expect_method(child, LIST);
    let over = w.ask(&client, "2", LIST, "");
    let refusal = w.expect_respond(over);
    assert_eq!((refusal.status, refusal.headers.get("retry-after")), (503, Some("1")));
    let mut other = client.clone();
    other.client.target = "/mcp?TOKEN=x".into();
    let over = w.ask(&other, "3", LIST, "");
    assert!(w.expect_refused(over, 503, -32000).contains("--max-children"));
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

// ---- remote modern servers ----

/// The next request of the proxy, which must be this.
fn expect_post(w: &mut World, method: &str) -> FetchId {
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), method);
    post
}

fn answer(w: &mut World, post: FetchId, said: &str) {
    let answer = result(&w.posted(post).id(), said);
    w.remote_answers(post, head(200, JSON), &answer);
}

#[test]
fn the_header_fields_of_a_client_go_on_to_a_remote_server() {
    let mut w = World::new(remote_config("https://h.example/mcp", FrontKind::Http));
    let client = Modern::new("{}").with("mcp-param-region", "=?base64?w6k=?=").with("mcp-param-x", "1");
    let exchange = w.ask(&client, "1", "tools/call", CALL);
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    let post = expect_post(&mut w, "tools/call");
    let fields = ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-region", "mcp-param-x"];
    let expected = [MODERN, "tools/call", "t", "=?base64?w6k=?=", "1"].map(Some);
    assert_eq!(fields.map(|name| w.field(post, name)), expected, "the server knows its tools, and checks itself");
    let error = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32020,"message":"no"}}}}"#, w.posted(post).id());
    w.remote_answers(post, head(400, JSON), &error);
    w.expect_refused(exchange, 400, -32020);
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn a_client_on_stdin_gets_its_header_fields_from_the_proxy() {
    let mut w = World::new(remote_config("https://h.example/mcp", FrontKind::Stdio));
    let client = Modern::new("{}");
    let params = format!(r#"{CALL},"arguments":{{"a":7}}"#);
    w.stdin_says(&client.says("1", "tools/call", &params));
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    let post = expect_post(&mut w, "tools/list");
    answer(&mut w, post, r#"{"resultType":"complete","tools":[]}"#);
    let post = expect_post(&mut w, "tools/call");
    assert_eq!(w.field(post, "mcp-param-a"), None);
    let mismatch = |w: &mut World, post: FetchId| {
        let error = r#"{"code":-32020,"message":"Header mismatch"}"#;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, w.posted(post).id());
        w.remote_answers(post, head(400, JSON), &body);
    };
    mismatch(&mut w, post);
    let post = expect_post(&mut w, "tools/list");
    let tool = r#"{"name":"t","inputSchema":{"properties":{"a":{"type":"integer","x-mcp-header":"A"}}}}"#;
    answer(&mut w, post, &format!(r#"{{"resultType":"complete","tools":[{tool}]}}"#));
    let post = expect_post(&mut w, "tools/call");
    assert_eq!(w.field(post, "mcp-param-a"), Some("7"));
    assert_eq!(&*w.posted(post), client.says(&w.posted(post).id(), "tools/call", &params));
    mismatch(&mut w, post);
    let refusal = json(&w.expect_stdout());
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&value!(1), &value!(-32020)));
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn a_client_on_stdin_is_not_told_of_tools_that_cannot_be_called_over_http() {
    let tools = r#""tools":[{"name":"bad","inputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}},{"name":"t"}]"#;
    let kept = r#"{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[{"name":"t"}]}"#;
    let said = format!(r#"{{"resultType":"complete","ttlMs":0,"cacheScope":"private",{tools}}}"#);
    let mut w = World::new(remote_config("https://h.example/mcp", FrontKind::Stdio));
    let client = Modern::new("{}");
    w.stdin_says(&client.says("1", "tools/list", ""));
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    let post = expect_post(&mut w, "tools/list");
    answer(&mut w, post, &said);
    assert_eq!(json(&w.expect_stdout()), json(&result("1", kept)));
    w.finish();
    // One that speaks HTTP itself decides for itself.
    let mut w = World::new(remote_config("https://h.example/mcp", FrontKind::Http));
    let exchange = w.ask(&client, "1", "tools/list", "");
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    let post = expect_post(&mut w, "tools/list");
    answer(&mut w, post, &said);
    assert_eq!(w.expect_json(exchange), result("1", &said));
    w.finish();
}

#[test]
fn who_hangs_up_closes_the_stream_of_the_remote_server() {
    let mut w = World::new(remote_config("https://h.example/mcp", FrontKind::Http));
    let client = Modern::new("{}");
    let exchange = w.ask(&client, "1", LIST, "");
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    let timers = w.stats().timers;
    let post = expect_post(&mut w, LIST);
    w.remote_streams(post, head(200, EVENTS), "");
    w.close_client(exchange);
    assert!(w.fetches[&post].body.dropped);
    assert!(w.stats().timers < timers, "nothing more can come about it");
    w.expect_no_fetch();
    // A subscription ends with its stream, too, and its client hears of it.
    let stream = w.ask(&client, "2", "subscriptions/listen", r#""notifications":{"toolsListChanged":true}"#);
    let post = expect_post(&mut w, "subscriptions/listen");
    let id = w.posted(post).id();
    w.remote_streams(post, head(200, EVENTS), &format!("data: {}\n\n", acknowledged(&id, "{}")));
    w.expect_stream(stream);
    assert_eq!(w.expect_message(stream), acknowledged("2", "{}"));
    w.remote_ends(post);
    assert_eq!(json(&w.expect_message(stream))["error"]["code"], -32603);
    w.expect_end(stream);
    w.expect_no_fetch();
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}
