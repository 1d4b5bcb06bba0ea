//! What the groups' internal log holds. Applying the records in order, from the first or from a
//! snapshot (which is nothing but records), gives the state; nothing else changes it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{PartitionSet, TopicShape};
use crate::types::{
    Assignor, GroupId, LeaderEpoch, Offset, Timestamp, TopicId, TopicName, TopicPartition,
};

/// One change of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupRecord {
    /// The group exists and reached this epoch. Made by the first member or commit.
    Epoch {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: i32,
        /// How partitions are spread.
        assignor: Assignor,
        /// Subscribed topics that exist, as they were when the epoch began.
        topics: Vec<(TopicName, TopicShape)>,
    },
    /// A member came, or changed what it wants.
    Member {
        /// The group.
        group: GroupId,
        /// What is known of it.
        member: MemberFacts,
    },
    /// A static member left and is waited for.
    MemberAway {
        /// The group.
        group: GroupId,
        /// The member.
        member_id: Arc<str>,
    },
    /// A static member's successor: takes over target, partitions and epoch of `predecessor`,
    /// which is gone.
    MemberReplaced {
        /// The group.
        group: GroupId,
        /// The member that is gone.
        predecessor: Arc<str>,
        /// Its successor.
        member: MemberFacts,
    },
    /// A member is gone and owns nothing.
    MemberLeft {
        /// The group.
        group: GroupId,
        /// The member.
        member_id: Arc<str>,
    },
    /// What one member is to own.
    Target {
        /// The group.
        group: GroupId,
        /// The member.
        member_id: Arc<str>,
        /// All it is to own.
        partitions: PartitionSet,
    },
    /// All targets for this group epoch are written.
    TargetEpoch {
        /// The group.
        group: GroupId,
        /// The group epoch they were made for.
        epoch: i32,
    },
    /// What one member owns.
    Current {
        /// The group.
        group: GroupId,
        /// The member.
        member_id: Arc<str>,
        /// The epoch it reached.
        epoch: i32,
        /// The one before: an answer may have been lost.
        previous_epoch: i32,
        /// What it may hold.
        assigned: PartitionSet,
        /// What it still holds and has to give up.
        revoking: PartitionSet,
    },
    /// Offsets were committed, or moved by a reset, nobody knows when. Read, no longer written.
    Offsets {
        /// The group.
        group: GroupId,
        /// What.
        offsets: Vec<(TopicPartition, Committed)>,
    },
    /// The topic is gone, and so are this group's offsets in it.
    TopicForgotten {
        /// The group.
        group: GroupId,
        /// The topic.
        topic: TopicId,
    },
    /// The group is gone with all its offsets.
    GroupDeleted {
        /// The group.
        group: GroupId,
    },
    /// Offsets were committed, or moved by a reset.
    OffsetsAt {
        /// The group.
        group: GroupId,
        /// When.
        at: Timestamp,
        /// What.
        offsets: Vec<(TopicPartition, Committed)>,
    },
}

/// What a member said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFacts {
    /// Its id.
    pub member_id: Arc<str>,
    /// Its static name.
    pub instance_id: Option<Arc<str>>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_host: Arc<str>,
    /// How long it may take to give a partition up.
    pub rebalance_timeout_ms: u32,
    /// Topics it wants, sorted, each once.
    pub topics: Vec<TopicName>,
    /// How it wants partitions spread.
    pub assignor: Option<Assignor>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// Leader epoch of the last record before it; -1 = not known.
    pub leader_epoch: LeaderEpoch,
    /// A text the client stored with it.
    pub metadata: Option<Arc<str>>,
}

impl GroupRecord {
    /// The group it belongs to.
    pub fn group(&self) -> &GroupId {
        match self {
            GroupRecord::Epoch { group, .. }
            | GroupRecord::Member { group, .. }
            | GroupRecord::MemberAway { group, .. }
            | GroupRecord::MemberReplaced { group, .. }
            | GroupRecord::MemberLeft { group, .. }
            | GroupRecord::Target { group, .. }
            | GroupRecord::TargetEpoch { group, .. }
            | GroupRecord::Current { group, .. }
            | GroupRecord::Offsets { group, .. }
            | GroupRecord::OffsetsAt { group, .. }
            | GroupRecord::TopicForgotten { group, .. }
            | GroupRecord::GroupDeleted { group } => group,
        }
    }
}
