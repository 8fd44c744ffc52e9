//! Every benchmark still runs, on sizes that mean nothing.

use std::process::Command;

#[test]
fn all_benchmarks_run() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_aspfs-bench"));
    let out = bench.args(["all", "--quick", "--json", "--dir"]).arg(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    for question in [
        "metadata",
        "bulk-write",
        "append-fsync",
        "small-append",
        "recovery",
        "many-ves",
        "random-read",
        "seq-read",
        "transport",
        "replication",
    ] {
        let title = format!(r#"{{"title":"{question}: "#);
        assert!(text.lines().any(|l| l.starts_with(&title)), "no {question} in\n{text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "folders were left behind");
}

/// The named question about replication that needs neither mounts nor namespaces.
#[test]
fn replication_of_many_ves_runs() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_aspfs-bench"));
    let out =
        bench.args(["replication", "scale", "--quick", "--seconds", "1", "--dir"]).arg(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("3 VEs: in bulk"), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "folders were left behind");
}
