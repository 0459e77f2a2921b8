//! What the answers of remote servers mean, and what to tell people about those that are none.

use log::{info, warn};

use super::remote::{Mode, Post, Purpose, RemoteId, Remotes, Said};
use crate::core::Core;
use crate::era::result::is_modern_error;
use crate::io::{FetchErrorKind, Headers};
use crate::wire::rpc::{self, Kind};

/// Whether a message (or one of a batch) answers the request of this number.
pub(super) fn answers(data: &[u8], number: u64) -> bool {
    let one = |parsed: Result<rpc::Message<'_>, _>| matches!(parsed.map(|m| m.kind), Ok(Kind::Response { id: Some(id), .. }) if id.number() == Some(number));
    match rpc::parse_batch(data) {
        Ok(parts) if rpc::is_batch(data) => parts.into_iter().any(|part| one(rpc::parse_str(part))),
        _ => one(rpc::parse(data)),
    }
}

/// What a status means for people, and what to do.
pub(super) fn status_text(status: u16, headers: &Headers) -> String {
    let what = match status {
        400 => "Bad Request",
        401 => {
            "Unauthorized: give credentials (API_ACCESS_TOKEN, -H Authorization 'Bearer ...', --username, --client-id)"
        }
        403 => "Forbidden: the credentials are not enough, or the server refuses this client",
        404 => "Not Found: is the URL right? Streamable HTTP is often at /mcp, HTTP+SSE at /sse",
        405 => "Method Not Allowed: is the URL right, and --transport?",
        406 => "Not Acceptable",
        413 => "Content Too Large: the message is larger than the remote server takes",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway: the server behind the gateway does not answer",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        300..=399 => "a redirect that leads nowhere",
        _ => "an unexpected status",
    };
    let wait = headers.get("retry-after").map(|wait| format!("; it says to try again after {wait}"));
    format!("the remote server answered {status} {what}{}", wait.unwrap_or_default())
}

/// What to do about a request that got no response.
pub(super) const fn hint(kind: FetchErrorKind) -> &'static str {
    match kind {
        FetchErrorKind::Connect => {
            ". Is it running? Check host, port and firewall; inside a container, localhost is the container itself"
        }
        FetchErrorKind::Name => ". Check the host name in the URL",
        // What to do about a certificate is the driver's to say: it saw it.
        FetchErrorKind::Tls | FetchErrorKind::Timeout | FetchErrorKind::Protocol | FetchErrorKind::Cancelled => "",
    }
}

/// The error in a body that is a JSON-RPC error response, raw.
pub(super) fn error_of(body: &[u8]) -> Option<String> {
    match rpc::parse(body).ok()?.kind {
        Kind::Response { outcome: Err(error), .. } => Some(error.get().to_owned()),
        _ => None,
    }
}

/// The message of such an error, if it is short enough to be repeated.
pub(super) fn message_of(error: &str) -> Option<String> {
    let [message] = rpc::members(error, ["message"]).ok()?;
    rpc::string(message?).filter(|text| text.len() <= 300).map(std::borrow::Cow::into_owned)
}

impl Remotes {
    /// A POST got an answer that is none.
    pub(super) fn post_refused(
        &mut self,
        core: &mut Core,
        owner: RemoteId,
        post: Post,
        status: u16,
        text: String,
        body: &[u8],
    ) -> Vec<(RemoteId, Said)> {
        let Some(conversation) = self.table.get_mut(&owner) else { return Vec::new() };
        let error = error_of(body);
        let text = match error.as_deref().and_then(message_of) {
            Some(words) => format!("{text}: {words}"),
            None => text,
        };
        // Some servers say 400 and explain it, where the specification asks for 404.
        let forgotten =
            status == 404 || (status == 400 && !post.hello && text.to_ascii_lowercase().contains("session"));
        if forgotten && conversation.session.is_some() {
            // It was not processed: the next conversation sends it again. And nobody is there to hear DELETE.
            conversation.session = None;
            let mut unsent = vec![post];
            unsent.extend(conversation.waiting.drain(..));
            return vec![(owner, Said::Down { why: text, unsent })];
        }
        let modern = error.as_deref().and_then(|error| serde_json::from_str(error).ok()).is_some_and(is_modern_error);
        if post.hello && conversation.mode == Mode::Detect && matches!(status, 400 | 404 | 405) && !modern {
            info!("it does not speak Streamable HTTP ({status}); trying HTTP+SSE");
            conversation.mode = Mode::Sse(None);
            conversation.refused = Some(text);
            conversation.waiting.push_front(post);
            self.get(core, owner, Purpose::Sse, 0);
            return Vec::new();
        }
        let Some(number) = post.number else {
            warn!("the remote server refused a notification: {text}");
            return Vec::new();
        };
        match error.filter(|_| !matches!(status, 401 | 403 | 429 | 500..)) {
            // Its own words, under our number.
            Some(error) => {
                let bytes = format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{error}}}"#).into_bytes();
                vec![(owner, Said::Message { bytes, about: Some(number) })]
            }
            None => {
                let refused = matches!(status, 400..500) && !matches!(status, 401 | 403 | 408 | 429);
                vec![(owner, Said::Failed { number, text, refused })]
            }
        }
    }
}
