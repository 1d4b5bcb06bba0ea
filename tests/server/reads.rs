//! The pool of what is read: those that do not read hold up nobody but themselves.

use stoplog::protocol::native::{batches, fetch, ping, subscribe};
use stoplog::server::ServerOptions;
use stoplog::types::{Acks, Offset, PartitionId, TopicId};

use super::peer::{Peer, Site, batch};

const BATCHES: i64 = 48;
const BATCH_BYTES: usize = 64 << 10;

fn subscribe_to(topic: TopicId, subscription: u32) -> subscribe::Request {
    subscribe::Request {
        subscription,
        topic,
        partition: PartitionId(0),
        from: Offset(0),
        bytes_to: u64::MAX,
        records_to: u64::MAX,
        group: None,
    }
}

/// Reads a subscription to the end of the topic.
async fn read_all(peer: &mut Peer, topic: TopicId) {
    peer.call(&subscribe_to(topic, 1)).await.expect("open");
    loop {
        let (notice, _) = peer.notice::<batches::Request>().await;
        if notice.next_offset == Offset(BATCHES) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_up_nobody_but_itself() {
    // Small sockets, so that what is not read stays in the server; a pool of two slices.
    let options = ServerOptions { socket_buffer_bytes: Some(16 << 10), ..Default::default() };
    let site = Site::of(options, |broker| broker.flow.fetch_bytes_max = 512 << 10).await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    for _ in 0..BATCHES {
        let body = batch(&[&vec![7; BATCH_BYTES]]);
        let correlation = peer.produce((topic, 0), Acks::Topic, &body).await;
        peer.answer_to(correlation).await;
    }
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut one = site.peer().await;
        for subscription in 0..4 {
            one.send(&subscribe_to(topic, subscription)).await;
        }
        silent.push(one);
    }
    read_all(&mut peer, topic).await;
    let mut other = site.peer().await;
    let partitions = vec![fetch::Partition {
        topic,
        partition: PartitionId(0),
        from: Offset(0),
        max_bytes: 1 << 20,
    }];
    let request = fetch::Request {
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms: 10_000,
        group: None,
        partitions,
    };
    let correlation = other.send(&request).await;
    let answer = other.answer_to(correlation).await;
    assert!(answer.data.len() >= BATCH_BYTES, "{} bytes", answer.data.len());
    for mut one in silent {
        one.call(&ping::Request {}).await.expect("whoever reads again goes on");
    }
}
