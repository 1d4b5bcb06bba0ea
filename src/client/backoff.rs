//! How long to wait before another attempt: doubling, jittered, never shorter than the broker asks
//! (retry contract of Flow 1: `retry_after` times 0.8 to 1.3, doubled when repeated, 30 s at most).

use std::time::Duration;

use crate::env::Rng;

/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The waits of one sequence of attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits that begin at `first`.
    pub(super) fn new(first: Duration) -> Backoff {
        Backoff { first, failures: 0 }
    }

    /// It worked: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after another failure.
    pub(super) fn next(&mut self, rng: &dyn Rng, retry_after: Option<Duration>) -> Duration {
        let base = retry_after.unwrap_or(self.first);
        let doubled = base.saturating_mul(1 << self.failures.min(12)).min(WAIT_MAX.max(base));
        self.failures += 1;
        let jitter = 0.8 + 0.5 * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        doubled.mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SeededRng;

    #[test]
    fn waits_double_up_to_a_limit_and_start_over() {
        let rng = SeededRng::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(50));
        for failures in 0..20 {
            let base = Duration::from_millis(50 << failures.min(12)).min(WAIT_MAX);
            let wait = backoff.next(&rng, None);
            assert!(wait >= base.mul_f64(0.8) && wait <= base.mul_f64(1.3), "{failures} {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(&rng, None) < Duration::from_millis(66));
    }

    #[test]
    fn the_brokers_wish_counts() {
        let rng = SeededRng::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(50));
        let wait = backoff.next(&rng, Some(Duration::from_secs(2)));
        assert!(wait >= Duration::from_millis(1_600) && wait <= Duration::from_millis(2_600));
    }
}
