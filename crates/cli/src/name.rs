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
        assert!(glob("a*/b?", "aa/bc") && !glob("a*", "a/b") && glob("*", "") && !glob("?", ""));
    }
}
