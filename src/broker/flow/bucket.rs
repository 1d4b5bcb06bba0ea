//! A rate with a burst in one atomic: the machine behind every quota, slope and budget.
//!
//! It is the generic cell rate algorithm (ITU-T I.371) turned around: what is kept is the moment at
//! which the bucket is empty, so nothing refills it and a bucket nobody uses costs nothing. A unit
//! is whatever is charged: bytes, records, requests, nanoseconds of a thread.
//!
//! A charge passes while at least one unit is left and may go into debt, so that a batch above the
//! burst passes too, and whoever comes next waits until the debt is paid.
//!
//! # Invariants
//! - Charged (not forced) within any `[t0, t1)` <= rate x (t1 - t0) + burst + the largest charge.
//! - `refund` of what was charged restores the state before the charge.
//! - `Owing::wait` is exact: the same charge that much later passes if nobody else charged, and a
//!   nanosecond earlier it does not.
//! - A change of the rate keeps tokens and debt in units.
//!
//! Costs are rounded up to whole nanoseconds: above 1 G units/s single units pay too much, batches
//! do not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The rate that limits nothing; a charge is then one load.
pub const UNLIMITED: u64 = u64::MAX;

/// Where time 0 lies, so that a full bucket can have been empty long before the start.
const ORIGIN_NS: u64 = 1 << 62;
const NS_PER_S: u128 = 1_000_000_000;

/// A rate limit.
#[derive(Debug)]
#[repr(align(64))]
pub struct Bucket {
    rate_per_s: AtomicU64,
    burst: AtomicU64,
    /// When the bucket is or was empty, counted from `ORIGIN_NS` before time 0.
    empty_ns: AtomicU64,
}

/// What a refused caller would have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owing {
    /// Units missing until one is left again; at least 1.
    pub debt: u64,
    /// When to come back; `Duration::MAX` = never at this rate.
    pub wait: Duration,
}

/// Rate and burst as one charge saw them.
#[derive(Clone, Copy)]
struct Speed {
    rate_per_s: u64,
    burst: u64,
}

impl Speed {
    /// Nanoseconds in which `units` come in, rounded up. Only for rates above 0.
    fn ns(self, units: u64) -> u64 {
        let ns = (u128::from(units) * NS_PER_S).div_ceil(u128::from(self.rate_per_s.max(1)));
        u64::try_from(ns).unwrap_or(u64::MAX).min(ORIGIN_NS)
    }

    /// Units that come in within `ns`, rounded down.
    fn units(self, ns: u64) -> u64 {
        let units = u128::from(ns) * u128::from(self.rate_per_s) / NS_PER_S;
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// When a full bucket would have been empty.
    fn full(self, now: u64) -> u64 {
        now - self.ns(self.burst)
    }
}

impl Bucket {
    /// A full bucket. Rate 0 admits nothing ever, [`UNLIMITED`] everything. A burst of 0 counts as
    /// 1: with less nothing would ever pass.
    pub fn new(rate_per_s: u64, burst: u64) -> Bucket {
        Bucket {
            rate_per_s: AtomicU64::new(rate_per_s),
            burst: AtomicU64::new(burst.max(1)),
            empty_ns: AtomicU64::new(0),
        }
    }

    /// The bucket that limits nothing.
    pub fn unlimited() -> Bucket {
        Bucket::new(UNLIMITED, UNLIMITED)
    }

    /// Takes `units` when at least one is left. Changes nothing when it refuses.
    pub fn charge(&self, units: u64, now: Duration) -> Result<(), Owing> {
        let speed = self.speed();
        match speed.rate_per_s {
            UNLIMITED => return Ok(()),
            0 => return Err(Owing { debt: units.max(1), wait: Duration::MAX }),
            _ => {}
        }
        let (now, cost) = (at(now), speed.ns(units));
        let take =
            |empty: u64| (empty < now).then(|| empty.max(speed.full(now)).saturating_add(cost));
        match self.empty_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(()),
            Err(empty) => Err(owing(speed, empty, now)),
        }
    }

    /// Takes `units` whatever is left.
    pub fn force(&self, units: u64, now: Duration) {
        let speed = self.speed();
        if matches!(speed.rate_per_s, 0 | UNLIMITED) {
            return;
        }
        let (now, cost) = (at(now), speed.ns(units));
        let take = |empty: u64| Some(empty.max(speed.full(now)).saturating_add(cost));
        // The closure always answers, so the update cannot fail.
        let _ = self.empty_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
    }

    /// Gives back what a charge took.
    pub fn refund(&self, units: u64) {
        let speed = self.speed();
        if matches!(speed.rate_per_s, 0 | UNLIMITED) {
            return;
        }
        let cost = speed.ns(units);
        let give = |empty: u64| Some(empty.saturating_sub(cost));
        let _ = self.empty_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, give);
    }

    /// What is owed now, or `None` when a charge would pass.
    pub fn owing(&self, now: Duration) -> Option<Owing> {
        let speed = self.speed();
        match speed.rate_per_s {
            UNLIMITED => None,
            0 => Some(Owing { debt: 1, wait: Duration::MAX }),
            _ => {
                let (now, empty) = (at(now), self.empty_ns.load(Ordering::Acquire));
                (empty >= now).then(|| owing(speed, empty, now))
            }
        }
    }

    /// Units left; [`UNLIMITED`] when nothing is limited.
    pub fn available(&self, now: Duration) -> u64 {
        let speed = self.speed();
        match speed.rate_per_s {
            UNLIMITED => UNLIMITED,
            0 => 0,
            _ => {
                let full_for = at(now).saturating_sub(self.empty_ns.load(Ordering::Acquire));
                speed.units(full_for).min(speed.burst)
            }
        }
    }

    /// The rate now.
    pub fn rate_per_s(&self) -> u64 {
        self.rate_per_s.load(Ordering::Acquire)
    }

    /// Changes rate and burst; tokens and debt stay what they are in units. A bucket that had no
    /// limit starts full, one that had rate 0 starts empty.
    ///
    /// For one caller at a time. A charge that runs beside it counts at the old or the new rate.
    pub fn set_rate(&self, rate_per_s: u64, burst: u64, now: Duration) {
        let old = self.speed();
        let new = Speed { rate_per_s, burst: burst.max(1) };
        if (old.rate_per_s, old.burst) == (new.rate_per_s, new.burst) {
            return;
        }
        self.burst.store(new.burst, Ordering::Release);
        self.rate_per_s.store(new.rate_per_s, Ordering::Release);
        let now = at(now);
        let convert = |empty: u64| match (old.rate_per_s, new.rate_per_s) {
            (_, 0 | UNLIMITED) => None,
            (UNLIMITED, _) => Some(new.full(now)),
            (0, _) => Some(now),
            _ if empty < now => Some(now - new.ns(old.units(now - empty).min(old.burst))),
            _ => Some(now.saturating_add(new.ns(old.units(empty - now)))),
        };
        let _ = self.empty_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, convert);
    }

    fn speed(&self) -> Speed {
        Speed {
            rate_per_s: self.rate_per_s.load(Ordering::Acquire),
            burst: self.burst.load(Ordering::Acquire),
        }
    }
}

/// One unit is there a nanosecond after the bucket was empty.
fn owing(speed: Speed, empty: u64, now: u64) -> Owing {
    let wait = empty.saturating_sub(now).saturating_add(1);
    Owing { debt: speed.units(wait).max(1), wait: Duration::from_nanos(wait) }
}

fn at(now: Duration) -> u64 {
    let ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    ns.min(ORIGIN_NS).saturating_add(ORIGIN_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_debt_is_paid_in_exactly_the_time_it_names() {
        let bucket = Bucket::new(1_000, 1_000);
        assert_eq!(bucket.charge(3_500, ms(0)), Ok(()), "a batch above the burst passes once");
        let owing = bucket.charge(1, ms(0)).expect_err("2,500 are owed");
        assert_eq!((owing.debt, owing.wait), (2_500, ms(2_500) + Duration::from_nanos(1)));
        let paid = ms(0) + owing.wait;
        assert!(bucket.charge(1, paid - Duration::from_nanos(1)).is_err());
        assert_eq!(bucket.charge(1, paid), Ok(()));
    }

    #[test]
    fn a_burst_is_one_second_and_not_one_more() {
        let bucket = Bucket::new(10, 10);
        let passed = (0..30).filter(|_| bucket.charge(1, ms(60_000)).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(bucket.available(ms(60_500)), 5);
        assert_eq!(bucket.available(ms(120_000)), 10);
    }

    #[test]
    fn rate_zero_admits_nothing_and_no_limit_admits_all() {
        let closed = Bucket::new(0, 100);
        assert_eq!(closed.charge(1, ms(0)).expect_err("closed").wait, Duration::MAX);
        assert_eq!((closed.available(ms(9)), closed.owing(ms(9)).is_some()), (0, true));
        let open = Bucket::unlimited();
        open.force(u64::MAX, ms(0));
        assert_eq!((open.charge(u64::MAX, ms(0)), open.available(ms(0))), (Ok(()), UNLIMITED));
    }

    #[test]
    fn live_edit_keeps_the_debt() {
        let bucket = Bucket::new(1_000, 1_000);
        bucket.force(5_000, ms(0));
        bucket.set_rate(4_000, 4_000, ms(0));
        let owing = bucket.owing(ms(0)).expect("4,000 are owed");
        assert_eq!((owing.debt, owing.wait), (4_000, ms(1_000) + Duration::from_nanos(1)));
        bucket.set_rate(100, 100, ms(1_500));
        assert_eq!(bucket.available(ms(1_500)), 100, "2,000 were left, 100 is the burst");
    }

    #[test]
    fn a_limit_that_is_new_starts_full_and_one_that_was_closed_starts_empty() {
        let bucket = Bucket::unlimited();
        bucket.set_rate(500, 700, ms(5));
        assert_eq!(bucket.available(ms(5)), 700);
        bucket.set_rate(0, 1, ms(6));
        bucket.set_rate(500, 700, ms(7));
        assert_eq!((bucket.available(ms(7)), bucket.available(ms(1_007))), (0, 500));
    }

    #[test]
    fn forcing_goes_into_debt_and_a_refund_gives_it_back() {
        let bucket = Bucket::new(100, 100);
        bucket.force(300, ms(0));
        assert!(bucket.charge(1, ms(0)).is_err());
        bucket.refund(300);
        assert_eq!(bucket.available(ms(0)), 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_interval_gets_more_than_its_rate_a_burst_and_one_charge(
            rate in 1u64..1_000_000, burst in 1u64..2_000_000,
            steps in prop::collection::vec((0u64..400_000_000, 1u64..500_000), 1..200),
        ) {
            let bucket = Bucket::new(rate, burst);
            let mut now = Duration::ZERO;
            let mut passed: Vec<(Duration, u64)> = Vec::new();
            for (pause_ns, units) in &steps {
                now += Duration::from_nanos(*pause_ns);
                if bucket.charge(*units, now).is_ok() {
                    passed.push((now, *units));
                }
            }
            let largest = steps.iter().map(|s| s.1).max().unwrap_or(0);
            for (from, (t0, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (t1, units) in &passed[from..] {
                    sum += units;
                    let came = u128::from(rate) * (*t1 - *t0).as_nanos() / NS_PER_S + 1;
                    prop_assert!(u128::from(sum) <= came + u128::from(burst + largest));
                }
            }
        }

        #[test]
        fn a_refund_restores_the_state(
            rate in 1u64..10_000_000, burst in 1u64..10_000_000, before in 0u64..5_000_000,
            units in 1u64..5_000_000, at_ns in 0u64..5_000_000_000,
        ) {
            let bucket = Bucket::new(rate, burst);
            bucket.force(before, Duration::ZERO);
            let now = Duration::from_nanos(at_ns);
            let state = (bucket.available(now), bucket.owing(now));
            if bucket.charge(units, now).is_ok() {
                bucket.refund(units);
            }
            prop_assert_eq!((bucket.available(now), bucket.owing(now)), state);
        }

        #[test]
        fn the_wait_is_exact(
            rate in 1u64..3_000_000_000, burst in 1u64..1_000_000, debt in 1u64..1_000_000_000,
        ) {
            let bucket = Bucket::new(rate, burst);
            bucket.force(burst + debt, ms(7));
            let owing = bucket.charge(1, ms(7)).expect_err("in debt");
            prop_assert!(bucket.charge(1, ms(7) + owing.wait - Duration::from_nanos(1)).is_err());
            prop_assert_eq!(bucket.charge(1, ms(7) + owing.wait), Ok(()));
        }
    }

    #[test]
    fn threads_together_take_no_more_than_one_would() {
        let bucket = Bucket::new(1_000, 10_000);
        let passed: usize = std::thread::scope(|scope| {
            let charge = || (0..8_000).filter(|_| bucket.charge(1, ms(1)).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(charge)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(passed, 10_000);
    }
}
