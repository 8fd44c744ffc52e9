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
use vefs::ids::{Epoch, InodeNo, Position, TxnNo, VeId};
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
    /// The position that was asked for is no part of the history there: it went another way, and the versions are from the fork on as far as epochs tell where
    /// it is, else from where its number is on.
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
            Ok(Ok(Some(beyond))) => Reply::Beyond(beyond),
            Ok(Ok(None)) => Reply::No(format!("VE {id}: that position is too long ago to be known")),
            Ok(Err(e)) => Reply::No(e.to_string()),
            Err(e) => Reply::No(e.to_string()),
        }
    }
}

/// Where what a history has and a position lacks begins, and whether the two went different ways; `None` where that is not known.
fn parting(ve: &Ve, position: &Position) -> vefs::Result<Option<(TxnNo, bool)>> {
    let head = ve.durable_position();
    Ok(match ve.position_at(position.txn)? {
        Known::Here(here) if here == *position => Some((position.txn, false)),
        // Whoever is there was promoted without what is here: fewer versions, perhaps, and others.
        Known::Here(_) | Known::Beyond if head.epoch > position.epoch => {
            last_of(ve, position.epoch)?.map(|fork| (fork.min(position.txn), true))
        }
        Known::Here(_) => Some((position.txn, true)),
        Known::Beyond => Some((position.txn, false)),
        // In one term there is one writer.
        Known::Gone => (head.epoch.term() == position.epoch.term()).then_some((position.txn, false)),
    })
}

/// The last transaction that is not of a higher epoch, in a history whose head is; `None` where that is too long ago to be known.
fn last_of(ve: &Ve, epoch: Epoch) -> vefs::Result<Option<TxnNo>> {
    // Epochs only rise: all up to `low` are not of a higher one, all from `high` on are.
    let (mut low, mut high, mut known) = (0, ve.durable_position().txn.0, true);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match ve.position_at(TxnNo(middle))? {
            Known::Here(p) if p.epoch <= epoch => (low, known) = (middle, true),
            Known::Here(_) | Known::Beyond => high = middle,
            Known::Gone => (low, known) = (middle, false),
        }
    }
    Ok(known.then_some(TxnNo(low)))
}

/// Counts from the journal what lies behind a position; `None` where what does is not known.
fn count(ve: &Ve, position: &Position) -> vefs::Result<Option<Beyond>> {
    let head = ve.durable_position();
    let Some((from, diverged)) = parting(ve, position)? else { return Ok(None) };
    let mut beyond = Beyond { txns: head.txn.0.saturating_sub(from.0), whole: true, diverged, ..Beyond::default() };
    let (mut files, mut at, until) = (BTreeSet::new(), from, Instant::now() + COUNTS);
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
    Ok(Some(beyond))
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

#[cfg(test)]
mod tests {
    use vefs::format::role::RoleKind;
    use vefs::ids::Hash;
    use vefs::op::{Op, Owner};
    use vefs::ve::Request;

    use super::super::bed;
    use super::*;

    fn files(ve: &Ve, names: std::ops::Range<u8>) {
        for name in names {
            let (parent, owner) = (InodeNo::ROOT, Owner::default());
            let op = Op::Create { parent, name: vec![b'f', b'0' + name], mode: 0o100_600, rdev: 0, owner };
            ve.execute(&op, Request::default()).unwrap();
            ve.commit().unwrap();
        }
    }

    /// A node that was cut off had ten versions of its own, and another one was promoted without them and had five: nothing would be lost by a promotion, it
    /// was said, since five are fewer than ten.
    #[test]
    fn what_went_another_way_is_lost_however_little_it_is() {
        let (store, _) = bed::store();
        let ve = bed::writer(&store, 7);
        files(&ve, 0..9);
        let fork = ve.durable_position();
        ve.step_down(RoleKind::Replica, fork.epoch).unwrap();
        ve.promote(fork.epoch.promoted()).unwrap();
        files(&ve, 10..15);
        let head = ve.durable_position();
        let new = head.txn.0 - fork.txn.0;
        let of = |position| count(&ve, &position).unwrap().map(|b| (b.txns, b.diverged, b.whole));
        let cut_off = |more| Position { txn: TxnNo(fork.txn.0 + more), chain: Hash([9; 32]), ..fork };
        assert_eq!(of(cut_off(10)), Some((new, true, true)));
        assert_eq!(of(cut_off(2)), Some((new, true, true)), "from the fork on, not from the number on");
        assert_eq!(of(fork), Some((new, false, true)));
        assert_eq!(of(head), Some((0, false, true)));
        let later = Position { epoch: head.epoch.promoted(), txn: TxnNo(head.txn.0 + 1), ..head };
        assert_eq!(of(later), Some((0, false, true)), "it has less");
    }
}
