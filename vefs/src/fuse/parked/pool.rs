//! The threads that carry out what was parked, for all mounts of a process: each mount is with one of them, in line for one, waiting for a
//! moment, or idle.
//!
//! Invariants
//! - A mount is in one of these places, and its wake-up is never lost: one that comes while it is with a thread puts it in line again.
//! - Of the threads that have nothing to do at most one waits for a moment; all others wait for a word.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, RwLock};

use super::super::asker::Asker;
use super::carry::Next;
use super::room::Room;
use super::{Judge, Parked, State};

/// Threads for all mounts of a process.
const THREADS: usize = 4;

/// The threads.
pub struct Pool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    more: Condvar,
    /// Bytes that are parked in all.
    bytes: Arc<AtomicU64>,
}

#[derive(Default)]
struct Inner {
    places: HashMap<u64, Place>,
    line: VecDeque<Arc<Parked>>,
    moments: BTreeMap<(Instant, u64), Arc<Parked>>,
    /// A thread waits for the first moment.
    clocked: bool,
    over: bool,
    next: u64,
}

enum Place {
    Line,
    Moment(Instant),
    Thread { woken: bool },
}

impl Pool {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Pool> {
        let queue = Arc::new(Queue::default());
        let spawn = |n: usize| {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("vefs-parked-{n}")).spawn(move || queue.serve())
        };
        let threads = (0..THREADS).map(spawn).collect::<std::io::Result<_>>()?;
        Ok(Pool { queue, threads })
    }

    /// A mount's part of it. `gate` is held for reading while something is carried out; `device` tells whether the mount is there.
    pub fn mount(&self, judge: Arc<dyn Judge>, gate: Arc<RwLock<()>>, device: Option<Arc<OwnedFd>>) -> Arc<Parked> {
        self.queue.mount(judge, gate, device, Asker::is_killed)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let left = {
            let mut inner = self.queue.inner.lock();
            inner.over = true;
            (std::mem::take(&mut inner.line), std::mem::take(&mut inner.moments))
        };
        drop(left);
        self.queue.more.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that carries out what was parked panicked");
            }
        }
    }
}

impl Queue {
    pub(super) fn mount(
        self: &Arc<Self>,
        judge: Arc<dyn Judge>,
        gate: Arc<RwLock<()>>,
        device: Option<Arc<OwnedFd>>,
        killed: fn(Asker) -> bool,
    ) -> Arc<Parked> {
        let id = {
            let mut inner = self.inner.lock();
            inner.next += 1;
            inner.next
        };
        Arc::new(Parked {
            id,
            judge,
            gate,
            device,
            killed,
            pool: self.clone(),
            blocked: false.into(),
            total: AtomicU64::new(0),
            state: Mutex::new(State { room: Room::new(self.bytes.clone()), ..State::default() }),
            freed: Condvar::new(),
        })
    }

    /// Puts a mount in line, wherever it is.
    pub(super) fn wake(&self, parked: &Arc<Parked>) {
        let mut inner = self.inner.lock();
        match inner.places.get_mut(&parked.id) {
            Some(Place::Line) => return,
            Some(Place::Thread { woken }) => {
                *woken = true;
                return;
            }
            Some(Place::Moment(at)) => {
                let key = (*at, parked.id);
                inner.moments.remove(&key);
            }
            None => {}
        }
        inner.places.insert(parked.id, Place::Line);
        inner.line.push_back(parked.clone());
        drop(inner);
        self.more.notify_one();
    }

    fn serve(&self) {
        while let Some(parked) = self.take() {
            let next = parked.carry(Instant::now());
            self.put_back(parked, next);
        }
    }

    /// The next mount that has something to do; `None` when the process ends.
    fn take(&self) -> Option<Arc<Parked>> {
        let mut inner = self.inner.lock();
        loop {
            if inner.over {
                return None;
            }
            let now = Instant::now();
            let due = inner.moments.first_entry().filter(|first| first.key().0 <= now);
            let next = match due {
                Some(due) => Some(due.remove()),
                None => inner.line.pop_front(),
            };
            if let Some(next) = next {
                inner.places.insert(next.id, Place::Thread { woken: false });
                return Some(next);
            }
            let first = inner.moments.keys().next().map(|(at, _)| *at);
            match first.filter(|_| !inner.clocked) {
                Some(at) => {
                    inner.clocked = true;
                    self.more.wait_until(&mut inner, at);
                    inner.clocked = false;
                    // Whatever this one does now, somebody has to look at the clock.
                    self.more.notify_one();
                }
                None => self.more.wait(&mut inner),
            }
        }
    }

    fn put_back(&self, parked: Arc<Parked>, next: Next) {
        let mut inner = self.inner.lock();
        let woken = matches!(inner.places.remove(&parked.id), Some(Place::Thread { woken: true }));
        match next {
            Next::Idle if !woken => {}
            Next::At(at) if !woken => {
                let key = (at, parked.id);
                inner.places.insert(parked.id, Place::Moment(at));
                inner.moments.insert(key, parked);
                // Whoever waits for the first moment waits for another one.
                if inner.moments.keys().next() == Some(&key) {
                    self.more.notify_all();
                }
            }
            // Whoever calls takes the next in line.
            _ => {
                inner.places.insert(parked.id, Place::Line);
                inner.line.push_back(parked);
            }
        }
    }

    /// Whether no mount has anything to do.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.inner.lock().places.is_empty()
    }
}
