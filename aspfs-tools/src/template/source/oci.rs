//! placeholder
use super::{Options, Out, Result};
use std::fs::File;
use std::path::Path;
pub(super) struct Blobs;
impl Blobs {
    pub fn folder(_: &Path) -> Blobs {
        Blobs
    }
    pub fn archive(_: &Path, _: &File) -> Result<Option<Blobs>> {
        Ok(None)
    }
}
pub(super) fn is_layout(_: &Path) -> bool {
    false
}
pub(super) fn read(_: Blobs, _: &Options, _: &mut Out<'_>) -> Result<()> {
    Ok(())
}
