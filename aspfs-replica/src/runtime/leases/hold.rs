//! A primary that writes by the promises of its required replicas: they are asked again and again, and told when the VE may lag. What follows from their
//! answers is the [`Lessee`]'s to say. Nodes that were required before a promotion and are back are required again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, block_in_place, spawn_blocking};
use vefs::change::Need;
use vefs::codec;
use vefs::format::note::Kind;
use vefs::ids::{Epoch, Lineage, TxnNo, VeId};

use super::super::fence::fence;
use super::super::operate::OperateError;
use super::super::talk::{Question as Talk, Reply as Said};
use super::super::{Inner, Led};
use super::{lessors_of, returning_of};
use crate::arbiter::lease::{Action, Lessee, Needs, Terms, Whom};
use crate::member::{No, Question, Reply};
use crate::node::NodeId;

/// A replica that lacks at most so many transactions has everything, so to speak: it is required again.
const NEAR: u64 = 8;

/// A node that could not be required is left alone for so long: it must not keep the others from their turns.
const REQUIRE_AGAIN: Duration = Duration::from_secs(10);

/// What a lessor was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Lease(u64),
    Tell(Option<u64>),
}

/// A lessor, what it was asked, and what it said, if it did.
type Answer = (NodeId, Asked, Option<Reply>);

struct Holding {
    inner: Weak<Inner>,
    led: Arc<Led>,
    ve: VeId,
    lineage: Lineage,
    epoch: Epoch,
    terms: Terms,
    lessee: Lessee,
    /// The required replicas that the lessee knows, as they were set.
    lessors: (BTreeSet<NodeId>, TxnNo),
    excused: BTreeSet<NodeId>,
    /// What the lessee was told last about lagging.
    said: Option<Option<u64>>,
    /// Who is being told something.
    telling: BTreeSet<NodeId>,
    /// The note about it is on disk.
    unsettled: bool,
    /// The one that is being required, and whether it is.
    requiring: Option<(NodeId, JoinHandle<bool>)>,
    /// Until when a node that could not be required is left alone.
    left_alone: BTreeMap<NodeId, Duration>,
    answers: mpsc::UnboundedSender<Answer>,
}

/// Asks for promises until the VE is led no more, or a higher epoch is met.
pub(in crate::runtime) async fn hold(inner: Weak<Inner>, led: Arc<Led>, terms: Terms) {
    let (answers, mut answered) = mpsc::unbounded_channel();
    let Some(mut this) = Holding::new(inner, led.clone(), terms, answers) else { return };
    let (right, now) = (led.exposed.right(), || led.exposed.now());
    let period = (terms.ttl / 12).clamp(Duration::from_millis(20), Duration::from_millis(500));
    let mut actions = vec![];
    while this.goes_on() {
        this.follow_policy();
        this.follow_window();
        actions.extend(this.lessee.tick(now()));
        right.set_until(this.lessee.until());
        this.say_applied();
        for action in actions.drain(..) {
            if let Some(epoch) = this.act(action) {
                return fence(&this.inner, &this.led, epoch, "its required replicas joined a higher epoch").await;
            }
        }
        this.require_who_is_back().await;
        let answer = tokio::select! {
            answer = answered.recv() => answer,
            () = right.changed() => None,
            () = tokio::time::sleep(period) => None,
        };
        if let Some(answer) = answer {
            actions = this.answered(answer, now());
        }
    }
}

impl Holding {
    fn new(inner: Weak<Inner>, led: Arc<Led>, terms: Terms, answers: mpsc::UnboundedSender<Answer>) -> Option<Holding> {
        let strong = inner.upgrade()?;
        let (ve, lineage, epoch) = (led.ve.id(), led.ve.identity().lineage, led.ve.epoch());
        let note = |kind| {
            block_in_place(|| strong.store.note(lineage, kind)).unwrap_or_else(|e| {
                tracing::error!(%ve, error = %e, "reading a note");
                // The careful way: nothing is known to be settled, and those of now are those of before.
                Some(as_note(&led.lease.state.lock().lessors.0))
            })
        };
        let former = note(Kind::Unsettled);
        let unsettled = former.is_some();
        let lessors = led.lease.state.lock().lessors.clone();
        let (me, now) = (strong.cluster.node(), led.exposed.now());
        let began = former.and_then(|f| nodes_of(&f)).unwrap_or_else(|| lessors.0.clone());
        let mut lessee = Lessee::new((epoch, me), Needs::Replicas, terms, began, now);
        if unsettled {
            let head = led.ve.position().txn;
            lessee.unsettled(head);
            lessee.set_required(lessors.0.clone(), head);
        }
        let (said, telling, excused, left_alone) = (None, BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        #[rustfmt::skip]
        let this = Holding {
            inner, led, ve, lineage, epoch, terms, lessee, lessors, excused, said, telling, unsettled, requiring: None, left_alone,
            answers,
        };
        Some(this)
    }

    /// Whether this node leads the VE still, in this very way.
    fn goes_on(&self) -> bool {
        self.inner.upgrade().is_some_and(|inner| inner.leads(&self.led))
    }

    /// Who is required by now, who is excused, and who has acknowledged what.
    fn follow_policy(&mut self) {
        let wanted = self.led.lease.state.lock().clone();
        for node in &wanted.excused {
            if self.excused.insert(*node) {
                tracing::warn!(ve = %self.ve, %node, "its promise is not asked for any more, on an administrator's word");
                self.lessee.excuse(*node);
            }
        }
        self.excused.retain(|n| wanted.excused.contains(n));
        if wanted.lessors != self.lessors {
            let lessors = wanted.lessors.0.difference(&wanted.excused).copied().collect();
            self.lessee.set_required(lessors, wanted.lessors.1);
            self.lessors = wanted.lessors.clone();
            self.unsettled = true;
        }
        let links = self.led.links.lock().clone();
        for (node, link) in links {
            self.lessee.acked(node, link.figures().acked.map_or(TxnNo(0), |p| p.txn));
        }
        let settled = self.lessee.is_settled();
        let mut state = self.led.lease.state.lock();
        if state.lessors == wanted.lessors && state.excused == wanted.excused {
            state.settled = settled;
        }
        drop(state);
        if settled && std::mem::take(&mut self.unsettled) {
            let (inner, lineage, led) = (self.inner.upgrade(), self.lineage, self.led.clone());
            spawn_blocking(move || {
                let Some(inner) = inner else { return };
                // Whoever changes the required replicas notes it with this lock held.
                let policies = inner.policies(led.ve.id());
                let _one = policies.lock();
                if led.lease.is_settled()
                    && let Err(e) = inner.store.drop_note(lineage, Kind::Unsettled)
                {
                    tracing::warn!(ve = %led.ve.id(), error = %e, "removing a note");
                }
            });
        }
    }

    /// What the right to write rests on is what was set last.
    fn say_applied(&self) {
        let mut state = self.led.lease.state.lock();
        if state.lessors == self.lessors && state.excused == self.excused {
            state.applied = true;
        }
    }

    fn follow_window(&mut self) {
        if let Some(wanted) = self.led.exposed.to_record(&mut self.said) {
            self.lessee.set_lagging(wanted);
        }
    }

    /// Does what the lessee says; the epoch by which this node is superseded.
    fn act(&mut self, action: Action) -> Option<Epoch> {
        match action {
            Action::Ask(Whom::Replica(node), number) => {
                let ms = self.terms.ttl.as_millis() as u64;
                self.ask(node, Asked::Lease(number), Question::Lease(self.epoch, ms));
            }
            Action::Tell(Whom::Replica(node), number) => {
                if self.telling.insert(node) {
                    let stamp = self.inner.upgrade().map(|inner| inner.lessors.stamp()).unwrap_or_default();
                    self.ask(node, Asked::Tell(number), Question::Lagging(self.epoch, number.is_some(), stamp));
                }
            }
            // There is no arbiter.
            Action::Ask(Whom::Arbiter, _) | Action::Tell(Whom::Arbiter, _) => {}
            Action::Lapsed => {
                tracing::error!(ve = %self.ve, "ALARM: too few required replicas answer: writers wait");
            }
            Action::Renewed => {
                tracing::info!(ve = %self.ve, epoch = self.epoch.0, "the required replicas let it be written");
                self.led.ve.wake_writers();
            }
            Action::Permitted(number) => self.led.exposed.permitted(number),
            Action::Superseded(epoch) => return Some(epoch),
        }
        None
    }

    fn ask(&self, node: NodeId, asked: Asked, what: Question) {
        let Some(inner) = self.inner.upgrade() else { return };
        let (answers, patience) = (self.answers.clone(), self.terms.ttl / 2);
        let question = Talk::Right { ve: self.ve, lineage: self.lineage, what };
        tokio::spawn(async move {
            let reply = match inner.ask_for(patience, node, question).await {
                Ok(Said::Right(reply)) => Some(reply),
                _ => None,
            };
            // Nobody waits for it when the VE is led no more.
            let _ = answers.send((node, asked, reply));
        });
    }

    fn answered(&mut self, (node, asked, reply): Answer, now: Duration) -> Vec<Action> {
        if let Asked::Tell(_) = asked {
            self.telling.remove(&node);
        }
        match (reply, asked) {
            (Some(Reply::Done), Asked::Lease(number)) => self.lessee.granted(Whom::Replica(node), number, now),
            (Some(Reply::Done), Asked::Tell(number)) => self.lessee.told(Whom::Replica(node), number),
            (Some(Reply::No(No::Epoch(epoch))), _) => self.lessee.refused(epoch),
            _ => vec![],
        }
    }

    /// A node that is to be required, and has everything, is required again: one at a time, and only while this node may write.
    async fn require_who_is_back(&mut self) {
        // It waits for this loop, which therefore does not wait for it.
        if self.requiring.as_ref().is_some_and(|(_, running)| !running.is_finished()) {
            return;
        }
        let now = self.led.exposed.now();
        if let Some((node, done)) = self.requiring.take()
            && !done.await.unwrap_or(false)
        {
            self.left_alone.insert(node, now + REQUIRE_AGAIN);
        }
        self.left_alone.retain(|_, until| now < *until);
        let returning = self.led.lease.state.lock().returning.clone();
        if returning.is_empty() || self.unsettled || !self.led.exposed.may_write() {
            return;
        }
        let head = self.led.ve.durable_position().txn.0;
        let links = self.led.links.lock().clone();
        let is_back = |node: &&NodeId| {
            let figures = links.get(node).map(|l| l.figures());
            figures.is_some_and(|f| {
                f.connected.is_some()
                    && f.acked.is_some_and(|p| p.epoch.term() == self.epoch.term() && p.txn.0 + NEAR >= head)
            })
        };
        let Some(node) = returning.iter().filter(|n| !self.left_alone.contains_key(n)).find(is_back).copied() else {
            return;
        };
        let Some(inner) = self.inner.upgrade() else { return };
        let Ok(permit) = inner.requiring.clone().try_acquire_owned() else { return };
        let led = self.led.clone();
        let running = spawn_blocking(move || {
            let _permit = permit;
            let done = require(&inner, &led, node);
            done.inspect_err(|e| tracing::error!(ve = %led.ve.id(), %node, error = %e, "requiring a replica again"))
                .is_ok()
        });
        self.requiring = Some((node, running));
    }
}

/// The nodes of a note, if they can be read.
pub(super) fn nodes_of(body: &[u8]) -> Option<BTreeSet<NodeId>> {
    let nodes: Vec<[u8; 16]> = codec::decode(body).inspect_err(|e| tracing::error!(error = %e, "a note")).ok()?;
    Some(nodes.into_iter().map(NodeId).collect())
}

/// As a note has them.
pub(super) fn as_note(nodes: &BTreeSet<NodeId>) -> Vec<u8> {
    let nodes: Vec<[u8; 16]> = nodes.iter().map(|n| n.0).collect();
    codec::encode(&nodes)
}

fn require(inner: &Arc<Inner>, led: &Led, node: NodeId) -> Result<(), OperateError> {
    let policies = inner.policies(led.ve.id());
    let _one = policies.lock();
    let mut policy = led.ve.policy()?;
    // An administrator may have said meanwhile what it is to be.
    if let Some(replica) = policy.replicas.iter_mut().find(|r| r.node == node.0 && r.need == Need::Returning) {
        replica.need = Need::Required;
        inner.write_policy(&led.ve, policy)?;
        tracing::info!(ve = %led.ve.id(), %node, "is back, and required again");
    }
    Ok(())
}

impl Led {
    /// The policy says who is required; it is the VE's as of its present position.
    pub(in crate::runtime) fn set_lessors(&self, policy: &vefs::change::Policy) {
        let from: TxnNo = self.ve.position().txn;
        self.lease.set(lessors_of(policy), from);
        self.lease.set_returning(returning_of(policy));
    }
}
