//! The list a front end walks to show every number under its name.

use super::{Counter, Gauge, Histogram, HistogramSnapshot};

/// One number at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(u64),
    /// A distribution.
    Histogram(HistogramSnapshot),
}

/// One number with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `stoplog_<what>_<unit>[_total]`, as Prometheus names metrics.
    pub name: &'static str,
    /// What it is of, when there are several of the name: bounded sets only, such as topics, never
    /// connections.
    pub labels: Vec<(&'static str, String)>,
    /// One line that says what it counts.
    pub help: &'static str,
    /// Its value.
    pub reading: Reading,
}

/// Collects metrics; sources add what they have, front ends render [`Sheet::metrics`].
#[derive(Debug, Default)]
pub struct Sheet {
    metrics: Vec<Metric>,
}

impl Sheet {
    /// An empty sheet.
    pub fn new() -> Sheet {
        Sheet::default()
    }

    /// Adds a counter's value.
    pub fn counter(&mut self, name: &'static str, help: &'static str, counter: &Counter) {
        self.push(name, help, Reading::Counter(counter.value()));
    }

    /// Adds a gauge's value.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, gauge: &Gauge) {
        self.push(name, help, Reading::Gauge(gauge.value()));
    }

    /// Adds a histogram's content.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, histogram: &Histogram) {
        self.push(name, help, Reading::Histogram(histogram.snapshot()));
    }

    /// Adds a value that is kept elsewhere.
    pub fn push(&mut self, name: &'static str, help: &'static str, reading: Reading) {
        self.push_of(name, help, Vec::new(), reading);
    }

    /// Adds one of several values of the same name.
    pub fn push_of(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Vec<(&'static str, String)>,
        reading: Reading,
    ) {
        assert!(name.starts_with("stoplog_"), "{name} lacks the prefix");
        self.metrics.push(Metric { name, labels, help, reading });
    }

    /// All metrics, in the order they were added.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_keeps_names_and_values() {
        let bytes = Counter::new();
        bytes.add(7);
        let mut sheet = Sheet::new();
        sheet.counter("stoplog_produce_bytes_total", "Bytes of accepted batches.", &bytes);
        assert_eq!(sheet.metrics()[0].reading, Reading::Counter(7));
    }
}
