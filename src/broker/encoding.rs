//! Private values of internal logs and snapshots as bytes: the only place that names `bincode`
//! (DESIGN D10, ADR on bincode). Never on a socket, never in a documented format.
//!
//! Layout: bincode's legacy configuration (little-endian, fixed-width integers, u64 lengths, u32
//! variant numbers), which `wincode` reads and writes too: the way out, should we need it. So
//! variants and fields of encoded types are only ever appended to enums, never reordered.
//!
//! # Promises
//! Decoding takes exactly the bytes it was given, and a length prefix that claims more than they
//! hold is an error before that much is allocated.

use bincode::config::legacy;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest encoded value: a snapshot of 50,000 partitions stays far below.
pub const ENCODED_BYTES_MAX: usize = 256 << 20;

/// Why a value was not encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// The value does not fit.
    #[error("not encodable: {0}")]
    Encode(String),
    /// The bytes are not such a value.
    #[error("not decodable: {0}")]
    Decode(String),
    /// The bytes hold more than one value.
    #[error("{extra} bytes after the value")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// The bytes of `value`.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodingError> {
    bincode::serde::encode_to_vec(value, legacy().with_limit::<ENCODED_BYTES_MAX>())
        .map_err(|e| EncodingError::Encode(e.to_string()))
}

/// The value whose bytes these are, all of them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    // bincode's limit is a constant: the smallest of these that holds the input bounds what a
    // false length prefix can make it reserve to a small multiple of the input.
    #[allow(clippy::match_overlapping_arm)] // a ladder: the first step that is high enough
    let decoded = match bytes.len() {
        ..=0x1000 => bincode::serde::decode_from_slice(bytes, legacy().with_limit::<0x1000>()),
        ..=0x1_0000 => bincode::serde::decode_from_slice(bytes, legacy().with_limit::<0x1_0000>()),
        ..=0x10_0000 => {
            bincode::serde::decode_from_slice(bytes, legacy().with_limit::<0x10_0000>())
        }
        ..=0x100_0000 => {
            bincode::serde::decode_from_slice(bytes, legacy().with_limit::<0x100_0000>())
        }
        _ => bincode::serde::decode_from_slice(bytes, legacy().with_limit::<ENCODED_BYTES_MAX>()),
    };
    let (value, consumed): (T, usize) =
        decoded.map_err(|e| EncodingError::Decode(e.to_string()))?;
    match bytes.len() - consumed {
        0 => Ok(value),
        extra => Err(EncodingError::Trailing { extra }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{TopicId, TopicName};
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Empty,
        Named { name: TopicName, id: TopicId, partitions: u32 },
        Mixed(Option<u64>, Vec<i32>, String, bool, i16),
    }

    fn named() -> Sample {
        Sample::Named {
            name: "orders".parse().expect("a name"),
            id: TopicId::from_bytes(*b"0123456789abcdef"),
            partitions: 8,
        }
    }

    #[test]
    fn the_bytes_are_those_that_were_committed() {
        let golden: &[u8] = b"\x01\0\0\0\x06\0\0\0\0\0\0\0orders\x10\0\0\0\0\0\0\0\
            0123456789abcdef\x08\0\0\0";
        assert_eq!(encode(&named()).expect("encodes"), golden);
        assert_eq!(decode::<Sample>(golden), Ok(named()));
        assert_eq!(encode(&Sample::Empty).expect("encodes"), [0; 4]);
        let mixed = Sample::Mixed(Some(7), vec![-1], "ü".to_owned(), true, -2);
        let golden: &[u8] = b"\x02\0\0\0\x01\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\
            \x02\0\0\0\0\0\0\0\xc3\xbc\x01\xfe\xff";
        assert_eq!(encode(&mixed).expect("encodes"), golden);
        assert_eq!(decode::<Sample>(golden), Ok(mixed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn wincode_writes_and_reads_the_same_bytes(
            number: Option<u64>, list: Vec<i32>, text in ".{0,40}", flag: bool, small: i16
        ) {
            let ours = Sample::Mixed(number, list.clone(), text.clone(), flag, small);
            let bytes = encode(&ours).expect("encodes");
            let theirs = (2u32, number, list, text, (flag, small));
            prop_assert_eq!(&wincode::serialize(&theirs).expect("encodes"), &bytes);
            let back: (u32, Option<u64>, Vec<i32>, String, (bool, i16)) =
                wincode::deserialize(&bytes).expect("decodes");
            prop_assert_eq!(back, theirs);
            prop_assert_eq!(decode::<Sample>(&bytes), Ok(ours));
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
            if let Ok(value) = decode::<Sample>(&bytes) {
                prop_assert_eq!(encode(&value).expect("encodes"), bytes);
            }
        }
    }

    #[test]
    fn a_false_length_is_an_error() {
        for claim in [1u64 << 20, 1 << 33, u64::MAX] {
            let text = [&[2, 0, 0, 0, 0][..], &0u64.to_le_bytes(), &claim.to_le_bytes()].concat();
            assert!(decode::<Sample>(&text).is_err());
            let list = [&[2, 0, 0, 0, 0][..], &claim.to_le_bytes()].concat();
            assert!(decode::<Sample>(&list).is_err());
            assert!(decode::<Vec<u8>>(&claim.to_le_bytes()).is_err());
        }
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_an_error() {
        let bytes = encode(&named()).expect("encodes");
        for len in 0..bytes.len() {
            assert!(decode::<Sample>(&bytes[..len]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<Sample>(&longer), Err(EncodingError::Trailing { extra: 1 }));
    }
}
