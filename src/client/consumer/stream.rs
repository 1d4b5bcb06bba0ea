//! The consumer as a stream of records.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{ConsumedRecord, Consumer};
use crate::client::ClientError;

/// Records of a consumer: see [`Consumer::stream`]. It is `Unpin`, so `stream.next().await` is enough.
pub struct RecordStream<'a>(Pin<Box<dyn Stream<Item = <Self as Stream>::Item> + Send + 'a>>);

impl Stream for RecordStream<'_> {
    type Item = Result<ConsumedRecord, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl Consumer {
    /// The records as a stream, which ends as `next` does and asks for the next record as `next`
    /// does. Dropping it, at any point, loses nothing: the consumer goes on where it stopped.
    pub fn stream(&mut self) -> RecordStream<'_> {
        RecordStream(Box::pin(futures_util::stream::unfold(self, |consumer| async move {
            let item = consumer.next().await?;
            Some((item, consumer))
        })))
    }

    /// The same, owning the consumer: for tasks and combinators that need `'static`. Dropping it
    /// drops the consumer, which leaves its group without a last commit.
    pub fn into_stream(self) -> RecordStream<'static> {
        RecordStream(Box::pin(futures_util::stream::unfold(self, |mut consumer| async move {
            let item = consumer.next().await?;
            Some((item, consumer))
        })))
    }
}
