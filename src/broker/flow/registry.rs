//! Everybody who limits or is limited, with the cause that is binding now.
//!
//! Whoever may be limited joins and keeps its [`Party`]; refusing it sets its cause, admitting it
//! clears it. A sweep of the tick finds what changed: events come from sweeps alone, so the paths
//! that refuse never make text.
//!
//! # Invariants
//! - A party whose handle is dropped is gone from the next sweep on.
//! - A connection, a client and a group are limited by what limits their children longest.
//! - An edge is told once, and the last state of a party is told at last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::cause::{CauseId, CauseMeter, Names};
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
const UNITS: [&str; 11] = [
    "bytes",
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
    id: u64,
    entity: Entity,
    parents: Vec<Arc<Party>>,
    topic: Option<Arc<str>>,
    meter: CauseMeter,
    numbers: Mutex<Numbers>,
    told: Mutex<CauseId>,
}

impl Party {
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

    /// It is limited, by this much.
    pub fn limited(&self, cause: CauseId, numbers: Numbers, now: Duration) {
        *lock(&self.numbers) = numbers;
        self.meter.set(cause, now);
    }

    /// It is not limited. One load when it was not before.
    pub fn free(&self, now: Duration) {
        self.meter.clear(now);
    }
}

/// How long a cause lasts before it is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settling {
    /// Of a client, a connection, a publisher: they block and go on many times a second.
    pub party: Duration,
    /// Of a subscription: less is a pause of its process.
    pub subscription: Duration,
}

impl Default for Settling {
    fn default() -> Settling {
        Settling { party: Duration::from_secs(1), subscription: Duration::from_secs(10) }
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
        }
    }
}

/// All parties.
#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    parties: Mutex<Parties>,
}

#[derive(Debug, Default)]
struct Parties {
    all: Vec<Weak<Party>>,
    /// Those of which there is one by name.
    named: HashMap<Entity, Weak<Party>>,
}

impl Registry {
    /// A new party, though another may have the same name: connections, publishers, subscriptions.
    pub fn join(
        &self,
        entity: Entity,
        parents: Vec<Arc<Party>>,
        topic: Option<&str>,
        now: Duration,
    ) -> Arc<Party> {
        let party = self.make(entity, parents, topic, now);
        lock(&self.parties).all.push(Arc::downgrade(&party));
        party
    }

    /// The party of this name, made when there is none: broker, data directory, writers, topics,
    /// groups, quotas, clients.
    pub fn named(&self, entity: Entity, now: Duration) -> Arc<Party> {
        let mut parties = lock(&self.parties);
        if let Some(party) = parties.named.get(&entity).and_then(Weak::upgrade) {
            return party;
        }
        let party = self.make(entity.clone(), Vec::new(), None, now);
        parties.all.push(Arc::downgrade(&party));
        parties.named.insert(entity, Arc::downgrade(&party));
        party
    }

    /// Everybody, in the order of joining.
    pub fn parties(&self) -> Vec<Arc<Party>> {
        lock(&self.parties).all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Gives connections, clients and groups the cause of the child that has been limited longest.
    pub fn roll_up(&self, now: Duration) {
        let parties = self.parties();
        let leaf = |kind| matches!(kind, EntityKind::Publisher | EntityKind::Subscription);
        roll(&parties, leaf, now);
        roll(&parties, |kind| kind == EntityKind::Connection, now);
    }

    /// What changed since it was told, what concerns most first, at most `max`; the rest comes
    /// with the next sweep. Forgets who is gone.
    pub fn sweep(&self, settling: Settling, max: usize, now: Duration) -> Vec<PressureEdge> {
        {
            let mut parties = lock(&self.parties);
            parties.all.retain(|party| party.strong_count() > 0);
            parties.named.retain(|_, party| party.strong_count() > 0);
        }
        let mut changed: Vec<(Arc<Party>, CauseId)> = Vec::new();
        for party in self.parties() {
            let (to, since) = party.meter.current();
            let settled =
                to == CauseId::NONE || now.saturating_sub(since) >= settling.of(party.entity.kind);
            if settled && *lock(&party.told) != to {
                changed.push((party, to));
            }
        }
        changed.sort_by_key(|(party, _)| (party.entity.kind, party.id));
        changed.truncate(max);
        let tell = |(party, to): (Arc<Party>, CauseId)| {
            let from = std::mem::replace(&mut *lock(&party.told), to);
            PressureEdge { party, from, to }
        };
        changed.into_iter().map(tell).collect()
    }

    fn make(
        &self,
        entity: Entity,
        parents: Vec<Arc<Party>>,
        topic: Option<&str>,
        now: Duration,
    ) -> Arc<Party> {
        Arc::new(Party {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            entity,
            parents,
            topic: topic.map(Arc::from),
            meter: CauseMeter::new(now),
            numbers: Mutex::default(),
            told: Mutex::default(),
        })
    }
}

impl Settling {
    fn of(self, kind: EntityKind) -> Duration {
        match kind {
            EntityKind::Subscription => self.subscription,
            EntityKind::Publisher | EntityKind::Connection | EntityKind::Client => self.party,
            _ => Duration::ZERO,
        }
    }
}

fn roll(parties: &[Arc<Party>], of: impl Fn(EntityKind) -> bool, now: Duration) {
    let mut longest: HashMap<u64, (Duration, &Arc<Party>, CauseId)> = HashMap::new();
    let mut parents: HashMap<u64, &Arc<Party>> = HashMap::new();
    for child in parties.iter().filter(|party| of(party.entity.kind)) {
        parents.extend(child.parents.iter().map(|parent| (parent.id, parent)));
        let (cause, since) = child.meter.current();
        if cause == CauseId::NONE {
            continue;
        }
        for parent in &child.parents {
            let known = longest.entry(parent.id).or_insert((since, child, cause));
            if (since, child.id) < (known.0, known.1.id) {
                *known = (since, child, cause);
            }
        }
    }
    for (id, parent) in parents {
        match longest.get(&id) {
            Some((_, child, cause)) => parent.limited(*cause, child.numbers(), now),
            None => parent.free(now),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::Cause;
    use crate::types::{PushbackCode, PushbackScope};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn entity(kind: EntityKind, name: &str) -> Entity {
        Entity::new(kind, name)
    }

    fn edges(registry: &Registry, now: Duration) -> Vec<(String, CauseId, CauseId)> {
        let swept = registry.sweep(Settling::default(), 100, now);
        swept.iter().map(|edge| (edge.party.entity.to_string(), edge.from, edge.to)).collect()
    }

    const POOL: Cause = Cause::Pool;

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
    fn there_is_one_party_of_a_name_and_it_goes_with_its_last_handle() {
        let registry = Registry::default();
        let orders = registry.named(entity(EntityKind::Topic, "orders"), s(0));
        assert!(Arc::ptr_eq(&orders, &registry.named(orders.entity().clone(), s(1))));
        orders.limited(POOL.into(), Numbers::default(), s(1));
        drop(orders);
        assert_eq!(edges(&registry, s(2)), []);
        let again = registry.named(entity(EntityKind::Topic, "orders"), s(3));
        assert_eq!(again.meter().current().0, CauseId::NONE);
        assert_eq!(registry.parties().len(), 1);
    }

    #[test]
    fn a_topic_is_told_at_once_a_publisher_after_a_second_a_subscription_after_ten() {
        let registry = Registry::default();
        let topic = registry.named(entity(EntityKind::Topic, "t"), s(0));
        let publisher = registry.join(entity(EntityKind::Publisher, "p"), vec![], None, s(0));
        let subscription = registry.join(entity(EntityKind::Subscription, "s"), vec![], None, s(0));
        for party in [&topic, &publisher, &subscription] {
            party.limited(POOL.into(), Numbers::default(), s(0));
        }
        let (none, pool) = (CauseId::NONE, CauseId::from(POOL));
        assert_eq!(edges(&registry, s(0)), [("topic t".to_owned(), none, pool)]);
        assert_eq!(edges(&registry, s(1)), [("publisher p".to_owned(), none, pool)]);
        assert_eq!(edges(&registry, s(9)), []);
        assert_eq!(edges(&registry, s(10)), [("subscription s".to_owned(), none, pool)]);
        subscription.free(s(11));
        assert_eq!(edges(&registry, s(11)), [("subscription s".to_owned(), pool, none)]);
        assert_eq!(edges(&registry, s(12)), []);
    }

    #[test]
    fn a_blink_is_no_event_and_more_than_fit_come_later() {
        let registry = Registry::default();
        let publisher = registry.join(entity(EntityKind::Publisher, "p"), vec![], None, s(0));
        publisher.limited(POOL.into(), Numbers::default(), s(0));
        publisher.free(s(0));
        assert_eq!(edges(&registry, s(5)), []);
        let topics: Vec<_> = (0..5)
            .map(|n| registry.named(entity(EntityKind::Topic, &n.to_string()), s(5)))
            .collect();
        topics.iter().for_each(|topic| topic.limited(POOL.into(), Numbers::default(), s(5)));
        let told = |max| registry.sweep(Settling::default(), max, s(6)).len();
        assert_eq!((told(3), told(3), told(3)), (3, 2, 0));
    }

    #[test]
    fn a_connection_a_group_and_a_client_follow_the_child_that_waits_longest() {
        let registry = Registry::default();
        let client = registry.named(entity(EntityKind::Client, "shop"), s(0));
        let group = registry.named(entity(EntityKind::Group, "email"), s(0));
        let connection = registry.join(
            entity(EntityKind::Connection, "shop#1"),
            vec![Arc::clone(&client)],
            None,
            s(0),
        );
        let publisher = registry.join(
            entity(EntityKind::Publisher, "shop#1/orders"),
            vec![Arc::clone(&connection)],
            Some("orders"),
            s(0),
        );
        let parents = vec![Arc::clone(&connection), Arc::clone(&group)];
        let subscription =
            registry.join(entity(EntityKind::Subscription, "shop#1/orders"), parents, None, s(0));
        let numbers = Numbers { observed: 7, limit: 5, unit: "bytes", until: Some(s(9)) };
        subscription.limited(Cause::CreditConsumer.into(), Numbers::default(), s(2));
        publisher.limited(POOL.into(), numbers, s(1));
        registry.roll_up(s(3));
        assert_eq!(connection.meter().current().0, POOL.into());
        assert_eq!((client.meter().current().0, client.numbers()), (POOL.into(), numbers));
        assert_eq!(group.meter().current().0, Cause::CreditConsumer.into());
        publisher.free(s(4));
        registry.roll_up(s(4));
        assert_eq!(client.meter().current().0, Cause::CreditConsumer.into());
        subscription.free(s(5));
        registry.roll_up(s(5));
        let all = [&client, &group, &connection];
        assert!(all.iter().all(|party| party.meter().current().0 == CauseId::NONE));
    }

    #[test]
    fn an_event_says_what_was_measured_and_when_to_come_back() {
        let (registry, names) = (Registry::default(), Names::default());
        let topic = registry.named(entity(EntityKind::Topic, "orders"), s(0));
        let numbers = Numbers { observed: 7, limit: 5, unit: "records", until: Some(s(9)) };
        topic.limited(names.id(Cause::Backlog, "email"), numbers, s(1));
        let swept = registry.sweep(Settling::default(), 9, s(2));
        let event = swept[0].event(&names, Timestamp(77), s(2));
        assert_eq!((event.from.as_str(), event.to.as_str()), ("none", "backlog:email"));
        assert_eq!((event.observed, event.limit, event.unit.as_str()), (7, 5, "records"));
        assert_eq!((event.retry_after_ms, event.at), (7_000, Timestamp(77)));
    }
}
