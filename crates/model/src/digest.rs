//! Content digests (OCI image spec, descriptor.md#digests) and the ids derived from them.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::id::{parse_hex, write_hex};

/// Why a string is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Neither `sha256` nor `sha512`.
    #[error("digest {0:?}: unsupported algorithm (sha256 and sha512 are known)")]
    Algorithm(String),
    /// Wrong length or characters.
    #[error("digest {0:?}: not ALGORITHM:HEX with lower-case hexadecimal digits of the right number")]
    Form(String),
}

/// A digest that has been checked for form. The only thing of a registry's answer that may become part of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Digest {
    /// SHA-256.
    #[n(0)]
    Sha256(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// SHA-512.
    #[n(1)]
    Sha512(#[cbor(n(0), with = "minicbor::bytes")] [u8; 64]),
}

impl Digest {
    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The hexadecimal part alone.
    pub fn hex(&self) -> String {
        self.to_string().split_off(7)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm())?;
        write_hex(f, self.as_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", &self.to_string()[..19])
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let shown = || text.chars().take(160).collect::<String>();
        let form = || DigestError::Form(shown());
        match text.split_once(':') {
            Some(("sha256", hex)) => parse_hex(hex).map(Self::Sha256).ok_or_else(form),
            Some(("sha512", hex)) => parse_hex(hex).map(Self::Sha512).ok_or_else(form),
            Some(_) => Err(DigestError::Algorithm(shown())),
            None => Err(form()),
        }
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] Digest);

        impl $name {
            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

digest_newtype!(/// The digest of an uncompressed layer tar.
    DiffId);
digest_newtype!(/// Names a stack of layers (OCI image spec, config.md#layer-chainid).
    ChainId);
digest_newtype!(/// The digest of an image's config: the image's id everywhere.
    ImageId);

impl DiffId {
    /// A diff id out of an image config or of a tar that was hashed.
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }
}

impl ImageId {
    /// The id of the image with this config digest.
    pub fn new(config: Digest) -> Self {
        Self(config)
    }
}

impl ChainId {
    /// The chain id of a lowest layer: its diff id.
    pub fn root(diff: DiffId) -> Self {
        Self(diff.0)
    }

    /// What has to be hashed (sha256) for the chain id of `diff` on top of this chain. `model` computes nothing:
    /// the caller hashes and comes back with [`ChainId::from_hash`].
    pub fn child_preimage(&self, diff: DiffId) -> String {
        format!("{} {}", self.0, diff.0)
    }

    /// The chain id whose preimage hashed to `digest`, or one read back from our own records.
    pub fn from_hash(digest: Digest) -> Self {
        Self(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_parse_strictly() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        assert_eq!(good.parse::<Digest>().unwrap().hex(), "0a".repeat(32));
        let long = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:../../x",
            "SHA256:00",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &format!("sha256:{}", "0A".repeat(32)),
            &format!("sha256:{}", "0a".repeat(31)),
            &format!("sha512:{}", "0a".repeat(32)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
