//! What people do with images: other names, archives that come back the same.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
};

use model::ErrorKind;

use super::{Lab, Made, sha256, tar};

/// As `docker save` writes it, with plain layers.
fn plain(files: &[&[(&str, &[u8])]], name: &str) -> (Made, Vec<u8>) {
    let layers: Vec<_> = files.iter().map(|files| tar(files)).collect();
    let ids: Vec<_> = layers.iter().map(|tar| sha256(tar)).collect();
    let made = Made::promising(&layers, &ids);
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": [name], "Layers": names}]).to_string();
    let mut entries = vec![("c.json", &made.config[..]), ("manifest.json", manifest.as_bytes())];
    entries.extend(names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    let archive = tar(&entries);
    (made, archive)
}

async fn load(lab: &Lab, archive: &[u8]) -> Vec<(model::ImageId, Vec<String>)> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    lab.images.import(file).await.unwrap()
}

async fn saved(lab: &Lab, names: &[&str]) -> Result<Vec<u8>, crate::Error> {
    let mut file = tempfile::tempfile().unwrap();
    lab.images.save(names.iter().map(|n| (*n).to_owned()).collect(), file.try_clone().unwrap()).await?;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_loads_as_the_same_image_and_twice_the_same_bytes() {
    let lab = Lab::new();
    let (made, archive) = plain(&[&[("a", b"one")], &[("b", b"two")]], "r.example/x:1");
    load(&lab, &archive).await;
    let (other, archive) = plain(&[&[("a", b"one")], &[("c", b"three")]], "y:2");
    load(&lab, &archive).await;
    lab.images.tag("y:2", "r.example/x:2".parse().unwrap()).await.unwrap();
    if lab.images.layer_format() == "directory" {
        let error = saved(&lab, &["y:2"]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    let all = saved(&lab, &["r.example/x", "y:2"]).await.unwrap();
    assert_eq!(all, saved(&lab, &["r.example/x", "y:2"]).await.unwrap());
    let by_id = saved(&lab, &[&made.id().to_string()]).await.unwrap();

    let fresh = Lab::new();
    let mut loaded = load(&fresh, &all).await;
    loaded.iter_mut().for_each(|(_, names)| names.sort());
    let full = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert!(loaded.contains(&(made.id(), full(&["r.example/x:1"]))), "{loaded:?}");
    assert!(loaded.contains(&(other.id(), full(&["docker.io/library/y:2", "r.example/x:2"]))), "{loaded:?}");
    let nameless = Lab::new();
    assert_eq!(load(&nameless, &by_id).await, [(made.id(), Vec::new())]);
    assert_eq!(saved(&lab, &["absent"]).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_before_ids_and_tags_move() {
    let lab = Lab::new();
    let (made, archive) = plain(&[&[("a", b"one")]], "x:1");
    load(&lab, &archive).await;
    let hex = made.id().digest().hex();
    for name in ["x:1", "docker.io/library/x:1", &hex, &hex[..4], &format!("sha256:{}", &hex[..12])] {
        assert_eq!(lab.images.find(name).unwrap().id, made.id(), "{name}");
    }
    for name in ["x", "x:2", &hex[..3], "", "../x", "sha256:zz"] {
        let error = lab.images.find(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        assert!(error.chain().contains("No such image: "), "{}", error.chain());
    }
    let (other, archive) = plain(&[&[("b", b"two")]], "y:1");
    load(&lab, &archive).await;
    lab.images.tag("y:1", "x:1".parse().unwrap()).await.unwrap();
    assert_eq!(lab.images.find("x:1").unwrap().id, other.id());
    assert!(lab.images.find(&hex).unwrap().repo_tags.is_empty());
    // A name that looks like the beginning of another image's id wins.
    lab.images.tag("y:1", hex[..6].parse().unwrap()).await.unwrap();
    assert_eq!(lab.images.find(&hex[..6]).unwrap().id, other.id());
    let digest = format!("x@{}", made.id());
    assert_eq!(lab.images.tag("y:1", digest.parse().unwrap()).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
