//! `flow.enforcement`: what is left in force when quotas and windows are only counted, or not asked.

use std::sync::Arc;
use std::time::Duration;

use stoplog::broker::flow::Enforcement;
use stoplog::broker::{
    Broker, FetchPartition, FetchRequest, NewTopic, ProduceError, ReadMode, Topic,
};
use stoplog::types::{Offset, PartitionId, PressureQuery, PushbackCode};

use crate::groups::join;
use crate::world::{World, config, large_batch, produce, run, until};

async fn open(enforcement: Enforcement) -> Broker {
    let mut world = World::new();
    world.options.flow.enforcement = enforcement;
    world.open().await
}

async fn topic(broker: &Broker, name: &str, settings: &[(&str, &str)]) -> Arc<Topic> {
    let mut new = NewTopic::new(name.parse().unwrap(), 1);
    new.config = config(&[&[("durability", "os")], settings].concat());
    broker.create_topic(new).await.unwrap()
}

async fn quota(broker: &Broker, who: &str, key: &str) {
    let one = vec![(key.to_owned(), "1".to_owned())];
    broker.set_quota(who.parse().unwrap(), one, false).await.unwrap();
}

/// Writes until it is refused, and says by what.
async fn refusal(broker: &Broker, topic: &Topic, value_bytes: usize) -> (PushbackCode, String) {
    for _ in 0..1_000 {
        match produce(broker, topic, 0, large_batch(value_bytes)).await {
            Ok(_) => {}
            Err(ProduceError::Pushback(told)) => return (told.code, told.limit_id),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("nothing was refused");
}

/// Reads the topic twice: a quota of one byte a second would keep the second from it for long.
async fn read_twice(broker: &Broker, topic: &Topic) {
    let at = FetchPartition {
        topic: topic.id(),
        partition: PartitionId(0),
        from: Offset::ZERO,
        max_bytes: 4 << 20,
    };
    for _ in 0..2 {
        let request = FetchRequest {
            partitions: vec![at],
            max_bytes: 4 << 20,
            min_bytes: 1,
            max_wait: Duration::from_secs(60),
            mode: ReadMode::Owned,
            group: None,
            connection: None,
        };
        let answer = broker.fetch(request).await;
        assert_eq!(answer.limited_by, None);
        let fetched = answer.partitions.into_iter().next().unwrap().result.unwrap();
        assert_eq!(fetched.next_offset, Offset(3));
    }
}

/// What a topic's owner asked for holds, whatever is enforced.
async fn holds_topics(broker: &Broker) {
    let orders = topic(broker, "orders", &[("backlog", "email:records=10")]).await;
    join(broker, 1).await;
    until("the group's lag counts", || orders.backlog_room_bytes().is_some()).await;
    let held = refusal(broker, &orders, 1).await;
    assert_eq!(held, (PushbackCode::BacklogLimit, "backlog:email".to_owned()));
    let small = [("max_bytes", "2MiB"), ("segment_bytes", "1MiB")];
    let small = topic(broker, "small", &small).await;
    assert_eq!(refusal(broker, &small, 200_000).await.0, PushbackCode::TopicFull);
}

async fn spends_quotas(broker: &Broker) {
    for key in ["produce_bytes", "produce_records", "fetch_bytes"] {
        quota(broker, "client/embedded", key).await;
    }
    let free = topic(broker, "free", &[("max_message_bytes", "2MiB")]).await;
    for _ in 0..3 {
        produce(broker, &free, 0, large_batch(1_200_000)).await.expect("no quota refuses");
    }
    read_twice(broker, &free).await;
}

#[test]
fn off_asks_no_quota_and_leaves_what_was_set_for_a_topic() {
    run(async {
        let broker = open(Enforcement::Off).await;
        spends_quotas(&broker).await;
        holds_topics(&broker).await;
        let report = broker.pressure();
        assert_eq!(report.enforcement, "off");
        assert!(report.would_refuse.iter().all(|limit| limit.refusals == 0), "{report:?}");
    });
}

#[test]
fn a_dry_run_counts_what_quotas_would_refuse_and_leaves_what_was_set_for_a_topic() {
    run(async {
        let broker = open(Enforcement::DryRun).await;
        spends_quotas(&broker).await;
        holds_topics(&broker).await;
        let report = broker.pressure_of(PressureQuery { metrics: true, ..Default::default() });
        assert_eq!(report.enforcement, "dry_run");
        let would = report.would_refuse.iter().find(|would| would.limit == "quota").unwrap();
        assert!(would.refusals >= 3, "{report:?}");
        let of_quotas = ("limit".to_owned(), "quota".to_owned());
        let metric = |name: &str| report.metrics.iter().find(|metric| metric.name == name);
        let shown = report.metrics.iter().find(|metric| metric.labels.contains(&of_quotas));
        assert_eq!(shown.unwrap().name, "stoplog_would_refuse_total");
        assert!(metric("stoplog_quota_would_throttle_total").is_some_and(|it| it.value >= 3));
    });
}
