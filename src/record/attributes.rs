//! The 16 attribute bits of a batch: codec, timestamp type, transaction, control, delete horizon.

use std::fmt;

use super::BatchError;
use crate::types::{CompressionHint, TimestampType};

/// How the records of a batch are compressed. The discriminant is the number in the attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip (RFC 1952).
    Gzip = 1,
    /// snappy in the framing of xerial's Java library; raw snappy is read too.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard (RFC 8878).
    Zstd = 4,
}

impl Compression {
    /// Every codec, in numeric order.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// What a topic's advice means; `None` = the producer chooses.
    pub fn from_hint(hint: CompressionHint) -> Option<Compression> {
        match hint {
            CompressionHint::Producer => None,
            CompressionHint::None => Some(Compression::None),
            CompressionHint::Gzip => Some(Compression::Gzip),
            CompressionHint::Snappy => Some(Compression::Snappy),
            CompressionHint::Lz4 => Some(Compression::Lz4),
            CompressionHint::Zstd => Some(Compression::Zstd),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        })
    }
}

impl std::str::FromStr for Compression {
    type Err = String;
    fn from_str(text: &str) -> Result<Compression, String> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not one of none, gzip, snappy, lz4, zstd"))
    }
}

/// The attribute bits as they stand in the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    /// Bits 0 to 2: the codec.
    pub const CODEC: i16 = 0b111;
    /// Bit 3: the broker wrote the timestamp (`max_timestamp` is every record's).
    pub const APPEND_TIME: i16 = 1 << 3;
    /// Bit 4: part of a transaction.
    pub const TRANSACTIONAL: i16 = 1 << 4;
    /// Bit 5: written by a broker for brokers and clients, not for users.
    pub const CONTROL: i16 = 1 << 5;
    /// Bit 6: `base_timestamp` is the time at which tombstones may go (KIP-534).
    pub const DELETE_HORIZON: i16 = 1 << 6;
    /// Every bit that has a meaning.
    pub const KNOWN: i16 = 0x7f;

    /// The bits for a codec and a timestamp type, no others.
    pub fn new(compression: Compression, timestamp_type: TimestampType) -> Attributes {
        let time = match timestamp_type {
            TimestampType::Create => 0,
            TimestampType::Append => Attributes::APPEND_TIME,
        };
        Attributes(compression as i16 | time)
    }

    /// These bits and `bits`.
    pub fn with(self, bits: i16) -> Attributes {
        Attributes(self.0 | bits)
    }

    /// Whether any of `bits` is set.
    pub fn has(self, bits: i16) -> bool {
        self.0 & bits != 0
    }

    /// The codec, or `UnknownCodec`.
    pub fn compression(self) -> Result<Compression, BatchError> {
        match self.0 & Attributes::CODEC {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            id => Err(BatchError::UnknownCodec { id: id.unsigned_abs() as u8 }),
        }
    }

    /// Who wrote the timestamps.
    pub fn timestamp_type(self) -> TimestampType {
        if self.has(Attributes::APPEND_TIME) {
            TimestampType::Append
        } else {
            TimestampType::Create
        }
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.has(Attributes::TRANSACTIONAL)
    }

    /// Whether the batch is a control batch: its records are not for users.
    pub fn is_control(self) -> bool {
        self.has(Attributes::CONTROL)
    }

    /// Whether `base_timestamp` is a delete horizon.
    pub fn has_delete_horizon(self) -> bool {
        self.has(Attributes::DELETE_HORIZON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_round_trip_through_bits_and_names() {
        for codec in Compression::ALL {
            for time in [TimestampType::Create, TimestampType::Append] {
                let bits = Attributes::new(codec, time).with(Attributes::CONTROL);
                assert_eq!((bits.compression(), bits.timestamp_type()), (Ok(codec), time));
                assert!(bits.is_control() && !bits.is_transactional());
            }
            assert_eq!(codec.to_string().parse(), Ok(codec));
        }
        for id in 5..8 {
            let unknown = Attributes(i16::from(id)).compression();
            assert_eq!(unknown, Err(BatchError::UnknownCodec { id }));
        }
        assert!("brotli".parse::<Compression>().is_err());
    }
}
