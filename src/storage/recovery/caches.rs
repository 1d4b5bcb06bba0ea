//! The files that recovery can do without, made again: indexes, producer state, epochs.

use std::io;
use std::path::Path;

use crate::storage::epochs::{EPOCHS_BYTES_MAX, Epochs};
use crate::storage::index::Index;
use crate::storage::small_file::{read_small_file, write_small_file};
use crate::storage::snapshot::encode_snapshot;
use crate::types::{LeaderEpoch, Offset};

use super::examine::Found;
use super::files::{Listing, quarantine, remove};
use super::finish::{Recovery, Segments};
use super::replay::{Source, load_snapshots, replay};
use super::{Finding, RecoverError};

/// Who replayed more than this writes a snapshot, so that the next start does not do it again.
const REPLAY_BYTES: u64 = 4 << 20;

impl Recovery<'_> {
    pub(super) fn write_index(&mut self, base: Offset, found: &Found) -> Result<(), RecoverError> {
        if !found.index_is_stale {
            return Ok(());
        }
        let bytes = found.index.encode(found.identity.tag);
        self.write_cache(&self.paths.index(base), &bytes)
    }

    fn write_cache(&mut self, path: &Path, bytes: &[u8]) -> Result<(), RecoverError> {
        write_small_file(self.disk, path, bytes)?;
        let name = path.display().to_string();
        self.findings.push(Finding::CacheRebuilt { name });
        Ok(())
    }

    /// The state of all producers, and the offsets of the snapshots that stay.
    pub(super) fn producers(
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
                remove(self.disk, self.paths, &self.paths.snapshot(offset))?;
            }
            for offset in &loaded.damaged {
                let path = self.paths.snapshot(*offset);
                let to = quarantine(self.disk, self.paths, &path)?;
                let name = path.display().to_string();
                self.findings.push(Finding::Quarantined { name, to });
            }
        }
        let mut state = loaded.state;
        let from = loaded.offset.max(log_start.min(loaded.offset));
        let sources = self.sources(segments, from)?;
        let mut bytes = 0;
        for source in &sources {
            bytes += replay(&mut state, source, from, self.context)?;
        }
        let mut snapshots = loaded.valid;
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
    pub(super) fn epochs(
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
