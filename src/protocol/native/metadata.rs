//! METADATA: what a client must know before it reads or writes.

use super::answer::ErrorAnswer;
use super::frame::{Call, FrameType};
use crate::types::{CompressionHint, LeaderEpoch, PartitionId, TimestampType, TopicId, TopicName};

wire_enum! {
    /// Which topics a request is about.
    pub enum TopicSelector {
        /// Every topic.
        0 => All,
        /// Those with these names.
        1 => Names {
            /// The names.
            names: Vec<TopicName>,
        },
        /// Those with these ids.
        2 => Ids {
            /// The ids.
            ids: Vec<TopicId>,
        },
    }
}

wire_struct! {
    /// One node of the cluster.
    pub struct Node {
        /// Its number.
        pub node_id: i32,
        /// HOST:PORT of its native listener.
        pub address: String,
    }
}

wire_struct! {
    /// What one topic looks like, or why it cannot be told.
    pub struct Entry {
        /// Its name; absent when an unknown id was asked for.
        pub name: Option<TopicName>,
        /// Its id; absent when an unknown name was asked for.
        pub id: Option<TopicId>,
        /// Its metadata.
        pub topic: Result<TopicMetadata, ErrorAnswer>,
    }
}

wire_struct! {
    /// What producers and consumers must know of a topic.
    pub struct TopicMetadata {
        /// Its partitions, by number.
        pub partitions: Vec<PartitionMetadata>,
        /// Largest record batch it takes.
        pub max_message_bytes: u32,
        /// Who writes timestamps.
        pub timestamp_type: TimestampType,
        /// What producers are advised to use.
        pub compression: CompressionHint,
    }
}

wire_struct! {
    /// Who serves a partition.
    pub struct PartitionMetadata {
        /// Its number.
        pub partition: PartitionId,
        /// Number of the node that serves it.
        pub leader: i32,
        /// Its leader epoch.
        pub leader_epoch: LeaderEpoch,
    }
}

wire_struct! {
    /// Asks about topics.
    pub struct Request {
        /// Which topics.
        pub topics: TopicSelector,
    }
}

wire_struct! {
    /// One entry a topic that was asked for, in the order asked.
    pub struct Response {
        /// The nodes of the cluster.
        pub nodes: Vec<Node>,
        /// The topics.
        pub topics: Vec<Entry>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Metadata;
    type Answer = Response;
}
