//! Subscriptions: batches are pushed as far as credit goes.
//!
//! Each is a task that waits for credit, then for records, then for its turn at the connection's
//! room for pushed batches, which is handed out in order: round-robin over those that have
//! something to send. A read is at most `push_bytes`.
//!
//! # Invariants
//! Batches are queued under the subscription's lock, and only if its epoch is still the one they
//! were read for: after the answer to SEEK, PAUSE or UNSUBSCRIBE nothing older follows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;

use super::error::{ToAnswer, invalid, no_topic};
use super::link::Link;
use crate::broker::flow::{
    Cause, CauseId, Credit, CreditBudget, Numbers, Party, SubscriptionCredit,
};
use crate::broker::{FetchError, Fetched, PartitionHandle, ReadMode};
use crate::protocol::native::{
    ErrorAnswer, ErrorDetail, Frame, batches, credit, pause, resume, seek, subscribe,
    subscription_end, unsubscribe,
};
use crate::types::{ErrorCode, GroupId, Offset, TopicName};

/// The subscriptions of one connection, by the number the client gave.
pub(super) struct Subscriptions {
    open: HashMap<u32, Open>,
    max: usize,
}

struct Open {
    subscription: Arc<Subscription>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.subscription.lock().ended = true;
        self.task.abort();
    }
}

struct Subscription {
    number: u32,
    topic: TopicName,
    partition: Arc<PartitionHandle>,
    group: Option<GroupId>,
    /// Told of when it waits for anything but records.
    party: Option<Arc<Party>>,
    state: Mutex<State>,
    /// Credit, position or pause changed.
    changed: Notify,
}

struct State {
    credit: SubscriptionCredit,
    position: Offset,
    paused: bool,
    ended: bool,
}

/// What a subscription may read now.
#[derive(Clone, Copy)]
struct Turn {
    epoch: u32,
    from: Offset,
    budget: CreditBudget,
}

impl Subscriptions {
    pub(super) fn new(link: &Link) -> Subscriptions {
        Subscriptions { open: HashMap::new(), max: link.shared.options.subscriptions_max }
    }

    pub(super) fn subscribe(
        &mut self,
        link: &Arc<Link>,
        request: &subscribe::Request,
    ) -> Result<subscribe::Response, ErrorAnswer> {
        let topic =
            link.broker().topic_by_id(request.topic).ok_or_else(|| no_topic(request.topic))?;
        let partition = topic
            .partition(request.partition)
            .ok_or_else(|| FetchError::PartitionNotFound(request.partition).to_answer())?;
        let (start, visible_end) = in_range(&partition, request.from)?;
        self.open.retain(|_, open| !open.subscription.lock().ended);
        if self.open.contains_key(&request.subscription) {
            return Err(invalid(format!("subscription {} is open", request.subscription)));
        }
        if self.open.len() >= self.max {
            let message = format!("{} subscriptions are open on this connection", self.max);
            return Err(ErrorAnswer::new(ErrorCode::TooManyRequests, message));
        }
        let party = link.flow().map(|flow| {
            let group = request.group.as_ref().map(GroupId::as_str);
            let (topic, now) = (topic.name().as_str(), link.broker().monotonic());
            flow.parties().subscription(topic, request.partition, group, now)
        });
        let first = Credit { epoch: 0, bytes_to: request.bytes_to, records_to: request.records_to };
        let subscription = Arc::new(Subscription {
            number: request.subscription,
            topic: topic.name().clone(),
            partition,
            group: request.group.clone(),
            party,
            state: Mutex::new(State {
                credit: SubscriptionCredit::new(first),
                position: request.from,
                paused: false,
                ended: false,
            }),
            changed: Notify::new(),
        });
        let pumping = pump(Arc::clone(link), Arc::clone(&subscription));
        let task = tokio::spawn(pumping).abort_handle();
        self.open.insert(request.subscription, Open { subscription, task });
        Ok(subscribe::Response { start, visible_end })
    }

    pub(super) fn unsubscribe(
        &mut self,
        request: &unsubscribe::Request,
    ) -> Result<unsubscribe::Response, ErrorAnswer> {
        let ended = self.open.remove(&request.subscription);
        ended.map(|_| unsubscribe::Response {}).ok_or_else(|| unknown(request.subscription))
    }

    /// More credit. One for an unknown subscription or epoch was overtaken by events.
    pub(super) fn credit(&self, frame: &Frame) {
        let Ok(frame) = frame.decode::<credit::Request>() else { return };
        let Ok(subscription) = self.find(frame.subscription) else { return };
        let mut state = subscription.lock();
        if frame.epoch == state.credit.epoch() {
            let credit::Request { epoch, bytes_to, records_to, .. } = frame;
            state.credit.apply(Credit { epoch, bytes_to, records_to });
            subscription.changed.notify_one();
        }
    }

    pub(super) fn seek(&self, request: &seek::Request) -> Result<seek::Response, ErrorAnswer> {
        let subscription = self.find(request.subscription)?;
        let (start, visible_end) = in_range(&subscription.partition, request.from)?;
        let mut state = subscription.lock();
        let seek::Request { epoch, bytes_to, records_to, from, .. } = *request;
        if !state.credit.apply(Credit { epoch, bytes_to, records_to }) {
            return Err(invalid(format!("epoch must be greater than {}", state.credit.epoch())));
        }
        state.position = from;
        subscription.changed.notify_one();
        Ok(seek::Response { start, visible_end })
    }

    pub(super) fn pause(&self, request: &pause::Request) -> Result<pause::Response, ErrorAnswer> {
        self.find(request.subscription)?.lock().paused = true;
        Ok(pause::Response {})
    }

    pub(super) fn resume(
        &self,
        request: &resume::Request,
    ) -> Result<resume::Response, ErrorAnswer> {
        let subscription = self.find(request.subscription)?;
        subscription.lock().paused = false;
        subscription.changed.notify_one();
        Ok(resume::Response {})
    }

    pub(super) fn end_all(&mut self) {
        self.open.clear();
    }

    fn find(&self, number: u32) -> Result<&Arc<Subscription>, ErrorAnswer> {
        let open = self.open.get(&number).map(|open| &open.subscription);
        open.filter(|subscription| !subscription.lock().ended).ok_or_else(|| unknown(number))
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.end_all();
    }
}

fn unknown(number: u32) -> ErrorAnswer {
    invalid(format!("subscription {number} is not open"))
}

/// What can be read of a partition, if `from` is in it.
fn in_range(partition: &PartitionHandle, from: Offset) -> Result<(Offset, Offset), ErrorAnswer> {
    let (start, end) = partition.span();
    if from < start || from > end {
        return Err(FetchError::OffsetOutOfRange { start, end }.to_answer());
    }
    Ok((start, end))
}

/// Pushes until the subscription or its connection ends.
async fn pump(link: Arc<Link>, subscription: Arc<Subscription>) {
    loop {
        let turn = subscription.turn(&link).await;
        let (_, end) = subscription.partition.span();
        if turn.from >= end {
            subscription.free(&link);
            tokio::select! {
                visible = subscription.partition.wait_visible(turn.from) => {
                    if visible.is_none() {
                        return subscription.end(&link, turn.epoch, FetchError::Closed.to_answer());
                    }
                }
                // `turn` looks at what changed before it waits: the notice may be spent here.
                () = subscription.changed.notified() => {}
            }
            if subscription.partition.span().1 <= turn.from {
                continue;
            }
        }
        if let Some(wait) = subscription.quota_wait(&link) {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = subscription.changed.notified() => {}
            }
            continue;
        }
        subscription.free(&link);
        let pushed = push(&link, &subscription, turn).await;
        if let Err(error) = pushed {
            return subscription.end(&link, turn.epoch, error);
        }
    }
}

/// Reads once and queues what was read, in the subscription's turn.
async fn push(link: &Link, subscription: &Subscription, turn: Turn) -> Result<(), ErrorAnswer> {
    let options = &link.shared.options;
    let room = link.frame_bytes_max() as usize - BATCHES_BYTES;
    let wanted = usize::try_from(turn.budget.bytes).unwrap_or(usize::MAX);
    let allowed = subscription.quota_allowance(link);
    let wanted = wanted.min(options.push_bytes).min(room).min(allowed).max(1);
    let units = wanted.min(options.push_queue_bytes).div_ceil(1024);
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    // Asked for in any case: it is where a task that goes on and on yields.
    let acquired = Arc::clone(&link.push_room).acquire_many_owned(units);
    if link.push_room.available_permits() < units as usize {
        subscription.waits(link, Cause::Connection.into());
    }
    let Ok(permit) = acquired.await else {
        return Ok(()); // never closed while the connection lives
    };
    subscription.free(link);
    let fetched = read(subscription, turn, wanted).await.map_err(|error| error.to_answer())?;
    subscription.queue(link, turn, fetched, permit)
}

/// Longest wait for a quota without asking it again.
const QUOTA_WAIT_MAX: Duration = Duration::from_secs(1);
/// Header and control part of BATCHES.
const BATCHES_BYTES: usize = 128;

/// Reads at most `max_bytes` and, as far as more than one batch goes, the records that credit
/// allows.
async fn read(
    subscription: &Subscription,
    turn: Turn,
    max_bytes: usize,
) -> Result<Fetched, FetchError> {
    let partition = &subscription.partition;
    let fetched = partition.read(turn.from, max_bytes, ReadMode::Mapped).await?;
    let records = records(turn.from, &fetched);
    if records <= turn.budget.records {
        return Ok(fetched);
    }
    // Batches are about equal; when they are not, one alone is always allowed.
    let share = fetched.size_bytes() as u64 * turn.budget.records / records.max(1);
    let fewer = partition.read(turn.from, share as usize, ReadMode::Mapped).await?;
    if self::records(turn.from, &fewer) <= turn.budget.records {
        return Ok(fewer);
    }
    partition.read(turn.from, 1, ReadMode::Mapped).await
}

fn records(from: Offset, fetched: &Fetched) -> u64 {
    u64::try_from(fetched.next_offset - from).unwrap_or(0)
}

impl Subscription {
    /// Waits until something may be sent.
    async fn turn(&self, link: &Link) -> Turn {
        loop {
            let (from, paused) = {
                let state = self.lock();
                if let Some(budget) = state.credit.budget()
                    && !state.paused
                {
                    return Turn { epoch: state.credit.epoch(), from: state.position, budget };
                }
                (state.position, state.paused)
            };
            if paused {
                self.free(link);
            } else if from < self.partition.span().1 {
                self.waits(link, Cause::CreditConsumer.into());
            } else {
                self.free(link);
                tokio::select! {
                    Some(_) = self.partition.wait_visible(from) => continue,
                    () = self.changed.notified() => continue,
                }
            }
            self.changed.notified().await;
        }
    }

    /// It waits for something else than records.
    fn waits(&self, link: &Link, cause: CauseId) {
        if let Some(party) = &self.party {
            party.limited(cause, Numbers::default(), link.broker().monotonic());
        }
    }

    /// It waits for nothing but records, if for anything. One load when it was so before.
    fn free(&self, link: &Link) {
        if let Some(party) = self.party.as_ref().filter(|party| !party.meter().is_clear()) {
            party.free(link.broker().monotonic());
        }
    }

    /// Queues what was read, unless it is no longer wanted.
    fn queue(
        &self,
        link: &Link,
        turn: Turn,
        fetched: Fetched,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), ErrorAnswer> {
        let mut state = self.lock();
        let wanted = !state.paused && !state.ended && state.credit.epoch() == turn.epoch;
        if !wanted || fetched.next_offset <= turn.from {
            return Ok(());
        }
        let bytes = fetched.size_bytes();
        state.credit.sent(bytes as u64, records(turn.from, &fetched));
        state.position = fetched.next_offset;
        self.charge(link, bytes as u64, records(turn.from, &fetched));
        let (sent_bytes, sent_records) = state.credit.sent_totals();
        let notice = batches::Request {
            subscription: self.number,
            epoch: turn.epoch,
            next_offset: fetched.next_offset,
            visible_end: fetched.visible_end,
            sent_bytes,
            sent_records,
        };
        let mut frame = Vec::with_capacity(BATCHES_BYTES);
        batches::encode(&mut frame, &notice, u32::try_from(bytes).unwrap_or(u32::MAX));
        link.batches(frame, fetched.data, Box::new(permit))
    }

    /// How long quotas keep it from reading, when they do.
    fn quota_wait(&self, link: &Link) -> Option<Duration> {
        let now = link.broker().monotonic();
        let flow = link.flow()?;
        let refusal = flow.fetch_wait(&self.topic, self.group.as_ref(), now)?;
        if let Some(party) = &self.party {
            flow.parties().refused(party, &refusal.pushback(), now);
        }
        // A quota may be edited: it is asked again after this long at the latest.
        Some(refusal.wait().unwrap_or(QUOTA_WAIT_MAX).min(QUOTA_WAIT_MAX))
    }

    fn quota_allowance(&self, link: &Link) -> usize {
        let now = link.broker().monotonic();
        let allowed =
            link.flow().map(|flow| flow.fetch_allowance(&self.topic, self.group.as_ref(), now));
        allowed.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }

    fn charge(&self, link: &Link, bytes: u64, records: u64) {
        if let Some(flow) = link.flow() {
            let now = link.broker().monotonic();
            flow.charge_fetch(&self.topic, self.group.as_ref(), bytes, records, now);
        }
    }

    /// Tells the client why nothing more comes.
    fn end(&self, link: &Link, epoch: u32, error: ErrorAnswer) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.ended = true;
        let error = match error.code {
            // The partition was closed under it: for the client the topic is gone.
            ErrorCode::Draining => ErrorAnswer::new(ErrorCode::TopicNotFound, "the topic is gone")
                .with_detail(ErrorDetail::None),
            _ => error,
        };
        link.notice(0, &subscription_end::Request { subscription: self.number, epoch, error });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain fields; a panic between two of them ends the task and with it the subscription.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
