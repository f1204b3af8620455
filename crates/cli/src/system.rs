//! `creel system`: what takes the disk, and what of it can go.

use api::creel::{
    ContainerSummary, DiskUsageRequest, Filter, ImageSummary, ListContainersRequest, ListVolumesRequest, PruneBuildsRequest,
    PruneContainersRequest, PruneImagesRequest, PruneNetworksRequest, PruneVolumesRequest, Volume, disk_usage_response::Usage,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::Client,
    container,
    error::{self, Error, Exit},
    format::Format,
    images, info, name, output, rmi, time,
};

/// `creel system`
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Show what takes the disk
    Df {
        /// Each image, container and volume
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove containers that have ended, networks and images that nobody uses
    Prune(Prune),
    /// Show what the engine is and what it found on this machine
    Info,
    /// Show what happens
    Events(container::args::Events),
}

/// `creel system prune`
#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// Every image without a container; else only those without a name
    #[arg(short, long)]
    all: bool,
    /// Anonymous volumes that no container has, too
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// until=, label=, label!=
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Does it.
pub(crate) async fn system(client: &mut Client, format: &Format, command: System) -> Result<Exit, Error> {
    match command {
        System::Df { verbose: false } => usage(client, format).await,
        System::Df { verbose: true } => verbose(client).await,
        System::Prune(args) => prune(client, &args).await,
        System::Info => info::info(client, format).await,
        System::Events(args) => container::events::events(client, format, &args).await,
    }
}

async fn usage(client: &mut Client, format: &Format) -> Result<Exit, Error> {
    let usage = client.system.disk_usage(DiskUsageRequest {}).await.map_err(error::daemon)?.into_inner();
    let kinds = [
        ("Images", usage.images),
        ("Containers", usage.containers),
        ("Local Volumes", usage.volumes),
        ("Build Cache", usage.build_cache),
    ];
    let rows: Vec<Vec<String>> = kinds.iter().map(|(kind, usage)| row(kind, &usage.unwrap_or_default())).collect();
    let value =
        |row: &Vec<String>| json!({"Type": row[0], "TotalCount": row[1], "Active": row[2], "Size": row[3], "Reclaimable": row[4]});
    let values: Vec<Value> = rows.iter().map(value).collect();
    format.print(&values, || output::table(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &rows))?;
    Ok(Exit(0))
}

fn row(kind: &str, usage: &Usage) -> Vec<String> {
    let share = match usage.size {
        0 => String::new(),
        size => format!(" ({}%)", u128::from(usage.reclaimable) * 100 / u128::from(size)),
    };
    let reclaimable = output::space(usage.reclaimable) + &share;
    vec![kind.to_owned(), usage.total.to_string(), usage.active.to_string(), output::space(usage.size), reclaimable]
}

async fn verbose(client: &mut Client) -> Result<Exit, Error> {
    let all = images::all(client).await?;
    let request = ListContainersRequest { all: true, size: true, ..ListContainersRequest::default() };
    let containers = client.containers.list(request).await.map_err(error::daemon)?.into_inner().containers;
    let request = ListVolumesRequest { filters: Vec::new(), size: true };
    let volumes = client.volumes.list(request).await.map_err(error::daemon)?.into_inner().volumes;
    let header = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    let rows: Vec<Vec<String>> = all.iter().flat_map(image_rows).collect();
    let mut text = format!("Images space usage:\n\n{}\n", output::table(&header, &rows));
    let header = ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "NAMES"];
    let rows: Vec<Vec<String>> = containers.iter().map(container_row).collect();
    text.push_str(&format!("Containers space usage:\n\n{}\n", output::table(&header, &rows)));
    let rows: Vec<Vec<String>> = volumes.iter().map(volume_row).collect();
    text.push_str(&format!("Local Volumes space usage:\n\n{}\n", output::table(&["VOLUME NAME", "LINKS", "SIZE"], &rows)));
    text.push_str(&crate::build::kept::usage(client).await?);
    output::print(&text)?;
    Ok(Exit(0))
}

fn image_rows(image: &ImageSummary) -> Vec<Vec<String>> {
    let none = || "<none>".to_owned();
    let mut names: Vec<(String, String)> = image
        .tags
        .iter()
        .filter_map(|tag| tag.rsplit_once(':'))
        .map(|(full, tag)| (name::familiar(full), tag.to_owned()))
        .collect();
    if names.is_empty() {
        let repository = image.digests.first().and_then(|digest| digest.split_once('@')).map(|(full, _)| name::familiar(full));
        names.push((repository.unwrap_or_else(none), none()));
    }
    let row = |(repository, tag)| {
        vec![
            repository,
            tag,
            output::short(&image.id),
            time::since(&image.created),
            output::bytes(image.size),
            output::bytes(image.shared_size),
            output::bytes(image.unique_size),
            image.containers.to_string(),
        ]
    };
    names.into_iter().map(row).collect()
}

fn container_row(container: &ContainerSummary) -> Vec<String> {
    let command = container.command.join(" ");
    let command: String = if command.chars().count() > 20 { command.chars().take(19).chain(['…']).collect() } else { command };
    let volumes = container.mounts.iter().filter(|source| !source.starts_with('/')).count();
    vec![
        output::short(&container.id),
        container.image.clone(),
        format!("\"{command}\""),
        volumes.to_string(),
        output::bytes(container.size_rw),
        format!("{} ago", output::age(container.created_at)),
        container.name.clone(),
    ]
}

fn volume_row(volume: &Volume) -> Vec<String> {
    let size = volume.size.map_or_else(|| "N/A".to_owned(), output::bytes);
    vec![volume.name.clone(), volume.used_by.len().to_string(), size]
}

/// In docker's order, so that what one step sets free can go in the next.
async fn prune(client: &mut Client, args: &Prune) -> Result<Exit, Error> {
    let filters = crate::volume::filters(&args.filter)?;
    let mut images = PruneImagesRequest { all: args.all, ..PruneImagesRequest::default() };
    for filter in &filters {
        let wrong = |why: &str| Error::Option {
            option: "--filter",
            value: format!("{}={}", filter.key, filter.value),
            why: why.to_owned(),
        };
        match filter.key.as_str() {
            "until" if args.volumes => return Err(wrong("does not go with --volumes")),
            "until" => images.until = time::point(&filter.value).ok_or_else(|| wrong("not a time or a duration"))?,
            "label" => images.labels.push(filter.value.clone()),
            "label!" => images.without_labels.push(filter.value.clone()),
            _ => return Err(wrong("the filters are until, label and label!")),
        }
    }
    if !args.force && !rmi::confirmed(&warning(args))? {
        return Ok(Exit(0));
    }
    let request = PruneContainersRequest {
        until: images.until,
        labels: images.labels.clone(),
        without_labels: images.without_labels.clone(),
    };
    let containers = client.containers.prune(request).await.map_err(error::daemon)?.into_inner();
    let mut reclaimed = containers.reclaimed;
    told("Containers", &containers.ids)?;
    let mut of_networks = filters.clone();
    of_networks.iter_mut().filter(|filter| filter.key == "until").for_each(|filter| filter.value = images.until.to_string());
    let networks = client.networks.prune(PruneNetworksRequest { filters: of_networks }).await.map_err(error::daemon)?.into_inner();
    told("Networks", &networks.names)?;
    if args.volumes {
        let volumes = client.volumes.prune(PruneVolumesRequest { all: false, filters }).await.map_err(error::daemon)?.into_inner();
        told("Volumes", &volumes.names)?;
        reclaimed += volumes.reclaimed;
    }
    let images_until = images.until;
    let pruned = client.images.prune(images).await.map_err(error::daemon)?.into_inner();
    rmi::told(&pruned.removals)?;
    reclaimed += pruned.reclaimed;
    if prunes_builds(args) {
        let until = Filter { key: "until".to_owned(), value: images_until.saturating_mul(1_000_000_000).to_string() };
        let filters = if images_until == 0 { Vec::new() } else { vec![until] };
        let request = PruneBuildsRequest { all: args.all, filters, keep: 0 };
        reclaimed += crate::build::kept::forget(client, request).await?;
    }
    output::print(&format!("Total reclaimed space: {}\n", output::space(reclaimed)))?;
    Ok(Exit(0))
}

fn told(what: &str, names: &[String]) -> Result<(), Error> {
    if names.is_empty() { Ok(()) } else { output::print(&format!("Deleted {what}:\n{}\n\n", names.join("\n"))) }
}

/// What builds have left has no labels that it could be chosen by.
fn prunes_builds(args: &Prune) -> bool {
    !args.filter.iter().any(|filter| filter.trim_start().to_lowercase().starts_with("label"))
}

/// What docker says before it asks.
fn warning(args: &Prune) -> String {
    let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
    if args.volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(if args.all { "all images without at least one container associated to them" } else { "all dangling images" });
    if prunes_builds(args) {
        lines.push(if args.all { "all build cache" } else { "unused build cache" });
    }
    let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
    let filters: String = args.filter.iter().map(|filter| format!("    - {filter}\n")).collect();
    let filters = if filters.is_empty() { filters } else { format!("\n  Items to be pruned will be filtered with:\n{filters}") };
    format!("WARNING! This will remove:\n{lines}{filters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_warnings() {
        let usage = Usage { total: 3, active: 1, size: 3_000_000, reclaimable: 1_000_000 };
        assert_eq!(row("Images", &usage), ["Images", "3", "1", "3MB", "1MB (33%)"]);
        assert_eq!(row("Build Cache", &Usage::default()), ["Build Cache", "0", "0", "0B", "0B"]);
        let args = Prune { all: true, volumes: true, force: false, filter: vec!["label=x".into()] };
        let wanted = "\
WARNING! This will remove:
  - all stopped containers
  - all networks not used by at least one container
  - all anonymous volumes not used by at least one container
  - all images without at least one container associated to them

  Items to be pruned will be filtered with:
    - label=x
";
        assert_eq!(warning(&args), wanted);
    }
}
