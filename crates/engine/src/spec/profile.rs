//! Which seccomp program a container gets.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::Path,
    sync::{Mutex, PoisonError},
};

use minicbor::bytes::ByteVec;
use model::container::{SeccompSpec, SecuritySpec};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use super::{
    error::{Error, cut},
    path,
};

/// A program by its profile (`None`: our default; else the digest of its JSON) and the bounding set it was made for.
type Key = (Option<[u8; 32]>, u64);

/// Programs that were compiled before: half a millisecond each, and the containers of a node share a few profiles.
static COMPILED: Mutex<Option<HashMap<Key, ByteVec>>> = Mutex::new(None);
/// A program has some KiB; more profiles than this at once are somebody's experiment.
const MAX_COMPILED: usize = 64;

fn compiled(key: Key, compile: impl FnOnce() -> Result<Vec<u8>, Error>) -> Result<ByteVec, Error> {
    // A panic while the lock was held left a map that is whole: insertion is its only change.
    let lock = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().as_ref().and_then(|map| map.get(&key)) {
        return Ok(known.clone());
    }
    let program = ByteVec::from(compile()?);
    let mut map = lock();
    let map = map.get_or_insert_default();
    if map.len() >= MAX_COMPILED {
        map.clear();
    }
    map.insert(key, program.clone());
    Ok(program)
}

/// The program, or `None` for none. `caps` is the container's bounding set.
///
/// # Errors
/// A localhost profile that is not there, not a file, or not a profile: never quietly none (CVE-2023-2431).
pub(crate) fn program(security: &SecuritySpec, caps: u64) -> Result<Option<ByteVec>, Error> {
    if security.privileged {
        return Ok(None);
    }
    match &security.seccomp {
        SeccompSpec::Unconfined => Ok(None),
        SeccompSpec::RuntimeDefault => compiled((None, caps), || Ok(seccomp::default_program(caps))).map(Some),
        SeccompSpec::Localhost(given) => localhost(given, caps).map(Some),
    }
}

/// The same profile as a document for an OCI runtime.
///
/// # Errors
/// As [`program`].
pub fn document(security: &SecuritySpec, caps: u64) -> Result<Option<serde_json::Value>, Error> {
    if security.privileged {
        return Ok(None);
    }
    match &security.seccomp {
        SeccompSpec::Unconfined => Ok(None),
        SeccompSpec::RuntimeDefault => Ok(Some(seccomp::default_document(caps))),
        SeccompSpec::Localhost(given) => {
            let (path, json) = file(given)?;
            let document = seccomp::parse_and_resolve(&json, &seccomp::Target::native(kernel_version(), caps));
            document.map(Some).map_err(|source| Error::SeccompProfile { path: path.into(), source })
        }
    }
}

fn localhost(given: &str, caps: u64) -> Result<ByteVec, Error> {
    let (path, json) = file(given)?;
    let target = seccomp::Target::native(kernel_version(), caps);
    compiled((Some(Sha256::digest(&json).into()), caps), || {
        seccomp::parse_and_compile(&json, &target).map_err(|source| Error::SeccompProfile { path: path.into(), source })
    })
}

/// A profile that is at hand.
///
/// # Errors
/// It is none.
pub(crate) fn compile(json: &[u8], caps: u64) -> Result<ByteVec, Error> {
    let target = seccomp::Target::native(kernel_version(), caps);
    compiled((Some(Sha256::digest(json).into()), caps), || {
        seccomp::parse_and_compile(json, &target)
            .map_err(|source| Error::SeccompProfile { path: "of an NRI plugin".into(), source })
    })
}

/// A profile's path, and what it says.
fn file(given: &str) -> Result<(String, Vec<u8>), Error> {
    // The form of Kubernetes before 1.19, which CRI clients still send.
    let bare = given.strip_prefix("localhost/").unwrap_or(given);
    let refuse = |why| Err(Error::SeccompPath { path: cut(given), why });
    if bare.is_empty() {
        return refuse("is empty");
    }
    if path::climbs(bare) {
        return refuse("has `..`");
    }
    let Some(clean) = path::clean(bare) else { return refuse("must be an absolute path") };
    let json = read(Path::new(&clean)).map_err(|source| Error::SeccompFile { path: clean.clone().into(), source })?;
    Ok((clean, json))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // Without blocking, should it be a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("is not a regular file"));
    }
    let mut json = Vec::new();
    file.take(seccomp::MAX_PROFILE as u64 + 1).read_to_end(&mut json)?;
    Ok(json)
}

/// Major and minor of the running kernel, for profiles with `minKernel`.
fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let mut numbers = uname
        .release()
        .to_bytes()
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()));
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::spec::tests::security;

    fn with(profile: SeccompSpec) -> Result<Option<ByteVec>, Error> {
        program(&SecuritySpec { seccomp: profile, ..security() }, 0)
    }

    #[test]
    fn the_profile_that_is_asked_for() {
        assert_eq!(with(SeccompSpec::Unconfined).unwrap(), None);
        assert_eq!(with(SeccompSpec::RuntimeDefault).unwrap().unwrap().to_vec(), seccomp::default_program(0));
        let privileged = SecuritySpec { privileged: true, seccomp: SeccompSpec::RuntimeDefault, ..security() };
        assert_eq!(program(&privileged, 0).unwrap(), None);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.json");
        fs::write(&file, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        let path = file.to_str().unwrap();
        assert!(with(SeccompSpec::Localhost(path.into())).unwrap().is_some());
        assert!(with(SeccompSpec::Localhost(format!("localhost/{path}"))).unwrap().is_some());
        let allowing = with(SeccompSpec::Localhost(path.into())).unwrap();
        fs::write(&file, r#"{"defaultAction":"SCMP_ACT_LOG"}"#).unwrap();
        assert_ne!(with(SeccompSpec::Localhost(path.into())).unwrap(), allowing, "a changed file is another profile");
        fs::write(&file, "{}").unwrap();
        assert!(matches!(with(SeccompSpec::Localhost(path.into())).unwrap_err(), Error::SeccompProfile { .. }));
        assert!(kernel_version() >= (5, 12));
    }

    #[test]
    fn ex_22_a_missing_profile_is_an_error_and_never_none() {
        for bad in ["", "localhost/", "p.json", "../../etc/x", "/var/../etc/x", "/a\0"] {
            assert!(matches!(with(SeccompSpec::Localhost(bad.into())).unwrap_err(), Error::SeccompPath { .. }), "{bad:?}");
        }
        for bad in ["/nonexistent/p.json", "/dev/null", "/etc"] {
            assert!(matches!(with(SeccompSpec::Localhost(bad.into())).unwrap_err(), Error::SeccompFile { .. }), "{bad:?}");
        }
    }
}
