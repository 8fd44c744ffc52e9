//! Who flushes and who waits: a hundred fsyncs share a flush (promise G1), and nobody waits for more than two.
//!
//! One flush of a VE runs at a time: the kernel reports a failed write-back once per open file, so of two flushes beside each other one
//! could be told that all went well. Those who were served by a flush often come back at once, each with the next bytes. The last of them
//! leads the next flush, and nobody has to be woken for it; the first one waits for them, at most half as long as a flush takes, and
//! leads if they do not come: else two groups would take turns with half as many in each.
//!
//! The standard library's locks, not `parking_lot`'s: theirs hand a lock from one woken thread to the next, which with eight waiters
//! takes longer than the flush. Lock order: the gate's lock is taken with no other one held, and none is taken under it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a leader waits for others.
const GATHER_MAX: Duration = Duration::from_micros(300);

/// The gate of one VE.
#[derive(Default)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    /// Signalled when the flush of an even and of an odd number ends.
    ended: [Condvar; 2],
}

/// Invariants: `ended ≤ started ≤ ended + 1`; they differ only while somebody leads. Where they do not and somebody waits, one of those who wait
/// gathers the others, or is on his way to: he has been woken, or has yet to fall asleep.
#[derive(Default)]
struct Inner {
    started: u64,
    ended: u64,
    /// The last flush that failed.
    failed: u64,
    /// Somebody waits for as many as are expected.
    gathering: bool,
    /// Callers that need flush `started + 1`.
    waiting: usize,
    /// Callers that the last flush served or that came while it ran.
    expected: usize,
    took: Duration,
}

/// What a caller has to do.
pub(crate) enum Turn<'a> {
    /// Flush everything that was written up to now, then tell with [`Lead::done`].
    Lead(Lead<'a>),
    /// A flush that began after the call has ended well.
    Served,
    /// It failed: see what has become of the VE.
    Failed,
}

/// Leads a flush; whoever drops it without a word has failed.
pub(crate) struct Lead<'a> {
    gate: &'a Gate,
    served: usize,
    since: Instant,
    ok: bool,
}

impl Gate {
    /// Waits for a flush that begins after this call, or for the right to lead it.
    pub fn enter(&self) -> Turn<'_> {
        let mut g = self.lock();
        let need = g.started + 1;
        let ended = &self.ended[(need % 2) as usize];
        g.waiting += 1;
        loop {
            if g.ended >= need {
                return if g.failed >= need { Turn::Failed } else { Turn::Served };
            }
            if g.started != g.ended || g.gathering && g.waiting < g.expected {
                g = ended.wait(g).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if g.waiting < g.expected {
                g.gathering = true;
                let limit = (g.took / 2).min(GATHER_MAX);
                // Whoever leads meanwhile ends the gathering, and the end of his flush is this one's too.
                g = ended.wait_timeout_while(g, limit, |g| g.started < need).unwrap_or_else(PoisonError::into_inner).0;
            }
            if g.started < need {
                return Turn::Lead(self.lead(g));
            }
        }
    }

    fn lead(&self, mut g: MutexGuard<'_, Inner>) -> Lead<'_> {
        g.started += 1;
        g.gathering = false;
        Lead { gate: self, served: std::mem::take(&mut g.waiting), since: Instant::now(), ok: false }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// The flush ended well.
    pub fn done(mut self) {
        self.ok = true;
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut g = self.gate.lock();
        g.ended = g.started;
        if !self.ok {
            g.failed = g.started;
        }
        g.took = self.since.elapsed();
        g.expected = self.served + g.waiting;
        let (now, next) = ((g.ended % 2) as usize, ((g.ended + 1) % 2) as usize);
        let more = g.waiting > 0;
        drop(g);
        if more {
            // One of them leads the next.
            self.gate.ended[next].notify_one();
        }
        self.gate.ended[now].notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Checks G1: whoever is told that all is well was covered by a flush that began after his bytes were written.
    #[test]
    fn everybody_is_covered_by_a_flush_that_began_later() {
        const THREADS: u64 = 8;
        const TIMES: u64 = 500;
        let gate = Gate::default();
        let (written, durable, flushes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        match gate.enter() {
                            Turn::Lead(lead) => {
                                let upto = written.load(Ordering::SeqCst);
                                std::thread::sleep(Duration::from_micros(50));
                                durable.fetch_max(upto, Ordering::SeqCst);
                                flushes.fetch_add(1, Ordering::SeqCst);
                                lead.done();
                            }
                            Turn::Served => {}
                            Turn::Failed => panic!("no flush failed"),
                        }
                        assert!(durable.load(Ordering::SeqCst) >= mine);
                    }
                });
            }
        });
        assert_eq!(durable.load(Ordering::SeqCst), THREADS * TIMES);
        assert!(flushes.load(Ordering::SeqCst) < THREADS * TIMES, "nobody shared a flush");
    }

    /// Checks G3: of a flush that failed, or whose leader died, everybody who waited for it hears, and the next one can be led.
    #[test]
    fn a_failed_flush_serves_nobody() {
        let gate = Gate::default();
        let Turn::Lead(first) = gate.enter() else { panic!("nobody else leads") };
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| match gate.enter() {
                        Turn::Lead(lead) => {
                            // All three have to be here before it fails.
                            while gate.lock().waiting > 0 {
                                std::thread::yield_now();
                            }
                            drop(lead);
                            "led"
                        }
                        Turn::Served => "served",
                        Turn::Failed => "failed",
                    })
                })
                .collect();
            while gate.lock().waiting < 3 {
                std::thread::yield_now();
            }
            first.done();
            let mut said: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
            said.sort_unstable();
            assert_eq!(said, ["failed", "failed", "led"]);
        });
        let Turn::Lead(next) = gate.enter() else { panic!("nobody leads any more") };
        next.done();
    }
}
