//! Consuming without a group.

use futures_util::StreamExt;

use stoplog::broker::ShutdownMode;
use stoplog::client::{ConsumerOptions, NewRecord, Run, StartAt, StopAt};
use stoplog::record::batches;
use stoplog::types::{Offset, PartitionId, Timestamp};

use crate::relay::Relay;
use crate::world::{World, check_all, connect, next, number, rest, send, topic, within};

fn to_end(start: StartAt) -> ConsumerOptions {
    let mut options = ConsumerOptions::topic(topic());
    (options.start, options.stop) = (start, StopAt::End);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_starts_where_it_is_told() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    for time in 0..20_i64 {
        let value = time.to_string();
        let mut record = NewRecord::value(value.as_bytes());
        record.timestamp = Some(Timestamp(1_000 + time));
        within(producer.send(record).await.unwrap()).await.unwrap();
    }
    let client = world.client().await;
    for (start, first) in [
        (StartAt::Start, Some(0)),
        (StartAt::Offset(Offset(7)), Some(7)),
        (StartAt::Offset(Offset(99)), None),
        (StartAt::Time(Timestamp(1_012)), Some(12)),
        (StartAt::Last(3), Some(17)),
        (StartAt::End, None),
    ] {
        let mut consumer = client.consumer(to_end(start)).await.unwrap();
        let read: Vec<u32> = rest(&mut consumer).await.iter().map(number).collect();
        let expected: Vec<u32> = first.map_or(Vec::new(), |first| (first..20).collect());
        assert_eq!(read, expected, "{start:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_so_many_records_and_the_rest_is_kept() {
    let world = World::start(2).await;
    send(&world.producer().await, 0..500).await;
    let mut options = to_end(StartAt::Start);
    options.prefetch_records = Some(10);
    let mut consumer = world.client().await.consumer(options).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..10 {
        let some = within(consumer.next_exactly(50)).await.unwrap();
        assert_eq!(some.len(), 50);
        all.extend(some);
    }
    assert!(within(consumer.next_exactly(50)).await.unwrap().is_empty());
    all.sort_by_key(|record| (record.partition, record.record.offset));
    check_all(&all, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_skips_and_repeats_nothing() {
    let world = World::start(2).await;
    send(&world.producer().await, 0..3_000).await;
    let relay = Relay::start(&world.address, 20_000, 5).await;
    let mut options = to_end(StartAt::Start);
    options.memory_bytes = 128 << 10;
    let mut consumer = connect(&relay.address).await.consumer(options).await.unwrap();
    let mut all = rest(&mut consumer).await;
    all.sort_by_key(|record| (record.partition, record.record.offset));
    check_all(&all, 3_000);
    assert!(relay.cuts_left() < 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_outlives_its_broker_and_a_cancelled_next_loses_nothing() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    send(&producer, 0..10).await;
    let options = ConsumerOptions::topic(topic());
    let mut consumer = world.client().await.consumer(options).await.unwrap();
    for expected in 0..10 {
        assert_eq!(number(&next(&mut consumer).await), expected);
    }
    let world = world.restart(ShutdownMode::AtOnce).await;
    let sending = tokio::spawn(async move { send(&producer, 10..60).await });
    let mut read = Vec::new();
    while read.len() < 50 {
        let tick = std::time::Duration::from_millis(1);
        if let Ok(Some(record)) = tokio::time::timeout(tick, consumer.next()).await {
            read.push(number(&record.unwrap()));
        }
    }
    assert_eq!(read, (10..60).collect::<Vec<_>>());
    within(sending).await.unwrap();
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn seek_pause_and_resume() {
    let world = World::start(1).await;
    send(&world.producer().await, 0..100).await;
    let options = ConsumerOptions::topic(topic());
    let mut consumer = world.client().await.consumer(options).await.unwrap();
    assert_eq!(number(&next(&mut consumer).await), 0);
    consumer.seek(&topic(), PartitionId(0), Offset(90)).unwrap();
    assert_eq!(number(&next(&mut consumer).await), 90);
    consumer.pause(&topic(), PartitionId(0)).unwrap();
    let held = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(held, consumer.next()).await.is_err());
    consumer.resume(&topic(), PartitionId(0)).unwrap();
    assert_eq!(number(&next(&mut consumer).await), 91);
    consumer.seek(&topic(), PartitionId(0), Offset(0)).unwrap();
    let numbers: Vec<u32> =
        consumer.stream().take(100).map(|record| number(&record.unwrap())).collect().await;
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn trimmed_records_are_jumped_and_raw_batches_are_the_stored_ones() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    send(&producer, 0..100).await;
    let client = world.client().await;
    let start = client.admin().trim(&topic(), PartitionId(0), Offset(40), Run::Really).await;
    assert_eq!(start.unwrap(), Offset(40));
    let mut consumer = client.consumer(to_end(StartAt::Start)).await.unwrap();
    assert_eq!(rest(&mut consumer).await.len(), 60);
    let mut consumer = client.consumer(to_end(StartAt::Start)).await.unwrap();
    let mut records = 0;
    while let Some(raw) = within(consumer.next_batch()).await {
        for batch in batches(&raw.unwrap().data) {
            records += batch.unwrap().header().record_count;
        }
    }
    assert!(records >= 60, "{records}");
}
