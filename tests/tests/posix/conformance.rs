//! Suites that others wrote: pjdfstest and fsx. `scripts/conformance-tools` installs them; `make test` does, and says where they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aspfs_tests::mounted::{expect, outcome, reference};

use crate::{bed, rounds};

/// Where make says that the suites' programs are.
const TOOLS: &str = "ASPFS_CONFORMANCE_TOOLS";

/// A suite's program; `None`, with a word on why, where it is not installed and need not be.
fn tool(name: &str) -> Option<PathBuf> {
    let said = std::env::var_os(TOOLS).map(PathBuf::from);
    let cache = |var: &str, below: &str| std::env::var_os(var).map(|dir| PathBuf::from(dir).join(below));
    let usual = cache("ASPFS_CACHE", "").or_else(|| cache("XDG_CACHE_HOME", "aspfs"));
    let usual = usual.or_else(|| cache("HOME", ".cache/aspfs")).map(|dir| dir.join("conformance/bin"));
    let found = said.clone().or(usual)?.join(name);
    if found.exists() {
        return Some(found);
    }
    assert!(said.is_none(), "{TOOLS} is set, but there is no {}", found.display());
    eprintln!("skipped: {name} is not installed (scripts/conformance-tools does it)");
    None
}

/// Tests of pjdfstest that pass on ext4 and not here, and why.
const PJDFSTEST_EXCLUDED: &[(&str, &str)] = &[(
    "link::link_count_max",
    "skipped: pathconf(_PC_LINK_MAX) is glibc's own guess from the file system's kind, and it knows none for FUSE; \
     `names::the_65001st_link_is_refused` tests the limit itself",
)];

const PJDFSTEST_CONFIG: &str = r#"
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
rename_ctime = {}
stat_st_birthtime = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Results by the test's name.
fn pjdfstest(program: &Path, place: &Path, other: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place, PermissionsExt::from_mode(0o777)).unwrap();
    // It makes paths of exactly PATH_MAX from components of 127 bytes below a folder whose name is 22 longer than what it is given, and panics where
    // the last one would be empty (0.2.2): so the length of the place decides.
    let rest = |dir: &Path| (4095 - 22 - dir.as_os_str().len()) % 127;
    let mut below = place.join("p");
    while !(30..100).contains(&rest(&below)) {
        below = below.join("pppppppppp");
    }
    std::fs::create_dir_all(&below).unwrap();
    std::fs::set_permissions(&below, PermissionsExt::from_mode(0o777)).unwrap();
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), PJDFSTEST_CONFIG).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(config.path()).arg("-p").arg(&below).arg("-s").arg(other).current_dir("/");
    let done = outcome(&mut command, Duration::from_secs(150)).unwrap();
    let mut results = BTreeMap::new();
    for line in done.stdout.lines().filter(|l| !l.starts_with(char::is_whitespace)) {
        if let [name, result @ ("ok" | "skipped" | "FAILED")] = line.split_whitespace().collect::<Vec<_>>()[..] {
            results.insert(name.to_owned(), result.to_owned());
        }
    }
    assert!(results.len() > 390, "{}\n{}\n{}", done.status, done.stdout, done.stderr);
    results
}

/// checks G8
#[test]
fn pjdfstest_passes_what_ext4_passes() {
    let (Some(program), Some(local)) = (tool("pjdfstest"), reference()) else { return };
    let Some((bed, ve)) = bed(300) else { return };
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let (on_ext4, here) = std::thread::scope(|s| {
        let on_ext4 = s.spawn(|| pjdfstest(&program, local.path(), other.path()));
        let here = pjdfstest(&program, &ve, other.path());
        (on_ext4.join().unwrap(), here)
    });
    let excluded = |name: &str| PJDFSTEST_EXCLUDED.iter().any(|(n, _)| *n == name);
    let worse: Vec<String> = on_ext4
        .iter()
        .filter(|(name, result)| *result == "ok" && here.get(*name) != Some(result) && !excluded(name))
        .map(|(name, _)| format!("{name}: {:?}", here.get(name)))
        .collect();
    let passed = |results: &BTreeMap<String, String>| results.values().filter(|r| *r == "ok").count();
    println!("pjdfstest: {} pass on ext4, {} here", passed(&on_ext4), passed(&here));
    assert!(worse.is_empty(), "pass on ext4 and not here:\n{}", worse.join("\n"));
    for (name, why) in PJDFSTEST_EXCLUDED {
        assert_ne!(here.get(*name).map(String::as_str), Some("ok"), "{name} passes, its exclusion is stale: {why}");
    }
    bed.finish();
}

const FSX_CONFIG: &str = "
flen = 262144
[weights]
close_open = 1
fallocate = 1
fsync = 1
fdatasync = 1
hole = 1
invalidate = 1
mapread = 10
mapwrite = 10
punch_hole = 1
read = 10
truncate = 1
write = 10
copy_file_range = 1
posix_fadvise = 1
";

/// One run of fsx: it compares every byte that it reads with what it wrote, and says so by its exit status.
fn fsx(program: &Path, file: &Path, seed: u64, operations: u64, limit: Duration) {
    let work = tempfile::tempdir().unwrap();
    let config = work.path().join("fsx.toml");
    std::fs::write(&config, FSX_CONFIG).unwrap();
    let mut command = Command::new(program);
    command.arg("-f").arg(config).arg("-P").arg(work.path()).args(["-S", &seed.to_string()]);
    command.args(["-N", &operations.to_string()]).arg(file);
    println!("fsx: seed {seed}, {operations} operations");
    expect(&mut command, limit);
}

/// checks G8
#[test]
fn fsx_reads_what_it_wrote() {
    let Some(program) = tool("fsx") else { return };
    let Some((bed, ve)) = bed(1200) else { return };
    for seed in 1..=4 {
        fsx(
            &program,
            &ve.join(format!("fsx-{seed}")),
            seed,
            rounds("ASPFS_FSX", 150_000) / 4,
            Duration::from_secs(1000),
        );
    }
    bed.finish();
}

/// checks G7, G31: the daemon is killed under fsx again and again
#[test]
fn fsx_does_not_notice_that_the_daemon_is_killed() {
    let Some(program) = tool("fsx") else { return };
    let Some((bed, ve)) = bed(600) else { return };
    let over = AtomicBool::new(false);
    let kills = std::thread::scope(|s| {
        let killer = s.spawn(|| {
            let mut kills = 0;
            while !over.load(Ordering::Relaxed) {
                // Some lives are long enough for a tick, some are not.
                std::thread::sleep(Duration::from_millis(300 + kills * 370 % 1000));
                bed.kill();
                bed.run();
                kills += 1;
            }
            kills
        });
        let done = std::panic::catch_unwind(|| {
            for seed in 11..=12 {
                let file = ve.join(format!("fsx-{seed}"));
                fsx(&program, &file, seed, rounds("ASPFS_FSX_KILLED", 20_000) / 2, Duration::from_secs(500));
            }
        });
        over.store(true, Ordering::Relaxed);
        let kills = killer.join().unwrap();
        done.map(|()| kills).unwrap_or_else(|e| std::panic::resume_unwind(e))
    });
    println!("fsx: the daemon was killed {kills} times");
    assert!(kills > 2);
    bed.finish();
}
