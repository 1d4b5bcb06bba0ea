//! Since when a limit refuses, and how often it did: what `stoplog pressure` shows of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::Counter;

/// A limit binds as long as it refused somebody within this time.
const BINDS_FOR_MS: u64 = 1_000;

/// The history of one limit, in four atomics.
#[derive(Debug, Default)]
pub struct Binding {
    refused: Counter,
    /// Milliseconds + 1 of the first and the last refusal of the current stretch; 0 = never.
    first: AtomicU64,
    last: AtomicU64,
}

impl Binding {
    /// Notes a refusal at `now`.
    pub fn refused(&self, now: Duration) {
        self.refused.increment();
        let at = millis(now);
        let last = self.last.swap(at, Ordering::Relaxed);
        if last == 0 || at.saturating_sub(last) > BINDS_FOR_MS {
            self.first.store(at, Ordering::Relaxed);
        }
    }

    /// Refusals since the start.
    pub fn refusals(&self) -> u64 {
        self.refused.value()
    }

    /// For how long it has been binding at `now`, in milliseconds, or `None` when it is not.
    pub fn since_ms(&self, now: Duration) -> Option<u64> {
        let (at, last) = (millis(now), self.last.load(Ordering::Relaxed));
        if last == 0 || at.saturating_sub(last) > BINDS_FOR_MS {
            return None;
        }
        Some(at.saturating_sub(self.first.load(Ordering::Relaxed)))
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_binds_until_a_second_passed_without_refusal() {
        let binding = Binding::default();
        let at = Duration::from_millis;
        assert_eq!(binding.since_ms(at(0)), None);
        binding.refused(at(0));
        binding.refused(at(900));
        assert_eq!(binding.since_ms(at(1_800)), Some(1_800));
        assert_eq!(binding.since_ms(at(2_000)), None);
        binding.refused(at(5_000));
        assert_eq!(binding.since_ms(at(5_010)), Some(10));
        assert_eq!(binding.refusals(), 3);
    }
}
