//! The client's root: the current connection, made anew when it breaks, and what is known of
//! topics. Everything made from a client shares it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::admin::Admin;
use super::connection::Connection;
use super::flow::{Retry, RetryContract};
use super::moment::{instant, moment};
use super::{
    BatchSender, ClientError, ClientOptions, Consumer, ConsumerOptions, Producer, ProducerOptions,
};
use crate::env::{Clock, SystemClock, SystemRng};
use crate::protocol::native::metadata::{self, TopicSelector};
use crate::protocol::native::{BufferPool, Call, ErrorAnswer};
use crate::types::{
    Class, CompressionHint, ErrorCode, PartitionId, TimestampType, TopicId, TopicName,
};

/// What a client knows of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// Number of its partitions.
    pub partitions: u32,
    /// Largest batch it takes.
    pub max_message_bytes: u32,
    /// Who writes timestamps.
    pub timestamp_type: TimestampType,
    /// What producers are advised to use.
    pub compression: CompressionHint,
}

/// A client of one broker. Cheap to clone; the connection closes with the last clone of it and of
/// everything made from it.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

pub(super) struct Core {
    pub(super) options: ClientOptions,
    pub(super) rng: SystemRng,
    pub(super) clock: SystemClock,
    address: String,
    pool: Arc<BufferPool>,
    current: tokio::sync::Mutex<Option<Arc<Connection>>>,
    names: Mutex<HashMap<TopicId, TopicName>>,
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(connection) = self.current.get_mut().take() {
            connection.close(ClientError::Closed);
        }
    }
}

impl Client {
    /// Connects to `HOST:PORT`. A broker that cannot be reached now is an error; later losses of
    /// the connection are mended by themselves.
    pub async fn connect(address: &str, options: ClientOptions) -> Result<Client, ClientError> {
        let core = Core {
            pool: BufferPool::new(options.receive_bytes_kept),
            options,
            rng: SystemRng::new(),
            clock: SystemClock::new(),
            address: address.to_owned(),
            current: tokio::sync::Mutex::new(None),
            names: Mutex::new(HashMap::new()),
        };
        core.connection().await?;
        Ok(Client { core: Arc::new(core) })
    }

    /// Topics, offsets, groups, limits.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.core))
    }

    /// What a topic looks like now.
    pub async fn topic(&self, name: &TopicName) -> Result<Topic, ClientError> {
        self.core.topic(name).await
    }

    /// A producer to one topic.
    pub async fn producer(
        &self,
        topic: &TopicName,
        options: ProducerOptions,
    ) -> Result<Producer, ClientError> {
        Producer::open(Arc::clone(&self.core), topic, options).await
    }

    /// A sender of batches that were built before, to one topic: no records, no retries, no
    /// sequence numbers. Quotas may lower its class.
    pub async fn batch_sender(
        &self,
        topic: &TopicName,
        class: Class,
    ) -> Result<BatchSender, ClientError> {
        let topic = self.core.topic(topic).await?;
        BatchSender::open(Arc::clone(&self.core), topic, class).await
    }

    /// The same without grants: it sends whatever it is given, and the broker refuses what is too much.
    /// For tests of overload.
    pub async fn batch_sender_unlimited(
        &self,
        topic: &TopicName,
    ) -> Result<BatchSender, ClientError> {
        let topic = self.core.topic(topic).await?;
        BatchSender::unlimited(Arc::clone(&self.core), topic).await
    }

    /// Bytes that went over the current connection in either direction, framing included.
    pub async fn traffic_bytes(&self) -> u64 {
        self.core.current.lock().await.as_ref().map_or(0, |connection| connection.traffic_bytes())
    }

    /// A consumer. Nothing is read before it is first asked.
    pub async fn consumer(&self, options: ConsumerOptions) -> Result<Consumer, ClientError> {
        Consumer::open(Arc::clone(&self.core), options).await
    }
}

impl Core {
    /// The connection, made anew when the last one is spent. One attempt.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, ClientError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref()
            && !connection.is_spent()
        {
            return Ok(Arc::clone(connection));
        }
        let pool = Arc::clone(&self.pool);
        let connection = Connection::open(&self.address, &self.options, pool).await?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// One attempt.
    pub(super) async fn call<C: Call>(&self, call: &C) -> Result<C::Answer, ClientError> {
        let connection = self.connection().await?;
        connection.call(call, self.options.request_timeout).await
    }

    /// As many attempts as `retry_timeout` allows: for requests that may be carried out twice.
    pub(super) async fn call_again<C: Call>(&self, call: &C) -> Result<C::Answer, ClientError> {
        let deadline = Instant::now() + self.options.retry_timeout;
        let mut contract = RetryContract::new(self.options.retry_wait);
        self.options.retry_budget.requested();
        loop {
            let error = match self.call(call).await {
                Err(error) if error.is_passing() => error,
                result => return result,
            };
            let Some(mut at) = self.retry_at(&mut contract, &error, deadline) else {
                return Err(error);
            };
            tokio::time::sleep_until(at).await;
            // A request that was lost with its connection did no work; one that was refused did.
            while error.pushback().is_some()
                && let Err(wait) = self.options.retry_budget.take(moment(at))
            {
                at += wait;
                if at >= deadline {
                    return Err(error);
                }
                tokio::time::sleep_until(at).await;
            }
        }
    }

    pub(super) async fn topic(&self, name: &TopicName) -> Result<Topic, ClientError> {
        let topics = TopicSelector::Names { names: vec![name.clone()] };
        let answer = self.call_again(&metadata::Request { topics }).await?;
        let entry = answer.topics.into_iter().next();
        let entry =
            entry.ok_or_else(|| ClientError::Protocol("no entry for a topic".to_owned()))?;
        let topic = entry.topic?;
        let id = entry.id.ok_or_else(|| ClientError::Protocol("a topic without id".to_owned()))?;
        let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        self.remember(id, name);
        Ok(Topic {
            name: name.clone(),
            id,
            partitions,
            max_message_bytes: topic.max_message_bytes,
            timestamp_type: topic.timestamp_type,
            compression: topic.compression,
        })
    }

    /// The id of a topic and its partitions: all of them, or those that are asked for.
    pub(super) async fn partitions(
        &self,
        name: &TopicName,
        wanted: Option<&[PartitionId]>,
    ) -> Result<(TopicId, Vec<PartitionId>), ClientError> {
        let topic = self.topic(name).await?;
        let Some(wanted) = wanted else {
            return Ok((topic.id, (0..topic.partitions).map(PartitionId).collect()));
        };
        match wanted.iter().find(|partition| partition.0 >= topic.partitions) {
            None => Ok((topic.id, wanted.to_vec())),
            Some(partition) => {
                let message =
                    format!("topic {name} has {} partitions, no {partition}", topic.partitions);
                Err(ErrorAnswer::new(ErrorCode::PartitionNotFound, message).into())
            }
        }
    }

    pub(super) fn remember(&self, id: TopicId, name: &TopicName) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(id, name.clone());
    }

    /// Wall time, for records without one.
    pub(super) fn now(&self) -> crate::types::Timestamp {
        self.clock.now()
    }

    /// How long to wait before something is tried again that has no deadline.
    pub(super) fn wait(&self, contract: &mut RetryContract, error: &ClientError) -> Duration {
        contract.wait(&self.rng, error.told())
    }

    /// When a request is tried again; `None` when its time is over before.
    pub(super) fn retry_at(
        &self,
        contract: &mut RetryContract,
        error: &ClientError,
        deadline: Instant,
    ) -> Option<Instant> {
        let (now, deadline) = (moment(Instant::now()), moment(deadline));
        match contract.next(&self.rng, error.told(), now, deadline) {
            Retry::At(at) => Some(instant(at)),
            Retry::GiveUp => None,
        }
    }
}
