//! How far a publisher may send: cumulative grants, and the allowance of one batch that never
//! expires, so that an idle or new publisher sends at once and nothing can deadlock.
//!
//! # Invariants
//! `sent` and `granted_to` belong to `epoch`; a grant of an older epoch, or a lower one of the same,
//! changes nothing.

use std::time::Duration;

use crate::protocol::native::{grant, publisher_open};
use crate::types::{Cause, Pushback};

/// How often a blocked publisher says so with WANT (Flow 1).
pub const WANT_EVERY: Duration = Duration::from_secs(1);

/// The sending side of one publisher.
#[derive(Debug)]
pub struct PublisherWindow {
    publisher: u32,
    epoch: u32,
    granted_to: u64,
    granted_until: Duration,
    sent: u64,
    unanswered: u64,
    /// What keeps the newest grant from being larger, and what that concerns.
    held_by: (Cause, String),
}

impl PublisherWindow {
    /// As the broker opened it.
    pub fn new(opened: &publisher_open::Response, now: Duration) -> PublisherWindow {
        PublisherWindow {
            publisher: opened.grant.publisher,
            epoch: opened.grant.epoch,
            granted_to: opened.grant.bytes_to,
            granted_until: now + ttl(&opened.grant),
            sent: 0,
            unanswered: 0,
            held_by: (opened.grant.cause, opened.grant.name.clone()),
        }
    }

    /// The publisher's number.
    pub fn publisher(&self) -> u32 {
        self.publisher
    }

    /// A grant came.
    pub fn grant(&mut self, grant: &grant::Request, now: Duration) {
        if grant.publisher != self.publisher || grant.epoch < self.epoch {
            return;
        }
        if grant.epoch > self.epoch {
            self.epoch = grant.epoch;
            self.granted_to = 0;
            self.sent = 0;
        }
        if grant.bytes_to >= self.granted_to {
            self.held_by = (grant.cause, grant.name.clone());
        }
        self.granted_to = self.granted_to.max(grant.bytes_to);
        self.granted_until = self.granted_until.max(now + ttl(grant));
    }

    /// Whether a batch of so many bytes may be sent now. With nothing unanswered one always may: the
    /// broker answers it, if only by a refusal.
    pub fn admits(&self, bytes: u64, now: Duration) -> bool {
        let granted = now < self.granted_until && self.sent + bytes <= self.granted_to;
        granted || self.unanswered == 0
    }

    /// Bytes that may be sent now under the grant.
    pub fn left(&self, now: Duration) -> u64 {
        let valid = now < self.granted_until;
        if valid { self.granted_to.saturating_sub(self.sent) } else { 0 }
    }

    /// Who limits a publisher that has nothing left.
    pub fn withheld(&self) -> Pushback {
        self.held_by.0.withholds(&self.held_by.1)
    }

    /// It was sent.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.unanswered += bytes;
    }

    /// It was answered; refused bytes count as sent.
    pub fn answered(&mut self, bytes: u64) {
        self.unanswered = self.unanswered.saturating_sub(bytes);
    }
}

fn ttl(grant: &grant::Request) -> Duration {
    Duration::from_millis(u64::from(grant.ttl_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PushbackCode;

    fn grant(epoch: u32, bytes_to: u64, ttl_ms: u32) -> grant::Request {
        let (cause, name) = (Cause::Grant, String::new());
        grant::Request { publisher: 7, epoch, bytes_to, ttl_ms, cause, name }
    }

    fn opened(now: Duration) -> PublisherWindow {
        let opened =
            publisher_open::Response { grant: grant(1, 100, 1_000), allowance_bytes: 1_000 };
        PublisherWindow::new(&opened, now)
    }

    #[test]
    fn grants_are_cumulative_and_old_ones_do_no_harm() {
        let now = Duration::from_secs(5);
        let mut window = opened(now);
        window.sent(80);
        assert!(!window.admits(30, now));
        window.grant(&grant(1, 200, 1_000), now);
        window.grant(&grant(1, 150, 1_000), now);
        window.grant(&grant(0, 900, 1_000), now);
        assert!(window.admits(120, now) && !window.admits(121, now));
        window.grant(&grant(2, 50, 1_000), now);
        assert!(window.admits(50, now) && !window.admits(51, now));
    }

    #[test]
    fn the_newest_grant_says_who_withholds_more() {
        let now = Duration::from_secs(5);
        let mut window = opened(now);
        assert_eq!(window.withheld().limit_id, "grant");
        let (cause, name) = (Cause::Backlog, "email".to_owned());
        window.grant(&grant::Request { cause, name, ..grant(1, 200, 1_000) }, now);
        window.grant(&grant(1, 150, 1_000), now);
        let told = window.withheld();
        assert_eq!(
            (told.code, told.limit_id.as_str()),
            (PushbackCode::BacklogLimit, "backlog:email")
        );
        window.grant(&grant(1, 300, 1_000), now);
        assert_eq!(window.withheld().limit_id, "grant");
    }

    #[test]
    fn the_allowance_never_expires_and_is_one_batch() {
        let now = Duration::from_secs(5);
        let mut window = opened(now);
        let later = now + Duration::from_secs(60);
        assert!(window.admits(1_000, later) && window.left(later) == 0);
        window.sent(1_000);
        assert!(!window.admits(1, later));
        window.answered(1_000);
        assert!(window.admits(1, later));
    }
}
