//! A layer as the archive that it was made from: out of its image, or packed again out of its directory.

use std::{
    fs::File,
    io::{self, PipeReader, Read},
    os::fd::AsFd as _,
    thread::JoinHandle,
};

use model::DiffId;
use store::LayerKind;

use super::{Shared, save::Unsavable};

/// Bytes between packing and whoever reads.
const BUFFER: usize = 256 << 10;

/// The archive of a layer. Only [`LayerTar::verify`] tells that what was read is that.
#[derive(Debug)]
pub(super) enum LayerTar {
    Image(layer::TarReader),
    Directory(Packing),
}

/// A directory that is packed in a thread of its own.
#[derive(Debug)]
pub(super) struct Packing {
    id: DiffId,
    pipe: PipeReader,
    packing: JoinHandle<Result<layer::Diffed, layer::Error>>,
}

impl Shared {
    /// The archive that a layer was made from, and its size.
    pub(super) fn layer_tar(&self, id: &DiffId) -> Result<(LayerTar, u64), Unsavable> {
        let info = self.store.layer(id).ok_or(Unsavable::Gone(*id))?;
        let file = File::open(&info.path).map_err(|e| Unsavable::Open(*id, e))?;
        let tar = match info.kind {
            LayerKind::Directory => LayerTar::Directory(Packing::of(*id, file)?),
            LayerKind::Erofs => {
                let reader = layer::tar_reader(file).map_err(|e| Unsavable::Layer(*id, Box::new(e)))?;
                LayerTar::Image(reader)
            }
        };
        Ok((tar, info.tar_size))
    }
}

impl Packing {
    fn of(id: DiffId, directory: File) -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        let packing = std::thread::Builder::new().name("pack".to_owned()).spawn(move || {
            let writer = io::BufWriter::with_capacity(BUFFER, writer);
            layer::diff(directory.as_fd(), writer, &layer::Limits::default())
        })?;
        Ok(Self { id, pipe, packing })
    }
}

impl LayerTar {
    /// Whether what was read, or rather what there is to read, is the layer's archive. Blocks.
    ///
    /// # Errors
    /// [`Unsavable::Directory`] if the directory was made from an archive that packing does not make again.
    pub(super) fn verify(self) -> Result<(), Unsavable> {
        // An image is its archive: what is wrong with it was known when it was made.
        let Self::Directory(Packing { id, mut pipe, packing }) = self else { return Ok(()) };
        io::copy(&mut pipe, &mut io::sink())?;
        let packed = packing.join().map_err(|_| io::Error::other("packing crashed; see the log"))?;
        let packed = packed.map_err(|e| Unsavable::Layer(id, Box::new(e)))?;
        if packed.diff_id == id { Ok(()) } else { Err(Unsavable::Directory(Box::new(id), Box::new(packed.diff_id))) }
    }
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Image(reader) => reader.read(buffer),
            Self::Directory(packing) => packing.pipe.read(buffer),
        }
    }
}
