//! A loaded tree: compact tables that all VEs over it share, and the questions they answer.
//!
//! The tables are filled by [`super::load`] only, and checked whole before anybody sees them.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::FIRST_COOKIE;
use super::check::DIR_SIZE;
use crate::clock::Timestamp;
use crate::ids::{Hash, InodeNo};
use crate::types::{Dentry, Extent, Inode, Kind, Source, mode};

/// A base tree in memory. Immutable.
pub struct BaseTree {
    pub(super) hash: Hash,
    pub(super) inodes: Vec<Row>,
    /// Access, change, attribute change and creation times that occur, each set once.
    pub(super) times: Vec<[Timestamp; 4]>,
    /// All entries, directory after directory in order of inodes.
    pub(super) entries: Vec<Slot>,
    pub(super) names: Vec<u8>,
    pub(super) targets: Vec<u8>,
    pub(super) runs: Vec<(u64, Extent)>,
    pub(super) xattrs: HashMap<u32, Box<[Xattr]>>,
}

/// Name and value of an extended attribute.
pub(super) type Xattr = (Box<[u8]>, Box<[u8]>);

/// The fixed part of an inode.
pub(super) struct Row {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Index of its times.
    pub times: u32,
    /// Parent of a directory, else 0.
    pub parent: u32,
    /// Size, or for a device its number: devices have no size.
    pub value: u64,
    pub mapped: u64,
    /// First of its entries, runs, or target bytes.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// A directory entry; its name ends where the next one's begins.
pub(super) struct Slot {
    pub name_at: u32,
    pub ino: u32,
}

/// Root hash of the tree of one empty directory.
const EMPTY_HASH: [u8; 32] = [
    0x32, 0x9a, 0x49, 0x53, 0xaf, 0x13, 0xf9, 0x03, 0xa0, 0x80, 0xb3, 0x0e, 0x80, 0x36, 0xe1, 0x13, 0xab, 0x62, 0x6f,
    0x1c, 0x95, 0x16, 0x87, 0x2d, 0x9e, 0xbb, 0xc2, 0xdd, 0x11, 0x1c, 0x81, 0x70,
];

impl BaseTree {
    /// The tree under a VE without a template: one empty root directory, mode 0755, owner 0:0, times 0.
    pub fn empty() -> Arc<BaseTree> {
        static EMPTY: OnceLock<Arc<BaseTree>> = OnceLock::new();
        let make = || {
            let root = Row {
                mode: mode::IFDIR | 0o755,
                uid: 0,
                gid: 0,
                nlink: 2,
                times: 0,
                parent: 1,
                value: DIR_SIZE,
                mapped: 0,
                first: 0,
                count: 0,
            };
            Arc::new(BaseTree {
                hash: Hash(EMPTY_HASH),
                inodes: vec![root],
                times: vec![[Timestamp::default(); 4]],
                ..BaseTree::blank()
            })
        };
        EMPTY.get_or_init(make).clone()
    }

    pub(super) fn blank() -> BaseTree {
        BaseTree {
            hash: Hash::default(),
            inodes: Vec::new(),
            times: Vec::new(),
            entries: Vec::new(),
            names: Vec::new(),
            targets: Vec::new(),
            runs: Vec::new(),
            xattrs: HashMap::new(),
        }
    }

    /// The root hash: the tree's identity.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// How many inodes there are; their numbers are 1 to this.
    pub fn inode_count(&self) -> u64 {
        self.inodes.len() as u64
    }

    fn row(&self, ino: InodeNo) -> Option<&Row> {
        self.inodes.get(usize::try_from(ino.0.checked_sub(1)?).ok()?)
    }

    /// The range of a row's parts, if the row is of this kind.
    fn parts(&self, ino: InodeNo, kind: Kind) -> Range<usize> {
        match self.row(ino).filter(|row| Kind::of_mode(row.mode) == Some(kind)) {
            Some(row) => row.first as usize..row.first as usize + row.count as usize,
            None => 0..0,
        }
    }

    /// Kind of an inode by its bare number.
    pub(super) fn kind_of(&self, ino: u32) -> Option<Kind> {
        Kind::of_mode(self.row(InodeNo(ino.into()))?.mode)
    }

    /// Indices of a directory's entries.
    pub(super) fn entry_range(&self, dir: u32) -> Range<usize> {
        self.parts(InodeNo(dir.into()), Kind::Directory)
    }

    /// The attributes of an inode; `None` for numbers the tree does not have. `flags` are 0; `next_cookie` is 0 for
    /// everything but directories.
    pub fn inode(&self, ino: InodeNo) -> Option<Inode> {
        let row = self.row(ino)?;
        let kind = Kind::of_mode(row.mode)?;
        let [atime, mtime, ctime, btime] = self.times[row.times as usize];
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        Some(Inode {
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            nlink: row.nlink,
            rdev: if is_device { row.value } else { 0 },
            size: if is_device { 0 } else { row.value },
            mapped: row.mapped,
            atime,
            mtime,
            ctime,
            btime,
            parent: InodeNo(row.parent.into()),
            next_cookie: if kind == Kind::Directory { FIRST_COOKIE + u64::from(row.count) } else { 0 },
            flags: 0,
        })
    }

    fn name(&self, index: usize) -> &[u8] {
        let start = self.entries[index].name_at as usize;
        let end = self.entries.get(index + 1).map_or(self.names.len(), |next| next.name_at as usize);
        &self.names[start..end]
    }

    /// The entry at `index`, which lies in `range`, the range of its directory.
    fn dentry(&self, range: &Range<usize>, index: usize) -> Option<Dentry> {
        let ino = self.entries[index].ino;
        let cookie = FIRST_COOKIE + (index - range.start) as u64;
        Some(Dentry { ino: InodeNo(ino.into()), kind: self.kind_of(ino)?, cookie })
    }

    /// The entry of a name; `None` when there is none or `dir` is no directory.
    pub fn lookup(&self, dir: InodeNo, name: &[u8]) -> Option<Dentry> {
        let range = self.parts(dir, Kind::Directory);
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Equal => return self.dentry(&range, middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The entries with cookies above `after_cookie`, in order of cookies, which is byte order of names. None when
    /// `dir` is no directory.
    pub fn entries(&self, dir: InodeNo, after_cookie: u64) -> impl Iterator<Item = (&[u8], Dentry)> {
        let range = self.parts(dir, Kind::Directory);
        let skip = after_cookie.saturating_sub(FIRST_COOKIE - 1).min(range.len() as u64) as usize;
        (range.start + skip..range.end)
            .filter_map(move |index| self.dentry(&range, index).map(|dentry| (self.name(index), dentry)))
    }

    /// The entries from a name on, in byte order of names. None when `dir` is no directory.
    pub fn entries_from(&self, dir: InodeNo, name: &[u8]) -> impl Iterator<Item = (&[u8], Dentry)> {
        let range = self.parts(dir, Kind::Directory);
        let (mut first, mut end) = (range.start, range.end);
        while first < end {
            let middle = first + (end - first) / 2;
            if self.name(middle) < name {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        let skipped = (first - range.start) as u64;
        self.entries(dir, FIRST_COOKIE - 1 + skipped)
    }

    /// The entry that has a cookie.
    pub fn entry_by_cookie(&self, dir: InodeNo, cookie: u64) -> Option<(&[u8], Dentry)> {
        let range = self.parts(dir, Kind::Directory);
        let index = cookie.checked_sub(FIRST_COOKIE).filter(|i| *i < range.len() as u64)? as usize + range.start;
        Some((self.name(index), self.dentry(&range, index)?))
    }

    /// How many entries a directory has; 0 for anything else.
    pub fn child_count(&self, dir: InodeNo) -> u64 {
        self.parts(dir, Kind::Directory).len() as u64
    }

    fn xattrs_of(&self, ino: InodeNo) -> &[Xattr] {
        u32::try_from(ino.0).ok().and_then(|ino| self.xattrs.get(&ino)).map_or(&[], |list| list)
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, ino: InodeNo, name: &[u8]) -> Option<&[u8]> {
        let list = self.xattrs_of(ino);
        let at = list.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        Some(&list[at].1)
    }

    /// The names of an inode's extended attributes, in byte order.
    pub fn xattrs(&self, ino: InodeNo) -> impl Iterator<Item = &[u8]> {
        self.xattrs_of(ino).iter().map(|(name, _)| &**name)
    }

    /// The target of a symlink; `None` for anything else.
    pub fn target(&self, ino: InodeNo) -> Option<&[u8]> {
        // A target has at least one byte.
        Some(&self.targets[self.parts(ino, Kind::Symlink)]).filter(|target| !target.is_empty())
    }

    /// The runs of a file: offset in bytes and extent, in order; what lies between them is a hole. Every source is a
    /// [`Source::Base`]. Empty for anything but a regular file.
    pub fn content(&self, ino: InodeNo) -> &[(u64, Extent)] {
        &self.runs[self.parts(ino, Kind::Regular)]
    }

    /// The names of all objects that the tree's files refer to, each once, in order.
    pub fn objects(&self) -> Vec<Hash> {
        let hashes = self.runs.iter().filter_map(|(_, extent)| match extent.source {
            Source::Base { hash, .. } => Some(hash),
            _ => None,
        });
        hashes.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl std::fmt::Debug for BaseTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BaseTree({:?}, {} inodes)", self.hash, self.inodes.len())
    }
}
