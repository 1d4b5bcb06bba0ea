//! The frame: a fixed header of 32 bytes, a control part of structs, a data part of record batches.
//!
//! | at | type | field |
//! |---|---|---|
//! | 0 | u16 | magic `53 4C` ("SL") |
//! | 2 | u8 | version of the frame's layout, 1 |
//! | 3 | u8 | flags |
//! | 4 | u16 | frame type |
//! | 6 | u16 | reserved, 0 |
//! | 8 | u64 | correlation id |
//! | 16 | u32 | bytes of the control part |
//! | 20 | u32 | bytes of the data part |
//! | 24 | u32 | CRC-32 of the control part (and, for PRODUCE, of the first 61 bytes of data) |
//! | 28 | u32 | CRC-32 of the 28 bytes before |
//!
//! # Invariants
//! A header whose own CRC is wrong says nothing, not even a length: the connection ends. With a
//! right one every refusal names the correlation id, and the next frame starts where it should.

use bytes::Bytes;

use super::answer::{ErrorAnswer, ErrorDetail};
use super::wire::{DecodeError, DecodeProblem, Wire};
use crate::types::ErrorCode;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 32;
/// First two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"SL";
/// The layout version this build writes and reads.
pub const LAYOUT_VERSION: u8 = 1;
/// Bytes of a record batch's header: what a PRODUCE frame's CRC binds to topic and partition. The
/// batch's own CRC-32C, which is among them, covers the rest.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Flag bits of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameFlags(pub u8);

impl FrameFlags {
    /// A request or a notice.
    pub const NONE: FrameFlags = FrameFlags(0);
    /// The answer to the request with this correlation id.
    pub const ANSWER: FrameFlags = FrameFlags(1);
    /// An answer whose control part is an `ErrorAnswer`.
    pub const ERROR: FrameFlags = FrameFlags(3);

    /// Whether the frame answers a request.
    pub fn is_answer(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the frame's control part is an `ErrorAnswer`.
    pub fn is_error(self) -> bool {
        self == FrameFlags::ERROR
    }

    fn is_known(self) -> bool {
        matches!(self, FrameFlags::NONE | FrameFlags::ANSWER | FrameFlags::ERROR)
    }
}

macro_rules! frame_types {
    ($($number:literal $name:ident $data:ident $doc:literal)*) => {
        /// What a frame is. The discriminant is the number on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum FrameType {
            $(#[doc = $doc] $name = $number,)*
        }

        impl FrameType {
            /// Every type, in numeric order.
            pub const ALL: &[FrameType] = &[$(FrameType::$name,)*];

            /// Back from the wire's number.
            pub fn from_u16(number: u16) -> Option<FrameType> {
                match number { $($number => Some(FrameType::$name),)* _ => None }
            }

            /// The identifier, as in `FrameType::Hello`.
            pub fn name(self) -> &'static str {
                match self { $(FrameType::$name => stringify!($name),)* }
            }

            /// One line that says what the frame is for.
            pub fn title(self) -> &'static str {
                match self { $(FrameType::$name => $doc,)* }
            }

            fn data(self) -> Data {
                match self { $(FrameType::$name => Data::$data,)* }
            }
        }
    };
}

/// Which frames of a type may have a data part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Never,
    InRequest,
    InAnswer,
}

frame_types! {
    1 Hello Never "Opens a connection: versions, features, limits both ways. Always the first frame."
    2 Ping Never "Asks whether the other side is there."
    3 Goodbye Never "Notice: the sender is about to close; from a broker that shuts down, the drain notice."
    16 Metadata Never "Topics by name, by id, or all: ids, partitions, leaders, what producers must know."
    17 TopicCreate Never "Creates a topic."
    18 TopicDelete Never "Deletes a topic and its records."
    19 TopicAlter Never "Changes settings of a topic."
    20 PartitionsAdd Never "Raises a topic's number of partitions."
    21 TopicDescribe Never "Settings, offsets, sizes and health of topics."
    22 TopicList Never "Names, ids and partition counts of all topics."
    32 ProducerInit Never "Hands out a producer id, or the next epoch of one."
    33 PublisherOpen Never "Opens a publisher on a topic; the answer carries its first grant."
    34 PublisherClose Never "Closes a publisher."
    35 Grant Never "Notice from the broker: how far a publisher may send (cumulative)."
    36 Want Never "Notice from a client: a publisher is blocked and how much it would send."
    37 Produce InRequest "Appends one record batch to one partition."
    38 Pushback Never "Notice from the broker: a typed refusal or slow-down; answers a PRODUCE when its correlation id is not 0."
    48 Fetch InAnswer "Long poll: reads record batches of many partitions."
    49 Subscribe Never "Opens a subscription on a partition; the broker pushes BATCHES within its credit."
    50 Credit Never "Notice from a client: how far a subscription may send (cumulative)."
    51 Batches InRequest "Notice from the broker: record batches of a subscription."
    52 Unsubscribe Never "Ends a subscription."
    53 Seek Never "Moves a subscription to another offset under a new epoch."
    54 Pause Never "Stops a subscription's BATCHES without ending it."
    55 Resume Never "Lets a paused subscription go on."
    56 SubscriptionEnd Never "Notice from the broker: a subscription ended, and why."
    57 ListOffsets Never "Earliest and latest offsets, or the offset at a time."
    58 Trim Never "Deletes a partition's records before an offset."
    64 GroupHeartbeat Never "Joins a group, stays in it, leaves it; the answer carries the assignment."
    65 GroupCommit Never "Commits a group's offsets."
    66 GroupCommitted Never "Reads a group's committed offsets."
    67 GroupDescribe Never "Members, assignments, offsets and lag of groups."
    68 GroupList Never "All groups with their states."
    69 GroupDelete Never "Deletes an empty group and its offsets."
    70 GroupReset Never "Moves an empty group's committed offsets, or says where it would."
    80 Pressure Never "What limits whom, right now."
    81 ClusterInfo Never "Ids, addresses and version of the broker."
    82 QuotaSet Never "Changes settings of a quota, or makes it."
    83 QuotaDelete Never "Removes a quota."
    84 QuotaList Never "Quotas with what is used of them now."
    85 Why Never "Who makes somebody wait: the way to the root, what to do, until when."
}

impl FrameType {
    /// The number on the wire.
    pub fn as_u16(self) -> u16 {
        self as u16
    }

    /// Whether a frame of this type and direction may have a data part.
    pub fn allows_data(self, flags: FrameFlags) -> bool {
        match self.data() {
            Data::Never => false,
            Data::InRequest => flags == FrameFlags::NONE,
            Data::InAnswer => flags == FrameFlags::ANSWER,
        }
    }
}

/// A request that has an answer.
pub trait Call: Wire {
    /// Its frame type.
    const TYPE: FrameType;
    /// Control part of its answer.
    type Answer: Wire;
}

/// A frame that has no answer.
pub trait Notice: Wire {
    /// Its frame type.
    const TYPE: FrameType;
}

/// The largest frame one side takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Header, control part and data part together.
    pub frame_bytes_max: u32,
    /// Control part alone: it is decoded into structs, which take several times its bytes.
    pub control_bytes_max: u32,
}

impl FrameLimits {
    /// Before Hello: whatever speaks to the port must not cost memory.
    pub const BEFORE_HELLO: FrameLimits =
        FrameLimits { frame_bytes_max: 64 << 10, control_bytes_max: 64 << 10 };

    /// The default after Hello: two of the largest batches a topic may allow.
    pub const DEFAULT: FrameLimits =
        FrameLimits { frame_bytes_max: 16 << 20, control_bytes_max: 4 << 20 };
}

/// A header whose CRC was right and whose lengths are within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Layout version as it came.
    pub version: u8,
    /// Flags as they came.
    pub flags: FrameFlags,
    /// Number of the frame type as it came.
    pub frame_type: u16,
    /// Must be 0.
    pub reserved: u16,
    /// Names the request; chosen by the client, 0 in notices.
    pub correlation: u64,
    /// Bytes of the control part.
    pub control_bytes: u32,
    /// Bytes of the data part.
    pub data_bytes: u32,
    /// CRC-32 of the control part (and a produced batch's header).
    pub body_crc: u32,
}

/// Why a connection cannot go on: the next frame's start is unknown or too far away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first two bytes are not the magic.
    #[error("the bytes {found:02x?} do not start a frame of this protocol")]
    NotAFrame {
        /// What came instead.
        found: [u8; 2],
    },
    /// The header's CRC is wrong.
    #[error("the frame header's checksum is {computed:08x}, the header says {found:08x}")]
    HeaderChecksum {
        /// CRC-32 of the received bytes.
        computed: u32,
        /// What the header says.
        found: u32,
    },
    /// The frame is larger than this side takes.
    #[error("a frame of {claimed} bytes is announced; at most {max} are taken")]
    TooLarge {
        /// Its correlation id.
        correlation: u64,
        /// Number of its type.
        frame_type: u16,
        /// Bytes it announces.
        claimed: u64,
        /// Bytes that are taken.
        max: u32,
    },
}

impl FrameError {
    /// The last answer before the connection closes.
    pub fn to_answer(&self) -> ErrorAnswer {
        let code = match self {
            FrameError::NotAFrame { .. } => ErrorCode::MalformedFrame,
            FrameError::HeaderChecksum { .. } => ErrorCode::ChecksumMismatch,
            FrameError::TooLarge { .. } => ErrorCode::FrameTooLarge,
        };
        let answer = ErrorAnswer::new(code, self.to_string());
        match self {
            FrameError::TooLarge { max, .. } => {
                answer.with_detail(ErrorDetail::BytesMax { bytes: u64::from(*max) })
            }
            _ => answer,
        }
    }
}

impl FrameHeader {
    /// Reads a header and checks its CRC and its lengths.
    pub fn parse(bytes: &[u8; HEADER_BYTES], limits: FrameLimits) -> Result<Self, FrameError> {
        let magic = [bytes[0], bytes[1]];
        if magic != MAGIC {
            return Err(FrameError::NotAFrame { found: magic });
        }
        let computed = crc32fast::hash(&bytes[..28]);
        let found = u32::from_le_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]);
        if computed != found {
            return Err(FrameError::HeaderChecksum { computed, found });
        }
        let header = FrameHeader::fields(bytes);
        let claimed = header.frame_bytes();
        let too_large = |max| FrameError::TooLarge {
            correlation: header.correlation,
            frame_type: header.frame_type,
            claimed,
            max,
        };
        if claimed > u64::from(limits.frame_bytes_max) {
            return Err(too_large(limits.frame_bytes_max));
        }
        if header.control_bytes > limits.control_bytes_max {
            return Err(too_large(limits.control_bytes_max));
        }
        Ok(header)
    }

    /// Reads the fields of a header that was checked before.
    pub(super) fn fields(b: &[u8; HEADER_BYTES]) -> FrameHeader {
        FrameHeader {
            version: b[2],
            flags: FrameFlags(b[3]),
            frame_type: u16::from_le_bytes([b[4], b[5]]),
            reserved: u16::from_le_bytes([b[6], b[7]]),
            correlation: u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
            control_bytes: u32::from_le_bytes([b[16], b[17], b[18], b[19]]),
            data_bytes: u32::from_le_bytes([b[20], b[21], b[22], b[23]]),
            body_crc: u32::from_le_bytes([b[24], b[25], b[26], b[27]]),
        }
    }

    /// The 32 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[..2].copy_from_slice(&MAGIC);
        b[2] = self.version;
        b[3] = self.flags.0;
        b[4..6].copy_from_slice(&self.frame_type.to_le_bytes());
        b[6..8].copy_from_slice(&self.reserved.to_le_bytes());
        b[8..16].copy_from_slice(&self.correlation.to_le_bytes());
        b[16..20].copy_from_slice(&self.control_bytes.to_le_bytes());
        b[20..24].copy_from_slice(&self.data_bytes.to_le_bytes());
        b[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&b[..28]);
        b[28..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.control_bytes) + u64::from(self.data_bytes)
    }
}

/// A whole frame whose CRCs were right, of a known type, version and flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub frame_type: FrameType,
    /// Request, answer or error.
    pub flags: FrameFlags,
    /// Names the request.
    pub correlation: u64,
    /// Structs, to be decoded by the type.
    pub control: Bytes,
    /// Record batches, verbatim.
    pub data: Bytes,
}

impl Frame {
    /// Checks a complete frame, `body` being everything after the header. Errors leave the
    /// connection usable: the frame's length was right.
    pub fn check(header: &FrameHeader, mut body: Bytes) -> Result<Frame, ErrorAnswer> {
        let control_len = (header.control_bytes as usize).min(body.len());
        let control = body.split_to(control_len);
        let refuse = |code, message: String| Err(ErrorAnswer::new(code, message));
        if header.version != LAYOUT_VERSION {
            let message = format!("frame layout version {} is not 1", header.version);
            let version = u16::from(LAYOUT_VERSION);
            return Err(ErrorAnswer::new(ErrorCode::UnsupportedVersion, message)
                .with_detail(ErrorDetail::Versions { min: version, max: version }));
        }
        if !header.flags.is_known() || header.reserved != 0 {
            let message = format!("flags {:#04x}, reserved {}", header.flags.0, header.reserved);
            return refuse(ErrorCode::UnknownFlags, message);
        }
        let Some(frame_type) = FrameType::from_u16(header.frame_type) else {
            return refuse(
                ErrorCode::UnknownRequest,
                format!("frame type {} is not defined", header.frame_type),
            );
        };
        let computed = body_crc(frame_type, header.flags, &control, &body);
        if computed != header.body_crc {
            return refuse(
                ErrorCode::ChecksumMismatch,
                format!("checksum {computed:08x}, the header says {:08x}", header.body_crc),
            );
        }
        if !body.is_empty() && !frame_type.allows_data(header.flags) {
            let message = format!("{} carries no data part", frame_type.name());
            return refuse(ErrorCode::MalformedFrame, message);
        }
        let FrameHeader { flags, correlation, .. } = *header;
        Ok(Frame { frame_type, flags, correlation, control, data: body })
    }

    /// Decodes the control part.
    pub fn decode<T: Wire>(&self) -> Result<T, DecodeError> {
        T::decode(&self.control)
    }

    /// The answer to a call: its control part, or the error instead of it. An answer that cannot
    /// be read is an error of the peer (`MalformedFrame`).
    pub fn answer<C: Call>(&self) -> Result<C::Answer, ErrorAnswer> {
        if self.flags.is_error() {
            return Err(self.decode::<ErrorAnswer>().unwrap_or_else(ErrorAnswer::from));
        }
        if self.frame_type != C::TYPE || !self.flags.is_answer() {
            let message =
                format!("{} instead of an answer to {:?}", self.frame_type.name(), C::TYPE);
            return Err(ErrorAnswer::new(ErrorCode::MalformedFrame, message));
        }
        self.decode::<C::Answer>().map_err(ErrorAnswer::from)
    }
}

impl From<DecodeError> for ErrorAnswer {
    fn from(error: DecodeError) -> ErrorAnswer {
        let code = match error.problem {
            DecodeProblem::Name(_) => ErrorCode::InvalidName,
            DecodeProblem::Value { .. } => ErrorCode::InvalidRequest,
            DecodeProblem::Truncated { .. }
            | DecodeProblem::Trailing { .. }
            | DecodeProblem::Utf8
            | DecodeProblem::DataLength { .. } => ErrorCode::MalformedFrame,
        };
        ErrorAnswer::new(code, error.to_string())
    }
}

fn body_crc(frame_type: FrameType, flags: FrameFlags, control: &[u8], data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(control);
    if frame_type == FrameType::Produce && flags == FrameFlags::NONE {
        crc.update(data.get(..BATCH_HEADER_BYTES).unwrap_or(data));
    }
    crc.finalize()
}

/// What is to be known of a data part that is written separately.
pub(super) struct DataPart<'a> {
    pub(super) bytes: u32,
    /// The bytes the CRC binds (PRODUCE); empty elsewhere.
    pub(super) head: &'a [u8],
}

impl DataPart<'_> {
    pub(super) const NONE: DataPart<'static> = DataPart { bytes: 0, head: &[] };
}

/// Appends header and control part of a frame.
pub(super) fn encode<T: Wire>(
    out: &mut Vec<u8>,
    (frame_type, flags): (FrameType, FrameFlags),
    correlation: u64,
    body: &T,
    data: DataPart<'_>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    body.put(out);
    let (_, frame) = out.split_at_mut(start);
    let Some((header, control)) = frame.split_first_chunk_mut::<HEADER_BYTES>() else {
        unreachable!("the header's bytes were appended above");
    };
    *header = FrameHeader {
        version: LAYOUT_VERSION,
        flags,
        frame_type: frame_type.as_u16(),
        reserved: 0,
        correlation,
        control_bytes: u32::try_from(control.len()).expect("a control part below 4 GiB"),
        data_bytes: data.bytes,
        body_crc: body_crc(frame_type, flags, control, data.head),
    }
    .to_bytes();
}

/// Appends a request without data.
pub fn encode_call<C: Call>(out: &mut Vec<u8>, correlation: u64, call: &C) {
    encode(out, (C::TYPE, FrameFlags::NONE), correlation, call, DataPart::NONE);
}

/// Appends an answer without data.
pub fn encode_answer<C: Call>(out: &mut Vec<u8>, correlation: u64, answer: &C::Answer) {
    encode(out, (C::TYPE, FrameFlags::ANSWER), correlation, answer, DataPart::NONE);
}

/// Appends an error as the answer to a request of this type.
pub fn encode_error(out: &mut Vec<u8>, kind: FrameType, correlation: u64, error: &ErrorAnswer) {
    encode(out, (kind, FrameFlags::ERROR), correlation, error, DataPart::NONE);
}

/// Appends a notice without data; `correlation` is 0 but for a PUSHBACK that answers a PRODUCE.
pub fn encode_notice<N: Notice>(out: &mut Vec<u8>, correlation: u64, notice: &N) {
    encode(out, (N::TYPE, FrameFlags::NONE), correlation, notice, DataPart::NONE);
}

/// Checks and decodes one frame as every type it could be; never panics, and what decodes encodes
/// back to the same bytes.
pub fn fuzz_frame(data: &[u8]) {
    let Some((raw, body)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    let Ok(header) = FrameHeader::parse(raw, FrameLimits::DEFAULT) else { return };
    let _ = Frame::check(&header, Bytes::copy_from_slice(body));
    super::fuzz_bodies(body);
}
