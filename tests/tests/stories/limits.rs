//! What happens at each bound: readers that do not read, tables that are full.

use std::time::Duration;

use mcp_proxy_engine::{Exit, MAX_READ, Pipe, Signal};
use mcp_proxy_tests::sim::*;

fn log(n: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{n},"data":"{}"}}}}"#, "x".repeat(400))
}

#[test]
fn a_child_that_does_not_read_is_sent_no_more_than_the_queue_holds() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", "{}");
    let mut accepted = Vec::new();
    let refused = loop {
        let exchange = w.post(&client, &call("1"));
        if w.exchanges[&exchange].response.is_some() {
            break exchange;
        }
        accepted.push(exchange);
        assert!(accepted.len() < 100);
    };
    let body = w.expect_refused(refused, 503, -32000);
    assert!(body.contains(r#""id":1"#), "{body}");
    assert!(accepted.len() > 10);
    // It reads after all: nothing of what was accepted is lost.
    for exchange in accepted {
        let line = w.expect_line(child);
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), result("1", "{}"));
    }
    assert!(w.largest_write < 1200);
    w.finish();
}

#[test]
fn calls_before_the_handshake_wait_in_a_bounded_queue() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    w.expect_child();
    let (client, child) = w.connect("2025-06-18", "{}");
    w.exit(child, Exit::Code(0));
    let again = w.expect_child();
    let exchanges: Vec<_> = (0..30).map(|_| w.post(&client, &call("1"))).collect();
    let (refused, waiting): (Vec<_>, Vec<_>) = exchanges.into_iter().partition(|e| w.exchanges[e].response.is_some());
    assert!(!waiting.is_empty() && !refused.is_empty());
    for exchange in refused {
        w.expect_refused(exchange, 503, -32000);
    }
    w.shake("2025-06-18");
    w.expect_method(again, "notifications/initialized");
    for exchange in waiting {
        let line = w.expect_line(again);
        w.answer(again, &line, "{}");
        assert_eq!(w.expect_json(exchange), result("1", "{}"));
    }
    w.finish();
}

#[test]
fn a_child_that_asks_for_ever_and_reads_nothing_fills_no_memory() {
    let mut config = config();
    config.limits.max_queue = 10_000;
    let mut w = World::new(config);
    let (_, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let pings: String =
        (0..20_000).map(|n| format!("{{\"jsonrpc\":\"2.0\",\"id\":{n},\"method\":\"ping\"}}\n")).collect();
    w.out_mut(Pipe::ChildStdout(child)).buffer.extend_from_slice(pings.as_bytes());
    w.settle();
    w.wrote(Pipe::ChildStdin(child));
    w.settle();
    // One read of 64 KiB may be answered beyond the limit.
    assert!(w.largest_write < 100_000, "{} bytes waited for a child that does not read", w.largest_write);
    // Once it reads, it is heard again.
    for n in 0..20_000 {
        assert_eq!(*w.expect_line(child), result(&n.to_string(), "{}"));
    }
    w.finish();
}

#[test]
fn a_slow_client_holds_up_its_own_server() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let stream = w.get(&client);
    w.expect_stream(stream);
    for n in 0..100 {
        w.child_says(child, &log(n));
    }
    assert!(!w.out_mut(Pipe::ChildStdout(child)).permitted, "the server is not read any more");
    assert!(w.out_mut(Pipe::ChildStdout(child)).buffer.len() > 1000);
    for n in 0..100 {
        assert_eq!(w.expect_message(stream), log(n), "nothing is lost");
    }
    assert!(w.out_mut(Pipe::ChildStdout(child)).permitted);
    w.finish();
}

#[test]
fn a_slow_client_that_leaves_frees_its_server() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let stream = w.get(&client);
    w.expect_stream(stream);
    for n in 0..10 {
        w.child_says(child, &log(n));
    }
    assert!(!w.out_mut(Pipe::ChildStdout(child)).permitted);
    w.close_client(stream);
    assert!(w.out_mut(Pipe::ChildStdout(child)).permitted);
    let deleted = w.delete(&client);
    assert_eq!(w.expect_respond(deleted).status, 200);
    w.exit(child, Exit::Code(0));
    w.finish();
}

#[test]
fn what_a_dead_server_left_is_read_to_the_end_even_for_a_slow_client() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let stream = w.get(&client);
    w.expect_stream(stream);
    // More than one read, in a pipe that nobody reads because the client is slow.
    let many = 2 * MAX_READ / log(0).len() + 20;
    for n in 0..many {
        w.child_says(child, &log(n));
    }
    assert!(w.out_mut(Pipe::ChildStdout(child)).buffer.len() > MAX_READ);
    w.exit(child, Exit::Code(0));
    w.advance(millis(500));
    for n in 0..many {
        assert_eq!(w.expect_message(stream), log(n), "nothing is lost");
    }
    w.ignore_rest();
    w.finish();
}

#[test]
fn the_last_words_of_a_server_that_was_held_up_are_heard() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    let other = w.post(&client, &call("2"));
    w.expect_line(child);
    for n in 0..10 {
        w.child_says(child, &log(n));
    }
    assert!(!w.out_mut(Pipe::ChildStdout(child)).permitted);
    w.answer(child, &line, r#""last words""#);
    w.exit(child, Exit::Code(0));
    assert_eq!(w.expect_json(exchange), result("1", r#""last words""#));
    w.advance(millis(500));
    assert!(w.expect_json(other).contains("exited with status 0"));
    for n in 0..10 {
        assert_eq!(w.expect_message(stream), log(n));
    }
    w.shake("2025-06-18");
    w.ignore_rest();
    w.finish();
}

#[test]
fn a_slow_client_of_a_shared_server_loses_its_stream_and_takes_it_up_again() {
    let mut config = config();
    config.limits.max_queue = 1000;
    let mut w = World::new(config);
    let (slow, child) = w.connect("2025-06-18", "{}");
    let (quick, _) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&slow, &call("1"));
    let line = w.expect_line(child);
    for n in 0..10 {
        w.child_says(child, &log(n));
    }
    assert!(w.out_mut(Pipe::ChildStdout(child)).permitted, "the others are not held up");
    let other = w.post(&quick, &call("1"));
    let second = w.expect_line(child);
    w.answer(child, &second, "{}");
    assert_eq!(w.expect_json(other), result("1", "{}"));
    w.answer(child, &line, "{}");
    w.expect_stream(exchange);
    let mut last = (0, String::new());
    while let Some(event) = w.next_event(exchange) {
        assert_eq!(event.data, Some(log(last.0)));
        last = (last.0 + 1, event.id.unwrap());
    }
    assert!((2..10).contains(&last.0), "{last:?}");
    w.expect_end(exchange);
    let again = w.get_after(&slow, &last.1);
    w.expect_stream(again);
    for n in last.0..10 {
        assert_eq!(w.expect_message(again), log(n));
    }
    assert_eq!(w.expect_message(again), result("1", "{}"));
    w.expect_end(again);
    w.finish();
}

#[test]
fn too_many_sessions_are_503() {
    let mut config = config();
    config.limits.max_sessions = 2;
    let mut w = World::new(config);
    let (one, _) = w.connect("2025-06-18", "{}");
    w.connect("2025-06-18", "{}");
    let refused = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let body = w.expect_refused(refused, 503, -32000);
    assert!(body.contains("--max-sessions"), "{body}");
    let deleted = w.delete(&one);
    assert_eq!(w.expect_respond(deleted).status, 200);
    w.connect("2025-06-18", "{}");
    w.finish();
}

#[test]
fn too_many_children_are_503_unless_one_is_unused() {
    let mut config = config();
    config.limits.max_children = 2;
    let mut w = World::new(config);
    let (_, first) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let (shared, second) = w.connect("2025-06-18", "{}");
    let refused = w.post(&Client::new(), &hello("1", "2025-06-18", r#"{"roots":{}}"#));
    let body = w.expect_refused(refused, 503, -32000);
    assert!(body.contains("--max-children"), "{body}");
    assert_eq!(w.stats().sessions, 2);
    let deleted = w.delete(&shared);
    assert_eq!(w.expect_respond(deleted).status, 200);
    // Nobody uses the second any more: it makes room, and the third starts when it is gone.
    let waiting = w.post(&Client::new(), &hello("1", "2025-06-18", r#"{"roots":{}}"#));
    assert!(w.is_stdin_closed(second));
    assert_eq!((w.stats().children, w.shake("2025-06-18")), (2, None));
    w.exit(second, Exit::Code(0));
    w.advance(Duration::from_millis(100));
    let third = w.shake("2025-06-18").expect("there is room now");
    assert!(third != first);
    assert_eq!((w.expect_respond(waiting).status, w.stats().children), (200, 2));
    w.finish();
}

#[test]
fn too_many_calls_are_503() {
    let mut config = config();
    config.limits.max_calls = 2;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", "{}");
    let calls = [w.post(&client, &call("1")), w.post(&client, &call("2"))];
    let refused = w.post(&client, &call("3"));
    let body = w.expect_refused(refused, 503, -32000);
    assert!(body.contains("--max-calls"), "{body}");
    for (exchange, id) in calls.into_iter().zip(["1", "2"]) {
        let line = w.expect_line(child);
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), result(id, "{}"));
    }
    let exchange = w.post(&client, &call("4"));
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn too_many_exchanges_are_503() {
    let mut config = config();
    config.limits.max_exchanges = 2;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", "{}");
    let (one, two) = (w.post(&client, &call("1")), w.get(&client));
    w.expect_stream(two);
    let refused = w.get(&client);
    let response = w.expect_respond(refused);
    assert_eq!((response.status, response.headers.get("retry-after")), (503, Some("1")));
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(one), result("1", "{}"));
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.finish();
}

#[test]
fn a_message_that_no_client_waits_for_is_kept_only_as_far_as_there_is_room() {
    let mut config = config();
    (config.limits.replay_events, config.limits.replay_bytes) = (5, 1200);
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", "{}");
    for n in 0..10 {
        w.child_says(child, &log(n));
    }
    let stream = w.get(&client);
    w.expect_stream(stream);
    assert_eq!(w.expect_message(stream), log(8));
    assert_eq!(w.expect_message(stream), log(9));
    w.finish();
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_a_shutdown() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.child_says(child, &log(1));
    let exchange = w.post(&client, &call("1"));
    w.expect_line(child);
    w.child_says(child, &log(2));
    w.expect_stream(exchange);
    w.shutdown();
    w.advance(secs(2));
    assert_eq!(w.signals(child), [Signal::Term]);
    w.exit(child, Exit::Signal(15));
    assert!(!w.done);
    w.advance(secs(3));
    assert!(w.done, "{:?}", w.stats());
}

#[test]
fn a_client_is_not_kept_waiting_for_ever_for_room() {
    let mut config = config();
    let mut other = config.servers[0].clone();
    other.name = "other".into();
    config.servers.push(other);
    config.limits.max_children = 1;
    let mut w = World::new(config);
    // The process of the first server, started ahead and used by nobody, is in the way.
    w.expect_child();
    let client = Client { target: "/servers/other/mcp".into(), ..Client::new() };
    let exchange = w.post(&client, &hello("1", "2025-06-18", "{}"));
    w.advance(secs(300));
    let children: Vec<_> = w.children.iter().filter(|(_, c)| c.stdin_dropped).map(|(id, _)| *id).collect();
    for child in children {
        w.exit(child, Exit::Code(0));
    }
    w.advance(secs(300));
    w.shake("2025-06-18");
    let answered =
        w.exchanges[&exchange].response.as_ref().is_some_and(|r| r.status == 503) || w.next_event(exchange).is_some();
    assert!(answered, "neither refused nor welcomed after ten minutes");
    w.ignore_rest();
    w.finish();
}
