//! A container that runs once and leaves nothing but what it has written: a step of a build. It is nobody's and has no record of
//! its own; what a daemon that died leaves of it is taken away at the next start, as of any pod without its container.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use model::{
    ContainerId, DiffId, ErrorKind, Resources,
    container::{
        ContainerKey, ContainerSpec, ContainerState, EnvVar, ImageDefaults, ResolvedUser, SeccompSpec, SecuritySpec, UserSpec,
    },
    plan::Rlimit,
    pod::{PidMode, PodNamespaces, PodSpec},
    user::{OwnContainer, OwnPod, RestartPolicy, UserContainerSpec, UserNetwork},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
};

use super::{UserContainer, create, networks, record::UserRecord, run};
use crate::{
    Inner,
    blocking::blocking,
    container::{
        given::Given,
        stream::{ProcessStreams, StreamOptions},
    },
    error::{About, Error, Step},
    image::{ImageInfo, Packed},
    spec,
};

/// Bytes of /dev/shm, as docker has it.
const SHM_SIZE: u64 = 64 << 20;
/// How long the last of its output may take.
const DRAIN: Duration = Duration::from_secs(60);
/// Bytes of output in one piece.
const PIECE: usize = 32 << 10;

/// What to run.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// What it runs on, pinned by the caller.
    pub(crate) layers: Vec<DiffId>,
    pub(crate) command: Vec<String>,
    /// Absolute.
    pub(crate) working_dir: String,
    pub(crate) env: Vec<(String, String)>,
    /// NAME|UID[:GROUP|GID]; empty: root.
    pub(crate) user: String,
    /// `default`, `none` or `host`.
    pub(crate) network: String,
    /// Nothing that it has written is younger: seconds since 1970.
    pub(crate) latest: i64,
    /// More lines of hosts(5).
    pub(crate) hosts: Vec<(String, String)>,
    /// Bytes of /dev/shm; `None`: docker's.
    pub(crate) shm_size: Option<u64>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) resources: Resources,
    /// What it has mounted and knows; kept until nothing of it is left.
    pub(crate) given: Arc<Given>,
}

/// What has come of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    /// Why it could not be run, or what ended it; may be empty.
    pub(crate) message: String,
    /// What it has written; only of one that ended with 0.
    pub(crate) layer: Option<Packed>,
}

impl Inner {
    /// Runs it to its end; what it says goes to `output`. If nobody waits any more, it is ended.
    ///
    /// # Errors
    /// It cannot be made; the disk's. Nothing is left then.
    pub(crate) async fn run_once(self: &Arc<Self>, once: Once, output: mpsc::Sender<Vec<u8>>) -> Result<Ran, Error> {
        let (inner, gone) = (self.clone(), output.clone());
        // A whole pod's life, behind a pointer: it would be on the stack of everybody who waits for it.
        let life = Box::pin(async move {
            let user = UserContainer::new(record_of(&once), inner.store.pin(&once.layers));
            let ran = tokio::select! {
                ran = Box::pin(inner.run_to_end(&user, output, &once)) => ran,
                () = gone.closed() => Err(Error::new(ErrorKind::Cancelled, About::Words, "canceled")),
            };
            let ended = inner.end_runs(&user).await;
            drop(once);
            ran.and_then(|ran| ended.map(|()| ran))
        });
        self.detached(About::Words, life).await
    }

    async fn run_to_end(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        output: mpsc::Sender<Vec<u8>>,
        once: &Once,
    ) -> Result<Ran, Error> {
        let id = user.id;
        let record = user.now.borrow().record.clone();
        let mut pod = record.spec.pod.clone();
        pod.key = run::key(&record.name, id);
        networks::resolve(self, &record, &mut pod).await?;
        let given = once.given.mounts.iter().map(|given| given.target.clone()).collect();
        let mounted = self.places(once.layers.clone(), given).await?;
        let pod = self.run_pod(pod).await?;
        self.create_run(pod, record.spec.container, (user.clone(), once.given.clone())).await?;
        let container = self.table.container(id)?;
        let streams = self.attach_to(&container, StreamOptions::default()).await?;
        let told = tokio::spawn(tell(streams, output));
        let started = self.start_container(id).await;
        let mut state = container.subscribe();
        if let Err(error) = started
            && !matches!(container.state(), ContainerState::Exited { .. })
        {
            return Err(error);
        }
        // The sender is in the container, which is held here.
        state.wait_for(|state| matches!(state, ContainerState::Exited { .. })).await.ok();
        // With its first process all others of its PID namespace have ended, and their ends of the pipes with them.
        tokio::time::timeout(DRAIN, told).await.ok();
        let ContainerState::Exited { started_at, exit, message, .. } = container.state() else {
            return Err(Error::new(ErrorKind::Internal, id.into(), "it is neither running nor over"));
        };
        let message = if started_at.is_none() || exit.oom_killed { message } else { String::new() };
        let layer = if exit.code == 0 { self.written(id, once.latest, mounted).await? } else { None };
        Ok(Ran { code: exit.code, message, layer })
    }

    /// What is in a container's writable layer, without `mounted`, where there is nothing but a place to mount on. What is younger
    /// than `latest` (seconds since 1970) gets that time.
    pub(crate) async fn written(
        self: &Arc<Self>,
        id: ContainerId,
        latest: i64,
        mounted: BTreeSet<Vec<u8>>,
    ) -> Result<Option<Packed>, Error> {
        let inner = self.clone();
        let packed = blocking(move || {
            let dir = inner.store.container_dir(id).step(id, "find what was written")?;
            let upper = File::open(dir.upper).map(OwnedFd::from).step(id, "open what was written")?;
            inner.images.layer_of(upper, &mounted, Some(latest)).step(id, "keep what was written")
        });
        packed.await
    }
}

/// Who `NAME|UID[:GROUP|GID]` is in a root file system.
///
/// # Errors
/// What cannot be or is not there.
pub(crate) fn owner_of(text: &str, root: BorrowedFd<'_>) -> Result<ResolvedUser, spec::Error> {
    let nobody = Once { user: text.to_owned(), ..Once::default() };
    spec::user::resolve(&container(ContainerId::from_bytes([0; 32]), &nobody), "", root)
}

/// Passes on what a process says, in the order in which it comes.
async fn tell(streams: ProcessStreams, output: mpsc::Sender<Vec<u8>>) {
    async fn one(from: Option<impl AsyncRead + Unpin>, to: &mpsc::Sender<Vec<u8>>) {
        let Some(mut from) = from else { return };
        let mut buffer = vec![0; PIECE];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if to.send(buffer[..read].to_vec()).await.is_err() {
                return;
            }
        }
    }
    tokio::join!(one(streams.stdout, &output), one(streams.stderr, &output));
}

fn record_of(once: &Once) -> UserRecord {
    let id = ContainerId::from_bytes(crate::random_id());
    let image = ImageInfo::loose(once.layers.clone(), ImageDefaults::default());
    let network = UserNetwork {
        name: if once.network == "default" { String::new() } else { once.network.clone() },
        ..UserNetwork::default()
    };
    let spec = UserContainerSpec {
        container: container(id, once),
        pod: pod(once),
        mounts: Vec::new(),
        volumes: Vec::new(),
        volumes_from: Vec::new(),
        network,
        restart: RestartPolicy::No,
        auto_remove: false,
        stop_timeout: None,
        request: Vec::new().into(),
        healthcheck: None,
        more_networks: Vec::new(),
        shares: Default::default(),
        platform: String::new(),
        own_userns: false,
    };
    create::record(id, &format!("build-{}", id.short()), &image, spec)
}

fn container(id: ContainerId, once: &Once) -> ContainerSpec {
    let env = |(name, value): &(String, String)| EnvVar { name: name.clone(), value: value.clone().into_bytes().into() };
    ContainerSpec {
        key: ContainerKey { name: format!("build-{}", id.short()), attempt: 0 },
        image: String::new(),
        user_specified_image: String::new(),
        command: once.command.clone(),
        args: Vec::new(),
        working_dir: once.working_dir.clone(),
        envs: once.env.iter().map(env).collect(),
        mounts: Vec::new(),
        devices: Vec::new(),
        labels: Default::default(),
        annotations: Default::default(),
        log_path: String::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        stop_signal: None,
        resources: once.resources.clone(),
        security: confined(),
        image_annotations: Default::default(),
        image_volumes: Vec::new(),
        block_io_class: None,
        rdt_class: None,
        cdi_devices: Vec::new(),
        own: Some(OwnContainer {
            user: once.user.clone(),
            no_entrypoint: true,
            rlimits: once.rlimits.clone(),
            ..OwnContainer::default()
        }),
    }
}

/// As any container that nobody says anything of (R58).
pub(crate) fn confined() -> SecuritySpec {
    SecuritySpec {
        user: UserSpec::Image,
        group: None,
        supplemental_groups: Vec::new(),
        supplemental_groups_strict: false,
        add_capabilities: Vec::new(),
        drop_capabilities: Vec::new(),
        ambient_capabilities: Vec::new(),
        privileged: false,
        readonly_rootfs: false,
        no_new_privs: false,
        masked_paths: spec::default_masked_paths(spec::possible_cpus()),
        readonly_paths: spec::default_readonly_paths(),
        seccomp: SeccompSpec::RuntimeDefault,
        pid: PidMode::Container,
        apparmor: None,
        selinux: None,
    }
}

fn pod(once: &Once) -> PodSpec {
    PodSpec {
        hostname: if once.network == "host" { String::new() } else { "build".to_owned() },
        namespaces: PodNamespaces { pid: model::pod::NamespaceMode::Container, ..PodNamespaces::default() },
        user_made: true,
        own: Some(OwnPod {
            shm_size: once.shm_size.or(Some(SHM_SIZE)),
            hosts: once.hosts.clone(),
            fleeting: Some(true),
            ..OwnPod::default()
        }),
        ..PodSpec::default()
    }
}
