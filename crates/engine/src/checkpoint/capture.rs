//! Containers frozen together, captured one after the other, and let go in every case.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{
    ContainerId, ErrorKind,
    checkpoint::CapturePlan,
    plan::{ContainerPlan, MountKind},
    pod::{PidMode, PodState},
};
use rustix::fs::OFlags;
use serde_json::json;
use sys::{
    cgroup::Freezer,
    path::{Links, Root},
};

use super::{
    Criu, Limit,
    archive::{self, Dump, PodDump},
    criu::{self, Subject},
    images,
    location::{self, NewFile, Scratch},
};
use crate::{
    Inner,
    blocking::blocking,
    clock,
    container::Container,
    error::{About, Error, Step},
    failpoint,
    pod::Pod,
};

/// Between looks whether everything stands still.
const PAUSE: Duration = Duration::from_millis(2);
/// Largest log that is taken along.
const LOG_MAX: u64 = 64 << 20;

impl Inner {
    pub(super) async fn checkpoint_container(
        self: &Arc<Self>,
        container: Arc<Container>,
        location: PathBuf,
        limit: Limit,
    ) -> Result<(), Error> {
        let criu = self.find_criu().await?;
        let inner = self.clone();
        let (file, archive) = blocking(move || NewFile::create(&inner, location)).await?;
        let made = self.capture_into(container, &criu, archive, &limit).await;
        blocking(move || match made {
            Ok(()) => file.publish(),
            Err(error) => {
                file.undo();
                Err(error)
            }
        })
        .await
    }

    async fn capture_into(
        self: &Arc<Self>,
        container: Arc<Container>,
        criu: &Criu,
        archive: File,
        limit: &Limit,
    ) -> Result<(), Error> {
        let (inner, id, pod) = (self.clone(), container.id, container.pod.clone());
        let scratch = blocking(move || Scratch::new(&inner, id)).await?;
        let directory = scratch.path().join("container");
        let captured = self.capture(&pod, criu, vec![(container, directory.clone())], limit).await;
        let limit = limit.clone();
        blocking(move || {
            let _scratch = scratch;
            captured?;
            pack(&directory, archive, &limit).step(id, "write the archive")
        })
        .await
    }

    pub(super) async fn checkpoint_pod(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        output: PathBuf,
        ids: Vec<ContainerId>,
        limit: Limit,
    ) -> Result<(), Error> {
        if !matches!(pod.state(), PodState::Ready { .. }) {
            return Err(Error::new(ErrorKind::FailedPrecondition, About::Pod(pod.id), "the pod is not ready"));
        }
        let containers = self.selected(pod, &ids)?;
        let criu = self.find_criu().await?;
        let (inner, directory) = (self.clone(), output.clone());
        let work = blocking(move || location::into_empty(&inner, &directory)).await?;
        let made = self.fill(pod, &criu, containers, &output, &limit).await;
        blocking(move || match made {
            Ok(()) => {
                work.done();
                Ok(())
            }
            Err(error) => {
                work.undo();
                Err(error)
            }
        })
        .await
    }

    /// All running containers of the pod, and only they: `ids` has to say so.
    fn selected(&self, pod: &Arc<Pod>, ids: &[ContainerId]) -> Result<Vec<Arc<Container>>, Error> {
        let refuse = |kind, why: String| Err(Error::new(kind, About::Pod(pod.id), why));
        let mut containers: Vec<Arc<Container>> = Vec::new();
        for id in ids {
            let container = self.running(*id)?;
            if container.pod.id != pod.id {
                return refuse(ErrorKind::InvalidArgument, format!("container {} is not of this pod", id.short()));
            }
            if containers.iter().any(|other| other.id == *id) {
                return refuse(ErrorKind::InvalidArgument, format!("container {} is named twice", id.short()));
            }
            if containers.iter().any(|other| other.spec.key.name == container.spec.key.name) {
                let why =
                    format!("two containers are called {:?}, and a restore tells them apart by name", container.spec.key.name);
                return refuse(ErrorKind::InvalidArgument, why);
            }
            containers.push(container);
        }
        if containers.is_empty() {
            return refuse(ErrorKind::InvalidArgument, "no container is named".to_owned());
        }
        Ok(containers)
    }

    async fn fill(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        criu: &Criu,
        containers: Vec<Arc<Container>>,
        output: &Path,
        limit: &Limit,
    ) -> Result<(), Error> {
        let dump = PodDump {
            version: PodDump::version(),
            key: pod.spec.key.clone(),
            namespaces: pod.spec.namespaces,
            handler: pod.spec.runtime_handler.clone(),
            containers: containers.iter().map(|container| container.spec.key.name.clone()).collect(),
        };
        let directories = (0..containers.len()).map(|index| output.join(index.to_string()));
        self.capture(pod, criu, containers.into_iter().zip(directories).collect(), limit).await?;
        failpoint::hit("ckpt.captured", pod.id)?;
        let file = output.join(archive::POD);
        blocking(move || write(&file, &crate::record::encode(&dump))).await.step(pod.id, "write the pod's description")
    }

    /// Captures containers into new directories.
    async fn capture(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        criu: &Criu,
        mut jobs: Vec<(Arc<Container>, PathBuf)>,
        limit: &Limit,
    ) -> Result<(), Error> {
        jobs.iter().try_for_each(|(container, _)| capturable(container, pod))?;
        // In the same order everywhere, so that two of these never wait for each other.
        jobs.sort_by_key(|(container, _)| container.id);
        let mut alone = Vec::new();
        for (container, _) in &jobs {
            tokio::select! {
                held = container.ops.lock() => alone.push(held),
                () = limit.passed() => limit.check(container.id)?,
            }
        }
        let outcome = self.capture_frozen(pod, criu, &jobs, limit).await;
        let thawed = self.thaw(pod, &jobs).await;
        outcome.and(thawed)
    }

    async fn capture_frozen(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        criu: &Criu,
        jobs: &[(Arc<Container>, PathBuf)],
        limit: &Limit,
    ) -> Result<(), Error> {
        let ids = jobs.iter().map(|(container, _)| self.running(container.id).map(|container| container.id));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        failpoint::hit("ckpt.freeze", pod.id)?;
        pod.shim()?.freeze(ids).await.step(pod.id, "freeze the containers")?;
        for (container, _) in jobs {
            self.wait_frozen(container, limit).await?;
        }
        failpoint::hit("ckpt.frozen", pod.id)?;
        for (container, directory) in jobs {
            self.capture_one(criu, container, directory, limit).await?;
            failpoint::hit("ckpt.one", container.id)?;
        }
        Ok(())
    }

    async fn wait_frozen(&self, container: &Arc<Container>, limit: &Limit) -> Result<(), Error> {
        let group = self.group(&container.plan.cgroup).step(container.id, "freeze")?;
        while !group.is_frozen().step(container.id, "look whether the container is frozen")? {
            limit.check(container.id)?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Everything runs again afterwards, if anything can do that: the supervisor, or we.
    async fn thaw(&self, pod: &Arc<Pod>, jobs: &[(Arc<Container>, PathBuf)]) -> Result<(), Error> {
        let asked = match pod.shim() {
            Ok(shim) => shim.thaw().await.step(pod.id, "let the containers run again"),
            // It has taken its containers with it.
            Err(_) => return Ok(()),
        };
        if asked.is_ok() {
            return Ok(());
        }
        for (container, _) in jobs {
            let thawed = self.group(&container.plan.cgroup).and_then(|group| group.set_freezer(Freezer::Thawed));
            thawed.step(container.id, "let the container run again")?;
        }
        asked
    }

    async fn capture_one(
        self: &Arc<Self>,
        criu: &Criu,
        container: &Arc<Container>,
        directory: &Path,
        limit: &Limit,
    ) -> Result<(), Error> {
        let id = container.id;
        let shim = container.pod.shim()?;
        let report = shim.container(id).await.step(id, "ask for the container's process")?;
        let pid = report.ok_or_else(|| Error::no_container(id))?.pid;
        let (inner, held, dir, own) = (self.clone(), container.clone(), directory.to_owned(), shim.pid());
        let subject = blocking(move || {
            make_directory(&dir).and_then(|()| make_directory(&dir.join(archive::IMAGES))).step(id, "make directories")?;
            subject(&inner, &held, pid, own)
        });
        let subject = subject.await?;
        let images = directory.join(archive::IMAGES);
        let args = criu::dump(criu, &subject, &images, directory, limit.left());
        let limit_ms = u64::try_from(limit.left().as_millis()).unwrap_or(u64::MAX);
        let plan = CapturePlan { args, directory: directory.to_string_lossy().into_owned(), limit: limit_ms };
        let code = tokio::select! {
            code = shim.capture(plan, limit.left()) => code.step(id, "run criu")?,
            () = limit.passed() => {
                limit.check(id)?;
                return Err(Error::new(ErrorKind::DeadlineExceeded, About::Container(id), "the time limit has passed"));
            }
        };
        limit.check(id)?;
        if code != 0 {
            let said = criu::complaint(&directory.join("dump.log")).unwrap_or_else(|| format!("criu ended with {code}"));
            return Err(Error::new(ErrorKind::FailedPrecondition, About::Container(id), format!("cannot be captured: {said}")));
        }
        let (inner, container, directory, limit) = (self.clone(), container.clone(), directory.to_owned(), limit.clone());
        blocking(move || contents(&inner, &container, &subject, &directory, &limit)).await
    }
}

/// What keeps a container from being captured, whatever criu says.
fn capturable(container: &Container, pod: &Pod) -> Result<(), Error> {
    let plan = &container.plan;
    let why = match () {
        () if plan.oci.is_some() => "only containers of the built-in handler can be captured",
        () if plan.pid != PidMode::Container => "only containers with a PID namespace of their own can be captured",
        () if plan.process.tty => "containers with a terminal cannot be captured",
        () if pod.spec.userns.is_some() => "pods with a user namespace cannot be captured",
        () => return Ok(()),
    };
    Err(Error::new(ErrorKind::FailedPrecondition, About::Container(container.id), why))
}

/// What criu has to know of a container. Its processes stand still.
fn subject(inner: &Inner, container: &Container, pid: u32, supervisor: u32) -> Result<Subject, Error> {
    let id = container.id;
    let refuse = |why: String| Error::new(ErrorKind::FailedPrecondition, About::Container(id), why);
    let group = inner.group(&container.plan.cgroup).step(id, "find the container's cgroup")?;
    let pids: Vec<u32> = group
        .pids()
        .step(id, "list the processes")?
        .into_iter()
        .filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
        .collect();
    if !pids.contains(&pid) {
        return Err(refuse("its first process has just ended".to_owned()));
    }
    // The first process before the others: their streams are usually its.
    let pids: Vec<u32> = std::iter::once(pid).chain(pids.into_iter().filter(|other| *other != pid)).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).step(id, "read the container's mounts")?;
    let mut mounts: Vec<String> = Vec::new();
    let mut inside = std::collections::HashSet::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = left.split(' ').collect();
        let (Some(mount), Some(place)) = (fields.first(), fields.get(4)) else { continue };
        inside.insert((*mount).to_owned());
        if *place == "/" || right.starts_with("proc ") {
            continue;
        }
        if place.contains(['\\', ':', '[', ']']) {
            return Err(refuse(format!("something is mounted on {place:?}, which criu's options cannot name")));
        }
        if mounts.iter().any(|other| other == place) {
            return Err(refuse(format!("two mounts are on top of each other on {place:?}")));
        }
        mounts.push((*place).to_owned());
    }
    let streams = criu::streams(&pids, &criu::pipes(supervisor), &inside);
    let freezer = group.freezer_directory().step(id, "find the container's freezer")?;
    Ok(Subject { pid, freezer, streams, mounts })
}

/// Everything but the processes.
fn contents(inner: &Inner, container: &Container, subject: &Subject, directory: &Path, limit: &Limit) -> Result<(), Error> {
    let id = container.id;
    let writable = container.writable(inner);
    tar(&writable.join("upper"), &directory.join(archive::ROOTFS), limit).step(id, "capture the writable layer")?;
    let root =
        Root::open_host(format!("/proc/{}/root", subject.pid)).map_err(io::Error::from).step(id, "open the container's root")?;
    let volumes: Vec<_> = anonymous(&container.plan, &writable).collect();
    for (index, (source, _)) in volumes.iter().enumerate() {
        tar(source, &numbered(directory, "volumes", index).step(id, "make directories")?, limit).step(id, "capture a volume")?;
    }
    let memory: Vec<String> = in_memory(&container.plan).collect();
    for (index, target) in memory.iter().enumerate() {
        let open = open_inside(&root, target).step(id, "open a file system in memory")?;
        let to = numbered(directory, "tmpfs", index).step(id, "make directories")?;
        tar_of(open, &to, limit).step(id, "capture a file system in memory")?;
    }
    let shm = shm(&root, &container.plan, &directory.join(archive::SHM), limit).step(id, "capture /dev/shm")?;
    let dump = Dump {
        version: Dump::version(),
        architecture: std::env::consts::ARCH.to_owned(),
        spec: container.spec.clone(),
        image: container.image.id,
        layers: container.record().layers,
        streams: subject.streams.clone(),
        volumes: volumes.into_iter().map(|(_, target)| target).collect(),
        memory,
        shm,
        at: clock::now(),
    };
    check_images(directory, &container.plan).step(id, "look at what criu wrote")?;
    describe(container, &dump, directory).step(id, "write the description")?;
    log(container, &directory.join("container.log")).step(id, "take the log along")
}

/// A capture that could not be restored is none.
fn check_images(directory: &Path, plan: &ContainerPlan) -> Result<(), images::Refused> {
    let images = directory.join(archive::IMAGES);
    let damaged = |name: &str, error: io::Error| images::Refused { image: name.to_owned(), why: error.to_string() };
    let entries = fs::read_dir(&images).map_err(|e| damaged("checkpoint", e))?;
    let mut names = Vec::new();
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if images::usage(&name)? == images::Use::Restored {
            names.push(name);
        }
    }
    let read = |name: &str| fs::read(images.join(name)).map_err(|e| damaged(name, e));
    images::check(&names, read, plan.process.seccomp.as_ref().map(|program| &program[..]))
}

/// Where volumes that the image asks for are on the host, and in the container.
pub(super) fn anonymous<'p>(plan: &'p ContainerPlan, writable: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<'p> {
    let volumes = writable.join("volumes");
    plan.mounts.iter().filter_map(move |mount| match &mount.kind {
        MountKind::Bind { source, .. } if Path::new(source).starts_with(&volumes) => Some((source.into(), mount.target.clone())),
        _ => None,
    })
}

/// Where file systems in memory are mounted.
pub(super) fn in_memory(plan: &ContainerPlan) -> impl Iterator<Item = String> {
    plan.mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Tmpfs { .. })).map(|mount| mount.target.clone())
}

fn open_inside(root: &Root, target: &str) -> io::Result<OwnedFd> {
    Ok(root.open(target, OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow)?)
}

/// Whether there was anything to capture.
fn shm(root: &Root, plan: &ContainerPlan, to: &Path, limit: &Limit) -> Result<bool, layer::Error> {
    let read = layer::Error::Read;
    let Some(mount) = plan.mounts.iter().find(|mount| matches!(mount.kind, MountKind::Shm)) else { return Ok(false) };
    let directory = open_inside(root, &mount.target).map_err(read)?;
    let mut entries = rustix::fs::Dir::read_from(&directory).map_err(|e| read(e.into()))?;
    let anything = entries.any(|entry| entry.is_ok_and(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")));
    if anything {
        tar_of(directory, to, limit)?;
    }
    Ok(anything)
}

fn numbered(directory: &Path, kind: &str, index: usize) -> io::Result<PathBuf> {
    let directory = directory.join(kind);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    Ok(directory.join(format!("{index}.tar")))
}

fn tar(directory: &Path, to: &Path, limit: &Limit) -> Result<(), layer::Error> {
    tar_of(File::open(directory).map_err(layer::Error::Read)?.into(), to, limit)
}

fn tar_of(directory: OwnedFd, to: &Path, limit: &Limit) -> Result<(), layer::Error> {
    let file = create(to).map_err(layer::Error::Archive)?;
    layer::diff(directory.as_fd(), io::BufWriter::with_capacity(1 << 20, limit.guard(file)), &layer::Limits::default()).map(drop)
}

/// The whole directory as one archive.
fn pack(directory: &Path, to: File, limit: &Limit) -> Result<(), layer::Error> {
    let directory = File::open(directory).map_err(layer::Error::Read)?;
    layer::diff(directory.as_fd(), io::BufWriter::with_capacity(1 << 20, limit.guard(to)), &layer::Limits::default()).map(drop)
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn create(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    io::Write::write_all(&mut create(path)?, bytes)
}

fn describe(container: &Container, dump: &Dump, directory: &Path) -> io::Result<()> {
    write(&directory.join(archive::DUMP), &crate::record::encode(dump))?;
    write(&directory.join("config.dump"), config(container, dump).to_string().as_bytes())?;
    write(&directory.join("spec.dump"), spec(container).to_string().as_bytes())
}

/// `ContainerConfig` of checkpointctl's metadata, as podman and CRI-O write it.
fn config(container: &Container, dump: &Dump) -> serde_json::Value {
    json!({
        "id": container.id.to_string(),
        "name": container.spec.key.name,
        "rootfsImage": container.spec.image,
        "rootfsImageRef": container.image.id.to_string(),
        "rootfsImageName": container.image.name,
        "runtime": "creel",
        "createdTime": model::time::rfc3339(container.created_at).to_string(),
        "checkpointedTime": model::time::rfc3339(dump.at).to_string(),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    })
}

/// As much of an OCI runtime specification as tools show.
fn spec(container: &Container) -> serde_json::Value {
    let process = &container.plan.process;
    let env: Vec<_> = process.env.iter().map(|entry| String::from_utf8_lossy(entry)).collect();
    let pod = &container.pod.spec.key;
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": process.args,
            "env": env,
            "cwd": process.cwd,
            "terminal": process.tty,
            "user": { "uid": process.uid, "gid": process.gid, "additionalGids": process.groups },
        },
        "root": { "path": "rootfs", "readonly": container.plan.readonly_rootfs },
        "annotations": {
            "io.kubernetes.container.name": container.spec.key.name,
            "io.kubernetes.pod.name": pod.name,
            "io.kubernetes.pod.namespace": pod.namespace,
            "io.kubernetes.pod.uid": pod.uid,
        },
    })
}

/// The end of the log, if it has one.
fn log(container: &Container, to: &Path) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let Some(path) = &container.plan.log_path else { return Ok(()) };
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut from = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let length = from.metadata()?.len();
    if !from.metadata()?.is_file() {
        return Ok(());
    }
    from.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX)))?;
    io::copy(&mut from.take(LOG_MAX), &mut create(to)?).map(drop)
}
