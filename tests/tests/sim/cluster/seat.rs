//! A VE at a node: what is on disk, what runs, and what it answers others. The shell around the machines, as a node has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aspfs_replica::arbiter::lease::{Grant, Join, Lessor, Needs, Promised, Promises, Terms};
use aspfs_replica::blob;
use aspfs_replica::catchup::{Answer, Serving};
use aspfs_replica::log::{At, Follower, Log};
use aspfs_replica::member::{No, Part, Question, Reply, Standing};
use aspfs_replica::node::NodeId;
use aspfs_replica::promote::{Take, take};
use aspfs_replica::window::Policy;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position, VeId};

use super::content::State;
use super::incoming::Serve;
use super::net::{Body, Net};
use super::oracle::Oracle;
use super::primary::Primary;
use super::replica::Replica;
use super::store::Store;
use crate::random::Random;

/// What a primary's right to write rests on, in a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Statement,
    Leases,
    Arbiter,
}

impl Mode {
    pub fn needs(self) -> Needs {
        match self {
            Mode::Statement => Needs::Nothing,
            Mode::Leases => Needs::Replicas,
            Mode::Arbiter => Needs::Arbiter,
        }
    }
}

/// What holds for a whole run.
#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    pub nodes: usize,
    pub terms: Terms,
    pub policy: Vec<Policy>,
    /// Of each VE the nodes that have it, and those that are required unless they write it.
    pub members: Vec<Vec<usize>>,
    pub flagged: Vec<u64>,
    /// How many bytes a program writes at once, at most, and how long it thinks.
    pub write: u64,
    pub think: u64,
}

/// What a question was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Boot,
    BootArbiter,
    Promotion,
    Join(Epoch),
    PromotionArbiter,
    Switchover,
    SwitchoverArbiter,
    Lease(u64),
    LeaseArbiter(u64),
    Tell(Option<u64>),
    TellArbiter(Option<u64>),
    Back,
    Pull(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub ve: usize,
    pub to: usize,
    pub purpose: Purpose,
    pub until: Duration,
    pub next: usize,
}

/// Everything that a seat may use of its surroundings.
pub struct Ctx<'a> {
    pub me: usize,
    pub ve: usize,
    /// This node's time since boot.
    pub clock: Duration,
    /// Number of this run of the node.
    pub run: u64,
    pub random: &'a mut Random,
    pub net: &'a mut Net,
    pub oracle: &'a mut Oracle,
    pub calls: &'a mut BTreeMap<u64, Call>,
    pub numbers: &'a mut u64,
    pub config: &'a Config,
    pub bug: super::store::Bug,
}

pub fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 16])
}

pub fn index(node: NodeId) -> usize {
    usize::from(node.0[0]) - 1
}

pub fn ve_id(ve: usize) -> VeId {
    VeId(ve as u32 + 7)
}

pub fn nodes_of(bits: u64) -> BTreeSet<NodeId> {
    (0..64).filter(|n| bits >> n & 1 == 1).map(id).collect()
}

impl Ctx<'_> {
    /// For whoever follows a run: `ASPFS_SIM_TRACE=1`.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.oracle.trace {
            println!("{:?} VE {} node {} {}", self.net.now, self.ve, self.me, text());
        }
    }

    pub fn id(&self) -> NodeId {
        id(self.me)
    }

    pub fn others(&self) -> Vec<usize> {
        self.config.members[self.ve].iter().copied().filter(|n| *n != self.me).collect()
    }

    pub fn send(&mut self, to: usize, body: Body) {
        self.net.send(self.random, self.me, to, body);
    }

    pub fn frame(&mut self, to: usize, bytes: Vec<u8>) {
        self.send(to, Body::Frame(self.ve, bytes));
    }

    /// A number above all before, of this node and of others.
    pub fn number(&mut self) -> u64 {
        *self.numbers += 1;
        *self.numbers
    }

    pub fn call(&mut self, to: usize, purpose: Purpose, blob: Vec<u8>) {
        let number = self.number();
        let until = self.clock + Duration::from_secs(3);
        self.calls.insert(number, Call { ve: self.ve, to, purpose, until, next: 0 });
        self.send(to, Body::Request(self.ve, number, blob));
    }

    pub fn ask(&mut self, to: NodeId, purpose: Purpose, question: Question) {
        self.call(index(to), purpose, question.encode(ve_id(self.ve)));
    }

    pub fn ask_arbiter(&mut self, purpose: Purpose, request: &aspfs_replica::arbiter::Request) {
        self.call(self.config.nodes, purpose, vefs::codec::encode(request));
    }
}

/// What a node does with a VE in this run.
#[derive(Debug)]
pub enum Run {
    Primary(Box<Primary>),
    Replica(Box<Replica>),
}

/// A VE at a node.
#[derive(Debug)]
pub struct Seat {
    pub store: Store,
    pub promised: Promised,
    pub holds: BTreeMap<NodeId, (Position, State)>,
    pub lessor: Lessor,
    pub run: Run,
}

struct Disk<'a>(&'a mut Promised, bool);

impl Promises for Disk<'_> {
    fn save(&mut self, promised: &Promised) -> Result<(), String> {
        if self.1 {
            return Err("no space".into());
        }
        *self.0 = *promised;
        Ok(())
    }
}

impl Seat {
    pub fn new(store: Store, ctx: &mut Ctx<'_>) -> Seat {
        let (promised, holds) = Default::default();
        let lessor = Lessor::new(promised, ctx.clock);
        let run = Run::Replica(Box::new(Replica::new(ctx)));
        Seat { store, promised, holds, lessor, run }
    }

    /// The node's processes start, with what is on disk.
    pub fn start(&mut self, ctx: &mut Ctx<'_>) {
        self.lessor = Lessor::new(self.promised, ctx.clock);
        self.run = match self.store.role.kind {
            RoleKind::Primary => Run::Primary(Box::new(Primary::starting(&mut self.store, ctx))),
            _ => Run::Replica(Box::new(Replica::starting(&self.store, ctx))),
        };
    }

    pub fn standing(&self) -> Standing {
        let role = &self.store.role;
        let (part, epoch) = match (&self.run, role.kind) {
            (Run::Primary(_), _) => (Part::Primary, role.epoch.max(self.store.writing)),
            (_, RoleKind::Superseded) => (Part::Superseded, role.epoch),
            _ => (Part::Replica, role.epoch),
        };
        let lagging = self.promised.lagging;
        Standing { part, position: self.store.durable_head(), epoch, successor: role.successor, lagging }
    }

    /// Joins a candidate's epoch: what is here is durable, and nothing of a lower one comes behind it.
    pub fn join(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch, node: NodeId) -> Reply {
        let highest = self.store.role.epoch;
        if let Some(own) = self.claims().filter(|own| node != ctx.id() && *own > epoch) {
            return Reply::No(No::Epoch(own));
        }
        let mut disk = Disk(&mut self.promised, self.store.full);
        match self.lessor.join(&mut disk, epoch, node, highest, ctx.clock) {
            Join::Refused(epoch) => Reply::No(No::Epoch(epoch)),
            Join::NotYet(wait) => Reply::No(No::NotYet(wait.as_millis() as u64 + 1)),
            Join::Failed => Reply::No(No::Failed),
            Join::Joined if self.note(ctx, epoch) => {
                self.store.flush();
                if let (Run::Replica(r), true) = (&mut self.run, node != ctx.id()) {
                    r.give_way();
                }
                Reply::Joined(self.store.durable_head(), self.promised.lagging)
            }
            Join::Joined => Reply::No(No::Failed),
        }
    }

    pub fn claims(&self) -> Option<Epoch> {
        if let Run::Replica(r) = &self.run { r.claims() } else { None }
    }

    pub fn note(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch) -> bool {
        let noted = self.store.note_epoch(epoch).is_ok();
        if noted {
            ctx.oracle.noted(ctx.ve, ctx.me, epoch);
        }
        noted
    }

    /// A node writes no more, up to this epoch.
    pub fn over(&mut self, node: NodeId, epoch: Epoch) -> bool {
        let mut disk = Disk(&mut self.promised, self.store.full);
        self.lessor.over(&mut disk, node, epoch).is_ok()
    }

    /// A question or a request for a state arrived.
    pub fn serve(&mut self, ctx: &mut Ctx<'_>, from: usize, number: u64, bytes: &[u8]) {
        if blob::kind_of(bytes) == Some(blob::Kind::Ask as u16) {
            return self.serve_state(ctx, from, number, bytes);
        }
        let Ok((_, question)) = Question::decode(bytes) else { return };
        let reply = self.reply(ctx, id(from), question);
        ctx.send(from, Body::Answer(number, 0, Some(reply.encode(ve_id(ctx.ve)))));
        ctx.send(from, Body::Answer(number, 1, None));
    }

    fn serve_state(&mut self, ctx: &mut Ctx<'_>, from: usize, number: u64, bytes: &[u8]) {
        let mut place = 0;
        let mut say = |ctx: &mut Ctx<'_>, answer: Option<Answer>| {
            ctx.send(from, Body::Answer(number, place, answer.map(|a| a.encode(place % 2 == 0))));
            place += 1;
        };
        match Serving::of(id(from), bytes) {
            Err(answer) => say(ctx, Some(answer)),
            Ok(mut serving) => {
                let before = self.store.durable;
                let mut source = Serve { ve: ve_id(ctx.ve), store: &mut self.store, holds: &mut self.holds };
                while let Some(answer) = serving.next(&mut source) {
                    say(ctx, Some(answer));
                }
                let after = self.store.durable;
                ctx.oracle.durable(ctx.ve, &self.store, before.min(after), after);
            }
        }
        say(ctx, None);
    }

    fn reply(&mut self, ctx: &mut Ctx<'_>, from: NodeId, question: Question) -> Reply {
        let is_primary = matches!(self.run, Run::Primary(_));
        let (highest, node) = (self.store.role.epoch, from);
        match question {
            // Whoever starts and asks whether it may write must not take this for a yes.
            Question::Standing { .. } if matches!(&self.run, Run::Replica(r) if r.is_sure()) => Reply::No(No::Failed),
            Question::Standing { lineage } if lineage == self.store.lineage() => Reply::Standing(self.standing()),
            Question::Standing { .. } => Reply::No(No::Stranger),
            Question::At(txn) if is_primary => {
                let at = self.store.position_at(txn);
                let position = if let At::Here(p) = at { Some(p) } else { None };
                Reply::At { position, beyond: at == At::Beyond, fork: self.store.role.fork }
            }
            Question::At(_) => Reply::No(No::Part),
            Question::Join(_) | Question::Lease(..) | Question::Lagging(..) if is_primary => {
                Reply::No(No::Epoch(highest.max(self.store.writing)))
            }
            Question::Join(epoch) => self.join(ctx, epoch, from),
            Question::Lease(epoch, ms) => {
                let ttl = Duration::from_millis(ms);
                let mut disk = Disk(&mut self.promised, self.store.full);
                let grant = self.lessor.lease(&mut disk, (epoch, node, ttl), highest, ctx.clock);
                self.granted(ctx, epoch, grant)
            }
            Question::Lagging(epoch, lagging, stamp) => {
                let mut disk = Disk(&mut self.promised, self.store.full);
                let grant = self.lessor.lagging(&mut disk, (epoch, node), (lagging, stamp), highest);
                self.granted(ctx, epoch, grant)
            }
            Question::Over(epoch) => {
                if self.over(node, epoch) {
                    Reply::Done
                } else {
                    Reply::No(No::Failed)
                }
            }
            Question::Promoted(epoch, _) => {
                if epoch > self.standing().epoch {
                    self.superseded(ctx, epoch);
                }
                Reply::Done
            }
            Question::Take(epoch, at) => self.take(ctx, epoch, at),
        }
    }

    fn granted(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch, grant: Grant) -> Reply {
        match grant {
            Grant::Granted if self.note(ctx, epoch) => Reply::Done,
            Grant::Refused(epoch) => Reply::No(No::Epoch(epoch)),
            Grant::NotYet(wait) => Reply::No(No::NotYet(wait.as_millis() as u64 + 1)),
            Grant::Granted | Grant::Failed => Reply::No(No::Failed),
        }
    }

    fn take(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch, at: Position) -> Reply {
        let leases = ctx.config.mode == Mode::Leases;
        let present = !leases && matches!(&self.run, Run::Replica(r) if r.present && !r.is_busy());
        match take(&self.standing(), epoch, &at, present) {
            Take::Already => Reply::Done,
            Take::No(why) => Reply::No(why),
            Take::Begin(_) if !self.store.has_objects() || self.store.full => Reply::No(No::Failed),
            Take::Begin(epoch) => {
                ctx.oracle.ves[ctx.ve].switchovers += 1;
                self.open_as_primary(ctx, epoch, at);
                Reply::Done
            }
            Take::Ask => {
                if let Run::Replica(r) = &mut self.run {
                    r.claim = true;
                }
                Reply::No(No::NotYet(1000))
            }
        }
    }
}
