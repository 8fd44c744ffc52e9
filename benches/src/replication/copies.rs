//! What is at the replica: how old its newest stamp is, and whether it is a state that the writer had.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vefs::ids::VeId;

use super::load::{STAMP, TURN, boot, parse};
use super::nodes::Node;

/// The files by which a copy is judged. The database's journal may be absent.
const JUDGED: [&str; 3] = ["stamps", "db", "db-journal"];

/// Checks the database and prints its last commit.
const CHECK: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
said = db.execute('pragma integrity_check').fetchone()[0]
assert said == 'ok', said
print(max(0, db.execute('select max(n) from t').fetchone()[0]))
";

/// Where copies come to be.
pub trait Copies: Sync {
    /// The newest stamp there.
    fn newest(&self) -> Result<Vec<u8>>;
    /// Puts what is judged of the newest copy in a folder.
    fn take(&self, into: &Path) -> Result<()>;
}

/// A VE at a node that follows it.
pub struct Followed<'a> {
    /// The node.
    pub node: &'a Node,
    /// The VE.
    pub ve: VeId,
}

impl Copies for Followed<'_> {
    fn newest(&self) -> Result<Vec<u8>> {
        self.node.cat(self.ve, "/now", None)
    }

    fn take(&self, into: &Path) -> Result<()> {
        let txn = self.node.rows(self.ve)?.first().context("it follows nobody")?.txn;
        for name in JUDGED {
            match self.node.cat(self.ve, &format!("/{name}"), Some(txn)) {
                Ok(bytes) => std::fs::write(into.join(name), bytes)?,
                Err(e) if name == "db-journal" && e.to_string().contains("o such file") => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A folder that somebody writes copies into, in place.
pub struct InPlace {
    /// The folder.
    pub dir: PathBuf,
    /// Who: this process and those below it stand still while a copy is taken, as if the node had been lost.
    pub writer: i32,
}

impl Copies for InPlace {
    fn newest(&self) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.dir.join("now"))?)
    }

    fn take(&self, into: &Path) -> Result<()> {
        let mut all = vec![self.writer];
        all.extend(crate::undo::descendants(self.writer));
        let signal = |signal: Signal| all.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid), signal));
        signal(Signal::SIGSTOP);
        let taken = take(&self.dir, into);
        signal(Signal::SIGCONT);
        taken
    }
}

/// Copies what is judged.
pub fn take(from: &Path, into: &Path) -> Result<()> {
    for name in JUDGED {
        match std::fs::copy(from.join(name), into.join(name)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && name == "db-journal" => {}
            done => _ = done.with_context(|| name.to_owned())?,
        }
    }
    Ok(())
}

/// How old a copy was when it was taken, if it is a state that the writer had.
///
/// Stamps are numbered from 1 without a gap; the database is whole; and it has all commits that began before a stamp that is there, and none that began
/// after one that is not.
pub fn judge(copy: &Path, taken: Duration) -> Result<Duration> {
    let stamps = std::fs::read(copy.join("stamps"))?;
    let (mut last, mut time) = (0, None);
    for bytes in stamps.chunks(STAMP) {
        let (n, at) = parse(bytes).context("a torn stamp")?;
        ensure!(n == last + 1, "stamp {n} after {last}");
        (last, time) = (n, Some(at));
    }
    let out = Command::new("python3").args(["-c", CHECK]).arg(copy.join("db")).output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "database: {}", said.trim().lines().last().unwrap_or_default());
    let commit: u64 = String::from_utf8_lossy(&out.stdout).trim().parse()?;
    let fits = (TURN * commit..=TURN * (commit + 1)).contains(&last);
    ensure!(fits, "commit {commit} beside stamp {last}");
    Ok(taken.saturating_sub(time.context("no stamp")?))
}

/// How old the newest stamp is, in seconds; infinite where there is none.
pub fn age(copies: &dyn Copies) -> f64 {
    let newest = copies.newest().ok();
    let found = newest.as_deref().and_then(parse);
    found.map_or(f64::INFINITY, |(_, at)| boot().saturating_sub(at).as_secs_f64())
}
