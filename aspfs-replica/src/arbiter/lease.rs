//! Leases: a primary's right to write for a while, as promises of others.
//!
//! The clocks: a lease of length T that was asked for at `s` on the primary's clock is over at `s + T - margin` there; it was received after `s`, and
//! whoever gave it keeps the promise until T has passed on its own clock since then. With a margin of T/5 both clocks may run
//! wrong by a tenth. Clocks are time since boot, suspend included; a machine whose clock stands still while others' go on (a paused
//! virtual machine) is not covered.
//!
//! Invariants: [`Lessee::may_write`] is asked when an operation completes, so that a process that was stopped for long completes nothing (promise G19);
//! a [`Lessor`] has a promise and a vote durable before it speaks, and after a restart takes every promise as given just now
//! (where it finds none, since its disk may be a new one, it joins nobody for as long as one could have run);
//! it joins one candidate in an epoch.
//!
//! How many: of n required replicas a candidate needs a majority, so a primary needs `n - n/2` of them, itself counted where it is one (it does
//! not join anybody while it writes): then one of every majority has promised. Where the required replicas change, the primary needs so many of both sets, until
//! as many of the old set have acknowledged the change: a candidate that does not know of it meets one that does, and has an earlier head
//! ([`Later`](crate::promote::Refused::Later)).

mod lessee;
mod lessor;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use lessee::{Action, Lessee, Needs, Whom};
pub use lessor::{Grant, Join, Lessor, Promised, Promises};

/// How long leases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A lease.
    pub ttl: Duration,
}

impl Terms {
    /// The shortest lease.
    pub const TTL_MIN: Duration = Duration::from_secs(1);
    /// The longest one.
    pub const TTL_MAX: Duration = Duration::from_secs(60);

    /// Of this length, brought into the bounds.
    pub fn new(ttl: Duration) -> Terms {
        Terms { ttl: ttl.clamp(Terms::TTL_MIN, Terms::TTL_MAX) }
    }

    /// By how much a lease ends earlier for the one that has it.
    pub fn margin(&self) -> Duration {
        self.ttl / 5
    }
}

impl Default for Terms {
    fn default() -> Self {
        Terms::new(Duration::from_secs(10))
    }
}
