//! What every batch of a limited topic passes: stored bytes plus those admitted and not yet answered.
//!
//! [`super::TopicWatch`] looks at the topic now and then and sets the slope and the time of its
//! retention edge; nothing here waits for it to be exact.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::broker::flow::binding::Binding;
use crate::broker::flow::{Bucket, Cause, Settled};
use crate::types::{OnFull, Pushback, PushbackCode, PushbackScope, Severity, TopicConfig};

/// While the oldest segments are dropped, a producer comes back this soon.
const DROP_RETRY_AFTER_MS: u32 = 100;
/// For how long `hold` withholds grants before it refuses.
const HOLD_FOR: Duration = Duration::from_secs(5);
/// `throttle` begins above this part of the limit, in per cent.
const THROTTLE_FROM_PERCENT: u64 = 90;

/// What happens at a topic's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLimit {
    /// Refuse.
    Reject,
    /// Drop the oldest segments.
    DropOldest,
    /// Slow down before it.
    Throttle,
    /// Wait a little for room.
    Hold,
}

impl From<OnFull> for AtLimit {
    fn from(on_full: OnFull) -> AtLimit {
        match on_full {
            OnFull::Reject => AtLimit::Reject,
            OnFull::DropOldest => AtLimit::DropOldest,
            OnFull::Throttle => AtLimit::Throttle,
            OnFull::Hold => AtLimit::Hold,
        }
    }
}

/// The rules of one topic, as its settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// Bytes it may store.
    pub max_bytes: u64,
    /// What happens there.
    pub at_limit: AtLimit,
    /// By how much it may run over while the oldest go: dropping works in whole segments and takes a
    /// moment. Counts for `drop_oldest` alone.
    pub slack: u64,
}

/// A topic that drops its oldest segments may run over its limit by at least this.
const SLACK_BYTES_MIN: u64 = 1 << 20;

impl TopicRules {
    /// What a topic's settings say; `None` when it may store as many bytes as it likes.
    pub fn of(config: &TopicConfig) -> Option<TopicRules> {
        let max_bytes = config.max_bytes?;
        let slack = (max_bytes / 4).max(SLACK_BYTES_MIN);
        Some(TopicRules { max_bytes, at_limit: config.on_full.into(), slack })
    }
}

/// What an admission means for the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRoom {
    /// It fits.
    Enough,
    /// It is taken, and the oldest segments must go.
    DropOldest,
}

/// The bytes of one topic.
#[derive(Debug)]
pub struct TopicLimit {
    stored: AtomicU64,
    reserved: AtomicU64,
    /// Written since the start.
    written: AtomicU64,
    slope: Bucket,
    /// When the first batch of this stretch met the limit, in nanoseconds + 1; 0 = none did.
    full_since_ns: AtomicU64,
    /// When the oldest segment's retention ends, in milliseconds; `u64::MAX` = it never does.
    edge_at_ms: AtomicU64,
    /// The oldest segment is protected: nothing goes.
    protected: AtomicBool,
    binding: Binding,
}

impl Default for TopicLimit {
    fn default() -> TopicLimit {
        TopicLimit {
            stored: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            written: AtomicU64::new(0),
            slope: Bucket::unlimited(),
            full_since_ns: AtomicU64::new(0),
            edge_at_ms: AtomicU64::new(u64::MAX),
            protected: AtomicBool::new(false),
            binding: Binding::default(),
        }
    }
}

impl TopicLimit {
    /// Reserves `bytes` until [`TopicLimit::settle`], or refuses with TOPIC_FULL.
    pub fn admit(
        &self,
        bytes: u64,
        rules: &TopicRules,
        now: Duration,
    ) -> Result<TopicRoom, Pushback> {
        let stored = self.stored.load(Ordering::Acquire);
        let limit = rules.max_bytes.saturating_add(self.slack(rules));
        let fits = |reserved: u64| {
            let sum = reserved.saturating_add(bytes);
            (stored.saturating_add(sum) <= limit).then_some(sum)
        };
        let taken = self.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        let total = match taken {
            Ok(reserved) => stored.saturating_add(reserved).saturating_add(bytes),
            Err(reserved) => {
                let observed = stored.saturating_add(reserved).saturating_add(bytes);
                return Err(self.refuse_full(observed, rules, now));
            }
        };
        if total > throttle_from(rules)
            && let Err(owing) = self.slope.charge(bytes, now)
        {
            self.reserved.fetch_sub(bytes, Ordering::AcqRel);
            let wait = millis_up(owing.wait);
            return Err(self.refuse(Severity::Hold, wait, total, rules, now));
        }
        if self.full_since_ns.load(Ordering::Relaxed) > 0 {
            self.full_since_ns.store(0, Ordering::Relaxed);
        }
        Ok(if total > rules.max_bytes { TopicRoom::DropOldest } else { TopicRoom::Enough })
    }

    /// What became of reserved bytes.
    pub fn settle(&self, bytes: u64, outcome: Settled) {
        match outcome {
            Settled::Written => {
                self.stored.fetch_add(bytes, Ordering::AcqRel);
                self.written.fetch_add(bytes, Ordering::Relaxed);
            }
            // A refund of what was charged below 90 % gives a little too much back, once.
            Settled::Nothing => self.slope.refund(bytes),
        }
        self.reserved.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// What grants may hand out, and what limits it: `hold` withholds while the topic is full,
    /// `throttle` gives what the slope has.
    pub fn room(&self, rules: &TopicRules, now: Duration) -> (u64, Cause) {
        let used = self.stored().saturating_add(self.reserved.load(Ordering::Acquire));
        let limit = rules.max_bytes.saturating_add(self.slack(rules));
        let left = limit.saturating_sub(used);
        let room = match rules.at_limit {
            AtLimit::Hold if self.held_for(now).is_some_and(|held| held < HOLD_FOR) => 0,
            AtLimit::Throttle if used > throttle_from(rules) => left.min(self.slope.available(now)),
            _ => left,
        };
        (room, Cause::TopicFull)
    }

    /// Sets what storage counts; called at start and after segments went.
    pub fn measured(&self, stored: u64) {
        self.stored.store(stored, Ordering::Release);
    }

    /// Bytes stored, as counted.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// Bytes written since the start.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Refusals, and the length of the current stretch of them in milliseconds.
    pub fn refusals(&self, now: Duration) -> (u64, Option<u64>) {
        (self.binding.refusals(), self.binding.since_ms(now))
    }

    /// Makes what a look decided effective: bytes per second from 90 % on (`u64::MAX` = no limit),
    /// the time to the retention edge, and whether anything may be dropped.
    pub(super) fn publish(
        &self,
        slope_bps: u64,
        edge: Option<Duration>,
        protected: bool,
        now: Duration,
    ) {
        self.slope.set_rate(slope_bps, slope_bps, now);
        let at = edge.map_or(u64::MAX, |edge| wide_millis(now.saturating_add(edge)));
        self.edge_at_ms.store(at, Ordering::Relaxed);
        self.protected.store(protected, Ordering::Relaxed);
    }

    fn slack(&self, rules: &TopicRules) -> u64 {
        match rules.at_limit {
            AtLimit::DropOldest if !self.protected.load(Ordering::Relaxed) => rules.slack,
            _ => 0,
        }
    }

    /// For how long the topic has been full for those that came.
    fn held_for(&self, now: Duration) -> Option<Duration> {
        let since = self.full_since_ns.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_sub(Duration::from_nanos(since)))
    }

    /// Until the retention edge and a moment beyond it, in which its segment goes; 0 = no time can be
    /// named.
    fn edge_ms(&self, now: Duration) -> u32 {
        match self.edge_at_ms.load(Ordering::Relaxed) {
            u64::MAX => 0,
            at => {
                let left = at.saturating_sub(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
                u32::try_from(left).unwrap_or(u32::MAX).max(DROP_RETRY_AFTER_MS)
            }
        }
    }

    fn refuse_full(&self, observed: u64, rules: &TopicRules, now: Duration) -> Pushback {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        let since = &self.full_since_ns;
        let _ = since.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
        let held = self.held_for(now).unwrap_or(Duration::ZERO);
        let edge_ms = self.edge_ms(now);
        let protected = self.protected.load(Ordering::Relaxed);
        let (severity, retry_after_ms) = match rules.at_limit {
            AtLimit::DropOldest if !protected => (Severity::Hold, DROP_RETRY_AFTER_MS),
            AtLimit::Reject | AtLimit::DropOldest => (Severity::Reject, edge_ms),
            AtLimit::Throttle => {
                let wait = self.slope.owing(now).map_or(0, |owing| millis_up(owing.wait));
                (Severity::Hold, wait.max(edge_ms))
            }
            AtLimit::Hold if held < HOLD_FOR => (Severity::Hold, millis_up(HOLD_FOR - held)),
            AtLimit::Hold => (Severity::Reject, edge_ms),
        };
        self.refuse(severity, retry_after_ms, observed, rules, now)
    }

    fn refuse(
        &self,
        severity: Severity,
        retry_after_ms: u32,
        observed: u64,
        rules: &TopicRules,
        now: Duration,
    ) -> Pushback {
        self.binding.refused(now);
        Pushback {
            severity,
            ..Pushback::hold(PushbackCode::TopicFull, PushbackScope::Topic, "topic")
                .met(observed, rules.max_bytes, "bytes")
                .after_ms(retry_after_ms)
        }
    }
}

/// Bytes from which on the slope counts; `u64::MAX` for policies without one.
pub(super) fn throttle_from(rules: &TopicRules) -> u64 {
    match rules.at_limit {
        AtLimit::Throttle => {
            let from = u128::from(rules.max_bytes) * u128::from(THROTTLE_FROM_PERCENT) / 100;
            u64::try_from(from).unwrap_or(u64::MAX)
        }
        _ => u64::MAX,
    }
}

fn millis_up(time: Duration) -> u32 {
    u32::try_from(wide_millis(time)).unwrap_or(u32::MAX)
}

fn wide_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn rules(at_limit: AtLimit) -> TopicRules {
        TopicRules { max_bytes: 100, at_limit, slack: 20 }
    }

    #[test]
    fn reject_counts_what_is_under_way() {
        let (limit, rules) = (TopicLimit::default(), rules(AtLimit::Reject));
        assert_eq!(limit.admit(60, &rules, ms(0)), Ok(TopicRoom::Enough));
        let refused = limit.admit(60, &rules, ms(0)).expect_err("120 of 100");
        assert_eq!((refused.code, refused.severity), (PushbackCode::TopicFull, Severity::Reject));
        assert_eq!((refused.observed, refused.retry_after_ms), (120, 0));
        limit.settle(60, Settled::Nothing);
        assert_eq!(limit.admit(60, &rules, ms(0)), Ok(TopicRoom::Enough));
        limit.settle(60, Settled::Written);
        assert_eq!((limit.stored(), limit.room(&rules, ms(0)).0), (60, 40));
        limit.publish(u64::MAX, Some(ms(7_000)), false, ms(0));
        let refused = limit.admit(60, &rules, ms(0)).expect_err("120 of 100");
        assert_eq!(refused.retry_after_ms, 7_000, "then the oldest segment goes by age");
    }

    #[test]
    fn drop_oldest_takes_a_little_more_and_then_holds() {
        let (limit, rules) = (TopicLimit::default(), rules(AtLimit::DropOldest));
        limit.measured(100);
        assert_eq!(limit.admit(10, &rules, ms(0)), Ok(TopicRoom::DropOldest));
        let held = limit.admit(11, &rules, ms(0)).expect_err("beyond the slack");
        assert_eq!((held.severity, held.retry_after_ms), (Severity::Hold, 100));
        assert_eq!(limit.refusals(ms(0)).0, 1);
    }

    #[test]
    fn protected_data_makes_drop_oldest_reject() {
        let (limit, rules) = (TopicLimit::default(), rules(AtLimit::DropOldest));
        limit.measured(95);
        limit.publish(u64::MAX, None, true, ms(0));
        assert_eq!(limit.admit(5, &rules, ms(0)), Ok(TopicRoom::Enough));
        let refused = limit.admit(1, &rules, ms(0)).expect_err("nothing may go");
        assert_eq!(refused.severity, Severity::Reject);
    }

    #[test]
    fn hold_withholds_grants_for_five_seconds_and_then_rejects() {
        let (limit, rules) = (TopicLimit::default(), rules(AtLimit::Hold));
        limit.measured(95);
        assert_eq!(limit.room(&rules, ms(1_000)).0, 5);
        let held = limit.admit(10, &rules, ms(1_000)).expect_err("105 of 100");
        assert_eq!((held.severity, held.retry_after_ms), (Severity::Hold, 5_000));
        assert_eq!(limit.room(&rules, ms(2_000)).0, 0);
        let held = limit.admit(10, &rules, ms(4_500)).expect_err("still");
        assert_eq!((held.severity, held.retry_after_ms), (Severity::Hold, 1_500));
        let refused = limit.admit(10, &rules, ms(6_000)).expect_err("five seconds later");
        assert_eq!((refused.severity, refused.retry_after_ms), (Severity::Reject, 0));
        limit.measured(50);
        assert_eq!(limit.admit(10, &rules, ms(7_000)), Ok(TopicRoom::Enough));
        limit.measured(100);
        let held = limit.admit(10, &rules, ms(60_000)).expect_err("full again");
        assert_eq!((held.severity, held.retry_after_ms), (Severity::Hold, 5_000), "a new stretch");
    }

    #[test]
    fn throttle_slows_from_90_percent_on_and_its_wait_is_exact() {
        let limit = TopicLimit::default();
        let rules = TopicRules { max_bytes: 100_000, ..rules(AtLimit::Throttle) };
        limit.measured(80_000);
        limit.publish(1_000, None, false, ms(0));
        limit.admit(10_000, &rules, ms(0)).expect("up to 90 % nothing slows");
        limit.settle(10_000, Settled::Written);
        assert_eq!(limit.room(&rules, ms(0)).0, 10_000);
        limit.admit(2_000, &rules, ms(0)).expect("a second of the slope, and this batch");
        assert_eq!(limit.room(&rules, ms(0)).0, 0);
        let held = limit.admit(1, &rules, ms(0)).expect_err("in debt");
        assert_eq!((held.severity, held.retry_after_ms), (Severity::Hold, 1_001));
        assert!(limit.admit(1, &rules, ms(1_000)).is_err());
        assert!(limit.admit(1, &rules, ms(1_001)).is_ok());
        limit.settle(2_000, Settled::Nothing);
        assert_eq!(limit.room(&rules, ms(1_001)).0, 1_000, "what was not written comes back");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_order_of_batches_passes_the_limit(
            at_limit in 0usize..4,
            steps in prop::collection::vec((1u64..60, 0u8..4, any::<bool>()), 1..200),
        ) {
            let policies =
                [AtLimit::Reject, AtLimit::DropOldest, AtLimit::Throttle, AtLimit::Hold];
            let (limit, rules) = (TopicLimit::default(), rules(policies[at_limit]));
            let most = if rules.at_limit == AtLimit::DropOldest { 120 } else { 100 };
            let mut held = Vec::new();
            for (at, (bytes, what, written)) in (0..).zip(steps) {
                match what {
                    0 => if let Some(bytes) = held.pop() {
                        limit.settle(bytes, if written { Settled::Written } else { Settled::Nothing });
                    }
                    1 => limit.measured(limit.stored().saturating_sub(bytes)),
                    _ => match limit.admit(bytes, &rules, ms(at)) {
                        Ok(_) => held.push(bytes),
                        Err(refused) => prop_assert!(
                            refused.severity == Severity::Reject || refused.retry_after_ms > 0
                                || rules.at_limit == AtLimit::Throttle
                        ),
                    }
                }
                prop_assert!(limit.stored() + held.iter().sum::<u64>() <= most);
            }
        }
    }
}
