//! Variable-length numbers as records use them: zigzag, seven bits a byte, lowest first (Protocol
//! Buffers' `sint32` and `sint64`). Overlong forms are read, as Kafka reads them; bits beyond the
//! type's width are not.

use super::RecordFault;

/// Appends `value`.
pub(super) fn put_i32(to: &mut Vec<u8>, value: i32) {
    put_i64(to, i64::from(value));
}

/// Appends `value`. For a value that fits `i32` the bytes are those of `put_i32`.
#[inline]
pub(super) fn put_i64(to: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        to.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

/// Bytes that `put_i64` appends.
#[inline]
pub(super) fn size_of(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Bytes a length takes; a length beyond `i64::MAX` does not exist.
pub(super) fn size_of_len(len: usize) -> usize {
    size_of(i64::try_from(len).unwrap_or(i64::MAX))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Takes an `i32` from the front of `from`.
#[inline]
pub(super) fn take_i32(from: &mut &[u8]) -> Result<i32, RecordFault> {
    if let Some((&first, rest)) = from.split_first()
        && first < 0x80
    {
        *from = rest;
        let value = i32::from(first);
        return Ok((value >> 1) ^ -(value & 1));
    }
    let value = u32::try_from(take(from, 5)?).map_err(|_| RecordFault::Varint)?;
    Ok(((value >> 1) as i32) ^ -((value & 1) as i32))
}

/// Takes an `i64` from the front of `from`.
#[inline]
pub(super) fn take_i64(from: &mut &[u8]) -> Result<i64, RecordFault> {
    let value = take(from, 10)?;
    Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
}

fn take(from: &mut &[u8], bytes_max: u32) -> Result<u64, RecordFault> {
    let mut value = 0u64;
    for place in 0..bytes_max {
        let (&byte, rest) = from.split_first().ok_or(RecordFault::Truncated)?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if place == 9 && bits > 1 {
            return Err(RecordFault::Varint);
        }
        value |= bits << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(RecordFault::Varint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip_in_the_size_foretold(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_i64(&mut bytes, value);
            prop_assert_eq!(bytes.len(), size_of(value));
            prop_assert_eq!(take_i64(&mut &bytes[..]), Ok(value));
            let narrow = i32::try_from(value).map_err(|_| RecordFault::Varint);
            prop_assert_eq!(take_i32(&mut &bytes[..]), narrow);
            prop_assert_eq!(take_i64(&mut &bytes[..bytes.len() - 1]), Err(RecordFault::Truncated));
        }
    }

    #[test]
    fn borders() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (63, &[126]),
            (64, &[128, 1]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut written = Vec::new();
            put_i64(&mut written, value);
            assert_eq!(written, bytes);
        }
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x00][..]), Ok(0), "overlong forms are read");
        assert_eq!(take_i32(&mut &[0xff; 5][..]), Err(RecordFault::Varint));
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), Err(RecordFault::Varint));
        assert_eq!(take_i64(&mut &[0xff; 11][..]), Err(RecordFault::Varint));
    }
}
