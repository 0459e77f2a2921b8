//! Questions of legacy servers to modern clients: a call is parked, and goes on when its client comes back with the answer.

use std::time::Duration;

use mcp_proxy_engine::{ChildId, ExchangeId, Exit, FrontKind, Secret, Server};
use mcp_proxy_tests::sim::*;
use serde_json::{Map, Value, json as value};

/// A client that can fill in forms.
pub(super) const FORM: &str = r#"{"elicitation":{}}"#;
pub(super) const CALL: &str = r#""name":"t""#;
/// How long the proxy waits for further questions of one call.
pub(super) const GATHER: Duration = Duration::from_millis(10);

/// A question of the server.
pub(super) fn question(id: &str, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":"{text}"}}}}"#)
}

fn progress(token: &str, n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n}}}}}"#
    )
}

/// The first call of all: the server shows its era, is introduced and tells its tools.
pub(super) fn begin(w: &mut World, client: &Modern) -> (ExchangeId, ChildId, Line) {
    let exchange = w.ask(client, "1", "tools/call", CALL);
    let child = w.introduced("{}");
    w.listed("[]");
    let line = w.expect_method(child, "tools/call");
    (exchange, child, line)
}

/// A call that is asked one question. Its client has it now.
pub(super) fn begin_asked(w: &mut World, client: &Modern) -> (ChildId, Line, String, String) {
    let (exchange, child, line) = begin(w, client);
    w.child_says(child, &question("5", "q"));
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    (child, line, key(&questions, "q"), state)
}

/// The questions of an answer, and the state.
pub(super) fn asked(answer: &str, id: &str) -> (Map<String, Value>, String) {
    let said = json(answer);
    assert_eq!((said["id"].to_string().as_str(), &said["result"]["resultType"]), (id, &value!("input_required")));
    let questions = said["result"]["inputRequests"].as_object().expect("questions").clone();
    (questions, said["result"]["requestState"].as_str().expect("a state").to_owned())
}

/// The name of the question with this text.
pub(super) fn key(questions: &Map<String, Value>, text: &str) -> String {
    let mine = questions.iter().find(|(_, question)| question["params"]["message"] == text);
    mine.unwrap_or_else(|| panic!("nobody asked {text}: {questions:?}")).0.clone()
}

/// What a client brings back.
pub(super) fn with_answers(state: &str, answers: &[(&str, &str)]) -> String {
    let answers: Vec<_> = answers.iter().map(|(key, answer)| format!(r#""{key}":{answer}"#)).collect();
    format!(r#"{CALL},"inputResponses":{{{}}},"requestState":"{state}""#, answers.join(","))
}

pub(super) fn retry(w: &mut World, client: &Modern, id: &str, state: &str, answers: &[(&str, &str)]) -> ExchangeId {
    w.ask(client, id, "tools/call", &with_answers(state, answers))
}

/// The error that a server's question is answered with.
pub(super) fn expect_refusal(w: &mut World, child: ChildId, id: &str, code: i32) {
    let line = json(&w.expect_line(child));
    assert_eq!((line["id"].to_string().as_str(), &line["error"]["code"]), (id, &value!(code)), "{line}");
}

pub(super) fn expect_cancelled(w: &mut World, child: ChildId, call: &Line) {
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), call.id());
}

// ---- one call, its questions and its answer ----

#[test]
fn a_question_becomes_a_result_and_the_retry_its_answer() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (exchange, child, line) = begin(&mut w, &client);
    w.child_says(
        child,
        r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"m","requestedSchema":{"type":"object"},"_meta":{"progressToken":1,"x":2}}}"#,
    );
    w.expect_silence(exchange);
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    assert_eq!(json(&answer)["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "s");
    let params = value!({"message": "m", "requestedSchema": {"type": "object"}, "_meta": {"x": 2}});
    assert_eq!(
        questions.values().collect::<Vec<_>>(),
        [&value!({"method": "elicitation/create", "params": params})],
        "a client that cannot say how far it is gets no token"
    );
    assert_eq!((w.stats().calls, w.stats().questions, w.stats().exchanges), (1, 1, 0));
    w.expect_no_line(child);

    let key = questions.keys().next().unwrap();
    let exchange = retry(&mut w, &client, r#""two""#, &state, &[(key, r#"{"action":"accept","content":{"a":1}}"#)]);
    assert_eq!(*w.expect_line(child), result(r#""q""#, r#"{"action":"accept","content":{"a":1}}"#));
    w.expect_silence(exchange);
    w.answer(child, &line, r#"{"content":[]}"#);
    assert_eq!(w.expect_json(exchange), complete(r#""two""#, r#""content":[]"#));
    assert_eq!((w.stats().calls, w.stats().questions, w.stats().sessions), (0, 0, 0));
    w.finish();
}

#[test]
fn a_url_to_visit_has_no_name_of_its_own_any_more() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"elicitation":{"url":{}}}"#);
    let (exchange, child, line) = begin(&mut w, &client);
    w.child_says(
        child,
        r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"mode":"url","elicitationId":"e","url":"https://a","message":"m"}}"#,
    );
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    let key = key(&questions, "m");
    assert_eq!(questions[&key]["params"], value!({"mode": "url", "url": "https://a", "message": "m"}));
    // That it was visited is told by a notification that is gone, too.
    w.child_says(
        child,
        r#"{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{"elicitationId":"e"}}"#,
    );
    let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn questions_that_come_together_are_asked_together() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"elicitation":{},"sampling":{},"roots":{}}"#);
    let (exchange, child, line) = begin(&mut w, &client);
    w.child_says(child, &question("5", "one"));
    w.advance(millis(9));
    w.child_says(child, r#"{"jsonrpc":"2.0","id":6,"method":"sampling/createMessage","params":{"message":"two"}}"#);
    w.child_says(child, r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#);
    w.expect_silence(exchange);
    w.advance(millis(1));
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    assert_eq!(questions.len(), 3);
    let roots = questions.iter().find(|(_, question)| question["method"] == "roots/list").unwrap();
    assert_eq!(*roots.1, value!({"method": "roots/list"}));
    let (one, two) = (key(&questions, "one"), key(&questions, "two"));
    let answers = [(&*two, r#"{"n":2}"#), (roots.0, r#"{"roots":[]}"#), (&*one, r#"{"n":1}"#)];
    let exchange = retry(&mut w, &client, "2", &state, &answers);
    let mut lines: Vec<String> = (0..3).map(|_| w.expect_line(child).0).collect();
    lines.sort();
    assert_eq!(lines, [result("5", r#"{"n":1}"#), result("6", r#"{"n":2}"#), result("7", r#"{"roots":[]}"#)]);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn what_was_not_answered_is_asked_again_and_what_was_not_asked_is_ignored() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (exchange, child, line) = begin(&mut w, &client);
    for (id, text) in [("5", "one"), ("6", "two")] {
        w.child_says(child, &question(id, text));
    }
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, first) = asked(&answer, "1");
    let (one, two) = (key(&questions, "one"), key(&questions, "two"));
    // What is no object is no answer.
    let exchange = retry(&mut w, &client, "2", &first, &[(&one, "null"), (&two, "[]"), ("other", "{}")]);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "2");
    assert_eq!(questions.len(), 2, "both are asked again");
    w.expect_no_line(child);
    let exchange = retry(&mut w, &client, "3", &first, &[(&one, "{}"), (&two, "{}")]);
    w.expect_refused(exchange, 200, -32602);
    let exchange = retry(&mut w, &client, "4", &state, &[("other", r#"{"n":0}"#), (&two, r#"{"n":2}"#)]);
    assert_eq!(*w.expect_line(child), result("6", r#"{"n":2}"#));
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "4");
    assert_eq!(questions.keys().collect::<Vec<_>>(), [&one]);
    let exchange = retry(&mut w, &client, "5", &state, &[(&two, r#"{"n":9}"#), (&one, r#"{"n":1}"#)]);
    assert_eq!(*w.expect_line(child), result("5", r#"{"n":1}"#));
    w.expect_no_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("5", ""));
    w.finish();
}

#[test]
fn a_call_may_ask_once_more_after_an_answer() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, line, first, state) = begin_asked(&mut w, &client);
    let exchange = retry(&mut w, &client, "2", &state, &[(&first, "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.child_says(child, &question("5", "again, under the same id"));
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, next) = asked(&answer, "2");
    let second = key(&questions, "again, under the same id");
    assert_ne!((&first, &state), (&second, &next));
    let old = retry(&mut w, &client, "3", &state, &[(&second, "{}")]);
    w.expect_refused(old, 200, -32602);
    let exchange = retry(&mut w, &client, "4", &next, &[(&first, r#"{"n":1}"#), (&second, r#"{"n":2}"#)]);
    assert_eq!(*w.expect_line(child), result("5", r#"{"n":2}"#));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("4", ""));
    w.finish();
}

#[test]
fn a_question_after_progress_ends_the_stream_and_later_progress_comes_on_the_new_one() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM).meta("progressToken", r#""first""#);
    let (exchange, child, line) = begin(&mut w, &client);
    w.child_says(child, &progress(&line.id(), 1));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), progress(r#""first""#, 1));
    w.child_says(child, &question("5", "q"));
    w.advance(GATHER);
    let answer = w.expect_message(exchange);
    let (questions, state) = asked(&answer, "1");
    w.expect_end(exchange);
    // Nobody hears this: no stream of the client is open.
    w.child_says(child, &progress(&line.id(), 2));
    let client = Modern::new(FORM).meta("progressToken", "2");
    let exchange = retry(&mut w, &client, "2", &state, &[(&key(&questions, "q"), "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.child_says(child, &progress(&line.id(), 3));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), progress("2", 3));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), complete("2", ""));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn prompts_and_resources_may_ask_too_and_nothing_else_may() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (exchange, child, line) = begin(&mut w, &client);
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    for (method, params, may) in [
        ("prompts/get", r#""name":"p""#, true),
        ("resources/read", r#""uri":"file:///a""#, true),
        ("tools/list", "", false),
        ("completion/complete", r#""ref":{}"#, false),
    ] {
        let exchange = w.ask(&client, "1", method, params);
        let line = w.expect_method(child, method);
        w.child_says(child, &question("5", "q"));
        w.advance(GATHER);
        if may {
            let answer = w.expect_json(exchange);
            let (questions, state) = asked(&answer, "1");
            let answers = format!(
                r#"{params},"inputResponses":{{"{}":{{"n":1}}}},"requestState":"{state}""#,
                key(&questions, "q")
            );
            let exchange = w.ask(&client, "2", method, &answers);
            assert_eq!(*w.expect_line(child), result("5", r#"{"n":1}"#));
            w.answer(child, &line, "{}");
            assert!(w.expect_json(exchange).contains(r#""id":2,"result":{"resultType":"complete""#));
        } else {
            expect_refusal(&mut w, child, "5", -32601);
            w.answer(child, &line, "{}");
            w.expect_json(exchange);
        }
    }
    // Outside of any call there is nobody to ask.
    w.child_says(child, &question("6", "q"));
    expect_refusal(&mut w, child, "6", -32601);
    w.child_says(child, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    assert_eq!(*w.expect_line(child), result(r#""p""#, "{}"));
    w.finish();
}

#[test]
fn a_question_that_the_server_takes_back_at_once_is_not_asked() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (exchange, child, line) = begin(&mut w, &client);
    w.child_says(child, &question("5", "q"));
    w.child_says(child, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#);
    w.advance(secs(1));
    w.expect_silence(exchange);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("1", ""));
    w.finish();
}

#[test]
fn a_question_that_the_server_takes_back_later_needs_no_answer() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, line, key, state) = begin_asked(&mut w, &client);
    w.child_says(child, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#);
    assert_eq!(w.stats().questions, 0);
    let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    w.expect_no_line(child);
    w.expect_silence(exchange);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn an_answer_that_comes_while_the_client_is_away_is_kept_for_it() {
    for error in [false, true] {
        let mut w = World::new(eras());
        let client = Modern::new(FORM);
        let (child, line, key, state) = begin_asked(&mut w, &client);
        if error {
            w.refuse(child, &line, -32601);
        } else {
            w.answer(child, &line, "{}");
        }
        let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
        if error {
            w.expect_refused(exchange, 404, -32601);
        } else {
            assert_eq!(w.expect_json(exchange), complete("2", ""));
        }
        w.ignore_rest();
        assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
        w.finish();
    }
}

#[test]
fn a_server_that_dies_while_the_client_is_away_fails_the_call() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, _, key, state) = begin_asked(&mut w, &client);
    w.exit(child, Exit::Code(1));
    assert_eq!(w.stats().questions, 0);
    let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    assert!(w.expect_refused(exchange, 200, -32603).contains(r#""id":2,"#));
    w.ignore_rest();
    w.finish();
}

#[test]
fn a_call_that_is_out_of_time_while_the_client_is_away_says_so_when_it_comes() {
    let mut config = eras();
    config.timeouts.request = secs(60);
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    let (child, line, key, state) = begin_asked(&mut w, &client);
    w.advance(secs(60));
    expect_cancelled(&mut w, child, &line);
    expect_refusal(&mut w, child, "5", -32001);
    let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    w.expect_refused(exchange, 200, -32001);
    w.finish();
}

// ---- clients that do not come back, or come back too often ----

#[test]
fn a_client_that_never_comes_back_is_given_up_after_ten_minutes() {
    let mut config = eras();
    config.timeouts.request = secs(700);
    config.timeouts.child_idle = secs(7200);
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    let (child, line, key, state) = begin_asked(&mut w, &client);
    w.advance(secs(599));
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().questions), (1, 1));
    w.advance(secs(1));
    expect_cancelled(&mut w, child, &line);
    expect_refusal(&mut w, child, "5", -32603);
    assert_eq!((w.stats().calls, w.stats().questions, w.stats().sessions), (0, 0, 0));
    let late = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    assert!(w.expect_refused(late, 200, -32602).contains("begin again without it"));
    w.advance(secs(1));
    let late = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    assert!(w.expect_refused(late, 200, -32602).contains("expired"));
    // The server may still have a question about the call, but not for ever. Then the process is free for the next one.
    w.advance(secs(700));
    let exchange = w.ask(&client, "3", "tools/call", CALL);
    let line = w.expect_method(child, "tools/call");
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn a_client_that_comes_back_twice_gets_one_answer_and_one_error() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, line, key, state) = begin_asked(&mut w, &client);
    let first = retry(&mut w, &client, "2", &state, &[(&key, r#"{"n":1}"#)]);
    let second = retry(&mut w, &client, "3", &state, &[(&key, r#"{"n":2}"#)]);
    assert!(w.expect_refused(second, 200, -32602).contains("used already"));
    assert_eq!(*w.expect_line(child), result("5", r#"{"n":1}"#));
    w.expect_no_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(first), complete("2", ""));
    let third = retry(&mut w, &client, "4", &state, &[(&key, r#"{"n":3}"#)]);
    assert!(w.expect_refused(third, 200, -32602).contains("used already"));
    w.finish();
}

#[test]
fn a_client_that_hangs_up_after_it_came_back_cancels_the_call() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, line, key, state) = begin_asked(&mut w, &client);
    let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.close_client(exchange);
    expect_cancelled(&mut w, child, &line);
    w.child_says(child, &question("6", "q"));
    expect_refusal(&mut w, child, "6", -32601);
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0));
    w.finish();
}

#[test]
fn a_client_that_hangs_up_before_it_was_asked_is_not_waited_for() {
    let mut w = World::new(eras());
    let (exchange, child, line) = begin(&mut w, &Modern::new(FORM));
    w.child_says(child, &question("5", "q"));
    w.close_client(exchange);
    expect_cancelled(&mut w, child, &line);
    expect_refusal(&mut w, child, "5", -32603);
    w.advance(GATHER);
    assert_eq!((w.stats().calls, w.stats().questions, w.stats().sessions), (0, 0, 0));
    w.finish();
}

// ---- states that do not count ----

#[test]
fn a_state_counts_as_it_was_given_and_for_its_own_request_only() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, line, key, state) = begin_asked(&mut w, &client);
    let middle = if state.as_bytes()[60] == b'A' { "B" } else { "A" };
    let changed = format!("{}{middle}{}", &state[..60], &state[61..]);
    let own = |state: &str| format!(r#""inputResponses":{{"{key}":{{}}}},"requestState":"{state}""#);
    for (method, params, words) in [
        ("tools/call", format!(r#"{CALL},{}"#, own(&changed)), "was changed"),
        ("tools/call", format!(r#"{CALL},{}"#, own(&state[..state.len() - 1])), "was changed"),
        ("tools/call", format!(r#"{CALL},{}"#, own("something")), "not one that was given out here"),
        ("tools/call", format!(r#"{CALL},{}"#, own("")), "not one that was given out here"),
        ("tools/call", format!(r#"{CALL},"requestState":5"#), "must be a string"),
        ("tools/call", format!(r#"{CALL},"inputResponses":[],"requestState":"{state}""#), "must be an object"),
        ("tools/call", format!(r#""name":"other",{}"#, own(&state)), "another request"),
        ("tools/call", format!(r#"{CALL},"arguments":{{"a":1}},{}"#, own(&state)), "another request"),
        ("prompts/get", format!(r#"{CALL},{}"#, own(&state)), "another request"),
        ("tools/list", own(&state), "another request"),
    ] {
        let exchange = w.ask(&client, "2", method, &params);
        let refusal = w.expect_refused(exchange, 200, -32602);
        assert!(refusal.contains(words), "{params}: {refusal}");
        w.expect_no_line(child);
    }
    // None of them has used it up; and its spelling may be another one.
    let params = format!(r#""requestState":"\u006d{}","inputResponses":{{"{key}":{{}}}}, {CALL}"#, &state[1..]);
    let exchange = w.ask(&client, "2", "tools/call", &params);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("2", ""));
    w.finish();
}

#[test]
fn a_state_is_no_other_clients() {
    let mut config = eras();
    config.access.auth_tokens = vec![Secret::new("one".into()), Secret::new("two".into())];
    let mut w = World::new(config);
    let (mine, theirs) = (Modern::new(FORM).with("x-api-key", "one"), Modern::new(FORM).with("x-api-key", "two"));
    let (child, line, key, state) = begin_asked(&mut w, &mine);
    let exchange = retry(&mut w, &theirs, "2", &state, &[(&key, "{}")]);
    assert!(w.expect_refused(exchange, 200, -32602).contains("another client"));
    w.expect_no_line(child);
    let exchange = retry(&mut w, &mine, "3", &state, &[(&key, "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));
    w.finish();
}

#[test]
fn a_state_is_good_at_its_own_server_only() {
    let mut config = eras();
    config.servers.push(Server { name: "two".into(), ..config.servers[0].clone() });
    let mut w = World::new(config);
    let mine = Modern::new(FORM);
    let mut other = mine.clone();
    other.client.target = "/servers/two/mcp".into();
    let exchange = w.ask(&other, "0", "server/discover", "");
    w.introduced("{}");
    w.expect_json(exchange);
    let exchange = w.ask(&mine, "1", "tools/call", CALL);
    let child = w.introduced("{}");
    w.listed("[]");
    let line = w.expect_method(child, "tools/call");
    w.child_says(child, &question("5", "q"));
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    let key = key(&questions, "q");
    let exchange = retry(&mut w, &other, "2", &state, &[(&key, "{}")]);
    w.expect_refused(exchange, 200, -32602);
    w.expect_no_line(child);
    let exchange = retry(&mut w, &mine, "3", &state, &[(&key, "{}")]);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));
    w.finish();
}

#[test]
fn the_header_fields_of_a_retry_are_checked_too() {
    let mut w = World::new(eras());
    let tool = r#"[{"name":"t","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}]"#;
    let client = Modern::new(FORM);
    let good = client.clone().with("mcp-param-a", "x");
    let arguments = format!(r#"{CALL},"arguments":{{"a":"x"}}"#);
    let exchange = w.ask(&good, "1", "tools/call", &arguments);
    let child = w.introduced("{}");
    w.listed(tool);
    let line = w.expect_method(child, "tools/call");
    w.child_says(child, &question("5", "q"));
    w.advance(GATHER);
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    let answers = with_answers(&state, &[(&key(&questions, "q"), "{}")]).replace(CALL, &arguments);
    for bad in [client.clone(), client.with("mcp-param-a", "y")] {
        let exchange = w.ask(&bad, "2", "tools/call", &answers);
        w.expect_refused(exchange, 400, -32020);
        w.expect_no_line(child);
    }
    let exchange = w.ask(&good, "3", "tools/call", &answers);
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));
    w.finish();
}

#[test]
fn a_state_of_another_run_or_another_proxy_is_refused() {
    let mut w = World::new(eras());
    let client = Modern::new(FORM);
    let (child, _, key, state) = begin_asked(&mut w, &client);
    let mut later = eras();
    later.started = Some(secs(1_800_000_100));
    let mut other = eras();
    other.state_key = Some(Secret::new([8; 32]));
    let mut none = eras();
    none.state_key = None;
    for (config, words) in [(later, "another proxy"), (other, "another server"), (none, "not known here")] {
        let mut w = World::new(config);
        let exchange = retry(&mut w, &client, "2", &state, &[(&key, "{}")]);
        w.introduced("{}");
        w.listed("[]");
        let refusal = w.expect_refused(exchange, 200, -32602);
        assert!(refusal.contains(words), "{refusal}");
        w.finish();
    }
    w.exit(child, Exit::Code(0));
    w.ignore_rest();
    w.finish();
}

#[test]
fn without_a_key_nothing_can_be_asked() {
    let mut config = eras();
    config.state_key = None;
    let mut w = World::new(config);
    let (exchange, child, line) = begin(&mut w, &Modern::new(FORM));
    w.child_says(child, &question("5", "q"));
    expect_refusal(&mut w, child, "5", -32601);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("1", ""));
    w.finish();
}

// ---- clients that cannot be asked this ----

#[test]
fn what_the_client_has_not_declared_fails_the_call_and_nothing_hangs() {
    let sampling = r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{}}"#;
    let roots = r#"{"jsonrpc":"2.0","id":5,"method":"roots/list"}"#;
    let url = r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"mode":"url","url":"https://a"}}"#;
    let form = question("5", "q");
    for (capabilities, question, lacks) in [
        ("{}", &*form, r#"{"elicitation":{"form":{}}}"#),
        ("{}", sampling, r#"{"sampling":{}}"#),
        ("{}", roots, r#"{"roots":{}}"#),
        ("{}", url, r#"{"elicitation":{"url":{}}}"#),
        (FORM, sampling, r#"{"sampling":{}}"#),
        (FORM, url, r#"{"elicitation":{"url":{}}}"#),
        (r#"{"elicitation":{"url":{}}}"#, &*form, r#"{"elicitation":{"form":{}}}"#),
        (r#"{"roots":{},"sampling":{}}"#, &*form, r#"{"elicitation":{"form":{}}}"#),
    ] {
        let mut w = World::new(eras());
        let (exchange, child, line) = begin(&mut w, &Modern::new(capabilities));
        w.child_says(child, question);
        expect_refusal(&mut w, child, "5", -32601);
        expect_cancelled(&mut w, child, &line);
        let refusal = w.expect_refused(exchange, 400, -32021);
        assert!(refusal.contains(&format!(r#""data":{{"requiredCapabilities":{lacks}}}"#)), "{refusal}");
        assert!(refusal.contains(r#""id":1,"#), "{refusal}");
        w.answer(child, &line, "{}");
        assert_eq!((w.stats().calls, w.stats().questions, w.stats().sessions), (0, 0, 0));
        w.finish();
    }
}

#[test]
fn a_url_that_an_error_asks_for_is_asked_for_and_the_call_begins_anew() {
    let mut w = World::new(eras());
    let client = Modern::new(r#"{"elicitation":{"url":{}}}"#);
    let (exchange, child, line) = begin(&mut w, &client);
    let data = r#"{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://a","message":"m"}]}"#;
    let error = |line: &Line| {
        let error = format!(r#"{{"code":-32042,"message":"no","data":{data}}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, line.id())
    };
    w.child_says(child, &error(&line));
    let answer = w.expect_json(exchange);
    let (questions, state) = asked(&answer, "1");
    let params = value!({"mode": "url", "url": "https://a", "message": "m"});
    let key = key(&questions, "m");
    assert_eq!(questions[&key], value!({"method": "elicitation/create", "params": params}));
    assert_eq!((w.stats().calls, w.stats().sessions), (0, 0), "nothing waits for it");
    let other = w.ask(&client, "2", "tools/call", &with_answers(&state, &[]).replace(CALL, r#""name":"u""#));
    w.expect_refused(other, 200, -32602);
    let exchange = retry(&mut w, &client, "3", &state, &[(&key, r#"{"action":"accept"}"#)]);
    let line = w.expect_line(child);
    assert_eq!(*line, call(&line.id()), "neither state nor answers go to the server");
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), complete("3", ""));

    let exchange = w.ask(&Modern::new(FORM), "4", "tools/call", CALL);
    let child = w.greeted("{}");
    w.listed("[]");
    let line = w.expect_method(child, "tools/call");
    w.child_says(child, &error(&line));
    let refusal = w.expect_refused(exchange, 400, -32021);
    assert!(refusal.contains(r#"{"requiredCapabilities":{"elicitation":{"url":{}}}}"#), "{refusal}");
    w.finish();
}

// ---- over our own stdin ----

#[test]
fn questions_cross_by_stdin_too() {
    let mut config = eras();
    config.front = FrontKind::Stdio;
    let mut w = World::new(config);
    let client = Modern::new(FORM);
    w.stdin_says(&client.says("1", "tools/call", CALL));
    let child = w.introduced("{}");
    let line = w.expect_method(child, "tools/call");
    w.child_says(child, &question("5", "q"));
    w.advance(GATHER);
    let answer = w.expect_stdout();
    let (questions, state) = asked(&answer, "1");
    let answers = with_answers(&state, &[(&key(&questions, "q"), "{}")]);
    w.stdin_says(&client.says("2", "tools/call", &answers));
    assert_eq!(*w.expect_line(child), result("5", "{}"));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_stdout(), complete("2", ""));
    w.stdin_says(&client.says("3", "tools/call", &answers));
    assert!(w.expect_stdout().contains("used already"));
    w.finish();
}

#[test]
fn a_shutdown_ends_a_parked_call() {
    let mut w = World::new(eras());
    let (child, _, _, _) = begin_asked(&mut w, &Modern::new(FORM));
    w.shutdown();
    w.advance(secs(1));
    // The end of its input tells the server all there is to know.
    assert!(w.is_stdin_closed(child));
    w.expect_no_line(child);
    assert_eq!((w.stats().calls, w.stats().questions, w.stats().sessions), (0, 0, 0));
    w.finish_from_here();
}
