//! Where payload bytes lie, and reading them back checked.
//!
//! There are three kinds of data file and no more: journal segments (small payloads, until they are moved), extent files (bulk, and
//! small ones moved out of the journal) and objects (sealed bodies). Extents of files name payload ids; a [`Place`] tells where
//! the bytes of an id are. Moving bytes changes a place and nothing else.

pub mod extent_file;
pub mod read;

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::journal::Segment;
use crate::limits::{CHUNK, COUNTER_MAX, PLACE_MAX};

/// Where a range of payload bytes lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// Length in bytes.
    pub len: u64,
    /// Where.
    pub at: Location,
}

/// The kinds of places.
#[derive(Clone, Debug)]
pub enum Location {
    /// Inline in a journal segment, from this offset of its file on. The segment is not recycled while this is held.
    Journal {
        /// The segment.
        segment: Arc<Segment>,
        /// Offset in its file.
        offset: u64,
        /// CRC32 of the whole range under the segment's incarnation.
        crc: u32,
    },
    /// In an extent file.
    Extent(ExtentPlace),
}

/// A range of an extent file, as records' envelopes and the metadata store have it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExtentPlace {
    /// Number of the file.
    pub file: u64,
    /// Offset in it.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// CRC32 of each [`CHUNK`] bytes of the range, the last one shorter.
    pub crcs: Vec<u32>,
}

/// Where in a file's body a primary has a payload, if it keeps that body in an extent file of its own. To a follower it says which payloads to
/// keep behind each other, and nothing else: what it makes of them is checked by hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InBody {
    /// The primary's number of the body, never used twice.
    pub body: u64,
    /// Offset in bytes of the payload's first byte.
    pub offset: u64,
}

impl ExtentPlace {
    /// Whether the numbers fit together; what comes from disk is checked with this before it is used.
    pub fn is_sane(&self) -> bool {
        self.len > 0
            && self.len <= PLACE_MAX
            && self.offset <= COUNTER_MAX
            && self.crcs.len() as u64 == self.len.div_ceil(CHUNK as u64)
    }
}

impl From<ExtentPlace> for Place {
    fn from(p: ExtentPlace) -> Place {
        Place { len: p.len, at: Location::Extent(p) }
    }
}

/// The checksums of a range, one per [`CHUNK`] bytes.
pub fn chunk_crcs(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(CHUNK).map(crc32fast::hash).collect()
}
