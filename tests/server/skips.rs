//! Large frames that are refused by their header: the body is dropped as it arrives, everybody is told
//! exactly what was refused, and the connection goes on.

use stoplog::protocol::native::metadata::{self, TopicSelector};
use stoplog::protocol::native::{
    Frame, FrameType, HEADER_BYTES, ping, produce, pushback, quota_delete, quota_set,
};
use stoplog::server::ServerOptions;
use stoplog::types::{
    Acks, Effects, ErrorCode, Offset, PartitionId, PushbackCode, PushbackScope, Severity, TopicId,
    TopicPartition,
};

use super::peer::{Peer, Site, batch};

async fn limit(peer: &mut Peer, key: &str, value: &str) {
    let settings = vec![(key.to_owned(), value.to_owned())];
    let set = quota_set::Request { entity: "client/peer".to_owned(), settings, dry_run: false };
    peer.call(&set).await.expect("set");
}

async fn unlimited(peer: &mut Peer) {
    let entity = "client/peer".to_owned();
    peer.call(&quota_delete::Request { entity, dry_run: false }).await.expect("removed");
}

fn refusal(frame: &Frame) -> pushback::Request {
    assert_eq!(frame.frame_type, FrameType::Pushback, "{frame:?}");
    frame.decode().expect("it decodes")
}

/// A frame with a batch of about this size, as it goes over the wire.
fn large(topic: TopicId, correlation: u64, acks: Acks, bytes: usize) -> Vec<u8> {
    let batch = batch(&[&vec![7; bytes]]);
    let partition = PartitionId(2);
    let request = produce::Request { publisher: 0, topic, partition, acks, deadline_ms: 0 };
    let mut frame = Vec::new();
    produce::encode(&mut frame, correlation, &request, &batch);
    frame.extend_from_slice(&batch);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_names_its_partition_and_the_next_frame_is_read_right() {
    let site = Site::start().await;
    let topic = site.topic("orders", 3).await;
    let mut peer = site.peer().await;
    limit(&mut peer, "produce_bytes", "0").await;
    for (correlation, acks) in [(100, Acks::Topic), (101, Acks::None), (102, Acks::Topic)] {
        peer.write(&large(topic, correlation, acks, 700_000)).await;
        let told = match acks {
            Acks::None => peer.notice::<pushback::Request>().await.0, // as news
            _ => refusal(&peer.answer_to(correlation).await),
        };
        assert_eq!(told.partition, Some(TopicPartition { topic, partition: PartitionId(2) }));
        assert_eq!(told.pushback.code, PushbackCode::ThrottledRate);
        assert_eq!(
            (told.pushback.effects, &*told.pushback.limit_id),
            (Effects::None, "quota:client/peer")
        );
        peer.call(&ping::Request {}).await.expect("the next frame is read right");
    }
    unlimited(&mut peer).await;
    peer.write(&large(topic, 103, Acks::Topic, 700_000)).await;
    let written = peer.answer_to(103).await.answer::<produce::Request>().expect("written");
    assert_eq!(written.base_offset, Some(Offset(0)), "nothing of the others was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_head_of_a_refused_frame_is_still_found() {
    let site = Site::start().await;
    let topic = site.topic("orders", 3).await;
    let mut peer = site.peer().await;
    limit(&mut peer, "produce_bytes", "0").await;
    let good = large(topic, 100, Acks::Topic, 300_000);
    let control = good.len() - batch(&[&vec![7; 300_000]]).len();
    for at in [HEADER_BYTES + 5, control, control + 60] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        peer.write(&damaged).await;
        let refused = peer.answer_to(100).await.answer::<produce::Request>();
        assert_eq!(refused.expect_err("damaged").code, ErrorCode::ChecksumMismatch, "byte {at}");
    }
    peer.call(&ping::Request {}).await.expect("the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_bytes_count_as_sent_on_both_sides() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let opened = peer.open_publisher(topic).await;
    let publisher = opened.grant.publisher;
    limit(&mut peer, "produce_bytes", "0").await;
    let body = batch(&[&vec![7; 500_000]]);
    for _ in 0..5 {
        let correlation = peer.publish(publisher, (topic, 0), Acks::Topic, &body).await;
        let told = refusal(&peer.answer_to(correlation).await);
        // One unanswered batch is always allowed: each answer gave the bytes of the last back.
        assert_eq!((told.publisher, told.pushback.code), (publisher, PushbackCode::ThrottledRate));
    }
    unlimited(&mut peer).await;
    let correlation = peer.publish(publisher, (topic, 0), Acks::Topic, &body).await;
    peer.answer_to(correlation).await.answer::<produce::Request>().expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_bytes_in_flight_are_counted_by_the_header_once() {
    let site = Site::start().await;
    let topic = site.topic("orders", 3).await;
    let mut peer = site.peer().await;
    limit(&mut peer, "inflight_bytes", "600000").await;
    peer.write(&large(topic, 100, Acks::Topic, 500_000)).await;
    peer.answer_to(100).await.answer::<produce::Request>().expect("it fits once");
    peer.write(&large(topic, 101, Acks::Topic, 700_000)).await;
    let told = refusal(&peer.answer_to(101).await);
    assert_eq!(told.pushback.code, PushbackCode::ServerBusy);
    peer.write(&large(topic, 102, Acks::Topic, 500_000)).await;
    peer.answer_to(102).await.answer::<produce::Request>().expect("it was given back");
    unlimited(&mut peer).await;
    // The burst is a second's worth: ten. Charged twice, five would be all.
    limit(&mut peer, "requests", "10").await;
    for correlation in 200..209 {
        peer.write(&large(topic, correlation, Acks::Topic, 100_000)).await;
        peer.answer_to(correlation).await.answer::<produce::Request>().expect("within the burst");
    }
}

/// Half of a pool of 512 KiB is all that may be on its way in. A peer that sent the larger part of a
/// batch takes it and never ends; what another is told meanwhile. Either may come first: when it is
/// the half that found no room, it is dropped, and another one tries.
async fn beside_half_a_batch(
    site: &Site,
    peer: &mut Peer,
    topic: TopicId,
) -> (Peer, pushback::Request) {
    for attempt in 0..1_000 {
        let mut half = site.peer().await;
        half.write(&large(topic, 100, Acks::Topic, 400_000)[..250_000]).await;
        for frame in 0..20 {
            let correlation = 1_000 + attempt * 20 + frame;
            peer.write(&large(topic, correlation, Acks::Topic, 300_000)).await;
            let answer = peer.answer_to(correlation).await;
            if answer.frame_type == FrameType::Pushback {
                return (half, refusal(&answer)); // the server has read enough of the other
            }
        }
    }
    panic!("the half is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pool_has_no_room_for_is_dropped_as_it_arrives() {
    let site = Site::of(ServerOptions::default(), |broker| {
        broker.flow.inflight_bytes_max = Some(512 << 10);
        broker.flow.connection_share = 1;
        broker.flow.partition_share = 1;
        broker.flow.lane_share = 1;
    })
    .await;
    let settings = [("durability", "os"), ("max_message_bytes", "500KiB")];
    let topic = site.topic_with("orders", 3, &settings).await;
    let mut peer = site.peer().await;
    let (half, told) = beside_half_a_batch(&site, &mut peer, topic).await;
    assert_eq!(told.pushback.code, PushbackCode::ServerBusy);
    assert_eq!((told.pushback.severity, told.pushback.effects), (Severity::Hold, Effects::None));
    peer.produced((topic, 0), &batch(&[b"small"])).await.expect("what is there goes on");
    let names = (0..2_000).map(|n| format!("no-such-{n}").parse().expect("a name")).collect();
    let request = metadata::Request { topics: TopicSelector::Names { names } };
    let told = peer.call(&request).await.expect("produce pressure refuses produce alone");
    assert_eq!(told.topics.len(), 2_000);
    peer.write(&large(topic, 300, Acks::Topic, 600_000)).await;
    let told = refusal(&peer.answer_to(300).await);
    assert_eq!(
        (told.pushback.severity, told.pushback.scope),
        (Severity::Reject, PushbackScope::Broker),
        "it never fits"
    );
    drop(half);
}
