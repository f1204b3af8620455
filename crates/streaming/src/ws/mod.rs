//! WebSocket: channels by number in its messages, or SPDY inside them.

mod channels;
mod tunnel;

use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

pub(crate) use channels::{Channel, Codec, serve};
pub(crate) use tunnel::tunnel;

/// Bytes of a message at most. Clients send what they have read at once: 32 KiB.
const MESSAGE: usize = 1 << 20;

/// Takes a connection over after the handshake.
pub(crate) async fn accept<S>(socket: S) -> WebSocketStream<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE))
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_write_buffer_size(2 * MESSAGE);
    WebSocketStream::from_raw_socket(socket, Role::Server, Some(limits)).await
}
