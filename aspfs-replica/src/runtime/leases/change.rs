//! Another policy. Where the required replicas name writers, they change by one node at a time, and only when enough of them have heard of the change before:
//! two sets that differ by more may each have a majority without a common node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vefs::Ve;
use vefs::change::Policy;
use vefs::format::note::Kind;

use super::super::operate::{OperateError, cannot};
use super::super::talk::{Question as Talk, Reply as Said};
use super::super::{Inner, Led, Runtime};
use super::lessors_of;
use crate::member::Question;
use crate::node::NodeId;

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
        inner.change_policy(ve, policy)
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
                policy.replicas.iter_mut().filter(|r| r.node == node.0).for_each(|r| r.required = false);
                self.change_policy(ve, policy.clone())?;
            }
            if !is_heard(&led) {
                let text = "is required no more, but too few of the others have heard of it for it to be removed";
                let what = "try again, or if it is off for good, say so with --node-is-off";
                return Err(cannot(format!("VE {}: node {node} {text}: {what}", ve.id())));
            }
        }
        policy.replicas.retain(|r| r.node != node.0);
        self.change_policy(ve, policy)
    }

    fn may_require(&self, ve: &Ve, now: &BTreeSet<NodeId>, next: &BTreeSet<NodeId>) -> Result<(), OperateError> {
        let id = ve.id();
        if now == next {
            return Ok(());
        }
        if now.symmetric_difference(next).count() > 1 {
            return Err(cannot(format!("VE {id}: one required replica at a time, since they say who writes it")));
        }
        let led = self.inner().led.lock().get(&id).cloned();
        if led.is_some_and(|l| !is_heard(&l)) {
            let text = "too few of its required replicas have heard of the last change of them; try again";
            return Err(cannot(format!("VE {id}: {text}")));
        }
        let lineage = ve.identity().lineage;
        for node in next.difference(now) {
            let question = Talk::Right { ve: id, lineage, what: Question::Standing { lineage } };
            let asked = self.inner().clone();
            match self.block_on(async move { asked.ask(*node, question).await }) {
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

/// Waits until enough nodes know who is required.
fn is_heard(led: &Led) -> bool {
    let until = Instant::now() + HEARD;
    while !led.lease.is_settled() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

impl Inner {
    /// Another policy, with what has to be noted before where it changes who has to promise.
    pub(super) fn change_policy(self: &Arc<Self>, ve: &Arc<Ve>, policy: Policy) -> Result<(), OperateError> {
        let _one = self.policies.lock();
        if self.terms.is_some() && lessors_of(&ve.policy()?) != lessors_of(&policy) {
            self.store.put_note(ve.identity().lineage, Kind::Unsettled, b"")?;
        }
        ve.set_policy(policy)?;
        ve.sync()?;
        self.refresh(ve)?;
        Ok(())
    }
}
