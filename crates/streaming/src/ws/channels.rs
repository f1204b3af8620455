//! The `channel.k8s.io` family: the first byte of a message is the number of its channel.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::CloseFrame, protocol::frame::coding::CloseCode},
};

use crate::{
    channel::{CHUNK, Link, Outbound, Outgoing, room},
    connection::{Activity, LINGER},
    inbox::{Incoming, Inlet, inbox},
};

/// In v5: the channel that says which other one has ended.
const CLOSE: u8 = 255;

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    Binary,
    /// The same, and a client can end a channel (v5).
    BinaryWithClose,
    /// As text; the channel's number is a digit.
    Base64,
}

impl Codec {
    fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Self::Binary | Self::BinaryWithClose => {
                let mut message = Vec::with_capacity(1 + bytes.len());
                message.push(channel);
                message.extend_from_slice(bytes);
                Message::Binary(message.into())
            }
            Self::Base64 => {
                let mut text = String::with_capacity(1 + bytes.len() * 4 / 3 + 4);
                text.push(char::from(b'0'.wrapping_add(channel)));
                STANDARD.encode_string(bytes, &mut text);
                Message::Text(text.into())
            }
        }
    }

    fn decode(self, message: &Bytes) -> Option<Told> {
        let (&channel, rest) = message.split_first()?;
        match self {
            Self::BinaryWithClose if channel == CLOSE => Some(Told::End(*rest.first()?)),
            Self::Binary | Self::BinaryWithClose => Some(Told::Data(channel, message.slice(1..))),
            Self::Base64 => Some(Told::Data(channel.wrapping_sub(b'0'), STANDARD.decode(rest).ok()?.into())),
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Data(u8, Bytes),
    End(u8),
}

/// A channel.
#[derive(Debug)]
pub(crate) struct Channel {
    /// From the client.
    pub(crate) incoming: Incoming,
    /// To the client.
    pub(crate) outgoing: Outgoing,
}

/// Takes a connection over, with so many channels. The task ends with the connection, which is closed when it is `idle`
/// for so long.
pub(crate) fn serve<S>(socket: WebSocketStream<S>, codec: Codec, count: u8, idle: Duration) -> (Vec<Channel>, Link)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (link, outbound) = Link::new();
    let (mut senders, mut channels) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (to, incoming) = inbox(Arc::default());
        senders.push(Some(to));
        let outgoing = Outgoing::new(number.into(), link.clone(), room());
        channels.push(Channel { incoming, outgoing });
    }
    tokio::spawn(async move {
        let (mut sink, mut stream) = socket.split();
        let activity = Activity::new(idle);
        let finished = tokio::select! {
            why = read(&mut stream, codec, senders, &activity) => {
                tracing::debug!(why, "streaming connection ended");
                false
            }
            sent = write(&mut sink, codec, outbound, &activity) => sent.is_ok(),
            () = activity.ceased() => false,
        };
        let _ = tokio::time::timeout(LINGER, close(sink, stream, finished)).await;
    });
    (channels, link)
}

/// Ends a connection so that the client gets everything.
async fn close(
    mut sink: impl Sink<Message> + Unpin,
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    finished: bool,
) {
    let code = if finished { CloseCode::Normal } else { CloseCode::Protocol };
    let _ = sink.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
    while let Some(Ok(_)) = stream.next().await {}
}

async fn read(
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    codec: Codec,
    mut channels: Vec<Option<Inlet>>,
    activity: &Activity,
) -> String {
    loop {
        let message = match stream.next().await {
            None => return "closed".to_owned(),
            Some(Err(error)) => return error.to_string(),
            Some(Ok(message)) => message,
        };
        activity.touch();
        let payload: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return "closed by the client".to_owned(),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match codec.decode(&payload) {
            Some(Told::Data(channel, bytes)) => {
                let Some(Some(to)) = channels.get(usize::from(channel)) else { continue };
                for chunk in bytes.chunks(CHUNK) {
                    to.put(chunk).await;
                }
            }
            Some(Told::End(channel)) => {
                if let Some(channel) = channels.get_mut(usize::from(channel)) {
                    *channel = None;
                }
            }
            // Empty messages keep connections alive.
            None if payload.is_empty() => {}
            None => return "message that is not of the protocol".to_owned(),
        }
    }
}

async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    codec: Codec,
    mut outbound: mpsc::Receiver<Outbound>,
    activity: &Activity,
) -> Result<(), Error> {
    while let Some(next) = outbound.recv().await {
        activity.touch();
        match next {
            // The permit goes when the bytes have gone.
            Outbound::Data(id, bytes, _permit) => {
                // Numbers of channels are bytes from the start.
                let Ok(channel) = u8::try_from(id) else { continue };
                sink.send(codec.encode(channel, &bytes)).await?;
            }
            Outbound::End => break,
            // The protocol has no words for these.
            Outbound::Accept(_) | Outbound::Fin(_) | Outbound::Reset(_) | Outbound::Raw(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_channel() {
        for codec in [Codec::Binary, Codec::BinaryWithClose, Codec::Base64] {
            let message = codec.encode(1, b"foo\n");
            assert_eq!(message.is_text(), codec == Codec::Base64);
            assert_eq!(codec.decode(&message.into_data()), Some(Told::Data(1, "foo\n".into())));
            assert_eq!(codec.decode(&Bytes::new()), None);
        }
        assert_eq!(Codec::Base64.encode(0, b"foo\n").into_text().unwrap().as_str(), "0Zm9vCg==");
        assert_eq!(Codec::BinaryWithClose.decode(&Bytes::from_static(&[255, 0])), Some(Told::End(0)));
        assert_eq!(Codec::BinaryWithClose.decode(&Bytes::from_static(&[255])), None);
        assert_eq!(Codec::Binary.decode(&Bytes::from_static(&[255, 0])), Some(Told::Data(255, Bytes::from_static(&[0]))));
        assert_eq!(Codec::Base64.decode(&Bytes::from_static(b"0%%%")), None);
    }
}
