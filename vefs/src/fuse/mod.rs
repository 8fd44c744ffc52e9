//! A VE as a mount: the kernel's FUSE requests on one side, the core on the other. Linux only; needs `/dev/fuse` and CAP_SYS_ADMIN.
//!
//! The mount itself, its device and its kept state belong to a holder, a process of its own that outlives the daemon; what is served
//! here can be killed at any moment and taken over by the next daemon (promise G7). Nothing in this room opens a socket to anybody
//! else, and no thread of a process that serves mounts may ever touch one.
//!
//! Invariants
//! - `adapter` decodes, calls and replies; `names`, `files` and `attrs` say what each family of requests means; `nodes` decides who reads
//!   a file how; `session` starts and takes over.
//! - No request handler waits for a disk while another could be read: `readers` lets another thread read then, and an fsync that comes while
//!   one is under way waits in `syncing`.
//! - A version is served as a VE is (`tree`), by an adapter that then refuses every change; nothing of it touches the VE's present state.
//! - Nor does one wait because of the VE's window: what it holds back waits in `parked`, by way of `admit`.
//! - Order of locks: a mount's gate, its nodes, then the VE's own.

mod adapter;
mod admit;
mod asker;
mod attrs;
mod brief;
mod convert;
mod counters;
mod files;
mod fs;
mod invalidate;
mod kept;
mod linger;
mod names;
mod negotiate;
mod nodes;
mod objects;
mod pages;
mod parked;
mod readers;
mod reaping;
mod reply;
mod session;
mod syncing;
mod sys;
mod tree;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

pub use counters::Figures;
pub use kept::KeptError;
pub use negotiate::WRITE_MAX;
pub use objects::Objects;
pub use session::{Mounted, ServeError};

use crate::object::ObjectStore;
use crate::store::Store;
use crate::ve::{Snapshot, Ve};
use tree::Tree;

/// Threads that serve a mount: one reads, and another one while that waits (see `readers`).
const THREADS: usize = 2;

/// How a mount is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Refuse every change with EROFS, whatever the mount's own flags say.
    pub read_only: bool,
}

/// What all mounts of a process share.
pub struct Host {
    pool: syncing::Pool,
    parked: parked::Pool,
    objects: Arc<Objects>,
    store: ObjectStore,
    invalidate: Sender<invalidate::Forget>,
    watch: Arc<readers::Watch>,
    reaper: reaping::Reaper,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.watch.end();
    }
}

impl Host {
    /// For the VEs of a store in a folder. `linger`: readers look out for the next request for some microseconds before they sleep. Errors: of
    /// making the read-only view of the folder, and of starting threads.
    pub fn new(path: &Path, store: &Store, linger: bool) -> std::io::Result<Host> {
        Ok(Host {
            pool: syncing::Pool::start()?,
            parked: parked::Pool::start()?,
            objects: Arc::new(Objects::new(path)?),
            store: store.objects().clone(),
            invalidate: invalidate::start()?,
            watch: readers::Watch::start(linger)?,
            reaper: reaping::Reaper::start()?,
        })
    }

    /// Serves a VE on a device.
    ///
    /// `device` is an open `/dev/fuse` that is mounted, or just being mounted. `kept` is a memfd that lives as long as the mount: empty
    /// the first time; later the mount is taken over from a daemon that must be dead by then.
    pub fn serve(&self, ve: Arc<Ve>, device: OwnedFd, kept: OwnedFd, options: &Options) -> Result<Mounted, ServeError> {
        session::serve(self, Tree::live(ve), device, kept, options.read_only)
    }

    /// Serves a version on a device, as [`Host::serve`] serves a VE: every change is refused with EROFS. The version is kept for as long as the
    /// process lives; for how long after that, whoever mounts it says ([`Ve::hold_mounted`]).
    pub fn serve_version(&self, version: Snapshot, device: OwnedFd, kept: OwnedFd) -> Result<Mounted, ServeError> {
        session::serve(self, Tree::Version(Arc::new(version)), device, kept, true)
    }
}
