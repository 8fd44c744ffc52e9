//! A program on a node that writes to the VE whenever the node lets it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aspfs_tests::node::{Node, programs};

use crate::setup::{VE, boot};

/// A record that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub number: u64,
    pub node: usize,
    /// When.
    pub at: Duration,
}

/// The record of a number: one write(2). The kernel sends one that begins in a page that it does not have whole in two requests, page by page, of which
/// the first may be all that is left; so each begins a line of its own.
pub fn record(number: u64) -> Vec<u8> {
    let mut record = format!("\n{number} ").into_bytes();
    record.resize(40 + (number % 50) as usize * 20, b'.');
    record.push(b'\n');
    record
}

/// The program.
pub struct Tries {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<(Vec<Answer>, Vec<u64>)>,
}

/// Where it works.
struct Place {
    node: usize,
    socket: PathBuf,
    dir: PathBuf,
}

impl Place {
    fn aspfs(&self, args: &[&str]) -> bool {
        let mut command = Command::new(programs().join("aspfs"));
        command.env("ASPFS_SOCKET", &self.socket).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// The log of the VE as it is mounted now, or anew.
    fn open(&self) -> Option<File> {
        let log = |dir: &Path| File::options().create(true).append(true).open(dir.join("log"));
        self.aspfs(&["umount", VE]);
        if !self.aspfs(&["mount", VE, self.dir.to_str()?]) {
            return None;
        }
        log(&self.dir).ok()
    }

    fn work(&self, stop: &AtomicBool, answered: &AtomicU64) -> (Vec<Answer>, Vec<u64>) {
        let (mut answers, mut tried) = (vec![], vec![]);
        let mut file = None;
        while !stop.load(Ordering::Relaxed) {
            let Some(log) = file.as_mut() else {
                std::thread::sleep(Duration::from_millis(100));
                file = self.open();
                continue;
            };
            // Numbers of different nodes never meet.
            let number = tried.len() as u64 * 3 + self.node as u64;
            tried.push(number);
            let record = record(number);
            let done = log.write(&record).is_ok_and(|n| n == record.len())
                && (!number.is_multiple_of(40) || log.sync_data().is_ok());
            match done {
                true => {
                    answers.push(Answer { number, node: self.node, at: boot() });
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                false => file = None,
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        (answers, tried)
    }
}

impl Tries {
    /// Starts it.
    pub fn start(node: usize, at: &Node) -> Tries {
        let place = Place { node, socket: at.socket(), dir: at.folder("tries") };
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), answered.clone());
        Tries { stop, answered, thread: std::thread::spawn(move || place.work(&stopped, &count)) }
    }

    /// Records that were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it: what was answered, and the numbers of all that was tried.
    pub fn end(self) -> (Vec<Answer>, Vec<u64>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
