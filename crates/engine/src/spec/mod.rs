//! From what a client asks for to what the executor carries out: every decision is made here, and nowhere else.
//!
//! A plan follows from the specs, the image's defaults, its user databases and the host's files, and from nothing
//! else. **Invariant:** labels and annotations are not read in this module (R17, EX-21).

pub(crate) mod block_io;
mod caps;
mod cdi;
pub mod cgroup;
mod command;
mod defaults;
mod devices;
mod env;
mod error;
mod exec;
pub mod files;
mod logs;
mod mountinfo;
mod mounts;
mod passwd;
mod path;
mod profile;
mod resources;
mod sysctls;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod user;
pub(crate) mod volumes;

use std::{os::fd::BorrowedFd, path::Path};

use model::{
    ContainerId, PodId, Resources, Signal,
    container::{ContainerSpec, ImageDefaults, ResolvedUser},
    plan::{ContainerPlan, Hook, JoinedNamespace, PodPlan, ProcessPlan},
    pod::{NamespaceMode, PidMode, PodSpec},
};

pub use block_io::{BlockIoClasses, BlockIoRule};
use sys::cgroup::DeviceRule;

pub(crate) use cdi::{HOOK_LIMIT, HOOK_TIMEOUT, Target as CdiTarget};
pub use defaults::{default_masked_paths, default_readonly_paths, possible_cpus};
pub(crate) use devices::node_path as device_path;
pub use devices::{device_rule, device_rules};
pub(crate) use env::adjusted as adjusted_env;
pub use error::Error;
pub(crate) use exec::{ExecWishes, exec_plan_with, exec_user};
pub use exec::{exec_plan, exec_plan_with_terminal};
pub use mounts::Volume;
pub(crate) use mounts::{bind as extra_bind, check_target as check_mount_target, tmpfs as tmpfs_mount};
pub(crate) use profile::compile as seccomp_program;
pub use profile::document as seccomp_document;
pub use resources::effective as effective_resources;

/// The plan of a pod's supervisor.
///
/// # Errors
/// A namespace, sysctl or host name that cannot be.
pub fn pod_plan(spec: &PodSpec, supervisor_cgroup: &str, shm_size: u64) -> Result<PodPlan, Error> {
    let namespaces = spec.namespaces;
    if namespaces.network == NamespaceMode::Container || namespaces.ipc == NamespaceMode::Container {
        return Err(Error::Namespaces("network and IPC are the pod's or the node's, never a container's own"));
    }
    let joined = joined(spec);
    let own_network = namespaces.network == NamespaceMode::Pod && !joined.contains(&JoinedNamespace::Network);
    let own_ipc = namespaces.ipc == NamespaceMode::Pod && !joined.contains(&JoinedNamespace::Ipc);
    if spec.userns.is_some() && (namespaces.pid == NamespaceMode::Node || !own_ipc) {
        return Err(Error::Namespaces("a user namespace of the pod's own goes with PID and IPC namespaces of its own only"));
    }
    sysctls::check(&spec.sysctls, sysctls::Own { network: own_network, ipc: own_ipc })?;
    Ok(PodPlan {
        own_network,
        own_ipc,
        hostname: files::hostname(spec)?,
        shared_pid: namespaces.pid == NamespaceMode::Pod,
        sysctls: spec.sysctls.clone(),
        shm_size: spec.own.as_ref().and_then(|own| own.shm_size).unwrap_or(shm_size),
        cgroup: supervisor_cgroup.to_owned(),
        userns: spec.userns,
        domainname: files::domainname(spec)?,
        joined: Some(joined).filter(|joined| !joined.is_empty()),
        mount_label: None,
    })
}

/// Whether it is in the network namespace of another container.
pub(crate) fn joins_network(spec: &PodSpec) -> bool {
    spec.own.as_ref().is_some_and(|own| own.network_of.is_some())
}

/// Namespaces of other containers that it is in, in the order of their descriptors.
fn joined(spec: &PodSpec) -> Vec<JoinedNamespace> {
    let Some(own) = &spec.own else { return Vec::new() };
    let ipc = own.ipc_of.map(|_| JoinedNamespace::Ipc);
    let shm = own.ipc_of.map(|_| JoinedNamespace::Shm);
    let pid = own.pid_of.map(|_| JoinedNamespace::Pid);
    own.network_of.map(|_| JoinedNamespace::Network).into_iter().chain(ipc).chain(shm).chain(pid).collect()
}

/// Whether the machine's host name is its own.
pub(crate) fn host_uts(spec: &PodSpec) -> bool {
    spec.namespaces.network == NamespaceMode::Node || spec.own.as_ref().is_some_and(|own| own.host_uts)
}

/// Whether a pod has nothing but loopback in its network namespace.
pub(crate) fn no_network(spec: &PodSpec) -> bool {
    spec.own.as_ref().is_some_and(|own| own.no_network)
}

/// What is run, as far as client and image say it.
pub(crate) fn command_line(spec: &ContainerSpec, image: &ImageDefaults) -> Vec<String> {
    command::args(spec, image).unwrap_or_else(|_| spec.command.iter().chain(&spec.args).cloned().collect())
}

/// Whether neither client nor image say what to run.
pub(crate) fn has_no_command(spec: &ContainerSpec, image: &ImageDefaults) -> bool {
    spec.command.is_empty() && spec.args.is_empty() && command::args(spec, image).is_err()
}

/// What a container's plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct ContainerRequest<'a> {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub pod: &'a PodSpec,
    /// The pod's id.
    pub pod_id: PodId,
    /// The pod's directory, with the files that [`files::write`] made.
    pub pod_dir: &'a Path,
    /// The pod's cgroup.
    pub pod_cgroup: &'a str,
    /// What the client says.
    pub container: &'a ContainerSpec,
    /// What the image says.
    pub image: &'a ImageDefaults,
    /// The container's root file system, for its user databases and the content of its volumes.
    pub rootfs: BorrowedFd<'a>,
    /// Where the container's anonymous volumes go; made if there are any.
    pub volumes: &'a Path,
    /// Most processes if the client says nothing.
    pub pids_limit: i64,
}

/// A container's plan, and what else was decided.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// For the executor.
    pub plan: ContainerPlan,
    /// The user; shown in the container's status.
    pub user: ResolvedUser,
    /// What stops it.
    pub stop_signal: Signal,
    /// The limits for its cgroup: the client's with defaults.
    pub resources: Resources,
    /// Directories made for the image's VOLUMEs, filled.
    pub volumes: Vec<Volume>,
    /// What its cgroup allows besides what [`device_rules`] says.
    pub rules: Vec<DeviceRule>,
    /// Programs to be run at points of its life.
    pub hooks: Vec<Hook>,
    /// Class of cache and memory bandwidth that its devices are for.
    pub rdt_class: Option<String>,
}

impl Prepared {
    /// Does what the specifications of its CDI devices say.
    ///
    /// # Errors
    /// What of it cannot be, by its name. Nothing of this is of use then.
    pub fn inject(&mut self, mut edits: ::cdi::Edits, pod: &PodSpec) -> Result<(), Error> {
        self.rdt_class = edits.intel_rdt.take().map(cdi::rdt_class).transpose()?.flatten();
        let mut target = cdi::Target { plan: &mut self.plan, rules: &mut self.rules, pod, hooks: &mut self.hooks };
        target.apply(&edits, &mut self.user)
    }
}

/// Decides everything about a container. Makes the missing directories of bind mounts and logs, and the image's volumes.
///
/// # Errors
/// What is wrong with the request, by field.
pub fn container_plan(request: &ContainerRequest<'_>) -> Result<Prepared, Error> {
    let (spec, image, security) = (request.container, request.image, &request.container.security);
    if security.privileged && !request.pod.privileged {
        return Err(Error::Privileged);
    }
    check_pid(security.pid, request.pod)?;
    let resources = resources::effective(&spec.resources, request.pids_limit)?;
    let user = user::resolve(spec, &image.user, request.rootfs)?;
    check_ids(&user, request.pod)?;
    let process = process(request, &user)?;
    let devices = devices::plan(spec)?;
    let sources = mounts::Sources { pod: request.pod, pod_dir: request.pod_dir, volumes: request.volumes };
    let mounts = mounts::plan(spec, &image.volumes, devices.mounts, sources)?;
    let (masked_paths, readonly_paths) = if security.privileged {
        (Vec::new(), Vec::new())
    } else {
        (mounts::protected("masked path", &security.masked_paths)?, mounts::protected("read-only path", &security.readonly_paths)?)
    };
    let plan = ContainerPlan {
        id: request.id,
        process,
        pid: security.pid,
        readonly_rootfs: security.readonly_rootfs,
        mounts: mounts.list,
        devices: if mounts.foreign_dev { Vec::new() } else { devices.nodes },
        masked_paths,
        readonly_paths,
        cgroup: cgroup::container(request.pod_cgroup, request.id),
        own_cgroup_namespace: spec.own.as_ref().and_then(|own| own.own_cgroup_namespace).unwrap_or(!security.privileged),
        log_path: logs::path(&request.pod.log_directory, &spec.log_path)?,
        // A kubelet rotates the logs of its containers itself.
        log_limit: spec.own.as_ref().map(|own| own.log_limit.unwrap_or_default()),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        root_propagation: mounts.root_propagation,
        hooks: None,
        annotations: None,
        oci: None,
        mount_label: None,
    };
    let stop_signal = stop_signal(spec, image)?;
    // Last, because it is the one step that copies.
    volumes::prepare(request.rootfs, &mounts.volumes)?;
    Ok(Prepared {
        plan,
        user,
        stop_signal,
        resources,
        volumes: mounts.volumes,
        rules: Vec::new(),
        hooks: Vec::new(),
        rdt_class: None,
    })
}

fn process(request: &ContainerRequest<'_>, user: &ResolvedUser) -> Result<ProcessPlan, Error> {
    let (spec, image, security) = (request.container, request.image, &request.container.security);
    let capabilities = caps::resolve(security, caps::available()?)?;
    let hostname = files::visible_hostname(request.pod)?;
    let defaults = env::Defaults { home: &user.home, hostname: &hostname, tty: spec.tty };
    Ok(ProcessPlan {
        args: command::args(spec, image)?,
        env: env::build(defaults, &image.env, &spec.envs)?,
        cwd: command::working_dir(spec, image)?,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        capabilities,
        no_new_privs: security.no_new_privs,
        seccomp: profile::program(security, capabilities.bounding)?,
        rlimits: resources::rlimits(spec.own.as_ref().map_or(&[], |own| &own.rlimits)),
        oom_score_adj: Some(resources::oom_score_adj(&spec.resources)?),
        tty: spec.tty,
        umask: None,
        io_priority: None,
        scheduler: None,
        apparmor: None,
        selinux: None,
    })
}

/// A process can only be somebody whom its user namespace has.
fn check_ids(user: &ResolvedUser, pod: &PodSpec) -> Result<(), Error> {
    let Some(userns) = pod.userns else { return Ok(()) };
    let refuse = |kind: &str, id: u32| {
        let why = "has no number in the pod's user namespace, whose mapping is too short";
        Err(Error::User { user: format!("{kind} {id}"), why })
    };
    match user.groups.iter().find(|gid| userns.gids.to_host(**gid).is_none()) {
        _ if userns.uids.to_host(user.uid).is_none() => refuse("uid", user.uid),
        _ if userns.gids.to_host(user.gid).is_none() => refuse("gid", user.gid),
        Some(gid) => refuse("gid", *gid),
        None => Ok(()),
    }
}

fn check_pid(pid: PidMode, pod: &PodSpec) -> Result<(), Error> {
    match pid {
        PidMode::Pod if pod.namespaces.pid != NamespaceMode::Pod => {
            Err(Error::Namespaces("the container is to share the pod's PID namespace, and the pod was made without one"))
        }
        PidMode::Node if pod.userns.is_some() => {
            Err(Error::Namespaces("the node's PID namespace cannot be had in a user namespace of the pod's own"))
        }
        PidMode::Pod | PidMode::Container | PidMode::Node | PidMode::Target(_) => Ok(()),
    }
}

fn stop_signal(spec: &ContainerSpec, image: &ImageDefaults) -> Result<Signal, Error> {
    match spec.stop_signal {
        Some(signal) => Ok(signal),
        None if image.stop_signal.is_empty() => Ok(Signal::TERM),
        None => image.stop_signal.parse().map_err(Error::StopSignal),
    }
}
