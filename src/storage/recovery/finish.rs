//! The order in which recovery looks, decides and writes.
//!
//! Writes, in this order, each durable before the next:
//! 1. what the manifest announced: files of `deleting` and of blank `creating` segments removed;
//! 2. the torn bytes copied to `torn/`; 3. the segment cut at its valid end, `fdatasync`;
//! 4. snapshots above the end removed, index, epochs; 5. a clean slot with the next epoch,
//!    `fdatasync`; 6. the manifest, when it changed.
//!
//! A crash between any two leaves a state from which the same steps lead to the same end.

use std::io;
use std::path::Path;

use crate::env::{Disk, write_all_at};
use crate::storage::epochs::{EPOCHS_BYTES_MAX, Epochs};
use crate::storage::fields::FormatError;
use crate::storage::footer::Footer;
use crate::storage::index::Index;
use crate::storage::layout::{PartitionPaths, TRASH_DIR};
use crate::storage::manifest::{MANIFEST_BYTES_MAX, Manifest, SegmentEntry, SegmentState};
use crate::storage::slot::{OFFSET_LEASE, Slot, SlotPlace};
use crate::storage::small_file::{read_small_file, write_small_file};
use crate::storage::snapshot::encode_snapshot;
use crate::types::{LeaderEpoch, Offset, PartitionHealth, Timestamp};

use super::examine::{Found, examine_active};
use super::files::{Listing, is_blank, keep_copy, quarantine, remove};
use super::replay::{Source, load_snapshots, replay};
use super::sealed::{examine_sealed, guess_manifest};
use super::table::{Action, Slots, decide};
use super::{
    Access, Damage, Finding, Materialised, RecoverError, Recovered, RecoveredActive,
    RecoveredSealed, RecoveryContext,
};

/// Who replayed more than this writes a snapshot, so that the next start does not do it again.
const REPLAY_BYTES: u64 = 4 << 20;

/// One recovery.
pub(super) struct Recovery<'a> {
    disk: &'a dyn Disk,
    paths: &'a PartitionPaths,
    context: &'a RecoveryContext,
    findings: Vec<Finding>,
    damages: Vec<Damage>,
    /// Why it would have to write and may not.
    read_only: Option<String>,
    /// Nothing may be changed: too much is in doubt.
    doubt: bool,
}

/// What the segments came to.
#[derive(Default)]
struct Segments {
    sealed: Vec<RecoveredSealed>,
    active: Option<RecoveredActive>,
    /// Offset of the next record to append, when the active segment says so.
    next_offset: Option<Offset>,
    /// Its epoch.
    leader_epoch: Option<LeaderEpoch>,
    /// The stop was clean, or nothing takes appends.
    clean: bool,
    manifest_changed: bool,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(
        disk: &'a dyn Disk,
        paths: &'a PartitionPaths,
        context: &'a RecoveryContext,
    ) -> Recovery<'a> {
        let (findings, damages) = (Vec::new(), Vec::new());
        Recovery { disk, paths, context, findings, damages, read_only: None, doubt: false }
    }

    pub(super) fn run(mut self) -> Result<Recovered, RecoverError> {
        let listing = Listing::read(self.disk, self.paths.dir())?;
        let Some((mut manifest, listing)) = self.manifest(listing)? else {
            return Ok(self.without_files());
        };
        let intents_changed = self.carry_out_intents(&mut manifest)?;
        let mut segments = self.segments(&mut manifest)?;
        segments.manifest_changed |= intents_changed;
        self.set_aside(&manifest, &listing)?;
        self.conclude(manifest, segments, listing)
    }

    fn may_write(&self) -> bool {
        self.context.access == Access::ReadWrite && !self.doubt
    }

    fn refuse_write(&mut self, cause: &str) {
        if self.read_only.is_none() && !self.doubt {
            self.read_only = Some(cause.to_owned());
            self.findings.push(Finding::ReadOnly { cause: cause.to_owned() });
        }
    }

    /// `None` when nothing was ever appended here.
    fn manifest(
        &mut self,
        listing: Option<Listing>,
    ) -> Result<Option<(Manifest, Listing)>, RecoverError> {
        let known = self.context.materialised == Materialised::Yes;
        let Some(listing) = listing else {
            self.doubt = known;
            return Ok(None);
        };
        if listing.repair {
            self.doubt = true;
            let cause = "a repair was interrupted: run it again".to_owned();
            self.findings.push(Finding::ManifestDamaged(cause));
        }
        let bytes = match read_small_file(self.disk, &self.paths.manifest(), MANIFEST_BYTES_MAX) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Some(Vec::new()),
            other => other?,
        };
        let cause = match bytes {
            None if listing.logs.is_empty() => {
                self.doubt = known;
                return Ok(None);
            }
            None => "it is missing".to_owned(),
            Some(bytes) => match self.decode_manifest(&bytes) {
                Ok(manifest) => return Ok(Some((manifest, listing))),
                Err(e @ FormatError::Newer { .. }) => return Err(RecoverError::Newer(e)),
                Err(e) => e.to_string(),
            },
        };
        self.doubt = true;
        self.findings.push(Finding::ManifestDamaged(cause));
        let cluster_id = self.context.cluster_id;
        let manifest = guess_manifest(self.disk, self.paths, cluster_id, &listing.logs)?;
        Ok(Some((manifest, listing)))
    }

    fn decode_manifest(&self, bytes: &[u8]) -> Result<Manifest, FormatError> {
        let manifest = Manifest::decode(bytes)?;
        manifest.expect(self.context.cluster_id, self.paths.id())?;
        Ok(manifest)
    }

    /// Completes deletions, takes back creations; whether the manifest changed.
    fn carry_out_intents(&mut self, manifest: &mut Manifest) -> Result<bool, RecoverError> {
        let open = |e: &&SegmentEntry| {
            matches!(e.state, SegmentState::Creating | SegmentState::Deleting(_))
        };
        let intents: Vec<SegmentEntry> = manifest.segments.iter().filter(open).copied().collect();
        if intents.is_empty() {
            return Ok(false);
        }
        if self.may_write() {
            for entry in &intents {
                self.carry_out(entry).map_err(RecoverError::of_write)?;
            }
            self.make_removals_durable().map_err(RecoverError::Sync)?;
        } else {
            self.refuse_write("an interrupted creation or deletion waits to be completed");
        }
        for entry in &intents {
            manifest.forget(entry.base_offset);
            manifest.offset_floor = manifest.offset_floor.max(entry.base_offset);
        }
        Ok(true)
    }

    /// Those of a process that was killed in the middle too: its renames into `trash/` may be seen
    /// and still not be on the device, and the manifest is about to forget the files.
    fn make_removals_durable(&self) -> io::Result<()> {
        let trash = Path::new(TRASH_DIR);
        if self.disk.exists(trash)? {
            self.disk.sync_dir(trash)?;
        }
        self.disk.sync_dir(self.paths.dir())
    }

    fn carry_out(&mut self, entry: &SegmentEntry) -> io::Result<()> {
        let base = entry.base_offset;
        let log = self.paths.log(base);
        if entry.state == SegmentState::Creating {
            if self.disk.exists(&log)? && !is_blank(self.disk, &log)? {
                let name = log.display().to_string();
                let to = quarantine(self.disk, self.paths, &log)?;
                self.findings.push(Finding::Quarantined { name, to });
            }
            remove(self.disk, self.paths, &log)?;
            remove(self.disk, self.paths, &self.paths.index(base))?;
            self.findings.push(Finding::CreationTakenBack { segment: base });
            return Ok(());
        }
        // A snapshot at its base covers what came before it, and is of no more use.
        for path in [log, self.paths.index(base), self.paths.snapshot(base)] {
            remove(self.disk, self.paths, &path)?;
        }
        self.findings.push(Finding::DeletionCompleted { segment: base });
        Ok(())
    }

    fn segments(&mut self, manifest: &mut Manifest) -> Result<Segments, RecoverError> {
        let mut segments = Segments { clean: true, ..Segments::default() };
        let entries = manifest.segments.clone();
        for (number, entry) in entries.iter().enumerate() {
            match entry.state {
                SegmentState::Sealed(seal) => {
                    let follower = entries.get(number + 1).map(|next| next.base_offset);
                    let base = entry.base_offset;
                    let sealed =
                        examine_sealed(self.disk, self.paths, self.context, base, seal, follower)?;
                    segments.sealed.extend(sealed.segment);
                    self.findings.extend(sealed.findings);
                    self.add_damage(sealed.damage);
                }
                SegmentState::Active => self.active(entry.base_offset, manifest, &mut segments)?,
                SegmentState::Creating | SegmentState::Deleting(_) => {}
            }
        }
        Ok(segments)
    }

    fn add_damage(&mut self, damage: Option<Damage>) {
        if let Some(damage) = damage {
            self.findings.push(Finding::Damaged(damage.clone()));
            self.damages.push(damage);
        }
    }

    fn active(
        &mut self,
        base: Offset,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        let Some(found) = examine_active(self.disk, self.paths, self.context, base)? else {
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
            Action::FinishSeal => self.finish_seal(base, &found, manifest, segments)?,
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
        let no_slot = Damage {
            segment: base,
            position: found.tail.position,
            first_bad: found.tail.next_offset,
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

    fn finish_seal(
        &mut self,
        base: Offset,
        found: &Found,
        manifest: &mut Manifest,
        segments: &mut Segments,
    ) -> Result<(), RecoverError> {
        let append_time = found.newest.map_or(Timestamp::NONE, |(_, slot)| slot.max_append_time);
        let stored = super::sealed::read_footer(
            found.file.as_ref(),
            found.tail.position,
            found.identity.tag,
        )?;
        let footer = stored.unwrap_or(Footer {
            tag: found.identity.tag,
            tail: found.tail,
            max_append_time: append_time,
        });
        if self.may_write() {
            found.file.set_len(footer.file_bytes()).map_err(RecoverError::of_write)?;
            found.file.sync().map_err(RecoverError::Sync)?;
            self.write_index(base, found)?;
            self.findings.push(Finding::SealCompleted { segment: base });
        } else {
            self.refuse_write("an interrupted sealing waits to be completed");
        }
        manifest.seal(base, &footer);
        segments.manifest_changed = true;
        let end = footer.tail.next_offset;
        let next = found.newest.map_or(end, |(_, slot)| self.next_offset(&slot, end, found.slots));
        // No slot remembers it from now on.
        manifest.offset_floor = manifest.offset_floor.max(next);
        segments.next_offset = Some(next);
        segments.leader_epoch = found.newest.map(|(_, slot)| slot.leader_epoch);
        segments.sealed.push(RecoveredSealed {
            base_offset: base,
            created: found.identity.identity.as_ref().map_or(self.context.now, |i| i.created),
            footer,
            file_bytes: footer.file_bytes(),
            index: None,
        });
        Ok(())
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
        let next_offset = self.next_offset(&old, tail.next_offset, found.slots);
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

    /// The page cache of the same boot holds everything that was written; after another boot any
    /// offset below the lease may have been seen by somebody.
    fn next_offset(&self, slot: &Slot, tail: Offset, slots: Slots) -> Offset {
        if slot.clean {
            return tail.max(slot.offset_lease);
        }
        if slot.boot_id == self.context.boot_id {
            return tail;
        }
        let lease = match slots {
            // The damaged slot may have promised more.
            Slots::OneDamaged => slot.offset_lease + OFFSET_LEASE,
            _ => slot.offset_lease,
        };
        tail.max(lease)
    }

    fn cut(&mut self, base: Offset, found: &Found, action: Action) -> Result<(), RecoverError> {
        let position = found.tail.position;
        if action == Action::CutTorn {
            let path = self.paths.torn(base, position);
            keep_copy(self.disk, found.file.as_ref(), position, found.written_end, &path)
                .map_err(RecoverError::of_write)?;
            self.findings.push(Finding::TornCut {
                segment: base,
                position,
                bytes: found.written_end - position,
                kept: path.display().to_string(),
            });
        }
        if found.file_bytes != position {
            found.file.set_len(position).map_err(RecoverError::of_write)?;
        }
        found.file.sync().map_err(RecoverError::Sync)
    }

    fn write_index(&mut self, base: Offset, found: &Found) -> Result<(), RecoverError> {
        if !found.index_is_stale {
            return Ok(());
        }
        let bytes = found.index.encode(found.identity.tag);
        self.write_cache(&self.paths.index(base), &bytes)
    }

    fn write_cache(&mut self, path: &Path, bytes: &[u8]) -> Result<(), RecoverError> {
        write_small_file(self.disk, path, bytes).map_err(RecoverError::of_write)?;
        let name = path.display().to_string();
        self.findings.push(Finding::CacheRebuilt { name });
        Ok(())
    }

    fn write_slot(&self, found: &Found, place: SlotPlace, slot: &Slot) -> Result<(), RecoverError> {
        write_all_at(found.file.as_ref(), &slot.encode(), place.position())
            .map_err(RecoverError::of_write)?;
        found.file.sync().map_err(RecoverError::Sync)
    }

    /// Files that neither the manifest nor a small-file write explains.
    fn set_aside(&mut self, manifest: &Manifest, listing: &Listing) -> Result<(), RecoverError> {
        if !self.may_write() {
            return Ok(());
        }
        for name in &listing.tmp {
            let path = self.paths.dir().join(name);
            remove(self.disk, self.paths, &path).map_err(RecoverError::of_write)?;
        }
        let listed = |base: &&Offset| manifest.segment(**base).is_some();
        for base in listing.indexes.iter().filter(|base| !listed(base)) {
            remove(self.disk, self.paths, &self.paths.index(*base))
                .map_err(RecoverError::of_write)?;
        }
        let logs = listing.logs.iter().filter(|base| !listed(base)).map(|b| self.paths.log(*b));
        let unknown = listing.unknown.iter().map(|name| self.paths.dir().join(name));
        for path in logs.chain(unknown) {
            // Creations that were taken back and deletions are gone by now.
            if self.disk.exists(&path)? {
                let to =
                    quarantine(self.disk, self.paths, &path).map_err(RecoverError::of_write)?;
                let name = path.display().to_string();
                self.findings.push(Finding::Quarantined { name, to });
            }
        }
        Ok(())
    }

    fn conclude(
        mut self,
        mut manifest: Manifest,
        segments: Segments,
        listing: Listing,
    ) -> Result<Recovered, RecoverError> {
        let sealed_end = segments.sealed.last().map(|s| s.footer.tail.next_offset);
        let active_end = segments.active.as_ref().map(|active| active.tail.next_offset);
        let floor = manifest.offset_floor.max(manifest.log_start);
        let log_end = active_end.or(sealed_end).unwrap_or(floor).max(manifest.log_start);
        let next_offset = segments.next_offset.unwrap_or(log_end).max(log_end).max(floor);
        let leader_epoch = segments.leader_epoch.unwrap_or(manifest.leader_epoch);
        let leader_epoch = leader_epoch.max(manifest.leader_epoch).max(LeaderEpoch(0));
        let snapshot_limit = if segments.clean { next_offset } else { log_end };
        let (producers, snapshots) =
            self.producers(&segments, &listing, snapshot_limit, manifest.log_start)?;
        let epochs = self.epochs(&segments, leader_epoch, next_offset)?;
        if segments.manifest_changed && self.may_write() {
            manifest.leader_epoch = leader_epoch;
            manifest.generation += 1;
            write_small_file(self.disk, &self.paths.manifest(), &manifest.encode())
                .map_err(RecoverError::of_write)?;
        }
        Ok(Recovered {
            log_start: manifest.log_start,
            log_end,
            next_offset,
            leader_epoch,
            epochs,
            producers,
            snapshots,
            health: self.health(log_end),
            sealed: segments.sealed,
            active: segments.active,
            manifest,
            findings: self.findings,
        })
    }

    /// The state of all producers, and the offsets of the snapshots that stay.
    fn producers(
        &mut self,
        segments: &Segments,
        listing: &Listing,
        limit: Offset,
        log_start: Offset,
    ) -> Result<(crate::storage::ProducerState, Vec<Offset>), RecoverError> {
        let (usable, above): (Vec<Offset>, Vec<Offset>) =
            listing.snapshots.iter().partition(|offset| **offset <= limit);
        let mut exists = Vec::new();
        for offset in usable {
            if self.disk.exists(&self.paths.snapshot(offset))? {
                exists.push(offset);
            }
        }
        let loaded = load_snapshots(self.disk, self.paths, self.context, &exists)?;
        if self.may_write() {
            for offset in above {
                remove(self.disk, self.paths, &self.paths.snapshot(offset))
                    .map_err(RecoverError::of_write)?;
            }
            for offset in &loaded.damaged {
                let path = self.paths.snapshot(*offset);
                let to =
                    quarantine(self.disk, self.paths, &path).map_err(RecoverError::of_write)?;
                let name = path.display().to_string();
                self.findings.push(Finding::Quarantined { name, to });
            }
        }
        let mut state = loaded.state;
        let from = loaded.offset.max(log_start.min(loaded.offset));
        let sources = self.sources(segments, from)?;
        for source in &sources {
            replay(&mut state, source, from, self.context)?;
        }
        let mut snapshots = loaded.valid;
        let bytes: u64 = sources.iter().map(|source| source.end).sum();
        if bytes > REPLAY_BYTES && self.damages.is_empty() && self.may_write() {
            let id = self.paths.id();
            let bytes = encode_snapshot(&state, id, limit);
            self.write_cache(&self.paths.snapshot(limit), &bytes)?;
            snapshots.push(limit);
        }
        Ok((state, snapshots))
    }

    /// Segments that hold records at or behind `from`.
    fn sources(&self, segments: &Segments, from: Offset) -> io::Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut add = |base: Offset, next: Offset, end: u64, index: Option<Index>| {
            if next <= from {
                return Ok(());
            }
            let file = self.disk.open(&self.paths.log(base), crate::env::OpenMode::Read)?;
            sources.push(Source { file, base, end, index });
            io::Result::Ok(())
        };
        for sealed in &segments.sealed {
            let tail = sealed.footer.tail;
            add(sealed.base_offset, tail.next_offset, tail.position, sealed.index.clone())?;
        }
        if let Some(active) = &segments.active {
            let (base, tail) = (active.identity.base_offset, active.tail);
            add(base, tail.next_offset, tail.position, Some(active.index.clone()))?;
        }
        Ok(sources)
    }

    /// From the cache file, or from footers and slots; the current epoch is in it.
    fn epochs(
        &mut self,
        segments: &Segments,
        current: LeaderEpoch,
        next_offset: Offset,
    ) -> Result<Epochs, RecoverError> {
        let id = self.paths.id();
        let stored = match read_small_file(self.disk, &self.paths.epochs(), EPOCHS_BYTES_MAX) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => None,
            other => other?.and_then(|bytes| Epochs::decode(&bytes, id).ok()),
        };
        let mut epochs = stored.clone().unwrap_or_else(|| made_epochs(segments));
        if epochs.latest().is_none_or(|latest| latest.epoch != current || !segments.clean) {
            epochs.begin(current, next_offset);
        }
        if stored.as_ref() != Some(&epochs) && self.may_write() {
            self.write_cache(&self.paths.epochs(), &epochs.encode(id))?;
        }
        Ok(epochs)
    }

    fn health(&self, log_end: Offset) -> PartitionHealth {
        let first = self.damages.iter().min_by_key(|damage| damage.first_bad);
        match (first, &self.read_only) {
            (Some(first), _) => {
                let ends = self.damages.iter().map(|damage| damage.next_good);
                let next_good = ends.reduce(|a, b| Some(a?.max(b?))).flatten();
                PartitionHealth::Fenced { first_bad: first.first_bad, next_good }
            }
            (None, _) if self.doubt => {
                PartitionHealth::Fenced { first_bad: log_end, next_good: None }
            }
            (None, Some(cause)) => PartitionHealth::ReadOnly { cause: cause.clone() },
            (None, None) => PartitionHealth::Writable,
        }
    }

    /// Nothing was ever appended, or everything is gone.
    fn without_files(mut self) -> Recovered {
        if self.doubt {
            self.findings.push(Finding::FilesMissing);
        }
        let mut epochs = Epochs::new();
        epochs.begin(LeaderEpoch(0), Offset::ZERO);
        Recovered {
            manifest: Manifest::new(self.context.cluster_id, self.paths.id()),
            sealed: Vec::new(),
            active: None,
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            next_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch(0),
            epochs,
            producers: crate::storage::ProducerState::new(self.context.producers),
            snapshots: Vec::new(),
            health: self.health(Offset::ZERO),
            findings: self.findings,
        }
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

fn taking_appends(found: Found, place: SlotPlace, slot: Slot) -> Option<RecoveredActive> {
    let tag = found.identity.tag;
    let identity = found.identity.identity.ok()?;
    let (tail, index, file_bytes) = (found.tail, found.index, found.file_bytes);
    Some(RecoveredActive { identity, tag, slot, place, tail, index, file_bytes })
}

/// A roll at every change of the epoch makes one epoch per segment; the footers are enough.
fn made_epochs(segments: &Segments) -> Epochs {
    let mut epochs = Epochs::new();
    let sealed = segments.sealed.iter().map(|s| (s.base_offset, s.footer.tail));
    let active = segments.active.iter().map(|a| (a.identity.base_offset, a.tail));
    for (base, tail) in sealed.chain(active) {
        let is_new = epochs.latest().is_none_or(|latest| latest.epoch < tail.first_epoch);
        if !tail.is_empty() && is_new {
            epochs.begin(tail.first_epoch, base);
        }
    }
    epochs
}
