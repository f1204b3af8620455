//! `creel run`, `creel create`, `creel start` and `creel attach`.

use std::{fs::OpenOptions, io::Write as _, path::Path, time::Duration};

use api::creel::{
    CreateContainerRequest, RemoveContainerRequest, StartContainerRequest, WaitContainerRequest, wait_container_request::Condition,
};
use tonic::{Code, Status};

use super::{
    args::{Attach, Create, Run, Start},
    find::{self, Found},
    flags::CreateFlags,
    request,
    streams::{self, Entry, Refusal, Talk},
};
use crate::{
    args::PullWhen,
    client::Client,
    error::{self, Error, Exit},
    exec::code,
    output, pull,
    session::Outcome,
};

/// Makes a container, starts it, and in the foreground shows what it says. What goes wrong before it runs is exit code 125.
pub(super) async fn run(client: &mut Client, args: Run) -> Result<Exit, Error> {
    let Run { detach, sig_proxy, detach_keys, create: flags } = args;
    let inputs = streams::inputs(flags.interactive && !detach, flags.tty, &detach_keys)?;
    streams::check_terminal(&inputs)?;
    let mut request = asked(&flags)?;
    if let Some(config) = &mut request.config {
        config.stdin_once &= !detach;
    }
    let id = make(client, &flags, request).await.map_err(Error::of_run)?;
    if detach {
        if let Err(status) = client.containers.start(StartContainerRequest { container: id.clone() }).await {
            take_back(client, &flags, id).await;
            return Err(not_started(status));
        }
        output::print(&format!("{id}\n"))?;
        return Ok(Exit(0));
    }
    let removed = flags.rm.then(|| gone(client, &id));
    let talk = Talk { container: id.clone(), inputs, proxy: sig_proxy };
    match streams::talk(client, talk, Entry::Start).await {
        Ok(Outcome::Detached) => Ok(Exit(0)),
        Ok(Outcome::Exit(exit)) => {
            if let Some(removed) = removed {
                // The name is free again when we are done.
                tokio::time::timeout(REMOVAL, removed).await.ok();
            }
            Ok(Exit(code(exit)))
        }
        Err(Refusal::Daemon(status)) => {
            take_back(client, &flags, id).await;
            Err(not_started(*status))
        }
        Err(Refusal::Here(error)) => Err(error),
    }
}

/// One that was to go when it has ended goes if it cannot even be started. It may have gone already.
async fn take_back(client: &mut Client, flags: &CreateFlags, container: String) {
    if flags.rm {
        client.containers.remove(RemoveContainerRequest { container, force: true, volumes: true }).await.ok();
    }
}

/// How long its removal is waited for after its end.
const REMOVAL: Duration = Duration::from_secs(30);

/// Ends when the container is gone, which may be so already.
fn gone(client: &Client, id: &str) -> tokio::task::JoinHandle<()> {
    let (mut containers, container) = (client.containers.clone(), id.to_owned());
    tokio::spawn(async move {
        containers.wait(WaitContainerRequest { container, condition: Condition::Removed.into() }).await.ok();
    })
}

/// `exit code N: ` in front of a refusal to start is for us and not for people.
fn not_started(status: Status) -> Error {
    let message = status.message();
    let told = message.find("exit code ").and_then(|at| message[at + "exit code ".len()..].split_once(": "));
    match told.and_then(|(number, why)| Some((number.parse().ok()?, why.to_owned()))) {
        Some((number @ (126 | 127), why)) => Error::Run { code: number, why },
        Some((_, why)) => Error::Run { code: error::ENGINE, why },
        None => error::daemon(status).of_run(),
    }
}

/// Makes a container and prints its id.
pub(super) async fn create(client: &mut Client, args: Create) -> Result<Exit, Error> {
    let request = asked(&args.create)?;
    let id = make(client, &args.create, request).await?;
    output::print(&format!("{id}\n"))?;
    Ok(Exit(0))
}

fn asked(flags: &CreateFlags) -> Result<CreateContainerRequest, Error> {
    let here = std::env::current_dir().map_err(error::io("see where we are"))?;
    request::request(flags, &here)
}

/// Makes it, with its image pulled if need be; answers its id.
async fn make(client: &mut Client, flags: &CreateFlags, request: CreateContainerRequest) -> Result<String, Error> {
    let mut cidfile = flags.cidfile.as_deref().map(open_cidfile).transpose()?;
    if flags.pull == PullWhen::Always {
        pull_first(client, flags).await?;
    }
    let made = match client.containers.create(request.clone()).await {
        Err(status) if flags.pull == PullWhen::Missing && is_no_image(&status) => {
            output::note(&format!("Unable to find image '{}' locally", tagged(flags.image())));
            match pull_first(client, flags).await {
                Ok(()) => client.containers.create(request).await,
                Err(error) => Err(remove_cidfile(flags, error))?,
            }
        }
        made => made,
    };
    let made = made.map_err(|status| remove_cidfile(flags, error::daemon(status)))?.into_inner();
    for warning in &made.warnings {
        output::note(&format!("WARNING: {warning}"));
    }
    if let Some(file) = &mut cidfile {
        file.write_all(made.id.as_bytes()).map_err(error::io("write the container's id"))?;
    }
    Ok(made.id)
}

fn open_cidfile(path: &Path) -> Result<std::fs::File, Error> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Option {
            option: "--cidfile",
            value: path.display().to_string(),
            why: format!("container ID file found, make sure the other container isn't running or delete {}", path.display()),
        },
        _ => Error::Io { what: format!("create {}", path.display()), source },
    })
}

/// The file of a container that was not made is of no use.
fn remove_cidfile(flags: &CreateFlags, error: Error) -> Error {
    if let Some(path) = &flags.cidfile {
        std::fs::remove_file(path).ok();
    }
    error
}

fn is_no_image(status: &Status) -> bool {
    let missing = ["No such image", "does not match the specified platform"];
    status.code() == Code::NotFound && missing.iter().any(|text| status.message().contains(text))
}

async fn pull_first(client: &mut Client, flags: &CreateFlags) -> Result<(), Error> {
    let platform = flags.platform.as_deref().unwrap_or_default();
    pull::get(client, (flags.image(), platform), &flags.creds, flags.quiet).await.map(|_| ())
}

/// A name as docker shows it: with its tag.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// Starts containers; with -a or -i one of them, and talks to it.
pub(super) async fn start(client: &mut Client, args: Start) -> Result<Exit, Error> {
    if !args.attach && !args.interactive {
        let mut failed = false;
        for container in &args.containers {
            match client.containers.start(StartContainerRequest { container: container.clone() }).await {
                Ok(_) => output::print(&format!("{container}\n"))?,
                Err(status) => {
                    failed = true;
                    output::note(&start_error(status).chain());
                }
            }
        }
        if failed {
            output::note(&format!("Error: failed to start containers: {}", args.containers.join(", ")));
        }
        return Ok(Exit(u8::from(failed)));
    }
    let [container] = args.containers.as_slice() else {
        return Err(Error::Refused {
            name: args.containers.join(" "),
            why: "you cannot start and attach multiple containers at once",
        });
    };
    let details = find::inspect(client, container).await?;
    let config = details.config.unwrap_or_default();
    let inputs = streams::inputs(args.interactive && config.open_stdin, config.tty, &args.detach_keys)?;
    streams::check_terminal(&inputs)?;
    let talk = Talk { container: container.clone(), inputs, proxy: args.sig_proxy };
    let status = details.summary.and_then(|summary| summary.state).unwrap_or_default();
    let entry = if find::runs(&status) { Entry::Attach } else { Entry::Start };
    match streams::talk(client, talk, entry).await {
        Ok(outcome) => Ok(exit(outcome)),
        Err(Refusal::Daemon(status)) => Err(start_error(*status)),
        Err(Refusal::Here(error)) => Err(error),
    }
}

/// docker's words and exit code 1 for a container that is there and does not start.
fn start_error(status: Status) -> Error {
    match not_started(status) {
        Error::Run { why, .. } => Error::Daemon(why),
        other => other,
    }
}

fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Exit(exit) => Exit(code(exit)),
        Outcome::Detached => {
            output::note("read escape sequence");
            Exit(0)
        }
    }
}

/// The streams of a container that runs; the exit code is the container's if it ended meanwhile.
pub(super) async fn attach(client: &mut Client, args: Attach) -> Result<Exit, Error> {
    let details = match find::any(client, &args.container).await? {
        Found::Pod(container) => return crate::attach::attach(client, args, container.id).await,
        Found::Ours(details) => details,
    };
    let status = details.summary.and_then(|summary| summary.state).unwrap_or_default();
    if status.status() == api::creel::container_state::Status::Paused {
        return Err(Error::Words("You cannot attach to a paused container, unpause it first".to_owned()));
    }
    if !find::runs(&status) {
        return Err(Error::Words("You cannot attach to a stopped container, start it first".to_owned()));
    }
    let config = details.config.unwrap_or_default();
    let inputs = streams::inputs(!args.no_stdin && config.open_stdin, config.tty, &args.detach_keys)?;
    streams::check_terminal(&inputs)?;
    let talk = Talk { container: args.container, inputs, proxy: args.sig_proxy };
    Ok(exit(streams::talk(client, talk, Entry::Attach).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_tags() {
        assert_eq!(tagged("x"), "x:latest");
        assert_eq!(tagged("h:5000/x"), "h:5000/x:latest");
        assert_eq!((tagged("x:1").as_str(), tagged("x@sha256:0").as_str()), ("x:1", "x@sha256:0"));
    }

    #[test]
    fn what_cannot_be_run_has_its_code() {
        let status = |message: &str| Status::failed_precondition(message);
        for (message, number, text) in [
            ("start: exit code 127: exec: \"x\": not found", 127, "exec: \"x\": not found"),
            ("exit code 126: no", 126, "no"),
            ("exit code 128: no", 125, "no"),
            ("other", 125, "other"),
        ] {
            let error = not_started(status(message));
            assert_eq!((error.exit_code(), error.chain()), (number, format!("Error response from daemon: {text}")));
        }
    }
}
