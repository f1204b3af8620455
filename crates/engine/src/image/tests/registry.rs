//! A registry that holds what it is given, counts, and stalls when told to.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Made, sha256};

#[derive(Default)]
struct Contents {
    files: HashMap<String, (&'static str, Vec<u8>)>,
    asked: Vec<String>,
    stalled: HashSet<String>,
}

#[derive(Default)]
struct Inner {
    contents: Mutex<Contents>,
    released: Condvar,
    over: AtomicBool,
}

/// Serves until it is dropped.
pub(super) struct Server {
    address: std::net::SocketAddr,
    inner: Arc<Inner>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, inner) = (listener.local_addr().unwrap(), Arc::<Inner>::default());
        let serving = inner.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if serving.over.load(Ordering::SeqCst) {
                    return;
                }
                let (inner, connection) = (serving.clone(), connection.unwrap());
                // A client that goes away ends its thread.
                std::thread::spawn(move || drop(inner.serve(connection)));
            }
        });
        Self { address, inner }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Offers an image under `name:tag` and its digest.
    pub(super) fn offer(&self, name: &str, tag: &str, image: &Made) {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let files = &mut self.inner.contents.lock().unwrap().files;
        for at in [tag.to_owned(), sha256(&image.manifest).to_string()] {
            files.insert(format!("/v2/{name}/manifests/{at}"), (manifest, image.manifest.clone()));
        }
        for blob in image.layers.iter().chain([&image.config]) {
            files.insert(format!("/v2/{name}/blobs/{}", sha256(blob)), ("application/octet-stream", blob.clone()));
        }
    }

    /// Answers with other bytes when this blob is asked for.
    pub(super) fn replace(&self, name: &str, blob: &[u8], bytes: Vec<u8>) {
        let path = format!("/v2/{name}/blobs/{}", sha256(blob));
        self.inner.contents.lock().unwrap().files.insert(path, ("application/octet-stream", bytes));
    }

    /// Sends half of this blob and then nothing until [`Server::release`].
    pub(super) fn stall(&self, blob: &[u8]) {
        self.inner.contents.lock().unwrap().stalled.insert(sha256(blob).to_string());
    }

    pub(super) fn release(&self) {
        self.inner.contents.lock().unwrap().stalled.clear();
        self.inner.released.notify_all();
    }

    /// How often a blob was asked for.
    pub(super) fn asked(&self, blob: &[u8]) -> usize {
        let end = format!("/blobs/{}", sha256(blob));
        self.inner.contents.lock().unwrap().asked.iter().filter(|path| path.ends_with(&end)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::SeqCst);
        self.release();
        TcpStream::connect(self.address).ok();
    }
}

impl Inner {
    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut connection = connection;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while reader.read_line(&mut line)? > 2 {}
        let (found, stalls) = {
            let mut contents = self.contents.lock().unwrap();
            contents.asked.push(path.clone());
            let stalls = contents.stalled.iter().any(|digest| path.ends_with(digest.as_str()));
            (contents.files.get(&path).cloned(), stalls)
        };
        let Some((kind, bytes)) = found else {
            return connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
        connection.write_all(head.as_bytes())?;
        let (first, second) = bytes.split_at(if stalls { bytes.len() / 2 } else { bytes.len() });
        connection.write_all(first)?;
        connection.flush()?;
        let stalled = |contents: &mut Contents| stalls && !contents.stalled.is_empty();
        drop(self.released.wait_while(self.contents.lock().unwrap(), stalled).unwrap());
        connection.write_all(second)
    }
}
