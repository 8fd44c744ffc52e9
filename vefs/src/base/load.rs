//! Reading a tree's file. What comes in is not trusted: everything is checked before a [`BaseTree`] exists, and no
//! length in the file decides about memory beyond a small multiple of the file's own length (promise G29).

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::codec::Items;
use super::format::{
    Entry, HEADER_LEN, Head, Header, PAGE_BYTES, PAGE_INODES, Run, TABLE_ENTRY_LEN, TableEntry, Xattr, root_hash,
    tree_path,
};
use super::tree::{Row, Slot};
use super::{BaseError, BaseTree, RuleError, TreeError, check};
use crate::clock::Timestamp;
use crate::ids::{Hash, InodeNo};
use crate::storage::Storage;
use crate::types::{Extent, Kind, Source};

/// Fewest bytes that an inode takes in a page.
const INODE_BYTES_MIN: u64 = 16;

/// Reads `buf.len()` bytes at an offset.
pub(super) type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

impl BaseTree {
    /// Path of a tree's file in the store.
    pub fn path(hash: Hash) -> String {
        tree_path(hash)
    }

    /// Checks a tree's file, whatever its name is, as [`BaseTree::open`] does.
    pub(crate) fn check(file: &dyn crate::storage::File, len: u64, hash: Hash) -> Result<(), TreeError> {
        load(&|buf, offset| file.read_at(buf, offset), len, hash).map(|_| ())
    }

    /// Loads a tree and checks all of it. The hash of [`BaseTree::empty`] is answered without a file.
    ///
    /// # Errors
    /// `NotFound`, `Tree` naming what is wrong, `Io`.
    pub fn open(storage: &dyn Storage, hash: Hash) -> Result<Arc<BaseTree>, BaseError> {
        let empty = BaseTree::empty();
        if hash == empty.hash() {
            return Ok(empty);
        }
        let path = tree_path(hash);
        let io_at = |source| BaseError::Io { path: path.clone(), source };
        let file = match storage.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(BaseError::NotFound { hash }),
            other => other.map_err(io_at)?,
        };
        let len = file.len().map_err(io_at)?;
        match load(&|buf, offset| file.read_at(buf, offset), len, hash) {
            Ok(tree) => Ok(Arc::new(tree)),
            Err(TreeError::Io(source)) => Err(io_at(source)),
            Err(source) => Err(BaseError::Tree { hash, source }),
        }
    }
}

/// Loads the tree of this name from `file_len` bytes.
pub(super) fn load(read: ReadAt<'_>, file_len: u64, hash: Hash) -> Result<BaseTree, TreeError> {
    if file_len < HEADER_LEN as u64 {
        return Err(TreeError::Short(file_len));
    }
    let mut header = [0; HEADER_LEN];
    read(&mut header, 0).map_err(TreeError::Io)?;
    let header = Header::decode(&header, file_len)?;
    if header.root != hash {
        return Err(TreeError::RootHash(header.root));
    }
    if header.inodes > (header.table - HEADER_LEN as u64) / INODE_BYTES_MIN {
        return Err(TreeError::Layout);
    }
    let mut table = vec![0; header.pages as usize * TABLE_ENTRY_LEN];
    read(&mut table, header.table).map_err(TreeError::Io)?;
    let table = <[TableEntry]>::ref_from_bytes(&table).map_err(|_| TreeError::Layout)?;
    let root = root_hash(table.iter());
    if root != hash {
        return Err(TreeError::RootHash(root));
    }
    check_places(table, &header)?;

    let mut loader = Loader::new(hash, header.inodes);
    let mut page = Vec::new();
    for (number, entry) in (0..).zip(table) {
        page.resize(entry.len.get() as usize, 0);
        read(&mut page, entry.offset.get()).map_err(TreeError::Io)?;
        if *blake3::hash(&page).as_bytes() != entry.hash {
            return Err(TreeError::Page(number));
        }
        let next = table.get(number as usize + 1).map(|next| u64::from(next.first.get()));
        loader.page(number, &page, next)?;
    }
    loader.finish(header.inodes)
}

/// Checks that the pages follow each other without a gap from the header to the table, and begin at inode 1.
fn check_places(table: &[TableEntry], header: &Header) -> Result<(), TreeError> {
    let mut at = HEADER_LEN as u64;
    for entry in table {
        if entry.offset.get() != at {
            return Err(TreeError::Layout);
        }
        at += u64::from(entry.len.get());
    }
    let first_is_root = table.first().is_some_and(|entry| entry.first.get() == 1);
    if at == header.table && first_is_root { Ok(()) } else { Err(TreeError::Layout) }
}

/// Fills the tables of a tree from its pages in order.
struct Loader {
    tree: BaseTree,
    times: HashMap<[Timestamp; 4], u32>,
    /// The kinds that the entries state.
    entry_kinds: Vec<Kind>,
}

impl Loader {
    fn new(hash: Hash, inodes: u64) -> Loader {
        let mut tree = BaseTree { hash, ..BaseTree::blank() };
        tree.inodes.reserve_exact(inodes as usize);
        Loader { tree, times: HashMap::new(), entry_kinds: Vec::new() }
    }

    /// Takes a page; `next` is the first inode of the page after it.
    fn page(&mut self, number: u32, page: &[u8], next: Option<u64>) -> Result<(), TreeError> {
        let mut items = Items::new(page);
        let mut count = 0;
        while !items.is_done() {
            if count == PAGE_INODES || items.at() >= PAGE_BYTES {
                return Err(TreeError::PageEnd(number));
            }
            self.inode(number, &mut items)?;
            count += 1;
        }
        // A page ends where it is full, so that one tree has one form; the last one ends anywhere.
        let is_full = count == PAGE_INODES || page.len() >= PAGE_BYTES;
        let in_place = next.is_none_or(|next| is_full && next == self.tree.inode_count() + 1);
        if count > 0 && in_place { Ok(()) } else { Err(TreeError::PageEnd(number)) }
    }

    fn inode(&mut self, page: u32, items: &mut Items<'_>) -> Result<(), TreeError> {
        let number = self.tree.inode_count() + 1;
        let refuse = |source| TreeError::Inode { ino: InodeNo(number), source };
        let unreadable = |source| TreeError::Record { page, source };
        let head: Head<'_> = items.next().map_err(unreadable)?;
        let kind = check::head(&head).map_err(refuse)?;
        self.xattrs(number, page, head.xattrs, items)?;

        let first = match kind {
            Kind::Directory => self.tree.entries.len(),
            Kind::Regular => self.tree.runs.len(),
            Kind::Symlink => self.tree.targets.len(),
            _ => 0,
        };
        let mut last: &[u8] = b"";
        for _ in 0..head.entries {
            let entry: Entry<'_> = items.next().map_err(unreadable)?;
            check::name(entry.name).map_err(refuse)?;
            if entry.name <= last {
                return Err(refuse(RuleError::EntryOrder));
            }
            last = entry.name;
            self.tree.entries.push(Slot { name_at: index(self.tree.names.len())?, ino: entry.ino });
            self.tree.names.extend_from_slice(entry.name);
            self.entry_kinds.push(entry.kind);
        }
        let (mut mapped, mut end) = (0, 0);
        for _ in 0..head.runs {
            let run: Run = items.next().map_err(unreadable)?;
            check::run(&run, head.size, &mut end).map_err(refuse)?;
            mapped += run.len;
            let source = Source::Base { hash: run.hash, offset: run.place };
            self.tree.runs.push((run.offset, Extent { len: run.len, source }));
        }
        self.tree.targets.extend_from_slice(head.target);
        let count = match kind {
            Kind::Symlink => head.target.len() as u32,
            _ => head.entries.max(head.runs),
        };
        let times = self.intern([head.atime, head.mtime, head.ctime, head.btime])?;
        self.tree.inodes.push(Row {
            mode: head.mode,
            uid: head.uid,
            gid: head.gid,
            nlink: head.nlink,
            times,
            parent: 0,
            // Only devices have a number, and their size is 0.
            value: head.rdev | head.size,
            mapped,
            first: index(first)?,
            count,
        });
        Ok(())
    }

    fn xattrs(&mut self, number: u64, page: u32, count: u32, items: &mut Items<'_>) -> Result<(), TreeError> {
        let refuse = |source| TreeError::Inode { ino: InodeNo(number), source };
        let mut list: Vec<super::tree::Xattr> = Vec::new();
        for _ in 0..count {
            let xattr: Xattr<'_> = items.next().map_err(|source| TreeError::Record { page, source })?;
            check::xattr(xattr.name, xattr.value).map_err(refuse)?;
            if list.last().is_some_and(|(name, _)| **name >= *xattr.name) {
                return Err(refuse(RuleError::XattrOrder));
            }
            list.push((xattr.name.into(), xattr.value.into()));
        }
        check::xattr_list(list.iter().map(|(name, _)| name.len())).map_err(refuse)?;
        if !list.is_empty() {
            self.tree.xattrs.insert(index(number as usize)?, list.into());
        }
        Ok(())
    }

    fn intern(&mut self, times: [Timestamp; 4]) -> Result<u32, TreeError> {
        if let Some(found) = self.times.get(&times) {
            return Ok(*found);
        }
        let new = index(self.tree.times.len())?;
        self.tree.times.push(times);
        self.times.insert(times, new);
        Ok(new)
    }

    /// Checks the tree as a whole.
    fn finish(mut self, inodes: u64) -> Result<BaseTree, TreeError> {
        if self.tree.inode_count() != inodes {
            return Err(TreeError::Layout);
        }
        index(self.tree.names.len())?;
        let parents = check::walk(&self.tree, &self.entry_kinds)?;
        for (row, parent) in self.tree.inodes.iter_mut().zip(parents) {
            row.parent = parent;
        }
        self.tree.times.shrink_to_fit();
        self.tree.entries.shrink_to_fit();
        self.tree.names.shrink_to_fit();
        self.tree.targets.shrink_to_fit();
        self.tree.runs.shrink_to_fit();
        Ok(self.tree)
    }
}

/// The tables are indexed by 32 bits.
fn index(n: usize) -> Result<u32, TreeError> {
    u32::try_from(n).map_err(|_| TreeError::TooLarge)
}
