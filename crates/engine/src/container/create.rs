//! CreateContainer: the set-up of a container, with the way back beside every step.

use std::{os::fd::OwnedFd, sync::Arc};

use model::{
    ContainerId, ErrorKind, PodId,
    container::{ContainerImage, ContainerSpec, ContainerState},
    plan::{ContainerPlan, Hook, OciPlan},
    pod::{PodRequest, Reason},
};

use sys::cgroup::DeviceRule;

use super::{Container, given::Given};
use crate::{
    Inner,
    blocking::blocking,
    checkpoint::{Restoring, Scratch},
    clock,
    error::{About, Error, Step},
    events::EventKind,
    failpoint, hooks,
    image::ImageInfo,
    nri::{Asked, ContainerFacts, Target},
    pod::Pod,
    record::{ContainerPhase, ContainerRecord},
    shim::Shim,
    spec,
    undo::Undo,
    user::UserContainer,
};

impl Inner {
    /// Creates a container, joins an attempt in flight for the same name, or returns what an earlier attempt made.
    pub(crate) async fn create_container(self: &Arc<Self>, pod: PodId, spec: ContainerSpec) -> Result<ContainerId, Error> {
        self.create(pod, spec, Basis::default()).await
    }

    /// The same for a run of a container of people: with its id, its image, the writable layer that it has, and what it is given.
    pub(crate) async fn create_run(
        self: &Arc<Self>,
        pod: PodId,
        spec: ContainerSpec,
        (user, given): (Arc<UserContainer>, Arc<Given>),
    ) -> Result<ContainerId, Error> {
        self.create(pod, spec, Basis { user: Some(user), given, ..Basis::default() }).await
    }

    /// The same with processes and files out of a checkpoint.
    pub(crate) async fn create_restored(
        self: &Arc<Self>,
        pod: PodId,
        spec: ContainerSpec,
        from: Arc<Restoring>,
    ) -> Result<ContainerId, Error> {
        self.create(pod, spec, Basis { restoring: Some(from), ..Basis::default() }).await
    }

    async fn create(self: &Arc<Self>, pod: PodId, spec: ContainerSpec, from: Basis) -> Result<ContainerId, Error> {
        let pod = self.table.pod(pod)?;
        pod.admit(PodRequest::CreateContainer)?;
        let (inner, key, joined) = (self.clone(), spec.key.clone(), pod.clone());
        let outcome = joined.creating.join(key, move || async move {
            let _shared = pod.gate.read().await;
            pod.admit(PodRequest::CreateContainer)?;
            match inner.table.container_by_key(pod.id, &spec.key) {
                Some(container) => already(&container, &spec),
                None => Creation::begin(&inner, &pod, spec, from).await?.run().await,
            }
        });
        outcome.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, About::Engine, "create container: the attempt crashed; see the log"))
        })
    }
}

/// What a repeated request gets.
fn already(container: &Container, spec: &ContainerSpec) -> Result<ContainerId, Error> {
    if container.state() == ContainerState::Created && container.spec == *spec {
        return Ok(container.id);
    }
    let why = "a container with this name and attempt exists in the pod: remove it or raise the attempt";
    Err(Error::new(ErrorKind::AlreadyExists, About::Container(container.id), why))
}

/// What it begins with besides its image.
#[derive(Clone, Debug, Default)]
struct Basis {
    /// Processes and files out of a checkpoint.
    restoring: Option<Arc<Restoring>>,
    /// The container of people that this is a run of.
    user: Option<Arc<UserContainer>>,
    /// What it gets that no record mentions.
    given: Arc<Given>,
}

struct Creation {
    inner: Arc<Inner>,
    pod: Arc<Pod>,
    image: Arc<ImageInfo>,
    pins: store::LayerPins,
    record: ContainerRecord,
    rootfs: OwnedFd,
    /// Mounts of its image volumes, and those that it is given.
    mounts: Vec<OwnedFd>,
    /// Devices that CDI specifications and NRI plugins have added.
    rules: Vec<DeviceRule>,
    /// Class of cache and memory bandwidth.
    rdt_class: Option<String>,
    /// Hooks of its devices, until they are in its plan.
    hooks: Vec<Hook>,
    /// NRI plugins that have been asked about it.
    asked: Asked,
    /// What its processes and files come out of, if it does not begin with a program.
    restoring: Option<Arc<Restoring>>,
    /// What it gets that no record mentions.
    given: Arc<Given>,
    undo: Undo,
}

/// A container that is asked for.
#[derive(Clone, Copy)]
struct Order<'a> {
    id: ContainerId,
    spec: &'a ContainerSpec,
    from: &'a Basis,
}

/// What has to be there before a plan can be written: the plan names users, and those are in the image.
struct Ground {
    image: Arc<ImageInfo>,
    pins: store::LayerPins,
    rootfs: OwnedFd,
    /// Images that the container gets as volumes, and their mounts.
    volumes: Vec<Arc<ImageInfo>>,
    mounts: Vec<OwnedFd>,
}

impl Creation {
    async fn begin(inner: &Arc<Inner>, pod: &Arc<Pod>, spec: ContainerSpec, from: Basis) -> Result<Self, Error> {
        let id = from.user.as_ref().map_or_else(|| ContainerId::from_bytes(crate::random_id()), |user| user.id);
        let mut undo = Undo::default();
        match Self::prepare(inner, pod, Order { id, spec: &spec, from: &from }, &mut undo).await {
            Ok((ground, prepared)) => {
                let record = ContainerRecord {
                    id,
                    pod: pod.id,
                    boot: inner.boot.clone(),
                    created_at: clock::now(),
                    image: ContainerImage {
                        id: ground.image.id,
                        name: ground.image.repo_tags.first().cloned().unwrap_or_default(),
                        digest: ground.image.repo_digests.first().cloned(),
                    },
                    layers: ground.pins.layers().to_vec(),
                    user: prepared.user,
                    stop_signal: prepared.stop_signal,
                    phase: ContainerPhase::Preparing,
                    plan: prepared.plan,
                    warnings: Vec::new(),
                    resources: prepared.resources,
                    volume_images: ground.volumes.iter().map(|image| image.id).collect(),
                    spec,
                };
                let Ground { image, pins, rootfs, mounts, .. } = ground;
                Ok(Self {
                    inner: inner.clone(),
                    pod: pod.clone(),
                    image,
                    pins,
                    record,
                    rootfs,
                    mounts,
                    rules: prepared.rules,
                    rdt_class: prepared.rdt_class,
                    hooks: prepared.hooks,
                    asked: Asked::default(),
                    restoring: from.restoring,
                    given: from.given,
                    undo,
                })
            }
            Err(error) => {
                undo.unwind().await;
                Err(error)
            }
        }
    }

    async fn prepare(
        inner: &Arc<Inner>,
        pod: &Arc<Pod>,
        order: Order<'_>,
        undo: &mut Undo,
    ) -> Result<(Ground, spec::Prepared), Error> {
        let Order { id, spec, from } = order;
        let (modules, asked, within) = (inner.clone(), spec.clone(), pod.clone());
        let confinement = blocking(move || modules.modules.confine(&within.spec, within.selinux_level.as_deref(), &asked));
        let confinement = confinement.await.step(id, "security context")?;
        let mut ground = Self::ground(inner, pod, order, confinement.files.clone(), undo).await?;
        let (restoring, given) = (from.restoring.clone(), from.given.clone());
        failpoint::hit("ctr.plan", id)?;
        let modules = inner.clone();
        let handler = inner.handlers.find(&pod.spec.runtime_handler)?.cloned();
        let (config, pod, spec, writable) = (inner.config.clone(), pod.clone(), spec.clone(), inner.store.container_path(id));
        blocking(move || {
            let request = spec::ContainerRequest {
                id,
                pod: &pod.spec,
                pod_id: pod.id,
                pod_dir: &pod.paths.dir,
                pod_cgroup: &pod.cgroup,
                container: &spec,
                image: &ground.image.defaults,
                rootfs: std::os::fd::AsFd::as_fd(&ground.rootfs),
                // On the disk, beside the writable layer and as large; /run is memory, and small.
                volumes: &writable.join("volumes"),
                pids_limit: config.pids_limit,
            };
            let mut prepared = spec::container_plan(&request).step(id, "container configuration")?;
            if let Some(class) = &spec.block_io_class {
                let block_io = spec::block_io::resolve(&config.block_io, class).step(id, "container configuration")?;
                prepared.resources.block_io = Some(block_io);
            }
            let edits = cdi::resolve(&config.cdi_spec_dirs, &spec.cdi_devices).step(id, "find devices")?;
            prepared.inject(edits, &pod.spec).step(id, "add devices")?;
            // What the client says goes before what a vendor does.
            prepared.rdt_class = spec.rdt_class.clone().or(prepared.rdt_class);
            if let Some(class) = &prepared.rdt_class {
                crate::rdt::check(crate::rdt::ROOT.as_ref(), id, class)?;
            }
            if let Some(restoring) = restoring {
                restoring.fill_mounts(&mut prepared.plan, &mut ground.mounts, &writable, id)?;
            }
            given.mount(&mut prepared.plan, &mut ground.mounts)?;
            prepared.plan.oci = handler.map(|handler| OciPlan {
                handler: pod.spec.runtime_handler.clone(),
                runtime: handler.runtime.to_string_lossy().into_owned(),
                args: handler.args,
                bundle: pod.paths.dir.join("oci").join(id.to_string()).to_string_lossy().into_owned(),
                config: Vec::new().into(),
            });
            confinement.apply(&mut prepared.plan);
            let ours = [pod.paths.dir.as_path(), writable.as_path()];
            modules.modules.relabel(&spec, &prepared.plan, ours).step(id, "security context")?;
            Ok((ground, prepared))
        })
        .await
    }

    /// Image, writable layer and root file system.
    async fn ground(
        inner: &Arc<Inner>,
        pod: &Pod,
        order: Order<'_>,
        label: Option<String>,
        undo: &mut Undo,
    ) -> Result<Ground, Error> {
        let Order { id, spec, from: Basis { restoring, user, .. } } = order;
        let missing = || Error::new(ErrorKind::NotFound, About::Image(spec.image.clone()), "no such image: pull it first");
        let image = match user {
            // Its image may have been removed by force: its layers are there all the same.
            Some(user) => user.image_info(),
            None => inner.images.status(&spec.image).ok_or_else(missing)?,
        };
        let volumes = inner.volume_images(&spec.image_volumes)?;
        let layers: Vec<_> = std::iter::once(&image).chain(&volumes).flat_map(|image| image.layers.iter().copied()).collect();
        let pins = inner.store.pin(&layers);
        let store = inner.clone();
        undo.push("writable layer and volumes", move || async move {
            blocking(move || store.remove_writable(id)).await.map_err(|e| e.to_string())
        });
        failpoint::hit("ctr.rootfs", id)?;
        if user.as_ref().is_none_or(|user| user.is_new()) {
            let claiming = inner.clone();
            blocking(move || claiming.claim_project(id)).await?;
        }
        if let Some(restoring) = restoring.clone() {
            restoring.check_image(&image)?;
            let store = inner.clone();
            blocking(move || {
                let dir = store.store.container_dir(id).step(id, "make the writable layer")?;
                restoring.fill_root(&dir.upper, id)
            })
            .await?;
        }
        let (images, wanted, durable) = (inner.clone(), image.clone(), pod.spec.is_durable());
        let idmap = pod.idmap().await?.map(Arc::new);
        let (mapped, durability) = (idmap.clone(), crate::image::Durability::of_user(durable));
        let rootfs = blocking(move || images.images.rootfs(&wanted, id, durability, (mapped.as_deref(), label.as_deref())))
            .await
            .step(id, "mount the root file system")?;
        let mounts = inner.mount_volumes(&spec.image_volumes, &volumes, idmap.as_ref()).await?;
        Ok(Ground { image, pins, rootfs, volumes, mounts })
    }

    async fn run(mut self) -> Result<ContainerId, Error> {
        if let Err(error) = self.steps().await {
            self.undo.unwind().await;
            return Err(error);
        }
        let (inner, pod) = (self.inner.clone(), self.pod.clone());
        let id = self.publish().await?;
        // A supervisor that died meanwhile has been mourned without this container.
        if pod.shim().is_err() {
            inner.containers_lost(&pod, &Reason::SupervisorLost).await;
        }
        Ok(id)
    }

    async fn steps(&mut self) -> Result<(), Error> {
        let id = self.record.id;
        self.ask_plugins().await?;
        self.choose_hooks().await?;
        let inner = self.inner.clone();
        self.undo.push("container record", move || async move {
            blocking(move || inner.store.remove_container(id)).await.map_err(|e| e.to_string())
        });
        failpoint::hit("ctr.record", id)?;
        self.put_record("write container record").await?;
        self.make_cgroup().await?;
        self.make_process().await?;
        failpoint::hit("ctr.created", id)?;
        self.record.phase = ContainerPhase::Created;
        self.put_record("write container record as created").await
    }

    /// Lets NRI plugins change the container.
    async fn ask_plugins(&mut self) -> Result<(), Error> {
        let Some(plugins) = self.inner.nri.members() else { return Ok(()) };
        let ContainerRecord { id, spec, plan, resources, image, user, created_at, .. } = &self.record;
        let (id, pod, created_at) = (*id, self.pod.id, *created_at);
        let facts = ContainerFacts { id, pod, spec, plan, resources, image, user, created_at, state: None };
        let outcome = plugins.create_container(&self.pod, facts, &mut self.undo).await?;
        self.asked.add(plugins);
        let (mut record, mut rules, mut hooks) = (self.record.clone(), self.rules.clone(), self.hooks.clone());
        let (pod, config) = (self.pod.clone(), self.inner.config.clone());
        let adjusted = blocking(move || {
            let mut target = Target {
                annotations: &record.spec.annotations,
                plan: &mut record.plan,
                resources: &mut record.resources,
                rules: &mut rules,
                pod: &pod.spec,
                pod_cgroup: &pod.cgroup,
                pids_limit: config.pids_limit,
                hooks: &mut hooks,
                user: &mut record.user,
                cdi_spec_dirs: &config.cdi_spec_dirs,
            };
            target.adjust(outcome.adjust).map(|()| (record, rules, hooks))
        });
        (self.record, self.rules, self.hooks) = adjusted.await.step(id, "adjust the container as NRI plugins want it")?;
        self.inner.update_others(About::Container(id), outcome.updates).await?;
        self.inner.evict("CreateContainer", outcome.evict);
        Ok(())
    }

    async fn choose_hooks(&mut self) -> Result<(), Error> {
        let (directories, directory) = (self.inner.config.hooks_dirs.clone(), self.pod.paths.dir.clone());
        let (hooks, plan) = (std::mem::take(&mut self.hooks), self.record.plan.clone());
        let mut annotations = self.pod.spec.annotations.clone();
        annotations.extend(plan.annotations.clone().unwrap_or_else(|| self.record.spec.annotations.clone()));
        let chosen = blocking(move || hooks::plan((&directories, &directory), hooks, &plan, annotations)).await;
        self.record.plan.hooks = chosen.step(self.record.id, "choose hooks")?;
        Ok(())
    }

    async fn put_record(&self, step: &'static str) -> Result<(), Error> {
        let (inner, record) = (self.inner.clone(), self.record.clone());
        blocking(move || inner.put_container(&record)).await.step(self.record.id, step)
    }

    async fn make_cgroup(&mut self) -> Result<(), Error> {
        let id = self.record.id;
        let (inner, group) = (self.inner.clone(), self.record.plan.cgroup.clone());
        self.undo.push("container cgroup", move || async move {
            blocking(move || {
                inner.kill_group(&group)?;
                inner.group(&group)?.remove()
            })
            .await
            .map_err(|e| crate::chain(&e))
        });
        failpoint::hit("ctr.cgroup", id)?;
        let (inner, group) = (self.inner.clone(), self.record.plan.cgroup.clone());
        let (resources, devices) = (self.record.resources.clone(), self.device_rules());
        let refused = blocking(move || {
            let group = inner.group(&group)?;
            group.create()?;
            group.allow_devices(&devices)?;
            group.apply(&resources)
        });
        let refused = refused.await.step(id, "make the container's cgroup")?;
        self.record.warnings.extend(refused.iter().map(|r| format!("{}: {}", r.what, r.why)));
        Ok(())
    }

    fn device_rules(&self) -> Vec<DeviceRule> {
        let mut rules = spec::device_rules(&self.record.spec, &self.record.plan);
        rules.extend(self.rules.iter().copied());
        rules
    }

    async fn make_process(&mut self) -> Result<(), Error> {
        let id = self.record.id;
        let shim = self.pod.shim()?;
        let way_back = shim.clone();
        self.undo.push("container process", move || async move {
            match way_back.forget(id).await {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(e.to_string()),
                _ => Ok(()),
            }
        });
        failpoint::hit("ctr.process", id)?;
        let plan = self.full_plan().await?;
        if self.restoring.is_some() && plan.oci.is_some() {
            let why = "only the built-in runtime handler restores containers";
            return Err(Error::new(ErrorKind::Unsupported, About::Container(id), why));
        }
        let rootfs = std::os::fd::AsFd::as_fd(&self.rootfs);
        let warnings = match self.restoring.clone() {
            None => shim.create(&plan, rootfs, &self.mounts).await.step(id, "create the container's process")?,
            Some(restoring) => self.restore_process(&shim, plan.clone(), restoring).await?,
        };
        self.record.warnings.extend(warnings);
        if plan.oci.is_some() {
            self.limit_again().await?;
        }
        self.join_rdt_class(&shim).await
    }

    /// Makes the processes out of images instead; what could not be had and is not fatal.
    async fn restore_process(&self, shim: &Shim, plan: ContainerPlan, restoring: Arc<Restoring>) -> Result<Vec<String>, Error> {
        let (inner, id) = (self.inner.clone(), self.record.id);
        let scratch = blocking(move || Scratch::new(&inner, id)).await?;
        let (images, stage) = (scratch.path().join("images"), self.pod.paths.dir.join("stage"));
        let restore = restoring.plan(&images, &stage);
        let plan = blocking(move || {
            std::fs::create_dir_all(&stage).step(id, "make a directory to restore in")?;
            restoring.take_images(&images, &plan).map(|()| plan)
        })
        .await?;
        let rootfs = std::os::fd::AsFd::as_fd(&self.rootfs);
        let made = shim.restore(&plan, restore, rootfs, &self.mounts).await.step(id, "restore the container's processes");
        blocking(move || drop(scratch)).await;
        made
    }

    /// crun makes a v1 group anew that it finds empty, and limits are in no other place. The program does not run yet.
    async fn limit_again(&self) -> Result<(), Error> {
        let (inner, group, resources) = (self.inner.clone(), self.record.plan.cgroup.clone(), self.record.resources.clone());
        // What is refused is so for the second time.
        let limited = blocking(move || inner.group(&group)?.apply(&resources)).await.map(drop);
        match limited {
            // A runtime that could not make the container took the group along; the start will say why.
            Err(e) if e.kind() == model::ErrorKind::NotFound => Ok(()),
            other => other.step(self.record.id, "limit the container's cgroup"),
        }
    }

    /// Before the process has run anything: what it starts is in its class by itself.
    async fn join_rdt_class(&self, shim: &Shim) -> Result<(), Error> {
        let (id, Some(class)) = (self.record.id, self.rdt_class.clone()) else { return Ok(()) };
        let report = shim.container(id).await.step(id, "find the container's process")?;
        let gone = || Error::new(ErrorKind::FailedPrecondition, About::Container(id), "its process is gone");
        let pid = report.ok_or_else(gone)?.pid;
        blocking(move || crate::rdt::join(crate::rdt::ROOT.as_ref(), id, &class, pid)).await
    }

    /// With what an OCI runtime or hooks read; the record keeps what that follows from.
    async fn full_plan(&self) -> Result<ContainerPlan, Error> {
        let (mut plan, pod, spec) = (self.record.plan.clone(), self.pod.clone(), self.record.spec.clone());
        self.given.set(&mut plan);
        let bundle = match (&plan.oci, &plan.hooks) {
            (Some(oci), _) => oci.bundle.clone(),
            (None, Some(hooks)) => hooks.bundle.clone(),
            (None, None) => return Ok(plan),
        };
        let devices = self.device_rules();
        let written = blocking(move || -> Result<ContainerPlan, spec::Error> {
            // Its cgroup is nobody's here: only the namespaces count.
            let pod_plan = spec::pod_plan(&pod.spec, &pod.cgroup, 0)?;
            let seccomp = spec::seccomp_document(&spec.security, plan.process.capabilities.bounding)?;
            let request = crate::oci::Request {
                plan: &plan,
                pod: &pod_plan,
                devices: &devices,
                seccomp: seccomp.as_ref(),
                bundle: std::path::Path::new(&bundle),
            };
            let config = crate::oci::config(&request)?.to_string().into_bytes().into();
            match (&mut plan.oci, &mut plan.hooks) {
                (Some(oci), _) => oci.config = config,
                (None, Some(hooks)) => hooks.config = config,
                (None, None) => {}
            }
            Ok(plan)
        });
        written.await.step(self.record.id, "write the runtime's configuration")
    }

    /// From here on the container exists. The rootfs descriptor is dropped: the process's mount namespace holds it.
    async fn publish(mut self) -> Result<ContainerId, Error> {
        let (inner, id) = (self.inner, self.record.id);
        let container = Container::new(self.record, self.pod.clone(), ContainerState::Created, self.pins);
        // Whoever finds it in the table and starts it comes after this.
        let _told = container.told.lock().await;
        // Plugins that have joined meanwhile are asked first.
        while let Err(late) = inner.nri.commit(&self.asked, || inner.table.insert_container(container.clone())) {
            if let Err(error) = inner.ask_late(&late, &container, &mut self.undo).await {
                self.undo.unwind().await;
                return Err(error);
            }
            self.asked.add(late);
        }
        self.undo.disarm();
        for warning in &container.warnings {
            tracing::warn!(container = %id.short(), warning, "tolerated");
        }
        tracing::info!(container = %id.short(), pod = %self.pod.id.short(), name = container.spec.key.name, image = %self.image.id, to = "created", "container");
        inner.events.of_container(EventKind::Created, id, &self.pod);
        inner.tell_created(&container).await;
        Ok(id)
    }
}
