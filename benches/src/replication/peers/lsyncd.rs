//! lsyncd: inotify, and rsync for what changed, at most a second later.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::super::Asked;
use super::super::copies::InPlace;
use super::Peer;

/// Files are held open by their writers: every modification counts, not only the last close.
fn configuration(folder: &Path) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    format!(
        "settings {{ nodaemon = true, inotifyMode = 'CloseWrite or Modify', logfile = '{}', statusFile = '{}' }}\n\
         sync {{ default.rsync, source = '{}', target = '{}', delay = 1, rsync = {{ archive = true, whole_file = false }} }}\n",
        at("log"),
        at("status"),
        at("source"),
        at("target")
    )
}

/// Two folders and an lsyncd between them.
pub fn set_up(asked: &Asked<'_>, folder: &Path) -> Result<Peer> {
    for name in ["source", "target"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let file = folder.join("lsyncd.lua");
    std::fs::write(&file, configuration(folder))?;
    // Signals are blocked here, and it waits for them.
    let mut command = Command::new("env");
    command.args(["--default-signal", "lsyncd"]).arg(&file);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("lsyncd")?;
    let writer = child.id().cast_signed();
    asked.undo.kill(child);
    Ok(Peer { root: folder.join("source"), copies: Box::new(InPlace { dir: folder.join("target"), writer }) })
}
