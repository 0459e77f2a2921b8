//! The servers of a random run: what they read, and what they say.

use std::collections::BTreeSet;

use mcp_proxy_engine::wire::rpc;
use mcp_proxy_engine::{ChildId, Exit, Pipe};

use super::clients::VALUES;
use super::model::{Answer, ID, LEVEL, Note, Question, TOKEN, Template, Welcome, mark};
use super::random::Run;

/// One server process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// What its clients have in common; known from its first message on.
    pub(super) key: Option<String>,
    /// The number of the `initialize` that it has not answered.
    hello: Option<String>,
    shaken: bool,
    ready: bool,
    initialized: bool,
    pending: Vec<Pending>,
    /// The numbers of all requests it got.
    numbers: BTreeSet<String>,
    /// What it answered last.
    last: Option<String>,
    /// Its questions.
    questions: Vec<usize>,
    /// Ids of questions that the proxy answered by an error.
    refusals: Vec<String>,
}

/// A request that a server has not answered.
#[derive(Clone, Debug)]
struct Pending {
    number: String,
    /// `None`: the proxy's own.
    call: Option<usize>,
}

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
const QUESTION_IDS: [&str; 4] = ["1", "2", r#""q""#, r#""\u0071""#];

impl Run<'_> {
    /// A server reads a line.
    pub(super) fn server_reads(&mut self, id: ChildId, line: &str) {
        let message = rpc::parse_str(line).unwrap_or_else(|e| panic!("{id:?} read no message ({e}): {line}"));
        match message.kind {
            rpc::Kind::Request { id: number, method, params } => {
                let number = number.0.to_owned();
                let process = self.processes.get_mut(&id).expect("it runs");
                assert!(process.numbers.insert(number.clone()), "{id:?} read a number twice: {line}");
                if method == "initialize" {
                    let version = rpc::member(params, "protocolVersion").unwrap().and_then(rpc::string);
                    let version = version.unwrap_or_default().into_owned();
                    return self.server_is_greeted(id, line, number, &version);
                }
                if method == "server/discover" {
                    // It refused `initialize`, and is asked whether it is a modern one. It is not.
                    return process.pending.push(Pending { number, call: None });
                }
                assert!(process.ready, "{id:?} read a request before the handshake was done: {line}");
                self.server_is_called(id, line, number, &method);
            }
            rpc::Kind::Notification { method, params } => {
                let process = self.processes.get_mut(&id).expect("it runs");
                assert!(process.ready, "{id:?} read a notification before the handshake was done: {line}");
                match (&*method, mark(line)) {
                    ("notifications/initialized", _) => {
                        assert!(!process.initialized, "{id:?} is told twice that the client is ready");
                        process.initialized = true;
                        self.initialized.extend(process.key.clone());
                    }
                    ("notifications/cancelled", _) => {
                        let number = rpc::member(params, "requestId").unwrap().expect("it names a request").get();
                        assert!(process.numbers.contains(number), "{id:?}: what it never got is cancelled: {line}");
                    }
                    (_, Some(('m', n))) => {
                        assert_eq!(line, self.remarks[n].template.0, "{id:?}: a notification was changed");
                        assert_eq!(
                            process.key.as_deref(),
                            Some(&*self.remarks[n].key),
                            "{id:?}: wrong process: {line}"
                        );
                    }
                    (_, Some(('k', n))) => {
                        let reply = &self.replies[n];
                        let question = &self.questions[reply.question];
                        assert!(!reply.forged && question.child == id, "{id:?}: progress of another: {line}");
                        assert_eq!(line, reply.template.with("", &question.token), "{id:?}: progress was changed");
                    }
                    _ => panic!("{id:?}: who said this? {line}"),
                }
            }
            rpc::Kind::Response { id: number, outcome } => {
                let number = number.expect("the proxy never answers null").0.to_owned();
                self.server_is_answered(id, line, &number, outcome.is_ok());
            }
        }
    }

    fn server_is_greeted(&mut self, id: ChildId, line: &str, number: String, version: &str) {
        let process = self.processes.get_mut(&id).expect("it runs");
        assert!(!process.shaken, "{id:?} was greeted twice");
        let key = match mark(line) {
            Some(('h', n)) => {
                assert_eq!(line, self.hellos[n].template.line(&number, ""), "{id:?}: initialize was changed");
                self.hellos[n].key.clone()
            }
            _ => String::new(),
        };
        (process.shaken, process.hello) = (true, Some(number));
        // A client without a session is introduced by the proxy; whose process it is, the first call shows.
        process.key = (!key.is_empty()).then_some(key);
        assert!(process.key.is_some() || line.contains("\"mcp-proxy\"") && !version.is_empty(), "{id:?}: {line}");
    }

    fn server_is_called(&mut self, id: ChildId, line: &str, number: String, method: &str) {
        let process = self.processes.get_mut(&id).expect("it runs");
        let Some(('c', n)) = mark(line) else {
            let own = ["logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
            assert!(own.contains(&method), "{id:?}: who asks this? {line}");
            process.pending.push(Pending { number, call: None });
            return;
        };
        let call = &mut self.calls[n];
        assert!(call.taken.is_none(), "{id:?}: a call comes twice: {line}");
        assert!(!call.dead, "{id:?}: a call comes after its client was told that it failed: {line}");
        let key = process.key.get_or_insert_with(|| call.key.clone());
        assert_eq!(*key, call.key, "{id:?}: a call of another kind of client: {line}");
        // A shared process may serve a client whose predecessors have said so, and those that have not.
        let told = process.initialized || !key.contains(" alone ") || !self.initialized.contains(key);
        assert!(told, "{id:?}: a restarted process was not told that its client is ready: {line}");
        let expected = call.template.line(&number, &number);
        // The level may be that of a more curious client.
        let levels: &[&str] = if method == "logging/setLevel" { &LEVELS } else { &["info"] };
        let same = levels.iter().any(|level| expected.replace(LEVEL, level) == line);
        assert!(same, "{id:?}: a call was changed: {line} should be {expected}");
        call.taken = Some((id, number.clone()));
        process.pending.push(Pending { number, call: Some(n) });
    }

    fn server_is_answered(&mut self, id: ChildId, line: &str, number: &str, ok: bool) {
        let process = self.processes.get_mut(&id).expect("it runs");
        if number == "\"ping\"" {
            assert!(ok, "{id:?}: a ping failed");
            return;
        }
        match mark(line) {
            Some(('r', n)) => {
                let reply = &self.replies[n];
                let question = &mut self.questions[reply.question];
                assert!(!reply.forged, "{id:?}: an answer of a client that was not asked: {line}");
                assert_eq!(question.child, id, "{id:?}: an answer to another server: {line}");
                assert_eq!(line, reply.template.line(&question.id, ""), "{id:?}: an answer was changed");
                assert!(!question.over, "{id:?}: a second answer: {line}");
                question.over = true;
            }
            _ => {
                assert!(!ok, "{id:?}: the proxy made up an answer: {line}");
                process.refusals.push(number.to_owned());
            }
        }
        // With equal ids, which of them was refused only the proxy knows; but none may be answered twice.
        let asked = process.questions.iter().map(|q| &self.questions[*q]).filter(|q| q.id == number);
        let refused = process.refusals.iter().filter(|id| *id == number).count();
        let (asked, over) = asked.fold((0, 0), |(asked, over), q| (asked + 1, over + usize::from(q.over)));
        assert!(refused + over <= asked, "{id:?}: {asked} questions have {} answers: {line}", refused + over);
    }

    // ---- what it says ----

    fn can_speak(&self, id: ChildId) -> bool {
        let child = &self.w.children[&id];
        child.lives() && !child.stdout.eof && !child.stdout.ended && !child.stdout.dropped
    }

    fn say(&mut self, id: ChildId, line: &str) {
        let ends: [&[u8]; 3] = [b"\n", b"\r\n", b" \t\n"];
        let end = self.choices.of(&ends);
        let buffer = &mut self.w.out_mut(Pipe::ChildStdout(id)).buffer;
        buffer.extend_from_slice(line.as_bytes());
        buffer.extend_from_slice(end);
    }

    pub(super) fn some_server_acts(&mut self) {
        let able: Vec<ChildId> = self.processes.keys().copied().filter(|id| self.can_speak(*id)).collect();
        if able.is_empty() {
            return;
        }
        let id = self.choices.of(&able);
        if let Some(number) = self.processes[&id].hello.clone()
            && self.choices.chance(60)
        {
            return self.greets(id, &number);
        }
        match self.choices.below(100) {
            0..42 => self.answers(id),
            42..57 => self.notes_progress(id),
            57..66 => self.logs(id),
            66..73 => self.asks(id),
            73..77 => self.tells_changes(id),
            77..80 => self.takes_back(id),
            80..86 => self.babbles(id),
            _ if !self.clean => self.misbehaves(id),
            _ => {}
        }
    }

    fn greets(&mut self, id: ChildId, number: &str) {
        let n = self.welcomes.len();
        let key = self.processes[&id].key.clone();
        // Unmarked greetings are the proxy's own: they are known by the version in them, which the key ends with.
        let refuses = !self.clean && !self.calm && self.choices.chance(10);
        let template = Template(if refuses {
            format!(
                r#"{{"jsonrpc":"2.0","id":{ID},"error":{{"code":-32602,"message":"no","data":{{"mark":"i{n}"}}}}}}"#
            )
        } else {
            let revision = self.choices.of(&["2025-03-26", "2025-06-18", "2025-11-25"]);
            let revision = key.as_deref().and_then(revision_in).unwrap_or(revision);
            let value = self.choices.of(&VALUES);
            format!(
                r#"{{"jsonrpc":"2.0","id":{ID},"result":{{"protocolVersion":"{revision}","capabilities":{{}},"mark":"i{n}","v":{value}}}}}"#
            )
        });
        let text = template.with(number, "");
        self.say(id, &text);
        self.welcomes.push(Welcome { template, child: id });
        let process = self.processes.get_mut(&id).expect("it runs");
        process.hello = None;
        process.ready = !refuses;
    }

    fn pick(&mut self, id: ChildId, wanted: impl Fn(&Self, &Pending) -> bool) -> Option<Pending> {
        let pending = &self.processes[&id].pending;
        let found: Vec<Pending> = pending.iter().filter(|p| wanted(self, p)).cloned().collect();
        let at = self.choices.below(found.len().max(1));
        found.into_iter().nth(at)
    }

    fn answers(&mut self, id: ChildId) {
        if let Some(pending) = self.pick(id, |_, _| true) {
            self.answer_pending(id, &pending);
        }
    }

    fn answer_pending(&mut self, id: ChildId, pending: &Pending) {
        let process = self.processes.get_mut(&id).expect("it runs");
        process.pending.retain(|p| p.number != pending.number);
        let n = self.answers.len();
        let value = self.choices.of(&VALUES);
        let template = Template(match self.choices.below(4) {
            _ if pending.call.is_none() => format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{}}}}"#),
            0 => format!(
                r#"{{"error":{{"message":"é","data":{{"mark":"a{n}","v":{value}}},"code":-5}}, "id" :{ID},"jsonrpc":"2.0"}}"#
            ),
            1 => format!(
                r#"{{ "result":{{"mark":"a{n}","v":[{value}, {value}]}}, "jsonrpc":"\u0032.0","x":{value},"id":{ID}}}"#
            ),
            2 => format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{"mark":"a{n}","v":"{}"}}}}"#, "é".repeat(200)),
            _ => format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{"mark":"a{n}","v":{value}}}}}"#),
        });
        let text = template.with(&pending.number, "");
        self.say(id, &text);
        if let Some(call) = pending.call {
            self.calls[call].answered = true;
            self.calls[call].answered_at = self.calm.then_some(self.w.now);
            let noted = self.calls[call].noted;
            self.answers.push(Answer { template, call, noted });
        }
        self.processes.get_mut(&id).expect("it runs").last = Some(text);
    }

    fn notes_progress(&mut self, id: ChildId) {
        let Some(pending) = self.pick(id, |run, p| p.call.is_some_and(|call| run.calls[call].token.is_some())) else {
            return;
        };
        let Some(call) = pending.call else { return };
        let (n, value) = (self.notes.len(), self.choices.of(&VALUES));
        let template = Template(format!(
            r#"{{"method":"notifications/progress","params":{{"mark":"p{n}","progressToken":{TOKEN},"progress":{n},"v":{value}}},"jsonrpc":"2.0"}}"#
        ));
        let text = template.with("", &pending.number);
        self.calls[call].noted += 1;
        self.notes.push(Note { template, child: id, call: Some(call), place: self.calls[call].noted });
        self.say(id, &text);
    }

    fn logs(&mut self, id: ChildId) {
        let about = self.pick(id, |_, p| p.call.is_some()).filter(|_| self.choices.chance(80)).and_then(|p| p.call);
        let (n, level) = (self.notes.len(), self.choices.of(&LEVELS));
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":{{"mark":"l{n}"}}}}}}"#
        );
        self.notes.push(Note { template: Template(text.clone()), child: id, call: about, place: 0 });
        self.say(id, &text);
    }

    fn asks(&mut self, id: ChildId) {
        if self.choices.chance(20) {
            return self.say(id, r#"{"jsonrpc":"2.0","id":"ping","method":"ping"}"#);
        }
        if !self.processes[&id].ready {
            return;
        }
        let about = self.pick(id, |_, p| p.call.is_some()).and_then(|p| p.call);
        let (n, value) = (self.questions.len(), self.choices.of(&VALUES));
        let (server_id, token) =
            (self.choices.of(&QUESTION_IDS).to_owned(), self.choices.of(&["1", r#""tok""#]).to_owned());
        let template = Template(format!(
            r#"{{"jsonrpc":"2.0","id":{ID},"method":"sampling/createMessage","params":{{"mark":"q{n}","v":{value},"_meta":{{"progressToken":{TOKEN}}}}}}}"#
        ));
        let text = template.with(&server_id, &token);
        self.questions.push(Question {
            template,
            child: id,
            id: server_id,
            token,
            call: about,
            number: None,
            over: false,
        });
        self.processes.get_mut(&id).expect("it runs").questions.push(n);
        self.say(id, &text);
    }

    fn tells_changes(&mut self, id: ChildId) {
        let n = self.notes.len();
        let text = match self.choices.below(3) {
            0 => format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"file:///a/b","mark":"n{n}"}}}}"#
            ),
            1 => {
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"mark":"n{n}"}}}}"#)
            }
            _ => format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/prompts/list_changed","params":{{"mark":"n{n}"}}}}"#
            ),
        };
        self.notes.push(Note { template: Template(text.clone()), child: id, call: None, place: 0 });
        self.say(id, &text);
    }

    fn takes_back(&mut self, id: ChildId) {
        let questions = &self.processes[&id].questions;
        let Some(&question) = questions.get(self.choices.below(questions.len().max(1))) else { return };
        let number = self.questions[question].id.clone();
        self.say(
            id,
            &format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number}}}}}"#),
        );
    }

    /// What means nothing to anybody, and may not do harm.
    fn babbles(&mut self, id: ChildId) {
        let last = self.processes[&id].last.clone().unwrap_or_default();
        let lines = [
            "",
            "listening on port 80",
            "{",
            "[]",
            "[[]]",
            "{}",
            r#"{"jsonrpc":"2.0","id":999999,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":0,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"1","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":0,"progress":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"never"}}"#,
            "\u{1b}[1mbold\u{7f}",
        ];
        match self.choices.below(4) {
            // An answer that was given already.
            0 => self.say(id, &last),
            1 => {
                // Progress of a call that it has answered.
                let done =
                    |p: &usize| self.calls[*p].answered && self.calls[*p].taken.as_ref().is_some_and(|t| t.0 == id);
                let Some(call) = (0..self.calls.len()).rev().find(done) else { return };
                let Some((_, number)) = self.calls[call].taken.clone() else { return };
                let n = self.notes.len();
                let template = Template(format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{TOKEN},"mark":"p{n}"}}}}"#
                ));
                let text = template.with("", &number);
                self.notes.push(Note { template, child: id, call: Some(call), place: usize::MAX });
                self.say(id, &text);
            }
            _ => {
                let line = self.choices.of(&lines);
                self.say(id, line);
            }
        }
    }

    fn misbehaves(&mut self, id: ChildId) {
        match self.choices.below(14) {
            0..2 => {
                let Some(Pending { number, call: Some(call) }) = self.pick(id, |_, p| p.call.is_some()) else { return };
                let broken = [
                    format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}"#),
                    format!(r#"{{"jsonrpc":"2.0","id":{number},"result":1,"error":{{}}}}"#),
                    format!(r#"{{"jsonrpc":"1.0","id":{number},"result":{{}}}}"#),
                ];
                let kind = self.choices.below(4);
                self.processes.get_mut(&id).expect("it runs").pending.retain(|p| p.number != number);
                if let Some(line) = broken.get(kind) {
                    return self.say(id, line);
                }
                // More than tiny limits allow.
                let (n, noted) = (self.answers.len(), self.calls[call].noted);
                let long = "x".repeat(2000);
                let template =
                    Template(format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{"mark":"a{n}","v":"{long}"}}}}"#));
                self.say(id, &template.with(&number, ""));
                self.calls[call].answered = true;
                self.answers.push(Answer { template, call, noted });
            }
            2 => {
                let noise: &[u8] = if self.choices.chance(50) { b"\xff\xfe\n\x00\n" } else { b"\n\n\n\n\n" };
                self.w.out_mut(Pipe::ChildStdout(id)).buffer.extend_from_slice(noise);
            }
            3 => {
                if self.choices.chance(50) {
                    for _ in 0..2000 {
                        self.say(id, r#"{"jsonrpc":"2.0","id":"ping","method":"ping"}"#);
                    }
                    return;
                }
                let n = self.notes.len();
                let text = format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"mark":"n{n}","v":"{}"}}}}"#,
                    "x".repeat(900)
                );
                self.notes.push(Note { template: Template(text.clone()), child: id, call: None, place: 0 });
                for _ in 0..300 {
                    self.say(id, &text);
                }
            }
            4..6 => {
                let noise = "warning: something\n".repeat(1 + self.choices.below(5));
                let stderr = self.w.out_mut(Pipe::ChildStderr(id));
                if !stderr.ended && !stderr.dropped {
                    stderr.buffer.extend_from_slice(noise.as_bytes());
                }
            }
            6 => self.w.out_mut(Pipe::ChildStdout(id)).eof = true,
            7 => self.w.out_mut(Pipe::ChildStderr(id)).eof = true,
            8..10 => {
                let exits = [Exit::Code(0), Exit::Code(1), Exit::Signal(11), Exit::Unknown];
                let exit = self.choices.of(&exits);
                self.w.exited(id, exit);
            }
            10 => {
                // Half a line, and then the end.
                self.w.out_mut(Pipe::ChildStdout(id)).buffer.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
                self.w.exited(id, Exit::Signal(9));
            }
            _ => {}
        }
    }

    /// The server does one thing that is wanted of it; false if there is nothing.
    pub(super) fn server_obliges(&mut self, id: ChildId) -> bool {
        if !self.can_speak(id) || self.w.children[&id].stdin_dropped {
            return false;
        }
        if let Some(number) = self.processes[&id].hello.clone() {
            self.greets(id, &number);
            return true;
        }
        match self.pick(id, |_, _| true) {
            Some(pending) => {
                self.answer_pending(id, &pending);
                true
            }
            None => false,
        }
    }
}

fn revision_in(key: &str) -> Option<&'static str> {
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"].into_iter().find(|revision| key.contains(revision))
}
