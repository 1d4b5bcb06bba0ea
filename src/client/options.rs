//! What a program may choose; every default has its reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::flow::RetryBudget;
use crate::record::Compression;
use crate::types::{Acks, Assignor, Class, GroupId, Offset, PartitionId, Timestamp, TopicName};

/// Options of a client, shared by everything made from it.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Name in the broker's logs, quotas and `stoplog why`.
    pub client_id: String,
    /// Longest time to make a connection, Hello included.
    pub connect_timeout: Duration,
    /// Longest time to wait for the answer to one request.
    pub request_timeout: Duration,
    /// How long requests that may be repeated are, when the broker is away or busy.
    pub retry_timeout: Duration,
    /// Wait after a first failed attempt; later ones double it.
    pub retry_wait: Duration,
    /// How many refused requests may be tried again. The default is one budget for the process.
    pub retry_budget: Arc<RetryBudget>,
    /// Largest frame taken from the broker: a fetch answer with the largest batch fits.
    pub frame_bytes_max: u32,
    /// Free receive buffers that are kept, so that a busy reader does not allocate.
    pub receive_bytes_kept: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            client_id: "stoplog-rust".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(30),
            retry_wait: Duration::from_millis(50),
            retry_budget: RetryBudget::of_process(),
            frame_bytes_max: 16 << 20,
            receive_bytes_kept: 32 << 20,
        }
    }
}

/// Whether a producer's retries may repeat a record in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idempotence {
    /// They may not: each partition's batches carry sequence numbers.
    #[default]
    On,
    /// They may; nothing is remembered by the broker.
    Off,
}

/// Options of a producer.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When a batch counts as delivered.
    pub acks: Acks,
    /// Largest batch before compression; the topic's `max_message_bytes` when that is smaller. At
    /// 64 KiB the cost per batch hardly shows any more.
    pub batch_bytes: usize,
    /// How long a batch waits for more records while it could be sent: at most half of
    /// `delivery_timeout`. Zero sends at once while nothing is under way, else when the batch is full
    /// or what is under way is answered: the busier, the fuller.
    pub linger: Duration,
    /// Codec; `None` = what the topic advises.
    pub compression: Option<Compression>,
    /// Who gives way when there is not enough for all; quotas may lower it.
    pub class: Class,
    /// Whether retries are free of duplicates.
    pub idempotence: Idempotence,
    /// Batches of one partition that may be unanswered; the broker remembers five.
    pub window: usize,
    /// Bytes of records that may be buffered or unanswered: what `send` waits for.
    pub buffer_bytes: usize,
    /// How long a record is tried to be delivered; then its delivery fails, also when an answer is
    /// still to come. `ClientError::effects` tells whether it may be in the log all the same.
    pub delivery_timeout: Duration,
}

/// Largest window of an idempotent producer: the broker remembers the last five batches.
pub(super) const WINDOW_MAX: usize = 5;

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            acks: Acks::Topic,
            batch_bytes: 64 << 10,
            linger: Duration::ZERO,
            compression: None,
            class: Class::Normal,
            idempotence: Idempotence::On,
            window: WINDOW_MAX,
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// Where reading starts when no offset is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// The first offset that can be read.
    #[default]
    Start,
    /// The visible end.
    End,
    /// This offset, clamped into what can be read.
    Offset(Offset),
    /// The first record at or after this time; the end when there is none.
    Time(Timestamp),
    /// So many offsets before the visible end.
    Last(u64),
}

/// When a group's offsets are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// A record is taken for processed when the next one is asked for; what is processed is
    /// committed this often, and whenever a partition is given up.
    Auto {
        /// Longest time between commits.
        every: Duration,
    },
    /// Only `Consumer::commit` commits, everything handed out so far.
    Manual,
}

/// Where reading ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StopAt {
    /// Never: new records are waited for.
    #[default]
    Never,
    /// At the visible ends as they were when reading began.
    End,
    /// Before these offsets, which are waited for. Partitions that are not named are not read.
    Offsets(BTreeMap<PartitionId, Offset>),
}

/// What a consumer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// These partitions of one topic, or all it has, whoever else reads them.
    Partitions {
        /// The topic.
        topic: TopicName,
        /// Which; `None` = all there are now.
        partitions: Option<Vec<PartitionId>>,
    },
    /// What the group's coordinator assigns.
    Group {
        /// The group.
        group: GroupId,
        /// Topics to share.
        topics: Vec<TopicName>,
        /// Static name: a restart under it takes its predecessor's partitions over at once.
        instance_id: Option<String>,
        /// How to spread partitions; `None` = as the group does.
        assignor: Option<Assignor>,
    },
}

/// Options of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// What to read.
    pub reading: Reading,
    /// Where to start in partitions without a committed offset.
    pub start: StartAt,
    /// Where to end.
    pub stop: StopAt,
    /// When to commit; meaningless without a group.
    pub commit: CommitMode,
    /// Bytes of batches that may wait in this process, shared by all partitions.
    pub memory_bytes: usize,
    /// Most records that may wait per partition; `None` = bytes alone decide. With `Some(n)` no
    /// more than n records (and one batch) are ever sent ahead.
    pub prefetch_records: Option<u64>,
    /// Most records that are ever handed out, of all partitions together; `None` = no end. With
    /// `Some(n)` reading ends with the nth, and what came with it is not committed: the group goes on
    /// there. The broker sends n (and the rest of a batch of each partition), as a rule: a partition
    /// that holds most of them may get credit that others leave unused. Batches as they are stored are
    /// whole: `next_batch` ends with the one in which the nth is.
    pub records_max: Option<u64>,
    /// How long this member may take to give partitions up: until its next call of `next`.
    pub rebalance_timeout: Duration,
    /// A broker that cannot be reached for so long while there is something to read is an error of
    /// `next`, which may be called again; `None` = it is waited for without a word.
    pub unreachable_after: Option<Duration>,
}

impl ConsumerOptions {
    /// All partitions of a topic from its start, without a group.
    pub fn topic(topic: TopicName) -> ConsumerOptions {
        ConsumerOptions::new(Reading::Partitions { topic, partitions: None })
    }

    /// One topic shared with the other members of a group.
    pub fn group(group: GroupId, topic: TopicName) -> ConsumerOptions {
        ConsumerOptions::new(Reading::Group {
            group,
            topics: vec![topic],
            instance_id: None,
            assignor: None,
        })
    }

    /// Defaults for this.
    pub fn new(reading: Reading) -> ConsumerOptions {
        ConsumerOptions {
            reading,
            start: StartAt::Start,
            stop: StopAt::Never,
            commit: CommitMode::Auto { every: Duration::from_secs(1) },
            memory_bytes: 32 << 20,
            prefetch_records: None,
            records_max: None,
            rebalance_timeout: Duration::from_secs(60),
            unreachable_after: None,
        }
    }
}
