//! What comes back: answers to batches, and a publisher's notices.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Delivered;
use super::lane::{Batch, Settled};
use super::shared::{Shared, State};
use crate::client::ClientError;
use crate::client::connection::PublisherSink;
use crate::client::moment::moment;
use crate::protocol::native::{grant, produce, pushback};
use crate::types::{Acks, ErrorCode, PartitionId, Severity};

impl Shared {
    /// The answer to a batch.
    pub(super) fn answered(
        self: &Arc<Self>,
        lane: usize,
        id: u64,
        answer: Result<produce::Response, ClientError>,
    ) {
        let mut state = self.lock();
        state.answered(self, lane, id, answer);
        state.pump(self, lane);
    }

    pub(super) fn complete(&self, mut batch: Batch, outcome: Result<Delivered, ClientError>) {
        if !batch.given_up {
            self.tell(&mut batch, outcome);
        }
    }

    /// Tells what became of a batch, and gives its room back.
    pub(super) fn tell(&self, batch: &mut Batch, outcome: Result<Delivered, ClientError>) {
        self.room.add_permits(std::mem::take(&mut batch.room));
        batch.outcome.tell(outcome.map(|first| (first, batch.records)));
    }
}

impl State {
    fn answered(
        &mut self,
        shared: &Arc<Shared>,
        number: usize,
        id: u64,
        answer: Result<produce::Response, ClientError>,
    ) {
        let lane = &mut self.lanes[number];
        let Some(batch) = lane.under_way.remove(&id) else { return };
        // Without an answer nobody knows when the broker is done: then only grants count.
        if shared.options.acks != Acks::None
            && let Some(window) = self.link.as_mut().and_then(|link| link.window.as_mut())
        {
            window.answered(batch.sent_bytes);
        }
        match answer {
            Ok(response) => {
                lane.acked(&batch, response.base_offset);
                let delivered = delivered(lane.partition, response);
                shared.complete(batch, Ok(delivered));
            }
            Err(error) if error.code() == ErrorCode::DuplicateUnknown => {
                lane.acked(&batch, None);
                let delivered = delivered(lane.partition, REMEMBERED_NO_MORE);
                shared.complete(batch, Ok(delivered));
            }
            Err(error) => self.not_written(shared, number, batch, error),
        }
        self.settle(shared, number);
    }

    fn not_written(
        &mut self,
        shared: &Arc<Shared>,
        number: usize,
        mut batch: Batch,
        error: ClientError,
    ) {
        let now = Instant::now();
        let lane = &mut self.lanes[number];
        let out_of_order = error.code() == ErrorCode::OutOfOrderSequence && batch.first.is_some();
        let again = (error.is_passing() || out_of_order)
            && !batch.given_up
            && lane.hold(&shared.core, &error, batch.deadline);
        if !again {
            batch.failed(error.clone());
            return lane.give_up(shared, batch, error);
        }
        if let Some(pushback) = error.pushback() {
            let until = lane.hold_until.unwrap_or(now);
            self.pace.refused(pushback, moment(until));
            self.pressure = Some((pushback.clone(), until));
        }
        self.lanes[number].try_again(batch, error);
        shared.work.notify_one();
    }

    pub(super) fn settle(&mut self, shared: &Arc<Shared>, number: usize) {
        let lane = &mut self.lanes[number];
        let Some(Settled { lost, undecided }) = lane.settle() else { return };
        for batch in undecided {
            let error = batch.last_error.clone().unwrap_or(ClientError::Closed);
            lane.give_up(shared, batch, error);
        }
        let Some(lost) = lost else { return };
        tracing::warn!(
            partition = lost.partition.0,
            records = lost.records,
            "the broker lost acknowledged records; going on under a new epoch"
        );
        self.losses.push(lost);
        shared.work.notify_one();
    }
}

/// Notices for a publisher, for as long as its producer lives.
pub(super) struct Notices(pub(super) Weak<Shared>);

impl PublisherSink for Notices {
    fn grant(&self, grant: &grant::Request) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut state = shared.lock();
        if let Some(window) = state.link.as_mut().and_then(|link| link.window.as_mut()) {
            window.grant(grant, moment(Instant::now()));
        }
        if state.wanted_bytes.take().is_some() {
            for lane in 0..state.lanes.len() {
                state.pump(&shared, lane);
            }
            shared.work.notify_one(); // what limits is something else now
        }
    }

    fn pushback(&self, notice: &pushback::Request) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut state = shared.lock();
        let until = Instant::now()
            + Duration::from_millis(u64::from(notice.pushback.retry_after_ms.max(1_000)));
        state.pressure = Some((notice.pushback.clone(), until));
        shared.work.notify_one();
        if notice.pushback.severity == Severity::Slow || notice.pushback.retry_after_ms == 0 {
            return;
        }
        let meant = notice.partition.filter(|meant| meant.topic == state.topic.id);
        if notice.partition.is_some() && meant.is_none() {
            return;
        }
        let wait = Duration::from_millis(u64::from(notice.pushback.retry_after_ms));
        for lane in &mut state.lanes {
            if meant.is_none_or(|meant| meant.partition == lane.partition) {
                lane.hold_until = Some(Instant::now() + wait);
            }
        }
    }

    fn lost(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.lock().link = None;
            shared.work.notify_one();
        }
    }
}

/// A repeat that is older than what the broker remembers.
const REMEMBERED_NO_MORE: produce::Response = produce::Response {
    base_offset: None,
    append_time: crate::types::Timestamp::NONE,
    level: crate::types::DurabilityLevel::Os,
    duplicate: true,
};

fn delivered(partition: PartitionId, response: produce::Response) -> Delivered {
    Delivered {
        partition,
        offset: response.base_offset,
        timestamp: response.append_time,
        level: response.level,
        duplicate: response.duplicate,
    }
}
