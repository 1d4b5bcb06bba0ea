//! Groups that must not fall further behind: who waits for them, who does not, and for how long.

use std::sync::Arc;
use std::time::Duration;

use stoplog::broker::flow::{ConnectionFlow, Identity};
use stoplog::broker::{Broker, NewTopic, ProduceError, ShutdownMode, Topic};
use stoplog::env::sim::SimClock;
use stoplog::env::{Env, SeededRng};
use stoplog::types::{
    Effects, EntityKind, Offset, PartitionId, PressureQuery, Pushback, PushbackCode, PushbackScope,
    Severity,
};

use crate::groups::{commit, join, leave};
use crate::world::{World, batch, config, large_batch, produce, read_all, request, run, until};

async fn orders(broker: &Broker, backlog: &str) -> Arc<Topic> {
    let mut new = NewTopic::new("orders".parse().unwrap(), 1);
    new.config = config(&[("backlog", backlog), ("durability", "os")]);
    broker.create_topic(new).await.unwrap()
}

/// Writes one record.
async fn send(broker: &Broker, topic: &Topic) -> Result<(), Pushback> {
    told(produce(broker, topic, 0, batch(&["order"])).await)
}

async fn send_as(broker: &Broker, topic: &Topic, who: &ConnectionFlow) -> Result<(), Pushback> {
    let mut request = request(topic, 0, batch(&["order"]));
    request.connection = Some(who.clone());
    told(broker.produce_and_wait(request).await)
}

fn told<T>(outcome: Result<T, ProduceError>) -> Result<(), Pushback> {
    match outcome {
        Ok(_) => Ok(()),
        Err(ProduceError::Pushback(pushback)) => Err(pushback),
        Err(other) => panic!("{other}"),
    }
}

/// Writes until it is refused: how many records that were, and what was said.
async fn fill(broker: &Broker, topic: &Topic) -> (i64, Pushback) {
    for written in 0..1_000 {
        if let Err(pushback) = send(broker, topic).await {
            return (written, pushback);
        }
    }
    panic!("nobody was held back");
}

async fn counts(topic: &Topic) {
    until("the group's lag counts", || topic.backlog_room_bytes().is_some()).await;
}

async fn counts_no_more(topic: &Topic) {
    until("nobody waits any more", || topic.backlog_room_bytes().is_none()).await;
}

fn end(topic: &Topic) -> Offset {
    topic.partition(PartitionId(0)).unwrap().span().1
}

#[test]
fn producers_wait_for_a_slow_group_by_name_and_go_on_when_it_has_read() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, "email:records=10").await;
        let me = join(&broker, 1).await;
        counts(&topic).await;
        let (written, held) = fill(&broker, &topic).await;
        assert_eq!(written, 10);
        assert_eq!((held.code, held.scope), (PushbackCode::BacklogLimit, PushbackScope::Group));
        assert_eq!((held.severity, held.effects), (Severity::Hold, Effects::None));
        assert_eq!((&*held.limit_id, held.limit, &*held.unit), ("backlog:email", 10, "records"));
        assert!((100..=30_000).contains(&held.retry_after_ms), "{held:?}");
        for read in [4, 9, 19] {
            broker.groups().commit(commit(&topic, Some(&me), read)).await.unwrap();
            until("there is room again", || topic.backlog_room_bytes() > Some(0)).await;
            let (_, held) = fill(&broker, &topic).await;
            assert_eq!(held.code, PushbackCode::BacklogLimit);
            assert_eq!(end(&topic), Offset(read + 10), "as far ahead as it may be");
        }
    });
}

#[test]
fn a_limit_may_refuse_instead_and_a_member_of_the_group_has_a_tenth_more() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, "email:records=20,action=reject").await;
        join(&broker, 1).await;
        counts(&topic).await;
        assert_eq!(fill(&broker, &topic).await.1.severity, Severity::Reject);
        let who = |name| broker.connect(Identity::anonymous(name, [127, 0, 0, 1].into()));
        let (member, other) = (who("worker"), who("shop"));
        member.join(&"email".parse().unwrap());
        for _ in 0..2 {
            send_as(&broker, &topic, &member).await.expect("a tenth more");
            send_as(&broker, &topic, &other).await.expect_err("not for others");
        }
        let held = send_as(&broker, &topic, &member).await.expect_err("no more than that");
        assert_eq!((held.severity, held.code), (Severity::Reject, PushbackCode::BacklogLimit));
        member.leave(&"email".parse().unwrap());
        assert!(!member.has_joined(&"email".parse().unwrap()));
    });
}

#[test]
fn a_member_is_told_no_and_not_to_wait_for_itself() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, "email:records=10,action=throttle").await;
        join(&broker, 1).await;
        counts(&topic).await;
        assert_eq!(fill(&broker, &topic).await.1.severity, Severity::Hold);
        let member = broker.connect(Identity::anonymous("worker", [127, 0, 0, 1].into()));
        member.join(&"email".parse().unwrap());
        send_as(&broker, &topic, &member).await.expect("a tenth more");
        let held = send_as(&broker, &topic, &member).await.expect_err("no more than that");
        assert_eq!(held.severity, Severity::Reject);
    });
}

#[test]
fn groups_nobody_ever_joined_new_ones_and_replays_hold_nobody_back() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, "email:records=10").await;
        for _ in 0..50 {
            send(&broker, &topic).await.expect("nobody joined");
        }
        let me = join(&broker, 1).await;
        broker.groups().commit(commit(&topic, Some(&me), 1)).await.unwrap();
        for _ in 0..50 {
            send(&broker, &topic).await.expect("a new group catches up");
        }
        broker.groups().commit(commit(&topic, Some(&me), 99)).await.unwrap();
        counts(&topic).await;
        fill(&broker, &topic).await;
        broker.groups().commit(commit(&topic, Some(&me), 3)).await.unwrap();
        counts_no_more(&topic).await;
        for _ in 0..50 {
            send(&broker, &topic).await.expect("it reads again what it has read");
        }
    });
}

#[test]
fn a_group_that_is_gone_for_long_holds_nobody_back_and_a_deploy_does() {
    run(async {
        let (world, clock) = (World::new(), SimClock::new());
        let (disk, rng) = (Arc::new(world.disk.clone()), Arc::new(SeededRng::new(7)));
        let env = Env { clock: Arc::new(clock.clone()), rng, disk };
        let broker = Broker::open_with(world.options.clone(), env).await.unwrap();
        let topic = orders(&broker, "email:records=10").await;
        let me = join(&broker, 1).await;
        broker.groups().commit(commit(&topic, Some(&me), 0)).await.unwrap();
        counts(&topic).await;
        fill(&broker, &topic).await;
        leave(&broker, &me).await;
        // Nobody is there any more when a tick looks: the time of its absence begins before it.
        until("a tick has passed", || topic.backlog_room_bytes() == Some(0)).await;
        clock.advance(Duration::from_secs(599));
        send(&broker, &topic).await.expect_err("a deploy opens no gate");
        until("the group is released", || {
            clock.advance(Duration::from_secs(10));
            topic.backlog_room_bytes().is_none()
        })
        .await;
        send(&broker, &topic).await.expect("a dead group closes no topic");
        let ended =
            "topic orders is no longer limited by backlog:email: group email has had no member";
        until("the release is told", || events(&broker).iter().any(|it| it.starts_with(ended)))
            .await;
        broker.shutdown(ShutdownMode::AtOnce).await;
    });
}

/// What came and went of topics.
fn events(broker: &Broker) -> Vec<String> {
    let query = PressureQuery { history_ms: u32::MAX, ..PressureQuery::default() };
    let events = broker.pressure_of(query).events;
    let topics = events.iter().filter(|event| event.entity.kind == EntityKind::Topic);
    topics.map(ToString::to_string).collect()
}

#[test]
fn a_group_that_begins_and_ends_to_hold_a_topic_back_is_an_event_though_nobody_was_refused() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, "email:records=3").await;
        let me = join(&broker, 1).await;
        counts(&topic).await;
        for _ in 0..3 {
            send(&broker, &topic).await.expect("as far behind as it may be");
        }
        until("it is told", || !events(&broker).is_empty()).await;
        let told = events(&broker).remove(0);
        assert_eq!(told, "topic orders is limited by backlog:email: 3 of 3 records");
        broker.groups().commit(commit(&topic, Some(&me), 3)).await.unwrap();
        until("its end is told", || events(&broker).len() == 2).await;
        let told = events(&broker).remove(1);
        assert_eq!(told, "topic orders is no longer limited by backlog:email");
        let name = "__pressure".parse().unwrap();
        until("the topic is made", || broker.topic(&name).is_some()).await;
        let told = broker.topic(&name).unwrap();
        until("both are there", || end(&told) >= Offset(2)).await;
        let values = read_all(&told, 0).await;
        let both = values.iter().filter(|value| value.contains("\"name\":\"orders\""));
        assert_eq!(both.count(), 2, "{values:?}");
    });
}

#[test]
fn a_restart_opens_no_gate() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let topic = orders(&broker, "email:records=10").await;
        let me = join(&broker, 1).await;
        counts(&topic).await;
        fill(&broker, &topic).await;
        broker.groups().commit(commit(&topic, Some(&me), 1)).await.unwrap();
        broker.shutdown(ShutdownMode::Graceful).await;
        let broker = world.open().await;
        let topic = broker.topic(&"orders".parse().unwrap()).unwrap();
        assert_eq!(fill(&broker, &topic).await.0, 1, "from the first batch on");
    });
}

#[test]
fn a_limit_that_is_set_or_lifted_while_it_runs_counts() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, "none").await;
        let me = join(&broker, 1).await;
        for _ in 0..20 {
            send(&broker, &topic).await.expect("no limit");
        }
        broker.groups().commit(commit(&topic, Some(&me), 20)).await.unwrap();
        let set = async |value: &str| {
            let changes = vec![("backlog".to_owned(), value.to_owned())];
            broker.alter_topic(topic.name(), changes).await.unwrap();
        };
        set("email:bytes=1KiB").await;
        counts(&topic).await;
        let (written, held) = fill(&broker, &topic).await;
        assert!(written > 1 && (held.limit, &*held.unit) == (1_024, "bytes"), "{held:?}");
        set("none").await;
        counts_no_more(&topic).await;
        send(&broker, &topic).await.expect("no limit any more");
    });
}

/// Small segments of a topic that wants to keep nothing but the newest.
async fn short_lived(broker: &Broker, name: &str, protect: &str) -> Arc<Topic> {
    let mut new = NewTopic::new(name.parse().unwrap(), 1);
    let settings = [("retention_bytes", "4KiB"), ("segment_bytes", "4KiB"), ("protect", protect)];
    new.config = config(&settings);
    broker.create_topic(new).await.unwrap()
}

fn start(topic: &Topic) -> Offset {
    topic.partition(PartitionId(0)).unwrap().span().0
}

/// Writes to both; returns when retention has been at work on `other`.
async fn until_retention(broker: &Broker, topic: &Topic, other: &Topic) {
    let before = start(other);
    for _ in 0..40 {
        for topic in [topic, other] {
            produce(broker, topic, 0, large_batch(1_000)).await.unwrap();
        }
    }
    until("retention is at work", || start(other) > before + 20).await;
}

#[test]
fn what_a_protecting_group_has_not_read_outlives_retention_and_restarts() {
    run(async {
        let mut world = World::new();
        world.options.storage.housekeeping = Duration::from_millis(50);
        let broker = world.open().await;
        let topic = short_lived(&broker, "orders", "groups(email)").await;
        let other = short_lived(&broker, "other", "none").await;
        broker.groups().commit(commit(&topic, None, 0)).await.unwrap();
        let partition = topic.partition(PartitionId(0)).unwrap();
        until("the group protects", || partition.protected() == Some(Offset(0))).await;
        until_retention(&broker, &topic, &other).await;
        assert_eq!(start(&topic), Offset(0));
        broker.groups().commit(commit(&topic, None, 25)).await.unwrap();
        until("what was read goes", || start(&topic) > Offset(10)).await;
        broker.shutdown(ShutdownMode::AtOnce).await;
        let broker = world.open().await;
        let named = |name: &str| broker.topic(&name.parse().unwrap()).unwrap();
        let (topic, other) = (named("orders"), named("other"));
        until_retention(&broker, &topic, &other).await;
        assert!(start(&topic) <= Offset(25), "{}", start(&topic));
        broker.shutdown(ShutdownMode::Graceful).await;
        world.options.flow.protect_idle_ms = 1;
        let broker = world.open().await;
        let topic = broker.topic(&"orders".parse().unwrap()).unwrap();
        until("a group that is gone for long protects nothing", || start(&topic) > Offset(25))
            .await;
    });
}
