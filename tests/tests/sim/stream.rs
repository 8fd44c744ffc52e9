//! One primary, one replica, and a link that delays, reorders, repeats, drops, flips and breaks, while both nodes lose power now and then.
//!
//! Everything is drawn from one seed, and the frames are real bytes. After every step the replica's history must be a part of what is
//! durable at the primary (checks G9, G10, G12, G13) and hold what was acknowledged (checks G11); at the end the link is healed
//! and both sides must be equal. `ASPFS_SIM_SEEDS=n` runs n seeds, `ASPFS_SIM_SEED=s` only that one.

use std::time::Duration;

use aspfs_replica::apply::{Action, Receiver};
use aspfs_replica::log::{Follower, Log};
use aspfs_replica::node::NodeId;
use aspfs_replica::ship::{Event, Sender};
use aspfs_replica::wire;
use vefs::ids::{Epoch, TxnNo, VeId};

use crate::double::{Bug, Copy};
use crate::random::Random;

const VE: VeId = VeId(7);
const AHEAD: u64 = 100_000;

/// The streams of a session.
#[derive(Clone, Copy)]
enum Way {
    Records,
    Bulk,
    Back,
}

struct World {
    random: Random,
    now: Duration,
    session: u64,
    log: Copy,
    sender: Sender,
    connected: bool,
    follower: Copy,
    receiver: Receiver,
    flushing: bool,
    to_replica: Vec<Vec<u8>>,
    /// On the stream of bulk.
    bulk: Vec<Vec<u8>>,
    to_primary: Vec<Vec<u8>>,
    acked: TxnNo,
    faults: u64,
}

impl World {
    fn new(seed: u64, primary: Bug, replica: Bug) -> World {
        World {
            random: Random::new(seed),
            now: Duration::ZERO,
            session: 0,
            log: Copy::new(primary),
            sender: Sender::new(NodeId([1; 16]), VE, AHEAD),
            connected: false,
            follower: Copy::new(replica),
            receiver: Receiver::new(NodeId([2; 16]), VE),
            flushing: false,
            to_replica: vec![],
            bulk: vec![],
            to_primary: vec![],
            acked: TxnNo(0),
            faults: 0,
        }
    }

    fn write(&mut self) {
        let count = 1 + self.random.below(4);
        let payload = |r: &mut Random| {
            let sizes = [10, 500, 3000, 3000, 300_000];
            let len = sizes[r.below(5) as usize] + r.below(50);
            let byte = r.below(256) as u8;
            // Now and then what was written before: what is known by now.
            if r.one_in(4) { vec![byte % 8; 600] } else { vec![byte; len as usize] }
        };
        let payloads: Vec<Vec<u8>> = (0..count).map(|_| payload(&mut self.random)).collect();
        let durable = Log::durable(&self.log);
        for (id, len) in self.log.write(&payloads) {
            self.sender.written(id, len);
        }
        if Log::durable(&self.log) != durable {
            // A log that hands out what is not durable says so, too.
            self.sender.news();
        }
    }

    fn flush(&mut self) {
        self.log.flush();
        self.sender.news();
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.sender.disconnected();
    }

    fn events(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            match event {
                Event::Welcomed(p) | Event::Acked(p) => {
                    if p.txn.0 > self.follower.durable as u64 {
                        return Err(format!("{} acknowledged, {} durable", p.txn, self.follower.durable));
                    }
                    self.acked = self.acked.max(p.txn);
                }
                Event::Closed(_) => self.connected = false,
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    }

    fn actions(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Sync => self.flushing = true,
                Action::Closed(_) | Action::TurnedAway(..) => self.poll_receiver(),
            }
        }
    }

    fn poll_sender(&mut self) {
        if !self.connected {
            self.session += 1;
            self.sender.connect(&self.log, self.session, self.now);
            self.connected = true;
        }
        if !self.sender.may_say() {
            // A stream does not ask then, and nothing but news makes it ask again.
            assert_eq!(self.sender.clone().poll(&self.log, self.now).unwrap(), None, "nothing may be said");
            return;
        }
        if let Some((envelope, message)) = self.sender.poll(&self.log, self.now).unwrap() {
            self.to_replica.push(wire::encode(&message, envelope, true));
        }
    }

    fn poll_bulk(&mut self) {
        if let Some((envelope, message)) = self.sender.poll_bulk(&self.log, self.now).unwrap() {
            self.bulk.push(wire::encode(&message, envelope, true));
        }
    }

    fn poll_receiver(&mut self) {
        while let Some((envelope, message)) = self.receiver.poll(&self.follower, self.now) {
            self.to_primary.push(wire::encode(&message, envelope, false));
        }
    }

    /// The frame that arrives next: the first, or with faults another one, twice, or with a bit flipped.
    fn take(&mut self, way: Way) -> Option<Vec<u8>> {
        let faults = self.faults;
        let queue = match way {
            Way::Records => &mut self.to_replica,
            Way::Bulk => &mut self.bulk,
            Way::Back => &mut self.to_primary,
        };
        if queue.is_empty() {
            return None;
        }
        let odd = faults > 0 && self.random.one_in(faults);
        let at = if odd { self.random.below(queue.len() as u64) as usize } else { 0 };
        let mut frame = if odd && self.random.one_in(3) { queue[at].clone() } else { queue.remove(at) };
        if odd && self.random.one_in(3) {
            let bit = self.random.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        Some(frame)
    }

    fn arrive_at_replica(&mut self, way: Way) {
        let Some(frame) = self.take(way) else { return };
        match wire::decode(&frame) {
            Ok((envelope, message, _)) => {
                let actions = self.receiver.receive(&mut self.follower, &envelope, message, self.now);
                self.actions(actions);
            }
            Err(_) => self.receiver.disconnected(),
        }
    }

    fn arrive_at_primary(&mut self) -> Result<(), String> {
        let Some(frame) = self.take(Way::Back) else { return Ok(()) };
        match wire::decode(&frame) {
            Ok((envelope, message, _)) => {
                let events = self.sender.receive(&self.log, &envelope, message, self.now);
                self.events(events)
            }
            Err(_) => {
                self.disconnect();
                Ok(())
            }
        }
    }

    fn flush_replica(&mut self) {
        if std::mem::take(&mut self.flushing) {
            let outcome = self.follower.sync();
            let actions = self.receiver.synced(&self.follower, outcome);
            self.actions(actions);
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        self.now += Duration::from_millis(self.random.below(700));
        let events = self.sender.tick(self.now);
        let actions = self.receiver.tick(self.now);
        self.actions(actions);
        self.events(events)
    }

    fn fault(&mut self) {
        match self.random.below(5) {
            0 => self.disconnect(),
            1 => self.receiver.disconnected(),
            2 => {
                self.follower.power_cut();
                self.receiver = Receiver::new(NodeId([2; 16]), VE);
                self.flushing = false;
            }
            3 => {
                self.log.power_cut();
                self.log.epoch = Epoch(self.log.epoch.0 + 1);
                let durable = self.log.durable as u64;
                self.log.payloads.retain(|id, _| id.txn.0 <= durable);
                self.sender = Sender::new(NodeId([1; 16]), VE, AHEAD);
                (self.connected, self.session) = (false, 0);
            }
            _ => {
                let way = if self.random.one_in(2) { Way::Records } else { Way::Bulk };
                drop(self.take(way));
            }
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(17) {
            0 => self.write(),
            1 => self.flush(),
            2..=4 => self.poll_sender(),
            5 => self.poll_receiver(),
            6..=8 => self.arrive_at_replica(Way::Records),
            14 => self.poll_bulk(),
            15 | 16 => self.arrive_at_replica(Way::Bulk),
            9 => self.arrive_at_primary()?,
            10 => self.flush_replica(),
            11 if self.random.one_in(5) => self.tick()?,
            13 if self.random.one_in(5) => {
                let copy = if self.random.one_in(2) { &mut self.log } else { &mut self.follower };
                copy.forget();
            }
            12 if self.faults > 0 && self.random.one_in(20) => self.fault(),
            _ => {}
        }
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let (ours, theirs) = (&self.log.txns[..self.log.durable], &self.follower.txns);
        if theirs.len() > ours.len() {
            return Err(format!("the replica has {}, durable at the primary are {}", theirs.len(), ours.len()));
        }
        if let Some(n) = (0..theirs.len()).find(|n| ours[*n].position != theirs[*n].position) {
            return Err(format!("transaction {} differs", n + 1));
        }
        if (self.follower.durable as u64) < self.acked.0 {
            return Err(format!("{} was acknowledged, {} are left", self.acked, self.follower.durable));
        }
        let most = AHEAD + 2 * 4 * 300_100;
        if self.sender.unacknowledged() > most {
            return Err(format!("{} bytes under way", self.sender.unacknowledged()));
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.faults = 0;
        self.flush();
        for _ in 0..20_000 {
            if self.acked.0 == self.log.txns.len() as u64 {
                let equal = self.log.txns == self.follower.txns;
                return if equal { Ok(()) } else { Err("equal positions, other records".into()) };
            }
            self.poll_sender();
            self.poll_bulk();
            self.arrive_at_replica(Way::Records);
            self.arrive_at_replica(Way::Bulk);
            self.flush_replica();
            self.poll_receiver();
            self.arrive_at_primary()?;
            if self.random.one_in(20) {
                self.tick()?;
            }
            self.check()?;
        }
        Err(format!("{} of {} after healing", self.acked, self.log.txns.len()))
    }
}

/// Transactions that came, and payloads that came as hashes.
fn run(seed: u64, primary: Bug, replica: Bug) -> Result<(usize, usize), String> {
    let mut world = World::new(seed, primary, replica);
    world.faults = [0, 100, 20][(seed % 3) as usize];
    world.follower.rotten = seed % 11 == 10;
    for _ in 0..1500 {
        world.step()?;
    }
    world.heal()?;
    Ok((world.follower.durable, world.follower.named.get()))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}: {v:?} is not a number")))
}

#[test]
fn a_replica_is_always_a_part_of_its_primary() {
    let seeds = match number("ASPFS_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ASPFS_SIM_SEEDS").unwrap_or(300),
    };
    let (mut shipped, mut named) = (0, 0);
    for seed in seeds {
        let done = run(seed, Bug::None, Bug::None).unwrap_or_else(|e| panic!("ASPFS_SIM_SEED={seed}: {e}"));
        (shipped, named) = (shipped + done.0, named + done.1);
    }
    assert!(shipped > 0, "nothing was shipped");
    assert!(named > 0 || number("ASPFS_SIM_SEED").is_some(), "nothing was named");
}

/// The same seed does the same.
#[test]
fn a_seed_replays() {
    let story = |seed| {
        let mut world = World::new(seed, Bug::None, Bug::None);
        world.faults = 20;
        let step = |w: &mut World| {
            w.step().map(|()| (w.to_replica.clone(), w.bulk.clone(), w.to_primary.len(), w.acked)).unwrap()
        };
        (0..500).map(|_| step(&mut world)).collect::<Vec<_>>()
    };
    assert!(story(5) == story(5));
    assert!(story(5) != story(6));
}

/// Each planted bug is found within a few seeds.
#[test]
fn planted_bugs_are_found() {
    for (primary, replica, says) in [
        (Bug::None, Bug::DropFsync, "acknowledged"),
        (Bug::None, Bug::AckEarly, "acknowledged"),
        (Bug::ShipEarly, Bug::None, "durable at the primary"),
    ] {
        let found = (0..60).find_map(|seed| run(seed, primary, replica).err());
        let found = found.unwrap_or_else(|| panic!("{primary:?} {replica:?} was not found"));
        assert!(found.contains(says), "{primary:?} {replica:?}: {found}");
    }
}
