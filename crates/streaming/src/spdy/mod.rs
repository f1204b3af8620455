//! SPDY/3.1, as much of it as a server needs whose streams are all opened by the client.

mod connection;
mod dictionary;
mod frame;
mod headers;
mod table;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use connection::{Stream, Streams, serve};
pub(crate) use headers::Headers;

/// A header block, compressed and as it is inside.
#[cfg(fuzzing)]
pub(crate) fn fuzz_headers(bytes: &[u8]) {
    let _ = headers::Inflater::new().headers(bytes);
    let _ = Headers::parse(bytes);
}

/// What is wrong with what a client sent. The connection is closed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("version {0}, not 3")]
    Version(u16),
    #[error("control frame of {0} bytes")]
    TooLong(u32),
    #[error("frame of type {0} is too short")]
    Short(u16),
    #[error("header block does not inflate")]
    Compression,
    #[error("header block inflates to more than {0} bytes")]
    TooManyHeaders(usize),
    #[error("header block says more than it has")]
    Headers,
    #[error("stream id {0} is not the client's to open now")]
    StreamId(u32),
    #[error("a window that cannot be")]
    Window,
    #[error("settings say more than they have")]
    Settings,
}
