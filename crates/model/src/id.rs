//! 256-bit identifiers of pods, containers and execs.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

/// Why a string is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id (64 lower-case hexadecimal digits): {0:?}")]
pub struct IdError(pub String);

/// Parses exactly `N` bytes of lower-case hexadecimal.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

        impl $name {
            /// An id out of 32 random bytes; the caller brings the randomness.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 12 digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self).ok_or_else(|| IdError(text.chars().take(80).collect()))
            }
        }
    };
}

id!(/// A pod (CRI: pod sandbox).
    PodId);
id!(/// A container.
    ContainerId);
id!(/// A process run in a container beside its main one.
    ExecId);
id!(/// A network of people's containers.
    NetworkId);
id!(/// A step of a build: the digest of everything that goes into it.
    StepId);
id!(/// A build that was asked for.
    BuildId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_reject_anything_else() {
        let id = PodId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse::<PodId>().unwrap(), id);
        assert_eq!(format!("{id:?}"), "PodId(abababababab)");
        for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"ab".repeat(33), "../../../../etc/passwd"] {
            assert!(bad.parse::<PodId>().is_err(), "{bad}");
        }
        let bytes = minicbor::to_vec(id).unwrap();
        assert_eq!(bytes.len(), 34);
        assert_eq!(minicbor::decode::<PodId>(&bytes).unwrap(), id);
    }
}
