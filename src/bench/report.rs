//! Results with everything needed to judge them: options, machine, histogram. The JSON field names
//! are documented in `docs/performance.md` and stay.

use serde::{Deserialize, Serialize};

use std::path::Path;

use super::latency::LatencySummary;
use super::machine::Machine;
use super::process::Usage;
use super::{Outcome, Target};

/// Result of one run of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `produce`, `consume` or `e2e`.
    pub workload: String,
    /// `broker` or `floor`.
    pub target: String,
    /// What was asked for.
    pub options: super::WorkloadOptions,
    /// Seconds measured, warm-up excluded.
    pub seconds: f64,
    /// Records moved.
    pub records: u64,
    /// Bytes of record batches moved.
    pub bytes: u64,
    /// Records a second.
    pub records_per_s: f64,
    /// Millions of bytes a second.
    pub mb_per_s: f64,
    /// From due time to acknowledgement (produce) or delivery (e2e); absent for consume.
    pub latency: Option<LatencySummary>,
    /// The latency distribution as (quantile, milliseconds, count so far).
    pub distribution: Vec<(f64, f64, u64)>,
    /// Bytes on the wire in either direction, framing included; 0 where it was not counted.
    #[serde(default)]
    pub wire_bytes: u64,
    /// Requests that were answered by back pressure.
    pub throttled: u64,
    /// The broker process, when its id is known.
    pub broker: Option<Usage>,
    /// This process, the load generator.
    pub client: Option<Usage>,
    /// The machine.
    pub machine: Machine,
}

impl Report {
    /// Of an outcome and the readings at the start of the measured time (broker, client).
    pub(super) fn new(
        workload: &str,
        target: &Target,
        options: &super::WorkloadOptions,
        outcome: Outcome,
        (broker, client): (Option<Usage>, Option<Usage>),
    ) -> Report {
        let since = |now: Option<Usage>, then: Option<Usage>| Some(now?.since(&then?));
        let seconds = outcome.seconds().max(1e-9);
        let latency = outcome.latencies.summary();
        Report {
            workload: workload.to_owned(),
            target: target.name.to_owned(),
            options: options.clone(),
            seconds,
            records: outcome.records,
            bytes: outcome.bytes,
            records_per_s: outcome.records as f64 / seconds,
            mb_per_s: outcome.bytes as f64 / 1e6 / seconds,
            latency: (latency.count > 0).then_some(latency),
            distribution: outcome.latencies.distribution(),
            wire_bytes: 0,
            throttled: outcome.throttled,
            broker: since(target.usage(), broker),
            client: since(Usage::of(std::process::id()), client),
            machine: Machine::describe(Path::new(".")),
        }
    }

    /// Processor seconds of the broker per GiB moved.
    pub fn broker_cpu_s_per_gib(&self) -> Option<f64> {
        let gib = self.bytes as f64 / (1u64 << 30) as f64;
        (gib > 0.0).then(|| self.broker.map(|usage| usage.cpu_seconds / gib)).flatten()
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} {}: {:.1}s  {} rec  {:.0} rec/s  {:.1} MB/s",
            self.target,
            self.workload,
            self.seconds,
            self.records,
            self.records_per_s,
            self.mb_per_s
        );
        if let Some(l) = &self.latency {
            line += &format!(
                "  p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2} ms",
                l.p50_ms, l.p90_ms, l.p99_ms, l.p999_ms, l.max_ms
            );
        }
        line += &format!("  throttled {}", self.throttled);
        if let Some(cpu) = self.broker_cpu_s_per_gib() {
            line += &format!("  broker {cpu:.2} CPU s/GiB");
        }
        line
    }
}

/// Median and spread of a figure over several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Number of runs.
    pub runs: usize,
}

impl Spread {
    /// Of some figures; all zero when there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (figures.first(), figures.last()) else {
            return Spread::default();
        };
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            (figures[middle - 1] + figures[middle]) / 2.0
        };
        Spread { median, min: *min, max: *max, runs: figures.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([]), Spread::default());
    }
}
