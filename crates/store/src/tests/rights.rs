//! Who may open a store, and when.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use super::Dir;
use crate::{Error, Store};

#[test]
fn a_second_opener_is_refused_by_name() {
    let dir = Dir::new();
    let store = dir.open();
    let error = Store::open(dir.root()).unwrap_err();
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert_eq!(error.kind(), model::ErrorKind::FailedPrecondition);
    drop(store);
    dir.open();
}

#[test]
fn im_11_only_the_owner_may_look_inside() {
    let dir = Dir::new();
    fs::create_dir(dir.root()).unwrap();
    fs::set_permissions(dir.root(), fs::Permissions::from_mode(0o777)).unwrap();
    drop(dir.open());
    for path in ["", "blobs", "layers/sha256", "containers", "records/pods"] {
        let mode = fs::metadata(dir.root().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{path}");
    }
    chown(dir.root(), Some(65534), None).unwrap();
    assert!(matches!(Store::open(dir.root()), Err(Error::Owner { found: 65534, .. })));
    let file = dir.root().with_file_name("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Store::open(file), Err(Error::NotADirectory(_))));
}

#[test]
fn a_future_schema_is_refused_and_untouched() {
    let dir = Dir::new();
    drop(dir.open());
    for future in ["2\n", "", "one\n"] {
        fs::write(dir.root().join("version"), future).unwrap();
        let error = Store::open(dir.root()).unwrap_err();
        assert!(matches!(error, Error::Schema { .. }), "{error}");
        assert_eq!(fs::read_to_string(dir.root().join("version")).unwrap(), future);
    }
}
