//! A segment that is not sealed: what its slots say, where its data stops being valid, what
//! follows there. Looks only; `finish.rs` acts on it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::env::{Disk, File, OpenMode};
use crate::storage::index::{INDEX_BYTES_MAX, Index, IndexEntry};
use crate::storage::layout::{DATA_START, PartitionPaths};
use crate::storage::manifest::Seal;
use crate::storage::slot::{Slot, SlotPair, SlotPlace};
use crate::storage::small_file::read_small_file;
use crate::storage::tail::SegmentTail;
use crate::storage::verify::seal_of;
use crate::types::{LeaderEpoch, Offset};

use super::scan::{HeaderWalk, Invalid, Scan, find_batch, last_non_zero, scan_to_end};
use super::sealed::{
    FoundIdentity, read_at, read_footer, read_identity, read_slots, tail_behind_damage,
};
use super::seen::{recall, remember};
use super::table::{Rest, Slots, Valid};
use super::{Access, Damage, RecoverError, RecoveryContext};
use crate::storage::fault::Fault;

/// Bytes behind a clean end that are looked at: nobody writes there without clearing `clean` first.
const PEEK_BYTES: usize = 4096;

/// Where the data of a segment ends that is not sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DataEnd {
    /// Nobody knows: it takes appends.
    Open,
    /// The manifest says so: it is full.
    Sealed(Seal),
    /// It is full, and this is the base of the segment behind it.
    Before(Offset),
}

impl DataEnd {
    /// Whether data up to `tail` is all there is.
    pub(crate) fn is_reached(self, tail: &SegmentTail) -> bool {
        match self {
            DataEnd::Open => true,
            DataEnd::Sealed(seal) => seal.data_end <= tail.position,
            DataEnd::Before(next) => next <= tail.next_offset,
        }
    }

    fn position(self, file_bytes: u64) -> u64 {
        match self {
            DataEnd::Sealed(seal) => file_bytes.min(seal.data_end),
            DataEnd::Open | DataEnd::Before(_) => file_bytes,
        }
    }
}

/// What was found in a segment that is not sealed.
pub(super) struct Found {
    pub file: Arc<dyn File>,
    pub identity: FoundIdentity,
    pub newest: Option<(SlotPlace, Slot)>,
    pub slots: Slots,
    pub valid: Valid,
    pub rest: Rest,
    /// State at the end of the valid data.
    pub tail: SegmentTail,
    /// Complete to `tail`.
    pub index: Index,
    /// The file of the index is not what `index` says.
    pub index_is_stale: bool,
    /// Behind the last record that readers in the same boot were shown. The device may hold less,
    /// after a sync that failed.
    pub seen_end: Offset,
    /// Position behind the last byte that is not zero.
    pub written_end: u64,
    pub file_bytes: u64,
    pub damage: Option<Damage>,
}

/// Looks at the segment at `base`; `None` when its file is missing.
pub(super) fn examine_open(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    context: &RecoveryContext,
    base: Offset,
    end: DataEnd,
) -> Result<Option<Found>, RecoverError> {
    let mode = match context.access {
        Access::ReadWrite => OpenMode::ReadWrite,
        Access::ReadOnly => OpenMode::Read,
    };
    let file = match disk.open(&paths.log(base), mode) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let identity = read_identity(file.as_ref(), paths, context.cluster_id, base)?;
    let mut pair = read_slots(file.as_ref(), identity.tag)?;
    let mut seen_end = base;
    if classify(&identity, &pair) != Slots::Clean {
        let known = recall(disk, paths, context.boot_id, base)?.unwrap_or(base);
        seen_end = seen_before(&file, &pair, base)?.max(known);
        let watermark = pair.newest().map_or(base, |(_, slot)| slot.tail.next_offset);
        if context.access == Access::ReadWrite && seen_end > watermark.max(known) {
            remember(disk, paths, context.boot_id, base, seen_end).map_err(Fault::from)?;
        }
        drop_cache(&file, base, 0..DATA_START);
        pair = read_slots(file.as_ref(), identity.tag)?;
    }
    let slots = classify(&identity, &pair);
    let newest = pair.newest().filter(|_| slots != Slots::NoneValid);
    let empty = SegmentTail::summed(base, identity.data_sum());
    let watermark = newest.map_or(empty, |(_, slot)| slot.tail);
    let stored = StoredIndex::read(disk, paths, base, identity.tag, watermark.position)?;
    let file_bytes = file.len()?;
    let created = identity.created_epoch();
    let unclean = slots != Slots::Clean;
    let data_end = end.position(file_bytes);
    if unclean {
        // What is in front of the last entry below the watermark is not read again.
        drop_cache(&file, base, stored.resume()..u64::MAX);
    }
    let look = Look { file: &file, base, watermark, data_end, file_bytes, created, unclean };
    let clean = slots == Slots::Clean && look.is_untouched()? && stored.covers(&watermark);
    let mut reach = if clean { Reach::at(watermark, stored.index) } else { look.reach(stored)? };
    let (rest, written_end) = match end {
        DataEnd::Sealed(seal) => look.rest_of_full(&mut reach, seal)?,
        DataEnd::Before(next) => {
            look.rest_before(&reach.tail, next, newest.map(|(_, slot)| slot))?
        }
        DataEnd::Open if clean => (Rest::Zeros, reach.tail.position),
        DataEnd::Open => look.rest(&reach.tail, identity.tag)?,
    };
    let valid = if reach.damage.is_some() { Valid::BelowWatermark } else { Valid::ToWatermark };
    Ok(Some(Found {
        newest,
        slots,
        valid,
        rest,
        tail: reach.tail,
        index: reach.index,
        index_is_stale: reach.index_is_stale,
        seen_end,
        written_end,
        file_bytes,
        damage: reach.damage,
        identity,
        file,
    }))
}

/// What a process wrote that then died of a device error may not be on the device.
pub(super) fn drop_cache(file: &Arc<dyn File>, base: Offset, range: Range<u64>) {
    if let Err(e) = file.drop_cache(range) {
        tracing::debug!("segment {base}: the cache was not dropped: {e}");
    }
}

/// The end of what the cache holds behind the watermark: by headers, and the last batch, which a
/// killed process may have written half, by its checksum.
fn seen_before(file: &Arc<dyn File>, pair: &SlotPair, base: Offset) -> io::Result<Offset> {
    let mut tail = pair.newest().map_or(SegmentTail::empty(base), |(_, slot)| slot.tail);
    let end = file.len()?;
    let mut walk = HeaderWalk::new(Arc::clone(file), tail.position, end);
    let mut next = tail.next_offset;
    loop {
        match walk.step() {
            Ok(Some((position, header, _))) if header.base_offset >= next => {
                tail = SegmentTail { position, next_offset: header.base_offset, ..tail };
                next = header.next_offset();
            }
            Err(e) if e.kind() != io::ErrorKind::InvalidData => return Err(e),
            _ => break,
        }
    }
    let mut last = Scan::new(Arc::clone(file), tail, end, LeaderEpoch(-1));
    let _ = last.step()?;
    Ok(last.tail.next_offset)
}

pub(super) fn classify(identity: &FoundIdentity, pair: &SlotPair) -> Slots {
    match pair.newest() {
        _ if identity.identity.is_err() => Slots::NoneValid,
        None => Slots::NoneValid,
        Some(_) if pair.is_damaged() => Slots::OneDamaged,
        Some((_, slot)) if slot.clean => Slots::Clean,
        Some(_) => Slots::Unclean,
    }
}

/// The index file, as far as it can be believed.
struct StoredIndex {
    index: Index,
    /// Missing, damaged, or with entries at or behind the watermark: those may be of data that is
    /// gone.
    is_bad: bool,
}

impl StoredIndex {
    fn read(
        disk: &dyn Disk,
        paths: &PartitionPaths,
        base: Offset,
        tag: u32,
        end: u64,
    ) -> io::Result<StoredIndex> {
        let bytes = match read_small_file(disk, &paths.index(base), INDEX_BYTES_MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => Vec::new(),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Vec::new(),
            Err(e) => return Err(e),
        };
        let (index, is_bad) = Index::decode(&bytes, tag, base, end);
        Ok(StoredIndex { index, is_bad })
    }

    /// Where reading starts.
    fn resume(&self) -> u64 {
        self.index.entries().last().map_or(DATA_START, |e| u64::from(e.position))
    }

    /// Whether look-ups with it are fast all over the segment.
    fn covers(&self, tail: &SegmentTail) -> bool {
        !self.is_bad && tail.position - self.resume() <= UNINDEXED_BYTES
    }
}

/// So much data behind the last entry of a clean segment is left to look-ups; more is read once.
const UNINDEXED_BYTES: u64 = 64 << 10;

/// How far the data is valid.
struct Reach {
    tail: SegmentTail,
    index: Index,
    index_is_stale: bool,
    damage: Option<Damage>,
}

impl Reach {
    fn at(tail: SegmentTail, index: Index) -> Reach {
        Reach { tail, index, index_is_stale: false, damage: None }
    }
}

struct Look<'a> {
    file: &'a Arc<dyn File>,
    base: Offset,
    watermark: SegmentTail,
    /// Nothing at or behind it is data.
    data_end: u64,
    file_bytes: u64,
    created: LeaderEpoch,
    unclean: bool,
}

impl Look<'_> {
    /// Whether nothing was written behind a clean end.
    fn is_untouched(&self) -> io::Result<bool> {
        let end = self.watermark.position;
        let next = read_at(self.file.as_ref(), end, PEEK_BYTES)?;
        Ok(self.file_bytes >= end && next.iter().all(|b| *b == 0))
    }

    /// Reads from the last index entry below the watermark to the end of what is valid.
    fn reach(&self, stored: StoredIndex) -> io::Result<Reach> {
        let mut index = stored.index.clone();
        let resumed = index.entries().last().copied();
        let confirmed = match resumed {
            Some(entry) => {
                // The entry's own batch gets no second entry.
                let tail = self.tail_at(&index, &entry);
                self.confirm(tail, &mut index)?.is_ok()
            }
            None => false,
        };
        let mut damage = None;
        if !confirmed {
            drop_cache(self.file, self.base, 0..u64::MAX);
            index = Index::new(self.base);
            match self.confirm(self.empty(), &mut index)? {
                Ok(()) => {}
                Err(stop) => damage = Some(self.damage(stop, &stored.index, &mut index)?),
            }
        }
        if let Some(damage) = damage.as_mut().filter(|damage| damage.next_good.is_none()) {
            // Nothing below the watermark is valid any more; what is above it may be.
            if let Ok(header) = self.scan(self.watermark, self.data_end).step()? {
                damage.next_good = Some(header.base_offset);
                index.push(&self.watermark, header.base_offset);
            }
        }
        let mut scan = self.scan(self.watermark, self.data_end);
        scan_to_end(&mut scan, &mut index, |_, _| {})?;
        // Written once now, it spares every later start the same reading.
        // The blocks that a running segment writes on are not synced: they may be in memory alone.
        let unsynced = self.unclean && !index.entries().is_empty();
        let index_is_stale = unsynced || stored.is_bad || index != stored.index;
        Ok(Reach { tail: scan.tail, index, index_is_stale, damage })
    }

    /// Whether the data from `from` leads exactly to the watermark; else where it stopped.
    fn confirm(&self, from: SegmentTail, index: &mut Index) -> io::Result<Result<(), SegmentTail>> {
        let end = self.watermark.position.min(self.data_end);
        let mut scan = self.scan(from, end);
        let why = scan_to_end(&mut scan, index, |_, _| {})?;
        if scan.tail.same_bytes(&self.watermark) {
            return Ok(Ok(()));
        }
        let mut stop = scan.tail;
        if let Some((position, offset)) = scan.last.filter(|_| why == Invalid::Epoch) {
            stop = SegmentTail { position, next_offset: offset, ..stop };
        }
        Ok(Err(stop))
    }

    /// Something below the watermark is not what it was: where it starts, and where data is valid
    /// again. `stop` is where a scan from the start ended; `stored` tells which headers were changed
    /// when every batch is valid by itself.
    fn damage(&self, stop: SegmentTail, stored: &Index, index: &mut Index) -> io::Result<Damage> {
        let mut damage = Damage {
            segment: self.base,
            position: stop.position,
            first_bad: stop.next_offset,
            next_good: None,
            cause: "bytes below the watermark are not what was synced".to_owned(),
        };
        if stop.position == self.watermark.position {
            let known = last_agreeing(stored, index);
            damage.position = known.map_or(DATA_START, |e| u64::from(e.position));
            damage.first_bad = known.map_or(self.base, |e| index.offset_of(&e));
            damage.cause = "batch headers below the watermark are not what was synced".to_owned();
            index.cut(damage.position + 1);
            return Ok(damage);
        }
        let end = self.watermark.position.min(self.data_end);
        let mut from = stop;
        // Of several damaged places one range is made: from the first to behind the last.
        while let Some((at, header)) =
            find_batch(self.file, from.position + 1, end, from.next_offset + 1)?
        {
            let tail = tail_behind_damage(at, header.base_offset, &stop);
            let mut behind = Index::new(self.base);
            behind.push(&tail, header.base_offset);
            let mut scan = self.scan(tail, end);
            scan_to_end(&mut scan, &mut behind, |_, _| {})?;
            let reached = scan.tail.position == self.watermark.position
                && scan.tail.next_offset == self.watermark.next_offset;
            if reached {
                damage.next_good = Some(header.base_offset);
                index.append(&behind);
                break;
            }
            from = scan.tail;
        }
        Ok(damage)
    }

    /// What follows the valid data, and where it ends.
    fn rest(&self, tail: &SegmentTail, tag: u32) -> io::Result<(Rest, u64)> {
        let written_end = last_non_zero(self.file.as_ref(), tail.position, self.file_bytes)?;
        if written_end == tail.position {
            return Ok((Rest::Zeros, written_end));
        }
        let footer = read_footer(self.file.as_ref(), tail.position, tag)?;
        let is_footer = footer.is_ok_and(|f| f.tail == *tail && written_end <= f.file_bytes());
        Ok((if is_footer { Rest::Footer } else { Rest::Bytes }, written_end))
    }

    /// The manifest's seal stands for the footer; anything less means that bytes are missing which
    /// had been written.
    fn rest_of_full(&self, reach: &mut Reach, seal: Seal) -> io::Result<(Rest, u64)> {
        let tail = &reach.tail;
        let written_end = last_non_zero(self.file.as_ref(), tail.position, self.file_bytes)?;
        if seal_of(tail) == seal {
            return Ok((Rest::Footer, written_end));
        }
        if tail.position == seal.data_end && reach.damage.is_none() {
            reach.damage = Some(Damage {
                segment: self.base,
                position: DATA_START,
                first_bad: self.base,
                next_good: None,
                cause: "its batches are valid but not those that filled it".to_owned(),
            });
        }
        Ok((Rest::Bytes, written_end))
    }

    /// A segment is behind it, so it was full: whole where its data leads to that one. After a clean
    /// stop that one may start behind offsets that were skipped.
    fn rest_before(
        &self,
        tail: &SegmentTail,
        next: Offset,
        slot: Option<Slot>,
    ) -> io::Result<(Rest, u64)> {
        let written_end = last_non_zero(self.file.as_ref(), tail.position, self.file_bytes)?;
        let skipped = slot.is_some_and(|s| s.clean && s.tail == *tail && s.offset_lease == next);
        let whole = tail.next_offset == next || (skipped && written_end == tail.position);
        Ok((if whole { Rest::Footer } else { Rest::Bytes }, written_end))
    }

    /// Its state before the first batch.
    fn empty(&self) -> SegmentTail {
        SegmentTail::summed(self.base, self.watermark.sum)
    }

    fn scan(&self, from: SegmentTail, end: u64) -> Scan {
        Scan::new(Arc::clone(self.file), from, end, self.created)
    }

    /// What an entry knows of the state before its batch; counts are taken from the watermark later.
    fn tail_at(&self, index: &Index, entry: &IndexEntry) -> SegmentTail {
        SegmentTail {
            position: u64::from(entry.position),
            next_offset: index.offset_of(entry),
            batches: 1,
            max_timestamp: entry.max_timestamp,
            chain_crc: entry.chain_crc,
            data_crc: entry.data_crc,
            ..self.empty()
        }
    }
}

/// The last entry that a stored index and one made from the data agree on.
fn last_agreeing(stored: &Index, made: &Index) -> Option<IndexEntry> {
    let same = |entry: &&IndexEntry| {
        made.entries()
            .iter()
            .any(|e| (e.position, e.chain_crc) == (entry.position, entry.chain_crc))
    };
    stored.entries().iter().take_while(same).last().copied()
}
