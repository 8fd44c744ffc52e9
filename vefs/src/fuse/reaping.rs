//! Erasing removed files that nobody has open, off the way of requests and many in one record.
//!
//! The kernel says of each removed file that it has forgotten it, in the middle of the next removal; erasing it there and then would be
//! a second record for each. Here they wait a moment for others. Who asks how much room there is, or finds none, has them erased first.
//!
//! Invariants
//! - Nobody knows an inode that is here: it has no name, nobody has it open, and the kernel has no node of it.
//! - The thread erases nothing of a mount whose gate is shut for good: its store is about to be closed.
//! - At most [`MOST`] wait per mount: whoever brings one more erases some.
//! - One record erases at most [`AT_ONCE`], and the thread rests after each as long as it took: requests want the VE, too, and its lock
//!   would go to whoever has just left it.
//! - Those that wait when the daemon is killed stay orphans until the mount ends, as all do whose FORGET got lost: it has no reply.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::error::Error;
use crate::ids::InodeNo;
use crate::ve::Ve;

/// How long removed files wait for others.
const DELAY: Duration = Duration::from_millis(20);
/// Removed files of a mount that wait at most.
const MOST: usize = 2048;
/// Removed files that one record erases.
const AT_ONCE: usize = 32;

/// The thread that erases, for all mounts of a process. It ends when the last mount and this are gone.
pub struct Reaper(Sender<Weak<Reaping>>);

impl Reaper {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Reaper> {
        let (sender, receiver) = channel();
        std::thread::Builder::new().name("vefs-reap".into()).spawn(move || serve(&receiver))?;
        Ok(Reaper(sender))
    }

    /// A mount's part of it.
    pub fn reaping(&self, ve: Arc<Ve>, gate: &Arc<RwLock<()>>) -> Arc<Reaping> {
        Arc::new_cyclic(|this| Reaping {
            ve,
            gate: gate.clone(),
            this: this.clone(),
            sender: self.0.clone(),
            waiting: Mutex::default(),
            erasing: Mutex::default(),
            open: Mutex::default(),
            times: AtomicU64::new(0),
        })
    }
}

fn serve(receiver: &Receiver<Weak<Reaping>>) {
    while let Ok(first) = receiver.recv() {
        std::thread::sleep(DELAY);
        for reaping in std::iter::once(first).chain(receiver.try_iter()) {
            if let Some(reaping) = reaping.upgrade() {
                reaping.by_and_by();
            }
        }
    }
}

/// The removed files of one mount.
pub struct Reaping {
    ve: Arc<Ve>,
    gate: Arc<RwLock<()>>,
    this: Weak<Reaping>,
    sender: Sender<Weak<Reaping>>,
    waiting: Mutex<Vec<InodeNo>>,
    /// Locked by whoever erases.
    erasing: Mutex<()>,
    /// Forgotten, and open all the same: two threads serve RELEASE and FORGET in any order.
    open: Mutex<BTreeSet<InodeNo>>,
    times: AtomicU64,
}

impl Reaping {
    /// An orphan that nobody knows any more.
    pub fn forgotten(&self, ino: InodeNo) {
        let mut waiting = self.waiting.lock();
        waiting.push(ino);
        let (first, full) = (waiting.len() == 1, waiting.len() >= MOST);
        drop(waiting);
        if full {
            let _erasing = self.erasing.lock();
            self.some();
        } else if first {
            self.tell();
        }
    }

    /// An orphan that the kernel has forgotten while it still counts as open. Called with the mount's nodes locked, as [`Reaping::closed`] is.
    pub fn forgotten_open(&self, ino: InodeNo) {
        self.open.lock().insert(ino);
    }

    /// An inode is not open any more: whether the kernel had forgotten it before.
    pub fn closed(&self, ino: InodeNo) -> bool {
        self.open.lock().remove(&ino)
    }

    /// Erases those that wait; when it returns, all that had come before are erased. Only while a request is served, or by whoever has shut the gate.
    pub fn now(&self) {
        // Held meanwhile: whoever finds nothing waiting may go on as if all were erased.
        let _erasing = self.erasing.lock();
        while self.some() {}
    }

    /// Erases those that wait now, leaving the VE to others in between. Whoever comes meanwhile comes after other mounts' files.
    fn by_and_by(&self) {
        let mut left = self.waiting.lock().len();
        while left > 0 {
            let begun = Instant::now();
            let Some(open) = self.gate.try_read() else { return };
            let erasing = self.erasing.lock();
            self.some();
            drop((erasing, open));
            left = left.saturating_sub(AT_ONCE);
            std::thread::sleep(begun.elapsed());
        }
        if !self.waiting.lock().is_empty() {
            self.tell();
        }
    }

    fn tell(&self) {
        // Without the thread the process is ending.
        let _ = self.sender.send(self.this.clone());
    }

    /// Erases some of those that wait, in their order; false when nobody does. Called with `erasing` locked.
    fn some(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let many = waiting.len().min(AT_ONCE);
        let some: Vec<InodeNo> = waiting.drain(..many).collect();
        drop(waiting);
        if some.is_empty() {
            return false;
        }
        match self.ve.reap(&some) {
            Ok(()) | Err(Error::ReadOnly { .. }) => {}
            Err(e) => tracing::warn!(ve = %self.ve.id(), error = %e, "erasing removed files"),
        }
        self.times.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// How often files were erased: what found no room may find it when this has changed.
    pub fn times(&self) -> u64 {
        self.times.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
#[path = "reaping_tests.rs"]
mod tests;
