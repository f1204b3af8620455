//! `creel run`: a pod, a container in it, and in the foreground everything that it says.

mod names;
mod options;
mod spec;

use std::{fs, fs::File, os::unix::fs::DirBuilderExt};

use api::runtime as cri;
use cri::ContainerState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::{PullWhen, Run},
    client::Client,
    containers,
    error::{self, Error, Exit},
    exec, find,
    follow::{self, LogReader},
    info, output, pull,
};

/// What was made for a run, to be taken back if the rest fails.
struct Made {
    pod: String,
    log_dir: String,
}

/// Runs it.
pub(crate) async fn run(client: &mut Client, args: Run) -> Result<Exit, Error> {
    let image = image(client, &args).await?;
    let name = name(client, args.name.as_deref()).await?;
    let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(error::io("make an id"))?.trim().to_owned();
    let log_root = info::get(client).await?.log_root;
    let plan = spec::plan(&args, &name, &uid, &image, &log_root)?;
    let log_dir = plan.pod.log_directory.clone();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&log_dir).map_err(error::io(format!("make {log_dir}")))?;
    let made = match make_pod(client, &plan, log_dir.clone()).await {
        Ok(made) => made,
        Err(error) => {
            fs::remove_dir(&log_dir).ok();
            return Err(error);
        }
    };
    match in_pod(client, &args, &name, plan, &made).await {
        Ok(exit) => Ok(exit),
        Err(error) => {
            take_back(client, &made).await;
            Err(error)
        }
    }
}

/// The image's id, pulled if need be.
async fn image(client: &mut Client, args: &Run) -> Result<String, Error> {
    let there = if args.pull == PullWhen::Always { None } else { pull::find(client, &args.image).await? };
    match there {
        Some(id) => Ok(id),
        None if args.pull == PullWhen::Never => Err(Error::Missing { what: "image", name: args.image.clone() }),
        None => pull::get(client, &args.image, &args.creds, false).await,
    }
}

/// The given name if it is free, or a free one that is made up.
async fn name(client: &mut Client, given: Option<&str>) -> Result<String, Error> {
    let answer = client.runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await;
    let pods = answer.map_err(error::rpc("list pods"))?.into_inner().items;
    let taken = |name: &str| pods.iter().any(|pod| pod.labels.get(find::NAME_LABEL).is_some_and(|label| label == name));
    match given {
        Some(name) if taken(name) => {
            Err(Error::Refused { name: name.to_owned(), why: "there is a container with this name: remove it first" })
        }
        Some(name) => options::container_name(name),
        None => names::free(taken).map_err(error::io("make up a name")),
    }
}

async fn make_pod(client: &mut Client, plan: &spec::Plan, log_dir: String) -> Result<Made, Error> {
    let request = cri::RunPodSandboxRequest { config: Some(plan.pod.clone()), runtime_handler: String::new() };
    let answer = client.runtime.run_pod_sandbox(request).await.map_err(error::rpc("make the pod"))?;
    Ok(Made { pod: answer.into_inner().pod_sandbox_id, log_dir })
}

/// Whatever is in the pod goes with it. A failure here would only hide the one that led here.
async fn take_back(client: &mut Client, made: &Made) {
    if let Err(error) = containers::remove_pod(client, &made.pod).await {
        output::note(&format!("creel: clean up: {}", error.chain()));
    }
    // The daemon removes it with the pod, unless the pod could not be removed.
    if let Err(error) = fs::remove_dir_all(&made.log_dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        output::note(&format!("creel: remove {}: {error}", made.log_dir));
    }
}

async fn in_pod(client: &mut Client, args: &Run, name: &str, plan: spec::Plan, made: &Made) -> Result<Exit, Error> {
    let mut signals = Signals::new()?;
    let create = cri::CreateContainerRequest {
        pod_sandbox_id: made.pod.clone(),
        config: Some(plan.container),
        sandbox_config: Some(plan.pod),
    };
    let answer = client.runtime.create_container(create).await.map_err(error::rpc("create the container"))?;
    let id = answer.into_inner().container_id;
    let log_path = follow::status(client, &id).await?.log_path;
    start(client, &id, name).await?;
    if args.detach {
        output::print(&format!("{id}\n"))?;
        return Ok(Exit(0));
    }
    let status = watch(client, &id, &log_path, &mut signals).await?;
    if args.rm {
        take_back(client, made).await;
    } else {
        containers::stop_pod(client, &made.pod).await?;
    }
    Ok(Exit(exec::code(status.exit_code)))
}

/// A command that cannot be started has docker's exit codes: 127 not found, 126 not executable.
async fn start(client: &mut Client, id: &str, name: &str) -> Result<(), Error> {
    let request = cri::StartContainerRequest { container_id: id.to_owned() };
    let Err(refused) = client.runtime.start_container(request).await else { return Ok(()) };
    match follow::status(client, id).await {
        Ok(status) if status.state() == ContainerState::ContainerExited && matches!(status.exit_code, 126 | 127) => {
            let why = if status.message.is_empty() { refused.message().to_owned() } else { status.message };
            Err(Error::NotStarted { name: name.to_owned(), code: exec::code(status.exit_code), why })
        }
        _ => Err(error::rpc(format!("start {name}"))(refused)),
    }
}

/// What a person says with the keyboard.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(error::io("wait for signals"));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Seconds that a container gets to end after the first signal.
const GRACE: i64 = 10;

/// Prints what it says until it has ended. The first signal stops it, the second kills it.
async fn watch(client: &mut Client, id: &str, log_path: &str, signals: &mut Signals) -> Result<cri::ContainerStatus, Error> {
    let (mut gently, mut firmly) = (client.runtime.clone(), client.runtime.clone());
    let stop = |timeout: i64| cri::StopContainerRequest { container_id: id.to_owned(), timeout };
    let stopping = async {
        signals.next().await;
        tokio::select! {
            stopped = gently.stop_container(stop(GRACE)) => stopped,
            () = signals.next() => firmly.stop_container(stop(0)).await,
        }
    };
    let file = File::open(log_path).map_err(error::io(format!("open {log_path}")))?;
    let mut reader = LogReader::new(file, false);
    let printing = follow::until_exit(client, id, log_path, &mut reader);
    let mut printing = std::pin::pin!(printing);
    tokio::select! {
        ended = &mut printing => return ended,
        stopped = stopping => {
            stopped.map_err(error::rpc("stop"))?;
        }
    }
    printing.await
}
