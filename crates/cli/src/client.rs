//! The connection to creeld.

use std::path::{Path, PathBuf};

use api::{
    MAX_FRAME, MAX_MESSAGE, WINDOWS,
    creel::{
        builds_client::BuildsClient, containers_client::ContainersClient, creel_client::CreelClient, images_client::ImagesClient,
        networks_client::NetworksClient, system_client::SystemClient, volumes_client::VolumesClient,
    },
    runtime::runtime_service_client::RuntimeServiceClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;

/// All services of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) creel: CreelClient<Channel>,
    pub(crate) images: ImagesClient<Channel>,
    pub(crate) builds: BuildsClient<Channel>,
    pub(crate) containers: ContainersClient<Channel>,
    pub(crate) system: SystemClient<Channel>,
    pub(crate) volumes: VolumesClient<Channel>,
    pub(crate) networks: NetworksClient<Channel>,
}

impl Client {
    /// Connects. A daemon that is not there is noticed now and not at the first request.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Error> {
        let path = path_of(socket);
        UnixStream::connect(&path).await.map_err(|source| Error::Connect { socket: path.clone(), source })?;
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // gRPC wants an authority; over a unix socket it means nothing.
        let endpoint = Endpoint::from_static("http://localhost")
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_frame_size(MAX_FRAME);
        let channel = endpoint.connect_with_connector(connector).await.map_err(Error::Transport)?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImagesClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            builds: BuildsClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            containers: ContainersClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            system: SystemClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            volumes: VolumesClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            networks: NetworksClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            creel: CreelClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }
}

/// crictl and kubelet write sockets as URLs.
fn path_of(socket: &Path) -> PathBuf {
    let text = socket.to_string_lossy();
    PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there() {
        let error = Client::connect(Path::new("unix:///nonexistent/creel.sock")).await.unwrap_err();
        assert!(matches!(&error, Error::Connect { socket, .. } if socket == Path::new("/nonexistent/creel.sock")), "{error}");
    }
}
