//! Under pressure, what is past retention goes now, the active segment too.
//!
//! Retention never takes the active segment: an append rolls it first. Where the disk or the topic is
//! full no append comes, and old records would keep newer ones out for ever. So, when the broker
//! orders it, an active segment whose every record is past retention by time is sealed with nothing
//! behind it, and then removed like every sealed one; the next append makes another.
//!
//! # Invariants
//! - Only an order retires, never an append, and only while nothing waits to be appended.
//! - While no segment is behind the last full one, the manifests that say that it is full, or gone,
//!   hold what its slots said: an offset floor above every offset handed out, and the epoch.
//! - Nothing is appended behind a retired segment before a manifest names where.

use crate::storage::footer::Footer;
use crate::storage::manifest::Manifest;
use crate::storage::retention::{Rules, is_all_expired};

use super::{PartitionLog, Round};

impl PartitionLog {
    /// Carries out an order to reclaim as far as that can be now; what cannot stays ordered.
    pub(super) fn reclaim(&mut self, round: &Round<'_>) {
        if !self.orders.reclaim {
            return;
        }
        let waits = self.retire(round);
        self.look_at_retention(round);
        self.orders.reclaim = waits || self.seals.are_retiring();
    }

    /// Retires the active segment if it has to go. `true` when it does and cannot be retired yet.
    fn retire(&mut self, round: &Round<'_>) -> bool {
        if !self.is_spent(round) {
            return false;
        }
        let sealing = self.seals.queue.len();
        if self.extending || self.checkpointing || sealing >= self.sealing_max() {
            return true;
        }
        self.begin_seal(round.now);
        self.seals.retire_last();
        false
    }

    /// Whether the active segment holds records, all of them past retention like all before it, and
    /// nobody is about to write.
    fn is_spent(&self, round: &Round<'_>) -> bool {
        let writes = !self.backlog.is_empty() || self.creating;
        let leaves = self.stopped.is_some() || self.orders.leaves();
        let Some(active) = self.active.as_ref().filter(|_| !writes && !leaves) else {
            return false;
        };
        if active.tail.is_empty() || self.dir.latch.is_closed() {
            return false;
        }
        let segments = self.shared.segments();
        let segments = segments.as_deref().map_or(&[][..], Vec::as_slice);
        let full = self.seals.queue.iter().map(|sealing| &sealing.full);
        let open = full.chain([active]).map(|it| -> Footer { it.footer() });
        is_all_expired(segments, open, self.retention_rules(), round.wall)
    }

    pub(super) fn retention_rules(&self) -> Rules<'_> {
        Rules {
            options: &self.options,
            skew: self.dir.options.timestamp_skew_max,
            protected: self.shared.protected(),
        }
    }

    /// Lets a manifest say what no slot will say once the last full segment is gone.
    pub(super) fn outlive_slots(&self, manifest: &mut Manifest) {
        if self.active.is_none() {
            manifest.offset_floor = manifest.offset_floor.max(self.next);
            manifest.leader_epoch = manifest.leader_epoch.max(self.epoch);
        }
    }
}
