//! Every pod and container that exists, for readers that must never wait: the engine's cache of the records.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use model::{ContainerId, ErrorKind, PodId, container::ContainerKey, pod::PodKey};

use crate::{
    container::Container,
    error::{About, Error},
    pod::Pod,
};

#[derive(Debug, Default)]
struct Rows {
    pods: HashMap<PodId, Arc<Pod>>,
    keys: HashMap<PodKey, PodId>,
    containers: HashMap<ContainerId, Arc<Container>>,
    container_keys: HashMap<(PodId, ContainerKey), ContainerId>,
}

/// The table. Locked only for a look-up or a change of one row, never across a step.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: RwLock<Rows>,
}

impl Table {
    fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pod(&self, id: PodId) -> Result<Arc<Pod>, Error> {
        self.read().pods.get(&id).cloned().ok_or_else(|| Error::no_pod(id))
    }

    pub(crate) fn pod_by_key(&self, key: &PodKey) -> Option<Arc<Pod>> {
        let rows = self.read();
        rows.keys.get(key).and_then(|id| rows.pods.get(id)).cloned()
    }

    pub(crate) fn container(&self, id: ContainerId) -> Result<Arc<Container>, Error> {
        self.read().containers.get(&id).cloned().ok_or_else(|| Error::no_container(id))
    }

    /// All pods, oldest first.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<_> = self.read().pods.values().cloned().collect();
        pods.sort_by_key(|pod| (pod.created_at, pod.id));
        pods
    }

    /// All containers, oldest first.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let mut containers: Vec<_> = self.read().containers.values().cloned().collect();
        containers.sort_by_key(|container| (container.created_at, container.id));
        containers
    }

    /// The containers of one pod, oldest first.
    pub(crate) fn containers_of(&self, pod: PodId) -> Vec<Arc<Container>> {
        let mut containers: Vec<_> = self.read().containers.values().filter(|c| c.pod.id == pod).cloned().collect();
        containers.sort_by_key(|container| (container.created_at, container.id));
        containers
    }

    /// Makes a pod visible. Two pods with one key cannot both be.
    pub(crate) fn insert_pod(&self, pod: Arc<Pod>) -> Result<(), Error> {
        let mut rows = self.write();
        if let Some(other) = rows.keys.get(&pod.spec.key).filter(|other| **other != pod.id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                About::Pod(pod.id),
                format!("pod {} has the same name and attempt", other.short()),
            ));
        }
        rows.keys.insert(pod.spec.key.clone(), pod.id);
        rows.pods.insert(pod.id, pod);
        Ok(())
    }

    /// Puts back a pod that was found at start. Two may have one key: a removal is not made durable, so that the loss of
    /// power may bring a removed pod's record back beside its successor's. Both are listed; the key is the newer one's.
    pub(crate) fn restore_pod(&self, pod: Arc<Pod>) {
        let mut rows = self.write();
        let holder = rows.keys.get(&pod.spec.key).and_then(|id| rows.pods.get(id));
        if holder.is_none_or(|holder| (holder.created_at, holder.id) < (pod.created_at, pod.id)) {
            rows.keys.insert(pod.spec.key.clone(), pod.id);
        }
        rows.pods.insert(pod.id, pod);
    }

    pub(crate) fn remove_pod(&self, pod: &Pod) {
        let mut rows = self.write();
        rows.pods.remove(&pod.id);
        if rows.keys.get(&pod.spec.key) == Some(&pod.id) {
            rows.keys.remove(&pod.spec.key);
        }
    }

    pub(crate) fn container_by_key(&self, pod: PodId, key: &ContainerKey) -> Option<Arc<Container>> {
        let rows = self.read();
        rows.container_keys.get(&(pod, key.clone())).and_then(|id| rows.containers.get(id)).cloned()
    }

    pub(crate) fn insert_container(&self, container: Arc<Container>) {
        let mut rows = self.write();
        rows.container_keys.insert((container.pod.id, container.spec.key.clone()), container.id);
        rows.containers.insert(container.id, container);
    }

    pub(crate) fn remove_container(&self, container: &Container) {
        let mut rows = self.write();
        rows.containers.remove(&container.id);
        rows.container_keys.remove(&(container.pod.id, container.spec.key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pod::{PodParts, PodPaths, Supervisor},
        record::{self, PodRecord},
    };

    fn pod(byte: u8, created_at: i64) -> Arc<Pod> {
        let record = PodRecord { id: PodId::from_bytes([byte; 32]), created_at, ..record::tests::pod() };
        let state = record.phase.state().unwrap();
        let paths = PodPaths::new(std::path::Path::new("/nonexistent"), record.id);
        Pod::new(PodParts { record, state, supervisor: Supervisor::Gone }, paths)
    }

    #[test]
    fn of_two_found_pods_with_one_key_the_newer_has_it() {
        let (old, new) = (pod(2, 10), pod(1, 20));
        for found in [[&old, &new], [&new, &old]] {
            let table = Table::default();
            found.into_iter().for_each(|pod| table.restore_pod(pod.clone()));
            assert_eq!(table.pods().len(), 2);
            table.remove_pod(&old);
            assert_eq!(table.pod_by_key(&new.spec.key).unwrap().id, new.id);
            assert!(table.insert_pod(pod(3, 30)).is_err());
        }
    }
}
