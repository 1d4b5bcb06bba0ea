//! A histogram of fixed size: buckets at powers of two with four steps each, so that a quantile is
//! at most 25 % too high. 252 buckets cover all of `u64`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps between two powers of two (2 bits of mantissa).
const STEPS: u64 = 4;
const STEP_BITS: u32 = 2;
const BUCKETS: usize = 252;

/// Counts values by their size. Recording is two relaxed additions.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64; BUCKETS]>,
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// `(upper bound, values at or below it and above the one before)`, without empty buckets.
    pub buckets: Vec<(u64, u64)>,
    /// Sum of all values.
    pub sum: u64,
    /// Number of all values.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        let buckets = Box::new([const { AtomicU64::new(0) }; BUCKETS]);
        Histogram { buckets, sum: AtomicU64::new(0) }
    }

    /// Counts `value`.
    pub fn record(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What it holds now; values recorded meanwhile may be in or out.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot {
            buckets: Vec::new(),
            sum: self.sum.load(Ordering::Relaxed),
            count: 0,
        };
        for (index, bucket) in self.buckets.iter().enumerate() {
            let count = bucket.load(Ordering::Relaxed);
            if count > 0 {
                snapshot.count += count;
                snapshot.buckets.push((upper_bound(index), count));
            }
        }
        snapshot
    }
}

impl HistogramSnapshot {
    /// An upper bound of the `per_mille`-th quantile (500 = median), or `None` when empty.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let rank = (self.count.saturating_mul(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (upper, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return Some(*upper);
            }
        }
        None
    }
}

fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let step = (value >> (power - STEP_BITS)) - STEPS;
    ((power - STEP_BITS + 1) as usize) * STEPS as usize + step as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let lowest = u128::from(STEPS + bucket % STEPS) << shift;
    u64::try_from(lowest + (1 << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_bound_is_close() {
        for power in 0..64u32 {
            for near in [0u64, 1, 7] {
                let value = (1u64 << power).wrapping_add(near << power.saturating_sub(3));
                let upper = upper_bound(bucket_of(value));
                assert!(upper >= value && upper - value <= value / 4, "{value} {upper}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_bound(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_come_from_counts() {
        let histogram = Histogram::new();
        assert_eq!(histogram.snapshot().quantile(500), None);
        for value in 1..=1000 {
            histogram.record(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.sum), (1000, 500_500));
        let median = snapshot.quantile(500).expect("values");
        assert!((500..=640).contains(&median), "{median}");
    }
}
