//! Pages that programs dirty in mappings: how long they may have waited in the kernel when they arrive (promise G6).
//!
//! Somebody who may touch mounts makes the kernel send them now and then (syncfs(2)) and tells when that began and ended. On its return the kernel
//! has put all pages that were dirty at its beginning into the device's queue; it does not wait for them to be taken from there.
//!
//! Since when pages may be dirty is kept beside the mount, so that the next daemon does not take for young what waited while there was none.
//!
//! Assumption: what is in the queue is read within [`QUEUE`]. Where that does not hold, requests are being held back and their readers wait, and
//! the VE's exposure is over its window for other reasons.

use std::time::Duration;

use parking_lot::Mutex;

use super::fs::Fs;
use super::kept::Kept;

/// How long a request may stay in the device's queue.
const QUEUE: Duration = Duration::from_secs(1);

/// The fetches of one mount. All times are `CLOCK_BOOTTIME`. Nothing is known while nobody cares.
#[derive(Debug)]
pub struct Pages {
    times: Mutex<Option<Times>>,
    kept: Kept,
}

/// Invariant: what arrives now was dirtied after `before`; from `settled` on after `last`.
#[derive(Clone, Copy, Debug)]
struct Times {
    before: Duration,
    last: Duration,
    /// `None` while the last fetch runs, or failed.
    settled: Option<Duration>,
}

impl Times {
    fn since(&self, now: Duration) -> Duration {
        if self.settled.is_some_and(|at| at <= now) { self.last } else { self.before }
    }
}

impl Pages {
    /// Of a mount; `before` is what an earlier daemon kept.
    pub fn new(kept: Kept, before: Option<Duration>) -> Pages {
        let times = before.map(|before| Times { before, last: before, settled: None });
        Pages { times: Mutex::new(times), kept }
    }

    /// Whether a fetch is due; `None` for the period when nobody cares. Who begins to care has no interest in what was dirtied before.
    pub fn is_due(&self, now: Duration, every: Option<Duration>) -> bool {
        let mut times = self.times.lock();
        let Some(every) = every else {
            if times.take().is_some() {
                self.keep(None);
            }
            return false;
        };
        if times.is_none() {
            self.keep(Some(now));
        }
        let t = times.get_or_insert(Times { before: now, last: now, settled: None });
        now.saturating_sub(t.last) >= every
    }

    /// A fetch begins.
    pub fn begins(&self, now: Duration) {
        if let Some(t) = self.times.lock().as_mut() {
            *t = Times { before: t.since(now), last: now, settled: None };
            self.keep(Some(t.before));
        }
    }

    /// It has ended well.
    pub fn ended(&self, now: Duration) {
        if let Some(t) = self.times.lock().as_mut() {
            t.settled = Some(now + QUEUE);
        }
    }

    /// Since when a page that arrives now may be dirty, if anybody cares.
    pub fn since(&self, now: Duration) -> Option<Duration> {
        self.times.lock().map(|t| t.since(now))
    }

    fn keep(&self, since: Option<Duration>) {
        if let Err(e) = self.kept.put_fetched(since) {
            tracing::error!(error = %e, "keeping since when pages may be dirty");
        }
    }
}

impl Fs {
    /// Since when a page that arrives now may be dirty, if anybody cares.
    pub(super) fn fetched_before(&self) -> Option<Duration> {
        self.pages.since(self.ve.boot_time())
    }

    /// Whether its dirty pages are to be fetched now. A program needs a file that is open and cached to have any: without one nothing waits in
    /// the kernel, as the last one's closing waited for its pages (kernel `fs/fuse/file.c`, fuse_vma_close).
    pub(super) fn is_fetch_due(&self) -> bool {
        if self.read_only {
            return false;
        }
        let now = self.ve.boot_time();
        if !self.pages.is_due(now, self.ve.fetch_every()) {
            return false;
        }
        let some = self.nodes.lock().any_cached();
        if !some {
            self.pages.begins(now);
            self.pages.ended(now);
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::fuse::kept::Exchange;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const EVERY: Option<Duration> = Some(Duration::from_secs(10));

    fn kept() -> (OwnedFd, Kept) {
        let fd = rustix::fs::memfd_create("kept", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let kept = Kept::read(fd.try_clone().unwrap()).unwrap().kept;
        kept.put_exchange(&Exchange { request: vec![1], reply: vec![2], salt: 0, fork: None }).unwrap();
        (fd, kept)
    }

    fn pages() -> Pages {
        let pages = Pages::new(kept().1, None);
        assert_eq!(pages.since(s(50)), None);
        assert!(!pages.is_due(s(100), EVERY));
        pages
    }

    /// checks G6: a page is never taken for younger than it is.
    #[test]
    fn a_page_is_as_old_as_the_fetch_that_missed_it() {
        let pages = pages();
        assert_eq!(pages.since(s(105)), Some(s(100)));
        assert!(!pages.is_due(s(109), EVERY) && pages.is_due(s(110), EVERY));
        // What the first fetch sends may be as old as before; what comes when all of that has arrived is younger than its beginning.
        pages.begins(s(110));
        assert!(!pages.is_due(s(110), EVERY));
        assert_eq!(pages.since(s(111)), Some(s(100)));
        pages.ended(s(112));
        assert_eq!(pages.since(s(112)), Some(s(100)));
        assert_eq!(pages.since(s(113)), Some(s(110)));
        pages.begins(s(120));
        assert_eq!(pages.since(s(120)), Some(s(110)));
        pages.ended(s(120));
        assert_eq!(pages.since(s(121)), Some(s(120)));
        assert!(!pages.is_due(s(130), None));
        assert_eq!(pages.since(s(130)), None);
    }

    /// checks G6
    #[test]
    fn a_fetch_that_does_not_end_proves_nothing() {
        let pages = pages();
        pages.begins(s(110));
        pages.begins(s(120));
        assert_eq!(pages.since(s(125)), Some(s(100)));
        pages.ended(s(126));
        assert_eq!(pages.since(s(127)), Some(s(120)));
        // One that ended, and whose pages may still be on their way when the next begins.
        pages.begins(s(130));
        pages.ended(s(130));
        pages.begins(s(130));
        pages.ended(s(131));
        assert_eq!(pages.since(s(131)), Some(s(120)));
        assert_eq!(pages.since(s(132)), Some(s(130)));
    }

    /// checks G6, G7: the next daemon knows how old what waited for it may be.
    #[test]
    fn a_takeover_makes_no_page_younger() {
        let (fd, kept) = kept();
        let pages = Pages::new(kept, None);
        let next = || {
            let left = Kept::read(fd.try_clone().unwrap()).unwrap();
            Pages::new(left.kept, left.fetched)
        };
        assert!(!pages.is_due(s(100), EVERY));
        assert_eq!(next().since(s(105)), Some(s(100)));
        pages.begins(s(110));
        assert_eq!(next().since(s(111)), Some(s(100)));
        pages.ended(s(111));
        pages.begins(s(120));
        let taken = next();
        assert_eq!(taken.since(s(500)), Some(s(110)));
        assert!(taken.is_due(s(500), EVERY));
        taken.begins(s(500));
        taken.ended(s(500));
        assert_eq!(taken.since(s(501)), Some(s(500)));
        assert!(!taken.is_due(s(501), None));
        assert_eq!(next().since(s(502)), None);
    }
}
