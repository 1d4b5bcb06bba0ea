//! The real binary in a data directory of 256 MiB, filled to its end, killed and started again there:
//! what was acknowledged is there, reads and commits go on, every refusal says why, and producing goes
//! on by itself once there is space.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use stoplog::client::{Client, ClientOptions, CommitMode, ConsumerOptions, Run, StopAt};
use stoplog::protocol::native::{FrameType, pushback};
use stoplog::record::{BatchBuilder, BuilderOptions, RecordRef};
use stoplog::types::{
    Acks, Effects, GroupId, Offset, PartitionId, Pushback, PushbackCode, TopicId, TopicName,
};

use super::peer::{Peer, greeting};

const CAPACITY: u64 = 256 << 20;
const VALUE_BYTES: usize = 250 << 10;
/// Nothing takes so many turns unless it hangs.
const TURNS_MAX: usize = 20_000;

/// A broker process that can be killed and started again.
struct Broker {
    data: PathBuf,
    running: Option<(Child, BufReader<ChildStdout>)>,
    address: String,
}

impl Broker {
    fn start(data: &Path) -> Broker {
        let mut broker =
            Broker { data: data.to_owned(), running: None, address: "127.0.0.1:0".to_owned() };
        broker.run();
        broker
    }

    fn run(&mut self) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stoplog"))
            .args(["serve", "--listen", &self.address, "--data"])
            .arg(&self.data)
            .env("STOPLOG_DISK_CAPACITY_BYTES", "256MiB")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is readable");
        let address = line.trim().strip_prefix("ready native=").expect("a ready line");
        self.address = address.split(' ').next().expect("an address").to_owned();
        self.running = Some((child, stdout));
    }

    fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            child.kill().expect("SIGKILL");
            child.wait().expect("the process ends");
        }
    }

    async fn peer(&self) -> Peer {
        let mut peer = Peer::connect(self.address.parse().expect("an address")).await;
        peer.call(&greeting()).await.expect("welcome");
        peer
    }

    async fn client(&self) -> Client {
        Client::connect(&self.address, ClientOptions::default()).await.expect("connects")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn batch(number: u64) -> Bytes {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(VALUE_BYTES, 7);
    let mut batch = BatchBuilder::new(BuilderOptions { bytes_max: 1 << 20, ..Default::default() });
    batch.push(&RecordRef { value: Some(&value), ..RecordRef::default() }).expect("room");
    batch.build()
}

/// Sends numbered batches one after another and notes what became of each.
struct Writer {
    peer: Peer,
    topic: TopicId,
    next: u64,
    acked: Vec<u64>,
    refused: Vec<Pushback>,
}

impl Writer {
    /// One batch; the refusal, when it was refused. Its number is sent again then.
    async fn write(&mut self) -> Result<(), Pushback> {
        let to = (self.topic, 0);
        let correlation = self.peer.produce(to, Acks::Topic, &batch(self.next)).await;
        let frame = self.peer.answer_to(correlation).await;
        if frame.frame_type == FrameType::Pushback {
            let refused: pushback::Request = frame.decode().expect("it decodes");
            self.refused.push(refused.pushback.clone());
            return Err(refused.pushback);
        }
        self.acked.push(self.next);
        self.next += 1;
        Ok(())
    }

    /// Writes as a producer that obeys, until a refusal with one of these codes.
    async fn fill(&mut self, until: &[PushbackCode]) {
        for _ in 0..TURNS_MAX {
            let Err(refused) = self.write().await else { continue };
            if until.contains(&refused.code) {
                return;
            }
            let wait = Duration::from_millis(u64::from(refused.retry_after_ms));
            tokio::time::sleep(wait).await;
        }
        panic!("{until:?} never came");
    }

    /// The same until one is written.
    async fn persist(&mut self) {
        for _ in 0..TURNS_MAX {
            let Err(refused) = self.write().await else { return };
            let wait = u64::from(refused.retry_after_ms).min(100);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        panic!("never: {:?}", self.refused.last());
    }
}

fn facts() -> TopicName {
    "facts".parse().expect("a name")
}

/// Numbers of all records, as a group reads them that commits what it read.
async fn read_and_commit(broker: &Broker, group: &str) -> Vec<u64> {
    let client = broker.client().await;
    let group: GroupId = group.parse().expect("a name");
    let options = ConsumerOptions {
        stop: StopAt::End,
        commit: CommitMode::Auto { every: Duration::from_millis(50) },
        ..ConsumerOptions::group(group.clone(), facts())
    };
    let mut consumer = client.consumer(options).await.expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(record) = consumer.next().await {
        let value = record.expect("readable").record.value.expect("a value");
        numbers.push(u64::from_be_bytes(value[..8].try_into().expect("eight bytes")));
    }
    consumer.close().await.expect("it commits");
    let described = client.admin().describe_group(&group).await.expect("there is such a group");
    let committed = described.offsets.first().and_then(|at| at.committed).expect("committed");
    assert_eq!(committed, Offset(numbers.len() as i64), "commits go on");
    numbers
}

#[test]
fn a_full_disk_loses_nothing_and_opens_by_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut broker = Broker::start(dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (topic, mut acked, mut refused) = runtime.block_on(async {
        let settings = [("segment_bytes", "8MiB"), ("durability", "os"), ("retention_ms", "none")];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let client = broker.client().await;
        let made = client.admin().create_topic(&facts(), 1, &settings, Run::Really).await;
        let topic = made.expect("a topic").id;
        let peer = broker.peer().await;
        let mut writer = Writer { peer, topic, next: 0, acked: vec![], refused: vec![] };
        writer.fill(&[PushbackCode::DiskLow, PushbackCode::DiskFull]).await;
        let first = writer.acked.len() as u64 * VALUE_BYTES as u64;
        assert!(first >= CAPACITY / 2, "{first} bytes before the first refusal");
        writer.fill(&[PushbackCode::DiskFull]).await;
        assert_eq!(read_and_commit(&broker, "before").await, writer.acked);
        (topic, writer.acked, writer.refused)
    });
    broker.kill();
    broker.run();
    runtime.block_on(async {
        assert_eq!(read_and_commit(&broker, "after").await, acked, "nothing lost, none twice");
        let next = acked.len() as u64;
        let peer = broker.peer().await;
        let mut writer = Writer { peer, topic, next, acked: vec![], refused: vec![] };
        writer.fill(&[PushbackCode::DiskFull]).await;
        acked.append(&mut writer.acked);
        let client = broker.client().await;
        let before = Offset(acked.len() as i64 - 10);
        let trimmed = client.admin().trim(&facts(), PartitionId(0), before, Run::Really).await;
        trimmed.expect("trims go on");
        writer.persist().await;
        acked.append(&mut writer.acked);
        refused.append(&mut writer.refused);
        let left = read_from(&broker, before).await;
        assert_eq!(left, acked[acked.len() - 11..], "what was not trimmed, and the new one");
    });
    let known = [PushbackCode::DiskLow, PushbackCode::DiskFull, PushbackCode::TopicFull];
    for refusal in &refused {
        assert!(known.contains(&refusal.code), "{refusal:?}");
        assert_eq!(refusal.effects, Effects::None);
        assert!(refusal.retry_after_ms > 0, "{refusal:?}");
    }
}

/// Numbers of the records from here on.
async fn read_from(broker: &Broker, from: Offset) -> Vec<u64> {
    let client = broker.client().await;
    let options = ConsumerOptions { stop: StopAt::End, ..ConsumerOptions::topic(facts()) };
    let mut consumer = client.consumer(options).await.expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record.expect("readable").record;
        if record.offset >= from {
            let value = record.value.expect("a value");
            numbers.push(u64::from_be_bytes(value[..8].try_into().expect("eight bytes")));
        }
    }
    numbers
}
