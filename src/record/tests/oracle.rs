//! Both directions against the `kafka-protocol` crate, for every codec.

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kafka;

use super::*;
use crate::types::{LeaderEpoch, TimestampType};

fn oracle_codec(codec: Compression) -> kafka::Compression {
    match codec {
        Compression::None => kafka::Compression::None,
        Compression::Gzip => kafka::Compression::Gzip,
        Compression::Snappy => kafka::Compression::Snappy,
        Compression::Lz4 => kafka::Compression::Lz4,
        Compression::Zstd => kafka::Compression::Zstd,
    }
}

/// The sample as the oracle's records.
fn to_oracle(sample: &Sample) -> Vec<kafka::Record> {
    let producer = sample.producer;
    let first = producer.map_or(-1, |p| p.base_sequence);
    (0i32..)
        .zip(&sample.records)
        .map(|(index, record)| kafka::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: producer.map_or(-1, |p| p.id.0),
            producer_epoch: producer.map_or(-1, |p| p.epoch.0),
            timestamp_type: kafka::TimestampType::Creation,
            offset: record.offset.0,
            sequence: first.wrapping_add(index),
            timestamp: record.timestamp.0,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record
                .headers
                .iter()
                .map(|h| (StrBytes::try_from(h.key.clone()).expect("UTF-8"), h.value.clone()))
                .collect(),
        })
        .collect()
}

fn from_oracle(record: kafka::Record) -> Record {
    Record {
        offset: Offset(record.offset),
        timestamp: Timestamp(record.timestamp),
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(key, value)| RecordHeader { key: key.into_bytes(), value })
            .collect(),
    }
}

fn oracle_encode(sample: &Sample) -> Bytes {
    let mut bytes = BytesMut::new();
    let compression = oracle_codec(sample.compression);
    let options = kafka::RecordEncodeOptions { version: 2, compression };
    let records = to_oracle(sample);
    kafka::RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("the oracle encodes");
    bytes.freeze()
}

fn oracle_decode(mut bytes: Bytes) -> Result<kafka::RecordSet, String> {
    kafka::RecordBatchDecoder::decode(&mut bytes).map_err(|e| e.to_string())
}

proptest! {
    #[test]
    fn the_oracle_reads_what_we_build(sample in some_sample(-1..1 << 41)) {
        let batch = sample.build();
        let codec = accept(&batch).expect("accepted").header().attributes.compression();
        let set = oracle_decode(batch).expect("the oracle reads it");
        prop_assert_eq!(codec.map(oracle_codec), Ok(set.compression));
        prop_assert_eq!(set.records, to_oracle(&sample));
    }

    #[test]
    fn we_read_what_the_oracle_builds(sample in some_sample(-1..1 << 41)) {
        let batch = oracle_encode(&sample);
        let header = *accept(&batch).expect("accepted").header();
        prop_assert_eq!(header.attributes.compression(), Ok(sample.compression));
        let producer = header.is_idempotent().then_some(ProducerStamp {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
        prop_assert_eq!(producer, sample.producer);
        prop_assert_eq!(decode(&batch), Ok(sample.records));
    }

    #[test]
    fn uncompressed_bytes_are_the_same(mut sample in some_sample(0..1 << 41)) {
        // The oracle takes the smallest time as base, we (like Java) the first: begin with it.
        sample.compression = Compression::None;
        sample.records.sort_by_key(|r| r.timestamp);
        for (offset, record) in (0..).zip(&mut sample.records) {
            record.offset = Offset(offset);
        }
        prop_assert_eq!(sample.build(), oracle_encode(&sample));
    }

    #[test]
    fn the_oracle_reads_what_is_stamped(sample in some_sample(0..1 << 41), base in 0i64..1 << 60) {
        let batch = accept(&sample.build()).expect("accepted");
        let header = batch.stamp(Offset(base), LeaderEpoch(5), Some(Timestamp(1 << 40)));
        let set = oracle_decode(Bytes::from([&header[..], batch.payload()].concat()));
        for (index, record) in (0..).zip(set.expect("the oracle reads it").records) {
            prop_assert_eq!(record.timestamp_type, kafka::TimestampType::LogAppend);
            prop_assert_eq!(record.partition_leader_epoch, 5);
            prop_assert_eq!(from_oracle(record).offset, Offset(base + index));
        }
    }

    /// The CRC rule: whatever happens to a sound batch's bytes behind the length, we refuse its CRC
    /// exactly when the oracle does.
    #[test]
    fn we_and_the_oracle_refuse_the_same_crcs(
        sample in some_sample(0..1 << 41),
        at in any::<prop::sample::Index>(),
        flip in 0u8..,
    ) {
        let mut batch = sample.build().to_vec();
        // From the CRC field on: what stands before is not in the CRC.
        let at = 17 + at.index(batch.len() - 17);
        batch[at] ^= flip;
        let batch = Bytes::from(batch);
        let ours = BatchView::parse(&batch).expect("length and magic are sound").0.check_crc();
        let theirs = oracle_decode(batch.clone());
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        prop_assert_eq!(ours.is_ok(), flip == 0);
        prop_assert_eq!(accept(&batch).is_ok(), flip == 0);
    }
}

#[test]
fn flags_are_the_oracles_flags() {
    let mut sample =
        Sample { compression: Compression::None, producer: None, records: plain_records() };
    sample.records.truncate(1);
    let read = |flags, timestamp_type| {
        let mut builder =
            BatchBuilder::new(BuilderOptions { flags, timestamp_type, ..sample.options() });
        builder.push(&sample.records[0].as_ref()).expect("fits");
        oracle_decode(builder.build()).expect("read").records.remove(0)
    };
    let time = TimestampType::Create;
    assert!(read(Attributes::TRANSACTIONAL, time).transactional);
    assert!(read(Attributes::CONTROL, time).control);
    assert!(read(Attributes::DELETE_HORIZON, time).delete_horizon);
    let appended = read(0, TimestampType::Append);
    assert_eq!(appended.timestamp_type, kafka::TimestampType::LogAppend);
    assert!(!appended.transactional && !appended.control && !appended.delete_horizon);
}
