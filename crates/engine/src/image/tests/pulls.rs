//! Pulls: shared, cancelled, wrong, repeated (IM-07, F-44).

use std::time::Duration;

use model::ErrorKind;

use super::{Lab, Made, gzip, sha256, tar};

/// Bytes that gzip cannot make small, so that half of them is more than a buffer.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_is_listed_found_and_removed() {
    let lab = Lab::new();
    let made = Made::new(&[&[("a", b"one")], &[("b", b"two")]]);
    lab.server.offer("x/y", "1", &made);
    let id = lab.pull("x/y:1").await.unwrap();
    assert_eq!(id, made.id());
    let full = format!("{}/x/y", lab.server.address());
    let digest = format!("{full}@{}", sha256(&made.manifest));
    let hex = id.digest().hex();
    for name in [&format!("{full}:1"), &digest, &id.to_string(), &hex] {
        let image = lab.images.status(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((&image.repo_tags[..], &image.repo_digests[..]), (&[format!("{full}:1")][..], &[digest.clone()][..]));
        assert_eq!((image.defaults.user.as_str(), image.layers.len()), ("12:34", 2));
        assert!(image.size > 0);
    }
    assert!(lab.images.status(&full).is_none(), "that is :latest");
    assert!(lab.images.status("").is_none() && lab.images.status("@@").is_none());
    assert_eq!(lab.images.list().len(), 1);
    assert!(lab.images.usage().1.bytes > 0);
    // What is there is not fetched again.
    lab.pull("x/y:1").await.unwrap();
    assert_eq!(made.layers.iter().map(|layer| lab.server.asked(layer)).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(lab.images.remove(&digest).await.unwrap(), Some(id));
    assert_eq!(lab.images.remove(&digest).await.unwrap(), None);
    assert!(lab.images.list().is_empty());
    lab.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_digest_there_is_no_tag() {
    let lab = Lab::new();
    let made = Made::new(&[]);
    lab.server.offer("x", "ignored", &made);
    let at = format!("x@{}", sha256(&made.manifest));
    let id = lab.pull(&at).await.unwrap();
    let image = lab.images.status(&id.to_string()).unwrap();
    assert_eq!((image.repo_tags.len(), &image.repo_digests[..]), (0, &[format!("{}/{at}", lab.server.address())][..]));
    assert!(image.size > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f_44_many_pulls_at_once_fetch_each_layer_once() {
    let lab = Lab::new();
    let shared: (&str, &[u8]) = ("shared", &noise(1, 300_000));
    let images: Vec<_> = (0..3u8).map(|n| Made::new(&[&[shared], &[("own", &[n])]])).collect();
    for (n, image) in images.iter().enumerate() {
        lab.server.offer("x", &n.to_string(), image);
    }
    lab.server.stall(&images[0].layers[0]);
    let pulls = (0..12).map(|n| lab.pull(["x:0", "x:1", "x:2"][n % 3]));
    let all = futures_util::future::join_all(pulls);
    let release = async {
        // Whoever comes now joins.
        tokio::time::sleep(Duration::from_millis(300)).await;
        lab.server.release();
    };
    let (pulled, ()) = tokio::join!(all, release);
    for (n, id) in pulled.into_iter().enumerate() {
        assert_eq!(id.unwrap(), images[n % 3].id());
    }
    assert_eq!(lab.server.asked(&images[0].layers[0]), 1);
    for image in &images {
        assert_eq!(lab.server.asked(&image.layers[1]), 1);
        let fetched = lab.images.remove(&image.id().to_string()).await.unwrap();
        assert_eq!(fetched, Some(image.id()));
    }
    lab.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_leaves_nothing_and_does_not_hurt_others() {
    let lab = Lab::new();
    let made = Made::new(&[&[("small", b"small")], &[("big", &noise(2, 2_000_000))]]);
    lab.server.offer("x", "1", &made);
    lab.server.stall(&made.layers[1]);
    let soon = Duration::from_millis(300);
    assert!(tokio::time::timeout(soon, lab.pull("x:1")).await.is_err());
    lab.leaves_nothing().await;
    assert!(lab.images.list().is_empty());
    // Two wait, one goes.
    let gone = tokio::time::timeout(soon, lab.pull("x:1"));
    let stays = lab.pull("x:1");
    let release = async {
        tokio::time::sleep(2 * soon).await;
        lab.server.release();
    };
    let (gone, stays, ()) = tokio::join!(gone, stays, release);
    assert!(gone.is_err());
    assert_eq!(stays.unwrap(), made.id());
    assert_eq!(lab.server.asked(&made.layers[1]), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn im_07_what_does_not_fit_together_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let (one, two) = (tar(&[("a", b"one")]), tar(&[("b", b"two")]));
    let (zip_one, zip_two) = (gzip(&one), gzip(&two));
    let wrong = [
        ("diff id", Made::promising(std::slice::from_ref(&zip_one), &[sha256(&two)]), ErrorKind::Corrupted),
        ("more", Made::promising(std::slice::from_ref(&zip_one), &[sha256(&one), sha256(&two)]), ErrorKind::Corrupted),
        ("fewer", Made::promising(&[zip_one.clone(), zip_two], &[sha256(&one)]), ErrorKind::Corrupted),
        ("no gzip", Made::promising(std::slice::from_ref(&one), &[sha256(&one)]), ErrorKind::Corrupted),
        ("cut", Made::promising(&[zip_one[..zip_one.len() - 9].to_vec()], &[sha256(&one)]), ErrorKind::Corrupted),
    ];
    for (n, (what, image, kind)) in wrong.into_iter().enumerate() {
        lab.server.offer("x", &n.to_string(), &image);
        let error = lab.pull(&format!("x:{n}")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {}", error.chain());
        assert!(error.chain().contains("x:"), "{what}: {}", error.chain());
        lab.leaves_nothing().await;
    }
    assert!(lab.images.list().is_empty());
    // The same layer twice is fine.
    let twice = Made::promising(&[zip_one.clone(), zip_one.clone()], &[sha256(&one), sha256(&one)]);
    lab.server.offer("x", "twice", &twice);
    lab.pull("x:twice").await.unwrap();
    assert_eq!(lab.images.status(&twice.id().to_string()).unwrap().layers.len(), 2);
    assert_eq!(lab.server.asked(&zip_one), 2, "once in vain, and once for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_with_other_bytes_is_refused() {
    let lab = Lab::new();
    let made = Made::new(&[&[("a", &noise(3, 100_000))]]);
    lab.server.offer("x", "1", &made);
    let mut damaged = Made::new(&[&[("a", &noise(3, 100_000))]]);
    let middle = damaged.layers[0].len() / 2;
    damaged.layers[0][middle] ^= 1;
    lab.server.replace("x", &made.layers[0], damaged.layers.remove(0));
    let error = lab.pull("x:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{}", error.chain());
    lab.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_while_it_is_pulled_again() {
    let lab = Lab::new();
    let made = Made::new(&[&[("a", b"one")], &[("b", b"two")]]);
    lab.server.offer("x", "1", &made);
    for _ in 0..20 {
        let name = format!("{}/x:1", lab.server.address());
        let (pulled, removed) = tokio::join!(lab.pull("x:1"), lab.images.remove(&name));
        removed.unwrap();
        assert_eq!(pulled.unwrap(), made.id());
        if let Some(image) = lab.images.status(&name) {
            assert!(image.layers.iter().all(|layer| lab.store.layer(layer).is_some()), "an image that is listed is whole");
        }
    }
}
