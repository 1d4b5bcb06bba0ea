//! What reports say of everybody at one moment: who is limited by what, for how long, and since
//! the start.
//!
//! A [`Graph`] is a copy: whoever shows or walks it holds no lock.

use std::time::Duration;

use super::cause::{Cause, CauseId, Names};
use super::party::{Numbers, Party};
use super::registry::Registry;
use crate::types::{CauseShare, Entity, EntityKind, Limited};

/// One party at one moment.
#[derive(Clone, Debug)]
pub struct Node {
    /// Who.
    pub entity: Entity,
    /// Whose it is.
    pub parents: Vec<Entity>,
    /// The topic it writes or reads.
    pub topic: Option<String>,
    /// What is binding now, and for how many milliseconds it has been.
    pub now: CauseId,
    /// See `now`; `None` when nothing is binding.
    pub since_ms: Option<u64>,
    /// What was binding in the last minute, in per mille, largest first.
    pub shares: Vec<(CauseId, u16)>,
    /// What was measured last.
    pub numbers: Numbers,
}

/// Everybody at one moment.
#[derive(Debug)]
pub struct Graph<'a> {
    names: &'a Names,
    now: Duration,
    nodes: Vec<Node>,
}

impl Node {
    /// What limited it most in the last minute; `NONE` when nothing did.
    pub fn most(&self) -> (CauseId, u16) {
        self.shares.first().copied().unwrap_or_default()
    }

    fn of(party: &Party, now: Duration) -> Node {
        let (cause, since) = party.binding();
        let since_ms = (cause != CauseId::NONE).then(|| millis(now.saturating_sub(since)));
        Node {
            entity: party.entity().clone(),
            parents: party.parents().iter().map(|parent| parent.entity().clone()).collect(),
            topic: party.topic().map(str::to_owned),
            now: cause,
            since_ms,
            shares: party.meter().shares(now),
            numbers: party.numbers(),
        }
    }
}

impl<'a> Graph<'a> {
    /// Everybody of a registry.
    pub fn of(registry: &Registry, names: &'a Names, now: Duration) -> Graph<'a> {
        let nodes = registry.parties().iter().map(|party| Node::of(party, now)).collect();
        Graph { names, now, nodes }
    }

    /// All nodes, in the order of joining.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this entity; of connections' children that share a name, the most limited.
    pub fn node(&self, entity: &Entity) -> Option<&Node> {
        let same = self.nodes.iter().filter(|node| node.entity == *entity);
        same.max_by_key(|node| node.most().1)
    }

    /// A cause as text.
    pub fn text(&self, cause: CauseId) -> String {
        self.names.text(cause)
    }

    /// The name that a cause concerns.
    pub fn name(&self, cause: CauseId) -> Option<String> {
        self.names.name(cause).map(|name| name.as_ref().to_owned())
    }

    /// In how many milliseconds what was measured ends, where that is known and to come.
    pub fn until_ms(&self, numbers: &Numbers) -> Option<u64> {
        let left = numbers.until.map(|until| until.saturating_sub(self.now));
        left.filter(|left| !left.is_zero()).map(millis)
    }

    /// Everybody who is limited or was in the last minute: first who is now, then by share; at
    /// most `max`, and how many more there were.
    pub fn limited(&self, max: usize) -> (Vec<Limited>, u32) {
        let mut limited: Vec<&Node> =
            self.nodes.iter().filter(|node| !node.shares.is_empty()).collect();
        limited.sort_by_key(|node| {
            let free = node.now == CauseId::NONE;
            (free, std::cmp::Reverse(node.most().1), node.entity.clone())
        });
        let left_off = limited.len().saturating_sub(max);
        limited.truncate(max);
        let told = limited.into_iter().map(|node| self.told(node)).collect();
        (told, u32::try_from(left_off).unwrap_or(u32::MAX))
    }

    fn told(&self, node: &Node) -> Limited {
        let share = |(cause, per_mille): &(CauseId, u16)| CauseShare {
            cause: self.text(*cause),
            per_mille: *per_mille,
        };
        let limited = node.now != CauseId::NONE;
        Limited {
            entity: node.entity.clone(),
            by: self.text(node.now),
            since_ms: node.since_ms,
            until_ms: self.until_ms(&node.numbers).filter(|_| limited),
            shares: node.shares.iter().map(share).collect(),
        }
    }
}

/// Milliseconds each cause was binding since the start, for metrics: of everything but connections
/// and their children, of which there may be any number; and of clients the `clients_max` that
/// were limited longest.
pub fn limited_totals(
    registry: &Registry,
    clients_max: usize,
    now: Duration,
) -> Vec<(Entity, Cause, u64)> {
    let mut totals: Vec<(Entity, Vec<(Cause, u64)>)> = Vec::new();
    let mut clients = Vec::new();
    for party in registry.parties() {
        let list = match party.entity().kind {
            EntityKind::Connection | EntityKind::Publisher | EntityKind::Subscription => continue,
            EntityKind::Client => &mut clients,
            _ => &mut totals,
        };
        list.push((party.entity().clone(), party.meter().totals_ms(now)));
    }
    let sum = |causes: &[(Cause, u64)]| causes.iter().map(|(_, ms)| ms).sum::<u64>();
    clients.sort_by_key(|(client, causes)| (std::cmp::Reverse(sum(causes)), client.clone()));
    totals.extend(clients.into_iter().take(clients_max));
    totals.sort_by(|one, other| one.0.cmp(&other.0));
    let each = |(entity, causes): (Entity, Vec<(Cause, u64)>)| {
        causes.into_iter().map(move |(cause, ms)| (entity.clone(), cause, ms))
    };
    totals.into_iter().flat_map(each).collect()
}

/// How many consumers a group would need to keep up: what comes in by what one of them reads.
/// `None` while it is not known how fast they read.
pub fn desired_consumers(
    ingest_per_s: u64,
    drained_per_s: Option<u64>,
    members: u32,
) -> Option<u64> {
    let drained = drained_per_s.filter(|drained| *drained > 0 && members > 0)?;
    let needed = u128::from(ingest_per_s) * u128::from(members);
    u64::try_from(needed.div_ceil(u128::from(drained))).ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_is_limited_now_comes_first_and_the_rest_is_counted() {
        let (registry, names) = (Registry::default(), Names::default());
        let party = |name: &str| registry.named(Entity::new(EntityKind::Topic, name), s(0));
        let (was, is, short, never) = (party("was"), party("is"), party("short"), party("never"));
        was.limited(Cause::Pool.into(), Numbers::default(), s(0));
        was.free(s(30));
        let numbers = Numbers { until: Some(s(50)), ..Numbers::default() };
        is.limited(names.id(Cause::Backlog, "email"), numbers, s(20));
        short.limited(Cause::Pool.into(), Numbers::default(), s(39));
        let graph = Graph::of(&registry, &names, s(40));
        let (limited, left_off) = graph.limited(2);
        let shown: Vec<_> =
            limited.iter().map(|l| (l.entity.name.as_str(), l.by.as_str())).collect();
        assert_eq!(shown, [("is", "backlog:email"), ("short", "pool")]);
        assert_eq!((left_off, limited[0].since_ms), (1, Some(20_000)));
        assert_eq!((limited[0].until_ms, limited[1].until_ms), (Some(10_000), None));
        assert_eq!(limited[0].shares[0].per_mille, 500);
        assert!(graph.node(never.entity()).is_some_and(|node| node.shares.is_empty()));
    }

    #[test]
    fn totals_know_every_topic_and_the_clients_that_waited_most() {
        let registry = Registry::default();
        let party = |kind, name: &str| registry.named(Entity::new(kind, name), s(0));
        let all = [
            party(EntityKind::Topic, "orders"),
            party(EntityKind::Client, "a"),
            party(EntityKind::Client, "b"),
            party(EntityKind::Publisher, "p"),
        ];
        for (party, began) in all.iter().zip([0, 5, 2, 0]) {
            party.limited(Cause::Quota.into(), Numbers::default(), s(began));
        }
        let totals = limited_totals(&registry, 1, s(10));
        let shown: Vec<_> = totals.iter().map(|(who, _, ms)| (who.name.as_str(), *ms)).collect();
        assert_eq!(shown, [("orders", 10_000), ("b", 8_000)]);
    }

    #[test]
    fn a_group_that_reads_a_tenth_needs_ten_times_the_members() {
        assert_eq!(desired_consumers(1_000, Some(200), 2), Some(10));
        assert_eq!(desired_consumers(100, Some(200), 2), Some(1));
        assert_eq!(desired_consumers(0, Some(200), 2), Some(0));
        assert_eq!((desired_consumers(1, None, 2), desired_consumers(1, Some(0), 2)), (None, None));
        assert_eq!(desired_consumers(1, Some(5), 0), None);
    }
}
