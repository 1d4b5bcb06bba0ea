//! The typed refusal (DESIGN section 4): who limits, why, for how long, and whether the refused
//! write had any effect. One value for every front end; each translates it at its own edge.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Class;

/// Why a write was slowed, held or refused. The numbers are the wire's and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum PushbackCode {
    /// A rate quota of the principal, client or topic is spent.
    ThrottledRate = 1,
    /// The pool for bytes in flight, or a queue of the broker, is full.
    ServerBusy = 2,
    /// Little disk space is left: slower.
    DiskLow = 3,
    /// No disk space is left for user data; reads, commits and deletes go on.
    DiskFull = 4,
    /// The topic reached its own limit and its policy is to refuse.
    TopicFull = 5,
    /// A protected group is too far behind.
    BacklogLimit = 6,
    /// The answer could not come before the caller's deadline.
    DeadlineUnmeetable = 7,
    /// More was sent than granted.
    CreditViolation = 8,
    /// Too many connections, or too many requests in flight on one.
    ConnLimit = 9,
    /// The broker is shutting down.
    Draining = 10,
    /// Topics, partitions or quotas are changed too often.
    MetadataRate = 11,
}

impl PushbackCode {
    /// All codes, in wire order.
    pub const ALL: [PushbackCode; 11] = [
        PushbackCode::ThrottledRate,
        PushbackCode::ServerBusy,
        PushbackCode::DiskLow,
        PushbackCode::DiskFull,
        PushbackCode::TopicFull,
        PushbackCode::BacklogLimit,
        PushbackCode::DeadlineUnmeetable,
        PushbackCode::CreditViolation,
        PushbackCode::ConnLimit,
        PushbackCode::Draining,
        PushbackCode::MetadataRate,
    ];

    /// The wire's number.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<PushbackCode> {
        PushbackCode::ALL.into_iter().find(|code| code.as_u8() == number)
    }

    /// The name as documents, JSON and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            PushbackCode::ThrottledRate => "THROTTLED_RATE",
            PushbackCode::ServerBusy => "SERVER_BUSY",
            PushbackCode::DiskLow => "DISK_LOW",
            PushbackCode::DiskFull => "DISK_FULL",
            PushbackCode::TopicFull => "TOPIC_FULL",
            PushbackCode::BacklogLimit => "BACKLOG_LIMIT",
            PushbackCode::DeadlineUnmeetable => "DEADLINE_UNMEETABLE",
            PushbackCode::CreditViolation => "CREDIT_VIOLATION",
            PushbackCode::ConnLimit => "CONN_LIMIT",
            PushbackCode::Draining => "DRAINING",
            PushbackCode::MetadataRate => "METADATA_RATE",
        }
    }
}

/// What the limit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PushbackScope {
    /// The whole broker.
    Broker = 1,
    /// The data directory.
    DataDir = 2,
    /// One topic.
    Topic = 3,
    /// One partition.
    Partition = 4,
    /// One connection.
    Connection = 5,
    /// One publisher.
    Publisher = 6,
    /// One consumer group.
    Group = 7,
    /// One authenticated principal or client id.
    Principal = 8,
}

impl PushbackScope {
    /// All scopes, in wire order.
    pub const ALL: [PushbackScope; 8] = [
        PushbackScope::Broker,
        PushbackScope::DataDir,
        PushbackScope::Topic,
        PushbackScope::Partition,
        PushbackScope::Connection,
        PushbackScope::Publisher,
        PushbackScope::Group,
        PushbackScope::Principal,
    ];

    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<PushbackScope> {
        PushbackScope::ALL.into_iter().find(|scope| *scope as u8 == number)
    }
}

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Severity {
    /// Accepted; send slower.
    Slow = 1,
    /// Not accepted now; send again after `retry_after_ms`.
    Hold = 2,
    /// Refused until something outside changes.
    Reject = 3,
}

impl Severity {
    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<Severity> {
        [Severity::Slow, Severity::Hold, Severity::Reject].into_iter().find(|s| *s as u8 == number)
    }
}

/// Whether the refused write changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Effects {
    /// Nothing was written: safe to send again even without idempotence.
    None = 0,
    /// It may have been written: only an idempotent producer may send again.
    Unknown = 1,
}

/// One refusal, with everything the refused side needs to act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushback {
    /// Why.
    pub code: PushbackCode,
    /// What the limit belongs to.
    pub scope: PushbackScope,
    /// What to do.
    pub severity: Severity,
    /// Whether anything was written.
    pub effects: Effects,
    /// When to try again, in milliseconds; 0 = no time can be named.
    pub retry_after_ms: u32,
    /// The measured value that met the limit, in `unit`.
    pub observed: u64,
    /// The limit, in `unit`.
    pub limit: u64,
    /// Unit of `observed` and `limit`: `bytes`, `records`, `ms`, `segments`, `connections`, ...
    pub unit: String,
    /// The least important class that is still let in, when classes make the difference.
    pub min_class: Option<Class>,
    /// Which limit, as `stoplog pressure` names it: `pool`, `disk:full`, `quota:client/shop`,
    /// `backlog:email`, ...
    pub limit_id: String,
}

impl Pushback {
    /// Not accepted now, without effects.
    pub fn hold(code: PushbackCode, scope: PushbackScope, limit_id: impl Into<String>) -> Pushback {
        Pushback {
            code,
            scope,
            severity: Severity::Hold,
            effects: Effects::None,
            retry_after_ms: 0,
            observed: 0,
            limit: 0,
            unit: String::new(),
            min_class: None,
            limit_id: limit_id.into(),
        }
    }

    /// Refused until something outside changes, without effects.
    pub fn reject(
        code: PushbackCode,
        scope: PushbackScope,
        limit_id: impl Into<String>,
    ) -> Pushback {
        Pushback { severity: Severity::Reject, ..Pushback::hold(code, scope, limit_id) }
    }

    /// What was measured, and the limit it met.
    #[must_use]
    pub fn met(self, observed: u64, limit: u64, unit: &str) -> Pushback {
        Pushback { observed, limit, unit: unit.to_owned(), ..self }
    }

    /// When to try again.
    #[must_use]
    pub fn after_ms(self, retry_after_ms: u32) -> Pushback {
        Pushback { retry_after_ms, ..self }
    }

    /// The broker shuts down; it, or its successor, is there again about then.
    pub fn draining() -> Pushback {
        Pushback::hold(PushbackCode::Draining, PushbackScope::Broker, "draining")
            .met(0, 0, "requests")
            .after_ms(1_000)
    }
}

impl fmt::Display for Pushback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} {}", self.code.name(), self.observed, self.limit, self.unit)?;
        if !self.limit_id.is_empty() {
            write!(f, " ({})", self.limit_id)?;
        }
        if self.retry_after_ms > 0 {
            write!(f, "; try again in {} ms", self.retry_after_ms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_round_trip() {
        for code in PushbackCode::ALL {
            assert_eq!(PushbackCode::from_u8(code.as_u8()), Some(code));
        }
        assert_eq!(PushbackCode::from_u8(0), None);
        assert_eq!(PushbackCode::from_u8(12), None);
        for scope in PushbackScope::ALL {
            assert_eq!(PushbackScope::from_u8(scope as u8), Some(scope));
        }
    }
}
