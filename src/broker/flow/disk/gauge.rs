//! What every batch passes on its way to the disk: an estimate of free bytes, and at HIGH the slope.
//!
//! Free space is looked at now and then; between two looks every admitted batch is subtracted, so a
//! burst cannot run past FULL unseen. A batch that was not written gives its bytes back. At a look,
//! what is under way is subtracted from what the disk says: it is not written yet.
//!
//! # Invariants
//! `available > full` after every admission. At HIGH no interval gets more than the slope's rate over
//! it, a second of it and one batch. Where a class is refused, every lower one is.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::{DiskLevel, DiskMarks};
use crate::broker::flow::binding::Binding;
use crate::broker::flow::{Bucket, Settled};
use crate::types::{Class, Pushback, PushbackCode, PushbackScope};

/// `retry_after` at FULL: sooner, retention has hardly run. Later, there and at HIGH, whoever obeys is
/// still away when space came back otherwise, by a trim or another program: nobody foresees that.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 1_000..=5_000;
/// Normal traffic leaves this part of the slope's burst to critical.
const CRITICAL_PART: u64 = 4;

/// The gauge of one data directory.
#[derive(Debug)]
pub struct DiskGauge {
    /// Last look less what was admitted since.
    available: AtomicU64,
    /// Admitted and not settled.
    in_flight: AtomicU64,
    /// Written since the start.
    written: AtomicU64,
    full: AtomicU64,
    /// Free bytes at which a look is due because the next level begins.
    next: AtomicU64,
    level: AtomicU8,
    exhausted: AtomicBool,
    slope: Bucket,
    /// For `retry_after`: free bytes at which the level ends, and how fast they come back.
    ends_at: AtomicU64,
    reclaim_bps: AtomicU64,
    binding: Binding,
}

/// What an admission left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough for the level.
    Enough,
    /// The next level begins: the disk is to be looked at now.
    LookNow,
}

impl Default for DiskGauge {
    fn default() -> DiskGauge {
        DiskGauge::new()
    }
}

impl DiskGauge {
    /// A gauge that admits everything until its first look.
    pub fn new() -> DiskGauge {
        DiskGauge {
            available: AtomicU64::new(u64::MAX),
            in_flight: AtomicU64::new(0),
            written: AtomicU64::new(0),
            full: AtomicU64::new(0),
            next: AtomicU64::new(0),
            level: AtomicU8::new(DiskLevel::Normal as u8),
            exhausted: AtomicBool::new(false),
            slope: Bucket::unlimited(),
            ends_at: AtomicU64::new(0),
            reclaim_bps: AtomicU64::new(0),
            binding: Binding::default(),
        }
    }

    /// Admits `bytes` of user data and counts them until [`DiskGauge::settle`], or refuses with
    /// DISK_LOW or DISK_FULL.
    pub fn admit(&self, bytes: u64, class: Class, now: Duration) -> Result<Room, Pushback> {
        let level = self.level();
        if level >= DiskLevel::Full {
            return Err(self.refuse_full(bytes, now));
        }
        let full = self.full.load(Ordering::Relaxed);
        let fits = |free: u64| free.checked_sub(bytes).filter(|left| *left > full);
        if level == DiskLevel::High {
            // What does not fit anyhow is not sent to wait for the slope first.
            fits(self.available()).ok_or_else(|| self.refuse_full(bytes, now))?;
            self.charge(bytes, class, now)?;
        }
        match self.available.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(before) => {
                self.in_flight.fetch_add(bytes, Ordering::AcqRel);
                let next = self.next.load(Ordering::Relaxed);
                Ok(if before - bytes <= next { Room::LookNow } else { Room::Enough })
            }
            Err(_) => {
                if level == DiskLevel::High {
                    self.slope.refund(bytes);
                }
                Err(self.refuse_full(bytes, now))
            }
        }
    }

    /// What became of admitted bytes. At HIGH what was not written is given back to the slope.
    pub fn settle(&self, bytes: u64, outcome: Settled) {
        match outcome {
            Settled::Written => {
                self.written.fetch_add(bytes, Ordering::Relaxed);
            }
            Settled::Nothing => {
                let _ =
                    self.available.fetch_update(Ordering::AcqRel, Ordering::Acquire, |available| {
                        Some(available.saturating_add(bytes))
                    });
                if self.level() == DiskLevel::High {
                    self.slope.refund(bytes);
                }
            }
        }
        self.in_flight.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Storage itself met the end of the disk: EMERGENCY from now on, until a look ends it.
    pub fn exhausted(&self) {
        self.exhausted.store(true, Ordering::Release);
        self.level.store(DiskLevel::Emergency as u8, Ordering::Release);
    }

    /// The refusal at FULL as it would be now.
    pub fn pushback(&self) -> Pushback {
        let available = self.available();
        self.full_pushback(0, available)
    }

    /// The level at the last look.
    pub fn level(&self) -> DiskLevel {
        DiskLevel::from_u8(self.level.load(Ordering::Relaxed))
    }

    /// Free bytes, estimated between looks.
    pub fn available(&self) -> u64 {
        self.available.load(Ordering::Relaxed)
    }

    /// Free bytes and the mark below which user produce is refused.
    pub fn free_and_mark(&self) -> (u64, u64) {
        (self.available(), self.full.load(Ordering::Relaxed))
    }

    /// Bytes a second a grant may count on; `u64::MAX` below HIGH, 0 from FULL on.
    pub fn slope_bps(&self) -> u64 {
        match self.level() {
            DiskLevel::Normal | DiskLevel::Low => u64::MAX,
            DiskLevel::High => self.slope.rate_per_s(),
            DiskLevel::Full | DiskLevel::Emergency => 0,
        }
    }

    /// Refusals, and the length of the current stretch of them in milliseconds.
    pub fn refusals(&self, now: Duration) -> (u64, Option<u64>) {
        (self.binding.refusals(), self.binding.since_ms(now))
    }

    /// Bytes written since the start.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Takes what the disk says is free. Returns what is available of it.
    pub(super) fn measured(&self, free: u64) -> u64 {
        let available = free.saturating_sub(self.in_flight.load(Ordering::Acquire));
        self.available.store(available, Ordering::Release);
        available
    }

    /// Whether the end of the disk was met since the last call.
    pub(super) fn take_exhausted(&self) -> bool {
        self.exhausted.swap(false, Ordering::AcqRel)
    }

    /// Makes a decision effective.
    pub(super) fn publish(
        &self,
        level: DiskLevel,
        marks: &DiskMarks,
        reclaim_bps: u64,
        now: Duration,
    ) {
        let available = self.available();
        self.full.store(marks.full, Ordering::Relaxed);
        let mark = if level == DiskLevel::High { marks.high } else { marks.full };
        self.ends_at.store(mark.saturating_add(marks.hysteresis), Ordering::Relaxed);
        self.reclaim_bps.store(reclaim_bps, Ordering::Relaxed);
        let next = match level {
            DiskLevel::Normal => marks.low,
            DiskLevel::Low => marks.high,
            DiskLevel::High | DiskLevel::Full | DiskLevel::Emergency => 0,
        };
        self.next.store(next, Ordering::Relaxed);
        if level == DiskLevel::High {
            let rate = reclaim_bps.saturating_add(marks.slope_bps(available)).max(1);
            self.slope.set_rate(rate, rate, now);
        }
        // An end of the disk that was met meanwhile stays until the next look.
        let _ = self.level.fetch_update(Ordering::AcqRel, Ordering::Acquire, |_| {
            (!self.exhausted.load(Ordering::Acquire)).then_some(level as u8)
        });
    }

    /// Pays for `bytes` at HIGH.
    fn charge(&self, bytes: u64, class: Class, now: Duration) -> Result<(), Pushback> {
        let rate = self.slope.rate_per_s();
        let kept = match class {
            Class::System | Class::Critical => 0,
            Class::Normal => rate / CRITICAL_PART,
            Class::Bulk => return Err(self.refuse_slope(None, now)),
        };
        let left = self.slope.available(now);
        if kept > 0 && left <= kept {
            return Err(self.refuse_slope(Some(self.wait_for(kept, left, now)), now));
        }
        let charged = self.slope.charge(bytes, now);
        charged.map_err(|owing| self.refuse_slope(Some(owing.wait), now))
    }

    /// Time until more than `kept` units are there.
    fn wait_for(&self, kept: u64, left: u64, now: Duration) -> Duration {
        let debt = self.slope.owing(now).map_or(Duration::ZERO, |owing| owing.wait);
        let units = u128::from(kept.saturating_sub(left)) + 1;
        let nanos = (units * 1_000_000_000).div_ceil(u128::from(self.slope.rate_per_s().max(1)));
        debt.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// DISK_LOW: after `wait`, or, for bulk, when HIGH may be over.
    fn refuse_slope(&self, wait: Option<Duration>, now: Duration) -> Pushback {
        self.binding.refused(now);
        let observed = self.available();
        let retry_after_ms = match wait {
            Some(wait) => {
                let ms = wait.as_nanos().div_ceil(1_000_000);
                u32::try_from(ms.min(u128::from(*RETRY_AFTER_MS.end()))).unwrap_or(u32::MAX)
            }
            None => self.level_ends_ms(0, observed),
        };
        let min_class = match wait {
            None => Some(Class::Normal),
            Some(_) => self.slope.owing(now).is_none().then_some(Class::Critical),
        };
        Pushback {
            min_class,
            ..Pushback::hold(PushbackCode::DiskLow, PushbackScope::DataDir, "disk:high")
                .met(observed, self.full.load(Ordering::Relaxed), "bytes free")
                .after_ms(retry_after_ms)
        }
    }

    fn refuse_full(&self, bytes: u64, now: Duration) -> Pushback {
        self.binding.refused(now);
        self.full_pushback(bytes, self.available())
    }

    fn full_pushback(&self, bytes: u64, available: u64) -> Pushback {
        Pushback::hold(PushbackCode::DiskFull, PushbackScope::DataDir, "disk:full")
            .met(available, self.full.load(Ordering::Relaxed), "bytes free")
            .after_ms(self.level_ends_ms(bytes, available))
    }

    /// What has to come back before the level ends, at the rate at which it does.
    fn level_ends_ms(&self, bytes: u64, available: u64) -> u32 {
        let ends_at = self.ends_at.load(Ordering::Relaxed).saturating_add(bytes);
        let missing = u128::from(ends_at.saturating_sub(available)) * 1_000;
        let reclaim = u128::from(self.reclaim_bps.load(Ordering::Relaxed));
        let ms = missing.checked_div(reclaim).unwrap_or(u128::MAX);
        let (least, most) = (*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
        u32::try_from(u64::try_from(ms).unwrap_or(u64::MAX).clamp(least, most)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::{DiskOptions, DiskWatch};
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A disk of a million bytes: marks at 150, 80 and 40 thousand, horizon 5 s.
    fn disk(free: u64) -> (DiskWatch, DiskGauge) {
        let (mut watch, gauge) = (DiskWatch::new(DiskOptions::default()), DiskGauge::new());
        watch.look(ms(0), 1_000_000, free, &gauge);
        (watch, gauge)
    }

    #[test]
    fn a_burst_between_two_looks_is_seen() {
        let (_, gauge) = disk(200_000);
        assert_eq!(gauge.admit(40_000, Class::Normal, ms(1)), Ok(Room::Enough));
        assert_eq!(gauge.admit(10_000, Class::Normal, ms(1)), Ok(Room::LookNow), "LOW begins");
        let refused = gauge.admit(110_000, Class::Normal, ms(1)).expect_err("40,000 would be left");
        assert_eq!((refused.code, refused.observed), (PushbackCode::DiskFull, 150_000));
        assert_eq!(gauge.level(), DiskLevel::Normal, "only a look changes the level");
        assert_eq!(gauge.refusals(ms(1)).0, 1);
    }

    #[test]
    fn a_look_subtracts_what_is_under_way_and_what_was_not_written_comes_back() {
        let (mut watch, gauge) = disk(500_000);
        gauge.admit(100_000, Class::Normal, ms(1)).expect("room");
        gauge.admit(50_000, Class::Normal, ms(1)).expect("room");
        watch.look(ms(10), 1_000_000, 500_000, &gauge);
        assert_eq!(gauge.available(), 350_000);
        gauge.settle(50_000, Settled::Nothing);
        assert_eq!(gauge.available(), 400_000);
        gauge.settle(100_000, Settled::Written);
        watch.look(ms(20), 1_000_000, 400_000, &gauge);
        assert_eq!((gauge.available(), gauge.written()), (400_000, 100_000));
    }

    #[test]
    fn high_slows_down_to_the_slope_and_serves_critical_first() {
        let (_, gauge) = disk(80_000);
        assert_eq!((gauge.level(), gauge.slope_bps()), (DiskLevel::High, 8_000));
        let bulk = gauge.admit(1, Class::Bulk, ms(0)).expect_err("bulk waits");
        assert_eq!((bulk.code, bulk.min_class), (PushbackCode::DiskLow, Some(Class::Normal)));
        assert_eq!(bulk.retry_after_ms, 5_000, "nothing is reclaimed");
        gauge.admit(6_000, Class::Normal, ms(0)).expect("a second of the slope");
        let held = gauge.admit(1, Class::Normal, ms(0)).expect_err("a quarter is kept");
        assert_eq!((held.min_class, held.retry_after_ms), (Some(Class::Critical), 1));
        gauge.admit(4_000, Class::Critical, ms(0)).expect("the rest, and one batch beyond");
        let held = gauge.admit(1, Class::Critical, ms(0)).expect_err("in debt");
        assert_eq!((held.min_class, held.retry_after_ms), (None, 251));
        gauge.admit(1, Class::Critical, ms(251)).expect("exactly then");
    }

    #[test]
    fn nothing_is_admitted_from_full_on_and_an_emergency_ends_by_itself() {
        let (mut watch, gauge) = disk(500_000);
        gauge.exhausted();
        let refused = gauge.admit(1, Class::Critical, ms(1)).expect_err("the disk said so");
        assert_eq!(
            (refused.code, refused.limit_id.as_str()),
            (PushbackCode::DiskFull, "disk:full")
        );
        let edge = watch.look(ms(1), 1_000_000, 500_000, &gauge).expect("an edge");
        assert_eq!((edge.from, edge.to), (DiskLevel::Normal, DiskLevel::Emergency));
        assert_eq!(watch.needed(&gauge), 0, "there is room");
        watch.look(ms(2_001), 1_000_000, 500_000, &gauge);
        assert_eq!(gauge.level(), DiskLevel::High);
        gauge.admit(1, Class::Normal, ms(2_001)).expect("service is back");
    }

    #[test]
    fn a_slope_that_became_flat_sends_nobody_away_for_longer_than_a_full_disk() {
        let (mut watch, gauge) = disk(40_100);
        gauge.admit(90, Class::Normal, ms(0)).expect("a second of the slope, and beyond");
        gauge.settle(90, Settled::Written);
        watch.look(ms(250), 1_000_000, 40_010, &gauge);
        assert_eq!((gauge.level(), gauge.slope_bps()), (DiskLevel::High, 2));
        let held = gauge.admit(1, Class::Normal, ms(250)).expect_err("70 bytes at 2 a second");
        assert_eq!((held.code, held.retry_after_ms), (PushbackCode::DiskLow, 5_000));
    }

    #[test]
    fn retry_after_at_full_follows_what_is_reclaimed() {
        let (mut watch, gauge) = disk(40_000);
        assert_eq!(gauge.pushback().retry_after_ms, 5_000, "nothing is");
        for look in 1..=20 {
            watch.look(ms(look * 250), 1_000_000, 40_000 + look * 600, &gauge);
        }
        assert_eq!(watch.forecast().reclaim_bps(), 2_400);
        assert_eq!(gauge.pushback().retry_after_ms, 8_000 * 1_000 / 2_400);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_order_of_batches_and_looks_takes_the_disk_to_full(
            free in 0u64..300_000,
            steps in prop::collection::vec((0u64..400, 1u64..30_000, 1u8..4, 0u8..6), 1..200),
        ) {
            let (mut watch, gauge) = disk(free);
            let (mut on_disk, mut now) = (free, ms(0));
            let mut held = std::collections::VecDeque::new();
            for (pause, bytes, class, what) in steps {
                now += ms(pause);
                let class = [Class::System, Class::Critical, Class::Normal, Class::Bulk]
                    [usize::from(class)];
                match what {
                    0 => { watch.look(now, 1_000_000, on_disk, &gauge); }
                    1 => if let Some(bytes) = held.pop_front() {
                        gauge.settle(bytes, Settled::Nothing);
                    }
                    2 => if let Some(bytes) = held.pop_front() {
                        on_disk -= bytes;
                        gauge.settle(bytes, Settled::Written);
                    }
                    _ => match gauge.admit(bytes, class, now) {
                        Ok(_) => {
                            held.push_back(bytes);
                            let under_way: u64 = held.iter().sum();
                            prop_assert!(on_disk - under_way > watch.marks().full);
                        }
                        Err(refused) if refused.code == PushbackCode::DiskLow => {
                            prop_assert_eq!(gauge.level(), DiskLevel::High);
                            prop_assert!(refused.retry_after_ms > 0);
                            prop_assert!(refused.min_class.is_none_or(|least| least < class));
                        }
                        Err(_) => {}
                    }
                }
            }
        }

        #[test]
        fn the_slope_holds_and_its_wait_is_exact(
            batches in prop::collection::vec((1u64..5_000, any::<bool>()), 1..100),
        ) {
            let (_, gauge) = disk(80_000);
            let (mut now, mut sum) = (ms(0), 0);
            for (bytes, critical) in batches {
                let class = if critical { Class::Critical } else { Class::Normal };
                let admitted = match gauge.admit(bytes, class, now) {
                    Err(held) if held.code == PushbackCode::DiskLow => {
                        now += ms(u64::from(held.retry_after_ms));
                        gauge.admit(bytes, class, now)
                    }
                    admitted => admitted,
                };
                match admitted {
                    Ok(_) => sum += u128::from(bytes),
                    Err(refused) => prop_assert_eq!(refused.code, PushbackCode::DiskFull),
                }
                prop_assert!(sum <= 8 * now.as_millis() + 8_000 + 5_000);
            }
        }
    }
}
