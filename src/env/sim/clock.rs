//! A clock that stands still until it is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::env::Clock;
use crate::types::Timestamp;

/// Where every simulated clock starts: 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// A clock moved by the test; clones show the same time.
#[derive(Clone, Debug)]
pub struct SimClock {
    wall_ms: Arc<AtomicI64>,
    monotonic_ns: Arc<AtomicU64>,
}

impl SimClock {
    /// A clock at the fixed start.
    pub fn new() -> SimClock {
        SimClock { wall_ms: Arc::new(AtomicI64::new(START_MS)), monotonic_ns: Arc::default() }
    }

    /// Lets time pass on both.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// Sets wall time alone, forward or back, as an operator or NTP does.
    pub fn jump_to(&self, wall: Timestamp) {
        self.wall_ms.store(wall.0, Ordering::SeqCst);
    }
}

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_jumps_and_monotonic_time_does_not() {
        let clock = SimClock::new();
        clock.advance(Duration::from_millis(5));
        clock.jump_to(Timestamp(10));
        assert_eq!(clock.now(), Timestamp(10));
        assert_eq!(clock.monotonic(), Duration::from_millis(5));
    }
}
