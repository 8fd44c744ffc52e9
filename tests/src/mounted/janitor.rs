//! The process that cleans up after a bed, whatever happens to the test: it hears of processes and mounts on its standard input, and when
//! that ends, or the bed's time is up, it ends them and detaches those.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The test's end.
pub struct Janitor {
    process: Child,
    line: Option<ChildStdin>,
}

impl Janitor {
    /// Starts the process.
    pub fn start(program: &Path, dir: &Path, limit: Duration) -> Janitor {
        let mut command = Command::new(program);
        command.arg("janitor").arg(dir).arg(limit.as_secs().to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Janitor { line: process.stdin.take(), process }
    }

    /// A process that shall end with the bed.
    pub fn process(&mut self, pid: u32) {
        self.say(&format!("process {pid}"));
    }

    /// A mount that shall end with the bed.
    pub fn mount(&mut self, dir: &Path) {
        self.say(&format!("mount {}", dir.display()));
    }

    fn say(&mut self, what: &str) {
        writeln!(self.line.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Cleans up now.
    pub fn clean(&mut self) {
        drop(self.line.take());
        let _ = self.process.wait();
    }
}

/// The process's end: `dir` goes only when the test is no longer there to remove it.
pub fn main(dir: &Path, limit: Duration) {
    let _ = rustix::process::setsid();
    let parent = rustix::process::getppid();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let until = Instant::now() + limit;
    let next = || until.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
    let (mut processes, mut mounts): (Vec<OwnedFd>, Vec<PathBuf>) = Default::default();
    let on_time = loop {
        match receiver.recv_timeout(next()) {
            Ok(line) => match line.split_once(' ') {
                Some(("process", pid)) => processes.extend(watch(pid)),
                Some(("mount", dir)) => mounts.push(dir.into()),
                _ => {}
            },
            // A killed test does not close its end while one of its threads waits for a mount.
            Err(RecvTimeoutError::Timeout) if parent.is_some_and(is_dead) => break true,
            Err(RecvTimeoutError::Timeout) if Instant::now() >= until => break false,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break true,
        }
    };
    for process in &processes {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    for mount in mounts.iter().rev() {
        let _ = unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    if !on_time {
        eprintln!("the time of {} was up: its daemon and mounts are ended", dir.display());
    }
    if rustix::process::getppid() != parent || parent.is_some_and(is_dead) {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Whether all that is left of a process waits for its threads and its parent.
fn is_dead(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// A process that cannot be taken for another one later.
fn watch(pid: &str) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.parse().ok()?)?, PidfdFlags::empty()).ok()
}
