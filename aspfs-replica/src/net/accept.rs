//! The side that is dialled: handshakes, the exchange of lists, and then the peer's streams.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream, ServerConfig};
use tokio::time::timeout;

use super::error::{NetError, close};
use super::frames::{FrameReader, FrameWriter};
use super::handshakes::Begun;
use super::link::Link;
use super::lists;
use super::refusal::Refusal;
use super::request::{self, AnswerWriter};
use super::shared::Shared;
use super::stats::add;
use super::stream::{BULK, FRAMES, LISTS, REQUEST, Source};
use super::tls;
use crate::node::NodeId;

/// What a node does for its peers. Each call runs as a task of its own, and ends when the connection does: every read and write fails then.
pub trait Handler: Send + Sync + 'static {
    /// A peer opened a stream for a VE's frames.
    fn frames(&self, from: NodeId, writer: FrameWriter, reader: FrameReader) -> impl Future<Output = ()> + Send;

    /// A peer opened a stream for a VE's bulk payloads. A handler that takes none breaks it off.
    fn bulk(&self, _from: NodeId, _reader: FrameReader) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// A peer asks. The answers end with [`AnswerWriter::finish`].
    fn request(&self, from: NodeId, request: Bytes, answers: AnswerWriter) -> impl Future<Output = ()> + Send;
}

/// Takes connections until the endpoint is closed. `base` has everything of a configuration but what a handshake is checked with.
pub(super) async fn listen<H: Handler>(shared: Arc<Shared>, handler: Arc<H>, base: ServerConfig) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let turn = match shared.handshakes.begin(incoming.remote_address().ip(), !incoming.may_retry()) {
            Begun::Turn(turn) => turn,
            Begun::Retry => {
                let _ = incoming.retry();
                continue;
            }
            Begun::Busy => {
                shared.counts.count(Refusal::Busy);
                incoming.refuse();
                continue;
            }
        };
        let (shared, handler, base) = (shared.clone(), handler.clone(), base.clone());
        tokio::spawn(async move {
            let from = incoming.remote_address();
            let welcomed = welcome(&shared, incoming, base).await;
            drop(turn);
            match welcomed {
                Ok(link) => serve(link, handler).await,
                Err(NetError::Refused(why)) => {
                    tracing::info!(%from, reason = why.name(), "connection refused: {why}");
                }
                Err(e) => tracing::debug!(%from, "no connection: {e}"),
            }
        });
    }
}

/// A handshake, the exchange of lists, and the look at the list. A connection that is not admitted is closed with the reason, and the
/// reason is counted.
async fn welcome(shared: &Arc<Shared>, incoming: Incoming, mut base: ServerConfig) -> Result<Arc<Link>, NetError> {
    let slow = |_| NetError::Refused(Refusal::Slow);
    let (crypto, verdict) = tls::listener(&shared.cluster)?;
    base.crypto = Arc::new(crypto);
    // The first packet may be enough to refuse a peer: then there is nothing to wait for.
    let handshake = async { incoming.accept_with(Arc::new(base))?.await };
    let shaken = timeout(shared.settings.patience, handshake).await.map_err(slow).and_then(|done| {
        done.map_err(|e| match (verdict.get(), e) {
            (Some(why), _) => NetError::Refused(*why),
            (None, ConnectionError::TimedOut) => NetError::Refused(Refusal::Slow),
            (None, e) => e.into(),
        })
    });
    if let Err(NetError::Refused(why)) = &shaken {
        shared.counts.count(*why);
    }
    let connection = shaken?;
    let admitted = timeout(shared.settings.patience, admit(shared, &connection)).await.map_err(slow).flatten();
    if let Err(NetError::Refused(why)) = &admitted {
        shared.counts.count(*why);
        close(&connection, Some(*why));
    }
    admitted
}

async fn admit(shared: &Arc<Shared>, connection: &Connection) -> Result<Arc<Link>, NetError> {
    // Nothing but lists until it is known who this is: a peer that has just been added, or has a new certificate, brings the list that
    // says so; one that nobody vouches for any more gets nothing.
    let (send, recv) = connection.accept_bi().await?;
    let mut source = Source::new(recv);
    if !source.fill(1).await? || source.unit() != [LISTS] {
        return Err(NetError::Refused(Refusal::StreamKind));
    }
    let theirs = lists::take(shared, source.into_inner()).await?;
    let link = shared.admit(connection, true, lists::name(&theirs)).map_err(NetError::Refused)?;
    lists::answer(shared, send, &theirs).await?;
    Ok(link)
}

/// Takes the streams of a peer that dialled.
async fn serve<H: Handler>(link: Arc<Link>, handler: Arc<H>) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        let (link, handler) = (link.clone(), handler.clone());
        tokio::spawn(async move {
            let patience = link.shared.settings.patience;
            let Some((kind, recv)) = kind(&link, recv, patience).await else { return };
            match kind {
                FRAMES => {
                    add(&link.traffic.payload_received, 1);
                    let (writer, reader) = (FrameWriter::new(link.clone(), send), FrameReader::new(link.clone(), recv));
                    handler.frames(link.peer, writer, reader).await;
                }
                BULK => {
                    add(&link.traffic.payload_received, 1);
                    handler.bulk(link.peer, FrameReader::of_bulk(link.clone(), recv)).await;
                }
                REQUEST => serve_request(link, handler, send, recv, patience).await,
                LISTS => serve_lists(link, send, recv, patience).await,
                _ => link.refuse(Refusal::StreamKind),
            }
        });
    }
}

/// Takes the streams of a peer that this node dialled: it may open them for its list, and for nothing else.
pub(super) async fn serve_dialled(link: Arc<Link>) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        let link = link.clone();
        tokio::spawn(async move {
            let patience = link.shared.settings.patience;
            match kind(&link, recv, patience).await {
                Some((LISTS, recv)) => serve_lists(link, send, recv, patience).await,
                Some(_) => link.refuse(Refusal::StreamKind),
                None => {}
            }
        });
    }
}

/// The first byte of a stream; `None` where the stream is not to be served.
async fn kind(link: &Link, recv: RecvStream, patience: Duration) -> Option<(u8, RecvStream)> {
    let mut source = Source::new(recv);
    match timeout(patience, source.fill(1)).await {
        Ok(Ok(true)) => Some((source.unit().first().copied()?, source.into_inner())),
        // A stream without a byte says nothing wrong.
        Ok(_) => None,
        Err(_) => {
            link.shared.counts.count(Refusal::Slow);
            None
        }
    }
}

async fn serve_request<H: Handler>(
    link: Arc<Link>,
    handler: Arc<H>,
    send: SendStream,
    recv: RecvStream,
    patience: Duration,
) {
    let answers = AnswerWriter::new(link.clone(), send);
    // Unread until there is a turn for it: the network holds it back.
    let Ok(_turn) = link.requests.clone().acquire_owned().await else { return };
    if link.stands().is_err() {
        return;
    }
    match timeout(patience, request::take(&link, recv)).await {
        Ok(Ok(request)) => handler.request(link.peer, request, answers).await,
        Ok(Err(e)) => {
            if let Some(why) = request::offence(&e) {
                link.refuse(why);
            }
        }
        Err(_) => link.shared.counts.count(Refusal::Slow),
    }
}

async fn serve_lists(link: Arc<Link>, send: SendStream, recv: RecvStream, patience: Duration) {
    let _alone = link.listing.lock().await;
    let exchanged = async {
        let theirs = lists::take(&link.shared, recv).await?;
        *link.known.lock() = lists::name(&theirs);
        lists::answer(&link.shared, send, &theirs).await
    };
    match timeout(patience, exchanged).await {
        Ok(Err(NetError::Refused(why))) => link.refuse(why),
        Ok(_) => {}
        Err(_) => link.refuse(Refusal::Slow),
    }
}
