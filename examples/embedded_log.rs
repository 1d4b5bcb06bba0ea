//! A log inside a program: no server, no network, the same files.
//!
//! `cargo run --example embedded_log`

use stoplog::broker::{Broker, BrokerOptions, NewTopic, ProduceRequest, ReadMode, ShutdownMode};
use stoplog::record::{BatchBuilder, BuilderOptions, RecordRef, Records};
use stoplog::types::{Acks, Class, Offset, PartitionId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let broker = Broker::open(BrokerOptions::new(dir.path())).await?;
    let orders = broker.create_topic(NewTopic::new("orders".parse()?, 1)).await?;

    let mut batch = BatchBuilder::new(BuilderOptions::default());
    for order in ["OrderPlaced 1", "OrderPaid 1", "OrderShipped 1"] {
        batch.push(&RecordRef { value: Some(order.as_bytes()), ..RecordRef::default() })?;
    }
    let produced = broker
        .produce_and_wait(ProduceRequest {
            topic: orders.id(),
            partition: PartitionId(0),
            batch: batch.build(),
            acks: Acks::Durable,
            deadline: None,
            connection: None,
            class: Class::Normal,
            standing: None,
        })
        .await?;
    println!("stored from offset {}, {}", produced.base_offset, produced.level);

    let partition = orders.partition(PartitionId(0)).ok_or("the topic has a partition")?;
    let fetched = partition.read(Offset::ZERO, 1 << 20, ReadMode::Owned).await?;
    for mut data in fetched.data {
        while let Some(records) = Records::take_batch(&mut data, &Default::default()) {
            for record in records? {
                let record = record?;
                let value = record.value.unwrap_or_default();
                println!("{}: {}", record.offset, String::from_utf8_lossy(&value));
            }
        }
    }
    broker.shutdown(ShutdownMode::Graceful).await;
    Ok(())
}
