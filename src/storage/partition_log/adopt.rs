//! From what recovery found to a running log.

use std::sync::Arc;

use crate::storage::error::{AppendError, OpenError};
use crate::storage::partition::PartitionShared;
use crate::storage::recovery::{
    Access, Finding, Materialised, RecoverError, Recovered, RecoveredActive, RecoveredSealed,
    RecoveryContext, recover_partition,
};
use crate::storage::segment::{Border, Segment, SegmentParts, SegmentState};
use crate::types::{Durability, PartitionHealth};

use super::{Active, Indexed, PartitionLog};

impl PartitionLog {
    /// Recovers a partition that has files and publishes what can be read. Waits for the device.
    pub(crate) fn recover(
        shared: Arc<PartitionShared>,
        known: Materialised,
    ) -> Result<PartitionLog, OpenError> {
        let mut log = PartitionLog::new(shared);
        let recovered = log.run_recovery(known)?;
        log.adopt(recovered);
        Ok(log)
    }

    fn run_recovery(&self, known: Materialised) -> Result<Recovered, OpenError> {
        let disk = self.dir.env.disk.as_ref();
        let mut context = RecoveryContext {
            cluster_id: self.dir.cluster_id,
            boot_id: self.dir.boot_id,
            now: self.dir.env.clock.now(),
            materialised: known,
            access: Access::ReadWrite,
            producers: self.dir.producer_limits(),
        };
        if self.dir.latch.is_closed() {
            context.access = Access::ReadOnly;
        }
        let mut result = recover_partition(disk, &self.paths, &context);
        if matches!(result, Err(RecoverError::NoSpace(_))) && self.dir.reserve.release(disk) {
            result = recover_partition(disk, &self.paths, &context);
        }
        if let Err(RecoverError::Sync(e)) = &result {
            self.dir.latch(&format!("recovery of partition {}: {e}", self.shared.id));
        }
        if matches!(result, Err(RecoverError::NoSpace(_) | RecoverError::Sync(_))) {
            context.access = Access::ReadOnly;
            result = recover_partition(disk, &self.paths, &context);
        }
        let id = self.shared.id;
        result.map_err(|e| OpenError::Recovery { id, cause: e.to_string() })
    }

    fn adopt(&mut self, recovered: Recovered) {
        for finding in &recovered.findings {
            if finding.is_alarming() {
                tracing::warn!("partition {}: {finding}", self.shared.id);
            } else {
                tracing::debug!("partition {}: {finding}", self.shared.id);
            }
        }
        let sealed = recovered.sealed.into_iter().map(|sealed| self.sealed_segment(sealed));
        let mut segments: Vec<Arc<Segment>> = sealed.collect();
        self.active = recovered.active.map(|active| self.active_segment(active));
        segments.extend(self.active.iter().map(|active| Arc::clone(&active.segment)));
        if self.active.is_some() {
            self.dir.segment_opened();
        }
        self.manifest = recovered.manifest;
        self.producers = recovered.producers;
        let skipped = |finding: &Finding| matches!(finding, Finding::OffsetsSkipped { .. });
        if self.options.durability != Durability::Fsync && recovered.findings.iter().any(skipped) {
            self.producers.tail_is_lost();
        }
        self.snapshots = recovered.snapshots;
        self.epoch = recovered.leader_epoch;
        self.next = recovered.next_offset;
        self.last_append = self.dir.env.clock.monotonic();
        self.stopped = match &recovered.health {
            PartitionHealth::Writable => None,
            PartitionHealth::ReadOnly { cause } => {
                Some(AppendError::ReadOnly { cause: cause.clone() })
            }
            PartitionHealth::Fenced { first_bad, .. } => {
                Some(AppendError::Fenced { first_bad: *first_bad })
            }
        };
        let shared = &self.shared;
        if recovered.health != PartitionHealth::Writable {
            shared.set_health(recovered.health);
        }
        *shared.epochs() = recovered.epochs;
        shared.set_leader_epoch(self.epoch);
        shared.set_segments(segments);
        let skew = self.dir.options.timestamp_skew_max;
        shared.set_active_age(self.active.as_ref().and_then(|active| active.age_from(skew)));
        shared.set_log_end(recovered.log_end);
        shared.set_durable_end(recovered.log_end);
        shared.set_visible_end(recovered.log_end);
        shared.set_log_start(recovered.log_start);
        shared.set_findings(recovered.findings);
    }

    fn sealed_segment(&self, sealed: RecoveredSealed) -> Arc<Segment> {
        let end = Border::of(&sealed.footer.tail);
        let state = SegmentState {
            index_is_pinned: sealed.index.is_some(),
            index: sealed.index,
            visible: end,
            written: end,
            footer: Some(sealed.footer),
        };
        let parts = SegmentParts {
            base_offset: sealed.base_offset,
            created: sealed.created,
            tag: sealed.footer.tag,
            file_bytes: sealed.file_bytes,
            map_bytes: sealed.file_bytes,
            state,
        };
        Arc::new(Segment::new(Arc::clone(&self.paths), Arc::clone(&self.dir), parts))
    }

    fn active_segment(&self, active: RecoveredActive) -> Active {
        let end = Border::of(&active.tail);
        let entries = active.index.entries().len();
        let state = SegmentState {
            index_is_pinned: false,
            index: Some(active.index),
            visible: end,
            written: end,
            footer: None,
        };
        let parts = SegmentParts {
            base_offset: active.identity.base_offset,
            created: active.identity.created,
            tag: active.tag,
            file_bytes: active.file_bytes,
            map_bytes: self.map_bytes(),
            state,
        };
        let segment = Segment::new(Arc::clone(&self.paths), Arc::clone(&self.dir), parts);
        Active {
            segment: Arc::new(segment),
            file: None,
            allocated: active.file_bytes,
            tail: active.tail,
            durable: active.tail,
            slot: active.slot,
            place: active.place,
            max_append_time: active.slot.max_append_time,
            epoch: active.identity.leader_epoch,
            indexed: Indexed { entries, position: active.tail.position },
            unnamed: None,
            committing: false,
        }
    }
}
