//! Requests of a connection that were taken and not answered yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts them; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<State>);

#[derive(Default)]
struct State {
    count: AtomicUsize,
    idle: Notify,
}

/// One request under way; over when dropped.
pub(super) struct Underway(InFlight);

impl InFlight {
    /// A request was taken.
    pub(super) fn begin(&self) -> Underway {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        Underway(self.clone())
    }

    /// Completes once no request is under way.
    pub(super) async fn idle(&self) {
        loop {
            let told = self.0.idle.notified();
            let mut told = std::pin::pin!(told);
            told.as_mut().enable();
            if self.0.count.load(Ordering::Acquire) == 0 {
                return;
            }
            told.await;
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.0.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.idle.notify_waiters();
        }
    }
}
