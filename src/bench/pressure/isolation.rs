//! A quota on one of eight topics that share a connection: the others lose nothing.

use super::flood::{Demand, Lane, flood, fresh_topic, mb_per_s};
use super::{Bound, Case, CaseReport, PressureOptions};
use crate::bench::{BenchError, Spread, Target};
use crate::client::Run;
use crate::types::{QuotaEntity, TopicName};

const TOPICS: usize = 8;
const LIMITED: &str = "topic/orders-0";
const LOSS_MAX: f64 = 0.05;

pub(super) async fn run(
    target: &Target,
    options: &PressureOptions,
    progress: &mut dyn FnMut(String),
) -> Result<CaseReport, BenchError> {
    let mut topics = Vec::new();
    for number in 0..TOPICS {
        let name = format!("orders-{number}");
        topics.push(fresh_topic(target, &name, 1, &[("retention_bytes", "256MiB")]).await?);
    }
    let (mut without, mut with, mut limited, mut losses) = (vec![], vec![], vec![], vec![]);
    for round in 1..=options.rounds.max(1) {
        // Alternated, so that a drift of the machine falls on both.
        let (free, bound) = if round % 2 == 0 {
            let bound = once(target, &topics, true, options).await?;
            (once(target, &topics, false, options).await?, bound)
        } else {
            let free = once(target, &topics, false, options).await?;
            (free, once(target, &topics, true, options).await?)
        };
        progress(format!(
            "round {round}: the others {:.1} MB/s without, {:.1} MB/s with the quota; the limited one {:.2} MB/s",
            free.1, bound.1, bound.0
        ));
        losses.push(1.0 - bound.1 / free.1.max(1e-9));
        without.push(free.1);
        with.push(bound.1);
        limited.push(bound.0);
    }
    let bounds = vec![Bound::at_most("part the others lose", LOSS_MAX, Spread::of(losses))];
    let figures = vec![
        ("others_mb_per_s_without", Spread::of(without)),
        ("others_mb_per_s_with", Spread::of(with)),
        ("limited_mb_per_s", Spread::of(limited)),
    ];
    Ok(CaseReport::new(Case::Isolation, bounds, figures))
}

/// Millions of bytes a second of the first topic, and of the others.
async fn once(
    target: &Target,
    topics: &[TopicName],
    limit: bool,
    options: &PressureOptions,
) -> Result<(f64, f64), BenchError> {
    let client = target.connect().await?;
    let entity: QuotaEntity =
        LIMITED.parse().map_err(|_| BenchError::Options("a quota's entity"))?;
    if limit {
        let settings = [("produce_bytes".to_owned(), "1MiB".to_owned())];
        client.admin().set_quota(&entity, &settings, Run::Really).await?;
    }
    let lanes: Vec<Lane> = topics.iter().map(|topic| (client.clone(), topic.clone())).collect();
    let outcomes = flood(lanes, Demand::Closed, options).await;
    if limit {
        client.admin().delete_quota(&entity, Run::Really).await?;
    }
    let outcomes = outcomes?.outcomes;
    let (first, others) = outcomes.split_at(1);
    Ok((mb_per_s(first, options), mb_per_s(others, options)))
}
