//! Publishes the input through an ordinary producer, at a pace that lets people watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::input::{Event, Input};
use crate::cli::failure::{CommandResult, Failure};
use crate::client::{Client, ClientOptions, NewRecord, ProducerOptions};
use crate::types::{Acks, ErrorCode, TopicName};

/// Events between the reading thread and the producer.
const EVENTS_AHEAD: usize = 256;
/// A broker that was killed is back long before a record is given up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Publishing under way.
#[derive(Debug)]
pub struct Publisher {
    task: JoinHandle<CommandResult>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    finished: AtomicBool,
}

impl Publisher {
    /// Starts to publish `input`, which has `events` events, over about `span`.
    pub fn start(
        server: String,
        topic: TopicName,
        input: &Input,
        events: u64,
        span: Duration,
    ) -> Publisher {
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
        let input = input.clone();
        std::thread::spawn(move || {
            let fed = input.for_each(|event| {
                let gone = |_| Failure::new(ErrorCode::Interrupted, "publishing ended");
                sender.blocking_send(Ok(event)).map_err(gone)
            });
            if let Err(failure) = fed {
                // Nobody listens any more when publishing failed first.
                let _ = sender.blocking_send(Err(failure));
            }
        });
        let progress = Arc::new(Progress::default());
        let pace = span.checked_div(u32::try_from(events.max(1)).unwrap_or(u32::MAX));
        let task =
            publish(server, topic, receiver, pace.unwrap_or_default(), Arc::clone(&progress));
        Publisher { task: tokio::spawn(task), progress }
    }

    /// Events handed to the producer so far.
    pub fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// Whether every event is acknowledged as durable.
    pub fn is_finished(&self) -> bool {
        self.progress.finished.load(Ordering::Relaxed)
    }

    /// An error when publishing ended with one.
    pub async fn check(&mut self) -> CommandResult {
        if self.task.is_finished() && !self.is_finished() {
            let ended = (&mut self.task).await;
            return ended.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
        }
        Ok(())
    }
}

async fn publish(
    server: String,
    topic: TopicName,
    mut events: mpsc::Receiver<Result<Event, Failure>>,
    pace: Duration,
    progress: Arc<Progress>,
) -> CommandResult {
    let options = ClientOptions {
        client_id: "demo-shop".to_owned(),
        retry_timeout: DELIVERY_TIMEOUT,
        ..ClientOptions::default()
    };
    let client = Client::connect(&server, options).await?;
    let options = ProducerOptions {
        acks: Acks::Durable,
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerOptions::default()
    };
    let producer = client.producer(&topic, options).await?;
    let mut due = Instant::now();
    while let Some(event) = events.recv().await {
        let event = event?;
        let record = NewRecord {
            key: event.key.as_deref(),
            value: Some(&event.value),
            ..NewRecord::default()
        };
        // Whether it arrived is learnt from `close`, for all of them at once.
        drop(producer.send(record).await?);
        progress.sent.fetch_add(1, Ordering::Relaxed);
        due += pace;
        if due > Instant::now() + Duration::from_millis(2) {
            sleep_until(due).await;
        }
    }
    producer.close().await?;
    progress.finished.store(true, Ordering::Relaxed);
    Ok(())
}
