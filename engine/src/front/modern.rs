//! Requests of revision 2026-07-28: each stands alone, and says in its body and in its header fields what it is
//! (specification 2026-07-28, basic/transports/streamable-http).

use super::http::{self, Refusal, refuse};
use super::session::{Channel, Session};
use super::{Front, Inbound, SessionId, StreamId};
use crate::core::Core;
use crate::era::envelope::{self, Envelope, MODERN};
use crate::era::mirror;
use crate::era::result::code::{HEADER_MISMATCH, UNSUPPORTED_VERSION};
use crate::io::{Body, ExchangeId, Headers, HttpRequest};
use crate::wire::object::quote;
use crate::wire::rpc::{Kind, Message, code};

/// Whether a POST is of the modern era. Its body decides; a header field that names a revision of no session does, where the
/// body says nothing.
pub(super) fn is_modern(request: &HttpRequest, messages: &[Message<'_>]) -> bool {
    let claims = |message: &Message<'_>| match &message.kind {
        Kind::Request { params, .. } | Kind::Notification { params, .. } => envelope::claims(*params),
        Kind::Response { .. } => false,
    };
    if messages.iter().any(claims) {
        return true;
    }
    if messages.iter().any(|m| matches!(&m.kind, Kind::Request { method, .. } if method == "initialize")) {
        return false;
    }
    let mut versions = request.headers.get_all("mcp-protocol-version");
    versions.any(|version| version == MODERN)
        || (request.headers.get("mcp-session-id").is_none()
            && request.headers.get("mcp-protocol-version").is_some_and(|v| is_date(v) && !http::REVISIONS.contains(&v)))
}

/// Whether this could be the name of a revision.
fn is_date(version: &str) -> bool {
    version.len() == 10
        && version.bytes().enumerate().all(|(n, b)| if matches!(n, 4 | 7) { b == b'-' } else { b.is_ascii_digit() })
}

/// The refusal of a revision that is not spoken here.
fn unsupported(version: &str) -> Refusal {
    let mut refusal = Refusal::new(400, UNSUPPORTED_VERSION, "Unsupported protocol version");
    refusal.data = Some(format!(r#"{{"supported":["{MODERN}"],"requested":{}}}"#, quote(version)));
    refusal
}

/// Checks the version that a request names in its header field and in its body, and then the rest of the header fields.
fn check(request: &HttpRequest, message: &Message<'_>) -> Result<Envelope, Refusal> {
    let Kind::Request { method, params, .. } = &message.kind else {
        return refuse(400, code::INVALID_REQUEST, "only a request can be checked");
    };
    let mut versions = request.headers.get_all("mcp-protocol-version");
    let version = versions.next();
    let envelope = match envelope::read(*params) {
        Ok(envelope) => envelope,
        Err(_) if version.is_some_and(|version| version != MODERN) && !envelope::claims(*params) => {
            return Err(unsupported(version.unwrap_or_default()));
        }
        Err(text) => return refuse(400, code::INVALID_PARAMS, text),
    };
    match (version, versions.next()) {
        (None, _) => return refuse(400, HEADER_MISMATCH, "Header mismatch: MCP-Protocol-Version is missing"),
        (Some(_), Some(_)) => {
            return refuse(400, HEADER_MISMATCH, "Header mismatch: MCP-Protocol-Version must come once");
        }
        (Some(version), None) if version != envelope.version => {
            let text = "Header mismatch: MCP-Protocol-Version and the version in params._meta differ";
            return refuse(400, HEADER_MISMATCH, text);
        }
        (Some(_), None) => {}
    }
    if envelope.version != MODERN {
        return Err(unsupported(&envelope.version));
    }
    mirror::check_standard(&request.headers, method, *params).or_else(|text| refuse(400, HEADER_MISMATCH, text))?;
    Ok(envelope)
}

impl Front {
    /// Takes in a POST of the modern era.
    pub(super) fn admit_modern<'r>(
        &mut self,
        core: &mut Core,
        id: ExchangeId,
        server: usize,
        request: &'r HttpRequest,
        mut messages: Vec<Message<'r>>,
        batch: bool,
    ) -> Result<Inbound<'r>, Refusal> {
        if batch {
            return refuse(400, code::INVALID_REQUEST, super::NO_BATCHES);
        }
        let Some(message) = messages.pop() else { return Ok(Inbound::Done) };
        match &message.kind {
            Kind::Request { .. } => {}
            Kind::Notification { .. } => {
                // None is defined that would mean anything here: to cancel is to close the stream.
                self.respond(core, id, 202, Headers::new(), Body::Full(Vec::new()));
                return Ok(Inbound::Done);
            }
            Kind::Response { .. } => {
                return refuse(400, code::INVALID_REQUEST, "clients of revision 2026-07-28 do not send responses");
            }
        }
        let envelope = check(request, &message)?;
        let env = http::child_environment(&core.config.servers[server], request)?;
        let who = http::check_key(&core.config.access, request)?;
        let session = self.open_session(core, server, None, Channel::Modern, Some(MODERN.to_owned()));
        if let Some(session) = self.sessions.get_mut(&session) {
            (session.env, session.who) = (env, who);
        }
        let number = self.attach(core, id, session, 1, false);
        // No stream is begun ahead, whatever the client prefers: the status says what is wrong with its request.
        Ok(Inbound::Modern { server, stream: StreamId { session, number }, message, envelope })
    }

    /// Opens a session for a modern request that came by our stdin.
    pub(crate) fn open_modern_stdio(&mut self, core: &mut Core) -> StreamId {
        let session = self.open_session(core, 0, None, Channel::ModernStdio, Some(MODERN.to_owned()));
        StreamId { session, number: super::STANDALONE }
    }

    /// Whether the session is one request of the modern era.
    pub(crate) fn is_modern(&self, id: SessionId) -> bool {
        let modern = |s: &Session| matches!(s.channel, Channel::Modern | Channel::ModernStdio);
        self.sessions.get(&id).is_some_and(modern)
    }

    /// Whether the session came by our stdin.
    pub(crate) fn is_stdio(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| matches!(s.channel, Channel::Stdio | Channel::ModernStdio))
    }

    /// The client of `old` came back, by what was taken for the new session `new`: its exchange is the old one's now.
    pub(crate) fn adopt(&mut self, core: &mut Core, old: SessionId, new: SessionId) -> Option<StreamId> {
        let newcomer = self.sessions.remove(&new)?;
        core.timers.clear(crate::core::timers::Deadline::SessionIdle(new));
        if newcomer.channel == Channel::ModernStdio {
            return Some(StreamId { session: old, number: super::STANDALONE });
        }
        let session = self.sessions.get_mut(&old)?;
        session.last_stream += 1;
        let number = session.last_stream;
        for (_, mut stream) in newcomer.streams {
            // The events of a stream are counted anew: none of them has an id.
            (stream.last_event, stream.sent) = (0, 0);
            session.streams.insert(number, stream);
        }
        for exchange in newcomer.exchanges {
            session.exchanges.insert(exchange);
            if let Some(exchange) = self.exchanges.get_mut(&exchange) {
                (exchange.session, exchange.stream) = (Some(old), number);
            }
        }
        Some(StreamId { session: old, number })
    }
}
