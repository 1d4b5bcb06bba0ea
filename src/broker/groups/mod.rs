//! Consumer groups: who reads which partition, and how far each group has read.
//!
//! The reconciliation model of Kafka's KIP-848: the coordinator computes every member's target; a
//! member first gives up what is not in its target and says so, then gets what nobody else holds
//! any more. Three parts: [`Groups`] is the durable state, changed by `apply(record)` alone;
//! [`Sessions`] are the deadlines, lost with the process; a [`Round`] decides, on a copy, which
//! records a handful of requests leads to. The driver makes a round's records durable, applies
//! them, then answers.
//!
//! Deliberately absent: I/O, clocks, tasks (but for the driver), and the classic group protocol,
//! which will be an adapter on this.

mod assign;
mod error;
mod heartbeat;
mod listing;
mod offsets;
mod options;
mod partition_set;
mod reconcile;
mod record;
mod request;
mod round;
mod sessions;
mod state;
#[cfg(test)]
mod tests;

pub use error::GroupError;
pub use options::GroupOptions;
pub use partition_set::PartitionSet;
pub use record::{Committed, GroupRecord, MemberFacts};
pub use request::{
    Commit, CommitAnswer, CommitOffset, EPOCH_JOIN, EPOCH_LEAVE, EPOCH_LEAVE_STATIC,
    FetchCommitted, FetchedOffset, Heartbeat, HeartbeatAnswer, Mode, Reset, ResetOffset, Span,
    TopicCatalog, TopicShape,
};
pub use round::{Round, Surroundings};
pub use sessions::Sessions;
pub use state::{Group, Groups, Member, Roster};
