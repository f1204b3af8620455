//! The envelope around everything that we write into files of our own: version, length, checksum.
//!
//! `CREL`, one byte version (1), three zero bytes, the payload's length (u32, little endian), the payload, and the
//! first eight bytes of the SHA-256 of all before. A file torn by the loss of power fails one of the checks.

use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 4] = b"CREL";
const VERSION: u8 = 1;
const HEAD: usize = 12;
const TAIL: usize = 8;

/// Why bytes are not an intact envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("shorter than an empty record")]
    Short,
    #[error("not a record of ours")]
    Magic,
    #[error("written by a newer creel (record version {0})")]
    Version(u8),
    #[error("its length is not what it says")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
}

pub(crate) fn seal(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("records and image descriptions are far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD + payload.len() + TAIL);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(payload);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..TAIL]);
    bytes
}

pub(crate) fn open(bytes: &[u8]) -> Result<&[u8], Broken> {
    let Some((body, sum)) = bytes.split_last_chunk::<TAIL>() else { return Err(Broken::Short) };
    let Some((head, payload)) = body.split_first_chunk::<HEAD>() else { return Err(Broken::Short) };
    let [m0, m1, m2, m3, version, _, _, _, l0, l1, l2, l3] = *head;
    if [m0, m1, m2, m3] != *MAGIC {
        return Err(Broken::Magic);
    }
    if version != VERSION {
        return Err(Broken::Version(version));
    }
    if u64::from(u32::from_le_bytes([l0, l1, l2, l3])) != payload.len() as u64 {
        return Err(Broken::Length);
    }
    if Sha256::digest(body)[..TAIL] != *sum {
        return Err(Broken::Checksum);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_for_ever() {
        let hex: String = seal(b"pod").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "4352454c0100000003000000706f64f00952ddb03dca46");
        assert_eq!(open(&seal(b"pod")), Ok(&b"pod"[..]));
        assert_eq!(open(&seal(b"")), Ok(&b""[..]));
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = seal(b"some payload");
        for cut in 0..good.len() {
            assert!(open(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(open(&bad).is_err(), "bit of byte {at}");
        }
        let mut newer = good;
        newer[4] = 2;
        assert_eq!(open(&newer), Err(Broken::Version(2)));
    }
}
