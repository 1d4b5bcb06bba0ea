//! Partitions written by hand for tests of recovery, verify and repair: what the writer would have
//! left, without the writer. Everything is durable at once; tests then damage it.

use bytes::Bytes;
use uuid::Uuid;

use crate::env::Disk;
use crate::env::sim::SimDisk;
use crate::record::{
    BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, ProducerStamp, RecordRef,
};
use crate::types::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicPartition,
};

use super::identity::{Features, Identity};
use super::index::Index;
use super::layout::{BLOCK_BYTES, DATA_START, PartitionPaths};
use super::manifest::Manifest;
use super::producer_state::ProducerLimits;
use super::recovery::{Access, Materialised, Recovered, RecoveryContext, recover_partition};
use super::slot::{Slot, SlotPlace};
use super::tail::SegmentTail;
use super::{Footer, Meta};

pub(crate) const CLUSTER: Uuid = Uuid::from_bytes([0xcc; 16]);
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A partition in the making.
pub(crate) struct Sample {
    pub disk: SimDisk,
    pub paths: PartitionPaths,
    pub manifest: Manifest,
}

/// A segment in the making: its file is `bytes`.
#[derive(Clone)]
pub(crate) struct SampleSegment {
    pub identity: Identity,
    pub slot: Slot,
    pub tail: SegmentTail,
    pub index: Index,
    pub bytes: Vec<u8>,
    /// Where each batch starts, and at the end where the last one stops.
    pub borders: Vec<(u64, Offset)>,
}

impl Sample {
    pub(crate) fn new() -> Sample {
        let disk = SimDisk::new(1);
        let topic = TopicId::from_bytes([7; 16]);
        let paths = PartitionPaths::new(TopicPartition { topic, partition: PartitionId(0) });
        for dir in [paths.dir(), "trash".as_ref(), "torn".as_ref(), "quarantine".as_ref()] {
            disk.create_dir_all(dir).expect("directory");
        }
        for parent in ["", "topics", &format!("topics/{topic}")] {
            disk.sync_dir(parent.as_ref()).expect("directory");
        }
        let manifest = Manifest::new(CLUSTER, paths.id());
        disk.write_file("meta.properties", &Meta::new(CLUSTER, NOW).encode());
        Sample { disk, paths, manifest }
    }

    /// An empty segment whose slot A was written at creation.
    pub(crate) fn segment(&self, base: i64, epoch: i32) -> SampleSegment {
        let base = Offset(base);
        let identity = Identity {
            cluster_id: CLUSTER,
            id: self.paths.id(),
            base_offset: base,
            created: NOW,
            leader_epoch: LeaderEpoch(epoch),
            features: Features::default(),
        };
        let slot = Slot {
            generation: 1,
            tag: identity.tag(),
            clean: false,
            tail: SegmentTail::empty(base),
            offset_lease: base + 1000,
            max_append_time: Timestamp::NONE,
            boot_id: self.disk.boot_id().expect("boot id"),
            leader_epoch: LeaderEpoch(epoch),
        };
        let mut bytes = vec![0; DATA_START as usize];
        put(&mut bytes, 0, &identity.encode());
        put(&mut bytes, BLOCK_BYTES, &slot.encode());
        let borders = vec![(DATA_START, base)];
        let (tail, index) = (slot.tail, Index::new(base));
        SampleSegment { identity, slot, tail, index, bytes, borders }
    }

    /// Adds a sealed segment to the partition.
    pub(crate) fn add_sealed(&mut self, mut segment: SampleSegment) {
        let base = segment.identity.base_offset;
        let footer = segment.seal();
        self.manifest.creating(base);
        self.manifest.seal(base, &footer);
        self.disk.write_file(self.paths.index(base), &segment.index.encode(footer.tag));
        self.put(&segment);
    }

    /// Adds a segment that was full at `tail`, and not sealed.
    pub(crate) fn add_sealing(&mut self, segment: &SampleSegment, tail: SegmentTail) {
        let base = segment.identity.base_offset;
        let footer = Footer { tag: segment.slot.tag, tail, max_append_time: Timestamp(5) };
        self.manifest.creating(base);
        self.manifest.sealing(base, (&footer).into());
        self.put(segment);
    }

    /// Adds the segment that takes appends, with its manifest.
    pub(crate) fn add_active(&mut self, segment: &SampleSegment) {
        self.manifest.creating(segment.identity.base_offset);
        self.manifest.activate(segment.identity.base_offset);
        self.put(segment);
    }

    pub(crate) fn put(&self, segment: &SampleSegment) {
        self.disk.write_file(self.paths.log(segment.identity.base_offset), &segment.bytes);
        self.write_manifest();
    }

    pub(crate) fn write_manifest(&self) {
        self.disk.write_file(self.paths.manifest(), &self.manifest.encode());
    }

    pub(crate) fn context(&self) -> RecoveryContext {
        RecoveryContext {
            cluster_id: CLUSTER,
            boot_id: self.disk.boot_id().expect("boot id"),
            now: NOW,
            materialised: Materialised::Yes,
            access: Access::ReadWrite,
            producers: ProducerLimits::default(),
        }
    }

    pub(crate) fn recover(&self) -> Recovered {
        recover_partition(&self.disk, &self.paths, &self.context()).expect("recovers")
    }

    /// Every file with its bytes.
    pub(crate) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let read = |path: &std::path::Path| self.disk.read_file(path).unwrap_or_default();
        let files = self.disk.files();
        files.iter().map(|(path, _)| (path.display().to_string(), read(path))).collect()
    }
}

impl SampleSegment {
    /// Appends batches of `records` records of `value_bytes` each.
    pub(crate) fn append(&mut self, batches: usize, records: usize, value_bytes: usize) {
        for _ in 0..batches {
            let offset = self.tail.next_offset;
            self.append_one(&batch(offset, records, value_bytes), offset);
        }
    }

    /// Appends one batch at `offset`.
    pub(crate) fn append_one(&mut self, batch: &CheckedBatch, offset: Offset) {
        let header = batch.stamped(offset, self.slot.leader_epoch, None);
        let head = batch.stamp(offset, self.slot.leader_epoch, None);
        if self.index.is_due(&self.tail) {
            self.index.push(&self.tail, offset);
        }
        put(&mut self.bytes, self.tail.position, &head);
        put(&mut self.bytes, self.tail.position + head.len() as u64, batch.payload());
        self.tail.push(&header, &head, batch.payload());
        self.borders.push((self.tail.position, self.tail.next_offset));
    }

    /// States in the other slot that everything so far is durable.
    pub(crate) fn sync(&mut self) {
        let (slot, tail) = (self.slot, self.tail);
        self.write_slot(Slot { generation: slot.generation + 1, tail, ..slot });
    }

    /// The same after a clean stop.
    pub(crate) fn close(&mut self) {
        let (slot, tail) = (self.slot, self.tail);
        let generation = slot.generation + 1;
        let offset_lease = tail.next_offset;
        self.write_slot(Slot { generation, tail, clean: true, offset_lease, ..slot });
    }

    pub(crate) fn write_slot(&mut self, slot: Slot) {
        put(&mut self.bytes, Self::place(&slot).position(), &slot.encode());
        self.slot = slot;
    }

    pub(crate) fn place(slot: &Slot) -> SlotPlace {
        if slot.generation % 2 == 1 { SlotPlace::A } else { SlotPlace::B }
    }

    /// Zeros, as preallocation leaves them.
    pub(crate) fn allocate(&mut self, bytes: usize) {
        let len = self.bytes.len() + bytes;
        self.bytes.resize(len, 0);
    }

    fn seal(&mut self) -> Footer {
        self.sync();
        let footer = Footer { tag: self.slot.tag, tail: self.tail, max_append_time: Timestamp(5) };
        put(&mut self.bytes, self.tail.position, &footer.encode());
        footer
    }

    /// Footer behind the data, as an interrupted sealing leaves it.
    pub(crate) fn put_footer(&mut self) {
        self.seal();
    }
}

/// A batch of `records` records that say which offset they should have.
pub(crate) fn batch(offset: Offset, records: usize, value_bytes: usize) -> CheckedBatch {
    build(offset, records, value_bytes, None)
}

/// The same by an idempotent producer.
pub(crate) fn producer_batch(offset: Offset, id: i64, base_sequence: i32) -> CheckedBatch {
    let producer = ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(0), base_sequence };
    build(offset, 2, 20, Some(producer))
}

fn build(
    offset: Offset,
    records: usize,
    value_bytes: usize,
    producer: Option<ProducerStamp>,
) -> CheckedBatch {
    let mut builder = BatchBuilder::new(BuilderOptions { producer, ..BuilderOptions::default() });
    for i in 0..records {
        let offset = offset.0 + i as i64;
        let mut value = format!("value of {offset} ").into_bytes();
        value.resize(value_bytes.max(1), b'.');
        let timestamp = Timestamp(NOW.0 + offset);
        let record = RecordRef { timestamp, value: Some(&value), ..RecordRef::default() };
        builder.push(&record).expect("room");
    }
    let bytes: Bytes = builder.build();
    CheckedBatch::check(bytes, &BatchLimits::client(1 << 20)).expect("a good batch")
}

fn put(file: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let (from, to) = (position as usize, position as usize + bytes.len());
    if file.len() < to {
        file.resize(to, 0);
    }
    file[from..to].copy_from_slice(bytes);
}
