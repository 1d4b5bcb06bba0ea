//! What back pressure is held to, measured: each case states its bounds, measures itself and says whether they
//! hold. Everything is compared within one run, alternated, by medians.

mod disk;
mod flood;
mod greedy;
mod isolation;
mod overload;
mod storm;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BenchError, Machine, Spread, Target};

pub use greedy::POOL_BYTES as GREEDY_POOL_BYTES;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// Five times the load there is room for: goodput and delay of what is admitted.
    Overload,
    /// A quota on one of eight topics of a connection: what the others lose.
    Isolation,
    /// A paced reader under a storm of producers: what it still gets.
    Storm,
    /// A full disk: what was acknowledged, and how soon it goes on.
    Disk,
    /// A thousand connections with ten publishers each: the broker's memory.
    Greedy,
    /// Instructions and bytes on the wire with and without enforcement.
    Cost,
}

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PressureOptions {
    /// Rounds; the median counts.
    pub rounds: usize,
    /// Measured time of one run.
    pub duration: Duration,
    /// Not measured, before it.
    pub warm_up: Duration,
}

/// What came of a case. The JSON fields are documented in `docs/performance.md` and stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Which.
    pub case: Case,
    /// Whether all bounds hold.
    pub holds: bool,
    /// What it is held to.
    pub bounds: Vec<Bound>,
    /// What else was measured, by name.
    pub figures: Vec<(String, Spread)>,
    /// The machine.
    pub machine: Machine,
}

/// A figure and what it is held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// What it is.
    pub name: String,
    /// Measured: the median counts.
    pub measured: Spread,
    /// The largest or the smallest it may be.
    pub limit: f64,
    /// Whether `limit` is the largest it may be.
    pub at_most: bool,
}

impl Bound {
    /// A figure that may not pass `limit`.
    pub fn at_most(name: &str, limit: f64, measured: Spread) -> Bound {
        Bound { name: name.to_owned(), measured, limit, at_most: true }
    }

    /// A figure that must reach `limit`.
    pub fn at_least(name: &str, limit: f64, measured: Spread) -> Bound {
        Bound { at_most: false, ..Bound::at_most(name, limit, measured) }
    }

    /// Whether it holds. Nothing measured is nothing held.
    pub fn holds(&self) -> bool {
        let (median, limit) = (self.measured.median, self.limit);
        self.measured.runs > 0 && if self.at_most { median <= limit } else { median >= limit }
    }

    /// For a person.
    pub fn line(&self) -> String {
        let Spread { median, min, max, .. } = self.measured;
        let verdict = if self.holds() { "holds" } else { "FAILS" };
        let relation = if self.at_most { "at most" } else { "at least" };
        format!(
            "{verdict}: {} {median:.3} ({min:.3} to {max:.3}), {relation} {}",
            self.name, self.limit
        )
    }
}

impl CaseReport {
    /// Of bounds and other figures.
    pub fn new(case: Case, bounds: Vec<Bound>, figures: Vec<(&str, Spread)>) -> CaseReport {
        CaseReport {
            case,
            holds: bounds.iter().all(Bound::holds),
            bounds,
            figures: figures.into_iter().map(|(name, of)| (name.to_owned(), of)).collect(),
            machine: Machine::describe(Path::new(".")),
        }
    }
}

/// Runs a case but for `Cost`, whose brokers run under another program.
pub async fn run_case(
    case: Case,
    (floor, broker): (&Target, &Target),
    options: &PressureOptions,
    mut progress: impl FnMut(String),
) -> Result<CaseReport, BenchError> {
    let progress: &mut dyn FnMut(String) = &mut progress;
    match case {
        Case::Overload => overload::run(broker, options, progress).await,
        Case::Isolation => isolation::run(broker, options, progress).await,
        Case::Storm => storm::run((floor, broker), options, progress).await,
        Case::Disk => disk::run(broker, progress).await,
        Case::Greedy => greedy::run(broker, options, progress).await,
        Case::Cost => Err(BenchError::Options("its brokers are started by whoever compares them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_by_its_median_and_only_when_measured() {
        let measured = Spread::of([1.0, 2.0, 9.0]);
        assert!(Bound::at_most("x", 2.0, measured).holds());
        assert!(!Bound::at_most("x", 1.9, measured).holds());
        assert!(Bound::at_least("x", 2.0, measured).holds());
        assert!(!Bound::at_most("x", 2.0, Spread::default()).holds());
        let line = Bound::at_least("x", 3.0, measured).line();
        assert_eq!(line, "FAILS: x 2.000 (1.000 to 9.000), at least 3");
    }
}
