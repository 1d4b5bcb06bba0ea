//! Why something the client was asked for did not happen.

use std::time::Duration;

use super::flow::Told;
use crate::protocol::native::{ErrorAnswer, ErrorDetail};
use crate::types::{Effects, ErrorCode, ErrorKind, Pushback, TopicName};

/// An error of any operation of the client. Cheap to clone: one refusal may concern many records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("{address} cannot be reached: {cause}")]
    Unreachable {
        /// Where to.
        address: String,
        /// What the operating system or the other side said.
        cause: String,
    },
    /// The connection broke while the request was under way: it may have had an effect.
    #[error("the connection to {address} was lost: {cause}")]
    ConnectionLost {
        /// Where to.
        address: String,
        /// What happened.
        cause: String,
    },
    /// No answer came in time: the request may have had an effect.
    #[error("no answer to {what} within {after:?}")]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The broker refused.
    #[error("{0}")]
    Refused(Box<ErrorAnswer>),
    /// The broker sent what the protocol does not allow.
    #[error("the broker's answer cannot be understood: {0}")]
    Protocol(String),
    /// A record was not acknowledged, and the last thing that was heard of it is not the whole
    /// truth: an earlier attempt may have written it, or none was made.
    #[error("{cause}; {}", match effects {
        Effects::None => "nothing was written",
        Effects::Unknown => "it may have been written all the same",
    })]
    Undelivered {
        /// What all attempts together may have done.
        effects: Effects,
        /// What was heard last.
        cause: Box<ClientError>,
    },
    /// The record, alone, is larger than the topic takes.
    #[error("the record needs a batch of {size_bytes} bytes; the topic takes {max_bytes}")]
    RecordTooLarge {
        /// Bytes of a batch with this record alone.
        size_bytes: usize,
        /// Largest batch.
        max_bytes: usize,
    },
    /// Stored or received records are damaged.
    #[error("records of {topic}/{partition} cannot be read: {cause}")]
    BadRecords {
        /// The topic.
        topic: TopicName,
        /// Its partition.
        partition: u32,
        /// What is wrong.
        cause: String,
    },
    /// An argument or option does not fit.
    #[error("{0}")]
    Invalid(String),
    /// This client, producer or consumer was closed.
    #[error("closed")]
    Closed,
}

impl ClientError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            ClientError::Unreachable { .. } => ErrorCode::Unreachable,
            ClientError::ConnectionLost { .. } => ErrorCode::ConnectionLost,
            ClientError::TimedOut { .. } => ErrorCode::TimedOut,
            ClientError::Refused(answer) => answer.code,
            ClientError::Undelivered { cause, .. } => cause.code(),
            ClientError::Protocol(_) => ErrorCode::MalformedFrame,
            ClientError::RecordTooLarge { .. } => ErrorCode::BatchTooLarge,
            ClientError::BadRecords { .. } => ErrorCode::CorruptRange,
            ClientError::Invalid(_) => ErrorCode::InvalidRequest,
            ClientError::Closed => ErrorCode::Interrupted,
        }
    }

    /// Whether what was asked for may have been done all the same. `Unknown` after a delivery that
    /// timed out on its way: who sends such a record again may write it twice.
    pub fn effects(&self) -> Effects {
        match self {
            ClientError::ConnectionLost { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Protocol(_)
            | ClientError::Closed => Effects::Unknown,
            ClientError::Undelivered { effects, .. } => *effects,
            ClientError::Refused(answer) => match (&answer.pushback, answer.code) {
                (Some(pushback), _) => pushback.effects,
                (
                    None,
                    ErrorCode::Internal
                    | ErrorCode::TimedOut
                    | ErrorCode::Draining
                    | ErrorCode::PartitionReadOnly
                    | ErrorCode::DataDirLatched,
                ) => Effects::Unknown,
                (None, _) => Effects::None,
            },
            ClientError::Unreachable { .. }
            | ClientError::RecordTooLarge { .. }
            | ClientError::BadRecords { .. }
            | ClientError::Invalid(_) => Effects::None,
        }
    }

    /// This error of an attempt, with what all attempts together may have done.
    pub(super) fn of_all_attempts(self, effects: Effects) -> ClientError {
        if self.effects() == effects {
            return self;
        }
        ClientError::Undelivered { effects, cause: Box::new(self) }
    }

    /// When to try again, where the broker named a time.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Undelivered { cause, .. } => cause.retry_after(),
            ClientError::Refused(answer) if answer.retry_after_ms > 0 => {
                Some(Duration::from_millis(u64::from(answer.retry_after_ms)))
            }
            _ => None,
        }
    }

    /// What the other side said about when to try again.
    pub(super) fn told(&self) -> Told {
        match (self.pushback(), self.retry_after()) {
            (Some(pushback), _) => Told::by(pushback),
            (None, Some(wait)) => Told::About(wait),
            (None, None) => Told::Nothing,
        }
    }

    /// The whole refusal, when back pressure is the reason.
    pub fn pushback(&self) -> Option<&Pushback> {
        match self {
            ClientError::Undelivered { cause, .. } => cause.pushback(),
            ClientError::Refused(answer) => answer.pushback.as_ref(),
            _ => None,
        }
    }

    /// Numbers that belong to a refusal.
    pub fn detail(&self) -> Option<&ErrorDetail> {
        match self {
            ClientError::Undelivered { cause, .. } => cause.detail(),
            ClientError::Refused(answer) => Some(&answer.detail),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        match self {
            ClientError::Refused(answer) => {
                matches!(answer.code.kind(), ErrorKind::Retry | ErrorKind::Throttle)
                    || answer.code == ErrorCode::Draining
                    || answer.code == ErrorCode::ChecksumMismatch
            }
            ClientError::Undelivered { cause, .. } => cause.is_passing(),
            ClientError::Unreachable { .. }
            | ClientError::ConnectionLost { .. }
            | ClientError::TimedOut { .. } => true,
            _ => false,
        }
    }
}

impl From<ErrorAnswer> for ClientError {
    fn from(answer: ErrorAnswer) -> ClientError {
        ClientError::Refused(Box::new(answer))
    }
}

impl From<Pushback> for ClientError {
    fn from(pushback: Pushback) -> ClientError {
        ErrorAnswer::from(pushback).into()
    }
}
