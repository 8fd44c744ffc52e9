//! Serving a mount: the handshake that is done once in a mount's life and replayed at every takeover, and the session's threads.
//!
//! The device and the kept state belong to the mount's holder. At the first start the kernel's INIT is read from the device and kept
//! byte for byte. At every start fuser gets that INIT through a socket pair and answers into it; then the device takes the place of
//! the socket under fuser's feet. The first time the answer goes to the kernel; later it must be the one that the kernel has, and
//! the kernel is told to send again what was under way (`FUSE_NOTIFY_RESEND`).
//!
//! Invariant: the exchange is kept before the kernel gets the answer. A kill in between leaves an INIT without an answer: so a takeover
//! first gives the kept answer again, which the kernel ignores when it has it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use fuser::{Config, Notifier, Session, SessionACL};
use parking_lot::RwLock;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::Host;
use super::adapter::Adapter;
use super::counters::{Counters, Figures};
use super::fs::Fs;
use super::invalidate::Invalidator;
use super::kept::{Exchange, Kept, KeptError, Left};
use super::linger::Linger;
use super::nodes::Nodes;
use super::objects::Registry;
use super::pages::Pages;
use super::parked::Parked;
use super::readers::Readers;
use super::reaping::Reaping;
use super::sys;
use super::tree::Tree;
use crate::entropy::{Entropy, SystemEntropy};
use crate::errno::Errno as Posix;
use crate::error::Error as CoreError;
use crate::ids::VeId;
use crate::lock::Mutex;
use crate::ve::Ve;

/// `FUSE_NOTIFY_RESEND` of linux/fuse.h.
const NOTIFY_RESEND: u32 = 7;
/// `FUSE_INIT` of linux/fuse.h.
const OPCODE_INIT: u32 = 26;
/// The kernel wants room for its largest header and write, even for INIT (`FUSE_MIN_READ_BUFFER`).
const INIT_BUFFER: usize = 64 << 10;

/// Orphans erased by one record.
const ORPHANS: usize = 1000;

/// Why a mount cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The device or a socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The error.
        source: io::Error,
    },
    /// What outlived the last daemon is of no use.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The first message of a device is not INIT: somebody else has served it.
    #[error("the FUSE device's first request is number {0}, not INIT")]
    NotInit(u32),
    /// This daemon would agree on something else with the kernel than the one before it did.
    #[error(
        "the mount was made by a daemon that agreed with the kernel on other features: unmount it and mount it again"
    )]
    Agreement,
    /// The VE failed.
    #[error(transparent)]
    Ve(#[from] CoreError),
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Io { what, source }
}

/// A mount that is being served.
pub struct Mounted {
    ve: VeId,
    gate: Arc<RwLock<()>>,
    counters: Arc<Counters>,
    parked: Arc<Parked>,
    fs: Weak<Fs>,
    reaping: Arc<Reaping>,
    device: Arc<OwnedFd>,
    kept: Kept,
    thread: JoinHandle<()>,
}

impl Mounted {
    /// Which VE.
    pub fn ve(&self) -> VeId {
        self.ve
    }

    /// Whether the mount is gone: it was unmounted.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the mount is gone.
    pub fn wait(self) {
        if self.thread.join().is_err() {
            tracing::error!(ve = %self.ve, "a mount's session panicked");
        }
    }

    /// Stops serving for good, with no request half done: for a daemon that is about to end. What was not answered comes again to the
    /// next one. The session's threads stay until the process ends.
    pub fn freeze(&self) {
        self.parked.stop();
        std::mem::forget(self.gate.write());
        self.reaping.now();
    }

    /// The device and the kept state, for a new holder: whoever has them can go on with the mount when this process is gone.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.device.as_fd(), self.kept.descriptor())
    }

    /// Answers every request that waits for the VE's window with an error, once (promise G20): for whoever ends the VE's programs. A fence does
    /// so by itself ([`Ve::fence`]).
    pub fn turn_away(&self, error: Posix) {
        self.parked.turn_away(error);
    }

    /// Requests that wait for the VE's window now.
    pub fn parked(&self) -> usize {
        self.parked.count()
    }

    /// Whether somebody who may touch the mount shall make the kernel send its dirty pages now (syncfs(2), promise G6). To be asked about once a
    /// second.
    pub fn is_fetch_due(&self) -> bool {
        self.fs.upgrade().is_some_and(|fs| fs.is_fetch_due())
    }

    /// That begins now.
    pub fn fetch_begins(&self) {
        self.fs.upgrade().iter().for_each(|fs| fs.pages.begins(fs.ve.boot_time()));
    }

    /// It has ended well.
    pub fn fetch_ended(&self) {
        self.fs.upgrade().iter().for_each(|fs| fs.pages.ended(fs.ve.boot_time()));
    }

    /// Whether another node has changed the VE since it was mounted: the mount answers EIO, and will for as long as it is there.
    pub fn is_past(&self) -> bool {
        self.fs.upgrade().is_some_and(|fs| fs.tree.check().is_err())
    }

    /// What it counted.
    pub fn figures(&self) -> Figures {
        let (parked, waited) = (self.parked.count() as u64, self.parked.total());
        Figures { parked, waited, ..self.counters.figures() }
    }
}

/// Begins to serve a VE or a version on a device.
pub(super) fn serve(
    host: &Host,
    tree: Tree,
    device: OwnedFd,
    kept: OwnedFd,
    read_only: bool,
) -> Result<Mounted, ServeError> {
    let ve = tree.ve().clone();
    let Left { kept, exchange, fetched, slots } = Kept::read(kept)?;
    let (kept_again, kept_times) = (kept.clone(), kept.clone());
    let request = match &exchange {
        Some(e) => e.request.clone(),
        None => {
            if let Tree::Live(ve, _) = &tree {
                // Nobody has anything of this VE open: a new mount.
                ve.forget_answers()?;
                reap_orphans(ve)?;
            }
            read_init(&device)?
        }
    };
    let role = ve.role();
    let fork = Some((role.fork.txn.0, role.fork.epoch.0));
    if let (Tree::Live(ve, reign), Some(before)) = (&tree, &exchange)
        && !before.is_of(&role)
    {
        reign.end(ve);
    }
    let salt = exchange.as_ref().map_or_else(|| SystemEntropy.next_u64(), |e| e.salt);
    let nodes = Nodes::new(kept, slots);
    let device = Arc::new(device);
    let registry = Registry::new(device.clone(), host.objects.clone(), host.store.clone(), nodes.backings());
    let (gate, counters) = (Arc::new(RwLock::new(())), Arc::new(Counters::default()));
    let parked = host.parked.mount(ve.clone(), gate.clone(), Some(device.clone()));
    let notifier: Arc<OnceLock<Notifier>> = Arc::default();
    let reaping = host.reaper.reaping(ve.clone(), &gate);
    let fs = Arc::new(Fs {
        tree: tree.clone(),
        ve: ve.clone(),
        nodes: Mutex::new(nodes),
        registry,
        syncing: host.pool.syncing(ve.clone()),
        invalidator: Invalidator::new(host.invalidate.clone(), notifier.clone()),
        counters: counters.clone(),
        gate: gate.clone(),
        parked: parked.clone(),
        readers: Readers::new(super::THREADS, &host.watch, Some(Linger::new(device.clone()))),
        pages: Pages::new(kept_times, fetched),
        reaping: reaping.clone(),
        salt,
        read_only,
        direct: Default::default(),
    });
    let served = Arc::downgrade(&fs);
    // The gate is shut until the kernel knows all: nothing is served before.
    let shut = gate.write();
    let (session, reply) = handshake(fs, &request)?;
    let _ = notifier.set(session.notifier());
    sys::dup_over(device.as_fd(), session.as_fd()).map_err(failed("putting the FUSE device in place"))?;
    agree(&device, exchange, &kept_again, Exchange { request, reply, salt, fork })?;
    if let Tree::Live(ve, _) = &tree {
        let waker = Arc::downgrade(&parked);
        ve.set_waker(Some(Box::new(move || waker.upgrade().iter().for_each(Parked::wake))));
    }
    drop(shut);
    let id = ve.id();
    let thread = run(session, tree, parked.clone())?;
    Ok(Mounted { ve: id, gate, counters, parked, fs: served, reaping, device, kept: kept_again, thread })
}

/// Starts the session's threads, and sees to the mount's end.
fn run(session: Session<Adapter>, tree: Tree, parked: Arc<Parked>) -> Result<JoinHandle<()>, ServeError> {
    let id = tree.ve().id();
    let thread = std::thread::Builder::new().name(format!("mount-{id}")).spawn(move || {
        match session.run() {
            Ok(()) => tracing::info!(ve = %id, "unmounted"),
            // A reader that took a request at the moment of `umount -f` hears of it like this, one that waits as ENODEV (Linux's fs/fuse/dev.c, fuse_dev_do_read).
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionAborted => {
                tracing::info!(ve = %id, "unmounted by force")
            }
            Err(e) => tracing::error!(ve = %id, error = %e, "a mount's session ended"),
        }
        if let Tree::Live(ve, _) = &tree {
            ve.set_waker(None);
        }
        parked.close();
        if let Tree::Live(ve, _) = &tree
            && let Err(e) = reap_orphans(ve)
        {
            tracing::warn!(ve = %id, error = %e, "erasing orphans");
        }
    });
    thread.map_err(failed("starting a mount's thread"))
}

/// Gives the kernel the answer to its INIT, or makes sure that it is the one that it has had, and asks for what was not answered.
fn agree(device: &OwnedFd, before: Option<Exchange>, kept: &Kept, now: Exchange) -> Result<(), ServeError> {
    let Some(before) = before else {
        kept.put_exchange(&now)?;
        return write_device(device.as_fd(), &now.reply).map_err(failed("answering the kernel's INIT"));
    };
    if before.reply != now.reply {
        return Err(ServeError::Agreement);
    }
    match write_device(device.as_fd(), &now.reply) {
        // The kernel has had it.
        Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
        other => other.map_err(failed("answering the kernel's INIT"))?,
    }
    resend(device.as_fd()).map_err(failed("asking the kernel to send again"))
}

/// Lets fuser answer an INIT, through a socket pair. Gives the session, which is still connected to that, and its answer.
fn handshake(fs: Arc<Fs>, request: &[u8]) -> Result<(Session<Adapter>, Vec<u8>), ServeError> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(io::Error::from).map_err(failed("making a socket pair"))?;
    write_device(ours.as_fd(), request).map_err(failed("passing INIT on"))?;
    let mut config = Config::default();
    config.n_threads = Some(super::THREADS);
    let session =
        Session::from_fd(Adapter(fs), theirs, SessionACL::All, config).map_err(failed("agreeing with the kernel"))?;
    let mut reply = vec![0; 4096];
    let n =
        rustix::io::read(&ours, &mut reply[..]).map_err(io::Error::from).map_err(failed("reading INIT's answer"))?;
    reply.truncate(n);
    Ok((session, reply))
}

/// Reads the INIT that a new mount's device begins with.
fn read_init(device: &OwnedFd) -> Result<Vec<u8>, ServeError> {
    let mut buf = vec![0; INIT_BUFFER];
    let n = loop {
        match rustix::io::read(device, &mut buf[..]) {
            Ok(n) => break n,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(failed("reading the kernel's INIT")(e.into())),
        }
    };
    buf.truncate(n);
    // struct fuse_in_header: length, opcode, …
    match buf.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes) {
        Some(OPCODE_INIT) => Ok(buf),
        other => Err(ServeError::NotInit(other.unwrap_or(0))),
    }
}

/// One message, in one write(2).
fn write_device(device: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    match rustix::io::write(device, message)? {
        n if n == message.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Asks for every request that was taken and not answered (struct fuse_out_header: length, code, unique 0).
fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16u32.to_le_bytes());
    message[4..8].copy_from_slice(&NOTIFY_RESEND.to_le_bytes());
    write_device(device, &message)
}

/// Erases what only an earlier mount had open.
fn reap_orphans(ve: &Ve) -> Result<(), CoreError> {
    for some in ve.orphans()?.chunks(ORPHANS) {
        match ve.reap(some) {
            Ok(()) => {}
            Err(CoreError::ReadOnly { .. }) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
