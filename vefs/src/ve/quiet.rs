//! What a VE that does little gives back. Most of a node's VEs are almost idle, and each would keep the memory of its busiest minute.
//!
//! Time is counted in commit ticks. Invariant: what is given back is derived state that is read or made again when somebody needs it, or it was
//! published first; so no answer depends on it.

use super::{State, Ve};
use crate::error::Result;

/// Ticks after which a VE is looked at.
const PERIOD: u32 = 10;
/// Look-ups in a period up to which it does without what was looked up before.
const ASKED: u32 = 256;
/// Bytes of journal in a period up to which it writes little.
const WRITTEN: u64 = 64 << 10;
/// Bytes of unpublished state up to which a VE that writes nothing keeps it, and one that writes little.
const KEPT: usize = 32 << 10;
const KEPT_WRITING: usize = 256 << 10;

/// Sealed transactions whose place in the journal a VE remembers that writes nothing and that nobody follows.
const SEALS: usize = 256;

/// The present period.
#[derive(Default)]
pub(crate) struct Quiet {
    ticks: u32,
    /// Bytes of journal written in it.
    written: u64,
    /// The unpublished state is to go.
    publish: bool,
}

impl State {
    /// A tick has come, and `self.written` bytes since the last one. Gives about how many bytes of memory were let go.
    pub fn tick_quiet(&mut self) -> usize {
        if self.written == 0 {
            self.tables.spare = Default::default();
        }
        self.quiet.written += self.written;
        self.quiet.ticks += 1;
        if self.quiet.ticks < PERIOD {
            return 0;
        }
        let Quiet { written, .. } = std::mem::take(&mut self.quiet);
        let (asked, bytes) = (self.tables.found.take_asked(), self.tables.active.bytes());
        let mut gone = if asked < ASKED { self.tables.forget_found() } else { 0 };
        if written == 0 && asked < ASKED {
            gone += self.rest();
        }
        self.quiet.publish = written <= WRITTEN && bytes > if written == 0 { KEPT } else { KEPT_WRITING };
        gone
    }

    /// Nothing is written: room for more is given back.
    fn rest(&mut self) -> usize {
        let before = self.encoded.0.capacity() + self.encoded.1.capacity();
        self.encoded = Default::default();
        self.written_at.shrink_to_fit();
        let durable = self.journal.durable() == self.journal.position();
        if durable && self.cursors.is_empty() {
            self.index.shrink(SEALS);
        }
        before + self.tables.shrink()
    }
}

impl Ve {
    /// Publishes what is unpublished of a VE that writes little, if that is worth it. Gives about how many bytes of memory that was.
    pub(crate) fn publish_quiet(&self) -> Result<usize> {
        let bytes = {
            let mut s = self.state.lock();
            if !std::mem::take(&mut s.quiet.publish) {
                return Ok(0);
            }
            s.tables.active.bytes()
        };
        self.publish()?;
        self.state.lock().tables.shrink();
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "quiet_tests.rs"]
mod tests;
