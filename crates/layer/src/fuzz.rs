//! The entry point for fuzzing: any bytes, no I/O.

use crate::{Applied, Error, Limits, apply};

/// Reads `data` as a plain tar into memory only, with small limits, and lays out the image that it would become.
/// Must neither panic nor use memory beyond the limits.
///
/// # Errors
/// [`Error`], as [`crate::apply()`] would give it.
pub fn fuzz_tar(data: &[u8]) -> Result<Applied, Error> {
    let limits =
        Limits { unpacked: 1 << 34, entries: 10_000, metadata: 8 << 20, link_steps: 100_000, pax: 1 << 16, ..Limits::default() };
    let (tree, applied) = apply::parse(data, &limits)?;
    crate::erofs::lay_out(&tree, applied.tar_size)?;
    Ok(applied)
}
