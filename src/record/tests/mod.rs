//! Tests of the whole room: round trips, both directions against the `kafka-protocol` crate,
//! batches written by other implementations, damaged bytes.

mod damage;
mod golden;
mod oracle;
mod round_trip;

use bytes::Bytes;
use proptest::prelude::*;

use crate::record::*;
use crate::types::{Offset, ProducerEpoch, ProducerId, Timestamp};

/// What a sample batch is made of.
#[derive(Clone, Debug)]
struct Sample {
    compression: Compression,
    producer: Option<ProducerStamp>,
    records: Vec<Record>,
}

impl Sample {
    fn options(&self) -> BuilderOptions {
        BuilderOptions {
            compression: self.compression,
            producer: self.producer,
            ..BuilderOptions::default()
        }
    }

    fn build(&self) -> Bytes {
        let mut builder = BatchBuilder::new(self.options());
        for record in &self.records {
            builder.push(&record.as_ref()).expect("samples fit");
        }
        assert_eq!(builder.record_count() as usize, self.records.len());
        builder.build()
    }
}

fn text(bytes: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(bytes.as_bytes()))
}

/// Records with every optional part there, empty and null.
fn plain_records() -> Vec<Record> {
    let header = |key: &'static str, value| RecordHeader { key: Bytes::from(key), value };
    let record = |offset, timestamp, key, value, headers| Record {
        offset: Offset(offset),
        timestamp: Timestamp(timestamp),
        key,
        value,
        headers,
    };
    let filler = Bytes::from(vec![b'x'; 300]);
    vec![
        record(0, 1_700_000_000_000, text("k1"), text("a value"), vec![]),
        record(1, 1_700_000_000_005, None, text(""), vec![header("trace", text("abc"))]),
        record(2, 1_699_999_999_000, text(""), None, vec![]),
        record(3, 0, None, None, vec![header("", None), header("h", text(""))]),
        record(4, -1, text("größe"), Some(filler), vec![]),
    ]
}

fn decode(batch: &Bytes) -> Result<Vec<Record>, DecodeError> {
    Records::open(batch.clone(), &DecodeLimits::default())?.collect()
}

fn accept(batch: &Bytes) -> Result<CheckedBatch, BatchError> {
    let limits = BatchLimits { attributes_refused: 0, ..BatchLimits::client(batch.len()) };
    CheckedBatch::check(batch.clone(), &limits)
}

fn some_bytes() -> impl Strategy<Value = Option<Bytes>> {
    let bytes = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0usize..3000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop::option::of(bytes.prop_map(Bytes::from))
}

/// Header names are distinct and UTF-8, because the oracle keeps them in a map of strings.
fn some_headers() -> impl Strategy<Value = Vec<RecordHeader>> {
    prop::collection::btree_map("[a-zé]{0,8}", some_bytes(), 0..4).prop_map(|map| {
        map.into_iter().map(|(key, value)| RecordHeader { key: Bytes::from(key), value }).collect()
    })
}

fn some_records(times: std::ops::Range<i64>) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec((times, some_bytes(), some_bytes(), some_headers()), 1..20).prop_map(
        |fields| {
            (0..)
                .zip(fields)
                .map(|(offset, (timestamp, key, value, headers))| Record {
                    offset: Offset(offset),
                    timestamp: Timestamp(timestamp),
                    key,
                    value,
                    headers,
                })
                .collect()
        },
    )
}

fn some_producer() -> impl Strategy<Value = Option<ProducerStamp>> {
    prop::option::of((0..i64::MAX, 0..i16::MAX, 0..i32::MAX).prop_map(|(id, epoch, sequence)| {
        ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence: sequence }
    }))
}

fn some_sample(times: std::ops::Range<i64>) -> impl Strategy<Value = Sample> {
    (prop::sample::select(&Compression::ALL[..]), some_producer(), some_records(times))
        .prop_map(|(compression, producer, records)| Sample { compression, producer, records })
}
