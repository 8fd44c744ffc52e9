//! A VE's stream: wire frames ([`crate::wire`]) in both directions.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::error::NetError;
use super::link::Link;
use super::refusal::Refusal;
use super::stats::add;
use super::stream::{Sink, Source, sent};
use crate::node::NodeId;
use crate::wire::{self, Envelope, HEADER_LEN, Message, WireError};

/// The sending half.
pub struct FrameWriter {
    sink: Sink,
    link: Arc<Link>,
}

impl FrameWriter {
    pub(super) fn new(link: Arc<Link>, send: SendStream) -> FrameWriter {
        FrameWriter { sink: Sink::new(send), link }
    }

    /// Puts the kind of the stream in front of everything.
    pub(super) fn open(mut self, kind: u8) -> FrameWriter {
        self.sink.push(Bytes::copy_from_slice(&[kind]));
        self
    }

    /// The other side.
    pub fn peer(&self) -> NodeId {
        self.link.peer
    }

    /// Where several streams to a peer have something to send, those of the highest priority go first, and those of the same one in turns.
    pub fn prefer(&self, priority: i32) {
        self.sink.prefer(priority);
    }

    /// Sends a frame, as [`wire::encode`] gives it, and waits until QUIC has taken it: a slow receiver makes this wait. A call that is
    /// dropped while it waits has taken the frame nevertheless: it goes out before the next one, or by [`FrameWriter::flush`].
    pub async fn send(&mut self, frame: impl Into<Bytes>) -> Result<(), NetError> {
        self.sink.push(frame.into());
        add(&self.link.traffic.frames_sent, 1);
        self.flush().await
    }

    /// Waits until QUIC has taken everything.
    pub async fn flush(&mut self) -> Result<(), NetError> {
        let flushed = self.sink.flush(sent(&self.link)).await;
        flushed.map_err(|e| self.link.explain(e))
    }

    /// Ends this direction. A writer that is dropped without it breaks the stream off.
    pub async fn finish(mut self) -> Result<(), NetError> {
        let finished = self.sink.finish(sent(&self.link)).await;
        finished.map_err(|e| self.link.explain(e))
    }
}

/// The receiving half.
pub struct FrameReader {
    source: Source,
    /// Whether bulk comes here, and nothing else; or everything else.
    bulk: bool,
    link: Arc<Link>,
}

impl FrameReader {
    pub(super) fn new(link: Arc<Link>, recv: RecvStream) -> FrameReader {
        FrameReader { source: Source::new(recv), bulk: false, link }
    }

    /// Of a stream of bulk.
    pub(super) fn of_bulk(link: Arc<Link>, recv: RecvStream) -> FrameReader {
        FrameReader { bulk: true, ..FrameReader::new(link, recv) }
    }

    /// The other side.
    pub fn peer(&self) -> NodeId {
        self.link.peer
    }

    /// The next frame; `None` when the other side has finished. A call that is dropped while it waits loses nothing. What is no frame
    /// closes the connection.
    pub async fn next(&mut self) -> Result<Option<(Envelope, Message)>, NetError> {
        if !self.fill(HEADER_LEN).await? {
            return Ok(None);
        }
        // What has arrived from a node that was thrown out meanwhile is not read any more.
        self.link.stands()?;
        let header = wire::header(self.source.unit()).map_err(|e| self.malformed(e))?;
        // Before anything is kept of it.
        if wire::is_bulk(header.kind) != self.bulk {
            return Err(self.malformed(WireError::Stream(header.kind)));
        }
        self.fill(HEADER_LEN + header.body_len).await?;
        let (envelope, message, used) = wire::decode(self.source.unit()).map_err(|e| self.malformed(e))?;
        self.source.clear();
        add(&self.link.traffic.frames_received, 1);
        add(&self.link.traffic.payload_received, used as u64);
        Ok(Some((envelope, message)))
    }

    /// The first frame of a stream: who it is about, and nothing large, soon. `None` where it is not that.
    pub async fn first(&mut self) -> Option<(Envelope, Message)> {
        let patience = self.link.shared.settings.patience;
        let first = async {
            if !self.fill(HEADER_LEN).await.ok()? {
                return None;
            }
            let header = wire::header(self.source.unit()).map_err(|e| self.malformed(e)).ok()?;
            if header.kind != wire::HELLO {
                self.malformed(WireError::Stream(header.kind));
                return None;
            }
            self.next().await.ok().flatten()
        };
        match tokio::time::timeout(patience, first).await {
            Ok(first) => first,
            Err(_) => {
                self.link.shared.counts.count(Refusal::Slow);
                None
            }
        }
    }

    async fn fill(&mut self, need: usize) -> Result<bool, NetError> {
        let filled = self.source.fill(need).await;
        filled.map_err(|e| self.link.explain(e))
    }

    fn malformed(&self, e: WireError) -> NetError {
        self.link.refuse(Refusal::Frame);
        NetError::Frame(e)
    }
}
