//! Threads for writers: one per writer, and a pool for jobs that wait for the device, started as
//! needed. All decisions are in `WriterCore`; this only carries jobs about.
//!
//! When a round leaves exactly one short commit and nothing has arrived meanwhile, the writer's thread
//! runs it itself: two thread switches less on the way of a lone producer, and nobody else to be
//! held up. As soon as anything waits, commits go to the pool and appends overlap with them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::job::SyncJob;
use super::queue::WriterQueue;
use super::writer::WriterCore;

/// The threads of a data directory.
pub(crate) struct Drivers {
    writers: Vec<(Arc<WriterQueue>, JoinHandle<()>)>,
    pool: Arc<SyncPool>,
}

impl Drivers {
    /// Starts a thread for each writer.
    pub(crate) fn start(cores: Vec<WriterCore>, threads_max: u32) -> std::io::Result<Drivers> {
        let pool = Arc::new(SyncPool::new(threads_max.max(1) as usize));
        let mut drivers = Drivers { writers: Vec::new(), pool };
        for (number, core) in cores.into_iter().enumerate() {
            let (queue, pool) = (Arc::clone(core.queue()), Arc::clone(&drivers.pool));
            let name = format!("stoplog-writer-{number}");
            let thread = Builder::new().name(name).spawn(move || drive(core, &pool))?;
            drivers.writers.push((queue, thread));
        }
        Ok(drivers)
    }

    /// Stops all threads; what is queued is refused, running jobs are waited for.
    pub(crate) fn stop(&mut self) {
        for (queue, _) in &self.writers {
            queue.close();
        }
        for (_, thread) in self.writers.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a log writer panicked");
            }
        }
        self.pool.stop();
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn drive(mut core: WriterCore, pool: &Arc<SyncPool>) {
    let queue = Arc::clone(core.queue());
    while !queue.is_closed() {
        let mut report = core.run_round(core.now());
        let lone = report.jobs.len() == 1 && report.jobs.iter().all(SyncJob::is_short_commit);
        if lone && queue.is_empty() {
            for job in report.jobs.drain(..) {
                core.sync_done(job.execute());
            }
            continue;
        }
        for job in report.jobs {
            pool.submit(job, &queue);
        }
        if !report.progressed {
            let timeout = report.next_deadline.map(|at| at.saturating_sub(core.now()));
            queue.wait(timeout);
        }
    }
}

/// Threads that may wait for the device.
struct SyncPool {
    state: Mutex<PoolState>,
    ready: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct PoolState {
    jobs: VecDeque<(SyncJob, Arc<WriterQueue>)>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    stopped: bool,
}

impl SyncPool {
    fn new(threads_max: usize) -> SyncPool {
        SyncPool { state: Mutex::default(), ready: Condvar::new(), threads_max }
    }

    fn submit(self: &Arc<Self>, job: SyncJob, queue: &Arc<WriterQueue>) {
        let mut state = self.lock();
        state.jobs.push_back((job, Arc::clone(queue)));
        if state.idle < state.jobs.len() && state.threads.len() < self.threads_max {
            let pool = Arc::clone(self);
            let name = format!("stoplog-sync-{}", state.threads.len());
            match Builder::new().name(name).spawn(move || pool.work()) {
                Ok(thread) => state.threads.push(thread),
                Err(e) => assert!(!state.threads.is_empty(), "no thread for syncs: {e}"),
            }
        }
        drop(state);
        self.ready.notify_one();
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((job, queue)) = state.jobs.pop_front() {
                drop(state);
                queue.done(job.execute());
                state = self.lock();
            } else if state.stopped {
                return;
            } else {
                state.idle += 1;
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn stop(&self) {
        let threads = {
            let mut state = self.lock();
            state.stopped = true;
            std::mem::take(&mut state.threads)
        };
        self.ready.notify_all();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a sync thread panicked");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
