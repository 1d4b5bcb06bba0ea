//! Block 0 of a segment: what this file is, written and synced once, before anything else.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STPSEGM1` |
//! | 8 | 2 | format version |
//! | 10 | 2 | smallest version that may read it |
//! | 12 | 4 | bytes of the header region |
//! | 16 | 4 | compatible feature bits: unknown ones are ignored |
//! | 20 | 4 | read-only-compatible feature bits: unknown ones forbid writing |
//! | 24 | 4 | incompatible feature bits: unknown ones forbid reading; 1 = the data CRC is a CRC-32C |
//! | 28 | 4 | partition |
//! | 32 | 16 | cluster id |
//! | 48 | 16 | topic id |
//! | 64 | 8 | base offset |
//! | 72 | 8 | creation time, ms |
//! | 80 | 4 | leader epoch at creation |
//! | 84 | 424 | zero |
//! | 508 | 4 | CRC-32 of bytes 0..508; also the tag by which slots, footer and index belong to it |

use crate::types::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicPartition};
use uuid::Uuid;

use super::fields::{FieldReader, FieldWriter, FormatError};
use super::layout::HEADER_BYTES;
use super::tail::DataSum;

/// Version this code writes.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of an identity: one sector, so that no crash leaves half of it.
pub const IDENTITY_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"STPSEGM1";
const STRUCTURE: &str = "segment identity";
/// No read-only-compatible feature is defined.
const KNOWN_RO_COMPAT: u32 = 0;
/// Incompatible feature: the data CRC is a CRC-32C.
const DATA_CRC32C: u32 = 1;
const KNOWN_INCOMPAT: u32 = DATA_CRC32C;

/// What a segment file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The data directory it belongs to.
    pub cluster_id: Uuid,
    /// The partition it belongs to.
    pub id: TopicPartition,
    /// Offset of its first record; also its file name.
    pub base_offset: Offset,
    /// Wall time of its creation.
    pub created: Timestamp,
    /// The partition's leader epoch at its creation.
    pub leader_epoch: LeaderEpoch,
    /// Version that wrote it, smallest version that may read it, feature bits.
    pub features: Features,
}

/// Versions, and feature bits as ext4 has them: what an older reader may do with a file that uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Version that wrote the file.
    pub format_version: u16,
    /// Smallest version that may read it.
    pub min_reader_version: u16,
    /// Unknown bits are ignored.
    pub compat: u32,
    /// Unknown bits forbid writing.
    pub ro_compat: u32,
    /// Unknown bits forbid reading.
    pub incompat: u32,
}

impl Default for Features {
    fn default() -> Features {
        Features {
            format_version: FORMAT_VERSION,
            min_reader_version: FORMAT_VERSION,
            compat: 0,
            ro_compat: 0,
            incompat: DATA_CRC32C,
        }
    }
}

impl Features {
    /// How the segment's data is summed up.
    pub fn data_sum(&self) -> DataSum {
        if self.incompat & DATA_CRC32C == 0 { DataSum::Crc32 } else { DataSum::Crc32c }
    }
}

impl Identity {
    /// The bytes of block 0 (the rest of the block is zero).
    pub fn encode(&self) -> Vec<u8> {
        FieldWriter::new(MAGIC, IDENTITY_BYTES)
            .u16(self.features.format_version)
            .u16(self.features.min_reader_version)
            .u32(HEADER_BYTES as u32)
            .u32(self.features.compat)
            .u32(self.features.ro_compat)
            .u32(self.features.incompat)
            .u32(self.id.partition.0)
            .bytes(self.cluster_id.as_bytes())
            .bytes(self.id.topic.as_bytes())
            .i64(self.base_offset.0)
            .i64(self.created.0)
            .i32(self.leader_epoch.0)
            .seal(IDENTITY_BYTES)
    }

    /// Reads block 0. `bytes` are exactly [`IDENTITY_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Identity, FormatError> {
        expect_len(bytes, IDENTITY_BYTES, STRUCTURE)?;
        let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
        let (format_version, min_reader_version) = (fields.u16()?, fields.u16()?);
        let header_bytes = fields.u32()?;
        let features = Features {
            format_version,
            min_reader_version,
            compat: fields.u32()?,
            ro_compat: fields.u32()?,
            incompat: fields.u32()?,
        };
        let newer = |what: String| FormatError::Newer { structure: STRUCTURE, what };
        if format_version == 0 || min_reader_version > FORMAT_VERSION {
            let what = format!("version {format_version}, readable from {min_reader_version} on");
            return Err(newer(what));
        }
        if features.incompat & !KNOWN_INCOMPAT != 0 {
            return Err(newer(format!("incompatible features {:#x}", features.incompat)));
        }
        if u64::from(header_bytes) != HEADER_BYTES {
            return Err(fields.bad("header_bytes"));
        }
        let partition = PartitionId(fields.u32()?);
        let cluster_id = Uuid::from_bytes(fields.bytes()?);
        let topic = TopicId::from_bytes(fields.bytes()?);
        let identity = Identity {
            cluster_id,
            id: TopicPartition { topic, partition },
            base_offset: Offset(fields.natural("base_offset")?),
            created: Timestamp(fields.i64()?),
            leader_epoch: LeaderEpoch(fields.i32()?),
            features,
        };
        fields.finish()?;
        Ok(identity)
    }

    /// The file's own checksum; slots, footer and index repeat it, so that a block of another
    /// segment is never taken for one of this.
    pub fn tag(&self) -> u32 {
        let bytes = self.encode();
        bytes.last_chunk::<4>().map_or(0, |crc| u32::from_le_bytes(*crc))
    }

    /// Whether this version may write to the file.
    pub fn is_writable(&self) -> bool {
        self.features.ro_compat & !KNOWN_RO_COMPAT == 0
    }

    /// Whether it belongs where it was found.
    pub fn expect(
        &self,
        cluster_id: Uuid,
        id: TopicPartition,
        base_offset: Offset,
    ) -> Result<(), FormatError> {
        let foreign = |field| Err(FormatError::Foreign { structure: STRUCTURE, field });
        if self.cluster_id != cluster_id {
            return foreign("cluster id");
        }
        if self.id != id {
            return foreign("topic and partition");
        }
        if self.base_offset != base_offset {
            return foreign("base offset");
        }
        Ok(())
    }
}

/// For `cargo fuzz`: no bytes may panic, and what decodes encodes to the same bytes.
pub fn fuzz_identity(bytes: &[u8]) {
    if let Ok(identity) = Identity::decode(bytes) {
        assert_eq!(identity.encode(), bytes);
    }
}

pub(crate) fn expect_len(
    bytes: &[u8],
    needed: usize,
    structure: &'static str,
) -> Result<(), FormatError> {
    if bytes.len() == needed {
        return Ok(());
    }
    Err(FormatError::Short { structure, needed: needed as u64, found: bytes.len() as u64 })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    pub(crate) fn example() -> Identity {
        Identity {
            cluster_id: Uuid::from_bytes([0xc1; 16]),
            id: TopicPartition {
                topic: TopicId::from_bytes([0x70; 16]),
                partition: PartitionId(5),
            },
            base_offset: Offset(1000),
            created: Timestamp(1_700_000_000_000),
            leader_epoch: LeaderEpoch(3),
            features: Features::default(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let identity = example();
        assert_eq!(identity.encode().len(), IDENTITY_BYTES);
        assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        assert_no_damage_passes(&example().encode(), Identity::decode);
    }

    #[test]
    fn unknown_incompatible_features_forbid_reading_and_read_only_ones_writing() {
        let mut identity = example();
        identity.features.ro_compat = 2;
        let read = Identity::decode(&identity.encode()).expect("readable");
        assert!(!read.is_writable());
        identity.features.incompat |= 2;
        assert!(matches!(Identity::decode(&identity.encode()), Err(FormatError::Newer { .. })));
    }

    #[test]
    fn a_file_in_the_wrong_place_is_foreign() {
        let it = example();
        assert_eq!(it.expect(it.cluster_id, it.id, it.base_offset), Ok(()));
        assert!(it.expect(Uuid::nil(), it.id, it.base_offset).is_err());
        assert!(it.expect(it.cluster_id, it.id, Offset(0)).is_err());
        let other = TopicPartition { partition: PartitionId(6), ..it.id };
        assert!(it.expect(it.cluster_id, other, it.base_offset).is_err());
    }
}
