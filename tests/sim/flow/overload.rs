//! Five times what the writer takes, from clients that ignore grants.

use std::time::Duration;

use stoplog::broker::flow::FlowOptions;
use stoplog::types::PushbackCode;

use super::{Behaviour, FlowSim, Fsync, ModelWriter, Plan};

const MIB: u64 = 1 << 20;
const BATCH: u64 = 64 << 10;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn sim(seed: u64, fsync: Fsync) -> FlowSim {
    let mut sim =
        FlowSim::new(seed, FlowOptions::default(), vec![ModelWriter::new(400 * MIB, fsync)]);
    sim.topic("orders", 16);
    sim
}

/// What obeying clients get through in a second that always have something to send.
fn peak(seed: u64, fsync: Fsync) -> u64 {
    let mut sim = sim(seed, fsync);
    for _ in 0..40 {
        sim.client(Plan { batch_bytes: BATCH, ..Plan::default() });
    }
    sim.run(Duration::from_secs(15));
    sim.written_in(5, 15) / 10
}

fn overloaded(seed: u64, fsync: Fsync, peak: u64) -> FlowSim {
    let mut sim = sim(seed, fsync);
    for number in 0..40 {
        let behaviour = if number % 2 == 0 { Behaviour::Ungranted } else { Behaviour::Violates };
        let bytes_per_second = Some(peak * 5 / 40);
        let batch_bytes = BATCH;
        let plan = Plan { behaviour, batch_bytes, bytes_per_second, ..Plan::default() };
        sim.client(Plan { retries: false, ..plan });
    }
    sim.run(Duration::from_secs(5));
    sim.forget_sojourns();
    sim.run(Duration::from_secs(10));
    sim
}

#[test]
fn goodput_and_delay_hold_at_five_times_the_load() {
    for (seed, fsync) in [(1, Fsync::Between(ms(2), ms(8))), (2, Fsync::Between(ms(35), ms(45)))] {
        let peak = peak(seed, fsync);
        let sim = overloaded(seed, fsync, peak);
        let goodput = sim.written_in(5, 15) / 10;
        let target = sim.flow.verdicts()[0].target;
        let p99 = sim.sojourn(990);
        let figures = format!("{peak} {goodput} {p99:?} {target:?} {:?}", sim.sojourn(500));
        assert!(goodput * 10 >= peak * 9, "{figures}");
        assert!(p99 <= target * 4, "{figures}");
        let refusals: u64 = sim.clients.iter().map(|client| client.refusals).sum();
        assert!(refusals > 10_000, "{refusals}");
        let codes = sim.clients.iter().filter_map(|client| client.last_refusal.as_ref());
        assert!(codes.clone().any(|told| told.code == PushbackCode::ServerBusy));
        assert!(codes.clone().any(|told| told.code == PushbackCode::CreditViolation));
    }
}

#[test]
fn goodput_holds_where_a_sync_takes_longer_than_any_target() {
    let fsync = Fsync::Between(ms(90), ms(110));
    let peak = peak(3, fsync);
    let goodput = overloaded(3, fsync, peak).written_in(5, 15) / 10;
    assert!(goodput * 10 >= peak * 9, "{peak} {goodput}");
}

#[test]
fn a_disk_that_hangs_refuses_and_everybody_goes_on_after_it() {
    let mut sim = sim(4, Fsync::Always(ms(4)));
    sim.writers[0].hangs = Some((Duration::from_secs(3), Duration::from_secs(9)));
    for _ in 0..40 {
        sim.client(Plan::default());
    }
    sim.run(Duration::from_secs(16));
    assert_eq!(sim.written_in(4, 8), 0, "it hangs");
    let (before, after) = (sim.written_in(2, 3), sim.written_in(14, 15));
    assert!(after * 10 >= before * 8, "{before} {after}");
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| overloaded(seed, Fsync::Between(ms(2), ms(8)), 50 * MIB).trace();
    assert_eq!(run(9), run(9));
    assert_ne!(run(9), run(10));
}
