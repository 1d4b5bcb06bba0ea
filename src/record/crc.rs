//! CRC-32C (Castagnoli), the checksum of a record batch; how it changes when only the first bytes of
//! what it covers change; and how two join without another look at the bytes.
//!
//! A CRC is linear: with S(c) = "c moved over n bytes", crc(head + tail) is S(crc(head)) ^ crc(tail)
//! for a tail of n bytes. The method of moving is Mark Adler's (zlib `crc32_combine`).

use std::sync::LazyLock;

use crc_fast::{CrcAlgorithm, get_calculator_target};

/// Whether `crc-fast` has more than SSE to work with here.
static IS_WIDE: LazyLock<bool> =
    LazyLock::new(|| !get_calculator_target(CrcAlgorithm::Crc32Iscsi).contains("sse"));

/// CRC-32C of `bytes`.
///
/// Two libraries, because each is the faster one somewhere: with AVX-512 `crc-fast` gave 24 GB/s and
/// `crc32c` 12, without it 17 and 23 (64 KiB that are in the cache, EPYC 7003; 9 and 13 for 1 KiB).
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    if *IS_WIDE { crc_fast::crc32_iscsi(bytes) } else { ::crc32c::crc32c(bytes) }
}

/// The CRC-32C of `new_head` + tail, from that of `old_head` + the same tail, without reading the
/// tail. Both heads have the same length.
///
/// The two results differ by S(crc(old head) ^ crc(new head)).
pub(super) fn crc32c_with_head(old: u32, old_head: &[u8], new_head: &[u8], tail_len: usize) -> u32 {
    assert_eq!(old_head.len(), new_head.len(), "heads of one length");
    old ^ shifted(crc32c(old_head) ^ crc32c(new_head), tail_len)
}

/// The CRC-32C of bytes with CRC-32C `first`, followed by `second_len` bytes whose CRC-32C is `second`.
pub fn crc32c_joined(first: u32, second: u32, second_len: usize) -> u32 {
    shifted(first, second_len) ^ second
}

/// The polynomial, lowest power in the highest bit.
const CASTAGNOLI: u32 = 0x82f6_3b78;
/// x to the power of 0 in that order of bits.
const ONE: u32 = 1 << 31;

/// x^(8 * digit * 16^place), for every place of a length in bytes: a move takes a product for each
/// digit that is not 0.
const MOVES: [[u32; 16]; 8] = moves();

#[allow(clippy::indexing_slicing)] // by counters, at compile time
const fn moves() -> [[u32; 16]; 8] {
    let mut moves = [[ONE; 16]; 8];
    // x^8: one byte.
    let mut unit = ONE >> 8;
    let mut place = 0;
    while place < 8 {
        let mut digit = 1;
        while digit < 16 {
            moves[place][digit] = product(moves[place][digit - 1], unit);
            digit += 1;
        }
        unit = product(moves[place][15], unit);
        place += 1;
    }
    moves
}

/// a * b modulo the polynomial.
const fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = ONE;
    while bit != 0 {
        sum ^= b & ((a & bit != 0) as u32).wrapping_neg();
        bit >>= 1;
        b = (b >> 1) ^ (CASTAGNOLI & (b & 1).wrapping_neg());
    }
    sum
}

/// `crc` times x^(8 * bytes).
fn shifted(crc: u32, bytes: usize) -> u32 {
    assert!(u32::try_from(bytes).is_ok(), "a batch has at most 2^31 bytes");
    let mut moved = crc;
    for (place, digits) in MOVES.iter().enumerate() {
        let digit = (bytes >> (4 * place)) & 15;
        if let Some(power) = digits.get(digit).filter(|_| digit > 0) {
            moved = product(*power, moved);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn joined_checksums_are_those_of_the_joined_bytes(
            first in prop::collection::vec(any::<u8>(), 0..200),
            second in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let whole = crc32c(&[&first[..], &second[..]].concat());
            prop_assert_eq!(crc32c_joined(crc32c(&first), crc32c(&second), second.len()), whole);
        }

        #[test]
        fn changing_the_head_needs_no_look_at_the_tail(
            heads in (0usize..64).prop_flat_map(|n| (
                prop::collection::vec(any::<u8>(), n),
                prop::collection::vec(any::<u8>(), n),
            )),
            tail in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let (old, new) = heads;
            let old_crc = crc32c(&[&old[..], &tail[..]].concat());
            let new_crc = crc32c(&[&new[..], &tail[..]].concat());
            prop_assert_eq!(crc32c_with_head(old_crc, &old, &new, tail.len()), new_crc);
        }
    }
}
