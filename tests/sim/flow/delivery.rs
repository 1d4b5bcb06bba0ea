//! Consumers beside publishers: each as fast as it reads, and none for the others to wait for.

use std::time::Duration;

use stoplog::broker::flow::FlowOptions;

use super::world::Frame;
use super::{Behaviour, FlowSim, Fsync, Habit, ModelWriter, Plan};

const MIB: u64 = 1 << 20;
const SEC: Duration = Duration::from_secs(1);

fn sim(seed: u64, options: FlowOptions) -> FlowSim {
    let fsync = Fsync::Between(Duration::from_millis(2), Duration::from_millis(8));
    let mut sim = FlowSim::new(seed, options, vec![ModelWriter::new(100 * MIB, fsync)]);
    sim.topic("orders", 4);
    for _ in 0..8 {
        sim.client(Plan::default());
    }
    sim
}

#[test]
fn a_slow_consumer_and_one_that_stopped_cost_the_others_nothing() {
    // A pool that those who do not read would use up.
    let mut sim = sim(1, FlowOptions { fetch_bytes_max: 2 * MIB, ..FlowOptions::default() });
    let habit = |bytes_per_second| Habit { bytes_per_second, ..Habit::default() };
    let stopped: Vec<_> = (0..10).map(|_| sim.consumer(habit(Some(0)))).collect();
    let slow = sim.consumer(habit(Some(10 * MIB)));
    let fast: Vec<_> = (0..4).map(|_| sim.consumer(habit(None))).collect();
    sim.run(10 * SEC);
    let written = sim.written_in(0, 11);
    for at in fast {
        let taken = sim.consumers[at].taken_bytes;
        assert!(taken * 100 >= written * 98, "{taken} of {written}");
    }
    let taken = sim.consumers[slow].taken_bytes / MIB;
    assert!((95..=101).contains(&taken), "{taken} MiB in ten seconds");
    assert!(stopped.into_iter().all(|at| sim.consumers[at].taken_bytes == 0));
}

#[test]
fn lost_grants_wants_and_credit_stop_neither_side() {
    for seed in 0..8 {
        let mut sim = sim(seed, FlowOptions::default());
        sim.consumer(Habit { prefetch_records: Some(7), ..Habit::default() });
        let (behaviour, bytes_per_second) = (Behaviour::Violates, Some(20 * MIB));
        sim.client(Plan { behaviour, bytes_per_second, retries: false, ..Plan::default() });
        let mut losses = 60;
        sim.net = Box::new(move |rng, frame| {
            let late = || Duration::from_millis(rng.next_u64() % 100);
            match rng.next_u64() % 10 {
                0..4 if losses > 0 => {
                    losses -= 1;
                    Vec::new()
                }
                9 => vec![late(), late()],
                _ if matches!(frame, Frame::Credit(_)) => vec![late()],
                _ => vec![Duration::ZERO],
            }
        });
        sim.run(6 * SEC);
        let written = sim.written_in(0, 7);
        assert!(sim.consumers.iter().all(|consumer| consumer.taken_bytes > 0), "seed {seed}");
        assert!(written > MIB, "seed {seed}: {written}");
    }
}
