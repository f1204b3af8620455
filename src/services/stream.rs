//! Lists as streams, for clients whose lists do not fit one message.

use std::pin::Pin;

use futures_util::{Stream, stream};
use prost::Message;
use tonic::{Response, Status};

/// A stream of answers.
pub(crate) type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// About how many bytes of items go into one message.
const CHUNK: usize = 1 << 20;

/// The items in messages of bounded size, each made by `message`. No items: one empty message, so that a client sees
/// that the RPC is there.
pub(crate) fn chunks<T: Message, M: Send + 'static>(items: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Response<Streaming<M>> {
    let mut messages = Vec::new();
    let (mut chunk, mut size) = (Vec::new(), 0);
    for item in items {
        size += item.encoded_len();
        chunk.push(item);
        if size >= CHUNK {
            messages.push(Ok(message(std::mem::take(&mut chunk))));
            size = 0;
        }
    }
    if !chunk.is_empty() || messages.is_empty() {
        messages.push(Ok(message(chunk)));
    }
    Response::new(Box::pin(stream::iter(messages)))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn messages_stay_small_and_nothing_is_lost() {
        let items = |count: usize| vec!["x".repeat(300 << 10); count];
        for (count, messages) in [(0, 1), (1, 1), (4, 1), (5, 2), (9, 3)] {
            let chunked: Vec<_> = chunks(items(count), |chunk| chunk.len()).into_inner().map(Result::unwrap).collect().await;
            assert_eq!((chunked.len(), chunked.iter().sum::<usize>()), (messages, count));
        }
    }
}
