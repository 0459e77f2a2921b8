//! Stories: one behaviour each, in virtual time. Each ends with `finish`: nobody was told anything that the story did not
//! expect, and after a shutdown nothing is left.

#[path = "stories/bridge_down.rs"]
mod bridge_down;
#[path = "stories/bridge_limits.rs"]
mod bridge_limits;
#[path = "stories/bridge_remote.rs"]
mod bridge_remote;
#[path = "stories/bridge_up.rs"]
mod bridge_up;
#[path = "stories/calls.rs"]
mod calls;
#[path = "stories/http.rs"]
mod http;
#[path = "stories/leases.rs"]
mod leases;
#[path = "stories/legacy.rs"]
mod legacy;
#[path = "stories/limits.rs"]
mod limits;
#[path = "stories/modern.rs"]
mod modern;
#[path = "stories/probing.rs"]
mod probing;
#[path = "stories/processes.rs"]
mod processes;
#[path = "stories/questions.rs"]
mod questions;
#[path = "stories/remote.rs"]
mod remote;
#[path = "stories/sharing.rs"]
mod sharing;
#[path = "stories/speaking.rs"]
mod speaking;
#[path = "stories/streams.rs"]
mod streams;
