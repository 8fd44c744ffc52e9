//! The node list reaches every node of the cluster, also those that share no VE with this one and have no stream with it: a node that was thrown out must
//! be turned away by all of them (promise G30). And certificates that end are told of in time.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::Inner;
use crate::node::NodeId;

/// How often nodes that were not reached are tried again.
const EVERY: Duration = Duration::from_secs(60);
/// How long after a change nodes are dialled that nobody has dialled by then. A node that was just added is not there yet, and whoever wants to speak to it
/// would wait for the end of an attempt that is in vain.
const DELAY: Duration = Duration::from_secs(3);
/// Nodes that are dialled at a time.
const AT_ONCE: usize = 16;
/// How many days before its end a certificate is told of, every day.
const WARN_DAYS: u64 = 60;
const DAY: u64 = 24 * 60 * 60;

/// What a node was given: the number of the list that it has at least.
type Told = BTreeMap<NodeId, u64>;

/// Begins, for as long as there is somebody who needs it.
pub(super) fn start(inner: &Arc<Inner>) {
    let changed = Arc::new(Notify::new());
    let observer = Arc::downgrade(&changed);
    inner.cluster.observe(move || observer.upgrade().inspect(|changed| changed.notify_one()).is_some());
    inner.runtime.spawn(spread(Arc::downgrade(inner), changed));
}

async fn spread(inner: Weak<Inner>, changed: Arc<Notify>) {
    let (mut told, mut warned) = (Told::new(), 0);
    tokio::time::sleep(DELAY).await;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        strong.tell_the_list(&mut told).await;
        strong.warn_of_ends(&mut warned);
        drop(strong);
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(DELAY).await,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

impl Inner {
    /// Dials whoever has not been given this list, or a newer one. A connection begins with an exchange of lists, and one that is there pushes them.
    async fn tell_the_list(&self, told: &mut Told) {
        let list = self.cluster.list();
        let (serial, me) = (list.list.serial, self.cluster.node());
        let (mut dialling, turns) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let others = list.list.nodes.iter().filter(|n| !n.revoked && n.id != me && !n.addresses.is_empty());
        for node in others.map(|n| n.id).filter(|id| told.get(id) != Some(&serial)).collect::<Vec<_>>() {
            if self.transport().is_linked(node) {
                told.insert(node, serial);
                continue;
            }
            let (transport, turns) = (self.transport().clone(), turns.clone());
            dialling.spawn(async move {
                let _turn = turns.acquire().await;
                (node, transport.connect(node).await)
            });
        }
        while let Some(dialled) = dialling.join_next().await {
            match dialled {
                Ok((node, Ok(_))) => _ = told.insert(node, serial),
                Ok((node, Err(e))) => tracing::debug!(%node, error = %e, serial, "the node list does not reach it yet"),
                Err(_) => {}
            }
        }
        told.retain(|id, _| list.list.node(*id).is_some());
    }

    /// Once a day: which certificates end soon. Those of other nodes where they can be renewed.
    fn warn_of_ends(&self, warned: &mut u64) {
        let now = u64::try_from(self.cluster.clock().wall().secs).unwrap_or(0);
        if now / DAY == *warned {
            return;
        }
        *warned = now / DAY;
        let (list, me) = (self.cluster.list(), self.cluster.node());
        for node in list.list.nodes.iter().filter(|n| !n.revoked && (n.id == me || self.cluster.has_authority())) {
            let days = node.not_after().saturating_sub(now) / DAY;
            if days < WARN_DAYS {
                let what = "ALARM: a node's certificate ends, and no other node speaks to it then: `aspfs node renew`";
                tracing::error!(name = %node.name, node = %node.id, days, "{what}");
            }
        }
    }
}
