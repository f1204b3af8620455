//! CreateContainer: the set-up of a container, with the way back beside every step.

use std::{os::fd::OwnedFd, sync::Arc};

use model::{
    ContainerId, ErrorKind, PodId,
    container::{ContainerImage, ContainerSpec, ContainerState},
    pod::{PodRequest, Reason},
};

use super::Container;
use crate::{
    Inner,
    blocking::blocking,
    clock,
    error::{About, Error, Step},
    events::{EventKind, Subject},
    failpoint,
    image::ImageInfo,
    pod::Pod,
    record::{ContainerPhase, ContainerRecord},
    spec,
    undo::Undo,
};

impl Inner {
    /// Creates a container, joins an attempt in flight for the same name, or returns what an earlier attempt made.
    pub(crate) async fn create_container(self: &Arc<Self>, pod: PodId, spec: ContainerSpec) -> Result<ContainerId, Error> {
        let pod = self.table.pod(pod)?;
        pod.admit(PodRequest::CreateContainer)?;
        let (inner, key, joined) = (self.clone(), spec.key.clone(), pod.clone());
        let outcome = joined.creating.join(key, move || async move {
            let _shared = pod.gate.read().await;
            pod.admit(PodRequest::CreateContainer)?;
            match inner.table.container_by_key(pod.id, &spec.key) {
                Some(container) => already(&container, &spec),
                None => Creation::begin(&inner, &pod, spec).await?.run().await,
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

struct Creation {
    inner: Arc<Inner>,
    pod: Arc<Pod>,
    image: Arc<ImageInfo>,
    pins: store::LayerPins,
    record: ContainerRecord,
    rootfs: OwnedFd,
    undo: Undo,
}

/// What has to be there before a plan can be written: the plan names users, and those are in the image.
struct Ground {
    image: Arc<ImageInfo>,
    pins: store::LayerPins,
    rootfs: OwnedFd,
}

impl Creation {
    async fn begin(inner: &Arc<Inner>, pod: &Arc<Pod>, spec: ContainerSpec) -> Result<Self, Error> {
        let id = ContainerId::from_bytes(crate::random_id());
        let mut undo = Undo::default();
        match Self::prepare(inner, pod, &spec, id, &mut undo).await {
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
                    layers: ground.image.layers.clone(),
                    user: prepared.user,
                    stop_signal: prepared.stop_signal,
                    phase: ContainerPhase::Preparing,
                    plan: prepared.plan,
                    warnings: Vec::new(),
                    resources: prepared.resources,
                    spec,
                };
                let Ground { image, pins, rootfs } = ground;
                Ok(Self { inner: inner.clone(), pod: pod.clone(), image, pins, record, rootfs, undo })
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
        spec: &ContainerSpec,
        id: ContainerId,
        undo: &mut Undo,
    ) -> Result<(Ground, spec::Prepared), Error> {
        let ground = Self::ground(inner, pod, spec, id, undo).await?;
        failpoint::hit("ctr.plan", id)?;
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
            let prepared = spec::container_plan(&request).step(id, "container configuration")?;
            Ok((ground, prepared))
        })
        .await
    }

    /// Image, writable layer and root file system.
    async fn ground(
        inner: &Arc<Inner>,
        pod: &Pod,
        spec: &ContainerSpec,
        id: ContainerId,
        undo: &mut Undo,
    ) -> Result<Ground, Error> {
        let missing = || Error::new(ErrorKind::NotFound, About::Image(spec.image.clone()), "no such image: pull it first");
        let image = inner.images.status(&spec.image).ok_or_else(missing)?;
        let pins = inner.store.pin(&image.layers);
        let store = inner.clone();
        undo.push("writable layer and volumes", move || async move {
            blocking(move || store.store.remove_container_dir(id)).await.map_err(|e| e.to_string())
        });
        failpoint::hit("ctr.rootfs", id)?;
        let (images, wanted, durable) = (inner.clone(), image.clone(), pod.spec.user_made);
        let rootfs = blocking(move || images.images.rootfs(&wanted, id, crate::image::Durability::of_user(durable)))
            .await
            .step(id, "mount the root file system")?;
        Ok(Ground { image, pins, rootfs })
    }

    async fn run(mut self) -> Result<ContainerId, Error> {
        match self.steps().await {
            Ok(()) => {
                let (inner, pod) = (self.inner.clone(), self.pod.clone());
                let id = self.publish();
                // A supervisor that died meanwhile has been mourned without this container.
                if pod.shim().is_err() {
                    inner.containers_lost(&pod, &Reason::SupervisorLost).await;
                }
                Ok(id)
            }
            Err(error) => {
                self.undo.unwind().await;
                Err(error)
            }
        }
    }

    async fn steps(&mut self) -> Result<(), Error> {
        let id = self.record.id;
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

    async fn put_record(&self, step: &'static str) -> Result<(), Error> {
        let (inner, record, user_made) = (self.inner.clone(), self.record.clone(), self.pod.spec.user_made);
        blocking(move || inner.put_container(&record, user_made)).await.step(self.record.id, step)
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
        let (resources, devices) = (self.record.resources.clone(), spec::device_rules(&self.record.spec, &self.record.plan));
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
        let warnings = shim
            .create(&self.record.plan, std::os::fd::AsFd::as_fd(&self.rootfs))
            .await
            .step(id, "create the container's process")?;
        self.record.warnings.extend(warnings);
        Ok(())
    }

    /// From here on the container exists. The rootfs descriptor is dropped: the process's mount namespace holds it.
    fn publish(mut self) -> ContainerId {
        let id = self.record.id;
        self.undo.disarm();
        for warning in &self.record.warnings {
            tracing::warn!(container = %id.short(), warning, "tolerated");
        }
        tracing::info!(container = %id.short(), pod = %self.pod.id.short(), name = self.record.spec.key.name, image = %self.image.id, to = "created", "container");
        let container = Container::new(self.record, self.pod.clone(), ContainerState::Created, self.pins);
        self.inner.table.insert_container(container);
        self.inner.events.publish(EventKind::Created, Subject::Container(id, self.pod.id));
        id
    }
}
