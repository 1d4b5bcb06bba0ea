//! Orders as events with three subscribers: each group reads everything, at its own pace.
//!
//! `cargo run --example order_events`: a broker in this process, clients over TCP.

use stoplog::broker::{Broker, BrokerOptions, NewTopic, ShutdownMode};
use stoplog::client::{Client, ClientOptions, ConsumerOptions, NewRecord, ProducerOptions, StopAt};
use stoplog::server::{Server, ServerOptions};
use stoplog::types::TopicName;

const ORDERS: u32 = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let broker = Broker::open(BrokerOptions::new(dir.path())).await?;
    let options = ServerOptions { listen: "127.0.0.1:0".to_owned(), ..ServerOptions::default() };
    let server = Server::start(broker.clone(), options).await?;
    let address = server.local_addr().to_string();
    let topic: TopicName = "orders".parse()?;
    broker.create_topic(NewTopic::new(topic.clone(), 8)).await?;

    let client = Client::connect(&address, ClientOptions::default()).await?;
    let producer = client.producer(&topic, ProducerOptions::default()).await?;
    for order in 0..ORDERS {
        // Orders of one customer stay in order: they share a key, and so a partition.
        let customer = format!("customer-{}", order % 40);
        let event = format!(r#"{{"type":"OrderPlaced","order":{order}}}"#);
        let _delivery =
            producer.send(NewRecord::keyed(customer.as_bytes(), event.as_bytes())).await?;
    }
    producer.close().await?;

    let mut subscribers = Vec::new();
    for name in ["email", "inventory", "analytics"] {
        let mut options = ConsumerOptions::group(name.parse()?, topic.clone());
        options.stop = StopAt::End;
        let client = client.clone();
        subscribers.push(tokio::spawn(async move {
            let mut consumer = client.consumer(options).await?;
            let mut seen = 0;
            while let Some(record) = consumer.next().await {
                record?;
                seen += 1;
            }
            consumer.close().await?;
            Ok::<_, stoplog::client::ClientError>((name, seen))
        }));
    }
    for subscriber in subscribers {
        let (name, seen) = subscriber.await??;
        println!("{name} saw {seen} of {ORDERS} orders");
    }
    server.shutdown(ShutdownMode::Graceful).await;
    broker.shutdown(ShutdownMode::Graceful).await;
    Ok(())
}
