//! What servers say: answers, questions, and notifications that may not say whom they are for.

use log::{debug, warn};
use serde_json::value::RawValue;

use super::{
    Answered, Ask, AskId, Asker, Call, CallId, Effect, LEVELS, Role, Router, Step, Task, Topic, same_id, task_of,
};
use crate::back::LinkId;
use crate::config::FrontKind;
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::result::SUBSCRIPTION;
use crate::front::{SessionId, StreamId, Target};
use crate::wire::object::quote;
use crate::wire::rpc::{self, Id, Kind, Message, code};

/// Why a session is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matter {
    Question,
    Log,
    Other,
}

impl Router {
    /// A message of a server. `about` is the number of the call on whose stream it came, if it came on one.
    pub(crate) fn server_says(
        &mut self,
        core: &mut Core,
        link: LinkId,
        message: &Message<'_>,
        about: Option<u64>,
    ) -> Step {
        let known = about.map(CallId).filter(|call| self.calls.get(call).is_some_and(|call| call.link == link));
        if about.is_some() && known.is_none() {
            // It came on the stream of a call that is over: it is nobody else's business.
            return self.server_raves(core, link, message);
        }
        let about = known;
        match &message.kind {
            // Answers go by [`Router::answered`].
            Kind::Response { .. } => Step::Ignore,
            Kind::Request { id, method, params } => self.ask(core, link, message.raw, *id, method, *params, about),
            Kind::Notification { method, params } => self.server_notifies(core, link, message, method, *params, about),
        }
    }

    /// What a server says about a call that nobody knows any more. Some of it says itself whom it is for.
    fn server_raves(&mut self, core: &mut Core, link: LinkId, message: &Message<'_>) -> Step {
        match &message.kind {
            Kind::Request { id, method, .. } if method != "ping" => {
                let text = "the call that this is about is over";
                Step::SendNow { link, line: rpc::line(rpc::error(Some(id.0), code::METHOD_NOT_FOUND, text)) }
            }
            Kind::Request { id, method, params } => self.ask(core, link, message.raw, *id, method, *params, None),
            Kind::Notification { method, params }
                if method.ends_with("/list_changed")
                    || matches!(
                        &**method,
                        "notifications/resources/updated" | "notifications/progress" | "notifications/cancelled"
                    ) =>
            {
                self.server_notifies(core, link, message, method, *params, None)
            }
            _ => Step::Ignore,
        }
    }

    /// An answer came: whose was the call? It is over with that.
    pub(crate) fn answered(
        &mut self,
        core: &mut Core,
        link: LinkId,
        id: Option<Id<'_>>,
        result: Option<&RawValue>,
    ) -> Answered {
        let Some(id) = id else {
            warn!("a server answered a message that it could not read");
            return Answered::Nobody;
        };
        let number = id.number().map(CallId).filter(|call| self.calls.get(call).is_some_and(|call| call.link == link));
        let Some((number, call)) = number.and_then(|call| Some((call, self.close_call(core, call)?))) else {
            debug!("link#{}: a late or unknown answer was dropped", link.0);
            return Answered::Nobody;
        };
        let Some(client) = call.client else {
            return match call.effect {
                effect @ (Effect::Tools | Effect::Listen) => Answered::Own { call: number, effect },
                _ => Answered::Nobody,
            };
        };
        let session = client.stream.session;
        let busy = self.groups.get(&link).map_or(0, |group| group.calls.len());
        if let Some(id) = result.and_then(task_of)
            && busy < core.config.limits.max_calls / 2
        {
            let rest = Call {
                link,
                client: None,
                ghost: None,
                task: Some(Task { session, id }),
                token: call.token,
                cancelled: false,
                effect: Effect::None,
                endless: false,
                asks: true,
                until: self.longest(core, link),
            };
            self.open_call(core, number, rest);
        }
        if result.is_some()
            && let Some(peer) = self.peers.get_mut(&session)
        {
            match call.effect {
                Effect::Subscribe(uri) => drop(peer.subscriptions.insert(uri)),
                Effect::Unsubscribe(uri) => drop(peer.subscriptions.remove(&uri)),
                Effect::None | Effect::Tools | Effect::Listen => {}
            }
        }
        Answered::Client { call: number, stream: client.stream, id: client.id }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one message")]
    fn ask(
        &mut self,
        core: &mut Core,
        link: LinkId,
        raw: &str,
        id: Id<'_>,
        method: &str,
        params: Option<&RawValue>,
        about: Option<CallId>,
    ) -> Step {
        let answer = |text: String| Step::SendNow { link, line: rpc::line(text.into_bytes()) };
        if method == "ping" {
            // It asks whether its peer is there, and that is us. The client may have no stream open to be asked on.
            return answer(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.0));
        }
        let refuse = |code, text: &str| Step::SendNow { link, line: rpc::line(rpc::error(Some(id.0), code, text)) };
        let Some(target) = self.concerned(core, link, about, Matter::Question) else {
            return refuse(code::METHOD_NOT_FOUND, "no single client can be meant by this request");
        };
        let Ok(token) = rpc::progress_token(params) else {
            return refuse(code::INVALID_PARAMS, "a member of the parameters comes twice");
        };
        let group = self.groups.entry(link).or_default();
        if group.asks.len() >= core.config.limits.max_calls {
            return refuse(code::REFUSED, "too many requests of this server wait for the client");
        }
        let ask = AskId(core.number());
        group.asks.insert(ask);
        let number = ask.0.to_string();
        let mut edits = vec![(id.0, &*number)];
        edits.extend(token.map(|token| (token.get(), &*number)));
        let message = rpc::splice(raw, &mut edits);
        let token = token.map(|token| token.get().to_owned());
        let asker = Asker::Server(id.0.to_owned());
        self.asks.insert(ask, Ask { link, session: target.session, asker, token, stream: None });
        core.after(self.timeout(core, link), Deadline::Ask(ask));
        Step::PushTo { target, message, ask: Some(ask) }
    }

    /// A question cannot be asked.
    pub(crate) fn refuse_ask(&mut self, core: &mut Core, id: AskId, text: &str) -> Step {
        match self.close_ask(core, id) {
            Some(Ask { link, asker: Asker::Server(theirs), .. }) => {
                Step::SendNow { link, line: rpc::line(rpc::error(Some(&theirs), code::METHOD_NOT_FOUND, text)) }
            }
            Some(Ask { asker: Asker::Ourselves, .. }) => {
                let error = format!(r#"{{"code":{},"message":{}}}"#, code::METHOD_NOT_FOUND, quote(text));
                Step::Told { ask: id, outcome: Err(error) }
            }
            None => Step::Ignore,
        }
    }

    /// Notes where a question went.
    pub(crate) fn asked_on(&mut self, ask: AskId, stream: StreamId) {
        if let Some(ask) = self.asks.get_mut(&ask) {
            ask.stream = Some(stream);
        }
    }

    fn server_notifies(
        &mut self,
        core: &mut Core,
        link: LinkId,
        message: &Message<'_>,
        method: &str,
        params: Option<&RawValue>,
        about: Option<CallId>,
    ) -> Step {
        if let Some(step) = self.subscription_says(link, message, params) {
            return step;
        }
        match method {
            "notifications/progress" => {
                let Ok(Some(token)) = rpc::member(params, "progressToken") else { return Step::Ignore };
                let id = Id(token.get()).number().map(CallId);
                let found = id.and_then(|id| Some((id, self.calls.get(&id)?)));
                // Progress of a finished call is dropped: clients fail on it.
                let Some((id, Call { client, task, token: Some(theirs), cancelled, until, .. })) =
                    found.filter(|(_, call)| call.link == link)
                else {
                    return Step::Ignore;
                };
                if !cancelled {
                    core.timers.set(Deadline::Call(id), (core.now + self.timeout(core, link)).min(*until));
                }
                let message = rpc::splice(message.raw, &mut [(token.get(), theirs)]);
                match (client, task) {
                    (Some(client), _) => Step::Push { stream: client.stream, message },
                    (None, Some(task)) => Step::PushTo { target: self.target(task.session), message, ask: None },
                    (None, None) => Step::Ignore,
                }
            }
            "notifications/cancelled" => {
                let Ok(Some(wanted)) = rpc::member(params, "requestId") else { return Step::Ignore };
                let endless = self.call_of(link, wanted.get()).filter(|call| self.calls[call].endless);
                if let Some(call) = endless {
                    let Some(client) = self.close_call(core, call).and_then(|call| call.client) else {
                        return Step::Ignore;
                    };
                    let message = rpc::splice(message.raw, &mut [(wanted.get(), &client.id)]);
                    return Step::Ended { stream: client.stream, message };
                }
                let group = self.groups.get(&link);
                let found =
                    group.into_iter().flat_map(|group| group.asks.iter().rev().copied()).find(|ask| {
                        match self.asks.get(ask).map(|ask| &ask.asker) {
                            Some(Asker::Server(theirs)) => same_id(theirs, wanted.get()),
                            _ => false,
                        }
                    });
                let Some((id, ask)) = found.and_then(|id| Some((id, self.close_ask(core, id)?))) else {
                    return Step::Ignore;
                };
                let message = rpc::splice(message.raw, &mut [(wanted.get(), &id.0.to_string())]);
                let number = ask.stream.map(|stream| stream.number);
                let target = Target { session: ask.session, sole: number, newest: None };
                Step::Withdraw { ask: id, target, message }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                let sessions = self.sessions_of(link).map(|session| self.target(session)).collect();
                let topic = Topic::List(match method {
                    "notifications/tools/list_changed" => "tools",
                    "notifications/prompts/list_changed" => "prompts",
                    _ => "resources",
                });
                Step::Broadcast { link, sessions, message: message.raw.as_bytes().to_vec(), topic }
            }
            "notifications/resources/updated" => {
                let uri = rpc::member(params, "uri").ok().flatten().and_then(rpc::string).unwrap_or_default();
                let alone = self.groups.get(&link).is_some_and(|group| group.sessions.len() == 1);
                let alone = alone && self.sessions_of(link).all(|session| self.role(session) == Role::Client);
                let wants = |session: &SessionId| {
                    // What changed may be a part of what was subscribed to (specification, server/resources).
                    alone || self.is_subscribed(*session, &uri)
                };
                let sessions = self.sessions_of(link).filter(wants).map(|session| self.target(session)).collect();
                Step::Broadcast { link, sessions, message: message.raw.as_bytes().to_vec(), topic: Topic::Resource }
            }
            "notifications/tasks/status" if let Some((call, over)) = self.task_told(link, params) => {
                let session = self.calls.get(&call).and_then(|call| call.task.as_ref()).map(|task| task.session);
                if over {
                    self.close_call(core, call);
                }
                let Some(session) = session else { return Step::Ignore };
                Step::PushTo { target: self.target(session), message: message.raw.as_bytes().to_vec(), ask: None }
            }
            // Of a task whose client has left.
            "notifications/tasks/status" => Step::Ignore,
            _ => {
                let matter = if method == "notifications/message" { Matter::Log } else { Matter::Other };
                let Some(target) = self.concerned(core, link, about, matter) else {
                    debug!("link#{}: {method} was dropped: it does not say which client it is for", link.0);
                    return Step::Ignore;
                };
                if method == "notifications/message" && !self.is_loud_enough(target.session, params) {
                    return Step::Ignore;
                }
                Step::PushTo { target, message: message.raw.as_bytes().to_vec(), ask: None }
            }
        }
    }

    /// The call that began the task a status is about, and whether that task is over.
    fn task_told(&self, link: LinkId, params: Option<&RawValue>) -> Option<(CallId, bool)> {
        let id = rpc::member(params, "taskId").ok()??;
        let status = rpc::member(params, "status").ok()?.and_then(rpc::string).unwrap_or_default();
        let mut calls = self.groups.get(&link)?.calls.iter();
        let mine = |call: &&CallId| {
            let task = self.calls.get(call).and_then(|call| call.task.as_ref());
            task.is_some_and(|task| same_id(&task.id, id.get()))
        };
        calls.find(mine).map(|call| (*call, matches!(&*status, "completed" | "failed" | "cancelled")))
    }

    /// What a modern server says on a subscription that a client of its own era has opened (specification 2026-07-28,
    /// basic/patterns/subscriptions).
    fn subscription_says(&self, link: LinkId, message: &Message<'_>, params: Option<&RawValue>) -> Option<Step> {
        memchr::memmem::find(params?.get().as_bytes(), SUBSCRIPTION.as_bytes())?;
        let id = rpc::member(rpc::member(params, "_meta").ok()?, SUBSCRIPTION).ok()??;
        let call = self.calls.get(&CallId(Id(id.get()).number()?)).filter(|call| call.link == link && call.endless)?;
        let client = call.client.as_ref()?;
        Some(Step::Push { stream: client.stream, message: rpc::splice(message.raw, &mut [(id.get(), &client.id)]) })
    }

    /// What a session is to its server. One that is gone might have been anything.
    fn role(&self, session: SessionId) -> Role {
        self.peers.get(&session).map_or(Role::Client, |peer| peer.role)
    }

    /// The session that something without a name concerns: that of the call on whose stream it came, else the only one
    /// with calls in flight that may be meant, else the only one there is.
    fn concerned(&self, core: &Core, link: LinkId, about: Option<CallId>, matter: Matter) -> Option<Target> {
        if let Some(client) = about.and_then(|call| self.calls.get(&call)?.client.as_ref()) {
            let number = Some(client.stream.number);
            return Some(Target { session: client.stream.session, sole: number, newest: number });
        }
        let group = self.groups.get(&link)?;
        let whose = |call: &CallId| {
            let call = self.calls.get(call).filter(|call| call.asks || matter != Matter::Question)?;
            call.client.as_ref().map(|client| client.stream.session).or(call.ghost)
        };
        let meant = |session: &SessionId| match (self.role(*session), matter) {
            (Role::Client, _) => true,
            (Role::Request { asked, .. }, Matter::Question) => asked,
            (Role::Request { logged, .. }, Matter::Log) => logged,
            (Role::Request { .. }, Matter::Other) => true,
        };
        let mut busy = group.calls.iter().rev().filter_map(whose).filter(meant);
        let session = match busy.next() {
            Some(session) => session,
            None if group.sessions.len() == 1 => *group.sessions.first().filter(|s| self.role(**s) == Role::Client)?,
            None => return None,
        };
        // All that comes by stdin is one client, whichever of its requests is meant.
        let alone = core.config.front == FrontKind::Stdio || busy.all(|other| other == session);
        (alone && group.sessions.contains(&session)).then(|| self.target(session))
    }

    /// Whether a log message is severe enough for a session. The server only knows what it was told last, by whomever.
    fn is_loud_enough(&self, session: SessionId, params: Option<&RawValue>) -> bool {
        let Some(least) = self.peers.get(&session).and_then(|peer| peer.level) else {
            // Who stands alone hears nothing that it did not ask for.
            return self.role(session) == Role::Client;
        };
        let level = rpc::member(params, "level").ok().flatten().and_then(rpc::string);
        let index = level.and_then(|level| LEVELS.iter().position(|l| *l == level));
        index.is_none_or(|index| index >= least)
    }
}
