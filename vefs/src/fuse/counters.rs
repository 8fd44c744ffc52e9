//! What a mount counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Figures of a mount since this daemon serves it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Opens answered with passthrough.
    pub passthrough: AtomicU64,
    /// Opens that the kernel caches itself.
    pub cached: AtomicU64,
    /// Inodes that had to leave passthrough because somebody wrote: a listed deviation.
    pub moved: AtomicU64,
    /// Requests that came again after a takeover.
    pub resent: AtomicU64,
    /// Of these, how many had been carried out already.
    pub answered_before: AtomicU64,
    /// Bytes read by the daemon.
    pub read: AtomicU64,
    /// Bytes written.
    pub written: AtomicU64,
    /// fsync(2) calls.
    pub syncs: AtomicU64,
}

/// The figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Counters")]
pub struct Figures {
    pub passthrough: u64,
    pub cached: u64,
    pub moved: u64,
    pub resent: u64,
    pub answered_before: u64,
    pub read: u64,
    pub written: u64,
    pub syncs: u64,
    /// Requests that wait for the VE's window now.
    pub parked: u64,
    /// Requests that ever did.
    pub waited: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, f: Figures) {
        self.passthrough += f.passthrough;
        self.cached += f.cached;
        self.moved += f.moved;
        self.resent += f.resent;
        self.answered_before += f.answered_before;
        self.read += f.read;
        self.written += f.written;
        self.syncs += f.syncs;
        self.parked += f.parked;
        self.waited += f.waited;
    }
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    /// All of them now.
    pub fn figures(&self) -> Figures {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Figures {
            passthrough: get(&self.passthrough),
            cached: get(&self.cached),
            moved: get(&self.moved),
            resent: get(&self.resent),
            answered_before: get(&self.answered_before),
            read: get(&self.read),
            written: get(&self.written),
            syncs: get(&self.syncs),
            ..Figures::default()
        }
    }
}
