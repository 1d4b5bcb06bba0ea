//! What the floor says of itself: nothing is limited, nothing is checked.

use super::topics::Topic;
use crate::protocol::native::{FrameLimits, grant, hello, metadata, publisher_open};
use crate::types::{Cause, ClusterInfo, CompressionHint, LeaderEpoch, PartitionId, TimestampType};

pub(super) fn topic_metadata(topic: &Topic) -> metadata::TopicMetadata {
    let partition = |number| metadata::PartitionMetadata {
        partition: PartitionId(number),
        leader: 0,
        leader_epoch: LeaderEpoch(0),
    };
    let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    metadata::TopicMetadata {
        partitions: (0..count).map(partition).collect(),
        max_message_bytes: 8 << 20,
        timestamp_type: TimestampType::Create,
        compression: CompressionHint::Producer,
    }
}

pub(super) fn hello_answer() -> hello::Response {
    hello::Response {
        version: 1,
        features: 0,
        cluster_id: "floor".to_owned(),
        node_id: 0,
        writer_id: "floor".to_owned(),
        software: "stoplog floor".to_owned(),
        frame_bytes_max: FrameLimits::DEFAULT.frame_bytes_max,
        requests_max: u32::MAX,
        publishers_max: u32::MAX,
        subscriptions_max: u32::MAX,
        idle_timeout_ms: u32::MAX,
    }
}

pub(super) fn publisher_answer() -> publisher_open::Response {
    let grant = grant::Request {
        publisher: 1,
        epoch: 0,
        bytes_to: u64::MAX,
        ttl_ms: u32::MAX,
        cause: Cause::Grant,
        name: String::new(),
    };
    publisher_open::Response { grant, allowance_bytes: u32::MAX }
}

pub(super) fn cluster_answer() -> ClusterInfo {
    ClusterInfo {
        cluster_id: "floor".to_owned(),
        node_id: 0,
        writer_id: "floor".to_owned(),
        advertised: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        latched: None,
        uptime_ms: 0,
    }
}
