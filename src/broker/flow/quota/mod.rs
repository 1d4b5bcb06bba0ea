//! Quotas: who may use how much per second or at a time, as operators set it, edited live.
//!
//! A [`QuotaTable`] says which records apply to somebody, a [`QuotaTree`] holds one limit per
//! entity and resource, a [`Chain`] is all limits of one connection, topic or group, resolved once
//! and charged per batch. Without a quota a chain is empty and costs nothing.
//!
//! Deliberately absent: persistence (the catalog's), text forms (`types`), and any wait: a refusal
//! says how long, and the caller is told.

mod chain;
mod cost;
mod limit;
mod members;
mod places;
mod table;
#[cfg(test)]
mod tests;
mod tree;

pub use chain::{Chain, LevelHold, QuotaRefusal, in_time};
pub use cost::{Cost, Direction};
pub use places::Place;
pub use table::{QuotaTable, Scope, Subject};
pub use tree::{QuotaOptions, QuotaTree};
