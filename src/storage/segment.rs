//! One segment as readers see it: where its visible data ends, its index, its handles.
//!
//! The writer owns the file and publishes here; readers never wait for it longer than for a push
//! into the index. Sealed segments load their index when somebody asks and lose it, their file and
//! their map when others are used more (`handle_cache`).
//!
//! # Invariants
//! `DATA_START <= visible.position <= written.position <= file_bytes`; positions only grow; bytes
//! below `written.position` never change. Every index entry is the start of a batch.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dir::DirShared;
use super::footer::Footer;
use super::handle_cache::Held;
use super::index::{Index, IndexEntry};
use super::layout::PartitionPaths;
use super::partition::SealedSegment;
use super::retention::retention_time;
use super::state_lock::{Changing, Reading, StateLock};
use super::tail::SegmentTail;
use crate::env::{File, OpenMode, Region};
use crate::types::{Offset, Timestamp};

/// A border between batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Border {
    /// Position in the file.
    pub position: u64,
    /// Offset of the batch that starts there, now or later.
    pub offset: Offset,
}

impl Border {
    pub(crate) fn of(tail: &SegmentTail) -> Border {
        Border { position: tail.position, offset: tail.next_offset }
    }
}

/// A segment.
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) created: Timestamp,
    /// Ties slots, footer and index to the file.
    pub(crate) tag: u32,
    paths: Arc<PartitionPaths>,
    dir: Arc<DirShared>,
    cache_id: u64,
    last_used: AtomicU64,
    file_bytes: AtomicU64,
    map_bytes: u64,
    state: StateLock<SegmentState>,
    handles: Mutex<Handles>,
}

/// What readers need to find their way.
pub(crate) struct SegmentState {
    /// `None` while a sealed segment's index is not loaded.
    pub(crate) index: Option<Index>,
    /// The index must stay: the segment is damaged, and no other one is right.
    pub(crate) index_is_pinned: bool,
    /// Readers stop here.
    pub(crate) visible: Border,
    /// Appends go on here.
    pub(crate) written: Border,
    /// Set once.
    pub(crate) footer: Option<Footer>,
}

#[derive(Default)]
struct Handles {
    file: Option<Arc<dyn File>>,
    map: Option<Arc<dyn Region>>,
    mapped_bytes: u64,
    /// Where the map's pages are in the process's page table.
    populated: Range<u64>,
}

/// What a segment is made from.
pub(crate) struct SegmentParts {
    pub base_offset: Offset,
    pub created: Timestamp,
    pub tag: u32,
    pub file_bytes: u64,
    /// How much of it is mapped at once while it is active.
    pub map_bytes: u64,
    pub state: SegmentState,
}

impl Segment {
    pub(crate) fn new(
        paths: Arc<PartitionPaths>,
        dir: Arc<DirShared>,
        parts: SegmentParts,
    ) -> Segment {
        let cache_id = dir.handles.next_id();
        Segment {
            base_offset: parts.base_offset,
            created: parts.created,
            tag: parts.tag,
            paths,
            dir,
            cache_id,
            last_used: AtomicU64::new(0),
            file_bytes: AtomicU64::new(parts.file_bytes),
            map_bytes: parts.map_bytes,
            state: StateLock::new(parts.state),
            handles: Mutex::default(),
        }
    }

    pub(crate) fn read(&self) -> Reading<'_, SegmentState> {
        self.state.read()
    }

    pub(crate) fn write(&self) -> Changing<'_, SegmentState> {
        self.state.write()
    }

    /// Where readers stop.
    pub(crate) fn read_visible(&self) -> Border {
        self.read().visible
    }

    /// Bytes that a tailing reader has brought in ahead.
    pub(crate) fn read_ahead_bytes(&self) -> u64 {
        self.dir.options.read_ahead_bytes
    }

    /// Bytes of the file: allocated for the active segment, used for a sealed one.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_file_bytes(&self, bytes: u64) {
        self.file_bytes.store(bytes, Ordering::Release);
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Bytes that count: without what is only allocated.
    pub(crate) fn used_bytes(&self) -> u64 {
        let state = self.read();
        state.footer.as_ref().map_or(state.written.position, Footer::file_bytes)
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.paths.log(self.base_offset)
    }

    /// What it holds, once it is sealed.
    pub(crate) fn sealed_summary(&self) -> Option<SealedSegment> {
        let state = self.read();
        state.footer.as_ref().map(|footer| SealedSegment {
            base_offset: self.base_offset,
            next_offset: footer.tail.next_offset,
            bytes: footer.file_bytes(),
            max_append_time: footer.max_append_time,
            age_from: retention_time(footer, self.dir.options.timestamp_skew_max),
        })
    }

    /// The end of a sealed segment was written: from now on it never changes.
    pub(crate) fn seal(self: &Arc<Self>, footer: Footer) {
        let mut state = self.write();
        state.footer = Some(footer);
        let bytes = state.index.as_ref().map_or(0, index_bytes);
        drop(state);
        self.set_file_bytes(footer.file_bytes());
        if bytes > 0 {
            self.charge(Held::Index, bytes);
        }
    }

    /// The file, opened when nobody holds it. May touch the directory.
    pub(crate) fn file(self: &Arc<Self>) -> io::Result<Arc<dyn File>> {
        self.touch();
        let mut handles = self.handles();
        if let Some(file) = &handles.file {
            return Ok(Arc::clone(file));
        }
        let file = self.dir.env.disk.open(&self.path(), OpenMode::Read)?;
        handles.file = Some(Arc::clone(&file));
        drop(handles);
        self.charge(Held::File, 1);
        Ok(file)
    }

    /// Readers share the writer's handle.
    pub(crate) fn lend_file(self: &Arc<Self>, file: &Arc<dyn File>) {
        self.handles().file = Some(Arc::clone(file));
        self.charge(Held::File, 1);
    }

    /// A map that reaches at least to `end`. May touch the directory.
    pub(crate) fn map(self: &Arc<Self>, end: u64) -> io::Result<Arc<dyn Region>> {
        self.touch();
        {
            let handles = self.handles();
            if let Some(map) = handles.map.as_ref().filter(|_| handles.mapped_bytes >= end) {
                return Ok(Arc::clone(map));
            }
        }
        let file = self.file()?;
        let sealed = self.read().footer.is_some();
        let file_bytes = self.file_bytes().max(end);
        // Mapped once: an active segment at the size it may reach.
        let room = if sealed { file_bytes } else { file_bytes.max(self.map_bytes) };
        let map = file.map(room)?;
        let mut handles = self.handles();
        *handles = Handles {
            map: Some(Arc::clone(&map)),
            mapped_bytes: room,
            populated: 0..0,
            ..std::mem::take(&mut handles)
        };
        drop(handles);
        self.charge(Held::Map, 1);
        Ok(map)
    }

    /// The map, if there is one.
    pub(crate) fn existing_map(&self) -> Option<Arc<dyn Region>> {
        self.handles().map.clone()
    }

    /// Puts the pages of `[start, end)` into the page table in large steps, and those up to
    /// `ahead` further: faults one by one cost three to four times as much.
    pub(crate) fn populate_ahead(
        &self,
        map: &Arc<dyn Region>,
        start: u64,
        end: u64,
        ahead: u64,
    ) -> io::Result<()> {
        let known = match &*self.handles() {
            handles if handles.map.is_some() => handles.populated.clone(),
            _ => 0..0,
        };
        if known.start <= start && end <= known.end {
            return Ok(());
        }
        // Beyond the last batch the file may be cut at any moment.
        let to = end.next_multiple_of(ahead.max(1)).min(self.read().written.position).max(end);
        // A reader that goes on extends the range; one that jumps starts another.
        let goes_on = known.start <= start && start <= known.end;
        let from = if goes_on { known.end } else { start };
        map.populate(from..to)?;
        self.handles().populated = if goes_on { known.start..to } else { start..to };
        Ok(())
    }

    /// Whether looking into the index reads no file.
    pub(crate) fn has_index(&self) -> bool {
        self.read().index.is_some()
    }

    /// Looks into the index, loaded or rebuilt when it is not in memory: that may read the whole
    /// segment.
    pub(crate) fn with_index<T>(
        self: &Arc<Self>,
        look: impl FnOnce(&[IndexEntry], &SegmentState) -> T,
    ) -> io::Result<T> {
        self.touch();
        {
            let state = self.read();
            if let Some(index) = &state.index {
                return Ok(look(index.entries(), &state));
            }
        }
        let index = self.load_index()?;
        self.charge(Held::Index, index_bytes(&index));
        let found = look(index.entries(), &self.read());
        self.write().index = Some(index);
        Ok(found)
    }

    /// Gives up `kind`: others need it more.
    pub(crate) fn release(&self, kind: Held) {
        match kind {
            Held::File => drop(self.handles().file.take()),
            Held::Map => {
                let map = {
                    let mut handles = self.handles();
                    handles.populated = 0..0;
                    handles.map.take()
                };
                drop(map);
            }
            Held::Index => {
                let mut state = self.write();
                if state.footer.is_some() && !state.index_is_pinned {
                    state.index = None;
                }
            }
        }
    }

    fn load_index(self: &Arc<Self>) -> io::Result<Index> {
        let footer = self.read().footer;
        let Some(footer) = footer else { return Err(io::ErrorKind::NotFound.into()) };
        let disk = self.dir.env.disk.as_ref();
        if let Some(index) = super::index::load(disk, &self.paths, self.base_offset, &footer) {
            return Ok(index);
        }
        let file = self.file()?;
        super::index::rebuild(file, self.base_offset, &footer)
    }

    fn charge(self: &Arc<Self>, kind: Held, amount: usize) {
        self.dir.handles.charge(self.cache_id, Arc::downgrade(self), kind, amount);
    }

    fn touch(&self) {
        self.last_used.store(self.dir.handles.tick(), Ordering::Relaxed);
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.dir.handles.forget(self.cache_id);
    }
}

fn index_bytes(index: &Index) -> usize {
    std::mem::size_of_val(index.entries())
}

/// The last entry for which `before` holds; entries for which it holds come first.
pub(crate) fn last_entry(
    entries: &[IndexEntry],
    before: impl FnMut(&IndexEntry) -> bool,
) -> Option<&IndexEntry> {
    let count = entries.partition_point(before);
    entries.get(count.checked_sub(1)?)
}
