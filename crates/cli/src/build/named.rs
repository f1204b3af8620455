//! `--build-context NAME=PLACE`: what else FROM and --from mean.

use std::path::{Path, PathBuf};

use api::creel::NamedContext;

use super::{context::Context, layout::Layout};
use crate::{container::options::wrong, error::Error};

/// Contexts with names: what the daemon is told of each, and in order what it gets of those that are directories and layouts.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) told: Vec<NamedContext>,
    pub(super) directories: Vec<Context>,
    pub(super) layouts: Vec<Layout>,
}

/// Reads the flags.
pub(super) fn parse(flags: &[String]) -> Result<Named, Error> {
    let Named { mut told, mut directories, mut layouts } = Named::default();
    for text in flags {
        let bad = |why: &str| wrong("--build-context", text, why);
        let (name, place) =
            text.split_once('=').ok_or_else(|| bad("use NAME=PATH, NAME=docker-image://IMAGE or NAME=oci-layout://DIR"))?;
        if name.is_empty() || place.is_empty() {
            return Err(bad("use NAME=PATH, NAME=docker-image://IMAGE or NAME=oci-layout://DIR"));
        }
        if told.iter().any(|known| known.name == name) {
            return Err(bad("this name is there twice"));
        }
        let mut one = NamedContext { name: name.to_owned(), ..NamedContext::default() };
        match place.split_once("://") {
            Some(("docker-image", image)) if !image.is_empty() => image.clone_into(&mut one.image),
            Some(("oci-layout", place)) => {
                layouts.push(layout(place).map_err(|e| bad(&e.to_string()))?);
                one.layout = true;
            }
            Some(_) => return Err(bad("fetch it first, and give its directory")),
            None => {
                let root = PathBuf::from(place);
                if !root.is_dir() {
                    return Err(bad("not a directory"));
                }
                let (context, _) = Context::directory(&root, &root.join("Dockerfile"))?;
                one.context = context.name()?;
                directories.push(context);
            }
        }
        told.push(one);
    }
    Ok(Named { told, directories, layouts })
}

/// `DIR[:TAG|@DIGEST]`; whose name has a colon is told with a tag behind it.
fn layout(place: &str) -> std::io::Result<Layout> {
    let (rest, digest) = place.split_once('@').map_or((place, None), |(rest, digest)| (rest, Some(digest)));
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag)),
        _ => (rest, None),
    };
    Layout::one(Path::new(dir), tag, digest)
}

/// A place that the main context cannot be.
pub(super) fn is_remote(path: &str) -> bool {
    !Path::new(path).exists() && (path.contains("://") || path.starts_with("git@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str().unwrap();
        let one = |text: &str| parse(&[text.to_owned()]);
        let Named { told, directories, .. } = one("base=docker-image://a:1").unwrap();
        assert_eq!((told[0].name.as_str(), told[0].image.as_str(), directories.len()), ("base", "a:1", 0));
        let Named { told, directories, .. } = one(&format!("src={here}")).unwrap();
        assert!(told[0].image.is_empty() && told[0].context.starts_with('/') && directories.len() == 1);
        for (text, part) in [
            ("x", "use NAME=PATH"),
            ("=x", "use NAME=PATH"),
            ("x=", "use NAME=PATH"),
            ("x=oci-layout:///nowhere/at/all:1", "No such file"),
            ("x=https://a.example/x.git", "fetch it first"),
            ("x=/nowhere/at/all", "not a directory"),
        ] {
            let told = one(text).unwrap_err().to_string();
            assert!(told.contains(part), "{text}: {told}");
        }
        let twice = [format!("a={here}"), format!("a={here}")];
        assert!(parse(&twice).unwrap_err().to_string().contains("twice"));
        assert!(is_remote("https://a.example/x") && !is_remote(here));
    }
}
