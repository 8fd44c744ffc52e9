//! Node lists between peers, so that additions and revocations spread: each connection begins with an exchange, and a list that changes is
//! pushed. Whoever opens the stream sends its list; the answer is the other's list, or empty when that is the same by then.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use vefs::ids::Hash;

use super::error::NetError;
use super::refusal::Refusal;
use super::shared::Shared;
use super::stream::{BlobSource, LISTS, Sink, blob};
use crate::cluster::ClusterError;
use crate::cluster::list::LIST_MAX;

/// Lists go ahead of everything else: they may revoke somebody.
const PRIORITY: i32 = super::URGENT + 1;

/// Takes the bytes of a list. One that is not a list, or not the authority's, is an error.
async fn adopt(shared: &Arc<Shared>, bytes: Bytes) -> Result<(), NetError> {
    let cluster = shared.cluster.clone();
    // It may be written to disk.
    let adopted = tokio::task::spawn_blocking(move || cluster.adopt(&bytes)).await;
    match adopted {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(ClusterError::List { .. })) => Err(NetError::Refused(Refusal::List)),
        // It counts although it could not be written, and peers will send it again after a restart.
        Ok(Err(e)) => {
            tracing::error!("the node list could not be written: {e}");
            Ok(())
        }
        Err(_) => Err(NetError::Closed),
    }
}

/// Which list some bytes are.
pub(super) fn name(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// Sends this node's list and takes the peer's. The list that the peer has then.
pub(super) async fn exchange(shared: &Arc<Shared>, connection: &Connection) -> Result<Hash, NetError> {
    let (send, recv) = connection.open_bi().await?;
    let mut sink = Sink::new(send);
    sink.prefer(PRIORITY);
    let own = shared.cluster.list();
    sink.push(Bytes::copy_from_slice(&[LISTS]));
    blob(own.bytes.clone().into(), LIST_MAX)?.into_iter().for_each(|p| sink.push(p));
    sink.finish(|_| {}).await?;
    let answer = BlobSource::new(recv, LIST_MAX).last().await.map_err(long)?;
    if answer.is_empty() {
        return Ok(name(&own.bytes));
    }
    adopt(shared, answer.clone()).await?;
    Ok(name(&answer))
}

/// Takes the list of a peer that opened a stream for it. What is left is to answer it.
pub(super) async fn take(shared: &Arc<Shared>, recv: RecvStream) -> Result<Bytes, NetError> {
    let theirs = BlobSource::new(recv, LIST_MAX).last().await.map_err(long)?;
    adopt(shared, theirs.clone()).await?;
    Ok(theirs)
}

/// Answers a peer that sent `theirs`.
pub(super) async fn answer(shared: &Arc<Shared>, send: SendStream, theirs: &Bytes) -> Result<(), NetError> {
    let own = shared.cluster.list();
    let answer = if own.bytes == *theirs { Bytes::new() } else { Bytes::from(own.bytes.clone()) };
    let mut sink = Sink::new(send);
    sink.prefer(PRIORITY);
    blob(answer, LIST_MAX)?.into_iter().for_each(|p| sink.push(p));
    sink.finish(|_| {}).await
}

fn long(e: NetError) -> NetError {
    match e {
        NetError::Long { .. } => NetError::Refused(Refusal::Length),
        other => other,
    }
}
