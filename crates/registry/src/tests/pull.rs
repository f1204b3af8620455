//! Pulls that work: by tag and digest, indexes, mirrors, connections, edits of the configuration.

use bytes::Bytes;
use model::{ErrorKind, MediaType};

use super::{
    bare, config,
    farm::{Farm, INDEX, MANIFEST, Reply, Store, Stored, digest, noise},
    hosts, layers, name, resolve, told,
};
use crate::{Config, Credentials, Error, Registry};

fn small() -> (Store, Stored) {
    let mut store = Store::default();
    let image = store.image("lab/x", "1", &[noise(100_000, 1), noise(10, 2), Bytes::new()]);
    (store, image)
}

async fn serve(store: Store) -> Farm {
    Farm::start(move |seen| store.reply(seen)).await
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_over_few_connections() {
    let (store, image) = small();
    let farm = serve(store).await;
    let (_directory, registry) = bare();
    for reference in ["1".to_owned(), format!("1@{}", image.manifest)] {
        let separator = if reference.contains('@') { "@" } else { ":" };
        let reference = reference.rsplit('@').next().unwrap().to_owned();
        let text = format!("{}/lab/x{separator}{reference}", farm.host());
        let resolved = resolve(&registry, &text, &Credentials::anonymous()).await.unwrap();
        assert_eq!((resolved.target.digest, resolved.manifest.digest), (image.manifest, image.manifest));
        assert_eq!(resolved.target.size, image.manifest_size as u64);
        assert_eq!(resolved.target.media_type, MediaType::OciManifest);
        assert_eq!(resolved.config.digest, image.config);
        assert_eq!(digest(&resolved.config_bytes), image.config);
        assert_eq!(layers(&registry, &resolved).await.unwrap(), image.layers);
    }
    assert_eq!(farm.connections(), 2, "one connection for each pull");
    let agent = farm.seen()[0].header("user-agent").unwrap().to_owned();
    assert!(agent.starts_with("creel/"), "{agent}");
    assert!(farm.seen().iter().all(|s| s.header("authorization").is_none() && s.method == "GET"));
}

#[tokio::test]
async fn the_platform_of_an_index_is_chosen_and_attestations_are_passed_over() {
    let (mut store, image) = small();
    let entry = |os: &str, architecture: &str, digest: String| {
        serde_json::json!({"mediaType": MANIFEST, "digest": digest, "size": image.manifest_size,
            "platform": {"os": os, "architecture": architecture}})
    };
    let (ours, other) = (image.manifest.to_string(), digest(b"other").to_string());
    let index = |entries: Vec<serde_json::Value>| {
        serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
    };
    let inner = index(vec![
        entry("unknown", "unknown", other.clone()),
        entry("linux", "arm64", other.clone()),
        entry("linux", "amd64", ours),
    ]);
    let inner_digest = store.document("lab/x", "multi", INDEX, inner.clone());
    store.document("lab/x", "arm", INDEX, index(vec![entry("linux", "arm64", other)]));
    // An index in an index is one too many levels only from the third on.
    let nested = |digest: String, size: usize| {
        serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": digest, "size": size}]})
            .to_string()
    };
    let two = nested(inner_digest.to_string(), inner.len());
    let two_digest = store.document("lab/x", "two", INDEX, two.clone());
    store.document("lab/x", "three", INDEX, nested(two_digest.to_string(), two.len()));
    let farm = serve(store).await;
    let (_directory, registry) = bare();
    let pull = async |tag: &str| resolve(&registry, &format!("{}/lab/x:{tag}", farm.host()), &Credentials::anonymous()).await;
    for tag in ["multi", "two"] {
        let resolved = pull(tag).await.unwrap();
        assert_ne!(resolved.target.digest, resolved.manifest.digest);
        assert_eq!(resolved.manifest.digest, image.manifest);
        assert!(resolved.target.media_type.is_index());
    }
    let error = pull("arm").await.unwrap_err();
    assert!(matches!(&error, Error::Platform { available, .. } if available == &["linux/arm64"]), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(told(&pull("three").await.unwrap_err()).contains("nested deeper than 2"));
}

#[tokio::test]
async fn mirrors_are_asked_in_order_with_the_namespace_and_edits_count_at_once() {
    let (store, image) = small();
    let server = serve(store.clone()).await;
    let (empty, broken, good) = (
        serve(Store::default()).await,
        Farm::start(|_| Reply::error(403, "DENIED", "not\u{7} here\nFAKE log line")).await,
        serve(store).await,
    );
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(config(&directory));
    let list = |places: &[&Farm]| {
        let places = places.iter().map(|p| format!("[host.\"http://{}\"]\n", p.host()));
        format!("server = \"http://{}\"\n{}", server.host(), places.collect::<String>())
    };
    hosts(&directory, "reg.example", &list(&[&empty, &broken, &good]));
    let pull = async || resolve(&registry, "reg.example/lab/x:1", &Credentials::anonymous()).await;
    let resolved = pull().await.unwrap();
    assert_eq!(layers(&registry, &resolved).await.unwrap(), image.layers);
    assert!(empty.asked("manifests/1") == 1 && broken.asked("manifests/1") == 1 && good.asked("manifests/1") == 1);
    assert!(good.seen().iter().all(|s| s.target.ends_with("?ns=reg.example")));
    assert_eq!(server.seen().len(), 0);

    hosts(&directory, "reg.example", &list(&[&empty, &broken]));
    pull().await.unwrap();
    assert_eq!(server.asked("manifests/1"), 1);

    hosts(&directory, "reg.example", &list(&[]).replace(&server.host(), &empty.host()));
    let error = pull().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    // Every place and its reason is in the error; the registry's own decides the kind.
    hosts(&directory, "reg.example", &list(&[&broken]).replace(&server.host(), &empty.host()));
    let error = pull().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = told(&error);
    assert!(text.contains(&format!("http://{}: status 403: DENIED: not here FAKE log line", broken.host())), "{text}");
    assert!(text.contains(&format!("http://{}: status 404: MANIFEST_UNKNOWN", empty.host())), "{text}");
    assert!(text.starts_with("resolve reg.example/lab/x:1: "), "{text}");
}

#[tokio::test]
async fn capabilities_say_who_is_asked_for_what() {
    let (store, image) = small();
    let (puller, server) = (serve(store.clone()).await, serve(store).await);
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(config(&directory));
    let text = format!("server = 'http://{}'\n[host.'http://{}']\ncapabilities = ['pull']", server.host(), puller.host());
    hosts(&directory, "reg.example_5000_", &text);
    let resolved = resolve(&registry, "reg.example:5000/lab/x:1", &Credentials::anonymous()).await.unwrap();
    layers(&registry, &resolved).await.unwrap();
    assert_eq!((server.seen().len(), puller.asked("manifests/1")), (1, 0));
    assert_eq!(puller.asked(&image.config.to_string()), 1);
    hosts(&directory, "reg.example_5000_", &format!("{text}\n").replace("server =", "capabilities = ['pull']\nserver ="));
    let error = resolve(&registry, "reg.example:5000/lab/x:1", &Credentials::anonymous()).await.unwrap_err();
    assert!(told(&error).contains("no place is configured"), "{}", told(&error));
}

#[tokio::test]
async fn headers_and_paths_of_the_configuration_are_used() {
    let (store, _) = small();
    let farm = Farm::start(move |seen| {
        let mut seen = seen.clone();
        seen.target = seen.target.replace("/proxy/hub/", "/v2/");
        store.reply(&seen)
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(config(&directory));
    let text = format!(
        "[host.'http://{0}/proxy/hub']\noverride_path = true\n[host.'http://{0}/proxy/hub'.header]\nX-Key = 'k'",
        farm.host()
    );
    hosts(&directory, "docker.io", &text);
    let resolved = resolve(&registry, "lab/x:1", &Credentials::anonymous()).await.unwrap();
    layers(&registry, &resolved).await.unwrap();
    assert!(farm.seen().iter().all(|s| s.path().starts_with("/proxy/hub/lab/x/") && s.header("x-key") == Some("k")));
    assert!(farm.seen().iter().all(|s| s.target.ends_with("?ns=docker.io")));
}

#[tokio::test]
async fn plain_http_is_for_configured_names_and_literal_loopback_only() {
    let (store, _) = small();
    let farm = serve(store).await;
    let directory = tempfile::tempdir().unwrap();
    let port = farm.address.port();
    let listed = format!("plain.example:{port}");
    let config = Config { plain_http: vec![listed.clone()], ..config(&directory) };
    // IM-03: a name server says that both names are here.
    let names = ["plain.example", "reg.example"].map(|n| (n.to_owned(), [127, 0, 0, 1].into()));
    let registry = Registry::with(config, |clients| clients.fixed = std::sync::Arc::new(names.into()));
    resolve(&registry, &format!("{listed}/lab/x:1"), &Credentials::anonymous()).await.unwrap();
    resolve(&registry, &format!("localhost:{port}/lab/x:1"), &Credentials::anonymous()).await.unwrap();
    let before = farm.seen().len();
    let error = resolve(&registry, &format!("reg.example:{port}/lab/x:1"), &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(told(&error).contains(&format!("https://reg.example:{port}: TLS")), "{}", told(&error));
    assert_eq!(farm.seen().len(), before, "nothing was sent in plain text");
}

#[tokio::test]
async fn a_missing_registry_and_a_missing_name_say_so() {
    let (_directory, registry) = bare();
    let error = resolve(&registry, "localhost:1/x", &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(told(&error).contains("http://localhost:1: connect: "), "{}", told(&error));
    let error = resolve(&registry, "no-such-host.invalid/x", &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(told(&error).contains("look up host name"), "{}", told(&error));
}

#[tokio::test]
async fn a_source_without_a_resolve_fetches_single_blobs() {
    let (store, image) = small();
    let farm = serve(store).await;
    let (_directory, registry) = bare();
    let source = registry.source(&name(&format!("{}/lab/x", farm.host())), &Credentials::anonymous()).await.unwrap();
    let blob = model::Descriptor { media_type: MediaType::OciLayer, digest: digest(&image.layers[0]), size: 100_000 };
    let mut reader = registry.blob(&source, &blob).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await {
        all.extend_from_slice(&piece.unwrap());
        assert_eq!(reader.position(), all.len() as u64);
    }
    assert_eq!(all, image.layers[0]);
    assert!(reader.next().await.is_none());
    assert!(registry.blob(&source, &blob).await.unwrap().read_all(1).await.is_err());
}
