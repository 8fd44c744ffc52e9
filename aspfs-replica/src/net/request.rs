//! A stream for one request: a blob there, any number of blobs back, and the end. What the blobs say is the caller's matter.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::error::NetError;
use super::link::Link;
use super::refusal::Refusal;
use super::stats::add;
use super::stream::{BlobSource, REQUEST, Sink, blob, sent};
use crate::node::NodeId;

/// The answers to a request. Dropping it tells the other side that no more are wanted.
pub struct Answers {
    blobs: BlobSource,
    link: Arc<Link>,
}

impl Answers {
    /// The next answer; `None` after the last one. Answers that end before they are whole are an error, never an end. A call that is
    /// dropped while it waits loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        match self.blobs.next().await {
            Ok(Some(answer)) => {
                add(&self.link.traffic.blobs_received, 1);
                add(&self.link.traffic.payload_received, answer.len() as u64 + 4);
                Ok(Some(answer))
            }
            Ok(None) => Ok(None),
            Err(e) => Err(self.link.explain(e)),
        }
    }
}

/// Sends a request.
pub(super) async fn ask(link: Arc<Link>, request: Bytes) -> Result<Answers, NetError> {
    let parts = blob(request, link.shared.settings.request_max)?;
    let (send, recv) = link.open().await?;
    let mut sink = Sink::new(send);
    sink.prefer(super::URGENT);
    sink.push(Bytes::copy_from_slice(&[REQUEST]));
    parts.into_iter().for_each(|p| sink.push(p));
    sink.finish(sent(&link)).await.map_err(|e| link.explain(e))?;
    add(&link.traffic.blobs_sent, 1);
    Ok(Answers { blobs: BlobSource::new(recv, link.shared.settings.answer_max), link })
}

/// The request of a stream that a peer opened.
pub(super) async fn take(link: &Arc<Link>, recv: RecvStream) -> Result<Bytes, NetError> {
    let request = BlobSource::new(recv, link.shared.settings.request_max).last().await;
    let request = request.map_err(|e| link.explain(e))?;
    add(&link.traffic.blobs_received, 1);
    add(&link.traffic.payload_received, request.len() as u64 + 5);
    Ok(request)
}

/// Where answers go. Dropping it without [`AnswerWriter::finish`] breaks the stream off, and the other side sees an error.
pub struct AnswerWriter {
    sink: Sink,
    link: Arc<Link>,
}

impl AnswerWriter {
    pub(super) fn new(link: Arc<Link>, send: SendStream) -> AnswerWriter {
        AnswerWriter { sink: Sink::new(send), link }
    }

    /// As [`FrameWriter::prefer`](super::FrameWriter::prefer).
    pub fn prefer(&self, priority: i32) {
        self.sink.prefer(priority);
    }

    /// Who asks.
    pub fn peer(&self) -> NodeId {
        self.link.peer
    }

    /// Sends an answer and waits until QUIC has taken it: a slow receiver makes this wait. An error says that nobody wants it any more.
    pub async fn send(&mut self, answer: impl Into<Bytes>) -> Result<(), NetError> {
        let parts = blob(answer.into(), self.link.shared.settings.answer_max)?;
        parts.into_iter().for_each(|p| self.sink.push(p));
        let flushed = self.sink.flush(sent(&self.link)).await;
        flushed.map_err(|e| self.link.explain(e))?;
        add(&self.link.traffic.blobs_sent, 1);
        Ok(())
    }

    /// That was the last one.
    pub async fn finish(mut self) -> Result<(), NetError> {
        let finished = self.sink.finish(sent(&self.link)).await;
        finished.map_err(|e| self.link.explain(e))
    }
}

/// What a peer sent instead of a request: whether it deserves to lose its connection.
pub(super) fn offence(e: &NetError) -> Option<Refusal> {
    matches!(e, NetError::Long { .. }).then_some(Refusal::Length)
}
