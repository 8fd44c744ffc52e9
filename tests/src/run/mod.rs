//! Long random runs of a store against the oracle: several VEs, file operations, and everything that may happen to a store
//! meanwhile: ticks, publishing, checkpoints, garbage collection, holds, old versions, killed processes, power cuts.
//!
//! A run follows from its seed alone. After each operation the answer and the inodes it is about are compared; at events
//! everything is. What is checked at a restart:
//! - a process died (G31): the state is that after the last operation that was answered, or the one it died in;
//! - the power went (G2): the state is that after some operation not older than the last acknowledged sync;
//! - transactions that were durable have their numbers and chain hashes still (G13), versions read as they did (G25).

pub mod event;
pub mod fuse;
mod history;
mod lives;
pub mod meta;
mod runner;
pub mod subject;
pub mod touched;
pub mod tree;
pub mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

pub use event::Event;
pub use runner::Runner;
pub use world::{OnDisk, Simulated, World};

use crate::harness::small_options;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// Steps: operations and events.
    pub steps: u64,
    /// From this step on everything is compared after each: finds the moment a difference begins.
    pub strict_from: u64,
}

impl Plan {
    /// A plan without strictness.
    pub fn new(seed: u64, steps: u64) -> Plan {
        Plan { seed, steps, strict_from: u64::MAX }
    }
}

/// What happened in a run, by name.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    /// One more.
    pub fn add(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    /// How often it happened.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Takes another run's in.
    pub fn merge(&mut self, other: &Counts) {
        for (name, n) in &other.0 {
            *self.0.entry(name).or_default() += n;
        }
    }
}

/// A run that found a difference.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The step at which it was found.
    pub step: u64,
    /// What is different.
    pub message: String,
    /// The last events before.
    pub events: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events.join("; ");
        write!(f, "seed {} step {}: {}\nlast events: {events}", self.seed, self.step, self.message)
    }
}

thread_local! {
    static STEP: Cell<u64> = const { Cell::new(0) };
}

/// The step that a run of this thread has come to: for telling where it panicked.
pub fn last_step() -> u64 {
    STEP.get()
}

/// Runs a seed in memory.
pub fn simulate(plan: Plan) -> Result<Counts, Failure> {
    let fail = |e: vefs::Error| Failure { seed: plan.seed, step: 0, message: e.to_string(), events: Vec::new() };
    let world = Simulated::create(plan.seed, small_options()).map_err(fail)?;
    Runner::new(Box::new(world), plan).run()
}

/// Runs a seed in a folder on disk, with RocksDB.
pub fn run_on_disk(plan: Plan) -> Result<Counts, Failure> {
    let fail = |e: vefs::Error| Failure { seed: plan.seed, step: 0, message: e.to_string(), events: Vec::new() };
    let world = OnDisk::create(plan.seed, small_options()).map_err(fail)?;
    Runner::new(Box::new(world), plan).run()
}
