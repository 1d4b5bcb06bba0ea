//! How fast a group reads while it has something to read, from what it commits.
//!
//! Groups commit now and then, so a rate over fixed windows would jump by a commit. It is measured
//! from one commit to another instead, over the last of them.

use std::collections::VecDeque;
use std::time::Duration;

/// Commits a rate is measured over.
const COMMITS: usize = 16;
/// A group that committed nothing for this many of its usual intervals has become slower.
const LATE_INTERVALS: u32 = 2;

/// The rate of one group on one topic.
#[derive(Clone, Debug, Default)]
pub(super) struct CommitRate {
    /// When how many records had been committed in total, at each commit of the current stretch
    /// of lag; the first is where the stretch began.
    commits: VecDeque<(Duration, u64)>,
    per_s: Option<u64>,
    /// Longest time between two commits of late, of this stretch and those before.
    usual: Duration,
}

impl CommitRate {
    /// Records per second, as last measured; `None` before that.
    pub(super) fn per_s(&self) -> Option<u64> {
        self.per_s
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        *self = CommitRate::default();
    }

    /// By `now` the group has committed `total` records. Without lag it has nothing to read, which
    /// says nothing about how fast it would.
    pub(super) fn note(&mut self, total: u64, has_lag: bool, now: Duration) {
        match self.commits.back() {
            Some((at, last)) if total > *last => {
                // Where a stretch began is no commit: the first one may come at any time after.
                if self.commits.len() > 1 {
                    self.usual = now.saturating_sub(*at).max(self.usual / 8 * 7);
                }
                self.commits.push_back((now, total));
            }
            None if has_lag => self.commits.push_back((now, total)),
            _ => {}
        }
        if self.commits.len() > COMMITS {
            self.commits.pop_front();
        }
        self.per_s = self.measured(now).or(self.per_s);
        if !has_lag {
            self.commits.clear();
        }
    }

    fn measured(&self, now: Duration) -> Option<u64> {
        let (first, last) = (self.commits.front()?, self.commits.back()?);
        let intervals = u32::try_from(self.commits.len() - 1).ok().filter(|count| *count > 0)?;
        let span = last.0.saturating_sub(first.0);
        let usual = self.usual.max(span / intervals);
        let late = now.saturating_sub(last.0) > usual * LATE_INTERVALS;
        let span = if late { now.saturating_sub(first.0) } else { span };
        let per_s = u128::from(last.1 - first.1) * 1_000_000_000 / span.as_nanos().max(1);
        u64::try_from(per_s).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_does_not_jump_with_commits() {
        let mut rate = CommitRate::default();
        for step in 0..200 {
            let now = ms(step * 100);
            rate.note(step / 10 * 500, true, now);
            if step >= 20 {
                assert!(rate.per_s().expect("two commits").abs_diff(500) <= 5, "at {now:?}");
            }
        }
    }

    #[test]
    fn a_group_without_lag_keeps_its_rate_and_one_that_stalls_loses_it() {
        let mut rate = CommitRate::default();
        rate.note(0, true, ms(0));
        rate.note(1_000, true, ms(1_000));
        rate.note(2_000, false, ms(2_000));
        rate.note(2_000, false, ms(60_000));
        assert_eq!(rate.per_s(), Some(1_000));
        rate.note(2_000, true, ms(70_000));
        rate.note(2_100, true, ms(71_000));
        assert_eq!(rate.per_s(), Some(100));
        rate.note(2_100, true, ms(80_000));
        assert_eq!(rate.per_s(), Some(10));
    }
}
