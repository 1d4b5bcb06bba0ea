//! Credit of a subscription: how much the server may push (DESIGN section 4, consumers).
//!
//! Limits are cumulative within an epoch, so a repeated, lost or reordered CREDIT frame is
//! harmless: the maximum wins, older epochs are ignored. A newer epoch starts both counts at 0.
//!
//! Whatever a consumer claims, at most `bytes_ahead_max` beyond what was sent is taken of a CREDIT frame:
//! what one subscription may have on its way is bounded here, not in the client. A consumer that claims
//! more goes on with its next frame, which it sends each second while it starves.
//!
//! # Invariants
//! `bytes_to <= sent_bytes + bytes_ahead_max` after every frame. Within an epoch, `sent_bytes < bytes_to` and `sent_records < records_to` before every batch
//! that is sent; so the overrun of either is at most one batch, and a batch larger than the whole
//! window does not deadlock.

/// A CREDIT frame: totals since the start of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Bumped by seek, revoke and expiry.
    pub epoch: u32,
    /// Bytes that may have been sent in total.
    pub bytes_to: u64,
    /// Records that may have been sent in total.
    pub records_to: u64,
}

/// The server's side of a subscription's credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionCredit {
    credit: Credit,
    sent_bytes: u64,
    sent_records: u64,
    bytes_ahead_max: u64,
}

/// Most that one subscription may be sent ahead: the largest window of our client.
const SUBSCRIPTION_BYTES_MAX: u64 = 16 << 20;
/// Most that all subscriptions of a connection may be sent ahead together.
const CONNECTION_BYTES_MAX: u64 = 64 << 20;

/// What is left of both windows; both are above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditBudget {
    /// Bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

impl SubscriptionCredit {
    /// A subscription that starts with this credit.
    pub fn new(first: Credit) -> SubscriptionCredit {
        SubscriptionCredit::with_cap(first, SUBSCRIPTION_BYTES_MAX)
    }

    /// Bounds what the next frames may claim, for one of `subscriptions` of a connection: all of them
    /// together stay within the connection's bound, and each keeps at least a byte, which is a batch.
    pub fn share_with(&mut self, subscriptions: u64) {
        let share = CONNECTION_BYTES_MAX / subscriptions.max(1);
        self.bytes_ahead_max = share.clamp(1, SUBSCRIPTION_BYTES_MAX);
    }

    /// Takes a CREDIT frame. Returns whether a new epoch began: then the caller forgets what it was
    /// about to send and goes on where the frame says.
    pub fn apply(&mut self, frame: Credit) -> bool {
        if frame.epoch > self.credit.epoch {
            *self = SubscriptionCredit::with_cap(frame, self.bytes_ahead_max);
            return true;
        }
        if frame.epoch == self.credit.epoch {
            let most = self.sent_bytes.saturating_add(self.bytes_ahead_max);
            self.credit.bytes_to = self.credit.bytes_to.max(frame.bytes_to.min(most));
            self.credit.records_to = self.credit.records_to.max(frame.records_to);
        }
        false
    }

    /// The epoch that batches are sent under.
    pub fn epoch(&self) -> u32 {
        self.credit.epoch
    }

    /// What may be sent now, or `None` when a window is used up and the consumer limits.
    ///
    /// The caller reads up to `bytes` (at least one batch) and stops after the batch with which
    /// either count is reached.
    pub fn budget(&self) -> Option<CreditBudget> {
        let bytes = self.credit.bytes_to.checked_sub(self.sent_bytes).filter(|left| *left > 0)?;
        let records =
            self.credit.records_to.checked_sub(self.sent_records).filter(|left| *left > 0)?;
        Some(CreditBudget { bytes, records })
    }

    /// Counts one batch that is sent. Only after [`SubscriptionCredit::budget`] gave room.
    pub fn sent(&mut self, bytes: u64, records: u64) {
        assert!(self.budget().is_some(), "a batch was sent without credit");
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        self.sent_records = self.sent_records.saturating_add(records);
    }

    /// Bytes and records sent in this epoch.
    pub fn sent_totals(&self) -> (u64, u64) {
        (self.sent_bytes, self.sent_records)
    }

    fn with_cap(first: Credit, bytes_ahead_max: u64) -> SubscriptionCredit {
        let bytes_to = first.bytes_to.min(bytes_ahead_max);
        let credit = Credit { bytes_to, ..first };
        SubscriptionCredit { credit, sent_bytes: 0, sent_records: 0, bytes_ahead_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW_BYTES: u64 = 1_000;
    const WINDOW_RECORDS: u64 = 10;

    fn credit(epoch: u32, bytes_to: u64, records_to: u64) -> Credit {
        Credit { epoch, bytes_to, records_to }
    }

    #[test]
    fn repeated_and_reordered_frames_change_nothing() {
        let mut state = SubscriptionCredit::new(credit(1, 100, 10));
        state.apply(credit(1, 300, 30));
        let after = state.clone();
        state.apply(credit(1, 300, 30));
        state.apply(credit(1, 200, 20));
        state.apply(credit(0, 9_999, 9_999));
        assert_eq!(state, after);
    }

    #[test]
    fn one_batch_may_overrun_and_the_deficit_is_carried() {
        let mut state = SubscriptionCredit::new(credit(1, 100, 10));
        state.sent(5_000, 3);
        assert_eq!(state.budget(), None);
        state.apply(credit(1, 5_000, 10));
        assert_eq!(state.budget(), None);
        state.apply(credit(1, 5_001, 10));
        assert_eq!(state.budget(), Some(CreditBudget { bytes: 1, records: 7 }));
    }

    #[test]
    fn a_new_epoch_starts_from_nothing() {
        let mut state = SubscriptionCredit::new(credit(1, 100, 10));
        state.sent(50, 5);
        assert!(state.apply(credit(2, 10, 1)));
        assert_eq!(state.budget(), Some(CreditBudget { bytes: 10, records: 1 }));
        assert!(!state.apply(credit(1, 1_000, 1_000)));
    }

    #[test]
    fn no_claim_reaches_further_than_the_bound_and_a_repeated_one_goes_on() {
        let mut state = SubscriptionCredit::new(credit(0, u64::MAX, u64::MAX));
        assert_eq!(state.budget().map(|budget| budget.bytes), Some(16 << 20));
        state.sent(20 << 20, 1);
        assert_eq!(state.budget(), None);
        state.apply(credit(0, u64::MAX, u64::MAX));
        assert_eq!(state.budget().map(|budget| budget.bytes), Some(16 << 20));
        state.share_with(1_000);
        state.apply(credit(1, u64::MAX, u64::MAX));
        assert_eq!(state.budget().map(|budget| budget.bytes), Some((64 << 20) / 1_000));
    }

    /// A consumer that grants what it has processed plus its window, over a network that repeats,
    /// drops and reorders its frames.
    #[derive(Default)]
    struct Consumer {
        processed: (u64, u64),
        in_flight: Vec<Credit>,
    }

    impl Consumer {
        fn grant(&self) -> Credit {
            credit(0, self.processed.0 + WINDOW_BYTES, self.processed.1 + WINDOW_RECORDS)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_bad_network_neither_overruns_nor_stalls(
            batches in prop::collection::vec((1u64..5_000, 1u64..40), 1..60),
            fates in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 600),
        ) {
            let mut consumer = Consumer::default();
            let mut server = SubscriptionCredit::new(consumer.grant());
            let largest = batches.iter().map(|b| b.0).max().unwrap_or(0);
            let mut queue = batches.into_iter().peekable();
            let mut fates = fates.into_iter();
            while queue.peek().is_some() {
                while let (Some(_), Some((bytes, records))) = (server.budget(), queue.peek().copied()) {
                    server.sent(bytes, records);
                    queue.next();
                    consumer.processed.0 += bytes;
                    consumer.processed.1 += records;
                    prop_assert!(server.sent_totals().0 <= consumer.grant().bytes_to + largest);
                }
                let frame = consumer.grant();
                consumer.in_flight.push(frame);
                match fates.next() {
                    Some((0, _)) => { consumer.in_flight.pop(); }
                    Some((1, _)) => { server.apply(frame); }
                    Some((_, pick)) => {
                        let old = pick.get(&consumer.in_flight);
                        server.apply(*old);
                    }
                    // The blocked side repeats its frame; at last one arrives.
                    None => { server.apply(frame); }
                }
            }
            prop_assert_eq!(server.sent_totals(), consumer.processed);
        }
    }
}
