//! A client that produces: as the protocol wants it, or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoplog::broker::flow::{ConnectionFlow, PublisherGrant, Wake};
use stoplog::types::{Class, Pushback, Severity};

/// What it makes of grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends what it was granted, and the allowance.
    Obeys,
    /// Has no publisher: sends what it has and hears what becomes of it.
    Ungranted,
    /// Has a publisher and does not look at its grants.
    Violates,
}

/// What it is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub behaviour: Behaviour,
    pub class: Class,
    pub batch_bytes: u64,
    /// Bytes it has to send each second; `None` = as many as it may.
    pub bytes_per_second: Option<u64>,
    /// Whether it tries again after a refusal; else what is refused is gone.
    pub retries: bool,
    pub starts: Duration,
    pub topic: usize,
    pub deadline: Option<Duration>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            behaviour: Behaviour::Obeys,
            class: Class::Normal,
            batch_bytes: 16 << 10,
            bytes_per_second: None,
            retries: true,
            starts: Duration::ZERO,
            topic: 0,
            deadline: None,
        }
    }
}

/// Set by the tick.
#[derive(Default)]
pub struct Bell(AtomicBool);

impl Wake for Bell {
    fn offer_changed(&self, _now: Duration) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One client, and the server's side of its publisher.
pub struct Client {
    pub plan: Plan,
    pub connection: ConnectionFlow,
    /// The server's side.
    pub grant: Option<PublisherGrant>,
    pub bell: Arc<Bell>,
    /// Its own side of the window.
    pub sent: u64,
    pub unanswered: u64,
    pub granted_to: u64,
    pub granted_until: Duration,
    pub wants_at: Option<Duration>,
    /// Until then a refusal holds it back.
    pub held_until: Duration,
    /// Bytes that arrived and were not sent.
    pub backlog: u64,
    pub next_partition: usize,
    /// When something last became of a batch of its.
    pub last_answer: Duration,
    /// Bytes written, by second.
    pub written: Vec<u64>,
    pub batches: u64,
    pub sojourns: Vec<Duration>,
    pub refusals: u64,
    pub last_refusal: Option<Pushback>,
}

/// A blocked publisher says so this often.
const WANT_EVERY: Duration = Duration::from_secs(1);

impl Client {
    pub fn new(plan: Plan, connection: ConnectionFlow) -> Client {
        Client {
            plan,
            connection,
            grant: None,
            bell: Arc::default(),
            sent: 0,
            unanswered: 0,
            granted_to: 0,
            granted_until: Duration::ZERO,
            wants_at: None,
            held_until: Duration::ZERO,
            backlog: 0,
            next_partition: 0,
            last_answer: plan.starts,
            written: Vec::new(),
            batches: 0,
            sojourns: Vec::new(),
            refusals: 0,
            last_refusal: None,
        }
    }

    pub fn rings(&self) -> bool {
        self.bell.0.swap(false, Ordering::Relaxed)
    }

    pub fn arrive(&mut self, step: Duration) {
        if let Some(rate) = self.plan.bytes_per_second {
            self.backlog += rate * u64::try_from(step.as_micros()).unwrap() / 1_000_000;
        }
    }

    pub fn has_data(&self) -> bool {
        self.plan.bytes_per_second.is_none() || self.backlog >= self.plan.batch_bytes
    }

    /// The protocol's rule, for those that obey it.
    pub fn may_send(&self, now: Duration) -> bool {
        if now < self.plan.starts || now < self.held_until || !self.has_data() {
            return false;
        }
        let bytes = self.plan.batch_bytes;
        match self.plan.behaviour {
            Behaviour::Obeys => self.is_granted(bytes, now) || self.unanswered == 0,
            // As many as a socket buffer or two take.
            Behaviour::Ungranted | Behaviour::Violates => self.unanswered < 4 << 20,
        }
    }

    /// Whether so many more bytes are within what it was granted.
    pub fn is_granted(&self, bytes: u64, now: Duration) -> bool {
        now < self.granted_until && self.sent + bytes <= self.granted_to
    }

    /// Whether it has to say that it waits.
    pub fn wants(&mut self, now: Duration) -> bool {
        let waits = self.plan.behaviour == Behaviour::Obeys
            && now >= self.plan.starts
            && now >= self.held_until
            && self.has_data()
            && !self.may_send(now);
        if !waits {
            return false;
        }
        let due = self.wants_at.is_none_or(|at| now >= at + WANT_EVERY);
        if due {
            self.wants_at = Some(now);
        }
        due
    }

    pub fn granted(&mut self, bytes_to: u64, until: Duration) {
        self.granted_to = self.granted_to.max(bytes_to);
        self.granted_until = self.granted_until.max(until);
        self.wants_at = None;
    }

    pub fn wrote(&mut self, bytes: u64, sojourn: Duration, now: Duration) {
        let second = usize::try_from(now.as_secs()).unwrap();
        self.written.resize(self.written.len().max(second + 1), 0);
        self.written[second] += bytes;
        self.batches += 1;
        self.sojourns.push(sojourn);
    }

    /// `jitter` is from 0 to 1.
    pub fn refused(&mut self, told: Pushback, now: Duration, jitter: f64) {
        self.refusals += 1;
        if self.plan.retries {
            self.backlog += self.plan.batch_bytes;
            assert_ne!(told.severity, Severity::Reject, "{told:?}");
            let wait = Duration::from_millis(u64::from(told.retry_after_ms));
            self.held_until = self.held_until.max(now + wait.mul_f64(1.0 + 0.3 * jitter));
        }
        self.last_refusal = Some(told);
    }

    /// Bytes written in the seconds `from..to`.
    pub fn written_in(&self, from: usize, to: usize) -> u64 {
        self.written.iter().skip(from).take(to - from).sum()
    }
}
