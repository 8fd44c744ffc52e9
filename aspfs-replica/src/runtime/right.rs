//! The right to write a VE, where an arbiter gives it: until when, and what the window wants the arbiter to record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The right of one primary. Every changing operation asks [`Right::holds`], without a lock.
pub(super) struct Right {
    governed: bool,
    /// Nanoseconds since boot; `u64::MAX` where nobody has to give the right.
    until: AtomicU64,
    /// The question of the window that is open, if one is: may the VE lag?
    wanted: Mutex<Option<u64>>,
    changed: Notify,
}

impl Right {
    /// `governed`: an arbiter gives it, and it has not yet.
    pub fn new(governed: bool) -> Right {
        let until = if governed { 0 } else { u64::MAX };
        Right { governed, until: AtomicU64::new(until), wanted: Mutex::default(), changed: Notify::new() }
    }

    /// Whether an arbiter gives it.
    pub fn is_governed(&self) -> bool {
        self.governed
    }

    /// Whether an operation may complete at this moment (promise G19).
    pub fn holds(&self, now: Duration) -> bool {
        // The value alone is what matters: nothing else is read by whoever sees it.
        let until = self.until.load(Ordering::Relaxed);
        until == u64::MAX || now.as_nanos() < u128::from(until)
    }

    /// How much of it is left; `None` where it does not end.
    pub fn left(&self, now: Duration) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        (until != u64::MAX).then(|| Duration::from_nanos(until).saturating_sub(now))
    }

    /// It lasts until then; `None`: it is over.
    pub fn set_until(&self, until: Option<Duration>) {
        // Some hundred years are as good as for ever, and are no end.
        let nanos = until.map_or(0, |u| u64::try_from(u.as_nanos()).unwrap_or(u64::MAX));
        self.until.store(nanos, Ordering::Relaxed);
    }

    /// The window asks with this number whether the VE may lag, or asks no more.
    pub fn want(&self, number: Option<u64>) {
        *self.wanted.lock() = number;
        self.changed.notify_one();
    }

    /// Has whoever keeps it look at what it rests on.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// The open question.
    pub fn wanted(&self) -> Option<u64> {
        *self.wanted.lock()
    }

    /// Until there may be another question.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_ends_by_the_clock() {
        let second = Duration::from_secs;
        let right = Right::new(true);
        assert!(!right.holds(Duration::ZERO) && right.left(second(1)) == Some(Duration::ZERO));
        right.set_until(Some(second(5)));
        assert!(right.holds(second(4)) && !right.holds(second(5)));
        assert_eq!(right.left(second(3)), Some(second(2)));
        right.set_until(None);
        assert!(!right.holds(second(4)));
        let free = Right::new(false);
        assert!(free.holds(Duration::MAX) && free.left(second(1)).is_none());
    }
}
