//! Names of slices and where their cgroups are: a dash goes one level down (systemd.slice(5)).

use crate::SliceError;

/// unit_name_is_valid(): UNIT_NAME_MAX with the final NUL.
const MAX: usize = 255;

/// The cgroup of a slice below the hierarchy's root: `/a.slice/a-b.slice` for `a-b.slice`, and `/` for `-.slice`.
///
/// # Errors
/// It is not a slice's name.
pub fn path_of(name: &str) -> Result<String, SliceError> {
    let refuse = |why| Err(SliceError { name: name.chars().take(100).collect(), why });
    let Some(stem) = name.strip_suffix(".slice") else { return refuse("does not end in .slice") };
    if name.len() > MAX {
        return refuse("is longer than 255 bytes");
    }
    if stem == "-" {
        return Ok("/".to_owned());
    }
    if name.contains('/') {
        return refuse("has a slash: a slice is named without the ones above it");
    }
    if !stem.bytes().all(|c| c.is_ascii_alphanumeric() || b":_.\\-".contains(&c)) {
        return refuse("has a character that names of units do not have");
    }
    if stem.split('-').any(str::is_empty) {
        return refuse("has an empty part before, after or between dashes");
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &stem[..end])).collect())
}

/// Whether a cgroup is a scope: asked for from systemd, and given back to it.
pub fn is_scope(cgroup: &str) -> bool {
    cgroup.ends_with(".scope")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dashes_go_down() {
        for (name, path) in [
            ("-.slice", "/"),
            ("system.slice", "/system.slice"),
            ("kubepods-podabc_1.slice", "/kubepods.slice/kubepods-podabc_1.slice"),
            ("kubepods-burstable-pod12_34.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice"),
            ("a.b.slice", "/a.b.slice"),
        ] {
            assert_eq!(path_of(name).unwrap(), path);
        }
    }

    #[test]
    fn what_is_no_slice_is_refused_with_the_reason() {
        let long = format!("{}.slice", "a".repeat(250));
        for (name, why) in [
            ("/kubepods/burstable", ".slice"),
            ("x.scope", ".slice"),
            (".slice", "empty"),
            ("-a.slice", "empty"),
            ("a-.slice", "empty"),
            ("a--b.slice", "empty"),
            ("/a.slice", "slash"),
            ("a.slice/a-b.slice", "slash"),
            ("a b.slice", "character"),
            ("a\n.slice", "character"),
            ("ä.slice", "character"),
            (&long, "longer"),
        ] {
            let error = path_of(name).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    proptest! {
        #[test]
        fn paths_are_normal(name in "\\PC{0,40}(\\.slice)?") {
            if let Ok(path) = path_of(&name) {
                prop_assert!(path == "/" || path.split('/').skip(1).all(|part| part.ends_with(".slice") && part.len() > 6));
            }
        }
    }
}
