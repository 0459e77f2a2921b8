//! Remote servers where the eras differ: modern ones for legacy clients, and legacy ones for modern clients.

use mcp_proxy_engine::{FetchId, FrontKind, Origin, RemoteTransport};
use mcp_proxy_tests::sim::*;
use serde_json::json as value;

const FORM: &str = r#"{"elicitation":{}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const TELLS: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;
const URL: &str = "https://h.example/mcp";

fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"x"}}}}"#)
}

fn event(message: &str) -> String {
    format!("data: {message}\n\n")
}

/// The client on stdin introduces itself to a remote server that is a modern one.
fn connect(w: &mut World, capabilities: &str, server: &str) {
    w.stdin_says(&hello("0", "2025-06-18", capabilities));
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), "initialize");
    let error =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}}"#;
    w.remote_answers(post, head(400, JSON), error);
    let post = expect_post(w, "server/discover");
    let answer = result(&w.posted(post).id(), &discovery(server));
    w.remote_answers(post, head(200, JSON), &answer);
    assert!(w.expect_stdout().contains(r#""id":0,"result":{"protocolVersion":"2025-06-18""#));
    w.stdin_says(INITIALIZED);
}

/// A request of the proxy, with the header fields of the revision.
fn expect_post(w: &mut World, method: &str) -> FetchId {
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), method);
    let fields = ["mcp-protocol-version", "mcp-method", "accept"].map(|name| w.field(post, name));
    assert_eq!(fields, [Some(MODERN), Some(method), Some("application/json, text/event-stream")]);
    assert_eq!(w.field(post, "mcp-session-id"), None);
    post
}

fn answer(w: &mut World, post: FetchId, members: &str) {
    let answer = result(&w.posted(post).id(), &format!(r#"{{"resultType":"complete",{members}}}"#));
    w.remote_answers(post, head(200, JSON), &answer);
}

const TOOLS: &str = r#""tools":[{"name":"t","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"Aa"}}}},{"name":"bad","inputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}},{"name":"plain"}]"#;

#[test]
fn a_remote_server_gets_the_header_fields_and_no_session() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, "{}", "{}");
    w.stdin_says(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"a":" é"}}}"#);
    let list = expect_post(&mut w, "tools/list");
    w.expect_no_fetch();
    answer(&mut w, list, TOOLS);
    let post = expect_post(&mut w, "tools/call");
    assert_eq!((w.field(post, "mcp-name"), w.field(post, "mcp-param-aa")), (Some("t"), Some("=?base64?IMOp?=")));
    // A session that it gives out against the rules is none.
    w.remote_streams(post, head_with(200, EVENTS, "mcp-session-id", "s"), "");
    let id = w.posted(post).id();
    w.remote_says(post, &event(&result(&id, r#"{"resultType":"complete"}"#)));
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    w.remote_ends(post);
    for (method, params, name) in [
        ("prompts/get", r#"{"name":"p"}"#, Some("p")),
        ("resources/read", r#"{"uri":"file:///a b"}"#, Some("file:///a b")),
        ("resources/list", "{}", None),
    ] {
        w.stdin_says(&format!(r#"{{"jsonrpc":"2.0","id":2,"method":"{method}","params":{params}}}"#));
        let post = expect_post(&mut w, method);
        assert_eq!(w.field(post, "mcp-name"), name);
        answer(&mut w, post, r#""x":1"#);
        assert_eq!(w.expect_stdout(), result("2", r#"{"x":1}"#));
    }
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn tools_that_cannot_be_called_over_http_are_left_out() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, "{}", "{}");
    w.stdin_says(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let post = expect_post(&mut w, "tools/list");
    answer(&mut w, post, TOOLS);
    let said = json(&w.expect_stdout());
    let names: Vec<_> = said["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["t", "plain"]);
    assert_eq!(said["result"].as_object().unwrap().len(), 1, "{said}");
    w.finish();
}

#[test]
fn a_remote_server_whose_tools_have_changed_is_called_once_more() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, "{}", "{}");
    w.stdin_says(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"a":"x"}}}"#);
    let list = expect_post(&mut w, "tools/list");
    answer(&mut w, list, r#""tools":[]"#);
    let mismatch = |w: &mut World, post: FetchId| {
        let error = r#"{"code":-32020,"message":"Header mismatch"}"#;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, w.posted(post).id());
        w.remote_answers(post, head(400, JSON), &body);
    };
    let post = expect_post(&mut w, "tools/call");
    assert_eq!(w.field(post, "mcp-param-aa"), None);
    mismatch(&mut w, post);
    let list = expect_post(&mut w, "tools/list");
    answer(&mut w, list, TOOLS);
    let post = expect_post(&mut w, "tools/call");
    assert_eq!(w.field(post, "mcp-param-aa"), Some("x"));
    mismatch(&mut w, post);
    assert_eq!(error_of(&w.expect_stdout()), (value!(1), value!(-32603)), "once is enough");
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn to_cancel_at_a_remote_server_is_to_close_the_stream() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, "{}", "{}");
    w.stdin_says(r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}"#);
    let post = expect_post(&mut w, "prompts/get");
    w.remote_streams(post, head(200, EVENTS), "");
    w.stdin_says(&cancel("1"));
    assert!(w.fetches[&post].body.dropped);
    w.expect_no_fetch();
    w.advance(secs(2));
    assert!(w.stdout_lines.is_empty(), "who cancels by stdin waits for nothing");
    assert_eq!(w.stats().calls, 0);
    w.finish();
}

#[test]
fn a_call_that_waits_for_the_list_of_tools_can_be_cancelled() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, "{}", "{}");
    w.stdin_says(&call("1"));
    w.stdin_says(&call("2"));
    let list = expect_post(&mut w, "tools/list");
    w.stdin_says(&cancel("1"));
    answer(&mut w, list, r#""tools":[]"#);
    let post = expect_post(&mut w, "tools/call");
    answer(&mut w, post, r#""content":[]"#);
    assert_eq!(w.expect_stdout(), result("2", r#"{"content":[]}"#));
    w.expect_no_fetch();
    assert_eq!(w.stats().calls, 0);
    w.finish();
}

#[test]
fn questions_of_a_remote_server_cross_too() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, FORM, "{}");
    w.stdin_says(&call("1"));
    let list = expect_post(&mut w, "tools/list");
    answer(&mut w, list, r#""tools":[]"#);
    let post = expect_post(&mut w, "tools/call");
    let asking = result(
        &w.posted(post).id(),
        r#"{"resultType":"input_required","inputRequests":{"q":{"method":"elicitation/create","params":{}}},"requestState":"s"}"#,
    );
    w.remote_answers(post, head(200, JSON), &asking);
    let question = Line(w.expect_stdout());
    w.stdin_says(&result(&question.id(), r#"{"n":1}"#));
    let post = expect_post(&mut w, "tools/call");
    let params = json(&w.posted(post))["params"].clone();
    assert_eq!((&params["inputResponses"], &params["requestState"]), (&value!({"q": {"n": 1}}), &value!("s")));
    answer(&mut w, post, r#""content":[]"#);
    assert_eq!(w.expect_stdout(), result("1", r#"{"content":[]}"#));
    w.finish();
}

#[test]
fn a_remote_server_is_listened_to_by_a_post_that_is_made_again_when_it_ends() {
    let mut w = World::new(remote_config(URL, FrontKind::Stdio));
    connect(&mut w, "{}", TELLS);
    let post = expect_post(&mut w, "subscriptions/listen");
    let id = w.posted(post).id();
    w.remote_streams(post, head(200, EVENTS), &event(&acknowledged(&id, "{}")));
    w.remote_says(post, &format!(": alive\n\ndata: {}\n\n", on(&id, &changed("tools"))));
    assert_eq!(w.expect_stdout(), changed("tools"));
    w.remote_ends(post);
    w.advance(millis(999));
    w.expect_no_fetch();
    w.advance(millis(1));
    let post = expect_post(&mut w, "subscriptions/listen");
    let id = w.posted(post).id();
    w.remote_streams(post, head(200, EVENTS), &event(&acknowledged(&id, "{}")));
    // The tools have changed, so the next call asks for them.
    w.stdin_says(r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}"#);
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    let next = expect_post(&mut w, "subscriptions/listen");
    assert!(!w.fetches[&post].body.dropped);
    let id = w.posted(next).id();
    w.remote_streams(next, head(200, EVENTS), &event(&acknowledged(&id, "{}")));
    assert!(w.fetches[&post].body.dropped);
    w.remote_says(next, &event(&on(&id, &updated("a:b"))));
    assert_eq!(w.expect_stdout(), updated("a:b"));
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn a_list_of_tools_that_a_remote_server_does_not_give_holds_up_no_call() {
    for failure in 0..4 {
        let mut w = World::new(remote_config(URL, FrontKind::Stdio));
        connect(&mut w, "{}", "{}");
        w.stdin_says(&call("1"));
        let list = expect_post(&mut w, "tools/list");
        match failure {
            0 => w.remote_is_away(list),
            1 => w.remote_answers(list, head(500, "text/html"), "<html>"),
            2 => {
                w.remote_streams(list, head(200, EVENTS), "");
                w.remote_ends(list);
            }
            _ => w.advance(secs(10)),
        }
        let post = expect_post(&mut w, "tools/call");
        answer(&mut w, post, r#""content":[]"#);
        assert_eq!(w.expect_stdout(), result("1", r#"{"content":[]}"#), "{failure}");
        w.finish();
    }
}

// ---- legacy remote servers of modern clients ----

/// A modern client lists prompts; the remote server turns out to be a legacy one, with a session.
fn begin_legacy(w: &mut World, client: &Modern) -> FetchId {
    let exchange = w.ask(client, "0", "prompts/list", "");
    let post = expect_post(w, "server/discover");
    w.remote_answers(post, head(400, "text/plain"), "no session");
    let get = greet(w, "s1");
    let post = expect_legacy(w, "prompts/list", "s1");
    reply(w, post, r#"{"prompts":[]}"#);
    w.expect_json(exchange);
    get
}

/// A legacy server takes `initialize` and gives out a session and a standalone stream.
fn greet(w: &mut World, session: &str) -> FetchId {
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), "initialize");
    let hello = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"s","version":"1"}}"#;
    let said = result(&w.posted(post).id(), hello);
    w.remote_answers(post, head_with(200, JSON, "mcp-session-id", session), &said);
    let post = expect_legacy(w, "notifications/initialized", session);
    w.remote_answers(post, head(202, ""), "");
    let get = w.expect_fetch("GET");
    w.remote_streams(get, head(200, EVENTS), "");
    get
}

fn expect_legacy(w: &mut World, method: &str, session: &str) -> FetchId {
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), method);
    let fields = ["mcp-session-id", "mcp-protocol-version", "mcp-method"].map(|name| w.field(post, name));
    assert_eq!(fields, [Some(session), Some("2025-11-25"), None]);
    post
}

fn reply(w: &mut World, post: FetchId, said: &str) {
    let answer = result(&w.posted(post).id(), said);
    w.remote_answers(post, head(200, JSON), &answer);
}

/// A world with a remote server, whose clients can be asked something.
fn remote() -> World {
    let mut config = remote_config(URL, FrontKind::Http);
    config.state_key = eras().state_key;
    World::new(config)
}

#[test]
fn questions_on_the_streams_of_two_calls_are_told_apart() {
    let mut w = remote();
    let client = Modern::new(FORM);
    begin_legacy(&mut w, &client);
    let exchanges = ["1", "2"].map(|id| w.ask(&client, id, "prompts/get", r#""name":"p""#));
    let posts = exchanges.map(|_| expect_legacy(&mut w, "prompts/get", "s1"));
    let question = |id: &str| {
        event(&format!(
            r#"{{"jsonrpc":"2.0","id":"{id}","method":"elicitation/create","params":{{"message":"{id}"}}}}"#
        ))
    };
    // Each stream says whose question it is, so one conversation is enough.
    w.remote_streams(posts[1], head(200, EVENTS), &question("two"));
    w.remote_streams(posts[0], head(200, EVENTS), &question("one"));
    assert_eq!(w.stats().links, 1);
    w.advance(millis(10));
    for ((exchange, post), name) in exchanges.into_iter().zip(posts).zip(["one", "two"]) {
        let said = json(&w.expect_json(exchange))["result"].clone();
        let (key, asked) = said["inputRequests"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(asked["params"]["message"], name);
        let state = said["requestState"].as_str().unwrap();
        let params = format!(r#""name":"p","inputResponses":{{"{key}":{{"n":1}}}},"requestState":"{state}""#);
        let exchange = w.ask(&client, "3", "prompts/get", &params);
        let back = w.expect_fetch("POST");
        assert_eq!(&*w.posted(back), result(&format!("\"{name}\""), r#"{"n":1}"#));
        w.remote_answers(back, head(202, ""), "");
        let id = w.posted(post).id();
        w.remote_says(post, &event(&result(&id, r#"{"messages":[]}"#)));
        assert_eq!(w.expect_json(exchange), complete("3", r#""messages":[]"#));
        w.remote_ends(post);
    }
    w.finish();
}

#[test]
fn a_question_on_the_standalone_stream_is_nobodys() {
    let mut w = remote();
    let get = begin_legacy(&mut w, &Modern::new(FORM));
    w.remote_says(get, &event(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#));
    let post = w.expect_fetch("POST");
    assert_eq!(error_of(&w.posted(post)), (value!("q"), value!(-32601)));
    w.remote_answers(post, head(202, ""), "");
    w.finish();
}

#[test]
fn a_listener_hears_of_changes_by_the_standalone_stream_and_of_a_session_that_was_forgotten() {
    let mut w = remote();
    let client = Modern::new("{}");
    let get = begin_legacy(&mut w, &client);
    let stream = w.ask(&client, "1", "subscriptions/listen", r#""notifications":{"toolsListChanged":true}"#);
    w.expect_stream(stream);
    assert_eq!(w.expect_message(stream), acknowledged("1", r#"{"toolsListChanged":true}"#));
    w.remote_says(get, &event(&changed("tools")));
    assert_eq!(w.expect_message(stream), on("1", &changed("tools")));
    let exchange = w.ask(&client, "2", "prompts/list", "");
    let post = expect_legacy(&mut w, "prompts/list", "s1");
    w.remote_answers(post, head(404, JSON), r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"x"}}"#);
    greet(&mut w, "s2");
    let post = expect_legacy(&mut w, "prompts/list", "s2");
    reply(&mut w, post, r#"{"prompts":[]}"#);
    assert!(w.expect_json(exchange).contains(r#""prompts":[]"#));
    assert_eq!(w.expect_message(stream), on("1", &changed("tools")), "nobody knows what changed meanwhile");
    w.close_client(stream);
    w.finish();
}

#[test]
fn who_hangs_up_cancels_at_a_legacy_server_by_a_notification() {
    let mut w = remote();
    let client = Modern::new("{}");
    begin_legacy(&mut w, &client);
    let exchange = w.ask(&client, "1", "prompts/get", r#""name":"p""#);
    let post = expect_legacy(&mut w, "prompts/get", "s1");
    w.remote_streams(post, head(200, EVENTS), "");
    w.close_client(exchange);
    let told = expect_legacy(&mut w, "notifications/cancelled", "s1");
    assert_eq!(w.posted(told).id(), w.posted(post).id());
    w.remote_answers(told, head(202, ""), "");
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn over_http_and_sse_calls_that_may_ask_have_conversations_of_their_own() {
    let mut config = remote_config("https://h.example/sse", FrontKind::Http);
    config.state_key = eras().state_key;
    let Origin::Remote(remote) = &mut config.servers[0].origin else { unreachable!() };
    remote.transport = RemoteTransport::Sse;
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    let first = w.ask(&client, "1", "prompts/get", r#""name":"p""#);
    let one = w.expect_fetch("GET");
    w.remote_streams(one, head(200, EVENTS), "event: endpoint\ndata: /messages?s=1\n\n");
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), "server/discover");
    let line = w.posted(post);
    accept(&mut w, post);
    let refusal = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"no"}}}}"#, line.id());
    w.remote_says(one, &event(&refusal));
    introduce(&mut w, one);
    let second = w.ask(&client, "2", "prompts/get", r#""name":"p""#);
    let two = w.expect_fetch("GET");
    w.remote_streams(two, head(200, EVENTS), "event: endpoint\ndata: /messages?s=2\n\n");
    introduce(&mut w, two);
    for (get, name) in [(two, "two"), (one, "one")] {
        let params = format!(r#"{{"message":"{name}"}}"#);
        let asked = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{params}}}"#);
        w.remote_says(get, &event(&asked));
    }
    w.advance(millis(10));
    for (exchange, name) in [(first, "one"), (second, "two")] {
        let said = w.expect_json(exchange);
        assert!(said.contains("input_required") && said.contains(name), "{said}");
    }
    assert_eq!(w.stats().links, 2);
    w.finish();
}

/// A POST of HTTP+SSE is taken.
fn accept(w: &mut World, post: FetchId) {
    w.remote_answers(post, head(202, ""), "Accepted");
}

/// A server of HTTP+SSE takes `initialize` and the first call.
fn introduce(w: &mut World, get: FetchId) {
    let post = w.expect_fetch("POST");
    let line = w.posted(post);
    assert_eq!(line.method(), "initialize");
    accept(w, post);
    let hello = r#"{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
    w.remote_says(get, &event(&result(&line.id(), hello)));
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), "notifications/initialized");
    accept(w, post);
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), "prompts/get");
    accept(w, post);
}
