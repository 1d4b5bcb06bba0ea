//! The main job, shown and checked: orders published as events, subscribers at their own pace, a
//! crash, a replay, and totals that must agree to the last digit.

pub mod board;
pub mod children;
pub mod generator;
pub mod input;
pub mod ledger;
pub mod order;
pub mod tally;
pub mod verdict;
