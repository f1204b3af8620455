//! Root file systems out of images.

use std::os::{
    fd::{AsRawFd, OwnedFd},
    unix::fs::MetadataExt,
};

use super::{super::Durability, Lab, Made, container};

fn read(root: &OwnedFd, name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/fd/{}/{name}", root.as_raw_fd())).ok()
}

fn write(root: &OwnedFd, name: &str, text: &str) {
    std::fs::write(format!("/proc/self/fd/{}/{name}", root.as_raw_fd()), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_lie_on_each_other_and_containers_do_not_meet() {
    let lab = Lab::new();
    let made = Made::new(&[&[("a", b"lower"), ("gone", b"x"), ("dir/b", b"b")], &[("a", b"upper"), (".wh.gone", b"")]]);
    lab.server.offer("x", "1", &made);
    let id = lab.pull("x:1").await.unwrap();
    let image = lab.images.status(&id.to_string()).unwrap();
    let pins = lab.store.pin(&image.layers);
    for durability in [Durability::Volatile, Durability::Durable] {
        let first = lab.images.rootfs(&image, container(1), durability, (None, None)).unwrap();
        let second = lab.images.rootfs(&image, container(2), durability, (None, None)).unwrap();
        assert_eq!(read(&first, "a").as_deref(), Some("upper"));
        assert_eq!(read(&first, "dir/b").as_deref(), Some("b"));
        assert_eq!(read(&first, "gone"), None);
        write(&first, "a", "changed");
        assert_eq!((read(&first, "a").as_deref(), read(&second, "a").as_deref()), (Some("changed"), Some("upper")));
        drop((first, second));
        for n in [1, 2] {
            lab.store.remove_container_dir(container(n)).unwrap();
        }
    }
    // The image goes; what stands on it stays, until the pins go.
    let root = lab.images.rootfs(&image, container(3), Durability::Volatile, (None, None)).unwrap();
    lab.images.remove(&id.to_string()).await.unwrap();
    assert_eq!(read(&root, "dir/b").as_deref(), Some("b"));
    drop(pins);
    lab.store.settle();
    assert!(image.layers.iter().all(|layer| lab.store.layer(layer).is_none()));
    let error = lab.images.rootfs(&image, container(4), Durability::Volatile, (None, None)).unwrap_err();
    assert!(error.to_string().contains("pull the image again"), "{error}");
    drop(root);
    lab.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_itself_is_as_the_image_says() {
    let lab = Lab::new();
    let made = Made::new(&[&[("./", b""), ("a", b"")]]);
    lab.server.offer("x", "1", &made);
    let id = lab.pull("x:1").await.unwrap();
    let image = lab.images.status(&id.to_string()).unwrap();
    let _pins = lab.store.pin(&image.layers);
    let root = lab.images.rootfs(&image, container(1), Durability::Volatile, (None, None)).unwrap();
    let found = std::fs::metadata(format!("/proc/self/fd/{}", root.as_raw_fd())).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o750, 5, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn im_07_no_layers_make_an_empty_root() {
    let lab = Lab::new();
    let made = Made::new(&[]);
    lab.server.offer("x", "1", &made);
    let id = lab.pull("x:1").await.unwrap();
    let image = lab.images.status(&id.to_string()).unwrap();
    let root = lab.images.rootfs(&image, container(1), Durability::Volatile, (None, None)).unwrap();
    assert_eq!(std::fs::read_dir(format!("/proc/self/fd/{}", root.as_raw_fd())).unwrap().count(), 0);
    write(&root, "a", "text");
    assert_eq!(read(&root, "a").as_deref(), Some("text"));
}
