//! Child processes: their pipes and the ladder on which they stop. What they say is none of this file's business.
//!
//! ```text
//!  spawn ──▶ running ──stdin closed──▶ (stop_stdin) ──SIGTERM──▶ (stop_term) ──SIGKILL──▶ exited ──▶ drained ──▶ gone
//!               └──────────────────────── it exits by itself ─────────────────────────────────┘
//! ```
//!
//! An exited child may leave bytes in its outputs; they are read to the end, or until a process that escaped with the pipe
//! has had [`DRAIN`] to close it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use log::{debug, info, log_enabled, warn};

use crate::core::Core;
use crate::core::outbox::Outbox;
use crate::core::timers::Deadline;
use crate::io::{Action, ChildId, Command, Exit, Instant, Pipe, Signal};
use crate::wire::lines;

/// How long an exited child's outputs may stay open.
const DRAIN: Duration = Duration::from_millis(500);
/// Longest line of stderr that goes to the log whole.
const MAX_LOG_LINE: usize = 8 * 1024;
/// Most lines from and about one child that go to the log in one second; the rest is counted.
const MAX_LOG_RATE: u32 = 200;

#[derive(Debug)]
struct Child {
    name: String,
    stdin: Outbox,
    stdin_open: bool,
    /// Lent to the engine while it goes through the lines of one read.
    stdout: Option<lines::Decoder>,
    /// A read of stdout is permitted and has not come back.
    reading: bool,
    stdout_open: bool,
    stderr: lines::Decoder,
    stderr_open: bool,
    log_rate: Rate,
    stage: Stage,
    /// It runs: it has pipes and a group to signal.
    spawned: bool,
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Spawn was asked for; no answer yet.
    Starting,
    Running,
    StdinClosed,
    Terminated,
    Killed,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) enum End {
    NotStarted(ErrorKind),
    Exited(Exit),
}

#[derive(Debug, Default)]
pub(crate) struct Children {
    table: BTreeMap<ChildId, Child>,
    /// The last id that was given out.
    last: u64,
}

impl Children {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn spawn(&mut self, core: &mut Core, name: &str, command: Command) -> ChildId {
        self.last += 1;
        let id = ChildId(self.last);
        let child = Child {
            name: name.to_owned(),
            stdin: Outbox::new(Pipe::ChildStdin(id)),
            stdin_open: true,
            stdout: Some(lines::Decoder::new(core.config.limits.max_message)),
            reading: false,
            stdout_open: true,
            stderr: lines::Decoder::new(MAX_LOG_LINE),
            stderr_open: true,
            log_rate: Rate::default(),
            stage: Stage::Starting,
            spawned: false,
            exit: None,
        };
        debug!("[{name}] child#{} starting", id.0);
        self.table.insert(id, child);
        core.act(Action::Spawn(id, command));
        id
    }

    /// The process runs. Both outputs are read from now on.
    pub(crate) fn spawned(&mut self, core: &mut Core, id: ChildId) {
        let Some(child) = self.table.get_mut(&id) else { return };
        debug!("[{}] child#{} running", child.name, id.0);
        core.act(Action::Read(Pipe::ChildStderr(id)));
        child.spawned = true;
        let stage = child.stage;
        if stage == Stage::Starting {
            child.stage = Stage::Running;
        }
        self.read_on(core, id);
        match stage {
            Stage::Starting => {}
            // It was stopped, or killed, before it ran.
            Stage::Killed => core.act(Action::Kill(id, Signal::Kill)),
            _ => self.begin_stop(core, id),
        }
    }

    /// Whether lines can be written to it.
    pub(crate) fn is_writable(&self, id: ChildId) -> bool {
        self.table.get(&id).is_some_and(|c| c.stdin_open && c.stage == Stage::Running && c.exit.is_none())
    }

    pub(crate) fn write(&mut self, core: &mut Core, id: ChildId, line: Vec<u8>) {
        if self.is_writable(id)
            && let Some(child) = self.table.get_mut(&id)
        {
            child.stdin.push(core, line);
        }
    }

    /// Whether it has exited. Its outputs may not be at their end.
    pub(crate) fn is_dead(&self, id: ChildId) -> bool {
        self.table.get(&id).is_some_and(|c| c.exit.is_some())
    }

    /// Bytes that wait to be read by the child.
    pub(crate) fn backlog(&self, id: ChildId) -> usize {
        self.table.get(&id).map_or(0, |c| c.stdin.backlog())
    }

    pub(crate) fn wrote(&mut self, core: &mut Core, id: ChildId) {
        if let Some(child) = self.table.get_mut(&id)
            && child.stdin_open
        {
            child.stdin.wrote(core);
            if child.stdin.is_closing() && child.stdin.is_idle() {
                child.stdin_open = false;
            }
        }
    }

    /// Takes the decoder of the child's stdout, to go through what was read; [`Children::read_done`] gives it back.
    pub(crate) fn read_begun(&mut self, id: ChildId) -> Option<lines::Decoder> {
        let child = self.table.get_mut(&id)?;
        child.reading = false;
        child.stdout.take()
    }

    pub(crate) fn read_done(&mut self, id: ChildId, decoder: lines::Decoder) {
        if let Some(child) = self.table.get_mut(&id) {
            child.stdout = Some(decoder);
        }
    }

    /// Permits the next read of stdout, unless one is permitted already.
    pub(crate) fn read_on(&mut self, core: &mut Core, id: ChildId) {
        if let Some(child) = self.table.get_mut(&id)
            && child.stdout_open
            && !child.reading
            && child.spawned
        {
            child.reading = true;
            core.act(Action::Read(Pipe::ChildStdout(id)));
        }
    }

    /// Something came from stderr: it goes to the log, line by line, with the server's name before it.
    pub(crate) fn stderr(&mut self, core: &mut Core, id: ChildId, mut bytes: &[u8]) {
        let Some(child) = self.table.get_mut(&id) else { return };
        if !child.stderr_open {
            return;
        }
        while let Some(line) = child.stderr.next(&mut bytes) {
            log_line(&child.name, &mut child.log_rate, core.now, line);
        }
        core.act(Action::Read(Pipe::ChildStderr(id)));
    }

    /// One of the child's pipes ended. Returns how the child ended, if it is gone with that.
    pub(crate) fn closed(&mut self, core: &mut Core, pipe: Pipe) -> Option<(ChildId, End)> {
        let (Pipe::ChildStdin(id) | Pipe::ChildStdout(id) | Pipe::ChildStderr(id)) = pipe else { return None };
        let child = self.table.get_mut(&id)?;
        match pipe {
            Pipe::ChildStdin(_) => child.stdin_open = false,
            Pipe::ChildStderr(_) => {
                child.stderr_open = false;
                if let Some(line) = child.stderr.finish() {
                    log_line(&child.name, &mut child.log_rate, core.now, line);
                }
                return self.finish(core, id);
            }
            _ => {
                child.reading = false;
                child.stdout_open = false;
            }
        }
        // Without one of these two pipes it cannot serve any more.
        if child.exit.is_none() {
            self.begin_stop(core, id);
        }
        self.finish(core, id)
    }

    /// Whether one more line about this child may go to the log in this second.
    pub(crate) fn may_complain(&mut self, core: &Core, id: ChildId) -> bool {
        self.table.get_mut(&id).is_some_and(|c| c.log_rate.admits(&c.name, core.now))
    }

    pub(crate) fn spawn_failed(&mut self, id: ChildId, kind: ErrorKind) -> Option<(ChildId, End)> {
        let child = self.table.remove(&id)?;
        debug!("[{}] child#{} did not start: {kind}", child.name, id.0);
        Some((id, End::NotStarted(kind)))
    }

    pub(crate) fn exited(&mut self, core: &mut Core, id: ChildId, exit: Exit) -> Option<(ChildId, End)> {
        let child = self.table.get_mut(&id)?;
        debug!("[{}] child#{} {exit}", child.name, id.0);
        child.exit = Some(exit);
        core.timers.clear(Deadline::Stop(id));
        if child.stdin_open {
            child.stdin_open = false;
            core.act(Action::Close(Pipe::ChildStdin(id)));
        }
        core.after(DRAIN, Deadline::Drain(id));
        // Even if a slow client held up the reading: what is left is little and must not be lost.
        self.read_on(core, id);
        self.finish(core, id)
    }

    /// Begins to stop a child. [`Children::exited`] follows, within the configured times.
    pub(crate) fn stop(&mut self, core: &mut Core, id: ChildId) {
        if self.table.get(&id).is_some_and(|c| matches!(c.stage, Stage::Starting | Stage::Running)) {
            self.begin_stop(core, id);
        }
    }

    fn begin_stop(&mut self, core: &mut Core, id: ChildId) {
        let Some(child) = self.table.get_mut(&id) else { return };
        if child.exit.is_some() || matches!(child.stage, Stage::Terminated | Stage::Killed) {
            return;
        }
        child.stage = Stage::StdinClosed;
        if !child.spawned {
            // Its pipes do not exist yet; `spawned` comes back here.
            return;
        }
        if !core.timers.is_set(Deadline::Stop(id)) {
            debug!("[{}] child#{} stopping", child.name, id.0);
            core.after(core.config.timeouts.stop_stdin, Deadline::Stop(id));
        }
        if child.stdin_open {
            // Whatever it has not read by now, nobody waits for: the calls were answered before it is stopped.
            child.stdin_open = false;
            core.act(Action::Close(Pipe::ChildStdin(id)));
        }
    }

    /// The next step of the ladder.
    pub(crate) fn stop_harder(&mut self, core: &mut Core, id: ChildId) {
        let Some(child) = self.table.get_mut(&id) else { return };
        if child.exit.is_some() || !child.spawned {
            return;
        }
        let wait = core.config.timeouts.stop_term;
        match child.stage {
            Stage::Terminated | Stage::Killed => {
                if child.stage == Stage::Terminated {
                    warn!("[{}] child#{} does not end on SIGTERM; killed", child.name, id.0);
                }
                child.stage = Stage::Killed;
                core.act(Action::Kill(id, Signal::Kill));
            }
            _ => {
                info!("[{}] child#{} does not end when its stdin is closed; SIGTERM", child.name, id.0);
                child.stage = Stage::Terminated;
                core.act(Action::Kill(id, Signal::Term));
                core.after(wait, Deadline::Stop(id));
            }
        }
    }

    /// Ends every child at once.
    pub(crate) fn kill_all(&mut self, core: &mut Core) {
        for (id, child) in &mut self.table {
            if child.exit.is_none() {
                child.stage = Stage::Killed;
                if child.spawned {
                    core.act(Action::Kill(*id, Signal::Kill));
                }
            }
        }
    }

    /// The child exited long enough ago: whatever still holds its pipes is none of ours.
    pub(crate) fn drained(&mut self, core: &mut Core, id: ChildId) -> Option<(ChildId, End)> {
        let child = self.table.get_mut(&id)?;
        if std::mem::take(&mut child.stdout_open) {
            core.act(Action::Close(Pipe::ChildStdout(id)));
        }
        if std::mem::take(&mut child.stderr_open) {
            core.act(Action::Close(Pipe::ChildStderr(id)));
        }
        self.finish(core, id)
    }

    /// Forgets the child if nothing of it is left.
    fn finish(&mut self, core: &mut Core, id: ChildId) -> Option<(ChildId, End)> {
        let child = self.table.get(&id)?;
        let exit = child.exit?;
        if child.stdout_open || child.stderr_open {
            return None;
        }
        core.timers.clear(Deadline::Drain(id));
        self.table.remove(&id);
        Some((id, End::Exited(exit)))
    }
}

/// Counts log lines in the current second.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    lines: u32,
}

impl Rate {
    /// Counts one more line; true if it may be logged.
    fn admits(&mut self, name: &str, now: Instant) -> bool {
        let second = now.elapsed().as_secs();
        if self.second != second {
            if self.lines > MAX_LOG_RATE {
                info!("[{name}] ({} more lines were not logged)", self.lines - MAX_LOG_RATE);
            }
            *self = Rate { second, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= MAX_LOG_RATE
    }
}

fn log_line(name: &str, rate: &mut Rate, now: Instant, line: lines::Line<'_>) {
    let text = match line {
        lines::Line::Whole(text) => text,
        // The start of an endless line is enough.
        lines::Line::Part(text) => &text[..text.len().min(MAX_LOG_LINE)],
        lines::Line::End => return,
    };
    if !text.is_empty() && rate.admits(name, now) && log_enabled!(log::Level::Info) {
        info!("[{name}] {}", printable(text));
    }
}

/// Text from a stranger, made fit for a terminal: no escape sequence of a server reaches it.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c }).collect()
}
