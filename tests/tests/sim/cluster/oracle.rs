//! What is known of everything, and what must not be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use aspfs_replica::window::State;
use vefs::ids::{Epoch, Hash, Position, TxnNo};

use super::store::Store;

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Broken(pub &'static str, pub String);

/// An operation that a program was told is done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub epoch: Epoch,
    pub txn: u64,
    /// On the primary's clock.
    pub accepted: Duration,
    pub completed: Duration,
    pub state: State,
}

/// All that is known of a VE.
#[derive(Debug, Default)]
pub struct Known {
    /// Of each transaction the one before it.
    parents: HashMap<Position, Position>,
    chains: BTreeMap<(Epoch, u64), Hash>,
    roots: HashMap<Position, Hash>,
    durable: HashSet<Position>,
    acked: HashSet<(usize, Position)>,
    /// The highest epoch that a node was ever durably told of.
    highest: BTreeMap<usize, Epoch>,
    /// The highest epoch in which anybody may write, and who.
    opened: (Epoch, usize),
    done: Vec<Done>,
    lags: bool,
    pub completed: u64,
    pub lagged: u64,
    pub promotions: u64,
    pub switchovers: u64,
    pub rewinds: u64,
    pub branches: u64,
    pub lost: u64,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub trace: bool,
    pub broken: Vec<Broken>,
    pub ves: Vec<Known>,
}

impl Oracle {
    pub fn must(&mut self, holds: bool, promise: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(Broken(promise, text()));
        }
    }

    /// A primary sealed a transaction.
    pub fn sealed(&mut self, ve: usize, node: usize, store: &Store) {
        let (n, head) = (store.history.txns.len(), store.head());
        let before = store.position(n - 1);
        let known = &mut self.ves[ve];
        let other = known.chains.insert((head.epoch, head.txn.0), head.chain).filter(|c| *c != head.chain);
        known.parents.insert(head, before);
        known.roots.insert(head, store.state.root());
        self.must(other.is_none(), "G13", || format!("two transactions at {head:?}"));
        let role = store.role;
        if head.epoch.term() != before.epoch.term() {
            self.must(role.kind == vefs::format::role::RoleKind::Primary, "G21", || {
                format!("node {node} writes, its role says {role:?}")
            });
            let right = role.fork == before && role.epoch >= head.epoch;
            self.must(right, "G21", || format!("node {node} goes on behind {before:?}, its role says {role:?}"));
        }
    }

    /// A primary has this durably.
    pub fn durable(&mut self, ve: usize, store: &Store, from: usize, to: usize) {
        for n in from + 1..=to {
            self.ves[ve].durable.insert(store.position(n));
        }
    }

    /// A replica took a transaction, shipped in `epoch`.
    pub fn received(&mut self, ve: usize, node: usize, store: &Store, epoch: Epoch, root: bool) {
        let (n, head) = (store.history.txns.len(), store.head());
        let (known, before) = (&self.ves[ve], store.position(n - 1));
        let (is_durable, parent) = (known.durable.contains(&head), known.parents.get(&head).copied());
        let (expected, highest) = (known.roots.get(&head).copied(), known.highest.get(&node).copied());
        self.must(is_durable, "G12", || format!("node {node} has {head:?}, which was never durable at its primary"));
        self.must(parent.is_some_and(|p| p == before || p.txn.0 == 0), "G9", || {
            format!("node {node}: {head:?} does not follow {before:?}")
        });
        self.must(highest.is_none_or(|h| h <= epoch), "G10", || {
            format!("node {node} took {head:?} from epoch {epoch:?} after {highest:?}")
        });
        if root {
            let found = store.state.root();
            self.must(expected == Some(found), "G13", || format!("node {node}: another state at {head:?}"));
        }
    }

    /// Whatever a node has now is the state after some transaction that its primary had (after a power cut, an installation).
    pub fn is_a_version(&mut self, ve: usize, node: usize, store: &Store) {
        let head = store.head();
        let expected = self.ves[ve].roots.get(&head).copied();
        let found = (head.txn.0 > 0).then(|| store.state.root());
        self.must(expected == found, "G9", || format!("node {node}: its state is none after {head:?}"));
    }

    pub fn noted(&mut self, ve: usize, node: usize, epoch: Epoch) {
        let highest = self.ves[ve].highest.entry(node).or_default();
        *highest = (*highest).max(epoch);
    }

    /// A replica says that it has this.
    pub fn ack_sent(&mut self, ve: usize, node: usize, store: &Store, position: Position) {
        let has = (0..=store.durable).rev().any(|n| store.position(n) == position);
        self.must(has, "G11", || {
            format!("node {node} acknowledges {position:?}, durable is {:?}", store.durable_head())
        });
        self.ves[ve].acked.insert((node, position));
    }

    /// A primary takes it that a replica has this.
    pub fn ack_taken(&mut self, ve: usize, node: usize, position: Position) {
        let said = position.txn.0 == 0 || self.ves[ve].acked.contains(&(node, position));
        self.must(said, "G11", || format!("node {node} never acknowledged {position:?}"));
    }

    /// A node begins to write in an epoch, and nobody may in a lower one any more. `surely`: not only if it gets a lease.
    pub fn opened(&mut self, ve: usize, node: usize, epoch: Epoch, surely: bool) {
        let (before, owner) = self.ves[ve].opened;
        if epoch <= before && !surely {
            return;
        }
        self.must(epoch > before, "G18", || format!("node {node} opens {epoch:?}, node {owner} had {before:?}"));
        self.ves[ve].opened = (epoch.max(before), node);
    }

    /// A program was told that its operation is done.
    pub fn completed(&mut self, ve: usize, node: usize, done: Done) {
        let (epoch, owner) = self.ves[ve].opened;
        self.must((done.epoch, node) == (epoch, owner), "G18", || {
            format!("node {node} completes in {:?}, node {owner} has {epoch:?}", done.epoch)
        });
        self.state(ve, done.state);
        let known = &mut self.ves[ve];
        known.completed += 1;
        known.lagged += u64::from(done.state == State::Lagging);
        known.done.push(done);
        if known.done.len() > 4000 {
            known.done.drain(..2000);
        }
    }

    /// A node was promoted: what its history lacks is not older than the window allows. `strict`: it was a required replica.
    /// How many operations it lacks, and how many of them a power cut of the former primary had not taken before.
    pub fn promoted(&mut self, ve: usize, node: usize, store: &Store, window: Duration, strict: bool) -> (u64, u64) {
        let known = &self.ves[ve];
        let Some(epoch) = known.done.last().map(|d| d.epoch) else { return (0, 0) };
        let ours: Vec<&Done> = known.done.iter().filter(|d| d.epoch == epoch).collect();
        let protected = ours.iter().filter(|d| d.state == State::Protected).map(|d| d.completed).max();
        let has = |d: &Done| {
            let n = d.txn.checked_sub(store.history.base.txn.0);
            let here = n.map(|n| n as usize).filter(|n| *n <= store.durable);
            match here {
                Some(0) | None => d.txn <= store.history.base.txn.0,
                Some(n) => store.position(n).epoch == d.epoch,
            }
        };
        let missing: Vec<&&Done> = ours.iter().filter(|d| !has(d)).collect();
        let was_durable = |d: &Done| {
            let chain = known.chains.get(&(d.epoch, d.txn));
            chain.is_some_and(|c| {
                known.durable.contains(&Position { epoch: d.epoch, txn: TxnNo(d.txn), chain: *c, ..store.head() })
            })
        };
        let durable = missing.iter().filter(|d| was_durable(d)).count() as u64;
        let (count, oldest) = (missing.len() as u64, missing.iter().map(|d| d.accepted).min());
        // What is lost now is not lost once more by the next promotion.
        let here: Vec<bool> = known.done.iter().map(|d| d.epoch != epoch || has(d)).collect();
        if let (Some(last), Some(oldest), true) = (protected, oldest, strict) {
            let age = last.saturating_sub(oldest);
            self.must(age <= window, "G14", || {
                format!("node {node} lacks what was accepted {age:?} before the last completion")
            });
        }
        let known = &mut self.ves[ve];
        let mut here = here.into_iter();
        known.done.retain(|_| here.next() == Some(true));
        known.lost += count;
        known.promotions += 1;
        (count, durable)
    }

    /// Whether the VE lags, as its primary had it last.
    pub fn lags(&self, ve: usize) -> bool {
        self.ves[ve].lags
    }

    /// A window's state changed, or an operation completed in it.
    pub fn state(&mut self, ve: usize, state: State) {
        let lags = &mut self.ves[ve].lags;
        *lags = state == State::Lagging || (*lags && state == State::Stalled);
    }

    /// Whether `a` is a part of the history of `b`.
    pub fn is_part(&self, ve: usize, a: &Position, b: &Position) -> bool {
        let mut at = *b;
        while at.txn > a.txn {
            match self.ves[ve].parents.get(&at) {
                Some(before) => at = *before,
                None => return false,
            }
        }
        at == *a || a.txn.0 == 0
    }
}
