//! The engine as a whole: what happens to things of people, and what takes the disk.

use std::time::Duration;

use api::creel::{self as own, disk_usage_response::Usage, system_server::System};
use engine::{
    Engine,
    user::{UserEvent, UserEventKind},
};
use futures_util::{StreamExt, stream};
use tokio::sync::{broadcast, watch};
use tonic::{Request, Response, Status};

use super::{events, filters::Filters, status, stream::Streaming};

const KEYS: [&str; 8] = ["container", "event", "image", "label", "network", "type", "volume", "label!"];

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct SystemService {
    engine: Engine,
    /// True once the daemon is to end.
    ending: watch::Receiver<bool>,
}

impl SystemService {
    /// Serves this engine.
    pub(crate) fn new(engine: Engine, ending: watch::Receiver<bool>) -> Self {
        Self { engine, ending }
    }
}

#[tonic::async_trait]
impl System for SystemService {
    type EventsStream = Streaming<own::Event>;

    async fn events(&self, request: Request<own::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let own::EventsRequest { since, until, filters } = request.into_inner();
        let filters = Filters::read(filters, &KEYS)?;
        let (memory, receiver) = self.engine.user_events();
        let wanted = move |event: &UserEvent| (until == 0 || event.at <= until) && takes(&filters, event);
        let told: Vec<_> = match since {
            0 => Vec::new(),
            since => memory.into_iter().filter(|event| event.at >= since && wanted(event)).collect(),
        };
        let rest = Rest { receiver: Some(receiver), ending: self.ending.clone(), until };
        let rest = stream::unfold(rest, |mut rest| async { Some((rest.next().await?, rest)) });
        let rest = rest.filter(move |event| std::future::ready(event.as_ref().map_or(true, &wanted)));
        let all = stream::iter(told.into_iter().map(Ok)).chain(rest).map(|event| event.map(to_proto));
        Ok(Response::new(Box::pin(all)))
    }

    async fn disk_usage(&self, _: Request<own::DiskUsageRequest>) -> Result<Response<own::DiskUsageResponse>, Status> {
        Ok(Response::new(own::DiskUsageResponse {
            images: Some(images_usage(&self.engine)),
            containers: Some(containers_usage(&self.engine).await),
            volumes: Some(volumes_usage(&self.engine).await?),
            build_cache: Some(builds_usage(&self.engine).await),
        }))
    }
}

/// An image is active with any container, a kubelet's too.
fn images_usage(engine: &Engine) -> Usage {
    let images = engine.images();
    let used = |image: &engine::image::ImageInfo| engine.has_image_users(&image.id);
    let (size, reclaimable) = images.layer_bytes(used);
    let all = images.list();
    let active = all.iter().filter(|image| used(image)).count();
    Usage { total: all.len() as u64, active: active as u64, size, reclaimable }
}

async fn containers_usage(engine: &Engine) -> Usage {
    let mut usage = Usage::default();
    for user in engine.users() {
        let size = engine.size_of_user(&user).await;
        usage.total += 1;
        usage.size += size;
        if user.is_running() {
            usage.active += 1;
        } else {
            usage.reclaimable += size;
        }
    }
    usage
}

/// What images have too is theirs.
async fn builds_usage(engine: &Engine) -> Usage {
    let kept = engine.kept_of_builds().await;
    let bytes = |wanted: &dyn Fn(&engine::build::Kept) -> bool| -> u64 {
        kept.iter().filter(|kept| !kept.shared && wanted(kept)).map(|kept| kept.size).sum()
    };
    let active = kept.iter().filter(|kept| kept.in_use).count();
    Usage { total: kept.len() as u64, active: active as u64, size: bytes(&|_| true), reclaimable: bytes(&|kept| !kept.in_use) }
}

async fn volumes_usage(engine: &Engine) -> Result<Usage, Status> {
    let volumes = engine.volumes().clone();
    let count = move || {
        let mut usage = Usage::default();
        for volume in volumes.list() {
            let size = volumes.size(&volume);
            usage.total += 1;
            usage.size += size;
            if volume.used_by.is_empty() {
                usage.reclaimable += size;
            } else {
                usage.active += 1;
            }
        }
        usage
    };
    tokio::task::spawn_blocking(count).await.map_err(|_| status::panicked())
}

/// What is still to come.
struct Rest {
    /// Gone when there is nothing more.
    receiver: Option<broadcast::Receiver<UserEvent>>,
    ending: watch::Receiver<bool>,
    until: i64,
}

impl Rest {
    async fn next(&mut self) -> Option<Result<UserEvent, Status>> {
        let receiver = self.receiver.as_mut()?;
        let (until, ending) = (self.until, &mut self.ending);
        let over = async {
            match u64::try_from(until - events::now()) {
                _ if until == 0 => std::future::pending().await,
                Ok(left) => tokio::time::sleep(Duration::from_nanos(left)).await,
                Err(_) => {}
            }
        };
        let next = tokio::select! {
            biased;
            next = receiver.recv() => next,
            () = over => {
                self.receiver = None;
                return None;
            }
            _ = ending.wait_for(|ending| *ending) => {
                self.receiver = None;
                return Some(Err(status::ending()));
            }
        };
        match next {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                self.receiver = None;
                Some(Err(status::lagged(lost)))
            }
        }
    }
}

/// Whether the filters let it through.
fn takes(filters: &Filters, event: &UserEvent) -> bool {
    let named = |key: &str, kind: UserEventKind, other: &str| {
        let name = event.attributes.get(other);
        filters.any(key, |wanted| match event.kind == kind {
            true => event.id.starts_with(wanted) || name.is_some_and(|name| name == wanted),
            // An image's name is in the events of its containers.
            false => key == "image" && event.attributes.get("image").is_some_and(|image| image == wanted),
        })
    };
    filters.any("type", |kind| kind == event.kind.name())
        && filters.any("event", |action| event.action == action || event.action.split(':').next() == Some(action))
        && named("container", UserEventKind::Container, "name")
        && named("image", UserEventKind::Image, "name")
        && named("volume", UserEventKind::Volume, "name")
        && named("network", UserEventKind::Network, "name")
        && filters.labels(&event.attributes)
}

fn to_proto(event: UserEvent) -> own::Event {
    own::Event {
        r#type: event.kind.name().to_owned(),
        action: event.action,
        id: event.id,
        attributes: event.attributes.into_iter().collect(),
        time: event.at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_events() {
        let attributes = [("name", "web"), ("image", "busybox"), ("tier", "front")];
        let event = UserEvent {
            kind: UserEventKind::Container,
            action: "exec_create: sh".into(),
            id: "abcd".into(),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            at: 1,
        };
        let taken = |pairs: &[(&str, &str)]| {
            let filters = pairs.iter().map(|(k, v)| own::Filter { key: (*k).into(), value: (*v).into() }).collect();
            takes(&Filters::read(filters, &KEYS).unwrap(), &event)
        };
        for (pairs, expected) in [
            (&[][..], true),
            (&[("type", "container")], true),
            (&[("type", "image"), ("type", "container")], true),
            (&[("type", "image")], false),
            (&[("container", "web")], true),
            (&[("container", "abc")], true),
            (&[("container", "db")], false),
            (&[("image", "busybox")], true),
            (&[("volume", "v")], false),
            (&[("event", "exec_create")], true),
            (&[("event", "die")], false),
            (&[("label", "tier=front")], true),
            (&[("label", "tier=back")], false),
        ] {
            assert_eq!(taken(pairs), expected, "{pairs:?}");
        }
    }
}
