//! A broker with a server, and clients of it.

use std::time::Duration;

use stoplog::broker::{Broker, BrokerOptions, NewTopic, ShutdownMode};
use stoplog::client::{
    Client, ClientOptions, ConsumedRecord, Consumer, ConsumerOptions, Delivered, NewRecord,
    Producer, ProducerOptions, Reading, StopAt,
};
use stoplog::server::{RunningServer, Server, ServerOptions};
use stoplog::types::{GroupId, Offset, PartitionId, TopicName};

/// Longer than any of these tests takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub dir: tempfile::TempDir,
    pub broker: Broker,
    pub server: RunningServer,
    pub address: String,
}

pub fn topic() -> TopicName {
    "orders".parse().unwrap()
}

pub fn group(name: &str) -> GroupId {
    name.parse().unwrap()
}

impl World {
    pub async fn start(partitions: u32) -> World {
        let dir = tempfile::tempdir().unwrap();
        let (broker, server) = serve(dir.path(), "127.0.0.1:0").await;
        broker.create_topic(NewTopic::new(topic(), partitions)).await.unwrap();
        let address = server.local_addr().to_string();
        World { dir, broker, server, address }
    }

    /// The broker goes away and comes back, at the same address.
    pub async fn restart(self, mode: ShutdownMode) -> World {
        let World { dir, broker, server, address } = self;
        server.shutdown(mode).await;
        broker.shutdown(mode).await;
        drop(broker);
        let (broker, server) = serve(dir.path(), &address).await;
        World { dir, broker, server, address }
    }

    pub async fn client(&self) -> Client {
        connect(&self.address).await
    }

    pub async fn producer(&self) -> Producer {
        self.client().await.producer(&topic(), ProducerOptions::default()).await.unwrap()
    }

    /// Waits until the first partition shows so many records: what is answered at `os` in a topic
    /// that syncs is shown after the sync.
    pub async fn shows(&self, records: i64) {
        let topic = self.broker.topic(&topic()).unwrap();
        let partition = topic.partition(PartitionId(0)).unwrap();
        let shown = partition.wait_visible(Offset(records - 1));
        tokio::time::timeout(PATIENCE, shown).await.unwrap().unwrap();
    }

    /// Everything that is in the topic now, partition by partition, in order.
    pub async fn everything(&self) -> Vec<ConsumedRecord> {
        let mut options = ConsumerOptions::topic(topic());
        options.stop = StopAt::End;
        let mut consumer = self.client().await.consumer(options).await.unwrap();
        let mut all = rest(&mut consumer).await;
        all.sort_by_key(|record| (record.partition, record.record.offset));
        all
    }
}

async fn serve(dir: &std::path::Path, listen: &str) -> (Broker, RunningServer) {
    let mut options = BrokerOptions::new(dir);
    // A member that is gone said so, or its successor did: no test waits for a session to end.
    options.groups.session_timeout_ms = 10 * 60_000;
    let broker = Broker::open(options).await.unwrap();
    let options = ServerOptions { listen: listen.to_owned(), ..ServerOptions::default() };
    let server = Server::start(broker.clone(), options).await.unwrap();
    (broker, server)
}

pub async fn connect(address: &str) -> Client {
    Client::connect(address, ClientOptions::default()).await.unwrap()
}

pub fn in_group(name: &str, instance: Option<&str>) -> ConsumerOptions {
    ConsumerOptions::new(Reading::Group {
        group: group(name),
        topics: vec![topic()],
        instance_id: instance.map(str::to_owned),
        assignor: None,
    })
}

/// Sends keyed records and waits until all are in the log; where each of them is.
pub async fn send(producer: &Producer, numbers: std::ops::Range<u32>) -> Vec<Delivered> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let (key, value) = (format!("customer-{}", number % 17), number.to_string());
        let record = NewRecord::keyed(key.as_bytes(), value.as_bytes());
        deliveries.push(producer.send(record).await.unwrap());
    }
    let mut delivered = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        delivered.push(within(delivery.wait()).await.unwrap());
    }
    delivered
}

pub async fn next(consumer: &mut Consumer) -> ConsumedRecord {
    within(consumer.next()).await.unwrap().unwrap()
}

/// What is left until reading ends.
pub async fn rest(consumer: &mut Consumer) -> Vec<ConsumedRecord> {
    let mut all = Vec::new();
    while let Some(record) = within(consumer.next()).await {
        all.push(record.unwrap());
    }
    all
}

pub fn number(record: &ConsumedRecord) -> u32 {
    let value = record.record.value.as_ref().unwrap();
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Each number once, and each key's numbers in order.
pub fn check_all(records: &[ConsumedRecord], count: u32) {
    let mut numbers: Vec<u32> = records.iter().map(number).collect();
    for lane in records.chunk_by(|a, b| a.partition == b.partition) {
        for key in 0..17 {
            let of_key: Vec<u32> = lane.iter().map(number).filter(|n| n % 17 == key).collect();
            assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

pub async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}
