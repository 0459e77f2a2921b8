//! Stories: one behaviour each, in virtual time. Each ends with `finish`: nobody was told anything that the story did not
//! expect, and after a shutdown nothing is left.

#[path = "stories/calls.rs"]
mod calls;
#[path = "stories/http.rs"]
mod http;
#[path = "stories/legacy.rs"]
mod legacy;
#[path = "stories/limits.rs"]
mod limits;
#[path = "stories/processes.rs"]
mod processes;
#[path = "stories/remote.rs"]
mod remote;
#[path = "stories/sharing.rs"]
mod sharing;
#[path = "stories/speaking.rs"]
mod speaking;
#[path = "stories/streams.rs"]
mod streams;
