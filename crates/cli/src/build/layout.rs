//! OCI layouts in directories: what their indexes name, as an archive for the daemon, and what they name no longer.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};

/// Bytes of an index or a manifest.
const DOCUMENT: u64 = 4 << 20;
/// Indexes in each other.
const DEEPEST: u32 = 4;
/// Blobs of one layout.
const MOST: usize = 100_000;
const INDEX: &str = "index.json";

/// A layout that is to be sent.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    index: Vec<u8>,
    /// SHA-256 digests in hexadecimal.
    blobs: BTreeSet<String>,
}

fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Layout {
    /// Everything that a layout's index names.
    pub(super) fn whole(dir: &Path) -> io::Result<Self> {
        let index = read(&dir.join(INDEX))?;
        let blobs = named(dir, &index)?;
        Ok(Self { dir: dir.to_owned(), index, blobs })
    }

    /// One image of a layout: by its tag, by its digest, or the only one that there is.
    pub(super) fn one(dir: &Path, tag: Option<&str>, digest: Option<&str>) -> io::Result<Self> {
        let index: Value = serde_json::from_slice(&read(&dir.join(INDEX))?).map_err(|e| wrong(format!("{INDEX}: {e}")))?;
        let all = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_called = |entry: &Value, tag: &str| {
            let name = |key: &str| entry["annotations"][key].as_str().unwrap_or_default().to_owned();
            let last = |name: &str| name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag.to_owned());
            let (short, full) = (name("org.opencontainers.image.ref.name"), name("io.containerd.image.name"));
            short == tag || last(&short).as_deref() == Some(tag) || last(&full).as_deref() == Some(tag)
        };
        let chosen = match (tag, digest) {
            // What is in the layout may be named by an index of it, and not by its own.
            (_, Some(digest)) => {
                let known = all.iter().find(|entry| entry["digest"] == digest).cloned();
                known.map_or_else(|| described(dir, digest), Ok)?
            }
            (Some(tag), None) => all
                .iter()
                .find(|entry| is_called(entry, tag))
                .cloned()
                .ok_or_else(|| wrong(format!("no image in it is called {tag}")))?,
            (None, None) => match all {
                [one] => one.clone(),
                [] => return Err(wrong("no image is in it")),
                some => match some.iter().find(|entry| is_called(entry, "latest")) {
                    Some(latest) => latest.clone(),
                    None => {
                        return Err(wrong("several images are in it, and none is called latest: say which, as :TAG or @DIGEST"));
                    }
                },
            },
        };
        let bare = json!({"mediaType": chosen["mediaType"], "digest": chosen["digest"], "size": chosen["size"]});
        let index = json!({"schemaVersion": 2, "manifests": [bare]}).to_string().into_bytes();
        let blobs = named(dir, &index)?;
        Ok(Self { dir: dir.to_owned(), index, blobs })
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes it as an archive. What it names and has not is left out: it may be of other platforms.
    pub(super) fn pack(&self, archive: &mut tar::Builder<impl Write>) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(self.index.len() as u64);
        archive.append_data(&mut header, INDEX, self.index.as_slice())?;
        for hex in &self.blobs {
            let path = blob(&self.dir, hex);
            if path.is_file() {
                archive.append_path_with_name(path, format!("blobs/sha256/{hex}"))?;
            }
        }
        Ok(())
    }
}

fn described(dir: &Path, digest: &str) -> io::Result<Value> {
    let hex = hex_of(digest).ok_or_else(|| wrong(format!("{digest}: not sha256:HEX")))?;
    let bytes = read(&blob(dir, hex)).map_err(|e| io::Error::new(e.kind(), format!("{digest}: {e}")))?;
    let document: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("{digest}: {e}")))?;
    Ok(json!({"mediaType": document["mediaType"], "digest": digest, "size": bytes.len()}))
}

/// Removes blobs that the layout's index does not name and that nobody has written since.
pub(super) fn sweep(dir: &Path, since: SystemTime) -> io::Result<()> {
    let needed = named(dir, &read(&dir.join(INDEX))?)?;
    for entry in fs::read_dir(dir.join("blobs/sha256"))? {
        let entry = entry?;
        let name = entry.file_name();
        let hex = name.to_str().filter(|name| hex_of(&format!("sha256:{name}")).is_some());
        let Some(hex) = hex.filter(|hex| !needed.contains(*hex)) else { continue };
        let old = entry.metadata().is_ok_and(|facts| facts.is_file() && changed(&facts) < since);
        if old {
            fs::remove_file(blob(dir, hex))?;
        }
    }
    Ok(())
}

/// The time that the kernel notes, whatever a file says of itself.
fn changed(facts: &fs::Metadata) -> SystemTime {
    use std::os::unix::fs::MetadataExt as _;
    let (seconds, nanoseconds) =
        (u64::try_from(facts.ctime()).unwrap_or_default(), u32::try_from(facts.ctime_nsec()).unwrap_or_default());
    SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanoseconds)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT {
        return Err(wrong(format!("{}: larger than 4 MiB", path.display())));
    }
    Ok(bytes)
}

fn blob(dir: &Path, hex: &str) -> PathBuf {
    dir.join("blobs/sha256").join(hex)
}

/// Nothing but a digest becomes a name of a file.
fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))).then_some(hex)
}

/// Everything that an index names, directly or not.
fn named(dir: &Path, index: &[u8]) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut todo = vec![(index.to_vec(), 0)];
    while let Some((bytes, depth)) = todo.pop() {
        let document: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("{INDEX} or what it names: {e}")))?;
        let several = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        found.extend(digests(&[document["config"].clone()]).chain(digests(&several("layers"))));
        let manifests = several("manifests");
        for hex in digests(&manifests).collect::<Vec<_>>() {
            let path = blob(dir, &hex);
            if found.insert(hex) && depth < DEEPEST && path.is_file() {
                todo.push((read(&path)?, depth + 1));
            }
        }
        if found.len() > MOST {
            return Err(wrong(format!("more than {MOST} blobs")));
        }
    }
    Ok(found)
}

fn digests(descriptors: &[Value]) -> impl Iterator<Item = String> {
    descriptors.iter().filter_map(|one| one["digest"].as_str().and_then(hex_of)).map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A layout with two images; answers the digests of their manifests.
    fn layout(dir: &Path) -> [String; 2] {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let put = |n: u8, bytes: &str| {
            let hex = format!("{n:02x}").repeat(32);
            fs::write(blob(dir, &hex), bytes).unwrap();
            format!("sha256:{hex}")
        };
        let (config, layer) = (put(1, "{}"), put(2, "layer"));
        let manifest =
            |n| put(n, &json!({"mediaType": "m", "config": {"digest": config}, "layers": [{"digest": layer}]}).to_string());
        let found = [manifest(3), manifest(4)];
        let entry = |digest: &str, tag: &str| json!({"digest": digest, "annotations": {"org.opencontainers.image.ref.name": tag}});
        let index = json!({"manifests": [entry(&found[0], "a"), entry(&found[1], "example.org/x:b")]});
        fs::write(dir.join(INDEX), index.to_string()).unwrap();
        found
    }

    #[test]
    fn images_are_found_by_tag_and_digest() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = layout(dir.path());
        for (tag, digest, wanted) in [(Some("a"), None, &a), (Some("b"), None, &b), (None, Some(b.as_str()), &b)] {
            let one = Layout::one(dir.path(), tag, digest).unwrap();
            let index: Value = serde_json::from_slice(&one.index).unwrap();
            assert_eq!((index["manifests"][0]["digest"].as_str(), one.blobs.len()), (Some(wanted.as_str()), 3));
        }
        let told = |tag, digest| Layout::one(dir.path(), tag, digest).unwrap_err().to_string();
        assert!(told(Some("c"), None).contains("no image in it is called c"));
        assert!(told(None, None).contains("several images"));
        assert!(told(None, Some("sha256:../../x")).contains("not sha256:HEX"));
        assert!(Layout::whole(dir.path()).unwrap().blobs.len() == 4);
    }

    #[test]
    fn what_nothing_names_goes_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path());
        let stale = "ff".repeat(32);
        fs::write(blob(dir.path(), &stale), "old").unwrap();
        fs::write(blob(dir.path(), "README"), "somebody's").unwrap();
        let count = || fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count();
        sweep(dir.path(), SystemTime::now() - Duration::from_secs(3600)).unwrap();
        assert_eq!(count(), 6, "it may be another build's");
        sweep(dir.path(), SystemTime::now() + Duration::from_secs(3600)).unwrap();
        assert!(count() == 5 && !blob(dir.path(), &stale).exists());
        fs::write(dir.path().join(INDEX), "nonsense").unwrap();
        assert!(sweep(dir.path(), SystemTime::now()).is_err() && count() == 5, "nothing goes if the index cannot be read");
    }
}
