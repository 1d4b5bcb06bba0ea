//! Space comes back by itself: to a full topic, to a full disk, and never from whom did not say so.

use std::sync::Arc;
use std::time::Duration;

use stoplog::broker::flow::{Cause, Offer};
use stoplog::broker::{Broker, NewTopic, ProduceError, Produced, Topic};
use stoplog::env::SeededRng;
use stoplog::env::sim::{Fault, SimClock};
use stoplog::env::{Clock, Env};
use stoplog::types::{Effects, Offset, PartitionId, Pushback, PushbackCode, Severity};

use crate::world::{World, config, large_batch, produce, read_all, run, until};

/// A world whose time stands still until a test moves it.
struct Still {
    world: World,
    clock: SimClock,
}

impl Still {
    fn new() -> Still {
        let mut world = World::new();
        world.options.disk.look_under_pressure = Duration::from_millis(10);
        Still { world, clock: SimClock::new() }
    }

    fn with_disk(bytes: u64) -> Still {
        let still = Still::new();
        still.world.disk.set_capacity(bytes);
        still
    }

    async fn open(&self) -> Broker {
        let env = Env {
            clock: Arc::new(self.clock.clone()) as Arc<dyn Clock>,
            rng: Arc::new(SeededRng::new(7)),
            disk: Arc::new(self.world.disk.clone()),
        };
        Broker::open_with(self.world.options.clone(), env).await.expect("the broker opens")
    }

    /// Lets some time pass, in the test and for the broker.
    async fn wait(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Produces until it works, as a producer that obeys does; the refusals on the way.
    async fn persist(
        &self,
        broker: &Broker,
        topic: &Topic,
        bytes: usize,
    ) -> (Produced, Vec<Pushback>) {
        let mut refusals = Vec::new();
        for _ in 0..6_000 {
            match produce(broker, topic, 0, large_batch(bytes)).await {
                Ok(produced) => return (produced, refusals),
                outcome => {
                    let refused = pushback(outcome);
                    self.wait(u64::from(refused.retry_after_ms.clamp(1, 250))).await;
                    refusals.push(refused);
                }
            }
        }
        panic!("never: {:?}", refusals.last());
    }

    /// Produces as a producer that obeys until one of these codes; how many batches came in.
    async fn fill(&self, broker: &Broker, topic: &Topic, until: PushbackCode) -> (u64, Pushback) {
        let mut written = 0;
        for _ in 0..10_000 {
            match produce(broker, topic, 0, large_batch(60_000)).await {
                Ok(_) => written += 1,
                outcome => {
                    let refused = pushback(outcome);
                    if refused.code == until {
                        return (written, refused);
                    }
                    self.wait(u64::from(refused.retry_after_ms)).await;
                }
            }
        }
        panic!("{until:?} never came");
    }
}

async fn topic(broker: &Broker, name: &str, settings: &[(&str, &str)]) -> Arc<Topic> {
    let mut new = NewTopic::new(name.parse().unwrap(), 1);
    new.config = config(settings);
    // Then records are as old as the clock of the test says.
    new.config.set("timestamp_type", "append").unwrap();
    broker.create_topic(new).await.unwrap()
}

fn pushback(outcome: Result<Produced, ProduceError>) -> Pushback {
    match outcome {
        Err(ProduceError::Pushback(pushback)) => {
            assert_eq!(pushback.effects, Effects::None);
            pushback
        }
        other => panic!("not refused by a limit: {other:?}"),
    }
}

fn end(topic: &Topic) -> Offset {
    topic.partition(PartitionId(0)).unwrap().span().1
}

#[test]
fn a_full_topic_whose_retention_is_over_opens_by_itself() {
    run(async {
        let still = Still::new();
        let broker = still.open().await;
        let settings =
            [("max_bytes", "256KiB"), ("max_message_bytes", "256KiB"), ("retention_ms", "60s")];
        let topic = topic(&broker, "orders", &settings).await;
        let (mut written, mut edge) = (0, 0);
        // A look beside a batch counts it twice for a moment; the edge is known after a look.
        while written < 4 || edge == 0 {
            let (more, refused) = still.fill(&broker, &topic, PushbackCode::TopicFull).await;
            assert_eq!(refused.severity, Severity::Reject);
            (written, edge) = (written + more, refused.retry_after_ms);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((written, topic.partitions()[0].describe().segments), (4, 1), "one, active");
        assert!((59_000..=60_001).contains(&edge), "until its oldest records go: {edge} ms");
        still.clock.advance(Duration::from_millis(u64::from(edge)));
        until("its records went without an append", || topic.bytes() == 0).await;
        assert_eq!((end(&topic), read_all(&topic, 0).await.len()), (Offset(4), 0));
        let (produced, _) = still.persist(&broker, &topic, 60_000).await;
        assert_eq!(produced.base_offset, Offset(4));
    });
}

#[test]
fn a_full_disk_whose_records_are_past_retention_opens_by_itself() {
    run(async {
        let still = Still::with_disk(8 << 20);
        let broker = still.open().await;
        let topic = topic(&broker, "orders", &[("retention_ms", "10m")]).await;
        let kept = self::topic(&broker, "kept", &[]).await;
        still.persist(&broker, &kept, 1_000).await;
        let (written, _) = still.fill(&broker, &topic, PushbackCode::DiskFull).await;
        let written = i64::try_from(written).unwrap();
        assert!(written * 60_000 > 4 << 20, "at least half of it: {written}");
        assert_eq!(topic.partitions()[0].describe().segments, 1, "one active segment");
        still.clock.advance(Duration::from_secs(601));
        until("its records went without an append", || topic.bytes() == 0).await;
        assert_eq!(end(&topic), Offset(written));
        let (produced, refusals) = still.persist(&broker, &topic, 60_000).await;
        assert_eq!(produced.base_offset, Offset(written));
        let disk = [PushbackCode::DiskFull, PushbackCode::DiskLow];
        assert!(refusals.iter().all(|refused| disk.contains(&refused.code)), "{refusals:?}");
        assert_eq!(read_all(&kept, 0).await.len(), 1, "what is not past retention stays");
    });
}

#[test]
fn a_disk_at_high_trims_only_topics_that_drop_their_oldest() {
    run(async {
        let still = Still::with_disk(16 << 20);
        let broker = still.open().await;
        let small = ("segment_bytes", "512KiB");
        let orders = topic(&broker, "orders", &[small]).await;
        let logs = topic(&broker, "logs", &[small, ("on_full", "drop_oldest")]).await;
        for _ in 0..100 {
            still.persist(&broker, &orders, 60_000).await;
        }
        for _ in 0..300 {
            still.persist(&broker, &logs, 60_000).await;
        }
        assert_eq!(read_all(&orders, 0).await.len(), 100, "nothing of it goes");
        let (start, end) = logs.partition(PartitionId(0)).unwrap().span();
        assert!(start > Offset(100) && end == Offset(300), "{start} {end}");
        assert_eq!(read_all(&logs, 0).await.len() as i64, end - start);
        assert_eq!(broker.fault(), None);
    });
}

#[test]
fn a_topic_that_holds_waits_a_little_and_then_refuses() {
    run(async {
        let still = Still::new();
        let broker = still.open().await;
        let settings =
            [("max_bytes", "256KiB"), ("max_message_bytes", "64KiB"), ("on_full", "hold")];
        let topic = topic(&broker, "orders", &settings).await;
        let (written, held) = still.fill(&broker, &topic, PushbackCode::TopicFull).await;
        assert_eq!((held.severity, held.retry_after_ms), (Severity::Hold, 5_000));
        let share = Offer { bytes: 1 << 20, cause: Cause::Window };
        let offered = || topic.limit_offer(share, 10, broker.monotonic());
        let withheld = Offer { bytes: 10, cause: Cause::TopicFull };
        assert_eq!(offered(), withheld, "no more than is under way");
        still.clock.advance(Duration::from_secs(5));
        let refused = pushback(produce(&broker, &topic, 0, large_batch(60_000)).await);
        assert_eq!(refused.severity, Severity::Reject);
        let before = Offset(i64::try_from(written).unwrap() - 1);
        broker.trim(topic.id(), PartitionId(0), before).await.unwrap();
        let (produced, _) = still.persist(&broker, &topic, 60_000).await;
        assert_eq!(produced.base_offset, before + 1);
        assert_ne!(offered(), withheld);
    });
}

#[test]
fn a_topic_that_throttles_slows_down_before_its_limit() {
    run(async {
        let still = Still::new();
        let broker = still.open().await;
        let settings = [
            ("max_bytes", "4MiB"),
            ("max_message_bytes", "64KiB"),
            ("on_full", "throttle"),
            ("segment_bytes", "256KiB"),
        ];
        let topic = topic(&broker, "orders", &settings).await;
        // Its slope is known once it was looked at.
        still.wait(10).await;
        let (written, held) = still.fill(&broker, &topic, PushbackCode::TopicFull).await;
        assert!(written * 60_000 < (4 << 20) - 60_000, "there is room left: {written}");
        assert_eq!(held.severity, Severity::Hold);
        assert!(held.retry_after_ms > 0);
    });
}

#[test]
fn segments_beyond_max_segments_go() {
    run(async {
        let still = Still::new();
        let broker = still.open().await;
        let settings =
            [("max_segments", "4"), ("on_full", "drop_oldest"), ("segment_bytes", "128KiB")];
        let topic = topic(&broker, "orders", &settings).await;
        for _ in 0..60 {
            produce(&broker, &topic, 0, large_batch(60_000)).await.unwrap();
        }
        broker.alter_topic(topic.name(), vec![("max_segments".into(), "3".into())]).await.unwrap();
        let segments = || topic.partitions()[0].describe().segments;
        until("at most three are left", || (1..=3).contains(&segments())).await;
        assert_eq!(end(&topic), Offset(60));
    });
}

#[test]
fn an_end_of_the_disk_at_any_operation_is_over_after_a_while() {
    run(async {
        let mut struck = 0;
        for n in 0..60 {
            let still = Still::new();
            let broker = still.open().await;
            let topic = topic(&broker, "orders", &[("segment_bytes", "64KiB")]).await;
            still.world.disk.fail_nth(n, Fault::Enospc);
            let mut written = 0;
            for _ in 0..6 {
                match produce(&broker, &topic, 0, large_batch(30_000)).await {
                    Ok(_) => written += 1,
                    outcome => assert_eq!(pushback(outcome).code, PushbackCode::DiskFull, "{n}"),
                }
            }
            struck += u32::from(still.world.disk.clear_fault());
            let (produced, refusals) = still.persist(&broker, &topic, 30_000).await;
            let full = |refused: &Pushback| refused.code == PushbackCode::DiskFull;
            assert!(refusals.iter().all(full), "{n}: {refusals:?}");
            assert!(produced.base_offset >= Offset(written), "{n}");
            assert_eq!(read_all(&topic, 0).await.len() as i64, written + 1, "{n}");
            assert_eq!(broker.fault(), None, "{n}: nothing is latched");
        }
        assert!(struck > 10, "it met operations that need room: {struck}");
    });
}
