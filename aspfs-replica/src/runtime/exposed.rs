//! A VE that is written here and followed elsewhere: its window, fed by the core and by acknowledgements, asked by whoever answers programs.
//!
//! The core calls [`Watcher::accepted`] and [`Watcher::bulk`] with the VE's lock held: the window's lock is taken under it, and nothing under
//! the window's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use vefs::Ve;
use vefs::change::{self, ReplicaOf};
use vefs::clock::Clock;
use vefs::ids::{PayloadId, TxnNo, VeId};
use vefs::ve::{Verdict, Watcher};

use super::right::Right;
use super::tail::{Share, Tail};
use crate::node::NodeId;
use crate::window::{self, AtWindow, Counters, Event, Exposure, ReplicaStatus, State, Window};

/// The VE's window as its policy has it. Where an arbiter may have another node promoted, it hears of lagging first.
fn policy_of(policy: &change::Policy, governed: bool) -> window::Policy {
    window::Policy {
        window: Duration::from_millis(policy.window_ms.into()),
        at_window: match policy.at_window {
            change::AtWindow::Degrade => AtWindow::Degrade,
            change::AtWindow::Stall => AtWindow::Stall,
            change::AtWindow::Alarm => AtWindow::Alarm,
        },
        recorded: governed,
    }
}

/// How a VE stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Its exposure.
    pub exposure: Exposure,
    /// Each replica.
    pub replicas: Vec<ReplicaStatus>,
    /// What was counted since this node writes it.
    pub counters: Counters,
    /// How much is left of the arbiter's lease, where there is an arbiter.
    pub lease: Option<Duration>,
}

/// The window of one VE, and the tails of its replicas' streams.
pub struct Exposed {
    id: VeId,
    ve: Weak<Ve>,
    clock: Arc<dyn Clock>,
    window: Mutex<Window>,
    tails: Mutex<BTreeMap<NodeId, Arc<Tail>>>,
    /// Writers wait: the VE is being handed over.
    holding: AtomicBool,
    /// It is being asked whether another node was promoted.
    doubting: AtomicBool,
    right: Right,
}

impl Exposed {
    /// Begins to watch a VE. Nothing is known of the times of what was written before. `governed`: an arbiter has to allow what is written.
    pub fn watch(ve: &Arc<Ve>, policy: &change::Policy, clock: Arc<dyn Clock>, governed: bool) -> Arc<Exposed> {
        let now = clock.boot();
        // What lies open is taken up by the next transaction's number, which is new.
        let settled = ve.position().txn;
        let exposed = Arc::new(Exposed {
            id: ve.id(),
            ve: Arc::downgrade(ve),
            window: Mutex::new(Window::new(policy_of(policy, governed), settled, now)),
            clock,
            tails: Mutex::default(),
            holding: AtomicBool::new(false),
            doubting: AtomicBool::new(false),
            right: Right::new(governed),
        });
        ve.set_watcher(Some(exposed.clone()));
        exposed
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.boot()
    }

    /// The right to write.
    pub(super) fn right(&self) -> &Right {
        &self.right
    }

    /// Whether this node may write at this moment, as far as an arbiter is concerned.
    pub fn may_write(&self) -> bool {
        self.right.holds(self.now())
    }

    /// What the window wants recorded about lagging, where that is not what was `said` last. A former epoch's record stays until all that was
    /// required to be elsewhere is.
    pub(super) fn to_record(&self, said: &mut Option<Option<u64>>) -> Option<Option<u64>> {
        let wanted = self.right.wanted();
        let known = wanted.is_some() || self.standing().state == State::Protected;
        let news = known && *said != Some(wanted);
        news.then(|| *said.insert(wanted))
    }

    /// The arbiter has recorded that the VE may lag.
    pub(super) fn permitted(&self, number: u64) {
        self.with(|window, now| window.permitted(number, now));
    }

    /// Does something with the window, then tells people and waiting writers what came of it.
    fn with<T>(&self, f: impl FnOnce(&mut Window, Duration) -> T) -> T {
        let now = self.now();
        let (out, events) = {
            let mut window = self.window.lock();
            let out = f(&mut window, now);
            (out, window.take_events())
        };
        self.tell(&events);
        out
    }

    fn tell(&self, events: &[Event]) {
        let mut wake = false;
        for event in events {
            match event {
                Event::Changed { from, to, .. } => {
                    wake = true;
                    self.tell_change(*from, *to);
                }
                Event::AskPermit(number) => self.right.want(Some(*number)),
                Event::ReturnPermit(_) => self.right.want(None),
            }
        }
        if wake {
            self.wake_writers();
        }
    }

    fn tell_change(&self, from: State, to: State) {
        match to {
            State::Lagging | State::Stalled | State::Fenced => {
                tracing::error!(ve = %self.id, from = from.name(), to = to.name(), "ALARM: the window of a VE");
            }
            _ => tracing::info!(ve = %self.id, from = from.name(), to = to.name(), "the window of a VE"),
        }
    }

    fn wake_writers(&self) {
        if let Some(ve) = self.ve.upgrade() {
            ve.wake_writers();
        }
    }

    /// The policy is this from now on. Gives the tails of the replicas that are new.
    pub fn set_policy(&self, policy: &change::Policy, acked: &BTreeMap<NodeId, TxnNo>) -> Vec<(ReplicaOf, Arc<Tail>)> {
        let mut tails = self.tails.lock();
        let mut new = Vec::new();
        self.with(|window, now| {
            window.set_policy(policy_of(policy, self.right.is_governed()), now);
            for r in &policy.replicas {
                let node = NodeId(r.node);
                window.set_replica(node, r.is_required(), acked.get(&node).copied(), now);
                let tail = tails.entry(node).or_insert_with(|| {
                    let tail = Arc::<Tail>::default();
                    new.push((*r, tail.clone()));
                    tail
                });
                tail.set_share(Share { bandwidth: r.bandwidth, weight: policy.weight });
            }
            let gone: Vec<NodeId> =
                tails.keys().filter(|n| !policy.replicas.iter().any(|r| r.node == n.0)).copied().collect();
            for node in gone {
                window.remove_replica(node, now);
                if let Some(tail) = tails.remove(&node) {
                    tail.wake();
                }
            }
        });
        new
    }

    /// Whether a node still follows.
    pub fn follows(&self, node: NodeId) -> bool {
        self.tails.lock().contains_key(&node)
    }

    /// Whether it follows by this tail. One that was removed and is one again has another, and a stream of its own.
    pub(super) fn follows_by(&self, node: NodeId, tail: &Arc<Tail>) -> bool {
        self.tails.lock().get(&node).is_some_and(|present| Arc::ptr_eq(present, tail))
    }

    /// A replica holds everything up to here durably.
    pub fn acked(&self, node: NodeId, txn: TxnNo) {
        self.with(|window, now| window.acked(node, txn, now));
        self.wake_writers();
    }

    /// A replica that greets holds everything up to here durably, and no more.
    pub fn welcomed(&self, node: NodeId, txn: TxnNo) {
        self.with(|window, now| window.welcomed(node, txn, now));
        self.wake_writers();
    }

    /// A replica has another history.
    pub fn diverged(&self, node: NodeId) {
        self.with(|window, now| window.diverged(node, now));
    }

    /// A replica has nothing that counts, until it says otherwise.
    pub fn has_nothing(&self, node: NodeId) {
        self.with(|window, now| window.has_nothing(node, now));
    }

    /// This node may write no more, or may again.
    pub fn set_fenced(&self, fenced: bool) {
        self.with(|window, now| window.set_fenced(fenced, now));
    }

    /// Lets writers wait, or go on.
    pub fn hold(&self, holding: bool) {
        self.holding.store(holding, Ordering::Release);
        self.wake_writers();
    }

    /// Lets writers wait until it is known who writes, or go on.
    pub(super) fn doubt(&self, doubting: bool) {
        self.doubting.store(doubting, Ordering::Release);
        self.wake_writers();
    }

    /// Whether writers wait for what somebody is doing with the VE.
    fn is_held(&self) -> bool {
        self.holding.load(Ordering::Acquire) || self.doubting.load(Ordering::Acquire)
    }

    /// Time passed.
    pub fn tick(&self) {
        self.with(Window::tick);
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.with(|w, now| {
            w.tick(now);
            let state = match w.state() {
                State::Fenced => State::Fenced,
                // Writers wait, whatever the window says.
                _ if !self.right.holds(now) => State::Stalled,
                state => state,
            };
            let lease = self.right.left(now);
            Standing { state, exposure: w.exposure(), replicas: w.replicas(), counters: w.counters(), lease }
        })
    }
}

impl Watcher for Exposed {
    fn admit(&self, bytes: u64) -> Verdict {
        if self.is_held() || !self.may_write() {
            return Verdict::Wait;
        }
        match self.with(|w, now| w.admit(bytes, now)) {
            window::Verdict::Go => Verdict::Go,
            window::Verdict::Delay(by) => Verdict::Delay(by),
            window::Verdict::Wait => Verdict::Wait,
            window::Verdict::Fenced => Verdict::Fenced,
        }
    }

    fn complete(&self) -> Verdict {
        // What a daemon before this one carried out was admitted by none: it comes again, and is answered only if this node still writes. One who hands the VE
        // over waits for what was admitted to be answered, so that goes on.
        if self.doubting.load(Ordering::Acquire) || !self.may_write() {
            return Verdict::Wait;
        }
        match self.with(|w, now| w.complete(now)) {
            window::Verdict::Go | window::Verdict::Delay(_) => Verdict::Go,
            window::Verdict::Wait => Verdict::Wait,
            window::Verdict::Fenced => Verdict::Fenced,
        }
    }

    fn accepted(&self, txn: TxnNo, bytes: u64) {
        let now = self.now();
        // Events that this makes are told by whoever asks next: the VE's lock is held here.
        self.window.lock().accepted(txn, now, bytes, now);
    }

    fn accepted_late(&self, txn: TxnNo, bytes: u64, since: Duration) {
        self.window.lock().accepted(txn, since, bytes, self.now());
    }

    fn fetch_every(&self) -> Duration {
        self.window.lock().policy().window / 3
    }

    fn bulk(&self, id: PayloadId, len: u64) {
        self.tails.lock().values().for_each(|tail| tail.offer(id, len));
    }

    fn durable(&self) {
        for tail in self.tails.lock().values() {
            tail.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use vefs::change::{Need, Policy};

    use super::super::bed;
    use super::*;

    /// A replica that was removed and added again within half a second had two streams, since the old one found a replica of its name. Each of the two
    /// superseded the other's session, for ever.
    #[test]
    fn a_replica_that_is_one_again_has_one_stream() {
        let (store, clock) = bed::store();
        let ve = bed::writer(&store, 7);
        let replica = ReplicaOf { node: [2; 16], need: Need::Required, bandwidth: 0 };
        let node = NodeId(replica.node);
        let with = Policy { replicas: vec![replica], ..Policy::default() };
        let exposed = Exposed::watch(&ve, &with, clock, false);
        let begun =
            |policy: &Policy| exposed.set_policy(policy, &BTreeMap::new()).into_iter().map(|(_, tail)| tail).next();
        let first = begun(&with).unwrap();
        assert!(exposed.follows_by(node, &first) && begun(&with).is_none());
        assert!(begun(&Policy::default()).is_none() && !exposed.follows_by(node, &first));
        let second = begun(&with).unwrap();
        assert!(exposed.follows(node) && exposed.follows_by(node, &second));
        assert!(!exposed.follows_by(node, &first), "the stream that was there before ends");
    }

    /// While it is asked who writes, nothing is let in, and what a daemon before this one carried out is not answered either. Whoever hands the VE over waits for
    /// what was let in to be answered.
    #[test]
    fn whoever_doubts_answers_nothing() {
        let (store, clock) = bed::store();
        let ve = bed::writer(&store, 7);
        let exposed = Exposed::watch(&ve, &Policy::default(), clock, false);
        let verdicts = || (exposed.admit(1), exposed.complete());
        assert_eq!(verdicts(), (Verdict::Go, Verdict::Go));
        exposed.doubt(true);
        assert_eq!(verdicts(), (Verdict::Wait, Verdict::Wait));
        exposed.hold(true);
        exposed.doubt(false);
        assert_eq!(verdicts(), (Verdict::Wait, Verdict::Go));
        exposed.hold(false);
        assert_eq!(verdicts(), (Verdict::Go, Verdict::Go));
    }
}
