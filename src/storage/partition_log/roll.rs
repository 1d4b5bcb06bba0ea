//! The first segment and every next one: always at an append, never at a start. (A segment can also
//! end without a next one: `retire.rs`.)
//!
//! The new one takes batches as soon as it has a file. That the old one is full and which one follows
//! is stated later (`naming.rs`), and its bytes are synced later (`seal.rs`): no append waits for it.

use std::sync::Arc;

use crate::storage::footer::FOOTER_BYTES;
use crate::storage::identity::{Features, Identity};
use crate::storage::index::Index;
use crate::storage::job::{CreateSegment, Fault, Opened, Work};
use crate::storage::layout::DATA_START;
use crate::storage::segment::{Border, Segment, SegmentParts, SegmentState};
use crate::storage::slot::{Slot, SlotPlace};
use crate::storage::tail::SegmentTail;
use crate::types::{Offset, Timestamp};

use super::{Active, Blocked, Indexed, PartitionLog, Round};

impl PartitionLog {
    /// Makes the segment that the backlog waits for.
    pub(super) fn start_create(&mut self, round: &mut Round<'_>) {
        let wanted = self.blocked == Some(Blocked::Segment) && !self.dir.latch.is_closed();
        if !wanted || self.creating || self.extending || self.stopped.is_some() {
            return;
        }
        if self.is_seal_awaited() {
            return;
        }
        let before = self.active.as_ref().map_or(0, |active| active.allocated);
        self.begin_seal(round.now);
        let is_first = self.manifest.segments.is_empty() && self.manifest.generation == 0;
        let first = is_first.then(|| self.manifest.clone());
        let identity = self.identity(round.wall);
        let slot = self.first_slot(&identity);
        let size = self.backlog.front().map_or(0, |append| append.size_bytes() as u64);
        let needed = DATA_START + size + FOOTER_BYTES as u64;
        let target = self.segment_end() + FOOTER_BYTES as u64;
        let allocate = self
            .dir
            .allocate_step(0, needed, target)
            .max(self.dir.allocate_step(before, 0, target + before).min(target));
        self.creating = true;
        let work = CreateSegment {
            paths: Arc::clone(&self.paths),
            identity,
            slot,
            allocate,
            first,
            on_full: self.on_full(),
        };
        self.send(Work::Create(Box::new(work)), round);
    }

    fn identity(&self, created: Timestamp) -> Identity {
        Identity {
            cluster_id: self.dir.cluster_id,
            id: self.shared.id,
            base_offset: self.next,
            created,
            leader_epoch: self.epoch,
            features: Features::default(),
        }
    }

    fn first_slot(&self, identity: &Identity) -> Slot {
        Slot {
            generation: 1,
            tag: identity.tag(),
            clean: false,
            tail: SegmentTail::empty(identity.base_offset),
            offset_lease: self.renewed_lease().max(self.promised()),
            max_append_time: Timestamp::NONE,
            boot_id: self.dir.boot_id,
            leader_epoch: self.epoch,
        }
    }

    /// Offsets below it are promised by the synced slot of the segment before, as long as that is
    /// the last one the manifest names. That of a retired one may be gone before this one has a name.
    fn promised(&self) -> Offset {
        let before = self.seals.queue.back().filter(|it| !it.retired && !it.full.slot.clean);
        let before = before.filter(|it| !self.is_stated_full(it.base()));
        before.map_or(self.next, |it| it.full.lease())
    }

    pub(super) fn finish_create(
        &mut self,
        work: CreateSegment,
        result: Result<Opened, Fault>,
        round: &Round<'_>,
    ) {
        self.creating = false;
        if self.dir.latch.is_closed() {
            return;
        }
        match result {
            Ok(opened) => {
                if let Some(manifest) = work.first {
                    self.manifest = manifest;
                    self.dir.note_materialised(self.shared.id);
                }
                self.opened(&work.identity, work.slot, opened, round);
            }
            Err(Fault::NoSpace(_)) => {
                let needed = self.backlog.front().map_or(0, |append| append.size_bytes());
                let error = self.disk_full(needed);
                self.refuse_backlog(&error);
            }
            Err(fault) => self.fault(fault),
        }
    }

    fn opened(&mut self, identity: &Identity, slot: Slot, opened: Opened, round: &Round<'_>) {
        let base_offset = identity.base_offset;
        let tail = SegmentTail::empty(base_offset);
        let state = SegmentState {
            index: Some(Index::new(base_offset)),
            index_is_pinned: false,
            visible: Border::of(&tail),
            written: Border::of(&tail),
            footer: None,
        };
        let parts = SegmentParts {
            base_offset,
            created: identity.created,
            tag: slot.tag,
            file_bytes: opened.allocated,
            map_bytes: self.map_bytes(),
            state,
        };
        let segment = Arc::new(Segment::new(Arc::clone(&self.paths), Arc::clone(&self.dir), parts));
        segment.lend_file(&opened.file);
        let mut segments =
            self.shared.segments().map_or_else(Vec::new, |segments| segments.to_vec());
        segments.push(Arc::clone(&segment));
        self.shared.set_segments(segments);
        self.dir.segment_opened();
        self.orders.rolled();
        self.last_append = round.now;
        let unnamed = Some(self.promised());
        self.active = Some(Active {
            segment,
            file: Some(opened.file),
            allocated: opened.allocated,
            tail,
            durable: tail,
            slot,
            place: SlotPlace::A,
            max_append_time: Timestamp::NONE,
            epoch: self.epoch,
            indexed: Indexed { entries: 0, position: tail.position },
            unnamed,
            committing: false,
        });
    }

    /// The size at which an active segment is mapped: the largest it can reach.
    pub(super) fn map_bytes(&self) -> u64 {
        let batch = u64::from(self.options.max_message_bytes);
        DATA_START + self.options.segment_bytes.max(batch) + FOOTER_BYTES as u64
    }
}
