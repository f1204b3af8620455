//! Debian's docker-registry on loopback, and pushing to it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::daemon::cache;

/// A registry that runs.
pub struct Registry {
    /// Where it listens on loopback.
    pub port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The registry with the images of hack/mkimages.py, shared by all tests and read only.
pub fn shared() -> u16 {
    static SHARED: OnceLock<u16> = OnceLock::new();
    *SHARED.get_or_init(|| {
        // In a thread that never ends: statics are not dropped, and the registry dies with the thread that started it.
        let (sender, port) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let registry = Registry::over(&cache("registry"), "");
            sender.send(registry.port).unwrap();
            loop {
                std::thread::park();
            }
        });
        port.recv().expect("the shared registry starts")
    })
}

impl Registry {
    /// An empty registry of the test's own.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = dir.path().join("data");
        Self::serve(&storage, "", dir)
    }

    /// A registry over a storage directory, with further lines of configuration.
    pub fn over(storage: &Path, extra: &str) -> Self {
        Self::serve(storage, extra, tempfile::tempdir().unwrap())
    }

    fn serve(storage: &Path, extra: &str, dir: tempfile::TempDir) -> Self {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: creel-test\n{extra}",
            storage.display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(cache("bin/docker-registry")).arg("serve").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, child, _dir: dir }
    }

    /// Uploads a blob.
    pub fn push_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let (status, headers, _) = self.http("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        assert_eq!(status, 202, "{headers}");
        let location = headers.lines().find_map(|l| l.strip_prefix("Location: ")).expect("Location").trim().to_owned();
        let path = location.split_once("//").map_or(location.clone(), |(_, rest)| format!("/{}", rest.split_once('/').unwrap().1));
        let separator = if path.contains('?') { '&' } else { '?' };
        let (status, headers, body) =
            self.http("PUT", &format!("{path}{separator}digest={digest}"), "application/octet-stream", bytes);
        assert_eq!(status, 201, "{headers}\n{}", String::from_utf8_lossy(&body));
    }

    /// Uploads a manifest under a tag or digest.
    pub fn push_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        let (status, headers, body) = self.http("PUT", &format!("/v2/{repository}/manifests/{reference}"), media_type, bytes);
        assert_eq!(status, 201, "{headers}\n{}", String::from_utf8_lossy(&body));
    }

    fn http(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        if !content_type.is_empty() {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a header block");
        let headers = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = headers.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, headers, answer[split + 4..].to_vec())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
