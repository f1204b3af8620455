//! Why one place did not give what was asked of it, and whether asking again can help.

use std::{error::Error as StdError, io, net::IpAddr, time::Duration};

use model::{Digest, ErrorKind};

use crate::{ChallengeError, ConfigError, DocumentError, UrlError};

/// What TLS fails on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// The certificate is for another host.
    #[error("certificate not valid for name {0}")]
    Name(String),
    /// Its time is over.
    #[error("certificate has expired")]
    Expired,
    /// Its time has not come (or this machine's clock is wrong).
    #[error("certificate is not valid yet")]
    NotYetValid,
    /// No authority that we trust has signed it.
    #[error("certificate signed by unknown authority")]
    UnknownIssuer,
    /// The server wants to see a certificate.
    #[error("the server requires a client certificate")]
    ClientCertificate,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("look up host name: {0}")]
    Lookup(String),
    /// A redirect or token realm of a remote registry leads to this machine or its link (R25).
    #[error("refused: leads to {0}, an address of this machine or its link")]
    Inner(IpAddr),
    /// Nobody answers at the address.
    #[error("connect: {0}")]
    Tcp(String),
    /// The handshake failed.
    #[error("TLS: {0}")]
    Tls(TlsProblem),
    /// The proxy did not let us through.
    #[error("proxy: {0}")]
    Proxy(String),
    /// Name lookup, TCP and TLS took too long together.
    #[error("no connection within {0:?}")]
    Deadline(Duration),
}

/// Why one place did not give what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No connection.
    #[error("{0}")]
    Connect(ConnectError),
    /// The connection broke or what came over it is not HTTP.
    #[error("connection: {0}")]
    Transport(String),
    /// An answer other than what was asked for.
    #[error("status {status}{}", explain(code, message))]
    Status {
        /// The HTTP status.
        status: u16,
        /// The registry's error code, if it gave one; cleaned.
        code: String,
        /// The registry's message; cleaned and cut.
        message: String,
        /// How long it wants us to wait.
        retry_after: Option<Duration>,
    },
    /// No headers in time.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The body of a document or token took too long.
    #[error("answer not complete within {0:?}")]
    Slow(Duration),
    /// The body of a blob stopped coming.
    #[error("no progress within {0:?}")]
    Stalled(Duration),
    /// The body ended early.
    #[error("answer ended after {found} of {expected} bytes")]
    Truncated {
        /// Bytes wanted.
        expected: u64,
        /// Bytes seen.
        found: u64,
    },
    /// The answer says that it is of another length.
    #[error("answer of {found} bytes, expected {expected}")]
    Length {
        /// Bytes wanted.
        expected: u64,
        /// Bytes announced or seen.
        found: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("content has digest {found}, expected {expected}")]
    Digest {
        /// What was asked for. (Boxed: two digests by value would make every result large.)
        expected: Box<Digest>,
        /// What came.
        found: Box<Digest>,
    },
    /// It gave wrong bytes for this digest before in this pull.
    #[error("gave wrong content before")]
    Distrusted,
    /// A document or token larger than we read.
    #[error("answer larger than {0} bytes")]
    TooLarge(u64),
    /// An HTTP content coding that was not asked for.
    #[error("answer in content encoding {0:?}, which was not asked for")]
    Encoding(String),
    /// A part of an answer does not fit what was asked for.
    #[error("bad Content-Range {0:?}")]
    ContentRange(String),
    /// A redirect that is not followed.
    #[error("redirect: {0}")]
    Redirect(RedirectError),
    /// A `WWW-Authenticate` header.
    #[error("authentication challenge: {0}")]
    Challenge(ChallengeError),
    /// No token from the token server.
    #[error("token from {realm}: {why}")]
    Token {
        /// The server, without query.
        realm: String,
        /// What happened there.
        why: Box<Failure>,
    },
    /// The token server's answer.
    #[error("no usable token in the answer: {0}")]
    NoToken(&'static str),
    /// A list of names, or a part of it.
    #[error("no usable list: {0}")]
    NoList(&'static str),
    /// The document is none that we take.
    #[error("{}", chain(.0))]
    Document(DocumentError),
    /// A certificate or key file of this place's configuration.
    #[error("configuration: {}", chain(.0))]
    Config(ConfigError),
}

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// More than five.
    #[error("more than 5")]
    TooMany,
    /// No or a malformed `Location`.
    #[error("no usable Location")]
    NoLocation,
    /// Where to.
    #[error("Location is a {0}")]
    Url(UrlError),
    /// From TLS to plain text.
    #[error("from https to http")]
    Downgrade,
}

fn explain(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        ("", text) | (text, "") => format!(": {text}"),
        (code, message) => format!(": {code}: {message}"),
    }
}

impl Failure {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Status { status: 401 | 403, .. } => ErrorKind::PermissionDenied,
            Self::Status { status: 404, .. } => ErrorKind::NotFound,
            Self::Connect(ConnectError::Deadline(_)) | Self::NoAnswer(_) | Self::Slow(_) | Self::Stalled(_) => {
                ErrorKind::DeadlineExceeded
            }
            Self::Status { .. }
            | Self::Connect(_)
            | Self::Transport(_)
            | Self::Truncated { .. }
            | Self::Redirect(_)
            | Self::Challenge(_)
            | Self::NoToken(_)
            | Self::NoList(_) => ErrorKind::Unavailable,
            Self::Length { .. } | Self::Digest { .. } | Self::Distrusted | Self::Encoding(_) | Self::ContentRange(_) => {
                ErrorKind::Corrupted
            }
            Self::TooLarge(_) => ErrorKind::ResourceExhausted,
            Self::Token { why, .. } => why.kind(),
            Self::Document(error) => error.kind(),
            Self::Config(_) => ErrorKind::InvalidArgument,
        }
    }

    /// How many further tries it is worth out of `most`. While a blob is on its way already (`progressed`) a place
    /// that vanishes is expected back; at the beginning it is more likely misspelt or gone, and the user waits.
    pub(crate) fn tries(&self, most: u32, progressed: bool) -> u32 {
        match self {
            Self::Status { status: 408 | 425 | 429 | 500 | 502 | 503 | 504, .. }
            | Self::Transport(_)
            | Self::Stalled(_)
            | Self::Truncated { .. } => most,
            Self::Connect(ConnectError::Tcp(_) | ConnectError::Lookup(_) | ConnectError::Deadline(_)) | Self::NoAnswer(_)
                if progressed =>
            {
                most
            }
            Self::Connect(ConnectError::Tcp(_) | ConnectError::Lookup(_)) | Self::NoAnswer(_) => most.min(2),
            Self::Token { why, .. } => why.tries(most, progressed),
            Self::Status { .. }
            | Self::Connect(_)
            | Self::Slow(_)
            | Self::Length { .. }
            | Self::Digest { .. }
            | Self::Distrusted
            | Self::TooLarge(_)
            | Self::Encoding(_)
            | Self::ContentRange(_)
            | Self::Redirect(_)
            | Self::Challenge(_)
            | Self::NoToken(_)
            | Self::NoList(_)
            | Self::Document(_)
            | Self::Config(_) => 0,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Token { why, .. } => why.retry_after(),
            _ => None,
        }
    }

    /// It was never reached.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::NoAnswer(_))
    }
}

/// An error and its causes on one line, cut and without control characters.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    clean(&text, 400)
}

/// A text from outside, made fit for a log line: no control characters, at most `most` characters.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty());
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.chars().count() > most {
            return out.chars().take(most).chain("..".chars()).collect();
        }
    }
    out
}

/// What is behind an error of the HTTP library.
pub(crate) fn from_http(error: &(dyn StdError + 'static)) -> Failure {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(known) = cause.downcast_ref::<ConnectError>() {
            return Failure::Connect(known.clone());
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Failure::Connect(ConnectError::Tls(tls_problem(tls)));
        }
        // An io::Error hides the error it was made of from source().
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    let text = chain(error);
    // With TLS 1.3 a missing client certificate is said only after the handshake, and HTTP/2 hands it on as text.
    if text.contains("fatal alert: CertificateRequired") {
        return Failure::Connect(ConnectError::Tls(TlsProblem::ClientCertificate));
    }
    Failure::Transport(text)
}

pub(crate) fn tls_problem(error: &rustls::Error) -> TlsProblem {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForName) => TlsProblem::Name(String::new()),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, .. }) => {
            TlsProblem::Name(clean(&expected.to_str(), 260))
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => TlsProblem::Expired,
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            TlsProblem::NotYetValid
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => TlsProblem::UnknownIssuer,
        Error::AlertReceived(AlertDescription::CertificateRequired) => TlsProblem::ClientCertificate,
        other => TlsProblem::Other(chain(other)),
    }
}
