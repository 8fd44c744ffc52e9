//! Another policy. Where the required replicas name writers, they change by one node at a time, and only when enough of them have heard of the change before:
//! two sets that differ by more may each have a majority without a common node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vefs::Ve;
use vefs::change::{Need, Policy, ReplicaOf};
use vefs::format::note::Kind;

use super::super::operate::{OperateError, cannot, with_replica};
use super::super::talk::{Question as Talk, Reply as Said};
use super::super::{Inner, Led, Runtime};
use super::hold::as_note;
use super::lessors_of;
use crate::member::{No, Question, Reply};
use crate::node::NodeId;

const ONE_BY_ONE: &str = "one required replica at a time, since they say who writes it";

/// How long it takes at most until enough nodes have heard of a change, if they are there.
const HEARD: Duration = Duration::from_secs(15);

impl Runtime {
    /// Gives a VE another policy: durable when this returns, and in force. Nothing is changed where it is an error.
    pub fn change_policy(&self, ve: &Arc<Ve>, policy: Policy) -> Result<(), OperateError> {
        let inner = self.inner();
        if inner.terms.is_some() && ve.is_writer() {
            let (now, next) = (lessors_of(&ve.policy()?), lessors_of(&policy));
            self.may_require(ve, &now, &next)?;
        }
        let policies = inner.policies(ve.id());
        let _one = policies.lock();
        inner.write_policy(ve, policy)
    }

    /// Makes a node a replica of a VE, or changes how it is one. What is said of it now counts, and not what it was before a promotion.
    pub fn set_replica(&self, ve: &Arc<Ve>, replica: ReplicaOf) -> Result<(), OperateError> {
        self.change_policy(ve, with_replica(&ve.policy()?, replica))
    }

    /// A node is no replica of a VE any more. `is_off`: an administrator's word that it does not run, and will not be promoted as it is.
    pub fn remove_replica(&self, ve: &Arc<Ve>, node: NodeId, is_off: bool) -> Result<(), OperateError> {
        let mut policy = ve.policy()?;
        let required = lessors_of(&policy).contains(&node);
        let led = self.inner().led.lock().get(&ve.id()).cloned();
        if let (Some(led), true, true) = (led, required, self.inner().terms.is_some()) {
            if is_off {
                led.lease.excuse(node);
            } else {
                policy.replicas.iter_mut().filter(|r| r.node == node.0).for_each(|r| r.need = Need::Optional);
                self.change_policy(ve, policy.clone())?;
            }
            if !is_heard(&led) {
                let text = "is required no more, but too few of the others have heard of it for it to be removed";
                let what = "try again, or if it is off for good, say so with --node-is-off";
                return Err(cannot(format!("VE {}: node {node} {text}: {what}", ve.id())));
            }
        }
        // It may have become another one meanwhile.
        let mut policy = ve.policy()?;
        policy.replicas.retain(|r| r.node != node.0);
        self.change_policy(ve, policy)
    }

    fn may_require(&self, ve: &Ve, now: &BTreeSet<NodeId>, next: &BTreeSet<NodeId>) -> Result<(), OperateError> {
        let id = ve.id();
        if now == next {
            return Ok(());
        }
        if now.symmetric_difference(next).count() > 1 {
            return Err(cannot(format!("VE {id}: {ONE_BY_ONE}")));
        }
        let led = self.inner().led.lock().get(&id).cloned();
        led.inspect(|l| _ = is_heard(l));
        let lineage = ve.identity().lineage;
        for node in next.difference(now) {
            let question = Talk::Right { ve: id, lineage, what: Question::Standing { lineage } };
            let asked = self.inner().clone();
            match self.block_on(async move { asked.ask(*node, question).await }) {
                Ok(Said::Right(Reply::No(No::Part))) => {
                    let text = "it promises nothing, as it is configured: its `writers` must be `replicas`, too";
                    return Err(cannot(format!("VE {id}: node {node} cannot be required: {text}")));
                }
                Ok(Said::Right(_)) => {}
                Ok(_) => return Err(cannot(format!("node {node} does not count this node in as one of VE {id}'s"))),
                Err(e) => {
                    let text = "it would have to let this node write at once";
                    return Err(cannot(format!(
                        "VE {id}: node {node} does not answer ({e}), and as a required replica {text}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Waits until something is so, for as long as a change may take to be heard of.
fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + HEARD;
    while !is_so() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until enough nodes know who is required.
fn is_heard(led: &Led) -> bool {
    wait_until(|| led.lease.is_settled())
}

impl Inner {
    /// Another policy, by whoever holds the lock of policies. In this order: what has to promise is noted, counts for the right to write, and is
    /// journalled: nobody can act on it before.
    pub(super) fn write_policy(self: &Arc<Self>, ve: &Arc<Ve>, policy: Policy) -> Result<(), OperateError> {
        let (now, next) = (lessors_of(&ve.policy()?), lessors_of(&policy));
        if self.terms.is_some() && now != next {
            let led = self.led.lock().get(&ve.id()).cloned();
            let excused = led.as_ref().map(|l| l.lease.excused()).unwrap_or_default();
            let gone = now.symmetric_difference(&next).all(|n| excused.contains(n));
            let text = match now.symmetric_difference(&next).count() {
                _ if gone => None,
                1 if led.as_ref().is_none_or(|l| l.lease.is_settled()) => None,
                1 => Some("too few of its required replicas have heard of the last change of them; try again"),
                _ => Some(ONE_BY_ONE),
            };
            if let Some(text) = text {
                return Err(cannot(format!("VE {}: {text}", ve.id())));
            }
            let former = now.difference(&excused).copied().collect();
            self.store.put_note(ve.identity().lineage, Kind::Unsettled, &as_note(&former))?;
            if let Some(led) = &led {
                self.announce(led, next)?;
            }
        }
        // Sealed: the transaction that is acknowledged has it.
        if let Err(e) = ve.set_policy(policy).and_then(|_| ve.commit()) {
            if let Some(led) = self.led.lock().get(&ve.id()) {
                led.set_lessors(&ve.policy()?);
            }
            return Err(e.into());
        }
        self.refresh(ve)?;
        Ok(())
    }

    /// Has those who are about to be required count for the right to write.
    fn announce(&self, led: &Arc<Led>, next: BTreeSet<NodeId>) -> Result<(), OperateError> {
        led.lease.announce(next);
        led.exposed.right().look();
        wait_until(|| led.lease.is_applied() || !self.leads(led));
        if led.lease.is_applied() && self.leads(led) {
            return Ok(());
        }
        led.set_lessors(&led.ve.policy()?);
        Err(cannot(format!("VE {}: whoever asks for its promises does not keep up; try again", led.ve.id())))
    }
}
