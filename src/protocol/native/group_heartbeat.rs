//! GROUP_HEARTBEAT: membership by reconciliation (the model of Kafka's KIP-848).

use super::frame::{Call, FrameType};
use crate::types::{Assignor, GroupId, PartitionId, TopicId, TopicName, TopicPartition};

wire_struct! {
    /// One assigned partition.
    pub struct Assigned {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// The topic's name.
        pub name: TopicName,
    }
}

wire_struct! {
    /// Joins (epoch 0), stays in (the last answer's epoch) or leaves (-1, a static member for a while -2).
    pub struct Request {
        /// The group.
        pub group: GroupId,
        /// Empty to join: the coordinator makes one.
        pub member_id: String,
        /// 0 join, -1 leave, -2 leave and come back under the same instance id, else the last answer's.
        pub member_epoch: i32,
        /// A static member's name: a restarted instance replaces its predecessor at once.
        pub instance_id: Option<String>,
        /// Name of the client; empty = as in HELLO.
        pub client_id: String,
        /// How long the member may take to give partitions up.
        pub rebalance_timeout_ms: u32,
        /// Topics it subscribes to; absent = as before.
        pub topics: Option<Vec<TopicName>>,
        /// How it wants partitions spread; absent = as before.
        pub assignor: Option<Assignor>,
        /// Partitions it owns now; absent = as before. What it no longer lists it has given up.
        pub owned: Option<Vec<TopicPartition>>,
    }
}

wire_struct! {
    /// Where the member stands.
    pub struct Response {
        /// Its id.
        pub member_id: String,
        /// Its epoch; goes into commits.
        pub member_epoch: i32,
        /// Send the next heartbeat after so long.
        pub heartbeat_interval_ms: u32,
        /// A member that reached nobody for so long must take itself for expelled.
        pub session_timeout_ms: u32,
        /// What it may own from now on; absent = as before. What it owns and is not
        /// listed is to be given up, and confirmed by `owned`.
        pub assignment: Option<Vec<Assigned>>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupHeartbeat;
    type Answer = Response;
}
