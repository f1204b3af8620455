//! `--build-context NAME=PLACE`: what else FROM and --from mean.

use std::path::{Path, PathBuf};

use api::creel::NamedContext;

use super::context::Context;
use crate::{container::options::wrong, error::Error};

/// Reads the flags: what the daemon is told of each, and the directories among them, in order.
pub(super) fn parse(flags: &[String]) -> Result<(Vec<NamedContext>, Vec<Context>), Error> {
    let (mut told, mut directories) = (Vec::<NamedContext>::new(), Vec::new());
    for text in flags {
        let bad = |why: &str| wrong("--build-context", text, why);
        let (name, place) = text.split_once('=').ok_or_else(|| bad("use NAME=PATH or NAME=docker-image://IMAGE"))?;
        if name.is_empty() || place.is_empty() {
            return Err(bad("use NAME=PATH or NAME=docker-image://IMAGE"));
        }
        if told.iter().any(|known| known.name == name) {
            return Err(bad("this name is there twice"));
        }
        let mut one = NamedContext { name: name.to_owned(), ..NamedContext::default() };
        match place.split_once("://") {
            Some(("docker-image", image)) if !image.is_empty() => image.clone_into(&mut one.image),
            Some(("oci-layout", _)) => return Err(bad("creel load it first, and give docker-image://NAME")),
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
    Ok((told, directories))
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
        let (told, directories) = one("base=docker-image://a:1").unwrap();
        assert_eq!((told[0].name.as_str(), told[0].image.as_str(), directories.len()), ("base", "a:1", 0));
        let (told, directories) = one(&format!("src={here}")).unwrap();
        assert!(told[0].image.is_empty() && told[0].context.starts_with('/') && directories.len() == 1);
        for (text, part) in [
            ("x", "use NAME=PATH"),
            ("=x", "use NAME=PATH"),
            ("x=", "use NAME=PATH"),
            ("x=oci-layout://y", "creel load it first"),
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
