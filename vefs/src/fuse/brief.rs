//! Flushes that are over before another reader would have come.
//!
//! Whoever waits for a disk lets another thread read the mount's requests ([`super::readers`]). Where nobody asks for anything meanwhile that is for
//! nothing, and it is not for free: the thread that came is asleep when the next request does, and to wake it took
//! 50 µs. So a reader stays in its place during a flush, as long as flushes are brief and nobody was seen to wait for one.
//!
//! Invariants
//! - Who was held up by one flush is not held up by the [`SHARED`] that follow.
//! - What takes longer than flushes did is noticed by the watch, as is everybody who waits without telling.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::waiting;

/// How long a flush takes, at most, that is brief.
const BRIEF: Duration = Duration::from_millis(1);
/// Flushes that let another thread read, after somebody else's request had to wait for one.
const SHARED: u32 = 64;

/// What is known of the flushes of one mount, of which readers lead one at a time.
pub(super) struct Brief {
    /// Nanoseconds that they took, the longest of late.
    took: AtomicU64,
    /// How many more let another thread read.
    shared: AtomicU32,
}

impl Default for Brief {
    fn default() -> Brief {
        // Nobody knows how long the first one takes.
        Brief { took: AtomicU64::new(nanos(BRIEF) + 1), shared: AtomicU32::new(0) }
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Brief {
    /// Flushes. `is_quiet`: no request of the mount waits to be read.
    pub fn flush<T>(&self, is_quiet: impl Fn() -> bool, flush: impl FnOnce() -> T) -> T {
        self.flush_by(Instant::now, is_quiet, flush)
    }

    fn flush_by<T>(&self, now: impl Fn() -> Instant, is_quiet: impl Fn() -> bool, flush: impl FnOnce() -> T) -> T {
        let begun = now();
        let done = if self.is_alone(&is_quiet) {
            let done = flush();
            if !is_quiet() {
                self.shared.store(SHARED, Ordering::Relaxed);
            }
            done
        } else {
            waiting::wait(flush)
        };
        self.ended(now() - begun);
        done
    }

    fn is_alone(&self, is_quiet: impl Fn() -> bool) -> bool {
        let shared = self.shared.load(Ordering::Relaxed);
        if shared > 0 {
            self.shared.store(shared - 1, Ordering::Relaxed);
            return false;
        }
        self.took.load(Ordering::Relaxed) <= nanos(BRIEF) && is_quiet()
    }

    /// A long one is remembered for some time.
    fn ended(&self, took: Duration) {
        let before = self.took.load(Ordering::Relaxed);
        self.took.store(nanos(took).max(before - before / 8), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// How often another thread was let go.
    struct Calls(Rc<Cell<u32>>);

    impl waiting::Waits for Calls {
        fn begins(&self) {
            self.0.set(self.0.get() + 1);
        }
        fn ends(&self) {}
    }

    /// Flushes of a mount by a clock that stands still otherwise.
    struct Flushes {
        brief: Brief,
        calls: Rc<Cell<u32>>,
        now: Cell<Instant>,
    }

    impl Flushes {
        fn new() -> Flushes {
            let calls = Rc::new(Cell::new(0));
            waiting::tell(Rc::new(Calls(calls.clone())));
            Flushes { brief: Brief::default(), calls, now: Cell::new(Instant::now()) }
        }

        /// Whether another thread was let go for a flush that takes so long, before or during which a request may come.
        fn tells(&self, took: Duration, before: bool, during: bool) -> bool {
            let (calls, came) = (self.calls.get(), Cell::new(before));
            let flush = || {
                self.now.set(self.now.get() + took);
                came.set(before || during);
            };
            self.brief.flush_by(|| self.now.get(), || !came.get(), flush);
            self.calls.get() > calls
        }
    }

    const QUICK: Duration = Duration::from_micros(100);

    #[test]
    fn a_brief_flush_that_nobody_waits_for_is_kept_to_oneself() {
        let flushes = Flushes::new();
        assert!(flushes.tells(QUICK, false, false), "of the first one nothing is known");
        assert!((0..9).all(|_| !flushes.tells(QUICK, false, false)));
    }

    /// Eight programs that flush in one VE share their flushes only if the second one's request is read while the first one's flush runs.
    #[test]
    fn who_was_held_up_once_is_not_held_up_again() {
        let flushes = Flushes::new();
        flushes.tells(QUICK, false, false);
        assert!(!flushes.tells(QUICK, false, true), "nobody knew");
        assert!((0..SHARED).all(|_| flushes.tells(QUICK, false, false)));
        assert!(!flushes.tells(QUICK, false, false), "nobody came any more");
        assert!(flushes.tells(QUICK, true, true), "a request waits already");
    }

    #[test]
    fn a_disk_that_takes_long_is_waited_for_while_others_read() {
        let flushes = Flushes::new();
        flushes.tells(QUICK, false, false);
        assert!(!flushes.tells(BRIEF * 2, false, false));
        assert!(flushes.tells(QUICK, false, false), "the one before took long");
        let again = (0..99).filter(|_| flushes.tells(QUICK, false, false)).count();
        assert!((1..20).contains(&again), "that is long ago: {again}");
    }
}
