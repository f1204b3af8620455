//! On-disk structures. All numbers are little-endian; offsets are in the comments where they are not obvious.

use crate::xattr::{OVERLAY_OPAQUE, Xattrs};

/// Both the unit of addresses and the unit of tar.
pub(super) const BLOCK: u64 = 512;
pub(super) const BLOCK_BITS: u8 = 9;
/// Where the archive starts: a page, so that its own alignment is kept for copies that share extents.
pub(super) const TAR_OFFSET: u64 = 4096;
/// The unit of inode numbers.
pub(super) const SLOT: u64 = 32;
/// Every inode is of the extended form, which alone has 32-bit owners and a time of its own.
pub(super) const INODE_SIZE: u64 = 64;
/// The length of a directory entry without its name.
pub(super) const DIRENT_SIZE: usize = 12;
/// A hole in a chunk map.
pub(super) const HOLE: u32 = u32::MAX;

const SUPER_OFFSET: usize = 1024;
const SUPER_MAGIC: u32 = 0xe0f5_e1e2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const EXTENDED: u16 = 1;

/// The types of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    Char = 3,
    Block = 4,
    Fifo = 5,
    Symlink = 7,
}

/// How an inode's data is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Contiguous from this block on.
    Flat(u32),
    /// Right behind the inode and its extended attributes, within one block.
    Inline,
    /// A map of chunks of `512 << bits` bytes behind the inode.
    Chunks(u8),
    /// None; a device number instead.
    Device(u32),
}

/// What an inode says.
#[derive(Debug)]
pub(super) struct RawInode {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) xattr_count: u16,
    pub(super) size: u64,
    pub(super) data: Data,
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    pub(super) links: u32,
}

impl RawInode {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (layout, union) = match self.data {
            Data::Flat(block) => (0u16, block),
            Data::Inline => (2, 0),
            Data::Chunks(bits) => (4, u32::from(bits)),
            Data::Device(number) => (0, number),
        };
        out.extend_from_slice(&(EXTENDED | layout << 1).to_le_bytes());
        out.extend_from_slice(&self.xattr_count.to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.size.to_le_bytes());
        for number in [union, self.number, self.uid, self.gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.seconds.to_le_bytes());
        out.extend_from_slice(&self.nanos.to_le_bytes());
        out.extend_from_slice(&self.links.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
    }
}

/// A device number as Linux encodes it for disks and user space (new_encode_dev).
pub(super) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inline extended attributes of an inode: empty, or a header and the entries. The second is i_xattr_icount.
pub(super) fn encode_xattrs(xattrs: &Xattrs, opaque: bool) -> (Vec<u8>, u16) {
    if xattrs.is_empty() && !opaque {
        return (Vec::new(), 0);
    }
    let mut out = vec![0; 12];
    if opaque {
        encode_xattr(OVERLAY_OPAQUE, b"y", &mut out);
    }
    for (name, value) in xattrs {
        encode_xattr(name, value, &mut out);
    }
    let count = 1 + (out.len() - 12) / 4;
    (out, u16::try_from(count).expect("an entry's attributes are limited to 64 KiB, a quarter of what fits"))
}

fn encode_xattr(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    const PREFIXES: [(&[u8], u8); 5] =
        [(b"user.", 1), (b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3), (b"trusted.", 4), (b"security.", 6)];
    let found = PREFIXES.iter().find_map(|(prefix, index)| Some((name.strip_prefix(*prefix)?, *index)));
    let Some((rest, index)) = found else { return };
    out.push(u8::try_from(rest.len()).expect("names are limited to 255 bytes"));
    out.push(index);
    out.extend_from_slice(&u16::try_from(value.len()).expect("values are limited to 65535 bytes").to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// What the superblock says.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) root_slot: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) chunked: bool,
}

impl Superblock {
    /// Writes it to its place in the file's first page.
    pub(super) fn encode(&self, page: &mut [u8]) {
        let mut put = |offset: usize, bytes: &[u8]| {
            page[SUPER_OFFSET + offset..SUPER_OFFSET + offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0x00, &SUPER_MAGIC.to_le_bytes());
        put(0x0c, &[BLOCK_BITS]);
        put(0x0e, &self.root_slot.to_le_bytes());
        put(0x10, &self.inodes.to_le_bytes());
        put(0x24, &self.blocks.to_le_bytes());
        put(0x28, &self.meta_block.to_le_bytes());
        put(0x40, b"creel layer");
        put(0x50, &if self.chunked { INCOMPAT_CHUNKED_FILE } else { 0 }.to_le_bytes());
    }
}
