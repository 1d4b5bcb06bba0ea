//! Subscriptions: batches are pushed as far as credit goes.
//!
//! Each is a task that waits for credit, then for records, then for its turn at the connection's
//! room for pushed batches, and at the broker's for all that is read; both are handed out in order:
//! round-robin over those that have something to send. A read is at most `push_bytes`.
//!
//! # Invariants
//! Batches are queued under the subscription's lock, and only if its epoch is still the one they
//! were read for: after the answer to SEEK, PAUSE or UNSUBSCRIBE nothing older follows it.

mod pump;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::error::{ToAnswer, invalid, no_topic};
use super::link::Link;
use crate::broker::flow::{Credit, Party, SubscriptionCredit};
use crate::broker::{FetchError, PartitionHandle};
use crate::protocol::native::{
    ErrorAnswer, Frame, credit, pause, resume, seek, subscribe, unsubscribe,
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
    /// Since when it could be served, as far as that is known.
    ready_at: Option<Duration>,
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
                credit: self.first_credit(first),
                position: request.from,
                paused: false,
                ended: false,
                ready_at: None,
            }),
            changed: Notify::new(),
        });
        let pumping = pump::pump(Arc::clone(link), Arc::clone(&subscription));
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
    pub(super) fn credit(&self, link: &Link, frame: &Frame) {
        let Ok(frame) = frame.decode::<credit::Request>() else { return };
        let Ok(subscription) = self.find(frame.subscription) else { return };
        let mut state = subscription.lock();
        if frame.epoch == state.credit.epoch() {
            let credit::Request { epoch, bytes_to, records_to, .. } = frame;
            let starved = state.credit.budget().is_none();
            state.credit.share_with(self.open.len() as u64);
            state.credit.apply(Credit { epoch, bytes_to, records_to });
            if starved && state.credit.budget().is_some() {
                state.ready_at = Some(link.broker().monotonic());
            }
            subscription.changed.notify_one();
        }
    }

    pub(super) fn seek(&self, request: &seek::Request) -> Result<seek::Response, ErrorAnswer> {
        let subscription = self.find(request.subscription)?;
        let (start, visible_end) = in_range(&subscription.partition, request.from)?;
        let mut state = subscription.lock();
        let seek::Request { epoch, bytes_to, records_to, from, .. } = *request;
        state.credit.share_with(self.open.len() as u64);
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

    /// Credit of one more subscription.
    fn first_credit(&self, first: Credit) -> SubscriptionCredit {
        let nothing = Credit { bytes_to: 0, records_to: 0, ..first };
        let mut credit = SubscriptionCredit::new(nothing);
        credit.share_with(self.open.len() as u64 + 1);
        credit.apply(first);
        credit
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

impl Subscription {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain fields; a panic between two of them ends the task and with it the subscription.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
