//! What limits, and what goes on while it does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use stoplog::broker::flow::{Identity, NoWake};
use stoplog::broker::groups::{Commit, CommitOffset, FetchCommitted};
use stoplog::broker::{Broker, NewTopic, ProduceError, ShutdownMode, Topic};
use stoplog::types::{
    Class, Effects, LeaderEpoch, LimitUse, Offset, PartitionId, Pushback, PushbackCode,
    PushbackScope, Severity, TopicPartition,
};

use crate::world::{World, batch, config, large_batch, produce, read_all, request, run, until};

async fn topic(broker: &Broker, name: &str, settings: &[(&str, &str)]) -> Arc<Topic> {
    let mut new = NewTopic::new(name.parse().unwrap(), 1);
    new.config = config(settings);
    // Records of these tests are from 1970: under pressure they would go at once.
    new.config.retention_ms = None;
    broker.create_topic(new).await.unwrap()
}

fn pushback(outcome: Result<impl std::fmt::Debug, ProduceError>) -> Pushback {
    match outcome {
        Err(ProduceError::Pushback(pushback)) => pushback,
        other => panic!("not refused by a limit: {other:?}"),
    }
}

fn commit_of(topic: &Topic, offset: i64) -> Commit {
    Commit {
        group: "email".parse().unwrap(),
        member_id: "".into(),
        member_epoch: -1,
        offsets: vec![CommitOffset {
            partition: TopicPartition { topic: topic.id(), partition: PartitionId(0) },
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(-1),
            metadata: None,
        }],
    }
}

#[test]
fn a_full_topic_refuses_and_a_trim_opens_it_again() {
    run(async {
        let broker = World::new().open().await;
        let settings =
            [("max_bytes", "300KiB"), ("max_message_bytes", "64KiB"), ("segment_bytes", "64KiB")];
        let topic = topic(&broker, "orders", &settings).await;
        let mut written = 0;
        let refused = loop {
            match produce(&broker, &topic, 0, large_batch(20_000)).await {
                Ok(_) => written += 1,
                refused => break pushback(refused),
            }
            assert!(written < 100, "the limit never came");
        };
        assert_eq!((refused.code, refused.scope), (PushbackCode::TopicFull, PushbackScope::Topic));
        assert_eq!((refused.severity, refused.effects), (Severity::Reject, Effects::None));
        assert!(refused.observed > refused.limit && refused.limit == 300 << 10);
        assert_eq!(read_all(&topic, 0).await.len(), written, "reads go on");
        let report = broker.pressure();
        assert_eq!(report.limits[0].action, Some(PushbackCode::TopicFull), "binding ones first");
        broker.trim(topic.id(), PartitionId(0), Offset(written as i64 - 1)).await.unwrap();
        produce(&broker, &topic, 0, large_batch(20_000)).await.expect("room again");
    });
}

#[test]
fn drop_oldest_goes_on_and_stays_near_its_limit() {
    run(async {
        let broker = World::new().open().await;
        let settings = [
            ("max_bytes", "1MiB"),
            ("on_full", "drop_oldest"),
            ("segment_bytes", "128KiB"),
            ("max_message_bytes", "64KiB"),
            ("durability", "os"),
        ];
        let topic = topic(&broker, "orders", &settings).await;
        for _ in 0..300 {
            while let Err(error) = produce(&broker, &topic, 0, large_batch(20_000)).await {
                let ProduceError::Pushback(held) = error else { panic!("{error}") };
                assert_eq!((held.code, held.severity), (PushbackCode::TopicFull, Severity::Hold));
                tokio::time::sleep(Duration::from_millis(u64::from(held.retry_after_ms))).await;
            }
        }
        until("the topic is below its limit", || topic.bytes() <= 1 << 20).await;
        let partition = topic.partition(PartitionId(0)).unwrap();
        let (start, end) = partition.span();
        assert!(start > Offset(200) && end == Offset(300), "{start} {end}");
        assert_eq!(read_all(&topic, 0).await.len() as i64, end - start);
    });
}

#[test]
fn a_full_disk_refuses_produce_and_nothing_else() {
    run(async {
        let world = World::new();
        world.disk.set_capacity(8 << 20);
        let broker = world.open().await;
        let topic = topic(&broker, "orders", &[("segment_bytes", "512KiB")]).await;
        let mut written: i64 = 0;
        let refused = loop {
            match produce(&broker, &topic, 0, large_batch(300_000)).await {
                Ok(_) => written += 1,
                refused => {
                    let refused = pushback(refused);
                    if refused.code != PushbackCode::DiskLow {
                        break refused;
                    }
                    // Little is left: it is used up over some seconds.
                    let wait = Duration::from_millis(u64::from(refused.retry_after_ms));
                    tokio::time::sleep(wait).await;
                }
            }
            assert!(written < 1_000, "the disk never filled");
        };
        assert_eq!((refused.code, refused.effects), (PushbackCode::DiskFull, Effects::None));
        assert!(refused.retry_after_ms > 0);

        assert_eq!(read_all(&topic, 0).await.len() as i64, written, "reads go on");
        let commit = broker.groups().commit(commit_of(&topic, 3)).await.expect("commits go on");
        assert!(commit.refused.is_empty());
        let other = NewTopic::new("other".parse().unwrap(), 1);
        broker.create_topic(other).await.expect("so does the catalog");

        let name = topic.name().clone();
        broker.shutdown(ShutdownMode::Graceful).await;
        // Open handles of removed files keep their space.
        drop((topic, broker));
        let broker = world.open().await;
        let topic = broker.topic(&name).unwrap();
        assert_eq!(read_all(&topic, 0).await.len() as i64, written, "and a restart works");
        let committed = broker
            .groups()
            .fetch_committed(FetchCommitted {
                group: "email".parse().unwrap(),
                member: None,
                partitions: None,
            })
            .await
            .unwrap();
        assert_eq!(committed[0].offset, Some(Offset(3)));
        pushback(produce(&broker, &topic, 0, large_batch(300_000)).await);

        broker.trim(topic.id(), PartitionId(0), Offset(written - 1)).await.expect("trims go on");
        let mut outcome = Err(ProduceError::Closed);
        for _ in 0..1_000 {
            outcome = produce(&broker, &topic, 0, large_batch(300_000)).await;
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(outcome.unwrap().base_offset, Offset(written), "it resumes by itself");
    });
}

#[test]
fn the_pool_refuses_at_once_and_says_when_to_come_back() {
    run(async {
        let mut world = World::new();
        world.options.flow.inflight_bytes_max = Some(64 << 10);
        world.options.flow.lane_share = 1;
        let broker = world.open().await;
        let topic = topic(&broker, "orders", &[("max_message_bytes", "8KiB")]).await;
        let connection = broker.connect(Identity::embedded());
        let (told, mut outcomes) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..200 {
            let mut request = request(&topic, 0, large_batch(3_000));
            request.connection = Some(connection.clone());
            let told = told.clone();
            broker.produce(request, Box::new(move |outcome| told.send(outcome).unwrap()));
        }
        drop(told);
        let (mut accepted, mut refused) = (0, 0);
        while let Some(outcome) = outcomes.recv().await {
            match outcome {
                Ok(_) => accepted += 1,
                refusal => {
                    let busy = pushback(refusal);
                    assert_eq!(busy.code, PushbackCode::ServerBusy);
                    assert_eq!(busy.scope, PushbackScope::Connection, "an eighth of the pool");
                    assert!((50..=5_000).contains(&busy.retry_after_ms));
                    refused += 1;
                }
            }
        }
        assert_eq!(accepted + refused, 200, "every request has one outcome");
        assert!(refused > 0 && accepted > 0, "{accepted} {refused}");
        until("the last permit is back, after its answer", || connection.share().used() == 0).await;
        assert_eq!(read_all(&topic, 0).await.len(), accepted);
    });
}

#[test]
fn a_full_queue_refuses_produce_and_not_commits() {
    run(async {
        let mut world = World::new();
        world.options.storage.writers = 1;
        world.options.storage.queue_batches_max = 1;
        let broker = world.open().await;
        let topic = topic(&broker, "orders", &[]).await;
        let (told, mut outcomes) = tokio::sync::mpsc::unbounded_channel();
        let flood = {
            let (broker, topic) = (broker.clone(), Arc::clone(&topic));
            tokio::task::spawn_blocking(move || {
                for _ in 0..5_000 {
                    let told = told.clone();
                    let done = move |outcome| told.send(outcome).unwrap();
                    broker.produce(request(&topic, 0, batch(&["a"])), Box::new(done));
                }
            })
        };
        for offset in 1..=20 {
            let commit = broker.groups().commit(commit_of(&topic, offset)).await;
            assert!(commit.expect("commits go on").refused.is_empty());
        }
        flood.await.unwrap();
        let (mut accepted, mut refused) = (0, 0);
        while let Some(outcome) = outcomes.recv().await {
            match outcome {
                Ok(_) => accepted += 1,
                refusal => {
                    let busy = pushback(refusal);
                    assert_eq!(busy.code, PushbackCode::ServerBusy);
                    assert_eq!(
                        (busy.scope, busy.effects),
                        (PushbackScope::Partition, Effects::None)
                    );
                    refused += 1;
                }
            }
        }
        assert_eq!(accepted + refused, 5_000, "every request has one outcome");
        assert!(refused > 0, "the queue never was full");
        assert_eq!(read_all(&topic, 0).await.len(), accepted);
        // A permit goes back after its answer, on the writer's thread.
        let empty = |limit: &LimitUse| limit.limit == "memory.inflight" && limit.used == 0;
        until("the pool is empty", || broker.pressure().limits.iter().any(empty)).await;
    });
}

#[test]
fn a_publisher_is_of_partitions_that_are_added_later_too() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders", &[]).await;
        let nobody: Weak<NoWake> = Weak::new();
        let publisher = broker.open_publisher(&topic, None, Class::Normal, nobody);
        assert_eq!(publisher.seat().writers().count_ones(), 1, "one partition has one writer");
        broker.add_partitions(topic.name(), 16).await.unwrap();
        assert_eq!(publisher.seat().writers().count_ones(), 2, "all that there are");
    });
}

#[test]
fn a_deadline_that_passed_is_refused_without_effects() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders", &[]).await;
        let mut late = request(&topic, 0, batch(&["a"]));
        late.deadline = Some(Duration::ZERO);
        let refused = pushback(broker.produce_and_wait(late).await);
        assert_eq!(
            (refused.code, refused.effects),
            (PushbackCode::DeadlineUnmeetable, Effects::None)
        );
        assert!(read_all(&topic, 0).await.is_empty());
    });
}

#[test]
fn a_connection_that_has_no_room_for_a_batch_of_a_topic_is_a_wrong_setting() {
    run(async {
        let mut world = World::new();
        let broker = world.open().await;
        topic(&broker, "orders", &[("max_message_bytes", "64KiB")]).await;
        broker.shutdown(ShutdownMode::Graceful).await;
        drop(broker);
        world.options.flow.inflight_bytes_max = Some(64 << 10);
        let refused = Broker::open_with(world.options.clone(), world.env()).await;
        let told = refused.expect_err("an eighth of the pool is 8 KiB").to_string();
        assert!(told.contains("orders") && told.contains("memory.inflight_bytes_max"), "{told}");
        world.options.flow.inflight_bytes_max = Some(512 << 10);
        let broker = world.open().await;
        let mut new = NewTopic::new("other".parse().unwrap(), 1);
        new.config = config(&[("max_message_bytes", "65KiB")]);
        broker.create_topic(new).await.expect_err("neither is a new one made");
    });
}
