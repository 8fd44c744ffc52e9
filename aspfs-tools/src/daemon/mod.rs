//! The daemon `aspfsd`: one store, its VEs, their mounts, and the control socket.
//!
//! Order of a start: signals are blocked (before there is any thread), the store is opened and locked, the control socket is claimed, the holder is
//! found or started and everything it holds is served again, and only then are clients heard. A stop goes the other way; mounts
//! stay with the holder, so that the next daemon goes on with them.
//!
//! **No thread of this process touches a VE's mount** (after a kill it would hang there with the store locked): paths that clients name are
//! kept as text and never followed.

pub mod args;
mod collect;
pub mod config;
mod diff;
mod files;
mod holder;
mod idle;
mod memory;
mod metrics;
mod mounting;
mod mounts;
mod pages;
mod promoted;
mod refuse;
mod replicas;
mod replication;
mod resume;
mod scrub;
mod server;
mod serving;
mod session;
mod templates;
mod turns;
mod versions;
mod ves;

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use vefs::Store;
use vefs::format::superblock::{self, Superblock};
use vefs::store::Background;

use config::Config;
use holder::{Link, LinkError};
use mounts::Mounts;
use turns::Turns;

/// Why the daemon did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The store.
    #[error("store {}: {source}", .path.display())]
    Store {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: vefs::Error,
    },
    /// The runtime folder.
    #[error("runtime folder {}: {why}", .path.display())]
    Runtime {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The control socket.
    #[error("control socket {}: {why}", .path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The holder.
    #[error(transparent)]
    Holder(#[from] LinkError),
    /// Replication.
    #[error("replication ({}): {why}", .path.display())]
    Replication {
        /// The folder of its keys.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What the daemon's threads share.
pub(crate) struct Daemon {
    store: Arc<Store>,
    config: Config,
    mounts: Mounts,
    /// What serves mounts, or why this process can serve none.
    host: Result<vefs::fuse::Host, String>,
    prepare: Prepare,
    started: Instant,
    /// Where this node is in a cluster.
    replication: parking_lot::Mutex<Option<Arc<aspfs_replica::runtime::Runtime>>>,
    comparing: Turns,
    importing: Turns,
    /// The daemon ends: what takes long ends before its time.
    stopping: AtomicBool,
}

/// What is done with each VE before its mount is served.
pub type Prepare = Box<dyn Fn(&Arc<vefs::Ve>) + Send + Sync>;

/// Runs the daemon until it is told to stop, by a signal or by a client.
pub fn run(config: Config) -> Result<(), DaemonError> {
    run_with(config, Box::new(|_| {}))
}

/// As [`run`], for whoever wants to watch VEs ([`vefs::ve::Watcher`]).
pub fn run_with(config: Config, prepare: Prepare) -> Result<(), DaemonError> {
    let io = |what| move |e: nix::Error| DaemonError::Io { what, source: e.into() };
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block().map_err(io("blocking signals"))?;
    aspfs_holder::raise_descriptor_limit();
    runtime_folder(&config.runtime_dir)?;
    let in_store = |source| DaemonError::Store { path: config.store.clone(), source };
    create_if_empty(&config.store).map_err(in_store)?;
    wait_for_predecessor(&config);
    let store = Arc::new(Store::open(&config.store, config.options.clone()).map_err(in_store)?);
    let listener = server::listen(&config.socket)?;
    let link = Link::open(&config.runtime_dir, &store_identity(&config.store)?, &config.holder)?;
    tracing::info!(store = %config.store.display(), holder = link.pid(), "store is open");

    let host = vefs::fuse::Host::new(&config.store, &store, config.linger)
        .map_err(|e| format!("this daemon cannot serve mounts: {e}"));
    if let Err(why) = &host {
        tracing::warn!("{why}");
    }
    let background = Background::start(store.clone(), config.tick)
        .map_err(|source| DaemonError::Io { what: "starting threads", source })?;
    let (mounts, started, replication) = (Mounts::new(link, store.clone()), Instant::now(), Default::default());
    let comparing = Turns::new(diff::AT_ONCE, "comparisons");
    let importing = Turns::new(templates::AT_ONCE, "imports");
    let stopping = AtomicBool::new(false);
    let daemon = Daemon { mounts, host, store, config, prepare, started, replication, comparing, importing, stopping };
    let daemon = Arc::new(daemon);
    let outcome = serve_until_told(&daemon, listener, &signals);
    // Also when it did not come to that: mounts may be served already.
    daemon.stopping.store(true, Ordering::Release);
    daemon.mounts.stop();
    // Behind the mounts: a writer that waits for its window must not go on because nobody watches it any more.
    let replication = daemon.replication.lock().take();
    drop(replication);
    drop(background);
    let store = daemon.config.store.clone();
    outcome.and(daemon.store.close().map_err(|source| DaemonError::Store { path: store, source }))
}

/// Serves mounts and clients until a signal comes.
fn serve_until_told(
    daemon: &Arc<Daemon>,
    listener: std::os::unix::net::UnixListener,
    signals: &SigSet,
) -> Result<(), DaemonError> {
    let in_threads = |source| DaemonError::Io { what: "starting a thread", source };
    let metrics = daemon.config.metrics.map(|at| metrics::start(daemon.clone(), at)).transpose();
    let metrics = metrics.map_err(|source| DaemonError::Io { what: "listening for metrics", source })?;
    // Before any mount is served: from its first moment on a writer has its window. Programs that wait for this daemon matter more than a network
    // that is not there.
    let resumer = resume::begin(daemon).map_err(in_threads)?;
    daemon.take_over()?;
    let watcher = mounts::watch(daemon.clone()).map_err(in_threads)?;
    let collector = collect::start(daemon.clone()).map_err(in_threads)?;
    let fetcher = pages::start(daemon.clone()).map_err(in_threads)?;
    let trimmer = memory::start(daemon.clone()).map_err(in_threads)?;
    let scrubber = scrub::start(daemon.clone()).map_err(in_threads)?;
    let server = server::start(daemon.clone(), listener).map_err(in_threads)?;
    idle::advise();
    tracing::info!(socket = %daemon.config.socket.display(), "ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let waited = loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => {}
            other => break other,
        }
    };
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    daemon.stopping.store(true, Ordering::Release);
    server.stop();
    drop((resumer, watcher, collector, metrics, fetcher, trimmer, scrubber));
    waited.map(drop).map_err(|e| DaemonError::Io { what: "waiting for a signal", source: e.into() })
}

/// How long a daemon that was killed may take to end: it has thousands of threads to end first.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// Waits for the end of a daemon that has the store, unless it answers. Whether the store is free is found out when it is opened.
fn wait_for_predecessor(config: &Config) {
    let Ok(lock) = std::fs::File::options().read(true).write(true).open(config.store.join("lock")) else { return };
    let taken = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
    let until = Instant::now() + PREDECESSOR;
    let mut told = false;
    while taken() && !answers(&config.socket) && Instant::now() < until {
        if !told {
            tracing::info!(store = %config.store.display(), "waiting for the process that has the store to end");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a daemon greets whoever connects. One that is being killed still has its socket for a while, but says nothing.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    stream.set_read_timeout(Some(Duration::from_millis(500))).is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}

/// Makes an empty or missing folder a store. One with anything in it is left as it is.
fn create_if_empty(path: &Path) -> vefs::Result<()> {
    let empty = match std::fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(vefs::Error::io("reading store", path.display().to_string())(e)),
        Ok(mut entries) => entries.all(|e| e.is_ok_and(|e| e.file_name() == "lost+found")),
    };
    if empty {
        Store::create(path)?;
        tracing::info!(store = %path.display(), "created");
    }
    Ok(())
}

/// The identity in the superblock, which [`Store::open`] has checked.
fn store_identity(path: &Path) -> Result<[u8; 16], DaemonError> {
    let fail = |source| DaemonError::Store { path: path.to_owned(), source };
    let bytes =
        std::fs::read(path.join("superblock")).map_err(|e| fail(vefs::Error::io("reading", "superblock")(e)))?;
    let bytes = bytes.get(..superblock::LEN).unwrap_or(&bytes);
    Superblock::parse(bytes).map(|block| block.store).map_err(|e| fail(e.at("store", "superblock")))
}

/// Makes the folder of the holder's socket, or checks that nobody else can put a socket there.
fn runtime_folder(path: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let fail = |why: String| DaemonError::Runtime { path: path.to_owned(), why };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| fail(e.to_string()))?;
    let found = std::fs::symlink_metadata(path).map_err(|e| fail(e.to_string()))?;
    let me = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.mode() & 0o022 != 0 || (found.uid() != 0 && found.uid() != me) {
        return Err(fail("must be a folder of root or of this user that nobody else may write to".into()));
    }
    Ok(())
}

/// A thread that does something now and then until it is dropped.
pub(crate) struct Periodic {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Periodic {
    /// Calls `body` every `period`.
    pub fn start(name: &str, period: Duration, mut body: impl FnMut() + Send + 'static) -> io::Result<Periodic> {
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
                body();
            }
        })?;
        Ok(Periodic { stop, thread: Some(thread) })
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a periodic thread panicked");
        }
    }
}
