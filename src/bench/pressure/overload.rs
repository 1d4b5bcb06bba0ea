//! Five times the load there is room for: what is admitted is as much as without, and as quick.

use super::flood::{Demand, Flooded, Lane, flood, fresh_topic, mb_per_s};
use super::{Bound, Case, CaseReport, PressureOptions};
use crate::bench::{BenchError, Outcome, Spread, Target};

const PRODUCERS: usize = 4;
const TIMES: f64 = 5.0;
/// Goodput through the peak without overload.
const GOODPUT_MIN: f64 = 0.9;
/// Four times the largest target of a log writer.
const P99_MS_MAX: f64 = 200.0;

pub(super) async fn run(
    target: &Target,
    options: &PressureOptions,
    progress: &mut dyn FnMut(String),
) -> Result<CaseReport, BenchError> {
    let (mut peaks, mut goodputs, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let (mut p99s, mut refusals) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds.max(1) {
        let peak = mb_per_s(&run_once(target, Demand::Closed, options).await?.outcomes, options);
        let offered = TIMES * peak * 1e6 / PRODUCERS as f64;
        let Flooded { outcomes, refused_by } =
            run_once(target, Demand::Open(offered), options).await?;
        let goodput = mb_per_s(&outcomes, options);
        let all = sum(outcomes);
        let p99 = all.latencies.summary().p99_ms;
        progress(format!(
            "round {round}: peak {peak:.1} MB/s, at {TIMES} times that {goodput:.1} MB/s, p99 {p99:.1} ms, \
             {} refused by {refused_by:?}",
            all.throttled
        ));
        peaks.push(peak);
        goodputs.push(goodput);
        shares.push(goodput / peak.max(1e-9));
        p99s.push(p99);
        refusals.push(all.throttled as f64);
    }
    let bounds = vec![
        Bound::at_least("goodput through peak", GOODPUT_MIN, Spread::of(shares)),
        Bound::at_most("p99 of what is admitted, ms", P99_MS_MAX, Spread::of(p99s)),
    ];
    let figures = vec![
        ("peak_mb_per_s", Spread::of(peaks)),
        ("goodput_mb_per_s", Spread::of(goodputs)),
        ("refused", Spread::of(refusals)),
    ];
    Ok(CaseReport::new(Case::Overload, bounds, figures))
}

async fn run_once(
    target: &Target,
    demand: Demand,
    options: &PressureOptions,
) -> Result<Flooded, BenchError> {
    let topic = fresh_topic(target, "overload", 4, &[("durability", "fsync")]).await?;
    let mut lanes: Vec<Lane> = Vec::new();
    for _ in 0..PRODUCERS {
        lanes.push((target.connect().await?, topic.clone()));
    }
    flood(lanes, demand, options).await
}

fn sum(outcomes: Vec<Outcome>) -> Outcome {
    outcomes.into_iter().fold(Outcome::default(), |mut all, outcome| {
        all.add(outcome);
        all
    })
}
