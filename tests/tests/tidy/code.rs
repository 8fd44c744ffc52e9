//! What stands in the code: module docs, unwrapping in the core, `unsafe`.

use crate::scan::{bare, line_of, without_tests, word_offsets};
use crate::tree::Tree;

/// Path, reason. Whoever adds a file fences one kernel facility in it.
pub type UnsafeEntry = (&'static str, &'static str);

/// The only files that may contain `unsafe`.
pub const UNSAFE_FILES: &[UnsafeEntry] = &[
    ("aspfs-tools/src/sys.rs", "mallopt, malloc_trim, mlock and GlobalAlloc have no safe wrappers"),
    ("vefs/src/fuse/sys.rs", "dup3 onto a borrowed descriptor, mount_setattr and FUSE's ioctls have no safe wrapper"),
    ("tests/src/mounted/system.rs", "tests map files, open file handles and make idmapped mounts"),
];

/// Modules (all files below a `src`, files of tests left out) that do not open with `//!`.
pub fn module_docs(tree: &Tree) -> Vec<String> {
    tree.ending(".rs")
        .filter(|(path, _)| path.contains("/src/") && !tree.is_test_file(path))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| format!("{path}: does not open with //!"))
        .collect()
}

/// `.unwrap()` and `.expect(` in the core outside tests, unless a comment on the line or on the one above it names
/// the invariant that makes it safe.
pub fn unwraps(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(p, _)| p.starts_with("vefs/src/") && !tree.is_test_file(p)) {
        let lines: Vec<&str> = text.lines().collect();
        let explained = |line: usize| lines.get(line).is_some_and(|l| l.contains("// invariant: "));
        for (i, code) in without_tests(&bare(text)).lines().enumerate() {
            let found = code.contains(".unwrap()") || code.contains(".expect(");
            if found && !explained(i) && !(i > 0 && explained(i - 1)) {
                out.push(format!("{path}:{}: unwrap or expect without `// invariant: `", i + 1));
            }
        }
    }
    out
}

/// `unsafe` outside the listed files, and listed files that need it no more.
pub fn unsafe_rooms(tree: &Tree, rooms: &[UnsafeEntry]) -> Vec<String> {
    let listed = |path: &str| rooms.iter().any(|(p, _)| *p == path);
    let mut out = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(p, _)| !listed(p)) {
        let bare = bare(text);
        let lines = word_offsets(&bare, "unsafe").into_iter().map(|at| line_of(&bare, at));
        out.extend(lines.map(|n| format!("{path}:{n}: unsafe outside the listed files")));
    }
    for (path, _) in rooms {
        let needed = tree.get(path).is_some_and(|text| !word_offsets(&bare(text), "unsafe").is_empty());
        if !needed {
            out.push(format!("{path}: has no unsafe, take it off the list"));
        }
    }
    out
}

#[test]
fn a_module_without_its_purpose_is_found() {
    let tree = Tree::planted(&[
        ("vefs/src/good.rs", "//! What for.\n"),
        ("vefs/src/bad.rs", "// What for.\n"),
        ("vefs/src/bad_tests.rs", "use x;\n"),
        ("vefs/build.rs", "fn main() {}\n"),
    ]);
    assert_eq!(module_docs(&tree), ["vefs/src/bad.rs: does not open with //!"]);
}

#[test]
fn unwrapping_needs_an_invariant() {
    let source = "\
fn a() {
    x.unwrap();
    x.unwrap(); // invariant: x was checked above
    // invariant: y is never empty
    y.expect(\"why\");
    y.expect(\"why\");
    z.unwrap_or(1); // and \".unwrap()\" in a comment
}
#[cfg(test)]
mod tests {
    fn b() { x.unwrap() }
}
";
    let tree = Tree::planted(&[("vefs/src/a.rs", source), ("vefs/src/a_tests.rs", source), ("tests/src/a.rs", source)]);
    let found: Vec<String> = unwraps(&tree).iter().map(|f| f.split(": ").next().unwrap_or("").to_owned()).collect();
    assert_eq!(found, ["vefs/src/a.rs:2", "vefs/src/a.rs:6"]);
}

#[test]
fn unsafe_is_found_and_so_is_a_stale_entry() {
    let tree = Tree::planted(&[
        ("a/src/a.rs", "#![deny(unsafe_code)]\n// unsafe\nfn f() { \"unsafe\"; unsafe { g() } }\n"),
        ("a/src/b.rs", "unsafe fn h() {}\n"),
        ("a/src/c.rs", "fn i() {}\n"),
    ]);
    let rooms = [("a/src/b.rs", "planted"), ("a/src/c.rs", "planted")];
    let found = unsafe_rooms(&tree, &rooms);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("a/src/a.rs:3:") && found[1].starts_with("a/src/c.rs: has no unsafe"));
}
