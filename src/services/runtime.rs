//! RuntimeService: pods and containers.

use std::{collections::BTreeMap, time::Duration};

use api::runtime::{self as cri, runtime_service_server::RuntimeService};
use engine::Engine;
use model::{ContainerId, container::ContainerState, pod::PodState};
use streaming::{AttachRequest, ExecRequest, PortForwardRequest, Wanted};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    checkpoint,
    convert::{self, resources},
    events, ids, inspect, metrics, stats, status,
    stream::{Streaming, chunks},
    view,
};

/// The version of the contract that every kubelet insists on.
const CONTRACT: &str = "0.1.0";
/// The longest time that is waited for anything; more is a mistake and would overflow a clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    engine: Engine,
    streaming: streaming::Server,
    /// True once the daemon is to end.
    ending: watch::Receiver<bool>,
}

impl Runtime {
    /// Serves this engine.
    pub(crate) fn new(engine: Engine, streaming: streaming::Server, ending: watch::Receiver<bool>) -> Self {
        Self { engine, streaming, ending }
    }

    fn pods(&self, filter: Option<cri::PodSandboxFilter>) -> Vec<cri::PodSandbox> {
        let filter = filter.as_ref();
        self.engine.pods().iter().rev().filter(|pod| view::pod_wanted(filter, pod)).map(|pod| view::pod(pod)).collect()
    }

    fn containers(&self, filter: Option<cri::ContainerFilter>) -> Vec<cri::Container> {
        let filter = filter.as_ref();
        let containers = self.engine.containers();
        containers.iter().rev().filter(|c| view::container_wanted(filter, c)).map(|c| view::container(c)).collect()
    }

    /// A container that can be looked into.
    fn running(&self, id: &str) -> Result<ContainerId, Status> {
        let container = ids::container(&self.engine, id)?;
        match container.state() {
            ContainerState::Running { .. } => Ok(container.id),
            state => Err(status::not_now(&format!("container {} is {}, not running", container.id.short(), state.name()))),
        }
    }

    /// Handlers that pods can be made with now. Why another one cannot be used is in `creel info`.
    async fn handlers(&self, user_namespaces: bool) -> Vec<cri::RuntimeHandler> {
        let usable = self.engine.handlers().await.into_iter().filter_map(|handler| Some((handler.name, handler.state.ok()?)));
        let features = |abilities: &engine::Abilities| cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts: abilities.recursive_read_only_mounts,
            user_namespaces: abilities.user_namespaces && user_namespaces,
        };
        usable.map(|(name, abilities)| cri::RuntimeHandler { name, features: Some(features(&abilities)) }).collect()
    }

    async fn conditions(&self) -> Vec<cri::RuntimeCondition> {
        let condition = |kind: &str, problem: Option<(&str, String)>| {
            let (reason, message) = problem.clone().unwrap_or_default();
            cri::RuntimeCondition { r#type: kind.into(), status: problem.is_none(), reason: reason.into(), message }
        };
        let network = match self.engine.network_status().await {
            net::Status::Ready => None,
            net::Status::NotReady { reason, message } => Some((reason, message)),
        };
        vec![condition("RuntimeReady", None), condition("NetworkReady", network)]
    }
}

/// The runtime's own part of a verbose answer.
fn info(key: &str, value: &serde_json::Value) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_string())])
}

/// What OCI runtimes say about themselves, by handler.
fn handlers_json(handlers: Vec<engine::Handler>) -> serde_json::Value {
    let configured = handlers.into_iter().filter_map(|handler| Some((handler.name, handler.runtime?, handler.state.ok()?)));
    let about = |(name, runtime, abilities): (String, std::path::PathBuf, engine::Abilities)| {
        let about = serde_json::json!({ "runtime": runtime, "version": abilities.version, "features": abilities.features });
        (name, about)
    };
    configured.map(about).collect()
}

/// Seconds to wait. Negative ones are refused.
fn seconds(field: &str, seconds: i64) -> Result<Duration, Status> {
    let seconds = u64::try_from(seconds).map_err(|_| status::bad_field(field, &format!("{seconds}: negative")))?;
    Ok(Duration::from_secs(seconds).min(LONGEST))
}

fn check_command(words: &[String]) -> Result<(), Status> {
    if words.is_empty() {
        return Err(status::bad_field("cmd", "missing"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(status::bad_field("cmd", "contains a NUL"));
    }
    Ok(())
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, request: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        let asked = request.into_inner().version;
        tracing::debug!(asked, "version");
        Ok(Response::new(cri::VersionResponse {
            version: CONTRACT.into(),
            runtime_name: "creel".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let verbose = request.into_inner().verbose;
        let mut about = BTreeMap::new();
        if verbose {
            let handlers = self.engine.handlers().await;
            about = info("config", &super::creel::config_json(&self.engine, &handlers));
            about.extend(info("handlers", &handlers_json(handlers)));
            about.extend(info("checkpoint", &checkpoint::info(&self.engine).await));
            about.extend(info("nri", &serde_json::json!({ "plugins": self.engine.nri_plugins() })));
        }
        let user_namespaces = self.engine.user_namespaces().await.is_ok();
        Ok(Response::new(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions: self.conditions().await }),
            info: about,
            runtime_handlers: self.handlers(user_namespaces).await,
            features: Some(cri::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: user_namespaces,
                mount_options: true,
            }),
        }))
    }

    async fn runtime_config(&self, _: Request<cri::RuntimeConfigRequest>) -> Answer<cri::RuntimeConfigResponse> {
        let cgroup_driver = match self.engine.info().cgroup_driver {
            engine::CgroupDriver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
            engine::CgroupDriver::Systemd => cri::CgroupDriver::Systemd,
        };
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: cgroup_driver.into() };
        Ok(Response::new(cri::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        self.engine.set_pod_cidr(&network.pod_cidr).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<cri::RunPodSandboxRequest>) -> Answer<cri::RunPodSandboxResponse> {
        let request = request.into_inner();
        let spec = convert::pod::spec(request.config, request.runtime_handler).map_err(|e| status::of_request(&e))?;
        let id = self.engine.run_pod(spec).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id: id.to_string() }))
    }

    async fn stop_pod_sandbox(&self, request: Request<cri::StopPodSandboxRequest>) -> Answer<cri::StopPodSandboxResponse> {
        let stopped = match ids::pod(&self.engine, &request.into_inner().pod_sandbox_id) {
            Ok(pod) => self.engine.stop_pod(pod.id).await.map_err(|e| status::of_engine(&e)),
            Err(status) => Err(status),
        };
        status::idempotent(stopped)?;
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<cri::RemovePodSandboxRequest>) -> Answer<cri::RemovePodSandboxResponse> {
        let removed = match ids::pod(&self.engine, &request.into_inner().pod_sandbox_id) {
            Ok(pod) => self.engine.remove_pod(pod.id).await.map_err(|e| status::of_engine(&e)),
            Err(status) => Err(status),
        };
        status::idempotent(removed)?;
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<cri::PodSandboxStatusRequest>) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        // Taken before anything is looked at: what happens meanwhile is newer than this answer claims to be.
        let timestamp = events::now();
        let pod = ids::pod(&self.engine, &request.pod_sandbox_id)?;
        Ok(Response::new(cri::PodSandboxStatusResponse {
            status: Some(view::pod_status(&pod)),
            info: if request.verbose { info("info", &inspect::pod(&pod)) } else { BTreeMap::new() },
            containers_statuses: events::statuses(&self.engine, pod.id),
            timestamp,
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<cri::ListPodSandboxRequest>) -> Answer<cri::ListPodSandboxResponse> {
        Ok(Response::new(cri::ListPodSandboxResponse { items: self.pods(request.into_inner().filter) }))
    }

    type StreamPodSandboxesStream = Streaming<cri::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let pods = self.pods(request.into_inner().filter);
        Ok(chunks(pods, |pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(&self, request: Request<cri::CreateContainerRequest>) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let pod = ids::pod(&self.engine, &request.pod_sandbox_id)?;
        let spec = convert::container::spec(request.config, &pod.spec).map_err(|e| status::of_request(&e))?;
        let id = self.engine.create_container(pod.id, spec).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::CreateContainerResponse { container_id: id.to_string() }))
    }

    async fn start_container(&self, request: Request<cri::StartContainerRequest>) -> Answer<cri::StartContainerResponse> {
        let container = ids::container(&self.engine, &request.into_inner().container_id)?;
        self.engine.start_container(container.id).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<cri::StopContainerRequest>) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        let grace = seconds("timeout", request.timeout)?;
        let stopped = match ids::container(&self.engine, &request.container_id) {
            Ok(container) => self.engine.stop_container(container.id, grace).await.map_err(|e| status::of_engine(&e)),
            Err(status) => Err(status),
        };
        status::idempotent(stopped)?;
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<cri::RemoveContainerRequest>) -> Answer<cri::RemoveContainerResponse> {
        let removed = match ids::container(&self.engine, &request.into_inner().container_id) {
            Ok(container) => self.engine.remove_container(container.id).await.map_err(|e| status::of_engine(&e)),
            Err(status) => Err(status),
        };
        status::idempotent(removed)?;
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<cri::ListContainersRequest>) -> Answer<cri::ListContainersResponse> {
        Ok(Response::new(cri::ListContainersResponse { containers: self.containers(request.into_inner().filter) }))
    }

    type StreamContainersStream = Streaming<cri::StreamContainersResponse>;

    async fn stream_containers(&self, request: Request<cri::StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        let containers = self.containers(request.into_inner().filter);
        Ok(chunks(containers, |containers| cri::StreamContainersResponse { containers }))
    }

    async fn container_status(&self, request: Request<cri::ContainerStatusRequest>) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = ids::container(&self.engine, &request.container_id)?;
        let info = match request.verbose {
            true => info("info", &inspect::container(&container, self.engine.main_pid(&container).await)),
            false => BTreeMap::new(),
        };
        Ok(Response::new(cri::ContainerStatusResponse { status: Some(view::container_status(&container)), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let container = ids::container(&self.engine, &request.container_id)?;
        let newer = resources::from_proto("linux", request.linux).map_err(|e| status::of_request(&e))?;
        self.engine.update_resources(container.id, newer).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let container = ids::container(&self.engine, &request.into_inner().container_id)?;
        self.engine.reopen_log(container.id).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        check_command(&request.cmd)?;
        let timeout = Some(seconds("timeout", request.timeout)?).filter(|timeout| !timeout.is_zero());
        let container = ids::container(&self.engine, &request.container_id)?;
        let output = self.engine.exec_sync(container.id, request.cmd, timeout).await.map_err(|e| status::of_engine(&e))?;
        let engine::ExecOutput { stdout, stderr, exit_code } = output;
        Ok(Response::new(cri::ExecSyncResponse { stdout, stderr, exit_code }))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let request = request.into_inner();
        check_command(&request.cmd)?;
        let container = self.running(&request.container_id)?;
        let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
        let exec = ExecRequest { container, command: request.cmd, wanted };
        let url = self.streaming.exec(exec).map_err(|e| status::of_streaming(&e))?;
        Ok(Response::new(cri::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let request = request.into_inner();
        let container = self.running(&request.container_id)?;
        let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
        let url = self.streaming.attach(AttachRequest { container, wanted }).map_err(|e| status::of_streaming(&e))?;
        Ok(Response::new(cri::AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<cri::PortForwardRequest>) -> Answer<cri::PortForwardResponse> {
        let request = request.into_inner();
        let pod = ids::pod(&self.engine, &request.pod_sandbox_id)?;
        if !matches!(pod.state(), PodState::Ready { .. }) {
            return Err(status::not_now("the pod is not ready"));
        }
        let port = |port: &i32| u16::try_from(*port).ok().filter(|port| *port > 0);
        let ports = request.port.iter().map(|number| port(number).ok_or(number)).collect::<Result<_, _>>();
        let ports = ports.map_err(|number| status::bad_field("port", &format!("{number}: not from 1 to 65535")))?;
        let url = self.streaming.port_forward(PortForwardRequest { pod: pod.id, ports }).map_err(|e| status::of_streaming(&e))?;
        Ok(Response::new(cri::PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<cri::ContainerStatsRequest>) -> Answer<cri::ContainerStatsResponse> {
        let container = ids::container(&self.engine, &request.into_inner().container_id)?;
        Ok(Response::new(cri::ContainerStatsResponse { stats: stats::container_of(&self.engine, container).await }))
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let stats = stats::containers(&self.engine, request.into_inner().filter).await;
        Ok(Response::new(cri::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Streaming<cri::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let stats = stats::containers(&self.engine, request.into_inner().filter).await;
        Ok(chunks(stats, |container_stats| cri::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(&self, request: Request<cri::PodSandboxStatsRequest>) -> Answer<cri::PodSandboxStatsResponse> {
        let pod = ids::pod(&self.engine, &request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(cri::PodSandboxStatsResponse { stats: stats::pod_of(&self.engine, pod).await }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let stats = stats::pods(&self.engine, request.into_inner().filter).await;
        Ok(Response::new(cri::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Streaming<cri::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let stats = stats::pods(&self.engine, request.into_inner().filter).await;
        Ok(chunks(stats, |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    type GetContainerEventsStream = Streaming<cri::ContainerEventResponse>;

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        Ok(Response::new(events::stream(self.engine.clone(), self.ending.clone())))
    }

    async fn checkpoint_container(
        &self,
        request: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        let deadline = checkpoint::deadline(&request);
        let request = request.into_inner();
        let asked = Some(seconds("timeout", request.timeout)?).filter(|timeout| !timeout.is_zero());
        let location = checkpoint::path("location", request.location)?;
        let container = ids::container(&self.engine, &request.container_id)?;
        let made = self.engine.checkpoint_container(container.id, location, checkpoint::shorter(asked, deadline)).await;
        made.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::CheckpointContainerResponse {}))
    }

    async fn checkpoint_pod(&self, request: Request<cri::CheckpointPodRequest>) -> Answer<cri::CheckpointPodResponse> {
        let deadline = checkpoint::deadline(&request);
        let request = request.into_inner();
        checkpoint::no_options(&request.options)?;
        let output = checkpoint::path("output_path", request.output_path)?;
        let pod = ids::pod(&self.engine, &request.pod_sandbox_id)?;
        let containers = checkpoint::containers(&self.engine, &request.container_ids)?;
        self.engine.checkpoint_pod(pod.id, output, containers, deadline).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::CheckpointPodResponse {}))
    }

    async fn restore_pod(&self, request: Request<cri::RestorePodRequest>) -> Answer<cri::RestorePodResponse> {
        let deadline = checkpoint::deadline(&request);
        let (pod, containers, from) = checkpoint::restore(request.into_inner())?;
        let restored = self.engine.restore_pod(pod, containers, from, deadline).await.map_err(|e| status::of_engine(&e))?;
        let containers = restored.1.into_iter();
        let containers = containers.map(|it| cri::RestoredContainer { name: it.name, container_id: it.id.to_string() });
        Ok(Response::new(cri::RestorePodResponse {
            pod_sandbox_id: restored.0.to_string(),
            restored_containers: containers.collect(),
        }))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        Ok(Response::new(cri::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        Ok(Response::new(cri::ListPodSandboxMetricsResponse { pod_metrics: metrics::all(&self.engine).await }))
    }

    type StreamPodSandboxMetricsStream = Streaming<cri::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let metrics = metrics::all(&self.engine).await;
        Ok(chunks(metrics, |pod_sandbox_metrics| cri::StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let pod = ids::pod(&self.engine, &request.pod_sandbox_id)?;
        let newer = engine::PodSize {
            resources: resources::from_proto("resources", request.resources).map_err(|e| status::of_request(&e))?,
            overhead: resources::from_proto("overhead", request.overhead).map_err(|e| status::of_request(&e))?,
        };
        self.engine.update_pod(pod.id, newer).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(cri::UpdatePodSandboxResourcesResponse {}))
    }
}
