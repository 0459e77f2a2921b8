//! How a conversation with a server begins, and how its era is found (specification 2026-07-28, basic/versioning).
//!
//! ```text
//!  for a legacy client:   initialize ──result──▶ ready, legacy
//!                              └──error──▶ server/discover ──result──▶ ready, modern
//!                                                 └──anything else──▶ down, with the first error
//!  for a modern client:   server/discover ──result──▶ ready, modern
//!                              └──error, silence, exit──▶ legacy: initialize, for each kind of client
//! ```
//!
//! So a server that speaks both is spoken to in the client's own language. What was learned is kept for the server, and
//! forgotten when a handshake fails.

use log::{debug, info, warn};

use super::{Back, LinkEvent, LinkId, Peer, Sharing, State};
use crate::config::SessionMode;
use crate::core::Core;
use crate::core::timers::Deadline;
use crate::era::Era;
use crate::era::envelope::Envelope;
use crate::era::result::{is_discovery, is_modern_error};
use crate::wire::rpc::{self, Kind, Message};

/// How long a server may be silent before it is taken for a legacy one. Most answer at once, with an error; a process that
/// is still being downloaded gets `initialize` behind it, and both answers are understood.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What is known of the era of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Whether it answers `server/discover`.
    modern: Option<bool>,
    /// It refuses `initialize`.
    only_modern: bool,
    /// It keeps tasks (2025-11-25), and would list those of one client to another.
    tasks: bool,
}

/// The search for a link's era.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// `server/discover` is to be sent.
    wanted: bool,
    /// It was sent to this process.
    sent: bool,
    /// It was sent twice, because the first answer was the refusal of a revision that the server then named.
    retried: bool,
    /// It was answered with silence until now.
    late: Option<u64>,
    /// The error that `initialize` was answered with before.
    refusal: Option<Vec<u8>>,
    /// The answer of a modern server.
    found: Option<String>,
}

/// Whether an answer to `initialize` agrees on the revision that has no `initialize`.
fn agrees_on_modern(result: &serde_json::value::RawValue) -> bool {
    crate::era::envelope::text_of(Some(result), "protocolVersion").as_deref() == Some(super::MODERN)
}

/// Whether the refusal of a revision names the one that was asked for among those that the server speaks.
fn says_modern(message: &Message<'_>) -> bool {
    supported(message).iter().any(|version| version == super::MODERN)
}

/// The revisions that a refusal names.
fn supported(message: &Message<'_>) -> Vec<String> {
    let Kind::Response { outcome: Err(error), .. } = &message.kind else { return Vec::new() };
    let data = rpc::member(Some(error), "data").ok().flatten();
    let list = rpc::member(data, "supported").ok().flatten();
    list.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default()
}

impl Probe {
    /// A new process or conversation begins.
    pub(super) fn begin(&mut self) {
        let found = self.found.take();
        *self = Probe { wanted: self.wanted || found.is_some(), found, ..Probe::default() };
    }

    /// The server was a modern one before.
    pub(super) const fn was_found(&self) -> bool {
        self.found.is_some()
    }

    pub(super) const fn wanted(&self) -> bool {
        self.wanted
    }
}

impl Back {
    /// The era in which modern clients are served by a server, as far as it is known.
    pub(crate) fn era(&self, server: usize) -> Option<Era> {
        self.eras[server].modern.map(|modern| if modern { Era::Modern } else { Era::Legacy })
    }

    /// Whether a server is known to refuse `initialize`.
    pub(crate) fn is_only_modern(&self, server: usize) -> bool {
        self.eras[server].only_modern
    }

    /// Whether a server must not be shared by clients, whatever they are.
    pub(crate) fn has_tasks(&self, server: usize) -> bool {
        self.eras[server].tasks
    }

    /// Whether the server of a link speaks the modern revision on it.
    pub(crate) fn is_modern(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.probe.found.is_some())
    }

    /// Gives a link its `initialize`. The first one counts. `initialized` is what to send after the handshake, if the
    /// client will not say so itself.
    pub(crate) fn hello(&mut self, core: &mut Core, id: LinkId, request: &Message<'_>, initialized: Option<Vec<u8>>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Kind::Request { id: request_id, .. } = &request.kind else { return };
        if link.hello.is_some() || link.probe.found.is_some() {
            return;
        }
        let place = rpc::place(request.raw, request_id.0);
        link.hello = Some(super::Hello { request: request.raw.to_owned(), id: place, initialized, answer: None });
        // Also while there is no process yet: nobody waits for ever for one.
        core.after(core.config.timeouts.start, Deadline::Handshake(id));
        self.shake(core, id);
    }

    /// Asks the server of a link whether it is modern.
    pub(crate) fn discover(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.probe.wanted || link.probe.found.is_some() {
            return;
        }
        link.probe.wanted = true;
        core.after(core.config.timeouts.start, Deadline::Handshake(id));
        self.shake(core, id);
    }

    /// Whether a link knows how to begin its conversation.
    pub(crate) fn can_begin(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.hello.is_some() || link.probe.wanted || link.unused)
    }

    /// Whether the handshake is done.
    pub(crate) fn is_ready(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| matches!(link.state, State::Ready(_)))
    }

    /// The server's answer to `initialize`, or that to `server/discover`.
    pub(crate) fn answer(&self, id: LinkId) -> Option<&str> {
        let link = self.links.get(&id)?;
        link.probe.found.as_deref().or_else(|| link.hello.as_ref()?.answer.as_deref())
    }

    /// Sends `initialize` or `server/discover` if there is a process to read it.
    pub(super) fn shake(&mut self, core: &mut Core, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let (Some(peer), State::Starting) = (link.peer, link.state) else { return };
        if !self.is_writable(peer) {
            return;
        }
        let number = core.number();
        let (line, state) = if link.probe.wanted {
            core.after(SILENCE, Deadline::Probe(id));
            let own = Envelope::own();
            (own.request(number, "server/discover", "{}").into_bytes(), State::Probing(number))
        } else if let Some(hello) = &link.hello {
            let place = &hello.request[hello.id.clone()];
            (rpc::splice(&hello.request, &mut [(place, &number.to_string())]), State::Shaking(number))
        } else {
            return;
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.state = state;
            link.probe.sent |= matches!(state, State::Probing(_));
        }
        self.write(core, peer, rpc::line(line));
    }

    /// Takes what answers `initialize` or `server/discover`; `None` if the message is something else.
    pub(crate) fn handshake(&mut self, core: &mut Core, id: LinkId, message: &Message<'_>) -> Option<Vec<LinkEvent>> {
        let link = self.links.get_mut(&id)?;
        let Kind::Response { id: Some(answered), outcome } = &message.kind else { return None };
        let answered = answered.number()?;
        match link.state {
            State::Probing(number) if number == answered => {
                let events = if is_discovery(message) {
                    self.found_modern(core, id, message.raw)
                } else if outcome.is_err_and(is_modern_error) && !link.probe.retried && says_modern(message) {
                    // It does speak this revision, whatever made it refuse.
                    link.probe.retried = true;
                    link.state = State::Starting;
                    self.shake(core, id);
                    None
                } else if outcome.is_err_and(is_modern_error)
                    && !supported(message).iter().any(|version| crate::front::is_known_revision(version))
                {
                    let why = format!("it speaks only revisions that are not known here: {:?}", supported(message));
                    let refusal = Some(message.raw.as_bytes().to_vec());
                    self.fail(core, id, why, refusal)
                } else {
                    self.not_modern(core, id)
                };
                Some(events.into_iter().collect())
            }
            State::Shaking(_) if link.probe.late == Some(answered) => {
                // It only took its time.
                let late = is_discovery(message).then(|| self.found_modern(core, id, message.raw)).flatten();
                Some(late.into_iter().collect())
            }
            State::Shaking(number) if number == answered => {
                let event = match outcome {
                    Ok(result) if agrees_on_modern(result) => {
                        // No session has that revision: it is how some modern servers take an `initialize`.
                        let text = "it answered initialize with revision 2026-07-28, which has none";
                        let refusal = rpc::error(Some("0"), rpc::code::INTERNAL, text);
                        self.refused(core, id, refusal, text.into())
                    }
                    Ok(result) => self.initialized_by(core, id, message.raw, result),
                    Err(_) => {
                        let refusal = message.raw.as_bytes().to_vec();
                        self.refused(core, id, refusal, "it refused initialize".into())
                    }
                };
                Some(event.into_iter().collect())
            }
            _ => None,
        }
    }

    /// The server took `initialize`.
    fn initialized_by(
        &mut self,
        core: &mut Core,
        id: LinkId,
        answer: &str,
        result: &serde_json::value::RawValue,
    ) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        core.timers.clear(Deadline::Handshake(id));
        let name = &core.config.servers[link.server].name;
        let hello = link.hello.as_mut()?;
        link.state = State::Ready(core.now);
        let again = hello.answer.is_some();
        info!("[{name}] ready{}", if again { " again" } else { "" });
        debug!("[{name}] link#{} ready: {} bytes of capabilities", id.0, result.get().len());
        // Later sessions hear what the server says now, not what it said before it was restarted.
        hello.answer = Some(answer.to_owned());
        let capabilities = rpc::member(Some(result), "capabilities").ok().flatten();
        self.eras[link.server].tasks = rpc::member(capabilities, "tasks").is_ok_and(|tasks| tasks.is_some());
        let (initialized, peer) = (hello.initialized.clone(), link.peer);
        if let Some(Peer::Remote(remote)) = peer {
            let revision = rpc::member(Some(result), "protocolVersion").ok().flatten().and_then(rpc::string);
            self.remotes.agreed(core, remote, revision.as_deref());
        }
        if let (Some(line), Some(peer)) = (initialized, peer) {
            self.write(core, peer, line);
        }
        Some(LinkEvent::Up { link: id, again })
    }

    /// The server refused `initialize`: perhaps it is a modern one.
    pub(super) fn refused(&mut self, core: &mut Core, id: LinkId, refusal: Vec<u8>, why: String) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        let server = link.server;
        let again = link.hello.as_ref().is_some_and(|hello| hello.answer.is_some());
        if !link.probe.sent && !again && self.eras[server].modern != Some(false) {
            link.probe.refusal = Some(refusal);
            link.probe.wanted = true;
            link.state = State::Starting;
            self.shake(core, id);
            return None;
        }
        warn!("[{}] refused initialize", core.config.servers[server].name);
        if again {
            // It took the very same words before: it does not come up again. A first refusal is no failure of its.
            self.crashed(core, server);
        }
        self.fail(core, id, why, Some(refusal))
    }

    /// The server of a link is modern.
    fn found_modern(&mut self, core: &mut Core, id: LinkId, answer: &str) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        core.timers.clear(Deadline::Handshake(id));
        core.timers.clear(Deadline::Probe(id));
        let again = link.probe.found.is_some();
        let name = &core.config.servers[link.server].name;
        info!("[{name}] ready{}, revision {}", if again { " again" } else { "" }, super::MODERN);
        link.state = State::Ready(core.now);
        let only = link.probe.refusal.is_some();
        link.probe = Probe { wanted: true, sent: true, found: Some(answer.to_owned()), ..Probe::default() };
        link.hello = None;
        if core.config.servers[link.server].sessions == SessionMode::Shared {
            // Whoever comes next may share it, whatever this client is.
            link.sharing = Some(Sharing::modern(&link.scope));
        }
        let known = &mut self.eras[link.server];
        *known = Known { modern: Some(true), only_modern: known.only_modern || only, tasks: false };
        Some(LinkEvent::Up { link: id, again })
    }

    /// The server of a link is not modern.
    pub(super) fn not_modern(&mut self, core: &mut Core, id: LinkId) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        core.timers.clear(Deadline::Probe(id));
        let name = &core.config.servers[link.server].name;
        link.probe.wanted = false;
        if let Some(refusal) = link.probe.refusal.take() {
            warn!("[{name}] refused initialize");
            return self.fail(core, id, "it refused initialize".into(), Some(refusal));
        }
        if link.probe.found.take().is_some() {
            // It was modern before.
            let server = link.server;
            self.eras[server] = Known::default();
            return self.fail(core, id, "it does not speak revision 2026-07-28 any more".into(), None);
        }
        debug!("[{name}] does not speak revision {}", super::MODERN);
        core.timers.clear(Deadline::Handshake(id));
        link.state = if link.peer.is_some() { State::Starting } else { State::Waiting };
        link.sharing = None;
        link.hello = None;
        self.eras[link.server] = Known { modern: Some(false), ..Known::default() };
        Some(LinkEvent::Legacy { link: id })
    }

    /// The server did not answer `server/discover` for a while.
    pub(crate) fn probe_late(&mut self, core: &mut Core, id: LinkId) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        let State::Probing(number) = link.state else { return None };
        if matches!(link.peer, Some(Peer::Remote(_))) || link.probe.was_found() {
            // Over HTTP there is always an answer, and it is waited for as long as for any handshake. So is that of a server
            // which has answered before.
            return None;
        }
        link.probe.late = Some(number);
        self.not_modern(core, id)
    }

    /// The server answered a handshake with something that is no answer.
    pub(crate) fn handshake_invalid(&mut self, core: &mut Core, id: LinkId, answered: &str) -> Option<LinkEvent> {
        let link = self.links.get(&id)?;
        match link.state {
            State::Shaking(number) if rpc::Id(answered).number() == Some(number) => {
                let server = link.server;
                warn!("[{}] answered initialize with something invalid; stopped", core.config.servers[server].name);
                self.crashed(core, server);
                self.fail(core, id, "it answered initialize with something that is no valid message".into(), None)
            }
            State::Probing(number) if rpc::Id(answered).number() == Some(number) => self.not_modern(core, id),
            _ => None,
        }
    }

    /// The server took too long for the handshake.
    pub(crate) fn handshake_late(&mut self, core: &mut Core, id: LinkId) -> Option<LinkEvent> {
        let server = self.links.get(&id)?.server;
        let (name, wait) = (&core.config.servers[server].name, core.config.timeouts.start);
        warn!("[{name}] did not answer initialize within {} s; stopped", wait.as_secs());
        self.crashed(core, server);
        self.fail(core, id, format!("it did not answer initialize within {} s", wait.as_secs()), None)
    }

    /// Takes the process from a link and says that the link is down.
    pub(super) fn fail(
        &mut self,
        core: &mut Core,
        id: LinkId,
        why: String,
        refusal: Option<Vec<u8>>,
    ) -> Option<LinkEvent> {
        let link = self.links.get_mut(&id)?;
        if !matches!(link.state, State::Ready(_)) {
            // What was believed of its era may be the reason.
            self.eras[link.server] = Known::default();
        }
        link.state = State::Waiting;
        link.queue.clear();
        link.probe.refusal = None;
        core.timers.clear(Deadline::Handshake(id));
        core.timers.clear(Deadline::Probe(id));
        if let Some(peer) = link.peer.take() {
            self.part(core, peer);
        }
        Some(LinkEvent::Down { link: id, why, refusal, spared: Vec::new() })
    }
}
