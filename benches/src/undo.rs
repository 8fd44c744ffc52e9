//! What a run has set up and must take down again, whatever happens: at the end, after an error, and when it is interrupted.
//!
//! Invariant: what is set up is entered here first, so that there is no moment in which it would be left behind.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use rustix::mount::UnmountFlags;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one that was killed is waited for.
const HANGING: Duration = Duration::from_secs(2);

/// One thing to be undone.
enum Action {
    /// Something is, or may be, mounted there.
    Unmount(PathBuf),
    /// A daemon.
    Stop(Child),
    /// A program that waits to be killed.
    Kill(Child),
    /// A daemon's holder.
    Holder(i32),
    /// The holders of a daemon that was started again and again, as far as they are known by then.
    Holders(Arc<Mutex<Vec<i32>>>),
    /// A command that takes something away.
    Run(Vec<String>),
    /// A folder.
    Remove(PathBuf),
}

/// The list, undone from its end.
#[derive(Clone, Default)]
pub struct Undo(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    actions: Vec<Action>,
    /// The process was told to end: one thread undoes everything, and no other one sets up or undoes anything.
    interrupted: bool,
}

impl Undo {
    /// An empty list that is also undone when the process is told to end.
    pub fn watched() -> Result<Undo> {
        let undo = Undo::default();
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().context("blocking signals")?;
        let mine = undo.clone();
        std::thread::Builder::new().name("interrupted".into()).spawn(move || {
            if let Ok(signal) = signals.wait() {
                mine.0.lock().interrupted = true;
                mine.undo(0);
                std::process::exit(128 + signal as i32);
            }
        })?;
        Ok(undo)
    }

    /// A place where something is about to be mounted.
    pub fn unmount(&self, place: PathBuf) {
        self.enter(Action::Unmount(place));
    }

    /// A folder with all that is in it.
    pub fn remove(&self, folder: PathBuf) {
        self.enter(Action::Remove(folder));
    }

    /// A program that waits in a place. It inherits that signals are blocked, so it is killed.
    pub fn kill(&self, child: Child) {
        self.enter(Action::Kill(child));
    }

    /// A daemon: asked to end by SIGTERM.
    pub fn stop(&self, child: Child) {
        self.enter(Action::Stop(child));
    }

    /// A holder that ends by itself once its mounts and its daemon have ended, and else is killed: undone after everything else.
    pub fn holder(&self, pid: i32) {
        self.0.lock().actions.insert(0, Action::Holder(pid));
    }

    /// Holders of a daemon that is about to be started: undone after what is entered later. Pids are put in as they are known.
    pub fn holders(&self) -> Arc<Mutex<Vec<i32>>> {
        let pids = Arc::default();
        self.enter(Action::Holders(Arc::clone(&pids)));
        pids
    }

    /// A command that takes away what is about to be set up. It fails quietly where there is nothing to take away.
    pub fn run(&self, command: &[&str]) {
        self.enter(Action::Run(command.iter().map(|w| (*w).to_owned()).collect()));
    }

    /// How far the list is now.
    pub fn mark(&self) -> usize {
        self.0.lock().actions.len()
    }

    fn enter(&self, action: Action) {
        let mut list = self.0.lock();
        if !list.interrupted {
            list.actions.push(action);
            return;
        }
        drop(list);
        run(action);
        rest();
    }

    /// Undoes what came after a mark.
    pub fn back_to(&self, mark: usize) {
        if self.0.lock().interrupted {
            rest();
        }
        self.undo(mark);
        // A signal that came meanwhile is not overtaken by the end of the process.
        if self.0.lock().interrupted {
            rest();
        }
    }

    fn undo(&self, mark: usize) {
        // The lock is not held meanwhile: who is interrupted goes on with what is left.
        let next = || {
            let actions = &mut self.0.lock().actions;
            if actions.len() > mark { actions.pop() } else { None }
        };
        while let Some(action) = next() {
            run(action);
        }
    }

    /// Undoes everything.
    pub fn all(&self) {
        self.back_to(0);
    }
}

/// Waits for the end of the process.
fn rest() -> ! {
    loop {
        std::thread::park();
    }
}

fn run(action: Action) {
    match action {
        Action::Unmount(place) => unmount(&place),
        Action::Stop(mut child) => {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let start = Instant::now();
            while start.elapsed() < PATIENCE {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        Action::Kill(mut child) => end(&mut child),
        Action::Holder(pid) => holder(pid),
        Action::Holders(pids) => pids.lock().drain(..).for_each(holder),
        Action::Run(command) => {
            if let Some((program, args)) = command.split_first() {
                let quiet = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output();
                drop(quiet);
            }
        }
        Action::Remove(folder) => {
            // A store of this process may still write in it.
            let start = Instant::now();
            while std::fs::remove_dir_all(&folder).is_err() && folder.exists() && start.elapsed() < HANGING {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Kills a program and what it started. One that waits in a mount which nobody serves ends when that is taken down: it is not waited for.
fn end(child: &mut Child) {
    let below = descendants(child.id().cast_signed());
    let _ = child.kill();
    for pid in below {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < HANGING {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All processes below one.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        // A process has children by thread (proc_pid_task(5)).
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children: Vec<i32> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
            found.extend(&children);
            next.extend(children);
        }
    }
    found
}

fn holder(pid: i32) {
    let start = Instant::now();
    let name = format!("/proc/{pid}/comm");
    let there = || std::fs::read_to_string(&name).is_ok_and(|n| n.trim() == "aspfs-holder");
    while there() && start.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(10));
    }
    if there() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Unmounts, as soon as nobody uses it. Without mount(8)'s umount, which looks at the place first and would wait for a daemon that is gone.
fn unmount(place: &std::path::Path) {
    let _ = rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
}
