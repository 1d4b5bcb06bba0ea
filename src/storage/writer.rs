//! A log writer: many partition logs behind one bounded queue, stepped in rounds.
//!
//! A round takes what has arrived, gives it to the partitions it is for, steps each of them once,
//! and hands out their jobs. It never waits. Threads (`writer_driver`) and the simulator
//! (`Stepper`) do the same: `run_round`, execute the jobs anywhere in any order, `sync_done`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::dir::DirShared;
use super::job::{SyncDone, SyncJob};
use super::partition::PartitionShared;
use super::partition_log::{PartitionLog, Round};
use super::queue::{Command, Taken, WriterQueue};

/// One log writer.
pub struct WriterCore {
    dir: Arc<DirShared>,
    queue: Arc<WriterQueue>,
    logs: HashMap<u32, Box<PartitionLog>>,
    taken: Taken,
    touched: Vec<u32>,
    timers: BTreeSet<(Duration, u32)>,
    next_housekeeping: Duration,
}

/// What a round did, and what it wants.
#[must_use = "jobs that are not executed stop their partitions"]
pub struct RoundReport {
    /// To execute, in any order, and to bring back.
    pub jobs: Vec<SyncJob>,
    /// When the next round is due though nothing arrives.
    pub next_deadline: Option<Duration>,
    /// Whether anything was done.
    pub progressed: bool,
}

impl WriterCore {
    pub(crate) fn new(dir: Arc<DirShared>, queue: Arc<WriterQueue>) -> WriterCore {
        let next_housekeeping = dir.env.clock.monotonic() + dir.options.housekeeping;
        WriterCore {
            dir,
            queue,
            logs: HashMap::new(),
            taken: Taken::default(),
            touched: Vec::new(),
            timers: BTreeSet::new(),
            next_housekeeping,
        }
    }

    /// Does what can be done at `now` (monotonic time).
    pub fn run_round(&mut self, now: Duration) -> RoundReport {
        let mut jobs = Vec::new();
        let wall = self.dir.env.clock.now();
        let mut round = Round { now, wall, jobs: &mut jobs };
        let mut taken = std::mem::take(&mut self.taken);
        self.queue.take(self.dir.options.round_bytes_max, &mut taken);
        let mut progressed = !taken.commands.is_empty() || !taken.dones.is_empty();
        for done in taken.dones.drain(..) {
            self.touched.push(done.key);
            if let Some(log) = self.logs.get_mut(&done.key) {
                log.finish(done, &mut round);
            }
        }
        for command in taken.commands.drain(..) {
            self.give(command);
        }
        self.taken = taken;
        progressed |= self.fire_timers(&mut round);
        if self.dir.latch.is_closed() {
            self.touched.extend(self.logs.keys());
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        for key in std::mem::take(&mut self.touched) {
            self.step(key, &mut round);
        }
        if progressed {
            self.dir.round_ended();
        }
        RoundReport { jobs, next_deadline: self.next_deadline(), progressed }
    }

    /// Brings back a finished job; the next round goes on from it.
    pub fn sync_done(&mut self, done: SyncDone) {
        self.taken.dones.push(done);
    }

    /// Monotonic time, as rounds want it.
    pub fn now(&self) -> Duration {
        self.dir.env.clock.monotonic()
    }

    /// The queue in front of it.
    pub(crate) fn queue(&self) -> &Arc<WriterQueue> {
        &self.queue
    }

    fn give(&mut self, command: Command) {
        match command {
            Command::Append(partition, append) => {
                if let Some(log) = self.log_of(&partition) {
                    log.enqueue(append);
                }
            }
            Command::Admin(partition, order) => {
                if let Some(log) = self.log_of(&partition) {
                    log.order(order);
                }
            }
            Command::Adopt(log) => {
                self.touched.push(log.key());
                self.logs.insert(log.key(), log);
            }
        }
    }

    /// The log of a partition; one without files has none before something arrives for it.
    fn log_of(&mut self, partition: &Arc<PartitionShared>) -> Option<&mut PartitionLog> {
        if self.touched.last() != Some(&partition.key) {
            self.touched.push(partition.key);
        }
        let make = || Box::new(PartitionLog::new(Arc::clone(partition)));
        Some(self.logs.entry(partition.key).or_insert_with(make))
    }

    fn step(&mut self, key: u32, round: &mut Round<'_>) {
        let Some(log) = self.logs.get_mut(&key) else { return };
        log.step(round);
        if log.is_finished() {
            self.logs.remove(&key);
        } else if let Some(deadline) = log.next_deadline() {
            log.set_timer(deadline, &mut self.timers);
        }
    }

    fn fire_timers(&mut self, round: &mut Round<'_>) -> bool {
        let mut fired = false;
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| *at <= round.now) {
            self.timers.pop_first();
            if let Some(log) = self.logs.get_mut(&key) {
                log.timer_fired();
                self.touched.push(key);
                fired = true;
            }
        }
        if self.next_housekeeping <= round.now {
            self.next_housekeeping = round.now + self.dir.options.housekeeping;
            for (key, log) in &mut self.logs {
                log.housekeep(round);
                self.touched.push(*key);
            }
            fired = true;
        }
        fired
    }

    /// When the next round is due though nothing arrives.
    pub fn next_deadline(&self) -> Option<Duration> {
        let housekeeping = (!self.logs.is_empty()).then_some(self.next_housekeeping);
        let timer = self.timers.first().map(|(at, _)| *at);
        housekeeping.into_iter().chain(timer).min()
    }
}
