//! Rules of quotas that need the whole tree: charging, dividing, editing, dry runs, levels.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Chain, Cost, Direction, QuotaOptions, QuotaTable, QuotaTree, Scope, Subject};
use crate::broker::flow::{Cause, Enforcement, Identity, Names, UNLIMITED};
use crate::types::{
    Class, Effects, PushbackCode, PushbackScope, QuotaEntity, QuotaLimits, QuotaUse, Resource,
    Severity, TopicName,
};

const OPTIONS: QuotaOptions = QuotaOptions {
    limits_max: 100,
    members_max: 100,
    burst_bytes_min: 1_000,
    enforcement: Enforcement::On,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn table(records: &[(&str, &[(&str, &str)])]) -> QuotaTable {
    QuotaTable::new(records.iter().map(|(entity, settings)| {
        let entity: QuotaEntity = entity.parse().expect("an entity");
        let mut limits = QuotaLimits::default();
        settings.iter().for_each(|(key, value)| limits.set(key, value).expect("a setting"));
        entity.check(&limits).expect("limits that mean something");
        (entity, limits)
    }))
}

fn tree(records: &[(&str, &[(&str, &str)])]) -> QuotaTree {
    QuotaTree::new(OPTIONS, Arc::new(Names::default()), table(records))
}

fn connection(client: &str) -> Subject<'_> {
    let ip = [10, 0, 0, 7].into();
    Subject { principal: "anonymous", client, ip, scope: Scope::Connection }
}

fn topic(name: &TopicName) -> Subject<'_> {
    Subject { scope: Scope::Topic(name), ..connection("shop") }
}

fn bytes(bytes: u64) -> Cost {
    Cost { bytes, ..Cost::default() }
}

fn used(tree: &QuotaTree, entity: &str, resource: Resource) -> QuotaUse {
    let all = tree.report();
    let found = all.iter().find(|u| u.entity.to_string() == entity && u.resource == resource);
    found.unwrap_or_else(|| panic!("{entity} in {all:?}")).clone()
}

#[test]
fn without_a_quota_a_chain_is_empty() {
    let tree = tree(&[("client/other", &[("produce_bytes", "1")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    assert!(chain.is_unlimited());
    assert!(chain.charge(&bytes(u64::MAX), ms(0)).is_ok());
    assert_eq!(chain.allowance_bytes(Direction::Produce, ms(0)), UNLIMITED);
    assert_eq!(chain.class_max(), Class::Critical);
}

#[test]
fn connections_that_were_there_before_the_quota_count() {
    let tree = Arc::new(tree(&[]));
    let who = |client| Identity::anonymous(client, [10, 0, 0, 7].into());
    let connect = |client| {
        let place = tree.arrive([10, 0, 0, 7].into(), ms(0))?;
        place.greet(&who(client), ms(0)).map(|()| place)
    };
    let first = connect("shop").expect("no quota");
    let (_second, _other) = (connect("shop").expect("no quota"), connect("other").expect("none"));
    tree.replace(table(&[("client/shop", &[("connections", "2")])]), ms(0));
    assert_eq!(used(&tree, "client/shop", Resource::Connections).used, 2);
    let told = connect("shop").expect_err("a third").pushback();
    assert_eq!((told.code, told.limit), (PushbackCode::ConnLimit, 2));
    drop(first);
    let _third = connect("shop").expect("a place was given up");
    tree.replace(table(&[("client/shop", &[("connections", "1")])]), ms(0));
    assert_eq!(used(&tree, "client/shop", Resource::Connections).used, 2, "nobody is thrown out");
    tree.replace(table(&[("client/other", &[("connections", "1")])]), ms(0));
    connect("other").expect_err("one was there");
    let _fourth = connect("shop").expect("no quota any more");
}

#[test]
fn an_address_is_counted_before_its_connections_say_anything() {
    let tree = Arc::new(tree(&[
        ("ip/10.*", &[("connections", "2")]),
        ("ip/10.0.0.7", &[("connection_rate", "3")]),
        ("client/shop", &[("connections", "1")]),
    ]));
    let arrive = |last| tree.arrive([10, 0, 0, last].into(), ms(0));
    let (silent, _other) = (arrive(7).expect("the first"), arrive(8).expect("the second"));
    let told = arrive(9).expect_err("a third").pushback();
    assert_eq!((told.code, told.limit_id.as_str()), (PushbackCode::ConnLimit, "quota:ip/10.*"));
    silent.greet(&Identity::anonymous("shop", [10, 0, 0, 7].into()), ms(0)).expect("still one");
    assert_eq!(used(&tree, "ip/10.*", Resource::Connections).used, 2, "each is counted once");
    assert_eq!(used(&tree, "client/shop", Resource::Connections).used, 1);
    let _elsewhere = tree.arrive([11, 0, 0, 1].into(), ms(0)).expect("another address");
    drop(silent);
    for _ in 0..2 {
        drop(arrive(7).expect("a place was given up"));
    }
    let told = arrive(7).expect_err("three came within a second").pushback();
    assert!(told.retry_after_ms > 0, "{told}");
}

#[test]
fn a_refusal_says_which_quota_and_exactly_how_long() {
    let tree = tree(&[("client/shop", &[("produce_bytes", "1000")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    chain.charge(&bytes(3_000), ms(0)).expect("the burst, and one batch over it");
    let refusal = chain.charge(&bytes(10), ms(0)).expect_err("2,000 are owed");
    let told = refusal.pushback();
    assert_eq!((told.code, told.scope), (PushbackCode::ThrottledRate, PushbackScope::Principal));
    assert_eq!((told.severity, told.effects), (Severity::Hold, Effects::None));
    assert_eq!((told.observed, told.limit, told.unit.as_str()), (3_000, 1_000, "bytes/s"));
    assert_eq!((told.retry_after_ms, told.limit_id.as_str()), (2_001, "quota:client/shop"));
    assert_eq!(refusal.cause().cause(), Some(Cause::Quota));
    assert!(chain.charge(&bytes(10), ms(2_000)).is_err());
    assert!(chain.charge(&bytes(10), ms(2_001)).is_ok());
}

#[test]
fn a_charge_takes_from_all_limits_or_from_none() {
    let tree = tree(&[
        ("broker", &[("produce_bytes", "10000")]),
        ("client/shop", &[("produce_bytes", "1000"), ("requests", "1")]),
    ]);
    let (shop, other) =
        (tree.chain(&connection("shop"), ms(0)), tree.chain(&connection("other"), ms(0)));
    let cost = Cost { requests: 1, ..bytes(600) };
    shop.charge(&cost, ms(0)).expect("within all");
    assert!(shop.charge(&cost, ms(0)).is_err(), "requests are spent");
    assert_eq!(other.allowance_bytes(Direction::Produce, ms(0)), 4_700, "half of what is left");
    shop.refund(&cost);
    assert_eq!(other.allowance_bytes(Direction::Produce, ms(0)), 5_000);
    let again = shop.charge(&cost, ms(0)).expect_err("a request was still made");
    assert_eq!(again.pushback().unit, "requests/s");
}

#[test]
fn produced_bytes_are_no_fetched_bytes() {
    let tree = tree(&[("client/shop", &[("fetch_bytes", "1000")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    chain.charge(&bytes(9_000), ms(0)).expect("only fetches are limited");
    let fetch = Cost { direction: Direction::Fetch, ..bytes(2_000) };
    chain.charge(&fetch, ms(0)).expect("within the burst");
    assert!(chain.charge(&fetch, ms(0)).is_err());
    assert_eq!(chain.allowance_bytes(Direction::Fetch, ms(500)), 0);
    assert_eq!(chain.allowance_bytes(Direction::Fetch, ms(1_500)), 500);
}

#[test]
fn live_edit_keeps_the_debt_and_is_seen_by_open_chains() {
    let tree = tree(&[("client/<default>", &[("produce_bytes", "1000")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    chain.charge(&bytes(5_000), ms(0)).expect("once");
    tree.replace(table(&[("client/shop", &[("produce_bytes", "4000")])]), ms(0));
    assert!(!tree.is_current(&chain));
    let new = tree.chain(&connection("shop"), ms(0));
    assert!(tree.is_current(&new));
    for chain in [&chain, &new] {
        let refusal = chain.charge(&bytes(1), ms(0)).expect_err("4,000 are owed still");
        assert_eq!(refusal.pushback().retry_after_ms, 1_001);
    }
    tree.replace(QuotaTable::default(), ms(1));
    assert!(chain.charge(&bytes(1), ms(1)).is_ok(), "taken away, also for who has not noticed");
}

#[test]
fn a_dry_run_refuses_nothing_and_counts_what_it_would() {
    let tree = tree(&[("client/<default>", &[("produce_bytes", "1000"), ("mode", "dry_run")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    for _ in 0..10 {
        chain.charge(&bytes(1_000), ms(0)).expect("only counted");
    }
    assert_eq!(chain.allowance_bytes(Direction::Produce, ms(0)), UNLIMITED);
    let seen = used(&tree, "client/shop", Resource::ProduceBytes);
    assert_eq!((seen.refused, seen.would_throttle), (0, 9));
    drop(chain);
    tree.tick(ms(60_000));
    assert_eq!(used(&tree, "client/<default>", Resource::ProduceBytes).would_throttle, 9);
}

#[test]
fn levels_are_held_until_they_are_given_back() {
    let tree = tree(&[("client/shop", &[("connections", "2"), ("inflight_bytes", "100")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    let one = chain.hold(Resource::Connections, 1).expect("the first");
    let _two = chain.hold(Resource::Connections, 1).expect("the second");
    let told = chain.hold(Resource::Connections, 1).expect_err("a third").pushback();
    assert_eq!((told.code, told.observed, told.limit), (PushbackCode::ConnLimit, 2, 2));
    assert_eq!((told.severity, told.retry_after_ms), (Severity::Hold, 1_000));
    drop(one);
    assert!(chain.hold(Resource::Connections, 1).is_ok());
    let told = chain.hold(Resource::InflightBytes, 101).expect_err("101 of 100").pushback();
    assert_eq!((told.code, told.retry_after_ms), (PushbackCode::ServerBusy, 200));
    assert_eq!(used(&tree, "client/shop", Resource::InflightBytes).used, 0);
}

#[test]
fn what_allows_nothing_names_no_time() {
    let tree = tree(&[("client/shop", &[("connections", "0"), ("inflight_bytes", "0")])]);
    let chain = tree.chain(&connection("shop"), ms(0));
    for resource in [Resource::Connections, Resource::InflightBytes] {
        let told = chain.hold(resource, 1).expect_err("none is allowed").pushback();
        assert_eq!((told.severity, told.retry_after_ms), (Severity::Reject, 0));
    }
}

#[test]
fn stored_bytes_count_what_is_written_and_what_was_measured() {
    let tree = tree(&[
        ("topic/o*", &[("storage_bytes", "1000")]),
        ("broker", &[("storage_bytes", "5000"), ("requests", "1")]),
    ]);
    let (orders, old): (TopicName, TopicName) =
        ("orders".parse().expect("a name"), "old".parse().expect("a name"));
    let chain = tree.chain(&topic(&orders), ms(0));
    tree.measure_storage([(&orders, 300), (&old, 400)]);
    chain.hold(Resource::StorageBytes, 200).expect("900 of 1,000").keep();
    drop(chain.hold(Resource::StorageBytes, 100).expect("1,000; not written"));
    let told = chain.hold(Resource::StorageBytes, 101).expect_err("1,001").pushback();
    assert_eq!((told.code, told.severity), (PushbackCode::TopicFull, Severity::Reject));
    assert_eq!(told.limit_id, "quota:topic/o*");
    assert_eq!(used(&tree, "broker", Resource::StorageBytes).used, 900);
    tree.measure_storage([(&orders, 0), (&old, 0)]);
    assert!(chain.hold(Resource::StorageBytes, 1_000).is_ok());
    let requests = Cost { requests: 9, ..Cost::default() };
    chain.charge(&requests, ms(0)).expect("requests were charged with the connection");
    assert!(tree.chain(&connection("a"), ms(0)).charge(&requests, ms(0)).is_ok());
}

#[test]
fn the_least_important_class_of_all_levels_holds() {
    let tree = tree(&[
        ("principal/anonymous", &[("class_max", "p2")]),
        ("client/shop*", &[("class_max", "p3")]),
    ]);
    assert_eq!(tree.chain(&connection("shop-1"), ms(0)).class_max(), Class::Bulk);
    assert_eq!(tree.chain(&connection("other"), ms(0)).class_max(), Class::Normal);
}

#[test]
fn who_comes_after_the_last_place_shares_one_limit() {
    let options = QuotaOptions { limits_max: 2, ..OPTIONS };
    let table = table(&[("client/<default>", &[("produce_bytes", "1000")])]);
    let tree = QuotaTree::new(options, Arc::new(Names::default()), table);
    let chains: Vec<_> =
        ["a", "b", "c", "d"].map(|client| tree.chain(&connection(client), ms(0))).into();
    assert!(chains[..3].iter().all(|chain| chain.charge(&bytes(1_000), ms(0)).is_ok()));
    let told = chains[3].charge(&bytes(1), ms(0)).expect_err("c took it").pushback();
    assert_eq!(told.limit_id, "quota:client/<default>");
    drop(chains);
    tree.tick(ms(5_000));
    assert!(tree.report().iter().all(|u| u.entity.to_string() == "client/<default>"));
}

#[test]
fn a_limit_that_is_owed_is_not_forgotten() {
    let tree = tree(&[("client/<default>", &[("produce_bytes", "1000")])]);
    tree.chain(&connection("shop"), ms(0)).charge(&bytes(9_000), ms(0)).expect("once");
    tree.tick(ms(1_000));
    let again = tree.chain(&connection("shop"), ms(1_000));
    assert!(again.charge(&bytes(1), ms(1_000)).is_err(), "a new connection pays the old debt");
}

/// A client that sends batches as fast as it may, at most `rate` bytes a second.
struct Greedy {
    chain: Arc<Chain>,
    batch: u64,
    every: Duration,
    next: Duration,
    passed: u64,
}

/// Runs for 20 s in steps of 1 ms; returns bytes that passed from the fifth second on.
fn run(tree: &QuotaTree, clients: &mut [Greedy]) -> Vec<u64> {
    for step in 0..20_000 {
        let now = ms(step);
        if step == 5_000 {
            clients.iter_mut().for_each(|client| client.passed = 0);
        }
        for client in clients.iter_mut().filter(|client| client.next <= now) {
            match client.chain.charge(&bytes(client.batch), now) {
                Ok(()) => {
                    client.passed += client.batch;
                    client.next += client.every;
                }
                Err(refusal) => client.next = now + refusal.wait().expect("a rate"),
            }
        }
        if step % 100 == 0 {
            tree.tick(now);
        }
    }
    clients.iter().map(|client| client.passed / 15).collect()
}

fn greedy(tree: &QuotaTree, client: &str, batch: u64, rate: u64) -> Greedy {
    let every = Duration::from_nanos(1_000_000_000 * batch / rate);
    let chain = tree.chain(&connection(client), ms(0));
    Greedy { chain, batch, every, next: ms(0), passed: 0 }
}

fn within_percent(got: u64, want: u64, percent: u64) -> bool {
    got.abs_diff(want) * 100 <= want * percent
}

#[test]
fn a_prefix_cap_splits_by_weight() {
    let tree = tree(&[
        ("client/shop*", &[("produce_bytes", "1000000")]),
        ("client/shop-big", &[("weight", "300")]),
    ]);
    let mut clients = [
        greedy(&tree, "shop-big", 10_000, 50_000_000),
        greedy(&tree, "shop-1", 10_000, 50_000_000),
        greedy(&tree, "other", 10_000, 2_000_000),
    ];
    let got = run(&tree, &mut clients);
    assert!(within_percent(got[0], 750_000, 10) && within_percent(got[1], 250_000, 10), "{got:?}");
    assert!(within_percent(got[2], 2_000_000, 5), "not under it: {got:?}");
}

#[test]
fn equal_members_get_equal_parts_whatever_their_batches() {
    let tree = tree(&[("broker", &[("produce_bytes", "2000000")])]);
    let names: Vec<String> = (0..20).map(|number| format!("client-{number}")).collect();
    let sizes = (1u64..).map(|number| number * 1_000);
    let mut clients: Vec<_> =
        names.iter().zip(sizes).map(|(name, size)| greedy(&tree, name, size, 50_000_000)).collect();
    let got = run(&tree, &mut clients);
    let (sum, squares) = got.iter().fold((0.0, 0.0), |(sum, squares), part| {
        (sum + *part as f64, squares + (*part as f64).powi(2))
    });
    assert!(sum * sum / (20.0 * squares) >= 0.95, "{got:?}");
    assert!(sum >= 1_900_000.0, "{got:?}");
}

#[test]
fn who_wants_less_than_its_share_gets_it_and_the_rest_is_used() {
    let tree = tree(&[("broker", &[("produce_bytes", "1000000")])]);
    let mut clients = [
        greedy(&tree, "light", 1_000, 100_000),
        greedy(&tree, "a", 20_000, 50_000_000),
        greedy(&tree, "b", 1_000, 50_000_000),
    ];
    let got = run(&tree, &mut clients);
    assert!(got[0] >= 95_000, "{got:?}");
    assert!(within_percent(got[1], got[2], 10), "{got:?}");
    let sum: u64 = got.iter().sum();
    assert!((950_000..=1_000_000).contains(&sum), "{got:?}");
}

#[test]
fn nobody_is_held_to_a_share_while_there_is_enough() {
    let tree = tree(&[("broker", &[("produce_bytes", "1000000")])]);
    let mut clients =
        [greedy(&tree, "one", 10_000, 900_000), greedy(&tree, "other", 1_000, 50_000)];
    assert!(run(&tree, &mut clients)[0] >= 890_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_mix_of_members_passes_the_cap(
        cap in 10_000u64..1_000_000,
        steps in prop::collection::vec((0usize..4, 1u64..20_000, 0u64..40), 1..300),
    ) {
        let limit = cap.to_string();
        let tree = tree(&[
            ("client/c*", &[("produce_bytes", limit.as_str())]),
            ("client/c1", &[("weight", "900")]),
        ]);
        let chains: Vec<_> =
            ["c0", "c1", "c2", "c3"].map(|client| tree.chain(&connection(client), ms(0))).into();
        let (mut now, mut passed, mut largest) = (ms(0), 0, 0);
        for (who, size, pause) in steps {
            now += ms(pause);
            if pause % 7 == 0 {
                tree.tick(now);
            }
            if chains[who].charge(&bytes(size), now).is_ok() {
                passed += size;
                largest = largest.max(size);
            }
            let came = cap * now.as_millis() as u64 / 1_000;
            prop_assert!(passed <= came + cap.max(OPTIONS.burst_bytes_min) + largest);
        }
    }
}
