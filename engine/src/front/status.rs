//! What the proxy says of itself: `/status`, `/healthz` and `/readyz`.

use super::http::{Place, Refusal};
use super::session::Channel;
use super::{Front, Inbound};
use crate::core::Core;
use crate::io::{Body, ExchangeId, Headers, HttpRequest};
use crate::wire::http::iso_date;
use crate::wire::rpc::code;

/// How one server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers, or nobody needed it yet.
    Ready,
    /// It is being started, or greeted.
    Starting,
    /// It failed and was not up again since.
    Down,
}

impl Front {
    pub(super) fn admit_status<'r>(
        &mut self,
        _: ExchangeId,
        place: Place,
        request: &'r HttpRequest,
    ) -> Result<Inbound<'r>, Refusal> {
        if matches!(&*request.method, "GET" | "HEAD") {
            return Ok(Inbound::Status(place));
        }
        Err(Refusal { allow: Some("GET, HEAD"), ..Refusal::new(405, code::REFUSED, "this is only to be read") })
    }

    /// Answers a question about the servers, whose health is given in the order of the configuration.
    pub(crate) fn answer_status(&mut self, core: &mut Core, id: ExchangeId, place: Place, health: &[Health]) {
        let servers = core.config.servers.iter().zip(health);
        let (status, body) = match place {
            Place::Healthz => (200, "{\"status\":\"alive\"}".to_owned()),
            Place::Readyz => {
                let down: Vec<&str> =
                    servers.filter(|(_, health)| **health == Health::Down).map(|(server, _)| &*server.name).collect();
                let down_json = serde_json::Value::from(down.clone());
                (
                    if down.is_empty() { 200 } else { 503 },
                    format!("{{\"ready\":{},\"down\":{down_json}}}", down.is_empty()),
                )
            }
            _ => {
                let mut instances = serde_json::Map::new();
                let mut states = serde_json::Map::new();
                for (server, health) in servers {
                    instances.insert(server.name.clone(), "configured".into());
                    let state = match health {
                        Health::Ready => "ready",
                        Health::Starting => "starting",
                        Health::Down => "down",
                    };
                    states.insert(server.name.clone(), state.into());
                }
                let streams = self.sessions.values().filter(|s| matches!(s.channel, Channel::Sse(_))).count();
                let since = core.config.started.unwrap_or_default() + self.last_activity.elapsed();
                let body = serde_json::json!({
                    "api_last_activity": iso_date(since.as_secs()),
                    "active_sse_connections": streams,
                    "server_instances": instances,
                    "server_states": states,
                    "sessions": self.sessions.len(),
                });
                (200, body.to_string())
            }
        };
        let mut headers = Headers::new();
        headers.push("content-type", "application/json");
        headers.push("cache-control", "no-store");
        self.respond(core, id, status, headers, Body::Full(body.into_bytes()));
    }
}
