//! What becomes of a store whose files were damaged behind its back (IM-13, F-23 to F-25).

use std::{fs, path::PathBuf};

use super::{Dir, Made, check, name, pull, put_layer, sha256};
use crate::{Error, LayerKind, Store};

fn database(dir: &Dir) -> PathBuf {
    dir.root().join("images.redb")
}

/// Whatever happens to the database, no image is lost and no layer has to be pulled again.
fn survives(damage: impl Fn(&Dir)) {
    let dir = Dir::new();
    let store = dir.open();
    let a = pull(&store, "a", &["one", "two"], &["a:1", "a:2"]).unwrap();
    let b = pull(&store, "b", &["one"], &["b", "a:2"]).unwrap();
    let before = store.images();
    drop(store);
    damage(&dir);
    let store = Store::open(dir.root()).unwrap();
    let rebuilt = store.rebuilt().expect("this was damage");
    assert_eq!(rebuilt.images, 2);
    assert!(!rebuilt.why.is_empty());
    assert_eq!(rebuilt.moved_to.as_ref().is_some_and(|p| p.exists()), rebuilt.moved_to.is_some());
    store.gc().unwrap();
    check(&store);
    assert_eq!(store.images(), before);
    assert_eq!(store.image_id(&name("a:2")), Some(b));
    assert_eq!(store.image_id(&name("a:1")), Some(a));
    assert!(store.layer_of_blob(&sha256(b"compressed two")).is_some());
    drop(store);
    let store = dir.open();
    assert!(store.rebuilt().is_none());
    assert_eq!(store.images(), before);
}

#[test]
fn f_25_the_database_is_gone() {
    survives(|dir| fs::remove_file(database(dir)).unwrap());
}

#[test]
fn f_25_the_database_is_no_database() {
    survives(|dir| fs::write(database(dir), "nothing of the kind".repeat(1000)).unwrap());
}

#[test]
fn f_25_the_database_is_truncated() {
    survives(|dir| {
        let bytes = fs::read(database(dir)).unwrap();
        fs::write(database(dir), &bytes[..bytes.len() / 3]).unwrap();
    });
}

#[test]
fn f_25_the_database_has_zeroes() {
    survives(|dir| {
        let mut bytes = fs::read(database(dir)).unwrap();
        bytes[..4096].fill(0);
        fs::write(database(dir), bytes).unwrap();
    });
}

/// A bit may flip where nothing is stored; where something is, it must be noticed, and never be believed.
#[test]
fn f_25_flipped_bits_in_the_database() {
    let dir = Dir::new();
    let store = dir.open();
    pull(&store, "a", &["one", "two"], &["a:1"]).unwrap();
    let before = store.images();
    drop(store);
    let good = fs::read(database(&dir)).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut noticed = 0;
    for at in used.iter().step_by(used.len() / 60 + 1) {
        let mut bad = good.clone();
        bad[*at] ^= 0x10;
        fs::write(database(&dir), bad).unwrap();
        let store = Store::open(dir.root()).unwrap();
        noticed += u32::from(store.rebuilt().is_some());
        assert_eq!(store.images(), before, "byte {at}");
    }
    // Much of the file is pages that are no longer or not yet in use.
    assert!(noticed > 0);
}

#[test]
fn an_old_copy_of_the_database_forgets_what_came_later() {
    let dir = Dir::new();
    let store = dir.open();
    let a = pull(&store, "a", &["one"], &["a"]).unwrap();
    drop(store);
    let old = fs::read(database(&dir)).unwrap();
    let store = dir.open();
    let b = pull(&store, "b", &["one", "two"], &["b"]).unwrap();
    store.remove_image(&a).unwrap();
    drop(store);
    fs::write(database(&dir), old).unwrap();
    let store = Store::open(dir.root()).unwrap();
    // `a` lost its documents when it was removed, so it is not whole; `b` is not known.
    assert_eq!(store.gc().unwrap().broken_images, [a]);
    assert!(store.image(&b).is_none());
    check(&store);
}

#[test]
fn im_13_a_damaged_blob_is_put_aside_and_pulling_heals() {
    let dir = Dir::new();
    let store = dir.open();
    let id = pull(&store, "a", &["one"], &["a"]).unwrap();
    let path = dir.root().join("blobs/sha256").join(id.digest().hex());
    for damaged in [b"config of b".to_vec(), Vec::new(), vec![0; 20 << 20]] {
        fs::write(&path, damaged).unwrap();
        let error = store.blob(id.digest()).unwrap_err();
        assert!(matches!(error, Error::BlobDamaged { .. }), "{error}");
        assert_eq!(error.kind(), model::ErrorKind::Corrupted);
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        assert!(matches!(store.blob(id.digest()), Err(Error::NoBlob(_))));
        pull(&store, "a", &["one"], &["a"]).unwrap();
        assert_eq!(store.blob(id.digest()).unwrap(), b"config of a");
    }
    check(&store);
}

#[test]
fn f_24_a_layer_that_went_missing_is_admitted_and_pulled_again() {
    let dir = Dir::new();
    let store = dir.open();
    let id = pull(&store, "a", &["one", "two"], &["a"]).unwrap();
    let layers = store.image(&id).unwrap().record.layers;
    fs::remove_file(store.layer(&layers[0]).unwrap().path).unwrap();
    assert!(store.layer(&layers[0]).is_none());
    assert!(store.layer_of_blob(&sha256(b"compressed one")).is_none());
    let (again, _pins) = put_layer(&store, "one", LayerKind::Erofs).unwrap();
    assert!(store.layer(&again).is_some());
    check(&store);
    fs::remove_dir_all(store.layer(&layers[1]).unwrap().path).unwrap();
    assert_eq!(store.gc().unwrap().broken_images, [id]);
    assert!(store.images().is_empty());
    pull(&store, "a", &["one", "two"], &["a"]).unwrap();
    check(&store);
}

#[test]
fn strays_are_swept() {
    let dir = Dir::new();
    let store = dir.open();
    pull(&store, "a", &["one", "two"], &["a"]).unwrap();
    let made = Made::new("stray", vec![]);
    for path in ["blobs/sha256/nonsense", "layers/sha256/nonsense", "images/sha512/nonsense", "ingest/nonsense", "trash/nonsense"] {
        fs::write(dir.root().join(path), "x").unwrap();
    }
    fs::create_dir(dir.root().join("layers/sha256").join(made.target().hex())).unwrap();
    fs::write(dir.root().join("blobs/sha256").join(made.target().hex()), "x").unwrap();
    drop(store);
    let store = Store::open(dir.root()).unwrap();
    assert_eq!(store.gc().unwrap().strays, 5);
    check(&store);
}
