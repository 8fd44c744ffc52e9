//! Holding a state that a power cut may leave against the model.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use vefs::Ve;
use vefs::ids::InodeNo;
use vefs::op::{Op, Owner};
use vefs::types::mode;

use super::Mark;
use super::probe::Probe;
use super::record::{Demand, How, Recording, Step, demands, record};
use super::world::{Base, VE, both, open, pattern};
use crate::crash::{Classes, CrashClass, CrashState, Event};
use crate::model::Model;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Stores opened and compared.
    pub recovered: u64,
    /// Not opened, since the same disk with the same metadata had been, and what it recovered to was held against what is demanded.
    pub again: u64,
    /// Of the recovered, found during a recovery.
    pub nested: u64,
    /// Disks that were refused as damaged, or whose damage was met by reading.
    pub damaged: u64,
    /// Points in time with too many states for all of them, where all were asked for.
    pub sampled: u64,
}

impl Tally {
    /// Sums up.
    pub fn add(&mut self, other: Tally) {
        self.recovered += other.recovered;
        self.again += other.again;
        self.nested += other.nested;
        self.damaged += other.damaged;
        self.sampled += other.sampled;
    }
}

/// How deep a sweep looks.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Most states of a class at a point in time; all of them without.
    pub per_class: Option<usize>,
    /// One state of so many is crashed again during its recovery; 0 for none.
    pub nest_every: u64,
    /// Every recovered store is compared with the model, one of so many by lseek(2), too. Every one goes on; the same ones are compared as a whole
    /// after that, and of the others what the going on touched.
    pub whole_every: u64,
    /// Of the samples.
    pub seed: u64,
}

/// Opens every state that a power cut during the run may leave, with each metadata that may be there.
pub fn sweep(run: &Recording, depth: Depth) -> Result<Tally, String> {
    sweep_on(run, depth, &mut Known::default())
}

/// The same, where it is known what some of the states recover to. What is found is noted there.
pub fn sweep_on(run: &Recording, depth: Depth, known: &mut Known) -> Result<Tally, String> {
    let demands = demands(&run.log);
    let mut tally = Tally::default();
    let states = run.recorder.states(&run.log).seed(depth.seed);
    let mut states = match depth.per_class {
        Some(most) => states.per_class(most),
        None => states.complete(),
    };
    for state in states.by_ref() {
        let demand = demands[state.at];
        let all = demand.persisted..=demand.batch;
        for batch in if depth.per_class.is_none() { all.collect() } else { batches(demand) } {
            if known.0.get(&(state.hash, batch)).is_some_and(|k| allowed(&state, demand).contains(k)) {
                tally.again += 1;
                continue;
            }
            // Not the same one of every run: they begin alike.
            let turn = (tally.recovered - tally.nested) + 31 * run.log.len() as u64 + depth.seed;
            let nest = depth.nest_every > 0 && turn.is_multiple_of(depth.nest_every);
            let whole = tally.recovered.is_multiple_of(depth.whole_every);
            let found = one(run, &state, demand, batch, (depth.seed ^ tally.recovered, whole));
            let found = found.map_err(|e| explain(&state, demand, batch, &e))?;
            known.0.insert((state.hash, batch), found);
            tally.recovered += 1;
            if nest {
                let deeper = nested(run, &state, batch, found, depth.seed);
                tally.add(deeper.map_err(|e| explain(&state, demand, batch, &format!("crashed again: {e}")))?);
            }
        }
    }
    tally.sampled = states.counts().sampled;
    Ok(tally)
}

/// What states recovered to: by the disk's hash and the metadata's batch, the operation after which the VE stood. A recovery depends on nothing
/// else, so the same disk met at another point in time is only held against what is demanded there.
#[derive(Clone, Debug, Default)]
pub struct Known(HashMap<(u64, usize), usize>);

impl Known {
    /// Keeps what also counts in a run that begins like this one, up to before its operation `k`.
    pub fn keep_before(&mut self, run: &Recording, k: usize) {
        let begins = begin_of(&run.log, k);
        let batch = demands(&run.log)[begins].batch;
        self.0.retain(|(_, b), found| *b <= batch && *found < k);
    }
}

/// Events before operation `k` begins; all when it does not.
pub fn begin_of(log: &[Event], k: usize) -> usize {
    let mark = Event::Mark(Mark::Issued(k).to_number());
    log.iter().position(|event| *event == mark).unwrap_or(log.len())
}

/// After which operation the VE of a state may stand.
fn allowed(state: &CrashState, demand: Demand) -> RangeInclusive<usize> {
    let low = if state.class == CrashClass::KillDaemon { demand.answered } else { demand.synced };
    low..=demand.issued
}

fn explain(state: &CrashState, demand: Demand, batch: usize, what: &str) -> String {
    format!("{}\n  class {:?}, {demand:?}, metadata after batch {batch}\n  {what}", state.description, state.class)
}

/// The metadata that may be found: what is promised, the newest, and what lies between.
pub fn batches(demand: Demand) -> Vec<usize> {
    let all = demand.persisted..=demand.batch;
    if demand.batch - demand.persisted < 4 {
        return all.collect();
    }
    vec![demand.persisted, demand.persisted + 1, demand.batch - 1, demand.batch]
}

/// Keeps the random numbers of a restarted store apart from those of the runs: names of segments never repeat.
const RESTARTED: u64 = 0xFEED_5EED << 32;

/// Opens one state; the operation after which its VE stands.
fn one(
    run: &Recording,
    state: &CrashState,
    demand: Demand,
    batch: usize,
    (seed, whole): (u64, bool),
) -> Result<usize, String> {
    let storage = Arc::new(state.storage.snapshot());
    storage.set_capacity(run.base.capacity);
    let meta = Arc::new(run.metas[batch].after_crash());
    let base = later(&run.base);
    let (store, clock) = open(&base, storage, meta, seed ^ RESTARTED).map_err(|e| format!("opening the store: {e}"))?;
    let ve = store.ve(VE).map_err(|e| format!("opening the VE: {e}"))?;
    let (low, high) = allowed(state, demand).into_inner();
    let found = which(&run.models, low, high, &ve, whole)?;
    let mut model = run.models[found].clone();
    if run.base.capacity.is_none() {
        go_on(&ve, &mut model, &clock, whole).map_err(|e| format!("after recovery to {found}: {e}"))?;
    }
    Ok(found)
}

/// The same world, as late as a restart is.
fn later(base: &Base) -> Base {
    let mut base = base.clone();
    base.time += Duration::from_secs(1000);
    base
}

/// The newest operation in `low..=high` after which the VE may stand.
fn which(models: &[Model], low: usize, high: usize, ve: &Ve, seeks: bool) -> Result<usize, String> {
    let mut first = None;
    for k in (low..=high.min(models.len() - 1)).rev() {
        match Probe::new(ve, &models[k]).seeking(seeks).run() {
            (Ok(()), 0) => return Ok(k),
            (Ok(()), n) => return Err(format!("{n} reads answered damage, after operation {k}")),
            (Err(e), _) => first = first.or(Some(format!("not the state after {k}: {e}"))),
        }
    }
    let earlier = (0..low).rev().find(|k| Probe::new(ve, &models[*k]).run() == (Ok(()), 0));
    let what = match earlier {
        Some(k) => format!("what was promised is lost: this is the state after {k}"),
        None => "a state that never was".to_owned(),
    };
    Err(format!("{what}; {}", first.unwrap_or_default()))
}

/// The operation that every recovered store must take.
fn more() -> Vec<Op> {
    let root = InodeNo::ROOT;
    let name = b"after the crash".to_vec();
    vec![Op::Create { parent: root, name, mode: mode::IFREG | 0o600, rdev: 0, owner: Owner::default() }]
}

fn go_on(ve: &Ve, model: &mut Model, clock: &vefs::clock::ManualClock, whole: bool) -> Result<(), String> {
    for op in more() {
        both(ve, model, &op, clock)?.map_err(|e| e.to_string())?;
    }
    ve.sync().map_err(|e| e.to_string())?;
    let made = vefs::ids::InodeNo(model.next_ino().0 - 1);
    let data = Op::Write { ino: made, offset: 0, data: pattern(3, 200), kill_priv: false };
    both(ve, model, &data, clock)?.map_err(|e| e.to_string())?;
    let probe = Probe::new(ve, model);
    let found = if whole { probe.run() } else { probe.run_on(&[InodeNo::ROOT, made]) };
    match found {
        (Ok(()), 0) => Ok(()),
        (found, n) => Err(format!("going on: {found:?}, {n} reads answered damage")),
    }
}

/// Crashes the recovery of a state, and the operation after it, at every point.
fn nested(run: &Recording, state: &CrashState, batch: usize, found: usize, seed: u64) -> Result<Tally, String> {
    let mut base = later(&run.base);
    base.storage = Arc::new(state.storage.snapshot());
    base.meta = Arc::new(run.metas[batch].after_crash());
    base.model = run.models[found].clone();
    let made = base.model.next_ino();
    let data = Op::Write { ino: made, offset: 0, data: pattern(9, 66_000), kill_priv: false };
    let mut steps: Vec<Step> = more().into_iter().map(Step::Op).collect();
    steps.extend([Step::Sync, Step::Op(data), Step::Persist]);
    // Other random numbers than the run's own: names and incarnations of segments never repeat.
    let inner = record(&base, &steps, How { seed: !seed, ..How::default() })?;
    let demands = demands(&inner.log);
    let mut tally = Tally::default();
    let classes = Classes::KILL_DAEMON | Classes::NOTHING | Classes::ONLY_ONE | Classes::DROP_ONE | Classes::TORN_512;
    for state in inner.recorder.states(&inner.log).classes(classes).per_class(2).seed(seed) {
        let demand = demands[state.at];
        for batch in batches(demand) {
            one(&inner, &state, demand, batch, (seed, true)).map_err(|e| explain(&state, demand, batch, &e))?;
            tally.recovered += 1;
            tally.nested += 1;
        }
    }
    Ok(tally)
}
