//! A container's streams on this terminal: what is typed, signals, the terminal's size, and what it says.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use api::creel::{self as own, process_output::Message as Output};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tonic::{Code, Status};

use crate::{
    client::Client,
    error::Error,
    output,
    session::{self, Inputs, Outcome},
    terminal::{self, Keys},
};

/// How a container is talked to.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    /// Its id or name.
    pub(super) container: String,
    /// Its terminal and what of standard input it gets.
    pub(super) inputs: Inputs,
    /// Signals are passed on.
    pub(super) proxy: bool,
}

/// Whether it is started or runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Start,
    Attach,
}

/// Talks until the container has ended or the person has left. An RPC's refusal comes as it is.
pub(super) async fn talk(client: &mut Client, talk: Talk, entry: Entry) -> Result<Outcome, Refusal> {
    let Talk { container, inputs, proxy } = talk;
    let start = own::AttachStart { container_id: container.clone(), stdin: inputs.stdin };
    let (to, typed) = mpsc::channel(session::AHEAD);
    let requests = session::attaching(start, typed);
    let proxies = if proxy && !inputs.tty { signals(client, &container) } else { Ok(JoinSet::new()) };
    let _proxies = proxies?;
    let answer = match entry {
        Entry::Start => client.containers.start_attached(requests).await,
        Entry::Attach => client.containers.attach(requests).await,
    };
    let mut from = answer?.into_inner();
    let first = from.message().await?.and_then(|output| output.message);
    if let Some(Output::ExitCode(code)) = first {
        return Ok(Outcome::Exit(code));
    }
    let tty = matches!(first, Some(Output::Started(own::ProcessStarted { tty: true })));
    let outcome = session::converse(from, Inputs { tty, ..inputs }, to, "talk to the container").await;
    outcome.map_err(|error| match error {
        Error::Rpc { status, .. } => Refusal::Daemon(status),
        other => Refusal::Here(other),
    })
}

/// Why a talk could not be.
pub(super) enum Refusal {
    Daemon(Box<Status>),
    Here(Error),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Daemon(Box::new(status))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Daemon(status) => crate::error::daemon(*status),
            Refusal::Here(error) => error,
        }
    }
}

/// What a terminal's session needs to know.
pub(super) fn inputs(stdin: bool, tty: bool, keys: &str) -> Result<Inputs, Error> {
    Ok(Inputs { stdin, tty, keys: Keys::parse(keys)? })
}

/// A terminal there needs one here, if somebody types.
pub(super) fn check_terminal(inputs: &Inputs) -> Result<(), Error> {
    if inputs.tty && inputs.stdin && !terminal::is_terminal() { Err(Error::NoTerminal) } else { Ok(()) }
}

/// Who wants to end it so often wants to leave it: what it does with the signals is its own.
const INSISTENCE: u32 = 3;

/// Signals that are passed on, by their names.
fn passed() -> [(SignalKind, &'static str); 7] {
    [
        (SignalKind::hangup(), "HUP"),
        (SignalKind::interrupt(), "INT"),
        (SignalKind::quit(), "QUIT"),
        (SignalKind::terminate(), "TERM"),
        (SignalKind::user_defined1(), "USR1"),
        (SignalKind::user_defined2(), "USR2"),
        (SignalKind::alarm(), "ALRM"),
    ]
}

/// Passes signals on for as long as the set lives. One that comes when the container does not run any more has nobody to
/// go to.
#[allow(clippy::exit, reason = "who insists waits for nothing any more; the terminal is as it was, else ^C would be no signal")]
fn signals(client: &Client, container: &str) -> Result<JoinSet<()>, Error> {
    let mut set = JoinSet::new();
    let insisted = Arc::new(AtomicU32::new(0));
    for (kind, name) in passed() {
        let mut signals = signal(kind).map_err(crate::error::io("wait for signals"))?;
        let (mut containers, container) = (client.containers.clone(), container.to_owned());
        let insisted = insisted.clone();
        set.spawn(async move {
            while signals.recv().await.is_some() {
                if matches!(name, "INT" | "TERM") && insisted.fetch_add(1, Ordering::Relaxed) + 1 == INSISTENCE {
                    output::note(&format!("\ngot {INSISTENCE} SIGTERM/SIGINTs, forcefully exiting"));
                    std::process::exit(1);
                }
                let request = own::KillContainerRequest { container: container.clone(), signal: name.to_owned() };
                match containers.kill(request).await {
                    Err(status) if !matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => {
                        output::note(&format!("creel: pass SIG{name} on: {}", status.message()));
                    }
                    _ => {}
                }
            }
        });
    }
    Ok(set)
}
