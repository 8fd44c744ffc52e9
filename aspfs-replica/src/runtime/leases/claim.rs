//! A replica that becomes the primary because a majority of the required replicas joins its epoch, or because a person says that the former primary is
//! off (promises G16, G18, G21). The [machine](crate::promote::Promotion) decides; this is its shell.
//!
//! A claim that ends half-way has used epochs up, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::block_in_place;
use vefs::Ve;
use vefs::format::note::Kind;
use vefs::ids::{Epoch, Position, VeId};
use vefs::limits::COUNTER_MAX;

use super::super::Inner;
use super::super::operate::{ASKED, OperateError, Promoted, cannot};
use super::super::peers::named;
use super::super::promotion::{Insists, PATIENCE, whole};
use super::super::talk::{Question as Talk, Reply as Said};
use super::hold::as_note;
use super::{Claimed, lessors_of};
use crate::arbiter::lease::Terms;
use crate::member::{No, Question, Reply};
use crate::node::NodeId;
use crate::promote::{Action, Candidate, Event, Grounds, Promotion, Refused};

/// How often a claim looks at the time.
const TICK: Duration = Duration::from_millis(50);

/// A claim under way. It ends with this.
struct Claiming<'a> {
    inner: &'a Inner,
    ve: VeId,
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.inner.claims.lock().remove(&self.ve);
    }
}

/// A member, the epoch that it was asked to join, and what it said.
type Replied = (NodeId, Option<Epoch>, Option<Reply>);

struct Claim {
    inner: Arc<Inner>,
    ve: Arc<Ve>,
    former: Option<NodeId>,
    machine: Promotion,
    events: VecDeque<Event>,
    replies: mpsc::UnboundedSender<Replied>,
    positions: BTreeMap<NodeId, Option<Position>>,
}

impl Inner {
    /// Makes this node the writer of a VE that it followed. `by_itself`: nobody asked for it, so it ends as soon as a primary is heard.
    pub(in crate::runtime) async fn claim(
        self: &Arc<Self>,
        ve: Arc<Ve>,
        terms: Terms,
        insists: Insists,
        by_itself: bool,
    ) -> Result<Promoted, OperateError> {
        let id = ve.id();
        let policy = ve.policy()?;
        let me = self.cluster.node();
        let former = Some(NodeId(policy.writer)).filter(|n| *n != NodeId::default() && *n != me);
        let stated = insists.old_primary_is_off;
        if self.claims.lock().insert(id, Claimed::default()).is_some() {
            return Err(cannot(format!("VE {id} is being promoted here already")));
        }
        let _ends = Claiming { inner: self, ve: id };
        let lessor = block_in_place(|| self.lessors.of(ve.identity().lineage, true)).map_err(cannot)?;
        let mine = self.standing_of(&ve, &lessor.lock()).ok_or_else(|| cannot("it is being promoted"))?;
        if stated {
            self.claims.lock().insert(id, Claimed { sure: true, ..Claimed::default() });
        }
        let grounds = match stated {
            true => Grounds::Statement { old: former.unwrap_or_default(), above: Epoch(0) },
            false => Grounds::Leases,
        };
        let members: BTreeSet<NodeId> = named(&policy).into_iter().chain([me]).collect();
        let candidate =
            Candidate { ve: id, me, mine, members, lessors: lessors_of(&policy), known: None, leases: true };
        let (replies, mut replied) = mpsc::unbounded_channel();
        let machine = Promotion::new(candidate, grounds, insists.force);
        let events = VecDeque::from([Event::Tick]);
        let positions = BTreeMap::new();
        let mut claim = Claim { inner: self.clone(), ve, former, machine, events, replies, positions };
        // The promises to the former primary end in the meantime.
        let until = tokio::time::Instant::now() + terms.ttl * 2 + PATIENCE * 2;
        let began = self.clock.boot();
        loop {
            while let Some(event) = claim.events.pop_front() {
                for action in claim.machine.step(event, self.clock.boot()) {
                    if let Some(over) = claim.act(action) {
                        return over;
                    }
                }
                if let Some(own) = self.claims.lock().get_mut(&id) {
                    own.epoch = claim.machine.epoch();
                }
            }
            if self.claims.lock().get(&id).is_some_and(|c| c.gave_way) {
                return Err(cannot(format!("VE {id}: another node asks for it as well, and is faster")));
            }
            if by_itself && self.is_heard_since(id, began) {
                return Err(cannot(format!("VE {id} has a primary")));
            }
            if tokio::time::Instant::now() >= until {
                return Err(claim.refused(Refused::NoMajority));
            }
            tokio::select! {
                Some(reply) = replied.recv() => claim.heard(reply),
                () = tokio::time::sleep(TICK) => claim.events.push_back(Event::Tick),
            }
        }
    }

    fn is_heard_since(&self, ve: VeId, began: Duration) -> bool {
        let following = self.followed.lock().get(&ve).cloned();
        following.and_then(|f| f.figures().heard).is_some_and(|heard| heard > began)
    }

    /// Notes what has to be remembered of a promotion before its role is: who has to promise changes by it.
    pub(in crate::runtime) fn note_promotion(&self, ve: &Ve) -> vefs::Result<()> {
        self.store.put_note(ve.identity().lineage, Kind::Unsettled, &as_note(&lessors_of(&ve.policy()?)))
    }
}

impl Claim {
    fn heard(&mut self, (node, asked, reply): Replied) {
        // What was said of another epoch than the one that is asked for now counts for nothing: who joined it may have joined another one's since.
        if asked.is_none() || asked == self.machine.epoch() {
            let position = match reply {
                Some(Reply::Standing(s)) => Some(s.position),
                Some(Reply::Joined(position, _)) => Some(position),
                _ => None,
            };
            let known = self.positions.entry(node).or_default();
            *known = position.or(*known);
            self.events.push_back(Event::Replied(node, reply));
        }
    }

    /// Does what the machine says; how it ended, if it did.
    fn act(&mut self, action: Action) -> Option<Result<Promoted, OperateError>> {
        match action {
            Action::Ask(node, question) => self.ask(node, question),
            Action::JoinHere(epoch) => {
                let reply = block_in_place(|| self.join_here(epoch));
                self.events.push_back(Event::JoinedHere(reply));
            }
            Action::Record(old) => {
                let done = block_in_place(|| self.over(old));
                self.events.push_back(if done { Event::Recorded } else { Event::Failed });
            }
            Action::Verify => {
                let there = block_in_place(|| whole(&self.ve));
                let there = there.inspect_err(|e| tracing::error!(error = %e, "before a promotion")).is_ok();
                self.events.push_back(Event::Verified(there));
            }
            Action::WriteRole(epoch, fork) => {
                // Something may have come since the head was looked at, and another epoch may have been heard of. The role is written in one go with
                // what follows from it.
                let as_it_was = self.ve.durable_position() == fork && self.ve.position() == fork;
                let right = as_it_was && epoch >= self.ve.epoch();
                self.events.push_back(if right { Event::RoleWritten } else { Event::Failed });
            }
            Action::Open(chosen) => {
                let begun = block_in_place(|| self.inner.begin_writing(&self.ve, chosen.epoch, self.former));
                let others = self.positions.iter().map(|(n, p)| (*n, *p)).collect();
                return Some(begun.map(|fork| Promoted { epoch: chosen.epoch, fork, others }));
            }
            // No arbiter is among the grounds.
            Action::Arbiter(_) => self.events.push_back(Event::Arbiter(None)),
            Action::Refuse(why) => return Some(Err(self.refused(why))),
        }
        None
    }

    fn ask(&self, node: NodeId, what: Question) {
        let (inner, replies) = (self.inner.clone(), self.replies.clone());
        let gone = Some(node) == self.former && matches!(what, Question::Standing { .. });
        let patience = if gone { ASKED } else { PATIENCE };
        let question = Talk::Right { ve: self.ve.id(), lineage: self.ve.identity().lineage, what };
        let asked = if let Question::Join(epoch) = what { Some(epoch) } else { None };
        // By its greeting it is heard of, too.
        if let Question::Promoted(..) = what {
            return;
        }
        tokio::spawn(async move {
            let reply = match inner.ask_for(patience, node, question).await {
                Ok(Said::Right(reply)) => Some(reply),
                Ok(Said::Stranger) => Some(Reply::No(No::Stranger)),
                _ => None,
            };
            let _ = replies.send((node, asked, reply));
        });
    }

    fn join_here(&self, epoch: Epoch) -> Reply {
        let (lineage, me) = (self.ve.identity().lineage, self.inner.cluster.node());
        match self.inner.lessors.of(lineage, true) {
            Ok(lessor) => self.inner.join((Some(&self.ve), lineage), &mut lessor.lock(), epoch, me),
            Err(_) => Reply::No(No::Failed),
        }
    }

    fn over(&self, old: NodeId) -> bool {
        let lineage = self.ve.identity().lineage;
        let lessor = self.inner.lessors.of(lineage, true);
        // Whatever it wrote in: it is off.
        let epoch = Epoch(COUNTER_MAX);
        lessor.is_ok_and(|l| l.lock().over(&mut self.inner.lessors.disk(lineage), old, epoch).is_ok())
    }

    fn refused(&self, why: Refused) -> OperateError {
        let id = self.ve.id();
        let text = match why {
            Refused::Later(node, p) => {
                let there = format!("transaction {} in epoch {}", p.txn, p.epoch.0);
                format!("node {node} has more of it: {there}, here {}; promote it there", self.ve.durable_position().txn)
            }
            Refused::Written(node, _) => {
                format!("it is written by node {node}: hand it over there with `aspfs switchover`, or stop it first")
            }
            Refused::Lags(_) => "it lags: this node lacks changes that are older than its window allows, or cannot know that it has them all. \
                Promote it where they are, or lose them with --force"
                .into(),
            Refused::NoMajority => "no majority of its required replicas joins. If the old primary is off, say so with --old-primary-is-off".into(),
            Refused::ObjectMissing => "objects that its files consist of are missing here".into(),
            Refused::Epochs => "others ask for its epoch as well".into(),
            Refused::Store => "something came in between, or the store failed; see the log, and try again".into(),
            Refused::NotForUs | Refused::Arbiter(_) | Refused::NoArbiter => "there are no grounds for it".into(),
        };
        match why {
            Refused::Store | Refused::Epochs | Refused::ObjectMissing => cannot(format!("VE {id}: {text}")),
            _ => OperateError::Unsafe(format!("VE {id}: {text}")),
        }
    }
}
