//! Where a log writer runs: on the core whose thread hands it its batches.
//!
//! What was just received lies in that core's cache. Copied into the page cache there it costs about
//! two thirds of the processor time it costs on another core (docs/performance.md), and the thread that
//! received it waits for more meanwhile. The scheduler does not know this and prefers an idle core.
//!
//! When the batches come from several cores none of them is better, and the scheduler decides.

use crate::env::Cores;

/// Wakes after which it is decided again.
const WAKES: u32 = 16;
/// Of so many of them from one core the writer moves there.
const WAKES_OF_ONE: u32 = 14;

/// Decides where a writer runs by the cores from which it is woken.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// Where it is kept.
    at: Option<usize>,
    /// The core of the first wake since the last decision, and how many came from there.
    core: usize,
    same: u32,
    wakes: u32,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// To one core.
    To(usize),
    /// To wherever the scheduler likes.
    Anywhere,
}

impl Follow {
    /// It was woken for batches by a thread on this core.
    pub(crate) fn woken(&mut self, core: usize) -> Option<Move> {
        if self.wakes == 0 {
            (self.core, self.same) = (core, 0);
        }
        self.wakes += 1;
        self.same += u32::from(core == self.core);
        if self.wakes < WAKES {
            return None;
        }
        self.wakes = 0;
        let at = (self.same >= WAKES_OF_ONE).then_some(self.core);
        let moved = at != self.at;
        self.at = at;
        moved.then(|| at.map_or(Move::Anywhere, Move::To))
    }
}

/// The place of this thread.
pub(crate) struct Place {
    follow: Follow,
    /// Where it may run; `None` = it does not follow anybody.
    all: Option<Cores>,
}

impl Place {
    /// This thread's, which follows those that wake it or not.
    pub(crate) fn of_this_thread(follows: bool) -> Place {
        let all = follows.then(Cores::of_this_thread).and_then(Result::ok);
        Place { follow: Follow::default(), all }
    }

    /// It was woken for batches by a thread on this core. Where it cannot move it stays.
    pub(crate) fn woken(&mut self, core: usize) {
        let Some(all) = &self.all else { return };
        let kept = match self.follow.woken(core) {
            None => return,
            Some(Move::To(core)) => all.only(core).map_or(Ok(()), |one| one.keep_this_thread()),
            Some(Move::Anywhere) => all.keep_this_thread(),
        };
        if let Err(error) = kept {
            tracing::debug!(%error, "a log writer does not follow");
            self.all = None;
        }
    }

    /// Where threads may run that this one starts.
    pub(crate) fn everywhere(&self) -> Option<Cores> {
        self.all.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(follow: &mut Follow, cores: impl IntoIterator<Item = usize>) -> Vec<Move> {
        cores.into_iter().filter_map(|core| follow.woken(core)).collect()
    }

    #[test]
    fn a_writer_moves_to_the_core_that_wakes_it_and_follows_it() {
        let mut follow = Follow::default();
        assert_eq!(woken(&mut follow, [3; 15]), []);
        assert_eq!(woken(&mut follow, [3]), [Move::To(3)]);
        assert_eq!(woken(&mut follow, [3; 64]), [], "it is there");
        assert_eq!(woken(&mut follow, [1; 16]), [Move::To(1)]);
    }

    #[test]
    fn a_few_wakes_from_elsewhere_do_not_matter() {
        let mut follow = Follow::default();
        let mostly = |at: usize| if at % 8 == 5 { 7 } else { 2 };
        assert_eq!(woken(&mut follow, (0..64).map(mostly)), [Move::To(2)]);
    }

    #[test]
    fn a_writer_of_several_cores_runs_anywhere() {
        let mut follow = Follow::default();
        assert_eq!(woken(&mut follow, (0..64).map(|at| at % 2)), []);
        assert_eq!(woken(&mut follow, [0; 16]), [Move::To(0)]);
        assert_eq!(woken(&mut follow, (0..64).map(|at| at % 2)), [Move::Anywhere]);
    }
}
