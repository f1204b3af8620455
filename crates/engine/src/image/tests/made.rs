//! Images that are made here: out of a writable layer, out of files.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Seek as _, Write as _},
    path::Path,
};

use model::{ErrorKind, ImageId};
use serde_json::{Map, Value, json};

use super::{Lab, Made, gzip, tar};
use crate::image::{Commit, FromFiles};

async fn base(lab: &Lab) -> ImageId {
    let made = Made::new(&[&[("a", b"one")]]);
    lab.server.offer("base", "1", &made);
    lab.pull("base:1").await.unwrap()
}

fn commit(image: ImageId, upper: &Path) -> Commit {
    Commit {
        image,
        upper: File::open(upper).unwrap().into(),
        mounted: BTreeSet::from([b"etc/hosts".to_vec()]),
        config: Map::from_iter([("Env".to_owned(), json!(["A=container"]))]),
        changes: vec!["CMD [\"/y\"]".to_owned()],
        author: "me".to_owned(),
        comment: "why".to_owned(),
        created_by: "/x".to_owned(),
        name: Some("made:1".parse().unwrap()),
    }
}

async fn config(lab: &Lab, id: ImageId) -> Value {
    let details = lab.images.details(&id.to_string()).await.unwrap();
    serde_json::from_slice(&details.config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_shares_its_image_s_layers_and_adds_what_has_changed() {
    let lab = Lab::new();
    let image = base(&lab).await;
    let upper = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(upper.path().join("etc")).unwrap();
    fs::write(upper.path().join("etc/hosts"), b"").unwrap();
    let empty = lab.images.commit(commit(image, upper.path())).await.unwrap();
    fs::write(upper.path().join("new"), b"content").unwrap();
    let id = lab.images.commit(commit(image, upper.path())).await.unwrap();
    assert!(lab.images.status(&empty.to_string()).unwrap().repo_tags.is_empty(), "the tag has moved");

    let (before, none, after) =
        (lab.images.find(&image.to_string()), lab.images.find(&empty.to_string()), lab.images.find("made:1"));
    let (before, none, after) = (before.unwrap(), none.unwrap(), after.unwrap());
    assert_eq!((after.id, none.layers.len(), after.layers.len()), (id, 1, 2));
    assert_eq!(after.layers[..1], before.layers[..]);
    let made = config(&lab, id).await;
    assert_eq!(made["config"]["Env"], json!(["A=container"]));
    assert_eq!((&made["config"]["User"], &made["config"]["Cmd"]), (&json!("12:34"), &json!(["/y"])));
    assert_eq!((&made["author"], &made["os"]), (&json!("me"), &json!("linux")));
    let last = made["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["created_by"], &last["comment"], &last["author"]), (&json!("/x"), &json!("why"), &json!("me")));
    assert_eq!(last.get("empty_layer"), None);
    assert_eq!(config(&lab, empty).await["history"][0]["empty_layer"], json!(true));

    let footprints = lab.images.footprints();
    let of = |id: ImageId| footprints.iter().find(|(info, _)| info.id == id).unwrap().1.clone();
    assert_eq!((of(image).unique, of(empty).unique), (0, 0), "its layer is shared");
    assert!(of(id).unique > 0 && of(id).shared == of(image).shared);
    for image in [image, empty, id] {
        lab.images.remove(&image.to_string()).await.unwrap();
    }
    lab.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_leaves_nothing() {
    let lab = Lab::new();
    let image = base(&lab).await;
    let upper = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(upper.path().join("new"), b"content").unwrap();
    let bad = Commit { changes: vec!["RUN true".to_owned()], ..commit(image, upper.path()) };
    assert_eq!(lab.images.commit(bad).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    fs::write(upper.path().join(".wh.x"), b"").unwrap();
    let error = lab.images.commit(commit(image, upper.path())).await.unwrap_err();
    assert!(error.chain().contains("pack what the container has changed"), "{}", error.chain());
    lab.images.remove(&image.to_string()).await.unwrap();
    assert_eq!(lab.images.commit(commit(image, upper.path())).await.unwrap_err().kind(), ErrorKind::NotFound);
    lab.leaves_nothing().await;
}

fn from_files(name: &str, changes: &[&str]) -> FromFiles {
    FromFiles {
        name: Some(name.parse().unwrap()),
        changes: changes.iter().map(|c| (*c).to_owned()).collect(),
        comment: "Imported from -".to_owned(),
        platform: None,
    }
}

async fn import(lab: &Lab, bytes: &[u8], wanted: FromFiles) -> Result<ImageId, crate::Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    lab.images.import_files(file, wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_become_an_image_of_one_layer() {
    let lab = Lab::new();
    let files = tar(&[("etc/", b""), ("etc/motd", b"hello")]);
    import(&lab, &files, from_files("plain:1", &[])).await.unwrap();
    import(&lab, &gzip(&files), from_files("zipped:1", &["ENV A=1", "EXPOSE 80"])).await.unwrap();
    let (plain, zipped) = (lab.images.find("plain:1").unwrap(), lab.images.find("zipped:1").unwrap());
    assert_eq!(plain.layers, zipped.layers, "the layer is the archive, however it came");
    assert_eq!(plain.layers[0].digest(), &super::sha256(&files));
    let made = config(&lab, zipped.id).await;
    assert_eq!(made["config"], json!({"Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}}));
    assert_eq!(made["history"][0]["comment"], json!("Imported from -"));
    assert_eq!(config(&lab, plain.id).await["config"], json!({}));
    for name in ["plain:1", "zipped:1"] {
        lab.images.remove(name).await.unwrap();
    }
    for (what, bytes, changes) in [
        ("no tar", vec![7; 2000], vec![]),
        ("cut", files[..700].to_vec(), vec![]),
        ("cut gzip", gzip(&files)[..40].to_vec(), vec![]),
        ("a bad change", files.clone(), vec!["FROM x"]),
    ] {
        import(&lab, &bytes, from_files("x:1", &changes)).await.expect_err(what);
    }
    lab.leaves_nothing().await;
}
