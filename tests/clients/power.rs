//! A broker that loses power, on a simulated disk, under clients that go on.

use std::sync::Arc;

use stoplog::broker::{Broker, BrokerOptions, NewTopic, ShutdownMode};
use stoplog::client::{ConsumerOptions, LostRange, NewRecord, ProducerOptions, StopAt};
use stoplog::env::sim::{Bias, Crash, SimDisk};
use stoplog::env::{Env, SeededRng, SystemClock};
use stoplog::server::{RunningServer, Server, ServerOptions};
use stoplog::types::{Acks, Durability, DurabilityLevel, Offset, PartitionId};

use crate::world::{connect, number, rest, send, topic, within};

async fn serve(disk: &SimDisk, listen: &str) -> (Broker, RunningServer) {
    let env = Env {
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SeededRng::new(7)),
        disk: Arc::new(disk.clone()),
    };
    let mut options = BrokerOptions::new("");
    options.storage.reserve_bytes_max = 64 << 10;
    let broker = Broker::open_with(options, env).await.unwrap();
    let options = ServerOptions { listen: listen.to_owned(), ..ServerOptions::default() };
    let server = Server::start(broker.clone(), options).await.unwrap();
    (broker, server)
}

async fn os_topic(broker: &Broker) {
    let mut orders = NewTopic::new(topic(), 1);
    orders.config.durability = Durability::Os;
    broker.create_topic(orders).await.unwrap();
}

/// All numbers there are.
async fn read_all(address: &str) -> Vec<u32> {
    let mut options = ConsumerOptions::topic(topic());
    options.stop = StopAt::End;
    let mut consumer = connect(address).await.consumer(options).await.unwrap();
    rest(&mut consumer).await.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_of_which_nothing_is_left_learns_it_too() {
    let disk = SimDisk::new(2);
    let (broker, server) = serve(&disk, "127.0.0.1:0").await;
    os_topic(&broker).await;
    let address = server.local_addr().to_string();
    let options = ProducerOptions { batch_bytes: 256, ..ProducerOptions::default() };
    let producer = connect(&address).await.producer(&topic(), options).await.unwrap();
    let lost = send(&producer, 0..60).await;

    let after = disk.crash(Crash { bias: Bias::Nothing, seed: 1 });
    server.shutdown(ShutdownMode::AtOnce).await;
    drop(broker);
    let (broker, server) = serve(&after, &address).await;

    let next = send(&producer, 100..120).await;
    let range = LostRange { partition: PartitionId(0), records: 60, first_offset: lost[0].offset };
    assert_eq!(producer.take_losses(), [range]);
    assert!(next[0].offset > lost[59].offset);
    assert_eq!(read_all(&address).await, (100..120).collect::<Vec<_>>());
    within(producer.close()).await.unwrap();
    server.shutdown(ShutdownMode::Graceful).await;
    broker.shutdown(ShutdownMode::Graceful).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_names_what_a_power_cut_took_and_goes_on() {
    let disk = SimDisk::new(1);
    let (broker, server) = serve(&disk, "127.0.0.1:0").await;
    os_topic(&broker).await;
    let address = server.local_addr().to_string();
    let client = connect(&address).await;
    let options = ProducerOptions { batch_bytes: 256, ..ProducerOptions::default() };
    let producer = client.producer(&topic(), options.clone()).await.unwrap();
    let delivered = send(&producer, 0..40).await;
    assert!(delivered.iter().all(|delivered| delivered.level == DurabilityLevel::Os));
    // Somebody else's record, whose acknowledgement takes all that is before it to the disk.
    let durable = ProducerOptions { acks: Acks::Durable, ..options };
    let other = client.producer(&topic(), durable).await.unwrap();
    let marker = within(other.send(NewRecord::value(b"1000")).await.unwrap()).await.unwrap();
    assert_eq!(marker.level, DurabilityLevel::Durable);
    let lost = send(&producer, 40..100).await;
    assert_eq!(producer.take_losses(), []);

    let after = disk.crash(Crash { bias: Bias::Nothing, seed: 1 });
    server.shutdown(ShutdownMode::AtOnce).await;
    drop(broker);
    let (broker, server) = serve(&after, &address).await;

    let later = send(&producer, 100..150).await;
    assert!(later.iter().all(|delivered| !delivered.duplicate));
    let range = LostRange { partition: PartitionId(0), records: 60, first_offset: lost[0].offset };
    assert_eq!(producer.take_losses(), [range]);
    assert_eq!(producer.take_losses(), [], "said once");
    assert_eq!(lost[0].offset, Some(Offset(41)));
    let last = lost.last().unwrap().offset;
    assert!(later[0].offset > last, "an offset that was told is not given to another record");

    let expected: Vec<u32> = (0..40).chain([1_000]).chain(100..150).collect();
    assert_eq!(read_all(&address).await, expected);
    within(producer.close()).await.unwrap();
    server.shutdown(ShutdownMode::Graceful).await;
    broker.shutdown(ShutdownMode::Graceful).await;
}
