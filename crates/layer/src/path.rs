//! What an entry's name means: a place in the layer, or a whiteout (OCI image spec, layer.md#whiteouts).

use crate::{Limits, Refusal};

/// The longest name of a directory entry on Linux (NAME_MAX).
const NAME_MAX: usize = 255;

/// What an entry's name stands for. The parent is clean: components joined by single slashes, or empty for the root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The layer's root directory.
    Root,
    /// An entry proper.
    At(Located),
    /// `.wh.NAME`: hides NAME of the layers below.
    Whiteout(Located),
    /// `.wh..wh..opq`: hides everything of the layers below in this directory.
    Opaque(Vec<u8>),
    /// aufs bookkeeping (`.wh..wh.*`) that old docker versions put into layers; engines skip it.
    Ignored,
}

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) parent: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Sorts a raw entry name. Absolute names are taken as relative to the layer's root, as every engine does.
pub(crate) fn classify(raw: &[u8], limits: &Limits) -> Result<Place, Refusal> {
    let mut parts = components(raw, limits)?;
    if parts.iter().any(|part| part.starts_with(META) && *part != OPAQUE) {
        return Ok(Place::Ignored);
    }
    let Some(last) = parts.pop() else { return Ok(Place::Root) };
    if parts.iter().any(|part| part.starts_with(PREFIX)) {
        return Err(Refusal::Whiteout);
    }
    if parts.iter().any(|part| part.len() > NAME_MAX) {
        return Err(Refusal::LongName);
    }
    let parent = parts.join(&b'/');
    if last == OPAQUE {
        return Ok(Place::Opaque(parent));
    }
    let hidden = last.strip_prefix(PREFIX);
    let name = hidden.unwrap_or(last);
    if name.len() > NAME_MAX {
        return Err(Refusal::LongName);
    }
    if hidden.is_some() && matches!(name, b"" | b"." | b"..") {
        return Err(Refusal::Whiteout);
    }
    let located = Located { parent, name: name.to_vec() };
    Ok(if hidden.is_some() { Place::Whiteout(located) } else { Place::At(located) })
}

/// Sorts a hard link's target, which is named like an entry but cannot be a whiteout.
pub(crate) fn locate(raw: &[u8], limits: &Limits) -> Result<Option<Located>, Refusal> {
    let mut parts = components(raw, limits)?;
    Ok(parts.pop().map(|name| Located { parent: parts.join(&b'/'), name: name.to_vec() }))
}

fn components<'p>(raw: &'p [u8], limits: &Limits) -> Result<Vec<&'p [u8]>, Refusal> {
    if raw.is_empty() {
        return Err(Refusal::EmptyName);
    }
    if raw.len() > limits.path {
        return Err(Refusal::LongPath);
    }
    let parts: Vec<&[u8]> = raw.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) { Err(Refusal::DotDot) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(parent: &str, name: &str) -> Located {
        Located { parent: parent.into(), name: name.into() }
    }

    #[test]
    fn names_are_sorted() {
        let long = "n".repeat(255);
        let cases: Vec<(String, Result<Place, Refusal>)> = vec![
            ("./".into(), Ok(Place::Root)),
            ("/".into(), Ok(Place::Root)),
            (".".into(), Ok(Place::Root)),
            ("a".into(), Ok(Place::At(at("", "a")))),
            ("./a//b/./c/".into(), Ok(Place::At(at("a/b", "c")))),
            ("/etc/passwd".into(), Ok(Place::At(at("etc", "passwd")))),
            ("a/.wh.b".into(), Ok(Place::Whiteout(at("a", "b")))),
            (".wh....".into(), Ok(Place::Whiteout(at("", "...")))),
            ("a/.wh..wh..opq".into(), Ok(Place::Opaque("a".into()))),
            (".wh..wh..opq".into(), Ok(Place::Opaque("".into()))),
            (".wh..wh.plnk/1.2".into(), Ok(Place::Ignored)),
            ("a/.wh..wh.aufs".into(), Ok(Place::Ignored)),
            (format!("a/{long}"), Ok(Place::At(at("a", &long)))),
            (format!("a/.wh.{long}"), Ok(Place::Whiteout(at("a", &long)))),
            (format!("a/{long}x"), Err(Refusal::LongName)),
            (format!("{long}x/a"), Err(Refusal::LongName)),
            ("".into(), Err(Refusal::EmptyName)),
            ("..".into(), Err(Refusal::DotDot)),
            ("a/../b".into(), Err(Refusal::DotDot)),
            ("../../etc/passwd".into(), Err(Refusal::DotDot)),
            ("a/.wh.".into(), Err(Refusal::Whiteout)),
            ("a/.wh..".into(), Err(Refusal::Whiteout)),
            ("a/.wh...".into(), Err(Refusal::Whiteout)),
            (".wh.a/b".into(), Err(Refusal::Whiteout)),
            (".wh..wh..opq/b".into(), Err(Refusal::Whiteout)),
            ("x/".repeat(3000), Err(Refusal::LongPath)),
        ];
        for (raw, expected) in cases {
            assert_eq!(classify(raw.as_bytes(), &Limits::default()), expected, "{raw}");
        }
    }
}
