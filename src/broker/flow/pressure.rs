//! What limits whom in one broker, live: everybody's party, what was told of them last, and what
//! callers were told to wait.
//!
//! Whoever refuses tells [`Pressure::refused`]; a tick every [`Pressure::TICK`] looks at what is a
//! state rather than a refusal (disk, pool, shutdown), gives connections, clients and groups the
//! causes of their children, and turns changes into events. Nothing here outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cause::{Cause, CauseId, Names};
use super::disk::DiskLevel;
use super::events::Events;
use super::party::{Numbers, Party, PressureEdge, Settling};
use super::registry::Registry;
use super::report::Graph;
use super::why::why;
use super::writer::{Load, Verdict};
use crate::metrics::{Histogram, HistogramSnapshot};
use crate::types::{Entity, EntityKind, PressureEvent, Pushback, Timestamp, WhyReport};

/// Sizes of what is known of pressure, each with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PressureOptions {
    /// Publishers, subscriptions, connections, clients, groups and topics that are listed: about
    /// 700 bytes each.
    pub parties_max: u32,
    /// Events that are kept: about 300 bytes each; fifteen minutes of a bad day.
    pub events_max: u32,
    /// A subscription without credit for so long while data is there is an event; shorter is a
    /// pause of the client's garbage collector.
    pub stalled_after_ms: u32,
    /// Whether events are written to the topic `__pressure`.
    pub topic: bool,
}

impl Default for PressureOptions {
    fn default() -> PressureOptions {
        PressureOptions {
            parties_max: 100_000,
            events_max: 4_096,
            stalled_after_ms: 10_000,
            topic: true,
        }
    }
}

/// States of the broker that limit everybody, as the tick finds them.
#[derive(Clone, Debug, Default)]
pub struct States {
    /// Level of the disk.
    pub disk: DiskLevel,
    /// Free bytes, and the mark below which user produce is refused.
    pub disk_free: (u64, u64),
    /// The pool for bytes in flight, when it refuses: used and limit.
    pub pool: Option<(u64, u64)>,
    /// What was decided last about each log writer.
    pub writers: Vec<Verdict>,
    /// Whether the broker shuts down.
    pub draining: bool,
}

/// Everything that is known of pressure in one broker.
#[derive(Debug)]
pub struct Pressure {
    settling: Settling,
    names: Arc<Names>,
    registry: Registry,
    events: Events,
    retry_after_ms: Histogram,
    broker: Arc<Party>,
    data_dir: Arc<Party>,
    writers: Mutex<Vec<Arc<Party>>>,
    /// Quotas that refused, until they have not for a minute.
    quotas: Mutex<HashMap<CauseId, Arc<Party>>>,
}

/// Events of one tick: the rest comes with the next.
const EVENTS_PER_TICK: usize = 256;
/// Quotas whose history is kept though nobody meets them any more.
const QUOTAS_KEPT: usize = 1_024;

impl Pressure {
    /// How often [`Pressure::tick`] is to be called.
    pub const TICK: Duration = Duration::from_millis(200);

    /// Nobody is limited.
    pub fn new(options: PressureOptions, now: Duration) -> Pressure {
        let registry = Registry::new(options.parties_max as usize);
        let (broker, data_dir) = (EntityKind::Broker, EntityKind::DataDir);
        Pressure {
            settling: Settling {
                subscription: Duration::from_millis(u64::from(options.stalled_after_ms)),
                ..Settling::default()
            },
            names: Arc::default(),
            broker: registry.named(Entity::new(broker, ""), now),
            data_dir: registry.named(Entity::new(data_dir, ""), now),
            registry,
            events: Events::new(options.events_max as usize),
            retry_after_ms: Histogram::new(),
            writers: Mutex::default(),
            quotas: Mutex::default(),
        }
    }

    /// `party` was refused with `told`.
    pub fn refused(&self, party: &Party, told: &Pushback, now: Duration) {
        party.refused(self.names.told(told), Numbers::of(told, now), now);
    }

    /// Counts a refusal once, whoever it met.
    pub fn count(&self, told: &Pushback, now: Duration) {
        if told.retry_after_ms > 0 {
            self.retry_after_ms.record(u64::from(told.retry_after_ms));
        }
        let cause = self.names.told(told);
        if cause.cause() == Some(Cause::Quota)
            && let Some(name) = self.names.name(cause)
        {
            self.quota(cause, &name, now).refused(cause, Numbers::of(told, now), now);
        }
    }

    /// Names in causes.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// The history of a quota that refused.
    fn quota(&self, cause: CauseId, name: &str, now: Duration) -> Arc<Party> {
        let quota = || self.registry.named(Entity::new(EntityKind::Quota, name), now);
        Arc::clone(self.quotas().entry(cause).or_insert_with(quota))
    }

    /// Looks at everybody. Returns what changed, oldest first; `at` is the wall clock's `now`.
    pub fn tick(&self, states: &States, at: Timestamp, now: Duration) -> Vec<PressureEvent> {
        self.set_states(states, now);
        self.registry.roll_up(now);
        let edges = self.registry.sweep(self.settling, EVENTS_PER_TICK, now);
        let events: Vec<_> = edges.iter().map(|edge| edge.event(&self.names, at, now)).collect();
        events.iter().for_each(|event| self.events.push(event.clone()));
        self.forget_quotas(now);
        events
    }

    /// `group` limits `topic` no more, though it is so far behind: it is gone, as `note` says. Told at
    /// once, and not again by the next tick. `at` is the wall clock's `now`.
    pub fn released(
        &self,
        topic: &Arc<Party>,
        group: CauseId,
        note: String,
        at: Timestamp,
        now: Duration,
    ) {
        topic.free_of(Cause::Backlog, now);
        topic.tell(CauseId::NONE);
        let edge = PressureEdge { party: Arc::clone(topic), from: group, to: CauseId::NONE };
        self.events.push(PressureEvent { note, ..edge.event(&self.names, at, now) });
    }

    /// Everybody at this moment.
    pub fn graph(&self, now: Duration) -> Graph<'_> {
        Graph::of(&self.registry, &self.names, now)
    }

    /// Who makes `target` wait.
    pub fn why(&self, target: &Entity, now: Duration) -> WhyReport {
        why(&self.graph(now), target)
    }

    /// What came and went last.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Everybody.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How long callers were told to wait.
    pub fn retry_after_ms(&self) -> HistogramSnapshot {
        self.retry_after_ms.snapshot()
    }

    fn set_states(&self, states: &States, now: Duration) {
        let disk = match states.disk {
            DiskLevel::Normal => None,
            DiskLevel::Low => Some(Cause::DiskLow),
            DiskLevel::High => Some(Cause::DiskHigh),
            DiskLevel::Full | DiskLevel::Emergency => Some(Cause::DiskFull),
        };
        let bytes = |(observed, limit)| Numbers { observed, limit, unit: "bytes", until: None };
        match disk {
            Some(cause) => self.data_dir.limited(cause.into(), bytes(states.disk_free), now),
            None => self.data_dir.free(now),
        }
        match (states.draining, states.pool) {
            (true, _) => self.broker.limited(Cause::Draining.into(), Numbers::default(), now),
            (false, Some(pool)) => self.broker.limited(Cause::Pool.into(), bytes(pool), now),
            (false, None) => self.broker.free(now),
        }
        self.set_writers(&states.writers, now);
    }

    fn set_writers(&self, verdicts: &[Verdict], now: Duration) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, verdict) in verdicts.iter().enumerate() {
            if writers.len() <= number {
                let entity = Entity::new(EntityKind::Writer, number.to_string());
                writers.push(self.registry.named(entity, now));
            }
            let Some(party) = writers.get(number) else { continue };
            if verdict.load == Load::Calm {
                party.free(now);
                continue;
            }
            let cause = if verdict.sync_bound { Cause::Fsync } else { Cause::Window };
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let (observed, limit) = (millis(verdict.sojourn), millis(verdict.target));
            let numbers = Numbers { observed, limit, unit: "ms", until: None };
            party.limited(self.names.id(cause, &number.to_string()), numbers, now);
        }
    }

    fn forget_quotas(&self, now: Duration) {
        let mut quotas = self.quotas();
        if quotas.len() > QUOTAS_KEPT {
            quotas.retain(|_, party| !party.meter().shares(now).is_empty());
        }
    }

    fn quotas(&self) -> MutexGuard<'_, HashMap<CauseId, Arc<Party>>> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PushbackCode, PushbackScope};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn texts(events: &[PressureEvent]) -> Vec<String> {
        let text = |e: &PressureEvent| format!("{}: {} -> {}", e.entity, e.from, e.to);
        events.iter().map(text).collect()
    }

    #[test]
    fn a_refused_publisher_its_quota_and_its_client_are_told_of() {
        let pressure = Pressure::new(PressureOptions::default(), s(0));
        let registry = pressure.registry();
        let client = registry.named(Entity::new(EntityKind::Client, "shop"), s(0));
        let connection =
            registry.join(Entity::new(EntityKind::Connection, "shop#1"), vec![client], None, s(0));
        let publisher = registry.join(
            Entity::new(EntityKind::Publisher, "shop#1/orders"),
            vec![connection],
            Some("orders"),
            s(0),
        );
        let told = Pushback::hold(
            PushbackCode::ThrottledRate,
            PushbackScope::Principal,
            "quota:client/shop",
        )
        .met(7, 5, "bytes/s")
        .after_ms(30_000);
        pressure.refused(&publisher, &told, s(1));
        pressure.count(&told, s(1));
        let tick = |now| texts(&pressure.tick(&States::default(), Timestamp(0), now));
        assert_eq!(tick(s(1)), ["quota client/shop: none -> quota:client/shop"]);
        assert_eq!(
            tick(s(2)),
            [
                "client shop: none -> quota:client/shop",
                "connection shop#1: none -> quota:client/shop",
                "publisher shop#1/orders: none -> quota:client/shop"
            ]
        );
        assert_eq!(tick(s(20)), Vec::<String>::new(), "edges only");
        let report = pressure.why(&Entity::new(EntityKind::Client, "shop"), s(20));
        assert_eq!(report.root, Entity::new(EntityKind::Quota, "client/shop"));
        assert_eq!(report.until_ms, Some(11_000));
        publisher.admitted(s(31), s(31));
        assert_eq!(tick(s(31)).len(), 3, "its quota may have others");
        assert_eq!(pressure.retry_after_ms().count, 1);
    }

    #[test]
    fn the_disk_and_the_pool_are_states() {
        let pressure = Pressure::new(PressureOptions::default(), s(0));
        let full = States { disk: DiskLevel::Full, disk_free: (3, 4), ..States::default() };
        let tick = |states, now| texts(&pressure.tick(&states, Timestamp(0), now));
        assert_eq!(tick(full.clone(), s(1)), ["data_dir: none -> disk_full"]);
        assert_eq!(tick(full, s(2)), Vec::<String>::new());
        let busy = States { pool: Some((9, 9)), ..States::default() };
        assert_eq!(tick(busy, s(3)), ["broker: none -> pool", "data_dir: disk_full -> none"]);
    }
}
