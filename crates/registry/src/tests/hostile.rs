//! Registries that lie and overwhelm (IM-04 to IM-07).

use bytes::Bytes;
use model::ErrorKind;

use super::{
    bare,
    farm::{Farm, INDEX, MANIFEST, Piece, Reply, Store, digest, noise},
    resolve, told,
};
use crate::{Credentials, Error, Resolved};

async fn pull(reply: impl Fn(&super::farm::Seen) -> Reply + Send + Sync + 'static, at: &str) -> (Farm, Result<Resolved, Error>) {
    let farm = Farm::start(reply).await;
    let (_directory, registry) = bare();
    let result = resolve(&registry, &format!("{}/lab/x{at}", farm.host()), &Credentials::anonymous()).await;
    (farm, result)
}

fn store() -> (Store, super::farm::Stored) {
    let mut store = Store::default();
    let image = store.image("lab/x", "1", &[noise(10, 1)]);
    (store, image)
}

#[tokio::test]
async fn im_04_bodies_beyond_the_limits_are_not_read() {
    let flood = || Reply::status(200).pieces(vec![Piece::Flood]).length(None).with("content-type", MANIFEST);
    let (farm, result) = pull(move |_| flood(), ":1").await;
    let error = result.unwrap_err();
    assert!(told(&error).contains("answer larger than 4194304 bytes"), "{}", told(&error));
    assert_eq!((error.kind(), farm.seen().len()), (ErrorKind::ResourceExhausted, 1));
    let announced = || Reply::status(200).pieces(vec![Piece::Stall]).length(Some((4 << 20) + 1)).with("content-type", MANIFEST);
    assert!(told(&pull(move |_| announced(), ":1").await.1.unwrap_err()).contains("answer larger than"));
    // An error without end is told without its text.
    let error = pull(|_| Reply::status(403).pieces(vec![Piece::Flood]).length(None), ":1").await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    // A document that does not end in time.
    let error = pull(|_| Reply::status(200).pieces(vec![Piece::Drip]).length(None), ":1").await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    // A token of 2 MiB.
    let error = pull(
        |seen| match seen.path() {
            "/token" => Reply::new(200, format!(r#"{{"token":"{}"}}"#, "x".repeat(2 << 20))),
            _ => Reply::status(401)
                .with("www-authenticate", format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap())),
        },
        ":1",
    )
    .await
    .1
    .unwrap_err();
    assert!(told(&error).contains("answer larger than 1048576 bytes"), "{}", told(&error));
}

#[tokio::test]
async fn im_04_content_codings_are_refused() {
    let (store, _) = store();
    let (farm, result) = pull(move |seen| store.reply(seen).with("content-encoding", "gzip"), ":1").await;
    let error = result.unwrap_err();
    assert!(told(&error).contains("content encoding \"gzip\""), "{}", told(&error));
    assert_eq!(farm.seen()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn im_04_configs_are_as_long_as_announced() {
    let (store, image) = store();
    for change in ["longer", "shorter", "other"] {
        let (store, config) = (store.clone(), image.config.to_string());
        let (_, result) = pull(
            move |seen| match store.reply(seen) {
                reply if seen.path().ends_with(&config) => {
                    let Piece::Data(bytes) = reply.pieces[0].clone() else { panic!() };
                    let mut bytes = bytes.to_vec();
                    match change {
                        "longer" => bytes.push(b' '),
                        "shorter" => bytes.truncate(bytes.len() - 1),
                        _ => bytes[0] = b' ',
                    }
                    Reply::new(200, bytes)
                }
                reply => reply,
            },
            ":1",
        )
        .await;
        let error = result.unwrap_err();
        assert!(told(&error).starts_with("fetch config "), "{}", told(&error));
        assert!(matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::ResourceExhausted), "{change}: {}", told(&error));
    }
}

#[tokio::test]
async fn im_05_graphs_are_not_walked() {
    // Every index has a hundred children, all of them indexes like itself.
    let (farm, result) = pull(
        |seen| {
            let level = seen.path().rsplit('/').next().unwrap().len();
            let entry = |n: usize| {
                let digest = digest(format!("{level}-{n}").as_bytes());
                serde_json::json!({"mediaType": INDEX, "digest": digest.to_string(), "size": 100,
                    "platform": {"os": "linux", "architecture": "amd64"}})
            };
            let entries: Vec<_> = (0..100).map(entry).collect();
            Reply::new(200, serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string())
                .with("content-type", INDEX)
        },
        ":1",
    )
    .await;
    assert!(result.is_err());
    assert!(farm.seen().len() <= 4, "{}", farm.seen().len());
    let entry = serde_json::json!({"mediaType": MANIFEST, "digest": digest(b"x").to_string(), "size": 1});
    let many = serde_json::json!({"schemaVersion": 2, "manifests": vec![entry; 10_000]}).to_string();
    let (farm, result) = pull(move |_| Reply::new(200, many.clone()).with("content-type", INDEX), ":1").await;
    assert!(told(&result.unwrap_err()).contains("entries of the index: 10000, more than 1000"));
    assert_eq!(farm.seen().len(), 1);
}

#[tokio::test]
async fn im_06_what_a_digest_names_is_checked() {
    let (store, image) = store();
    let (copy, other) = (store.clone(), digest(b"other"));
    // name@digest with the body of another.
    let error = pull(
        move |seen| {
            let mut seen = seen.clone();
            seen.target = "/v2/lab/x/manifests/1".to_owned();
            copy.reply(&seen)
        },
        &format!("@{other}"),
    )
    .await
    .1
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(told(&error).contains(&format!("content has digest {}, expected {other}", image.manifest)), "{}", told(&error));
    // Docker-Content-Digest lies about a tag; by digest it has no say.
    let lie = move |seen: &super::farm::Seen| {
        let mut reply = store.reply(seen);
        reply.headers.retain(|(name, _)| *name != "docker-content-digest");
        reply.with("docker-content-digest", other.to_string())
    };
    assert_eq!(pull(lie.clone(), ":1").await.1.unwrap_err().kind(), ErrorKind::Corrupted);
    pull(lie, &format!("@{}", image.manifest)).await.1.unwrap();
}

#[tokio::test]
async fn im_06_ambiguous_answers_are_refused() {
    let (store, image) = store();
    for (content_type, why) in [
        (INDEX, "announced as"),
        ("text/html; charset=utf-8", "neither an image manifest nor an index"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
    ] {
        let store = store.clone();
        let (_, result) = pull(
            move |seen| {
                let mut reply = store.reply(seen);
                reply.headers.retain(|(name, _)| *name != "content-type");
                reply.with("content-type", content_type)
            },
            ":1",
        )
        .await;
        assert!(told(&result.unwrap_err()).contains(why), "{content_type}");
    }
    // What says nothing of itself is known by what it has inside.
    let generic = store.clone();
    let generic = move |seen: &super::farm::Seen| {
        let mut reply = generic.reply(seen);
        reply.headers.clear();
        reply
    };
    pull(generic, ":1").await.1.unwrap();
    // An index whose entry says another size or type than what is there.
    for (size, kind, why) in [
        (image.manifest_size + 1, MANIFEST, "answer of"),
        (image.manifest_size, "application/vnd.docker.distribution.manifest.v2+json", "announced as"),
    ] {
        let mut store = store.clone();
        let entry = serde_json::json!({"mediaType": kind, "digest": image.manifest.to_string(), "size": size,
            "platform": {"os": "linux", "architecture": "amd64"}});
        store.document("lab/x", "2", INDEX, serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string());
        let error = pull(move |seen| store.reply(seen), ":2").await.1.unwrap_err();
        assert!(told(&error).starts_with("fetch manifest ") && told(&error).contains(why), "{}", told(&error));
    }
}

#[tokio::test]
async fn im_07_configs_that_do_not_belong_are_refused() {
    let layer = noise(10, 1);
    let id = digest(&layer).to_string();
    let config = |os: &str, kind: &str, ids: Vec<&str>| {
        serde_json::json!({"os": os, "architecture": "amd64", "rootfs": {"type": kind, "diff_ids": ids}}).to_string()
    };
    for (config, kind, why) in [
        (config("linux", "layers", vec![]), ErrorKind::Corrupted, "0 diff ids for 1 layers"),
        (config("linux", "layers", vec![&id, &id]), ErrorKind::Corrupted, "2 diff ids for 1 layers"),
        (config("linux", "nothing", vec![&id]), ErrorKind::Corrupted, "rootfs.type is \"nothing\""),
        (config("windows", "layers", vec![&id]), ErrorKind::NotFound, "only for windows/amd64"),
        ("{}".to_owned(), ErrorKind::Corrupted, "not well-formed"),
    ] {
        let mut store = Store::default();
        store.image_with("lab/x", "1", std::slice::from_ref(&layer), &config);
        let error = pull(move |seen| store.reply(seen), ":1").await.1.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", told(&error));
        assert!(told(&error).contains(why), "{}", told(&error));
    }
    // No layer at all, and the same layer twice, are images.
    for layers in [vec![], vec![layer.clone(), layer.clone()]] {
        let layers: Vec<Bytes> = layers;
        let mut store = Store::default();
        store.image("lab/x", "1", &layers);
        assert_eq!(pull(move |seen| store.reply(seen), ":1").await.1.unwrap().layers.len(), layers.len());
    }
}
