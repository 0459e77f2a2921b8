//! One call: its bytes, its id, its progress, its cancellation, its answer.

use mcp_proxy_tests::sim::*;

fn progress(token: &str, n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n}}}}}"#
    )
}

fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"x"}}}}"#)
}

#[test]
fn an_answer_that_comes_first_is_json() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-11-25", "{}");
    let exchange = w.post(&client, &call("7"));
    let line = w.expect_line(child);
    assert_eq!(*line, call(&line.id()));
    assert_ne!(line.id(), "7", "the id on the wire is the proxy's own");
    w.expect_silence(exchange);
    w.answer(child, &line, r#"{"content":[]}"#);
    assert_eq!(w.expect_json(exchange), result("7", r#"{"content":[]}"#));
    w.finish();
}

#[test]
fn a_client_that_names_event_streams_first_gets_one() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client.with("accept", "text/event-stream, application/json"), &call("7"));
    w.expect_stream(exchange);
    let line = w.expect_line(child);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("7", "{}"));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn progress_makes_a_stream_and_comes_in_order_under_the_clients_token() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call_with_token("7", r#""t\u0041""#));
    let line = w.expect_line(child);
    let number = line.id();
    assert_eq!(*line, call_with_token(&number, &number), "id and token are the proxy's own");
    for n in 1..=3 {
        w.child_says(child, &progress(&number, n));
    }
    w.expect_stream(exchange);
    for n in 1..=3 {
        assert_eq!(w.expect_message(exchange), progress(r#""t\u0041""#, n));
    }
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_message(exchange), result("7", "{}"));
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn progress_after_the_answer_or_of_nobodys_call_is_dropped() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let stream = w.get(&client);
    w.expect_stream(stream);
    let exchange = w.post(&client, &call_with_token("7", "1"));
    let line = w.expect_line(child);
    for token in ["1", r#""1""#, "99", "null", "1.0"] {
        w.child_says(child, &progress(token, 1));
    }
    w.expect_silence(exchange);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("7", "{}"));
    w.child_says(child, &progress(&line.id(), 2));
    // A call without a token has no progress, even if the server guesses its number.
    let exchange = w.post(&client, &call("8"));
    let line = w.expect_line(child);
    w.child_says(child, &progress(&line.id(), 3));
    w.expect_silence(exchange);
    w.expect_silence(stream);
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("8", "{}"));
    w.finish();
}

/// Everything that a typed model would lose.
fn odd_values() -> Vec<String> {
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    [
        "123456789012345678901234567890",
        "-0",
        "1e400",
        "1E+2",
        "0.10000000000000000000000000000000000001",
        r#"{"b":1,"a":2,"z":{"y":0,"x":0}}"#,
        r#"{"dup":1,"dup":2}"#,
        r#""\u0000\u0001""#,
        r#""\ud800""#,
        r#""\udc00\ud800 \u00e9\/""#,
        "\"\u{2028}\u{2029}\u{85}\u{feff}\"",
        "\"\u{1F600}\"",
        r#"{"":null,"jsonrpc":"1.0","id":9,"method":"m","error":{}}"#,
        "[ ]",
        &deep,
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn every_byte_of_a_message_survives_in_both_directions() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    for value in odd_values() {
        let request = |id: &str| {
            format!(
                r#"{{"extra":{value},"method":"tools\/call", "params":{{"v":{value},"name":"t"}},"id" : {id},"jsonrpc":"2.0"}}"#
            )
        };
        let exchange = w.post(&client, &request(r#""\u0031""#));
        let line = w.expect_line(child);
        assert_eq!(*line, request(&line.id()));
        let answer = |id: &str| format!(r#"{{"result":{value},"id":{id},"\u006asonrpc":"2.0","unknown":{value}}}"#);
        w.child_says(child, &answer(&line.id()));
        assert_eq!(w.expect_json(exchange), answer(r#""\u0031""#));
        // The same on a stream, and a notification in each direction.
        let log = format!(r#"{{"method":"notifications/message","params":{{"data":{value}}},"jsonrpc":"2.0"}}"#);
        let exchange = w.post(&client, &call("7"));
        let line = w.expect_line(child);
        w.child_says(child, &log);
        w.child_says(child, &answer(&line.id()));
        w.expect_stream(exchange);
        assert_eq!(w.expect_message(exchange), log);
        assert_eq!(w.expect_message(exchange), answer("7"));
        w.expect_end(exchange);
        let note = format!(r#"{{"params":{{"v":{value}}},"method":"notifications/x","jsonrpc":"2.0"}}"#);
        w.notify(&client, &note);
        assert_eq!(*w.expect_line(child), note);
    }
    w.finish();
}

#[test]
fn line_ends_between_tokens_become_spaces_on_the_way_to_the_server() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, "\r\n{\n\t\"jsonrpc\":\"2.0\",\r\n\t\"id\":1,\n\"method\":\"x\\n\"\n}\n");
    let line = w.expect_line(child);
    assert_eq!(*line, format!("{{ \t\"jsonrpc\":\"2.0\",  \t\"id\":{}, \"method\":\"x\\n\" }}", line.id()));
    w.child_says(child, &format!("\t{{\"jsonrpc\":\"2.0\",\t\"id\":{},\r \"result\":{{}} }} \r", line.id()));
    assert_eq!(w.expect_json(exchange), "{\"jsonrpc\":\"2.0\",\t\"id\":1,\r \"result\":{} }");
    w.finish();
}

#[test]
fn a_lone_surrogate_in_a_name_does_no_harm() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    for params in [r#"{"\ud800":1,"_meta":{"progressToken":1}}"#, r#"{"\ud800":1}"#] {
        let request = |id: &str, token: &str| {
            let params = params.replace("ken\":1", &format!("ken\":{token}"));
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#)
        };
        let exchange = w.post(&client, &request("1", "1"));
        let line = w.expect_line(child);
        assert_eq!(*line, request(&line.id(), &line.id()));
        w.answer(child, &line, r#"{"\ud800":1}"#);
        assert_eq!(w.expect_json(exchange), result("1", r#"{"\ud800":1}"#));
    }
    let request = |id: &str| format!(r#"{{"jsonrpc":"2.0","\udfff":0,"id":{id},"method":"ping"}}"#);
    let exchange = w.post(&client, &request("2"));
    let line = w.expect_line(child);
    assert_eq!(*line, request(&line.id()));
    w.answer(child, &line, "{}");
    w.expect_json(exchange);
    w.finish();
}

#[test]
fn a_raw_control_character_in_a_name_is_no_json() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    for byte in ["\0", "\n", "\t", "\u{1f}"] {
        for body in [
            format!(r#"{{"jsonrpc":"2.0","id":1,"a{byte}":2,"method":"x"}}"#),
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a{byte}":2,"_meta":{{"progressToken":1}}}}}}"#
            ),
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":"a{byte}"}}"#),
        ] {
            let exchange = w.post(&client, &body);
            w.expect_refused(exchange, 400, -32700);
        }
    }
    w.expect_no_line(child);
    w.finish();
}

#[test]
fn the_code_and_data_of_an_error_survive() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("\"\""));
    let line = w.expect_line(child);
    let error = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"data":{{"x":[1e400]}},"code":-32042,"message":"é","more":0}}}}"#
        )
    };
    w.child_says(child, &error(&line.id()));
    assert_eq!(w.expect_json(exchange), error("\"\""));
    w.finish();
}

#[test]
fn one_client_may_use_one_id_for_everything() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchanges: Vec<_> = (0..5).map(|_| w.post(&client, &call_with_token("1", "1"))).collect();
    let lines: Vec<_> = (0..5).map(|_| w.expect_line(child)).collect();
    for n in [3, 0, 4, 1, 2] {
        w.child_says(child, &progress(&lines[n].id(), n as u32));
        w.answer(child, &lines[n], &n.to_string());
        w.expect_stream(exchanges[n]);
        assert_eq!(w.expect_message(exchanges[n]), progress("1", n as u32));
        assert_eq!(w.expect_message(exchanges[n]), result("1", &n.to_string()));
        w.expect_end(exchanges[n]);
    }
    w.finish();
}

#[test]
fn a_second_answer_and_an_answer_to_nothing_are_dropped() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let (one, two) = (w.post(&client, &call("1")), w.post(&client, &call("2")));
    let (first, second) = (w.expect_line(child), w.expect_line(child));
    w.answer(child, &first, r#""a""#);
    w.answer(child, &first, r#""b""#);
    w.child_says(child, &result("1", r#""c""#));
    w.child_says(child, &result(&format!("\"{}\"", second.id()), r#""d""#));
    w.child_says(child, &result(&format!("{}.0", second.id()), r#""e""#));
    w.child_says(child, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#);
    w.answer(child, &second, r#""f""#);
    assert_eq!(w.expect_json(one), result("1", r#""a""#));
    assert_eq!(w.expect_json(two), result("2", r#""f""#));
    w.finish();
}

#[test]
fn a_cancelled_call_is_answered_after_a_second_if_the_server_is_silent() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call(r#""a""#));
    let line = w.expect_line(child);
    w.notify(&client, &cancel(r#""\u0061""#));
    assert_eq!(*w.expect_line(child), cancel(&line.id()), "an id is what it means, not how it is spelled");
    w.advance(millis(999));
    w.expect_silence(exchange);
    w.advance(millis(1));
    let answer = w.expect_json(exchange);
    assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32000,"#), "{answer}");
    w.answer(child, &line, "{}");
    w.finish();
}

#[test]
fn the_servers_own_answer_to_a_cancelled_call_wins() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("5"));
    let line = w.expect_line(child);
    w.notify(&client, &cancel("5"));
    w.expect_line(child);
    w.advance(millis(500));
    w.answer(child, &line, r#""just made it""#);
    assert_eq!(w.expect_json(exchange), result("5", r#""just made it""#));
    w.finish();
}

#[test]
fn only_the_own_calls_of_a_client_can_be_cancelled() {
    let mut w = World::new(config());
    let (one, child) = w.connect("2025-06-18", "{}");
    let (two, _) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&one, &call("77"));
    let line = w.expect_line(child);
    for id in ["77", &line.id(), r#""77""#, "null"] {
        w.notify(&two, &cancel(id));
    }
    w.notify(&one, &cancel(&line.id()));
    w.expect_no_line(child);
    w.advance(secs(2));
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("77", "{}"));
    w.finish();
}

#[test]
fn a_call_times_out_and_progress_gives_it_time() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call_with_token("5", "1"));
    let line = w.expect_line(child);
    w.advance(secs(3599));
    w.child_says(child, &progress(&line.id(), 1));
    w.advance(secs(3599));
    w.expect_stream(exchange);
    assert_eq!(w.expect_message(exchange), progress("1", 1));
    w.expect_silence(exchange);
    w.advance(secs(1));
    assert_eq!(w.expect_method(child, "notifications/cancelled").id(), line.id());
    let answer = w.expect_message(exchange);
    assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32001,"#), "{answer}");
    w.expect_end(exchange);
    w.finish();
}

#[test]
fn garbage_on_stdout_is_skipped() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("5"));
    let line = w.expect_line(child);
    for garbage in
        ["", "   ", "Server is listening", "{", "[]", "[1]", "42", r#"{"level":"info"}"#, "\u{1b}[31mred\u{1b}[0m"]
    {
        w.child_says(child, garbage);
    }
    w.out_mut(mcp_proxy_engine::Pipe::ChildStdout(child)).buffer.extend_from_slice(b"\xff\xfe\x00\n");
    w.settle();
    w.answer(child, &line, "{}");
    assert_eq!(w.expect_json(exchange), result("5", "{}"));
    w.finish();
}

#[test]
fn an_answer_that_is_no_message_fails_its_call_at_once() {
    let mut w = World::new(config());
    let (client, child) = w.connect("2025-06-18", "{}");
    let exchange = w.post(&client, &call("5"));
    let line = w.expect_line(child);
    w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}},"error":{{"code":1}}}}"#, line.id()));
    let answer = w.expect_json(exchange);
    assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32603,"#), "{answer}");
    w.finish();
}

#[test]
fn an_oversized_answer_fails_its_call_and_no_other() {
    let mut config = config();
    config.limits.max_message = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", "{}");
    let (one, two) = (w.post(&client, &call("1")), w.post(&client, &call("2")));
    let (first, second) = (w.expect_line(child), w.expect_line(child));
    let long = format!("\"{}\"", "x".repeat(200_000));
    w.child_says(
        child,
        &format!(r#"{{"result":{{"id":{},"v":{long}}},"jsonrpc":"2.0","id":{}}}"#, second.id(), first.id()),
    );
    let answer = w.expect_json(one);
    assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"#), "{answer}");
    w.expect_silence(two);
    // An overlong notification names nobody.
    w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","method":"x","params":{long}}}"#));
    w.answer(child, &second, "{}");
    assert_eq!(w.expect_json(two), result("2", "{}"));
    w.finish();
}

#[test]
fn the_id_of_an_oversized_answer_may_be_followed_by_any_white_space() {
    let mut config = config();
    config.limits.max_message = 1000;
    let mut w = World::new(config);
    let (client, child) = w.connect("2025-06-18", "{}");
    for space in ["", " ", "\t", "\r"] {
        let exchange = w.post(&client, &call("1"));
        let line = w.expect_line(child);
        let (id, long) = (line.id(), "x".repeat(2000));
        w.child_says(child, &format!(r#"{{"jsonrpc":"2.0","id":{space}{id}{space},"result":"{long}"}}"#));
        let answer = w.expect_json(exchange);
        assert!(answer.contains("is larger than 1000 bytes"), "{answer}");
    }
    w.finish();
}
