//! Layouts of the words in `types` that several frames carry.

use crate::types::{
    Acks, Assignor, BacklogAction, BacklogLimit, Cause, Class, ClusterInfo, CommittedOffset,
    CompressionHint, Durability, DurabilityLevel, Effects, ErrorCode, GroupDescription, GroupId,
    GroupListing, GroupState, LeaderEpoch, MemberDescription, Offset, OffsetReset, OnFull,
    PartitionDescription, PartitionHealth, PartitionId, ProducerEpoch, ProducerId, Protect,
    Pushback, PushbackCode, PushbackScope, Severity, Timestamp, TimestampType, TopicConfig,
    TopicDescription, TopicId, TopicName, TopicPartition,
};

use super::wire::{DecodeError, DecodeProblem, Reader, Wire, put_text, take_text};

macro_rules! wire_newtype {
    ($($name:ident($inner:ident))*) => {$(
        impl Wire for $name {
            const MIN_BYTES: usize = size_of::<$inner>();

            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(from: &mut Reader<'_>) -> Result<$name, DecodeError> {
                $inner::take(from).map($name)
            }

            #[cfg(test)]
            fn describe(_docs: &mut super::sample::Docs) -> String {
                concat!(stringify!($inner), " ", stringify!($name)).to_owned()
            }

            #[cfg(test)]
            fn sample(source: &mut super::sample::Source) -> $name {
                $name($inner::sample(source))
            }
        }
    )*};
}

wire_newtype!(
    Offset(i64) Timestamp(i64) PartitionId(u32) ProducerId(i64) ProducerEpoch(i16) LeaderEpoch(i32)
);

macro_rules! wire_name {
    ($($name:ident)*) => {$(
        impl Wire for $name {
            const MIN_BYTES: usize = 2;

            fn put(&self, out: &mut Vec<u8>) {
                put_text(self.as_str(), out);
            }

            fn take(from: &mut Reader<'_>) -> Result<$name, DecodeError> {
                take_text(from)?.parse().map_err(|e| DecodeError::new(DecodeProblem::Name(e)))
            }

            #[cfg(test)]
            fn describe(_docs: &mut super::sample::Docs) -> String {
                concat!("text ", stringify!($name)).to_owned()
            }

            #[cfg(test)]
            fn sample(source: &mut super::sample::Source) -> $name {
                source.name().parse().expect("a valid name")
            }
        }
    )*};
}

wire_name!(TopicName GroupId);

impl Wire for TopicId {
    const MIN_BYTES: usize = 16;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Result<TopicId, DecodeError> {
        from.array().map(TopicId::from_bytes)
    }

    #[cfg(test)]
    fn describe(_docs: &mut super::sample::Docs) -> String {
        "TopicId".to_owned()
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> TopicId {
        let (high, low) = (u128::from(source.number()), u128::from(source.number()));
        TopicId::from_bytes((high << 64 | low).to_be_bytes())
    }
}

macro_rules! wire_numbered {
    ($name:ident: $([$doc:literal] $number:literal => $variant:ident),* $(,)?) => {
        wire_variants!($name { $($number => $variant [$doc]),* });
    };
}

wire_numbered!(Acks:
    ["As the topic's durability says."] 0 => Topic,
    ["No answer is sent."] 1 => None,
    ["After the write call returned."] 2 => Os,
    ["After an fdatasync that covers the batch returned 0."] 3 => Durable,
);
wire_numbered!(DurabilityLevel:
    ["Nothing is promised."] 0 => None,
    ["Survives a killed broker."] 1 => Os,
    ["Survives a power cut."] 2 => Durable,
);
wire_numbered!(TimestampType: ["Written by the producer."] 0 => Create, ["Written by the broker."] 1 => Append);
wire_numbered!(OnFull:
    ["Refuse with TOPIC_FULL."] 0 => Reject,
    ["Drop the oldest segments."] 1 => DropOldest,
    ["Slow down from 90 % on."] 2 => Throttle,
    ["Withhold grants for up to 5 s, then refuse."] 3 => Hold,
);
wire_variants!(Protect {
    0 => None ["Nobody's."],
    1 => Groups ["Those of these groups."] { groups: Vec<GroupId> },
    2 => AllGroups ["Those of every group that committed an offset of the topic."],
});
wire_numbered!(BacklogAction:
    ["Producers wait until the group has read on."] 0 => Throttle,
    ["Producers are refused."] 1 => Reject,
);
wire_fields!(BacklogLimit ["How far one group may fall behind before producers are held back."] {
    group: GroupId ["The group."],
    records: Option<u64> ["Records it has not committed."],
    bytes: Option<u64> ["Bytes of these."],
    seconds: Option<u64> ["Age of the first of these."],
    action: BacklogAction ["What happens then."],
});
wire_numbered!(CompressionHint:
    ["No advice."] 0 => Producer, ["No compression."] 1 => None, ["gzip"] 2 => Gzip,
    ["snappy"] 3 => Snappy, ["lz4"] 4 => Lz4, ["zstd"] 5 => Zstd,
);
wire_numbered!(Assignor:
    ["Even counts, moving as few partitions as possible."] 1 => Uniform,
    ["Consecutive ranges per topic."] 2 => Range,
);
wire_numbered!(GroupState:
    ["No members; offsets may exist."] 1 => Empty,
    ["Some member has not reached its target yet."] 2 => Reconciling,
    ["Every member owns exactly its target."] 3 => Stable,
);
wire_numbered!(Class:
    ["P0: the broker's own way out of trouble; nobody may ask for it."] 0 => System,
    ["P1: last to be refused."] 1 => Critical,
    ["P2: whoever says nothing."] 2 => Normal,
    ["P3: first to be refused: loads, replays."] 3 => Bulk,
);
wire_numbered!(Cause:
    ["The consumer gave no more credit."] 1 => CreditConsumer,
    ["The publisher used up its grant."] 2 => Grant,
    ["The window of the log writer."] 3 => Window,
    ["The disk takes long to make writes durable."] 4 => Fsync,
    ["The pool for bytes in flight."] 5 => Pool,
    ["The partition's share of the pool, or its queue."] 6 => Partition,
    ["The connection's share of the pool."] 7 => Connection,
    ["The pool for fetched bytes."] 8 => FetchPool,
    ["The limit on bytes per fetch."] 9 => FetchBytes,
    ["The share of the disk that reads of old data have."] 10 => ColdReads,
    ["The serving threads' time, half of which is kept for deliveries."] 11 => Serving,
    ["A quota."] 12 => Quota,
    ["Little disk space is left."] 13 => DiskLow,
    ["Very little is left: ingest is slowed to what is reclaimed."] 14 => DiskHigh,
    ["No disk space for user data."] 15 => DiskFull,
    ["The topic's own limit."] 16 => TopicFull,
    ["A group that must not fall further behind."] 17 => Backlog,
    ["The broker is shutting down."] 18 => Draining,
);
wire_numbered!(Severity:
    ["Accepted; send slower."] 1 => Slow,
    ["Not accepted now; send again after `retry_after_ms`."] 2 => Hold,
    ["Refused until something outside changes."] 3 => Reject,
);
wire_numbered!(Effects:
    ["Nothing was written."] 0 => None,
    ["It may have been written: only an idempotent producer may send again."] 1 => Unknown,
);
wire_numbered!(PushbackCode:
    ["A rate quota is spent."] 1 => ThrottledRate,
    ["The pool for bytes in flight, or a queue, is full."] 2 => ServerBusy,
    ["Little disk space is left: slower."] 3 => DiskLow,
    ["No disk space is left for user data; reads, commits and deletes go on."] 4 => DiskFull,
    ["The topic is at its own limit."] 5 => TopicFull,
    ["A protected group is too far behind."] 6 => BacklogLimit,
    ["The answer could not come before the deadline."] 7 => DeadlineUnmeetable,
    ["More was sent than granted."] 8 => CreditViolation,
    ["Too many connections, or requests in flight on one."] 9 => ConnLimit,
    ["The broker is shutting down."] 10 => Draining,
    ["Topics, partitions or quotas are changed too often."] 11 => MetadataRate,
);
wire_numbered!(PushbackScope:
    ["The whole broker."] 1 => Broker, ["The data directory."] 2 => DataDir,
    ["One topic."] 3 => Topic, ["One partition."] 4 => Partition,
    ["One connection."] 5 => Connection, ["One publisher."] 6 => Publisher,
    ["One consumer group."] 7 => Group, ["One principal or client id."] 8 => Principal,
);

impl Wire for Durability {
    const MIN_BYTES: usize = 5;

    fn put(&self, out: &mut Vec<u8>) {
        let (tag, ms) = match self {
            Durability::Fsync => (0, 0),
            Durability::Interval { ms } => (1, *ms),
            Durability::Os => (2, 0),
        };
        out.push(tag);
        ms.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Durability, DecodeError> {
        match (from.u8()?, u32::take(from)?) {
            (0, 0) => Ok(Durability::Fsync),
            (1, ms) => Ok(Durability::Interval { ms }),
            (2, 0) => Ok(Durability::Os),
            (tag, _) => Err(DecodeError::value(u64::from(tag), "Durability")),
        }
    }

    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String {
        let then = |text: &str| vec![("ms", text.to_owned())];
        docs.add_enum(
            "Durability",
            vec![
                (0, "Fsync", then("u32, always 0"), "Visible after an fdatasync."),
                (1, "Interval", then("u32"), "Visible after the write; synced at most `ms` later."),
                (2, "Os", then("u32, always 0"), "Visible after the write."),
            ],
        )
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> Durability {
        match source.choose(3) {
            0 => Durability::Fsync,
            1 => Durability::Interval { ms: u32::sample(source) },
            _ => Durability::Os,
        }
    }
}

impl Wire for OffsetReset {
    const MIN_BYTES: usize = 9;

    fn put(&self, out: &mut Vec<u8>) {
        let (tag, value) = match self {
            OffsetReset::Earliest => (0, 0),
            OffsetReset::Latest => (1, 0),
            OffsetReset::To(offset) => (2, offset.0),
            OffsetReset::AtTime(time) => (3, time.0),
            OffsetReset::Shift(records) => (4, *records),
        };
        out.push(tag);
        value.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<OffsetReset, DecodeError> {
        match (from.u8()?, i64::take(from)?) {
            (0, 0) => Ok(OffsetReset::Earliest),
            (1, 0) => Ok(OffsetReset::Latest),
            (2, offset) => Ok(OffsetReset::To(Offset(offset))),
            (3, time) => Ok(OffsetReset::AtTime(Timestamp(time))),
            (4, records) => Ok(OffsetReset::Shift(records)),
            (tag, _) => Err(DecodeError::value(u64::from(tag), "OffsetReset")),
        }
    }

    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String {
        let then = |text: &str| vec![("value", text.to_owned())];
        docs.add_enum(
            "OffsetReset",
            vec![
                (0, "Earliest", then("i64, always 0"), "The first offset that can be read."),
                (1, "Latest", then("i64, always 0"), "The visible end."),
                (2, "To", then("i64 Offset"), "This offset, clamped into what can be read."),
                (3, "AtTime", then("i64 Timestamp"), "The first record at or after this time."),
                (4, "Shift", then("i64"), "So many records from the committed offset, clamped."),
            ],
        )
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> OffsetReset {
        let value = i64::sample(source);
        match source.choose(5) {
            0 => OffsetReset::Earliest,
            1 => OffsetReset::Latest,
            2 => OffsetReset::To(Offset(value)),
            3 => OffsetReset::AtTime(Timestamp(value)),
            _ => OffsetReset::Shift(value),
        }
    }
}

/// The error number; one this build does not know becomes `Internal`, so that an older client
/// still understands that a newer broker refused.
impl Wire for ErrorCode {
    const MIN_BYTES: usize = 2;

    fn put(&self, out: &mut Vec<u8>) {
        self.as_u16().put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<ErrorCode, DecodeError> {
        Ok(ErrorCode::from_u16(u16::take(from)?).unwrap_or(ErrorCode::Internal))
    }

    #[cfg(test)]
    fn describe(_docs: &mut super::sample::Docs) -> String {
        "u16 ErrorCode".to_owned()
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> ErrorCode {
        ErrorCode::ALL[source.choose(ErrorCode::ALL.len())]
    }
}

wire_fields!(Pushback ["A typed refusal: who limits, why, for how long, and whether anything was written."] {
    code: PushbackCode ["Why."],
    scope: PushbackScope ["What the limit belongs to."],
    severity: Severity ["What to do."],
    effects: Effects ["Whether anything was written."],
    retry_after_ms: u32 ["When to try again; 0 = no time can be named."],
    observed: u64 ["The measured value that met the limit, in `unit`."],
    limit: u64 ["The limit, in `unit`."],
    unit: String ["`bytes`, `records`, `ms`, ..."],
    min_class: Option<Class> ["The least important class that is still let in, when classes make the difference."],
    limit_id: String ["Which limit: `pool`, `disk:full`, `quota:client/shop`, ..."],
});

wire_fields!(TopicPartition ["One partition of one topic."] {
    topic: TopicId ["The topic."],
    partition: PartitionId ["Its partition."],
});

wire_fields!(TopicConfig ["Settings of a topic."] {
    durability: Durability ["When an append is visible and acknowledged by default."],
    segment_bytes: u64 ["A segment is rolled before it grows past this."],
    retention_ms: Option<u64> ["Sealed segments older than this are deleted."],
    retention_bytes: Option<u64> ["Oldest segments are deleted while a partition holds more."],
    max_bytes: Option<u64> ["Limit of the whole topic."],
    max_segments: Option<u32> ["Limit of the whole topic in segments."],
    max_age_ms: Option<u64> ["Limit of the age of its records."],
    on_full: OnFull ["What happens at `max_bytes`."],
    protect: Protect ["Whose unread records no retention deletes."],
    backlog: Vec<BacklogLimit> ["How far which groups may fall behind."],
    max_message_bytes: u32 ["Largest record batch in bytes."],
    timestamp_type: TimestampType ["Who writes timestamps."],
    compression: CompressionHint ["Advice to producers."],
});

wire_variants!(PartitionHealth {
    0 => Writable ["It takes writes."],
    1 => ReadOnly ["It does not after a device error; reads go on."] { cause: String },
    2 => Fenced ["Stored bytes below the durable mark are damaged."] {
        first_bad: Offset, next_good: Option<Offset>,
    },
});

wire_fields!(PartitionDescription ["One partition as it is now."] {
    partition: PartitionId ["Its number."],
    start: Offset ["First offset that can be read."],
    visible_end: Offset ["First offset that cannot be read yet."],
    log_end: Offset ["First offset that is not written yet."],
    durable_end: Offset ["First offset that no fdatasync covers yet."],
    bytes: u64 ["Bytes of its segments."],
    segments: u32 ["Number of its segments."],
    leader_epoch: LeaderEpoch ["Its leader epoch."],
    health: PartitionHealth ["Whether it takes writes."],
});

wire_fields!(TopicDescription ["One topic as it is now."] {
    name: TopicName ["Its name."],
    id: TopicId ["Its identity."],
    config: TopicConfig ["Its settings."],
    partitions: Vec<PartitionDescription> ["Its partitions, by number."],
});

wire_fields!(GroupListing ["One line of the list of groups."] {
    group: GroupId ["Its name."],
    state: GroupState ["Its state."],
    members: u32 ["Number of its members."],
});

wire_fields!(MemberDescription ["One member of a group."] {
    member_id: String ["Its id."],
    instance_id: Option<String> ["Its static name."],
    client_id: String ["What the client calls itself."],
    client_host: String ["Where it connects from."],
    epoch: i32 ["The epoch it has reached."],
    topics: Vec<TopicName> ["Topics it subscribes to."],
    owned: Vec<TopicPartition> ["Partitions it owns now."],
    target: Vec<TopicPartition> ["Partitions it is to own."],
});

wire_fields!(CommittedOffset ["A committed offset and what is left to read behind it."] {
    topic: TopicName ["Name of the topic."],
    partition: PartitionId ["Its partition."],
    committed: Option<Offset> ["The next offset the group reads."],
    end: Offset ["The partition's visible end."],
    lag: i64 ["Records between the two."],
});

wire_fields!(GroupDescription ["One group as it is now."] {
    group: GroupId ["Its name."],
    state: GroupState ["Its state."],
    epoch: i32 ["Bumped at every change of members, subscriptions or partition counts."],
    assignment_epoch: i32 ["The group epoch for which the target assignment was made."],
    assignor: Assignor ["How partitions are spread."],
    members: Vec<MemberDescription> ["Its members, by id."],
    offsets: Vec<CommittedOffset> ["Its committed offsets, by topic and partition."],
});

wire_fields!(ClusterInfo ["The broker itself."] {
    cluster_id: String ["Identity of the data directory."],
    node_id: i32 ["Number of this node."],
    writer_id: String ["Changes with every start of the process."],
    advertised: Vec<(String, String)> ["Addresses clients are to use, as (protocol, HOST:PORT)."],
    version: String ["Version of the broker."],
    latched: Option<String> ["Why the data directory takes no writes, when it does not."],
    uptime_ms: u64 ["Milliseconds since the broker was ready."],
});
