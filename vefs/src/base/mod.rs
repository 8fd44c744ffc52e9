//! Base trees: a template, or a stack of templates composed into one, as an immutable tree identified by its root hash.
//!
//! A tree is metadata only: inodes, directory entries, extended attributes, link targets, and for each file the runs of
//! object bytes it consists of. Its bytes lie in `bases/HEX.tree` (`docs/format/base-tree.md`); contents lie in objects.
//!
//! Invariants of every [`BaseTree`] there is, however it came about
//! - Inode numbers are 1 for the root and then 2, 3, … in depth-first order, the entries of a directory in byte order
//!   of their names; hard links share one number. So the same names, attributes and contents give the same bytes and
//!   the same hash.
//! - Each directory is reached exactly once, link counts are right, names and sizes are within [`crate::limits`], runs
//!   are in order and within their file. Nothing that uses a tree needs to check any of that again.
//!
//! A tree says nothing about whiteouts or opaque directories: it is plain.

mod build;
mod builder;
mod check;
mod codec;
mod compose;
mod format;
#[cfg(test)]
mod hostile_tests;
mod load;
mod pack;
mod pieces;
mod spool;
#[cfg(test)]
mod tests;
mod tree;
mod write;

use std::io;

use crate::ids::{Hash, InodeNo};
use crate::object::ObjectError;

pub use build::Built;
pub use builder::{Attrs, BaseBuilder, NodeId};
pub use compose::compose;
pub use pack::{Content, PACK_MAX};
pub use pieces::Pieces;
pub use tree::BaseTree;

/// Cookie of a directory's first entry: 1 and 2 are `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

/// What can go wrong with a base tree.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// There is no tree of this name.
    #[error("base tree {hash} is not there")]
    NotFound {
        /// The tree.
        hash: Hash,
    },
    /// The tree's file is not a valid tree of this name.
    #[error("base tree {hash}: {source}")]
    Tree {
        /// The tree.
        hash: Hash,
        /// What is wrong with it.
        source: TreeError,
    },
    /// What was to be built breaks a rule.
    #[error("{0}")]
    Rule(#[from] RuleError),
    /// A name is there already in this directory.
    #[error("the directory has this name already")]
    Exists,
    /// A handle that names no directory (or no inode) of this builder.
    #[error("not a directory of this tree")]
    NotADirectory,
    /// A directory cannot have a second name.
    #[error("a directory cannot be linked")]
    LinkToDirectory,
    /// More than [`crate::limits::BASE_INODES_MAX`] inodes, or a stack of more than
    /// [`crate::limits::BASE_STACK_MAX`] trees, or of none.
    #[error("{0} inodes or trees are out of range")]
    Count(u64),
    /// The objects failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// What was to be imported could not be read.
    #[error("reading content: {0}")]
    Content(io::Error),
    /// The storage failed.
    #[error("{path}: {source}")]
    Io {
        /// The file, relative to the store.
        path: String,
        /// The error of the storage.
        source: io::Error,
    },
}

/// Why the bytes of a tree are refused.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Shorter than a header.
    #[error("it is cut off at {0} bytes")]
    Short(u64),
    /// The magic is another.
    #[error("not a base tree")]
    Magic,
    /// A format this reader does not know (promise G28).
    #[error("format {0} is unknown (known: {known})", known = format::FORMAT)]
    Format(u32),
    /// The header's CRC32 does not match.
    #[error("the header's checksum does not match")]
    HeaderCrc,
    /// The header's length is not that of format 1.
    #[error("header length {0} is unknown")]
    HeaderLength(u32),
    /// A cipher that this reader does not know.
    #[error("cipher {0} is unknown")]
    Cipher(u32),
    /// A key that this reader does not know.
    #[error("key {0} is unknown")]
    KeyId(u64),
    /// Reserved bytes are used.
    #[error("reserved bytes hold {0}")]
    Reserved(u32),
    /// The numbers of inodes and pages and the places of the parts do not fit the file.
    #[error("its parts do not fit its length")]
    Layout,
    /// The pages' hashes do not add up to the root hash, or it is another than was asked for.
    #[error("its root hash is {0}")]
    RootHash(Hash),
    /// A page does not match its hash.
    #[error("page {0} does not match its checksum")]
    Page(u32),
    /// A page's bytes cannot be decoded.
    #[error("page {page}: {source}")]
    Record {
        /// Number of the page, from 0.
        page: u32,
        /// The codec's reason.
        source: codec::CodecError,
    },
    /// A page holds another number of inodes than its place calls for.
    #[error("page {0} does not end where it has to")]
    PageEnd(u32),
    /// An inode breaks a rule.
    #[error("inode {ino}: {source}")]
    Inode {
        /// The inode.
        ino: InodeNo,
        /// The rule.
        source: RuleError,
    },
    /// More names or contents than this reader holds.
    #[error("it has too many names")]
    TooLarge,
    /// Not every inode has a name.
    #[error("{reached} of {count} inodes can be reached from the root")]
    Unreached {
        /// Inodes reached.
        reached: u64,
        /// Inodes there are.
        count: u64,
    },
    /// The file could not be read.
    #[error("reading it: {0}")]
    Io(io::Error),
}

/// A rule of trees that an inode breaks, in a file that is read or by a caller that builds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The mode names no kind of file, or another than it has to, or has bits beyond type and permissions.
    #[error("its mode is not valid")]
    Mode,
    /// A timestamp's nanoseconds are a second or more.
    #[error("one of its times is not valid")]
    Time,
    /// Only devices have a device number.
    #[error("it has a device number and is no device")]
    Device,
    /// The size is not what the kind calls for, or over the limit.
    #[error("its size is not valid")]
    Size,
    /// A symlink's target is empty, too long, or has a NUL; or something else has one.
    #[error("its link target is not valid")]
    Target,
    /// An attribute's name or value is not within the limits, or all names together are not.
    #[error("an extended attribute is not valid")]
    Xattr,
    /// Attributes are not in strict byte order of their names.
    #[error("its extended attributes are not in order")]
    XattrOrder,
    /// A name is empty, too long, `.`, `..`, or has a slash or a NUL.
    #[error("a name is not valid")]
    Name,
    /// Entries are not in strict byte order of their names.
    #[error("its entries are not in order")]
    EntryOrder,
    /// Something has entries and is not a directory, or runs and is not a regular file.
    #[error("it has parts that its kind does not have")]
    Parts,
    /// An entry points to an inode out of the depth-first order, or to none.
    #[error("an entry points to inode {0}, out of order")]
    Order(u32),
    /// An entry's kind is not its inode's.
    #[error("an entry's kind is not its inode's")]
    Kind,
    /// A directory has two names, or lies within itself.
    #[error("a directory in it has another name already")]
    SecondName,
    /// The link count is not the number of names, or over the limit.
    #[error("its link count is not valid")]
    Links,
    /// Runs are empty, out of order, overlapping, or not within the file.
    #[error("its content is not in order")]
    Runs,
    /// A run's place in its object is out of range.
    #[error("a place in an object is out of range")]
    Place,
}
