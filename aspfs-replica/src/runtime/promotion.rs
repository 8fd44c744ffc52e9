//! This node becomes the writer of a VE that it followed: on the administrator's word, by the arbiter's epoch, or because the former primary stepped
//! down for it (promises G18, G21).
//!
//! With an arbiter the order is: what the others have; the epoch, which the arbiter gives only when the former owner's lease has ended; what the
//! others have by then, since the last words of the former owner may have come meanwhile; the role, durably. A crash before the last step
//! used up an epoch, and nothing else: the arbiter gives the next one to whoever asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use vefs::Ve;
use vefs::change::{Policy, ReplicaOf};
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position, VeId};

use super::Inner;
use super::govern::Asker;
pub(super) use super::govern::PATIENCE;
use super::operate::{ASKED, OperateError, Promoted, cannot};
use super::peers::{Word, named};
use super::talk::{Question, Reply};
use crate::arbiter::lease::Terms;
use crate::arbiter::{self, ArbiterError, Record, Refused, Request};
use crate::node::NodeId;
use crate::promote::next_epoch;

/// How often the arbiter is asked while a lease runs.
const AGAIN: Duration = Duration::from_millis(100);
/// How often another epoch is tried when somebody else was faster.
const TRIES_MAX: u32 = 8;

/// What a person insists on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Insists {
    /// The former primary does not run.
    pub old_primary_is_off: bool,
    /// What is lost is lost.
    pub force: bool,
}

/// What the other nodes of a VE have.
struct Others {
    positions: Vec<(NodeId, Option<Position>)>,
    /// The highest epoch that anybody has seen.
    highest: Epoch,
}

impl Others {
    /// Whether this node has everything that another one has.
    fn is_covered(&self, me: NodeId, here: &Position, node: NodeId) -> bool {
        let theirs = self.positions.iter().find(|(n, _)| *n == node).and_then(|(_, p)| *p);
        node == me || theirs.is_some_and(|p| (p.epoch, p.txn) <= (here.epoch, here.txn))
    }

    /// Who did not answer.
    fn silent(&self) -> impl Iterator<Item = NodeId> {
        self.positions.iter().filter(|(_, p)| p.is_none()).map(|(n, _)| *n)
    }
}

impl Inner {
    pub(super) async fn promote(self: &Arc<Self>, id: VeId, insists: Insists) -> Result<Promoted, OperateError> {
        self.promote_unless_heard(id, insists, false).await
    }

    /// As [`Inner::promote`]. `by_itself`: nobody asked for it; a primary that is heard meanwhile may end it.
    pub(super) async fn promote_unless_heard(
        self: &Arc<Self>,
        id: VeId,
        insists: Insists,
        by_itself: bool,
    ) -> Result<Promoted, OperateError> {
        if !self.store.has_ve(id) {
            return Err(cannot(format!("there is no VE {id} here")));
        }
        let ve = self.store.ve(id)?;
        if ve.is_writer() && ve.fenced().is_none() {
            return Err(cannot(format!("VE {id} is written here already, in epoch {}", ve.epoch().0)));
        }
        if let Some(terms) = self.terms {
            return self.claim(ve, terms, insists, by_itself).await;
        }
        if self.arbitration.is_none() && !insists.old_primary_is_off {
            let text = "this node cannot know that the old primary is off; say so with --old-primary-is-off";
            return Err(OperateError::Unsafe(format!("VE {id}: {text}")));
        }
        let policy = ve.policy()?;
        let me = self.cluster.node();
        let former = Some(NodeId(policy.writer)).filter(|n| *n != NodeId::default() && *n != me);
        let mut others = self.others(&ve, &policy, former.into_iter().collect(), insists.force).await?;
        let mut epoch = next_epoch(others.highest.max(ve.epoch()), me);
        if self.arbitration.is_some() {
            // Who has the epoch and cannot write keeps everybody from it.
            block_in_place(|| whole(&ve))?;
            epoch = self.given(&ve, &others, &insists).await?;
            others = self.others(&ve, &policy, others.silent().chain(former).collect(), insists.force).await?;
        }
        let fork = block_in_place(|| self.begin_writing(&ve, epoch, former))?;
        Ok(Promoted { epoch, fork, others: others.positions })
    }

    /// Asks the other nodes of a VE how far they are. Refuses where one of them has more, or writes, unless a person insists. Those that are `gone`,
    /// it seems, are waited for only shortly; the others may be slow, and what they have must not be lost for that.
    async fn others(
        self: &Arc<Self>,
        ve: &Ve,
        policy: &Policy,
        gone: BTreeSet<NodeId>,
        force: bool,
    ) -> Result<Others, OperateError> {
        let (id, lineage, me) = (ve.id(), ve.identity().lineage, self.cluster.node());
        let mut answers = tokio::task::JoinSet::new();
        for node in named(policy).into_iter().filter(|n| *n != me) {
            let this = self.clone();
            let patience = if gone.contains(&node) { ASKED } else { PATIENCE };
            answers.spawn(
                async move { (node, this.ask_for(patience, node, Question::Position { ve: id, lineage }).await) },
            );
        }
        let mut others = Others { positions: vec![], highest: ve.epoch() };
        for (node, answer) in answers.join_all().await {
            match answer {
                Ok(Reply::Destroyed) => {
                    self.bury(id, lineage)?;
                    return Err(cannot(format!("VE {id} was destroyed, node {node} knows: it is erased here, too")));
                }
                Ok(Reply::At { writes: true, .. }) if !force => {
                    let text = "hand it over there with `aspfs switchover`, or stop it first";
                    return Err(OperateError::Unsafe(format!("VE {id} is written by node {node}: {text}")));
                }
                Ok(Reply::At { position, epoch, .. }) => {
                    others.highest = others.highest.max(epoch);
                    others.positions.push((node, Some(position)));
                }
                Ok(Reply::Stranger) if !force => {
                    let text = "it was removed from the VE's replicas, and what it writes nobody follows";
                    let who = format!("VE {id}: node {node} does not count this node in");
                    return Err(OperateError::Unsafe(format!("{who}: {text}")));
                }
                _ => others.positions.push((node, None)),
            }
        }
        let here = ve.durable_position();
        let longer = others.positions.iter().find_map(|(n, p)| Some((n, p.filter(|_| !force)?)));
        match longer.filter(|(_, p)| (p.epoch, p.txn) > (here.epoch, here.txn)) {
            None => Ok(others),
            Some((node, p)) => {
                let there = format!("transaction {} in epoch {}", p.txn, p.epoch.0);
                let text = format!("node {node} has more of VE {id}: {there}, here {}", here.txn);
                Err(OperateError::Unsafe(format!("{text}; promote it there")))
            }
        }
    }

    /// Has the arbiter give this node an epoch, for which it may have to wait until the former owner's lease has ended.
    async fn given(&self, ve: &Ve, others: &Others, insists: &Insists) -> Result<Epoch, OperateError> {
        let Some(asker) = self.asker(ve) else { return Ok(next_epoch(others.highest.max(ve.epoch()), self.me())) };
        let (id, me) = (ve.id(), self.me());
        let lease = self.arbitration.as_ref().map_or(Terms::TTL_MAX, |a| a.terms.ttl);
        let until = Instant::now() + lease * 2 + PATIENCE;
        let mut tries = 0;
        loop {
            let record = read(&asker, id).await?;
            let unknown = record == Record::default();
            if unknown && !insists.old_primary_is_off {
                let text = "the arbiter does not know the VE: whoever wrote it asked nobody; if it is off, say so with";
                return Err(OperateError::Unsafe(format!("VE {id}: {text} --old-primary-is-off")));
            }
            if insists.old_primary_is_off && !unknown && record.owner != me && record.off.is_none() {
                let off = Request::Off { ve: id, node: record.owner, epoch: record.epoch };
                asker.ask(off, PATIENCE).await.map_err(|e| no_arbiter(id, &e))?;
            }
            let covered = record.lagging.is_some_and(|n| others.is_covered(me, &ve.durable_position(), n));
            let epoch = next_epoch(others.highest.max(ve.epoch()).max(record.epoch), me);
            let forced = insists.force || covered;
            let propose = Request::Propose { ve: id, node: me, expected: record.epoch, epoch, forced };
            match asker.ask(propose, PATIENCE).await.map_err(|e| no_arbiter(id, &e))? {
                arbiter::Reply::Record(r, _) if (r.owner, r.epoch) == (me, epoch) => return Ok(epoch),
                arbiter::Reply::Refused(Refused::Lags, r) => return Err(lags(id, &r)),
                arbiter::Reply::Refused(Refused::LeaseRuns, r) if Instant::now() >= until => {
                    return Err(OperateError::Unsafe(format!(
                        "VE {id} is written by node {}: its lease goes on",
                        r.owner
                    )));
                }
                arbiter::Reply::Refused(Refused::LeaseRuns, _) => {}
                _ if tries >= TRIES_MAX => return Err(cannot(format!("VE {id}: others ask for its epoch as well"))),
                _ => tries += 1,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// An epoch for a node that may write it anyway: it has stepped down itself, and nobody has taken over.
    pub(super) async fn epoch_for(&self, ve: &Ve, highest: Epoch, insists: &Insists) -> Result<Epoch, OperateError> {
        self.given(ve, &Others { positions: vec![], highest }, insists).await
    }

    pub(super) fn me(&self) -> NodeId {
        self.cluster.node()
    }

    fn asker(&self, ve: &Ve) -> Option<Asker> {
        self.arbitration.as_ref().map(|a| a.asker(ve.identity().lineage))
    }

    /// Refuses where there is an arbiter that does not answer now.
    pub(super) async fn arbiter_answers(&self, ve: &Ve) -> Result<(), OperateError> {
        let Some(asker) = self.asker(ve) else { return Ok(()) };
        read(&asker, ve.id()).await.map(|_| ())
    }

    /// The arbiter hears from this node, which wrote in `epoch` and has stepped down, whose the next one is.
    pub(super) async fn hand_epoch_over(&self, ve: &Ve, epoch: Epoch, to: NodeId) -> Result<(), OperateError> {
        let (id, node) = (ve.id(), self.me());
        let Some(asker) = self.asker(ve) else { return Ok(()) };
        let hand = Request::HandOver { ve: id, node, expected: epoch, to, epoch: next_epoch(epoch, to) };
        let why = match asker.ask(hand, PATIENCE).await {
            Ok(arbiter::Reply::Record(..)) => return Ok(()),
            Ok(arbiter::Reply::Refused(why, _)) => format!("the arbiter refuses: {why:?}"),
            Err(e) => e.to_string(),
        };
        let text = "this node has stepped down, and none writes the VE. Promote it on one of the two nodes";
        Err(cannot(format!("VE {id} was not handed over: {why}; {text}")))
    }

    /// Makes this node the writer of a VE that it followed, in an epoch that is its own, and leads it. The former primary becomes a replica. Gives the
    /// last position before.
    pub(super) fn begin_writing(
        self: &Arc<Self>,
        ve: &Arc<Ve>,
        epoch: Epoch,
        former: Option<NodeId>,
    ) -> Result<Position, OperateError> {
        self.stop_following(ve.id());
        self.lead_later(ve);
        let begun = self.try_to_write(ve, epoch, former);
        if begun.is_err() && !ve.is_writer() {
            self.lead_nothing(ve);
            // It follows on, with the state that it has now.
            self.refresh(&self.store.ve(ve.id())?)?;
        }
        begun
    }

    fn try_to_write(
        self: &Arc<Self>,
        ve: &Arc<Ve>,
        epoch: Epoch,
        former: Option<NodeId>,
    ) -> Result<Position, OperateError> {
        ve.sync()?;
        whole(ve)?;
        let fork = ve.durable_position();
        if ve.role().kind != RoleKind::Replica {
            ve.step_down(RoleKind::Replica, ve.epoch())?;
        }
        if self.terms.is_some() {
            self.note_promotion(ve)?;
        }
        // Two nodes that did not hear of each other do not meet in one epoch (promise G13).
        let role = if self.terms.is_some() { ve.promote_joined(epoch) } else { ve.promote(epoch) };
        let role = role.map_err(|e| match ve.epoch() > epoch {
            true => cannot(format!("VE {}: another node asked for it meanwhile, in a higher epoch", ve.id())),
            false => e.into(),
        })?;
        if let Err(e) = self.lead_anew(ve, former) {
            ve.fence("it was promoted here, and could not be led");
            return Err(e.into());
        }
        tracing::warn!(ve = %ve.id(), epoch = role.epoch.0, txn = %fork.txn, "promoted: this node writes the VE");
        Ok(fork)
    }

    /// The former primary has stepped down in favour of this node. It asks again until it hears the answer: a second time changes nothing.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        id: VeId,
        from: NodeId,
        position: Position,
        epoch: Epoch,
    ) -> Result<Epoch, OperateError> {
        let (ve, named) = block_in_place(|| self.may_take_over(id, from, &position, epoch))?;
        if ve.is_writer() {
            return Ok(ve.role().epoch);
        }
        let begun = match self.terms.filter(|_| named) {
            Some(terms) => self.claim(ve.clone(), terms, Insists::default(), false).await.map(|_| ()),
            // With an arbiter it is this node's already, by the same rule.
            None => block_in_place(|| self.begin_writing(&ve, next_epoch(epoch, self.me()), Some(from)).map(|_| ())),
        };
        match begun {
            // The role is durable: an answer that it did not take over would make a second writer of the one who asks.
            Err(e) if ve.is_writer() => tracing::error!(ve = %id, error = %e, "took over, and cannot go on"),
            begun => begun?,
        }
        Ok(ve.role().epoch)
    }

    /// The VE that this node may take over, or took over just so before; and whether required replicas have a say in it.
    fn may_take_over(
        &self,
        id: VeId,
        from: NodeId,
        position: &Position,
        epoch: Epoch,
    ) -> Result<(Arc<Ve>, bool), OperateError> {
        if !self.store.has_ve(id) {
            return Err(cannot(format!("there is no VE {id} here")));
        }
        let ve = self.store.ve(id)?;
        let (policy, role) = (ve.policy()?, ve.role());
        let took = (role.fork.txn, role.fork.epoch, role.fork.chain) == (position.txn, position.epoch, position.chain);
        if ve.is_writer() && took && role.epoch > epoch {
            return Ok((ve, true));
        }
        if policy.writer != from.0 {
            self.strangers.count(Word::TakeOver, from, Some(id));
            return Err(cannot(format!("node {from} is not the writer of VE {id}, as far as is known here")));
        }
        if !policy.replicas.iter().any(|r| r.node == self.me().0) {
            return Err(cannot(format!("this node is no replica of VE {id}")));
        }
        // Somebody was promoted in a higher one, and writes.
        if ve.epoch() > epoch {
            return Err(cannot(format!("VE {id} is in epoch {} here, not {}", ve.epoch().0, epoch.0)));
        }
        let here = ve.durable_position();
        if ve.is_writer() || here != *position {
            return Err(cannot(format!("VE {id} is at transaction {} here, not {}", here.txn, position.txn)));
        }
        Ok((ve, policy.replicas.iter().any(ReplicaOf::is_required)))
    }
}

/// Refuses where an object of the state is not here (promise G21).
pub(super) fn whole(ve: &Ve) -> Result<(), OperateError> {
    let missing = ve.missing_objects()?;
    let Some(hash) = missing.first() else { return Ok(()) };
    let text = format!("{} objects that its files consist of are missing, {hash} for one", missing.len());
    Err(cannot(format!("VE {}: {text}", ve.id())))
}

async fn read(asker: &Asker, ve: VeId) -> Result<Record, OperateError> {
    match asker.ask(Request::Read { ve }, PATIENCE).await {
        Ok(arbiter::Reply::Record(record, _) | arbiter::Reply::Refused(_, record)) => Ok(record),
        Err(e) => Err(no_arbiter(ve, &e)),
    }
}

fn no_arbiter(ve: VeId, e: &ArbiterError) -> OperateError {
    cannot(format!("VE {ve}: {e}; nothing was changed here"))
}

/// The VE lagged when its primary was heard of last.
fn lags(ve: VeId, record: &Record) -> OperateError {
    let has = record.lagging.unwrap_or_default();
    let text = "lags: this node lacks changes that are older than its window allows. Promote it there, or lose them with --force";
    OperateError::Unsafe(format!("VE {ve} {text} (node {has} has everything)"))
}
