//! A replica that is to become the primary.
//!
//! 1. All members are asked how they stand; whoever does not answer in time is not reachable.
//! 2. If another one has a later head, that one is to be promoted ([`Refused::Later`]); if the VE lags, or a primary answers, only a person may
//!    insist.
//! 3. The grounds: a person's word is recorded; the arbiter gives the epoch; a majority of the required replicas joins.
//!    Joining freezes their heads: if one of them is later than it seemed, see 2.
//! 4. The objects of the state are there.
//! 5. The role with the new epoch and the fork is durable. Only then may anything be written, and the others are told.
//!
//! Crash points: before 5 nothing has happened but that epochs were used up, and the next try takes a higher one. After 5 this node is the
//! primary, and starts as one.

mod joining;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vefs::ids::{Epoch, Lineage, Position, VeId};

use super::{Grounds, is_later, next_epoch};
use crate::arbiter;
use crate::member::{Part, Question, Reply, Standing};
use crate::node::NodeId;

/// How long members are waited for.
const GATHER: Duration = Duration::from_secs(3);
/// After so long without a reply a member is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long grounds are waited for: longer than the longest lease.
const GROUNDS: Duration = Duration::from_secs(180);
/// How often a higher epoch is tried.
const TRIES_MAX: u32 = 8;

/// What came of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It begins, or time passed: to be given a few times a second.
    Tick,
    /// A member replied; `None`: it cannot be reached.
    Replied(NodeId, Option<Reply>),
    /// This node's own lessor joined (with the present durable head), or did not.
    JoinedHere(Reply),
    /// The arbiter answered; `None`: it could not be asked.
    Arbiter(Option<arbiter::Reply>),
    /// The statement is durable.
    Recorded,
    /// Whether every object of the state is there.
    Verified(bool),
    /// The role is durable.
    RoleWritten,
    /// The store failed.
    Failed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a member, and give its reply back.
    Ask(NodeId, Question),
    /// Ask this node's own lessor to join, note the epoch durably, and give the outcome back with [`Event::JoinedHere`].
    JoinHere(Epoch),
    /// Ask the arbiter.
    Arbiter(arbiter::Request),
    /// Record the statement about this node, durably, and end promises that were given to it.
    Record(NodeId),
    /// See whether every object of the state is there.
    Verify,
    /// Make the role of a primary durable, with this epoch and fork.
    WriteRole(Epoch, Position),
    /// Begin to write.
    Open(Chosen),
    /// It is over, and nothing has changed here.
    Refuse(Refused),
}

/// A promotion that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The epoch.
    pub epoch: Epoch,
    /// The last position before it.
    pub fork: Position,
    /// Transactions that are known to have been durable elsewhere in the former epoch and are not in this history; `None` where nothing is
    /// known of any.
    pub lost: Option<u64>,
}

/// Why it does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This node has a later head: promote it there.
    Later(NodeId, Position),
    /// This node writes the VE.
    Written(NodeId, Epoch),
    /// The VE lags: a person may insist, and this many transactions are known to be lost then.
    Lags(Option<u64>),
    /// The former primary has not stepped down for this node.
    NotForUs,
    /// No majority of the required replicas can be reached, or is willing.
    NoMajority,
    /// The arbiter does not give the epoch.
    Arbiter(arbiter::Refused),
    /// The arbiter cannot be asked.
    NoArbiter,
    /// An object of the state is not there.
    ObjectMissing,
    /// Higher epochs came up again and again.
    Epochs,
    /// The store failed.
    Store,
}

/// Who wants to be promoted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The VE.
    pub ve: VeId,
    /// This node.
    pub me: NodeId,
    /// How it stands.
    pub mine: Standing,
    /// All nodes that may have something of the VE.
    pub members: BTreeSet<NodeId>,
    /// The required replicas, as this node's history has them, this node included if it is one.
    pub lessors: BTreeSet<NodeId>,
    /// The last position of the former primary that was heard of.
    pub known: Option<Position>,
    /// Whether primaries of this VE write by leases of the required replicas.
    pub leases: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gather,
    Record,
    Arbiter,
    Join,
    Verify,
    Role,
    Over,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    asked: Option<Duration>,
    standing: Option<Standing>,
    gone: bool,
    joined: bool,
    not_before: Duration,
}

/// The machine. It takes one promotion through, or ends it.
#[derive(Clone, Debug)]
pub struct Promotion {
    ve: VeId,
    me: NodeId,
    lineage: Lineage,
    mine: Standing,
    grounds: Grounds,
    forced: bool,
    known: Option<Position>,
    leases: bool,
    lessors: BTreeSet<NodeId>,
    members: BTreeMap<NodeId, Member>,
    phase: Phase,
    began: Option<Duration>,
    epoch: Epoch,
    record: Option<arbiter::Record>,
    tries: u32,
}

impl Promotion {
    /// On these grounds. `forced`: a person insists.
    pub fn new(candidate: Candidate, grounds: Grounds, forced: bool) -> Promotion {
        let Candidate { ve, me, mine, members, lessors, known, leases } = candidate;
        let others = members.union(&lessors).filter(|n| **n != me);
        Promotion {
            ve,
            me,
            lineage: mine.position.lineage,
            mine,
            grounds,
            forced,
            known,
            leases,
            members: others.map(|n| (*n, Member::default())).collect(),
            lessors,
            phase: Phase::Gather,
            began: None,
            epoch: Epoch(0),
            record: None,
            tries: 0,
        }
    }

    /// The epoch that others are asked to join now. Who wants a lower one is told of it; and whoever joins another's higher one gives its own up.
    pub fn epoch(&self) -> Option<Epoch> {
        (self.phase == Phase::Join).then_some(self.epoch)
    }

    /// What came of something; what is to be done.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let began = *self.began.get_or_insert(now);
        match (event, self.phase) {
            (_, Phase::Over) => return vec![],
            (Event::Failed, _) => return self.refuse(Refused::Store),
            (Event::Replied(node, reply), phase) => {
                if let Some(done) = self.replied(node, reply, phase, now) {
                    return done;
                }
            }
            (Event::JoinedHere(reply), Phase::Join) => {
                if let Some(done) = self.joined(self.me, reply, now) {
                    return done;
                }
            }
            (Event::Arbiter(reply), Phase::Arbiter) => return self.arbiter(reply, now),
            (Event::Recorded, Phase::Record) => return self.verify(),
            (Event::Verified(true), Phase::Verify) => {
                self.phase = Phase::Role;
                return vec![Action::WriteRole(self.epoch, self.mine.position)];
            }
            (Event::Verified(false), Phase::Verify) => return self.refuse(Refused::ObjectMissing),
            (Event::RoleWritten, Phase::Role) => return self.open(),
            _ => {}
        }
        match self.phase {
            Phase::Gather => self.gather(began, now),
            Phase::Join => self.join(began, now),
            _ => vec![],
        }
    }

    fn refuse(&mut self, why: Refused) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Refuse(why)]
    }

    fn replied(&mut self, node: NodeId, reply: Option<Reply>, phase: Phase, now: Duration) -> Option<Vec<Action>> {
        match reply {
            Some(Reply::Standing(s)) if s.position.lineage == self.lineage => {
                let member = self.members.get_mut(&node)?;
                (member.standing, member.gone) = (Some(s), false);
                None
            }
            Some(reply @ (Reply::Joined(..) | Reply::No(_))) if phase == Phase::Join => self.joined(node, reply, now),
            _ => {
                self.members.get_mut(&node)?.gone = true;
                None
            }
        }
    }

    /// Asks everybody, and decides when all have replied or it takes too long.
    fn gather(&mut self, began: Duration, now: Duration) -> Vec<Action> {
        let waits = |m: &Member| m.standing.is_none() && !m.gone;
        if !self.members.values().any(waits) || now >= began + GATHER {
            return self.decide(now);
        }
        let lineage = self.lineage;
        let ask = |(node, m): (&NodeId, &mut Member)| {
            let due = waits(m) && m.asked.is_none_or(|at| now >= at + AGAIN);
            due.then(|| {
                m.asked = Some(now);
                Action::Ask(*node, Question::Standing { lineage })
            })
        };
        self.members.iter_mut().filter_map(ask).collect()
    }

    /// Whether this node has everything that another one has.
    fn is_covered(&self, node: NodeId) -> bool {
        let theirs = self.members.get(&node).and_then(|m| m.standing);
        node == self.me || theirs.is_some_and(|s| !is_later(&s.position, &self.mine.position))
    }

    /// Whether the VE lags, and the node that has everything has more than this one, or is not heard. A person's word is enough to go on.
    fn lags(&self) -> bool {
        let by_itself = !self.forced && matches!(self.grounds, Grounds::Leases | Grounds::Arbiter);
        let named = self.members.values().filter_map(|m| m.standing?.lagging).chain(self.mine.lagging);
        by_itself && named.into_iter().any(|n| !self.is_covered(n))
    }

    fn lost(&self) -> Option<u64> {
        let heads = self.members.values().filter_map(|m| m.standing).map(|s| s.position).chain(self.known);
        let here = self.mine.position;
        let beyond = heads.filter(|p| p.lineage == here.lineage && p.epoch <= here.epoch).map(|p| p.txn.0).max();
        beyond.map(|txn| txn.saturating_sub(here.txn.0))
    }

    fn decide(&mut self, now: Duration) -> Vec<Action> {
        let standings = || self.members.iter().filter_map(|(n, m)| Some((*n, m.standing?)));
        let writes = standings().find(|(_, s)| s.part == Part::Primary);
        let later = standings().filter(|(_, s)| is_later(&s.position, &self.mine.position));
        let later = later.max_by_key(|(_, s)| (s.position.epoch, s.position.txn));
        // Whoever is named as a successor may have begun already.
        let reach = |s: Standing| s.successor.map_or(s.epoch, |to| next_epoch(s.epoch, to));
        let highest = standings().map(|(_, s)| reach(s)).fold(reach(self.mine), Epoch::max);
        let ours = |s: &Standing| s.successor == Some(self.me) && s.position == self.mine.position;
        let handed = standings().map(|(_, s)| s).find(|s| ours(s) && s.part != Part::Primary);
        if let (Some((node, s)), false) = (writes, self.forced) {
            return self.refuse(Refused::Written(node, s.epoch));
        }
        if let (Some((node, s)), false) = (later, self.forced) {
            return self.refuse(Refused::Later(node, s.position));
        }
        if self.lags() {
            return self.refuse(Refused::Lags(self.lost()));
        }
        let above = if let Grounds::Statement { above, .. } = self.grounds { above } else { Epoch(0) };
        self.epoch = next_epoch(highest.max(above), self.me);
        self.members.values_mut().for_each(|m| m.asked = None);
        match (self.grounds, handed) {
            (Grounds::Statement { old, .. }, _) => {
                self.phase = Phase::Record;
                vec![Action::Record(old)]
            }
            // It may be too late for that, and another one's promise may be given: the lessors know.
            (Grounds::SteppedDown, Some(_)) if self.leases && !self.lessors.is_empty() => {
                self.epoch = handed.map_or(self.epoch, reach).max(highest);
                self.phase = Phase::Join;
                self.ask_to_join(now)
            }
            (Grounds::SteppedDown, Some(s)) if highest <= reach(s) => {
                // Should somebody have been promoted in this node's place, a required replica knows.
                let silent = |n: &&NodeId| **n != self.me && self.members[n].standing.is_none();
                if self.lessors.iter().any(|n| silent(&n)) {
                    return self.refuse(Refused::NoMajority);
                }
                self.epoch = reach(s);
                self.verify()
            }
            (Grounds::SteppedDown, _) => self.refuse(Refused::NotForUs),
            (Grounds::Leases, _) if self.lessors.is_empty() => self.refuse(Refused::NoMajority),
            (Grounds::Leases, _) => {
                self.phase = Phase::Join;
                self.ask_to_join(now)
            }
            (Grounds::Arbiter, _) => self.propose(),
        }
    }

    fn propose(&mut self) -> Vec<Action> {
        self.phase = Phase::Arbiter;
        let (ve, node) = (self.ve, self.me);
        let Some(record) = self.record else { return vec![Action::Arbiter(arbiter::Request::Read { ve })] };
        let (expected, known) = (record.epoch, record.lagging.is_some_and(|n| self.is_covered(n)));
        let forced = self.forced || known;
        if self.epoch <= expected {
            self.epoch = next_epoch(expected, node);
        }
        vec![Action::Arbiter(arbiter::Request::Propose { ve, node, expected, epoch: self.epoch, forced })]
    }

    fn arbiter(&mut self, reply: Option<arbiter::Reply>, now: Duration) -> Vec<Action> {
        match reply {
            None => self.refuse(Refused::NoArbiter),
            Some(arbiter::Reply::Record(r, _)) if r.owner == self.me && r.epoch == self.epoch => {
                self.record = Some(r);
                if self.lessors.is_empty() {
                    return self.verify();
                }
                self.phase = Phase::Join;
                self.ask_to_join(now)
            }
            Some(arbiter::Reply::Refused(why @ (arbiter::Refused::LeaseRuns | arbiter::Refused::Lags), _)) => {
                self.refuse(Refused::Arbiter(why))
            }
            Some(arbiter::Reply::Record(r, _) | arbiter::Reply::Refused(_, r)) => {
                self.record = Some(r);
                self.tries += 1;
                if self.tries > TRIES_MAX { self.refuse(Refused::Epochs) } else { self.propose() }
            }
        }
    }

    fn verify(&mut self) -> Vec<Action> {
        self.phase = Phase::Verify;
        vec![Action::Verify]
    }

    fn open(&mut self) -> Vec<Action> {
        self.phase = Phase::Over;
        let (epoch, fork) = (self.epoch, self.mine.position);
        let tell = self.members.keys().filter(|n| **n != self.me);
        let mut out: Vec<Action> = tell.map(|n| Action::Ask(*n, Question::Promoted(epoch, fork))).collect();
        out.insert(0, Action::Open(Chosen { epoch, fork, lost: self.lost() }));
        out
    }
}
