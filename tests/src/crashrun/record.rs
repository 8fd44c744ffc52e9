//! Recording a run: the store is opened on a recorder, steps are carried out in it and in the model, and marks say what was
//! answered and what was promised.

use std::sync::Arc;
use std::time::Duration;

use vefs::Error;
use vefs::clock::Clock;
use vefs::meta::MemoryMeta;
use vefs::op::Op;
use vefs::store::Store;
use vefs::ve::{Retention, Ve};

use super::Mark;
use super::meta::RecordedMeta;
use super::probe::Probe;
use super::world::{Base, VE, both, open};
use crate::crash::{Event, Recorder};
use crate::model::Model;

/// One thing that a run does.
#[derive(Clone, Debug)]
pub enum Step {
    /// An operation.
    Op(Op),
    /// A program's fsync.
    Sync,
    /// The store's commit tick.
    Tick,
    /// Everything goes to the metadata store, which persists it.
    Persist,
    /// Everything goes to the metadata store, which does not persist it.
    Publish,
    /// A checkpoint of the metadata.
    Checkpoint,
    /// Old versions are forgotten, extent files cleaned.
    Collect,
    /// The same for the whole store, and what nothing names is unlinked.
    Reclaim,
    /// Quiet files are sealed and coalesced.
    Housekeep,
    /// A clean stop, after which the store goes on.
    Close,
    /// The daemon is killed and started again; the machine goes on, with everything that is in its page cache.
    Kill,
}

/// What a run left behind.
pub struct Recording {
    /// Where it started.
    pub base: Base,
    /// Who wrote it down.
    pub recorder: Arc<Recorder>,
    /// What happened.
    pub log: Vec<Event>,
    /// The model after each operation, and before the first.
    pub models: Vec<Model>,
    /// The metadata after each batch, and before the first.
    pub metas: Vec<Arc<MemoryMeta>>,
    /// Journal position after each operation, and before the first.
    pub ends: Vec<u64>,
    /// The error that ended it, when one did: the VE went read-only.
    pub ended: Option<Error>,
}

/// How a run is recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// The metadata store persists each batch at once.
    pub eager: bool,
    /// The flush of this number (from 1) fails.
    pub bad_flush: Option<u64>,
    /// Of the random numbers that the store draws.
    pub seed: u64,
}

/// Runs `steps` from `base` on. A full disk refuses a step; any other error that is not the file system's own answer ends the run, and
/// a wrong answer is an `Err`.
pub fn record(base: &Base, steps: &[Step], how: How) -> Result<Recording, String> {
    let recorder = Arc::new(Recorder::new(&base.storage));
    let meta = Arc::new(RecordedMeta::new(&base.meta, recorder.clone(), how.eager));
    let (mut store, mut clock) =
        open(base, recorder.clone(), meta.clone(), how.seed ^ 0xABCD).map_err(|e| e.to_string())?;
    let mut ve = store.ve(VE).map_err(|e| format!("opening what was at rest: {e}"))?;
    if let Some(n) = how.bad_flush {
        recorder.fail_flush(n);
    }
    let mut models = vec![base.model.clone()];
    let mut ends = vec![ve.journal_position().0];
    let mut ended = None;
    for step in steps {
        clock.advance(Duration::from_millis(10));
        let n = models.len() - 1;
        if matches!(step, Step::Kill) {
            drop((ve, store));
            meta.forget();
            let mut base = base.clone();
            base.time = clock.boot();
            let seed = how.seed ^ (recorder.len() as u64) << 20;
            let opened = open(&base, recorder.clone(), meta.clone(), seed);
            (store, clock) = opened.map_err(|e| format!("after a kill: {e}"))?;
            ve = store.ve(VE).map_err(|e| format!("after a kill: {e}"))?;
            match Probe::new(&ve, &models[n]).run() {
                (Ok(()), 0) => continue,
                found => return Err(format!("after a kill: {found:?}")),
            }
        }
        let done = if let Step::Op(op) = step {
            let mut model = models[n].clone();
            recorder.mark(Mark::Issued(n + 1).to_number());
            let done = both(&ve, &mut model, op, &clock)?;
            let refused = matches!(done, Err(Error::NoSpace { .. }));
            // After any other error it may have reached the journal all the same.
            models.push(if done.is_ok() || refused { model } else { applied(&models[n], op, &clock) });
            ends.push(ve.journal_position().0);
            if done.is_ok() || refused {
                recorder.mark(Mark::Answered(n + 1).to_number());
            }
            done
        } else {
            let done = upkeep(&store, &ve, step);
            if done.is_ok() && ve.read_only_reason().is_none() {
                recorder.mark(Mark::Synced(n).to_number());
            }
            done
        };
        if let Err(e) = done
            && !matches!(e, Error::NoSpace { .. })
        {
            ended = Some(e);
            break;
        }
    }
    let (log, metas) = (recorder.log(), meta.states());
    Ok(Recording { base: base.clone(), recorder, log, models, metas, ends, ended })
}

fn applied(model: &Model, op: &Op, clock: &vefs::clock::ManualClock) -> Model {
    let mut model = model.clone();
    let _ = model.apply(op, clock.wall());
    model
}

fn upkeep(store: &Store, ve: &Ve, step: &Step) -> Result<(), Error> {
    match step {
        Step::Op(_) | Step::Kill => Ok(()),
        Step::Sync => ve.sync(),
        Step::Tick => store.tick(),
        Step::Publish => ve.publish(),
        Step::Persist => ve.publish().and_then(|()| store.persist()),
        Step::Checkpoint => store.checkpoint(),
        Step::Collect => ve.collect(&Retention { steps: Vec::new() }).map(|_| ()),
        Step::Reclaim => store.collect_garbage(&Retention { steps: Vec::new() }).map(|_| ()),
        Step::Housekeep => store.housekeep(Duration::ZERO).and_then(|_| ve.sync()),
        Step::Close => store.close(),
    }
}

/// What a check may demand at a point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Last operation known to be durable.
    pub synced: usize,
    /// Last operation that was answered.
    pub answered: usize,
    /// Last operation that was begun.
    pub issued: usize,
    /// Last batch that the metadata store promised to keep.
    pub persisted: usize,
    /// Last batch it was given.
    pub batch: usize,
}

/// The demand at each point in time: index = events that happened.
pub fn demands(log: &[Event]) -> Vec<Demand> {
    let mut now = Demand::default();
    let mut all = vec![now];
    for event in log {
        if let Event::Mark(number) = event {
            match Mark::from_number(*number) {
                Some(Mark::Issued(n)) => now.issued = n,
                Some(Mark::Answered(n)) => now.answered = n,
                Some(Mark::Synced(n)) => now.synced = n,
                Some(Mark::Batch(n)) => now.batch = n,
                Some(Mark::Persisted(n)) => now.persisted = n,
                None => {}
            }
        }
        all.push(now);
    }
    all
}
