//! Which requests limits make an exception for.

use crate::protocol::native::FrameType;

/// Whether no quota on requests counts it: what takes load away, and what tells why there is any.
pub(super) fn is_free(kind: FrameType) -> bool {
    use FrameType as T;
    matches!(
        kind,
        T::Hello
            | T::Ping
            | T::PublisherClose
            | T::Unsubscribe
            | T::Pause
            | T::GroupHeartbeat
            | T::GroupCommit
            | T::Pressure
            | T::Why
            | T::QuotaSet
            | T::QuotaDelete
            | T::QuotaList
            | T::Trim
            | T::TopicDelete
    )
}

/// Whether a connection beyond the limits may ask it: what no quota counts, and what operators need
/// to find out.
pub(super) fn is_system(kind: FrameType) -> bool {
    use FrameType as T;
    is_free(kind)
        || matches!(
            kind,
            T::Goodbye
                | T::ClusterInfo
                | T::TopicList
                | T::TopicDescribe
                | T::TopicAlter
                | T::GroupCommitted
                | T::GroupDescribe
                | T::GroupList
                | T::GroupReset
                | T::GroupDelete
        )
}

/// Whether a request is taken while the server drains: consumers that stop still commit and leave,
/// and PRODUCE has a refusal of its own.
pub(super) fn is_taken_while_draining(kind: FrameType) -> bool {
    use FrameType as T;
    matches!(
        kind,
        T::Ping
            | T::Produce
            | T::Want
            | T::Credit
            | T::GroupCommit
            | T::GroupHeartbeat
            | T::Goodbye
    )
}
