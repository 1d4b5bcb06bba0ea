//! The parties of one connection: itself, its client, its publishers and subscriptions.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use super::cause::Cause;
use super::party::{Numbers, Party, lock};
use super::pressure::Pressure;
use super::waits::Waits;
use crate::env::Clock;
use crate::types::{Entity, EntityKind, GroupId, PartitionId, Pushback};

/// Makes and keeps the parties of one connection.
#[derive(Debug)]
pub struct Parties {
    pressure: Arc<Pressure>,
    connection: Arc<Party>,
    /// Of batches that come without a publisher; made when the first of them is refused.
    direct: OnceLock<Arc<Party>>,
    /// Its publishers, as far as they are open.
    publishers: Mutex<Vec<Weak<Party>>>,
    /// Of fetches, by group; made when the first of them waits.
    readers: Mutex<Vec<(Option<GroupId>, Arc<Party>)>>,
}

/// Groups of which the fetches of one connection are told apart; those of others count for no group.
const READERS_MAX: usize = 16;

impl Parties {
    /// Connection `number` of `client`.
    pub fn new(pressure: Arc<Pressure>, client: &str, number: u64, now: Duration) -> Parties {
        let name = printable(client);
        let registry = pressure.registry();
        let client = registry.named(Entity::new(EntityKind::Client, &*name), now);
        let entity = Entity::new(EntityKind::Connection, format!("{name}#{number}"));
        let connection = registry.join(entity, vec![client], None, now);
        let (direct, publishers, readers) = Default::default();
        Parties { pressure, connection, direct, publishers, readers }
    }

    /// A publisher of the connection.
    pub fn publisher(&self, topic: &str, now: Duration) -> Arc<Party> {
        let name = format!("{}/{topic}", self.connection.entity().name);
        let entity = Entity::new(EntityKind::Publisher, name);
        let parents = vec![Arc::clone(&self.connection)];
        let publisher = self.pressure.registry().join(entity, parents, Some(topic), now);
        let mut publishers = lock(&self.publishers);
        publishers.retain(|publisher| publisher.strong_count() > 0);
        publishers.push(Arc::downgrade(&publisher));
        publisher
    }

    /// All publishers of the connection wait until the answer is dropped.
    pub fn publishers_wait(
        &self,
        cause: Cause,
        until: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Vec<Waits> {
        let numbers = Numbers { until: Some(until), ..Numbers::default() };
        let publishers = lock(&self.publishers);
        let open = publishers.iter().filter_map(Weak::upgrade);
        open.map(|party| Waits::begin(party, cause.into(), numbers, clock)).collect()
    }

    /// Who reads by fetches for this group.
    pub fn reader(&self, group: Option<&GroupId>, now: Duration) -> Arc<Party> {
        let mut readers = lock(&self.readers);
        let group = group.filter(|_| readers.len() < READERS_MAX);
        if let Some((_, party)) = readers.iter().find(|(of, _)| of.as_ref() == group) {
            return Arc::clone(party);
        }
        let name = format!("{}/fetch", self.connection.entity().name);
        let party = self.reads(name, None, group.map(GroupId::as_str), now);
        readers.push((group.cloned(), Arc::clone(&party)));
        party
    }

    /// A subscription of the connection.
    pub fn subscription(
        &self,
        topic: &str,
        partition: PartitionId,
        group: Option<&str>,
        now: Duration,
    ) -> Arc<Party> {
        let name = format!("{}/{topic}/{}", self.connection.entity().name, partition.0);
        self.reads(name, Some(topic), group, now)
    }

    fn reads(
        &self,
        name: String,
        topic: Option<&str>,
        group: Option<&str>,
        now: Duration,
    ) -> Arc<Party> {
        let registry = self.pressure.registry();
        let group = group.map(|group| registry.named(Entity::new(EntityKind::Group, group), now));
        let parents = [Arc::clone(&self.connection)].into_iter().chain(group).collect();
        registry.join(Entity::new(EntityKind::Subscription, name), parents, topic, now)
    }

    /// A publisher was refused.
    pub fn refused(&self, publisher: &Party, told: &Pushback, now: Duration) {
        self.pressure.refused(publisher, told, now);
    }

    /// A batch that came without a publisher was refused.
    pub fn refused_directly(&self, topic: &str, told: &Pushback, now: Duration) {
        let party = self.direct.get_or_init(|| self.publisher(topic, now));
        self.pressure.refused(party, told, now);
    }

    /// A batch that came without a publisher at `since` was admitted. Two loads when none was ever
    /// refused, or nothing limits now.
    pub fn admitted_directly(&self, since: Duration, now: Duration) {
        if let Some(party) = self.direct.get() {
            party.admitted(since, now);
        }
    }
}

/// A client names itself; what terminals obey is not shown.
fn printable(client: &str) -> String {
    if client.is_empty() {
        return "-".to_owned();
    }
    client.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::{PressureOptions, Serving, States};
    use crate::env::sim::SimClock;
    use crate::types::{PushbackCode, PushbackScope, Timestamp};

    #[test]
    fn a_batch_without_a_publisher_limits_its_connection_and_client() {
        let now = Duration::from_secs(1);
        let pressure = Arc::new(Pressure::new(PressureOptions::default(), now));
        let parties = Parties::new(Arc::clone(&pressure), "sh\x1bop", 7, now);
        parties.admitted_directly(now, now);
        let told = Pushback::hold(PushbackCode::ServerBusy, PushbackScope::Broker, "pool");
        parties.refused_directly("orders", &told, now);
        pressure.tick(&States::default(), Timestamp(0), now);
        let (limited, _) = pressure.graph(now).limited(10);
        let none: Vec<&str> = limited.iter().map(|l| l.entity.name.as_str()).collect();
        assert!(none.is_empty(), "no time passed: {none:?}");
        let later = now * 2;
        let (limited, _) = pressure.graph(later).limited(10);
        let names: Vec<_> = limited.iter().map(|l| l.entity.to_string()).collect();
        assert_eq!(names, ["client sh?op", "connection sh?op#7", "publisher sh?op#7/orders"]);
        parties.admitted_directly(later, later);
        pressure.tick(&States::default(), Timestamp(0), later);
        assert!(pressure.graph(later).limited(10).0.iter().all(|l| l.by == "none"));
    }

    #[test]
    fn publishers_that_pause_for_deliveries_are_limited_by_them_and_by_nobody_else() {
        let clock = SimClock::new();
        let time: Arc<dyn Clock> = Arc::new(clock.clone());
        let now = clock.monotonic();
        let pressure = Arc::new(Pressure::new(PressureOptions::default(), now));
        let parties = Parties::new(Arc::clone(&pressure), "shop", 7, now);
        let publisher = parties.publisher("orders", now);
        drop(parties.publisher("closed", now));
        let serving = Serving::new(1, 50);
        clock.advance(Duration::from_secs(1));
        serving.delivery(now, clock.monotonic());
        let pause = serving.produce_turn(Duration::from_millis(50), clock.monotonic());
        let until = clock.monotonic() + pause.expect("it took more than its half");
        let waits = parties.publishers_wait(Cause::Serving, until, &time);
        assert_eq!(waits.len(), 1);
        let tick = || pressure.tick(&States::default(), Timestamp(0), clock.monotonic());
        tick();
        clock.advance(Duration::from_millis(40));
        let limited_by = |kind, name: &str| {
            let (limited, _) = pressure.graph(clock.monotonic()).limited(10);
            let entity = Entity::new(kind, name);
            limited.into_iter().find(|limited| limited.entity == entity).map(|limited| limited.by)
        };
        for (kind, name) in [
            (EntityKind::Publisher, "shop#7/orders"),
            (EntityKind::Connection, "shop#7"),
            (EntityKind::Client, "shop"),
        ] {
            assert_eq!(limited_by(kind, name).as_deref(), Some("serving"), "{name}");
        }
        let why = pressure.why(publisher.entity(), clock.monotonic());
        assert_eq!(why.root, Entity::new(EntityKind::Broker, ""));
        drop(waits);
        assert!(publisher.meter().is_clear());
    }
}
