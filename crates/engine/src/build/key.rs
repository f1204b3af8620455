//! Keys of the cache: the digest of everything that goes into a step (R60). Files count by what they are, not by when they were
//! written.

use std::io::{self, Read};

use model::{DiffId, StepId};
use sha2::{Digest as _, Sha256};

/// Changes whenever steps are carried out differently: what older ones have made is not found any more.
const VERSION: &[u8] = b"creel build 2";

/// A digest that grows. Every part is told with its length, so that no two lists of parts are the same bytes.
#[derive(Clone)]
pub(super) struct Key(Sha256);

impl Key {
    /// Of a step of this kind on these layers.
    pub(super) fn new(kind: &str, layers: &[DiffId]) -> Self {
        Self(Sha256::new()).part(VERSION).part(kind).part(std::env::consts::ARCH).list(layers.iter().map(ToString::to_string))
    }

    pub(super) fn part(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(super) fn list<T: AsRef<[u8]>>(self, parts: impl IntoIterator<Item = T>) -> Self {
        let parts: Vec<T> = parts.into_iter().collect();
        let counted = self.part((parts.len() as u64).to_le_bytes());
        parts.iter().fold(counted, |key, part| key.part(part))
    }

    pub(super) fn id(self) -> StepId {
        StepId::from_bytes(self.0.finalize().into())
    }

    fn bytes(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Whether owners of files count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    Counts,
    Ignored,
}

/// The digest of an archive's entries, without their times.
pub(super) fn of_archive(archive: impl Read, ownership: Ownership) -> io::Result<[u8; 32]> {
    let mut archive = tar::Archive::new(archive);
    let mut key = Key(Sha256::new());
    let mut buffer = vec![0; 64 << 10];
    for entry in archive.entries()? {
        let mut entry = entry?;
        let extended: Vec<(String, Vec<u8>)> = match entry.pax_extensions()? {
            None => Vec::new(),
            Some(pairs) => {
                let pair = |pair: io::Result<tar::PaxExtension<'_>>| {
                    pair.map(|pair| (String::from_utf8_lossy(pair.key_bytes()).into_owned(), pair.value_bytes().to_vec()))
                };
                pairs.map(pair).collect::<io::Result<_>>()?
            }
        };
        let attributes = extended.into_iter().filter(|(name, _)| name.starts_with("SCHILY.xattr."));
        let attributes = attributes.flat_map(|(name, value)| [name.into_bytes(), value]).collect::<Vec<_>>();
        let header = entry.header();
        let numbers = [
            u64::from(header.mode()? & 0o7777),
            u64::from(header.entry_type().as_byte()),
            u64::from(header.device_major().ok().flatten().unwrap_or_default()),
            u64::from(header.device_minor().ok().flatten().unwrap_or_default()),
            if ownership == Ownership::Counts { header.uid()? } else { 0 },
            if ownership == Ownership::Counts { header.gid()? } else { 0 },
        ];
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let path = entry.path_bytes().into_owned();
        let mut content = Sha256::new();
        loop {
            match entry.read(&mut buffer)? {
                0 => break,
                read => content.update(&buffer[..read]),
            }
        }
        key = key.part(path).list(numbers.map(u64::to_le_bytes)).part(link).list(attributes).part(content.finalize());
    }
    Ok(key.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, content: &[u8], change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        change(&mut header);
        builder.append_data(&mut header, name, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn times_do_not_count_and_all_else_does() {
        let of = |bytes: Vec<u8>| of_archive(&bytes[..], Ownership::Counts).unwrap();
        let first = of(archive("a", b"x", |_| {}));
        assert_eq!(of(archive("a", b"x", |header| header.set_mtime(99))), first);
        for other in [
            archive("b", b"x", |_| {}),
            archive("a", b"y", |_| {}),
            archive("a", b"x", |header| header.set_mode(0o755)),
            archive("a", b"x", |header| header.set_uid(7)),
        ] {
            assert_ne!(of(other), first);
        }
        let unowned = archive("a", b"x", |header| header.set_uid(7));
        assert_eq!(of_archive(&unowned[..], Ownership::Ignored).unwrap(), first);
    }

    #[test]
    fn lists_are_not_texts() {
        let key = |parts: &[&str]| Key::new("RUN", &[]).list(parts).id();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(Key::new("RUN", &[]).list(["a"]).list(["b"; 0]).id(), Key::new("RUN", &[]).list(["b"; 0]).list(["a"]).id());
        assert_ne!(Key::new("RUN", &[]).id(), Key::new("COPY", &[]).id());
    }
}
