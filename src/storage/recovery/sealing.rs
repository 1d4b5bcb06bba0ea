//! Full segments that a crash found before they were sealed.
//!
//! The manifest says where such a segment ends, so what must be there is known. Whole: its sealing is
//! completed, and the segment behind it is looked at. Cut short above its watermark: the log goes on
//! there, and all that came later goes to `torn/`, for a log has no holes; no offset that any of
//! those segments promised is used again. Cut short below: fenced.
//!
//! A slot that states data, and a footer, speak for all segments before theirs too: what those lack
//! then was durable and is damaged, not torn.
//!
//! # Order of writes where a segment is cut
//! 1. The manifest with an offset floor above every lease. 2. The later files moved to `torn/`, the
//!    newest first. 3. The manifest in which the segment is active and the last. 4. The segment, as
//!    every active one. A crash before 3 finds it cut short again, and does the same again.

use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::env::{Disk, OpenMode};
use crate::storage::fault::Fault;
use crate::storage::layout::{DATA_START, PartitionPaths, TORN_DIR};
use crate::storage::manifest::{Manifest, Seal, SegmentEntry};
use crate::storage::slot::Slot;
use crate::storage::small_file::write_small_file;
use crate::types::{LeaderEpoch, Offset};

use super::examine::{DataEnd, Found, classify, drop_cache, examine_open};
use super::files::remove;
use super::finish::{Recovery, Segments};
use super::open::{Sealed, lease_of, taking_appends};
use super::scan::last_non_zero;
use super::sealed::{examine_sealed, read_footer, read_identity, read_slots};
use super::table::{Action, Rest, Slots, Valid, decide};
use super::{Finding, RecoverError};
use crate::storage::verify::seal_of;

/// Where the log goes on behind a full segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoesOn {
    /// In the segment behind it.
    Behind,
    /// In itself: nothing is behind it any more.
    Here,
}

/// What a segment behind a full one says.
pub(crate) struct Later {
    base: Offset,
    slots: Slots,
    newest: Option<Slot>,
    has_footer: bool,
}

impl Later {
    /// Whether it says that all before it is durable.
    pub(crate) fn states_data(&self) -> bool {
        self.has_footer || self.newest.is_some_and(|slot| !slot.tail.is_empty())
    }

    /// Whether one of its slots reads back.
    pub(crate) fn is_known(&self) -> bool {
        self.slots != Slots::NoneValid
    }
}

/// Asks the segment of `entry`; `None` without its file.
pub(crate) fn look_at_later(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    cluster_id: Uuid,
    entry: &SegmentEntry,
) -> io::Result<Option<Later>> {
    let base = entry.base_offset;
    let file = match disk.open(&paths.log(base), OpenMode::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let identity = read_identity(file.as_ref(), paths, cluster_id, base)?;
    let pair = read_slots(file.as_ref(), identity.tag)?;
    let slots = classify(&identity, &pair);
    let has_footer = match entry.seal() {
        Some(seal) => read_footer(file.as_ref(), seal.data_end, identity.tag)?.is_ok(),
        None => false,
    };
    let newest = pair.newest().map(|(_, slot)| slot);
    Ok(Some(Later { base, slots, newest, has_footer }))
}

impl Recovery<'_> {
    /// The segment that `entries` start with; the others are those behind it.
    pub(super) fn full(
        &mut self,
        entries: &[SegmentEntry],
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<GoesOn, RecoverError> {
        let Some((entry, behind)) = entries.split_first() else { return Ok(GoesOn::Behind) };
        let base = entry.base_offset;
        let follower = behind.first().map(|next| next.base_offset);
        let end = match (entry.seal(), follower) {
            (Some(seal), _) => DataEnd::Sealed(seal),
            (None, Some(next)) => DataEnd::Before(next),
            (None, None) => return Ok(GoesOn::Behind),
        };
        if let DataEnd::Sealed(seal) = end
            && self.finish_by_footer(base, seal, behind.is_empty(), manifest, segments)?
        {
            return Ok(GoesOn::Behind);
        }
        let found = examine_open(self.disk, self.paths, self.context, base, end)?;
        let seal = entry.seal().unwrap_or_else(|| seal_before(base, follower, found.as_ref()));
        let Some(mut found) = found else {
            self.fence_full(base, seal, follower, manifest, segments)?;
            return Ok(GoesOn::Behind);
        };
        let later = self.later(behind)?;
        let is_known = later.iter().all(Later::is_known);
        if found.rest == Rest::Bytes
            && found.valid == Valid::ToWatermark
            && (later.iter().any(Later::states_data) || !is_known)
        {
            found.valid = Valid::BelowWatermark;
        }
        let whole = found.rest == Rest::Footer && found.valid == Valid::ToWatermark;
        if found.slots == Slots::NoneValid && whole && follower.is_some() {
            self.keep_undescribed(base, seal, follower, &found, manifest, segments)?;
            return Ok(GoesOn::Behind);
        }
        let row = decide(found.slots, found.valid, found.rest);
        self.findings.push(Finding::Row { segment: base, row: row.name });
        if found.slots == Slots::OneDamaged {
            self.findings.push(Finding::SlotDamaged { segment: base });
        }
        segments.clean = false;
        match row.action {
            Action::FinishSeal => {
                let is_last = behind.is_empty();
                self.finish_seal(base, &found, is_last, manifest, segments)?;
                Ok(GoesOn::Behind)
            }
            Action::CutTorn => {
                self.cut_here(base, found, &later, manifest, segments)?;
                Ok(GoesOn::Here)
            }
            Action::Fence | Action::Serve | Action::Close => {
                self.fence_full(base, seal, follower, manifest, segments)?;
                Ok(GoesOn::Behind)
            }
        }
    }

    /// Its footer says that the data is durable: it is not read again. `false` when there is none.
    fn finish_by_footer(
        &mut self,
        base: Offset,
        seal: Seal,
        is_last: bool,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<bool, RecoverError> {
        let mode = match self.may_write() {
            true => OpenMode::ReadWrite,
            false => OpenMode::Read,
        };
        let file = match self.disk.open(&self.paths.log(base), mode) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        drop_cache(&file, base, 0..u64::MAX);
        let identity = read_identity(file.as_ref(), self.paths, self.context.cluster_id, base)?;
        let pair = read_slots(file.as_ref(), identity.tag)?;
        let slots = classify(&identity, &pair);
        let stored = read_footer(file.as_ref(), seal.data_end, identity.tag)?;
        let stored = stored.ok().filter(|footer| Seal::from(footer) == seal);
        let Some(footer) = stored.filter(|_| slots != Slots::NoneValid) else { return Ok(false) };
        if self.may_write() {
            file.set_len(footer.file_bytes()).map_err(Fault::from)?;
            file.sync().map_err(Fault::Sync)?;
            self.sync_index(base)?;
            self.findings.push(Finding::SealCompleted { segment: base });
        } else {
            self.refuse_write("an interrupted sealing waits to be completed");
        }
        segments.clean = false;
        let newest = pair.newest().map(|(_, slot)| slot);
        let seen_end = seal.next_offset;
        let sealed = Sealed { base, footer, identity: &identity, newest, slots, seen_end };
        self.note_sealed(sealed, is_last, manifest, segments);
        Ok(true)
    }

    /// What a killed process wrote of it may be in memory alone.
    fn sync_index(&self, base: Offset) -> Result<(), RecoverError> {
        match self.disk.open(&self.paths.index(base), OpenMode::ReadWrite) {
            Ok(file) => Ok(file.sync().map_err(Fault::Sync)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Header or slots are damaged, and its data is what the manifest says: as of a sealed segment.
    /// The next segment has the lease.
    fn keep_undescribed(
        &mut self,
        base: Offset,
        seal: Seal,
        follower: Option<Offset>,
        found: &Found,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        if self.may_write() {
            found.file.sync().map_err(Fault::Sync)?;
        }
        manifest.sealing(base, seal);
        let sealed = examine_sealed(self.disk, self.paths, self.context, base, seal, follower)?;
        if let Some(segment) = sealed.segment.as_ref().filter(|_| sealed.damage.is_none()) {
            manifest.seal(base, &segment.footer);
            segments.manifest_changed = true;
        }
        segments.sealed.extend(sealed.segment);
        self.findings.extend(sealed.findings);
        self.add_damage(sealed.damage);
        Ok(())
    }

    /// What is valid stays readable, as of a damaged sealed segment.
    fn fence_full(
        &mut self,
        base: Offset,
        seal: Seal,
        follower: Option<Offset>,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> io::Result<()> {
        self.doubt = true;
        manifest.sealing(base, seal);
        let sealed = examine_sealed(self.disk, self.paths, self.context, base, seal, follower)?;
        segments.sealed.extend(sealed.segment);
        segments.next_offset = segments.next_offset.max(Some(seal.next_offset));
        self.findings.extend(sealed.findings);
        self.add_damage(sealed.damage);
        Ok(())
    }

    /// Those whose files are there; a cut that a crash interrupted may have moved some.
    fn later(&self, behind: &[SegmentEntry]) -> io::Result<Vec<Later>> {
        let look = |entry| look_at_later(self.disk, self.paths, self.context.cluster_id, entry);
        behind.iter().filter_map(|entry| look(entry).transpose()).collect()
    }

    /// The log goes on in this segment; what came later is set aside.
    fn cut_here(
        &mut self,
        base: Offset,
        found: Found,
        later: &[Later],
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        // Whatever the boot: the bytes are gone, but somebody may have seen their offsets.
        let own = found.newest.map(|(_, slot)| lease_of(&slot, found.slots));
        let leases = later.iter().filter_map(|it| Some(lease_of(&it.newest?, it.slots)));
        let epochs = later.iter().filter_map(|it| Some(it.newest?.leader_epoch));
        let next = leases.chain(own).max().unwrap_or(found.tail.next_offset);
        let epoch = epochs.max().unwrap_or(LeaderEpoch(0));
        manifest.leader_epoch = manifest.leader_epoch.max(epoch);
        manifest.offset_floor = manifest.offset_floor.max(next);
        if !self.may_write() {
            self.refuse_write("segments behind a torn one wait to be set aside");
            segments.next_offset = Some(manifest.offset_floor);
            segments.active = match found.newest {
                Some((place, slot)) => taking_appends(found, place, slot),
                None => None,
            };
            return Ok(());
        }
        self.write_manifest(manifest)?;
        for it in later.iter().rev() {
            self.move_to_torn(it.base)?;
        }
        manifest.segments.retain(|entry| entry.base_offset <= base);
        manifest.activate(base);
        self.write_manifest(manifest)?;
        drop(found);
        self.active(base, manifest, segments)
    }

    pub(super) fn write_manifest(&self, manifest: &mut Manifest) -> Result<(), RecoverError> {
        manifest.generation += 1;
        Ok(write_small_file(self.disk, &self.paths.manifest(), &manifest.encode())?)
    }

    /// The whole file, so that it needs no space and happens at once.
    fn move_to_torn(&mut self, base: Offset) -> Result<(), Fault> {
        let path = self.paths.log(base);
        let file = self.disk.open(&path, OpenMode::Read)?;
        let end = last_non_zero(file.as_ref(), DATA_START, file.len()?)?;
        drop(file);
        remove(self.disk, self.paths, &self.paths.index(base))?;
        if end == DATA_START {
            remove(self.disk, self.paths, &path)?;
            self.findings.push(Finding::CreationTakenBack { segment: base });
            return Ok(());
        }
        let torn = Path::new(TORN_DIR);
        self.disk.create_dir_all(torn)?;
        let kept = self.paths.torn(base, 0);
        self.disk.rename(&path, &kept)?;
        self.disk.sync_dir(torn).map_err(Fault::Sync)?;
        self.disk.sync_dir(self.paths.dir()).map_err(Fault::Sync)?;
        let (position, bytes) = (DATA_START, end - DATA_START);
        let kept = kept.display().to_string();
        self.findings.push(Finding::TornCut { segment: base, position, bytes, kept });
        Ok(())
    }
}

/// What a full segment holds of which the manifest does not know that it is full: all that is valid,
/// where that leads to the one behind it.
fn seal_before(base: Offset, follower: Option<Offset>, found: Option<&Found>) -> Seal {
    match found {
        Some(found) if found.rest == Rest::Footer => seal_of(&found.tail),
        _ => Seal {
            next_offset: follower.unwrap_or(base),
            data_end: found.map_or(DATA_START, |found| found.written_end.max(DATA_START)),
            data_crc: 0,
            chain_crc: 0,
        },
    }
}

#[cfg(test)]
mod tests;
