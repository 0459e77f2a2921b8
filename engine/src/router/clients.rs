//! What clients say: calls, their cancellation, and the answers to questions.

use log::debug;
use serde_json::value::RawValue;

use super::{AskId, Asker, Call, CallId, Effect, LEVELS, Role, Router, Step, Waiting, same_id};
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::result::may_ask;
use crate::front::{SessionId, StreamId};
use crate::wire::rpc::{self, Id, Kind, Message, code};

impl Router {
    /// A message of a client whose session has a link.
    pub(crate) fn client_says(&mut self, core: &mut Core, stream: StreamId, message: &Message<'_>) -> Step {
        match &message.kind {
            Kind::Request { id, method, params } => self.call(core, stream, message.raw, *id, method, *params),
            Kind::Notification { method, params } => {
                self.client_notifies(core, stream.session, message, method, *params)
            }
            Kind::Response { id: Some(id), outcome } => {
                self.client_answers(core, stream.session, message.raw, *id, *outcome)
            }
            Kind::Response { id: None, .. } => Step::Ignore,
        }
    }

    fn call(
        &mut self,
        core: &mut Core,
        stream: StreamId,
        raw: &str,
        id: Id<'_>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Step {
        let refuse = |status, code, text: &str| {
            let message = rpc::error(Some(id.0), code, text);
            Step::Reply { stream, status, message }
        };
        let Some(peer) = self.peers.get(&stream.session) else { return Step::Ignore };
        let (link, role) = (peer.link, peer.role);
        let group = self.groups.entry(link).or_default();
        if group.busy >= core.config.limits.max_calls || group.calls.len() >= 4 * core.config.limits.max_calls {
            return refuse(503, code::REFUSED, "too many calls wait for this server (--max-calls); try again later");
        }
        let Ok(token) = rpc::progress_token(params) else {
            return refuse(200, code::INVALID_PARAMS, "a member of the parameters comes twice");
        };
        let call = CallId(core.number());
        let number = call.0.to_string();
        let mut edits = vec![(id.0, &*number)];
        edits.extend(token.map(|token| (token.get(), &*number)));
        let level;
        let mut effect = Effect::None;
        match method {
            // A request that stands alone changes nothing for others.
            _ if role != Role::Client => {}
            "resources/subscribe" | "resources/unsubscribe" => {
                let Ok(uri) = rpc::member(params, "uri") else {
                    return refuse(200, code::INVALID_PARAMS, "a member of the parameters comes twice");
                };
                if let Some(uri) = uri.and_then(rpc::string) {
                    let mine = self.peers.get(&stream.session).map_or(0, |peer| peer.subscriptions.len());
                    if mine >= core.config.limits.max_calls && method == "resources/subscribe" {
                        return refuse(200, code::REFUSED, "too many subscriptions of this session (--max-calls)");
                    }
                    if method == "resources/subscribe" {
                        effect = Effect::Subscribe(uri.into_owned());
                    } else if self.subscribed_elsewhere(link, stream.session).contains(&*uri) {
                        // The others still want it; only this session is told no more.
                        self.peers.get_mut(&stream.session).map(|peer| peer.subscriptions.remove(&*uri));
                        let message = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.0).into_bytes();
                        return Step::Reply { stream, status: 200, message };
                    } else {
                        effect = Effect::Unsubscribe(uri.into_owned());
                    }
                }
            }
            "logging/setLevel" => {
                let Ok(wanted) = rpc::member(params, "level") else {
                    return refuse(200, code::INVALID_PARAMS, "a member of the parameters comes twice");
                };
                let index = wanted.and_then(rpc::string).and_then(|w| LEVELS.iter().position(|l| *l == w));
                if let (Some(wanted), Some(index)) = (wanted, index) {
                    self.peers.get_mut(&stream.session).map(|peer| peer.level.replace(index));
                    // The server must say what the most curious of its clients wants; the others are spared it later.
                    let least = self.least_level(link).unwrap_or(index);
                    if least != index {
                        level = format!("\"{}\"", LEVELS[least]);
                        edits.push((wanted.get(), &level));
                    }
                    self.groups.entry(link).or_default().told = Some(least);
                }
            }
            _ => {}
        }
        let line = rpc::line(rpc::splice(raw, &mut edits));
        let client = Some(Waiting { stream, id: id.0.to_owned() });
        let token = token.map(|token| token.get().to_owned());
        let endless = method == "subscriptions/listen" && role != Role::Client;
        let until = self.longest(core, link);
        let asks = role == Role::Client || may_ask(method);
        let (ghost, task, cancelled) = (None, None, false);
        self.open_call(core, call, Call { link, client, ghost, task, token, cancelled, effect, endless, asks, until });
        Step::Send { link, line, call: Some(call) }
    }

    fn client_notifies(
        &mut self,
        core: &mut Core,
        session: SessionId,
        message: &Message<'_>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Step {
        let Some(link) = self.link_of(session) else { return Step::Ignore };
        match method {
            "notifications/initialized" => Step::Initialized { link, message: message.raw.to_owned() },
            "notifications/cancelled" => {
                let Ok(Some(wanted)) = rpc::member(params, "requestId") else { return Step::Ignore };
                // An id may stand for several calls if the client is careless; it means the last one.
                let mine = self.peers.get(&session).into_iter().flat_map(|peer| peer.calls.iter().rev().copied());
                let found = mine.into_iter().find(|id| {
                    let client = self.calls.get(id).and_then(|call| call.client.as_ref());
                    client.is_some_and(|client| same_id(&client.id, wanted.get()))
                });
                let Some(call) = found else { return Step::Ignore };
                if let Some(call) = self.calls.get_mut(&call) {
                    call.cancelled = true;
                }
                // The server need not answer any more, but the request must be.
                core.after(core.config.timeouts.cancel, Deadline::Call(call));
                let line = rpc::line(rpc::splice(message.raw, &mut [(wanted.get(), &call.0.to_string())]));
                Step::Send { link, line, call: None }
            }
            "notifications/progress" => {
                let Ok(Some(token)) = rpc::member(params, "progressToken") else { return Step::Ignore };
                let ask = Id(token.get()).number().and_then(|n| self.asks.get(&AskId(n)));
                match ask.filter(|ask| ask.session == session).and_then(|ask| ask.token.as_deref()) {
                    Some(theirs) => {
                        let line = rpc::line(rpc::splice(message.raw, &mut [(token.get(), theirs)]));
                        Step::Send { link, line, call: None }
                    }
                    None => Step::Ignore,
                }
            }
            _ => Step::Send { link, line: rpc::line(message.raw.as_bytes().to_vec()), call: None },
        }
    }

    fn client_answers(
        &mut self,
        core: &mut Core,
        session: SessionId,
        raw: &str,
        id: Id<'_>,
        outcome: Result<&RawValue, &RawValue>,
    ) -> Step {
        let asked = id.number().map(AskId);
        let mine = asked.filter(|ask| self.asks.get(ask).is_some_and(|ask| ask.session == session));
        let Some((number, ask)) = mine.and_then(|ask| Some((ask, self.close_ask(core, ask)?))) else {
            debug!("session#{}: an answer to nothing that was asked was dropped", session.0);
            return Step::Ignore;
        };
        match ask.asker {
            Asker::Server(theirs) => {
                Step::SendNow { link: ask.link, line: rpc::line(rpc::splice(raw, &mut [(id.0, &theirs)])) }
            }
            Asker::Ourselves => {
                let raw = |value: &RawValue| value.get().to_owned();
                Step::Told { ask: number, outcome: outcome.map(raw).map_err(raw) }
            }
        }
    }
}
