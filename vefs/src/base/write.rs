//! Writing a tree's file: inodes in order, gathered into pages; then the page table; last the header.

use std::io;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U32, U64};

use super::BaseError;
use super::codec::push;
use super::format::{Entry, HEADER_LEN, Head, Header, PAGE_BYTES, PAGE_INODES, Run, TableEntry, Xattr, root_hash};
use crate::ids::Hash;

/// Takes the file's bytes: offset and bytes, the header last.
pub(super) type Sink<'a> = &'a mut dyn FnMut(u64, &[u8]) -> io::Result<()>;

/// Why a tree cannot be written.
pub(super) enum WriteError {
    /// More of something than the format or a reader holds.
    Count(u64),
    /// The sink failed.
    Io(io::Error),
}

impl WriteError {
    pub fn at(self, path: &str) -> BaseError {
        match self {
            WriteError::Count(n) => BaseError::Count(n),
            WriteError::Io(source) => BaseError::Io { path: path.to_owned(), source },
        }
    }
}

/// Writes the pages of a tree.
pub(super) struct PageWriter<'a> {
    sink: Sink<'a>,
    page: Vec<u8>,
    /// First inode of the page.
    first: u32,
    /// Next inode.
    next: u32,
    at: u64,
    table: Vec<TableEntry>,
    /// Bytes of names, runs and bytes of targets so far: what a reader indexes by 32 bits.
    held: [u64; 3],
}

impl<'a> PageWriter<'a> {
    pub fn new(sink: Sink<'a>) -> PageWriter<'a> {
        let at = HEADER_LEN as u64;
        PageWriter { sink, page: Vec::new(), first: 1, next: 1, at, table: Vec::new(), held: [0; 3] }
    }

    /// Appends the next inode. The counts in `head` are set here.
    pub fn inode(
        &mut self,
        mut head: Head<'_>,
        xattrs: &[Xattr<'_>],
        entries: &[Entry<'_>],
        runs: &[Run],
    ) -> Result<(), WriteError> {
        let names: u64 = entries.iter().map(|e| e.name.len() as u64).sum();
        for (held, more) in self.held.iter_mut().zip([names, runs.len() as u64, head.target.len() as u64]) {
            *held += more;
            if *held > u64::from(u32::MAX) {
                return Err(WriteError::Count(*held));
            }
        }
        // Within 32 bits: names have at least one byte, and attributes' names together have a limit.
        head.xattrs = xattrs.len() as u32;
        head.entries = entries.len() as u32;
        head.runs = runs.len() as u32;
        let page = &mut self.page;
        let encoded = push(page, &head)
            .and_then(|()| xattrs.iter().try_for_each(|item| push(page, item)))
            .and_then(|()| entries.iter().try_for_each(|item| push(page, item)))
            .and_then(|()| runs.iter().try_for_each(|item| push(page, item)));
        encoded.map_err(|e| WriteError::Io(io::Error::other(e)))?;
        self.next += 1;
        if self.next - self.first == PAGE_INODES || self.page.len() >= PAGE_BYTES {
            self.end_page()?;
        }
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), WriteError> {
        let len = u32::try_from(self.page.len()).map_err(|_| WriteError::Count(self.page.len() as u64))?;
        (self.sink)(self.at, &self.page).map_err(WriteError::Io)?;
        self.table.push(TableEntry {
            offset: U64::new(self.at),
            len: U32::new(len),
            first: U32::new(self.first),
            hash: *blake3::hash(&self.page).as_bytes(),
        });
        self.at += u64::from(len);
        self.first = self.next;
        self.page.clear();
        Ok(())
    }

    /// Ends the file and answers the tree's root hash.
    pub fn finish(mut self) -> Result<Hash, WriteError> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        let root = root_hash(self.table.iter());
        (self.sink)(self.at, self.table.as_bytes()).map_err(WriteError::Io)?;
        let header = Header { inodes: u64::from(self.next) - 1, table: self.at, pages: self.table.len() as u32, root };
        (self.sink)(0, &header.encode()).map_err(WriteError::Io)?;
        Ok(root)
    }
}
