//! Why the coordinator refuses a request.

use crate::types::{ErrorCode, ErrorKind};

/// A refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No group has this name.
    #[error("group {group:?} does not exist")]
    GroupNotFound {
        /// The name.
        group: String,
    },
    /// The member is not in the group (any more): drop all partitions, join again.
    #[error("member {member_id:?} is not in the group")]
    UnknownMember {
        /// The member.
        member_id: String,
    },
    /// The member's epoch is not the coordinator's.
    #[error("member epoch {found} is not the current {expected}")]
    StaleMemberEpoch {
        /// The coordinator's.
        expected: i32,
        /// The request's.
        found: i32,
    },
    /// Another process took this static name over.
    #[error("instance {instance_id:?} belongs to another member now")]
    InstanceFenced {
        /// The static name.
        instance_id: String,
    },
    /// The group has members.
    #[error("the group has {members} active members")]
    GroupNotEmpty {
        /// How many.
        members: usize,
    },
    /// A limit is reached.
    #[error("{limit} is {max}")]
    Limit {
        /// The option's name.
        limit: &'static str,
        /// Its value.
        max: u32,
    },
    /// A field has a value that is not allowed.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist")]
    TopicNotFound {
        /// Its name or id.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    PartitionNotFound {
        /// Its name or id.
        topic: String,
        /// The number.
        partition: u32,
    },
    /// The change could not be made durable; the request had no effect.
    #[error("the change could not be stored: {cause}")]
    NotStored {
        /// The stable code of what the log said.
        code: ErrorCode,
        /// What it said.
        cause: String,
    },
    /// The broker is going down.
    #[error("the broker is shutting down")]
    Closed,
}

impl GroupError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            GroupError::GroupNotFound { .. } => ErrorCode::GroupNotFound,
            GroupError::UnknownMember { .. } => ErrorCode::UnknownMember,
            GroupError::StaleMemberEpoch { .. } => ErrorCode::StaleMemberEpoch,
            GroupError::InstanceFenced { .. } => ErrorCode::InstanceFenced,
            GroupError::GroupNotEmpty { .. } => ErrorCode::GroupNotEmpty,
            GroupError::Limit { .. } => ErrorCode::GroupLimit,
            GroupError::Invalid { .. } => ErrorCode::InvalidRequest,
            GroupError::TopicNotFound { .. } => ErrorCode::TopicNotFound,
            GroupError::PartitionNotFound { .. } => ErrorCode::PartitionNotFound,
            GroupError::NotStored { code, .. } => *code,
            GroupError::Closed => ErrorCode::Draining,
        }
    }

    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        self.code().kind()
    }
}
