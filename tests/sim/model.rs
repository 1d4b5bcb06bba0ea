//! What must be true of a partition after a crash, kept beside the engine by the one who sends: the
//! oracle of every run (invariants I1-I5, I7 of the reliability programme).
//!
//! The model knows what was sent, what was answered, what a reader saw and what was trimmed. It
//! never looks at files; batches are recognised by the CRC of their payload, which is unique.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use stoplog::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, BatchLimits, BuilderOptions, CheckedBatch,
    ProducerStamp, RecordRef,
};
use stoplog::storage::{AppendError, Appended};
use stoplog::types::{
    Durability, DurabilityLevel, Offset, PartitionHealth, ProducerEpoch, ProducerId, Timestamp,
};

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The machine lost power: unsynced bytes may be gone.
    Power,
    /// The process was killed: the page cache survives.
    Kill,
    /// It was closed in order: nothing may be missing.
    Close,
}

impl Cut {
    /// The weakest level that survives it.
    fn covers(self, level: DurabilityLevel) -> bool {
        match self {
            Cut::Power => level == DurabilityLevel::Durable,
            Cut::Kill => level >= DurabilityLevel::Os,
            Cut::Close => true,
        }
    }
}

/// What became of a batch, as far as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer yet.
    Waiting,
    /// In the log.
    Done(Appended),
    /// Refused with nothing written.
    NotWritten,
    /// The device failed: it may or may not be there.
    Unknown,
}

/// A batch on its way.
#[derive(Clone, Debug)]
pub struct Sent {
    pub bytes: Bytes,
    pub producer: Option<ProducerStamp>,
    pub records: i64,
    pub outcome: Outcome,
}

/// A batch as it was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub header: BatchHeader,
    pub key: u32,
}

impl Found {
    /// Reads one batch; its CRC is checked.
    pub fn read(bytes: &[u8]) -> Result<Found, String> {
        let header = BatchHeader::read(bytes).map_err(|e| format!("stored header: {e}"))?;
        let limits = BatchLimits { attributes_refused: 0, ..BatchLimits::client(1 << 20) };
        CheckedBatch::check(Bytes::copy_from_slice(bytes), &limits)
            .map_err(|e| format!("stored batch at {}: {e}", header.base_offset))?;
        Ok(Found { header, key: key_of(bytes) })
    }

    fn base(&self) -> i64 {
        self.header.base_offset.0
    }

    fn next(&self) -> i64 {
        self.header.next_offset().0
    }
}

fn key_of(bytes: &[u8]) -> u32 {
    crc32fast::hash(&bytes[BATCH_HEADER_BYTES..])
}

/// A batch that a reader saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    key: u32,
    /// A power cut took it, as the topic's durability allows: nothing else may take its place.
    lost: bool,
}

/// What a start after a crash shows.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub health: PartitionHealth,
    pub start: i64,
    pub visible_end: i64,
    pub log_end: i64,
    pub batches: Vec<Found>,
    /// What the start said.
    pub findings: Vec<String>,
}

impl Recovered {
    /// One line for a failure.
    pub fn summary(&self) -> String {
        let batches: Vec<_> = self
            .batches
            .iter()
            .map(|b| format!("{}..{}@{}", b.base(), b.next(), b.header.leader_epoch.0))
            .collect();
        let ends = (self.start, self.visible_end, self.log_end);
        let found = self.findings.join("; ");
        format!("{:?} {ends:?} [{}] ({found})", self.health, batches.join(" "))
    }
}

/// One partition from outside.
#[derive(Clone, Debug)]
pub struct Model {
    pub durability: Durability,
    /// Whether old segments may vanish by themselves.
    pub retention: bool,
    pub sent: Vec<Sent>,
    by_key: HashMap<u32, usize>,
    /// Batches a reader saw, by base offset.
    seen: BTreeMap<i64, Seen>,
    pub trim_requested: i64,
    pub trim_acked: i64,
    /// No offset below was free after it was handed out.
    pub handed_end: i64,
    /// After a power cut offsets may have been skipped; only then.
    may_skip: bool,
    pub payloads: u64,
}

impl Model {
    pub fn new(durability: Durability) -> Model {
        Model {
            durability,
            retention: false,
            sent: Vec::new(),
            by_key: HashMap::new(),
            seen: BTreeMap::new(),
            trim_requested: 0,
            trim_acked: 0,
            handed_end: 0,
            may_skip: false,
            payloads: 0,
        }
    }

    /// Makes a batch that no other batch of this run equals, and remembers it.
    pub fn send(
        &mut self,
        producer: Option<(i64, i16, i32)>,
        records: u32,
        value_bytes: usize,
        timestamp: Timestamp,
    ) -> usize {
        let producer = producer.map(|(id, epoch, base_sequence)| ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence,
        });
        let mut builder = BatchBuilder::new(BuilderOptions { producer, ..Default::default() });
        for _ in 0..records {
            self.payloads += 1;
            let number = self.payloads.to_le_bytes();
            // No byte is zero, so that a hole never looks like data.
            let mut value = vec![0xa5; value_bytes.max(8)];
            for (byte, part) in value.iter_mut().zip(number) {
                *byte = part | 0x80;
            }
            let key = self.payloads.to_string();
            let record = RecordRef {
                timestamp,
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &[],
            };
            builder.push(&record).unwrap();
        }
        let bytes = builder.build();
        let index = self.sent.len();
        self.by_key.insert(key_of(&bytes), index);
        let records = i64::from(records);
        self.sent.push(Sent { bytes, producer, records, outcome: Outcome::Waiting });
        index
    }

    /// Notes the answer of the batch `index`.
    pub fn answered(
        &mut self,
        index: usize,
        result: Result<Appended, AppendError>,
    ) -> Result<(), String> {
        let outcome = match result {
            Ok(appended) => {
                self.handed_end = self.handed_end.max(appended.last_offset.0 + 1);
                let records = appended.last_offset - appended.base_offset + 1;
                if records != self.sent[index].records {
                    return Err(format!("batch {index} was answered with {records} offsets"));
                }
                Outcome::Done(appended)
            }
            Err(AppendError::ReadOnly { .. } | AppendError::Latched { .. }) => Outcome::Unknown,
            Err(_) => Outcome::NotWritten,
        };
        match (self.sent[index].outcome, outcome) {
            // A retry is answered with the place of the original.
            (Outcome::Done(first), Outcome::Done(again)) => {
                if first.base_offset != again.base_offset {
                    return Err(format!("batch {index}: {first:?}, as a duplicate {again:?}"));
                }
                if again.level > first.level {
                    self.sent[index].outcome = outcome;
                }
            }
            (Outcome::Done(_), _) => {}
            _ => self.sent[index].outcome = outcome,
        }
        Ok(())
    }

    /// Notes what a reader was given.
    pub fn saw(&mut self, found: &Found) -> Result<(), String> {
        if !self.by_key.contains_key(&found.key) {
            return Err(format!("a reader was given a batch nobody sent: {:?}", found.header));
        }
        self.handed_end = self.handed_end.max(found.next());
        match self.seen.insert(found.base(), Seen { key: found.key, lost: false }) {
            Some(before) if before.key != found.key || before.lost => {
                Err(format!("offset {} changed under a reader", found.base()))
            }
            _ => Ok(()),
        }
    }

    /// Checks what a start after `cut` shows against everything known before it.
    pub fn check(&self, after: &Recovered, cut: Cut) -> Result<(), String> {
        if after.health != PartitionHealth::Writable {
            return Err(format!("no byte was damaged, yet it is {:?}", after.health));
        }
        self.check_ends(after)?;
        let found = self.check_batches(after, cut)?;
        self.check_acknowledged(after, &found, cut)?;
        self.check_seen(after, cut)?;
        check_sequences(&after.batches)
    }

    fn check_ends(&self, after: &Recovered) -> Result<(), String> {
        let (start, end) = (after.start, after.visible_end);
        if start > end || end > after.log_end {
            return Err(format!("ends out of order: {after:?}"));
        }
        if start < self.trim_acked {
            return Err(format!("starts at {start}, trimmed to {}", self.trim_acked));
        }
        if start > self.trim_requested.max(self.trim_acked) && !self.retention {
            return Err(format!(
                "starts at {start}, nobody trimmed beyond {}",
                self.trim_requested
            ));
        }
        Ok(())
    }

    /// I2, I3 and that nothing is made up; the positions found, by key.
    fn check_batches(&self, after: &Recovered, cut: Cut) -> Result<HashMap<u32, i64>, String> {
        let mut found = HashMap::with_capacity(after.batches.len());
        let mut last: Option<&Found> = None;
        for batch in &after.batches {
            let expected = last.map_or(after.start, Found::next);
            let behind = batch.base() > expected;
            let ahead = last.is_some() && batch.base() < expected;
            let epoch_grew = last.is_none_or(|l| batch.header.leader_epoch > l.header.leader_epoch);
            if ahead || (behind && !epoch_grew) {
                return Err(format!("batch at {}, expected {expected}", batch.base()));
            }
            let Some(sent) = self.by_key.get(&batch.key).map(|i| &self.sent[*i]) else {
                return Err(format!("nobody sent the batch at {}", batch.base()));
            };
            if sent.outcome == Outcome::NotWritten {
                return Err(format!("the batch at {} was refused as not written", batch.base()));
            }
            if found.insert(batch.key, batch.base()).is_some() {
                return Err(format!("the batch at {} is there twice", batch.base()));
            }
            last = Some(batch);
        }
        let expected = last.map_or(after.start, Found::next);
        let may_skip = self.may_skip || cut == Cut::Power;
        if after.visible_end < expected || (after.visible_end > expected && !may_skip) {
            return Err(format!("ends at {}, expected {expected}", after.visible_end));
        }
        Ok(found)
    }

    /// I1: acknowledged at a level that covers the cut = there, at the same offset.
    fn check_acknowledged(
        &self,
        after: &Recovered,
        found: &HashMap<u32, i64>,
        cut: Cut,
    ) -> Result<(), String> {
        for sent in &self.sent {
            let Outcome::Done(appended) = sent.outcome else { continue };
            let must = cut.covers(appended.level) && appended.last_offset.0 >= after.start;
            match found.get(&key_of(&sent.bytes)) {
                Some(base) if *base != appended.base_offset.0 => {
                    return Err(format!("acknowledged {appended:?}, found at {base}"));
                }
                None if must => return Err(format!("lost: acknowledged {appended:?}")),
                _ => {}
            }
        }
        Ok(())
    }

    /// I5 and I7: what a reader saw never changes; of an `fsync` topic it never vanishes.
    fn check_seen(&self, after: &Recovered, cut: Cut) -> Result<(), String> {
        let must = cut != Cut::Power || self.durability == Durability::Fsync;
        let now: BTreeMap<i64, &Found> = after.batches.iter().map(|b| (b.base(), b)).collect();
        for (base, Seen { key, lost }) in &self.seen {
            let holder = now.range(..=base).next_back().map(|(_, b)| *b);
            match holder.filter(|b| b.next() > *base) {
                Some(batch) if batch.base() != *base || batch.key != *key || *lost => {
                    return Err(format!("offset {base}, seen by a reader, is another batch now"));
                }
                None if must && !lost && *base >= after.start => {
                    return Err(format!("offset {base}, seen by a reader, is gone"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Goes on after a cut: what was not found is lost, what was found is known.
    pub fn restart(&mut self, after: &Recovered, cut: Cut) {
        let found: HashMap<u32, &Found> = after.batches.iter().map(|b| (b.key, b)).collect();
        for sent in &mut self.sent {
            sent.outcome = match (found.get(&key_of(&sent.bytes)), sent.outcome) {
                (Some(found), outcome) => {
                    // Recovery made it durable before it served anything.
                    let (base_offset, last_offset) =
                        (found.header.base_offset, found.header.last_offset());
                    let append_time = match outcome {
                        Outcome::Done(appended) => appended.append_time,
                        _ => Timestamp::NONE,
                    };
                    Outcome::Done(Appended {
                        base_offset,
                        last_offset,
                        append_time,
                        level: DurabilityLevel::Durable,
                        duplicate: false,
                        log_start: Offset(after.start),
                    })
                }
                (None, _) => Outcome::NotWritten,
            };
        }
        for (_, seen) in self.seen.range_mut(after.start..) {
            seen.lost |= !found.contains_key(&seen.key);
        }
        self.may_skip |= cut == Cut::Power;
        self.trim_acked = after.start;
        self.trim_requested = self.trim_requested.max(after.start);
    }

    /// Base offset and key of every batch that was acknowledged as durable.
    pub fn acknowledged(&self) -> impl Iterator<Item = (i64, u32)> {
        self.sent.iter().filter_map(|sent| match sent.outcome {
            Outcome::Done(a) if a.level == DurabilityLevel::Durable => {
                Some((a.base_offset.0, key_of(&sent.bytes)))
            }
            _ => None,
        })
    }

    /// The batches of a producer that are known to be in the log, oldest first.
    pub fn known_of(&self, producer: i64) -> Vec<(usize, Appended)> {
        let mine = |sent: &Sent| sent.producer.is_some_and(|p| p.id == ProducerId(producer));
        let known = self.sent.iter().enumerate().filter(|(_, sent)| mine(sent));
        known
            .filter_map(|(index, sent)| match sent.outcome {
                Outcome::Done(appended) => Some((index, appended)),
                _ => None,
            })
            .collect()
    }
}

/// I2 and I4: of each producer and epoch, sequences follow one another without repetition.
fn check_sequences(batches: &[Found]) -> Result<(), String> {
    let mut last: HashMap<(i64, i16), i32> = HashMap::new();
    let mut fenced: HashSet<(i64, i16)> = HashSet::new();
    for batch in batches {
        let header = &batch.header;
        if header.producer_id == ProducerId::NONE {
            continue;
        }
        let key = (header.producer_id.0, header.producer_epoch.0);
        if fenced.contains(&key) {
            return Err(format!("producer {key:?} wrote at {} after its successor", batch.base()));
        }
        for older in 0..header.producer_epoch.0 {
            fenced.insert((key.0, older));
        }
        let expected = last.get(&key).map_or(header.base_sequence, |l| l + 1);
        if header.base_sequence != expected {
            let found = header.base_sequence;
            return Err(format!("producer {key:?}: sequence {found}, expected {expected}"));
        }
        last.insert(key, header.base_sequence + header.last_offset_delta);
    }
    Ok(())
}
