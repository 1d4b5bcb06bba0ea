//! Subscriptions that wait, as PRESSURE and WHY tell of them.

use std::time::Duration;

use stoplog::protocol::native::{
    FrameType, credit, grant, pressure, publisher_open, subscribe, want, why,
};
use stoplog::server::ServerOptions;
use stoplog::types::{
    Cause, Class, EntityKind, ErrorCode, Offset, PartitionId, PressureEvent, PressureQuery, TopicId,
};

use super::groups::settle;
use super::peer::{Peer, Site, batch, greeting};

fn subscribe_to(topic: TopicId, partition: u32) -> subscribe::Request {
    subscribe::Request {
        subscription: partition + 1,
        topic,
        partition: PartitionId(partition),
        from: Offset(0),
        bytes_to: 0,
        records_to: 0,
        group: Some("email".parse().expect("a name")),
    }
}

async fn events(peer: &mut Peer) -> Vec<PressureEvent> {
    let query = PressureQuery { history_ms: 600_000, ..PressureQuery::default() };
    let report = peer.call(&pressure::Request::from(query)).await.expect("told").report;
    let subscription = |event: &PressureEvent| event.entity.kind == EntityKind::Subscription;
    report.events.into_iter().filter(subscription).collect()
}

/// Asks until there are so many events of subscriptions.
async fn until(peer: &mut Peer, count: usize) -> Vec<PressureEvent> {
    for _ in 0..3_000 {
        let events = events(peer).await;
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {count} events: {:?}", events(peer).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_gives_no_credit_is_told_of_once_and_is_the_root() {
    let stalled = |broker: &mut stoplog::broker::BrokerOptions| {
        broker.pressure.stalled_after_ms = 500;
    };
    let site = Site::of(ServerOptions::default(), stalled).await;
    let topic = site.topic("orders", 2).await;
    let (mut reader, mut other) = (site.peer().await, site.peer().await);
    // The second has nothing to read: it waits for records, and nobody is to blame.
    reader.call(&subscribe_to(topic, 0)).await.expect("open");
    reader.call(&subscribe_to(topic, 1)).await.expect("open");
    other.produced((topic, 0), &batch(&[&[7; 1_000]])).await.expect("produced");
    let told = until(&mut other, 1).await;
    assert_eq!((told.len(), told[0].to.as_str()), (1, "credit_consumer"), "{told:?}");
    assert!(told[0].entity.name.ends_with("/orders/0"), "{told:?}");

    let ask = why::Request { kind: EntityKind::Group, name: "email".to_owned() };
    let report = other.call(&ask).await.expect("told").report;
    assert_eq!(report.root.kind, EntityKind::Client, "{report:?}");
    assert_eq!(report.root.name, greeting().client_id);
    assert!(report.advice.contains("add consumers"), "{}", report.advice);

    let all = credit::Request { subscription: 1, epoch: 0, bytes_to: 1 << 30, records_to: 1 << 30 };
    reader.notify(&all).await;
    let told = until(&mut other, 2).await;
    assert_eq!((told.len(), told[1].to.as_str()), (2, "none"), "{told:?}");
    let ask = why::Request { kind: EntityKind::Group, name: "nobody".to_owned() };
    let unknown = other.call(&ask).await.expect_err("nobody knows it");
    assert_eq!(unknown.code, ErrorCode::GroupNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_a_group_withholds_names_the_group() {
    let site = Site::start().await;
    let limit = [("backlog", "email:records=5"), ("durability", "os")];
    let topic = site.topic_with("orders", 1, &limit).await;
    let (mut reader, mut writer) = (site.peer().await, site.peer().await);
    settle(&mut reader, 1).await;
    let open = publisher_open::Request { topic, class: Class::Normal };
    let publisher = writer.call(&open).await.expect("open").grant.publisher;
    // As soon as the group's lag counts.
    let told = loop {
        writer.notify(&want::Request { publisher, bytes: 1 << 20 }).await;
        let (grant, _) = writer.notice::<grant::Request>().await;
        if grant.cause == Cause::Backlog {
            break grant;
        }
        while writer.kept(FrameType::Grant) > 0 {
            writer.notice::<grant::Request>().await;
        }
    };
    assert_eq!(told.name, "email");
}
