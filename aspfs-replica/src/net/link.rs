//! A live connection with a peer that was admitted, and the handle that callers have of it.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Semaphore;
use vefs::ids::Hash;

use super::error::{NetError, close};
use super::frames::{FrameReader, FrameWriter};
use super::lists;
use super::refusal::Refusal;
use super::request::{self, Answers};
use super::shared::Shared;
use super::stats::Traffic;
use super::stream::{BULK, FRAMES};
use crate::node::NodeId;

/// A connection whose peer is in the node list.
pub(super) struct Link {
    pub connection: Connection,
    pub peer: NodeId,
    /// The certificate that the peer showed.
    pub fingerprint: Hash,
    /// Whether the peer dialled.
    pub incoming: bool,
    pub traffic: Arc<Traffic>,
    pub shared: Arc<Shared>,
    /// Requests of the peer that may be carried out now.
    pub requests: Arc<Semaphore>,
    /// The list that the peer was last known to have.
    pub known: Mutex<Hash>,
    /// Of the lists that the peer sends, one is taken in at a time.
    pub listing: tokio::sync::Mutex<()>,
    /// Why this side closed it.
    refused: OnceLock<Refusal>,
}

impl Link {
    pub fn new(shared: &Arc<Shared>, connection: Connection, who: (NodeId, Hash), incoming: bool, known: Hash) -> Link {
        Link {
            connection,
            peer: who.0,
            fingerprint: who.1,
            incoming,
            traffic: shared.traffic(who.0),
            shared: shared.clone(),
            requests: Arc::new(Semaphore::new(shared.settings.requests_at_once)),
            known: Mutex::new(known),
            listing: tokio::sync::Mutex::new(()),
            refused: OnceLock::new(),
        }
    }

    /// Breaks with the peer. The first reason is the one that is counted and said.
    pub fn refuse(&self, why: Refusal) {
        if self.connection.close_reason().is_none() && self.refused.set(why).is_ok() {
            self.shared.counts.count(why);
            tracing::warn!(peer = %self.peer, reason = why.name(), "connection closed: {why}");
            close(&self.connection, Some(why));
        }
    }

    /// The error of a stream, with this side's reason where it closed the connection.
    pub fn explain(&self, e: NetError) -> NetError {
        match (e, self.refused.get()) {
            (NetError::Closed, Some(why)) => NetError::Refused(*why),
            (e, _) => e,
        }
    }

    /// The reason where this side has broken with the peer.
    pub fn stands(&self) -> Result<(), NetError> {
        self.refused.get().map_or(Ok(()), |why| Err(NetError::Refused(*why)))
    }

    pub async fn open(&self) -> Result<(SendStream, RecvStream), NetError> {
        self.connection.open_bi().await.map_err(|e| self.explain(e.into()))
    }

    /// Sends the node list as often as it changes and the peer does not have it, for as long as the connection lives.
    pub async fn push_lists(self: Arc<Link>) {
        let mut changes = self.shared.changes.subscribe();
        loop {
            let own = lists::name(&self.shared.cluster.list().bytes);
            if own != *self.known.lock() {
                match lists::exchange(&self.shared, &self.connection).await {
                    Ok(theirs) => *self.known.lock() = theirs,
                    Err(NetError::Refused(why)) => return self.refuse(why),
                    Err(_) => return,
                }
            }
            tokio::select! {
                _ = self.connection.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// A peer that this node has dialled. Clones are the same connection. It lives on when all handles are dropped, to be found again by the
/// next [`super::Transport::connect`].
#[derive(Clone)]
pub struct Peer(pub(super) Arc<Link>);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({} at {})", self.0.peer, self.0.connection.remote_address())
    }
}

impl Peer {
    /// Which node.
    pub fn id(&self) -> NodeId {
        self.0.peer
    }

    /// Opens a stream for a VE's frames. Waits where the peer has as many open as it takes.
    pub async fn open(&self) -> Result<(FrameWriter, FrameReader), NetError> {
        let (send, recv) = self.0.open().await?;
        let writer = FrameWriter::new(self.0.clone(), send).open(FRAMES);
        Ok((writer, FrameReader::new(self.0.clone(), recv)))
    }

    /// Opens a stream for a VE's bulk payloads, which nothing comes back on. Waits likewise. It says its kind at once: the peer hears of the stream when
    /// the half that is not wanted is stopped, and waits for the kind no longer than its patience, whenever there will be bulk.
    pub async fn open_bulk(&self) -> Result<FrameWriter, NetError> {
        let (send, _) = self.0.open().await?;
        let mut writer = FrameWriter::new(self.0.clone(), send).open(BULK);
        writer.flush().await?;
        Ok(writer)
    }

    /// Sends a request.
    pub async fn request(&self, request: impl Into<Bytes>) -> Result<Answers, NetError> {
        request::ask(self.0.clone(), request.into()).await
    }

    /// Whether the connection lives, as far as is known.
    pub fn is_live(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> NetError {
        let reason = self.0.connection.closed().await;
        self.0.explain(reason.into())
    }

    /// Closes the connection, and with it all its streams.
    pub fn close(&self) {
        close(&self.0.connection, None);
    }

    /// The present estimate of a round trip.
    pub fn round_trip(&self) -> Duration {
        self.0.connection.rtt()
    }
}
