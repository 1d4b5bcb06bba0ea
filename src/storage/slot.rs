//! Blocks 1 and 2 of a segment: the watermark slots A and B, which say what an `fdatasync` covered.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STPSLOT1` |
//! | 8 | 8 | generation: the valid slot with the larger one counts |
//! | 16 | 4 | tag: CRC-32 of the segment's identity |
//! | 20 | 1 | clean: 1 = nothing was written since |
//! | 21 | 3 | zero |
//! | 24 | 80 | the durable tail, see below |
//! | 104 | 8 | offset lease |
//! | 112 | 8 | largest append time of the data, ms |
//! | 120 | 16 | boot id |
//! | 136 | 4 | leader epoch |
//! | 140 | 112 | zero |
//! | 252 | 4 | CRC-32 of bytes 0..252 |
//!
//! The tail (also in the footer): position u64 (`durable_end`), next offset i64, batches u64,
//! records u64, min timestamp i64, max timestamp i64, first epoch i32, last epoch i32, data CRC u32,
//! chain CRC u32, data sum u8 (0 = the data CRC is a CRC-32, 1 = a CRC-32C), zero 15 bytes.
//!
//! # The rules of the two slots
//! - A slot is written only to the place that does *not* hold the last synced one, with one
//!   `fdatasync` in flight per file, and states only what an `fdatasync` that returned 0 covered.
//! - `clean` = the file ends at `durable_end` and the next offset to hand out is `offset_lease`.
//! - not `clean` = any offset below `offset_lease` may have been handed out.

use crate::types::{LeaderEpoch, Offset, Timestamp};

use super::fields::{FieldReader, FieldWriter, FormatError};
use super::identity::expect_len;
use super::layout::{DATA_START, SLOT_A_POSITION, SLOT_B_POSITION};
use super::tail::{DataSum, SegmentTail};

/// Bytes of a slot: half a sector, so that no crash leaves half of it.
pub const SLOT_BYTES: usize = 256;

/// Offsets that one slot promises ahead at most. After a power cut at most so many are skipped;
/// and a topic that is not synced for its answers is synced once per half as many records, which
/// with small records is the only limit a disk sets to it between two segments.
pub const OFFSET_LEASE: i64 = 1 << 24;

const MAGIC: &[u8; 8] = b"STPSLOT1";
const STRUCTURE: &str = "watermark slot";

/// What was durable in a segment at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Grows by one with every slot written to the file; the first is 1.
    pub generation: u64,
    /// The segment's tag, see [`Identity::tag`](super::Identity::tag).
    pub tag: u32,
    /// Nothing was written since: the file ends at `tail.position`.
    pub clean: bool,
    /// Everything before it is durable.
    pub tail: SegmentTail,
    /// See the rules above; at least `tail.next_offset`.
    pub offset_lease: Offset,
    /// Largest wall time at which a batch of the segment was appended.
    pub max_append_time: Timestamp,
    /// Boot of the operating system in which the slot was written.
    pub boot_id: [u8; 16],
    /// The partition's leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Which of the two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPlace {
    /// Block 1.
    A,
    /// Block 2.
    B,
}

impl SlotPlace {
    /// Position in the file.
    pub fn position(self) -> u64 {
        match self {
            SlotPlace::A => SLOT_A_POSITION,
            SlotPlace::B => SLOT_B_POSITION,
        }
    }

    /// The one to write next after this one was synced.
    pub fn other(self) -> SlotPlace {
        match self {
            SlotPlace::A => SlotPlace::B,
            SlotPlace::B => SlotPlace::A,
        }
    }
}

impl Slot {
    /// The bytes of a slot.
    pub fn encode(&self) -> Vec<u8> {
        let fields = FieldWriter::new(MAGIC, SLOT_BYTES)
            .u64(self.generation)
            .u32(self.tag)
            .u8(u8::from(self.clean))
            .bytes(&[0; 3]);
        write_tail(fields, &self.tail)
            .i64(self.offset_lease.0)
            .i64(self.max_append_time.0)
            .bytes(&self.boot_id)
            .i32(self.leader_epoch.0)
            .seal(SLOT_BYTES)
    }

    /// Reads a slot of the segment with this `tag`. `bytes` are exactly [`SLOT_BYTES`].
    pub fn decode(bytes: &[u8], tag: u32) -> Result<Slot, FormatError> {
        expect_len(bytes, SLOT_BYTES, STRUCTURE)?;
        let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
        let generation = fields.u64()?;
        if fields.u32()? != tag {
            return Err(FormatError::Foreign { structure: STRUCTURE, field: "tag" });
        }
        let clean = fields.flag("clean")?;
        fields.zeros::<3>()?;
        let tail = read_tail(&mut fields)?;
        let offset_lease = Offset(fields.natural("offset_lease")?);
        if generation == 0 || offset_lease < tail.next_offset {
            return Err(fields.bad("offset_lease"));
        }
        let slot = Slot {
            generation,
            tag,
            clean,
            tail,
            offset_lease,
            max_append_time: Timestamp(fields.i64()?),
            boot_id: fields.bytes()?,
            leader_epoch: LeaderEpoch(fields.i32()?),
        };
        fields.finish()?;
        Ok(slot)
    }
}

/// Both slots as they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPair {
    /// Block 1.
    pub a: Result<Slot, FormatError>,
    /// Block 2; `Ok(None)` while it was never written.
    pub b: Result<Option<Slot>, FormatError>,
}

impl SlotPair {
    /// Reads both from their [`SLOT_BYTES`] each.
    pub fn decode(a: &[u8], b: &[u8], tag: u32) -> SlotPair {
        let never_written = b.len() == SLOT_BYTES && b.iter().all(|byte| *byte == 0);
        let b = if never_written { Ok(None) } else { Slot::decode(b, tag).map(Some) };
        SlotPair { a: Slot::decode(a, tag), b }
    }

    /// The valid slot with the largest generation, and its place.
    pub fn newest(&self) -> Option<(SlotPlace, Slot)> {
        let a = self.a.as_ref().ok().map(|slot| (SlotPlace::A, *slot));
        let b = self.b.as_ref().ok().copied().flatten().map(|slot| (SlotPlace::B, slot));
        match (a, b) {
            (Some(a), Some(b)) => Some(if a.1.generation >= b.1.generation { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Whether a slot that was written does not read back: then the newest may be older than the
    /// watermark was, and nothing may be cut.
    pub fn is_damaged(&self) -> bool {
        let b_is_missing = self.b == Ok(None) && self.a.as_ref().is_ok_and(|a| a.generation > 2);
        self.a.is_err() || self.b.is_err() || b_is_missing
    }
}

/// For `cargo fuzz`: no bytes may panic, and what decodes encodes to the same bytes.
pub fn fuzz_slot(bytes: &[u8]) {
    let tag =
        bytes.get(16..20).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
    if let Ok(slot) = Slot::decode(bytes, tag) {
        assert_eq!(slot.encode(), bytes);
    }
}

pub(crate) fn write_tail(fields: FieldWriter, tail: &SegmentTail) -> FieldWriter {
    fields
        .u64(tail.position)
        .i64(tail.next_offset.0)
        .u64(tail.batches)
        .u64(tail.records)
        .i64(tail.min_timestamp.0)
        .i64(tail.max_timestamp.0)
        .i32(tail.first_epoch.0)
        .i32(tail.last_epoch.0)
        .u32(tail.data_crc)
        .u32(tail.chain_crc)
        .u8(u8::from(tail.sum == DataSum::Crc32c))
        .bytes(&[0; 15])
}

pub(crate) fn read_tail(fields: &mut FieldReader<'_>) -> Result<SegmentTail, FormatError> {
    let mut tail = SegmentTail {
        position: fields.u64()?,
        next_offset: Offset(fields.natural("next_offset")?),
        batches: fields.u64()?,
        records: fields.u64()?,
        min_timestamp: Timestamp(fields.i64()?),
        max_timestamp: Timestamp(fields.i64()?),
        first_epoch: LeaderEpoch(fields.i32()?),
        last_epoch: LeaderEpoch(fields.i32()?),
        data_crc: fields.u32()?,
        sum: DataSum::Crc32,
        chain_crc: fields.u32()?,
    };
    if fields.flag("data_sum")? {
        tail.sum = DataSum::Crc32c;
    }
    fields.zeros::<15>()?;
    let empty = tail.position == DATA_START;
    let possible = (DATA_START..=u64::from(u32::MAX)).contains(&tail.position);
    if !possible || empty != (tail.batches == 0) {
        return Err(fields.bad("position"));
    }
    Ok(tail)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    pub(crate) fn example() -> Slot {
        Slot {
            generation: 7,
            tag: 0xfeed,
            clean: false,
            tail: SegmentTail {
                position: 20_000,
                next_offset: Offset(1010),
                batches: 3,
                records: 10,
                min_timestamp: Timestamp(5),
                max_timestamp: Timestamp(9),
                first_epoch: LeaderEpoch(2),
                last_epoch: LeaderEpoch(3),
                data_crc: 1,
                sum: DataSum::Crc32c,
                chain_crc: 2,
            },
            offset_lease: Offset(2000),
            max_append_time: Timestamp(11),
            boot_id: [9; 16],
            leader_epoch: LeaderEpoch(3),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let slot = example();
        assert_eq!(Slot::decode(&slot.encode(), 0xfeed), Ok(slot));
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        assert_no_damage_passes(&example().encode(), |bytes| Slot::decode(bytes, 0xfeed));
    }

    #[test]
    fn a_slot_of_another_segment_is_foreign() {
        assert!(matches!(Slot::decode(&example().encode(), 1), Err(FormatError::Foreign { .. })));
    }

    #[test]
    fn the_newest_valid_slot_counts() {
        let (old, new) = (example(), Slot { generation: 8, ..example() });
        let pair = SlotPair::decode(&old.encode(), &new.encode(), 0xfeed);
        assert_eq!(pair.newest(), Some((SlotPlace::B, new)));
        assert!(!pair.is_damaged());
        let mut torn = new.encode();
        torn[100] ^= 1;
        let pair = SlotPair::decode(&old.encode(), &torn, 0xfeed);
        assert_eq!(pair.newest(), Some((SlotPlace::A, old)));
        assert!(pair.is_damaged());
        assert_eq!(SlotPair::decode(&torn, &torn, 0xfeed).newest(), None);
    }

    #[test]
    fn an_unwritten_second_slot_is_damage_only_once_it_must_have_been_written() {
        let pair = |generation| {
            let slot = Slot { generation, ..example() };
            SlotPair::decode(&slot.encode(), &[0; SLOT_BYTES], 0xfeed)
        };
        assert!(!pair(1).is_damaged());
        assert!(pair(3).is_damaged());
    }

    #[test]
    fn a_lease_below_the_tail_is_impossible() {
        let slot = Slot { offset_lease: Offset(1009), ..example() };
        assert!(Slot::decode(&slot.encode(), 0xfeed).is_err());
    }
}
