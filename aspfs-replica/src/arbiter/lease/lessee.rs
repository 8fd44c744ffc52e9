//! The primary's side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vefs::ids::{Epoch, TxnNo};
use vefs::limits::COUNTER_MAX;

use super::Terms;
use crate::node::NodeId;

/// What a primary's right to write rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: a person's word keeps others from writing.
    Nothing,
    /// Promises of required replicas.
    Replicas,
    /// The arbiter's lease; while it cannot be had, promises of required replicas, of which there is at least one.
    Arbiter,
}

/// Who gives a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// The arbiter.
    Arbiter,
    /// A replica.
    Replica(NodeId),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for a lease of [`Terms::ttl`], and give the answer with this number to [`Lessee::granted`].
    Ask(Whom, u64),
    /// Tell this lessor that the VE may lag, or does not any more (promise G16); answer with [`Lessee::told`].
    Tell(Whom, Option<u64>),
    /// From now on nothing completes: freeze the VE and take its network away (promise G20).
    Lapsed,
    /// It may write again.
    Renewed,
    /// Enough lessors have recorded that the VE may lag: the window's question of this number.
    Permitted(u64),
    /// There is a higher epoch. It never writes again.
    Superseded(Epoch),
}

#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    until: Option<Duration>,
    /// When the present lease was asked for.
    since: Option<Duration>,
    /// The question under way: its number, and when it was sent.
    asked: Option<(u64, Duration)>,
    /// What it was told about lagging in this epoch.
    told: Option<Option<u64>>,
    /// What it acknowledged.
    acked: TxnNo,
}

/// The replicas that may join a candidate, from a transaction on.
#[derive(Clone, Debug)]
struct Config {
    lessors: BTreeSet<NodeId>,
    from: TxnNo,
    /// Whether others may have another set still, one node more or less: see [`Lessee::unsettled`].
    alone: bool,
}

impl Config {
    /// How many promises keep every candidate from a majority; where others have another set, how many keep it from a majority of that one, too.
    fn need(&self) -> usize {
        let n = self.lessors.len();
        if self.alone && n > 0 { n / 2 + 1 } else { n - n / 2 }
    }
}

/// The machine, for one VE in one epoch.
#[derive(Clone, Debug)]
pub struct Lessee {
    epoch: Epoch,
    me: NodeId,
    terms: Terms,
    needs: Needs,
    arbiter: Lease,
    leases: BTreeMap<NodeId, Lease>,
    configs: Vec<Config>,
    numbers: u64,
    superseded: bool,
    wrote: bool,
    /// What is to be recorded about lagging; `None` while what a former epoch recorded is to stay.
    lagging: Option<Option<u64>>,
    permitted: bool,
    now: Duration,
}

impl Lessee {
    /// A primary in this epoch. `required`: the required replicas as its history has them where the epoch begins, itself included if it was one.
    pub fn new(
        (epoch, me): (Epoch, NodeId),
        needs: Needs,
        terms: Terms,
        required: BTreeSet<NodeId>,
        now: Duration,
    ) -> Lessee {
        let mut lessee = Lessee {
            epoch,
            me,
            terms,
            needs,
            arbiter: Lease::default(),
            leases: BTreeMap::new(),
            configs: vec![],
            numbers: 0,
            superseded: false,
            wrote: false,
            lagging: None,
            permitted: false,
            now,
        };
        lessee.set_required(required, TxnNo(0));
        lessee
    }

    /// The required replicas are those that its history has up to here, but it is not known whether enough of them have heard so: this node has just
    /// been promoted, or it stopped while a change of them was new. Until a majority has acknowledged this position, a majority has to promise: two
    /// sets that differ by one node have no majorities without a common node, while the fewer promises that are enough otherwise may all
    /// come from nodes that the other set does not have.
    pub fn unsettled(&mut self, head: TxnNo) {
        let Some(config) = self.configs.pop() else { return };
        self.configs = vec![Config { alone: true, ..config.clone() }, Config { from: head, ..config }];
        self.settle();
    }

    /// Whether enough nodes know who the required replicas are. Before, they are not to be changed once more.
    pub fn is_settled(&self) -> bool {
        self.configs.len() == 1
    }

    /// A person says that a node is off, and will not be promoted as it is: nothing is asked of it.
    pub fn excuse(&mut self, node: NodeId) {
        self.configs.iter_mut().for_each(|c| _ = c.lessors.remove(&node));
        self.settle();
    }

    /// The epoch in which it writes.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// From transaction `from` on other replicas are required; the highest number there is, where it is not known yet. Those before count as well,
    /// until enough of them know: a candidate that does not know asks them.
    pub fn set_required(&mut self, required: BTreeSet<NodeId>, from: TxnNo) {
        let given_up = |c: &mut Config| c.from == TxnNo(COUNTER_MAX) && c.lessors != required;
        if self.configs.len() > 1 {
            // Announced, and not journalled.
            self.configs.pop_if(given_up);
        }
        match self.configs.last_mut() {
            // Announced before it had a transaction.
            Some(last) if last.lessors == required && last.from == TxnNo(COUNTER_MAX) => last.from = from,
            Some(last) if last.lessors == required => {}
            _ => self.configs.push(Config { lessors: required, from, alone: false }),
        }
        self.settle();
    }

    /// A replica has everything up to here durably, and no more: one that lost its disk says less than before.
    pub fn acked(&mut self, node: NodeId, txn: TxnNo) {
        if let Some(lease) = self.leases.get_mut(&node) {
            lease.acked = txn;
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let [old, next, ..] = &self.configs[..] {
            let knows = |n: &NodeId| self.leases.get(n).filter(|l| l.acked >= next.from).map(|_| Duration::MAX);
            if self.quorum(old, knows).is_none() {
                break;
            }
            self.configs.remove(0);
        }
        let all: BTreeSet<NodeId> = self.configs.iter().flat_map(|c| &c.lessors).copied().collect();
        self.leases.retain(|n, _| all.contains(n));
        for node in all.into_iter().filter(|n| *n != self.me) {
            self.leases.entry(node).or_default();
        }
    }

    /// The time that so many lessors reach that no majority is without one of them. This node is one of them, if it is a lessor.
    fn quorum(&self, config: &Config, of: impl Fn(&NodeId) -> Option<Duration>) -> Option<Duration> {
        let need = config.need() - usize::from(config.lessors.contains(&self.me));
        let mut times: Vec<Duration> = config.lessors.iter().filter(|l| **l != self.me).filter_map(of).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        if need == 0 { Some(Duration::MAX) } else { times.get(need - 1).copied() }
    }

    /// Until when it may write; `None` where it may not.
    pub fn until(&self) -> Option<Duration> {
        let lease = |n: &NodeId| self.leases.get(n).and_then(|l| l.until);
        let replicas = || self.configs.iter().try_fold(Duration::MAX, |t, c| Some(t.min(self.quorum(c, lease)?)));
        match self.needs {
            _ if self.superseded => None,
            Needs::Nothing => Some(Duration::MAX),
            Needs::Replicas => replicas(),
            Needs::Arbiter if self.leases.is_empty() => self.arbiter.until,
            Needs::Arbiter => replicas().max(self.arbiter.until),
        }
    }

    /// Whether an operation may complete now (promise G19).
    pub fn may_write(&self, now: Duration) -> bool {
        self.until().is_some_and(|until| now.max(self.now) < until)
    }

    /// Time passed: to be called a few times in a lease, and at [`Lessee::until`].
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.now = self.now.max(now);
        let mut out = self.turned();
        if self.superseded {
            return out;
        }
        let (now, third, lagging) = (self.now, self.terms.ttl / 3, self.lagging);
        // The replicas stand in where much of the arbiter's lease is over without a new one.
        let late = self.arbiter.until.is_none_or(|until| until < now + third);
        let numbers = &mut self.numbers;
        let mut ask = |whom: Whom, lease: &mut Lease| {
            let due = lease.since.is_none_or(|s| now >= s + third);
            if due && lease.asked.is_none_or(|(_, at)| now >= at + third / 2) {
                *numbers += 1;
                lease.asked = Some((*numbers, now));
                out.push(Action::Ask(whom, *numbers));
            }
        };
        if self.needs == Needs::Arbiter {
            ask(Whom::Arbiter, &mut self.arbiter);
        }
        if self.needs == Needs::Replicas || (self.needs == Needs::Arbiter && late) {
            self.leases.iter_mut().for_each(|(node, lease)| ask(Whom::Replica(*node), lease));
        }
        match (self.needs, lagging) {
            (Needs::Arbiter, Some(number)) if self.arbiter.told != lagging => {
                out.push(Action::Tell(Whom::Arbiter, number));
            }
            (Needs::Replicas, Some(number)) => {
                let untold = self.leases.iter().filter(|(_, l)| l.told != lagging);
                out.extend(untold.map(|(node, _)| Action::Tell(Whom::Replica(*node), number)));
            }
            _ => {}
        }
        out.extend(self.permit());
        out
    }

    fn turned(&mut self) -> Vec<Action> {
        let may = self.may_write(self.now);
        match std::mem::replace(&mut self.wrote, may) {
            true if !may && !self.superseded => vec![Action::Lapsed],
            false if may => vec![Action::Renewed],
            _ => vec![],
        }
    }

    /// A lessor granted what it was asked for with this number. Only the last question to it counts.
    pub fn granted(&mut self, whom: Whom, number: u64, now: Duration) -> Vec<Action> {
        self.now = self.now.max(now);
        let (ttl, margin) = (self.terms.ttl, self.terms.margin());
        if let Some(lease) = self.lease(whom)
            && let Some((_, sent)) = lease.asked.take_if(|(n, _)| *n == number)
        {
            // From the sending: how long the answer was under way does not matter (promise G19).
            lease.since = Some(sent);
            lease.until = Some(sent + ttl - margin);
        }
        self.turned()
    }

    fn lease(&mut self, whom: Whom) -> Option<&mut Lease> {
        match whom {
            Whom::Arbiter => Some(&mut self.arbiter),
            Whom::Replica(node) => self.leases.get_mut(&node),
        }
    }

    /// Somebody has seen this epoch.
    pub fn refused(&mut self, epoch: Epoch) -> Vec<Action> {
        if epoch <= self.epoch || std::mem::replace(&mut self.superseded, true) {
            return vec![];
        }
        self.wrote = false;
        vec![Action::Superseded(epoch)]
    }

    /// The window asks for the permit to lag; or, without a number, every required replica has everything. Only then: before, a record of a former
    /// epoch stays, since what was written then may still be missing.
    pub fn set_lagging(&mut self, number: Option<u64>) {
        (self.lagging, self.permitted) = (Some(number), false);
    }

    /// A lessor has recorded what it was told about lagging.
    pub fn told(&mut self, whom: Whom, number: Option<u64>) -> Vec<Action> {
        if let Some(lease) = self.lease(whom) {
            lease.told = Some(number);
        }
        self.permit()
    }

    /// Permitted once no promotion can happen that does not hear of it.
    fn permit(&mut self) -> Vec<Action> {
        let Some(wanted) = self.lagging.flatten().filter(|_| !self.permitted) else { return vec![] };
        let told = |n: &NodeId| self.leases.get(n).filter(|l| l.told == Some(Some(wanted))).map(|_| Duration::MAX);
        let enough = match self.needs {
            // Nobody is promoted without a person's word.
            Needs::Nothing => true,
            Needs::Replicas => self.configs.iter().all(|c| self.quorum(c, told).is_some()),
            Needs::Arbiter => self.arbiter.told == Some(Some(wanted)),
        };
        if !enough {
            return vec![];
        }
        self.permitted = true;
        vec![Action::Permitted(wanted)]
    }
}
