//! The transport itself: listening, and dialling with one connection per peer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, ServerConfig, TokioRuntime, TransportConfig};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::accept::{self, Handler};
use super::error::{NetError, close};
use super::link::{Link, Peer};
use super::lists;
use super::refusal::{Refusal, STOPPED};
use super::settings::Settings;
use super::shared::Shared;
use super::stats::PeerStats;
use super::{socket, tls};
use crate::cluster::{Address, Cluster};
use crate::node::NodeId;

/// The next address of a node is tried after so long without an answer from the one before.
const STAGGER: Duration = Duration::from_millis(250);
/// A host name is tried with so many of its addresses.
const RESOLVED_MAX: usize = 4;

/// What is known of the connection to a peer. Its lock is held while the peer is dialled, so that all who want it wait for one attempt.
type Slot = Arc<tokio::sync::Mutex<Dialled>>;

#[derive(Default)]
struct Dialled {
    link: Weak<Link>,
    /// When the last attempt ended that reached nobody, and what it tried.
    failed: Option<(Instant, String)>,
}

/// Connections of this node with the others of its cluster. Clones are the same transport; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Transport(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    dialled: Mutex<HashMap<NodeId, Slot>>,
    transport: Arc<TransportConfig>,
    address: SocketAddr,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.endpoint.close(STOPPED, b"");
    }
}

impl Transport {
    /// Listens on `listen`, whose port may be 0 for any, and serves peers with `handler`. Its tasks run on `runtime`, which has I/O and
    /// time enabled.
    pub fn start<H: Handler>(
        runtime: &Handle,
        cluster: Arc<Cluster>,
        listen: SocketAddr,
        handler: Arc<H>,
        settings: Settings,
    ) -> Result<Transport, NetError> {
        let _entered = runtime.enter();
        let (crypto, _) = tls::listener(&cluster)?;
        let mut base = ServerConfig::with_crypto(Arc::new(crypto));
        // What waits for a decision is bounded; nodes do not change their address within a connection.
        base.transport_config(settings.transport(true)?)
            .migration(false)
            .max_incoming(256)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20);
        let socket = socket::bind(listen)?;
        let address = socket.local_addr().map_err(NetError::Listen)?;
        let endpoint = Endpoint::new(settings.endpoint()?, Some(base.clone()), socket, Arc::new(TokioRuntime))
            .map_err(NetError::Listen)?;
        let (transport, expiry_check) = (settings.transport(false)?, settings.expiry_check);
        let shared = Shared::new(cluster, settings, runtime.clone(), endpoint);
        runtime.spawn(accept::listen(shared.clone(), handler, base));
        runtime.spawn(review(Arc::downgrade(&shared), expiry_check));
        Ok(Transport(Arc::new(Owner { shared, dialled: Mutex::default(), transport, address })))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// The membership that it was started with.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.0.shared.cluster
    }

    /// The connection to a peer: the one that there is, or a new one. Its certificate was checked, it is the node that is meant, and both
    /// sides have the newer one of their node lists. Dropping the call while it waits gives the attempt up. When to try again after an
    /// error is the caller's matter.
    pub async fn connect(&self, peer: NodeId) -> Result<Peer, NetError> {
        let shared = &self.0.shared;
        if peer == shared.cluster.node() {
            return Err(NetError::Own);
        }
        // Only for nodes of the list: there are no more slots than nodes.
        self.addresses(peer)?;
        let asked = Instant::now();
        let slot = self.0.dialled.lock().entry(peer).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(link) = slot.link.upgrade().filter(|l| l.connection.close_reason().is_none()) {
            return Ok(Peer(link));
        }
        // The attempt that this call has waited for was its own as well: of a thousand that wait each would take as long.
        if let Some((_, tries)) = slot.failed.as_ref().filter(|(ended, _)| *ended >= asked) {
            return Err(NetError::Unreachable { node: peer, tries: tries.clone() });
        }
        // Now: they may have changed while this waited.
        let dialled = self.dial(peer, &self.addresses(peer)?).await;
        slot.failed = match &dialled {
            Err(NetError::Unreachable { tries, .. }) => Some((Instant::now(), tries.clone())),
            _ => None,
        };
        let link = dialled?;
        slot.link = Arc::downgrade(&link);
        Ok(Peer(link))
    }

    /// Where a node of the list listens.
    fn addresses(&self, peer: NodeId) -> Result<Vec<Address>, NetError> {
        let list = self.0.shared.cluster.list();
        let node = list.list.node(peer).filter(|n| !n.addresses.is_empty() || n.revoked);
        let node = node.ok_or(NetError::NoAddress(peer))?;
        match node.revoked {
            true => Err(NetError::Refused(Refusal::Certificate(crate::cluster::Fault::Revoked))),
            false => Ok(node.addresses.clone()),
        }
    }

    /// Whether there is a connection with a peer, whichever side dialled.
    pub fn is_linked(&self, peer: NodeId) -> bool {
        self.0.shared.is_linked(peer)
    }

    /// Dials a node, exchanges lists, and makes a link of it.
    async fn dial(&self, peer: NodeId, addresses: &[Address]) -> Result<Arc<Link>, NetError> {
        let shared = &self.0.shared;
        let connection = self.race(peer, addresses).await?;
        let admitted = match timeout(shared.settings.patience, lists::exchange(shared, &connection)).await {
            Ok(Ok(known)) => shared.admit(&connection, false, known).map_err(NetError::Refused),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(NetError::Refused(Refusal::Slow)),
        };
        if let Err(NetError::Refused(why)) = &admitted {
            shared.counts.count(*why);
            close(&connection, Some(*why));
        }
        let link = admitted?;
        shared.runtime.spawn(accept::serve_dialled(link.clone()));
        Ok(link)
    }

    /// Tries the addresses, each a little later than the one before, until one answers as the node that is meant.
    async fn race(&self, peer: NodeId, addresses: &[Address]) -> Result<Connection, NetError> {
        let mut attempts = JoinSet::new();
        let mut failed: Vec<String> = Vec::new();
        let mut refused = None;
        let mut rest = addresses.iter();
        loop {
            if let Some(address) = rest.next() {
                let (shared, transport) = (self.0.shared.clone(), self.0.transport.clone());
                let address = address.clone();
                attempts.spawn(async move {
                    let result = timeout(shared.settings.patience, attempt(&shared, transport, peer, &address)).await;
                    (address, result.unwrap_or_else(|_| Err(NetError::Lost("no answer in time".to_owned()))))
                });
            }
            let more = rest.len() > 0;
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = sleep(STAGGER), if more => continue,
            };
            match ended {
                Some(Ok((_, Ok(connection)))) => return Ok(connection),
                Some(Ok((_, Err(NetError::Closed)))) => return Err(NetError::Closed),
                Some(Ok((address, Err(e)))) => {
                    failed.push(format!("{address}: {e}"));
                    if let NetError::Refused(why) = e {
                        self.0.shared.counts.count(why);
                        refused = Some(NetError::Refused(why));
                    } else if let NetError::RefusedByPeer(why) = e {
                        refused = Some(NetError::RefusedByPeer(why));
                    }
                }
                Some(Err(e)) => failed.push(e.to_string()),
                None if more => {}
                // A refusal says more than an address where nobody answers.
                None => {
                    return Err(
                        refused.unwrap_or_else(|| NetError::Unreachable { node: peer, tries: failed.join("; ") })
                    );
                }
            }
        }
    }

    /// What went to and from each peer since the start, by its identity.
    pub fn stats(&self) -> Vec<PeerStats> {
        self.0.shared.stats()
    }

    /// Why this side refused connections or broke them off, and how often, since the start.
    pub fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.0.shared.counts.met()
    }

    /// Closes all connections, tells the peers, and waits until they have been told, or a few round trips.
    pub async fn stop(&self) {
        self.0.shared.endpoint.close(STOPPED, b"");
        self.0.shared.endpoint.wait_idle().await;
    }
}

/// One handshake with one address of a node.
async fn attempt(
    shared: &Shared,
    transport: Arc<TransportConfig>,
    peer: NodeId,
    address: &Address,
) -> Result<Connection, NetError> {
    let resolved = tokio::net::lookup_host(address.as_str()).await.map_err(|e| NetError::Lost(e.to_string()))?;
    let mut last = NetError::Lost("the name has no address".to_owned());
    for at in resolved.take(RESOLVED_MAX) {
        let (crypto, verdict) = tls::dialler(&shared.cluster, peer)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport.clone());
        let connecting = shared.endpoint.connect_with(config, at, tls::SERVER_NAME);
        let connected = match connecting {
            Ok(connecting) => connecting.await,
            Err(quinn::ConnectError::EndpointStopping) => return Err(NetError::Closed),
            Err(e) => {
                last = NetError::Lost(e.to_string());
                continue;
            }
        };
        last = match connected {
            Ok(connection) => return Ok(connection),
            Err(ConnectionError::LocallyClosed) => return Err(NetError::Closed),
            Err(e) => verdict.get().map_or_else(|| e.into(), |why| NetError::Refused(*why)),
        };
    }
    Err(last)
}

/// Looks through the links now and then: certificates expire.
async fn review(shared: Weak<Shared>, every: Duration) {
    loop {
        sleep(every).await;
        match shared.upgrade() {
            Some(shared) => shared.review(),
            None => return,
        }
    }
}
