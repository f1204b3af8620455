//! `creel ps`, `creel stop` and `creel rm`.

use api::runtime as cri;
use cri::ContainerState;
use serde::Serialize;

use crate::{
    client::Client,
    error::{self, Error, Exit},
    find,
    format::Format,
    output,
};

/// A container for programs.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    pod: String,
    pod_id: String,
    image: String,
    state: &'static str,
    created_at: i64,
}

/// Lists containers.
pub(crate) async fn list(client: &mut Client, format: &Format, all: bool, quiet: bool) -> Result<Exit, Error> {
    let mut containers = find::containers(client).await?;
    containers.retain(|container| all || container.state() == ContainerState::ContainerRunning);
    if quiet {
        output::print(&containers.iter().map(|container| output::short(&container.id) + "\n").collect::<String>())?;
        return Ok(Exit(0));
    }
    let answer = client.runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await;
    let pods = answer.map_err(error::rpc("list pods"))?.into_inner().items;
    let values = containers.iter().map(|container| serde_json::to_value(row(container, &pods)).map_err(Error::Json));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    if format.is_table() {
        for container in &containers {
            let Row { name, pod, image, .. } = row(container, &pods);
            let status = status(client, container).await?;
            let created = format!("{} ago", output::age(container.created_at));
            rows.push(vec![output::short(&container.id), image, created, status, name, pod]);
        }
    }
    format.print(&values, || output::table(&["CONTAINER ID", "IMAGE", "CREATED", "STATUS", "NAME", "POD"], &rows))?;
    Ok(Exit(0))
}

fn row(container: &cri::Container, pods: &[cri::PodSandbox]) -> Row {
    let metadata = pods.iter().find(|pod| pod.id == container.pod_sandbox_id).and_then(|pod| pod.metadata.as_ref());
    Row {
        id: container.id.clone(),
        name: find::name(container),
        pod: metadata.map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default(),
        pod_id: container.pod_sandbox_id.clone(),
        image: container.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        state: state(container.state()),
        created_at: container.created_at,
    }
}

fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::ContainerCreated => "created",
        ContainerState::ContainerRunning => "running",
        ContainerState::ContainerExited => "exited",
        ContainerState::ContainerUnknown => "unknown",
    }
}

/// `Up 3 minutes`, `Exited (0) 2 hours ago`, as docker says it.
async fn status(client: &mut Client, container: &cri::Container) -> Result<String, Error> {
    let request = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
    let status = match client.runtime.container_status(request).await {
        Ok(answer) => answer.into_inner().status.unwrap_or_default(),
        // It was removed while we looked.
        Err(status) if status.code() == tonic::Code::NotFound => return Ok("removed".into()),
        Err(status) => return Err(error::rpc("look at a container")(status)),
    };
    Ok(match status.state() {
        ContainerState::ContainerRunning => format!("Up {}", output::age(status.started_at)),
        ContainerState::ContainerExited => format!("Exited ({}) {} ago", status.exit_code, output::age(status.finished_at)),
        other => state(other).to_owned(),
    })
}

/// Stops containers, and the pods that were made for them: nothing of them is needed any more but their logs.
pub(crate) async fn stop(client: &mut Client, seconds: u32, wanted: &[String]) -> Result<Exit, Error> {
    let mut failed = 0u8;
    for name in wanted {
        let stopped = match find::container(client, name).await {
            Ok(container) => stop_one(client, &container, seconds).await,
            Err(error) => Err(error),
        };
        failed |= said(name, stopped)?;
    }
    Ok(Exit(failed))
}

/// Prints the name, or the error; 1 if it was one.
fn said(name: &str, result: Result<(), Error>) -> Result<u8, Error> {
    match result {
        Ok(()) => output::print(&format!("{name}\n")).map(|()| 0),
        Err(error) => {
            output::note(&format!("creel: {}", error.chain()));
            Ok(1)
        }
    }
}

/// Stops one container and its own pod.
pub(crate) async fn stop_one(client: &mut Client, container: &cri::Container, seconds: u32) -> Result<(), Error> {
    let request = cri::StopContainerRequest { container_id: container.id.clone(), timeout: seconds.into() };
    client.runtime.stop_container(request).await.map_err(error::rpc("stop"))?;
    if find::is_ours(container) {
        stop_pod(client, &container.pod_sandbox_id).await?;
    }
    Ok(())
}

/// Stops a pod.
pub(crate) async fn stop_pod(client: &mut Client, pod: &str) -> Result<(), Error> {
    let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() };
    client.runtime.stop_pod_sandbox(request).await.map_err(error::rpc("stop the pod"))?;
    Ok(())
}

/// Removes containers.
pub(crate) async fn remove(client: &mut Client, force: bool, wanted: &[String]) -> Result<Exit, Error> {
    let mut failed = 0u8;
    for name in wanted {
        let removed = match find::container(client, name).await {
            Ok(container) if container.state() == ContainerState::ContainerRunning && !force => {
                Err(Error::Running { name: name.clone() })
            }
            Ok(container) => remove_one(client, &container).await,
            Err(error) => Err(error),
        };
        failed |= said(name, removed)?;
    }
    Ok(Exit(failed))
}

/// Removes one container; if `creel run` made it, its pod and its log too.
pub(crate) async fn remove_one(client: &mut Client, container: &cri::Container) -> Result<(), Error> {
    let status = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
    let log = client.runtime.container_status(status).await.ok().and_then(|answer| answer.into_inner().status);
    let request = cri::RemoveContainerRequest { container_id: container.id.clone() };
    client.runtime.remove_container(request).await.map_err(error::rpc("remove"))?;
    if find::is_ours(container) {
        remove_pod(client, &container.pod_sandbox_id).await?;
        if let Some(log) = log.filter(|status| !status.log_path.is_empty()) {
            remove_log(&log.log_path)?;
        }
    }
    Ok(())
}

/// Removes a pod with everything in it.
pub(crate) async fn remove_pod(client: &mut Client, pod: &str) -> Result<(), Error> {
    stop_pod(client, pod).await?;
    let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() };
    client.runtime.remove_pod_sandbox(request).await.map_err(error::rpc("remove the pod"))?;
    Ok(())
}

/// The log of a container of ours is alone in a directory of its own. Only those two are removed, and the directory
/// only if it is empty then.
fn remove_log(path: &str) -> Result<(), Error> {
    let gone = |result: std::io::Result<()>| match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(std::fs::remove_file(path)).map_err(error::io(format!("remove {path}")))?;
    if let Some(dir) = std::path::Path::new(path).parent() {
        gone(std::fs::remove_dir(dir)).map_err(error::io(format!("remove {}", dir.display())))?;
    }
    Ok(())
}
