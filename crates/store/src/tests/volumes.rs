//! Volumes are there whole or not at all.

use model::VolumeName;

use super::Dir;
use crate::{
    Error, Store,
    fault::{self, Mode},
};

fn volume() -> VolumeName {
    "some.volume".parse().unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.load_volumes().unwrap().into_iter().map(|found| found.name.to_string()).collect()
}

#[test]
fn they_keep_their_data_and_their_first_record() {
    let dir = Dir::new();
    let store = dir.open();
    assert!(store.create_volume(&volume(), b"one").unwrap());
    std::fs::write(store.volume_dir(&volume()).data.join("file"), "x").unwrap();
    assert!(!store.create_volume(&volume(), b"two").unwrap());
    drop(store);
    let store = dir.open();
    let found = store.load_volumes().unwrap();
    assert_eq!((found.len(), found[0].record.clone()), (1, Ok(b"one".to_vec())));
    assert!(store.volume_dir(&volume()).data.join("file").exists());
    store.remove_volume(&volume()).unwrap();
    store.remove_volume(&volume()).unwrap();
    store.settle();
    assert_eq!(names(&store), Vec::<String>::new());
    for empty in ["ingest", "trash", "volumes"] {
        assert_eq!(std::fs::read_dir(dir.root().join(empty)).unwrap().count(), 0, "{empty}");
    }
}

#[test]
fn a_damaged_record_costs_no_data() {
    let dir = Dir::new();
    let store = dir.open();
    store.create_volume(&volume(), b"one").unwrap();
    let record = dir.root().join("volumes/some.volume/record");
    std::fs::write(&record, "torn").unwrap();
    std::fs::write(dir.root().join("volumes/.nobody"), "x").unwrap();
    let found = store.load_volumes().unwrap();
    assert_eq!((found.len(), found[0].record.is_err()), (1, true));
    std::fs::remove_file(record).unwrap();
    assert!(store.load_volumes().unwrap()[0].record.is_err());
}

/// Each step of `work` fails or is the last one; afterwards the volume is there whole or not at all, and `work` works.
fn at_every_step(mode: Mode, there_before: bool, work: impl Fn(&Store) -> Result<(), Error>) {
    for step in 0..100 {
        let dir = Dir::fast();
        let mut store = dir.open();
        if there_before {
            store.create_volume(&volume(), b"record").unwrap();
        }
        let outcome = fault::with(step, mode, || work(&store));
        if outcome.hit.is_none() {
            outcome.value.unwrap();
            assert!(step > 1);
            return;
        }
        if mode == Mode::Die {
            drop(store);
            store = dir.open();
        }
        for found in store.load_volumes().unwrap() {
            assert_eq!(found.record.as_deref(), Ok(&b"record"[..]));
            assert!(store.volume_dir(&found.name).data.is_dir());
        }
        work(&store).unwrap();
        assert_eq!(names(&store).is_empty(), there_before);
        store.settle();
        drop(store);
        dir.open().settle();
        for empty in ["ingest", "trash"] {
            assert_eq!(std::fs::read_dir(dir.root().join(empty)).unwrap().count(), 0, "{empty}");
        }
    }
    panic!("more than 100 steps");
}

#[test]
fn making_one_survives_faults_at_every_step() {
    for mode in [Mode::Fail, Mode::Die, Mode::Full] {
        at_every_step(mode, false, |store| store.create_volume(&volume(), b"record").map(drop));
    }
}

#[test]
fn removing_one_survives_faults_at_every_step() {
    for mode in [Mode::Fail, Mode::Die] {
        at_every_step(mode, true, |store| store.remove_volume(&volume()));
    }
}

#[test]
fn caches_are_filled_or_not_there_and_what_is_damaged_goes() {
    let dir = Dir::new();
    let store = dir.open();
    let id = |n| model::StepId::from_bytes([n; 32]);
    let full = |_: &std::path::Path| Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
    assert!(store.create_cache(id(1), b"one", full).is_err());
    assert!(!store.cache_data(id(1)).exists());
    assert!(store.create_cache(id(1), b"one", |data| std::fs::write(data.join("file"), "x")).unwrap());
    assert!(!store.create_cache(id(1), b"two", |_| Ok(())).unwrap());
    store.put_cache(id(1), b"three").unwrap();
    store.create_cache(id(2), b"", |_| Ok(())).unwrap();
    std::fs::write(dir.root().join(format!("caches/{}/record", id(2))), "torn").unwrap();
    std::fs::create_dir(dir.root().join("caches/else")).unwrap();
    assert_eq!(store.load_caches().unwrap(), [(id(1), b"three".to_vec())]);
    assert!(store.cache_data(id(1)).join("file").exists() && !store.cache_data(id(2)).exists());
    store.remove_cache(id(1)).unwrap();
    store.settle();
    for empty in ["ingest", "trash", "caches"] {
        assert_eq!(std::fs::read_dir(dir.root().join(empty)).unwrap().count(), 0, "{empty}");
    }
}
