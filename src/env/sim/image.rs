//! One file of the simulated disk: what memory shows and what the device may hold.
//!
//! `data` is the page cache. A sector written since the last sync keeps its earlier versions, the
//! first of which is the durable one; lengths do the same. After a failed sync a sector is *lost*:
//! memory differs from the device although nothing is waiting to be written.
//!
//! # Invariants
//! - `data.len() <= len`; bytes from `data.len()` to `len` read as zero.
//! - every sector whose durable bytes may differ from `data` has an entry in `pending`.
//! - `lengths` is never empty and its last element is `len`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::crash::Unit;

/// The unit that survives a crash whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// Versions kept per sector between two syncs; the middle ones beyond it are forgotten.
const VERSIONS_MAX: usize = 8;

type SectorBytes = [u8; SECTOR_BYTES];

/// What a sector held from moment `at` on; `None` is zeros.
#[derive(Clone, Debug)]
struct Version {
    at: u64,
    bytes: Option<Arc<SectorBytes>>,
}

#[derive(Clone, Debug)]
struct Sector {
    /// Oldest first; what memory holds now is one more version after these.
    old: Vec<Version>,
    newest_at: u64,
    /// False after a failed sync: the device holds `old[0]` and no sync will change that.
    dirty: bool,
}

/// A length the file had since the last sync.
#[derive(Clone, Copy, Debug)]
struct Length {
    at: u64,
    len: u64,
    cut: bool,
}

#[derive(Clone, Debug)]
pub(super) struct FileImage {
    data: Arc<Vec<u8>>,
    len: u64,
    allocated_end: u64,
    pending: BTreeMap<u64, Sector>,
    lengths: Vec<Length>,
}

fn index(position: u64) -> usize {
    usize::try_from(position).expect("simulated files fit in memory")
}

impl FileImage {
    pub(super) fn new() -> FileImage {
        FileImage::durable(Vec::new(), 0, 0)
    }

    /// A file whose bytes are all on the device.
    pub(super) fn durable(data: Vec<u8>, len: u64, allocated_end: u64) -> FileImage {
        FileImage {
            data: Arc::new(data),
            len,
            allocated_end,
            pending: BTreeMap::new(),
            lengths: vec![Length { at: 0, len, cut: false }],
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Everything below counts as allocated; holes are not modelled.
    pub(super) fn allocated_end(&self) -> u64 {
        self.allocated_end
    }

    /// Whether the device holds just what memory holds.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.lengths.len() == 1
    }

    pub(super) fn hash(&self, hasher: &mut crc32fast::Hasher) {
        // Zeros at the end may or may not be stored: leave them out, the length tells.
        let used = self.data.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        hasher.update(&self.data[..used]);
    }

    pub(super) fn contents(&self) -> Vec<u8> {
        let mut all = (*self.data).clone();
        all.resize(index(self.len), 0);
        all
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let end = self.len.min(offset.saturating_add(buffer.len() as u64));
        if offset >= end {
            return 0;
        }
        let wanted = index(end - offset);
        let stored = self.data.get(index(offset)..).unwrap_or_default();
        let copied = stored.len().min(wanted);
        buffer[..copied].copy_from_slice(&stored[..copied]);
        buffer[copied..wanted].fill(0);
        wanted
    }

    /// Writes `parts` one after another, at most `limit` bytes, as one operation.
    pub(super) fn write(&mut self, at: u64, parts: &[&[u8]], offset: u64, limit: usize) {
        let end = offset + limit as u64;
        if limit == 0 {
            return;
        }
        self.keep_versions(at, offset, end);
        let data = Arc::make_mut(&mut self.data);
        if data.len() < index(end) {
            data.resize(index(end), 0);
        }
        let mut position = index(offset);
        let mut left = limit;
        for part in parts {
            let taken = part.len().min(left);
            data[position..position + taken].copy_from_slice(&part[..taken]);
            position += taken;
            left -= taken;
        }
        self.allocated_end = self.allocated_end.max(end);
        if end > self.len {
            self.change_len(at, end);
        }
    }

    pub(super) fn allocate(&mut self, at: u64, end: u64) {
        self.allocated_end = self.allocated_end.max(end);
        if end > self.len {
            self.change_len(at, end);
        }
    }

    pub(super) fn set_len(&mut self, at: u64, len: u64) {
        if len < self.data.len() as u64 {
            self.keep_versions(at, len, self.data.len() as u64);
            Arc::make_mut(&mut self.data).truncate(index(len));
        }
        self.allocated_end = self.allocated_end.min(len);
        if len != self.len {
            self.change_len(at, len);
        }
    }

    /// The device holds what memory holds, except for sectors lost by an earlier failed sync.
    pub(super) fn sync(&mut self) {
        self.pending.retain(|_, sector| !sector.dirty);
        self.lengths = vec![Length { at: 0, len: self.len, cut: false }];
    }

    /// The sync failed: the device holds what `choose` says of each sector, and all are clean.
    pub(super) fn sync_failed(&mut self, mut choose: impl FnMut(usize) -> usize) {
        self.pending.retain(|_, sector| {
            if sector.dirty {
                let chosen = choose(sector.old.len() + 1);
                if chosen >= sector.old.len() {
                    return false; // it reached the device
                }
                sector.old = vec![sector.old.swap_remove(chosen)];
                sector.dirty = false;
            }
            true
        });
    }

    /// Clean pages are read anew: lost sectors show what the device holds.
    pub(super) fn drop_cache(&mut self, range: Range<u64>) {
        if self.pending.values().all(|sector| sector.dirty) {
            return;
        }
        let data = Arc::make_mut(&mut self.data);
        let len = index(self.len);
        let sector_bytes = SECTOR_BYTES as u64;
        self.pending.retain(|number, sector| {
            let at = *number * sector_bytes;
            if at >= range.end || at + sector_bytes <= range.start {
                return true;
            }
            if !sector.dirty {
                put(data, *number, sector.old.first().and_then(|v| v.bytes.as_deref()), len);
            }
            sector.dirty
        });
    }

    /// Changes bytes in memory and on the device alike, as rot does.
    pub(super) fn flip(&mut self, byte: u64, mask: u8) {
        let data = Arc::make_mut(&mut self.data);
        if data.len() <= index(byte) {
            data.resize(index(byte) + 1, 0);
        }
        data[index(byte)] ^= mask;
    }

    /// What the device holds after a crash, as `choose(unit, versions)` decides: 0 is the durable
    /// version, the highest is the newest.
    pub(super) fn crash(
        &self,
        file: u32,
        choose: &mut dyn FnMut(Unit, usize) -> usize,
    ) -> FileImage {
        let length = match self.lengths.len() {
            1 => self.lengths[0],
            many => self.lengths[choose(Unit::Length { file }, many).min(many - 1)],
        };
        let len = index(length.len);
        let mut data = (*self.data).clone();
        data.truncate(len);
        let of = self.pending.len();
        for (rank, (number, sector)) in self.pending.iter().enumerate() {
            let unit = Unit::Sector { file, sector: *number, rank, of };
            self.crash_sector(*number, sector, length, &mut data, &mut |n| choose(unit, n));
        }
        let allocated_end = self.allocated_end.min(length.len).max(data.len() as u64);
        FileImage::durable(data, length.len, allocated_end)
    }

    fn crash_sector(
        &self,
        number: u64,
        sector: &Sector,
        length: Length,
        data: &mut Vec<u8>,
        choose: &mut dyn FnMut(usize) -> usize,
    ) {
        let start = number * SECTOR_BYTES as u64;
        let len = index(length.len);
        if !sector.dirty {
            let lost = sector.old.first().and_then(|v| v.bytes.as_deref());
            return put(data, number, lost, len);
        }
        // A cut is atomic: where it happened, what was there before it is gone; where it did not,
        // its zeros are not there either.
        let cuts = || self.lengths.iter().filter(|l| l.cut);
        let allowed = |at: u64| {
            cuts().all(|cut| {
                if cut.at <= length.at { start < cut.len || at >= cut.at } else { at != cut.at }
            })
        };
        let old = sector.old.iter().filter(|v| allowed(v.at)).collect::<Vec<_>>();
        let newest = allowed(sector.newest_at);
        let versions = old.len() + usize::from(newest);
        let chosen = if versions > 1 { choose(versions).min(versions - 1) } else { 0 };
        let Some(version) = old.get(chosen) else {
            // `data` was cut from what memory holds: the newest version is in it already.
            if !newest {
                put(data, number, None, len);
            }
            return;
        };
        put(data, number, version.bytes.as_deref(), len);
        for cut in cuts().filter(|c| c.at <= length.at && version.at < c.at) {
            let from = index(cut.len.max(start)).min(data.len());
            let to = index(start + SECTOR_BYTES as u64).min(data.len());
            if from < to {
                data[from..to].fill(0);
            }
        }
    }

    fn change_len(&mut self, at: u64, len: u64) {
        self.lengths.push(Length { at, len, cut: len < self.len });
        self.len = len;
    }

    /// Remembers what the sectors of `[from, to)` hold before they change at moment `at`.
    fn keep_versions(&mut self, at: u64, from: u64, to: u64) {
        let first = from / SECTOR_BYTES as u64;
        let last = (to - 1) / SECTOR_BYTES as u64;
        for number in first..=last {
            let bytes = self.sector(number);
            let sector = self.pending.entry(number).or_insert_with(|| Sector {
                old: Vec::with_capacity(1),
                newest_at: 0,
                dirty: true,
            });
            if sector.old.len() >= VERSIONS_MAX {
                sector.old.remove(1);
            }
            sector.old.push(Version { at: sector.newest_at, bytes });
            sector.newest_at = at;
            sector.dirty = true;
        }
    }

    fn sector(&self, number: u64) -> Option<Arc<SectorBytes>> {
        let start = index(number) * SECTOR_BYTES;
        let stored = self.data.get(start..).filter(|s| !s.is_empty())?;
        let taken = stored.len().min(SECTOR_BYTES);
        let mut bytes = [0; SECTOR_BYTES];
        bytes[..taken].copy_from_slice(&stored[..taken]);
        Some(Arc::new(bytes))
    }
}

/// Puts a sector's bytes (`None` is zeros) into `data`, none of them at or above `len`.
fn put(data: &mut Vec<u8>, number: u64, bytes: Option<&SectorBytes>, len: usize) {
    let start = index(number) * SECTOR_BYTES;
    let end = (start + SECTOR_BYTES).min(len);
    if start >= end {
        return;
    }
    if data.len() < end {
        if bytes.is_none() && data.len() <= start {
            return;
        }
        data.resize(end, 0);
    }
    match bytes {
        Some(bytes) => data[start..end].copy_from_slice(&bytes[..end - start]),
        None => data[start..end].fill(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(file: &FileImage) -> std::collections::BTreeSet<Vec<u8>> {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..4096_u64 {
            let mut digits = seed;
            let image = file.crash(1, &mut |_, versions| {
                let digit = index(digits % versions as u64);
                digits /= versions as u64;
                digit
            });
            seen.insert(image.contents());
        }
        seen
    }

    #[test]
    fn any_version_of_any_sector_may_survive() {
        let mut file = FileImage::new();
        file.write(1, &[&[1; 1024]], 0, 1024);
        file.sync();
        file.write(2, &[&[2; 1024]], 0, 1024);
        file.write(3, &[&[3; 512]], 512, 512);
        let seen = outcomes(&file);
        let of = |a: u8, b: u8| [[a; 512], [b; 512]].concat();
        let expected = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)];
        assert_eq!(seen, expected.into_iter().map(|(a, b)| of(a, b)).collect());
    }

    #[test]
    fn an_unsynced_length_may_be_lost_with_its_bytes() {
        let mut file = FileImage::new();
        file.write(1, &[b"abc"], 0, 3);
        let seen = outcomes(&file);
        assert_eq!(seen, [vec![], vec![0; 3], b"abc".to_vec()].into_iter().collect());
    }

    #[test]
    fn a_cut_happens_whole_or_not_at_all() {
        let mut file = FileImage::new();
        file.write(1, &[&[9; 1536]], 0, 1536);
        file.sync();
        file.set_len(2, 100);
        let seen = outcomes(&file);
        assert_eq!(seen, [vec![9; 1536], vec![9; 100]].into_iter().collect());
    }

    #[test]
    fn bytes_cut_off_never_come_back_behind_a_later_extension() {
        let mut file = FileImage::new();
        file.write(1, &[&[9; 600]], 0, 600);
        file.sync();
        file.set_len(2, 100);
        file.set_len(3, 600);
        for contents in outcomes(&file) {
            let whole = contents == vec![9; 600];
            assert!(whole || contents.iter().skip(100).all(|b| *b == 0));
        }
    }

    #[test]
    fn after_a_failed_sync_memory_and_device_may_differ_for_good() {
        let mut file = FileImage::new();
        file.write(1, &[&[1; 512]], 0, 512);
        file.sync();
        file.write(2, &[&[2; 512]], 0, 512);
        file.sync_failed(|_| 0);
        file.sync();
        assert_eq!(file.contents(), vec![2; 512]);
        assert_eq!(outcomes(&file), [vec![1; 512]].into_iter().collect());
        file.drop_cache(0..u64::MAX);
        assert_eq!(file.contents(), vec![1; 512]);
    }
}
