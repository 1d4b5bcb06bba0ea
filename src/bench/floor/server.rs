//! The floor server: speaks enough of the native protocol that the ordinary client drives it, and
//! does only what cannot be left out. It receives frames and writes them; it sends what it mapped.
//!
//! One blocking thread reads a connection, one more sends its subscriptions. Nothing is checked
//! beyond lengths: it listens on loopback for the bench that started it and for nobody else.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use super::answers::{cluster_answer, hello_answer, publisher_answer, topic_metadata};
use super::pusher::{Credits, Pusher};
use super::round::{Finisher, Pending, Round, Rounds};
use super::topics::{Topic, Topics};
use crate::env::Env;
use crate::protocol::native::frame::HEADER_BYTES;
use crate::protocol::native::{
    ErrorAnswer, Frame, FrameHeader, FrameLimits, FrameType, Wire, cluster_info, credit,
    encode_answer, encode_error, hello, list_offsets, metadata, ping, produce, producer_init,
    publisher_open, subscribe, topic_create, topic_delete,
};
use crate::types::{ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicConfig};

/// Received at a time; holds several frames of the usual size.
const BUFFER_BYTES: usize = 2 << 20;

/// What the floor server does with a batch before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing, on the thread that received it.
    Bare,
    /// What the broker's design asks for: header and CRC-32C are checked, and a log writer's thread
    /// writes it.
    Required,
}

/// Serves until the process ends.
pub fn serve(listener: &TcpListener, env: &Env, work: Work) -> io::Result<()> {
    let address = listener.local_addr()?;
    let topics = Arc::new(Topics::new(Arc::clone(&env.disk)));
    let finisher = match work {
        Work::Bare => Finisher::Same(Arc::clone(&topics)),
        Work::Required => Finisher::writer(Arc::clone(&topics)),
    };
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let connection = Connection {
            address,
            topics: Arc::clone(&topics),
            out: Arc::new(Mutex::new(socket.try_clone()?)),
            credits: Arc::default(),
            pending: Vec::new(),
            replies: Vec::new(),
        };
        let rounds = Rounds::new(finisher.clone());
        std::thread::spawn(move || {
            if let Err(error) = connection.run(socket, &rounds) {
                tracing::debug!(%error, "a connection of the floor server ended");
            }
        });
    }
}

struct Connection {
    address: SocketAddr,
    topics: Arc<Topics>,
    out: Arc<Mutex<TcpStream>>,
    credits: Arc<Credits>,
    pending: Vec<Pending>,
    replies: Vec<u8>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.credits.close();
    }
}

impl Connection {
    /// Reads as much as there is, has all batches of it written and all of it answered.
    fn run(mut self, mut socket: TcpStream, rounds: &Rounds) -> io::Result<()> {
        let mut buffer = BytesMut::zeroed(BUFFER_BYTES);
        let mut filled = 0;
        loop {
            let read = socket.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            let mut at = 0;
            let mut missing = 0;
            while let Some(raw) = buffer[at..filled].first_chunk::<HEADER_BYTES>() {
                let header = FrameHeader::parse(raw, FrameLimits::DEFAULT)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                let frame_bytes = usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX);
                if at + frame_bytes > filled {
                    missing = frame_bytes;
                    break;
                }
                self.frame(&header, &buffer, at)?;
                at += frame_bytes;
            }
            let round = Round {
                buffer,
                pending: std::mem::take(&mut self.pending),
                replies: std::mem::take(&mut self.replies),
                out: Arc::clone(&self.out),
            };
            let next = rounds.finish(round, at, filled - at)?;
            (buffer, self.pending, self.replies) = (next.buffer, next.pending, next.replies);
            filled -= at;
            if missing > buffer.len() {
                buffer.resize(missing, 0);
            }
        }
    }

    fn frame(&mut self, header: &FrameHeader, buffer: &[u8], at: usize) -> io::Result<()> {
        let control_end = at + HEADER_BYTES + header.control_bytes as usize;
        let control = &buffer[at + HEADER_BYTES..control_end];
        let frame_type = FrameType::from_u16(header.frame_type);
        if frame_type == Some(FrameType::Produce) {
            let request = read::<produce::Request>(control)?;
            self.pending.push(Pending {
                correlation: header.correlation,
                topic: request.topic,
                partition: request.partition,
                from: control_end,
                to: control_end + header.data_bytes as usize,
            });
            return Ok(());
        }
        let frame = Frame {
            frame_type: frame_type.ok_or(io::ErrorKind::InvalidData)?,
            flags: header.flags,
            correlation: header.correlation,
            control: Bytes::copy_from_slice(control),
            data: Bytes::new(),
        };
        self.control(&frame)
    }

    fn control(&mut self, frame: &Frame) -> io::Result<()> {
        let id = frame.correlation;
        match frame.frame_type {
            FrameType::Hello => {
                encode_answer::<hello::Request>(&mut self.replies, id, &hello_answer());
            }
            FrameType::Ping => {
                encode_answer::<ping::Request>(&mut self.replies, id, &ping::Response {});
            }
            FrameType::Metadata => {
                let answer = self.metadata(&read(&frame.control)?);
                encode_answer::<metadata::Request>(&mut self.replies, id, &answer);
            }
            FrameType::TopicCreate => self.create(id, read(&frame.control)?)?,
            FrameType::TopicDelete => self.delete(id, &read(&frame.control)?)?,
            FrameType::ProducerInit => {
                let producer =
                    producer_init::Producer { id: ProducerId(1), epoch: ProducerEpoch(0) };
                let answer = producer_init::Response { producer };
                encode_answer::<producer_init::Request>(&mut self.replies, id, &answer);
            }
            FrameType::PublisherOpen => {
                let answer = publisher_answer();
                encode_answer::<publisher_open::Request>(&mut self.replies, id, &answer);
            }
            FrameType::ListOffsets => self.offsets(id, &read(&frame.control)?),
            FrameType::Subscribe => self.subscribe(id, read(&frame.control)?)?,
            FrameType::Credit => {
                self.credits.set(read(&frame.control)?);
            }
            FrameType::ClusterInfo => {
                let answer = cluster_info::Response { info: cluster_answer() };
                encode_answer::<cluster_info::Request>(&mut self.replies, id, &answer);
            }
            FrameType::Want | FrameType::Goodbye => {}
            other => {
                let error = ErrorAnswer::new(ErrorCode::Unsupported, "the floor has no such part");
                encode_error(&mut self.replies, other, id, &error);
            }
        }
        Ok(())
    }

    fn metadata(&self, request: &metadata::Request) -> metadata::Response {
        let topics = match &request.topics {
            metadata::TopicSelector::All => Vec::new(),
            metadata::TopicSelector::Names { names } => {
                names.iter().map(|name| (Some(name.clone()), self.topics.by_name(name))).collect()
            }
            metadata::TopicSelector::Ids { ids } => {
                ids.iter().map(|id| (None, self.topics.by_id(*id))).collect()
            }
        };
        let entry = |(name, topic): (Option<_>, Option<Arc<Topic>>)| match topic {
            Some(topic) => metadata::Entry {
                name: Some(topic.name.clone()),
                id: Some(topic.id),
                topic: Ok(topic_metadata(&topic)),
            },
            None => metadata::Entry {
                name,
                id: None,
                topic: Err(ErrorAnswer::new(ErrorCode::TopicNotFound, "no such topic")),
            },
        };
        let node = metadata::Node { node_id: 0, address: self.address.to_string() };
        metadata::Response { nodes: vec![node], topics: topics.into_iter().map(entry).collect() }
    }

    fn create(&mut self, id: u64, request: topic_create::Request) -> io::Result<()> {
        let synced =
            !request.settings.iter().any(|(key, value)| key == "durability" && value == "os");
        if self.topics.by_name(&request.name).is_some() {
            let error = ErrorAnswer::new(ErrorCode::TopicExists, "the topic is there");
            encode_error(&mut self.replies, FrameType::TopicCreate, id, &error);
            return Ok(());
        }
        let topic = self.topics.create(request.name, request.partitions, synced)?;
        let answer = topic_create::Response { id: topic.id, config: TopicConfig::default() };
        encode_answer::<topic_create::Request>(&mut self.replies, id, &answer);
        Ok(())
    }

    fn delete(&mut self, id: u64, request: &topic_delete::Request) -> io::Result<()> {
        let topic = match &request.topic {
            topic_delete::TopicRef::Name { name } => self.topics.by_name(name),
            topic_delete::TopicRef::Id { id } => self.topics.by_id(*id),
        };
        let Some(topic) = topic else {
            let error = ErrorAnswer::new(ErrorCode::TopicNotFound, "no such topic");
            encode_error(&mut self.replies, FrameType::TopicDelete, id, &error);
            return Ok(());
        };
        self.topics.delete(topic.id)?;
        let answer = topic_delete::Response { id: topic.id };
        encode_answer::<topic_delete::Request>(&mut self.replies, id, &answer);
        Ok(())
    }

    fn offsets(&mut self, id: u64, request: &list_offsets::Request) {
        let found = |query: &list_offsets::Query| {
            let topic = self.topics.by_id(query.topic);
            let end = topic.as_ref().and_then(|t| t.partition(query.partition)).map(|p| p.end());
            let offset = match query.at {
                list_offsets::OffsetSpec::Latest => end,
                _ => Some(Offset::ZERO),
            };
            Ok(list_offsets::Found { offset, timestamp: None, leader_epoch: LeaderEpoch(0) })
        };
        let offsets = request.partitions.iter().map(found).collect();
        let answer = list_offsets::Response { offsets };
        encode_answer::<list_offsets::Request>(&mut self.replies, id, &answer);
    }

    fn subscribe(&mut self, id: u64, request: subscribe::Request) -> io::Result<()> {
        let topic = self.topics.by_id(request.topic).ok_or(io::ErrorKind::NotFound)?;
        let partition = topic.partition(request.partition).ok_or(io::ErrorKind::NotFound)?;
        let answer = subscribe::Response { start: Offset::ZERO, visible_end: partition.end() };
        encode_answer::<subscribe::Request>(&mut self.replies, id, &answer);
        let first = credit::Request {
            subscription: request.subscription,
            epoch: 0,
            bytes_to: request.bytes_to,
            records_to: request.records_to,
        };
        self.credits.set(first);
        let (credits, out) = (Arc::clone(&self.credits), Arc::clone(&self.out));
        let pusher = Pusher::new(topic, request, credits, out);
        std::thread::spawn(move || pusher.run());
        Ok(())
    }
}

fn read<T: Wire>(control: &[u8]) -> io::Result<T> {
    T::decode(control).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::protocol::native::batches;
    use crate::record::{BatchBuilder, BuilderOptions, RecordRef};
    use crate::types::{Acks, PartitionId};

    /// Sends frames and reads what comes back until `enough` frames are there.
    fn exchange(
        socket: &mut TcpStream,
        frames: &[u8],
        enough: usize,
    ) -> Vec<(FrameHeader, Vec<u8>)> {
        socket.write_all(frames).expect("send");
        let mut answers = Vec::new();
        while answers.len() < enough {
            let mut raw = [0; HEADER_BYTES];
            socket.read_exact(&mut raw).expect("an answer");
            let header = FrameHeader::parse(&raw, FrameLimits::DEFAULT).expect("a frame");
            let len = header.frame_bytes() as usize - HEADER_BYTES;
            let mut body = vec![0; len];
            socket.read_exact(&mut body).expect("the answer's body");
            answers.push((header, body));
        }
        answers
    }

    fn batch(records: i32) -> Bytes {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        for _ in 0..records {
            let record = RecordRef { value: Some(b"value"), ..RecordRef::default() };
            builder.push(&record).expect("room");
        }
        builder.build()
    }

    #[test]
    fn what_was_produced_is_pushed_back() {
        for work in [Work::Bare, Work::Required] {
            produced_and_pushed_back(work);
        }
    }

    fn produced_and_pushed_back(work: Work) {
        let dir = tempfile::tempdir().expect("a directory");
        let env = Env::real(dir.path().to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut socket =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        std::thread::spawn(move || serve(&listener, &env, work));

        let mut out = Vec::new();
        let name = "floor".parse().expect("a name");
        let settings = vec![("durability".to_owned(), "os".to_owned())];
        let create = topic_create::Request { name, partitions: 2, settings, dry_run: false };
        crate::protocol::native::encode_call(&mut out, 1, &create);
        let (_, body) = exchange(&mut socket, &out, 1).remove(0);
        let topic = topic_create::Response::decode(&body).expect("created").id;

        out.clear();
        for (correlation, partition) in [(2, 0), (3, 1), (4, 0)] {
            let request = produce::Request {
                publisher: 0,
                topic,
                partition: PartitionId(partition),
                acks: Acks::Topic,
                deadline_ms: 0,
            };
            let batch = batch(5);
            produce::encode(&mut out, correlation, &request, &batch);
            out.extend_from_slice(&batch);
        }
        let mut bases: Vec<(u64, Option<Offset>)> = exchange(&mut socket, &out, 3)
            .into_iter()
            .map(|(h, body)| {
                let answer = produce::Response::decode(&body).expect("an ack");
                (h.correlation, answer.base_offset)
            })
            .collect();
        bases.sort();
        assert_eq!(bases, [(2, Some(Offset(0))), (3, Some(Offset(0))), (4, Some(Offset(5)))]);

        out.clear();
        let subscribe = subscribe::Request {
            subscription: 1,
            topic,
            partition: PartitionId(0),
            from: Offset(0),
            bytes_to: 1,
            records_to: 100,
            group: None,
        };
        crate::protocol::native::encode_call(&mut out, 5, &subscribe);
        let pushed = exchange(&mut socket, &out, 2);
        let data = pushed.iter().find(|(h, _)| h.frame_type == FrameType::Batches.as_u16());
        let (header, body) = data.expect("one batch for one byte of credit");
        let control = header.control_bytes as usize;
        let notice = batches::Request::decode(&body[..control]).expect("a notice");
        assert_eq!((notice.next_offset, notice.visible_end), (Offset(5), Offset(10)));
        assert_eq!(body.len() - control, batch(5).len());
    }
}
