//! The engine's face: what the front door calls.

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use model::{
    ContainerId, ErrorKind, PodId, Resources,
    container::ContainerSpec,
    pod::{PodKey, PodSpec},
};
use sys::cgroup::{Group, Hierarchies, Version};
use tokio::sync::broadcast;

use crate::{
    blocking::blocking,
    config::Config,
    container::{
        Container,
        exec::ExecOutput,
        stream::{Ended, ExecCommand, ProcessStreams, StreamOptions},
    },
    driver::{CgroupDriver, Placement},
    error::{About, Error, Step},
    events::{Event, Events},
    flight::Flights,
    handlers::{Handler, Handlers},
    image::Images,
    nri::Nri,
    pod::{Pod, update::PodSize},
    stats::{ContainerUsage, Disk, PodMetrics, PodUsage, quota_support},
    table::Table,
};

/// How often the network is looked after (security.md F-33).
const HEAL_EVERY: Duration = Duration::from_secs(5);
/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// A container engine. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all parts of the engine share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub config: Arc<Config>,
    pub store: Arc<store::Store>,
    pub images: Images,
    pub network: net::Network,
    pub cgroups: Hierarchies,
    pub placement: Placement,
    pub modules: crate::security::Modules,
    pub table: Table,
    pub events: Events,
    /// Containers of people.
    pub users: crate::user::Users,
    pub ranges: crate::user::Ranges,
    /// What happens to things of people.
    pub bus: Arc<crate::user::events::Bus>,
    pub nri: Nri,
    pub starting: Flights<PodKey, PodId, Error>,
    /// The supervisor's program, sealed in memory: no container can write to it (R01).
    pub shim_exe: Arc<OwnedFd>,
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    /// What the file system of the writable layers does with project quotas.
    pub quota: sys::quota::Support,
    pub handlers: Handlers,
    pub userns: crate::userns::Support,
    pub volumes: crate::volumes::Volumes,
    pub networks: crate::networks::Networks,
    pub builds: crate::build::cache::Cache,
    pub caches: Arc<crate::build::caches::Caches>,
    pub contexts: crate::build::contexts::Contexts,
    pub history: crate::build::history::History,
    /// What URLs of ADD stood for.
    pub seen: crate::build::fetch::Seen,
}

/// What a person wants to know of an engine.
#[derive(Clone, Debug)]
pub struct Info {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// `v1` or `v2`.
    pub cgroup_version: &'static str,
    /// Who owns the cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Parent cgroup of pods whose client names none.
    pub cgroup_parent: String,
    /// AppArmor and SELinux.
    pub security: crate::SecurityInfo,
    /// `erofs` or `directory`.
    pub layer_format: &'static str,
    /// Whether the file system counts what writable layers take.
    pub project_quotas: bool,
    /// Pods that are ready, and all.
    pub pods: (usize, usize),
    /// Containers that run, and all.
    pub containers: (usize, usize),
    /// Images.
    pub images: usize,
}

impl Engine {
    /// Opens the store, finds what runs, undoes what is half made. When it returns, everything is listed right.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let config = Arc::new(config);
        let inner = Arc::new(Inner::open(config).await?);
        inner.recover().await?;
        inner.recover_checkpoints().await;
        inner.start_nri().await?;
        inner.keep_network_whole();
        Ok(Self { inner })
    }

    /// Runtime handlers, and what can be done with each now.
    pub async fn handlers(&self) -> Vec<Handler> {
        self.inner.handlers.list().await
    }

    /// Tells plugins that the daemon goes. Pods and containers run on.
    pub async fn shutdown(&self) {
        self.inner.nri.shutdown().await;
    }

    /// The NRI plugins that are connected, in the order in which they are asked.
    pub fn nri_plugins(&self) -> Vec<String> {
        self.inner.nri.names()
    }

    /// Whether pods can have user namespaces on this node.
    ///
    /// # Errors
    /// Why not.
    pub async fn user_namespaces(&self) -> Result<(), Error> {
        self.inner.user_namespaces().await
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// RunPodSandbox. Repeating it joins the attempt in flight or returns the pod that it made.
    pub async fn run_pod(&self, spec: PodSpec) -> Result<PodId, Error> {
        self.inner.run_pod(spec).await
    }

    /// StopPodSandbox. `NotFound` for an unknown pod.
    pub async fn stop_pod(&self, id: PodId) -> Result<(), Error> {
        self.inner.stop_pod(id).await
    }

    /// RemovePodSandbox. `NotFound` for an unknown pod.
    pub async fn remove_pod(&self, id: PodId) -> Result<(), Error> {
        self.inner.remove_pod(id).await
    }

    /// A pod of CRI's.
    pub fn pod(&self, id: PodId) -> Result<Arc<Pod>, Error> {
        self.inner.table.pod(id).and_then(|pod| if pod.is_users() { Err(Error::no_pod(id)) } else { Ok(pod) })
    }

    /// All pods of CRI's, oldest first. Those of people's containers are never shown: a kubelet ends pods that it does not
    /// know.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.inner.table.pods().into_iter().filter(|pod| !pod.is_users()).collect()
    }

    /// CreateContainer. Repeating it joins the attempt in flight or returns the container that it made.
    pub async fn create_container(&self, pod: PodId, spec: ContainerSpec) -> Result<ContainerId, Error> {
        self.inner.create_container(pod, spec).await
    }

    /// StartContainer.
    pub async fn start_container(&self, id: ContainerId) -> Result<(), Error> {
        self.inner.start_container(id).await
    }

    /// StopContainer: the stop signal, up to `grace`, then SIGKILL. Returns once it is dead.
    pub async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<(), Error> {
        self.inner.stop_container(id, grace).await
    }

    /// RemoveContainer; kills it first if it runs.
    pub async fn remove_container(&self, id: ContainerId) -> Result<(), Error> {
        self.inner.remove_container(id).await
    }

    /// A container of CRI's.
    pub fn container(&self, id: ContainerId) -> Result<Arc<Container>, Error> {
        let found = self.inner.table.container(id);
        found.and_then(|container| if container.pod.is_users() { Err(Error::no_container(id)) } else { Ok(container) })
    }

    /// All containers of CRI's, oldest first. Those of people are in [`Engine::users`].
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.inner.table.containers().into_iter().filter(|container| !container.pod.is_users()).collect()
    }

    /// The containers of one pod, oldest first.
    pub fn containers_of(&self, pod: PodId) -> Vec<Arc<Container>> {
        self.inner.table.containers_of(pod)
    }

    /// ExecSync. `timeout`: `None` waits as long as the caller does.
    pub async fn exec_sync(&self, id: ContainerId, command: Vec<String>, timeout: Option<Duration>) -> Result<ExecOutput, Error> {
        self.inner.exec_sync(id, command, timeout).await
    }

    /// A command with streams, and its end. When that is dropped, what is left of the command is killed.
    pub async fn exec(
        &self,
        id: ContainerId,
        command: impl Into<ExecCommand>,
        options: StreamOptions,
    ) -> Result<(ProcessStreams, Ended), Error> {
        self.inner.exec(id, command.into(), options).await
    }

    /// The streams of a container's main process, from now on.
    pub async fn attach(&self, id: ContainerId, options: StreamOptions) -> Result<ProcessStreams, Error> {
        self.inner.attach(id, options).await
    }

    /// A connection to a port of loopback in a pod's network.
    pub async fn dial(&self, id: PodId, port: u16) -> Result<tokio::net::TcpStream, Error> {
        self.inner.dial(id, port).await
    }

    /// UpdateContainerResources: what `newer` says is laid over the limits in force.
    pub async fn update_resources(&self, id: ContainerId, newer: Resources) -> Result<(), Error> {
        self.inner.update_resources(id, newer).await
    }

    /// Process id of a container's main process, while it is there and its supervisor answers.
    pub async fn main_pid(&self, container: &Container) -> Option<u32> {
        container.main_pid().await
    }

    /// UpdatePodSandboxResources: what `newer` says is laid over what the pod may use.
    pub async fn update_pod(&self, id: PodId, newer: PodSize) -> Result<(), Error> {
        self.inner.update_pod(id, newer).await
    }

    /// ReopenContainerLog: the file at the log path exists again when this returns.
    pub async fn reopen_log(&self, id: ContainerId) -> Result<(), Error> {
        self.inner.reopen_log(id).await
    }

    /// What these containers use, in their order.
    pub async fn containers_usage(&self, containers: Vec<Arc<Container>>) -> Vec<(Arc<Container>, ContainerUsage)> {
        self.inner.containers_usage(containers).await
    }

    /// What these pods use, in their order.
    pub async fn pods_usage(&self, pods: Vec<Arc<Pod>>) -> Vec<(Arc<Pod>, PodUsage)> {
        self.inner.pods_usage(pods).await
    }

    /// What these pods use, in detail. Those that are not ready are left out.
    pub async fn metrics(&self, pods: Vec<Arc<Pod>>) -> Vec<PodMetrics> {
        self.inner.metrics(pods).await
    }

    /// The file system of the writable layers.
    pub fn disk(&self) -> Option<Disk> {
        self.inner.disk()
    }

    /// What all containers have written together: bytes and inodes.
    pub async fn writable_total(&self) -> (u64, u64) {
        self.inner.writable_total().await
    }

    /// Everything that happens from now on; a reader that lags too far behind gets `Lagged`.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Images.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// Volumes. What is asked of them blocks.
    pub fn volumes(&self) -> &crate::volumes::Volumes {
        &self.inner.volumes
    }

    /// Whether pods can get a network, and if not, why.
    pub async fn network_status(&self) -> net::Status {
        let inner = self.inner.clone();
        blocking(move || inner.network.status()).await
    }

    /// UpdateRuntimeConfig: the node's pod address ranges.
    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<(), Error> {
        let (inner, cidr) = (self.inner.clone(), cidr.to_owned());
        let set = blocking(move || {
            inner.network.set_pod_cidr(&cidr).step(About::Engine, "set the pod CIDR")?;
            // Empty means unchanged, so it must not take the place of what was said before.
            if cidr.trim().is_empty() {
                return Ok(());
            }
            std::fs::write(inner.pod_cidr_file(), cidr).step(About::Engine, "write the pod CIDR down")
        });
        set.await
    }

    /// For people.
    pub fn info(&self) -> Info {
        use model::{container::ContainerState, pod::PodState};
        let (pods, containers, users) = (self.pods(), self.containers(), self.users());
        Info {
            config: self.inner.config.clone(),
            cgroup_version: match self.inner.cgroups.version() {
                Version::V1 => "v1",
                Version::V2 => "v2",
            },
            cgroup_driver: self.inner.placement.driver,
            cgroup_parent: self.inner.placement.parent.clone(),
            security: self.inner.modules.info(),
            layer_format: self.inner.images.layer_format(),
            project_quotas: self.inner.quota != sys::quota::Support::None,
            pods: (pods.iter().filter(|p| matches!(p.state(), PodState::Ready { .. })).count(), pods.len()),
            containers: (
                containers.iter().filter(|c| matches!(c.state(), ContainerState::Running { .. })).count()
                    + users.iter().filter(|user| user.is_running()).count(),
                containers.len() + users.len(),
            ),
            images: self.inner.images.list().len(),
        }
    }
}

impl Inner {
    async fn open(config: Arc<Config>) -> Result<Self, Error> {
        let opened = config.clone();
        blocking(move || {
            let run_dirs = crate::make_private_dir(&opened.run.join("pods"));
            run_dirs.step(About::Engine, "make the run directory")?;
            let store = Arc::new(store::Store::open(&opened.root).step(About::Engine, "open the store")?);
            let bus = Arc::new(crate::user::events::Bus::default());
            let handlers = Handlers::new(opened.handlers.clone());
            let quota = quota_support(&store.containers_path(), opened.writable_layer_limit)?;
            let cgroups = Hierarchies::detect().step(About::Engine, "find the cgroup hierarchies")?;
            let placement = Placement::settle(opened.cgroup_driver, &opened.cgroup_parent, &cgroups)?;
            let network = net::Network::open(&opened.network).step(About::Engine, "open the network")?;
            let shim_exe = sys::memfd::sealed_memfd_of(&opened.shim);
            let shim_exe = shim_exe.map_err(|e| {
                let why = format!("supervisor program {}: {e}", opened.shim.display());
                Error::new(ErrorKind::NotFound, About::Engine, why)
            })?;
            let boot = boot_id().step(About::Engine, "read the boot id")?;
            if let Ok(cidr) = std::fs::read_to_string(opened.run.join("pod-cidr")) {
                network.set_pod_cidr(&cidr).step(About::Engine, "set the pod CIDR of an earlier run")?;
            }
            Ok(Self {
                images: Images::open(&opened, store.clone())?,
                networks: crate::networks::Networks::open(store.clone(), &network).step(About::Engine, "open the networks")?,
                volumes: crate::volumes::Volumes::open(store.clone(), bus.clone()).step(About::Engine, "open the volumes")?,
                builds: crate::build::cache::Cache::new(store.clone()),
                caches: Arc::new(crate::build::caches::Caches::new(store.clone())),
                contexts: crate::build::contexts::Contexts::new(store.clone()),
                history: crate::build::history::History::new(store.clone()),
                seen: Default::default(),
                config: opened,
                store,
                network,
                cgroups,
                placement,
                modules: crate::security::Modules::detect(),
                table: Table::default(),
                events: Events::default(),
                users: Default::default(),
                ranges: Default::default(),
                bus: bus.clone(),
                nri: Nri::default(),
                starting: Flights::default(),
                userns: Default::default(),
                shim_exe: Arc::new(shim_exe),
                boot,
                quota,
                handlers,
            })
        })
        .await
    }
}

impl Inner {
    /// A kubelet says the node's pod CIDRs once and not again to a daemon that was restarted.
    fn pod_cidr_file(&self) -> std::path::PathBuf {
        self.config.run.join("pod-cidr")
    }

    /// Puts back what others removed of the network (a flushed firewall, a deleted bridge), for as long as the engine
    /// lives.
    fn keep_network_whole(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(HEAL_EVERY).await;
                let Some(inner) = engine.upgrade() else { break };
                match blocking(move || {
                    inner.networks.heal();
                    inner.network.heal()
                })
                .await
                {
                    Ok(true) => tracing::warn!("the network was damaged from outside; repaired"),
                    Ok(false) => {}
                    Err(e) => tracing::warn!(error = chain(&e), "network cannot be repaired"),
                }
            }
        });
    }

    /// A cgroup by its path.
    pub(crate) fn group(&self, path: &str) -> Result<Group, sys::Error> {
        Group::new(&self.cgroups, path)
    }

    /// Kills everything in a cgroup and waits until it is empty; one that is not there is empty.
    pub(crate) fn kill_group(&self, path: &str) -> Result<(), sys::Error> {
        self.group(path)?.kill_all(KILL_DEADLINE)
    }
}

fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned())
}

/// 32 random bytes for an id.
pub(crate) fn random_id() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("getrandom(2) cannot fail once the kernel's pool is ready");
    bytes
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
