//! Server processes: how they start, fail, come back and stop.

use std::io::ErrorKind;

use mcp_proxy_engine::{ChildId, ExchangeId, Exit, Pipe, Signal};
use mcp_proxy_tests::sim::*;

/// The time until the next child is started.
fn wait_for_child(w: &mut World) -> (std::time::Duration, ChildId) {
    let (from, known) = (w.now, w.children.len());
    while w.children.len() == known {
        let until = w.until.expect("something is waited for");
        w.advance_to(until);
        w.settle();
    }
    (w.now.since(from), w.expect_child())
}

#[test]
fn after_a_crash_every_call_fails_with_its_own_id_and_the_next_finds_the_server_as_it_was() {
    let mut w = World::new(config());
    let first = w.expect_child();
    let (one, child) = w.connect("2025-06-18", "{}");
    assert_eq!(first, child);
    let (two, _) = w.connect("2025-06-18", "{}");
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"warning"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"file:///é\""}}"#,
    ] {
        let exchange = w.post(&one, body);
        let line = w.expect_line(child);
        w.answer(child, &line, "{}");
        w.expect_json(exchange);
    }
    let calls = [w.post(&one, &call("1")), w.post(&two, &call("1")), w.post(&two, &call(r#""x""#))];
    let _ = calls.map(|_| w.expect_line(child));
    w.exit(child, Exit::Signal(11));
    for (exchange, id) in calls.into_iter().zip(["1", "1", r#""x""#]) {
        let answer = w.expect_json(exchange);
        assert!(answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"#)), "{answer}");
        assert!(answer.contains("was ended by signal 11"), "{answer}");
    }
    // The first restart is immediate. Nobody notices the handshake.
    let child = w.expect_child();
    let exchange = w.post(&two, &call("9"));
    w.shake("2025-06-18");
    w.expect_method(child, "notifications/initialized");
    let level = w.expect_method(child, "logging/setLevel");
    assert!(level.contains(r#""level":"warning""#), "{level}");
    w.answer(child, &level, "{}");
    let subscribe = w.expect_method(child, "resources/subscribe");
    assert!(subscribe.contains(r#""uri":"file:///é\"""#), "{subscribe}");
    w.answer(child, &subscribe, "{}");
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("9", "{}"));
    assert_eq!(w.stats().calls, 0);
    w.finish();
}

#[test]
fn what_a_dying_server_wrote_is_read_to_the_end() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let (one, two) = (w.post(&client, &call("1")), w.post(&client, &call("2")));
    let (first, second) = (w.expect_line(child), w.expect_line(child));
    // The process is gone before its last words are read; the last of them has no line end.
    let words = format!("{}\n{}", result(&first.id(), r#""a""#), result(&second.id(), r#""b""#));
    w.exited(child, Exit::Code(0));
    w.out_mut(Pipe::ChildStdout(child)).buffer.extend_from_slice(words.as_bytes());
    w.out_mut(Pipe::ChildStdout(child)).eof = true;
    w.out_mut(Pipe::ChildStderr(child)).eof = true;
    w.settle();
    assert_eq!(w.expect_json(one), result("1", r#""a""#));
    assert_eq!(w.expect_json(two), result("2", r#""b""#));
    w.shake("2025-06-18");
    w.ignore_rest();
    w.finish();
}

#[test]
fn a_grandchild_that_holds_the_pipes_does_not_hold_up_the_restart() {
    let mut w = World::new(config());
    w.expect_child();
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("1"));
    w.expect_line(child);
    w.exited(child, Exit::Code(1));
    w.advance(millis(500));
    let answer = w.expect_json(exchange);
    assert!(answer.contains("exited with status 1"), "{answer}");
    assert!(w.children[&child].stdout.dropped && w.children[&child].stderr.dropped);
    w.expect_child();
    w.shake("2025-06-18");
    w.ignore_rest();
    w.finish();
}

#[test]
fn crashes_in_a_row_are_answered_ever_more_slowly() {
    let mut w = World::new(config());
    let mut child = w.expect_child();
    let mut waits = Vec::new();
    for _ in 0..20 {
        w.exit(child, Exit::Code(1));
        let (wait, next) =
            if w.children.len() as u64 > child.0 { (millis(0), w.expect_child()) } else { wait_for_child(&mut w) };
        waits.push(wait.as_millis());
        child = next;
    }
    let mut expected = vec![0, 250, 500, 1000, 2000, 4000, 8000, 16_000];
    expected.resize(20, 30_000);
    assert_eq!(waits, expected);

    // An answered call shows that it works again.
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    w.exit(child, Exit::Code(1));
    w.expect_child();
    w.shake("2025-06-18");
    w.ignore_rest();
    w.finish();
}

#[test]
fn a_server_that_was_up_for_long_is_restarted_at_once() {
    let mut w = World::new(config());
    w.expect_child();
    let (_, mut child) = w.connect("2025-06-18", "{}");
    for _ in 0..5 {
        w.advance(secs(10));
        w.exit(child, Exit::Code(1));
        child = w.expect_child();
        w.shake("2025-06-18");
        w.expect_method(child, "notifications/initialized");
    }
    w.finish();
}

#[test]
fn a_program_that_cannot_be_started_is_named_with_advice() {
    let cases = [
        (ErrorKind::NotFound, "--pass-environment"),
        (ErrorKind::PermissionDenied, "permission denied"),
        (ErrorKind::OutOfMemory, "out of memory"),
    ];
    for (kind, advice) in cases {
        let mut config = config();
        config.servers[0].prestart = false;
        let mut w = World::new(config);
        w.auto_spawn = false;
        let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
        let child = w.expect_child();
        w.spawn_failed(child, kind);
        let response = w.expect_respond(exchange);
        let body = text(&response);
        assert!(body.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"#), "{body}");
        assert!(body.contains(r#"cannot start \"server\""#) && body.contains(advice), "{body}");
        assert_eq!(response.headers.get("mcp-session-id"), None);
        assert_eq!((w.stats().sessions, w.stats().links), (0, 0));
        w.finish();
    }
}

#[test]
fn a_server_that_does_not_shake_hands_is_given_up_after_two_minutes() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    w.expect_line(child);
    w.advance(secs(15));
    w.expect_stream(exchange);
    w.advance(millis(104_999));
    w.expect_silence(exchange);
    w.advance(millis(1));
    let answer = w.expect_message(exchange);
    assert!(answer.contains("did not answer initialize within 120 s"), "{answer}");
    w.expect_end(exchange);
    assert!(w.is_stdin_closed(child));
    assert_eq!(w.stats().sessions, 0);
    w.exit(child, Exit::Code(0));
    w.finish();
}

#[test]
fn a_refused_initialize_is_passed_on_and_leaves_no_session() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let exchange = w.post(&Client::new(), &hello(r#""i""#, "2025-06-18", "{}"));
    let line = w.expect_line(child);
    let error = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"no","data":{{"supported":[]}}}}}}"#)
    };
    w.child_says(child, &error(&line.id()));
    // It may be a server of the newest revision, which has no `initialize`.
    let probe = w.expect_line(child);
    assert!(probe.contains(r#""method":"server/discover""#), "{probe:?}");
    w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"?"}}}}"#, probe.id()));
    let response = w.expect_respond(exchange);
    assert_eq!(text(&response), error(r#""i""#));
    assert_eq!(response.headers.get("mcp-session-id"), None);
    assert_eq!(w.stats().sessions, 0);
    assert!(w.is_stdin_closed(child));
    w.exit(child, Exit::Code(0));
    w.finish();
}

#[test]
fn an_initialize_answer_that_is_no_message_fails_the_handshake_at_once() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let line = w.expect_line(child);
    w.child_says(child, &format!(r#"{{"jsonrpc":"1.0","id":{},"result":{{}}}}"#, line.id()));
    let answer = w.expect_json(exchange);
    assert!(answer.contains(r#""id":1,"error""#), "{answer}");
    w.finish();
}

#[test]
fn a_process_is_stopped_by_its_stdin_then_by_term_then_by_kill() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let deleted = w.delete(&client);
    assert_eq!(w.expect_respond(deleted).status, 200);
    assert!(w.is_stdin_closed(child));
    w.advance(millis(999));
    assert_eq!(w.signals(child), []);
    w.advance(millis(1));
    assert_eq!(w.signals(child), [Signal::Term]);
    w.advance(millis(1499));
    assert_eq!(w.signals(child), [Signal::Term]);
    w.advance(millis(1));
    assert_eq!(w.signals(child), [Signal::Term, Signal::Kill]);
    w.advance(secs(60));
    assert_eq!(w.signals(child), [Signal::Term, Signal::Kill]);
    w.exit(child, Exit::Signal(9));
    assert_eq!(w.stats().children, 0);
    w.finish();
}

#[test]
fn a_server_that_closes_a_pipe_is_stopped_and_started_again() {
    let mut w = World::new(config());
    let first = w.expect_child();
    let (client, _) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("1"));
    w.expect_line(first);
    w.out_mut(Pipe::ChildStdout(first)).eof = true;
    w.settle();
    assert!(w.is_stdin_closed(first));
    w.exit(first, Exit::Code(0));
    assert!(w.expect_json(exchange).contains("exited with status 0"));
    let second = w.expect_child();
    w.shake("2025-06-18");
    w.expect_method(second, "notifications/initialized");
    // The other pipe, with a write under way.
    let exchange = w.post(&client, &call("1"));
    w.pipe_ends(Pipe::ChildStdin(second), Some(ErrorKind::BrokenPipe));
    w.exit(second, Exit::Code(0));
    assert!(w.expect_json(exchange).contains("exited with status 0"));
    w.finish();
}

/// A dedicated session with one call in flight.
fn busy() -> (World, ChildId, Line, ExchangeId) {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", r#"{"roots":{}}"#);
    let exchange = w.post(&client, &call("7"));
    let line = w.expect_line(child);
    (w, child, line, exchange)
}

#[test]
fn at_a_shutdown_a_call_in_flight_may_finish() {
    let (mut w, child, line, exchange) = busy();
    w.shutdown();
    let refused = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    w.expect_refused(refused, 503, -32000);
    w.advance(millis(999));
    assert!(!w.is_stdin_closed(child));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("7", "{}"));
    assert!(w.is_stdin_closed(child));
    w.finish_from_here();
}

#[test]
fn at_a_shutdown_a_call_that_does_not_finish_is_answered_by_an_error() {
    let (mut w, child, _, exchange) = busy();
    w.shutdown();
    w.advance(secs(1));
    let answer = w.expect_json(exchange);
    assert!(answer.contains(r#""id":7,"error":{"code":-32603,"#) && answer.contains("stopping"), "{answer}");
    assert!(w.is_stdin_closed(child));
    w.advance(millis(2500));
    assert_eq!(w.signals(child), [Signal::Term, Signal::Kill]);
    w.finish_from_here();
}

#[test]
fn a_second_shutdown_kills_at_once() {
    let (mut w, child, _, exchange) = busy();
    w.shutdown();
    w.shutdown();
    assert_eq!(w.signals(child), [Signal::Kill]);
    assert!(w.expect_json(exchange).contains("stopping"));
    w.finish_from_here();
}

#[test]
fn a_child_that_starts_during_a_shutdown_is_stopped_too() {
    for urgent in [false, true] {
        let mut w = World::new(config());
        w.auto_spawn = false;
        let child = w.expect_child();
        w.shutdown();
        if urgent {
            w.shutdown();
        }
        w.spawned(child);
        assert!(w.is_stdin_closed(child) || w.signals(child) == [Signal::Kill], "nothing tells it to end");
        w.finish_from_here();
    }
}

#[test]
fn a_child_that_starts_late_in_a_shutdown_is_not_left_behind() {
    let mut w = World::new(config());
    w.auto_spawn = false;
    let child = w.expect_child();
    w.shutdown();
    w.advance(secs(3));
    w.spawned(child);
    // The child ignores its stdin and SIGTERM; the world asserts that no child outlives `Done` without a SIGKILL.
    w.advance(secs(10));
    assert!(w.done);
}

#[test]
fn an_engine_without_anything_to_do_ends_at_once() {
    let mut config = config();
    config.servers[0].prestart = false;
    let mut w = World::new(config);
    w.expect_no_child();
    assert_eq!(w.until, None);
    w.shutdown();
    assert!(w.done);
    w.finish();
}
