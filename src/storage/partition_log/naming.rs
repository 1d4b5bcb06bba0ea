//! What follows what, stated durably: the manifest learns which segments are full, and names those
//! behind them.
//!
//! A roll makes the file of the next segment and goes on; nobody waits for a sync there. One manifest
//! names all that were made meanwhile, as soon as somebody needs it: for a durable answer, for offsets
//! beyond those that a synced slot promises, to seal what is full.
//!
//! # Invariants
//! - Data of a segment that no manifest names is not durable, and none of its slots states any.
//! - A manifest names a segment only after its file and its name are durable, and together with all
//!   in front of it.
//! - No offset of an unnamed segment is at or above the lease in the synced slot of the last named one.

use std::sync::Arc;
use std::time::Duration;

use crate::storage::footer::Footer;
use crate::storage::job::{Fault, NameSegments, Unnamed, Work};
use crate::types::Offset;

use super::{Active, Blocked, PartitionLog, Round};

/// What becomes of the attempts.
#[derive(Default)]
pub(super) struct Naming {
    /// The manifest found no space: tried again with the next look at time.
    pub(super) no_space: bool,
}

impl Active {
    /// Offsets below it may be handed out.
    pub(super) fn lease(&self) -> Offset {
        self.unnamed.unwrap_or(self.slot.offset_lease)
    }
}

impl PartitionLog {
    /// Whether the manifest says of a segment that it is full.
    pub(super) fn is_stated_full(&self, base: Offset) -> bool {
        self.manifest.segment(base).is_some_and(|entry| entry.seal().is_some())
    }

    /// Whether the manifest knows all that happened.
    pub(super) fn is_all_named(&self) -> bool {
        self.active.as_ref().is_none_or(|active| active.unnamed.is_none())
            && self.seals.queue.back().is_none_or(|last| self.is_stated_full(last.base()))
    }

    /// When the next manifest is due that says so.
    pub(super) fn naming_deadline(&self) -> Option<Duration> {
        let waits = self.in_flight || self.creating || self.naming.no_space;
        let leaves = self.orders.wants_removal() || self.dir.latch.is_closed();
        if waits || leaves || self.is_all_named() {
            return None;
        }
        let low = self.active.as_ref().is_some_and(|active| self.is_lease_low(active));
        let blocks = self.stopped.is_none() && (self.blocked == Some(Blocked::Lease) || low);
        Some(if blocks { Duration::ZERO } else { self.sync_deadline() })
    }

    pub(super) fn naming_work(&mut self, round: &Round<'_>) -> Option<Work> {
        self.naming_deadline().filter(|deadline| *deadline <= round.now)?;
        let mut manifest = self.manifest.clone();
        let mut segments = Vec::new();
        let dir = Arc::clone(&self.dir);
        let full = self.seals.queue.iter_mut().map(|sealing| (&mut sealing.full, true));
        for (it, is_full) in full.chain(self.active.iter_mut().map(|active| (active, false))) {
            let base = it.segment.base_offset;
            if manifest.segment(base).is_none() {
                match it.open_file(&dir) {
                    Ok(file) => segments.push(Unnamed { base, file, tail: it.tail }),
                    Err(e) => {
                        self.naming_failed(&e);
                        return None;
                    }
                }
                manifest.opened(base);
            }
            let footer: Footer = it.footer();
            if is_full && manifest.segment(base).is_some_and(|entry| entry.seal().is_none()) {
                manifest.sealing(base, (&footer).into());
            }
        }
        self.outlive_slots(&mut manifest);
        let paths = Arc::clone(&self.paths);
        Some(Work::Name(Box::new(NameSegments { paths, manifest, segments })))
    }

    pub(super) fn finish_naming(&mut self, work: NameSegments, result: Result<(), Fault>) {
        self.in_flight = false;
        match result {
            Ok(()) => {}
            Err(Fault::NoSpace(e)) => return self.naming_found_no_space(&e),
            Err(Fault::Write(e)) => return self.naming_failed(&e),
            Err(fault) => return self.fault(fault),
        }
        if self.dir.latch.is_closed() {
            return;
        }
        self.manifest = work.manifest;
        self.seals.unstated = false;
        for Unnamed { base, tail, .. } in work.segments {
            let full = self.seals.queue.iter_mut().map(|sealing| &mut sealing.full);
            let mut all = full.chain(self.active.iter_mut());
            if let Some(it) = all.find(|it| it.segment.base_offset == base) {
                it.unnamed = None;
                it.durable = tail;
            }
        }
        let behind = |it: &Active| it.durable.position < it.tail.position;
        let unsynced = self.active.as_ref().is_some_and(behind);
        self.unsynced_since = self.unsynced_since.filter(|_| unsynced);
        self.publish_durable();
    }

    /// What was written stays, and what is durable too; tried again later. Whoever leaves is told.
    fn naming_found_no_space(&mut self, error: &std::io::Error) {
        self.naming.no_space = true;
        self.orders.checkpoint_failed(error);
        if self.orders.wants_checkpoint() {
            self.naming_failed(error);
        } else if self.blocked.is_some() {
            let refusal = self.disk_full(0);
            self.refuse_backlog(&refusal);
        }
    }

    /// No commit will cover what is in segments without a name.
    fn naming_failed(&mut self, error: &std::io::Error) {
        self.naming.no_space = true;
        self.stop(error);
        if let Some(refusal) = self.stopped.clone() {
            self.acks.refuse(&refusal);
        }
    }
}
