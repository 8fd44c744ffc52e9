//! The bytes of one regular file, as runs that do not overlap. Huge sparse offsets cost nothing.
//!
//! Invariants: no run is empty; `mapped` and `charged` are the sums over the runs; bytes never lie beyond the file's
//! size (the caller cuts), reserved runs may.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A run of bytes; its offset in the file is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes that were written in this VE.
    Data(Bytes),
    /// Bytes of the base tree: free of charge.
    Base(Bytes),
    /// Reserved by fallocate: reads as zeros.
    Reserved(u64),
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Segment::Data(b) | Segment::Base(b) => b.len() as u64,
            Segment::Reserved(n) => *n,
        }
    }

    fn is_charged(&self) -> bool {
        !matches!(self, Segment::Base(_))
    }

    /// The bytes from `from` to `to` of this segment, both relative to its start.
    fn slice(&self, from: u64, to: u64) -> Segment {
        match self {
            Segment::Data(b) => Segment::Data(b.slice(from as usize..to as usize)),
            Segment::Base(b) => Segment::Base(b.slice(from as usize..to as usize)),
            Segment::Reserved(_) => Segment::Reserved(to - from),
        }
    }

    /// What a run of this segment is called from outside.
    pub fn kind(&self) -> RunKind {
        match self {
            Segment::Data(_) => RunKind::Data,
            Segment::Base(_) => RunKind::Base,
            Segment::Reserved(_) => RunKind::Reserved,
        }
    }
}

/// What maps a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunKind {
    /// Written or copied bytes of this VE: a payload or a sealed object.
    Data,
    /// Bytes of the base tree.
    Base,
    /// Reserved, reads as zeros.
    Reserved,
}

/// A mapped range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
    /// What maps it.
    pub kind: RunKind,
}

/// Sorts runs and joins neighbours of the same kind, so that two maps can be compared whatever their fragmentation.
pub fn normalize(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by_key(|r| r.offset);
    let mut out: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match out.last_mut() {
            Some(last) if last.kind == run.kind && last.offset + last.len == run.offset => last.len += run.len,
            _ => out.push(run),
        }
    }
    out
}

/// The mapped runs of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    runs: BTreeMap<u64, Segment>,
    mapped: u64,
    charged: u64,
}

impl Content {
    /// Bytes that are not holes.
    pub fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Mapped bytes that count towards the quota.
    pub fn charged(&self) -> u64 {
        self.charged
    }

    /// The parts of the runs that lie in `start..end`, each with its offset in the file.
    pub fn slices(&self, start: u64, end: u64) -> Vec<(u64, Segment)> {
        if start >= end {
            return Vec::new();
        }
        let first = self.runs.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let cut = |(at, seg): (&u64, &Segment)| {
            let (from, to) = (start.max(*at), end.min(at + seg.len()));
            (from < to).then(|| (from, seg.slice(from - at, to - at)))
        };
        self.runs.range(first..end).filter_map(cut).collect()
    }

    /// Bytes of `start..end` that count towards the quota.
    pub fn charged_in(&self, start: u64, end: u64) -> u64 {
        self.slices(start, end).iter().filter(|(_, s)| s.is_charged()).map(|(_, s)| s.len()).sum()
    }

    /// The holes in `start..end`, as (start, end).
    pub fn holes(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut at = start;
        for (from, seg) in self.slices(start, end) {
            if at < from {
                holes.push((at, from));
            }
            at = from + seg.len();
        }
        if at < end {
            holes.push((at, end));
        }
        holes
    }

    /// Makes `start..end` a hole.
    pub fn unmap(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.runs.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let touched: Vec<u64> = self.runs.range(first..end).map(|(at, _)| *at).collect();
        for at in touched {
            let Some(seg) = self.take(at) else { continue };
            let len = seg.len();
            if at < start {
                self.add(at, seg.slice(0, len.min(start - at)));
            }
            if at + len > end {
                let from = end.max(at);
                self.add(from, seg.slice(from - at, len));
            }
        }
    }

    /// Maps `segment` at `offset`, over whatever was there.
    pub fn put(&mut self, offset: u64, segment: Segment) {
        self.unmap(offset, offset + segment.len());
        self.add(offset, segment);
    }

    fn add(&mut self, at: u64, seg: Segment) {
        if seg.len() == 0 {
            return;
        }
        self.mapped += seg.len();
        self.charged += if seg.is_charged() { seg.len() } else { 0 };
        let old = self.runs.insert(at, seg);
        assert!(old.is_none(), "runs overlap at {at}");
    }

    fn take(&mut self, at: u64) -> Option<Segment> {
        let seg = self.runs.remove(&at)?;
        self.mapped -= seg.len();
        self.charged -= if seg.is_charged() { seg.len() } else { 0 };
        Some(seg)
    }

    /// The bytes of `start..end`, holes and reserved runs as zeros.
    pub fn read(&self, start: u64, end: u64) -> Vec<u8> {
        let mut out = vec![0u8; end.saturating_sub(start) as usize];
        for (at, seg) in self.slices(start, end) {
            if let Segment::Data(b) | Segment::Base(b) = seg {
                let from = (at - start) as usize;
                out[from..from + b.len()].copy_from_slice(&b);
            }
        }
        out
    }

    /// All runs, joined.
    pub fn runs(&self) -> Vec<Run> {
        let all = self.runs.iter().map(|(at, s)| Run { offset: *at, len: s.len(), kind: s.kind() });
        normalize(all.collect())
    }

    /// First byte at or after `from` that holds data; `None` when there is none.
    pub fn next_data(&self, from: u64) -> Option<u64> {
        let first = self.runs.range(..=from).next_back().map_or(from, |(at, _)| *at);
        let holds_data = |(at, s): &(&u64, &Segment)| **at + s.len() > from && s.kind() != RunKind::Reserved;
        self.runs.range(first..).find(holds_data).map(|(at, _)| from.max(*at))
    }

    /// First byte at or after `from` that holds no data.
    pub fn next_hole(&self, from: u64) -> u64 {
        let mut at = from;
        loop {
            match self.runs.range(..=at).next_back() {
                Some((start, s)) if start + s.len() > at && s.kind() != RunKind::Reserved => at = start + s.len(),
                _ => return at,
            }
        }
    }
}
