//! What a producer has to wait for: connections, identities, lingers, holds and deadlines. One
//! task per producer; it ends when the producer is closed and everything is answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::{Lane, Sender};
use super::shared::{Link, Notices, Shared};
use super::window::Window;
use crate::client::ClientError;
use crate::client::backoff::Backoff;
use crate::client::connection::Connection;
use crate::protocol::native::{producer_init, publisher_close, publisher_open, want};
use crate::types::ErrorCode;

/// How often a blocked publisher says so (Flow 1).
const WANT_EVERY: Duration = Duration::from_secs(1);
/// How often new partitions are looked for.
const TOPIC_EVERY: Duration = Duration::from_secs(60);
/// Shortest pause between two looks at the timers.
const TICK_MIN: Duration = Duration::from_millis(1);

pub(super) async fn drive(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(shared.core.options.retry_wait);
    let mut next_want = Instant::now();
    let mut next_topic = Instant::now() + TOPIC_EVERY;
    loop {
        if needs_link(&shared) {
            match link(&shared).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    give_up_where_hopeless(&shared, &error);
                    let wait = shared.core.wait(&mut backoff, &error);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        ask_for_identities(&shared);
        let now = Instant::now();
        if now >= next_topic {
            next_topic = now + TOPIC_EVERY;
            refresh_topic(&shared);
        }
        let deadline = {
            let mut state = shared.lock();
            state.expire(&shared, now);
            for lane in 0..state.lanes.len() {
                state.pump(&shared, lane);
            }
            if state.finished && state.is_idle() {
                break;
            }
            if let (Some(bytes), Some(link)) = (state.wanted_bytes, &state.link)
                && let Some(window) = &link.window
                && now >= next_want
            {
                next_want = now + WANT_EVERY;
                link.connection.notify(&want::Request { publisher: window.publisher(), bytes });
            }
            let waits = state.wanted_bytes.map(|_| next_want);
            let lanes = state.next_deadline(shared.options.linger, now);
            [waits, lanes].into_iter().flatten().min().unwrap_or(next_topic).min(next_topic)
        };
        tokio::select! {
            () = shared.work.notified() => {}
            () = tokio::time::sleep_until(deadline.max(now + TICK_MIN)) => {}
        }
    }
    close_publisher(&shared);
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
    let request = publisher_open::Request { topic };
    let timeout = shared.core.options.request_timeout;
    let window = match connection.call(&request, timeout).await {
        Ok(opened) => {
            let notices = Arc::new(Notices(Arc::downgrade(shared)));
            connection.add_publisher(opened.grant.publisher, notices);
            Some(Window::new(&opened, Instant::now()))
        }
        // No grants to be had: the pool alone decides.
        Err(error) if error.code() == ErrorCode::Unsupported => None,
        Err(error) => return Err(error),
    };
    shared.lock().link = Some(Link { connection, window });
    Ok(())
}

/// A refusal that no reconnecting mends is what becomes of everything that waits.
fn give_up_where_hopeless(shared: &Shared, error: &ClientError) {
    let mut state = shared.lock();
    let now = Instant::now();
    if !error.is_passing() {
        state.lanes.iter_mut().for_each(Lane::seal);
        for batch in state.lanes.iter_mut().flat_map(|lane| &mut lane.ready) {
            batch.last_error = Some(error.clone());
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
            lane.hold_until = Some(now + shared.core.wait(&mut lane.backoff, &error));
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
