//! Batches in, batches out: order, sizes, waiting, errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stoplog::broker::{
    Broker, FetchError, FetchPartition, FetchRequest, FetchResponse, NewTopic, OffsetQuery,
    ProduceError, Produced, ReadMode, ShutdownMode, Topic,
};
use stoplog::types::{
    Acks, DurabilityLevel, ErrorKind, Offset, PartitionId, PushbackCode, Timestamp, TopicId,
};

use crate::world::{
    World, batch, config, large_batch, produce, read_all, request, run, until, values_of,
};

async fn topic(broker: &Broker, partitions: u32, settings: &[(&str, &str)]) -> Arc<Topic> {
    let mut new = NewTopic::new("orders".parse().unwrap(), partitions);
    new.config = config(settings);
    broker.create_topic(new).await.unwrap()
}

fn fetch_of(topic: &Topic, from: &[(u32, i64)]) -> FetchRequest {
    let at = |(partition, from): &(u32, i64)| FetchPartition {
        topic: topic.id(),
        partition: PartitionId(*partition),
        from: Offset(*from),
        max_bytes: 1 << 20,
    };
    FetchRequest {
        partitions: from.iter().map(at).collect(),
        max_bytes: 16 << 20,
        min_bytes: 1,
        max_wait: Duration::from_secs(100),
        mode: ReadMode::Owned,
        connection: None,
        group: None,
    }
}

fn values(response: &FetchResponse, at: usize) -> Vec<String> {
    values_of(&response.partitions[at].result.as_ref().unwrap().data)
}

#[test]
fn what_was_acknowledged_is_read_in_order_over_many_segments() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 2, &[("segment_bytes", "12KiB")]).await;
        let mut expected = [Vec::new(), Vec::new()];
        for number in 0..120 {
            let value = format!("{number}-{}", "x".repeat(700));
            let partition = number % 2;
            let done = produce(&broker, &topic, partition, batch(&[&value, "tail"])).await.unwrap();
            let expected = &mut expected[partition as usize];
            assert_eq!(done.base_offset, Offset(expected.len() as i64));
            assert_eq!((done.level, done.duplicate), (DurabilityLevel::Durable, false));
            expected.extend([value, "tail".to_owned()]);
        }
        assert!(topic.partition(PartitionId(0)).unwrap().describe().segments > 1);
        for (partition, expected) in expected.iter().enumerate() {
            assert_eq!(&read_all(&topic, partition as u32).await, expected);
        }
        let response = broker.fetch(fetch_of(&topic, &[(0, 0), (1, 7)])).await;
        assert_eq!(values(&response, 0), expected[0]);
        assert_eq!(values(&response, 1), expected[1][6..], "the batch that holds offset 7");
        let mapped = FetchRequest { mode: ReadMode::Mapped, ..fetch_of(&topic, &[(0, 0)]) };
        assert_eq!(values(&broker.fetch(mapped).await, 0), expected[0]);
    });
}

#[test]
fn many_batches_under_way_keep_their_order() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[("durability", "os")]).await;
        let answered = Arc::new(AtomicUsize::new(0));
        for number in 0..500 {
            let answered = Arc::clone(&answered);
            let done = move |outcome: Result<_, _>| {
                assert_eq!(
                    outcome.map(|p: stoplog::broker::Produced| p.base_offset),
                    Ok(Offset(number))
                );
                answered.fetch_add(1, Ordering::SeqCst);
            };
            broker.produce(request(&topic, 0, batch(&[&number.to_string()])), Box::new(done));
        }
        crate::world::until("all are answered", || answered.load(Ordering::SeqCst) == 500).await;
        let expected: Vec<_> = (0..500).map(|number| number.to_string()).collect();
        assert_eq!(read_all(&topic, 0).await, expected);
    });
}

#[test]
fn a_fetch_waits_for_the_next_batch_and_nothing_else() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 3, &[]).await;
        let waiting = {
            let (broker, request) = (broker.clone(), fetch_of(&topic, &[(0, 0), (1, 0), (2, 0)]));
            tokio::spawn(async move { broker.fetch(request).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        produce(&broker, &topic, 1, batch(&["a"])).await.unwrap();
        let response = waiting.await.unwrap();
        assert_eq!(values(&response, 1), ["a"]);
        assert!(values(&response, 0).is_empty());
        let next = response.partitions[1].result.as_ref().unwrap().next_offset;
        assert_eq!(next, Offset(1));

        let at_once = FetchRequest { max_wait: Duration::ZERO, ..fetch_of(&topic, &[(1, 1)]) };
        let response = broker.fetch(at_once).await;
        let nothing = response.partitions[0].result.as_ref().unwrap();
        assert_eq!((nothing.next_offset, nothing.visible_end), (Offset(1), Offset(1)));
    });
}

#[test]
fn min_bytes_waits_for_more_and_max_wait_ends_it() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[]).await;
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        let much = FetchRequest { min_bytes: 5_000, ..fetch_of(&topic, &[(0, 0)]) };
        let waiting = {
            let (broker, request) = (broker.clone(), much.clone());
            tokio::spawn(async move { broker.fetch(request).await })
        };
        produce(&broker, &topic, 0, batch(&["b"])).await.unwrap();
        produce(&broker, &topic, 0, large_batch(6_000)).await.unwrap();
        assert!(values(&waiting.await.unwrap(), 0).len() == 3);
        let more = FetchRequest { min_bytes: 1 << 20, max_wait: Duration::from_millis(20), ..much };
        assert_eq!(values(&broker.fetch(more).await, 0).len(), 3);
    });
}

#[test]
fn max_bytes_limits_but_a_large_batch_still_comes() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 4, &[]).await;
        for partition in 0..4 {
            for _ in 0..5 {
                produce(&broker, &topic, partition, large_batch(10_000)).await.unwrap();
            }
        }
        let all = [(0, 0), (1, 0), (2, 0), (3, 0)];
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let limited = FetchRequest { max_bytes: 1_000, ..fetch_of(&topic, &all) };
            let response = broker.fetch(limited).await;
            assert_eq!(response.limited_by, Some(stoplog::broker::flow::Cause::FetchBytes));
            let filled: Vec<_> = (0..4).filter(|at| !values(&response, *at).is_empty()).collect();
            assert_eq!(filled.len(), 1, "one batch, whatever its size");
            first.extend(filled);
        }
        assert_eq!(first.len(), 4, "everybody has a turn");
        let mut request = fetch_of(&topic, &all);
        request.partitions.iter_mut().for_each(|at| at.max_bytes = 25_000);
        let response = broker.fetch(request).await;
        assert!((0..4).all(|at| values(&response, at).len() == 2));
    });
}

#[test]
fn a_cold_read_answers_as_a_warm_one() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let topic = topic(&broker, 1, &[("segment_bytes", "64KiB")]).await;
        for _ in 0..20 {
            produce(&broker, &topic, 0, large_batch(9_000)).await.unwrap();
        }
        broker.shutdown(ShutdownMode::Graceful).await;
        world.disk.set_resident(false);
        let broker = world.open().await;
        let topic = broker.topic(topic.name()).unwrap();
        let response = broker.fetch(fetch_of(&topic, &[(0, 0)])).await;
        let fetched = response.partitions[0].result.as_ref().unwrap();
        assert!(fetched.next_offset > Offset(0));
        assert_eq!(values(&response, 0).len() as i64, fetched.next_offset.0);
        assert_eq!(read_all(&topic, 0).await.len(), 20);
    });
}

#[test]
fn errors_say_what_is_wrong_beside_what_is_right() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 2, &[]).await;
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        let mut request = fetch_of(&topic, &[(0, 0), (1, 5), (9, 0)]);
        let unknown = TopicId::from_bytes([9; 16]);
        request.partitions.push(FetchPartition { topic: unknown, ..request.partitions[0] });
        let response = broker.fetch(request).await;
        assert_eq!(values(&response, 0), ["a"]);
        let error = |at: usize| response.partitions[at].result.clone().unwrap_err();
        let empty = FetchError::OffsetOutOfRange { start: Offset(0), end: Offset(0) };
        assert_eq!(error(1), empty);
        assert_eq!(error(2), FetchError::PartitionNotFound(PartitionId(9)));
        assert_eq!(error(3), FetchError::TopicNotFound);

        let garbage = produce(&broker, &topic, 0, vec![7; 100].into()).await.unwrap_err();
        assert!(matches!(garbage, ProduceError::InvalidBatch { .. }), "{garbage}");
        let mut flipped = batch(&["a"]).to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        let flipped = produce(&broker, &topic, 0, flipped.into()).await.unwrap_err();
        assert!(matches!(flipped, ProduceError::InvalidBatch { .. }), "{flipped}");
        let large = produce(&broker, &topic, 0, large_batch(2 << 20)).await.unwrap_err();
        assert!(matches!(large, ProduceError::BatchTooLarge { .. }), "{large}");
        let nowhere = produce(&broker, &topic, 7, batch(&["a"])).await.unwrap_err();
        assert_eq!(nowhere, ProduceError::PartitionNotFound(PartitionId(7)));
        assert_eq!(read_all(&topic, 0).await, ["a"], "nothing of it was written");
        // A permit is given back behind the answer, on the log writer's thread.
        until("every permit came back", || broker.pressure().limits[0].used == 0).await;
    });
}

#[test]
fn deleting_a_topic_ends_waits_for_it() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[]).await;
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        let waiting = {
            let (broker, request) = (broker.clone(), fetch_of(&topic, &[(0, 1)]));
            tokio::spawn(async move { broker.fetch(request).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        broker.delete_topic(topic.name()).await.unwrap();
        let response = waiting.await.unwrap();
        assert_eq!(response.partitions[0].result.clone().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn offsets_are_found_by_place_and_by_time() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[]).await;
        produce(&broker, &topic, 0, batch(&["a", "b", "c"])).await.unwrap();
        produce(&broker, &topic, 0, batch(&["d"])).await.unwrap();
        let find = |query| broker.list_offset(topic.id(), PartitionId(0), query);
        assert_eq!(find(OffsetQuery::Earliest).await.unwrap().offset, Offset(0));
        assert_eq!(find(OffsetQuery::Latest).await.unwrap().offset, Offset(4));
        let found = find(OffsetQuery::AtTime(Timestamp(1_001))).await.unwrap();
        assert_eq!((found.offset, found.timestamp), (Offset(1), Some(Timestamp(1_001))));
        let found = find(OffsetQuery::AtTime(Timestamp(0))).await.unwrap();
        assert_eq!(found.offset, Offset(0));
        let late = find(OffsetQuery::AtTime(Timestamp(9_999))).await.unwrap();
        assert_eq!((late.offset, late.timestamp), (Offset(4), None));

        assert_eq!(broker.trim(topic.id(), PartitionId(0), Offset(2)).await, Ok(Offset(2)));
        assert_eq!(find(OffsetQuery::Earliest).await.unwrap().offset, Offset(2));
        let response = broker.fetch(fetch_of(&topic, &[(0, 1)])).await;
        let gone = FetchError::OffsetOutOfRange { start: Offset(2), end: Offset(4) };
        assert_eq!(response.partitions[0].result.clone().unwrap_err(), gone);
        let beyond = broker.trim(topic.id(), PartitionId(0), Offset(9)).await.unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn weaker_levels_are_said_and_a_drain_refuses() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[("durability", "os")]).await;
        let done = produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        assert_eq!(done.level, DurabilityLevel::Os);
        let mut durable = request(&topic, 0, batch(&["b"]));
        durable.acks = Acks::Durable;
        let done = broker.produce_and_wait(durable).await.unwrap();
        assert_eq!(done.level, DurabilityLevel::Durable);
        broker.shutdown(ShutdownMode::Graceful).await;
        let refused = produce(&broker, &topic, 0, batch(&["c"])).await.unwrap_err();
        let ProduceError::Pushback(pushback) = refused else { panic!("{refused}") };
        assert_eq!(pushback.code, PushbackCode::Draining);
        let created = broker.create_topic(NewTopic::new("late".parse().unwrap(), 1)).await;
        assert_eq!(created.unwrap_err().kind(), ErrorKind::Throttle);
    });
}

/// Produces without waking a writer; what was answered comes through the channel.
fn produce_more(
    broker: &Broker,
    topic: &Topic,
    batch: Bytes,
) -> tokio::sync::oneshot::Receiver<Result<Produced, ProduceError>> {
    let (told, answer) = tokio::sync::oneshot::channel();
    let done = move |outcome| drop(told.send(outcome));
    broker.produce_more(request(topic, 0, batch), None, Box::new(done));
    answer
}

#[test]
fn batches_that_announce_more_go_on_their_way_at_the_flush() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[]).await;
        let first = produce_more(&broker, &topic, batch(&["a"]));
        let second = produce_more(&broker, &topic, batch(&["b"]));
        broker.flush();
        assert_eq!(first.await.unwrap().unwrap().base_offset, Offset(0));
        assert_eq!(second.await.unwrap().unwrap().base_offset, Offset(1));
    });
}

#[test]
fn enough_batches_wake_a_writer_without_a_flush() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, 1, &[]).await;
        let answers: Vec<_> =
            (0..10).map(|_| produce_more(&broker, &topic, large_batch(64 << 10))).collect();
        let first = answers.into_iter().next().unwrap();
        assert_eq!(first.await.unwrap().unwrap().base_offset, Offset(0));
    });
}
