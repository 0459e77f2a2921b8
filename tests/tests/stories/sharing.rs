//! Which clients share a process, and that they do not notice.

use mcp_proxy_engine::{Exit, SessionMode};
use mcp_proxy_tests::sim::*;

#[test]
fn clients_that_look_alike_share_a_process_and_equal_ids_do_not_cross() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, same) = w.connect("2025-06-18", "{}");
    assert_eq!(child, same);
    assert_ne!(one.session, two.session);
    let (first, second) = (w.post(&one, &call("1")), w.post(&two, &call("1")));
    let lines = [w.expect_line(child), w.expect_line(child)];
    assert_ne!(lines[0].id(), lines[1].id());
    w.answer(child, &lines[1], r#""two""#);
    w.answer(child, &lines[0], r#""one""#);
    assert_eq!(w.expect_json(first), result("1", r#""one""#));
    assert_eq!(w.expect_json(second), result("1", r#""two""#));
    assert_eq!((w.stats().sessions, w.stats().children), (2, 1));
    w.finish();
}

#[test]
fn a_second_client_is_welcomed_with_the_answer_to_the_first() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let client = Client::new();
    // Two come before the handshake is done, one after.
    let (one, two) =
        (w.post(&client, &hello("1", "2025-06-18", "{}")), w.post(&client, &hello(r#""2""#, "2025-06-18", "{}")));
    let line = w.expect_line(child);
    w.expect_no_line(child);
    w.answer(child, &line, r#"{"protocolVersion":"2025-06-18","instructions":"x"}"#);
    let three = w.post(&client, &hello("3", "2025-06-18", "{}"));
    for (exchange, id) in [(one, "1"), (two, r#""2""#), (three, "3")] {
        let expected = result(id, r#"{"protocolVersion":"2025-06-18","instructions":"x"}"#);
        assert_eq!(w.expect_json(exchange), expected);
    }
    assert_eq!(w.stats().sessions, 3);
    w.finish();
}

#[test]
fn another_revision_or_other_capabilities_mean_another_process() {
    let mut w = World::new(config());
    let mut children = Vec::new();
    for (revision, capabilities) in [
        ("2025-06-18", "{}"),
        ("2025-11-25", "{}"),
        ("2025-11-25", r#"{"experimental":{}}"#),
        ("2025-11-25", r#"{"roots":{}}"#),
        ("2025-11-25", r#"{"roots":{}}"#),
        ("2025-11-25", r#"{"sampling":{}}"#),
        ("2025-11-25", r#"{"elicitation":{}}"#),
        ("2025-11-25", r#"{"\u0072oots":{}}"#),
    ] {
        let (_, child) = w.connect(revision, capabilities);
        assert!(!children.contains(&child), "{revision} {capabilities} shares a process");
        children.push(child);
    }
    let (_, child) = w.connect("2025-11-25", "{}");
    assert_eq!(w.stats().children, 8);
    assert!(children.contains(&child) || w.children.len() == 8);
    w.finish();
}

#[test]
fn per_session_every_client_has_its_own_process_that_ends_with_it() {
    let mut config = config();
    config.servers[0].sessions = SessionMode::PerSession;
    let mut w = World::new(config);
    let (one, first) = w.connect("2025-06-18", "{}");
    let (_, second) = w.connect("2025-06-18", "{}");
    assert_ne!(first, second);
    let deleted = w.delete(&one);
    assert_eq!(w.expect_respond(deleted).status, 200);
    assert!(w.is_stdin_closed(first) && !w.is_stdin_closed(second));
    w.exit(first, Exit::Code(0));
    w.finish();
}

#[test]
fn a_shared_process_outlives_its_sessions_for_a_while_and_the_last_one_for_good() {
    let mut w = World::new(config());
    let (one, first) = w.connect("2025-06-18", "{}");
    let (two, second) = w.connect("2025-11-25", "{}");
    for client in [&one, &two] {
        let deleted = w.delete(client);
        assert_eq!(w.expect_respond(deleted).status, 200);
        w.advance(secs(1));
    }
    w.advance(secs(297));
    assert!(!w.is_stdin_closed(first));
    w.advance(secs(1));
    assert!(w.is_stdin_closed(first));
    w.exit(first, Exit::Code(0));
    w.advance(secs(3600));
    assert!(!w.is_stdin_closed(second));
    let (_, again) = w.connect("2025-11-25", "{}");
    assert_eq!(again, second);
    w.finish();
}

#[test]
fn a_client_that_left_before_the_handshake_leaves_no_session() {
    let mut w = World::new(config());
    let child = w.expect_child();
    let exchange = w.post(&Client::new(), &hello("1", "2025-06-18", "{}"));
    let line = w.expect_line(child);
    w.close_client(exchange);
    w.answer(child, &line, r#"{"protocolVersion":"2025-06-18"}"#);
    assert_eq!(w.stats().sessions, 0);
    w.finish();
}

#[test]
fn a_client_that_left_after_the_answer_was_sent_keeps_its_session() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("1"));
    let line = w.expect_line(child);
    w.close_client(exchange);
    w.answer(child, &line, "{}");
    assert_eq!((w.stats().sessions, w.stats().calls), (1, 0));
    w.finish();
}
