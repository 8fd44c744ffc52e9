//! The committed text files of a repository, or of a planted example, by path relative to its top.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Text files by relative path. Files that are not UTF-8 (golden bytes) are known by name only.
pub struct Tree {
    files: BTreeMap<String, String>,
    binary: Vec<String>,
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
        Tree { files, binary }
    }

    /// A planted example.
    #[cfg(test)]
    pub fn planted(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        Tree { files, binary: Vec::new() }
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

/// Whether the whole file is test code: a test binary, or the sibling file that holds a module's tests.
pub fn is_test_file(path: &str) -> bool {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let in_tests_folder = path.split('/').skip(1).any(|part| part == "tests");
    in_tests_folder || stem == "tests" || stem.ends_with("_tests") || stem.starts_with("tests_")
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
fn test_files_are_known_by_their_place_or_name() {
    for yes in ["tests/tests/tidy/main.rs", "vefs/tests/a.rs", "vefs/src/plan/tests.rs", "vefs/src/plan_tests.rs"] {
        assert!(is_test_file(yes), "{yes}");
    }
    for no in ["tests/src/lib.rs", "vefs/src/plan.rs", "vefs/src/attests.rs", "vefs/src/latest.rs"] {
        assert!(!is_test_file(no), "{no}");
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
