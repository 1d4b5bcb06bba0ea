//! The last bytes of a sealed segment: its final tail, so that it describes itself for ever.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STPFOOT1` |
//! | 8 | 4 | tag: CRC-32 of the segment's identity |
//! | 12 | 4 | flags: none are defined in version 1, all must be 0 |
//! | 16 | 80 | the final tail, as in a slot (position = `data_end`) |
//! | 96 | 8 | largest append time, ms |
//! | 104 | 84 | zero |
//! | 188 | 4 | CRC-32 of bytes 0..188 |
//!
//! It starts at `data_end` and the file ends behind it.

use crate::types::Timestamp;

use super::fields::{FieldReader, FieldWriter, FormatError};
use super::identity::expect_len;
use super::slot::{read_tail, write_tail};
use super::tail::SegmentTail;

/// Bytes of a footer.
pub const FOOTER_BYTES: usize = 192;

const MAGIC: &[u8; 8] = b"STPFOOT1";
const STRUCTURE: &str = "segment footer";

/// What a sealed segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The segment's tag, see [`Identity::tag`](super::Identity::tag).
    pub tag: u32,
    /// The state at its end.
    pub tail: SegmentTail,
    /// Largest wall time at which a batch was appended.
    pub max_append_time: Timestamp,
}

impl Footer {
    /// The bytes of a footer.
    pub fn encode(&self) -> Vec<u8> {
        let fields = FieldWriter::new(MAGIC, FOOTER_BYTES).u32(self.tag).u32(0);
        write_tail(fields, &self.tail).i64(self.max_append_time.0).seal(FOOTER_BYTES)
    }

    /// Reads the footer of the segment with this `tag`. `bytes` are exactly [`FOOTER_BYTES`].
    pub fn decode(bytes: &[u8], tag: u32) -> Result<Footer, FormatError> {
        expect_len(bytes, FOOTER_BYTES, STRUCTURE)?;
        let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
        if fields.u32()? != tag {
            return Err(FormatError::Foreign { structure: STRUCTURE, field: "tag" });
        }
        if fields.u32()? != 0 {
            return Err(fields.bad("flags"));
        }
        let tail = read_tail(&mut fields)?;
        let max_append_time = Timestamp(fields.i64()?);
        fields.finish()?;
        Ok(Footer { tag, tail, max_append_time })
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.tail.position + FOOTER_BYTES as u64
    }
}

/// For `cargo fuzz`: no bytes may panic, and what decodes encodes to the same bytes.
pub fn fuzz_footer(bytes: &[u8]) {
    let tag =
        bytes.get(8..12).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
    if let Ok(footer) = Footer::decode(bytes, tag) {
        assert_eq!(footer.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    fn example() -> Footer {
        let slot = crate::storage::slot::tests::example();
        Footer { tag: 3, tail: slot.tail, max_append_time: Timestamp(12) }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Footer::decode(&example().encode(), 3), Ok(example()));
        assert_eq!(example().file_bytes(), 20_192);
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        assert_no_damage_passes(&example().encode(), |bytes| Footer::decode(bytes, 3));
    }

    #[test]
    fn a_footer_of_another_segment_is_foreign() {
        assert!(matches!(Footer::decode(&example().encode(), 4), Err(FormatError::Foreign { .. })));
    }
}
