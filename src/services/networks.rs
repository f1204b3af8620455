//! creel's own API for networks.

use std::collections::BTreeMap;

use api::creel::{self as own, networks_server::Networks as NetworksApi};
use engine::{
    Engine,
    networks::{BUILT_IN, Error, Member, NewNetwork, UserNetwork},
};
use tonic::{Request, Response, Status};

use super::{containers, filters::Filters, pruning::Pruning, status};

/// The one driver that networks can be made with.
const BRIDGE: &str = "bridge";

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct NetworksService {
    engine: Engine,
    pruning: Pruning,
}

impl NetworksService {
    /// Serves the networks of this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, pruning: Pruning::default() }
    }

    /// What docker would show under this name.
    fn built_in(&self, text: &str) -> Option<own::Network> {
        let (name, driver) = BUILT_IN.into_iter().find(|(name, _)| *name == text || built_in_id(name) == text)?;
        let (subnets, gateways, interface) = match name {
            "bridge" => self.engine.pod_network(),
            _ => Default::default(),
        };
        Some(own::Network {
            id: built_in_id(name),
            name: name.to_owned(),
            driver: driver.to_owned(),
            ipv6: subnets.iter().any(|subnet| subnet.contains(':')),
            subnets,
            gateways,
            interface,
            ..own::Network::default()
        })
    }

    fn network(&self, network: &UserNetwork) -> own::Network {
        own::Network {
            id: network.id.to_string(),
            name: network.name().to_owned(),
            driver: BRIDGE.to_owned(),
            subnets: network.subnets().iter().map(ToString::to_string).collect(),
            gateways: network.gateways().iter().map(ToString::to_string).collect(),
            internal: network.is_internal(),
            labels: network.labels().clone(),
            options: network.options().clone(),
            created_at: network.created_at(),
            members: self.engine.members_of(network).iter().map(member).collect(),
            interface: network.interface(),
            ipv6: network.has_ipv6(),
        }
    }

    fn all(&self) -> Vec<own::Network> {
        let built_in = BUILT_IN.iter().filter_map(|(name, _)| self.built_in(name));
        let mut all: Vec<_> = self.engine.networks().iter().map(|network| self.network(network)).chain(built_in).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// Always the same on every machine, and nobody else's: ids of networks are random. The first digits differ, which are shown.
pub(super) fn built_in_id(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0<64}")
}

fn member(member: &Member) -> own::network::Member {
    let address = |v6: bool| {
        let found = member.addresses.iter().find(|(ip, _)| ip.is_ipv6() == v6);
        found.map(|(ip, length)| format!("{ip}/{length}")).unwrap_or_default()
    };
    own::network::Member {
        container_id: member.container.to_string(),
        name: member.name.clone(),
        ip: address(false),
        ip6: address(true),
        mac: mac(member.mac),
    }
}

/// As people write it.
pub(super) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn failed(error: Error) -> Status {
    status::of_error(error.kind(), &error)
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl NetworksApi for NetworksService {
    async fn create(&self, request: Request<own::CreateNetworkRequest>) -> Answer<own::Network> {
        let own::CreateNetworkRequest { name, driver, subnet, gateway, internal, labels, options, ipv6 } = request.into_inner();
        if !matches!(driver.as_str(), "" | BRIDGE) {
            let driver: String = driver.chars().take(80).collect();
            return Err(Status::not_found(format!("could not find plugin {driver} in v1 plugin registry: plugin not found")));
        }
        let new = NewNetwork { name, subnet, gateway, internal, ipv6, labels, options };
        let made = self.engine.create_network(new).await.map_err(failed)?;
        Ok(Response::new(self.network(&made)))
    }

    async fn list(&self, request: Request<own::ListNetworksRequest>) -> Answer<own::ListNetworksResponse> {
        let known = ["driver", "id", "label", "name", "scope", "type", "dangling"];
        let filters = Filters::read(request.into_inner().filters, &known)?;
        let dangling = filters.flag("dangling")?;
        if let Some(other) = filters.values("type").iter().find(|kind| !matches!(kind.as_str(), "builtin" | "custom")) {
            let other: String = other.chars().take(80).collect();
            return Err(Status::invalid_argument(format!("invalid filter: 'type'='{other}'")));
        }
        let wanted = |network: &own::Network| {
            let built_in = BUILT_IN.iter().any(|(name, _)| *name == network.name);
            filters.any("driver", |driver| driver == network.driver)
                && filters.any("id", |id| network.id.starts_with(id))
                && filters.any("name", |part| network.name.contains(part))
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| (kind == "builtin") == built_in)
                && dangling.is_none_or(|dangling| dangling == (!built_in && network.members.is_empty()))
                && filters.labels(&network.labels)
        };
        let networks = self.all().into_iter().filter(wanted).collect();
        Ok(Response::new(own::ListNetworksResponse { networks }))
    }

    async fn inspect(&self, request: Request<own::NetworkRef>) -> Answer<own::Network> {
        let text = request.into_inner().network;
        match self.built_in(&text) {
            Some(network) => Ok(Response::new(network)),
            None => Ok(Response::new(self.network(&*self.engine.find_network(&text).map_err(failed)?))),
        }
    }

    async fn connect(&self, request: Request<own::ConnectNetworkRequest>) -> Answer<own::ConnectNetworkResponse> {
        let own::ConnectNetworkRequest { container, attachment } = request.into_inner();
        let user = containers::find(&self.engine, &container)?;
        let wanted = containers::attachment(&attachment.unwrap_or_default());
        self.engine.connect_user(&user, wanted).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::ConnectNetworkResponse {}))
    }

    async fn disconnect(&self, request: Request<own::DisconnectNetworkRequest>) -> Answer<own::DisconnectNetworkResponse> {
        let own::DisconnectNetworkRequest { container, network } = request.into_inner();
        let user = containers::find(&self.engine, &container)?;
        self.engine.disconnect_user(&user, &network).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::DisconnectNetworkResponse {}))
    }

    async fn remove(&self, request: Request<own::NetworkRef>) -> Answer<own::RemoveNetworkResponse> {
        self.engine.remove_network(&request.into_inner().network).await.map_err(failed)?;
        Ok(Response::new(own::RemoveNetworkResponse {}))
    }

    async fn prune(&self, request: Request<own::PruneNetworksRequest>) -> Answer<own::PruneNetworksResponse> {
        let _turn = self.pruning.begin()?;
        let filters = Filters::read(request.into_inner().filters, &["until", "label", "label!"])?;
        let until = filters.values("until").iter().map(|text| text.parse::<i64>()).collect::<Result<Vec<_>, _>>();
        let until = until.map_err(|_| status::bad_field("until", "not in seconds since 1970"))?;
        let old = |created_at: i64| until.iter().all(|until| created_at / 1_000_000_000 < *until);
        let mut names = Vec::new();
        let used = self.engine.networks_in_use();
        for network in self.engine.networks() {
            let labels: &BTreeMap<String, String> = network.labels();
            if !old(network.created_at()) || !filters.labels(labels) || used.contains(&network.id) {
                continue;
            }
            match self.engine.remove_network(&network.id.to_string()).await {
                Ok(network) => names.push(network.name().to_owned()),
                // Somebody was faster, one way or the other.
                Err(Error::InUse { .. } | Error::Missing(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Response::new(own::PruneNetworksResponse { names }))
    }
}
