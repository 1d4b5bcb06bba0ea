//! The order in which recovery looks, decides and writes.
//!
//! Writes, in this order, each durable before the next:
//! 1. what the manifest announced: files of `deleting` and of blank `creating` segments removed; blank
//!    ones that it does not name;
//! 2. the torn bytes copied to `torn/`; 3. the segment cut at its valid end, `fdatasync`;
//! 4. snapshots above the end removed, index, epochs; 5. a clean slot with the next epoch,
//!    `fdatasync`; 6. the manifest, when it changed.
//!
//! A crash between any two leaves a state from which the same steps lead to the same end.

use std::io;

use crate::env::Disk;
use crate::storage::epochs::Epochs;
use crate::storage::fault::Fault;
use crate::storage::fields::FormatError;
use crate::storage::layout::PartitionPaths;
use crate::storage::manifest::{MANIFEST_BYTES_MAX, Manifest, SegmentEntry, SegmentState};
use crate::storage::small_file::{read_small_file, write_small_file};
use crate::types::{LeaderEpoch, Offset, PartitionHealth};

use super::files::Listing;
use super::sealed::{examine_sealed, guess_manifest};
use super::sealing::GoesOn;
use super::seen::forget;
use super::{
    Access, Damage, Finding, Materialised, RecoverError, Recovered, RecoveredActive,
    RecoveredSealed, RecoveryContext,
};

/// One recovery.
pub(super) struct Recovery<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) paths: &'a PartitionPaths,
    pub(super) context: &'a RecoveryContext,
    pub(super) findings: Vec<Finding>,
    pub(super) damages: Vec<Damage>,
    /// Why it would have to write and may not.
    pub(super) read_only: Option<String>,
    /// Nothing may be changed: too much is in doubt.
    pub(super) doubt: bool,
}

/// What the segments came to.
#[derive(Default)]
pub(super) struct Segments {
    pub(super) sealed: Vec<RecoveredSealed>,
    pub(super) active: Option<RecoveredActive>,
    /// Offset of the next record to append, when the active segment says so.
    pub(super) next_offset: Option<Offset>,
    /// Its epoch.
    pub(super) leader_epoch: Option<LeaderEpoch>,
    /// The stop was clean, or nothing takes appends.
    pub(super) clean: bool,
    pub(super) manifest_changed: bool,
    /// Segments that were not sealed.
    pub(super) looked_at: Vec<Offset>,
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
        let (disk, paths) = (self.disk, self.paths);
        let writes = self.context.access == Access::ReadWrite;
        let listing = Listing::read(self.disk, self.paths.dir())?;
        let Some((mut manifest, listing)) = self.manifest(listing)? else {
            return Ok(self.without_files());
        };
        if self.may_write() {
            // A process killed in the same boot leaves names that are not on the device yet; what is
            // served on must not rest on them.
            self.disk.sync_dir(self.paths.dir()).map_err(Fault::Sync)?;
        }
        let unnamed = if self.doubt { Vec::new() } else { manifest.unnamed(&listing.logs) };
        let intents_changed = self.carry_out_intents(&mut manifest)?;
        let unnamed = self.adopt_unnamed(&mut manifest, &unnamed)?;
        let mut segments = self.segments(&mut manifest, &unnamed)?;
        segments.manifest_changed |= intents_changed;
        self.set_aside(&manifest, &listing)?;
        let looked_at = std::mem::take(&mut segments.looked_at);
        let recovered = self.conclude(manifest, segments, listing)?;
        if writes {
            for base in looked_at {
                forget(disk, paths, base)?;
            }
        }
        Ok(recovered)
    }

    pub(super) fn may_write(&self) -> bool {
        self.context.access == Access::ReadWrite && !self.doubt
    }

    pub(super) fn refuse_write(&mut self, cause: &str) {
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

    /// `unnamed` are behind those of the manifest.
    fn segments(
        &mut self,
        manifest: &mut Manifest,
        unnamed: &[Offset],
    ) -> Result<Segments, RecoverError> {
        let mut segments = Segments { clean: true, ..Segments::default() };
        let mut entries = manifest.segments.clone();
        entries.extend(
            unnamed
                .iter()
                .map(|base| SegmentEntry { base_offset: *base, state: SegmentState::Active }),
        );
        for (number, entry) in entries.iter().enumerate() {
            if manifest.segment(entry.base_offset).is_none() {
                manifest.opened(entry.base_offset);
                segments.manifest_changed = true;
            }
            if matches!(entry.state, SegmentState::Active | SegmentState::Sealing(_)) {
                segments.looked_at.push(entry.base_offset);
            }
            let rest = entries.get(number..).unwrap_or(&[]);
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
                SegmentState::Active if rest.len() == 1 => {
                    self.active(entry.base_offset, manifest, &mut segments)?
                }
                SegmentState::Sealing(_) | SegmentState::Active => {
                    if self.full(rest, manifest, &mut segments)? == GoesOn::Here {
                        break;
                    }
                }
                SegmentState::Creating | SegmentState::Deleting(_) => {}
            }
        }
        Ok(segments)
    }

    pub(super) fn add_damage(&mut self, damage: Option<Damage>) {
        if let Some(damage) = damage {
            self.findings.push(Finding::Damaged(damage.clone()));
            self.damages.push(damage);
        }
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
        // Without segments nothing is there: the log ends where it starts, whatever was promised.
        let log_end = active_end.or(sealed_end).unwrap_or_default().max(manifest.log_start);
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
            write_small_file(self.disk, &self.paths.manifest(), &manifest.encode())?;
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
