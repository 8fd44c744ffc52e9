//! Programs that were made to find faults: stress-ng's file stressors, and CPython's own tests of its file functions. What they say of ext4 on the
//! same machine is what they must say here.
//!
//! `scripts/conformance-tools` installs stress-ng. CPython's tests take minutes and run where `ASPFS_NIGHTLY` is set and Debian's
//! libpython3.11-testsuite is installed: `scripts/posix-extra` does both.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aspfs_tests::mounted::{outcome, reference};

use crate::bed;

const STRESS: &str = "/usr/bin/stress-ng";
const PYTHON: &str = "/usr/bin/python3.11";
const PYTHON_TESTS: &str = "/usr/lib/python3.11/test/test_os.py";

/// Stressors, and how many operations each does; with `--verify` they check what they read. `io` is not among them: it is sync(2), which waits
/// for whatever else the machine has to write.
const STRESSORS: [(&str, u32); 33] = [
    ("access", 50),
    ("chdir", 10),
    ("chmod", 50),
    ("chown", 200),
    ("copy-file", 4),
    ("dentry", 2000),
    ("dir", 2000),
    ("dirdeep", 200),
    ("fallocate", 10),
    ("fcntl", 200),
    ("fiemap", 200),
    ("file-ioctl", 100),
    ("filename", 200),
    ("flock", 2000),
    ("fstat", 500),
    ("getdent", 200),
    ("handle", 200),
    ("hdd", 30),
    ("inotify", 5),
    ("link", 1),
    ("locka", 500),
    ("lockf", 500),
    ("lockofd", 500),
    ("mknod", 20),
    ("open", 2000),
    ("readahead", 50),
    ("rename", 500),
    ("seek", 500),
    ("sync-file", 20),
    ("symlink", 1),
    ("touch", 200),
    ("utime", 200),
    ("xattr", 2),
];

/// How each stressor ended in a folder.
fn stress(dir: &Path) -> BTreeMap<&'static str, (Option<i32>, String)> {
    let run = |(name, operations): (&'static str, u32)| {
        let mut command = Command::new(STRESS);
        command.arg(format!("--{name}")).arg("2").arg(format!("--{name}-ops")).arg(operations.to_string());
        command.args(["--verify", "--timeout", "10", "--hdd-bytes", "16m", "--temp-path"]).arg(dir);
        command.args(["--fallocate-bytes", "16m", "--copy-file-bytes", "128m"]);
        let done = outcome(&mut command, Duration::from_secs(90)).unwrap();
        let failures = done.stdout.lines().chain(done.stderr.lines()).filter(|l| l.contains("fail:"));
        (name, (done.status.code(), failures.collect::<Vec<_>>().join("\n")))
    };
    STRESSORS.into_iter().map(run).collect()
}

/// checks G8
#[test]
fn stressors_end_as_on_ext4() {
    if !Path::new(STRESS).exists() {
        eprintln!("skipped: stress-ng is not installed (scripts/conformance-tools does it)");
        return;
    }
    let Some(right) = reference() else { return };
    let Some((bed, ve)) = bed(600) else { return };
    let here = stress(&ve);
    let well = |all: &BTreeMap<_, (Option<i32>, _)>| all.values().filter(|(code, _)| *code == Some(0)).count();
    if well(&here) < here.len() {
        let expected = stress(right.path());
        let worse: Vec<_> =
            here.iter().filter(|(name, end)| end.0 != Some(0) && expected[*name].0 == Some(0)).collect();
        assert!(worse.is_empty(), "well on ext4, and not here: {worse:#?}");
    }
    println!("stress-ng: {} of {} stressors end well", well(&here), here.len());
    assert!(well(&here) > here.len() / 2);
    bed.finish();
}

/// CPython's test modules.
const MODULES: [&str; 12] = [
    "test_os",
    "test_posix",
    "test_shutil",
    "test_tempfile",
    "test_mmap",
    "test_fileio",
    "test_glob",
    "test_largefile",
    "test_file",
    "test_io",
    "test_pathlib",
    "test_zipfile",
];

/// Results by the test's name.
fn python(dir: &Path) -> BTreeMap<String, String> {
    let mut command = Command::new(PYTHON);
    command.args(["-m", "test", "-v", "-u", "largefile", "--tempdir"]).arg(dir).args(MODULES);
    command.env("TMPDIR", dir).current_dir(dir);
    let done = outcome(&mut command, Duration::from_secs(1500)).unwrap();
    let mut results = BTreeMap::new();
    for line in done.stdout.lines().chain(done.stderr.lines()) {
        if let Some((name, result)) = line.split_once(" ... ")
            && name.starts_with("test_")
        {
            let result = ["ok", "FAIL", "ERROR", "skipped"].into_iter().find(|r| result.contains(r)).unwrap_or("?");
            results.insert(name.to_owned(), result.to_owned());
        }
    }
    assert!(results.len() > 800, "{}\n{}\n{}", done.status, done.stdout, done.stderr);
    results
}

/// checks G8
#[test]
fn cpythons_own_tests_end_as_on_ext4() {
    if std::env::var_os("ASPFS_NIGHTLY").is_none() || !Path::new(PYTHON_TESTS).exists() {
        eprintln!("skipped: takes minutes, and needs libpython3.11-testsuite (scripts/posix-extra)");
        return;
    }
    let Some(right) = reference() else { return };
    let Some((bed, ve)) = bed(3600) else { return };
    let (expected, here) = (python(right.path()), python(&ve));
    let differ = |(name, result): (&String, &String)| {
        let found = here.get(name);
        (found != Some(result)).then(|| format!("{name}: {result} on ext4, {found:?} here"))
    };
    let different: Vec<String> = expected.iter().filter_map(differ).collect();
    let passed = here.values().filter(|r| *r == "ok").count();
    println!("CPython: {} tests, {passed} pass here", here.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
    bed.finish();
}
