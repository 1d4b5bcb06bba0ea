//! Every request of topics and records is answered as `docs/protocol.md` says.

use stoplog::protocol::native::list_offsets::{self, OffsetSpec};
use stoplog::protocol::native::metadata::{self, TopicSelector};
use stoplog::protocol::native::topic_delete::{self, TopicRef};
use stoplog::protocol::native::{
    cluster_info, fetch, hello, partitions_add, ping, pressure, produce, producer_init,
    topic_alter, topic_create, topic_describe, topic_list, trim,
};
use stoplog::types::{
    Acks, Durability, DurabilityLevel, ErrorCode, Offset, PartitionId, PressureQuery, Timestamp,
    TopicId, TopicName,
};

use super::peer::{Peer, Site, base_offsets, batch, greeting, unstamped};

fn name(text: &str) -> TopicName {
    text.parse().expect("a name")
}

pub fn fetch_from(topic: TopicId, partition: u32, from: i64, max_wait_ms: u32) -> fetch::Request {
    let partition = PartitionId(partition);
    let wanted = fetch::Partition { topic, partition, from: Offset(from), max_bytes: 1 << 20 };
    let partitions = vec![wanted];
    fetch::Request { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, partitions, group: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_agrees_on_a_version_and_tells_the_limits() {
    let site = Site::start().await;
    let mut peer = Peer::connect(site.address()).await;
    let welcome = peer.call(&hello::Request { version_max: 9, ..greeting() }).await;
    let welcome = welcome.expect("welcome");
    assert_eq!((welcome.version, welcome.frame_bytes_max), (1, 16 << 20));
    assert_eq!(welcome.cluster_id, site.broker.cluster_info().cluster_id);
    let again = peer.call(&greeting()).await.expect_err("HELLO comes once");
    assert_eq!(again.code, ErrorCode::InvalidRequest);
    peer.call(&ping::Request {}).await.expect("and the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_changed_described_and_deleted() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    let settings = vec![("durability".to_owned(), "os".to_owned())];
    let create =
        topic_create::Request { name: name("orders"), partitions: 2, settings, dry_run: true };
    let dry = peer.call(&create).await.expect("it would work");
    assert_eq!(dry.id, TopicId::from_bytes([0; 16]));
    let create = topic_create::Request { dry_run: false, ..create };
    let made = peer.call(&create).await.expect("created");
    assert_eq!(made.config.durability, Durability::Os);
    let twice = peer.call(&create).await.expect_err("the name is taken");
    assert_eq!(twice.code, ErrorCode::TopicExists);

    let topic = TopicRef::Name { name: name("orders") };
    let settings = vec![("retention_ms".to_owned(), "1d".to_owned())];
    let alter = topic_alter::Request { topic: topic.clone(), settings, dry_run: false };
    let altered = peer.call(&alter).await.expect("altered");
    assert_eq!(altered.config.retention_ms, Some(86_400_000));
    let bad = vec![("retention".to_owned(), "1d".to_owned())];
    let refused = peer.call(&topic_alter::Request { settings: bad, ..alter }).await;
    assert_eq!(refused.expect_err("no such setting").code, ErrorCode::InvalidConfig);

    let by_id = TopicRef::Id { id: made.id };
    let more = partitions_add::Request { topic: by_id, partitions: 5, dry_run: false };
    assert_eq!(peer.call(&more).await.expect("grown").partitions, 5);
    let fewer = partitions_add::Request { partitions: 1, ..more };
    let refused = peer.call(&fewer).await.expect_err("partitions are never taken away");
    assert_eq!(refused.code, ErrorCode::InvalidRequest);

    let listed = peer.call(&topic_list::Request {}).await.expect("listed").topics;
    assert_eq!((listed.len(), listed[0].id, listed[0].partitions), (1, made.id, 5));
    let names = vec![name("orders"), name("missing")];
    let topics = TopicSelector::Names { names };
    let told = peer.call(&metadata::Request { topics: topics.clone() }).await.expect("told");
    assert_eq!(told.nodes[0].address, site.address().to_string());
    assert_eq!(told.topics[0].topic.as_ref().map(|topic| topic.partitions.len()), Ok(5));
    let missing = told.topics[1].topic.as_ref().expect_err("it does not exist");
    assert_eq!(missing.code, ErrorCode::TopicNotFound);
    let told = peer.call(&topic_describe::Request { topics }).await.expect("told").topics;
    assert_eq!(told[0].as_ref().map(|topic| topic.partitions.len()), Ok(5));
    assert!(told[1].is_err());

    let delete = topic_delete::Request { topic, dry_run: true };
    assert_eq!(peer.call(&delete).await.expect("it would work").id, made.id);
    let delete = topic_delete::Request { dry_run: false, ..delete };
    assert_eq!(peer.call(&delete).await.expect("deleted").id, made.id);
    let gone = peer.call(&delete).await.expect_err("it is gone");
    assert_eq!(gone.code, ErrorCode::TopicNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_is_fetched_byte_for_byte() {
    let site = Site::start().await;
    let topic = site.topic("orders", 2).await;
    let mut peer = site.peer().await;
    let (first, second) = (batch(&[b"one", b"two"]), batch(&[b"three"]));
    let produced = peer.produced((topic, 1), &first).await.expect("produced");
    assert_eq!((produced.base_offset, produced.duplicate), (Some(Offset(0)), false));
    assert_eq!(produced.level, DurabilityLevel::Os);
    let correlation = peer.produce((topic, 1), Acks::Durable, &second).await;
    let produced = peer.answer_to(correlation).await.answer::<produce::Request>();
    let produced = produced.expect("produced");
    assert_eq!(produced.base_offset, Some(Offset(2)));
    assert_eq!(produced.level, DurabilityLevel::Durable);

    let frame = peer.send(&fetch_from(topic, 1, 0, 0)).await;
    let frame = peer.answer_to(frame).await;
    let answer = frame.answer::<fetch::Request>().expect("read");
    let read = answer.partitions[0].read.as_ref().expect("read");
    assert_eq!((read.start, read.visible_end, read.next_offset), (Offset(0), Offset(3), Offset(3)));
    let data = answer.split(frame.data.clone()).expect("lengths fit").remove(0);
    assert_eq!(unstamped(data.clone()), [first.slice(16..), second.slice(16..)]);
    assert_eq!(base_offsets(data), [Offset(0), Offset(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_tells_each_partitions_own_error() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    peer.produced((topic, 0), &batch(&[b"x"])).await.expect("produced");
    let mut request = fetch_from(topic, 0, 0, 0);
    request.partitions.extend(fetch_from(topic, 7, 0, 0).partitions);
    request.partitions.extend(fetch_from(topic, 0, 99, 0).partitions);
    let unknown = TopicId::from_bytes([9; 16]);
    request.partitions.extend(fetch_from(unknown, 0, 0, 0).partitions);
    let answer = peer.call(&request).await.expect("answered");
    let codes: Vec<_> =
        answer.partitions.iter().map(|p| p.read.as_ref().err().map(|e| e.code)).collect();
    assert_eq!(
        codes,
        [
            None,
            Some(ErrorCode::PartitionNotFound),
            Some(ErrorCode::OffsetOutOfRange),
            Some(ErrorCode::TopicNotFound)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_batches_are_refused_by_code() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let good = batch(&[b"x"]);
    let mut broken = good.to_vec();
    broken[good.len() - 1] ^= 1; // beyond the bytes the frame's CRC binds
    let refused = peer.produced((topic, 0), &broken.into()).await.expect_err("bad CRC");
    assert_eq!(refused.code, ErrorCode::InvalidBatch);
    let refused = peer.produced((topic, 3), &good).await.expect_err("no such partition");
    assert_eq!(refused.code, ErrorCode::PartitionNotFound);
    let large = batch(&[&vec![7; 2 << 20]]);
    let refused = peer.produced((topic, 0), &large).await.expect_err("too large");
    assert_eq!(refused.code, ErrorCode::BatchTooLarge);
    peer.produced((topic, 0), &good).await.expect("and the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_none_is_never_answered() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let silent = peer.produce((topic, 0), Acks::None, &batch(&[b"quiet"])).await;
    let produced = peer.produced((topic, 0), &batch(&[b"loud"])).await.expect("produced");
    assert_eq!(produced.base_offset, Some(Offset(1)), "the silent one came first");
    let pong = peer.send(&ping::Request {}).await;
    let frame = peer.next().await.expect("the pong");
    assert_eq!(frame.correlation, pong, "nothing answers {silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_listed_and_trimmed() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    for value in [b"a", b"b", b"c"] {
        peer.produced((topic, 0), &batch(&[value])).await.expect("produced");
    }
    let partition = PartitionId(0);
    let query = |at| list_offsets::Query { topic, partition, at };
    let at = |time| OffsetSpec::AtTime { time: Timestamp(time) };
    let partitions = vec![
        query(OffsetSpec::Earliest),
        query(OffsetSpec::Latest),
        query(at(0)),
        query(at(i64::MAX)),
    ];
    let request = list_offsets::Request { partitions };
    let found = peer.call(&request).await.expect("found").offsets;
    let offsets: Vec<_> = found.iter().map(|f| f.as_ref().expect("found").offset).collect();
    assert_eq!(offsets, [Some(Offset(0)), Some(Offset(3)), Some(Offset(0)), None]);

    let trim = trim::Request { topic, partition, before: Offset(2), dry_run: true };
    assert_eq!(peer.call(&trim).await.expect("it would").start, Offset(2));
    let trim = trim::Request { dry_run: false, ..trim };
    assert_eq!(peer.call(&trim).await.expect("trimmed").start, Offset(2));
    let found = peer.call(&request).await.expect("found").offsets;
    assert_eq!(found[0].as_ref().expect("found").offset, Some(Offset(2)));
    let beyond = trim::Request { before: Offset(9), ..trim };
    let refused = peer.call(&beyond).await.expect_err("beyond the end");
    assert_eq!(refused.code, ErrorCode::OffsetOutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_get_ids_and_epochs() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    let first = peer.call(&producer_init::Request { previous: None }).await.expect("an id");
    let previous = Some(first.producer.clone());
    let next = peer.call(&producer_init::Request { previous }).await.expect("an epoch");
    assert_eq!(next.producer.id, first.producer.id);
    assert!(next.producer.epoch > first.producer.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_tells_about_itself() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    let info = peer.call(&cluster_info::Request {}).await.expect("told").info;
    assert_eq!(info.cluster_id, site.broker.cluster_info().cluster_id);
    let ask = pressure::Request::from(PressureQuery::default());
    let report = peer.call(&ask).await.expect("told").report;
    assert!(!report.limits.is_empty());
}
