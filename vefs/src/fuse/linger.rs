//! A reader that expects the next request at once looks out for it a little longer before it sleeps.
//!
//! To wake a thread takes as long as most requests where idle processors poll, and several times as long where they halt. So whoever has served a
//! request while requests follow closely polls the device before it reads it ([`LONGEST`]). It yields each time: a program that was given its
//! processor goes on at once, and the sleeping begins anew. Measured, and what was not taken: docs/decisions/0021-readers-linger.md.
//!
//! Invariants
//! - Nobody lingers with a lock, inside the mount's gate, or with a request that it has to answer itself.
//! - At most every second processor of the process has somebody who lingers.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// For how long, at most; and how closely requests follow each other where it is worth it. A processor that halts is on its feet again within.
const LONGEST: Duration = Duration::from_micros(60);

/// How many readers of a process linger at a time; none by default.
#[derive(Default)]
pub(super) struct Places {
    most: usize,
    taken: AtomicUsize,
}

impl Places {
    /// One for two processors. On a single one the program could not go on meanwhile.
    pub(super) fn of_processors() -> Places {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Places { most: processors / 2, taken: AtomicUsize::new(0) }
    }

    /// Does it in a place, if there is one.
    fn within(&self, linger: impl FnOnce()) {
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.most {
            linger();
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of one mount. Moments are nanoseconds since it was made.
pub(super) struct Linger {
    device: Arc<OwnedFd>,
    made: Instant,
    /// When the last request was answered, and how long after the one before it it had come.
    answered: AtomicU64,
    gap: AtomicU64,
}

impl Linger {
    /// For a mount's device.
    pub(super) fn new(device: Arc<OwnedFd>) -> Linger {
        Linger { device, made: Instant::now(), answered: AtomicU64::new(0), gap: AtomicU64::new(u64::MAX) }
    }

    /// A request came.
    pub(super) fn begins(&self) {
        self.came(self.now());
    }

    /// It was answered: until the next one comes, or for as long as is worth it.
    pub(super) fn ends(&self, places: &Places) {
        let now = self.now();
        let until = now + LONGEST.as_nanos() as u64;
        if self.is_worth_it(now) {
            // Whatever else the device says, the read that follows hears of it.
            places.within(|| {
                while self.is_quiet() && self.now() < until {
                    std::thread::yield_now();
                }
            });
        }
    }

    fn now(&self) -> u64 {
        self.made.elapsed().as_nanos() as u64
    }

    fn came(&self, now: u64) {
        self.gap.store(now.saturating_sub(self.answered.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// A request was answered now: whether the next one is expected at once.
    fn is_worth_it(&self, now: u64) -> bool {
        self.answered.store(now, Ordering::Relaxed);
        self.gap.load(Ordering::Relaxed) <= LONGEST.as_nanos() as u64
    }

    /// Whether no request waits to be read.
    pub(super) fn is_quiet(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.device, PollFlags::IN)], Some(&at_once)) == Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn linger() -> (Linger, OwnedFd) {
        let (device, kernel) = std::io::pipe().unwrap();
        (Linger::new(Arc::new(device.into())), kernel.into())
    }

    #[test]
    fn only_requests_that_follow_closely_are_waited_for() {
        let (linger, _kernel) = linger();
        let brief = LONGEST.as_nanos() as u64;
        assert!(!linger.is_worth_it(5), "nothing has come yet");
        linger.came(5 + brief);
        assert!(linger.is_worth_it(10 * brief));
        linger.came(12 * brief);
        assert!(!linger.is_worth_it(12 * brief + 1), "it came late");
        linger.came(12 * brief + 2);
        assert!(linger.is_worth_it(12 * brief + 3));
    }

    /// The device says that the mount is gone as it says that there is a request: whoever lingered on would not notice the end.
    #[test]
    fn a_request_and_the_end_of_the_mount_are_noticed() {
        let (linger, kernel) = linger();
        assert!(linger.is_quiet());
        rustix::io::write(&kernel, b"request").unwrap();
        assert!(!linger.is_quiet());
        rustix::io::read(&linger.device, &mut [0; 16][..]).unwrap();
        assert!(linger.is_quiet());
        drop(kernel);
        assert!(!linger.is_quiet());
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let inside = Cell::new(0);
        let count = || inside.set(inside.get() + 1);
        let places = Places { most: 1, ..Places::default() };
        places.within(|| {
            count();
            places.within(count);
        });
        places.within(count);
        assert_eq!(inside.get(), 2, "one was refused, and took no place");
        Places::default().within(count);
        assert_eq!(inside.get(), 2, "none by default");
    }
}
