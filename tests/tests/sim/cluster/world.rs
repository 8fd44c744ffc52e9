//! The loop: events in the order of their times, what breaks, and what people do.

use std::collections::BTreeMap;
use std::time::Duration;

use aspfs_replica::arbiter::lease::Terms;
use aspfs_replica::arbiter::ledger::{Ledger, Records};
use aspfs_replica::arbiter::{Record, Request};
use aspfs_replica::member::Reply;
use aspfs_replica::window::{AtWindow, Policy};
use vefs::codec;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Lineage, TxnNo, VeId};

use super::net::{Body, Net, Weather, What};
use super::oracle::{Known, Oracle};
use super::seat::{Call, Config, Ctx, Mode, Purpose, Run, Seat, id, ve_id};
use super::store::{Bug, Store};
use crate::random::Random;

const TICK: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default)]
pub struct Records0(BTreeMap<VeId, Record>);

impl Records for Records0 {
    fn get(&self, ve: VeId) -> Option<Record> {
        self.0.get(&ve).copied()
    }

    fn put(&mut self, ve: VeId, record: &Record) -> Result<(), String> {
        self.0.insert(ve, *record);
        Ok(())
    }
}

/// A machine and its clock.
#[derive(Debug)]
pub struct Node {
    pub up: bool,
    /// A person keeps it from being switched on.
    pub held: bool,
    /// It gets no steps until then.
    pub stopped: Duration,
    booted: Duration,
    /// Its clock, in millionths of time that passes.
    rate: u64,
    pub run: u64,
    pub off_since: Duration,
    pub seats: BTreeMap<usize, Seat>,
    pub calls: BTreeMap<u64, Call>,
}

impl Node {
    fn clock(&self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.booted).as_nanos() as u64;
        Duration::from_secs(10) + Duration::from_nanos((u128::from(passed) * u128::from(self.rate) / 1_000_000) as u64)
    }
}

pub struct World {
    pub random: Random,
    pub net: Net,
    pub oracle: Oracle,
    pub nodes: Vec<Node>,
    pub config: Config,
    ledger: Ledger,
    records: Records0,
    arbiter_up: bool,
    numbers: u64,
    pub chaos: bool,
    pub bug: Bug,
    pub steps: u64,
    pub power_cuts: u64,
}

fn config(random: &mut Random, seed: u64) -> Config {
    let nodes = 2 + (seed % 4) as usize;
    let mode = [Mode::Statement, Mode::Leases, Mode::Arbiter][(seed / 4 % 3) as usize];
    let ves = 1 + random.below(2) as usize;
    let mut config = Config {
        mode,
        nodes,
        terms: Terms::new(Duration::from_millis(2000 + random.below(4000))),
        policy: vec![],
        members: vec![],
        flagged: vec![],
        write: [60, 400, 3000, 20_000][random.below(4) as usize],
        think: 50 + random.below(400),
    };
    for ve in 0..ves {
        let count = 2 + random.below(nodes as u64 - 1) as usize;
        let members: Vec<usize> = (0..count).map(|n| (ve + n) % nodes).collect();
        // Everybody is required, or a few are not.
        let optional = random.below(3) == 0;
        let flagged = members.iter().enumerate().filter(|(i, _)| *i < 2 || !optional).map(|(_, n)| 1u64 << n).sum();
        let window = Duration::from_millis(1500 + random.below(6000));
        let at_window = [AtWindow::Degrade, AtWindow::Stall, AtWindow::Alarm][random.below(3) as usize];
        config.policy.push(Policy { window, at_window, recorded: mode != Mode::Statement });
        config.members.push(members);
        config.flagged.push(flagged);
    }
    config
}

impl World {
    pub fn new(seed: u64, bug: Bug) -> World {
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
        let config = config(&mut random, seed);
        let node = |n| Node {
            up: true,
            held: false,
            stopped: Duration::ZERO,
            booted: Duration::ZERO,
            rate: 1_000_000 + n,
            run: 1,
            off_since: Duration::ZERO,
            seats: BTreeMap::new(),
            calls: BTreeMap::new(),
        };
        let mut nodes: Vec<Node> = (0..config.nodes as u64).map(node).collect();
        nodes.iter_mut().for_each(|n| n.rate = 970_000 + random.below(60_000));
        let mut net = Net::default();
        let fine = Weather { delay: 1000, rate: 50_000_000, ..Weather::default() };
        (net.weather, net.arbiter) = (fine, config.nodes);
        let ves = config.members.len();
        let trace = std::env::var_os("ASPFS_SIM_TRACE").is_some();
        let oracle = Oracle { trace, broken: vec![], ves: (0..ves).map(|_| Known::default()).collect() };
        let ledger = Ledger::new(Duration::ZERO);
        let records = Records0::default();
        let (arbiter_up, numbers, chaos) = (true, 0, !seed.is_multiple_of(7));
        let (steps, power_cuts) = (0, 0);
        let mut world = World {
            random,
            net,
            oracle,
            nodes,
            config,
            ledger,
            records,
            arbiter_up,
            numbers,
            chaos,
            bug,
            steps,
            power_cuts,
        };
        world.create();
        world
    }

    /// The VEs, as they are created: one primary, and replicas that follow from the start or have nothing yet.
    fn create(&mut self) {
        for ve in 0..self.config.members.len() {
            let members = self.config.members[ve].clone();
            for (i, n) in members.iter().enumerate() {
                let kind = if i == 0 { RoleKind::Primary } else { RoleKind::Replica };
                let store = Store::new(Lineage([ve as u8 + 1; 16]), kind, i == 0 || self.random.one_in(2), self.bug);
                self.with(*n, ve, |ctx, seat| *seat = Some(Seat::new(store, ctx)));
            }
            let record = Record { epoch: Epoch(1), owner: id(members[0]), lagging: None, off: None };
            self.records.0.insert(ve_id(ve), record);
            let required = self.config.flagged[ve] & !(1 << members[0]);
            self.with(members[0], ve, |ctx, seat| {
                if let Some(seat) = seat {
                    seat.first(ctx, required);
                }
            });
            self.net.after(Duration::from_secs(2), What::Operator(ve));
        }
        for n in 0..self.nodes.len() {
            let skew = Duration::from_millis(self.random.below(200));
            self.net.after(skew, What::Tick(n));
            self.net.after(skew, What::Commit(n));
        }
        self.net.after(Duration::from_secs(3), What::Chaos);
    }

    pub fn with<T>(&mut self, n: usize, ve: usize, f: impl FnOnce(&mut Ctx<'_>, &mut Option<Seat>) -> T) -> T {
        let World { random, net, oracle, nodes, config, numbers, bug, .. } = self;
        let node = &mut nodes[n];
        let mut seat = node.seats.remove(&ve);
        let (clock, run, calls) = (node.clock(net.now), node.run, &mut node.calls);
        let mut ctx = Ctx { me: n, ve, clock, run, random, net, oracle, calls, numbers, config, bug: *bug };
        let out = f(&mut ctx, &mut seat);
        if let Some(seat) = seat {
            node.seats.insert(ve, seat);
        }
        out
    }

    pub fn seat(&mut self, n: usize, ve: usize, f: impl FnOnce(&mut Ctx<'_>, &mut Seat)) {
        self.with(n, ve, |ctx, seat| {
            if let Some(seat) = seat {
                f(ctx, seat);
            }
        });
    }

    /// What every required replica's disk has in truth, of the VE that this node writes.
    fn truth(&self, n: usize, ve: usize) -> Option<TxnNo> {
        let seat = &self.nodes[n].seats[&ve];
        let bits = seat.store.state.required();
        let has = |m: &usize| {
            let other = &self.nodes[*m].seats.get(&ve)?.store;
            // The last position of theirs that is in this history.
            let mut at = other.durable;
            while at > 0 && !is_in(&seat.store, &other.position(at)) {
                at -= 1;
            }
            let position = other.position(at);
            Some(if is_in(&seat.store, &position) { position.txn } else { TxnNo(0) })
        };
        (0..self.nodes.len()).filter(|m| bits >> m & 1 == 1 && *m != n).filter_map(|m| has(&m)).min()
    }

    /// One event.
    pub fn step(&mut self) -> bool {
        let Some(what) = self.net.next() else { return false };
        self.steps += 1;
        if let What::Chaos | What::Operator(_) | What::Start(_) = what {
            self.outside(what);
            return true;
        }
        let n = match &what {
            What::Tick(n) | What::Commit(n) | What::Write(n, _) | What::Flushed(n, ..) => *n,
            What::Deliver(_, to, _) => *to,
            _ => return true,
        };
        if n == self.nodes.len() {
            if let What::Deliver(from, _, Body::Request(_, number, bytes)) = what {
                self.ask_ledger(from, number, &bytes);
            }
            return true;
        }
        let node = &self.nodes[n];
        if self.net.now < node.stopped && node.up {
            self.net.at(node.stopped, what);
            return true;
        }
        if node.up {
            self.inside(n, what)
        } else {
            self.dead(what)
        }
        true
    }

    /// A node that is off does nothing; its clock goes on ticking when it is switched on.
    fn dead(&mut self, what: What) {
        if let What::Tick(_) | What::Commit(_) = what {
            self.net.after(TICK, what);
        }
    }

    fn inside(&mut self, n: usize, what: What) {
        let ves: Vec<usize> = self.nodes[n].seats.keys().copied().collect();
        match what {
            What::Tick(_) => {
                self.expire(n);
                for ve in ves {
                    self.seat(n, ve, |ctx, seat| match &seat.run {
                        Run::Primary(_) => seat.tick_primary(ctx),
                        Run::Replica(_) => seat.tick_replica(ctx),
                    });
                    self.complete(n, ve);
                }
                self.net.after(TICK, what);
            }
            What::Commit(_) => {
                ves.into_iter().for_each(|ve| self.seat(n, ve, |ctx, seat| seat.commit(ctx)));
                self.net.after(TICK, what);
            }
            What::Write(_, ve) => {
                self.seat(n, ve, |ctx, seat| seat.write(ctx));
                self.complete(n, ve);
            }
            What::Flushed(_, ve, upto, run) if run == self.nodes[n].run => {
                self.seat(n, ve, |ctx, seat| match &seat.run {
                    Run::Primary(_) => seat.flushed(ctx, upto),
                    Run::Replica(_) => seat.replica_flushed(ctx),
                });
            }
            What::Deliver(from, _, body) => self.deliver(n, from, body),
            _ => {}
        }
    }

    fn complete(&mut self, n: usize, ve: usize) {
        let writes = matches!(&self.nodes[n].seats[&ve].run, Run::Primary(p) if p.waits());
        if writes {
            let truth = self.truth(n, ve);
            self.seat(n, ve, |ctx, seat| seat.complete(ctx, truth));
        }
    }

    fn deliver(&mut self, n: usize, from: usize, body: Body) {
        match body {
            Body::Frame(ve, bytes) => {
                // Whom a frame is for, its kind says: a primary gets what replicas send.
                let for_primary = matches!(&self.nodes[n].seats[&ve].run, Run::Primary(_));
                let hello = bytes.get(6) == Some(&1);
                self.seat(n, ve, |ctx, seat| match for_primary && !hello {
                    true => seat.frame_for_primary(ctx, from, &bytes),
                    false => seat.frame_for_replica(ctx, from, &bytes),
                });
                if for_primary {
                    self.complete(n, ve);
                }
            }
            Body::Request(ve, number, bytes) => {
                if self.nodes[n].seats.contains_key(&ve) {
                    self.seat(n, ve, |ctx, seat| seat.serve(ctx, from, number, &bytes));
                }
            }
            Body::Answer(number, place, blob) => self.answered(n, number, place, blob),
        }
    }

    fn answered(&mut self, n: usize, number: u64, place: usize, blob: Option<Vec<u8>>) {
        let Some(call) = self.nodes[n].calls.get_mut(&number) else { return };
        let in_order = call.next == place;
        call.next += 1;
        let call = *call;
        if let Purpose::Pull(asked) = call.purpose {
            let blob = blob.filter(|_| in_order);
            if blob.is_none() {
                self.nodes[n].calls.remove(&number);
            }
            return self.seat(n, call.ve, |ctx, seat| seat.pulled(ctx, asked, blob.as_deref()));
        }
        self.nodes[n].calls.remove(&number);
        let Some(blob) = blob else { return };
        self.concluded(n, &call, Some(blob));
    }

    /// A question was answered, or was not.
    fn concluded(&mut self, n: usize, call: &Call, blob: Option<Vec<u8>>) {
        let purpose = call.purpose;
        if call.to == self.nodes.len() {
            let reply = blob.and_then(|b| codec::decode(&b).ok());
            self.seat(n, call.ve, |ctx, seat| match &seat.run {
                Run::Primary(_) => seat.primary_arbiter(ctx, purpose, reply),
                Run::Replica(_) => seat.replica_arbiter(ctx, purpose, reply),
            });
        } else {
            let reply = blob.and_then(|b| Reply::decode(&b).ok()).map(|(_, r)| r);
            self.seat(n, call.ve, |ctx, seat| match &seat.run {
                Run::Primary(_) => seat.primary_replied(ctx, call.to, purpose, reply),
                Run::Replica(_) => seat.replica_replied(ctx, call.to, purpose, reply),
            });
        }
    }

    fn expire(&mut self, n: usize) {
        let clock = self.nodes[n].clock(self.net.now);
        let late: Vec<(u64, Call)> =
            self.nodes[n].calls.iter().filter(|(_, c)| c.until < clock).map(|(k, c)| (*k, *c)).collect();
        for (number, call) in late {
            self.nodes[n].calls.remove(&number);
            match call.purpose {
                Purpose::Pull(asked) => self.seat(n, call.ve, |ctx, seat| seat.pulled(ctx, asked, None)),
                _ => self.concluded(n, &call, None),
            }
        }
    }

    fn ask_ledger(&mut self, from: usize, number: u64, bytes: &[u8]) {
        let Ok(request) = codec::decode::<Request>(bytes) else { return };
        if !self.arbiter_up {
            return;
        }
        let reply = self.ledger.step(&mut self.records, &request, self.net.now).unwrap();
        let arbiter = self.nodes.len();
        self.net.send(&mut self.random, arbiter, from, Body::Answer(number, 0, Some(codec::encode(&reply))));
    }

    pub fn restart_arbiter(&mut self, up: bool) {
        self.arbiter_up = up;
        if up {
            self.ledger = Ledger::new(self.net.now);
        }
    }

    /// The power goes; or only the processes die, and what they wrote stays.
    pub fn kill(&mut self, n: usize, power: bool) {
        let node = &mut self.nodes[n];
        if !node.up {
            return;
        }
        if self.oracle.trace {
            println!("{:?} node {n} dies, power {power}", self.net.now);
        }
        (node.up, node.off_since, node.stopped) = (false, self.net.now, Duration::ZERO);
        node.run += 1;
        node.calls.clear();
        self.power_cuts += u64::from(power);
        for (ve, seat) in &mut node.seats {
            if power {
                seat.store.power_cut();
            }
            seat.store.staged.clear();
            self.oracle.is_a_version(*ve, n, &seat.store);
        }
    }

    pub fn start(&mut self, n: usize) {
        if self.nodes[n].up || self.nodes[n].held {
            return;
        }
        if self.oracle.trace {
            println!("{:?} node {n} starts", self.net.now);
        }
        let rate = 970_000 + self.random.below(60_000);
        let now = self.net.now;
        let node = &mut self.nodes[n];
        (node.up, node.booted, node.rate) = (true, now, rate);
        for ve in self.nodes[n].seats.keys().copied().collect::<Vec<_>>() {
            self.seat(n, ve, |ctx, seat| seat.start(ctx));
        }
    }
}

fn is_in(store: &Store, position: &vefs::ids::Position) -> bool {
    let n = position.txn.0.checked_sub(store.history.base.txn.0).map(|n| n as usize);
    n.is_some_and(|n| n <= store.history.txns.len() && store.position(n) == *position)
}
