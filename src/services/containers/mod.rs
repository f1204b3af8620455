//! Containers of people over creel's own API: docker's rules and words.

mod convert;
mod devices;
mod files;
mod health;
pub(super) mod limits;
mod logging;
mod logs;
mod mounts;
mod network;
mod security;
mod select;
mod streams;
mod usage;
mod view;

use std::{sync::Arc, time::Duration};

use api::creel::{self as own, containers_server::Containers, wait_container_request::Condition};
use engine::{
    Engine,
    user::{Anonymous, Force, Patience, Pause, Stop, UserCommit, UserContainer, UserStatus, WaitFor},
};
use model::Signal;
use prost::Message;
use tonic::{Request, Response, Status, Streaming as Incoming};

pub(super) use convert::extra_host;
pub(super) use network::attachment;

use super::{images, pruning::Pruning, status, stream::Streaming};

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ContainersService {
    engine: Engine,
    pruning: Pruning,
}

impl ContainersService {
    /// Serves the containers of this engine's people.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, pruning: Pruning::default() }
    }

    pub(super) fn find(&self, text: &str) -> Result<Arc<UserContainer>, Status> {
        find(&self.engine, text)
    }
}

/// The container that is meant.
pub(super) fn find(engine: &Engine, text: &str) -> Result<Arc<UserContainer>, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument("invalid container name or ID: value is empty"));
    }
    engine.user(text).map_err(|e| status::of_engine(&e))
}

fn stop(request: &own::StopContainerRequest) -> Result<Stop, Status> {
    let patience = match request.timeout {
        None => Patience::Own,
        Some(seconds) => u64::try_from(seconds).map_or(Patience::Endless, |seconds| Patience::For(Duration::from_secs(seconds))),
    };
    Ok(Stop { signal: signal(&request.signal)?, patience })
}

fn signal(text: &str) -> Result<Option<Signal>, Status> {
    if text.is_empty() { Ok(None) } else { convert::signal(text).map(Some) }
}

fn answered(result: Result<(), engine::Error>) -> Result<(), Status> {
    result.map_err(|e| status::of_engine(&e))
}

#[tonic::async_trait]
impl Containers for ContainersService {
    async fn create(&self, request: Request<own::CreateContainerRequest>) -> Answer<own::CreateContainerResponse> {
        let own::CreateContainerRequest { name, config, host } = request.into_inner();
        let spec = convert::spec(config, host)?;
        let user = self.engine.create_user(name, spec).await.map_err(|e| status::of_engine(&e))?;
        let (id, name, warnings) = (user.id.to_string(), user.name(), user.warnings());
        Ok(Response::new(own::CreateContainerResponse { id, name, warnings }))
    }

    async fn start(&self, request: Request<own::StartContainerRequest>) -> Answer<own::StartContainerResponse> {
        let user = self.find(&request.into_inner().container)?;
        answered(self.engine.start_user(&user).await)?;
        Ok(Response::new(own::StartContainerResponse {}))
    }

    type StartAttachedStream = Streaming<own::ProcessOutput>;

    async fn start_attached(&self, request: Request<Incoming<own::AttachRequest>>) -> Answer<Self::StartAttachedStream> {
        streams::open(&self.engine, request.into_inner(), streams::Begin::Start).await.map(Response::new)
    }

    type AttachStream = Streaming<own::ProcessOutput>;

    async fn attach(&self, request: Request<Incoming<own::AttachRequest>>) -> Answer<Self::AttachStream> {
        streams::open(&self.engine, request.into_inner(), streams::Begin::Attach).await.map(Response::new)
    }

    async fn stop(&self, request: Request<own::StopContainerRequest>) -> Answer<own::StopContainerResponse> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        answered(self.engine.stop_user(&user, stop(&request)?).await)?;
        Ok(Response::new(own::StopContainerResponse {}))
    }

    async fn restart(&self, request: Request<own::StopContainerRequest>) -> Answer<own::StopContainerResponse> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        answered(self.engine.restart_user(&user, stop(&request)?).await)?;
        Ok(Response::new(own::StopContainerResponse {}))
    }

    async fn kill(&self, request: Request<own::KillContainerRequest>) -> Answer<own::KillContainerResponse> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        let signal = signal(&request.signal)?.unwrap_or(Signal::KILL);
        answered(self.engine.kill_user(&user, signal).await)?;
        Ok(Response::new(own::KillContainerResponse {}))
    }

    async fn pause(&self, request: Request<own::ContainerRef>) -> Answer<own::PauseContainerResponse> {
        let user = self.find(&request.into_inner().container)?;
        answered(self.engine.pause_user(&user).await)?;
        Ok(Response::new(own::PauseContainerResponse {}))
    }

    async fn unpause(&self, request: Request<own::ContainerRef>) -> Answer<own::PauseContainerResponse> {
        let user = self.find(&request.into_inner().container)?;
        answered(self.engine.unpause_user(&user).await)?;
        Ok(Response::new(own::PauseContainerResponse {}))
    }

    async fn wait(&self, request: Request<own::WaitContainerRequest>) -> Answer<own::WaitContainerResponse> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        let what = match request.condition() {
            Condition::NotRunning => WaitFor::NotRunning,
            Condition::NextExit => WaitFor::NextExit,
            Condition::Removed => WaitFor::Removed,
        };
        let exit_code = self.engine.wait_user(&user, what).await;
        Ok(Response::new(own::WaitContainerResponse { exit_code }))
    }

    async fn remove(&self, request: Request<own::RemoveContainerRequest>) -> Answer<own::RemoveContainerResponse> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        let force = if request.force { Force::Given } else { Force::NotGiven };
        let anonymous = if request.volumes { Anonymous::Go } else { Anonymous::Stay };
        answered(self.engine.remove_user(&user, force, anonymous).await)?;
        Ok(Response::new(own::RemoveContainerResponse {}))
    }

    async fn prune(&self, request: Request<own::PruneContainersRequest>) -> Answer<own::PruneContainersResponse> {
        let _turn = self.pruning.begin()?;
        let request = request.into_inner();
        let mut answer = own::PruneContainersResponse::default();
        for user in self.engine.users() {
            let over = matches!(user.state().status, UserStatus::Created | UserStatus::Exited);
            if !over || !select::prunes(&user, &request) {
                continue;
            }
            let size = self.engine.size_of_user(&user).await;
            match self.engine.remove_user(&user, Force::NotGiven, Anonymous::Stay).await {
                Ok(()) => {
                    answer.ids.push(user.id.to_string());
                    answer.reclaimed += size;
                }
                // Somebody has started it or removes it meanwhile.
                Err(e) if e.kind() == model::ErrorKind::FailedPrecondition => {}
                Err(e) => return Err(status::of_engine(&e)),
            }
        }
        Ok(Response::new(answer))
    }

    async fn rename(&self, request: Request<own::RenameContainerRequest>) -> Answer<own::RenameContainerResponse> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        answered(self.engine.rename_user(&user, request.name).await)?;
        Ok(Response::new(own::RenameContainerResponse {}))
    }

    async fn update(&self, request: Request<own::UpdateContainerRequest>) -> Answer<own::UpdateContainerResponse> {
        let own::UpdateContainerRequest { container, limits, restart } = request.into_inner();
        let user = self.find(&container)?;
        let mut spec = user.spec();
        let (config, mut host) = convert::request(&spec);
        let mut newer = model::Resources::default();
        if let Some(limits) = limits {
            let limits = limits::laid_over(host.limits.take(), &limits);
            newer = limits::resources(Some(&limits))?;
            spec.container.resources = spec.container.resources.updated_by(&newer);
            host.limits = Some(limits);
        }
        if let Some(restart) = restart {
            spec.restart = convert::restart(Some(&restart), false)?;
            host.restart = Some(restart);
        }
        let kept = own::CreateContainerRequest { name: String::new(), config: Some(config), host: Some(host) };
        spec.request = kept.encode_to_vec().into();
        let warnings = self.engine.update_user(&user, newer, spec).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::UpdateContainerResponse { warnings }))
    }

    async fn list(&self, request: Request<own::ListContainersRequest>) -> Answer<own::ListContainersResponse> {
        let request = request.into_inner();
        let size = request.size;
        let mut containers = Vec::new();
        for user in select::users(&self.engine, &request)? {
            let mut summary = view::summary(&self.engine, &user);
            if size {
                view::add_size(&self.engine, &user, &mut summary).await;
            }
            containers.push(summary);
        }
        if request.pods {
            containers.extend(view::of_pods(&self.engine, &request));
            containers.sort_by_key(|summary| std::cmp::Reverse(summary.created_at));
        }
        Ok(Response::new(own::ListContainersResponse { containers }))
    }

    async fn inspect(&self, request: Request<own::InspectContainerRequest>) -> Answer<own::ContainerDetails> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        let mut details = view::details(&self.engine, &user).await;
        if let (true, Some(summary)) = (request.size, details.summary.as_mut()) {
            view::add_size(&self.engine, &user, summary).await;
        }
        Ok(Response::new(details))
    }

    type LogsStream = Streaming<own::LogEntry>;

    async fn logs(&self, request: Request<own::LogsRequest>) -> Answer<Self::LogsStream> {
        logs::stream(&self.engine, &request.into_inner()).map(Response::new)
    }

    async fn top(&self, request: Request<own::TopRequest>) -> Answer<own::TopResponse> {
        usage::top(&self.engine, request.into_inner()).await.map(Response::new)
    }

    type StatsStream = Streaming<own::StatsResponse>;

    async fn stats(&self, request: Request<own::StatsRequest>) -> Answer<Self::StatsStream> {
        usage::stats(&self.engine, request.into_inner()).map(Response::new)
    }

    async fn diff(&self, request: Request<own::ContainerRef>) -> Answer<own::DiffResponse> {
        let user = self.find(&request.into_inner().container)?;
        files::diff(&self.engine, &user).await.map(Response::new)
    }

    type CopyFromStream = Streaming<own::CopyFromResponse>;

    async fn copy_from(&self, request: Request<own::CopyFromRequest>) -> Answer<Self::CopyFromStream> {
        let request = request.into_inner();
        let user = self.find(&request.container)?;
        files::copy_from(&self.engine, &user, request).await.map(Response::new)
    }

    async fn copy_to(&self, request: Request<Incoming<own::CopyToRequest>>) -> Answer<own::CopyToResponse> {
        files::copy_to(self.engine.clone(), request.into_inner()).await.map(Response::new)
    }

    type ExportStream = Streaming<own::CopyFromResponse>;

    async fn export(&self, request: Request<own::ContainerRef>) -> Answer<Self::ExportStream> {
        let user = self.find(&request.into_inner().container)?;
        files::export(&self.engine, &user).await.map(Response::new)
    }

    async fn commit(&self, request: Request<own::CommitRequest>) -> Answer<own::CommitResponse> {
        let own::CommitRequest { container, name, author, comment, changes, no_pause } = request.into_inner();
        let user = self.find(&container)?;
        let pause = if no_pause { Pause::No } else { Pause::Yes };
        let wanted = UserCommit { name: images::new_name("name", &name)?, author, comment, changes, pause };
        let id = self.engine.commit_user(&user, wanted).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::CommitResponse { id: id.to_string() }))
    }
}
