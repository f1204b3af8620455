//! `creel network`.

use api::creel::{
    ConnectNetworkRequest, CreateNetworkRequest, DisconnectNetworkRequest, ListNetworksRequest, Network, NetworkAttachment,
    NetworkRef, PruneNetworksRequest,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::Client,
    each::Each,
    error::{self, Error, Exit},
    format::Format,
    output, rmi, time,
    volume::{filters, pairs},
};

/// `creel network`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a network
    Create(Box<Create>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
        /// driver=, id=, label=, name=, scope=, type=builtin|custom, dangling=
        #[arg(short, long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
    /// Show everything about networks, as JSON
    Inspect {
        /// A Go template
        #[arg(short = 'f', value_name = "TEMPLATE")]
        template: Option<Format>,
        /// Names or ids
        #[arg(required = true, add = crate::container::complete::networks())]
        networks: Vec<String>,
    },
    /// Remove networks that no running container is in
    #[command(visible_alias = "remove")]
    Rm {
        /// One that is not there is no error
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true, add = crate::container::complete::networks())]
        networks: Vec<String>,
    },
    /// Put a container into a network, at once if it runs
    Connect {
        /// Another name of it in there
        #[arg(long, value_name = "NAME")]
        alias: Vec<String>,
        /// Its address in there
        #[arg(long, alias = "ip6", value_name = "ADDRESS")]
        ip: Option<String>,
        /// Name or id
        network: String,
        /// Name or id
        #[arg(add = crate::container::complete::containers())]
        container: String,
    },
    /// Take a container out of a network, at once if it runs
    Disconnect {
        /// One that is not there is no error
        #[arg(short, long)]
        force: bool,
        /// Name or id
        network: String,
        /// Name or id
        #[arg(add = crate::container::complete::containers())]
        container: String,
    },
    /// Remove networks that no container uses
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// until=, label=, label!=
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
}

/// `creel network create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Driver; there is only `bridge`
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Range of addresses; a free one if not given
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,
    /// Address of this machine in it: the first one
    #[arg(long, value_name = "IP")]
    gateway: Option<String>,
    /// No way out of it
    #[arg(long)]
    internal: bool,
    /// Addresses of IPv6 too
    #[arg(long)]
    ipv6: bool,
    /// Label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// docker's option of bridges: com.docker.network.driver.mtu, com.docker.network.bridge.enable_ip_masquerade
    #[arg(short, long = "opt", value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Name
    name: String,
}

/// Does it.
pub(crate) async fn network(client: &mut Client, format: &Format, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Create(args) => create(client, *args).await,
        Command::Ls { quiet, no_trunc, filter } => list(client, format, (quiet, no_trunc), &filter).await,
        Command::Inspect { template, networks } => inspect(client, template.as_ref().unwrap_or(format), &networks).await,
        Command::Connect { alias, ip, network, container } => {
            let attachment = NetworkAttachment { network, aliases: alias, ip: ip.unwrap_or_default() };
            let request = ConnectNetworkRequest { container, attachment: Some(attachment) };
            client.networks.connect(request).await.map_err(error::daemon)?;
            Ok(Exit(0))
        }
        Command::Disconnect { force, network, container } => {
            match client.networks.disconnect(DisconnectNetworkRequest { container, network }).await {
                Err(status) if !(force && status.code() == tonic::Code::NotFound) => Err(error::daemon(status)),
                _ => Ok(Exit(0)),
            }
        }
        Command::Rm { force, networks } => remove(client, force, networks).await,
        Command::Prune { force, filter } => prune(client, force, &filter).await,
    }
}

async fn create(client: &mut Client, args: Create) -> Result<Exit, Error> {
    let request = CreateNetworkRequest {
        name: args.name,
        driver: args.driver,
        subnet: args.subnet.unwrap_or_default(),
        gateway: args.gateway.unwrap_or_default(),
        internal: args.internal,
        ipv6: args.ipv6,
        labels: pairs("--label", &args.label)?,
        options: pairs("--opt", &args.opt)?,
    };
    let made = client.networks.create(request).await.map_err(error::daemon)?.into_inner();
    output::print(&format!("{}\n", made.id))?;
    Ok(Exit(0))
}

async fn list(client: &mut Client, format: &Format, (quiet, no_trunc): (bool, bool), filter: &[String]) -> Result<Exit, Error> {
    let request = ListNetworksRequest { filters: filters(filter)? };
    let networks = client.networks.list(request).await.map_err(error::daemon)?.into_inner().networks;
    let id = |network: &Network| if no_trunc { network.id.clone() } else { output::short(&network.id) };
    if quiet {
        output::lines(networks.iter().map(id))?;
        return Ok(Exit(0));
    }
    let labels = |network: &Network| network.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let value = |network: &Network| {
        json!({
            "ID": id(network), "Name": network.name, "Driver": network.driver, "Scope": "local", "Labels": labels(network),
            "IPv6": network.ipv6.to_string(), "Internal": network.internal.to_string(),
            "CreatedAt": time::rfc3339(network.created_at),
        })
    };
    let values: Vec<Value> = networks.iter().map(value).collect();
    format.print(&values, || {
        let row = |network: &Network| vec![id(network), network.name.clone(), network.driver.clone(), "local".to_owned()];
        output::table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &networks.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(Exit(0))
}

async fn inspect(client: &mut Client, format: &Format, names: &[String]) -> Result<Exit, Error> {
    let (mut found, mut each) = (Vec::new(), Each::default());
    for name in names {
        let network = client.networks.inspect(NetworkRef { network: name.clone() }).await;
        found.extend(each.note(network).map(|network| value(&network.into_inner())));
    }
    format.inspected(&found)?;
    each.exit()
}

/// With docker's names for everything.
pub(crate) fn value(network: &Network) -> Value {
    let ranges = network.subnets.iter().zip(&network.gateways);
    let members = network.members.iter().map(|member| {
        let value = json!({
            "Name": member.name, "MacAddress": member.mac, "IPv4Address": member.ip, "IPv6Address": member.ip6,
        });
        (member.container_id.clone(), value)
    });
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time::rfc3339(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Config": ranges.map(|(subnet, gateway)| json!({"Subnet": subnet, "Gateway": gateway})).collect::<Vec<_>>(),
        },
        "Internal": network.internal,
        "Containers": members.collect::<serde_json::Map<_, _>>(),
        "Options": network.options,
        "Labels": network.labels,
        "Interface": network.interface,
    })
}

async fn remove(client: &mut Client, force: bool, names: Vec<String>) -> Result<Exit, Error> {
    let mut each = Each::default();
    for name in names {
        match client.networks.remove(NetworkRef { network: name.clone() }).await {
            Err(status) if force && status.code() == tonic::Code::NotFound => each.say(&status),
            removed => {
                if each.note(removed).is_some() {
                    output::print(&format!("{name}\n"))?;
                }
            }
        }
    }
    each.exit()
}

async fn prune(client: &mut Client, force: bool, filter: &[String]) -> Result<Exit, Error> {
    let mut request = PruneNetworksRequest { filters: filters(filter)? };
    for filter in request.filters.iter_mut().filter(|filter| filter.key == "until") {
        let wrong =
            || Error::Option { option: "--filter", value: filter.value.clone(), why: "not a time or a duration".to_owned() };
        filter.value = time::point(&filter.value).ok_or_else(wrong)?.to_string();
    }
    if !force && !rmi::confirmed("WARNING! This will remove all custom networks not used by at least one container.")? {
        return Ok(Exit(0));
    }
    let pruned = client.networks.prune(request).await.map_err(error::daemon)?.into_inner();
    if !pruned.names.is_empty() {
        output::print(&format!("Deleted Networks:\n{}\n\n", pruned.names.join("\n")))?;
    }
    Ok(Exit(0))
}
