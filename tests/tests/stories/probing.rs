//! How the era of a server is found out, kept and forgotten.

use std::io::ErrorKind;

use mcp_proxy_engine::{Exit, FetchId, FrontKind};
use mcp_proxy_tests::sim::*;
use serde_json::json as value;

const URL: &str = "https://h.example/mcp";
const LIST: &str = "prompts/list";

fn listed(id: &str) -> String {
    let info = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
    result(id, &format!(r#"{{"resultType":"complete","ttlMs":0,"cacheScope":"private",{info},"prompts":[]}}"#))
}

/// What a modern server answers passes as it is.
const OWN: &str = r#"{"resultType":"complete","ttlMs":1,"cacheScope":"public","prompts":[]}"#;

// ---- for a modern client ----

#[test]
fn a_server_that_answers_server_discover_is_modern() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"roots":{}}"#);
    let exchange = w.ask(&client, "1", LIST, "");
    let child = w.discovered("{}");
    let line = w.expect_method(child, LIST);
    assert_eq!(*line, client.says(&line.id(), LIST, ""));
    w.answer(child, &line, OWN);
    assert_eq!(w.expect_json(exchange), result("1", OWN));
    // Every client may share it, and nobody is asked again.
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, OWN);
    assert_eq!(w.expect_json(exchange), result("1", OWN));
    assert_eq!(w.stats().children, 1);
    w.finish();
}

#[test]
fn any_other_error_means_a_legacy_server_and_initialize_goes_to_the_same_process() {
    for code in [-32601, -32602, -32600, -32000, -32001, -32603, 0, 1] {
        let mut w = World::new(eras());
        let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
        let (child, line) = w.expect_reader("server/discover");
        w.refuse(child, &line, code);
        assert_eq!(w.greeted("{}"), child);
        let line = w.expect_method(child, LIST);
        w.answer(child, &line, r#"{"prompts":[]}"#);
        assert_eq!(w.expect_json(exchange), listed("1"));
        assert_eq!(w.stats().children, 1);
        w.finish();
    }
}

#[test]
fn a_result_that_is_no_discovery_means_a_legacy_server() {
    for said in ["{}", r#"{"supportedVersions":[]}"#, r#"{"supportedVersions":["2025-11-25"]}"#, "[]", "null", "5"] {
        let mut w = World::new(eras());
        let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
        let (child, line) = w.expect_reader("server/discover");
        w.answer(child, &line, said);
        w.greeted("{}");
        let line = w.expect_method(child, LIST);
        w.answer(child, &line, r#"{"prompts":[]}"#);
        assert_eq!(w.expect_json(exchange), listed("1"), "{said}");
        w.finish();
    }
    // And so does what is no answer at all.
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let (child, line) = w.expect_reader("server/discover");
    w.child_says(child, "what?");
    w.expect_no_line(child);
    w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}},"error":{{}}}}"#, line.id()));
    w.greeted("{}");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, r#"{"prompts":[]}"#);
    assert_eq!(w.expect_json(exchange), listed("1"));
    w.finish();
}

#[test]
fn silence_for_ten_seconds_means_a_legacy_server() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let (child, probe) = w.expect_reader("server/discover");
    w.advance(millis(9_999));
    w.expect_no_line(child);
    w.advance(millis(1));
    let line = w.expect_method(child, "initialize");
    assert_eq!(w.stats().children, 1);
    // The answer to the first question comes after all, and says nothing new.
    w.refuse(child, &probe, -32601);
    w.answer(child, &line, r#"{"protocolVersion":"2025-11-25","serverInfo":{"name":"s","version":"1"}}"#);
    w.expect_method(child, "notifications/initialized");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, r#"{"prompts":[]}"#);
    assert_eq!(w.expect_json(exchange), listed("1"));
    w.finish();
}

#[test]
fn a_modern_server_that_took_its_time_is_understood() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let (child, probe) = w.expect_reader("server/discover");
    w.advance(secs(10));
    let hello = w.expect_method(child, "initialize");
    w.answer(child, &probe, &discovery("{}"));
    let line = w.expect_method(child, LIST);
    w.refuse(child, &hello, -32601);
    w.answer(child, &line, OWN);
    assert_eq!(w.expect_json(exchange), result("1", OWN));
    // What was believed in between is forgotten.
    let exchange = w.ask(&Modern::new(r#"{"roots":{}}"#), "1", LIST, "");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, OWN);
    w.expect_json(exchange);
    assert_eq!(w.stats().children, 1);
    w.finish();
}

#[test]
fn a_server_that_exits_when_it_is_asked_is_a_legacy_one_and_is_started_again() {
    for code in [0, 1] {
        let mut w = World::new(eras());
        let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
        let (first, _) = w.expect_reader("server/discover");
        w.exit(first, Exit::Code(code));
        let second = w.greeted("{}");
        assert_ne!(first, second);
        let line = w.expect_method(second, LIST);
        w.answer(second, &line, r#"{"prompts":[]}"#);
        assert_eq!(w.expect_json(exchange), listed("1"));
        // The next one is not asked.
        let exchange = w.ask(&Modern::new(r#"{"roots":{}}"#), "1", "server/discover", "");
        w.greeted("{}");
        w.expect_json(exchange);
        w.finish();
    }
}

#[test]
fn a_server_that_refuses_both_is_told_of_once_and_asked_anew_by_the_next() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let (child, line) = w.expect_reader("server/discover");
    w.refuse(child, &line, -32601);
    let (child, line) = w.expect_reader("initialize");
    w.refuse(child, &line, -32600);
    let refusal = w.expect_refused(exchange, 200, -32603);
    assert!(refusal.contains("initialize"), "{refusal}");
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    let exchange = w.ask(&Modern::new("{}"), "2", LIST, "");
    let child = w.discovered("{}");
    let line = w.expect_method(child, LIST);
    w.answer(child, &line, OWN);
    assert_eq!(w.expect_json(exchange), result("2", OWN));
    w.finish();
}

#[test]
fn a_server_that_speaks_only_newer_revisions_is_not_introduced_in_the_old_way() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let (child, line) = w.expect_reader("server/discover");
    let data = r#"{"supported":["2027-01-01"],"requested":"2026-07-28"}"#;
    let error = format!(r#"{{"code":-32022,"message":"Unsupported protocol version","data":{data}}}"#);
    w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, line.id()));
    let refusal = w.expect_refused(exchange, 200, -32603);
    assert!(refusal.contains("revision"), "{refusal}");
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn a_server_that_names_the_revision_it_refused_is_asked_once_more() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let refuse = |w: &mut World| {
        let (child, line) = w.expect_reader("server/discover");
        let error = r#"{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}"#;
        w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, line.id()));
    };
    refuse(&mut w);
    refuse(&mut w);
    w.expect_refused(exchange, 200, -32603);
    w.finish();
}

#[test]
fn a_server_that_does_not_start_fails_the_request() {
    let mut w = World::new(eras());
    w.auto_spawn = false;
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let child = w.expect_child();
    w.spawn_failed(child, ErrorKind::NotFound);
    let refusal = w.expect_refused(exchange, 200, -32603);
    assert!(refusal.contains("cannot start"), "{refusal}");
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.auto_spawn = true;
    w.ignore_rest();
    w.finish();
}

#[test]
fn a_server_that_never_answers_fails_the_request_in_the_end() {
    let mut w = World::new(eras());
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let (child, _) = w.expect_reader("server/discover");
    w.advance(secs(10));
    w.expect_method(child, "initialize");
    w.advance(secs(119));
    w.expect_stream(exchange);
    w.expect_comment(exchange);
    w.advance(secs(1));
    assert_eq!(json(&w.expect_message(exchange))["error"]["code"], -32603);
    w.expect_end(exchange);
    assert!(w.is_stdin_closed(child));
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.ignore_rest();
    w.finish();
}

#[test]
fn requests_that_come_while_the_era_is_sought_wait_and_find_their_own_processes() {
    let mut w = World::new(eras());
    let plain = [w.ask(&Modern::new("{}"), "1", LIST, ""), w.ask(&Modern::new("{}"), "2", LIST, "")];
    let other = w.ask(&Modern::new(r#"{"roots":{}}"#), "3", LIST, "");
    let (child, line) = w.expect_reader("server/discover");
    w.expect_no_line(child);
    assert_eq!((w.stats().children, w.stats().calls), (1, 3));
    w.refuse(child, &line, -32601);
    let one = w.greeted("{}");
    let two = w.greeted("{}");
    assert_ne!(one, two);
    for exchange in plain {
        let line = w.expect_method(one, LIST);
        w.answer(one, &line, r#"{"prompts":[]}"#);
        w.expect_json(exchange);
    }
    let line = w.expect_method(two, LIST);
    w.answer(two, &line, r#"{"prompts":[]}"#);
    assert_eq!(w.expect_json(other), listed("3"));
    w.finish();
}

#[test]
fn a_modern_server_that_comes_back_as_a_legacy_one_is_noticed() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let exchange = w.ask(&client, "1", LIST, "");
    let first = w.discovered("{}");
    w.expect_method(first, LIST);
    w.exit(first, Exit::Code(1));
    w.expect_refused(exchange, 200, -32603);
    let exchange = w.ask(&client, "2", LIST, "");
    let (second, line) = w.expect_reader("server/discover");
    w.refuse(second, &line, -32601);
    // The request that finds it out is served.
    w.greeted("{}");
    let line = w.expect_method(second, LIST);
    w.answer(second, &line, r#"{"prompts":[]}"#);
    assert_eq!(w.expect_json(exchange), listed("2"));
    let exchange = w.ask(&client, "3", LIST, "");
    let line = w.expect_method(second, LIST);
    w.answer(second, &line, r#"{"prompts":[]}"#);
    assert_eq!(w.expect_json(exchange), listed("3"));
    w.finish();
}

#[test]
fn a_legacy_server_that_comes_back_as_a_modern_one_is_noticed() {
    let mut w = World::new(eras());
    let client = Modern::new("{}");
    let exchange = w.ask(&client, "1", LIST, "");
    let first = w.introduced("{}");
    w.expect_method(first, LIST);
    w.exit(first, Exit::Code(1));
    w.expect_refused(exchange, 200, -32603);
    let exchange = w.ask(&client, "2", LIST, "");
    let (second, line) = w.expect_reader("initialize");
    w.refuse(second, &line, -32022);
    // It took these words before. What was believed of it is forgotten now, and the next client finds out anew.
    w.expect_refused(exchange, 200, -32603);
    w.advance(secs(1));
    let exchange = w.ask(&client, "3", LIST, "");
    let third = w.discovered("{}");
    let line = w.expect_method(third, LIST);
    w.answer(third, &line, OWN);
    assert_eq!(w.expect_json(exchange), result("3", OWN));
    w.finish();
}

// ---- for a legacy client ----

#[test]
fn a_legacy_client_is_introduced_first_whatever_the_server_is() {
    let mut w = World::new(eras());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    assert_eq!(*line, call(&line.id()));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
    w.finish();
}

#[test]
fn a_dual_server_is_spoken_to_in_each_clients_own_language() {
    let mut w = World::new(eras());
    let (legacy, one) = w.connect("2025-06-18", "{}");
    let modern = Modern::new("{}");
    let exchange = w.ask(&modern, "1", LIST, "");
    let two = w.discovered("{}");
    assert_ne!(one, two, "a process knows one era");
    let line = w.expect_method(two, LIST);
    w.answer(two, &line, OWN);
    assert_eq!(w.expect_json(exchange), result("1", OWN));
    let exchange = w.post(&legacy, &call("1"));
    let line = w.expect_method(one, "tools/call");
    assert_eq!(*line, call(&line.id()));
    w.answer(one, &line, "{}");
    w.expect_json(exchange);
    // A later legacy client is still introduced in the old way, on the process of its like.
    let (again, _) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&again, &call("1"));
    let line = w.expect_method(one, "tools/call");
    w.answer(one, &line, "{}");
    w.expect_json(exchange);
    let exchange = w.post(&Client::new(), &hello("9", "2025-11-25", "{}"));
    let (three, line) = w.expect_reader("initialize");
    assert_ne!(three, two);
    w.answer(three, &line, r#"{"protocolVersion":"2025-11-25"}"#);
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn a_refusal_of_initialize_that_is_no_matter_of_eras_is_passed_on() {
    let mut w = World::new(eras());
    let exchange = w.post(&Client::new(), &hello(r#""a""#, "2025-06-18", "{}"));
    let (child, line) = w.expect_reader("initialize");
    let error = r#"{"code":-32099,"message":"set TOKEN first","data":[1]}"#;
    w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, line.id()));
    let (child, line) = w.expect_reader("server/discover");
    w.refuse(child, &line, -32601);
    let response = w.expect_respond(exchange);
    assert_eq!(text(&response), format!(r#"{{"jsonrpc":"2.0","id":"a","error":{error}}}"#));
    assert_eq!(response.headers.get("mcp-session-id"), None);
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn a_refusal_behind_which_there_is_silence_or_an_end_is_passed_on_too() {
    for exits in [false, true] {
        let mut w = World::new(eras());
        let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
        let (child, line) = w.expect_reader("initialize");
        w.refuse(child, &line, -7);
        w.expect_reader("server/discover");
        w.expect_silence(exchange);
        if exits {
            w.exit(child, Exit::Code(1));
        } else {
            w.advance(secs(10));
        }
        assert_eq!(w.expect_json(exchange), r#"{"jsonrpc":"2.0","id":1,"error":{"code":-7,"message":"no"}}"#);
        w.ignore_rest();
        w.finish();
    }
}

#[test]
fn two_clients_that_wait_for_the_same_search_are_both_served() {
    let mut w = World::new(eras());
    let one = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let two = w.post(&Client::new(), &hello("2", "2025-06-18", "{}"));
    let (child, line) = w.expect_reader("initialize");
    w.refuse(child, &line, -32022);
    w.discovered("{}");
    for exchange in [one, two] {
        assert!(w.expect_json(exchange).contains(r#""protocolVersion":"2025-06-18""#));
    }
    // One that can be asked something got a process of its own, but the next needs no search.
    let three = w.post(&Client::new(), &hello("3", "2025-06-18", r#"{"roots":{}}"#));
    w.expect_json(three);
    assert_eq!(w.stats().children, 1);
    w.finish();
}

#[test]
fn what_is_known_of_a_server_holds_for_it_alone() {
    let mut config = eras();
    config.servers.push(mcp_proxy_engine::Server { name: "two".into(), ..config.servers[0].clone() });
    let mut w = World::new(config);
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let one = w.discovered("{}");
    let line = w.expect_method(one, LIST);
    w.answer(one, &line, OWN);
    w.expect_json(exchange);
    let mut other = Modern::new("{}");
    other.client.target = "/servers/two/mcp".into();
    let exchange = w.ask(&other, "1", LIST, "");
    let two = w.introduced("{}");
    let line = w.expect_method(two, LIST);
    w.answer(two, &line, r#"{"prompts":[]}"#);
    assert_eq!(w.expect_json(exchange), listed("1"));
    w.finish();
}

// ---- remote servers ----

/// A remote server behind HTTP.
fn remote() -> World {
    let mut config = remote_config(URL, FrontKind::Http);
    config.state_key = eras().state_key;
    World::new(config)
}

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
fn a_remote_server_is_asked_by_post_with_the_header_fields() {
    for stream in [false, true] {
        let mut w = remote();
        let exchange = w.ask(&Modern::new("{}"), "1", "prompts/get", r#""name":"p""#);
        let post = expect_post(&mut w, "server/discover");
        let fields = ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id", "content-type"];
        let expected = [Some(MODERN), Some("server/discover"), None, None, Some("application/json")];
        assert_eq!(fields.map(|name| w.field(post, name)), expected);
        if stream {
            let answer = format!("data: {}\n\n", result(&w.posted(post).id(), &discovery("{}")));
            w.remote_streams(post, head(200, EVENTS), &answer);
            w.remote_ends(post);
        } else {
            answer(&mut w, post, &discovery("{}"));
        }
        let post = expect_post(&mut w, "prompts/get");
        assert_eq!(w.posted(post).0, Modern::new("{}").says(&w.posted(post).id(), "prompts/get", r#""name":"p""#));
        let expected = [Some(MODERN), Some("prompts/get"), Some("p"), None, Some("application/json")];
        assert_eq!(fields.map(|name| w.field(post, name)), expected);
        answer(&mut w, post, OWN);
        assert_eq!(w.expect_json(exchange), result("1", OWN));
        w.expect_no_fetch();
        w.finish();
    }
}

#[test]
fn a_remote_server_that_says_400_without_a_modern_error_is_a_legacy_one() {
    let no_session =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: no valid session ID"}}"#;
    for (status, kind, body) in [
        (400, JSON, no_session),
        (400, "text/plain", "what?"),
        (400, "", ""),
        (404, "text/html", "<html>"),
        (405, "", ""),
        (406, JSON, "{}"),
        (200, JSON, r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32601,"message":"no"}}"#),
    ] {
        let mut w = remote();
        let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
        let post = expect_post(&mut w, "server/discover");
        let body = body.replace("ID", &w.posted(post).id());
        w.remote_answers(post, head(status, kind), &body);
        let post = expect_post(&mut w, "initialize");
        assert_eq!((w.field(post, "mcp-protocol-version"), w.field(post, "mcp-method")), (None, None));
        let hello = r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
        let said = result(&w.posted(post).id(), hello);
        w.remote_answers(post, head_with(200, JSON, "mcp-session-id", "s1"), &said);
        let post = expect_post(&mut w, "notifications/initialized");
        w.remote_answers(post, head(202, ""), "");
        let get = w.expect_fetch("GET");
        w.remote_answers(get, head(405, ""), "");
        let post = expect_post(&mut w, LIST);
        let fields = ["mcp-session-id", "mcp-protocol-version", "mcp-method"].map(|name| w.field(post, name));
        assert_eq!(fields, [Some("s1"), Some("2025-06-18"), None], "{status} {body}");
        answer(&mut w, post, r#"{"prompts":[]}"#);
        assert_eq!(w.expect_json(exchange), listed("1"));
        w.finish();
    }
}

#[test]
fn a_remote_server_that_is_away_or_wants_credentials_shows_no_era() {
    for (status, words) in
        [(0, "connection refused"), (401, "401"), (403, "403"), (429, "429"), (500, "500"), (503, "503")]
    {
        let mut w = remote();
        let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
        let post = expect_post(&mut w, "server/discover");
        if status == 0 {
            w.remote_is_away(post);
        } else {
            w.remote_answers(post, head(status, "text/html"), "<html>");
        }
        let refusal = w.expect_refused(exchange, 200, -32603);
        assert!(refusal.contains(words), "{refusal}");
        w.expect_no_fetch();
        w.advance(secs(1));
        let exchange = w.ask(&Modern::new("{}"), "2", LIST, "");
        let post = expect_post(&mut w, "server/discover");
        answer(&mut w, post, &discovery("{}"));
        let post = expect_post(&mut w, LIST);
        answer(&mut w, post, OWN);
        assert_eq!(w.expect_json(exchange), result("2", OWN));
        w.finish();
    }
}

#[test]
fn a_server_of_http_and_sse_is_found_in_the_end() {
    let mut w = remote();
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let post = expect_post(&mut w, "server/discover");
    w.remote_answers(post, head(405, ""), "");
    let post = expect_post(&mut w, "initialize");
    w.remote_answers(post, head(405, ""), "");
    let get = w.expect_fetch("GET");
    w.remote_streams(get, head(200, EVENTS), "event: endpoint\ndata: /messages?sessionId=1\n\n");
    let post = expect_post(&mut w, "initialize");
    assert_eq!(w.fetches[&post].request.url.reveal(), "https://h.example/messages?sessionId=1");
    w.remote_answers(post, head(202, ""), "Accepted");
    let hello = r#"{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
    let said = format!("data: {}\n\n", result(&w.posted(post).id(), hello));
    w.remote_says(get, &said);
    let post = expect_post(&mut w, "notifications/initialized");
    w.remote_answers(post, head(202, ""), "Accepted");
    let post = expect_post(&mut w, LIST);
    w.remote_answers(post, head(202, ""), "Accepted");
    let said = format!("data: {}\n\n", result(&w.posted(post).id(), r#"{"prompts":[]}"#));
    w.remote_says(get, &said);
    assert_eq!(w.expect_json(exchange), listed("1"));
    w.finish();
}

#[test]
fn a_remote_server_that_takes_neither_old_transport_may_be_a_modern_one() {
    let mut w = remote();
    let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let post = expect_post(&mut w, "initialize");
    w.remote_answers(post, head(400, "text/plain"), "MCP-Protocol-Version is missing");
    let get = w.expect_fetch("GET");
    w.remote_answers(get, head(405, ""), "");
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    assert!(w.expect_json(exchange).contains(r#""protocolVersion":"2025-06-18""#));
    // The next client needs no such search.
    let exchange = w.post(&Client::new(), &hello("2", "2025-11-25", r#"{"roots":{}}"#));
    assert!(w.expect_json(exchange).contains(r#""protocolVersion":"2025-11-25""#));
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn a_remote_server_that_is_nothing_of_all_that_says_what_it_said_first() {
    let mut w = remote();
    let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let post = expect_post(&mut w, "initialize");
    w.remote_answers(post, head(404, "text/html"), "<html>");
    let get = w.expect_fetch("GET");
    w.remote_answers(get, head(404, "text/html"), "<html>");
    let post = expect_post(&mut w, "server/discover");
    w.remote_answers(post, head(404, "text/html"), "<html>");
    let refusal = w.expect_refused(exchange, 200, -32603);
    assert!(refusal.contains("404") && refusal.contains(r#""id":1,"#), "{refusal}");
    w.expect_no_fetch();
    assert_eq!(w.stats().sessions, 0);
    w.finish();
}

#[test]
fn a_dual_remote_server_serves_each_client_in_its_own_era() {
    let mut w = remote();
    let legacy = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let post = expect_post(&mut w, "initialize");
    let said = result(&w.posted(post).id(), r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#);
    w.remote_answers(post, head_with(200, JSON, "mcp-session-id", "s1"), &said);
    w.expect_json(legacy);
    let exchange = w.ask(&Modern::new("{}"), "1", LIST, "");
    let post = expect_post(&mut w, "server/discover");
    assert_eq!(w.field(post, "mcp-session-id"), None);
    answer(&mut w, post, &discovery("{}"));
    let post = expect_post(&mut w, LIST);
    assert_eq!(w.field(post, "mcp-session-id"), None);
    answer(&mut w, post, OWN);
    assert_eq!(w.expect_json(exchange), result("1", OWN));
    assert_eq!(w.stats().links, 2);
    w.finish();
}

#[test]
fn the_first_client_of_a_remote_server_may_be_either() {
    let mut w = remote();
    let exchange = w.ask(&Modern::new("{}"), "1", "server/discover", "");
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery(r#"{"tools":{}}"#));
    let said = expect_own_discovery(&mut w);
    assert_eq!(json(&w.expect_json(exchange))["result"], json(&said));
    let legacy = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let post = expect_post(&mut w, "initialize");
    let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"no"}}"#;
    w.remote_answers(post, head(400, JSON), error);
    let post = expect_post(&mut w, "server/discover");
    answer(&mut w, post, &discovery("{}"));
    let welcome = json(&w.expect_json(legacy));
    assert_eq!(welcome["result"]["serverInfo"], value!({"name": "s", "version": "1"}));
    w.finish();
}

/// The client's own question goes to the server like any other.
fn expect_own_discovery(w: &mut World) -> String {
    let post = expect_post(w, "server/discover");
    let said = discovery(r#"{"tools":{}}"#);
    answer(w, post, &said);
    said
}
