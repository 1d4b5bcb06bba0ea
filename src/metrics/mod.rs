//! Counters, gauges and histograms that cost an atomic each, and the names they are shown under.
//! Deliberately absent: an exporter, and any lock; front ends walk a [`Sheet`] and render it their
//! own way.

mod counter;
mod histogram;
mod sheet;

pub use counter::{Counter, Gauge};
pub use histogram::{Histogram, HistogramSnapshot};
pub use sheet::{Metric, Reading, Sheet};
