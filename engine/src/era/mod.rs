//! Where the eras meet: clients and servers of revision 2026-07-28 (modern) and of those before it (legacy).
//!
//! A legacy client introduces itself once, by `initialize`; a modern one says in every request who it is and what it can do.
//! A legacy server asks its client something by a request of its own; a modern one answers with the question, and the client
//! calls again with the answer. So where the eras differ:
//!
//! ```text
//!  modern client, legacy server ([`down`]):  a request borrows a conversation that was opened for a client like its own.
//!      A question of the server parks the call; the client gets it as a result, and resumes the call when it comes back.
//!  legacy client, modern server ([`up`]):    a session's introduction is put into every request of it. A result that asks
//!      becomes a request to the client, and the call is sent again with what it answers.
//!  both of one era:                          bytes pass, with our own ids in them.
//! ```
//!
//! The front knows the client's era, the back the server's; the engine brings them here when they differ. [`envelope`] and
//! [`result`] translate the messages, [`mirror`] the header fields that repeat them, [`catalog`] knows which parameters of a
//! tool have such a field, [`seal`] makes what a modern client brings back to its parked call.

pub(crate) mod catalog;
pub(crate) mod down;
pub(crate) mod envelope;
pub(crate) mod mirror;
pub(crate) mod result;
pub(crate) mod seal;
pub(crate) mod up;

/// An era of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// With `initialize`: up to 2025-11-25.
    Legacy,
    /// With an envelope around each request: 2026-07-28.
    Modern,
}
