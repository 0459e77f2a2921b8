//! What every machine may touch, and nothing else: the time, the configuration, the actions to come, the deadlines.

pub(crate) mod outbox;
pub(crate) mod timers;

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Config;
use crate::io::{Action, Instant};
use timers::{Deadline, Timers};

pub(crate) struct Core {
    pub(crate) now: Instant,
    pub(crate) config: Config,
    pub(crate) timers: Timers,
    actions: VecDeque<Action>,
    numbers: u64,
}

impl Core {
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        Core { now, config, timers: Timers::default(), actions: VecDeque::new(), numbers: 0 }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A number that was never given out before. All ids of our own are such numbers, so none is ever mistaken for another.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// How long a call of this server may take.
    pub(crate) fn request_timeout(&self, server: usize) -> Duration {
        self.config.servers.get(server).and_then(|s| s.timeout).unwrap_or(self.config.timeouts.request)
    }

    /// Sets `deadline` to fire after `wait`.
    pub(crate) fn after(&mut self, wait: Duration, deadline: Deadline) {
        self.timers.set(deadline, self.now + wait);
    }
}
