//! What a consumer does between records: connect, subscribe, follow the group, take what arrived.
//!
//! Every step either changes nothing until its last `await` is over, or is done again the next time:
//! so a cancelled `next` loses nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::lane::{Lane, Wish};
use super::membership::{Change, Joining, Membership};
use super::{Consumer, Rebalance};
use crate::client::connection::{Connection, Delivered, SubscriptionEvent};
use crate::client::flow::{CREDIT_BYTES_MAX, CreditTotals, CreditWindow, Share};
use crate::client::moment::{instant, moment};
use crate::client::{ClientError, CommitMode, Reading, StartAt, StopAt};
use crate::protocol::native::{Call, ErrorDetail, subscribe, unsubscribe};
use crate::types::{ErrorCode, Offset, TopicName, TopicPartition};

/// Which credit of a subscription it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// With a request that opens an epoch.
    First,
    /// More of it.
    Further,
}

impl Consumer {
    /// Learns what to read, or joins the group.
    pub(super) async fn start(&mut self) -> Result<(), ClientError> {
        match self.options.reading.clone() {
            Reading::Partitions { topic, partitions } => {
                let (id, partitions) = self.core.partitions(&topic, partitions.as_deref()).await?;
                let parts = partitions
                    .into_iter()
                    .map(|partition| (TopicPartition { topic: id, partition }, topic.clone()));
                let lanes = self.new_lanes(parts.collect(), None).await?;
                self.lanes.extend(lanes.into_iter().map(|lane| (lane.part, lane)));
            }
            Reading::Group { group, topics, instance_id, assignor } => {
                let rebalance_timeout = self.options.rebalance_timeout;
                let joining = Joining { group, topics, instance_id, assignor, rebalance_timeout };
                self.membership = Some(Membership::start(Arc::clone(&self.core), joining));
            }
        }
        self.started = true;
        Ok(())
    }

    /// Whether something should be done before another record is handed out.
    pub(super) fn is_urgent(&self) -> bool {
        !self.events.is_empty()
            || self.membership.as_ref().is_some_and(|membership| membership.has_change())
            || self.commit_is_due()
    }

    pub(super) fn commit_is_due(&self) -> bool {
        self.membership.is_some()
            && matches!(self.options.commit, CommitMode::Auto { .. })
            && Instant::now() >= self.next_commit
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_finished(&self) -> bool {
        if self.has_handed_all() {
            return true;
        }
        if self.options.stop == StopAt::Never || !self.events.is_empty() {
            return false;
        }
        let settled = self
            .membership
            .as_ref()
            .is_none_or(|membership| membership.was_assigned() && !membership.has_change());
        settled && self.lanes.values().all(|lane| lane.is_done() || lane.halted)
    }

    /// Whether as many records were handed out as ever may be.
    pub(super) fn has_handed_all(&self) -> bool {
        self.records_left == Some(0)
    }

    /// Does what can be done without waiting for records.
    pub(super) async fn turn(&mut self) -> Result<(), ClientError> {
        while let Ok((number, event)) = self.events.try_recv() {
            self.take_event(number, event)?;
        }
        self.follow_group().await?;
        if self.commit_is_due() {
            self.commit_processed().await?;
        }
        Ok(())
    }

    /// Waits for something to happen.
    pub(super) async fn wait(&mut self) -> Result<(), ClientError> {
        self.turn().await?;
        if !self.ring.is_empty() || self.is_finished() {
            return Ok(());
        }
        let now = Instant::now();
        if self.lanes.values().any(|lane| wants_subscription(lane, now)) {
            self.connect().await?;
            self.subscribe(now);
        }
        let retry = self.lanes.values().filter_map(|lane| lane.retry_at).min();
        let auto =
            self.membership.is_some() && matches!(self.options.commit, CommitMode::Auto { .. });
        let credit = self.repeat_credit(now);
        let wake = [retry, credit, auto.then_some(self.next_commit)].into_iter().flatten().min();
        let membership = self.membership.clone();
        let connection = self.connection.clone();
        tokio::select! {
            Some((number, event)) = self.events.recv() => self.take_event(number, event)?,
            Some(()) = OptionFuture::from(membership.as_ref().map(|m| m.news.notified())) => {}
            Some(()) = OptionFuture::from(wake.map(tokio::time::sleep_until)) => {}
            Some(()) = OptionFuture::from(connection.as_ref().map(|c| c.closed())) => {
                self.disconnected();
            }
        }
        Ok(())
    }

    /// A live connection. Waits between attempts for as long as it takes, or as `unreachable_after`
    /// says: a consumer outlives its broker's restarts.
    async fn connect(&mut self) -> Result<(), ClientError> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_spent()) {
            return Ok(());
        }
        if self.connection.is_some() {
            self.disconnected();
        }
        loop {
            match self.core.connection().await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.retries.worked();
                    self.away_since = None;
                    return Ok(());
                }
                Err(error) if error.is_passing() => {
                    let since = *self.away_since.get_or_insert_with(Instant::now);
                    let told_after = self.options.unreachable_after.unwrap_or(Duration::MAX);
                    if since.elapsed() >= told_after {
                        self.away_since = None;
                        return Err(error);
                    }
                    let pause = self.core.wait(&mut self.retries, &error);
                    // Not to be told later than that.
                    tokio::time::sleep(pause.min(told_after)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn disconnected(&mut self) {
        if let Some(connection) = self.connection.take() {
            for number in self.numbers.keys() {
                connection.remove_subscription(*number);
            }
        }
        self.numbers.clear();
        // Events of the old connection have numbers that the new one uses again.
        (self.events_in, self.events) = mpsc::unbounded_channel();
        for lane in self.lanes.values_mut() {
            lane.subscription = None;
        }
    }

    fn subscribe(&mut self, now: Instant) {
        let Some(connection) = self.connection.clone() else { return };
        let share = self.share(Grant::First);
        let group = match &self.options.reading {
            Reading::Group { group, .. } => Some(group.clone()),
            _ => None,
        };
        for lane in self.lanes.values_mut().filter(|lane| wants_subscription(lane, now)) {
            let number = connection.add_subscription(self.events_in.clone());
            let CreditTotals { bytes_to, records_to } = lane.open(number, share, moment(now));
            self.numbers.insert(number, lane.part);
            let request = subscribe::Request {
                subscription: number,
                topic: lane.part.topic,
                partition: lane.part.partition,
                from: lane.fetch_from,
                bytes_to,
                records_to,
                group: group.clone(),
            };
            ask(&connection, number, &request, &self.events_in);
        }
    }

    /// Tells the broker what it does not know yet of a partition's position and pause.
    pub(super) fn say(&mut self, part: TopicPartition) {
        let (Some(connection), Some(lane)) = (&self.connection, self.lanes.get_mut(&part)) else {
            return;
        };
        let events = &self.events_in;
        match lane.next_wish() {
            None => {}
            Some(Wish::Seek(wish)) => ask(connection, wish.subscription, &wish, events),
            Some(Wish::Pause(wish)) => ask(connection, wish.subscription, &wish, events),
            Some(Wish::Resume(wish)) => ask(connection, wish.subscription, &wish, events),
        }
    }

    fn take_event(&mut self, number: u32, event: SubscriptionEvent) -> Result<(), ClientError> {
        let Some(part) = self.numbers.get(&number).copied() else { return Ok(()) };
        let error = match event {
            SubscriptionEvent::Batches(notice, data) => {
                if let Some(lane) = self.lanes.get_mut(&part) {
                    let had = lane.has_parcels();
                    lane.receive(&notice, data, moment(Instant::now()));
                    if !had && lane.has_parcels() {
                        self.ring.push_back(part);
                    }
                }
                return Ok(());
            }
            // It ended before it learned of a seek: its reason concerns the old place only.
            SubscriptionEvent::End(epoch, _) if self.is_older(part, epoch) => {
                self.numbers.remove(&number);
                if let Some(lane) = self.lanes.get_mut(&part) {
                    lane.subscription = None;
                }
                return Ok(());
            }
            SubscriptionEvent::Told => {
                if let Some(lane) = self.lanes.get_mut(&part) {
                    lane.told();
                }
                self.say(part);
                return Ok(());
            }
            SubscriptionEvent::End(_, answer) => ClientError::from(answer),
            SubscriptionEvent::Refused(error) => error,
        };
        self.end_subscription(number);
        self.subscription_ended(part, error)
    }

    fn is_older(&self, part: TopicPartition, epoch: u32) -> bool {
        self.lanes.get(&part).is_some_and(|lane| epoch < lane.epoch())
    }

    fn subscription_ended(
        &mut self,
        part: TopicPartition,
        error: ClientError,
    ) -> Result<(), ClientError> {
        let in_group = self.membership.is_some();
        let (share, now) = (self.share(Grant::First), Instant::now());
        let pause = self.core.wait(&mut self.retries, &error);
        let Some(lane) = self.lanes.get_mut(&part) else { return Ok(()) };
        lane.subscription = None;
        match (error.code(), error.detail()) {
            (ErrorCode::OffsetOutOfRange, Some(ErrorDetail::OffsetRange { start, end })) => {
                let to = lane.fetch_from.clamp(*start, (*end).max(*start));
                tracing::warn!(topic = %lane.topic, partition = part.partition.0,
                    from = lane.fetch_from.0, to = to.0, "the offset is not there any more");
                lane.fetch_from = to;
                lane.position = lane.position.max(to.min(*start));
                if to < lane.position {
                    lane.seek(to, share, moment(now));
                }
                Ok(())
            }
            // Its group will say so; until then it has nothing to give.
            (ErrorCode::TopicNotFound | ErrorCode::PartitionNotFound, _) if in_group => {
                lane.halted = true;
                Ok(())
            }
            _ if error.is_passing() => {
                lane.retry_at = Some(now + pause);
                Ok(())
            }
            _ => {
                lane.halted = true;
                Err(error)
            }
        }
    }

    /// Carries out what the coordinator wants: first gives up, then says so, then takes.
    async fn follow_group(&mut self) -> Result<(), ClientError> {
        let Some(membership) = self.membership.clone() else { return Ok(()) };
        match membership.change() {
            None => Ok(()),
            Some(Change::Failed(error)) => Err(error),
            Some(Change::Lost) => {
                let parts: Vec<_> = self.lanes.keys().copied().collect();
                self.drop_lanes(&parts);
                membership.dropped();
                self.tell(Rebalance::Lost(parts));
                Ok(())
            }
            Some(Change::Assigned(assignment)) => self.adopt(&membership, assignment).await,
        }
    }

    async fn adopt(
        &mut self,
        membership: &Arc<Membership>,
        assignment: Vec<(TopicPartition, TopicName)>,
    ) -> Result<(), ClientError> {
        let wanted = |part: &TopicPartition| assignment.iter().any(|(wanted, _)| wanted == part);
        let surplus: Vec<_> = self.lanes.keys().copied().filter(|part| !wanted(part)).collect();
        if !surplus.is_empty() {
            // What cannot be committed is read again by the next owner.
            if let Err(error) = self.commit_processed().await {
                tracing::warn!(%error, "giving partitions up without a commit");
            }
            self.drop_lanes(&surplus);
            membership.owns(self.lanes.keys().copied().collect());
            self.tell(Rebalance::Revoked(surplus));
        }
        let fresh: Vec<_> =
            assignment.iter().filter(|(part, _)| !self.lanes.contains_key(part)).cloned().collect();
        let lanes = self.new_lanes(fresh, Some(membership)).await?;
        let added: Vec<_> = lanes.iter().map(|lane| lane.part).collect();
        self.lanes.extend(lanes.into_iter().map(|lane| (lane.part, lane)));
        membership.owns(self.lanes.keys().copied().collect());
        membership.done(&assignment);
        if !added.is_empty() {
            self.tell(Rebalance::Assigned(added));
        }
        Ok(())
    }

    /// Where reading begins, and ends, in each of these.
    async fn new_lanes(
        &self,
        parts: Vec<(TopicPartition, TopicName)>,
        membership: Option<&Arc<Membership>>,
    ) -> Result<Vec<Lane>, ClientError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = parts.iter().map(|(part, _)| *part).collect();
        let committed = match membership {
            Some(membership) => self.committed(membership, &ids).await?,
            None => vec![None; ids.len()],
        };
        // Resolved for all, so that one request of a kind is enough.
        let starts = match committed.iter().all(Option::is_some) {
            true => vec![Offset::ZERO; ids.len()],
            false => self.core.offsets(&ids, self.options.start).await?,
        };
        let ends = match &self.options.stop {
            StopAt::Never => vec![None; ids.len()],
            StopAt::Offsets(ends) => {
                let end = |part: &TopicPartition| ends.get(&part.partition).copied();
                ids.iter().map(|part| Some(end(part).unwrap_or(Offset::ZERO))).collect()
            }
            StopAt::End => {
                let ends = self.core.offsets(&ids, StartAt::End).await?;
                ends.into_iter().map(Some).collect()
            }
        };
        let mut lanes = Vec::with_capacity(parts.len());
        for (((part, topic), (committed, start)), end) in
            parts.into_iter().zip(committed.into_iter().zip(starts)).zip(ends)
        {
            let from = committed.unwrap_or(start);
            let credit = CreditWindow::new(self.options.prefetch_records);
            let mut lane = Lane::new(topic, part, from, credit);
            (lane.committed, lane.end) = (committed, end);
            lanes.push(lane);
        }
        Ok(lanes)
    }

    pub(super) fn drop_lanes(&mut self, parts: &[TopicPartition]) {
        for part in parts {
            let Some(lane) = self.lanes.remove(part) else { continue };
            self.handed.retain(|handed| handed != part);
            self.partial.retain(|(from, _)| from != part);
            if let Some(subscription) = lane.subscription {
                self.end_subscription(subscription);
            }
        }
        let lanes = &self.lanes;
        self.ring.retain(|part| lanes.contains_key(part));
    }

    /// Nothing more of it is wanted. The broker may not know it any more, or not yet: either is
    /// fine, since it is told in order.
    fn end_subscription(&mut self, subscription: u32) {
        self.numbers.remove(&subscription);
        if let Some(connection) = &self.connection {
            connection.remove_subscription(subscription);
            let _ = connection.call_in_order(&unsubscribe::Request { subscription }, drop);
        }
    }

    pub(super) fn give_credit(&mut self, part: TopicPartition) {
        let share = self.share(Grant::Further);
        let Some(lane) = self.lanes.get_mut(&part) else { return };
        let credit = lane.credit(share, moment(Instant::now()));
        if let (Some(credit), Some(connection)) = (credit, &self.connection) {
            connection.notify(&credit);
        }
    }

    /// Says again what may be sent where that may have been lost; when to do so next.
    fn repeat_credit(&mut self, now: Instant) -> Option<Instant> {
        // Records that came elsewhere and were not wanted there are left for others.
        let any = self.records_left.is_some();
        let due = |lane: &&Lane| any || lane.credit_again_at().is_some_and(|at| at <= moment(now));
        let parts: Vec<_> = self.lanes.values().filter(due).map(|lane| lane.part).collect();
        parts.into_iter().for_each(|part| self.give_credit(part));
        self.lanes.values().filter_map(Lane::credit_again_at).min().map(instant)
    }

    /// One partition's part of the memory, of what the broker lets a connection claim, and of the
    /// records that are left.
    pub(super) fn share(&self, grant: Grant) -> Share {
        let lanes = (self.lanes.len() as u64).max(1);
        let memory = self.options.memory_bytes as u64 / lanes;
        let others = self.connection.as_ref().map_or(0, |connection| connection.subscriptions());
        let bytes = memory.min(CREDIT_BYTES_MAX / others.max(lanes));
        Share { bytes, records: self.records_left.map_or(u64::MAX, |left| self.part(left, grant)) }
    }

    /// At first all get the same part of the records that are left. Who used that up may have all
    /// there are, and the others none: so it gets half of what is not here yet.
    fn part(&self, left: u64, grant: Grant) -> u64 {
        let waiting: u64 = self.lanes.values().map(Lane::waiting_records).sum();
        let missing = left.saturating_sub(waiting + self.partial.len() as u64);
        let lanes = (self.lanes.len() as u64).max(1);
        match grant {
            Grant::First => missing.div_ceil(lanes),
            Grant::Further => missing.div_ceil(lanes.min(2)),
        }
    }

    fn tell(&self, news: Rebalance) {
        if let Some(hook) = &self.on_rebalance {
            hook(&news);
        }
    }
}

/// Asks the broker something about a subscription; its events say what came of it.
fn ask<C: Call>(
    connection: &Connection,
    number: u32,
    request: &C,
    events: &mpsc::UnboundedSender<Delivered>,
) {
    let events = events.clone();
    let sink = move |answer: Result<C::Answer, ClientError>| {
        let event = match answer {
            Ok(_) => SubscriptionEvent::Told,
            Err(error) => SubscriptionEvent::Refused(error),
        };
        // A consumer that is gone does not care.
        drop(events.send((number, event)));
    };
    // A closed connection is found closed where the consumer waits.
    let _ = connection.call_in_order(request, sink);
}

fn wants_subscription(lane: &Lane, now: Instant) -> bool {
    lane.subscription.is_none()
        && !lane.paused
        && !lane.halted
        && !lane.is_done()
        && lane.retry_at.is_none_or(|at| at <= now)
}
