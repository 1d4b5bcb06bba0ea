//! What survives a restart, a kill and a power cut.

use stoplog::broker::{
    Broker, InitProducerError, NewTopic, ProduceError, ProducerIdentity, ShutdownMode,
};
use stoplog::env::sim::Fault;
use stoplog::record::ProducerStamp;
use stoplog::types::{ErrorKind, Offset, ProducerEpoch, ProducerId};

use crate::world::{World, batch, produce, read_all, run, stamped_batch};

fn stamp(identity: ProducerIdentity, base_sequence: i32) -> Option<ProducerStamp> {
    Some(ProducerStamp { id: identity.id, epoch: identity.epoch, base_sequence })
}

#[test]
fn an_idempotent_producer_goes_on_across_a_restart() {
    for graceful in [true, false] {
        run(async {
            let world = World::new();
            let broker = world.open().await;
            let new = NewTopic::new("orders".parse().unwrap(), 1);
            let topic = broker.create_topic(new).await.unwrap();
            let me = broker.init_producer(None).await.unwrap();
            for sequence in 0..3 {
                let sent = stamped_batch(&["a"], stamp(me, sequence));
                produce(&broker, &topic, 0, sent).await.unwrap();
            }
            let after = if graceful {
                broker.shutdown(ShutdownMode::Graceful).await;
                world
            } else {
                world.crash(5)
            };
            let broker = after.open().await;
            let topic = broker.topic(topic.name()).unwrap();
            let again = stamped_batch(&["a"], stamp(me, 2));
            let repeat = produce(&broker, &topic, 0, again).await.unwrap();
            assert!(repeat.duplicate);
            assert_eq!(repeat.base_offset, Offset(2));
            let skipped = produce(&broker, &topic, 0, stamped_batch(&["c"], stamp(me, 4))).await;
            let expected = ProduceError::OutOfOrderSequence { expected: 3, found: 4 };
            assert_eq!(skipped, Err(expected));
            produce(&broker, &topic, 0, stamped_batch(&["b"], stamp(me, 3))).await.unwrap();

            let other = broker.init_producer(None).await.unwrap();
            assert!(other.id.0 > me.id.0, "an id is never given out twice");
            let bumped = broker.init_producer(Some(me)).await.unwrap();
            assert_eq!((bumped.id, bumped.epoch), (me.id, ProducerEpoch(1)));
            produce(&broker, &topic, 0, stamped_batch(&["d"], stamp(bumped, 0))).await.unwrap();
            let old = produce(&broker, &topic, 0, stamped_batch(&["x"], stamp(me, 4))).await;
            assert_eq!(old, Err(ProduceError::ProducerFenced { current: ProducerEpoch(1) }));
            assert_eq!(read_all(&topic, 0).await, ["a", "a", "a", "b", "d"]);
        });
    }
}

#[test]
fn an_unknown_producer_id_is_refused() {
    run(async {
        let broker = World::new().open().await;
        let me = broker.init_producer(None).await.unwrap();
        let invented = ProducerIdentity { id: ProducerId(me.id.0 + 5), ..me };
        let refused = broker.init_producer(Some(invented)).await.unwrap_err();
        assert_eq!(refused, InitProducerError::UnknownProducer(me.id.0 + 5));
        let worn = ProducerIdentity { epoch: ProducerEpoch(i16::MAX), ..me };
        let fresh = broker.init_producer(Some(worn)).await.unwrap();
        assert_eq!(fresh.epoch, ProducerEpoch(0));
        assert_ne!(fresh.id, me.id);
    });
}

#[test]
fn acknowledged_batches_survive_power_cuts() {
    for seed in 0..10 {
        run(async {
            let mut world = World::new();
            let mut expected = Vec::new();
            for round in 0..3 {
                let broker = world.open().await;
                let name = "orders".parse().unwrap();
                let topic = match broker.topic(&name) {
                    Some(topic) => topic,
                    None => broker.create_topic(NewTopic::new(name, 1)).await.unwrap(),
                };
                assert_eq!(read_all(&topic, 0).await, expected);
                for number in 0..10 {
                    let value = format!("{round}-{number}");
                    produce(&broker, &topic, 0, batch(&[&value])).await.unwrap();
                    expected.push(value);
                }
                world = world.crash(seed * 10 + round);
            }
            let broker = world.open().await;
            let topic = broker.topic(&"orders".parse().unwrap()).unwrap();
            assert_eq!(read_all(&topic, 0).await, expected);
        });
    }
}

#[test]
fn a_failed_sync_refuses_writes_and_commits_and_reads_go_on() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let name: stoplog::types::TopicName = "orders".parse().unwrap();
        let topic = broker.create_topic(NewTopic::new(name.clone(), 1)).await.unwrap();
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        world.disk.fail_from(0, Fault::SyncFailed);
        let failed = produce(&broker, &topic, 0, batch(&["b"])).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Internal, "{failed}");
        world.disk.clear_fault();
        let later = produce(&broker, &topic, 0, batch(&["c"])).await.unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Internal, "{later}");
        let created = broker.create_topic(NewTopic::new("other".parse().unwrap(), 1)).await;
        assert_eq!(created.unwrap_err().kind(), ErrorKind::Internal);
        assert!(broker.topic(&"other".parse().unwrap()).is_none(), "nothing was applied");
        assert!(broker.fault().is_some());
        assert_eq!(read_all(&topic, 0).await[..1], ["a"]);

        let after = world.crash(3);
        let broker = after.open().await;
        let topic = broker.topic(&name).unwrap();
        assert_eq!(read_all(&topic, 0).await[..1], ["a"]);
        produce(&broker, &topic, 0, batch(&["d"])).await.expect("a restart heals");
    });
}

#[test]
fn one_data_directory_has_one_broker() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let second = Broker::open_with(world.options.clone(), world.env()).await;
        assert_eq!(second.map(drop).unwrap_err().kind(), ErrorKind::Closed);
        broker.shutdown(ShutdownMode::Graceful).await;
        let third = Broker::open_with(world.options.clone(), world.env()).await;
        third.expect("it is free again");
    });
}

#[test]
fn a_second_request_to_end_ends_at_once() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let new = NewTopic::new("orders".parse().unwrap(), 1);
        let topic = broker.create_topic(new).await.unwrap();
        produce(&broker, &topic, 0, batch(&["a"])).await.unwrap();
        let first = {
            let broker = broker.clone();
            tokio::spawn(async move { broker.shutdown(ShutdownMode::Graceful).await })
        };
        broker.shutdown(ShutdownMode::AtOnce).await;
        first.await.unwrap();
        broker.shutdown(ShutdownMode::Graceful).await;
        drop(broker);
        let broker = world.open().await;
        let topic = broker.topic(topic.name()).unwrap();
        assert_eq!(read_all(&topic, 0).await, ["a"]);
    });
}
