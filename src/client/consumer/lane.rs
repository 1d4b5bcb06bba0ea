//! One partition of a consumer: what was received and not handed out yet, and where it stands. Pure
//! bookkeeping; its credit is `flow::CreditWindow`.
//!
//! # Invariants
//! `processed <= position <= fetch_from`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::flow::{CreditTotals, CreditWindow, Push, Share};
use crate::protocol::native::{batches, credit, pause, resume, seek};
use crate::record::{DecodeError, DecodeLimits, Record, Records};
use crate::types::{Offset, TopicName, TopicPartition};

/// Batches as they came, with what the broker had sent when they left.
#[derive(Debug)]
struct Parcel {
    data: Bytes,
    bytes: u64,
    next_offset: Offset,
    sent_records: u64,
}

/// What to tell the broker about a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Seek(seek::Request),
    Pause(pause::Request),
    Resume(resume::Request),
}

/// The state of one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic: TopicName,
    pub(super) part: TopicPartition,
    /// Its subscription on the current connection.
    pub(super) subscription: Option<u32>,
    epoch: u32,
    /// Epoch and pause as the broker was told, and whether its answer is still to come. One request
    /// is under way at a time, so that none overtakes another and the last wish is what holds.
    told_epoch: u32,
    told_paused: bool,
    telling: bool,
    /// The next offset to hand out.
    pub(super) position: Offset,
    /// The next offset to receive.
    pub(super) fetch_from: Offset,
    /// Everything before is processed.
    pub(super) processed: Offset,
    /// What the group has.
    pub(super) committed: Option<Offset>,
    /// Where reading ends.
    pub(super) end: Option<Offset>,
    pub(super) paused: bool,
    /// An error was reported; only a seek lets it go on.
    pub(super) halted: bool,
    /// No attempt to subscribe before.
    pub(super) retry_at: Option<Instant>,
    parcels: VecDeque<Parcel>,
    parcel_done: bool,
    current: Option<Records>,
    credit: CreditWindow,
}

impl Lane {
    pub(super) fn new(
        topic: TopicName,
        part: TopicPartition,
        from: Offset,
        credit: CreditWindow,
    ) -> Lane {
        Lane {
            topic,
            part,
            subscription: None,
            epoch: 0,
            told_epoch: 0,
            told_paused: false,
            telling: false,
            position: from,
            fetch_from: from,
            processed: from,
            committed: None,
            end: None,
            paused: false,
            halted: false,
            retry_at: None,
            parcels: VecDeque::new(),
            parcel_done: false,
            current: None,
            credit,
        }
    }

    /// The epoch of its subscription: one more with every seek.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether all it was to read is handed out.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// Whether a record or a batch may be there to hand out.
    pub(super) fn has_parcels(&self) -> bool {
        !self.parcels.is_empty() && !self.paused && !self.halted
    }

    /// Whether a parcel was used up since the last call: time for credit, and for others.
    pub(super) fn take_parcel_done(&mut self) -> bool {
        std::mem::take(&mut self.parcel_done)
    }

    /// Starts a new subscription's counters; the credit to open it with.
    pub(super) fn open(&mut self, number: u32, share: Share, now: Duration) -> CreditTotals {
        self.subscription = Some(number);
        (self.epoch, self.told_epoch) = (0, 0);
        (self.told_paused, self.telling) = (false, true);
        self.retry_at = None;
        self.restart_credit(share, now)
    }

    /// What the broker does not know yet, when it may be told: `told` follows its answer.
    pub(super) fn next_wish(&mut self) -> Option<Wish> {
        let subscription = self.subscription.filter(|_| !self.telling)?;
        let wish = if self.told_epoch != self.epoch {
            self.told_epoch = self.epoch;
            Wish::Seek(seek::Request {
                subscription,
                epoch: self.epoch,
                from: self.fetch_from,
                bytes_to: self.credit.granted().bytes_to,
                records_to: self.credit.granted().records_to,
            })
        } else if self.told_paused != self.paused {
            self.told_paused = self.paused;
            match self.paused {
                true => Wish::Pause(pause::Request { subscription }),
                false => Wish::Resume(resume::Request { subscription }),
            }
        } else {
            return None;
        };
        self.telling = true;
        Some(wish)
    }

    /// The broker did what it was told, SUBSCRIBE included.
    pub(super) fn told(&mut self) {
        self.telling = false;
    }

    /// Moves elsewhere: what was received is dropped. `next_wish` says so to the broker.
    pub(super) fn seek(&mut self, to: Offset, share: Share, now: Duration) {
        self.parcels.clear();
        self.current = None;
        (self.position, self.fetch_from, self.processed) = (to, to, to);
        self.halted = false;
        self.epoch += 1;
        self.restart_credit(share, now);
    }

    fn restart_credit(&mut self, share: Share, now: Duration) -> CreditTotals {
        // What is buffered from before belongs to no counter any more.
        for parcel in &mut self.parcels {
            (parcel.bytes, parcel.sent_records) = (0, 0);
        }
        self.credit.restart(share, now)
    }

    /// Batches came. Those of an older epoch are dropped.
    pub(super) fn receive(&mut self, notice: &batches::Request, data: Bytes, now: Duration) {
        if notice.epoch != self.epoch || notice.next_offset < self.fetch_from {
            return;
        }
        let push = Push {
            sent_bytes: notice.sent_bytes,
            sent_records: notice.sent_records,
            more: notice.next_offset < notice.visible_end,
        };
        self.credit.received(push, now);
        self.fetch_from = notice.next_offset;
        let bytes = data.len() as u64;
        let (next_offset, sent_records) = (notice.next_offset, notice.sent_records);
        self.parcels.push_back(Parcel { data, bytes, next_offset, sent_records });
    }

    /// The next record, if one is there. `None`: nothing is, for now.
    pub(super) fn next_record(
        &mut self,
        limits: &DecodeLimits,
    ) -> Option<Result<Record, DecodeError>> {
        loop {
            if self.is_done() {
                self.parcels.clear();
                self.current = None;
                return None;
            }
            if let Some(records) = &mut self.current {
                match records.next() {
                    Some(Ok(record)) if record.offset < self.position => continue,
                    Some(Ok(record)) if self.end.is_some_and(|end| record.offset >= end) => {
                        self.position = record.offset;
                        continue;
                    }
                    Some(Ok(record)) => {
                        self.position = record.offset + 1;
                        return Some(Ok(record));
                    }
                    Some(Err(error)) => {
                        self.current = None;
                        self.halted = true;
                        return Some(Err(error));
                    }
                    None => self.current = None,
                }
            }
            let parcel = self.parcels.front_mut()?;
            match Records::take_batch(&mut parcel.data, limits) {
                // Control records are for brokers.
                Some(Ok(records)) if records.header().attributes.is_control() => {}
                Some(Ok(records)) => self.current = Some(records),
                Some(Err(error)) => {
                    self.halted = true;
                    return Some(Err(error));
                }
                None => self.drop_parcel(),
            }
        }
    }

    /// All batches that came together, as they are.
    pub(super) fn next_parcel(&mut self) -> Option<(Bytes, Offset)> {
        let parcel = self.parcels.front_mut()?;
        let data = std::mem::take(&mut parcel.data);
        self.current = None;
        self.drop_parcel();
        Some((data, self.position))
    }

    fn drop_parcel(&mut self) {
        if let Some(parcel) = self.parcels.pop_front() {
            self.parcel_done = true;
            self.position = self.position.max(parcel.next_offset);
            self.credit.taken(parcel.bytes, parcel.sent_records);
        }
    }

    /// Records that came and were not handed out.
    pub(super) fn waiting_records(&self) -> u64 {
        self.credit.waiting_records()
    }

    /// What to tell the broker of its credit now.
    pub(super) fn credit(&mut self, share: Share, now: Duration) -> Option<credit::Request> {
        let subscription = self.subscription?;
        let CreditTotals { bytes_to, records_to } = self.credit.poll(share, now)?;
        Some(credit::Request { subscription, epoch: self.epoch, bytes_to, records_to })
    }

    /// When to look at its credit though nothing comes.
    pub(super) fn credit_again_at(&self) -> Option<Duration> {
        let asks = self.subscription.is_some() && !self.paused && !self.halted && !self.is_done();
        // What a seek changes is told with it.
        let told = !self.telling && self.told_epoch == self.epoch;
        if asks && told { self.credit.repeat_at() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BuilderOptions, RecordRef};
    use crate::types::{PartitionId, TopicId};

    const SHARE: Share = Share { bytes: 4 << 20, records: u64::MAX };

    fn lane() -> Lane {
        let topic = TopicId::from_bytes([1; 16]);
        let part = TopicPartition { topic, partition: PartitionId(0) };
        let mut lane =
            Lane::new("t".parse().expect("valid"), part, Offset(0), CreditWindow::new(None));
        lane.open(1, SHARE, Duration::ZERO);
        lane
    }

    fn batch(base: i64, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        for _ in 0..records {
            let record = RecordRef { value: Some(&[7; 100]), ..RecordRef::default() };
            builder.push(&record).expect("room");
        }
        let mut bytes = builder.build().to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        Bytes::from(bytes)
    }

    fn give(lane: &mut Lane, base: i64, records: usize, next_offset: i64) {
        let data = batch(base, records);
        let notice = batches::Request {
            subscription: 1,
            epoch: lane.epoch,
            next_offset: Offset(next_offset),
            visible_end: Offset(next_offset),
            sent_bytes: next_offset.unsigned_abs() * 1_000,
            sent_records: next_offset.unsigned_abs(),
        };
        lane.receive(&notice, data, Duration::ZERO);
    }

    fn offsets(lane: &mut Lane) -> Vec<i64> {
        let limits = DecodeLimits::default();
        std::iter::from_fn(|| lane.next_record(&limits))
            .map(|r| r.expect("good").offset.0)
            .collect()
    }

    #[test]
    fn records_before_the_position_are_skipped_and_gaps_are_jumped() {
        let mut lane = lane();
        (lane.position, lane.fetch_from) = (Offset(2), Offset(2));
        give(&mut lane, 0, 4, 10);
        assert_eq!(offsets(&mut lane), [2, 3]);
        assert_eq!((lane.position, lane.fetch_from), (Offset(10), Offset(10)));
    }

    #[test]
    fn reading_stops_at_the_end_inside_a_batch() {
        let mut lane = lane();
        lane.end = Some(Offset(3));
        give(&mut lane, 0, 5, 5);
        assert_eq!(offsets(&mut lane), [0, 1, 2]);
        assert!(lane.is_done());
    }

    #[test]
    fn an_older_epoch_and_a_repeat_are_dropped() {
        let mut lane = lane();
        give(&mut lane, 0, 2, 2);
        give(&mut lane, 0, 1, 1);
        assert_eq!(offsets(&mut lane), [0, 1]);
        lane.seek(Offset(50), SHARE, Duration::ZERO);
        let epoch = lane.epoch;
        let mut late = batches::Request {
            subscription: 1,
            epoch: epoch - 1,
            next_offset: Offset(60),
            visible_end: Offset(60),
            sent_bytes: 10_000,
            sent_records: 1,
        };
        lane.receive(&late, batch(2, 1), Duration::ZERO);
        assert!(!lane.has_parcels());
        late.epoch = epoch;
        lane.receive(&late, batch(50, 10), Duration::ZERO);
        assert_eq!(offsets(&mut lane).len(), 10);
    }

    #[test]
    fn the_broker_is_told_one_thing_at_a_time_and_at_last_what_holds() {
        let mut lane = lane();
        lane.seek(Offset(5), SHARE, Duration::ZERO);
        lane.paused = true;
        assert_eq!(lane.next_wish(), None, "SUBSCRIBE is not answered yet");
        lane.told();
        lane.seek(Offset(7), SHARE, Duration::ZERO);
        let told = lane.next_wish();
        assert!(matches!(&told, Some(Wish::Seek(s)) if (s.epoch, s.from) == (2, Offset(7))));
        lane.seek(Offset(9), SHARE, Duration::ZERO);
        assert_eq!(lane.next_wish(), None, "the seek is not answered yet");
        lane.told();
        assert!(matches!(lane.next_wish(), Some(Wish::Seek(s)) if s.epoch == 3));
        lane.told();
        assert!(matches!(lane.next_wish(), Some(Wish::Pause(_))));
        lane.paused = false;
        lane.paused = true;
        lane.told();
        assert_eq!(lane.next_wish(), None);
        lane.paused = false;
        assert!(matches!(lane.next_wish(), Some(Wish::Resume(_))));
        lane.open(2, SHARE, Duration::ZERO);
        lane.told();
        assert_eq!(lane.next_wish(), None, "a new subscription knows where it begins");
    }
}
