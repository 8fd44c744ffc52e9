//! The control socket's listener: claims the path, accepts clients up to a bound, one thread each.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::refuse::refusal;
use super::{Daemon, DaemonError, session};
use crate::control::conn::Conn;
use crate::control::frame::Kind;
use crate::control::message::Why;

/// Claims the path: mode 0600 before anybody can connect. What is there is replaced only when it is a socket that nobody listens on.
pub fn listen(path: &Path) -> Result<UnixListener, DaemonError> {
    let fail = |why: String| DaemonError::Socket { path: path.to_owned(), why };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(fail("there is something else, which is left alone".into()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(fail("another daemon listens there".into())),
        Ok(_) => std::fs::remove_file(path).map_err(|e| fail(e.to_string()))?,
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e.to_string())),
        Err(_) => {
            if let Some(folder) = path.parent() {
                use std::os::unix::fs::DirBuilderExt;
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
                made.map_err(|e| fail(e.to_string()))?;
            }
        }
    }
    let claim = || -> rustix::io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))?;
        rustix::net::listen(&socket, 128)?;
        Ok(socket)
    };
    claim().map(UnixListener::from).map_err(|e| match e {
        rustix::io::Errno::NAMETOOLONG => fail("the path is too long for a socket (107 bytes)".into()),
        e => fail(io::Error::from(e).to_string()),
    })
}

/// The running listener.
pub struct Server {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    path: std::path::PathBuf,
}

struct Shared {
    listener: UnixListener,
    stopping: AtomicBool,
    /// Sockets of the clients that are being served, to be shut down at a stop.
    clients: Mutex<Vec<(u64, OwnedFd)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts accepting.
pub fn start(daemon: Arc<Daemon>, listener: UnixListener) -> io::Result<Server> {
    let shared = Arc::new(Shared {
        listener,
        stopping: AtomicBool::new(false),
        clients: Mutex::default(),
        threads: Mutex::default(),
    });
    let path = daemon.config.socket.clone();
    let of_thread = shared.clone();
    let thread =
        std::thread::Builder::new().name("aspfs-control".into()).spawn(move || accept_all(&daemon, &of_thread))?;
    Ok(Server { shared, thread, path })
}

fn accept_all(daemon: &Arc<Daemon>, shared: &Arc<Shared>) {
    let numbers = AtomicU64::new(0);
    while !shared.stopping.load(Ordering::Acquire) {
        let socket = match shared.listener.accept() {
            Ok((socket, _)) => socket,
            Err(e) => {
                // Shut down at a stop; else out of descriptors or memory, which passes.
                if !shared.stopping.load(Ordering::Acquire) {
                    tracing::warn!(error = %e, "accepting a client");
                    std::thread::sleep(Duration::from_millis(100));
                }
                continue;
            }
        };
        shared.threads.lock().retain(|thread| !thread.is_finished());
        let Ok(handle) = socket.as_fd().try_clone_to_owned() else { continue };
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let full = {
            let mut clients = shared.clients.lock();
            let full = clients.len() >= daemon.config.connections;
            if !full {
                clients.push((number, handle));
            }
            full
        };
        if full {
            turn_away(socket, daemon.config.connections);
            continue;
        }
        let (daemon, of_thread) = (daemon.clone(), shared.clone());
        let spawned = std::thread::Builder::new().name("aspfs-client".into()).spawn(move || {
            session::run(&daemon, socket);
            of_thread.clients.lock().retain(|(n, _)| *n != number);
        });
        match spawned {
            Ok(thread) => shared.threads.lock().push(thread),
            Err(e) => {
                tracing::warn!(error = %e, "no thread for a client");
                shared.clients.lock().retain(|(n, _)| *n != number);
            }
        }
    }
}

/// More clients than the daemon may have: said so, without waiting for anything that the client may do.
fn turn_away(socket: UnixStream, most: usize) {
    let mut conn = Conn::server(socket);
    let _ = conn.set_timeout(Some(Duration::from_millis(100)), Some(Duration::from_millis(100)));
    let _ = conn.send_message(Kind::Refusal, &refusal(Why::Busy, format!("the daemon serves {most} clients already")));
}

impl Server {
    /// Stops accepting, ends the conversations that go on, and removes the socket.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
        let _ = std::fs::remove_file(&self.path);
        // Reading ends at once; an answer that is under way still gets out.
        for (_, client) in self.shared.clients.lock().iter() {
            let _ = rustix::net::shutdown(client, rustix::net::Shutdown::Read);
        }
        for thread in std::mem::take(&mut *self.shared.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a client's thread panicked");
            }
        }
    }
}
