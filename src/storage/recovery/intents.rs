//! What the manifest announced, completed; what nothing explains, set aside.

use std::io;
use std::path::Path;

use crate::storage::fault::Fault;
use crate::storage::layout::TRASH_DIR;
use crate::storage::manifest::{Manifest, SegmentEntry, SegmentState};
use crate::types::Offset;

use super::files::{Listing, is_blank, quarantine, remove};
use super::finish::Recovery;
use super::{Finding, RecoverError};

impl Recovery<'_> {
    /// Completes deletions, takes back creations; whether the manifest changed.
    pub(super) fn carry_out_intents(
        &mut self,
        manifest: &mut Manifest,
    ) -> Result<bool, RecoverError> {
        let open = |e: &&SegmentEntry| {
            matches!(e.state, SegmentState::Creating | SegmentState::Deleting(_))
        };
        let intents: Vec<SegmentEntry> = manifest.segments.iter().filter(open).copied().collect();
        if intents.is_empty() {
            return Ok(false);
        }
        if self.may_write() {
            for entry in &intents {
                self.carry_out(entry)?;
            }
            self.make_removals_durable().map_err(Fault::Sync)?;
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

    fn carry_out(&mut self, entry: &SegmentEntry) -> Result<(), Fault> {
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

    /// Files that neither the manifest nor a small-file write explains.
    pub(super) fn set_aside(
        &mut self,
        manifest: &Manifest,
        listing: &Listing,
    ) -> Result<(), RecoverError> {
        if !self.may_write() {
            return Ok(());
        }
        for name in &listing.tmp {
            let path = self.paths.dir().join(name);
            remove(self.disk, self.paths, &path)?;
        }
        let listed = |base: &&Offset| manifest.segment(**base).is_some();
        for base in listing.indexes.iter().filter(|base| !listed(base)) {
            remove(self.disk, self.paths, &self.paths.index(*base))?;
        }
        let logs = listing.logs.iter().filter(|base| !listed(base)).map(|b| self.paths.log(*b));
        let unknown = listing.unknown.iter().map(|name| self.paths.dir().join(name));
        for path in logs.chain(unknown) {
            // Creations that were taken back and deletions are gone by now.
            if self.disk.exists(&path)? {
                let to = quarantine(self.disk, self.paths, &path)?;
                let name = path.display().to_string();
                self.findings.push(Finding::Quarantined { name, to });
            }
        }
        Ok(())
    }
}
