//! Objects: immutable file bodies named by their BLAKE3, stored once however many files and VEs hold them.
//!
//! An object is two files: `objects/ab/abcdef…` is exactly the body, so that the kernel can read it by passthrough and
//! equal files share one host inode; `objects/ab/abcdef….sum` is the sidecar with a checksum per 64 KiB
//! (`docs/format/object.md`).
//!
//! Invariants
//! - A body under its name is complete and flushed, and its sidecar was durable under its name before: whoever sees a
//!   body may open it. A sidecar alone is a remainder of a placement or a removal that a crash cut off.
//! - No byte leaves [`Object::read_at`] that does not hash, chunk by chunk, to the object's name (promise G24).
//! - Removal is two-phase (promise G26): [`ObjectStore::condemn`] marks, any lookup clears the mark,
//!   [`ObjectStore::sweep_condemned`] removes what is still marked, not pinned and not referenced.
//!
//! Order of locks: a hash's stripe, then the marks. The marks are never held over I/O; a stripe is held over opening,
//! renaming and removing, never over a flush.

mod cache;
mod checking;
mod format;
mod place;
mod reader;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod teststore;
mod writer;

use std::io;

use crate::ids::Hash;

pub use format::{OBJECT_LEN_MAX, SidecarError};
pub use place::Staged;
pub(crate) use place::Staging;
pub use reader::Object;
pub use store::{ObjectStore, Pin};
pub use writer::ObjectWriter;

/// What can go wrong with an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Bytes that were offered for an object are not its.
    #[error("the bytes offered for object {hash} are those of {got}")]
    WrongBytes {
        /// The object.
        hash: Hash,
        /// What the bytes are.
        got: Hash,
    },
    /// There is no body of this name.
    #[error("object {hash} is not there")]
    NotFound {
        /// The object.
        hash: Hash,
    },
    /// Bytes of the body are not those that were stored.
    #[error("object {hash} is damaged: chunk {chunk}, at offset {offset}, does not match its checksum")]
    Damaged {
        /// The object.
        hash: Hash,
        /// Number of the 64 KiB chunk, from 0.
        chunk: u64,
        /// Offset of the chunk in the body, in bytes.
        offset: u64,
    },
    /// The sidecar cannot be used, so no byte of the body can be vouched for.
    #[error("sidecar of object {hash}: {source}")]
    Sidecar {
        /// The object.
        hash: Hash,
        /// What is wrong with it.
        source: SidecarError,
    },
    /// The body is shorter or longer than the sidecar says.
    #[error("object {hash} is damaged: its body has {got} bytes, not {expected}")]
    BodyLength {
        /// The object.
        hash: Hash,
        /// Bytes according to the sidecar.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// A read reaches past the end of the body. A caller's extent is wrong.
    #[error("read of {count} bytes at {offset} passes the end ({len}) of object {hash}")]
    PastEnd {
        /// The object.
        hash: Hash,
        /// Where the read began.
        offset: u64,
        /// How many bytes were asked for.
        count: u64,
        /// Length of the body.
        len: u64,
    },
    /// A body of more than [`OBJECT_LEN_MAX`] bytes.
    #[error("an object of {len} bytes is larger than the limit of {OBJECT_LEN_MAX}")]
    TooLarge {
        /// Bytes of the body.
        len: u64,
    },
    /// A staging file to be adopted has not the length its owner states.
    #[error("{path} has {got} bytes, not {expected}")]
    AdoptLength {
        /// The staging file.
        path: String,
        /// Bytes stated.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// An earlier write to this writer failed; its file is not trusted (promise G3).
    #[error("an earlier write of this object failed")]
    WriterFailed,
    /// The storage failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder, relative to the store.
        path: String,
        /// The error of the storage.
        source: io::Error,
    },
}

/// Names the path in an error of the storage.
pub(crate) fn io_at(path: &str) -> impl FnOnce(io::Error) -> ObjectError + '_ {
    move |source| ObjectError::Io { path: path.to_owned(), source }
}
