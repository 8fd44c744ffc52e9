//! Many seeds on all cores; a failing one is run again to find where it begins to differ.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aspfs_tests::run::{Counts, Event, Failure, Plan, last_step, run_on_disk, simulate};

/// Seeds of a plain run, and steps of each.
const SEEDS: u64 = 430;
const STEPS: u64 = 2500;
/// Threads that run seeds.
const THREADS: u64 = 2;
/// How far before a difference was found everything is compared in the second run.
const LOOK_BACK: u64 = 1500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

type Run = fn(Plan) -> Result<Counts, Failure>;

/// A run whose panics are failures of its seed.
fn guarded(run: Run, plan: Plan) -> Result<Counts, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        Err(Failure { seed: plan.seed, step: last_step(), message: format!("panic: {text}"), events: Vec::new() })
    })
}

/// A failure, and the earliest step at which a second run sees it.
fn explain(run: Run, plan: Plan, failure: Failure) -> String {
    let strict = Plan { strict_from: failure.step.saturating_sub(LOOK_BACK), ..plan };
    match guarded(run, strict) {
        Err(first) if first.step < failure.step && first.step > 0 => format!("{first}\nfound at: {failure}"),
        _ => failure.to_string(),
    }
}

fn run_all(run: Run, first: u64, seeds: u64, steps: u64) -> Counts {
    if let Some(seed) = number("ASPFS_SEED") {
        let plan = Plan::new(seed, number("ASPFS_OPS").unwrap_or(steps));
        return guarded(run, plan).unwrap_or_else(|f| panic!("{}", explain(run, plan, f)));
    }
    let steps = number("ASPFS_OPS").unwrap_or(steps);
    let (next, begin) = (AtomicU64::new(first), Instant::now());
    let total = Mutex::new((Counts::default(), Vec::<String>::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || total.lock().unwrap().1.len() >= 3 {
                        break;
                    }
                    let plan = Plan::new(seed, steps);
                    match guarded(run, plan) {
                        Ok(counts) => total.lock().unwrap().0.merge(&counts),
                        Err(f) => {
                            let text = explain(run, plan, f);
                            total.lock().unwrap().1.push(text);
                        }
                    }
                }
            });
        }
    });
    let (counts, failures) = total.into_inner().unwrap();
    let (operations, seconds) = (counts.get("operations"), begin.elapsed().as_secs_f64());
    println!("{seeds} seeds, {operations} operations in {seconds:.1} s: {:.0}/s", operations as f64 / seconds);
    println!("{:?}", counts.0);
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n\n"));
    counts
}

fn nightly() -> bool {
    std::env::var_os("ASPFS_NIGHTLY").is_some()
}

/// Checks G2, G13, G25, G31, G32: see [`aspfs_tests::run`].
#[test]
fn long_random_runs() {
    let seeds = number("ASPFS_SEEDS").unwrap_or(if nightly() { 20 * SEEDS } else { SEEDS });
    let counts = run_all(simulate, 1, seeds, STEPS);
    if number("ASPFS_SEED").is_none() && number("ASPFS_OPS").is_none() && seeds >= SEEDS {
        for event in Event::all() {
            assert!(counts.get(event.name()) > 0, "{event:?} never happened");
        }
        assert!(counts.get("operations") >= 1_000_000, "only {} operations", counts.get("operations"));
        assert!(counts.get("versions read") > 0);
    }
}

/// The same with RocksDB and real files, fewer.
#[test]
fn on_disk() {
    let seeds = if nightly() { 40 } else { 4 };
    run_all(run_on_disk, 10_000, seeds, 5000);
}
