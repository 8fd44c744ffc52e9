//! Rules of the house that a compiler does not know: who may depend on whom, how big a room may get, what may not
//! stand in a committed file. Each rule is a function from a [`Tree`] to findings, one line each, and every rule is
//! tested on planted bad examples beside it; here all of them run over the repository itself.
//!
//! What is too long today is listed in a ratchet table in [`sizes`], with its reason, and may only shrink.

mod code;
mod layers;
mod links;
mod manifests;
mod scan;
mod sizes;
mod tree;
mod words;

use tree::Tree;

/// Fails with all findings at once, so that one run shows everything there is to do.
fn expect_none(mut findings: Vec<String>) {
    findings.sort();
    findings.dedup();
    assert!(findings.is_empty(), "{} finding(s):\n{}\n", findings.len(), findings.join("\n"));
}

macro_rules! rules {
    ($($name:ident: $rule:expr;)*) => {
        $(#[test]
        fn $name() {
            expect_none($rule(&Tree::of_this_repository()));
        })*
    };
}

rules! {
    code_stays_in_its_layer: layers::imports;
    crates_depend_downwards_only: layers::dependencies;
    versions_stand_in_the_workspace_table: manifests::versions;
    every_crate_has_the_workspace_lints: manifests::lints;
    files_are_small: |t: &Tree| sizes::files(t, sizes::FILE_RATCHET);
    functions_are_small: |t: &Tree| sizes::functions(t, sizes::FUNCTION_RATCHET);
    modules_say_what_they_are_for: code::module_docs;
    the_core_does_not_unwrap: code::unwraps;
    unsafe_stays_in_its_rooms: |t: &Tree| code::unsafe_rooms(t, code::UNSAFE_FILES);
    links_resolve: links::links;
    decisions_have_a_status: words::decision_status;
    nothing_is_left_open: words::placeholders;
    no_path_of_a_machine: words::machine_paths;
    promise_tags_name_a_promise: words::promise_tags;
}

#[test]
fn the_repository_is_found() {
    let tree = Tree::of_this_repository();
    for path in ["Cargo.toml", "vefs/src/lib.rs", "tests/tests/tidy/main.rs", "docs/SEMANTICS.md"] {
        assert!(tree.get(path).is_some(), "{path} is not among the {} files found", tree.files().len());
    }
    assert!(tree.files().keys().all(|p| !p.starts_with("target/") && !p.contains("/target/")));
}
