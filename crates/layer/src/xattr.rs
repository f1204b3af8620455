//! Which extended attributes of an image reach the file system.

use std::collections::BTreeMap;

use crate::{Limits, Refusal, error::shown};

/// Names with their values, sorted.
pub(crate) type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What overlayfs reads from the directories of its layers. Only this crate may write it.
pub(crate) const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What the inode is, as far as extended attributes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    File,
    Directory,
    Symlink,
    Special,
}

/// Keeps what an image may set and counts what it may not: `trusted.overlay.*` would steer overlayfs, and `security.*`
/// other than file capabilities belongs to the host's security modules. Attributes that the kernel does not allow on
/// this type of file are left out as well, so that both formats hold the same.
pub(crate) fn admit(found: BTreeMap<Vec<u8>, Vec<u8>>, bearer: Bearer, limits: &Limits) -> Result<(Xattrs, u64), Refusal> {
    let mut kept = Xattrs::new();
    let (mut stripped, mut size) = (0, 0);
    for (name, value) in found {
        if !is_admitted(&name, bearer) {
            stripped += 1;
            continue;
        }
        size += name.len() + value.len();
        // The name's limit is XATTR_NAME_MAX; EROFS stores its length without the prefix in one byte.
        if name.len() > 255 || value.len() > 65_535 || size > limits.xattrs || !is_valid(&name, &value) {
            return Err(Refusal::Xattr(shown(&name)));
        }
        kept.insert(name.into(), value.into());
    }
    Ok((kept, stripped))
}

fn is_admitted(name: &[u8], bearer: Bearer) -> bool {
    match name {
        b"security.capability" => bearer == Bearer::File,
        b"system.posix_acl_access" => bearer != Bearer::Symlink,
        b"system.posix_acl_default" => bearer == Bearer::Directory,
        _ if name.starts_with(b"user.") => matches!(bearer, Bearer::File | Bearer::Directory),
        _ => name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay."),
    }
}

/// What setxattr(2) would refuse is refused here, since nothing checks it when it is written into an image.
fn is_valid(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"user." | b"trusted." => false,
        b"security.capability" => is_capability(value),
        b"system.posix_acl_access" | b"system.posix_acl_default" => is_acl(value),
        _ => true,
    }
}

/// Revision 2 (20 bytes) or 3 (24 bytes, with a root uid); see capabilities(7).
fn is_capability(value: &[u8]) -> bool {
    let Some(magic) = value.first_chunk::<4>() else { return false };
    matches!((u32::from_le_bytes(*magic) & 0xff00_0000, value.len()), (0x0200_0000, 20) | (0x0300_0000, 24))
}

/// Version 2 and entries in the order and number that posix_acl_valid() of the kernel demands.
fn is_acl(value: &[u8]) -> bool {
    let Some((version, entries)) = value.split_first_chunk::<4>() else { return false };
    if u32::from_le_bytes(*version) != 2 || entries.len() % 8 != 0 || entries.is_empty() {
        return false;
    }
    let (mut last_tag, mut needs_mask, mut seen) = (0u16, false, 0u16);
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let named = matches!(tag, 0x02 | 0x08);
        let known = matches!(tag, 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20);
        if !known || permissions & !7 != 0 || tag < last_tag || (tag == last_tag && !named) || (named && id == u32::MAX) {
            return false;
        }
        needs_mask |= named;
        seen |= tag;
        last_tag = tag;
    }
    let required = 0x01 | 0x04 | 0x20 | if needs_mask { 0x10 } else { 0 };
    seen & required == required
}
