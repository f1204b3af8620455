//! What a container gets beside its request and its image, ready-made: for steps of builds. It is in no record.

use std::{any::Any, fmt, os::fd::OwnedFd};

use model::{
    ErrorKind,
    plan::{ContainerPlan, MountFlags, MountKind, MountPlan},
};

use crate::error::{About, Error};

/// Mounts at most: each is a descriptor on its way to the supervisor.
const MOST: usize = shim_proto::FDS_MAX - 8;

/// Mounts and variables.
#[derive(Default)]
pub(crate) struct Given {
    /// In any order.
    pub(crate) mounts: Vec<GivenMount>,
    /// Over those of the request.
    pub(crate) env: Vec<(String, Vec<u8>)>,
    /// What has to be there as long as the container.
    pub(crate) keep: Vec<Box<dyn Any + Send + Sync>>,
}

/// A mount that is attached nowhere yet.
#[derive(Debug)]
pub(crate) struct GivenMount {
    /// Absolute and clean.
    pub(crate) target: String,
    pub(crate) mount: OwnedFd,
    pub(crate) flags: MountFlags,
}

impl fmt::Debug for Given {
    /// Without the values of variables: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("mounts", &self.mounts).finish_non_exhaustive()
    }
}

impl Given {
    /// Puts its mounts into a plan, after the descriptors that are there.
    pub(super) fn mount(&self, plan: &mut ContainerPlan, descriptors: &mut Vec<OwnedFd>) -> Result<(), Error> {
        let wrong = |kind, why: String| Error::new(kind, About::Words, why);
        if descriptors.len() + self.mounts.len() > MOST {
            return Err(wrong(ErrorKind::InvalidArgument, format!("more than {MOST} mounts")));
        }
        for given in &self.mounts {
            // What is asked for goes over what every container has.
            plan.mounts.retain(|mount| mount.target != given.target);
            let index = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
            let copy = given.mount.try_clone().map_err(|e| wrong(ErrorKind::ResourceExhausted, format!("open file: {e}")))?;
            descriptors.push(copy);
            let kind = MountKind::Detached { index };
            plan.mounts.push(MountPlan { target: given.target.clone(), kind, flags: given.flags, idmap: None });
        }
        // Stable: parents before children, else as they come.
        plan.mounts.sort_by_key(|mount| mount.target.matches('/').count());
        Ok(())
    }

    /// Puts its variables into a plan.
    pub(super) fn set(&self, plan: &mut ContainerPlan) {
        for (name, value) in &self.env {
            let line = [name.as_bytes(), b"=", value].concat();
            let env = &mut plan.process.env;
            env.retain(|known| !known.starts_with(&line[..=name.len()]));
            env.push(line.into());
        }
    }
}
