//! The daemon's end: finding the holder of a store or starting one, and asking it.
//!
//! An answer belongs to the question before it only by its place. So a connection on which anything went wrong is shut down: what comes late on it
//! is never taken for the answer to the next question, and [`Link::renew`] makes another one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aspfs_holder::protocol::{Ask, PROTOCOL, Reply, Row, VersionOf};
use aspfs_holder::{packet, peer_is_allowed, socket_path};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, shutdown, socket_with,
};
use vefs::ids::VeId;

/// How long the holder may take to answer. It answers the first question when the process of the daemon before is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the holder could not be asked, or did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It could not be started.
    #[error("starting the holder {}: {source}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its socket cannot be used.
    #[error("the holder's socket {}: {source}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("the holder's socket {} belongs to another user", .0.display())]
    Stranger(PathBuf),
    /// Another release.
    #[error(
        "the holder (process {pid}) speaks protocol {found}, this daemon {PROTOCOL}: run the daemon that started it, and unmount first"
    )]
    Protocol {
        /// Its process.
        pid: u32,
        /// Its protocol.
        found: u32,
    },
    /// It does not answer.
    #[error("the holder does not answer{}: {source}", if .source.kind() == io::ErrorKind::WouldBlock { "; the daemon before this one may not have ended yet" } else { "" })]
    Silent {
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("the holder refused: {0}")]
    Refused(String),
    /// It answered something else.
    #[error("the holder answered out of turn")]
    Confused,
}

/// A mount as the holder hands it out.
#[derive(Debug)]
pub struct Held {
    /// What is known of it.
    pub row: Row,
    /// The open `/dev/fuse`.
    pub device: OwnedFd,
    /// The memory of its volatile state.
    pub kept: OwnedFd,
}

impl Held {
    /// The same mount, with descriptors of its own.
    pub fn try_clone(&self) -> io::Result<Held> {
        Ok(Held { row: self.row.clone(), device: self.device.try_clone()?, kept: self.kept.try_clone()? })
    }
}

/// A connection to the holder.
pub struct Link {
    path: PathBuf,
    program: PathBuf,
    connection: Mutex<Connection>,
    pid: AtomicU32,
    /// How many holders this was connected to.
    count: AtomicU64,
    /// How long an answer may take.
    patience: Duration,
}

struct Connection {
    socket: OwnedFd,
    /// The holder, where this process started it: waited for when it ends.
    child: Option<Child>,
}

impl Link {
    /// The holder of a store, started if none runs. Only whoever holds the store's lock may call this: so nobody else starts one.
    pub fn open(runtime: &Path, store: &[u8; 16], program: &Path) -> Result<Link, LinkError> {
        Link::open_with(runtime, store, program, PATIENCE)
    }

    fn open_with(runtime: &Path, store: &[u8; 16], program: &Path, patience: Duration) -> Result<Link, LinkError> {
        let path = socket_path(runtime, store);
        let (connection, pid) = connect_or_start(&path, program, patience)?;
        Ok(Link {
            path,
            program: program.to_owned(),
            connection: Mutex::new(connection),
            pid: AtomicU32::new(pid),
            count: AtomicU64::new(1),
            patience,
        })
    }

    /// Which holder it is: another one is another number. Only it has what it was given.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether the connection has ended: the holder was killed, if nothing worse.
    pub fn is_lost(&self) -> bool {
        let connection = self.connection.lock();
        let mut fds = [PollFd::from_borrowed_fd(connection.socket.as_fd(), PollFlags::RDHUP)];
        let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        asked.is_ok()
            && fds.iter().any(|fd| fd.revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }

    /// Connects to the holder again, or to a new one, which holds nothing yet.
    pub fn renew(&self) -> Result<(), LinkError> {
        let mut connection = self.connection.lock();
        let (new, pid) = connect_or_start(&self.path, &self.program, self.patience)?;
        if let Some(mut child) = std::mem::replace(&mut *connection, new).child {
            match child.try_wait() {
                Ok(Some(_)) | Err(_) => {}
                // It only closed its end.
                Ok(None) => connection.child = connection.child.take().or(Some(child)),
            }
        }
        self.pid.store(pid, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Gives the holder a mount that another holder made. It may have it already.
    pub fn adopt(&self, row: &Row, device: BorrowedFd<'_>, kept: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.talk(|socket| {
            say(socket, &Ask::Adopt(row.clone()), &[device, kept])?;
            done(hear(socket)?)
        })
    }

    /// The holder's process.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// A question and its answer. Whatever went wrong but a refusal, nothing more is heard on this connection.
    fn talk<T>(&self, talk: impl FnOnce(&OwnedFd) -> Result<T, LinkError>) -> Result<T, LinkError> {
        let connection = self.connection.lock();
        talk(&connection.socket).inspect_err(|e| {
            if !matches!(e, LinkError::Refused(_)) {
                let _ = shutdown(&connection.socket, Shutdown::Both);
            }
        })
    }

    /// Every mount that is held.
    pub fn list(&self) -> Result<Vec<Held>, LinkError> {
        self.talk(|socket| {
            say(socket, &Ask::List, &[])?;
            let mut out = Vec::new();
            loop {
                match hear(socket)? {
                    (Reply::Mount(row), fds) => out.push(held(row, fds)?.0),
                    (Reply::End, _) => return Ok(out),
                    _ => return Err(LinkError::Confused),
                }
            }
        })
    }

    /// A new mount, and a descriptor of it, to be attached with move_mount(2).
    pub fn mount(&self, row: Row) -> Result<(Held, OwnedFd), LinkError> {
        let wanted = (row.ve, row.version.clone());
        self.talk(|socket| match ask_on(socket, &Ask::Mount(row))? {
            // Another VE's root must never be served for this one.
            (Reply::Mount(row), fds) if (row.ve, &row.version) == (wanted.0, &wanted.1) => match held(row, fds)? {
                (held, Some(mount)) => Ok((held, mount)),
                _ => Err(LinkError::Confused),
            },
            _ => Err(LinkError::Confused),
        })
    }

    /// The mount is gone: the holder closes what it has of it.
    pub fn forget(&self, ve: VeId, version: Option<VersionOf>) -> Result<(), LinkError> {
        self.talk(|socket| done(ask_on(socket, &Ask::Forget { ve: ve.0, version })?))
    }

    /// Ends the holder; refused while it holds anything.
    pub fn quit(&self) -> Result<(), LinkError> {
        self.talk(|socket| done(ask_on(socket, &Ask::Quit)?))?;
        let _ = std::fs::remove_file(&self.path);
        if let Some(mut child) = self.connection.lock().child.take() {
            let _ = child.wait();
        }
        Ok(())
    }
}

/// A connection to whoever listens at the path, or to a holder that is started there; and its process.
fn connect_or_start(path: &Path, program: &Path, patience: Duration) -> Result<(Connection, u32), LinkError> {
    let at = |source: io::Error| LinkError::Socket { path: path.to_owned(), source };
    let address = SocketAddrUnix::new(path).map_err(|e| match e {
        Errno::NAMETOOLONG => at(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is too long for a socket; choose another --runtime-dir",
        )),
        e => at(e.into()),
    })?;
    // Connecting waits too, where a holder that hangs has connections in its queue.
    let packets = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for side in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, side, Some(patience))?;
        }
        Ok::<_, Errno>(socket)
    };
    let mut socket = packets().map_err(|e| at(e.into()))?;
    let mut child = None;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => {
            child = Some(start(path, &address, program)?);
            socket = packets().map_err(|e| at(e.into()))?;
            connect(&socket, &address).map_err(|e| at(e.into()))?;
        }
        Err(e) => return Err(at(e.into())),
    }
    if peer_is_allowed(&socket).is_err() {
        return Err(LinkError::Stranger(path.to_owned()));
    }
    match ask_on(&socket, &Ask::Hello { protocol: PROTOCOL })?.0 {
        Reply::Hello { protocol: PROTOCOL, pid } => Ok((Connection { socket, child }, pid)),
        Reply::Hello { protocol: found, pid } => Err(LinkError::Protocol { pid, found }),
        _ => Err(LinkError::Confused),
    }
}

fn ask_on(socket: &OwnedFd, ask: &Ask) -> Result<(Reply, Vec<OwnedFd>), LinkError> {
    say(socket, ask, &[])?;
    hear(socket)
}

fn say(socket: &OwnedFd, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
    packet::send(socket, ask, fds).map_err(|source| LinkError::Silent { source })
}

/// The answer to what has no other one.
fn done((reply, _): (Reply, Vec<OwnedFd>)) -> Result<(), LinkError> {
    if reply == Reply::Done { Ok(()) } else { Err(LinkError::Confused) }
}

fn hear(socket: &OwnedFd) -> Result<(Reply, Vec<OwnedFd>), LinkError> {
    match packet::recv(socket) {
        Ok(Some((Reply::Refused(why), _))) => Err(LinkError::Refused(why)),
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(LinkError::Silent { source: io::ErrorKind::ConnectionReset.into() }),
        Err(source) => Err(LinkError::Silent { source }),
    }
}

fn held(row: Row, fds: Vec<OwnedFd>) -> Result<(Held, Option<OwnedFd>), LinkError> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(device), Some(kept)) => Ok((Held { row, device, kept }, fds.next())),
        _ => Err(LinkError::Confused),
    }
}

/// Starts a holder with a listening socket of its own, so that it can be connected to at once.
fn start(path: &Path, address: &SocketAddrUnix, program: &Path) -> Result<Child, LinkError> {
    let at = |source: io::Error| LinkError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| at(e.into()))?;
    bind(&listener, address).map_err(|e| at(e.into()))?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600)).map_err(|e| at(e.into()))?;
    listen(&listener, 8).map_err(|e| at(e.into()))?;
    Command::new(program)
        .stdin(Stdio::from(listener.as_fd().try_clone_to_owned().map_err(at)?))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .spawn()
        .map_err(|source| LinkError::Start { program: program.to_owned(), source })
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
