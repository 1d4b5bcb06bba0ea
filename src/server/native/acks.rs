//! Acks leave at the end of the log writer's round that gave them, on its thread: no other thread is
//! woken for them, and those of one round and connection leave in one send.

use std::sync::{Arc, Mutex, PoisonError};

use super::link::Link;
use crate::broker::{Broker, RoundEnd};

/// Connections with acks to be sent. Bounded by the connections: each stands here once, because only
/// what makes its outbox non-empty brings it here.
pub(super) struct AckLine {
    waiting: Mutex<Vec<Arc<Link>>>,
}

impl AckLine {
    /// A line that moves on with the rounds of a broker's log writers.
    pub(super) fn behind(broker: &Broker) -> Arc<AckLine> {
        let line = Arc::new(AckLine { waiting: Mutex::default() });
        let weak = Arc::downgrade(&line);
        broker.at_round_end(weak);
        line
    }

    /// Has the acks of a connection sent when the round ends that is under way on this thread.
    pub(super) fn wait(&self, link: &Arc<Link>) {
        self.lock().push(Arc::clone(link));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Link>>> {
        // A list is whole at any moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoundEnd for AckLine {
    fn round_ended(&self) {
        loop {
            // One at a time: a send takes the time of a system call, and others may add meanwhile.
            let Some(link) = self.lock().pop() else { return };
            link.outbox.send_now();
        }
    }
}
