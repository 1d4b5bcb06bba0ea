//! Consuming in groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use stoplog::client::{
    Client, CommitMode, Consumer, ConsumerOptions, Reading, Rebalance, Run, StopAt,
};
use stoplog::types::{ErrorCode, GroupState, Offset, OffsetReset, PartitionId};

use crate::relay::Relay;
use crate::world::{
    World, check_all, connect, group, in_group, next, number, rest, send, topic, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_committed() {
    let world = World::start(3).await;
    let producer = world.producer().await;
    send(&producer, 0..300).await;
    let client = world.client().await;
    let mut options = in_group("email", None);
    options.stop = StopAt::End;
    let mut first = client.consumer(options.clone()).await.unwrap();
    let mut seen: Vec<u32> = rest(&mut first).await.iter().map(number).collect();
    within(first.close()).await.unwrap();
    assert_eq!(seen.len(), 300);
    send(&producer, 300..400).await;
    let mut second = client.consumer(options).await.unwrap();
    let more: Vec<u32> = rest(&mut second).await.iter().map(number).collect();
    within(second.close()).await.unwrap();
    assert_eq!(more.iter().copied().collect::<BTreeSet<_>>(), (300..400).collect());
    seen.extend(more);
    let described = client.admin().describe_group(&group("email")).await.unwrap();
    assert_eq!(described.state, GroupState::Empty);
    assert!(described.offsets.iter().all(|offset| offset.lag == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_takes_so_many_leaves_the_next_one_exactly_the_rest() {
    let world = World::start(4).await;
    send(&world.producer().await, 0..480).await;
    let client = world.client().await;
    let options = ConsumerOptions { records_max: Some(50), ..in_group("email", None) };
    let last = ConsumerOptions { stop: StopAt::End, ..options.clone() };
    let mut seen = Vec::new();
    for expected in [50; 9].into_iter().chain([30]) {
        let options = if expected < 50 { &last } else { &options };
        let mut consumer = client.consumer(options.clone()).await.unwrap();
        let some = rest(&mut consumer).await;
        assert_eq!(some.len(), expected);
        seen.extend(some);
        within(consumer.close()).await.unwrap();
    }
    seen.sort_by_key(|record| (record.partition, record.record.offset));
    check_all(&seen, 480);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_processed_is_delivered_again() {
    let world = World::start(1).await;
    send(&world.producer().await, 0..10).await;
    let client = world.client().await;
    let mut options = in_group("email", Some("email-1"));
    options.commit = CommitMode::Manual;
    let mut first = client.consumer(options.clone()).await.unwrap();
    for expected in 0..4 {
        assert_eq!(number(&next(&mut first).await), expected);
    }
    within(first.commit()).await.unwrap();
    assert_eq!(number(&next(&mut first).await), 4);
    // A second process under the same static name: takes over at once, from the commit on.
    let mut second = client.consumer(options).await.unwrap();
    assert_eq!(number(&next(&mut second).await), 4);
    let fenced = loop {
        match within(first.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(fenced.code(), ErrorCode::InstanceFenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_and_not_handed_out_is_not_committed() {
    let world = World::start(1).await;
    send(&world.producer().await, 0..10).await;
    let client = world.client().await;
    let mut options = in_group("email", None);
    options.commit = CommitMode::Manual;
    let mut consumer = client.consumer(options).await.unwrap();
    assert_eq!(number(&next(&mut consumer).await), 0);
    let tick = Duration::from_millis(50);
    let more = tokio::time::timeout(tick, consumer.next_exactly(50)).await;
    assert!(more.is_err(), "there are only ten");
    within(consumer.commit()).await.unwrap();
    let committed = client.admin().committed(&group("email"), &topic()).await.unwrap();
    assert_eq!(committed[0].1, Offset(1));
    assert_eq!(number(&next(&mut consumer).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn processed_is_what_was_handed_out_before_the_next_was_asked_for() {
    let world = World::start(1).await;
    send(&world.producer().await, 0..10).await;
    let client = world.client().await;
    let committed = || async {
        let all = client.admin().committed(&group("email"), &topic()).await.unwrap();
        all.first().map(|(_, offset)| *offset)
    };
    let mut options = in_group("email", None);
    options.commit = CommitMode::Auto { every: Duration::ZERO };
    let mut first = client.consumer(options.clone()).await.unwrap();
    for expected in 0..4 {
        assert_eq!(number(&next(&mut first).await), expected);
    }
    assert_eq!(committed().await, Some(Offset(3)), "the fourth may be in the works");
    drop(first);
    left(&client, "email").await;
    assert_eq!(committed().await, Some(Offset(3)), "dropping commits nothing");
    let mut second = client.consumer(options).await.unwrap();
    assert_eq!(number(&next(&mut second).await), 3);
    assert_eq!(number(&next(&mut second).await), 4);
    within(second.close()).await.unwrap();
    assert_eq!(committed().await, Some(Offset(5)), "closing takes the last for processed");
    left(&client, "email").await;
}

/// Waits until the group has no members. The world's sessions outlive any test: it was left.
async fn left(client: &Client, name: &str) {
    within(async {
        while !client.admin().describe_group(&group(name)).await.unwrap().members.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_takes_half_and_nothing_is_missed() {
    let world = World::start(4).await;
    let producer = world.producer().await;
    send(&producer, 0..200).await;
    let client = world.client().await;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let mut first = client.consumer(in_group("email", None)).await.unwrap();
    let revoked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&revoked);
    first.on_rebalance(move |news| {
        if let Rebalance::Revoked(parts) = news {
            *count.lock().unwrap() += parts.len();
        }
    });
    for _ in 0..50 {
        let record = next(&mut first).await;
        seen.lock().unwrap().insert(number(&record));
    }
    let second = client.consumer(in_group("email", None)).await.unwrap();
    let readers = [first, second].map(|consumer| tokio::spawn(read(consumer, Arc::clone(&seen))));
    within(async {
        loop {
            let described = client.admin().describe_group(&group("email")).await.unwrap();
            let owned: Vec<usize> = described.members.iter().map(|m| m.owned.len()).collect();
            if described.state == GroupState::Stable && owned == [2, 2] {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*revoked.lock().unwrap(), 2);
    send(&producer, 200..400).await;
    within(async {
        while seen.lock().unwrap().len() < 400 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    readers.into_iter().for_each(|reader| reader.abort());
}

async fn read(mut consumer: Consumer, seen: Arc<Mutex<BTreeSet<u32>>>) {
    while let Some(Ok(record)) = consumer.next().await {
        seen.lock().unwrap().insert(number(&record));
    }
}

/// What members processed, in the order in which they did.
type Processed = Arc<Mutex<Vec<(PartitionId, Offset)>>>;

/// Reads until told to stop, then closes.
fn work(mut consumer: Consumer, processed: &Processed, stop: &Arc<Notify>) -> JoinHandle<()> {
    let (processed, stop) = (Arc::clone(processed), Arc::clone(stop));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                record = consumer.next() => {
                    let record = record.unwrap().unwrap();
                    let mut processed = processed.lock().unwrap();
                    processed.push((record.partition, record.record.offset));
                }
                () = stop.notified() => break,
            }
        }
        within(consumer.close()).await.unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_under_load_and_nothing_is_processed_twice() {
    let world = World::start(6).await;
    let client = world.client().await;
    let processed = Processed::default();
    let count = |processed: &Processed| processed.lock().unwrap().len();
    let reach = async |at_least: usize| {
        within(async {
            while count(&processed) < at_least {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    let producer = world.producer().await;
    let sending = tokio::spawn(async move {
        for start in (0..6_000).step_by(50) {
            send(&producer, start..start + 50).await;
        }
    });
    let mut members = Vec::new();
    for joined in 1..=3 {
        let options = in_group("email", None);
        let consumer = client.consumer(options).await.unwrap();
        let stop = Arc::new(Notify::new());
        members.push((work(consumer, &processed, &stop), stop));
        reach(joined * 300).await;
        settled(&client, joined).await;
    }
    let (task, stop) = members.remove(0);
    stop.notify_one();
    within(task).await.unwrap();
    settled(&client, 2).await;
    within(sending).await.unwrap();
    reach(6_000).await;
    for (task, stop) in members {
        stop.notify_one();
        within(task).await.unwrap();
    }
    let processed = processed.lock().unwrap();
    assert_eq!(processed.len(), 6_000, "each record once");
    for number in 0..6 {
        let of_one = processed.iter().filter(|(partition, _)| partition.0 == number);
        assert!(of_one.map(|(_, offset)| offset).is_sorted_by(|a, b| a < b), "partition {number}");
    }
}

/// Waits until so many members own everything, in equal parts.
async fn settled(client: &Client, members: usize) {
    within(async {
        loop {
            let described = client.admin().describe_group(&group("email")).await.unwrap();
            let owned: Vec<usize> = described.members.iter().map(|m| m.owned.len()).collect();
            if described.state == GroupState::Stable && owned == vec![6 / members; members] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_died_is_replaced_at_once_and_nobody_else_notices() {
    let world = World::start(4).await;
    let producer = world.producer().await;
    let relay = Relay::whole(&world.address).await;
    let (stable, dying) = (world.client().await, connect(&relay.address).await);
    let news = Arc::new(Mutex::new(Vec::new()));
    let mut options = in_group("email", Some("email-1"));
    options.commit = CommitMode::Auto { every: Duration::ZERO };
    let mut one = stable.consumer(options.clone()).await.unwrap();
    let told = Arc::clone(&news);
    one.on_rebalance(move |change| told.lock().unwrap().push(change.clone()));
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let reader = tokio::spawn(read(one, Arc::clone(&seen)));
    if let Reading::Group { instance_id, .. } = &mut options.reading {
        *instance_id = Some("email-2".to_owned());
    }
    let two = dying.consumer(options.clone()).await.unwrap();
    let other = tokio::spawn(read(two, Arc::clone(&seen)));
    let owned = async || {
        // Nobody is there before the first heartbeat.
        let described = stable.admin().describe_group(&group("email")).await.ok();
        let members = described.into_iter().flat_map(|described| described.members);
        members.map(|m| (m.instance_id, m.owned)).collect::<BTreeMap<_, _>>()
    };
    let halves = within(async {
        loop {
            let owned = owned().await;
            if owned.len() == 2 && owned.values().all(|parts| parts.len() == 2) {
                break owned;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    send(&producer, 0..200).await;
    within(async {
        while seen.lock().unwrap().len() < 200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let before = news.lock().unwrap().clone();
    // Its process freezes: neither a goodbye nor a heartbeat gets through.
    relay.hold_requests(true);
    let successor = stable.consumer(options).await.unwrap();
    let replaced = tokio::spawn(read(successor, Arc::clone(&seen)));
    send(&producer, 200..400).await;
    within(async {
        while seen.lock().unwrap().len() < 400 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(owned().await, halves);
    assert_eq!(*news.lock().unwrap(), before, "the other member keeps what it has");
    [reader, other, replaced].into_iter().for_each(|task| task.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_group_is_moved_and_deleted() {
    let world = World::start(2).await;
    send(&world.producer().await, 0..50).await;
    let admin = world.client().await.admin();
    let group = group("audit");
    let to = OffsetReset::Latest;
    let planned = admin.reset_group(&group, &topic(), None, to, Run::Dry).await.unwrap();
    assert_eq!(planned.len(), 2);
    assert!(admin.list_groups().await.unwrap().is_empty());
    let only = Some(vec![PartitionId(1)]);
    admin.reset_group(&group, &topic(), only, OffsetReset::Earliest, Run::Really).await.unwrap();
    let committed = admin.committed(&group, &topic()).await.unwrap();
    assert_eq!(committed.len(), 1);
    admin.delete_group(&group, Run::Really).await.unwrap();
    let missing = admin.describe_group(&group).await.err().unwrap();
    assert_eq!(missing.code(), ErrorCode::GroupNotFound);
}
