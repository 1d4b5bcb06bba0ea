//! The other end: a client that says exactly what a test wants it to say.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use stoplog::broker::{Broker, BrokerOptions};
use stoplog::protocol::native::{
    BufferPool, Call, Deframer, ErrorAnswer, Frame, FrameLimits, FrameType, Notice, Received,
    encode_call, encode_notice, hello, produce, publisher_open, topic_create,
};
use stoplog::record::{BatchBuilder, BuilderOptions, RecordRef};
use stoplog::server::{RunningServer, Server, ServerOptions};
use stoplog::types::{Acks, Class, Offset, PartitionId, Timestamp, TopicId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Longer than anything takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker on a directory of its own, and a server in front of it.
pub struct Site {
    pub broker: Broker,
    pub server: RunningServer,
    pub dir: tempfile::TempDir,
}

impl Site {
    pub async fn start() -> Site {
        Site::with(ServerOptions::default()).await
    }

    pub async fn with(options: ServerOptions) -> Site {
        Site::of(options, |_| ()).await
    }

    pub async fn of(options: ServerOptions, change: impl FnOnce(&mut BrokerOptions)) -> Site {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut broker = BrokerOptions::new(dir.path().join("data"));
        // How full the disk of the machine is does not matter.
        (broker.disk.low, broker.disk.high) = (Some(3 << 20), Some(2 << 20));
        broker.disk.full = Some(1 << 20);
        change(&mut broker);
        let broker = Broker::open(broker).await.expect("the broker opens");
        let options = ServerOptions { listen: "127.0.0.1:0".to_owned(), ..options };
        let server = Server::start(broker.clone(), options).await.expect("the server starts");
        Site { broker, server, dir }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// A connection that said HELLO.
    pub async fn peer(&self) -> Peer {
        let mut peer = Peer::connect(self.address()).await;
        peer.call(&greeting()).await.expect("welcome");
        peer
    }

    /// A topic whose writes are acknowledged by the page cache.
    pub async fn topic(&self, name: &str, partitions: u32) -> TopicId {
        self.topic_with(name, partitions, &[("durability", "os")]).await
    }

    pub async fn topic_with(
        &self,
        name: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> TopicId {
        let settings = settings.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let settings = settings.collect();
        let name = name.parse().expect("a name");
        let create = topic_create::Request { name, partitions, settings, dry_run: false };
        self.peer().await.call(&create).await.expect("created").id
    }
}

pub fn greeting() -> hello::Request {
    hello::Request {
        version_min: 1,
        version_max: 1,
        features: 0,
        client_id: "peer".to_owned(),
        software: "test".to_owned(),
        frame_bytes_max: 16 << 20,
    }
}

/// One connection.
pub struct Peer {
    pub stream: TcpStream,
    deframer: Deframer,
    next: u64,
    /// Frames that came while another was waited for.
    others: VecDeque<Frame>,
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).await.expect("connects");
        let deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(1 << 20));
        Peer { stream, deframer, next: 1, others: VecDeque::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let written = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.expect("in time").expect("written");
    }

    /// A publisher of the usual class.
    pub async fn open_publisher(&mut self, topic: TopicId) -> publisher_open::Response {
        let open = publisher_open::Request { topic, class: Class::Normal };
        self.call(&open).await.expect("open")
    }

    /// Sends a request and returns its correlation id.
    pub async fn send<C: Call>(&mut self, call: &C) -> u64 {
        let correlation = self.next;
        self.next += 1;
        let mut frame = Vec::new();
        encode_call(&mut frame, correlation, call);
        self.write(&frame).await;
        correlation
    }

    pub async fn notify<N: Notice>(&mut self, notice: &N) {
        let mut frame = Vec::new();
        encode_notice(&mut frame, 0, notice);
        self.write(&frame).await;
    }

    pub async fn call<C: Call>(&mut self, call: &C) -> Result<C::Answer, ErrorAnswer> {
        let correlation = self.send(call).await;
        self.answer_to(correlation).await.answer::<C>()
    }

    pub async fn produce(&mut self, to: (TopicId, u32), acks: Acks, batch: &Bytes) -> u64 {
        self.publish(0, to, acks, batch).await
    }

    pub async fn publish(
        &mut self,
        publisher: u32,
        (topic, partition): (TopicId, u32),
        acks: Acks,
        batch: &Bytes,
    ) -> u64 {
        let correlation = self.next;
        self.next += 1;
        let partition = PartitionId(partition);
        let request = produce::Request { publisher, topic, partition, acks, deadline_ms: 0 };
        let mut frame = Vec::new();
        produce::encode(&mut frame, correlation, &request, batch);
        frame.extend_from_slice(batch);
        self.write(&frame).await;
        correlation
    }

    pub async fn produced(
        &mut self,
        to: (TopicId, u32),
        batch: &Bytes,
    ) -> Result<produce::Response, ErrorAnswer> {
        let correlation = self.produce(to, Acks::Topic, batch).await;
        self.answer_to(correlation).await.answer::<produce::Request>()
    }

    /// The frame with this correlation id; what else comes is kept.
    pub async fn answer_to(&mut self, correlation: u64) -> Frame {
        self.wait_for(|frame| frame.correlation == correlation).await.expect("an answer")
    }

    /// The next frame of this type.
    pub async fn notice<N: Notice>(&mut self) -> (N, Bytes) {
        let frame = self.wait_for(|frame| frame.frame_type == N::TYPE).await.expect("a notice");
        (frame.decode().expect("it decodes"), frame.data)
    }

    /// The next frame, whatever it is; `None` = the connection was closed.
    pub async fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.others.pop_front() {
            return Some(frame);
        }
        self.receive().await
    }

    /// Frames of this type that came already.
    pub fn kept(&self, kind: FrameType) -> usize {
        self.others.iter().filter(|frame| frame.frame_type == kind).count()
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        if let Some(at) = self.others.iter().position(&wanted) {
            return self.others.remove(at);
        }
        loop {
            let frame = self.receive().await?;
            if wanted(&frame) {
                return Some(frame);
            }
            self.others.push_back(frame);
        }
    }

    async fn receive(&mut self) -> Option<Frame> {
        let received = async {
            loop {
                match self.deframer.next_frame().expect("the broker's frames are good") {
                    Some(Received::Frame(frame)) => return Some(frame),
                    Some(other) => panic!("{other:?}"),
                    None => {}
                }
                self.stream.readable().await.expect("readable");
                match self.stream.try_read_buf(&mut self.deframer.spare()) {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(PATIENCE, received).await.expect("something comes in time")
    }
}

/// A batch of these values.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder =
        BatchBuilder::new(BuilderOptions { bytes_max: 8 << 20, ..Default::default() });
    for value in values {
        let timestamp = Timestamp(1_700_000_000_000);
        let record = RecordRef { timestamp, key: None, value: Some(value), headers: &[] };
        builder.push(&record).expect("it fits");
    }
    builder.build()
}

/// The batches as they were sent: without what the broker stamps (base offset, leader epoch).
pub fn unstamped(mut stored: Bytes) -> Vec<Bytes> {
    let mut batches = Vec::new();
    while !stored.is_empty() {
        let length = (&stored[8..12]).get_i32() as usize + 12;
        batches.push(stored.split_to(length).slice(16..));
    }
    batches
}

/// The base offsets of stored batches.
pub fn base_offsets(mut stored: Bytes) -> Vec<Offset> {
    let mut offsets = Vec::new();
    while !stored.is_empty() {
        let length = (&stored[8..12]).get_i32() as usize + 12;
        offsets.push(Offset((&stored[..8]).get_i64()));
        stored.advance(length);
    }
    offsets
}
