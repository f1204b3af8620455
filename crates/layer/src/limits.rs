//! How much a layer may be.

/// Bounds on a layer; each is checked before memory or disk is spent on what would exceed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed archive, and separately bytes of all files together with their holes.
    pub unpacked: u64,
    /// Entries of the archive and directories that it implies.
    pub entries: u64,
    /// Bytes of one path, as written and with the layer's own symlinks resolved. The kernel's limit is 4095.
    pub path: usize,
    /// Bytes of one symlink target. The kernel's limit is 4095.
    pub link_target: usize,
    /// Bytes of the names and values of one entry's extended attributes.
    pub xattrs: usize,
    /// Bytes of one PAX header.
    pub pax: u64,
    /// Bytes of names, link targets, extended attributes and sparse maps of the whole layer, which are held in memory.
    pub metadata: u64,
    /// Steps through symlinked parents in the whole layer.
    pub link_steps: u64,
    /// Uncompressed bytes per compressed byte, looked at beyond [`Limits::ratio_from`].
    pub ratio: u64,
    /// Uncompressed bytes up to which any ratio is fine.
    pub ratio_from: u64,
    /// log2 of the largest zstd window or xz dictionary in bytes.
    pub window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked: 64 << 30,
            entries: 2_000_000,
            path: 4095,
            link_target: 4095,
            xattrs: 64 << 10,
            pax: 1 << 20,
            metadata: 256 << 20,
            link_steps: 64 << 20,
            ratio: 1000,
            ratio_from: 64 << 20,
            window_log: 27,
        }
    }
}
