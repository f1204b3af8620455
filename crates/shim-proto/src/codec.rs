//! Messages to bytes and back. An envelope is `[number, body]`; events have number 0.

use minicbor::{Decode, Decoder, Encode, decode::Error as DecodeError};

use crate::{Error, Event, Reply, Request};

/// What the daemon receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// An answer.
    Reply {
        /// Number of the request.
        number: u64,
        /// The answer.
        reply: Reply,
    },
    /// Said unasked.
    Event(Event),
}

/// Bytes of a request. Numbers start at 1 and are not used twice on a connection.
pub fn encode_request(number: u64, request: &Request) -> Vec<u8> {
    envelope(number, request)
}

/// Bytes of an answer.
pub fn encode_reply(number: u64, reply: &Reply) -> Vec<u8> {
    envelope(number, reply)
}

/// Bytes of an event.
pub fn encode_event(event: &Event) -> Vec<u8> {
    envelope(0, event)
}

/// A request and its number.
///
/// # Errors
/// [`Error::Envelope`]: nothing can be said about it; [`Error::Body`]: the number is known, and an answer due.
pub fn decode_request(bytes: &[u8]) -> Result<(u64, Request), Error> {
    let (number, mut rest) = open(bytes)?;
    body(number, &mut rest).map(|request| (number, request))
}

/// An answer or event.
///
/// # Errors
/// [`Error::Envelope`]: nothing can be said about it; [`Error::Body`]: the answer to the request of that number, or an
/// event (0), is of a kind that is not known here.
pub fn decode_incoming(bytes: &[u8]) -> Result<Incoming, Error> {
    let (number, mut rest) = open(bytes)?;
    if number == 0 {
        return body(number, &mut rest).map(Incoming::Event);
    }
    body(number, &mut rest).map(|reply| Incoming::Reply { number, reply })
}

fn envelope(number: u64, body: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec((number, body)).expect("a Vec takes everything")
}

fn open(bytes: &[u8]) -> Result<(u64, Decoder<'_>), Error> {
    let mut decoder = Decoder::new(bytes);
    if decoder.array().map_err(Error::Envelope)? != Some(2) {
        return Err(Error::Envelope(DecodeError::message("not an array of two")));
    }
    let number = decoder.u64().map_err(Error::Envelope)?;
    Ok((number, decoder))
}

fn body<'b, T: Decode<'b, ()>>(number: u64, decoder: &mut Decoder<'b>) -> Result<T, Error> {
    let value = decoder.decode().map_err(|source| Error::Body { number, source })?;
    if decoder.position() != decoder.input().len() {
        return Err(Error::Body { number, source: DecodeError::message("bytes after the end") });
    }
    Ok(value)
}
