//! Latencies in an HDR histogram, corrected for coordinated omission by the way they are taken: a
//! latency counts from the moment the record was *due*, not from the moment a late sender sent it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Largest latency kept apart: longer ones count as this.
const LATENCY_MAX: Duration = Duration::from_secs(120);
/// Significant digits: 0.1 % of a value.
const DIGITS: u8 = 3;

/// A histogram of latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// An empty one.
    pub fn new() -> Latencies {
        let max_ns = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        Latencies(Histogram::new_with_bounds(1, max_ns, DIGITS).expect("valid bounds"))
    }

    /// Counts `records` with one latency.
    pub fn record(&mut self, latency: Duration, records: u64) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.0.saturating_record_n(ns, records);
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The usual quantiles.
    pub fn summary(&self) -> LatencySummary {
        let ms = |ns: u64| ns as f64 / 1e6;
        let at = |quantile: f64| ms(self.0.value_at_quantile(quantile));
        LatencySummary {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.0.max()),
        }
    }

    /// The distribution as (quantile, milliseconds, count so far), for plots.
    pub fn distribution(&self) -> Vec<(f64, f64, u64)> {
        let mut total = 0;
        let steps = self.0.iter_quantiles(2);
        steps
            .map(|step| {
                total += step.count_since_last_iteration();
                (step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1e6, total)
            })
            .collect()
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

/// Quantiles of latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Number of latencies.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// Largest.
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms), 1);
        }
        let mut twice = latencies.clone();
        twice.add(&latencies);
        let summary = twice.summary();
        assert_eq!(summary.count, 200);
        assert!((summary.p50_ms - 50.0).abs() < 0.1, "{summary:?}");
        assert!((summary.max_ms - 100.0).abs() < 0.2, "{summary:?}");
        assert_eq!(twice.distribution().last().map(|step| step.2), Some(200));
    }
}
