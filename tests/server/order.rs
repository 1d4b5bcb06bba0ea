//! Nothing on a connection waits for anything else on it.

use stoplog::protocol::native::{fetch, group_list, ping, produce};
use stoplog::server::ServerOptions;
use stoplog::types::{Acks, ErrorCode, Offset};

use super::peer::{Site, batch};
use super::requests::fetch_from;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_holds_nothing_up_and_answers_come_in_any_order() {
    let site = Site::start().await;
    let topic = site.topic("orders", 2).await;
    let mut peer = site.peer().await;
    let waiting = peer.send(&fetch_from(topic, 0, 0, 60_000)).await;
    let pong = peer.send(&ping::Request {}).await;
    assert_eq!(peer.next().await.expect("a frame").correlation, pong, "the poll still waits");
    peer.produced((topic, 1), &batch(&[b"elsewhere"])).await.expect("produced meanwhile");
    peer.call(&group_list::Request {}).await.expect("answered meanwhile");
    peer.produced((topic, 0), &batch(&[b"here"])).await.expect("produced");
    let answer = peer.answer_to(waiting).await.answer::<fetch::Request>().expect("read");
    let read = answer.partitions[0].read.as_ref().expect("read");
    assert_eq!(read.next_offset, Offset(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_batches_of_a_partition_keep_their_order() {
    let site = Site::start().await;
    let topic = site.topic("orders", 4).await;
    let mut peer = site.peer().await;
    let mut sent = Vec::new();
    for number in 0..400_u32 {
        let batch = batch(&[&number.to_le_bytes()]);
        sent.push((number % 4, peer.produce((topic, number % 4), Acks::Os, &batch).await));
    }
    let mut next = [0; 4];
    for (partition, correlation) in sent {
        let answer = peer.answer_to(correlation).await.answer::<produce::Request>();
        let offset = answer.expect("produced").base_offset;
        assert_eq!(offset, Some(Offset(next[partition as usize])));
        next[partition as usize] += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_refused_and_the_others_wait_on() {
    let options = ServerOptions { requests_max: 2, ..ServerOptions::default() };
    let site = Site::with(options).await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let polls = [
        peer.send(&fetch_from(topic, 0, 0, 60_000)).await,
        peer.send(&fetch_from(topic, 0, 0, 60_000)).await,
    ];
    let refused = peer.call(&group_list::Request {}).await.expect_err("two wait already");
    assert_eq!(refused.code, ErrorCode::TooManyRequests);
    assert!(refused.retry_after_ms > 0);
    peer.produced((topic, 0), &batch(&[b"x"])).await.expect("produce is limited in bytes");
    for poll in polls {
        peer.answer_to(poll).await.answer::<fetch::Request>().expect("read");
    }
    peer.call(&group_list::Request {}).await.expect("there is room again");
}
