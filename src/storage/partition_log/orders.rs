//! Orders of the broker: trim, roll, checkpoint, close, delete; and what housekeeping trims.

use std::io;
use std::sync::Arc;

use crate::storage::admin::{AdminCommand, Reply};
use crate::storage::error::{AdminError, AppendError};
use crate::storage::job::{Cleanup, Fault, Trim, Work};
use crate::storage::manifest::SegmentState;
use crate::storage::retention;
use crate::types::Offset;

use super::{PartitionLog, Round};

/// Orders that are not carried out yet.
#[derive(Default)]
pub(super) struct Orders {
    trims: Vec<(Offset, Reply<Offset>)>,
    /// What retention wants to trim to.
    expired: Option<Offset>,
    roll: bool,
    /// What is past retention is to go now.
    pub(super) reclaim: bool,
    checkpoints: Vec<Reply<()>>,
    close: Option<Reply<()>>,
    delete: Option<Reply<()>>,
    /// Closed or deleted.
    pub(super) finished: bool,
}

impl Orders {
    pub(super) fn new(finished: bool) -> Orders {
        Orders { finished, ..Orders::default() }
    }

    pub(super) fn take(&mut self, command: AdminCommand) {
        match command {
            AdminCommand::Trim { before, reply } => self.trims.push((before, reply)),
            AdminCommand::Options(_) => {}
            AdminCommand::Roll { reply } => {
                self.roll = true;
                reply.send(Ok(()));
            }
            AdminCommand::Reclaim => self.reclaim = true,
            AdminCommand::Checkpoint { reply } => self.checkpoints.push(reply),
            AdminCommand::Close { reply } => self.close = Some(reply),
            AdminCommand::Delete { reply } => self.delete = Some(reply),
        }
    }

    pub(super) fn wants_roll(&self) -> bool {
        self.roll
    }

    /// A segment was made: whatever asked for one is satisfied.
    pub(super) fn rolled(&mut self) {
        self.roll = false;
    }

    pub(super) fn wants_removal(&self) -> bool {
        self.delete.is_some()
    }

    /// Whether it is being closed or removed.
    pub(super) fn leaves(&self) -> bool {
        self.close.is_some() || self.delete.is_some() || self.finished
    }

    pub(super) fn wants_checkpoint(&self) -> bool {
        self.close.is_some() || !self.checkpoints.is_empty()
    }

    /// Whether something that is ordered needs a commit beyond `durable_end`.
    pub(super) fn wants_commit(&self, durable_end: Offset) -> bool {
        self.wants_checkpoint() || self.trims.iter().any(|(before, _)| *before > durable_end)
    }

    pub(super) fn checkpoint_failed(&mut self, error: &io::Error) {
        for reply in self.checkpoints.drain(..) {
            reply.send(Err(AdminError::Io(error.to_string())));
        }
    }

    /// Nobody carries them out any more: whoever waits hears `Closed`.
    pub(super) fn refuse_closed(&mut self) {
        *self = Orders::new(self.finished);
    }

    pub(super) fn refuse_latched(&mut self, cause: &str) {
        let error = || AdminError::Latched { cause: cause.to_owned() };
        self.trims.drain(..).for_each(|(_, reply)| reply.send(Err(error())));
        self.checkpoints.drain(..).for_each(|reply| reply.send(Err(error())));
        if let Some(reply) = self.delete.take() {
            reply.send(Err(error()));
        }
    }
}

impl PartitionLog {
    /// A look at what time alone changes: retention, producers that fell silent, files that could
    /// not be removed.
    pub(crate) fn housekeep(&mut self, round: &Round<'_>) {
        self.producers.expire(round.wall);
        self.look_at_retention(round);
    }

    /// What is past retention is to go; what found no space is tried again.
    pub(super) fn look_at_retention(&mut self, round: &Round<'_>) {
        let segments = self.shared.segments();
        let segments = segments.as_deref().map_or(&[][..], Vec::as_slice);
        let keep = retention::keep_from(segments, self.retention_rules(), round.wall);
        self.orders.expired = keep.filter(|keep| *keep > self.manifest.log_start);
        self.cleanup.retry();
        self.seals.no_space = false;
        self.naming.no_space = self.naming.no_space && self.stopped.is_some();
    }

    /// A durable statement that the log starts later.
    pub(super) fn trim_work(&mut self) -> Option<Work> {
        let (end, durable_end) = (self.shared.offsets().visible_end, self.durable_end());
        let log_start = self.manifest.log_start;
        let mut later = Vec::new();
        let mut target = self.orders.expired.take();
        for (before, reply) in std::mem::take(&mut self.orders.trims) {
            if before > end {
                reply.send(Err(AdminError::BeyondEnd { offset: before, end }));
            } else if before <= log_start {
                reply.send(Ok(log_start));
            } else {
                if before <= durable_end {
                    target = target.max(Some(before));
                }
                later.push((before, reply));
            }
        }
        self.orders.trims = later;
        let target = target.filter(|target| *target > log_start);
        let target = target.or_else(|| self.is_removal_overdue().then_some(log_start))?;
        let mut manifest = self.manifest.clone();
        self.outlive_slots(&mut manifest);
        manifest.trim(target);
        Some(Work::Trim(Box::new(Trim { paths: Arc::clone(&self.paths), manifest })))
    }

    /// Whether a segment was sealed only after the log start had moved behind it.
    fn is_removal_overdue(&self) -> bool {
        let mut states = self.manifest.segments.iter().map(|entry| entry.state);
        let first = states.find(|state| !matches!(state, SegmentState::Deleting(_)));
        let start = self.manifest.log_start;
        matches!(first, Some(SegmentState::Sealed(seal)) if seal.next_offset <= start)
    }

    pub(super) fn finish_trim(&mut self, trim: Trim, result: Result<(), Fault>) {
        self.in_flight = false;
        match result {
            Ok(()) => {}
            Err(Fault::NoSpace(e)) => {
                let error = AdminError::Io(e.to_string());
                let refuse = |(_, reply): (_, Reply<Offset>)| reply.send(Err(error.clone()));
                self.orders.trims.drain(..).for_each(refuse);
                return;
            }
            Err(fault) => {
                self.fault(fault);
                return;
            }
        }
        self.manifest = trim.manifest;
        self.seals.unstated = false;
        let log_start = self.manifest.log_start;
        self.shared.set_log_start(log_start);
        self.shared.epochs().trim(log_start);
        self.drop_segments_below(log_start);
        let trims = std::mem::take(&mut self.orders.trims);
        let (ready, later) = trims.into_iter().partition(|(before, _)| *before <= log_start);
        self.orders.trims = later;
        let ready: Vec<_> = ready;
        ready.into_iter().for_each(|(_, reply)| reply.send(Ok(log_start)));
    }

    /// First step of a deletion: nobody finds them any more. Readers that hold one keep it.
    fn drop_segments_below(&mut self, log_start: Offset) {
        let Some(segments) = self.shared.segments() else { return };
        let below = |s: &crate::storage::partition::SealedSegment| s.next_offset <= log_start;
        let (gone, kept): (Vec<_>, Vec<_>) = segments
            .iter()
            .cloned()
            .partition(|segment| segment.sealed_summary().as_ref().is_some_and(below));
        if gone.is_empty() {
            return;
        }
        self.shared.set_segments(kept);
        for segment in gone {
            if let Some(map) = segment.existing_map() {
                self.dir.note_unlinked(&map, segment.file_bytes());
            }
            self.cleanup.pending.push(segment.base_offset);
        }
    }

    /// Second step: their files go, beside everything else.
    pub(super) fn start_cleanup(&mut self, round: &mut Round<'_>) {
        if self.cleanup.in_flight || self.cleanup.pending.is_empty() || self.dir.latch.is_closed() {
            return;
        }
        self.cleanup.in_flight = true;
        let bases = std::mem::take(&mut self.cleanup.pending);
        let cleanup = Cleanup { paths: Arc::clone(&self.paths), bases, gone: Vec::new() };
        self.send(Work::Cleanup(cleanup), round);
    }

    pub(super) fn finish_cleanup(&mut self, cleanup: Cleanup, result: Result<(), Fault>) {
        self.cleanup.in_flight = false;
        self.cleanup.gone.extend(cleanup.gone);
        self.cleanup.failed.extend(cleanup.bases);
        if let Err(fault) = result {
            self.fault(fault);
        }
    }

    /// The manifest forgets what is gone; the next one that is written says so.
    pub(super) fn forget_removed_segments(&mut self) {
        for base in self.cleanup.gone.drain(..) {
            self.manifest.forget(base);
        }
    }

    /// The removal of all files, once nothing else uses them.
    pub(super) fn removal_work(&mut self) -> Option<Work> {
        self.orders.delete.as_ref()?;
        self.shared.close();
        self.refuse_backlog(&AppendError::Closed);
        self.acks.refuse(&AppendError::Closed);
        self.stopped = Some(AppendError::Closed);
        if self.is_busy() || self.cleanup.in_flight {
            return None;
        }
        Some(Work::Remove((*self.paths).clone()))
    }

    pub(super) fn finish_remove(&mut self, result: Result<(), Fault>) {
        self.in_flight = false;
        if let Err(Fault::Sync(e)) = &result {
            self.dir.latch(&format!("removal of partition {}: {e}", self.shared.id));
        }
        for segment in self.shared.segments().iter().flat_map(|segments| segments.iter()) {
            if let Some(map) = segment.existing_map() {
                self.dir.note_unlinked(&map, segment.file_bytes());
            }
        }
        self.shared.set_segments(Vec::new());
        if let Some(reply) = self.orders.delete.take() {
            reply.send(result.map_err(|e| AdminError::Io(e.to_string())));
        }
        self.orders.finished = true;
    }

    /// Orders whose condition holds now.
    pub(super) fn finish_orders(&mut self) {
        if self.is_busy() || !self.orders.wants_checkpoint() {
            return;
        }
        let clean = self.active.as_ref().is_none_or(|active| active.slot.clean);
        let stopped = self.stopped.is_some();
        let ready = clean && self.backlog.is_empty() && self.seals.are_settled();
        if !stopped && !ready {
            return;
        }
        let cause = self.stopped.as_ref().map(|error| AdminError::Io(error.to_string()));
        let result = if clean { Ok(()) } else { cause.map_or(Ok(()), Err) };
        self.orders.checkpoints.drain(..).for_each(|reply| reply.send(result.clone()));
        if let Some(reply) = self.orders.close.take() {
            self.shared.close();
            self.stopped = Some(AppendError::Closed);
            self.orders.finished = true;
            reply.send(result);
        }
    }
}
