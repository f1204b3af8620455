//! SPDY inside of WebSocket: the bytes of binary messages are those of one connection.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{channel::CHUNK, connection::LINGER};

/// The connection inside. The task ends with either.
pub(crate) fn tunnel<S>(socket: WebSocketStream<S>) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (inside, ours) = tokio::io::duplex(2 * CHUNK);
    tokio::spawn(async move {
        let (mut sink, mut stream) = socket.split();
        let (mut from, mut to) = tokio::io::split(ours);
        let inward = async {
            while let Some(Ok(message)) = stream.next().await {
                match message {
                    Message::Binary(bytes) => {
                        if to.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Text(_) | Message::Close(_) | Message::Frame(_) => break,
                }
            }
        };
        let outward = async {
            let mut chunk = vec![0; CHUNK];
            while let Ok(got @ 1..) = from.read(&mut chunk).await {
                if sink.send(Message::Binary(chunk[..got].to_vec().into())).await.is_err() {
                    break;
                }
            }
            let _ = sink.close().await;
        };
        let mut inward = std::pin::pin!(inward);
        let done_speaking = tokio::select! {
            () = &mut inward => false,
            () = outward => true,
        };
        if done_speaking {
            let _ = tokio::time::timeout(LINGER, inward).await;
        }
    });
    inside
}
