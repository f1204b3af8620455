//! UpdatePodSandboxResources: what all containers of a pod may use together has changed, or is about to.

use std::sync::{Arc, PoisonError};

use minicbor::{Decode, Encode};
use model::{
    ErrorKind, PodId, Resources,
    pod::{PodSpec, PodState},
};

use super::Pod;
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    spec,
};

/// What a pod may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PodSize {
    /// Its containers together.
    #[n(0)]
    pub resources: Resources,
    /// What comes on top of that for the pod itself.
    #[n(1)]
    pub overhead: Resources,
}

impl PodSize {
    /// As the pod was made.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        Self { resources: spec.resources.clone(), overhead: spec.overhead.clone() }
    }

    /// The limits of the pod's cgroup: CPU and memory, with the overhead.
    fn limits(&self) -> Resources {
        let (own, over) = (&self.resources, &self.overhead);
        // What has no limit has none with something on top of it either.
        let sum =
            |own: Option<i64>, over: Option<i64>| own.map(|n| if n < 0 { n } else { n.saturating_add(over.unwrap_or(0).max(0)) });
        let same_period = over.cpu_period.is_none() || over.cpu_period == own.cpu_period;
        Resources {
            cpu_period: own.cpu_period,
            cpu_quota: sum(own.cpu_quota, over.cpu_quota.filter(|_| same_period)),
            cpu_shares: own.cpu_shares.map(|shares| shares.saturating_add(over.cpu_shares.unwrap_or(0))),
            memory_limit: sum(own.memory_limit, over.memory_limit),
            ..Resources::default()
        }
    }
}

impl Pod {
    /// What it may use, updates included.
    pub fn size(&self) -> PodSize {
        self.size.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    /// A kubelet calls this before it writes the pod's cgroup, which is its own: then there is nothing to do but to write
    /// it down. A cgroup that this engine made is set by nobody else.
    pub(crate) async fn update_pod(self: &Arc<Self>, id: PodId, newer: PodSize) -> Result<(), Error> {
        let pod = self.table.pod(id)?;
        let inner = self.clone();
        self.detached(About::Pod(id), async move {
            let _alone = pod.resizing.lock().await;
            if let PodState::NotReady { why } = pod.state() {
                let why = format!("pod is not ready ({why}), its resources cannot be updated");
                return Err(Error::new(ErrorKind::FailedPrecondition, About::Pod(id), why));
            }
            let before = pod.size();
            let size = PodSize {
                resources: before.resources.updated_by(&newer.resources),
                overhead: before.overhead.updated_by(&newer.overhead),
            };
            let limits = size.limits();
            let checked = spec::effective_resources(&limits, inner.config.pids_limit).step(id, "update resources")?;
            let limits = Resources { pids_limit: None, ..checked };
            inner.ask_pod_update(&pod, &size).await?;
            if pod.own_cgroup {
                let (cgroups, group) = (inner.clone(), pod.cgroup.clone());
                let refused = blocking(move || cgroups.group(&group)?.apply(&limits)).await.step(id, "update the pod's cgroup")?;
                for refusal in refused {
                    tracing::warn!(pod = %id.short(), what = refusal.what, why = refusal.why, "tolerated");
                }
            }
            *pod.size.lock().unwrap_or_else(PoisonError::into_inner) = size;
            pod.persist(&inner).await?;
            inner.tell_pod_updated(&pod).await;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_comes_on_top() {
        let own = Resources {
            cpu_period: Some(100_000),
            cpu_quota: Some(50_000),
            cpu_shares: Some(512),
            memory_limit: Some(100),
            cpuset_cpus: Some("0".into()),
            ..Resources::default()
        };
        let overhead = Resources { cpu_quota: Some(10_000), cpu_shares: Some(2), memory_limit: Some(20), ..Resources::default() };
        let limits = PodSize { resources: own.clone(), overhead: overhead.clone() }.limits();
        assert_eq!((limits.cpu_quota, limits.cpu_shares, limits.memory_limit), (Some(60_000), Some(514), Some(120)));
        assert_eq!(limits.cpuset_cpus, None, "the containers' own business");
        let unlimited = Resources { memory_limit: Some(-1), cpu_quota: Some(-1), ..own };
        let limits = PodSize { resources: unlimited, overhead }.limits();
        assert_eq!((limits.cpu_quota, limits.memory_limit), (Some(-1), Some(-1)));
        assert_eq!(PodSize::default().limits(), Resources::default());
    }
}
