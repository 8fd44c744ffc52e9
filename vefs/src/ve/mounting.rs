//! What a mount asks of a VE besides reading and operations.

use super::{Snapshot, Ve};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ids::{Hash, InodeNo};
use crate::state::key::Key;
use crate::state::view::{self, View};
use crate::types::Source;

impl Ve {
    /// The time that an operation which says "now" means.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.wall()
    }

    /// `CLOCK_BOOTTIME`, as everything that has an age here is timed.
    pub fn boot_time(&self) -> std::time::Duration {
        self.shared.clock.boot()
    }

    /// Whether an inode has no name and waits for its last user.
    pub fn is_orphan(&self, ino: InodeNo) -> Result<bool> {
        self.with_view(|v| Ok(v.get(&Key::orphan(ino))?.is_some()))
    }

    /// The object that is the whole content of a regular file, from its first byte to its last, if there is one.
    pub fn whole_object(&self, ino: InodeNo) -> Result<Option<Hash>> {
        let found = self.with_view(|v| only_object(v, ino))?;
        self.whole(found)
    }

    /// A file may be the beginning of something longer, such as a pack.
    fn whole(&self, found: Option<(Hash, u64)>) -> Result<Option<Hash>> {
        let Some((hash, size)) = found else { return Ok(None) };
        Ok((self.shared.objects.open(hash)?.len() == size).then_some(hash))
    }

    /// Bytes that the node's file system has for ordinary writers.
    pub fn node_free_bytes(&self) -> Result<u64> {
        let free = self.shared.storage.free_bytes().map_err(Error::io("reading free space", "store"))?;
        Ok(free.saturating_sub(self.shared.options.reserve))
    }
}

impl Snapshot {
    /// The object that is the whole content of a regular file in this version, if there is one.
    pub fn whole_object(&self, ino: InodeNo) -> Result<Option<Hash>> {
        self.ve().whole(only_object(self.view(), ino)?)
    }
}

/// The object that a regular file of this size begins, where nothing else is in it.
fn only_object(v: &impl View, ino: InodeNo) -> Result<Option<(Hash, u64)>> {
    let inode = view::need_inode(v, ino)?;
    if !inode.is_file() || inode.size == 0 {
        return Ok(None);
    }
    let (runs, _) = view::some_extents(v, ino, &inode, (0, u64::MAX), 2)?;
    Ok(match runs.as_slice() {
        [(0, e)] if e.len == inode.size => match e.source {
            Source::Base { hash, offset: 0 } | Source::Object { hash, offset: 0 } => Some((hash, inode.size)),
            _ => None,
        },
        _ => None,
    })
}
