//! The level of a disk over time: up at once, down one step after another.
//!
//! # Invariants
//! A level is never lower than what the free bytes say. One look takes it down by one step at most,
//! and only `clear_after` after the last step and the last look below `mark + hysteresis`.
//! EMERGENCY ends by itself.

use std::time::Duration;

use super::{DiskLevel, DiskMarks, DiskOptions};

/// A change of the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Before.
    pub from: DiskLevel,
    /// After.
    pub to: DiskLevel,
}

impl Edge {
    /// Whether `level` was entered from below, perhaps on the way to a higher one.
    pub fn enters(&self, level: DiskLevel) -> bool {
        self.from < level && level <= self.to
    }

    /// Whether `level` was left towards a lower one.
    pub fn leaves(&self, level: DiskLevel) -> bool {
        self.to < level && level <= self.from
    }
}

/// The machine of the levels.
#[derive(Clone, Debug)]
pub struct Ladder {
    options: DiskOptions,
    level: DiskLevel,
    /// Since when the next step down is earned.
    clear_since: Option<Duration>,
    /// When EMERGENCY ends, and how long it was.
    emergency_until: Duration,
    emergency_for: Duration,
}

impl Ladder {
    /// A ladder at its foot.
    pub fn new(options: &DiskOptions) -> Ladder {
        Ladder {
            options: *options,
            level: DiskLevel::Normal,
            clear_since: None,
            emergency_until: Duration::ZERO,
            emergency_for: Duration::ZERO,
        }
    }

    /// The level now.
    pub fn level(&self) -> DiskLevel {
        self.level
    }

    /// Takes one look at the disk.
    pub fn observe(&mut self, now: Duration, available: u64, marks: &DiskMarks) {
        let measured = marks.level(available);
        if self.level == DiskLevel::Emergency {
            if now < self.emergency_until {
                return;
            }
            // It was the time in which nothing came in that counts here, not that it was clear.
            self.level = DiskLevel::Full;
            self.clear_since = now.checked_sub(self.options.clear_after);
        }
        if measured > self.level {
            self.level = measured;
            self.clear_since = None;
        }
        if self.level == DiskLevel::Normal {
            return;
        }
        let clear = available > marks.begins(self.level).saturating_add(marks.hysteresis);
        let since = match self.clear_since {
            Some(since) if clear => since,
            _ => now,
        };
        self.clear_since = clear.then_some(since);
        if clear && now >= since + self.options.clear_after {
            self.level = below(self.level);
            self.clear_since = Some(now);
        }
    }

    /// A write met the end of the disk: EMERGENCY, for twice as long as the last time when that
    /// ended not longer ago than it lasted.
    pub fn exhausted(&mut self, now: Duration) {
        if self.level == DiskLevel::Emergency && now < self.emergency_until {
            return;
        }
        let back_at_once = !self.emergency_for.is_zero()
            && now < self.emergency_until.saturating_add(self.emergency_for);
        self.emergency_for = match back_at_once {
            true => (self.emergency_for * 2).min(self.options.emergency_max),
            false => self.options.emergency_min,
        };
        self.emergency_until = now.saturating_add(self.emergency_for);
        self.level = DiskLevel::Emergency;
        self.clear_since = None;
    }

    /// How long after a look the next one is due.
    pub fn next_look(&self) -> Duration {
        match self.level {
            DiskLevel::Normal => self.options.look_every,
            _ => self.options.look_under_pressure,
        }
    }
}

fn below(level: DiskLevel) -> DiskLevel {
    match level {
        DiskLevel::Normal | DiskLevel::Low => DiskLevel::Normal,
        DiskLevel::High => DiskLevel::Low,
        DiskLevel::Full | DiskLevel::Emergency => DiskLevel::High,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Marks at 150, 80 and 40 thousand; hysteresis 20 thousand.
    fn ladder() -> (Ladder, DiskMarks) {
        let options = DiskOptions::default();
        (Ladder::new(&options), DiskMarks::of(1_000_000, &options))
    }

    #[test]
    fn a_level_begins_at_once_wherever_the_disk_is() {
        let (mut ladder, marks) = ladder();
        ladder.observe(ms(0), 150_001, &marks);
        assert_eq!((ladder.level(), ladder.next_look()), (DiskLevel::Normal, ms(1_000)));
        ladder.observe(ms(1), 40_000, &marks);
        assert_eq!((ladder.level(), ladder.next_look()), (DiskLevel::Full, ms(250)));
    }

    #[test]
    fn levels_clear_one_step_at_a_time() {
        let (mut ladder, marks) = ladder();
        ladder.observe(ms(0), 10_000, &marks);
        let mut levels = Vec::new();
        for look in 1..=28 {
            ladder.observe(ms(look * 250), 900_000, &marks);
            levels.push(ladder.level());
        }
        let changes: Vec<_> = (1..levels.len()).filter(|n| levels[*n] != levels[n - 1]).collect();
        assert_eq!(changes, [8, 16, 24], "2 s each");
        assert_eq!(levels.last(), Some(&DiskLevel::Normal));
    }

    #[test]
    fn a_level_stays_until_its_hysteresis_is_passed_for_a_while() {
        let (mut ladder, marks) = ladder();
        ladder.observe(ms(0), 40_000, &marks);
        ladder.observe(ms(10_000), 60_000, &marks);
        ladder.observe(ms(11_000), 60_001, &marks);
        ladder.observe(ms(12_900), 60_000, &marks);
        ladder.observe(ms(13_000), 60_001, &marks);
        ladder.observe(ms(14_999), 60_001, &marks);
        assert_eq!(ladder.level(), DiskLevel::Full);
        ladder.observe(ms(15_000), 60_001, &marks);
        assert_eq!(ladder.level(), DiskLevel::High);
        ladder.observe(ms(60_000), 60_001, &marks);
        assert_eq!(ladder.level(), DiskLevel::High, "still below its own mark");
    }

    #[test]
    fn an_emergency_ends_by_itself_and_lasts_longer_when_it_comes_back() {
        let (mut ladder, marks) = ladder();
        let mut lasted = Vec::new();
        let mut now = ms(0);
        for _ in 0..7 {
            ladder.exhausted(now);
            let since = now;
            while ladder.level() == DiskLevel::Emergency {
                now += ms(250);
                ladder.exhausted(now.min(since + ms(1_000)));
                ladder.observe(now, 500_000, &marks);
            }
            assert_eq!(ladder.level(), DiskLevel::High, "there is room");
            lasted.push((now - since).as_secs());
        }
        assert_eq!(lasted, [2, 4, 8, 16, 30, 30, 30]);
        now += ms(60_000);
        ladder.exhausted(now);
        ladder.observe(now + ms(2_000), 30_000, &marks);
        assert_eq!(ladder.level(), DiskLevel::Full, "short again, but the disk is full");
    }

    #[test]
    fn an_edge_enters_what_it_passes() {
        let up = Edge { from: DiskLevel::Normal, to: DiskLevel::Full };
        assert!(up.enters(DiskLevel::Low) && up.enters(DiskLevel::Full));
        assert!(!up.enters(DiskLevel::Normal) && !up.leaves(DiskLevel::Low));
        let down = Edge { from: DiskLevel::Low, to: DiskLevel::Normal };
        assert!(down.leaves(DiskLevel::Low) && !down.leaves(DiskLevel::High));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_level_is_below_the_disk_and_every_step_down_takes_its_time(
            steps in prop::collection::vec((0u64..3_000, 0u64..250_000, 0u8..20), 1..200),
        ) {
            let (mut ladder, marks) = ladder();
            let (mut now, mut last_change) = (ms(0), ms(0));
            for (pause, available, exhausted) in steps {
                now += ms(pause);
                let before = ladder.level();
                if exhausted == 0 {
                    ladder.exhausted(now);
                }
                ladder.observe(now, available, &marks);
                let level = ladder.level();
                prop_assert!(level >= marks.level(available));
                if level < before {
                    prop_assert!(now >= last_change + ms(2_000));
                    prop_assert!(before == DiskLevel::Emergency || below(before) == level);
                }
                if level != before {
                    last_change = now;
                }
            }
        }
    }
}
