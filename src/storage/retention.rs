//! What may go: a decision over sealed segments, oldest first.
//!
//! The active segment never goes, however old: it is rolled by an append first, or, under pressure,
//! retired (`partition_log/retire.rs`). Time counts from
//! `min(largest create time, append time + allowed skew)`, so that a producer whose clock is ahead
//! cannot pin data, nor one whose clock is behind lose it to a later segment.

use std::sync::Arc;
use std::time::Duration;

use super::footer::Footer;
use super::options::PartitionOptions;
use super::segment::Segment;
use crate::types::{Offset, Timestamp};

/// By what is decided.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) options: &'a PartitionOptions,
    /// See `StorageOptions::timestamp_skew_max`.
    pub(crate) skew: Duration,
    /// Segments with records from here on stay, whatever their age; `None` = nobody asks for that.
    pub(crate) protected: Option<Offset>,
}

/// The offset from which on records are kept; `None` when nothing is to go.
pub(crate) fn keep_from(
    segments: &[Arc<Segment>],
    rules: Rules<'_>,
    now: Timestamp,
) -> Option<Offset> {
    let facts: Vec<_> = segments.iter().map(|segment| facts(segment, rules.skew)).collect();
    keep_from_facts(&facts, rules, now)
}

/// Whether every record is past retention by time, and none is protected: those of `segments` that
/// are sealed, and of the others, which would end like `open` if they were sealed now.
pub(crate) fn is_all_expired(
    segments: &[Arc<Segment>],
    open: impl Iterator<Item = Footer>,
    rules: Rules<'_>,
    now: Timestamp,
) -> bool {
    let sealed = segments.iter().filter_map(|segment| segment.read().footer);
    sealed.chain(open).all(|footer| {
        let time = retention_time(&footer, rules.skew);
        rules.may_go(footer.tail.next_offset) && rules.is_expired(time, now)
    })
}

impl Rules<'_> {
    fn may_go(&self, next: Offset) -> bool {
        self.protected.is_none_or(|protected| next <= protected)
    }

    fn is_expired(&self, time: Timestamp, now: Timestamp) -> bool {
        let age_ms = u64::try_from(now.0.saturating_sub(time.0)).unwrap_or(0);
        self.options.retention.is_some_and(|limit| u128::from(age_ms) > limit.as_millis())
    }
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
pub(crate) fn retention_time(footer: &Footer, skew: Duration) -> Timestamp {
    let skew_ms = i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
    let latest = footer.max_append_time.0.saturating_add(skew_ms);
    match footer.tail.max_timestamp {
        Timestamp::NONE => footer.max_append_time,
        Timestamp(created) => Timestamp(created.min(latest)),
    }
}

fn keep_from_facts(segments: &[SegmentFacts], rules: Rules<'_>, now: Timestamp) -> Option<Offset> {
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut keep = None;
    for segment in segments {
        let Some((next, time)) = segment.sealed else { break };
        let over = rules.options.retention_bytes.is_some_and(|limit| bytes > limit);
        if !rules.may_go(next) || !(rules.is_expired(time, now) || over) {
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

    fn rules(options: &PartitionOptions) -> Rules<'_> {
        Rules { options, skew: Duration::ZERO, protected: None }
    }

    #[test]
    fn old_segments_go_and_the_active_one_stays() {
        let segments = [segment(10, 5, 100), segment(10, 9, 200), active(10)];
        let options = options(Some(50), None);
        let keep = |now| keep_from_facts(&segments, rules(&options), Timestamp(now));
        assert_eq!(keep(150), None);
        assert_eq!(keep(151), Some(Offset(5)));
        assert_eq!(keep(1_000_000), Some(Offset(9)));
    }

    #[test]
    fn a_young_segment_protects_what_is_behind_it() {
        let segments = [segment(10, 5, 900), segment(10, 9, 1), active(1)];
        let options = options(Some(500), None);
        assert_eq!(keep_from_facts(&segments, rules(&options), Timestamp(1000)), None);
    }

    #[test]
    fn protect_binds_retention() {
        let segments = [segment(10, 5, 100), segment(10, 9, 200), active(10)];
        for options in [options(Some(50), None), options(None, Some(0))] {
            let keep = |protected| {
                let rules = Rules { protected: Some(Offset(protected)), ..rules(&options) };
                keep_from_facts(&segments, rules, Timestamp(1_000_000))
            };
            assert_eq!([keep(4), keep(5), keep(8)], [None, Some(Offset(5)), Some(Offset(5))]);
            assert_eq!(keep(9), Some(Offset(9)));
        }
    }

    #[test]
    fn all_is_expired_when_what_is_not_sealed_is_too() {
        let options = options(Some(50), None);
        let open = |next, time| Footer {
            tag: 0,
            tail: SegmentTail {
                max_timestamp: Timestamp(time),
                ..SegmentTail::empty(Offset(next))
            },
            max_append_time: Timestamp(time),
        };
        let all = |rules: Rules<'_>, now| {
            is_all_expired(&[], [open(5, 100), open(9, 200)].into_iter(), rules, Timestamp(now))
        };
        assert!(!all(rules(&options), 250));
        assert!(all(rules(&options), 251));
        assert!(!all(Rules { protected: Some(Offset(8)), ..rules(&options) }, 251));
        let kept = PartitionOptions { retention: None, ..options.clone() };
        assert!(!all(rules(&kept), i64::MAX));
    }

    #[test]
    fn too_many_bytes_push_out_the_oldest() {
        let segments = [segment(10, 5, 0), segment(10, 9, 0), active(10)];
        let keep = |max| keep_from_facts(&segments, rules(&options(None, Some(max))), Timestamp(0));
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
