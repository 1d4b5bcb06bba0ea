//! Names and positions: where things are in a data directory and in a segment file.
//!
//! Topic *names* never reach the file system: directories carry the topic's UUID. All paths are
//! relative to the data directory, as `env::Disk` wants them.

use std::path::{Path, PathBuf};

use crate::types::{Offset, PartitionId, TopicId, TopicPartition};

/// Held locked while a broker uses the data directory.
pub const LOCK_FILE: &str = "LOCK";
/// Identity of the data directory.
pub const META_FILE: &str = "meta.properties";
/// Space kept back for metadata on a full disk.
pub const RESERVE_FILE: &str = "reserve.bin";
/// What is being deleted; emptied at every start.
pub const TRASH_DIR: &str = "trash";
/// Bytes that recovery cut off above a watermark.
pub const TORN_DIR: &str = "torn";
/// Files nothing explains, and originals that a repair replaced. Never emptied by the broker.
pub const QUARANTINE_DIR: &str = "quarantine";
/// One directory per topic UUID, one below it per partition number.
pub const TOPICS_DIR: &str = "topics";
/// What a partition's segments are, what is being created or deleted, where its log starts.
pub const MANIFEST_FILE: &str = "partition.manifest";
/// The manifest that a repair is about to install; it lives only while one runs.
pub const REPAIR_FILE: &str = "partition.manifest.repair";
/// Leader epoch to start offset; a cache.
pub const EPOCHS_FILE: &str = "epochs";
/// Extension of segments.
pub const LOG_EXTENSION: &str = "log";
/// Extension of indexes.
pub const INDEX_EXTENSION: &str = "idx";
/// Extension of producer snapshots.
pub const SNAPSHOT_EXTENSION: &str = "snap";
/// Added to the name of a segment that a repair has made and not yet installed.
pub const PART_SUFFIX: &str = ".part";
/// Added to the name of a small file while it is written.
pub const TMP_SUFFIX: &str = ".tmp";

/// Unit of the header region: one page, at least one sector of any device.
pub const BLOCK_BYTES: u64 = 4096;
/// Identity, two watermark slots, one reserved block.
pub const HEADER_BYTES: u64 = 4 * BLOCK_BYTES;
/// Position of the identity in a segment file.
pub const IDENTITY_POSITION: u64 = 0;
/// Position of watermark slot A in a segment file.
pub const SLOT_A_POSITION: u64 = BLOCK_BYTES;
/// Position of watermark slot B in a segment file.
pub const SLOT_B_POSITION: u64 = 2 * BLOCK_BYTES;
/// Position of the first record batch in a segment file.
pub const DATA_START: u64 = HEADER_BYTES;

/// Largest record batch in a segment: twice the largest `max_message_bytes`. Whatever claims to be
/// larger is damage.
pub const BATCH_BYTES_MAX: u64 = 16 << 20;

/// Where one partition's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPaths {
    id: TopicPartition,
    dir: PathBuf,
}

impl PartitionPaths {
    /// The paths of `id`.
    pub fn new(id: TopicPartition) -> PartitionPaths {
        let dir = topic_dir(id.topic).join(id.partition.to_string());
        PartitionPaths { id, dir }
    }

    /// Whose paths they are.
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// `topics/<uuid>/<partition>`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The segment that starts at `base`.
    pub fn log(&self, base: Offset) -> PathBuf {
        self.dir.join(offset_name(base, LOG_EXTENSION))
    }

    /// The segment at `base` as a repair has made it, before it is installed.
    pub fn part(&self, base: Offset) -> PathBuf {
        let name = offset_name(base, LOG_EXTENSION);
        self.dir.join(format!("{name}{PART_SUFFIX}"))
    }

    /// The manifest that a repair is about to install.
    pub fn repair_plan(&self) -> PathBuf {
        self.dir.join(REPAIR_FILE)
    }

    /// Its index.
    pub fn index(&self, base: Offset) -> PathBuf {
        self.dir.join(offset_name(base, INDEX_EXTENSION))
    }

    /// How far the segment at `base` was seen before its cached pages were dropped.
    pub fn seen(&self, base: Offset) -> PathBuf {
        self.dir.join(offset_name(base, "seen.tmp"))
    }

    /// The producer snapshot of everything below `offset`.
    pub fn snapshot(&self, offset: Offset) -> PathBuf {
        self.dir.join(offset_name(offset, SNAPSHOT_EXTENSION))
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.dir.join(MANIFEST_FILE)
    }

    /// The epoch cache.
    pub fn epochs(&self) -> PathBuf {
        self.dir.join(EPOCHS_FILE)
    }

    /// Where bytes cut from the segment at `base` from file position `position` on are kept.
    pub fn torn(&self, base: Offset, position: u64) -> PathBuf {
        Path::new(TORN_DIR).join(format!("{}-{}.bin", self.flat_name(base), position))
    }

    /// Where a file named `name` of this partition goes when it is set aside.
    pub fn quarantine(&self, name: &str) -> PathBuf {
        Path::new(QUARANTINE_DIR).join(self.flat(name))
    }

    /// Where a file named `name` of this partition goes before it is unlinked.
    pub fn trash(&self, name: &str) -> PathBuf {
        Path::new(TRASH_DIR).join(self.flat(name))
    }

    fn flat_name(&self, base: Offset) -> String {
        self.flat(&format!("{:020}", base.0))
    }

    fn flat(&self, name: &str) -> String {
        format!("{}-{}-{}", self.id.topic, self.id.partition, name)
    }
}

/// `topics/<uuid>`.
pub fn topic_dir(topic: TopicId) -> PathBuf {
    Path::new(TOPICS_DIR).join(topic.to_string())
}

/// What a file in a partition's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName {
    /// A segment.
    Log(Offset),
    /// An index.
    Index(Offset),
    /// A producer snapshot.
    Snapshot(Offset),
    /// The manifest.
    Manifest,
    /// The epoch cache.
    Epochs,
    /// A segment that a repair has made and not yet installed.
    Part(Offset),
    /// The manifest that a repair is about to install.
    RepairPlan,
    /// A small file whose rename never happened.
    Tmp,
    /// Nothing that Stoplog writes.
    Unknown,
}

impl FileName {
    /// Reads a name. Offsets are exactly 20 digits.
    pub fn parse(name: &str) -> FileName {
        if name.ends_with(TMP_SUFFIX) {
            return FileName::Tmp;
        }
        match name {
            MANIFEST_FILE => return FileName::Manifest,
            EPOCHS_FILE => return FileName::Epochs,
            REPAIR_FILE => return FileName::RepairPlan,
            _ => {}
        }
        if let Some(FileName::Log(base)) = name.strip_suffix(PART_SUFFIX).map(FileName::parse) {
            return FileName::Part(base);
        }
        let Some((digits, extension)) = name.split_once('.') else { return FileName::Unknown };
        if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return FileName::Unknown;
        }
        let Ok(offset) = digits.parse::<i64>().map(Offset) else { return FileName::Unknown };
        match extension {
            LOG_EXTENSION => FileName::Log(offset),
            INDEX_EXTENSION => FileName::Index(offset),
            SNAPSHOT_EXTENSION => FileName::Snapshot(offset),
            _ => FileName::Unknown,
        }
    }
}

/// The partition a path `topics/<uuid>/<n>` names, from its last two components.
pub fn parse_partition_dir(topic: &str, partition: &str) -> Option<TopicPartition> {
    let topic = TopicId(uuid::Uuid::parse_str(topic).ok()?);
    let number = partition.parse::<u32>().ok()?;
    (number.to_string() == partition)
        .then_some(TopicPartition { topic, partition: PartitionId(number) })
}

fn offset_name(offset: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", offset.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId(3) };
        let paths = PartitionPaths::new(id);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        for offset in [Offset(0), Offset(42), Offset(i64::MAX)] {
            assert_eq!(FileName::parse(&name(paths.log(offset))), FileName::Log(offset));
            assert_eq!(FileName::parse(&name(paths.index(offset))), FileName::Index(offset));
            assert_eq!(FileName::parse(&name(paths.snapshot(offset))), FileName::Snapshot(offset));
        }
        assert_eq!(FileName::parse("partition.manifest"), FileName::Manifest);
        assert_eq!(FileName::parse("epochs.tmp"), FileName::Tmp);
        assert_eq!(FileName::parse(&name(paths.part(Offset(5)))), FileName::Part(Offset(5)));
        assert_eq!(FileName::parse(&name(paths.repair_plan())), FileName::RepairPlan);
        assert_eq!(parse_partition_dir(&id.topic.to_string(), "3"), Some(id));
    }

    #[test]
    fn other_names_are_unknown() {
        for name in ["0.log", "00000000000000000001.logs", "+0000000000000000001.log", "x", ""] {
            assert_eq!(FileName::parse(name), FileName::Unknown, "{name}");
        }
        assert_eq!(FileName::parse("99999999999999999999.log"), FileName::Unknown);
        assert_eq!(parse_partition_dir("not-a-uuid", "3"), None);
        assert_eq!(parse_partition_dir("00000000-0000-0000-0000-000000000001", "03"), None);
    }

    #[test]
    fn the_header_region_is_four_blocks() {
        assert_eq!(DATA_START, 16 << 10);
        assert_eq!((SLOT_A_POSITION, SLOT_B_POSITION), (4096, 8192));
    }
}
