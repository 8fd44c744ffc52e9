//! A primary's shell: programs, commit tick, streams, window, lease, switchover.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use aspfs_replica::arbiter::lease::{Action as LeaseAction, Lessee, Whom};
use aspfs_replica::arbiter::{self, Request};
use aspfs_replica::member::{No, Question, Reply, Stamp};
use aspfs_replica::promote::{Boot, BootAction, Handed, Switchover, SwitchoverAction, SwitchoverEvent, Who};
use aspfs_replica::ship::{Event, Sender};
use aspfs_replica::window::{Event as WindowEvent, State, Verdict, Window};
use aspfs_replica::wire;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Position, TxnNo};

use super::net::What;
use super::oracle::Done;
use super::seat::{Ctx, Mode, Purpose, Run, Seat, id, index, nodes_of, ve_id};
use super::store::{Bug, Role, Store};

const AHEAD: u64 = 200_000;

#[derive(Debug)]
struct Link {
    sender: Sender,
    connected: bool,
    retry: Duration,
}

/// An operation that was carried out and not answered.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    txn: TxnNo,
    accepted: Duration,
    program: u64,
}

#[derive(Debug)]
pub struct Primary {
    pub window: Window,
    links: BTreeMap<usize, Link>,
    pub lessee: Lessee,
    boot: Option<Boot>,
    pub open: bool,
    frozen: bool,
    slowed: bool,
    pub switchover: Option<Switchover>,
    sets: Vec<(u8, Vec<u8>)>,
    seals: Vec<(u8, u8)>,
    require: Option<u64>,
    waiting: Vec<Waiting>,
    /// Changes that some required replica lacks, by what its disk has.
    exposed: VecDeque<(TxnNo, Duration)>,
    flushing: bool,
    permitted: bool,
    /// The window has asked for the permit and not given it back; the record was taken back since.
    held: bool,
    settled: bool,
    alarm: Option<Duration>,
}

impl Primary {
    pub fn new(store: &Store, ctx: &mut Ctx<'_>) -> Primary {
        let required = store.state.required();
        let policy = ctx.config.policy[ctx.ve];
        let mut window = Window::new(policy, store.head().txn, ctx.clock);
        let others = ctx.others();
        for n in &others {
            window.set_replica(id(*n), required >> n & 1 == 1, None, ctx.clock);
        }
        let link = |n: &usize| {
            let sender = Sender::new(ctx.id(), ve_id(ctx.ve), AHEAD);
            (*n, Link { sender, connected: false, retry: ctx.clock })
        };
        let needs = ctx.config.mode.needs();
        let epoch = store.writing;
        let mut lessee = Lessee::new((epoch, ctx.id()), needs, ctx.config.terms, nodes_of(required), ctx.clock);
        lessee.unsettled(store.head().txn);
        Primary {
            window,
            links: others.iter().map(link).collect(),
            lessee,
            boot: None,
            open: false,
            frozen: false,
            slowed: false,
            switchover: None,
            sets: vec![],
            seals: vec![],
            require: None,
            waiting: vec![],
            exposed: VecDeque::new(),
            flushing: false,
            permitted: false,
            held: false,
            settled: false,
            alarm: None,
        }
    }

    /// A VE that was written here before the node started.
    pub fn starting(store: &mut Store, ctx: &mut Ctx<'_>) -> Primary {
        store.writing = store.role.epoch;
        let mut primary = Primary::new(store, ctx);
        let asked = if ctx.config.mode == Mode::Statement { ctx.others() } else { vec![] };
        primary.boot = Some(Boot::new(store.lineage(), store.role.epoch, asked.into_iter().map(id)));
        if ctx.config.mode == Mode::Arbiter {
            let expected = store.role.epoch;
            ask_epoch(ctx, expected, expected.restarted());
        }
        primary
    }

    fn may_write(&self, ctx: &Ctx<'_>) -> bool {
        ctx.bug == Bug::NoLease || self.lessee.may_write(ctx.clock)
    }

    fn stalls(&self) -> bool {
        self.frozen || self.slowed
    }

    /// The bytes that a replica has not acknowledged.
    fn left(&self, to: usize) -> u64 {
        let status = self.window.replicas().into_iter().find(|r| r.node == id(to));
        status.and_then(|s| s.behind).map_or(u64::MAX, |(bytes, _)| bytes)
    }
}

fn ask_epoch(ctx: &mut Ctx<'_>, expected: Epoch, epoch: Epoch) {
    let (ve, node) = (ve_id(ctx.ve), ctx.id());
    ctx.ask_arbiter(Purpose::BootArbiter, &Request::Propose { ve, node, expected, epoch, forced: false });
}

impl Seat {
    /// Begins to write in an epoch that is this node's alone: the role first (promise G21).
    pub fn open_as_primary(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch, fork: Position) {
        ctx.say(|| format!("opens {:x} behind {}@{:x}", epoch.0, fork.txn, fork.epoch.0));
        let fork = match ctx.bug {
            Bug::ForkOffByOne => self.store.position(self.store.durable.saturating_sub(1)),
            _ => fork,
        };
        if ctx.bug != Bug::RoleLate {
            self.store.role = Role { kind: RoleKind::Primary, epoch, fork, successor: None };
        }
        ctx.oracle.noted(ctx.ve, ctx.me, epoch);
        self.store.writing = epoch;
        self.store.staged.clear();
        let mut primary = Primary::new(&self.store, ctx);
        primary.open = true;
        // This node is no replica any more; the former primary becomes one when it is back.
        primary.require = Some(self.store.state.required() & !(1 << ctx.me));
        self.run = Run::Primary(Box::new(primary));
        // With leases a hand-over and a promotion may both happen: which of them writes, whoever gives them says.
        ctx.oracle.opened(ctx.ve, ctx.me, epoch, ctx.config.mode == Mode::Statement);
        self.commit(ctx);
        ctx.net.after(Duration::ZERO, What::Write(ctx.me, ctx.ve));
    }

    /// There is a higher epoch: nothing completes here any more, and what was accepted stays as it is.
    pub fn superseded(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch) {
        if let Run::Primary(_) = &self.run {
            ctx.say(|| format!("is superseded by {:x}", epoch.0));
            self.commit(ctx);
            let before = self.store.durable;
            self.store.flush();
            ctx.oracle.durable(ctx.ve, &self.store, before, self.store.durable);
            self.store.role = Role { kind: RoleKind::Superseded, epoch, ..self.store.role };
            ctx.oracle.noted(ctx.ve, ctx.me, epoch);
            self.run = Run::Replica(Box::new(super::replica::Replica::new(ctx)));
        } else {
            self.note(ctx, epoch);
        }
    }

    /// A program does something.
    pub fn write(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        if !p.waiting.is_empty() {
            return;
        }
        let len = 1 + ctx.random.below(ctx.config.write);
        let mut again = Duration::from_millis(50 + ctx.random.below(ctx.config.think));
        let verdict = if p.open && !p.stalls() { p.window.admit(len, ctx.clock) } else { Verdict::Wait };
        match verdict {
            Verdict::Delay(wait) if ctx.bug != Bug::NoThrottle => again = wait,
            Verdict::Wait | Verdict::Fenced if ctx.bug != Bug::NoThrottle || !p.open || p.stalls() => {}
            _ => {
                let (key, byte) = (ctx.random.below(30) as u8, ctx.random.below(256) as u8);
                if ctx.random.one_in(12) {
                    p.seals.push((200 + key % 4, 10 + byte % 20));
                }
                // Now and then what was written before: what is known by now.
                let again = ctx.random.one_in(4).then(|| super::content::small(byte % 8).to_vec());
                p.sets.push((key, again.unwrap_or_else(|| vec![byte; len as usize])));
                let txn = self.store.head().txn.next();
                p.window.accepted(txn, ctx.clock, len, ctx.clock);
                p.exposed.push_back((txn, ctx.clock));
                p.waiting.push(Waiting { txn, accepted: ctx.clock, program: 0 });
                return;
            }
        }
        ctx.net.after(again, What::Write(ctx.me, ctx.ve));
    }

    /// Answers what may be answered. `has`: up to where the required replicas' disks have everything, in truth.
    pub fn complete(&mut self, ctx: &mut Ctx<'_>, has: Option<TxnNo>) {
        let Run::Primary(p) = &mut self.run else { return };
        if p.waiting.is_empty() {
            return;
        }
        let verdict = p.window.complete(ctx.clock);
        let bug = ctx.bug == Bug::NoThrottle;
        if p.frozen || !p.may_write(ctx) || (verdict != Verdict::Go && !bug) {
            return;
        }
        if let Some(has) = has {
            while p.exposed.front().is_some_and(|(txn, _)| *txn <= has) {
                p.exposed.pop_front();
            }
        }
        let state = if bug { State::Protected } else { p.window.state() };
        let age = p.exposed.front().map_or(Duration::ZERO, |(_, since)| ctx.clock.saturating_sub(*since));
        let window = p.window_length(ctx);
        ctx.oracle.must(state != State::Protected || age <= window, "G14", || {
            format!("node {} completes at an exposure of {age:?}", ctx.me)
        });
        let recorded = ctx.config.policy[ctx.ve].recorded;
        ctx.oracle
            .must(state != State::Lagging || !recorded || p.permitted, "G16", || "it lags without a record".into());
        let epoch = self.store.writing;
        for w in std::mem::take(&mut p.waiting) {
            let done = Done { epoch, txn: w.txn.0, accepted: w.accepted, completed: ctx.clock, state };
            ctx.oracle.completed(ctx.ve, ctx.me, done);
            let think = Duration::from_millis(20 + ctx.random.below(ctx.config.think) + w.program);
            ctx.net.after(think, What::Write(ctx.me, ctx.ve));
        }
    }

    /// Seals what was accepted, and begins to make it durable.
    pub fn commit(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        if p.sets.is_empty() && p.seals.is_empty() && p.require.is_none() || !p.open {
            return;
        }
        let require = p.require.take();
        let bulk = self.store.write(std::mem::take(&mut p.sets), &std::mem::take(&mut p.seals), require);
        ctx.oracle.sealed(ctx.ve, ctx.me, &self.store);
        let txn = self.store.head().txn;
        if let Some(bits) = require {
            p.lessee.set_required(nodes_of(bits), txn);
            for n in p.links.keys() {
                p.window.set_replica(id(*n), bits >> n & 1 == 1, None, ctx.clock);
            }
        }
        for link in p.links.values_mut() {
            bulk.iter().for_each(|(id, len)| link.sender.written(*id, *len));
        }
        self.flush_soon(ctx);
    }

    fn flush_soon(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        if !std::mem::replace(&mut p.flushing, true) {
            let upto = self.store.history.txns.len();
            let wait = Duration::from_micros(300 + ctx.random.below(15_000));
            ctx.net.after(wait, What::Flushed(ctx.me, ctx.ve, upto, ctx.run));
        }
    }

    /// A primary's flush ended.
    pub fn flushed(&mut self, ctx: &mut Ctx<'_>, upto: usize) {
        let Run::Primary(p) = &mut self.run else { return };
        p.flushing = false;
        let (before, upto) = (self.store.durable, upto.min(self.store.history.txns.len()));
        if upto > before {
            self.store.durable = upto;
            ctx.oracle.durable(ctx.ve, &self.store, before, upto);
        }
        if self.store.durable < self.store.history.txns.len() {
            self.flush_soon(ctx);
        }
        self.switch(ctx, None);
        self.ship(ctx);
    }

    /// Sends what the links have room for.
    pub fn ship(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        for (to, link) in &mut p.links {
            if !link.connected && ctx.clock >= link.retry {
                let session = ctx.number();
                link.sender.connect(&self.store, session, ctx.clock);
                link.connected = true;
            }
            while ctx.net.backlog(ctx.me, *to) < Duration::from_millis(300) {
                let next = match link.sender.poll(&self.store, ctx.clock) {
                    Ok(None) => link.sender.poll_bulk(&self.store, ctx.clock),
                    next => next,
                };
                let Ok(Some((envelope, message))) = next else { break };
                ctx.frame(*to, wire::encode(&message, envelope, false));
            }
        }
    }

    /// A frame for a primary.
    pub fn frame_for_primary(&mut self, ctx: &mut Ctx<'_>, from: usize, bytes: &[u8]) {
        let Run::Primary(p) = &mut self.run else { return };
        let Some(link) = p.links.get_mut(&from) else { return };
        match wire::decode(bytes) {
            Err(_) => {
                link.sender.disconnected();
                (link.connected, link.retry) = (false, ctx.clock + Duration::from_millis(100));
            }
            Ok((envelope, message, _)) => {
                let events = link.sender.receive(&self.store, &envelope, message, ctx.clock);
                self.events(ctx, from, events);
            }
        }
        self.ship(ctx);
    }

    fn events(&mut self, ctx: &mut Ctx<'_>, from: usize, events: Vec<Event>) {
        for event in events {
            let Run::Primary(p) = &mut self.run else { return };
            match event {
                Event::Welcomed(position) | Event::Acked(position) => {
                    ctx.oracle.ack_taken(ctx.ve, from, position);
                    match event {
                        Event::Welcomed(_) => p.window.welcomed(id(from), position.txn, ctx.clock),
                        _ => p.window.acked(id(from), position.txn, ctx.clock),
                    }
                    p.lessee.acked(id(from), position.txn);
                    self.switch(ctx, Some(SwitchoverEvent::Acked(id(from), position)));
                }
                Event::Diverged(_) => p.window.diverged(id(from), ctx.clock),
                Event::HasNothing => p.window.has_nothing(id(from), ctx.clock),
                Event::NeedsCatchUp(_) => {}
                Event::HigherEpoch(epoch) => self.superseded(ctx, epoch),
                Event::Closed(_) => {
                    if let Some(link) = p.links.get_mut(&from) {
                        let wait = Duration::from_millis(200 + ctx.random.below(800));
                        (link.connected, link.retry) = (false, ctx.clock + wait);
                    }
                }
            }
        }
    }

    /// Time passed at a primary.
    pub fn tick_primary(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        let boot = p.boot.as_mut().map(|b| b.tick(ctx.clock)).unwrap_or_default();
        let mut closed = vec![];
        for (to, link) in &mut p.links {
            closed.push((*to, link.sender.tick(ctx.clock)));
        }
        p.window.tick(ctx.clock);
        let lease = if p.open { p.lessee.tick(ctx.clock) } else { vec![] };
        self.booted(ctx, boot);
        closed.into_iter().for_each(|(to, events)| self.events(ctx, to, events));
        self.lease(ctx, lease);
        self.windowed(ctx);
        self.require_who_is_back(ctx);
        self.switch(ctx, None);
        self.ship(ctx);
    }

    fn booted(&mut self, ctx: &mut Ctx<'_>, actions: Vec<BootAction>) {
        for action in actions {
            match action {
                BootAction::Ask(node, question) => ctx.ask(node, Purpose::Boot, question),
                BootAction::Superseded(_, epoch) => self.superseded(ctx, epoch),
                // With an arbiter the epoch comes from it.
                BootAction::Open(epoch) if ctx.config.mode != Mode::Arbiter => self.opened(ctx, epoch),
                BootAction::Open(_) => {}
            }
        }
    }

    fn opened(&mut self, ctx: &mut Ctx<'_>, epoch: Epoch) {
        if self.store.full {
            // The epoch cannot be made durable: once more, later.
            self.start(ctx);
            return;
        }
        ctx.say(|| format!("opens again in {:x}", epoch.0));
        self.store.role.epoch = epoch;
        self.store.writing = epoch;
        ctx.oracle.noted(ctx.ve, ctx.me, epoch);
        ctx.oracle.opened(ctx.ve, ctx.me, epoch, ctx.config.mode == Mode::Statement);
        let mut primary = Primary::new(&self.store, ctx);
        primary.open = true;
        // A power cut may have taken what it wrote first when it was promoted.
        let required = self.store.state.required();
        primary.require = (required >> ctx.me & 1 == 1).then_some(required & !(1 << ctx.me));
        self.run = Run::Primary(Box::new(primary));
        self.commit(ctx);
        self.flush_soon(ctx);
        ctx.net.after(Duration::ZERO, What::Write(ctx.me, ctx.ve));
    }

    /// A person says that nobody else was promoted.
    pub fn stated(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        let actions = p.boot.as_mut().map(|b| b.stated()).unwrap_or_default();
        self.booted(ctx, actions);
    }

    fn lease(&mut self, ctx: &mut Ctx<'_>, actions: Vec<LeaseAction>) {
        let (ve, epoch, ms) = (ve_id(ctx.ve), self.store.writing, ctx.config.terms.ttl.as_millis() as u64);
        let node = ctx.id();
        for action in actions {
            let Run::Primary(p) = &mut self.run else { return };
            match action {
                LeaseAction::Ask(Whom::Replica(n), number) => {
                    ctx.ask(n, Purpose::Lease(number), Question::Lease(epoch, ms));
                }
                LeaseAction::Ask(Whom::Arbiter, number) => {
                    let request = Request::Lease { ve, node, epoch, ttl_ms: ms };
                    ctx.ask_arbiter(Purpose::LeaseArbiter(number), &request);
                }
                LeaseAction::Tell(Whom::Replica(n), number) => {
                    let stamp = Stamp { process: ctx.run, number: *ctx.numbers };
                    ctx.ask(n, Purpose::Tell(number), Question::Lagging(epoch, number.is_some(), stamp));
                }
                LeaseAction::Tell(Whom::Arbiter, number) => {
                    let request = Request::Lagging { ve, node, epoch, lagging: number.is_some() };
                    ctx.ask_arbiter(Purpose::TellArbiter(number), &request);
                }
                LeaseAction::Permitted(number) => {
                    ctx.say(|| format!("may lag, {number}"));
                    p.permitted = true;
                    p.window.permitted(number, ctx.clock);
                }
                LeaseAction::Lapsed | LeaseAction::Renewed => {}
                LeaseAction::Superseded(epoch) => self.superseded(ctx, epoch),
            }
        }
    }

    fn windowed(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        let mut actions = vec![];
        for event in p.window.take_events() {
            match event {
                WindowEvent::AskPermit(number) => {
                    (p.held, p.settled) = (true, false);
                    p.lessee.set_lagging(Some(number));
                    actions.extend(p.lessee.tick(ctx.clock));
                }
                WindowEvent::ReturnPermit(_) => (p.permitted, p.held) = (false, false),
                WindowEvent::Changed { to, at, .. } => {
                    ctx.say(|| format!("is {to:?}"));
                    ctx.oracle.state(ctx.ve, to);
                    p.alarm = (to == State::Lagging).then_some(at);
                }
            }
        }
        // What a former epoch recorded goes too, once everything is everywhere.
        if !p.held && p.window.state() == State::Protected && !std::mem::replace(&mut p.settled, true) {
            p.lessee.set_lagging(None);
        }
        self.lease(ctx, actions);
    }

    /// A node that is to be required, and has everything, is required again.
    fn require_who_is_back(&mut self, ctx: &mut Ctx<'_>) {
        let Run::Primary(p) = &mut self.run else { return };
        let now = self.store.state.required();
        let flagged = ctx.config.flagged[ctx.ve] & !(1 << ctx.me) & !now;
        let head = self.store.durable_head();
        let back = |n: &usize| {
            let acked = p.links.get(n).filter(|l| l.connected).and_then(|l| l.sender.acked());
            flagged >> n & 1 == 1
                && acked.is_some_and(|a| a.txn.0 + 3 >= head.txn.0 && a.epoch.term() == head.epoch.term())
        };
        let bits: u64 = ctx.others().iter().filter(|n| back(n)).map(|n| 1 << n).sum();
        // One at a time, and the next when the last is known: two sets that differ by more may have majorities without a common node.
        if bits != 0 && p.require.is_none() && p.open && !p.stalls() && p.lessee.is_settled() {
            p.require = Some(now | bits & bits.wrapping_neg());
        }
    }

    /// A person hands the VE over.
    pub fn hand_over(&mut self, ctx: &mut Ctx<'_>, to: usize) {
        let lineage = self.store.lineage();
        let Run::Primary(p) = &mut self.run else { return };
        if !p.open || p.switchover.is_some() {
            return;
        }
        let outside = ctx.config.mode == Mode::Arbiter;
        let who = Who { ve: ve_id(ctx.ve), lineage, me: ctx.id(), to: id(to), epoch: self.store.writing, outside };
        let lessors =
            if ctx.config.mode == Mode::Statement { Default::default() } else { nodes_of(self.store.state.required()) };
        p.switchover = Some(Switchover::new(who, lessors));
        self.switch(ctx, None);
    }

    fn switch(&mut self, ctx: &mut Ctx<'_>, event: Option<SwitchoverEvent>) {
        let Run::Primary(p) = &mut self.run else { return };
        let Some(switchover) = &mut p.switchover else { return };
        let to = switchover.successor();
        let mut events = VecDeque::from_iter(event);
        if p.frozen && self.store.durable == self.store.history.txns.len() && p.sets.is_empty() {
            events.push_back(SwitchoverEvent::Frozen(self.store.head()));
        }
        let acked = p.links.get(&index(to)).and_then(|l| l.sender.acked());
        events.extend(acked.map(|position| SwitchoverEvent::Acked(to, position)));
        events.push_back(SwitchoverEvent::Tick(p.left(index(to))));
        self.run_switchover(ctx, events);
    }

    fn run_switchover(&mut self, ctx: &mut Ctx<'_>, mut events: VecDeque<SwitchoverEvent>) {
        while let Some(event) = events.pop_front() {
            let Some(switchover) = self.switchover() else { return };
            for action in switchover.step(event, ctx.clock) {
                self.switch_action(ctx, action, &mut events);
            }
        }
    }

    fn switchover(&mut self) -> Option<&mut Switchover> {
        match &mut self.run {
            Run::Primary(p) => p.switchover.as_mut(),
            Run::Replica(r) => r.resume.as_mut(),
        }
    }

    fn switch_action(&mut self, ctx: &mut Ctx<'_>, action: SwitchoverAction, events: &mut VecDeque<SwitchoverEvent>) {
        match (action, &mut self.run) {
            (SwitchoverAction::Throttle(on), Run::Primary(p)) => p.slowed = on,
            (SwitchoverAction::Freeze, Run::Primary(p)) => {
                p.frozen = true;
                self.commit(ctx);
                self.flush_soon(ctx);
            }
            (SwitchoverAction::Thaw, Run::Primary(p)) => p.frozen = false,
            (SwitchoverAction::WriteRole(epoch, to), Run::Primary(p)) => {
                if self.store.full {
                    return events.push_back(SwitchoverEvent::Failed);
                }
                ctx.say(|| format!("steps down for {to} in {:x}", epoch.0));
                let machine = p.switchover.take();
                self.store.role = Role { kind: RoleKind::Replica, epoch, successor: Some(to), ..self.store.role };
                ctx.oracle.noted(ctx.ve, ctx.me, epoch);
                let mut replica = super::replica::Replica::new(ctx);
                replica.resume = machine;
                self.run = Run::Replica(Box::new(replica));
                events.push_back(SwitchoverEvent::RoleWritten);
            }
            (SwitchoverAction::Ask(node, question), _) => ctx.ask(node, Purpose::Switchover, question),
            (SwitchoverAction::Arbiter(request), _) => ctx.ask_arbiter(Purpose::SwitchoverArbiter, &request),
            (SwitchoverAction::Over(how), Run::Primary(p)) => {
                p.switchover = None;
                if how == Handed::Store {
                    self.start(ctx);
                }
            }
            (SwitchoverAction::Over(_), Run::Replica(r)) => r.resume = None,
            _ => {}
        }
    }

    /// Time passed for a node that stepped down.
    pub fn tick_resumed(&mut self, ctx: &mut Ctx<'_>) {
        self.run_switchover(ctx, VecDeque::from([SwitchoverEvent::Tick(0)]));
    }

    /// A reply to a primary's question; `None`: none came.
    pub fn primary_replied(&mut self, ctx: &mut Ctx<'_>, from: usize, purpose: Purpose, reply: Option<Reply>) {
        if purpose == Purpose::Switchover {
            return self.run_switchover(ctx, VecDeque::from([SwitchoverEvent::Replied(id(from), reply)]));
        }
        let Run::Primary(p) = &mut self.run else { return };
        let whom = Whom::Replica(id(from));
        let actions = match (purpose, reply) {
            (Purpose::Boot, Some(reply)) => {
                let actions = p.boot.as_mut().map(|b| b.replied(id(from), &reply)).unwrap_or_default();
                return self.booted(ctx, actions);
            }
            (Purpose::Lease(number), Some(Reply::Done)) => p.lessee.granted(whom, number, ctx.clock),
            (Purpose::Tell(number), Some(Reply::Done)) => p.lessee.told(whom, number),
            (Purpose::Lease(_) | Purpose::Tell(_), Some(Reply::No(No::Epoch(epoch)))) => p.lessee.refused(epoch),
            _ => vec![],
        };
        self.lease(ctx, actions);
    }

    /// The arbiter answered a primary.
    pub fn primary_arbiter(&mut self, ctx: &mut Ctx<'_>, purpose: Purpose, reply: Option<arbiter::Reply>) {
        if purpose == Purpose::SwitchoverArbiter {
            return self.run_switchover(ctx, VecDeque::from([SwitchoverEvent::Arbiter(reply)]));
        }
        let Run::Primary(p) = &mut self.run else { return };
        let (me, mine) = (ctx.id(), self.store.writing);
        let (arbiter::Reply::Record(r, _) | arbiter::Reply::Refused(_, r)) = match reply {
            Some(reply) => reply,
            None if purpose == Purpose::BootArbiter && !p.open => {
                return ask_epoch(ctx, mine, mine.restarted());
            }
            None => return,
        };
        let actions = match purpose {
            // It was handed to another node, or taken by one.
            _ if r.owner != me => p.lessee.refused(r.epoch.max(mine.restarted())),
            Purpose::BootArbiter if !p.open && r.epoch > mine && matches!(reply, Some(arbiter::Reply::Record(..))) => {
                return self.opened(ctx, r.epoch);
            }
            Purpose::BootArbiter if !p.open => return ask_epoch(ctx, r.epoch, r.epoch.restarted()),
            // What was asked for in a former epoch and refused says nothing of a question of this one with the same number.
            _ if r.epoch != mine || !matches!(reply, Some(arbiter::Reply::Record(..))) => vec![],
            Purpose::LeaseArbiter(number) => p.lessee.granted(Whom::Arbiter, number, ctx.clock),
            Purpose::TellArbiter(number) => p.lessee.told(Whom::Arbiter, number),
            _ => vec![],
        };
        self.lease(ctx, actions);
    }
}

impl Seat {
    /// The first transaction of a VE, at the node that creates it.
    pub fn first(&mut self, ctx: &mut Ctx<'_>, required: u64) {
        ctx.oracle.opened(ctx.ve, ctx.me, self.store.writing, true);
        let mut primary = Primary::new(&self.store, ctx);
        (primary.open, primary.require) = (true, Some(required));
        self.run = Run::Primary(Box::new(primary));
        self.commit(ctx);
        ctx.net.after(Duration::from_millis(100), What::Write(ctx.me, ctx.ve));
    }

    /// For whoever looks at a run.
    pub fn describe(&self) -> String {
        match &self.run {
            Run::Primary(p) => {
                let links: Vec<_> =
                    p.links.iter().map(|(n, l)| format!("{n}: {} {:?}", l.connected, l.sender)).collect();
                let (state, exposure, until) = (p.window.state(), p.window.exposure(), p.lessee.until());
                let bits = (p.open, p.frozen, p.slowed);
                format!("{bits:?} {state:?} {exposure:?} until {until:?} alarm {:?} {links:?}", p.alarm)
            }
            Run::Replica(r) => r.describe(),
        }
    }
}

impl Primary {
    /// Whether a program waits for an answer.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn window_length(&self, ctx: &Ctx<'_>) -> Duration {
        ctx.config.policy[ctx.ve].window
    }
}
