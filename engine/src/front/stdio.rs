//! One client on our own stdin and stdout (specification, basic/transports, "stdio").

use super::session::{Channel, STANDALONE};
use super::{Front, SessionId, StreamId};
use crate::core::Core;
use crate::core::outbox::Outbox;
use crate::io::{Action, Pipe};
use crate::wire::{lines, rpc};

#[derive(Debug)]
pub(super) struct Stdio {
    session: SessionId,
    stdout: Outbox,
    /// Lent to the engine while it goes through the lines of one read.
    stdin: Option<lines::Decoder>,
    reading: bool,
    ended: bool,
}

impl Front {
    /// Opens the session of the client on our stdin. The first configured server is what it talks to.
    pub(crate) fn open_stdio(&mut self, core: &mut Core) {
        let session = self.open_session(core, 0, None, Channel::Stdio, None);
        let stdin = Some(lines::Decoder::new(core.config.limits.max_message));
        let stdout = Outbox::new(Pipe::Stdout);
        self.stdio = Some(Stdio { session, stdout, stdin, reading: false, ended: false });
        self.read_stdin(core);
    }

    /// The stream that all messages of the client on stdin belong to.
    pub(crate) fn stdio_stream(&self) -> Option<StreamId> {
        let session = self.stdio.as_ref()?.session;
        Some(StreamId { session, number: STANDALONE })
    }

    /// Permits the next read of stdin, unless the client does not read what it has.
    pub(crate) fn read_stdin(&mut self, core: &mut Core) {
        if let Some(stdio) = &mut self.stdio
            && !stdio.reading
            && !stdio.ended
            && stdio.stdout.backlog() <= core.config.limits.max_queue
        {
            stdio.reading = true;
            core.act(Action::Read(Pipe::Stdin));
        }
    }

    /// Takes the decoder of stdin, to go through what was read; [`Front::stdin_done`] gives it back.
    pub(crate) fn stdin_begun(&mut self) -> Option<lines::Decoder> {
        let stdio = self.stdio.as_mut()?;
        stdio.reading = false;
        stdio.stdin.take()
    }

    pub(crate) fn stdin_done(&mut self, decoder: lines::Decoder) {
        if let Some(stdio) = &mut self.stdio {
            stdio.stdin = Some(decoder);
        }
    }

    /// Nothing more comes from stdin.
    pub(crate) fn stdin_ended(&mut self) {
        if let Some(stdio) = &mut self.stdio {
            stdio.ended = true;
        }
    }

    /// Nobody reads our stdout any more.
    pub(crate) fn stdout_closed(&mut self) {
        self.stdin_ended();
        self.stdio = None;
    }

    pub(crate) fn stdout_wrote(&mut self, core: &mut Core) {
        if let Some(stdio) = &mut self.stdio {
            stdio.stdout.wrote(core);
        }
        self.read_stdin(core);
    }

    pub(super) fn say_line(&mut self, core: &mut Core, message: &[u8]) {
        if let Some(stdio) = &mut self.stdio {
            stdio.stdout.push(core, rpc::line(message.to_vec()));
        }
    }

    pub(super) fn stdout_backlog(&self) -> usize {
        self.stdio.as_ref().map_or(0, |stdio| stdio.stdout.backlog())
    }

    /// Whether everything said on stdout is written.
    pub(crate) fn is_stdout_idle(&self) -> bool {
        self.stdout_backlog() == 0
    }
}
