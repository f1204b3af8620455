//! Uploads and lists, against docker-registry and scripted ones.

use std::{
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use model::{Descriptor, MediaType};
use tokio::sync::watch;

use super::{
    bare, config,
    farm::{Farm, MANIFEST, Reply, digest, noise},
    layers, name, password,
    real::{Server, registry, with_password},
    resolve, told,
};
use crate::{Content, Credentials, Found, Growing, Grown, Registry, Target};

fn blob(bytes: &[u8], media_type: MediaType) -> Descriptor {
    Descriptor { media_type, digest: digest(bytes), size: bytes.len() as u64 }
}

async fn push_blob(target: &Target, bytes: &Bytes, media_type: MediaType) -> Descriptor {
    let blob = blob(bytes, media_type);
    if let Found::Missing(upload) = target.find(&blob, None).await.unwrap() {
        target.upload(upload, &Content::Bytes(bytes.clone()), &|_| ()).await.unwrap();
    }
    blob
}

fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Bytes {
    let entry =
        |d: &Descriptor| serde_json::json!({"mediaType": d.media_type.as_str(), "digest": d.digest.to_string(), "size": d.size});
    let layers: Vec<_> = layers.iter().map(entry).collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": entry(config), "layers": layers});
    Bytes::from(manifest.to_string())
}

/// Pushes an image of these layers.
async fn push_image(target: &Target, tag: &str, contents: &[Bytes]) -> Descriptor {
    let ids: Vec<String> = contents.iter().map(|c| digest(c).to_string()).collect();
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": ids});
    let text = serde_json::json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs});
    let config = push_blob(target, &Bytes::from(text.to_string()), MediaType::OciConfig).await;
    let mut pushed = Vec::new();
    for content in contents {
        pushed.push(push_blob(target, content, MediaType::OciLayer).await);
    }
    let bytes = manifest(&config, &pushed);
    let descriptor = blob(&bytes, MediaType::OciManifest);
    target.publish(Some(tag), &descriptor, bytes).await.unwrap();
    descriptor
}

#[tokio::test]
async fn what_is_pushed_is_pulled_back() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = registry(&directory, "") else { return };
    let client = Registry::new(config(&directory));
    let image = format!("{}/lab/pushed:1", server.address());
    let target = client.target(&name(&image), &Credentials::anonymous()).await.unwrap();
    let contents = [noise(20_000_000, 7), noise(100, 8), Bytes::new()];
    let pushed = push_image(&target, "1", &contents).await;
    let resolved = resolve(&client, &image, &Credentials::anonymous()).await.unwrap();
    assert_eq!(resolved.target.digest, pushed.digest);
    assert_eq!(layers(&client, &resolved).await.unwrap(), contents);
    assert!(matches!(target.find(&resolved.layers[0], None).await.unwrap(), Found::Existed));

    let other = client.target(&name(&format!("{}/lab/other", server.address())), &Credentials::anonymous()).await.unwrap();
    let from = name(&image).repository;
    assert!(matches!(other.find(&resolved.layers[0], Some(&from)).await.unwrap(), Found::Mounted));
    let absent = blob(b"nowhere", MediaType::OciLayer);
    let Found::Missing(upload) = other.find(&absent, Some(&from)).await.unwrap() else { panic!("found") };
    other.upload(upload, &Content::Bytes(Bytes::from_static(b"nowhere")), &|_| ()).await.unwrap();
    assert!(matches!(other.find(&absent, None).await.unwrap(), Found::Existed));

    push_image(&target, "2", &contents[1..]).await;
    let mut tags = client.tags(&name(&image), &Credentials::anonymous()).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    let host = name(&image).registry;
    let hits = client.search(&host, "ushe", 25, &Credentials::anonymous()).await.unwrap();
    assert_eq!(hits.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>(), ["lab/pushed"]);
    assert!(client.search(&host, "absent", 25, &Credentials::anonymous()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_is_pushed_from_and_wrong_bytes_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = registry(&directory, "") else { return };
    let client = Registry::new(config(&directory));
    let target = client.target(&name(&format!("{}/lab/file", server.address())), &Credentials::anonymous()).await.unwrap();
    let bytes = noise(9 << 20, 3);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let content = Content::File(Arc::new(file));
    let good = blob(&bytes, MediaType::OciLayer);
    let Found::Missing(upload) = target.find(&good, None).await.unwrap() else { panic!("found") };
    let most = AtomicU64::new(0);
    target.upload(upload, &content, &|done| most.store(done, Ordering::SeqCst)).await.unwrap();
    assert_eq!(most.into_inner(), good.size);

    let wrong = Descriptor { digest: digest(b"other"), ..good.clone() };
    let Found::Missing(upload) = target.find(&wrong, None).await.unwrap() else { panic!("found") };
    let error = target.upload(upload, &content, &|_| ()).await.unwrap_err();
    assert!(told(&error).contains("DIGEST_INVALID"), "{}", told(&error));

    let long = Descriptor { size: good.size + 1, digest: digest(b"long"), ..good };
    let Found::Missing(upload) = target.find(&long, None).await.unwrap() else { panic!("found") };
    let error = target.upload(upload, &content, &|_| ()).await.unwrap_err();
    assert!(told(&error).starts_with("read blob sha256:"), "{}", told(&error));
    let error = target.publish(Some("x"), &blob(b"{}", MediaType::OciManifest), Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(told(&error).contains("upload manifest lab/file@x"), "{}", told(&error));
}

#[tokio::test]
async fn a_blob_goes_out_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = registry(&directory, "") else { return };
    let client = Registry::new(config(&directory));
    let target = client.target(&name(&format!("{}/lab/growing", server.address())), &Credentials::anonymous()).await.unwrap();
    for length in [20_000_000, 100, 0, 8 << 20] {
        let bytes = noise(length, 4);
        let whole = blob(&bytes, MediaType::OciLayer);
        let mut file = tempfile::tempfile().unwrap();
        let (sender, grown) = watch::channel(Grown::default());
        let growing = Growing { file: Arc::new(file.try_clone().unwrap()), grown };
        let most = AtomicU64::new(0);
        let progress = |done| most.store(done, Ordering::SeqCst);
        let upload = target.upload_growing(digest(b"a name"), None, growing, &progress);
        let write = async {
            let digest = Some(whole.digest);
            for piece in bytes.chunks(3_000_000) {
                file.write_all(piece).unwrap();
                sender.send_modify(|grown| grown.bytes += piece.len() as u64);
                tokio::task::yield_now().await;
            }
            sender.send_replace(Grown { bytes: whole.size, digest });
        };
        let (sent, ()) = tokio::join!(upload, write);
        assert_eq!(sent.unwrap(), (whole.digest, whole.size));
        assert_eq!(most.into_inner(), whole.size);
        assert!(matches!(target.find(&whole, None).await.unwrap(), Found::Existed));
    }
    let (sender, grown) = watch::channel(Grown { bytes: 5, digest: None });
    let growing = Growing { file: Arc::new(tempfile::tempfile().unwrap()), grown };
    drop(sender);
    let error = target.upload_growing(digest(b"a name"), None, growing, &|_| ()).await.unwrap_err();
    assert!(told(&error).ends_with("to upload it: it was given up"), "{}", told(&error));
}

#[tokio::test]
async fn a_password_is_asked_for_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server): Option<Server> = with_password(&directory) else { return };
    let client = Registry::new(config(&directory));
    let image = name(&format!("{}/lab/real:1", server.address()));
    client.check(&image.registry, &password()).await.unwrap();
    for bad in [Credentials::anonymous(), Credentials { username: "other".into(), ..password() }] {
        let error = client.check(&image.registry, &bad).await.unwrap_err();
        assert_eq!(error.kind(), model::ErrorKind::PermissionDenied);
        assert!(!told(&error).contains("p4ssw0rd"));
    }
    let target = client.target(&image, &password()).await.unwrap();
    push_image(&target, "1", &[noise(10, 1)]).await;
    assert_eq!(client.tags(&image, &password()).await.unwrap(), ["1"]);
}

/// A registry that takes one upload, and fails in the middle of the second piece.
#[tokio::test]
async fn a_broken_upload_goes_on_where_the_registry_is() {
    let bytes = noise(20 << 20, 5);
    let expected = bytes.clone();
    let stored: Arc<Mutex<(u64, bool)>> = Arc::default();
    let shared = Arc::clone(&stored);
    let farm = Farm::start(move |seen| {
        let mut stored = shared.lock().unwrap();
        let at = |done: u64| format!("0-{}", done.saturating_sub(1));
        match (seen.method.as_str(), seen.header("content-range")) {
            ("HEAD", _) => Reply::status(404),
            ("POST", _) => Reply::status(202).with("location", "/up/1?state=a").with("range", "0-0"),
            ("PATCH", Some(range)) => {
                let (first, last) = range.split_once('-').unwrap();
                assert_eq!(first, stored.0.to_string(), "a piece was sent twice or left out");
                if stored.0 > 0 && !stored.1 {
                    // Half of the piece was kept before the registry lost its storage for a moment.
                    *stored = (stored.0 + (4 << 20), true);
                    return Reply::status(503);
                }
                stored.0 = last.parse::<u64>().unwrap() + 1;
                Reply::status(202).with("location", "/up/1?state=b").with("range", at(stored.0))
            }
            ("GET", _) => Reply::status(204).with("location", "/up/1?state=c").with("range", at(stored.0)),
            ("PUT", _) => Reply::status(201),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let (_directory, client) = bare();
    let target = client.target(&name(&format!("{}/x", farm.host())), &Credentials::anonymous()).await.unwrap();
    let blob = blob(&expected, MediaType::OciLayer);
    let Found::Missing(upload) = target.find(&blob, None).await.unwrap() else { panic!("found") };
    target.upload(upload, &Content::Bytes(bytes), &|_| ()).await.unwrap();
    assert_eq!(stored.lock().unwrap().0, blob.size);
    let last = farm.seen().pop().unwrap();
    assert!(last.target.ends_with(&format!("&digest=sha256%3A{}", blob.digest.hex())), "{}", last.target);
}

#[tokio::test]
async fn uploads_do_not_go_to_mirrors_and_tokens_are_for_pushing() {
    let mirror = Farm::start(|_| Reply::status(500)).await;
    let farm = Farm::start(|seen| match seen.header("authorization") {
        _ if seen.path() == "/token" => Reply::new(200, r#"{"token":"t"}"#),
        Some("Bearer t") => Reply::status(200),
        _ => {
            let realm = format!("http://{}/token", seen.header("host").unwrap());
            Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    super::hosts(&directory, &farm.host(), &format!("[host.'http://{}']", mirror.host()));
    let client = Registry::new(config(&directory));
    let target = client.target(&name(&format!("{}/a/b", farm.host())), &Credentials::anonymous()).await.unwrap();
    assert!(matches!(target.find(&blob(b"", MediaType::OciLayer), None).await.unwrap(), Found::Existed));
    assert_eq!(mirror.seen().len(), 0);
    let token = farm.seen().into_iter().find(|seen| seen.path() == "/token").unwrap();
    assert!(token.target.contains("scope=repository%3Aa%2Fb%3Apull%2Cpush"), "{}", token.target);
}

#[tokio::test]
async fn hostile_lists_are_refused() {
    let farm = Farm::start(|seen| match seen.path() {
        "/v2/loop/tags/list" => Reply::new(200, r#"{"tags":["a"]}"#).with("link", "</v2/loop/tags/list?n=1>; rel=\"next\""),
        "/v2/away/tags/list" => Reply::new(200, r#"{"tags":["a"]}"#).with("link", "<http://other.example/>; rel=\"next\""),
        "/v2/text/tags/list" => Reply::new(200, "<html>"),
        "/v2/odd/tags/list" => Reply::new(200, r#"{"tags":["ok","../../x","a b",""]}"#),
        _ => Reply::new(200, r#"{"tags":null}"#),
    })
    .await;
    let (_directory, client) = bare();
    let list = async |repository: &str| {
        let image = name(&format!("{}/{repository}", farm.host()));
        client.tags(&image, &Credentials::anonymous()).await.map_err(|e| told(&e))
    };
    assert!(list("loop").await.unwrap_err().contains("more than 200 pages"));
    assert!(list("away").await.unwrap_err().contains("the next page is at another host"));
    assert!(list("text").await.unwrap_err().contains("not the JSON of a list"));
    assert_eq!(list("odd").await.unwrap(), ["ok"]);
    assert!(list("none").await.unwrap().is_empty());
}
