//! fsync(2) without holding up a mount's readers: one flush at a time is carried out where the request came in, all others wait in a
//! queue, and a few threads for all mounts take the queues in turn. One VE's storm of fsyncs is one entry there.
//!
//! Invariant: a request in a queue is answered by whoever has set `busy`, or by a [`Pool`] thread that was told of the queue.

use std::collections::VecDeque;
use std::sync::Arc;

use fuser::ReplyEmpty;
use parking_lot::{Condvar, Mutex};

use super::convert;
use super::readers::Readers;
use crate::error::Result;
use crate::ve::Ve;

/// Threads for all mounts of a process.
const THREADS: usize = 4;

/// The threads that flush for those who cannot wait.
pub struct Pool {
    queue: Arc<Queue>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<(VecDeque<Arc<Syncing>>, bool)>,
    more: Condvar,
}

impl Pool {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Pool> {
        let queue = Arc::new(Queue::default());
        let spawn = |n: usize| {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("vefs-sync-{n}")).spawn(move || queue.serve())
        };
        let threads = (0..THREADS).map(spawn).collect::<std::io::Result<_>>()?;
        Ok(Pool { queue, threads })
    }

    /// A mount's part of it.
    pub(super) fn syncing(&self, ve: Arc<Ve>) -> Arc<Syncing> {
        Arc::new(Syncing { ve, pool: self.queue.clone(), state: Mutex::default() })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.state.lock().1 = true;
        self.queue.more.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flushing thread panicked");
            }
        }
    }
}

impl Queue {
    fn push(&self, syncing: Arc<Syncing>) {
        self.state.lock().0.push_back(syncing);
        self.more.notify_one();
    }

    fn serve(&self) {
        loop {
            let mut state = self.state.lock();
            let next = loop {
                if let Some(next) = state.0.pop_front() {
                    break next;
                }
                if state.1 {
                    return;
                }
                self.more.wait(&mut state);
            };
            drop(state);
            next.flush(Vec::new(), Ve::sync);
        }
    }
}

#[derive(Default)]
struct Waiting {
    replies: Vec<ReplyEmpty>,
    busy: bool,
}

/// The flushes of one mount.
pub struct Syncing {
    ve: Arc<Ve>,
    pool: Arc<Queue>,
    state: Mutex<Waiting>,
}

impl Syncing {
    /// Answers when everything before is durable: here if nobody of this mount flushes, else from the queue.
    pub fn sync(self: &Arc<Self>, readers: &Readers, reply: ReplyEmpty) {
        let mut state = self.state.lock();
        if state.busy {
            state.replies.push(reply);
            return;
        }
        state.busy = true;
        drop(state);
        // What is durable already is neither waited for nor tells how long a flush takes.
        self.flush(vec![reply], |ve| if ve.is_durable()? { Ok(()) } else { readers.flush(|| ve.sync()) });
    }

    /// One flush for these replies and all that wait; what comes meanwhile goes to the pool's end.
    fn flush(self: &Arc<Self>, mut replies: Vec<ReplyEmpty>, flush: impl FnOnce(&Ve) -> Result<()>) {
        replies.append(&mut self.state.lock().replies);
        let done = flush(&self.ve);
        if let Err(e) = &done {
            tracing::error!(ve = %self.ve.id(), error = %e, "fsync");
        }
        for reply in replies {
            match &done {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(convert::errno(e.to_errno())),
            }
        }
        let mut state = self.state.lock();
        state.busy = !state.replies.is_empty();
        if state.busy {
            drop(state);
            self.pool.push(self.clone());
        }
    }
}
