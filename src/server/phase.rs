//! Whether the server runs, drains or ends; every task watches it.

use tokio::sync::watch;

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It takes connections and requests.
    Running,
    /// It takes no more of either, answers what it has, and closes.
    Draining,
    /// It closes at once.
    Ending,
}

/// Watches the phase; cheap to clone.
#[derive(Clone)]
pub(super) struct PhaseWatch(watch::Receiver<Phase>);

/// Sets the phase; it never goes back.
pub(super) struct PhaseSetter(watch::Sender<Phase>);

pub(super) fn running() -> (PhaseSetter, PhaseWatch) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (PhaseSetter(sender), PhaseWatch(receiver))
}

impl PhaseSetter {
    /// Another watch.
    pub(super) fn watch(&self) -> PhaseWatch {
        PhaseWatch(self.0.subscribe())
    }

    /// Moves on to a later phase.
    pub(super) fn reach(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }
}

impl PhaseWatch {
    /// The phase now.
    pub(super) fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Completes once the phase is at least this; a server that is gone has ended.
    pub(super) async fn reached(&mut self, phase: Phase) {
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}
