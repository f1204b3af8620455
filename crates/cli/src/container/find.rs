//! Which container a person means: one of theirs by name, id or the beginning of an id, else one of a kubelet's pods.

use api::{
    creel::{ContainerDetails, ContainerState, InspectContainerRequest, container_state::Status},
    runtime as cri,
};
use tonic::Code;

use crate::{
    client::Client,
    error::{self, Error},
};

/// A container that was found.
pub(crate) enum Found {
    /// One that a person made.
    Ours(Box<ContainerDetails>),
    /// One of a CRI client's pods.
    Pod(Box<cri::Container>),
}

impl Found {
    /// Its id.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Ours(details) => details.summary.as_ref().map_or("", |summary| &summary.id),
            Self::Pod(container) => &container.id,
        }
    }
}

/// A container of a person's.
pub(crate) async fn inspect(client: &mut Client, container: &str) -> Result<ContainerDetails, Error> {
    let request = InspectContainerRequest { container: container.to_owned(), size: false };
    Ok(client.containers.inspect(request).await.map_err(error::daemon)?.into_inner())
}

/// Any container.
pub(crate) async fn any(client: &mut Client, container: &str) -> Result<Found, Error> {
    let request = InspectContainerRequest { container: container.to_owned(), size: false };
    let missing = match client.containers.inspect(request).await {
        Ok(answer) => return Ok(Found::Ours(Box::new(answer.into_inner()))),
        Err(status) if status.code() == Code::NotFound => status,
        Err(status) => return Err(error::daemon(status)),
    };
    match crate::find::container(client, container).await {
        Ok(found) => Ok(Found::Pod(Box::new(found))),
        Err(Error::Missing { .. }) => Err(error::daemon(missing)),
        Err(other) => Err(other),
    }
}

/// Whether its program runs, frozen or not.
pub(crate) fn runs(state: &ContainerState) -> bool {
    matches!(state.status(), Status::Running | Status::Paused | Status::Restarting)
}
