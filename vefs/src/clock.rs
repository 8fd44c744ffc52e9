//! The only room that reads a clock. Everything else is given the time: timestamps are carried by records, so that a
//! replica and a replay arrive at the same state.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bincode::{Decode, Encode};

/// Wall-clock time as `struct timespec` has it: seconds since 1970 and nanoseconds in `0..1_000_000_000`.
/// A label, never an input to a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC, negative before.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// Whether the nanoseconds are less than a second.
    pub fn is_valid(self) -> bool {
        self.nanos < 1_000_000_000
    }
}

/// Source of time for a store.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, for labels and file timestamps.
    fn wall(&self) -> Timestamp;
    /// Time since boot that also runs during suspend (`CLOCK_BOOTTIME`), for ages and deadlines.
    fn boot(&self) -> Duration;
}

/// The kernel's clocks (clock_gettime(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp { secs: t.tv_sec, nanos: u32::try_from(t.tv_nsec).unwrap_or(0) }
    }

    fn boot(&self) -> Duration {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
    }
}

/// A clock that stands still until it is moved: for tests and the simulator.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicI64,
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        self.nanos.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        let n = self.nanos.load(Ordering::Relaxed);
        Timestamp { secs: 1_000_000_000 + n / 1_000_000_000, nanos: (n % 1_000_000_000) as u32 }
    }

    fn boot(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed).unsigned_abs())
    }
}
