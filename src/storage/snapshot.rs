//! `<offset>.snap`: the producer state of a partition made by all batches below `offset`. Recovery
//! starts from the newest valid one and replays the batch headers behind it.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STPSNAP1` |
//! | 8 | 16 | topic id |
//! | 24 | 4 | partition |
//! | 28 | 4 | number of producers |
//! | 32 | 8 | offset, as in the name |
//! | 40 | 144 each | producers, least recently used first |
//! | end - 4 | 4 | CRC-32 of all bytes before |
//!
//! A producer: id i64, last use i64 ms, epoch i16, number of batches u8 (0 to 5), zero 5 bytes, and
//! five times {base sequence i32, last sequence i32, base offset i64, timestamp i64}, oldest first,
//! zero where there are fewer.

use crate::types::{
    Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicPartition,
};

use super::fields::{FieldReader, FieldWriter, FormatError};
use super::producer_state::{BATCHES_KEPT, Producer, ProducerLimits, ProducerState, RecentBatch};

/// Largest file: more producers than any limit allows are not believed.
pub const SNAPSHOT_BYTES_MAX: u64 = (HEAD_BYTES + PRODUCERS_MAX * PRODUCER_BYTES + 4) as u64;

const MAGIC: &[u8; 8] = b"STPSNAP1";
const STRUCTURE: &str = "producer snapshot";
const HEAD_BYTES: usize = 40;
const PRODUCER_BYTES: usize = 144;
const PRODUCERS_MAX: usize = 1 << 20;

/// The bytes of the file.
pub fn encode_snapshot(state: &ProducerState, id: TopicPartition, offset: Offset) -> Vec<u8> {
    let size = HEAD_BYTES + state.len() * PRODUCER_BYTES + 4;
    let mut fields = FieldWriter::new(MAGIC, size)
        .bytes(id.topic.as_bytes())
        .u32(id.partition.0)
        .u32(state.len() as u32)
        .i64(offset.0);
    for (id, producer) in state.iter() {
        fields = write_producer(fields, id, producer);
    }
    fields.seal_tight()
}

/// Reads the bytes of the file that is named after `offset`, for partition `id`. When it holds more
/// producers than `limits` allow, the most recently used are kept.
pub fn decode_snapshot(
    bytes: &[u8],
    id: TopicPartition,
    offset: Offset,
    limits: ProducerLimits,
) -> Result<ProducerState, FormatError> {
    let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
    let topic = TopicId::from_bytes(fields.bytes()?);
    let found = TopicPartition { topic, partition: PartitionId(fields.u32()?) };
    let count = fields.u32()? as usize;
    if found != id || fields.natural("offset")? != offset.0 {
        let field = "topic, partition or offset";
        return Err(FormatError::Foreign { structure: STRUCTURE, field });
    }
    if count > PRODUCERS_MAX || HEAD_BYTES + count * PRODUCER_BYTES + 4 != bytes.len() {
        return Err(fields.bad("number of producers"));
    }
    let mut state = ProducerState::new(limits);
    for _ in 0..count {
        let (id, producer) = read_producer(&mut fields)?;
        state.restore(id, producer);
    }
    fields.finish()?;
    Ok(state)
}

fn write_producer(fields: FieldWriter, id: ProducerId, producer: &Producer) -> FieldWriter {
    let recent = producer.recent();
    let mut fields = fields
        .i64(id.0)
        .i64(producer.last_used.0)
        .bytes(&producer.epoch.0.to_le_bytes())
        .u8(recent.len() as u8)
        .bytes(&[0; 5]);
    let none = RecentBatch::default();
    let padding = std::iter::repeat_n(&none, BATCHES_KEPT - recent.len());
    for batch in recent.iter().chain(padding) {
        let sequences = fields.i32(batch.base_sequence).i32(batch.last_sequence);
        fields = sequences.i64(batch.base_offset.0).i64(batch.timestamp.0);
    }
    fields
}

fn read_producer(fields: &mut FieldReader<'_>) -> Result<(ProducerId, Producer), FormatError> {
    let id = ProducerId(fields.natural("producer id")?);
    let last_used = Timestamp(fields.i64()?);
    let epoch = ProducerEpoch(i16::from_le_bytes(fields.bytes()?));
    let count = usize::from(fields.u8()?);
    fields.zeros::<5>()?;
    if epoch.0 < 0 || count > BATCHES_KEPT {
        return Err(fields.bad("epoch or number of batches"));
    }
    let mut producer = Producer::new(epoch, last_used);
    for place in 0..BATCHES_KEPT {
        let batch = RecentBatch {
            base_sequence: fields.i32()?,
            last_sequence: fields.i32()?,
            base_offset: Offset(fields.i64()?),
            timestamp: Timestamp(fields.i64()?),
        };
        if place < count {
            producer.remember(batch);
        } else if batch != RecentBatch::default() {
            return Err(fields.bad("reserved"));
        }
    }
    Ok((id, producer))
}

/// For `cargo fuzz`: no bytes may panic, and what decodes survives another round.
pub fn fuzz_snapshot(bytes: &[u8]) {
    let topic = bytes.get(8..24).and_then(|b| b.first_chunk::<16>()).copied().unwrap_or_default();
    let partition =
        bytes.get(24..28).and_then(|b| b.first_chunk::<4>()).copied().unwrap_or_default();
    let offset = bytes.get(32..40).and_then(|b| b.first_chunk::<8>()).copied().unwrap_or_default();
    let id = TopicPartition {
        topic: TopicId::from_bytes(topic),
        partition: PartitionId(u32::from_le_bytes(partition)),
    };
    let offset = Offset(i64::from_le_bytes(offset));
    let limits = ProducerLimits::default();
    if let Ok(state) = decode_snapshot(bytes, id, offset, limits) {
        let again = encode_snapshot(&state, id, offset);
        assert_eq!(decode_snapshot(&again, id, offset, limits), Ok(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    fn id() -> TopicPartition {
        TopicPartition { topic: TopicId::from_bytes([3; 16]), partition: PartitionId(1) }
    }

    fn example() -> ProducerState {
        let mut state = ProducerState::new(ProducerLimits::default());
        for number in [7, 3, 5] {
            let mut producer = Producer::new(ProducerEpoch(2), Timestamp(100 + number));
            for batch in 0..number as i32 {
                producer.remember(RecentBatch {
                    base_sequence: batch,
                    last_sequence: batch + 1,
                    base_offset: Offset(number * 10),
                    timestamp: Timestamp(9),
                });
            }
            state.restore(ProducerId(number), producer);
        }
        state
    }

    #[test]
    fn what_is_written_is_read_in_the_same_order_of_use() {
        let bytes = encode_snapshot(&example(), id(), Offset(50));
        let read = decode_snapshot(&bytes, id(), Offset(50), ProducerLimits::default());
        assert_eq!(read, Ok(example()));
        let ids: Vec<i64> = example().iter().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [7, 3, 5]);
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        let bytes = encode_snapshot(&example(), id(), Offset(50));
        assert_no_damage_passes(&bytes, |bytes| {
            decode_snapshot(bytes, id(), Offset(50), ProducerLimits::default())
        });
    }

    #[test]
    fn a_renamed_snapshot_is_foreign() {
        let bytes = encode_snapshot(&example(), id(), Offset(50));
        let read = decode_snapshot(&bytes, id(), Offset(51), ProducerLimits::default());
        assert!(matches!(read, Err(FormatError::Foreign { .. })));
    }

    #[test]
    fn a_lower_limit_keeps_the_most_recently_used() {
        let bytes = encode_snapshot(&example(), id(), Offset(50));
        let limits = ProducerLimits { producers_max: 1, ..ProducerLimits::default() };
        let read = decode_snapshot(&bytes, id(), Offset(50), limits).expect("valid");
        assert_eq!(read.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [5]);
    }
}
