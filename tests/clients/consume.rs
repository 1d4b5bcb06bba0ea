//! Consuming without a group.

use std::collections::BTreeMap;

use futures_util::StreamExt;

use stoplog::broker::ShutdownMode;
use stoplog::client::{ConsumerOptions, NewRecord, Reading, Run, StartAt, StopAt};
use stoplog::record::batches;
use stoplog::types::{Offset, PartitionId, Timestamp};

use crate::relay::Relay;
use crate::world::{World, check_all, connect, next, number, rest, send, topic, within};

fn to_end(start: StartAt) -> ConsumerOptions {
    let mut options = ConsumerOptions::topic(topic());
    (options.start, options.stop) = (start, StopAt::End);
    options
}

fn of_one_partition() -> ConsumerOptions {
    let partitions = Some(vec![PartitionId(1)]);
    ConsumerOptions::new(Reading::Partitions { topic: topic(), partitions })
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
async fn the_most_records_are_those_of_all_partitions_together() {
    let world = World::start(4).await;
    send(&world.producer().await, 0..500).await;
    for spread in [ConsumerOptions::topic(topic()), of_one_partition()] {
        let options = ConsumerOptions { records_max: Some(50), ..spread };
        let client = world.client().await;
        let mut consumer = client.consumer(options.clone()).await.unwrap();
        assert_eq!(rest(&mut consumer).await.len(), 50);
        assert!(within(consumer.next_exactly(50)).await.unwrap().is_empty());
        let mut consumer = client.consumer(options.clone()).await.unwrap();
        assert_eq!(within(consumer.next_exactly(80)).await.unwrap().len(), 50);
        assert!(within(consumer.next()).await.is_none());
        let mut raw = client.consumer(options).await.unwrap();
        let (mut records, mut last) = (0, 0);
        while let Some(found) = within(raw.next_batch()).await {
            assert!(records < 50, "another batch though {records} records came");
            let found = found.unwrap();
            last = batches(&found.data).map(|batch| batch.unwrap().header().record_count).sum();
            records += last;
        }
        assert!(records >= 50 && records - last < 50);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_ends_at_the_offsets_it_is_told() {
    let world = World::start(3).await;
    send(&world.producer().await, 0..500).await;
    let ends = BTreeMap::from([(PartitionId(0), Offset(7)), (PartitionId(2), Offset(1))]);
    let options =
        ConsumerOptions { stop: StopAt::Offsets(ends), ..ConsumerOptions::topic(topic()) };
    let mut consumer = world.client().await.consumer(options).await.unwrap();
    let read = rest(&mut consumer).await;
    let of = |partition| read.iter().filter(|r| r.partition == PartitionId(partition)).count();
    assert_eq!((of(0), of(1), of(2)), (7, 0, 1));
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
async fn the_last_of_many_seeks_and_pauses_holds() {
    let world = World::start(1).await;
    send(&world.producer().await, 0..100).await;
    let options = ConsumerOptions::topic(topic());
    let mut consumer = world.client().await.consumer(options).await.unwrap();
    let orders = topic();
    for round in 0..30 {
        for step in 0..40 {
            let to = Offset((round * 7 + step * 13) % 100);
            consumer.seek(&orders, PartitionId(0), to).unwrap();
            consumer.pause(&orders, PartitionId(0)).unwrap();
            if step % 3 == 0 {
                consumer.resume(&orders, PartitionId(0)).unwrap();
            }
        }
        let last = (round * 31 % 100) as u32;
        consumer.seek(&orders, PartitionId(0), Offset(i64::from(last))).unwrap();
        consumer.resume(&orders, PartitionId(0)).unwrap();
        for expected in last..100.min(last + 5) {
            assert_eq!(number(&next(&mut consumer).await), expected, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_to_where_nothing_is_goes_to_the_nearest_record() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    send(&producer, 0..20).await;
    let client = world.client().await;
    let start = client.admin().trim(&topic(), PartitionId(0), Offset(10), Run::Really).await;
    assert_eq!(start.unwrap(), Offset(10));
    let mut consumer = client.consumer(ConsumerOptions::topic(topic())).await.unwrap();
    assert_eq!(number(&next(&mut consumer).await), 10);
    consumer.seek(&topic(), PartitionId(0), Offset(3)).unwrap();
    assert_eq!(number(&next(&mut consumer).await), 10);
    consumer.seek(&topic(), PartitionId(0), Offset(1_000)).unwrap();
    let mut stream = consumer.stream();
    let held = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(held, stream.next()).await.is_err());
    send(&producer, 20..21).await;
    assert_eq!(number(&within(stream.next()).await.unwrap().unwrap()), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_exact_numbers_that_are_dropped_lose_nothing() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    send(&producer, 0..30).await;
    let options = ConsumerOptions::topic(topic());
    let mut consumer = world.client().await.consumer(options).await.unwrap();
    let tick = std::time::Duration::from_millis(20);
    let more = tokio::time::timeout(tick, consumer.next_exactly(50)).await;
    assert!(more.is_err(), "there are only 30");
    let mut read = Vec::new();
    for record in within(consumer.next_exactly(10)).await.unwrap() {
        read.push(number(&record));
    }
    while read.len() < 30 {
        let mut stream = consumer.stream();
        for _ in 0..3 {
            // Dropped now and then while it waits, and always with records behind it.
            if let Ok(Some(record)) = tokio::time::timeout(tick, stream.next()).await {
                read.push(number(&record.unwrap()));
            }
        }
    }
    assert!(tokio::time::timeout(tick, consumer.stream().next()).await.is_err());
    send(&producer, 30..40).await;
    let mut stream = consumer.into_stream();
    let rest = tokio::spawn(async move {
        let mut rest = Vec::new();
        while rest.len() < 10 {
            rest.push(number(&within(stream.next()).await.unwrap().unwrap()));
        }
        rest
    });
    read.extend(rest.await.unwrap());
    assert_eq!(read, (0..40).collect::<Vec<_>>());
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
