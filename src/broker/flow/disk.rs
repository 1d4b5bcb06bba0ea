//! When the disk counts as full for user data (DESIGN section 4, disk watermarks): before it is, so
//! that commits, group state and deletes go on.
//!
//! Free space is looked at now and then; between two looks every admitted batch is subtracted, so
//! a burst cannot run past the mark unseen. LOW and HIGH, which slow down, come with the
//! controller; they are further marks of this gauge.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::FlowOptions;
use super::binding::Binding;
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// How full the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskLevel {
    /// Room enough.
    Normal,
    /// User produce is refused; everything else goes on.
    Full,
}

/// Retention runs every few seconds and frees whole segments: an earlier retry finds the same.
const RETRY_AFTER_MS: u32 = 1_000;

/// The gauge of one data directory.
#[derive(Debug)]
pub struct DiskGauge {
    bytes_max: u64,
    per_mille: u64,
    /// Last look less what was admitted since.
    free: AtomicU64,
    mark: AtomicU64,
    full: AtomicBool,
    binding: Binding,
}

impl DiskGauge {
    /// A gauge that admits everything until its first look.
    pub fn new(options: &FlowOptions) -> DiskGauge {
        DiskGauge {
            bytes_max: options.disk_full_bytes_max,
            per_mille: u64::from(options.disk_full_per_mille),
            free: AtomicU64::new(u64::MAX),
            mark: AtomicU64::new(0),
            full: AtomicBool::new(false),
            binding: Binding::default(),
        }
    }

    /// Takes a look's result. Returns the level when it changed.
    ///
    /// FULL begins below the mark and ends above one and a half marks.
    pub fn observe(&self, capacity: u64, free: u64) -> Option<DiskLevel> {
        let share = u128::from(capacity) * u128::from(self.per_mille) / 1_000;
        let mark = self.bytes_max.min(u64::try_from(share).unwrap_or(u64::MAX));
        self.mark.store(mark, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
        let was = self.full.load(Ordering::Relaxed);
        let full = if was { free <= mark.saturating_add(mark / 2) } else { free <= mark };
        self.full.store(full, Ordering::Relaxed);
        (was != full).then_some(if full { DiskLevel::Full } else { DiskLevel::Normal })
    }

    /// Storage itself met the end of the disk: FULL until a look says otherwise.
    pub fn exhausted(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// Admits `bytes` of user data and counts them, or refuses with DISK_FULL.
    pub fn admit(&self, bytes: u64, now: Duration) -> Result<(), Pushback> {
        let mark = self.mark.load(Ordering::Relaxed);
        let fits = |free: u64| free.checked_sub(bytes).filter(|left| *left > mark);
        let counted = !self.full.load(Ordering::Relaxed)
            && self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if counted {
            return Ok(());
        }
        self.binding.refused(now);
        Err(self.pushback())
    }

    /// The refusal as it would be now.
    pub fn pushback(&self) -> Pushback {
        Pushback::hold(PushbackCode::DiskFull, PushbackScope::DataDir, "disk:full")
            .met(self.free.load(Ordering::Relaxed), self.mark.load(Ordering::Relaxed), "bytes free")
            .after_ms(RETRY_AFTER_MS)
    }

    /// The level at the last look.
    pub fn level(&self) -> DiskLevel {
        if self.full.load(Ordering::Relaxed) { DiskLevel::Full } else { DiskLevel::Normal }
    }

    /// Free bytes (estimated between looks) and the mark below which user produce is refused.
    pub fn free_and_mark(&self) -> (u64, u64) {
        (self.free.load(Ordering::Relaxed), self.mark.load(Ordering::Relaxed))
    }

    /// Refusals, and the length of the current stretch of them in milliseconds.
    pub fn refusals(&self, now: Duration) -> (u64, Option<u64>) {
        (self.binding.refusals(), self.binding.since_ms(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn full_is_relative_on_small_disks() {
        let gauge = DiskGauge::new(&FlowOptions::default());
        assert_eq!(gauge.observe(1_000_000, 41_000), None);
        assert_eq!(gauge.observe(1_000_000, 40_000), Some(DiskLevel::Full));
        assert_eq!(gauge.observe(1_000_000, 50_000), None, "hysteresis");
        assert_eq!(gauge.observe(1_000_000, 60_001), Some(DiskLevel::Normal));
        gauge.observe(1 << 50, 600 << 20);
        assert_eq!(gauge.free_and_mark().1, 512 << 20);
    }

    #[test]
    fn a_burst_between_two_looks_is_seen() {
        let gauge = DiskGauge::new(&FlowOptions::default());
        gauge.observe(1_000_000, 100_000);
        assert_eq!(gauge.admit(50_000, NOW), Ok(()));
        let refused = gauge.admit(20_000, NOW).expect_err("the mark is at 40,000");
        assert_eq!(refused.code, PushbackCode::DiskFull);
        assert_eq!(gauge.level(), DiskLevel::Normal, "only a look changes the level");
        assert_eq!(gauge.refusals(NOW).0, 1);
    }
}
