//! Publishers: what each may have under way, and how they are told (DESIGN section 4, grants).
//!
//! A [`Seat`] is a publisher's place at the windows of the log writers it writes to; [`Seats`]
//! divides the windows among them, ten times a second. A [`PublisherGrant`] turns its share into
//! grants and counts what arrives against them.
//!
//! # Invariants
//! The shares of a writer's window add up to the window at most. `bytes_to` of a grant never shrinks.
//! A publisher that has nothing unanswered may always send one batch.

mod grant;
mod seats;
mod shares;

pub use grant::{AfterViolation, Grant, GrantOptions, Offer, PublisherGrant, Standing, Violation};
pub(super) use seats::mask;
pub use seats::{NoWake, Scratch, Seat, Seats, Wake, WriterMask};
pub use shares::{Claimant, Divider};
