//! Looks at one limited topic now and then: what must go, how fast a throttled one may grow, and
//! whether it is full.
//!
//! # Invariants
//! The slope of a throttled topic is what is reclaimed and a tenth of the room that is left, per second:
//! growth ends before the limit, unless one batch is larger than what is left.

use std::time::Duration;

use super::topic::throttle_from;
use super::{AtLimit, TopicLimit, TopicRules};
use crate::broker::flow::Forecast;

/// Time over which a throttled topic may use up the room it has.
const HORIZON_S: u64 = 10;

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes of all partitions.
    pub stored: u64,
    /// Segments of all partitions.
    pub segments: u32,
    /// Until retention ends for the oldest segment; `None` = it is kept for ever.
    pub retention_edge: Option<Duration>,
    /// Whether a group protects the oldest segment of each partition.
    pub protected: bool,
}

/// What a topic that drops its oldest has too much of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Over {
    /// Bytes.
    pub bytes: u64,
    /// Segments.
    pub segments: u32,
}

/// A change of a topic's fullness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicEdge {
    /// It refuses, or slows down.
    Limited,
    /// It does not any more.
    Free,
}

/// The looks at one topic.
#[derive(Clone, Debug, Default)]
pub struct TopicWatch {
    forecast: Forecast,
    limited: bool,
}

impl TopicWatch {
    /// Takes a look: publishes what follows for admission, and says when the topic becomes limited
    /// or free.
    pub fn look(
        &mut self,
        now: Duration,
        rules: &TopicRules,
        measured: &Measured,
        limit: &TopicLimit,
    ) -> Option<TopicEdge> {
        limit.measured(measured.stored);
        let room = rules.max_bytes.saturating_sub(measured.stored);
        self.forecast.observe(now, limit.written(), room);
        let slope = match rules.at_limit {
            AtLimit::Throttle => {
                // Before it is reached, the slope is what it will be where it begins.
                let room = room.min(rules.max_bytes.saturating_sub(throttle_from(rules)));
                self.forecast.reclaim_bps().saturating_add(room / HORIZON_S).max(1)
            }
            _ => u64::MAX,
        };
        limit.publish(slope, measured.retention_edge, measured.protected, now);
        let was = self.limited;
        self.limited = measured.stored > throttle_from(rules).min(rules.max_bytes)
            || limit.refusals(now).1.is_some();
        match (was, self.limited) {
            (false, true) => Some(TopicEdge::Limited),
            (true, false) => Some(TopicEdge::Free),
            _ => None,
        }
    }

    /// What has to go by the policy `drop_oldest`; `None` when nothing has to, or may.
    pub fn over(
        rules: &TopicRules,
        segments_max: Option<u32>,
        measured: &Measured,
    ) -> Option<Over> {
        if rules.at_limit != AtLimit::DropOldest || measured.protected {
            return None;
        }
        let over = Over {
            bytes: measured.stored.saturating_sub(rules.max_bytes),
            segments: segments_max.map_or(0, |max| measured.segments.saturating_sub(max)),
        };
        (over != Over::default()).then_some(over)
    }

    /// Whether the topic refused or slowed down at the last look.
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Bytes a second that came back lately.
    pub fn reclaim_bps(&self) -> u64 {
        self.forecast.reclaim_bps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::flow::Settled;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn rules(at_limit: AtLimit) -> TopicRules {
        TopicRules { max_bytes: 1_000_000, at_limit, slack: 0 }
    }

    fn stored(stored: u64) -> Measured {
        Measured { stored, ..Measured::default() }
    }

    /// A producer that comes back exactly when it is told, for some minutes, while `reclaim` bytes a
    /// second go; the bytes stored each second.
    fn run(at_limit: AtLimit, reclaim: u64) -> Vec<u64> {
        let (limit, rules, mut watch) =
            (TopicLimit::default(), rules(at_limit), TopicWatch::default());
        let (mut bytes, mut next, mut history) = (0, ms(0), Vec::new());
        for at in 0..300_000 {
            let now = ms(at);
            if at % 1_000 == 0 {
                bytes = limit.stored().saturating_sub(reclaim);
                watch.look(now, &rules, &stored(bytes), &limit);
                history.push(bytes);
            }
            while now >= next {
                match limit.admit(1_000, &rules, now) {
                    Ok(_) => limit.settle(1_000, Settled::Written),
                    Err(held) => next = now + ms(u64::from(held.retry_after_ms.max(1))),
                }
            }
        }
        history.push(bytes);
        history
    }

    #[test]
    fn a_throttled_topic_settles_below_its_limit_where_ingest_is_reclaim() {
        let history = run(AtLimit::Throttle, 2_000);
        assert!(history.iter().all(|bytes| *bytes < 1_000_000));
        let late = &history[100..];
        let (least, most) = (late.iter().min().expect("some"), late.iter().max().expect("some"));
        assert!(*least > 900_000, "{least}");
        assert!(most - least < 60_000, "{least} to {most}");
    }

    #[test]
    fn a_throttled_topic_that_nobody_trims_slows_down_for_ever() {
        let history = run(AtLimit::Throttle, 0);
        let grown = |from: usize, to: usize| history[to] - history[from];
        let tens = [grown(5, 15), grown(15, 25), grown(35, 45)];
        assert!(tens[0] > tens[1] && tens[1] > tens[2], "{tens:?}");
        assert!(history[300] <= 1_000_000);
    }

    #[test]
    fn edges_come_once() {
        let (limit, mut watch) = (TopicLimit::default(), TopicWatch::default());
        let mut look =
            |at, bytes| watch.look(ms(at), &rules(AtLimit::Throttle), &stored(bytes), &limit);
        assert_eq!([look(0, 900_000), look(1, 900_001)], [None, Some(TopicEdge::Limited)]);
        assert_eq!([look(2, 999_000), look(3, 10)], [None, Some(TopicEdge::Free)]);
    }

    #[test]
    fn only_drop_oldest_drops_and_never_what_is_protected() {
        let full = Measured { stored: 1_000_500, segments: 12, ..Measured::default() };
        let over =
            |at_limit, measured: &Measured| TopicWatch::over(&rules(at_limit), Some(10), measured);
        assert_eq!(over(AtLimit::DropOldest, &full), Some(Over { bytes: 500, segments: 2 }));
        assert_eq!(over(AtLimit::DropOldest, &stored(1_000_000)), None);
        assert_eq!(over(AtLimit::DropOldest, &Measured { protected: true, ..full }), None);
        for at_limit in [AtLimit::Reject, AtLimit::Throttle, AtLimit::Hold] {
            assert_eq!(over(at_limit, &full), None);
        }
    }
}
