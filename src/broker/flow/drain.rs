//! How fast bytes leave the pool: what `retry_after` and the prediction of a deadline rest on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate is taken over at least this long, so that one burst does not count as speed.
const WINDOW_US: u64 = 100_000;
/// A longer window contains idle time and says nothing about speed.
const WINDOW_US_MAX: u64 = 1_000_000;
/// With less than this in the pool it was the load that was slow, or a single fsync: a window in
/// which there ever was less says nothing about speed either.
const BACKLOG_BYTES_MIN: u64 = 1 << 20;
/// An older rate may be that of a disk that has recovered since.
const VALID_US: u64 = 10_000_000;

/// A smoothed rate in bytes per second, seen while bytes were waiting to leave.
///
/// Updated by whoever releases bytes; one of several threads that see a full window closes it.
#[derive(Debug, Default)]
pub struct DrainRate {
    least_left: AtomicU64,
    measured_us: AtomicU64,
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

    /// Notes that `bytes` left at `now`, and `left` stayed.
    pub fn record(&self, bytes: u64, left: u64, now: Duration) {
        self.least_left.fetch_min(left, Ordering::Relaxed);
        let total = self.total.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        let now_us = micros(now);
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
        let backlog = self.least_left.swap(u64::MAX, Ordering::Relaxed);
        if elapsed > WINDOW_US_MAX || backlog < BACKLOG_BYTES_MIN {
            return;
        }
        let rate = moved.saturating_mul(1_000_000) / elapsed;
        let old = self.bytes_per_second.load(Ordering::Relaxed);
        let smooth = if old == 0 { rate } else { old - old / 4 + rate / 4 };
        self.bytes_per_second.store(smooth, Ordering::Relaxed);
        self.measured_us.store(now_us, Ordering::Relaxed);
    }

    /// Bytes per second, or `None` when no busy window was seen lately.
    pub fn bytes_per_second(&self, now: Duration) -> Option<u64> {
        let age_us = micros(now).saturating_sub(self.measured_us.load(Ordering::Relaxed));
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        (rate > 0 && age_us <= VALID_US).then_some(rate)
    }

    /// How long `bytes` take to leave, or `None` while the rate is not known.
    pub fn time_for(&self, bytes: u64, now: Duration) -> Option<Duration> {
        let rate = self.bytes_per_second(now)?;
        Some(Duration::from_micros(bytes.saturating_mul(1_000_000) / rate))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 kB/s for a second while `left` bytes wait; and when that ends.
    fn steady(left: u64) -> (DrainRate, Duration) {
        let drain = DrainRate::new();
        let at = |step: u64| Duration::from_millis(1_000 + step * 10);
        for step in 0..100 {
            drain.record(1_000, left, at(step));
        }
        (drain, at(99))
    }

    #[test]
    fn a_steady_stream_shows_its_rate() {
        let (drain, now) = steady(BACKLOG_BYTES_MIN);
        let rate = drain.bytes_per_second(now).expect("a busy window passed");
        assert!((90_000..=110_000).contains(&rate), "{rate}");
        assert_eq!(drain.time_for(rate * 2, now), Some(Duration::from_secs(2)));
    }

    #[test]
    fn idle_time_does_not_look_slow() {
        let (drain, now) = steady(BACKLOG_BYTES_MIN);
        let before = drain.bytes_per_second(now);
        drain.record(1, BACKLOG_BYTES_MIN, now + Duration::from_secs(5));
        assert_eq!(drain.bytes_per_second(now), before);
    }

    #[test]
    fn a_light_load_does_not_look_slow() {
        let (drain, now) = steady(BACKLOG_BYTES_MIN - 1);
        assert_eq!(drain.time_for(1 << 30, now), None);
    }

    #[test]
    fn an_old_rate_is_not_believed() {
        let (drain, now) = steady(BACKLOG_BYTES_MIN);
        assert_eq!(drain.time_for(1, now + Duration::from_secs(11)), None);
    }
}
