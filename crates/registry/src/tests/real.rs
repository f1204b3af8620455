//! Against docker-registry, the field's own. Skipped, and said so, where it is not installed.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    config,
    farm::{MANIFEST, digest, noise},
    layers, password, resolve, told,
};
use crate::{Credentials, Registry};

fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_REGISTRY").map(PathBuf::from);
    let cache = std::env::var_os("CREEL_CACHE").map(PathBuf::from).unwrap_or_default();
    let known = [cache.join("bin/docker-registry"), PathBuf::from("/usr/bin/docker-registry")];
    named.into_iter().chain(known).find(|path| path.is_file())
}

pub(super) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts it over an empty directory; `more` is added to its configuration.
fn start(binary: &Path, directory: &Path, more: &str) -> Server {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: '{address}', secret: x}}\n{more}",
        directory.join("data").display()
    );
    let file = directory.join("registry.yml");
    std::fs::write(&file, text).unwrap();
    let child = Command::new(binary).arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { child, address };
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "docker-registry does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// One request over a connection of its own; its status and headers.
fn request(server: &Server, method: &str, target: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Authorization: Basic dXNlcjpwNHNzdzByZA==\r\nConnection: close\r\n\r\n",
        server.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {target}: {answer}");
    answer
}

fn push_blob(server: &Server, bytes: &[u8]) -> serde_json::Value {
    let answer = request(server, "POST", "/v2/lab/real/blobs/uploads/", "application/octet-stream", b"");
    let location = answer.lines().find_map(|l| l.strip_prefix("Location: ")).unwrap().trim();
    let target = location.split_once("://").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    let digest = digest(bytes);
    request(server, "PUT", &format!("{target}&digest={digest}"), "application/octet-stream", bytes);
    serde_json::json!({"digest": digest.to_string(), "size": bytes.len()})
}

fn push(server: &Server, contents: &[bytes::Bytes]) {
    let descriptor = |bytes: &[u8], kind: &str| {
        let mut value = push_blob(server, bytes);
        value["mediaType"] = kind.into();
        value
    };
    let ids: Vec<String> = contents.iter().map(|c| digest(c).to_string()).collect();
    let config =
        serde_json::json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ids}}).to_string();
    let layers: Vec<_> = contents.iter().map(|c| descriptor(c, "application/vnd.oci.image.layer.v1.tar")).collect();
    let config = descriptor(config.as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string();
    request(server, "PUT", "/v2/lab/real/manifests/1", MANIFEST, manifest.as_bytes());
}

/// The test's registry, or `None` and a word about it.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub(super) fn registry(directory: &tempfile::TempDir, more: &str) -> Option<Server> {
    match binary() {
        Some(binary) => Some(start(&binary, directory.path(), more)),
        None => {
            eprintln!("SKIPPED: no docker-registry here (set DOCKER_REGISTRY to its path)");
            None
        }
    }
}

#[tokio::test]
async fn the_real_registry_is_pulled_from() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = registry(&directory, "") else { return };
    let contents = [noise(3_000_000, 1), noise(5, 2)];
    push(&server, &contents);
    let client = Registry::new(config(&directory));
    let resolved = resolve(&client, &format!("{}/lab/real:1", server.address), &Credentials::anonymous()).await.unwrap();
    assert_eq!(layers(&client, &resolved).await.unwrap(), contents);
    let by_digest = format!("{}/lab/real@{}", server.address, resolved.target.digest);
    resolve(&client, &by_digest, &Credentials::anonymous()).await.unwrap();
    let error = resolve(&client, &format!("{}/lab/real:2", server.address), &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), model::ErrorKind::NotFound);
    assert!(told(&error).contains("status 404: MANIFEST_UNKNOWN: manifest unknown"), "{}", told(&error));
}

/// One that wants the tests' user and password.
pub(super) fn with_password(directory: &tempfile::TempDir) -> Option<Server> {
    let htpasswd = directory.path().join("htpasswd");
    // bcrypt of p4ssw0rd, made once with cost 4.
    std::fs::write(&htpasswd, "user:$2b$04$abcdefghijklmnopqrstuuWIjy.kBfLlxwPfqLFCg/mYDOjX.8Dy2\n").unwrap();
    registry(directory, &format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", htpasswd.display()))
}

#[tokio::test]
async fn the_real_registry_wants_a_password() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = with_password(&directory) else { return };
    let contents = [noise(1000, 1)];
    push(&server, &contents);
    let client = Registry::new(config(&directory));
    let image = format!("{}/lab/real:1", server.address);
    let resolved = resolve(&client, &image, &password()).await.unwrap();
    assert_eq!(layers(&client, &resolved).await.unwrap(), contents);
    let error = resolve(&client, &image, &Credentials::anonymous()).await.unwrap_err();
    assert_eq!(error.kind(), model::ErrorKind::PermissionDenied);
    assert!(told(&error).contains("status 401: UNAUTHORIZED: authentication required"), "{}", told(&error));
}
