//! All limits that one connection, topic or group is under, resolved once.
//!
//! # Invariants
//! - A charge takes from every limit or from none.
//! - Charging and refunding an empty chain costs one comparison.
//! - What is held is given back exactly once, when the hold is dropped, or stays with the topic
//!   when it was kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::limit::Limit;
use super::members::Member;
use super::{Cost, Direction};
use crate::broker::flow::{CauseId, UNLIMITED};
use crate::types::{Class, Pushback, PushbackCode, PushbackScope, QuotaEntity, Resource, Severity};

/// Limits, general before specific.
#[derive(Debug)]
pub struct Chain {
    pub(super) generation: u64,
    pub(super) links: Box<[Link]>,
    pub(super) class_max: Class,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) limit: Arc<Limit>,
    pub(super) member: Option<Arc<Member>>,
}

/// A limit that refused.
#[derive(Clone)]
pub struct QuotaRefusal {
    limit: Arc<Limit>,
    observed: u64,
    of: u64,
    wait: Option<Duration>,
}

/// Longest wait of a reader without asking its quotas again.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Nobody knows when a connection ends: asking once a second is no load.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// Bytes in flight go with the next answers: as the pool says while it does not know its rate.
const IN_FLIGHT_WAIT: Duration = Duration::from_millis(200);

/// What is held of levels; dropping it gives it back.
#[derive(Debug, Default)]
#[must_use = "dropping it gives everything back"]
pub struct LevelHold(Vec<(Arc<Limit>, u64)>);

impl Chain {
    /// Whether there is no limit at all: the hot path ends here.
    pub fn is_unlimited(&self) -> bool {
        self.links.is_empty()
    }

    /// Takes `cost` from every rate, or nothing when one of them refuses.
    pub fn charge(&self, cost: &Cost, now: Duration) -> Result<(), QuotaRefusal> {
        for (at, link) in self.links.iter().enumerate() {
            let units = cost.of(link.limit.resource());
            if units == 0 {
                continue;
            }
            if let Err(owing) = link.limit.charge(link.member.as_deref(), units, now) {
                self.links.iter().take(at).for_each(|link| link.refund(cost));
                return Err(link.refusal(owing.debt, owing.wait));
            }
        }
        Ok(())
    }

    /// Gives back bytes and records of what was charged and had no effect. A request was still
    /// made, so requests are not given back.
    pub fn refund(&self, cost: &Cost) {
        let cost = cost.refundable();
        self.links.iter().for_each(|link| link.refund(&cost));
    }

    /// Bytes a grant or a push may hand out now.
    pub fn allowance_bytes(&self, direction: Direction, now: Duration) -> u64 {
        self.allowance(direction, now).map_or(UNLIMITED, |(bytes, _)| bytes)
    }

    /// What [`Chain::allowance_bytes`] comes from, or `None` without a limit on bytes.
    pub fn allowance(&self, direction: Direction, now: Duration) -> Option<(u64, CauseId)> {
        let links = self.links.iter().filter(|l| l.limit.resource() == direction.bytes());
        let allowed = links
            .map(|link| (link.limit.available(link.member.as_deref(), now), link.limit.cause()));
        allowed.filter(|(bytes, _)| *bytes != UNLIMITED).min_by_key(|(bytes, _)| *bytes)
    }

    /// Holds `amount` of a level until the hold is dropped.
    pub fn hold(&self, resource: Resource, amount: u64) -> Result<LevelHold, QuotaRefusal> {
        let mut hold = LevelHold::default();
        for link in self.links.iter().filter(|link| link.limit.resource() == resource) {
            link.limit.hold(amount).map_err(|held| link.full(held))?;
            hold.0.push((Arc::clone(&link.limit), amount));
        }
        Ok(hold)
    }

    /// Holds `amount` of a level whatever there is: it was there before the limit.
    pub(super) fn hold_anyway(&self, resource: Resource, amount: u64) -> LevelHold {
        let links = self.links.iter().filter(|link| link.limit.resource() == resource);
        let hold = links.inspect(|link| link.limit.hold_anyway(amount));
        LevelHold(hold.map(|link| (Arc::clone(&link.limit), amount)).collect())
    }

    /// The most important class that may be asked for.
    pub fn class_max(&self) -> Class {
        self.class_max
    }
}

impl Link {
    fn refund(&self, cost: &Cost) {
        let units = cost.of(self.limit.resource());
        if units > 0 {
            self.limit.refund(self.member.as_deref(), units);
        }
    }

    fn refusal(&self, debt: u64, wait: Duration) -> QuotaRefusal {
        let share = self.member.as_ref().map_or(UNLIMITED, |member| member.rate_per_s());
        let of = self.limit.most().min(share);
        let wait = (wait != Duration::MAX).then_some(wait);
        QuotaRefusal { limit: Arc::clone(&self.limit), observed: of.saturating_add(debt), of, wait }
    }

    fn full(&self, held: u64) -> QuotaRefusal {
        let of = self.limit.most();
        let wait = match self.limit.resource() {
            Resource::Connections => Some(CONNECTION_WAIT),
            Resource::InflightBytes => Some(IN_FLIGHT_WAIT),
            _ => None,
        };
        let wait = wait.filter(|_| of > 0);
        QuotaRefusal { limit: Arc::clone(&self.limit), observed: held, of, wait }
    }
}

impl LevelHold {
    /// What was held is there for good: stored bytes that were written.
    pub fn keep(mut self) {
        for (limit, amount) in self.0.drain(..) {
            limit.keep(amount);
        }
    }
}

impl Drop for LevelHold {
    fn drop(&mut self) {
        for (limit, amount) in self.0.drain(..) {
            limit.give(amount);
        }
    }
}

impl QuotaRefusal {
    /// The cause, for meters.
    pub fn cause(&self) -> CauseId {
        self.limit.cause()
    }

    /// When to come back, where a time can be named: exact for rates, a guess for connections and bytes
    /// in flight.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// How long a reader waits before it asks again: a quota may be edited meanwhile.
    pub fn pause(&self) -> Duration {
        self.wait.unwrap_or(PAUSE_MAX).min(PAUSE_MAX)
    }

    /// As everybody is told it. The time is rounded up to a millisecond; 0 = none can be named.
    pub fn pushback(&self) -> Pushback {
        let limit_id = format!("quota:{}", self.limit.entity());
        let code = code(self.limit.resource());
        let scope = scope(self.limit.entity());
        let forever = self.limit.resource() == Resource::StorageBytes || self.of == 0;
        let refused = if forever {
            Pushback::reject(code, scope, limit_id)
        } else {
            Pushback::hold(code, scope, limit_id)
        };
        let wait_ms = self.wait.map_or(0, |wait| wait.as_nanos().div_ceil(1_000_000));
        refused
            .met(self.observed, self.of, self.limit.resource().unit())
            .after_ms(u32::try_from(wait_ms).unwrap_or(u32::MAX))
    }
}

impl fmt::Debug for QuotaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {:?}", self.limit.resource().name(), self.limit.entity(), self.wait)
    }
}

/// A refusal as its sender is told it that waits so long for an answer: whose quota lets nothing through
/// before the deadline need not wait for it.
pub fn in_time(refusal: Pushback, deadline: Option<Duration>) -> Pushback {
    let Some(deadline) = deadline.filter(|_| refusal.code == PushbackCode::ThrottledRate) else {
        return refusal;
    };
    let wait = Duration::from_millis(u64::from(refusal.retry_after_ms));
    if wait.is_zero() || wait < deadline {
        return refusal;
    }
    let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let late = Pushback {
        code: PushbackCode::DeadlineUnmeetable,
        severity: Severity::Reject,
        ..refusal.clone()
    };
    late.met(u64::from(refusal.retry_after_ms), millis, "ms")
}

fn code(resource: Resource) -> PushbackCode {
    match resource {
        Resource::PartitionMutations => PushbackCode::MetadataRate,
        Resource::Connections | Resource::ConnectionRate => PushbackCode::ConnLimit,
        Resource::InflightBytes => PushbackCode::ServerBusy,
        Resource::StorageBytes => PushbackCode::TopicFull,
        _ => PushbackCode::ThrottledRate,
    }
}

fn scope(entity: &QuotaEntity) -> PushbackScope {
    match entity {
        QuotaEntity::Broker => PushbackScope::Broker,
        QuotaEntity::Topic(_) | QuotaEntity::PrincipalTopic { .. } => PushbackScope::Topic,
        QuotaEntity::Group(_) => PushbackScope::Group,
        _ => PushbackScope::Principal,
    }
}
