//! What all tasks of a transport share: the links, the counters, and who may have a link.
//!
//! Invariant: every live link's peer is in the node list with the certificate that it showed, and not revoked. A link is put in the table
//! under its lock after looking at the list, and a list that changes looks through the table under the same lock, after it is in force: so
//! no link slips through between the two.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quinn::{Connection, Endpoint};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use vefs::ids::Hash;

use super::handshakes::Handshakes;
use super::link::Link;
use super::refusal::{Counts, Refusal};
use super::settings::Settings;
use super::stats::{PeerStats, Traffic};
use crate::cluster::certificate::fingerprint;
use crate::cluster::{Cluster, Role};
use crate::node::NodeId;

pub(super) struct Shared {
    pub cluster: Arc<Cluster>,
    pub settings: Settings,
    pub runtime: Handle,
    pub endpoint: Endpoint,
    pub counts: Counts,
    pub handshakes: Arc<Handshakes>,
    /// Counts changes of the node list.
    pub changes: watch::Sender<u64>,
    links: Mutex<Vec<Arc<Link>>>,
    traffic: Mutex<HashMap<NodeId, Arc<Traffic>>>,
}

/// The certificate that the other side of a handshake showed.
pub(super) fn shown(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().cloned()
}

impl Shared {
    pub fn new(cluster: Arc<Cluster>, settings: Settings, runtime: Handle, endpoint: Endpoint) -> Arc<Shared> {
        let shared = Arc::new(Shared {
            cluster,
            settings,
            runtime,
            endpoint,
            counts: Counts::default(),
            handshakes: Arc::default(),
            changes: watch::Sender::new(0),
            links: Mutex::default(),
            traffic: Mutex::default(),
        });
        let weak: Weak<Shared> = Arc::downgrade(&shared);
        shared.cluster.observe(move || match weak.upgrade() {
            Some(shared) => {
                shared.review();
                shared.changes.send_modify(|n| *n += 1);
                true
            }
            None => false,
        });
        shared
    }

    /// Makes a connection a link, if the node list has its peer. `known` is the list that the peer has. Of two connections that a peer
    /// dialled the newer one stays: the older belongs to a process of it that is no more.
    pub fn admit(self: &Arc<Self>, connection: &Connection, incoming: bool, known: Hash) -> Result<Arc<Link>, Refusal> {
        let shown = shown(connection).ok_or(Refusal::NoCertificate)?;
        let role = if incoming { Role::Dialler } else { Role::Listener };
        let mut links = self.links.lock();
        let peer = self.cluster.admit(&shown, role).map_err(Refusal::Certificate)?;
        let link = Arc::new(Link::new(self, connection.clone(), (peer, fingerprint(&shown)), incoming, known));
        let old: Vec<Arc<Link>> = links.iter().filter(|l| incoming && l.incoming && l.peer == peer).cloned().collect();
        links.push(link.clone());
        drop(links);
        old.iter().for_each(|l| l.refuse(Refusal::Superseded));
        self.runtime.spawn(watch(link.clone()));
        self.runtime.spawn(link.clone().push_lists());
        Ok(link)
    }

    /// Whether there is a live link with a peer.
    pub fn is_linked(&self, peer: NodeId) -> bool {
        self.links.lock().iter().any(|l| l.peer == peer && l.connection.close_reason().is_none())
    }

    /// Breaks with every peer that may not be there any more.
    pub fn review(&self) {
        let links = self.links.lock().clone();
        for link in links {
            if let Err(fault) = self.cluster.standing(link.peer, &link.fingerprint) {
                link.refuse(Refusal::Certificate(fault));
            }
        }
    }

    /// The counters of a peer. Only for peers that were admitted: there are no more of them than nodes.
    pub fn traffic(&self, peer: NodeId) -> Arc<Traffic> {
        self.traffic.lock().entry(peer).or_default().clone()
    }

    /// The counters of all peers that were ever admitted.
    pub fn stats(&self) -> Vec<PeerStats> {
        let links = self.links.lock();
        let mut all: Vec<PeerStats> = Vec::new();
        for (peer, traffic) in self.traffic.lock().iter() {
            let live: Vec<&Arc<Link>> = links.iter().filter(|l| l.peer == *peer).collect();
            let counted: Vec<_> = live.iter().map(|l| l.connection.stats()).collect();
            let (dialled, dialled_by) = (live.iter().any(|l| !l.incoming), live.iter().any(|l| l.incoming));
            all.push(PeerStats { dialled, dialled_by, ..traffic.read(*peer, &counted) });
        }
        all.sort_by_key(|s| s.peer);
        all
    }
}

/// Waits for the end of a link, and takes it out of the table.
async fn watch(link: Arc<Link>) {
    let _ = link.connection.closed().await;
    let mut links = link.shared.links.lock();
    links.retain(|l| !Arc::ptr_eq(l, &link));
    // Under the lock: a reader sees the link or what is kept of it.
    link.traffic.keep(&link.connection.stats());
}
