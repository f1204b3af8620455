//! creel's own API for volumes.

use api::creel::{self as own, volumes_server::Volumes as VolumesApi};
use engine::{
    Engine,
    volumes::{Error, NewVolume, VolumeInfo, Volumes},
};
use tonic::{Request, Response, Status};

use super::{filters::Filters, pruning::Pruning, status};

/// The one driver.
const LOCAL: &str = "local";

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct VolumesService {
    engine: Engine,
    pruning: Pruning,
}

impl VolumesService {
    /// Serves the volumes of this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, pruning: Pruning::default() }
    }

    /// Does what may take its time on a thread where nobody waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Volumes) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let volumes = self.engine.volumes().clone();
        let done = tokio::task::spawn_blocking(move || work(&volumes)).await.map_err(|_| status::panicked())?;
        done.map_err(|e| status::of_error(e.kind(), &e))
    }
}

fn volume(info: VolumeInfo, size: Option<u64>) -> own::Volume {
    own::Volume {
        name: info.name.to_string(),
        driver: LOCAL.to_owned(),
        options: info.options,
        labels: info.labels,
        mountpoint: info.mountpoint.to_string_lossy().into_owned(),
        created_at: info.created_at,
        anonymous: info.anonymous,
        used_by: info.used_by.iter().map(ToString::to_string).collect(),
        size,
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl VolumesApi for VolumesService {
    async fn create(&self, request: Request<own::CreateVolumeRequest>) -> Answer<own::Volume> {
        let own::CreateVolumeRequest { name, driver, options, labels } = request.into_inner();
        if !matches!(driver.as_str(), "" | LOCAL) {
            let driver: String = driver.chars().take(80).collect();
            return Err(Status::not_found(format!("error looking up volume plugin {driver}: plugin {driver:?} not found")));
        }
        let made = self.blocking(|volumes| volumes.create(NewVolume { name, options, labels })).await?;
        Ok(Response::new(volume(made, None)))
    }

    async fn list(&self, request: Request<own::ListVolumesRequest>) -> Answer<own::ListVolumesResponse> {
        let own::ListVolumesRequest { filters, size } = request.into_inner();
        let filters = Filters::read(filters, &["dangling", "driver", "label", "name"])?;
        let dangling = filters.flag("dangling")?;
        let wanted = move |volume: &VolumeInfo| {
            dangling.is_none_or(|dangling| dangling == volume.used_by.is_empty())
                && filters.any("driver", |driver| driver == LOCAL)
                && filters.any("name", |part| volume.name.as_str().contains(part))
                && filters.labels(&volume.labels)
        };
        let list = move |volumes: &Volumes| {
            let size = |volume: &VolumeInfo| size.then(|| volumes.size(volume));
            Ok(volumes.list().into_iter().filter(wanted).map(|found| (size(&found), found)).collect::<Vec<_>>())
        };
        let volumes = self.blocking(list).await?.into_iter().map(|(size, found)| volume(found, size)).collect();
        Ok(Response::new(own::ListVolumesResponse { volumes }))
    }

    async fn inspect(&self, request: Request<own::VolumeRef>) -> Answer<own::Volume> {
        let found = self.engine.volumes().get(&request.into_inner().name).map_err(|e| status::of_error(e.kind(), &e))?;
        Ok(Response::new(volume(found, None)))
    }

    async fn remove(&self, request: Request<own::RemoveVolumeRequest>) -> Answer<own::RemoveVolumeResponse> {
        let own::RemoveVolumeRequest { name, force } = request.into_inner();
        let remove = move |volumes: &Volumes| match volumes.remove(&name) {
            Err(Error::Missing(_)) if force => Ok(()),
            other => other.map(drop),
        };
        self.blocking(remove).await?;
        Ok(Response::new(own::RemoveVolumeResponse {}))
    }

    async fn prune(&self, request: Request<own::PruneVolumesRequest>) -> Answer<own::PruneVolumesResponse> {
        let _turn = self.pruning.begin()?;
        let own::PruneVolumesRequest { all, filters } = request.into_inner();
        let filters = Filters::read(filters, &["all", "label", "label!"])?;
        let all = all || filters.flag("all")? == Some(true);
        let wanted = move |volume: &VolumeInfo| (all || volume.anonymous) && filters.labels(&volume.labels);
        let gone = self.blocking(move |volumes| volumes.prune(wanted)).await?;
        let reclaimed = gone.iter().map(|(_, bytes)| bytes).sum();
        let names = gone.into_iter().map(|(volume, _)| volume.name.to_string()).collect();
        Ok(Response::new(own::PruneVolumesResponse { names, reclaimed }))
    }
}
