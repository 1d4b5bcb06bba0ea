//! Three limits, one after the other, each seen to hold somebody back and to let go by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sender::{Acknowledged, Sender, filler};
use super::verdict::Verdict;
use crate::cli::demo::board::{Board, Progress};
use crate::cli::demo::children::{BrokerChild, Subscriber, SubscriberOptions, read_log};
use crate::cli::demo::input::{Event, Input};
use crate::cli::demo::ledger::{Delivery, Ledger};
use crate::cli::demo::story::Script;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;
use crate::cli::pressure;
use crate::client::{Admin, Client, ClientOptions, Run};
use crate::types::{
    ErrorCode, GroupId, Match, PressureQuery, Pushback, QuotaEntity, TopicName, format_bytes,
};

const ORDERS: &str = "orders";
const CLICKS: &str = "clicks";
const EMAIL: &str = "email";
/// How far email may fall behind, and how slow it is: three seconds' worth.
pub const LAG_MAX: u64 = 1_200;
const SLOW_PER_S: u64 = 400;
/// Orders of each act.
const BACKLOG_ORDERS: usize = 3_600;
const QUOTA_ORDERS: usize = 1_500;
const DISK_ORDERS: usize = 400;
const AFTER_ORDERS: usize = 100;
/// All of them: what an act needs, and what shows after it that it is over.
pub const ALL_ORDERS: u64 = (BACKLOG_ORDERS + QUOTA_ORDERS + DISK_ORDERS + 5 * AFTER_ORDERS) as u64;
const PER_BATCH: usize = 50;
/// Bytes a second of one client: its burst takes some seconds.
const QUOTA: &str = "512KiB";
/// The disk, and how long clicks are kept: until then it stays full.
const CAPACITY: &str = "80MiB";
const KEPT: &str = "8s";
const CLICK_BYTES: usize = 256 << 10;
/// Refusals after which the disk has made its point.
const DISK_REFUSALS: u64 = 3;
const TICK: Duration = Duration::from_millis(200);
/// A limit that was just set is in force after that.
const LIMIT_COUNTS_AFTER: Duration = Duration::from_secs(1);
/// The same refusal is told again so often.
const SAID_AGAIN_AFTER: Duration = Duration::from_millis(2_500);
/// What does not clear within this does not clear.
const CLEARS_WITHIN: Duration = Duration::from_secs(40);

/// The demo under way.
pub struct Story {
    events: std::vec::IntoIter<Event>,
    broker: BrokerChild,
    admin: Admin,
    email: Subscriber,
    shop: Sender,
    partner: Sender,
    tracker: Sender,
    acked: Acknowledged,
    board: Board,
    lag: i64,
    lag_most: i64,
    pressure: String,
    limited: bool,
    /// When what somebody is told was said last, and how often they have been told so.
    said: BTreeMap<(&'static str, &'static str), (Option<Instant>, u64)>,
}

impl Story {
    /// Runs all acts; the verdict says how it ended.
    pub async fn tell(seed: u64, script: &Script) -> Result<Verdict, Failure> {
        let mut story = Story::open(seed, script).await?;
        story.slow_subscriber().await?;
        story.quota().await?;
        story.small_disk().await?;
        story.close().await
    }

    async fn open(seed: u64, script: &Script) -> Result<Story, Failure> {
        let mut events = Vec::new();
        Input::Generated { seed, events: ALL_ORDERS }.for_each(|event| {
            events.push(event);
            Ok(())
        })?;
        let mut board = Board::new(ALL_ORDERS);
        let disk = format!("disk.capacity_bytes={CAPACITY}");
        let broker = BrokerChild::start(&script.data, "127.0.0.1:0", &script.log, &[disk]).await?;
        board.say(&format!("broker ready on {}, on a disk of {CAPACITY}", broker.address));
        let options = ClientOptions { client_id: "demo".to_owned(), ..ClientOptions::default() };
        let admin = Client::connect(&broker.address, options).await?.admin();
        let (orders, clicks): (TopicName, TopicName) = (ORDERS.parse()?, CLICKS.parse()?);
        let backlog = format!("{EMAIL}:records={LAG_MAX},action=throttle");
        admin.create_topic(&orders, 1, &settings(&[("backlog", &backlog)]), Run::Really).await?;
        let kept = settings(&[("retention_ms", KEPT), ("durability", "os")]);
        admin.create_topic(&clicks, 1, &kept, Run::Really).await?;
        let rate = Some(SLOW_PER_S);
        let mut email = Subscriber::new(SubscriberOptions { group: EMAIL, rate });
        email.start(&broker.address, ORDERS)?;
        Ok(Story {
            events: events.into_iter(),
            shop: Sender::connect(&broker.address, "shop", &orders).await?,
            partner: Sender::connect(&broker.address, "partner", &orders).await?,
            tracker: Sender::connect(&broker.address, "tracker", &clicks).await?,
            broker,
            admin,
            email,
            acked: Acknowledged::default(),
            board,
            lag: 0,
            lag_most: 0,
            pressure: String::new(),
            limited: true,
            said: BTreeMap::new(),
        })
    }

    /// Email is slow, so the shop waits for it; email is repaired, so it does not.
    async fn slow_subscriber(&mut self) -> Result<(), Failure> {
        self.board.say(&format!(
            "1. a slow subscriber: email reads {SLOW_PER_S}/s and may be {} orders behind",
            grouped(LAG_MAX)
        ));
        self.begin_to_read().await?;
        let publishing = self.begin(self.shop.clone(), BACKLOG_ORDERS);
        let mut repaired = false;
        while !publishing.is_finished() {
            self.watch().await?;
            if !repaired && self.shop.book().acked > BACKLOG_ORDERS as u64 * 3 / 4 {
                self.email.stop().await?;
                self.email.hurry();
                self.email.start(&self.broker.address, ORDERS)?;
                self.board.say("   email was repaired and reads as fast as it can");
                repaired = true;
            }
        }
        ended(publishing).await?;
        self.settled("email has read everything", |story| story.lag == 0).await?;
        self.shows_that_it_is_over("BACKLOG_LIMIT").await
    }

    /// The shop is over its quota and pays its debt; the partner does not notice.
    async fn quota(&mut self) -> Result<(), Failure> {
        self.board.say(&format!("2. a quota: client shop may send {QUOTA}/s; partner has none"));
        let entity = QuotaEntity::Client(Match::Exact(self.shop.name().to_owned()));
        let quota = settings(&[("produce_bytes", QUOTA)]);
        self.admin.set_quota(&entity, &quota, Run::Really).await?;
        let publishing = self.begin(self.shop.clone(), QUOTA_ORDERS);
        let beside = self.begin(self.partner.clone(), AFTER_ORDERS);
        while !publishing.is_finished() {
            self.watch().await?;
        }
        ended(publishing).await?;
        ended(beside).await?;
        let partner = self.partner.book();
        self.board.say(&format!(
            "   meanwhile partner sent {} orders and was refused {} times",
            grouped(partner.acked),
            partner.refused()
        ));
        // A second's worth is what it may send at once when it owes nothing.
        sleep(Duration::from_millis(1_200)).await;
        self.shows_that_it_is_over("THROTTLED_RATE").await?;
        self.admin.delete_quota(&entity, Run::Really).await?;
        Ok(())
    }

    /// Clicks fill the disk; they expire, so there is room again. No order goes.
    async fn small_disk(&mut self) -> Result<(), Failure> {
        self.board.say(&format!(
            "3. a small disk: clicks, which are kept for {KEPT}, fill what is left of {CAPACITY}"
        ));
        let tracker = self.tracker.clone();
        let filling = tokio::spawn(async move { fill(&tracker).await });
        while !filling.is_finished() {
            self.watch().await?;
        }
        ended(filling).await?;
        let publishing = self.begin(self.shop.clone(), DISK_ORDERS);
        while !publishing.is_finished() {
            self.watch().await?;
        }
        ended(publishing).await?;
        self.settled("clicks expired, their space is back, nobody did anything", |story| {
            !story.limited
        })
        .await?;
        self.shows_that_it_is_over("DISK").await
    }

    /// The lag of a group counts once it was below its limit: it must have read something.
    async fn begin_to_read(&mut self) -> Result<(), Failure> {
        let orders = self.take(AFTER_ORDERS);
        self.shop.publish(&orders, PER_BATCH, &self.acked).await?;
        let read = |story: &Story| story.email.with_ledger(|ledger| ledger.tally().events);
        let all = AFTER_ORDERS as u64;
        self.settled("email has read the first orders", |s| s.lag == 0 && read(s) >= all).await?;
        sleep(LIMIT_COUNTS_AFTER).await;
        Ok(())
    }

    /// Publishes the next orders beside what else happens.
    fn begin(
        &mut self,
        who: Sender,
        orders: usize,
    ) -> tokio::task::JoinHandle<Result<(), Failure>> {
        let (events, acked) = (self.take(orders), Arc::clone(&self.acked));
        tokio::spawn(async move { who.publish(&events, PER_BATCH, &acked).await })
    }

    fn take(&mut self, orders: usize) -> Vec<Event> {
        self.events.by_ref().take(orders).collect()
    }

    /// The next orders are let in without a word.
    async fn shows_that_it_is_over(&mut self, code: &str) -> Result<(), Failure> {
        let before = self.shop.book().refused();
        let orders = self.take(AFTER_ORDERS);
        self.shop.publish(&orders, PER_BATCH, &self.acked).await?;
        let again = self.shop.book().refused() - before;
        if again > 0 {
            let what = format!("{code} does not clear: the shop was refused {again} times more");
            return Err(Failure::new(ErrorCode::ResultMismatch, what));
        }
        self.board.say(&format!("   {code} is over: {AFTER_ORDERS} orders passed without a word"));
        Ok(())
    }

    async fn settled(&mut self, what: &str, holds: impl Fn(&Story) -> bool) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            self.watch().await?;
            if holds(self) {
                self.board.say(&format!("   {what}"));
                return Ok(());
            }
            if since.elapsed() > CLEARS_WITHIN {
                return Err(Failure::new(ErrorCode::TimedOut, format!("never: {what}")));
            }
        }
    }

    /// One look at everybody, and a word about what is new.
    async fn watch(&mut self) -> Result<(), Failure> {
        sleep(TICK).await;
        self.email.check()?;
        let group: GroupId = EMAIL.parse()?;
        if let Ok(group) = self.admin.describe_group(&group).await {
            self.lag = group.offsets.iter().map(|offset| offset.lag).sum();
            self.lag_most = self.lag_most.max(self.lag);
        }
        if let Ok(report) = self.admin.pressure(PressureQuery::default()).await {
            self.pressure = pressure::causes(&report.limited);
            self.limited = report.limits.iter().any(|limit| limit.action.is_some());
        }
        self.narrate();
        let acked = self.acked.lock().map_or(0, |acked| acked.len() as u64);
        let read = self.email.with_ledger(|ledger| ledger.tally().events);
        let progress = [
            Progress { name: "orders", done: acked, note: "acks durable".to_owned() },
            Progress { name: EMAIL, done: read, note: format!("lag {}", grouped(self.lag)) },
        ];
        self.board.show(&progress, &self.pressure);
        Ok(())
    }

    /// Says who was refused since the last word on it, at once and then now and then.
    fn narrate(&mut self) {
        for who in [&self.shop, &self.partner, &self.tracker] {
            let book = who.book();
            for (code, told) in &book.last {
                let count = book.refusals.get(code).copied().unwrap_or(0);
                let (at, before) = self.said.entry((who.name(), *code)).or_default();
                let is_new = count > std::mem::replace(before, count);
                if is_new && at.is_none_or(|at| at.elapsed() >= SAID_AGAIN_AFTER) {
                    *at = Some(Instant::now());
                    self.board.say(&line(who.name(), told));
                }
            }
        }
    }

    /// Ends the subscriber, reads the log once more, ends the broker, compares the books.
    async fn close(mut self) -> Result<Verdict, Failure> {
        self.settled("email has everything", |story| story.lag == 0).await?;
        self.email.stop().await?;
        self.board.finish();
        let log = read_log(&self.broker.address, ORDERS).await?;
        self.broker.stop().await?;
        let mut input = Ledger::default();
        let acked = std::mem::take(&mut *self.acked.lock().unwrap_or_else(PoisonError::into_inner));
        for (offset, event) in &acked {
            let delivery = Delivery { partition: 0, offset: *offset, event };
            let taken = input.take(delivery);
            taken.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
        }
        let email = self.email.with_ledger(Ledger::clone);
        let books = [&self.shop, &self.partner, &self.tracker].map(|who| (who.name(), who.book()));
        Ok(Verdict::new(input, log, email, books.into(), self.lag_most))
    }
}

fn settings(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Writes clicks until the disk has said often enough that it is full.
async fn fill(tracker: &Sender) -> Result<(), Failure> {
    let clicks = filler(CLICK_BYTES)?;
    while tracker.book().refused() < DISK_REFUSALS {
        if !tracker.attempt(clicks.clone()).await? {
            sleep(TICK).await;
        }
    }
    Ok(())
}

async fn ended(task: tokio::task::JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    task.await.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?
}

/// Who is held, by what, for how long, and what became of the write.
fn line(who: &str, told: &Pushback) -> String {
    let amount = |number: u64| match told.unit.as_str() {
        unit if unit.starts_with("bytes") => format!("{}{}", format_bytes(number), &unit[5..]),
        unit => format!("{} {unit}", grouped(number)),
    };
    format!(
        "   {who} waits: {} by {}, {} of {}; again in {} ms; nothing was written",
        told.code.name(),
        told.limit_id,
        amount(told.observed),
        amount(told.limit),
        told.retry_after_ms,
    )
}
