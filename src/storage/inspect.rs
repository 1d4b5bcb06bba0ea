//! `stoplog inspect`: one file as data, for people and scripts. Reads only; damage is shown and not
//! judged (that is `verify`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::env::{Disk, File, OpenMode};
use crate::types::{LeaderEpoch, Offset, ProducerId, Timestamp, TopicId};

use super::footer::{FOOTER_BYTES, Footer};
use super::identity::{IDENTITY_BYTES, Identity};
use super::index::{INDEX_BYTES_MAX, Index};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, SegmentState};
use super::recovery::scan::{Invalid, Scan};
use super::recovery::sealed::{read_at, read_footer, read_slots};
use super::slot::Slot;
use super::small_file::read_small_file;
use super::tail::SegmentTail;

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentView {
    /// Length of the file.
    pub file_bytes: u64,
    /// Block 0, or what is wrong with it.
    pub identity: Result<IdentityView, String>,
    /// Blocks 1 and 2, or what is wrong with them; `None` = never written.
    pub slots: [Result<Option<SlotView>, String>; 2],
    /// The footer; `None` while the segment is not sealed.
    pub footer: Option<TailView>,
    /// Its batches, as far as they are valid and up to the asked number.
    pub batches: Vec<BatchRow>,
    /// Behind the batches: `end`, or why what stands there is no batch.
    pub stopped: String,
    /// Position behind the last batch shown.
    pub position: u64,
}

/// Block 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityView {
    /// Version that wrote it.
    pub format_version: u16,
    /// Data directory.
    pub cluster_id: Uuid,
    /// Topic.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// Base offset.
    pub base_offset: Offset,
    /// When it was made.
    pub created_ms: Timestamp,
    /// Leader epoch at its creation.
    pub leader_epoch: LeaderEpoch,
    /// Ties slots, footer and index to it.
    pub tag: String,
}

/// A watermark slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotView {
    /// The larger one counts.
    pub generation: u64,
    /// Whether the stop was clean.
    pub clean: bool,
    /// What is durable.
    pub tail: TailView,
    /// Offsets below it may have been handed out.
    pub offset_lease: Offset,
    /// Largest append time.
    pub max_append_time_ms: Timestamp,
    /// Boot of the operating system.
    pub boot_id: Uuid,
    /// The partition's leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// The state at the end of some data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TailView {
    /// Position behind it.
    pub position: u64,
    /// Offset behind it.
    pub next_offset: Offset,
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Smallest timestamp.
    pub min_timestamp_ms: Timestamp,
    /// Largest timestamp.
    pub max_timestamp_ms: Timestamp,
    /// CRC-32 of the data.
    pub data_crc: String,
    /// CRC-32 of the batch headers.
    pub chain_crc: String,
}

/// One batch, by its header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchRow {
    /// Position in the file.
    pub position: u64,
    /// Bytes.
    pub bytes: u64,
    /// First offset.
    pub base_offset: Offset,
    /// Last offset.
    pub last_offset: Offset,
    /// Records.
    pub records: i32,
    /// Attribute bits.
    pub attributes: i16,
    /// Leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// First timestamp.
    pub base_timestamp_ms: Timestamp,
    /// Largest timestamp.
    pub max_timestamp_ms: Timestamp,
    /// Producer, or -1.
    pub producer_id: ProducerId,
    /// First sequence number, or -1.
    pub base_sequence: i32,
    /// CRC-32C.
    pub crc: String,
}

/// An index file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexView {
    /// Its entries, up to the first block that does not read back.
    pub entries: Vec<IndexRow>,
    /// Whether there is such a block.
    pub damaged: bool,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexRow {
    /// Offset of the batch less the segment's base offset.
    pub rel_offset: u32,
    /// Its position.
    pub position: u32,
    /// Largest timestamp before it.
    pub max_timestamp_ms: Timestamp,
    /// CRC-32 of the headers before it.
    pub chain_crc: String,
    /// CRC-32 of the data before it.
    pub data_crc: String,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestView {
    /// Data directory.
    pub cluster_id: Uuid,
    /// Topic.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// How often it was written.
    pub generation: u64,
    /// First offset that may be read.
    pub log_start: Offset,
    /// No new segment starts below it.
    pub offset_floor: Offset,
    /// Leader epoch when it was written.
    pub leader_epoch: LeaderEpoch,
    /// Segments.
    pub segments: Vec<SegmentRow>,
    /// Accepted losses: first offset, offset behind the last, time.
    pub gaps: Vec<(Offset, Offset, Timestamp)>,
}

/// One segment of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentRow {
    /// Its base offset.
    pub base_offset: Offset,
    /// `creating`, `active`, `sealed` or `deleting`.
    pub state: &'static str,
    /// Offset behind its last record, once sealed.
    pub next_offset: Option<Offset>,
    /// Position behind its data, once sealed.
    pub data_end: Option<u64>,
}

/// Looks at a segment file; at most `batches_max` batches are listed.
///
/// # Errors
/// What the device says; `NotFound` when there is no such file.
pub fn inspect_segment(
    disk: &dyn Disk,
    path: &Path,
    batches_max: usize,
) -> io::Result<SegmentView> {
    let file = disk.open(path, OpenMode::Read)?;
    let file_bytes = file.len()?;
    let block = read_at(file.as_ref(), 0, IDENTITY_BYTES)?;
    let tag = block.last_chunk::<4>().map_or(0, |crc| u32::from_le_bytes(*crc));
    let identity = Identity::decode(&block);
    let pair = read_slots(file.as_ref(), tag)?;
    let footer_at = file_bytes.saturating_sub(FOOTER_BYTES as u64);
    let footer: Option<Footer> = read_footer(file.as_ref(), footer_at, tag)?.ok();
    let end = footer.as_ref().map_or(file_bytes, |footer| footer.tail.position);
    let base = identity.as_ref().map_or(Offset::ZERO, |identity| identity.base_offset);
    let epoch = identity.as_ref().map_or(LeaderEpoch(-1), |identity| identity.leader_epoch);
    let (batches, stopped, position) = list_batches(file, base, epoch, end, batches_max)?;
    let slot = |slot: Result<Option<Slot>, _>| match slot {
        Ok(slot) => Ok(slot.map(SlotView::from)),
        Err(e) => Err(super::FormatError::to_string(&e)),
    };
    Ok(SegmentView {
        file_bytes,
        identity: identity.map(|i| IdentityView::of(&i, tag)).map_err(|e| e.to_string()),
        slots: [slot(pair.a.map(Some)), slot(pair.b)],
        footer: footer.map(|footer| TailView::from(footer.tail)),
        batches,
        stopped,
        position,
    })
}

fn list_batches(
    file: Arc<dyn File>,
    base: Offset,
    epoch: LeaderEpoch,
    end: u64,
    batches_max: usize,
) -> io::Result<(Vec<BatchRow>, String, u64)> {
    let mut scan = Scan::new(file, SegmentTail::empty(base), end, epoch);
    let mut rows = Vec::new();
    while rows.len() < batches_max {
        let position = scan.tail.position;
        let header = match scan.step()? {
            Ok(header) => header,
            Err(why) => return Ok((rows, reason(why).to_owned(), position)),
        };
        rows.push(BatchRow {
            position,
            bytes: header.size_bytes() as u64,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            records: header.record_count,
            attributes: header.attributes.0,
            leader_epoch: header.leader_epoch,
            base_timestamp_ms: header.base_timestamp,
            max_timestamp_ms: header.max_timestamp,
            producer_id: header.producer_id,
            base_sequence: header.base_sequence,
            crc: hex(header.crc),
        });
    }
    Ok((rows, "more batches follow, or the end".to_owned(), scan.tail.position))
}

fn reason(why: Invalid) -> &'static str {
    match why {
        Invalid::End => "end",
        Invalid::Header => "no batch header",
        Invalid::Order => "a batch that is not the next one",
        Invalid::Epoch => "a batch of an older leader epoch",
        Invalid::Checksum => "a batch whose checksum does not match",
    }
}

/// Looks at an index file.
///
/// # Errors
/// What the device says; `NotFound` when there is no such file.
pub fn inspect_index(disk: &dyn Disk, path: &Path) -> io::Result<IndexView> {
    let bytes = read_small_file(disk, path, INDEX_BYTES_MAX)?.ok_or(io::ErrorKind::NotFound)?;
    let tag =
        bytes.get(4..8).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
    let (index, damaged) = Index::decode(&bytes, tag, Offset::ZERO, u64::MAX);
    let row = |e: &super::IndexEntry| IndexRow {
        rel_offset: e.rel_offset,
        position: e.position,
        max_timestamp_ms: e.max_timestamp,
        chain_crc: hex(e.chain_crc),
        data_crc: hex(e.data_crc),
    };
    Ok(IndexView { entries: index.entries().iter().map(row).collect(), damaged })
}

/// Looks at a manifest.
///
/// # Errors
/// `InvalidData` when it does not read back; else what the device says.
pub fn inspect_manifest(disk: &dyn Disk, path: &Path) -> io::Result<ManifestView> {
    let bytes = read_small_file(disk, path, MANIFEST_BYTES_MAX)?.ok_or(io::ErrorKind::NotFound)?;
    let manifest = Manifest::decode(&bytes)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
    let segment = |entry: &super::SegmentEntry| SegmentRow {
        base_offset: entry.base_offset,
        state: match entry.state {
            SegmentState::Creating => "creating",
            SegmentState::Active => "active",
            SegmentState::Sealing(_) => "sealing",
            SegmentState::Sealed(_) => "sealed",
            SegmentState::Deleting(_) => "deleting",
        },
        next_offset: entry.seal().map(|seal| seal.next_offset),
        data_end: entry.seal().map(|seal| seal.data_end),
    };
    Ok(ManifestView {
        cluster_id: manifest.cluster_id,
        topic_id: manifest.id.topic,
        partition: manifest.id.partition.0,
        generation: manifest.generation,
        log_start: manifest.log_start,
        offset_floor: manifest.offset_floor,
        leader_epoch: manifest.leader_epoch,
        segments: manifest.segments.iter().map(segment).collect(),
        gaps: manifest.gaps.iter().map(|gap| (gap.first, gap.next, gap.at)).collect(),
    })
}

impl IdentityView {
    fn of(identity: &Identity, tag: u32) -> IdentityView {
        IdentityView {
            format_version: identity.features.format_version,
            cluster_id: identity.cluster_id,
            topic_id: identity.id.topic,
            partition: identity.id.partition.0,
            base_offset: identity.base_offset,
            created_ms: identity.created,
            leader_epoch: identity.leader_epoch,
            tag: hex(tag),
        }
    }
}

impl From<Slot> for SlotView {
    fn from(slot: Slot) -> SlotView {
        SlotView {
            generation: slot.generation,
            clean: slot.clean,
            tail: TailView::from(slot.tail),
            offset_lease: slot.offset_lease,
            max_append_time_ms: slot.max_append_time,
            boot_id: Uuid::from_bytes(slot.boot_id),
            leader_epoch: slot.leader_epoch,
        }
    }
}

impl From<SegmentTail> for TailView {
    fn from(tail: SegmentTail) -> TailView {
        TailView {
            position: tail.position,
            next_offset: tail.next_offset,
            batches: tail.batches,
            records: tail.records,
            min_timestamp_ms: tail.min_timestamp,
            max_timestamp_ms: tail.max_timestamp,
            data_crc: hex(tail.data_crc),
            chain_crc: hex(tail.chain_crc),
        }
    }
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sample::Sample;

    #[test]
    fn a_segment_an_index_and_a_manifest_are_shown() {
        let mut sample = Sample::new();
        let mut segment = sample.segment(0, 0);
        segment.append(12, 3, 500);
        sample.add_sealed(segment.clone());
        let path = sample.paths.log(Offset(0));
        let view = inspect_segment(&sample.disk, &path, 100).expect("readable");
        assert_eq!((view.batches.len(), view.stopped.as_str()), (12, "end"));
        assert_eq!(view.footer.map(|tail| tail.next_offset), Some(Offset(36)));
        assert_eq!(view.identity.map(|i| i.base_offset), Ok(Offset(0)));
        assert!(view.slots.iter().all(|slot| matches!(slot, Ok(Some(_)))));
        let few = inspect_segment(&sample.disk, &path, 5).expect("readable");
        assert_eq!(few.batches.len(), 5);
        let index = inspect_index(&sample.disk, &sample.paths.index(Offset(0))).expect("readable");
        assert_eq!(index.entries.len(), segment.index.entries().len());
        let manifest = inspect_manifest(&sample.disk, &sample.paths.manifest()).expect("readable");
        assert_eq!(manifest.segments.iter().map(|s| s.state).collect::<Vec<_>>(), ["sealed"]);
    }

    #[test]
    fn damage_is_shown_and_not_judged() {
        let mut sample = Sample::new();
        let mut segment = sample.segment(0, 0);
        segment.append(3, 3, 500);
        segment.bytes[30] ^= 1;
        let at = segment.borders[2].0 as usize + 70;
        segment.bytes[at] ^= 1;
        sample.add_active(&segment);
        let view =
            inspect_segment(&sample.disk, &sample.paths.log(Offset(0)), 9).expect("readable");
        assert!(view.identity.is_err());
        assert_eq!(view.stopped, "a batch whose checksum does not match");
        assert_eq!(view.batches.len(), 2);
    }
}
