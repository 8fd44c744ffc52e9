//! Between the kernel's words and ours: attributes, times, kinds, flags. No state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, RenameFlags as KernelRename, TimeOrNow};

use crate::clock::Timestamp;
use crate::errno::Errno;
use crate::ids::InodeNo;
use crate::op::{FallocMode, RenameFlags, XattrMode};
use crate::types::{Inode, Kind};

/// The kernel may believe what it was told for as long as it likes: nobody else writes.
pub const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// A file's kind as the kernel names it.
pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Regular => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes under the number `shown`.
pub fn attributes(shown: u64, inode: &Inode) -> FileAttr {
    FileAttr {
        ino: INodeNo(shown),
        size: inode.size,
        blocks: inode.mapped.div_ceil(512),
        atime: system_time(inode.atime),
        mtime: system_time(inode.mtime),
        ctime: system_time(inode.ctime),
        crtime: system_time(inode.btime),
        kind: file_type(inode.kind()),
        perm: (inode.mode & 0o7777) as u16,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        // Device numbers of up to 12 + 20 bits look the same in 32 bits (kernel `new_encode_dev`); there are no others.
        rdev: inode.rdev as u32,
        blksize: 4096,
        flags: 0,
    }
}

/// A time for fuser to send.
pub fn system_time(t: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(t.nanos));
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let at = if t.secs >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    at.and_then(|at| at.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time that fuser received. It turns (−2 s, 800 ms), which is 1.2 s before the epoch, into 2.8 s before it: that is undone here.
pub fn timestamp(t: SystemTime) -> Timestamp {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Timestamp { secs: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Timestamp { secs: 0i64.saturating_sub_unsigned(d.as_secs()), nanos: d.subsec_nanos() }
        }
    }
}

/// A time of utimensat(2).
pub fn time_or_now(t: TimeOrNow, now: Timestamp) -> Timestamp {
    match t {
        TimeOrNow::SpecificTime(t) => timestamp(t),
        TimeOrNow::Now => now,
    }
}

/// Flags of renameat2(2); EINVAL for what is unknown.
pub fn rename_flags(flags: KernelRename) -> Result<RenameFlags, Errno> {
    if !KernelRename::all().contains(flags) {
        return Err(Errno::EINVAL);
    }
    Ok(RenameFlags {
        no_replace: flags.contains(KernelRename::RENAME_NOREPLACE),
        exchange: flags.contains(KernelRename::RENAME_EXCHANGE),
        whiteout: flags.contains(KernelRename::RENAME_WHITEOUT),
    })
}

/// The mode of fallocate(2); EOPNOTSUPP for what the file system does not do.
pub fn falloc_mode(mode: i32) -> Result<FallocMode, Errno> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Ok(FallocMode::Allocate { keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Ok(FallocMode::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Ok(FallocMode::ZeroRange { keep_size }),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Flags of setxattr(2).
pub fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

/// An error as the kernel wants it.
pub fn errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.code())
}

/// An inode number as the kernel names it.
pub fn number(ino: InodeNo) -> INodeNo {
    INodeNo(ino.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        for (secs, nanos) in [(0, 0), (1, 5), (-1, 0), (-2, 800_000_000), (i64::MAX, 999_999_999), (i64::MIN, 0)] {
            let t = Timestamp { secs, nanos };
            let sent = system_time(t);
            if secs >= 0 {
                assert_eq!(timestamp(sent), t);
            }
        }
        // What fuser makes of (−2 s, 800 ms).
        let received = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp(received), Timestamp { secs: -2, nanos: 800_000_000 });
        // What it sends of it is right.
        let sent = system_time(Timestamp { secs: -2, nanos: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(sent).unwrap(), Duration::new(1, 200_000_000));
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert_eq!(falloc_mode(libc::FALLOC_FL_COLLAPSE_RANGE), Err(Errno::EOPNOTSUPP));
        assert_eq!(falloc_mode(libc::FALLOC_FL_PUNCH_HOLE), Err(Errno::EOPNOTSUPP));
        assert_eq!(xattr_mode(8), Err(Errno::EINVAL));
        assert_eq!(rename_flags(KernelRename::from_bits_retain(8)), Err(Errno::EINVAL));
    }
}
