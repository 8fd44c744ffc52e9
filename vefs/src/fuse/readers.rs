//! Who reads a mount's requests: one thread at a time, unless it waits.
//!
//! The kernel gives requests to those that read the device in turn. Two threads that are always ready are woken by turns on two processors, and
//! to wake an idle processor takes longer than most requests (measured: 34 µs a request against 18 µs). One that is alone stays where it
//! is. But while it waits for a disk nobody may be held up. So of a session's threads one is free and the others are parked, each in the
//! handler of the last request that it served, after the answer.
//!
//! Invariants
//! - A thread parks only when another one is free, with no lock and outside of the mount's gate.
//! - Whoever is about to wait ([`crate::waiting`]) lets a parked thread go first. For who waits without telling (a database's read, a
//!   lock) the [`Watch`] does it, after at most two of its [`PERIOD`]s.
//! - A thread that has not served anything yet is not known: nobody parks before all are known, since only a known thread's end is noticed.
//! - When a known thread ends the session does: everybody is let go and nobody parks any more.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLockReadGuard};

use super::brief::Brief;
use super::linger::{Linger, Places};
use crate::waiting::{self, Waits};

/// How often the watch looks, while anything is served.
const PERIOD: Duration = Duration::from_millis(5);
/// Looks without anything served after which it sleeps.
const QUIET: u32 = 20;

/// The threads of one mount's session.
pub struct Readers {
    threads: usize,
    linger: Option<Linger>,
    brief: Brief,
    /// The number of the last message that told what the kernel has forgotten.
    forgot: AtomicU64,
    watch: Arc<Watch>,
    /// Threads that read, or serve without having told that they wait. Changed with `inner` locked.
    free: AtomicUsize,
    /// Requests that are being served, and that have been.
    inside: AtomicUsize,
    done: AtomicU64,
    /// `done` when the watch looked last.
    seen: AtomicU64,
    inner: Mutex<Inner>,
    go: Condvar,
}

#[derive(Default)]
struct Inner {
    known: usize,
    parked: usize,
    /// Parked threads that were told to go and have not noticed yet. At most `parked`.
    called: usize,
    over: bool,
}

/// A request is being served while this lives. Its end may take long: it is the last thing that a handler does.
pub struct Serving<'a> {
    gate: Option<RwLockReadGuard<'a, ()>>,
    readers: &'a Readers,
    parks: bool,
    lingers: bool,
}

impl Serving<'_> {
    /// The request is not served yet: the gate is left, and the thread goes on.
    pub fn interrupt(mut self) {
        (self.parks, self.lingers) = (false, false);
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.gate = None;
        let readers = self.readers;
        readers.done.fetch_add(1, Ordering::Relaxed);
        readers.inside.fetch_sub(1, Ordering::Relaxed);
        if self.parks && readers.free.load(Ordering::Relaxed) > 1 {
            readers.park();
        } else if let (true, Some(linger)) = (self.lingers, &readers.linger) {
            linger.ends(&readers.watch.lingering);
        }
    }
}

/// What a session's thread leaves in its own memory.
struct Here(Arc<Readers>);

impl Waits for Here {
    fn begins(&self) {
        let mut inner = self.0.inner.lock();
        self.0.free.fetch_sub(1, Ordering::Relaxed);
        self.0.call(&mut inner);
    }

    fn ends(&self) {
        let _inner = self.0.inner.lock();
        self.0.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.inner.lock().over = true;
        self.0.go.notify_all();
    }
}

impl Readers {
    /// For a session of so many threads, which linger or do not.
    pub fn new(threads: usize, watch: &Arc<Watch>, linger: Option<Linger>) -> Arc<Readers> {
        let readers = Arc::new(Readers {
            threads,
            linger,
            brief: Brief::default(),
            forgot: AtomicU64::new(0),
            watch: watch.clone(),
            free: AtomicUsize::new(threads),
            inside: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            inner: Mutex::default(),
            go: Condvar::new(),
        });
        watch.list.lock().push(Arc::downgrade(&readers));
        readers
    }

    /// This thread serves a request. `parks`: it may stay in the handler afterwards.
    pub fn serve<'a>(self: &'a Arc<Self>, gate: RwLockReadGuard<'a, ()>, parks: bool) -> Serving<'a> {
        if !waiting::is_told() {
            waiting::tell(Rc::new(Here(self.clone())));
            self.inner.lock().known += 1;
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.linger.iter().for_each(Linger::begins);
        self.watch.wake();
        Serving { gate: Some(gate), readers: self, parks, lingers: true }
    }

    /// Flushes for a request that this thread serves: in its place, where that holds nobody up.
    pub fn flush<T>(&self, flush: impl FnOnce() -> T) -> T {
        match &self.linger {
            Some(linger) => self.brief.flush(|| linger.is_quiet(), flush),
            None => waiting::wait(flush),
        }
    }

    /// This thread serves one inode of a message of what the kernel has forgotten. There may be thousands in one, one after the other, with nothing to look
    /// out for in between: the thread neither parks nor lingers, but for one of them.
    pub fn forget<'a>(self: &'a Arc<Self>, gate: RwLockReadGuard<'a, ()>, message: u64) -> Serving<'a> {
        let mut serving = self.serve(gate, false);
        serving.lingers = self.forgot.swap(message, Ordering::Relaxed) != message;
        serving
    }

    /// Leaves reading to another thread, if there is one.
    fn park(&self) {
        let mut inner = self.inner.lock();
        let alone = self.free.load(Ordering::Relaxed) <= 1;
        if alone || inner.over || inner.known < self.threads {
            return;
        }
        self.free.fetch_sub(1, Ordering::Relaxed);
        inner.parked += 1;
        while inner.called == 0 && !inner.over {
            self.go.wait(&mut inner);
        }
        inner.parked -= 1;
        if inner.called > 0 {
            // Counted as free by whoever called.
            inner.called -= 1;
        }
    }

    /// Lets a parked thread go. Whether there was one.
    fn call(&self, inner: &mut Inner) -> bool {
        let there = inner.parked > inner.called;
        if there {
            inner.called += 1;
            self.free.fetch_add(1, Ordering::Relaxed);
            self.go.notify_one();
        }
        there
    }

    /// The watch looks: whoever has not got on since the last look waits for something. Whether anything happens here.
    fn look(&self) -> bool {
        let inside = self.inside.load(Ordering::SeqCst);
        let done = self.done.load(Ordering::Relaxed);
        let stands = self.seen.swap(done, Ordering::Relaxed) == done;
        if stands && inside > 0 && self.free.load(Ordering::Relaxed) <= inside {
            self.call(&mut self.inner.lock());
        }
        inside > 0 || !stands
    }
}

/// Looks after the readers of all mounts of a process.
#[derive(Default)]
pub struct Watch {
    list: Mutex<Vec<Weak<Readers>>>,
    /// Of all mounts together.
    lingering: Places,
    asleep: AtomicBool,
    /// The process ends.
    over: Mutex<bool>,
    more: Condvar,
}

impl Watch {
    /// Starts the thread; it ends with [`Watch::end`]. `linger`: readers may.
    pub fn start(linger: bool) -> std::io::Result<Arc<Watch>> {
        let lingering = if linger { Places::of_processors() } else { Places::default() };
        let watch = Arc::new(Watch { lingering, ..Watch::default() });
        let here = watch.clone();
        std::thread::Builder::new().name("vefs-watch".into()).spawn(move || here.run())?;
        Ok(watch)
    }

    /// Ends the thread.
    pub fn end(&self) {
        *self.over.lock() = true;
        self.more.notify_all();
    }

    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _over = self.over.lock();
            self.asleep.store(false, Ordering::SeqCst);
            self.more.notify_all();
        }
    }

    fn run(&self) {
        let mut quiet = 0;
        loop {
            let mut over = self.over.lock();
            if *over {
                return;
            }
            self.more.wait_for(&mut over, PERIOD);
            drop(over);
            quiet = if self.look() { 0 } else { quiet + 1 };
            if quiet > QUIET {
                self.sleep();
                quiet = 0;
            }
        }
    }

    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        // Who began to serve before that did not see it.
        if self.look() {
            self.asleep.store(false, Ordering::SeqCst);
            return;
        }
        let mut over = self.over.lock();
        while self.asleep.load(Ordering::SeqCst) && !*over {
            self.more.wait(&mut over);
        }
    }

    fn look(&self) -> bool {
        let mut any = false;
        self.list.lock().retain(|readers| {
            let readers = readers.upgrade();
            any |= readers.as_ref().is_some_and(|r| r.look());
            readers.is_some()
        });
        any
    }
}

#[cfg(test)]
#[path = "readers_tests.rs"]
mod tests;
