//! The committed text files of a repository, or of a planted example, by path relative to its top.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Text files by relative path. Files that are not UTF-8 (golden bytes) are known by name only.
pub struct Tree {
    files: BTreeMap<String, String>,
    binary: Vec<String>,
    test_modules: BTreeSet<String>,
}

impl Tree {
    /// What git would commit here; without git or its repository, every file that is in no hidden or `target` folder.
    pub fn of_this_repository() -> Tree {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies below the top");
        let mut paths = git_files(top).unwrap_or_default();
        if paths.is_empty() {
            walk(top, "", &mut paths);
        }
        let (mut files, mut binary) = (BTreeMap::new(), Vec::new());
        for path in paths {
            // A file that was removed but is still in the index cannot be read: it is not there.
            match std::fs::read(top.join(&path)).map(String::from_utf8) {
                Ok(Ok(text)) => drop(files.insert(path, text)),
                Ok(Err(_)) => binary.push(path),
                Err(_) => {}
            }
        }
        Tree::new(files, binary)
    }

    /// A planted example.
    #[cfg(test)]
    pub fn planted(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        Tree::new(files, Vec::new())
    }

    fn new(files: BTreeMap<String, String>, binary: Vec<String>) -> Tree {
        let rust = files.iter().filter(|(p, _)| p.ends_with(".rs"));
        let test_modules = rust.flat_map(|(path, text)| test_modules(path, text)).collect();
        Tree { files, binary, test_modules }
    }

    /// Whether the whole file is test code: a test binary, or a sibling file that holds a module's tests, known by
    /// its name or by the `#[cfg(test)] mod …;` that declares it.
    pub fn is_test_file(&self, path: &str) -> bool {
        named_as_test(path) || self.test_modules.contains(path)
    }

    pub fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Files whose name ends so, with their text.
    pub fn ending(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter(move |(p, _)| p.ends_with(suffix)).map(|(p, t)| (p.as_str(), t.as_str()))
    }

    /// Whether the path is a file, or a folder with files; the empty path is the top.
    pub fn exists(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        let mut all = self.files.keys().chain(&self.binary);
        path.is_empty() || all.any(|p| p == path || p.starts_with(&below))
    }
}

fn named_as_test(path: &str) -> bool {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let in_tests_folder = path.split('/').skip(1).any(|part| part == "tests");
    in_tests_folder || stem == "tests" || stem.ends_with("_tests") || stem.starts_with("tests_")
}

/// The files that `#[cfg(test)] mod name;` in the file `path` may mean, a `#[path]` between the two heeded.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
    let below = match file {
        "lib.rs" | "main.rs" | "mod.rs" => dir.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    let mut out = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.any(|l| l == "#[cfg(test)]") {
        let mut next = lines.clone();
        let mut line = next.next().unwrap_or("");
        if let Some(name) = line.strip_prefix("#[path = \"").and_then(|l| l.strip_suffix("\"]")) {
            out.push(format!("{dir}/{name}"));
            line = next.next().unwrap_or("");
        }
        if let Some((_, name)) = line.trim_end_matches(';').split_once("mod ").filter(|_| line.ends_with(';')) {
            out.extend([format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")]);
        }
    }
    out
}

fn git_files(top: &Path) -> Option<Vec<String>> {
    let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let out = Command::new("git").arg("-C").arg(top).args(args).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    Some(text.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect())
}

fn walk(top: &Path, below: &str, out: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(top.join(below)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && (!name.starts_with('.') || name == ".ci") && name != "target" => {
                walk(top, &path, out);
            }
            Ok(kind) if kind.is_file() => out.push(path),
            _ => {}
        }
    }
}

#[test]
fn test_files_are_known_by_place_name_or_declaration() {
    let declares = "#[cfg(test)]\npub(crate) mod fake;\n#[cfg(test)]\n#[path = \"odd.rs\"]\nmod x;\nmod real;\n";
    let tree = Tree::planted(&[("vefs/src/plan.rs", declares), ("vefs/src/lib.rs", "#[cfg(test)]\nmod util;\n")]);
    for yes in [
        "tests/tests/tidy/main.rs",
        "vefs/tests/a.rs",
        "vefs/src/plan/tests.rs",
        "vefs/src/plan_tests.rs",
        "vefs/src/plan/fake.rs",
        "vefs/src/odd.rs",
        "vefs/src/util.rs",
    ] {
        assert!(tree.is_test_file(yes), "{yes}");
    }
    for no in
        ["tests/src/lib.rs", "vefs/src/plan.rs", "vefs/src/attests.rs", "vefs/src/plan/real.rs", "vefs/src/fake.rs"]
    {
        assert!(!tree.is_test_file(no), "{no}");
    }
}

#[test]
fn folders_exist_when_a_file_lies_in_them() {
    let tree = Tree::planted(&[("docs/a.md", "")]);
    assert!(tree.exists("docs") && tree.exists("docs/") && tree.exists("docs/a.md") && tree.exists(""));
    assert!(!tree.exists("doc") && !tree.exists("docs/b.md"));
}

#[test]
fn without_git_the_folders_are_walked() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for file in ["a.rs", "x/b.rs", "target/c.rs", ".git/d", ".ci/run"] {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("a folder");
        std::fs::write(path, "").expect("a file");
    }
    let mut found = Vec::new();
    walk(dir.path(), "", &mut found);
    found.sort();
    assert_eq!(found, [".ci/run", "a.rs", "x/b.rs"]);
}
