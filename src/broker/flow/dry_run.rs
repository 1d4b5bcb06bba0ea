//! What would have been refused, had all of flow control been in force.

use super::Flow;
use crate::metrics::Counter;
use crate::types::WouldRefuse;

/// Refusals that [`super::Enforcement::DryRun`] did not make. Quotas count their own: they have dry
/// runs of their own.
#[derive(Debug, Default)]
pub struct Forgone {
    /// By the share that a publisher, or a connection without one, has of the windows.
    pub share: Counter,
    /// By the window of a log writer.
    pub window: Counter,
}

impl Flow {
    /// Refusals that a dry run, of everything or of one quota, did not make, by limit.
    pub fn would_refuse(&self) -> [WouldRefuse; 3] {
        let quotas = self.quotas.report().iter().map(|used| used.would_throttle).sum();
        let Forgone { share, window } = &self.forgone;
        let all = [("share", share.value()), ("window", window.value()), ("quota", quotas)];
        all.map(|(limit, refusals)| WouldRefuse { limit: limit.to_owned(), refusals })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::broker::flow::{
        Ask, DiskOptions, Enforcement, FlowOptions, Identity, Level, Load, PressureOptions,
        QuotaTable, Scratch, Surroundings, Ticket, TopicFlow,
    };
    use crate::types::{Class, Pushback, QuotaLimits};

    const BATCH_BYTES: u64 = 1 << 20;

    /// What becomes of 20 MiB at once, against 1 MiB of quota, window and share; and what is said
    /// of it.
    fn admitted(enforcement: Enforcement) -> (usize, [u64; 3]) {
        let inflight_bytes_max = Some(1 << 30);
        let options = FlowOptions { enforcement, inflight_bytes_max, ..FlowOptions::default() };
        let (disk, now) = (DiskOptions::default(), Duration::ZERO);
        let pressure = PressureOptions::default();
        let surroundings = Surroundings { machine_bytes: None, disk, pressure, writers: 1, now };
        let mut limits = QuotaLimits::default();
        limits.set("produce_bytes", "1MiB").expect("a setting");
        let quotas = QuotaTable::new([("client/shop".parse().expect("an entity"), limits)]);
        let flow = Arc::new(Flow::new(options, surroundings, quotas));
        flow.note_space(1 << 40, 1 << 39, now);
        let connection = flow.connect(Identity::anonymous("shop", [127, 0, 0, 1].into()), now);
        let topic = Arc::new(TopicFlow::new("orders".parse().expect("a name")));
        let partition = flow.partition(0);
        let ask = |_| Ask {
            header: None,
            bytes: BATCH_BYTES,
            records: &|| 1,
            connection: Some(&connection),
            topic: &topic,
            rules: None,
            partition: &partition,
            class: Class::Normal,
            standing: None,
            level: Level::Topic,
            deadline: None,
        };
        let admit = |number| {
            let admitted = flow.admit_batch(ask(number), now);
            let seen = flow.writers[0].take(now);
            flow.writers[0].publish(BATCH_BYTES, Load::Calm, &seen);
            flow.seats.tick(now, &[BATCH_BYTES], &mut Scratch::default());
            admitted
        };
        let all: Vec<Result<Ticket, Pushback>> = (0..20).map(admit).collect();
        (all.iter().flatten().count(), flow.would_refuse().map(|limit| limit.refusals))
    }

    #[test]
    fn a_dry_run_admits_what_is_off_admits_and_counts_what_is_on_refuses() {
        let (on, counted) = admitted(Enforcement::On);
        assert!(on < 5, "{on}");
        assert_eq!(counted, [0, 0, 0]);
        let (off, counted) = admitted(Enforcement::Off);
        assert_eq!(counted, [0, 0, 0]);
        let (dry, [share, window, quota]) = admitted(Enforcement::DryRun);
        assert_eq!((dry, off), (20, 20));
        assert!(share > 0 && window > 0 && quota > 0, "{share} {window} {quota}");
    }
}
