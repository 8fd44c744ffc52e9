//! The run itself: draws what happens, carries it out on the store and on the oracle, and compares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vefs::ids::{Hash, InodeNo, VeId};
use vefs::op::{Op, Reply};
use vefs::ve::Request;
use vefs::{Error, Result as CoreResult, Store};

use super::event::Event;
use super::subject::{Entry, Expected, Subject};
use super::world::World;
use super::{Counts, Failure, Plan, touched};
use crate::model::{compare, compare_inode};
use crate::opgen::{Rng, next_op};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kill,
    Cut,
    Clean,
    Rebuild,
}

/// A run.
pub struct Runner {
    pub(super) world: Box<dyn World>,
    pub(super) store: Option<Arc<Store>>,
    pub(super) subjects: BTreeMap<u32, Subject>,
    pub(super) rng: Rng,
    pub(super) counts: Counts,
    plan: Plan,
    step: u64,
    /// The base tree, once it is built.
    pub(super) base: Option<Hash>,
    /// How the process will end, and how many more steps it has at most.
    doomed: Option<(End, u64)>,
    /// VEs that were being made or erased when the process ended: nobody knows yet. What the new ones would be.
    pub(super) unsure: BTreeMap<u32, Option<Expected>>,
    /// Events that come next, the last one first.
    next: Vec<Event>,
    events: Vec<String>,
}

impl Runner {
    /// A run in a world.
    pub fn new(world: Box<dyn World>, plan: Plan) -> Runner {
        Runner {
            world,
            store: None,
            subjects: BTreeMap::new(),
            rng: Rng::new(plan.seed),
            counts: Counts::default(),
            plan,
            step: 0,
            base: None,
            doomed: None,
            unsure: BTreeMap::new(),
            next: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Runs to the end, or to the first difference.
    pub fn run(mut self) -> Result<Counts, Failure> {
        match self.run_steps() {
            Ok(()) => Ok(self.counts),
            Err(message) => {
                Err(Failure { seed: self.plan.seed, step: self.step, message, events: self.events.split_off(0) })
            }
        }
    }

    fn run_steps(&mut self) -> Result<(), String> {
        self.store = Some(self.world.open().map_err(|e| format!("opening the store: {e}"))?);
        for id in 1..=2 + self.rng.below(2) as u32 {
            self.create(id)?;
        }
        while self.step < self.plan.steps {
            self.step += 1;
            super::STEP.set(self.step);
            let event = self.next.pop().unwrap_or_else(|| Event::draw(&mut self.rng));
            if event != Event::Operation {
                self.note(format!("{} {event:?}", self.step));
            }
            self.happen(event).map_err(|e| format!("{event:?}: {e}"))?;
            if event != Event::Operation && !self.world.fuse().is_blown() {
                // An event changes no file, but many end a transaction.
                self.subjects.values_mut().for_each(Subject::note_new_version);
            }
            if self.step >= self.plan.strict_from {
                self.compare_all()?;
            }
            self.end_if_doomed()?;
        }
        self.crash(End::Kill)?;
        self.compare_all()?;
        let ids: Vec<u32> = self.subjects.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.check_versions(id))
    }

    fn note(&mut self, what: String) {
        if self.events.len() >= 12 {
            self.events.remove(0);
        }
        self.events.push(what);
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("a process runs")
    }

    /// One of the VEs; `None` when there is none.
    pub(super) fn some(&mut self) -> Option<u32> {
        let n = self.rng.below(self.subjects.len().max(1) as u64) as usize;
        self.subjects.keys().copied().nth(n)
    }

    /// A core call's result: `None` when it failed because the process is dying.
    pub(super) fn survived<T>(&self, result: CoreResult<T>) -> Result<Option<T>, String> {
        match result {
            Ok(_) if self.world.fuse().is_blown() => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(_) if self.world.fuse().is_blown() => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        if event == Event::Operation {
            return self.operate();
        }
        let done = match event {
            Event::Create => self.create_some()?,
            Event::Destroy => self.destroy_some()?,
            Event::Pause => {
                let seconds = self.rng.below(200);
                self.world.clock().advance(Duration::from_secs(seconds));
                true
            }
            Event::KillDaemon => self.crash(End::Kill)?,
            Event::PowerCut => self.crash(End::Cut)?,
            Event::CleanStop => self.clean_stop()?,
            Event::Rebuild => self.crash(End::Rebuild)?,
            Event::KillInside => self.doom(End::Kill),
            Event::PowerCutInside => self.doom(End::Cut),
            Event::Tick => self.tick()?,
            Event::Persist => self.survived(self.store().persist())?.is_some(),
            Event::Checkpoint => self.checkpoint()?,
            Event::Reclaim => self.reclaim()?,
            Event::Housekeep => {
                let quiet = Duration::from_secs(self.rng.below(20));
                self.survived(self.store().housekeep(quiet))?.is_some_and(|changed| changed > 0)
            }
            other => match self.some() {
                Some(id) => self.happen_to(id, other)?,
                None => false,
            },
        };
        if done {
            self.counts.add(event.name());
        }
        Ok(())
    }

    fn operate(&mut self) -> Result<(), String> {
        let Some(id) = self.some() else { return Ok(()) };
        self.world.clock().advance(Duration::from_millis(7));
        let now = vefs::clock::Clock::wall(&**self.world.clock());
        let Some(s) = self.subjects.get_mut(&id) else { return Ok(()) };
        let op = next_op(&mut self.rng, &s.now.model);
        let mut about = Vec::new();
        touched::of(&s.now.model, &op, &mut about);
        let want = s.now.model.apply(&op, now);
        let got = match s.ve().execute(&op, Request::default()) {
            Ok(reply) => Ok(reply),
            Err(Error::Posix(e)) => Err(e),
            Err(e) if self.world.fuse().is_blown() => {
                self.events.push(format!("{} died in {}: {e}", self.step, brief(&op)));
                s.unanswered = want.is_ok().then_some(Entry::Op(op, now));
                return Ok(());
            }
            Err(e) => return Err(format!("VE {id}, {}: {e}", brief(&op))),
        };
        if got != want {
            return Err(format!("VE {id}, {}: model {want:?}, real {got:?}", brief(&op)));
        }
        self.counts.add("operations");
        if let Ok(Reply::Inode(ino, _)) = &want {
            about.push(*ino);
        }
        if want.is_ok() {
            s.since.push(Entry::Op(op.clone(), now));
        } else {
            self.counts.add("refused");
        }
        s.note_new_version();
        if self.rng.percent(12) {
            self.compare_some(id, &about).map_err(|e| format!("VE {id}, after {}: {e}", brief(&op)))?;
        }
        Ok(())
    }

    fn compare_some(&self, id: u32, about: &[InodeNo]) -> Result<(), String> {
        let s = &self.subjects[&id];
        about.iter().try_for_each(|ino| compare_inode(&s.now.model, &**s.ve(), *ino))
    }

    pub(super) fn compare_all(&self) -> Result<(), String> {
        if self.world.fuse().is_blown() {
            return Ok(());
        }
        self.subjects
            .iter()
            .try_for_each(|(id, s)| compare(&s.now.model, &**s.ve()).map_err(|e| format!("VE {id}: {e}")))
    }

    fn tick(&mut self) -> Result<bool, String> {
        let done = self.survived(self.store().tick())?.is_some();
        for s in self.subjects.values_mut() {
            if done && s.ve().read_only_reason().is_none() {
                let keep = self.rng.percent(20);
                s.note_version(keep);
                s.acknowledge();
            }
        }
        Ok(done)
    }

    fn checkpoint(&mut self) -> Result<bool, String> {
        let done = self.survived(self.store().checkpoint())?.is_some();
        for s in self.subjects.values_mut().filter(|_| done) {
            s.note_version(false);
        }
        Ok(done)
    }

    fn reclaim(&mut self) -> Result<bool, String> {
        let retention = self.retention();
        if self.survived(self.store().collect_garbage(&retention))?.is_none() {
            return Ok(false);
        }
        let ids: Vec<u32> = self.subjects.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.check_versions(id))?;
        self.compare_all().map(|()| true)
    }

    fn doom(&mut self, end: End) -> bool {
        if self.doomed.is_some() {
            return false;
        }
        let calls = 1 + self.rng.below(1 << (1 + self.rng.clone().below(8))) as u32;
        self.world.fuse().arm(calls);
        self.doomed = Some((end, 60));
        // What changes names on disk is rare and worth dying in.
        if self.rng.percent(25) {
            let name = if self.rng.percent(50) { Event::Destroy } else { Event::Create };
            self.next = vec![Event::Create, name];
        }
        true
    }

    fn end_if_doomed(&mut self) -> Result<(), String> {
        let Some((end, left)) = self.doomed else { return Ok(()) };
        if self.world.fuse().is_blown() || left == 0 {
            return self.crash(end).map(|_| ());
        }
        self.doomed = Some((end, left - 1));
        Ok(())
    }

    fn clean_stop(&mut self) -> Result<bool, String> {
        if self.survived(self.store().close())?.is_none() {
            return Ok(false);
        }
        for s in self.subjects.values_mut() {
            s.note_version(false);
            s.acknowledge();
        }
        self.crash(End::Clean)
    }

    /// Ends the process and starts another.
    fn crash(&mut self, end: End) -> Result<bool, String> {
        self.doomed = None;
        self.next.clear();
        self.world.dying(&mut self.rng);
        self.store = None;
        for s in self.subjects.values_mut() {
            s.reading = None;
            s.ve = None;
        }
        let (what, all) = match end {
            End::Cut => match self.world.cut(&mut self.rng) {
                Some(what) => (what, false),
                None => (self.world.kill(&mut self.rng), true),
            },
            _ => (self.world.kill(&mut self.rng), true),
        };
        if end == End::Rebuild {
            self.world.lose_metadata();
        }
        self.note(format!("{} {end:?} leaving {what}", self.step));
        let context = |e: String| format!("after {end:?} leaving {what}: {e}");
        self.store = Some(self.world.open().map_err(|e| context(e.to_string()))?);
        self.decide_unsure().map_err(context)?;
        for (id, s) in &mut self.subjects {
            let name = |e: String| context(format!("VE {id}: {e}"));
            let ve = self.store.as_ref().expect("just opened").ve(VeId(*id)).map_err(|e| name(e.to_string()))?;
            s.ve = Some(ve);
            s.settle(all).map_err(name)?;
        }
        if self.rng.percent(20)
            && let Some(id) = self.some()
        {
            self.check_versions(id).map_err(context)?;
        }
        Ok(true)
    }
}

/// An operation without its bytes.
fn brief(op: &Op) -> String {
    let text = format!("{op:?}");
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
