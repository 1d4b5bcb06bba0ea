//! Damaged bytes: a typed error or the same content, never a panic, never other content.

use super::*;

fn samples() -> Vec<Bytes> {
    let producer = ProducerStamp { id: ProducerId(9), epoch: ProducerEpoch(1), base_sequence: 40 };
    let mut samples = Vec::new();
    for compression in Compression::ALL {
        for producer in [None, Some(producer)] {
            samples.push(Sample { compression, producer, records: plain_records() }.build());
        }
    }
    samples
}

#[test]
fn every_truncation_is_refused() {
    for batch in samples() {
        for len in 0..batch.len() {
            let cut = batch.slice(..len);
            assert!(matches!(
                accept(&cut),
                Err(BatchError::Truncated { .. } | BatchError::TooLarge { .. })
            ));
            assert!(decode(&cut).is_err());
            assert_eq!(batches(&cut).count(), 0);
        }
        let longer = Bytes::from([&batch[..], &[0]].concat());
        assert_eq!(accept(&longer).err(), Some(BatchError::TrailingBytes { extra: 1 }));
    }
}

/// Base offset and leader epoch are outside the CRC: they are the broker's to write.
fn is_stamped(at: usize) -> bool {
    at < 8 || (12..16).contains(&at)
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    for batch in samples() {
        let content = decode(&batch).expect("sound");
        for at in 0..batch.len() {
            for bit in 0..8 {
                let mut bytes = batch.to_vec();
                bytes[at] ^= 1 << bit;
                let damaged = Bytes::from(bytes);
                fuzz_batches(&damaged);
                match decode(&damaged) {
                    Err(_) => assert!(!is_stamped(at) || at < 8),
                    Ok(records) => {
                        assert!(is_stamped(at), "byte {at} bit {bit} went unnoticed");
                        assert_eq!(accept(&damaged).map(|_| ()), Ok(()));
                        let values = |records: &[Record]| -> Vec<_> {
                            records.iter().map(|r| (r.key.clone(), r.value.clone())).collect()
                        };
                        assert_eq!(values(&records), values(&content));
                    }
                }
                assert!(is_stamped(at) || accept(&damaged).is_err());
            }
        }
    }
}

/// With the CRC made right again, every damage reaches the record parser and the codecs.
#[test]
fn every_flipped_byte_under_a_right_crc_ends_in_an_answer() {
    for batch in samples() {
        for at in BATCH_HEADER_BYTES..batch.len() {
            for flip in [0x01, 0x40, 0x80, 0xff] {
                let mut bytes = batch.to_vec();
                bytes[at] ^= flip;
                let crc = crc32c(&bytes[21..]).to_be_bytes();
                bytes[17..21].copy_from_slice(&crc);
                fuzz_checked_batch(&bytes);
                fuzz_batches(&bytes);
            }
        }
    }
}

/// A batch of one record whose bytes are given, with a right header.
fn batch_of(payload: &[u8], record_count: i32, last_offset_delta: i32) -> Bytes {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    bytes.extend_from_slice(payload);
    let header = crate::record::header::BatchHeader {
        record_count,
        last_offset_delta,
        ..crate::record::header::BatchHeader::EMPTY
    };
    header.seal(&mut bytes);
    Bytes::from(bytes)
}

#[test]
fn malformed_records_are_named() {
    use RecordFault::*;
    for (payload, fault) in [
        (&[][..], Truncated),
        (&[0x0c, 0, 0, 0, 1, 1][..], Truncated),
        (&[0x01], NegativeLength),
        (&[0x00], Truncated),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], Varint),
        (&[0x0c, 0, 0, 0, 3, 1, 0], NegativeLength),
        (&[0x0c, 0, 0, 0, 1, 3, 0], NegativeLength),
        (&[0x0c, 0, 0, 0, 1, 1, 1], NegativeLength),
        (&[0x0c, 0, 0, 0, 1, 1, 2], HeaderCount),
        (&[0x14, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], HeaderCount),
        (&[0x10, 0, 0, 0, 1, 1, 2, 1, 0], NegativeLength),
        (&[0x0e, 0, 0, 0, 1, 1, 0, 0], TrailingBytes),
        (&[0x0c, 0, 0, 2, 1, 1, 0], OffsetOrder),
        (&[0x0c, 0, 0, 1, 1, 1, 0], OffsetOrder),
        (&[0x0c, 0, 0, 0, 40, 1, 0], Truncated),
    ] {
        let decoded = decode(&batch_of(payload, 1, 0));
        assert_eq!(decoded, Err(DecodeError::Record { index: 0, fault }), "{payload:x?}");
    }
    let two = [0x0c, 0, 0, 0, 1, 1, 0].repeat(2);
    let repeated = DecodeError::Record { index: 1, fault: OffsetOrder };
    assert_eq!(decode(&batch_of(&two, 2, 1)), Err(repeated));
    assert_eq!(decode(&batch_of(&two, 1, 0)), Err(DecodeError::TrailingBytes { extra: 7 }));
    assert_eq!(decode(&batch_of(&two[..7], 1, 0)).map(|r| r.len()), Ok(1));
}

#[test]
fn compacted_batches_with_gaps_are_read_and_not_accepted_from_a_producer() {
    let payload = [0x0c, 0, 0, 4, 1, 1, 0, 0x0c, 0, 0, 10, 1, 1, 0];
    let batch = batch_of(&payload, 2, 9);
    let offsets: Vec<_> = decode(&batch).expect("read").iter().map(|r| r.offset.0).collect();
    assert_eq!(offsets, [2, 5]);
    let refused = BatchError::OffsetDelta { last_offset_delta: 9, record_count: 2 };
    assert_eq!(accept(&batch).err(), Some(refused));
    let empty = batch_of(&[], 0, 9);
    assert_eq!(decode(&empty), Ok(vec![]));
    assert!(matches!(accept(&empty), Err(BatchError::RecordCount { record_count: 0, .. })));
}

#[test]
fn contradicting_headers_are_refused() {
    use crate::record::header::BatchHeader;
    let record = [0x0c, 0, 0, 0, 1, 1, 0];
    let sealed = |header: BatchHeader| {
        let mut bytes = [&[0; BATCH_HEADER_BYTES][..], &record].concat();
        header.seal(&mut bytes);
        Bytes::from(bytes)
    };
    let sound = BatchHeader { record_count: 1, ..BatchHeader::EMPTY };
    assert!(accept(&sealed(sound)).is_ok());
    let refused = |header| accept(&sealed(header)).expect_err("contradiction");
    let count = |record_count| BatchHeader { record_count, ..sound };
    for record_count in [0, -1, 2, i32::MAX, i32::MIN] {
        let error = refused(count(record_count));
        assert!(matches!(error, BatchError::RecordCount { .. }), "{record_count} {error}");
    }
    let delta = BatchHeader { last_offset_delta: 1, ..sound };
    assert!(matches!(refused(delta), BatchError::OffsetDelta { .. }));
    for (id, epoch, base_sequence) in [(-2, 0, 0), (1, -1, 0), (1, 0, -1), (i64::MIN, 0, 0)] {
        let (producer_id, producer_epoch) = (ProducerId(id), ProducerEpoch(epoch));
        let header = BatchHeader { producer_id, producer_epoch, base_sequence, ..sound };
        assert!(matches!(refused(header), BatchError::Producer { .. }));
    }
    for bits in [5, 6, 7] {
        let header = BatchHeader { attributes: Attributes(bits), ..sound };
        assert_eq!(refused(header), BatchError::UnknownCodec { id: bits as u8 });
    }
    for bits in [1 << 7, i16::MIN, 1 << 14] {
        let header = BatchHeader { attributes: Attributes(bits), ..sound };
        assert_eq!(refused(header), BatchError::Attributes { bits });
    }
    let limits = BatchLimits { records_max: 1, ..BatchLimits::client(67) };
    let too_large = BatchError::TooLarge { size_bytes: 68, bytes_max: 67 };
    assert_eq!(CheckedBatch::check(sealed(sound), &limits).err(), Some(too_large));
}

proptest! {
    #[test]
    fn noise_never_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_checked_batch(&data);
        fuzz_batch_header(&data);
        fuzz_batches(&data);
        fuzz_records(&data);
        fuzz_decompress(&data);
        fuzz_compress(&data);
    }
}
