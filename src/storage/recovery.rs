//! From the files of a partition, as a crash or a clean stop left them, to a state that can be
//! served: which bytes count, which offset is next, which producers are known.
//!
//! # Promises
//! - Bytes that an `fdatasync` covered, as the watermark slots state it, are never cut: damage there
//!   fences the partition (no appends; what is valid stays readable) and is reported.
//! - Bytes above the watermark are cut only after they were copied to `torn/`; it is reported.
//! - Offsets that may have been handed out are not handed out again.
//! - Nothing is visible before all of that is durable. Recovering twice writes nothing the second
//!   time: `recover(recover(x)) = recover(x)`, byte for byte.
//! - Nothing that no durable intent explains is deleted: it goes to `quarantine/` and is reported.
//!
//! `table.rs` decides, `scan.rs` reads batches, `examine.rs` finds out; `finish.rs` has the order of
//! writes, of which `intents.rs`, `open.rs`, `sealing.rs` and `caches.rs` carry out one part each.
//! Deliberately absent: threads, the clock, knowledge of other partitions.

mod caches;
pub(crate) mod examine;
pub(crate) mod files;
mod finish;
mod intents;
mod open;
mod replay;
pub(crate) mod scan;
pub(crate) mod sealed;
pub(crate) mod sealing;
mod seen;
mod table;
pub(crate) mod unnamed;

use std::io;

use thiserror::Error;
use uuid::Uuid;

use crate::env::Disk;
use crate::types::{LeaderEpoch, Offset, PartitionHealth, Timestamp};

use super::epochs::Epochs;
use super::fault::Fault;
use super::fields::FormatError;
use super::footer::Footer;
use super::identity::Identity;
use super::index::Index;
use super::layout::PartitionPaths;
use super::manifest::Manifest;
use super::producer_state::{ProducerLimits, ProducerState};
use super::slot::{Slot, SlotPlace};
use super::tail::SegmentTail;

pub use sealed::rebuild_index;

/// What recovery has to know from outside.
#[derive(Clone, Debug)]
pub struct RecoveryContext {
    /// Of the data directory.
    pub cluster_id: Uuid,
    /// Boot of the operating system now.
    pub boot_id: [u8; 16],
    /// Wall time now: when replayed producers count as last seen.
    pub now: Timestamp,
    /// What the catalog durably knows.
    pub materialised: Materialised,
    /// Whether it may write.
    pub access: Access,
    /// Bounds of the producer state.
    pub producers: ProducerLimits,
}

/// Whether the partition is known to have files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Materialised {
    /// Not known: a missing directory means that nothing was ever appended.
    #[default]
    Unknown,
    /// Durably known: a missing directory is damage.
    Yes,
}

/// Whether recovery may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It does what the table says.
    ReadWrite,
    /// It cuts and writes nothing; a partition that would need it is opened read-only. For a disk
    /// without space even after the reserve was released, and for looking.
    ReadOnly,
}

/// Why a partition was not recovered.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// No space to finish. Nothing was cut that was not kept in `torn/`. Release the reserve and try
    /// again, then with [`Access::ReadOnly`].
    #[error("no space to finish recovery: {0}")]
    NoSpace(io::Error),
    /// An `fdatasync` failed: the data directory is to be latched.
    #[error("sync failed during recovery: {0}")]
    Sync(io::Error),
    /// A newer version wrote the files.
    #[error(transparent)]
    Newer(FormatError),
    /// The device failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A partition that can be served.
#[derive(Debug)]
pub struct Recovered {
    /// As it is on disk now.
    pub manifest: Manifest,
    /// Sealed segments by base offset.
    pub sealed: Vec<RecoveredSealed>,
    /// The segment that takes appends; without one the next append makes one.
    pub active: Option<RecoveredActive>,
    /// First offset that may be read.
    pub log_start: Offset,
    /// Offset behind the last record there is: the log end.
    pub log_end: Offset,
    /// Offset of the next record to append; more than `log_end` where offsets were skipped.
    pub next_offset: Offset,
    /// Epoch of the next record. When it is above `active.tail.last_epoch` of an active segment that
    /// holds records, the next append rolls.
    pub leader_epoch: LeaderEpoch,
    /// All epochs, the current one included.
    pub epochs: Epochs,
    /// State made by all records there are.
    pub producers: ProducerState,
    /// Offsets of the valid producer snapshots on disk, ascending.
    pub snapshots: Vec<Offset>,
    /// Whether it takes writes.
    pub health: PartitionHealth,
    /// What was found and done, in order.
    pub findings: Vec<Finding>,
}

/// A sealed segment.
#[derive(Clone, Debug)]
pub struct RecoveredSealed {
    /// Its base offset.
    pub base_offset: Offset,
    /// When it was made.
    pub created: Timestamp,
    /// Its footer (made from its data when the stored one is damaged).
    pub footer: Footer,
    /// Length of its file.
    pub file_bytes: u64,
    /// Set where the index on disk must not be used: the segment is damaged, and these entries are
    /// the borders of what is valid.
    pub index: Option<Index>,
}

/// The segment that takes appends.
#[derive(Clone, Debug)]
pub struct RecoveredActive {
    /// Its block 0.
    pub identity: Identity,
    /// Its tag.
    pub tag: u32,
    /// The slot that was synced last.
    pub slot: Slot,
    /// Where that slot is.
    pub place: SlotPlace,
    /// Where its data ends.
    pub tail: SegmentTail,
    /// Its index, complete to the tail.
    pub index: Index,
    /// Length of its file: what is allocated.
    pub file_bytes: u64,
}

/// A range of offsets whose bytes are damaged or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Position in its file where it starts.
    pub position: u64,
    /// First offset that cannot be read.
    pub first_bad: Offset,
    /// First offset behind it that can.
    pub next_good: Option<Offset>,
    /// What is wrong.
    pub cause: String,
}

/// Something that recovery found or did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// Which row of the table fitted the active segment.
    #[error("segment {segment}: {row}")]
    Row {
        /// Its base offset.
        segment: Offset,
        /// Name of the row.
        row: &'static str,
    },
    /// Bytes above the watermark that are not a whole batch were cut and kept.
    #[error(
        "segment {segment}: {bytes} torn bytes at position {position} were cut, kept in {kept}"
    )]
    TornCut {
        /// Its base offset.
        segment: Offset,
        /// Where they started.
        position: u64,
        /// How many there were.
        bytes: u64,
        /// Where they are now.
        kept: String,
    },
    /// Offsets that may have been handed out before a power cut are skipped.
    #[error("offsets {from} to {to} are skipped: they may have been handed out before")]
    OffsetsSkipped {
        /// First offset that is skipped.
        from: Offset,
        /// The next offset that is used.
        to: Offset,
    },
    /// One watermark slot does not read back.
    #[error("segment {segment}: a watermark slot is damaged")]
    SlotDamaged {
        /// Its base offset.
        segment: Offset,
    },
    /// Header or footer of a sealed segment is damaged; its data is whole.
    #[error("segment {segment}: {what}; its data is whole")]
    DescriptionDamaged {
        /// Its base offset.
        segment: Offset,
        /// What is damaged.
        what: String,
    },
    /// Stored records are damaged.
    #[error("segment {}: damaged from offset {} on: {}", .0.segment, .0.first_bad, .0.cause)]
    Damaged(Damage),
    /// The manifest is damaged: what it says is taken from the segments.
    #[error("the manifest is damaged: {0}")]
    ManifestDamaged(String),
    /// A known partition has no files.
    #[error("the files of the partition are missing")]
    FilesMissing,
    /// A sealing that a crash interrupted was completed.
    #[error("segment {segment}: sealing was completed")]
    SealCompleted {
        /// Its base offset.
        segment: Offset,
    },
    /// A segment that was about to be made was not, and holds nothing.
    #[error("segment {segment}: its creation was taken back")]
    CreationTakenBack {
        /// Its base offset.
        segment: Offset,
    },
    /// A deletion that a crash interrupted was completed.
    #[error("segment {segment}: its deletion was completed")]
    DeletionCompleted {
        /// Its base offset.
        segment: Offset,
    },
    /// A file that nothing explains was set aside.
    #[error("{name} is not explained by anything and was moved to {to}")]
    Quarantined {
        /// Its name.
        name: String,
        /// Where it is now.
        to: String,
    },
    /// A cache was missing or bad and was made again.
    #[error("{name} was made again")]
    CacheRebuilt {
        /// Its name.
        name: String,
    },
    /// It would have to be written, and may not be.
    #[error("opened read-only: {cause}")]
    ReadOnly {
        /// Why.
        cause: String,
    },
}

impl Finding {
    /// Whether an operator has to look: damage, losses, things set aside.
    pub fn is_alarming(&self) -> bool {
        match self {
            Finding::SlotDamaged { .. }
            | Finding::DescriptionDamaged { .. }
            | Finding::Damaged(_)
            | Finding::ManifestDamaged(_)
            | Finding::FilesMissing
            | Finding::Quarantined { .. }
            | Finding::TornCut { .. }
            | Finding::ReadOnly { .. } => true,
            Finding::Row { .. }
            | Finding::OffsetsSkipped { .. }
            | Finding::SealCompleted { .. }
            | Finding::CreationTakenBack { .. }
            | Finding::DeletionCompleted { .. }
            | Finding::CacheRebuilt { .. } => false,
        }
    }
}

/// Recovers one partition. When it returns `Ok`, everything it says is durable (with
/// [`Access::ReadOnly`]: it wrote nothing).
///
/// # Errors
/// See [`RecoverError`]. Damage is not an error but a fenced partition.
pub fn recover_partition(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    context: &RecoveryContext,
) -> Result<Recovered, RecoverError> {
    finish::Recovery::new(disk, paths, context).run()
}

impl From<Fault> for RecoverError {
    fn from(fault: Fault) -> RecoverError {
        match fault {
            Fault::NoSpace(error) => RecoverError::NoSpace(error),
            Fault::Write(error) => RecoverError::Io(error),
            Fault::Sync(error) => RecoverError::Sync(error),
        }
    }
}

#[cfg(test)]
mod tests;
