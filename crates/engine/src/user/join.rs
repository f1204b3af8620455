//! Containers of people come into networks and leave them, running or not.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use model::{
    ErrorKind,
    pod::Dns,
    user::{OwnNetwork, UserNetwork},
};

use super::{
    UserContainer,
    networks::{self, BRIDGE},
    shares,
};
use crate::{
    Engine, Inner,
    blocking::blocking,
    error::{About, Error, Step},
    pod::Pod,
    spec,
    user::UserEventKind,
};

fn refuse<T>(kind: ErrorKind, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(kind, About::Words, why))
}

impl Engine {
    /// Puts a container into a network of people's, at once if it runs.
    ///
    /// # Errors
    /// It is in it already; it has no network of its own; an address that cannot be.
    pub async fn connect_user(&self, user: &Arc<UserContainer>, wanted: UserNetwork) -> Result<(), Error> {
        let (inner, user) = (self.inner().clone(), user.clone());
        let connecting = inner.clone();
        inner.detached(About::Words, async move { connecting.connect(&user, wanted).await }).await
    }

    /// Takes a container out of a network, at once if it runs.
    ///
    /// # Errors
    /// It is not in it, or cannot leave it.
    pub async fn disconnect_user(&self, user: &Arc<UserContainer>, network: &str) -> Result<(), Error> {
        let (inner, user, network) = (self.inner().clone(), user.clone(), network.to_owned());
        let disconnecting = inner.clone();
        inner.detached(About::Words, async move { disconnecting.disconnect(&user, &network).await }).await
    }
}

impl Inner {
    async fn connect(self: &Arc<Self>, user: &Arc<UserContainer>, wanted: UserNetwork) -> Result<(), Error> {
        let _ops = user.ops.lock().await;
        let spec = user.spec();
        may_change(&spec.network.name, &wanted.name)?;
        if BRIDGE.contains(&wanted.name.as_str()) {
            return self.connect_to_pods(user, wanted).await;
        }
        let network = networks::find(self, &wanted.name)?;
        let there =
            |other: &UserNetwork| networks::own(self, &other.name).is_ok_and(|own| own.is_some_and(|own| own.id == network.id));
        if all(&spec.network, &spec.more_networks).any(there) {
            let why = format!("endpoint with name {} already exists in network {}", user.name(), network.name());
            return refuse(ErrorKind::PermissionDenied, why);
        }
        networks::check_one(self, &wanted)?;
        if user.is_running() {
            let container = self.running_user(user)?;
            let ip = if wanted.ip.is_empty() { None } else { Some(networks::address(&wanted.ip)?) };
            self.join_network(&container.pod, OwnNetwork { id: network.id, ip }).await?;
        }
        user.change(self, |record| {
            let spec = &mut record.spec;
            if spec.network.name == "none" {
                // It was in no network: this is its first one.
                spec.network = UserNetwork { name: wanted.name, aliases: wanted.aliases, ip: wanted.ip, ..spec.network.clone() };
            } else {
                spec.more_networks.push(wanted);
            }
        })
        .await?;
        self.names_anew(user).await?;
        self.tell_connection(user, "connect", (&network.id.to_string(), network.name()));
        Ok(())
    }

    /// The network of all pods is the first one of a run or none of it.
    async fn connect_to_pods(self: &Arc<Self>, user: &Arc<UserContainer>, wanted: UserNetwork) -> Result<(), Error> {
        let spec = user.spec();
        if !wanted.aliases.is_empty() || !wanted.ip.is_empty() {
            return refuse(
                ErrorKind::InvalidArgument,
                "user specified IP address and aliases are supported on user defined networks only",
            );
        }
        if all(&spec.network, &spec.more_networks).any(|other| BRIDGE.contains(&other.name.as_str())) {
            let why = format!("endpoint with name {} already exists in network bridge", user.name());
            return refuse(ErrorKind::PermissionDenied, why);
        }
        if user.is_running() {
            let why = "network bridge: a container that runs cannot come into it, stop it before";
            return refuse(ErrorKind::Unsupported, why);
        }
        user.change(self, |record| {
            let spec = &mut record.spec;
            let before = spec.network.clone();
            spec.network = UserNetwork { name: wanted.name, aliases: Vec::new(), ip: String::new(), ..before.clone() };
            if before.name != "none" {
                let UserNetwork { name, aliases, ip, .. } = before;
                spec.more_networks.insert(0, UserNetwork { name, aliases, ip, ..UserNetwork::default() });
            }
        })
        .await?;
        self.tell_connection(user, "connect", ("bridge", "bridge"));
        Ok(())
    }

    async fn disconnect(self: &Arc<Self>, user: &Arc<UserContainer>, name: &str) -> Result<(), Error> {
        let _ops = user.ops.lock().await;
        let spec = user.spec();
        may_change(&spec.network.name, name)?;
        let wanted = if BRIDGE.contains(&name) { None } else { Some(networks::find(self, name)?) };
        let id = wanted.as_ref().map(|network| network.id);
        let is = |other: &UserNetwork| match id {
            None => BRIDGE.contains(&other.name.as_str()),
            Some(id) => networks::own(self, &other.name).is_ok_and(|own| own.is_some_and(|own| own.id == id)),
        };
        let Some(at) = all(&spec.network, &spec.more_networks).position(is) else {
            return refuse(ErrorKind::PermissionDenied, format!("container {} is not connected to network {name}", user.id));
        };
        if user.is_running() {
            let container = self.running_user(user)?;
            self.leave_network(&container.pod, id).await?;
        }
        user.change(self, |record| {
            let spec = &mut record.spec;
            match at.checked_sub(1) {
                Some(later) => drop(spec.more_networks.remove(later)),
                None => {
                    let next = if spec.more_networks.is_empty() { None } else { Some(spec.more_networks.remove(0)) };
                    let next = next.unwrap_or(UserNetwork { name: "none".to_owned(), ..UserNetwork::default() });
                    spec.network = UserNetwork { name: next.name, aliases: next.aliases, ip: next.ip, ..spec.network.clone() };
                }
            }
        })
        .await?;
        self.names_anew(user).await?;
        let id = id.map_or("bridge".to_owned(), |id| id.to_string());
        self.tell_connection(user, "disconnect", (&id, wanted.as_ref().map_or("bridge", |network| network.name())));
        Ok(())
    }

    /// Names are asked for elsewhere from now on.
    async fn names_anew(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<(), Error> {
        let Ok(container) = self.running_user(user) else { return Ok(()) };
        let record = user.now.borrow().record.clone();
        let dns = networks::dns(self, &record.spec).await?;
        let dir = container.pod.paths.dir.clone();
        blocking(move || spec::files::rewrite_resolv_conf(dns.as_ref(), &dir)).await.step(user.id, "write resolv.conf")
    }

    /// Puts a pod that has just been made into the further networks of its container.
    pub(super) async fn join_more(self: &Arc<Self>, pod: &Arc<Pod>, more: &[UserNetwork]) -> Result<(), Error> {
        for wanted in more {
            let id = networks::find(self, &wanted.name)?.id;
            let ip: Option<IpAddr> = if wanted.ip.is_empty() { None } else { Some(networks::address(&wanted.ip)?) };
            self.join_network(pod, OwnNetwork { id, ip }).await?;
        }
        Ok(())
    }

    fn tell_connection(&self, user: &UserContainer, action: &str, (id, name): (&str, &str)) {
        let attributes = [("container", user.id.to_string()), ("name", name.to_owned()), ("type", "bridge".to_owned())];
        let attributes: BTreeMap<String, String> = attributes.map(|(key, value)| (key.to_owned(), value)).into();
        self.bus.tell(UserEventKind::Network, action, id, attributes);
    }
}

/// The networks of a container, the first one first.
pub(super) fn all<'s>(first: &'s UserNetwork, more: &'s [UserNetwork]) -> impl Iterator<Item = &'s UserNetwork> {
    std::iter::once(first).chain(more)
}

/// docker's words for what has no networks that change.
fn may_change(own: &str, wanted: &str) -> Result<(), Error> {
    if own == "host" || wanted == "host" {
        let why = "container cannot be disconnected from host network or connected to host network";
        return refuse(ErrorKind::InvalidArgument, why);
    }
    if shares::network_of(own).is_some() {
        let why = "container sharing network namespace with another container or host cannot be connected to any other network";
        return refuse(ErrorKind::InvalidArgument, why);
    }
    if wanted == "none" || shares::network_of(wanted).is_some() {
        return refuse(ErrorKind::InvalidArgument, format!("container cannot be connected to network {wanted}"));
    }
    Ok(())
}

/// Asks the network's own servers, which know the names of containers.
pub(super) fn asking(dns: Option<Dns>, gateways: &[IpAddr], searches: Vec<String>) -> Dns {
    /// With it, names without dots are asked for as they are first: those of containers are.
    const NDOTS: &str = "ndots:";
    let mut dns = dns.unwrap_or_default();
    dns.servers = gateways.iter().map(ToString::to_string).collect();
    if dns.searches.is_empty() {
        dns.searches = searches;
    }
    if !dns.options.iter().any(|option| option.starts_with(NDOTS)) {
        dns.options.push(format!("{NDOTS}0"));
    }
    dns
}
