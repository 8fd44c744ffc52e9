//! Writing frames, rolling over to the next segment, and flushing.

mod spare;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::{Segment, folder};
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::record::{self, FrameKind, Parts, frame_len};
use crate::format::segment::{COPY_AT, DATA_START, HEADER_LEN, SegmentHeader};
use crate::ids::{Epoch, TxnNo, VeId};
use crate::limits;
use crate::storage::{File, Storage};

pub use spare::create_segment;

/// The kernel caches files in pages of at least this many bytes, aligned.
const PAGE: u64 = 4096;
/// A payload up to this many bytes is copied behind its frame's other parts.
const COPIED: usize = 4096;
/// Memory that is kept for the next frame.
const BUFFER_MAX: usize = 16 << 10;
/// What follows a frame: up to its alignment, and up to the page's end.
static ZEROS: [u8; PAGE as usize + 8] = [0; PAGE as usize + 8];

/// Where a frame was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Offset in its file of the inline payload.
    pub payload_offset: u64,
    /// CRC32 of the inline payload under the segment's incarnation.
    pub payload_crc: u32,
    /// Journal position after the frame.
    pub end: u64,
}

/// What has to be flushed to make the journal durable up to a position.
pub struct Flush {
    /// Files with unflushed frames.
    pub files: Vec<Arc<dyn File>>,
    /// Folder whose names are not durable.
    pub dir: Option<String>,
    names: u64,
    /// Position that is durable afterwards.
    pub upto: u64,
}

/// The writing end of a VE's journal.
pub struct Journal {
    ve: VeId,
    store: [u8; 16],
    storage: Arc<dyn Storage>,
    entropy: Arc<dyn Entropy>,
    segment_min: u64,
    segment_max: u64,
    /// Oldest first; the last one is being written.
    segments: VecDeque<Arc<Segment>>,
    /// See [`super::TailState`].
    read_from: u64,
    /// A zero-filled file for the next segment: (path, file, capacity).
    spare: Option<(String, Arc<dyn File>, u64)>,
    /// Somebody was asked to make a spare.
    spare_asked: bool,
    /// Somebody makes one.
    spare_under_way: bool,
    /// Bytes that a new segment may take beyond the smallest, for what is left on the disk.
    growth: u64,
    /// Whether the last segment is of this run: older ones are never appended to.
    writable: bool,
    /// Segments before the last one that hold unflushed frames, with the position at which they end.
    unflushed: Vec<(Arc<dyn File>, u64)>,
    /// Segment files created in this run, and how many of their names are durable.
    names: u64,
    names_durable: u64,
    next_order: u64,
    /// Offset in the last segment's file up to which this run has written whole pages.
    filled: u64,
    position: u64,
    durable: u64,
    seq: u64,
    /// The frame that is being written; kept for its memory.
    buffer: Vec<u8>,
    poisoned: Option<String>,
    /// A flush failed: the page cache may hold what the disk does not.
    flush_failed: bool,
}

impl Journal {
    /// Continues at `position` with frame number `seq`, after everything up to there was made durable. `segments` are the
    /// old ones, kept until they are recycled. Nothing is written before the first frame.
    pub fn new(
        ve: VeId,
        store: [u8; 16],
        storage: Arc<dyn Storage>,
        entropy: Arc<dyn Entropy>,
        sizes: (u64, u64),
        tail: super::TailState,
    ) -> Journal {
        Journal {
            ve,
            store,
            storage,
            entropy,
            segment_min: sizes.0.min(limits::SEGMENT_CAPACITY_MAX),
            segment_max: sizes.1.min(limits::SEGMENT_CAPACITY_MAX),
            segments: tail.segments.into(),
            read_from: tail.read_from,
            spare: None,
            spare_asked: false,
            spare_under_way: false,
            growth: 0,
            writable: false,
            unflushed: Vec::new(),
            names: 0,
            names_durable: 0,
            next_order: tail.next_order,
            filled: 0,
            position: tail.position,
            durable: tail.position,
            seq: tail.seq,
            buffer: Vec::new(),
            poisoned: None,
            flush_failed: false,
        }
    }

    /// Position after the last frame.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position up to which everything is durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Number of the next frame.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes of segment files that it occupies.
    pub fn disk_bytes(&self) -> u64 {
        let spare = self.spare.as_ref().map_or(0, |s| s.2);
        self.segments.iter().map(|s| s.header.capacity).sum::<u64>() + spare
    }

    /// Oldest position that can still be read.
    pub fn oldest(&self) -> u64 {
        self.segments.front().map_or(self.position, |s| s.header.base)
    }

    /// The first error, when there was one.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether a flush failed: then what is read back says nothing about the disk.
    pub fn has_failed_flush(&self) -> bool {
        self.flush_failed
    }

    /// Stops all writing, since a flush failed.
    pub fn poison_flush(&mut self, reason: String) -> Error {
        self.flush_failed = true;
        self.poison(reason)
    }

    /// Stops all writing (promise G3).
    pub fn poison(&mut self, reason: String) -> Error {
        tracing::error!(ve = %self.ve, reason, "journal poisoned, VE is read-only");
        let reason = self.poisoned.get_or_insert(reason).clone();
        Error::ReadOnly { ve: self.ve, reason }
    }

    /// `Err` when it is poisoned.
    pub fn check(&self) -> Result<()> {
        match &self.poisoned {
            None => Ok(()),
            Some(reason) => Err(Error::ReadOnly { ve: self.ve, reason: reason.clone() }),
        }
    }

    /// Appends one frame. On `NoSpace` nothing was written and the journal goes on; after any other error it is poisoned.
    pub fn append(
        &mut self,
        kind: FrameKind,
        txn: TxnNo,
        epoch: Epoch,
        body: &[u8],
        envelope: &[u8],
        payload: &[u8],
    ) -> Result<Written> {
        self.check()?;
        let need = frame_len(body.len(), envelope.len(), payload.len());
        if self.room() < need {
            self.roll_over(need)?;
        }
        // invariant: roll_over leaves a segment with room for the frame at the back.
        let segment = self.segments.back().expect("a segment to write to").clone(); // invariant: see above
        let parts = Parts { kind, txn, seq: self.seq, epoch, synced_upto: self.durable, body, envelope, payload };
        let payload_crc = record::crc(segment.header.incarnation, payload);
        let header = parts.header(segment.header.incarnation, payload_crc);
        let used = header.len() + body.len() + envelope.len() + payload.len();
        let at = DATA_START + (self.position - segment.header.base);
        let end = self.fill_to(at + need, segment.header.capacity);
        let pad = &ZEROS[..(end - at) as usize - used];
        // The kernel takes one part faster than five; a large payload is not worth the copy.
        self.buffer.clear();
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(body);
        self.buffer.extend_from_slice(envelope);
        let written = if payload.len() <= COPIED {
            self.buffer.extend_from_slice(payload);
            self.buffer.extend_from_slice(pad);
            segment.file.write_at(&[IoSlice::new(&self.buffer)], at)
        } else {
            segment.file.write_at(&[&self.buffer, payload, pad].map(IoSlice::new), at)
        };
        self.buffer.shrink_to(BUFFER_MAX);
        if let Err(e) = written {
            return Err(self.poison(format!("writing {} at {at}: {e}", segment.path)));
        }
        self.filled = self.filled.max(end);
        self.position += need;
        self.seq += 1;
        let payload_offset = at + (header.len() + body.len() + envelope.len()) as u64;
        Ok(Written { segment, payload_offset, payload_crc, end: self.position })
    }

    /// Where a write ends whose frame ends at `end`. A frame that reaches a page for the first time fills it with zeros: a page that was
    /// written in part only, and had left the page cache since its file was made, would be read from the disk first. What is overwritten is
    /// no frame of this incarnation.
    fn fill_to(&self, end: u64, capacity: u64) -> u64 {
        if end <= self.filled { end } else { end.next_multiple_of(PAGE).min(DATA_START + capacity).max(end) }
    }

    /// Bytes left in the segment that is being written. A segment of an earlier run has none: see the module's invariants.
    fn room(&self) -> u64 {
        match self.segments.back() {
            Some(s) if self.writable => s.header.capacity.saturating_sub(self.position - s.header.base),
            _ => 0,
        }
    }

    fn roll_over(&mut self, need: u64) -> Result<()> {
        let fits = self.spare.as_ref().is_some_and(|s| s.2 >= need);
        if !fits {
            let last = self.segments.back().map_or(0, |s| s.header.capacity);
            let capacity = self.capacity(last).max(need.next_multiple_of(4096));
            let made = self.create(capacity)?;
            if let Some((path, ..)) = self.spare.replace(made) {
                // Too small for this frame. That its file stays costs space until the next start, no more.
                let _ = self.storage.remove(&path);
            }
        }
        let Some((path, file, capacity)) = self.spare.take() else { return Ok(()) };
        self.spare_asked = false;
        let header = SegmentHeader {
            store: self.store,
            ve: self.ve,
            incarnation: self.entropy.next_u64(),
            order: self.next_order,
            base: self.position,
            first_seq: self.seq,
            capacity,
        };
        // A whole page: see `fill_to`.
        let mut block = [0; DATA_START as usize];
        block[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        block[COPY_AT..COPY_AT + HEADER_LEN].copy_from_slice(&header.to_bytes());
        if let Err(e) = file.write_at(&[IoSlice::new(&block)], 0) {
            return Err(self.poison(format!("writing the header of {path}: {e}")));
        }
        if let Some(last) = self.segments.back()
            && self.durable < self.position
        {
            self.unflushed.push((last.file.clone(), self.position));
        }
        self.writable = true;
        self.filled = DATA_START;
        self.next_order += 1;
        self.segments.push_back(Arc::new(Segment { path, file, header }));
        Ok(())
    }

    /// Begins a new segment with the next frame; gives the position and the order number that it will have.
    pub fn end_segment(&mut self) -> (u64, u64) {
        self.writable = false;
        (self.position, self.next_order)
    }

    /// What must be flushed so that everything written so far is durable; `None` when it is already.
    pub fn flush_wanted(&self) -> Option<Flush> {
        if self.durable == self.position {
            return None;
        }
        let mut files: Vec<_> = self.unflushed.iter().map(|(f, _)| f.clone()).collect();
        files.extend(self.segments.back().map(|s| s.file.clone()));
        let dir = (self.names_durable < self.names).then(|| folder(self.ve));
        Some(Flush { files, dir, names: self.names, upto: self.position })
    }

    /// The flush is done: what it covered is durable.
    pub fn flushed(&mut self, flush: &Flush) {
        self.durable = self.durable.max(flush.upto);
        let durable = self.durable;
        // A segment that was rolled over from while the flush ran may hold frames that it did not cover.
        self.unflushed.retain(|(_, end)| *end > durable);
        self.names_durable = self.names_durable.max(flush.names);
    }

    /// Forgets segments that end at or before `position`, except where somebody still reads from them. One becomes the spare
    /// if there is none; it gets a new incarnation when it is used. Until then it has no header: with its old one a start would take it for a
    /// part of the journal, and find a gap behind it.
    pub fn recycle(&mut self, position: u64) -> Result<()> {
        while self.segments.len() > 1 {
            let end = self.segments[1].header.base;
            // Something of the next segment has to be durable, and with it its header: else the journal of a VE whose flush failed begins
            // nowhere after a power cut.
            if end > position || end >= self.durable || Arc::strong_count(&self.segments[0]) > 1 {
                break;
            }
            let Some(old) = self.segments.pop_front() else { break };
            let large_enough = old.header.capacity >= self.segments.back().map_or(0, |s| s.header.capacity);
            let blank = self.spare.is_none() && large_enough && self.poisoned.is_none() && blank(&*old.file).is_ok();
            if blank {
                // Of no flush that is under way.
                self.unflushed.push((old.file.clone(), self.position + 1));
                self.spare = Some((old.path.clone(), old.file.clone(), old.header.capacity));
            } else {
                self.storage.remove(&old.path).map_err(Error::io("removing journal segment", old.path.clone()))?;
            }
        }
        Ok(())
    }

    /// Whether everything up to a position was neither read at the start nor written since: it may be what a power cut left of segments that
    /// had been given back.
    pub fn is_unread(&self, upto: u64) -> bool {
        upto <= self.read_from
    }

    /// Drops segments that nobody has read and that end at or before a position: what they hold is no history.
    pub fn drop_unread(&mut self, upto: u64) -> Result<()> {
        while self.is_unread(upto) && self.segments.get(1).is_some_and(|next| next.header.base <= upto) {
            let Some(old) = self.segments.pop_front() else { break };
            tracing::warn!(path = old.path, "a journal segment is no part of the history any more");
            self.storage.remove(&old.path).map_err(Error::io("removing journal segment", old.path.clone()))?;
        }
        Ok(())
    }

    /// The segments, oldest first.
    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> + ExactSizeIterator {
        self.segments.iter()
    }

    /// Reads inline payload bytes back.
    pub fn segment(&self, order: u64) -> Option<Arc<Segment>> {
        self.segments.iter().find(|s| s.header.order == order).cloned()
    }

    /// Largest frame that always fits into a fresh segment.
    pub fn frame_max() -> u64 {
        frame_len(limits::BODY_MAX, limits::ENVELOPE_MAX, limits::INLINE_MAX)
    }
}

/// Takes a segment's header away, and that of its first frame: a start removes it as one that was never begun.
fn blank(file: &dyn File) -> std::io::Result<()> {
    file.write_at(&[IoSlice::new(&[0; DATA_START as usize + record::HEADER_LEN])], 0)
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
