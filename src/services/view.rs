//! Pods and containers as CRI shows them.

use std::collections::BTreeMap;

use api::runtime as cri;
use engine::{Container, Pod};
use model::{
    container::ContainerState,
    pod::{NamespaceMode, Network, PodKey, PodState},
};

use super::convert::{container::mounts, is_id_prefix, resources, signal, userns};

/// A pod in a list.
pub(crate) fn pod(pod: &Pod) -> cri::PodSandbox {
    cri::PodSandbox {
        id: pod.id.to_string(),
        metadata: Some(pod_metadata(&pod.spec.key)),
        state: pod_state(&pod.state()).into(),
        created_at: pod.created_at,
        labels: pod.spec.labels.clone(),
        annotations: pod.spec.annotations.clone(),
        runtime_handler: pod.spec.runtime_handler.clone(),
    }
}

/// A pod by itself.
pub(crate) fn pod_status(pod: &Pod) -> cri::PodSandboxStatus {
    let state = pod.state();
    let namespaces = pod.spec.namespaces;
    let options = cri::NamespaceOption {
        network: namespace(namespaces.network),
        pid: namespace(namespaces.pid),
        ipc: namespace(namespaces.ipc),
        userns_options: Some(userns::to_proto(pod.spec.userns)),
        ..cri::NamespaceOption::default()
    };
    cri::PodSandboxStatus {
        id: pod.id.to_string(),
        metadata: Some(pod_metadata(&pod.spec.key)),
        state: pod_state(&state).into(),
        created_at: pod.created_at,
        network: network(&state),
        linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options: Some(options) }) }),
        labels: pod.spec.labels.clone(),
        annotations: pod.spec.annotations.clone(),
        runtime_handler: pod.spec.runtime_handler.clone(),
    }
}

/// Identity of a pod.
pub(crate) fn pod_metadata(key: &PodKey) -> cri::PodSandboxMetadata {
    let PodKey { namespace, name, uid, attempt } = key.clone();
    cri::PodSandboxMetadata { name, uid, namespace, attempt }
}

fn pod_state(state: &PodState) -> cri::PodSandboxState {
    match state {
        PodState::Ready { .. } => cri::PodSandboxState::SandboxReady,
        PodState::NotReady { .. } => cri::PodSandboxState::SandboxNotready,
    }
}

fn namespace(mode: NamespaceMode) -> i32 {
    let mode = match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod,
        NamespaceMode::Container => cri::NamespaceMode::Container,
        NamespaceMode::Node => cri::NamespaceMode::Node,
    };
    mode.into()
}

/// A network without an address makes the kubelet throw the pod away, so there is none rather than an empty one.
fn network(state: &PodState) -> Option<cri::PodSandboxNetworkStatus> {
    match state {
        PodState::Ready { network: Network::Pod { ip, additional } } => Some(cri::PodSandboxNetworkStatus {
            ip: ip.to_string(),
            additional_ips: additional.iter().map(|ip| cri::PodIp { ip: ip.to_string() }).collect(),
        }),
        PodState::Ready { network: Network::Host } | PodState::NotReady { .. } => None,
    }
}

/// A container in a list.
pub(crate) fn container(container: &Container) -> cri::Container {
    cri::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.pod.id.to_string(),
        metadata: Some(container_metadata(container)),
        image: Some(image(container)),
        image_ref: container.image.id.to_string(),
        state: container_state(&container.state()).into(),
        created_at: container.created_at,
        labels: container.spec.labels.clone(),
        annotations: container.spec.annotations.clone(),
        image_id: container.image.id.to_string(),
    }
}

/// A container by itself.
pub(crate) fn container_status(container: &Container) -> cri::ContainerStatus {
    let state = container.state();
    let mut status = cri::ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(container_metadata(container)),
        state: container_state(&state).into(),
        created_at: container.created_at,
        image: Some(image(container)),
        // A kubelet shows this one in the pod's status, where people and scanners look for what a registry knows.
        image_ref: container.image.digest.clone().unwrap_or_else(|| container.image.id.to_string()),
        labels: container.spec.labels.clone(),
        annotations: container.spec.annotations.clone(),
        mounts: mounts(&container.spec, &container.volume_images),
        log_path: container.log_path(),
        resources: Some(cri::ContainerResources { linux: Some(resources::to_proto(&container.resources())), windows: None }),
        image_id: container.image.id.to_string(),
        user: Some(cri::ContainerUser { linux: Some(user(container)) }),
        stop_signal: signal::to_proto(container.stop_signal),
        ..cri::ContainerStatus::default()
    };
    match state {
        ContainerState::Created => {}
        ContainerState::Running { started_at } => status.started_at = started_at,
        ContainerState::Exited { started_at, finished_at, exit, reason, message } => {
            status.started_at = started_at.unwrap_or_default();
            status.finished_at = finished_at;
            status.exit_code = exit.code;
            status.reason = reason.to_owned();
            status.message = message;
        }
    }
    status
}

/// Identity of a container.
pub(crate) fn container_metadata(container: &Container) -> cri::ContainerMetadata {
    cri::ContainerMetadata { name: container.spec.key.name.clone(), attempt: container.spec.key.attempt }
}

fn container_state(state: &ContainerState) -> cri::ContainerState {
    match state {
        ContainerState::Created => cri::ContainerState::ContainerCreated,
        ContainerState::Running { .. } => cri::ContainerState::ContainerRunning,
        ContainerState::Exited { .. } => cri::ContainerState::ContainerExited,
    }
}

/// The image by a name that people know, if it has one.
pub(crate) fn image_name(container: &Container) -> String {
    let name = [&container.spec.user_specified_image, &container.image.name, &container.spec.image];
    name.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default()
}

fn image(container: &Container) -> cri::ImageSpec {
    cri::ImageSpec {
        image: image_name(container),
        annotations: container.spec.image_annotations.clone(),
        user_specified_image: container.spec.user_specified_image.clone(),
        ..cri::ImageSpec::default()
    }
}

fn user(container: &Container) -> cri::LinuxContainerUser {
    cri::LinuxContainerUser {
        uid: container.user.uid.into(),
        gid: container.user.gid.into(),
        supplemental_groups: container.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
    }
}

/// Which pods of a list are wanted.
pub(crate) fn pod_wanted(filter: Option<&cri::PodSandboxFilter>, pod: &Pod) -> bool {
    let Some(filter) = filter else { return true };
    id_wanted(&filter.id, || pod.id.to_string())
        && filter.state.is_none_or(|state| state.state == i32::from(pod_state(&pod.state())))
        && labels_wanted(&filter.label_selector, &pod.spec.labels)
}

/// Which containers of a list are wanted.
pub(crate) fn container_wanted(filter: Option<&cri::ContainerFilter>, container: &Container) -> bool {
    let Some(filter) = filter else { return true };
    id_wanted(&filter.id, || container.id.to_string())
        && id_wanted(&filter.pod_sandbox_id, || container.pod.id.to_string())
        && filter.state.is_none_or(|state| state.state == i32::from(container_state(&container.state())))
        && labels_wanted(&filter.label_selector, &container.spec.labels)
}

/// Nothing said, or the beginning of this id.
pub(crate) fn id_wanted(wanted: &str, id: impl FnOnce() -> String) -> bool {
    wanted.is_empty() || (is_id_prefix(wanted) && id().starts_with(wanted))
}

/// Every label of the selector with exactly its value.
pub(crate) fn labels_wanted(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels: BTreeMap<_, _> = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(labels_wanted(&BTreeMap::new(), &labels) && labels_wanted(&one("a", "1"), &labels));
        assert!(!labels_wanted(&one("a", "2"), &labels) && !labels_wanted(&one("c", ""), &labels));
        let id = || "abcd".to_owned();
        assert!(id_wanted("", id) && id_wanted("ab", id) && !id_wanted("b", id) && !id_wanted("AB", id));
    }

    #[test]
    fn a_pod_without_an_address_has_no_network() {
        assert_eq!(network(&PodState::Ready { network: Network::Host }), None);
        let ready =
            PodState::Ready { network: Network::Pod { ip: [10, 0, 0, 2].into(), additional: vec!["::5".parse().unwrap()] } };
        let shown = network(&ready).unwrap();
        assert_eq!((shown.ip.as_str(), shown.additional_ips[0].ip.as_str()), ("10.0.0.2", "::5"));
    }
}
