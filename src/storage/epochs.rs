//! `epochs`: which leader epoch started at which offset. A cache: rebuilt from footers and slots
//! whenever it is missing or bad.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STPEPOC1` |
//! | 8 | 16 | topic id |
//! | 24 | 4 | partition |
//! | 28 | 4 | number of entries |
//! | 32 | 16 each | epoch i32, zero 4 bytes, start offset i64 |
//! | end - 4 | 4 | CRC-32 of all bytes before |
//!
//! # Invariants
//! Epochs ascend strictly, start offsets never descend.

use crate::types::{LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition};

use super::fields::{FieldReader, FieldWriter, FormatError};

/// More entries than this are not kept: the oldest go. One is added at every unclean start.
pub const EPOCHS_MAX: usize = 4096;
/// Largest file.
pub const EPOCHS_BYTES_MAX: u64 = (HEAD_BYTES + EPOCHS_MAX * ENTRY_BYTES + 4) as u64;

const MAGIC: &[u8; 8] = b"STPEPOC1";
const STRUCTURE: &str = "epochs";
const HEAD_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;

/// Where an epoch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset.
    pub start: Offset,
}

/// All epochs of a partition that are still of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochStart>,
}

impl Epochs {
    /// No epochs.
    pub fn new() -> Epochs {
        Epochs::default()
    }

    /// The entries, ascending.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// Says that `epoch` starts at `start`. Entries it contradicts (the same or a newer epoch, or a
    /// later start) were never served and go.
    pub fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        self.entries.retain(|entry| entry.epoch < epoch && entry.start <= start);
        self.entries.push(EpochStart { epoch, start });
        let surplus = self.entries.len().saturating_sub(EPOCHS_MAX);
        self.entries.drain(..surplus);
    }

    /// Forgets epochs that ended at or before `log_start`.
    pub fn trim(&mut self, log_start: Offset) {
        let ended = self.entries.iter().skip(1).take_while(|next| next.start <= log_start).count();
        self.entries.drain(..ended);
    }

    /// The largest epoch that is not above `epoch`, and the offset behind its last record: Kafka's
    /// OffsetForLeaderEpoch. `None` when every known epoch is above it.
    pub fn end_offset(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let found = self.entries.iter().rposition(|entry| entry.epoch <= epoch)?;
        let end = self.entries.get(found + 1).map_or(log_end, |next| next.start);
        self.entries.get(found).map(|entry| (entry.epoch, end))
    }

    /// The bytes of the file of partition `id`.
    pub fn encode(&self, id: TopicPartition) -> Vec<u8> {
        let size = HEAD_BYTES + self.entries.len() * ENTRY_BYTES + 4;
        let mut fields = FieldWriter::new(MAGIC, size)
            .bytes(id.topic.as_bytes())
            .u32(id.partition.0)
            .u32(self.entries.len() as u32);
        for entry in &self.entries {
            fields = fields.i32(entry.epoch.0).u32(0).i64(entry.start.0);
        }
        fields.seal_tight()
    }

    /// Reads the bytes of the file of partition `id`.
    pub fn decode(bytes: &[u8], id: TopicPartition) -> Result<Epochs, FormatError> {
        let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
        let topic = TopicId::from_bytes(fields.bytes()?);
        if (TopicPartition { topic, partition: PartitionId(fields.u32()?) }) != id {
            let field = "topic and partition";
            return Err(FormatError::Foreign { structure: STRUCTURE, field });
        }
        let count = fields.u32()? as usize;
        if count > EPOCHS_MAX || HEAD_BYTES + count * ENTRY_BYTES + 4 != bytes.len() {
            return Err(fields.bad("number of entries"));
        }
        let mut entries: Vec<EpochStart> = Vec::with_capacity(count);
        for _ in 0..count {
            let epoch = LeaderEpoch(fields.i32()?);
            fields.zeros::<4>()?;
            let start = Offset(fields.natural("start")?);
            if entries.last().is_some_and(|last| last.epoch >= epoch || last.start > start) {
                return Err(fields.bad("order of entries"));
            }
            entries.push(EpochStart { epoch, start });
        }
        fields.finish()?;
        Ok(Epochs { entries })
    }
}

/// For `cargo fuzz`: no bytes may panic, and what decodes encodes to the same bytes.
pub fn fuzz_epochs(bytes: &[u8]) {
    let topic = bytes.get(8..24).and_then(|b| b.first_chunk::<16>()).copied().unwrap_or_default();
    let partition =
        bytes.get(24..28).and_then(|b| b.first_chunk::<4>()).copied().unwrap_or_default();
    let id = TopicPartition {
        topic: TopicId::from_bytes(topic),
        partition: PartitionId(u32::from_le_bytes(partition)),
    };
    if let Ok(epochs) = Epochs::decode(bytes, id) {
        assert_eq!(epochs.encode(id), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    fn id() -> TopicPartition {
        TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId(2) }
    }

    fn example() -> Epochs {
        let mut epochs = Epochs::new();
        for (epoch, start) in [(0, 0), (1, 100), (4, 100), (5, 250)] {
            epochs.begin(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Epochs::decode(&example().encode(id()), id()), Ok(example()));
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        assert_no_damage_passes(&example().encode(id()), |bytes| Epochs::decode(bytes, id()));
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let end = |epoch| example().end_offset(LeaderEpoch(epoch), Offset(300));
        assert_eq!(end(0), Some((LeaderEpoch(0), Offset(100))));
        assert_eq!(end(3), Some((LeaderEpoch(1), Offset(100))));
        assert_eq!(end(5), Some((LeaderEpoch(5), Offset(300))));
        assert_eq!(end(99), Some((LeaderEpoch(5), Offset(300))));
        assert_eq!(end(-1), None);
    }

    #[test]
    fn beginning_an_epoch_again_replaces_it() {
        let mut epochs = example();
        epochs.begin(LeaderEpoch(5), Offset(240));
        assert_eq!(epochs.latest(), Some(EpochStart { epoch: LeaderEpoch(5), start: Offset(240) }));
        assert_eq!(epochs.entries().len(), 4);
    }

    #[test]
    fn trim_keeps_the_epoch_that_holds_the_log_start() {
        let mut epochs = example();
        epochs.trim(Offset(120));
        assert_eq!(epochs.entries().first().map(|e| e.epoch), Some(LeaderEpoch(4)));
        epochs.trim(Offset(10_000));
        assert_eq!(epochs.entries().len(), 1);
    }

    #[test]
    fn the_number_of_epochs_is_bounded() {
        let mut epochs = Epochs::new();
        for epoch in 0..EPOCHS_MAX as i32 + 10 {
            epochs.begin(LeaderEpoch(epoch), Offset(0));
        }
        assert_eq!(epochs.entries().len(), EPOCHS_MAX);
        assert_eq!(epochs.encode(id()).len() as u64, EPOCHS_BYTES_MAX);
    }
}
