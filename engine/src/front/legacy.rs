//! HTTP+SSE, the transport of revision 2024-11-05 (specification 2024-11-05, basic/transports, "HTTP with SSE"): one event
//! stream brings everything; its first event says where to post.

use super::http::{self, Refusal, refuse};
use super::session::{Channel, STANDALONE, Session};
use super::{Front, Inbound, NO_BATCHES, Phase, SessionId, StreamId, read_messages};
use crate::core::Core;
use crate::io::{Body, ExchangeId, Headers, HttpRequest};
use crate::wire::rpc::{Kind, code};
use crate::wire::sse;

use log::warn;

impl Front {
    /// A client opens its event stream.
    pub(super) fn admit_sse<'r>(
        &mut self,
        core: &mut Core,
        id: ExchangeId,
        server: usize,
        named: bool,
        request: &'r HttpRequest,
    ) -> Result<Inbound<'r>, Refusal> {
        if request.method != "GET" {
            let text = "the event stream is opened by GET; Streamable HTTP is at /mcp";
            return Err(Refusal { allow: Some("GET"), ..Refusal::new(405, code::REFUSED, text) });
        }
        if request.headers.get("accept").is_some() {
            http::check_get(request)?;
        }
        self.last_activity = core.now;
        let env = http::child_environment(&core.config.servers[server], request)?;
        let who = http::check_key(&core.config.access, request)?;
        let name = self.fresh_name(core, request)?;
        let session = self.open_session(core, server, Some(name.clone()), Channel::Sse(id), None);
        self.names.insert(name.clone(), session);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.exchanges.insert(id);
            session.env = env;
            session.who = who;
        }
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.session = Some(session);
        }
        self.begin_stream(core, id, false);
        let prefix = if named { format!("/servers/{}", core.config.servers[server].name) } else { String::new() };
        // Clients post to this URL as it is: a key that came by the URL must be in it again.
        let key = if who == 0 { String::new() } else { http::key_of_query(&request.target) };
        let event = format!("event: endpoint\ndata: {prefix}/messages/?session_id={name}{key}\n\n");
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.outbox.push(core, event.into_bytes());
        }
        Ok(Inbound::Done)
    }

    /// A client posts a message. What answers it goes to the stream.
    pub(super) fn admit_message<'r>(
        &mut self,
        core: &mut Core,
        id: ExchangeId,
        server: usize,
        request: &'r HttpRequest,
        request_id: &mut Option<String>,
    ) -> Result<Inbound<'r>, Refusal> {
        if request.method != "POST" {
            let text = "messages are posted";
            return Err(Refusal { allow: Some("POST"), ..Refusal::new(405, code::REFUSED, text) });
        }
        self.last_activity = core.now;
        let name = http::sse_session(request)?;
        let who = http::check_key(&core.config.access, request)?;
        let known = self.names.get(&name).copied().filter(|id| {
            let mine = |s: &Session| s.server == server && matches!(s.channel, Channel::Sse(_)) && s.who == who;
            self.sessions.get(id).is_some_and(mine)
        });
        let Some(session) = known else {
            return refuse(404, code::NOT_FOUND_OR_TIMEOUT, "Could not find session");
        };
        http::check_content_type(request)?;
        let revision = self.sessions.get(&session).and_then(|s| s.revision.as_deref());
        http::check_version(request, revision)?;
        let (messages, batch) = read_messages(core, request, request_id)?;
        if batch && revision != Some(http::BATCH_REVISION) {
            return refuse(400, code::INVALID_REQUEST, NO_BATCHES);
        }
        let hello = |kind: &Kind<'_>| matches!(kind, Kind::Request { method, .. } if method == "initialize");
        if batch && messages.iter().any(|message| hello(&message.kind)) {
            return refuse(400, code::INVALID_REQUEST, "initialize must not be part of a batch");
        }
        let mut headers = Headers::new();
        headers.push("content-type", "text/plain; charset=utf-8");
        self.respond(core, id, 202, headers, Body::Full(b"Accepted".to_vec()));
        Ok(Inbound::Post { server, stream: StreamId { session, number: STANDALONE }, messages })
    }

    /// Sends a message on the stream of an HTTP+SSE session.
    pub(super) fn say_event(&mut self, core: &mut Core, id: SessionId, exchange: ExchangeId, message: &[u8]) {
        let dedicated = self.is_dedicated(id);
        let Some(exchange) = self.exchanges.get_mut(&exchange) else { return };
        if exchange.phase != Phase::Streaming || exchange.outbox.is_closing() {
            return;
        }
        if !dedicated && exchange.outbox.backlog() > core.config.limits.max_queue {
            warn!("session#{}: its client reads too slowly; its stream is closed", id.0);
            exchange.outbox.close(core);
            return;
        }
        let mut frame = b"event: message\n".to_vec();
        sse::encode(&mut frame, None, message);
        exchange.outbox.push(core, frame);
    }
}
