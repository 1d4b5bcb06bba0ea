//! The real binary on a disk of 256 MiB, filled to its end by its producers or by another program,
//! killed and started again there: what was acknowledged is there, reads and commits go on, every
//! refusal says why, and producing goes on by itself once there is space.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use stoplog::client::{Client, ClientOptions, CommitMode, ConsumerOptions, Run, StopAt};
use stoplog::protocol::native::{FrameType, pushback};
use stoplog::record::{BatchBuilder, BuilderOptions, Record, RecordRef};
use stoplog::types::{
    Acks, Effects, GroupId, Offset, PartitionId, Pushback, PushbackCode, TopicId, TopicName,
};

use super::peer::{Peer, greeting};
use crate::process::Broker;

const CAPACITY: u64 = 256 << 20;
const VALUE_BYTES: usize = 250 << 10;
/// Nothing takes so many turns unless it hangs.
const TURNS_MAX: usize = 20_000;
/// What a producer that obeys waits at most once there is space again.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const FULL: [PushbackCode; 1] = [PushbackCode::DiskFull];

async fn peer(broker: &Broker) -> Peer {
    let mut peer = Peer::connect(broker.address.parse().expect("an address")).await;
    peer.call(&greeting()).await.expect("welcome");
    peer
}

async fn client(broker: &Broker) -> Client {
    Client::connect(&broker.address, ClientOptions::default()).await.expect("connects")
}

async fn topic(broker: &Broker, name: &TopicName) -> TopicId {
    let settings = [("segment_bytes", "8MiB"), ("durability", "os"), ("retention_ms", "none")];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let made = client(broker).await.admin().create_topic(name, 1, &settings, Run::Really).await;
    made.expect("a topic").id
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
    acked: Vec<u64>,
    refused: Vec<Pushback>,
}

impl Writer {
    async fn new(broker: &Broker, name: &TopicName) -> Writer {
        let topic = topic(broker, name).await;
        Writer { peer: peer(broker).await, topic, acked: vec![], refused: vec![] }
    }

    /// One batch; the refusal, when it was refused. Its number is sent again then.
    async fn write(&mut self) -> Result<(), Pushback> {
        let (to, next) = ((self.topic, 0), self.acked.len() as u64);
        let correlation = self.peer.produce(to, Acks::Topic, &batch(next)).await;
        let frame = self.peer.answer_to(correlation).await;
        if frame.frame_type == FrameType::Pushback {
            let refused: pushback::Request = frame.decode().expect("it decodes");
            self.refused.push(refused.pushback.clone());
            return Err(refused.pushback);
        }
        assert!(!frame.flags.is_error(), "a refusal is typed");
        self.acked.push(next);
        Ok(())
    }

    /// Writes so many bytes without a single refusal.
    async fn write_bytes(&mut self, bytes: u64) {
        for _ in 0..bytes.div_ceil(VALUE_BYTES as u64) {
            self.write().await.expect("there is room");
        }
    }

    /// Writes as a producer that obeys, until a refusal with one of these codes.
    async fn fill(&mut self, until: &[PushbackCode]) {
        for _ in 0..TURNS_MAX {
            let Err(refused) = self.write().await else { continue };
            if until.contains(&refused.code) {
                return;
            }
            tokio::time::sleep(wait(&refused)).await;
        }
        panic!("{until:?} never came");
    }

    /// The same until one is written: what it is told to wait is the time that service is away.
    async fn persist(&mut self) {
        let mut told = Duration::ZERO;
        while let Err(refused) = self.write().await {
            told += wait(&refused);
            assert!(told <= BACK_WITHIN, "there is space, and yet {refused:?}");
            tokio::time::sleep(wait(&refused)).await;
        }
    }

    fn check_refusals(&self) {
        let known = [PushbackCode::DiskLow, PushbackCode::DiskFull, PushbackCode::TopicFull];
        for refusal in &self.refused {
            assert!(known.contains(&refusal.code), "{refusal:?}");
            assert_eq!(refusal.effects, Effects::None);
            assert!(refusal.retry_after_ms > 0, "{refusal:?}");
        }
    }
}

fn wait(refused: &Pushback) -> Duration {
    Duration::from_millis(u64::from(refused.retry_after_ms))
}

fn facts() -> TopicName {
    "facts".parse().expect("a name")
}

/// The number that a record was made of.
fn number(record: &Record) -> u64 {
    let value = record.value.as_deref().expect("a value");
    u64::from_be_bytes(value[..8].try_into().expect("eight bytes"))
}

/// Numbers of all records, as a group reads them that commits what it read.
async fn read_and_commit(broker: &Broker, group: &str) -> Vec<u64> {
    let client = client(broker).await;
    let group: GroupId = group.parse().expect("a name");
    let options = ConsumerOptions {
        stop: StopAt::End,
        commit: CommitMode::Auto { every: Duration::from_millis(50) },
        ..ConsumerOptions::group(group.clone(), facts())
    };
    let mut consumer = client.consumer(options).await.expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(record) = consumer.next().await {
        numbers.push(number(&record.expect("readable").record));
    }
    consumer.close().await.expect("it commits");
    let described = client.admin().describe_group(&group).await.expect("there is such a group");
    let committed = described.offsets.first().and_then(|at| at.committed).expect("committed");
    assert_eq!(committed, Offset(numbers.len() as i64), "commits go on");
    numbers
}

#[test]
fn a_full_disk_loses_nothing_and_opens_when_records_are_trimmed_or_a_topic_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let capacity = format!("disk.capacity_bytes={CAPACITY}");
    let mut broker = Broker::inside(&[], dir.path(), &[&capacity]);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let doomed: TopicName = "doomed".parse().expect("a name");
        Writer::new(&broker, &doomed).await.write_bytes(CAPACITY / 8).await;
        let mut writer = Writer::new(&broker, &facts()).await;
        writer.fill(&[PushbackCode::DiskLow, PushbackCode::DiskFull]).await;
        let first = writer.acked.len() as u64 * VALUE_BYTES as u64 + CAPACITY / 8;
        assert!(first >= CAPACITY / 2, "{first} bytes before the first refusal");
        writer.fill(&FULL).await;
        assert_eq!(read_and_commit(&broker, "before").await, writer.acked);

        broker.kill_and_restart();
        assert_eq!(read_and_commit(&broker, "killed").await, writer.acked, "none lost, none twice");
        writer.peer = peer(&broker).await;
        writer.fill(&FULL).await;
        broker.restart();
        assert_eq!(read_and_commit(&broker, "stopped").await, writer.acked);
        writer.peer = peer(&broker).await;
        writer.fill(&FULL).await;

        let admin = client(&broker).await.admin();
        let before = Offset(writer.acked.len() as i64 - 10);
        let trimmed = admin.trim(&facts(), PartitionId(0), before, Run::Really).await;
        trimmed.expect("trims go on");
        writer.persist().await;
        writer.fill(&FULL).await;
        admin.delete_topic(&doomed, Run::Really).await.expect("deletes go on");
        writer.persist().await;
        let left = read_from(&broker, before).await;
        assert_eq!(left, writer.acked[before.0 as usize..], "what was not trimmed");
        writer.check_refusals();
    });
}

/// A tmpfs in a mount namespace of its own, which a process holds: it goes with it, and needs no
/// rights where users may have namespaces.
struct SmallDisk {
    holder: Child,
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `Err` = why this machine has none.
    fn mount() -> Result<SmallDisk, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "mount -t tmpfs -o size=$2 tmpfs \"$1\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(dir.path())
            .arg(CAPACITY.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut said = [0; 7];
        let stdout = holder.stdout.as_mut().expect("a pipe");
        if std::io::Read::read_exact(stdout, &mut said).is_err() {
            return Err(format!("unshare and mount: {}", holder.wait().expect("it ended")));
        }
        Ok(SmallDisk { holder, dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What runs a program there.
    fn inside(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let words = ["nsenter", "--target", &pid, "--user", "--mount", "--preserve-credentials"];
        words.map(str::to_owned).to_vec()
    }

    /// Another program there.
    fn shell(&self, script: &str) {
        let inside = self.inside();
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).args(["sh", "-c", script, "sh"]).arg(self.path());
        assert!(command.status().expect("it runs").success(), "{script}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn another_program_fills_the_disk_and_when_it_leaves_service_is_back() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: no tmpfs to fill here: {reason}"),
    };
    let mut broker = Broker::inside(&disk.inside(), &disk.path().join("data"), &[]);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let mut writer = Writer::new(&broker, &facts()).await;
        writer.write_bytes(CAPACITY / 2).await;
        // It writes until it is told that nothing is left.
        disk.shell("! cat /dev/zero >\"$1/others\" 2>/dev/null");
        writer.fill(&FULL).await;
        assert_eq!(read_and_commit(&broker, "before").await, writer.acked);
        broker.kill_and_restart();
        assert_eq!(read_and_commit(&broker, "killed").await, writer.acked, "none lost, none twice");
        writer.peer = peer(&broker).await;
        writer.fill(&FULL).await;
        disk.shell("rm \"$1/others\"");
        writer.persist().await;
        assert_eq!(read_and_commit(&broker, "afterwards").await, writer.acked);
        writer.check_refusals();
    });
}

/// Numbers of the records from here on.
async fn read_from(broker: &Broker, from: Offset) -> Vec<u64> {
    let client = client(broker).await;
    let options = ConsumerOptions { stop: StopAt::End, ..ConsumerOptions::topic(facts()) };
    let mut consumer = client.consumer(options).await.expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record.expect("readable").record;
        if record.offset >= from {
            numbers.push(number(&record));
        }
    }
    numbers
}
