//! Writers named by the required replicas: no arbiter outside, no person's word (promises G16, G18, G19). The machines are those of
//! [`lease`](crate::arbiter::lease) and [`promote`](crate::promote); here are their shells.
//!
//! - [`answer`]: what this node promises others, durably, before it says so.
//! - [`hold`]: a primary asks its required replicas for promises, again and again.
//! - [`claim`]: a replica has a majority of them join an epoch, and writes.
//! - [`hand`]: a primary hands the VE over, and its promises with it.
//! - [`change`]: the required replicas change, one at a time.
//! - [`fail_over`]: a replica that hears of no primary does so by itself.
//!
//! What has to be remembered beside a VE is in notes of the store ([`Kind`]): a replica promises before it has the VE's state, so that a first copy does
//! not stop the writers.

mod answer;
mod change;
mod claim;
mod fail_over;
mod hand;
mod hold;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use vefs::change::{Need, Policy};
use vefs::clock::Clock;
use vefs::entropy::{Entropy, SystemEntropy};
use vefs::format::note::Kind;
use vefs::ids::{Epoch, Lineage, TxnNo};
use vefs::limits::COUNTER_MAX;
use vefs::{Store, codec};

pub(super) use fail_over::fail_over;
pub(super) use hold::hold;

use crate::arbiter::lease::{Lessor, Promised, Promises, Terms};
use crate::member::Stamp;
use crate::node::NodeId;

/// With so many notes nothing is promised about further histories of which no VE is here: a peer that asks about ever more of them fills nothing.
const STRANGERS_MAX: usize = 10_000;

/// With so many histories in memory those about which nothing was promised are forgotten: they are read again when they are asked about.
const KNOWN_MAX: usize = 4096;

/// Most replicas that are required again at a time.
pub(super) const REQUIRED_AT_ONCE: usize = 16;

/// The nodes that have a say in who writes: the required replicas.
pub(super) fn lessors_of(policy: &Policy) -> BTreeSet<NodeId> {
    policy.replicas.iter().filter(|r| r.is_required()).map(|r| NodeId(r.node)).collect()
}

/// The nodes that are to be required again when they are back.
fn returning_of(policy: &Policy) -> BTreeSet<NodeId> {
    policy.replicas.iter().filter(|r| r.need == Need::Returning).map(|r| NodeId(r.node)).collect()
}

/// A promotion of this node that is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claimed {
    /// A person has said that the former primary is off.
    sure: bool,
    /// What others are asked to join.
    epoch: Option<Epoch>,
    /// Another node's higher epoch was joined here: this one's is given up.
    gave_way: bool,
}

/// What this node promised about each history.
pub(super) struct Lessors {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<Lineage, Arc<Mutex<Lessor>>>>,
    /// When a promise that this node gave before it started has ended.
    free_from: Duration,
    /// What this node says of itself is numbered.
    process: u64,
    said: AtomicU64,
}

impl Lessors {
    /// `terms`: those of leases, where they are promised here at all. What was promised before this started is taken to have been as long.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, terms: Option<Terms>) -> Lessors {
        let free_from = clock.boot() + terms.map_or(Duration::ZERO, |t| t.ttl);
        Lessors {
            store,
            clock,
            known: Mutex::default(),
            free_from,
            process: SystemEntropy.next_u64(),
            said: AtomicU64::new(0),
        }
    }

    /// For the next thing that this node says.
    pub fn stamp(&self) -> Stamp {
        Stamp { process: self.process, number: self.said.fetch_add(1, Ordering::SeqCst) }
    }

    /// Of one history. What is on disk is read when it is asked for first; a promise that may run is taken as given then. `here`: a VE of it is;
    /// of others there is a bound.
    pub fn of(&self, lineage: Lineage, here: bool) -> Result<Arc<Mutex<Lessor>>, String> {
        if let Some(lessor) = self.known.lock().get(&lineage) {
            return Ok(lessor.clone());
        }
        // Read without the table's lock. Whoever comes second takes what the first one made, which may have promised since.
        let body = self.store.note(lineage, Kind::Promises).map_err(|e| e.to_string())?;
        let found: Option<Promised> = match body {
            Some(body) => Some(codec::decode(&body).map_err(|e| format!("note of promises: {e}"))?),
            None if !here && self.store.notes().map_err(|e| e.to_string())? >= STRANGERS_MAX => {
                return Err(format!("{STRANGERS_MAX} notes, and no VE of this history here"));
            }
            None => None,
        };
        let read = |promised| Lessor::new(promised, self.clock.boot());
        let made = || Arc::new(Mutex::new(found.map_or_else(|| Lessor::blank(self.free_from), read)));
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            // Whoever asks has it for as long as it takes: two that ask at the same time must not be promised by two.
            known.retain(|_, l| Arc::strong_count(l) > 1 || *l.lock().promised() != Promised::default());
        }
        Ok(known.entry(lineage).or_insert_with(made).clone())
    }

    /// The history is no more.
    pub fn forget(&self, lineage: Lineage) {
        self.known.lock().remove(&lineage);
    }

    /// The highest epoch that was joined about a history whose VE may not be here.
    pub fn voted(&self, lineage: Lineage) -> Epoch {
        let lessor = self.of(lineage, false).inspect_err(|why| tracing::error!(why, "reading promises"));
        lessor.ok().and_then(|l| l.lock().promised().vote).map_or(Epoch(0), |(epoch, _)| epoch)
    }

    pub fn now(&self) -> Duration {
        self.clock.boot()
    }

    pub fn disk(&self, lineage: Lineage) -> Disk<'_> {
        Disk { store: &self.store, lineage }
    }
}

/// Where the promises about a history are kept.
pub(super) struct Disk<'a> {
    store: &'a Store,
    lineage: Lineage,
}

impl Promises for Disk<'_> {
    fn save(&mut self, promised: &Promised) -> Result<(), String> {
        self.store.put_note(self.lineage, Kind::Promises, &codec::encode(promised)).map_err(|e| {
            tracing::error!(error = %e, "noting a promise");
            e.to_string()
        })
    }
}

/// What a led VE's promises rest on, as its policy has it, and as whoever asks for them has found.
#[derive(Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    /// The required replicas, and the transaction from which on they are.
    lessors: (BTreeSet<NodeId>, TxnNo),
    /// Nodes that a person says are off, for as long as the policy names them.
    excused: BTreeSet<NodeId>,
    /// The right to write rests on these already.
    applied: bool,
    /// Enough nodes know who the required replicas are.
    settled: bool,
    /// Who is to be required again.
    returning: BTreeSet<NodeId>,
}

impl Lease {
    /// These nodes are to be required again when they are back.
    pub fn set_returning(&self, nodes: BTreeSet<NodeId>) {
        self.state.lock().returning = nodes;
    }

    /// The required replicas are these from a transaction on.
    pub fn set(&self, lessors: BTreeSet<NodeId>, from: TxnNo) {
        let mut state = self.state.lock();
        state.excused.retain(|n| lessors.contains(n));
        if state.lessors.0 != lessors {
            (state.lessors, state.settled, state.applied) = ((lessors, from), false, false);
        } else if state.lessors.1 == TxnNo(COUNTER_MAX) {
            state.lessors.1 = from;
        }
    }

    /// They are about to be these. What they promise has to count before any of them can know of it.
    pub fn announce(&self, lessors: BTreeSet<NodeId>) {
        self.set(lessors, TxnNo(COUNTER_MAX));
    }

    /// Whether the right to write rests on those that were set last.
    pub fn is_applied(&self) -> bool {
        self.state.lock().applied
    }

    /// A person says that a node is off.
    pub fn excuse(&self, node: NodeId) {
        let mut state = self.state.lock();
        state.excused.insert(node);
        (state.settled, state.applied) = (false, false);
    }

    /// Those of whom a person says that they are off.
    pub fn excused(&self) -> BTreeSet<NodeId> {
        self.state.lock().excused.clone()
    }

    /// Whether the required replicas may change once more.
    pub fn is_settled(&self) -> bool {
        self.state.lock().settled
    }
}
