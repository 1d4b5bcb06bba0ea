//! Bytes to a durable partition log: the formats on disk, recovery, and the engine that runs them.
//! `storage-format.md` describes every byte; this room never opens a socket or knows a topic's name.

#[deny(clippy::indexing_slicing)]
pub mod epochs;
#[deny(clippy::indexing_slicing)]
mod fields;
#[deny(clippy::indexing_slicing)]
pub mod footer;
#[deny(clippy::indexing_slicing)]
pub mod identity;
#[deny(clippy::indexing_slicing)]
pub mod index;
#[deny(clippy::indexing_slicing)]
pub mod inspect;
pub mod layout;
#[deny(clippy::indexing_slicing)]
pub mod manifest;
#[deny(clippy::indexing_slicing)]
pub mod meta;
#[deny(clippy::indexing_slicing)]
pub mod producer_state;
#[deny(clippy::indexing_slicing)]
pub mod recovery;
#[deny(clippy::indexing_slicing)]
pub mod repair;
#[cfg(test)]
pub(crate) mod sample;
#[deny(clippy::indexing_slicing)]
pub mod slot;
pub mod small_file;
#[deny(clippy::indexing_slicing)]
pub mod snapshot;
pub mod tail;
#[deny(clippy::indexing_slicing)]
pub mod verify;

pub use epochs::{EpochStart, Epochs};
pub use fault::Fault;
pub use fields::FormatError;
pub use footer::{FOOTER_BYTES, Footer};
pub use identity::{FORMAT_VERSION, Features, IDENTITY_BYTES, Identity};
pub use index::{Index, IndexEntry};
pub use inspect::{
    IndexView, ManifestView, SegmentView, inspect_index, inspect_manifest, inspect_segment,
};
pub use layout::{DATA_START, FileName, PartitionPaths};
pub use manifest::{Gap, Manifest, Seal, SegmentEntry, SegmentState};
pub use meta::Meta;
pub use producer_state::{
    Producer, ProducerCheck, ProducerLimits, ProducerState, RecentBatch, Undo,
};
pub use recovery::{
    Access, Damage, Finding, Materialised, RecoverError, Recovered, RecoveredActive,
    RecoveredSealed, RecoveryContext, recover_partition,
};
pub use repair::{RepairAction, RepairMode, RepairOptions, RepairRow, RepairSummary, repair};
pub use slot::{OFFSET_LEASE, SLOT_BYTES, Slot, SlotPair, SlotPlace};
pub use small_file::{read_small_file, write_small_file};
pub use snapshot::{decode_snapshot, encode_snapshot};
pub use tail::{DataSum, SegmentTail, continue_crc};
pub use verify::{
    Verdict, VerifyDepth, VerifyError, VerifyOptions, VerifyRow, VerifySummary, verify,
};

mod admin;
mod append;
mod commit;
mod dir;
mod error;
mod fault;
mod handle_cache;
mod job;
mod log_dir;
mod options;
mod partition;
mod partition_log;
mod queue;
mod reader;
mod reserve;
mod retention;
mod segment;
mod state_lock;
mod writer;
mod writer_driver;

pub use admin::AdminTicket;
pub use append::{Append, AppendDone, Appended, RoundEnd};
pub use dir::SpaceReport;
pub use error::{AdminError, AppendError, OpenError, ReadError};
pub use job::{SyncDone, SyncJob};
pub use log_dir::{LogDir, ShutdownMode, Stepper};
pub use options::{Drive, PartitionOptions, StorageOptions};
pub use partition::{Offsets, Partition, SealedSegment};
pub use reader::{ReadPlan, ReadRequest};
pub use writer::{RoundReport, WriterCore};
