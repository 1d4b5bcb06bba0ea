//! Answers that wait for a commit. Append is not commit (DESIGN section 7): an append assigns
//! offsets, and its answer hangs here until the durable end covers it.
//!
//! # Invariants
//! Ends ascend from front to back; every `done` is called exactly once.

use std::collections::VecDeque;

use super::append::{AppendDone, Appended};
use super::error::AppendError;
use crate::types::{Acks, Durability, DurabilityLevel, Offset};

/// What an answer waits for, after the topic's setting was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// The write; the answer then states this level.
    Write(DurabilityLevel),
    /// An `fdatasync` that covers it.
    Sync,
}

/// What `acks` means on a partition of this durability.
pub(crate) fn wait_for(acks: Acks, durability: Durability) -> WaitFor {
    match (acks, durability) {
        (Acks::None, _) => WaitFor::Write(DurabilityLevel::None),
        (Acks::Os, _) => WaitFor::Write(DurabilityLevel::Os),
        (Acks::Durable, _) | (Acks::Topic, Durability::Fsync) => WaitFor::Sync,
        (Acks::Topic, Durability::Interval { .. } | Durability::Os) => {
            WaitFor::Write(DurabilityLevel::Os)
        }
    }
}

/// Answers in the order of the ends they wait for.
#[derive(Default)]
pub(crate) struct PendingAcks {
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    end: Offset,
    result: Result<Appended, AppendError>,
    done: Box<dyn AppendDone>,
}

impl PendingAcks {
    /// Keeps an answer until the durable end is at least `end`. A rejection that was decided on
    /// state which is not durable yet waits for the same point.
    pub(crate) fn push(
        &mut self,
        end: Offset,
        result: Result<Appended, AppendError>,
        done: Box<dyn AppendDone>,
    ) {
        // A retry of an older batch may wait for less than the newest does: it then waits with it.
        let end = self.waiting.back().map_or(end, |last| last.end.max(end));
        self.waiting.push_back(Waiting { end, result, done });
    }

    /// What the last answer waits for.
    pub(crate) fn wanted(&self) -> Option<Offset> {
        self.waiting.back().map(|last| last.end)
    }

    /// Gives every answer that `durable_end` covers.
    pub(crate) fn release(&mut self, durable_end: Offset) {
        while self.waiting.front().is_some_and(|first| first.end <= durable_end) {
            let Some(Waiting { result, done, .. }) = self.waiting.pop_front() else { break };
            let durable = |a: Appended| Appended { level: DurabilityLevel::Durable, ..a };
            done.done(result.map(durable));
        }
    }

    /// Refuses all: no commit will cover them.
    pub(crate) fn refuse(&mut self, error: &AppendError) {
        for Waiting { done, .. } in self.waiting.drain(..) {
            done.done(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::types::Timestamp;

    type Log = Arc<Mutex<Vec<(i64, Result<Appended, AppendError>)>>>;

    fn appended(base: i64) -> Appended {
        Appended {
            base_offset: Offset(base),
            last_offset: Offset(base),
            append_time: Timestamp(0),
            level: DurabilityLevel::Os,
            duplicate: false,
            log_start: Offset(0),
        }
    }

    fn note(log: &Log, id: i64) -> Box<dyn AppendDone> {
        let log = Arc::clone(log);
        Box::new(move |result| log.lock().expect("log").push((id, result)))
    }

    #[test]
    fn an_answer_waits_until_the_durable_end_covers_it() {
        let (log, mut pending) = (Log::default(), PendingAcks::default());
        pending.push(Offset(1), Ok(appended(0)), note(&log, 0));
        pending.push(Offset(2), Ok(appended(1)), note(&log, 1));
        pending.release(Offset(0));
        assert!(log.lock().expect("log").is_empty());
        pending.release(Offset(1));
        let got = log.lock().expect("log").clone();
        assert_eq!(got, [(0, Ok(Appended { level: DurabilityLevel::Durable, ..appended(0) }))]);
        assert_eq!(pending.wanted(), Some(Offset(2)));
    }

    #[test]
    fn a_rejection_waits_for_the_state_it_was_decided_on() {
        let (log, mut pending) = (Log::default(), PendingAcks::default());
        pending.push(Offset(5), Ok(appended(4)), note(&log, 0));
        let rejected = AppendError::OutOfOrderSequence { expected: 5, found: 9 };
        pending.push(Offset(3), Err(rejected.clone()), note(&log, 1));
        pending.release(Offset(4));
        assert!(log.lock().expect("log").is_empty());
        pending.release(Offset(5));
        assert_eq!(log.lock().expect("log").last(), Some(&(1, Err(rejected))));
    }

    #[test]
    fn refusing_answers_each_once() {
        let (log, mut pending) = (Log::default(), PendingAcks::default());
        pending.push(Offset(1), Ok(appended(0)), note(&log, 0));
        let latched = AppendError::Latched { cause: "sync failed".to_owned() };
        pending.refuse(&latched);
        pending.refuse(&latched);
        pending.release(Offset(9));
        assert_eq!(*log.lock().expect("log"), [(0, Err(latched))]);
    }

    #[test]
    fn acks_mean_what_the_table_says() {
        let interval = Durability::Interval { ms: 100 };
        let os = WaitFor::Write(DurabilityLevel::Os);
        assert_eq!(wait_for(Acks::Topic, Durability::Fsync), WaitFor::Sync);
        assert_eq!(wait_for(Acks::Topic, Durability::Os), os);
        assert_eq!(wait_for(Acks::Topic, interval), os);
        assert_eq!(wait_for(Acks::Durable, Durability::Os), WaitFor::Sync);
        assert_eq!(wait_for(Acks::Os, Durability::Fsync), os);
        assert_eq!(wait_for(Acks::None, Durability::Fsync), WaitFor::Write(DurabilityLevel::None));
    }
}
