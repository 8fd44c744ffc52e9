//! What a promotion would lose: what each other node of a VE has beyond this one, in versions, files and bytes.
//!
//! Each node counts for itself, from its journal, and for no longer than a moment. A node that does not answer may have more than anybody knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bincode::{Decode, Encode};
use tokio::task::{block_in_place, spawn_blocking};
use vefs::Ve;
use vefs::change::{Body, Change, Purpose};
use vefs::codec;
use vefs::ids::{InodeNo, Position, TxnNo, VeId};
use vefs::ve::{Feed, FeedPayload, FeedRecord, Known};

use super::operate::{OperateError, cannot};
use super::peers::named;
use super::talk::{Question, Reply};
use super::{Inner, Runtime};
use crate::node::NodeId;

/// How long a node counts. What it has not counted by then it says it has not.
const COUNTS: Duration = Duration::from_secs(1);
/// Most files that are told apart.
const FILES_MAX: usize = 1 << 20;

/// What one node has beyond a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Beyond {
    /// Versions.
    pub txns: u64,
    /// Files and directories that they changed.
    pub files: u64,
    /// Bytes that they wrote.
    pub bytes: u64,
    /// Files and bytes are counted whole; else they are more.
    pub whole: bool,
    /// The position that was asked for is no part of the history there: it went another way, and the versions are from where its number is on.
    pub diverged: bool,
}

/// A VE's stakes here.
#[derive(Clone, Debug)]
pub struct Stakes {
    /// How far it is here, durably.
    pub here: Position,
    /// The other nodes; `None`: it does not answer.
    pub others: Vec<(NodeId, Option<Beyond>)>,
}

impl Runtime {
    /// What would be lost if this node wrote the VE from now on.
    pub fn stakes(&self, ve: VeId) -> Result<Stakes, OperateError> {
        let inner = self.inner().clone();
        self.block_on(async move { inner.stakes(ve).await })
    }
}

impl Inner {
    async fn stakes(self: &Arc<Self>, id: VeId) -> Result<Stakes, OperateError> {
        if !self.store.has_ve(id) {
            return Err(cannot(format!("there is no VE {id} here")));
        }
        let ve = block_in_place(|| self.store.ve(id))?;
        let (policy, position, me) = (ve.policy()?, ve.durable_position(), self.cluster.node());
        let mut answers = tokio::task::JoinSet::new();
        for node in named(&policy).into_iter().filter(|n| *n != me) {
            let this = self.clone();
            answers.spawn(async move { (node, this.ask(node, Question::Beyond { ve: id, position }).await) });
        }
        let mut others: Vec<(NodeId, Option<Beyond>)> = (answers.join_all().await.into_iter())
            .map(|(node, answer)| (node, if let Ok(Reply::Beyond(beyond)) = answer { Some(beyond) } else { None }))
            .collect();
        others.sort_unstable_by_key(|(node, _)| *node);
        Ok(Stakes { here: position, others })
    }

    /// What this node has beyond another one's position.
    pub(super) async fn beyond(&self, id: VeId, position: Position) -> Reply {
        let found = block_in_place(|| self.of_lineage(id, position.lineage));
        let Some(ve) = found else { return Reply::No(format!("VE {id} is not here, or has another history")) };
        match spawn_blocking(move || count(&ve, &position)).await {
            Ok(Ok(beyond)) => Reply::Beyond(beyond),
            Ok(Err(e)) => Reply::No(e.to_string()),
            Err(e) => Reply::No(e.to_string()),
        }
    }
}

/// Counts from the journal what lies behind a position.
fn count(ve: &Ve, position: &Position) -> vefs::Result<Beyond> {
    let head = ve.durable_position();
    let diverged = match ve.position_at(position.txn)? {
        Known::Here(here) => here != *position,
        // It has less, or does not know any more.
        Known::Beyond | Known::Gone => false,
    };
    let mut beyond =
        Beyond { txns: head.txn.0.saturating_sub(position.txn.0), whole: true, diverged, ..Beyond::default() };
    let (mut files, mut at, until) = (BTreeSet::new(), position.txn, Instant::now() + COUNTS);
    while at < head.txn {
        let Feed::Txn(txn) = ve.feed(at)? else { break };
        for record in &txn.records {
            let body: Body = codec::decode(&record.body)?;
            // What only keeps house changes nothing that anybody would miss.
            if body.purpose == Purpose::Operation {
                beyond.bytes = beyond.bytes.saturating_add(payload(record));
                files.extend(body.changes.iter().filter_map(changed));
            }
        }
        at = TxnNo(at.0.saturating_add(1));
        if Instant::now() >= until || files.len() > FILES_MAX {
            break;
        }
    }
    beyond.whole = at >= head.txn;
    beyond.files = files.len() as u64;
    Ok(beyond)
}

/// Bytes that anybody could miss.
fn payload(record: &FeedRecord) -> u64 {
    match &record.payload {
        None | Some(FeedPayload::Cancelled(_)) => 0,
        Some(payload) => payload.size(),
    }
}

/// The inode that is another one by a change.
fn changed(change: &Change) -> Option<InodeNo> {
    match change {
        Change::PutInode(ino, _)
        | Change::DropInode(ino)
        | Change::PutDentry(ino, ..)
        | Change::DropDentry(ino, ..)
        | Change::PutTarget(ino, _)
        | Change::PutXattr(ino, ..)
        | Change::DropXattr(ino, _)
        | Change::Map(ino, ..)
        | Change::Unmap(ino, ..)
        | Change::Wrote(ino, ..) => Some(*ino),
        Change::Usage(..)
        | Change::PutSettings(_)
        | Change::PutHold(..)
        | Change::DropHold(_)
        | Change::PutPolicy(_) => None,
    }
}
