//! Random operations for property tests: mostly sensible ones on what a [`Model`] has, from a small pool of names so that
//! they meet, and now and then nonsense. Deterministic for a seed.

use bytes::Bytes;

use vefs::clock::Timestamp;
use vefs::ids::InodeNo;
use vefs::limits::{FILE_SIZE_MAX, SYMLINK_MAX, XATTR_VALUE_MAX};
use vefs::op::{FallocMode, Op, Owner, RenameFlags, SetAttr, XattrMode};
use vefs::types::{Inode, Kind, mode};

use crate::model::{Model, Reader, acl};

/// A small fast random number generator (xorshift64*, Marsaglia and Vigna); not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed; every seed is good.
    pub fn new(seed: u64) -> Rng {
        // One round of splitmix64, so that near seeds part at once and 0 does not stick.
        let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Rng((z ^ (z >> 31)).max(1))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// True `percent` times of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `all`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// From this many inodes on, more is removed than made.
const CROWDED: usize = 300;

/// The next operation.
pub fn next_op(rng: &mut Rng, model: &Model) -> Op {
    let removal = if model.len() > CROWDED { 4 } else { 1 };
    type Make = fn(&mut Rng, &Model) -> Op;
    let weights: [(u64, Make); 13] = [
        (18, create),
        (3, symlink),
        (5, link),
        (8 * removal, unlink),
        (3 * removal, rmdir),
        (10, rename),
        (22, write),
        (9, setattr),
        (5, fallocate),
        (6, copy_range),
        (7, setxattr),
        (2, removexattr),
        (5 * removal, reap),
    ];
    let mut at = rng.below(weights.iter().map(|(w, _)| w).sum());
    for (weight, make) in weights {
        if at < weight {
            return make(rng, model);
        }
        at -= weight;
    }
    unreachable!("the weights have been summed")
}

fn inode(rng: &mut Rng, model: &Model, wanted: impl Fn(Kind, &Inode) -> bool) -> InodeNo {
    if rng.below(200) == 0 {
        return rng.pick(&[InodeNo(0), model.next_ino(), InodeNo(InodeNo::FIRST_PRIVATE.0 - 1), InodeNo(u64::MAX)]);
    }
    let start = rng.next_u64() as usize;
    // Mostly what was asked for, sometimes anything at all.
    let tries = if rng.percent(96) { usize::MAX } else { 0 };
    let found = model.find(start, tries, wanted).or_else(|| model.find(start, 1, |_, _| true));
    found.unwrap_or(InodeNo::ROOT)
}

fn directory(rng: &mut Rng, model: &Model) -> InodeNo {
    let orphans_too = rng.below(300) == 0;
    inode(rng, model, |kind, attr| kind == Kind::Directory && (attr.nlink > 0 || orphans_too))
}

fn file(rng: &mut Rng, model: &Model) -> InodeNo {
    inode(rng, model, |kind, _| kind == Kind::Regular)
}

fn anything(rng: &mut Rng, model: &Model) -> InodeNo {
    inode(rng, model, |_, _| true)
}

/// A name from the pool, rarely a long, odd or forbidden one.
fn name(rng: &mut Rng) -> Vec<u8> {
    match rng.below(400) {
        0 => rng.pick::<&[u8]>(&[b"", b".", b"..", b"a/b", b"a\0b", b"/"]).to_vec(),
        1 => vec![b'x'; 256 + rng.below(100) as usize],
        2 | 3 => vec![b'x'; 255],
        4..=7 => rng.pick::<&[u8]>(&[b"\xff\xfe", b"...", b" ", b"\n", "ä€𝄞".as_bytes()]).to_vec(),
        _ => vec![b'a' + rng.below(16) as u8],
    }
}

/// A directory and a name, mostly one that `wanted` takes.
fn place(rng: &mut Rng, model: &Model, wanted: impl Fn(Kind) -> bool) -> (InodeNo, Vec<u8>) {
    if rng.percent(10) {
        return (directory(rng, model), name(rng));
    }
    let mut last = None;
    for _ in 0..6 {
        let dir = directory(rng, model);
        if let Some((found, entry)) = model.nth_name(dir, rng.next_u64() as usize) {
            last = Some((dir, found.to_vec()));
            if wanted(entry.kind) {
                break;
            }
        }
    }
    match last {
        Some(found) => found,
        None => (directory(rng, model), name(rng)),
    }
}

fn owner(rng: &mut Rng) -> Owner {
    let (uid, gid) = if rng.percent(70) { (0, 0) } else { (rng.below(4) as u32, rng.below(4) as u32) };
    Owner { uid, gid, umask: rng.pick(&[0o022, 0o022, 0, 0o077, 0o777]) }
}

fn bits(rng: &mut Rng) -> u32 {
    if rng.percent(60) { rng.pick(&[0o644, 0o755, 0o666, 0o777, 0o600]) } else { rng.below(0o10000) as u32 }
}

fn create(rng: &mut Rng, model: &Model) -> Op {
    let kind = match rng.below(200) {
        0..90 => mode::IFREG,
        90..180 => mode::IFDIR,
        180..199 => rng.pick(&[mode::IFIFO, mode::IFSOCK, mode::IFCHR, mode::IFBLK]),
        _ => rng.pick(&[0, mode::IFLNK, 0o150000, mode::IFMT]),
    };
    let rdev = rng.pick(&[0, 0x103, 0x801]);
    Op::Create { parent: directory(rng, model), name: name(rng), mode: kind | bits(rng), rdev, owner: owner(rng) }
}

fn symlink(rng: &mut Rng, model: &Model) -> Op {
    let target = match rng.below(40) {
        0 => vec![b't'; SYMLINK_MAX],
        1 => vec![b't'; rng.pick(&[0, SYMLINK_MAX + 1])],
        _ => format!("../{}", rng.below(1000)).into_bytes(),
    };
    Op::Symlink { parent: directory(rng, model), name: name(rng), target, owner: owner(rng) }
}

fn link(rng: &mut Rng, model: &Model) -> Op {
    let strange = rng.percent(8);
    let ino = inode(rng, model, |kind, attr| strange || kind != Kind::Directory && attr.nlink > 0);
    Op::Link { ino, parent: directory(rng, model), name: name(rng) }
}

fn unlink(rng: &mut Rng, model: &Model) -> Op {
    let (parent, name) = place(rng, model, |kind| kind != Kind::Directory);
    Op::Unlink { parent, name }
}

fn rmdir(rng: &mut Rng, model: &Model) -> Op {
    if rng.percent(50) {
        // An empty one, found by its parent.
        let empty = |kind, attr: &Inode| kind == Kind::Directory && attr.nlink == 2 && attr.parent != InodeNo(0);
        let ino = inode(rng, model, |kind, attr| empty(kind, attr));
        if let Ok(Some(attr)) = model.inode(ino) {
            let named = model.entries(attr.parent).unwrap_or_default().into_iter().find(|(_, _, d)| d.ino == ino);
            if let Some((_, name, _)) = named {
                return Op::Rmdir { parent: attr.parent, name };
            }
        }
    }
    let (parent, name) = place(rng, model, |kind| kind == Kind::Directory);
    Op::Rmdir { parent, name }
}

fn rename(rng: &mut Rng, model: &Model) -> Op {
    let (parent, old) = place(rng, model, |_| true);
    let (new_parent, new_name) = match rng.below(10) {
        0..4 => place(rng, model, |_| true),
        4..7 => (directory(rng, model), name(rng)),
        _ => (parent, name(rng)),
    };
    let (no_replace, exchange, whiteout) = match rng.below(20) {
        0..11 => (false, false, false),
        11..13 => (true, false, false),
        13..17 => (false, true, false),
        17 => (false, false, true),
        18 => (true, false, true),
        _ => (rng.percent(50), rng.percent(50), rng.percent(50)),
    };
    Op::Rename { parent, name: old, new_parent, new_name, flags: RenameFlags { no_replace, exchange, whiteout } }
}

/// An offset or size: mostly near what the file has, rarely huge.
fn offset(rng: &mut Rng, model: &Model, ino: InodeNo) -> u64 {
    let size = model.inode(ino).ok().flatten().map_or(0, |attr| attr.size);
    match rng.below(300) {
        0 => rng.pick(&[FILE_SIZE_MAX - 1, FILE_SIZE_MAX, FILE_SIZE_MAX + 1, u64::MAX, i64::MAX as u64, 1 << 40]),
        1..60 => size,
        60..80 => size.saturating_add(rng.below(100)),
        80..120 => size.saturating_sub(rng.below(5000)),
        120..180 => rng.below(75) * 4096,
        180..200 => 0,
        _ => rng.below(300 << 10),
    }
}

fn length(rng: &mut Rng) -> u64 {
    match rng.below(200) {
        0 => 0,
        1 => rng.pick(&[u64::MAX, i64::MAX as u64, 1 << 40, FILE_SIZE_MAX]),
        2..100 => 1 + rng.below(5000),
        100..150 => (1 + rng.below(30)) * 4096,
        _ => 1 + rng.below(200 << 10),
    }
}

fn write(rng: &mut Rng, model: &Model) -> Op {
    let ino = file(rng, model);
    let len = match rng.below(400) {
        0 => 0,
        1 => (64 << 10) - 2 + rng.below(4),
        2 => (64 << 10) + rng.below(64 << 10),
        3..20 => 1 + rng.below(8 << 10),
        _ => 1 + rng.below(1000),
    };
    let data = random_bytes(rng, len as usize);
    Op::Write { ino, offset: offset(rng, model, ino), data, kill_priv: rng.percent(30) }
}

fn random_bytes(rng: &mut Rng, len: usize) -> Bytes {
    let mut data = vec![0u8; len];
    for chunk in data.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
    }
    Bytes::from(data)
}

fn setattr(rng: &mut Rng, model: &Model) -> Op {
    let time = |rng: &mut Rng| Timestamp { secs: rng.below(1 << 33) as i64 - 1000, nanos: rng.below(1 << 29) as u32 };
    let mut set = SetAttr { kill_priv: rng.percent(30), ..SetAttr::default() };
    let mut ino = anything(rng, model);
    if rng.percent(45) {
        ino = file(rng, model);
        set.size = Some(offset(rng, model, ino));
    }
    if rng.percent(30) {
        set.mode = Some(bits(rng) | rng.pick(&[0, mode::IFREG]));
    }
    if rng.percent(20) {
        set.uid = Some(rng.below(4) as u32);
    }
    if rng.percent(20) {
        set.gid = Some(rng.below(4) as u32);
    }
    if rng.percent(20) {
        set.atime = Some(time(rng));
    }
    if rng.percent(20) {
        set.mtime = Some(time(rng));
    }
    Op::Setattr { ino, set }
}

fn fallocate(rng: &mut Rng, model: &Model) -> Op {
    let keep_size = rng.percent(50);
    let how =
        rng.pick(&[FallocMode::Allocate { keep_size }, FallocMode::PunchHole, FallocMode::ZeroRange { keep_size }]);
    let ino = file(rng, model);
    Op::Fallocate { ino, mode: how, offset: offset(rng, model, ino), len: length(rng) }
}

fn copy_range(rng: &mut Rng, model: &Model) -> Op {
    let src = file(rng, model);
    let dst = if rng.percent(25) { src } else { file(rng, model) };
    let size = model.inode(src).ok().flatten().map_or(0, |attr| attr.size);
    let src_offset = if rng.percent(80) { rng.below(size.clamp(1, 300 << 10)) } else { offset(rng, model, src) };
    Op::CopyRange { src, src_offset, dst, dst_offset: offset(rng, model, dst), len: length(rng) }
}

fn xattr_name(rng: &mut Rng) -> Vec<u8> {
    let odd: [&[u8]; 9] =
        [b"", b"user.", b"user", b"system.", b"system.x", b"os2.x", b"user.a\0", b"security.capability", b"trusted."];
    match rng.below(100) {
        0..2 => rng.pick(&odd).to_vec(),
        2 => [b"user.".as_slice(), &vec![b'n'; rng.pick(&[250, 251])]].concat(),
        3..40 => rng.pick(&[acl::ACCESS, acl::ACCESS, acl::DEFAULT]).to_vec(),
        _ => {
            let space = rng.pick(&["user.", "user.", "user.", "trusted.", "security."]);
            format!("{space}{}", rng.below(5)).into_bytes()
        }
    }
}

/// An ACL's value: sound two times of three, else with something missing, doubled or out of order.
pub fn acl_value(rng: &mut Rng) -> Vec<u8> {
    let mut list = vec![(acl::USER_OBJ, 0)];
    list.extend((0..rng.below(3)).map(|id| (acl::USER, id as u32)));
    list.push((acl::GROUP_OBJ, 0));
    list.extend((0..rng.below(3)).map(|id| (acl::GROUP, id as u32)));
    if list.len() > 2 || rng.percent(20) {
        list.push((acl::MASK, 0));
    }
    list.push((acl::OTHER, 0));
    let mut list: Vec<acl::AclEntry> =
        list.into_iter().map(|(tag, id)| acl::AclEntry::new(tag, rng.below(8) as u16, id)).collect();
    let at = rng.below(list.len() as u64) as usize;
    match rng.below(30) {
        0 => drop(list.remove(at)),
        1 => list.insert(at, list[at]),
        2 => list.swap(at, 0),
        3 => list[at].perm = 8,
        4 => list[at].tag = 0x40,
        5 => list[at].id = rng.pick(&[acl::NO_ID, 5]),
        6..9 => list.clear(),
        _ => {}
    }
    let mut value = acl::encode(&list);
    match rng.below(40) {
        0 => value.truncate(rng.below(value.len() as u64) as usize),
        1 => value[0] ^= 1,
        _ => {}
    }
    value
}

fn setxattr(rng: &mut Rng, model: &Model) -> Op {
    let name = xattr_name(rng);
    let ino = if name == acl::DEFAULT && rng.percent(85) { directory(rng, model) } else { anything(rng, model) };
    let value = if name.starts_with(b"system.") {
        acl_value(rng)
    } else {
        let len = match rng.below(100) {
            0 => XATTR_VALUE_MAX + rng.below(2) as usize,
            1..4 => rng.below(9000) as usize,
            _ => rng.below(60) as usize,
        };
        random_bytes(rng, len).to_vec()
    };
    Op::Setxattr { ino, name, value, mode: rng.pick(&[XattrMode::Set, XattrMode::Create, XattrMode::Replace]) }
}

fn removexattr(rng: &mut Rng, model: &Model) -> Op {
    let ino = anything(rng, model);
    let names = model.xattr_names(ino).unwrap_or_default();
    let name = if names.is_empty() || rng.percent(20) {
        xattr_name(rng)
    } else {
        names[rng.below(names.len() as u64) as usize].clone()
    };
    Op::Removexattr { ino, name }
}

fn reap(rng: &mut Rng, model: &Model) -> Op {
    let strange = rng.percent(3);
    Op::Reap { ino: inode(rng, model, |_, attr| strange || attr.nlink == 0) }
}
