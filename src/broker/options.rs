//! What an operator may set on a broker. Plain data; every bound says why it has its size.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::flow::{DiskOptions, FlowOptions, PressureOptions};
use super::groups::GroupOptions;
use crate::storage::StorageOptions;

/// Settings of one broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerOptions {
    /// The data directory. [`super::Broker::open`] makes it when it does not exist.
    pub data_dir: PathBuf,
    /// Number of this node in cluster info; one node today.
    pub node_id: i32,
    /// Addresses clients are to use, by protocol; a server fills them in once it listens.
    pub advertised: Vec<(String, String)>,
    /// Files and threads.
    pub storage: StorageOptions,
    /// Bytes in flight and grants.
    pub flow: FlowOptions,
    /// Levels of the disk.
    pub disk: DiskOptions,
    /// What is known and told of who is limited.
    pub pressure: PressureOptions,
    /// How much of everything may exist.
    pub limits: LimitOptions,
    /// Consumer groups.
    pub groups: GroupOptions,
    /// When background work runs.
    pub housekeeping: HousekeepingOptions,
}

/// How much of everything may exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitOptions {
    /// Topics. Each costs a catalog record and some hundred bytes of memory.
    pub topics_max: u32,
    /// Quotas. Each edit looks at all of them.
    pub quotas_max: u32,
    /// Partitions of all topics together. An idle one costs some hundred bytes, a written one file
    /// handles and maps as well.
    pub partitions_max: u32,
    /// Partitions of one fetch request: bounds the plans one request may hold.
    pub fetch_partitions_max: u32,
    /// Bytes of one fetch answer; a request that asks for more gets this much.
    pub fetch_bytes_max: u32,
    /// Longest wait of a fetch in milliseconds; a longer wish is cut to it.
    pub fetch_wait_ms_max: u32,
}

/// When background work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HousekeepingOptions {
    /// Period in which topics with `max_bytes` are measured. A producer that meets the limit
    /// starts a measurement at once; this catches what retention freed.
    pub limits_interval_ms: u64,
    /// An internal log is cut after this many bytes since its last snapshot.
    pub snapshot_bytes: u64,
    /// Longest time a graceful shutdown waits for requests under way.
    pub drain_ms: u64,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            data_dir: PathBuf::from("stoplog-data"),
            node_id: 1,
            advertised: Vec::new(),
            storage: StorageOptions::default(),
            flow: FlowOptions::default(),
            disk: DiskOptions::default(),
            pressure: PressureOptions::default(),
            limits: LimitOptions::default(),
            groups: GroupOptions::default(),
            housekeeping: HousekeepingOptions::default(),
        }
    }
}

impl BrokerOptions {
    /// The defaults, for this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> BrokerOptions {
        BrokerOptions { data_dir: data_dir.into(), ..BrokerOptions::default() }
    }
}

impl Default for LimitOptions {
    fn default() -> LimitOptions {
        LimitOptions {
            topics_max: 20_000,
            quotas_max: 10_000,
            partitions_max: 50_000,
            fetch_partitions_max: 10_000,
            fetch_bytes_max: 64 << 20,
            fetch_wait_ms_max: 60_000,
        }
    }
}

impl Default for HousekeepingOptions {
    fn default() -> HousekeepingOptions {
        HousekeepingOptions { limits_interval_ms: 5_000, snapshot_bytes: 4 << 20, drain_ms: 8_000 }
    }
}
