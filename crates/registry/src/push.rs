//! Uploads: blobs in pieces that a broken connection does not lose, then the manifest that makes them an image
//! (distribution-spec, "Push").

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use model::{Descriptor, Digest, Repository};

use crate::{
    Error, Failure, Step, Url,
    exchange::{Act, Ask},
    failure::RedirectError,
    rounds::Turn,
    source::Session,
};

/// Size of a piece of an upload: also what is sent again after a connection broke. Registries on object stores refuse
/// pieces below 5 MiB.
const PIECE: usize = 8 << 20;

/// Where images of one repository are pushed to: the registry itself, with the credentials of the push. Its
/// connections close when the last clone is dropped.
#[derive(Clone)]
pub struct Target(pub(crate) Arc<Session>);

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("repository", &self.0.repository).finish_non_exhaustive()
    }
}

/// Whether a registry has a blob.
#[derive(Debug)]
pub enum Found {
    /// It was there.
    Existed,
    /// It was in another repository of the registry, which now shares it.
    Mounted,
    /// It is to be uploaded.
    Missing(Upload),
}

/// A blob that is to be uploaded.
#[derive(Debug)]
pub struct Upload {
    blob: Descriptor,
    /// Where the upload that the registry has begun goes on, and how much of it is there.
    at: Option<(Url, u64)>,
}

/// The bytes of a blob, to be read again from anywhere.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(Arc<File>),
}

impl Content {
    async fn piece(&self, from: u64, most: u64) -> io::Result<Bytes> {
        let length = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(from).map_err(io::Error::other)?;
                let end = from.checked_add(length).filter(|end| *end <= bytes.len());
                end.map(|end| bytes.slice(from..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::File(file) => {
                let file = Arc::clone(file);
                let read = move || {
                    let mut piece = vec![0; length];
                    file.read_exact_at(&mut piece, from).map(|()| Bytes::from(piece))
                };
                tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
            }
        }
    }
}

/// Why a step of an upload did not work.
enum Broken {
    /// The registry or the way to it.
    There(Failure),
    /// Our own content.
    Here(io::Error),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::There(failure)
    }
}

impl Target {
    /// Whether the registry has a blob; if not, and `from` is another repository there that has it, whether it can be
    /// shared from there without an upload.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find(&self, blob: &Descriptor, from: Option<&Repository>) -> Result<Found, Error> {
        let place = self.0.taker();
        let mut rounds = self.0.rounds_at(place);
        loop {
            match rounds.turn() {
                Turn::Ask(number) => match self.look(number, blob, from).await {
                    Ok(found) => return Ok(found),
                    Err(failure) => rounds.failed(failure),
                },
                Turn::Wait(wait) => tokio::time::sleep(wait).await,
                Turn::Over => return Err(self.gave_up(Step::Find, &blob.digest, rounds.into_failures())),
            }
        }
    }

    async fn look(&self, number: usize, blob: &Descriptor, from: Option<&Repository>) -> Result<Found, Failure> {
        let endpoint = self.0.endpoint(number);
        let url = endpoint.url(&self.0.repository, &format!("blobs/{}", blob.digest));
        match self.0.ask(endpoint, url, &Ask { act: Act::Head, ..Ask::default() }).await {
            Ok(_) => return Ok(Found::Existed),
            Err(Failure::Status { status: 404, .. }) => {}
            Err(failure) => return Err(failure),
        }
        let mut upload = Upload { blob: blob.clone(), at: None };
        let Some(from) = from.filter(|from| from.as_str() != self.0.repository) else { return Ok(Found::Missing(upload)) };
        let url = endpoint.url(&self.0.repository, "blobs/uploads/");
        let url = url.with_query("mount", &blob.digest.to_string()).with_query("from", from.as_str());
        match self.0.ask(endpoint, url.clone(), &Ask { act: Act::Post, ..Ask::default() }).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Found::Mounted),
            Ok(response) if response.status() == StatusCode::ACCEPTED => {
                upload.at = Some((location(&url, &response)?, 0));
                Ok(Found::Missing(upload))
            }
            // That the other repository may not be read, or is none, is no reason not to upload.
            Ok(_) | Err(Failure::Status { status: 400..=405, .. }) => Ok(Found::Missing(upload)),
            Err(failure) => Err(failure),
        }
    }

    /// Uploads a blob. `progress` is told how many bytes the registry has; after a broken connection the upload goes on
    /// from there.
    ///
    /// # Errors
    /// See [`Error`]; `Content` if our own bytes cannot be read or are fewer than the descriptor says.
    pub async fn upload(&self, upload: Upload, content: &Content, progress: &(dyn Fn(u64) + Sync)) -> Result<(), Error> {
        let mut upload = upload;
        let digest = upload.blob.digest;
        let mut rounds = self.0.rounds_at(self.0.taker());
        loop {
            match rounds.turn() {
                Turn::Ask(number) => {
                    let before = upload.at.as_ref().map_or(0, |(_, done)| *done);
                    match self.go_on(number, &mut upload, content, progress).await {
                        Ok(()) => return Ok(()),
                        Err(Broken::Here(source)) => return Err(Error::Content { digest, source }),
                        Err(Broken::There(failure)) => {
                            if upload.at.as_ref().is_some_and(|(_, done)| *done > before) {
                                rounds.started();
                                rounds.advanced();
                            }
                            rounds.failed(failure);
                        }
                    }
                }
                Turn::Wait(wait) => {
                    tokio::time::sleep(wait).await;
                    self.ask_position(&mut upload).await;
                }
                Turn::Over => return Err(self.gave_up(Step::Upload, &digest, rounds.into_failures())),
            }
        }
    }

    /// Sends what is still missing.
    async fn go_on(
        &self,
        number: usize,
        upload: &mut Upload,
        content: &Content,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Broken> {
        let size = upload.blob.size;
        let (mut url, mut done) = match upload.at.clone() {
            Some(at) => at,
            None => (self.begin(number).await?, 0),
        };
        // A small blob goes in one piece with the end of its upload.
        while size > PIECE as u64 && done < size {
            upload.at = Some((url.clone(), done));
            let piece = content.piece(done, size - done).await.map_err(Broken::Here)?;
            let end = done + piece.len() as u64;
            let act = Act::Patch { from: done, piece };
            let response = self.0.ask(self.0.endpoint(number), url.clone(), &Ask { act, ..Ask::default() }).await?;
            url = location(&url, &response)?;
            done = position(&response).filter(|at| *at <= end && *at > done).unwrap_or(end);
            progress(done);
        }
        upload.at = Some((url.clone(), done));
        let rest = content.piece(done, size - done).await.map_err(Broken::Here)?;
        let media_type = "application/octet-stream".to_owned();
        let act = Act::Put { media_type, body: rest };
        let url = url.with_query("digest", &upload.blob.digest.to_string());
        let response = self.0.ask(self.0.endpoint(number), url, &Ask { act, ..Ask::default() }).await?;
        same_digest(&response, &upload.blob.digest)?;
        progress(size);
        Ok(())
    }

    /// Begins an upload.
    async fn begin(&self, number: usize) -> Result<Url, Failure> {
        let endpoint = self.0.endpoint(number);
        let url = endpoint.url(&self.0.repository, "blobs/uploads/");
        let response = self.0.ask(endpoint, url.clone(), &Ask { act: Act::Post, ..Ask::default() }).await?;
        location(&url, &response)
    }

    /// Asks how much of a broken upload has arrived; if that cannot be had, the upload begins anew.
    async fn ask_position(&self, upload: &mut Upload) {
        let (Some((url, _)), Some(number)) = (upload.at.take(), self.0.taker()) else { return };
        let Ok(response) = self.0.ask(self.0.endpoint(number), url.clone(), &Ask::default()).await else { return };
        // Nothing but the answer to this question says where an upload is: a 200 would be of something else.
        if response.status() == StatusCode::NO_CONTENT {
            let at = position(&response).unwrap_or(0);
            let next = location(&url, &response).unwrap_or(url);
            upload.at = (at < upload.blob.size).then_some((next, at));
        }
    }

    /// Uploads a manifest or index under a tag, or (`None`) under its digest alone. All that it names must be there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish(&self, tag: Option<&str>, manifest: &Descriptor, bytes: Bytes) -> Result<(), Error> {
        let at = tag.map_or_else(|| manifest.digest.to_string(), str::to_owned);
        let mut rounds = self.0.rounds_at(self.0.taker());
        loop {
            match rounds.turn() {
                Turn::Ask(number) => match self.put(number, &at, manifest, bytes.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => rounds.failed(failure),
                },
                Turn::Wait(wait) => tokio::time::sleep(wait).await,
                Turn::Over => return Err(self.gave_up(Step::Publish, &at, rounds.into_failures())),
            }
        }
    }

    async fn put(&self, number: usize, at: &str, manifest: &Descriptor, body: Bytes) -> Result<(), Failure> {
        let endpoint = self.0.endpoint(number);
        let url = endpoint.url(&self.0.repository, &format!("manifests/{at}"));
        let act = Act::Put { media_type: manifest.media_type.as_str().to_owned(), body };
        let response = self.0.ask(endpoint, url, &Ask { act, ..Ask::default() }).await?;
        same_digest(&response, &manifest.digest)
    }

    fn gave_up(&self, step: Step, what: &dyn std::fmt::Display, failures: Vec<(usize, Failure)>) -> Error {
        self.0.gave_up(step, format!("{}@{what}", self.0.repository), failures)
    }
}

/// Where an upload goes on. It may be another host: tokens are shown to an origin only as its own challenges say.
fn location(url: &Url, response: &Response<Incoming>) -> Result<Url, Failure> {
    let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let location = location.ok_or(Failure::Redirect(RedirectError::NoLocation))?;
    let next = url.join(location).map_err(|e| Failure::Redirect(RedirectError::Url(e)))?;
    let weaker = url.origin.scheme == crate::Scheme::Https && next.origin.scheme == crate::Scheme::Http;
    if weaker { Err(Failure::Redirect(RedirectError::Downgrade)) } else { Ok(next) }
}

/// How much of an upload is there: `Range: 0-LAST`. A fresh upload says `0-0` and so seems to have one byte, which is why
/// 0 is read as nothing.
fn position(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(header::RANGE)?.to_str().ok()?;
    let last = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse::<u64>().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// What the registry says it has stored must be what was sent.
fn same_digest(response: &Response<Incoming>, expected: &Digest) -> Result<(), Failure> {
    let said = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()?.parse::<Digest>().ok());
    match said {
        Some(found) if found != *expected && found.algorithm() == expected.algorithm() => {
            Err(Failure::Digest { expected: Box::new(*expected), found: Box::new(found) })
        }
        _ => Ok(()),
    }
}
