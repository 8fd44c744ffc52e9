//! Reading frames of a journal that is in use: what is shipped to replicas. Everything read lies before the durable position, so an
//! invalid frame is damage.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{Journal, Segment};
use crate::error::{Error, Result};
use crate::format::record::{self, Frame, HEADER_LEN};
use crate::format::segment::DATA_START;

/// Bytes read at a time.
const STEP: u64 = 1 << 20;

/// A range of a journal, and the segments that it lies in. They are not recycled while this is there.
pub struct Span {
    segments: Vec<Arc<Segment>>,
    begin: u64,
    end: u64,
}

impl Journal {
    /// The range of these positions; `None` when its beginning has been recycled.
    pub fn span(&self, begin: u64, end: u64) -> Option<Span> {
        if begin < self.oldest() || end > self.position() {
            return None;
        }
        // A later segment of the same base replaced an earlier one.
        let first = self.segments().rposition(|s| s.header.base <= begin).unwrap_or(0);
        let segments = self.segments().skip(first).filter(|s| s.header.base < end).cloned().collect();
        Some(Span { segments, begin, end })
    }
}

impl Journal {
    /// The rest of the first segment that has durable frames behind `from` and before `upto`: the range with its beginning and its end.
    pub fn durable_part(&self, from: u64, upto: u64) -> Option<(Span, u64, u64)> {
        let limit = upto.min(self.durable());
        let bases: Vec<u64> = self.segments().map(|s| s.header.base).collect();
        let ends = bases.iter().skip(1).copied().chain([limit]);
        let (begin, end) = bases.iter().zip(ends).find_map(|(base, end)| {
            let (begin, end) = ((*base).max(from), end.min(limit));
            (begin < end).then_some((begin, end))
        })?;
        self.span(begin, end).map(|span| (span, begin, end))
    }
}

impl Span {
    /// Where its first segment ends.
    pub fn first_end(&self) -> u64 {
        self.segments.get(1).map_or(self.end, |next| next.header.base)
    }

    /// Visits the frames in order, each with its position.
    pub fn each(&self, visit: &mut dyn FnMut(u64, Frame<'_>) -> Result<()>) -> Result<()> {
        let mut at = self.begin;
        for (i, segment) in self.segments.iter().enumerate() {
            let end = self.segments.get(i + 1).map_or(self.end, |next| next.header.base);
            if at < end {
                segment_frames(segment, at, end, visit)?;
                at = end;
            }
        }
        Ok(())
    }
}

fn segment_frames(
    segment: &Segment,
    begin: u64,
    end: u64,
    visit: &mut dyn FnMut(u64, Frame<'_>) -> Result<()>,
) -> Result<()> {
    let mut buffer: Vec<u8> = Vec::new();
    let (mut at, mut start) = (begin, begin);
    let bad = |at: u64, detail: &str| Error::Damage {
        what: "journal frame",
        place: format!("{} position {at}", segment.path),
        detail: detail.into(),
    };
    // Makes `len` bytes from `at` on present.
    let fill = |buffer: &mut Vec<u8>, start: &mut u64, at: u64, len: u64| -> Result<()> {
        if at + len > end {
            return Err(bad(at, "it reaches beyond what was written"));
        }
        let have = *start + buffer.len() as u64;
        if at + len <= have {
            return Ok(());
        }
        buffer.drain(..(at - *start) as usize);
        *start = at;
        let old = buffer.len();
        let upto = (at + len.max(STEP)).min(end);
        buffer.resize((upto - at) as usize, 0);
        let from = DATA_START + (at + old as u64 - segment.header.base);
        segment.file.read_at(&mut buffer[old..], from).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => bad(at, "its file ends before"),
            _ => Error::io("reading journal segment", &*segment.path)(e),
        })
    };
    while at < end {
        fill(&mut buffer, &mut start, at, HEADER_LEN as u64)?;
        let header = record::parse_header(&buffer[(at - start) as usize..], segment.header.incarnation)
            .map_err(|e| e.at("journal frame", format!("{} position {at}", segment.path)))?;
        let len = header.frame_len();
        fill(&mut buffer, &mut start, at, len)?;
        let frame = record::parse(&buffer[(at - start) as usize..], segment.header.incarnation)
            .map_err(|e| e.at("journal frame", format!("{} position {at}", segment.path)))?;
        visit(at, frame)?;
        at += len;
    }
    Ok(())
}
