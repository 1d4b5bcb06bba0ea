//! The parties of one connection: itself, its client, its publishers and subscriptions.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::party::Party;
use super::pressure::Pressure;
use crate::types::{Entity, EntityKind, PartitionId, Pushback};

/// Makes and keeps the parties of one connection.
#[derive(Debug)]
pub struct Parties {
    pressure: Arc<Pressure>,
    connection: Arc<Party>,
    /// Of batches that come without a publisher; made when the first of them is refused.
    direct: OnceLock<Arc<Party>>,
}

impl Parties {
    /// Connection `number` of `client`.
    pub fn new(pressure: Arc<Pressure>, client: &str, number: u64, now: Duration) -> Parties {
        let name = printable(client);
        let client = pressure.named(EntityKind::Client, &name, now);
        let entity = Entity::new(EntityKind::Connection, format!("{name}#{number}"));
        let connection = pressure.join(entity, vec![client], None, now);
        Parties { pressure, connection, direct: OnceLock::new() }
    }

    /// A publisher of the connection.
    pub fn publisher(&self, topic: &str, now: Duration) -> Arc<Party> {
        let name = format!("{}/{topic}", self.connection.entity().name);
        let entity = Entity::new(EntityKind::Publisher, name);
        self.pressure.join(entity, vec![Arc::clone(&self.connection)], Some(topic), now)
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
        let mut parents = vec![Arc::clone(&self.connection)];
        parents.extend(group.map(|group| self.pressure.named(EntityKind::Group, group, now)));
        let entity = Entity::new(EntityKind::Subscription, name);
        self.pressure.join(entity, parents, Some(topic), now)
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
    use crate::broker::flow::{PressureOptions, States};
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
}
