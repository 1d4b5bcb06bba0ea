//! What may go: a decision over sealed segments, oldest first.
//!
//! The active segment never goes, however old: it is rolled by an append first. Time counts from
//! `min(largest create time, append time + allowed skew)`, so that a producer whose clock is ahead
//! cannot pin data, nor one whose clock is behind lose it to a later segment.

use std::sync::Arc;
use std::time::Duration;

use super::footer::Footer;
use super::options::PartitionOptions;
use super::segment::Segment;
use crate::types::{Offset, Timestamp};

/// The offset from which on records are kept; `None` when nothing is to go.
pub(crate) fn keep_from(
    segments: &[Arc<Segment>],
    options: &PartitionOptions,
    now: Timestamp,
    skew: Duration,
) -> Option<Offset> {
    let facts: Vec<SegmentFacts> = segments.iter().map(|segment| facts(segment, skew)).collect();
    keep_from_facts(&facts, options, now)
}

/// What retention looks at.
struct SegmentFacts {
    bytes: u64,
    /// `None` for the active segment.
    sealed: Option<(Offset, Timestamp)>,
}

fn facts(segment: &Segment, skew: Duration) -> SegmentFacts {
    let state = segment.read();
    let sealed = state.footer.as_ref().map(|f| (f.tail.next_offset, retention_time(f, skew)));
    drop(state);
    SegmentFacts { bytes: segment.used_bytes(), sealed }
}

/// From when on the age of a sealed segment counts.
fn retention_time(footer: &Footer, skew: Duration) -> Timestamp {
    let skew_ms = i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
    let latest = footer.max_append_time.0.saturating_add(skew_ms);
    match footer.tail.max_timestamp {
        Timestamp::NONE => footer.max_append_time,
        Timestamp(created) => Timestamp(created.min(latest)),
    }
}

fn keep_from_facts(
    segments: &[SegmentFacts],
    options: &PartitionOptions,
    now: Timestamp,
) -> Option<Offset> {
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut keep = None;
    for segment in segments {
        let Some((next, time)) = segment.sealed else { break };
        let age_ms = u64::try_from(now.0.saturating_sub(time.0)).unwrap_or(0);
        let expired = options.retention.is_some_and(|limit| u128::from(age_ms) > limit.as_millis());
        let over = options.retention_bytes.is_some_and(|limit| bytes > limit);
        if !expired && !over {
            break;
        }
        keep = Some(next);
        bytes -= segment.bytes;
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tail::SegmentTail;

    fn segment(bytes: u64, next: i64, time: i64) -> SegmentFacts {
        SegmentFacts { bytes, sealed: Some((Offset(next), Timestamp(time))) }
    }

    fn active(bytes: u64) -> SegmentFacts {
        SegmentFacts { bytes, sealed: None }
    }

    fn options(ms: Option<u64>, bytes: Option<u64>) -> PartitionOptions {
        PartitionOptions {
            retention: ms.map(Duration::from_millis),
            retention_bytes: bytes,
            ..PartitionOptions::default()
        }
    }

    #[test]
    fn old_segments_go_and_the_active_one_stays() {
        let segments = [segment(10, 5, 100), segment(10, 9, 200), active(10)];
        let keep = |now| keep_from_facts(&segments, &options(Some(50), None), Timestamp(now));
        assert_eq!(keep(150), None);
        assert_eq!(keep(151), Some(Offset(5)));
        assert_eq!(keep(1_000_000), Some(Offset(9)));
    }

    #[test]
    fn a_young_segment_protects_what_is_behind_it() {
        let segments = [segment(10, 5, 900), segment(10, 9, 1), active(1)];
        assert_eq!(keep_from_facts(&segments, &options(Some(500), None), Timestamp(1000)), None);
    }

    #[test]
    fn too_many_bytes_push_out_the_oldest() {
        let segments = [segment(10, 5, 0), segment(10, 9, 0), active(10)];
        let keep = |max| keep_from_facts(&segments, &options(None, Some(max)), Timestamp(0));
        assert_eq!(keep(30), None);
        assert_eq!(keep(29), Some(Offset(5)));
        assert_eq!(keep(0), Some(Offset(9)));
    }

    #[test]
    fn a_clock_ahead_does_not_pin_data() {
        let tail =
            SegmentTail { max_timestamp: Timestamp(i64::MAX), ..SegmentTail::empty(Offset(0)) };
        let footer = Footer { tag: 0, tail, max_append_time: Timestamp(100) };
        assert_eq!(retention_time(&footer, Duration::from_millis(7)), Timestamp(107));
        let none = SegmentTail { max_timestamp: Timestamp::NONE, ..tail };
        let footer = Footer { tail: none, ..footer };
        assert_eq!(retention_time(&footer, Duration::from_millis(7)), Timestamp(100));
    }
}
