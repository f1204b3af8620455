//! `creel volume`.

use std::collections::BTreeMap;

use api::creel::{CreateVolumeRequest, Filter, ListVolumesRequest, PruneVolumesRequest, RemoveVolumeRequest, Volume, VolumeRef};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::Client,
    each::Each,
    error::{self, Error, Exit},
    format::Format,
    output, rmi, time,
};

/// `creel volume`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a volume
    Create(Create),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only names
        #[arg(short, long)]
        quiet: bool,
        /// dangling=, driver=, label=, name=
        #[arg(short, long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
    /// Show everything about volumes, as JSON
    Inspect {
        /// A Go template
        #[arg(short = 'f', value_name = "TEMPLATE")]
        template: Option<Format>,
        /// Names
        #[arg(required = true, add = crate::container::complete::volumes())]
        volumes: Vec<String>,
    },
    /// Remove volumes with what is in them
    #[command(visible_alias = "remove")]
    Rm {
        /// One that is not there is no error
        #[arg(short, long)]
        force: bool,
        /// Names
        #[arg(required = true, add = crate::container::complete::volumes())]
        volumes: Vec<String>,
    },
    /// Remove volumes that no container has
    Prune {
        /// Also those that have a name of their own
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// label=, label!=
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
}

/// `creel volume create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Driver; there is only `local`
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Of a directory of this machine: type=none, o=bind, device=PATH
    #[arg(short, long = "opt", value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Name; one is invented if not given
    name: Option<String>,
}

/// Does it.
pub(crate) async fn volume(client: &mut Client, format: &Format, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Create(args) => create(client, args).await,
        Command::Ls { quiet, filter } => list(client, format, quiet, &filter).await,
        Command::Inspect { template, volumes } => inspect(client, template.as_ref().unwrap_or(format), &volumes).await,
        Command::Rm { force, volumes } => remove(client, force, volumes).await,
        Command::Prune { all, force, filter } => prune(client, all, force, &filter).await,
    }
}

/// `KEY=VALUE` filters for the daemon.
pub(crate) fn filters(texts: &[String]) -> Result<Vec<Filter>, Error> {
    let wrong = |text: &str| Error::Option { option: "--filter", value: text.to_owned(), why: "not KEY=VALUE".to_owned() };
    let read = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| wrong(text))?;
        Ok(Filter { key: key.trim().to_lowercase(), value: value.trim().to_owned() })
    };
    texts.iter().map(read).collect()
}

/// `NAME=VALUE` and `NAME`; a later one replaces an earlier one.
pub(crate) fn pairs(option: &'static str, texts: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let read = |text: &String| match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err(Error::Option { option, value: text.clone(), why: "has no name".to_owned() }),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    };
    texts.iter().map(read).collect()
}

async fn create(client: &mut Client, args: Create) -> Result<Exit, Error> {
    let request = CreateVolumeRequest {
        name: args.name.unwrap_or_default(),
        driver: args.driver,
        options: pairs("--opt", &args.opt)?,
        labels: pairs("--label", &args.label)?,
    };
    let made = client.volumes.create(request).await.map_err(error::daemon)?.into_inner();
    output::print(&format!("{}\n", made.name))?;
    Ok(Exit(0))
}

async fn list(client: &mut Client, format: &Format, quiet: bool, filter: &[String]) -> Result<Exit, Error> {
    let request = ListVolumesRequest { filters: filters(filter)?, size: false };
    let volumes = client.volumes.list(request).await.map_err(error::daemon)?.into_inner().volumes;
    if quiet {
        output::lines(volumes.iter().map(|volume| volume.name.clone()))?;
        return Ok(Exit(0));
    }
    let labels = |volume: &Volume| volume.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let value = |volume: &Volume| {
        json!({
            "Name": volume.name, "Driver": volume.driver, "Scope": "local", "Mountpoint": volume.mountpoint,
            "Labels": labels(volume), "Links": volume.used_by.len().to_string(), "Size": "N/A",
        })
    };
    let values: Vec<Value> = volumes.iter().map(value).collect();
    format.print(&values, || {
        let row = |volume: &Volume| vec![volume.driver.clone(), volume.name.clone()];
        output::table(&["DRIVER", "VOLUME NAME"], &volumes.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(Exit(0))
}

async fn inspect(client: &mut Client, format: &Format, names: &[String]) -> Result<Exit, Error> {
    let (mut found, mut each) = (Vec::new(), Each::default());
    for name in names {
        let volume = client.volumes.inspect(VolumeRef { name: name.clone() }).await;
        found.extend(each.note(volume).map(|volume| value(&volume.into_inner())));
    }
    format.inspected(&found)?;
    each.exit()
}

/// With docker's names for everything.
pub(crate) fn value(volume: &Volume) -> Value {
    json!({
        "CreatedAt": time::rfc3339(volume.created_at),
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
        "UsedBy": volume.used_by,
        "Anonymous": volume.anonymous,
    })
}

async fn remove(client: &mut Client, force: bool, names: Vec<String>) -> Result<Exit, Error> {
    let mut each = Each::default();
    for name in names {
        let removed = client.volumes.remove(RemoveVolumeRequest { name: name.clone(), force }).await;
        if each.note(removed).is_some() {
            output::print(&format!("{name}\n"))?;
        }
    }
    each.exit()
}

async fn prune(client: &mut Client, all: bool, force: bool, filter: &[String]) -> Result<Exit, Error> {
    let warning = if all {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    let request = PruneVolumesRequest { all, filters: filters(filter)? };
    if !force && !rmi::confirmed(warning)? {
        return Ok(Exit(0));
    }
    let pruned = client.volumes.prune(request).await.map_err(error::daemon)?.into_inner();
    if !pruned.names.is_empty() {
        output::print(&format!("Deleted Volumes:\n{}\n\n", pruned.names.join("\n")))?;
    }
    output::print(&format!("Total reclaimed space: {}\n", output::bytes(pruned.reclaimed)))?;
    Ok(Exit(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_filters() {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let read = pairs("--opt", &owned(&["o=bind,uid=3", "a", "a=b=c"])).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [("a".into(), "b=c".into()), ("o".into(), "bind,uid=3".into())]);
        assert!(pairs("--opt", &owned(&["=x"])).is_err());
        let read = filters(&owned(&["label!=a=b"])).unwrap();
        assert_eq!((read[0].key.as_str(), read[0].value.as_str()), ("label!", "a=b"));
        assert!(filters(&owned(&["dangling"])).is_err());
    }
}
