//! The pace of a publisher whose rate was refused. The refusal names the rate; whoever goes on at it is
//! let in, whoever only waits for its debt to be paid is refused every second time.
//!
//! The rate may be shared by others, and may change: the pace grows a little with each batch, and falls
//! with each refusal. When it grew for `PACED_BATCHES` without one, the limit is gone, and so is the pace.
//!
//! # Invariants
//! The pace is at most what the last refusal named, but for its growth since.

use std::time::Duration;

use crate::types::{Pushback, PushbackCode};

/// Batches without a refusal that end it: it is a third faster by then.
const PACED_BATCHES: u32 = 30;
/// What a batch adds: with `FALL_PERCENT`, one refusal in some twenty batches.
const GROWTH_PERCENT: u64 = 1;
/// What a refusal takes.
const FALL_PERCENT: u64 = 20;

/// The pace of one publisher.
#[derive(Clone, Copy, Debug, Default)]
pub struct RatePace {
    rate: Option<Rate>,
    next: Duration,
    batches_left: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    milli_per_s: u64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Bytes,
    Records,
    Requests,
}

impl RatePace {
    /// A batch was refused; it may be tried again at `again`.
    pub fn refused(&mut self, pushback: &Pushback, again: Duration) {
        let unit = match pushback.unit.as_str() {
            "bytes/s" => Unit::Bytes,
            "records/s" => Unit::Records,
            "requests/s" => Unit::Requests,
            _ => return,
        };
        if pushback.code != PushbackCode::ThrottledRate || pushback.limit == 0 {
            return;
        }
        let told = pushback.limit.saturating_mul(1_000);
        let followed = self.rate.map_or(u64::MAX, |rate| rate.milli_per_s);
        let milli_per_s = (told.min(followed) / 100 * (100 - FALL_PERCENT)).max(1);
        self.rate = Some(Rate { milli_per_s, unit });
        (self.next, self.batches_left) = (again, PACED_BATCHES);
    }

    /// When the next batch may be sent, if that is not now.
    pub fn wait_until(&self, now: Duration) -> Option<Duration> {
        (self.rate.is_some() && self.next > now).then_some(self.next)
    }

    /// A batch was sent.
    pub fn sent(&mut self, bytes: u64, records: u64, now: Duration) {
        let Some(rate) = &mut self.rate else { return };
        let units = match rate.unit {
            Unit::Bytes => bytes,
            Unit::Records => records,
            Unit::Requests => 1,
        };
        let ns = u128::from(units) * 1_000_000_000_000 / u128::from(rate.milli_per_s);
        self.next =
            self.next.max(now) + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        rate.milli_per_s = rate.milli_per_s.saturating_add(rate.milli_per_s / 100 * GROWTH_PERCENT);
        self.batches_left -= 1;
        if self.batches_left == 0 {
            self.rate = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PushbackScope;

    fn refusal(limit: u64, unit: &str) -> Pushback {
        let code = PushbackCode::ThrottledRate;
        Pushback::hold(code, PushbackScope::Topic, "quota:topic/t").met(limit + 1, limit, unit)
    }

    #[test]
    fn batches_follow_each_other_a_little_faster_each_time_until_it_ends() {
        let mut pace = RatePace::default();
        let start = Duration::from_secs(10);
        pace.sent(1_000, 1, start);
        assert_eq!(pace.wait_until(start), None, "nothing is known");
        pace.refused(&refusal(1_250, "bytes/s"), start);
        let (mut now, mut before) = (start, Duration::MAX);
        for _ in 1..PACED_BATCHES {
            pace.sent(1_000, 1, now);
            let interval = pace.wait_until(now).expect("it is paced") - now;
            assert!(interval < before && interval <= Duration::from_secs(1), "{interval:?}");
            (now, before) = (now + interval, interval);
        }
        assert!(before > Duration::from_millis(700), "{before:?}");
        pace.sent(1_000, 1, now);
        assert_eq!(pace.wait_until(now), None, "the limit is gone");
    }

    #[test]
    fn a_refusal_slows_it_even_when_it_names_more() {
        let mut pace = RatePace::default();
        let now = Duration::from_secs(1);
        let mut before = Duration::ZERO;
        for limit in [1_000, 1_000, 9_000] {
            pace.refused(&refusal(limit, "bytes/s"), now);
            let mut probe = pace;
            probe.sent(1_000, 1, now);
            let interval = probe.wait_until(now).expect("it is paced") - now;
            assert!(interval > before, "{interval:?}");
            before = interval;
        }
    }

    #[test]
    fn records_and_requests_have_their_own_pace_and_other_refusals_none() {
        let now = Duration::from_secs(1);
        for (unit, wait_ms) in [("records/s", 2_500), ("requests/s", 125)] {
            let mut pace = RatePace::default();
            pace.refused(&refusal(10, unit), now);
            pace.sent(5_000, 20, now);
            assert_eq!(pace.wait_until(now), Some(now + Duration::from_millis(wait_ms)), "{unit}");
        }
        let mut pace = RatePace::default();
        pace.refused(&Pushback::draining(), now);
        pace.sent(1, 1, now);
        assert_eq!(pace.wait_until(now), None);
    }
}
