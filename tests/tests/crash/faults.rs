//! Disks that fail: an error of the journal makes the VE read-only and nothing is tried twice; an error elsewhere fails what
//! met it; after a restart everything that was synced is there.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::crashrun::check::{Depth, Tally, sweep};
use aspfs_tests::crashrun::probe::Probe;
use aspfs_tests::crashrun::record::{How, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, VE, both, open, tiny_options};
use aspfs_tests::model::Model;
use aspfs_tests::opgen::{Rng, next_op};
use vefs::storage::fault::{Call, FaultPlan, FaultStorage};
use vefs::storage::memory::MemStorage;
use vefs::{Error, Ve};

use crate::random::draw;

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Write,
    Short(usize),
    Sync,
    SyncDir,
    Create,
}

/// A store in memory behind a plan of faults.
struct Failing {
    base: Base,
    disk: Arc<MemStorage>,
    meta: Arc<vefs::meta::MemoryMeta>,
    plan: Arc<FaultPlan>,
}

impl Failing {
    fn new(base: &Base) -> Failing {
        let (disk, meta) = (Arc::new(base.storage.snapshot()), Arc::new(base.meta.after_crash()));
        Failing { base: base.clone(), disk, meta, plan: FaultPlan::new() }
    }

    fn arm(&self, fault: Fault, nth: u64) {
        match fault {
            Fault::Write => self.plan.fail(Call::Write, nth, ErrorKind::Other),
            Fault::Short(lands) => self.plan.short_write(nth, lands, ErrorKind::WriteZero),
            Fault::Sync => self.plan.fail(Call::Sync, nth, ErrorKind::Other),
            Fault::SyncDir => self.plan.fail(Call::SyncDir, nth, ErrorKind::Other),
            Fault::Create => self.plan.fail(Call::Create, nth, ErrorKind::Other),
        }
    }

    /// The daemon starts again on what the disk has.
    fn reopen(&self) -> Result<Arc<Ve>, String> {
        let disk = Arc::new(self.disk.snapshot());
        let meta = Arc::new(self.meta.after_crash());
        let opened = open(&self.base, disk, meta, 0x4E_0000_0000).and_then(|(store, _)| store.ve(VE));
        opened.map_err(|e| format!("after a restart: {e}"))
    }
}

/// The models a restart may find: what is known to be durable, and everything after it.
struct Legal(Vec<Model>);

impl Legal {
    fn last(&self) -> &Model {
        &self.0[self.0.len() - 1]
    }

    fn holds(&self, ve: &Ve) -> Result<(), String> {
        let mut first = String::new();
        for model in self.0.iter().rev() {
            match Probe::new(ve, model).run() {
                (Ok(()), 0) => return Ok(()),
                (found, n) if first.is_empty() => first = format!("{found:?}, {n} reads answered damage"),
                _ => {}
            }
        }
        Err(first)
    }
}

/// One run with one fault in it; whether the VE went read-only.
fn run(base: &Base, fault: Fault, nth: u64, seed: u64) -> Result<bool, String> {
    let world = Failing::new(base);
    let storage = Arc::new(FaultStorage::new(world.disk.clone(), world.plan.clone()));
    let (store, clock) = open(base, storage, world.meta.clone(), seed << 32 | 0xFA).map_err(|e| e.to_string())?;
    let ve = store.ve(VE).map_err(|e| e.to_string())?;
    world.arm(fault, nth);
    let mut legal = Legal(vec![base.model.clone()]);
    let mut rng = Rng::new(seed);
    for _ in 0..60 {
        clock.advance(Duration::from_millis(5));
        let mut model = legal.last().clone();
        let op = next_op(&mut rng, &model);
        let done = both(&ve, &mut model, &op, &clock)?;
        if ve.read_only_reason().is_some() {
            // The frame may have landed all the same.
            let mut whole = legal.last().clone();
            let _ = whole.apply(&op, vefs::clock::Clock::wall(&*clock));
            legal.0.insert(legal.0.len() - 1, whole);
            return stopped(&world, &ve, &store, &legal, done.err());
        }
        // An error that is not the journal's fails what met it, and only that.
        legal.0.push(model);
        let promised = match rng.below(8) {
            0 | 1 => ve.sync(),
            2 => store.tick(),
            3 => ve.publish(),
            _ => continue,
        };
        if ve.read_only_reason().is_some() {
            return stopped(&world, &ve, &store, &legal, promised.err());
        }
        if promised.is_ok() {
            legal.0.drain(..legal.0.len() - 1);
        }
        let live = Probe::new(&ve, legal.last()).run();
        if live != (Ok(()), 0) {
            return Err(format!("going on after {promised:?}: {live:?}"));
        }
    }
    world.plan.heal();
    ve.sync().map_err(|e| format!("after the fault: {e}"))?;
    legal.0.drain(..legal.0.len() - 1);
    legal.holds(&*world.reopen()?)?;
    Ok(false)
}

/// The VE went read-only: it says so, answers reads, tries nothing again; a restart finds what was synced.
fn stopped(world: &Failing, ve: &Ve, store: &vefs::Store, legal: &Legal, error: Option<Error>) -> Result<bool, String> {
    if let Some(e) = &error
        && !matches!(e, Error::ReadOnly { .. })
    {
        return Err(format!("it went read-only with {e:?}"));
    }
    let live = Probe::new(ve, legal.last()).run();
    if live != (Ok(()), 0) {
        return Err(format!("read-only, and what is read is wrong: {live:?}"));
    }
    let before = world.plan.counts();
    let owner = vefs::op::Owner::default();
    let parent = vefs::ids::InodeNo::ROOT;
    let op = vefs::op::Op::Symlink { parent, name: b"after".to_vec(), target: b"x".to_vec(), owner };
    for tried in [ve.execute(&op, Default::default()).map(|_| ()), ve.sync(), ve.commit()] {
        if !matches!(tried, Err(Error::ReadOnly { .. })) {
            return Err(format!("a read-only VE answers {tried:?}"));
        }
    }
    store.tick().map_err(|e| format!("the tick with a read-only VE: {e}"))?;
    let after = world.plan.counts();
    if (before.writes, before.syncs) != (after.writes, after.syncs) {
        return Err(format!("something was tried again: {before:?}, then {after:?}"));
    }
    legal.holds(&*world.reopen()?)?;
    Ok(true)
}

/// Checks G3: every write, flush and creation fails once, at each place in a run.
#[test]
fn a_failing_disk_stops_the_journal_and_loses_nothing_synced() {
    let base = Base::prepared(Rest::Published, tiny_options()).unwrap().0;
    let faults = [
        Fault::Write,
        Fault::Short(1),
        Fault::Short(100),
        Fault::Short(5000),
        Fault::Sync,
        Fault::SyncDir,
        Fault::Create,
    ];
    let most = if crate::nightly() { 60 } else { 14 };
    let mut jobs = Vec::new();
    for fault in faults {
        for nth in 1..=most {
            jobs.extend((0..4).map(|seed| (fault, nth, seed)));
        }
    }
    let stopped = std::sync::atomic::AtomicU64::new(0);
    all("failing disks", &jobs, |(fault, nth, seed)| {
        let ended = run(&base, *fault, *nth, *seed).map_err(|e| format!("{fault:?} {nth}, seed {seed}: {e}"))?;
        stopped.fetch_add(u64::from(ended), std::sync::atomic::Ordering::Relaxed);
        Ok(Tally { recovered: 1, ..Tally::default() })
    })
    .unwrap();
    let stopped = stopped.into_inner();
    assert!(stopped > 100, "only {stopped} runs met an error of the journal");
}

/// Checks G3: what a failed flush should have covered may be lost for ever, and no later flush is believed.
#[test]
fn a_failed_flush_is_never_believed() {
    let base = Base::prepared(Rest::Published, tiny_options()).unwrap().0;
    let most = if crate::nightly() { 400 } else { 12 };
    let jobs: Vec<u64> = (0..most).collect();
    let ended = std::sync::atomic::AtomicU64::new(0);
    all("failed flushes", &jobs, |seed| {
        let told = |e: String| format!("seed {seed}: {e}");
        let mut steps: Vec<Step> = draw(&mut Rng::new(*seed), &base, 30);
        // A start that cannot flush does not happen; this is about a daemon that goes on.
        steps.retain(|step| !matches!(step, Step::Kill));
        let how = How { bad_flush: Some(1 + seed % 9), seed: *seed, ..How::default() };
        let run = record(&base, &steps, how).map_err(told)?;
        ended.fetch_add(u64::from(run.ended.is_some()), std::sync::atomic::Ordering::Relaxed);
        sweep(&run, Depth { per_class: Some(2), nest_every: 0, whole_every: 1, seed: *seed }).map_err(told)
    })
    .unwrap();
    assert!(ended.into_inner() > most / 4);
}

/// A disk that takes no tombstone keeps the whole VE, and it is written on (checks G34). Once the disk does, it is destroyed and buried.
#[test]
fn a_ve_that_cannot_be_buried_is_not_destroyed() {
    let world = Failing::new(&Base::empty(tiny_options()).unwrap());
    let disk = Arc::new(FaultStorage::new(world.disk.clone(), world.plan.clone()));
    let (store, _) = open(&world.base, disk, world.meta.clone(), 7).unwrap();
    let lineage = store.ve(VE).unwrap().identity().lineage;
    world.plan.fail(Call::Rename, 1, ErrorKind::ReadOnlyFilesystem);
    assert!(store.destroy_ve(VE).is_err());
    assert!(store.has_ve(VE) && !store.is_buried(lineage));
    assert_eq!(store.ve(VE).unwrap().read_only_reason(), None);
    world.plan.heal();
    store.destroy_ve(VE).unwrap();
    assert!(!store.has_ve(VE) && store.is_buried(lineage));
}
