//! What the answers of remote servers mean, and what to tell people about those that are none.

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
