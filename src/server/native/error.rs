//! Broker errors to wire codes: exhaustive, so that a new error does not compile until somebody
//! chose its code here.

use crate::broker::groups::GroupError;
use crate::broker::{
    AlterTopicError, CommitError, CreateTopicError, DeleteTopicError, FetchError,
    InitProducerError, ProduceError, QuotaChangeError, TrimError,
};
use crate::protocol::native::{ErrorAnswer, ErrorDetail};
use crate::types::{ConfigError, ErrorCode, Pushback};

/// How a produce that failed is answered: back pressure has a frame of its own.
pub(super) enum ProduceRefusal {
    /// By a PUSHBACK.
    Pushback(Pushback),
    /// By an error answer.
    Error(ErrorAnswer),
}

impl From<ProduceError> for ProduceRefusal {
    fn from(error: ProduceError) -> ProduceRefusal {
        let message = error.to_string();
        let answer = |code| ErrorAnswer::new(code, message);
        ProduceRefusal::Error(match error {
            ProduceError::Pushback(pushback) => return ProduceRefusal::Pushback(pushback),
            ProduceError::Reserved(_) => answer(ErrorCode::InvalidName),
            ProduceError::TopicNotFound => answer(ErrorCode::TopicNotFound),
            ProduceError::PartitionNotFound(_) => answer(ErrorCode::PartitionNotFound),
            ProduceError::InvalidBatch { .. } => answer(ErrorCode::InvalidBatch),
            ProduceError::BatchTooLarge { limit, .. } => {
                answer(ErrorCode::BatchTooLarge).with_detail(ErrorDetail::BytesMax { bytes: limit })
            }
            ProduceError::OutOfOrderSequence { expected, found } => {
                answer(ErrorCode::OutOfOrderSequence)
                    .with_detail(ErrorDetail::Sequence { expected, found })
            }
            ProduceError::ProducerFenced { .. } => answer(ErrorCode::ProducerFenced),
            ProduceError::DuplicateUnknown => answer(ErrorCode::DuplicateUnknown),
            ProduceError::ReadOnly { .. } => answer(ErrorCode::PartitionReadOnly),
            ProduceError::Latched { .. } => answer(ErrorCode::DataDirLatched),
            ProduceError::Fenced { .. } => answer(ErrorCode::PartitionFenced),
            ProduceError::Closed => answer(ErrorCode::Draining),
        })
    }
}

/// An error as an answer on the wire.
pub(super) trait ToAnswer {
    fn to_answer(&self) -> ErrorAnswer;
}

impl ToAnswer for FetchError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            FetchError::TopicNotFound => answer(ErrorCode::TopicNotFound),
            FetchError::PartitionNotFound(_) => answer(ErrorCode::PartitionNotFound),
            FetchError::OffsetOutOfRange { start, end } => answer(ErrorCode::OffsetOutOfRange)
                .with_detail(ErrorDetail::OffsetRange { start: *start, end: *end }),
            FetchError::Corrupt { first_bad, next_good } => answer(ErrorCode::CorruptRange)
                .with_detail(ErrorDetail::BadRange {
                    first_bad: *first_bad,
                    next_good: *next_good,
                }),
            FetchError::Disk { .. } => answer(ErrorCode::DiskRead),
            FetchError::TooManyPartitions { .. } => answer(ErrorCode::InvalidRequest),
            FetchError::Closed => answer(ErrorCode::Draining),
        }
    }
}

impl ToAnswer for TrimError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            TrimError::TopicNotFound => answer(ErrorCode::TopicNotFound),
            TrimError::PartitionNotFound(_) => answer(ErrorCode::PartitionNotFound),
            TrimError::OffsetOutOfRange { .. } => answer(ErrorCode::OffsetOutOfRange),
            TrimError::Storage { .. } => answer(ErrorCode::PartitionReadOnly),
            TrimError::Closed => answer(ErrorCode::Draining),
        }
    }
}

impl ToAnswer for CommitError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            CommitError::Pushback(pushback) => pushback.clone().into(),
            CommitError::Latched { .. } => answer(ErrorCode::DataDirLatched),
            CommitError::TooLarge { .. } => answer(ErrorCode::InvalidRequest),
            CommitError::Closed => answer(ErrorCode::Draining),
        }
    }
}

impl ToAnswer for ConfigError {
    fn to_answer(&self) -> ErrorAnswer {
        let code = match self {
            ConfigError::UnknownKey { .. } | ConfigError::Value { .. } => ErrorCode::InvalidConfig,
        };
        ErrorAnswer::new(code, self.to_string())
    }
}

impl ToAnswer for CreateTopicError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            CreateTopicError::Reserved(_) => answer(ErrorCode::InvalidName),
            CreateTopicError::Exists(_) => answer(ErrorCode::TopicExists),
            CreateTopicError::NoPartitions => answer(ErrorCode::InvalidRequest),
            CreateTopicError::Limit { .. } => answer(ErrorCode::TooManyTopics),
            CreateTopicError::Config(_) => answer(ErrorCode::InvalidConfig),
            CreateTopicError::Commit(error) => error.to_answer(),
        }
    }
}

impl ToAnswer for AlterTopicError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            AlterTopicError::Reserved(_) => answer(ErrorCode::InvalidName),
            AlterTopicError::NotFound => answer(ErrorCode::TopicNotFound),
            AlterTopicError::Setting(error) => error.to_answer(),
            AlterTopicError::Config(_) => answer(ErrorCode::InvalidConfig),
            AlterTopicError::FewerPartitions { .. } => answer(ErrorCode::InvalidRequest),
            AlterTopicError::Limit { .. } => answer(ErrorCode::TooManyTopics),
            AlterTopicError::Commit(error) => error.to_answer(),
        }
    }
}

impl ToAnswer for DeleteTopicError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            DeleteTopicError::Reserved(_) => answer(ErrorCode::InvalidName),
            DeleteTopicError::NotFound => answer(ErrorCode::TopicNotFound),
            DeleteTopicError::Commit(error) => error.to_answer(),
        }
    }
}

impl ToAnswer for QuotaChangeError {
    fn to_answer(&self) -> ErrorAnswer {
        let answer = |code| ErrorAnswer::new(code, self.to_string());
        match self {
            QuotaChangeError::Quota(_) => answer(ErrorCode::InvalidConfig),
            QuotaChangeError::NotFound { .. } => answer(ErrorCode::QuotaNotFound),
            QuotaChangeError::Limit { .. } => answer(ErrorCode::TooManyTopics),
            QuotaChangeError::Commit(error) => error.to_answer(),
        }
    }
}

impl ToAnswer for InitProducerError {
    fn to_answer(&self) -> ErrorAnswer {
        match self {
            InitProducerError::UnknownProducer(_) => {
                ErrorAnswer::new(ErrorCode::InvalidRequest, self.to_string())
            }
            InitProducerError::Commit(error) => error.to_answer(),
        }
    }
}

impl ToAnswer for GroupError {
    fn to_answer(&self) -> ErrorAnswer {
        ErrorAnswer::new(self.code(), self.to_string())
    }
}

/// The topic is not there.
pub(super) fn no_topic(which: impl std::fmt::Display) -> ErrorAnswer {
    ErrorAnswer::new(ErrorCode::TopicNotFound, format!("no topic {which}"))
}

/// A field has a value that is not allowed.
pub(super) fn invalid(message: impl Into<String>) -> ErrorAnswer {
    ErrorAnswer::new(ErrorCode::InvalidRequest, message)
}
