//! fuser's interface on one side, [`Fs`] on the other: decode, call, map the error, reply. No logic.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::attrs::{BLOCK, Wanted};
use super::convert::{FOR_EVER, attributes, errno, file_type, number};
use super::files::{CACHED, PASSTHROUGH};
use super::fs::Fs;
use super::negotiate;
use super::nodes::{NodeId, Opened};
use super::reply::{self, GENERATION, empty, entry, xattr};
use crate::limits;

fn node(n: INodeNo) -> NodeId {
    NodeId(n.0)
}

/// The kernel need not tell of each close(2).
const OPEN_FLAGS: FopenFlags = FopenFlags::FOPEN_NOFLUSH;
const CACHED_FLAGS: FopenFlags = OPEN_FLAGS.union(FopenFlags::FOPEN_KEEP_CACHE);
/// Not with `FOPEN_PARALLEL_DIRECT_WRITES`: kernels up to 6.10 let such a write and a cached open wait for each other.
const DIRECT_FLAGS: FopenFlags = CACHED_FLAGS.union(FopenFlags::FOPEN_DIRECT_IO);

impl Filesystem for Fs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate::negotiate(config)?;
        self.direct = config.capabilities().contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _serving = self.serving();
        match self.lookup(node(parent), name.as_bytes()) {
            // A name that is not there is remembered, too: node id 0 says so.
            Ok(None) => reply.entry(&FOR_EVER, &attributes(0, &reply::nothing()), GENERATION),
            Ok(Some(found)) => entry(reply, Ok(found)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        // Many of these come in one request.
        let _serving = self.readers.serve(self.gate.read(), false);
        self.forgotten(node(ino));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _serving = self.serving();
        match self.attributes(node(ino)) {
            Ok((attr, ttl)) => reply.attr(&ttl, &attr),
            Err(e) => reply.error(errno(e)),
        }
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
        let _serving = self.serving();
        match self.set_attributes(req, node(ino), &Wanted { mode, uid, gid, size, atime, mtime }) {
            Ok((attr, ttl)) => reply.attr(&ttl, &attr),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _serving = self.serving();
        match self.ve.readlink(node(ino).ino()) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(self.errno(&e))),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let _serving = self.serving();
        entry(reply, self.create_node(req, node(parent), name.as_bytes(), mode, umask, rdev));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _serving = self.serving();
        let mode = crate::types::mode::IFDIR | (mode & crate::types::mode::PERM);
        entry(reply, self.create_node(req, node(parent), name.as_bytes(), mode, umask, 0));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.serving();
        empty(reply, self.remove(req, node(parent), name.as_bytes(), false));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.serving();
        empty(reply, self.remove(req, node(parent), name.as_bytes(), true));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _serving = self.serving();
        let target = target.as_os_str().as_bytes();
        entry(reply, self.create_symlink(req, node(parent), name.as_bytes(), target));
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
        let _serving = self.serving();
        let (from, to) = ((node(parent), name.as_bytes()), (node(newparent), newname.as_bytes()));
        empty(reply, self.rename_node(req, from, to, flags));
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let _serving = self.serving();
        entry(reply, self.link_node(req, node(ino), node(newparent), newname.as_bytes()));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _serving = self.serving();
        match self.open_file(req, node(ino), flags) {
            Ok(Opened::Cached) => reply.opened(FileHandle(CACHED), CACHED_FLAGS),
            Ok(Opened::Direct) => reply.opened(FileHandle(CACHED), DIRECT_FLAGS),
            // Passthrough and KEEP_CACHE exclude each other.
            Ok(Opened::Passthrough(id)) => reply::opened_passthrough(reply, FileHandle(PASSTHROUGH), OPEN_FLAGS, id),
            Err(e) => reply.error(errno(e)),
        }
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
        let _serving = self.serving();
        match self.create_file(req, node(parent), name.as_bytes(), (mode, umask), OpenFlags(flags)) {
            Ok((f, opened @ (Opened::Cached | Opened::Direct))) => {
                let flags = if opened == Opened::Direct { DIRECT_FLAGS } else { CACHED_FLAGS };
                reply.created(&f.ttl(), &f.attributes(), GENERATION, FileHandle(CACHED), flags);
            }
            Ok((f, Opened::Passthrough(id))) => {
                let attr = f.attributes();
                reply::created_passthrough(reply, (&f.ttl(), &attr), FileHandle(PASSTHROUGH), OPEN_FLAGS, id);
            }
            Err(e) => reply.error(errno(e)),
        }
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
        let _serving = self.serving();
        match self.read_file(node(ino), offset, size) {
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
        let _serving = self.serving();
        match self.write_file(req, node(ino), offset, data, write_flags) {
            Ok(n) => reply.written(n),
            Err(e) => reply.error(errno(e)),
        }
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
        let _serving = self.serving();
        empty(reply, self.close_file(req, node(ino), fh.0));
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let _serving = self.serving();
        super::counters::count(&self.counters.syncs, 1);
        self.syncing.sync(reply);
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Once said, the kernel does not ask again (`FUSE_NO_OPENDIR_SUPPORT`) and caches directories.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _serving = self.serving();
        let done = self.list(node(ino), offset, &mut |e| {
            reply.add(number(e.ino), e.cookie, file_type(e.kind), OsStr::from_bytes(e.name))
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let _serving = self.serving();
        let done = self.list_with_inodes(node(ino), offset, &mut |e, found| {
            let name = OsStr::from_bytes(e.name);
            let (attr, ttl) = match &found {
                Some(f) => (f.attributes(), f.ttl()),
                // The kernel takes no attributes from `.` and `..`.
                None => (attributes(e.ino.0, &reply::directory()), std::time::Duration::ZERO),
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
        let _serving = self.serving();
        match self.room() {
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
        let _serving = self.serving();
        empty(reply, self.set_attribute(req, node(ino), name.as_bytes(), value, flags));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _serving = self.serving();
        xattr(reply, size, self.attribute(node(ino), name.as_bytes()));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _serving = self.serving();
        xattr(reply, size, self.attribute_names(node(ino)));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.serving();
        empty(reply, self.remove_attribute(req, node(ino), name.as_bytes()));
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
        let _serving = self.serving();
        empty(reply, self.allocate(req, node(ino), (offset, length), mode));
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _serving = self.serving();
        match self.seek(node(ino), offset, whence) {
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
        let _serving = self.serving();
        match self.copy_range(req, (node(ino_in), offset_in), (node(ino_out), offset_out), len) {
            Ok(n) => reply.written(n),
            Err(e) => reply.error(errno(e)),
        }
    }
}
