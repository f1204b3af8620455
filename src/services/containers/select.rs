//! Which containers a list or a clean-up takes.

use std::sync::Arc;

use api::creel as own;
use engine::{
    Engine,
    user::{UserContainer, UserStatus},
};
use model::{pod::PortMapping, user::UserMountKind};
use tonic::Status;

use super::{
    super::{filters::Filters, status},
    convert::{invalid, shown},
    view,
};

const KEYS: [&str; 15] = [
    "id", "name", "label", "exited", "status", "ancestor", "before", "since", "volume", "network", "publish", "expose", "health",
    "is-task", "label!",
];
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// Containers that are wanted, newest first.
pub(super) fn users(engine: &Engine, request: &own::ListContainersRequest) -> Result<Vec<Arc<UserContainer>>, Status> {
    let filters = Filters::read(request.filters.clone(), &KEYS)?;
    check(&filters)?;
    let wanted = Wanted::new(engine, &filters)?;
    // Whoever asks for a state means those that do not run too.
    let all = request.all || request.last > 0 || !filters.values("status").is_empty();
    let mut users: Vec<_> = engine.users().into_iter().rev().collect();
    users.retain(|user| (all || user.is_running() || user.state().status == UserStatus::Restarting) && wanted.takes(user));
    if request.last > 0 {
        users.truncate(request.last as usize);
    }
    Ok(users)
}

fn check(filters: &Filters) -> Result<(), Status> {
    let bad = |key: &str, value: &str| Err(invalid(format!("invalid filter '{key}={}'", shown(value))));
    if let Some(state) = filters.values("status").iter().find(|state| !STATES.contains(&state.as_str())) {
        return bad("status", state);
    }
    if let Some(code) = filters.values("exited").iter().find(|code| code.parse::<i32>().is_err()) {
        return bad("exited", code);
    }
    let health = |health: &&String| !matches!(health.as_str(), "starting" | "healthy" | "unhealthy" | "none");
    if let Some(health) = filters.values("health").iter().find(health) {
        return bad("health", health);
    }
    filters.flag("is-task").map(drop)
}

/// Filters with what they name looked up.
struct Wanted<'a> {
    engine: &'a Engine,
    filters: &'a Filters,
    before: Option<i64>,
    since: Option<i64>,
    ports: Vec<Ports>,
    exposed: Vec<Ports>,
}

impl<'a> Wanted<'a> {
    fn new(engine: &'a Engine, filters: &'a Filters) -> Result<Self, Status> {
        let times = |key: &str| -> Result<Vec<i64>, Status> {
            let time = |text: &String| engine.user(text).map(|user| user.created_at).map_err(|e| status::of_engine(&e));
            filters.values(key).iter().map(time).collect()
        };
        let ports = |key: &str| filters.values(key).iter().map(|text| Ports::read(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            engine,
            filters,
            before: times("before")?.into_iter().min(),
            since: times("since")?.into_iter().max(),
            ports: ports("publish")?,
            exposed: ports("expose")?,
        })
    }

    fn takes(&self, user: &UserContainer) -> bool {
        let (filters, state, spec) = (self.filters, user.state(), user.spec());
        let name = user.name();
        filters.any("id", |id| user.id.to_string().starts_with(id))
            && filters.any("name", |part| name_fits(&name, part))
            && filters.labels(&view::labels(user, &spec.container.labels))
            && filters.any("status", |wanted| wanted == word(state.status))
            && filters.any("exited", |code| state.status == UserStatus::Exited && code.parse() == Ok(state.exit_code))
            && filters.any("health", |wanted| wanted == state.health.as_ref().map_or("none", |health| health.status.name()))
            && filters.any("is-task", |task| matches!(task, "false" | "0"))
            && self.before.is_none_or(|before| user.created_at < before)
            && self.since.is_none_or(|since| user.created_at > since)
            && filters.any("ancestor", |image| self.descends(user, image))
            && filters.any("network", |wanted| user.networks().iter().any(|network| wanted == view::network_name(&network.name)))
            && filters.any("volume", |wanted| mounts(user, wanted))
            && (self.ports.is_empty() || self.ports.iter().any(|ports| spec.network.ports.iter().any(|port| ports.have(port))))
            && (self.exposed.is_empty() || self.exposed.iter().any(|ports| ports.exposed(user)))
    }

    /// Made of this image, or of one on top of it.
    fn descends(&self, user: &UserContainer, image: &str) -> bool {
        let bare = image.strip_prefix("sha256:").unwrap_or(image);
        let id = user.image.id.to_string();
        let by_id = bare.len() >= 4 && id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(bare));
        by_id
            || self.engine.images().status(image).is_some_and(|image| {
                image.id == user.image.id || (!image.layers.is_empty() && user.layers().starts_with(&image.layers))
            })
    }
}

/// docker takes regular expressions here; a part of the name and its ends is what people write.
fn name_fits(name: &str, part: &str) -> bool {
    let (part, front) = part.strip_prefix('^').map_or((part, false), |part| (part, true));
    let (part, end) = part.strip_suffix('$').map_or((part, false), |part| (part, true));
    let part = part.strip_prefix('/').unwrap_or(part);
    match (front, end) {
        (true, true) => name == part,
        (true, false) => name.starts_with(part),
        (false, true) => name.ends_with(part),
        (false, false) => name.contains(part),
    }
}

fn word(status: UserStatus) -> &'static str {
    match status {
        UserStatus::Created => "created",
        UserStatus::Running => "running",
        UserStatus::Paused => "paused",
        UserStatus::Restarting => "restarting",
        UserStatus::Exited => "exited",
        UserStatus::Removing => "removing",
    }
}

fn mounts(user: &UserContainer, wanted: &str) -> bool {
    let spec = user.spec();
    let bound =
        |mount: &model::user::UserMount| mount.kind != UserMountKind::Volume && (mount.source == wanted || mount.target == wanted);
    spec.mounts.iter().any(bound) || user.volumes().iter().any(|volume| volume.name == wanted || volume.target == wanted)
}

/// `PORT[-PORT][/PROTOCOL]`
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Ports {
    fn read(text: &str) -> Result<Self, Status> {
        let bad = || invalid(format!("invalid filter 'publish={}'", shown(text)));
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        Ok(Self { first, last, protocol: protocol.to_owned() })
    }

    fn have(&self, port: &PortMapping) -> bool {
        let protocol = format!("{:?}", port.protocol).to_lowercase();
        protocol == self.protocol && (self.first..=self.last).contains(&port.container_port)
    }

    fn exposed(&self, user: &UserContainer) -> bool {
        let network = user.spec().network;
        let exposed = network.exposed.iter().any(|text| {
            let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            protocol == self.protocol && number.parse().is_ok_and(|number| (self.first..=self.last).contains(&number))
        });
        exposed || network.ports.iter().any(|port| self.have(port))
    }
}

/// Whether a clean-up takes a container that does not run.
pub(super) fn prunes(user: &UserContainer, request: &own::PruneContainersRequest) -> bool {
    let labels = view::labels(user, &user.spec().container.labels);
    let has = |wanted: &String| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    };
    (request.until == 0 || user.created_at / 1_000_000_000 < request.until)
        && request.labels.iter().all(has)
        && !request.without_labels.iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports() {
        for (part, fits) in [("we", true), ("^web$", true), ("^/web$", true), ("^eb", false), ("b$", true), ("web1", false)] {
            assert_eq!(name_fits("web", part), fits, "{part}");
        }
        let port = PortMapping { protocol: model::pod::Protocol::Udp, container_port: 53, host_port: 1, host_ip: None };
        for (text, has) in [("53/udp", true), ("53", false), ("50-60/udp", true), ("54/udp", false)] {
            assert_eq!(Ports::read(text).unwrap().have(&port), has, "{text}");
        }
        assert!(Ports::read("x").is_err());
    }
}
