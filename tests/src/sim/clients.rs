//! The clients of a random run: what they post, and what they make of what comes back.

use std::collections::BTreeMap;

use mcp_proxy_engine::wire::rpc;
use mcp_proxy_engine::{Config, ExchangeId, HttpResponse, Server, SessionMode};

use super::choices::Choices;
use super::model::{Call, Errand, Hello, ID, LEVEL, Purpose, Remark, Reply, TOKEN, Template, mark};
use super::random::Run;
use super::story::Client;
use super::world::SseEvent;

/// One client.
#[derive(Debug)]
pub(super) struct Person {
    server: usize,
    http: Client,
    revision: &'static str,
    capabilities: &'static str,
    /// The number of its session, and what must be equal for two sessions to share a process.
    session: Option<(usize, String)>,
    initialized: bool,
    /// Questions it was asked, with its session then.
    questions: Vec<(usize, usize)>,
    /// Events it read, by session and id.
    seen: BTreeMap<(usize, String), String>,
}

const REVISIONS: [&str; 4] = ["2025-03-26", "2025-06-18", "2025-11-25", "2024-11-05"];
const CAPABILITIES: [&str; 5] =
    ["{}", "{}", r#"{"sampling":{}}"#, r#"{"roots":{"listChanged":true}}"#, r#"{"experimental":{}}"#];
const IDS: [&str; 8] = ["1", "1", "2", r#""a""#, r#""\u0061""#, "-5", "9007199254740993", r#""é\"""#];
const TOKENS: [&str; 5] = ["1", r#""t""#, r#""1""#, "7", r#""\u0000""#];
const URIS: [&str; 2] = ["file:///a", "file:///a/b"];
/// Values that a careless proxy would change, or would mistake for something else.
pub(super) const VALUES: [&str; 10] = [
    "1e400",
    "-0",
    "12345678901234567890123",
    "\"\u{2028}\u{1F600}\"",
    r#""\ud800\u0000\/""#,
    r#"{"id":1,"jsonrpc":"2.0","method":"ping","params":{}}"#,
    r#"{"b":[],"a":{"dup":1,"dup":2}}"#,
    r#"[[[[[[[[[[[["\"}{"]]]]]]]]]]]]"#,
    "null",
    r#"{"progressToken":1,"requestId":1,"_meta":{"progressToken":2}}"#,
];

impl Person {
    pub(super) fn choose(choices: &mut Choices<'_>, config: &Config) -> Self {
        let server = choices.below(config.servers.len());
        let mut http = Client::new();
        http.target = match &*config.servers[server].name {
            "default" => "/mcp".into(),
            name => format!("/servers/{name}/mcp"),
        };
        if choices.chance(15) {
            http = http.with("accept", "text/event-stream, application/json");
        }
        Person {
            server,
            http,
            revision: choices.of(&REVISIONS),
            capabilities: choices.of(&CAPABILITIES),
            session: None,
            initialized: false,
            questions: Vec::new(),
            seen: BTreeMap::new(),
        }
    }
}

fn has_no_sessions(server: &Server) -> bool {
    server.stateless || server.sessions == SessionMode::PerRequest
}

impl Run<'_> {
    fn server_of(&self, who: usize) -> &Server {
        &self.w.config.servers[self.people[who].server]
    }

    /// What a process must have in common with whatever comes in the next exchange of this client.
    fn key(&self, who: usize, session: usize) -> String {
        let person = &self.people[who];
        let server = self.server_of(who);
        let askable = person.capabilities.contains("sampling") || person.capabilities.contains("roots");
        match server.sessions {
            SessionMode::Shared if server.stateless => format!("{} anonymous {}", server.name, person.revision),
            SessionMode::Shared if !askable => {
                format!("{} {} {}", server.name, person.revision, person.capabilities)
            }
            _ => format!("{} alone {session} {}", server.name, person.revision),
        }
    }

    fn send(&mut self, who: usize, method: &str, body: &str, purpose: Purpose) -> ExchangeId {
        let stateless = has_no_sessions(self.server_of(who));
        let fresh = stateless || matches!(purpose, Purpose::Hello(_));
        if fresh {
            self.sessions += 1;
        }
        let (session, key) = match &self.people[who].session {
            Some((session, key)) if !fresh => (*session, key.clone()),
            _ => (self.sessions, self.key(who, self.sessions)),
        };
        let mut http = self.people[who].http.clone();
        if stateless {
            http.revision = Some(self.people[who].revision.into());
        }
        if let Purpose::Hello(_) = purpose {
            (http.session, http.revision) = (None, None);
        }
        if let Purpose::Resume(of) = &purpose {
            let last = self.errands[of].last_event.as_deref().expect("it read an event");
            http = http.with("last-event-id", last);
        }
        if let Purpose::Calls(calls) = &purpose {
            for call in calls {
                (self.calls[*call].session, self.calls[*call].key) = (session, key.clone());
            }
        }
        let batch = body.trim_start().starts_with('[');
        let id = self.w.request(http.request(method, body));
        let (last_event, superseded, left) = (None, false, false);
        self.errands.insert(id, Errand { client: who, session, key, purpose, batch, last_event, superseded, left });
        id
    }

    pub(super) fn client_acts(&mut self, who: usize) {
        if has_no_sessions(self.server_of(who)) {
            return match self.choices.below(100) {
                0..60 => self.posts_calls(who),
                60..75 => self.says_hello(who),
                75..90 => self.leaves(who),
                90..95 => self.remarks(who),
                _ => self.talks_nonsense(who),
            };
        }
        if self.people[who].session.is_none() {
            let mine = |e: &&ExchangeId| {
                let errand = &self.errands[*e];
                errand.client == who && matches!(errand.purpose, Purpose::Hello(_)) && !self.w.exchanges[*e].over
            };
            let waits = self.errands.keys().rev().any(|e| mine(&e));
            return match self.choices.below(10) {
                0..8 if !waits => self.says_hello(who),
                8 => self.leaves(who),
                9 => self.talks_nonsense(who),
                _ => {}
            };
        }
        if !self.people[who].initialized && self.choices.chance(70) {
            self.people[who].initialized = true;
            self.send(who, "POST", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Purpose::Note);
            return;
        }
        match self.choices.below(100) {
            0..40 => self.posts_calls(who),
            40..47 => {
                self.send(who, "GET", "", Purpose::Listen);
            }
            47..60 => self.resumes(who),
            60..72 => self.replies(who),
            72..79 => self.cancels(who),
            79..83 => self.remarks(who),
            83..93 => self.leaves(who),
            93..95 => {
                let (session, _) = self.people[who].session.clone().unwrap_or_default();
                self.calls.iter_mut().filter(|c| c.session == session).for_each(|c| c.excused = true);
                self.send(who, "DELETE", "", Purpose::Delete);
            }
            _ => self.talks_nonsense(who),
        }
    }

    fn says_hello(&mut self, who: usize) {
        let id = self.choices.of(&IDS).to_owned();
        let person = &self.people[who];
        let n = self.hellos.len();
        let template = Template(format!(
            r#"{{"jsonrpc":"2.0","id":{ID},"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{},"clientInfo":{{"name":"x","mark":"h{n}"}}}}}}"#,
            person.revision, person.capabilities
        ));
        let exchange = self.send(who, "POST", &template.with(&id, ""), Purpose::Hello(id.clone()));
        self.hellos.push(Hello { template, key: self.errands[&exchange].key.clone() });
    }

    fn makes_call(&mut self) -> (usize, String) {
        let id = self.choices.of(&IDS).to_owned();
        let token = self.choices.chance(50).then(|| self.choices.of(&TOKENS).to_owned());
        let n = self.calls.len();
        let value = self.choices.of(&VALUES);
        let meta = if token.is_some() {
            format!(r#","_meta":{{"x":{value},"progressToken":{TOKEN}}}"#)
        } else {
            String::new()
        };
        let long = if self.choices.chance(5) { "x".repeat(3000) } else { String::new() };
        let uri = self.choices.of(&URIS);
        let (method, own_answer) = match self.choices.below(12) {
            0 => ("resources/subscribe", false),
            1 => ("resources/unsubscribe", true),
            2 => ("logging/setLevel", false),
            _ => ("tools/call", false),
        };
        let params = format!(r#"{{"uri":"{uri}","mark":"c{n}","level":"{LEVEL}","v":{value}{meta},"l":"{long}"}}"#);
        let template = Template(match self.choices.below(3) {
            0 => format!("{{\n \"params\" : {params},\r\n\"id\" : {ID} ,\"method\":\"{method}\",\"jsonrpc\":\"2.0\"}}"),
            1 => format!(r#"{{"x":{value},"\u0069d":{ID},"method":"{method}","params":{params},"jsonrpc":"2.0"}}"#),
            _ => format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"{method}","params":{params}}}"#),
        });
        let text = template.with(&id, token.as_deref().unwrap_or_default()).replace(LEVEL, "info");
        self.calls.push(Call {
            template,
            id,
            token,
            session: 0,
            posted: self.w.now,
            key: String::new(),
            taken: None,
            noted: 0,
            heard: 0,
            answered: false,
            answered_at: None,
            received: false,
            by_proxy: false,
            excused: false,
            dead: false,
            own_answer,
        });
        (n, text)
    }

    fn posts_calls(&mut self, who: usize) {
        if self.people[who].revision != "2025-03-26" || self.choices.chance(70) {
            let (call, text) = self.makes_call();
            self.send(who, "POST", &text, Purpose::Calls(vec![call]));
            return;
        }
        let (mut calls, mut texts) = (Vec::new(), Vec::new());
        for _ in 0..=self.choices.below(3) {
            let (call, text) = self.makes_call();
            calls.push(call);
            texts.push(text);
        }
        self.send(who, "POST", &format!("[{}]", texts.join(",\n")), Purpose::Calls(calls));
    }

    /// An exchange of this client in its present session, for which `wanted` holds.
    fn errand_of(&mut self, who: usize, wanted: impl Fn(&Self, &ExchangeId, &Errand) -> bool) -> Option<ExchangeId> {
        let session = self.people[who].session.as_ref().map(|(session, _)| *session);
        let mine = |e: &Errand| e.client == who && (session.is_none() || session == Some(e.session));
        let found: Vec<ExchangeId> = self
            .errands
            .iter()
            .rev()
            .take(60)
            .filter(|(id, e)| mine(e) && wanted(self, id, e))
            .map(|(id, _)| *id)
            .collect();
        (!found.is_empty()).then(|| self.choices.of(&found))
    }

    fn resumes(&mut self, who: usize) {
        let lost = self.errand_of(who, |run, id, e| {
            let stream = matches!(e.purpose, Purpose::Listen | Purpose::Calls(_) | Purpose::Resume(_));
            stream && run.w.exchanges[id].over && e.last_event.is_some()
        });
        let Some(lost) = lost else { return };
        // What it was, before it was resumed for the first time.
        let mut origin = lost;
        while let Purpose::Resume(of) = self.errands[&origin].purpose {
            origin = of;
        }
        let last = self.errands[&lost].last_event.clone();
        for errand in self.errands.values_mut() {
            if errand.purpose == Purpose::Resume(origin) {
                errand.superseded = true;
            }
        }
        let errand = self.errands.get_mut(&origin).expect("it was just found");
        // The standalone stream may have several listeners; any other one has moved.
        errand.superseded = true;
        errand.last_event = last;
        let exchange = self.send(who, "GET", "", Purpose::Resume(origin));
        self.errands.get_mut(&exchange).expect("it was just made").last_event =
            self.errands[&origin].last_event.clone();
    }

    fn replies(&mut self, who: usize) {
        let forged = self.choices.chance(10);
        let session = self.people[who].session.as_ref().map_or(0, |(session, _)| *session);
        let known: Vec<(usize, bool)> = (self.people.iter().enumerate())
            .flat_map(|(p, person)| person.questions.iter().map(move |(q, s)| (*q, p == who && *s == session)))
            .filter(|(_, mine)| *mine != forged)
            .collect();
        let Some(&(question, mine)) = known.get(self.choices.below(known.len().max(1))) else { return };
        let Some(number) = self.questions[question].number.clone() else { return };
        if self.choices.chance(20) {
            // Progress of the answer.
            let n = self.replies.len();
            let template = Template(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{TOKEN},"mark":"k{n}"}}}}"#
            ));
            let text = template.with("", &number);
            self.replies.push(Reply { template, question, forged: !mine });
            self.send(who, "POST", &text, Purpose::Note);
            return;
        }
        let (n, value) = (self.replies.len(), self.choices.of(&VALUES));
        let template = Template(format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{"mark":"r{n}","v":{value}}}}}"#));
        let text = template.with(&number, "");
        self.replies.push(Reply { template, question, forged: !mine });
        self.send(who, "POST", &text, Purpose::Note);
    }

    fn cancels(&mut self, who: usize) {
        let open =
            self.errand_of(who, |run, id, e| matches!(&e.purpose, Purpose::Calls(_)) && !run.w.exchanges[id].over);
        let Some(Purpose::Calls(calls)) = open.map(|open| self.errands[&open].purpose.clone()) else { return };
        let id = self.calls[self.choices.of(&calls)].id.clone();
        let session = self.people[who].session.as_ref().map_or(0, |(session, _)| *session);
        // It may mean any of its calls under this id.
        let plain = |id: &str| id.replace(r"\u0061", "a");
        for call in self.calls.iter_mut().filter(|c| c.session == session && plain(&c.id) == plain(&id)) {
            call.excused = true;
        }
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
        self.send(who, "POST", &text, Purpose::Note);
    }

    fn remarks(&mut self, who: usize) {
        let n = self.remarks.len();
        let value = self.choices.of(&VALUES);
        let template = Template(format!(
            r#"{{"method":"notifications/x","params":{{"mark":"m{n}","v":{value}}},"jsonrpc":"2.0"}}"#
        ));
        let exchange = self.send(who, "POST", &template.0.clone(), Purpose::Note);
        self.remarks.push(Remark { template, key: self.errands[&exchange].key.clone() });
    }

    fn leaves(&mut self, who: usize) {
        let open = self.errand_of(who, |run, id, _| !run.w.exchanges[id].over);
        if let Some(open) = open {
            self.errands.get_mut(&open).expect("it was just found").left = true;
            self.w.client_leaves(open);
        }
    }

    fn talks_nonsense(&mut self, who: usize) {
        let bodies = [
            "",
            "{",
            "[]",
            "null",
            r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"x"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}]"#,
            "\u{0}",
        ];
        if self.people[who].session.is_some() && self.choices.chance(30) {
            let guess = self.choices.of(&["999-1", "0", "-", "1-1-1", "18446744073709551616-1"]);
            let http = self.people[who].http.clone();
            self.people[who].http = http.clone().with("last-event-id", guess);
            self.send(who, "GET", "", Purpose::Nonsense);
            self.people[who].http = http;
            return;
        }
        let (method, body) = (self.choices.of(&["POST", "POST", "PUT", "OPTIONS"]), self.choices.of(&bodies));
        self.send(who, method, body, Purpose::Nonsense);
    }

    // ---- what comes back ----

    /// A client reads a whole body.
    pub(super) fn client_hears_body(&mut self, x: ExchangeId, response: &HttpResponse, body: &[u8]) {
        let text = std::str::from_utf8(body).expect("a body is UTF-8");
        let errand = &self.errands[&x];
        let (who, session) = (errand.client, errand.session);
        let excused = !self.clean || self.stopping.is_some();
        match (response.status, &errand.purpose) {
            (202, Purpose::Note) | (200, Purpose::Delete) => assert_eq!(text, ""),
            (200, Purpose::Calls(_)) if errand.batch => {
                for part in rpc::parse_batch(body).expect("an array") {
                    self.client_hears(x, part);
                }
            }
            (200, Purpose::Calls(_) | Purpose::Hello(_)) => self.client_hears(x, text),
            (400.., Purpose::Nonsense) => {}
            (404, _) => {
                assert!(!has_no_sessions(self.server_of(who)), "404 without sessions");
                let ended = self.people[who].session.as_ref().is_none_or(|(s, _)| *s != session);
                let deleted = self.errands.values().any(|e| e.session == session && e.purpose == Purpose::Delete);
                assert!(excused || ended || deleted, "404: the session {session} is lost");
                if !ended {
                    self.people[who].session = None;
                }
                self.refused(x, text);
            }
            (
                400 | 503,
                Purpose::Calls(_) | Purpose::Hello(_) | Purpose::Listen | Purpose::Resume(_) | Purpose::Note,
            )
            | (503, Purpose::Delete) => {
                assert!(excused, "{x:?} was refused: {text}");
                self.refused(x, text);
            }
            other => panic!("{x:?} was answered {other:?}: {text}"),
        }
        if errand_is_delete(&self.errands[&x].purpose) && response.status == 200 {
            let ended = self.people[who].session.as_ref().is_some_and(|(s, _)| *s == session);
            if ended {
                self.people[who].session = None;
            }
        }
    }

    /// A refusal names the request, or none.
    fn refused(&mut self, x: ExchangeId, text: &str) {
        let message = rpc::parse_str(text).expect("a refusal is a message");
        let rpc::Kind::Response { id, outcome: Err(_) } = message.kind else { panic!("{x:?}: no error: {text}") };
        let calls = self.calls_of(x);
        let ids: Vec<&str> = match &self.errands[&x].purpose {
            Purpose::Hello(id) => vec![id],
            _ => calls.iter().map(|call| &*self.calls[*call].id).collect(),
        };
        assert!(id.is_none_or(|id| ids.contains(&id.0)), "{x:?}: an id that nobody used: {text}");
        if let Purpose::Calls(calls) = self.errands[&x].purpose.clone() {
            calls.into_iter().for_each(|call| self.calls[call].received = true);
        }
    }

    pub(super) fn client_hears_event(&mut self, x: ExchangeId, event: SseEvent) {
        let errand = self.errands.get_mut(&x).expect("every exchange has an errand");
        let (who, session) = (errand.client, errand.session);
        let data = event.data.unwrap_or_default();
        if let Some(id) = &event.id {
            if let Some(last) = &errand.last_event {
                let parts = |id: &str| id.split_once('-').map(|(s, n)| (s.to_owned(), n.parse::<u64>().unwrap()));
                let (last, new) = (parts(last).unwrap(), parts(id).unwrap());
                let mixed = errand.purpose != Purpose::Listen && last.0 != new.0;
                assert!(!mixed || !matches!(errand.purpose, Purpose::Calls(_)), "{x:?}: event ids of two streams");
                assert!(mixed || new.1 >= last.1, "{x:?}: event {new:?} comes after {last:?}");
            }
            errand.last_event = Some(id.clone());
            if !data.is_empty() {
                let seen = self.people[who].seen.insert((session, id.clone()), data.clone());
                if let Some(before) = seen {
                    assert_eq!(before, data, "{x:?}: event {id} is another one now");
                    // A client may resume its standalone stream while it has a newer one; then it hears things twice.
                    let again = self.errands.values().any(|e| {
                        e.session == session && matches!(&e.purpose, Purpose::Resume(of) if self.same_stream(x, *of))
                    });
                    assert!(again, "{x:?}: event {id} came twice: {data}");
                    return;
                }
            }
        }
        if !data.is_empty() {
            self.client_hears(x, &data);
        }
    }

    /// Whether an exchange carries the stream of another, or both are standalone ones.
    fn same_stream(&self, x: ExchangeId, origin: ExchangeId) -> bool {
        let root = match self.errands[&x].purpose {
            Purpose::Resume(of) => of,
            _ => x,
        };
        root == origin
            || (self.errands[&root].purpose == Purpose::Listen && self.errands[&origin].purpose == Purpose::Listen)
    }

    /// A client hears one message.
    fn client_hears(&mut self, x: ExchangeId, text: &str) {
        let message = rpc::parse_str(text).unwrap_or_else(|e| panic!("{x:?}: no message ({e}): {text}"));
        match message.kind {
            rpc::Kind::Response { id, outcome } => {
                let id = id.unwrap_or_else(|| panic!("{x:?}: an answer to nothing: {text}")).0.to_owned();
                let ok = outcome.is_ok();
                if let Purpose::Hello(hello) = self.errands[&x].purpose.clone() {
                    assert_eq!(id, hello, "{x:?}: the answer to initialize has another id");
                    return self.client_is_welcomed(x, text, &id, ok);
                }
                self.client_is_answered(x, text, &id, ok);
            }
            rpc::Kind::Request { id, .. } => {
                let number = id.0.to_owned();
                self.client_is_asked(x, text, &number);
            }
            rpc::Kind::Notification { method, params } => {
                if method == "notifications/cancelled" {
                    let id = rpc::member(params, "requestId").unwrap().expect("it names a request").get();
                    let (who, session) = (self.errands[&x].client, self.errands[&x].session);
                    let asked = self.people[who]
                        .questions
                        .iter()
                        .any(|(q, s)| *s == session && self.questions[*q].number.as_deref() == Some(id));
                    // The question itself may have been lost with a connection, be too old to be kept, or be on its way
                    // on another one.
                    let lossy = !self.clean || self.errands.values().any(|e| e.client == who && e.left);
                    let mut others = self.errands.iter().filter(|(_, e)| e.client == who);
                    let on_its_way = others.any(|(id, _)| self.w.exchanges[id].writing.is_some());
                    assert!(
                        asked || lossy || on_its_way,
                        "{x:?}: a question that was never asked is taken back: {text}"
                    );
                    return;
                }
                self.client_is_told(x, text);
            }
        }
    }

    fn client_is_welcomed(&mut self, x: ExchangeId, text: &str, id: &str, ok: bool) {
        let Some(('i', n)) = mark(text) else {
            let excused = !self.clean || self.stopping.is_some();
            assert!(!ok && excused, "{x:?}: initialize failed: {text}");
            return;
        };
        let welcome = &self.welcomes[n];
        assert_eq!(text, welcome.template.with(id, ""), "{x:?}: the answer to initialize was changed");
        let errand = &self.errands[&x];
        let key = self.processes.get_mut(&welcome.child).expect("it spoke").key.get_or_insert(errand.key.clone());
        assert_eq!(*key, errand.key, "{x:?}: a welcome of another server");
        if !ok {
            return;
        }
        let (who, session, key) = (errand.client, errand.session, errand.key.clone());
        let response = self.w.exchanges[&x].response.as_ref().expect("it was answered");
        let name = response.headers.get("mcp-session-id").map(str::to_owned);
        assert_eq!(name.is_none(), has_no_sessions(self.server_of(who)), "{x:?}: a session where there are none");
        let person = &mut self.people[who];
        if name.is_some() {
            person.http.session = name;
            person.http.revision = Some(person.revision.into());
            person.session = Some((session, key));
            person.initialized = false;
        }
    }

    fn client_is_answered(&mut self, x: ExchangeId, text: &str, id: &str, ok: bool) {
        let mine = self.calls_of(x);
        let excused = !self.clean || self.stopping.is_some();
        if let Some(('a', n)) = mark(text) {
            let answer = &self.answers[n];
            assert!(mine.contains(&answer.call), "{x:?}: an answer that belongs elsewhere: {text}");
            assert_eq!(text, answer.template.with(&self.calls[answer.call].id, ""), "{x:?}: an answer was changed");
            let (n, noted) = (answer.call, answer.noted);
            self.reconsider(x, n);
            let call = &mut self.calls[n];
            assert!(!call.received, "{x:?}: a second answer: {text}");
            call.received = true;
            // On one unbroken stream nothing is missing.
            let unbroken = matches!(self.errands[&x].purpose, Purpose::Calls(_));
            let complete = !unbroken || !self.clean || call.heard == noted;
            assert!(complete, "{x:?}: {} of {noted} progress notes came", call.heard);
            return;
        }
        let found = mine.iter().copied().filter(|call| self.calls[*call].id == id && !self.calls[*call].received);
        // With equal ids in one batch, the one that the proxy had a reason for.
        let found = found.max_by_key(|call| self.calls[*call].excused || (ok && self.calls[*call].own_answer));
        let Some(found) = found else { panic!("{x:?}: an answer to nothing: {text}") };
        let call = &mut self.calls[found];
        (call.received, call.by_proxy) = (true, true);
        if ok {
            assert!(call.own_answer, "{x:?}: the proxy made up an answer: {text}");
        } else {
            assert!(excused || call.excused, "{x:?}: the proxy failed a call for no reason: {text}");
            let due = call.posted + self.w.config.timeouts.request;
            let unread = text.contains("timed out") && call.answered_at.is_some_and(|at| at < due);
            assert!(!unread, "{x:?}: the server answered in time, and was not read: {text}");
            // With equal ids it might be another one that is dead.
            call.dead = mine.len() == 1 && (text.contains("the server failed: ") || text.contains("try again later"));
        }
    }

    /// A call is not over, though the proxy seems to have answered it: that was another one with the same id, then.
    fn reconsider(&mut self, x: ExchangeId, n: usize) {
        if !self.calls[n].by_proxy {
            return;
        }
        let alike = |c: &usize| *c != n && self.calls[*c].id == self.calls[n].id && !self.calls[*c].received;
        if let Some(other) = self.calls_of(x).into_iter().find(alike) {
            (self.calls[other].received, self.calls[other].by_proxy) = (true, true);
            (self.calls[n].received, self.calls[n].by_proxy) = (false, false);
        }
    }

    fn client_is_asked(&mut self, x: ExchangeId, text: &str, number: &str) {
        let Some(('q', n)) = mark(text) else { panic!("{x:?}: who asked this? {text}") };
        let errand = &self.errands[&x];
        let question = &mut self.questions[n];
        assert_eq!(text, question.template.with(number, number), "{x:?}: a question was changed");
        let key = self.processes.get_mut(&question.child).expect("it spoke").key.get_or_insert(errand.key.clone());
        assert_eq!(*key, errand.key, "{x:?}: a question of another server: {text}");
        if let Some(call) = question.call {
            let same = self.calls[call].session == errand.session;
            assert!(same || self.calls[call].is_old(self.w.now), "{x:?}: a question for another client: {text}");
        }
        assert!(question.number.is_none(), "{x:?}: a question came twice: {text}");
        question.number = Some(number.to_owned());
        self.people[errand.client].questions.push((n, errand.session));
    }

    fn client_is_told(&mut self, x: ExchangeId, text: &str) {
        let errand = &self.errands[&x];
        let Some((letter, n)) = mark(text) else { panic!("{x:?}: who said this? {text}") };
        let note = &self.notes[n];
        let key = self.processes.get_mut(&note.child).expect("it spoke").key.get_or_insert(errand.key.clone());
        assert_eq!(*key, errand.key, "{x:?}: word of another server: {text}");
        if letter != 'p' {
            assert_eq!(text, note.template.0, "{x:?}: a notification was changed");
            if let Some(call) = note.call {
                let same = self.calls[call].session == errand.session;
                assert!(
                    same || self.calls[call].is_old(self.w.now),
                    "{x:?}: word about c{call} for another client: {text}"
                );
            }
            return;
        }
        let call = note.call.expect("progress is that of a call");
        assert!(self.calls_of(x).contains(&call), "{x:?}: progress that belongs elsewhere: {text}");
        self.reconsider(x, call);
        let note = &self.notes[n];
        let call = &mut self.calls[call];
        let token = call.token.as_deref().unwrap_or("none");
        assert_eq!(text, note.template.with("", token), "{x:?}: progress was changed");
        assert!(!call.received, "{x:?}: progress after the answer: {text}");
        assert!(note.place > call.heard, "{x:?}: progress out of order: {text}");
        assert!(note.place < usize::MAX, "{x:?}: progress said after the answer: {text}");
        // Some may have been lost with a connection; on an unbroken one none is.
        let unbroken = matches!(self.errands[&x].purpose, Purpose::Calls(_)) && self.clean;
        assert!(!unbroken || note.place == call.heard + 1, "{x:?}: progress is missing before {text}");
        call.heard = note.place;
    }
}

fn errand_is_delete(purpose: &Purpose) -> bool {
    *purpose == Purpose::Delete
}
