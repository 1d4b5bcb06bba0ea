//! The broker's numbers as reports carry them.

use crate::metrics::{Metric, Reading, Sheet};
use crate::types::MetricValue;

/// Every number alone, histograms as count, sum and quantiles.
pub(super) fn values(sheet: &Sheet) -> Vec<MetricValue> {
    sheet.metrics().iter().flat_map(of_metric).collect()
}

/// Quantiles of a histogram that are shown, in per mille.
const QUANTILES: [(u64, &str); 3] = [(500, "0.5"), (990, "0.99"), (999, "0.999")];

fn of_metric(metric: &Metric) -> Vec<MetricValue> {
    let value = |name: &str, quantile: Option<&str>, value: u64| {
        let labels = metric.labels.iter().map(|(name, of)| ((*name).to_owned(), of.clone()));
        let quantile = quantile.map(|which| ("quantile".to_owned(), which.to_owned()));
        MetricValue { name: name.to_owned(), labels: labels.chain(quantile).collect(), value }
    };
    match &metric.reading {
        Reading::Counter(number) | Reading::Gauge(number) => {
            vec![value(metric.name, None, *number)]
        }
        Reading::Histogram(snapshot) => {
            let mut all = vec![
                value(&format!("{}_count", metric.name), None, snapshot.count),
                value(&format!("{}_sum", metric.name), None, snapshot.sum),
            ];
            all.extend(QUANTILES.iter().filter_map(|(per_mille, label)| {
                Some(value(metric.name, Some(label), snapshot.quantile(*per_mille)?))
            }));
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Histogram;

    #[test]
    fn labels_and_histograms_become_values() {
        let mut sheet = Sheet::new();
        let waits = Histogram::new();
        sheet.histogram("stoplog_retry_after_ms", "Waits.", &waits);
        assert_eq!(values(&sheet).len(), 2, "no quantile of nothing");
        waits.record(3);
        let mut sheet = Sheet::new();
        sheet.histogram("stoplog_retry_after_ms", "Waits.", &waits);
        let group = vec![("group", "email".to_owned())];
        sheet.push_of("stoplog_group_desired_consumers", "Wanted.", group, Reading::Gauge(7));
        let values = values(&sheet);
        assert_eq!(values.len(), 6);
        assert_eq!(values[2].labels, [("quantile".to_owned(), "0.5".to_owned())]);
        assert_eq!((values[2].value, values[5].value), (3, 7));
        assert_eq!(values[5].labels, [("group".to_owned(), "email".to_owned())]);
    }
}
