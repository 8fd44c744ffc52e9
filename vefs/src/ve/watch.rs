//! What somebody who follows a VE's history is told and asked: the window of a replicated VE, which this crate knows nothing of; and the
//! fence, which refuses every change.
//!
//! Invariants
//! - The core tells and never waits: [`Watcher::accepted`] and [`Watcher::bulk`] are called with the VE's lock held, all others with none.
//! - Whoever answers programs asks: [`Ve::admit`] before a changing operation and [`Ve::complete`] before its answer. [`Ve::execute`] itself
//!   asks nobody, but a fenced VE takes no change from anybody (promise G20).
//! - What waits is woken by [`Ve::wake_writers`], and by every fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::{State, Ve};
use crate::error::{Error, Result};
use crate::ids::{PayloadId, TxnNo};

/// What a changing operation does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Go,
    /// Begins after this long. Delays shorter than a scheduler can keep are not waited for, so whoever gives them adds them up.
    Delay(Duration),
    /// Waits until something changes; it is asked for again now and then, and after [`Ve::wake_writers`].
    Wait,
    /// Is refused: this node may not write.
    Fenced,
}

/// Somebody who follows a VE's history.
pub trait Watcher: Send + Sync {
    /// Asked before a changing operation that carries so many bytes begins.
    fn admit(&self, bytes: u64) -> Verdict;

    /// Asked before a changing operation is answered: `Go`, `Wait` or `Fenced`; a delay counts as `Go`.
    fn complete(&self) -> Verdict;

    /// An operation's record of so many bytes was accepted into this transaction. Called with the VE's lock held: must not wait, and must not
    /// call the VE.
    fn accepted(&self, txn: TxnNo, bytes: u64);

    /// As [`Watcher::accepted`], of pages that a program dirtied in a mapping and the kernel kept for a while: it may have done so at any time from
    /// `since` on (`CLOCK_BOOTTIME`, promise G6).
    fn accepted_late(&self, txn: TxnNo, bytes: u64, since: Duration) {
        let _ = since;
        self.accepted(txn, bytes);
    }

    /// Payload bytes of a record were written beside the journal, under this id. Called as [`Watcher::accepted`], and before it.
    fn bulk(&self, id: PayloadId, len: u64);

    /// How often such pages are to be fetched from the kernel: a third of the window.
    fn fetch_every(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// More of the history may be sealed and durable than before, or the VE's settings changed.
    fn durable(&self);
}

/// Wakes whoever holds writers back.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// The part beside the VE's lock.
#[derive(Default)]
pub(crate) struct Watch {
    /// Whether anybody is to be asked at all: all that an unwatched VE's operations pay.
    asks: AtomicBool,
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    watcher: Option<Arc<dyn Watcher>>,
    fenced: bool,
    waker: Option<Waker>,
}

/// The part under the VE's lock.
#[derive(Default)]
pub(crate) struct Hooks {
    pub watcher: Option<Arc<dyn Watcher>>,
    /// Since when the operation that is being carried out may be thought of as made, where that is not now.
    pub since: Option<Duration>,
    /// Why no change is taken.
    fenced: Option<String>,
}

impl Ve {
    /// Somebody follows this VE from now on, or nobody any more.
    pub fn set_watcher(&self, watcher: Option<Arc<dyn Watcher>>) {
        self.state.lock().hooks.watcher.clone_from(&watcher);
        self.edit_watch(|w| w.watcher = watcher);
    }

    /// Whether somebody follows it.
    pub fn is_followed(&self) -> bool {
        self.watch.asks.load(Ordering::Relaxed) && self.watch.inner.read().watcher.is_some()
    }

    /// Refuses every change from now on, and answers every operation that waits. What was accepted before is sealed and made durable as ever.
    pub fn fence(&self, reason: &str) {
        self.state.lock().hooks.fenced = Some(reason.to_owned());
        self.edit_watch(|w| w.fenced = true);
    }

    /// Takes changes again.
    pub fn unfence(&self) {
        self.state.lock().hooks.fenced = None;
        self.edit_watch(|w| w.fenced = false);
    }

    /// Why it is fenced, if it is.
    pub fn fenced(&self) -> Option<String> {
        self.state.lock().hooks.fenced.clone()
    }

    /// What a changing operation that carries so many bytes does now.
    pub fn admit(&self, bytes: u64) -> Verdict {
        self.ask(|w| w.admit(bytes))
    }

    /// What becomes of the answer of a changing operation now.
    pub fn complete(&self) -> Verdict {
        match self.ask(|w| w.complete()) {
            Verdict::Delay(_) => Verdict::Go,
            verdict => verdict,
        }
    }

    /// How often pages that programs dirtied in mappings are to be fetched from the kernel; `None` when nobody follows this VE.
    pub fn fetch_every(&self) -> Option<Duration> {
        let watcher = self.watch.inner.read().watcher.clone();
        watcher.map(|w| w.fetch_every())
    }

    /// Another verdict may be had than before: whoever holds writers back asks again.
    pub fn wake_writers(&self) {
        if let Some(wake) = &self.watch.inner.read().waker {
            wake();
        }
    }

    /// Who is to be woken; one per VE, as a VE is mounted once.
    pub(crate) fn set_waker(&self, waker: Option<Waker>) {
        self.watch.inner.write().waker = waker;
    }

    fn ask(&self, question: impl FnOnce(&dyn Watcher) -> Verdict) -> Verdict {
        // A verdict holds for the moment in which it is given, so nothing has to be ordered by this.
        if !self.watch.asks.load(Ordering::Relaxed) {
            return Verdict::Go;
        }
        let inner = self.watch.inner.read();
        if inner.fenced {
            return Verdict::Fenced;
        }
        let watcher = inner.watcher.clone();
        drop(inner);
        watcher.map_or(Verdict::Go, |w| question(&*w))
    }

    fn edit_watch(&self, edit: impl FnOnce(&mut Inner)) {
        let mut inner = self.watch.inner.write();
        edit(&mut inner);
        self.watch.asks.store(inner.fenced || inner.watcher.is_some(), Ordering::Relaxed);
        drop(inner);
        self.wake_writers();
    }
}

impl State {
    /// `Err` where the VE is fenced.
    pub(crate) fn check_fence(&self) -> Result<()> {
        match &self.hooks.fenced {
            None => Ok(()),
            Some(reason) => Err(Error::ReadOnly { ve: self.tables.ve, reason: reason.clone() }),
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
