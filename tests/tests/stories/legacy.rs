//! HTTP+SSE, keys, CORS and what the proxy says of itself.

use mcp_proxy_engine::{ExchangeId, Exit, Secret, Server, UrlEnv};
use mcp_proxy_tests::sim::*;

/// A client opens its event stream. Returns the stream and the client that posts.
fn open(w: &mut World, target: &str) -> (ExchangeId, Client) {
    let stream = w.get(&Client { target: target.into(), ..Client::new() });
    w.expect_stream(stream);
    let event = w.next_event(stream).expect("the endpoint event");
    assert_eq!(event.event, "endpoint");
    (stream, Client { target: event.data.expect("where to post"), ..Client::new() })
}

/// The same, all the way through the handshake.
fn connect(w: &mut World, target: &str) -> (ExchangeId, Client, mcp_proxy_engine::ChildId) {
    let (stream, client) = open(w, target);
    accepted(w, &client, &hello("0", "2024-11-05", "{}"));
    let child = w.shake("2024-11-05");
    assert!(w.expect_message(stream).contains(r#""id":0"#));
    accepted(w, &client, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let child = child.unwrap_or_else(|| *w.children.iter().rfind(|(_, c)| c.lives()).expect("a child").0);
    if w.peek_line(child).is_some() {
        w.expect_method(child, "notifications/initialized");
    }
    (stream, client, child)
}

fn accepted(w: &mut World, client: &Client, body: &str) {
    let post = w.post(client, body);
    let response = w.expect_respond(post);
    assert_eq!((response.status, text(&response)), (202, "Accepted"));
}

#[test]
fn everything_comes_on_the_stream() {
    let mut w = World::new(config());
    let (stream, client, child) = connect(&mut w, "/sse");
    assert!(client.target.starts_with("/messages/?session_id="), "{}", client.target);
    accepted(&mut w, &client, &call_with_token("1", "\"t\""));
    let line = w.expect_line(child);
    let note = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    w.child_says(child, &note(&line.id()));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(stream), note("\"t\""));
    assert_eq!(w.expect_message(stream), result("1", "{}"));
    w.finish();
}

#[test]
fn both_spellings_of_the_path_and_of_the_session_work() {
    let mut w = World::new(config());
    let (stream, client, child) = connect(&mut w, "/sse");
    let name = client.target.split('=').nth(1).unwrap().to_owned();
    for target in ["/messages?session_id=", "/message?sessionId=", "/messages/?x=1&session_id="] {
        accepted(&mut w, &Client { target: format!("{target}{name}"), ..Client::new() }, &call("1"));
        let line = w.expect_line(child);
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_message(stream), result("1", "{}"));
    }
    for (target, status) in [
        ("/messages/".to_owned(), 400),
        ("/messages/?session_id=x".to_owned(), 400),
        (format!("/messages/?session_id={}", "0".repeat(32)), 404),
        (format!("/mcp?session_id={name}"), 400),
    ] {
        let post = w.post(&Client { target: target.clone(), ..Client::new() }, &call("1"));
        assert_eq!(w.expect_respond(post).status, status, "{target}");
    }
    w.finish();
}

#[test]
fn a_named_server_names_its_own_path_and_streams_do_not_mix() {
    let mut config = config();
    config.servers.push(Server { name: "two".into(), ..config.servers[0].clone() });
    let mut w = World::new(config);
    let (one, first, _) = connect(&mut w, "/sse");
    let (two, second, child) = connect(&mut w, "/servers/two/sse");
    assert!(second.target.starts_with("/servers/two/messages/?session_id="), "{}", second.target);
    let crossed = second.target.replace("/servers/two", "");
    let post = w.post(&Client { target: crossed, ..Client::new() }, &call("1"));
    assert_eq!(w.expect_respond(post).status, 404);
    accepted(&mut w, &second, &call("1"));
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(two), result("1", "{}"));
    w.expect_silence(one);
    drop(first);
    w.finish();
}

#[test]
fn a_client_that_leaves_ends_its_session() {
    let mut w = World::new(config());
    let (stream, client, child) = connect(&mut w, "/sse");
    accepted(&mut w, &client, &call("1"));
    let line = w.expect_line(child);
    w.client_leaves(stream);
    assert_eq!(w.stats().sessions, 0);
    assert!(w.expect_method(child, "notifications/cancelled").contains(&line.id()));
    let post = w.post(&client, &call("2"));
    assert_eq!(w.expect_respond(post).status, 404);
    w.finish();
}

#[test]
fn a_client_must_introduce_itself_once() {
    let mut w = World::new(config());
    let (stream, client) = open(&mut w, "/sse");
    accepted(&mut w, &client, &call("1"));
    assert!(w.expect_message(stream).contains("begin with initialize"));
    accepted(&mut w, &client, &hello("2", "2024-11-05", "{}"));
    w.shake("2024-11-05");
    w.expect_message(stream);
    accepted(&mut w, &client, &hello("3", "2024-11-05", "{}"));
    assert!(w.expect_message(stream).contains("initialized already"));
    w.finish();
}

#[test]
fn each_key_of_a_client_is_checked_everywhere() {
    let mut config = config();
    config.access.auth_tokens = vec![Secret::new("k".into()), Secret::new("other".into())];
    let mut w = World::new(config);
    for (method, target) in [
        ("GET", "/sse"),
        ("POST", "/messages/"),
        ("POST", "/mcp"),
        ("GET", "/status"),
        ("GET", "/healthz"),
        ("GET", "/nowhere"),
    ] {
        let exchange = w.send(Client { target: target.into(), ..Client::new() }.request(method, "{}"));
        let response = w.expect_respond(exchange);
        assert_eq!((response.status, response.headers.get("www-authenticate")), (401, Some("Bearer")), "{target}");
    }
    // Clients post to the URL that they are told, so a key that came by the URL is in it.
    let (_, client) = open(&mut w, "/sse?auth_key=k");
    let bare = Client { target: client.target.replace("&auth_key=k", ""), ..Client::new() };
    assert_ne!(bare.target, client.target);
    accepted(&mut w, &client, &call("0"));
    accepted(&mut w, &bare.clone().with("authorization", "Bearer k"), &call("0"));
    for (client, status) in [(bare.clone(), 401), (bare.with("x-api-key", "other"), 404)] {
        let refused = w.post(&client, &call("0"));
        assert_eq!(w.expect_respond(refused).status, status, "a session is no other's");
    }
    w.ignore_rest();
    w.finish();
}

#[test]
fn variables_of_a_client_give_it_a_process_of_its_own() {
    let mut config = config();
    config.servers[0].url_env = UrlEnv::Any;
    config.servers[0].prestart = false;
    let mut w = World::new(config);
    let (_, _, one) = connect(&mut w, "/sse?TOKEN=a");
    let (_, _, two) = connect(&mut w, "/sse?TOKEN=b");
    connect(&mut w, "/sse?TOKEN=a");
    assert_eq!((one == two, w.stats().children), (false, 2), "the third is like the first");
    let value = |w: &World, child| w.children[&child].command.env[0].1.reveal().clone();
    assert_eq!((value(&w, one), value(&w, two)), ("a".into(), "b".into()));
    let refused = w.get(&Client { target: "/sse?LD_PRELOAD=x".into(), ..Client::new() });
    assert_eq!(w.expect_respond(refused).status, 400);
    w.ignore_rest();
    w.finish();
}

#[test]
fn a_page_of_an_allowed_origin_may_read() {
    let mut config = config();
    config.access.allowed_origins = vec!["https://app.example".into()];
    config.access.cors_origins = vec!["https://app.example".into()];
    let mut w = World::new(config);
    let page = Client::new().with("origin", "https://app.example").with("access-control-request-method", "POST");
    let asked = w.send(page.request("OPTIONS", ""));
    let response = w.expect_respond(asked);
    assert_eq!(
        (response.status, response.headers.get("access-control-allow-methods")),
        (204, Some("GET, POST, DELETE, HEAD"))
    );
    let post = w.post(&page, &call("1"));
    let response = w.expect_respond(post);
    assert_eq!(
        (response.status, response.headers.get("access-control-allow-origin")),
        (400, Some("https://app.example"))
    );
    let evil = Client::new().with("origin", "https://evil.example").with("access-control-request-method", "POST");
    let asked = w.send(evil.request("OPTIONS", ""));
    assert_eq!(w.expect_respond(asked).status, 403);
    w.finish();
}

#[test]
fn a_server_that_is_down_makes_the_proxy_not_ready() {
    let mut config = config();
    config.servers.push(Server { name: "two".into(), ..config.servers[0].clone() });
    let mut w = World::new(config);
    let ask = |w: &mut World, target: &str| {
        let exchange = w.send(Client { target: target.into(), ..Client::new() }.request("GET", ""));
        let response = w.expect_respond(exchange);
        (response.status, text(&response).to_owned())
    };
    assert_eq!(ask(&mut w, "/readyz"), (200, r#"{"ready":true,"down":[]}"#.into()));
    w.auto_spawn = false;
    let child = *w.children.keys().last().unwrap();
    w.exit(child, Exit::Code(1));
    let child = *w.children.keys().last().unwrap();
    w.spawn_failed(child, std::io::ErrorKind::NotFound);
    assert_eq!(ask(&mut w, "/readyz"), (503, r#"{"ready":false,"down":["two"]}"#.into()));
    assert_eq!(ask(&mut w, "/healthz").0, 200);
    let (_, status) = ask(&mut w, "/status");
    assert!(status.contains(r#""server_instances":{"default":"configured","two":"configured"}"#), "{status}");
    w.auto_spawn = true;
    w.advance(secs(1));
    assert_eq!(ask(&mut w, "/readyz").0, 200, "it came up by itself");
    w.finish();
}
