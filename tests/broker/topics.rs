//! The catalog: made, changed, deleted, and found again after every crash.

use stoplog::broker::{
    AlterTopicError, Broker, BrokerOptions, CommitError, CreateTopicError, NewTopic, ShutdownMode,
    Topic,
};
use stoplog::env::sim::Fault;
use stoplog::types::{ErrorKind, PartitionId, TopicName};

use crate::world::{World, batch, config, produce, read_all, run, until};

fn name(text: &str) -> TopicName {
    text.parse().unwrap()
}

async fn create(broker: &Broker, text: &str, partitions: u32) -> std::sync::Arc<Topic> {
    broker.create_topic(NewTopic::new(name(text), partitions)).await.unwrap()
}

#[test]
fn names_are_unique_and_ids_are_for_ever() {
    run(async {
        let broker = World::new().open().await;
        let first = create(&broker, "orders", 2).await;
        let again = broker.create_topic(NewTopic::new(name("orders"), 2)).await;
        assert_eq!(again.err(), Some(CreateTopicError::Exists(name("orders"))));
        broker.delete_topic(&name("orders")).await.unwrap();
        assert!(broker.topic(&name("orders")).is_none());
        let second = create(&broker, "orders", 1).await;
        assert_ne!(first.id(), second.id());
        assert_eq!(second.id().0.get_version_num(), 7);
    });
}

#[test]
fn a_crash_after_an_answer_loses_no_change_of_the_catalog() {
    for seed in 0..12 {
        run(async {
            let world = World::new();
            let broker = world.open().await;
            let kept = create(&broker, "kept", 3).await;
            create(&broker, "gone", 1).await;
            produce(&broker, &kept, 1, batch(&["a"])).await.unwrap();
            broker.delete_topic(&name("gone")).await.unwrap();
            let changes = vec![("retention_ms".to_owned(), "1h".to_owned())];
            broker.alter_topic(&name("kept"), changes).await.unwrap();
            broker.add_partitions(&name("kept"), 5).await.unwrap();

            let after = world.crash(seed);
            let broker = after.open().await;
            let found: Vec<_> = broker.topics().iter().map(|t| t.name().clone()).collect();
            assert_eq!(found, [name("kept")]);
            let topic = broker.topic(&name("kept")).unwrap();
            assert_eq!((topic.id(), topic.partition_count()), (kept.id(), 5));
            assert_eq!(topic.config().retention_ms, Some(3_600_000));
            assert_eq!(read_all(&topic, 1).await, ["a"]);
            produce(&broker, &topic, 4, batch(&["b"])).await.unwrap();
        });
    }
}

#[test]
fn the_files_of_a_deleted_topic_go_and_its_tombstone_after_them() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let topic = create(&broker, "orders", 2).await;
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        let directory = format!("topics/{}", topic.id());
        let files = || {
            let all = world.disk.files();
            all.iter().filter(|(path, _)| path.starts_with(&directory)).count()
        };
        assert!(files() > 0);
        broker.delete_topic(&name("orders")).await.unwrap();
        until("the files are gone", || files() == 0).await;
        broker.shutdown(ShutdownMode::Graceful).await;
        assert!(
            World { disk: world.disk.clone(), ..World::new() }.open().await.topics().is_empty()
        );
    });
}

#[test]
fn partitions_only_grow_and_limits_hold() {
    run(async {
        let mut world = World::new();
        world.options.limits.partitions_max = 4;
        world.options.limits.topics_max = 2;
        let broker = world.open().await;
        create(&broker, "one", 2).await;
        let fewer = broker.add_partitions(&name("one"), 1).await.unwrap_err();
        assert_eq!(fewer, AlterTopicError::FewerPartitions { has: 2, asked: 1 });
        let more = broker.add_partitions(&name("one"), 5).await.unwrap_err();
        assert_eq!(
            (more.kind(), more),
            (ErrorKind::Invalid, AlterTopicError::Limit { wanted: 5, limit: 4 },)
        );
        create(&broker, "two", 1).await;
        let third = broker.create_topic(NewTopic::new(name("three"), 1)).await;
        assert!(matches!(third, Err(CreateTopicError::Limit { what: "topics", .. })));
        let none = broker.create_topic(NewTopic::new(name("three"), 0)).await;
        assert_eq!(none.err(), Some(CreateTopicError::NoPartitions));
    });
}

#[test]
fn settings_that_do_not_fit_change_nothing() {
    run(async {
        let broker = World::new().open().await;
        let topic = create(&broker, "orders", 1).await;
        let before = topic.config();
        for (key, value) in [("retention", "1h"), ("on_full", "explode"), ("max_bytes", "2KiB")] {
            let change = vec![(key.to_owned(), value.to_owned())];
            let refused = broker.alter_topic(&name("orders"), change).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{key}");
        }
        assert_eq!(topic.config(), before);
        let missing = broker.alter_topic(&name("nothing"), Vec::new()).await.unwrap_err();
        assert_eq!(missing, AlterTopicError::NotFound);
    });
}

#[test]
fn ten_thousand_partitions_cost_one_record_a_topic_and_no_files() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let files_before = world.disk.files().len();
        let mut topics = Vec::new();
        for number in 0..20 {
            topics.push(create(&broker, &format!("topic-{number}"), 500).await);
        }
        // The first append to the catalog makes its files; partitions make none.
        assert!(world.disk.files().len() <= files_before + 8, "{:?}", world.disk.files());
        for topic in &topics {
            produce(&broker, topic, 499, batch(&["a"])).await.unwrap();
        }
        broker.shutdown(ShutdownMode::Graceful).await;
        let broker = world.open().await;
        assert_eq!(broker.topics().len(), 20);
        for topic in broker.topics() {
            assert_eq!(read_all(&topic, 499).await, ["a"]);
            assert_eq!(topic.partition(PartitionId(0)).unwrap().bytes(), 0);
        }
    });
}

#[test]
fn the_catalog_stays_bounded_and_survives_a_damaged_snapshot() {
    run(async {
        let mut world = World::new();
        world.options.housekeeping.snapshot_bytes = 4 << 10;
        let broker = world.open().await;
        let topic = create(&broker, "orders", 1).await;
        for round in 0..600 {
            let value = if round % 2 == 0 { "1h" } else { "2h" };
            let change = vec![("retention_ms".to_owned(), value.to_owned())];
            broker.alter_topic(topic.name(), change).await.unwrap();
        }
        broker.shutdown(ShutdownMode::Graceful).await;
        let internal = stoplog::broker::InternalId::CATALOG.topic().to_string();
        let log = |path: &std::path::Path| path.to_string_lossy().contains(&internal);
        let bytes: u64 =
            world.disk.files().iter().filter(|(p, _)| log(p)).map(|(_, len)| len).sum();
        assert!(bytes < 600 << 10, "{bytes} bytes for 600 records of 300 bytes");
        let snapshots: Vec<_> = world
            .disk
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.starts_with("internal"))
            .filter(|path| path.to_string_lossy().contains("catalog"))
            .collect();
        assert_eq!(snapshots.len(), 2, "{snapshots:?}");

        let newest = snapshots.iter().max().unwrap();
        assert!(world.disk.flip_bit(newest, 40, 3));
        let broker = world.open().await;
        let topic = broker.topic(&name("orders")).unwrap();
        assert_eq!(topic.config().retention_ms, config(&[("retention_ms", "2h")]).retention_ms);
        broker.shutdown(ShutdownMode::Graceful).await;

        let oldest = snapshots.iter().min().unwrap();
        assert!(world.disk.flip_bit(oldest, 40, 3));
        let refused = Broker::open_with(world.options.clone(), world.env()).await;
        assert_eq!(refused.map(drop).unwrap_err().kind(), ErrorKind::Corrupt);
    });
}

#[test]
fn a_failed_sync_of_a_snapshot_is_final_like_any_other() {
    run(async {
        let mut beside_snapshots = 0;
        for n in 0..60 {
            let mut world = World::new();
            world.options.housekeeping.snapshot_bytes = 4 << 10;
            let broker = world.open().await;
            let topic = create(&broker, "orders", 1).await;
            world.disk.fail_nth(n, Fault::SyncFailed);
            for round in 0..60 {
                let value = if round % 2 == 0 { "1h" } else { "2h" };
                let change = vec![("retention_ms".to_owned(), value.to_owned())];
                let altered = broker.alter_topic(topic.name(), change).await;
                if altered.is_err() || world.disk.struck().is_some() {
                    break;
                }
            }
            let Some(struck) = world.disk.struck() else { break };
            let snapshots = world.disk.files();
            let any = snapshots.iter().any(|(path, _)| path.starts_with("internal"));
            beside_snapshots += usize::from(any);
            let change = vec![("retention_ms".to_owned(), "3h".to_owned())];
            let refused = broker.alter_topic(topic.name(), change).await.map(drop).unwrap_err();
            let latched = AlterTopicError::Commit(CommitError::Latched { cause: String::new() });
            let same = std::mem::discriminant(&latched) == std::mem::discriminant(&refused);
            assert!(same && refused.kind() == ErrorKind::Internal, "{refused} after {struck:?}");
            broker.shutdown(ShutdownMode::AtOnce).await;
        }
        assert!(beside_snapshots > 2, "a file and its directory, twice; {beside_snapshots} met");
    });
}

#[test]
fn a_missing_catalog_is_not_an_empty_one() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let topic = create(&broker, "orders", 1).await;
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        broker.shutdown(ShutdownMode::Graceful).await;
        let internal = stoplog::broker::InternalId::CATALOG.topic().to_string();
        for (path, _) in world.disk.files() {
            if path.to_string_lossy().contains(&internal) {
                assert!(world.disk.delete_file(&path));
            }
        }
        let refused = Broker::open_with(world.options.clone(), world.env()).await;
        assert_eq!(refused.map(drop).unwrap_err().kind(), ErrorKind::Corrupt);
    });
}

#[test]
fn the_partitions_of_a_topic_are_removed_beside_each_other() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::open(BrokerOptions::new(dir.path())).await.unwrap();
        for round in 0..10 {
            let topic = create(&broker, &format!("t{round}"), 8).await;
            for partition in 0..8 {
                produce(&broker, &topic, partition, batch(&["a"])).await.unwrap();
            }
            broker.delete_topic(topic.name()).await.unwrap();
        }
        let topics = dir.path().join("topics");
        until("all files are gone", || topics.read_dir().unwrap().count() <= INTERNAL_TOPICS).await;
        let topic = create(&broker, "after", 1).await;
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        broker.shutdown(ShutdownMode::Graceful).await;
    });
}

/// Directories of the broker's own logs.
const INTERNAL_TOPICS: usize = 3;
