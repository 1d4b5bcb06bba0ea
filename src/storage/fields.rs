//! Checked reads and writes of fixed layouts: little-endian fields, zero padding, CRC-32 last.
//!
//! Every structure of ours has a fixed size (or a fixed size per count), starts with an eight-byte
//! magic that carries its version, and ends with the CRC-32 (IEEE, `crc32fast`) of all bytes before
//! it. Nothing is read from a structure before its length, magic and checksum were checked, and
//! unused bytes must be zero. Deliberately absent: derive macros; the code below *is* the layout.

use thiserror::Error;

/// Why bytes are not the structure they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Too few bytes.
    #[error("{structure}: {found} bytes, {needed} are needed")]
    Short {
        /// Which structure.
        structure: &'static str,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The first eight bytes are something else.
    #[error("{structure}: wrong magic")]
    Magic {
        /// Which structure.
        structure: &'static str,
    },
    /// The checksum does not match.
    #[error("{structure}: checksum {stored:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// Which structure.
        structure: &'static str,
        /// The stored checksum.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A field has a value that never occurs.
    #[error("{structure}: field {field} has an impossible value")]
    Field {
        /// Which structure.
        structure: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// It belongs to another data directory, partition or segment.
    #[error("{structure}: {field} is that of something else")]
    Foreign {
        /// Which structure.
        structure: &'static str,
        /// What does not match.
        field: &'static str,
    },
    /// A newer version wrote it and says that this one must not read it.
    #[error("{structure}: written by a newer version ({what}); this one cannot read it")]
    Newer {
        /// Which structure.
        structure: &'static str,
        /// Version or feature bits found.
        what: String,
    },
}

/// Fields one after another, from bytes whose length, magic and checksum hold.
#[derive(Debug)]
pub(crate) struct FieldReader<'a> {
    rest: &'a [u8],
    structure: &'static str,
}

impl<'a> FieldReader<'a> {
    /// Checks exactly `bytes.len()` bytes: magic first, CRC-32 last.
    pub(crate) fn open(
        bytes: &'a [u8],
        magic: &[u8; 8],
        structure: &'static str,
    ) -> Result<FieldReader<'a>, FormatError> {
        let short = FormatError::Short {
            structure,
            needed: (magic.len() + 4) as u64,
            found: bytes.len() as u64,
        };
        let (body, stored) = bytes.split_last_chunk::<4>().ok_or_else(|| short.clone())?;
        let (head, rest) = body.split_first_chunk::<8>().ok_or(short)?;
        if head != magic {
            return Err(FormatError::Magic { structure });
        }
        let (stored, computed) = (u32::from_le_bytes(*stored), crc32fast::hash(body));
        if stored != computed {
            return Err(FormatError::Checksum { structure, stored, computed });
        }
        Ok(FieldReader { rest, structure })
    }

    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Short {
            structure: self.structure,
            needed: N as u64,
            found: self.rest.len() as u64,
        })?;
        self.rest = rest;
        Ok(*chunk)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, FormatError> {
        Ok(i32::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.bytes()?))
    }

    /// A flag byte: 0 or 1 and nothing else.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad(field)),
        }
    }

    /// An offset or count: never negative.
    pub(crate) fn natural(&mut self, field: &'static str) -> Result<i64, FormatError> {
        let value = self.i64()?;
        if value < 0 { Err(self.bad(field)) } else { Ok(value) }
    }

    /// `count` bytes that must be zero.
    pub(crate) fn zeros<const N: usize>(&mut self) -> Result<(), FormatError> {
        if self.bytes::<N>()? == [0; N] { Ok(()) } else { Err(self.bad("reserved")) }
    }

    /// All that is left must be zero.
    pub(crate) fn finish(self) -> Result<(), FormatError> {
        if self.rest.iter().all(|b| *b == 0) { Ok(()) } else { Err(self.bad("reserved")) }
    }

    pub(crate) fn bad(&self, field: &'static str) -> FormatError {
        FormatError::Field { structure: self.structure, field }
    }
}

/// Fields one after another into a growing buffer; `seal` pads and adds the checksum.
#[derive(Debug)]
pub(crate) struct FieldWriter(Vec<u8>);

impl FieldWriter {
    pub(crate) fn new(magic: &[u8; 8], capacity: usize) -> FieldWriter {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(magic);
        FieldWriter(bytes)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> FieldWriter {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, value: u8) -> FieldWriter {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u16(self, value: u16) -> FieldWriter {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> FieldWriter {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn i32(self, value: i32) -> FieldWriter {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> FieldWriter {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn i64(self, value: i64) -> FieldWriter {
        self.bytes(&value.to_le_bytes())
    }

    /// Pads with zeros so that the checksum ends at `size_bytes`, and adds it.
    pub(crate) fn seal(mut self, size_bytes: usize) -> Vec<u8> {
        assert!(self.0.len() + 4 <= size_bytes, "fields overrun their structure");
        self.0.resize(size_bytes - 4, 0);
        let crc = crc32fast::hash(&self.0);
        self.bytes(&crc.to_le_bytes()).0
    }

    /// As [`seal`](FieldWriter::seal) for structures without padding.
    pub(crate) fn seal_tight(self) -> Vec<u8> {
        let size_bytes = self.0.len() + 4;
        self.seal(size_bytes)
    }
}

/// Every truncation and every flipped bit of `good` must be an error of `decode`.
#[cfg(test)]
pub(crate) fn assert_no_damage_passes<T>(
    good: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    assert!(decode(good).is_ok(), "the undamaged bytes decode");
    for len in 0..good.len() {
        assert!(good.get(..len).is_some_and(|b| decode(b).is_err()), "cut to {len} bytes");
    }
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            if let Some(byte) = bad.get_mut(position) {
                *byte ^= 1 << bit;
            }
            assert!(decode(&bad).is_err(), "bit {bit} of byte {position} flipped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"STPTEST1";

    #[test]
    fn fields_come_back_and_damage_does_not() {
        let bytes = FieldWriter::new(MAGIC, 64).u8(1).i32(-2).u32(7).i64(9).seal(64);
        assert_eq!(bytes.len(), 64);
        assert_no_damage_passes(&bytes, |bytes| {
            let mut fields = FieldReader::open(bytes, MAGIC, "test")?;
            assert!(fields.flag("flag")?);
            assert_eq!((fields.i32()?, fields.u32()?, fields.natural("n")?), (-2, 7, 9));
            fields.finish()
        });
    }

    #[test]
    fn reserved_bytes_must_be_zero_even_under_a_good_checksum() {
        let bytes = FieldWriter::new(MAGIC, 32).u8(0).u8(3).seal(32);
        let mut fields = FieldReader::open(&bytes, MAGIC, "test").expect("checksum holds");
        assert_eq!(fields.u8(), Ok(0));
        assert_eq!(
            fields.finish(),
            Err(FormatError::Field { structure: "test", field: "reserved" })
        );
    }
}
