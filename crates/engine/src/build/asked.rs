//! What a COPY or ADD asks for, its variables expanded and its flags understood.

use dockerfile::{Copy, Ignore, Instruction};
use model::{Digest, ErrorKind};

use super::{clean, find::Layout, refuse, state::State};
use crate::{error::Error, user::files::Chmod};

/// Something that is to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A path, or a pattern of paths.
    Path(String),
    /// A file of the Dockerfile's own: name and content.
    Document(String, String),
    /// ADD fetches it.
    Url(String),
}

/// What the layer is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// The layers so far.
    Parent,
    /// Nothing: it is the same on any (--link).
    Nothing,
}

/// Which archives are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpack {
    /// Those that are not fetched: what ADD does if it is not told.
    Local,
    /// All.
    All,
    /// None.
    None,
}

/// A COPY or ADD.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) origins: Vec<Origin>,
    /// As written.
    pub(super) destination: String,
    /// Absolute and clean.
    pub(super) path: String,
    /// It is a directory, whether it is there or not.
    pub(super) directory: bool,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<Chmod>,
    /// Patterns as written, and what they mean.
    pub(super) excluded: Vec<String>,
    pub(super) exclude: Ignore,
    pub(super) layout: Layout,
    pub(super) link: Link,
    pub(super) unpack: Unpack,
    /// What a fetched file must be.
    pub(super) checksum: Option<Digest>,
}

fn wrong(why: impl Into<String>) -> Error {
    refuse(ErrorKind::InvalidArgument, why)
}

impl Asked {
    /// Understands one.
    ///
    /// # Errors
    /// What is wrong with it, and what is not done here.
    pub(super) fn new(state: &State, instruction: &Instruction, copy: &Copy) -> Result<Self, Error> {
        let (add, keyword) = (matches!(instruction, Instruction::Add(_)), instruction.keyword());
        let expand = |text: &str| state.changed.word(text).map_err(|e| wrong(e.to_string()));
        let value = |name: &str| flag(copy, name).map(expand).transpose();
        let origins = origins(state, copy, keyword)?;
        let destination = expand(&copy.destination)?;
        let excluded = copy.flags.iter().filter(|flag| flag.name == "exclude").filter_map(|flag| flag.value.as_deref());
        let excluded = excluded.map(expand).collect::<Result<Vec<_>, _>>()?;
        let exclude = Ignore::of(excluded.iter().map(String::as_str)).map_err(|e| wrong(format!("--exclude: {e}")))?;
        let chmod =
            value("chmod")?.map(|text| Chmod::parse(&text).ok_or_else(|| wrong(format!("invalid chmod parameter: '{text}'"))));
        let checksum = value("checksum")?.map(|text| checksum(&text, &origins)).transpose()?;
        if truth(copy, "keep-git-dir") == Some(true) {
            return Err(refuse(ErrorKind::Unsupported, "ADD --keep-git-dir: git repositories are not fetched"));
        }
        Ok(Self {
            path: absolute(state.working_dir(), &destination),
            directory: is_directory(&destination, origins.len())?,
            origins,
            destination,
            chown: value("chown")?,
            chmod: chmod.transpose()?,
            excluded,
            exclude,
            layout: if truth(copy, "parents") == Some(true) { Layout::Parents } else { Layout::Flat },
            link: if truth(copy, "link") == Some(true) { Link::Nothing } else { Link::Parent },
            unpack: match truth(copy, "unpack") {
                Some(true) => Unpack::All,
                None if add => Unpack::Local,
                _ => Unpack::None,
            },
            checksum,
        })
    }
}

fn origins(state: &State, copy: &Copy, keyword: &str) -> Result<Vec<Origin>, Error> {
    let mut documents = copy.heredocs.iter();
    let mut found = Vec::new();
    for text in &copy.sources {
        let heredoc = text.strip_prefix("<<").and_then(|name| documents.clone().find(|heredoc| heredoc.name == name));
        if let Some(heredoc) = heredoc {
            documents.next();
            let content = match heredoc.expand {
                true => state.changed.document(&heredoc.content).map_err(|e| wrong(e.to_string()))?,
                false => heredoc.content.clone(),
            };
            found.push(Origin::Document(heredoc.name.clone(), content));
            continue;
        }
        let text = state.changed.word(text).map_err(|e| wrong(e.to_string()))?;
        if is_git(&text) && keyword == "ADD" {
            let why = format!("ADD {text}: git repositories are not fetched; clone it, and give its files");
            return Err(refuse(ErrorKind::Unsupported, why));
        }
        let remote = text.starts_with("http://") || text.starts_with("https://");
        found.push(match remote {
            true if keyword == "COPY" => return Err(wrong("source can't be a URL for COPY")),
            true => Origin::Url(text),
            false => Origin::Path(text),
        });
    }
    Ok(found)
}

/// What docker takes for a git repository.
fn is_git(text: &str) -> bool {
    let bare = text.split(['#', '?']).next().unwrap_or_default();
    let http = text.starts_with("http://") || text.starts_with("https://");
    ["git://", "git@", "ssh://", "github.com/"].iter().any(|start| text.starts_with(start)) || (http && bare.ends_with(".git"))
}

/// `--checksum` says what one file must be that is fetched.
fn checksum(text: &str, origins: &[Origin]) -> Result<Digest, Error> {
    match origins {
        [Origin::Url(_)] => text.parse().map_err(|_| wrong(format!("--checksum={text}: use sha256:HEX"))),
        [_] => Err(wrong("checksum can't be specified for non-HTTP(S) sources")),
        _ => Err(wrong("checksum can't be specified for multiple sources")),
    }
}

fn flag<'c>(copy: &'c Copy, name: &str) -> Option<&'c str> {
    copy.flags.iter().find(|flag| flag.name == name).and_then(|flag| flag.value.as_deref())
}

/// What a flag says that says yes or no; given alone it says yes.
fn truth(copy: &Copy, name: &str) -> Option<bool> {
    copy.flags.iter().find(|flag| flag.name == name).map(|flag| flag.value.as_deref() != Some("false"))
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
        return Err(wrong(why));
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(absolute("/srv", "x/../y/"), "/srv/y");
        assert_eq!(absolute("/srv", "/a//b"), "/a/b");
        assert_eq!(absolute("/", "."), "/");
        assert!(is_directory("a/", 1).unwrap() && is_directory(".", 3).unwrap() && !is_directory("a", 1).unwrap());
        assert!(is_directory("a", 2).is_err());
    }

    fn asked(line: &str) -> Result<Asked, String> {
        let mut state = State::scratch('\\', &registry::Platform::host());
        state.declare("V", "value".into());
        let file = dockerfile::parse(format!("FROM a\n{line}\n").as_bytes()).map_err(|e| e.to_string())?;
        let instruction = &file.instructions[1].instruction;
        let (Instruction::Copy(copy) | Instruction::Add(copy)) = instruction else { panic!("{line}") };
        Asked::new(&state, instruction, copy).map_err(|e| e.chain())
    }

    #[test]
    fn documents_are_expanded_unless_quoted() {
        let one = asked("COPY <<A <<\"B\" x$V /d/\n$V \"q\"\nA\n$V\nB").unwrap();
        let document = |name: &str, text: &str| Origin::Document(name.to_owned(), text.to_owned());
        let wanted = [document("A", "value \"q\"\n"), document("B", "$V\n"), Origin::Path("xvalue".into())];
        assert_eq!(one.origins, wanted);
    }

    #[test]
    fn flags() {
        let one = asked("COPY --link --parents --exclude=*.md --exclude=$V --chmod=u=rw,go=r --chown=$V a b/").unwrap();
        assert_eq!((one.link, one.layout, one.chown.as_deref()), (Link::Nothing, Layout::Parents, Some("value")));
        assert!(one.exclude.excludes("x.md") && one.exclude.excludes("value") && !one.exclude.excludes("x"));
        assert_eq!(asked("COPY --link=false a b").unwrap().link, Link::Parent);
        assert_eq!(asked("ADD a b").unwrap().unpack, Unpack::Local);
        assert_eq!(asked("ADD --unpack a b").unwrap().unpack, Unpack::All);
        assert_eq!(asked("ADD --unpack=false a b").unwrap().unpack, Unpack::None);
        assert_eq!(asked("ADD https://a.example/x /x").unwrap().origins, [Origin::Url("https://a.example/x".into())]);
    }

    #[test]
    fn what_is_refused() {
        for (line, part) in [
            ("COPY --chmod=9 a b", "invalid chmod parameter: '9'"),
            ("COPY --chwon=a a b", "unknown flag: --chwon (did you mean --chown?)"),
            ("COPY --exclude=[ a b", "--exclude: "),
            ("COPY https://a.example/x b", "source can't be a URL for COPY"),
            ("ADD https://a.example/x.git#main b", "git repositories are not fetched"),
            ("ADD git@a.example:x/y b", "git repositories are not fetched"),
            ("ADD --keep-git-dir a b", "--keep-git-dir"),
            ("ADD --checksum=sha256:1 https://a.example/x b", "use sha256:HEX"),
            ("ADD --checksum=sha256:1 x b", "non-HTTP(S) sources"),
            ("ADD --checksum=sha256:1 x y b/", "multiple sources"),
            ("COPY a b c", "must be a directory and end with a /"),
        ] {
            let told = asked(line).unwrap_err();
            assert!(told.contains(part), "{line}: {told}");
        }
    }
}
