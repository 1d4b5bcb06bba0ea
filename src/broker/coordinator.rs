//! Drives the group coordinator: one task that takes what is queued as a round, commits the
//! round's records with one append, applies them, then answers.
//!
//! # Promises
//! No answer that rests on a change leaves before the change is durable. A round that could not be
//! stored is forgotten, and everybody in it is told so. Group requests never wait for produce.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::core::{Core, Phase};
use super::error::CommitError;
use super::groups::{
    Commit, CommitAnswer, FetchCommitted, FetchedOffset, GroupError, GroupRecord, Groups,
    Heartbeat, HeartbeatAnswer, Mode, Reset, ResetOffset, Round, Sessions, Span, Surroundings,
    TopicCatalog, TopicShape,
};
use super::internal_log::{InternalLog, Machine};
use super::request::OffsetQuery;
use super::topic::TopicTable;
use crate::types::{
    ErrorCode, GroupDescription, GroupId, GroupListing, OffsetReset, TopicId, TopicName,
    TopicPartition,
};

/// Requests that may wait for the coordinator: a thousand members' heartbeats.
const QUEUE_MAX: usize = 4_096;
/// Requests of one round: bounds what one append carries.
const ROUND_MAX: usize = 512;
/// A round that could not be stored is not tried again at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Runs in a round; what it returns is called with the round's fate.
type Job = Box<dyn FnOnce(&mut Round<'_>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// Consumer groups, as front ends ask for them. Cheap to clone.
#[derive(Clone)]
pub struct GroupHandle {
    jobs: mpsc::Sender<Job>,
    core: Arc<Core>,
}

/// The other end: state, sessions, and the queue.
pub(super) struct Coordinator {
    core: Arc<Core>,
    log: InternalLog<Groups>,
    sessions: Sessions,
    jobs: mpsc::Receiver<Job>,
}

impl Machine for Groups {
    type Record = GroupRecord;

    fn apply(&mut self, record: &GroupRecord) {
        Groups::apply(self, record);
    }

    fn snapshot(&self) -> Vec<GroupRecord> {
        Groups::snapshot(self)
    }
}

impl GroupHandle {
    /// A member's sign of life; also joins and leaves.
    pub async fn heartbeat(&self, request: Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        self.ask(move |round| round.heartbeat(&request)).await
    }

    /// Stores offsets; durable when it returns.
    pub async fn commit(&self, request: Commit) -> Result<CommitAnswer, GroupError> {
        self.ask(move |round| round.commit(&request)).await
    }

    /// Committed offsets.
    pub async fn fetch_committed(
        &self,
        request: FetchCommitted,
    ) -> Result<Vec<FetchedOffset>, GroupError> {
        self.ask(move |round| round.fetch_committed(&request)).await
    }

    /// Moves committed offsets of an empty group. Looks times up in the log itself.
    pub async fn reset(&self, mut request: Reset) -> Result<Vec<ResetOffset>, GroupError> {
        if let OffsetReset::AtTime(at) = request.to {
            let topic = self.core.topics.by_name(&request.topic);
            let partitions = topic.map(|topic| topic.partitions());
            request.at_time.clear();
            for partition in partitions.iter().flat_map(|all| all.iter()) {
                let found = partition.find(OffsetQuery::AtTime(at)).await;
                let found = found.map_err(|e| GroupError::Invalid {
                    field: "to",
                    reason: format!("partition {}: {e}", partition.id().partition),
                })?;
                request.at_time.push((partition.id().partition, found.offset));
            }
        }
        self.ask(move |round| round.reset(&request)).await
    }

    /// All groups, by name.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        self.ask(|round| Ok(round.list())).await
    }

    /// One group with members, offsets and lag.
    pub async fn describe(&self, group: GroupId) -> Result<GroupDescription, GroupError> {
        self.ask(move |round| round.describe(&group)).await
    }

    /// Forgets an empty group and its offsets.
    pub async fn delete(&self, group: GroupId, mode: Mode) -> Result<(), GroupError> {
        self.ask(move |round| round.delete(&group, mode)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Round<'_>) -> Result<T, GroupError> + Send + 'static,
    ) -> Result<T, GroupError> {
        let (told, answer) = oneshot::channel();
        let job: Job = Box::new(move |round| {
            let decided = run(round);
            Box::new(move |stored| {
                // Who asked may have gone.
                let _ = told.send(decided.and_then(|answer| stored.map(|()| answer)));
            })
        });
        self.jobs.send(job).await.map_err(|_| GroupError::Closed)?;
        answer.await.unwrap_or(Err(GroupError::Closed))
    }
}

impl Coordinator {
    /// A coordinator over the replayed log; members get a full session to report again.
    pub(super) fn new(core: Arc<Core>, log: InternalLog<Groups>) -> (GroupHandle, Coordinator) {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let handle = GroupHandle { jobs: sender, core: Arc::clone(&core) };
        let timeout = core.options.groups.session_timeout();
        let sessions = Sessions::adopt(log.machine(), core.env.clock.monotonic(), timeout);
        (handle, Coordinator { core, log, sessions, jobs })
    }

    /// Serves until the queue is closed, or the broker goes down at once.
    pub(super) async fn run(mut self) {
        let mut phase = self.core.phase.subscribe();
        // Topics may have gone while the groups did not hear of it.
        self.round(Vec::new(), true).await;
        loop {
            let core = Arc::clone(&self.core);
            let mut jobs = Vec::new();
            let mut changed = false;
            tokio::select! {
                received = self.jobs.recv_many(&mut jobs, ROUND_MAX) => {
                    if received == 0 {
                        return;
                    }
                }
                () = core.topics_changed.notified() => changed = true,
                () = sleep_until(&core, self.sessions.next_deadline()) => {}
                _ = phase.wait_for(|phase| *phase == Phase::AtOnce) => return,
            }
            self.round(jobs, changed).await;
        }
    }

    async fn round(&mut self, jobs: Vec<Job>, topics_changed: bool) {
        let core = Arc::clone(&self.core);
        let (records, replies) = {
            let with = Surroundings {
                options: &core.options.groups,
                topics: &core.topics,
                rng: core.env.rng.as_ref(),
                now: core.env.clock.monotonic(),
                time: core.env.clock.now(),
            };
            let mut round = Round::begin(self.log.machine(), &mut self.sessions, with);
            round.expire();
            if topics_changed {
                round.topics_changed();
            }
            let replies: Vec<Reply> = jobs.into_iter().map(|job| job(&mut round)).collect();
            (round.finish(), replies)
        };
        let stored = self.store(&core, &records).await;
        let failed = stored.is_err();
        for reply in replies {
            reply(stored.clone());
        }
        if failed {
            if topics_changed {
                core.topics_changed.notify_one();
            }
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }

    async fn store(&mut self, core: &Core, records: &[GroupRecord]) -> Result<(), GroupError> {
        if records.is_empty() {
            return Ok(());
        }
        let stored = match core.fault.cause() {
            Some(cause) => Err(CommitError::Latched { cause: cause.to_owned() }),
            None => self.log.commit(records).await,
        };
        self.tell_board(records, stored.is_ok());
        stored.map_err(|error| {
            warn!("a change of consumer groups was not stored: {error}");
            not_stored(&error)
        })
    }

    /// Of a failed round some records may have been stored, and applied, all the same.
    fn tell_board(&self, records: &[GroupRecord], all_stored: bool) {
        let (board, now) = (&self.core.board, self.core.env.clock.monotonic());
        for record in records {
            match all_stored {
                true => board.applied(record, now),
                false => {
                    board.reread(record.group(), self.log.machine().group(record.group()), now)
                }
            }
        }
    }
}

fn not_stored(error: &CommitError) -> GroupError {
    let code = match error {
        CommitError::Pushback(pushback) => ErrorCode::from(pushback.code),
        CommitError::Latched { .. } => ErrorCode::DataDirLatched,
        CommitError::TooLarge { .. } => ErrorCode::InvalidRequest,
        CommitError::Closed => return GroupError::Closed,
    };
    GroupError::NotStored { code, cause: error.to_string() }
}

/// Sleeps until a moment of the broker's clock; for ever when there is none.
async fn sleep_until(core: &Core, deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => {
            let left = deadline.saturating_sub(core.env.clock.monotonic());
            tokio::time::sleep(left).await;
        }
        None => std::future::pending().await,
    }
}

impl TopicCatalog for TopicTable {
    fn topic(&self, name: &TopicName) -> Option<TopicShape> {
        let topic = self.by_name(name)?;
        Some(TopicShape { id: topic.id(), partitions: topic.partition_count() })
    }

    fn topic_by_id(&self, id: TopicId) -> Option<(TopicName, u32)> {
        let topic = self.by_id(id)?;
        Some((topic.name().clone(), topic.partition_count()))
    }

    fn span(&self, partition: TopicPartition) -> Option<Span> {
        let topic = self.by_id(partition.topic)?;
        let (start, end) = topic.partition(partition.partition)?.span();
        Some(Span { start, end })
    }
}
