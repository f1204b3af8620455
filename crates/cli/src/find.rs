//! Which container of a CRI client's pods a person means: its id, or the beginning of it.

use api::runtime as cri;

use crate::{
    client::Client,
    error::{self, Error},
};

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
    fn beginnings_of_ids() {
        let container = |id: &str| cri::Container { id: id.into(), ..Default::default() };
        let all = || vec![container("abc"), container("abd"), container("e")];
        assert_eq!(only(all(), "abd").unwrap().id, "abd");
        assert_eq!(only(all(), "e").unwrap().id, "e");
        assert!(matches!(only(all(), "a"), Err(Error::Ambiguous { .. })));
        assert!(matches!(only(all(), "y"), Err(Error::Missing { .. })));
    }
}
