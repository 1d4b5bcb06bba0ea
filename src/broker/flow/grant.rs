//! Grants of a publisher: how much it may send before it is asked to wait (DESIGN section 4).
//!
//! `bytes_to` is cumulative since the publisher was opened and never shrinks; a window shrinks by
//! not being extended. Beside it a publisher that has nothing unanswered may always send one batch,
//! so an idle or new one sends at once and a lost frame cannot deadlock it. Refused bytes count as
//! sent on both sides.
//!
//! The rule of this version: slow start (a window doubles when it was answered once over) up to an
//! equal share of the pool. The controller to come sets shares by class and measured sojourn.
//!
//! # Invariants
//! `answered <= received`. `bytes_to` never shrinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::FlowOptions;
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// Sizes of one publisher's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantOptions {
    /// First window in bytes.
    pub first: u64,
    /// Largest window in bytes.
    pub max: u64,
    /// Life of a grant.
    pub ttl: Duration,
}

/// A GRANT frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Bytes that may have been sent in total since the publisher was opened.
    pub bytes_to: u64,
    /// How long it is valid after its arrival, in milliseconds.
    pub ttl_ms: u32,
}

/// The server's side of one publisher.
#[derive(Clone, Debug)]
pub struct PublisherGrant {
    options: GrantOptions,
    received: u64,
    answered: u64,
    bytes_to: u64,
    window: u64,
    /// `answered` at which the window doubles.
    double_at: u64,
    wanted: bool,
    /// Whether bytes moved since the last frame.
    active: bool,
    renew_at: Duration,
}

impl From<&FlowOptions> for GrantOptions {
    fn from(options: &FlowOptions) -> GrantOptions {
        GrantOptions {
            first: options.grant_bytes_first.max(1),
            max: options.grant_bytes_max.max(options.grant_bytes_first).max(1),
            ttl: Duration::from_millis(u64::from(options.grant_ttl_ms)),
        }
    }
}

impl PublisherGrant {
    /// A publisher opened now. The first [`PublisherGrant::poll`] gives its first grant.
    pub fn new(options: GrantOptions) -> PublisherGrant {
        PublisherGrant {
            options,
            received: 0,
            answered: 0,
            bytes_to: 0,
            window: options.first,
            double_at: options.first,
            wanted: true,
            active: false,
            renew_at: Duration::ZERO,
        }
    }

    /// A batch of `bytes` arrived. On an error it is refused without effects, and still to be
    /// followed by [`PublisherGrant::answered`].
    pub fn received(&mut self, bytes: u64) -> Result<(), Pushback> {
        let alone = self.received == self.answered;
        self.received = self.received.saturating_add(bytes);
        self.active = true;
        if alone || self.received <= self.bytes_to {
            return Ok(());
        }
        Err(Pushback::reject(PushbackCode::CreditViolation, PushbackScope::Publisher, "grant").met(
            self.received,
            self.bytes_to,
            "bytes",
        ))
    }

    /// A batch of `bytes` was answered, well or badly.
    pub fn answered(&mut self, bytes: u64) {
        self.answered = self.answered.saturating_add(bytes);
        assert!(self.answered <= self.received, "more was answered than received");
        self.active = true;
        if self.answered >= self.double_at {
            self.window = self.window.saturating_mul(2).min(self.options.max);
            self.double_at = self.answered.saturating_add(self.window);
        }
    }

    /// The publisher is blocked and says so.
    pub fn wants(&mut self) {
        self.wanted = true;
    }

    /// The frame to send now, if any: at the start, when it was asked for, when half a window was
    /// answered, and every half life while bytes move. `share` is the publisher's share of the
    /// pool in bytes.
    pub fn poll(&mut self, now: Duration, share: u64) -> Option<Grant> {
        let window = self.window.min(share).max(1);
        let target = self.bytes_to.max(self.answered.saturating_add(window));
        let moved = target - self.bytes_to;
        let renew = self.active && now >= self.renew_at;
        if !(self.wanted || renew || moved >= window.div_ceil(2)) {
            return None;
        }
        self.bytes_to = target;
        self.wanted = false;
        self.active = false;
        self.renew_at = now + self.options.ttl / 2;
        let ttl_ms = u32::try_from(self.options.ttl.as_millis()).unwrap_or(u32::MAX);
        Some(Grant { bytes_to: target, ttl_ms })
    }

    /// When to poll again though nothing happened, or `None` when only an event can matter.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.active.then_some(self.renew_at)
    }

    /// Bytes received and not answered yet.
    pub fn outstanding(&self) -> u64 {
        self.received - self.answered
    }
}

/// Divides the pool among open publishers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GrantShares(Arc<SharesState>);

#[derive(Debug)]
struct SharesState {
    pool_bytes: u64,
    publishers: AtomicU64,
}

/// One publisher's place among the others; given up by dropping it.
#[derive(Debug)]
#[must_use = "a dropped seat is free again"]
pub struct GrantSeat(GrantShares);

impl GrantShares {
    /// Shares of a pool.
    pub fn new(pool_bytes: u64) -> GrantShares {
        GrantShares(Arc::new(SharesState { pool_bytes, publishers: AtomicU64::new(0) }))
    }

    /// Opens a publisher.
    pub fn open(&self) -> GrantSeat {
        self.0.publishers.fetch_add(1, Ordering::Relaxed);
        GrantSeat(self.clone())
    }

    /// Publishers that are open.
    pub fn publishers(&self) -> u64 {
        self.0.publishers.load(Ordering::Relaxed)
    }
}

impl GrantSeat {
    /// An equal share of the pool in bytes: no publisher is granted more than the pool could hold
    /// if all used their grants at once.
    pub fn share_bytes(&self) -> u64 {
        let state = &self.0.0;
        (state.pool_bytes / state.publishers.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl Drop for GrantSeat {
    fn drop(&mut self) {
        self.0.0.publishers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Effects;
    use proptest::prelude::*;

    const OPTIONS: GrantOptions =
        GrantOptions { first: 1_000, max: 8_000, ttl: Duration::from_secs(10) };

    #[test]
    fn a_new_publisher_sends_one_batch_of_any_size_at_once() {
        let mut grant = PublisherGrant::new(OPTIONS);
        assert_eq!(grant.received(1 << 20), Ok(()));
        let refused = grant.received(1).expect_err("nothing was granted");
        assert_eq!((refused.code, refused.effects), (PushbackCode::CreditViolation, Effects::None));
        grant.answered((1 << 20) + 1);
        assert_eq!(grant.received(5_000), Ok(()), "idle again");
    }

    #[test]
    fn windows_double_up_to_the_share() {
        let mut grant = PublisherGrant::new(OPTIONS);
        let mut now = Duration::ZERO;
        let mut sent = 0;
        let mut windows = Vec::new();
        for _ in 0..8 {
            let bytes_to = grant.poll(now, 6_000).expect("a window was answered").bytes_to;
            windows.push(bytes_to - sent);
            grant.received(bytes_to - sent).expect("granted");
            grant.answered(bytes_to - sent);
            sent = bytes_to;
            now += Duration::from_millis(1);
        }
        assert_eq!(windows, [1_000, 2_000, 4_000, 6_000, 6_000, 6_000, 6_000, 6_000]);
    }

    #[test]
    fn an_idle_publisher_costs_no_frames() {
        let mut grant = PublisherGrant::new(OPTIONS);
        assert!(grant.poll(Duration::ZERO, 1_000).is_some());
        assert_eq!(grant.next_deadline(), None);
        assert_eq!(grant.poll(Duration::from_secs(60), 1_000), None);
        grant.wants();
        assert!(grant.poll(Duration::from_secs(60), 1_000).is_some());
    }

    #[test]
    fn shares_are_equal() {
        let shares = GrantShares::new(1_000);
        let (one, other) = (shares.open(), shares.open());
        assert_eq!(one.share_bytes(), 500);
        drop(other);
        assert_eq!((one.share_bytes(), shares.publishers()), (1_000, 1));
    }

    /// The client's rule: within a valid grant, or with nothing unanswered.
    struct Publisher {
        sent: u64,
        answered: u64,
        bytes_to: u64,
    }

    impl Publisher {
        fn may_send(&self, bytes: u64) -> bool {
            self.sent == self.answered || self.sent + bytes <= self.bytes_to
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn lost_repeated_and_reordered_grants_neither_violate_nor_deadlock(
            batches in prop::collection::vec(1u64..20_000, 1..80),
            fates in prop::collection::vec((0u8..5, any::<prop::sample::Index>(), 1u64..5_000), 400),
        ) {
            let mut server = PublisherGrant::new(OPTIONS);
            let mut client = Publisher { sent: 0, answered: 0, bytes_to: 0 };
            let mut queue = batches.into_iter().peekable();
            let mut unanswered = std::collections::VecDeque::new();
            let mut frames = Vec::new();
            let mut now = Duration::ZERO;
            let mut fates = fates.into_iter();
            while queue.peek().is_some() || !unanswered.is_empty() {
                now += Duration::from_millis(1);
                while let Some(bytes) = queue.peek().copied().filter(|b| client.may_send(*b)) {
                    queue.next();
                    client.sent += bytes;
                    prop_assert_eq!(server.received(bytes), Ok(()));
                    unanswered.push_back(bytes);
                }
                let fate = fates.next();
                frames.extend(server.poll(now, fate.map_or(1_000, |f| f.2)));
                match fate {
                    Some((0, ..)) => { frames.pop(); }
                    None | Some((1 | 2, ..)) => if let Some(bytes) = unanswered.pop_front() {
                        server.answered(bytes);
                        client.answered += bytes;
                    }
                    Some((_, pick, _)) => if !frames.is_empty() {
                        let frame: Grant = *pick.get(&frames);
                        client.bytes_to = client.bytes_to.max(frame.bytes_to);
                    }
                }
            }
            prop_assert_eq!(client.answered, client.sent);
            prop_assert_eq!(server.outstanding(), 0);
        }
    }
}
