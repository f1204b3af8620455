//! `creel image inspect`, `creel history` and `creel search`.

use api::creel::{HistoryEntry, ImageDetails, InspectImageRequest, SearchImagesRequest};
use serde_json::{Value, json};

use crate::{
    args::{History, Search},
    auth,
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    name, output, time,
};

async fn details(client: &mut Client, image: &str) -> Result<ImageDetails, tonic::Status> {
    Ok(client.images.inspect(InspectImageRequest { image: image.to_owned() }).await?.into_inner())
}

/// An image with docker's names for everything.
pub(crate) async fn image(client: &mut Client, name: &str) -> Result<Value, tonic::Status> {
    value(&details(client, name).await?).map_err(|e| tonic::Status::internal(e.chain()))
}

/// Images as docker inspects them: one array for all, errors at the end.
pub(crate) async fn images(client: &mut Client, format: &Format, wanted: &[String]) -> Result<Exit, Error> {
    let (mut found, mut failed) = (Vec::new(), 0);
    for image in wanted {
        match details(client, image).await {
            Ok(details) => found.push(value(&details)?),
            Err(status) => {
                output::note(&format!("Error response from daemon: {}", error::last(status.message())));
                failed = 1;
            }
        }
    }
    format.inspected(&found)?;
    Ok(Exit(failed))
}

/// An image with docker's names for everything.
fn value(details: &ImageDetails) -> Result<Value, Error> {
    let summary = details.summary.clone().unwrap_or_default();
    let config: Value = serde_json::from_slice(&details.config).map_err(Error::Json)?;
    let text = |key: &str| config.get(key).cloned().unwrap_or_else(|| json!(""));
    let short = |names: &[String], at: char| -> Vec<String> {
        let familiar = |full: &String| {
            full.rsplit_once(at).map_or_else(|| full.clone(), |(full, rest)| format!("{}{at}{rest}", name::familiar(full)))
        };
        names.iter().map(familiar).collect()
    };
    let comment = details.history.first().map(|line| line.comment.clone()).unwrap_or_default();
    Ok(json!({
        "Id": summary.id,
        "RepoTags": short(&summary.tags, ':'),
        "RepoDigests": short(&summary.digests, '@'),
        "Parent": "",
        "Comment": comment,
        "Created": summary.created,
        "Author": text("author"),
        "Config": config.get("config").cloned().unwrap_or_else(|| json!({})),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": summary.size,
        "SharedSize": summary.shared_size,
        "UniqueSize": summary.unique_size,
        "Containers": summary.containers,
        "RootFS": { "Type": "layers", "Layers": summary.layers },
    }))
}

/// How an image was made.
pub(crate) async fn history(client: &mut Client, format: &Format, args: &History) -> Result<Exit, Error> {
    let details = details(client, &args.image).await.map_err(error::daemon)?;
    let id = details.summary.map(|summary| summary.id).unwrap_or_default();
    let id = if args.no_trunc { id } else { output::short(&id) };
    let ids = || std::iter::once(id.clone()).chain(std::iter::repeat("<missing>".to_owned()));
    if args.quiet {
        output::lines(ids().take(details.history.len()))?;
        return Ok(Exit(0));
    }
    let line = |(id, entry): (String, &HistoryEntry)| {
        let size = if args.human { output::bytes(entry.size) } else { entry.size.to_string() };
        let created = if args.human { time::since(&entry.created) } else { entry.created.clone() };
        vec![id, created, cut(&entry.created_by, args.no_trunc), size, entry.comment.clone()]
    };
    let rows: Vec<Vec<String>> = ids().zip(&details.history).map(line).collect();
    let with_names = |(row, entry): (&Vec<String>, &HistoryEntry)| {
        json!({
            "ID": row[0], "CreatedSince": row[1], "CreatedAt": entry.created, "CreatedBy": row[2], "Size": row[3], "Comment": row[4],
        })
    };
    let values: Vec<Value> = rows.iter().zip(&details.history).map(with_names).collect();
    format.print(&values, || output::table(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows))?;
    Ok(Exit(0))
}

/// At most 45 characters, as docker shows an instruction; a line in any case.
fn cut(text: &str, whole: bool) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if whole || line.chars().count() <= 45 {
        return line;
    }
    line.chars().take(44).chain(std::iter::once('…')).collect()
}

/// Looks for images.
pub(crate) async fn search(client: &mut Client, format: &Format, args: &Search) -> Result<Exit, Error> {
    let wrong = |value: &str, why: &str| Error::Option { option: "--filter", value: value.to_owned(), why: why.to_owned() };
    let credentials = auth::credentials(args.creds.creds.as_deref(), &args.term)?;
    let request = SearchImagesRequest { term: args.term.clone(), limit: args.limit, credentials };
    let mut hits = client.images.search(request).await.map_err(error::daemon)?.into_inner().hits;
    hits.iter_mut().for_each(|hit| {
        hit.name =
            name::familiar(&format!("{}{}", if name::registry(&hit.name) == "docker.io" { "docker.io/" } else { "" }, hit.name))
    });
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("stars", least)) => {
                let least: u64 = least.parse().map_err(|_| wrong(filter, "not a number"))?;
                hits.retain(|hit| hit.stars >= least);
            }
            Some(("is-official", wanted)) => {
                let wanted: bool = wanted.parse().map_err(|_| wrong(filter, "not true or false"))?;
                hits.retain(|hit| hit.official == wanted);
            }
            _ => return Err(wrong(filter, "the filters are stars and is-official")),
        }
    }
    let ok = |official: bool| if official { "[OK]" } else { "" };
    let values: Vec<Value> = hits
        .iter()
        .map(|hit| json!({"Name": hit.name, "Description": cut(&hit.description, args.no_trunc), "StarCount": hit.stars.to_string(), "IsOfficial": ok(hit.official)}))
        .collect();
    format.print(&values, || {
        let row = |hit: &api::creel::SearchHit| {
            vec![hit.name.clone(), cut(&hit.description, args.no_trunc), hit.stars.to_string(), ok(hit.official).to_owned()]
        };
        output::table(&["NAME", "DESCRIPTION", "STARS", "OFFICIAL"], &hits.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(Exit(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_instructions_are_cut() {
        assert_eq!(cut("a\nb", false), "a b");
        assert_eq!(cut(&"x".repeat(46), false), format!("{}…", "x".repeat(44)));
        assert_eq!(cut(&"x".repeat(46), true).len(), 46);
    }
}
