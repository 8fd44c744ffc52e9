//! Whole runs: a seed's life, its repair, and what a planted bug comes to.

use std::time::{Duration, Instant};

use aspfs_replica::window::State;

use super::net::Weather;
use super::oracle::Broken;
use super::seat::Run;
use super::store::Bug;
use super::world::World;

/// How long things break.
const STORM: Duration = Duration::from_secs(120);
/// How long the repair may take.
const REPAIR: Duration = Duration::from_secs(240);

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub seconds: f64,
    pub steps: u64,
    pub packets: u64,
    pub completed: u64,
    pub lagged: u64,
    pub promotions: u64,
    pub switchovers: u64,
    pub rewinds: u64,
    pub branches: u64,
    pub lost: u64,
    pub power_cuts: u64,
    /// Payloads that came as hashes.
    pub named: u64,
    pub cancelled: u64,
}

impl Figures {
    fn add(&mut self, o: &Figures) {
        self.seconds += o.seconds;
        self.steps += o.steps;
        self.packets += o.packets;
        self.completed += o.completed;
        self.lagged += o.lagged;
        self.promotions += o.promotions;
        self.switchovers += o.switchovers;
        self.rewinds += o.rewinds;
        self.branches += o.branches;
        self.lost += o.lost;
        self.power_cuts += o.power_cuts;
        self.named += o.named;
        self.cancelled += o.cancelled;
    }
}

fn until(world: &mut World, end: Duration, done: impl Fn(&World) -> bool) -> Result<bool, Broken> {
    let mut steps = 0;
    while world.net.now < end {
        if !world.step() {
            break;
        }
        if let Some(broken) = world.oracle.broken.first() {
            return Err(broken.clone());
        }
        steps += 1;
        if steps % 64 == 0 && done(world) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn heal(world: &mut World) {
    world.chaos = false;
    world.net.blocked.clear();
    world.net.weather = Weather { delay: 1000, rate: 50_000_000, ..Weather::default() };
    world.restart_arbiter(true);
    for n in 0..world.nodes.len() {
        (world.nodes[n].stopped, world.nodes[n].held) = (Duration::ZERO, false);
        world.nodes[n].seats.values_mut().for_each(|s| s.store.full = false);
        world.start(n);
    }
}

/// Whether each VE has one primary, and all its members what the primary has.
fn is_whole(world: &World) -> bool {
    (0..world.config.members.len()).all(|ve| {
        let Some(writer) = world.writer(ve) else { return false };
        let Run::Primary(p) = &world.nodes[writer].seats[&ve].run else { return false };
        let store = &world.nodes[writer].seats[&ve].store;
        let bits = world.config.flagged[ve] & !(1 << writer);
        let all = world.config.members[ve].iter().all(|n| {
            let other = &world.nodes[*n].seats[&ve].store;
            let roles = (*n == writer) == matches!(world.nodes[*n].seats[&ve].run, Run::Primary(_));
            roles && other.durable_head() == store.durable_head() && other.head() == store.head()
        });
        all && p.open
            && store.state.required() == bits
            && matches!(p.window.state(), State::Protected | State::Unprotected)
    })
}

/// The life of a seed. `Err`: which promise was broken.
pub fn life(seed: u64, bug: Bug) -> Result<Figures, Broken> {
    let mut world = World::new(seed, bug);
    until(&mut world, STORM, |_| false)?;
    heal(&mut world);
    if !until(&mut world, STORM + REPAIR, is_whole)? {
        return Err(Broken("healing", describe(&world)));
    }
    for ve in 0..world.config.members.len() {
        let writer = world.writer(ve).unwrap_or(0);
        let root = world.nodes[writer].seats[&ve].store.state.root();
        for n in &world.config.members[ve] {
            if world.nodes[*n].seats[&ve].store.state.root() != root {
                return Err(Broken("G13", format!("node {n} has another state of VE {ve} at the end")));
            }
        }
    }
    let mut f = Figures { seconds: world.net.now.as_secs_f64(), steps: world.steps, ..Figures::default() };
    (f.packets, f.power_cuts) = (world.net.packets, world.power_cuts);
    let stores = || world.nodes.iter().flat_map(|n| n.seats.values()).map(|s| &s.store);
    f.named = stores().map(|s| s.named.get()).sum();
    f.cancelled = stores().map(|s| s.cancelled.get()).sum();
    for known in &world.oracle.ves {
        f.completed += known.completed;
        f.lagged += known.lagged;
        f.promotions += known.promotions;
        f.switchovers += known.switchovers;
        f.rewinds += known.rewinds;
        f.branches += known.branches;
        f.lost += known.lost;
    }
    Ok(f)
}

fn describe(world: &World) -> String {
    let mut text = format!("mode {:?}, at {:?}", world.config.mode, world.net.now);
    for ve in 0..world.config.members.len() {
        text += &format!("\n VE {ve}, flagged {:b}, {:?}", world.config.flagged[ve], world.config.policy[ve]);
        for n in &world.config.members[ve] {
            let node = &world.nodes[*n];
            let seat = &node.seats[&ve];
            let head = seat.store.head();
            let role = seat.store.role;
            text += &format!(
                "\n  node {n} up {} {:?} epoch {:x} successor {:?} head {}@{:x} durable {} required {:b} {}",
                node.up,
                role.kind,
                role.epoch.0,
                role.successor,
                head.txn,
                head.epoch.0,
                seat.store.durable_head().txn,
                seat.store.state.required(),
                seat.describe(),
            );
        }
    }
    text
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}: {v:?} is not a number")))
}

/// Where the seeds stand that broke a promise once: a number a line, and behind it which one.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/cluster/kept-seeds");

fn kept(text: &str) -> Vec<u64> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let number = |l: &str| l.split_whitespace().next().and_then(|n| n.parse().ok());
    lines.map(|l| number(l).unwrap_or_else(|| panic!("{KEPT}: {l:?} does not begin with a seed"))).collect()
}

/// Keeps what failed, so that every later run begins with it.
fn keep(seed: u64, broken: &Broken) {
    let Ok(text) = std::fs::read_to_string(KEPT) else { return };
    if !kept(&text).contains(&seed) {
        let first = broken.1.lines().next().unwrap_or_default();
        let line = format!("{seed} {}: {}\n", broken.0, first.chars().take(100).collect::<String>());
        if let Err(e) = std::fs::write(KEPT, text + &line) {
            eprintln!("{KEPT}: {e}");
        }
    }
}

#[test]
fn kept_seeds_are_read() {
    assert_eq!(kept("# a word\n\n 17 G14: too old\n4\n"), [17, 4]);
    let text = std::fs::read_to_string(KEPT).unwrap();
    assert!(!kept(&text).is_empty(), "{KEPT} has no seed");
}

/// Checks G9 to G23 as far as the module says, with the kept seeds first. `ASPFS_SIM_SEEDS=n` runs n seeds, `ASPFS_SIM_SEED=s` only that one.
#[test]
fn a_cluster_keeps_its_promises() {
    let seeds: Vec<u64> = match number("ASPFS_SIM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let all = number("ASPFS_SIM_SEEDS").unwrap_or(2000);
            let before = kept(&std::fs::read_to_string(KEPT).unwrap());
            before.into_iter().filter(|s| *s >= all).chain(0..all).collect()
        }
    };
    let started = Instant::now();
    let halves = std::thread::scope(|scope| {
        let run = |part: u64| {
            let mine: Vec<u64> = seeds.iter().copied().filter(|s| s % 2 == part).collect();
            let one = |seed: u64| life(seed, Bug::None).map_err(|b| (seed, b));
            mine.into_iter().map(one).collect::<Vec<_>>()
        };
        let other = scope.spawn(move || run(1));
        let mut all = run(0);
        all.extend(other.join().unwrap());
        all
    });
    let (mut sum, mut bad) = (Figures::default(), vec![]);
    for outcome in halves {
        match outcome {
            Ok(figures) => sum.add(&figures),
            Err((seed, broken)) => {
                keep(seed, &broken);
                bad.push(format!("ASPFS_SIM_SEED={seed}: {}: {}", broken.0, broken.1));
            }
        }
    }
    let wall = started.elapsed().as_secs_f64();
    println!("{} seeds in {wall:.1} s, {:.0} simulated seconds a second: {sum:?}", seeds.len(), sum.seconds / wall);
    assert!(bad.is_empty(), "{} of {} seeds:\n{}", bad.len(), seeds.len(), bad[..bad.len().min(12)].join("\n"));
    if seeds.len() >= 100 {
        let happened = [
            sum.promotions,
            sum.switchovers,
            sum.rewinds,
            sum.branches,
            sum.lagged,
            sum.lost,
            sum.named,
            sum.cancelled,
        ];
        assert!(happened.iter().all(|n| *n > 10), "something never happened: {sum:?}");
    }
}

/// The same seed does the same.
#[test]
fn a_life_replays() {
    let story = |seed| {
        let mut world = World::new(seed, Bug::None);
        (0..3000).map(|_| (world.step(), world.net.now, world.net.packets)).collect::<Vec<_>>()
    };
    assert!(story(9) == story(9));
    assert!(story(9) != story(13));
}

/// Each planted bug is found within some seeds, as the promise that it breaks.
#[test]
fn planted_bugs_are_found() {
    for (bug, promises) in [
        (Bug::DropFsync, &["G11"][..]),
        (Bug::AckEarly, &["G11"]),
        (Bug::ShipEarly, &["G12"]),
        (Bug::SkipEpoch, &["G10", "G12", "G9", "G18"]),
        (Bug::ForkOffByOne, &["G21"]),
        (Bug::RoleLate, &["G21", "G18"]),
        (Bug::NoThrottle, &["G14"]),
        (Bug::NoLease, &["G18"]),
        (Bug::DropTail, &["G22"]),
    ] {
        let found = (0..2000).find_map(|seed| life(seed, bug).err());
        let Broken(promise, text) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        assert!(promises.contains(&promise), "{bug:?}: {promise}: {text}");
    }
}
