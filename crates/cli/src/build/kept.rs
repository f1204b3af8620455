//! What builds have left: shown by `creel system df`, freed by `creel builder prune`.

use api::creel::{Filter, KeptRequest, KeptThing, PruneBuildsRequest, PruneBuildsResponse};
use clap::Args;

use crate::{
    client::Client,
    container::options,
    error::{self, Error, Exit},
    output, rmi, time,
    volume::filters,
};

/// `creel builder prune`
#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// Also what images have too
    #[arg(short, long)]
    all: bool,
    /// until=, id=, type=, description=, inuse=, shared=, private=
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Let so much stay, of what was used last
    #[arg(long, visible_aliases = ["reserved-space", "max-used-space"], value_name = "BYTES")]
    keep_storage: Option<String>,
}

/// Frees what builds have left, after asking.
pub(crate) async fn prune(client: &mut Client, args: &Prune) -> Result<Exit, Error> {
    let request = PruneBuildsRequest {
        all: args.all,
        filters: filters(&args.filter)?.into_iter().map(timed).collect::<Result<_, _>>()?,
        keep: args.keep_storage.as_deref().map_or(Ok(0), |text| options::bytes("--keep-storage", text))?,
    };
    let warning = match args.all {
        true => "WARNING! This will remove all build cache.",
        false => "WARNING! This will remove all dangling build cache.",
    };
    if !args.force && !rmi::confirmed(warning)? {
        return Ok(Exit(0));
    }
    let pruned = client.builds.prune(request).await.map_err(error::daemon)?.into_inner();
    output::print(&pruned_table(&pruned))?;
    Ok(Exit(0))
}

/// What has gone, as docker shows it.
fn pruned_table(pruned: &PruneBuildsResponse) -> String {
    let row = |thing: &KeptThing| {
        let ago = format!("{} ago", output::age(thing.used_at));
        vec![short(&thing.id).to_owned(), "true".to_owned(), output::bytes(thing.size), ago]
    };
    let rows: Vec<Vec<String>> = pruned.gone.iter().map(row).collect();
    let table = output::table(&["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"], &rows);
    format!("{}Total:\t{}\n", if rows.is_empty() { String::new() } else { table }, output::space(pruned.reclaimed))
}

/// `until=` as the daemon wants it.
fn timed(filter: Filter) -> Result<Filter, Error> {
    if filter.key != "until" {
        return Ok(filter);
    }
    let wrong = || Error::Option { option: "--filter", value: format!("until={}", filter.value), why: "not a time".to_owned() };
    Ok(Filter { value: time::nanoseconds(&filter.value).ok_or_else(wrong)?.to_string(), key: filter.key })
}

/// Frees it and says what has gone; answers how many bytes.
pub(crate) async fn forget(client: &mut Client, request: PruneBuildsRequest) -> Result<u64, Error> {
    let pruned = client.builds.prune(request).await.map_err(error::daemon)?.into_inner();
    if !pruned.gone.is_empty() {
        let ids: String = pruned.gone.iter().map(|thing| format!("{}\n", short(&thing.id))).collect();
        output::print(&format!("Deleted build cache objects:\n{ids}\n"))?;
    }
    Ok(pruned.reclaimed)
}

/// Enough of an id to be another one's never.
fn short(id: &str) -> &str {
    id.get(..25).unwrap_or(id)
}

/// What there is, as a part of `creel system df -v`.
pub(crate) async fn usage(client: &mut Client) -> Result<String, Error> {
    let things = client.builds.kept(KeptRequest {}).await.map_err(error::daemon)?.into_inner().things;
    let size: u64 = things.iter().filter(|thing| !thing.shared).map(|thing| thing.size).sum();
    let header = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED", "DESCRIPTION"];
    let rows: Vec<Vec<String>> = things.iter().rev().map(row).collect();
    Ok(format!("Build cache usage: {}\n\n{}", output::space(size), output::table(&header, &rows)))
}

fn row(thing: &KeptThing) -> Vec<String> {
    let star = if thing.in_use { "*" } else { "" };
    let ago = |at| format!("{} ago", output::age(at));
    vec![
        format!("{}{star}", output::short(&thing.id)),
        thing.r#type.clone(),
        output::bytes(thing.size),
        ago(thing.created_at),
        ago(thing.used_at),
        thing.uses.to_string(),
        thing.shared.to_string(),
        thing.description.replace(['\n', '\t'], " ").chars().take(60).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_is_a_table_with_a_total() {
        assert_eq!(pruned_table(&PruneBuildsResponse::default()), "Total:\t0B\n");
        let gone = vec![KeptThing { id: "ab".repeat(32), size: 2000, ..KeptThing::default() }];
        let shown = pruned_table(&PruneBuildsResponse { reclaimed: 2000, gone });
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]);
        assert!(lines[1].starts_with("ababababababababababababa   true          2kB") && lines[2] == "Total:\t2kB", "{shown}");
    }

    #[test]
    fn until_is_a_point_in_time() {
        let filter = |text: &str| filters(&[text.to_owned()]).unwrap().into_iter().map(timed).collect::<Result<Vec<_>, _>>();
        assert_eq!(filter("until=12").unwrap()[0].value, "12000000000");
        assert_eq!(filter("id=ab").unwrap()[0].value, "ab");
        assert!(filter("until=soon").is_err());
    }
}
