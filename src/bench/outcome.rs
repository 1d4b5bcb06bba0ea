//! What one connection of a workload saw; added up over all of them.

use std::time::Duration;

use super::Latencies;

/// Sums of the measured time.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Records moved.
    pub records: u64,
    /// Bytes of record batches moved.
    pub bytes: u64,
    /// Refusals by back pressure.
    pub throttled: u64,
    /// Latencies, where the workload has any.
    pub latencies: Latencies,
    /// First and last moment at which something moved.
    pub span: Option<(Duration, Duration)>,
    /// The measured time, when the workload takes it itself.
    pub seconds: Option<f64>,
}

impl Outcome {
    /// Something arrived.
    pub fn moved(&mut self, now: Duration, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// Adds another connection's.
    pub fn add(&mut self, other: Outcome) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.throttled += other.throttled;
        self.latencies.add(&other.latencies);
        self.span = match (self.span, other.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    /// The measured time in seconds.
    pub fn seconds(&self) -> f64 {
        let spanned = self.span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        self.seconds.unwrap_or(spanned)
    }
}
