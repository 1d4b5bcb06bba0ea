//! What a producer has to wait for: connections, identities, lingers, holds and deadlines. One
//! task per producer; it ends when the producer is closed and everything is answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::time::Instant;

use super::answers::Notices;
use super::lane::{Lane, Sender};
use super::shared::{Link, Shared, State};
use crate::client::ClientError;
use crate::client::connection::Connection;
use crate::client::flow::{PublisherWindow, RetryContract, WANT_EVERY};
use crate::client::moment::moment;
use crate::protocol::native::{producer_init, publisher_close, publisher_open, want};
use crate::types::ErrorCode;

/// How often new partitions are looked for.
const TOPIC_EVERY: Duration = Duration::from_secs(60);
/// Shortest pause between two looks at the timers.
const TICK_MIN: Duration = Duration::from_millis(1);

pub(super) async fn drive(shared: Arc<Shared>) {
    let mut links = Links::new(&shared);
    let mut next_want = Instant::now();
    let mut next_topic = Instant::now() + TOPIC_EVERY;
    loop {
        links.begin(&shared);
        ask_for_identities(&shared);
        let now = Instant::now();
        if now >= next_topic {
            next_topic = now + TOPIC_EVERY;
            refresh_topic(&shared);
        }
        let deadline = {
            let mut state = shared.lock();
            state.expire(&shared, now);
            // Without a link it would ask for one, which is what this does already.
            let lanes = if state.link.is_some() { 0..state.lanes.len() } else { 0..0 };
            lanes.for_each(|lane| state.pump(&shared, lane));
            if state.finished && state.is_idle() {
                break;
            }
            shared.tell_limit(state.limited_by(now));
            let waits = say_wanted(&state, now, &mut next_want);
            let lanes = state.next_deadline(shared.options.linger, now);
            let holds = state.pressure.as_ref().map(|(_, until)| *until).filter(|at| *at > now);
            let others = [waits, lanes, links.next(), holds].into_iter().flatten();
            state.driver_wakes = others.fold(next_topic, Instant::min);
            state.driver_wakes
        };
        tokio::select! {
            () = shared.work.notified() => {}
            Some(result) = OptionFuture::from(links.attempt.as_mut()) => {
                links.ended(&shared, result);
            }
            () = tokio::time::sleep_until(deadline.max(now + TICK_MIN)) => {}
        }
    }
    shared.tell_limit(None);
    close_publisher(&shared);
}

/// Says what a blocked publisher waits for; when to say it again.
fn say_wanted(state: &State, now: Instant, next: &mut Instant) -> Option<Instant> {
    let (bytes, link) = (state.wanted_bytes?, state.link.as_ref()?);
    let publisher = link.window.as_ref()?.publisher();
    if now >= *next {
        *next = now + WANT_EVERY;
        link.connection.notify(&want::Request { publisher, bytes });
    }
    Some(*next)
}

type Attempt = Pin<Box<dyn Future<Output = Result<(), ClientError>> + Send>>;

/// Attempts to get a connection: one at a time, while deadlines go on.
struct Links {
    attempt: Option<Attempt>,
    retries: RetryContract,
    not_before: Instant,
}

impl Links {
    fn new(shared: &Shared) -> Links {
        let retries = RetryContract::new(shared.core.options.retry_wait);
        Links { attempt: None, retries, not_before: Instant::now() }
    }

    fn begin(&mut self, shared: &Arc<Shared>) {
        if self.attempt.is_none() && self.not_before <= Instant::now() && needs_link(shared) {
            let shared = Arc::clone(shared);
            self.attempt = Some(Box::pin(async move { link(&shared).await }));
        }
    }

    fn ended(&mut self, shared: &Arc<Shared>, result: Result<(), ClientError>) {
        self.attempt = None;
        match result {
            Ok(()) => self.retries.worked(),
            Err(error) => {
                no_link(shared, &error);
                self.not_before = Instant::now() + shared.core.wait(&mut self.retries, &error);
            }
        }
    }

    /// When the next attempt may be due.
    fn next(&self) -> Option<Instant> {
        (self.attempt.is_none() && self.not_before > Instant::now()).then_some(self.not_before)
    }
}

fn needs_link(shared: &Shared) -> bool {
    let state = shared.lock();
    match &state.link {
        Some(link) => link.connection.is_spent() && !state.is_idle(),
        None => !state.is_idle(),
    }
}

/// A connection, and a publisher on it.
async fn link(shared: &Arc<Shared>) -> Result<(), ClientError> {
    let connection = shared.core.connection().await?;
    let topic = shared.topic().id;
    let class = shared.options.class;
    let request = publisher_open::Request { topic, class };
    let timeout = shared.core.options.request_timeout;
    let window = match connection.call(&request, timeout).await {
        Ok(opened) => {
            let notices = Arc::new(Notices(Arc::downgrade(shared)));
            connection.add_publisher(opened.grant.publisher, notices);
            Some(PublisherWindow::new(&opened, moment(Instant::now())))
        }
        // No grants to be had: the pool alone decides.
        Err(error) if error.code() == ErrorCode::Unsupported => None,
        Err(error) => return Err(error),
    };
    shared.lock().link = Some(Link { connection, window });
    Ok(())
}

/// What becomes of everything that waits, should its time be over; when no reconnecting mends the
/// refusal, it is.
fn no_link(shared: &Arc<Shared>, error: &ClientError) {
    let mut state = shared.lock();
    let now = Instant::now();
    let hopeless = !error.is_passing();
    if hopeless {
        state.lanes.iter_mut().for_each(Lane::seal);
    }
    for batch in state.lanes.iter_mut().flat_map(|lane| &mut lane.ready) {
        batch.last_error = Some(error.clone());
        if hopeless {
            batch.deadline = now;
        }
    }
    state.expire(shared, now);
}

/// Partitions that have something to send and no identity yet ask for one.
fn ask_for_identities(shared: &Arc<Shared>) {
    let now = Instant::now();
    let mut state = shared.lock();
    let Some(connection) = state.link.as_ref().map(|link| Arc::clone(&link.connection)) else {
        return;
    };
    for (number, lane) in state.lanes.iter_mut().enumerate() {
        if lane.is_idle() || lane.hold_until.is_some_and(|until| until > now) {
            continue;
        }
        let Sender::Ask { previous } = &lane.sender else { continue };
        let previous = previous.clone();
        lane.sender = Sender::Asked;
        tokio::spawn(identify(Arc::clone(shared), Arc::clone(&connection), number, previous));
    }
}

async fn identify(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    number: usize,
    previous: Option<producer_init::Producer>,
) {
    let timeout = shared.core.options.request_timeout;
    let request = producer_init::Request { previous: previous.clone() };
    let answer = connection.call(&request, timeout).await;
    let mut state = shared.lock();
    match answer {
        Ok(answer) => {
            state.lanes[number].identify(answer.producer);
            state.pump(&shared, number);
        }
        Err(error) => {
            let now = Instant::now();
            let lane = &mut state.lanes[number];
            // A fenced identity is of no use any more: the next one is new.
            let previous = previous.filter(|_| error.is_passing());
            lane.sender = Sender::Ask { previous };
            lane.hold_until = Some(now + shared.core.wait(&mut lane.retries, &error));
            for batch in &mut lane.ready {
                batch.last_error = Some(error.clone());
            }
        }
    }
    drop(state);
    shared.work.notify_one();
}

fn refresh_topic(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let known = shared.topic();
        if let Ok(topic) = shared.core.topic(&known.name).await
            && topic.id == known.id
        {
            let mut state = shared.lock();
            state.topic = topic;
            state.add_lanes(&shared.options, shared.core.options.retry_wait);
        }
    });
}

fn close_publisher(shared: &Shared) {
    let link = shared.lock().link.take();
    let Some(Link { connection, window: Some(window) }) = link else { return };
    let publisher = window.publisher();
    connection.remove_publisher(publisher);
    let timeout = shared.core.options.request_timeout;
    tokio::spawn(async move {
        // The broker closes it with the connection anyway.
        let _ = connection.call(&publisher_close::Request { publisher }, timeout).await;
    });
}
