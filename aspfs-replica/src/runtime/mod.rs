//! Replication on a node: the thin shells around the machines. A [`Runtime`] has the VEs that this node writes for others ([`Exposed`], a stream
//! to each replica) and those that it follows ([`Following`]); it answers other nodes, and does what an administrator asks.
//!
//! Locks: the tables of led and followed VEs are held for look-ups only, never over I/O, an await or a lock of what is in them.

mod compare;
mod exposed;
mod fence;
mod first;
mod follow;
mod govern;
mod lane;
mod lead;
mod leases;
mod operate;
mod pace;
mod peers;
mod promotion;
mod pull;
mod repair;
mod right;
mod serve;
mod ship;
mod spread;
mod stake;
mod status;
mod tail;
mod talk;
mod unled;
mod writers;

#[cfg(test)]
pub(crate) mod bed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use vefs::clock::Clock;
use vefs::ids::VeId;
use vefs::{Store, Ve};

use crate::arbiter::lease::Terms;
use crate::cluster::Cluster;
use crate::local::HeldStates;
use crate::net::{NetError, PeerStats, Settings, Transport};
use crate::node::NodeId;
pub use compare::Compared;
pub use exposed::{Exposed, Standing};
pub use follow::{FollowFigures, Following};
pub use govern::ArbiterSettings;
pub use operate::{OperateError, Promoted, with_replica};
pub use peers::{Strangers, Word};
pub use stake::{Beyond, Stakes};
pub use status::{Link, LinkFigures, ReplicaFigures, VeFigures};
pub use tail::{Share, Tail};
pub use talk::{LEN_MAX, Question, Reply, TalkError};
pub use writers::{NamedBy, OnPromotion, Writers};

/// How often windows are looked at when nothing happens: an alarm is raised within a second (promise G17).
const TICK: Duration = Duration::from_millis(200);
/// How often other nodes are asked about VEs that follow and hear nothing.
const INQUIRE: Duration = Duration::from_secs(10);

/// Threads that carry streams: whenever one has work another is woken to look for some, which on a small machine programs need.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, 4))
}

/// A VE that is written here and followed elsewhere.
pub(crate) struct Led {
    pub ve: Arc<Ve>,
    pub exposed: Arc<Exposed>,
    pub links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// The promises that it is written by, where replicas give them.
    pub lease: leases::Lease,
}

pub(crate) struct Inner {
    pub store: Arc<Store>,
    pub cluster: Arc<Cluster>,
    pub clock: Arc<dyn Clock>,
    /// Set right after the transport has started, before anything is led.
    transport: std::sync::OnceLock<Transport>,
    runtime: tokio::runtime::Handle,
    pub led: Mutex<BTreeMap<VeId, Arc<Led>>>,
    pub followed: Mutex<BTreeMap<VeId, Arc<Following>>>,
    pub held: Arc<HeldStates>,
    pub strangers: Strangers,
    /// Damaged things that were repaired with other nodes' bytes.
    repaired: std::sync::atomic::AtomicU64,
    /// Those that no other node had, and when they were asked.
    repairs: Mutex<BTreeMap<vefs::ids::Hash, Duration>>,
    /// VEs of which a whole state is being pulled.
    pulls: Mutex<BTreeMap<VeId, Arc<pull::Source>>>,
    /// Held by whoever promotes or hands over a VE: one at a time.
    operating: Mutex<BTreeMap<VeId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held by whoever changes which replicas a VE has.
    policies: Mutex<BTreeMap<VeId, Arc<Mutex<()>>>>,
    /// Replicas that are required again, of all VEs: a node that is back may have been one of a thousand.
    requiring: Arc<tokio::sync::Semaphore>,
    /// VEs that this node is to be promoted for.
    claims: Mutex<BTreeMap<VeId, leases::Claimed>>,
    /// What this node promised primaries.
    lessors: leases::Lessors,
    /// The leases of required replicas, if they name writers.
    terms: Option<Terms>,
    promoted: Option<OnPromotion>,
    /// Held by whoever begins or ends to lead or follow a VE.
    refreshing: Mutex<()>,
    /// The arbiter outside, if there is one.
    arbitration: Option<Arc<govern::Arbitration>>,
    /// Held by whoever makes the root of a state for another node.
    rooting: tokio::sync::Mutex<()>,
}

/// Why replication did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The operating system refused.
    #[error("starting threads for streams: {0}")]
    Threads(std::io::Error),
}

/// Replication on this node. It ends when this is dropped.
pub struct Runtime {
    inner: Arc<Inner>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// Listens for other nodes, and goes on with every VE that is replicated.
    pub fn start(
        store: Arc<Store>,
        cluster: Arc<Cluster>,
        listen: SocketAddr,
        clock: Arc<dyn Clock>,
        writers: &Writers,
    ) -> Result<Runtime, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads())
            .thread_name("aspfs-replica")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let (arbiter, terms) = match &writers.by {
            NamedBy::People => (None, None),
            NamedBy::Replicas(lease) => (None, Some(Terms::new(*lease))),
            NamedBy::Etcd(settings) => (Some(settings), None),
        };
        let lease = terms.or(arbiter.map(|a| Terms::new(a.lease))).filter(|_| writers.fail_over);
        let inner = Arc::new(Inner {
            lessors: leases::Lessors::new(store.clone(), clock.clone(), terms),
            policies: Mutex::default(),
            requiring: Arc::new(tokio::sync::Semaphore::new(leases::REQUIRED_AT_ONCE)),
            claims: Mutex::default(),
            terms,
            promoted: writers.on_promotion.clone(),
            store,
            cluster: cluster.clone(),
            clock,
            transport: std::sync::OnceLock::new(),
            runtime: runtime.handle().clone(),
            led: Mutex::default(),
            followed: Mutex::default(),
            held: Arc::default(),
            strangers: Strangers::default(),
            repaired: Default::default(),
            repairs: Mutex::default(),
            pulls: Mutex::default(),
            operating: Mutex::default(),
            rooting: tokio::sync::Mutex::default(),
            refreshing: Mutex::default(),
            arbitration: arbiter.map(|settings| Arc::new(govern::Arbitration::new(settings))),
        });
        let handler = Arc::new(serve::Server(Arc::downgrade(&inner)));
        // A node that was away is reached soon after it is back: an attempt that began before is not waited for.
        let settings = Settings { patience: Duration::from_secs(3), ..Settings::default() };
        let transport = Transport::start(runtime.handle(), cluster, listen, handler, settings)?;
        let _ = inner.transport.set(transport);
        runtime.spawn(tick(Arc::downgrade(&inner)));
        spread::start(&inner);
        if let Some(terms) = lease {
            runtime.spawn(leases::fail_over(Arc::downgrade(&inner), terms));
        }
        let (resumed, inquiring) = (inner.clone(), Arc::downgrade(&inner));
        runtime.spawn(async move {
            let _ = tokio::task::spawn_blocking(move || resumed.resume()).await;
            loop {
                let Some(inner) = inquiring.upgrade() else { return };
                inner.inquire().await;
                drop(inner);
                tokio::time::sleep(INQUIRE).await;
            }
        });
        Ok(Runtime { inner, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.transport.get().map(Transport::local_addr)
    }

    /// The cluster that this node is in.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.inner.cluster
    }

    /// What went over the network to and from each peer since the start.
    pub fn traffic(&self) -> Vec<PeerStats> {
        self.inner.transport.get().map(Transport::stats).unwrap_or_default()
    }

    /// A VE was made, or its policy changed: streams begin and end as it says.
    pub fn refresh(&self, ve: &Arc<Ve>) -> vefs::Result<()> {
        self.inner.refresh(ve)
    }

    /// A VE is about to be destroyed here, or is no more: nothing of it goes on.
    pub fn forget(&self, ve: VeId) {
        self.inner.stop_leading(ve);
        self.inner.stop_following(ve);
    }

    /// How often peers were turned away that are none of a VE's nodes (promise G30).
    pub fn strangers(&self) -> &Strangers {
        &self.inner.strangers
    }

    pub(crate) fn block_on<T>(&self, f: impl Future<Output = T>) -> T {
        self.inner.runtime.block_on(f)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

/// Has windows looked at for as long as there is somebody who leads, and lets go of states that nobody asks about.
async fn tick(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let led: Vec<_> = inner.led.lock().values().cloned().collect();
        led.iter().for_each(|l| l.exposed.tick());
        let idle = inner.held.take_idle(inner.clock.boot());
        if !idle.is_empty() {
            tokio::task::block_in_place(|| drop(idle));
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let led: Vec<VeId> = self.inner.led.lock().keys().copied().collect();
        led.into_iter().for_each(|ve| self.inner.stop_leading(ve));
        if let Some(runtime) = self.runtime.take() {
            if let Some(transport) = self.inner.transport.get() {
                let stopped = async { tokio::time::timeout(Duration::from_secs(1), transport.stop()).await };
                let _ = runtime.block_on(stopped);
            }
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

impl Inner {
    pub(crate) fn transport(&self) -> &Transport {
        // invariant: set in `Runtime::start` before anybody else has this.
        self.transport.get().expect("the transport has started") // invariant: see above
    }

    /// Goes on with every VE of the store that is replicated.
    fn resume(self: &Arc<Self>) {
        let ves = match self.store.list() {
            Ok(ves) => ves,
            Err(e) => {
                tracing::error!(error = %e, "listing VEs for replication");
                return;
            }
        };
        for id in ves {
            let resumed = self.store.ve(id).and_then(|ve| self.refresh(&ve));
            if let Err(e) = resumed {
                tracing::error!(ve = %id, error = %e, "a VE is not replicated");
            }
        }
    }

    /// What whoever promotes or hands over a VE holds.
    pub(crate) fn operating(&self, ve: VeId) -> Arc<tokio::sync::Mutex<()>> {
        self.operating.lock().entry(ve).or_default().clone()
    }

    /// What whoever changes which replicas a VE has holds.
    fn policies(&self, ve: VeId) -> Arc<Mutex<()>> {
        self.policies.lock().entry(ve).or_default().clone()
    }
}
