//! The simulator: an engine in a world of its own, where time is a number and every outcome is a choice.
//!
//! [`World`] performs what the engine asks, checks it against the rules of a driver, and leaves it to a story (see
//! `tests/stories.rs`) or to chance to decide what happens next.

// Here a surprise is a failed test.
#![allow(clippy::unwrap_used)]

mod choices;
mod clients;
mod eras;
mod model;
mod random;
mod record;
mod servers;
mod story;
mod world;

pub use choices::Choices;
pub use eras::{MODERN, Modern, acknowledged, changed, complete, discovery, eras, error_of, json, on, updated};
pub use random::{Failure, Summary, choose_config, record_seed, run_bytes, run_seed, try_run};
pub use record::{Owned, Recording, Replay, http, show};
pub use story::{
    Client, EVENTS, JSON, Line, START, call, call_with_token, config, head, head_with, hello, millis, remote_config,
    result, secs, text,
};
pub use world::{Child, Exchange, Out, SseEvent, World};
