//! Broker against floor, pair by pair in one run: the only way to a number on a machine whose speed
//! drifts by a factor of three. Each pair runs both, first the one, then the other, in turn.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latency::LatencySummary;
use super::{Batching, BenchError, Report, Spread, Target, WorkloadOptions, consume, e2e, produce};
use crate::record::BATCH_HEADER_BYTES;
use crate::types::Acks;

/// What a cell measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Produce with `durability = os`, batches built beforehand.
    ProduceOs,
    /// Produce with `durability = fsync`, batches built beforehand.
    ProduceFsync,
    /// Produce with `durability = os`, batches made by the client's producer on the broker's side
    /// of the pair and built beforehand on the floor's.
    ProduceClient,
    /// `ProduceOs` through many segments: `ROLLS_BYTES` in segments of the default size.
    Rolls,
    /// Consume what was just written.
    Consume,
    /// Single records at a rate with `durability = fsync`, from due to delivered; on the floor's side
    /// from due to written and synced.
    E2e,
}

/// One combination of options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What is measured.
    pub kind: Kind,
    /// The options of both sides.
    pub options: WorkloadOptions,
}

/// What the pairs of a cell gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellReport {
    /// The combination.
    pub cell: Cell,
    /// Millions of bytes a second of the floor.
    pub floor_mb_per_s: Spread,
    /// Millions of bytes a second of the broker.
    pub broker_mb_per_s: Spread,
    /// Broker through floor, pair by pair.
    pub share: Spread,
    /// Processor seconds of the floor process per GiB.
    pub floor_cpu_s_per_gib: Spread,
    /// Processor seconds of the broker process per GiB.
    pub broker_cpu_s_per_gib: Spread,
    /// Processor seconds of the broker process per million records.
    pub broker_cpu_s_per_million: Spread,
    /// Anonymous memory of the broker process at the end of a run, in bytes.
    pub broker_rss_anon_bytes: Spread,
    /// Memory of the broker process at the end of a run, mapped log pages included, in bytes.
    pub broker_rss_bytes: Spread,
    /// Bytes the broker sent to the device through bytes of batches (produce only).
    pub write_amplification: Spread,
    /// LatencyPairs (e2e only).
    pub latency: Option<LatencyPairs>,
}

/// LatencyPairs of a cell, in milliseconds, and the broker's through the floor's, pair by pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyPairs {
    /// Median of the floor.
    pub floor_p50_ms: Spread,
    /// Median of the broker.
    pub broker_p50_ms: Spread,
    /// The broker's median through the floor's.
    pub p50_times: Spread,
    /// 99th percentile of the floor.
    pub floor_p99_ms: Spread,
    /// 99th percentile of the broker.
    pub broker_p99_ms: Spread,
    /// The broker's 99th percentile through the floor's.
    pub p99_times: Spread,
}

/// Records a second of the e2e cell.
const E2E_RATE: f64 = 5_000.0;
/// Measured time of one e2e run, after a second of warm-up.
const E2E_DURATION: Duration = Duration::from_secs(4);

/// The combinations the project is held to.
pub fn cells(kinds: &[Kind], count_bytes: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in kinds {
        match kind {
            Kind::E2e => {
                cells.push(e2e_cell());
                continue;
            }
            Kind::Rolls => {
                cells.push(rolls_cell());
                continue;
            }
            Kind::ProduceOs | Kind::ProduceFsync | Kind::ProduceClient | Kind::Consume => {}
        }
        for record_bytes in [1024, 100] {
            for batch_bytes in [64 << 10, 1 << 20] {
                for (connections, partitions) in [(1, 1), (1, 8), (4, 1), (4, 8)] {
                    let options = WorkloadOptions {
                        topic: "matrix".to_owned(),
                        record_bytes,
                        batch_bytes,
                        connections,
                        partitions,
                        count: Some(count_bytes / record_bytes as u64),
                        window: if batch_bytes > 64 << 10 { 4 } else { 16 },
                        warm_up: Duration::ZERO,
                        ..WorkloadOptions::default()
                    };
                    cells.push(Cell { kind: *kind, options });
                }
            }
        }
    }
    cells
}

/// Bytes of a run of the rolls cell: eight segments.
const ROLLS_BYTES: u64 = 1 << 30;

/// One connection, one partition: rolls come one after another, with nothing to do beside them.
fn rolls_cell() -> Cell {
    let record_bytes = 1024;
    let options = WorkloadOptions {
        topic: "matrix".to_owned(),
        record_bytes,
        batch_bytes: 64 << 10,
        count: Some(ROLLS_BYTES / record_bytes as u64),
        window: 16,
        warm_up: Duration::ZERO,
        ..WorkloadOptions::default()
    };
    Cell { kind: Kind::Rolls, options }
}

/// One partition, records of 1 KiB, no linger: what is due while the producer's window is full
/// shares a batch.
fn e2e_cell() -> Cell {
    let options = WorkloadOptions {
        topic: "matrix".to_owned(),
        rate: Some(E2E_RATE),
        duration: E2E_DURATION,
        warm_up: Duration::from_secs(1),
        record_bytes: 1024,
        linger: Duration::ZERO,
        ..WorkloadOptions::default()
    };
    Cell { kind: Kind::E2e, options }
}

/// Room for the lengths and deltas around a record's value.
const RECORD_FRAME_BYTES: usize = 64;

/// Runs a cell in `pairs` pairs; `progress` is told each one's share.
pub async fn run_cell(
    cell: &Cell,
    pairs: usize,
    (floor, broker): (&Target, &Target),
    mut progress: impl FnMut(usize, f64),
) -> Result<CellReport, BenchError> {
    let mut reports: Vec<(Report, Report)> = Vec::new();
    for pair in 0..pairs.max(1) {
        let (one, two) = if pair % 2 == 0 { (floor, broker) } else { (broker, floor) };
        let first = run_side(cell, one).await?;
        let second = run_side(cell, two).await?;
        let sides = if pair % 2 == 0 { (first, second) } else { (second, first) };
        progress(pair, compare(cell, &sides));
        reports.push(sides);
    }
    Ok(summary(cell, &reports))
}

/// What a pair is judged by: the broker's share of the throughput, or its multiple of the median.
fn compare(cell: &Cell, (floor, broker): &(Report, Report)) -> f64 {
    match (cell.kind, &floor.latency, &broker.latency) {
        (Kind::E2e, Some(floor), Some(broker)) => broker.p50_ms / floor.p50_ms,
        _ => broker.mb_per_s / floor.mb_per_s,
    }
}

/// Such a part of a produce run is sent before it and not measured: it makes the topic's files.
const WARM_UP_PART: u64 = 8;

async fn run_side(cell: &Cell, target: &Target) -> Result<Report, BenchError> {
    let mut options = cell.options.clone();
    let synced = matches!(cell.kind, Kind::ProduceFsync | Kind::E2e);
    let durability = if synced { "fsync" } else { "os" };
    let settings = [("durability", durability), ("max_message_bytes", "8MiB")];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    target.create_topic(&options, &settings).await?;
    if cell.kind == Kind::ProduceClient && target.name == "broker" {
        options.batching = Batching::Client;
    }
    options.acks = Acks::Topic;
    if matches!(cell.kind, Kind::ProduceOs | Kind::ProduceFsync | Kind::ProduceClient) {
        let count = options.count.map(|count| count / WARM_UP_PART);
        produce(target, &WorkloadOptions { count, ..options.clone() }).await?;
    }
    let report = run_workload(cell.kind, target, &options).await?;
    target.delete_topic(&options).await?;
    Ok(report)
}

async fn run_workload(
    kind: Kind,
    target: &Target,
    options: &WorkloadOptions,
) -> Result<Report, BenchError> {
    if kind == Kind::E2e && target.name == "broker" {
        return e2e(target, options).await;
    }
    if kind == Kind::E2e {
        // The floor's window has no end: a batch for each record.
        let batch_bytes = options.record_bytes + BATCH_HEADER_BYTES + RECORD_FRAME_BYTES;
        return produce(target, &WorkloadOptions { batch_bytes, ..options.clone() }).await;
    }
    let written = produce(target, options).await?;
    match kind {
        Kind::Consume => {
            let read = consume(target, options).await?;
            if read.bytes != written.bytes {
                return Err(BenchError::Missing { written: written.bytes, read: read.bytes });
            }
            Ok(read)
        }
        Kind::ProduceOs | Kind::ProduceFsync | Kind::ProduceClient | Kind::Rolls | Kind::E2e => {
            Ok(written)
        }
    }
}

fn summary(cell: &Cell, reports: &[(Report, Report)]) -> CellReport {
    let broker = |figure: &dyn Fn(&Report) -> Option<f64>| {
        Spread::of(reports.iter().filter_map(|(_, broker)| figure(broker)))
    };
    CellReport {
        cell: cell.clone(),
        floor_mb_per_s: Spread::of(reports.iter().map(|(floor, _)| floor.mb_per_s)),
        broker_mb_per_s: broker(&|report| Some(report.mb_per_s)),
        share: Spread::of(reports.iter().map(|(floor, broker)| broker.mb_per_s / floor.mb_per_s)),
        floor_cpu_s_per_gib: Spread::of(
            reports.iter().filter_map(|(floor, _)| floor.broker_cpu_s_per_gib()),
        ),
        broker_cpu_s_per_gib: broker(&Report::broker_cpu_s_per_gib),
        broker_cpu_s_per_million: broker(&|report| {
            Some(report.broker?.cpu_seconds / (report.records as f64 / 1e6))
        }),
        broker_rss_anon_bytes: broker(&|report| Some(report.broker?.rss_anon_bytes as f64)),
        broker_rss_bytes: broker(&|report| Some(report.broker?.rss_bytes as f64)),
        write_amplification: match cell.kind {
            Kind::Consume | Kind::E2e => Spread::default(),
            _ => broker(&|report| {
                Some(report.broker?.device_write_bytes as f64 / report.bytes as f64)
            }),
        },
        latency: (cell.kind == Kind::E2e).then(|| latencies(reports)),
    }
}

fn latencies(reports: &[(Report, Report)]) -> LatencyPairs {
    let spread = |figure: &dyn Fn(&LatencySummary, &LatencySummary) -> f64| {
        let pairs = reports.iter().filter_map(|(floor, broker)| {
            Some(figure(floor.latency.as_ref()?, broker.latency.as_ref()?))
        });
        Spread::of(pairs)
    };
    LatencyPairs {
        floor_p50_ms: spread(&|floor, _| floor.p50_ms),
        broker_p50_ms: spread(&|_, broker| broker.p50_ms),
        p50_times: spread(&|floor, broker| broker.p50_ms / floor.p50_ms),
        floor_p99_ms: spread(&|floor, _| floor.p99_ms),
        broker_p99_ms: spread(&|_, broker| broker.p99_ms),
        p99_times: spread(&|floor, broker| broker.p99_ms / floor.p99_ms),
    }
}
