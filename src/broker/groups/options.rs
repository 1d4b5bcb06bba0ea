//! Limits and periods of the group coordinator, each with its reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupOptions {
    /// A member that is silent this long is expelled: long enough for a pause of the machine,
    /// short enough that a killed consumer's partitions are read again soon.
    pub session_timeout_ms: u32,
    /// How often a member that has its target reports: a third of a second's worth of work for a
    /// thousand members, and the delay after which the others learn of a change.
    pub heartbeat_interval_ms: u32,
    /// How often a member reports that has not reached its target: a rebalance takes a few of
    /// these.
    pub reconcile_interval_ms: u32,
    /// Bounds of what a member may ask for as its rebalance timeout: below, no client could
    /// revoke in time; above, one stuck member holds its partitions for ever.
    pub rebalance_timeout_ms_min: u32,
    /// See `rebalance_timeout_ms_min`.
    pub rebalance_timeout_ms_max: u32,
    /// Groups of one broker: each costs memory for as long as its offsets are kept.
    pub groups_max: u32,
    /// Members of one group: an assignment looks at all of them.
    pub group_members_max: u32,
    /// Topics one member may subscribe to: looked at on every heartbeat.
    pub member_topics_max: u32,
    /// Committed offsets of all groups together, about 100 bytes each.
    pub offsets_max: u32,
    /// Partitions in one commit or one `owned` list: bounds the work of one request.
    pub request_partitions_max: u32,
    /// Bytes of the text a client may store with an offset (Kafka's limit).
    pub metadata_bytes_max: u32,
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions {
            session_timeout_ms: 10_000,
            heartbeat_interval_ms: 1_000,
            reconcile_interval_ms: 100,
            rebalance_timeout_ms_min: 1_000,
            rebalance_timeout_ms_max: 3_600_000,
            groups_max: 10_000,
            group_members_max: 1_000,
            member_topics_max: 1_000,
            offsets_max: 1_000_000,
            request_partitions_max: 100_000,
            metadata_bytes_max: 4_096,
        }
    }
}

impl GroupOptions {
    /// `session_timeout_ms` as a duration.
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.session_timeout_ms))
    }

    /// What a member gets that asks for `wanted_ms`.
    pub(super) fn rebalance_timeout_ms(&self, wanted_ms: u32) -> u32 {
        let max = self.rebalance_timeout_ms_max.max(self.rebalance_timeout_ms_min);
        wanted_ms.clamp(self.rebalance_timeout_ms_min, max)
    }
}
