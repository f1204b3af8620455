//! `creel images`: docker's classic table, its filters and fields; `--tree` shows who shares what.

use std::collections::BTreeMap;

use api::creel::{ImageSummary, ListImagesRequest};
use clap::Subcommand as _;
use serde_json::{Value, json};

use crate::{
    args::{Image, Images},
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    name, output, time,
};

/// All images, newest first.
pub(crate) async fn all(client: &mut Client) -> Result<Vec<ImageSummary>, Error> {
    let answer = client.images.list(ListImagesRequest {}).await.map_err(error::rpc("list images"))?;
    Ok(answer.into_inner().images)
}

/// Lists them.
pub(crate) async fn list(client: &mut Client, format: &Format, args: &Images) -> Result<Exit, Error> {
    let images = all(client).await?;
    let filters = Filters::read(args, &images)?;
    let rows: Vec<Row<'_>> = images.iter().flat_map(|image| rows(image, args)).filter(|row| filters.take(row)).collect();
    if args.tree && format.is_table() {
        output::print(&tree(&rows))?;
    } else if args.quiet {
        let id = |row: &Row<'_>| if args.no_trunc { row.image.id.clone() } else { output::short(&row.image.id) };
        output::lines(rows.iter().map(id))?;
    } else {
        let values: Vec<Value> = rows.iter().map(|row| row.value(args)).collect();
        format.print(&values, || table(&rows, args))?;
    }
    if let (Some(word), true) = (&args.repository, rows.is_empty())
        && Image::has_subcommand(word)
    {
        output::note(&format!("No images found matching \"{word}\": did you mean \"creel image {word}\"?"));
    }
    Ok(Exit(0))
}

/// A name of an image, or an image without a name.
struct Row<'i> {
    image: &'i ImageSummary,
    repository: String,
    tag: String,
    digest: String,
}

const NONE: &str = "<none>";

/// One row per tag; an image without one is shown by its digests' repositories, or not by name at all.
fn rows<'i>(image: &'i ImageSummary, args: &Images) -> Vec<Row<'i>> {
    let digest_of = |repository: &str| {
        let found = image.digests.iter().find_map(|name| name.split_once('@').filter(|(name, _)| *name == repository));
        found.map_or_else(|| NONE.to_owned(), |(_, digest)| digest.to_owned())
    };
    let row = |full: &str, tag: &str| Row { image, repository: name::familiar(full), tag: tag.to_owned(), digest: digest_of(full) };
    let tags: Vec<Row<'i>> = image.tags.iter().filter_map(|name| name.rsplit_once(':')).map(|(full, tag)| row(full, tag)).collect();
    if !tags.is_empty() {
        return tags;
    }
    let by_digest = image.digests.iter().filter_map(|name| name.split_once('@')).map(|(full, _)| row(full, NONE));
    let by_digest: Vec<Row<'i>> = if args.digests { by_digest.collect() } else { by_digest.take(1).collect() };
    if by_digest.is_empty() {
        return vec![Row { image, repository: NONE.to_owned(), tag: NONE.to_owned(), digest: NONE.to_owned() }];
    }
    by_digest
}

impl Row<'_> {
    fn id(&self, args: &Images) -> String {
        if args.no_trunc { self.image.id.clone() } else { output::short(&self.image.id) }
    }

    /// The fields that docker's templates know.
    fn value(&self, args: &Images) -> Value {
        let ImageSummary { created, size, shared_size, unique_size, containers, .. } = self.image;
        json!({
            "ID": self.id(args),
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.digest,
            "CreatedAt": created,
            "CreatedSince": time::since(created),
            "Size": output::bytes(*size),
            "VirtualSize": output::bytes(*size),
            "SharedSize": output::bytes(*shared_size),
            "UniqueSize": output::bytes(*unique_size),
            "Containers": containers.to_string(),
            "Platform": self.image.platform,
            "Pinned": self.image.pinned,
        })
    }
}

fn table(rows: &[Row<'_>], args: &Images) -> String {
    let line = |row: &Row<'_>| {
        let mut cells = vec![row.repository.clone(), row.tag.clone()];
        if args.digests {
            cells.push(row.digest.clone());
        }
        cells.extend([row.id(args), time::since(&row.image.created), output::bytes(row.image.size)]);
        cells
    };
    let header: &[&str] = if args.digests {
        &["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]
    } else {
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    };
    output::table(header, &rows.iter().map(line).collect::<Vec<_>>())
}

/// Layers that stand above others, with the images that end in them.
#[derive(Default)]
struct Node<'i> {
    /// The bytes of each layer, from the lowest up: as long as nothing branches off or ends, layers are one node.
    sizes: Vec<u64>,
    images: Vec<(&'i ImageSummary, Vec<String>)>,
    above: BTreeMap<&'i str, Node<'i>>,
}

impl<'i> Node<'i> {
    fn insert(&mut self, layers: &[(&'i str, u64)], image: &'i ImageSummary, names: Vec<String>) {
        let Some(((layer, size), rest)) = layers.split_first() else {
            self.images.push((image, names));
            return;
        };
        let node = self.above.entry(layer).or_insert_with(|| Node { sizes: vec![*size], ..Node::default() });
        node.insert(rest, image, names);
    }

    /// Joins layers that no image can do without another.
    fn joined(mut self) -> Self {
        self.above = self.above.into_iter().map(|(layer, node)| (layer, node.joined())).collect();
        if self.images.is_empty()
            && self.above.len() == 1
            && !self.sizes.is_empty()
            && let Some((_, above)) = self.above.pop_first()
        {
            self.sizes.extend(above.sizes);
            (self.images, self.above) = (above.images, above.above);
        }
        self
    }

    fn write(&self, out: &mut String, indent: &str) {
        let children = self.images.len() + self.above.len();
        let mut number = 0;
        let mut branch = || {
            number += 1;
            if number == children { ("└─ ", "   ") } else { ("├─ ", "│  ") }
        };
        for (image, names) in &self.images {
            let frees = match image.containers {
                0 => format!("frees {}", output::bytes(image.unique_size)),
                1 => "in use by 1 container".to_owned(),
                more => format!("in use by {more} containers"),
            };
            out.push_str(&format!("{indent}{}{}  {}  {frees}\n", branch().0, names.join(", "), output::short(&image.id)));
        }
        for (layer, node) in &self.above {
            let (line, below) = branch();
            let count = if node.sizes.len() == 1 { String::new() } else { format!(" and {} more", node.sizes.len() - 1) };
            let size = output::bytes(node.sizes.iter().sum());
            out.push_str(&format!("{indent}{line}layer {}{count}  {size}\n", output::short(layer)));
            node.write(out, &format!("{indent}{below}"));
        }
    }
}

/// Images under the layers that they have in common; behind each what removing it would free.
fn tree(rows: &[Row<'_>]) -> String {
    let mut root = Node::default();
    let mut shown: Vec<(&ImageSummary, Vec<String>)> = Vec::new();
    for row in rows {
        let name = if row.tag == NONE { row.repository.clone() } else { format!("{}:{}", row.repository, row.tag) };
        match shown.iter_mut().find(|(image, _)| image.id == row.image.id) {
            Some((_, names)) => names.push(name),
            None => shown.push((row.image, vec![name])),
        }
    }
    for (image, names) in shown {
        let sizes = image.layer_sizes.iter().copied().chain(std::iter::repeat(0));
        let layers: Vec<(&str, u64)> = image.layers.iter().map(String::as_str).zip(sizes).collect();
        root.insert(&layers, image, names);
    }
    let mut out = String::new();
    root.joined().write(&mut out, "");
    out
}

/// What of the images is wanted: docker's filters. Several values of one key are alternatives, but labels all count.
#[derive(Default)]
struct Filters {
    references: Vec<String>,
    dangling: Option<bool>,
    labels: Vec<String>,
    before: Option<String>,
    since: Option<String>,
    /// Seconds since 1970.
    until: Option<i64>,
}

impl Filters {
    fn read(args: &Images, images: &[ImageSummary]) -> Result<Self, Error> {
        let wrong = |value: &str, why: &str| Error::Option { option: "--filter", value: value.to_owned(), why: why.to_owned() };
        let mut filters = Self { references: args.repository.iter().cloned().collect(), ..Self::default() };
        let created = |wanted: &str| {
            let image = images.iter().find(|image| named(image, wanted));
            image.map(|image| image.created.clone()).ok_or_else(|| Error::Missing { what: "image", name: wanted.to_owned() })
        };
        for filter in &args.filter {
            let (key, value) = filter.split_once('=').ok_or_else(|| wrong(filter, "not KEY=VALUE"))?;
            match key {
                "reference" => filters.references.push(value.to_owned()),
                "dangling" => filters.dangling = Some(value.parse().map_err(|_| wrong(filter, "not true or false"))?),
                "label" => filters.labels.push(value.to_owned()),
                "before" => filters.before = Some(created(value)?),
                "since" => filters.since = Some(created(value)?),
                "until" => filters.until = Some(time::point(value).ok_or_else(|| wrong(filter, "not a time or a duration"))?),
                _ => return Err(wrong(filter, "the filters are reference, dangling, label, before, since and until")),
            }
        }
        Ok(filters)
    }

    fn take(&self, row: &Row<'_>) -> bool {
        let image = row.image;
        let dangling = image.tags.is_empty();
        let label = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => image.labels.get(key).is_some_and(|found| found == value),
            None => image.labels.contains_key(wanted),
        };
        (self.references.is_empty() || self.references.iter().any(|pattern| reference(pattern, row)))
            && self.dangling.is_none_or(|wanted| wanted == dangling)
            && self.labels.iter().all(label)
            && self.before.as_ref().is_none_or(|before| image.created < *before)
            && self.since.as_ref().is_none_or(|since| image.created > *since)
            && self.until.is_none_or(|until| time::parse(&image.created).is_some_and(|created| created < until))
    }
}

fn named(image: &ImageSummary, wanted: &str) -> bool {
    let hex = image.id.trim_start_matches("sha256:");
    hex.starts_with(wanted.trim_start_matches("sha256:")) || image.tags.iter().any(|tag| name::same(tag, wanted))
}

/// A repository, or a repository and tag, whole, with the shell's wildcards.
fn reference(pattern: &str, row: &Row<'_>) -> bool {
    let pattern = pattern.strip_prefix("docker.io/").unwrap_or(pattern);
    let pattern = pattern.strip_prefix("library/").unwrap_or(pattern);
    name::glob(pattern, &row.repository) || name::glob(pattern, &format!("{}:{}", row.repository, row.tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> ImageSummary {
        ImageSummary {
            id: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            digests: digests.iter().map(|t| (*t).to_owned()).collect(),
            size: 1500,
            ..ImageSummary::default()
        }
    }

    #[test]
    fn a_row_per_name() {
        let args = Images::default();
        let shown = |image: &ImageSummary| {
            let names = |row: Row<'_>| (row.repository, row.tag, row.digest);
            rows(image, &args).into_iter().map(names).collect::<Vec<_>>()
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let two = image(&["localhost:5000/a:1", "docker.io/library/b:latest"], &["localhost:5000/a@sha256:00"]);
        assert_eq!(shown(&two), [owned("localhost:5000/a", "1", "sha256:00"), owned("b", "latest", "<none>")]);
        assert_eq!(shown(&image(&[], &["r.example/x@sha256:00"])), [owned("r.example/x", "<none>", "sha256:00")]);
        assert_eq!(shown(&image(&[], &[])), [owned("<none>", "<none>", "<none>")]);
    }

    #[test]
    fn the_tree_shows_who_shares_what() {
        let layer = |n: u8| format!("sha256:{}", format!("{n:02x}").repeat(32));
        let of = |id: u8, layers: &[u8], tags: &[&str]| ImageSummary {
            id: layer(id),
            layers: layers.iter().map(|n| layer(*n)).collect(),
            layer_sizes: layers.iter().map(|n| u64::from(*n) * 1000).collect(),
            unique_size: 5000,
            ..image(tags, &[])
        };
        let images = [
            of(1, &[1, 2], &["docker.io/library/a:1", "docker.io/library/a:2"]),
            of(2, &[1, 2, 3, 4, 5], &["docker.io/library/b:1"]),
            of(3, &[9], &[]),
        ];
        let args = Images::default();
        let rows: Vec<Row<'_>> = images.iter().flat_map(|image| rows(image, &args)).collect();
        let wanted = "\
├─ layer 010101010101 and 1 more  3kB
│  ├─ a:1, a:2  010101010101  frees 5kB
│  └─ layer 030303030303 and 2 more  12kB
│     └─ b:1  020202020202  frees 5kB
└─ layer 090909090909  9kB
   └─ <none>  030303030303  frees 5kB
";
        assert_eq!(tree(&rows), wanted);
    }

    #[test]
    fn references_are_whole() {
        let image = image(&["docker.io/library/busybox:1.35"], &[]);
        let row = &rows(&image, &Images::default())[0];
        for (pattern, fits) in [
            ("busybox", true),
            ("busybox:1.35", true),
            ("busy*", true),
            ("*:1.*", true),
            ("busy", false),
            ("docker.io/library/busybox", true),
        ] {
            assert_eq!(reference(pattern, row), fits, "{pattern}");
        }
    }
}
