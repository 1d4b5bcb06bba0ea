//! What happens in the demo, in order: a broker, a topic, three subscribers, events; email is killed
//! and comes back, the broker too if asked, loyalty joins late and replays; then everybody is done and
//! the books are compared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::board::{Board, Progress};
use super::children::{BrokerChild, Subscriber, SubscriberOptions, read_log};
use super::input::Input;
use super::ledger::Ledger;
use super::publisher::Publisher;
use super::verdict::Verdict;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;
use crate::cli::pressure;
use crate::client::{Admin, Client, ClientOptions, Run};
use crate::types::{ErrorCode, GroupId, PressureQuery, TopicName};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 8;
/// Publishing takes about this long, so that there is something to see.
const PUBLISH_SPAN: Duration = Duration::from_secs(9);
/// Analytics needs about this long for all events: it falls behind on purpose.
const SLOW_SPAN: Duration = Duration::from_secs(16);
/// Email stays away this long, so that its lag is seen to grow.
const EMAIL_AWAY: Duration = Duration::from_millis(1_200);
/// The view is renewed this often.
const TICK: Duration = Duration::from_millis(200);
/// Without any progress for so long something is wrong.
const STUCK_AFTER: Duration = Duration::from_secs(40);

/// What differs from run to run.
#[derive(Clone, Debug)]
pub struct Script {
    /// The broker's data directory.
    pub data: PathBuf,
    /// Where the broker's events go.
    pub log: PathBuf,
    /// Whether the broker is killed.
    pub crash: bool,
}

/// Things that happen once, when their share of the events is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    KillEmail,
    RestartEmail,
    CrashBroker,
    AddLoyalty,
}

/// The demo under way.
pub struct Story {
    total: u64,
    broker: BrokerChild,
    admin: Admin,
    topic: TopicName,
    subscribers: Vec<Subscriber>,
    publisher: Publisher,
    board: Board,
    lags: BTreeMap<&'static str, i64>,
    pressure: String,
    email_down: Option<Instant>,
}

impl Story {
    /// Runs it from the first to the last act; the verdict says how it ended.
    pub async fn tell(input: &Input, script: &Script) -> Result<Verdict, Failure> {
        let input = input.clone();
        let counting = input.clone();
        let counted = tokio::task::spawn_blocking(move || counting.totals()).await;
        let totals = counted.map_err(|e| internal(e.to_string()))??;
        let mut story = Story::open(&input, &totals, script).await?;
        story.act(script.crash).await?;
        story.close(totals).await
    }

    async fn open(input: &Input, totals: &Ledger, script: &Script) -> Result<Story, Failure> {
        let total = totals.tally().events;
        let mut board = Board::new(total);
        let broker = BrokerChild::start(&script.data, "127.0.0.1:0", &script.log, &[]).await?;
        board.say(&format!(
            "broker ready on {} (data in {})",
            broker.address,
            script.data.display()
        ));
        let options = ClientOptions { client_id: "demo".to_owned(), ..ClientOptions::default() };
        let admin = Client::connect(&broker.address, options).await?.admin();
        let topic: TopicName = TOPIC.parse()?;
        admin.create_topic(&topic, PARTITIONS, &[], Run::Really).await?;
        board.say(&format!("topic {TOPIC}: {PARTITIONS} partitions, acknowledged after fdatasync"));
        let slow = (total as f64 / SLOW_SPAN.as_secs_f64()).ceil().max(1.0) as u64;
        let options = [("email", None), ("inventory", None), ("analytics", Some(slow))];
        let mut subscribers: Vec<Subscriber> = options
            .into_iter()
            .map(|(group, rate)| Subscriber::new(SubscriberOptions { group, rate }))
            .collect();
        for subscriber in &mut subscribers {
            subscriber.start(&broker.address, TOPIC)?;
        }
        board.say(&format!(
            "subscribers: email, inventory, analytics (slow on purpose: {}/s)",
            grouped(slow)
        ));
        let server = broker.address.clone();
        let publisher = Publisher::start(server, topic.clone(), input, total, PUBLISH_SPAN);
        Ok(Story {
            total,
            broker,
            admin,
            topic,
            subscribers,
            publisher,
            board,
            lags: BTreeMap::new(),
            pressure: String::new(),
            email_down: None,
        })
    }

    /// Everything until each subscriber has every event.
    async fn act(&mut self, crash: bool) -> Result<(), Failure> {
        let mut turns =
            vec![(75, Turn::AddLoyalty), (36, Turn::RestartEmail), (35, Turn::KillEmail)];
        if crash {
            turns.insert(1, (55, Turn::CrashBroker));
        }
        let mut last_progress = (0, Instant::now());
        loop {
            sleep(TICK).await;
            self.publisher.check().await?;
            for subscriber in &mut self.subscribers {
                subscriber.check()?;
            }
            let share = self.publisher.sent() * 100 / self.total.max(1);
            if let Some((at, turn)) = turns.last().copied()
                && share >= at
                && self.take_turn(turn).await?
            {
                turns.pop();
            }
            self.watch().await;
            self.show();
            if turns.is_empty() && self.publisher.is_finished() && self.all_delivered().await? {
                return Ok(());
            }
            let progress = self.publisher.sent() + self.delivered();
            if progress > last_progress.0 {
                last_progress = (progress, Instant::now());
            } else if last_progress.1.elapsed() > STUCK_AFTER {
                return Err(self.stuck());
            }
        }
    }

    /// True once the turn is over.
    async fn take_turn(&mut self, turn: Turn) -> Result<bool, Failure> {
        let server = self.broker.address.clone();
        match turn {
            Turn::KillEmail => {
                self.subscribers[0].kill().await?;
                self.email_down = Some(Instant::now());
                self.board.say("killed email (SIGKILL)");
            }
            Turn::RestartEmail => {
                if self.email_down.is_some_and(|at| at.elapsed() < EMAIL_AWAY) {
                    return Ok(false);
                }
                self.subscribers[0].start(&server, TOPIC)?;
                self.board.say("restarted email: it goes on at its committed offsets");
            }
            Turn::CrashBroker => {
                self.broker.kill().await?;
                self.board.say("killed the broker (SIGKILL)");
                let down = Instant::now();
                self.broker.restart().await?;
                let ms = down.elapsed().as_millis();
                self.board.say(&format!("restarted the broker: recovered and ready in {ms} ms"));
            }
            Turn::AddLoyalty => {
                let options = SubscriberOptions { group: "loyalty", rate: None };
                let mut loyalty = Subscriber::new(options);
                loyalty.start(&server, TOPIC)?;
                self.subscribers.push(loyalty);
                self.board.say("added loyalty: it replays everything from the beginning");
            }
        }
        Ok(true)
    }

    /// Asks the broker for lags and limits; while it is away the last answers stay.
    async fn watch(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        for subscriber in &self.subscribers {
            let Ok(group) = subscriber.group().parse::<GroupId>() else { continue };
            let asked = tokio::time::timeout(PATIENCE, self.admin.describe_group(&group)).await;
            if let Ok(Ok(group)) = asked {
                self.lags.insert(subscriber.group(), group.offsets.iter().map(|o| o.lag).sum());
            }
        }
        let asked =
            tokio::time::timeout(PATIENCE, self.admin.pressure(PressureQuery::default())).await;
        self.pressure = match asked {
            Ok(Ok(report)) => pressure::causes(&report.limited),
            _ => "the broker does not answer".to_owned(),
        };
    }

    fn show(&mut self) {
        let durable = if self.publisher.is_finished() { "all durable" } else { "acks durable" };
        let mut progress = vec![Progress {
            name: "publish",
            done: self.publisher.sent(),
            note: durable.to_owned(),
        }];
        for subscriber in &self.subscribers {
            let lag = self.lags.get(subscriber.group()).copied().unwrap_or(0);
            let state = if subscriber.is_running() { "" } else { ", down" };
            progress.push(Progress {
                name: subscriber.group(),
                done: subscriber.with_ledger(|ledger| ledger.tally().events),
                note: format!("lag {}{state}", grouped(lag)),
            });
        }
        self.board.show(&progress, &self.pressure);
    }

    fn delivered(&self) -> u64 {
        self.subscribers.iter().map(|s| s.with_ledger(Ledger::delivered)).sum()
    }

    /// Whether every subscriber has seen every offset up to the visible ends.
    async fn all_delivered(&self) -> Result<bool, Failure> {
        let topic = self.admin.describe_topic(&self.topic).await?;
        let ends: BTreeMap<u32, i64> = topic
            .partitions
            .iter()
            .filter(|p| p.visible_end.0 > 0)
            .map(|p| (p.partition.0, p.visible_end.0))
            .collect();
        Ok(self.subscribers.iter().all(|s| s.with_ledger(Ledger::positions) == ends))
    }

    fn stuck(&self) -> Failure {
        let states: Vec<String> = self
            .subscribers
            .iter()
            .map(|s| format!("{} {}", s.group(), s.with_ledger(|l| l.tally().events)))
            .collect();
        let sent = self.publisher.sent();
        let what = format!("nothing moves: published {sent}, {}", states.join(", "));
        Failure::new(ErrorCode::TimedOut, what)
    }

    /// Ends the subscribers, reads the log once more, ends the broker, compares the books.
    async fn close(mut self, totals: Ledger) -> Result<Verdict, Failure> {
        for subscriber in &mut self.subscribers {
            subscriber.stop().await?;
        }
        self.watch().await;
        self.show();
        self.board.finish();
        let behind: i64 = self.lags.values().sum();
        if behind != 0 {
            let what = format!("committed offsets are {behind} behind what was delivered");
            return Err(Failure::new(ErrorCode::ResultMismatch, what));
        }
        let log = read_log(&self.broker.address, TOPIC).await?;
        self.broker.stop().await?;
        self.board.say("every group has committed everything; the broker drained and ended");
        let mut columns = vec![("LOG", log)];
        for subscriber in &self.subscribers {
            columns.push((subscriber.group(), subscriber.with_ledger(Ledger::clone)));
        }
        Ok(Verdict::new(totals, columns))
    }
}

fn internal(what: String) -> Failure {
    Failure::new(ErrorCode::Internal, what)
}
