//! `creel build --output`: what becomes of the result, and what comes to the client of it.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use api::creel::{BuildExported, BuildOutputTo, BuildStart, BuiltImage};
use clap::{ArgAction, Args};
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use super::layout::sweep;
use crate::{
    archive::Target,
    container::cp::{Into, Keep, Pieces, unpack},
    error::{self, Error},
    output,
};

/// Pieces of an archive on their way to be unpacked.
const AHEAD: usize = 8;

/// What becomes of a build.
#[derive(Args, Debug)]
pub(super) struct OutputFlags {
    /// Where the result goes: DIR, - (a tar), or
    /// type=image|registry|local|tar|oci|docker[,dest=PATH][,name=NAME][,push=true][,tar=false]
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Push the image under all its names
    #[arg(long)]
    push: bool,
    /// Keep the image (which is done if nothing else is asked for)
    #[arg(long)]
    load: bool,
    /// Write what has come of it into a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Annotation of the image's manifest, for archives and registries
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// The platform to build for; RUN is for this machine's alone. Several, with commas between, become an index
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    platform: Vec<String>,
    /// A stage for which nothing is taken from earlier builds
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Take away the containers of RUN (always so)
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    rm: bool,
    /// Take them away after failures too (always so)
    #[arg(long, hide = true)]
    force_rm: bool,
}

/// An output as it was written: `type=local,dest=out`.
#[derive(Debug, Default)]
struct Asked {
    kind: String,
    dest: Option<String>,
    names: Vec<String>,
    push: bool,
    tar: bool,
}

fn wrong(option: &'static str, value: &str, why: impl std::convert::Into<String>) -> Error {
    Error::Option { option, value: value.to_owned(), why: why.into() }
}

/// Fields between commas; a field in quotation marks may have some of its own.
pub(super) fn fields(option: &'static str, text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => Err(wrong(option, text, format!("{field:?} is not KEY=VALUE"))),
    };
    fields.into_iter().map(pair).collect()
}

pub(super) fn flag(option: &'static str, text: &str, value: &str) -> Result<bool, Error> {
    value.parse().map_err(|_| wrong(option, text, format!("{value:?} is neither true nor false")))
}

impl Asked {
    fn parse(text: &str) -> Result<Self, Error> {
        const OPTION: &str = "--output";
        if !text.contains('=') {
            let (kind, dest) = (if text == "-" { "tar" } else { "local" }, Some(text.to_owned()));
            return Ok(Self { kind: kind.to_owned(), dest, tar: true, ..Self::default() });
        }
        let mut asked = Self { tar: true, ..Self::default() };
        for (key, value) in fields(OPTION, text)? {
            match key.as_str() {
                "type" => asked.kind = value,
                "dest" => asked.dest = Some(value),
                "name" => asked.names.extend(value.split(',').map(str::to_owned)),
                "push" => asked.push = flag(OPTION, text, &value)?,
                "tar" => asked.tar = flag(OPTION, text, &value)?,
                _ => return Err(wrong(OPTION, text, format!("{key} is not known: use type, dest, name, push and tar"))),
            }
        }
        asked.check(text).map(|()| asked)
    }

    fn check(&self, text: &str) -> Result<(), Error> {
        let no = |why: &str| Err(wrong("--output", text, why));
        let is_image = matches!(self.kind.as_str(), "image" | "registry");
        match self.kind.as_str() {
            "" => return no("type is required for output"),
            "image" | "registry" | "local" | "tar" | "oci" | "docker" => {}
            other => return no(&format!("{other}: the types are image, registry, local, tar, oci and docker")),
        }
        if self.dest.is_some() && is_image {
            return no("an image has no dest: it goes into the store or to a registry");
        }
        if self.push && self.kind != "image" {
            return no("push goes with type=image");
        }
        if !self.names.is_empty() && matches!(self.kind.as_str(), "local" | "tar") {
            return no("files have no name");
        }
        if !self.tar && !matches!(self.kind.as_str(), "oci" | "docker") {
            return no("tar goes with type=oci and type=docker");
        }
        match (&self.dest, self.kind.as_str()) {
            (None, "local") => no("dest is required for local output"),
            (None, "oci" | "docker") if !self.tar => no("dest is required for tar=false"),
            _ => Ok(()),
        }
    }

    /// As the daemon is to be asked, and where what comes of it goes.
    fn place(self) -> Result<(BuildOutputTo, Sink), Error> {
        let Self { kind, dest, names, push, tar } = self;
        let to = |kind: &str, names| BuildOutputTo { r#type: kind.to_owned(), names };
        let file = |dest: Option<&str>| Target::open("build", dest.filter(|dest| *dest != "-").map(Path::new)).map(Sink::File);
        Ok(match (kind.as_str(), dest.as_deref()) {
            ("registry", _) => (to("registry", Vec::new()), Sink::None),
            ("image", _) if push => (to("registry", Vec::new()), Sink::None),
            ("image", _) | ("docker", None) => (to("image", Vec::new()), Sink::None),
            ("local", Some(dest)) => (to("tar", names), Sink::directory(dest)?),
            ("tar", dest) => (to("tar", names), file(dest)?),
            (kind, Some(dest)) if !tar => (to(kind, names), Sink::directory(dest)?),
            (kind, dest) => (to(kind, names), file(dest)?),
        })
    }
}

/// Where an archive goes that comes from the daemon.
pub(super) enum Sink {
    /// None comes.
    None,
    File(Target),
    /// It is unpacked.
    Directory(mpsc::Sender<Vec<u8>>, JoinHandle<Result<u64, Error>>),
    /// The same, into a layout in which nothing then stays that it names no longer; since when it is written to.
    Cache(PathBuf, SystemTime, Box<Sink>),
}

impl Sink {
    pub(super) fn directory(path: &str) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(error::io(format!("mkdir {path}")))?;
        let (to, from) = mpsc::channel(AHEAD);
        let into = Into::Directory(PathBuf::from(path));
        let unpacking = tokio::task::spawn_blocking(move || unpack(Pieces::new(from), &into, Keep::Plain));
        Ok(Self::Directory(to, unpacking))
    }

    /// A directory with steps for others. BuildKit lets it grow for ever; here it has what its index names.
    pub(super) fn cache(path: &str) -> Result<Self, Error> {
        Ok(Self::Cache(PathBuf::from(path), SystemTime::now(), Box::new(Self::directory(path)?)))
    }

    async fn take(&mut self, data: Vec<u8>) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::Cache(_, _, inner) => Box::pin(inner.take(data)).await,
            Self::File(target) => target.write(&data),
            // Whoever unpacks says why it does so no more.
            Self::Directory(to, _) => to.send(data).await.or(Ok(())),
        }
    }

    async fn finish(self) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::File(target) => target.keep(),
            Self::Cache(dir, since, inner) => {
                Box::pin(inner.finish()).await?;
                // What stays too long is no loss, and no error.
                if let Err(e) = sweep(&dir, since) {
                    output::note(&format!("WARNING: old blobs stay in {}: {e}", dir.display()));
                }
                Ok(())
            }
            Self::Directory(to, unpacking) => {
                drop(to);
                let unpacked = unpacking.await.map_err(|e| Error::Io { what: "unpack".into(), source: io::Error::other(e) })?;
                unpacked.map(drop)
            }
        }
    }
}

/// What a client does with what comes of a build.
pub(super) struct Outputs {
    sinks: Vec<Sink>,
    piped: bool,
    metadata: Option<PathBuf>,
    names: Vec<String>,
}

impl Outputs {
    /// Asks for what was asked for; with `first` sinks for archives, then those of caches.
    pub(super) fn ask(flags: &OutputFlags, start: &mut BuildStart, caches: Vec<Sink>) -> Result<Self, Error> {
        if !flags.rm {
            return Err(wrong("--rm", "false", "containers of RUN are always taken away"));
        }
        let mut asked = flags.output.iter().map(|text| Asked::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let more = |kind: &str| Asked { kind: kind.to_owned(), tar: true, ..Asked::default() };
        asked.extend(flags.push.then(|| more("registry")));
        asked.extend(flags.load.then(|| more("image")));
        let pipes = asked.iter().filter(|asked| asked.goes_to_stdout()).count();
        if pipes > 1 || (pipes == 1 && io::stdout().is_terminal()) {
            let why = "dest file is required: standard output takes one archive, and no terminal takes any";
            return Err(wrong("--output", &flags.output.join(" "), why));
        }
        let of_image = |asked: &&Asked| matches!(asked.kind.as_str(), "image" | "registry");
        start.tags.extend(asked.iter().filter(of_image).flat_map(|asked| asked.names.clone()));
        let placed = asked.into_iter().map(Asked::place).collect::<Result<Vec<_>, _>>()?;
        let (outputs, sinks): (Vec<_>, Vec<_>) = placed.into_iter().unzip();
        start.outputs = outputs;
        start.annotations = flags.annotation.iter().map(|text| annotation(text)).collect::<Result<_, _>>()?;
        start.platform = flags.platform.join(",");
        start.no_cache_filter.clone_from(&flags.no_cache_filter);
        // Without an output the daemon counts the image as the first.
        let sinks = if sinks.is_empty() { vec![Sink::None] } else { sinks };
        let sinks = sinks.into_iter().chain(caches).collect();
        if let Some(file) = &flags.metadata_file {
            std::fs::remove_file(file).ok();
        }
        Ok(Self { sinks, piped: pipes > 0, metadata: flags.metadata_file.clone(), names: start.tags.clone() })
    }

    /// Whether an archive goes to standard output, which nothing else may then.
    pub(super) fn is_piped(&self) -> bool {
        self.piped
    }

    /// A piece of an archive.
    pub(super) async fn take(&mut self, piece: BuildExported) -> Result<(), Error> {
        match self.sinks.get_mut(piece.output as usize) {
            Some(sink) => sink.take(piece.data).await,
            None => Ok(()),
        }
    }

    /// Everything has come.
    pub(super) async fn finish(self, built: &BuiltImage) -> Result<(), Error> {
        for sink in self.sinks {
            sink.finish().await?;
        }
        let Some(file) = self.metadata else { return Ok(()) };
        let text = format!("{:#}\n", Value::Object(metadata(built, &self.names)));
        std::fs::write(&file, text).map_err(error::io(format!("write {}", file.display())))
    }
}

impl Asked {
    fn goes_to_stdout(&self) -> bool {
        match self.kind.as_str() {
            "tar" | "oci" => self.dest.as_deref().is_none_or(|dest| dest == "-"),
            "docker" => self.dest.as_deref() == Some("-"),
            _ => false,
        }
    }
}

/// docker's fields.
fn metadata(built: &BuiltImage, names: &[String]) -> Map<String, Value> {
    let mut fields = Map::new();
    if built.id.is_empty() && built.digest.is_empty() {
        return fields;
    }
    let digest = if built.digest.is_empty() { &built.id } else { &built.digest };
    // Several platforms have several.
    if !built.id.is_empty() {
        fields.insert("containerimage.config.digest".to_owned(), json!(built.id));
    }
    if !built.digest.is_empty() {
        let descriptor = json!({"mediaType": built.media_type, "digest": built.digest, "size": built.size});
        fields.insert("containerimage.descriptor".to_owned(), descriptor);
    }
    fields.insert("containerimage.digest".to_owned(), json!(digest));
    if !names.is_empty() {
        let full: Vec<String> = names.iter().map(|name| crate::name::full(name)).collect();
        fields.insert("image.name".to_owned(), json!(full.join(",")));
    }
    fields
}

/// `[manifest:]NAME=VALUE`. Indexes and descriptors of manifests are not made.
fn annotation(text: &str) -> Result<(String, String), Error> {
    const OPTION: &str = "--annotation";
    let (name, value) = text.split_once('=').ok_or_else(|| wrong(OPTION, text, "not NAME=VALUE"))?;
    let name = match name.split_once(':') {
        Some(("manifest", name)) => name,
        Some(("index" | "manifest-descriptor" | "index-descriptor", _)) => {
            return Err(wrong(OPTION, text, "there is only a manifest to annotate: NAME=VALUE or manifest:NAME=VALUE"));
        }
        _ => name,
    };
    if name.is_empty() { Err(wrong(OPTION, text, "has no name")) } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        let of = |text: &str| {
            let asked = Asked::parse(text).map_err(|e| e.chain())?;
            Ok::<_, String>((asked.kind, asked.dest.unwrap_or_default(), asked.names.join(" ")))
        };
        let is = |kind: &str, dest: &str, names: &str| Ok((kind.to_owned(), dest.to_owned(), names.to_owned()));
        assert_eq!(of("out"), is("local", "out", ""));
        assert_eq!(of("-"), is("tar", "-", ""));
        assert_eq!(of("type=oci,dest=x.tar,\"name=a,b:1\""), is("oci", "x.tar", "a b:1"));
        assert_eq!(of("type=image,name=a,push=true"), is("image", "", "a"));
        for (bad, part) in [
            ("type=local", "dest is required"),
            ("dest=x", "type is required"),
            ("type=zip,dest=x", "the types are"),
            ("type=registry,dest=x", "no dest"),
            ("type=oci,tar=false", "dest is required"),
            ("type=tar,tar=false", "tar goes with"),
            ("type=oci,push=true", "push goes with"),
            ("type=oci,compression=zstd", "compression is not known"),
            ("type=local,dest=x,name=y", "no name"),
            ("type=oci,tar=maybe", "neither true nor false"),
        ] {
            let why = of(bad).unwrap_err();
            assert!(why.contains(part), "{bad}: {why}");
        }
    }

    #[test]
    fn annotations_and_metadata() {
        assert_eq!(annotation("a.b=c=d").unwrap(), ("a.b".to_owned(), "c=d".to_owned()));
        assert_eq!(annotation("manifest:a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(annotation("index:a=b").is_err() && annotation("a").is_err() && annotation("=b").is_err());
        let built = BuiltImage { id: "sha256:ab".into(), ..BuiltImage::default() };
        let fields = Value::Object(metadata(&built, &["x".to_owned(), "r.example/y:1".to_owned()]));
        let names = "docker.io/library/x:latest,r.example/y:1";
        let wanted =
            json!({"containerimage.config.digest": "sha256:ab", "containerimage.digest": "sha256:ab", "image.name": names});
        assert_eq!(fields, wanted);
        assert!(metadata(&BuiltImage::default(), &[]).is_empty());
    }
}
