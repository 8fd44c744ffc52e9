//! What an administrator asks of replication: promotion, a planned switchover, how VEs stand, destruction everywhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;
use vefs::Ve;
use vefs::change::{Policy, ReplicaOf};
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position, VeId};

use super::promotion::Insists;
use super::status::{ReplicaFigures, VeFigures};
use super::talk::{Question, Reply};
use super::{Inner, Runtime};
use crate::node::NodeId;

/// How long another node is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a promotion waits for what the former primary has: an outage gets longer by it.
pub(super) const ASKED: Duration = Duration::from_millis(400);
/// How long the node that a VE is handed to is asked for its answer.
const TAKEN: Duration = Duration::from_secs(60);
/// The pause before it is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a switchover waits for the replica to have everything.
const DRAIN: Duration = Duration::from_secs(10);

/// Why something was not done. Nothing was changed unless the text says so.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The store.
    #[error(transparent)]
    Store(#[from] vefs::Error),
    /// This node has nothing to do with it, or cannot.
    #[error("{0}")]
    Cannot(String),
    /// It may be done if the caller insists.
    #[error("{0}")]
    Unsafe(String),
}

/// A promotion's outcome.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The epoch that is written in now.
    pub epoch: Epoch,
    /// The position behind which its history goes on.
    pub fork: Position,
    /// What the other replicas have, as far as they answered.
    pub others: Vec<(NodeId, Option<Position>)>,
}

pub(super) fn cannot(text: impl Into<String>) -> OperateError {
    OperateError::Cannot(text.into())
}

impl Runtime {
    /// Makes this node the primary of a VE that it follows (promises G18, G21). `old_primary_is_off`: the administrator's word for it.
    /// `force`: also where another replica has more, or where the old primary seems to live.
    pub fn promote(&self, ve: VeId, old_primary_is_off: bool, force: bool) -> Result<Promoted, OperateError> {
        let inner = self.inner().clone();
        self.block_on(async move {
            let operating = inner.operating(ve);
            let _one = operating.lock().await;
            inner.promote(ve, Insists { old_primary_is_off, force }).await
        })
    }

    /// Hands a VE that this node writes to one of its replicas, without loss.
    pub fn switchover(&self, ve: VeId, to: NodeId) -> Result<Epoch, OperateError> {
        let inner = self.inner().clone();
        self.block_on(async move {
            let operating = inner.operating(ve);
            let _one = operating.lock().await;
            inner.switchover(ve, to).await
        })
    }

    /// Destroys a VE, and where it is written here tells its replicas, which then bury it for good: so not before it is gone here. Those that
    /// could not be told, also because this node died in between, ask, and are answered by the tombstone (promise G34). Where it is not written
    /// here, the copy goes, and nobody erases theirs for that. Where it is refused here, nothing has changed.
    pub fn destroy(&self, ve: Arc<Ve>) -> vefs::Result<Vec<(NodeId, Result<(), String>)>> {
        let (id, lineage) = (ve.id(), ve.identity().lineage);
        let writes = ve.is_writer();
        let policy = if writes { ve.policy()? } else { Policy::default() };
        self.forget(id);
        let store = &self.inner().store;
        if let Err(e) = if writes { store.destroy_ve(id) } else { store.destroy_copy(id) } {
            if let Err(e) = self.refresh(&ve) {
                tracing::error!(ve = %id, error = %e, "a VE that was not destroyed is not replicated any more");
            }
            return Err(e);
        }
        Ok(self.tell_destroyed(Question::Destroyed { ve: id, lineage }, &policy))
    }

    fn tell_destroyed(&self, question: Question, policy: &Policy) -> Vec<(NodeId, Result<(), String>)> {
        let inner = self.inner().clone();
        self.block_on(async move {
            let mut told = vec![];
            for node in policy.replicas.iter().map(|r| NodeId(r.node)) {
                let outcome = match inner.ask(node, question).await {
                    Ok(Reply::Done) => Ok(()),
                    Ok(Reply::No(why)) => Err(why),
                    Ok(Reply::Stranger) => Err("it does not count this node in".into()),
                    Ok(_) => Err("an unexpected answer".into()),
                    Err(e) => Err(e),
                };
                told.push((node, outcome));
            }
            told
        })
    }

    /// How a VE stands, if it is replicated.
    pub fn figures(&self, ve: VeId) -> Option<VeFigures> {
        self.inner().figures(ve)
    }

    /// Every VE that is led or followed here.
    pub fn all_figures(&self) -> Vec<VeFigures> {
        let mut ids: Vec<VeId> = self.inner().led.lock().keys().copied().collect();
        ids.extend(self.inner().followed.lock().keys());
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|ve| self.figures(ve)).collect()
    }
}

impl Inner {
    /// Asks the other nodes about the VEs that follow and hear nothing: one that was destroyed meanwhile goes (promise G34).
    pub(super) async fn inquire(&self) {
        let followed: Vec<Arc<super::Following>> = self.followed.lock().values().cloned().collect();
        let quiet: Vec<_> = followed.into_iter().filter(|f| !f.figures().connected).collect();
        if quiet.is_empty() {
            return;
        }
        let me = self.cluster.node();
        for following in quiet {
            let ve = following.ve();
            let (id, lineage) = (ve.id(), ve.identity().lineage);
            // The word of others is not asked for, since it would not count (promise G30).
            let nodes = block_in_place(|| self.members(&ve));
            for node in nodes.into_iter().filter(|n| *n != me) {
                if let Ok(Reply::Destroyed) = self.ask(node, Question::Position { ve: id, lineage }).await {
                    tracing::warn!(ve = %id, %node, "was destroyed meanwhile");
                    if let Err(e) = self.bury(id, lineage) {
                        tracing::error!(ve = %id, error = %e, "erasing a VE that was destroyed");
                    }
                    break;
                }
            }
        }
    }

    /// Asks another node something.
    pub(super) async fn ask(&self, node: NodeId, question: Question) -> Result<Reply, String> {
        self.ask_for(PATIENCE, node, question).await
    }

    /// Asks a node, and waits so long for its answer.
    pub(super) async fn ask_for(&self, patience: Duration, node: NodeId, question: Question) -> Result<Reply, String> {
        let asked = async {
            let peer = self.transport().connect(node).await.map_err(|e| e.to_string())?;
            let mut answers = peer.request(question.encode()).await.map_err(|e| e.to_string())?;
            let blob = answers.next().await.map_err(|e| e.to_string())?.ok_or("no answer")?;
            Reply::decode(&blob).map_err(|e| e.to_string())
        };
        tokio::time::timeout(patience, asked).await.map_err(|_| "no answer in time".to_owned())?
    }

    fn figures(&self, ve: VeId) -> Option<VeFigures> {
        let led = self.led.lock().get(&ve).cloned();
        if let Some(led) = led {
            let standing = led.exposed.standing();
            let links = led.links.lock().clone();
            let replicas = standing.replicas.iter().map(|r| ReplicaFigures {
                status: *r,
                link: links.get(&r.node).map(|l| l.figures()).unwrap_or_default(),
            });
            let replicas = replicas.collect();
            return Some(VeFigures {
                ve,
                position: led.ve.durable_position(),
                led: Some((standing, replicas)),
                followed: None,
            });
        }
        let following = self.followed.lock().get(&ve).cloned()?;
        let figures = following.figures();
        Some(VeFigures { ve, position: figures.durable, led: None, followed: Some(figures) })
    }

    async fn switchover(self: &Arc<Self>, id: VeId, to: NodeId) -> Result<Epoch, OperateError> {
        let led = self.led.lock().get(&id).cloned();
        let led = led.ok_or_else(|| cannot(format!("VE {id} is not written here for others")))?;
        if !led.exposed.follows(to) {
            return Err(cannot(format!("node {to} is no replica of VE {id}")));
        }
        self.arbiter_answers(&led.ve).await?;
        self.majority_answers(&led).await?;
        // Writers wait from here on; what was accepted is drained.
        led.exposed.hold(true);
        let drained = self.drain(&led, to).await;
        let position = match drained {
            Ok(position) => position,
            Err(e) => {
                led.exposed.hold(false);
                return Err(e);
            }
        };
        self.hand_over(&led, to, position).await
    }

    /// Hands over what a replica has all of.
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        led: &super::Led,
        to: NodeId,
        position: Position,
    ) -> Result<Epoch, OperateError> {
        // From here on this node does not write: if the other one cannot be heard, either can be promoted.
        let ve = led.ve.clone();
        let (id, epoch) = (ve.id(), ve.epoch());
        let here = block_in_place(|| {
            ve.fence("it was handed over to another node");
            ve.step_down(RoleKind::Replica, epoch).map(|_| ve.durable_position())
        })?;
        // It follows, whoever writes from now on.
        self.refresh(&ve)?;
        if here != position {
            // What came meanwhile, from an administrator or from the VE's upkeep, is nowhere else.
            self.write_again(led, epoch).await?;
            let text = "was changed while it was handed over; this node writes it again, nothing was handed over";
            return Err(cannot(format!("VE {id} {text}")));
        }
        self.hand_epoch_over(&ve, epoch, to).await?;
        self.end_promises(led, epoch).await?;
        match self.taken(to, &Question::TakeOver { ve: id, position, epoch }).await {
            Ok(epoch) => Ok(epoch),
            Err(Some(why)) => {
                // It did not: this node goes on, in a term of its own.
                self.write_again(led, epoch).await?;
                Err(cannot(format!("node {to} did not take VE {id} over: {why}")))
            }
            Err(None) => {
                let text = "it does not answer; this node writes the VE no more. Promote it on one of the two nodes";
                Err(cannot(format!("VE {id} was handed to node {to}, and {text}")))
            }
        }
    }

    /// Asks a node to take over until it answers: its disk may be slow, and what one lost answer would cost is an outage until a person comes.
    /// The error is why it did not, if it says so: then it never will on this question.
    async fn taken(&self, to: NodeId, question: &Question) -> Result<Epoch, Option<String>> {
        let until = tokio::time::Instant::now() + TAKEN;
        loop {
            match self.ask(to, *question).await {
                Ok(Reply::Taken(epoch)) => return Ok(epoch),
                Ok(Reply::No(why)) => return Err(Some(why)),
                Ok(Reply::Stranger) => return Err(Some("it does not count this node in".into())),
                Ok(_) | Err(_) if tokio::time::Instant::now() >= until => return Err(None),
                Ok(_) | Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Waits until a replica has everything, durably.
    async fn drain(&self, led: &super::Led, to: NodeId) -> Result<Position, OperateError> {
        let until = tokio::time::Instant::now() + DRAIN;
        block_in_place(|| led.ve.commit())?;
        loop {
            let head = led.ve.durable_position();
            let acked = led.links.lock().get(&to).and_then(|l| l.figures().acked);
            if acked == Some(head) && !led.ve.is_dirty() {
                return Ok(head);
            }
            if tokio::time::Instant::now() >= until {
                let id = led.ve.id();
                let text = format!("node {to} does not have everything of VE {id} after {} s", DRAIN.as_secs());
                return Err(cannot(format!("{text}; nothing was handed over")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            if led.ve.is_dirty() {
                block_in_place(|| led.ve.commit())?;
            }
        }
    }
}

/// The policy with one replica more, or another way of having it.
pub fn with_replica(policy: &Policy, replica: ReplicaOf) -> Policy {
    let mut policy = policy.clone();
    policy.replicas.retain(|r| r.node != replica.node);
    policy.replicas.push(replica);
    policy
}
