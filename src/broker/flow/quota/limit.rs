//! One limit: of one resource, for one entity. A rate is a bucket and those who share it, a level
//! is a count of what is held.
//!
//! # Invariants
//! - Enforced levels: held + stored <= the limit, but for what was held when it was lowered.
//! - In a dry run nothing is refused, and what would have been is not taken either: it is counted
//!   as the limit in force would have decided.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::members::{Member, Members};
use crate::broker::flow::{Bucket, CauseId, Owing, UNLIMITED};
use crate::metrics::Counter;
use crate::types::{QuotaEntity, QuotaMode, QuotaUse, Resource};

/// A limit in force.
#[derive(Debug)]
pub(super) struct Limit {
    entity: QuotaEntity,
    resource: Resource,
    cause: CauseId,
    dry_run: AtomicBool,
    /// The limit; [`UNLIMITED`] once it was taken away.
    most: AtomicU64,
    /// Rates: what there is.
    bucket: Bucket,
    members: Mutex<Members>,
    /// Levels: what is held, and what was measured to be there for good.
    held: AtomicU64,
    stored: AtomicU64,
    /// Rates: units that passed, and how many did per second in the last whole second.
    passed: AtomicU64,
    passed_per_s: AtomicU64,
    counted: Mutex<(Duration, u64)>,
    refused: Counter,
    would_throttle: Counter,
}

impl Limit {
    pub(super) fn new(entity: QuotaEntity, resource: Resource, cause: CauseId) -> Limit {
        Limit {
            entity,
            resource,
            cause,
            dry_run: AtomicBool::new(false),
            most: AtomicU64::new(UNLIMITED),
            bucket: Bucket::unlimited(),
            members: Mutex::default(),
            held: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            passed_per_s: AtomicU64::new(0),
            counted: Mutex::default(),
            refused: Counter::new(),
            would_throttle: Counter::new(),
        }
    }

    /// Changes the limit; debts and what is held stay.
    pub(super) fn set(&self, most: u64, burst: u64, mode: QuotaMode, now: Duration) {
        self.dry_run.store(mode == QuotaMode::DryRun, Ordering::Relaxed);
        self.most.store(most, Ordering::Relaxed);
        if self.resource.is_rate() {
            self.bucket.set_rate(most, burst, now);
        }
    }

    pub(super) fn entity(&self) -> &QuotaEntity {
        &self.entity
    }

    pub(super) fn resource(&self) -> Resource {
        self.resource
    }

    pub(super) fn cause(&self) -> CauseId {
        self.cause
    }

    pub(super) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// Takes `units` from the member's share and from the whole, or from neither.
    pub(super) fn charge(
        &self,
        member: Option<&Member>,
        units: u64,
        now: Duration,
    ) -> Result<(), Owing> {
        let charged = match member {
            Some(member) => member.charge(units, now).and_then(|()| {
                self.bucket.charge(units, now).inspect_err(|_| member.refund(units))
            }),
            None => self.bucket.charge(units, now),
        };
        match charged {
            Ok(()) => {
                self.passed.fetch_add(units, Ordering::Relaxed);
                Ok(())
            }
            Err(_) if self.is_dry_run() => {
                self.would_throttle.increment();
                Ok(())
            }
            Err(owing) => {
                self.refused.increment();
                Err(owing)
            }
        }
    }

    /// Gives back what [`Limit::charge`] took. A dry run, which may have taken nothing, gives
    /// nothing back: it counts a little too much rather than too little.
    pub(super) fn refund(&self, member: Option<&Member>, units: u64) {
        if self.is_dry_run() {
            return;
        }
        self.bucket.refund(units);
        member.into_iter().for_each(|member| member.refund(units));
        subtract(&self.passed, units);
    }

    /// Holds `amount` more of a level; `Err` says how much there is.
    pub(super) fn hold(&self, amount: u64) -> Result<(), u64> {
        let (most, stored) = (self.most(), self.stored.load(Ordering::Acquire));
        let fits = |held: u64| {
            let sum = held.saturating_add(amount);
            (sum.saturating_add(stored) <= most).then_some(sum)
        };
        match self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(()),
            Err(_) if self.is_dry_run() => {
                self.would_throttle.increment();
                self.hold_anyway(amount);
                Ok(())
            }
            Err(held) => {
                self.refused.increment();
                Err(held.saturating_add(stored))
            }
        }
    }

    /// Holds `amount` more, whatever there is.
    pub(super) fn hold_anyway(&self, amount: u64) {
        self.held.fetch_add(amount, Ordering::AcqRel);
    }

    /// Gives back what [`Limit::hold`] took.
    pub(super) fn give(&self, amount: u64) {
        subtract(&self.held, amount);
    }

    /// What was held is there for good, until the next measurement.
    pub(super) fn keep(&self, amount: u64) {
        self.stored.fetch_add(amount, Ordering::AcqRel);
        self.give(amount);
    }

    pub(super) fn measured(&self, stored: u64) {
        self.stored.store(stored, Ordering::Release);
    }

    /// Units of it that one member could use at once.
    pub(super) fn available(&self, member: Option<&Member>, now: Duration) -> u64 {
        if self.is_dry_run() {
            return UNLIMITED;
        }
        let all = self.bucket.available(now);
        let Some(member) = member.filter(|_| all != UNLIMITED) else { return all };
        (all / self.members().active(now)).min(member.available(now))
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Divides the rate among its members and looks at what passed.
    pub(super) fn tick(&self, burst: u64, now: Duration) {
        if !self.resource.is_rate() {
            return;
        }
        let shared = if self.is_dry_run() { UNLIMITED } else { self.most() };
        self.members().share_out(shared, burst, self.bucket.available(now), now);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let over = now.saturating_sub(counted.0);
        if over >= Duration::from_secs(1) {
            let passed = self.passed.load(Ordering::Relaxed);
            let new = u128::from(passed.saturating_sub(counted.1));
            let per_s = new * 1_000 / over.as_millis().max(1);
            self.passed_per_s.store(u64::try_from(per_s).unwrap_or(u64::MAX), Ordering::Relaxed);
            *counted = (now, passed);
        }
    }

    /// Whether nothing would be lost by forgetting it: nobody holds it, owes it or fills it.
    pub(super) fn is_idle(self: &Arc<Limit>, now: Duration) -> bool {
        let owed = self.most() > 0 && self.bucket.owing(now).is_some();
        let held = self.held.load(Ordering::Acquire) > 0;
        Arc::strong_count(self) == 1 && !owed && !held
    }

    pub(super) fn report(&self) -> QuotaUse {
        let used = if self.resource.is_rate() {
            self.passed_per_s.load(Ordering::Relaxed)
        } else {
            let held = self.held.load(Ordering::Acquire);
            held.saturating_add(self.stored.load(Ordering::Acquire))
        };
        let (refused, would_throttle) = self.counts();
        QuotaUse {
            entity: self.entity.clone(),
            resource: self.resource,
            used,
            limit: self.most(),
            refused,
            would_throttle,
            members: u32::try_from(self.members().len()).unwrap_or(u32::MAX),
        }
    }

    /// What it refused, and what it would have refused.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.refused.value(), self.would_throttle.value())
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run.load(Ordering::Relaxed)
    }
}

fn subtract(from: &AtomicU64, amount: u64) {
    let less = |value: u64| Some(value.saturating_sub(amount));
    // The closure always answers, so the update cannot fail.
    let _ = from.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
}
