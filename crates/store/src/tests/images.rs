//! Images, names, layers, pins.

use std::{sync::Arc, thread};

use model::DiffId;

use super::{Dir, Made, check, container, name, pull, put_layer, sha256};
use crate::{Error, Form, LayerKind, Packing, Store};

#[test]
fn an_image_is_found_under_all_its_names_and_after_reopening() {
    let dir = Dir::new();
    let store = dir.open();
    let id = pull(&store, "a", &["one", "two"], &["busybox"]).unwrap();
    let look = |store: &Store| {
        let image = store.image(&id).unwrap();
        assert_eq!(image.tags, ["docker.io/library/busybox:latest"]);
        let target = Made::new("a", vec![]).target();
        assert_eq!(image.digests, [format!("docker.io/library/busybox@{target}")]);
        assert_eq!(store.image_id(&name("busybox")), Some(id));
        assert_eq!(store.image_id(&name(&format!("busybox:ignored@{target}"))), Some(id));
        assert_eq!(store.image_id(&name("busybox:other")), None);
        assert_eq!(store.target(&name("busybox")), Some(target));
        assert_eq!(store.image_by_prefix(&id.digest().hex()[..6]).unwrap(), Some(id));
        assert_eq!(store.image_by_prefix("zz").unwrap(), None);
        assert_eq!(store.images(), std::slice::from_ref(&image));
        assert_eq!(store.blob(id.digest()).unwrap(), b"config of a");
        let info = store.layer(&image.record.layers[0]).unwrap();
        assert_eq!((info.kind, info.tar_size), (LayerKind::Erofs, 3));
        assert_eq!(store.layer(&image.record.layers[1]).unwrap().kind, LayerKind::Directory);
        assert_eq!(store.layer_of_blob(&sha256(b"compressed one")), Some(image.record.layers[0]));
        assert!(store.image_usage().1.bytes > 0);
        check(store);
    };
    look(&store);
    drop(store);
    let store = dir.open();
    assert!(store.rebuilt().is_none());
    look(&store);
    let removed = store.remove_image(&id).unwrap();
    assert_eq!((removed.names.len(), removed.layers.len()), (2, 2));
    assert!(store.images().is_empty() && store.image_by_prefix("").unwrap().is_none());
    assert_eq!(store.image_usage().1, Default::default());
    assert_eq!(store.remove_image(&id).unwrap(), Default::default());
    check(&store);
}

#[test]
fn a_moved_tag_leaves_the_old_image_under_its_digest() {
    let dir = Dir::new();
    let store = dir.open();
    let old = pull(&store, "old", &["one"], &["x/y:1"]).unwrap();
    let new = pull(&store, "new", &["one", "two"], &["x/y:1"]).unwrap();
    assert_eq!(store.image_id(&name("x/y:1")), Some(new));
    let image = store.image(&old).unwrap();
    assert!(image.tags.is_empty());
    assert_eq!(image.digests.len(), 1);
    assert!(store.image_by_prefix("").is_err_and(|e| matches!(e, Error::Ambiguous { count: 2, .. })));
    assert!(store.untag(&name("x/y:1")).unwrap());
    assert!(!store.untag(&name("x/y:1")).unwrap());
    assert!(store.image(&new).unwrap().tags.is_empty());
    check(&store);
    // The shared layer stays until the last image goes.
    assert_eq!(store.remove_image(&new).unwrap().layers.len(), 1);
    assert_eq!(store.remove_image(&old).unwrap().layers.len(), 1);
    check(&store);
}

#[test]
fn pulled_by_digest_there_is_no_tag_and_zero_layers_are_fine() {
    let dir = Dir::new();
    let store = dir.open();
    let made = Made::new("empty", vec![]);
    let by_digest = format!("x@{}", made.target());
    made.put(&store, &[&by_digest]).unwrap();
    let image = store.image(&made.record.id).unwrap();
    assert!(image.tags.is_empty());
    assert_eq!(image.digests, [format!("docker.io/library/{by_digest}")]);
    made.put(&store, &["x:1", "x:2"]).unwrap();
    assert_eq!(store.image(&made.record.id).unwrap().tags.len(), 2);
    check(&store);
}

#[test]
fn an_image_without_its_layers_is_refused_and_leaves_nothing() {
    let dir = Dir::new();
    let store = dir.open();
    let made = Made::new("a", vec![DiffId::new(sha256(b"nowhere"))]);
    assert!(matches!(made.put(&store, &["a"]), Err(Error::NoLayer(_))));
    check(&store);
}

#[test]
fn pinned_layers_outlive_their_image_and_go_with_the_last_pin() {
    let dir = Dir::new();
    let store = dir.open();
    let freed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = freed.clone();
    store.on_freed(move |layers| heard.lock().unwrap().extend_from_slice(layers));
    let id = pull(&store, "a", &["one", "two"], &["a"]).unwrap();
    let layers = store.image(&id).unwrap().record.layers;
    let (first, second) = (store.pin(&layers), store.pin(&layers[..1]));
    assert!(store.remove_image(&id).unwrap().layers.is_empty());
    assert!(layers.iter().all(|id| store.layer(id).is_some()));
    store.gc().unwrap();
    drop(first);
    store.settle();
    assert!(store.layer(&layers[0]).is_some() && store.layer(&layers[1]).is_none());
    drop(second);
    check(&store);
    assert!(store.layer(&layers[0]).is_none());
    assert_eq!(*freed.lock().unwrap(), [layers[1], layers[0]]);
}

#[test]
fn nothing_is_freed_before_the_first_collection() {
    let dir = Dir::new();
    let (orphan, pins) = put_layer(&dir.open(), "orphan", LayerKind::Erofs).unwrap();
    drop(pins);
    let store = Store::open(dir.root()).unwrap();
    assert!(store.layer(&orphan).is_some(), "the store was closed before the sweeper could free it, or this is no test");
    drop(store.pin(&[orphan]));
    store.settle();
    assert!(store.layer(&orphan).is_some());
    let pin = store.pin(&[orphan]);
    assert!(store.gc().unwrap().layers.is_empty());
    drop(pin);
    check(&store);
    assert!(store.layer(&orphan).is_none());
}

#[test]
fn the_same_layer_twice_is_one() {
    let dir = Dir::new();
    let store = dir.open();
    let (one, _pins) = put_layer(&store, "one", LayerKind::Erofs).unwrap();
    let (again, _more) = put_layer(&store, "one", LayerKind::Erofs).unwrap();
    assert_eq!(one, again);
    drop(store.layer_ingest());
    drop(store.layer_ingest().create_file().unwrap());
    drop(store.layer_ingest().create_directory().unwrap());
    Made::new("a", vec![one]).put(&store, &["a"]).unwrap();
    check(&store);
}

#[test]
fn many_at_once() {
    let dir = Dir::new();
    let store = Arc::new(dir.open());
    thread::scope(|scope| {
        for n in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for round in 0..6 {
                    let own = format!("own {n} {round}");
                    let id = pull(&store, &own, &["shared", &own], &[&format!("x:{n}")]).unwrap();
                    let layers = store.image(&id).unwrap().record.layers;
                    let pins = store.pin(&layers);
                    let whole = layers.iter().all(|id| store.layer(id).is_some());
                    assert!(whole, "nobody else removes this image");
                    store.put_container(container(n), own.as_bytes()).unwrap();
                    store.container_dir(container(n)).unwrap();
                    store.remove_container_dir(container(n)).unwrap();
                    store.remove_image(&id).unwrap();
                    drop(pins);
                    if round == 3 {
                        store.gc().unwrap();
                    }
                }
            });
        }
    });
    check(&store);
    assert!(store.images().is_empty());
    assert_eq!(store.shared.state().layers.len(), 0);
}

#[test]
fn forms_of_a_layer_are_remembered_the_latest_first() {
    let dir = Dir::new();
    let store = dir.open();
    pull(&store, "a", &["one"], &["a"]).unwrap();
    let layer = DiffId::new(sha256(b"one"));
    let form = |n: u8| Form { digest: sha256(&[n]), size: n.into(), packing: Packing::Gzip };
    let pulled = store.forms(&layer);
    assert_eq!(pulled.len(), 1);
    for n in [1, 2, 1, 1] {
        store.remember_forms(&[(layer, form(n)), (DiffId::new(sha256(b"gone")), form(n))]).unwrap();
    }
    assert_eq!(store.forms(&layer), [form(1), form(2), pulled[0]]);
    assert_eq!(store.layer_of_blob(&form(2).digest), Some(layer));
    (3..9).for_each(|n| store.remember_forms(&[(layer, form(n))]).unwrap());
    drop(store);
    assert_eq!(dir.open().forms(&layer), [8, 7, 6, 5].map(form));
}
