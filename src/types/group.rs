//! Words of consumer groups that protocol, broker and client share.

use serde::{Deserialize, Serialize};

use super::{Offset, Timestamp};

/// How partitions are spread over the members of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Assignor {
    /// Even counts, moving as few partitions as possible (sticky).
    #[default]
    Uniform = 1,
    /// Consecutive ranges per topic, so that equal keys of two topics meet in one member.
    Range = 2,
}

impl Assignor {
    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<Assignor> {
        match number {
            1 => Some(Assignor::Uniform),
            2 => Some(Assignor::Range),
            _ => None,
        }
    }
}

/// State of a group, by Kafka's names (KIP-848).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum GroupState {
    /// No members; offsets may exist.
    Empty = 1,
    /// Some member has not reached its target assignment yet.
    Reconciling = 2,
    /// Every member owns exactly its target.
    Stable = 3,
}

impl GroupState {
    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<GroupState> {
        [GroupState::Empty, GroupState::Reconciling, GroupState::Stable]
            .into_iter()
            .find(|state| *state as u8 == number)
    }
}

/// Where a group's committed offset is moved to by a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetReset {
    /// The first offset that can be read.
    Earliest,
    /// The visible end.
    Latest,
    /// This offset, clamped into what can be read.
    To(Offset),
    /// The first record at or after this time.
    AtTime(Timestamp),
    /// This many records forward (negative: back) from the committed offset, clamped.
    Shift(i64),
}
