//! Which images the configuration pins.

use model::{Digest, ImageRef};

use super::ImageInfo;

/// Images by name, by id, or by a pattern that fits one of their full names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// A full name.
    Name(String),
    /// An id, or a manifest's digest under any name.
    Digest(Digest),
    /// The pieces between the `*`.
    Pieces(Vec<String>),
}

impl Pinned {
    /// Names are normalised (`busybox` is `docker.io/library/busybox:latest`), patterns with `*` are taken as they are.
    ///
    /// # Errors
    /// Says which entry is neither.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        entries.iter().map(|entry| Pattern::parse(entry)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn has(&self, image: &ImageInfo) -> bool {
        self.0.iter().any(|pattern| pattern.fits(image))
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, String> {
        if entry.contains('*') {
            return Ok(Self::Pieces(entry.split('*').map(str::to_owned).collect()));
        }
        if let Ok(digest) = entry.parse() {
            return Ok(Self::Digest(digest));
        }
        let name: ImageRef = entry.parse().map_err(|e| format!("{entry:?}: {e}"))?;
        Ok(Self::Name(name.to_string()))
    }

    fn fits(&self, image: &ImageInfo) -> bool {
        let mut names = image.repo_tags.iter().chain(&image.repo_digests);
        match self {
            Self::Name(pinned) => names.any(|name| name == pinned),
            Self::Digest(digest) => *image.id.digest() == *digest || names.any(|name| name.ends_with(&format!("@{digest}"))),
            Self::Pieces(pieces) => names.any(|name| fits(pieces, name)),
        }
    }
}

/// Whether a text is these pieces with anything between them. Each piece but the last is taken where it comes first, which
/// leaves the most for those that follow.
fn fits(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for piece in middle {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let pieces = |text: &str| text.split('*').map(str::to_owned).collect::<Vec<_>>();
        for (pattern, text, fit) in [
            ("*", "", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*a*b", "xaybzb", true),
            ("ab*ba", "aba", false),
            ("*/busybox:*", "docker.io/library/busybox:1", true),
            ("*/busybox:*", "docker.io/library/nobusybox:1", false),
            ("**", "x", true),
        ] {
            assert_eq!(fits(&pieces(pattern), text), fit, "{pattern} {text}");
        }
    }

    #[test]
    fn entries_are_names_ids_or_patterns() {
        let parse = |entry: &str| Pinned::parse(&[entry.to_owned()]);
        assert_eq!(parse("busybox").unwrap(), Pinned(vec![Pattern::Name("docker.io/library/busybox:latest".into())]));
        assert!(matches!(parse(&format!("sha256:{}", "0a".repeat(32))).unwrap().0[0], Pattern::Digest(_)));
        assert!(parse("UPPER/Case").unwrap_err().starts_with("\"UPPER/Case\": "));
        assert!(parse("").is_err());
    }
}
