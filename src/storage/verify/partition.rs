//! One partition: every file that its manifest names, and every file that is there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::env::{File, OpenMode};
use crate::storage::epochs::{EPOCHS_BYTES_MAX, Epochs};
use crate::storage::index::{INDEX_BYTES_MAX, Index};
use crate::storage::layout::{DATA_START, FileName, PartitionPaths};
use crate::storage::manifest::{MANIFEST_BYTES_MAX, Manifest, Seal, SegmentEntry, SegmentState};
use crate::storage::producer_state::ProducerLimits;
use crate::storage::recovery::examine::DataEnd;
use crate::storage::recovery::files::Listing;
use crate::storage::recovery::scan::last_non_zero;
use crate::storage::recovery::sealed::{FoundIdentity, read_footer, read_identity, read_slots};
use crate::storage::recovery::sealing::look_at_later;
use crate::storage::recovery::unnamed::{Unnamed, look_at_unnamed};
use crate::storage::small_file::read_small_file;
use crate::storage::snapshot::{SNAPSHOT_BYTES_MAX, decode_snapshot};
use crate::storage::tail::SegmentTail;
use crate::types::Offset;

use super::segment::{BadRange, SegmentRead, read_segment};
use super::{Run, Verdict, VerifyRow, row_of_file};

/// What a check needs to know of the segment it reads.
struct Subject<'a> {
    paths: &'a PartitionPaths,
    base: Offset,
    file: Arc<dyn File>,
    file_bytes: u64,
    identity: FoundIdentity,
    /// Those that follow it.
    behind: &'a [SegmentEntry],
}

impl Subject<'_> {
    fn follower(&self) -> Option<Offset> {
        self.behind.first().map(|next| next.base_offset)
    }

    /// Its state before the first batch.
    fn empty(&self) -> SegmentTail {
        SegmentTail::summed(self.base, self.identity.data_sum())
    }
}

impl Run<'_> {
    pub(super) fn partition(&mut self, paths: &PartitionPaths) -> io::Result<()> {
        let manifest = match self.read_manifest(paths) {
            Ok(Some(manifest)) => Some(self.with_unnamed(paths, manifest)?),
            Ok(None) => None,
            Err(what) => {
                let detail = Some(what);
                let verdict = Verdict::ManifestDamaged;
                self.emit(VerifyRow { verdict, detail, ..row(paths, &paths.manifest()) })?;
                None
            }
        };
        let entries = manifest.as_ref().map_or(&[][..], |manifest| &manifest.segments);
        for (number, entry) in entries.iter().enumerate() {
            self.segment(paths, entry, entries.get(number + 1..).unwrap_or(&[]))?;
        }
        for gap in manifest.iter().flat_map(|manifest| &manifest.gaps) {
            let range = (Some(gap.first), Some(Offset(gap.next.0 - 1)));
            let mut it = row(paths, &paths.manifest());
            (it.first_offset, it.last_offset) = range;
            self.emit(VerifyRow { verdict: Verdict::Gap, ..it })?;
        }
        self.other_files(paths, manifest.as_ref())
    }

    fn read_manifest(&self, paths: &PartitionPaths) -> Result<Option<Manifest>, String> {
        let bytes = read_small_file(self.disk, &paths.manifest(), MANIFEST_BYTES_MAX)
            .map_err(|e| e.to_string())?;
        let Some(bytes) = bytes else {
            let entries = self.disk.read_dir(paths.dir()).map_err(|e| e.to_string())?;
            let is_log = |name: &str| matches!(FileName::parse(name), FileName::Log(_));
            return match entries.iter().any(|entry| is_log(&entry.name)) {
                true => Err("it is missing".to_owned()),
                false => Ok(None),
            };
        };
        let manifest = Manifest::decode(&bytes).map_err(|e| e.to_string())?;
        manifest.expect(self.cluster_id, paths.id()).map_err(|e| e.to_string())?;
        Ok(Some(manifest))
    }

    /// With the segments that follow and are not named yet, as recovery takes them.
    fn with_unnamed(&self, paths: &PartitionPaths, from: Manifest) -> io::Result<Manifest> {
        let logs = Listing::read(self.disk, paths.dir())?.unwrap_or_default().logs;
        let mut manifest = from.clone();
        for base in from.unnamed(&logs) {
            match look_at_unnamed(self.disk, paths, self.cluster_id, base) {
                Ok(Unnamed::Follows) => manifest.opened(base),
                Ok(Unnamed::Blank) => manifest.creating(base),
                Ok(Unnamed::Headless) => break,
                // Deleted while we were looking.
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.summary.live => break,
                Err(e) => return Err(e),
            }
        }
        Ok(manifest)
    }

    fn segment(
        &mut self,
        paths: &PartitionPaths,
        entry: &SegmentEntry,
        behind: &[SegmentEntry],
    ) -> io::Result<()> {
        let base = entry.base_offset;
        let log = paths.log(base);
        if matches!(entry.state, SegmentState::Deleting(_)) && !self.disk.exists(&log)? {
            // Only the manifest does not say so yet. What else is left of it is another file.
            return Ok(());
        }
        if matches!(entry.state, SegmentState::Creating | SegmentState::Deleting(_)) {
            let verdict =
                if self.summary.live { Verdict::AboveWatermark } else { Verdict::Interrupted };
            let first_offset = Some(base);
            return self.emit(VerifyRow { verdict, first_offset, ..row(paths, &log) });
        }
        let file = match self.disk.open(&log, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.missing(paths, entry);
            }
            other => other?,
        };
        self.summary.segments += 1;
        let identity = read_identity(file.as_ref(), paths, self.cluster_id, base)?;
        let file_bytes = file.len()?;
        if let Err(e) = &identity.identity {
            self.describe(paths, &log, e.to_string())?;
        }
        let subject = Subject { paths, base, file, file_bytes, identity, behind };
        match entry.state {
            SegmentState::Sealing(seal) => self.sealing(&subject, seal),
            _ => match entry.seal() {
                Some(seal) => self.sealed(&subject, seal),
                None => self.active(&subject, None),
            },
        }
    }

    /// Deleted while we were looking is fine.
    fn missing(&mut self, paths: &PartitionPaths, entry: &SegmentEntry) -> io::Result<()> {
        let base = entry.base_offset;
        let known = self.read_manifest(paths).ok().flatten();
        let still_listed = known.is_some_and(|manifest| manifest.segment(base) == Some(entry));
        if self.summary.live && !still_listed {
            return Ok(());
        }
        let last_offset = entry.seal().map(|seal| Offset(seal.next_offset.0 - 1));
        let first_offset = Some(base);
        let it = row(paths, &paths.log(base));
        self.emit(VerifyRow { verdict: Verdict::Missing, first_offset, last_offset, ..it })
    }

    fn describe(&mut self, paths: &PartitionPaths, file: &Path, what: String) -> io::Result<()> {
        let verdict = Verdict::DescriptionDamaged;
        self.emit(VerifyRow { verdict, detail: Some(what), ..row(paths, file) })
    }

    fn sealed(&mut self, it: &Subject<'_>, seal: Seal) -> io::Result<()> {
        let log = it.paths.log(it.base);
        let read = self.read(it, it.empty(), seal.data_end)?;
        self.batches(it, &read, Some(seal.next_offset))?;
        if read.bad.is_empty() {
            let found = seal_of(&read.tail);
            if found != seal {
                let detail = "its batches are valid but not those that were sealed".to_owned();
                self.corrupt(it, DATA_START, it.base, Some(seal.next_offset), Some(detail))?;
            }
        }
        match read_footer(it.file.as_ref(), seal.data_end, it.identity.tag)? {
            Err(e) => self.describe(it.paths, &log, e.to_string())?,
            Ok(footer) if Seal::from(&footer) != seal => {
                self.describe(it.paths, &log, "the footer is not the manifest's".to_owned())?;
            }
            Ok(footer) if footer.file_bytes() != it.file_bytes => {
                let what = format!("{} bytes, {} expected", it.file_bytes, footer.file_bytes());
                self.describe(it.paths, &log, what)?;
            }
            Ok(_) => {}
        }
        self.index(it, &read, seal.data_end)
    }

    /// With its footer it is a sealed one that the manifest does not call so yet.
    fn sealing(&mut self, it: &Subject<'_>, seal: Seal) -> io::Result<()> {
        let footer = read_footer(it.file.as_ref(), seal.data_end, it.identity.tag)?;
        match footer {
            Ok(footer) if footer.file_bytes() == it.file_bytes => self.sealed(it, seal),
            _ => self.active(it, Some(seal)),
        }
    }

    fn active(&mut self, it: &Subject<'_>, seal: Option<Seal>) -> io::Result<()> {
        let log = it.paths.log(it.base);
        let slots = read_slots(it.file.as_ref(), it.identity.tag)?;
        let newest = slots.newest().map(|(_, slot)| slot);
        // A live broker may be writing the other slot right now.
        let damaged = newest.is_none() || (slots.is_damaged() && !self.summary.live);
        if damaged && it.identity.identity.is_ok() {
            self.describe(it.paths, &log, "a watermark slot does not read back".to_owned())?;
        }
        let watermark = newest.map_or(it.empty(), |slot| slot.tail);
        let read = self.read(it, it.empty(), watermark.position)?;
        self.batches(it, &read, Some(watermark.next_offset))?;
        let whole = read.bad.is_empty();
        if whole && !read.tail.same_bytes(&watermark) {
            let detail = "batch headers are not those that were synced".to_owned();
            self.corrupt(it, DATA_START, it.base, Some(watermark.next_offset), Some(detail))?;
        }
        self.index(it, &read, watermark.position)?;
        // Offsets may have been skipped behind a clean end.
        let skips =
            newest.is_some_and(|slot| slot.clean && Some(slot.offset_lease) == it.follower());
        let end = match it.follower() {
            Some(next) if !skips && seal.is_none() => DataEnd::Before(next),
            _ => seal.map_or(DataEnd::Open, DataEnd::Sealed),
        };
        self.above_watermark(it, watermark, damaged, end)
    }

    fn above_watermark(
        &mut self,
        it: &Subject<'_>,
        watermark: SegmentTail,
        in_doubt: bool,
        expected: DataEnd,
    ) -> io::Result<()> {
        let log = it.paths.log(it.base);
        let (first_offset, position) = (Some(watermark.next_offset), Some(watermark.position));
        let about = VerifyRow { first_offset, position, ..row(it.paths, &log) };
        let written = last_non_zero(it.file.as_ref(), watermark.position, it.file_bytes)?;
        let missing = !expected.is_reached(&watermark);
        if written == watermark.position && !missing {
            return Ok(());
        }
        if self.summary.live {
            return self.emit(VerifyRow { verdict: Verdict::AboveWatermark, ..about });
        }
        let read = self.read(it, watermark, it.file_bytes)?;
        let end = read.runs.first().map_or(watermark, |run| SegmentTail {
            position: run.end,
            next_offset: run.next,
            ..read.tail
        });
        self.runs(it, &read)?;
        let whole = expected.is_reached(&end);
        let rest = last_non_zero(it.file.as_ref(), end.position, it.file_bytes)?;
        let is_stated_full = matches!(expected, DataEnd::Sealed(_));
        if rest == end.position && whole && !is_stated_full {
            return Ok(());
        }
        let footer = read_footer(it.file.as_ref(), end.position, it.identity.tag)?;
        let verdict = match footer {
            Ok(_) => Verdict::Interrupted,
            Err(_) if whole && is_stated_full => Verdict::Interrupted,
            Err(_) if in_doubt || (!whole && self.is_stated_behind(it)?) => Verdict::Corrupt,
            Err(_) => Verdict::Torn,
        };
        let (first_offset, position) = (Some(end.next_offset), Some(end.position));
        let detail = Some(format!("{} bytes", written.saturating_sub(end.position)));
        self.emit(VerifyRow { verdict, first_offset, position, detail, ..about })
    }

    /// Whether a later segment says that all before it is durable, or cannot be asked.
    fn is_stated_behind(&self, it: &Subject<'_>) -> io::Result<bool> {
        for entry in it.behind {
            let later = look_at_later(self.disk, it.paths, self.cluster_id, entry)?;
            if later.is_some_and(|it| it.states_data() || !it.is_known()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read(&mut self, it: &Subject<'_>, from: SegmentTail, end: u64) -> io::Result<SegmentRead> {
        let end = end.min(it.file_bytes);
        let created = it.identity.created_epoch();
        let read = read_segment(&it.file, from, end, created, self.options.depth)?;
        let (batches, records, bytes) = read.counts;
        self.summary.batches += batches;
        self.summary.records += records;
        self.summary.bytes += bytes;
        Ok(read)
    }

    /// Rows for valid and for bad ranges below `expected`, the offset behind the last durable record.
    fn batches(
        &mut self,
        it: &Subject<'_>,
        read: &SegmentRead,
        expected: Option<Offset>,
    ) -> io::Result<()> {
        self.runs(it, read)?;
        for BadRange { position, first, resume } in &read.bad {
            let next = resume.map(|(_, offset)| offset).or(expected);
            self.corrupt(it, *position, *first, next, None)?;
        }
        let reached = read.tail.next_offset;
        if read.bad.is_empty() && expected.is_some_and(|expected| reached < expected) {
            self.corrupt(it, read.tail.position, reached, expected, Some("cut off".to_owned()))?;
        }
        Ok(())
    }

    fn runs(&mut self, it: &Subject<'_>, read: &SegmentRead) -> io::Result<()> {
        let log = it.paths.log(it.base);
        for run in &read.runs {
            self.emit(VerifyRow {
                first_offset: Some(run.first),
                last_offset: Some(Offset(run.next.0 - 1)),
                position: Some(run.position),
                ..row(it.paths, &log)
            })?;
        }
        for (position, offset, what) in &read.undecodable {
            self.emit(VerifyRow {
                first_offset: Some(*offset),
                position: Some(*position),
                verdict: Verdict::Undecodable,
                detail: Some(what.clone()),
                ..row(it.paths, &log)
            })?;
        }
        Ok(())
    }

    fn corrupt(
        &mut self,
        it: &Subject<'_>,
        position: u64,
        first: Offset,
        next: Option<Offset>,
        detail: Option<String>,
    ) -> io::Result<()> {
        self.emit(VerifyRow {
            first_offset: Some(first),
            last_offset: next.map(|next| Offset(next.0 - 1)),
            position: Some(position),
            verdict: Verdict::Corrupt,
            detail,
            ..row(it.paths, &it.paths.log(it.base))
        })
    }

    /// Every entry must be one that the data gives too.
    fn index(&mut self, it: &Subject<'_>, read: &SegmentRead, end: u64) -> io::Result<()> {
        let path = it.paths.index(it.base);
        let Ok(Some(bytes)) = read_small_file(self.disk, &path, INDEX_BYTES_MAX) else {
            return Ok(());
        };
        let (stored, is_bad) = Index::decode(&bytes, it.identity.tag, it.base, end);
        let made = read.index.entries();
        let known = stored.entries().iter().all(|entry| made.contains(entry));
        if self.summary.live || (known && !is_bad) || !read.bad.is_empty() {
            return Ok(());
        }
        self.emit(VerifyRow { verdict: Verdict::CacheBad, ..row(it.paths, &path) })
    }

    fn other_files(
        &mut self,
        paths: &PartitionPaths,
        manifest: Option<&Manifest>,
    ) -> io::Result<()> {
        let entries = match self.disk.read_dir(paths.dir()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let path = paths.dir().join(&entry.name);
            let listed = |base| manifest.is_none_or(|m| m.segment(base).is_some());
            let verdict = match FileName::parse(&entry.name) {
                FileName::Log(base) if listed(base) => continue,
                FileName::Index(base) if listed(base) => continue,
                FileName::Manifest => continue,
                FileName::Epochs if self.epochs_are_good(paths, &path) => continue,
                FileName::Snapshot(offset) if self.snapshot_is_good(paths, offset) => continue,
                FileName::Epochs | FileName::Snapshot(_) => Verdict::CacheBad,
                FileName::Tmp | FileName::Index(_) => Verdict::Interrupted,
                FileName::Log(_) | FileName::Unknown => Verdict::Unexplained,
                FileName::Part(_) | FileName::RepairPlan => Verdict::Interrupted,
            };
            if !self.summary.live {
                self.emit(VerifyRow { verdict, ..row(paths, &path) })?;
            }
        }
        Ok(())
    }

    fn epochs_are_good(&self, paths: &PartitionPaths, path: &Path) -> bool {
        let bytes = read_small_file(self.disk, path, EPOCHS_BYTES_MAX).ok().flatten();
        bytes.is_some_and(|bytes| Epochs::decode(&bytes, paths.id()).is_ok())
    }

    fn snapshot_is_good(&self, paths: &PartitionPaths, offset: Offset) -> bool {
        let path = paths.snapshot(offset);
        let bytes = read_small_file(self.disk, &path, SNAPSHOT_BYTES_MAX).ok().flatten();
        let limits = ProducerLimits::default();
        bytes.is_some_and(|b| decode_snapshot(&b, paths.id(), offset, limits).is_ok())
    }
}

pub(crate) fn seal_of(tail: &SegmentTail) -> Seal {
    Seal {
        next_offset: tail.next_offset,
        data_end: tail.position,
        data_crc: tail.data_crc,
        chain_crc: tail.chain_crc,
    }
}

pub(crate) fn row(paths: &PartitionPaths, file: &Path) -> VerifyRow {
    VerifyRow {
        topic_id: Some(paths.id().topic),
        partition: Some(paths.id().partition),
        ..row_of_file(file.display().to_string())
    }
}
