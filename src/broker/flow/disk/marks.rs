//! Free bytes at which each level of a disk begins, from its capacity.
//!
//! Below 20 GiB the marks are shares alone: an absolute floor would be most of such a disk. Above,
//! shares within bounds, because 15 % of a large disk is more than anybody would leave unused.

use std::time::Duration;

use super::{DiskLevel, DiskOptions};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Below it a disk is small.
const SMALL_BYTES: u64 = 20 * GIB;

/// The marks of one disk, in free bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskMarks {
    /// All of it.
    pub capacity: u64,
    /// LOW at and below it.
    pub low: u64,
    /// HIGH at and below it.
    pub high: u64,
    /// FULL at and below it.
    pub full: u64,
    /// A level ends this much above its mark.
    pub hysteresis: u64,
    /// Size of the file that gives way when the disk is at its end.
    pub reserve: u64,
    /// Time over which the room between HIGH and FULL may be used up.
    pub horizon: Duration,
}

impl DiskMarks {
    /// The marks of a disk of `capacity` bytes; what an operator set goes before what follows from
    /// the capacity, and never turns the order of the levels around.
    pub fn of(capacity: u64, options: &DiskOptions) -> DiskMarks {
        let share = |per_mille: u64| {
            u64::try_from(u128::from(capacity) * u128::from(per_mille) / 1_000).unwrap_or(u64::MAX)
        };
        let small = capacity < SMALL_BYTES;
        let auto = |per_mille: u64, least: u64, most: u64| match small {
            true => share(per_mille),
            false => share(per_mille).clamp(least, most),
        };
        let full = options.full.unwrap_or_else(|| auto(40, GIB / 2, 20 * GIB)).min(capacity);
        let high = options.high.unwrap_or_else(|| auto(80, GIB, 50 * GIB)).clamp(full, capacity);
        let low = options.low.unwrap_or_else(|| auto(150, 2 * GIB, 100 * GIB));
        let (hysteresis, reserve, horizon) = match small {
            true => (share(20), share(10).min(64 * MIB), 5),
            false => (share(20).max(256 * MIB), share(5).clamp(64 * MIB, GIB), 600),
        };
        DiskMarks {
            capacity,
            low: low.clamp(high, capacity),
            high,
            full,
            hysteresis,
            reserve,
            horizon: options.horizon.unwrap_or(Duration::from_secs(horizon)),
        }
    }

    /// The level of a disk with so many bytes free.
    pub fn level(&self, available: u64) -> DiskLevel {
        match available {
            _ if available <= self.full => DiskLevel::Full,
            _ if available <= self.high => DiskLevel::High,
            _ if available <= self.low => DiskLevel::Low,
            _ => DiskLevel::Normal,
        }
    }

    /// Where a level begins; 0 for those that no measurement begins.
    pub fn begins(&self, level: DiskLevel) -> u64 {
        match level {
            DiskLevel::Normal | DiskLevel::Emergency => 0,
            DiskLevel::Low => self.low,
            DiskLevel::High => self.high,
            DiskLevel::Full => self.full,
        }
    }

    /// Bytes a second that may come in beside what is reclaimed: what is free above FULL, over the
    /// horizon.
    pub fn slope_bps(&self, available: u64) -> u64 {
        let room = u128::from(available.saturating_sub(self.full)) * 1_000;
        u64::try_from(room / self.horizon.as_millis().max(1)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn auto(capacity: u64) -> DiskMarks {
        DiskMarks::of(capacity, &DiskOptions::default())
    }

    #[test]
    fn a_small_disk_has_shares_and_a_large_one_bounds() {
        let small = auto(1_000_000);
        assert_eq!((small.low, small.high, small.full), (150_000, 80_000, 40_000));
        assert_eq!((small.hysteresis, small.reserve), (20_000, 10_000));
        assert_eq!(small.horizon, Duration::from_secs(5));
        let four_tib = auto(4 << 40);
        assert_eq!((four_tib.low, four_tib.high, four_tib.full), (100 * GIB, 50 * GIB, 20 * GIB));
        assert_eq!((four_tib.reserve, four_tib.horizon), (GIB, Duration::from_secs(600)));
        let twenty_gib = auto(20 * GIB);
        assert_eq!((twenty_gib.low, twenty_gib.high), (3 * GIB, 20 * GIB * 80 / 1_000));
        assert_eq!(twenty_gib.hysteresis, 20 * GIB / 50);
    }

    #[test]
    fn the_slope_spends_the_room_above_full_over_the_horizon() {
        let marks = auto(1_000_000);
        assert_eq!(marks.slope_bps(80_000), 8_000);
        assert_eq!(marks.slope_bps(40_000), 0);
        let set = DiskOptions { horizon: Some(Duration::from_secs(60)), ..DiskOptions::default() };
        assert_eq!(DiskMarks::of(1_000_000, &set).slope_bps(100_000), 1_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_order_of_the_marks_holds_whatever_is_set(
            capacity in prop_oneof![0u64..1 << 20, 1u64 << 30..1 << 50],
            low in prop::option::of(any::<u64>()),
            high in prop::option::of(0u64..1 << 40),
            full in prop::option::of(any::<u64>()),
        ) {
            let options = DiskOptions { low, high, full, ..DiskOptions::default() };
            let marks = DiskMarks::of(capacity, &options);
            prop_assert!(marks.full <= marks.high && marks.high <= marks.low);
            prop_assert!(marks.low <= capacity);
            prop_assert_eq!(marks.level(marks.full), DiskLevel::Full);
        }
    }
}
