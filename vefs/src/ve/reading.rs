//! Reading a VE: its present state, or a version.

use std::sync::Arc;

use super::holds::Reading;
use super::{State, Ve};
use crate::content::read::{self, Piece};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::ids::{Hash, InodeNo, TxnNo};
use crate::limits;
use crate::meta::{Scan, Table, rows};
use crate::plan;
use crate::state::key::Entry;
use crate::state::root::{StateRoot, logical_root, state_root};
use crate::state::tables::{Tables, stored_place};
use crate::state::version::VersionView;
use crate::state::view::{self, View};
use crate::types::{Dentry, Extent, Inode, Kind};

/// Bytes read at a time.
const STEP: u64 = 1 << 20;

/// Zeros to read into, that are in memory: what holes leave of them is copied to the program by the kernel, and a page that had to be brought in while
/// the daemon is killed would be an EIO there.
fn zeros(len: usize) -> Vec<u8> {
    let mut zeros = Vec::with_capacity(len);
    // Written here, which the compiler must not leave to the allocator: memory that was never touched is zero, too, and is not there.
    zeros.resize(std::hint::black_box(len), 0);
    zeros
}

/// What statfs(2) says of a VE: its quota, so that `df` inside tells the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Charged bytes.
    pub bytes_used: u64,
    /// Most charged bytes.
    pub bytes_limit: u64,
    /// Private inodes.
    pub inodes_used: u64,
    /// Most private inodes.
    pub inodes_limit: u64,
}

impl Ve {
    /// Does something with the present state, under the lock.
    pub fn with_view<T>(&self, f: impl FnOnce(&Tables) -> Result<T>) -> Result<T> {
        f(&self.state.lock().tables)
    }

    /// An inode's attributes; ENOENT.
    pub fn inode(&self, ino: InodeNo) -> Result<Inode> {
        self.with_view(|v| view::need_inode(v, ino))
    }

    /// Looks a name up: the entry and its inode.
    pub fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<(Dentry, Inode)> {
        self.with_view(|v| lookup(v, dir, name))
    }

    /// Up to `max` entries of a directory with cookies greater than `after`; ENOENT, ENOTDIR.
    pub fn entries(&self, dir: InodeNo, after: u64, max: usize) -> Result<Vec<(u64, Entry)>> {
        self.with_view(|v| entries(v, dir, after, max))
    }

    /// Reads up to `len` bytes; fewer at the end of the file.
    pub fn read(&self, ino: InodeNo, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (pieces, len) = {
            let mut s = self.state.lock();
            let State { tables, files, .. } = &mut *s;
            let (inode, len) = readable(tables, ino, offset, len)?;
            let find = |id| tables.place(id);
            (read::pieces(tables, &find, files, (ino, &inode), offset, len)?, len)
        };
        let mut buf = zeros(len);
        self.fill(&pieces, &mut buf)?;
        Ok(buf)
    }

    fn fill(&self, pieces: &[Piece], buf: &mut [u8]) -> Result<()> {
        read::read(pieces, &self.shared.objects, buf)
    }

    /// A symlink's target; EINVAL for anything else.
    pub fn readlink(&self, ino: InodeNo) -> Result<Vec<u8>> {
        self.with_view(|v| readlink(v, ino))
    }

    /// An extended attribute; ENODATA.
    pub fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
        self.with_view(|v| xattr(v, ino, name))
    }

    /// The names of an inode's extended attributes.
    pub fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>> {
        self.with_view(|v| {
            view::need_inode(v, ino)?;
            view::xattr_names(v, ino)
        })
    }

    /// lseek(2), SEEK_DATA.
    pub fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64> {
        self.with_view(|v| plan::seek_data(v, ino, offset))
    }

    /// lseek(2), SEEK_HOLE.
    pub fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64> {
        self.with_view(|v| plan::seek_hole(v, ino, offset))
    }

    /// Quota and what is used of it.
    pub fn statfs(&self) -> Stat {
        let s = self.state.lock();
        Stat {
            bytes_used: s.tables.usage.bytes.max(0).unsigned_abs(),
            bytes_limit: s.settings.quota_bytes,
            inodes_used: s.tables.usage.inodes.max(0).unsigned_abs(),
            inodes_limit: s.settings.quota_inodes,
        }
    }

    /// The orphans: inodes without a name that nobody has reaped.
    pub fn orphans(&self) -> Result<Vec<InodeNo>> {
        use crate::state::key::Key;
        let mut out = Vec::new();
        self.with_view(|v| {
            v.scan(&Key::orphan(InodeNo(0)), &Key::orphan(InodeNo(u64::MAX)), &mut |k, _| {
                out.push(k.ino());
                Scan::Next
            })
        })?;
        Ok(out)
    }

    /// The state after transaction `txn`. Publishes what is needed to read it. ENOENT when garbage collection has passed it, or
    /// when it is not there yet.
    pub fn version(self: &Arc<Self>, txn: TxnNo) -> Result<Snapshot> {
        self.seal()?;
        let (last, published) = {
            let s = self.state.lock();
            (s.head.txn, self.published()?)
        };
        if txn > last {
            return Err(Error::Posix(Errno::ENOENT));
        }
        if published < last {
            self.publish()?;
        }
        let reader = self.begin_reading(txn)?;
        let (meta, base) = (self.shared.meta.clone(), self.state.lock().tables.base.clone());
        Ok(Snapshot { view: VersionView { ve: self.slot, txn, meta, base }, reader })
    }

    /// The last transaction that the metadata store has.
    pub fn published(&self) -> Result<TxnNo> {
        match self.shared.meta.get(Table::System, &rows::head(self.slot))? {
            None => Ok(TxnNo(0)),
            Some(row) => Ok(rows::head_row(&row)?.txn),
        }
    }
}

/// A VE as it was after a transaction, readable while garbage collection keeps it.
pub struct Snapshot {
    view: VersionView,
    reader: Reading,
}

impl Snapshot {
    /// Which version.
    pub fn txn(&self) -> TxnNo {
        self.view.txn
    }

    /// The VE.
    pub(crate) fn ve(&self) -> &Arc<Ve> {
        &self.reader.ve
    }

    /// Whether what this reads is still there: a state that was replaced or removed meanwhile reads as nothing, or as anything. What was read
    /// before this says yes is right.
    pub(crate) fn still_there(&self) -> Result<()> {
        self.reader.ve.state.lock().journal.check().map_err(|e| match e {
            Error::ReadOnly { ve, reason } => {
                Error::Store(format!("version {} of VE {ve} was taken away while it was read: {reason}", self.view.txn))
            }
            e => e,
        })
    }

    /// The state itself.
    pub fn view(&self) -> &VersionView {
        &self.view
    }

    /// An inode's attributes; ENOENT.
    pub fn inode(&self, ino: InodeNo) -> Result<Inode> {
        view::need_inode(&self.view, ino)
    }

    /// Looks a name up: the entry and its inode.
    pub fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<(Dentry, Inode)> {
        lookup(&self.view, dir, name)
    }

    /// Up to `max` entries of a directory with cookies greater than `after`.
    pub fn entries(&self, dir: InodeNo, after: u64, max: usize) -> Result<Vec<(u64, Entry)>> {
        entries(&self.view, dir, after, max)
    }

    /// Reads up to `len` bytes; fewer at the end of the file.
    pub fn read(&self, ino: InodeNo, offset: u64, len: usize) -> Result<Vec<u8>> {
        match self.read_once(ino, offset, len) {
            Err(e) if !matches!(e, Error::Posix(_)) => {
                // This state may have been opened a second time, as a branch for one, and cleaned there: then its bytes lie elsewhere by now.
                tracing::debug!(ve = %self.reader.ve.id, error = %e, "reading a version again");
                self.reader.ve.state.lock().files.let_go();
                self.read_once(ino, offset, len)
            }
            done => done,
        }
    }

    fn read_once(&self, ino: InodeNo, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (inode, len) = readable(&self.view, ino, offset, len)?;
        let find = |id| stored_place(&*self.view.meta, self.view.ve, id);
        // Without the lock: what was written since may have made as many rows as its owner liked, which are all in the way.
        let extents = read::extents(&self.view, (ino, &inode), offset, len)?;
        let pieces = read::pieces_of(&find, &mut self.reader.ve.state.lock().files, offset, &extents)?;
        let mut buf = zeros(len);
        self.reader.ve.fill(&pieces, &mut buf)?;
        Ok(buf)
    }

    /// lseek(2), SEEK_DATA.
    pub fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64> {
        plan::seek_data(&self.view, ino, offset)
    }

    /// lseek(2), SEEK_HOLE.
    pub fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64> {
        plan::seek_hole(&self.view, ino, offset)
    }

    /// The state root of this version: reads and checks every byte of the VE's own.
    pub fn state_root(&self) -> Result<StateRoot> {
        let find = |id| stored_place(&*self.view.meta, self.view.ve, id);
        state_root(self.view.base.hash(), &self.view, &mut |extent| {
            let mut hasher = blake3::Hasher::new();
            let mut done = 0;
            while done < extent.len {
                let len = (extent.len - done).min(STEP);
                let part = Extent { len, source: extent.source.plus(done) };
                let pieces = read::extent_pieces(&find, &mut self.reader.ve.state.lock().files, &part)?;
                let mut buf = vec![0; len as usize];
                self.reader.ve.fill(&pieces, &mut buf)?;
                hasher.update(&buf);
                done += len;
            }
            Ok(Hash(*hasher.finalize().as_bytes()))
        })
    }

    /// The logical root of this version: equal on two sides that have the same position, and cheap, as no bytes of files are read.
    pub fn logical_root(&self) -> Result<StateRoot> {
        logical_root(self.view.base.hash(), &self.view)
    }

    /// A symlink's target; EINVAL for anything else.
    pub fn readlink(&self, ino: InodeNo) -> Result<Vec<u8>> {
        readlink(&self.view, ino)
    }

    /// An extended attribute; ENODATA.
    pub fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
        xattr(&self.view, ino, name)
    }

    /// The names of an inode's extended attributes.
    pub fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>> {
        view::need_inode(&self.view, ino)?;
        view::xattr_names(&self.view, ino)
    }
}

fn lookup(v: &impl View, dir: InodeNo, name: &[u8]) -> Result<(Dentry, Inode)> {
    let d = view::lookup(v, dir, name)?;
    Ok((d, view::need_inode(v, d.ino)?))
}

fn entries(v: &impl View, dir: InodeNo, after: u64, max: usize) -> Result<Vec<(u64, Entry)>> {
    if !view::need_inode(v, dir)?.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    let mut out = Vec::new();
    view::entries(v, dir, after, &mut |cookie, e| {
        out.push((cookie, e.clone()));
        if out.len() < max { Scan::Next } else { Scan::Stop }
    })?;
    Ok(out)
}

fn readlink(v: &impl View, ino: InodeNo) -> Result<Vec<u8>> {
    if view::need_inode(v, ino)?.kind() != Kind::Symlink {
        return Err(Errno::EINVAL.into());
    }
    Ok(view::target(v, ino)?.map(Vec::from).unwrap_or_default())
}

fn xattr(v: &impl View, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
    let inode = view::need_inode(v, ino)?;
    if name.is_empty() || name.len() > limits::XATTR_NAME_MAX {
        return Err(Errno::ERANGE.into());
    }
    if !inode.may_have_xattrs(ino) {
        return Err(Errno::ENODATA.into());
    }
    view::xattr(v, ino, name)?.map(Vec::from).ok_or(Errno::ENODATA.into())
}

/// The inode of a file to be read and how many bytes there are: EISDIR, EINVAL.
fn readable(v: &impl View, ino: InodeNo, offset: u64, len: usize) -> Result<(Inode, usize)> {
    let inode = view::need_inode(v, ino)?;
    match inode.kind() {
        Kind::Regular => {}
        Kind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let len = (len as u64).min(inode.size.saturating_sub(offset)).min(limits::WRITE_MAX as u64);
    Ok((inode, len as usize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, OnceLock, Weak};

    use super::*;
    use crate::meta::{Batch, MemoryMeta, MetaError, MetaStore, Row, Table, Visit};
    use crate::storage::memory::MemStorage;
    use crate::store::bed::{self, VE};

    /// Looks whether a VE is locked while rows of its past are looked for.
    #[derive(Default)]
    struct Watched {
        below: MemoryMeta,
        ve: OnceLock<Weak<Ve>>,
        looked: AtomicUsize,
        locked: AtomicUsize,
    }

    impl MetaStore for Watched {
        fn get(&self, table: Table, key: &[u8]) -> std::result::Result<Option<Vec<u8>>, MetaError> {
            self.below.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            from: &[u8],
            to: &[u8],
            visit: &mut Visit<'_>,
        ) -> std::result::Result<(), MetaError> {
            self.below.scan(table, from, to, visit)
        }

        fn floor(&self, table: Table, from: &[u8], at: &[u8]) -> std::result::Result<Option<Row>, MetaError> {
            if let (Table::History, Some(ve)) = (table, self.ve.get().and_then(Weak::upgrade)) {
                self.looked.fetch_add(1, Ordering::Relaxed);
                self.locked.fetch_add(usize::from(ve.state.try_lock().is_none()), Ordering::Relaxed);
            }
            self.below.floor(table, from, at)
        }

        fn write(&self, batch: Batch) -> std::result::Result<(), MetaError> {
            self.below.write(batch)
        }

        fn persist(&self) -> std::result::Result<(), MetaError> {
            self.below.persist()
        }

        fn get_persisted(&self, table: Table, key: &[u8]) -> std::result::Result<Option<Vec<u8>>, MetaError> {
            self.below.get_persisted(table, key)
        }

        fn checkpoint(&self, dir: &Path) -> std::result::Result<(), MetaError> {
            self.below.checkpoint(dir)
        }
    }

    /// A version was read with its VE locked, over every extent that was made since: a million scattered writes, which cost a VE's owner a megabyte, stopped the VE for
    /// seconds at each read of a backup, and the tick, which looks at every VE, with it.
    #[test]
    fn a_ve_is_not_locked_while_its_past_is_searched() {
        let meta = Arc::new(Watched::default());
        let store = bed::on(Arc::new(MemStorage::new()), meta.clone());
        let ve = bed::create_ve(&store, VE);
        let ino = bed::create(&ve, "file");
        bed::write(&ve, ino, 1 << 20, vec![7; 10]).unwrap();
        ve.commit().unwrap();
        let version = ve.version(ve.position().txn).unwrap();
        for n in 0..50 {
            bed::write(&ve, ino, n * 8192, vec![1]).unwrap();
        }
        ve.commit().unwrap();
        ve.publish().unwrap();
        meta.ve.set(Arc::downgrade(&ve)).unwrap();
        assert_eq!(version.read(ino, (1 << 20) - 2, 12).unwrap(), [0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert!(meta.looked.load(Ordering::Relaxed) > 0);
        assert_eq!(meta.locked.load(Ordering::Relaxed), 0);
    }

    /// Checks G7. What a hole left of an answer had never been touched: zero, and not there. To bring it in fails when the daemon has been killed.
    #[test]
    fn zeros_have_been_touched() {
        let zeros = zeros(8 << 20);
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        for page in zeros.as_ptr().addr().div_ceil(4096)..(zeros.as_ptr().addr() + zeros.len()) / 4096 {
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, page as u64 * 8).unwrap();
            // Present, or swapped out or about to move (Documentation/admin-guide/mm/pagemap.rst).
            assert_ne!(u64::from_le_bytes(entry) >> 62, 0, "page {page}");
        }
    }
}
