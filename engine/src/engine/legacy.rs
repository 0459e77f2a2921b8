//! Legacy clients of modern servers, and calls of our own, as far as it takes all machines. How messages are translated is
//! told in [`crate::era`].

use log::{info, warn};
use serde_json::value::RawValue;

use super::Engine;
use crate::back::LinkId;
use crate::core::timers::Deadline;
use crate::era::catalog::{Wait, Waiter};
use crate::era::down::Filter;
use crate::era::envelope::{self, Envelope};
use crate::era::up::{Flight, Next, Told};
use crate::era::{mirror, result};
use crate::front::StreamId;
use crate::router::{AskId, CallId, Effect, Step};
use crate::wire::object::quote;
use crate::wire::rpc::{self, Kind, Message, code};

/// How long calls wait for a list of tools of a server that does not give one.
const CATALOG: std::time::Duration = std::time::Duration::from_secs(10);

impl Engine {
    // ---- legacy clients of modern servers ----

    /// What a legacy client says whose server is a modern one.
    pub(super) fn legacy_says(&mut self, link: LinkId, stream: StreamId, message: &Message<'_>) {
        let session = stream.session;
        match &message.kind {
            Kind::Request { id, method, params } => {
                let done =
                    |result: &str| format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.0).into_bytes();
                let refuse = |code, text: &str| rpc::error(Some(id.0), code, text);
                match &**method {
                    "ping" => self.reply(stream, 200, done("{}")),
                    "logging/setLevel" => {
                        let answer = if self.up.set_level(session, message) {
                            done("{}")
                        } else {
                            refuse(code::INVALID_PARAMS, "params.level is none of the known levels")
                        };
                        self.reply(stream, 200, answer);
                    }
                    "resources/subscribe" | "resources/unsubscribe" => {
                        let Some(uri) = envelope::text_of(*params, "uri") else {
                            return self.reply(
                                stream,
                                200,
                                refuse(code::INVALID_PARAMS, "params.uri must be a string"),
                            );
                        };
                        if self.router.subscriptions(link).len() >= self.core.config.limits.max_calls {
                            return self.reply(stream, 200, refuse(code::REFUSED, "too many subscriptions"));
                        }
                        self.router.note_subscription(session, &uri, method == "resources/subscribe");
                        self.reply(stream, 200, done("{}"));
                        self.listen_up(link);
                    }
                    "server/discover" | "subscriptions/listen" => {
                        self.reply(stream, 200, refuse(code::METHOD_NOT_FOUND, &format!("Method not found: {method}")));
                    }
                    _ => match self.up.enclose(session, message) {
                        Some(raw) => self.send_up(stream, &raw, 0, false),
                        None => self.reply(stream, 200, refuse(code::INVALID_PARAMS, "params must be an object")),
                    },
                }
            }
            Kind::Notification { method, params } if method == "notifications/cancelled" => {
                let wanted = rpc::member(*params, "requestId").ok().flatten().map(RawValue::get);
                let same = |id: &str| wanted.is_some_and(|wanted| crate::router::same_id(id, wanted));
                let cancelled = self.up.cancel(&mut self.core, session, same);
                let cancelled = cancelled.or_else(|| {
                    let (stream, id) = self.catalogs.cancel(session, same)?;
                    Some((stream, id, Vec::new()))
                });
                match cancelled {
                    Some((stream, id, open)) => {
                        self.withdraw(open);
                        if !self.front.is_stdio(session) {
                            self.reply(stream, 200, rpc::error(Some(&id), code::REFUSED, "Request cancelled"));
                        }
                    }
                    None => {
                        let step = self.router.client_says(&mut self.core, stream, message);
                        self.run(step);
                    }
                }
            }
            // Modern servers hear of nothing else: neither that the client is ready, nor that its roots have changed.
            Kind::Notification { .. } => {}
            Kind::Response { .. } => {
                let step = self.router.client_says(&mut self.core, stream, message);
                self.run(step);
            }
        }
    }

    /// Sends a request of a legacy client, in its envelope, to a modern server.
    pub(super) fn send_up(&mut self, stream: StreamId, raw: &str, rounds: u32, retried: bool) {
        let Some(link) = self.router.link_of(stream.session) else { return };
        let Ok(message) = rpc::parse_str(raw) else { return };
        let Kind::Request { method, params, .. } = &message.kind else { return };
        let mut mirrored = Vec::new();
        if method == "tools/call" && self.back.is_remote(&self.core, link) {
            match self.catalogs.get(link) {
                Some(catalog) => mirrored = catalog.headers(*params),
                None => {
                    let waiter = Waiter::Legacy(stream, raw.to_owned(), rounds, retried);
                    return match self.catalogs.wait(&self.core, link, waiter) {
                        Wait::Asked => {}
                        Wait::Ask => self.ask_for_tools(link, None),
                        Wait::Full => {
                            let text = "too many calls wait for the server's list of tools; try again later";
                            self.fail_raw(stream, raw, text);
                        }
                    };
                }
            }
        }
        let step = self.router.client_says(&mut self.core, stream, &message);
        if let Step::Send { call: Some(call), .. } = &step {
            let raw = result::may_ask(method).then(|| raw.to_owned());
            self.up.sent(*call, Flight { method: method.clone().into_owned(), raw, rounds, retried });
        }
        self.send_mirrored(step, mirrored);
    }

    /// A modern server answered a legacy client's call.
    pub(super) fn answer_legacy(
        &mut self,
        link: LinkId,
        call: CallId,
        stream: StreamId,
        id: &str,
        message: &Message<'_>,
    ) {
        let Kind::Response { id: Some(theirs), outcome } = &message.kind else { return };
        let flight = self.up.landed(call);
        let method = flight.as_ref().map(|flight| flight.method.clone()).unwrap_or_default();
        let fail = |text: &str| rpc::error(Some(id), code::INTERNAL, text);
        let translated = match outcome {
            Ok(result) => match result::kind(result).as_deref() {
                Some("input_required") => {
                    let (Some(flight), Some(asking)) = (flight, result::input_required(result)) else {
                        return self.reply(
                            stream,
                            200,
                            fail("the server asks something, but its question is malformed"),
                        );
                    };
                    return match self.up.asked(&mut self.core, stream, id, flight, asking) {
                        Next::Ask(questions) => self.question(stream, questions),
                        Next::Wait => {}
                        Next::Fail(text) => self.reply(stream, 200, fail(&text)),
                    };
                }
                Some("complete") | None => {
                    let valid = self.valid_tools(link, &method, result);
                    result::legacy(valid.as_deref().unwrap_or(result.get())).or(valid)
                }
                Some(other) => {
                    let text = format!("the server answered with a result of the unknown type {other:?}");
                    return self.reply(stream, 200, fail(&text));
                }
            },
            Err(error) => {
                if result::code_of(error) == Some(result::code::HEADER_MISMATCH)
                    && let Some(Flight { raw: Some(raw), rounds, retried: false, .. }) = flight
                    && method == "tools/call"
                    && let Ok(parsed) = rpc::parse_str(&raw)
                    && let Kind::Request { id: own, .. } = &parsed.kind
                {
                    // The list of tools has changed under us.
                    self.catalogs.outdated(link);
                    let raw = rpc::splice(parsed.raw, &mut [(own.0, id)]);
                    return match String::from_utf8(raw) {
                        Ok(raw) => self.send_up(stream, &raw, rounds, true),
                        Err(_) => self.reply(stream, 200, fail("the call cannot be sent again")),
                    };
                }
                result::legacy_error(error, &method)
            }
        };
        let part = outcome.map_or_else(RawValue::get, RawValue::get);
        let mut edits = vec![(theirs.0, id)];
        edits.extend(translated.as_deref().map(|new| (part, new)));
        let message = rpc::splice(message.raw, &mut edits);
        self.reply(stream, 200, message);
    }

    /// A list of tools of a modern remote server, without those whose header fields could not be sent; `None`: all can.
    pub(super) fn valid_tools(&self, link: LinkId, method: &str, result: &RawValue) -> Option<String> {
        if method != "tools/list" || !self.back.is_remote(&self.core, link) {
            return None;
        }
        let (valid, invalid) = mirror::without_invalid(result)?;
        for (tool, reason) in invalid {
            warn!("link#{}: the tool {tool:?} is left out: {reason}", link.0);
        }
        Some(valid)
    }

    /// Puts the questions of a modern server to a legacy client.
    fn question(&mut self, stream: StreamId, questions: Vec<(AskId, Vec<u8>)>) {
        for (ask, message) in questions {
            match self.router.question(&mut self.core, stream, ask, message) {
                Some(step) => self.run(step),
                None => {
                    // With that the call has failed, and none of its other questions wants an answer.
                    let error = format!(r#"{{"message":{}}}"#, quote("too many questions wait for the client"));
                    return self.told(ask, Err(error));
                }
            }
        }
    }

    /// A legacy client answered a question of ours.
    pub(super) fn told(&mut self, ask: AskId, outcome: Result<String, String>) {
        match self.up.told(ask, outcome) {
            Told::Nothing => {}
            Told::Retry(retry) => self.send_up(retry.stream, &retry.raw, retry.rounds, false),
            Told::Fail { stream, id, text, open } => {
                self.withdraw(open);
                self.reply(stream, 200, rpc::error(Some(&id), code::INTERNAL, &text));
            }
        }
    }

    /// Takes questions back.
    fn withdraw(&mut self, open: Vec<AskId>) {
        for ask in open {
            let step = self.router.withdraw(&mut self.core, ask);
            self.run(step);
        }
    }

    // ---- calls of our own ----

    /// Opens the subscription that the legacy clients of a modern server share, with what they want to hear of now.
    pub(super) fn listen_up(&mut self, link: LinkId) {
        if !self.back.is_ready(link) || !self.back.is_modern(link) {
            return;
        }
        let anybody = self.router.sessions_of(link).any(|session| !self.front.is_ephemeral(session));
        let answer = self.back.answer(link).unwrap_or_default().to_owned();
        let mut filter = Filter::default();
        if anybody && let Ok(Message { kind: Kind::Response { outcome: Ok(said), .. }, .. }) = rpc::parse_str(&answer) {
            filter.lists.extend(["tools", "prompts", "resources"]);
            filter.resources = self.router.subscriptions(link);
            let capabilities = rpc::member(Some(said), "capabilities").ok().flatten().map_or("{}", RawValue::get);
            filter = filter.honoured(capabilities);
        }
        let shown = if filter.is_empty() { String::new() } else { filter.show() };
        if !self.up.filter_changed(link, &shown) {
            return;
        }
        let call = (!filter.is_empty()).then(|| self.router.open_own(&mut self.core, link, Effect::Listen));
        if let Some(call) = call {
            let params = format!(r#"{{"notifications":{shown}}}"#);
            let line = Envelope::own().request(call.0, "subscriptions/listen", &params).into_bytes();
            let _ = self.back.send(&mut self.core, link, rpc::line(line));
        }
        for over in self.up.opened(link, call, shown) {
            self.cancel_own(over);
        }
    }

    fn cancel_own(&mut self, call: CallId) {
        if let Some((link, line)) = self.router.cancel_own(&mut self.core, call) {
            let _ = self.back.send(&mut self.core, link, line);
        }
    }

    /// Takes what comes on a subscription of our own. False if it is something else, or is to be passed on.
    pub(super) fn own_subscription_says(&mut self, link: LinkId, message: &Message<'_>) -> bool {
        let Kind::Notification { method, params } = &message.kind else { return false };
        let meta = rpc::member(*params, "_meta").ok().flatten();
        let id = rpc::member(meta, result::SUBSCRIPTION).ok().flatten().map(RawValue::get);
        if method == "notifications/cancelled" {
            let wanted = rpc::member(*params, "requestId").ok().flatten().map(RawValue::get);
            if let Some(call) = wanted.and_then(|wanted| self.router.own_subscription(link, wanted)) {
                self.router.bury(&mut self.core, call.0);
                self.up.ended(&mut self.core, link, call, false);
                return true;
            }
            return false;
        }
        let Some(id) = id else { return false };
        let Some(call) = self.router.own_subscription(link, id) else {
            // It is a modern client's, or one that is over: then nobody wants to hear it.
            return self.router.call_of(link, id).is_none();
        };
        let acknowledged = method == "notifications/subscriptions/acknowledged";
        let (counts, over) = self.up.heard(link, call, acknowledged);
        if let Some(over) = over {
            self.cancel_own(over);
        }
        !counts
    }

    /// Asks a server for a page of its list of tools.
    pub(super) fn ask_for_tools(&mut self, link: LinkId, cursor: Option<&str>) {
        let call = self.router.open_own(&mut self.core, link, Effect::Tools);
        self.core.after(CATALOG, Deadline::Call(call));
        let params = cursor.map(|cursor| format!(r#"{{"cursor":{cursor}}}"#)).unwrap_or_else(|| "{}".into());
        let line = if self.back.is_modern(link) {
            Envelope::own().request(call.0, "tools/list", &params)
        } else {
            format!(r#"{{"jsonrpc":"2.0","id":{},"method":"tools/list","params":{params}}}"#, call.0)
        };
        if self.back.send(&mut self.core, link, rpc::line(line.into_bytes())).is_err() {
            self.tools_listed(link, None);
        }
    }

    /// A request of our own was answered.
    pub(super) fn own_answered(
        &mut self,
        link: LinkId,
        call: CallId,
        effect: &Effect,
        outcome: Result<&RawValue, &RawValue>,
    ) {
        match effect {
            Effect::Tools => self.tools_listed(link, outcome.ok()),
            Effect::Listen => {
                let code = outcome.err().and_then(result::code_of);
                let refused = matches!(code, Some(code::METHOD_NOT_FOUND | code::INVALID_PARAMS));
                self.up.ended(&mut self.core, link, call, refused);
            }
            _ => {}
        }
    }

    /// A page of a list of tools came, or none will.
    pub(super) fn tools_listed(&mut self, link: LinkId, page: Option<&RawValue>) {
        if let Some(cursor) = self.catalogs.learn(link, page) {
            return self.ask_for_tools(link, Some(&cursor));
        }
        for waiter in self.catalogs.released(link) {
            match waiter {
                Waiter::Modern(session) => self.dispatch(session),
                Waiter::Legacy(stream, raw, rounds, retried) => self.send_up(stream, &raw, rounds, retried),
            }
        }
    }

    /// A call had no answer for too long.
    pub(super) fn call_was_late(&mut self, link: LinkId, call: CallId, own: Effect) {
        if own == Effect::Tools {
            info!("link#{}: the server did not give its list of tools; no header fields are checked or sent", link.0);
            self.tools_listed(link, None);
        }
        self.up.landed(call);
    }
}
