//! What a partition remembers of idempotent producers: enough to recognise a repeated batch, to
//! answer it with the original offset, and to notice a lost one (Kafka KIP-98, KIP-185).
//!
//! Pure logic: no clock, no I/O. `check` looks, `record` remembers (after the batch got its offset)
//! and hands out an [`Undo`] for a write that then fails. `snapshot.rs` has the bytes.
//!
//! # Promises
//! - The last [`BATCHES_KEPT`] batches of a producer are recognised; an older repeat is told from a
//!   lost batch (`DuplicateUnknown` against `OutOfOrder`).
//! - Forgetting never refuses a producer: an unknown one may start at any sequence. The price of a
//!   producer forgotten after the idle time, or as the least recent of too many, is that a repeat of
//!   its last batch is not recognised.
//! - Where an acknowledged tail may be gone ([`ProducerState::tail_is_lost`]), a producer that is not
//!   known has to start at 0: what it wrote was lost, not forgotten, and it is told so.
//! - Producers outlive the segments their batches were in.

use std::collections::{BTreeMap, HashMap};

use crate::record::BatchHeader;
use crate::types::{Offset, ProducerEpoch, ProducerId, Timestamp};

/// Batches remembered per producer: Kafka's clients have at most five in flight.
pub const BATCHES_KEPT: usize = 5;

/// Bounds of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Producers per partition; the least recently used is forgotten. 10,000 take 2 MB.
    pub producers_max: usize,
    /// A producer that wrote nothing for so many milliseconds is forgotten.
    pub idle_ms: i64,
}

impl Default for ProducerLimits {
    fn default() -> ProducerLimits {
        ProducerLimits { producers_max: 10_000, idle_ms: 7 * 86_400_000 }
    }
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerCheck {
    /// Append it (also every batch without a producer id).
    Accept,
    /// It was appended before.
    Duplicate(RecentBatch),
    /// It was appended before, but its offset is no longer remembered.
    DuplicateUnknown,
    /// A batch before it is missing.
    OutOfOrder {
        /// The sequence that would be accepted.
        expected: i32,
        /// The sequence of the batch.
        found: i32,
    },
    /// A newer instance of the producer was here.
    Fenced {
        /// Its epoch.
        current: ProducerEpoch,
        /// The epoch of the batch.
        found: ProducerEpoch,
    },
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentBatch {
    /// Sequence of its first record.
    pub base_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Its largest timestamp; the append time where the topic says so.
    pub timestamp: Timestamp,
}

impl RecentBatch {
    /// Offset of its last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(distance(self.base_sequence, self.last_sequence))
    }
}

/// What is remembered of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its newest epoch.
    pub epoch: ProducerEpoch,
    /// When it last wrote, by the wall clock.
    pub last_used: Timestamp,
    recent: [RecentBatch; BATCHES_KEPT],
    recent_len: u8,
}

/// Takes one [`ProducerState::record`] back. Undone in reverse order of recording.
#[derive(Clone, Copy, Debug)]
pub struct Undo {
    id: ProducerId,
    before: Option<(u64, Producer)>,
    evicted: Option<(ProducerId, u64, Producer)>,
}

/// All producers of a partition.
#[derive(Clone, Debug)]
pub struct ProducerState {
    limits: ProducerLimits,
    producers: HashMap<ProducerId, (u64, Producer)>,
    /// Least recently used first; the key is a count of uses.
    by_use: BTreeMap<u64, ProducerId>,
    uses: u64,
    /// Unknown producers start at 0.
    tail_lost: bool,
}

impl Producer {
    /// The remembered batches, oldest first.
    pub fn recent(&self) -> &[RecentBatch] {
        self.recent.get(..usize::from(self.recent_len)).unwrap_or(&[])
    }

    pub(crate) fn new(epoch: ProducerEpoch, last_used: Timestamp) -> Producer {
        Producer { epoch, last_used, recent: Default::default(), recent_len: 0 }
    }

    pub(crate) fn remember(&mut self, batch: RecentBatch) {
        if usize::from(self.recent_len) == BATCHES_KEPT {
            self.recent.rotate_left(1);
            self.recent_len -= 1;
        }
        if let Some(place) = self.recent.get_mut(usize::from(self.recent_len)) {
            *place = batch;
            self.recent_len += 1;
        }
    }

    fn check(&self, header: &BatchHeader) -> ProducerCheck {
        let (base, last) = (header.base_sequence, header.last_sequence());
        if header.producer_epoch < self.epoch {
            return ProducerCheck::Fenced { current: self.epoch, found: header.producer_epoch };
        }
        let newest = self.recent().last().filter(|_| header.producer_epoch == self.epoch);
        let Some(newest) = newest else {
            // A new epoch starts at 0, so that a batch lost between the two is noticed.
            return match base {
                0 => ProducerCheck::Accept,
                _ => ProducerCheck::OutOfOrder { expected: 0, found: base },
            };
        };
        let same = |b: &&RecentBatch| (b.base_sequence, b.last_sequence) == (base, last);
        if let Some(batch) = self.recent().iter().find(same) {
            return ProducerCheck::Duplicate(*batch);
        }
        let expected = next_sequence(newest.last_sequence);
        if base == expected {
            ProducerCheck::Accept
        } else if is_before(base, expected) && is_before(last, expected) {
            ProducerCheck::DuplicateUnknown
        } else {
            ProducerCheck::OutOfOrder { expected, found: base }
        }
    }
}

impl ProducerState {
    /// No producers.
    pub fn new(limits: ProducerLimits) -> ProducerState {
        ProducerState {
            limits,
            producers: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            tail_lost: false,
        }
    }

    /// Acknowledged batches may be gone, and with them all that was known of their producers.
    pub fn tail_is_lost(&mut self) {
        self.tail_lost = true;
    }

    /// What is to be done with a batch that arrives `now` (wall time).
    pub fn check(&self, header: &BatchHeader, now: Timestamp) -> ProducerCheck {
        if !header.is_idempotent() {
            return ProducerCheck::Accept;
        }
        match self.producers.get(&header.producer_id) {
            Some((_, producer)) if !self.is_idle(producer, now) => producer.check(header),
            None if self.tail_lost && header.base_sequence != 0 => {
                ProducerCheck::OutOfOrder { expected: 0, found: header.base_sequence }
            }
            _ => ProducerCheck::Accept,
        }
    }

    /// Remembers a batch that has its final header. `None` when it has no producer.
    pub fn record(&mut self, header: &BatchHeader, now: Timestamp) -> Option<Undo> {
        if !header.is_idempotent() {
            return None;
        }
        let id = header.producer_id;
        let before = self.remove(id);
        let known = before.map(|(_, producer)| producer);
        let current = known.filter(|p| p.epoch == header.producer_epoch && !self.is_idle(p, now));
        let mut producer = current.unwrap_or(Producer::new(header.producer_epoch, now));
        producer.last_used = now;
        producer.remember(RecentBatch {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            timestamp: header.max_timestamp,
        });
        let evicted = self.make_room();
        self.uses += 1;
        self.insert(id, self.uses, producer);
        Some(Undo { id, before, evicted })
    }

    /// Takes back what [`record`](ProducerState::record) did: the write failed.
    pub fn undo(&mut self, undo: Undo) {
        self.remove(undo.id);
        if let Some((used, producer)) = undo.before {
            self.insert(undo.id, used, producer);
        }
        if let Some((id, used, producer)) = undo.evicted {
            self.insert(id, used, producer);
        }
    }

    /// Forgets producers that were idle for too long.
    pub fn expire(&mut self, now: Timestamp) {
        let idle = |s: &ProducerState, id| {
            s.producers.get(&id).is_none_or(|(_, producer)| s.is_idle(producer, now))
        };
        while let Some((_, id)) = self.by_use.first_key_value().filter(|(_, id)| idle(self, **id)) {
            self.remove(*id);
        }
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// All producers, least recently used first.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        let find = |id: &ProducerId| Some((*id, &self.producers.get(id)?.1));
        self.by_use.values().filter_map(find)
    }

    /// Adds one as the most recently used, as a snapshot holds it.
    pub(crate) fn restore(&mut self, id: ProducerId, producer: Producer) {
        self.remove(id);
        self.make_room();
        self.uses += 1;
        self.insert(id, self.uses, producer);
    }

    fn is_idle(&self, producer: &Producer, now: Timestamp) -> bool {
        now.0.saturating_sub(producer.last_used.0) > self.limits.idle_ms
    }

    fn make_room(&mut self) -> Option<(ProducerId, u64, Producer)> {
        if self.producers.len() < self.limits.producers_max.max(1) {
            return None;
        }
        let (_, id) = self.by_use.first_key_value()?;
        let id = *id;
        self.remove(id).map(|(used, producer)| (id, used, producer))
    }

    fn insert(&mut self, id: ProducerId, used: u64, producer: Producer) {
        self.producers.insert(id, (used, producer));
        self.by_use.insert(used, id);
    }

    fn remove(&mut self, id: ProducerId) -> Option<(u64, Producer)> {
        let entry = self.producers.remove(&id)?;
        self.by_use.remove(&entry.0);
        Some(entry)
    }
}

impl PartialEq for ProducerState {
    /// Same producers in the same order of use.
    fn eq(&self, other: &ProducerState) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// Sequences run from 0 to `i32::MAX` and then from 0 again.
fn next_sequence(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

/// Steps from `from` to `to` on that circle.
fn distance(from: i32, to: i32) -> i32 {
    let steps = (i64::from(to) - i64::from(from)).rem_euclid(1 << 31);
    i32::try_from(steps).unwrap_or(0)
}

/// Whether `a` lies in the half of the circle before `b`.
fn is_before(a: i32, b: i32) -> bool {
    (1..=1 << 30).contains(&distance(a, b))
}

#[cfg(test)]
mod tests;
