//! Descriptions that travel unchanged from broker to client: what a topic, a group, the broker and
//! its limits look like right now. Plain data; the protocol encodes them, JSON prints them.

use serde::{Deserialize, Serialize};

use super::{
    Assignor, GroupId, GroupState, LeaderEpoch, Offset, PartitionId, PushbackCode, TopicConfig,
    TopicId, TopicName, TopicPartition,
};

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// Its settings.
    pub config: TopicConfig,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// Whether a partition takes writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PartitionHealth {
    /// It does.
    Writable,
    /// It does not after a device error; reads go on.
    ReadOnly {
        /// The first cause.
        cause: String,
    },
    /// Stored bytes below the durable mark are damaged; valid records stay readable.
    Fenced {
        /// First offset that cannot be read.
        first_bad: Offset,
        /// First offset after it that can, when there is one.
        next_good: Option<Offset>,
    },
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: PartitionId,
    /// First offset that can be read.
    pub start: Offset,
    /// First offset that cannot be read yet.
    pub visible_end: Offset,
    /// First offset that is not written yet.
    pub log_end: Offset,
    /// First offset that no `fdatasync` covers yet.
    pub durable_end: Offset,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Number of its segments.
    pub segments: u32,
    /// Its leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Whether it takes writes.
    pub health: PartitionHealth,
}

/// One line of `group ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupListing {
    /// Its name.
    pub group: GroupId,
    /// Its state.
    pub state: GroupState,
    /// Number of its members.
    pub members: u32,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// Its name.
    pub group: GroupId,
    /// Its state.
    pub state: GroupState,
    /// Bumped at every change of members, subscriptions or partition counts.
    pub epoch: i32,
    /// The group epoch for which the target assignment was made.
    pub assignment_epoch: i32,
    /// How partitions are spread.
    pub assignor: Assignor,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
    /// Its committed offsets, by topic and partition.
    pub offsets: Vec<CommittedOffset>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its static name, when it has one.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// The epoch it has reached.
    pub epoch: i32,
    /// Topics it subscribes to.
    pub topics: Vec<TopicName>,
    /// Partitions it owns now.
    pub owned: Vec<TopicPartition>,
    /// Partitions it is to own.
    pub target: Vec<TopicPartition>,
}

/// A committed offset and what is left to read behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// Name of the topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionId,
    /// The next offset the group reads; `None` when it never committed.
    pub committed: Option<Offset>,
    /// The partition's visible end.
    pub end: Offset,
    /// Records between the two (declared gaps are not counted as far as they are known).
    pub lag: i64,
}

/// One limit of the broker and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// Name, for example `memory.inflight` or `disk.free`.
    pub limit: String,
    /// What it belongs to, for example `broker` or `topic orders`.
    pub scope: String,
    /// Used, in `unit`.
    pub used: u64,
    /// The limit, in `unit`; 0 = no limit.
    pub of: u64,
    /// Unit of `used` and `of`.
    pub unit: String,
    /// What is done to callers now, when the limit binds.
    pub action: Option<PushbackCode>,
    /// Since when it binds, in milliseconds.
    pub since_ms: Option<u64>,
    /// Refusals it caused since the start of the broker.
    pub refused: u64,
}

/// The broker itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Identity of the data directory, made at its first start.
    pub cluster_id: String,
    /// Number of this node.
    pub node_id: i32,
    /// Changes with every start of the process.
    pub writer_id: String,
    /// Addresses clients are to use, by protocol.
    pub advertised: Vec<(String, String)>,
    /// Version of the broker.
    pub version: String,
    /// Why the data directory takes no writes, when it does not.
    pub latched: Option<String>,
    /// Milliseconds since the broker was ready.
    pub uptime_ms: u64,
}
