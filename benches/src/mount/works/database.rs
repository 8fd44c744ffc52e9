//! Databases: many small transactions that must be durable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Work, run};

/// Transactions of ten rows each; prints what they took.
const SQLITE: &str = "
import sqlite3, sys, time
path, journal, synchronous, times = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
db.execute('pragma journal_mode=' + journal)
db.execute('pragma synchronous=' + synchronous)
db.execute('create table t (id integer primary key, name text, value blob)')
db.execute('create index i on t (name)')
start = time.monotonic_ns()
for n in range(int(times)):
    db.execute('begin')
    for k in range(10):
        db.execute('insert into t (name, value) values (?, ?)', (f'name-{(n * 7919 + k * 104729) % 100003}', b'x' * 200))
    db.execute('commit')
print(time.monotonic_ns() - start)
";

fn python_has_sqlite() -> bool {
    Command::new("python3").args(["-c", "import sqlite3"]).output().is_ok_and(|o| o.status.success())
}

/// SQLite with both journals.
pub fn sqlite(work: &mut Work) -> Result<()> {
    if !python_has_sqlite() {
        return Ok(());
    }
    let cases = [
        ("sqlite DELETE, FULL", "delete", "full", work.size(150, 2)),
        ("sqlite WAL, NORMAL", "wal", "normal", work.size(2000, 10)),
    ];
    for (step, journal, synchronous, times) in cases {
        let path = work.dir.join(journal);
        let mut python = Command::new("python3");
        let out = python.args(["-c", SQLITE]).arg(path).args([journal, synchronous, &times.to_string()]).output()?;
        ensure!(out.status.success(), "python3: {}", String::from_utf8_lossy(&out.stderr));
        let nanos = String::from_utf8_lossy(&out.stdout).trim().parse().context("what python printed")?;
        work.counted(step, Duration::from_nanos(nanos));
    }
    Ok(())
}

/// Where PostgreSQL's programs are.
fn postgres() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok().map(|e| e.path().join("bin")))
        .collect();
    folders.sort();
    folders.into_iter().rev().find(|f| f.join("initdb").exists() && f.join("pgbench").exists())
}

/// A script as the user `nobody`, whom PostgreSQL needs: it does not run as root.
fn as_nobody(script: &str, bin: &Path, data: &Path, quick: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-ec", script, "sh"]);
    command
        .arg(bin)
        .arg(data)
        .arg(if quick { "5" } else { "150" })
        .env("LC_ALL", "C")
        .env("HOME", "/")
        .current_dir("/");
    command
}

/// Initialises a cluster, runs transactions in one connection, and prints their average latency.
const PGBENCH: &str = r#"
bin=$1 data=$2 times=$3
$bin/initdb -D $data/db -U bench -A trust --no-sync > /dev/null
$bin/pg_ctl -D $data/db -w -s -l $data/log -o "-c listen_addresses= -c unix_socket_directories=$data" start
trap '$bin/pg_ctl -D $data/db -w -s -m fast stop' EXIT
$bin/pgbench -h $data -U bench -i -q postgres 2> /dev/null
$bin/psql -h $data -U bench -q -c checkpoint postgres
$bin/pgbench -h $data -U bench -n -c 1 -t $times postgres | sed -n 's/^latency average = \(.*\) ms$/\1/p'
"#;

/// PostgreSQL, where it is installed.
pub fn pgbench(work: &mut Work) -> Result<()> {
    let Some(bin) = postgres() else { return Ok(()) };
    let data = work.dir.join("pg");
    std::fs::create_dir(&data)?;
    run(Command::new("chown").arg("65534:65534").arg(&data))?;
    let out = as_nobody(PGBENCH, &bin, &data, work.quick).output()?;
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "pgbench: {errors}{text}");
    let ms: f64 = text.trim().parse().with_context(|| format!("pgbench's latency: {text}{errors}"))?;
    work.counted("pgbench", Duration::from_secs_f64(ms / 1e3));
    Ok(())
}
