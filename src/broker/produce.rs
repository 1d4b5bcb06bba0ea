//! Producing: admit, check, queue. Everything here runs on the caller's thread and never waits; the
//! answer comes from a log writer's.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::{Core, Phase};
use super::error::ProduceError;
use super::facade::Broker;
use super::flow::{AtLimit, Charged, ConnectionFlow, Permit, Room, Settled, TopicRoom, TopicRules};
use super::request::{ProduceDone, ProduceRequest, Produced};
use super::topic::{PartitionHandle, Topic};
use crate::record::{BATCH_HEADER_BYTES, BatchHeader, BatchLimits, CheckedBatch};
use crate::storage::{Append, AppendDone, AppendError, Appended, Partition};
use crate::types::{Class, PartitionHealth, Pushback, PushbackCode, PushbackScope};

/// A batch between admission and answer. Its permit and its reservation end with it.
struct PendingProduce {
    core: Arc<Core>,
    topic: Arc<Topic>,
    permit: Permit,
    /// Bytes reserved under the topic's limit.
    reserved: u64,
    /// What quotas were charged, when there are any.
    charged: Option<Box<Charged>>,
    bytes: u64,
    since: Duration,
    done: Box<dyn ProduceDone>,
}

/// Everything admission decided.
struct Admitted {
    topic: Arc<Topic>,
    partition: Arc<PartitionHandle>,
    permit: Permit,
    reserved: u64,
    charged: Option<Box<Charged>>,
}

/// A topic that drops its oldest segments may run over its limit by at least this.
const SLACK_BYTES_MIN: u64 = 1 << 20;

impl Broker {
    /// Appends a batch. Never blocks and never calls `done` later than it must: a refusal comes
    /// before this returns, an answer from a log writer's thread; always exactly once.
    pub fn produce(&self, request: ProduceRequest, done: Box<dyn ProduceDone>) {
        self.produce_batch(request, done, Partition::append);
    }

    /// [`Broker::produce`] while more is about to follow: no log writer is woken for this batch
    /// alone. Whoever calls it must call [`Broker::flush`] before it waits for anything.
    pub fn produce_more(&self, request: ProduceRequest, done: Box<dyn ProduceDone>) {
        self.produce_batch(request, done, Partition::append_more);
    }

    /// Wakes the log writers for what [`Broker::produce_more`] left to them.
    pub fn flush(&self) {
        self.core().storage.wake_writers();
    }

    fn produce_batch(&self, request: ProduceRequest, done: Box<dyn ProduceDone>, queue: Queue) {
        let core = self.core();
        core.metrics.produce_requests.increment();
        if let Err((error, done)) = produce(core, request, done, queue) {
            core.metrics.produce_refused.increment();
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

type Refused = (ProduceError, Box<dyn ProduceDone>);
/// One of the two ways into a partition's queue.
type Queue = fn(&Partition, Append) -> Result<(), Append>;

fn produce(
    core: &Arc<Core>,
    request: ProduceRequest,
    done: Box<dyn ProduceDone>,
    queue: Queue,
) -> Result<(), Refused> {
    let bytes = request.batch.len() as u64;
    let admitted = match admit(core, &request) {
        Ok(admitted) => admitted,
        Err(error) => return Err((error, done)),
    };
    let Admitted { topic, partition, permit, reserved, charged } = admitted;
    let core = Arc::clone(core);
    let since = core.env.clock.monotonic();
    let pending = PendingProduce { core, topic, permit, reserved, charged, bytes, since, done };
    let log = match partition.log() {
        Ok(log) => log,
        Err(error) => {
            let cause = error.to_string();
            return Err((ProduceError::ReadOnly { cause }, pending.give_up()));
        }
    };
    let batch = match check(&pending.topic, request.batch) {
        Ok(batch) => batch,
        Err(error) => return Err((error, pending.give_up())),
    };
    let append = Append::new(batch, request.acks, Box::new(pending));
    queue(log, append).map_err(|append| queue_full(append, log, &partition))
}

/// Decides from what is known in memory, cheapest first, whether the batch may come in.
fn admit(core: &Core, request: &ProduceRequest) -> Result<Admitted, ProduceError> {
    if let Some(cause) = core.fault.cause() {
        return Err(ProduceError::Latched { cause: cause.to_owned() });
    }
    if core.phase() != Phase::Running {
        return Err(ProduceError::Pushback(Pushback::draining()));
    }
    let topic = core.topics.by_id(request.topic).ok_or(ProduceError::TopicNotFound)?;
    let partition = topic
        .partition(request.partition)
        .ok_or(ProduceError::PartitionNotFound(request.partition))?;
    refuse_unhealthy(&partition.health())?;
    let bytes = request.batch.len() as u64;
    let config = topic.config_now();
    let limit = u64::from(config.max_message_bytes).min(core.pool.batch_bytes_max());
    if bytes > limit {
        return Err(ProduceError::BatchTooLarge { size: bytes, limit });
    }
    check_deadline(core, request.deadline)?;
    let permit = core
        .pool
        .admit(bytes, &partition.share, request.connection.as_ref().map(ConnectionFlow::share))
        .map_err(ProduceError::Pushback)?;
    let now = core.env.clock.monotonic();
    let records = || {
        let header = BatchHeader::read(&request.batch);
        header.map_or(0, |header| u64::try_from(header.record_count).unwrap_or(0))
    };
    let charged = request
        .connection
        .as_ref()
        .unwrap_or(&core.embedded)
        .charge_produce(topic.name(), bytes, records, now)
        .map_err(|refusal| ProduceError::Pushback(refusal.pushback()))?;
    let reserved = match config.max_bytes {
        None => 0,
        Some(max_bytes) => {
            let slack = (max_bytes / 4).max(SLACK_BYTES_MIN);
            let rules = TopicRules { max_bytes, at_limit: config.on_full.into(), slack };
            admit_topic(core, &topic, bytes, &rules, now)?;
            bytes
        }
    };
    drop(config);
    if let Err(pushback) = admit_disk(core, bytes, now) {
        topic.limit.settle(reserved, Settled::Nothing);
        return Err(ProduceError::Pushback(pushback));
    }
    Ok(Admitted { topic, partition, permit, reserved, charged })
}

fn admit_disk(core: &Core, bytes: u64, now: Duration) -> Result<(), Pushback> {
    let admitted = core.disk.admit(bytes, Class::Normal, now);
    if admitted != Ok(Room::Enough) {
        core.look_at_disk.notify_one();
    }
    admitted.map(|_| ())
}

fn admit_topic(
    core: &Core,
    topic: &Topic,
    bytes: u64,
    rules: &TopicRules,
    now: Duration,
) -> Result<(), ProduceError> {
    let admitted = topic.limit.admit(bytes, rules, now);
    if rules.at_limit == AtLimit::DropOldest && admitted != Ok(TopicRoom::Enough) {
        core.over_limit.notify_one();
    }
    admitted.map(|_| ()).map_err(ProduceError::Pushback)
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

/// Refuses what could not be answered in time, so that nobody waits for nothing.
fn check_deadline(core: &Core, deadline: Option<Duration>) -> Result<(), ProduceError> {
    let Some(deadline) = deadline else { return Ok(()) };
    let expected = core.pool.predicted_sojourn().unwrap_or(Duration::ZERO);
    if expected < deadline {
        return Ok(());
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Err(ProduceError::Pushback(
        Pushback::reject(PushbackCode::DeadlineUnmeetable, PushbackScope::Broker, "deadline")
            .met(millis(expected), millis(deadline), "ms")
            .after_ms(core.pool.retry_after_ms(core.pool.used())),
    ))
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
    let pushback = pending.core.pool.refuse_queue(queued as u64, &partition.share);
    (ProduceError::Pushback(pushback), pending.give_up())
}

impl PendingProduce {
    /// Gives back everything it holds, unanswered.
    fn give_up(self) -> Box<dyn ProduceDone> {
        self.topic.limit.settle(self.reserved, Settled::Nothing);
        self.core.disk.settle(self.bytes, Settled::Nothing);
        drop(self.permit);
        self.done
    }
}

impl AppendDone for PendingProduce {
    fn done(self: Box<Self>, result: Result<Appended, AppendError>) {
        let PendingProduce { core, topic, permit, reserved, charged, bytes, since, done } = *self;
        let written = result.as_ref().is_ok_and(|appended| !appended.duplicate);
        let settled = if written { Settled::Written } else { Settled::Nothing };
        if let Some(charged) = charged.filter(|_| written) {
            charged.written();
        }
        topic.limit.settle(reserved, settled);
        core.disk.settle(bytes, settled);
        match &result {
            Ok(_) => {
                core.metrics.produce_bytes.add(bytes);
                let took = core.env.clock.monotonic().saturating_sub(since);
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                core.metrics.produce_time_us.record(took_us);
            }
            Err(_) => core.metrics.produce_failed.increment(),
        }
        let outcome = result.map(produced).map_err(|error| refused(&core, error));
        done.done(outcome);
        // After the answer: the permit travels with the request until then.
        drop(permit);
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
            core.disk.exhausted();
            core.look_at_disk.notify_one();
            let pushback = Pushback { observed: free, limit: needed, ..core.disk.pushback() };
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
