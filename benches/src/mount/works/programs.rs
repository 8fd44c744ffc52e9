//! Starting the template's own programs, with the place as root directory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Work, drop_caches, run};

/// What a script of some size imports.
const IMPORTS: &str = "import json, argparse, subprocess, urllib.request, logging, tempfile, shutil, email, sqlite3";

fn enter(root: &Path) -> Result<()> {
    rustix::process::chroot(root).context("chroot")?;
    Ok(std::env::set_current_dir("/")?)
}

/// One program after the other; each is linked dynamically.
pub fn exec(work: &mut Work) -> Result<()> {
    enter(&work.root)?;
    let start = || -> Result<()> {
        ensure!(Command::new("/bin/true").env_clear().status().context("/bin/true")?.success());
        Ok(())
    };
    (0..20).try_for_each(|_| start())?;
    let times = work.size(500, 5);
    work.step("exec /bin/true", || (0..times).try_for_each(|_| start()))
}

/// An interpreter with nothing in any cache.
pub fn python(work: &mut Work) -> Result<()> {
    let python = "usr/bin/python3";
    if !work.root.join(python).exists() {
        return Ok(());
    }
    drop_caches()?;
    enter(&work.root)?;
    let mut command = Command::new(Path::new("/").join(python));
    // Not /dev/null, which would be the place's own.
    command.args(["-B", "-c", IMPORTS]).env_clear().stdin(std::process::Stdio::inherit());
    work.step("cold python", || run(&mut command))
}
