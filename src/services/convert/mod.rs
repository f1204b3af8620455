//! Between CRI's messages and the engine's words. Whatever the model cannot express is refused here, naming the field
//! and the reason; nothing that was asked for is dropped in silence, except what has no meaning on Linux or on this
//! machine and is documented so in `proto/`.

pub(crate) mod container;
mod id;
mod lsm;
mod mount;
pub(crate) mod pod;
pub(crate) mod resources;
mod security;
pub(crate) mod signal;
pub(crate) mod userns;

use std::{collections::BTreeMap, fmt::Display};

pub(crate) use id::{container_target, is_id_prefix};

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It can never be right.
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
    /// An image was to be mounted.
    #[error("{field}: {why}")]
    ImageVolume { field: String, why: String },
}

type Result<T> = std::result::Result<T, Refused>;

/// `field` is wrong because of `why`.
fn invalid(field: impl Display, why: impl Display) -> Refused {
    Refused::Invalid { field: field.to_string(), why: why.to_string() }
}

/// Longest key and value of one label together, in bytes.
const LABEL_MAX: usize = 4096;
/// All labels together, and all annotations, in bytes: Kubernetes allows 256 KiB of annotations, and the kubelet adds some
/// of its own.
const TEXTS_MAX: usize = 320 << 10;
/// PATH_MAX of the kernel.
const PATH_MAX: usize = 4096;

/// Labels within their limits, as they are.
fn labels(field: &str, labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    match labels.iter().find(|(key, value)| key.len() + value.len() > LABEL_MAX) {
        Some((key, value)) => {
            let (key, size) = (shown(key), key.len() + value.len());
            Err(invalid(field, format_args!("{key}: key and value are {size} bytes long, more than {LABEL_MAX}")))
        }
        None => annotations(field, labels),
    }
}

/// Annotations within their limits, as they are.
fn annotations(field: &str, annotations: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > TEXTS_MAX {
        return Err(invalid(field, format_args!("{size} bytes altogether, more than {TEXTS_MAX}")));
    }
    Ok(annotations)
}

/// Something a client wrote, short and printable.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}")
}

/// An absolute path that is one for the kernel.
fn absolute(field: impl Display, path: String) -> Result<String> {
    if !path.starts_with('/') {
        return Err(invalid(field, format_args!("{}: not an absolute path", shown(&path))));
    }
    plain(field, path)
}

/// A path without NUL and not longer than the kernel takes.
fn plain(field: impl Display, path: String) -> Result<String> {
    if path.contains('\0') {
        return Err(invalid(field, format_args!("{}: contains a NUL", shown(&path))));
    }
    if path.len() >= PATH_MAX {
        return Err(invalid(field, format_args!("{} bytes long, more than {PATH_MAX}", path.len())));
    }
    Ok(path)
}

/// A path that does not climb.
fn no_climbing(field: impl Display, path: String) -> Result<String> {
    if path.split('/').any(|part| part == "..") {
        return Err(invalid(field, format_args!("{}: contains ..", shown(&path))));
    }
    Ok(path)
}

/// A uid or gid. The highest number means "no change" to the kernel (setresuid(2)) and names nobody.
fn uid(field: impl Display, number: i64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(invalid(field, format_args!("{number}: not from 0 to {}", u32::MAX - 1))),
    }
}

/// The enum value with this number. Unknown numbers are refused, never taken for the default.
fn known<E: TryFrom<i32>>(field: impl Display, number: i32) -> Result<E> {
    E::try_from(number).map_err(|_| invalid(field, format_args!("{number}: no such value")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_annotations_have_limits() {
        let one = |size: usize| BTreeMap::from([("k".to_owned(), "v".repeat(size - 1))]);
        assert!(labels("labels", one(LABEL_MAX)).is_ok());
        assert_eq!(
            labels("labels", one(4097)).unwrap_err().to_string(),
            "labels: \"k\": key and value are 4097 bytes long, more than 4096"
        );
        assert!(annotations("annotations", one(TEXTS_MAX)).is_ok());
        assert!(annotations("annotations", one(TEXTS_MAX + 1)).is_err());
    }

    #[test]
    fn paths_and_ids_are_checked() {
        assert!(absolute("f", "/a/b".into()).is_ok());
        for bad in ["", "a", "./a", "/a\0b", &"/a".repeat(3000)] {
            assert!(absolute("f", bad.to_owned()).is_err(), "{bad}");
        }
        assert!(no_climbing("f", "/a/..b".into()).is_ok());
        assert!(no_climbing("f", "/a/../b".into()).is_err());
        assert_eq!(uid("f", 4_294_967_294).unwrap(), 4_294_967_294);
        for bad in [-1, 4_294_967_295, i64::MAX] {
            assert!(uid("f", bad).is_err(), "{bad}");
        }
    }
}
