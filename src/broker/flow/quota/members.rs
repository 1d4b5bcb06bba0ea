//! Who shares one rate, and how much of it each may use now.
//!
//! While all together want less than there is, nobody is held to a share. Else the rate is divided
//! max-min by weight, and whoever wants less than its fair part keeps the right to that part, so
//! that it never waits for those that want more. The rate itself stays the hard limit, so shares
//! may be a little late. What is divided is a little less than the rate while its bucket is nearly
//! empty, and a little more while it is nearly full: so the bucket stays half full, all of the
//! rate is used, and whoever is within its share does not meet an empty bucket.
//!
//! # Invariants
//! While shares are held to, a member's rate >= 90 % of the rate x its weight / all weights.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::broker::flow::{Bucket, Claim, Owing, UNLIMITED, max_min};

/// Demand is looked at over this long: shorter, and a large batch is a peak; longer, and whoever
/// goes keeps its share.
const DEMAND_OVER: Duration = Duration::from_secs(1);
/// Room to grow between two looks, in percent of the demand.
const GROWTH_PERCENT: u64 = 125;
/// Whoever asked for nothing this long is forgotten when nobody holds it.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// All that come when the table is full are one member.
const OVERFLOW: &str = "";

/// One of those who share a rate.
#[derive(Debug)]
pub(super) struct Member {
    share: Bucket,
    weight: AtomicU32,
    /// Units asked for since `Demand` was looked at, whether they passed or not.
    asked: AtomicU64,
}

/// What is remembered of a member between two looks.
#[derive(Debug)]
struct Seen {
    member: Arc<Member>,
    /// Units asked for in the last whole period.
    demand: u64,
    /// When it last asked.
    last: Duration,
}

/// All that share one rate.
#[derive(Debug, Default)]
pub(super) struct Members {
    members: HashMap<String, Seen>,
    period_began: Duration,
    divided: bool,
}

impl Member {
    fn new(weight: u32) -> Member {
        Member {
            share: Bucket::unlimited(),
            weight: AtomicU32::new(weight),
            asked: AtomicU64::new(0),
        }
    }

    /// Takes `units` of its share.
    pub(super) fn charge(&self, units: u64, now: Duration) -> Result<(), Owing> {
        self.asked.fetch_add(units, Ordering::Relaxed);
        self.share.charge(units, now)
    }

    /// Gives back what [`Member::charge`] took.
    pub(super) fn refund(&self, units: u64) {
        self.share.refund(units);
    }

    /// Units left of its share.
    pub(super) fn available(&self, now: Duration) -> u64 {
        self.share.available(now)
    }

    /// Its part per second.
    pub(super) fn rate_per_s(&self) -> u64 {
        self.share.rate_per_s()
    }
}

impl Members {
    /// The member of this name, or that of all who came too late.
    pub(super) fn member(
        &mut self,
        name: &str,
        weight: u32,
        members_max: usize,
        now: Duration,
    ) -> Arc<Member> {
        let full = self.members.len() >= members_max && !self.members.contains_key(name);
        let name = if full { OVERFLOW } else { name };
        let new = || Seen { member: Arc::new(Member::new(weight)), demand: 0, last: now };
        let seen = self.members.entry(name.to_owned()).or_insert_with(new);
        seen.member.weight.store(weight, Ordering::Relaxed);
        Arc::clone(&seen.member)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many asked for something lately; at least 1.
    pub(super) fn active(&self, now: Duration) -> u64 {
        let active = self.members.values().filter(|seen| seen.is_active(now)).count();
        u64::try_from(active).unwrap_or(u64::MAX).max(1)
    }

    /// Looks at who wants how much and divides `rate_per_s` if that is too much. `left` of `burst`
    /// is in the bucket.
    pub(super) fn share_out(&mut self, rate_per_s: u64, burst: u64, left: u64, now: Duration) {
        if self.members.len() < 2 && !self.divided {
            return;
        }
        let over = now.saturating_sub(self.period_began);
        let whole = over >= DEMAND_OVER;
        if whole {
            self.period_began = now;
        }
        for seen in self.members.values_mut() {
            seen.look(if whole { Some(over) } else { None }, now);
        }
        self.members.retain(|_, seen| seen.is_kept(now));
        let active: Vec<&Seen> = self.members.values().filter(|s| s.is_active(now)).collect();
        let claims: Vec<Claim> = active.iter().map(|seen| seen.claim(now)).collect();
        let wanted = claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.want));
        let divide = claims.len() > 1 && rate_per_s != UNLIMITED && wanted > rate_per_s;
        if !divide {
            if std::mem::take(&mut self.divided) {
                let all = self.members.values();
                all.for_each(|seen| seen.member.share.set_rate(UNLIMITED, UNLIMITED, now));
            }
            return;
        }
        self.divided = true;
        let mut shares = Vec::new();
        let rate_per_s = scale(rate_per_s, 900 + scale(200, left, burst), 1_000);
        max_min(rate_per_s, &claims, &mut shares);
        let weights: u64 = claims.iter().map(|claim| u64::from(claim.weight)).sum();
        for ((seen, claim), share) in active.iter().zip(&claims).zip(shares) {
            let part = |whole: u64| scale(whole, u64::from(claim.weight), weights);
            let rate = share.max(part(rate_per_s)).max(1);
            seen.member.share.set_rate(rate, scale(burst, rate, rate_per_s), now);
        }
    }
}

impl Seen {
    /// Counts what was asked; `period` is its length when a whole one passed.
    fn look(&mut self, period: Option<Duration>, now: Duration) {
        let asked = self.member.asked.load(Ordering::Relaxed);
        if asked > 0 {
            self.last = now;
        }
        match period {
            Some(over) => {
                self.member.asked.fetch_sub(asked, Ordering::Relaxed);
                let ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
                self.demand = scale(asked, 1_000, ms);
            }
            None => self.demand = self.demand.max(asked),
        }
    }

    fn is_active(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) < 2 * DEMAND_OVER || self.in_debt(now)
    }

    fn is_kept(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) < FORGET_AFTER || Arc::strong_count(&self.member) > 1
    }

    /// Who used up its share wants all it can get: how much it would ask for nobody knows.
    fn claim(&self, now: Duration) -> Claim {
        let want =
            if self.in_debt(now) { u64::MAX } else { scale(self.demand, GROWTH_PERCENT, 100) };
        Claim { weight: self.member.weight.load(Ordering::Relaxed).max(1), want }
    }

    fn in_debt(&self, now: Duration) -> bool {
        self.member.share.owing(now).is_some()
    }
}

/// `amount * by / of`, without overflow.
fn scale(amount: u64, by: u64, of: u64) -> u64 {
    let scaled = u128::from(amount) * u128::from(by) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
