//! What a server says without being asked: questions, logs, changes; and to whom.

use mcp_proxy_tests::sim::*;

fn ask(id: &str, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"sampling/createMessage","params":{{"text":"{text}"}}}}"#)
}

fn log(level: &str, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":"{text}"}}}}"#)
}

fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"x"}}}}"#)
}

const ASKABLE: &str = r#"{"sampling":{}}"#;

#[test]
fn a_question_goes_to_the_only_call_and_its_answer_back_under_the_servers_id() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    // The server's id is that of the call: nothing may be confused by that.
    w.child_says(child, &ask(r#""1""#, "q"));
    w.expect_stream(exchange);
    let question = Line(w.expect_message(exchange));
    assert_eq!(*question, ask(&question.id(), "q"));
    assert_ne!(question.id(), r#""1""#);
    w.notify(&client, &result(&question.id(), r#"{"x":1e400}"#));
    assert_eq!(*w.expect_line(child), result(r#""1""#, r#"{"x":1e400}"#));
    // A second answer to the same question is dropped.
    w.notify(&client, &result(&question.id(), "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    w.expect_silence(stream);
    w.finish();
}

#[test]
fn a_question_among_several_calls_goes_to_the_standalone_stream_else_to_the_newest_call() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let calls = [w.post(&client, &call("1")), w.post(&client, &call("2"))];
    let lines = [w.expect_line(child), w.expect_line(child)];
    w.child_says(child, &ask("5", "to the newest"));
    w.expect_stream(calls[1]);
    let first = Line(w.expect_message(calls[1]));
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.child_says(child, &ask("5", "to the stream"));
    let second = Line(w.expect_message(stream));
    w.expect_silence(calls[0]);
    assert_ne!(first.id(), second.id(), "two questions with one id are two questions");
    w.notify(&client, &result(&second.id(), "2"));
    w.notify(&client, &result(&first.id(), "1"));
    assert_eq!(*w.expect_line(child), result("5", "2"));
    assert_eq!(*w.expect_line(child), result("5", "1"));
    for n in [0, 1] {
        w.answer(child, &lines[n], "{}");
    }
    assert_eq!(w.expect_json(calls[0]), result("1", "{}"));
    assert_eq!(w.expect_message(calls[1]), result("2", "{}"));
    w.expect_end(calls[1]);
    w.finish();
}

#[test]
fn a_question_without_any_listener_waits_for_one() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-11-25", ASKABLE);
    w.child_says(child, &ask("5", "q"));
    w.child_says(child, &log("info", "x"));
    w.advance(secs(60));
    let stream = w.get(&client);
    w.expect_stream(stream);
    let mut messages = Vec::new();
    while let Some(event) = w.next_event(stream) {
        messages.extend(event.data.filter(|data| !data.is_empty()));
    }
    let question = Line(messages[0].clone());
    assert_eq!(messages, [ask(&question.id(), "q"), log("info", "x")]);
    w.notify(&client, &result(&question.id(), "{}"));
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.finish();
}

#[test]
fn a_question_does_not_go_to_a_call_whose_client_hung_up() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    w.close_client(exchange);
    w.child_says(child, &ask("5", "q"));
    let question = Line(w.expect_message(stream));
    w.notify(&client, &result(&question.id(), "{}"));
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    w.finish();
}

#[test]
fn an_answer_of_another_session_does_not_count() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", ASKABLE);
    let (two, other) = w.connect("2025-06-18", ASKABLE);
    assert_ne!(child, other);
    let stream = w.get(&one);
    w.expect_stream(stream);
    w.child_says(child, &ask("5", "q"));
    let question = Line(w.expect_message(stream));
    w.notify(&two, &result(&question.id(), r#""forged""#));
    w.notify(&one, &result(r#""5""#, r#""guessed""#));
    w.expect_no_line(child);
    w.expect_no_line(other);
    w.notify(&one, &result(&question.id(), r#""mine""#));
    assert_eq!(*w.expect_line(child), result("5", r#""mine""#));
    w.finish();
}

#[test]
fn a_server_takes_its_question_back() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.child_says(child, &ask(r#""q""#, "q"));
    let question = Line(w.expect_message(stream));
    w.child_says(child, &cancel(r#""\u0071""#));
    assert_eq!(w.expect_message(stream), cancel(&question.id()));
    w.notify(&client, &result(&question.id(), "{}"));
    w.child_says(child, &cancel(r#""q""#));
    w.expect_silence(stream);
    assert_eq!(w.stats().questions, 0);
    w.finish();
}

#[test]
fn a_question_asked_on_a_call_that_is_over_can_still_be_taken_back() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    w.child_says(child, &ask("5", "q"));
    w.expect_stream(exchange);
    let question = Line(w.expect_message(exchange));
    w.answer(child, &line, "{}");
    w.expect_message(exchange);
    w.expect_end(exchange);
    w.child_says(child, &cancel("5"));
    assert_eq!(w.expect_message(stream), cancel(&question.id()), "the client still shows the question to its user");
    w.finish();
}

#[test]
fn a_client_that_does_not_answer_is_answered_for() {
    let mut config = config();
    config.timeouts.request = secs(10);
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let stream = w.get(&client);
    w.expect_stream(stream);
    w.child_says(child, &ask("5", "q"));
    let question = Line(w.expect_message(stream));
    w.advance(secs(10));
    assert!(w.expect_line(child).contains(r#""id":5,"error":{"code":-32001"#));
    assert_eq!(Line(w.expect_message(stream)).id(), question.id(), "the client is told");
    w.finish();
}

#[test]
fn progress_of_an_answer_goes_to_the_server_under_its_own_token() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", ASKABLE);
    let stream = w.get(&client);
    w.expect_stream(stream);
    let question = |id: &str, token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
        )
    };
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    w.child_says(child, &question("5", r#""theirs""#));
    let line = Line(w.expect_message(stream));
    assert_eq!(*line, question(&line.id(), &line.id()));
    w.notify(&client, &progress(&line.id()));
    assert_eq!(*w.expect_line(child), progress(r#""theirs""#));
    w.notify(&client, &result(&line.id(), "{}"));
    w.expect_line(child);
    w.notify(&client, &progress(&line.id()));
    w.expect_no_line(child);
    w.finish();
}

#[test]
fn a_ping_of_the_server_is_answered_by_the_proxy() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let line = w.expect_line(child);
    w.child_says(child, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    assert_eq!(*w.expect_line(child), result(r#""p""#, "{}"), "even before the handshake is done");
    w.answer(child, &line, r#"{"protocolVersion":"2025-06-18"}"#);
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn a_log_goes_to_the_session_it_concerns_and_to_no_other() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let streams = [w.get(&one), w.get(&two)];
    let _ = streams.map(|stream| w.expect_stream(stream));
    w.child_says(child, &log("info", "for nobody in particular"));
    let exchange = w.post(&one, &call("1"));
    let line = w.expect_line(child);
    w.child_says(child, &log("info", "for one"));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), log("info", "for one"));
    let other = w.post(&two, &call("1"));
    let second = w.expect_line(child);
    w.child_says(child, &log("info", "for one of the two"));
    w.answer(child, &line, "{}");
    w.answer(child, &second, "{}");
    assert_eq!(w.expect_message(exchange), result("1", "{}"));
    w.expect_end(exchange);
    assert_eq!(w.expect_json(other), result("1", "{}"));
    let _ = streams.map(|stream| w.expect_silence(stream));
    w.finish();
}

#[test]
fn a_server_that_still_works_for_a_cancelled_call_is_not_overheard_by_others() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&one, &call("1"));
    let line = w.expect_line(child);
    w.notify(&one, &cancel("1"));
    w.expect_line(child);
    w.advance(secs(1));
    w.expect_json(exchange);
    // The server does not care about cancellation. What it says now may be about the cancelled call.
    let other = w.post(&two, &call("1"));
    let second = w.expect_line(child);
    w.child_says(child, &log("info", "a secret of one"));
    w.expect_silence(other);
    w.answer(child, &line, "{}");
    w.child_says(child, &log("info", "for two"));
    w.expect_stream(other);
    assert_eq!(w.expect_message(other), log("info", "for two"));
    w.answer(child, &second, "{}");
    assert_eq!(w.expect_message(other), result("1", "{}"));
    w.expect_end(other);
    w.finish();
}

#[test]
fn a_server_that_still_works_for_a_session_that_ended_is_not_overheard_by_others() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let stream = w.get(&two);
    w.expect_stream(stream);
    let exchange = w.post(&one, &call("1"));
    w.expect_line(child);
    let deleted = w.delete(&one);
    assert_eq!(w.expect_respond(deleted).status, 200);
    w.expect_json(exchange);
    w.expect_method(child, "notifications/cancelled");
    w.child_says(child, &log("info", "a secret of one"));
    w.expect_silence(stream);
    w.finish();
}

#[test]
fn changed_lists_are_told_to_every_session_of_a_shared_server() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let (three, other) = w.connect("2025-11-25", "{}");
    assert_ne!(child, other);
    let streams = [w.get(&one), w.get(&two), w.get(&three)];
    let _ = streams.map(|stream| w.expect_stream(stream));
    w.expect_priming(streams[2]);
    for what in ["tools", "prompts", "resources"] {
        let note = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{what}/list_changed"}}"#);
        w.child_says(child, &note);
        assert_eq!(w.expect_message(streams[0]), note);
        assert_eq!(w.expect_message(streams[1]), note);
    }
    w.expect_silence(streams[2]);
    w.finish();
}

fn subscription(method: &str, uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"{uri}"}}}}"#)
}

fn updated(uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#)
}

/// A client subscribes, or unsubscribes, and the server is asked.
fn subscribe(w: &mut World, client: &Client, child: mcp_proxy_engine::ChildId, method: &str, uri: &str) {
    let exchange = w.post(client, &subscription(method, uri));
    let line = w.expect_method(child, &format!("resources/{method}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
}

#[test]
fn updates_are_told_to_subscribers_and_one_that_leaves_does_not_take_the_subscription_along() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let streams = [w.get(&one), w.get(&two)];
    let _ = streams.map(|stream| w.expect_stream(stream));
    subscribe(&mut w, &one, child, "subscribe", "file:///a");
    w.child_says(child, &updated("file:///a"));
    assert_eq!(w.expect_message(streams[0]), updated("file:///a"));
    subscribe(&mut w, &two, child, "subscribe", "file:///a");
    w.child_says(child, &updated("file:///a/part"));
    let _ = streams.map(|stream| assert_eq!(w.expect_message(stream), updated("file:///a/part")));
    w.child_says(child, &updated("file:///b"));

    // The first to leave only leaves the list of the proxy, the last one tells the server.
    let exchange = w.post(&one, &subscription("unsubscribe", "file:///a"));
    assert_eq!(w.expect_json(exchange), result("1", "{}"));
    w.expect_no_line(child);
    w.child_says(child, &updated("file:///a"));
    assert_eq!(w.expect_message(streams[1]), updated("file:///a"));
    w.expect_silence(streams[0]);
    subscribe(&mut w, &two, child, "unsubscribe", "file:///a");
    w.child_says(child, &updated("file:///a"));
    let _ = streams.map(|stream| w.expect_silence(stream));
    w.finish();
}

#[test]
fn a_session_that_ends_gives_its_subscriptions_back_unless_others_hold_them() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    subscribe(&mut w, &one, child, "subscribe", "file:///a");
    subscribe(&mut w, &one, child, "subscribe", "file:///b");
    subscribe(&mut w, &two, child, "subscribe", "file:///a");
    let deleted = w.delete(&one);
    assert_eq!(w.expect_respond(deleted).status, 200);
    let line = w.expect_method(child, "resources/unsubscribe");
    assert!(line.contains("file:///b"), "{line}");
    w.answer(child, &line, "{}");
    w.finish();
}

#[test]
fn a_subscription_under_way_is_not_cut_by_another_session_that_unsubscribes() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    subscribe(&mut w, &two, child, "subscribe", "file:///a");
    let first = w.post(&one, &subscription("subscribe", "file:///a"));
    let line = w.expect_method(child, "resources/subscribe");
    let second = w.post(&two, &subscription("unsubscribe", "file:///a"));
    // The server reads in order: an unsubscribe behind the subscribe would end both.
    w.expect_no_line(child);
    assert_eq!(w.expect_json(second), result("1", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(first), result("1", "{}"));
    w.finish();
}

#[test]
fn a_shared_server_logs_for_its_most_curious_client() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let set = |id: &str, level: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#)
    };
    for (client, level, told) in [(&one, "debug", "debug"), (&two, "error", "debug")] {
        let exchange = w.post(client, &set("1", level));
        let line = w.expect_line(child);
        assert_eq!(*line, set(&line.id(), told));
        w.answer(child, &line, "{}");
        w.expect_json(exchange);
    }
    for (client, heard) in [(&one, true), (&two, false)] {
        let exchange = w.post(client, &call("1"));
        let line = w.expect_line(child);
        w.child_says(child, &log("info", "x"));
        w.child_says(child, &log("alert", "y"));
        w.expect_stream(exchange);
        if heard {
            assert_eq!(w.expect_message(exchange), log("info", "x"));
        }
        assert_eq!(w.expect_message(exchange), log("alert", "y"));
        w.answer(child, &line, "{}");
        w.expect_message(exchange);
        w.expect_end(exchange);
    }
    w.finish();
}
