//! Quotas: set, refused by, edited live, kept over a restart, removed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use stoplog::broker::flow::{ConnectionFlow, Identity, NoWake};
use stoplog::broker::{
    Broker, FetchPartition, FetchRequest, NewTopic, ProduceError, QuotaChangeError, ReadMode,
    ShutdownMode, Topic,
};
use stoplog::env::sim::Fault;
use stoplog::types::{
    Class, Effects, Offset, PartitionId, Pushback, PushbackCode, PushbackScope, QuotaEntity,
    Severity,
};

use crate::world::{World, large_batch, produce, request, run, until};

/// More than the smallest burst: a rate of 1 byte/s owes for days after it.
const BURST: usize = 1_200_000;

async fn topic(broker: &Broker, name: &str) -> Arc<Topic> {
    let mut new = NewTopic::new(name.parse().unwrap(), 1);
    new.config = crate::world::config(&[("durability", "os"), ("max_message_bytes", "2MiB")]);
    broker.create_topic(new).await.unwrap()
}

fn entity(text: &str) -> QuotaEntity {
    text.parse().unwrap()
}

async fn set(broker: &Broker, who: &str, key: &str, value: &str) {
    let changes = vec![(key.to_owned(), value.to_owned())];
    broker.set_quota(entity(who), changes, false).await.unwrap();
}

fn connect(broker: &Broker, client: &str) -> ConnectionFlow {
    broker.connect(Identity::anonymous(client, [127, 0, 0, 1].into()))
}

async fn send(
    broker: &Broker,
    flow: &ConnectionFlow,
    topic: &Topic,
    bytes: usize,
) -> Result<(), Pushback> {
    let mut request = request(topic, 0, large_batch(bytes));
    request.connection = Some(flow.clone());
    match broker.produce_and_wait(request).await {
        Ok(_) => Ok(()),
        Err(ProduceError::Pushback(pushback)) => Err(pushback),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_spent_rate_is_refused_by_name_and_without_effects() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders").await;
        set(&broker, "client/shop", "produce_bytes", "1").await;
        let (shop, other) = (connect(&broker, "shop"), connect(&broker, "other"));
        send(&broker, &shop, &topic, BURST).await.expect("the burst, and a debt");
        let refused = send(&broker, &shop, &topic, 10).await.expect_err("it owes");
        assert_eq!(refused.code, PushbackCode::ThrottledRate);
        assert_eq!((refused.scope, refused.severity), (PushbackScope::Principal, Severity::Hold));
        assert_eq!((refused.effects, &*refused.limit_id), (Effects::None, "quota:client/shop"));
        assert!(refused.retry_after_ms > 100_000_000, "{refused:?}");
        send(&broker, &other, &topic, 10).await.expect("nobody else is limited");
        let used = broker.quotas(Some(&entity("client/shop"))).remove(0).used;
        assert_eq!((used[0].refused, used[0].limit), (1, 1));
        assert_eq!(topic.partition(PartitionId(0)).unwrap().span().1, Offset(2));
    });
}

#[test]
fn what_a_quota_lets_through_only_after_the_deadline_is_refused_as_too_late() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders").await;
        set(&broker, "client/shop", "produce_bytes", "1").await;
        let shop = connect(&broker, "shop");
        send(&broker, &shop, &topic, BURST).await.expect("the burst, and a debt");
        let refused = |seconds| {
            let mut late = request(&topic, 0, large_batch(10));
            (late.connection, late.deadline) =
                (Some(shop.clone()), Some(Duration::from_secs(seconds)));
            async {
                match broker.produce_and_wait(late).await {
                    Err(ProduceError::Pushback(told)) => told,
                    other => panic!("{other:?}"),
                }
            }
        };
        let told = refused(60).await;
        assert_eq!(
            (told.code, told.severity),
            (PushbackCode::DeadlineUnmeetable, Severity::Reject)
        );
        assert_eq!((&*told.limit_id, told.effects), ("quota:client/shop", Effects::None));
        assert_eq!((told.limit, &*told.unit), (60_000, "ms"));
        assert!(told.observed > 100_000_000 && told.observed == u64::from(told.retry_after_ms));
        let told = refused(10_000_000).await;
        assert_eq!((told.code, told.severity), (PushbackCode::ThrottledRate, Severity::Hold));
    });
}

#[test]
fn an_edit_counts_at_once_on_connections_that_are_open() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders").await;
        let shop = connect(&broker, "shop");
        send(&broker, &shop, &topic, BURST).await.expect("no quota");
        set(&broker, "topic/orders", "produce_bytes", "1").await;
        send(&broker, &shop, &topic, BURST).await.expect("the burst");
        assert!(send(&broker, &shop, &topic, 10).await.is_err());
        set(&broker, "topic/orders", "mode", "dry_run").await;
        send(&broker, &shop, &topic, 10).await.expect("a dry run only counts");
        let used = broker.quotas(None).remove(0).used;
        assert!(used[0].would_throttle > 0, "{used:?}");
        set(&broker, "topic/orders", "mode", "enforce").await;
        assert!(send(&broker, &shop, &topic, 10).await.is_err());
        broker.delete_quota(entity("topic/orders"), false).await.unwrap();
        send(&broker, &shop, &topic, BURST).await.expect("no quota any more");
        let gone = broker.delete_quota(entity("topic/orders"), false).await;
        assert_eq!(
            gone,
            Err(QuotaChangeError::NotFound { entity: entity("topic/orders"), by: None })
        );
    });
}

#[test]
fn quotas_outlive_a_restart_and_a_dry_run_changes_nothing() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        set(&broker, "client/<default>", "produce_bytes", "10MiB").await;
        set(&broker, "client/<default>", "weight", "300").await;
        let changes = vec![("connections".to_owned(), "5".to_owned())];
        let tried = broker.set_quota(entity("ip/10.0.0.1"), changes, true).await.unwrap();
        assert_eq!(tried.entries()["connections"], "5");
        let before = broker.quotas(None);
        assert_eq!(before.len(), 1);
        broker.shutdown(ShutdownMode::Graceful).await;
        drop(broker);
        let broker = world.open().await;
        assert_eq!(broker.quotas(None), before);
        let wrong = vec![("storage_bytes".to_owned(), "1GiB".to_owned())];
        let refused = broker.set_quota(entity("client/a"), wrong, false).await;
        assert!(matches!(refused, Err(QuotaChangeError::Quota(_))), "{refused:?}");
    });
}

#[test]
fn a_topic_that_stores_all_it_may_is_full_until_something_goes() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders").await;
        set(&broker, "topic/o*", "storage_bytes", "3000000").await;
        let flow = connect(&broker, "shop");
        let mut written = 0;
        let refused = loop {
            match send(&broker, &flow, &topic, 200_000).await {
                Ok(()) => written += 1,
                Err(refused) => break refused,
            }
            assert!(written < 16, "more than the quota");
        };
        assert_eq!((refused.code, refused.severity), (PushbackCode::TopicFull, Severity::Reject));
        set(&broker, "topic/o*", "storage_bytes", "none").await;
        send(&broker, &flow, &topic, 200_000).await.expect("no limit any more");
    });
}

#[test]
fn a_fetch_waits_for_its_quota_and_says_so() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders").await;
        for _ in 0..3 {
            produce(&broker, &topic, 0, large_batch(BURST)).await.unwrap();
        }
        set(&broker, "client/slow", "fetch_bytes", "1").await;
        let fetch = |from: i64, flow: &ConnectionFlow| FetchRequest {
            partitions: vec![FetchPartition {
                topic: topic.id(),
                partition: PartitionId(0),
                from: Offset(from),
                max_bytes: 2 << 20,
            }],
            max_bytes: 2 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(1),
            mode: ReadMode::Owned,
            connection: Some(flow.clone()),
            group: None,
        };
        let (slow, fast) = (connect(&broker, "slow"), connect(&broker, "fast"));
        let first = broker.fetch(fetch(0, &slow)).await;
        assert_eq!(first.partitions[0].result.as_ref().unwrap().next_offset, Offset(1));
        let second = broker.fetch(fetch(1, &slow)).await;
        assert!(second.partitions[0].result.as_ref().unwrap().data.is_empty());
        assert_eq!(second.limited_by.map(|cause| cause.name()), Some("quota"));
        let other = broker.fetch(fetch(1, &fast)).await;
        assert_eq!(other.partitions[0].result.as_ref().unwrap().next_offset, Offset(2));
        // Whoever waits is let through by an edit, without asking again.
        let waiting = FetchRequest { max_wait: Duration::from_secs(100), ..fetch(1, &slow) };
        let asking = tokio::spawn({
            let broker = broker.clone();
            async move { broker.fetch(waiting).await }
        });
        broker.delete_quota(entity("client/slow"), false).await.unwrap();
        until("the fetch is answered", || asking.is_finished()).await;
        let answer = asking.await.unwrap();
        assert_eq!(answer.partitions[0].result.as_ref().unwrap().next_offset, Offset(2));
    });
}

#[test]
fn a_batch_of_which_nobody_knows_whether_it_was_written_stays_charged() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let mut new = NewTopic::new("orders".parse().unwrap(), 2);
        new.config = crate::world::config(&[("max_message_bytes", "2MiB")]);
        let topic = broker.create_topic(new).await.unwrap();
        set(&broker, "client/shop", "produce_bytes", "1").await;
        let shop = connect(&broker, "shop");
        send(&broker, &shop, &topic, 10).await.expect("the files are there now");
        let mut large = request(&topic, 0, large_batch(BURST));
        large.connection = Some(shop.clone());
        world.disk.fail_nth(0, Fault::Eio);
        let outcome = broker.produce_and_wait(large).await;
        assert!(matches!(outcome, Err(ProduceError::ReadOnly { .. })), "{outcome:?}");
        let mut next = request(&topic, 1, large_batch(10));
        next.connection = Some(shop.clone());
        let refused = broker.produce_and_wait(next).await.expect_err("it owes");
        assert!(matches!(refused, ProduceError::Pushback(_)), "{refused}");
    });
}

#[test]
fn a_class_that_quotas_do_not_allow_is_served_as_the_one_they_do() {
    run(async {
        let broker = World::new().open().await;
        let topic = topic(&broker, "orders").await;
        let shop = connect(&broker, "shop");
        let nobody: Weak<NoWake> = Weak::new();
        let class = |asked| {
            let publisher = broker.open_publisher(&topic, Some(&shop), asked, nobody.clone());
            publisher.seat().class()
        };
        assert_eq!(class(Class::Critical), Class::Critical);
        set(&broker, "client/shop", "class_max", "p2").await;
        assert_eq!((class(Class::Critical), class(Class::Bulk)), (Class::Normal, Class::Bulk));
    });
}
