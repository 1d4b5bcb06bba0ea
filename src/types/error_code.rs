//! Every error a person or a client can meet has one stable code, here and nowhere else: the wire
//! carries the number, the command line prints `E0xxx`, `stoplog explain E0xxx` prints the text,
//! `docs/errors.md` is generated from this table. A code is never reused for another meaning.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Try again, after a refresh of metadata where it names an owner; nothing is wrong with the
    /// request.
    Retry,
    /// Try again after `retry_after`.
    Throttle,
    /// The request is wrong and will be wrong again.
    Invalid,
    /// The thing does not exist (or, for a creation, exists already).
    NotFound,
    /// Another instance took over; stop, or start again under a new epoch.
    Fenced,
    /// Stored bytes are damaged; other data is not affected.
    Corrupt,
    /// The other side is gone or going; reconnect.
    Closed,
    /// A defect or a failed device; an operator has to look.
    Internal,
}

macro_rules! error_codes {
    ($($number:literal $name:ident $kind:ident $title:literal $help:literal)*) => {
        /// A stable error code. The discriminant is the number on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        #[repr(u16)]
        pub enum ErrorCode {
            $(#[doc = $title] $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in numeric order.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// What the caller does about it.
            pub fn kind(self) -> ErrorKind {
                match self { $(ErrorCode::$name => ErrorKind::$kind,)* }
            }

            /// One line that says what happened.
            pub fn title(self) -> &'static str {
                match self { $(ErrorCode::$name => $title,)* }
            }

            /// What to do next, in one or a few sentences.
            pub fn help(self) -> &'static str {
                match self { $(ErrorCode::$name => $help,)* }
            }

            /// The identifier, as in `ErrorCode::TopicNotFound`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => stringify!($name),)* }
            }
        }
    };
}

error_codes! {
    // 01xx: the request itself
    101 MalformedFrame Invalid "The bytes are not a frame of this protocol."
        "Check that client and port belong together; a proxy or an old client may speak another protocol."
    102 ChecksumMismatch Invalid "The frame's checksum does not match its bytes."
        "The bytes changed on the way. Send again; if it happens twice, suspect the network or the client's memory."
    103 FrameTooLarge Invalid "The frame is larger than the limit."
        "Send smaller batches; the limit is in the Hello answer and in `stoplog config show`."
    104 UnknownRequest Invalid "The broker does not know this request type."
        "The client is newer than the broker. Use the features that the Hello answer lists."
    105 UnsupportedVersion Invalid "No common protocol version."
        "Update the older side; the error names the range the broker speaks."
    106 UnknownFlags Invalid "A flag is set that this version does not define."
        "The client is newer than the broker, or sends garbage; unknown flags must be 0."
    107 HelloRequired Invalid "The first frame of a connection must be Hello."
        "Send Hello first; a client library does this by itself."
    108 InvalidRequest Invalid "A field of the request has a value that is not allowed."
        "The message names the field."
    109 InvalidName Invalid "The name is not allowed."
        "Topic names are 1 to 249 of a-z A-Z 0-9 . _ - and not \".\" or \"..\"; those that begin with __ are the broker's own and can only be read. Group names have no control characters."
    110 InvalidConfig Invalid "A setting is unknown or its value does not fit."
        "The message names the setting and what fits; `stoplog topic describe` shows all settings."
    111 Unsupported Invalid "This version does not do that yet."
        "See CHANGELOG and README for what this version does."
    112 TooManyRequests Throttle "Too many requests are in flight on this connection."
        "Wait for answers before sending more; the limit is in the Hello answer."

    // 02xx: topics and offsets
    201 TopicNotFound NotFound "No topic has this name or id."
        "Create it: stoplog topic create NAME -p 4. Topics are not created by producing."
    202 TopicExists NotFound "A topic with this name exists already."
        "Choose another name, or look at it: stoplog topic describe NAME."
    203 PartitionNotFound NotFound "The topic has no partition with this number."
        "Partitions count from 0; stoplog topic describe NAME shows how many there are."
    204 OffsetOutOfRange NotFound "The offset is below the first kept one or beyond the end."
        "The records were trimmed or expired, or never written. Start from `start` or `end`, or see stoplog topic describe NAME."
    205 CorruptRange Corrupt "Stored records in this range are damaged."
        "Records before and after are readable: go on at the offset the error names. Then run stoplog verify DIR."
    206 TooManyTopics Invalid "The limit on topics, partitions or quotas is reached."
        "Delete what is not used, or raise limits.partitions_max or limits.quotas_max."

    // 03xx: produce
    301 InvalidBatch Invalid "The record batch is malformed."
        "The client built a bad batch: see the message. Only RecordBatch version 2 is accepted."
    302 BatchTooLarge Invalid "The batch is larger than the topic's max_message_bytes."
        "Send smaller batches or raise it: stoplog topic alter NAME --set max_message_bytes=8MiB."
    303 OutOfOrderSequence Invalid "The producer's sequence number is not the next one."
        "A batch before this one was lost or refused. An idempotent client bumps its epoch and reports the lost range."
    304 ProducerFenced Fenced "A newer instance of this producer took over."
        "Two processes use the same producer id, or this one was replaced. Stop it, or init again."
    305 DuplicateUnknown Invalid "The batch is a repeat older than the last five; its offset is not remembered."
        "It was written before. An idempotent client treats this as success without an offset."

    // 04xx: back pressure
    401 ThrottledRate Throttle "A rate limit is spent."
        "Wait for retry_after; stoplog pressure shows the limit and who uses it."
    402 ServerBusy Throttle "The broker holds as many bytes in flight as it may."
        "Wait for retry_after; if it lasts, the disk is slower than the producers: stoplog pressure shows by how much."
    403 DiskLow Throttle "Little disk space is left."
        "Lower retention, delete topics, or grow the disk; reads and commits go on."
    404 DiskFull Throttle "No disk space is left for new records."
        "Free space: stoplog topic trim, lower retention, or grow the disk. Reads, commits and deletes go on; producing resumes by itself."
    405 TopicFull Throttle "The topic is at its max_bytes."
        "Trim it, raise max_bytes, or set on_full=drop_oldest."
    406 BacklogLimit Throttle "A protected consumer group is too far behind."
        "Speed the group up or reset it; stoplog group lag GROUP shows how far it is behind."
    407 DeadlineUnmeetable Throttle "The answer could not come before the request's deadline."
        "Nothing was written. Send again with a longer deadline or when the broker is less busy."
    408 CreditViolation Invalid "More was sent than was granted."
        "Nothing was written. The client ignored its grant: update it."
    409 ConnLimit Throttle "There are as many connections as a limit allows."
        "Close idle clients, or raise what the message names: limits.connections_max, limits.connections_per_ip_max or a quota."
    410 Draining Closed "The broker is shutting down."
        "Reconnect after it is back; what was acknowledged is safe."
    411 MetadataRate Throttle "Topics, partitions or quotas are changed too often."
        "Nothing was changed. Wait as long as retry_after says; stoplog quota ls shows the limit."
    413 QuotaNotFound NotFound "The entity has no quota of its own."
        "stoplog quota ls shows all quotas; stoplog quota set ENTITY KEY=VALUE makes one."

    // 05xx: groups
    501 GroupNotFound NotFound "No group has this name."
        "stoplog group ls shows all groups; a group exists from its first member or commit on."
    502 UnknownMember Fenced "The member is not in the group (any more)."
        "It was silent longer than its session timeout or was replaced. Join again; a client library does."
    503 StaleMemberEpoch Fenced "The member's epoch is behind the group's."
        "Another heartbeat moved it on. Take the epoch of the last answer and commit again."
    504 GroupNotEmpty Invalid "The group has active members."
        "Stop its consumers first; then delete or reset it."
    505 GroupLimit Throttle "The group or the broker has as many members or groups as it may."
        "Stop unused members, or raise limits.group_members_max / limits.groups_max."
    506 InstanceFenced Fenced "Another process uses this static member name."
        "Give each process its own instance id; the newest one keeps it."

    // 06xx: storage
    601 PartitionReadOnly Internal "The partition does not take writes after an error of its device."
        "Reads go on. The message has the first cause; look at the disk, then restart the broker."
    602 DataDirLatched Internal "The data directory does not take writes after a failed fdatasync."
        "Reads go on. The message has the first cause. Look at the disk, then restart the broker; nothing acknowledged was lost."
    603 PartitionFenced Corrupt "Bytes below the durable mark are damaged; the partition takes no writes."
        "Its valid records are readable. See stoplog verify DIR, then stoplog verify DIR --repair --accept-loss TOPIC/P."
    604 DataDirLocked Closed "Another process uses this data directory."
        "Stop the other broker, or give this one its own --data DIR."
    605 UnsupportedFormat Invalid "The files were written by a newer version."
        "Start the newer version; files are never changed by an older one."
    606 DiskRead Corrupt "The disk failed while reading."
        "Look at the kernel's log. Other partitions are not affected."
    607 NotADataDir Invalid "The directory holds files but is not a Stoplog data directory."
        "Give an empty or new directory to --data."

    // 07xx: clients and command line
    701 Unreachable Closed "The broker cannot be reached."
        "Is it running? stoplog serve --data DIR. Is the address right? --server HOST:PORT or STOPLOG_SERVER."
    702 TimedOut Retry "No answer came in time."
        "The broker may be busy or gone: stoplog pressure. An idempotent producer may send again."
    703 ConnectionLost Retry "The connection broke while a request was under way."
        "A client library reconnects and, where it is safe, sends again."
    704 AddressInUse Invalid "The listen address is used by another process."
        "Choose another --listen HOST:PORT; port 0 picks a free one."
    705 InsecureListen Invalid "Listening beyond loopback without authentication needs --insecure."
        "Listen on 127.0.0.1, or say --insecure when the network is trusted."
    706 InvalidInput Invalid "The input does not have the announced form."
        "The message names the line."
    707 Interrupted Closed "Stopped by a signal."
        "What was acknowledged before is safe."
    708 VerifyFailed Corrupt "Verification found damage."
        "The report names files and offsets; stoplog verify DIR --repair --dry-run shows what a repair would do."
    709 ResultMismatch Corrupt "What was read is not what was written."
        "This is a defect of Stoplog: keep the data directory and report it."
    710 InvalidCommand Invalid "The command line is wrong."
        "--help behind a command shows what it takes."
    711 LocalIo Internal "The system refused a read or a write of the command itself."
        "The message has the system's words: look at the path, its rights and the space left, or at who reads the output."

    // 09xx
    901 Internal Internal "A defect of Stoplog."
        "Please report it with the broker's log; data that was acknowledged is safe."
}

impl ErrorCode {
    /// The number on the wire.
    pub fn as_u16(self) -> u16 {
        self as u16
    }

    /// Back from the wire's number.
    pub fn from_u16(number: u16) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| code.as_u16() == number)
    }

    /// From `E0404`, `e404` or `404`.
    pub fn parse(text: &str) -> Option<ErrorCode> {
        text.trim_start_matches(['E', 'e']).parse().ok().and_then(ErrorCode::from_u16)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{:04}", self.as_u16())
    }
}

impl From<super::PushbackCode> for ErrorCode {
    fn from(code: super::PushbackCode) -> ErrorCode {
        use super::PushbackCode as P;
        match code {
            P::ThrottledRate => ErrorCode::ThrottledRate,
            P::ServerBusy => ErrorCode::ServerBusy,
            P::DiskLow => ErrorCode::DiskLow,
            P::DiskFull => ErrorCode::DiskFull,
            P::TopicFull => ErrorCode::TopicFull,
            P::BacklogLimit => ErrorCode::BacklogLimit,
            P::DeadlineUnmeetable => ErrorCode::DeadlineUnmeetable,
            P::CreditViolation => ErrorCode::CreditViolation,
            P::ConnLimit => ErrorCode::ConnLimit,
            P::Draining => ErrorCode::Draining,
            P::MetadataRate => ErrorCode::MetadataRate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ascending_and_read_back() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!(pair[0].as_u16() < pair[1].as_u16(), "{pair:?}");
        }
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(&code.to_string()), Some(*code));
            assert!(code.help().ends_with('.'), "{code}");
        }
        assert_eq!(ErrorCode::parse("E9999"), None);
    }
}
