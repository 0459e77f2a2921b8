//! Watching processes that are not ours to wait for.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that was alive when the watch began. Its number may be given to another one later; the watch is not fooled.
#[derive(Debug)]
pub struct Watch {
    pid: u32,
    fd: OwnedFd,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Panics
    ///
    /// There is no such process.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        let number = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a pid is not zero");
        let fd = pidfd_open(number, PidfdFlags::empty()).unwrap_or_else(|e| panic!("process {pid}: {e}"));
        let watch = Watch { pid, fd };
        assert!(!watch.ends_within(Duration::ZERO), "process {pid} has ended already");
        watch
    }

    /// Waits for its end, at most so long.
    #[must_use]
    pub fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        // Readable means ended, reaped or not.
        poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&limit)).unwrap() > 0
    }

    /// Fails unless it ends within so long; then it is killed, so that a failing test leaves nothing behind.
    pub fn must_end_within(&self, limit: Duration) {
        if !self.ends_within(limit) {
            self.kill(Signal::KILL);
            panic!("process {} still runs after {limit:?}", self.pid);
        }
    }

    /// Sends it a signal.
    pub fn kill(&self, signal: Signal) {
        // It fails if the process ended by itself.
        let _ = pidfd_send_signal(&self.fd, signal);
    }
}

/// The most memory that a process ever held, in bytes.
#[must_use]
pub fn peak_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system tells");
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}
