//! A disk that is really full (F-20, F-21): a tmpfs and a small ext4, filled to the last block.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use model::{ErrorKind, PodId};

use super::{check, container, pull};
use crate::Store;

/// A file system of its own, unmounted at the end.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn new(arguments: impl Fn(&Path) -> Vec<String>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(arguments(dir.path())).arg(&at).output().ok()?;
        if !mounted.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Self { dir })
    }

    fn tmpfs(options: &str) -> Option<Self> {
        Self::new(|_| ["-t", "tmpfs", "-o", options, "creel-test"].map(str::to_owned).to_vec())
    }

    /// ext4 on a loop device, with few inodes.
    fn ext4(megabytes: u64, inodes: u32) -> Option<Self> {
        Self::new(|dir| {
            let image = dir.join("image");
            File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
            let made = Command::new("mkfs.ext4").args(["-q", "-m", "0", "-N", &inodes.to_string()]).arg(&image).status();
            assert!(made.is_ok_and(|s| s.success()), "mkfs.ext4");
            vec!["-o".to_owned(), "loop".to_owned(), image.display().to_string()]
        })
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mnt/store")
    }

    /// Takes every last byte.
    fn fill(&self) {
        let mut file = File::create(self.dir.path().join("mnt/filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn clear(&self) {
        fs::remove_file(self.dir.path().join("mnt/filler")).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path().join("mnt")).status();
        assert!(unmounted.is_ok_and(|s| s.success()), "umount");
    }
}

fn lives_through_a_full_disk(mounted: &Mounted) {
    let store = Store::open(mounted.root()).unwrap();
    store.gc().unwrap();
    let id = pull(&store, "a", &["one", &"two".repeat(100_000)], &["a"]).unwrap();
    let kept = pull(&store, "b", &["one"], &["b"]).unwrap();
    store.container_dir(container(1)).unwrap();
    store.put_pod(PodId::from_bytes([1; 32]), b"pod").unwrap();
    mounted.fill();
    let error = pull(&store, "c", &["three"], &["c"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    // More than the reserve that is lent to records.
    let error = store.put_pod(PodId::from_bytes([1; 32]), &vec![7; 9 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert_eq!(store.load_pods().unwrap().0[0].1, b"pod");
    assert_eq!(store.images().len(), 2);
    // Reading and removing work, also by a daemon that starts on the full disk.
    drop(store);
    let store = Store::open(mounted.root()).unwrap();
    store.gc().unwrap();
    assert_eq!(store.blob(id.digest()).unwrap(), b"config of a");
    assert_eq!(store.remove_image(&id).unwrap().layers.len(), 1);
    store.remove_container_dir(container(1)).unwrap();
    store.remove_pod(PodId::from_bytes([1; 32])).unwrap();
    mounted.clear();
    check(&store);
    pull(&store, "c", &["three"], &["c"]).unwrap();
    assert_eq!(store.images().len(), 2);
    store.remove_image(&kept).unwrap();
    check(&store);
    assert!(mounted.root().join("reserve").exists());
}

#[test]
fn f_20_tmpfs() {
    if let Some(mounted) = Mounted::tmpfs("size=24m") {
        lives_through_a_full_disk(&mounted);
    }
}

#[test]
fn f_20_ext4() {
    if let Some(mounted) = Mounted::ext4(48, 2000) {
        lives_through_a_full_disk(&mounted);
    }
}

#[test]
fn f_21_no_inodes() {
    let Some(mounted) = Mounted::tmpfs("size=64m,nr_inodes=60") else { return };
    let store = Store::open(mounted.root()).unwrap();
    store.gc().unwrap();
    let id = pull(&store, "a", &["one", "two"], &["a"]).unwrap();
    let mut fillers = Vec::new();
    while let Ok(file) = File::create_new(mounted.dir.path().join(format!("mnt/{}", fillers.len()))) {
        fillers.push(file);
    }
    let error = pull(&store, "c", &["three"], &["c"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    store.remove_image(&id).unwrap();
    check(&store);
    assert!(store.images().is_empty());
}
