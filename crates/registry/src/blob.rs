//! A blob as a stream of verified bytes: resumed where it broke, from another place if need be.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use model::{Descriptor, Digest};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::time::Instant;

use crate::{
    Error, Failure, Step,
    exchange::Ask,
    failure::{clean, from_http},
    rounds::{Rounds, Turn},
    source::Session,
};

/// What counts as progress, so that a server that drips one byte a second is not waited for until the end of days.
const PROGRESS: u64 = 16 * 1024;
/// After so many bytes earlier failures are forgotten.
const ADVANCE: u64 = 8 << 20;
/// How long the end of a chunked body is waited for, to be able to use the connection again.
const TAIL: Duration = Duration::from_millis(50);

/// A running hash.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// With the algorithm of a digest.
    pub(crate) fn like(digest: &Digest) -> Self {
        match digest {
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
            Digest::Sha512(_) => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::Sha512(hash.finalize().into()),
        }
    }

    /// The digest of bytes, with the algorithm of another digest.
    pub(crate) fn of(like: &Digest, bytes: &[u8]) -> Digest {
        let mut hash = Self::like(like);
        hash.update(bytes);
        hash.finish()
    }

    pub(crate) fn sha256_of(bytes: &[u8]) -> Digest {
        Digest::Sha256(Sha256::digest(bytes).into())
    }
}

/// An answer that is being read.
struct Open {
    body: Incoming,
    /// Bytes that we have already: the server did not do ranges and sends all again.
    skip: u64,
    /// Time spent waiting, and what came in it, since there was progress.
    waited: Duration,
    came: u64,
}

/// Adds up the time that we wait, also in calls that are dropped. Only our own waiting counts: while the caller
/// unpacks, nothing is expected to come.
struct Watch<'a> {
    since: Instant,
    total: &'a mut Duration,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        *self.total += self.since.elapsed();
    }
}

/// A blob on its way.
///
/// The bytes are verified only as a whole: they may be worked on as they come, but nothing may be kept unless
/// [`BlobReader::next`] has returned `None`.
pub struct BlobReader {
    session: Arc<Session>,
    blob: Descriptor,
    rounds: Rounds,
    open: Option<Open>,
    hasher: Option<Hasher>,
    done: u64,
    since_failure: u64,
    /// Whose bytes are in it.
    givers: Vec<usize>,
    /// Places that cannot do ranges.
    no_ranges: Vec<usize>,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("blob", &self.blob).field("done", &self.done).finish_non_exhaustive()
    }
}

impl BlobReader {
    pub(crate) async fn open(session: Arc<Session>, blob: Descriptor) -> Result<Self, Error> {
        let rounds = session.rounds_for(&blob.digest);
        let hasher = Some(Hasher::like(&blob.digest));
        let (givers, no_ranges) = (Vec::new(), Vec::new());
        let mut reader = Self { session, blob, rounds, open: None, hasher, done: 0, since_failure: 0, givers, no_ranges };
        reader.connect().await?;
        Ok(reader)
    }

    /// What is being read.
    pub fn descriptor(&self) -> &Descriptor {
        &self.blob
    }

    /// Bytes handed out so far.
    pub fn position(&self) -> u64 {
        self.done
    }

    /// The next piece; `None` = all bytes have come and are those that the digest names. After an error there is
    /// nothing more. Cancel safe: a dropped call loses no bytes.
    ///
    /// # Errors
    /// See [`Error`]; `Corrupted` if the bytes are wrong, in which case another call of
    /// [`Registry::blob`](crate::Registry::blob) with the same source asks other places.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            self.hasher.as_ref()?;
            if self.done == self.blob.size {
                return self.finish().await.err().map(Err);
            }
            if self.open.is_none()
                && let Err(error) = self.connect().await
            {
                self.hasher = None;
                return Some(Err(error));
            }
            match self.read().await {
                Ok(Some(bytes)) => return Some(Ok(bytes)),
                Ok(None) => {}
                Err(failure) => {
                    self.open = None;
                    self.since_failure = 0;
                    self.rounds.failed(failure);
                }
            }
        }
    }

    /// All bytes, if they are at most `limit`.
    ///
    /// # Errors
    /// As [`BlobReader::next`]; and if the blob is larger.
    pub async fn read_all(mut self, limit: u64) -> Result<Bytes, Error> {
        if self.blob.size > limit {
            return Err(self.give_up(vec![(self.first_place(), Failure::TooLarge(limit))]));
        }
        let mut all = bytes::BytesMut::new();
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.freeze())
    }

    /// A piece of the open answer; `None` = it had nothing for us, go on.
    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let limit = self.session.shared.config.timeouts.progress;
        let left = limit.saturating_sub(open.waited);
        let frame = {
            let _watch = Watch { since: Instant::now(), total: &mut open.waited };
            tokio::time::timeout(left, open.body.frame()).await
        };
        let mut bytes = match frame {
            Err(_) => return Err(Failure::Stalled(limit)),
            Ok(None) => return Err(Failure::Truncated { expected: self.blob.size, found: self.done }),
            Ok(Some(Err(error))) => return Err(from_http(&error)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => bytes,
                Err(_trailers) => return Ok(None),
            },
        };
        open.came += bytes.len() as u64;
        if open.came >= PROGRESS {
            (open.waited, open.came) = (Duration::ZERO, 0);
        }
        let skipped = open.skip.min(bytes.len() as u64);
        open.skip -= skipped;
        bytes.advance(skipped as usize);
        // What comes beyond the size is not ours to judge: the digest is of the first `size` bytes.
        bytes.truncate(usize::try_from(self.blob.size - self.done).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Ok(None);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.done += bytes.len() as u64;
        self.since_failure += bytes.len() as u64;
        self.rounds.started();
        if self.since_failure >= ADVANCE {
            self.since_failure = 0;
            self.rounds.advanced();
        }
        Ok(Some(bytes))
    }

    /// All bytes are there: are they the right ones?
    async fn finish(&mut self) -> Result<(), Error> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let (expected, found) = (self.blob.digest, hasher.finish());
        if let Some(mut open) = self.open.take()
            && !open.body.is_end_stream()
        {
            // A body left unread costs the connection; whether its end comes is of no other interest.
            drop(tokio::time::timeout(TAIL, open.body.frame()).await);
        }
        if found == expected {
            return Ok(());
        }
        let givers = std::mem::take(&mut self.givers);
        for number in &givers {
            self.session.distrust(*number, expected);
        }
        let mut failures = self.rounds.take_failures();
        failures.retain(|(number, _)| !givers.contains(number));
        let wrong = || Failure::Digest { expected: Box::new(expected), found: Box::new(found) };
        failures.extend(givers.into_iter().map(|number| (number, wrong())));
        Err(self.give_up(failures))
    }

    /// Opens the blob at the next place, from where we are.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            match self.rounds.turn() {
                Turn::Ask(number) => {
                    let answer = self.ask(number).await;
                    let endpoint = self.session.endpoint(number);
                    endpoint.set_down(answer.as_ref().is_err_and(Failure::is_down));
                    match answer {
                        Ok(open) => {
                            self.open = Some(open);
                            if !self.givers.contains(&number) {
                                self.givers.push(number);
                            }
                            return Ok(());
                        }
                        Err(failure) => self.rounds.failed(failure),
                    }
                }
                Turn::Wait(wait) => tokio::time::sleep(wait).await,
                Turn::Over => {
                    let failures = self.rounds.take_failures();
                    return Err(self.give_up(failures));
                }
            }
        }
    }

    async fn ask(&mut self, number: usize) -> Result<Open, Failure> {
        if self.done > 0 && !self.no_ranges.contains(&number) {
            match self.ask_from(number, Some(self.done)).await {
                Err(Failure::ContentRange(_) | Failure::Status { status: 416, .. }) => self.no_ranges.push(number),
                other => return other,
            }
        }
        self.ask_from(number, None).await
    }

    async fn ask_from(&self, number: usize, from: Option<u64>) -> Result<Open, Failure> {
        let endpoint = self.session.endpoint(number);
        let url = endpoint.url(&self.session.repository, &format!("blobs/{}", self.blob.digest));
        let response = self.session.ask(endpoint, url, &Ask { from, ..Ask::default() }).await?;
        self.accept(response, from).await
    }

    /// Checks that an answer is the rest of the blob, or all of it.
    async fn accept(&self, response: Response<Incoming>, from: Option<u64>) -> Result<Open, Failure> {
        let size = self.blob.size;
        let skip = match (response.status(), from) {
            (StatusCode::PARTIAL_CONTENT, Some(from)) => {
                check_range(&response, from, size)?;
                0
            }
            (StatusCode::OK, _) => {
                let length = response.body().size_hint().exact();
                if let Some(found) = length.filter(|found| *found != size) {
                    return Err(Failure::Length { expected: size, found });
                }
                self.done
            }
            _ => return Err(self.session.status_failure(response, str::to_owned).await),
        };
        Ok(Open { body: response.into_body(), skip, waited: Duration::ZERO, came: 0 })
    }

    fn first_place(&self) -> usize {
        self.givers.first().copied().unwrap_or(0)
    }

    fn give_up(&self, failures: Vec<(usize, Failure)>) -> Error {
        self.session.gave_up(Step::Blob, format!("{}@{}", self.session.repository, self.blob.digest), failures)
    }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` must start where we are and not reach beyond the end.
fn check_range(response: &Response<Incoming>, from: u64, size: u64) -> Result<(), Failure> {
    let value = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if range_fits(value, from, size) { Ok(()) } else { Err(Failure::ContentRange(clean(value, 80))) }
}

fn range_fits(value: &str, from: u64, size: u64) -> bool {
    let parts = value.strip_prefix("bytes ").and_then(|rest| rest.split_once('/'));
    let Some(((first, last), total)) = parts.and_then(|(range, total)| Some((range.split_once('-')?, total))) else {
        return false;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    number(first) == Some(from)
        && number(last).is_some_and(|last| last >= from && last < size)
        && (total == "*" || number(total) == Some(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_checked() {
        assert!(range_fits("bytes 5-9/10", 5, 10));
        assert!(range_fits("bytes 5-9/*", 5, 10));
        assert!(range_fits("bytes 5-7/10", 5, 10));
        for bad in [
            "",
            "bytes 0-9/10",
            "bytes 5-10/11",
            "bytes 5-9/11",
            "bytes 5-10/*",
            "bytes 5-4/10",
            "items 5-9/10",
            "bytes */10",
            "bytes 5-9",
        ] {
            assert!(!range_fits(bad, 5, 10), "{bad}");
        }
    }

    #[test]
    fn hashes_follow_the_digest() {
        let sha256: Digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        assert_eq!(Hasher::of(&sha256, b"abc"), sha256);
        let sha512 = Hasher::of(&Digest::Sha512([0; 64]), b"abc");
        assert!(sha512.to_string().starts_with("sha512:ddaf35a193617aba"));
    }
}
