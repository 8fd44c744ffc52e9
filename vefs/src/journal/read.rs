//! Reading a journal after a restart: finding the frames that are there, and telling a torn tail from damage.
//!
//! The rule (promise G5): an invalid frame is *damage* if and only if it lies before a `synced_upto` that a later valid
//! frame of a segment of the chain, or the caller's own marker, names. Otherwise everything from it on was never promised to
//! anybody and is dropped.

use std::sync::Arc;

use super::{Segment, folder};
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::record::{self, Frame, HEADER_LEN};
use crate::format::segment::{COPY_AT, DATA_START, HEADER_LEN as SEGMENT_HEADER_LEN, SegmentHeader};
use crate::ids::VeId;
use crate::storage::{File, Storage};

/// Bytes read at a time.
const STEP: u64 = 1 << 20;

/// Where writing goes on.
#[derive(Debug)]
pub struct TailState {
    /// The segments that hold what was read, oldest first.
    pub segments: Vec<Arc<Segment>>,
    /// Where the first segment begins that was read: those before were kept, and nobody looked at them.
    pub read_from: u64,
    /// The order number of the next segment.
    pub next_order: u64,
    /// Position after the last valid frame.
    pub position: u64,
    /// Number of the next frame.
    pub seq: u64,
}

/// A frame that was read, and where it lies.
pub struct Recovered<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// Its segment.
    pub segment: &'a Arc<Segment>,
    /// Offset of its payload in the segment's file.
    pub payload_offset: u64,
    /// Journal position of its first byte.
    pub position: u64,
    /// Journal position after it.
    pub end: u64,
    /// Position up to which everything is known to have been durable, as far as read up to here.
    pub synced_upto: u64,
}

/// Reads the frames of a VE's journal from a position on.
pub struct Scanner {
    ve: VeId,
    storage: Arc<dyn Storage>,
    /// All valid segments, by base and order.
    all: Vec<Arc<Segment>>,
    /// Files that were zero-filled and never used.
    unused: Vec<String>,
    /// Segments of the chain, oldest first; `current` is being read.
    chain: Vec<Arc<Segment>>,
    current: usize,
    buffer: Vec<u8>,
    /// Offset in the segment's frames of `buffer[0]`, and of the next frame.
    buffer_at: u64,
    next_at: u64,
    position: u64,
    seq: u64,
    synced_upto: u64,
    clean: bool,
}

impl Scanner {
    /// Lists the segments and finds the one that holds `position`. `marker` is what other durable state says
    /// was durable; `clean` what the last clean stop left, if there was one: (position, order of the next segment).
    pub fn open(
        storage: Arc<dyn Storage>,
        store: [u8; 16],
        ve: VeId,
        position: u64,
        seq: u64,
        marker: u64,
        clean: Option<(u64, u64)>,
    ) -> Result<Scanner> {
        let (all, unused) = list(&*storage, store, ve)?;
        let newest = all.iter().map(|s| s.header.order + 1).max().unwrap_or(0);
        if clean == Some((position, newest)) {
            return Ok(Scanner::at_end(storage, ve, (all, unused), position, seq));
        }
        let untouched = all.is_empty() && position == 0;
        let first = all.iter().rposition(|s| s.header.base <= position);
        let chain = match first {
            Some(i) => chain_from(&all, i),
            None if all.is_empty() && marker == 0 && position == 0 => Vec::new(),
            // Nothing was ever promised: segments that begin later are remains of a torn start.
            None if marker == 0 && position == 0 => chain_from(&all, 0),
            None => {
                let place = folder(ve);
                return Err(Error::Damage {
                    what: "journal",
                    place,
                    detail: format!("no segment holds position {position}"),
                });
            }
        };
        let next_at = chain.first().map_or(0, |s| position - s.header.base.min(position));
        Ok(Scanner {
            ve,
            storage,
            all,
            unused,
            chain,
            current: 0,
            buffer: Vec::new(),
            buffer_at: next_at,
            next_at,
            position,
            seq,
            synced_upto: marker,
            clean: untouched,
        })
    }

    /// The journal of a clean stop: nothing to read, nothing torn.
    fn at_end(storage: Arc<dyn Storage>, ve: VeId, (all, unused): Listing, position: u64, seq: u64) -> Scanner {
        Scanner {
            ve,
            storage,
            chain: all.clone(),
            current: all.len(),
            all,
            unused,
            buffer: Vec::new(),
            buffer_at: 0,
            next_at: 0,
            position,
            seq,
            synced_upto: position,
            clean: true,
        }
    }

    /// Whether the last stop was a clean one, or the journal was never begun: nothing can have been lost.
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// The next frame, `None` at the end of what is there. Damage before a synced position is an error.
    pub fn next_frame(&mut self) -> Result<Option<Recovered<'_>>> {
        loop {
            let Some(segment) = self.chain.get(self.current).cloned() else {
                return self.finish("the journal ends");
            };
            if self.ends_here(&segment) {
                self.advance();
                continue;
            }
            let header = {
                self.fill(&segment, HEADER_LEN as u64)?;
                record::parse_header(self.slice(), segment.header.incarnation)
            };
            let len = match header {
                Ok(h) if h.seq == self.seq => h.frame_len(),
                Ok(_) => return self.finish("frame out of sequence"),
                Err(FormatError::Unknown { found, known }) => {
                    return Err(FormatError::Unknown { found, known }.at("journal frame", self.place()));
                }
                Err(_) => return self.finish("invalid frame header"),
            };
            self.fill(&segment, len)?;
            if record::parse(self.slice(), segment.header.incarnation).is_err() {
                return self.finish("invalid frame");
            }
            return Ok(Some(self.take(len)?));
        }
    }

    /// Ends reading before `frame`: the caller found that bytes it names outside the journal are not there.
    pub fn reject(&mut self, position: u64, seq: u64, reason: &str) -> Result<()> {
        self.position = position;
        self.seq = seq;
        self.finish::<()>(reason).map(|_| ())
    }

    fn take(&mut self, len: u64) -> Result<Recovered<'_>> {
        let at = self.next_at;
        let position = self.position;
        self.next_at += len;
        self.position += len;
        self.seq += 1;
        let start = (at - self.buffer_at) as usize;
        let segment = &self.chain[self.current];
        let frame = record::parse(&self.buffer[start..], segment.header.incarnation)
            .map_err(|e| e.at("journal frame", segment.path.clone()))?;
        self.synced_upto = self.synced_upto.max(frame.header.synced_upto);
        Ok(Recovered {
            payload_offset: DATA_START + at + frame.header.payload_offset(),
            frame,
            segment,
            position,
            end: position + len,
            synced_upto: self.synced_upto,
        })
    }

    /// Whether the next segment of the chain begins at the present position, or this one is full.
    fn ends_here(&self, segment: &Segment) -> bool {
        let next_begins = self.chain.get(self.current + 1).is_some_and(|n| n.header.base <= self.position);
        next_begins || self.next_at + HEADER_LEN as u64 > segment.header.capacity
    }

    fn advance(&mut self) {
        self.current += 1;
        self.buffer.clear();
        self.buffer_at = 0;
        self.next_at = 0;
        if let Some(next) = self.chain.get(self.current)
            && next.header.base != self.position
        {
            // A gap: what follows cannot be reached. `finish` decides whether that is damage.
            self.current = self.chain.len();
        }
    }

    fn slice(&self) -> &[u8] {
        &self.buffer[(self.next_at - self.buffer_at) as usize..]
    }

    fn place(&self) -> String {
        match self.chain.get(self.current) {
            Some(s) => format!("{} offset {}", s.path, DATA_START + self.next_at),
            None => format!("{} position {}", folder(self.ve), self.position),
        }
    }

    /// Makes at least `len` bytes from `next_at` on present, as far as the segment has them.
    fn fill(&mut self, segment: &Segment, len: u64) -> Result<()> {
        let have = self.buffer_at + self.buffer.len() as u64;
        let want = (self.next_at + len).min(segment.header.capacity);
        if want <= have {
            return Ok(());
        }
        let keep = (self.next_at - self.buffer_at) as usize;
        self.buffer.drain(..keep);
        self.buffer_at = self.next_at;
        let end = want.max(self.next_at + STEP).min(segment.header.capacity);
        let old = self.buffer.len();
        self.buffer.resize((end - self.buffer_at) as usize, 0);
        segment
            .file
            .read_at(&mut self.buffer[old..], DATA_START + self.buffer_at + old as u64)
            .map_err(Error::io("reading journal segment", segment.path.clone()))
    }

    /// The frames end here: a torn tail, unless something later says that more was durable.
    fn finish<T>(&mut self, reason: &str) -> Result<Option<T>> {
        let mut promised = self.synced_upto;
        let place = self.place();
        // Segments that begin before the tear and are not of the chain are former lives.
        let from = self.chain.get(self.current).map_or(u64::MAX, |s| s.header.order);
        for segment in &self.all {
            if segment.header.order >= from || segment.header.base > self.position {
                promised = promised.max(latest_synced(segment)?);
            }
        }
        if promised > self.position {
            return Err(Error::Damage {
                what: "journal",
                place,
                detail: format!(
                    "{reason} at position {}, though everything up to {promised} was durable",
                    self.position
                ),
            });
        }
        self.current = self.chain.len();
        Ok(None)
    }

    /// What a writer needs to go on after everything was read. Segments beyond the end are removed.
    pub fn into_tail(self) -> Result<TailState> {
        let next_order = self.all.iter().map(|s| s.header.order + 1).max().unwrap_or(0);
        let mut segments = Vec::new();
        for segment in self.all {
            let in_chain = self.chain.iter().any(|s| Arc::ptr_eq(s, &segment));
            let before = self.chain.first().is_some_and(|f| segment.header.base < f.header.base);
            if before || (in_chain && segment.header.base < self.position) {
                segments.push(segment);
            } else {
                let path = segment.path.clone();
                self.storage.remove(&path).map_err(Error::io("removing journal segment", path))?;
            }
        }
        for path in self.unused {
            self.storage.remove(&path).map_err(Error::io("removing journal segment", path))?;
        }
        let read_from = self.chain.first().map_or(self.position, |s| s.header.base.min(self.position));
        Ok(TailState { segments, read_from, next_order, position: self.position, seq: self.seq })
    }
}

/// The segments from `first` on that follow one another: rising order, and none that a later one replaced.
fn chain_from(all: &[Arc<Segment>], first: usize) -> Vec<Arc<Segment>> {
    let mut chain: Vec<Arc<Segment>> = vec![all[first].clone()];
    for next in &all[first + 1..] {
        while chain.last().is_some_and(|l| l.header.base == next.header.base && l.header.order < next.header.order) {
            chain.pop();
        }
        if chain.last().is_none_or(|l| l.header.order < next.header.order) {
            chain.push(next.clone());
        }
    }
    chain
}

/// Valid segments and unused files.
type Listing = (Vec<Arc<Segment>>, Vec<String>);

/// The valid segments of a VE, sorted by base and order, and the spare files that were never begun. Other files that are no
/// segments (a torn creation) are left alone.
fn list(storage: &dyn Storage, store: [u8; 16], ve: VeId) -> Result<Listing> {
    let dir = folder(ve);
    let mut out = Vec::new();
    let mut unused = Vec::new();
    for name in storage.list(&dir).map_err(Error::io("listing journal", dir.clone()))? {
        let path = format!("{dir}/{name}");
        let file = storage.open(&path).map_err(Error::io("opening journal segment", path.clone()))?;
        let mut head = [0; COPY_AT + SEGMENT_HEADER_LEN];
        let len = file.len().map_err(Error::io("reading journal segment", path.clone()))?;
        if len < DATA_START {
            continue;
        }
        file.read_at(&mut head, 0).map_err(Error::io("reading journal segment", path.clone()))?;
        match SegmentHeader::parse_block(&head) {
            Ok(header) if header.store == store && header.ve == ve => {
                let capacity = header.capacity.min(len - DATA_START);
                out.push(Arc::new(Segment { path, file, header: SegmentHeader { capacity, ..header } }));
            }
            Ok(_) => {
                return Err(Error::Damage {
                    what: "journal segment",
                    place: path,
                    detail: "it belongs to another store or VE".into(),
                });
            }
            Err(e @ (FormatError::Unknown { .. } | FormatError::Cipher(..))) => {
                return Err(e.at("journal segment", path));
            }
            Err(_) if head == [0; COPY_AT + SEGMENT_HEADER_LEN] && !begun(&*file, len, &path)? => unused.push(path),
            // A header that never became durable; whether something is missing, `finish` decides.
            Err(_) => {}
        }
    }
    out.sort_by_key(|s: &Arc<Segment>| (s.header.base, s.header.order));
    Ok((out, unused))
}

/// Whether there are bytes where the first frame would lie: then it is no spare, only its header is gone.
fn begun(file: &dyn File, len: u64, path: &str) -> Result<bool> {
    let mut first = vec![0; HEADER_LEN.min((len - DATA_START) as usize)];
    file.read_at(&mut first, DATA_START).map_err(Error::io("reading journal segment", path))?;
    Ok(first.iter().any(|b| *b != 0))
}

/// The largest `synced_upto` of any valid frame header in a segment, wherever it lies.
fn latest_synced(segment: &Segment) -> Result<u64> {
    let mut buffer = vec![0; segment.header.capacity as usize];
    segment
        .file
        .read_at(&mut buffer, DATA_START)
        .map_err(Error::io("reading journal segment", segment.path.clone()))?;
    let magic = record::MAGIC.to_le_bytes();
    let mut latest = 0;
    for at in (0..buffer.len().saturating_sub(HEADER_LEN)).step_by(record::ALIGN as usize) {
        if buffer[at..at + 4] == magic
            && let Ok(h) = record::parse_header(&buffer[at..], segment.header.incarnation)
        {
            latest = latest.max(h.synced_upto);
        }
    }
    Ok(latest)
}
