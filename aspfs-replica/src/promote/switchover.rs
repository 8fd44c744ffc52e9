//! Handing a VE to one of its replicas while its primary lives: without loss, and with one writer at any moment.
//!
//! 1. The writers are slowed until little is left to send, then stopped: everything accepted is sealed and durable here.
//! 2. The replica acknowledges this very position.
//! 3. **The old primary is a replica, durably**, and names its successor. The successor's epoch follows from both ([`next_epoch`]); it is not
//!    noted as seen before it is written in, since another node may be promoted in a lower one if the successor never comes.
//!    The old primary will not write again unless it is promoted; nobody but the successor may take its stepping down as grounds.
//! 4. Arbiter and lessors hear of it, and the successor is asked to take over until it has.
//!
//! Crash points: before 3 the old primary starts as such. After 3 nobody writes until the successor does: either side goes on with 4 ([`Switchover::resume`],
//! or a promotion on the grounds of [`SteppedDown`](super::Grounds::SteppedDown)). If the successor is lost for good, a person says so and promotes another.

use std::collections::BTreeSet;
use std::time::Duration;

use vefs::ids::{Epoch, Lineage, Position, VeId};

use super::next_epoch;
use crate::arbiter;
use crate::member::{No, Part, Question, Reply, Standing};
use crate::node::NodeId;

/// How long the writers are slowed at most.
const SLOW: Duration = Duration::from_secs(20);
/// How long they are stopped at most before it is given up.
const DRAIN: Duration = Duration::from_secs(10);
/// With at most so many bytes left to send they are stopped.
const LITTLE: u64 = 1 << 20;
/// After so long something is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What came of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchoverEvent {
    /// It begins, or time passed; so many bytes are not acknowledged by the successor.
    Tick(u64),
    /// Nothing is accepted any more, and everything accepted is durable, up to here.
    Frozen(Position),
    /// A replica has this durably.
    Acked(NodeId, Position),
    /// The role is durable.
    RoleWritten,
    /// A member replied; `None`: it cannot be reached.
    Replied(NodeId, Option<Reply>),
    /// The arbiter answered; `None`: it could not be asked.
    Arbiter(Option<arbiter::Reply>),
    /// The store failed, or a higher epoch was met.
    Failed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchoverAction {
    /// Slow the writers, or no more.
    Throttle(bool),
    /// Accept nothing any more, and make everything durable.
    Freeze,
    /// Accept again: nothing has happened.
    Thaw,
    /// Make the role of a replica durable, with this epoch, the present one, as the highest seen, and this successor. A higher epoch that is
    /// noted later clears the successor, and ends this.
    WriteRole(Epoch, NodeId),
    /// Ask a member.
    Ask(NodeId, Question),
    /// Ask the arbiter.
    Arbiter(arbiter::Request),
    /// It is over.
    Over(Handed),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The successor writes.
    Done(Epoch),
    /// Nothing has changed: the successor does not answer or is not what it should be, or it took too long.
    GivenUp,
    /// The successor says that it cannot: this node has stepped down, and a person has to say who goes on.
    Stuck(No),
    /// The store failed: what the role is shows the next start.
    Store,
}

/// Who hands what to whom.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The VE.
    pub ve: VeId,
    /// Its history.
    pub lineage: Lineage,
    /// The old primary: this node.
    pub me: NodeId,
    /// The successor.
    pub to: NodeId,
    /// The epoch in which this node writes, or wrote.
    pub epoch: Epoch,
    /// Whether there is an arbiter outside.
    pub outside: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Look,
    Slow,
    Freeze,
    Drain,
    Role,
    Hand,
    Over,
}

/// The machine, at the old primary.
#[derive(Clone, Debug)]
pub struct Switchover {
    who: Who,
    next: Epoch,
    /// Lessors that are to hear that the lease is over.
    tell: BTreeSet<NodeId>,
    phase: Phase,
    since: Option<Duration>,
    asked: Option<Duration>,
    at: Position,
    acked: Option<Position>,
    recorded: bool,
}

impl Switchover {
    /// `lessors`: the replicas that gave leases.
    pub fn new(who: Who, lessors: impl IntoIterator<Item = NodeId>) -> Switchover {
        Switchover {
            who,
            next: next_epoch(who.epoch, who.to),
            tell: lessors.into_iter().collect(),
            phase: Phase::Look,
            since: None,
            asked: None,
            at: Position::default(),
            acked: None,
            recorded: !who.outside,
        }
    }

    /// Goes on behind a durable role that names the successor; `at`: the head, which nothing has changed since.
    pub fn resume(who: Who, at: Position, lessors: impl IntoIterator<Item = NodeId>) -> Switchover {
        Switchover { phase: Phase::Hand, at, ..Switchover::new(who, lessors) }
    }

    /// To whom the VE is handed.
    pub fn successor(&self) -> NodeId {
        self.who.to
    }

    /// Whether this node may have stepped down.
    pub fn is_beyond_return(&self) -> bool {
        matches!(self.phase, Phase::Hand | Phase::Role)
    }

    /// What came of something; what is to be done.
    pub fn step(&mut self, event: SwitchoverEvent, now: Duration) -> Vec<SwitchoverAction> {
        use SwitchoverEvent::*;
        match (event, self.phase) {
            (_, Phase::Over) => return vec![],
            (Failed, Phase::Role | Phase::Hand) => return self.over(Handed::Store),
            (Failed, _) => return self.give_up(),
            (Replied(node, reply), Phase::Look) if node == self.who.to => return self.looked(reply, now),
            (Replied(node, reply), Phase::Hand) => return self.handed(node, reply),
            (Frozen(at), Phase::Freeze) => {
                self.at = at;
                self.enter(Phase::Drain, now);
            }
            (Acked(node, position), _) if node == self.who.to => self.acked = Some(position),
            (RoleWritten, Phase::Role) => self.enter(Phase::Hand, now),
            (Arbiter(Some(reply)), Phase::Hand) if !self.recorded => return self.arbiter(reply),
            _ => {}
        }
        let left = if let Tick(left) = event { Some(left) } else { None };
        self.go_on(left, now)
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        (self.phase, self.since, self.asked) = (phase, Some(now), None);
    }

    fn over(&mut self, how: Handed) -> Vec<SwitchoverAction> {
        self.phase = Phase::Over;
        vec![SwitchoverAction::Over(how)]
    }

    fn give_up(&mut self) -> Vec<SwitchoverAction> {
        let mut out = match self.phase {
            Phase::Slow => vec![SwitchoverAction::Throttle(false)],
            Phase::Freeze | Phase::Drain => vec![SwitchoverAction::Throttle(false), SwitchoverAction::Thaw],
            _ => vec![],
        };
        out.extend(self.over(Handed::GivenUp));
        out
    }

    fn looked(&mut self, reply: Option<Reply>, now: Duration) -> Vec<SwitchoverAction> {
        let Some(Reply::Standing(s)) = reply else { return self.give_up() };
        if s.part != Part::Replica || s.epoch > self.who.epoch || s.position.lineage != self.who.lineage {
            return self.give_up();
        }
        self.enter(Phase::Slow, now);
        vec![SwitchoverAction::Throttle(true)]
    }

    fn arbiter(&mut self, reply: arbiter::Reply) -> Vec<SwitchoverAction> {
        let (arbiter::Reply::Record(r, _) | arbiter::Reply::Refused(_, r)) = reply;
        if r.owner == self.who.to && r.epoch >= self.next {
            (self.recorded, self.asked) = (true, None);
            return vec![];
        }
        // Somebody else has the VE by now.
        if r.epoch > self.who.epoch { self.over(Handed::Stuck(No::Epoch(r.epoch))) } else { vec![] }
    }

    fn go_on(&mut self, left: Option<u64>, now: Duration) -> Vec<SwitchoverAction> {
        let since = *self.since.get_or_insert(now);
        match self.phase {
            Phase::Look | Phase::Freeze | Phase::Drain if now >= since + DRAIN => self.give_up(),
            Phase::Look => self.ask(now, vec![(self.who.to, Question::Standing { lineage: self.who.lineage })]),
            Phase::Slow if left.is_some_and(|l| l <= LITTLE) || now >= since + SLOW => {
                self.enter(Phase::Freeze, now);
                vec![SwitchoverAction::Freeze]
            }
            Phase::Drain if self.acked == Some(self.at) => {
                self.enter(Phase::Role, now);
                vec![SwitchoverAction::WriteRole(self.who.epoch, self.who.to)]
            }
            Phase::Hand => self.hand(now),
            _ => vec![],
        }
    }

    fn ask(&mut self, now: Duration, questions: Vec<(NodeId, Question)>) -> Vec<SwitchoverAction> {
        if self.asked.is_some_and(|at| now < at + AGAIN) {
            return vec![];
        }
        self.asked = Some(now);
        questions.into_iter().map(|(node, q)| SwitchoverAction::Ask(node, q)).collect()
    }

    /// Tells everybody who has to know. The arbiter's record is first: the successor's lease rests on it.
    fn hand(&mut self, now: Duration) -> Vec<SwitchoverAction> {
        let mut questions: Vec<_> = self.tell.iter().map(|n| (*n, Question::Over(self.who.epoch))).collect();
        if self.recorded {
            questions.push((self.who.to, Question::Take(self.next, self.at)));
        }
        let due = self.asked.is_none_or(|at| now >= at + AGAIN);
        let mut out = self.ask(now, questions);
        if due && !self.recorded {
            let Who { ve, me: node, to, epoch: expected, .. } = self.who;
            out.push(SwitchoverAction::Arbiter(arbiter::Request::HandOver {
                ve,
                node,
                expected,
                to,
                epoch: self.next,
            }));
        }
        out
    }

    fn handed(&mut self, node: NodeId, reply: Option<Reply>) -> Vec<SwitchoverAction> {
        match reply {
            // A lessor's answer; where it is the successor too, the next one is about the VE.
            Some(Reply::Done) if self.tell.remove(&node) => vec![],
            Some(Reply::Done) if node == self.who.to => self.over(Handed::Done(self.next)),
            Some(Reply::No(why @ (No::Epoch(_) | No::Position | No::Stranger | No::Part))) if node == self.who.to => {
                self.over(Handed::Stuck(why))
            }
            _ => vec![],
        }
    }
}

/// What a replica does when it is asked to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Verify the objects, make the role of a primary durable with this epoch and the own head as the fork, reply `Done`, write.
    Begin(Epoch),
    /// It happened before: reply `Done`.
    Already,
    /// This node may have been away, and another may have been promoted in its place: a [`Promotion`](super::Promotion) on the grounds of
    /// [`SteppedDown`](super::Grounds::SteppedDown) finds out; reply `No(NotYet)`.
    Ask,
    /// Reply this.
    No(No),
}

/// What to do when another member asks this one to take over at `at`, which is to be its head. `present`: in this run it acknowledged the
/// member's history, and no leases are used: a node that nobody could have called off meanwhile needs to ask nobody.
pub fn take(own: &Standing, epoch: Epoch, at: &Position, present: bool) -> Take {
    match own.part {
        _ if at.lineage != own.position.lineage => Take::No(No::Stranger),
        Part::Primary if own.epoch.term() == epoch.term() && own.epoch >= epoch => Take::Already,
        _ if own.epoch >= epoch => Take::No(No::Epoch(own.epoch)),
        Part::Replica if own.position == *at && present => Take::Begin(epoch),
        Part::Replica if own.position == *at => Take::Ask,
        Part::Replica => Take::No(No::Position),
        Part::Primary | Part::Superseded => Take::No(No::Part),
    }
}
