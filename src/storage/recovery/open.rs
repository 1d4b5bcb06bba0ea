//! The segment that takes appends: what the table says is done to it.

use crate::env::write_all_at;
use crate::storage::fault::Fault;
use crate::storage::fields::FormatError;
use crate::storage::footer::Footer;
use crate::storage::manifest::Manifest;
use crate::storage::slot::{OFFSET_LEASE, Slot, SlotPlace};
use crate::types::{LeaderEpoch, Offset, Timestamp};

use super::examine::{DataEnd, Found, examine_open};
use super::files::keep_copy;
use super::finish::{Recovery, Segments};
use super::sealed::{FoundIdentity, read_footer};
use super::table::{Action, Slots, decide};
use super::{Damage, Finding, RecoverError, RecoveredActive, RecoveredSealed};

/// A segment whose data and footer are durable.
pub(super) struct Sealed<'a> {
    pub base: Offset,
    pub footer: Footer,
    pub identity: &'a FoundIdentity,
    pub newest: Option<Slot>,
    pub slots: Slots,
    /// See [`Found::seen_end`].
    pub seen_end: Offset,
}

impl Recovery<'_> {
    pub(super) fn active(
        &mut self,
        base: Offset,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        let found = examine_open(self.disk, self.paths, self.context, base, DataEnd::Open)?;
        let Some(found) = found else {
            self.add_damage(Some(Damage {
                segment: base,
                position: 0,
                first_bad: base,
                next_good: None,
                cause: "the file is missing".to_owned(),
            }));
            return Ok(());
        };
        if let Err(e @ FormatError::Newer { .. }) = &found.identity.identity {
            return Err(RecoverError::Newer(e.clone()));
        }
        let row = decide(found.slots, found.valid, found.rest);
        if found.slots != Slots::Clean || row.action != Action::Serve {
            self.findings.push(Finding::Row { segment: base, row: row.name });
        }
        if found.slots == Slots::OneDamaged {
            self.findings.push(Finding::SlotDamaged { segment: base });
        }
        if found.identity.identity.as_ref().is_ok_and(|identity| !identity.is_writable()) {
            self.refuse_write("a newer version wrote it with features that this one cannot write");
        }
        segments.clean = row.action == Action::Serve;
        match row.action {
            Action::Serve => self.serve(base, found, manifest, segments)?,
            Action::Fence => self.fence(base, found, segments),
            Action::FinishSeal => self.finish_seal(base, &found, true, manifest, segments)?,
            Action::Close | Action::CutTorn => {
                self.close(base, found, row.action, manifest, segments)?;
            }
        }
        Ok(())
    }

    fn serve(
        &mut self,
        base: Offset,
        found: Found,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        let Some((place, slot)) = found.newest else { return Ok(()) };
        if self.may_write() {
            // Whoever wrote the clean slot may have been killed before its sync.
            found.file.sync().map_err(Fault::Sync)?;
            self.write_index(base, &found)?;
        }
        segments.next_offset = Some(slot.offset_lease);
        remember_skip(&found, slot.offset_lease, manifest, segments);
        segments.leader_epoch = Some(slot.leader_epoch);
        segments.active = taking_appends(found, place, slot);
        Ok(())
    }

    /// Nothing is changed; the range from the first doubt on is named.
    fn fence(&mut self, base: Offset, mut found: Found, segments: &mut Segments) {
        self.doubt = true;
        // Without block 0 nothing says whose batches these are: none of them is shown.
        let known = found.identity.identity.is_ok();
        let no_slot = Damage {
            segment: base,
            position: if known { found.tail.position } else { 0 },
            first_bad: if known { found.tail.next_offset } else { base },
            next_good: None,
            cause: match &found.identity.identity {
                Err(e) => e.to_string(),
                Ok(_) if found.newest.is_none() => "no watermark slot reads back".to_owned(),
                Ok(_) => "bytes follow the valid data, and a watermark slot is damaged".to_owned(),
            },
        };
        let damage = found.damage.take();
        self.add_damage(Some(damage.unwrap_or(no_slot)));
        let (place, slot) = found.newest.unwrap_or((SlotPlace::A, self.slot_of(&found)));
        segments.next_offset = Some(found.tail.next_offset.max(slot.offset_lease));
        segments.leader_epoch = Some(slot.leader_epoch);
        segments.active = taking_appends(found, place, slot).or(segments.active.take());
    }

    /// A slot to show where none reads back.
    fn slot_of(&self, found: &Found) -> Slot {
        Slot {
            generation: 1,
            tag: found.identity.tag,
            clean: false,
            tail: found.tail,
            offset_lease: found.tail.next_offset,
            max_append_time: found.tail.max_timestamp,
            boot_id: self.context.boot_id,
            leader_epoch: found.tail.last_epoch.max(LeaderEpoch(0)),
        }
    }

    /// A footer says that the data is durable, so that comes first.
    pub(super) fn finish_seal(
        &mut self,
        base: Offset,
        found: &Found,
        is_last: bool,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        let told = found.newest.map_or(Timestamp::NONE, |(_, slot)| slot.max_append_time);
        let append_time = told.max(found.tail.max_timestamp.min(self.context.now));
        let stored = read_footer(found.file.as_ref(), found.tail.position, found.identity.tag)?;
        let has_footer = stored.is_ok();
        let footer = stored.unwrap_or(Footer {
            tag: found.identity.tag,
            tail: found.tail,
            max_append_time: append_time,
        });
        if self.may_write() {
            if !has_footer {
                found.file.sync().map_err(Fault::Sync)?;
                write_all_at(found.file.as_ref(), &footer.encode(), footer.tail.position)
                    .map_err(Fault::from)?;
            }
            found.file.set_len(footer.file_bytes()).map_err(Fault::from)?;
            found.file.sync().map_err(Fault::Sync)?;
            self.write_index(base, found)?;
            self.findings.push(Finding::SealCompleted { segment: base });
        } else {
            self.refuse_write("an interrupted sealing waits to be completed");
        }
        let sealed = Sealed {
            base,
            footer,
            identity: &found.identity,
            newest: found.newest.map(|(_, slot)| slot),
            slots: found.slots,
            seen_end: found.seen_end,
        };
        self.note_sealed(sealed, is_last, manifest, segments);
        Ok(())
    }

    /// It changes no more; the manifest is about to say so.
    pub(super) fn note_sealed(
        &mut self,
        it: Sealed<'_>,
        is_last: bool,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) {
        let (footer, end) = (it.footer, it.footer.tail.next_offset);
        manifest.seal(it.base, &footer);
        segments.manifest_changed = true;
        let next =
            it.newest.map_or(end, |slot| self.next_offset(&slot, end, it.slots, it.seen_end));
        segments.next_offset = Some(next);
        segments.leader_epoch = it.newest.map(|slot| slot.leader_epoch);
        if is_last && next > end {
            // No slot remembers it from now on; offsets are skipped only between two epochs.
            manifest.offset_floor = manifest.offset_floor.max(next);
            let epoch = segments.leader_epoch.map(|epoch| epoch.max(manifest.leader_epoch));
            segments.leader_epoch = epoch.map(|epoch| LeaderEpoch(epoch.0.saturating_add(1)));
            self.findings.push(Finding::OffsetsSkipped { from: end, to: next });
        }
        segments.sealed.push(RecoveredSealed {
            base_offset: it.base,
            created: it.identity.identity.as_ref().map_or(self.context.now, |i| i.created),
            footer,
            file_bytes: footer.file_bytes(),
            index: None,
        });
    }

    fn close(
        &mut self,
        base: Offset,
        found: Found,
        action: Action,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        let Some((place, old)) = found.newest else { return Ok(()) };
        let tail = found.tail;
        let next_offset = self.next_offset(&old, tail.next_offset, found.slots, found.seen_end);
        let next_offset = next_offset.max(manifest.offset_floor);
        let epoch = old.leader_epoch.max(tail.last_epoch).max(manifest.leader_epoch);
        let slot = Slot {
            generation: old.generation + 1,
            clean: true,
            tail,
            offset_lease: next_offset,
            boot_id: self.context.boot_id,
            leader_epoch: LeaderEpoch(epoch.0.saturating_add(1)),
            max_append_time: old.max_append_time.max(tail.max_timestamp.min(self.context.now)),
            ..old
        };
        segments.next_offset = Some(next_offset);
        segments.leader_epoch = Some(slot.leader_epoch);
        if !self.may_write() {
            self.refuse_write("there is no space to finish recovery");
            segments.active = taking_appends(found, place, old);
            return Ok(());
        }
        if next_offset > tail.next_offset {
            let (from, to) = (tail.next_offset, next_offset);
            self.findings.push(Finding::OffsetsSkipped { from, to });
        }
        remember_skip(&found, next_offset, manifest, segments);
        self.cut(base, &found, action)?;
        self.write_index(base, &found)?;
        self.write_slot(&found, place.other(), &slot)?;
        let file_bytes = tail.position;
        segments.active = taking_appends(Found { file_bytes, ..found }, place.other(), slot);
        Ok(())
    }

    /// The page cache of the same boot holds everything that was written, unless a sync failed;
    /// after another boot any offset below the lease may have been seen by somebody.
    fn next_offset(&self, slot: &Slot, tail: Offset, slots: Slots, seen_end: Offset) -> Offset {
        if slot.clean {
            return tail.max(slot.offset_lease);
        }
        if slot.boot_id == self.context.boot_id && seen_end <= tail {
            return tail;
        }
        tail.max(lease_of(slot, slots))
    }

    fn cut(&mut self, base: Offset, found: &Found, action: Action) -> Result<(), Fault> {
        let position = found.tail.position;
        if action == Action::CutTorn {
            let path = self.paths.torn(base, position);
            keep_copy(self.disk, found.file.as_ref(), position, found.written_end, &path)?;
            self.findings.push(Finding::TornCut {
                segment: base,
                position,
                bytes: found.written_end - position,
                kept: path.display().to_string(),
            });
        }
        if found.file_bytes != position {
            found.file.set_len(position)?;
        }
        found.file.sync().map_err(Fault::Sync)
    }

    fn write_slot(&self, found: &Found, place: SlotPlace, slot: &Slot) -> Result<(), Fault> {
        write_all_at(found.file.as_ref(), &slot.encode(), place.position())?;
        found.file.sync().map_err(Fault::Sync)
    }
}

/// A segment that holds records is rolled before the next epoch writes, so that the base of the next
/// one remembers offsets that were skipped. An empty one is written on: the first slot that is not
/// clean would forget them, so the manifest remembers.
fn remember_skip(found: &Found, next: Offset, manifest: &mut Manifest, segments: &mut Segments) {
    let skips = found.tail.is_empty() && next > found.tail.next_offset;
    if skips && manifest.offset_floor < next {
        manifest.offset_floor = next;
        segments.manifest_changed = true;
    }
}

pub(super) fn taking_appends(
    found: Found,
    place: SlotPlace,
    slot: Slot,
) -> Option<RecoveredActive> {
    let tag = found.identity.tag;
    let identity = found.identity.identity.ok()?;
    let (tail, index, file_bytes) = (found.tail, found.index, found.file_bytes);
    Some(RecoveredActive { identity, tag, slot, place, tail, index, file_bytes })
}

/// Below it any offset may have been handed out.
pub(super) fn lease_of(slot: &Slot, slots: Slots) -> Offset {
    match slots {
        // The damaged slot may have promised more.
        Slots::OneDamaged => slot.offset_lease + OFFSET_LEASE,
        _ => slot.offset_lease,
    }
}
