//! Making pods and containers over gRPC, as a kubelet would.

use std::{collections::HashMap, time::Duration};

use api::runtime::{self as cri, runtime_service_client::RuntimeServiceClient};
use tonic::transport::Channel;

use crate::{daemon::Daemon, registry};

pub type Runtime = RuntimeServiceClient<Channel>;

/// The image most tests use.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.35";

/// Pulls an image from the shared registry.
pub async fn pull(daemon: &Daemon, image: &str) -> String {
    let host = image.split_once('/').expect("a full name").0;
    daemon.mirror(host, registry::shared());
    let request = cri::PullImageRequest { image: Some(spec(image)), ..Default::default() };
    daemon.images().await.pull_image(request).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log())).into_inner().image_ref
}

pub fn spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.into(), ..Default::default() }
}

/// A pod on the built-in bridge.
pub fn pod(name: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "it".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(cri::NamespaceOption { pid: cri::NamespaceMode::Container.into(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A pod on the host's network.
pub fn host_pod(name: &str) -> cri::PodSandboxConfig {
    let mut config = pod(name);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().network = cri::NamespaceMode::Node.into();
    config
}

/// A container that runs a shell script.
pub fn container(name: &str, image: &str, script: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(spec(image)),
        command: vec!["sh".into(), "-c".into(), script.into()],
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(cri::NamespaceOption { pid: cri::NamespaceMode::Container.into(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub async fn run_pod(runtime: &mut Runtime, config: &cri::PodSandboxConfig) -> Result<String, tonic::Status> {
    run_pod_by(runtime, config, &crate::daemon::handler()).await
}

/// With a runtime handler.
pub async fn run_pod_by(runtime: &mut Runtime, config: &cri::PodSandboxConfig, handler: &str) -> Result<String, tonic::Status> {
    let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
    Ok(runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
}

pub async fn create(
    runtime: &mut Runtime,
    pod: &str,
    pod_config: &cri::PodSandboxConfig,
    config: &cri::ContainerConfig,
) -> Result<String, tonic::Status> {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.into(),
        config: Some(config.clone()),
        sandbox_config: Some(pod_config.clone()),
    };
    Ok(runtime.create_container(request).await?.into_inner().container_id)
}

pub async fn start(runtime: &mut Runtime, container: &str) -> Result<(), tonic::Status> {
    runtime.start_container(cri::StartContainerRequest { container_id: container.into() }).await.map(drop)
}

/// Creates and starts a container.
pub async fn run(runtime: &mut Runtime, pod: &str, pod_config: &cri::PodSandboxConfig, config: &cri::ContainerConfig) -> String {
    let id = create(runtime, pod, pod_config, config).await.expect("create container");
    start(runtime, &id).await.expect("start container");
    id
}

pub async fn status(runtime: &mut Runtime, container: &str) -> cri::ContainerStatus {
    let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: false };
    runtime.container_status(request).await.expect("container status").into_inner().status.expect("a status")
}

/// Waits for the end of a container.
pub async fn wait_exit(runtime: &mut Runtime, container: &str) -> cri::ContainerStatus {
    for _ in 0..6000 {
        let status = status(runtime, container).await;
        if status.state() == cri::ContainerState::ContainerExited {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("container {container} does not end");
}

/// Runs a command in a container: exit code, stdout, stderr.
pub async fn exec(runtime: &mut Runtime, container: &str, command: &[&str]) -> (i32, String, String) {
    let request = cri::ExecSyncRequest {
        container_id: container.into(),
        cmd: command.iter().map(ToString::to_string).collect(),
        timeout: 30,
    };
    let answer = runtime.exec_sync(request).await.expect("exec").into_inner();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    (answer.exit_code, text(answer.stdout), text(answer.stderr))
}

/// The text of a CRI log, without times and tags.
pub fn log_text(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut out = String::new();
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let (Some(_time), Some(_stream), Some(tag), Some(rest)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            panic!("not a CRI log line: {line:?}");
        };
        out.push_str(rest);
        if tag == "F" {
            out.push('\n');
        }
    }
    out
}

pub fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
