//! The rows of the database. Field numbers are for ever.

use minicbor::{Decode, Encode};
use model::{DiffId, Digest, ImageId, container::ImageDefaults};

/// What is kept of an image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ImageRecord {
    /// Its id: the digest of its config.
    #[n(0)]
    pub id: ImageId,
    /// Its layers, lowest first.
    #[n(1)]
    pub layers: Vec<DiffId>,
    /// Bytes of its uncompressed layers and its documents.
    #[n(2)]
    pub size: u64,
    /// When it was made, as its config says (RFC 3339); may be empty.
    #[n(3)]
    pub created: String,
    /// Operating system, as its config says.
    #[n(4)]
    pub os: String,
    /// Architecture, as its config says.
    #[n(5)]
    pub architecture: String,
    /// Variant of the architecture; may be empty.
    #[n(6)]
    pub variant: String,
    /// What containers take from it.
    #[n(7)]
    pub defaults: ImageDefaults,
    /// When it came here first, nanoseconds since 1970.
    #[n(8)]
    pub pulled_at: i64,
}

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LayerKind {
    /// One EROFS image file.
    #[n(0)]
    Erofs,
    /// A directory for overlay.
    #[n(1)]
    Directory,
}

/// How the bytes of a blob are a layer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Packing {
    /// They are its tar.
    #[n(0)]
    Plain,
    /// gzip
    #[n(1)]
    Gzip,
    /// zstd
    #[n(2)]
    Zstd,
}

/// A blob that contains exactly one layer. It is not here: registries have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Form {
    /// Its digest.
    #[n(0)]
    pub digest: Digest,
    /// Its bytes.
    #[n(1)]
    pub size: u64,
    /// What they are.
    #[n(2)]
    pub packing: Packing,
}

/// A document (config, manifest, index) that an image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Stored {
    #[n(0)]
    pub(crate) digest: Digest,
    #[n(1)]
    pub(crate) size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ImageRow {
    #[n(0)]
    pub(crate) record: ImageRecord,
    #[n(1)]
    pub(crate) documents: Vec<Stored>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NameRow {
    #[n(0)]
    pub(crate) image: ImageId,
    /// The document that the name stood for at its registry.
    #[n(1)]
    pub(crate) target: Option<Digest>,
    /// Grows with every change of any name: says which of two claims is newer when the database is rebuilt.
    #[n(2)]
    pub(crate) sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LayerRow {
    #[n(0)]
    pub(crate) kind: LayerKind,
    /// Bytes of the uncompressed tar.
    #[n(1)]
    pub(crate) tar_size: u64,
    /// Bytes on disk.
    #[n(2)]
    pub(crate) bytes: u64,
    /// Inodes on disk.
    #[n(3)]
    pub(crate) inodes: u64,
    /// Compressed blobs that were seen to contain exactly this layer.
    #[n(4)]
    pub(crate) blobs: Vec<Digest>,
    /// Some of them, those that were pulled or pushed last at the end.
    #[n(5)]
    #[cbor(default)]
    pub(crate) forms: Vec<Form>,
}

pub(crate) fn encode<T: Encode<()>>(row: &T) -> Vec<u8> {
    minicbor::to_vec(row).expect("writing into memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<T: Encode<()>>(row: &T) -> String {
        encode(row).iter().map(|b| format!("{b:02x}")).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Rows of today must be read by every later version.
    #[test]
    fn the_bytes_of_rows_are_for_ever() {
        let digest = Digest::Sha256([0xab; 32]);
        let shown = format!("8200815820{}", "ab".repeat(32));
        let form = Form { digest, size: 4, packing: Packing::Gzip };
        let layer =
            LayerRow { kind: LayerKind::Directory, tar_size: 1, bytes: 2, inodes: 3, blobs: vec![digest], forms: vec![form] };
        assert_eq!(hex(&layer), format!("8682018001020381{shown}8183{shown}04820180"));
        // Before forms were kept.
        let before = format!("8582018001020381{shown}");
        assert_eq!(minicbor::decode::<LayerRow>(&bytes(&before)).unwrap(), LayerRow { forms: Vec::new(), ..layer });
        let name = NameRow { image: ImageId::new(digest), target: Some(digest), sequence: 9 };
        assert_eq!(hex(&name), format!("83{shown}{shown}09"));
        let record = ImageRecord {
            id: ImageId::new(digest),
            layers: vec![DiffId::new(digest)],
            size: 7,
            created: "c".into(),
            os: "o".into(),
            architecture: "a".into(),
            variant: String::new(),
            defaults: ImageDefaults { user: "u".into(), ..ImageDefaults::default() },
            pulled_at: -1,
        };
        let row = ImageRow { record, documents: vec![Stored { digest, size: 5 }] };
        let text = |defaults: &str| format!("8289{shown}81{shown}076163616f616160{defaults}208182{shown}05");
        assert_eq!(hex(&row), text("8b8080806175606080a080f680"));
        assert_eq!(minicbor::decode::<ImageRow>(&encode(&row)).unwrap(), row);
        // Before ports were kept, and before health checks and shells were.
        for before in [text("888080806175606080a0"), text("898080806175606080a080")] {
            assert_eq!(minicbor::decode::<ImageRow>(&bytes(&before)).unwrap(), row);
        }
    }
}
