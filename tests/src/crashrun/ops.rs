//! Every operation with every flag and mode on a prepared world, payloads that lie in the journal and payloads that do not.

use vefs::clock::Timestamp;
use vefs::ids::InodeNo;
use vefs::limits::{INLINE_MAX, XATTR_VALUE_MAX};
use vefs::op::{FallocMode, Op, Owner, RenameFlags, SetAttr, XattrMode};
use vefs::types::mode;

use super::world::{Things, pattern};
use crate::model::acl;

/// A directory and a name in it.
type Name<'a> = (InodeNo, &'a [u8]);

const ROOT: InodeNo = InodeNo::ROOT;
const OWNER: Owner = Owner { uid: 8, gid: 9, umask: 0o027 };

/// All of them, those that are refused included.
pub fn all(t: &Things) -> Vec<Op> {
    let mut ops = Vec::new();
    names(t, &mut ops);
    renames(t, &mut ops);
    writes(t, &mut ops);
    attributes(t, &mut ops);
    ranges(t, &mut ops);
    xattrs(t, &mut ops);
    ops
}

/// A few of them, one of each kind of record, for pairs.
pub fn few(t: &Things) -> Vec<Op> {
    let set = SetAttr { size: Some(1000), ..SetAttr::default() };
    vec![
        create(ROOT, b"new", mode::IFREG | 0o644),
        create(t.dir, b"newdir", mode::IFDIR | 0o755),
        unlink(t.dir, b"inner"),
        rename((ROOT, b"file"), (t.dir, b"inner"), RenameFlags::default()),
        rename((ROOT, b"file"), (ROOT, b"dir"), RenameFlags { exchange: true, ..RenameFlags::default() }),
        write(t.file, 1000, 3000),
        write(t.file, 0, INLINE_MAX),
        write(t.bulk, 8192, INLINE_MAX + 5000),
        Op::Setattr { ino: t.bulk, set },
        Op::CopyRange { src: t.bulk, src_offset: 4096, dst: t.file, dst_offset: 100, len: 30_000 },
        Op::Setxattr { ino: t.file, name: b"user.one".to_vec(), value: vec![9; 100], mode: XattrMode::Set },
        Op::Reap { ino: t.orphan },
    ]
}

fn create(parent: InodeNo, name: &[u8], mode: u32) -> Op {
    Op::Create { parent, name: name.to_vec(), mode, rdev: 0x0103, owner: OWNER }
}

fn unlink(parent: InodeNo, name: &[u8]) -> Op {
    Op::Unlink { parent, name: name.to_vec() }
}

fn rename(from: (InodeNo, &[u8]), to: (InodeNo, &[u8]), flags: RenameFlags) -> Op {
    Op::Rename { parent: from.0, name: from.1.to_vec(), new_parent: to.0, new_name: to.1.to_vec(), flags }
}

fn write(ino: InodeNo, offset: u64, len: usize) -> Op {
    Op::Write { ino, offset, data: pattern(offset ^ 0x55, len), kill_priv: false }
}

fn names(t: &Things, ops: &mut Vec<Op>) {
    let kinds = [mode::IFREG, mode::IFDIR, mode::IFIFO, mode::IFSOCK, mode::IFCHR, mode::IFBLK];
    for parent in [ROOT, t.dir] {
        ops.extend(kinds.map(|kind| create(parent, b"new", kind | 0o6777)));
        for len in [1, 4095] {
            ops.push(Op::Symlink { parent, name: b"new".to_vec(), target: vec![b't'; len], owner: OWNER });
        }
        for ino in [t.file, t.link, t.fifo, t.orphan, t.dir] {
            ops.push(Op::Link { ino, parent, name: b"new".to_vec() });
        }
    }
    ops.push(create(ROOT, b"file", mode::IFREG));
    ops.push(create(t.empty, &[b'n'; 255], mode::IFREG | 0o600));
    ops.extend([b"file".as_slice(), b"bulk", b"link", b"fifo", b"dir", b"nothing"].map(|name| unlink(ROOT, name)));
    ops.extend([b"inner".as_slice(), b"hard"].map(|name| unlink(t.dir, name)));
    for name in [b"empty".as_slice(), b"dir", b"file"] {
        ops.push(Op::Rmdir { parent: ROOT, name: name.to_vec() });
    }
    ops.extend([t.orphan, t.orphan_dir, t.file].map(|ino| Op::Reap { ino }));
}

fn renames(t: &Things, ops: &mut Vec<Op>) {
    let pairs: [(Name<'_>, Name<'_>); 7] = [
        ((ROOT, b"file"), (ROOT, b"new")),
        ((ROOT, b"file"), (t.dir, b"inner")),
        ((ROOT, b"file"), (t.dir, b"hard")),
        ((ROOT, b"bulk"), (ROOT, b"link")),
        ((ROOT, b"dir"), (ROOT, b"empty")),
        ((ROOT, b"empty"), (t.dir, b"new")),
        ((ROOT, b"dir"), (ROOT, b"file")),
    ];
    for (from, to) in pairs {
        for bits in 0..8 {
            let flags = RenameFlags { no_replace: bits & 1 != 0, exchange: bits & 2 != 0, whiteout: bits & 4 != 0 };
            ops.push(rename(from, to, flags));
        }
    }
}

fn writes(t: &Things, ops: &mut Vec<Op>) {
    for len in [0, 1, 3000, 4096, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 200_000] {
        ops.push(write(t.file, 0, len));
        ops.push(write(t.bulk, 10_000, len));
    }
    for (ino, offset) in [(t.file, 2990), (t.file, 20_000), (t.bulk, 0), (t.orphan, 500), (t.inner, 4096)] {
        ops.push(write(ino, offset, 100));
        ops.push(write(ino, offset, INLINE_MAX + 100));
    }
    ops.push(Op::Write { ino: t.file, offset: 10, data: pattern(1, 10), kill_priv: true });
    ops.push(write(t.dir, 0, 10));
}

fn attributes(t: &Things, ops: &mut Vec<Op>) {
    let time = Some(Timestamp { secs: 77, nanos: 88 });
    let none = SetAttr::default();
    let sets = [
        SetAttr { mode: Some(0o640), ..none },
        SetAttr { uid: Some(100), ..none },
        SetAttr { gid: Some(101), ..none },
        SetAttr { atime: time, ..none },
        SetAttr { mtime: time, ..none },
        SetAttr { size: Some(50), kill_priv: true, ..none },
        SetAttr {
            size: Some(0),
            mode: Some(0o600),
            uid: Some(1),
            gid: Some(2),
            atime: time,
            mtime: time,
            kill_priv: true,
        },
        none,
    ];
    ops.extend(sets.map(|set| Op::Setattr { ino: t.file, set }));
    for size in [0, 1, 4096, 30_000, 74_096, 500_000] {
        ops.push(Op::Setattr { ino: t.bulk, set: SetAttr { size: Some(size), ..none } });
    }
    for ino in [t.dir, t.link, t.fifo, t.orphan] {
        ops.push(Op::Setattr { ino, set: SetAttr { mode: Some(0o711), uid: Some(5), ..none } });
    }
}

fn ranges(t: &Things, ops: &mut Vec<Op>) {
    let modes = [
        FallocMode::Allocate { keep_size: false },
        FallocMode::Allocate { keep_size: true },
        FallocMode::PunchHole,
        FallocMode::ZeroRange { keep_size: false },
        FallocMode::ZeroRange { keep_size: true },
    ];
    for mode in modes {
        for (ino, offset, len) in [(t.file, 2000, 8000), (t.bulk, 0, 200_000), (t.inner, 0, 1)] {
            ops.push(Op::Fallocate { ino, mode, offset, len });
        }
    }
    let copies =
        [(t.file, 0, t.bulk, 0), (t.bulk, 5000, t.file, 1), (t.bulk, 0, t.bulk, 100_000), (t.file, 0, t.file, 10)];
    for (src, src_offset, dst, dst_offset) in copies {
        ops.push(Op::CopyRange { src, src_offset, dst, dst_offset, len: 60_000 });
    }
}

fn xattrs(t: &Things, ops: &mut Vec<Op>) {
    let set = |ino, name: &[u8], value: Vec<u8>, mode| Op::Setxattr { ino, name: name.to_vec(), value, mode };
    for mode in [XattrMode::Set, XattrMode::Create, XattrMode::Replace] {
        ops.push(set(t.file, b"user.one", vec![3; 20], mode));
        ops.push(set(t.file, b"user.new", vec![4; XATTR_VALUE_MAX], mode));
    }
    let entry = |tag, perm| acl::AclEntry::new(tag, perm, acl::NO_ID);
    let small = acl::encode(&[entry(acl::USER_OBJ, 6), entry(acl::GROUP_OBJ, 4), entry(acl::OTHER, 0)]);
    let mut large = vec![entry(acl::USER_OBJ, 6)];
    large.extend((1..40).map(|id| acl::AclEntry::new(acl::USER, 5, id)));
    large.extend([entry(acl::GROUP_OBJ, 4), entry(acl::MASK, 7), entry(acl::OTHER, 0)]);
    for value in [small, acl::encode(&large)] {
        ops.push(set(t.file, acl::ACCESS, value.clone(), XattrMode::Set));
        ops.push(set(t.dir, acl::DEFAULT, value, XattrMode::Set));
    }
    for (ino, name) in
        [(t.file, b"user.one".as_slice()), (t.dir, acl::DEFAULT), (t.dir, b"user.two"), (t.file, b"user.no")]
    {
        ops.push(Op::Removexattr { ino, name: name.to_vec() });
    }
}
