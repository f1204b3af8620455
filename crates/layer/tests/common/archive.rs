//! A tar writer without any manners.

/// One header block and its data, before the checksum.
#[derive(Clone)]
pub struct Entry {
    pub block: [u8; 512],
    pub data: Vec<u8>,
}

#[derive(Clone, Default)]
pub struct Archive {
    pub bytes: Vec<u8>,
}

impl Entry {
    pub fn new(kind: u8, name: &[u8]) -> Self {
        let mut entry = Self { block: [0; 512], data: Vec::new() };
        let n = name.len().min(100);
        entry.block[..n].copy_from_slice(&name[..n]);
        entry.block[156] = kind;
        entry.block[257..265].copy_from_slice(b"ustar\x0000");
        entry.mode(if kind == b'5' { 0o755 } else { 0o644 }).owner(0, 0).mtime(1_700_000_000).size(0)
    }

    pub fn octal(mut self, at: usize, width: usize, value: u64) -> Self {
        let text = format!("{value:0>width$o}", width = width - 1);
        self.block[at..at + text.len()].copy_from_slice(text.as_bytes());
        self
    }

    pub fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }

    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 12, mtime)
    }

    pub fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    pub fn link(mut self, target: &[u8]) -> Self {
        let n = target.len().min(100);
        self.block[157..157 + n].copy_from_slice(&target[..n]);
        self
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self.size(data.len() as u64)
    }

    /// Data with another size in the header.
    pub fn data_of_size(mut self, data: &[u8], size: u64) -> Self {
        self.data = data.to_vec();
        self.size(size)
    }

    pub fn gnu(mut self) -> Self {
        self.block[257..265].copy_from_slice(b"ustar  \0");
        self
    }

    pub fn raw(mut self, at: usize, bytes: &[u8]) -> Self {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = body.len() + 1;
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &body].concat()
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(mut self, mut entry: Entry) -> Self {
        entry.block[148..156].fill(b' ');
        let sum: u32 = entry.block.iter().map(|byte| u32::from(*byte)).sum();
        entry.block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.bytes.extend_from_slice(&entry.block);
        self.bytes.extend_from_slice(&entry.data);
        self.pad()
    }

    pub fn pad(mut self) -> Self {
        let length = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(length, 0);
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.add(Entry::new(b'x', b"PaxHeaders/x").data(&data))
    }

    pub fn dir(self, name: &str) -> Self {
        self.add(Entry::new(b'5', name.as_bytes()))
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.add(Entry::new(b'0', name.as_bytes()).data(data))
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.add(Entry::new(b'2', name.as_bytes()).link(target.as_bytes()))
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(Entry::new(b'1', name.as_bytes()).link(target.as_bytes()))
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}
