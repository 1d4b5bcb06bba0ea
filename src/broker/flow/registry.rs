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
//! - At most the given number of parties is listed; who comes later works for itself, unlisted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::cause::CauseId;
use super::party::{Party, PressureEdge, Settling, lock};
use crate::types::{Entity, EntityKind};

/// Parties of one broker by default: a publisher each for ten thousand of them, their connections
/// and clients, every topic; about 700 bytes each.
pub const PARTIES_MAX: usize = 100_000;

/// All parties.
#[derive(Debug)]
pub struct Registry {
    max: usize,
    next: AtomicU64,
    unlisted: AtomicU64,
    parties: Mutex<Parties>,
}

#[derive(Debug, Default)]
struct Parties {
    all: Vec<Weak<Party>>,
    /// Those of which there is one by name.
    named: HashMap<Entity, Weak<Party>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new(PARTIES_MAX)
    }
}

impl Registry {
    /// Lists at most `max` parties.
    pub fn new(max: usize) -> Registry {
        Registry {
            max,
            next: AtomicU64::new(0),
            unlisted: AtomicU64::new(0),
            parties: Mutex::default(),
        }
    }

    /// A new party, though another may have the same name: connections, publishers, subscriptions.
    pub fn join(
        &self,
        entity: Entity,
        parents: Vec<Arc<Party>>,
        topic: Option<&str>,
        now: Duration,
    ) -> Arc<Party> {
        let party = self.make(entity, parents, topic, now);
        self.list(&mut lock(&self.parties), &party);
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
        if self.list(&mut parties, &party) {
            parties.named.insert(entity, Arc::downgrade(&party));
        }
        party
    }

    /// Everybody, in the order of joining.
    pub fn parties(&self) -> Vec<Arc<Party>> {
        lock(&self.parties).all.iter().filter_map(Weak::upgrade).collect()
    }

    /// How many came when the list was full.
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// Gives connections, clients and groups the cause of the child that has been limited longest,
    /// and ends refusals that nobody comes back for.
    pub fn roll_up(&self, now: Duration) {
        let parties = self.parties();
        parties.iter().for_each(|party| party.expire(now));
        let leaf = |kind| matches!(kind, EntityKind::Publisher | EntityKind::Subscription);
        let of_leaves = |kind| matches!(kind, EntityKind::Connection | EntityKind::Group);
        roll(&parties, leaf, of_leaves, now);
        roll(
            &parties,
            |kind| kind == EntityKind::Connection,
            |kind| kind == EntityKind::Client,
            now,
        );
    }

    /// What changed since it was told, what concerns most first, at most `max`; the rest comes
    /// with the next sweep. Forgets who is gone.
    pub fn sweep(&self, settling: Settling, max: usize, now: Duration) -> Vec<PressureEdge> {
        lock(&self.parties).forget();
        let untold = |party: Arc<Party>| party.untold(settling, now).map(|to| (party, to));
        let mut changed: Vec<_> = self.parties().into_iter().filter_map(untold).collect();
        changed.sort_by_key(|(party, _)| (party.entity().kind, party.id));
        changed.truncate(max);
        let tell = |(party, to): (Arc<Party>, CauseId)| {
            let from = party.tell(to);
            PressureEdge { party, from, to }
        };
        changed.into_iter().map(tell).collect()
    }

    fn list(&self, parties: &mut Parties, party: &Arc<Party>) -> bool {
        let fits = parties.all.len() < self.max;
        if fits {
            parties.all.push(Arc::downgrade(party));
        } else {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn make(
        &self,
        entity: Entity,
        parents: Vec<Arc<Party>>,
        topic: Option<&str>,
        now: Duration,
    ) -> Arc<Party> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(Party::new(id, entity, parents, topic, now))
    }
}

impl Parties {
    fn forget(&mut self) {
        self.all.retain(|party| party.strong_count() > 0);
        self.named.retain(|_, party| party.strong_count() > 0);
    }
}

/// Parents of the kinds `to` follow their children of the kinds `of`.
fn roll(
    parties: &[Arc<Party>],
    of: impl Fn(EntityKind) -> bool,
    to: impl Fn(EntityKind) -> bool,
    now: Duration,
) {
    let mut longest: HashMap<u64, (Duration, &Arc<Party>, CauseId)> = HashMap::new();
    for child in parties.iter().filter(|party| of(party.entity().kind)) {
        if child.meter().is_clear() {
            continue;
        }
        let (cause, since) = child.binding();
        if cause == CauseId::NONE {
            continue;
        }
        for parent in child.parents() {
            let known = longest.entry(parent.id).or_insert((since, child, cause));
            if (since, child.id) < (known.0, known.1.id) {
                *known = (since, child, cause);
            }
        }
    }
    for parent in parties.iter().filter(|party| to(party.entity().kind)) {
        match longest.get(&parent.id) {
            Some((_, child, cause)) => parent.limited(*cause, child.numbers(), now),
            None => parent.free(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::{Cause, Names, Numbers};
    use crate::types::Timestamp;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn entity(kind: EntityKind, name: &str) -> Entity {
        Entity::new(kind, name)
    }

    fn edges(registry: &Registry, now: Duration) -> Vec<(String, CauseId, CauseId)> {
        let swept = registry.sweep(Settling::default(), 100, now);
        swept.iter().map(|edge| (edge.party.entity().to_string(), edge.from, edge.to)).collect()
    }

    const POOL: Cause = Cause::Pool;

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
    fn more_than_fit_are_known_to_nobody_else_and_counted() {
        let registry = Registry::new(2);
        let [one, two, three] = ["1", "2", "3"]
            .map(|n| registry.join(entity(EntityKind::Publisher, n), vec![], None, s(0)));
        three.limited(POOL.into(), Numbers::default(), s(0));
        assert_eq!((registry.parties().len(), registry.unlisted()), (2, 1));
        drop((one, two));
        assert_eq!(edges(&registry, s(1)), [], "and a sweep makes room");
        let four = registry.join(entity(EntityKind::Publisher, "4"), vec![], None, s(1));
        assert_eq!(registry.parties()[0].entity(), four.entity());
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
