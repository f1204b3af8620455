//! The image service beyond pulling: every kind of credentials end to end, every way to name an image, pins, handlers.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use api::runtime as cri;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tonic::Code;

use crate::{
    daemon::Daemon,
    image::{Layer, digest, gzip},
    pods::{self, BUSYBOX},
};

/// A registry on loopback that wants a token, and the server that gives it.
struct Private {
    port: u16,
    /// What was asked of the token server: method, authorization, body.
    asked: Arc<Mutex<Vec<(String, String, String)>>>,
}

const TOKEN: &str = "the-bearer-token";

impl Private {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, content) = (asked.clone(), Arc::new(content()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, content) = (seen.clone(), content.clone());
                std::thread::spawn(move || while serve(&stream, port, &content, &seen).is_some() {});
            }
        });
        Self { port, asked }
    }

    fn image(&self) -> String {
        format!("127.0.0.1:{}/private/x:1", self.port)
    }

    async fn pull(&self, daemon: &Daemon, auth: cri::AuthConfig) -> Result<String, tonic::Status> {
        let request = cri::PullImageRequest { image: Some(pods::spec(&self.image())), auth: Some(auth), ..Default::default() };
        Ok(daemon.images().await.pull_image(request).await?.into_inner().image_ref)
    }
}

/// Documents and blobs by the end of their path, with their types.
fn content() -> HashMap<String, (&'static str, Vec<u8>)> {
    let tar = Layer::new().file("x", 0o644, b"x").tar();
    let layer = gzip(&tar);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]}});
    let config = serde_json::to_vec(&config).unwrap();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let of = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": of("application/vnd.oci.image.config.v1+json", &config),
        "layers": [of("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut content = HashMap::new();
    for bytes in [config, layer] {
        content.insert(digest(&bytes), ("application/octet-stream", bytes));
    }
    content.insert(digest(&manifest), (kind, manifest.clone()));
    content.insert("1".to_owned(), (kind, manifest));
    content
}

/// One request; `None`: the connection is over.
fn serve(
    mut stream: &TcpStream,
    port: u16,
    content: &HashMap<String, (&'static str, Vec<u8>)>,
    asked: &Mutex<Vec<(String, String, String)>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = target.split('?').next()?.to_owned();
    let answer = |status: &str, headers: &str, body: &[u8]| {
        let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
        if method != "HEAD" {
            bytes.extend(body);
        }
        bytes
    };
    let bytes = if path == "/token" {
        let body = String::from_utf8_lossy(&body).into_owned();
        let basic = authorization == format!("Basic {}", STANDARD.encode("user:the-password"));
        let good = basic || body.contains("refresh_token=the-identity-token");
        asked.lock().unwrap().push((method.clone(), authorization, body));
        let token = json!({"token": TOKEN, "access_token": TOKEN}).to_string();
        if good { answer("200 OK", "", token.as_bytes()) } else { answer("401 Unauthorized", "", b"{}") }
    } else if authorization != format!("Bearer {TOKEN}") {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"it\"\r\n");
        answer("401 Unauthorized", &challenge, b"{}")
    } else {
        match content.get(path.rsplit('/').next()?) {
            Some((kind, bytes)) => answer("200 OK", &format!("Content-Type: {kind}\r\n"), bytes),
            None => answer("404 Not Found", "", b"{}"),
        }
    };
    stream.write_all(&bytes).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_credentials() {
    let (daemon, registry) = (Daemon::start().await, Private::start());
    let none = cri::AuthConfig::default;
    let packed = STANDARD.encode("user:the-password");
    let host = format!("http://127.0.0.1:{}", registry.port);
    let password = || cri::AuthConfig { username: "user".into(), password: "the-password".into(), ..none() };
    let mut ids = Vec::new();
    for (auth, method) in [
        (password(), Some("GET")),
        (cri::AuthConfig { server_address: host, ..password() }, Some("GET")),
        (cri::AuthConfig { auth: packed.clone(), ..none() }, Some("GET")),
        (cri::AuthConfig { identity_token: "the-identity-token".into(), ..none() }, Some("POST")),
        (cri::AuthConfig { registry_token: TOKEN.into(), ..none() }, None),
    ] {
        registry.asked.lock().unwrap().clear();
        let id = registry.pull(&daemon, auth.clone()).await.unwrap_or_else(|e| panic!("{auth:?}: {e}\n{}", daemon.log()));
        // A password that is known to work need not be shown to the token server again.
        let asked: Vec<_> = registry.asked.lock().unwrap().iter().map(|(method, ..)| method.clone()).collect();
        assert!(asked.is_empty() || asked.iter().map(String::as_str).eq(method), "{auth:?}: {asked:?}");
        daemon.images().await.remove_image(cri::RemoveImageRequest { image: Some(pods::spec(&id)) }).await.unwrap();
        ids.push(id);
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    for (auth, code) in [
        (none(), Code::PermissionDenied),
        (cri::AuthConfig { password: "a-wrong-secret".into(), ..password() }, Code::PermissionDenied),
        (cri::AuthConfig { server_address: "https://elsewhere.example".into(), ..password() }, Code::PermissionDenied),
        (cri::AuthConfig { identity_token: "a-wrong-secret".into(), ..none() }, Code::PermissionDenied),
        (cri::AuthConfig { registry_token: "a-wrong-secret".into(), ..none() }, Code::PermissionDenied),
        (cri::AuthConfig { registry_token: "a-wrong-secret\r\nX: y".into(), ..none() }, Code::InvalidArgument),
        (cri::AuthConfig { auth: "a-wrong-secret%".into(), ..none() }, Code::InvalidArgument),
        (cri::AuthConfig { auth: STANDARD.encode("a-wrong-secret"), ..none() }, Code::InvalidArgument),
        (cri::AuthConfig { username: "us:er".into(), password: "a-wrong-secret".into(), ..none() }, Code::InvalidArgument),
    ] {
        let error = registry.pull(&daemon, auth.clone()).await.expect_err("refused");
        assert_eq!(error.code(), code, "{auth:?}: {error}");
        let told = format!("{} {}", error.message(), daemon.log());
        for secret in ["a-wrong-secret", "the-password", packed.as_str(), "the-identity-token", TOKEN] {
            assert!(!told.contains(secret), "{secret}: {error}");
        }
    }
    daemon.finish().await;
}

async fn status(daemon: &Daemon, spec: cri::ImageSpec) -> Option<cri::Image> {
    let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
    daemon.images().await.image_status(request).await.unwrap().into_inner().image
}

/// An image has one id everywhere, however it is named and for whichever handler.
#[tokio::test(flavor = "multi_thread")]
async fn one_id_by_every_name_and_for_every_handler() {
    let daemon = Daemon::start().await;
    let id = pods::pull(&daemon, BUSYBOX).await;
    assert_eq!(pods::pull(&daemon, "quay.io/library/busybox:1.35").await, id, "from another registry");
    let image = status(&daemon, pods::spec(&id)).await.unwrap();
    assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (2, 2), "{image:?}");
    let short = &id["sha256:".len()..][..12];
    let tagged = image.repo_digests[0].replace('@', ":1.35@");
    let mut names: Vec<&str> = image.repo_tags.iter().chain(&image.repo_digests).map(String::as_str).collect();
    names.extend(["busybox:1.35", &id, &id["sha256:".len()..], short, &tagged]);
    for name in names {
        assert_eq!(status(&daemon, pods::spec(name)).await.unwrap_or_else(|| panic!("{name}")).id, id);
    }
    let handled = cri::ImageSpec { runtime_handler: "kata".into(), ..pods::spec(BUSYBOX) };
    let request = cri::PullImageRequest { image: Some(handled.clone()), ..Default::default() };
    assert_eq!(daemon.images().await.pull_image(request).await.unwrap().into_inner().image_ref, id);
    assert_eq!(status(&daemon, handled).await.unwrap().spec.unwrap().runtime_handler, "kata");
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("ids");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let made = pods::run(&mut runtime, &pod, &config, &pods::container("c", "quay.io/library/busybox:1.35", "sleep 1000")).await;
    assert_eq!(pods::status(&mut runtime, &made).await.image_id, id);
    let list = runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap().into_inner().containers;
    assert_eq!((list[0].image_id.as_str(), list[0].image_ref.as_str()), (&*id, &*id));
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_images_say_so() {
    let mut daemon = Daemon::prepare(&[], &[]);
    let drop_ins = daemon.dir.path().join("config.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("pins.toml"), "pinned_images = [\"busybox:1.35\", \"docker.io/*/whiteout:*\"]\n").unwrap();
    daemon.run().await;
    for (image, pinned) in [(BUSYBOX, true), ("docker.io/test/whiteout:1", true), ("docker.io/test/config:1", false)] {
        pods::pull(&daemon, image).await;
        assert_eq!(status(&daemon, pods::spec(image)).await.unwrap().pinned, pinned, "{image}");
    }
    let list = daemon.images().await.list_images(cri::ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert_eq!(list.iter().filter(|image| image.pinned).count(), 2);
    let request = cri::RemoveImageRequest { image: Some(pods::spec(BUSYBOX)) };
    daemon.images().await.remove_image(request).await.unwrap();
    assert!(status(&daemon, pods::spec(BUSYBOX)).await.is_none(), "who asks for its removal gets it");
    daemon.finish().await;
}
