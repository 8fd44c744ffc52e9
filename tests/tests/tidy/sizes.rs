//! Small rooms: at most 400 lines a file without its tests, 800 a file of tests, under 70 lines a function.
//!
//! The ratchet tables list what is longer, with the reason. An entry is exact: when the file or function shrinks, the
//! entry must follow, so that it can only go down.

use crate::scan::{bare, functions as functions_in, test_items, without_tests};
use crate::tree::Tree;

/// Most lines of a file, its `#[cfg(test)]` items not counted.
const FILE_MAX: usize = 400;
/// Most lines of a file that holds tests only.
const TEST_FILE_MAX: usize = 800;
/// Most lines of a function outside tests.
const FUNCTION_MAX: usize = 69;

/// Path, lines, reason.
pub type FileEntry = (&'static str, usize, &'static str);
/// Path, function, lines, reason.
pub type FunctionEntry = (&'static str, &'static str, usize, &'static str);

/// Files over the limit.
pub const FILE_RATCHET: &[FileEntry] = &[];
/// Functions over the limit.
pub const FUNCTION_RATCHET: &[FunctionEntry] = &[];

/// Files over their limit, and entries that are too generous.
pub fn files(tree: &Tree, ratchet: &[FileEntry]) -> Vec<String> {
    let mut sizes = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let (lines, max) = match tree.is_test_file(path) {
            true => (text.lines().count(), TEST_FILE_MAX),
            false => (lines_without_tests(text), FILE_MAX),
        };
        sizes.push((path.to_owned(), lines, max));
    }
    let allowed: Vec<(String, usize)> = ratchet.iter().map(|(p, n, _)| ((*p).to_owned(), *n)).collect();
    judge(&sizes, &allowed)
}

/// Functions over the limit, and entries that are too generous.
pub fn functions(tree: &Tree, ratchet: &[FunctionEntry]) -> Vec<String> {
    let mut sizes: Vec<(String, usize, usize)> = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(p, _)| !tree.is_test_file(p)) {
        for f in functions_in(&without_tests(&bare(text))) {
            let name = format!("{path} fn {}", f.name);
            // Of several functions with one name in a file (methods of several types) the longest counts.
            match sizes.iter_mut().find(|(n, ..)| *n == name) {
                Some(known) => known.1 = known.1.max(f.lines),
                None => sizes.push((name, f.lines, FUNCTION_MAX)),
            }
        }
    }
    let allowed: Vec<(String, usize)> = ratchet.iter().map(|(p, f, n, _)| (format!("{p} fn {f}"), *n)).collect();
    judge(&sizes, &allowed)
}

/// Lines that belong to no `#[cfg(test)]` item.
fn lines_without_tests(text: &str) -> usize {
    let bare = bare(text);
    let in_tests: usize = test_items(&bare).into_iter().map(|item| bare[item].matches('\n').count() + 1).sum();
    text.lines().count() - in_tests
}

fn judge(sizes: &[(String, usize, usize)], ratchet: &[(String, usize)]) -> Vec<String> {
    let mut out = Vec::new();
    for (name, lines, max) in sizes {
        let limit = ratchet.iter().find(|(n, _)| n == name).map(|(_, limit)| *limit);
        match limit {
            None if lines > max => out.push(format!("{name}: {lines} lines, at most {max}")),
            Some(_) if lines <= max => out.push(format!("{name}: {lines} lines, take it off the ratchet")),
            Some(limit) if lines > &limit => out.push(format!("{name}: {lines} lines, the ratchet says {limit}")),
            Some(limit) if lines < &limit => out.push(format!("{name}: lower the ratchet from {limit} to {lines}")),
            _ => {}
        }
    }
    let gone = ratchet.iter().filter(|(n, _)| !sizes.iter().any(|(name, ..)| name == n));
    out.extend(gone.map(|(n, _)| format!("{n}: is not there, take it off the ratchet")));
    out
}

#[cfg(test)]
fn file_of(code: usize, test_lines: usize) -> String {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // t\n    use x;\n".repeat(test_lines));
    "use a;\n".repeat(code) + &tests
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let tree = Tree::planted(&[("a/src/long.rs", &file_of(401, 5)), ("a/src/ok.rs", &file_of(400, 900))]);
    assert_eq!(files(&tree, &[]), ["a/src/long.rs: 401 lines, at most 400"]);
}

#[test]
fn a_test_file_has_its_own_limit() {
    let tree = Tree::planted(&[("a/tests/x.rs", &"x\n".repeat(801)), ("a/src/y_tests.rs", &"x\n".repeat(800))]);
    assert_eq!(files(&tree, &[]), ["a/tests/x.rs: 801 lines, at most 800"]);
}

#[test]
fn the_ratchet_only_goes_down() {
    let tree = Tree::planted(&[("a/src/long.rs", &file_of(450, 0))]);
    assert!(files(&tree, &[("a/src/long.rs", 450, "planted")]).is_empty());
    let found = |n| files(&tree, &[("a/src/long.rs", n, "planted")]).join("\n");
    assert!(found(460).contains("lower the ratchet from 460 to 450"));
    assert!(found(440).contains("the ratchet says 440"));
    let short = Tree::planted(&[("a/src/long.rs", "")]);
    assert!(files(&short, &[("a/src/long.rs", 450, "planted")])[0].contains("take it off"));
    assert!(files(&short, &[("a/src/gone.rs", 450, "planted")])[0].contains("is not there"));
}

#[test]
fn a_long_function_is_found_outside_tests_only() {
    let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(68));
    let in_tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    let tree = Tree::planted(&[("a/src/a.rs", &long), ("a/src/b.rs", &in_tests), ("a/src/c_tests.rs", &long)]);
    assert_eq!(functions(&tree, &[]), ["a/src/a.rs fn long: 70 lines, at most 69"]);
    assert!(functions(&tree, &[("a/src/a.rs", "long", 70, "planted")]).is_empty());
    assert!(functions(&tree, &[("a/src/a.rs", "long", 71, "planted")])[0].contains("lower the ratchet"));
}
