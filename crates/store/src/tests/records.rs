//! Records and writable layers.

use std::{fs, os::unix::fs::PermissionsExt};

use model::PodId;

use super::{Dir, check, container};

#[test]
fn records_come_back_and_damaged_ones_are_put_aside() {
    let dir = Dir::new();
    let store = dir.open();
    let pods = [1, 2, 3].map(|n| PodId::from_bytes([n; 32]));
    for id in pods {
        store.put_pod(id, b"first").unwrap();
    }
    store.put_pod(pods[0], b"second").unwrap();
    store.put_container(container(9), b"container").unwrap();
    store.remove_pod(pods[1]).unwrap();
    store.remove_pod(pods[1]).unwrap();
    let torn = dir.root().join("records/pods").join(pods[2].to_string());
    fs::write(&torn, &fs::read(&torn).unwrap()[..9]).unwrap();
    fs::write(dir.root().join("records/pods/nonsense"), "x").unwrap();
    drop(store);
    let store = dir.open();
    let (good, damaged) = store.load_pods().unwrap();
    assert_eq!(good, [(pods[0], b"second".to_vec())]);
    assert_eq!(damaged.len(), 2);
    let shown: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|s| s.contains("its name is not an id")), "{shown:?}");
    assert!(shown.iter().any(|s| s.contains("shorter than an empty record") && s.contains("quarantine")), "{shown:?}");
    assert!(store.load_pods().unwrap().1.is_empty());
    assert_eq!(store.load_containers().unwrap().0, [(container(9), b"container".to_vec())]);
    store.remove_container(container(9)).unwrap();
    check(&store);
}

#[test]
fn the_file_of_a_record_is_for_ever() {
    let dir = Dir::new();
    let store = dir.open();
    store.put_pod(PodId::from_bytes([0xab; 32]), b"pod").unwrap();
    let bytes = fs::read(dir.root().join("records/pods").join("ab".repeat(32))).unwrap();
    assert_eq!(bytes, crate::envelope::seal(b"pod"));
}

#[test]
fn writable_layers_come_and_go() {
    let dir = Dir::new();
    let store = dir.open();
    let made = store.container_dir(container(1)).unwrap();
    store.container_dir(container(1)).unwrap();
    assert_eq!(fs::metadata(&made.upper).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(&made.work).unwrap().permissions().mode() & 0o7777, 0o700);
    store.container_dir(container(2)).unwrap();
    assert_eq!(store.sweep_container_dirs(&[container(1)]).unwrap(), 1);
    assert!(made.upper.exists() && !store.container_path(container(2)).exists());
    store.remove_container_dir(container(1)).unwrap();
    assert!(!store.container_path(container(1)).exists());
    store.remove_container_dir(container(1)).unwrap();
    check(&store);
}

/// What a hostile container can leave: deeper than any stack, immutable, with links to elsewhere.
#[test]
fn hostile_trees_are_removed_and_links_are_not_followed() {
    use rustix::fs::{CWD, IFlags, Mode, OFlags, ioctl_setflags, mkdirat, openat, symlinkat};
    let dir = Dir::new();
    let store = dir.open();
    let canary = dir.root().with_file_name("canary");
    fs::write(&canary, "alive").unwrap();
    let upper = store.container_dir(container(1)).unwrap().upper;
    let open =
        |at: &std::os::fd::OwnedFd, name: &str| openat(at, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut at = openat(CWD, &upper, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    symlinkat(canary.parent().unwrap(), &at, "link").unwrap();
    let immutable = openat(&at, "immutable", OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
    if let Err(e) = ioctl_setflags(&immutable, IFlags::IMMUTABLE) {
        eprintln!("skipped: immutable files: {e}");
    }
    for _ in 0..5000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = open(&at, "d");
    }
    drop(at);
    store.remove_container_dir(container(1)).unwrap();
    check(&store);
    assert_eq!(fs::read_to_string(canary).unwrap(), "alive");
}
