//! Sealed segments: trusted by their footer when it and the manifest say the same, else read whole.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::env::{Disk, File, OpenMode, read_full_at};
use crate::storage::fields::FormatError;
use crate::storage::footer::{FOOTER_BYTES, Footer};
use crate::storage::identity::{IDENTITY_BYTES, Identity};
use crate::storage::index::Index;
use crate::storage::layout::{DATA_START, IDENTITY_POSITION, PartitionPaths};
use crate::storage::manifest::{Manifest, Seal, SegmentEntry, SegmentState};
use crate::storage::slot::{SLOT_BYTES, SlotPair, SlotPlace};
use crate::storage::tail::{DataSum, SegmentTail, continue_crc};
use crate::storage::verify::seal_of;
use crate::types::{LeaderEpoch, Offset};

use super::scan::{HeaderWalk, Scan, find_batch, no_batch, scan_to_end};
use super::{Damage, Finding, RecoveredSealed, RecoveryContext};

/// What was found in place of a sealed segment.
pub(super) struct Sealed {
    /// `None` when nothing of it can be read.
    pub segment: Option<RecoveredSealed>,
    pub findings: Vec<Finding>,
    pub damage: Option<Damage>,
}

/// Looks at the sealed segment at `base`. `follower` = base of the segment behind it.
pub(super) fn examine_sealed(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    context: &RecoveryContext,
    base: Offset,
    seal: Seal,
    follower: Option<Offset>,
) -> io::Result<Sealed> {
    let file = match disk.open(&paths.log(base), OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let damage = Damage {
                segment: base,
                position: 0,
                first_bad: base,
                next_good: follower,
                cause: "the file is missing".to_owned(),
            };
            return Ok(Sealed { segment: None, findings: Vec::new(), damage: Some(damage) });
        }
        Err(e) => return Err(e),
    };
    let identity = read_identity(file.as_ref(), paths, context.cluster_id, base)?;
    let file_bytes = file.len()?;
    let footer = read_footer(file.as_ref(), seal.data_end, identity.tag)?;
    let whole = file_bytes == seal.data_end + FOOTER_BYTES as u64;
    let what = match (&identity.identity, &footer) {
        (Ok(_), Ok(footer)) if whole && Seal::from(footer) == seal => {
            let segment = sealed(&identity, *footer, base, file_bytes, context);
            return Ok(Sealed { segment: Some(segment), findings: Vec::new(), damage: None });
        }
        (Err(e), _) | (_, Err(e)) => e.to_string(),
        (Ok(_), Ok(_)) => format!("{file_bytes} bytes long, or the footer is not the manifest's"),
    };
    let scanned = Scanned { file, identity, base, seal, file_bytes, what };
    examine_by_reading(scanned, context, follower)
}

struct Scanned {
    file: Arc<dyn File>,
    identity: FoundIdentity,
    base: Offset,
    seal: Seal,
    file_bytes: u64,
    what: String,
}

/// The footer or the header does not fit: only the data can tell.
fn examine_by_reading(
    it: Scanned,
    context: &RecoveryContext,
    follower: Option<Offset>,
) -> io::Result<Sealed> {
    let end = it.file_bytes.min(it.seal.data_end);
    let mut index = Index::new(it.base);
    let start = SegmentTail::summed(it.base, it.identity.data_sum());
    let mut scan = Scan::new(Arc::clone(&it.file), start, end, it.identity.created_epoch());
    scan_to_end(&mut scan, &mut index, |_, _| {})?;
    let tail = scan.tail;
    let slots = read_slots(it.file.as_ref(), it.identity.tag)?;
    let append_time = slots.newest().map_or(tail.max_timestamp, |(_, slot)| slot.max_append_time);
    if seal_of(&tail) == it.seal {
        let footer = Footer { tag: it.identity.tag, tail, max_append_time: append_time };
        let segment = sealed(&it.identity, footer, it.base, it.file_bytes, context);
        let finding = Finding::DescriptionDamaged { segment: it.base, what: it.what };
        return Ok(Sealed { segment: Some(segment), findings: vec![finding], damage: None });
    }
    let mut damage = Damage {
        segment: it.base,
        position: tail.position,
        first_bad: tail.next_offset,
        next_good: follower,
        cause: format!("{}; not all of its data is valid", it.what),
    };
    if it.identity.identity.is_err() {
        // Not what was sealed, and nothing says whose it is: none of it is shown.
        damage = Damage { position: 0, first_bad: it.base, ..damage };
        return Ok(Sealed { segment: None, findings: Vec::new(), damage: Some(damage) });
    }
    if tail.position == it.seal.data_end {
        // Every batch is valid, but they are not the ones that were sealed.
        damage.position = DATA_START;
        damage.first_bad = it.base;
    } else if let Some((at, header)) =
        find_batch(&it.file, tail.position + 1, end, tail.next_offset + 1)?
    {
        damage.next_good = Some(header.base_offset);
        resume_behind_damage(&it, at, header.base_offset, tail, &mut index, end)?;
    }
    let mut shown = tail;
    shown.position = end.max(DATA_START);
    shown.next_offset = it.seal.next_offset;
    let footer = Footer { tag: it.identity.tag, tail: shown, max_append_time: append_time };
    let mut segment = sealed(&it.identity, footer, it.base, it.file_bytes, context);
    segment.index = Some(index);
    Ok(Sealed { segment: Some(segment), findings: Vec::new(), damage: Some(damage) })
}

fn resume_behind_damage(
    it: &Scanned,
    at: u64,
    offset: Offset,
    before: SegmentTail,
    index: &mut Index,
    end: u64,
) -> io::Result<()> {
    let tail = tail_behind_damage(at, offset, &before);
    index.push(&tail, offset);
    let mut scan = Scan::new(Arc::clone(&it.file), tail, end, LeaderEpoch(-1));
    scan_to_end(&mut scan, index, |_, _| {}).map(|_| ())
}

/// A tail from which a scan goes on behind damage: what came before is not known any more.
pub(crate) fn tail_behind_damage(at: u64, offset: Offset, before: &SegmentTail) -> SegmentTail {
    SegmentTail {
        position: at,
        next_offset: offset,
        batches: before.batches.max(1),
        last_epoch: LeaderEpoch(-1),
        ..*before
    }
}

fn sealed(
    identity: &FoundIdentity,
    footer: Footer,
    base_offset: Offset,
    file_bytes: u64,
    context: &RecoveryContext,
) -> RecoveredSealed {
    let created = identity.identity.as_ref().map_or(context.now, |identity| identity.created);
    RecoveredSealed { base_offset, created, footer, file_bytes, index: None }
}

/// What the segments say of themselves, where the manifest does not. Good enough to read by.
pub(crate) fn guess_manifest(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    cluster_id: Uuid,
    logs: &[Offset],
) -> io::Result<Manifest> {
    let mut manifest = Manifest::new(cluster_id, paths.id());
    for (number, base) in logs.iter().enumerate() {
        let file = disk.open(&paths.log(*base), OpenMode::Read)?;
        let identity = read_identity(file.as_ref(), paths, cluster_id, *base)?;
        let end = file.len()?.saturating_sub(FOOTER_BYTES as u64);
        let footer = read_footer(file.as_ref(), end, identity.tag)?;
        let is_last = number + 1 == logs.len();
        let state = match footer {
            Ok(footer) => SegmentState::Sealed((&footer).into()),
            Err(_) if is_last => SegmentState::Active,
            Err(_) => match full_to(&file, &identity, *base)? {
                Some(seal) => SegmentState::Sealing(seal),
                None => continue,
            },
        };
        let follows = manifest.segments.last().and_then(|last| last.seal());
        if follows.is_none_or(|seal| seal.next_offset <= *base) {
            manifest.segments.push(SegmentEntry { base_offset: *base, state });
        }
    }
    manifest.log_start = manifest.segments.first().map_or(Offset::ZERO, |e| e.base_offset);
    Ok(manifest)
}

/// What a segment without a footer held when it was full, as far as it can be told: its valid data,
/// or what its watermark says. `None` when that is nothing.
fn full_to(
    file: &Arc<dyn File>,
    identity: &FoundIdentity,
    base: Offset,
) -> io::Result<Option<Seal>> {
    let mut index = Index::new(base);
    let (start, end) = (SegmentTail::summed(base, identity.data_sum()), file.len()?);
    let mut scan = Scan::new(Arc::clone(file), start, end, identity.created_epoch());
    scan_to_end(&mut scan, &mut index, |_, _| {})?;
    let watermark = read_slots(file.as_ref(), identity.tag)?.newest().map(|(_, slot)| slot.tail);
    let tail = watermark.filter(|tail| tail.position > scan.tail.position).unwrap_or(scan.tail);
    Ok((!tail.is_empty()).then(|| seal_of(&tail)))
}

/// Block 0 as it was found.
pub(crate) struct FoundIdentity {
    pub identity: Result<Identity, FormatError>,
    /// The stored checksum, damaged or not.
    pub tag: u32,
}

impl FoundIdentity {
    /// How its data is summed up. Where it is damaged, as new ones are.
    pub(crate) fn data_sum(&self) -> DataSum {
        self.identity.as_ref().map_or(DataSum::default(), |identity| identity.features.data_sum())
    }

    /// Where it is damaged no offset gap is believed.
    pub(crate) fn created_epoch(&self) -> LeaderEpoch {
        self.identity.as_ref().map_or(LeaderEpoch(i32::MAX), |identity| identity.leader_epoch)
    }
}

pub(crate) fn read_identity(
    file: &dyn File,
    paths: &PartitionPaths,
    cluster_id: Uuid,
    base: Offset,
) -> io::Result<FoundIdentity> {
    let bytes = read_at(file, IDENTITY_POSITION, IDENTITY_BYTES)?;
    let tag = bytes.last_chunk::<4>().map_or(0, |crc| u32::from_le_bytes(*crc));
    let identity = Identity::decode(&bytes).and_then(|identity| {
        identity.expect(cluster_id, paths.id(), base)?;
        Ok(identity)
    });
    Ok(FoundIdentity { identity, tag })
}

pub(crate) fn read_slots(file: &dyn File, tag: u32) -> io::Result<SlotPair> {
    let a = read_at(file, SlotPlace::A.position(), SLOT_BYTES)?;
    let b = read_at(file, SlotPlace::B.position(), SLOT_BYTES)?;
    Ok(SlotPair::decode(&a, &b, tag))
}

pub(crate) fn read_footer(
    file: &dyn File,
    position: u64,
    tag: u32,
) -> io::Result<Result<Footer, FormatError>> {
    let bytes = read_at(file, position, FOOTER_BYTES)?;
    let decoded = Footer::decode(&bytes, tag);
    Ok(decoded.and_then(|footer| match footer.tail.position == position {
        true => Ok(footer),
        false => Err(FormatError::Foreign { structure: "segment footer", field: "position" }),
    }))
}

/// Up to `len` bytes at `position`; fewer at the end of the file.
pub(crate) fn read_at(file: &dyn File, position: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = read_full_at(file, &mut bytes, position)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The index of a sealed segment from its batch headers, without reading the records.
///
/// # Errors
/// `InvalidData` when the headers do not lead to the footer's end; else what the device said.
pub fn rebuild_index(
    file: Arc<dyn File>,
    base_offset: Offset,
    footer: &Footer,
) -> io::Result<Index> {
    let end = footer.tail.position;
    let mut walk = HeaderWalk::new(file, DATA_START, end);
    let mut index = Index::new(base_offset);
    let mut tail = SegmentTail::empty(base_offset);
    while let Some((position, header, head)) = walk.step()? {
        tail.position = position;
        if header.base_offset < tail.next_offset {
            return Err(no_batch(position));
        }
        if index.is_due(&tail) {
            index.push(&tail, header.base_offset);
        }
        tail.next_offset = header.next_offset();
        tail.max_timestamp =
            tail.max_timestamp.max(header.max_timestamp.max(header.base_timestamp));
        tail.chain_crc = continue_crc(tail.chain_crc, &head);
    }
    match tail.chain_crc == footer.tail.chain_crc && tail.next_offset == footer.tail.next_offset {
        true => Ok(index),
        false => Err(no_batch(end)),
    }
}
