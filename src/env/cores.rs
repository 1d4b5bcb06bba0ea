//! On which cores a thread may run.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The core this thread runs on now.
pub fn current_core() -> usize {
    sched_getcpu()
}

/// A set of cores.
#[derive(Clone)]
pub struct Cores(CpuSet);

impl Cores {
    /// Those that this thread may run on.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_this_thread() -> io::Result<Cores> {
        Ok(Cores(sched_getaffinity(None)?))
    }

    /// One of them alone; `None` when it is not among them.
    pub fn only(&self, core: usize) -> Option<Cores> {
        if core >= CpuSet::MAX_CPU || !self.0.is_set(core) {
            return None;
        }
        let mut one = CpuSet::new();
        one.set(core);
        Some(Cores(one))
    }

    /// Has this thread run on them only.
    ///
    /// # Errors
    /// What the system says: a container may forbid it.
    pub fn keep_this_thread(&self) -> io::Result<()> {
        Ok(sched_setaffinity(None, &self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_the_core_it_is_kept_on() {
        let all = Cores::of_this_thread().expect("known");
        let core = current_core();
        let one = all.only(core).expect("it runs there");
        one.keep_this_thread().expect("allowed");
        assert_eq!(current_core(), core);
        assert!(one.only(core + 1).is_none(), "another core is not among them");
        all.keep_this_thread().expect("allowed");
        assert!(all.only(usize::MAX).is_none());
    }
}
