//! The VEs that this node writes and others follow: when that begins, whom they are shipped to, and when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use vefs::Ve;
use vefs::change::Policy;
use vefs::ids::{TxnNo, VeId};

use super::{Exposed, Following, Inner, Led, Link, govern, leases, ship};
use crate::node::NodeId;

impl Inner {
    /// Leads, follows or leaves alone, as the VE's role and policy say. A VE that this node wrote before it started is not written before the others were
    /// asked who writes it.
    pub(crate) fn refresh(self: &Arc<Self>, ve: &Arc<Ve>) -> vefs::Result<()> {
        self.refresh_as(ve, true)
    }

    /// As [`Inner::refresh`], of a VE that this node was given: nobody needs to be asked.
    pub(super) fn refresh_given(self: &Arc<Self>, ve: &Arc<Ve>) -> vefs::Result<()> {
        self.refresh_as(ve, false)
    }

    fn refresh_as(self: &Arc<Self>, ve: &Arc<Ve>, asks: bool) -> vefs::Result<()> {
        let _one = self.refreshing.lock();
        if !ve.is_writer() {
            self.stop_leading(ve.id());
            let following = || Following::new(ve.clone(), self.cluster.node(), self.clock.clone());
            self.followed.lock().entry(ve.id()).or_insert_with(following);
            return Ok(());
        }
        let mut policy = ve.policy()?;
        // A replica that was removed has a copy, and may ask the arbiter for the VE: it is not to be had while it is written here.
        let was_shared = (self.arbitration.is_some() || self.terms.is_some()) && policy.writer != [0; 16];
        if policy.replicas.is_empty() && !was_shared {
            self.stop_leading(ve.id());
            return Ok(());
        }
        // What is shared just now nobody else can have been given.
        let asks = asks && policy.writer != [0; 16];
        // Before anything is shipped: the others know by it whom they follow (promise G30).
        if self.correct_writer(&mut policy) {
            ve.set_policy(policy.clone())?;
            ve.commit()?;
        }
        let led = self.lead(ve, &policy, asks)?;
        self.ship(&led, &policy)
    }

    fn lead(self: &Arc<Self>, ve: &Arc<Ve>, policy: &Policy, asks: bool) -> vefs::Result<Arc<Led>> {
        if let Some(led) = self.led.lock().get(&ve.id()).filter(|l| Arc::ptr_eq(&l.ve, ve)) {
            return Ok(led.clone());
        }
        // Sessions are told apart by the epoch: the next run of this daemon must have another one, whatever it writes.
        ve.note_epoch(ve.epoch())?;
        let governed = self.arbitration.is_some() || self.terms.is_some();
        let exposed = Exposed::watch(ve, policy, self.clock.clone(), governed);
        let led = Arc::new(Led { ve: ve.clone(), exposed, links: Mutex::default(), lease: leases::Lease::default() });
        led.set_lessors(policy);
        self.led.lock().insert(ve.id(), led.clone());
        // Whoever grants leases is asked at every change. Where people name writers, one who was away asks once.
        if asks && !governed {
            self.ask_first(&led, policy);
        }
        if let Some(arbitration) = self.arbitration.clone() {
            self.runtime.spawn(govern::govern(Arc::downgrade(self), led.clone(), arbitration));
        }
        if let Some(terms) = self.terms {
            self.runtime.spawn(leases::hold(Arc::downgrade(self), led.clone(), terms));
        }
        Ok(led)
    }

    fn ship(self: &Arc<Self>, led: &Arc<Led>, policy: &Policy) -> vefs::Result<()> {
        led.set_lessors(policy);
        let cursors = led.ve.cursors();
        let mut acked = BTreeMap::new();
        for (node, cursor, _) in &cursors {
            if policy.replicas.iter().any(|r| r.node == *node) {
                acked.extend(cursor.acked.then_some((NodeId(*node), cursor.txn)));
            } else {
                led.ve.drop_cursor(*node)?;
            }
        }
        for r in &policy.replicas {
            if !cursors.iter().any(|(node, ..)| *node == r.node) {
                // From here on the history stays for it; what it lacks of what was before it gets as a whole state.
                led.ve.hold_for(r.node, TxnNo(0))?;
            }
        }
        let new = led.exposed.set_policy(policy, &acked);
        led.links.lock().retain(|node, _| policy.replicas.iter().any(|r| r.node == node.0));
        for (replica, tail) in new {
            let link = Arc::new(Link::default());
            led.links.lock().insert(NodeId(replica.node), link.clone());
            let shipping = ship::Shipping {
                ve: led.ve.clone(),
                exposed: led.exposed.clone(),
                tail,
                replica,
                link,
                transport: self.transport().clone(),
                me: self.cluster.node(),
                clock: self.clock.clone(),
            };
            self.runtime.spawn(shipping.run());
        }
        Ok(())
    }

    /// Whether a VE is led still, in this very way.
    pub(super) fn leads(&self, led: &Arc<Led>) -> bool {
        self.led.lock().get(&led.ve.id()).is_some_and(|l| Arc::ptr_eq(l, led))
    }

    /// This node ships a VE no more.
    pub(crate) fn stop_leading(&self, ve: VeId) {
        let Some(led) = self.led.lock().remove(&ve) else { return };
        led.exposed.set_policy(&Policy::default(), &BTreeMap::new());
        led.ve.set_watcher(None);
    }
}
