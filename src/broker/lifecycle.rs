//! One life for all background tasks: started with the broker, watched, ended with it.
//!
//! # Promises
//! A task that ends before it is told to is reported, and writes are refused with its name from
//! then on: nothing goes on half alive, nothing dies unseen.

use std::future::Future;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::core::{Core, Phase};
use super::housekeeping::mark_materialised;
use super::request::ShutdownMode;
use crate::storage;

/// The tasks of one broker.
pub(super) struct Lifecycle {
    core: Arc<Core>,
    tasks: StdMutex<Vec<AbortHandle>>,
    /// The group coordinator, which ends by itself; `None` once the shutdown took it. Held locked
    /// during a shutdown.
    coordinator: Mutex<Option<JoinHandle<()>>>,
}

/// A round of the coordinator that hangs longer than this hangs on the disk.
const COORDINATOR_WAIT: Duration = Duration::from_secs(1);

impl Lifecycle {
    pub(super) fn new(core: Arc<Core>, coordinator: JoinHandle<()>) -> Lifecycle {
        let watched = watch(Arc::clone(&core), "group coordinator", coordinator);
        Lifecycle { core, tasks: StdMutex::default(), coordinator: Mutex::new(Some(watched)) }
    }

    /// Runs a task until the broker ends. It never ends by itself.
    pub(super) fn run(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(work);
        self.tasks().push(task.abort_handle());
        drop(watch(Arc::clone(&self.core), name, task));
    }

    pub(super) async fn shutdown(&self, mode: ShutdownMode) {
        let phase = match mode {
            ShutdownMode::Graceful => Phase::Draining,
            ShutdownMode::AtOnce => Phase::AtOnce,
        };
        self.core.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
        let mut coordinator = match mode {
            ShutdownMode::Graceful => self.coordinator.lock().await,
            // A graceful shutdown under way hears of the phase and hurries; storage is told here.
            ShutdownMode::AtOnce => match self.coordinator.try_lock() {
                Ok(free) => free,
                Err(_) => return self.leave_storage(storage::ShutdownMode::Abort).await,
            },
        };
        let Some(task) = coordinator.take() else { return };
        self.drain().await;
        self.tasks().drain(..).for_each(|task| task.abort());
        let at_once = self.core.phase.send_replace(Phase::AtOnce) == Phase::AtOnce;
        if timeout(COORDINATOR_WAIT, task).await.is_err() {
            warn!("the group coordinator did not end in time");
        }
        if at_once {
            return self.leave_storage(storage::ShutdownMode::Abort).await;
        }
        mark_materialised(&self.core, &mut self.core.storage.take_materialised()).await;
        self.leave_storage(storage::ShutdownMode::Drain).await;
        info!("the broker is closed");
    }

    /// Waits for requests under way, unless it is to end at once.
    async fn drain(&self) {
        let mut phase = self.core.phase.subscribe();
        let longest = Duration::from_millis(self.core.options.housekeeping.drain_ms);
        tokio::select! {
            () = self.core.flow.pool.empty() => {}
            _ = phase.wait_for(|phase| *phase == Phase::AtOnce) => {}
            () = tokio::time::sleep(longest) => {
                warn!("{} bytes are still unanswered after {longest:?}", self.core.flow.pool.used());
            }
        }
    }

    async fn leave_storage(&self, mode: storage::ShutdownMode) {
        let storage = self.core.storage.clone();
        if let Err(e) = tokio::task::spawn_blocking(move || storage.shutdown(mode)).await {
            error!("leaving the data directory died: {e}");
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lifecycle {
    fn drop(&mut self) {
        self.tasks().drain(..).for_each(|task| task.abort());
        if let Some(task) = self.coordinator.get_mut() {
            task.abort();
        }
    }
}

/// Reports the end of a task that nobody asked for.
fn watch(core: Arc<Core>, name: &'static str, task: JoinHandle<()>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let ended = task.await;
        let told = core.phase() == Phase::AtOnce || ended.as_ref().is_err_and(|e| e.is_cancelled());
        if told {
            return;
        }
        let how = ended.err().map_or("ended".to_owned(), |e| e.to_string());
        error!("background task {name:?} {how}: no more writes until a restart");
        core.fault.close(format!("background task {name:?} {how}"));
    })
}
