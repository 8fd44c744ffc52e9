//! Many runs on two threads, counted and timed for the report; nothing depends on the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::check::Tally;

/// Threads that sweep.
const THREADS: usize = 2;

/// Does every job; the first failure with its number, or the sum of what was done, which is printed.
pub fn all<J: Sync>(what: &str, jobs: &[J], run: impl Fn(&J) -> Result<Tally, String> + Sync) -> Result<Tally, String> {
    let begin = Instant::now();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sum = Mutex::new((Tally::default(), None::<String>));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(n) else { break };
                    let done = run(job);
                    let mut sum = sum.lock();
                    match done {
                        Ok(tally) => sum.0.add(tally),
                        Err(e) => {
                            failed.store(true, Ordering::Relaxed);
                            sum.1.get_or_insert(format!("{what}, job {n} of {}: {e}", jobs.len()));
                        }
                    }
                }
            });
        }
    });
    let (tally, failure) = sum.into_inner();
    let seconds = begin.elapsed().as_secs_f64().max(1e-3);
    let rate = tally.recovered as f64 * 60.0 / seconds;
    println!(
        "{what}: {} jobs, {} states recovered ({} in a recovery, {} damaged), {} met again, {seconds:.1} s, {rate:.0} a minute",
        jobs.len(),
        tally.recovered,
        tally.nested,
        tally.damaged,
        tally.again
    );
    failure.map_or(Ok(tally), Err)
}
