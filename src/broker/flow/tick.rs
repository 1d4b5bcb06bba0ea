//! What is decided ten times a second: the windows of log writers, and everybody's part of them.
//!
//! One caller. What it decides is published into atomics, so that no batch waits for it. It uses the
//! real time between two ticks where that matters: a late one is only coarser.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::publisher::mask;
use super::{
    Controller, ControllerOptions, Demand, Enforcement, Flow, Interval, Load, Scratch, Verdict,
    Wake, WriterGauge,
};

/// What the world says at a tick.
pub trait Facts {
    /// Adds to `into` how long those syncs of a log writer took that ended since the last call.
    fn sync_times(&self, writer: usize, into: &mut Vec<Duration>);
}

/// What lasts from tick to tick.
#[derive(Default)]
pub(super) struct Ticking {
    controllers: Vec<Controller>,
    verdicts: Vec<Verdict>,
    windows: Vec<u64>,
    syncs: Vec<Duration>,
    scratch: Scratch,
}

impl Ticking {
    pub(super) fn new(options: ControllerOptions, writers: usize, now: Duration) -> Ticking {
        let controller = Controller::new(options, now);
        Ticking { controllers: vec![controller; writers], ..Ticking::default() }
    }

    /// The window a writer begins with.
    pub(super) fn window(&self) -> u64 {
        self.controllers.first().map_or(0, Controller::window)
    }
}

impl Flow {
    /// Decides. Whoever it returns waits and may perhaps send now; they are to be woken with no
    /// lock held.
    #[must_use = "somebody waits to be woken"]
    pub fn tick(&self, now: Duration, facts: &dyn Facts) -> Vec<Arc<dyn Wake>> {
        // One caller; what a panic left half done, the next tick decides anew.
        let mut ticking = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        let Ticking { controllers, verdicts, windows, syncs, scratch } = &mut *ticking;
        verdicts.clear();
        windows.clear();
        let pool_per_mille = self.pool.per_mille();
        for (at, (controller, gauge)) in controllers.iter_mut().zip(&self.writers).enumerate() {
            syncs.clear();
            facts.sync_times(at, syncs);
            let waits = self.seats.anyone_waits(mask(at), now);
            let demand = if waits { Demand::Waiting } else { Demand::Met };
            let seen = gauge.take(now);
            let interval = Interval { seen, syncs, demand, pool_per_mille };
            let verdict = controller.tick(now, &interval);
            gauge.publish(verdict.window, verdict.load, &seen);
            gauge.set_sync_bound(verdict.sync_bound);
            windows.push(verdict.window);
            verdicts.push(verdict);
        }
        let rates = self.writers.iter().map(WriterGauge::bytes_per_second);
        let busy = verdicts.iter().any(|verdict| verdict.load == Load::Busy);
        let rate = rates.fold(0, u64::saturating_add);
        self.pool.publish(rate, busy && self.options.enforcement == Enforcement::On);
        let load = verdicts.iter().map(|verdict| verdict.load).max().unwrap_or_default();
        self.reads.tick(now, load);
        self.seats.tick(now, windows, scratch);
        std::mem::take(&mut scratch.woken)
    }

    /// What the last tick decided about each log writer.
    pub fn verdicts(&self) -> Vec<Verdict> {
        self.ticking.lock().unwrap_or_else(PoisonError::into_inner).verdicts.clone()
    }
}
