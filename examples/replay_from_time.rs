//! Reads a topic again from a moment on, without touching any group.
//!
//! `cargo run --example replay_from_time -- orders 1764000000000`: topic and milliseconds since
//! 1970; the broker's address comes from `STOPLOG_SERVER`, else 127.0.0.1:7600.

use stoplog::client::{Client, ClientOptions, ConsumerOptions, StartAt, StopAt};
use stoplog::types::{Timestamp, TopicName};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: replay_from_time TOPIC MILLISECONDS";
    let topic: TopicName = arguments.next().ok_or(usage)?.parse()?;
    let since: i64 = arguments.next().ok_or(usage)?.parse()?;
    let server = std::env::var("STOPLOG_SERVER").unwrap_or("127.0.0.1:7600".to_owned());

    let client = Client::connect(&server, ClientOptions::default()).await?;
    let mut options = ConsumerOptions::topic(topic);
    options.start = StartAt::Time(Timestamp(since));
    options.stop = StopAt::End;
    let mut consumer = client.consumer(options).await?;
    while let Some(record) = consumer.next().await {
        let record = record?;
        let value = record.record.value.unwrap_or_default();
        println!(
            "{}/{} {} {}",
            record.partition,
            record.record.offset,
            record.record.timestamp,
            String::from_utf8_lossy(&value)
        );
    }
    Ok(())
}
