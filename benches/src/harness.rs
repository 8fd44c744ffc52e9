//! Measuring one way of doing something against another, in turns.
//!
//! A shared machine drifts: clocks, caches, neighbours. So the contenders run alternately, one round after the other,
//! and what is reported is the *median of the ratios within each round*; a drift that is slower than a round cancels
//! out. The order within a round rotates, so that no contender always runs first.
//!
//! Durations are monotonic time (CLOCK_MONOTONIC through [`Instant`]). A closure may return how long the part to be
//! counted took, so that preparation is left out. Invariant: every contender has exactly one duration per round.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// One way of doing the thing: a name for the table, and a closure that does it once and says how long that took.
pub struct Contender<'a, E> {
    name: String,
    run: Box<dyn FnMut() -> Result<Duration, E> + 'a>,
}

impl<'a, E> Contender<'a, E> {
    /// A contender whose closure is timed as a whole.
    pub fn timed(name: &str, mut work: impl FnMut() -> Result<(), E> + 'a) -> Self {
        Self::counted(name, move || {
            let start = Instant::now();
            work()?;
            Ok(start.elapsed())
        })
    }

    /// A contender that times itself: it returns the duration that counts, preparation left out.
    pub fn counted(name: &str, run: impl FnMut() -> Result<Duration, E> + 'a) -> Self {
        Contender { name: name.to_owned(), run: Box::new(run) }
    }
}

/// How often to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds whose durations count; at least 1.
    pub rounds: usize,
    /// Rounds run before them and thrown away (caches, lazy set-up).
    pub warm_up: usize,
}

/// The durations of one contender, in round order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The contender's name.
    pub name: String,
    /// One duration per round.
    pub times: Vec<Duration>,
}

/// All that was measured. The first series is the base to which ratios refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was compared.
    pub title: String,
    /// One series per contender, in the order given.
    pub series: Vec<Series>,
}

/// Runs the contenders in turns. The first error ends the run and is returned.
///
/// # Panics
/// When there is no contender or `plan.rounds` is 0: there would be nothing to report.
pub fn interleave<E>(title: &str, plan: Plan, mut contenders: Vec<Contender<'_, E>>) -> Result<Report, E> {
    assert!(!contenders.is_empty() && plan.rounds > 0, "nothing to measure");
    let mut series: Vec<Series> = contenders
        .iter()
        .map(|c| Series { name: c.name.clone(), times: Vec::with_capacity(plan.rounds.min(1 << 20)) })
        .collect();
    let n = contenders.len();
    for round in 0..plan.warm_up.saturating_add(plan.rounds) {
        for step in 0..n {
            let i = (round + step) % n;
            let took = (contenders[i].run)()?;
            if round >= plan.warm_up {
                series[i].times.push(took);
            }
        }
    }
    Ok(Report { title: title.to_owned(), series })
}

/// What is said about one series. Durations are exact; the ratio has no unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Shortest.
    pub min: Duration,
    /// Median (see [`percentile`]).
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Longest.
    pub max: Duration,
    /// Median of this series over the base, round by round; 1 for the base itself. Infinite where the base took 0.
    pub ratio: f64,
}

/// The value at percentile `p` (0 to 100) of `sorted`, by nearest rank: the smallest value with at least `p` per cent
/// of all values at or below it. It is always a value that was measured.
///
/// # Panics
/// When `sorted` is empty.
pub fn percentile<T: Copy>(sorted: &[T], p: f64) -> T {
    assert!(!sorted.is_empty(), "percentile of nothing");
    let rank = (p.clamp(0.0, 100.0) / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The median: the middle value, or the mean of the two middle ones.
///
/// # Panics
/// When `values` is empty.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "median of nothing");
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let mid = v.len() / 2;
    if v.len() % 2 == 1 { v[mid] } else { (v[mid - 1] + v[mid]) / 2.0 }
}

/// The median over the rounds of `times / base`. Infinite where more than half of the rounds have a base of 0.
pub fn ratio(times: &[Duration], base: &[Duration]) -> f64 {
    let ratios: Vec<f64> = times.iter().zip(base).map(|(t, b)| quotient(*t, *b)).collect();
    median(&ratios)
}

/// `t / b`; 1 where both are 0, infinite where only `b` is.
pub fn quotient(t: Duration, b: Duration) -> f64 {
    match (t.is_zero(), b.is_zero()) {
        (true, true) => 1.0,
        (false, true) => f64::INFINITY,
        _ => t.as_secs_f64() / b.as_secs_f64(),
    }
}

impl Report {
    /// The figures of every series, in order, with its name.
    pub fn summaries(&self) -> Vec<(&str, Summary)> {
        let base = &self.series[0].times;
        self.series
            .iter()
            .map(|s| {
                let mut sorted = s.times.clone();
                sorted.sort();
                let summary = Summary {
                    min: percentile(&sorted, 0.0),
                    p50: percentile(&sorted, 50.0),
                    p90: percentile(&sorted, 90.0),
                    p99: percentile(&sorted, 99.0),
                    max: percentile(&sorted, 100.0),
                    ratio: ratio(&s.times, base),
                };
                (s.name.as_str(), summary)
            })
            .collect()
    }

    /// A table of fixed width, times in microseconds. `ratio` is the median of the ratios to the first line.
    pub fn table(&self) -> String {
        let mut out = format!("{} ({} rounds, times in µs)\n", self.title, self.series[0].times.len());
        let _ = writeln!(
            out,
            "{:<24} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}",
            "", "ratio", "p50", "p90", "p99", "min", "max"
        );
        for (name, s) in self.summaries() {
            let _ = write!(out, "{:<24} {:>12.3}", clip(name, 24), s.ratio);
            for d in [s.p50, s.p90, s.p99, s.min, s.max] {
                let _ = write!(out, " {:>12.1}", d.as_secs_f64() * 1e6);
            }
            out.push('\n');
        }
        out
    }

    /// One JSON object on one line (RFC 8259): title, rounds, and for each series its name, ratio, figures in
    /// nanoseconds and all its durations in round order. A ratio that is not finite is `null`.
    pub fn json(&self) -> String {
        let rows: Vec<String> = self
            .summaries()
            .into_iter()
            .zip(&self.series)
            .map(|((name, s), series)| {
                let ratio = if s.ratio.is_finite() { s.ratio.to_string() } else { "null".to_owned() };
                let times: Vec<String> = series.times.iter().map(|d| d.as_nanos().to_string()).collect();
                format!(
                    r#"{{"name":{},"ratio":{ratio},"p50_ns":{},"p90_ns":{},"p99_ns":{},"min_ns":{},"max_ns":{},"times_ns":[{}]}}"#,
                    json_string(name),
                    s.p50.as_nanos(),
                    s.p90.as_nanos(),
                    s.p99.as_nanos(),
                    s.min.as_nanos(),
                    s.max.as_nanos(),
                    times.join(",")
                )
            })
            .collect();
        format!(
            r#"{{"title":{},"rounds":{},"series":[{}]}}"#,
            json_string(&self.title),
            self.series[0].times.len(),
            rows.join(",")
        )
    }
}

fn clip(s: &str, chars: usize) -> String {
    s.chars().take(chars).collect()
}

/// A JSON string (RFC 8259).
pub fn json_string(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "harness_tests.rs"]
mod tests;
