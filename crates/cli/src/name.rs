//! Names of images as people write and read them.

/// A repository's full name without what everybody leaves out.
pub(crate) fn familiar(full: &str) -> String {
    match full.strip_prefix("docker.io/") {
        Some(rest) => match rest.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => rest.to_owned(),
        },
        None => full.to_owned(),
    }
}

/// Whether a person's name means this full one (`docker.io/library/x:latest`).
pub(crate) fn same(full: &str, wanted: &str) -> bool {
    let has_tag = wanted.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let wanted = if has_tag { wanted.to_owned() } else { format!("{wanted}:latest") };
    full == wanted || full.rsplit_once(':').is_some_and(|(name, tag)| format!("{}:{tag}", familiar(name)) == wanted)
}

/// Whether a name has a tag: a colon after its last slash, before any digest.
pub(crate) fn has_tag(name: &str) -> bool {
    let name = name.split('@').next().unwrap_or(name);
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// A person's name in full: with the registry, and with a tag or a digest. A digest makes a tag beside it meaningless.
pub(crate) fn full(name: &str) -> String {
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) = match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((repository, tag)) => (repository, tag),
        None => (name, "latest"),
    };
    let host = registry(repository);
    let path = repository.strip_prefix(host).and_then(|rest| rest.strip_prefix('/')).unwrap_or(repository);
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let library = if host == "docker.io" && !path.contains('/') { "library/" } else { "" };
    match digest {
        Some(digest) => format!("{host}/{library}{path}@{digest}"),
        None => format!("{host}/{library}{path}:{tag}"),
    }
}

/// A full name as its repository and what comes behind it: `:TAG` or `@DIGEST`.
pub(crate) fn split(full: &str) -> (&str, &str) {
    let at = full.find('@').or_else(|| full.rfind(':').filter(|at| !full[*at..].contains('/')));
    full.split_at(at.unwrap_or(full.len()))
}

/// The registry of a name.
pub(crate) fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The shell's wildcards; `*` does not cross a slash.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for part in pattern {
        let mut next = vec![false; text.len() + 1];
        let mut seen = false;
        for n in 0..=text.len() {
            seen = (seen && n > 0 && text[n - 1] != '/') || reach[n];
            match part {
                '*' => next[n] = seen,
                '?' if n < text.len() => next[n + 1] = reach[n] && text[n] != '/',
                c if n < text.len() => next[n + 1] = reach[n] && text[n] == c,
                _ => {}
            }
        }
        reach = next;
    }
    reach[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(familiar("docker.io/library/x"), "x");
        assert_eq!(familiar("docker.io/me/x"), "me/x");
        assert!(same("docker.io/library/x:latest", "x") && same("r.example/x:1", "r.example/x:1") && !same("r.example/x:1", "x:1"));
        assert_eq!(registry("r.example:5000/x"), "r.example:5000");
        assert_eq!(registry("me/x"), "docker.io");
        for (name, whole, shown) in [
            ("x", "docker.io/library/x:latest", ("docker.io/library/x", ":latest")),
            ("me/x:1", "docker.io/me/x:1", ("docker.io/me/x", ":1")),
            ("docker.io/x", "docker.io/library/x:latest", ("docker.io/library/x", ":latest")),
            ("localhost:5000/x", "localhost:5000/x:latest", ("localhost:5000/x", ":latest")),
            ("r.example/x:1@sha256:ab", "r.example/x@sha256:ab", ("r.example/x", "@sha256:ab")),
        ] {
            assert_eq!(full(name), whole);
            assert_eq!(split(whole), shown);
        }
        assert!(has_tag("a/x:1") && !has_tag("localhost:5000/x") && !has_tag("x@sha256:ab"));
        assert!(glob("a*/b?", "aa/bc") && !glob("a*", "a/b") && glob("*", "") && !glob("?", ""));
    }
}
