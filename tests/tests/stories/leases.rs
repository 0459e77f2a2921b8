//! Which calls of modern clients share a process of a legacy server. Nothing that such a server says on stdio names the call
//! that it asks about, so no two calls that may be asked something run on one process.

use mcp_proxy_tests::sim::*;

use super::questions::{
    CALL, FORM, GATHER, asked, begin, begin_asked, expect_cancelled, expect_refusal, key, question, retry,
};

#[test]
fn two_calls_at_once_that_may_ask_have_two_processes_and_one_after_the_other_share_one() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (first, one, line_one) = begin(&mut w, &client);
    let second = w.ask(&client, "1", "tools/call", CALL);
    let two = w.greeted("{}");
    w.listed("[]");
    let line_two = w.expect_method(two, "tools/call");
    assert_ne!(one, two);
    w.child_says(two, &question("5", "two"));
    w.child_says(one, &question("5", "one"));
    w.advance(GATHER);
    let mut states = Vec::new();
    for (exchange, text) in [(first, "one"), (second, "two")] {
        let answer = w.expect_json(exchange);
        let (questions, state) = asked(&answer, "1");
        states.push((key(&questions, text), state));
    }
    // The one's answer with the other's state belongs to neither.
    let crossed = retry(&mut w, &client, "2", &states[0].1, &[(&states[1].0, "{}")]);
    let answer = w.expect_json(crossed);
    let (questions, state) = asked(&answer, "2");
    assert_eq!(key(&questions, "one"), states[0].0);
    w.expect_no_line(one);
    w.expect_no_line(two);
    for (child, line, key, state) in
        [(one, line_one, &states[0].0, &state), (two, line_two, &states[1].0, &states[1].1)]
    {
        let exchange = retry(&mut w, &client, "3", state, &[(key, "{}")]);
        assert_eq!(*w.expect_line(child), result("5", "{}"));
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), complete("3", ""));
    }
    for _ in 0..3 {
        let exchange = w.ask(&client, "4", "tools/call", CALL);
        let (child, line) = w.expect_reader("tools/call");
        w.answer(child, &line, "{}");
        assert_eq!(w.expect_json(exchange), complete("4", ""));
    }
    assert_eq!(w.stats().children, 2);
    w.finish();
}

#[test]
fn a_parked_call_keeps_its_process_to_itself() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (one, line, key, state) = begin_asked(&mut w, &client);
    let exchange = w.ask(&client, "1", "tools/call", CALL);
    let two = w.greeted("{}");
    w.listed("[]");
    assert_ne!(one, two);
    let other = w.expect_method(two, "tools/call");
    w.answer(two, &other, "{}");
    w.expect_json(exchange);
    // What can ask nothing may share.
    let exchange = w.ask(&client, "2", "prompts/list", "");
    let list = w.expect_reader("prompts/list");
    w.answer(list.0, &list.1, r#"{"prompts":[]}"#);
    w.expect_json(exchange);
    let exchange = retry(&mut w, &client, "3", &state, &[(&key, "{}")]);
    assert_eq!(*w.expect_line(one), result("5", "{}"));
    w.answer(one, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));
    assert_eq!(w.stats().children, 2);
    w.finish();
}

#[test]
fn a_client_that_can_be_asked_nothing_is_not_taken_for_one_that_can_be_asked_everything() {
    let mut w = World::new(eras());
    let willing = Modern::new(r#"{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#);
    let (first, one, line) = begin(&mut w, &willing);
    let second = w.ask(&Modern::new("{}"), "1", "tools/call", CALL);
    let two = w.greeted("{}");
    w.listed("[]");
    let other = w.expect_method(two, "tools/call");
    w.child_says(one, &question("5", "q"));
    w.advance(GATHER);
    let answer = w.expect_json(first);
    let (questions, state) = asked(&answer, "1");
    w.answer(two, &other, "{}");
    w.expect_json(second);
    let first = retry(&mut w, &willing, "2", &state, &[(&key(&questions, "q"), "{}")]);
    assert_eq!(*w.expect_line(one), result("5", "{}"));
    w.answer(one, &line, "{}");
    w.expect_json(first);
    w.finish();
}

#[test]
fn without_room_for_another_process_a_question_that_may_be_for_either_is_refused() {
    let mut config = eras();
    config.limits.max_children = 1;
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    let (first, child, line) = begin(&mut w, &client);
    let second = w.ask(&client, "2", "tools/call", CALL);
    let other = w.expect_method(child, "tools/call");
    w.child_says(child, &question("5", "q"));
    expect_refusal(&mut w, child, "5", -32601);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(first), complete("1", ""));
    // Now it can only be for the other.
    w.child_says(child, &question("6", "q"));
    w.advance(GATHER);
    let answer = w.expect_json(second);
    let (questions, state) = asked(&answer, "2");
    let second = retry(&mut w, &client, "3", &state, &[(&key(&questions, "q"), "{}")]);
    assert_eq!(*w.expect_line(child), result("6", "{}"));
    w.answer(child, &other, "{}");
    assert_eq!(w.expect_json(second), complete("3", ""));
    w.finish();
}

#[test]
fn only_so_many_calls_wait_for_their_clients() {
    let mut config = eras();
    config.limits.max_sessions = 1;
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    let (one, line, parked, state) = begin_asked(&mut w, &client);
    let exchange = w.ask(&client, "2", "tools/call", CALL);
    let two = w.greeted("{}");
    w.listed("[]");
    let other = w.expect_method(two, "tools/call");
    w.child_says(two, &question("5", "q"));
    w.advance(GATHER);
    w.expect_refused(exchange, 503, -32000);
    let mut said = [w.expect_line(two), w.expect_line(two)];
    said.sort_by_key(|line| line.method());
    assert_eq!((said[0].id(), said[1].id()), ("5".into(), other.id()), "both are told: {said:?}");
    // That one's process is free again.
    w.refuse(two, &other, -1);
    let exchange = w.ask(&client, "3", "tools/call", CALL);
    assert_eq!(w.stats().children, 2);
    let again = w.expect_method(two, "tools/call");
    w.answer(two, &again, "{}");
    w.expect_json(exchange);
    let exchange = retry(&mut w, &client, "4", &state, &[(&parked, "{}")]);
    assert_eq!(*w.expect_line(one), result("5", "{}"));
    w.answer(one, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("4", ""));
    w.finish();
}

#[test]
fn a_process_that_may_still_ask_about_a_cancelled_call_is_given_to_no_other_call_that_may_be_asked() {
    let mut config = eras();
    config.timeouts.request = secs(700);
    config.timeouts.child_idle = secs(7200);
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    let (exchange, one, line) = begin(&mut w, &client);
    w.close_client(exchange);
    expect_cancelled(&mut w, one, &line);
    let second = w.ask(&client, "1", "tools/call", CALL);
    let two = w.greeted("{}");
    w.listed("[]");
    let other = w.expect_method(two, "tools/call");
    w.child_says(one, &question("5", "late"));
    expect_refusal(&mut w, one, "5", -32601);
    w.advance(GATHER);
    w.expect_silence(second);
    w.answer(two, &other, "{}");
    w.expect_json(second);
    w.advance(secs(700));
    let exchange = w.ask(&client, "2", "tools/call", CALL);
    let line = w.expect_method(one, "tools/call");
    w.answer(one, &line, "{}");
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn after_a_question_that_could_not_be_asked_the_process_is_free_again() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (exchange, child, line) = begin(&mut w, &client);
    w.child_says(child, r#"{"jsonrpc":"2.0","id":5,"method":"roots/list"}"#);
    w.expect_refused(exchange, 400, -32021);
    expect_refusal(&mut w, child, "5", -32601);
    expect_cancelled(&mut w, child, &line);
    w.refuse(child, &line, -1);
    let exchange = w.ask(&client, "2", "tools/call", CALL);
    assert_eq!(w.stats().children, 1);
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn a_question_is_about_the_call_and_not_about_a_list_that_is_under_way() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (exchange, child, line) = begin(&mut w, &client);
    let list = w.ask(&client, "2", "prompts/list", "");
    let other = w.expect_method(child, "prompts/list");
    w.child_says(child, &question("5", "q"));
    w.advance(GATHER);
    w.expect_silence(list);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    let exchange = retry(&mut w, &client, "3", &state, &[(&key(&questions, "q"), "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));
    w.answer(child, &other, "{}");
    w.expect_json(list);
    assert_eq!(w.stats().children, 1);
    w.finish();
}

#[test]
fn who_can_be_asked_nothing_is_introduced_as_one_that_can_and_shares_its_process() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"experimental":{"x":{}}}"#);
    let first = w.ask(&client, "1", "prompts/get", CALL);
    let (child, line) = w.expect_reader("server/discover");
    w.refuse(child, &line, -32601);
    let line = w.peek_line(child).unwrap();
    let declared = json(&line)["params"]["capabilities"].to_string();
    // So that its questions are heard, and answered with what the client lacks. Roots are asked for without need.
    let expected = r#"{"elicitation":{"form":{},"url":{}},"experimental":{"x":{}},"sampling":{}}"#;
    assert_eq!(json(&declared), json(expected));
    w.greeted("{}");
    let one = w.expect_method(child, "prompts/get");
    let second = w.ask(&client, "2", "prompts/get", CALL);
    let two = w.expect_method(child, "prompts/get");
    // Nobody knows which of them is meant, and neither can be asked.
    w.child_says(child, &question("5", "q"));
    expect_refusal(&mut w, child, "5", -32601);
    for (exchange, line) in [(first, one), (second, two)] {
        w.answer(child, &line, "{}");
        w.expect_json(exchange);
    }
    w.finish();
}
