//! A producer's state and what moves it without waiting: records come in and fill batches, batches
//! go out. One lock; whoever brings news (`answers`) sends what may be sent by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::delivery::Teller;
use super::lane::{Batch, Body, Lane, LostRange, Sender};
use super::{Delivery, NewRecord};
use crate::client::connection::Connection;
use crate::client::core::Core;
use crate::client::flow::{PublisherWindow, RatePace};
use crate::client::moment::{instant, moment};
use crate::client::partitioner::partition_for_key;
use crate::client::{ClientError, Idempotence, ProducerOptions, Topic};
use crate::env::Rng;
use crate::protocol::native::{ErrorAnswer, produce};
use crate::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BuilderOptions, Compression, PushError, RecordRef,
};
use crate::types::{ErrorCode, PartitionId, Pushback};

/// Smallest reservation for a batch: most records fit.
const RESERVED_BYTES_MIN: usize = 1 << 10;

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) options: ProducerOptions,
    /// Bytes that may still be buffered.
    pub(super) room: Semaphore,
    /// Something for the driver to do.
    pub(super) work: Notify,
    /// What limits it, as the driver saw it last.
    pub(super) limit: watch::Sender<Option<Pushback>>,
    state: Mutex<State>,
}

/// The connection in use and the publisher on it.
pub(super) struct Link {
    pub(super) connection: Arc<Connection>,
    pub(super) window: Option<PublisherWindow>,
}

pub(super) struct State {
    pub(super) topic: Topic,
    pub(super) lanes: Vec<Lane>,
    pub(super) link: Option<Link>,
    pub(super) finished: bool,
    /// Bytes of a batch that waits for a grant.
    pub(super) wanted_bytes: Option<u64>,
    /// When the driver looks again at the latest.
    pub(super) driver_wakes: Instant,
    sticky: usize,
    next_id: u64,
    pub(super) pressure: Option<(Pushback, Instant)>,
    pub(super) pace: RatePace,
    pub(super) losses: Vec<LostRange>,
}

impl Shared {
    pub(super) fn new(core: Arc<Core>, topic: Topic, options: ProducerOptions) -> Shared {
        let room = options.buffer_bytes.clamp(1, Semaphore::MAX_PERMITS);
        let mut state = State {
            topic,
            lanes: Vec::new(),
            link: None,
            finished: false,
            wanted_bytes: None,
            driver_wakes: Instant::now(),
            sticky: 0,
            next_id: 0,
            pressure: None,
            pace: RatePace::default(),
            losses: Vec::new(),
        };
        state.add_lanes(&options, core.options.retry_wait);
        let room = Semaphore::new(room);
        let (work, limit) = (Notify::new(), watch::Sender::new(None));
        Shared { core, options, room, work, limit, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a defect; batches are whole at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn topic(&self) -> Topic {
        self.lock().topic.clone()
    }

    /// A record larger than the whole buffer takes all of it.
    pub(super) fn room_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.options.buffer_bytes).max(1)).unwrap_or(u32::MAX)
    }

    /// Puts a record into its partition's batch; `room` was taken for it.
    pub(super) fn place(
        self: &Arc<Self>,
        record: &NewRecord<'_>,
        room: u32,
    ) -> Result<Delivery, ClientError> {
        let mut state = self.lock();
        let placed = state.place(self, record, room);
        if placed.is_err() {
            self.room.add_permits(room as usize);
        }
        placed
    }

    /// Seals what is being filled and sends it; the last delivery of everything not answered yet.
    pub(super) fn flush(self: &Arc<Self>) -> Vec<Delivery> {
        let mut state = self.lock();
        for lane in 0..state.lanes.len() {
            state.lanes[lane].seal();
            state.pump(self, lane);
        }
        let unfinished = state.lanes.iter().flat_map(|lane| lane.unfinished());
        unfinished.map(|batch| batch.outcome.delivery(0)).collect()
    }

    /// No more records come; what there is is sent, then the driver ends.
    pub(super) fn finish(self: &Arc<Self>) {
        self.lock().finished = true;
        drop(self.flush());
        self.room.close();
        self.work.notify_one();
    }

    pub(super) fn take_losses(&self) -> Vec<LostRange> {
        std::mem::take(&mut self.lock().losses)
    }
}

impl State {
    /// Lanes for partitions that have none yet.
    pub(super) fn add_lanes(&mut self, options: &ProducerOptions, retry_wait: Duration) {
        for number in self.lanes.len()..self.topic.partitions as usize {
            let sender = match options.idempotence {
                Idempotence::On => Sender::Ask { previous: None },
                Idempotence::Off => Sender::Nobody,
            };
            let partition = PartitionId(u32::try_from(number).unwrap_or(u32::MAX));
            self.lanes.push(Lane::new(partition, sender, retry_wait));
        }
    }

    fn place(
        &mut self,
        shared: &Arc<Shared>,
        record: &NewRecord<'_>,
        room: u32,
    ) -> Result<Delivery, ClientError> {
        if self.finished {
            return Err(ClientError::Closed);
        }
        let number = self.choose(record)?;
        let timestamp = record.timestamp.unwrap_or_else(|| shared.core.now());
        let (key, value) = (record.key, record.value);
        let record = RecordRef { timestamp, key, value, headers: record.headers };
        let mut pushed = self.push(shared, number, &record);
        if pushed == Err(PushError::BatchFull) {
            self.lanes[number].seal();
            self.roll_sticky(shared, number);
            pushed = self.push(shared, number, &record);
        }
        if let Err(error) = pushed {
            return Err(match error {
                PushError::RecordTooLarge { size_bytes, bytes_max } => {
                    ClientError::RecordTooLarge { size_bytes, max_bytes: bytes_max }
                }
                PushError::BatchFull => ClientError::Invalid("the batch is full".to_owned()),
            });
        }
        let Some(batch) = self.lanes[number].open.as_mut() else {
            unreachable!("a record was just pushed into it");
        };
        batch.room += room as usize;
        batch.records += 1;
        let delivery = batch.outcome.delivery(batch.records - 1);
        let first = batch.records == 1;
        if shared.options.linger.is_zero() || !self.lanes[number].ready.is_empty() {
            self.pump(shared, number);
        }
        let lane = &self.lanes[number];
        if first && let Some(batch) = &lane.open {
            // A linger begins, or a hold is to end; else the next answer sends it.
            let timed = !shared.options.linger.is_zero() || lane.awaits_nothing();
            if timed || batch.deadline < self.driver_wakes {
                shared.work.notify_one();
            }
        }
        Ok(delivery)
    }

    pub(super) fn choose(&self, record: &NewRecord<'_>) -> Result<usize, ClientError> {
        let lanes = self.lanes.len();
        match (record.partition, record.key) {
            (Some(partition), _) if partition.0 as usize >= lanes => {
                let message = format!("topic {} has {lanes} partitions", self.topic.name);
                Err(ErrorAnswer::new(ErrorCode::PartitionNotFound, message).into())
            }
            (Some(partition), _) => Ok(partition.0 as usize),
            (None, Some(key)) => {
                Ok(partition_for_key(key, u32::try_from(lanes).unwrap_or(u32::MAX)) as usize)
            }
            (None, None) => Ok(self.sticky),
        }
    }

    /// Records without key stay with a partition for one batch.
    fn roll_sticky(&mut self, shared: &Shared, sealed: usize) {
        if sealed == self.sticky {
            let lanes = self.lanes.len() as u64;
            self.sticky = usize::try_from(shared.core.rng.next_u64() % lanes).unwrap_or(0);
        }
    }

    fn push(
        &mut self,
        shared: &Shared,
        number: usize,
        record: &RecordRef<'_>,
    ) -> Result<(), PushError> {
        if self.lanes[number].open.is_none() {
            let batch = self.new_batch(shared, number);
            self.lanes[number].open = Some(batch);
        }
        let Some(batch) = self.lanes[number].open.as_mut() else { return Ok(()) };
        let Body::Building(builder) = &mut batch.body else { return Err(PushError::BatchFull) };
        let pushed = match builder.push(record) {
            // Alone in its batch a record may pass `batch_bytes`, up to what the topic takes.
            Err(PushError::RecordTooLarge { size_bytes, .. }) => {
                let topic_max = self.topic.max_message_bytes as usize;
                if size_bytes > topic_max {
                    Err(PushError::RecordTooLarge { size_bytes, bytes_max: topic_max })
                } else {
                    *builder = new_builder(shared, &self.topic, size_bytes, size_bytes);
                    builder.push(record)
                }
            }
            pushed => pushed,
        };
        if pushed.is_err() && batch.records == 0 {
            self.lanes[number].open = None;
        }
        pushed
    }

    fn new_batch(&mut self, shared: &Shared, number: usize) -> Batch {
        let now = Instant::now();
        let bytes_max =
            shared.options.batch_bytes.min(self.topic.max_message_bytes as usize).max(1);
        let last = self.lanes[number].last_bytes;
        let reserved =
            (last + last / 4).clamp(RESERVED_BYTES_MIN, bytes_max.max(RESERVED_BYTES_MIN));
        self.next_id += 1;
        Batch {
            id: self.next_id,
            body: Body::Building(new_builder(shared, &self.topic, bytes_max, reserved)),
            records: 0,
            first: None,
            room: 0,
            opened: now,
            deadline: now + shared.options.delivery_timeout,
            outcome: Teller::default(),
            sent_bytes: 0,
            last_error: None,
            sent_to: None,
            doubt: None,
            given_up: false,
        }
    }

    /// Sends what a partition may send now.
    pub(super) fn pump(&mut self, shared: &Arc<Shared>, number: usize) {
        let linger = shared.options.linger;
        let lane = &self.lanes[number];
        if !lane.has_ripe(linger) || !lane.has_room(shared.options.window) {
            return; // the clock need not be read for every record
        }
        let now = Instant::now();
        loop {
            let lane = &mut self.lanes[number];
            if !lane.may_send(shared.options.window, now) {
                return;
            }
            if lane.ready.is_empty() {
                match &lane.open {
                    Some(batch) if lane.has_ripe(linger) && batch.opened + linger <= now => {
                        lane.seal();
                    }
                    _ => return,
                }
                self.roll_sticky(shared, number);
            }
            if !self.send_next(shared, number, now) {
                return;
            }
        }
    }

    /// Whether the next batch of a partition may go now; when not, what it waits for will call again.
    fn may_go(&mut self, shared: &Shared, number: usize, now: Instant) -> bool {
        let lane = &mut self.lanes[number];
        let (Some(head), Some(link)) = (lane.ready.front(), &self.link) else {
            shared.work.notify_one();
            return false;
        };
        match lane.sender {
            Sender::Ask { .. } => {
                shared.work.notify_one();
                return false;
            }
            // The answer will go on from here.
            Sender::Asked => return false,
            Sender::Nobody | Sender::Known { .. } => {}
        }
        let upper = head.size_bytes() as u64;
        if let Some(until) = self.pace.wait_until(moment(now)) {
            lane.hold_until = Some(instant(until));
            // What named the rate is what limits until then.
            if let Some((_, holds)) = &mut self.pressure {
                *holds = (*holds).max(instant(until));
            }
            shared.work.notify_one();
            return false;
        }
        if link.window.as_ref().is_some_and(|window| !window.admits(upper, moment(now))) {
            if self.wanted_bytes.replace(upper).is_none() {
                shared.work.notify_one();
            }
            return false;
        }
        let budget = &shared.core.options.retry_budget;
        if !lane.needs_budget() {
            budget.requested();
        } else if let Err(wait) = budget.take(moment(now)) {
            lane.hold_until = Some(now + wait);
            shared.work.notify_one();
            return false;
        }
        true
    }

    fn send_next(&mut self, shared: &Arc<Shared>, number: usize, now: Instant) -> bool {
        if !self.may_go(shared, number, now) {
            return false;
        }
        let (lane, Some(link)) = (&mut self.lanes[number], &mut self.link) else { return false };
        let Some(mut batch) = lane.ready.pop_front() else { return false };
        lane.stamp(&mut batch);
        let Body::Built(bytes) = &batch.body else { return false };
        let request = produce::Request {
            publisher: link.window.as_ref().map_or(0, PublisherWindow::publisher),
            topic: self.topic.id,
            partition: lane.partition,
            acks: shared.options.acks,
            deadline_ms: millis(batch.deadline.saturating_duration_since(now)).max(1),
        };
        batch.sent_bytes = bytes.len() as u64;
        batch.sent_to = Some(link.connection.writer_id());
        let (sink_shared, id) = (Arc::clone(shared), batch.id);
        let sink = Box::new(move |answer| sink_shared.answered(number, id, answer));
        if link.connection.produce(&request, bytes.clone(), sink).is_err() {
            lane.ready.push_front(batch);
            self.link = None;
            shared.work.notify_one();
            return false;
        }
        if let Some(window) = &mut link.window {
            window.sent(batch.sent_bytes);
        }
        self.pace.sent(batch.sent_bytes, u64::from(batch.records), moment(now));
        if batch.deadline < self.driver_wakes {
            self.driver_wakes = batch.deadline;
            shared.work.notify_one();
        }
        lane.under_way.insert(batch.id, batch);
        true
    }

    /// Whether everything is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.iter().all(Lane::is_idle)
    }
}

fn new_builder(shared: &Shared, topic: &Topic, bytes_max: usize, reserved: usize) -> BatchBuilder {
    let advised = || Compression::from_hint(topic.compression).unwrap_or(Compression::None);
    BatchBuilder::new(BuilderOptions {
        compression: shared.options.compression.unwrap_or_else(advised),
        bytes_max: bytes_max.max(BATCH_HEADER_BYTES),
        bytes_reserved: reserved,
        ..BuilderOptions::default()
    })
}

pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
