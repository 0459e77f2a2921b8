//! Remote servers, behind our own stdin or behind HTTP.

use std::time::Duration;

use mcp_proxy_engine::{Credentials, FetchId, FrontKind, Origin, RemoteTransport, Secret};
use mcp_proxy_tests::sim::*;

const URL: &str = "https://h.example/mcp?key=1";
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A world with one remote server behind our stdin.
fn stdio() -> World {
    World::new(remote_config(URL, FrontKind::Stdio))
}

fn greeting(line: &Line) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"protocolVersion":"2025-11-25","capabilities":{{}}}}}}"#, line.id())
}

/// The client on stdin introduces itself; the remote server gives out a session and a standalone stream.
fn connect(w: &mut World) -> FetchId {
    w.stdin_says(&hello("0", "2025-11-25", "{}"));
    greet(w);
    assert!(w.expect_stdout().contains(r#""id":0,"#));
    w.stdin_says(INITIALIZED);
    listen(w)
}

/// The remote server answers `initialize` with a session.
fn greet(w: &mut World) {
    let post = w.expect_fetch("POST");
    let answer = greeting(&w.posted(post));
    w.remote_answers(post, head_with(200, JSON, "mcp-session-id", "s1"), &answer);
}

/// The remote server takes `initialized` and opens the standalone stream.
fn listen(w: &mut World) -> FetchId {
    let post = w.expect_fetch("POST");
    assert_eq!(w.posted(post).method(), "notifications/initialized");
    assert_eq!(
        (w.field(post, "mcp-session-id"), w.field(post, "mcp-protocol-version")),
        (Some("s1"), Some("2025-11-25"))
    );
    w.remote_answers(post, head(202, ""), "");
    let get = w.expect_fetch("GET");
    assert_eq!((w.field(get, "accept"), w.field(get, "mcp-session-id")), (Some(EVENTS), Some("s1")));
    w.remote_streams(get, head(200, EVENTS), "");
    get
}

/// The client calls, and the call is posted.
fn call_on(w: &mut World, id: &str) -> (FetchId, Line) {
    w.stdin_says(&call(id));
    let post = w.expect_fetch("POST");
    let line = w.posted(post);
    (post, line)
}

fn event(line: &str) -> String {
    format!("data: {line}\n\n")
}

#[test]
fn a_call_crosses_and_its_answer_comes_back_as_json_or_as_a_stream() {
    let mut w = stdio();
    connect(&mut w);
    let (post, line) = call_on(&mut w, "\"a\"");
    assert_eq!(w.fetches[&post].request.url.reveal(), URL);
    w.remote_answers(post, head(200, "application/json; charset=utf-8"), &result(&line.id(), "{}"));
    assert_eq!(w.expect_stdout(), result("\"a\"", "{}"));
    let (post, line) = call_on(&mut w, "7");
    let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    w.remote_streams(post, head(200, EVENTS), &event(note));
    assert_eq!(w.expect_stdout(), note);
    w.remote_says(post, &event(&result(&line.id(), "{}")));
    assert_eq!(w.expect_stdout(), result("7", "{}"));
    w.remote_ends(post);
    w.finish();
}

#[test]
fn a_question_on_a_stream_is_answered_by_a_post() {
    let mut w = stdio();
    let get = connect(&mut w);
    w.remote_says(get, &event(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#));
    let asked = Line(w.expect_stdout());
    assert_eq!(asked.method(), "roots/list");
    w.stdin_says(&result(&asked.id(), r#"{"roots":[]}"#));
    let post = w.expect_fetch("POST");
    assert_eq!(&*w.posted(post), result("\"q\"", r#"{"roots":[]}"#));
    w.remote_answers(post, head(202, ""), "");
    w.finish();
}

#[test]
fn the_end_of_stdin_ends_everything_after_the_last_answer() {
    let mut w = stdio();
    connect(&mut w);
    let (post, line) = call_on(&mut w, "1");
    w.stdin.eof = true;
    w.settle();
    w.remote_answers(post, head(200, JSON), &result(&line.id(), "{}"));
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    let delete = w.expect_fetch("DELETE");
    assert_eq!(w.field(delete, "mcp-session-id"), Some("s1"));
    w.finish_from_here();
}

#[test]
fn a_refused_streamable_http_falls_back_to_sse() {
    let mut w = stdio();
    w.stdin_says(&hello("0", "2025-11-25", "{}"));
    let post = w.expect_fetch("POST");
    w.remote_answers(post, head(405, "text/html"), "<html>no</html>");
    let get = w.expect_fetch("GET");
    w.remote_streams(get, head(200, EVENTS), "event: endpoint\ndata: /messages/?session_id=1\n\n");
    let post = w.expect_fetch("POST");
    assert_eq!(w.fetches[&post].request.url.reveal(), "https://h.example/messages/?session_id=1");
    w.remote_answers(post, head(202, "text/plain"), "Accepted");
    w.remote_says(get, &format!("event: message\n{}", event(&greeting(&w.posted(post)))));
    assert!(w.expect_stdout().contains(r#""id":0,"#));
    w.stdin_says(INITIALIZED);
    let post = w.expect_fetch("POST");
    // Posts go over several connections: a request must not overtake `initialized`.
    w.stdin_says(&call("1"));
    w.expect_no_fetch();
    w.remote_answers(post, head(202, "text/plain"), "Accepted");
    let post = w.expect_fetch("POST");
    let line = w.posted(post);
    w.remote_answers(post, head(202, "text/plain"), "Accepted");
    w.remote_says(get, &event(&result(&line.id(), "{}")));
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    w.finish();
}

#[test]
fn an_endpoint_of_another_origin_is_refused() {
    let mut config = remote_config("http://h.example/sse", FrontKind::Stdio);
    let Origin::Remote(remote) = &mut config.servers[0].origin else { unreachable!() };
    remote.transport = RemoteTransport::Sse;
    let mut w = World::new(config);
    w.stdin_says(&hello("0", "2025-11-25", "{}"));
    let get = w.expect_fetch("GET");
    w.remote_streams(get, head(200, EVENTS), "event: endpoint\ndata: http://evil.example/messages\n\n");
    assert!(w.expect_stdout().contains("another origin"));
    w.expect_no_fetch();
    w.finish();
}

#[test]
fn a_session_that_the_remote_forgot_is_begun_anew_and_the_call_sent_again() {
    let mut w = stdio();
    connect(&mut w);
    let (post, _) = call_on(&mut w, "1");
    w.remote_answers(post, head(404, JSON), r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"x"}}"#);
    let post = w.expect_fetch("POST");
    assert_eq!((w.posted(post).method(), w.field(post, "mcp-session-id")), ("initialize".into(), None));
    let answer = greeting(&w.posted(post));
    w.remote_answers(post, head_with(200, JSON, "mcp-session-id", "s1"), &answer);
    listen(&mut w);
    let post = w.expect_fetch("POST");
    let line = w.posted(post);
    assert_eq!(line.method(), "tools/call");
    w.remote_answers(post, head(200, JSON), &result(&line.id(), "{}"));
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    w.finish();
}

#[test]
fn a_remote_that_dies_in_a_call_fails_that_call_and_no_other() {
    let mut w = stdio();
    connect(&mut w);
    let (post, _) = call_on(&mut w, "1");
    w.remote_streams(post, head(200, JSON), r#"{"jsonrpc""#);
    w.fetch_ends(post, Some(std::io::ErrorKind::UnexpectedEof));
    let answer = w.expect_stdout();
    assert!(answer.contains(r#""id":1,"error""#) && answer.contains("broke off"), "{answer}");
    let (post, _) = call_on(&mut w, "2");
    w.remote_is_away(post);
    let answer = w.expect_stdout();
    assert!(answer.contains("connection refused by 127.0.0.1:9. Is it running?"), "{answer}");
    let (post, line) = call_on(&mut w, "3");
    w.remote_answers(post, head(200, JSON), &result(&line.id(), "{}"));
    assert_eq!(w.expect_stdout(), result("3", "{}"));
    w.finish();
}

#[test]
fn a_stream_that_broke_is_taken_up_again() {
    let mut w = stdio();
    connect(&mut w);
    let (post, line) = call_on(&mut w, "1");
    w.remote_streams(post, head(200, EVENTS), "id: e7\nretry: 500\ndata:\n\n");
    w.remote_ends(post);
    w.expect_no_fetch();
    w.advance(Duration::from_millis(500));
    let get = w.expect_fetch("GET");
    assert_eq!(w.field(get, "last-event-id"), Some("e7"));
    w.remote_answers(get, head(200, EVENTS), &event(&result(&line.id(), "{}")));
    assert_eq!(w.expect_stdout(), result("1", "{}"));
    w.finish();
}

#[test]
fn statuses_are_explained() {
    for (status, words) in [
        (401, "401 Unauthorized: give credentials"),
        (403, "403 Forbidden"),
        (500, "500 Internal Server Error"),
        (502, "502 Bad Gateway"),
        (429, "429 Too Many Requests; it says to try again after 7"),
    ] {
        let mut w = stdio();
        connect(&mut w);
        let (post, _) = call_on(&mut w, "1");
        w.remote_answers(post, head_with(status, "text/html", "retry-after", "7"), "<html>");
        let answer = w.expect_stdout();
        assert!(answer.contains(words) && answer.contains(r#""id":1,"#), "{answer}");
        w.finish();
    }
    let mut w = stdio();
    connect(&mut w);
    let (post, _) = call_on(&mut w, "1");
    w.remote_answers(post, head(200, "text/html"), "<html>");
    assert!(w.expect_stdout().contains("instead of MCP"));
    let (post, line) = call_on(&mut w, "2");
    let error = r#"{"code":-32602,"message":"own words","data":[1]}"#;
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, line.id());
    w.remote_answers(post, head(400, JSON), &body);
    assert_eq!(w.expect_stdout(), format!(r#"{{"jsonrpc":"2.0","id":2,"error":{error}}}"#));
    w.finish();
}

#[test]
fn a_remote_that_cannot_be_reached_is_named_and_may_come_later() {
    let mut w = stdio();
    w.stdin_says(&hello("0", "2025-11-25", "{}"));
    let post = w.expect_fetch("POST");
    w.remote_is_away(post);
    assert!(w.expect_stdout().contains("connection refused"));
    w.stdin_says(&hello("1", "2025-11-25", "{}"));
    greet(&mut w);
    assert!(w.expect_stdout().contains(r#""id":1,"#));
    w.finish();
}

#[test]
fn credentials_stay_with_their_origin() {
    let mut config = remote_config(URL, FrontKind::Stdio);
    let Origin::Remote(remote) = &mut config.servers[0].origin else { unreachable!() };
    remote.credentials = Credentials::Bearer(Secret::new("t0ken".into()));
    remote.headers.push("x-key", "k");
    let mut w = World::new(config);
    w.stdin_says(&hello("0", "2025-11-25", "{}"));
    let post = w.expect_fetch("POST");
    assert_eq!((w.field(post, "authorization"), w.field(post, "x-key")), (Some("Bearer t0ken"), Some("k")));
    w.remote_answers(post, head_with(307, "", "location", "/other/"), "");
    let post = w.expect_fetch("POST");
    assert_eq!(w.fetches[&post].request.url.reveal(), "https://h.example/other/");
    assert_eq!(w.field(post, "authorization"), Some("Bearer t0ken"));
    w.remote_answers(post, head_with(308, "", "location", "https://evil.example/"), "");
    let post = w.expect_fetch("POST");
    assert_eq!((w.field(post, "authorization"), w.field(post, "x-key")), (None, None));
    w.remote_answers(post, head(403, ""), "");
    assert!(w.expect_stdout().contains("403"));
    w.finish();
}

#[test]
fn a_token_is_fetched_once_and_again_after_401() {
    let mut config = remote_config(URL, FrontKind::Stdio);
    let Origin::Remote(remote) = &mut config.servers[0].origin else { unreachable!() };
    remote.credentials = Credentials::ClientCredentials {
        id: "i".into(),
        secret: Secret::new("s".into()),
        token_url: "https://auth.example/token".into(),
    };
    let mut w = World::new(config);
    w.stdin_says(&hello("0", "2025-11-25", "{}"));
    let token = w.expect_fetch("POST");
    assert_eq!(w.fetches[&token].request.url.reveal(), "https://auth.example/token");
    w.remote_answers(token, head(200, JSON), r#"{"access_token":"one","expires_in":3600}"#);
    let post = w.expect_fetch("POST");
    assert_eq!(w.field(post, "authorization"), Some("Bearer one"));
    w.remote_answers(post, head(401, ""), "");
    let token = w.expect_fetch("POST");
    w.remote_answers(token, head(200, JSON), r#"{"access_token":"two"}"#);
    let post = w.expect_fetch("POST");
    assert_eq!(w.field(post, "authorization"), Some("Bearer two"));
    w.remote_answers(post, head(401, ""), "");
    assert!(w.expect_stdout().contains("401 Unauthorized"));
    w.finish();
}

#[test]
fn a_remote_server_is_offered_over_http_and_each_answer_finds_its_client() {
    let mut w = World::new(remote_config(URL, FrontKind::Http));
    let mut clients = [Client::new(), Client::new()];
    let first = w.post(&clients[0], &hello("0", "2025-11-25", "{}"));
    greet(&mut w);
    let second = w.post(&clients[1], &hello("0", "2025-11-25", "{}"));
    for (client, exchange) in clients.iter_mut().zip([first, second]) {
        client.session = w.expect_respond(exchange).headers.get("mcp-session-id").map(str::to_owned);
        w.notify(client, INITIALIZED);
    }
    listen(&mut w);
    let exchanges = clients.each_ref().map(|client| w.post(client, &call("1")));
    let posts = exchanges.map(|_| w.expect_fetch("POST"));
    // The question comes on the stream of the second client's call.
    w.remote_streams(posts[1], head(200, EVENTS), &event(r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#));
    w.expect_stream(exchanges[1]);
    assert_eq!(w.next_event(exchanges[1]).and_then(|primer| primer.data).as_deref(), Some(""));
    let asked = Line(w.expect_message(exchanges[1]));
    w.notify(&clients[1], &result(&asked.id(), "{}"));
    let post = w.expect_fetch("POST");
    assert_eq!(&*w.posted(post), result("9", "{}"));
    w.remote_answers(post, head(202, ""), "");
    let ids = posts.map(|post| w.posted(post).id());
    w.remote_says(posts[1], &event(&result(&ids[1], r#"{"n":2}"#)));
    w.remote_answers(posts[0], head(200, JSON), &result(&ids[0], r#"{"n":1}"#));
    assert_eq!(w.expect_message(exchanges[1]), result("1", r#"{"n":2}"#));
    assert_eq!(w.expect_json(exchanges[0]), result("1", r#"{"n":1}"#));
    w.finish();
}
