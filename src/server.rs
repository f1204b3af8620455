//! The gRPC server: CRI, creel's own API, health and reflection on one socket.

use std::time::Duration;

use api::{
    FILE_DESCRIPTOR_SET, MAX_FRAME, MAX_MESSAGE, WINDOWS,
    creel::{
        builds_server::BuildsServer, containers_server::ContainersServer, creel_server::CreelServer, images_server::ImagesServer,
        networks_server::NetworksServer, system_server::SystemServer, volumes_server::VolumesServer,
    },
    runtime::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer},
};
use engine::Engine;
use tokio::sync::watch;
use tonic::transport::{Server, server::Router};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::layer::util::{Identity, Stack};

use crate::{
    edge::EdgeLayer,
    services::{
        BuildsService, ContainersService, CreelService, Images, ImagesService, NetworksService, Runtime, SystemService,
        VolumesService,
    },
    socket::Socket,
};

/// How long requests in flight may take after the daemon was told to end.
const GRACE: Duration = Duration::from_secs(10);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("set up reflection")]
    Reflection(#[source] Box<tonic_reflection::server::Error>),
    #[error("serve")]
    Serve(#[source] tonic::transport::Error),
}

/// What is served.
#[derive(Debug)]
pub(crate) struct Services {
    /// Pods, containers, images.
    pub(crate) engine: Engine,
    /// Exec, attach, port-forward.
    pub(crate) streaming: streaming::Server,
}

/// A service whose messages may be as large as the API allows.
macro_rules! roomy {
    ($service:expr) => {
        $service.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    };
}

/// Serves until `stop` comes, then lets requests in flight end, for a while.
pub(crate) async fn serve(
    socket: Socket,
    services: Services,
    max_requests: usize,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (stopping, told_to_stop) = watch::channel(false);
    let router = router(services, max_requests, &told_to_stop).await?;
    let mut told = told_to_stop;
    let serving = router.serve_with_incoming_shutdown(socket.connections(), async move {
        told.wait_for(|stopping| *stopping).await.ok();
    });
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(Error::Serve),
        () = stop => {}
    }
    // Streams of events end by this too: nothing else would end them.
    stopping.send_replace(true);
    match tokio::time::timeout(GRACE, serving).await {
        Ok(ended) => ended.map_err(Error::Serve),
        Err(_) => {
            tracing::info!("requests still in flight are cut off");
            Ok(())
        }
    }
}

async fn router(
    services: Services,
    max_requests: usize,
    told_to_stop: &watch::Receiver<bool>,
) -> Result<Router<Stack<EdgeLayer, Identity>>, Error> {
    let Services { engine, streaming } = services;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| Error::Reflection(Box::new(e)))?;
    let runtime = Runtime::new(engine.clone(), streaming, told_to_stop.clone());
    let router = Server::builder()
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_frame_size(MAX_FRAME)
        .layer(EdgeLayer::new(max_requests))
        .add_service(roomy!(RuntimeServiceServer::new(runtime)))
        .add_service(roomy!(ImageServiceServer::new(Images::new(engine.clone()))))
        .add_service(roomy!(ImagesServer::new(ImagesService::new(engine.clone()))))
        .add_service(roomy!(NetworksServer::new(NetworksService::new(engine.clone()))))
        .add_service(roomy!(VolumesServer::new(VolumesService::new(engine.clone()))))
        .add_service(roomy!(ContainersServer::new(ContainersService::new(engine.clone()))))
        .add_service(roomy!(BuildsServer::new(BuildsService::new(engine.clone()))))
        .add_service(SystemServer::new(SystemService::new(engine.clone(), told_to_stop.clone())))
        .add_service(roomy!(CreelServer::new(CreelService::new(engine))))
        .add_service(health().await)
        .add_service(reflection);
    Ok(router)
}

/// grpc.health.v1, by service.
async fn health() -> HealthServer<impl Health> {
    let (health, service) = tonic_health::server::health_reporter();
    health.set_serving::<RuntimeServiceServer<Runtime>>().await;
    health.set_serving::<ImageServiceServer<Images>>().await;
    health.set_serving::<CreelServer<CreelService>>().await;
    health.set_serving::<ImagesServer<ImagesService>>().await;
    health.set_serving::<VolumesServer<VolumesService>>().await;
    health.set_serving::<NetworksServer<NetworksService>>().await;
    health.set_serving::<ContainersServer<ContainersService>>().await;
    health.set_serving::<SystemServer<SystemService>>().await;
    health.set_serving::<BuildsServer<BuildsService>>().await;
    service
}
