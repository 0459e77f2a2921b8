//! Tables of header fields, requests and schemas, and what a hostile server or client can make of them.

use super::*;

fn raw(json: &str) -> &RawValue {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn fields(list: &[(&'static str, &'static str)]) -> Headers {
    let mut headers = Headers::new();
    list.iter().for_each(|&(name, value)| headers.push(name, value));
    headers
}

#[test]
fn values_are_encoded_and_decoded() {
    // The examples of the specification, and those of SEP-2243.
    for (value, header) in [
        ("us-west1", "us-west1"),
        ("us west 1", "us west 1"),
        ("", ""),
        ("~!", "~!"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        (" us-west1", "=?base64?IHVzLXdlc3Qx?="),
        ("us-west1 ", "=?base64?dXMtd2VzdDEg?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("line1\r\nline2", "=?base64?bGluZTENCmxpbmUy?="),
        ("\tindented", "=?base64?CWluZGVudGVk?="),
        ("a\tb", "=?base64?YQli?="),
        ("\u{7f}", "=?base64?fw==?="),
        ("é", "=?base64?w6k=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("=?base64?=", "=?base64?PT9iYXNlNjQ/PQ==?="),
        ("=?base64?literal", "=?base64?literal"),
        ("literal?=", "literal?="),
    ] {
        assert_eq!(encode(value), header, "{value}");
        assert_eq!(decode(header).as_deref(), Some(value), "{header}");
    }
    for (header, value) in [
        ("SGVsbG8=", Some("SGVsbG8=")),
        ("=?base64?SGVsbG8=", Some("=?base64?SGVsbG8=")),
        ("=?BASE64?SGVsbG8=?=", Some("=?BASE64?SGVsbG8=?=")),
        ("=?base64?=", Some("=?base64?=")),
        ("=?base64??=", Some("")),
        ("a\tb", Some("a\tb")),
        ("=?base64?SGVsbG8?=", None),
        ("=?base64?SGVs!!!bG8=?=", None),
        ("=?base64?SGVsbG9=?=", None),
        ("=?base64? SGVsbG8=?=", None),
        ("=?base64?/w==?=", None),
        ("é", None),
        ("a\nb", None),
        ("a\u{7f}", None),
    ] {
        assert_eq!(decode(header).as_deref(), value, "{header}");
    }
}

#[test]
fn standard_fields() {
    for (method, params, expected) in [
        ("tools/list", None, vec![("mcp-method", "tools/list")]),
        ("tools/call", Some(r#"{"name":"a\u0062"}"#), vec![("mcp-method", "tools/call"), ("mcp-name", "ab")]),
        ("prompts/get", Some(r#"{"name":"é"}"#), vec![("mcp-method", "prompts/get"), ("mcp-name", "=?base64?w6k=?=")]),
        (
            "resources/read",
            Some(r#"{"name":"x","uri":"file:///a%20b?c=d"}"#),
            vec![("mcp-method", "resources/read"), ("mcp-name", "file:///a%20b?c=d")],
        ),
        ("tasks/get", Some(r#"{"taskId":"7"}"#), vec![("mcp-method", "tasks/get"), ("mcp-name", "7")]),
        ("tools/list", Some(r#"{"name":"a"}"#), vec![("mcp-method", "tools/list")]),
        ("tools/call", Some(r#"{"name":"a","name":"b"}"#), vec![("mcp-method", "tools/call")]),
        ("tools/call", Some(r#"{"name":5}"#), vec![("mcp-method", "tools/call")]),
        ("tools/call", Some("[]"), vec![("mcp-method", "tools/call")]),
        ("a\r\nb: c", None, vec![("mcp-method", "=?base64?YQ0KYjogYw==?=")]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        assert_eq!(standard(method, params.map(raw)), expected, "{method} {params:?}");
    }
}

#[test]
fn standard_fields_are_checked() {
    const CALL: (&str, &str) = ("mcp-method", "tools/call");
    for (headers, method, params, expected) in [
        (&[("mcp-method", "tools/list")][..], "tools/list", None, Ok(())),
        (&[("mcp-method", " tools/list\t")], "tools/list", None, Ok(())),
        (&[("mcp-method", "tools/list"), ("mcp-name", "é")], "tools/list", None, Ok(())),
        (&[], "tools/list", None, Err("Mcp-Method is missing")),
        (&[("mcp-method", "x"), ("mcp-method", "x")], "x", None, Err("Mcp-Method comes twice")),
        (
            &[("mcp-method", "TOOLS/LIST")],
            "tools/list",
            None,
            Err("Mcp-Method is 'TOOLS/LIST', the body says 'tools/list'"),
        ),
        (&[("mcp-method", "=?base64?eA==?=")], "x", None, Err("Mcp-Method is '=?base64?eA==?=', the body says 'x'")),
        (&[CALL, ("mcp-name", "foo")], "tools/call", Some(r#"{"name":"foo"}"#), Ok(())),
        (&[CALL, ("mcp-name", "  foo ")], "tools/call", Some(r#"{"name":"f\u006fo"}"#), Ok(())),
        (&[CALL, ("mcp-name", "=?base64?w6k=?=")], "tools/call", Some(r#"{"name":"é"}"#), Ok(())),
        (&[CALL, ("mcp-name", "=?base64?Zm9v?=")], "tools/call", Some(r#"{"name":"foo"}"#), Ok(())),
        (&[CALL], "tools/call", Some(r#"{"arguments":{}}"#), Ok(())),
        (&[CALL], "tools/call", None, Ok(())),
        (&[CALL], "tools/call", Some(r#"{"name":"foo"}"#), Err("Mcp-Name is missing")),
        (&[CALL, ("mcp-name", "foo")], "tools/call", Some("{}"), Err("Mcp-Name is there, but the body has no 'name'")),
        (
            &[CALL, ("mcp-name", "foo")],
            "tools/call",
            Some(r#"{"name":"bar"}"#),
            Err("Mcp-Name is 'foo', the body says 'bar'"),
        ),
        (
            &[CALL, ("mcp-name", "foo"), ("mcp-name", "foo")],
            "tools/call",
            Some(r#"{"name":"foo"}"#),
            Err("Mcp-Name comes twice"),
        ),
        (
            &[CALL, ("mcp-name", "foo")],
            "tools/call",
            Some(r#"{"name":"foo","name":"bar"}"#),
            Err("the body has two members 'name'"),
        ),
        (
            &[CALL, ("mcp-name", "5")],
            "tools/call",
            Some(r#"{"name":5}"#),
            Err("'name' in the body is not a string, so Mcp-Name cannot say the same"),
        ),
        (
            &[CALL, ("mcp-name", "é")],
            "tools/call",
            Some(r#"{"name":"é"}"#),
            Err("Mcp-Name has characters that no header field may have, or bad Base64"),
        ),
        (
            &[("mcp-method", "resources/read"), ("mcp-name", "a")],
            "resources/read",
            Some(r#"{"name":"a","uri":"b"}"#),
            Err("Mcp-Name is 'a', the body says 'b'"),
        ),
        (&[("mcp-method", "prompts/get")], "prompts/get", Some(r#"{"name":"a"}"#), Err("Mcp-Name is missing")),
        (&[("mcp-method", "tasks/get")], "tasks/get", Some(r#"{"taskId":"a"}"#), Ok(())),
        (
            &[("mcp-method", "tasks/cancel"), ("mcp-name", "b")],
            "tasks/cancel",
            Some(r#"{"taskId":"a"}"#),
            Err("Mcp-Name is 'b', the body says 'a'"),
        ),
    ] {
        let expected = expected.map_err(|text| format!("Header mismatch: {text}"));
        assert_eq!(check_standard(&fields(headers), method, params.map(raw)), expected, "{headers:?} {params:?}");
    }
}

#[test]
fn a_text_for_people_is_short_and_has_no_control_characters() {
    let long = format!("\n\u{1b}it's{}", "x".repeat(1 << 20));
    let json = serde_json::json!({ "name": long }).to_string();
    let headers = fields(&[("mcp-method", "tools/call"), ("mcp-name", "a")]);
    let text = check_standard(&headers, "tools/call", Some(raw(&json))).unwrap_err();
    assert!(text.contains(r"says '\n\u{1b}it'sxxx") && text.ends_with("x...'") && text.len() < 200, "{text}");
    let method = fields(&[("mcp-method", "x\ty")]);
    let text = check_standard(&method, &long, None).unwrap_err();
    assert!(text.contains(r"is 'x\ty'") && text.ends_with("x...'") && text.len() < 200, "{text}");
}

/// One tool, whose input has these properties.
fn tool(properties: &str) -> String {
    format!(r#"{{"name":"t","inputSchema":{{"type":"object","properties":{properties}}}}}"#)
}

fn page(tools: &[&str]) -> String {
    format!(r#"{{"tools":[{}]}}"#, tools.join(","))
}

fn catalog(tools: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.learn(raw(&page(tools)));
    catalog
}

fn sample() -> Catalog {
    catalog(&[&tool(
        r#"{"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":["integer","null"],"x-mcp-header":"N"},
            "flag":{"type":"boolean","x-mcp-header":"Flag"},"query":{"type":"string"},
            "in":{"type":"object","properties":{"x-mcp-header":{"type":"string","x-mcp-header":"Deep"}}}}"#,
    )])
}

#[test]
fn arguments_are_mirrored() {
    let catalog = sample();
    for (arguments, expected) in [
        (r#"{"region":"us-west1","query":"x"}"#, &[("region", "us-west1")][..]),
        (
            r#"{"r\u0065gion":" \u00e9","n":42,"flag":true}"#,
            &[("flag", "true"), ("n", "42"), ("region", "=?base64?IMOp?=")],
        ),
        (r#"{"n":-7.0,"flag":false,"region":""}"#, &[("flag", "false"), ("n", "-7"), ("region", "")]),
        (r#"{"n":4.2e1}"#, &[("n", "42")]),
        (r#"{"n":-0}"#, &[("n", "0")]),
        (r#"{"n":9007199254740991}"#, &[("n", "9007199254740991")]),
        (r#"{"n":-9007199254740991}"#, &[("n", "-9007199254740991")]),
        (r#"{"n":9007199254740992,"flag":null,"region":null}"#, &[]),
        (r#"{"n":1e400,"region":"\ud800"}"#, &[]),
        (r#"{"n":1.5,"region":{},"flag":[]}"#, &[]),
        (r#"{"n":18446744073709551615,"region":"x"}"#, &[("region", "x")]),
        (r#"{"region":"a\r\nhost: b"}"#, &[("region", "=?base64?YQ0KaG9zdDogYg==?=")]),
        (r#"{"in":{"x-mcp-header":"d"},"x-mcp-header":"e"}"#, &[("deep", "d")]),
        (r#"{"in":[{"x-mcp-header":"d"}]}"#, &[]),
        (r#"{"in":null}"#, &[]),
        (r#"{"\ud800":1,"region":"x"}"#, &[("region", "x")]),
        ("[]", &[]),
        ("null", &[]),
    ] {
        let params = format!(r#"{{"name":"t","arguments":{arguments}}}"#);
        let mut expected: Vec<_> =
            expected.iter().map(|(name, value)| (format!("mcp-param-{name}"), (*value).to_owned())).collect();
        let mut sent = catalog.headers(Some(raw(&params)));
        expected.sort();
        sent.sort();
        assert_eq!(sent, expected, "{arguments}");
        // What we send is what we accept, unless something cannot be mirrored.
        let mut headers = Headers::new();
        sent.into_iter().for_each(|(name, value)| headers.push(name, value));
        let whole = !["40992", "1e400", "1.5", "615"].iter().any(|odd| arguments.contains(odd));
        assert_eq!(catalog.check(&headers, Some(raw(&params))).is_ok(), whole, "{arguments}");
    }
    for params in [r#"{"name":"u","arguments":{"region":"x"}}"#, r#"{"name":"t"}"#, "{}", "[]", r#"{"name":5}"#] {
        assert_eq!(catalog.headers(Some(raw(params))), [], "{params}");
        assert_eq!(catalog.check(&Headers::new(), Some(raw(params))), Ok(()), "{params}");
    }
    assert_eq!(catalog.headers(None), []);
}

#[test]
fn mirrored_arguments_are_checked() {
    let catalog = sample();
    const MALFORMED: &str = "has characters that no header field may have, or bad Base64";
    const ODD: &str = "is no string, boolean or integer up to 2^53-1";
    for (headers, arguments, expected) in [
        (&[("mcp-param-region", "x")][..], r#"{"region":"x"}"#, None),
        (&[("mcp-param-region", "x"), ("mcp-param-other", "é")], r#"{"region":"\u0078"}"#, None),
        (&[("mcp-param-region", "=?base64?eA==?=")], r#"{"region":"x"}"#, None),
        (&[("mcp-param-n", "42.0")], r#"{"n":42}"#, None),
        (&[("mcp-param-n", "42")], r#"{"n":42.0}"#, None),
        (&[("mcp-param-n", "=?base64?NDI=?=")], r#"{"n":42}"#, None),
        (&[("mcp-param-flag", "false")], r#"{"flag":false}"#, None),
        (&[], r#"{"region":"x"}"#, Some("Mcp-Param-Region is missing")),
        (&[("mcp-param-region", "y")], r#"{"region":"x"}"#, Some("Mcp-Param-Region is not what the body says")),
        (&[("mcp-param-region", "X")], r#"{"region":"x"}"#, Some("Mcp-Param-Region is not what")),
        (&[("mcp-param-region", "é")], r#"{"region":"é"}"#, Some(MALFORMED)),
        (&[("mcp-param-region", "=?base64?eA?=")], r#"{"region":"x"}"#, Some(MALFORMED)),
        (&[("mcp-param-region", "é")], "{}", Some(MALFORMED)),
        (&[("mcp-param-region", "x"), ("mcp-param-region", "x")], r#"{"region":"x"}"#, Some("comes twice")),
        (&[("mcp-param-region", "x")], r#"{"region":"x","region":"x"}"#, Some("comes twice")),
        (&[("mcp-param-region", "x")], r#"{"region":"x","regio\u006e":"y"}"#, Some("comes twice")),
        (&[("mcp-param-region", "null")], r#"{"region":null}"#, Some("the body has no such argument")),
        (&[("mcp-param-region", "")], "{}", Some("the body has no such argument")),
        (&[("mcp-param-n", "43")], r#"{"n":42}"#, Some("Mcp-Param-N is not what")),
        (&[("mcp-param-n", "042")], r#"{"n":42}"#, Some("Mcp-Param-N is not what")),
        (&[("mcp-param-n", "+42")], r#"{"n":42}"#, Some("Mcp-Param-N is not what")),
        (&[("mcp-param-n", "=?base64?IDQy?=")], r#"{"n":42}"#, Some("Mcp-Param-N is not what")),
        (&[("mcp-param-n", "9007199254740993")], r#"{"n":9007199254740993}"#, Some(ODD)),
        (&[("mcp-param-n", "1.5")], r#"{"n":1.5}"#, Some(ODD)),
        (&[("mcp-param-region", "{}")], r#"{"region":{}}"#, Some(ODD)),
        (&[("mcp-param-flag", "True")], r#"{"flag":true}"#, Some("Mcp-Param-Flag is not what")),
        (&[("mcp-param-flag", "1")], r#"{"flag":true}"#, Some("Mcp-Param-Flag is not what")),
        (&[], r#"{"in":{"x-mcp-header":"d"}}"#, Some("Mcp-Param-Deep is missing")),
    ] {
        let params = format!(r#"{{"name":"t","arguments":{arguments}}}"#);
        let outcome = catalog.check(&fields(headers), Some(raw(&params)));
        match expected {
            None => assert_eq!(outcome, Ok(()), "{headers:?} {arguments}"),
            Some(part) => {
                let text = outcome.unwrap_err();
                assert!(text.starts_with("Header mismatch: ") && text.contains(part), "{arguments}: {text}");
            }
        }
    }
    let twice = r#"{"name":"t","arguments":{},"arguments":{"region":"x"}}"#;
    assert!(catalog.check(&Headers::new(), Some(raw(twice))).is_err());
}

#[test]
fn annotations_are_judged() {
    const TOKEN: &str = "cannot be part of the name";
    const PLACE: &str = "stands where more than";
    const TYPE: &str = "is not on a string, an integer or a boolean";
    for (properties, expected) in [
        (r#"{"a":{"type":"string","x-mcp-header":"A!#$%&'*+-.^_`|~9"}}"#, None),
        (r#"{"a":{"type":["null","string","integer"],"x-mcp-header":"Method"}}"#, None),
        (r#"{"a":{"properties":{"b":{"type":"boolean","x-mcp-header":"B"}}}}"#, None),
        (r#"{"a":{"type":"string","default":{"x-mcp-header":""},"enum":[{"x-mcp-header":""}]}}"#, None),
        (r#"{"x-mcp-header":{"type":"number"}}"#, None),
        (r#"{"a":{"$defs":{"x-mcp-header":{"type":"number"}}}}"#, None),
        (r#"{"a":{"type":"string","x-mcp-header":""}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-header":"My Region"}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-header":"Region:Primary"}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-header":"Région"}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-header":"Region\t1"}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-header":"A\r\nHost"}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-heade\u0072":""}}"#, Some(TOKEN)),
        (r#"{"a":{"type":"string","x-mcp-header":null}}"#, Some("is not a string")),
        (r#"{"a":{"type":"number","x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"type":"object","x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"type":"array","x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"type":"null","x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"type":["null"],"x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"type":["string","number"],"x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"type":[],"x-mcp-header":"A"}}"#, Some(TYPE)),
        (r#"{"a":{"x-mcp-header":"A"}}"#, Some(TYPE)),
        (
            r#"{"a":{"type":"string","x-mcp-header":"Region"},"b":{"type":"string","x-mcp-header":"REGION"}}"#,
            Some("comes twice"),
        ),
        (
            r#"{"a":{"type":"string","x-mcp-header":"A"},"b":{"properties":{"c":{"type":"string","x-mcp-header":"A"}}}}"#,
            Some("comes twice"),
        ),
        (r#"{"a":{"items":{"type":"string","x-mcp-header":"A"}}}"#, Some(PLACE)),
        (r#"{"a":{"items":{"properties":{"b":{"type":"string","x-mcp-header":"A"}}}}}"#, Some(PLACE)),
        (r#"{"a":{"prefixItems":[{"type":"string","x-mcp-header":"A"}]}}"#, Some(PLACE)),
        (r#"{"a":{"oneOf":[{"type":"string","x-mcp-header":"A"}]}}"#, Some(PLACE)),
        (r#"{"a":{"not":{"type":"string","x-mcp-header":"A"}}}"#, Some(PLACE)),
        (r#"{"a":{"if":{"type":"string","x-mcp-header":"A"}}}"#, Some(PLACE)),
        (r#"{"a":{"$defs":{"d":{"type":"string","x-mcp-header":"A"}}}}"#, Some(PLACE)),
        (r#"{"a":{"patternProperties":{"d":{"type":"string","x-mcp-header":"A"}}}}"#, Some(PLACE)),
        (r#"{"a":{"additionalProperties":{"type":"string","x-mcp-header":"A"}}}"#, Some(PLACE)),
    ] {
        match (examine(raw(&tool(properties))), expected) {
            (Verdict::Plain | Verdict::Annotated(_), None) => {}
            (Verdict::Invalid(reason), Some(part)) if reason.contains(part) => {}
            (Verdict::Invalid(reason), _) => panic!("{properties}: {reason}"),
            (_, Some(_)) => panic!("{properties} counts as valid"),
        }
    }
    for (schema, valid) in [
        (r#"{"type":"string","x-mcp-header":"A"}"#, false),
        (r#"{"oneOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}"#, false),
        (r#"[{"x-mcp-header":"A"}]"#, false),
        (r#"{"properties":[{"x-mcp-header":"A"}]}"#, false),
        (r#""x-mcp-header""#, true),
        (r#"{"description":"x-mcp-header"}"#, true),
    ] {
        let tool = format!(r#"{{"name":"t","inputSchema":{schema},"outputSchema":{{"x-mcp-header":5}}}}"#);
        assert_eq!(!matches!(examine(raw(&tool)), Verdict::Invalid(_)), valid, "{schema}");
    }
}

#[test]
fn a_catalog_is_kept_up_to_date() {
    let (good, plain) = (tool(r#"{"a":{"type":"string","x-mcp-header":"A"}}"#), tool(r#"{"a":{"type":"string"}}"#));
    let bad = tool(r#"{"a":{"type":"string","x-mcp-header":""}}"#);
    let other = good.replace(r#""t""#, r#""u""#);
    let sends = |catalog: &Catalog, name: &str| {
        catalog.headers(Some(raw(&format!(r#"{{"name":"{name}","arguments":{{"a":"v"}}}}"#)))).len()
    };
    for worse in [&plain, &bad] {
        let mut catalog = catalog(&[&good, &other]);
        let before = catalog.size;
        catalog.learn(raw(&page(&[&good])));
        assert_eq!((sends(&catalog, "t"), sends(&catalog, "u"), catalog.size), (1, 1, before));
        catalog.learn(raw(&page(&[worse])));
        assert_eq!((sends(&catalog, "t"), sends(&catalog, "u"), catalog.size), (0, 1, before / 2));
        catalog.clear();
        assert_eq!((sends(&catalog, "u"), catalog.size), (0, 0));
    }
    let mut catalog = Catalog::default();
    for odd in ["{}", "[]", "null", r#"{"tools":{}}"#, r#"{"tools":[1,null,"x-mcp-header",[]]}"#, "\"x-mcp-header\""] {
        catalog.learn(raw(odd));
        assert_eq!(without_invalid(raw(odd)), None, "{odd}");
    }
    assert!(catalog.tools.is_empty());
}

#[test]
fn a_catalog_has_limits() {
    let good = tool(r#"{"a":{"type":"string","x-mcp-header":"A"}}"#);
    let many: Vec<_> = (0..Catalog::MAX_TOOLS + 5).map(|n| good.replace(r#""t""#, &format!(r#""t{n}""#))).collect();
    let mut full = catalog(&many.iter().map(|tool| &**tool).collect::<Vec<_>>());
    assert_eq!(full.tools.len(), Catalog::MAX_TOOLS);
    // A known tool can still change.
    full.learn(raw(&page(&[&many[0].replace(r#""A""#, r#""B""#)])));
    let call = raw(r#"{"name":"t0","arguments":{"a":"v"}}"#);
    assert_eq!(full.headers(Some(call)), [("mcp-param-b".to_owned(), "v".to_owned())]);
    // Neither one large tool nor many of them get beyond the other limit.
    let large = good.replace(r#""a""#, &format!(r#""{}""#, "a".repeat(Catalog::MAX_SIZE)));
    assert!(catalog(&[&large]).tools.is_empty());
    let half = "a".repeat(Catalog::MAX_SIZE * 2 / 5);
    let mut catalog = Catalog::default();
    for n in 0..4 {
        let large = good.replace(r#""a""#, &format!(r#""{half}""#)).replace(r#""t""#, &format!(r#""{n}""#));
        catalog.learn(raw(&page(&[&large])));
    }
    assert_eq!(catalog.tools.len(), 2);
}

#[test]
fn invalid_tools_are_cut_out() {
    let good = r#"{ "name" : "good" , "inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}"#;
    let bad = r#"{"name":"b\nd","inputSchema":{"x-mcp-header":"A"}}"#;
    for (tools, expected) in [
        (vec![bad], " [ ] "),
        (vec![bad, bad], " [ ] "),
        (vec![bad, good], " [ GOOD ] "),
        (vec![good, bad], " [ GOOD ] "),
        (vec![bad, bad, good, bad, bad], " [ GOOD ] "),
        (vec![good, bad, good], " [ GOOD ,\n GOOD ] "),
        (vec![bad, good, bad, bad, good, good, bad], " [ GOOD ,\n GOOD ,\n GOOD ] "),
    ] {
        let page = |tools: &str| format!(r#"{{"ttlMs" : 1e400, "tools":{tools},"x\u0078":"\ud800" }}"#);
        // Where one is cut out, its white space goes too.
        let whole = page(&format!(" [ {} ] ", tools.join(" ,\n ")));
        let (text, reasons) = without_invalid(raw(&whole)).unwrap();
        let expected = page(&expected.replace("GOOD", good));
        assert_eq!(text.replace("[  ]", "[ ]"), expected, "{whole}");
        let count = tools.iter().filter(|tool| **tool == bad).count();
        assert_eq!(reasons.len(), count);
        assert_eq!(reasons[0].0, r"b\nd");
        assert!(reasons[0].1.contains("'A' stands where"), "{reasons:?}");
        assert_eq!(without_invalid(raw(&text)), None);
    }
    assert_eq!(without_invalid(raw(&page(&[good, good]))), None);
}

#[test]
fn hostile_schemas_are_survived() {
    let leaf = r#"{"type":"string","x-mcp-header":"A"}"#;
    // As deep as can be read, and as deep as can be sent.
    let nested = |depth: usize| format!("{}{leaf}{}", r#"{"properties":{"a":"#.repeat(depth), "}}".repeat(depth));
    let call = |depth: usize| {
        let arguments = format!("{}\"v\"{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        format!(r#"{{"name":"t","arguments":{arguments}}}"#)
    };
    for (depth, known) in [(60, true), (70, false), (100_000, false)] {
        let tool = format!(r#"{{"name":"t","inputSchema":{}}}"#, nested(depth));
        let catalog = catalog(&[&tool]);
        assert_eq!(catalog.headers(Some(raw(&call(depth)))).len(), usize::from(known), "{depth}");
        assert_eq!(without_invalid(raw(&page(&[&tool]))).is_none(), known, "{depth}");
        assert_eq!(catalog.headers(Some(raw(&call(200_000)))).len(), 0, "{depth}");
    }
    // A long name above many annotations is kept once.
    let leaves: Vec<_> = (0..10_000).map(|n| format!(r#""{n}":{{"type":"string","x-mcp-header":"A{n}"}}"#)).collect();
    let long = "x".repeat(1 << 20);
    let wide = tool(&format!(r#"{{"{long}":{{"properties":{{{}}}}}}}"#, leaves.join(",")));
    let catalog = catalog(&[&wide]);
    assert_eq!(catalog.tools.len(), 1);
    let values: Vec<_> = (0..10_000).map(|n| format!(r#""{n}":{n}"#)).collect();
    let params = format!(r#"{{"name":"t","arguments":{{"{long}":{{{}}}}}}}"#, values.join(","));
    let sent = catalog.headers(Some(raw(&params)));
    assert_eq!(sent.len(), 10_000);
    let mut headers = Headers::new();
    sent.into_iter().for_each(|(name, value)| headers.push(name, value));
    assert_eq!(catalog.check(&headers, Some(raw(&params))), Ok(()));
    // What cannot be read, and does not speak of annotations, is nobody's business.
    assert!(matches!(examine(raw(r#"{"inputSchema":{"maximum":1e400,"title":"\u00e9"}}"#)), Verdict::Plain));
}

#[test]
fn cursors() {
    for (page, expected) in [
        (r#"{"tools":[],"nextCursor":"a\u0062"}"#, Some(r#""a\u0062""#)),
        (r#"{"nextCursor":""}"#, Some(r#""""#)),
        (r#"{"nextCursor":null}"#, None),
        (r#"{"nextCursor":5}"#, None),
        (r#"{"nextCursor":"a","nextCursor":"b"}"#, None),
        (r#"{"x":{"nextCursor":"a"}}"#, None),
        ("[]", None),
    ] {
        assert_eq!(next_cursor(raw(page)).as_deref(), expected, "{page}");
    }
}
