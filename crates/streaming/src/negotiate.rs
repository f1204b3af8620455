//! Which protocol a client and we have in common, and the answer to its upgrade.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{status::Format, ws::Codec};

/// What is answered.
pub(crate) type Answer = Response<Full<Bytes>>;

const SPDY_PROTOCOL: &str = "x-stream-protocol-version";
const SPDY_ACCEPTED: &str = "x-accepted-stream-protocol-versions";
/// What SPDY in WebSocket is called, before the name of the protocol inside.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// How the streams travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// SPDY/3.1.
    Spdy,
    /// SPDY/3.1 in WebSocket's messages.
    Tunnel,
    /// Channels in WebSocket's messages.
    WebSocket(Codec),
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) framing: Framing,
    /// How the error stream is written.
    pub(crate) status: Format,
    /// The terminal's size can be changed.
    pub(crate) resizable: bool,
}

/// What is spoken for a verb: names, best first, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Exec and attach.
    Command,
    /// Port-forward.
    Forward,
}

impl Family {
    fn spdy(self, name: &str) -> Option<Protocol> {
        let framing = Framing::Spdy;
        Some(match (self, name) {
            (Self::Command, "v4.channel.k8s.io") => Protocol { framing, status: Format::Json, resizable: true },
            (Self::Command, "v3.channel.k8s.io") => Protocol { framing, status: Format::Text, resizable: true },
            (Self::Command, "v2.channel.k8s.io" | "channel.k8s.io") | (Self::Forward, "portforward.k8s.io") => {
                Protocol { framing, status: Format::Text, resizable: false }
            }
            _ => return None,
        })
    }

    fn web_socket(self, name: &str) -> Option<Protocol> {
        let (codec, status) = match (self, name) {
            (Self::Command, "v5.channel.k8s.io") => (Codec::BinaryWithClose, Format::Json),
            (_, "v4.channel.k8s.io") => (Codec::Binary, Format::Json),
            (_, "v4.base64.channel.k8s.io") => (Codec::Base64, Format::Json),
            (Self::Command, "v3.channel.k8s.io" | "v2.channel.k8s.io" | "channel.k8s.io") | (_, "") => {
                (Codec::Binary, Format::Text)
            }
            (Self::Command, "v3.base64.channel.k8s.io" | "v2.base64.channel.k8s.io" | "base64.channel.k8s.io") => {
                (Codec::Base64, Format::Text)
            }
            (Self::Forward, TUNNELLED) => {
                return Some(Protocol { framing: Framing::Tunnel, status: Format::Text, resizable: false });
            }
            _ => return None,
        };
        Some(Protocol { framing: Framing::WebSocket(codec), status, resizable: true })
    }

    fn spdy_names(self) -> &'static [&'static str] {
        match self {
            Self::Command => &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"],
            Self::Forward => &["portforward.k8s.io"],
        }
    }
}

/// Agrees on a protocol, or says why not.
pub(crate) fn negotiate(family: Family, headers: &HeaderMap) -> Result<(Protocol, Answer), Box<Answer>> {
    if !names(headers, header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade")) {
        return Err(refused(StatusCode::BAD_REQUEST, "the connection has to be upgraded to SPDY/3.1 or WebSocket"));
    }
    let upgrade = |to: &str| names(headers, header::UPGRADE).any(|name| name.eq_ignore_ascii_case(to));
    if upgrade("websocket") {
        web_socket(family, headers)
    } else if upgrade("spdy/3.1") {
        spdy(family, headers)
    } else {
        Err(refused(StatusCode::BAD_REQUEST, "neither SPDY/3.1 nor WebSocket is offered"))
    }
}

fn spdy(family: Family, headers: &HeaderMap) -> Result<(Protocol, Answer), Box<Answer>> {
    let found = names(headers, SPDY_PROTOCOL).find_map(|name| Some((family.spdy(name)?, name)));
    let Some((protocol, name)) = found else {
        let mut answer = refusal(StatusCode::FORBIDDEN, "no stream protocol in common");
        for name in family.spdy_names() {
            answer.headers_mut().append(HeaderName::from_static(SPDY_ACCEPTED), HeaderValue::from_static(name));
        }
        return Err(Box::new(answer));
    };
    let mut answer = switching("SPDY/3.1");
    put(&mut answer, HeaderName::from_static(SPDY_PROTOCOL), name);
    Ok((protocol, answer))
}

fn web_socket(family: Family, headers: &HeaderMap) -> Result<(Protocol, Answer), Box<Answer>> {
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = refusal(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here");
        put(&mut answer, header::SEC_WEBSOCKET_VERSION, "13");
        return Err(Box::new(answer));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let Some(key) = key else {
        return Err(refused(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64"));
    };
    let offered = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = names(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let found = if offered {
        names.find_map(|name| Some((family.web_socket(name)?, name)))
    } else {
        family.web_socket("").map(|p| (p, ""))
    };
    let Some((protocol, name)) = found else {
        return Err(refused(StatusCode::FORBIDDEN, "no WebSocket protocol in common"));
    };
    let mut answer = switching("websocket");
    put(&mut answer, header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()));
    if !name.is_empty() {
        put(&mut answer, header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((protocol, answer))
}

/// Comma-separated words of all headers of a name.
fn names(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn switching(to: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::SWITCHING_PROTOCOLS, "");
    put(&mut answer, header::CONNECTION, "Upgrade");
    put(&mut answer, header::UPGRADE, to);
    answer
}

fn put(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn refused(status: StatusCode, why: &'static str) -> Box<Answer> {
    Box::new(refusal(status, why))
}

/// An answer that is not the wanted one.
pub(crate) fn refusal(status: StatusCode, why: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(why.as_bytes())));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    const SPDY: [(&str, &str); 2] = [("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")];
    const WS: [(&str, &str); 4] = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_clients_first_protocol_that_we_know_is_taken() {
        let offer = [&SPDY[..], &[(SPDY_PROTOCOL, "v9.x"), (SPDY_PROTOCOL, "v4.channel.k8s.io, channel.k8s.io")]].concat();
        let (protocol, answer) = negotiate(Family::Command, &headers(&offer)).unwrap();
        assert_eq!(protocol, Protocol { framing: Framing::Spdy, status: Format::Json, resizable: true });
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[SPDY_PROTOCOL]),
            (101, &HeaderValue::from_static("v4.channel.k8s.io"))
        );
        let refused = negotiate(Family::Forward, &headers(&offer)).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.headers()[SPDY_ACCEPTED].to_str().unwrap()), (403, "portforward.k8s.io"));
        for name in Family::Command.spdy_names() {
            assert!(Family::Command.spdy(name).is_some());
        }
    }

    #[test]
    fn websocket_is_answered_as_rfc_6455_has_it() {
        let offer = [&WS[..], &[("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")]].concat();
        let (protocol, answer) = negotiate(Family::Command, &headers(&offer)).unwrap();
        assert_eq!((protocol.framing, protocol.status), (Framing::WebSocket(Codec::BinaryWithClose), Format::Json));
        assert_eq!(answer.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        let (protocol, _) = negotiate(Family::Forward, &headers(&offer)).unwrap();
        assert_eq!(protocol.framing, Framing::WebSocket(Codec::Binary));
        let (protocol, answer) = negotiate(Family::Command, &headers(&WS)).unwrap();
        assert_eq!((protocol.framing, protocol.status), (Framing::WebSocket(Codec::Binary), Format::Text));
        assert!(!answer.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
        let tunnel = [&WS[..], &[("sec-websocket-protocol", TUNNELLED)]].concat();
        assert_eq!(negotiate(Family::Forward, &headers(&tunnel)).unwrap().0.framing, Framing::Tunnel);
        assert_eq!(negotiate(Family::Command, &headers(&tunnel)).unwrap_err().status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn what_is_no_upgrade_is_refused() {
        for (list, status) in [(&[][..], 400), (&SPDY[..1], 400), (&SPDY[..], 403), (&WS[..2], 426), (&WS[..3], 400)] {
            assert_eq!(negotiate(Family::Command, &headers(list)).unwrap_err().status().as_u16(), status, "{list:?}");
        }
    }
}
