//! What of a database's bytes a replica gets: with a rollback journal, which is written and deleted within a tick, and with a WAL, which stays.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use vefs::ids::VeId;

use super::Asked;
use super::nodes::Nodes;
use crate::outcome::{Figure, Outcome};

/// Makes a database, and then changes one row after another. Says how many bytes its calls wrote meanwhile (proc_pid_io(5)).
const DATABASE: &str = "
import os, random, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=' + sys.argv[2])
db.execute('pragma synchronous=full')
db.execute('create table t (n integer primary key, a blob)')
db.execute('begin')
for n in range(1000):
    db.execute('insert into t values (?, ?)', (n, os.urandom(200)))
db.execute('commit')
written = lambda: int([l for l in open('/proc/self/io') if l.startswith('wchar')][0].split()[1])
print('ready', flush=True)
sys.stdin.readline()
before = written()
for n in range(int(sys.argv[3])):
    db.execute('update t set a = ? where n = ?', (os.urandom(200), random.randrange(1000)))
print(written() - before, flush=True)
";

/// The figures.
pub(super) fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let updates = asked.ground.size(2000, 50);
    let title = format!("replication cancelled: {updates} updates of a SQLite database, each on its own");
    let mut out = Outcome { title, ..Default::default() };
    for mode in ["delete", "wal"] {
        let (mut carried, mut travelled) = (vec![], vec![]);
        for round in 0..asked.ground.rounds(3) {
            let folder = asked.folder(&format!("{mode}-{round}"))?;
            let (history, link) = updated(asked, &folder, mode, updates)?;
            carried.push(history);
            travelled.push(link);
            asked.undo.back_to(asked.mark);
            std::fs::remove_dir_all(&folder)?;
        }
        out.figures.push(Figure::info(format!("journal_mode={mode}: history sent / written"), "ratio", carried));
        out.figures.push(Figure::info(format!("journal_mode={mode}: bytes on the link / written"), "ratio", travelled));
    }
    Ok(out)
}

/// History that was sent, and bytes on the link, both of what the program wrote.
fn updated(asked: &Asked<'_>, folder: &std::path::Path, mode: &str, updates: usize) -> Result<(f64, f64)> {
    let nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    let ve = VeId(1);
    nodes.replicated(ve, &["--window", "10s"])?;
    let root = nodes.one.mount(&ve.to_string(), "root")?;
    let mut program = Command::new("python3");
    program.args(["-c", DATABASE]).arg(root.join("db")).args([mode, &updates.to_string()]);
    let mut program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("python3")?;
    let mut said = std::io::BufReader::new(program.stdout.take().context("no output")?);
    let mut line = || -> Result<String> {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line)?;
        Ok(line.trim().to_owned())
    };
    ensure!(line()? == "ready", "the database is not made");
    let carried = || -> Result<u64> { Ok(nodes.one.rows(ve)?.iter().map(|r| r.carried_bytes).sum()) };
    nodes.one.drained(ve)?;
    let before = (carried()?, nodes.travelled()?);
    drop(program.stdin.take().context("no input")?);
    let written: f64 = line()?.parse().context("bytes written")?;
    ensure!(program.wait()?.success(), "the database failed");
    nodes.one.drained(ve)?;
    Ok(((carried()? - before.0) as f64 / written, (nodes.travelled()? - before.1) as f64 / written))
}
