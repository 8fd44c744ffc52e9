//! The model against the kernel's own file system: random operations run in both, answers and states must agree. This is
//! what says that the oracle is right where it claims to be as Linux is.
//!
//! Known differences, left out by [`prepare`], each with its reason:
//! - mkdir(2) drops set-user-ID and set-group-ID, mknod(2) without type bits makes a file; the core gets modes below that.
//! - `.`, `..`, empty names and names with `/` or NUL never reach a file system from the kernel.
//! - A name that is too long is found only at its lookup, after the directory and the other name of a rename.
//! - The kernel clears set-group-ID without group execution for callers outside the group.
//! - Local limits: largest file and room for extended attributes are smaller, a huge reservation meets a full disk.
//! - Opening decides about special files before writing does, so content is tried on files and directories only; a `len` of 0
//!   on a directory likewise.
//! - Numbers of errors that differ: default ACL on a file (EACCES), an ACL's unknown version (EOPNOTSUPP), an empty or
//!   bare attribute name, a malformed ACL on a symlink; an empty ACL value removes.
//! - ext4 gives a whiteout the group and ACL of its directory; here it has none.
//! - Orphans are reaped at once, as nobody holds them open; sizes of directories and all times are not compared.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self as sys, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use vefs::clock::Timestamp;
use vefs::ids::InodeNo;
use vefs::op::{FallocMode, Op, Owner, RenameFlags, Reply, SetAttr, XattrMode};
use vefs::types::{Kind, mode};

use super::{Model, Reader, acl};
use crate::opgen::{Rng, next_op};

/// No offset or length beyond this is tried on the real file system.
const FAR: u64 = 4 << 20;
/// Extended attribute bytes of one inode that every ext4 has room for.
const XATTR_ROOM: usize = 1500;

/// The paths of all inodes that have one, the first in depth-first order.
fn paths(model: &Model, root: &Path) -> HashMap<InodeNo, PathBuf> {
    let mut all = HashMap::from([(InodeNo::ROOT, root.to_owned())]);
    let mut todo = vec![InodeNo::ROOT];
    while let Some(dir) = todo.pop() {
        for (_, name, entry) in model.entries(dir).unwrap() {
            let path = all[&dir].join(std::ffi::OsStr::from_bytes(&name));
            all.entry(entry.ino).or_insert(path);
            if entry.kind == Kind::Directory {
                todo.push(entry.ino);
            }
        }
    }
    all
}

/// Fits an operation to what can be compared; `None` where the two differ on purpose.
fn prepare(model: &Model, op: Op, umask: u32) -> Option<Op> {
    let sound =
        |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|b| b"/\0".contains(b));
    let at = |ino| model.inode(ino).unwrap();
    let is_dir = |ino| at(ino).is_some_and(|a| a.is_dir());
    let short = |name: &[u8]| name.len() <= 255;
    let owner = Owner { uid: 0, gid: 0, umask };
    let writable = |ino| {
        at(ino).is_some_and(|a| {
            (a.is_file() || a.is_dir()) && (a.mode & (mode::ISGID | mode::IXGRP) != mode::ISGID || a.is_dir())
        })
    };
    match op {
        Op::Create { parent, name, mode: m, rdev, .. } if sound(&name) && (short(&name) || is_dir(parent)) => {
            let kind = Kind::of_mode(m).filter(|k| *k != Kind::Symlink)?;
            let m = if kind == Kind::Directory { m & (mode::IFMT | 0o1777) } else { m };
            Some(Op::Create { parent, name, mode: m, rdev, owner })
        }
        Op::Symlink { parent, name, target, .. } if sound(&name) && (short(&name) || is_dir(parent)) => {
            // ext4's own limit is a block with its NUL.
            (target.len() != 4095).then_some(Op::Symlink { parent, name, target, owner })
        }
        Op::Link { ref name, parent, .. } => (sound(name) && (short(name) || is_dir(parent))).then_some(op),
        Op::Unlink { ref name, parent } | Op::Rmdir { ref name, parent } => {
            (sound(name) && (short(name) || is_dir(parent))).then_some(op)
        }
        Op::Rename { parent, ref name, new_parent, ref new_name, flags } => {
            let fits = short(name) && short(new_name) && sound(name) && sound(new_name);
            let plain_dir = at(parent)?.mode & mode::ISGID == 0 && model.xattr(parent, acl::DEFAULT).is_err();
            // The two directories are looked at before each other's errors: one wrong one at a time.
            let dirs = is_dir(parent) || is_dir(new_parent);
            (fits && dirs && (plain_dir || !flags.whiteout)).then_some(op)
        }
        Op::Write { ino, offset, data, .. } if writable(ino) && offset < FAR => {
            Some(Op::Write { ino, offset, data, kill_priv: true })
        }
        Op::Setattr { ino, set } => {
            let symlink_mode = set.mode.is_some() && at(ino)?.kind() == Kind::Symlink;
            let size_fits = set.size.is_none_or(|s| s < FAR && writable(ino));
            let set = SetAttr { kill_priv: true, atime: None, mtime: None, ..set };
            (!symlink_mode && size_fits).then_some(Op::Setattr { ino, set })
        }
        Op::Fallocate { ino, offset, len, .. } => {
            (writable(ino) && offset < FAR && len < FAR && (len > 0 || !is_dir(ino))).then_some(op)
        }
        Op::CopyRange { src, src_offset, dst, dst_offset, len } => {
            let near = src_offset < FAR && dst_offset < FAR && len < FAR;
            (writable(src) && writable(dst) && near).then_some(op)
        }
        Op::Setxattr { ino, ref name, ref value, .. } => {
            let kind = at(ino)?.kind();
            let held: usize = model.xattr_names(ino).ok()?.iter().map(|n| n.len() + 30).sum::<usize>()
                + model.xattr_names(ino).ok()?.iter().flat_map(|n| model.xattr(ino, n)).map(|v| v.len()).sum::<usize>();
            let fits = held + name.len() + value.len() < XATTR_ROOM;
            let version = value.get(..4).is_none_or(|v| v == acl::VERSION.to_le_bytes());
            let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
            let acl_fits = version
                && !value.is_empty()
                && (name == acl::ACCESS || kind == Kind::Directory)
                && (kind != Kind::Symlink || acl::parse(value).is_ok());
            (usual_xattr(name) && fits && (!is_acl || acl_fits)).then_some(op)
        }
        Op::Removexattr { ref name, .. } => usual_xattr(name).then_some(op),
        _ => None,
    }
}

fn usual_xattr(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&0) && !name.ends_with(b".") && name != b"security.capability"
}

/// Runs `body` as a caller whose changes of content clear set-user-ID and set-group-ID.
fn unprivileged<T>(body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let all = capabilities(None)?;
    let mut fewer = all;
    fewer.effective.remove(CapabilitySet::FSETID);
    set_capabilities(None, fewer)?;
    let answer = body();
    set_capabilities(None, all)?;
    answer
}

/// Opens a directory to name things in; also what is none, so that the operation itself finds out.
fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    sys::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn open_file(path: &Path, write: bool) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let open = OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path);
    open.map_err(|e| io::Errno::from_raw_os_error(e.raw_os_error().unwrap()))
}

fn raw<T>(answer: std::io::Result<T>) -> io::Result<T> {
    answer.map_err(|e| io::Errno::from_raw_os_error(e.raw_os_error().unwrap()))
}

/// Carries out `op` for real. `None` where an inode has no path (any more): nothing to compare.
fn run(paths: &HashMap<InodeNo, PathBuf>, op: &Op) -> Option<io::Result<Option<u64>>> {
    let path = |ino: &InodeNo| paths.get(ino);
    let done = |answer: io::Result<()>| Some(answer.map(|()| None));
    match op {
        Op::Create { parent, name, mode: m, rdev, .. } => {
            let (dir, bits) = (open_dir(path(parent)?).unwrap(), Mode::from_raw_mode(m & mode::PERM));
            if m & mode::IFMT == mode::IFDIR {
                return done(sys::mkdirat(dir, name.as_slice(), bits));
            }
            done(sys::mknodat(dir, name.as_slice(), FileType::from_raw_mode(*m), bits, *rdev))
        }
        Op::Symlink { parent, name, target, .. } => {
            done(sys::symlinkat(target.as_slice(), open_dir(path(parent)?).unwrap(), name.as_slice()))
        }
        Op::Link { ino, parent, name } => {
            let dir = open_dir(path(parent)?).unwrap();
            done(sys::linkat(CWD, path(ino)?, dir, name.as_slice(), AtFlags::empty()))
        }
        Op::Unlink { parent, name } => {
            done(sys::unlinkat(open_dir(path(parent)?).unwrap(), name.as_slice(), AtFlags::empty()))
        }
        Op::Rmdir { parent, name } => {
            done(sys::unlinkat(open_dir(path(parent)?).unwrap(), name.as_slice(), AtFlags::REMOVEDIR))
        }
        Op::Rename { parent, name, new_parent, new_name, flags } => {
            let (from, to) = (open_dir(path(parent)?).unwrap(), open_dir(path(new_parent)?).unwrap());
            done(sys::renameat_with(from, name.as_slice(), to, new_name.as_slice(), rename_flags(*flags)))
        }
        Op::Setattr { ino, set } => done(run_setattr(path(ino)?, set)),
        Op::Setxattr { ino, name, value, mode } => {
            let flags = match mode {
                XattrMode::Set => XattrFlags::empty(),
                XattrMode::Create => XattrFlags::CREATE,
                XattrMode::Replace => XattrFlags::REPLACE,
            };
            done(sys::lsetxattr(path(ino)?, name.as_slice(), value, flags))
        }
        Op::Removexattr { ino, name } => done(sys::lremovexattr(path(ino)?, name.as_slice())),
        Op::Write { .. } | Op::Fallocate { .. } | Op::CopyRange { .. } => run_content(paths, op),
        Op::Reap { .. } | Op::Trim { .. } => None,
    }
}

fn run_content(paths: &HashMap<InodeNo, PathBuf>, op: &Op) -> Option<io::Result<Option<u64>>> {
    let path = |ino: &InodeNo| paths.get(ino);
    match op {
        Op::Write { ino, offset, data, .. } => {
            let path = path(ino)?;
            let write = || raw(open_file(path, true)?.write_at(data, *offset));
            Some(unprivileged(write).map(|n| Some(n as u64)))
        }
        Op::Fallocate { ino, mode, offset, len } => {
            let keep = |keep_size| if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
            let flags = match *mode {
                FallocMode::Allocate { keep_size } => keep(keep_size),
                FallocMode::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                FallocMode::ZeroRange { keep_size } => FallocateFlags::ZERO_RANGE | keep(keep_size),
            };
            let path = path(ino)?;
            let answer = unprivileged(|| sys::fallocate(open_file(path, true)?, flags, *offset, *len));
            Some(answer.map(|()| None))
        }
        Op::CopyRange { src, src_offset, dst, dst_offset, len } => {
            let (from, to) = (path(src)?, path(dst)?);
            let (mut src_offset, mut dst_offset) = (*src_offset, *dst_offset);
            let copy = || {
                let (from, to) = (open_file(from, false)?, open_file(to, true)?);
                sys::copy_file_range(from, Some(&mut src_offset), to, Some(&mut dst_offset), *len as usize)
            };
            Some(unprivileged(copy).map(|n| Some(n as u64)))
        }
        _ => None,
    }
}

fn rename_flags(flags: RenameFlags) -> sys::RenameFlags {
    let mut all = sys::RenameFlags::empty();
    all.set(sys::RenameFlags::NOREPLACE, flags.no_replace);
    all.set(sys::RenameFlags::EXCHANGE, flags.exchange);
    all.set(sys::RenameFlags::WHITEOUT, flags.whiteout);
    all
}

fn run_setattr(path: &Path, set: &SetAttr) -> io::Result<()> {
    if let Some(size) = set.size {
        unprivileged(|| raw(open_file(path, true)?.set_len(size)))?;
    }
    if set.uid.is_some() || set.gid.is_some() {
        let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
        sys::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    match set.mode {
        Some(bits) => sys::chmodat(CWD, path, Mode::from_raw_mode(bits & mode::PERM), AtFlags::empty()),
        None => Ok(()),
    }
}

fn real_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 64 << 10];
    let len = sys::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|b| *b == 0).filter(|n| !n.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0u8; 64 << 10];
        let len = sys::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// The whole tree, by every path of the model.
fn compare_trees(model: &Model, root: &Path, context: &str) {
    let mut numbers = HashMap::new();
    let mut todo = vec![(InodeNo::ROOT, root.to_owned())];
    while let Some((ino, path)) = todo.pop() {
        let context = format!("{context}: {path:?}");
        let attr = model.inode(ino).unwrap().unwrap();
        let real = sys::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let ours = (format!("{:o}", attr.mode), attr.nlink, attr.uid, attr.gid, attr.rdev);
        let theirs = (format!("{:o}", real.st_mode), real.st_nlink as u32, real.st_uid, real.st_gid, real.st_rdev);
        assert_eq!(ours, theirs, "{context}: mode, nlink, uid, gid, rdev");
        assert_eq!(*numbers.entry(ino).or_insert(real.st_ino), real.st_ino, "{context}: inode");
        let names = model.xattr_names(ino).unwrap().into_iter();
        let xattrs: BTreeMap<_, _> = names.map(|n| (n.clone(), model.xattr(ino, &n).unwrap())).collect();
        assert_eq!(xattrs, real_xattrs(&path), "{context}: extended attributes");
        if !attr.is_dir() {
            assert_eq!(attr.size, real.st_size as u64, "{context}: size");
        }
        match attr.kind() {
            Kind::Regular => {
                let same = model.read(ino, 0, attr.size).unwrap() == std::fs::read(&path).unwrap();
                assert!(same, "{context}: content of inode {ino}");
            }
            Kind::Symlink => {
                let target = std::fs::read_link(&path).unwrap();
                assert_eq!(model.target(ino).unwrap(), target.as_os_str().as_bytes(), "{context}");
            }
            Kind::Directory => {
                let real = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec());
                let mut real: Vec<Vec<u8>> = real.collect();
                real.sort();
                let entries = model.entries(ino).unwrap();
                let mut ours: Vec<Vec<u8>> = entries.iter().map(|(_, name, _)| name.clone()).collect();
                ours.sort();
                assert_eq!(ours, real, "{context}: names");
                let below = |name: &[u8]| path.join(std::ffi::OsStr::from_bytes(name));
                todo.extend(entries.iter().map(|(_, name, entry)| (entry.ino, below(name))));
            }
            _ => {}
        }
    }
}

/// Why the mirror cannot run here, if so.
fn obstacle(root: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root: owners, device files and capabilities".to_owned());
    }
    if !capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::FSETID | CapabilitySet::MKNOD)) {
        return Some("needs the capabilities to make devices and keep set-user-ID".to_owned());
    }
    let probe = root.join("probe");
    std::fs::create_dir(&probe).unwrap();
    let minimal = [(acl::USER_OBJ, 7), (acl::GROUP_OBJ, 5), (acl::OTHER, 5)];
    let value = acl::encode(&minimal.map(|(tag, perm)| acl::AclEntry::new(tag, perm, 0)));
    let answer = sys::lsetxattr(&probe, acl::DEFAULT, &value, XattrFlags::empty())
        .and_then(|()| sys::lsetxattr(&probe, "user.a", b"1", XattrFlags::empty()))
        .and_then(|()| sys::mknodat(CWD, probe.join("w"), FileType::CharacterDevice, Mode::empty(), 0))
        .and_then(|()| sys::fallocate(raw(File::create(probe.join("f")))?, FallocateFlags::ZERO_RANGE, 0, 1));
    std::fs::remove_dir_all(&probe).unwrap();
    answer.err().map(|e| format!("the local file system lacks ACLs, attributes, devices or fallocate: {e}"))
}

fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

#[test]
fn the_model_answers_as_the_local_file_system_does() {
    let umask = umask();
    for seed in 0..4u64 {
        let root = tempfile::tempdir().unwrap();
        if let Some(why) = obstacle(root.path()) {
            eprintln!("skipped: {why}");
            return;
        }
        sys::chmodat(CWD, root.path(), Mode::from_raw_mode(0o755), AtFlags::empty()).unwrap();
        let mut model = Model::new(u64::MAX, u64::MAX);
        let mut rng = Rng::new(seed);
        let (mut ran, mut failed) = (0, 0);
        for step in 0..5000 {
            let Some(op) = prepare(&model, next_op(&mut rng, &model), umask) else { continue };
            let Some(real) = run(&paths(&model, root.path()), &op) else { continue };
            let answer = model.apply(&op, Timestamp::default());
            let context = format!("seed {seed}, step {step}, {op:?}");
            match (&answer, real) {
                (Ok(Reply::Written(n)), Ok(Some(real))) => assert_eq!(*n, real, "{context}"),
                (Ok(Reply::Inode(..) | Reply::Done), Ok(None)) => {}
                (Err(e), Err(real)) => {
                    assert_eq!(e.code(), real.raw_os_error(), "{context}");
                    failed += 1;
                }
                (answer, real) => panic!("{context}: model {answer:?}, real {real:?}"),
            }
            ran += 1;
            while let Some(ino) = model.find(0, usize::MAX, |_, attr| attr.nlink == 0) {
                model.apply(&Op::Reap { ino }, Timestamp::default()).unwrap();
            }
            if ran % 40 == 0 {
                compare_trees(&model, root.path(), &context);
            }
        }
        compare_trees(&model, root.path(), &format!("seed {seed}, end"));
        assert!(ran > 3000 && failed > 200, "seed {seed}: {ran} operations ran, {failed} of them failed");
    }
}
