//! The task of a subscription: waits for credit, then for records, then for its turn, and queues what
//! was read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::{State, Subscription};
use crate::broker::flow::{Cause, CauseId, CreditBudget, FetchPermit, Numbers, Waits};
use crate::broker::{FetchError, Fetched, ReadMode};
use crate::protocol::native::{ErrorAnswer, ErrorDetail, batches, subscription_end};
use crate::server::native::error::ToAnswer;
use crate::server::native::link::Link;
use crate::types::{ErrorCode, Offset};

/// What a subscription may read now.
#[derive(Clone, Copy)]
struct Turn {
    epoch: u32,
    from: Offset,
    budget: CreditBudget,
    /// Since when it could have been served.
    ready_at: Option<Duration>,
}

/// What is held until a push was written.
struct Held {
    _room: OwnedSemaphorePermit,
    pool: FetchPermit,
}

/// Pushes until the subscription or its connection ends.
pub(super) async fn pump(link: Arc<Link>, subscription: Arc<Subscription>) {
    loop {
        let turn = subscription.turn(&link).await;
        let (_, end) = subscription.partition.span();
        if turn.from >= end {
            subscription.lock().ready_at = None;
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
            continue;
        }
        let pushed = match subscription.allowed(&link) {
            Ok(allowed) => {
                subscription.free(&link);
                push(&link, &subscription, turn, allowed).await
            }
            Err(wait) => {
                subscription.lock().ready_at = None;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = subscription.changed.notified() => {}
                }
                continue;
            }
        };
        if let Err(error) = pushed {
            return subscription.end(&link, turn.epoch, error);
        }
    }
}

/// Reads once and queues what was read, in the subscription's turn: first among those of its
/// connection, then among all readers of the broker. Whatever waits on a slow client holds nothing
/// that others wait for.
async fn push(
    link: &Link,
    subscription: &Subscription,
    turn: Turn,
    allowed: usize,
) -> Result<(), ErrorAnswer> {
    let options = &link.shared.options;
    let room = link.frame_bytes_max() as usize - BATCHES_BYTES;
    let wanted = usize::try_from(turn.budget.bytes).unwrap_or(usize::MAX);
    let wanted = wanted.min(options.push_bytes).min(room).min(allowed).max(1);
    let units = wanted.min(options.push_queue_bytes).div_ceil(1024);
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    if link.push_room.available_permits() < units as usize {
        subscription.waits(link, Cause::Connection.into());
    } else if let Some(ready_at) = turn.ready_at {
        link.shared.serving.delivery(ready_at, link.broker().monotonic());
    }
    // Asked for in any case: it is where a task that goes on and on yields.
    let Ok(room) = Arc::clone(&link.push_room).acquire_many_owned(units).await else {
        return Ok(()); // never closed while the connection lives
    };
    subscription.free(link);
    let Some(flow) = link.flow() else { return Ok(()) }; // nobody subscribes before HELLO
    let mut permit = std::pin::pin!(subscription.partition.permit(turn.from, wanted, flow));
    let pool = tokio::select! {
        biased;
        pool = &mut permit => pool,
        () = std::future::ready(()) => {
            subscription.waits(link, Cause::FetchPool.into());
            let pool = permit.await;
            subscription.free(link);
            pool
        }
    };
    let mut held = Held { _room: room, pool };
    let fetched = read(link, subscription, turn, wanted, &mut held.pool).await;
    subscription.queue(link, turn, fetched.map_err(|error| error.to_answer())?, held)
}

/// Header and control part of BATCHES.
const BATCHES_BYTES: usize = 128;

/// Reads at most `max_bytes` and, as far as more than one batch goes, the records that credit
/// allows.
async fn read(
    link: &Link,
    subscription: &Subscription,
    turn: Turn,
    max_bytes: usize,
    permit: &mut FetchPermit,
) -> Result<Fetched, FetchError> {
    let partition = &subscription.partition;
    let (from, mode) = (turn.from, ReadMode::Mapped);
    let told = |numbers| subscription.waits_for_disk(link, numbers);
    let fetched = partition.read_with(permit, from, max_bytes, mode, told).await?;
    let records = records(turn.from, &fetched);
    if records <= turn.budget.records {
        return Ok(fetched);
    }
    // Batches are about equal; when they are not, one alone is always allowed.
    let share = fetched.size_bytes() as u64 * turn.budget.records / records.max(1);
    let fewer = partition.read_with(permit, from, share as usize, mode, told).await?;
    if self::records(turn.from, &fewer) <= turn.budget.records {
        return Ok(fewer);
    }
    partition.read_with(permit, from, 1, mode, told).await
}

fn records(from: Offset, fetched: &Fetched) -> u64 {
    u64::try_from(fetched.next_offset - from).unwrap_or(0)
}

impl State {
    fn turn(&mut self) -> Option<Turn> {
        let Some(budget) = self.credit.budget().filter(|_| !self.paused) else {
            self.ready_at = None; // it waits for its consumer
            return None;
        };
        let (from, ready_at) = (self.position, self.ready_at);
        Some(Turn { epoch: self.credit.epoch(), from, budget, ready_at })
    }
}

impl Subscription {
    /// Waits until something may be sent.
    async fn turn(&self, link: &Link) -> Turn {
        loop {
            let (turn, from, paused) = {
                let mut state = self.lock();
                (state.turn(), state.position, state.paused)
            };
            if let Some(turn) = turn {
                return turn;
            }
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

    /// It waits for its turn at the disk until the answer is dropped.
    fn waits_for_disk(&self, link: &Link, numbers: Numbers) -> Option<Waits> {
        let party = Arc::clone(self.party.as_ref()?);
        Some(Waits::begin(party, Cause::ColdReads.into(), numbers, link.broker().clock()))
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
        held: Held,
    ) -> Result<(), ErrorAnswer> {
        let mut state = self.lock();
        let wanted = !state.paused && !state.ended && state.credit.epoch() == turn.epoch;
        if !wanted || fetched.next_offset <= turn.from {
            return Ok(());
        }
        let bytes = fetched.size_bytes();
        state.credit.sent(bytes as u64, records(turn.from, &fetched));
        state.position = fetched.next_offset;
        let now = link.broker().monotonic();
        state.ready_at = Some(now);
        self.charge(link, bytes as u64, records(turn.from, &fetched), now);
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
        link.batches(frame, fetched.data, Box::new(held))
    }

    /// Bytes that quotas let through now, or how long they let nothing through.
    fn allowed(&self, link: &Link) -> Result<usize, Duration> {
        let Some(flow) = link.flow() else { return Ok(usize::MAX) };
        let now = link.broker().monotonic();
        match flow.fetch_allowed(&self.topic, self.group.as_ref(), now) {
            Ok(bytes) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
            Err(refusal) => {
                if let Some(party) = &self.party {
                    flow.parties().refused(party, &refusal.pushback(), now);
                }
                Err(refusal.pause())
            }
        }
    }

    fn charge(&self, link: &Link, bytes: u64, records: u64, now: Duration) {
        if let Some(flow) = link.flow() {
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
}
