//! Orders to a partition that are not appends: queued behind what was sent before, answered by a
//! ticket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::error::AdminError;
use super::options::PartitionOptions;
use crate::types::Offset;

/// What a partition can be told.
pub(crate) enum AdminCommand {
    /// Forget everything before an offset.
    Trim { before: Offset, reply: Reply<Offset> },
    /// Obey other settings from now on.
    Options(Arc<PartitionOptions>),
    /// Seal the active segment at the next append.
    Roll { reply: Reply<()> },
    /// Let go now what is past retention, the active segment too.
    Reclaim,
    /// Make everything durable and write a clean slot.
    Checkpoint { reply: Reply<()> },
    /// Checkpoint, then take no more.
    Close { reply: Reply<()> },
    /// Take no more and remove all files.
    Delete { reply: Reply<()> },
}

/// Where the answer of an order goes; not answering says `Closed`.
pub(crate) struct Reply<T>(oneshot::Sender<Result<T, AdminError>>);

impl<T> Reply<T> {
    pub(crate) fn new() -> (Reply<T>, AdminTicket<T>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), AdminTicket(receiver))
    }

    pub(crate) fn send(self, result: Result<T, AdminError>) {
        // Nobody may be waiting any more; the order was carried out all the same.
        let _ = self.0.send(result);
    }
}

/// The answer to come. Dropping it does not take the order back.
#[derive(Debug)]
#[must_use = "the order is only known to be carried out once this is ready"]
pub struct AdminTicket<T>(oneshot::Receiver<Result<T, AdminError>>);

impl<T> AdminTicket<T> {
    /// Waits on this thread. Panics on a thread of an async runtime: there, await the ticket.
    ///
    /// # Errors
    /// As the order says; `Closed` when the writer stopped before it was carried out.
    pub fn wait(self) -> Result<T, AdminError> {
        self.0.blocking_recv().unwrap_or(Err(AdminError::Closed))
    }

    /// The answer if it is there: for owners that step the writers themselves.
    pub fn try_take(&mut self) -> Option<Result<T, AdminError>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(AdminError::Closed)),
        }
    }
}

impl<T> Future for AdminTicket<T> {
    type Output = Result<T, AdminError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|r| r.unwrap_or(Err(AdminError::Closed)))
    }
}
