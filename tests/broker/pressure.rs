//! Who is limited by what, as the whole broker tells it: causes, roots, events, metrics.

use std::sync::Arc;
use std::time::Duration;

use stoplog::broker::flow::{ConnectionFlow, Identity, Load};
use stoplog::broker::{
    AlterTopicError, Broker, CreateTopicError, DeleteTopicError, FetchPartition, FetchRequest,
    FetchResponse, NewTopic, ProduceError, ReadMode, ShutdownMode, Topic,
};
use stoplog::types::{
    Entity, EntityKind, MetricValue, Offset, PartitionId, PressureQuery, WhyReport,
};

use crate::world::{World, config, large_batch, produce, read_all, run, until};

/// More than the smallest burst: a rate of 1 byte/s owes for days after it.
const BURST: usize = 1_200_000;

async fn topic(broker: &Broker, name: &str, settings: &[(&str, &str)]) -> Arc<Topic> {
    let mut new = NewTopic::new(name.parse().unwrap(), 1);
    let base = [("durability", "os"), ("max_message_bytes", "2MiB")];
    new.config = config(&[&base[..], settings].concat());
    broker.create_topic(new).await.unwrap()
}

/// The caller in this process owes its quota for days and was refused for it.
async fn spend_a_quota(broker: &Broker) -> Arc<Topic> {
    let topic = topic(broker, "orders", &[]).await;
    let one = vec![("produce_bytes".to_owned(), "1".to_owned())];
    broker.set_quota("client/embedded".parse().unwrap(), one, false).await.unwrap();
    produce(broker, &topic, 0, large_batch(BURST)).await.expect("the burst, and a debt");
    produce(broker, &topic, 0, large_batch(10)).await.expect_err("it owes");
    topic
}

fn embedded() -> Entity {
    Entity::new(EntityKind::Client, "embedded")
}

async fn why(broker: &Broker, target: &Entity) -> WhyReport {
    broker.why(target).await.expect("it is known")
}

/// Asks why until the answer is as it should be.
async fn until_why(broker: &Broker, target: &Entity, holds: impl Fn(&WhyReport) -> bool) {
    for _ in 0..6_000 {
        if holds(&why(broker, target).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {:?}", why(broker, target).await);
}

fn ask(history_ms: u32) -> PressureQuery {
    PressureQuery { limited_max: 100, history_ms, metrics: true }
}

fn metric<'a>(metrics: &'a [MetricValue], name: &str, label: &str) -> Option<&'a MetricValue> {
    metrics.iter().find(|metric| {
        metric.name == name && (label.is_empty() || metric.labels.iter().any(|(_, of)| of == label))
    })
}

#[test]
fn a_client_over_its_quota_is_led_to_the_quota() {
    run(async {
        let broker = World::new().open().await;
        let before = why(&broker, &embedded()).await;
        assert!(before.advice.starts_with("Nothing limited"), "{}", before.advice);
        let _topic = spend_a_quota(&broker).await;
        let quota = Entity::new(EntityKind::Quota, "client/embedded");
        until_why(&broker, &embedded(), |report| report.root == quota).await;
        let report = why(&broker, &embedded()).await;
        assert!(report.advice.contains("stoplog quota set client/embedded"), "{}", report.advice);
        assert!(report.until_ms.is_some_and(|ms| ms > 1_000_000), "{report:?}");
        let report = broker.pressure_of(ask(60_000));
        assert!(report.limited.iter().any(|limited| limited.entity == embedded()));
        for limited in &report.limited {
            let sum: u32 = limited.shares.iter().map(|share| u32::from(share.per_mille)).sum();
            assert!((1..=1_000).contains(&sum), "{limited:?}");
        }
        let waits = metric(&report.metrics, "stoplog_retry_after_ms_count", "").expect("waits");
        assert!(waits.value >= 1);
        until("a second of it", || {
            let metrics = broker.pressure_of(ask(0)).metrics;
            metric(&metrics, "stoplog_limited_seconds_total", "client embedded")
                .is_some_and(|seconds| seconds.value >= 1)
        })
        .await;
    });
}

#[test]
fn a_full_topic_is_its_own_root() {
    run(async {
        let broker = World::new().open().await;
        let limits = [("max_bytes", "2MiB"), ("segment_bytes", "1MiB")];
        let topic = topic(&broker, "orders", &limits).await;
        while produce(&broker, &topic, 0, large_batch(400_000)).await.is_ok() {}
        let orders = Entity::new(EntityKind::Topic, "orders");
        until_why(&broker, &orders, |report| report.steps[0].by == "topic_full").await;
        let report = why(&broker, &orders).await;
        assert_eq!((report.steps.len(), &report.root), (1, &orders));
        assert!(report.advice.contains("on_full=drop_oldest"), "{}", report.advice);
        until_why(&broker, &embedded(), |report| report.root == orders).await;
    });
}

#[test]
fn a_restart_keeps_nothing_stale() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let _topic = spend_a_quota(&broker).await;
        until("somebody is limited", || !broker.pressure().limited.is_empty()).await;
        broker.shutdown(ShutdownMode::Graceful).await;
        drop(broker);
        let broker = world.open().await;
        let report = broker.pressure_of(ask(600_000));
        assert_eq!((report.limited, report.events), (Vec::new(), Vec::new()));
        assert!(why(&broker, &embedded()).await.advice.starts_with("Nothing limited"));
    });
}

#[test]
fn events_are_edges_and_become_records_of_a_topic_that_only_the_broker_changes() {
    run(async {
        let broker = World::new().open().await;
        let name = || "__pressure".parse().unwrap();
        let orders = spend_a_quota(&broker).await;
        until("the topic is made", || broker.topic(&name()).is_some()).await;
        let told = broker.topic(&name()).unwrap();
        let edge = "client embedded is limited by quota:client/embedded";
        let mut values = Vec::new();
        while !values.iter().any(|value: &String| value.contains(edge)) {
            // A refusal now and then: it stays limited, which is no event.
            produce(&broker, &orders, 0, large_batch(10)).await.expect_err("it owes");
            values = read_all(&told, 0).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..20 {
            produce(&broker, &orders, 0, large_batch(10)).await.expect_err("it owes");
        }
        let values = read_all(&told, 0).await;
        let edges = values.iter().filter(|value| value.contains("\"name\":\"embedded\"")).count();
        assert_eq!(edges, 1, "{values:?}");

        let refused = broker.create_topic(NewTopic::new("__mine".parse().unwrap(), 1)).await;
        assert!(matches!(refused, Err(CreateTopicError::Reserved(_))), "{refused:?}");
        let refused = produce(&broker, &told, 0, large_batch(10)).await;
        assert!(matches!(refused, Err(ProduceError::Reserved(_))), "{refused:?}");
        let refused = broker.delete_topic(&name()).await;
        assert!(matches!(refused, Err(DeleteTopicError::Reserved(_))), "{refused:?}");
        let refused = broker.add_partitions(&name(), 2).await;
        assert!(matches!(refused, Err(AlterTopicError::Reserved(_))), "{refused:?}");
    });
}

fn reader() -> Entity {
    Entity::new(EntityKind::Client, "reader")
}

/// Reads all of a topic as the client `reader`, however long it takes.
fn fetch(
    broker: &Broker,
    flow: &ConnectionFlow,
    topic: &Topic,
) -> impl Future<Output = FetchResponse> + Send + 'static {
    let (topic, partition) = (topic.id(), PartitionId(0));
    let at = FetchPartition { topic, partition, from: Offset::ZERO, max_bytes: 4 << 20 };
    let request = FetchRequest {
        partitions: vec![at],
        max_bytes: 4 << 20,
        min_bytes: 1,
        max_wait: Duration::from_secs(3_600),
        mode: ReadMode::Owned,
        connection: Some(flow.clone()),
        group: None,
    };
    let broker = broker.clone();
    async move { broker.fetch(request).await }
}

fn connect(broker: &Broker) -> ConnectionFlow {
    broker.connect(Identity::anonymous("reader", [127, 0, 0, 1].into()))
}

/// What limits the reader now.
fn limited_by(broker: &Broker) -> String {
    let limited = broker.pressure().limited;
    let it = limited.into_iter().find(|limited| limited.entity == reader());
    it.map_or("none".to_owned(), |limited| limited.by)
}

#[test]
fn a_fetch_that_waits_for_the_pool_limits_its_client_until_it_ends() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders", &[]).await;
        produce(&broker, &topic, 0, large_batch(1_000)).await.unwrap();
        let flow = connect(&broker);
        // It has something on the way already, and others have the rest.
        let unread = fetch(&broker, &flow, &topic).await;
        let pool = &broker.flow().reads.pool;
        let others = (pool.overdraw(pool.limit()), pool.take_kept(pool.limit()));
        let waiting = tokio::spawn(fetch(&broker, &flow, &topic));
        until("it is told", || limited_by(&broker) == "fetch_pool").await;
        let report = why(&broker, &reader()).await;
        assert_eq!(report.root, Entity::new(EntityKind::Broker, ""), "{report:?}");
        drop((others, unread));
        assert_eq!(waiting.await.unwrap().limited_by, None);
        until("its end is told", || limited_by(&broker) == "none").await;
    });
}

#[test]
fn a_fetch_that_waits_for_a_quota_limits_its_client_until_it_is_given_up() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders", &[]).await;
        produce(&broker, &topic, 0, large_batch(BURST)).await.unwrap();
        let one = vec![("fetch_bytes".to_owned(), "1".to_owned())];
        broker.set_quota("client/reader".parse().unwrap(), one, false).await.unwrap();
        let flow = connect(&broker);
        drop(fetch(&broker, &flow, &topic).await);
        let waiting = tokio::spawn(fetch(&broker, &flow, &topic));
        until("it is told", || limited_by(&broker) == "quota:client/reader").await;
        let report = why(&broker, &reader()).await;
        assert_eq!(report.root, Entity::new(EntityKind::Quota, "client/reader"), "{report:?}");
        waiting.abort();
        until("its end is told", || limited_by(&broker) == "none").await;
    });
}

#[test]
fn a_read_that_waits_for_its_turn_at_the_disk_is_limited_by_cold_reads() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let topic = topic(&broker, "orders", &[("segment_bytes", "64KiB")]).await;
        for _ in 0..20 {
            produce(&broker, &topic, 0, large_batch(9_000)).await.unwrap();
        }
        broker.shutdown(ShutdownMode::Graceful).await;
        world.disk.set_resident(false);
        let broker = world.open().await;
        let topic = broker.topic(topic.name()).unwrap();
        let (reads, now) = (&broker.flow().reads, broker.monotonic());
        reads.tick(now, Load::Slow);
        assert!(reads.cold.reserve(1 << 40, now) < Duration::from_secs(1), "hours of debt");
        let waiting = tokio::spawn(fetch(&broker, &connect(&broker), &topic));
        until("it is told", || limited_by(&broker) == "cold_reads").await;
        let report = why(&broker, &reader()).await;
        assert_eq!(report.root, Entity::new(EntityKind::DataDir, ""), "{report:?}");
        assert!(report.until_ms.is_some(), "{report:?}");
        waiting.abort();
        until("its end is told", || limited_by(&broker) == "none").await;
    });
}
