//! The limit of one topic on what it stores (DESIGN section 4, topic limits), and what happens there:
//! its policy.
//!
//! | policy | near the limit | at it |
//! |---|---|---|
//! | `reject` | nothing | TOPIC_FULL, Reject |
//! | `drop_oldest` | nothing | the oldest segments go; a little beyond, TOPIC_FULL, Hold; Reject when they are protected |
//! | `throttle` | from 90 % on what is reclaimed, and the rest over 10 s | TOPIC_FULL, Hold |
//! | `hold` | nothing | grants are withheld for up to 5 s, then TOPIC_FULL, Reject |
//!
//! # Invariants
//! Stored and reserved bytes together are at most `max_bytes`, or `max_bytes + slack` where the oldest
//! may go. Nothing is dropped by a policy other than `drop_oldest`.

mod slope;
mod topic;

pub use slope::{Measured, Over, TopicEdge, TopicWatch};
pub use topic::{AtLimit, TopicLimit, TopicRoom, TopicRules};
