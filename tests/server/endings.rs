//! How connections and servers end: half-open, gracefully, at once.

use stoplog::broker::ShutdownMode;
use stoplog::protocol::native::{
    FrameType, fetch, goodbye, list_offsets, ping, produce, pushback, topic_list,
};
use stoplog::server::{Server, ServerOptions, StartError};
use stoplog::types::{Acks, ErrorCode, PushbackCode};
use tokio::io::AsyncWriteExt;

use super::peer::{PATIENCE, Peer, Site, batch};
use super::requests::fetch_from;

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_connection_still_gets_its_answers() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(peer.produce((topic, 0), Acks::Durable, &batch(&[b"x"])).await);
    }
    let poll = peer.send(&fetch_from(topic, 0, 0, 0)).await;
    peer.stream.shutdown().await.expect("half closed");
    for correlation in sent {
        let answer = peer.answer_to(correlation).await.answer::<produce::Request>();
        answer.expect("written");
    }
    peer.answer_to(poll).await.answer::<fetch::Request>().expect("read");
    assert!(peer.next().await.is_none(), "then the broker closes its side");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_client_frees_its_place() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    peer.send(&fetch_from(topic, 0, 0, 60_000)).await;
    peer.call(&ping::Request {}).await.expect("pong");
    // Unread bytes make the close a reset.
    peer.send(&topic_list::Request {}).await;
    peer.stream.readable().await.expect("the answer is there");
    drop(peer);
    let freed = async {
        while site.server.connections() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("its place is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_answers_what_is_under_way() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    let mut idle = site.peer().await;
    let poll = peer.send(&fetch_from(topic, 0, 0, 60_000)).await;
    let mut sent = Vec::new();
    for _ in 0..50 {
        sent.push(peer.produce((topic, 0), Acks::Durable, &batch(&[&[1; 500]])).await);
    }
    peer.call(&ping::Request {}).await.expect("all of it was read");
    let address = site.address();
    let Site { server, broker, dir: _dir } = site;
    let ending = tokio::spawn(server.shutdown(ShutdownMode::Graceful));
    let (goodbye, _) = idle.notice::<goodbye::Request>().await;
    assert_eq!(goodbye.error.map(|error| error.code), Some(ErrorCode::Draining));
    assert!(idle.next().await.is_none());
    for correlation in sent {
        let answer = peer.answer_to(correlation).await.answer::<produce::Request>();
        answer.expect("what was taken is answered");
    }
    let answer = peer.answer_to(poll).await;
    if !answer.flags.is_error() {
        answer.answer::<fetch::Request>().expect("the records came first");
    }
    tokio::time::timeout(PATIENCE, ending).await.expect("in time").expect("no panic");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
    broker.shutdown(ShutdownMode::Graceful).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_refuses_new_work_without_effects() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    // A connection that keeps a request under way: the broker cannot answer it, since the client
    // does not read. So the drain lasts while the other one is tested.
    let Site { server, broker, dir: _dir } = site;
    let stopper = server.stopper();
    let ending = tokio::spawn(server.shutdown(ShutdownMode::Graceful));
    peer.notice::<goodbye::Request>().await;
    let late = peer.produce((topic, 0), Acks::Os, &batch(&[b"late"])).await;
    let list = peer.send(&list_offsets::Request { partitions: Vec::new() }).await;
    // Either the connection was closed before they were read, or both are refused.
    while let Some(frame) = peer.next().await {
        if frame.correlation == late {
            let notice: pushback::Request = frame.decode().expect("a pushback");
            assert_eq!(notice.pushback.code, PushbackCode::Draining);
        } else if frame.correlation == list {
            assert!(frame.flags.is_error());
            assert_eq!(frame.frame_type, FrameType::ListOffsets);
        }
    }
    stopper.stop();
    tokio::time::timeout(PATIENCE, ending).await.expect("in time").expect("no panic");
    let topic = broker.topic_by_id(topic).expect("it exists");
    let partition = topic.partition(stoplog::types::PartitionId(0)).expect("it exists");
    assert_eq!(partition.span().1.0, 0, "the late batch had no effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_once_waits_for_nobody() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    peer.send(&fetch_from(topic, 0, 0, 60_000)).await;
    peer.call(&ping::Request {}).await.expect("pong");
    let Site { server, broker: _broker, dir: _dir } = site;
    let ended = tokio::time::timeout(PATIENCE, server.shutdown(ShutdownMode::AtOnce)).await;
    ended.expect("in time");
    while let Some(frame) = peer.next().await {
        assert!(frame.flags.is_error(), "at most a last word: {frame:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_beyond_loopback_has_to_be_asked_for() {
    let site = Site::start().await;
    let everywhere = ServerOptions { listen: "0.0.0.0:0".to_owned(), ..ServerOptions::default() };
    let refused = Server::start(site.broker.clone(), everywhere.clone()).await;
    assert!(matches!(refused.err(), Some(StartError::Insecure { .. })));
    let asked = ServerOptions { insecure: true, ..everywhere };
    Server::start(site.broker.clone(), asked).await.map(drop).expect("it was asked for");
    let taken = ServerOptions { listen: site.address().to_string(), ..ServerOptions::default() };
    let refused = Server::start(site.broker.clone(), taken).await;
    assert!(matches!(refused.err(), Some(StartError::AddressInUse { .. })));
    let wrong = ServerOptions { listen: "nowhere".to_owned(), ..ServerOptions::default() };
    let refused = Server::start(site.broker.clone(), wrong).await;
    assert!(matches!(refused.err(), Some(StartError::Address { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_reads_nothing_is_cut_and_others_go_on() {
    let options = ServerOptions { write_stall_ms: 200, ..ServerOptions::default() };
    let site = Site::with(options).await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    for _ in 0..64 {
        peer.produced((topic, 0), &batch(&[&vec![1; 900_000]])).await.expect("produced");
    }
    let mut deaf = Peer::connect(site.address()).await;
    deaf.call(&super::peer::greeting()).await.expect("welcome");
    let mut poll = fetch_from(topic, 0, 0, 0);
    poll.max_bytes = 15 << 20;
    poll.partitions[0].max_bytes = 15 << 20;
    for _ in 0..8 {
        deaf.send(&poll).await;
    }
    let cut = async {
        while site.server.connections() > 1 {
            peer.call(&ping::Request {}).await.expect("others go on");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.expect("it is cut");
}
