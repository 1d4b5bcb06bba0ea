//! The last changes of what limits whom: for `pressure --history`, and for the log of them that
//! subscribers read.
//!
//! # Invariants
//! At most the given number is kept; of what a reader comes too late for it is told how much.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{PressureEvent, Timestamp};

/// Events, newest last.
#[derive(Debug)]
pub struct Events {
    kept_max: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<PressureEvent>,
    /// Number of the oldest that is kept.
    first: u64,
}

/// What a reader that follows gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Events, oldest first.
    pub events: Vec<PressureEvent>,
    /// Where to go on.
    pub next: u64,
    /// How many were gone before they were read.
    pub missed: u64,
}

impl Events {
    /// Keeps at most this many: about 300 bytes each.
    pub fn new(kept_max: usize) -> Events {
        Events { kept_max: kept_max.max(1), ring: Mutex::default() }
    }

    /// Adds one.
    pub fn push(&self, event: PressureEvent) {
        let mut ring = self.ring();
        if ring.events.len() >= self.kept_max {
            ring.events.pop_front();
            ring.first += 1;
        }
        ring.events.push_back(event);
    }

    /// The newest `max` that are not older than `from`, oldest first.
    pub fn since(&self, from: Timestamp, max: usize) -> Vec<PressureEvent> {
        let ring = self.ring();
        let newest = ring.events.iter().rev().take_while(|event| event.at >= from).take(max);
        let mut events: Vec<_> = newest.cloned().collect();
        events.reverse();
        events
    }

    /// At most `max` from number `from` on; the first has number 0.
    pub fn follow(&self, from: u64, max: usize) -> Followed {
        let ring = self.ring();
        let missed = ring.first.saturating_sub(from);
        let at = from.max(ring.first);
        let skip = usize::try_from(at - ring.first).unwrap_or(usize::MAX);
        let events: Vec<_> = ring.events.iter().skip(skip).take(max).cloned().collect();
        Followed { next: at + events.len() as u64, events, missed }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entity, EntityKind};

    fn event(at: i64) -> PressureEvent {
        PressureEvent {
            at: Timestamp(at),
            entity: Entity::new(EntityKind::Topic, "orders"),
            from: "none".to_owned(),
            to: "pool".to_owned(),
            observed: 0,
            limit: 0,
            unit: String::new(),
            retry_after_ms: 0,
            note: String::new(),
        }
    }

    fn times(events: &[PressureEvent]) -> Vec<i64> {
        events.iter().map(|event| event.at.0).collect()
    }

    #[test]
    fn the_history_is_the_newest_that_are_young_enough() {
        let events = Events::new(4);
        (1..=6).for_each(|at| events.push(event(at)));
        assert_eq!(times(&events.since(Timestamp(0), 10)), [3, 4, 5, 6]);
        assert_eq!(times(&events.since(Timestamp(5), 10)), [5, 6]);
        assert_eq!(times(&events.since(Timestamp(0), 1)), [6]);
    }

    #[test]
    fn a_follower_gets_each_once_and_hears_of_those_it_missed() {
        let events = Events::new(3);
        (0..2).for_each(|at| events.push(event(at)));
        let one = events.follow(0, 10);
        assert_eq!((times(&one.events), one.next, one.missed), (vec![0, 1], 2, 0));
        assert_eq!(events.follow(one.next, 10), Followed { next: 2, ..Followed::default() });
        (2..9).for_each(|at| events.push(event(at)));
        let two = events.follow(one.next, 2);
        assert_eq!((times(&two.events), two.next, two.missed), (vec![6, 7], 8, 4));
        assert_eq!(times(&events.follow(two.next, 10).events), [8]);
    }
}
