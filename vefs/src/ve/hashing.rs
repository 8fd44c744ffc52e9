//! BLAKE3 hashes of bulk payloads: a seal needs them, no operation before it does.
//!
//! They are made from the bytes that were written, while these are in memory anyway, by the store's hashing thread. It may lag behind by
//! [`LAG_MAX`] bytes and no more: beyond that whoever writes makes the hash of his own bytes, so that neither memory nor the time
//! that a seal takes grows with the speed of writers.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::content::ExtentPlace;
use crate::content::read::read_extent;
use crate::ids::Hash;
use crate::storage::File;

/// Bytes that may wait for the hashing thread.
const LAG_MAX: usize = 32 << 20;
/// From so many waiting bytes on the thread is woken: waking it for each write would cost the writer more than the hash.
const WAKE: usize = 1 << 20;

/// Where a payload's bytes are.
enum Bulk {
    /// In memory.
    Held(Bytes),
    /// In an extent file only: recovery found them there.
    Stored(Arc<dyn File>, ExtentPlace),
}

/// The hash of a bulk payload, made or not.
pub(crate) struct PendingHash {
    /// Taken by whoever makes the hash.
    bulk: Mutex<Option<Bulk>>,
    hash: OnceLock<Result<Hash, String>>,
}

impl PendingHash {
    fn new(bulk: Bulk) -> Arc<PendingHash> {
        Arc::new(PendingHash { bulk: Mutex::new(Some(bulk)), hash: OnceLock::new() })
    }

    /// Of bytes that only an extent file has.
    pub fn stored(file: Arc<dyn File>, place: ExtentPlace) -> Arc<PendingHash> {
        PendingHash::new(Bulk::Stored(file, place))
    }

    /// Whether it was made already.
    pub fn is_made(&self) -> bool {
        self.hash.get().is_some()
    }

    /// The hash, made now if nobody has.
    pub fn get(&self) -> Result<Hash, String> {
        let make = || match self.bulk.lock().take() {
            Some(Bulk::Held(bytes)) => Ok(Hash::of(&bytes)),
            Some(Bulk::Stored(file, place)) => {
                let mut bytes = vec![0; place.len as usize];
                read_extent(&*file, &place, 0, &mut bytes).map_err(|e| e.to_string())?;
                Ok(Hash::of(&bytes))
            }
            None => Err("its bytes are gone".to_owned()),
        };
        self.hash.get_or_init(make).clone()
    }
}

/// What waits for the hashing thread of a store.
#[derive(Default)]
pub(crate) struct HashQueue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    list: VecDeque<(Arc<PendingHash>, usize)>,
    bytes: usize,
    /// There is a thread.
    open: bool,
}

impl HashQueue {
    /// The hash of these bytes: made later by the thread, or at once where there is none or it lags.
    pub fn hash(&self, bytes: &Bytes) -> Arc<PendingHash> {
        let pending = PendingHash::new(Bulk::Held(bytes.clone()));
        let mut w = self.waiting.lock();
        if !w.open || w.bytes + bytes.len() > LAG_MAX {
            drop(w);
            // It is made from memory: there is no error.
            let _ = pending.get();
            return pending;
        }
        let before = w.bytes;
        w.bytes += bytes.len();
        w.list.push_back((pending.clone(), bytes.len()));
        let wake = before < WAKE && w.bytes >= WAKE;
        drop(w);
        if wake {
            self.more.notify_one();
        }
        pending
    }

    /// Lets hashes wait from now on: somebody is about to [`HashQueue::run`].
    pub fn open(&self) {
        self.waiting.lock().open = true;
    }

    /// Makes hashes until the queue is closed.
    pub fn run(&self) {
        let mut w = self.waiting.lock();
        while w.open {
            if w.bytes < WAKE {
                self.more.wait(&mut w);
                continue;
            }
            while let Some((pending, len)) = w.list.pop_front() {
                drop(w);
                // An error is told to whoever seals.
                let _ = pending.get();
                drop(pending);
                w = self.waiting.lock();
                // Zero when the queue was closed meanwhile.
                w.bytes = w.bytes.saturating_sub(len);
            }
        }
    }

    /// Nothing waits any more; what does is made by whoever needs it.
    pub fn close(&self) {
        let mut w = self.waiting.lock();
        w.open = false;
        w.list.clear();
        w.bytes = 0;
        drop(w);
        self.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize) -> Bytes {
        Bytes::from(vec![n as u8; n])
    }

    #[test]
    fn without_a_thread_hashes_are_made_at_once() {
        let queue = HashQueue::default();
        let pending = queue.hash(&bytes(70_000));
        assert!(pending.is_made());
        assert_eq!(pending.get(), Ok(Hash::of(&bytes(70_000))));
    }

    #[test]
    fn what_lags_too_far_is_made_by_the_writer_and_the_rest_by_the_thread() {
        let queue = HashQueue::default();
        queue.open();
        let all: Vec<_> = (0..40).map(|_| queue.hash(&bytes(1 << 20))).collect();
        let late = all.iter().filter(|p| !p.is_made()).count();
        assert_eq!(late, LAG_MAX >> 20);
        std::thread::scope(|scope| {
            scope.spawn(|| queue.run());
            while all.iter().any(|p| !p.is_made()) {
                std::thread::yield_now();
            }
            queue.close();
        });
        assert!(all.iter().all(|p| p.get() == Ok(Hash::of(&bytes(1 << 20)))));
    }

    #[test]
    fn a_closed_queue_leaves_its_hashes_to_who_needs_them() {
        let queue = HashQueue::default();
        queue.open();
        let pending = queue.hash(&bytes(100));
        queue.close();
        assert!(!pending.is_made());
        assert_eq!(pending.get(), Ok(Hash::of(&bytes(100))));
        assert!(queue.hash(&bytes(5)).is_made());
    }
}
