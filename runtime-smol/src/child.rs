//! Child processes: each in a process group of its own, so that a signal reaches what it started as well.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;

use async_io::Async;
use mcp_proxy_engine::{ChildId, Command, Exit, Signal};
use rustix::process::{Pid, kill_process_group};
use smol::Task;

use crate::pipes::Pipes;
use crate::run::{Inbox, Message, Spawner};

/// All children that run.
pub(crate) struct Children {
    running: HashMap<ChildId, Running>,
    spawner: Spawner,
    inbox: Rc<Inbox>,
}

struct Running {
    group: Rc<Group>,
    _wait: Task<()>,
}

/// The process group of one child. Once the child is reaped the number may name somebody else's group.
struct Group {
    pid: Pid,
    reaped: Cell<bool>,
}

impl Group {
    fn kill(&self, signal: rustix::process::Signal) {
        if !self.reaped.get()
            && let Err(error) = kill_process_group(self.pid, signal)
        {
            // It ended by itself a moment ago.
            log::debug!("process group {}: {error}", self.pid.as_raw_nonzero());
        }
    }
}

impl Drop for Running {
    /// Nobody is left behind, however the loop ended.
    fn drop(&mut self) {
        self.group.kill(rustix::process::Signal::KILL);
    }
}

impl Children {
    pub(crate) fn new(spawner: Spawner, inbox: Rc<Inbox>) -> Self {
        Children { running: HashMap::new(), spawner, inbox }
    }

    /// Starts a child and hands its pipes over.
    pub(crate) fn spawn(&mut self, child: ChildId, command: Command, pipes: &mut Pipes) {
        match start(command) {
            Ok((process, pid, ends)) => {
                log::debug!("{child:?} is process {}", pid.as_raw_nonzero());
                pipes.add(child, ends);
                let group = Rc::new(Group { pid, reaped: Cell::new(false) });
                let wait = self.spawner.spawn(wait(child, process, Rc::clone(&group), Rc::clone(&self.inbox)));
                self.running.insert(child, Running { group, _wait: wait });
                self.inbox.send(Message::Spawned(child));
            }
            Err(error) => {
                log::warn!("{child:?} could not be started: {error}");
                self.inbox.send(Message::SpawnFailed(child, error.kind()));
            }
        }
    }

    /// Signals the whole group.
    pub(crate) fn kill(&mut self, child: ChildId, signal: Signal) {
        if let Some(running) = self.running.get(&child) {
            running.group.kill(match signal {
                Signal::Term => rustix::process::Signal::TERM,
                Signal::Kill => rustix::process::Signal::KILL,
            });
        }
    }

    /// Forgets a child that was reaped.
    pub(crate) fn remove(&mut self, child: ChildId) {
        self.running.remove(&child);
    }
}

type Started = (async_process::Child, Pid, [Async<OwnedFd>; 3]);

fn start(command: Command) -> io::Result<Started> {
    let mut builder = std::process::Command::new(&command.program);
    builder.args(&command.args).env_clear().process_group(0);
    builder.envs(command.env.iter().map(|(name, value)| (name, value.reveal())));
    if let Some(cwd) = &command.cwd {
        builder.current_dir(cwd);
    }
    let mut builder = async_process::Command::from(builder);
    // If a step after the start fails the process must not stay.
    let mut process =
        builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (process.stdin.take(), process.stdout.take(), process.stderr.take())
    else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    // async-process made them non-blocking already.
    let ends = [
        Async::new_nonblocking(OwnedFd::try_from(stdin)?)?,
        Async::new_nonblocking(OwnedFd::try_from(stdout)?)?,
        Async::new_nonblocking(OwnedFd::try_from(stderr)?)?,
    ];
    Ok((process, pid, ends))
}

async fn wait(child: ChildId, mut process: async_process::Child, group: Rc<Group>, inbox: Rc<Inbox>) {
    let status = process.status().await;
    // What the child started and left behind. The group keeps its number as long as one process is in it.
    group.kill(rustix::process::Signal::KILL);
    group.reaped.set(true);
    inbox.send(Message::Exited(child, exit(status)));
}

fn exit(status: io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        Err(error) => {
            log::warn!("a child could not be waited for: {error}");
            Exit::Unknown
        }
    }
}
