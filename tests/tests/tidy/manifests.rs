//! Manifests: parsed, and the rules about versions and lints.

use crate::tree::Tree;
use toml::{Table, Value};

/// A `Cargo.toml` of a crate.
pub struct Manifest<'a> {
    pub path: &'a str,
    pub name: String,
    pub table: Table,
}

/// All manifests that describe a crate; those that do not parse are findings.
pub fn crates(tree: &Tree) -> (Vec<Manifest<'_>>, Vec<String>) {
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    for (path, text) in manifests(tree) {
        match text.parse::<Table>() {
            Ok(table) => {
                if let Some(name) = table.get("package").and_then(|p| p.get("name")).and_then(Value::as_str) {
                    out.push(Manifest { path, name: name.to_owned(), table });
                }
            }
            Err(e) => bad.push(format!("{path}: {}", e.message())),
        }
    }
    (out, bad)
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.ending("Cargo.toml").filter(|(p, _)| *p == "Cargo.toml" || p.ends_with("/Cargo.toml"))
}

/// Every dependency of a crate, of each kind and target: its name in the manifest, and its value.
pub fn dependencies(table: &Table) -> Vec<(&str, &Value)> {
    const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = table.get("target").and_then(Value::as_table).into_iter().flat_map(|t| t.values());
    let places = std::iter::once(table).chain(targets.filter_map(Value::as_table));
    places
        .flat_map(|place| KINDS.iter().filter_map(|kind| place.get(*kind)?.as_table()))
        .flat_map(|deps| deps.iter().map(|(name, value)| (name.as_str(), value)))
        .collect()
}

/// Dependencies that do not say `workspace = true`, or say a version or path besides.
pub fn versions(tree: &Tree) -> Vec<String> {
    let (crates, mut out) = crates(tree);
    for c in &crates {
        for (name, value) in dependencies(&c.table) {
            let inherits = value.get("workspace").and_then(Value::as_bool) == Some(true);
            let more = ["version", "path", "git"].iter().any(|k| value.get(*k).is_some());
            if !inherits || more {
                out.push(format!("{}: {name} belongs into [workspace.dependencies]", c.path));
            }
        }
    }
    out
}

/// Crates without `[lints] workspace = true`.
pub fn lints(tree: &Tree) -> Vec<String> {
    let (crates, mut out) = crates(tree);
    let has = |t: &Table| t.get("lints").and_then(|l| l.get("workspace")).and_then(Value::as_bool) == Some(true);
    out.extend(crates.iter().filter(|c| !has(&c.table)).map(|c| format!("{}: no [lints] workspace = true", c.path)));
    out
}

#[cfg(test)]
const GOOD: &str = "[package]\nname = \"a\"\n[dependencies]\nx.workspace = true\n[lints]\nworkspace = true\n";

#[test]
fn a_version_outside_the_workspace_table_is_found() {
    let root = "[workspace.dependencies]\nx = \"1\"\n";
    assert!(versions(&Tree::planted(&[("Cargo.toml", root), ("a/Cargo.toml", GOOD)])).is_empty());
    for bad in [
        "[dependencies]\nx = \"1\"",
        "[dev-dependencies]\nx = { version = \"1\" }",
        "[build-dependencies.x]\npath = \"../x\"",
        "[target.'cfg(unix)'.dependencies]\nx = \"1\"",
        "[dependencies]\nx = { workspace = true, version = \"1\" }",
    ] {
        let text = format!("[package]\nname = \"a\"\n{bad}\n");
        let found = versions(&Tree::planted(&[("a/Cargo.toml", &text)]));
        assert_eq!(found, ["a/Cargo.toml: x belongs into [workspace.dependencies]"], "{bad}");
    }
}

#[test]
fn a_crate_without_the_lints_is_found() {
    let without = "[package]\nname = \"b\"\n";
    let not = "[package]\nname = \"c\"\n[lints]\nworkspace = false\n";
    let tree = Tree::planted(&[("a/Cargo.toml", GOOD), ("b/Cargo.toml", without), ("c/Cargo.toml", not)]);
    assert_eq!(lints(&tree).len(), 2, "{:?}", lints(&tree));
}

#[test]
fn a_manifest_that_does_not_parse_is_found() {
    assert_eq!(lints(&Tree::planted(&[("a/Cargo.toml", "[package")])).len(), 1);
}
