//! Bytes of one stream, in units whose length is known: a reader that takes a unit whole, and a writer that gives one whole.
//!
//! Both may be dropped while they wait (in a `select!`, for one) and called again: nothing is lost and nothing is sent twice. A stream that
//! ends otherwise than by [`Sink::finish`] is broken off, so that the other side never takes a part for the whole.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::error::NetError;
use super::link::Link;
use super::refusal::ABANDONED;
use super::stats::add;

/// The first byte of a stream: a VE's frames.
pub const FRAMES: u8 = 1;
/// The first byte of a stream: a request and its answers.
pub const REQUEST: u8 = 2;
/// The first byte of a stream: node lists.
pub const LISTS: u8 = 3;
/// The first byte of a stream: a VE's bulk payloads, ahead of their records.
pub const BULK: u8 = 4;

/// Room is made for so many bytes at first, and then for as much again as has come: a header that promises much makes no room.
const STEP: usize = 64 << 10;

/// Takes bytes from a stream.
pub(super) struct Source {
    recv: RecvStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Source {
    pub fn new(recv: RecvStream) -> Source {
        Source { recv, buffer: Vec::new(), filled: 0 }
    }

    /// Waits until the unit has `need` bytes. False when the stream ended before its first one.
    pub async fn fill(&mut self, need: usize) -> Result<bool, NetError> {
        while self.filled < need {
            if self.buffer.len() == self.filled {
                let room = need.min(self.filled + STEP.max(self.filled));
                self.buffer.resize(room, 0);
            }
            let end = self.buffer.len().min(need);
            match self.recv.read(&mut self.buffer[self.filled..end]).await? {
                Some(n) => self.filled += n,
                None if self.filled == 0 => return Ok(false),
                None => return Err(NetError::BrokenOff),
            }
        }
        Ok(true)
    }

    /// The stream behind what was taken.
    pub fn into_inner(self) -> RecvStream {
        self.recv
    }

    /// What there is of the unit.
    pub fn unit(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Forgets the unit, to begin with the next. The buffer is used again, unless it is large.
    pub fn clear(&mut self) {
        self.filled = 0;
        if self.buffer.len() > 8 * STEP {
            self.buffer = Vec::new();
        }
    }

    /// The unit itself.
    pub fn take(&mut self) -> Bytes {
        let mut unit = std::mem::take(&mut self.buffer);
        unit.truncate(self.filled);
        self.filled = 0;
        unit.into()
    }
}

/// Gives bytes to a stream.
pub(super) struct Sink {
    send: SendStream,
    queue: VecDeque<Bytes>,
    finished: bool,
}

impl Sink {
    pub fn new(send: SendStream) -> Sink {
        Sink { send, queue: VecDeque::new(), finished: false }
    }

    /// Appends a unit, without waiting.
    pub fn push(&mut self, unit: Bytes) {
        if !unit.is_empty() {
            self.queue.push_back(unit);
        }
    }

    /// Waits until QUIC has taken everything; `taken` is told of bytes as they go.
    pub async fn flush(&mut self, mut taken: impl FnMut(u64)) -> Result<(), NetError> {
        while !self.queue.is_empty() {
            let written = self.send.write_chunks(self.queue.make_contiguous()).await?;
            self.queue.drain(..written.chunks);
            taken(written.bytes as u64);
        }
        Ok(())
    }

    /// Ends the stream, after everything that was given.
    pub async fn finish(&mut self, taken: impl FnMut(u64)) -> Result<(), NetError> {
        self.flush(taken).await?;
        self.finished = true;
        self.send.finish().map_err(|_| NetError::Ended)
    }

    pub fn prefer(&self, priority: i32) {
        // A stream that is closed already needs no priority.
        let _ = self.send.set_priority(priority);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.finished {
            // Fails only where the stream or the connection has ended already.
            let _ = self.send.reset(ABANDONED);
        }
    }
}

/// A length of 4 bytes, and so many bytes.
pub(super) struct BlobSource {
    source: Source,
    max: usize,
}

impl BlobSource {
    pub fn new(recv: RecvStream, max: usize) -> BlobSource {
        BlobSource { source: Source::new(recv), max }
    }

    /// The next blob; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        if !self.source.fill(4).await? {
            return Ok(None);
        }
        let len = match self.source.unit() {
            [a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
            _ => return Err(NetError::BrokenOff),
        };
        if len > self.max {
            return Err(NetError::Long { len, max: self.max });
        }
        self.source.fill(4 + len).await?;
        Ok(Some(self.source.take().slice(4..)))
    }

    /// The one blob that is left, and then the end.
    pub async fn last(&mut self) -> Result<Bytes, NetError> {
        let blob = self.next().await?.ok_or(NetError::BrokenOff)?;
        match self.source.fill(1).await? {
            true => Err(NetError::Long { len: blob.len() + 1, max: blob.len() }),
            false => Ok(blob),
        }
    }
}

/// The blob as it travels: its length, and itself.
pub(super) fn blob(bytes: Bytes, max: usize) -> Result<[Bytes; 2], NetError> {
    match u32::try_from(bytes.len()) {
        Ok(len) if bytes.len() <= max => Ok([Bytes::copy_from_slice(&len.to_le_bytes()), bytes]),
        _ => Err(NetError::Long { len: bytes.len(), max }),
    }
}

/// What counts bytes that a link's stream took.
pub(super) fn sent(link: &Arc<Link>) -> impl FnMut(u64) + use<'_> {
    |n| add(&link.traffic.payload_sent, n)
}
