//! `--cache-from` and `--cache-to`: steps of other machines.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use api::creel::{BuildCacheFrom, BuildCachePiece, BuildCacheTo, BuildRequest, BuildStart};
use clap::Args;
use model::Pieces;
use tokio::sync::mpsc;

use super::{
    layout::Layout,
    outputs::{Sink, fields},
};
use crate::{
    error::{self, Error},
    output,
};

/// Bytes of an archive in one message.
const PIECE: usize = 1 << 20;

/// Where steps come from, and where they go.
#[derive(Args, Debug)]
pub(super) struct CacheFlags {
    /// Take steps that were made elsewhere, which are trusted as a base image is: IMAGE, type=registry,ref=IMAGE or
    /// type=local,src=DIR
    #[arg(long, value_name = "SOURCE")]
    cache_from: Vec<String>,
    /// Give steps to others: type=registry,ref=IMAGE, type=local,dest=DIR or type=inline (in the image), with mode=max also those
    /// that the result is not made of
    #[arg(long, value_name = "TARGET")]
    cache_to: Vec<String>,
}

fn wrong(option: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::Option { option, value: value.to_owned(), why: why.into() }
}

/// What is sent before everything else.
#[derive(Debug, Default)]
pub(super) struct Layouts(Vec<Layout>);

impl CacheFlags {
    /// Asks for what was asked for. Answers the layouts to send, and where those go that come back. A layout that is not there is
    /// told, and done without.
    pub(super) fn ask(&self, start: &mut BuildStart) -> Result<(Layouts, Vec<Sink>), Error> {
        let mut layouts = Layouts::default();
        for text in &self.cache_from {
            match From::parse(text)? {
                From::Registry(reference) => start.cache_from.push(BuildCacheFrom { reference }),
                From::Local(dir) if !dir.join("index.json").is_file() => {
                    output::note(&format!("WARNING: local cache import at {} not found", dir.display()));
                }
                From::Local(dir) => match Layout::whole(&dir) {
                    Ok(layout) => {
                        start.cache_from.push(BuildCacheFrom::default());
                        layouts.0.push(layout);
                    }
                    Err(e) => output::note(&format!("WARNING: local cache import at {} is damaged: {e}", dir.display())),
                },
            }
        }
        let mut sinks = Vec::new();
        for text in &self.cache_to {
            let (to, dest) = to(text)?;
            start.cache_to.push(to);
            sinks.extend(dest.map(|dest| Sink::cache(&dest)).transpose()?);
        }
        Ok((layouts, sinks))
    }

    /// The images that are asked for at registries.
    pub(super) fn references(start: &BuildStart) -> impl Iterator<Item = &String> {
        let from = start.cache_from.iter().map(|from| &from.reference);
        from.chain(start.cache_to.iter().map(|to| &to.reference)).filter(|reference| !reference.is_empty())
    }
}

enum From {
    Registry(String),
    Local(PathBuf),
}

impl From {
    fn parse(text: &str) -> Result<Self, Error> {
        const OPTION: &str = "--cache-from";
        if !text.contains('=') {
            return Ok(Self::Registry(text.to_owned()));
        }
        let (mut kind, mut place) = (String::new(), None);
        for (key, value) in fields(OPTION, text)? {
            match key.as_str() {
                "type" => kind = value,
                "ref" | "src" => place = Some((key, value)),
                _ => return Err(wrong(OPTION, text, format!("{key} is not known: use type, ref and src"))),
            }
        }
        match (kind.as_str(), place.as_ref().map(|(key, value)| (key.as_str(), value))) {
            ("registry", Some(("ref", reference))) => Ok(Self::Registry(reference.clone())),
            ("local", Some(("src", dir))) => Ok(Self::Local(PathBuf::from(dir))),
            ("registry", _) => Err(wrong(OPTION, text, "a registry's needs ref=IMAGE")),
            ("local", _) => Err(wrong(OPTION, text, "a local one needs src=DIR")),
            _ => Err(wrong(OPTION, text, "the types are registry and local")),
        }
    }
}

/// As the daemon is to be asked, and the directory that what comes goes to.
fn to(text: &str) -> Result<(BuildCacheTo, Option<String>), Error> {
    const OPTION: &str = "--cache-to";
    let (mut kind, mut dest, mut to) = ("registry".to_owned(), None, BuildCacheTo::default());
    if !text.contains('=') {
        return Ok((BuildCacheTo { reference: text.to_owned(), ..to }, None));
    }
    for (key, value) in fields(OPTION, text)? {
        match (key.as_str(), value.as_str()) {
            ("type", _) => kind = value,
            ("ref", _) => to.reference = value,
            ("dest", _) => dest = Some(value),
            ("mode", "min" | "max") => to.max = value == "max",
            ("mode", _) => return Err(wrong(OPTION, text, "mode is min or max")),
            _ => return Err(wrong(OPTION, text, format!("{key} is not known: use type, ref, dest and mode"))),
        }
    }
    match (kind.as_str(), to.reference.is_empty(), dest) {
        ("registry", false, None) => Ok((to, None)),
        ("local", true, Some(dest)) => Ok((to, Some(dest))),
        ("inline", true, None) if !to.max => Ok((BuildCacheTo { inline: true, ..to }, None)),
        ("registry", ..) => Err(wrong(OPTION, text, "a registry's needs ref=IMAGE, and no dest")),
        ("local", ..) => Err(wrong(OPTION, text, "a local one needs dest=DIR, and no ref")),
        ("inline", ..) => Err(wrong(OPTION, text, "what is in the image is of the image: no ref, no dest, no mode=max")),
        _ => Err(wrong(OPTION, text, "the types are registry, local and inline")),
    }
}

impl Layouts {
    /// More of them, after those that are there.
    pub(super) fn add(&mut self, more: Vec<Layout>) {
        self.0.extend(more);
    }

    /// Sends them. Blocks. Ends early, without an error, when nobody listens any more: the daemon's answer then says why.
    pub(super) fn send(self, to: &mpsc::Sender<BuildRequest>) -> Result<(), Error> {
        for layout in self.0 {
            let send = |data, last| {
                let cache = Some(BuildCachePiece { data, last });
                to.blocking_send(BuildRequest { cache, ..BuildRequest::default() }).is_ok()
            };
            let mut archive = tar::Builder::new(Pieces::new(PIECE, |data| send(data, false)));
            let sent = layout.pack(&mut archive).and_then(|()| archive.into_inner()?.flush());
            if sent.is_ok() {
                send(Vec::new(), true);
            }
            match sent {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                other => other.map_err(error::io(format!("read {}", layout.dir().display())))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn sources_and_targets() {
        assert!(matches!(From::parse("r.example/x:1").unwrap(), From::Registry(name) if name == "r.example/x:1"));
        assert!(matches!(From::parse("type=registry,ref=x").unwrap(), From::Registry(name) if name == "x"));
        assert!(matches!(From::parse("type=local,src=d").unwrap(), From::Local(dir) if dir == Path::new("d")));
        for bad in ["type=gha", "type=local,ref=x", "type=registry", "type=local,src=d,x=y", "ref=x"] {
            assert!(From::parse(bad).is_err(), "{bad}");
        }
        let (local, dest) = to("type=local,dest=d,mode=max").unwrap();
        assert!(local.max && local.reference.is_empty() && dest.as_deref() == Some("d"));
        assert_eq!(to("type=registry,ref=x").unwrap().0.reference, "x");
        assert!(to("type=inline").unwrap().0.inline);
        for bad in ["type=inline,mode=max", "type=local", "type=registry,dest=d", "type=s3,bucket=b", "type=local,dest=d,mode=all"]
        {
            assert!(to(bad).is_err(), "{bad}");
        }
    }
}
