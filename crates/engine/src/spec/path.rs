//! Paths as text: absolute, without `.` and `..`, before anybody resolves them.

/// The longest path that the kernel takes (PATH_MAX, with its NUL).
const PATH_MAX: usize = 4096;

/// The shortest path of the same meaning; `..` at the root stays there, as chroot(2) has it. `None`: not absolute, too
/// long, or with a NUL or control character, which no path of a container needs and every log suffers from.
pub(crate) fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.len() >= PATH_MAX || path.chars().any(char::is_control) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// Whether a path has `..` among its parts.
pub(crate) fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// Whether `path` is `top` or below it. Both clean.
pub(crate) fn within(path: &str, top: &str) -> bool {
    path.strip_prefix(top.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        for (given, expected) in [
            ("/", Some("/")),
            ("//a//b/", Some("/a/b")),
            ("/a/./b/../c", Some("/a/c")),
            ("/../../etc", Some("/etc")),
            ("a", None),
            ("", None),
            ("/a\0", None),
            ("/a\n", None),
        ] {
            assert_eq!(clean(given).as_deref(), expected, "{given:?}");
        }
        assert_eq!(clean(&format!("/{}", "a".repeat(5000))), None);
    }

    #[test]
    fn within_goes_by_whole_parts() {
        for (path, top, expected) in [
            ("/proc", "/proc", true),
            ("/proc/x", "/proc", true),
            ("/process", "/proc", false),
            ("/", "/proc", false),
            ("/x", "/", true),
        ] {
            assert_eq!(within(path, top), expected, "{path} {top}");
        }
    }
}
