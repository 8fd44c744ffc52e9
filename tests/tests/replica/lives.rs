//! The lives of a primary and a replica that are real stores, with the machines between them: journals, recovery and apply code as they are shipped,
//! over storage that dies in the middle of a call or loses what was not flushed, and a link that repeats, reorders, drops and flips.
//!
//! Everything is drawn from one seed. Checked:
//! - after each step the replica's head is a durable version of the primary, through power cuts of both (checks G2, G9, G12);
//! - what was acknowledged is at the replica after whatever happens to it (checks G11);
//! - now and then, and when all is healed, both have the same state (checks G13).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::apply::{Action, Receiver};
use aspfs_replica::local::{VeFollower, VeLog};
use aspfs_replica::log::Follower;
use aspfs_replica::node::NodeId;
use aspfs_replica::ship::{Event, Sender};
use aspfs_replica::wire::{self, Message, WirePayload, WireRecord};
use aspfs_tests::harness::{create_ve, empty_tree, small_options};
use aspfs_tests::model::Model;
use aspfs_tests::opgen::{self, Rng};
use aspfs_tests::run::{Counts, OnDisk, Simulated, World};
use vefs::Ve;
use vefs::clock::Clock;
use vefs::ids::{Epoch, Position, TxnNo, VeId};
use vefs::store::Store;
use vefs::ve::{Known, Request, Retention};

const VE: VeId = VeId(7);
const PRIMARY: NodeId = NodeId([1; 16]);
const REPLICA: NodeId = NodeId([2; 16]);
const AHEAD: u64 = 1 << 20;
const QUOTA: (u64, u64) = (1 << 30, 10_000);

/// A node's store and what it lies on.
struct Side {
    world: Box<dyn World>,
    store: Option<Arc<Store>>,
}

impl Side {
    fn new(mut world: Box<dyn World>) -> Result<Side, String> {
        let store = Some(world.open().map_err(|e| e.to_string())?);
        Ok(Side { world, store })
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().unwrap()
    }

    fn ve(&self) -> Result<Arc<Ve>, String> {
        self.store().ve(VE).map_err(|e| format!("opening the VE: {e}"))
    }

    /// The process ends, the power with it or not, and starts again. Says what was lost.
    fn die(&mut self, rng: &mut Rng, power: bool) -> Result<String, String> {
        self.world.dying(rng);
        self.store = None;
        let cut = if power { self.world.cut(rng) } else { None };
        let lost = cut.unwrap_or_else(|| self.world.kill(rng));
        self.store = Some(self.world.open().map_err(|e| format!("starting: {e}; lost: {lost}"))?);
        Ok(lost)
    }
}

struct Life {
    rng: Rng,
    model: Model,
    primary: Side,
    replica: Side,
    sender: Sender,
    session: u64,
    connected: bool,
    receiver: Receiver,
    follower: Option<VeFollower>,
    flushing: bool,
    to_replica: VecDeque<Vec<u8>>,
    bulk: VecDeque<Vec<u8>>,
    to_primary: VecDeque<Vec<u8>>,
    acked: Option<Position>,
    now: Duration,
    faults: bool,
    counts: Counts,
}

type Done = Result<(), String>;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

impl Life {
    fn new(seed: u64, world: fn(u64) -> vefs::Result<Box<dyn World>>) -> Result<Life, String> {
        let primary = Side::new(world(seed).map_err(text)?)?;
        let replica = Side::new(world(seed + 1_000_000).map_err(text)?)?;
        let ve = create_ve(primary.store(), VE.0, QUOTA.0, QUOTA.1).map_err(text)?;
        ve.set_cursor(REPLICA.0, TxnNo(0)).map_err(text)?;
        let lineage = ve.identity().lineage;
        replica.store().create_follower(VE, lineage, empty_tree(), Epoch(1)).map_err(text)?;
        let follower = Some(VeFollower::new(replica.ve()?));
        Ok(Life {
            rng: Rng::new(seed),
            model: Model::new(QUOTA.0, QUOTA.1),
            primary,
            replica,
            sender: Sender::new(PRIMARY, VE, AHEAD),
            session: 0,
            connected: false,
            receiver: Receiver::new(REPLICA, VE),
            follower,
            flushing: false,
            to_replica: VecDeque::new(),
            bulk: VecDeque::new(),
            to_primary: VecDeque::new(),
            acked: None,
            now: Duration::ZERO,
            faults: true,
            counts: Counts::default(),
        })
    }

    fn write(&mut self) -> Done {
        let ve = self.primary.ve()?;
        for _ in 0..self.rng.below(8) {
            self.primary.world.clock().advance(Duration::from_millis(3));
            let op = opgen::next_op(&mut self.rng, &self.model);
            let now = self.primary.world.clock().wall();
            if ve.execute(&op, Request::default()).is_ok() {
                let _ = self.model.apply(&op, now);
                self.counts.add("operations");
            }
        }
        Ok(())
    }

    /// What a store does of its own accord. It may die of it.
    fn work(&mut self, primary: bool) {
        let side = if primary { &self.primary } else { &self.replica };
        let Ok(ve) = side.ve() else { return };
        let store = side.store();
        let _ = match self.rng.below(7) {
            0 => ve.publish(),
            1 => ve.housekeep(Duration::ZERO).map(drop),
            2 => store.collect_garbage(&Retention { steps: vec![] }).map(drop),
            3 => store.checkpoint().map(drop),
            4 if primary => ve.sync(),
            _ if primary => store.tick().map(drop),
            _ => Ok(()),
        };
    }

    /// A process dies: in the middle of what comes next, or at once.
    fn fault(&mut self) -> Done {
        let primary = self.rng.percent(50);
        if self.rng.percent(50) {
            let calls = self.rng.below(40) as u32;
            let side = if primary { &self.primary } else { &self.replica };
            side.world.fuse().arm(calls);
            return Ok(());
        }
        self.die(primary)
    }

    fn die(&mut self, primary: bool) -> Done {
        let power = self.rng.percent(50);
        self.counts.add(if primary { "the primary died" } else { "the replica died" });
        self.to_replica.clear();
        self.bulk.clear();
        self.to_primary.clear();
        (self.sender, self.connected) = (Sender::new(PRIMARY, VE, AHEAD), false);
        if primary {
            self.session = 0;
            self.primary.die(&mut self.rng, power)?;
            // As a node does when it starts: the row of a cursor may be lost with the rest of the metadata.
            let ve = self.primary.ve()?;
            if ve.cursors().is_empty() {
                ve.set_cursor(REPLICA.0, TxnNo(0)).map_err(text)?;
            }
            return self.check();
        }
        (self.receiver, self.follower, self.flushing) = (Receiver::new(REPLICA, VE), None, false);
        let lost = self.replica.die(&mut self.rng, power)?;
        let ve = self.replica.ve()?;
        if let Some(acked) = self.acked {
            // Where the journal does not reach back the head says it, which the primary is asked about below.
            let known = ve.position_at(acked.txn).map_err(text)?;
            if known != Known::Here(acked) && (known != Known::Gone || ve.position().txn < acked.txn) {
                return Err(format!("{acked:?} was acknowledged; the replica has {:?}; lost: {lost}", ve.position()));
            }
        }
        self.follower = Some(VeFollower::new(ve));
        self.check()
    }

    fn poll(&mut self) -> Done {
        let log = VeLog(self.primary.ve()?);
        if !self.connected {
            self.session += 1;
            self.sender.connect(&log, self.session, self.now);
            self.connected = true;
            self.counts.add("sessions");
        }
        // What cannot be read ends a session; a store that died in it is started again.
        match self.sender.poll(&log, self.now) {
            Ok(Some((envelope, message))) => {
                if let Message::Records(records) = &message {
                    let cancelled = |r: &&WireRecord| matches!(r.payload, Some(WirePayload::Cancelled(_)));
                    records.iter().filter(cancelled).for_each(|_| self.counts.add("payloads cancelled"));
                }
                self.to_replica.push_back(wire::encode(&message, envelope, true));
            }
            Ok(None) => {}
            Err(_) => self.connected = false,
        }
        match self.sender.poll_bulk(&log, self.now) {
            Ok(Some((envelope, message))) => self.bulk.push_back(wire::encode(&message, envelope, true)),
            Ok(None) => {}
            Err(_) => self.connected = false,
        }
        while let Some((envelope, message)) =
            self.follower.as_ref().and_then(|follower| self.receiver.poll(follower, self.now))
        {
            self.to_primary.push_back(wire::encode(&message, envelope, false));
        }
        Ok(())
    }

    /// The frame that arrives next: the first, or another one, or once more, or with a bit flipped.
    fn take(&mut self, replica: bool) -> Option<Vec<u8>> {
        let odd = self.faults && self.rng.below(40) == 0;
        let queue = match replica {
            // Neither of the two streams waits for the other.
            true if self.to_replica.is_empty() || (!self.bulk.is_empty() && self.rng.percent(40)) => &mut self.bulk,
            true => &mut self.to_replica,
            false => &mut self.to_primary,
        };
        if !odd {
            return queue.pop_front();
        }
        self.counts.add("odd frames");
        let at = self.rng.below(queue.len().max(1) as u64) as usize;
        let mut frame = if self.rng.percent(50) { queue.get(at).cloned()? } else { queue.remove(at)? };
        if self.rng.percent(50) {
            let bit = self.rng.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        Some(frame)
    }

    fn arrive(&mut self) -> Done {
        if let Some(frame) = self.take(true)
            && let Some(follower) = &mut self.follower
        {
            match wire::decode(&frame) {
                Ok((envelope, message, _)) => {
                    let actions = self.receiver.receive(follower, &envelope, message, self.now);
                    self.flushing |= actions.contains(&Action::Sync);
                }
                Err(_) => self.receiver.disconnected(),
            }
        }
        let Some(frame) = self.take(false) else { return Ok(()) };
        let log = VeLog(self.primary.ve()?);
        match wire::decode(&frame) {
            Ok((envelope, message, _)) => {
                let events = self.sender.receive(&log, &envelope, message, self.now);
                self.events(events)
            }
            Err(_) => {
                self.sender.disconnected();
                self.connected = false;
                Ok(())
            }
        }
    }

    fn events(&mut self, events: Vec<Event>) -> Done {
        for event in events {
            match event {
                Event::Welcomed(position) | Event::Acked(position) => {
                    if self.acked.is_none_or(|acked| acked.txn <= position.txn) {
                        self.acked = Some(position);
                    }
                    // A primary that is dying may not note it.
                    let _ = self.primary.ve()?.set_cursor(REPLICA.0, position.txn);
                    self.counts.add("acknowledgements");
                }
                Event::Closed(_) => self.connected = false,
                Event::HigherEpoch(_) => self.connected = false,
                // A store that is dying cannot look anything up.
                _ if self.primary.world.fuse().is_blown() => self.connected = false,
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        let Some(follower) = self.follower.as_mut().filter(|_| self.flushing) else { return };
        self.flushing = false;
        let outcome = follower.sync();
        let actions = self.receiver.synced(follower, outcome);
        self.flushing |= actions.contains(&Action::Sync);
    }

    fn tick(&mut self) -> Done {
        self.now += Duration::from_millis(self.rng.below(700));
        let events = self.sender.tick(self.now);
        self.receiver.tick(self.now);
        self.events(events)
    }

    fn step(&mut self) -> Done {
        match self.rng.below(20) {
            0..=2 => self.write()?,
            3 | 4 => self.work(true),
            5 => self.work(false),
            6..=10 => self.poll()?,
            11..=14 => self.arrive()?,
            15..=17 => self.flush(),
            18 => self.tick()?,
            _ if self.faults && self.rng.percent(15) => self.fault()?,
            _ => {}
        }
        for primary in [true, false] {
            let side = if primary { &self.primary } else { &self.replica };
            if side.world.fuse().is_blown() {
                self.counts.add("died in the middle");
                self.die(primary)?;
            }
        }
        self.check()
    }

    /// The replica has what the primary had, and not what it may lose.
    fn check(&mut self) -> Done {
        if self.primary.world.fuse().is_blown() || self.replica.world.fuse().is_blown() {
            return Ok(());
        }
        let (ours, theirs) = (self.primary.ve()?, self.replica.ve()?);
        let head = theirs.position();
        let known = ours.position_at(head.txn).map_err(text)?;
        if known != Known::Here(head) && head.txn > TxnNo(0) {
            return Err(format!("the replica is at {head:?}, the primary knows {known:?}"));
        }
        if self.rng.below(200) == 0 && head.txn > TxnNo(0) {
            self.same(&ours, &theirs, head.txn)?;
        }
        Ok(())
    }

    fn same(&mut self, ours: &Arc<Ve>, theirs: &Arc<Ve>, txn: TxnNo) -> Done {
        let root = |ve: &Arc<Ve>| ve.version(txn).and_then(|v| v.logical_root());
        // A version that was collected cannot be compared.
        if let (Ok(a), Ok(b)) = (root(ours), root(theirs)) {
            self.counts.add("states compared");
            if a != b {
                return Err(format!("other states at {txn}"));
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> Done {
        self.faults = false;
        for side in [&self.primary, &self.replica] {
            side.world.fuse().disarm();
        }
        // To start a real store anew takes a second.
        let primary = self.rng.percent(50);
        self.die(primary)?;
        self.primary.ve()?.commit().map_err(text)?;
        for _ in 0..20_000 {
            let (ours, theirs) = (self.primary.ve()?, self.replica.ve()?);
            let end = ours.durable_position();
            if self.acked == Some(end) && theirs.durable_position() == end {
                let before = self.counts.get("states compared");
                self.same(&ours, &theirs, end.txn)?;
                let compared = self.counts.get("states compared") > before;
                return if compared { Ok(()) } else { Err("the states cannot be read".into()) };
            }
            self.poll()?;
            self.arrive()?;
            self.flush();
            if self.rng.below(20) == 0 {
                self.tick()?;
            }
            self.check()?;
        }
        let (ours, theirs) = (self.primary.ve()?.durable_position(), self.replica.ve()?.durable_position());
        Err(format!("after healing: {ours:?}, acknowledged {:?}, at the replica {theirs:?}", self.acked))
    }
}

fn live(seed: u64, steps: u64, world: fn(u64) -> vefs::Result<Box<dyn World>>) -> Result<Counts, String> {
    let mut life = Life::new(seed, world)?;
    for step in 0..steps {
        life.step().map_err(|e| format!("step {step}: {e}"))?;
    }
    life.heal()?;
    Ok(life.counts)
}

fn all(seeds: std::ops::Range<u64>, steps: u64, world: fn(u64) -> vefs::Result<Box<dyn World>>) {
    let seeds = match std::env::var("ASPFS_SIM_SEED") {
        Ok(seed) => seed.parse().map(|s| s..s + 1).unwrap(),
        Err(_) => seeds,
    };
    let many = seeds.end - seeds.start > 1;
    let halves: Vec<_> = std::thread::scope(|scope| {
        let run = |part: u64| {
            let mine = seeds.clone().filter(move |s| s % 2 == part);
            scope.spawn(move || mine.map(|s| (s, live(s, steps, world))).collect::<Vec<_>>())
        };
        [run(0), run(1)].into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let mut sum = Counts::default();
    for (seed, done) in halves {
        sum.merge(&done.unwrap_or_else(|e| panic!("ASPFS_SIM_SEED={seed}: {e}")));
    }
    println!("{sum:?}");
    let must = ["acknowledgements", "died in the middle", "the primary died", "the replica died", "odd frames"];
    for what in must.into_iter().chain(["payloads cancelled"]) {
        assert!(!many || sum.get(what) > 10, "too rare: {what}: {sum:?}");
    }
}

#[test]
fn lives_on_disks_that_lose_what_was_not_flushed() {
    all(0..400, 800, |seed| Ok(Box::new(Simulated::create(seed, small_options())?)));
}

#[test]
fn lives_with_real_files_and_real_metadata() {
    all(0..50, 150, |seed| Ok(Box::new(OnDisk::create(seed, small_options())?)));
}
