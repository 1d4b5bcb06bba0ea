//! `partition.manifest`: what a partition's segments are, written as intent before the file
//! operation it announces and as fact after it.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STPMANI1` |
//! | 8 | 16 | cluster id |
//! | 24 | 16 | topic id |
//! | 40 | 4 | partition |
//! | 44 | 4 | leader epoch |
//! | 48 | 8 | generation: grows by one with every manifest written |
//! | 56 | 8 | log start: first offset that may be read (trim point) |
//! | 64 | 8 | offset floor: no new segment starts below it |
//! | 72 | 4 | number of segments |
//! | 76 | 4 | number of gaps |
//! | 80 | 40 each | segments, by base offset |
//! | ... | 32 each | gaps, by first offset |
//! | end - 4 | 4 | CRC-32 of all bytes before |
//!
//! A segment: base offset i64, next offset i64, data end u64, data CRC u32, chain CRC u32, state u8
//! (1 creating, 2 active, 3 sealed, 4 deleting, 5 sealing), zero 7 bytes; next offset, data end and
//! the CRCs are zero while it is creating or active. A gap: first offset i64, next offset i64, time i64 ms, cause u8 (1 = loss
//! accepted by repair), zero 7 bytes.
//!
//! # Invariants
//! Bases ascend strictly; only the last entry may be creating or active; behind a sealing segment
//! there are only sealing, creating and active ones; the next offset of a sealing or sealed segment is
//! at most the base of the one behind it.

use uuid::Uuid;

use crate::types::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicPartition};

use super::fields::{FieldReader, FieldWriter, FormatError};
use super::footer::Footer;

/// More segments than this are not kept in one partition: 8 TiB at the default size, and a manifest
/// of 2.6 MB.
pub const SEGMENTS_MAX: usize = 1 << 16;
/// More gaps than this are not kept: each is an operator's decision.
pub const GAPS_MAX: usize = 1 << 10;
/// Largest file.
pub const MANIFEST_BYTES_MAX: u64 =
    (HEAD_BYTES + SEGMENTS_MAX * SEGMENT_BYTES + GAPS_MAX * GAP_BYTES + 4) as u64;

const MAGIC: &[u8; 8] = b"STPMANI1";
const STRUCTURE: &str = "partition manifest";
const HEAD_BYTES: usize = 80;
const SEGMENT_BYTES: usize = 40;
const GAP_BYTES: usize = 32;

/// What a partition consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The data directory it belongs to.
    pub cluster_id: Uuid,
    /// The partition it belongs to.
    pub id: TopicPartition,
    /// Grows by one with every manifest written.
    pub generation: u64,
    /// First offset that may be read: retention and trim move it.
    pub log_start: Offset,
    /// No new segment starts below it: it outlives the segments that were there.
    pub offset_floor: Offset,
    /// Leader epoch when it was written; slots may hold a higher one.
    pub leader_epoch: LeaderEpoch,
    /// Segments by base offset.
    pub segments: Vec<SegmentEntry>,
    /// Losses that an operator accepted, by first offset.
    pub gaps: Vec<Gap>,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its base offset and file name.
    pub base_offset: Offset,
    /// How far it got.
    pub state: SegmentState,
}

/// How far a segment got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Its file is about to be made; it holds nothing yet.
    Creating,
    /// Its file is durable and takes appends.
    Active,
    /// It is full and takes no more appends; its data and its footer need not be durable yet.
    Sealing(Seal),
    /// It will never change.
    Sealed(Seal),
    /// Its files are about to be removed.
    Deleting(Seal),
}

/// What is known for ever about a full segment, twice: here and in its footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Offset behind its last record.
    pub next_offset: Offset,
    /// Position behind its data.
    pub data_end: u64,
    /// CRC-32 of its data.
    pub data_crc: u32,
    /// CRC-32 of its batch headers.
    pub chain_crc: u32,
}

impl From<&Footer> for Seal {
    fn from(footer: &Footer) -> Seal {
        Seal {
            next_offset: footer.tail.next_offset,
            data_end: footer.tail.position,
            data_crc: footer.tail.data_crc,
            chain_crc: footer.tail.chain_crc,
        }
    }
}

/// A range of offsets that is gone, and everybody may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First offset that is gone.
    pub first: Offset,
    /// First offset behind it.
    pub next: Offset,
    /// When the loss was accepted.
    pub at: Timestamp,
}

impl Manifest {
    /// The manifest of a partition that was just made.
    pub fn new(cluster_id: Uuid, id: TopicPartition) -> Manifest {
        Manifest {
            cluster_id,
            id,
            generation: 0,
            log_start: Offset::ZERO,
            offset_floor: Offset::ZERO,
            leader_epoch: LeaderEpoch(0),
            segments: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// The bytes of the file. Panics when an invariant is broken: that is a defect of the caller.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.is_ordered(), "manifest out of order: {self:?}");
        let size = HEAD_BYTES + self.segments.len() * SEGMENT_BYTES + self.gaps.len() * GAP_BYTES;
        let mut fields = FieldWriter::new(MAGIC, size + 4)
            .bytes(self.cluster_id.as_bytes())
            .bytes(self.id.topic.as_bytes())
            .u32(self.id.partition.0)
            .i32(self.leader_epoch.0)
            .u64(self.generation)
            .i64(self.log_start.0)
            .i64(self.offset_floor.0)
            .u32(self.segments.len() as u32)
            .u32(self.gaps.len() as u32);
        for segment in &self.segments {
            fields = segment.write(fields);
        }
        for gap in &self.gaps {
            let range = fields.i64(gap.first.0).i64(gap.next.0);
            fields = range.i64(gap.at.0).u8(1).bytes(&[0; 7]);
        }
        fields.seal_tight()
    }

    /// Reads the bytes of the file.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
        let cluster_id = Uuid::from_bytes(fields.bytes()?);
        let topic = TopicId::from_bytes(fields.bytes()?);
        let id = TopicPartition { topic, partition: PartitionId(fields.u32()?) };
        let leader_epoch = LeaderEpoch(fields.i32()?);
        let generation = fields.u64()?;
        let log_start = Offset(fields.natural("log_start")?);
        let offset_floor = Offset(fields.natural("offset_floor")?);
        let (segment_count, gap_count) = (fields.u32()? as usize, fields.u32()? as usize);
        let size = HEAD_BYTES as u64
            + segment_count as u64 * SEGMENT_BYTES as u64
            + gap_count as u64 * GAP_BYTES as u64
            + 4;
        if segment_count > SEGMENTS_MAX || gap_count > GAPS_MAX || size != bytes.len() as u64 {
            return Err(fields.bad("number of segments or gaps"));
        }
        let segments = (0..segment_count)
            .map(|_| SegmentEntry::read(&mut fields))
            .collect::<Result<_, _>>()?;
        let gaps = (0..gap_count).map(|_| Gap::read(&mut fields)).collect::<Result<_, _>>()?;
        let manifest = Manifest {
            cluster_id,
            id,
            generation,
            log_start,
            offset_floor,
            leader_epoch,
            segments,
            gaps,
        };
        if !manifest.is_ordered() {
            return Err(fields.bad("order of segments or gaps"));
        }
        fields.finish()?;
        Ok(manifest)
    }

    /// Whether it belongs where it was found.
    pub fn expect(&self, cluster_id: Uuid, id: TopicPartition) -> Result<(), FormatError> {
        let field = match () {
            () if self.cluster_id != cluster_id => "cluster id",
            () if self.id != id => "topic and partition",
            () => return Ok(()),
        };
        Err(FormatError::Foreign { structure: STRUCTURE, field })
    }

    /// Intent: a segment at `base` is about to be made; nothing may start below it from now on.
    pub fn creating(&mut self, base: Offset) {
        self.offset_floor = self.offset_floor.max(base);
        self.segments.push(SegmentEntry { base_offset: base, state: SegmentState::Creating });
    }

    /// Fact: the segment at `base` is durable (from `creating`).
    pub fn activate(&mut self, base: Offset) {
        self.set(base, SegmentState::Active);
    }

    /// Fact: the segment at `base` is durable and behind all others.
    pub fn opened(&mut self, base: Offset) {
        self.offset_floor = self.offset_floor.max(base);
        self.segments.push(SegmentEntry { base_offset: base, state: SegmentState::Active });
    }

    /// Fact: the segment at `base` is full (from `active`); it takes no more appends.
    pub fn sealing(&mut self, base: Offset, seal: Seal) {
        self.set(base, SegmentState::Sealing(seal));
    }

    /// Fact: the segment at `base` and its footer are durable.
    pub fn seal(&mut self, base: Offset, footer: &Footer) {
        self.set(base, SegmentState::Sealed(footer.into()));
    }

    /// Intent: all sealed segments that end at or before `log_start` are about to be removed, and
    /// nothing below it is read any more. The bases of those segments.
    pub fn trim(&mut self, log_start: Offset) -> Vec<Offset> {
        self.log_start = self.log_start.max(log_start);
        let mut gone = Vec::new();
        for entry in &mut self.segments {
            match entry.state {
                SegmentState::Sealed(seal) if seal.next_offset <= self.log_start => {
                    entry.state = SegmentState::Deleting(seal);
                    gone.push(entry.base_offset);
                }
                SegmentState::Deleting(_) => gone.push(entry.base_offset),
                _ => {}
            }
        }
        self.gaps.retain(|gap| gap.next > self.log_start);
        gone
    }

    /// Fact: the files of the segment at `base` are gone.
    pub fn forget(&mut self, base: Offset) {
        self.segments.retain(|entry| entry.base_offset != base);
    }

    /// Of segment files those that may follow the last segment without being named yet.
    pub fn unnamed(&self, logs: &[Offset]) -> Vec<Offset> {
        let last = self.segments.last().map(|entry| entry.base_offset);
        let behind = |base: &Offset| last.is_none_or(|last| *base > last);
        logs.iter().copied().filter(|base| behind(base) && *base >= self.offset_floor).collect()
    }

    /// The entry of the segment at `base`.
    pub fn segment(&self, base: Offset) -> Option<&SegmentEntry> {
        self.segments.iter().rev().find(|entry| entry.base_offset == base)
    }

    fn set(&mut self, base: Offset, state: SegmentState) {
        let entry = self.segments.iter_mut().find(|entry| entry.base_offset == base);
        assert!(entry.is_some(), "no segment starts at {base}");
        if let Some(entry) = entry {
            entry.state = state;
        }
    }

    fn is_ordered(&self) -> bool {
        let follows = |a: &SegmentEntry, b: &SegmentEntry| match a.state {
            SegmentState::Creating | SegmentState::Active => false,
            SegmentState::Sealing(_) if b.is_sealed() => false,
            SegmentState::Sealing(seal)
            | SegmentState::Sealed(seal)
            | SegmentState::Deleting(seal) => {
                a.base_offset < b.base_offset && seal.next_offset <= b.base_offset
            }
        };
        let sane = |entry: &SegmentEntry| {
            entry.seal().is_none_or(|seal| entry.base_offset <= seal.next_offset)
        };
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        let gap_pairs = self.gaps.iter().zip(self.gaps.iter().skip(1));
        self.segments.iter().all(sane)
            && pairs.into_iter().all(|(a, b)| follows(a, b))
            && self.gaps.iter().all(|gap| gap.first < gap.next)
            && gap_pairs.into_iter().all(|(a, b)| a.next <= b.first)
    }
}

impl SegmentEntry {
    /// What is known of it once it is full.
    pub fn seal(&self) -> Option<Seal> {
        match self.state {
            SegmentState::Sealing(seal)
            | SegmentState::Sealed(seal)
            | SegmentState::Deleting(seal) => Some(seal),
            SegmentState::Creating | SegmentState::Active => None,
        }
    }

    fn is_sealed(&self) -> bool {
        matches!(self.state, SegmentState::Sealed(_) | SegmentState::Deleting(_))
    }

    fn write(&self, fields: FieldWriter) -> FieldWriter {
        let none = Seal { next_offset: Offset(0), data_end: 0, data_crc: 0, chain_crc: 0 };
        let (seal, state) = match self.state {
            SegmentState::Creating => (none, 1),
            SegmentState::Active => (none, 2),
            SegmentState::Sealed(seal) => (seal, 3),
            SegmentState::Deleting(seal) => (seal, 4),
            SegmentState::Sealing(seal) => (seal, 5),
        };
        let range = fields.i64(self.base_offset.0).i64(seal.next_offset.0).u64(seal.data_end);
        range.u32(seal.data_crc).u32(seal.chain_crc).u8(state).bytes(&[0; 7])
    }

    fn read(fields: &mut FieldReader<'_>) -> Result<SegmentEntry, FormatError> {
        let base_offset = Offset(fields.natural("base_offset")?);
        let seal = Seal {
            next_offset: Offset(fields.natural("next_offset")?),
            data_end: fields.u64()?,
            data_crc: fields.u32()?,
            chain_crc: fields.u32()?,
        };
        let state = match fields.u8()? {
            1 => SegmentState::Creating,
            2 => SegmentState::Active,
            3 => SegmentState::Sealed(seal),
            4 => SegmentState::Deleting(seal),
            5 => SegmentState::Sealing(seal),
            _ => return Err(fields.bad("state")),
        };
        fields.zeros::<7>()?;
        Ok(SegmentEntry { base_offset, state })
    }
}

impl Gap {
    fn read(fields: &mut FieldReader<'_>) -> Result<Gap, FormatError> {
        let gap = Gap {
            first: Offset(fields.natural("gap first")?),
            next: Offset(fields.natural("gap next")?),
            at: Timestamp(fields.i64()?),
        };
        if fields.u8()? != 1 {
            return Err(fields.bad("gap cause"));
        }
        fields.zeros::<7>()?;
        Ok(gap)
    }
}

/// For `cargo fuzz`: no bytes may panic, and what decodes survives another round.
pub fn fuzz_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    fn seal(next: i64) -> Seal {
        Seal { next_offset: Offset(next), data_end: 20_000, data_crc: 1, chain_crc: 2 }
    }

    pub(crate) fn example() -> Manifest {
        let id = TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId(2) };
        let entry = |base, state| SegmentEntry { base_offset: Offset(base), state };
        Manifest {
            generation: 9,
            log_start: Offset(4),
            offset_floor: Offset(30),
            leader_epoch: LeaderEpoch(2),
            segments: vec![
                entry(0, SegmentState::Deleting(seal(3))),
                entry(3, SegmentState::Sealed(seal(10))),
                entry(12, SegmentState::Sealing(seal(20))),
                entry(30, SegmentState::Active),
            ],
            gaps: vec![Gap { first: Offset(5), next: Offset(7), at: Timestamp(1) }],
            ..Manifest::new(Uuid::from_bytes([1; 16]), id)
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Manifest::decode(&example().encode()), Ok(example()));
        assert_eq!(example().encode().len(), 80 + 4 * 40 + 32 + 4);
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        assert_no_damage_passes(&example().encode(), Manifest::decode);
    }

    #[test]
    fn counts_are_checked_against_the_bytes_there_are() {
        let mut bytes = example().encode();
        bytes[72..76].copy_from_slice(&u32::MAX.to_le_bytes());
        let body = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Manifest::decode(&bytes), Err(FormatError::Field { .. })));
    }

    #[test]
    fn a_segment_goes_from_creating_to_gone() {
        let mut manifest = Manifest::new(Uuid::nil(), example().id);
        manifest.creating(Offset(0));
        manifest.activate(Offset(0));
        let mut tail = crate::storage::slot::tests::example().tail;
        tail.next_offset = Offset(10);
        let footer = Footer { tag: 1, tail, max_append_time: Timestamp(0) };
        manifest.sealing(Offset(0), (&footer).into());
        manifest.creating(Offset(10));
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert_eq!(manifest.trim(Offset(10)), [], "what is not sealed yet stays");
        manifest.log_start = Offset(0);
        manifest.seal(Offset(0), &footer);
        assert_eq!(manifest.trim(Offset(9)), []);
        assert_eq!(manifest.trim(Offset(10)), [Offset(0)]);
        assert_eq!(manifest.trim(Offset(5)), [Offset(0)], "the log start never goes back");
        manifest.forget(Offset(0));
        assert_eq!(manifest.segments.len(), 1);
        assert_eq!((manifest.log_start, manifest.offset_floor), (Offset(10), Offset(10)));
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn two_open_segments_are_a_defect() {
        let mut manifest = example();
        manifest.creating(Offset(40));
        manifest.encode();
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn nothing_is_sealed_behind_a_segment_that_is_not() {
        let mut manifest = example();
        let late = |base, state| SegmentEntry { base_offset: Offset(base), state };
        manifest.segments.insert(3, late(20, SegmentState::Sealed(seal(30))));
        manifest.encode();
    }

    #[test]
    fn a_manifest_in_the_wrong_place_is_foreign() {
        let it = example();
        assert_eq!(it.expect(it.cluster_id, it.id), Ok(()));
        assert!(it.expect(Uuid::nil(), it.id).is_err());
        let other = TopicPartition { partition: PartitionId(9), ..it.id };
        assert!(it.expect(it.cluster_id, other).is_err());
    }
}
