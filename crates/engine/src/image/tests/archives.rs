//! Archives of both kinds, and what is wrong with some.

use std::{fs::File, io::Write};

use model::{ErrorKind, ImageId};

use super::{Lab, Made, sha256, tar};
use crate::Error;

async fn import(lab: &Lab, archive: &[u8]) -> Result<Vec<(ImageId, Vec<String>)>, Error> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    lab.images.import(file).await
}

/// As `docker save` writes it.
fn saved(made: &Made, names: &[&str]) -> Vec<u8> {
    let layers: Vec<_> = (0..made.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": names, "Layers": layers}]).to_string();
    let mut files = vec![("config.json", &made.config[..]), ("manifest.json", manifest.as_bytes())];
    files.extend(layers.iter().map(String::as_str).zip(made.layers.iter().map(Vec::as_slice)));
    tar(&files)
}

/// An OCI image layout.
fn layout(made: &Made, name: &str) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(&made.manifest).to_string(), "size": made.manifest.len(),
        "annotations": {"io.containerd.image.name": name},
    }]})
    .to_string();
    let mut files =
        vec![("oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]), ("index.json".to_owned(), index.as_bytes())];
    for blob in made.layers.iter().chain([&made.config, &made.manifest]) {
        files.push((format!("blobs/sha256/{}", sha256(blob).hex()), blob));
    }
    tar(&files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_give_the_same_image() {
    let lab = Lab::new();
    let made = Made::new(&[&[("a", b"one")], &[("b", b"two")]]);
    let loaded = import(&lab, &saved(&made, &["busybox", "x/y:2"])).await.unwrap();
    assert_eq!(loaded, [(made.id(), vec!["docker.io/library/busybox:latest".to_owned(), "docker.io/x/y:2".to_owned()])]);
    let loaded = import(&lab, &layout(&made, "docker.io/library/z:1")).await.unwrap();
    assert_eq!(loaded, [(made.id(), vec!["docker.io/library/z:1".to_owned()])]);
    let image = lab.images.status("busybox").unwrap();
    assert_eq!((image.repo_tags.len(), image.layers.len()), (3, 2));
    assert_eq!(lab.images.list().len(), 1);
    lab.images.remove("z:1").await.unwrap();
    lab.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_archives_are_refused_and_leave_nothing() {
    let lab = Lab::new();
    let made = Made::new(&[&[("a", b"one")]]);
    let other = Made::promising(&made.layers, &[sha256(b"something else")]);
    let whole = saved(&made, &["x"]);
    for (what, archive, kind) in [
        ("nothing", Vec::new(), None),
        ("no image", tar(&[("readme", b"hello")]), Some(ErrorKind::InvalidArgument)),
        ("diff id", saved(&other, &["x"]), Some(ErrorKind::Corrupted)),
        ("name", saved(&made, &["../x"]), Some(ErrorKind::InvalidArgument)),
        ("cut", whole[..whole.len() - 2048].to_vec(), None),
        ("json", tar(&[("manifest.json", b"{")]), Some(ErrorKind::InvalidArgument)),
        ("missing", tar(&[("manifest.json", br#"[{"Config":"/etc/passwd","Layers":[]}]"#)]), Some(ErrorKind::InvalidArgument)),
        ("digest", tar(&[("index.json", br#"{"manifests":[{"digest":"sha256:../../x"}]}"#)]), Some(ErrorKind::InvalidArgument)),
    ] {
        let error = import(&lab, &archive).await.expect_err(what);
        assert!(kind.is_none_or(|kind| kind == error.kind()), "{what}: {:?} {}", error.kind(), error.chain());
        lab.leaves_nothing().await;
    }
    assert!(lab.images.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_images_all_are_loaded_or_none() {
    let lab = Lab::new();
    let (one, two) = (Made::new(&[&[("a", b"one")]]), Made::new(&[&[("a", b"one")], &[("b", b"two")]]));
    let archive = |second_layer: &[u8]| {
        let manifest = serde_json::json!([
            {"Config": "1.json", "RepoTags": ["one"], "Layers": ["a.tar"]},
            {"Config": "2.json", "RepoTags": ["two", "one:2"], "Layers": ["a.tar", "b.tar"]},
        ]);
        let manifest = manifest.to_string();
        let files = [("a.tar", &one.layers[0][..]), ("b.tar", second_layer), ("1.json", &one.config), ("2.json", &two.config)];
        tar(&[&files[..], &[("manifest.json", manifest.as_bytes())]].concat())
    };
    let error = import(&lab, &archive(&tar(&[("b", b"something else")]))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{}", error.chain());
    assert!(lab.images.list().is_empty());
    lab.leaves_nothing().await;
    let loaded = import(&lab, &archive(&two.layers[1])).await.unwrap();
    assert_eq!(loaded.iter().map(|(id, names)| (*id, names.len())).collect::<Vec<_>>(), [(one.id(), 1), (two.id(), 2)]);
    for image in [one.id(), two.id()] {
        lab.images.remove(&image.to_string()).await.unwrap();
    }
    lab.leaves_nothing().await;
}
