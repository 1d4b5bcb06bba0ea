//! The error answer: what any request may get instead of its own answer (flag ERROR).

use crate::types::{ErrorCode, Offset, Pushback};

wire_enum! {
    /// Numbers that belong to an error code, for programs; the message has them for people.
    pub enum ErrorDetail {
        /// Nothing more to say.
        0 => None,
        /// With E0204: what can be read.
        1 => OffsetRange {
            /// First offset that can be read.
            start: Offset,
            /// First offset that cannot be read yet.
            end: Offset,
        },
        /// With E0205 and E0603: what is damaged.
        2 => BadRange {
            /// First offset that cannot be read.
            first_bad: Offset,
            /// First offset after it that can, when there is one.
            next_good: Option<Offset>,
        },
        /// With E0303: the sequence numbers that met.
        3 => Sequence {
            /// The next sequence number of this producer.
            expected: i32,
            /// The one that came.
            found: i32,
        },
        /// With E0105: the protocol versions the broker speaks.
        4 => Versions {
            /// Lowest.
            min: u16,
            /// Highest.
            max: u16,
        },
        /// With E0103: the largest frame or batch that is taken.
        5 => BytesMax {
            /// In bytes.
            bytes: u64,
        },
    }
}

wire_struct! {
    /// Why a request was refused or failed.
    pub struct ErrorAnswer {
        /// The stable error code.
        pub code: ErrorCode,
        /// What happened, for people.
        pub message: String,
        /// When to try again, in milliseconds; 0 = no time can be named.
        pub retry_after_ms: u32,
        /// Numbers that belong to the code.
        pub detail: ErrorDetail,
        /// The whole refusal, when back pressure is the reason.
        pub pushback: Option<Pushback>,
    }
}

impl ErrorAnswer {
    /// An error with a message for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ErrorAnswer {
        ErrorAnswer {
            code,
            message: message.into(),
            retry_after_ms: 0,
            detail: ErrorDetail::None,
            pushback: None,
        }
    }

    /// Adds the code's numbers.
    pub fn with_detail(self, detail: ErrorDetail) -> ErrorAnswer {
        ErrorAnswer { detail, ..self }
    }
}

impl std::fmt::Display for ErrorAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<Pushback> for ErrorAnswer {
    fn from(pushback: Pushback) -> ErrorAnswer {
        ErrorAnswer {
            code: pushback.code.into(),
            message: pushback.to_string(),
            retry_after_ms: pushback.retry_after_ms,
            detail: ErrorDetail::None,
            pushback: Some(pushback),
        }
    }
}
