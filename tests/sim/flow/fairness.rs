//! Everybody's part of the window, from any start.

use std::time::Duration;

use stoplog::broker::flow::FlowOptions;
use stoplog::types::Class;

use super::{Behaviour, Client, FlowSim, Fsync, ModelWriter, Plan};

const MIB: u64 = 1 << 20;
const SEC: Duration = Duration::from_secs(1);

fn sim(seed: u64, writers: usize) -> FlowSim {
    let fsync = Fsync::Between(Duration::from_millis(2), Duration::from_millis(8));
    let writer = |_| ModelWriter::new(400 * MIB, fsync);
    let mut sim = FlowSim::new(seed, FlowOptions::default(), (0..writers).map(writer).collect());
    sim.topic("orders", 16);
    sim
}

/// Jain's index: 1 when all are equal, 1/n when one has everything.
fn jain(parts: &[u64]) -> f64 {
    let sum: f64 = parts.iter().map(|part| *part as f64).sum();
    let squares: f64 = parts.iter().map(|part| (*part as f64).powi(2)).sum();
    sum * sum / (parts.len() as f64 * squares).max(1.0)
}

/// The worst index of any ten seconds from `from` on.
fn worst(sim: &FlowSim, from: usize) -> f64 {
    let end = sim.now.as_secs() as usize;
    let indices = (from..=end - 10).map(|from| {
        let parts: Vec<u64> =
            sim.clients.iter().map(|client| client.written_in(from, from + 10)).collect();
        jain(&parts)
    });
    indices.fold(1.0, f64::min)
}

#[test]
fn equal_publishers_get_equal_parts_from_any_start() {
    for publishers in [2, 10, 1_000] {
        let starts: &[_] = match publishers {
            1_000 => &[(true, 2)],
            _ => &[(false, 1), (true, 1), (false, 2)],
        };
        for &(late, writers) in starts {
            let mut sim = sim(publishers as u64, writers);
            for number in 0..publishers {
                // The first has its full window under way when the others come.
                let starts = if late && number > 0 { 3 * SEC } else { Duration::ZERO };
                sim.client(Plan { starts, ..Plan::default() });
            }
            let from = if late { 8 } else { 5 };
            sim.run(SEC * (from + 11));
            let index = worst(&sim, from as usize);
            assert!(index >= 0.95, "{publishers} {late} {writers}: {index}");
        }
    }
}

#[test]
fn classes_get_eight_four_and_one() {
    let mut sim = sim(5, 1);
    for class in [Class::Critical, Class::Normal, Class::Bulk] {
        for _ in 0..4 {
            sim.client(Plan { class, batch_bytes: 4 << 10, ..Plan::default() });
        }
    }
    sim.run(20 * SEC);
    let of = |class| sim.of_class(class).map(|client| client.written_in(5, 20)).sum::<u64>() as f64;
    let (p1, p2, p3) = (of(Class::Critical), of(Class::Normal), of(Class::Bulk));
    let near = |ratio: f64, wanted: f64| (ratio / wanted - 1.0).abs() <= 0.1;
    assert!(near(p1 / p2, 2.0) && near(p2 / p3, 4.0), "{p1} {p2} {p3}");
}

#[test]
fn who_has_no_publisher_gets_no_more_than_who_has_one() {
    let mut sim = sim(6, 1);
    for number in 0..20 {
        let behaviour = if number < 10 { Behaviour::Obeys } else { Behaviour::Ungranted };
        sim.client(Plan { behaviour, ..Plan::default() });
    }
    sim.run(20 * SEC);
    let written = |client: &Client| client.written_in(5, 20);
    let obeys: u64 = sim.clients.iter().take(10).map(written).sum();
    let others: u64 = sim.clients.iter().skip(10).map(written).sum();
    assert!(others <= obeys, "{obeys} {others}");
}
