//! Doors for the fuzz targets: what a client sends, without a server around it.

use std::{cell::RefCell, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::{Builder, Runtime},
};

use crate::{
    accept,
    negotiate::{Family, Framing, negotiate},
    session, spdy, ws,
};

/// Room for all of an input, so that writing it waits for nobody.
const ROOM: usize = 1 << 20;
const IDLE: Duration = Duration::from_secs(60);

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime without I/O"));
}

/// A connection whose client sends these bytes and ends, served by `serve` to its end.
fn served<F: Future<Output = ()>>(bytes: &[u8], serve: impl FnOnce(DuplexStream) -> F) {
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(ROOM);
            client.write_all(&bytes[..bytes.len().min(ROOM)]).await.expect("there is room");
            client.shutdown().await.expect("the other end is open");
            let (mut answers, _rest) = tokio::io::split(client);
            let reading = async {
                let mut chunk = vec![0; 1 << 16];
                while let Ok(1..) = answers.read(&mut chunk).await {}
            };
            tokio::join!(serve(server), reading);
        });
    });
}

/// Frames of SPDY.
pub fn spdy(bytes: &[u8]) {
    served(bytes, |socket| async {
        let (mut streams, link) = spdy::serve(socket, 8, IDLE);
        while let Some(stream) = streams.recv().await {
            // Some are welcome, some are read, all are let go.
            let _ = stream.outgoing.accept().await;
            stream.outgoing.finish().await;
        }
        link.gone().await;
    });
}

/// A header block, compressed and as it is inside.
pub fn headers(bytes: &[u8]) {
    spdy::fuzz_headers(bytes);
}

/// The head of an upgrade: a header in each line.
pub fn upgrade(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    for family in [Family::Command, Family::Forward] {
        if let Ok((protocol, answer)) = negotiate(family, &headers) {
            assert!(answer.status() == 101 && (family == Family::Forward || protocol.framing != Framing::Tunnel));
        }
    }
    if let Ok(query) = std::str::from_utf8(bytes) {
        accept::ports_of(query);
    }
}

/// Messages of WebSocket, in each way of the channel protocols, and the SPDY inside of them.
pub fn channels(bytes: &[u8]) {
    for codec in [ws::Codec::Binary, ws::Codec::BinaryWithClose, ws::Codec::Base64] {
        served(bytes, |socket| async move {
            let (channels, link) = ws::serve(ws::accept(socket).await, codec, 5, IDLE);
            drop(channels);
            link.gone().await;
        });
    }
    served(bytes, |socket| async {
        let (mut streams, link) = spdy::serve(ws::tunnel(ws::accept(socket).await), 8, IDLE);
        while streams.recv().await.is_some() {}
        link.gone().await;
    });
}

/// What a client says of its terminal.
pub fn resize(bytes: &[u8]) {
    let (_, used) = session::sizes(bytes);
    assert!(used <= bytes.len());
}
