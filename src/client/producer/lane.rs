//! One partition's share of a producer: the batch being filled, batches that wait, batches under
//! way. Pure bookkeeping; `Shared` does the sending.
//!
//! # Invariants
//! - Batches leave in the order of their ids, and so of their sequence numbers.
//! - While anything failed, nothing new is sent until all that was under way is answered: then what
//!   failed goes first, in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::delivery::Teller;
use crate::client::ClientError;
use crate::client::core::Core;
use crate::client::flow::RetryContract;
use crate::protocol::native::ErrorDetail;
use crate::protocol::native::producer_init::Producer as Identity;
use crate::record::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, ProducerStamp, crc32c};
use crate::types::{Effects, ErrorCode, Offset, PartitionId};

/// Records of a batch in the making, or its bytes.
pub(super) enum Body {
    Building(BatchBuilder),
    Built(Bytes),
}

/// A batch on its way.
pub(super) struct Batch {
    pub(super) id: u64,
    pub(super) body: Body,
    pub(super) records: u32,
    /// Number of its first record, counted from the start of the identity's epoch.
    pub(super) first: Option<i64>,
    /// Bytes of room it gives back when it is done.
    pub(super) room: usize,
    pub(super) opened: Instant,
    pub(super) deadline: Instant,
    pub(super) outcome: Teller,
    /// Bytes that were sent.
    pub(super) sent_bytes: u64,
    pub(super) last_error: Option<ClientError>,
    /// The broker's process it was sent to last.
    pub(super) sent_to: Option<Arc<str>>,
    /// An attempt may have written it, or do so yet while this process of the broker lives.
    pub(super) doubt: Option<Arc<str>>,
    /// Its outcome was told before its answer came; it only keeps its place in the window.
    pub(super) given_up: bool,
}

impl Batch {
    /// What an attempt, or the lack of an answer to it, leaves behind.
    pub(super) fn failed(&mut self, error: ClientError) {
        if error.effects() == Effects::Unknown {
            self.is_in_doubt();
        }
        self.last_error = Some(error);
    }

    /// The last attempt may have written it.
    pub(super) fn is_in_doubt(&mut self) {
        self.doubt = self.sent_to.clone();
    }

    /// What its records fail with.
    pub(super) fn failure(&self, otherwise: ClientError) -> ClientError {
        let effects = if self.doubt.is_some() { Effects::Unknown } else { Effects::None };
        self.last_error.clone().unwrap_or(otherwise).of_all_attempts(effects)
    }

    pub(super) fn size_bytes(&self) -> usize {
        match &self.body {
            Body::Building(builder) => builder.len_bytes(),
            Body::Built(bytes) => bytes.len(),
        }
    }
}

/// Who a partition's batches come from.
pub(super) enum Sender {
    /// Not idempotent.
    Nobody,
    /// The broker is to be asked: for a new identity, or for the next epoch of one.
    Ask { previous: Option<Identity> },
    /// It is being asked.
    Asked,
    /// Known; `next` is the number of the next record.
    Known { identity: Identity, next: i64 },
}

/// Records that were acknowledged and then lost by the broker: it was killed with the machine
/// before an `os` tail reached the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// Of which partition.
    pub partition: PartitionId,
    /// How many records.
    pub records: u64,
    /// Offset of the first one as it was acknowledged, as far as that is remembered.
    pub first_offset: Option<Offset>,
}

/// Acknowledged batches whose offsets are remembered, to name what was lost.
const ACKED_REMEMBERED: usize = 64;

/// The state of one partition.
pub(super) struct Lane {
    pub(super) partition: PartitionId,
    pub(super) open: Option<Batch>,
    pub(super) ready: VecDeque<Batch>,
    pub(super) under_way: BTreeMap<u64, Batch>,
    pub(super) failed: BTreeMap<u64, Batch>,
    /// A batch that may yet be written was given up: its numbers must not be used again.
    pub(super) gap_in_doubt: bool,
    pub(super) hold_until: Option<Instant>,
    /// Batches that may be unanswered: one after a refusal, then twice as many with each that is taken.
    unanswered_max: usize,
    pub(super) retries: RetryContract,
    pub(super) sender: Sender,
    /// Number after the last acknowledged record.
    acked_to: i64,
    acked: VecDeque<(i64, Offset)>,
    /// Size of the last sealed batch: what the next one reserves.
    pub(super) last_bytes: usize,
}

/// What `settle` found, besides what is to be sent again.
#[derive(Default)]
pub(super) struct Settled {
    /// Acknowledged records that are gone.
    pub(super) lost: Option<LostRange>,
    /// Batches that may not be sent under another epoch: a copy may yet be written under this one.
    pub(super) undecided: Vec<Batch>,
}

impl Lane {
    pub(super) fn new(partition: PartitionId, sender: Sender, retry_wait: Duration) -> Lane {
        Lane {
            partition,
            open: None,
            ready: VecDeque::new(),
            under_way: BTreeMap::new(),
            failed: BTreeMap::new(),
            gap_in_doubt: false,
            hold_until: None,
            unanswered_max: usize::MAX,
            retries: RetryContract::new(retry_wait),
            sender,
            acked_to: 0,
            acked: VecDeque::new(),
            last_bytes: 0,
        }
    }

    /// Whether it may send now, as far as it is concerned.
    pub(super) fn may_send(&self, window: usize, now: Instant) -> bool {
        self.has_room(window) && self.hold_until.is_none_or(|until| until <= now)
    }

    /// Whether its window takes another batch.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.failed.is_empty() && self.under_way.len() < window.min(self.unanswered_max)
    }

    /// Whether anything is to be sent but for time and room: a full batch, or one that is being
    /// filled. Without linger that one goes at once when nothing is under way, else with the
    /// answer to that, so that it fills meanwhile.
    pub(super) fn has_ripe(&self, linger: Duration) -> bool {
        !self.ready.is_empty()
            || (self.open.is_some() && (!linger.is_zero() || self.awaits_nothing()))
    }

    /// Whether no answer is to be waited for.
    pub(super) fn awaits_nothing(&self) -> bool {
        self.under_way.values().all(|batch| batch.given_up)
    }

    /// Whether nothing is left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none()
            && self.ready.is_empty()
            && self.awaits_nothing()
            && self.failed.is_empty()
    }

    /// Whether sending the next batch is a retry, or as good as one: the last one was refused. What was
    /// lost with its connection is none.
    pub(super) fn needs_budget(&self) -> bool {
        let refused = |batch: &Batch| {
            batch.last_error.as_ref().is_some_and(|error| error.pushback().is_some())
        };
        self.unanswered_max == 1 || self.ready.front().is_some_and(refused)
    }

    /// The batch is full, or has waited long enough.
    pub(super) fn seal(&mut self) {
        if let Some(batch) = self.open.take() {
            self.last_bytes = batch.size_bytes();
            self.ready.push_back(batch);
        }
    }

    /// Everything that is not answered yet.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &Batch> {
        self.open
            .iter()
            .chain(&self.ready)
            .chain(self.under_way.values().filter(|batch| !batch.given_up))
            .chain(self.failed.values())
    }

    /// Gives a batch its bytes, with the sender's stamp.
    pub(super) fn stamp(&mut self, batch: &mut Batch) {
        let stamp = match &mut self.sender {
            Sender::Known { identity, next } => {
                let first = *batch.first.get_or_insert_with(|| {
                    let first = *next;
                    *next += i64::from(batch.records);
                    first
                });
                Some(ProducerStamp {
                    id: identity.id,
                    epoch: identity.epoch,
                    base_sequence: on_wire(first),
                })
            }
            Sender::Nobody | Sender::Ask { .. } | Sender::Asked => None,
        };
        let unbuilt = Body::Built(Bytes::new());
        batch.body = Body::Built(match std::mem::replace(&mut batch.body, unbuilt) {
            Body::Building(mut builder) => {
                builder.set_producer(stamp);
                builder.build()
            }
            Body::Built(bytes) => restamp(bytes, stamp),
        });
    }

    /// It is in the log.
    pub(super) fn acked(&mut self, batch: &Batch, base: Option<Offset>) {
        self.retries.worked();
        self.unanswered_max = self.unanswered_max.saturating_mul(2);
        let Some(first) = batch.first else { return };
        self.acked_to = self.acked_to.max(first + i64::from(batch.records));
        if let Some(base) = base {
            self.acked.push_back((first, base));
            if self.acked.len() > ACKED_REMEMBERED {
                self.acked.pop_front();
            }
        }
    }

    /// Nothing is sent until what failed may be tried again; false when that is not before `deadline`.
    pub(super) fn hold(&mut self, core: &Core, error: &ClientError, deadline: Instant) -> bool {
        let now = Instant::now();
        if error.pushback().is_some() {
            self.unanswered_max = 1;
        }
        if self.hold_until.is_some_and(|until| until > now) {
            return true; // what was sent before the refusal was known is refused with it
        }
        let at = core.retry_at(&mut self.retries, error, deadline);
        // What comes after it waits as told all the same.
        self.hold_until = at.or_else(|| error.retry_after().map(|wait| now + wait));
        at.is_some()
    }

    /// It is not, but may be by another attempt.
    pub(super) fn try_again(&mut self, mut batch: Batch, error: ClientError) {
        batch.failed(error);
        self.failed.insert(batch.id, batch);
    }

    /// When nothing is under way any more: puts what failed in front again. `None` = not yet, or
    /// nothing failed.
    pub(super) fn settle(&mut self) -> Option<Settled> {
        if !self.under_way.is_empty() {
            return None;
        }
        let (_, head) = self.failed.first_key_value()?;
        let expected = match &head.last_error {
            Some(error) if error.code() == ErrorCode::OutOfOrderSequence => self.expected(head),
            _ => None,
        };
        let batches = std::mem::take(&mut self.failed);
        for batch in batches.into_values().rev() {
            self.ready.push_front(batch);
        }
        let Some(expected) = expected else { return Some(Settled::default()) };
        let lost = (expected < self.acked_to).then(|| LostRange {
            partition: self.partition,
            records: u64::try_from(self.acked_to - expected).unwrap_or(0),
            first_offset: self.offset_of(expected),
        });
        // A batch before was given up, never written: those behind it close the gap. If it, or an
        // earlier copy of one of those, may be on its way still, none must be taken for another: a
        // new epoch keeps out what comes late.
        let in_doubt = self.gap_in_doubt || self.ready.iter().any(|batch| batch.doubt.is_some());
        if lost.is_none() && !in_doubt {
            self.renumber(expected);
            return Some(Settled::default());
        }
        self.ask_for_next_epoch();
        Some(Settled { lost, undecided: self.take_undecided() })
    }

    /// Batches of which a copy may still reach the process that refused the head: until the new
    /// epoch is known there it would be written, and they a second time.
    fn take_undecided(&mut self) -> Vec<Batch> {
        let refused_by = self.ready.front().and_then(|head| head.sent_to.clone());
        let (undecided, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ready)
            .into_iter()
            .partition(|batch| batch.doubt.is_some() && batch.doubt == refused_by);
        self.ready = ready.into();
        undecided
    }

    fn ask_for_next_epoch(&mut self) {
        if let Sender::Known { identity, .. } = &self.sender {
            self.sender = Sender::Ask { previous: Some(identity.clone()) };
        }
    }

    /// The broker gave an identity.
    pub(super) fn identify(&mut self, identity: Identity) {
        self.sender = Sender::Known { identity, next: 0 };
        self.acked_to = 0;
        self.acked.clear();
        self.gap_in_doubt = false;
        self.renumber(0);
    }

    /// Numbers for batches that had some; those that never were sent get theirs when they are.
    fn renumber(&mut self, from: i64) {
        let mut number = from;
        for batch in self.ready.iter_mut().filter(|batch| batch.first.is_some()) {
            batch.first = Some(number);
            number += i64::from(batch.records);
        }
        if let Sender::Known { next, .. } = &mut self.sender {
            *next = number;
        }
    }

    /// The number the broker waits for, when it names one behind this batch's.
    fn expected(&self, batch: &Batch) -> Option<i64> {
        let first = batch.first?;
        match batch.last_error.as_ref()?.detail()? {
            ErrorDetail::Sequence { expected, found } => {
                let behind = i64::from(found.wrapping_sub(*expected) & i32::MAX);
                (behind <= first).then_some(first - behind)
            }
            _ => None,
        }
    }

    fn offset_of(&self, number: i64) -> Option<Offset> {
        let (first, base) = self.acked.iter().rev().find(|(first, _)| *first <= number)?;
        base.checked_add(number - first)
    }
}

/// Sequence numbers wrap from 2^31 - 1 to 0.
fn on_wire(number: i64) -> i32 {
    i32::try_from(number & i64::from(i32::MAX)).unwrap_or(0)
}

/// The same batch from another sender.
fn restamp(batch: Bytes, stamp: Option<ProducerStamp>) -> Bytes {
    let (Some(stamp), Ok(mut header)) = (stamp, BatchHeader::read(&batch)) else { return batch };
    let unchanged = header.producer_id == stamp.id
        && header.producer_epoch == stamp.epoch
        && header.base_sequence == stamp.base_sequence;
    if unchanged {
        return batch;
    }
    (header.producer_id, header.producer_epoch) = (stamp.id, stamp.epoch);
    header.base_sequence = stamp.base_sequence;
    let mut bytes = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if let Some(place) = bytes.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        header.write(place);
        header.crc = crc32c(&bytes[CRC_FROM..]);
    }
    if let Some(place) = bytes.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        header.write(place);
    }
    bytes.freeze()
}

/// The batch's CRC covers everything from its attributes on.
const CRC_FROM: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::native::ErrorAnswer;
    use crate::record::{BuilderOptions, RecordRef};
    use crate::types::{ProducerEpoch, ProducerId};

    /// The process of the broker that refuses.
    const BROKER: &str = "second";

    /// A lane whose batch of number 0 was given up for `given_up`, and whose batch of number 1 is
    /// then refused: the broker still waits for the first. An earlier copy of it was sent to
    /// `earlier` and not answered.
    fn refused_behind(given_up: ClientError, earlier: Option<&str>) -> (Lane, Settled) {
        let mut lane = Lane::new(PartitionId(0), Sender::Nobody, Duration::ZERO);
        lane.identify(Identity { id: ProducerId(7), epoch: ProducerEpoch(3) });
        let (mut first, mut second) = (batch(0), batch(1));
        lane.stamp(&mut first);
        lane.stamp(&mut second);
        first.failed(given_up);
        lane.gap_in_doubt |= first.doubt.is_some();
        if let Some(earlier) = earlier {
            second.sent_to = Some(earlier.into());
            second.failed(timed_out());
            second.sent_to = Some(BROKER.into());
        }
        let detail = ErrorDetail::Sequence { expected: 0, found: 1 };
        let refused = ErrorAnswer::new(ErrorCode::OutOfOrderSequence, "").with_detail(detail);
        lane.try_again(second, refused.into());
        let settled = lane.settle().expect("everything is answered");
        assert_eq!(settled.lost, None);
        (lane, settled)
    }

    fn timed_out() -> ClientError {
        ClientError::TimedOut { what: "PRODUCE", after: Duration::ZERO }
    }

    fn batch(id: u64) -> Batch {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        builder.push(&RecordRef::default()).expect("room");
        Batch {
            id,
            body: Body::Building(builder),
            records: 1,
            first: None,
            room: 0,
            opened: Instant::now(),
            deadline: Instant::now(),
            outcome: Teller::default(),
            sent_bytes: 0,
            last_error: None,
            sent_to: Some(BROKER.into()),
            doubt: None,
            given_up: false,
        }
    }

    #[test]
    fn a_gap_that_was_refused_is_closed_under_the_same_epoch() {
        let too_large = ErrorAnswer::new(ErrorCode::BatchTooLarge, "");
        let (lane, settled) = refused_behind(too_large.into(), None);
        assert!(matches!(lane.sender, Sender::Known { next: 1, .. }));
        assert_eq!((lane.ready[0].first, settled.undecided.len()), (Some(0), 0));
    }

    #[test]
    fn a_gap_that_may_yet_be_filled_ends_the_epoch() {
        let (mut lane, settled) = refused_behind(timed_out(), None);
        let Sender::Ask { previous: Some(previous) } = &lane.sender else { panic!("no new epoch") };
        assert_eq!((previous.epoch, settled.undecided.len()), (ProducerEpoch(3), 0));
        lane.identify(Identity { id: ProducerId(7), epoch: ProducerEpoch(4) });
        assert_eq!((lane.ready[0].first, lane.gap_in_doubt), (Some(0), false));
    }

    #[test]
    fn a_batch_whose_copy_may_still_arrive_is_not_sent_under_a_new_epoch() {
        // The gap's late copy and then this one's may be written before the epoch ends.
        let (lane, settled) = refused_behind(timed_out(), Some(BROKER));
        assert!(matches!(lane.sender, Sender::Ask { .. }) && lane.ready.is_empty());
        assert_eq!(settled.undecided[0].failure(timed_out()).effects(), Effects::Unknown);
    }

    #[test]
    fn a_copy_that_died_with_the_broker_it_was_sent_to_is_no_doubt() {
        let (lane, settled) = refused_behind(timed_out(), Some("first"));
        assert!(matches!(lane.sender, Sender::Ask { .. }));
        assert_eq!((lane.ready.len(), settled.undecided.len()), (1, 0));
    }
}
