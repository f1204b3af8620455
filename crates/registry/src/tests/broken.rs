//! Registries and networks that break in mid-pull (F-40, F-41, F-42).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use model::{Descriptor, ErrorKind, MediaType};

use super::{
    bare, config,
    farm::{Farm, Piece, Reply, Seen, Store, digest, noise},
    hosts, impatient, layers, name, resolve, told,
};
use crate::{Credentials, Error, Registry, Source};

const SIZE: usize = 300_000;

fn blob() -> (Bytes, Descriptor) {
    let bytes = noise(SIZE, 7);
    let descriptor = Descriptor { media_type: MediaType::OciLayer, digest: digest(&bytes), size: SIZE as u64 };
    (bytes, descriptor)
}

/// The first byte that a request wants.
fn from(seen: &Seen) -> usize {
    seen.header("range").map_or(0, |r| r.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap())
}

/// A good answer with ranges, cut into what `pieces` makes of its bytes.
fn ranged(bytes: &Bytes, seen: &Seen, pieces: impl Fn(Bytes) -> Vec<Piece>) -> Reply {
    let from = from(seen);
    let rest = bytes.slice(from..);
    let (status, length) = (if from > 0 { 206 } else { 200 }, rest.len() as u64);
    Reply::status(status)
        .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
        .pieces(pieces(rest))
        .length(Some(length))
}

async fn source(registry: &Registry, farm: &Farm) -> Source {
    registry.source(&name(&format!("{}/lab/x", farm.host())), &Credentials::anonymous()).await.unwrap()
}

async fn fetch(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> (Farm, Result<Bytes, Error>) {
    let count = AtomicUsize::new(0);
    let farm = Farm::start(move |seen| handler(seen, count.fetch_add(1, Ordering::SeqCst))).await;
    // Some of what breaks is silence.
    let (_directory, registry) = impatient();
    let source = source(&registry, &farm).await;
    let result = match registry.blob(&source, &blob().1).await {
        Ok(reader) => reader.read_all(1 << 30).await,
        Err(error) => Err(error),
    };
    (farm, result)
}

#[tokio::test]
async fn f_40_what_breaks_is_resumed_where_it_broke() {
    let (bytes, _) = blob();
    for last in [Piece::Break, Piece::Stall] {
        let content = bytes.clone();
        let (farm, result) = fetch(move |seen, _| {
            let last = last.clone();
            ranged(&content, seen, move |rest| match rest.len() {
                length if length > 100_000 => vec![Piece::Data(rest.slice(..90_000)), last.clone()],
                _ => vec![Piece::Data(rest)],
            })
        })
        .await;
        assert_eq!(result.unwrap(), bytes);
        let starts: Vec<usize> = farm.seen().iter().map(from).collect();
        assert!(starts.len() >= 4 && starts[0] == 0 && starts.is_sorted() && *starts.last().unwrap() >= 200_000, "{starts:?}");
    }
}

#[tokio::test]
async fn f_40_servers_without_ranges_send_all_again() {
    let (bytes, _) = blob();
    for refusal in [None, Some(416), Some(206)] {
        let content = bytes.clone();
        let (farm, result) = fetch(move |seen, number| match (number, refusal) {
            (0, _) => ranged(&content, seen, |rest| vec![Piece::Data(rest.slice(..150_000)), Piece::Break]),
            // A range that was not asked for is as good as none.
            (_, Some(206)) if from(seen) > 0 => {
                Reply::new(206, content.clone()).with("content-range", format!("bytes 0-{}/{SIZE}", SIZE - 1))
            }
            (_, Some(status)) if from(seen) > 0 => Reply::status(status),
            _ => Reply::new(200, content.clone()),
        })
        .await;
        assert_eq!(result.unwrap_or_else(|e| panic!("{refusal:?}: {}", told(&e))), bytes);
        assert_eq!(farm.seen().len(), if refusal.is_none() { 2 } else { 3 });
    }
}

#[tokio::test]
async fn f_40_wrong_bytes_and_lengths_are_never_taken() {
    let (bytes, descriptor) = blob();
    let mut wrong = bytes.to_vec();
    wrong[SIZE / 2] ^= 1;
    let wrong = Bytes::from(wrong);
    let (_, result) = fetch(move |_, _| Reply::new(200, wrong.clone())).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(told(&error).contains(&format!("expected {}", descriptor.digest)), "{}", told(&error));
    for length in [SIZE - 1, SIZE + 1, 0] {
        let content = noise(length, 7);
        let (farm, result) = fetch(move |_, _| Reply::new(200, content.clone())).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), farm.seen().len()), (ErrorKind::Corrupted, 1));
        assert!(told(&error).contains(&format!("answer of {length} bytes, expected {SIZE}")), "{}", told(&error));
    }
    let (_, result) = fetch(|_, _| Reply::new(200, "<html>login</html>").with("content-type", "text/html")).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupted);
    // Without a length the lie shows at the end: too short is asked for again, too long is cut where the digest ends.
    let content = bytes.slice(..SIZE - 1);
    let (farm, result) = fetch(move |_, _| Reply::new(200, content.clone()).length(None)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(farm.seen().len(), 6, "one try and five retries");
    let content = bytes.clone();
    let (_, result) =
        fetch(move |_, _| Reply::status(200).pieces(vec![Piece::Data(content.clone()), Piece::Flood]).length(None)).await;
    assert_eq!(result.unwrap(), bytes);
}

#[tokio::test]
async fn f_40_silence_and_dripping_end() {
    let (bytes, _) = blob();
    let farm = Farm::start(|_| Reply { silent: true, ..Reply::status(200) }).await;
    let directory = tempfile::tempdir().unwrap();
    let mut impatient = config(&directory);
    (impatient.timeouts.connect, impatient.timeouts.headers) = (Duration::from_millis(200), Duration::from_millis(100));
    let registry = Registry::new(impatient);
    let error = registry.blob(&source(&registry, &farm).await, &blob().1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(told(&error).contains("no answer within 300ms"), "{}", told(&error));
    let content = bytes.clone();
    let (farm, result) =
        fetch(move |seen, _| ranged(&content, seen, |rest| vec![Piece::Data(rest.slice(..10)), Piece::Drip])).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(told(&error).contains("no progress within 400ms"), "{}", told(&error));
    assert_eq!(farm.seen().len(), 6);
}

#[tokio::test]
async fn f_40_a_slow_reader_is_no_slow_server() {
    let (bytes, descriptor) = blob();
    let content = bytes.clone();
    let farm = Farm::start(move |_| Reply::new(200, content.clone())).await;
    let (_directory, registry) = impatient();
    let source = source(&registry, &farm).await;
    let mut reader = registry.blob(&source, &descriptor).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await {
        all.extend_from_slice(&piece.unwrap());
        if all.len() < SIZE / 4 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    assert_eq!((all.len(), farm.seen().len()), (SIZE, 1));
}

#[tokio::test]
async fn f_41_statuses_are_retried_or_not() {
    let (bytes, _) = blob();
    let retry_afters =
        [None, Some("0"), Some("3"), Some("1000000000"), Some("-5"), Some("Fri, 31 Dec 9999 23:59:59 GMT"), Some("soon")];
    for (status, retry_after) in [429, 503].into_iter().flat_map(|s| retry_afters.map(|r| (s, r))) {
        let content = bytes.clone();
        let (farm, result) = fetch(move |_, number| match (number, retry_after) {
            (0..4, None) => Reply::error(status, "TOOMANYREQUESTS", "slow down"),
            (0..4, Some(time)) => Reply::error(status, "TOOMANYREQUESTS", "slow down").with("retry-after", time),
            _ => Reply::new(200, content.clone()),
        })
        .await;
        assert_eq!(result.unwrap(), bytes, "{status} {retry_after:?}");
        assert_eq!(farm.seen().len(), 5);
    }
    for (status, kind, asked) in [
        (500, ErrorKind::Unavailable, 6),
        (502, ErrorKind::Unavailable, 6),
        (429, ErrorKind::Unavailable, 6),
        (401, ErrorKind::PermissionDenied, 1),
        (403, ErrorKind::PermissionDenied, 1),
        (404, ErrorKind::NotFound, 1),
        (416, ErrorKind::Unavailable, 1),
        (204, ErrorKind::Unavailable, 1),
        (206, ErrorKind::Unavailable, 1),
        (304, ErrorKind::Unavailable, 1),
    ] {
        let (farm, result) = fetch(move |_, _| Reply::status(status)).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), farm.seen().len()), (kind, asked), "{status}");
        assert!(told(&error).contains(&format!("status {status}")), "{}", told(&error));
    }
}

#[tokio::test]
async fn f_42_redirects_end() {
    let (_directory, registry) = bare();
    for (location, why, asked) in [
        ("/v2/lab/x/manifests/1", "redirect: more than 5", 6),
        ("http://localhost:1/", "connect: ", 3),
        ("http://user:secret@localhost:1/", "redirect: Location is a URL with user information", 1),
        ("ftp://localhost/", "redirect: Location is a neither an http nor an https URL", 1),
        ("http://", "redirect: no usable Location", 1),
        ("", "redirect: more than 5", 6),
    ] {
        let farm = Farm::start(move |_| Reply::redirect(location)).await;
        let error = resolve(&registry, &format!("{}/lab/x:1", farm.host()), &Credentials::anonymous()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(told(&error).contains(why) && !told(&error).contains("secret"), "{}", told(&error));
        assert_eq!(farm.seen().len(), asked, "{location}");
    }
    let farm = Farm::start(|_| Reply::status(307)).await;
    let error = resolve(&registry, &format!("{}/lab/x:1", farm.host()), &Credentials::anonymous()).await.unwrap_err();
    assert!(told(&error).contains("no usable Location"), "{}", told(&error));
}

#[tokio::test]
async fn f_42_another_mirror_goes_on_where_one_broke() {
    let mut store = Store::default();
    let image = store.image("lab/x", "1", &[noise(SIZE, 7), noise(SIZE, 8)]);
    let (first, second) = (store.clone(), store);
    let breaking = Farm::start(move |seen| match first.reply(seen) {
        reply if seen.path().contains("/blobs/") && reply.length > Some(1000) => {
            let Piece::Data(bytes) = reply.pieces[0].clone() else { panic!() };
            reply.pieces(vec![Piece::Data(bytes.slice(..bytes.len() / 2)), Piece::Break])
        }
        reply => reply,
    })
    .await;
    let good = Farm::start(move |seen| second.reply(seen)).await;
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(config(&directory));
    let dead = "[host.'http://localhost:1']\n";
    hosts(&directory, "reg.example", &format!("server = 'http://{}'\n{dead}[host.'http://{}']", good.host(), breaking.host()));
    let resolved = resolve(&registry, "reg.example/lab/x:1", &Credentials::anonymous()).await.unwrap();
    assert_eq!(layers(&registry, &resolved).await.unwrap(), image.layers);
    assert!(good.seen().iter().all(|s| from(s) > 0), "the good one was asked for what was missing only");
    assert_eq!((good.seen().len(), breaking.asked("manifests/1")), (2, 1));
}

#[tokio::test]
async fn a_place_that_gave_wrong_bytes_is_not_asked_for_them_again() {
    let (bytes, descriptor) = blob();
    let content = bytes.clone();
    let good = Farm::start(move |_| Reply::new(200, content.clone())).await;
    let bad = Farm::start(|_| Reply::new(200, noise(SIZE, 9))).await;
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(config(&directory));
    hosts(&directory, "reg.example", &format!("server = 'http://{}'\n[host.'http://{}']", good.host(), bad.host()));
    let source = registry.source(&name("reg.example/lab/x"), &Credentials::anonymous()).await.unwrap();
    let error = registry.blob(&source, &descriptor).await.unwrap().read_all(1 << 30).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert_eq!(registry.blob(&source, &descriptor).await.unwrap().read_all(1 << 30).await.unwrap(), bytes);
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 1));
    source.0.distrust(1, descriptor.digest);
    let error = registry.blob(&source, &descriptor).await.unwrap_err();
    assert!(told(&error).contains("gave wrong content before"), "{}", told(&error));
}

#[tokio::test]
async fn a_dropped_call_loses_no_bytes() {
    let (bytes, descriptor) = blob();
    let content = bytes.clone();
    let gate = Arc::new(AtomicUsize::new(0));
    let farm = Farm::start(move |seen| {
        ranged(&content, seen, |rest| match gate.fetch_add(1, Ordering::SeqCst) {
            0 => vec![Piece::Data(rest.slice(..1000)), Piece::Stall],
            _ => vec![Piece::Data(rest)],
        })
    })
    .await;
    let (_directory, registry) = impatient();
    let source = source(&registry, &farm).await;
    let mut reader = registry.blob(&source, &descriptor).await.unwrap();
    let mut all = Vec::new();
    while all.len() < SIZE {
        match tokio::time::timeout(Duration::from_millis(50), reader.next()).await {
            Ok(piece) => all.extend_from_slice(&piece.unwrap().unwrap()),
            Err(_) => assert_eq!(reader.position(), all.len() as u64),
        }
    }
    assert!(reader.next().await.is_none());
    assert_eq!(all, bytes);
}
