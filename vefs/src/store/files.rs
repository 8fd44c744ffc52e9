//! Small files of a store, read whole and written whole.

use std::io::IoSlice;

use crate::error::{Error, Result};
use crate::storage::Storage;

/// Reads a small file of a known length, as [`read_small`]; `None` when there is none.
pub(crate) fn read_whole(storage: &dyn Storage, path: &str, len: usize) -> Result<Option<Vec<u8>>> {
    match storage.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        file => file.and_then(|f| read_small(&*f, len)).map(Some).map_err(Error::io("reading", path)),
    }
}

/// Reads a file of a known length; a longer or shorter one gives what there is, for the parser to refuse.
pub(crate) fn read_small(file: &dyn crate::storage::File, len: usize) -> std::io::Result<Vec<u8>> {
    let have = file.len()?.min(len as u64 + 1);
    let mut bytes = vec![0; have as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Writes a small file whole: beside its place, flushed, renamed, the name flushed.
pub(crate) fn write_whole(storage: &dyn Storage, path: &str, bytes: &[u8]) -> Result<()> {
    let temporary = format!("{path}.new");
    let dir = path.rsplit_once('/').map_or("", |(d, _)| d);
    let write = || {
        let file = storage.create(&temporary, 0)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        file.sync()?;
        storage.rename(&temporary, path)?;
        storage.sync_dir(dir)?;
        // The folder itself may be new.
        if let Some((parent, _)) = dir.rsplit_once('/') {
            storage.sync_dir(parent)?;
        }
        Ok(())
    };
    write().map_err(Error::io("writing", path.to_owned()))
}
