//! Which container a person means: its name, or the beginning of its id.

use api::runtime as cri;

use crate::{
    client::Client,
    error::{self, Error},
};

/// The label that `creel run` gives its pods and containers; its value is the name.
pub(crate) const NAME_LABEL: &str = "creel.name";

/// What a person calls a container: the name it was given, else the one in its pod.
pub(crate) fn name(container: &cri::Container) -> String {
    let given = container.labels.get(NAME_LABEL).cloned();
    given.or_else(|| container.metadata.as_ref().map(|metadata| metadata.name.clone())).unwrap_or_default()
}

/// Whether `creel run` made it.
pub(crate) fn is_ours(container: &cri::Container) -> bool {
    container.labels.contains_key(NAME_LABEL)
}

/// All containers.
pub(crate) async fn containers(client: &mut Client) -> Result<Vec<cri::Container>, Error> {
    let answer = client.runtime.list_containers(cri::ListContainersRequest { filter: None }).await;
    Ok(answer.map_err(error::rpc("list containers"))?.into_inner().containers)
}

/// The one that is meant.
pub(crate) async fn container(client: &mut Client, wanted: &str) -> Result<cri::Container, Error> {
    only(containers(client).await?, wanted)
}

/// The id of a pod: of the container that is meant, or the pod's own name or the beginning of its id.
pub(crate) async fn pod(client: &mut Client, wanted: &str) -> Result<String, Error> {
    match container(client, wanted).await {
        Ok(container) => return Ok(container.pod_sandbox_id),
        Err(Error::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let answer = client.runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await;
    let pods = answer.map_err(error::rpc("list pods"))?.into_inner().items;
    let is_meant = |pod: &&cri::PodSandbox| {
        let named = pod.metadata.as_ref().is_some_and(|metadata| metadata.name == wanted);
        pod.state() == cri::PodSandboxState::SandboxReady && (named || (!wanted.is_empty() && pod.id.starts_with(wanted)))
    };
    let mut meant = pods.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(pod), None) => Ok(pod.id.clone()),
        (None, _) => Err(Error::Missing { what: "container or pod", name: wanted.to_owned() }),
        (Some(_), Some(_)) => Err(Error::Ambiguous { what: "pod", name: wanted.to_owned() }),
    }
}

fn only(all: Vec<cri::Container>, wanted: &str) -> Result<cri::Container, Error> {
    let named = |c: &cri::Container| c.labels.get(NAME_LABEL).is_some_and(|name| name == wanted) || c.id == wanted;
    if let Some(exactly) = all.iter().find(|c| named(c)) {
        return Ok(exactly.clone());
    }
    let mut beginning = all.into_iter().filter(|c| !wanted.is_empty() && c.id.starts_with(wanted));
    match (beginning.next(), beginning.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Error::Missing { what: "container", name: wanted.to_owned() }),
        (Some(_), Some(_)) => Err(Error::Ambiguous { what: "container", name: wanted.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_win_over_beginnings() {
        let container = |id: &str, name: &str| cri::Container {
            id: id.into(),
            labels: [(NAME_LABEL.to_owned(), name.to_owned())].into(),
            ..Default::default()
        };
        let all = || vec![container("abc", "x"), container("abd", "ab"), container("e", "")];
        assert_eq!(only(all(), "ab").unwrap().id, "abd");
        assert_eq!(only(all(), "abc").unwrap().id, "abc");
        assert_eq!(only(all(), "e").unwrap().id, "e");
        assert!(matches!(only(all(), "a"), Err(Error::Ambiguous { .. })));
        assert!(matches!(only(all(), "y"), Err(Error::Missing { .. })));
        assert_eq!(name(&all()[0]), "x");
    }
}
