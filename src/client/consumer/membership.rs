//! Membership in a group: one task that sends heartbeats, whatever the program does meanwhile. It
//! says what the consumer owns and keeps what the coordinator wants; the consumer acts on that
//! when it is next asked for a record, so that nothing is given up while it is worked on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::ClientError;
use crate::client::core::Core;
use crate::client::flow::RetryContract;
use crate::protocol::native::group_heartbeat::{Request, Response};
use crate::types::{Assignor, ErrorCode, GroupId, TopicName, TopicPartition};

const EPOCH_JOIN: i32 = 0;
const EPOCH_LEAVE: i32 = -1;
const EPOCH_LEAVE_STATIC: i32 = -2;
/// Until the coordinator says what it is: its default.
const SESSION_FIRST: Duration = Duration::from_secs(10);

/// Who joins, and for what.
pub(super) struct Joining {
    pub(super) group: GroupId,
    pub(super) topics: Vec<TopicName>,
    pub(super) instance_id: Option<String>,
    pub(super) assignor: Option<Assignor>,
    pub(super) rebalance_timeout: Duration,
}

/// What the consumer has to do.
#[derive(Debug)]
pub(super) enum Change {
    /// Hold exactly this.
    Assigned(Vec<(TopicPartition, TopicName)>),
    /// Drop everything: others may read it already.
    Lost,
    /// There is no going on.
    Failed(ClientError),
}

pub(super) struct Membership {
    core: Arc<Core>,
    joining: Joining,
    member_id: String,
    state: Mutex<State>,
    /// For the task: something to say now.
    poke: Notify,
    /// For the consumer: something to do.
    pub(super) news: Notify,
    gone: watch::Sender<bool>,
}

struct State {
    epoch: i32,
    owned: Vec<TopicPartition>,
    change: Option<Change>,
    /// The consumer has not yet dropped what was lost.
    dropping: bool,
    heard: Instant,
    session: Duration,
    leaving: bool,
    assigned_once: bool,
}

impl Membership {
    /// Joins, and stays until `leave`.
    pub(super) fn start(core: Arc<Core>, joining: Joining) -> Arc<Membership> {
        let membership = Arc::new(Membership {
            core,
            joining,
            // Made here, so that a lost answer leaves no ghost behind.
            member_id: Uuid::new_v4().simple().to_string(),
            state: Mutex::new(State {
                epoch: EPOCH_JOIN,
                owned: Vec::new(),
                change: None,
                dropping: false,
                heard: Instant::now(),
                session: SESSION_FIRST,
                leaving: false,
                assigned_once: false,
            }),
            poke: Notify::new(),
            news: Notify::new(),
            gone: watch::Sender::new(false),
        });
        tokio::spawn(stay(Arc::clone(&membership)));
        membership
    }

    /// The group.
    pub(super) fn group(&self) -> &GroupId {
        &self.joining.group
    }

    /// Id and epoch, for commits.
    pub(super) fn identity(&self) -> (String, i32) {
        (self.member_id.clone(), self.lock().epoch)
    }

    /// Whether there is something to do.
    pub(super) fn has_change(&self) -> bool {
        self.lock().change.is_some()
    }

    /// Whether an assignment was received, now or before.
    pub(super) fn was_assigned(&self) -> bool {
        self.lock().assigned_once
    }

    /// What there is to do. Stays until `done` or a newer one, so that a cancelled consumer finds
    /// it again.
    pub(super) fn change(&self) -> Option<Change> {
        match &self.lock().change {
            None => None,
            Some(Change::Assigned(parts)) => Some(Change::Assigned(parts.clone())),
            Some(Change::Lost) => Some(Change::Lost),
            Some(Change::Failed(error)) => Some(Change::Failed(error.clone())),
        }
    }

    /// The consumer holds exactly this now; said to the coordinator at once.
    pub(super) fn owns(&self, owned: Vec<TopicPartition>) {
        self.lock().owned = owned;
        self.poke.notify_one();
    }

    /// The assignment that led here is carried out, unless a newer one came.
    pub(super) fn done(&self, assignment: &[(TopicPartition, TopicName)]) {
        let mut state = self.lock();
        if matches!(&state.change, Some(Change::Assigned(parts)) if parts == assignment) {
            state.change = None;
        }
    }

    /// Everything is dropped after a loss: it may join again.
    pub(super) fn dropped(&self) {
        let mut state = self.lock();
        state.change = None;
        state.dropping = false;
        state.owned.clear();
        drop(state);
        self.poke.notify_one();
    }

    /// A commit was refused because this is no member any more.
    pub(super) fn expelled(&self) {
        self.lose(&mut self.lock());
        self.news.notify_one();
    }

    /// Leaves, and waits until that is said. A static member only says that it will be back.
    pub(super) async fn leave(&self) {
        let mut gone = self.gone.subscribe();
        self.leave_behind();
        // An error means that the task ended before.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Leaves without anybody waiting for it.
    pub(super) fn leave_behind(&self) {
        self.lock().leaving = true;
        self.poke.notify_one();
    }

    async fn say_goodbye(&self) {
        let known = self.lock().epoch != EPOCH_JOIN;
        if known {
            let away = self.joining.instance_id.is_some();
            let mut request = self.request();
            request.member_epoch = if away { EPOCH_LEAVE_STATIC } else { EPOCH_LEAVE };
            // Without it the session times out, which is the same a little later.
            let _ = self.core.call(&request).await;
        }
        self.gone.send_replace(true);
    }

    fn request(&self) -> Request {
        let state = self.lock();
        Request {
            group: self.joining.group.clone(),
            member_id: self.member_id.clone(),
            member_epoch: state.epoch,
            instance_id: self.joining.instance_id.clone(),
            client_id: self.core.options.client_id.clone(),
            rebalance_timeout_ms: u32::try_from(self.joining.rebalance_timeout.as_millis())
                .unwrap_or(u32::MAX),
            topics: Some(self.joining.topics.clone()),
            assignor: self.joining.assignor,
            owned: Some(state.owned.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a handful of assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, sent: Instant, answer: Response) -> Duration {
        let mut state = self.lock();
        state.heard = sent;
        state.epoch = answer.member_epoch;
        state.session = Duration::from_millis(u64::from(answer.session_timeout_ms.max(1)));
        if let Some(assignment) = answer.assignment {
            let parts = assignment.into_iter().map(|assigned| {
                let (topic, partition) = (assigned.topic, assigned.partition);
                (TopicPartition { topic, partition }, assigned.name)
            });
            state.change = Some(Change::Assigned(parts.collect()));
            state.assigned_once = true;
            drop(state);
            self.news.notify_one();
        }
        Duration::from_millis(u64::from(answer.heartbeat_interval_ms.max(10)))
    }

    fn lose(&self, state: &mut State) {
        state.epoch = EPOCH_JOIN;
        state.heard = Instant::now();
        state.dropping = true;
        state.change = Some(Change::Lost);
    }

    /// What a failed heartbeat means; `None` = no further ones.
    fn miss(&self, error: ClientError, contract: &mut RetryContract) -> Option<Duration> {
        let mut state = self.lock();
        match error.code() {
            ErrorCode::UnknownMember | ErrorCode::StaleMemberEpoch => {
                self.lose(&mut state);
            }
            _ if error.is_passing() => {
                if state.heard.elapsed() >= state.session && state.epoch != EPOCH_JOIN {
                    // The coordinator has given our partitions to others by now.
                    self.lose(&mut state);
                }
            }
            _ => {
                state.change = Some(Change::Failed(error));
                drop(state);
                self.news.notify_one();
                return None;
            }
        }
        drop(state);
        self.news.notify_one();
        Some(self.core.wait(contract, &error).min(SESSION_FIRST / 4))
    }
}

async fn stay(membership: Arc<Membership>) {
    let mut contract = RetryContract::new(membership.core.options.retry_wait);
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = membership.poke.notified() => {}
        }
        let (leaving, dropping) = {
            let state = membership.lock();
            (state.leaving, state.dropping)
        };
        if leaving {
            return membership.say_goodbye().await;
        }
        if dropping {
            // Nothing is said before the consumer let go; it may take its time.
            wait = SESSION_FIRST;
            continue;
        }
        let sent = Instant::now();
        match membership.core.call(&membership.request()).await {
            Ok(answer) => {
                contract.worked();
                wait = membership.hear(sent, answer);
            }
            Err(error) => match membership.miss(error, &mut contract) {
                Some(pause) => wait = pause,
                None => {
                    membership.gone.send_replace(true);
                    return;
                }
            },
        }
    }
}
