//! The places that are compared: the same template under kernel overlayfs, fuse-overlayfs and a VE, all on one disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::prepare;
use super::undo::Undo;

/// How long the daemon may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// One place: what makes it, and where it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// What serves it.
    pub name: &'static str,
    /// Its root.
    pub root: PathBuf,
}

/// The programs that are measured.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder with `aspfsd`, `aspfs` and `aspfs-holder`.
    pub folder: PathBuf,
}

impl Programs {
    /// Those in a folder, or beside this program.
    pub fn find(folder: Option<&Path>) -> Result<Programs> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => std::env::current_exe()?.parent().context("this program lies nowhere")?.to_owned(),
        };
        for name in ["aspfsd", "aspfs", "aspfs-holder"] {
            let path = folder.join(name);
            ensure!(path.exists(), "{} is not there: build it, or name its folder with --programs", path.display());
        }
        Ok(Programs { folder })
    }
}

/// A running daemon.
pub struct Daemon {
    /// Its process.
    pub pid: u32,
    /// Its store.
    pub store: PathBuf,
    runtime: PathBuf,
    programs: Programs,
}

impl Daemon {
    /// Makes a store in `folder` with the template and `ves` VEs numbered from 1, and starts a daemon for it. Answers also how long
    /// the creation of each VE took.
    pub fn start(
        undo: &Undo,
        programs: &Programs,
        folder: &Path,
        template: &Path,
        ves: u32,
    ) -> Result<(Daemon, Vec<Duration>)> {
        let store = folder.join("store");
        let created = prepare::in_child(&store, template, ves)?;
        // A socket's path is short.
        let runtime = tempfile::Builder::new().prefix("aspfs-bench-").tempdir()?.keep();
        undo.remove(runtime.clone());
        let mut daemon = Daemon { pid: 0, store, runtime, programs: programs.clone() };
        daemon.run(undo)?;
        if let Some(holder) = child_of(daemon.pid) {
            undo.holder(holder);
        }
        Ok((daemon, created))
    }

    /// Kills it and starts another one; answers how long it took from the one to the other's being ready, mounts and all.
    pub fn replace(&mut self, undo: &Undo) -> Result<Duration> {
        let start = Instant::now();
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL)?;
        self.run(undo)?;
        Ok(start.elapsed())
    }

    /// Starts a process, and waits until it answers.
    fn run(&mut self, undo: &Undo) -> Result<()> {
        let log = self.store.with_file_name("aspfsd.log");
        let child = Command::new(self.programs.folder.join("aspfsd"))
            .arg("--store")
            .arg(&self.store)
            .arg("--socket")
            .arg(self.socket())
            .arg("--runtime-dir")
            .arg(self.runtime.join("run"))
            .args(["--log", "warn"])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("starting aspfsd")?;
        self.pid = child.id();
        undo.stop(child);
        let start = Instant::now();
        while self.client(&["status"]).is_err() {
            if start.elapsed() > READY {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("aspfsd was not ready within {READY:?}: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.runtime.join("control")
    }

    fn client(&self, args: &[&str]) -> Result<()> {
        let client = self.programs.folder.join("aspfs");
        let out = Command::new(client).arg("--socket").arg(self.socket()).args(args).output()?;
        ensure!(out.status.success(), "aspfs {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    /// Mounts a VE.
    pub fn mount(&self, undo: &Undo, ve: u32, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        undo.unmount(dir.to_owned());
        self.client(&["mount", &format!("{ve:08X}"), &dir.display().to_string()])
    }
}

/// A process whose parent is `pid`.
fn child_of(pid: u32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Whether a program is installed.
pub fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).exists())
}

/// Folders of an overlay: upper, work, merged.
fn overlay(folder: &Path, template: &Path) -> Result<(String, PathBuf)> {
    for part in ["upper", "work", "merged"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    let options = format!("lowerdir={},upperdir={},workdir={}", template.display(), upper.display(), work.display());
    Ok((options, folder.join("merged")))
}

/// Mounts the template with the kernel's overlayfs. Without access times, as VEs have none.
pub fn kernel_overlay(undo: &Undo, folder: &Path, template: &Path) -> Result<Place> {
    let (options, root) = overlay(folder, template)?;
    undo.unmount(root.clone());
    let done = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &format!("noatime,{options}")])
        .arg(&root)
        .status()
        .context("running mount")?;
    ensure!(done.success(), "overlayfs was not mounted: {done}");
    Ok(Place { name: "overlayfs", root })
}

/// Mounts the template with fuse-overlayfs, where there is one.
pub fn fuse_overlay(undo: &Undo, folder: &Path, template: &Path) -> Result<Option<Place>> {
    if !program("fuse-overlayfs") {
        return Ok(None);
    }
    let (options, root) = overlay(folder, template)?;
    undo.unmount(root.clone());
    let done = Command::new("fuse-overlayfs").args(["-o", &format!("noatime,{options}")]).arg(&root).status()?;
    ensure!(done.success(), "fuse-overlayfs was not mounted: {done}");
    Ok(Some(Place { name: "fuse-overlayfs", root }))
}
