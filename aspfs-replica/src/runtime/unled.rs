//! A VE that this node may write and does not lead yet: its policy has to say so first, and nobody else changes it before.

use std::sync::Arc;

use vefs::Ve;
use vefs::change::{Need, Policy, ReplicaOf};
use vefs::ids::{PayloadId, TxnNo};
use vefs::ve::{Verdict, Watcher};

use super::Inner;
use crate::node::NodeId;

/// Has programs on a mount that lives wait: what they wrote before there is a right to it and a window would be answered all the same, and would count
/// as exposed nowhere (promises G14, G19).
struct Unled;

impl Watcher for Unled {
    fn admit(&self, _: u64) -> Verdict {
        Verdict::Wait
    }

    fn complete(&self) -> Verdict {
        Verdict::Wait
    }

    fn accepted(&self, _: TxnNo, _: u64) {}

    fn bulk(&self, _: PayloadId, _: u64) {}

    fn durable(&self) {}
}

impl Inner {
    /// Has programs wait until the VE is led, or until [`Inner::lead_nothing`].
    pub(super) fn lead_later(&self, ve: &Ve) {
        // Where it wrote before and was fenced.
        self.stop_leading(ve.id());
        ve.set_watcher(Some(Arc::new(Unled)));
    }

    /// The VE is not to be led by this node.
    pub(super) fn lead_nothing(&self, ve: &Ve) {
        ve.set_watcher(None);
        ve.wake_writers();
    }

    /// Leads a VE that this node was given, after [`Inner::lead_later`].
    pub(super) fn lead_anew(self: &Arc<Self>, ve: &Arc<Ve>, former: Option<NodeId>) -> vefs::Result<()> {
        ve.unfence();
        let mut policy = ve.policy()?;
        self.put_writer(&mut policy, former);
        ve.set_policy(policy)?;
        ve.commit()?;
        self.refresh_given(ve)?;
        if !self.led.lock().contains_key(&ve.id()) {
            // It has no replicas.
            self.lead_nothing(ve);
        }
        ve.wake_writers();
        Ok(())
    }

    /// Has the policy name this node as the writer; false where it does. A node that was promoted may have died before it had said so; and replicas may
    /// be returning from a time in which they named writers.
    pub(super) fn correct_writer(&self, policy: &mut Policy) -> bool {
        let me = self.me().0;
        let mine = policy.replicas.iter().any(|r| r.node == me);
        let returning = self.terms.is_none() && policy.replicas.iter().any(|r| r.need == Need::Returning);
        if policy.writer == me && !mine && !returning {
            return false;
        }
        let former = (policy.writer != [0; 16] && policy.writer != me).then_some(NodeId(policy.writer));
        self.put_writer(policy, former);
        true
    }

    /// This node is the writer, and no replica any more; the former primary becomes one, and is needed as this node was.
    pub(super) fn put_writer(&self, policy: &mut Policy, former: Option<NodeId>) {
        let me = self.me();
        let need = match policy.replicas.iter().find(|r| r.node == me.0).map(|r| r.need) {
            None | Some(Need::Optional) => Need::Optional,
            // Where replicas name writers, it would have to promise at once, and is away.
            Some(_) if self.terms.is_some() => Need::Returning,
            Some(_) => Need::Required,
        };
        policy.replicas.retain(|r| r.node != me.0);
        if let Some(former) = former.filter(|f| !policy.replicas.iter().any(|r| r.node == f.0)) {
            policy.replicas.push(ReplicaOf { node: former.0, need, bandwidth: 0 });
        }
        if self.terms.is_none() {
            let returning = policy.replicas.iter_mut().filter(|r| r.need == Need::Returning);
            returning.for_each(|r| r.need = Need::Required);
        }
        policy.writer = me.0;
    }
}
