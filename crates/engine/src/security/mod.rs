//! What the host's security modules have to say about a container: its AppArmor profile and its SELinux labels. Where a
//! module is off, asking for its default means nothing, and asking for more is refused.

mod apparmor;
mod error;
mod label;
mod relabel;
mod selinux;

use std::path::Path;

use model::{
    PodId,
    container::{ContainerSpec, SelinuxSpec},
    plan::{ContainerPlan, MountKind},
    pod::PodSpec,
};

pub(crate) use error::Error;

use self::{apparmor::AppArmor, selinux::Selinux};

/// The host's modules.
#[derive(Debug)]
pub(crate) struct Modules {
    apparmor: AppArmor,
    /// `None`: off.
    selinux: Option<Selinux>,
}

/// What confines one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// AppArmor profile of its processes.
    pub apparmor: Option<String>,
    /// SELinux label of its processes.
    pub process: Option<String>,
    /// SELinux label of its files.
    pub files: Option<String>,
}

impl Confinement {
    /// Writes it into a plan.
    pub(crate) fn apply(self, plan: &mut ContainerPlan) {
        plan.process.apparmor = self.apparmor;
        plan.process.selinux = self.process;
        plan.mount_label = self.files;
    }
}

/// What an administrator is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityInfo {
    /// AppArmor confines.
    pub apparmor: bool,
    /// SELinux labels.
    pub selinux: bool,
    /// What is on and cannot be used, with the reason.
    pub warnings: Vec<String>,
}

impl Modules {
    /// Looks at the kernel and the policy.
    pub(crate) fn detect() -> Self {
        Self { apparmor: AppArmor::detect(), selinux: Selinux::detect() }
    }

    pub(crate) fn info(&self) -> SecurityInfo {
        let warnings = [self.apparmor.warning(), self.selinux.as_ref().and_then(Selinux::warning)];
        SecurityInfo {
            apparmor: self.apparmor.is_enabled(),
            selinux: self.selinux.as_ref().is_some_and(|selinux| selinux.warning().is_none()),
            warnings: warnings.into_iter().flatten().collect(),
        }
    }

    /// A level for a pod that does not bring one: its containers share it, and no other pod has it.
    pub(crate) fn level(&self, pod: PodId, spec: &PodSpec) -> Option<String> {
        let selinux = self.selinux.as_ref()?;
        let said = spec.selinux.as_ref().map_or("", |label| label.level.as_str());
        if said.is_empty() { Some(selinux.allot(pod)) } else { Some(said.to_owned()) }
    }

    /// Takes a pod's level in, at recovery.
    pub(crate) fn keep(&self, pod: PodId, level: Option<&str>) {
        if let (Some(selinux), Some(level)) = (&self.selinux, level) {
            selinux.keep(pod, level);
        }
    }

    /// A pod's level is free again.
    pub(crate) fn release(&self, pod: PodId) {
        if let Some(selinux) = &self.selinux {
            selinux.release(pod);
        }
    }

    /// Label of what belongs to a pod as a whole.
    ///
    /// # Errors
    /// The policy does not know what the client asked for.
    pub(crate) fn pod_files(&self, spec: &PodSpec, level: Option<&str>) -> Result<Option<String>, Error> {
        let Some(selinux) = &self.selinux else { return Ok(None) };
        selinux.labels(spec.selinux.as_ref(), None, level, spec.privileged).map(|labels| labels.map(|(_, files)| files))
    }

    /// Decides about a container. Loads the default profile if it is wanted for the first time. Blocks.
    ///
    /// # Errors
    /// A profile or label that is not there, and relabelling what must not be relabelled.
    pub(crate) fn confine(&self, pod: &PodSpec, level: Option<&str>, spec: &ContainerSpec) -> Result<Confinement, Error> {
        let security = &spec.security;
        for mount in spec.mounts.iter().filter(|mount| mount.selinux_relabel) {
            relabel::check(&mount.host_path)?;
        }
        let apparmor = self.apparmor.profile(security.apparmor.as_ref(), security.privileged)?;
        let labels = match &self.selinux {
            Some(selinux) => selinux.labels(pod.selinux.as_ref(), security.selinux.as_ref(), level, security.privileged)?,
            None => None,
        };
        let (process, files) = labels.unzip();
        Ok(Confinement { apparmor, process, files })
    }

    /// Gives a container's label to what it may use of the host: mounts that the client wants relabelled, and files of ours.
    /// Blocks.
    ///
    /// # Errors
    /// setxattr(2), or there is too much of it.
    pub(crate) fn relabel(&self, spec: &ContainerSpec, plan: &ContainerPlan, own: [&Path; 2]) -> Result<(), Error> {
        let (Some(_), Some(label)) = (&self.selinux, &plan.mount_label) else { return Ok(()) };
        for mount in spec.mounts.iter().filter(|mount| mount.selinux_relabel) {
            relabel::tree(Path::new(&mount.host_path), label)?;
        }
        let ours = plan.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } if own.iter().any(|own| Path::new(source).starts_with(own)) => Some(Path::new(source)),
            _ => None,
        });
        ours.into_iter().try_for_each(|source| relabel::tree(source, label))
    }
}

/// Whether any part of a label was said.
fn is_said(label: Option<&SelinuxSpec>) -> bool {
    label.is_some_and(|label| *label != SelinuxSpec::default())
}
