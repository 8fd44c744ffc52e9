//! What can go wrong in the core, and the one exhaustive mapping to the kernel's error numbers.

use std::io;

use crate::codec::CodecError;
use crate::errno::Errno;
use crate::ids::VeId;
use crate::meta::MetaError;

/// An operation or a store call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan refused: the file system answers this, nothing was changed.
    #[error("{0}")]
    Posix(#[from] Errno),
    /// The VE takes no changes any more since an I/O error of its journal (promise G3).
    #[error("VE {ve} is read-only since {reason}")]
    ReadOnly {
        /// Which VE.
        ve: VeId,
        /// The first error.
        reason: String,
    },
    /// The disk's file system is full up to the reserve (promise G4).
    #[error("no space left for {what}")]
    NoSpace {
        /// What needed it.
        what: &'static str,
    },
    /// Stored bytes are not what was written (promises G5, G24).
    #[error("damage in {what} at {place}: {detail}")]
    Damage {
        /// What was being read.
        what: &'static str,
        /// File and offset.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// Stored bytes are of a format this program does not know (promise G28).
    #[error("{what} {place} is of format {found}, this program knows {known}")]
    Format {
        /// What was being read.
        what: &'static str,
        /// File.
        place: String,
        /// The format number it names.
        found: u32,
        /// The one known here.
        known: u32,
    },
    /// The store is in use, exists already, does not exist…
    #[error("{0}")]
    Store(String),
    /// A record that recovery would refuse was about to be written: a plan is wrong. Nothing was changed.
    #[error("record not written: {0}")]
    Change(crate::change::validate::Invalid),
    /// The operating system refused.
    #[error("{what} {place}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// File.
        place: String,
        /// The error.
        source: io::Error,
    },
    /// The metadata store failed.
    #[error("metadata store: {0}")]
    Meta(#[from] MetaError),
    /// A value in the metadata store or a record body does not decode.
    #[error("stored value: {0}")]
    Codec(#[from] CodecError),
    /// An object is missing or damaged.
    #[error("object: {0}")]
    Object(#[from] crate::object::ObjectError),
    /// A base tree is missing or damaged.
    #[error("base tree: {0}")]
    Base(#[from] crate::base::BaseError),
}

/// Result of core calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with what was being done to which file.
    pub fn io(what: &'static str, place: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let place = place.into();
        move |source| {
            if source.kind() == io::ErrorKind::StorageFull {
                Error::NoSpace { what }
            } else {
                Error::Io { what, place, source }
            }
        }
    }

    /// The number the kernel is answered with.
    pub fn to_errno(&self) -> Errno {
        match self {
            Error::Posix(e) => *e,
            Error::ReadOnly { .. } => Errno::EROFS,
            Error::NoSpace { .. } => Errno::ENOSPC,
            Error::Damage { .. }
            | Error::Format { .. }
            | Error::Store(_)
            | Error::Change(_)
            | Error::Io { .. }
            | Error::Meta(_)
            | Error::Codec(_)
            | Error::Object(_)
            | Error::Base(_) => Errno::EIO,
        }
    }
}
