//! Batches that other implementations made: `tests/golden/batches/README.md` says by what and how.

use serde::Deserialize;

use super::*;
use crate::types::{LeaderEpoch, TimestampType};

/// A record of `records.json`.
#[derive(Deserialize)]
struct Source {
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

fn source_records(base_offset: i64) -> Vec<Record> {
    let sources: Vec<Source> =
        serde_json::from_str(include_str!("../../../tests/golden/batches/records.json"))
            .expect("JSON");
    (base_offset..)
        .zip(sources)
        .map(|(offset, source)| Record {
            offset: Offset(offset),
            timestamp: Timestamp(source.timestamp),
            key: source.key.map(Bytes::from),
            value: source.value.map(Bytes::from),
            headers: source
                .headers
                .into_iter()
                .map(|(key, value)| RecordHeader { key: key.into(), value: Some(value.into()) })
                .collect(),
        })
        .collect()
}

macro_rules! golden {
    ($name:literal) => {
        (
            $name,
            Bytes::from_static(include_bytes!(concat!(
                "../../../tests/golden/batches/",
                $name,
                ".bin"
            ))),
        )
    };
}

/// Every client's batch of each codec.
fn from_producers() -> [(Compression, Vec<(&'static str, Bytes)>); 5] {
    [
        (
            Compression::None,
            vec![
                golden!("java-none"),
                golden!("franz-go-none"),
                golden!("sarama-none"),
                golden!("librdkafka-none"),
                golden!("kafkajs-none"),
            ],
        ),
        (
            Compression::Gzip,
            vec![
                golden!("java-gzip"),
                golden!("franz-go-gzip"),
                golden!("sarama-gzip"),
                golden!("librdkafka-gzip"),
                golden!("kafkajs-gzip"),
            ],
        ),
        (
            Compression::Snappy,
            vec![
                golden!("java-snappy"),
                golden!("franz-go-snappy"),
                golden!("sarama-snappy"),
                golden!("librdkafka-snappy"),
            ],
        ),
        (
            Compression::Lz4,
            vec![
                golden!("java-lz4"),
                golden!("franz-go-lz4"),
                golden!("sarama-lz4"),
                golden!("librdkafka-lz4"),
            ],
        ),
        (
            Compression::Zstd,
            vec![
                golden!("java-zstd"),
                golden!("franz-go-zstd"),
                golden!("sarama-zstd"),
                golden!("librdkafka-zstd"),
            ],
        ),
    ]
}

#[test]
fn every_clients_batches_are_accepted_and_read() {
    for (codec, files) in from_producers() {
        for (name, batch) in files {
            let checked = CheckedBatch::check(batch.clone(), &BatchLimits::client(1 << 20));
            let header = *checked.expect(name).header();
            assert_eq!(header.attributes.compression(), Ok(codec), "{name}");
            assert_eq!(header.max_timestamp, Timestamp(1_700_000_011_000), "{name}");
            assert_eq!(decode(&batch).as_deref(), Ok(&source_records(0)[..]), "{name}");
        }
    }
}

/// Java's, librdkafka's and our uncompressed batches are the same bytes, but for the stamp.
#[test]
fn our_bytes_are_kafkas_bytes() {
    let records = source_records(0);
    let ours = Sample { compression: Compression::None, producer: None, records }.build();
    let ours = accept(&ours).expect("ours");
    for (epoch, (name, theirs)) in [(11, golden!("java-none")), (0, golden!("librdkafka-none"))] {
        let header = ours.stamp(Offset(0), LeaderEpoch(epoch), None);
        assert_eq!([&header[..], ours.payload()].concat(), theirs, "{name}");
    }
    let header = ours.stamp(Offset(5000), LeaderEpoch(11), Some(Timestamp(1_700_000_099_999)));
    let (name, theirs) = golden!("java-append-time");
    assert_eq!([&header[..], ours.payload()].concat(), theirs, "{name}: as our broker stamps it");
}

#[test]
fn append_time_replaces_every_records_time() {
    let (_, batch) = golden!("java-append-time");
    let mut expected = source_records(5000);
    for record in &mut expected {
        record.timestamp = Timestamp(1_700_000_099_999);
    }
    assert_eq!(decode(&batch), Ok(expected));
    let header = *accept(&batch).expect("sound").header();
    assert_eq!(header.attributes.timestamp_type(), TimestampType::Append);
    assert_eq!((header.base_offset, header.next_offset()), (Offset(5000), Offset(5012)));
}

#[test]
fn a_transaction_and_its_marker_are_read_and_not_taken_from_a_client() {
    let (_, batch) = golden!("java-transactional");
    assert_eq!(decode(&batch), Ok(source_records(100)));
    let header = *accept(&batch).expect("sound").header();
    assert!(header.attributes.is_transactional() && header.is_idempotent());
    assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX - 2, 8), "it wraps");

    let (_, marker) = golden!("java-commit-marker");
    let header = *accept(&marker).expect("sound").header();
    assert!(header.attributes.is_control() && header.attributes.is_transactional());
    let records = decode(&marker).expect("readable");
    // Key: version 0, type 1 = commit. Value: version 0, coordinator epoch 9.
    assert_eq!(records[0].key.as_deref(), Some(&[0, 0, 0, 1][..]));
    assert_eq!(records[0].value.as_deref(), Some(&[0, 0, 0, 0, 0, 9][..]));
    for batch in [batch, marker] {
        let refused = CheckedBatch::check(batch, &BatchLimits::client(1 << 20));
        assert!(matches!(
            refused,
            Err(BatchError::Attributes { .. } | BatchError::Producer { .. })
        ));
    }
}

#[test]
fn compacted_batches_keep_their_offsets() {
    for ((name, batch), kept) in [
        (golden!("java-compacted"), &[1, 4, 7, 10][..]),
        (golden!("java-delete-horizon"), &[1, 4, 6, 7, 10]),
    ] {
        let (view, _) = BatchView::parse(&batch).expect("a batch");
        assert_eq!(view.check_crc(), Ok(()), "{name}");
        assert_eq!(view.header().next_offset(), Offset(12), "{name}");
        assert_eq!(view.header().attributes.has_delete_horizon(), kept.len() == 5, "{name}");
        let expected: Vec<Record> =
            source_records(0).into_iter().filter(|r| kept.contains(&r.offset.0)).collect();
        assert_eq!(decode(&batch), Ok(expected), "{name}");
    }
}

#[test]
fn no_byte_of_a_foreign_batch_can_change_unnoticed() {
    for (name, batch) in from_producers().into_iter().flat_map(|(_, files)| files) {
        for at in 16..batch.len() {
            let mut bytes = batch.to_vec();
            bytes[at] ^= 0x10;
            assert!(accept(&Bytes::from(bytes)).is_err(), "{name} byte {at}");
        }
        for len in 0..batch.len() {
            assert!(accept(&batch.slice(..len)).is_err(), "{name} cut at {len}");
        }
    }
}
