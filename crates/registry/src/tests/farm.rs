//! Fake registries on loopback: scripted answers, broken bodies, a log of what was asked.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Digest;
use tokio::net::TcpListener;

use crate::blob::Hasher;

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// A part of a body.
#[derive(Clone)]
pub(super) enum Piece {
    Data(Bytes),
    /// The connection breaks here.
    Break,
    /// Nothing more comes, and no end either.
    Stall,
    /// One of these bytes at a time, with pauses, without end.
    Drip,
    /// Without end, as fast as it can.
    Flood,
}

/// An answer.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) pieces: Vec<Piece>,
    /// Without it the body is chunked.
    pub(super) length: Option<u64>,
    /// No answer at all.
    pub(super) silent: bool,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = Some(body.len() as u64);
        Self { status, headers: Vec::new(), pieces: vec![Piece::Data(body)], length, silent: false }
    }

    pub(super) fn status(status: u16) -> Self {
        Self::new(status, "")
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn pieces(mut self, pieces: Vec<Piece>) -> Self {
        self.pieces = pieces;
        self
    }

    pub(super) fn length(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    pub(super) fn redirect(to: impl Into<String>) -> Self {
        Self::status(307).with("location", to)
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string())
    }
}

struct Script {
    pieces: VecDeque<Piece>,
    tick: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.pieces.front() {
            None => Poll::Ready(None),
            Some(Piece::Data(_)) => match self.pieces.pop_front() {
                Some(Piece::Data(data)) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                _ => self.poll_frame(cx),
            },
            Some(Piece::Stall) => Poll::Pending,
            Some(Piece::Flood) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 16384]))))),
            Some(Piece::Break | Piece::Drip) => {
                // A break waits too: what was said before it must get out first.
                let tick = self.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(std::time::Duration::from_millis(20))));
                std::task::ready!(tick.as_mut().poll(cx));
                self.tick = None;
                if matches!(self.pieces.front(), Some(Piece::Break)) {
                    return Poll::Ready(Some(Err(io::Error::other("as the script says"))));
                }
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
            }
        }
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server; ends with the value.
pub(super) struct Farm {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Farm {
    pub(super) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(handler, None).await
    }

    pub(super) async fn start_tls(tls: rustls::ServerConfig, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(handler, Some(tls)).await
    }

    async fn listen(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static, tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::new(handler) as Arc<Handler>, Arc::clone(&log));
        let count = Arc::clone(&connections);
        let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (shared, tls) = (shared.clone(), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => talk(TokioIo::new(stream), shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(TokioIo::new(stream), shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, log, connections, task }
    }

    /// HOST:PORT as a registry name.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The same by another name: another origin for whoever compares names.
    pub(super) fn localhost(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// How often a path that ends so was asked for.
    pub(super) fn asked(&self, end: &str) -> usize {
        self.seen().iter().filter(|s| s.path().ends_with(end)).count()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn talk<T>(io: T, (handler, log): (Arc<Handler>, Arc<Mutex<Vec<Seen>>>))
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let target = parts.uri.path_and_query().map_or_else(String::new, |p| p.as_str().to_owned());
            let body = String::from_utf8_lossy(&body).into_owned();
            let seen = Seen { method: parts.method.to_string(), target, headers: parts.headers, body };
            log.lock().unwrap().push(seen.clone());
            let reply = handler(&seen);
            if reply.silent {
                std::future::pending::<()>().await;
            }
            let mut response = Response::builder().status(reply.status);
            for (name, value) in &reply.headers {
                response = response.header(*name, value);
            }
            if let Some(length) = reply.length {
                response = response.header("content-length", length);
            }
            Ok::<_, Infallible>(response.body(Script { pieces: reply.pieces.into(), tick: None }).unwrap())
        }
    });
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().max_buf_size(1 << 20);
    drop(server.serve_connection(io, service).await);
}

/// What a good registry has: paths and their content.
#[derive(Clone, Default)]
pub(super) struct Store {
    files: BTreeMap<String, (String, Bytes)>,
}

/// An image in a store.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) manifest: Digest,
    pub(super) config: Digest,
    pub(super) layers: Vec<Bytes>,
    pub(super) manifest_size: usize,
}

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Hasher::sha256_of(bytes)
}

impl Store {
    /// A document or blob under a path below /v2/REPOSITORY/.
    pub(super) fn put(&mut self, repository: &str, rest: &str, kind: &str, bytes: impl Into<Bytes>) {
        self.files.insert(format!("/v2/{repository}/{rest}"), (kind.to_owned(), bytes.into()));
    }

    pub(super) fn blob(&mut self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        self.put(repository, &format!("blobs/{digest}"), "application/octet-stream", bytes);
        digest
    }

    /// An amd64 image of these layers under a tag and its digest.
    pub(super) fn image(&mut self, repository: &str, tag: &str, layers: &[Bytes]) -> Stored {
        let diff_ids: Vec<String> = layers.iter().map(|l| digest(l).to_string()).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}
        });
        self.image_with(repository, tag, layers, &config.to_string())
    }

    pub(super) fn image_with(&mut self, repository: &str, tag: &str, layers: &[Bytes], config: &str) -> Stored {
        let descriptors: Vec<serde_json::Value> = layers
            .iter()
            .map(|layer| {
                let digest = self.blob(repository, layer.clone());
                let kind = "application/vnd.oci.image.layer.v1.tar";
                serde_json::json!({"mediaType": kind, "digest": digest.to_string(), "size": layer.len()})
            })
            .collect();
        let config_digest = self.blob(repository, config.to_owned());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors, "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest.to_string(), "size": config.len()
            }
        })
        .to_string();
        let manifest_size = manifest.len();
        let manifest = self.document(repository, tag, MANIFEST, manifest);
        Stored { manifest, config: config_digest, layers: layers.to_vec(), manifest_size }
    }

    /// A manifest or index under a tag and its digest.
    pub(super) fn document(&mut self, repository: &str, tag: &str, kind: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        self.put(repository, &format!("manifests/{digest}"), kind, bytes.clone());
        self.put(repository, &format!("manifests/{tag}"), kind, bytes);
        digest
    }

    /// The answer of a good registry.
    pub(super) fn reply(&self, seen: &Seen) -> Reply {
        let Some((kind, bytes)) = self.files.get(seen.path()) else {
            return Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let total = bytes.len();
        let from = seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let reply = match from {
            Some(from) if from < total => {
                Reply::new(206, bytes.slice(from..)).with("content-range", format!("bytes {from}-{}/{total}", total - 1))
            }
            Some(_) => Reply::status(416),
            None => Reply::new(200, bytes.clone()),
        };
        reply.with("content-type", kind.clone()).with("docker-content-digest", digest(bytes).to_string())
    }
}

/// Bytes that do not repeat.
pub(super) fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
