//! The bytes of a tree's file (`docs/format/base-tree.md`): header, pages, page table; and the items in a page.
//!
//! Everything is covered: pages by their hashes, the hashes by the root hash, the root hash by the name; the table's
//! places follow from the pages' lengths and are compared; the header has a CRC and its fields are compared.

use bincode::{BorrowDecode, Decode, Encode};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::TreeError;
use crate::clock::Timestamp;
use crate::ids::Hash;
use crate::limits::BASE_INODES_MAX;
use crate::types::Kind;

const MAGIC: [u8; 8] = *b"ASPFSBAS";
pub(super) const FORMAT: u32 = 1;
/// What the root hash begins with, so that it is never the hash of anything else.
const ROOT_DOMAIN: &[u8; 16] = b"ASPFS base tree\x01";

pub(super) const HEADER_LEN: usize = 96;
pub(super) const TABLE_ENTRY_LEN: usize = 48;
/// Most inodes of one page.
pub(super) const PAGE_INODES: u32 = 256;
/// A page that has reached this many bytes takes no further inode.
pub(super) const PAGE_BYTES: usize = 256 << 10;

/// The header of the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    format: U32,
    header_len: U32,
    inodes: U64,
    table: U64,
    pages: U32,
    cipher: U32,
    key_id: U64,
    root: [u8; 32],
    reserved: [U32; 3],
    crc: U32,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_LEN);

/// One page in the page table.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct TableEntry {
    /// Where the page begins in the file.
    pub offset: U64,
    /// Bytes of the page.
    pub len: U32,
    /// Its first inode.
    pub first: U32,
    /// BLAKE3 of the page.
    pub hash: [u8; 32],
}
const _: () = assert!(size_of::<TableEntry>() == TABLE_ENTRY_LEN);

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub inodes: u64,
    /// Where the page table begins.
    pub table: u64,
    pub pages: u32,
    pub root: Hash,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut raw = RawHeader {
            magic: MAGIC,
            format: U32::new(FORMAT),
            header_len: U32::new(HEADER_LEN as u32),
            inodes: U64::new(self.inodes),
            table: U64::new(self.table),
            pages: U32::new(self.pages),
            cipher: U32::ZERO,
            key_id: U64::ZERO,
            root: self.root.0,
            reserved: [U32::ZERO; 3],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32fast::hash(&raw.as_bytes()[..HEADER_LEN - 4]));
        zerocopy::transmute!(raw)
    }

    /// Checks a header against itself and the length of its file.
    pub fn decode(bytes: &[u8; HEADER_LEN], file_len: u64) -> Result<Header, TreeError> {
        let raw: RawHeader = zerocopy::transmute!(*bytes);
        if raw.magic != MAGIC {
            return Err(TreeError::Magic);
        }
        if raw.crc.get() != crc32fast::hash(&bytes[..HEADER_LEN - 4]) {
            return Err(TreeError::HeaderCrc);
        }
        if raw.format.get() != FORMAT {
            return Err(TreeError::Format(raw.format.get()));
        }
        if raw.header_len.get() != HEADER_LEN as u32 {
            return Err(TreeError::HeaderLength(raw.header_len.get()));
        }
        if raw.cipher.get() != 0 {
            return Err(TreeError::Cipher(raw.cipher.get()));
        }
        if raw.key_id.get() != 0 {
            return Err(TreeError::KeyId(raw.key_id.get()));
        }
        if let Some(used) = raw.reserved.iter().find(|r| r.get() != 0) {
            return Err(TreeError::Reserved(used.get()));
        }
        let (inodes, table, pages) = (raw.inodes.get(), raw.table.get(), raw.pages.get());
        let table_len = u64::from(pages) * TABLE_ENTRY_LEN as u64;
        let fits = table >= HEADER_LEN as u64 && table.checked_add(table_len) == Some(file_len);
        if !fits || inodes == 0 || inodes > BASE_INODES_MAX || u64::from(pages) > inodes {
            return Err(TreeError::Layout);
        }
        Ok(Header { inodes, table, pages, root: Hash(raw.root) })
    }
}

/// The root hash over the pages' hashes in order.
pub(super) fn root_hash<'a>(pages: impl Iterator<Item = &'a TableEntry>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ROOT_DOMAIN);
    pages.for_each(|page| {
        hasher.update(&page.hash);
    });
    Hash(*hasher.finalize().as_bytes())
}

/// The path of a tree's file.
pub(super) fn tree_path(hash: Hash) -> String {
    format!("bases/{}.tree", hash.to_hex())
}

/// First item of an inode: the attributes, and how many items of each kind follow: extended attributes, entries, runs.
#[derive(Clone, Debug, Encode, BorrowDecode)]
pub(super) struct Head<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u64,
    pub size: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// Target of a symlink, else empty.
    pub target: &'a [u8],
    pub xattrs: u32,
    pub entries: u32,
    pub runs: u32,
}

/// An extended attribute.
#[derive(Clone, Copy, Debug, Encode, BorrowDecode)]
pub(super) struct Xattr<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// A directory entry.
#[derive(Clone, Copy, Debug, Encode, BorrowDecode)]
pub(super) struct Entry<'a> {
    pub name: &'a [u8],
    pub ino: u32,
    pub kind: Kind,
}

/// A run of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Run {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u64,
    /// The object that holds them.
    pub hash: Hash,
    /// Where in the object, in bytes.
    pub place: u64,
}
