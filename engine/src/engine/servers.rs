//! What servers say, and what becomes of them.

use log::warn;

use super::Engine;
use crate::back::{LinkEvent, LinkId};
use crate::front::SessionId;
use crate::io::{ChildId, FetchId};
use crate::router::{Answered, CallId, Effect};
use crate::wire::lines::Line;
use crate::wire::rpc::{self, Kind, Message, code};

impl Engine {
    /// Permits the next read of a response, unless a slow client of its own holds it up.
    pub(super) fn read_fetch(&mut self, id: FetchId) {
        let session = self.back.link_of_fetch(id).and_then(|link| self.router.sessions_of(link).next());
        if !session.is_some_and(|s| self.front.is_dedicated(s) && self.front.is_congested(&self.core, s)) {
            self.back.read_fetch(&mut self.core, id);
        }
    }

    pub(super) fn child_says(&mut self, child: ChildId, bytes: &[u8]) {
        let Some((link, mut decoder)) = self.back.read_begun(child) else { return };
        let mut rest = bytes;
        while let Some(line) = decoder.next(&mut rest) {
            self.child_line(child, link, &line);
        }
        self.back.read_done(child, decoder);
        // A slow client of a server of its own holds up that server, and nobody else.
        self.listen(child);
    }

    /// Permits the next read of a child, unless somebody is behind with reading: the child itself, or the client that it
    /// is there for alone. A slow client of a shared server holds up nobody.
    pub(super) fn listen(&mut self, child: ChildId) {
        let session = self.back.link_of(child).and_then(|link| self.router.sessions_of(link).next());
        let held = session.is_some_and(|s| self.front.is_dedicated(s) && self.front.is_congested(&self.core, s));
        // What a dead one left in its pipe is little, and must not be lost.
        if self.back.is_dead(child) || (!held && !self.back.is_clogged(&self.core, child)) {
            self.back.read_on(&mut self.core, child);
        }
    }

    /// A session has room again: its server may go on.
    pub(super) fn resume(&mut self, session: Option<SessionId>) {
        if let Some(session) = session
            && self.front.is_dedicated(session)
            && !self.front.is_congested(&self.core, session)
            && let Some(link) = self.router.link_of(session)
        {
            self.back.resume(&mut self.core, link);
        }
    }

    /// The child's stdout ended: a last line may be without an end.
    pub(super) fn child_falls_silent(&mut self, child: ChildId) {
        if let Some((link, mut decoder)) = self.back.read_begun(child) {
            while let Some(line) = decoder.finish() {
                self.child_line(child, link, &line);
            }
            self.back.read_done(child, decoder);
        }
        self.overlong.remove(&child);
    }

    pub(super) fn child_line(&mut self, child: ChildId, link: Option<LinkId>, line: &Line<'_>) {
        match line {
            Line::Part(part) => self.overlong.entry(child).or_default().feed(part),
            Line::End => {
                let scanner = self.overlong.remove(&child).unwrap_or_default();
                let max = self.core.config.limits.max_message;
                warn!("child#{}: a message of more than {max} bytes was skipped (--max-message-size)", child.0);
                if let Some((link, id)) = link.zip(scanner.id())
                    && let Some(event) = self.back.handshake_invalid(&mut self.core, link, id)
                {
                    return self.link_event(event);
                }
                let call = link.zip(scanner.id()).and_then(|(link, id)| self.router.call_of(link, id));
                if let Some(call) = call {
                    let text = format!("the server's answer is larger than {max} bytes (--max-message-size)");
                    self.fail_call(call, 200, code::INTERNAL, &text);
                }
            }
            // A link that was released wants to hear nothing more.
            Line::Whole(line) => {
                if let Some(link) = link.filter(|_| !line.iter().all(u8::is_ascii_whitespace)) {
                    self.server_says(link, line, None);
                }
            }
        }
    }

    /// What a server said, on a line or in an event. `about` is the call on whose stream it came.
    pub(super) fn server_says(&mut self, link: LinkId, line: &[u8], about: Option<u64>) {
        // Some runtimes put a byte order mark before the first thing they write.
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if rpc::is_batch(line) {
            // Revision 2025-03-26 lets a server write several messages in one line.
            match rpc::parse_batch(line) {
                Ok(parts) => parts.into_iter().for_each(|part| self.server_message(link, rpc::parse_str(part), about)),
                Err(malformed) => self.server_message(link, Err(malformed), about),
            }
        } else {
            let message = rpc::parse(line).map_err(|malformed| {
                let id = malformed.id.clone().or_else(|| rpc::guess_id(line));
                rpc::Malformed { id, ..malformed }
            });
            self.server_message(link, message, about);
        }
    }

    pub(super) fn server_message(
        &mut self,
        link: LinkId,
        message: Result<Message<'_>, rpc::Malformed>,
        about: Option<u64>,
    ) {
        let message = match message {
            Ok(message) => message,
            Err(malformed) => {
                if self.back.may_complain(&self.core, link) {
                    warn!("link#{}: something that is no message was skipped: {malformed}", link.0);
                }
                // If it was meant as an answer, the caller must not wait for a better one.
                let id = malformed.id.clone().or_else(|| about.map(|number| number.to_string()));
                if let Some(id) = &id
                    && let Some(event) = self.back.handshake_invalid(&mut self.core, link, id)
                {
                    return self.link_event(event);
                }
                let call = id.and_then(|id| self.router.call_of(link, &id));
                if let Some(call) = call {
                    let text = format!("the server sent an invalid answer: {malformed}");
                    self.fail_call(call, 200, code::INTERNAL, &text);
                }
                return;
            }
        };
        if let Some(events) = self.back.handshake(&mut self.core, link, &message) {
            return self.link_events(events);
        }
        let modern = self.back.is_modern(link);
        match &message.kind {
            Kind::Response { id, outcome } => {
                let answered = self.router.answered(&mut self.core, link, *id, outcome.ok());
                self.server_answers(link, &message, answered);
            }
            Kind::Request { .. } if modern => {
                if self.back.may_complain(&self.core, link) {
                    warn!("link#{}: a request was dropped: servers of revision 2026-07-28 send none", link.0);
                }
            }
            Kind::Notification { .. } if modern && self.own_subscription_says(link, &message) => {}
            _ => {
                let step = self.router.server_says(&mut self.core, link, &message, about);
                self.run(step);
            }
        }
    }

    /// An answer goes to its client, in the words of its era.
    pub(super) fn server_answers(&mut self, link: LinkId, message: &Message<'_>, answered: Answered) {
        let Kind::Response { id: Some(theirs), outcome } = &message.kind else { return };
        match answered {
            Answered::Nobody => {}
            Answered::Own { call, effect } => self.own_answered(link, call, &effect, *outcome),
            Answered::Client { call, stream, id } => {
                self.back.works(link);
                if self.down.get(stream.session).is_some() {
                    self.answer_modern(link, stream.session, &id, message);
                } else if self.back.is_modern(link) {
                    self.answer_legacy(link, call, stream, &id, message);
                } else {
                    let message = rpc::splice(message.raw, &mut [(theirs.0, &id)]);
                    self.front.reply(&mut self.core, stream, 200, message);
                }
            }
        }
    }

    /// A call fails for a reason of our own.
    pub(super) fn fail_call(&mut self, call: CallId, status: u16, code: i32, text: &str) {
        let (link, effect) = (self.router.link_of_call(call), self.router.effect_of(call));
        let step = self.router.fail_call(&mut self.core, call, status, code, text);
        self.up.landed(call);
        self.run(step);
        match (link, effect) {
            (Some(link), Effect::Tools) => self.tools_listed(link, None),
            (Some(link), Effect::Listen) => self.up.ended(&mut self.core, link, call, false),
            _ => {}
        }
    }

    pub(super) fn link_events(&mut self, events: impl IntoIterator<Item = LinkEvent>) {
        for event in events {
            self.link_event(event);
        }
    }

    pub(super) fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Message { link, bytes, about } => self.server_says(link, &bytes, about),
            LinkEvent::Failed { link, number, text } => {
                if let Some(call) = self.router.call_of(link, &number.to_string()) {
                    self.fail_call(call, 200, code::INTERNAL, &text);
                }
            }
            LinkEvent::Up { link, again } => {
                let answer = self.back.answer(link).unwrap_or_default().to_owned();
                if again && !self.back.is_modern(link) {
                    for line in self.router.restore(&mut self.core, link) {
                        let _ = self.back.send(&mut self.core, link, line);
                    }
                }
                self.back.flush(&mut self.core, link);
                for (stream, id) in self.router.greetings(link) {
                    self.welcome(stream, &id, &answer);
                }
                self.go_on(link, again);
            }
            LinkEvent::Legacy { link } => self.place_again(link),
            LinkEvent::Down { link, why, refusal, spared } => {
                let text = format!("the server failed: {why}");
                for step in self.router.link_down(&mut self.core, link, &text, &spared) {
                    self.run(step);
                }
                for (stream, id) in self.router.greetings(link) {
                    let error = match refusal.as_deref().map(rpc::parse) {
                        Some(Ok(Message { raw, kind: Kind::Response { id: Some(old), .. } })) => {
                            rpc::splice(raw, &mut [(old.0, &id)])
                        }
                        _ => rpc::error(Some(&id), code::INTERNAL, &text),
                    };
                    self.front.reply(&mut self.core, stream, 200, error);
                    self.refuse_session(stream.session, &text);
                }
                self.silence(link, &text);
                self.fail_held(link, &text);
                if !self.back.can_begin(link) {
                    // Another server is there now, which knows nothing of these clients: they must begin again.
                    for session in self.router.sessions_of(link).collect::<Vec<_>>() {
                        if !self.front.is_modern(session) {
                            self.refuse_session(session, &text);
                        }
                    }
                }
                // One that only reads what it was told already needs no new process.
                let needed =
                    |session: SessionId| !self.front.is_ephemeral(session) || self.down.filter(session).is_some();
                if !spared.is_empty() || self.router.sessions_of(link).any(needed) {
                    self.back.start(&mut self.core, link);
                } else if self.router.sessions_of(link).next().is_none() {
                    self.back.abandon(&mut self.core, link);
                }
            }
        }
    }
}
