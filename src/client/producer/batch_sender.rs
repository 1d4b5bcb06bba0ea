//! Batches that were built before, sent as they are: no work per record, no sequence numbers, no
//! retries. For load generators and for tools that copy logs.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Delivered;
use crate::client::connection::Connection;
use crate::client::core::Core;
use crate::client::{ClientError, Topic};
use crate::protocol::native::produce;
use crate::types::{Acks, PartitionId};

/// A sender of batches on one connection.
#[derive(Clone)]
pub struct BatchSender {
    /// Keeps the connection open.
    _core: Arc<Core>,
    connection: Arc<Connection>,
    topic: Topic,
}

impl BatchSender {
    pub(in crate::client) fn new(
        core: Arc<Core>,
        connection: Arc<Connection>,
        topic: Topic,
    ) -> BatchSender {
        BatchSender { _core: core, connection, topic }
    }

    /// The topic, as it was when the sender was made.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Queues one batch now; the future only waits for its answer. How many may be under way is
    /// the caller's business: the broker refuses what does not fit its pool.
    pub fn produce_batch(
        &self,
        partition: PartitionId,
        batch: Bytes,
        acks: Acks,
    ) -> impl Future<Output = Result<Delivered, ClientError>> + Send + use<> {
        let request = produce::Request {
            publisher: 0,
            topic: self.topic.id,
            partition,
            acks,
            deadline_ms: 0,
        };
        let (sender, receiver) = oneshot::channel();
        let sink = Box::new(move |answer| drop(sender.send(answer)));
        let queued = self.connection.produce(&request, batch, sink);
        async move {
            queued?;
            let answer = receiver.await.map_err(|_| ClientError::Closed)??;
            Ok(Delivered {
                partition,
                offset: answer.base_offset,
                timestamp: answer.append_time,
                level: answer.level,
                duplicate: answer.duplicate,
            })
        }
    }
}
