//! The steps COPY and ADD.

use std::os::fd::AsFd as _;

use dockerfile::{Copy, Flag, Instruction, from_of};
use model::{DiffId, ErrorKind};
use rustix::fs::Mode;
use sys::path::Root;

use super::{
    clean,
    copy::{self, Source, Target},
    graph::Build,
    key::{Key, Ownership},
    refuse,
    stages::Spot,
    state::State,
    steps::not_yet,
};
use crate::{
    blocking::blocking,
    error::{About, Error, Step as _},
    user::{Owners, owner_of},
};

/// Where files are copied from.
pub(super) struct From {
    pub(super) layers: Vec<DiffId>,
    /// What goes into the key instead of the files themselves; `None`: the files do.
    pub(super) known: Option<Vec<DiffId>>,
    owners: Owners,
    pub(super) _pins: Option<store::LayerPins>,
}

impl Build<'_> {
    pub(super) async fn copy(&self, state: &mut State, copy: &Copy, spot: Spot<'_>) -> Result<(), Error> {
        let add = matches!(spot.located.instruction, Instruction::Add(_));
        let keyword = spot.located.instruction.keyword();
        check(copy, keyword)?;
        let expand = |text: &String| state.changed.word(text).map_err(|e| refuse(ErrorKind::InvalidArgument, e.to_string()));
        let sources = copy.sources.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let destination = expand(&copy.destination)?;
        if add && let Some(url) = sources.iter().find(|source| source.contains("://") || source.starts_with("git@")) {
            return Err(not_yet(&format!("ADD of a URL ({url})")));
        }
        let from = self.source(from_of(copy), spot.stage).await?;
        let target = Target {
            path: absolute(state.working_dir(), &destination),
            directory: is_directory(&destination, sources.len())?,
            owners: from.owners,
            mode: flag(copy, "chmod").map(|text| mode(&expand(&text.to_owned())?)).transpose()?,
        };
        let chown = flag(copy, "chown").map(|text| expand(&text.to_owned())).transpose()?;
        let progress = self.begun(format!("{} {}", self.place(spot), spot.located.text)).await?;
        let copied = async {
            let mount = self.inner.mounted(from.layers.clone()).await?;
            let (ownership, known) = (ownership(from.owners), from.known.clone());
            let found = blocking(move || {
                let found = copy::find(&mount, &sources)?;
                if add && found.iter().any(|source| source.is_archive().unwrap_or(false)) {
                    return Err(not_yet("ADD of an archive, which it would unpack,"));
                }
                let digests = match known {
                    None => found.iter().map(|source| source.digest(ownership)).collect::<Result<Vec<_>, _>>()?,
                    Some(_) => Vec::new(),
                };
                Ok((found, digests, sources))
            });
            let (found, digests, named): (Vec<Source>, _, _) = found.await?;
            let key = Key::new("COPY", &state.layers)
                .list(digests)
                .list(from.known.iter().flatten().map(ToString::to_string))
                .list(&named)
                .list([&target.path, &destination])
                .part(chown.as_deref().unwrap_or_default())
                .part(format!("{:?} {:?} {}", target.mode, ownership, target.directory));
            let latest = self.latest(state);
            let work = move |root: &Root| {
                let owners = chown.map(|chown| owner(&chown, root)).transpose()?.unwrap_or(target.owners);
                copy::copy(&found, root, &Target { owners, ..target })?;
                Ok(latest)
            };
            let work = self.inner.write_layer(state.layers.clone(), work);
            self.make(state, key, &spot.located.text, work).await
        };
        self.ended(progress, copied).await
    }

    /// What `--from` means. The layers of stages and images say what is in them; of the context only what is copied counts.
    pub(super) async fn source(&self, from: Option<&str>, stage: usize) -> Result<From, Error> {
        let Some(from) = from else {
            return Ok(From { layers: vec![self.context.0], known: None, owners: Owners::Root, _pins: None });
        };
        if let Some(stage) = self.stages.from_flag(stage, from) {
            let layers = self.finished(stage).await?.layers.clone();
            return Ok(From { known: Some(layers.clone()), layers, owners: Owners::Archive, _pins: None });
        }
        let basis = self.inner.images.basis(from, self.pull()).await?;
        Ok(From { known: Some(basis.layers.clone()), layers: basis.layers, owners: Owners::Archive, _pins: Some(basis.pins) })
    }
}

fn flag<'c>(copy: &'c Copy, name: &str) -> Option<&'c str> {
    copy.flags.iter().find(|flag| flag.name == name).and_then(|flag| flag.value.as_deref())
}

fn check(copy: &Copy, keyword: &str) -> Result<(), Error> {
    if !copy.heredocs.is_empty() {
        return Err(not_yet(&format!("{keyword} of a heredoc")));
    }
    let known = |flag: &&Flag| matches!(flag.name.as_str(), "from" | "chown" | "chmod");
    match copy.flags.iter().find(|flag| !known(flag)) {
        Some(flag) => Err(not_yet(&format!("{keyword} --{}", flag.name))),
        None => Ok(()),
    }
}

fn absolute(working_dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    format!("/{}", clean(&joined).join("/"))
}

fn is_directory(destination: &str, sources: usize) -> Result<bool, Error> {
    let last = destination.rsplit('/').next().unwrap_or_default();
    let directory = matches!(last, "" | "." | "..");
    if sources > 1 && !directory {
        let why = "when using COPY or ADD with more than one source file, the destination must be a directory and end with a /";
        return Err(refuse(ErrorKind::InvalidArgument, why));
    }
    Ok(directory)
}

fn mode(text: &str) -> Result<Mode, Error> {
    let octal = text.chars().all(|c| c.is_digit(8)).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    match octal.filter(|mode| *mode <= 0o7777) {
        Some(mode) => Ok(Mode::from_raw_mode(mode)),
        None if text.contains(['+', '-', '=']) => Err(not_yet(&format!("--chmod={text}, which is no octal number,"))),
        None => Err(refuse(ErrorKind::InvalidArgument, format!("invalid chmod parameter: '{text}'"))),
    }
}

fn ownership(owners: Owners) -> Ownership {
    if owners == Owners::Archive { Ownership::Counts } else { Ownership::Ignored }
}

/// `--chown=USER[:GROUP]`, names as the image has them. Without a group it is the user's number, as docker has it.
fn owner(text: &str, root: &Root) -> Result<Owners, Error> {
    let found = owner_of(text, root.as_fd()).step(About::Words, "--chown")?;
    let gid = if text.contains(':') { found.gid } else { found.uid };
    Ok(Owners::Ids(found.uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_modes() {
        assert_eq!(absolute("/srv", "x/../y/"), "/srv/y");
        assert_eq!(absolute("/srv", "/a//b"), "/a/b");
        assert_eq!(absolute("/", "."), "/");
        assert!(is_directory("a/", 1).unwrap() && is_directory(".", 3).unwrap() && !is_directory("a", 1).unwrap());
        assert!(is_directory("a", 2).is_err());
        assert_eq!(mode("755").unwrap(), Mode::from_raw_mode(0o755));
        for bad in ["9", "u+x", "77777", "rwx"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
