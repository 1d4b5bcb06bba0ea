//! Grants, credit and PUSHBACK on the wire.

use std::time::Duration;

use stoplog::protocol::native::{
    FrameType, batches, credit, grant, pause, ping, produce, publisher_close, pushback, resume,
    seek, subscribe, subscription_end, topic_delete, unsubscribe, want,
};
use stoplog::server::ServerOptions;
use stoplog::types::{Acks, Effects, ErrorCode, Offset, PartitionId, PushbackCode, TopicId};

use super::peer::{Peer, Site, base_offsets, batch};

fn subscribe_to(topic: TopicId, bytes_to: u64, records_to: u64) -> subscribe::Request {
    subscribe::Request {
        subscription: 1,
        topic,
        partition: PartitionId(0),
        from: Offset(0),
        bytes_to,
        records_to,
        group: None,
    }
}

async fn fill(peer: &mut Peer, topic: TopicId, partition: u32, batches: usize) {
    for _ in 0..batches {
        let produced = peer.produced((topic, partition), &batch(&[&[7; 1_000]])).await;
        produced.expect("produced");
    }
}

/// Records pushed until the subscription is at `offset`; what each frame held.
async fn pushed_to(peer: &mut Peer, offset: i64) -> Vec<usize> {
    let mut frames = Vec::new();
    loop {
        let (notice, data) = peer.notice::<batches::Request>().await;
        frames.push(base_offsets(data).len());
        if notice.next_offset >= Offset(offset) {
            return frames;
        }
    }
}

/// Proves that nothing is on its way: an answer to a request sent later came, and no push.
async fn nothing_is_pushed(peer: &mut Peer) {
    for _ in 0..3 {
        peer.call(&ping::Request {}).await.expect("pong");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peer.call(&ping::Request {}).await.expect("pong");
    assert_eq!(peer.kept(FrameType::Batches), 0, "pushed beyond what was allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_stop_where_credit_ends_and_go_on_with_more() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    fill(&mut peer, topic, 0, 20).await;
    let opened = peer.call(&subscribe_to(topic, 1 << 30, 5)).await.expect("open");
    assert_eq!(opened.visible_end, Offset(20));
    let frames = pushed_to(&mut peer, 5).await;
    assert_eq!(frames.iter().sum::<usize>(), 5, "five records and no more");
    nothing_is_pushed(&mut peer).await;
    let more = credit::Request { subscription: 1, epoch: 0, bytes_to: 1 << 30, records_to: 12 };
    peer.notify(&credit::Request { records_to: 4, ..more.clone() }).await; // overtaken: harmless
    peer.notify(&more).await;
    peer.notify(&more).await; // repeated: harmless
    pushed_to(&mut peer, 12).await;
    nothing_is_pushed(&mut peer).await;
    let other_epoch = credit::Request { epoch: 3, records_to: 99, ..more };
    peer.notify(&other_epoch).await;
    nothing_is_pushed(&mut peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_credit_still_arrives_alone() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    fill(&mut peer, topic, 0, 3).await;
    peer.call(&subscribe_to(topic, 1, 1_000)).await.expect("open");
    let (notice, data) = peer.notice::<batches::Request>().await;
    assert_eq!((notice.next_offset, base_offsets(data).len()), (Offset(1), 1));
    assert!(notice.sent_bytes > 1_000 && notice.sent_records == 1);
    nothing_is_pushed(&mut peer).await;
    let bytes_to = notice.sent_bytes; // the deficit is carried: this is no credit yet
    let credit = credit::Request { subscription: 1, epoch: 0, bytes_to, records_to: 1_000 };
    peer.notify(&credit).await;
    nothing_is_pushed(&mut peer).await;
    peer.notify(&credit::Request { bytes_to: bytes_to + 1, ..credit }).await;
    assert_eq!(pushed_to(&mut peer, 2).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_follows_the_end_seeks_pauses_and_ends() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    peer.call(&subscribe_to(topic, 1 << 30, 1 << 30)).await.expect("open");
    let twice = peer.call(&subscribe_to(topic, 1, 1)).await.expect_err("the number is taken");
    assert_eq!(twice.code, ErrorCode::InvalidRequest);
    fill(&mut peer, topic, 0, 4).await;
    pushed_to(&mut peer, 4).await;

    peer.call(&pause::Request { subscription: 1 }).await.expect("paused");
    fill(&mut peer, topic, 0, 2).await;
    nothing_is_pushed(&mut peer).await;
    peer.call(&resume::Request { subscription: 1 }).await.expect("resumed");
    pushed_to(&mut peer, 6).await;

    let (bytes_to, records_to) = (1 << 30, 2);
    let seek = seek::Request { subscription: 1, epoch: 1, from: Offset(1), bytes_to, records_to };
    peer.call(&seek).await.expect("moved");
    let (notice, _) = peer.notice::<batches::Request>().await;
    assert_eq!((notice.epoch, notice.next_offset, notice.sent_records), (1, Offset(3), 2));
    let stale = peer.call(&seek).await.expect_err("an epoch is used once");
    assert_eq!(stale.code, ErrorCode::InvalidRequest);
    let beyond = seek::Request { epoch: 2, from: Offset(99), ..seek };
    let refused = peer.call(&beyond).await.expect_err("out of range");
    assert_eq!(refused.code, ErrorCode::OffsetOutOfRange);

    peer.call(&unsubscribe::Request { subscription: 1 }).await.expect("ended");
    fill(&mut peer, topic, 0, 1).await;
    nothing_is_pushed(&mut peer).await;
    peer.call(&subscribe_to(topic, 1 << 30, 1 << 30)).await.expect("the number is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_ends_its_subscriptions() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    peer.call(&subscribe_to(topic, 1 << 30, 1 << 30)).await.expect("open");
    let topic = topic_delete::TopicRef::Id { id: topic };
    peer.call(&topic_delete::Request { topic, dry_run: false }).await.expect("deleted");
    let (end, _) = peer.notice::<subscription_end::Request>().await;
    assert_eq!((end.subscription, end.error.code), (1, ErrorCode::TopicNotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_of_a_connection_take_turns() {
    let options = ServerOptions {
        push_bytes: 4 << 10,
        push_queue_bytes: 8 << 10,
        ..ServerOptions::default()
    };
    let site = Site::with(options).await;
    let topic = site.topic("orders", 2).await;
    let mut peer = site.peer().await;
    // More than the socket's buffers hold, so that the long one has to wait while nobody reads.
    for _ in 0..24 {
        peer.produced((topic, 0), &batch(&[&vec![7; 900_000]])).await.expect("produced");
    }
    fill(&mut peer, topic, 1, 4).await;
    let first = subscribe_to(topic, 0, 0);
    let second = subscribe::Request { subscription: 2, partition: PartitionId(1), ..first.clone() };
    peer.call(&first).await.expect("open");
    peer.call(&second).await.expect("open");
    let all = credit::Request { subscription: 1, epoch: 0, bytes_to: 1 << 30, records_to: 1 << 30 };
    peer.notify(&all).await;
    peer.notify(&credit::Request { subscription: 2, ..all }).await;
    let (mut long, mut short) = (0, 0);
    while short < 4 {
        let (notice, _) = peer.notice::<batches::Request>().await;
        match notice.subscription {
            1 => long = notice.next_offset.0,
            _ => short = notice.next_offset.0,
        }
    }
    assert!(long < 24, "the short one waited for all of the long one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_is_granted_more_as_it_is_answered() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let opened = peer.open_publisher(topic).await;
    let publisher = opened.grant.publisher;
    assert!(publisher > 0 && opened.grant.bytes_to > 0 && opened.allowance_bytes >= 1 << 20);
    let batch = batch(&[&vec![1; 40_000]]);
    let (mut granted, mut sent) = (opened.grant.bytes_to, 0);
    for _ in 0..30 {
        let correlation = peer.publish(publisher, (topic, 0), Acks::Os, &batch).await;
        sent += batch.len() as u64;
        let answer = peer.answer_to(correlation).await.answer::<produce::Request>();
        answer.expect("one batch alone is always allowed");
        while peer.kept(FrameType::Grant) > 0 {
            let (grant, _) = peer.notice::<grant::Request>().await;
            assert!(grant.bytes_to >= granted, "a grant never shrinks");
            granted = grant.bytes_to;
        }
    }
    assert!(granted > sent && granted > opened.grant.bytes_to, "{granted} of {sent}");
    peer.notify(&want::Request { publisher, bytes: 1 << 20 }).await;
    peer.notice::<grant::Request>().await;
    peer.call(&publisher_close::Request { publisher }).await.expect("closed");
    let late = peer.publish(publisher, (topic, 0), Acks::Os, &batch).await;
    let refused = peer.answer_to(late).await.answer::<produce::Request>();
    assert_eq!(refused.expect_err("it is closed").code, ErrorCode::InvalidRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_grant_and_allowance_are_pushed_back_without_effects() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let opened = peer.open_publisher(topic).await;
    let publisher = opened.grant.publisher;
    let batch = batch(&[&vec![1; 900_000]]);
    // All in one write: the second and third arrive while the first is unanswered.
    let mut frames = Vec::new();
    for correlation in [100, 101, 102] {
        let partition = PartitionId(0);
        let acks = Acks::Durable;
        let request = produce::Request { publisher, topic, partition, acks, deadline_ms: 0 };
        produce::encode(&mut frames, correlation, &request, &batch);
        frames.extend_from_slice(&batch);
    }
    peer.write(&frames).await;
    let (mut accepted, mut refused) = (0, 0);
    for correlation in [100, 101, 102] {
        let frame = peer.answer_to(correlation).await;
        if frame.frame_type == FrameType::Pushback {
            let notice: pushback::Request = frame.decode().expect("it decodes");
            assert_eq!(notice.pushback.code, PushbackCode::CreditViolation);
            assert_eq!(notice.pushback.effects, Effects::None);
            assert_eq!((notice.publisher, notice.pushback.observed > 0), (publisher, true));
            refused += 1;
        } else {
            frame.answer::<produce::Request>().expect("written");
            accepted += 1;
        }
    }
    assert!(accepted >= 1, "the allowance is one batch");
    let end = peer.produced((topic, 0), &super::peer::batch(&[b"x"])).await.expect("produced");
    assert_eq!(end.base_offset, Some(Offset(accepted)), "{refused} had no effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_pushes_back_and_reads_go_on() {
    let site = Site::of(ServerOptions::default(), |broker| {
        broker.flow.inflight_bytes_max = Some(256 << 10);
    })
    .await;
    let settings = [("durability", "os"), ("max_message_bytes", "32KiB")];
    let topic = site.topic_with("orders", 1, &settings).await;
    let mut peer = site.peer().await;
    let large = batch(&[&vec![1; 30_000]]);
    let mut frames = Vec::new();
    for (correlation, acks) in [(100, Acks::Durable), (101, Acks::Durable), (102, Acks::None)] {
        let partition = PartitionId(0);
        let request = produce::Request { publisher: 0, topic, partition, acks, deadline_ms: 0 };
        produce::encode(&mut frames, correlation, &request, &large);
        frames.extend_from_slice(&large);
    }
    // The second and third come while the first waits for its fdatasync.
    peer.write(&frames).await;
    let (notice, _) = peer.notice::<pushback::Request>().await;
    assert_eq!(notice.pushback.code, PushbackCode::ServerBusy);
    assert_eq!(notice.pushback.effects, Effects::None);
    assert!(notice.pushback.retry_after_ms > 0 && notice.pushback.limit > 0);
    assert_eq!(notice.partition.map(|at| at.topic), Some(topic));
    peer.notice::<pushback::Request>().await; // news: the silent one was refused as well
    peer.answer_to(100).await.answer::<produce::Request>().expect("the first is written");
    // A permit goes back after its answer, on the writer's thread.
    let mut tries = 0;
    while let Err(busy) = peer.produced((topic, 0), &batch(&[b"small"])).await {
        tries += 1;
        assert!(tries < 1_000, "what fits is taken: {busy:?}");
    }
    peer.call(&subscribe_to(topic, 1 << 20, 10)).await.expect("open");
    pushed_to(&mut peer, 2).await;
}

/// With credit in hand and nothing to send, news must not keep a subscription going: it did, without
/// ever giving its thread back.
#[test]
fn a_subscription_that_waits_at_the_end_costs_nothing() {
    let (ended, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let busy = runtime.block_on(async {
            let site = Site::start().await;
            let topic = site.topic("orders", 1).await;
            let mut peer = site.peer().await;
            fill(&mut peer, topic, 0, 3).await;
            peer.call(&subscribe_to(topic, 1 << 20, 100)).await.expect("open");
            pushed_to(&mut peer, 3).await;
            for more in 1..=5 {
                let (bytes_to, records_to) = ((1 << 20) + more, 100 + more);
                let notice = credit::Request { subscription: 1, epoch: 0, bytes_to, records_to };
                peer.notify(&notice).await;
                peer.call(&pause::Request { subscription: 1 }).await.expect("paused");
                peer.call(&resume::Request { subscription: 1 }).await.expect("resumed");
            }
            let metrics = tokio::runtime::Handle::current().metrics();
            let before = metrics.worker_total_busy_duration(0);
            tokio::time::sleep(IDLE).await;
            let busy = metrics.worker_total_busy_duration(0) - before;
            fill(&mut peer, topic, 0, 1).await;
            pushed_to(&mut peer, 4).await;
            busy
        });
        ended.send(busy).expect("the test waits");
    });
    let busy = told.recv_timeout(Duration::from_secs(60)).expect("the only thread came back");
    assert!(busy < IDLE / 2, "busy for {busy:?} of {IDLE:?} without anything to do");
}

const IDLE: Duration = Duration::from_millis(400);
