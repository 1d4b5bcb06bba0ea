//! The bounded queue in front of a writer: batches by count and bytes; orders of the broker and
//! finished file operations pass always, since they only ever make room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::admin::AdminCommand;
use super::append::Append;
use super::error::AppendError;
use super::job::SyncDone;
use super::partition::PartitionShared;
use super::partition_log::PartitionLog;

/// Beyond the bounds, for the broker's own logs alone: commits and heartbeats are not refused because
/// producers are many. Each such log has one commit under way, so a few of the largest batches do.
const INTERNAL_BYTES: usize = 16 << 20;
const INTERNAL_BATCHES: usize = 64;
/// Waiting batches of this size wake the writer though more are announced: enough for one large
/// write, and little enough that writing and receiving overlap.
const WAKE_BYTES: usize = 512 << 10;
/// Times of commits that are kept until somebody takes them: more than end in one look of flow
/// control.
const SYNCS_MAX: usize = 256;

/// One entry of a writer's queue.
pub(crate) enum Command {
    /// A batch.
    Append(Arc<PartitionShared>, Append),
    /// A recovered partition.
    Adopt(Box<PartitionLog>),
    /// An order of the broker.
    Admin(Arc<PartitionShared>, AdminCommand),
}

/// What a writer takes at once.
#[derive(Default)]
pub(crate) struct Taken {
    pub commands: VecDeque<Command>,
    pub dones: Vec<SyncDone>,
}

/// The queue of one writer.
pub(crate) struct WriterQueue {
    state: Mutex<State>,
    ready: Condvar,
    bytes: AtomicUsize,
    batches: AtomicUsize,
    bytes_max: usize,
    batches_max: usize,
    number: usize,
    /// How long the last commits took from order to end.
    syncs: Mutex<Vec<Duration>>,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    dones: Vec<SyncDone>,
    /// Somebody must look at the clock or the latch.
    kicked: bool,
    /// The writer sleeps.
    asleep: bool,
    /// Nothing is taken any more.
    closed: bool,
}

impl WriterQueue {
    pub(crate) fn new(number: usize, bytes_max: usize, batches_max: usize) -> WriterQueue {
        WriterQueue {
            state: Mutex::default(),
            ready: Condvar::new(),
            bytes: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            bytes_max,
            batches_max,
            number,
            syncs: Mutex::default(),
        }
    }

    /// Which writer's it is.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Notes how long a commit took. What nobody takes is not kept for ever.
    pub(crate) fn note_sync(&self, took: Duration) {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        if syncs.len() < SYNCS_MAX {
            syncs.push(took);
        }
    }

    /// Moves the times that were noted since the last call to `into`.
    pub(crate) fn take_syncs(&self, into: &mut Vec<Duration>) {
        into.append(&mut self.syncs.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Queues a batch, or gives it back when the queue is full. One batch always fits; internal logs
    /// have a reserve of their own. With `more` the writer sleeps on until [`WriterQueue::flush`],
    /// or until there is enough to do.
    pub(crate) fn append(
        &self,
        partition: &Arc<PartitionShared>,
        append: Append,
        more: bool,
    ) -> Result<(), Append> {
        let size = append.size_bytes();
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed);
        let batches = self.batches.fetch_add(1, Ordering::Relaxed);
        let (more_bytes, more_batches) = match partition.options().internal {
            true => (INTERNAL_BYTES, INTERNAL_BATCHES),
            false => (0, 0),
        };
        let full = bytes + size > self.bytes_max.saturating_add(more_bytes)
            || batches >= self.batches_max.saturating_add(more_batches);
        if full && batches > 0 {
            self.release(size, 1);
            return Err(append);
        }
        let command = Command::Append(Arc::clone(partition), append);
        if more && bytes + size < WAKE_BYTES {
            self.push_command(command, |_| ());
        } else {
            self.command(command);
        }
        Ok(())
    }

    /// Wakes the writer for what was queued without.
    pub(crate) fn flush(&self) {
        let state = self.lock();
        if state.asleep && !state.commands.is_empty() {
            self.wake(state);
        }
    }

    /// Queues an order.
    pub(crate) fn command(&self, command: Command) {
        self.push_command(command, |state| self.wake(state));
    }

    fn push_command(&self, command: Command, then: impl FnOnce(MutexGuard<'_, State>)) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            refuse(command);
            return;
        }
        state.commands.push_back(command);
        then(state);
    }

    /// Brings back a finished file operation.
    pub(crate) fn done(&self, done: SyncDone) {
        self.push(|state| state.dones.push(done));
    }

    /// Wakes the writer.
    pub(crate) fn kick(&self) {
        self.push(|state| state.kicked = true);
    }

    /// Tells the writer to stop. What is queued, now or later, is refused.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.kicked = true;
        let (commands, dones) =
            (std::mem::take(&mut state.commands), std::mem::take(&mut state.dones));
        drop(state);
        self.ready.notify_one();
        drop(dones);
        commands.into_iter().for_each(refuse);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Room again: batches left the queue and their partition's backlog.
    pub(crate) fn release(&self, bytes: usize, batches: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.batches.fetch_sub(batches, Ordering::Relaxed);
    }

    /// Bytes and batches that wait.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.batches.load(Ordering::Relaxed))
    }

    /// Whether nothing has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.commands.is_empty() && state.dones.is_empty()
    }

    /// Takes all finished operations, and commands up to `bytes_max` of batches.
    pub(crate) fn take(&self, bytes_max: usize, into: &mut Taken) {
        let mut state = self.lock();
        state.kicked = false;
        into.dones.append(&mut state.dones);
        let mut bytes = 0;
        let fits = state.commands.iter().position(|command| {
            if let Command::Append(_, append) = command {
                bytes += append.size_bytes();
            }
            bytes > bytes_max
        });
        match fits {
            None if into.commands.is_empty() => {
                std::mem::swap(&mut into.commands, &mut state.commands);
            }
            None => into.commands.append(&mut state.commands),
            Some(count) => into.commands.extend(state.commands.drain(..count.max(1))),
        }
    }

    /// Sleeps until something arrives or `timeout` is over.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let mut state = self.lock();
        state.asleep = true;
        let idle = |s: &mut State| s.commands.is_empty() && s.dones.is_empty() && !s.kicked;
        let mut state = match timeout {
            Some(timeout) => {
                let waited = self.ready.wait_timeout_while(state, timeout, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.ready.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
        };
        state.asleep = false;
    }

    fn push(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers what nobody will do. Orders answer by being dropped.
fn refuse(command: Command) {
    if let Command::Append(_, append) = command {
        append.done.done(Err(AppendError::Closed));
    }
}
