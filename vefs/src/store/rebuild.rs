//! Metadata made anew from the newest checkpoint, on disk: what RocksDB opens afterwards. The journals do the rest (promise G32).

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The checkpoint of the highest number.
pub(super) fn newest_checkpoint(dir: &Path) -> Result<Option<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(io("listing", dir))?,
    };
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in entries {
        let entry = entry.map_err(io("listing", dir))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        let Some(number) = number.filter(|n| entry.path().is_dir() && newest.as_ref().is_none_or(|(m, _)| n > m))
        else {
            continue;
        };
        newest = Some((number, entry.path()));
    }
    Ok(newest)
}

/// Where the metadata are that a rebuild replaced, until the next one.
const REPLACED: &str = "meta.replaced";

/// Replaces a store's metadata by the newest checkpoint's, or by nothing when there is none. The former ones stay beside it: who looks for damage may want
/// them. At each moment of this the one or the other are whole in their place.
pub(super) fn reset_meta(root: &Path) -> Result<()> {
    let (meta, fresh, replaced) = (root.join("meta"), root.join("meta.new"), root.join(REPLACED));
    for remainder in [&fresh, &replaced] {
        match std::fs::remove_dir_all(remainder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("removing", remainder)(e)),
            _ => {}
        }
    }
    std::fs::create_dir(&fresh).map_err(io("creating", &fresh))?;
    if let Some((_, newest)) = newest_checkpoint(&root.join("checkpoints"))? {
        for entry in std::fs::read_dir(&newest).map_err(io("reading checkpoint", &newest))? {
            let entry = entry.map_err(io("reading checkpoint", &newest))?;
            let to = fresh.join(entry.file_name());
            // A copy, not a link: RocksDB appends to some of its files.
            std::fs::copy(entry.path(), &to).map_err(io("copying checkpoint", &entry.path()))?;
            flush(&to)?;
        }
    }
    flush(&fresh)?;
    if meta.exists() {
        rustix::fs::renameat_with(rustix::fs::CWD, &fresh, rustix::fs::CWD, &meta, rustix::fs::RenameFlags::EXCHANGE)
            .map_err(|e| io("exchanging", &meta)(e.into()))?;
        std::fs::rename(&fresh, &replaced).map_err(io("renaming", &fresh))?;
    } else {
        std::fs::rename(&fresh, &meta).map_err(io("renaming", &fresh))?;
    }
    flush(root)
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(what, path.display().to_string())
}

/// Flushes a file or folder.
pub(super) fn flush(path: &Path) -> Result<()> {
    std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(io("flushing", path))
}
