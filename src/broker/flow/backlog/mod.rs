//! How far a group may fall behind before the producers of its topic wait for it.
//!
//! A [`LagRing`] per partition tells how many records, bytes and seconds lie behind a committed
//! offset; the [`Board`] tells what groups committed; a [`Backlog`] per topic and group decides
//! whether its lag counts and how much room is left; a [`BacklogGauge`] is what admission asks, by
//! the [`BacklogGate`] of the topic. A [`BacklogWatch`] ticks them all.
//!
//! Lag counts from committed offsets, and only once the group was below its limit since it joined
//! or was reset: replays and new groups bind nobody. Deliberately absent: what is exempt (retries,
//! dead letters, schedules), which its callers know and do not ask for.

mod board;
mod drain;
mod gate;
mod gauge;
mod growth;
mod lag;
mod machine;
mod watch;

pub use board::{Board, GroupSeen};
pub use gate::{BacklogClaim, BacklogGate, BacklogHold};
pub use gauge::{BacklogGauge, BacklogReservation, Mark, Side};
pub use lag::{Lag, LagRing};
pub use machine::{Backlog, BacklogOptions, BacklogRules, Phase, Progress};
pub use watch::{BacklogEdge, BacklogWatch, Backlogged, PartitionSeen, Past};
