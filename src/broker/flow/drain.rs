//! How fast bytes leave the pool: what `retry_after` and the prediction of a deadline rest on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate is taken over at least this long, so that one burst does not count as speed.
const WINDOW_US: u64 = 100_000;
/// A longer window contains idle time and says nothing about speed.
const WINDOW_US_MAX: u64 = 1_000_000;

/// A smoothed rate in bytes per second.
///
/// Updated by whoever releases bytes; one of several threads that see a full window closes it.
#[derive(Debug, Default)]
pub struct DrainRate {
    total: AtomicU64,
    window_start_us: AtomicU64,
    window_total: AtomicU64,
    bytes_per_second: AtomicU64,
}

impl DrainRate {
    /// A rate that is not known yet.
    pub fn new() -> DrainRate {
        DrainRate::default()
    }

    /// Notes that `bytes` left at `now`.
    pub fn record(&self, bytes: u64, now: Duration) {
        let total = self.total.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let start = self.window_start_us.load(Ordering::Relaxed);
        let elapsed = now_us.saturating_sub(start);
        if elapsed < WINDOW_US {
            return;
        }
        let claim = self.window_start_us.compare_exchange(
            start,
            now_us,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if claim.is_err() {
            return;
        }
        let moved = total.saturating_sub(self.window_total.swap(total, Ordering::Relaxed));
        if elapsed > WINDOW_US_MAX {
            return;
        }
        let rate = moved.saturating_mul(1_000_000) / elapsed;
        let old = self.bytes_per_second.load(Ordering::Relaxed);
        let smooth = if old == 0 { rate } else { old - old / 4 + rate / 4 };
        self.bytes_per_second.store(smooth, Ordering::Relaxed);
    }

    /// Bytes per second, or `None` before the first busy window.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.bytes_per_second.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// How long `bytes` take to leave, or `None` while the rate is not known.
    pub fn time_for(&self, bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_second()?;
        Some(Duration::from_micros(bytes.saturating_mul(1_000_000) / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_shows_its_rate() {
        let drain = DrainRate::new();
        for step in 0..100 {
            drain.record(1_000, Duration::from_millis(1_000 + step * 10));
        }
        let rate = drain.bytes_per_second().expect("a busy window passed");
        assert!((90_000..=110_000).contains(&rate), "{rate}");
        assert_eq!(drain.time_for(rate * 2), Some(Duration::from_secs(2)));
    }

    #[test]
    fn idle_time_does_not_look_slow() {
        let drain = DrainRate::new();
        for step in 0..100 {
            drain.record(1_000, Duration::from_millis(1_000 + step * 10));
        }
        let before = drain.bytes_per_second();
        drain.record(1, Duration::from_secs(100));
        assert_eq!(drain.bytes_per_second(), before);
    }
}
