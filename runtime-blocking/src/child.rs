//! Child processes: each in a process group of its own, so that a signal reaches what it started as well.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use mcp_proxy_engine::{ChildId, Command, Exit, Signal};
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::pipes::Pipes;
use crate::run::{Ending, Inbox, Message, thread};

/// All children that run.
pub(crate) struct Children {
    running: HashMap<ChildId, Arc<Group>>,
    /// Threads that wait for a child.
    waiters: Ending,
    inbox: Inbox,
}

/// The process group of one child. Once the child is reaped the number may name somebody else's group.
struct Group {
    pid: Pid,
    reaped: Mutex<bool>,
}

impl Group {
    fn kill(&self, signal: rustix::process::Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped && let Err(error) = kill_process_group(self.pid, signal) {
            // It ended by itself a moment ago.
            log::debug!("process group {}: {error}", self.pid.as_raw_nonzero());
        }
    }
}

impl Drop for Children {
    /// Nobody is left behind, however the loop ended.
    fn drop(&mut self) {
        for group in self.running.values() {
            group.kill(rustix::process::Signal::KILL);
        }
        self.waiters.join();
    }
}

impl Children {
    pub(crate) fn new(inbox: Inbox) -> Self {
        Children { running: HashMap::new(), waiters: Ending::default(), inbox }
    }

    /// Starts a child and hands its pipes over.
    pub(crate) fn spawn(&mut self, child: ChildId, command: Command, pipes: &mut Pipes) {
        match self.try_spawn(child, command, pipes) {
            Ok(()) => self.inbox.send(Message::Spawned(child)),
            Err(error) => {
                log::warn!("{child:?} could not be started: {error}");
                pipes.forget(child);
                self.inbox.send(Message::SpawnFailed(child, error.kind()));
            }
        }
    }

    fn try_spawn(&mut self, child: ChildId, command: Command, pipes: &mut Pipes) -> io::Result<()> {
        let (mut process, pid, ends) = start(command)?;
        log::debug!("{child:?} is process {}", pid.as_raw_nonzero());
        let group = Arc::new(Group { pid, reaped: Mutex::new(false) });
        // The thread is given the process only when the pipes are in place: nothing is said of a child that fails here.
        let (give, given) = std::sync::mpsc::channel();
        let (group2, inbox) = (Arc::clone(&group), self.inbox.clone());
        let waiter = thread("mcp-child", move || {
            if let Ok(process) = given.recv() {
                wait(child, process, &group2, &inbox);
            }
        });
        match waiter.and_then(|waiter| {
            self.waiters.push(waiter);
            pipes.add(child, ends)
        }) {
            Ok(()) => {
                self.running.insert(child, group);
                // The thread waits for it.
                let _ = give.send(process);
                Ok(())
            }
            Err(error) => {
                group.kill(rustix::process::Signal::KILL);
                let _ = process.wait();
                Err(error)
            }
        }
    }

    /// Signals the whole group.
    pub(crate) fn kill(&mut self, child: ChildId, signal: Signal) {
        if let Some(group) = self.running.get(&child) {
            group.kill(match signal {
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

type Started = (std::process::Child, Pid, [OwnedFd; 3]);

fn start(command: Command) -> io::Result<Started> {
    let mut builder = std::process::Command::new(&command.program);
    builder.args(&command.args).env_clear().process_group(0);
    builder.envs(command.env.iter().map(|(name, value)| (name, value.reveal())));
    if let Some(cwd) = &command.cwd {
        builder.current_dir(cwd);
    }
    let mut process = builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    match (pid, process.stdin.take(), process.stdout.take(), process.stderr.take()) {
        (Some(pid), Some(stdin), Some(stdout), Some(stderr)) => {
            Ok((process, pid, [stdin.into(), stdout.into(), stderr.into()]))
        }
        // std gives what was asked for.
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn wait(child: ChildId, mut process: std::process::Child, group: &Group, inbox: &Inbox) {
    // As long as it is not reaped its number, and that of its group, are not given to anybody else.
    while let Err(rustix::io::Errno::INTR) =
        waitid(WaitId::Pid(group.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    // What the child started and left behind.
    group.kill(rustix::process::Signal::KILL);
    let mut reaped = group.reaped.lock().unwrap_or_else(PoisonError::into_inner);
    let status = process.wait();
    *reaped = true;
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
