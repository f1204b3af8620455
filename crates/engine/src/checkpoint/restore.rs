//! RestorePod. The pod and its containers are made from the request as any others; what the checkpoint adds is the content
//! of writable layers and volumes, and processes that stand where they were captured. Everything it claims is compared with
//! the request first, and nothing in it is a path of the host.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use layer::{Compression, Limits, Target};
use model::{
    ContainerId, ErrorKind, PodId,
    checkpoint::RestorePlan,
    container::ContainerSpec,
    plan::{ContainerPlan, MountKind},
    pod::PodSpec,
};
use rustix::fs::{Dir, FileType, OFlags, fstat};
use sys::{
    mount::{self, Attributes, Depth, Filesystem},
    path::{Links, Root, is_normal},
};

use super::{
    Criu, Limit, RestoredContainer,
    archive::{self, Dump, PodDump},
    capture,
    images::{self, Refused, Use},
    location::Work,
    memory,
};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    failpoint,
    image::ImageInfo,
};

/// Bytes of criu's images of a container at most, memory included.
const IMAGES_MAX: u64 = 256 << 30;
/// Files among them at most.
const IMAGES: usize = 200_000;
/// Bytes of an image that is read to be looked at.
const IMAGE_MAX: u64 = 64 << 20;

/// A container's part of a checkpoint, while it is being restored.
#[derive(Debug)]
pub(crate) struct Restoring {
    criu: Criu,
    /// Its directory in the checkpoint.
    source: Root,
    dump: Dump,
    limit: Limit,
    /// /dev/shm as it was, for all containers of the pod.
    shm: Option<Arc<OwnedFd>>,
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::FailedPrecondition, About::Engine, format!("cannot be restored: {}", why.into()))
}

impl Inner {
    pub(super) async fn restore_pod(
        self: Arc<Self>,
        spec: PodSpec,
        containers: Vec<ContainerSpec>,
        from: PathBuf,
        limit: Limit,
    ) -> Result<(PodId, Vec<RestoredContainer>), Error> {
        let criu = self.find_criu().await?;
        if self.handlers.find(&spec.runtime_handler)?.is_some() {
            return Err(refuse(format!("the handler {:?} restores nothing, only the built-in one does", spec.runtime_handler)));
        }
        let (root, dump) = blocking(move || open(&from)).await?;
        agree(&spec, &containers, &dump)?;
        let jobs = blocking({
            let limit = limit.clone();
            move || jobs(&criu, &root, &dump, containers, &limit)
        });
        let jobs = jobs.await?;
        if self.table.pod_by_key(&spec.key).is_some() {
            let why = "a pod with this name, uid and attempt exists";
            return Err(Error::new(ErrorKind::AlreadyExists, About::Engine, why));
        }
        let pod = self.run_pod(spec).await?;
        let work = Work::pod(&self, pod)?;
        match self.restore_containers(pod, jobs, &limit).await {
            Ok(restored) => {
                work.done();
                Ok((pod, restored))
            }
            Err(error) => {
                match self.remove_pod(pod).await {
                    Ok(()) => work.done(),
                    // The next start tries again.
                    Err(left) => tracing::warn!(pod = %pod.short(), error = left.chain(), "a pod that was not restored is left"),
                }
                Err(error)
            }
        }
    }

    async fn restore_containers(
        self: &Arc<Self>,
        pod: PodId,
        jobs: Vec<(ContainerSpec, Restoring)>,
        limit: &Limit,
    ) -> Result<Vec<RestoredContainer>, Error> {
        let mut restored = Vec::with_capacity(jobs.len());
        for (spec, restoring) in jobs {
            limit.check(pod)?;
            failpoint::hit("restore.container", pod)?;
            let name = spec.key.name.clone();
            let id = self.create_restored(pod, spec, Arc::new(restoring)).await?;
            restored.push(RestoredContainer { name, id });
        }
        limit.check(pod)?;
        Ok(restored)
    }
}

fn open(from: &Path) -> Result<(Root, PodDump), Error> {
    if !from.to_str().is_some_and(is_normal) {
        let why = format!("{}: not an absolute path in normal form", from.display());
        return Err(Error::new(ErrorKind::InvalidArgument, About::Engine, why));
    }
    let opened = Root::open_host(from).map_err(|e| refuse(format!("{}: {e}", from.display())))?;
    let bytes = small(&opened, archive::POD)?;
    let dump = PodDump::parse(&bytes).map_err(|e| refuse(format!("{} {e}", archive::POD)))?;
    Ok((opened, dump))
}

/// Request and checkpoint speak of the same containers in the same kind of pod.
fn agree(spec: &PodSpec, containers: &[ContainerSpec], dump: &PodDump) -> Result<(), Error> {
    let sorted = |names: Vec<&str>| {
        let mut names = names;
        names.sort_unstable();
        names.windows(2).all(|pair| pair[0] != pair[1]).then(|| names.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let asked = sorted(containers.iter().map(|container| container.key.name.as_str()).collect());
    let there = sorted(dump.containers.iter().map(String::as_str).collect());
    match (&asked, &there) {
        (Some(asked), Some(there)) if asked == there && !asked.is_empty() => {}
        (None, _) => return Err(Error::new(ErrorKind::InvalidArgument, About::Engine, "a container's name is there twice")),
        _ => return Err(refuse("the names of the containers are not those in the checkpoint")),
    }
    if spec.namespaces != dump.namespaces {
        return Err(refuse("the pod shares other namespaces than the one that was captured"));
    }
    if spec.userns.is_some() {
        return Err(refuse("pods with a user namespace are not restored"));
    }
    Ok(())
}

/// Reads and compares everything that can be before a pod is made.
fn jobs(
    criu: &Criu,
    root: &Root,
    dump: &PodDump,
    containers: Vec<ContainerSpec>,
    limit: &Limit,
) -> Result<Vec<(ContainerSpec, Restoring)>, Error> {
    let mut jobs: Vec<(ContainerSpec, Restoring)> = Vec::new();
    let mut shm: Option<Arc<OwnedFd>> = None;
    for spec in containers {
        let index =
            dump.containers.iter().position(|name| *name == spec.key.name).ok_or_else(|| refuse("a container is missing"))?;
        let name = index.to_string();
        let about = |why: String| refuse(format!("container {:?}: {why}", spec.key.name));
        let source =
            root.open(&name, OFlags::PATH | OFlags::DIRECTORY, Links::Refuse).map_err(|e| about(format!("its directory: {e}")))?;
        let source = Root::from(source);
        let was = Dump::parse(&small(&source, archive::DUMP)?).map_err(|e| about(format!("{} {e}", archive::DUMP)))?;
        compare(&spec, &was.spec).map_err(|what| about(format!("{what} is not what it was")))?;
        if was.shm && shm.is_none() {
            let mount = tmpfs(None, 0o1777).step(About::Engine, "make /dev/shm")?;
            fill(&source, archive::SHM, &mount, limit, About::Engine)?;
            shm = Some(Arc::new(mount));
        }
        jobs.push((spec, Restoring { criu: criu.clone(), source, dump: was, limit: limit.clone(), shm: None }));
    }
    // One for all: each captured the same.
    for (_, restoring) in &mut jobs {
        restoring.shm.clone_from(&shm);
    }
    Ok(jobs)
}

/// What describes the processes has to be the same; what it is that differs.
fn compare(asked: &ContainerSpec, was: &ContainerSpec) -> Result<(), &'static str> {
    let (a, b) = (&asked.security, &was.security);
    let parts = [
        ("the command", asked.command == was.command),
        ("the list of arguments", asked.args == was.args),
        ("the working directory", asked.working_dir == was.working_dir),
        ("the environment", asked.envs == was.envs),
        ("the terminal", asked.tty == was.tty),
        ("stdin", asked.stdin == was.stdin),
        ("the user", (&a.user, a.group) == (&b.user, b.group)),
        (
            "the list of groups",
            (&a.supplemental_groups, a.supplemental_groups_strict) == (&b.supplemental_groups, b.supplemental_groups_strict),
        ),
        ("the PID namespace", a.pid == b.pid),
    ];
    parts.into_iter().find(|(_, same)| !same).map_or(Ok(()), |(what, _)| Err(what))
}

/// A file of the checkpoint: regular, and below its directory without any link.
fn file(root: &Root, name: &str, most: u64) -> io::Result<File> {
    let file = root.open(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW, Links::Refuse)?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("is no regular file"));
    }
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > most {
        return Err(io::Error::other(format!("is larger than {most} bytes")));
    }
    Ok(file.into())
}

fn small(root: &Root, name: &str) -> Result<Vec<u8>, Error> {
    let read = file(root, name, archive::DUMP_MAX).and_then(|file| all(file, archive::DUMP_MAX));
    read.map_err(|e| refuse(format!("{name}: {e}")))
}

/// The content of a file that may grow meanwhile.
fn all(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes)?;
    Ok(bytes)
}

/// A file system in memory.
fn tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd, sys::Error> {
    let made = Filesystem::open("tmpfs")?.set("mode", format!("{:o}", mode & 0o7777))?;
    let made = match size {
        Some(size) => made.set("size", size.to_string())?,
        None => made,
    };
    made.mount(Attributes::empty())
}

/// Unpacks an archive of the checkpoint into an empty directory. The archive decides nothing outside of it.
fn fill(root: &Root, name: &str, directory: &OwnedFd, limit: &Limit, about: impl Into<About>) -> Result<(), Error> {
    let (limits, about) = (Limits::default(), about.into());
    let archive = file(root, name, limits.unpacked).map_err(|e| refuse(format!("{name}: {e}")))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, ".", flags, rustix::fs::Mode::empty()).map_err(io::Error::from);
    let directory = directory.step(about.clone(), "open what an archive is unpacked to")?;
    let reader = Timed { archive, limit: limit.clone() };
    let Err(error) = layer::apply(reader, Compression::None, Target::Directory(directory.as_fd()), &limits) else { return Ok(()) };
    limit.check(about.clone())?;
    match error {
        // What it is made into has nothing to do with it.
        layer::Error::Write { .. } => Err(error).step(about, "unpack an archive of the checkpoint"),
        _ => Err(refuse(format!("{name}: {}", crate::chain(&error)))),
    }
}

/// A reader that fails when it is time to stop.
struct Timed {
    archive: File,
    limit: Limit,
}

impl io::Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit.check(About::Engine).map_err(|_| io::ErrorKind::TimedOut)?;
        self.archive.read(buffer)
    }
}

impl Restoring {
    /// Whether it stands on the same image, layer by layer.
    pub(crate) fn check_image(&self, image: &ImageInfo) -> Result<(), Error> {
        if image.id == self.dump.image && image.layers == self.dump.layers {
            return Ok(());
        }
        Err(refuse(format!("the image is {}, and the container was made from {}", image.id, self.dump.image)))
    }

    /// Fills a new writable layer.
    pub(crate) fn fill_root(&self, upper: &Path, id: ContainerId) -> Result<(), Error> {
        let upper = File::open(upper).step(id, "open the writable layer")?.into();
        fill(&self.source, archive::ROOTFS, &upper, &self.limit, id)
    }

    /// Fills volumes, which hold what the image has, and makes file systems in memory as they were. These come to the
    /// supervisor as descriptors behind `mounts`.
    pub(crate) fn fill_mounts(
        &self,
        plan: &mut ContainerPlan,
        mounts: &mut Vec<OwnedFd>,
        writable: &Path,
        id: ContainerId,
    ) -> Result<(), Error> {
        let gone = |what: &str, target: &str| refuse(format!("there is no {what} on {target:?} in the checkpoint"));
        for (source, target) in capture::anonymous(plan, writable).collect::<Vec<_>>() {
            let index = self.dump.volumes.iter().position(|place| *place == target).ok_or_else(|| gone("volume", &target))?;
            let emptied = fs::remove_dir_all(&source).and_then(|()| fs::DirBuilder::new().mode(0o755).create(&source));
            emptied.step(id, "empty a volume")?;
            let directory = File::open(&source).step(id, "open a volume")?.into();
            fill(&self.source, &format!("volumes/{index}.tar"), &directory, &self.limit, id)?;
        }
        for one in &mut plan.mounts {
            let made = match &one.kind {
                MountKind::Tmpfs { size, mode } => {
                    let place = self.dump.memory.iter().position(|place| *place == one.target);
                    let index = place.ok_or_else(|| gone("file system in memory", &one.target))?;
                    let made = tmpfs(*size, *mode).step(id, "make a file system in memory")?;
                    fill(&self.source, &format!("tmpfs/{index}.tar"), &made, &self.limit, id)?;
                    made
                }
                MountKind::Shm => match &self.shm {
                    Some(shm) => mount::clone_fd(shm, Depth::Top).map_err(io::Error::from).step(id, "clone /dev/shm")?,
                    None => continue,
                },
                _ => continue,
            };
            one.kind = MountKind::Detached { index: u32::try_from(mounts.len()).unwrap_or(u32::MAX) };
            mounts.push(made);
        }
        Ok(())
    }

    /// Copies criu's images to a directory of ours and looks through them there, where nobody changes them any more.
    pub(crate) fn take_images(&self, to: &Path, plan: &ContainerPlan) -> Result<(), Error> {
        self.copy_images(to, plan).map_err(|refused| refuse(refused.to_string()))
    }

    fn copy_images(&self, to: &Path, plan: &ContainerPlan) -> Result<(), Refused> {
        let failed = |image: &str| {
            let image = image.to_owned();
            move |e: io::Error| Refused { image, why: e.to_string() }
        };
        fs::DirBuilder::new().mode(0o700).create(to).map_err(failed("checkpoint"))?;
        let from = self.source.open(archive::IMAGES, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse);
        let from = from.map_err(io::Error::from).map_err(failed("checkpoint"))?;
        let entries = Dir::read_from(&from).map_err(io::Error::from).map_err(failed("checkpoint"))?;
        let from = Root::from(from);
        let (mut names, mut left) = (Vec::new(), IMAGES_MAX);
        for entry in entries {
            let entry = entry.map_err(io::Error::from).map_err(failed("checkpoint"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "." || name == ".." || images::usage(&name)? == Use::LeftOut {
                continue;
            }
            if names.len() == IMAGES {
                return Err(Refused { image: name, why: format!("there are more than {IMAGES}") });
            }
            let source = file(&from, &name, left).map_err(failed(&name))?;
            let target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to.join(&name));
            let mut target = self.limit.guard(target.map_err(failed(&name))?);
            left -= io::copy(&mut io::Read::take(source, left), &mut target).map_err(failed(&name))?;
            names.push(name);
        }
        let read = |name: &str| {
            file(&Root::open_host(to).map_err(io::Error::from).map_err(failed(name))?, name, IMAGE_MAX)
                .and_then(|file| all(file, IMAGE_MAX))
                .map_err(failed(name))
        };
        let size = |name: &str| fs::metadata(to.join(name)).map(|file| file.len()).map_err(failed(name));
        memory::check(&names, read, size)?;
        images::check(&names, read, plan.process.seccomp.as_ref().map(|program| &program[..]))
    }

    /// What the supervisor makes the processes with.
    pub(crate) fn plan(&self, images: &Path, stage: &Path) -> RestorePlan {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        RestorePlan {
            criu: text(&self.criu.program),
            images: text(images),
            stage: text(stage),
            streams: self.dump.streams.clone(),
            limit: u64::try_from(self.limit.left().as_millis()).unwrap_or(u64::MAX),
        }
    }
}
