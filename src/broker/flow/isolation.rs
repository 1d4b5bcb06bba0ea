//! One topic that is limited does not limit those beside it, on one connection.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Ask, ConnectionFlow, DiskOptions, Flow, FlowOptions, Identity, Level, Outcome, PartitionFlow,
    PressureOptions, QuotaTable, Surroundings, Ticket, TopicFlow,
};
use crate::types::{Class, PushbackCode, QuotaLimits};

const TOPICS: usize = 8;
const BATCH_BYTES: u64 = 16 << 10;
/// Each topic sends one batch in so many steps of a millisecond: 4 MiB/s.
const EVERY: u64 = 4;
/// Time from admission to answer.
const ANSWERED_AFTER: u64 = 5;
const STEPS: u64 = 10_000;

/// What became of the batches of one topic: which step, and whether it was admitted.
type Seen = Vec<(u64, Result<(), (PushbackCode, String)>)>;

struct Sender {
    topic: Arc<TopicFlow>,
    partition: PartitionFlow,
    seen: Seen,
    /// Not before: it obeys what it was told.
    held_until: u64,
}

impl Sender {
    fn new(flow: &Flow, number: usize) -> Sender {
        let name = format!("orders-{number}").parse().expect("a name");
        let topic = Arc::new(TopicFlow::new(name));
        Sender { topic, partition: flow.partition(0), seen: Vec::new(), held_until: 0 }
    }

    fn send(
        &mut self,
        flow: &Arc<Flow>,
        connection: &ConnectionFlow,
        step: u64,
        now: Duration,
    ) -> Option<Ticket> {
        let ask = Ask {
            header: None,
            bytes: BATCH_BYTES,
            records: &|| 10,
            connection: Some(connection),
            topic: &self.topic,
            rules: None,
            partition: &self.partition,
            class: Class::Normal,
            standing: None,
            level: Level::Topic,
            deadline: None,
        };
        match flow.admit_batch(ask, now) {
            Ok(ticket) => {
                self.seen.push((step, Ok(())));
                Some(ticket)
            }
            Err(told) => {
                self.held_until = step + u64::from(told.retry_after_ms);
                self.seen.push((step, Err((told.code, told.limit_id))));
                None
            }
        }
    }
}

fn run(quotas: QuotaTable) -> Vec<Seen> {
    let options = FlowOptions { inflight_bytes_max: Some(8 << 20), ..FlowOptions::default() };
    let (disk, now) = (DiskOptions::default(), Duration::ZERO);
    let pressure = PressureOptions::default();
    let surroundings = Surroundings { machine_bytes: None, disk, pressure, writers: 1, now };
    let flow = Arc::new(Flow::new(options, surroundings, quotas));
    flow.note_space(1 << 40, 1 << 39, now);
    let connection = flow.connect(Identity::anonymous("shop", IpAddr::from([127, 0, 0, 1])), now);
    let mut senders: Vec<_> = (0..TOPICS).map(|number| Sender::new(&flow, number)).collect();
    let mut under_way: VecDeque<(u64, Ticket)> = VecDeque::new();
    for step in 0..STEPS {
        let now = Duration::from_millis(step);
        while under_way.front().is_some_and(|(until, _)| *until <= step) {
            let (_, ticket) = under_way.pop_front().expect("looked at");
            drop(ticket.settle(Outcome::Written, now));
        }
        for (number, sender) in senders.iter_mut().enumerate() {
            if (step + number as u64).is_multiple_of(EVERY) && sender.held_until <= step {
                let admitted = sender.send(&flow, &connection, step, now);
                under_way.extend(admitted.map(|ticket| (step + ANSWERED_AFTER, ticket)));
            }
        }
        if step % 100 == 0 {
            flow.quotas.tick(now);
        }
    }
    senders.into_iter().map(|sender| sender.seen).collect()
}

#[test]
fn a_limited_topic_leaves_those_beside_it_as_they_were() {
    let mut limits = QuotaLimits::default();
    limits.set("produce_bytes", "1MiB").expect("a setting");
    let limited = ("topic/orders-0".parse().expect("an entity"), limits);
    let without = run(QuotaTable::default());
    let with = run(QuotaTable::new([limited]));
    assert!(without.iter().flatten().all(|(_, admitted)| admitted.is_ok()), "nothing else limits");
    assert_eq!(with[1..], without[1..], "to the step");
    let refused: Vec<_> = with[0].iter().filter_map(|(_, seen)| seen.as_ref().err()).collect();
    let told = (PushbackCode::ThrottledRate, "quota:topic/orders-0".to_owned());
    assert!(!refused.is_empty() && refused.iter().all(|refusal| **refusal == told), "{refused:?}");
    let admitted = (with[0].len() - refused.len()) as u64 * BATCH_BYTES;
    let per_s = admitted * 1_000 / STEPS;
    let with_its_burst = (11 << 20) / 10 + BATCH_BYTES;
    assert!((1 << 20..=with_its_burst).contains(&per_s), "{per_s} bytes/s");
}
