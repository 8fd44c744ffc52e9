//! The journal of one VE: segments of checksummed frames, written before an operation is answered, flushed when it must
//! be durable. It is the ground state: everything else can be rebuilt from it and from the bytes it names.
//!
//! Positions count bytes of frames since the VE's first; a segment says at which position it begins.
//!
//! Invariants:
//! - `durable ≤ position`; both only grow. A frame carries the `durable` of the moment it was written.
//! - Frames are contiguous: a segment ends where the next one begins. After a restart nothing is appended to an old
//!   segment; a new one, of a new incarnation, begins where the last valid frame ended.
//! - After any failed or short write or flush nothing is written any more (promise G3): the journal is poisoned.

mod frames;
mod read;
mod write;

use std::sync::Arc;

pub use frames::Span;
pub use read::{Recovered, Scanner, TailState};
pub use write::{Flush, Journal, Written, create_segment};

use crate::format::segment::SegmentHeader;
use crate::storage::File;

/// One segment file.
pub struct Segment {
    /// Path in the store.
    pub path: String,
    /// Its open file.
    pub file: Arc<dyn File>,
    /// What its header says.
    pub header: SegmentHeader,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).field("header", &self.header).finish_non_exhaustive()
    }
}

/// The folder of a VE's journal.
pub fn folder(ve: crate::ids::VeId) -> String {
    format!("ves/{ve}/journal")
}
