//! What can go wrong, and the exit code that says so (docker's: 125 is the engine's fault, the rest is the command's).

use std::{error::Error as _, io, path::PathBuf};

use tonic::Status;

/// The exit code of a command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

/// The engine did not do it.
pub(crate) const ENGINE: u8 = 125;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach creeld on {}{}", socket.display(), hint(source))]
    Connect { socket: PathBuf, source: io::Error },
    #[error("connect")]
    Transport(#[source] tonic::transport::Error),
    #[error("{what}: {}", status_text(status))]
    Rpc { what: String, status: Box<Status> },
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("no such {what}: {name}")]
    Missing { what: &'static str, name: String },
    #[error("{name}: more than one {what} begins with that")]
    Ambiguous { what: &'static str, name: String },
    #[error("{option} {value:?}: {why}")]
    Option { option: &'static str, value: String, why: String },
    #[error("{name}: {why}")]
    Refused { name: String, why: &'static str },
    #[error("Error response from daemon: {why}")]
    Run { code: u8, why: String },
    #[error("unknown flag: {0}")]
    Flag(String),
    #[error("the input device is not a TTY")]
    NoTerminal,
    #[error("{what}: did not end within {seconds} s and was killed")]
    TimedOut { what: String, seconds: u32 },
    #[error("Error response from daemon: {0}")]
    Daemon(String),
    /// In docker's words.
    #[error("{0}")]
    Words(String),
    #[error("{0}")]
    Template(String),
    #[error("print JSON")]
    Json(#[source] serde_json::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            " (is creeld running? another socket is named with --socket or CREEL_SOCKET)"
        }
        io::ErrorKind::PermissionDenied => {
            " (only root may use it, and the group that socket_group names in creeld's configuration)"
        }
        _ => "",
    }
}

/// The message alone; the code where there is none.
fn status_text(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        text => text.to_owned(),
    }
}

impl Error {
    /// The command's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Run { code, .. } => *code,
            Self::Missing { .. } | Self::Ambiguous { .. } | Self::Refused { .. } => 1,
            Self::Daemon(_) | Self::Words(_) | Self::NoTerminal => 1,
            _ => ENGINE,
        }
    }

    /// What `creel run` makes of it: a refusal is the engine's, and not the program's.
    pub(crate) fn of_run(self) -> Self {
        match self {
            Self::Daemon(why) => Self::Run { code: ENGINE, why },
            other => other,
        }
    }

    /// Nobody reads our output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// With all causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        text
    }
}

/// Says what an RPC was for.
pub(crate) fn rpc(what: impl Into<String>) -> impl FnOnce(Status) -> Error {
    let what = what.into();
    move |status| Error::Rpc { what, status: Box::new(status) }
}

/// What the daemon says, as docker's users know it.
pub(crate) fn daemon(status: Status) -> Error {
    // The daemon has not answered at all: the connection has a cause of its own.
    if status.source().is_some() {
        return Error::Rpc { what: "talk to creeld".to_owned(), status: Box::new(status) };
    }
    Error::Daemon(last(&status_text(&status)).to_owned())
}

/// docker's words without what our errors say before them (`image NAME: remove: `).
pub(crate) fn last(message: &str) -> &str {
    const WORDS: [&str; 4] =
        ["No such image: ", "conflict: unable to ", "An image does not exist locally", "refusing to create a tag"];
    WORDS.iter().find_map(|word| message.find(word)).map_or(message, |at| &message[at..])
}

/// Says what an input or output was for.
pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_is_explained() {
        let error = Error::Connect { socket: "/run/x".into(), source: io::Error::from_raw_os_error(2) };
        assert!(error.chain().starts_with("cannot reach creeld on /run/x (is creeld running?"), "{}", error.chain());
        assert_eq!(error.exit_code(), 125);
        assert_eq!(Error::Run { code: 127, why: "y".into() }.exit_code(), 127);
        assert_eq!((Error::Daemon("y".into()).exit_code(), Error::Daemon("y".into()).of_run().exit_code()), (1, 125));
    }
}
