//! Requests about the content of files: opening, reading, writing, space, flushing.

use bytes::Bytes;
use fuser::{OpenAccMode, OpenFlags, WriteFlags};

use super::asker::Asker;
use super::convert;
use super::counters::count;
use super::fs::{Found, Fs};
use super::kept::KeptError;
use super::nodes::{NodeId, Nodes, Opened};
use crate::errno::Errno;
use crate::op::{Op, Owner, Reply, SetAttr};
use crate::types::mode;

/// A file handle says only how the file was opened, so that it means the same to the next daemon.
pub const CACHED: u64 = 0;
/// The handle of an open that reads a backing file.
pub const PASSTHROUGH: u64 = 1;
/// Most bytes copied by one copy_file_range(2): the answer has 32 bits.
const COPY_MAX: u64 = 1 << 30;

impl Fs {
    /// open(2). `O_TRUNC` comes with it only where the kernel meant to create the file and somebody else was quicker.
    pub(super) fn open_file(&self, asker: Asker, node: NodeId, flags: OpenFlags) -> Result<Opened, Errno> {
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let truncate = flags.0 & libc::O_TRUNC != 0;
        if self.read_only && (write || truncate) {
            return Err(Errno::EROFS);
        }
        let ino = node.ino();
        let whole = || self.tree.whole_object(ino).ok().flatten();
        let mut nodes = self.nodes.lock();
        let alone = !nodes.is_open(ino);
        let opened = nodes
            .open(node, write || truncate, asker.unique, whole, &self.registry)
            .map_err(|why| self.refused(node, why))?;
        drop(nodes);
        let opened = if alone && opened == Opened::Cached { self.writing_opened(flags) } else { opened };
        if truncate && let Err(e) = self.truncate(asker, node, 0) {
            self.unopen_file(asker, node, CACHED)?;
            return Err(e);
        }
        let counter = match opened {
            Opened::Cached | Opened::Direct => &self.counters.cached,
            Opened::Passthrough(_) => &self.counters.passthrough,
        };
        count(counter, 1);
        Ok(opened)
    }

    /// How the only open of a file is answered. Through one that only writes nothing is read again, so what is written need not be copied
    /// into the kernel's cache first: half of what a large write costs. The kernel keeps others coherent, who open the file later and do
    /// cache: it drops the pages that are written. A log is left to the cache, since somebody may follow it.
    fn writing_opened(&self, flags: OpenFlags) -> Opened {
        let only_writes = flags.acc_mode() == OpenAccMode::O_WRONLY && flags.0 & libc::O_APPEND == 0;
        if only_writes && self.direct.load(std::sync::atomic::Ordering::Relaxed) {
            Opened::Direct
        } else {
            Opened::Cached
        }
    }

    fn truncate(&self, asker: Asker, node: NodeId, size: u64) -> Result<(), Errno> {
        // fuser does not tell whether the kernel wants the set-user-ID bits cleared: they are, always.
        let set = SetAttr { size: Some(size), kill_priv: true, ..SetAttr::default() };
        self.change(asker, &Op::Setattr { ino: node.ino(), set }).map(|_| ())
    }

    /// open(2) with `O_CREAT` of a name that the kernel does not know.
    pub(super) fn create_file(
        &self,
        asker: Asker,
        parent: NodeId,
        name: &[u8],
        (mode, umask): (u32, u32),
        flags: OpenFlags,
    ) -> Result<(Found, Opened), Errno> {
        let owner = Owner { uid: asker.uid, gid: asker.gid, umask };
        let mode = mode::IFREG | (mode & mode::PERM);
        let op = Op::Create { parent: parent.ino(), name: name.to_vec(), mode, rdev: 0, owner };
        match self.change_inode(asker, &op) {
            Ok(found) => {
                let made = self.nodes.lock().created(found.node.ino(), asker.unique, &self.registry);
                made.map_err(|e| self.refused(found.node, e.into()))?;
                count(&self.counters.cached, 1);
                Ok((found, self.writing_opened(flags)))
            }
            // Somebody else was quicker.
            Err(Errno::EEXIST) if flags.0 & libc::O_EXCL == 0 => {
                let found = self.lookup(parent, name)?.ok_or(Errno::ENOENT)?;
                if !found.inode.is_file() {
                    // The kernel has to look again: an existing name of this kind is not opened here.
                    return Err(Errno::ESTALE);
                }
                let opened = self.open_file(asker, found.node, flags)?;
                let again = self.lookup(parent, name).and_then(|again| again.ok_or(Errno::ENOENT));
                // Gone again, it is not open.
                let handle = if matches!(opened, Opened::Passthrough(_)) { PASSTHROUGH } else { CACHED };
                let again = again.or_else(|e| self.unopen_file(asker, found.node, handle).and(Err(e)))?;
                Ok((again, opened))
            }
            Err(e) => Err(e),
        }
    }

    /// The last close of an open file.
    pub(super) fn close_file(&self, asker: Asker, node: NodeId, handle: u64) -> Result<(), Errno> {
        let passthrough = handle == PASSTHROUGH;
        self.closing(node, |nodes| nodes.release(node.ino(), passthrough, asker.unique, &self.registry))
    }

    /// An open that was counted fails.
    fn unopen_file(&self, asker: Asker, node: NodeId, handle: u64) -> Result<(), Errno> {
        let passthrough = handle == PASSTHROUGH;
        self.closing(node, |nodes| nodes.undo(node.ino(), passthrough, asker.unique, &self.registry))
    }

    fn closing(&self, node: NodeId, close: impl FnOnce(&mut Nodes) -> Result<(), KeptError>) -> Result<(), Errno> {
        let mut nodes = self.nodes.lock();
        let done = close(&mut nodes);
        let forgotten = !nodes.is_open(node.ino()) && self.reaping.closed(node.ino());
        drop(nodes);
        if forgotten {
            self.forgotten(node);
        }
        done.map_err(|e| self.refused(node, e.into()))
    }

    /// pread(2).
    pub(super) fn read_file(&self, node: NodeId, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let data = self.tree.read(node.ino(), offset, len as usize).map_err(|e| self.errno(&e))?;
        count(&self.counters.read, data.len() as u64);
        Ok(data)
    }

    /// pwrite(2).
    pub(super) fn write_file(
        &self,
        asker: Asker,
        node: NodeId,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> Result<u32, Errno> {
        let kill_priv = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let op = Op::Write { ino: node.ino(), offset, data: Bytes::copy_from_slice(data), kill_priv };
        let written = match self.change(asker, &op)? {
            Reply::Written(n) => n,
            Reply::Inode(..) | Reply::Done => data.len() as u64,
        };
        count(&self.counters.written, written);
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// fallocate(2).
    pub(super) fn allocate(
        &self,
        asker: Asker,
        node: NodeId,
        (offset, len): (u64, u64),
        mode: i32,
    ) -> Result<(), Errno> {
        let op = Op::Fallocate { ino: node.ino(), mode: convert::falloc_mode(mode)?, offset, len };
        self.change(asker, &op).map(|_| ())
    }

    /// copy_file_range(2).
    pub(super) fn copy_range(
        &self,
        asker: Asker,
        from: (NodeId, u64),
        to: (NodeId, u64),
        len: u64,
    ) -> Result<u32, Errno> {
        let (src, src_offset, dst, dst_offset) = (from.0.ino(), from.1, to.0.ino(), to.1);
        let op = Op::CopyRange { src, src_offset, dst, dst_offset, len: len.min(COPY_MAX) };
        match self.change(asker, &op)? {
            Reply::Written(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
            Reply::Inode(..) | Reply::Done => Ok(0),
        }
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE; the kernel does the rest itself.
    pub(super) fn seek(&self, node: NodeId, offset: i64, whence: i32) -> Result<i64, Errno> {
        let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = match whence {
            libc::SEEK_DATA => self.tree.seek_data(node.ino(), from),
            libc::SEEK_HOLE => self.tree.seek_hole(node.ino(), from),
            _ => return Err(Errno::EINVAL),
        };
        let at = found.map_err(|e| self.errno(&e))?;
        i64::try_from(at).map_err(|_| Errno::EFBIG)
    }
}
