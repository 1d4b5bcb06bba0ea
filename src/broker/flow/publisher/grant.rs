//! Grants of a publisher: how much it may send before it is asked to wait (DESIGN section 4).
//!
//! `bytes_to` is cumulative since the publisher was opened and never shrinks; a window shrinks by
//! not being extended. Beside it a publisher that has nothing unanswered may always send one batch,
//! so an idle or new one sends at once and a lost frame cannot deadlock it. Refused bytes count as
//! sent on both sides. The life of a grant is the client's to watch: what comes under an expired one
//! is no violation.
//!
//! A window starts small and doubles when it was answered once over (slow start), up to what is
//! offered: the share of the seat, or what another limit leaves of it.
//!
//! # Invariants
//! `answered <= received`. `bytes_to` never shrinks. A publisher with nothing unanswered is never in
//! violation.

use std::sync::Arc;
use std::time::Duration;

use super::Seat;
use crate::broker::flow::{Cause, ConnectionShare, FlowOptions};
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// Violations within `VIOLATIONS_WITHIN` that close a publisher: one may be a race of versions, three
/// are a client that does not count.
const VIOLATIONS_MAX: usize = 3;
const VIOLATIONS_WITHIN: Duration = Duration::from_secs(10);

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
    /// What set its size.
    pub cause: Cause,
}

/// What a publisher may have under way now: the least of its seat's share and what other limits
/// leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Bytes; 0 withholds everything but the standing allowance.
    pub bytes: u64,
    /// Which limit it is that leaves no more.
    pub cause: Cause,
}

/// By what right a batch came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was granted.
    Granted,
    /// Nothing was unanswered: one batch may always come, and be answered.
    Allowance,
}

/// A batch that came without any right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What its sender is told.
    pub pushback: Pushback,
    /// What becomes of the publisher.
    pub then: AfterViolation,
}

/// What becomes of a publisher after a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterViolation {
    /// It goes on.
    GoOn,
    /// It is closed: it does not count.
    Close,
}

/// The server's side of one publisher.
#[derive(Debug)]
pub struct PublisherGrant {
    options: GrantOptions,
    seat: Arc<Seat>,
    /// Of whose share it is granted a part.
    connection: Option<ConnectionShare>,
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
    /// The last violations, oldest first.
    violations: Vec<Duration>,
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
    pub fn new(options: GrantOptions, seat: Arc<Seat>) -> PublisherGrant {
        let first = options.first.min(seat.first_bytes()).max(1);
        PublisherGrant {
            options,
            seat,
            connection: None,
            received: 0,
            answered: 0,
            bytes_to: 0,
            window: first,
            double_at: first,
            wanted: true,
            active: false,
            renew_at: Duration::ZERO,
            violations: Vec::new(),
        }
    }

    /// The same, of a connection: what is granted to all its publishers fits its share.
    #[must_use]
    pub fn of(mut self, connection: &ConnectionShare) -> PublisherGrant {
        connection.publisher_opened();
        self.connection = Some(connection.clone());
        self
    }

    /// A batch of `bytes` arrived. On an error it is refused without effects, and still to be
    /// followed by [`PublisherGrant::answered`].
    pub fn received(&mut self, bytes: u64, now: Duration) -> Result<Standing, Violation> {
        let alone = self.received == self.answered;
        self.received = self.received.saturating_add(bytes);
        self.active = true;
        self.seat.received(bytes, now);
        if self.received <= self.bytes_to {
            return Ok(Standing::Granted);
        }
        if alone { Ok(Standing::Allowance) } else { Err(self.violation(now)) }
    }

    /// A batch of `bytes` was answered, well or badly.
    pub fn answered(&mut self, bytes: u64) {
        self.answered = self.answered.saturating_add(bytes);
        assert!(self.answered <= self.received, "more was answered than received");
        self.active = true;
        self.seat.answered(bytes);
        if self.answered >= self.double_at {
            self.window = self.window.saturating_mul(2).min(self.options.max);
            self.double_at = self.answered.saturating_add(self.window);
        }
    }

    /// The publisher is blocked and says so.
    pub fn wants(&mut self, now: Duration) {
        self.wanted = true;
        self.seat.wants(now);
    }

    /// The frame to send now, if any: at the start, when it was asked for, when half a window was
    /// answered, and every half life while bytes move.
    pub fn poll(&mut self, now: Duration, offer: Offer) -> Option<Grant> {
        let offer = self.within_connection(offer);
        let window = self.window.min(offer.bytes);
        let target = self.bytes_to.max(self.answered.saturating_add(window));
        let moved = target - self.bytes_to;
        let renew = self.active && now >= self.renew_at;
        if !(self.wanted || renew || (moved > 0 && moved >= window.div_ceil(2))) {
            return None;
        }
        if moved > 0 {
            self.seat.served();
        }
        self.bytes_to = target;
        self.wanted = false;
        self.active = false;
        self.renew_at = now + self.options.ttl / 2;
        let ttl_ms = u32::try_from(self.options.ttl.as_millis()).unwrap_or(u32::MAX);
        let cause = if offer.bytes < self.window { offer.cause } else { Cause::Grant };
        Some(Grant { bytes_to: target, ttl_ms, cause })
    }

    /// When to poll again though nothing happened, or `None` when only an event can matter.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.active.then_some(self.renew_at)
    }

    /// Bytes that may have been sent in total, as last told.
    pub fn bytes_to(&self) -> u64 {
        self.bytes_to
    }

    /// Bytes received and not answered yet.
    pub fn outstanding(&self) -> u64 {
        self.received - self.answered
    }

    /// Bytes granted and not received yet.
    pub fn unspent(&self) -> u64 {
        self.bytes_to.saturating_sub(self.received)
    }

    /// Its place among the others.
    pub fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    fn within_connection(&self, offer: Offer) -> Offer {
        match self.connection.as_ref().map(ConnectionShare::grant_bytes_max) {
            Some(most) if most < offer.bytes => Offer { bytes: most, cause: Cause::Pool },
            _ => offer,
        }
    }

    fn violation(&mut self, now: Duration) -> Violation {
        self.violations.retain(|at| *at + VIOLATIONS_WITHIN > now);
        self.violations.push(now);
        let then = match self.violations.len() {
            VIOLATIONS_MAX.. => AfterViolation::Close,
            _ => AfterViolation::GoOn,
        };
        let (code, scope) = (PushbackCode::CreditViolation, PushbackScope::Publisher);
        let pushback =
            Pushback::reject(code, scope, "grant").met(self.received, self.bytes_to, "bytes");
        Violation { pushback, then }
    }
}

impl Drop for PublisherGrant {
    fn drop(&mut self) {
        // What is still unanswered will not be answered through this grant.
        self.seat.answered(self.outstanding());
        if let Some(connection) = &self.connection {
            connection.publisher_closed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::{NoWake, Seats};
    use crate::types::{Class, Effects};
    use proptest::prelude::*;

    const OPTIONS: GrantOptions =
        GrantOptions { first: 1_000, max: 8_000, ttl: Duration::from_secs(10) };

    #[test]
    fn a_new_publisher_sends_one_batch_of_any_size_at_once() {
        let mut grant = publisher();
        assert_eq!(grant.received(1 << 20, ms(0)), Ok(Standing::Allowance));
        let refused = grant.received(1, ms(0)).expect_err("nothing was granted").pushback;
        assert_eq!((refused.code, refused.effects), (PushbackCode::CreditViolation, Effects::None));
        grant.answered((1 << 20) + 1);
        assert_eq!(grant.received(5_000, ms(0)), Ok(Standing::Allowance), "idle again");
    }

    #[test]
    fn three_violations_in_ten_seconds_close_a_publisher() {
        let mut grant = publisher();
        grant.received(1, ms(0)).expect("the allowance");
        let mut at = |at| grant.received(1, ms(at)).expect_err("nothing was granted").then;
        assert_eq!([at(0), at(9_000), at(10_500)], [AfterViolation::GoOn; 3]);
        assert_eq!(at(18_999), AfterViolation::Close);
    }

    #[test]
    fn the_seat_counts_what_the_grant_counts() {
        let mut grant = publisher();
        let seat = Arc::clone(grant.seat());
        grant.received(700, ms(0)).expect("the allowance");
        let _ = grant.received(800, ms(0));
        grant.answered(700);
        assert_eq!((seat.outstanding(), grant.outstanding()), (800, 800));
        grant.wants(ms(5));
        assert!(seat.waits(ms(6)));
        let frame = grant.poll(ms(6), offer(5_000)).expect("asked for");
        assert_eq!((frame.bytes_to, frame.cause), (1_700, Cause::Grant));
        assert!(!seat.waits(ms(6)), "served");
        grant.wants(ms(7));
        let frame = grant.poll(ms(7), offer(0)).expect("asked for");
        assert_eq!((frame.bytes_to, frame.cause), (1_700, Cause::Pool));
        assert!(seat.waits(ms(8)), "nothing was granted");
        drop(grant);
        assert_eq!(seat.outstanding(), 0);
    }

    #[test]
    fn windows_double_up_to_the_share() {
        let mut grant = publisher();
        let mut now = Duration::ZERO;
        let mut sent = 0;
        let mut windows = Vec::new();
        for _ in 0..8 {
            let bytes_to = grant.poll(now, offer(6_000)).expect("a window was answered").bytes_to;
            windows.push(bytes_to - sent);
            grant.received(bytes_to - sent, now).expect("granted");
            grant.answered(bytes_to - sent);
            sent = bytes_to;
            now += Duration::from_millis(1);
        }
        assert_eq!(windows, [1_000, 2_000, 4_000, 6_000, 6_000, 6_000, 6_000, 6_000]);
    }

    #[test]
    fn an_idle_publisher_costs_no_frames() {
        let mut grant = publisher();
        assert!(grant.poll(ms(0), offer(1_000)).is_some());
        assert_eq!(grant.next_deadline(), None);
        assert_eq!(grant.poll(ms(60_000), offer(1_000)), None);
        assert_eq!(grant.poll(ms(60_000), offer(0)), None);
        grant.wants(ms(60_000));
        assert!(grant.poll(ms(60_000), offer(1_000)).is_some());
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn offer(bytes: u64) -> Offer {
        Offer { bytes, cause: Cause::Pool }
    }

    fn publisher() -> PublisherGrant {
        let wake: std::sync::Weak<NoWake> = std::sync::Weak::new();
        let seats = Seats::new(1 << 30, 64 << 10);
        PublisherGrant::new(OPTIONS, seats.open(Class::Normal, 1, wake))
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
            let mut server = publisher();
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
                    prop_assert!(server.received(bytes, now).is_ok());
                    unanswered.push_back(bytes);
                }
                let fate = fates.next();
                frames.extend(server.poll(now, offer(fate.map_or(1_000, |f| f.2))));
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
