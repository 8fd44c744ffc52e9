//! btrfs: a loop of snapshots, each sent as a difference to the one before.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use super::super::Asked;
use super::super::copies::{Copies, take};
use super::{Peer, run};

/// Size of a file system's image, of which only what is written takes space.
const IMAGE: u64 = 8 << 30;

/// A file system of its own, with a subvolume that the load writes.
fn make(asked: &Asked<'_>, folder: &Path, name: &str) -> Result<PathBuf> {
    let (image, dir) = (folder.join(format!("{name}.img")), folder.join(name));
    std::fs::create_dir_all(&dir)?;
    std::fs::File::create(&image)?.set_len(IMAGE)?;
    run(Command::new("mkfs.btrfs").arg("-q").arg(&image))?;
    asked.undo.unmount(dir.clone());
    // The loop device goes with its mount.
    run(Command::new("mount").args(["-t", "btrfs", "-o", "loop,noatime"]).arg(&image).arg(&dir))?;
    Ok(dir)
}

fn subvolume(args: &[&str], paths: &[&Path]) -> Result<()> {
    run(Command::new("btrfs").arg("subvolume").args(args).args(paths))
}

/// The load's file system without a copy.
pub fn alone(asked: &Asked<'_>, folder: &Path) -> Result<Peer> {
    let root = make(asked, folder, "a")?.join("live");
    subvolume(&["create"], &[&root])?;
    Ok(Peer { root, copies: Box::new(Snapshots::default()) })
}

/// Two file systems and a loop between them.
pub fn set_up(asked: &Asked<'_>, folder: &Path) -> Result<Peer> {
    let (from, to) = (make(asked, folder, "a")?, make(asked, folder, "b")?);
    let root = from.join("live");
    subvolume(&["create"], &[&root])?;
    let newest = Arc::new(Newest { folder: to.clone(), number: AtomicU64::new(0), reading: Mutex::new(()) });
    let over = Arc::new(AtomicBool::new(false));
    let (told, ended) = (newest.clone(), over.clone());
    let sending = std::thread::Builder::new().name("send".into()).spawn(move || {
        let mut n = 0;
        while !ended.load(Ordering::Relaxed) {
            n += 1;
            if let Err(e) = send(&from, &to, n) {
                // When the run is interrupted the file systems go first.
                if !ended.load(Ordering::Relaxed) {
                    eprintln!("btrfs: {e:#}");
                }
                return;
            }
            told.number.store(n, Ordering::Release);
            let _not_meanwhile = told.reading.lock();
            if n > 1 {
                let gone = format!("snapshot-{}", n - 1);
                let removed = [&from, &to].map(|dir| subvolume(&["delete"], &[&dir.join(&gone)]));
                drop(removed);
            }
        }
    })?;
    Ok(Peer { root, copies: Box::new(Snapshots { newest: Some(newest), over, sending: Some(sending) }) })
}

/// Makes a snapshot and sends what is different from the one before.
fn send(from: &Path, to: &Path, n: u64) -> Result<()> {
    let snapshot = |n: u64| from.join(format!("snapshot-{n}"));
    subvolume(&["snapshot", "-r"], &[&from.join("live"), &snapshot(n)])?;
    let mut send = Command::new("btrfs");
    send.args(["-q", "send"]);
    if n > 1 {
        send.arg("-p").arg(snapshot(n - 1));
    }
    let mut send = send.arg(snapshot(n)).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stream = send.stdout.take().context("a pipe")?;
    let received = Command::new("btrfs").args(["-q", "receive"]).arg(to).stdin(stream).stderr(Stdio::null()).status();
    ensure!(send.wait()?.success() && received?.success(), "snapshot {n} was not sent");
    Ok(())
}

/// The newest snapshot that has arrived whole.
struct Newest {
    folder: PathBuf,
    number: AtomicU64,
    /// Held while it is read: it stays as long.
    reading: Mutex<()>,
}

#[derive(Default)]
struct Snapshots {
    newest: Option<Arc<Newest>>,
    over: Arc<AtomicBool>,
    sending: Option<JoinHandle<()>>,
}

impl Snapshots {
    fn with<T>(&self, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let newest = self.newest.as_ref().context("nothing is sent")?;
        let _stays = newest.reading.lock();
        let n = newest.number.load(Ordering::Acquire);
        ensure!(n > 0, "nothing has arrived");
        read(&newest.folder.join(format!("snapshot-{n}")))
    }
}

impl Copies for Snapshots {
    fn newest(&self) -> Result<Vec<u8>> {
        self.with(|dir| Ok(std::fs::read(dir.join("now"))?))
    }

    fn take(&self, into: &Path) -> Result<()> {
        self.with(|dir| take(dir, into))
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(sending) = self.sending.take() {
            let _ = sending.join();
        }
    }
}
