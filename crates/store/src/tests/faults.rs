//! Every step fails once, and the process dies once at every step: afterwards all is as it was or as it should be.

use model::{DiffId, ImageId};

use super::{Dir, check, container, name, pull, sha256};
use crate::{
    Error, NamedImage, Store,
    fault::{self, Mode},
};

/// Far more than any of the operations has steps.
const MOST: u32 = 400;

/// For every step of `work`: the fault at it, then invariants, then `work` again without fault.
fn at_every_step(mode: Mode, prepare: impl Fn(&Store), work: impl Fn(&Store) -> Result<(), Error>, whole: impl Fn(&[NamedImage])) {
    for step in 0..MOST {
        let dir = Dir::fast();
        let mut store = dir.open();
        prepare(&store);
        let before = store.images();
        let outcome = fault::with(step, mode, || work(&store));
        let Some(point) = outcome.hit else {
            outcome.value.unwrap();
            whole(&store.images());
            assert!(step > 3, "the points are not reached");
            return;
        };
        if mode == Mode::Die {
            drop(store);
            store = Store::open(dir.root()).unwrap();
            store.gc().unwrap();
            check(&store);
        } else {
            // What a failed step leaves may be swept, but what is visible must be the old or the new.
            store.settle();
            if outcome.value.is_err() && mode == Mode::Full {
                assert_eq!(store.images(), before, "{point} (step {step})");
            }
            store.gc().unwrap();
            check(&store);
        }
        for image in store.images() {
            assert!(image.record.layers.iter().all(|id| store.layer(id).is_some()), "{point} (step {step})");
            assert!(image.documents.iter().all(|digest| store.blob(digest).is_ok()), "{point} (step {step})");
        }
        work(&store).unwrap_or_else(|e| panic!("{point} (step {step}): again: {e}"));
        whole(&store.images());
        store.gc().unwrap();
        check(&store);
    }
    panic!("more than {MOST} steps");
}

fn pulling(mode: Mode) {
    at_every_step(
        mode,
        |store| assert!(pull(store, "old", &["one"], &["a:1", "a:2"]).is_ok()),
        |store| pull(store, "new", &["one", "two", "three"], &["a:1"]).map(drop),
        |images| {
            assert_eq!(images.len(), 2);
            assert!(images.iter().any(|i| i.record.layers.len() == 3 && i.tags == ["docker.io/library/a:1"]));
        },
    );
}

#[test]
fn pull_survives_death_at_every_step() {
    pulling(Mode::Die);
}

#[test]
fn pull_survives_an_error_at_every_step() {
    pulling(Mode::Fail);
}

#[test]
fn pull_survives_a_full_disk_at_every_step() {
    pulling(Mode::Full);
}

/// More images at once than are written one by one.
fn loading(mode: Mode) {
    at_every_step(
        mode,
        |store| assert!(pull(store, "old", &["one"], &["n0:1", "n1:1"]).is_ok()),
        |store| {
            let (layer, _pin) = super::put_layer(store, "one", crate::LayerKind::Erofs)?;
            let made: Vec<_> = (0..20).map(|n| super::Made::new(&format!("new {n}"), vec![layer])).collect();
            super::put_all(store, &made, |n| format!("n{n}:1"))
        },
        |images| {
            assert_eq!(images.len(), 21);
            assert!(
                images
                    .iter()
                    .all(|image| image.tags.len() == usize::from(image.record.id != ImageId::new(sha256(b"config of old"))))
            );
        },
    );
}

#[test]
fn load_survives_death_at_every_step() {
    loading(Mode::Die);
}

#[test]
fn load_survives_an_error_at_every_step() {
    loading(Mode::Fail);
}

#[test]
fn load_survives_a_full_disk_at_every_step() {
    loading(Mode::Full);
}

fn removing(mode: Mode) {
    let removed = ImageId::new(sha256(b"config of new"));
    at_every_step(
        mode,
        |store| {
            pull(store, "old", &["one"], &["a:1"]).unwrap();
            pull(store, "new", &["one", "two", "three"], &["a:2", "b"]).unwrap();
        },
        |store| store.remove_image(&removed).map(drop),
        |images| assert_eq!(images.len(), 1),
    );
}

#[test]
fn removal_survives_death_at_every_step() {
    removing(Mode::Die);
}

#[test]
fn removal_survives_an_error_at_every_step() {
    removing(Mode::Fail);
}

#[test]
fn untag_survives_death_at_every_step() {
    at_every_step(
        Mode::Die,
        |store| assert!(pull(store, "a", &["one"], &["a:1", "a:2"]).is_ok()),
        |store| store.untag(&name("a:1")).map(drop),
        |images| assert_eq!(images[0].tags, ["docker.io/library/a:2"]),
    );
}

#[test]
fn collection_survives_death_at_every_step() {
    let (orphan, lost) = (DiffId::new(sha256(b"orphan")), DiffId::new(sha256(b"lost")));
    at_every_step(
        Mode::Die,
        |store| {
            pull(store, "a", &["one"], &["a"]).unwrap();
            drop(super::put_layer(store, "orphan", crate::LayerKind::Erofs).unwrap());
            pull(store, "b", &["lost"], &["b"]).unwrap();
            std::fs::remove_file(store.layer(&lost).unwrap().path).unwrap();
            std::fs::write(store.root().join("blobs/sha256/stray"), "x").unwrap();
        },
        |store| {
            store.gc()?;
            assert!(store.layer(&orphan).is_none());
            Ok(())
        },
        |images| assert_eq!(images.len(), 1),
    );
}

#[test]
fn opening_survives_death_at_every_step() {
    let whole = Dir::fast();
    let store = whole.open();
    pull(&store, "a", &["one", "two"], &["a"]).unwrap();
    let before = store.images();
    drop(store);
    std::fs::write(whole.root().join("images.redb"), "damaged").unwrap();
    for step in 0..MOST {
        let dir = Dir::fast();
        let copied = std::process::Command::new("cp").arg("-a").arg(whole.root()).arg(dir.root()).status().unwrap();
        assert!(copied.success());
        let outcome = fault::with(step, Mode::Die, || Store::open(dir.root()).map(drop));
        let store = Store::open(dir.root()).unwrap();
        assert_eq!(store.images(), before, "{outcome:?}");
        store.gc().unwrap();
        check(&store);
        if outcome.hit.is_none() {
            return;
        }
    }
    panic!("more than {MOST} steps");
}

#[test]
fn containers_and_records_survive_death_at_every_step() {
    at_every_step(
        Mode::Die,
        |_| {},
        |store| {
            store.container_dir(container(1))?;
            store.put_container(container(1), b"record")?;
            store.put_user(container(1), b"record")?;
            assert_eq!(store.load_containers()?.0, [(container(1), b"record".to_vec())]);
            assert_eq!(store.load_users()?.0, [(container(1), b"record".to_vec())]);
            store.remove_container(container(1))?;
            store.remove_user(container(1))?;
            store.remove_container_dir(container(1))
        },
        |_| {},
    );
}
