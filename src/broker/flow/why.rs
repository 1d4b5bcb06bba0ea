//! Who makes whom wait: from somebody who is limited to the root of it, with what to do about it.
//!
//! At each step the cause that was binding longest in the last minute says where to go on:
//!
//! | cause | leads to |
//! |---|---|
//! | of a client, a connection, a group | its child that has the same cause |
//! | of a topic that nothing limits | its publisher that is limited most |
//! | `credit_consumer` | the client that gives no credit: a root |
//! | `backlog:G`, and of the group G itself | the group, and its slowest subscription; when none of them waits, any: its client has what it does not commit |
//! | `quota:Q`, `window:N`, `fsync:N` | that quota, that writer: a root |
//! | disk levels, `cold_reads` | the data directory: a root |
//! | `topic_full` | the topic: a root |
//! | `pool`, `fetch_pool`, `serving`, `draining` | the broker: a root |
//! | `grant`, `partition`, `connection`, `fetch_bytes` | nowhere: a root |
//!
//! # Invariants
//! At most [`STEPS_MAX`] steps, and no entity twice: a way that comes back ends, and where it comes
//! back to is the root.

use super::cause::{Cause, CauseId};
use super::report::{Graph, Node};
use crate::types::{Entity, EntityKind, WhyReport, WhyStep};

/// Longer ways do not exist: client, connection, publisher, group, subscription, client.
const STEPS_MAX: usize = 8;

/// Walks from `target` to the root of what limits it.
pub fn why(graph: &Graph<'_>, target: &Entity) -> WhyReport {
    let mut way = Vec::new();
    let holds_back = held_back_by(graph, target);
    let mut next = Some((target.clone(), holds_back));
    let mut cycle = None;
    while let Some((entity, because)) = next.take() {
        let node = graph.node(&entity);
        let (by, per_mille) = node.map(Node::most).unwrap_or_default();
        way.push(step(graph, &entity, node, by, per_mille));
        let takes_slowly = matches!(because.cause(), Some(Cause::CreditConsumer | Cause::Backlog));
        if (takes_slowly && entity.kind == EntityKind::Client) || way.len() >= STEPS_MAX {
            break;
        }
        next = onward(graph, &entity, node, by).or_else(|| behind(graph, &entity, node, because));
        let back = |(entity, _): &mut (Entity, CauseId)| {
            way.iter().any(|(step, _): &(WhyStep, CauseId)| step.entity == *entity)
        };
        cycle = next.take_if(back).map(|(entity, _)| entity);
    }
    let last_cause = way.iter().rev().map(|(_, by)| *by).find(|by| *by != CauseId::NONE);
    let until_ms = way.iter().rev().find_map(|(step, _)| step.until_ms);
    let steps: Vec<WhyStep> = way.into_iter().map(|(step, _)| step).collect();
    let last = || steps.last().map_or_else(|| target.clone(), |step| step.entity.clone());
    let root = cycle.unwrap_or_else(last);
    let advice = advice(graph, &root, last_cause.unwrap_or(holds_back));
    WhyReport { steps, root, advice, until_ms }
}

/// The cause that others have in this group; nothing limits the group itself then.
fn held_back_by(graph: &Graph<'_>, group: &Entity) -> CauseId {
    let is_it = |cause: &CauseId| {
        group.kind == EntityKind::Group
            && cause.cause() == Some(Cause::Backlog)
            && graph.name(*cause).as_ref() == Some(&group.name)
    };
    let causes = graph.nodes().iter().flat_map(|node| &node.shares);
    causes.map(|(cause, _)| *cause).find(is_it).unwrap_or(CauseId::NONE)
}

fn step(
    graph: &Graph<'_>,
    entity: &Entity,
    node: Option<&Node>,
    by: CauseId,
    per_mille: u16,
) -> (WhyStep, CauseId) {
    let numbers = node.map(|node| node.numbers).unwrap_or_default();
    let binding = node.filter(|node| node.now == by && by != CauseId::NONE);
    let step = WhyStep {
        entity: entity.clone(),
        by: graph.text(by),
        per_mille,
        observed: numbers.observed,
        limit: numbers.limit,
        unit: numbers.unit.to_owned(),
        since_ms: binding.and_then(|node| node.since_ms),
        until_ms: binding.and_then(|node| graph.until_ms(&node.numbers)),
    };
    (step, by)
}

/// Where to go on, and why there.
fn onward(
    graph: &Graph<'_>,
    entity: &Entity,
    node: Option<&Node>,
    by: CauseId,
) -> Option<(Entity, CauseId)> {
    let of_child = |child: &Node| (child.entity.clone(), by);
    match entity.kind {
        EntityKind::Client | EntityKind::Connection => {
            return worst(graph, |child| child.parents.contains(entity), by).map(of_child);
        }
        EntityKind::Group => {
            let reads = |child: &Node| {
                child.entity.kind == EntityKind::Subscription && child.parents.contains(entity)
            };
            return worst(graph, reads, by).map(of_child);
        }
        EntityKind::Topic if by == CauseId::NONE => {
            let writes = |child: &Node| {
                child.entity.kind == EntityKind::Publisher
                    && child.topic.as_ref() == Some(&entity.name)
            };
            return worst(graph, writes, by).map(of_child);
        }
        _ => {}
    }
    let named = |kind| graph.name(by).map(|name| Entity::new(kind, name));
    let to = match by.cause()? {
        Cause::CreditConsumer => node.and_then(|node| client_of(graph, node)),
        Cause::Backlog => named(EntityKind::Group),
        Cause::Quota => named(EntityKind::Quota),
        Cause::Window | Cause::Fsync => named(EntityKind::Writer),
        Cause::DiskLow | Cause::DiskHigh | Cause::DiskFull | Cause::ColdReads => {
            Some(Entity::new(EntityKind::DataDir, ""))
        }
        Cause::TopicFull => {
            let topic = node.and_then(|node| node.topic.clone());
            topic.map(|topic| Entity::new(EntityKind::Topic, topic))
        }
        Cause::Pool | Cause::FetchPool | Cause::Serving | Cause::Draining => {
            Some(Entity::new(EntityKind::Broker, ""))
        }
        Cause::Grant | Cause::Partition | Cause::Connection | Cause::FetchBytes => None,
    };
    to.map(|to| (to, by))
}

/// Where to go on from a group that is behind though nothing holds it back: who reads for it has
/// the records and does not commit them.
fn behind(
    graph: &Graph<'_>,
    entity: &Entity,
    node: Option<&Node>,
    because: CauseId,
) -> Option<(Entity, CauseId)> {
    if because.cause() != Some(Cause::Backlog) {
        return None;
    }
    match entity.kind {
        EntityKind::Group => {
            let reads = |child: &&Node| {
                child.entity.kind == EntityKind::Subscription && child.parents.contains(entity)
            };
            graph.nodes().iter().find(reads).map(|child| (child.entity.clone(), because))
        }
        EntityKind::Subscription => {
            node.and_then(|node| client_of(graph, node)).map(|client| (client, because))
        }
        _ => None,
    }
}

/// The node that was limited longest, by this cause if it is one.
fn worst<'a>(
    graph: &'a Graph<'_>,
    is_child: impl Fn(&Node) -> bool,
    by: CauseId,
) -> Option<&'a Node> {
    let share = |node: &Node| {
        let same = node.shares.iter().filter(|(cause, _)| by == CauseId::NONE || *cause == by);
        same.map(|(_, per_mille)| *per_mille).max()
    };
    let children = graph.nodes().iter().filter(|node| is_child(node));
    let limited = children.filter_map(|node| Some((share(node)?, node)));
    limited.max_by_key(|(share, _)| *share).map(|(_, node)| node)
}

/// The client whose connection it is; the connection when nobody knows its client.
fn client_of(graph: &Graph<'_>, node: &Node) -> Option<Entity> {
    let connection = node.parents.iter().find(|p| p.kind == EntityKind::Connection)?;
    let parents = graph.node(connection).map(|node| node.parents.as_slice()).unwrap_or_default();
    Some(parents.first().unwrap_or(connection).clone())
}

fn advice(graph: &Graph<'_>, root: &Entity, by: CauseId) -> String {
    let name = &root.name;
    let Some(cause) = by.cause() else {
        return format!("Nothing limited {root} in the last minute.");
    };
    match (cause, root.kind) {
        (Cause::CreditConsumer, _) => format!(
            "{root} takes records more slowly than they come: make it faster, or add consumers to \
             its group."
        ),
        (Cause::Backlog, EntityKind::Group) => format!(
            "Group {name} is behind its limit and nobody reads for it: start a consumer, or raise \
             the limit of the topic's backlog."
        ),
        (Cause::Backlog, EntityKind::Client) => format!(
            "{root} has the records and commits them more slowly than they come: make it faster, \
             add consumers to its group, or raise the limit of the topic's backlog."
        ),
        (Cause::Quota, _) => {
            let quota = graph.name(by).unwrap_or_else(|| name.clone());
            format!("Use less, or raise the quota: stoplog quota set {quota} KEY=VALUE.")
        }
        (Cause::Fsync, _) => "The disk takes long to make writes durable: use a faster one, or \
                              durability=interval for topics that may lose the last moments."
            .to_owned(),
        (Cause::Window, _) => "The log writer has as much in flight as it can carry in time: \
                               spread the load over more partitions, or use a faster disk."
            .to_owned(),
        (Cause::DiskLow | Cause::DiskHigh | Cause::DiskFull, _) => {
            "Free space: trim or delete topics, shorten their retention, or add disk.".to_owned()
        }
        (Cause::ColdReads, _) => "Old data is read back while the disk is busy with new: it goes \
                                  on slowly, and faster when there is less to write."
            .to_owned(),
        (Cause::TopicFull, _) => format!(
            "Topic {name} is at its own limit: trim it, raise max_bytes, shorten its retention, or \
             let it drop its oldest segments with on_full=drop_oldest."
        ),
        (Cause::Pool, _) => "All memory for requests in flight is used: send less at a time, or \
                             raise memory.inflight_bytes_max."
            .to_owned(),
        (Cause::FetchPool | Cause::FetchBytes, _) => "All memory for answers is used, or the \
                                                      request's own limit: fetch less at a time."
            .to_owned(),
        (Cause::Serving, _) => "The serving threads are busy, and half of their time is kept for \
                                deliveries: send fewer and larger batches, or add cores."
            .to_owned(),
        (Cause::Grant, _) => format!(
            "{root} sends what it is granted as soon as it may: it has its fair share, and nothing \
             else limits it."
        ),
        (Cause::Partition, _) => "One partition has its share of the memory in flight: spread the \
                                  load over more partitions."
            .to_owned(),
        (Cause::Connection, _) => "One connection has its share of the memory in flight: use more \
                                   connections, or send less at a time."
            .to_owned(),
        (Cause::Draining, _) => "The broker shuts down: connect again when it is back.".to_owned(),
        (Cause::Backlog, _) => "A group of the topic is behind its limit.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::broker::flow::{Names, Numbers, Party, Registry};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A producer `shop` and a slow consumer `mailer` of group `email` on topic `orders`.
    struct World {
        registry: Registry,
        names: Names,
        publisher: Arc<Party>,
        subscription: Arc<Party>,
        kept: Vec<Arc<Party>>,
    }

    fn world() -> World {
        let registry = Registry::default();
        let named = |kind, name: &str| registry.named(Entity::new(kind, name), s(0));
        let join = |kind, name: &str, parents, topic| {
            registry.join(Entity::new(kind, name), parents, topic, s(0))
        };
        let (shop, mailer) =
            (named(EntityKind::Client, "shop"), named(EntityKind::Client, "mailer"));
        let group = named(EntityKind::Group, "email");
        let topic = named(EntityKind::Topic, "orders");
        let one = join(EntityKind::Connection, "shop#1", vec![shop], None);
        let two = join(EntityKind::Connection, "mailer#2", vec![mailer], None);
        let publisher = join(EntityKind::Publisher, "shop#1/orders", vec![one], Some("orders"));
        let subscription =
            join(EntityKind::Subscription, "mailer#2/orders", vec![two, group], Some("orders"));
        World { registry, names: Names::default(), publisher, subscription, kept: vec![topic] }
    }

    impl World {
        fn why(&self, kind: EntityKind, name: &str, now: Duration) -> (Vec<String>, WhyReport) {
            self.registry.roll_up(now);
            let graph = Graph::of(&self.registry, &self.names, now + s(30));
            let report = why(&graph, &Entity::new(kind, name));
            let steps = report.steps.iter().map(|step| format!("{} by {}", step.entity, step.by));
            (steps.collect(), report)
        }

        fn slow_consumer(&self) {
            let numbers = Numbers { observed: 99, limit: 100, unit: "records", until: Some(s(45)) };
            let backlog = self.names.id(Cause::Backlog, "email");
            self.publisher.limited(backlog, numbers, s(1));
            let credit = Cause::CreditConsumer.into();
            self.subscription.limited(credit, Numbers::default(), s(1));
        }
    }

    #[test]
    fn a_topic_leads_over_the_group_to_the_slow_client() {
        let world = world();
        world.slow_consumer();
        let (steps, report) = world.why(EntityKind::Topic, "orders", s(1));
        assert_eq!(
            steps,
            [
                "topic orders by none",
                "publisher shop#1/orders by backlog:email",
                "group email by credit_consumer",
                "subscription mailer#2/orders by credit_consumer",
                "client mailer by credit_consumer",
            ]
        );
        assert_eq!(report.root, Entity::new(EntityKind::Client, "mailer"));
        assert!(report.advice.contains("add consumers"), "{}", report.advice);
        assert_eq!((report.steps[1].observed, report.steps[1].limit), (99, 100));
        assert_eq!((report.until_ms, report.steps[1].since_ms), (Some(14_000), Some(30_000)));
    }

    #[test]
    fn a_client_leads_over_its_publisher_and_why_ends_on_a_cycle() {
        let world = world();
        world.slow_consumer();
        let (steps, report) = world.why(EntityKind::Client, "shop", s(1));
        assert_eq!(
            steps[..2],
            ["client shop by backlog:email", "connection shop#1 by backlog:email"]
        );
        assert_eq!(report.root.name, "mailer");
        let (steps, report) = world.why(EntityKind::Client, "mailer", s(1));
        assert_eq!(steps.len(), 3, "client, connection, subscription, and not the client again");
        assert_eq!(report.root, Entity::new(EntityKind::Client, "mailer"));
    }

    #[test]
    fn a_group_that_nobody_reads_for_is_the_root() {
        let mut world = world();
        let backlog = world.names.id(Cause::Backlog, "email");
        world.publisher.limited(backlog, Numbers::default(), s(1));
        let gone = world.registry.join(Entity::new(EntityKind::Client, "-"), vec![], None, s(0));
        world.subscription = gone;
        let (steps, report) = world.why(EntityKind::Topic, "orders", s(1));
        assert_eq!(steps.last().map(String::as_str), Some("group email by none"));
        assert!(report.advice.contains("start a consumer"), "{}", report.advice);
    }

    #[test]
    fn who_has_the_records_and_does_not_commit_them_is_the_root() {
        let world = world();
        let backlog = world.names.id(Cause::Backlog, "email");
        world.publisher.limited(backlog, Numbers::default(), s(1));
        let (steps, report) = world.why(EntityKind::Topic, "orders", s(1));
        assert_eq!(
            steps[2..],
            [
                "group email by none",
                "subscription mailer#2/orders by none",
                "client mailer by none"
            ]
        );
        assert_eq!(report.root, Entity::new(EntityKind::Client, "mailer"));
        assert!(report.advice.contains("commits them more slowly"), "{}", report.advice);
        let (of_group, same) = world.why(EntityKind::Group, "email", s(1));
        assert_eq!((&of_group[..], same.advice), (&steps[2..], report.advice));
    }

    #[test]
    fn every_cause_ends_at_a_root_with_advice() {
        for cause in Cause::ALL {
            let world = world();
            let id = world.names.id(cause, "email");
            world.publisher.limited(id, Numbers::default(), s(1));
            let (steps, report) = world.why(EntityKind::Publisher, "shop#1/orders", s(1));
            assert!((1..=4).contains(&steps.len()), "{steps:?}");
            assert!(!report.advice.starts_with("Nothing"), "{cause:?}: {}", report.advice);
        }
    }

    #[test]
    fn a_quota_is_named_with_what_to_type() {
        let world = world();
        let quota = world.names.id(Cause::Quota, "client/shop");
        world.publisher.limited(quota, Numbers::default(), s(1));
        let (_, report) = world.why(EntityKind::Client, "shop", s(1));
        assert_eq!(report.root, Entity::new(EntityKind::Quota, "client/shop"));
        assert!(report.advice.contains("stoplog quota set client/shop"), "{}", report.advice);
    }

    #[test]
    fn who_is_not_limited_or_not_known_is_its_own_root() {
        let world = world();
        for name in ["shop", "nobody"] {
            let (steps, report) = world.why(EntityKind::Client, name, s(1));
            assert_eq!(steps, [format!("client {name} by none")]);
            assert!(report.advice.starts_with("Nothing limited"), "{}", report.advice);
        }
        assert_eq!(world.kept.len(), 1);
    }
}
