//! fuser's interface on one side, [`Fs`] on the other: decode, call, map the error, reply. No logic.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::asker::Asker;
use super::attrs::{BLOCK, Wanted};
use super::convert::{FOR_EVER, attributes, errno, file_type, number};
use super::fs::Fs;
use super::nodes::NodeId;
use super::reply::{self, Answer, GENERATION, xattr};
use super::{admit, negotiate};
use crate::errno::Errno;
use crate::limits;

fn node(n: INodeNo) -> NodeId {
    NodeId(n.0)
}

/// The VE behind fuser's interface.
pub struct Adapter(pub Arc<Fs>);

impl Adapter {
    fn change<T: Send + 'static>(
        &self,
        req: &Request,
        bytes: [&[u8]; 2],
        reply: impl Answer<T>,
        run: impl FnOnce(&Fs, Asker, [&[u8]; 2]) -> Result<T, Errno> + Send + 'static,
    ) {
        admit::change(&self.0, Asker::of(req), bytes, reply, run);
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate::negotiate(config)?;
        let direct = config.capabilities().contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        self.0.direct.store(direct, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _serving = self.0.serving();
        match self.0.lookup(node(parent), name.as_bytes()) {
            // A name that is not there is remembered, too: node id 0 says so.
            Ok(None) => reply.entry(&FOR_EVER, &attributes(0, &reply::nothing()), GENERATION),
            Ok(Some(found)) => reply.give(Ok(found)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, req: &Request, ino: INodeNo, _nlookup: u64) {
        // Many of these come in one request, and have its number.
        let _serving = self.0.readers.forget(self.0.gate.read(), req.unique().0);
        self.0.forgotten(node(ino));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _serving = self.0.serving();
        reply.give(self.0.attributes(node(ino)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, uid, gid, size, atime, mtime };
        self.change(req, [&[], &[]], reply, move |fs, asker, _| fs.set_attributes(asker, node(ino), &wanted));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _serving = self.0.serving();
        match self.0.tree.readlink(node(ino).ino()) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(self.0.errno(&e))),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        self.change(req, [name.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.create_node(asker, node(parent), name, mode, umask, rdev)
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mode = crate::types::mode::IFDIR | (mode & crate::types::mode::PERM);
        self.change(req, [name.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.create_node(asker, node(parent), name, mode, umask, 0)
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(req, [name.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.remove(asker, node(parent), name, false)
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(req, [name.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.remove(asker, node(parent), name, true)
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let bytes = [name.as_bytes(), target.as_os_str().as_bytes()];
        self.change(req, bytes, reply, move |fs, asker, [name, target]| {
            fs.create_symlink(asker, node(parent), name, target)
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (node(parent), node(newparent));
        self.change(req, [name.as_bytes(), newname.as_bytes()], reply, move |fs, asker, [name, newname]| {
            fs.rename_node(asker, (from, name), (to, newname), flags)
        });
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.change(req, [newname.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.link_node(asker, node(ino), node(newparent), name)
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_TRUNC != 0 {
            return self.change(req, [&[], &[]], reply, move |fs, asker, _| fs.open_file(asker, node(ino), flags));
        }
        let _serving = self.0.serving();
        reply.give(self.0.open_file(Asker::of(req), node(ino), flags));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.change(req, [name.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.create_file(asker, node(parent), name, (mode, umask), OpenFlags(flags))
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _serving = self.0.serving();
        match self.0.read_file(node(ino), offset, size) {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut asker = Asker::of(req);
        if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            asker.since = self.0.fetched_before();
        }
        admit::change(&self.0, asker, [data, &[]], reply, move |fs, asker, [data, _]| {
            fs.write_file(asker, node(ino), offset, data, write_flags)
        });
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serving();
        reply.give(self.0.close_file(Asker::of(req), node(ino), fh.0));
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let _serving = self.0.serving();
        super::counters::count(&self.0.counters.syncs, 1);
        if self.0.tree.is_version() {
            // It was durable before it could be mounted.
            return reply.ok();
        }
        self.0.syncing.sync(&self.0.readers, reply);
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Once said, the kernel does not ask again (`FUSE_NO_OPENDIR_SUPPORT`) and caches directories.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _serving = self.0.serving();
        let done = self.0.list(node(ino), offset, &mut |e| {
            reply.add(number(e.ino), e.cookie, file_type(e.kind), OsStr::from_bytes(e.name))
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let _serving = self.0.serving();
        let done = self.0.list_with_inodes(node(ino), offset, &mut |e, found| {
            let name = OsStr::from_bytes(e.name);
            let (attr, ttl) = match &found {
                Some(f) => (f.attributes(), f.ttl()),
                // The kernel takes none from `.` and `..`. Of another kind than it knows they would make an inode that cannot be read now a bad one.
                None => (attributes(e.ino.0, &reply::any(e.kind)), std::time::Duration::ZERO),
            };
            reply.add(attr.ino, e.cookie, name, &ttl, &attr, GENERATION)
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permission itself (`default_permissions`) and does not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files are always ready; the kernel knows it from now on.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        // There is no block device: no swap files, as on every network file system.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _serving = self.0.serving();
        match self.0.room() {
            Ok(r) => {
                let ((blocks, bfree), (files, ffree)) = (r.blocks, r.files);
                let block = BLOCK as u32;
                reply.statfs(blocks, bfree, bfree, files, ffree, block, limits::NAME_MAX as u32, block);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.change(req, [name.as_bytes(), value], reply, move |fs, asker, [name, value]| {
            fs.set_attribute(asker, node(ino), name, value, flags)
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _serving = self.0.serving();
        xattr(reply, size, self.0.attribute(node(ino), name.as_bytes()));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _serving = self.0.serving();
        xattr(reply, size, self.0.attribute_names(node(ino)));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(req, [name.as_bytes(), &[]], reply, move |fs, asker, [name, _]| {
            fs.remove_attribute(asker, node(ino), name)
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.change(req, [&[], &[]], reply, move |fs, asker, _| fs.allocate(asker, node(ino), (offset, length), mode));
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _serving = self.0.serving();
        match self.0.seek(node(ino), offset, whence) {
            Ok(at) => reply.offset(at),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((node(ino_in), offset_in), (node(ino_out), offset_out));
        self.change(req, [&[], &[]], reply, move |fs, asker, _| fs.copy_range(asker, from, to, len));
    }
}
