//! The window of one VE at its primary: how exposed it is, and what follows for writers and people (promises G14 to G17).
//!
//! What comes in: changes as they are accepted, acknowledgements of durable positions, the time since boot. What goes out: a
//! verdict for each changing operation, at its start ([`Window::admit`]) and before it is answered ([`Window::complete`]), and events. Nothing
//! here reads a clock, and a clock that goes back is taken as standing still.
//!
//! Invariants:
//!
//! - `complete` says `Go` in the state `Protected` only with an exposure of at most W.
//! - `Lagging` ends only when every required replica has everything that had been accepted when the exposure came back within the window. (A VE that
//!   is written all the time has something under way at every moment.) Where the policy forbids lagging meanwhile, the VE is `Stalled` until then.
//! - Under a recorded policy `Lagging` begins only after the arbiter's permit of this very breach arrived; until then the VE is `Stalled`.
//! - What is not known counts as over the window.

mod account;
mod pending;
mod policy;
mod throttle;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use vefs::ids::TxnNo;

use crate::node::NodeId;
pub use pending::{Oldest, Pending};
pub use policy::{AtWindow, Counters, Event, Exposure, Policy, ReplicaStatus, State, Verdict};
pub use throttle::Throttle;

/// Most entries that a VE's queue of unacknowledged changes has.
const PENDING_MAX: usize = 4096;

#[derive(Clone, Debug, Default)]
struct Replica {
    required: bool,
    acked: Option<TxnNo>,
    diverged: bool,
    latched: bool,
    /// What it must have for the latch to open: the newest change when it was within the window again.
    opens: Option<TxnNo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permit {
    None,
    Asked,
    Granted,
}

/// The window of one VE.
#[derive(Clone, Debug)]
pub struct Window {
    policy: Policy,
    now: Duration,
    pending: Pending,
    replicas: BTreeMap<NodeId, Replica>,
    throttle: Throttle,
    state: State,
    latched: bool,
    /// As for a replica.
    opens: Option<TxnNo>,
    fenced: bool,
    permit: Permit,
    asked: u64,
    breach_since: Option<Duration>,
    stalled_since: Option<Duration>,
    counters: Counters,
    events: Vec<Event>,
}

impl Window {
    /// A VE whose changes up to `settled` have no known times: a replica that lacks one of them has an unknown exposure.
    pub fn new(policy: Policy, settled: TxnNo, now: Duration) -> Window {
        let policy = policy.bounded();
        Window {
            policy,
            now,
            pending: Pending::new(settled, PENDING_MAX),
            replicas: BTreeMap::new(),
            throttle: Throttle::new(policy.window),
            state: State::Unprotected,
            latched: false,
            opens: None,
            fenced: false,
            permit: Permit::None,
            asked: 0,
            breach_since: None,
            stalled_since: None,
            counters: Counters::default(),
            events: Vec::new(),
        }
    }

    /// Another policy from now on.
    pub fn set_policy(&mut self, policy: Policy, now: Duration) {
        let policy = policy.bounded();
        if policy.window != self.policy.window {
            self.throttle = Throttle::new(policy.window);
        }
        self.policy = policy;
        self.evaluate(now);
    }

    /// A replica is there, or is required from now on or no longer. `acked`: what it is known to have acknowledged before, by its
    /// durable cursor.
    pub fn set_replica(&mut self, node: NodeId, required: bool, acked: Option<TxnNo>, now: Duration) {
        let replica = self.replicas.entry(node).or_default();
        replica.required = required;
        replica.acked = replica.acked.max(acked);
        self.evaluate(now);
    }

    /// The replica is no longer one.
    pub fn remove_replica(&mut self, node: NodeId, now: Duration) {
        self.replicas.remove(&node);
        self.evaluate(now);
    }

    /// Whether this node may write (promise G19).
    pub fn set_fenced(&mut self, fenced: bool, now: Duration) {
        self.fenced = fenced;
        self.evaluate(now);
    }

    /// The replica has another history; what it acknowledged means nothing any more.
    pub fn diverged(&mut self, node: NodeId, now: Duration) {
        if let Some(r) = self.replicas.get_mut(&node) {
            (r.diverged, r.acked) = (true, None);
        }
        self.evaluate(now);
    }

    /// The replica has nothing that counts, until it says otherwise: its copy is gone, or is being replaced.
    pub fn has_nothing(&mut self, node: NodeId, now: Duration) {
        if let Some(r) = self.replicas.get_mut(&node) {
            r.acked = None;
        }
        self.evaluate(now);
    }

    /// A change of `bytes` was accepted in transaction `txn`. `since` is when a program may first have thought of it as made: now, or
    /// for pages that waited in the kernel the flush before (promise G6).
    pub fn accepted(&mut self, txn: TxnNo, since: Duration, bytes: u64, now: Duration) {
        self.pending.add(txn, since.min(now.max(self.now)), bytes);
        self.settle();
        self.evaluate(now);
    }

    /// The replica has everything up to `txn` durably. The caller has compared the whole position.
    pub fn acked(&mut self, node: NodeId, txn: TxnNo, now: Duration) {
        let before = self.replicas.get(&node).and_then(|r| r.acked);
        self.has(node, before.map_or(txn, |old| old.max(txn)), now);
    }

    /// The replica greets, and has everything up to `txn` durably and no more: where it acknowledged more, its store was set back.
    pub fn welcomed(&mut self, node: NodeId, txn: TxnNo, now: Duration) {
        self.has(node, txn, now);
    }

    fn has(&mut self, node: NodeId, txn: TxnNo, now: Duration) {
        let before = self.covered();
        if let Some(r) = self.replicas.get_mut(&node) {
            (r.acked, r.diverged) = (Some(txn), false);
        }
        if let (Some(before), Some(after)) = (before, self.covered()) {
            let bytes = self.pending.between(before, after);
            self.throttle.acknowledged(now.max(self.now), bytes);
        }
        self.settle();
        self.evaluate(now);
    }

    /// The arbiter recorded that this VE may lag, for the question of this number. An older number means nothing.
    pub fn permitted(&mut self, number: u64, now: Duration) {
        if number == self.asked && self.permit == Permit::Asked {
            self.permit = Permit::Granted;
        }
        self.evaluate(now);
    }

    /// Time passed. To be called at least once a second, and at [`Window::deadline`].
    pub fn tick(&mut self, now: Duration) {
        self.evaluate(now);
    }

    /// Asked before a changing operation of `bytes` begins.
    pub fn admit(&mut self, bytes: u64, now: Duration) -> Verdict {
        self.evaluate(now);
        match (self.verdict(), self.exposure()) {
            (Verdict::Go, Exposure::Known(age)) if self.throttles() => {
                let behind = self.covered().map_or(0, |txn| self.pending.behind(txn).0);
                let delay = self.throttle.delay(self.now, age, behind, bytes);
                self.counters.throttled += delay;
                if delay.is_zero() { Verdict::Go } else { Verdict::Delay(delay) }
            }
            (verdict, _) => verdict,
        }
    }

    fn throttles(&self) -> bool {
        self.state == State::Protected && self.policy.at_window != AtWindow::Alarm
    }

    /// Asked before a changing operation is answered: `Go`, `Wait` or `Fenced`.
    pub fn complete(&mut self, now: Duration) -> Verdict {
        self.evaluate(now);
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        match self.state {
            State::Fenced => Verdict::Fenced,
            State::Stalled => Verdict::Wait,
            _ => Verdict::Go,
        }
    }

    /// The state as of the last input.
    pub fn state(&self) -> State {
        self.state
    }

    /// The exposure as of the last input; unknown where no replica is required.
    pub fn exposure(&self) -> Exposure {
        let required = self.replicas.values().filter(|r| r.required);
        required.map(|r| self.exposure_of(r)).reduce(Exposure::worst).unwrap_or(Exposure::Unknown)
    }

    /// When the next change of state comes if nothing else does.
    pub fn deadline(&self) -> Option<Duration> {
        match (self.state, self.exposure()) {
            (State::Protected, Exposure::Known(age)) if !self.all_covered() => {
                Some(self.now + self.policy.window.saturating_sub(age) + Duration::from_nanos(1))
            }
            _ => None,
        }
    }

    /// How each replica stands.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        let status = |(node, r): (&NodeId, &Replica)| ReplicaStatus {
            node: *node,
            required: r.required,
            state: self.state_of(r),
            exposure: self.exposure_of(r),
            behind: r
                .acked
                .filter(|a| self.pending.oldest_after(*a) != Oldest::Unknown)
                .map(|a| self.pending.behind(a)),
            acked: r.acked,
        };
        self.replicas.iter().map(status).collect()
    }

    /// What others are to be told since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn exposure_of(&self, r: &Replica) -> Exposure {
        match r.acked.map_or(Oldest::Unknown, |a| self.pending.oldest_after(a)) {
            Oldest::Unknown => Exposure::Unknown,
            Oldest::Nothing => Exposure::Known(Duration::ZERO),
            Oldest::Since(t) => Exposure::Known(self.now.saturating_sub(t)),
        }
    }

    fn has_everything(&self, r: &Replica) -> bool {
        r.acked.is_some_and(|a| self.pending.oldest_after(a) == Oldest::Nothing)
    }

    fn state_of(&self, r: &Replica) -> State {
        match () {
            () if self.fenced => State::Fenced,
            () if r.diverged => State::Diverged,
            () if self.state == State::Stalled && self.exposure_of(r).is_over(self.policy.window) => State::Stalled,
            () if r.latched => State::Lagging,
            () => State::Protected,
        }
    }

    /// Up to where every required replica has everything; `None` where one has not said, or none is required.
    fn covered(&self) -> Option<TxnNo> {
        let mut required = self.replicas.values().filter(|r| r.required).map(|r| r.acked);
        let first = required.next()?;
        required.fold(first, |a, b| Some(a?.min(b?)))
    }

    /// Forgets what nobody waits for. A replica that never spoke lets everything be kept, merged.
    fn settle(&mut self) {
        let all = self.replicas.values().map(|r| r.acked.unwrap_or_default());
        if let Some(least) = all.min() {
            self.pending.settle(least);
        } else {
            self.pending.settle(self.pending.newest());
        }
    }

    fn evaluate(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let exposure = self.exposure();
        let over = exposure.is_over(self.policy.window);
        let window = self.policy.window;
        let newest = self.pending.newest();
        let nodes: Vec<(NodeId, bool, bool)> = self
            .replicas
            .iter()
            .map(|(n, r)| (*n, self.exposure_of(r).is_over(window), self.has_everything(r)))
            .collect();
        for (node, over, everything) in nodes {
            let r = self.replicas.entry(node).or_default();
            r.opens = if over || !r.latched { None } else { r.opens.or(Some(newest)) };
            let open = r.opens.is_some_and(|txn| r.acked.is_some_and(|a| a >= txn));
            r.latched = !everything && !open && (r.latched || over);
        }
        self.opens = if over || !self.latched { None } else { self.opens.or(Some(newest)) };
        self.upkeep_permit(over);
        self.latched &= self.requires_some() && !self.all_covered() && !self.is_open();
        let next = self.next_state(over);
        self.latched |= next == State::Lagging;
        self.account(next, exposure);
        if next != self.state {
            self.events.push(Event::Changed { from: self.state, to: next, at: self.now });
            self.state = next;
        }
    }

    /// Whether every required replica has what ends lagging.
    fn is_open(&self) -> bool {
        self.opens.is_some_and(|txn| self.covered().is_some_and(|a| a >= txn))
    }

    fn requires_some(&self) -> bool {
        self.replicas.values().any(|r| r.required)
    }

    fn all_covered(&self) -> bool {
        self.replicas.values().filter(|r| r.required).all(|r| self.has_everything(r))
    }

    /// Asks for the arbiter's record when lagging must begin, and returns it when lagging is over.
    fn upkeep_permit(&mut self, over: bool) {
        let lags = self.policy.at_window != AtWindow::Stall && self.requires_some() && !self.fenced;
        let begins = lags && (over || self.policy.at_window == AtWindow::Alarm);
        let goes_on = lags && (begins || !(self.all_covered() || self.is_open()));
        if self.policy.recorded && begins && self.permit == Permit::None {
            self.asked += 1;
            self.permit = Permit::Asked;
            self.events.push(Event::AskPermit(self.asked));
        } else if self.permit != Permit::None && !(self.policy.recorded && goes_on) {
            self.permit = Permit::None;
            self.events.push(Event::ReturnPermit(self.asked));
        }
    }

    fn next_state(&self, over: bool) -> State {
        let may_lag =
            self.policy.at_window != AtWindow::Stall && (!self.policy.recorded || self.permit == Permit::Granted);
        match () {
            () if self.fenced => State::Fenced,
            () if !self.requires_some() => State::Unprotected,
            () if may_lag && (over || self.latched) => State::Lagging,
            () if over || self.latched => State::Stalled,
            () => State::Protected,
        }
    }
}
