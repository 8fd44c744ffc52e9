//! What may not stand in a committed file, and what must: placeholder words, paths of somebody's machine, promise
//! tags, the status of a decision. The words looked for are put together here so that this file does not hold them.

use crate::scan::{is_word, line_of, word_offsets};
use crate::tree::Tree;

/// The promises are numbered from 1 to this.
const PROMISES: u32 = 34;

/// Words that say that something is not finished. Upper-case ones are looked for as they are, others in any case.
pub fn placeholders(tree: &Tree) -> Vec<String> {
    let exact = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("TB", "D")];
    let any_case = [concat!("lor", "em"), concat!("coming ", "soon")];
    let mut out = Vec::new();
    for (path, text) in tree.files() {
        let lower = text.to_ascii_lowercase();
        let hits = exact.iter().map(|w| (text, w)).chain(any_case.iter().map(|w| (&lower, w)));
        for (text, word) in hits {
            let lines = word_offsets(text, word).into_iter().map(|at| line_of(text, at));
            out.extend(lines.map(|n| format!("{path}:{n}: {word}")));
        }
    }
    out
}

/// Absolute paths that exist on one machine only.
pub fn machine_paths(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, text) in tree.files() {
        for bad in [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/fa", "rm/")] {
            for (at, _) in text.match_indices(bad) {
                // Part of a longer path or of an address: not absolute.
                let before = text[..at].chars().next_back();
                if !before.is_some_and(|c| is_word(c) || "./-)}~*".contains(c)) {
                    out.push(format!("{path}:{}: {bad}", line_of(text, at)));
                }
            }
        }
    }
    out
}

/// Tags that say which promise a test checks, and name none. Several may follow one another: `1, 2 and 3`.
pub fn promise_tags(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, text) in tree.files() {
        for at in word_offsets(text, "checks") {
            for number in tags(&text[at + "checks".len()..]) {
                if !number.parse::<u32>().is_ok_and(|n| (1..=PROMISES).contains(&n)) {
                    out.push(format!("{path}:{}: G{number} is no promise", line_of(text, at)));
                }
            }
        }
    }
    out
}

/// The numbers of a list of tags that `text` starts with.
fn tags(mut text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    loop {
        let Some(rest) = text.strip_prefix(" G") else { return out };
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return out;
        }
        out.push(&rest[..digits]);
        text = &rest[digits..];
        text = text.strip_prefix(" and").or_else(|| text.strip_prefix(',')).unwrap_or(text);
    }
}

/// Decisions without a number of four digits, without a status line, or with a number that another one has.
pub fn decision_status(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    let mut numbers: Vec<&str> = Vec::new();
    for (path, text) in tree.ending(".md") {
        let Some(name) = path.strip_prefix("docs/decisions/").filter(|n| *n != "README.md") else { continue };
        match name.split_once('-') {
            Some((n, _)) if n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()) => {
                if numbers.contains(&n) {
                    out.push(format!("{path}: its number is taken"));
                }
                numbers.push(n);
            }
            _ => out.push(format!("{path}: not named NNNN-words.md")),
        }
        if !text.lines().any(|l| l.strip_prefix("Status:").is_some_and(|s| !s.trim().is_empty())) {
            out.push(format!("{path}: no `Status:` line"));
        }
    }
    out
}

#[test]
fn words_that_put_off_are_found() {
    let bad = format!("// {}: x\nLor{} ipsum\nComing {}\n{}\n", concat!("TO", "DO"), "em", "soon", concat!("XX", "X"));
    let good = format!("todo = \"deny\"\nmktemp a.{}XX\nflorem\n", concat!("XX", "X"));
    let found = placeholders(&Tree::planted(&[("a.rs", &bad), ("b", &good)]));
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|f| f.starts_with("a.rs:")));
}

#[test]
fn paths_of_a_machine_are_found() {
    let bad = format!("cd {}\n\"{}x\"\n", concat!("/wo", "rk/main"), concat!("/ro", "ot/"));
    let good = format!("frame{0}x $HOME{0}y ..{0}z {1}\n", concat!("/wo", "rk/"), concat!("/ro", "ot"));
    let found = machine_paths(&Tree::planted(&[("a.md", &bad), ("b.md", &good)]));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("a.md:1") && found[1].starts_with("a.md:2"));
}

#[test]
fn tags_of_promises_that_do_not_exist_are_found() {
    let line = |list: &str| format!("// checks {list}\n");
    let good = line("G1") + &line("G2, G34 and G7: why") + &line("Greek") + "checks nothing";
    assert!(promise_tags(&Tree::planted(&[("a.rs", &good)])).is_empty());
    for (bad, number) in [("G0", "G0"), ("G35", "G35"), ("G1, G99", "G99"), ("G2 and G40", "G40")] {
        let found = promise_tags(&Tree::planted(&[("a.rs", &line(bad))]));
        assert_eq!(found, [format!("a.rs:1: {number} is no promise")], "{bad}");
    }
}

#[test]
fn decisions_need_a_number_and_a_status() {
    let tree = Tree::planted(&[
        ("docs/decisions/0001-a.md", "# A\n\nStatus: accepted\n"),
        ("docs/decisions/0002-b.md", "# B\n\nStatus:\n"),
        ("docs/decisions/0001-c.md", "Status: accepted\n"),
        ("docs/decisions/3-d.md", "Status: accepted\n"),
        ("docs/SEMANTICS.md", ""),
    ]);
    let found = decision_status(&tree).join("\n");
    assert_eq!(found.lines().count(), 3, "{found}");
    assert!(found.contains("0002-b.md: no `Status:`") && found.contains("0001-c.md: its number"), "{found}");
    assert!(found.contains("3-d.md: not named"), "{found}");
}
