//! Requests of one mount that have to wait (promises G14 to G16, G20): changing operations that may not begin yet, and answers that may not
//! be given yet. No thread that reads requests waits with them.
//!
//! What comes in: requests that a verdict of the VE's watcher holds back, the time, word that the verdict may be another now. What goes out: each
//! request exactly once, carried out, answered with an error, or left without an answer.
//!
//! Invariants
//! - Operations begin in the order in which they were parked, and while the first of them must wait, every later one of the mount queues behind.
//!   Once it goes, new ones need not: programs that do not wait for each other have no order.
//! - An operation that began was in the journal before its answer came here; so whoever is told nothing is told it by the next daemon.
//! - What is left unanswered stays with the kernel, which sends it again to the next daemon.
//! - The watcher is asked with no lock of this room held: it may wake us.
//! - Memory is bounded: a request for which there is no room waits with its reader, which is the last resort, since then nothing of the mount
//!   is read.

mod carry;
mod pool;
mod room;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::asker::Asker;
use crate::errno::Errno;
use crate::ve::{Ve, Verdict};
pub use pool::Pool;
use room::{REQUEST, Room};

/// How often a reader that waits for room looks whether other mounts have made some.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(100);
/// Shorter delays are not kept: whoever gives them adds them up.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is carried out, or answered with what it came to.
    Go,
    /// It is answered with an error.
    Refuse(Errno),
    /// It is not answered: the kernel will send it again.
    Leave,
}

/// Does to a request what its turn says.
pub type Act = Box<dyn FnOnce(Turn) + Send>;

/// Who gives verdicts.
pub trait Judge: Send + Sync {
    /// Before an operation begins.
    fn admit(&self, bytes: u64) -> Verdict;
    /// Before it is answered.
    fn complete(&self) -> Verdict;
}

impl Judge for Ve {
    fn admit(&self, bytes: u64) -> Verdict {
        Ve::admit(self, bytes)
    }

    fn complete(&self) -> Verdict {
        Ve::complete(self)
    }
}

/// Whether an operation may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Go,
    /// Later: not before this moment, where there is one.
    Park(Option<Instant>),
    /// Never.
    Refuse(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The daemon ends; the mount does not.
    Stopped,
    /// The mount is gone.
    Closed,
}

struct Waiting {
    asker: Asker,
    bytes: u64,
    /// A delay that was given already.
    due: Option<Instant>,
    act: Act,
}

#[derive(Default)]
struct State {
    begins: VecDeque<Waiting>,
    answers: VecDeque<Waiting>,
    /// Taken by everything in `begins`, what has a place there, and what is being carried out from there.
    room: Room,
    ended: Option<Ended>,
    swept_at: Option<Instant>,
    swept: usize,
    /// Readers that wait for room.
    outside: usize,
}

/// The parked requests of one mount.
pub struct Parked {
    id: u64,
    judge: Arc<dyn Judge>,
    gate: Arc<RwLock<()>>,
    device: Option<Arc<OwnedFd>>,
    killed: fn(Asker) -> bool,
    pool: Arc<pool::Queue>,
    /// The first operation must wait.
    blocked: AtomicBool,
    /// Requests that ever had to wait.
    total: AtomicU64,
    state: Mutex<State>,
    freed: Condvar,
}

/// Room for an operation. It is given back when this is dropped without being used.
pub struct Place<'a> {
    parked: &'a Arc<Parked>,
    bytes: u64,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Too much is parked: see [`Parked::wait_for_room`].
    Full,
    /// What is to be done with the request instead.
    Ended(Turn),
}

impl Ended {
    fn turn(self) -> Turn {
        match self {
            Ended::Stopped => Turn::Leave,
            Ended::Closed => Turn::Refuse(Errno::EIO),
        }
    }
}

impl Parked {
    /// Whether an operation that carries so many bytes may begin now, on its reader.
    pub fn admission(&self, bytes: u64) -> Admission {
        if self.blocked.load(Ordering::Relaxed) {
            return Admission::Park(None);
        }
        match self.judge.admit(bytes) {
            Verdict::Go => Admission::Go,
            Verdict::Delay(delay) if delay < DELAY_MIN => Admission::Go,
            Verdict::Delay(delay) => Admission::Park(Some(Instant::now() + delay)),
            Verdict::Wait => Admission::Park(None),
            Verdict::Fenced => Admission::Refuse(Errno::EROFS),
        }
    }

    /// What becomes of the answer of an operation that changed something; `None` when it has to wait.
    pub fn completion(&self) -> Option<Turn> {
        match self.judge.complete() {
            Verdict::Go | Verdict::Delay(_) => Some(Turn::Go),
            Verdict::Wait => None,
            Verdict::Fenced => Some(Turn::Refuse(Errno::EROFS)),
        }
    }

    /// A place for an operation that carries so many bytes.
    pub fn place<'a>(self: &'a Arc<Self>, bytes: u64) -> Result<Place<'a>, NoPlace> {
        let bytes = bytes.saturating_add(REQUEST);
        let mut s = self.state.lock();
        match s.ended {
            Some(ended) => Err(NoPlace::Ended(ended.turn())),
            None if s.room.fits(bytes) => {
                s.room.take(bytes);
                Ok(Place { parked: self, bytes })
            }
            None => Err(NoPlace::Full),
        }
    }

    /// Waits until there may be a place for an operation that carries so many bytes, or none is needed. For a reader that holds neither a lock
    /// nor the mount's gate.
    pub fn wait_for_room(&self, bytes: u64) {
        let mut s = self.state.lock();
        s.outside += 1;
        while s.ended.is_none() && !s.room.fits(bytes.saturating_add(REQUEST)) {
            self.freed.wait_for(&mut s, LOOK_FOR_ROOM);
        }
        s.outside -= 1;
    }

    /// An answer that may not be given yet.
    pub fn park_answer(self: &Arc<Self>, asker: Asker, act: Act) {
        let mut s = self.state.lock();
        if let Some(ended) = s.ended {
            drop(s);
            return act(ended.turn());
        }
        s.answers.push_back(Waiting { asker, bytes: 0, due: None, act });
        let first = s.answers.len() == 1;
        drop(s);
        self.parked(first);
    }

    fn park(self: &Arc<Self>, waiting: Waiting) {
        let mut s = self.state.lock();
        if let Some(ended) = s.ended {
            s.room.give_back(waiting.bytes);
            drop(s);
            return (waiting.act)(ended.turn());
        }
        s.begins.push_back(waiting);
        self.blocked.store(true, Ordering::Relaxed);
        let first = s.begins.len() == 1;
        drop(s);
        self.parked(first);
    }

    fn parked(self: &Arc<Self>, first: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if first {
            // It was not there yet when the pool was woken last.
            self.pool.wake(self);
        }
    }

    /// The verdict may be another one now.
    pub fn wake(self: &Arc<Self>) {
        if self.count() > 0 {
            self.pool.wake(self);
        }
    }

    /// Requests that wait, readers included that have no room for theirs.
    pub fn count(&self) -> usize {
        let s = self.state.lock();
        s.begins.len() + s.answers.len() + s.outside
    }

    /// Requests that ever had to wait.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Answers everything that waits with an error. What comes later is asked for anew.
    pub fn turn_away(&self, error: Errno) {
        let all = self.take(None);
        all.into_iter().for_each(|w| (w.act)(Turn::Refuse(error)));
    }

    /// The daemon ends: everything is left to the next one.
    pub fn stop(&self) {
        self.end(Ended::Stopped);
    }

    /// The mount is gone: nobody waits for an answer any more, and nothing more is carried out.
    pub fn close(&self) {
        self.end(Ended::Closed);
    }

    fn end(&self, ended: Ended) {
        let all = self.take(Some(ended));
        all.into_iter().for_each(|w| (w.act)(ended.turn()));
    }

    fn take(&self, ended: Option<Ended>) -> Vec<Waiting> {
        let mut s = self.state.lock();
        s.ended = s.ended.or(ended);
        let begins = std::mem::take(&mut s.begins);
        s.room.give_back(begins.iter().map(|w| w.bytes).sum());
        let all = begins.into_iter().chain(std::mem::take(&mut s.answers)).collect();
        self.blocked.store(false, Ordering::Relaxed);
        drop(s);
        self.freed.notify_all();
        all
    }

    fn give_back(&self, bytes: u64) {
        let mut s = self.state.lock();
        s.room.give_back(bytes);
        let outside = s.outside > 0;
        drop(s);
        if outside {
            self.freed.notify_all();
        }
    }
}

impl Place<'_> {
    /// Parks the operation here. `due`: a delay that it was given already.
    pub fn park(self, asker: Asker, due: Option<Instant>, act: Act) {
        let (parked, bytes) = (self.parked, self.bytes);
        std::mem::forget(self);
        parked.park(Waiting { asker, bytes, due, act });
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.parked.give_back(self.bytes);
    }
}
