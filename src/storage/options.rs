//! What storage is told: one struct for the data directory, one for a partition. Every bound of the
//! engine is a field here, with its reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::slot::OFFSET_LEASE;
use crate::types::{Durability, OnFull, TimestampType, TopicConfig};

/// Settings of a data directory. Components (disk, clock, randomness) come with `env::Env`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageOptions {
    /// Who runs the writers.
    pub drive: Drive,
    /// Log writers; a partition belongs to one of them for ever. 0 = half of the cores, 1
    /// to 4: appending is a copy into the page cache, which four cores saturate; the other half
    /// receives. On two cores a second writer cost a sixth more processor time a batch.
    pub writers: u32,
    /// Most threads that run `fdatasync` and other slow file operations; started as needed. 64
    /// dirty partitions took 15 ms one after another and 4.4 ms with 8 threads.
    pub sync_threads_max: u32,
    /// Bytes of batches waiting for one writer; more are given back to the caller. The first
    /// point where a slow disk pushes back.
    pub queue_bytes_max: usize,
    /// Batches waiting for one writer: bounds what many tiny ones cost beside their bytes.
    pub queue_batches_max: usize,
    /// Bytes a writer takes from its queue at once: what a first sync waits for.
    pub round_bytes_max: usize,
    /// Segments of a partition that may be full and not sealed yet; at so many the next roll waits
    /// for the oldest. Bounds what a power cut can take from a topic that is not synced by its acks,
    /// what recovery reads, and open files: 8 are 1 GiB at the default size.
    pub sealing_segments_max: usize,
    /// How long a full segment of a topic that is not synced by its acks waits for its sync, when
    /// nobody asks for it and fewer than half of `sealing_segments_max` are full: a sync beside
    /// appends holds them up. Bounds in time what a power cut can take, as that bounds it in bytes.
    pub seal_delay_max: Duration,
    /// Bytes of one write call.
    pub write_bytes_max: usize,
    /// Open files that are kept for reading, beside one per partition with unsynced writes.
    pub files_max: usize,
    /// Segments that stay mapped; the kernel allows 65,530 maps per process by default.
    pub maps_max: usize,
    /// Largest step in which the active segment is allocated ahead.
    pub allocate_step_max: u64,
    /// Offsets promised per lease, at most `OFFSET_LEASE`: what a power cut may skip, and how rarely
    /// a slot must move when nothing else moves it.
    pub lease_records: i64,
    /// A durable end that no later commit wrote into a slot is written after this much quiet.
    pub slot_flush: Duration,
    /// The index of the active segment is written on, and the producers' state with it, each time so
    /// much was committed: what an unclean start has to read again, at most.
    pub index_flush_bytes: u64,
    /// A partition quiet for this long gets a clean slot, so that the next start scans nothing.
    pub checkpoint_idle: Duration,
    /// How often retention is looked at.
    pub housekeeping: Duration,
    /// Largest reserve file; by the capacity it is 1 %, at most 64 MiB, below 20 GiB, else 0.5 %, at
    /// most 1 GiB: what internal logs, manifests and the removal of data need on a full disk.
    pub reserve_bytes_max: u64,
    /// A record dated further ahead of its append than this counts as appended then, so that a
    /// wrong clock cannot pin data for ever.
    pub timestamp_skew_max: Duration,
    /// Producers remembered per partition (1 KiB each).
    pub producers_max: usize,
    /// A producer silent for longer is forgotten.
    pub producer_expiry: Duration,
    /// Bytes a mapped read brings into memory ahead of a tailing reader in one step.
    pub read_ahead_bytes: u64,
}

/// Who runs the writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drive {
    /// Threads of their own.
    #[default]
    Threads,
    /// Nobody: the owner steps them with `LogDir::stepper`. For the simulator.
    Stepped,
}

impl Default for StorageOptions {
    fn default() -> StorageOptions {
        StorageOptions {
            drive: Drive::Threads,
            writers: 0,
            sync_threads_max: 8,
            queue_bytes_max: 32 << 20,
            queue_batches_max: 1 << 16,
            round_bytes_max: 4 << 20,
            sealing_segments_max: 8,
            seal_delay_max: Duration::from_secs(5),
            write_bytes_max: 4 << 20,
            files_max: 512,
            maps_max: 4096,
            allocate_step_max: 32 << 20,
            lease_records: OFFSET_LEASE,
            slot_flush: Duration::from_secs(1),
            index_flush_bytes: 64 << 20,
            checkpoint_idle: Duration::from_secs(30),
            housekeeping: Duration::from_secs(10),
            reserve_bytes_max: u64::MAX,
            timestamp_skew_max: Duration::from_secs(3600),
            producers_max: 10_000,
            producer_expiry: Duration::from_secs(7 * 86_400),
            read_ahead_bytes: 2 << 20,
        }
    }
}

/// Settings of one partition: the part of its topic's that storage obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOptions {
    /// When an append is visible and acknowledged by default.
    pub durability: Durability,
    /// A segment is rolled before its batches take more than this; one batch always fits.
    pub segment_bytes: u64,
    /// A segment is rolled at the first append after this, so that retention by time can act.
    pub segment_age: Duration,
    /// Sealed segments older than this are deleted.
    pub retention: Option<Duration>,
    /// Oldest sealed segments are deleted while the partition holds more bytes.
    pub retention_bytes: Option<u64>,
    /// Largest batch.
    pub max_message_bytes: u32,
    /// Who writes timestamps.
    pub timestamp_type: TimestampType,
    /// An internal log: on a full disk the reserve is spent on it.
    pub internal: bool,
}

/// A segment takes appends for at most this long.
const SEGMENT_AGE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// A topic with `max_bytes` has at least so many segments per partition: what is dropped at its limit
/// is a small part of it.
const SEGMENTS_AT_LIMIT: u64 = 4;
/// Retention by time acts within twice its period, but segments are not rolled every moment.
const SEGMENT_AGE_MIN: Duration = Duration::from_secs(1);

impl PartitionOptions {
    /// What a topic's settings mean for each of its so many partitions.
    pub fn of_topic(config: &TopicConfig, partitions: u32) -> PartitionOptions {
        let retention = retention_ms(config).map(Duration::from_millis);
        PartitionOptions {
            durability: config.durability,
            segment_bytes: segment_bytes(config, partitions),
            segment_age: retention
                .map_or(SEGMENT_AGE_MAX, |r| r.clamp(SEGMENT_AGE_MIN, SEGMENT_AGE_MAX)),
            retention,
            retention_bytes: config.retention_bytes,
            max_message_bytes: config.max_message_bytes,
            timestamp_type: config.timestamp_type,
            internal: false,
        }
    }
}

/// `max_age_ms` deletes like retention does, where the topic says that its oldest data may go.
fn retention_ms(config: &TopicConfig) -> Option<u64> {
    let age = config.max_age_ms.filter(|_| config.on_full == OnFull::DropOldest);
    config.retention_ms.into_iter().chain(age).min()
}

fn segment_bytes(config: &TopicConfig, partitions: u32) -> u64 {
    let Some(max) = config.max_bytes else { return config.segment_bytes };
    let part = max / (SEGMENTS_AT_LIMIT * u64::from(partitions.max(1)));
    config.segment_bytes.min(part.max(u64::from(config.max_message_bytes)))
}

impl Default for PartitionOptions {
    fn default() -> PartitionOptions {
        PartitionOptions::of_topic(&TopicConfig::default(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_a_small_part_of_a_topics_limit_and_take_one_batch() {
        let limited = TopicConfig { max_bytes: Some(64 << 20), ..TopicConfig::default() };
        let size =
            |config: &TopicConfig, parts| PartitionOptions::of_topic(config, parts).segment_bytes;
        assert_eq!([size(&limited, 1), size(&limited, 4)], [16 << 20, 4 << 20]);
        assert_eq!(size(&limited, 1_000), 1 << 20, "one batch");
        let small = TopicConfig { segment_bytes: 1 << 16, ..limited };
        assert_eq!(size(&small, 1), 1 << 16);
        assert_eq!(size(&TopicConfig::default(), 1_000), 128 << 20);
    }

    #[test]
    fn max_age_is_retention_where_the_oldest_may_go() {
        let aged = TopicConfig {
            max_age_ms: Some(60_000),
            on_full: OnFull::DropOldest,
            ..TopicConfig::default()
        };
        let kept = |config: &TopicConfig| PartitionOptions::of_topic(config, 1).retention;
        assert_eq!(kept(&aged), Some(Duration::from_secs(60)));
        let for_ever = TopicConfig { retention_ms: None, ..aged.clone() };
        assert_eq!(kept(&for_ever), Some(Duration::from_secs(60)));
        let refusing = TopicConfig { on_full: OnFull::Reject, ..aged };
        assert_eq!(kept(&refusing), Some(Duration::from_secs(7 * 86_400)));
    }
}
