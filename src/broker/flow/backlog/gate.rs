//! All backlog limits of one topic, as admission and grants ask for them.
//!
//! # Invariants
//! - A topic without limits costs one load.
//! - What grants promise and nobody sent yet is at most the room there was when it was promised: a
//!   publisher is offered what the promises to others leave. Admission is the hard stop behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::gauge::{BacklogGauge, BacklogReservation, Side};
use crate::broker::flow::{Cause, CauseId, Offer, TopicFlow, UNLIMITED};
use crate::types::{GroupId, Pushback};

/// The limits of one topic.
#[derive(Debug, Default)]
pub struct BacklogGate {
    limited: AtomicBool,
    gauges: ArcSwap<Vec<Arc<BacklogGauge>>>,
    /// Bytes that were granted and have not come.
    promised: AtomicU64,
    /// Number of the current second, and how many publishers asked in it and in the last one.
    period: AtomicU64,
    asking: AtomicU64,
    asked: AtomicU64,
}

/// Room one batch took of every limit. Dropped, the batch was not written.
#[derive(Debug, Default)]
#[must_use = "a dropped hold is given back"]
pub struct BacklogHold(Vec<BacklogReservation>);

/// What one publisher was promised of a topic's room.
#[derive(Debug)]
pub struct BacklogClaim {
    topic: Arc<TopicFlow>,
    promised: AtomicU64,
    /// The last period it asked in, plus 1.
    asked_in: AtomicU64,
}

impl BacklogGate {
    /// Takes room for a batch from every limit, or none. `side` tells whether the producer is a
    /// member of a group; `records` counts the batch's.
    pub fn admit(
        &self,
        bytes: u64,
        records: &dyn Fn() -> u64,
        side: impl Fn(&GroupId) -> Side,
    ) -> Result<BacklogHold, Pushback> {
        if !self.limited.load(Ordering::Relaxed) {
            return Ok(BacklogHold::default());
        }
        let records = records();
        let take = |gauge: &Arc<BacklogGauge>| {
            let side = if gauge.is_counting() { side(gauge.group()) } else { Side::Outside };
            gauge.admit(records, bytes, side)
        };
        self.gauges.load().iter().map(take).collect::<Result<Vec<_>, _>>().map(BacklogHold)
    }

    /// Bytes that may come in now, or `None` while no group holds anybody back.
    pub fn room_bytes(&self) -> Option<u64> {
        if !self.limited.load(Ordering::Relaxed) {
            return None;
        }
        let room = self.gauges.load().iter().map(|gauge| gauge.room_bytes()).min();
        room.filter(|room| *room < UNLIMITED)
    }

    /// What holds back: the group that leaves least room.
    pub fn holds(&self) -> Option<Arc<BacklogGauge>> {
        self.gauges.load().iter().min_by_key(|gauge| gauge.room_bytes()).cloned()
    }

    pub(super) fn set(&self, gauges: Vec<Arc<BacklogGauge>>) {
        let limited = !gauges.is_empty();
        self.gauges.store(Arc::new(gauges));
        self.limited.store(limited, Ordering::Release);
    }

    /// A second has passed.
    pub(super) fn begin_period(&self) {
        self.period.fetch_add(1, Ordering::Relaxed);
        self.asked.store(self.asking.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn publishers(&self) -> u64 {
        let (asking, asked) = (&self.asking, &self.asked);
        asking.load(Ordering::Relaxed).max(asked.load(Ordering::Relaxed)).max(1)
    }
}

impl BacklogHold {
    /// The batch was written.
    pub fn written(self) {
        self.0.into_iter().for_each(BacklogReservation::written);
    }
}

impl BacklogClaim {
    /// A publisher of the topic, promised nothing yet.
    pub fn new(topic: Arc<TopicFlow>) -> BacklogClaim {
        BacklogClaim { topic, promised: AtomicU64::new(0), asked_in: AtomicU64::new(0) }
    }

    /// What of `offer` the limits leave to a publisher that has `outstanding` bytes under way.
    pub fn limit(&self, offer: Offer, outstanding: u64) -> Offer {
        let gate = &self.topic.backlog;
        let Some(room) = gate.room_bytes() else { return offer };
        let period = gate.period.load(Ordering::Relaxed) + 1;
        if self.asked_in.swap(period, Ordering::Relaxed) != period {
            gate.asking.fetch_add(1, Ordering::Relaxed);
        }
        let mine = self.promised.load(Ordering::Relaxed);
        let others = gate.promised.load(Ordering::Relaxed).saturating_sub(mine);
        let even = (room / gate.publishers()).max(1);
        let left = room.saturating_sub(others).min(even);
        // What is under way has taken its room already.
        let bytes = outstanding.saturating_add(left);
        if bytes < offer.bytes { Offer { bytes, cause: Cause::Backlog } } else { offer }
    }

    /// What holds it back, when a group does.
    pub fn cause(&self) -> Option<CauseId> {
        self.topic.backlog.holds().map(|gauge| gauge.cause())
    }

    /// Which group holds it back, when one does.
    pub fn group(&self) -> Option<String> {
        self.topic.backlog.holds().map(|gauge| gauge.group().to_string())
    }

    /// The publisher may now send `unspent` bytes more.
    pub fn promise(&self, unspent: u64) {
        let gate = &self.topic.backlog;
        let limited = gate.limited.load(Ordering::Relaxed);
        if !limited && self.promised.load(Ordering::Relaxed) == 0 {
            return;
        }
        let unspent = if limited { unspent } else { 0 };
        let before = self.promised.swap(unspent, Ordering::Relaxed);
        // Two sums instead of one signed difference: `promised` never goes below what is there.
        gate.promised.fetch_add(unspent, Ordering::Relaxed);
        gate.promised.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for BacklogClaim {
    fn drop(&mut self) {
        self.topic.backlog.promised.fetch_sub(*self.promised.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::backlog::gauge::Found;
    use crate::types::Severity;

    const OFFER: Offer = Offer { bytes: 1_000, cause: Cause::Pool };

    fn gauge(group: &str, room: u64) -> Arc<BacklogGauge> {
        let group = group.parse().expect("a group");
        let gauge = BacklogGauge::new(group, CauseId::from(Cause::Backlog), Severity::Hold);
        let found = |limit| Found { lag: 1, limit, insider_extra: 0, drained_per_s: 0 };
        gauge.publish(gauge.mark(), found(UNLIMITED), found(room + 1), 1, false);
        gauge
    }

    fn topic(gauges: &[Arc<BacklogGauge>]) -> Arc<TopicFlow> {
        let topic = Arc::new(TopicFlow::new("orders".parse().expect("a topic")));
        topic.backlog.set(gauges.to_vec());
        topic
    }

    #[test]
    fn a_batch_takes_room_of_every_limit_or_of_none() {
        let (wide, narrow) = (gauge("wide", 100), gauge("narrow", 50));
        let topic = topic(&[Arc::clone(&wide), narrow]);
        let admit = |bytes| topic.backlog.admit(bytes, &|| 1, |_| Side::Outside);
        let told = admit(60).expect_err("beyond the narrow one");
        assert_eq!(told.limit_id, "backlog:narrow");
        assert_eq!((wide.room_bytes(), topic.backlog.room_bytes()), (100, Some(50)));
        let hold = admit(50).expect("fits");
        assert_eq!(topic.backlog.room_bytes(), Some(0));
        drop(hold);
        assert_eq!(topic.backlog.room_bytes(), Some(50));
        topic.backlog.set(Vec::new());
        assert_eq!(topic.backlog.room_bytes(), None);
        admit(1 << 40).expect("no limit").written();
    }

    #[test]
    fn promises_to_all_publishers_together_fit_the_room() {
        let topic = topic(&[gauge("email", 100)]);
        let claims: Vec<_> = (0..3).map(|_| BacklogClaim::new(Arc::clone(&topic))).collect();
        let poll = |claim: &BacklogClaim| {
            let offer = claim.limit(OFFER, 0);
            claim.promise(offer.bytes);
            offer
        };
        let mut sum = 0;
        for round in 0..4 {
            sum = claims.iter().map(|claim| poll(claim).bytes).sum();
            assert!(sum <= 101, "{sum} in round {round}");
        }
        assert_eq!(poll(&claims[2]).cause, Cause::Backlog);
        assert!(claims.iter().all(|claim| claim.limit(OFFER, 0).bytes >= 30), "{sum}");
        drop(claims);
        assert_eq!(topic.backlog.promised.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_offer_that_fits_is_left_alone_and_what_is_under_way_has_its_room() {
        let claim = BacklogClaim::new(topic(&[gauge("email", 5_000)]));
        assert_eq!(claim.limit(OFFER, 0), OFFER);
        let full = BacklogClaim::new(topic(&[gauge("email", 0)]));
        assert_eq!(full.limit(OFFER, 300), Offer { bytes: 300, cause: Cause::Backlog });
        let none = BacklogClaim::new(topic(&[]));
        none.promise(77);
        assert_eq!((none.limit(OFFER, 0), none.promised.load(Ordering::Relaxed)), (OFFER, 0));
    }
}
