//! One mounted VE: what every family of requests uses.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::asker::Asker;
use super::convert;
use super::counters::{Counters, count};
use super::invalidate::Invalidator;
use super::nodes::{NodeId, Nodes, Refused};
use super::objects::Registry;
use super::pages::Pages;
use super::parked::Parked;
use super::readers::{Readers, Serving};
use super::reaping::Reaping;
use super::syncing::Syncing;
use super::tree::Tree;
use crate::errno::Errno;
use crate::error::Error;
use crate::ids::InodeNo;
use crate::lock::Mutex;
use crate::op::{Op, Reply};
use crate::types::Inode;
use crate::ve::{self, Memo, Ve};
use crate::waiting;

/// How long an operation without room waits for the kernel to tell of removed files that it has forgotten, in milliseconds.
const FORGETTING: usize = 20;

/// A VE as the kernel sees it.
pub struct Fs {
    /// What is read.
    pub(super) tree: Tree,
    /// What changes go to, and the VE's own affairs.
    pub(super) ve: Arc<Ve>,
    pub(super) nodes: Mutex<Nodes>,
    pub(super) registry: Registry,
    pub(super) syncing: Arc<Syncing>,
    pub(super) invalidator: Invalidator,
    pub(super) counters: Arc<Counters>,
    /// Held for reading by every request. Who has it for writing has stopped the mount: requests that were taken and are not answered
    /// come again to the next daemon.
    pub(super) gate: Arc<RwLock<()>>,
    pub(super) readers: Arc<Readers>,
    pub(super) parked: Arc<Parked>,
    pub(super) pages: Pages,
    pub(super) reaping: Arc<Reaping>,
    /// Tells this mount's requests from those of the VE's other mounts.
    pub(super) salt: u64,
    /// Refuses every change with EROFS.
    pub(super) read_only: bool,
    /// The kernel can write past its cache and keep that coherent.
    pub(super) direct: std::sync::atomic::AtomicBool,
}

/// An inode for the kernel.
pub struct Found {
    /// Its node id.
    pub node: NodeId,
    /// Its attributes.
    pub inode: Inode,
    /// Whether the attributes may be cached.
    pub cache: bool,
}

impl Found {
    /// The attributes as fuser sends them. It sends one number as node id and as `st_ino`: for a second node id that is the node's, the
    /// attributes are not cached, and the GETATTR that follows shows the inode's.
    pub fn attributes(&self) -> fuser::FileAttr {
        convert::attributes(self.node.0, &self.inode)
    }

    /// For how long the attributes hold.
    pub fn ttl(&self) -> std::time::Duration {
        if self.cache { convert::FOR_EVER } else { std::time::Duration::ZERO }
    }
}

impl Fs {
    /// To be held while a request is served: the mount is not stopped meanwhile.
    pub(super) fn serving(&self) -> Serving<'_> {
        self.readers.serve(self.gate.read(), true)
    }

    /// The number under which a request's answer is remembered. The kernel numbers the requests of each mount from the beginning; what an earlier
    /// mount's request of the same number was answered is in the journal, too.
    pub(super) fn number(&self, asker: Asker) -> u64 {
        asker.number() ^ self.salt
    }

    /// An inode with the node id that the kernel is to know it by.
    pub(super) fn found(&self, ino: InodeNo, inode: Inode) -> Found {
        let node = self.nodes.lock().node(ino);
        Found { node, inode, cache: node.0 == ino.0 }
    }

    /// Carries a change out, once: a request that comes again gets the answer it had.
    pub(super) fn change(&self, asker: Asker, op: &Op) -> Result<Reply, Errno> {
        if self.read_only {
            return Err(Errno::EROFS);
        }
        self.tree.check().map_err(|e| self.errno(&e))?;
        if asker.again() {
            count(&self.counters.resent, 1);
            if let Some(memo) = self.ve.answered(self.number(asker)) {
                count(&self.counters.answered_before, 1);
                return self.again(memo);
            }
        }
        let request = ve::Request { unique: self.number(asker), since: asker.since };
        let erased = self.reaping.times();
        let done = self.ve.execute(op, request).or_else(|e| self.with_room(e, erased, || self.ve.execute(op, request)));
        done.map_err(|e| self.errno(&e))
    }

    /// Tries again what found no room, if removed files that are still to be erased may have taken it. The kernel may serve some requests before
    /// it tells of what it has forgotten (`forget_batch` of fs/fuse/dev.c); while this waits, another thread is told.
    fn with_room(
        &self,
        mut error: Error,
        mut erased: u64,
        again: impl Fn() -> Result<Reply, Error>,
    ) -> Result<Reply, Error> {
        for _ in 0..FORGETTING {
            if !matches!(error, Error::Posix(Errno::EDQUOT) | Error::NoSpace { .. }) {
                break;
            }
            self.reaping.now();
            let times = self.reaping.times();
            if times != std::mem::replace(&mut erased, times) {
                match again() {
                    Err(e) => error = e,
                    done => return done,
                }
            } else if self.removed_files()? {
                waiting::wait(|| std::thread::sleep(Duration::from_millis(1)));
            } else {
                break;
            }
        }
        Err(error)
    }

    /// Whether there are removed files that nobody has open.
    fn removed_files(&self) -> Result<bool, Error> {
        let orphans = self.ve.orphans()?;
        let nodes = self.nodes.lock();
        Ok(orphans.iter().any(|ino| !nodes.is_open(*ino)))
    }

    fn again(&self, memo: Memo) -> Result<Reply, Errno> {
        Ok(match memo {
            Memo::Inode(ino) => {
                let inode = self.inode(ino)?;
                // The daemon was killed between the cut and the trimming: the kernel is to know the file as it stays.
                let trimmed = (inode.flags & Inode::CUT != 0).then(|| self.ve.trim(ino).ok()).flatten();
                Reply::Inode(ino, trimmed.unwrap_or(inode))
            }
            Memo::Written(n) => Reply::Written(n),
            Memo::Done => Reply::Done,
        })
    }

    /// As [`Fs::change`], for what answers with an inode.
    pub(super) fn change_inode(&self, asker: Asker, op: &Op) -> Result<Found, Errno> {
        match self.change(asker, op)? {
            Reply::Inode(ino, inode) => Ok(self.found(ino, inode)),
            Reply::Written(_) | Reply::Done => Err(Errno::EIO),
        }
    }

    /// An inode's attributes.
    pub(super) fn inode(&self, ino: InodeNo) -> Result<Inode, Errno> {
        self.tree.inode(ino).map_err(|e| self.errno(&e))
    }

    /// The number for an error of the core. What is not the caller's doing is logged here, once.
    pub(super) fn errno(&self, e: &Error) -> Errno {
        if !matches!(e, Error::Posix(_) | Error::NoSpace { .. } | Error::ReadOnly { .. }) {
            tracing::error!(ve = %self.ve.id(), error = %e, "request failed");
        }
        e.to_errno()
    }

    /// The number for an open that cannot be answered.
    pub(super) fn refused(&self, node: NodeId, why: Refused) -> Errno {
        match why {
            Refused::Stale { moved } => {
                if moved {
                    count(&self.counters.moved, 1);
                    self.invalidator.attributes(node);
                    tracing::info!(ve = %self.ve.id(), ino = %node.ino(), "written while it is read by passthrough");
                }
                Errno::ESTALE
            }
            Refused::Kept(e) => {
                tracing::error!(ve = %self.ve.id(), error = %e, "keeping an open");
                Errno::EIO
            }
        }
    }

    /// The kernel has forgotten a node: an orphan that nobody has open can go.
    pub(super) fn forgotten(&self, node: NodeId) {
        let ino = node.ino();
        // A version loses nothing, whatever became of the inode since.
        if self.tree.is_version() || ino == InodeNo::ROOT || !self.ve.is_orphan(ino).unwrap_or(false) {
            return;
        }
        let mut nodes = self.nodes.lock();
        if nodes.is_open(ino) {
            // Its last RELEASE is being served beside this one.
            self.reaping.forgotten_open(ino);
            return;
        }
        if let Err(e) = nodes.gone(ino, &self.registry) {
            tracing::error!(ve = %self.ve.id(), error = %e, "keeping an open");
        }
        drop(nodes);
        self.reaping.forgotten(ino);
    }
}
