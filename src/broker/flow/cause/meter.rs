//! How long each cause was binding: the history behind one `limited_by`.
//!
//! Setting the cause that is set already is one load, so whoever refuses may set it each time. Only
//! a change takes the lock.
//!
//! # Invariants
//! - At any moment one cause is binding, or none.
//! - The shares of the last minute sum up to at most 1,000 per mille.
//! - Totals never shrink.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Cause, CauseId};

const SLOT_MS: u64 = 5_000;
/// A minute, the slot that is being filled included.
const SLOTS: usize = 12;
/// Causes one slot can tell apart; of a fifth the shortest is forgotten.
const SLOT_CAUSES: usize = 4;

/// The history of one party.
#[derive(Debug)]
pub struct CauseMeter {
    now: AtomicU32,
    history: Mutex<History>,
}

/// A cause that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was binding.
    pub from: CauseId,
    /// What is binding now.
    pub to: CauseId,
    /// How long `from` was.
    pub after: Duration,
}

#[derive(Debug)]
struct History {
    born: Duration,
    since: Duration,
    /// Up to here `slots` and `totals` are right.
    counted_to: Duration,
    slots: [Slot; SLOTS],
    /// Milliseconds by [`Cause`], only of those that ever were binding.
    totals: Vec<(Cause, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Number of the 5 seconds it counts.
    number: u64,
    causes: [CauseId; SLOT_CAUSES],
    ms: [u16; SLOT_CAUSES],
}

impl CauseMeter {
    /// A party that is not limited, from `now` on.
    pub fn new(now: Duration) -> CauseMeter {
        let history = History {
            born: now,
            since: now,
            counted_to: now,
            slots: [Slot::default(); SLOTS],
            totals: Vec::new(),
        };
        CauseMeter { now: AtomicU32::new(0), history: Mutex::new(history) }
    }

    /// From now on `cause` is binding. Returns the edge, if it is one.
    pub fn set(&self, cause: CauseId, now: Duration) -> Option<Change> {
        if self.now.load(Ordering::Relaxed) == cause.bits() {
            return None;
        }
        let mut history = self.history();
        let from = self.binding();
        if from == cause {
            return None;
        }
        history.count(from, now);
        let after = now.saturating_sub(history.since);
        history.since = now;
        self.now.store(cause.bits(), Ordering::Relaxed);
        Some(Change { from, to: cause, after })
    }

    /// From now on nothing is binding. Returns the edge, if it is one.
    pub fn clear(&self, now: Duration) -> Option<Change> {
        self.set(CauseId::NONE, now)
    }

    /// Whether nothing is binding: one load.
    pub fn is_clear(&self) -> bool {
        self.binding() == CauseId::NONE
    }

    /// What is binding, and since when; the moment means nothing when nothing is.
    pub fn current(&self) -> (CauseId, Duration) {
        let history = self.history();
        (self.binding(), history.since)
    }

    /// Which part of the last minute (or of its life, when that is shorter) each cause was
    /// binding, in per mille, largest first.
    pub fn shares(&self, now: Duration) -> Vec<(CauseId, u16)> {
        let mut history = self.history();
        history.count(self.binding(), now);
        history.shares(now)
    }

    /// For how many milliseconds each cause was binding since the start.
    pub fn totals_ms(&self, now: Duration) -> Vec<(Cause, u64)> {
        let mut history = self.history();
        history.count(self.binding(), now);
        history.totals.clone()
    }

    fn binding(&self) -> CauseId {
        CauseId::from_bits(self.now.load(Ordering::Relaxed))
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// Counts the time since the last count for `cause`.
    fn count(&mut self, cause: CauseId, now: Duration) {
        let (from, to) = (millis(self.counted_to), millis(now));
        if to <= from {
            return;
        }
        self.counted_to = now;
        let Some(kind) = cause.cause() else { return };
        match self.totals.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, total)) => *total += to - from,
            None => self.totals.push((kind, to - from)),
        }
        let oldest = (to / SLOT_MS).saturating_sub(SLOTS as u64 - 1);
        let mut at = from.max(oldest * SLOT_MS);
        while at < to {
            let number = at / SLOT_MS;
            let end = to.min((number + 1) * SLOT_MS);
            if let Some(slot) = self.slots.get_mut((number % SLOTS as u64) as usize) {
                slot.count(number, cause, end - at);
            }
            at = end;
        }
    }

    fn shares(&self, now: Duration) -> Vec<(CauseId, u16)> {
        let number = millis(now) / SLOT_MS;
        let oldest = number.saturating_sub(SLOTS as u64 - 1);
        let seen = millis(now) - (oldest * SLOT_MS).max(millis(self.born)).min(millis(now));
        let mut sums: Vec<(CauseId, u64)> = Vec::new();
        for slot in self.slots.iter().filter(|slot| (oldest..=number).contains(&slot.number)) {
            for (cause, ms) in slot.causes.iter().zip(slot.ms).filter(|(_, ms)| *ms > 0) {
                match sums.iter_mut().find(|(known, _)| known == cause) {
                    Some((_, sum)) => *sum += u64::from(ms),
                    None => sums.push((*cause, u64::from(ms))),
                }
            }
        }
        sums.sort_by_key(|(cause, ms)| (std::cmp::Reverse(*ms), *cause));
        let share = |ms: u64| u16::try_from(ms * 1_000 / seen.max(1)).unwrap_or(1_000).min(1_000);
        sums.into_iter().map(|(cause, ms)| (cause, share(ms))).collect()
    }
}

impl Slot {
    fn count(&mut self, number: u64, cause: CauseId, ms: u64) {
        if self.number != number {
            *self = Slot { number, ..Slot::default() };
        }
        // Its own place, else an empty one, else that of the shortest.
        let places = self.causes.iter_mut().zip(self.ms.iter_mut());
        let place = places.min_by_key(|(known, sum)| (**known != cause, **sum));
        if let Some((known, sum)) = place {
            if *known != cause {
                (*known, *sum) = (cause, 0);
            }
            *sum = sum.saturating_add(u16::try_from(ms).unwrap_or(u16::MAX));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(cause: Cause) -> CauseId {
        cause.into()
    }

    #[test]
    fn the_same_cause_again_is_no_edge() {
        let meter = CauseMeter::new(s(0));
        let came = meter.set(id(Cause::Pool), s(1)).expect("an edge");
        assert_eq!((came.from, came.to, came.after), (CauseId::NONE, id(Cause::Pool), s(1)));
        assert_eq!(meter.set(id(Cause::Pool), s(3)), None);
        assert_eq!(meter.current(), (id(Cause::Pool), s(1)));
        assert_eq!(meter.clear(s(4)).map(|went| went.after), Some(s(3)));
        assert_eq!((meter.clear(s(5)), meter.current().0), (None, CauseId::NONE));
    }

    #[test]
    fn shares_are_those_of_the_last_minute() {
        let meter = CauseMeter::new(s(0));
        meter.set(id(Cause::Quota), s(1_000));
        meter.set(id(Cause::Fsync), s(1_045));
        meter.clear(s(1_057));
        assert_eq!(meter.shares(s(1_059)), [(id(Cause::Quota), 762), (id(Cause::Fsync), 203)]);
        assert_eq!(meter.shares(s(1_100)), [(id(Cause::Fsync), 218)]);
        assert_eq!(meter.shares(s(1_200)), []);
        assert_eq!(meter.totals_ms(s(1_200)), [(Cause::Quota, 45_000), (Cause::Fsync, 12_000)]);
    }

    #[test]
    fn what_is_still_binding_counts_up_to_now() {
        let meter = CauseMeter::new(s(10));
        meter.set(id(Cause::Backlog), s(12));
        assert_eq!(meter.shares(s(20)), [(id(Cause::Backlog), 800)], "of a life of 10 s");
        assert_eq!(meter.shares(s(10_000)), [(id(Cause::Backlog), 1_000)]);
        assert_eq!(meter.totals_ms(s(10_000)), [(Cause::Backlog, 9_988_000)]);
    }

    #[test]
    fn of_five_causes_in_one_slot_the_shortest_is_forgotten() {
        let meter = CauseMeter::new(s(0));
        let at = Duration::from_millis;
        let causes = [Cause::Pool, Cause::Grant, Cause::Fsync, Cause::Quota, Cause::Window];
        let mut now = 0;
        for (cause, ms) in causes.into_iter().zip([500, 100, 700, 400, 300]) {
            meter.set(id(cause), at(now));
            now += ms;
        }
        let shares = meter.shares(at(2_000));
        assert_eq!(shares[0], (id(Cause::Fsync), 350));
        assert!(shares.iter().all(|(cause, _)| *cause != id(Cause::Grant)));
        assert_eq!(meter.totals_ms(at(2_000)).len(), 5, "totals forget nothing");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn shares_never_exceed_the_whole_and_totals_are_the_time_limited(
            steps in prop::collection::vec((0usize..5, 0u64..20_000), 1..80),
        ) {
            let meter = CauseMeter::new(s(0));
            let mut now = Duration::ZERO;
            let mut limited = 0;
            for (pick, ms) in steps {
                let cause = Cause::ALL.get(pick).filter(|_| pick < 4);
                meter.set(cause.map_or(CauseId::NONE, |cause| id(*cause)), now);
                now += Duration::from_millis(ms);
                limited += if cause.is_some() { ms } else { 0 };
                let shares = meter.shares(now);
                prop_assert!(shares.iter().map(|(_, share)| u32::from(*share)).sum::<u32>() <= 1_000);
            }
            prop_assert_eq!(meter.totals_ms(now).iter().map(|(_, ms)| ms).sum::<u64>(), limited);
        }
    }
}
