//! Uploads: blobs in pieces that a broken connection does not lose, then the manifest that makes them an image
//! (distribution-spec, "Push").

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use model::{Descriptor, Digest, Repository};

use crate::{
    Content, Error, Failure, Growing, Grown, Step, Url,
    content::{Outgoing, PIECE},
    exchange::{Act, Ask},
    failure::RedirectError,
    rounds::Turn,
    source::Session,
};

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
    at: Position,
}

/// Where the upload that the registry has begun goes on, and how much of it is there.
type Position = Option<(Url, u64)>;

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
        let Upload { blob, at } = upload;
        self.send(at, Outgoing::Whole(content, blob), progress).await.map(drop)
    }

    /// Uploads a blob while it is written; otherwise as [`Target::upload`]. Answers what it has become. `begun`: an upload of
    /// something else that the registry has begun and that nothing was sent in; `name` is what errors call it.
    ///
    /// # Errors
    /// See [`Error`]; `Content` if its writer gives it up.
    pub async fn upload_growing(
        &self,
        name: Digest,
        begun: Option<Upload>,
        growing: Growing,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Digest, u64), Error> {
        self.send(begun.and_then(|upload| upload.at), Outgoing::Growing(growing, name), progress).await
    }

    async fn send(
        &self,
        mut at: Position,
        mut content: Outgoing<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Digest, u64), Error> {
        let mut rounds = self.0.rounds_at(self.0.taker());
        loop {
            match rounds.turn() {
                Turn::Ask(number) => {
                    let before = at.as_ref().map_or(0, |(_, done)| *done);
                    match self.go_on(number, &mut at, &mut content, progress).await {
                        Ok(sent) => return Ok(sent),
                        Err(Broken::Here(source)) => return Err(Error::Content { digest: content.name(), source }),
                        Err(Broken::There(failure)) => {
                            if at.as_ref().is_some_and(|(_, done)| *done > before) {
                                rounds.started();
                                rounds.advanced();
                            }
                            rounds.failed(failure);
                        }
                    }
                }
                Turn::Wait(wait) => {
                    tokio::time::sleep(wait).await;
                    self.ask_position(&mut at, &content).await;
                }
                Turn::Over => return Err(self.gave_up(Step::Upload, &content.name(), rounds.into_failures())),
            }
        }
    }

    /// Sends what is still missing.
    async fn go_on(
        &self,
        number: usize,
        at: &mut Position,
        content: &mut Outgoing<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Digest, u64), Broken> {
        let (mut url, mut done) = match at.clone() {
            Some(at) => at,
            None => (self.begin(number).await?, 0),
        };
        loop {
            *at = Some((url.clone(), done));
            let Grown { bytes, digest } = content.at_least(done + PIECE as u64).await.map_err(Broken::Here)?;
            let piece = content.piece(done, bytes - done).await.map_err(Broken::Here)?;
            let end = done + piece.len() as u64;
            // A small blob goes in one piece with the end of its upload.
            if let Some(digest) = digest.filter(|_| bytes <= PIECE as u64 || done == bytes) {
                let act = Act::Put { media_type: "application/octet-stream".to_owned(), body: piece };
                let url = url.with_query("digest", &digest.to_string());
                let response = self.0.ask(self.0.endpoint(number), url, &Ask { act, ..Ask::default() }).await?;
                same_digest(&response, &digest)?;
                progress(bytes);
                return Ok((digest, bytes));
            }
            let act = Act::Patch { from: done, piece };
            let response = self.0.ask(self.0.endpoint(number), url.clone(), &Ask { act, ..Ask::default() }).await?;
            url = location(&url, &response)?;
            done = position(&response).filter(|at| *at <= end && *at > done).unwrap_or(end);
            progress(done);
        }
    }

    /// Begins an upload.
    async fn begin(&self, number: usize) -> Result<Url, Failure> {
        let endpoint = self.0.endpoint(number);
        let url = endpoint.url(&self.0.repository, "blobs/uploads/");
        let response = self.0.ask(endpoint, url.clone(), &Ask { act: Act::Post, ..Ask::default() }).await?;
        location(&url, &response)
    }

    /// Asks how much of a broken upload has arrived; if that cannot be had, the upload begins anew.
    async fn ask_position(&self, upload: &mut Position, content: &Outgoing<'_>) {
        let (Some((url, _)), Some(number)) = (upload.take(), self.0.taker()) else { return };
        let Ok(response) = self.0.ask(self.0.endpoint(number), url.clone(), &Ask::default()).await else { return };
        // Nothing but the answer to this question says where an upload is: a 200 would be of something else.
        if response.status() == StatusCode::NO_CONTENT {
            let at = position(&response).unwrap_or(0);
            let next = location(&url, &response).unwrap_or(url);
            *upload = content.reaches_beyond(at).then_some((next, at));
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
