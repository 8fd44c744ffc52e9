//! What a benchmark says: figures with their goals, as a table for people or as JSON.
//!
//! A figure keeps every value that was measured; what is shown is the median with the smallest and the largest, and a goal
//! is met when the median meets it.

use std::fmt::Write as _;

use crate::harness::{Report, json_string, median, quotient};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(g) => value >= g,
            Goal::AtMost(g) => value <= g,
        }
    }
}

/// One measured quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Its unit, for people.
    pub unit: &'static str,
    /// What it should be; `None` for information.
    pub goal: Option<Goal>,
    /// One value a round, never empty.
    pub values: Vec<f64>,
}

impl Figure {
    /// A figure without a goal.
    pub fn info(what: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Figure {
        Figure { what: what.into(), unit, goal: None, values }
    }

    /// A figure that should meet a goal.
    pub fn goal(what: impl Into<String>, unit: &'static str, goal: Goal, values: Vec<f64>) -> Figure {
        Figure { what: what.into(), unit, goal: Some(goal), values }
    }

    /// Whether its goal is met; `None` without one.
    pub fn met(&self) -> Option<bool> {
        self.goal.map(|g| g.met(median(&self.values)))
    }

    fn low(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn high(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// All that one question brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The question.
    pub title: String,
    /// Its figures.
    pub figures: Vec<Figure>,
    /// Remarks below the table: tables of details, what the figures rest on.
    pub notes: Vec<String>,
}

impl Outcome {
    /// The figures of a comparison: the ratio of each contender to the first, by round, and its times in milliseconds.
    /// `goals` names contenders and what their ratio should be.
    pub fn of_report(report: &Report, goals: &[(&str, f64)]) -> Outcome {
        let mut out = Outcome { title: report.title.clone(), ..Default::default() };
        let base = &report.series[0];
        for s in &report.series[1..] {
            let values = s.times.iter().zip(&base.times).map(|(t, b)| quotient(*t, *b)).collect();
            let goal = goals.iter().find(|(name, _)| *name == s.name).map(|(_, g)| Goal::AtMost(*g));
            out.figures.push(Figure { what: format!("{} / {}", s.name, base.name), unit: "ratio", goal, values });
        }
        for s in &report.series {
            let values = s.times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
            out.figures.push(Figure::info(s.name.clone(), "ms", values));
        }
        out
    }

    /// A table of fixed width, notes below.
    pub fn table(&self) -> String {
        let mut out = format!("{}\n", self.title);
        for f in &self.figures {
            out.push_str(&line(f));
        }
        for note in &self.notes {
            let _ = writeln!(out, "  {note}");
        }
        out
    }

    /// The figures as rows of the tables in `docs/performance.md`: question, goal, measured, whether it is met, command.
    pub fn rows(&self, command: &str) -> String {
        let row = |f: &Figure| {
            let (goal, verdict) = (goal(f), f.met().map_or("", |met| if met { "met" } else { "missed" }));
            let span = if f.values.len() > 1 {
                format!(" ({}–{})", number(f.low()), number(f.high()))
            } else {
                String::new()
            };
            let unit = if f.unit == "ratio" { String::new() } else { format!(" {}", f.unit) };
            format!("| {} | {goal} | {}{span}{unit} | {verdict} | `{command}` |\n", f.what, number(median(&f.values)))
        };
        self.figures.iter().map(row).collect()
    }

    /// One JSON object on one line (RFC 8259): title, notes, and each figure with its goal, whether it is met, and all values.
    pub fn json(&self) -> String {
        let figures: Vec<String> = self.figures.iter().map(json_figure).collect();
        let notes: Vec<String> = self.notes.iter().map(|n| json_string(n)).collect();
        format!(
            r#"{{"title":{},"figures":[{}],"notes":[{}]}}"#,
            json_string(&self.title),
            figures.join(","),
            notes.join(",")
        )
    }
}

/// The figures that have a goal, of all outcomes, in one table.
pub fn summary(outcomes: &[Outcome]) -> String {
    let figures: Vec<&Figure> = outcomes.iter().flat_map(|o| &o.figures).filter(|f| f.goal.is_some()).collect();
    let met = figures.iter().filter(|f| f.met() == Some(true)).count();
    let mut out = format!("goals: {met} of {} met\n", figures.len());
    figures.iter().for_each(|f| out.push_str(&line(f)));
    out
}

fn line(f: &Figure) -> String {
    let goal = goal(f);
    let verdict = match f.met() {
        None => "",
        Some(true) => "met",
        Some(false) => "MISSED",
    };
    let span = format!("({}–{})", number(f.low()), number(f.high()));
    format!("  {:<52} {:>10} {:>10} {:<20} {:<12} {}\n", f.what, goal, number(median(&f.values)), span, f.unit, verdict)
        .trim_end()
        .to_owned()
        + "\n"
}

fn goal(f: &Figure) -> String {
    match f.goal {
        None => String::new(),
        Some(Goal::AtLeast(g)) => format!("≥ {}", number(g)),
        Some(Goal::AtMost(g)) => format!("≤ {}", number(g)),
    }
}

/// Three digits that matter, no exponent.
fn number(v: f64) -> String {
    match v.abs() {
        a if a >= 100.0 || a == 0.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        _ => format!("{v:.2}"),
    }
}

fn json_figure(f: &Figure) -> String {
    let finite = |v: f64| if v.is_finite() { v.to_string() } else { "null".to_owned() };
    let (kind, goal) = match f.goal {
        None => ("null".to_owned(), "null".to_owned()),
        Some(Goal::AtLeast(g)) => (json_string("at least"), finite(g)),
        Some(Goal::AtMost(g)) => (json_string("at most"), finite(g)),
    };
    let met = f.met().map_or("null".to_owned(), |m| m.to_string());
    let values: Vec<String> = f.values.iter().map(|v| finite(*v)).collect();
    format!(
        r#"{{"what":{},"unit":{},"goal_kind":{kind},"goal":{goal},"met":{met},"median":{},"values":[{}]}}"#,
        json_string(&f.what),
        json_string(f.unit),
        finite(median(&f.values)),
        values.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_by_the_median() {
        let f = |goal, values: &[f64]| Figure::goal("x", "u", goal, values.to_vec());
        assert_eq!(f(Goal::AtMost(2.0), &[1.0, 2.0, 9.0]).met(), Some(true));
        assert_eq!(f(Goal::AtMost(2.0), &[1.0, 2.1, 2.2]).met(), Some(false));
        assert_eq!(f(Goal::AtLeast(2.0), &[0.0, 2.0, 2.0]).met(), Some(true));
        assert_eq!(f(Goal::AtLeast(2.0), &[1.9]).met(), Some(false));
        assert_eq!(Figure::info("x", "u", vec![1.0]).met(), None);
    }

    #[test]
    fn the_summary_counts_goals_only() {
        let o = Outcome {
            title: "t".into(),
            figures: vec![
                Figure::info("a", "u", vec![1.0]),
                Figure::goal("b", "u", Goal::AtMost(1.0), vec![2.0]),
                Figure::goal("c", "u", Goal::AtLeast(1.0), vec![2.0]),
            ],
            notes: vec![],
        };
        let s = summary(&[o]);
        assert!(s.starts_with("goals: 1 of 2 met\n"), "{s}");
        assert!(s.contains("MISSED") && !s.contains("  a "), "{s}");
    }

    #[test]
    fn json_has_goal_and_values() {
        let o = Outcome {
            title: "t".into(),
            figures: vec![Figure::goal("b", "u", Goal::AtMost(1.5), vec![1.0, f64::INFINITY])],
            notes: vec!["n".into()],
        };
        assert_eq!(
            o.json(),
            r#"{"title":"t","figures":[{"what":"b","unit":"u","goal_kind":"at most","goal":1.5,"met":false,"median":null,"values":[1,null]}],"notes":["n"]}"#
        );
    }
}
