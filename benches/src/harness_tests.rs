use std::cell::RefCell;
use std::convert::Infallible;

use super::*;

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn report(times: &[(&str, &[u64])]) -> Report {
    Report {
        title: "t".into(),
        series: times
            .iter()
            .map(|(name, t)| Series { name: (*name).into(), times: t.iter().map(|n| us(*n)).collect() })
            .collect(),
    }
}

#[test]
fn percentiles_are_nearest_rank() {
    let v: Vec<u32> = (1..=10).collect();
    for (p, want) in [(0.0, 1), (10.0, 1), (10.1, 2), (50.0, 5), (51.0, 6), (90.0, 9), (99.0, 10), (100.0, 10)] {
        assert_eq!(percentile(&v, p), want, "p{p}");
    }
    assert_eq!(percentile(&[7], 0.0), 7);
    assert_eq!(percentile(&[7], 99.0), 7);
    assert_eq!(percentile(&v, -5.0), 1);
    assert_eq!(percentile(&v, 500.0), 10);
}

#[test]
fn the_median_is_the_middle_or_the_mean_of_two() {
    assert_eq!(median(&[3.0]), 3.0);
    assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
}

#[test]
fn a_drift_that_hits_both_leaves_the_ratio_alone() {
    // The machine becomes ten times slower half-way. Medians of each series alone would say anything between.
    let r = report(&[("a", &[10, 10, 100, 100, 100]), ("b", &[20, 20, 200, 200, 200])]);
    assert_eq!(r.summaries()[1].1.ratio, 2.0);
    assert_eq!(r.summaries()[0].1.ratio, 1.0);
}

#[test]
fn one_outlier_leaves_the_ratio_alone_and_shows_as_maximum() {
    let r = report(&[("a", &[10, 10, 10]), ("b", &[15, 9_000, 15])]);
    let s = r.summaries()[1].1;
    assert_eq!((s.ratio, s.min, s.p50, s.max), (1.5, us(15), us(15), us(9_000)));
}

#[test]
fn a_base_of_zero_is_infinite_and_null_in_json() {
    let r = report(&[("a", &[0]), ("b", &[5])]);
    assert_eq!(r.summaries()[0].1.ratio, 1.0);
    assert_eq!(r.summaries()[1].1.ratio, f64::INFINITY);
    assert!(r.json().contains(r#""name":"b","ratio":null"#), "{}", r.json());
}

#[test]
fn contenders_run_in_turns_and_the_first_one_rotates() {
    let log = RefCell::new(String::new());
    let one = |c: char| {
        let log = &log;
        Contender::counted(&c.to_string(), move || {
            log.borrow_mut().push(c);
            Ok::<_, Infallible>(us(log.borrow().len() as u64))
        })
    };
    let plan = Plan { rounds: 3, warm_up: 1 };
    let Ok(r) = interleave("t", plan, vec![one('a'), one('b')]);
    assert_eq!(log.into_inner(), "abbaabba");
    // The warm-up's durations 1 and 2 are gone; each contender has one per round.
    assert_eq!(r.series[0].times, [us(4), us(5), us(8)]);
    assert_eq!(r.series[1].times, [us(3), us(6), us(7)]);
}

#[test]
fn an_error_ends_the_run() {
    let mut left = 2;
    let failing = Contender::timed("a", move || {
        left -= 1;
        if left == 0 { Err("broken") } else { Ok(()) }
    });
    assert_eq!(interleave("t", Plan { rounds: 9, warm_up: 0 }, vec![failing]), Err("broken"));
}

#[test]
fn a_timed_contender_counts_its_work() {
    let spin = Contender::timed("spin", || {
        let start = Instant::now();
        while start.elapsed() < us(50) {}
        Ok::<_, Infallible>(())
    });
    let Ok(r) = interleave("t", Plan { rounds: 2, warm_up: 0 }, vec![spin]);
    assert!(r.series[0].times.iter().all(|t| *t >= us(50)), "{r:?}");
}

#[test]
fn the_lines_of_a_table_have_one_width() {
    let r = report(&[("a", &[1]), ("a name that is much longer than its column", &[123_456])]);
    let table = r.table();
    let widths: Vec<usize> = table.lines().skip(1).map(|l| l.chars().count()).collect();
    assert_eq!(widths.len(), 3, "{table}");
    assert!(widths.iter().all(|w| *w == widths[0]), "{table}");
    assert!(table.contains("123456.0"), "{table}");
}

#[test]
fn json_is_one_line_with_quotes_escaped() {
    let mut r = report(&[("a", &[1, 3])]);
    r.title = "say \"x\"\n\\".into();
    assert_eq!(
        r.json(),
        r#"{"title":"say \"x\"\u000a\\","rounds":2,"series":[{"name":"a","ratio":1,"p50_ns":1000,"p90_ns":3000,"p99_ns":3000,"min_ns":1000,"max_ns":3000,"times_ns":[1000,3000]}]}"#
    );
}
