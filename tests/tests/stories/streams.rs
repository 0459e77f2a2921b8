//! Event streams: when an answer becomes one, what keeps it alive, and how a client takes it up again.

use mcp_proxy_tests::sim::*;

fn log(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{text}"}}}}"#)
}

#[test]
fn a_silent_request_turns_into_a_stream_with_comments() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("7"));
    let line = w.expect_line(child);
    w.advance(millis(14_999));
    w.expect_silence(exchange);
    w.advance(millis(1));
    w.expect_stream(exchange);
    w.expect_comment(exchange);
    w.advance(secs(15));
    w.expect_comment(exchange);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("7", "{}"));
    w.expect_end(exchange);
    // Nobody needs comments on a stream that is over.
    w.advance(secs(60));
    w.finish();
}

#[test]
fn the_standalone_stream_carries_comments_and_a_client_that_does_not_read_gets_only_one() {
    let mut w = World::new(config());
    let (client, _) = w.connect("2025-06-18", "{}");
    let stream = w.get(&client);
    let head = w.expect_stream(stream);
    assert_eq!(head.headers.get("cache-control"), Some("no-cache, no-transform"));
    w.expect_silence(stream);
    w.advance(secs(150));
    w.expect_comment(stream);
    assert_eq!(w.exchanges[&stream].comments, 0, "they do not pile up");
    w.finish();
}

#[test]
fn only_2025_11_25_primes_its_streams() {
    for (revision, primed) in [("2025-03-26", false), ("2025-06-18", false), ("2025-11-25", true)] {
        let mut w = World::new(config());
        let (client, child) = w.connect(revision, "{}");
        let stream = w.get(&client);
        let exchange = w.post(&client, &call("7"));
        let line = w.expect_line(child);
        w.child_says(child, &log("x"));
        for stream in [stream, exchange] {
            w.expect_stream(stream);
            if primed {
                w.expect_priming(stream);
            }
        }
        let event = w.expect_event(exchange);
        assert_eq!(event.data, Some(log("x")));
        assert!(event.id.is_some());
        w.answer(child, &line, "{}");
        w.expect_message(exchange);
        w.expect_end(exchange);
        w.finish();
    }
}

#[test]
fn a_primed_stream_says_when_to_come_back() {
    let mut w = World::new(config());
    let (client, _) = w.connect("2025-11-25", "{}");
    let stream = w.get(&client);
    w.expect_stream(stream);
    assert!(w.expect_event(stream).retry.is_some());
    w.finish();
}

#[test]
fn a_lost_answer_stream_is_taken_up_where_it_broke() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-11-25", "{}");
    let exchange = w.post(&client, &call("7"));
    let line = w.expect_line(child);
    w.child_says(child, &log("one"));
    w.expect_stream(exchange);
    let first = w.expect_priming(exchange);
    let second = w.expect_event(exchange).id.unwrap();
    w.close_client(exchange);
    w.child_says(child, &log("two"));

    // It comes back with what it has, and again with less.
    let again = w.get_after(&client, &second);
    w.expect_stream(again);
    assert_eq!(w.expect_message(again), log("two"));
    w.expect_silence(again);
    let once_more = w.get_after(&client, &first);
    w.expect_stream(once_more);
    w.expect_end(again);
    assert_eq!(w.expect_message(once_more), log("one"));
    assert_eq!(w.expect_message(once_more), log("two"));
    w.answer(child, &line, "{}");
    let last = w.expect_event(once_more);
    assert_eq!(last.data, Some(result("7", "{}")));
    w.expect_end(once_more);

    // The stream is finished; what is left of it can still be had.
    let after = w.get_after(&client, &second);
    w.expect_stream(after);
    assert_eq!(w.expect_message(after), log("two"));
    assert_eq!(w.expect_message(after), result("7", "{}"));
    w.expect_end(after);
    let after = w.get_after(&client, &last.id.unwrap());
    w.expect_stream(after);
    w.expect_end(after);
    w.finish();
}

#[test]
fn an_answer_that_comes_while_nobody_listens_is_kept() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-11-25", "{}");
    let exchange = w.post(&client, &call("7"));
    let line = w.expect_line(child);
    w.advance(secs(15));
    w.expect_stream(exchange);
    let id = w.expect_priming(exchange);
    w.close_client(exchange);
    w.answer(child, &line, "{}");
    let again = w.get_after(&client, &id);
    w.expect_stream(again);
    assert_eq!(w.expect_message(again), result("7", "{}"));
    w.expect_end(again);
    w.finish();
}

#[test]
fn the_standalone_stream_is_taken_up_where_it_broke() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-11-25", "{}");
    let stream = w.get(&client);
    w.expect_stream(stream);
    let primed = w.expect_priming(stream);
    w.child_says(child, &log("one"));
    let first = w.expect_event(stream).id.unwrap();
    w.close_client(stream);
    w.child_says(child, &log("two"));
    let again = w.get_after(&client, &first);
    w.expect_stream(again);
    assert_eq!(w.expect_message(again), log("two"));
    w.expect_silence(again);
    w.close_client(again);
    let again = w.get_after(&client, &primed);
    w.expect_stream(again);
    assert_eq!(w.expect_message(again), log("one"));
    assert_eq!(w.expect_message(again), log("two"));
    w.finish();
}

#[test]
fn what_waited_for_a_listener_can_be_asked_for_again() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-11-25", "{}");
    w.child_says(child, &log("one"));
    w.child_says(child, &log("two"));
    let stream = w.get(&client);
    w.expect_stream(stream);
    // The client gets the first event, then the connection breaks: whatever that event's id is, nothing may be lost.
    let id = w.expect_event(stream).id.unwrap();
    w.close_client(stream);
    let again = w.get_after(&client, &id);
    w.expect_stream(again);
    assert_eq!(w.expect_message(again), log("one"));
    assert_eq!(w.expect_message(again), log("two"));
    w.finish();
}

#[test]
fn an_event_id_that_was_never_given_out_is_400() {
    let mut w = World::new(config());
    let (client, _) = w.connect("2025-11-25", "{}");
    for id in ["", "x", "7-1", "0", "0-", "-1", "99999999999999999999-1"] {
        let exchange = w.get_after(&client, id);
        w.expect_refused(exchange, 400, -32600);
    }
    w.finish();
}

#[test]
fn a_stream_that_did_not_begin_cannot_break_its_request() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-03-26", "{}");
    let exchange = w.post(&client, &format!("[{},{}]", call("1"), call("2")));
    let (one, two) = (w.expect_line(child), w.expect_line(child));
    w.answer(child, &one, "1");
    // No event of the answer to this POST was sent, but a client can guess what its id would be.
    let stream = w.get_after(&client, "2-0");
    w.expect_respond(stream);
    w.answer(child, &two, "2");
    let mut answers = String::new();
    for id in [exchange, stream] {
        while let Some(event) = w.next_event(id) {
            answers += &event.data.unwrap_or_default();
        }
        if let Some(r) = w.exchanges[&id].response.clone().filter(|r| r.body != mcp_proxy_engine::Body::Stream) {
            answers += text(&r);
        }
    }
    assert!(answers.contains(&result("1", "1")) && answers.contains(&result("2", "2")), "{answers}");
    w.ignore_rest();
    w.finish();
}

#[test]
fn several_standalone_streams_get_each_message_once() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let (old, new) = (w.get(&client), w.get(&client));
    w.expect_stream(old);
    w.expect_stream(new);
    w.child_says(child, &log("one"));
    assert_eq!(w.expect_message(new), log("one"));
    w.expect_silence(old);
    w.close_client(new);
    w.child_says(child, &log("two"));
    assert_eq!(w.expect_message(old), log("two"));
    w.finish();
}
