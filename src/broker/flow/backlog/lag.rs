//! Records, bytes and seconds behind an offset of one partition, without reading the log.
//!
//! The ring keeps when the partition ended where: a sample per look, thinned with age. Between two
//! samples it counts as if records had come evenly.
//!
//! # Invariants
//! - At most [`SAMPLES_MAX`] samples, of rising time and not falling end.
//! - Records are exact. Age and bytes are exact at samples, so an age is off by at most the time
//!   between two of them: one look, or a quarter of a second, for what is young.
//! - None of the three rises with the offset.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::Offset;

/// Samples of one partition: 6 KiB, half a minute in full and the rest thinner.
const SAMPLES_MAX: usize = 256;
/// Looks closer than this leave one sample between them.
const SPACING_MS: i64 = 250;

/// What lies between an offset and the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
    /// Age of the first record.
    pub age: Duration,
}

impl Lag {
    /// Of two partitions together: records and bytes add up, the older age counts.
    #[must_use]
    pub fn and(self, other: Lag) -> Lag {
        Lag {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
            age: self.age.max(other.age),
        }
    }
}

/// Where one partition ended when.
#[derive(Clone, Debug, Default)]
pub struct LagRing {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Milliseconds of the monotonic clock; before its zero for what was there at the start.
    at_ms: i64,
    end: i64,
    bytes: u64,
}

impl LagRing {
    /// A ring that knows nothing.
    pub fn new() -> LagRing {
        LagRing::default()
    }

    /// What was there at the start, oldest first: `age` ago the partition ended at `end`, with
    /// `bytes` before it. From the ages of sealed segments; the first is where the log begins.
    pub fn seed(&mut self, age: Duration, end: Offset, bytes: u64, now: Duration) {
        self.push(Sample { at_ms: millis(now).saturating_sub(millis(age)), end: end.0, bytes });
    }

    /// The log begins at `start`, when nothing older is known: its first records are as old as the
    /// look that finds them.
    pub(super) fn seed_start(&mut self, start: Offset, now: Duration) {
        if self.samples.is_empty() {
            self.push(Sample { at_ms: millis(now), end: start.0, bytes: 0 });
        }
    }

    /// Records and bytes between the oldest and the newest sample.
    pub(super) fn span(&self) -> (u64, u64) {
        let ends = self.samples.front().zip(self.samples.back());
        ends.map_or((0, 0), |(first, last)| {
            (last.end.abs_diff(first.end), last.bytes.saturating_sub(first.bytes))
        })
    }

    /// Now the partition ends at `end`, with `bytes` ever written to it (retention takes nothing
    /// away from them).
    pub fn note(&mut self, now: Duration, end: Offset, bytes: u64) {
        let mut newest_first = self.samples.iter().rev().map(|sample| sample.at_ms);
        if let (Some(last), Some(before)) = (newest_first.next(), newest_first.next())
            && last.saturating_sub(before) < SPACING_MS
            && millis(now) > last
        {
            self.samples.pop_back();
        }
        self.push(Sample { at_ms: millis(now), end: end.0, bytes });
    }

    /// What lies behind `committed` at `now`.
    pub fn lag(&self, committed: Offset, now: Duration) -> Lag {
        let Some(last) = self.samples.back().filter(|last| last.end > committed.0) else {
            return Lag::default();
        };
        let records = u64::try_from(last.end.saturating_sub(committed.0)).unwrap_or(0);
        let behind = self.samples.partition_point(|sample| sample.end <= committed.0);
        let Some(after) = self.samples.get(behind) else { return Lag::default() };
        let (at_ms, bytes) = match behind.checked_sub(1).and_then(|at| self.samples.get(at)) {
            Some(before) => between(before, after, committed.0),
            None => (after.at_ms, after.bytes),
        };
        let age_ms = u64::try_from(millis(now).saturating_sub(at_ms)).unwrap_or(0);
        let bytes = last.bytes.saturating_sub(bytes);
        Lag { records, bytes, age: Duration::from_millis(age_ms) }
    }

    fn push(&mut self, new: Sample) {
        let mut newest_first = self.samples.iter().rev();
        let (last, before) = (newest_first.next().copied(), newest_first.next().copied());
        if last.is_some_and(|last| new.end < last.end || new.at_ms < last.at_ms) {
            return;
        }
        // Of a quiet stretch its begin and its end say all.
        let quiet = |sample: Option<Sample>| sample.is_some_and(|sample| sample.end == new.end);
        if quiet(last) && quiet(before) {
            self.samples.pop_back();
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.thin();
        }
        self.samples.push_back(new);
    }

    /// Drops every second sample of the older half; the oldest stays.
    fn thin(&mut self) {
        let half = self.samples.len() / 2;
        let mut at = 0;
        self.samples.retain(|_| {
            at += 1;
            at > half || at % 2 == 1
        });
    }
}

/// Time and bytes at `offset`, which lies in `[before.end, after.end)`.
fn between(before: &Sample, after: &Sample, offset: i64) -> (i64, u64) {
    let part = u128::from(before.end.abs_diff(offset));
    let whole = u128::from(before.end.abs_diff(after.end)).max(1);
    let scale = |size: u64| u64::try_from(u128::from(size) * part / whole).unwrap_or(u64::MAX);
    let ms = scale(before.at_ms.abs_diff(after.at_ms));
    let bytes = scale(after.bytes.saturating_sub(before.bytes));
    (before.at_ms.saturating_add_unsigned(ms), before.bytes.saturating_add(bytes))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lag_is_what_lies_behind_the_committed_offset() {
        let mut ring = LagRing::new();
        for second in 0..=10u64 {
            ring.note(s(second), Offset(second as i64 * 100), second * 1_000);
        }
        let lag = Lag { records: 250, bytes: 2_500, age: Duration::from_millis(3_500) };
        assert_eq!(ring.lag(Offset(750), s(11)), lag);
        assert_eq!(ring.lag(Offset(1_000), s(11)), Lag::default());
        assert_eq!(ring.lag(Offset(9_999), s(11)), Lag::default());
    }

    #[test]
    fn a_quiet_stretch_costs_two_samples_and_its_records_are_young() {
        let mut ring = LagRing::new();
        ring.note(s(0), Offset(10), 100);
        (1..=1_000).for_each(|second| ring.note(s(second), Offset(10), 100));
        ring.note(s(1_001), Offset(20), 200);
        assert_eq!(ring.samples.len(), 3);
        assert_eq!(ring.lag(Offset(10), s(1_002)).age, s(2));
    }

    #[test]
    fn what_was_there_at_the_start_has_its_age() {
        let mut ring = LagRing::new();
        let now = s(5);
        ring.seed(s(3_600), Offset(100), 0, now);
        ring.seed(s(1_800), Offset(200), 1_000, now);
        ring.note(now, Offset(300), 2_000);
        assert_eq!(ring.lag(Offset(150), now), Lag { records: 150, bytes: 1_500, age: s(2_700) });
        assert_eq!(ring.lag(Offset(0), now).age, s(3_600), "at least so old");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn ages_are_right_to_one_look_and_nothing_rises_with_the_offset(
            looks in prop::collection::vec(0i64..50, 1..200), after in 0u64..5,
        ) {
            let mut ring = LagRing::new();
            ring.note(s(0), Offset(0), 0);
            let mut written: Vec<u64> = Vec::new();
            for (second, count) in (1u64..).zip(&looks) {
                written.extend(vec![second; *count as usize]);
                ring.note(s(second), Offset(written.len() as i64), written.len() as u64 * 7);
            }
            let now = s(looks.len() as u64 + after);
            let mut before = Lag { records: u64::MAX, bytes: u64::MAX, age: Duration::MAX };
            for (offset, second) in written.iter().enumerate() {
                let lag = ring.lag(Offset(offset as i64), now);
                prop_assert_eq!(lag.records, (written.len() - offset) as u64);
                prop_assert_eq!(lag.bytes, lag.records * 7);
                let age = now - s(*second);
                let off = lag.age.abs_diff(age);
                prop_assert!(off <= s(1), "{:?} for {:?}", lag.age, age);
                prop_assert!(lag.bytes <= before.bytes && lag.age <= before.age);
                before = lag;
            }
        }

        #[test]
        fn thinning_bounds_the_ring_and_keeps_records_exact(looks in 300usize..3_000) {
            let mut ring = LagRing::new();
            (0..looks).for_each(|look| ring.note(s(look as u64), Offset(look as i64), 0));
            prop_assert!(ring.samples.len() <= SAMPLES_MAX);
            let last = looks as i64 - 1;
            for offset in [0, last / 3, last / 2, last - 1] {
                let lag = ring.lag(Offset(offset), s(last as u64));
                prop_assert_eq!(lag.records as i64, last - offset);
                prop_assert!(lag.age.as_secs().abs_diff((last - offset) as u64) <= 1);
            }
        }
    }
}
