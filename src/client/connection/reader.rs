//! What comes in: answers to whoever waits, notices to publishers and subscriptions.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::tcp::OwnedReadHalf;

use super::{Connection, Pending, SubscriptionEvent};
use crate::client::ClientError;
use crate::protocol::native::{
    DecodeError, Deframer, ErrorAnswer, Frame, FrameType, Received, batches, encode_answer,
    encode_error, grant, ping, produce, pushback, subscription_end,
};
use crate::types::ErrorCode;

/// Frames handled before other tasks of the thread get their turn.
const FRAMES_PER_TURN: usize = 64;

/// Serves the connection until it ends; then closes it.
pub(super) async fn read_loop(
    connection: Arc<Connection>,
    half: OwnedReadHalf,
    mut deframer: Deframer,
) {
    let cause = tokio::select! {
        cause = read(&connection, &half, &mut deframer) => cause,
        () = connection.closed() => return,
    };
    connection.close(cause);
}

async fn read(
    connection: &Connection,
    half: &OwnedReadHalf,
    deframer: &mut Deframer,
) -> ClientError {
    let mut handled = 0;
    loop {
        match deframer.next_frame() {
            Ok(Some(received)) => {
                connection.received.fetch_add(1, Ordering::Relaxed);
                connection.take(received);
                handled += 1;
                if handled % FRAMES_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return ClientError::Protocol(error.to_string()),
        }
        match half.try_read_buf(&mut deframer.spare()) {
            Ok(0) => return connection.lost("the broker closed it"),
            Ok(bytes) => {
                connection.traffic_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                deframer.park();
                if let Err(error) = half.readable().await {
                    return connection.lost(error);
                }
            }
            Err(error) => return connection.lost(error),
        }
    }
}

impl Connection {
    fn take(&self, received: Received) {
        match received {
            Received::Frame(frame) if frame.flags.is_answer() => self.take_answer(frame),
            Received::Frame(frame) => self.take_notice(frame),
            Received::Skipped(_) => {} // this side takes every frame
            // An answer that arrived damaged: whoever waits learns why.
            Received::Refused(refused) if refused.is_answer => {
                self.fail(refused.correlation, refused.error.into());
            }
            // A notice of a kind this build does not know: notices may be skipped.
            Received::Refused(_) => {}
        }
    }

    /// Tells whoever waits for an answer. Not under the lock: a producer that hears of it asks the
    /// connection, and its driver asks while it holds a lock that the producer needs.
    fn fail(&self, correlation: u64, cause: ClientError) {
        let pending = self.lock().pending.remove(&correlation);
        if let Some(pending) = pending {
            pending.fail(cause);
        }
    }

    fn take_answer(&self, frame: Frame) {
        let pending = self.lock().pending.remove(&frame.correlation);
        match pending {
            Some(Pending::Produce(sink)) => {
                sink.done(frame.answer::<produce::Request>().map_err(ClientError::from));
            }
            // Nobody waits any more when the asker was cancelled: fine.
            Some(Pending::Call { answer, .. }) => drop(answer.send(Ok(frame))),
            Some(Pending::Ordered(sink)) => sink(Ok(frame)),
            None => {}
        }
    }

    fn take_notice(&self, frame: Frame) {
        let taken = match frame.frame_type {
            FrameType::Batches => self.take_batches(&frame),
            FrameType::Grant => self.take_grant(&frame),
            FrameType::Pushback => self.take_pushback(&frame),
            FrameType::SubscriptionEnd => self.take_end(&frame),
            FrameType::Goodbye => {
                self.draining.store(true, Ordering::Relaxed);
                Ok(())
            }
            FrameType::Ping => {
                let correlation = frame.correlation;
                let answer = ping::Response {};
                let _ = self.outbox.push(
                    |out| encode_answer::<ping::Request>(out, correlation, &answer),
                    None,
                    None,
                );
                Ok(())
            }
            other => {
                let error =
                    ErrorAnswer::new(ErrorCode::UnknownRequest, "a client answers PING only");
                let correlation = frame.correlation;
                let _ = self.outbox.push(
                    |out| encode_error(out, other, correlation, &error),
                    None,
                    None,
                );
                Ok(())
            }
        };
        if let Err(error) = taken {
            self.close(ClientError::Protocol(error.to_string()));
        }
    }

    fn take_batches(&self, frame: &Frame) -> Result<(), DecodeError> {
        let notice: batches::Request = frame.decode()?;
        let number = notice.subscription;
        if let Some(sink) = self.lock().subscriptions.get(&number) {
            // A consumer that is gone unsubscribes; until then its batches are dropped.
            let _ = sink.send((number, SubscriptionEvent::Batches(notice, frame.data.clone())));
        }
        Ok(())
    }

    fn take_end(&self, frame: &Frame) -> Result<(), DecodeError> {
        let notice: subscription_end::Request = frame.decode()?;
        let number = notice.subscription;
        if let Some(sink) = self.take_subscription(number) {
            let _ = sink.send((number, SubscriptionEvent::End(notice.epoch, notice.error)));
        }
        Ok(())
    }

    fn take_grant(&self, frame: &Frame) -> Result<(), DecodeError> {
        let notice: grant::Request = frame.decode()?;
        let sink = self.lock().publishers.get(&notice.publisher).cloned();
        if let Some(sink) = sink {
            sink.grant(&notice);
        }
        Ok(())
    }

    fn take_pushback(&self, frame: &Frame) -> Result<(), DecodeError> {
        let notice: pushback::Request = frame.decode()?;
        if frame.correlation != 0 {
            self.fail(frame.correlation, notice.pushback.into());
            return Ok(());
        }
        let sinks: Vec<_> = {
            let state = self.lock();
            let all = state.publishers.iter();
            let meant = all.filter(|(id, _)| notice.publisher == 0 || **id == notice.publisher);
            meant.map(|(_, sink)| Arc::clone(sink)).collect()
        };
        for sink in sinks {
            sink.pushback(&notice);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

    use bytes::Bytes;
    use tokio::sync::{Semaphore, watch};

    use super::*;
    use crate::client::connection::{Outbox, State};
    use crate::protocol::native::{FrameFlags, Refused, Wire};
    use crate::types::Pushback;

    fn connection() -> Arc<Connection> {
        Arc::new(Connection {
            address: String::new(),
            writer_id: "".into(),
            outbox: Outbox::default(),
            state: Mutex::new(State::default()),
            requests: Arc::new(Semaphore::new(1)),
            correlations: AtomicU64::new(2),
            subscription_numbers: AtomicU32::new(1),
            subscriptions: AtomicU64::new(0),
            closed: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            received: AtomicU64::new(0),
            traffic_bytes: AtomicU64::new(0),
        })
    }

    fn pushback() -> Received {
        let notice =
            pushback::Request { publisher: 0, partition: None, pushback: Pushback::draining() };
        let mut control = Vec::new();
        notice.put(&mut control);
        Received::Frame(Frame {
            frame_type: FrameType::Pushback,
            flags: FrameFlags::NONE,
            correlation: 7,
            control: control.into(),
            data: Bytes::new(),
        })
    }

    #[test]
    fn who_is_refused_is_told_without_the_connections_lock() {
        let damaged = Refused {
            correlation: 7,
            frame_type: FrameType::Produce.as_u16(),
            is_answer: true,
            error: ErrorAnswer::new(ErrorCode::ChecksumMismatch, "damaged"),
        };
        for received in [pushback(), Received::Refused(damaged)] {
            let connection = connection();
            let (told, heard) = std::sync::mpsc::channel();
            let asked = Arc::clone(&connection);
            let sink = move |_: Result<produce::Response, ClientError>| {
                told.send(asked.state.try_lock().is_ok()).expect("heard")
            };
            connection.lock().pending.insert(7, Pending::Produce(Box::new(sink)));
            connection.take(received);
            assert_eq!(heard.try_recv(), Ok(true));
        }
    }
}
