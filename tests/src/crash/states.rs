//! Goes through a log once and builds the states of each point in time from two images that are kept up to date: the
//! durable one and the one with everything applied.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use vefs::storage::memory::{Content, MemStorage};

use super::choose::{ALL_SUBSETS_COMPLETE, Chooser, Rng, Spec};
use super::image::{Data, Effect, Image, change};
use super::record::{Event, FileId};
use super::{Classes, CrashState};

/// Most flushed writes that are kept in mind for being left out.
const LANES: usize = 64;
/// Most states per class and point in time, unless told.
const MOST: usize = 24;

/// An effect that no flush covers yet, or that stands behind one that none will ever cover.
#[derive(Debug)]
pub(super) struct Pending {
    /// Number of the effect in the log.
    id: usize,
    /// Index of its event.
    event: usize,
    pub(super) effect: Effect,
    /// A flush that should have covered it failed: no later one does.
    lost: bool,
    /// Durable, and kept here because earlier bytes of the same file are lost, so that all are applied in their order.
    pub(super) settled: bool,
}

/// A file as it would be without one write.
#[derive(Debug)]
struct Lane {
    id: usize,
    event: usize,
    file: FileId,
    content: Arc<Content>,
    flushed: bool,
}

/// How many states were thought of, and how many were different and handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// All, the equal ones included.
    pub made: u64,
    /// Handed out.
    pub distinct: u64,
    /// Points in time with so many pending effects that their subsets were drawn, where completeness was asked for.
    pub sampled: u64,
}

/// The iterator over all states, in the order of the log.
#[derive(Debug)]
pub struct CrashStates<'a> {
    log: &'a [Event],
    /// Events that happened; none before the first point in time was visited.
    at: Option<usize>,
    durable: Image,
    full: Image,
    pending: Vec<Pending>,
    lanes: Vec<Lane>,
    effects: usize,
    /// Hash of the set of durable effects.
    durable_set: u64,
    queue: VecDeque<Spec>,
    seen: Seen,
    classes: Classes,
    seed: u64,
    most: usize,
    complete: bool,
    counts: StateCounts,
}

/// What was handed out since the last mark.
#[derive(Debug, Default)]
struct Seen {
    /// Sets of whole effects.
    sets: HashSet<u64>,
    /// Images an honest disk may leave.
    honest: HashSet<u64>,
    /// Images a lying disk may leave.
    damaged: HashSet<u64>,
}

impl<'a> CrashStates<'a> {
    /// The states of a log that was recorded from `base` on, of the classes [`Classes::POWER_CUT`].
    pub fn new(log: &'a [Event], base: &MemStorage) -> CrashStates<'a> {
        let image = Image::of(base);
        CrashStates {
            log,
            at: None,
            durable: image.clone(),
            full: image,
            pending: Vec::new(),
            lanes: Vec::new(),
            effects: 0,
            durable_set: 0,
            queue: VecDeque::new(),
            seen: Seen::default(),
            classes: Classes::POWER_CUT,
            seed: 0,
            most: MOST,
            complete: false,
            counts: StateCounts::default(),
        }
    }

    /// Only states of these classes.
    #[must_use]
    pub fn classes(mut self, classes: Classes) -> Self {
        self.classes = classes;
        self
    }

    /// Draws other samples.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// At most about this many states of each class at each point in time (24 unless told; all subsets of up to 6
    /// pending effects are made all the same).
    #[must_use]
    pub fn per_class(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// All states of each class: every subset of what is pending, every place where a write may tear. [`StateCounts::sampled`] says where there
    /// were too many.
    #[must_use]
    pub fn complete(mut self) -> Self {
        (self.most, self.complete) = (usize::MAX, true);
        self
    }

    /// Only the states at the end of the log: one cut, now.
    #[must_use]
    pub fn at_the_end(mut self) -> Self {
        for (at, event) in self.log.iter().enumerate() {
            self.happen(at, event);
        }
        self.at = Some(self.log.len());
        self.choose(self.log.len(), false);
        self
    }

    /// How many states there were so far.
    pub fn counts(&self) -> StateCounts {
        self.counts
    }

    /// Moves to the next point in time; false when there is none.
    fn advance(&mut self) -> bool {
        let at = match self.at {
            None => 0,
            Some(at) if at == self.log.len() => return false,
            Some(at) => {
                self.happen(at, &self.log[at]);
                at + 1
            }
        };
        self.at = Some(at);
        let flushed = |event: &Event| matches!(event, Event::Sync { .. } | Event::SyncDir { .. } | Event::SyncAll);
        let look_back = at > 0 && (at == self.log.len() || flushed(&self.log[at - 1]));
        if look_back {
            self.lanes.retain(|lane| self.full.is_named(lane.file));
            // The flushed ones first, so that their number says which they are.
            self.lanes.sort_by_key(|lane| (!lane.flushed, lane.id));
        }
        self.choose(at, look_back);
        true
    }

    /// Draws the states of the present point in time.
    fn choose(&mut self, at: usize, look_back: bool) {
        let chooser = Chooser {
            pending: &self.pending,
            full: &self.full,
            lanes: if look_back { self.lanes.iter().filter(|lane| lane.flushed).count() } else { 0 },
            classes: self.classes,
            most: self.most,
            complete: self.complete,
            rng: self.rng(at),
        };
        self.queue = chooser.choose().into();
        if self.complete && self.pending.len() > ALL_SUBSETS_COMPLETE {
            self.counts.sampled += 1;
        }
    }

    fn rng(&self, salt: usize) -> Rng {
        Rng(Rng(self.seed).next() ^ salt as u64)
    }

    fn happen(&mut self, at: usize, event: &Event) {
        for effect in Effect::of(event) {
            let id = self.effects;
            self.effects += 1;
            if self.classes.contains(Classes::DROPPED) {
                self.keep_lanes(id, at, &effect);
            }
            self.full.apply(&effect);
            self.pending.push(Pending { id, event: at, effect, lost: false, settled: false });
        }
        match event {
            Event::Sync { file, .. } => self.settle(|effect| effect.data_of() == Some(*file)),
            Event::SyncDir { dir } => {
                // Backwards: a rename carries along what happened before it to names of both its folders.
                let mut covered = vec![dir.to_string()];
                let mut marked = HashSet::new();
                for pending in self.pending.iter().rev() {
                    let folders = pending.effect.folders();
                    if folders.iter().any(|folder| covered.iter().any(|dir| dir == folder)) {
                        marked.insert(pending.id);
                        covered.extend(folders.into_iter().map(str::to_owned));
                    }
                }
                self.settle_ids(&marked);
                self.durable.adopt_folders(dir, &self.full);
            }
            Event::SyncAll => {
                self.settle(|_| true);
                self.durable.adopt_all_folders(&self.full);
            }
            Event::FlushFailed { file } => {
                for pending in self.pending.iter_mut().filter(|pending| !pending.settled) {
                    pending.lost |= pending.effect.data_of().is_some_and(|of| file.is_none_or(|file| of == file));
                }
            }
            Event::Mark(_) => self.seen = Seen::default(),
            _ => {}
        }
    }

    fn settle(&mut self, covered: impl Fn(&Effect) -> bool) {
        let ids = self.pending.iter().filter(|pending| covered(&pending.effect)).map(|pending| pending.id).collect();
        self.settle_ids(&ids);
    }

    /// Makes pending effects durable, in their order.
    fn settle_ids(&mut self, ids: &HashSet<usize>) {
        let behind: HashSet<_> =
            self.pending.iter().filter(|pending| pending.lost).filter_map(|pending| pending.effect.data_of()).collect();
        for pending in self.pending.iter_mut().filter(|pending| ids.contains(&pending.id)) {
            if pending.lost || pending.settled {
                continue;
            }
            pending.settled = true;
            self.durable_set ^= set_word(pending.id);
            for lane in self.lanes.iter_mut().filter(|lane| lane.id == pending.id) {
                lane.flushed = true;
            }
        }
        let in_order = |pending: &mut Pending| {
            pending.settled && !pending.effect.data_of().is_some_and(|file| behind.contains(&file))
        };
        for pending in self.pending.extract_if(.., in_order) {
            self.durable.apply(&pending.effect);
        }
    }

    /// Brings the files without one write up to date, and starts another one when this is a write.
    fn keep_lanes(&mut self, id: usize, event: usize, effect: &Effect) {
        let Some(file) = effect.data_of() else { return };
        for lane in self.lanes.iter_mut().filter(|lane| lane.file == file) {
            change(&mut lane.content, effect);
        }
        match effect {
            Effect::Empty { .. } => self.lanes.retain(|lane| lane.file != file),
            Effect::Bytes { data: Data::Given(_), .. } => {
                if self.lanes.len() == LANES {
                    let out = self.rng(id).below(LANES as u64) as usize;
                    self.lanes.swap_remove(out);
                }
                self.lanes.push(Lane { id, event, file, content: self.full.shared(file), flushed: false });
            }
            _ => {}
        }
    }

    /// The hash of the set of effects that are there, for states that consist of whole effects in their places.
    fn set_of(&self, spec: Spec) -> Option<u64> {
        if matches!(spec, Spec::Torn { .. } | Spec::Misdirected { .. } | Spec::Dropped(_)) {
            return None;
        }
        let there = self.pending.iter().enumerate().filter(|(i, pending)| spec.has(*i) && !pending.settled);
        Some(there.fold(self.durable_set, |set, (_, pending)| set ^ set_word(pending.id)))
    }

    fn build(&self, spec: Spec) -> Image {
        match spec {
            Spec::All => return self.full.clone(),
            Spec::Dropped(lane) => {
                let mut image = self.full.clone();
                image.put(self.lanes[lane].file, Arc::clone(&self.lanes[lane].content));
                return image;
            }
            _ => {}
        }
        let mut image = self.durable.clone();
        for (i, pending) in self.pending.iter().enumerate() {
            match spec {
                _ if pending.settled || spec.has(i) => image.apply(&pending.effect),
                Spec::Torn { i: torn, cut, head: true, .. } if torn == i => image.apply_part(&pending.effect, 0, cut),
                Spec::Torn { i: torn, cut, head: false, .. } if torn == i => {
                    image.apply_part(&pending.effect, cut, u64::MAX);
                }
                Spec::Misdirected { i: astray, to } if astray == i => image.apply_at(&pending.effect, to),
                _ => {}
            }
        }
        image
    }

    /// The state, unless its like was handed out since the last mark.
    fn distinct(&mut self, spec: Spec) -> Option<CrashState> {
        if let Some(set) = self.set_of(spec)
            && !self.seen.sets.insert(set)
        {
            return None;
        }
        let image = self.build(spec);
        let hash = image.hash();
        let new = match spec.class().is_damage() {
            // Damage that changes nothing is none.
            true => hash != self.full.hash() && !self.seen.honest.contains(&hash) && self.seen.damaged.insert(hash),
            false => self.seen.honest.insert(hash),
        };
        let at = self.at.unwrap_or(0);
        new.then(|| {
            let (class, description) = (spec.class(), self.describe(at, spec));
            CrashState { storage: image.storage(), at, class, hash, description }
        })
    }

    fn describe(&self, at: usize, spec: Spec) -> String {
        let name = |event: usize| format!("#{event} ({})", self.log[event]);
        let pending = |i: usize| name(self.pending[i].event);
        let some = |has: &dyn Fn(usize) -> bool| {
            let there = self.pending.iter().enumerate().filter(|(i, _)| has(*i));
            there.map(|(_, pending)| format!("#{}", pending.event)).collect::<Vec<_>>().join(" ")
        };
        let what = match spec {
            Spec::All => "everything".to_owned(),
            Spec::Nothing => "nothing pending".to_owned(),
            Spec::Upto(end) => format!("the pending before {}", pending(end)),
            Spec::Without(i) => format!("all but {}", pending(i)),
            Spec::Only(i) => format!("of the pending only {}", pending(i)),
            Spec::Subset(mask) => format!("of the pending only {}", some(&|i| mask.has(i))),
            Spec::Torn { i, cut, head: true, .. } => format!("all, but of {} only the bytes before {cut}", pending(i)),
            Spec::Torn { i, cut, head: false, .. } => format!("all, but of {} only the bytes from {cut}", pending(i)),
            Spec::Misdirected { i, to } => format!("all, but {} went to {to}", pending(i)),
            Spec::Dropped(lane) => format!("all, but flushed {} is lost", name(self.lanes[lane].event)),
        };
        format!("after {at} events, on disk: {what}")
    }
}

/// A word per effect, so that XOR tells sets apart.
fn set_word(id: usize) -> u64 {
    Rng(id as u64).next()
}

impl Iterator for CrashStates<'_> {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        loop {
            while let Some(spec) = self.queue.pop_front() {
                self.counts.made += 1;
                if let Some(state) = self.distinct(spec) {
                    self.counts.distinct += 1;
                    return Some(state);
                }
            }
            if !self.advance() {
                return None;
            }
        }
    }
}
