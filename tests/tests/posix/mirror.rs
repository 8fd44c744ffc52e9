//! Random operations on a mounted VE over a template and on the tree that it was made from, which lies on ext4: every answer and the whole
//! state must be the same (promise G8).
//!
//! Left out, each with its reason:
//! - Times: pjdfstest knows what must change when. Sizes of directories: ext4's are its blocks.
//! - The caller lacks CAP_FSETID: with it, ext4 keeps set-user-ID over a truncation, which is a listed deviation.
//! - Access ACLs of set-group-ID files: FUSE does not tell that the bit has to go, a listed deviation.
//! - chown(2) of nobody to nobody, which FUSE does not tell apart from nothing: a listed deviation.
//! - Set-group-ID without group execution: see [`tree::comparable`].
//! - SEEK_DATA in a directory, which file systems answer as they like.
//! - Extended attributes are small: ext4 has room for less than a block.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aspfs_tests::mounted::system::Mapping;
use aspfs_tests::mounted::{Bed, reference};
use aspfs_tests::opgen::Rng;
use rustix::fs::{self as sys, AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, SeekFrom, XattrFlags};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::tree::{self, FOLDERS, NAMES, acl, pattern};
use crate::{PROGRAM, VE, rounds};

/// What a program is answered: a number or bytes, or the error's number.
type Answer = Result<Vec<u8>, i32>;

/// Something to do, with paths below a root.
#[derive(Clone, Debug)]
enum Op {
    Open(PathBuf, i32, u32),
    Write(PathBuf, i32, u64, usize),
    Map(PathBuf, usize),
    Read(PathBuf, i32, u64, usize),
    Truncate(PathBuf, u64),
    Allocate(PathBuf, u32, u64, u64),
    Copy(PathBuf, u64, PathBuf, u64, usize),
    Seek(PathBuf, bool, u64),
    Mkdir(PathBuf, u32),
    Mknod(PathBuf, u8, u32),
    Symlink(String, PathBuf),
    Link(PathBuf, PathBuf, bool),
    Unlink(PathBuf),
    Rmdir(PathBuf),
    Rename(PathBuf, PathBuf, u32),
    Chmod(PathBuf, u32),
    Chown(PathBuf, Option<u32>, Option<u32>, bool),
    SetXattr(PathBuf, &'static str, Vec<u8>, u32),
    RemoveXattr(PathBuf, &'static str),
    Stat(PathBuf, bool),
    List(PathBuf),
    ReadLink(PathBuf),
    /// Keeps a file open.
    Hold(PathBuf),
    /// Writes to and reads from the file that has been open for longest, and closes it.
    Release(u64, usize),
}

/// A root and what the program has open there.
struct Side {
    root: PathBuf,
    held: Vec<File>,
}

fn number(e: &std::io::Error) -> i32 {
    e.raw_os_error().unwrap_or(-1)
}

fn none(done: std::io::Result<()>) -> Answer {
    done.map(|()| Vec::new()).map_err(|e| number(&e))
}

fn rnone(done: rustix::io::Result<()>) -> Answer {
    done.map(|()| Vec::new()).map_err(|e| e.raw_os_error())
}

impl Side {
    fn open(&self, path: &Path, flags: i32, mode: u32) -> std::io::Result<File> {
        // Never waits for a fifo's other end.
        let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let read = flags & libc::O_ACCMODE != libc::O_WRONLY;
        let mut options = OpenOptions::new();
        options.read(read).write(write).custom_flags(flags & !libc::O_ACCMODE & !libc::O_CREAT | libc::O_NONBLOCK);
        if flags & libc::O_CREAT != 0 && write {
            options.create(true).mode(mode);
        }
        options.open(self.root.join(path))
    }

    fn run(&mut self, op: &Op) -> Answer {
        let at = |path: &Path| self.root.join(path);
        match op {
            Op::Mkdir(path, mode) => rnone(sys::mkdir(at(path), Mode::from_raw_mode(*mode))),
            Op::Mknod(path, kind, mode) => {
                let kinds = [FileType::RegularFile, FileType::Fifo, FileType::Socket, FileType::CharacterDevice];
                let device = if *kind == 3 { sys::makedev(1, 3) } else { 0 };
                rnone(sys::mknodat(CWD, at(path), kinds[*kind as usize], Mode::from_raw_mode(*mode), device))
            }
            Op::Symlink(target, path) => none(std::os::unix::fs::symlink(target, at(path))),
            Op::Link(from, to, follow) => {
                let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                rnone(sys::linkat(CWD, at(from), CWD, at(to), flags))
            }
            Op::Unlink(path) => rnone(sys::unlink(at(path))),
            Op::Rmdir(path) => rnone(sys::rmdir(at(path))),
            Op::Rename(from, to, flags) => {
                let flags = RenameFlags::from_bits_retain(*flags);
                rnone(sys::renameat_with(CWD, at(from), CWD, at(to), flags))
            }
            Op::Chmod(path, mode) => none(fs::set_permissions(at(path), PermissionsExt::from_mode(*mode))),
            Op::Chown(path, uid, gid, follow) => {
                let flags = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
                rnone(sys::chownat(CWD, at(path), uid.map(sys::Uid::from_raw), gid.map(sys::Gid::from_raw), flags))
            }
            Op::SetXattr(path, name, ..) if *name == tree::ACCESS && tree::is_setgid(&at(path)) => Ok(Vec::new()),
            Op::SetXattr(path, name, value, flags) => {
                rnone(sys::lsetxattr(at(path), *name, value, XattrFlags::from_bits_retain(*flags)))
            }
            Op::RemoveXattr(path, name) => rnone(sys::lremovexattr(at(path), *name)),
            Op::Stat(path, follow) => {
                let flags = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
                let at = sys::statat(CWD, at(path), flags).map_err(|e| e.raw_os_error())?;
                let size = if FileType::from_raw_mode(at.st_mode) == FileType::Directory { 0 } else { at.st_size };
                let mode = tree::comparable(at.st_mode);
                Ok(format!("{mode:o} {} {} {} {size}", at.st_nlink, at.st_uid, at.st_gid).into_bytes())
            }
            Op::List(path) => {
                let entries = fs::read_dir(at(path)).map_err(|e| number(&e))?;
                let mut names: Vec<Vec<u8>> = entries.map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect();
                names.sort();
                Ok(names.join(&b'/'))
            }
            Op::ReadLink(path) => {
                fs::read_link(at(path)).map(|t| t.as_os_str().as_bytes().to_vec()).map_err(|e| number(&e))
            }
            _ => self.content(op).map_err(|e| number(&e)),
        }
    }

    fn content(&mut self, op: &Op) -> std::io::Result<Vec<u8>> {
        const RW: i32 = libc::O_RDWR;
        match op {
            Op::Open(path, flags, mode) => self.open(path, *flags, *mode).map(|_| Vec::new()),
            Op::Write(path, flags, offset, len) => {
                let n = self.open(path, RW | flags, 0o644)?.write_at(&pattern(*len, *offset), *offset)?;
                Ok(n.to_le_bytes().to_vec())
            }
            Op::Map(path, at) => {
                let file = self.open(path, RW, 0)?;
                let len = file.metadata()?.len() as usize;
                if file.metadata()?.is_file() && *at < len {
                    let map = Mapping::new(&file, len, true, true)?;
                    map.write(*at, b"m");
                    // Programs need not call msync(2): what is read next sees it.
                    return Ok(map.read(at.saturating_sub(5), 5.min(*at)));
                }
                Ok(Vec::new())
            }
            Op::Read(path, flags, offset, len) => {
                let mut bytes = vec![0; *len];
                let n = self.open(path, *flags, 0)?.read_at(&mut bytes, *offset)?;
                bytes.truncate(n);
                Ok(bytes)
            }
            Op::Truncate(path, len) => self.open(path, libc::O_WRONLY, 0)?.set_len(*len).map(|()| Vec::new()),
            Op::Allocate(path, mode, offset, len) => {
                let file = self.open(path, libc::O_WRONLY, 0)?;
                sys::fallocate(&file, FallocateFlags::from_bits_retain(*mode), *offset, *len)?;
                Ok(Vec::new())
            }
            Op::Copy(from, offset, to, into, len) => {
                let (from, to) = (self.open(from, libc::O_RDONLY, 0)?, self.open(to, RW, 0)?);
                let (mut offset, mut into) = (*offset, *into);
                let n = sys::copy_file_range(&from, Some(&mut offset), &to, Some(&mut into), *len)?;
                Ok(n.to_le_bytes().to_vec())
            }
            Op::Seek(path, data, offset) => {
                let file = self.open(path, libc::O_RDONLY, 0)?;
                // Where exactly is compared with the trees; whether there is data at all depends on the granularity of holes.
                if file.metadata()?.is_file() && *data {
                    let _ = sys::seek(&file, SeekFrom::Data(*offset));
                } else if file.metadata()?.is_file() {
                    sys::seek(&file, SeekFrom::Hole(*offset))?;
                }
                Ok(Vec::new())
            }
            Op::Hold(path) => {
                let file = self.open(path, RW, 0)?;
                self.held.push(file);
                Ok(Vec::new())
            }
            Op::Release(offset, len) if !self.held.is_empty() => {
                let file: OwnedFd = self.held.remove(0).into();
                let file = File::from(file);
                if !file.metadata()?.is_file() {
                    return Ok(Vec::new());
                }
                file.write_at(&pattern(*len, 3), *offset)?;
                let mut bytes = vec![0; 100_000];
                let n = file.read_at(&mut bytes, offset.saturating_sub(1000))?;
                bytes.truncate(n);
                bytes.extend(file.metadata()?.nlink().to_le_bytes());
                Ok(bytes)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// Draws operations.
struct Draw(Rng);

impl Draw {
    fn path(&mut self) -> PathBuf {
        let rng = &mut self.0;
        let folder = rng.pick(&FOLDERS);
        let name = match rng.below(60) {
            0 => "n".repeat(255),
            1 => "n".repeat(256),
            2 => "log/under".to_owned(),
            3 => "dirlink/log".to_owned(),
            4..13 => rng.pick(&["new1", "new2", "new3", "sub", "sub/new"]).to_owned(),
            // The folder itself; the root's own name is not the mount's affair.
            13 if !folder.is_empty() => String::new(),
            _ => rng.pick(&NAMES).to_owned(),
        };
        Path::new(folder).join(OsStr::new(&name))
    }

    fn offset(&mut self) -> u64 {
        match self.0.below(4) {
            0 => self.0.below(1000),
            1 => self.0.below(100) * 4096,
            _ => self.0.below(350_000),
        }
    }

    fn len(&mut self) -> usize {
        match self.0.below(10) {
            0 => 65_536 + self.0.below(80_000) as usize,
            1..4 => self.0.below(20_000) as usize,
            _ => 1 + self.0.below(300) as usize,
        }
    }

    fn mode(&mut self) -> u32 {
        self.0.pick(&[0o644, 0o755, 0o600, 0o4755, 0o2755, 0o6711, 0o1777, 0o777, 0])
    }

    fn open_flags(&mut self) -> i32 {
        let access = self.0.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]);
        let more = [0, libc::O_TRUNC, libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_NOFOLLOW, libc::O_DIRECTORY];
        access | self.0.pick(&more)
    }

    fn xattr(&mut self) -> (&'static str, Vec<u8>) {
        let permissions = std::array::from_fn(|_| self.0.below(8) as u16);
        match self.0.below(8) {
            0 => (tree::ACCESS, acl(self.0.below(40) as u32, permissions)),
            1 => ("system.posix_acl_default", acl(self.0.below(40) as u32, permissions)),
            2 => ("trusted.t", vec![1; self.0.below(40) as usize]),
            3 => ("user.kind", b"other".to_vec()),
            4 => ("nonsense", vec![0]),
            _ => ("user.b", vec![2; self.0.below(100) as usize]),
        }
    }

    fn op(&mut self) -> Op {
        let path = self.path();
        match self.0.below(104) {
            0..8 => Op::Open(path, self.open_flags(), self.mode()),
            8..24 => {
                let flags = self.0.pick(&[0, 0, 0, libc::O_APPEND, libc::O_TRUNC, libc::O_CREAT, libc::O_SYNC]);
                Op::Write(path, flags, self.offset(), self.len())
            }
            24..28 => Op::Map(path, self.offset() as usize),
            28..36 => Op::Read(path, libc::O_RDONLY, self.offset(), self.len()),
            36..40 => Op::Truncate(path, self.offset()),
            40..44 => {
                // Nothing, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE.
                let mode = self.0.pick(&[0, 1, 3, 16, 17]);
                Op::Allocate(path, mode, self.offset(), self.len() as u64)
            }
            44..48 => Op::Copy(path, self.offset(), self.path(), self.offset(), self.len()),
            48..50 => Op::Seek(path, self.0.percent(50), self.offset()),
            50..54 => Op::Mkdir(path, self.mode() & 0o1777),
            54..57 => Op::Mknod(path, self.0.below(4) as u8, self.mode()),
            57..60 => Op::Symlink(self.path().display().to_string(), path),
            60..64 => Op::Link(path, self.path(), self.0.percent(30)),
            64..69 => Op::Unlink(path),
            69..72 => Op::Rmdir(path),
            // Nothing, NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE.
            72..80 => Op::Rename(path, self.path(), self.0.pick(&[0, 0, 0, 1, 2, 3])),
            80..83 => Op::Chmod(path, self.mode()),
            83..86 => {
                let id = |rng: &mut Rng| if rng.percent(30) { None } else { Some(rng.below(60) as u32) };
                let (uid, gid) = (id(&mut self.0), id(&mut self.0));
                let gid = if uid.is_none() { gid.or(Some(1)) } else { gid };
                Op::Chown(path, uid, gid, self.0.percent(50))
            }
            86..90 => {
                let (name, value) = self.xattr();
                Op::SetXattr(path, name, value, self.0.pick(&[0, 0, 1, 2]))
            }
            90..92 => Op::RemoveXattr(path, self.xattr().0),
            92..95 => Op::Stat(path, self.0.percent(50)),
            95..97 => Op::List(path),
            97 => Op::ReadLink(path),
            98..101 => Op::Hold(path),
            _ => Op::Release(self.offset(), self.len()),
        }
    }
}

/// Both roots, from a bed whose VE is made from a tree on ext4.
fn sides(bed: &Bed, right: &Path) -> [Side; 2] {
    bed.import(right, &[VE]);
    bed.run();
    let ve = bed.mount(VE, &[]);
    tree::compare(right, &ve, "the template");
    [right, &ve].map(|root| Side { root: root.to_owned(), held: Vec::new() })
}

/// checks G8
#[test]
fn a_mount_answers_as_ext4_does() {
    for seed in 1..=rounds("ASPFS_MIRRORS", 3) {
        let Some(right) = reference() else { return };
        tree::make(right.path());
        let Some(bed) = Bed::make(PROGRAM, Duration::from_secs(300)) else { return };
        let mut sides = sides(&bed, right.path());
        std::thread::scope(|s| s.spawn(|| mirror(&mut sides, seed, 4000)).join()).unwrap();
        let [_, here] = &mut sides;
        here.held.clear();
        bed.umount(VE);
        bed.mount(VE, &[]);
        tree::compare(right.path(), &here.root, &format!("seed {seed}, mounted again"));
        bed.finish();
    }
}

fn mirror(sides: &mut [Side; 2], seed: u64, steps: u32) {
    // Of this thread only.
    let mut fewer = capabilities(None).unwrap();
    fewer.effective.remove(CapabilitySet::FSETID);
    set_capabilities(None, fewer).unwrap();
    let mut draw = Draw(Rng::new(seed));
    let mut failed = 0;
    let mut last = Vec::new();
    for step in 0..steps {
        let op = draw.op();
        let context = format!("seed {seed}, step {step}, {op:?}");
        let [right, here] = sides;
        let (expected, found) = (right.run(&op), here.run(&op));
        let short = |a: &Answer| {
            a.as_ref().map(|b| String::from_utf8_lossy(&b[..b.len().min(80)]).into_owned()).map_err(|e| *e)
        };
        assert!(
            expected == found,
            "{context}: ext4 {:?}, here {:?}\nbefore: {last:#?}",
            short(&expected),
            short(&found)
        );
        failed += u32::from(expected.is_err());
        last.push(op);
        if last.len() > 12 {
            last.remove(0);
        }
        if step % 250 == 249 {
            tree::compare(&sides[0].root, &sides[1].root, &context);
        }
        if step % 50 == 49 {
            restock(sides, &context);
        }
    }
    tree::compare(&sides[0].root, &sides[1].root, &format!("seed {seed}, end"));
    println!("seed {seed}: {steps} operations, {failed} of them failed, as on ext4");
    assert!(failed > steps / 20 && failed < steps / 10 * 9);
}

/// Makes again what was moved away, so that there is always something to work on.
fn restock(sides: &mut [Side; 2], context: &str) {
    for folder in &FOLDERS {
        let files =
            ["log", "tool", "large"].map(|name| Op::Write(Path::new(folder).join(name), libc::O_CREAT, 0, 9000));
        for op in [Op::Mkdir(folder.into(), 0o755)].into_iter().chain(files) {
            assert_eq!(sides[0].run(&op), sides[1].run(&op), "{context}, then {op:?}");
        }
    }
}
