//! What a container of CRI is doing.

use api::runtime as cri;

use crate::{
    client::Client,
    error::{self, Error},
};

/// A container's status.
pub(crate) async fn status(client: &mut Client, id: &str) -> Result<cri::ContainerStatus, Error> {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = client.runtime.container_status(request).await.map_err(error::rpc("look at the container"))?;
    answer.into_inner().status.ok_or_else(|| Error::Missing { what: "container", name: id.to_owned() })
}
