//! The load generator: open-loop workloads over the ordinary client, and the floor they are held
//! against: a bare server that does only what cannot be left out, and its parts one by one.
//!
//! Absolute numbers of a shared machine drift by a factor of three within a day; only ratios taken
//! pairwise in one run (`matrix`) are worth printing.

mod consume;
mod e2e;
mod error;
pub mod floor;
mod latency;
mod machine;
mod matrix;
mod outcome;
mod pace;
pub mod pressure;
mod process;
mod produce;
mod report;
mod target;

pub use consume::consume;
pub use e2e::e2e;
pub use error::BenchError;
pub use latency::{Latencies, LatencySummary};
pub use machine::Machine;
pub use matrix::{Cell, CellReport, Kind, LatencyPairs, cells, run_cell};
pub use outcome::Outcome;
pub use pace::Pace;
pub use process::Usage;
pub use produce::produce;
pub use report::{Report, Spread};
pub use target::Target;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Acks;

/// What a workload is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadOptions {
    /// Topic; created when it does not exist.
    pub topic: String,
    /// Records a second over all connections; `None` = as fast as answers come.
    pub rate: Option<f64>,
    /// How long to measure.
    pub duration: Duration,
    /// Stop after this many records instead.
    pub count: Option<u64>,
    /// Not measured, at the start.
    pub warm_up: Duration,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Bytes of a record batch.
    pub batch_bytes: usize,
    /// Connections.
    pub connections: usize,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Batches in flight on one connection.
    pub window: usize,
    /// When the broker answers.
    pub acks: Acks,
    /// How long the client's producer waits for more records.
    pub linger: Duration,
    /// Who makes the batches.
    pub batching: Batching,
}

/// Who makes the batches of a produce workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Batching {
    /// They are built once before the run: the broker is what is measured.
    #[default]
    Prebuilt,
    /// The client's producer makes them from single records, as an application does.
    Client,
}

impl Default for WorkloadOptions {
    fn default() -> WorkloadOptions {
        WorkloadOptions {
            topic: "bench".to_owned(),
            rate: None,
            duration: Duration::from_secs(10),
            count: None,
            warm_up: Duration::from_secs(1),
            record_bytes: 1024,
            batch_bytes: 64 << 10,
            connections: 1,
            partitions: 1,
            window: 8,
            acks: Acks::Topic,
            linger: Duration::ZERO,
            batching: Batching::Prebuilt,
        }
    }
}
