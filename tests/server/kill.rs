//! The real binary under `kill -9`, again and again, while producers, a group and topic creation
//! run against it. Afterwards every acknowledged record is there exactly once, at the offset that
//! was acknowledged, in order; every acknowledged topic exists; no committed offset went back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoplog::client::{
    Client, ClientOptions, CommitMode, ConsumerOptions, NewRecord, ProducerOptions, Run, StopAt,
};
use stoplog::types::{Acks, ErrorCode, GroupId, Offset, PartitionId, TopicName};
use tokio::task::JoinHandle;

use crate::process::Broker;

/// Kills in one run. `STOPLOG_KILLS` asks for a longer campaign.
const KILLS: u64 = 50;
/// Acknowledgements that must arrive between two kills: every start has to serve.
const ACKS_PER_LIFE: u64 = 60;
const PRODUCERS: u64 = 3;
const PARTITIONS: u32 = 4;
/// Nothing takes so long unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// What was acknowledged: (producer, sequence) -> where.
type Acked = Arc<Mutex<HashMap<(u64, u64), (PartitionId, Offset)>>>;

#[derive(Clone)]
struct World {
    address: String,
    stop: Arc<AtomicBool>,
    acks: Arc<AtomicU64>,
    acked: Acked,
    topics: Arc<Mutex<Vec<TopicName>>>,
}

fn facts() -> TopicName {
    "facts".parse().expect("a name")
}

async fn connect(address: &str) -> Client {
    let options = ClientOptions { retry_timeout: HANGS_AFTER, ..ClientOptions::default() };
    loop {
        match Client::connect(address, options.clone()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

impl World {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Sends numbered records and notes where each acknowledged one is said to be.
    async fn produce(self, producer: u64) {
        let client = connect(&self.address).await;
        let options = ProducerOptions { acks: Acks::Durable, ..ProducerOptions::default() };
        let sender = client.producer(&facts(), options).await.expect("a producer");
        let mut sequence = 0;
        while self.goes_on() {
            let mut under_way = Vec::new();
            for _ in 0..8 {
                let key = format!("{producer}-{}", sequence % 5);
                let value = format!("{producer} {sequence}");
                let record = NewRecord::keyed(key.as_bytes(), value.as_bytes());
                under_way.push((sequence, sender.send(record).await.expect("room")));
                sequence += 1;
            }
            for (sequence, delivery) in under_way {
                let delivered = delivery.wait().await.expect("an idempotent producer gets through");
                let offset = delivered.offset.expect("the last five batches are remembered");
                let place = (delivered.partition, offset);
                self.acked.lock().expect("map").insert((producer, sequence), place);
                self.acks.fetch_add(1, Ordering::SeqCst);
            }
        }
        sender.close().await.expect("nothing is left");
    }

    /// Creates topics; an unknown outcome is settled by asking again.
    async fn create_topics(self) {
        let client = connect(&self.address).await;
        let mut number = 0;
        while self.goes_on() {
            let name: TopicName = format!("made-{number}").parse().expect("a name");
            match client.admin().create_topic(&name, 1, &[], Run::Really).await {
                Ok(_) => self.topics.lock().expect("list").push(name),
                Err(error) if error.code() == ErrorCode::TopicExists => {}
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            }
            number += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads as a member of a group; each committed offset is checked against the ones before.
    async fn subscribe(self) {
        let client = connect(&self.address).await;
        let group: GroupId = "readers".parse().expect("a name");
        let options = ConsumerOptions {
            commit: CommitMode::Auto { every: Duration::from_millis(50) },
            ..ConsumerOptions::group(group, facts())
        };
        let mut consumer = client.consumer(options).await.expect("a consumer");
        while self.goes_on() {
            let _ = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
        }
        let _ = tokio::time::timeout(HANGS_AFTER, consumer.close()).await.expect("no hang");
    }

    /// Watches the group's committed offsets.
    async fn watch_commits(self) -> u64 {
        let client = connect(&self.address).await;
        let group: GroupId = "readers".parse().expect("a name");
        let mut seen: HashMap<PartitionId, Offset> = HashMap::new();
        let mut moves = 0;
        while self.goes_on() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(group) = client.admin().describe_group(&group).await else { continue };
            for at in group.offsets {
                let Some(committed) = at.committed else { continue };
                let before = seen.insert(at.partition, committed).unwrap_or(Offset::ZERO);
                assert!(committed >= before, "partition {} went back", at.partition);
                assert!(committed <= at.end, "partition {} is ahead of its end", at.partition);
                moves += u64::from(committed > before);
            }
        }
        moves
    }

    /// Everything in the log, checked against what was acknowledged.
    async fn verify(&self) {
        let client = connect(&self.address).await;
        let options = ConsumerOptions { stop: StopAt::End, ..ConsumerOptions::topic(facts()) };
        let mut consumer = client.consumer(options).await.expect("a consumer");
        let mut found: HashMap<(u64, u64), (PartitionId, Offset)> = HashMap::new();
        let mut last: HashMap<(PartitionId, u64, u64), u64> = HashMap::new();
        while let Some(record) = consumer.next().await {
            let record = record.expect("readable");
            let value = record.record.value.expect("a value");
            let text = std::str::from_utf8(&value).expect("text");
            let (producer, sequence) = text.split_once(' ').expect("two numbers");
            let id = (producer.parse().expect("number"), sequence.parse().expect("number"));
            let place = (record.partition, record.record.offset);
            assert_eq!(found.insert(id, place), None, "{id:?} is in the log twice");
            let lane = (record.partition, id.0, id.1 % 5);
            if let Some(before) = last.insert(lane, id.1) {
                assert!(before < id.1, "{id:?} stands behind its successor");
            }
        }
        for (id, place) in self.acked.lock().expect("map").iter() {
            assert_eq!(found.get(id), Some(place), "acknowledged {id:?}");
        }
        let listed = client.admin().list_topics().await.expect("a list");
        for name in self.topics.lock().expect("list").iter() {
            assert!(listed.iter().any(|topic| topic.name == *name), "{name} was acknowledged");
        }
    }
}

async fn wait_for_acks(world: &World, enough: u64) {
    let waiting = async {
        while world.acks.load(Ordering::SeqCst) < enough {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(HANGS_AFTER, waiting).await.expect("producing goes on after every start");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let kills = std::env::var("STOPLOG_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let dir = tempfile::tempdir().expect("a directory");
    let mut broker = Broker::start(dir.path());
    let world = World {
        address: broker.address.clone(),
        stop: Arc::default(),
        acks: Arc::default(),
        acked: Arc::default(),
        topics: Arc::default(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (tasks, watcher) = runtime.block_on(async {
        let client = connect(&world.address).await;
        let settings = [("segment_bytes".to_owned(), "64KiB".to_owned())];
        let made = client.admin().create_topic(&facts(), PARTITIONS, &settings, Run::Really).await;
        made.expect("a topic");
        let mut tasks: Vec<JoinHandle<()>> =
            (0..PRODUCERS).map(|id| tokio::spawn(world.clone().produce(id))).collect();
        tasks.push(tokio::spawn(world.clone().create_topics()));
        tasks.push(tokio::spawn(world.clone().subscribe()));
        (tasks, tokio::spawn(world.clone().watch_commits()))
    });
    for _ in 0..kills {
        let enough = world.acks.load(Ordering::SeqCst) + ACKS_PER_LIFE;
        runtime.block_on(wait_for_acks(&world, enough));
        broker.kill_and_restart();
    }
    runtime.block_on(async {
        world.stop.store(true, Ordering::SeqCst);
        for task in tasks {
            tokio::time::timeout(HANGS_AFTER, task).await.expect("no hang").expect("no panic");
        }
        let moves = watcher.await.expect("no panic");
        assert!(moves > 0, "the group committed nothing");
        world.verify().await;
    });
    let acked = world.acked.lock().expect("map").len() as u64;
    assert!(acked >= kills * ACKS_PER_LIFE);
    println!("{kills} kills, {acked} acknowledged records, 0 lost");
}
