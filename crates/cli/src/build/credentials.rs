//! Who to be at the registries that a build asks.

use std::collections::{BTreeMap, BTreeSet};

use api::creel::{BuildStart, Credentials};
use dockerfile::{Base, Instruction, Stages, from_of, mount};

use super::caches::CacheFlags;
use crate::{auth, error::Error, login, name};

/// For every registry that the build may ask, if it is known: those of its names, caches, FROM, `--from` and contexts. Of a
/// Dockerfile in an archive, or one that only the daemon understands, nothing is known: then all that were logged in to.
pub(super) fn known(start: &BuildStart) -> Result<BTreeMap<String, Credentials>, Error> {
    let mut images: BTreeSet<String> = CacheFlags::references(start).cloned().collect();
    images.extend(start.tags.iter().cloned());
    images.extend(start.contexts.iter().map(|context| context.image.clone()).filter(|image| !image.is_empty()));
    match of_dockerfile(start) {
        Some(named) => images.extend(named),
        None => images.extend(login::registries().into_iter().map(|host| format!("{host}/any"))),
    }
    let mut found = BTreeMap::new();
    for image in images {
        let registry = name::registry(&image).to_owned();
        if !found.contains_key(&registry)
            && let Some(credentials) = auth::credentials(None, &image)?
        {
            found.insert(registry, credentials);
        }
    }
    Ok(found)
}

fn of_dockerfile(start: &BuildStart) -> Option<Vec<String>> {
    let file = dockerfile::parse(&start.dockerfile).ok()?;
    let args = start.args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let stages = Stages::find(&file, &args, &BTreeMap::new(), &start.target).ok()?;
    let mut named = Vec::new();
    for number in &stages.needed {
        let stage = &stages.stages[*number];
        if let Base::Image(name) = &stage.base {
            named.push(name.clone());
        }
        for step in stage.steps {
            match &step.instruction {
                Instruction::Copy(copy) | Instruction::Add(copy) => named.extend(from_of(copy).map(str::to_owned)),
                Instruction::Run(run) => {
                    let mounts = run.flags.iter().filter(|flag| flag.name == "mount").filter_map(|flag| flag.value.as_deref());
                    named.extend(mounts.filter_map(mount::from));
                }
                _ => {}
            }
        }
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dockerfile_names() {
        let text = "ARG V=1\nFROM r.example/base:$V AS a\nCOPY --from=other.example/x /a /b\nFROM a\nRUN --mount=type=bind,from=m.example/y,target=/t true\n";
        let start = BuildStart { dockerfile: text.into(), ..BuildStart::default() };
        let named = of_dockerfile(&start).unwrap();
        assert_eq!(named, ["r.example/base:1", "other.example/x", "m.example/y"]);
        assert_eq!(of_dockerfile(&BuildStart::default()), None);
    }
}
