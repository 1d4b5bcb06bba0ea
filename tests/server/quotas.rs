//! Quotas on the wire.

use stoplog::protocol::native::metadata::{self, TopicSelector};
use stoplog::protocol::native::{
    FrameType, goodbye, pushback, quota_delete, quota_list, quota_set, seek, subscribe,
    topic_create, topic_list, unsubscribe,
};
use stoplog::server::ServerOptions;
use stoplog::types::{
    Acks, Effects, ErrorCode, Offset, PartitionId, Pushback, PushbackCode, QuotaDescription,
    Resource, TopicId,
};

use super::peer::{Peer, Site, batch, greeting};

fn set(entity: &str, key: &str, value: &str) -> quota_set::Request {
    let settings = vec![(key.to_owned(), value.to_owned())];
    quota_set::Request { entity: entity.to_owned(), settings, dry_run: false }
}

fn delete(entity: &str) -> quota_delete::Request {
    quota_delete::Request { entity: entity.to_owned(), dry_run: false }
}

async fn described(peer: &mut Peer, entity: &str) -> QuotaDescription {
    let request = quota_list::Request { entity: Some(entity.to_owned()) };
    let listed = peer.call(&request).await.expect("listed");
    assert_eq!(listed.quotas.len(), 1);
    QuotaDescription::try_from(&listed.quotas[0]).expect("a quota")
}

async fn refusal(peer: &mut Peer, topic: TopicId) -> Pushback {
    let correlation = peer.produce((topic, 0), Acks::Topic, &batch(&[b"x"])).await;
    let frame = peer.answer_to(correlation).await;
    assert_eq!(frame.frame_type, FrameType::Pushback);
    frame.decode::<pushback::Request>().expect("it decodes").pushback
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_set_refuses_by_name_is_listed_and_removed() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let answer = peer.call(&set("client/peer", "produce_bytes", "1/s")).await.expect("set");
    assert_eq!(answer.settings, [("produce_bytes".to_owned(), "1".to_owned())]);
    // More than the smallest burst: at one byte a second it owes for days.
    let large = batch(&[&vec![7; 600_000]]);
    for _ in 0..2 {
        peer.produced((topic, 0), &large).await.expect("the burst");
    }
    let refused = refusal(&mut peer, topic).await;
    assert_eq!((refused.code, refused.effects), (PushbackCode::ThrottledRate, Effects::None));
    assert_eq!(refused.limit_id, "quota:client/peer");
    let used = described(&mut peer, "client/peer").await.used.remove(0);
    assert_eq!((used.resource, used.limit, used.refused), (Resource::ProduceBytes, 1, 1));
    peer.call(&delete("client/peer")).await.expect("removed");
    peer.produced((topic, 0), &large).await.expect("no quota any more");
    let all = peer.call(&quota_list::Request { entity: None }).await.expect("told");
    assert!(all.quotas.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_add_up_and_a_dry_run_changes_nothing() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    peer.call(&set("topic/o*", "produce_bytes", "1MiB")).await.expect("set");
    let both = peer.call(&set("topic/o*", "weight", "300")).await.expect("set").settings;
    let names: Vec<_> = both.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["produce_bytes", "weight"]);
    let dry = quota_set::Request { dry_run: true, ..set("topic/o*", "produce_bytes", "none") };
    assert_eq!(peer.call(&dry).await.expect("it would work").settings.len(), 1);
    let dry = quota_delete::Request { dry_run: true, ..delete("topic/o*") };
    peer.call(&dry).await.expect("it would work");
    assert_eq!(described(&mut peer, "topic/o*").await.limits.entries().len(), 2);
    peer.call(&set("topic/o*", "produce_bytes", "none")).await.expect("set");
    assert_eq!(described(&mut peer, "topic/o*").await.limits.entries().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_quotas_are_refused_by_code() {
    let options = ServerOptions::default();
    let site = Site::of(options, |broker| broker.limits.quotas_max = 1).await;
    let mut peer = site.peer().await;
    for bad in [
        set("shop", "produce_bytes", "1"),
        set("client/shop", "bytes", "1"),
        set("client/shop", "produce_bytes", "fast"),
        set("client/shop", "storage_bytes", "1GiB"),
    ] {
        let refused = peer.call(&bad).await.expect_err("it does not fit");
        assert_eq!(refused.code, ErrorCode::InvalidConfig, "{bad:?}");
    }
    let unknown = peer.call(&delete("client/shop")).await.expect_err("there is none");
    assert_eq!(unknown.code, ErrorCode::QuotaNotFound);
    let unknown = quota_list::Request { entity: Some("client/shop".to_owned()) };
    let unknown = peer.call(&unknown).await.expect_err("there is none");
    assert_eq!(unknown.code, ErrorCode::QuotaNotFound);
    peer.call(&set("client/shop", "requests", "1000")).await.expect("the only one");
    let more = peer.call(&set("client/other", "requests", "1000")).await.expect_err("the second");
    assert_eq!(more.code, ErrorCode::TooManyTopics);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_partitions_are_counted_and_the_way_out_is_free() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    peer.call(&set("client/peer", "partition_mutations", "1/s")).await.expect("set");
    let create = |name: &str, partitions| topic_create::Request {
        name: name.parse().expect("a name"),
        partitions,
        settings: Vec::new(),
        dry_run: false,
    };
    peer.call(&create("large", 1_000)).await.expect("the burst, and a debt");
    let refused = peer.call(&create("small", 1)).await.expect_err("it owes");
    assert_eq!(refused.code, ErrorCode::MetadataRate);
    let told = refused.pushback.expect("by a limit");
    assert_eq!(told.limit_id, "quota:client/peer");
    assert!(told.retry_after_ms > 100_000, "{told}");
    peer.call(&set("client/peer", "requests", "0")).await.expect("set");
    let list = topic_list::Request {};
    let refused = peer.call(&list).await.expect_err("none is allowed");
    assert_eq!(refused.code, ErrorCode::ThrottledRate);
    peer.call(&delete("client/peer")).await.expect("never counted");
    peer.call(&list).await.expect("no quota any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_and_moving_a_subscription_are_requests_and_closing_it_is_none() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let open = |subscription| subscribe::Request {
        subscription,
        topic,
        partition: PartitionId(0),
        from: Offset(0),
        bytes_to: 1,
        records_to: 1,
        group: None,
    };
    peer.call(&open(1)).await.expect("no quota");
    peer.call(&set("client/peer", "requests", "0")).await.expect("set");
    let refused = peer.call(&open(2)).await.expect_err("none is allowed");
    assert_eq!(refused.code, ErrorCode::ThrottledRate);
    let seek =
        seek::Request { subscription: 1, epoch: 1, from: Offset(0), bytes_to: 1, records_to: 1 };
    let refused = peer.call(&seek).await.expect_err("none is allowed");
    assert_eq!(refused.code, ErrorCode::ThrottledRate);
    peer.call(&unsubscribe::Request { subscription: 1 }).await.expect("it takes load away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_as_many_connections_as_its_quota_whenever_they_came() {
    let site = Site::with(ServerOptions { system_connections: 0, ..Default::default() }).await;
    let mut first = site.peer().await;
    first.call(&set("client/peer", "connections", "2")).await.expect("set");
    let second = site.peer().await;
    let mut third = Peer::connect(site.address()).await;
    let refused = third.call(&greeting()).await.expect_err("two are open");
    assert_eq!(refused.code, ErrorCode::ConnLimit);
    assert_eq!(described(&mut first, "client/peer").await.used[0].used, 2);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_of_an_address_are_within_its_quota() {
    let site = Site::with(ServerOptions { system_connections: 0, ..Default::default() }).await;
    let mut first = site.peer().await;
    first.call(&set("ip/127.0.0.1", "connections", "3")).await.expect("set");
    let silent = [Peer::connect(site.address()).await, Peer::connect(site.address()).await];
    let mut refused = Peer::connect(site.address()).await;
    let (told, _) = refused.notice::<goodbye::Request>().await;
    let told = told.error.and_then(|error| error.pushback).expect("by a limit");
    assert_eq!((told.limit_id.as_str(), told.limit), ("quota:ip/127.0.0.1", 3));
    assert!(refused.next().await.is_none(), "it is closed");
    assert_eq!(described(&mut first, "ip/127.0.0.1").await.used[0].used, 3);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_locked_everybody_out_can_come_in_to_take_it_back() {
    let site = Site::start().await;
    let mut first = site.peer().await;
    first.call(&set("client/<default>", "connections", "0")).await.expect("set");
    drop(first);
    let mut other = site.peer().await;
    let refused = other.call(&metadata::Request { topics: TopicSelector::All }).await;
    let refused = refused.expect_err("beyond the limit");
    assert_eq!(refused.code, ErrorCode::ConnLimit);
    let told = refused.pushback.expect("by a limit");
    assert_eq!(told.limit_id, "quota:client/peer");
    assert!(other.next().await.is_none(), "it does not keep the place");
    let mut operator = site.peer().await;
    let used = described(&mut operator, "client/<default>").await.used;
    assert!(used.iter().any(|used| used.refused >= 2), "{used:?}");
    operator.call(&delete("client/<default>")).await.expect("removed");
    let mut again = site.peer().await;
    again.call(&metadata::Request { topics: TopicSelector::All }).await.expect("no quota any more");
}
