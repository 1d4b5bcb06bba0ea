//! What is built is read back, and the broker's stamp changes what it must and nothing else.

use super::*;
use crate::types::{LeaderEpoch, TimestampType};

proptest! {
    #[test]
    fn records_are_read_back(sample in some_sample(i64::MIN..i64::MAX)) {
        let batch = sample.build();
        let header = *accept(&batch).expect("accepted").header();
        prop_assert_eq!(header.record_count as usize, sample.records.len());
        prop_assert_eq!(header.base_timestamp, sample.records[0].timestamp);
        let times = sample.records.iter().map(|r| r.timestamp);
        prop_assert_eq!(Some(header.max_timestamp), times.max());
        prop_assert_eq!(decode(&batch), Ok(sample.records));
    }

    #[test]
    fn borrowed_and_owned_readers_agree(sample in some_sample(0..1 << 41)) {
        let batch = sample.build();
        let (view, rest) = BatchView::parse(&batch).expect("parsed");
        prop_assert!(rest.is_empty());
        let payload = view.payload(&DecodeLimits::default()).expect("payload");
        for (view, record) in payload.records().zip(&sample.records) {
            let view = view.expect("readable");
            prop_assert_eq!(view.key, record.key.as_deref());
            prop_assert_eq!(view.value, record.value.as_deref());
            prop_assert_eq!(view.offset, record.offset);
            let headers: Vec<_> = view.headers().map(|h| (h.key, h.value)).collect();
            let expected: Vec<_> =
                record.headers.iter().map(|h| (&h.key[..], h.value.as_deref())).collect();
            prop_assert_eq!(headers, expected);
        }
        prop_assert_eq!(payload.records().count(), sample.records.len());
    }

    #[test]
    fn a_stamp_moves_the_batch_and_keeps_its_records(
        sample in some_sample(0..1 << 41),
        base in 0..i64::MAX / 2,
        append_time in prop::option::of(0i64..1 << 41),
    ) {
        let append_time = append_time.map(Timestamp);
        let batch = accept(&sample.build()).expect("accepted");
        let header = batch.stamp(Offset(base), LeaderEpoch(7), append_time);
        let stored = Bytes::from([&header[..], batch.payload()].concat());
        let stored_batch = accept(&stored).expect("the CRC holds after the stamp");
        prop_assert_eq!(stored_batch.header().leader_epoch, LeaderEpoch(7));
        prop_assert_eq!(*stored_batch.header(), batch.stamped(Offset(base), LeaderEpoch(7), append_time));
        if append_time.is_none() {
            prop_assert_eq!(&stored[17..], &batch.bytes()[17..], "only 16 bytes change");
        }
        let mut expected = sample.records;
        for record in &mut expected {
            record.offset = record.offset + base;
            record.timestamp = append_time.unwrap_or(record.timestamp);
        }
        prop_assert_eq!(decode(&stored), Ok(expected));
    }
}

#[test]
fn owned_records_share_the_memory_of_their_batch() {
    let sample =
        Sample { compression: Compression::None, producer: None, records: plain_records() };
    let batch = sample.build();
    let within = |bytes: &Bytes| bytes.is_empty() || batch.as_ptr_range().contains(&bytes.as_ptr());
    for record in decode(&batch).expect("readable") {
        assert!(record.key.iter().chain(&record.value).all(within));
        assert!(record.headers.iter().all(|h| within(&h.key)));
    }
}

#[test]
fn several_batches_are_taken_one_by_one_and_a_partial_one_waits() {
    let mut sample =
        Sample { compression: Compression::Lz4, producer: None, records: plain_records() };
    let first = sample.build();
    sample.compression = Compression::Zstd;
    let second = sample.build();
    let joined = [&first[..], &second[..], &first[..40]].concat();
    let views: Vec<_> = batches(&joined).map(|b| b.expect("whole").bytes().len()).collect();
    assert_eq!(views, [first.len(), second.len()]);
    let mut walk = batches(&joined);
    assert_eq!((&mut walk).count(), 2);
    assert_eq!(walk.rest(), &first[..40]);

    let mut fetched = Bytes::from(joined);
    for _ in 0..2 {
        let records = Records::take_batch(&mut fetched, &DecodeLimits::default());
        let records: Result<Vec<_>, _> = records.expect("a batch").expect("sound").collect();
        assert_eq!(records, Ok(plain_records()));
    }
    assert!(Records::take_batch(&mut fetched, &DecodeLimits::default()).is_none());
    assert_eq!(fetched.len(), 40);
}

#[test]
fn a_full_batch_takes_no_more_and_says_why() {
    let options = BuilderOptions { bytes_max: 200, records_max: 3, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    let small = RecordRef { value: Some(b"v"), ..RecordRef::default() };
    let large = [0; 139];
    let large = RecordRef { value: Some(&large), ..RecordRef::default() };
    let refused = PushError::RecordTooLarge { size_bytes: 209, bytes_max: 200 };
    assert_eq!(builder.push(&large), Err(refused));
    assert!(builder.is_empty() && builder.len_bytes() == BATCH_HEADER_BYTES);
    builder.push(&small).expect("fits");
    assert_eq!(builder.push(&large), Err(PushError::BatchFull));
    builder.push(&small).expect("fits");
    builder.push(&small).expect("fits");
    assert_eq!(builder.push(&small), Err(PushError::BatchFull), "records_max");
    let length = builder.len_bytes();
    let batch = builder.build();
    assert_eq!(batch.len(), length);
    assert!(accept(&batch).is_ok());
}

#[test]
fn flags_and_timestamp_type_reach_the_header() {
    for flag in [Attributes::TRANSACTIONAL, Attributes::CONTROL, Attributes::DELETE_HORIZON] {
        let options = BuilderOptions {
            flags: flag,
            timestamp_type: TimestampType::Append,
            ..BuilderOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        let time = Timestamp(5);
        builder.push(&RecordRef { timestamp: time, ..RecordRef::default() }).expect("fits");
        let batch = builder.build();
        let attributes = accept(&batch).expect("sound").header().attributes;
        assert!(attributes.has(flag));
        assert_eq!(attributes.timestamp_type(), TimestampType::Append);
        let refused = CheckedBatch::check(batch.clone(), &BatchLimits::client(1000));
        let bits = flag | Attributes::APPEND_TIME;
        assert_eq!(refused.err(), Some(BatchError::Attributes { bits }), "not from a client");
    }
}

#[test]
fn what_does_not_shrink_is_not_compressed() {
    let noise: Vec<u8> = (0u32..200).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for compression in Compression::ALL {
        let options = BuilderOptions { compression, ..BuilderOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.push(&RecordRef { value: Some(&noise), ..RecordRef::default() }).expect("fits");
        let length = builder.len_bytes();
        let batch = builder.build();
        assert_eq!(batch.len(), length);
        assert_eq!(
            accept(&batch).expect("sound").header().attributes.compression(),
            Ok(Compression::None)
        );
    }
}
