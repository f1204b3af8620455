//! What a format does while an archive is being read. What it does at the end is its own business.

use crate::{
    Error,
    tree::{Id, Tree},
};

/// A dentry: `id` under `name` in the directory `dir`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dentry<'n> {
    pub(crate) dir: Id,
    pub(crate) name: &'n [u8],
    pub(crate) id: Id,
}

/// Hears of changes that cannot wait until the end: file data as it passes, and names that come or go around it.
pub(crate) trait Sink {
    /// A regular file was put at `at`; its data follows.
    fn begin(&mut self, _tree: &Tree, _at: Dentry<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Bytes of the file that was begun, at `offset` in the file.
    fn write(&mut self, _offset: u64, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    /// The file that was begun is complete.
    fn end(&mut self, _tree: &Tree, _id: Id) -> Result<(), Error> {
        Ok(())
    }

    /// `to` becomes another name of what is at `from`.
    fn link(&mut self, _tree: &Tree, _from: Dentry<'_>, _to: Dentry<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The name is about to go away. Directories are empty by then.
    fn unlink(&mut self, _tree: &Tree, _at: Dentry<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Keeps nothing but the tree: for EROFS, whose data is the archive itself, and for fuzzing.
#[derive(Debug)]
pub(crate) struct TreeOnly;

impl Sink for TreeOnly {}
