//! What members and administrators ask, and what they are told.

use std::sync::Arc;

use super::GroupError;
use crate::types::{
    Assignor, GroupId, LeaderEpoch, Offset, OffsetReset, PartitionId, TopicId, TopicName,
    TopicPartition,
};

/// `member_epoch` of a request to join, or of a member that lost track of its epoch.
pub const EPOCH_JOIN: i32 = 0;
/// `member_epoch` of a member that leaves for good.
pub const EPOCH_LEAVE: i32 = -1;
/// `member_epoch` of a static member that leaves and will be back: its partitions wait for it
/// until the session times out.
pub const EPOCH_LEAVE_STATIC: i32 = -2;

/// A sign of life with everything a member wants and has (KIP-848 ConsumerGroupHeartbeat).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group: GroupId,
    /// Who. Empty when joining: the coordinator makes one up. A client that makes its own joins
    /// without leaving a ghost behind when the answer is lost.
    pub member_id: Arc<str>,
    /// The epoch of the last answer, or one of the `EPOCH_` constants.
    pub member_epoch: i32,
    /// Static name: whoever joins with it takes the place of its predecessor at once.
    pub instance_id: Option<Arc<str>>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_host: Arc<str>,
    /// How long it may take to give a partition up.
    pub rebalance_timeout_ms: u32,
    /// Topics it wants; `None` = as before. Topics that do not exist yet are waited for.
    pub topics: Option<Vec<TopicName>>,
    /// How it wants partitions spread; the group follows the majority.
    pub assignor: Option<Assignor>,
    /// Partitions it holds now. `None` = "as you last told me": never gives anything up.
    pub owned: Option<Vec<TopicPartition>>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// Its id, from now on.
    pub member_id: Arc<str>,
    /// Its epoch, from now on.
    pub member_epoch: i32,
    /// When to send the next one; soon, while a rebalance is under way.
    pub heartbeat_interval_ms: u32,
    /// A member that reached nobody for this long must take itself for expelled.
    pub session_timeout_ms: u32,
    /// Exactly what it may hold; `None` when that is what it reported. It gives up what is not
    /// in here first, and says so by its next `owned`.
    pub assignment: Option<Vec<(TopicPartition, TopicName)>>,
}

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// Of which partition.
    pub partition: TopicPartition,
    /// The next offset to read.
    pub offset: Offset,
    /// Leader epoch of the last record before it; -1 = not known.
    pub leader_epoch: LeaderEpoch,
    /// A text kept with it, byte by byte; absent is not the same as empty.
    pub metadata: Option<Arc<str>>,
}

/// Stores offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: GroupId,
    /// The member; empty = not a member, which only an empty group accepts.
    pub member_id: Arc<str>,
    /// Its epoch; below 0 = not a member.
    pub member_epoch: i32,
    /// What to store.
    pub offsets: Vec<CommitOffset>,
}

/// The answer to a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitAnswer {
    /// What was not stored, and why; everything else was.
    pub refused: Vec<(TopicPartition, GroupError)>,
}

/// One committed offset, as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// Of which partition.
    pub partition: TopicPartition,
    /// The next offset to read; `None` = never committed.
    pub offset: Option<Offset>,
    /// As committed; -1 = not known.
    pub leader_epoch: LeaderEpoch,
    /// As committed.
    pub metadata: Option<Arc<str>>,
}

/// Reads committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchCommitted {
    /// The group. One that does not exist has committed nothing.
    pub group: GroupId,
    /// A member's id and epoch, to be sure it is still one.
    pub member: Option<(Arc<str>, i32)>,
    /// Which; `None` = all there are.
    pub partitions: Option<Vec<TopicPartition>>,
}

/// Moves committed offsets of an empty group, or of one that never existed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The group.
    pub group: GroupId,
    /// The topic.
    pub topic: TopicName,
    /// Which partitions; `None` = all.
    pub partitions: Option<Vec<PartitionId>>,
    /// Where to.
    pub to: OffsetReset,
    /// For `OffsetReset::AtTime`: the offsets the log found, since only it can read. A partition
    /// without one goes to its end.
    pub at_time: Vec<(PartitionId, Offset)>,
    /// Whether to store or only to tell.
    pub mode: Mode,
}

/// Whether a reset or deletion is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Store,
    /// It only tells what it would do.
    DryRun,
}

/// What a reset does to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed offset before; `None` = there was none.
    pub before: Option<Offset>,
    /// And after.
    pub after: Offset,
}

/// What the coordinator has to know about topics. Answers must not change within a round.
pub trait TopicCatalog {
    /// The topic of this name, if there is one.
    fn topic(&self, name: &TopicName) -> Option<TopicShape>;
    /// The name of a topic that exists, and how many partitions it has.
    fn topic_by_id(&self, id: TopicId) -> Option<(TopicName, u32)>;
    /// What can be read of a partition that exists: `start` and visible `end`.
    fn span(&self, partition: TopicPartition) -> Option<Span>;
}

/// Identity and size of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TopicShape {
    /// Its id.
    pub id: TopicId,
    /// Its number of partitions.
    pub partitions: u32,
}

/// What can be read of a partition, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First offset.
    pub start: Offset,
    /// First offset after it.
    pub end: Offset,
}
