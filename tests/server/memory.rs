//! Claimed lengths cost nothing, and what is received no more than the pool: the server's anonymous
//! memory under hostile and greedy connections, measured in a process of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use stoplog::protocol::native::{
    FrameFlags, FrameHeader, FrameType, HEADER_BYTES, encode_call, hello, ping, produce,
    topic_create,
};
use stoplog::types::{Acks, PartitionId, TopicId};

use super::peer::{PATIENCE, Peer, batch, greeting};
use crate::process::Broker;

const CONNECTIONS: usize = 1_000;
const GROWTH_KIB_MAX: u64 = 64 << 10;
const POOL_BYTES: u64 = 32 << 20;

/// A broker whose memory is looked at.
struct Served {
    broker: Broker,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Served {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pool = format!("memory.inflight_bytes_max={POOL_BYTES}");
        let broker = Broker::with(&dir.path().join("data"), &[&pool]);
        let address = broker.address.parse().expect("an address");
        Served { broker, address, _dir: dir }
    }

    fn anonymous_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.broker.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.trim().split(' ').next()).expect("a number");
        number.parse().expect("a number")
    }
}

fn greeted(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut frame = Vec::new();
    encode_call::<hello::Request>(&mut frame, 1, &greeting());
    stream.write_all(&frame).expect("written");
    read_frame(&mut stream);
    stream
}

/// The type of the next frame.
fn read_frame(stream: &mut TcpStream) -> FrameType {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).expect("a header");
    let length = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let mut body = vec![0; (length(16) + length(20)) as usize];
    stream.read_exact(&mut body).expect("a body");
    FrameType::from_u16(u16::from_le_bytes([header[4], header[5]])).expect("a known type")
}

fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may rise to the hard one");
}

/// The largest growth while the server works on what it was sent.
fn growth_kib(server: &Served, before: u64, streams: &mut [TcpStream]) -> u64 {
    let mut highest = server.anonymous_kib();
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        // A healthy client is answered, so the server has read what came before it.
        let mut healthy = greeted(server.address);
        let mut frame = Vec::new();
        encode_call(&mut frame, 2, &ping::Request {});
        healthy.write_all(&frame).expect("written");
        read_frame(&mut healthy);
        highest = highest.max(server.anonymous_kib());
    }
    assert_eq!(streams.len(), CONNECTIONS);
    highest.saturating_sub(before)
}

#[test]
fn a_thousand_claims_of_2_gib_cost_little() {
    allow_many_files();
    let server = Served::start();
    drop(greeted(server.address));
    let before = server.anonymous_kib();
    let claim = FrameHeader {
        version: 1,
        flags: FrameFlags::NONE,
        frame_type: FrameType::Produce.as_u16(),
        reserved: 0,
        correlation: 2,
        control_bytes: 29,
        data_bytes: i32::MAX as u32,
        body_crc: 0,
    };
    let mut streams: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            // Half of them do not even say HELLO.
            let mut stream = match number % 2 {
                0 => greeted(server.address),
                _ => TcpStream::connect(server.address).expect("connects"),
            };
            stream.write_all(&claim.to_bytes()).expect("written");
            let _ = stream.write_all(&[7; 1024]); // it may be closed already
            stream
        })
        .collect();
    let growth = growth_kib(&server, before, &mut streams);
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB");
}

#[test]
fn a_thousand_largest_frames_that_never_come_cost_little() {
    allow_many_files();
    let server = Served::start();
    drop(greeted(server.address));
    let before = server.anonymous_kib();
    let batch = vec![0; (16 << 20) - 1024];
    let request = produce::Request {
        publisher: 0,
        topic: TopicId::from_bytes([1; 16]),
        partition: PartitionId(0),
        acks: Acks::Topic,
        deadline_ms: 0,
    };
    let mut frame = Vec::new();
    produce::encode(&mut frame, 2, &request, &batch);
    frame.extend_from_slice(&[0; 1024]);
    let mut streams: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = greeted(server.address);
            stream.write_all(&frame).expect("written");
            stream
        })
        .collect();
    let growth = growth_kib(&server, before, &mut streams);
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB");
}

/// Connections that stop in the middle of a large batch, and the bytes of it.
const HALF_SENT: usize = 600;
const LARGE_BYTES: usize = 512 << 10;
/// Small batches that each of the others sends at once.
const SMALL_BATCHES: usize = 16;

fn produce_frame(topic: TopicId, correlation: u64, bytes: usize) -> Vec<u8> {
    let batch = batch(&[&vec![7; bytes]]);
    let (partition, acks) = (PartitionId(0), Acks::Topic);
    let request = produce::Request { publisher: 0, topic, partition, acks, deadline_ms: 0 };
    let mut frame = Vec::new();
    produce::encode(&mut frame, correlation, &request, &batch);
    frame.extend_from_slice(&batch);
    frame
}

fn topic(address: SocketAddr) -> TopicId {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut peer = Peer::connect(address).await;
        peer.call(&greeting()).await.expect("welcome");
        let settings = vec![("durability".to_owned(), "os".to_owned())];
        let name = "orders".parse().expect("a name");
        let create = topic_create::Request { name, partitions: 1, settings, dry_run: false };
        peer.call(&create).await.expect("created").id
    })
}

/// Memory is what the pool says, though a thousand want more; and nobody is left without an answer.
#[test]
fn a_thousand_greedy_connections_stay_within_the_pool() {
    allow_many_files();
    let server = Served::start();
    let topic = topic(server.address);
    let before = server.anonymous_kib();
    let mut highest = before;
    let mut look = || highest = highest.max(server.anonymous_kib());
    let large = produce_frame(topic, 2, LARGE_BYTES);
    let (begin, end) = large.split_at(LARGE_BYTES / 2);
    let mut half_sent: Vec<_> = (0..HALF_SENT)
        .map(|_| {
            let mut stream = greeted(server.address);
            stream.write_all(begin).expect("it is read, whatever becomes of it");
            look();
            stream
        })
        .collect();
    let small: Vec<u8> =
        (0..SMALL_BATCHES).flat_map(|n| produce_frame(topic, 10 + n as u64, 3_000)).collect();
    let mut others: Vec<_> = (HALF_SENT..CONNECTIONS)
        .map(|_| {
            let mut stream = greeted(server.address);
            stream.write_all(&small).expect("written");
            look();
            stream
        })
        .collect();
    let (mut acked, mut refused) = (0, 0);
    let mut count = |answer: FrameType| match answer {
        FrameType::Produce => acked += 1,
        FrameType::Pushback => refused += 1,
        other => panic!("{other:?}"),
    };
    for stream in &mut others {
        (0..SMALL_BATCHES).for_each(|_| count(read_frame(stream)));
    }
    look();
    for stream in &mut half_sent {
        stream.write_all(end).expect("written");
        count(read_frame(stream));
        look();
    }
    assert_eq!(acked + refused, HALF_SENT + (CONNECTIONS - HALF_SENT) * SMALL_BATCHES);
    assert!(acked > 0 && refused > 0, "{acked} acked, {refused} refused");
    let growth = highest.saturating_sub(before);
    let most = POOL_BYTES / 1024 + GROWTH_KIB_MAX;
    assert!(growth <= most, "{growth} KiB of {most}; {acked} acked, {refused} refused");
}
