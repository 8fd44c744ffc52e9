//! Asking: the machine of a node that lacks a state of a VE.
//!
//! It is asked what to do ([`Puller::poll`]) and told what came of it. One question is under way at a time; answers to an earlier one, and
//! what comes after the answer was whole, mean nothing.
//!
//! Invariants: nothing reaches the store but in the order in which [`Install`] wants it; bytes are proved before they are put or by the
//! store with the last of them; a failure costs at most the answer in which it happened; each way round that can end in another failure
//! waits longer than the one before, and what is wrong again and again ends in [`Action::GiveUp`].

mod taking;
mod wanting;

use std::collections::VecDeque;
use std::time::Duration;

use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, VeId};

use self::wanting::last_key;
use super::{Answer, Ask, Install, InstallError, OBJECTS_MAX, Page, Refused, Stretch};

/// Without a word for so long, a question is asked again.
pub const SILENT_AFTER: Duration = Duration::from_secs(30);
/// The first wait after a failure; it doubles to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// So often in a row something may be wrong in itself, not only broken off.
const WRONG_MAX: u32 = 6;
/// So many whole states may come to nothing.
const SPOILT_MAX: u32 = 3;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask this on a new stream, drop the one before, and give the answers with this number to [`Puller::answer`].
    Ask(u64, Ask),
    /// Nothing before something is heard, or this time.
    Wait(Duration),
    /// Poll again; other work may be done before.
    Again,
    /// The state is in place. Poll again: the source is to be told.
    Installed(Position),
    /// It is over. The state is in place.
    Over,
    /// It is over, and nothing has changed.
    GiveUp(GiveUp),
}

/// Why no state was had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    /// The source does not want to.
    #[error("the node that has the state refuses: {0:?}")]
    Refused(Refused),
    /// The source writes in an epoch below the highest seen: its state may be that of a primary that was superseded.
    #[error("the node that has the state writes in an old epoch")]
    OldEpoch,
    /// What comes is not what it should be, again and again.
    #[error("what is sent is wrong again and again: {0}")]
    Wrong(String),
    /// The store here failed.
    #[error("the store failed: {0}")]
    Store(String),
}

/// What was taken in so far, by this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows.
    pub rows: u64,
    /// Rows that were here already, of these.
    pub kept: u64,
    /// Bytes of trees, objects and payloads that came over the link.
    pub bytes: u64,
    /// Bytes of payloads that were here already.
    pub reused: u64,
    /// Questions that were asked.
    pub asked: u64,
    /// Times that it began anew, because the state was held no longer or was wrong.
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Snapshot,
    Tree,
    TreeObjects(Option<Hash>),
    Begin,
    Rows,
    Objects(usize),
    Payloads(usize),
    Put,
    Finish,
    Release,
    Over,
}

/// What the question under way is about.
#[derive(Clone, Debug)]
enum Asked {
    Snapshot,
    Tree(Hash),
    Objects(Objects),
    Compare(Vec<Page>),
    Rows(Epoch),
    Payloads(Vec<(PayloadId, u64, Hash)>, Vec<u8>),
    Done,
}

/// Objects that were asked for.
#[derive(Clone, Debug)]
struct Objects {
    wanted: Vec<Hash>,
    /// So many have come whole.
    done: usize,
    /// How it goes on when all have.
    then: Phase,
}

#[derive(Clone, Debug)]
struct Question {
    about: Asked,
    heard: Duration,
}

enum Fault {
    /// Broken off: no fault of the content.
    Broken,
    /// Wrong in itself: what was asked may be asked again.
    Wrong(String),
    /// The state that is pulled cannot be had any more, or came to nothing.
    Restart(String),
    Refused(Refused),
    OldEpoch,
    Store(String),
}

impl From<InstallError> for Fault {
    fn from(e: InstallError) -> Fault {
        match e {
            InstallError::Corrupt(detail) => Fault::Wrong(detail),
            InstallError::Store(detail) => Fault::Store(detail),
        }
    }
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Puller {
    ve: VeId,
    lineage: Lineage,
    have: Position,
    phase: Phase,
    manifest: Option<Manifest>,
    /// The source writes in this epoch or a higher one.
    source: Epoch,
    after: Option<Vec<u8>>,
    /// Rows that are the same here and there, or are not: stretches behind `after`, in order.
    compared: VecDeque<(Page, bool)>,
    /// What is asked for ends with this key.
    upto: Option<Vec<u8>>,
    /// The present state has no more rows to compare.
    own_over: bool,
    page: Page,
    question: Option<Question>,
    /// Payload bytes that the question under way was answered with.
    received: u64,
    number: u64,
    not_before: Duration,
    failures: u32,
    /// Wrong answers in a row, and states that came to nothing.
    wrong: u32,
    spoilt: u32,
    gave_up: Option<GiveUp>,
    progress: Progress,
}

impl Puller {
    /// For a VE of this history, of which this node has a state up to `have` or, transaction 0, none.
    pub fn new(ve: VeId, lineage: Lineage, have: Position) -> Puller {
        Puller {
            ve,
            lineage,
            have,
            phase: Phase::Start,
            manifest: None,
            source: Epoch(0),
            after: None,
            compared: VecDeque::new(),
            upto: None,
            own_over: false,
            page: Page::default(),
            question: None,
            received: 0,
            number: 0,
            not_before: Duration::ZERO,
            failures: 0,
            wrong: 0,
            spoilt: 0,
            gave_up: None,
            progress: Progress::default(),
        }
    }

    /// What was taken in.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The state that is pulled, once it is known.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// What is to be done now. To be called after everything that is told to this machine, and at the time of a [`Action::Wait`].
    pub fn poll(&mut self, install: &mut dyn Install, now: Duration) -> Action {
        if let Some(why) = &self.gave_up {
            return Action::GiveUp(why.clone());
        }
        if let Some(question) = &self.question {
            let until = question.heard + SILENT_AFTER;
            if now < until {
                return Action::Wait(until);
            }
            self.fault(install, Fault::Broken, now);
        }
        if now < self.not_before && self.phase != Phase::Over {
            return Action::Wait(self.not_before);
        }
        match self.advance(install) {
            Ok(Ok(action)) => action,
            Ok(Err(about)) => self.ask(install, about, now),
            Err(fault) => self.fault(install, fault, now).unwrap_or(Action::Again),
        }
    }

    /// An answer to the question of this number; [`Action::GiveUp`] at the end of it, otherwise poll.
    pub fn answer(&mut self, install: &mut dyn Install, number: u64, answer: Answer, now: Duration) -> Option<Action> {
        if number != self.number {
            return None;
        }
        let question = self.question.as_mut()?;
        question.heard = question.heard.max(now);
        let about = std::mem::replace(&mut question.about, Asked::Done);
        match self.take(install, about, answer) {
            Ok(Some(about)) => {
                if let Some(q) = self.question.as_mut() {
                    q.about = about;
                }
                None
            }
            Ok(None) => {
                self.question = None;
                (self.failures, self.wrong) = (0, 0);
                None
            }
            Err(fault) => self.fault(install, fault, now),
        }
    }

    /// The answers to the question of this number ended, or broke off, or were no blobs. What had come whole stays.
    pub fn ended(&mut self, install: &mut dyn Install, number: u64, now: Duration) {
        if number == self.number && self.question.is_some() {
            self.fault(install, Fault::Broken, now);
        }
    }

    /// Goes on as far as it can without asking: an action, or what is to be asked.
    fn advance(&mut self, install: &mut dyn Install) -> Result<Result<Action, Asked>, Fault> {
        let again = Ok(Ok(Action::Again));
        let Some(manifest) = self.manifest else { return self.without_manifest(install) };
        match self.phase {
            Phase::Tree if install.has_tree(manifest.base)? => self.phase = Phase::TreeObjects(None),
            Phase::Tree => return Ok(Err(Asked::Tree(manifest.base))),
            Phase::TreeObjects(after) => {
                let wanted = install.missing_of_tree(manifest.base, after, OBJECTS_MAX)?;
                match wanted.last() {
                    Some(last) => {
                        let then = Phase::TreeObjects(Some(*last));
                        return Ok(Err(Asked::Objects(Objects { wanted, done: 0, then })));
                    }
                    None => self.phase = Phase::Begin,
                }
            }
            Phase::Begin => {
                self.after = install.begin(&manifest)?;
                self.phase = Phase::Rows;
            }
            Phase::Rows => return self.rows(install),
            Phase::Objects(from) => return self.objects(install, from),
            Phase::Payloads(i) => return self.payloads(install, i),
            Phase::Put => self.put(install)?,
            Phase::Finish => return self.finish(install, &manifest),
            Phase::Release => return Ok(Err(Asked::Done)),
            Phase::Over => return Ok(Ok(Action::Over)),
            Phase::Start | Phase::Snapshot => self.phase = Phase::Tree,
        }
        again
    }

    /// A state that was begun before is gone on with: the source says whether it still holds it.
    fn without_manifest(&mut self, install: &mut dyn Install) -> Result<Result<Action, Asked>, Fault> {
        match self.phase {
            Phase::Over => return Ok(Ok(Action::Over)),
            Phase::Start => self.manifest = install.under_way()?.filter(|m| m.at.lineage == self.lineage),
            _ => return Ok(Err(Asked::Snapshot)),
        }
        self.phase = if self.manifest.is_some() { Phase::Tree } else { Phase::Snapshot };
        Ok(Ok(Action::Again))
    }

    fn put(&mut self, install: &mut dyn Install) -> Result<(), Fault> {
        let page = std::mem::take(&mut self.page);
        // Rows that make no sense will make none the next time either.
        install.put_rows(&page.rows).map_err(restart)?;
        self.progress.rows += page.rows.len() as u64;
        self.after = last_key(&page).or(self.after.take());
        // The last of a stretch is not the last of all.
        let over = page.last && self.upto.is_none();
        if page.last {
            self.after = self.upto.take().or(self.after.take());
        }
        self.phase = if over { Phase::Finish } else { Phase::Rows };
        Ok(())
    }

    fn finish(&mut self, install: &mut dyn Install, manifest: &Manifest) -> Result<Result<Action, Asked>, Fault> {
        // Another node may have been promoted while this went on: then this is not the history to follow.
        if install.highest_epoch() > self.source {
            return Err(Fault::OldEpoch);
        }
        install.finish().map_err(restart)?;
        self.phase = Phase::Release;
        Ok(Ok(Action::Installed(manifest.at)))
    }

    fn ask(&mut self, install: &mut dyn Install, about: Asked, now: Duration) -> Action {
        let at = self.manifest.map(|m| m.at).unwrap_or_default();
        let ve = self.ve;
        let ask = match &about {
            Asked::Snapshot => {
                Ask::Snapshot { ve, lineage: self.lineage, have: self.have, epoch: install.highest_epoch() }
            }
            Asked::Tree(hash) => Ask::Tree { hash: *hash, offset: install.tree_so_far(*hash) },
            Asked::Objects(objects) => Ask::Objects {
                wanted: objects.wanted.clone(),
                offset: objects.wanted.first().map_or(0, |first| install.object_so_far(*first)),
            },
            Asked::Compare(pages) => {
                let stretch = |p: &Page| Some(Stretch { upto: last_key(p)?, digest: p.digest() });
                let stretches = pages.iter().filter_map(stretch).collect();
                Ask::Compare { ve, at, after: self.after.clone(), stretches, epoch: install.highest_epoch() }
            }
            Asked::Rows(epoch) => {
                Ask::Rows { ve, at, after: self.after.clone(), upto: self.upto.clone(), epoch: *epoch }
            }
            Asked::Payloads(ranges, _) => {
                Ask::Payloads { ve, at, wanted: ranges.iter().map(|(id, len, _)| (*id, *len)).collect() }
            }
            Asked::Done => Ask::Done { ve, at },
        };
        (self.number, self.received) = (self.number + 1, 0);
        self.progress.asked += 1;
        self.question = Some(Question { about, heard: now });
        Action::Ask(self.number, ask)
    }
}

/// What a store says of rows or of a whole state that are wrong: the state is of no use.
fn restart(e: InstallError) -> Fault {
    match e {
        InstallError::Corrupt(detail) => Fault::Restart(detail),
        InstallError::Store(detail) => Fault::Store(detail),
    }
}
