//! What reports say of pressure: who is limited, by what, since when and until when, what the root
//! of it is and what to do. Plain data; `broker::flow` fills it, front ends carry and show it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{LimitUse, Timestamp};

/// Kinds of things that limit or are limited. The numbers are the wire's and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EntityKind {
    /// The broker as a whole.
    Broker = 1,
    /// The data directory and its disk.
    DataDir = 2,
    /// A log writer.
    Writer = 3,
    /// A topic.
    Topic = 4,
    /// A consumer group.
    Group = 5,
    /// A quota.
    Quota = 6,
    /// A client id, with all its connections.
    Client = 7,
    /// One connection.
    Connection = 8,
    /// A publisher of a connection.
    Publisher = 9,
    /// A subscription of a connection.
    Subscription = 10,
}

impl EntityKind {
    /// All kinds, in wire order: from what concerns all to what concerns one.
    pub const ALL: [EntityKind; 10] = [
        EntityKind::Broker,
        EntityKind::DataDir,
        EntityKind::Writer,
        EntityKind::Topic,
        EntityKind::Group,
        EntityKind::Quota,
        EntityKind::Client,
        EntityKind::Connection,
        EntityKind::Publisher,
        EntityKind::Subscription,
    ];

    /// The name as reports, JSON and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            EntityKind::Broker => "broker",
            EntityKind::DataDir => "data_dir",
            EntityKind::Writer => "writer",
            EntityKind::Topic => "topic",
            EntityKind::Group => "group",
            EntityKind::Quota => "quota",
            EntityKind::Client => "client",
            EntityKind::Connection => "connection",
            EntityKind::Publisher => "publisher",
            EntityKind::Subscription => "subscription",
        }
    }

    /// The wire's number.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<EntityKind> {
        EntityKind::ALL.into_iter().find(|kind| kind.as_u8() == number)
    }
}

/// A text that names no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of thing that is limited; for example topic, group or client")]
pub struct InvalidEntityKind(String);

impl FromStr for EntityKind {
    type Err = InvalidEntityKind;

    fn from_str(text: &str) -> Result<EntityKind, InvalidEntityKind> {
        let found = EntityKind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| InvalidEntityKind(text.to_owned()))
    }
}

/// One thing that limits or is limited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// Its kind.
    pub kind: EntityKind,
    /// Its name: `orders`, `shop#12` for a connection, `shop#12/orders` for a publisher, `` for the
    /// broker.
    pub name: String,
}

impl Entity {
    /// The thing of this kind and name.
    pub fn new(kind: EntityKind, name: impl Into<String>) -> Entity {
        Entity { kind, name: name.into() }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " {}", self.name) }
    }
}

/// For which part of the last minute a cause was binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseShare {
    /// The cause with its name: `fsync`, `backlog:email`.
    pub cause: String,
    /// Its part in per mille.
    pub per_mille: u16,
}

/// Somebody who is limited, or was in the last minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// Who.
    pub entity: Entity,
    /// What limits it now; `none` when nothing does.
    pub by: String,
    /// For how long it has, in milliseconds.
    pub since_ms: Option<u64>,
    /// In how many milliseconds it will no longer, where that is known.
    pub until_ms: Option<u64>,
    /// What limited it in the last minute, largest first.
    pub shares: Vec<CauseShare>,
}

/// A data directory's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPressure {
    /// `normal`, `low`, `high`, `full` or `emergency`.
    pub level: String,
    /// Bytes it could hold.
    pub capacity: u64,
    /// Bytes that are left.
    pub available: u64,
    /// Bytes left at which it counts as low ...
    pub low: u64,
    /// ... as high ...
    pub high: u64,
    /// ... and as full.
    pub full: u64,
    /// Bytes that come in per second.
    pub ingest_bps: u64,
    /// Bytes that are freed per second.
    pub reclaim_bps: u64,
    /// When it will be full if both stay so; `None` = never.
    pub seconds_to_full: Option<u64>,
}

/// A cause that came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureEvent {
    /// When it was seen.
    pub at: Timestamp,
    /// Whose.
    pub entity: Entity,
    /// What limited it before; `none` when nothing did.
    pub from: String,
    /// What limits it from now on; `none` when nothing does.
    pub to: String,
    /// What was measured, in `unit`.
    pub observed: u64,
    /// The limit, in `unit`.
    pub limit: u64,
    /// Unit of both.
    pub unit: String,
    /// When the limited side is to try again, in milliseconds; 0 = no time can be named.
    pub retry_after_ms: u32,
    /// What there is to say beside; mostly empty.
    pub note: String,
}

impl fmt::Display for PressureEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PressureEvent { entity, from, to, observed, limit, unit, retry_after_ms, .. } = self;
        if to == "none" {
            write!(f, "{entity} is no longer limited by {from}")?;
            return if self.note.is_empty() { Ok(()) } else { write!(f, ": {}", self.note) };
        }
        write!(f, "{entity} is limited by {to}")?;
        if *limit > 0 {
            write!(f, ": {observed} of {limit} {unit}")?;
        }
        match retry_after_ms {
            0 => Ok(()),
            ms => write!(f, ", again in {ms} ms"),
        }
    }
}

/// One step from who waits to who makes it wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyStep {
    /// Who.
    pub entity: Entity,
    /// What limits it; `none` when nothing does.
    pub by: String,
    /// For which part of the last minute, in per mille.
    pub per_mille: u16,
    /// What was measured, in `unit`.
    pub observed: u64,
    /// The limit, in `unit`; 0 = none is known.
    pub limit: u64,
    /// Unit of both.
    pub unit: String,
    /// For how long it has been so, in milliseconds.
    pub since_ms: Option<u64>,
    /// In how many milliseconds it ends, where that is known.
    pub until_ms: Option<u64>,
}

/// The way from somebody who is limited to the root of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReport {
    /// From who was asked for to the root; never empty.
    pub steps: Vec<WhyStep>,
    /// Where to do something.
    pub root: Entity,
    /// What to do, in one or two sentences.
    pub advice: String,
    /// In how many milliseconds it ends by itself, where that is known.
    pub until_ms: Option<u64>,
}

/// One number of the broker. Of a histogram there are its `_count`, its `_sum`, and its quantiles
/// under the label `quantile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricValue {
    /// As Prometheus names metrics.
    pub name: String,
    /// What it is of.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: u64,
}

/// Refusals that a dry run did not make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldRefuse {
    /// `quota`, `window` (of a log writer) or `share` (of a publisher in it).
    pub limit: String,
    /// Since the start of the broker.
    pub refusals: u64,
}

/// How much a report is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureQuery {
    /// Most entries of who is limited; at most 1,000 are told.
    pub limited_max: u32,
    /// How far back events are told, in milliseconds; 0 = none.
    pub history_ms: u32,
    /// Whether every number the broker counts is told too.
    pub metrics: bool,
}

impl Default for PressureQuery {
    fn default() -> PressureQuery {
        PressureQuery { limited_max: 100, history_ms: 0, metrics: false }
    }
}

/// What limits whom, right now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureReport {
    /// `on`, `dry_run` or `off`: whether quotas, windows and shares refuse.
    pub enforcement: String,
    /// What those refused that do not, by limit.
    pub would_refuse: Vec<WouldRefuse>,
    /// Every limit with its use, the binding ones first.
    pub limits: Vec<LimitUse>,
    /// Who is limited or was in the last minute: first who is now.
    pub limited: Vec<Limited>,
    /// How many more there are.
    pub limited_left_off: u32,
    /// The disk.
    pub disk: DiskPressure,
    /// What came and went in the time asked for, oldest first; the newest 1,000.
    pub events: Vec<PressureEvent>,
    /// Every number the broker counts, when they were asked for.
    pub metrics: Vec<MetricValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_number_and_one_name() {
        for kind in EntityKind::ALL {
            assert_eq!(EntityKind::from_u8(kind.as_u8()), Some(kind));
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(EntityKind::from_u8(0), None);
        assert!("topics".parse::<EntityKind>().is_err());
    }

    #[test]
    fn entities_are_written_as_people_say_them() {
        assert_eq!(Entity::new(EntityKind::Topic, "orders").to_string(), "topic orders");
        assert_eq!(Entity::new(EntityKind::Broker, "").to_string(), "broker");
    }
}
