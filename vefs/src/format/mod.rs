//! Fixed layouts on disk: little-endian structs with a magic, a format number and a checksum, as `docs/format/` tables
//! them byte by byte. Sizes are asserted at compile time. Nothing here does I/O.
//!
//! A reader checks magic, then checksum, then format: an unknown format is named, anything else is damage.

pub mod extent;
pub mod identity;
pub mod incoming;
pub mod note;
pub mod record;
pub mod role;
mod sealed;
pub mod segment;
pub mod stack;
pub mod superblock;
pub mod template;

/// Why bytes are not the structure they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Too few bytes.
    #[error("{got} bytes where {need} are needed")]
    Short {
        /// Bytes there are.
        got: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Something else lies here.
    #[error("magic bytes do not match")]
    Magic,
    /// The checksum is wrong.
    #[error("checksum does not match")]
    Checksum,
    /// A format of another program.
    #[error("format {found}, this program knows {known}")]
    Unknown {
        /// The number met.
        found: u32,
        /// The number known.
        known: u32,
    },
    /// Encrypted with a cipher this program does not have.
    #[error("cipher {0} with key {1}, this program has none")]
    Cipher(u32, u64),
    /// A field is out of its range.
    #[error("field {0} is out of range")]
    Field(&'static str),
}

impl FormatError {
    /// The error a caller shows, with what was being read and where.
    pub fn at(self, what: &'static str, place: impl Into<String>) -> crate::Error {
        let place = place.into();
        match self {
            FormatError::Unknown { found, known } => crate::Error::Format { what, place, found, known },
            other => crate::Error::Damage { what, place, detail: other.to_string() },
        }
    }
}
