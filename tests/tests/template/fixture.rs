//! A directory tree with everything in it, and archives made here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::bed::Seen;

/// An access ACL that says more than a mode: owner rw, user 1000 r, group r, mask r, others nothing.
pub const ACL: [u8; 44] = acl();

const fn acl() -> [u8; 44] {
    let entries: [(u8, u8, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut out = [0; 44];
    out[0] = 2;
    let mut i = 0;
    while i < 5 {
        let id = entries[i].2.to_le_bytes();
        let at = 4 + 8 * i;
        out[at] = entries[i].0;
        out[at + 2] = entries[i].1;
        (out[at + 4], out[at + 5], out[at + 6], out[at + 7]) = (id[0], id[1], id[2], id[3]);
        i += 1;
    }
    out
}

/// `cap_net_raw+ep`, as the kernel keeps it (version 2); with newlines in it.
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 10, 32, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether devices, owners and attributes of all kinds can be made here; says so if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root makes devices, owners and capabilities");
    }
    root
}

fn stamp(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes the tree. Needs root.
pub fn everything(root: &Path) {
    std::fs::create_dir_all(root.join("dir/below")).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    file("empty", b"");
    mode(&file("suid", b"#!/bin/sh\n"), 0o4755);
    let small = file("dir/small", b"a small file\n");
    std::os::unix::fs::chown(&small, Some(1234), Some(100_000)).unwrap();
    let big: Vec<u8> = (0..300_001u32).map(|i| (i / 7) as u8).collect();
    let linked = file("dir/big", &big);
    std::fs::hard_link(&linked, root.join("dir/below/again")).unwrap();
    std::fs::hard_link(&linked, root.join("zz-last")).unwrap();
    file("dir/below/library", b"\x7fELF and so on");
    std::os::unix::fs::symlink("../../etc/passwd", root.join("dir/out")).unwrap();
    std::os::unix::fs::symlink("/absolute", root.join("absolute")).unwrap();
    std::os::unix::fs::symlink("x".repeat(4000), root.join("long-link")).unwrap();
    std::os::unix::fs::lchown(root.join("absolute"), Some(7), Some(8)).unwrap();
    for (name, kind, rdev) in [
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
        ("pipe", FileType::Fifo, 0),
    ] {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), rdev).unwrap();
        mode(&root.join(name), 0o640);
    }
    file(&"n".repeat(255), b"a long name");
    std::fs::write(root.join(OsStr::from_bytes(b"odd \xff\n\"name")), b"odd").unwrap();
    let deep = (0..40).fold(root.join("deep"), |path, i| path.join(format!("level-{i}")));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("leaf"), b"leaf").unwrap();
    sparse(&root.join("sparse"), 20 << 20, &[(0, b"start"), (10 << 20, b"middle")]);
    sparse(&root.join("hole"), 1 << 40, &[]);
    sparse(&root.join("small-sparse"), 40_000, &[(30_000, b"end")]);
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&small, "user.note", b"binary \0\n\xff=");
    set(&small, "trusted.note", b"t");
    set(&root.join("suid"), "security.capability", &CAPABILITY);
    set(&root.join("dir/below"), "system.posix_acl_default", &ACL);
    set(&root.join("empty"), "system.posix_acl_access", &ACL);
    set(&root.join("absolute"), "trusted.on-a-link", b"l");
    set(root, "user.root", b"r");
    mode(&root.join("dir"), 0o2775);
    mode(&root.join("deep"), 0o1777);
    stamp(&small, 1_234_567_890, 123_456_789);
    stamp(&root.join("absolute"), -5, 500_000_000);
    stamp(&root.join("dir"), 4_000_000_000, 1);
}

fn sparse(path: &Path, size: u64, parts: &[(u64, &[u8])]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    parts.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    file.sync_all().unwrap();
}

/// What a directory tree looks like to a program: path by path, as [`crate::bed::look`] has it. Inode numbers and mapped bytes are left out.
pub fn look_at(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut out = BTreeMap::new();
    let mut dirs = vec![(Vec::new(), root.to_owned())];
    out.insert(Vec::new(), one(root));
    while let Some((path, dir)) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().as_bytes().to_vec();
            let path = if path.is_empty() { name } else { [&path, &b"/"[..], &name].concat() };
            out.insert(path.clone(), one(&entry.path()));
            if entry.file_type().unwrap().is_dir() {
                dirs.push((path, entry.path()));
            }
        }
    }
    out
}

fn one(path: &Path) -> Seen {
    let m = std::fs::symlink_metadata(path).unwrap();
    let bytes = match m.file_type() {
        t if t.is_symlink() => std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
        t if t.is_file() && m.len() <= 8 << 20 => std::fs::read(path).unwrap(),
        _ => Vec::new(),
    };
    let mut names = vec![0; 65536];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value[..n].to_vec()
    };
    let names = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
    let kept = names.filter(|name| !name.starts_with(b"security.") || *name == b"security.capability");
    Seen {
        ino: 0,
        mode: m.mode(),
        owner: (m.uid(), m.gid()),
        nlink: m.nlink() as u32,
        rdev: m.rdev(),
        size: if m.is_dir() { 4096 } else { m.size() },
        mapped: 0,
        mtime: (m.mtime(), m.mtime_nsec() as u32),
        bytes,
        xattrs: kept.map(|name| (name.to_vec(), value(name))).collect(),
    }
}

/// Everything that GNU tar can keep.
pub const FULL: [&str; 5] = ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse"];

/// Makes a tar archive with GNU tar.
pub fn tar(of: &Path, to: &Path, options: &[&str]) {
    let run =
        std::process::Command::new("tar").args(options).arg("-cf").arg(to).arg("-C").arg(of).arg(".").output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// The bytes, compressed.
pub fn pack(bytes: &[u8], how: &str) -> Vec<u8> {
    match how {
        "gz" => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            to.write_all(bytes).unwrap();
            to.finish().unwrap()
        }
        "xz" => {
            let mut to = liblzma::write::XzEncoder::new(Vec::new(), 1);
            to.write_all(bytes).unwrap();
            to.finish().unwrap()
        }
        "zst" => zstd::encode_all(bytes, 1).unwrap(),
        other => panic!("{other}"),
    }
}

/// An archive member made by hand.
#[derive(Clone, Copy)]
pub enum Make<'a> {
    Dir(u32),
    File(&'a [u8]),
    Symlink(&'a str),
    Link(&'a str),
}

/// A tar archive made by hand: owner 0:0, time 1000, files of mode 0644.
pub fn archive(members: &[(&str, Make<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, make) in members {
        let (kind, mode, link, bytes): (_, _, &str, &[u8]) = match make {
            Make::Dir(mode) => (tar::EntryType::Directory, *mode, "", b""),
            Make::File(bytes) => (tar::EntryType::Regular, 0o644, "", bytes),
            Make::Symlink(target) => (tar::EntryType::Symlink, 0o777, target, b""),
            Make::Link(target) => (tar::EntryType::Link, 0o644, target, b""),
        };
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}
