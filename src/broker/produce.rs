//! Producing: admit, check, queue. Everything here runs on the caller's thread and never waits; the
//! answer comes from a log writer's.

use std::any::Any;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::{Core, Phase};
use super::error::{ProduceError, refuse_reserved};
use super::facade::Broker;
use super::flow::{Ask, ConnectionFlow, HeaderTicket, Level, Outcome, Ticket, TopicRules};
use super::request::{ProduceDone, ProduceRequest, Produced};
use super::topic::{PartitionHandle, Topic};
use crate::record::{BATCH_HEADER_BYTES, BatchHeader, BatchLimits, CheckedBatch};
use crate::storage::{Append, AppendDone, AppendError, Appended, Partition, RoundEnd};
use crate::types::{Acks, PartitionHealth, Pushback, TopicId};

/// A batch between admission and answer. What it was admitted with ends with it.
struct PendingProduce {
    core: Arc<Core>,
    ticket: Ticket,
    done: Box<dyn ProduceDone>,
}

/// Everything admission decided.
struct Admitted {
    topic: Arc<Topic>,
    partition: Arc<PartitionHandle>,
    ticket: Ticket,
}

impl Broker {
    /// Appends a batch. Never blocks and never calls `done` later than it must: a refusal comes
    /// before this returns, an answer from a log writer's thread; always exactly once.
    pub fn produce(&self, request: ProduceRequest, done: Box<dyn ProduceDone>) {
        self.produce_batch(request, None, done, Partition::append);
    }

    /// [`Broker::produce`] while more is about to follow: no log writer is woken for this batch
    /// alone. Whoever calls it must call [`Broker::flush`] before it waits for anything. `header` is
    /// what the header of the batch took when it came before its body.
    pub fn produce_more(
        &self,
        request: ProduceRequest,
        header: Option<HeaderTicket>,
        done: Box<dyn ProduceDone>,
    ) {
        self.produce_batch(request, header, done, Partition::append_more);
    }

    /// Takes what a batch of a connection costs before its body is read: the bytes it announces.
    pub fn admit_header(
        &self,
        connection: &ConnectionFlow,
        bytes: u64,
    ) -> Result<HeaderTicket, Pushback> {
        let core = self.core();
        core.flow.admit_header(connection, bytes, self.monotonic()).inspect_err(|_| {
            core.metrics.produce_requests.increment();
            core.metrics.produce_refused.increment();
        })
    }

    /// Has `watcher` told, for as long as it lives, when a log writer has given the answers of a
    /// round: whoever collects them sends them then.
    pub fn at_round_end(&self, watcher: Weak<dyn RoundEnd>) {
        self.core().storage.at_round_end(watcher);
    }

    /// Wakes the log writers for what [`Broker::produce_more`] left to them.
    pub fn flush(&self) {
        self.core().storage.wake_writers();
    }

    fn produce_batch(
        &self,
        request: ProduceRequest,
        header: Option<HeaderTicket>,
        done: Box<dyn ProduceDone>,
        queue: Queue,
    ) {
        let core = self.core();
        core.metrics.produce_requests.increment();
        let (topic, embedded) = (request.topic, request.connection.is_none());
        if let Err((error, done)) = produce(core, request, header, done, queue) {
            core.metrics.produce_refused.increment();
            if let ProduceError::Pushback(told) = &error {
                note_refusal(core, topic, embedded, told);
            }
            done.done(Err(error));
        }
    }

    /// [`Broker::produce`] for callers that wait for the answer. Dropping the future does not take
    /// the batch back.
    pub async fn produce_and_wait(
        &self,
        request: ProduceRequest,
    ) -> Result<Produced, ProduceError> {
        let (told, answer) = oneshot::channel();
        let done = move |outcome| {
            // The caller may have gone; the batch is in the log all the same.
            let _ = told.send(outcome);
        };
        self.produce(request, Box::new(done));
        answer.await.unwrap_or(Err(ProduceError::Closed))
    }
}

/// Tells who is limited now.
fn note_refusal(core: &Core, topic: TopicId, embedded: bool, told: &Pushback) {
    if let Some(topic) = core.topics.by_id(topic) {
        core.flow.note_refusal(&topic.flow, embedded, told, core.env.clock.monotonic());
    }
}

type Refused = (ProduceError, Box<dyn ProduceDone>);
/// One of the two ways into a partition's queue.
type Queue = fn(&Partition, Append) -> Result<(), Append>;

fn produce(
    core: &Arc<Core>,
    request: ProduceRequest,
    header: Option<HeaderTicket>,
    done: Box<dyn ProduceDone>,
    queue: Queue,
) -> Result<(), Refused> {
    let Admitted { topic, partition, ticket } = match admit(core, &request, header) {
        Ok(admitted) => admitted,
        Err(error) => return Err((error, done)),
    };
    core.flow.note_admission(&topic.flow, request.connection.is_none(), ticket.since());
    let pending = PendingProduce { core: Arc::clone(core), ticket, done };
    let log = match partition.log() {
        Ok(log) => log,
        Err(error) => {
            let cause = error.to_string();
            return Err((ProduceError::ReadOnly { cause }, pending.give_up()));
        }
    };
    let batch = match check(&topic, request.batch) {
        Ok(batch) => batch,
        Err(error) => return Err((error, pending.give_up())),
    };
    let append = Append::new(batch, request.acks, Box::new(pending));
    queue(log, append).map_err(|append| queue_full(append, log, &partition))
}

/// Decides from what is known in memory, cheapest first, whether the batch may come in.
fn admit(
    core: &Core,
    request: &ProduceRequest,
    header: Option<HeaderTicket>,
) -> Result<Admitted, ProduceError> {
    if let Some(cause) = core.fault.cause() {
        return Err(ProduceError::Latched { cause: cause.to_owned() });
    }
    if core.phase() != Phase::Running {
        return Err(ProduceError::Pushback(Pushback::draining()));
    }
    let topic = core.topics.by_id(request.topic).ok_or(ProduceError::TopicNotFound)?;
    refuse_reserved(topic.name())?;
    let partition = topic
        .partition(request.partition)
        .ok_or(ProduceError::PartitionNotFound(request.partition))?;
    refuse_unhealthy(&partition.health())?;
    let bytes = request.batch.len() as u64;
    let config = topic.config_now();
    let limit = u64::from(config.max_message_bytes).min(core.flow.pool.batch_bytes_max());
    if bytes > limit {
        return Err(ProduceError::BatchTooLarge { size: bytes, limit });
    }
    let records = || {
        let header = BatchHeader::read(&request.batch);
        header.map_or(0, |header| u64::try_from(header.record_count).unwrap_or(0))
    };
    let ask = Ask {
        header,
        bytes,
        records: &records,
        connection: request.connection.as_ref(),
        topic: &topic.flow,
        rules: TopicRules::of(&config),
        partition: &partition.flow,
        class: request.class,
        standing: request.standing,
        level: if request.acks == Acks::Topic { Level::Topic } else { Level::Other },
        deadline: request.deadline,
    };
    let admitted = core.flow.admit_batch(ask, core.env.clock.monotonic());
    let ticket = admitted.map_err(ProduceError::Pushback)?;
    drop(config);
    Ok(Admitted { topic, partition, ticket })
}

fn refuse_unhealthy(health: &PartitionHealth) -> Result<(), ProduceError> {
    match health {
        PartitionHealth::Writable => Ok(()),
        PartitionHealth::ReadOnly { cause } => Err(ProduceError::ReadOnly { cause: cause.clone() }),
        PartitionHealth::Fenced { first_bad, .. } => {
            Err(ProduceError::Fenced { cause: format!("damaged from offset {first_bad} on") })
        }
    }
}

fn check(topic: &Topic, batch: Bytes) -> Result<CheckedBatch, ProduceError> {
    let bytes_max = topic.config_now().max_message_bytes as usize;
    // A claimed size beyond the limit is a wrong batch, not a large one: its real size fits.
    let limits = BatchLimits::client(bytes_max.max(BATCH_HEADER_BYTES));
    CheckedBatch::check(batch, &limits)
        .map_err(|e| ProduceError::InvalidBatch { reason: e.to_string() })
}

/// The writer's queue is full: the batch came back unanswered.
fn queue_full(append: Append, log: &Partition, partition: &PartitionHandle) -> Refused {
    let done: Box<dyn Any> = append.done;
    let pending = done.downcast::<PendingProduce>().expect("the append that was just made");
    let (queued, _) = log.queue_depth();
    let Core { flow, env, .. } = pending.core.as_ref();
    let now = env.clock.monotonic();
    let pushback = flow.pool.refuse_queue(queued as u64, &partition.flow.share, now);
    (ProduceError::Pushback(pushback), pending.give_up())
}

impl PendingProduce {
    /// Gives back everything it holds, unanswered.
    fn give_up(self) -> Box<dyn ProduceDone> {
        drop(self.ticket);
        self.done
    }
}

impl AppendDone for PendingProduce {
    fn done(self: Box<Self>, result: Result<Appended, AppendError>) {
        let PendingProduce { core, ticket, done } = *self;
        let now = core.env.clock.monotonic();
        match &result {
            Ok(_) => {
                core.metrics.produce_bytes.add(ticket.bytes());
                let took = now.saturating_sub(ticket.since());
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                core.metrics.produce_time_us.record(took_us);
            }
            Err(_) => core.metrics.produce_failed.increment(),
        }
        let permit = ticket.settle(outcome(&result), now);
        done.done(result.map(produced).map_err(|error| refused(&core, error)));
        // After the answer: the permit travels with the request until then.
        drop(permit);
    }
}

fn outcome(result: &Result<Appended, AppendError>) -> Outcome {
    match result {
        Ok(appended) if appended.duplicate => Outcome::NothingWritten,
        Ok(_) => Outcome::Written,
        Err(AppendError::ReadOnly { .. } | AppendError::Latched { .. }) => Outcome::Unknown,
        Err(_) => Outcome::NothingWritten,
    }
}

fn produced(appended: Appended) -> Produced {
    Produced {
        base_offset: appended.base_offset,
        last_offset: appended.last_offset,
        append_time: appended.append_time,
        level: appended.level,
        duplicate: appended.duplicate,
        log_start: appended.log_start,
    }
}

fn refused(core: &Core, error: AppendError) -> ProduceError {
    match error {
        AppendError::OutOfOrderSequence { expected, found } => {
            ProduceError::OutOfOrderSequence { expected, found }
        }
        AppendError::DuplicateUnknown => ProduceError::DuplicateUnknown,
        AppendError::ProducerFenced { current, .. } => ProduceError::ProducerFenced { current },
        AppendError::TooLarge { found, max } => {
            ProduceError::BatchTooLarge { size: found as u64, limit: max as u64 }
        }
        AppendError::DiskFull { free, needed } => {
            core.flow.disk.exhausted();
            core.flow.look_at_disk.notify_one();
            let pushback = Pushback { observed: free, limit: needed, ..core.flow.disk.pushback() };
            ProduceError::Pushback(pushback)
        }
        AppendError::ReadOnly { cause } => ProduceError::ReadOnly { cause },
        AppendError::Latched { cause } => ProduceError::Latched { cause },
        AppendError::Fenced { first_bad } => {
            ProduceError::Fenced { cause: format!("damaged from offset {first_bad} on") }
        }
        AppendError::Closed => ProduceError::Closed,
    }
}
