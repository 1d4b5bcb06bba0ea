//! Frames of every bad kind: a typed error, and the connection goes on where that is safe.

use std::time::Duration;

use stoplog::protocol::native::{
    FrameFlags, FrameHeader, FrameType, encode_call, goodbye, grant, hello, ping,
};
use stoplog::server::ServerOptions;
use stoplog::types::{Cause, ErrorCode};

use super::peer::{Peer, Site, greeting};

fn header(frame_type: u16) -> FrameHeader {
    FrameHeader {
        version: 1,
        flags: FrameFlags::NONE,
        frame_type,
        reserved: 0,
        correlation: 77,
        control_bytes: 0,
        data_bytes: 0,
        body_crc: 0,
    }
}

async fn refused_with(peer: &mut Peer) -> ErrorCode {
    let frame = peer.next().await.expect("an error answer");
    assert!(frame.flags.is_error(), "{frame:?}");
    frame.decode::<stoplog::protocol::native::ErrorAnswer>().expect("it decodes").code
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_skipped_is_refused_and_the_connection_goes_on() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    let ping = header(FrameType::Ping.as_u16());
    for (header, body, code) in [
        (header(999), &b""[..], ErrorCode::UnknownRequest),
        (FrameHeader { version: 2, ..ping }, b"", ErrorCode::UnsupportedVersion),
        (FrameHeader { flags: FrameFlags(8), ..ping }, b"", ErrorCode::UnknownFlags),
        (FrameHeader { reserved: 5, ..ping }, b"", ErrorCode::UnknownFlags),
        (FrameHeader { body_crc: 5, ..ping }, b"", ErrorCode::ChecksumMismatch),
        (FrameHeader { data_bytes: 3, ..ping }, b"abc", ErrorCode::MalformedFrame),
        (header(FrameType::TopicCreate.as_u16()), b"", ErrorCode::MalformedFrame),
        (header(FrameType::Grant.as_u16()), b"", ErrorCode::UnknownRequest),
    ] {
        peer.write(&header.to_bytes()).await;
        peer.write(body).await;
        assert_eq!(refused_with(&mut peer).await, code, "{header:?}");
    }
    peer.call(&ping::Request {}).await.expect("the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_skipped_ends_the_connection() {
    let site = Site::start().await;
    let mut flipped = header(FrameType::Ping.as_u16()).to_bytes();
    flipped[9] ^= 1;
    let huge = FrameHeader { data_bytes: i32::MAX as u32, ..header(FrameType::Produce.as_u16()) };
    let wide = FrameHeader { control_bytes: 8 << 20, ..header(FrameType::Metadata.as_u16()) };
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), ErrorCode::MalformedFrame),
        (flipped.to_vec(), ErrorCode::ChecksumMismatch),
        (huge.to_bytes().to_vec(), ErrorCode::FrameTooLarge),
        (wide.to_bytes().to_vec(), ErrorCode::FrameTooLarge),
    ] {
        let mut peer = site.peer().await;
        peer.write(&bytes).await;
        assert_eq!(refused_with(&mut peer).await, code);
        assert!(peer.next().await.is_none(), "the broker closes");
    }
    site.peer().await.call(&ping::Request {}).await.expect("others are not affected");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_hello_only_a_small_hello_is_taken() {
    let site = Site::start().await;
    let mut eager = Peer::connect(site.address()).await;
    eager.send(&ping::Request {}).await;
    assert_eq!(refused_with(&mut eager).await, ErrorCode::HelloRequired);
    assert!(eager.next().await.is_none());

    let mut large = Peer::connect(site.address()).await;
    let frame = FrameHeader { control_bytes: 65 << 10, ..header(FrameType::Hello.as_u16()) };
    large.write(&frame.to_bytes()).await;
    assert_eq!(refused_with(&mut large).await, ErrorCode::FrameTooLarge);
    assert!(large.next().await.is_none());

    for (hello, code) in [
        (
            hello::Request { version_min: 2, version_max: 3, ..greeting() },
            ErrorCode::UnsupportedVersion,
        ),
        (hello::Request { client_id: "x".repeat(250), ..greeting() }, ErrorCode::InvalidRequest),
        (hello::Request { frame_bytes_max: 1, ..greeting() }, ErrorCode::InvalidRequest),
    ] {
        let mut peer = Peer::connect(site.address()).await;
        let refused = peer.call(&hello).await.expect_err("refused");
        assert_eq!(refused.code, code);
        assert!(peer.next().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_byte_of_a_request_is_refused_or_harmless() {
    let site = Site::start().await;
    let mut good = Vec::new();
    encode_call(&mut good, 5, &ping::Request {});
    for at in 0..good.len() {
        let mut peer = site.peer().await;
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        peer.write(&bad).await;
        let frame = peer.next().await.expect("an answer");
        assert!(frame.flags.is_error(), "byte {at}: {frame:?}");
    }
    site.peer().await.call(&ping::Request {}).await.expect("the server goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_slow_frames_are_cut() {
    let options = ServerOptions {
        handshake_timeout_ms: 50,
        idle_timeout_ms: 100,
        frame_grace_ms: 50,
        frame_bytes_per_s_min: 1 << 20,
        ..ServerOptions::default()
    };
    let site = Site::with(options).await;
    let mut mute = Peer::connect(site.address()).await;
    let (goodbye, _) = mute.notice::<goodbye::Request>().await;
    assert_eq!(goodbye.error.map(|error| error.code), Some(ErrorCode::TimedOut));
    assert!(mute.next().await.is_none());

    let mut idle = site.peer().await;
    idle.notice::<goodbye::Request>().await;
    assert!(idle.next().await.is_none());

    let mut slow = site.peer().await;
    let started = FrameHeader { data_bytes: 1 << 20, ..header(FrameType::Produce.as_u16()) };
    slow.write(&started.to_bytes()).await;
    slow.notice::<goodbye::Request>().await;
    assert!(slow.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_told_so() {
    let options = ServerOptions { connections_max: 2, system_connections: 0, ..Default::default() };
    let site = Site::with(options).await;
    let first = site.peer().await;
    let _second = site.peer().await;
    let mut third = Peer::connect(site.address()).await;
    let (goodbye, _) = third.notice::<goodbye::Request>().await;
    let error = goodbye.error.expect("a reason");
    assert_eq!(error.code, ErrorCode::ConnLimit);
    assert!(error.retry_after_ms > 0 && error.pushback.is_some());
    assert!(third.next().await.is_none());
    drop(first);
    let mut patience = 200;
    while site.server.connections() > 1 && patience > 0 {
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.peer().await.call(&ping::Request {}).await.expect("its place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_of_a_broker_are_no_requests() {
    let site = Site::start().await;
    let mut peer = site.peer().await;
    peer.notify(&grant::Request {
        publisher: 1,
        epoch: 0,
        bytes_to: 1 << 40,
        ttl_ms: 1,
        cause: Cause::Grant,
        name: String::new(),
    })
    .await;
    assert_eq!(refused_with(&mut peer).await, ErrorCode::UnknownRequest);
    peer.call(&ping::Request {}).await.expect("the connection goes on");
}
