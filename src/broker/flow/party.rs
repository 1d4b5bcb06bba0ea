//! One that limits or is limited: who it is, what limits it, what was measured, and when that is
//! worth telling.
//!
//! # Invariants
//! - Admitting whoever is not limited costs one load: no lock, no allocation.
//! - A refusal that nobody comes back for ends by itself: it is no state.
//! - Who is told of as limited was so for its settling time, pauses shorter than [`Settling::gone`]
//!   not counted; who is told of as free was free for as long.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cause::{Cause, CauseId, CauseMeter, Names};
use crate::types::{Entity, EntityKind, PressureEvent, Pushback, Timestamp};

/// What was measured when something was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// What was measured, in `unit`.
    pub observed: u64,
    /// The limit, in `unit`; 0 = none is known.
    pub limit: u64,
    /// Unit of both.
    pub unit: &'static str,
    /// When it ends, where that is known; monotonic time.
    pub until: Option<Duration>,
}

/// Units that refusals are told in.
const UNITS: [&str; 12] = [
    "bytes",
    "bytes free",
    "records",
    "ms",
    "segments",
    "connections",
    "requests",
    "bytes/s",
    "records/s",
    "requests/s",
    "connections/s",
    "partitions/s",
];

impl Numbers {
    /// What a refusal says. A unit nobody has heard of is left out.
    pub fn of(told: &Pushback, now: Duration) -> Numbers {
        let unit = UNITS.into_iter().find(|unit| *unit == told.unit).unwrap_or("");
        let wait = Duration::from_millis(u64::from(told.retry_after_ms));
        let until = (!wait.is_zero()).then(|| now.saturating_add(wait));
        Numbers { observed: told.observed, limit: told.limit, unit, until }
    }
}

/// One that limits or is limited.
#[derive(Debug)]
pub struct Party {
    pub(super) id: u64,
    entity: Entity,
    parents: Vec<Arc<Party>>,
    topic: Option<Arc<str>>,
    meter: CauseMeter,
    numbers: Mutex<Numbers>,
    /// When it was refused last, in nanoseconds and one more; 0 = what limits it is a state, which
    /// ends when it is said to.
    refused_ns: AtomicU64,
    /// Whether `told` is of any interest.
    stirred: AtomicBool,
    told: Mutex<Told>,
    /// Its waits: see [`super::Waits`].
    pub(super) waiting: AtomicU32,
}

/// What was told of a party, and what is not yet.
#[derive(Debug, Default)]
struct Told {
    told: CauseId,
    /// The cause seen last, and since when.
    seen: Option<(CauseId, Duration)>,
    /// Since when it is limited by anything, short pauses left out.
    limited_since: Duration,
    /// When it was limited last.
    limited_at: Duration,
}

/// How long after the end of its wait a refused caller is waited for: clients add up to 30 % to a
/// wait, and a process may pause.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(2);
/// How long a refusal without a time is taken as limiting.
const WITHOUT_TIME: Duration = Duration::from_secs(10);

impl Party {
    pub(super) fn new(
        id: u64,
        entity: Entity,
        parents: Vec<Arc<Party>>,
        topic: Option<&str>,
        now: Duration,
    ) -> Party {
        Party {
            id,
            entity,
            parents,
            topic: topic.map(Arc::from),
            meter: CauseMeter::new(now),
            numbers: Mutex::default(),
            refused_ns: AtomicU64::new(0),
            stirred: AtomicBool::new(false),
            told: Mutex::default(),
            waiting: AtomicU32::new(0),
        }
    }

    /// One that is in no list.
    pub(super) fn alone(entity: Entity) -> Party {
        Party::new(0, entity, Vec::new(), None, Duration::ZERO)
    }

    /// Who it is.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Whose it is: the connection and the group of a subscription, the client of a connection.
    pub fn parents(&self) -> &[Arc<Party>] {
        &self.parents
    }

    /// The topic it writes or reads.
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// Its history of causes.
    pub fn meter(&self) -> &CauseMeter {
        &self.meter
    }

    /// What was measured last.
    pub fn numbers(&self) -> Numbers {
        *lock(&self.numbers)
    }

    /// What limits it, and since when: pauses shorter than [`Settling::gone`] do not count.
    pub fn binding(&self) -> (CauseId, Duration) {
        let (cause, since) = self.meter.current();
        let seen = lock(&self.told).seen.filter(|(seen, _)| *seen == cause);
        (cause, seen.map_or(since, |(_, from)| from.min(since)))
    }

    /// It is limited, by this much, until [`Party::free`].
    pub fn limited(&self, cause: CauseId, numbers: Numbers, now: Duration) {
        self.refused_ns.store(0, Ordering::Relaxed);
        self.bind(cause, numbers, now);
    }

    /// It is limited as with [`Party::limited`]; but who was refused for the same waits on when the
    /// state ends, until it is admitted.
    pub fn held(&self, cause: CauseId, numbers: Numbers, now: Duration) {
        if self.is_state() || self.meter.current().0 != cause {
            self.limited(cause, numbers, now);
        }
    }

    /// It was refused, by this much: limited until it is admitted, or comes no more.
    pub fn refused(&self, cause: CauseId, numbers: Numbers, now: Duration) {
        self.refused_ns.store(nanos(now), Ordering::Relaxed);
        self.bind(cause, numbers, now);
    }

    /// Whether what limits it, if anything does, lasts until it is said to end.
    pub(super) fn is_state(&self) -> bool {
        self.refused_ns.load(Ordering::Relaxed) == 0
    }

    /// It is not limited. One load when it was not before.
    pub fn free(&self, now: Duration) {
        self.meter.clear(now);
    }

    /// It is no longer limited by what is of this kind, whether that was a state or a refusal.
    pub fn free_of(&self, cause: Cause, now: Duration) {
        if !self.meter.is_clear() && self.meter.current().0.cause() == Some(cause) {
            self.free(now);
        }
    }

    /// What it handed in at `since` was admitted. An admission from before the last refusal says
    /// nothing, and none ends a state. One load when nothing limited it.
    pub fn admitted(&self, since: Duration, now: Duration) {
        if self.meter.is_clear() {
            return;
        }
        let refused_ns = self.refused_ns.load(Ordering::Relaxed);
        if refused_ns > 0 && refused_ns <= nanos(since) {
            self.meter.clear(now);
        }
    }

    /// Ends a refusal whose caller did not come back.
    pub(super) fn expire(&self, now: Duration) {
        let refused = match self.refused_ns.load(Ordering::Relaxed) {
            0 => return,
            nanos => Duration::from_nanos(nanos - 1),
        };
        if self.meter.is_clear() {
            return;
        }
        let patience = match self.numbers().until {
            None => WITHOUT_TIME,
            Some(until) => {
                let wait = until.saturating_sub(refused);
                wait + wait * 3 / 10 + COMES_BACK_WITHIN
            }
        };
        if refused + patience <= now {
            self.meter.clear(now);
        }
    }

    /// What is to be told of it and was not, if anything. Told only when [`Party::tell`] is called.
    pub(super) fn untold(&self, settling: Settling, now: Duration) -> Option<CauseId> {
        if self.meter.is_clear() && !self.stirred.load(Ordering::Relaxed) {
            return None;
        }
        self.stirred.store(true, Ordering::Relaxed);
        let (cause, since) = self.meter.current();
        let mut told = lock(&self.told);
        if cause == CauseId::NONE {
            if told.seen.is_some() && now.saturating_sub(told.limited_at) < settling.gone {
                return None;
            }
            told.seen = None;
            self.stirred.store(told.told != CauseId::NONE, Ordering::Relaxed);
            return (told.told != CauseId::NONE).then_some(CauseId::NONE);
        }
        if told.seen.is_none() {
            told.limited_since = since;
        }
        if told.seen.is_none_or(|(seen, _)| seen != cause) {
            told.seen = Some((cause, since));
        }
        told.limited_at = now;
        let settle = settling.of(self.entity.kind);
        let (from, settle) = match (told.told, told.seen) {
            (CauseId::NONE, _) | (_, None) => (told.limited_since, settle),
            // From one cause to another: not at each of two that take turns.
            (_, Some((_, from))) => (from, settle.max(settling.gone)),
        };
        (told.told != cause && now.saturating_sub(from) >= settle).then_some(cause)
    }

    /// Marks it as told; what was told before.
    pub(super) fn tell(&self, to: CauseId) -> CauseId {
        std::mem::replace(&mut lock(&self.told).told, to)
    }

    fn bind(&self, cause: CauseId, numbers: Numbers, now: Duration) {
        *lock(&self.numbers) = numbers;
        self.meter.set(cause, now);
    }
}

/// How long a cause lasts before it is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settling {
    /// Of a client, a connection, a publisher, a log writer: they block and go on many times a
    /// second.
    pub party: Duration,
    /// Of a subscription: less is a pause of its process.
    pub subscription: Duration,
    /// How long nothing limits before that is an event: who is let through one batch at a time is
    /// limited all the while.
    pub gone: Duration,
}

impl Default for Settling {
    fn default() -> Settling {
        Settling {
            party: Duration::from_secs(1),
            subscription: Duration::from_secs(10),
            gone: Duration::from_secs(1),
        }
    }
}

impl Settling {
    fn of(self, kind: EntityKind) -> Duration {
        match kind {
            EntityKind::Subscription => self.subscription,
            EntityKind::Publisher
            | EntityKind::Connection
            | EntityKind::Client
            | EntityKind::Writer => self.party,
            _ => Duration::ZERO,
        }
    }
}

/// A cause that came or went.
#[derive(Clone, Debug)]
pub struct PressureEdge {
    /// Whose.
    pub party: Arc<Party>,
    /// What was told last.
    pub from: CauseId,
    /// What is binding now.
    pub to: CauseId,
}

impl PressureEdge {
    /// As it is told. `at` is the wall clock's `now`.
    pub fn event(&self, names: &Names, at: Timestamp, now: Duration) -> PressureEvent {
        let numbers = self.party.numbers();
        let wait = numbers.until.filter(|_| self.to != CauseId::NONE);
        let wait_ms = wait.map_or(0, |until| until.saturating_sub(now).as_millis());
        PressureEvent {
            at,
            entity: self.party.entity.clone(),
            from: names.text(self.from),
            to: names.text(self.to),
            observed: numbers.observed,
            limit: numbers.limit,
            unit: numbers.unit.to_owned(),
            retry_after_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX),
            note: String::new(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Plain values; a panic between two of them leaves the next look to correct them.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PushbackCode, PushbackScope};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn publisher() -> Party {
        Party::new(0, Entity::new(EntityKind::Publisher, "p"), vec![], None, s(0))
    }

    const QUOTA: Cause = Cause::Quota;

    #[test]
    fn a_refusal_gives_its_numbers_and_the_moment_it_ends() {
        let told = Pushback::hold(PushbackCode::BacklogLimit, PushbackScope::Group, "backlog:g")
            .met(7, 5, "records");
        let numbers = Numbers { observed: 7, limit: 5, unit: "records", until: None };
        assert_eq!(Numbers::of(&told, s(3)), numbers);
        let told = told.after_ms(2_000);
        assert_eq!(Numbers::of(&told, s(3)), Numbers { until: Some(s(5)), ..numbers });
        assert_eq!(Numbers::of(&told.met(7, 5, "furlongs"), s(3)).unit, "");
    }

    #[test]
    fn what_was_admitted_before_a_refusal_does_not_free() {
        let party = publisher();
        party.refused(QUOTA.into(), Numbers::default(), ms(20));
        party.admitted(ms(10), ms(25));
        assert_eq!(party.meter().current().0, QUOTA.into());
        party.admitted(ms(20), ms(30));
        assert!(party.meter().is_clear());
    }

    #[test]
    fn a_state_ends_by_no_admission_and_leaves_who_was_refused_for_it_waiting() {
        let party = publisher();
        let held = |at| party.held(QUOTA.into(), Numbers::default(), ms(at));
        held(10);
        party.admitted(ms(15), ms(15));
        assert_eq!((party.meter().current(), party.is_state()), ((QUOTA.into(), ms(10)), true));
        party.refused(QUOTA.into(), Numbers::default(), ms(20));
        held(25);
        assert!(!party.is_state() && !party.meter().is_clear());
        party.admitted(ms(30), ms(30));
        assert!(party.meter().is_clear());
        held(35);
        party.free_of(Cause::Pool, ms(40));
        assert!(party.is_state() && !party.meter().is_clear());
        party.free_of(QUOTA, ms(50));
        assert!(party.meter().is_clear());
    }

    #[test]
    fn who_was_refused_and_comes_no_more_is_not_limited_for_ever() {
        let party = publisher();
        let until = Numbers { until: Some(s(11)), ..Numbers::default() };
        party.refused(QUOTA.into(), until, s(1));
        party.expire(s(15));
        assert!(!party.meter().is_clear(), "its wait, 30 % of it, and two seconds");
        party.expire(s(16));
        assert!(party.meter().is_clear());
        party.refused(QUOTA.into(), Numbers::default(), s(20));
        party.expire(s(29));
        assert!(!party.meter().is_clear());
        party.expire(s(30));
        assert!(party.meter().is_clear());
        party.limited(QUOTA.into(), until, s(40));
        party.expire(s(4_000));
        assert!(!party.meter().is_clear(), "a state ends when it is said to");
    }

    #[test]
    fn who_is_let_through_a_batch_at_a_time_is_told_of_once() {
        let party = publisher();
        let mut told = Vec::new();
        for at in (0..30_000).step_by(50) {
            match (at, at % 250) {
                (20_000.., _) => {}
                (_, 0) => party.free(ms(at)),
                (_, 50) => party.refused(QUOTA.into(), Numbers::default(), ms(at)),
                _ => {}
            }
            if at == 20_000 {
                party.free(ms(at));
            }
            if let Some(to) = party.untold(Settling::default(), ms(at)) {
                told.push((at, to));
                party.tell(to);
            }
        }
        assert_eq!(told, [(1_050, QUOTA.into()), (20_950, CauseId::NONE)]);
    }

    #[test]
    fn two_causes_that_take_turns_are_told_as_the_first() {
        let party = publisher();
        let causes = [Cause::Quota, Cause::Grant];
        let mut told = Vec::new();
        for at in (0..10_000).step_by(100) {
            let cause = causes[(at / 500 % 2) as usize];
            party.refused(cause.into(), Numbers::default(), ms(at));
            if let Some(to) = party.untold(Settling::default(), ms(at)) {
                told.push(to);
                party.tell(to);
            }
        }
        assert_eq!(told.len(), 1);
    }
}
