//! What admission asks of a backlog limit: two counts that only it and the tick change.
//!
//! Room is told as a ceiling on all that was ever taken, like a grant: what was admitted since the
//! last tick needs no counting again, and a tick that comes late lets nothing through.
//!
//! # Invariants
//! - While it counts, lag + admitted and not yet seen <= the limit, but for one batch that comes
//!   when the group has read everything and nothing is under way.
//! - An insider has `insider_percent` more, then is refused and never told to wait: it would wait
//!   for itself.
//! - A reservation counts until it is settled; dropping it settles it as not written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::broker::flow::{CauseId, Numbers, UNLIMITED};
use crate::types::{GroupId, Pushback, PushbackCode, PushbackScope, Severity};

/// When nothing is known of the group's speed.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(100);
/// A prediction for longer is no use: the group may get faster.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Whether the producer is a member of the group that limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It is not.
    Outside,
    /// Its connection has a member of the group.
    Inside,
}

/// The limit of one group on one topic.
#[derive(Debug)]
pub struct BacklogGauge {
    group: GroupId,
    cause: CauseId,
    /// Whether outsiders are told to come back rather than refused.
    holds: AtomicBool,
    counting: AtomicBool,
    /// The first unread record is too old.
    late: AtomicBool,
    /// Somebody was refused since the last tick.
    refused: AtomicBool,
    records: Ledger,
    bytes: Ledger,
    /// Mean bytes of a record.
    record_bytes: AtomicU64,
}

/// Totals of one unit since the start.
#[derive(Debug)]
struct Ledger {
    unit: &'static str,
    /// Admitted.
    taken: AtomicU64,
    /// Of these, written.
    written: AtomicU64,
    /// How far `taken` may go, for both sides.
    outside_to: AtomicU64,
    inside_to: AtomicU64,
    /// `written` when the lag was looked at, if there was none.
    idle_at: AtomicU64,
    lag: AtomicU64,
    limit: AtomicU64,
    drained_per_s: AtomicU64,
}

/// What was written before a lag is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    records: u64,
    bytes: u64,
}

/// What the tick found, of one unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) lag: u64,
    /// `UNLIMITED` = no limit.
    pub(super) limit: u64,
    pub(super) insider_extra: u64,
    /// 0 = not known.
    pub(super) drained_per_s: u64,
}

/// Room taken for one batch.
#[derive(Debug)]
#[must_use = "a dropped reservation is given back"]
pub struct BacklogReservation {
    gauge: Arc<BacklogGauge>,
    records: u64,
    bytes: u64,
}

impl BacklogGauge {
    /// A gauge that admits all until a tick says otherwise. `severity` is what outsiders are told:
    /// `Hold` to throttle, `Reject` to refuse.
    pub fn new(group: GroupId, cause: CauseId, severity: Severity) -> Arc<BacklogGauge> {
        Arc::new(BacklogGauge {
            group,
            cause,
            holds: AtomicBool::new(severity == Severity::Hold),
            counting: AtomicBool::new(false),
            late: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            records: Ledger::new("records"),
            bytes: Ledger::new("bytes"),
            record_bytes: AtomicU64::new(1),
        })
    }

    /// Whose lag it is.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// Whether the group's lag counts now.
    pub fn is_counting(&self) -> bool {
        self.counting.load(Ordering::Acquire)
    }

    /// The cause, for meters.
    pub fn cause(&self) -> CauseId {
        self.cause
    }

    /// Takes room for a batch, or says when there will be some.
    pub fn admit(
        self: &Arc<Self>,
        records: u64,
        bytes: u64,
        side: Side,
    ) -> Result<BacklogReservation, Pushback> {
        let counting = self.is_counting();
        let side = counting.then_some(side);
        if counting && self.late.load(Ordering::Relaxed) {
            return Err(self.refusal(&self.records, RETRY_UNKNOWN, side));
        }
        let take = |ledger: &Ledger, units: u64| {
            ledger
                .take(units, side)
                .map_err(|missing| self.refusal(ledger, ledger.time_for(missing), side))
        };
        take(&self.records, records)?;
        take(&self.bytes, bytes).inspect_err(|_| self.records.give(records))?;
        Ok(BacklogReservation { gauge: Arc::clone(self), records, bytes })
    }

    /// Bytes that grants may hand out now, all publishers together.
    pub fn room_bytes(&self) -> u64 {
        if !self.is_counting() {
            return UNLIMITED;
        }
        if self.late.load(Ordering::Relaxed) {
            return 0;
        }
        let record_bytes = self.record_bytes.load(Ordering::Relaxed);
        let by_records = self.records.room().saturating_mul(record_bytes);
        by_records.min(self.bytes.room())
    }

    /// What was found last of the limit that leaves least room, and when the group will have read
    /// enough for it to bind no more.
    pub fn numbers(&self, now: Duration) -> Numbers {
        let record_bytes = self.record_bytes.load(Ordering::Relaxed);
        let by_records = self.records.room().saturating_mul(record_bytes);
        let ledger = if by_records <= self.bytes.room() { &self.records } else { &self.bytes };
        let (observed, limit) = (ledger.lag.load(Ordering::Relaxed), ledger.limit());
        let read = observed.saturating_sub(limit / 10 * 9).max(1);
        let known = ledger.drained_per_s.load(Ordering::Relaxed) > 0;
        let until = known.then(|| now.saturating_add(ledger.time_for(read)));
        Numbers { observed, limit, unit: ledger.unit, until }
    }

    /// To be called before the lag is looked at: what is written between the two counts twice for
    /// one tick, which is the safe side.
    pub fn mark(&self) -> Mark {
        let written = |ledger: &Ledger| ledger.written.load(Ordering::Acquire);
        Mark { records: written(&self.records), bytes: written(&self.bytes) }
    }

    /// See [`BacklogGauge::new`].
    pub(super) fn set_severity(&self, severity: Severity) {
        self.holds.store(severity == Severity::Hold, Ordering::Relaxed);
    }

    /// No lag counts.
    pub(super) fn open(&self) {
        self.counting.store(false, Ordering::Release);
    }

    /// What was found after `mark`; `record_bytes` is what a record has on average.
    pub(super) fn publish(
        &self,
        mark: Mark,
        records: Found,
        bytes: Found,
        record_bytes: u64,
        late: bool,
    ) {
        self.record_bytes.store(record_bytes.max(1), Ordering::Relaxed);
        self.records.publish(mark.records, records);
        self.bytes.publish(mark.bytes, bytes);
        self.late.store(late, Ordering::Relaxed);
        self.counting.store(true, Ordering::Release);
    }

    /// Whether it refused somebody since it was last asked, or has no room for anything.
    pub(super) fn is_binding(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed) || self.room_bytes() == 0
    }

    fn refusal(&self, ledger: &Ledger, wait: Duration, side: Option<Side>) -> Pushback {
        self.refused.store(true, Ordering::Relaxed);
        let holds = self.holds.load(Ordering::Relaxed) && side != Some(Side::Inside);
        let severity = if holds { Severity::Hold } else { Severity::Reject };
        let limit_id = format!("backlog:{}", self.group);
        let wait = wait.clamp(RETRY_MIN, RETRY_MAX);
        Pushback {
            severity,
            ..Pushback::hold(PushbackCode::BacklogLimit, PushbackScope::Group, limit_id)
        }
        .met(ledger.lag.load(Ordering::Relaxed), ledger.limit(), ledger.unit)
        .after_ms(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX))
    }
}

impl Ledger {
    fn new(unit: &'static str) -> Ledger {
        Ledger {
            unit,
            taken: AtomicU64::new(0),
            written: AtomicU64::new(0),
            outside_to: AtomicU64::new(UNLIMITED),
            inside_to: AtomicU64::new(UNLIMITED),
            idle_at: AtomicU64::new(UNLIMITED),
            lag: AtomicU64::new(0),
            limit: AtomicU64::new(UNLIMITED),
            drained_per_s: AtomicU64::new(0),
        }
    }

    /// Takes `units`, or says how many are missing. Without a side nothing limits.
    fn take(&self, units: u64, side: Option<Side>) -> Result<(), u64> {
        let to = match side {
            None => UNLIMITED,
            Some(Side::Outside) => self.outside_to.load(Ordering::Acquire),
            Some(Side::Inside) => self.inside_to.load(Ordering::Acquire),
        };
        let idle_at = self.idle_at.load(Ordering::Acquire);
        let fits = |taken: u64| {
            let sum = taken.saturating_add(units);
            (sum <= to || taken == idle_at).then_some(sum)
        };
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map(|_| ()).map_err(|taken| taken.saturating_add(units).saturating_sub(to))
    }

    fn give(&self, units: u64) {
        self.taken.fetch_sub(units, Ordering::AcqRel);
    }

    fn room(&self) -> u64 {
        match self.outside_to.load(Ordering::Acquire) {
            UNLIMITED => UNLIMITED,
            to => to.saturating_sub(self.taken.load(Ordering::Acquire)),
        }
    }

    fn publish(&self, written: u64, found: Found) {
        let to = |limit: u64| match found.limit {
            UNLIMITED => UNLIMITED,
            _ => written.saturating_add(limit).saturating_sub(found.lag),
        };
        self.outside_to.store(to(found.limit), Ordering::Release);
        let inside = found.limit.saturating_add(found.insider_extra);
        self.inside_to.store(to(inside), Ordering::Release);
        let idle_at = if found.lag == 0 { written } else { UNLIMITED };
        self.idle_at.store(idle_at, Ordering::Release);
        self.lag.store(found.lag, Ordering::Relaxed);
        self.limit.store(found.limit, Ordering::Relaxed);
        self.drained_per_s.store(found.drained_per_s, Ordering::Relaxed);
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    fn time_for(&self, units: u64) -> Duration {
        match self.drained_per_s.load(Ordering::Relaxed) {
            0 => RETRY_UNKNOWN,
            per_s => Duration::from_millis(units.saturating_mul(1_000).div_ceil(per_s)),
        }
    }
}

impl BacklogReservation {
    /// The batch was written: it counts until the next tick finds it in the log.
    pub fn written(mut self) {
        let gauge = &self.gauge;
        gauge.records.written.fetch_add(self.records, Ordering::AcqRel);
        gauge.bytes.written.fetch_add(self.bytes, Ordering::AcqRel);
        (self.records, self.bytes) = (0, 0);
    }
}

impl Drop for BacklogReservation {
    fn drop(&mut self) {
        self.gauge.records.give(self.records);
        self.gauge.bytes.give(self.bytes);
    }
}
