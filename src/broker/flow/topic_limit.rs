//! A topic's `max_bytes`: stored bytes plus those admitted and not yet answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::binding::Binding;
use crate::types::{OnFull, Pushback, PushbackCode, PushbackScope, Severity};

/// While the oldest segments are dropped, a producer comes back this soon.
const DROP_RETRY_AFTER_MS: u32 = 100;
/// A topic that refuses stays full until somebody trims or retention acts.
const REJECT_RETRY_AFTER_MS: u32 = 5_000;

/// The bytes of one topic.
#[derive(Debug, Default)]
pub struct TopicLimit {
    stored: AtomicU64,
    reserved: AtomicU64,
    binding: Binding,
}

/// What becomes of a batch at the topic's limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicAdmission {
    /// It fits.
    Admit,
    /// It is taken, and the oldest segments must go.
    AdmitAndDrop,
    /// It is refused.
    Refuse(Pushback),
}

impl TopicLimit {
    /// Reserves `bytes` under `max_bytes`; what was admitted is to be settled once.
    ///
    /// With `drop_oldest` the topic may run over its limit by `slack` bytes (dropping works in
    /// whole segments and takes a moment); beyond it producers are held.
    pub fn admit(
        &self,
        bytes: u64,
        max_bytes: u64,
        on_full: OnFull,
        slack: u64,
        now: Duration,
    ) -> TopicAdmission {
        let reserved = self.reserved.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes);
        let total = self.stored.load(Ordering::Acquire).saturating_add(reserved);
        if total <= max_bytes {
            return TopicAdmission::Admit;
        }
        if on_full == OnFull::DropOldest && total <= max_bytes.saturating_add(slack) {
            return TopicAdmission::AdmitAndDrop;
        }
        self.reserved.fetch_sub(bytes, Ordering::AcqRel);
        self.binding.refused(now);
        let (severity, retry_after_ms) = match on_full {
            OnFull::Reject => (Severity::Reject, REJECT_RETRY_AFTER_MS),
            OnFull::DropOldest => (Severity::Hold, DROP_RETRY_AFTER_MS),
        };
        TopicAdmission::Refuse(Pushback {
            severity,
            ..Pushback::hold(PushbackCode::TopicFull, PushbackScope::Topic, "topic")
                .met(total, max_bytes, "bytes")
                .after_ms(retry_after_ms)
        })
    }

    /// Turns a reservation into stored bytes, or drops it when nothing was written.
    pub fn settle(&self, reserved: u64, written: u64) {
        self.stored.fetch_add(written, Ordering::AcqRel);
        self.reserved.fetch_sub(reserved, Ordering::AcqRel);
    }

    /// Sets what storage counts; called at start and after segments went.
    pub fn measured(&self, stored: u64) {
        self.stored.store(stored, Ordering::Release);
    }

    /// Bytes stored, as counted.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// Refusals, and the length of the current stretch of them in milliseconds.
    pub fn refusals(&self, now: Duration) -> (u64, Option<u64>) {
        (self.binding.refusals(), self.binding.since_ms(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn reject_counts_what_is_under_way() {
        let limit = TopicLimit::default();
        assert_eq!(limit.admit(60, 100, OnFull::Reject, 0, NOW), TopicAdmission::Admit);
        assert!(matches!(
            limit.admit(60, 100, OnFull::Reject, 0, NOW),
            TopicAdmission::Refuse(Pushback { code: PushbackCode::TopicFull, .. })
        ));
        limit.settle(60, 0);
        assert_eq!(limit.admit(60, 100, OnFull::Reject, 0, NOW), TopicAdmission::Admit);
        limit.settle(60, 60);
        assert_eq!(limit.stored(), 60);
    }

    #[test]
    fn drop_oldest_takes_a_little_more_and_then_holds() {
        let limit = TopicLimit::default();
        limit.measured(100);
        assert_eq!(limit.admit(10, 100, OnFull::DropOldest, 20, NOW), TopicAdmission::AdmitAndDrop);
        let TopicAdmission::Refuse(held) = limit.admit(11, 100, OnFull::DropOldest, 20, NOW) else {
            panic!("beyond the slack");
        };
        assert_eq!(held.severity, Severity::Hold);
        assert_eq!(limit.refusals(NOW).0, 1);
    }
}
